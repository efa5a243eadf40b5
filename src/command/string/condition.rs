//! Conditions on what a key holds: those of SET, DELEX and DELIFEQ; and DIGEST, which stands for a value in them.
//!
//! Invariants:
//! - A value is compared as GET shows it: a number by its digits.
//! - A digest is the XXH3 of 64 bits, without a seed, of these bytes. Clients calculate it, too.

use super::{STRING, remove, text};
use crate::core::args::is;
use crate::core::key_spec::KeyFlags;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, flags};
use crate::resp::Reply;

/// The hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 16;

/// What the value at a key is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    DigestEqual,
    DigestNotEqual,
}

/// A condition on the value at a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition<'a> {
    comparison: Comparison,
    operand: &'a [u8],
}

impl<'a> Condition<'a> {
    /// That the value is this one.
    pub(super) fn equal(operand: &'a [u8]) -> Condition<'a> {
        Condition { comparison: Comparison::Equal, operand }
    }

    /// The condition that a word begins, if it is one of them. The operand follows.
    pub(super) fn named(word: &[u8], operand: &'a [u8]) -> Option<Condition<'a>> {
        const NAMES: [(&str, Comparison); 4] = [
            ("IFEQ", Comparison::Equal),
            ("IFNE", Comparison::NotEqual),
            ("IFDEQ", Comparison::DigestEqual),
            ("IFDNE", Comparison::DigestNotEqual),
        ];
        let (_, comparison) = *NAMES.iter().find(|(name, _)| is(word, name))?;
        Some(Condition { comparison, operand })
    }

    /// Whether both are of one kind, whatever they compare with.
    pub(super) fn is_like(&self, other: &Condition<'_>) -> bool {
        self.comparison == other.comparison
    }

    /// Checks the form of a digest.
    ///
    /// # Errors
    /// It has another length. Letters that are no digits make it one that no value has, as in Redis.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        let of_digest = matches!(self.comparison, Comparison::DigestEqual | Comparison::DigestNotEqual);
        if of_digest && self.operand.len() != DIGEST_DIGITS {
            return Err(CommandError::Text("ERR must be exactly 16 hexadecimal characters"));
        }
        Ok(())
    }

    /// Whether it holds for a value, or for a missing one.
    pub(super) fn holds(&self, value: Option<&[u8]>) -> bool {
        let same_digest = |value: &[u8]| self.operand.eq_ignore_ascii_case(&digest_of(value));
        match (self.comparison, value) {
            (Comparison::Equal, value) => value == Some(self.operand),
            (Comparison::NotEqual, value) => value != Some(self.operand),
            (Comparison::DigestEqual, value) => value.is_some_and(same_digest),
            (Comparison::DigestNotEqual, value) => !value.is_some_and(same_digest),
        }
    }
}

/// The digest of a value, in digits.
fn digest_of(value: &[u8]) -> [u8; DIGEST_DIGITS] {
    let digest = twox_hash::XxHash3_64::oneshot(value);
    std::array::from_fn(|at| b"0123456789abcdef"[(digest >> (60 - 4 * at)) as usize & 15])
}

pub(super) static DIGEST: Command = Command {
    name: "DIGEST",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(digest),
    since: "8.4.0",
    complexity: "O(N) where N is the length of the string.",
    syntax: "key",
    summary: "Gives the XXH3 digest of the string at a key, as hexadecimal digits.",
    ..STRING
};

fn digest(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(match call.db.string(key)? {
        Some(value) => reply.bulk(&digest_of(text(value, &mut itoa::Buffer::new()))),
        None => reply.null(),
    })
}

pub(super) static DELEX: Command = Command {
    name: "DELEX",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec {
        flags_of: Some(|args| match args.len() {
            2 => const { KeyFlags::of("RM delete") },
            _ => const { KeyFlags::of("RW access delete") },
        }),
        ..KeySpec::at(1, "RW delete variable_flags")
    }]),
    log: LogRule::Effects, // as DEL, and only when the key was removed
    handler: Handler::Data(delex),
    since: "8.4.0",
    complexity: "O(1) for IFEQ and IFNE, O(N) for IFDEQ and IFDNE where N is the length of the string.",
    syntax: "key [IFEQ ifeq-value | IFNE ifne-value | IFDEQ ifdeq-digest | IFDNE ifdne-digest]",
    summary: "Removes a key, if asked only if its string, or the digest of that, is the given one or is another one.",
    ..STRING
};

fn delex(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (args, key) = (call.args, call.key(1));
    if args.len() == 2 {
        let exists = call.db.exists(key);
        remove(call, key);
        return Ok(reply.int(exists.into()));
    }
    if args.len() != 4 {
        return Err(CommandError::Arity(call.name().to_owned()));
    }
    if !call.db.exists(key) {
        return Ok(reply.int(0));
    }
    let value = call.db.string_to_change(key);
    let not_a_string = CommandError::Text("ERR Key should be of string type if conditions are specified");
    let value = value.map_err(|_| not_a_string)?;
    let condition = Condition::named(args.at(2), args.at(3));
    let condition = condition.ok_or(CommandError::Text("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"))?;
    condition.check()?;
    let mut digits = itoa::Buffer::new();
    let holds = condition.holds(value.map(|value| text(value, &mut digits)));
    if holds {
        remove(call, key);
    }
    Ok(reply.int(holds.into()))
}

pub(super) static DELIFEQ: Command = Command {
    name: "DELIFEQ",
    arity: Arity::Exactly(3),
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RM delete")]),
    log: LogRule::Effects, // as DEL, and only when the key was removed
    handler: Handler::Data(delifeq),
    since: "valkey-9.0.0",
    syntax: "key value",
    summary: "Removes a key if its string is the given one.",
    ..STRING
};

fn delifeq(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, condition) = (call.key(1), Condition::equal(call.args.at(2)));
    let mut digits = itoa::Buffer::new();
    let value = call.db.string_to_change(key)?;
    let holds = condition.holds(value.map(|value| text(value, &mut digits)));
    if holds {
        remove(call, key);
    }
    Ok(reply.int(holds.into()))
}

#[cfg(test)]
mod tests {
    use super::digest_of;
    use crate::exec::testing::Runner;

    #[test]
    fn digests_are_those_of_every_other_xxh3() {
        for (value, digest) in [
            ("Hello world", "b6acb9d84a38ff74"),
            ("hello", "9555e8555c62dcfd"),
            ("", "2d06800538d394c2"),
            ("123", "404a763b3f4c8c9a"),
            ("v8", "0cc76dbb41381419"),
        ] {
            assert_eq!(digest_of(value.as_bytes()), digest.as_bytes(), "{value}");
        }
    }

    #[test]
    fn a_key_is_removed_on_a_condition() {
        let mut t = Runner::new();
        t.script(
            "DELEX k => :0
             DELEX k FOO x => :0
             SET k hello => +OK
             DELEX k IFEQ other => :0
             DELEX k IFNE hello => :0
             DELEX k IFDEQ 0000000000000000 => :0
             DELEX k IFDNE 9555E8555C62DCFD => :0
             DELEX k IFDEQ zzzzzzzzzzzzzzzz => :0
             DELEX k IFDEQ 123 => -ERR must be exactly 16 hexadecimal characters
             DELEX k FOO hello => -ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE
             DELEX k IFEQ => -ERR wrong number of arguments for 'delex' command
             DELEX k IFEQ a b => -ERR wrong number of arguments for 'delex' command
             GET k => $5 hello
             DELEX k IFDEQ 9555E8555C62DCFD => :1
             EXISTS k => :0
             SET n 12 => +OK
             DELIFEQ n 012 => :0
             DELIFEQ n 12 => :1
             DELIFEQ n 12 => :0
             RPUSH l a => :1
             DELEX l IFEQ a => -ERR Key should be of string type if conditions are specified
             DELIFEQ l a => -WRONGTYPE Operation against a key holding the wrong kind of value
             DELEX l => :1
             EXISTS l => :0",
        );
        assert_eq!(t.take_logged(), ["SET k hello", "DEL k", "SET n 12", "DEL n", "RPUSH l a", "DEL l"]);
        t.assert_replay_equals_live();
    }
}

//! MIGRATE: sends keys to another server. Here is what it does under the locks of its keys; `core::migration` tells
//! the whole.

use std::collections::HashSet;
use std::time::Duration;

use super::dump::payload;
use crate::base::secret::Secret;
use crate::core::key_spec::{Find, KeyFlags, Look, Places};
use crate::core::migration::{Login, Order, Outgoing};
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::resp::{Args, Reply};

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&MIGRATE];

/// Where the only key is.
const KEY: usize = 3;
/// Where the options begin.
const OPTIONS: usize = 6;
const KEY_NOT_EMPTY: CommandError =
    CommandError::Text("ERR When using MIGRATE KEYS option, the key argument must be set to the empty string");
/// The timeout of those who give none.
const TIMEOUT_MS: u64 = 1000;
/// A day: longer timeouts are this one.
const TIMEOUT_MS_MAX: u64 = 24 * 3600 * 1000;
/// How many bytes of a key an error repeats.
pub const SHOWN_BYTES: usize = 128;

static MIGRATE: Command = Command {
    name: "MIGRATE",
    arity: Arity::AtLeast(6),
    // Unlike in Redis, a script or a transaction would have to hold its keys while it waits for the network.
    flags: flags::WRITE.or(flags::MOVABLEKEYS).or(flags::NOSCRIPT).or(flags::NO_MULTI),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    keys: Keys(&[
        KeySpec { look: Some(|args| keys_of(args).0), ..KeySpec::at(KEY, "RW access delete") },
        KeySpec {
            find: Find::Range { last: -1, step: 1, limit: 0 },
            look: Some(|args| keys_of(args).1),
            // Only an old client, which looks for the word by itself, may miss some of them.
            flags_of: Some(|_| KeyFlags::of("RW access delete")),
            ..KeySpec::behind("KEYS", -2, "RW access delete incomplete")
        },
    ]),
    secrets: Some(is_secret),
    log: LogRule::Effects, // as the removal of what the target has taken
    handler: Handler::Data(migrate),
    since: "2.6.0",
    complexity: "O(N) where N is the size of the values: they are encoded as by DUMP here, sent, and decoded as by RESTORE there.",
    tips: "nondeterministic_output",
    syntax: "host port <key | \"\"> destination-db timeout [COPY@3.0.0] [REPLACE@3.0.0] [AUTH auth@4.0.7 | AUTH2 \
             username password@6.0.0] [KEYS keys [keys ...]@3.0.6]",
    summary: "Sends keys to another server, and removes those that it has taken.",
    ..Command::DEFAULT
};

/// Where the word KEYS is, if it is an option.
fn keys_word(args: Args<'_>) -> Option<usize> {
    let mut words = Words::new(args, OPTIONS);
    while let Some(word) = words.next() {
        match word {
            word if args::is(word, "KEYS") => return Some(args.len() - words.left() - 1),
            word if args::is(word, "AUTH") => words.pass_over(1),
            word if args::is(word, "AUTH2") => words.pass_over(2),
            _ => {}
        }
    }
    None
}

/// The key before the options, and those behind KEYS. A call that has both is an error, and has no key.
fn keys_of(args: Args<'_>) -> (Look, Look) {
    match keys_word(args) {
        None => (Look::At(KEY), Look::Nowhere),
        Some(_) if !args.at(KEY).is_empty() => (Look::Nowhere, Look::Nowhere),
        Some(at) => (Look::Nowhere, Look::Each(Places::from_iter(at + 1..args.len()))),
    }
}

/// Whether an argument is a user or a password.
fn is_secret(args: Args<'_>, at: usize) -> bool {
    if at <= OPTIONS || keys_word(args).is_some_and(|keys| at > keys) {
        return false;
    }
    let is = |place: usize, word: &str| place >= OPTIONS && args::is(args.at(place), word);
    is(at - 1, "AUTH") || is(at - 1, "AUTH2") || is(at - 2, "AUTH2")
}

/// The options.
#[derive(Default)]
struct Options {
    copies: bool,
    replaces: bool,
    login: Option<Login>,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Options, CommandError> {
        let (mut words, mut options) = (Words::new(args, OPTIONS), Options::default());
        while let Some(word) = words.next() {
            match word {
                word if args::is(word, "COPY") => options.copies = true,
                word if args::is(word, "REPLACE") => options.replaces = true,
                word if args::is(word, "AUTH") => {
                    options.login = Some(Login { user: None, password: Secret::new(words.value()?) });
                }
                word if args::is(word, "AUTH2") => {
                    let user = Some(Secret::new(words.value()?));
                    options.login = Some(Login { user, password: Secret::new(words.value()?) });
                }
                word if args::is(word, "KEYS") => {
                    if !args.at(KEY).is_empty() {
                        return Err(KEY_NOT_EMPTY);
                    }
                    break;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }
}

/// Reads what is to be sent. The executor begins to send it while the keys are still locked.
fn migrate(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let Options { copies, replaces, login } = Options::parse(call.args)?;
    let timeout_ms = u64::try_from(args::integer(call.args.at(5))?).ok().filter(|ms| *ms > 0);
    let timeout_ms = timeout_ms.map_or(TIMEOUT_MS, |ms| ms.min(TIMEOUT_MS_MAX));
    let db = args::integer(call.args.at(4))?;
    let mut outgoing = Vec::new();
    for key in call.keys() {
        if let Some(entry) = call.db.read(key) {
            let expiry = entry.expiry().map(|at| i64::try_from(at).unwrap_or(i64::MAX));
            outgoing.push(Outgoing { key: key.bytes.into(), expiry, payload: payload(entry.value()) });
        }
    }
    if outgoing.is_empty() {
        return Ok(reply.simple("NOKEY"));
    }
    call.migration = Some(Box::new(Order {
        host: call.args.at(1).into(),
        port: call.args.at(2).into(),
        login,
        db,
        timeout: Duration::from_millis(timeout_ms),
        copies,
        replaces,
        keys: outgoing,
    }));
    Ok(reply.withheld())
}

/// How many words [`remove_taken`] has for each key.
pub const TAKEN_WORDS: usize = 3;

/// Removes what the target has taken: each key is followed by the version that it must still have, and by the time of
/// its expiry, both as eight bytes. What has changed stays, and is an error.
pub fn remove_taken(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (db, now, mut seen, mut changed) = (call.db.index(), call.db.facts().now, HashSet::new(), Vec::new());
    let places: Vec<usize> = call.keys.named.iter().map(|named| named.place).collect();
    for (key, place) in call.keys().zip(places) {
        // Who names a key twice has sent it twice.
        if !seen.insert(key.bytes) {
            continue;
        }
        let number = |at: usize| call.args.at(at).try_into().map(i64::from_le_bytes).unwrap_or_default();
        let version = call.db.held().shard(key.shard()).watched.version(db, key.bytes);
        if version.is_some_and(|version| version as i64 == number(place + 1)) && call.db.remove(key) {
            call.record(key).delete();
            call.db.notify(NotifyFlags::GENERIC, "del", key);
        } else if call.db.exists(key) || number(place + 2) > now {
            changed.push(key.bytes);
        }
    }
    let Some(first) = changed.first() else { return Ok(reply.ok()) };
    let shown = first[..first.len().min(SHOWN_BYTES)].escape_ascii();
    let others = match changed.len() - 1 {
        0 => String::new(),
        others => format!(", like {others} others,"),
    };
    Ok(reply.error(&format_args!(
        "ERR The key '{shown}'{others} has changed while it was sent: it stays as it is, and the target has its earlier \
         value"
    )))
}

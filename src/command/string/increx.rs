//! INCREX: a counter with bounds and an expiry, as limiters of rates and quotas need it.
//!
//! Invariants:
//! - A result that the bounds or the type do not allow changes nothing, neither the value nor the expiry; with SATURATE
//!   it becomes the bound. The reply tells what was added.
//! - What is logged is the result, as for every counter.

use super::set::{Unit, deadline, is_over};
use super::{STRING, WRITE_FAST, remove, store, string_and_expiry};
use crate::base::format;
use crate::base::long_double::LongDouble;
use crate::core::args::is;
use crate::core::stored_string::StringRef;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words};
use crate::keyspace::NewValue;
use crate::resp::{Elements, Reply};

pub(super) static INCREX: Command = Command {
    name: "INCREX",
    arity: Arity::AtLeast(2),
    flags: WRITE_FAST,
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    log: LogRule::Effects,
    handler: Handler::Data(increx),
    since: "8.8.0",
    syntax: "key [NX | XX] [BYFLOAT increment | BYINT increment] [LBOUND lowerbound] [UBOUND upperbound] [SATURATE] \
             [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] [ENX]",
    summary: "Adds to the number at a key within bounds, and sets or clears its expiry.",
    ..STRING
};

/// A number of the kind that a call counts in.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Number {
    Int(i64),
    Float(LongDouble),
}

impl Number {
    /// Reads an argument, which the error names.
    fn argument(text: &[u8], is_float: bool, name: &str) -> Result<Number, CommandError> {
        match is_float {
            false => format::parse_i64(text)
                .map(Number::Int)
                .ok_or_else(|| CommandError::err(format_args!("{name} is not an integer or out of range"))),
            true => LongDouble::parse(text)
                .map(Number::Float)
                .ok_or_else(|| CommandError::err(format_args!("{name} is not a valid float"))),
        }
    }

    /// Reads the value of a key.
    fn stored(value: StringRef<'_>, is_float: bool) -> Result<Number, CommandError> {
        let number = match (value, is_float) {
            (StringRef::Int(number), false) => Some(Number::Int(number)),
            (StringRef::Int(number), true) => Some(Number::Float(LongDouble::from_i64(number))),
            (StringRef::Str(bytes) | StringRef::Raw(bytes), false) => format::parse_i64(&bytes).map(Number::Int),
            (StringRef::Str(bytes) | StringRef::Raw(bytes), true) => LongDouble::parse(&bytes).map(Number::Float),
        };
        match number {
            Some(Number::Float(number)) if !number.is_finite() => {
                Err(CommandError::Text("ERR value cannot be Infinity"))
            }
            Some(number) => Ok(number),
            None => Err(if is_float { CommandError::NotFloat } else { CommandError::NotInteger }),
        }
    }

    fn from_i64(number: i64, is_float: bool) -> Number {
        if is_float { Number::Float(LongDouble::from_i64(number)) } else { Number::Int(number) }
    }

    /// The sum, if the type has it.
    fn plus(self, other: Number) -> Option<Number> {
        match (self, other) {
            (Number::Int(one), Number::Int(other)) => one.checked_add(other).map(Number::Int),
            (Number::Float(one), Number::Float(other)) => one.checked_add(other).map(Number::Float),
            _ => unreachable!("a call counts in one kind of number"),
        }
    }

    /// What must be added to `other` to make this.
    fn minus(self, other: Number) -> Result<Number, CommandError> {
        match (self, other) {
            (Number::Int(one), Number::Int(other)) => one.checked_sub(other).map(Number::Int),
            (Number::Float(one), Number::Float(other)) => one.checked_add(other.times(-1)).map(Number::Float),
            _ => unreachable!("a call counts in one kind of number"),
        }
        .ok_or(CommandError::Text(match self {
            Number::Int(_) => "ERR applied increment would overflow",
            Number::Float(_) => "ERR applied increment would be Infinity",
        }))
    }

    fn write(self, elements: &mut Elements<'_>) {
        match self {
            Number::Int(number) => elements.int(number),
            Number::Float(number) => elements.double(&number.to_human()),
        }
    }
}

/// The options, as they are given.
#[derive(Debug, Default)]
struct Options<'a> {
    if_missing: bool,
    if_exists: bool,
    is_float: bool,
    increment: Option<&'a [u8]>,
    lower: Option<&'a [u8]>,
    upper: Option<&'a [u8]>,
    saturates: bool,
    persist: bool,
    only_new_expiry: bool,
    expiry: Option<(Unit, &'a [u8])>,
}

impl<'a> Options<'a> {
    fn of(mut words: Words<'a>) -> Result<Self, CommandError> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            options.take(word, &mut words)?;
        }
        let contradict = options.if_missing && options.if_exists
            || options.persist && (options.only_new_expiry || options.expiry.is_some());
        if contradict {
            return Err(CommandError::Syntax);
        }
        if options.only_new_expiry && options.expiry.is_none() {
            return Err(CommandError::Text("ERR ENX flag requires an expiration"));
        }
        Ok(options)
    }

    /// Takes one option. None may be given twice.
    fn take(&mut self, word: &[u8], words: &mut Words<'a>) -> Result<(), CommandError> {
        let switches = [
            ("NX", &mut self.if_missing),
            ("XX", &mut self.if_exists),
            ("SATURATE", &mut self.saturates),
            ("PERSIST", &mut self.persist),
            ("ENX", &mut self.only_new_expiry),
        ];
        if let Some((_, switch)) = switches.into_iter().find(|(name, _)| is(word, name)) {
            return if std::mem::replace(switch, true) { Err(CommandError::Syntax) } else { Ok(()) };
        }
        let is_given = if let Some(unit) = Unit::named(word) {
            self.expiry.replace((unit, words.value()?)).is_some()
        } else if is(word, "BYINT") || is(word, "BYFLOAT") {
            self.is_float = is(word, "BYFLOAT");
            self.increment.replace(words.value()?).is_some()
        } else if is(word, "LBOUND") {
            self.lower.replace(words.value()?).is_some()
        } else if is(word, "UBOUND") {
            self.upper.replace(words.value()?).is_some()
        } else {
            true
        };
        if is_given { Err(CommandError::Syntax) } else { Ok(()) }
    }

    fn increment(&self) -> Result<Number, CommandError> {
        let Some(text) = self.increment else { return Ok(Number::Int(1)) };
        match Number::argument(text, self.is_float, "Increment")? {
            Number::Float(number) if !number.is_finite() => {
                Err(CommandError::Text("ERR BYFLOAT increment cannot be Infinity"))
            }
            number => Ok(number),
        }
    }

    /// The least and the largest result. Without a bound they are those of the type.
    fn bounds(&self) -> Result<(Number, Number), CommandError> {
        let (least, largest) = match self.is_float {
            true => (Number::Float(LongDouble::largest().times(-1)), Number::Float(LongDouble::largest())),
            false => (Number::Int(i64::MIN), Number::Int(i64::MAX)),
        };
        let read = |text: Option<&[u8]>, otherwise, name| {
            text.map_or(Ok(otherwise), |text| Number::argument(text, self.is_float, name))
        };
        let (lower, upper) = (read(self.lower, least, "LBOUND")?, read(self.upper, largest, "UBOUND")?);
        if lower > upper {
            return Err(CommandError::Text("ERR LBOUND can't be greater than UBOUND"));
        }
        Ok((lower, upper))
    }
}

fn increx(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let options = Options::of(Words::new(call.args, 2))?;
    let (increment, (lower, upper)) = (options.increment()?, options.bounds()?);
    let at = options.expiry.map(|(unit, text)| deadline(unit, text, call, "increx")).transpose()?;
    let key = call.key(1);
    let found = string_and_expiry(call, key)?;
    let (exists, old_expiry) = (found.is_some(), found.and_then(|(_, expiry)| expiry));
    let zero = Number::from_i64(0, options.is_float);
    let current = found.map_or(Ok(zero), |(value, _)| Number::stored(value, options.is_float))?;
    let sum = current.plus(increment);
    let is_forbidden = if exists { options.if_missing } else { options.if_exists };
    let is_within = sum.is_some_and(|sum| lower <= sum && sum <= upper);
    if is_forbidden || !is_within && !options.saturates {
        return Ok(pair(reply, current, zero));
    }
    let (result, applied) = match sum {
        Some(sum) if is_within => (sum, increment),
        sum => {
            let is_above = sum.map_or(increment > zero, |sum| sum > upper);
            let bound = if is_above { upper } else { lower };
            (bound, bound.minus(current)?)
        }
    };
    // With ENX, an expiry that is there stays.
    let at = at.filter(|_| !options.only_new_expiry || old_expiry.is_none());
    if at.is_some_and(|at| is_over(call, at)) {
        remove(call, key);
        return Ok(pair(reply, result, applied));
    }
    let expiry = if options.persist { None } else { at.or(old_expiry) };
    match result {
        Number::Int(number) => {
            let digits = itoa::Buffer::new().format(number).to_owned();
            store(call, key, NewValue::Int(number), digits.as_bytes(), expiry);
            call.db.notify(NotifyFlags::STRING, "incrby", key);
        }
        Number::Float(number) => {
            let text = number.to_human();
            store(call, key, NewValue::Bytes(text.as_bytes()), text.as_bytes(), expiry);
            call.db.notify(NotifyFlags::STRING, "incrbyfloat", key);
        }
    }
    if at.is_some() {
        call.db.notify(NotifyFlags::GENERIC, "expire", key);
    } else if options.persist && old_expiry.is_some() {
        call.db.notify(NotifyFlags::GENERIC, "persist", key);
    }
    Ok(pair(reply, result, applied))
}

/// The reply: the value, and what was added to it.
fn pair(reply: Reply<'_>, value: Number, applied: Number) -> crate::resp::Done {
    let mut both = reply.array(2);
    value.write(&mut both);
    applied.write(&mut both);
    both.done()
}

#[cfg(test)]
mod tests {
    use super::super::tests::encoding;
    use crate::exec::testing::Runner;

    #[test]
    fn bounds_hold() {
        let mut t = Runner::new();
        t.script(
            "INCREX k => *2 :1 :1
             INCREX k BYINT -10 => *2 :-9 :-10
             INCREX k BYINT 20 UBOUND 10 => *2 :-9 :0
             INCREX k BYINT 20 UBOUND 10 SATURATE => *2 :10 :19
             INCREX k BYINT 5 UBOUND 5 SATURATE => *2 :5 :-5
             INCREX k BYINT -5 LBOUND 20 SATURATE => *2 :20 :15
             INCREX k BYINT 9223372036854775807 => *2 :20 :0
             INCREX k BYINT 9223372036854775807 SATURATE => *2 :9223372036854775807 :9223372036854775787
             INCREX k BYINT 1 SATURATE UBOUND -9223372036854775808 => -ERR applied increment would overflow
             INCREX n UBOUND 0 => *2 :0 :0
             EXISTS n => :0
             INCREX n XX => *2 :0 :0
             EXISTS n => :0
             INCREX n UBOUND 0 SATURATE => *2 :0 :0
             EXISTS n => :1
             INCREX n NX => *2 :0 :0
             INCREX f BYFLOAT 2.5 => *2 $3 2.5 $3 2.5
             INCREX f BYFLOAT 10 UBOUND 5.5 SATURATE => *2 $3 5.5 $1 3
             INCREX f BYFLOAT 10 UBOUND 5.5 => *2 $3 5.5 $1 0
             INCREX f BYFLOAT 1 LBOUND inf UBOUND inf SATURATE => -ERR applied increment would be Infinity
             SET i inf => +OK
             INCREX i BYFLOAT 1 => -ERR value cannot be Infinity",
        );
        assert_eq!((encoding(&t, "k"), encoding(&t, "f")), ("int", "embstr"));
        t.assert_replay_equals_live();
    }

    #[test]
    fn expiries_are_set_kept_and_cleared() {
        let mut t = Runner::new();
        t.script(
            "INCREX k EX 100 ENX => *2 :1 :1
             TTL k => :100
             INCREX k EX 10 ENX => *2 :2 :1
             TTL k => :100
             INCREX k EXAT 1 ENX => *2 :3 :1
             INCREX k => *2 :4 :1
             TTL k => :100
             INCREX k EX 10 UBOUND 4 => *2 :4 :0
             TTL k => :100
             INCREX k PERSIST => *2 :5 :1
             TTL k => :-1
             INCREX k PXAT 1 => *2 :6 :1
             EXISTS k => :0",
        );
        t.assert_replay_equals_live();
    }

    #[test]
    fn mistakes_are_told() {
        let mut t = Runner::new();
        t.run("RPUSH l a");
        t.run("SET s text");
        let syntax = "-ERR syntax error ";
        for (line, expected) in [
            ("INCREX l", "-WRONGTYPE Operation against a key holding the wrong kind of value "),
            ("INCREX s", "-ERR value is not an integer or out of range "),
            ("INCREX s BYFLOAT 1", "-ERR value is not a valid float "),
            ("INCREX k BYINT 1.5", "-ERR Increment is not an integer or out of range "),
            ("INCREX k BYFLOAT x", "-ERR Increment is not a valid float "),
            ("INCREX k BYFLOAT -inf", "-ERR BYFLOAT increment cannot be Infinity "),
            ("INCREX k UBOUND 1.5", "-ERR UBOUND is not an integer or out of range "),
            ("INCREX k BYFLOAT 1 LBOUND x", "-ERR LBOUND is not a valid float "),
            ("INCREX k BYFLOAT 1 LBOUND inf", "-ERR LBOUND can't be greater than UBOUND "),
            ("INCREX k LBOUND 2 UBOUND 1", "-ERR LBOUND can't be greater than UBOUND "),
            ("INCREX k ENX", "-ERR ENX flag requires an expiration "),
            ("INCREX k EX 0", "-ERR invalid expire time in 'increx' command "),
            ("INCREX k BYINT 1 BYFLOAT 1", syntax),
            ("INCREX k EX 10 EX 20", syntax),
            ("INCREX k PERSIST EX 20", syntax),
            ("INCREX k ENX PERSIST", syntax),
            ("INCREX k NX XX", syntax),
            ("INCREX k SATURATE SATURATE", syntax),
            ("INCREX k UBOUND", syntax),
            ("INCREX k FOO", syntax),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
        assert_eq!(t.run("EXISTS k"), ":0 ");
    }
}

//! Counters: integers, and floating-point numbers.
//!
//! Invariants:
//! - The result of integer arithmetic is stored as a number. The expiry is kept.
//! - What is logged is the result, never the operand: a replay must not depend on the arithmetic. INCRBYFLOAT
//!   calculates as C's `long double` does.

use super::{STRING, WRITE_FAST, store, string_and_expiry};
use crate::base::long_double::LongDouble;
use crate::core::args::integer;
use crate::core::stored_string::StringRef;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome};
use crate::keyspace::NewValue;
use crate::persist::WireValue;
use crate::resp::Reply;

/// What all counters share. They are logged by the resulting value.
const COUNTER: Command =
    Command { flags: WRITE_FAST, keys: Keys(&[KeySpec::at(1, "RW access update")]), log: LogRule::Effects, ..STRING };

pub(super) static INCR: Command = Command {
    name: "INCR",
    arity: Arity::Exactly(2),
    handler: Handler::Data(incr),
    syntax: "key",
    summary: "Adds one to the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn incr(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    add(call, reply, 1)
}

pub(super) static DECR: Command = Command {
    name: "DECR",
    arity: Arity::Exactly(2),
    handler: Handler::Data(decr),
    syntax: "key",
    summary: "Subtracts one from the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn decr(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    add(call, reply, -1)
}

pub(super) static INCRBY: Command = Command {
    name: "INCRBY",
    arity: Arity::Exactly(3),
    handler: Handler::Data(incrby),
    syntax: "key increment",
    summary: "Adds to the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn incrby(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let increment = integer(call.args.at(2))?;
    add(call, reply, increment)
}

pub(super) static DECRBY: Command = Command {
    name: "DECRBY",
    arity: Arity::Exactly(3),
    handler: Handler::Data(decrby),
    syntax: "key decrement",
    summary: "Subtracts from the integer at a key; a missing key counts as 0.",
    ..COUNTER
};

fn decrby(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let decrement = integer(call.args.at(2))?;
    add(call, reply, decrement.checked_neg().ok_or(CommandError::DecrementOverflow)?)
}

fn add(call: &mut Call<'_>, reply: Reply<'_>, increment: i64) -> Outcome {
    let key = call.key(1);
    let (current, expiry) = match string_and_expiry(call, key)? {
        None => (0, None),
        Some((StringRef::Int(number), expiry)) => (number, expiry),
        Some((StringRef::Str(bytes) | StringRef::Raw(bytes), expiry)) => (integer(&bytes)?, expiry),
    };
    let sum = current.checked_add(increment).ok_or(CommandError::Overflow)?;
    call.db.set(key, NewValue::Int(sum), expiry);
    call.record(key).set(WireValue::Int(sum), expiry);
    call.db.notify(NotifyFlags::STRING, "incrby", key);
    Ok(reply.int(sum))
}

pub(super) static INCRBYFLOAT: Command = Command {
    name: "INCRBYFLOAT",
    arity: Arity::Exactly(3),
    log: LogRule::Effects,
    handler: Handler::Data(incrbyfloat),
    since: "2.6.0",
    syntax: "key increment",
    summary: "Adds to the floating-point number at a key; a missing key counts as 0.",
    ..COUNTER
};

fn incrbyfloat(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let (current, expiry) = match string_and_expiry(call, key)? {
        None => (Some(LongDouble::from_i64(0)), None),
        Some((StringRef::Int(number), expiry)) => (Some(LongDouble::from_i64(number)), expiry),
        Some((StringRef::Str(bytes) | StringRef::Raw(bytes), expiry)) => (LongDouble::parse(&bytes), expiry),
    };
    let current = current.ok_or(CommandError::NotFloat)?;
    let increment = LongDouble::parse(call.args.at(2)).ok_or(CommandError::NotFloat)?;
    let sum = current.checked_add(increment).ok_or(CommandError::NanOrInfinity)?;
    let mut text = Vec::new();
    sum.write_human(&mut text);
    // Not stored as a number, even if it is one: `OBJECT ENCODING` says `embstr` in Redis, too.
    store(call, key, NewValue::Bytes(&text), &text, expiry);
    call.db.notify(NotifyFlags::STRING, "incrbyfloat", key);
    Ok(reply.bulk(&text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::encoding;
    use crate::exec::testing::Runner;

    #[test]
    fn integers_are_counted_up_and_down() {
        let mut t = Runner::new();
        t.script(
            "INCR k => :1
             INCRBY k 41 => :42
             DECR k => :41
             DECRBY k -9 => :50
             DECRBY new 5 => :-5
             APPEND k 1 => :3
             INCR k => :502",
        );
        assert_eq!(encoding(&t, "k"), "int", "a growable string becomes a number again");
        t.assert_replay_equals_live();
        let logged = t.take_logged();
        assert_eq!(logged[..3], ["SET k 1", "SET k 42", "SET k 41"]);
    }

    #[test]
    fn the_bounds_of_64_bits_hold() {
        let mut t = Runner::new();
        t.script(
            "SET max 9223372036854775807 => +OK
             SET min -9223372036854775808 => +OK
             INCR max => -ERR increment or decrement would overflow
             DECR min => -ERR increment or decrement would overflow
             DECRBY max -1 => -ERR increment or decrement would overflow
             DECRBY min -9223372036854775808 => -ERR decrement would overflow
             INCRBY max -9223372036854775808 => :-1
             INCRBY min 9223372036854775808 => -ERR value is not an integer or out of range
             GET min => $20 -9223372036854775808",
        );
        assert_eq!(t.take_logged().len(), 3, "what fails logs nothing");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let mut t = Runner::new();
        for text in ["", "x", "1.5", " 1", "+1", "01", "9223372036854775808"] {
            t.run(&format!("SET k '{text}'"));
            assert_eq!(t.run("INCR k"), "-ERR value is not an integer or out of range ", "{text}");
            assert_eq!(t.run(&format!("INCRBY n '{text}'")), "-ERR value is not an integer or out of range ");
        }
        for text in ["", "x", " 1", "1 ", "1e5000", "nan"] {
            t.run(&format!("SET k '{text}'"));
            assert_eq!(t.run("INCRBYFLOAT k 1"), "-ERR value is not a valid float ", "{text}");
            assert_eq!(t.run(&format!("INCRBYFLOAT n '{text}'")), "-ERR value is not a valid float ", "{text}");
        }
        t.script(
            "INCRBYFLOAT n inf => -ERR increment would produce NaN or Infinity
             SET k inf => +OK
             INCRBYFLOAT k 1 => -ERR increment would produce NaN or Infinity
             GET n => $-1",
        );
    }

    #[test]
    fn floating_point_sums_are_those_of_a_long_double() {
        let mut t = Runner::new();
        t.script(
            "SET k 10.50 => +OK
             INCRBYFLOAT k 0.1 => $4 10.6
             INCRBYFLOAT k -5 => $3 5.6
             SET k 5.0e3 => +OK
             INCRBYFLOAT k 2.0e2 => $4 5200
             SET k 3 => +OK
             INCRBYFLOAT k 1.000000000000000005 => $19 4.00000000000000001
             INCRBYFLOAT k 0.99999999999999999 => $1 5
             INCRBYFLOAT new 0.1 => $3 0.1",
        );
        assert_eq!(encoding(&t, "k"), "embstr", "as in Redis, even where the result is an integer");
    }

    #[test]
    fn counting_keeps_the_expiry_and_the_log_holds_results() {
        let mut t = Runner::new();
        let until = t.now() + 100;
        t.script(
            "SET k 1 PX 100 => +OK
             INCR k => :2
             INCRBYFLOAT k 0.5 => $3 2.5",
        );
        t.assert_replay_equals_live();
        assert_eq!(
            t.take_logged(),
            [format!("SET k 1 PXAT {until}"), format!("SET k 2 PXAT {until}"), format!("SET k 2.5 PXAT {until}")]
        );
        t.advance_ms(100);
        t.script("INCR k => :1");
        assert_eq!(t.take_logged(), ["DEL k", "SET k 1"]);
    }
}

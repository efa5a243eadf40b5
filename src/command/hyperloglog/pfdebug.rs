//! PFDEBUG and PFSELFTEST, which look into HyperLogLogs.

use super::{HYPERLOGLOG, corrupt, stored};
use crate::core::args::is;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, flags};
use crate::keyspace::Key;
use crate::resp::Reply;
use crate::value::hyperloglog::{self, Encoding, REGISTERS, Run};

pub(super) static PFDEBUG: Command = Command {
    name: "PFDEBUG",
    arity: Arity::Exactly(3),
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::ADMIN),
    keys: Keys(&[KeySpec::at(2, "RW access")]),
    log: LogRule::Effects, // as the value, where it became dense
    handler: Handler::Data(pfdebug),
    complexity: "O(N) where N is the number of registers.",
    syntax: "subcommand key",
    summary: "Shows the registers or the encoding of a HyperLogLog, or makes it dense.",
    ..HYPERLOGLOG
};

fn pfdebug(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (subcommand, key) = (call.args.at(1), call.key(2));
    let value = call.db.string_to_change(key)?.ok_or(CommandError::Text("ERR The specified key does not exist"))?;
    let hll = stored(value)?;
    if is(subcommand, "GETREG") {
        let mut registers = [0; REGISTERS];
        hyperloglog::merge(&mut registers, hll.bytes).map_err(corrupt)?;
        // Redis makes it dense on the way.
        make_dense(call, key)?;
        let mut elements = reply.array(REGISTERS);
        registers.iter().for_each(|&register| elements.int(i64::from(register)));
        return Ok(elements.done());
    }
    let is_growable = hll.is_growable;
    let done = if is(subcommand, "TODENSE") {
        let made = make_dense(call, key)?;
        return Ok(reply.int(i64::from(made)));
    } else if is(subcommand, "DECODE") {
        match hll.encoding {
            Encoding::Dense => return Err(CommandError::Text("ERR HLL encoding is not sparse")),
            Encoding::Sparse => reply.bulk(decoded(hll.bytes).as_bytes()),
        }
    } else if is(subcommand, "ENCODING") {
        reply.simple(if hll.encoding == Encoding::Dense { "dense" } else { "sparse" })
    } else {
        return Err(CommandError::echo("Unknown PFDEBUG subcommand '", subcommand, "'"));
    };
    if !is_growable {
        call.db.make_growable(key);
    }
    Ok(done)
}

/// Makes the HyperLogLog at a key dense, and logs that. Returns whether it was sparse.
fn make_dense(call: &mut Call<'_>, key: Key<'_>) -> Result<bool, CommandError> {
    let Some(hll) = call.db.string_to_change(key)?.map(stored).transpose()? else { return Ok(false) };
    if hll.encoding == Encoding::Dense {
        return Ok(false);
    }
    let mut dense = hll.bytes.to_vec();
    hyperloglog::make_dense(&mut dense).map_err(corrupt)?;
    *call.db.raw_mut(key).ok_or(CommandError::WrongType)? = dense;
    call.db.log_state(key);
    Ok(true)
}

/// The runs of a sparse value in readable form.
fn decoded(hll: &[u8]) -> String {
    let run = |run| match run {
        Run::Zero(len) => format!("z:{len}"),
        Run::XZero(len) => format!("Z:{len}"),
        Run::Val(value, len) => format!("v:{value},{len}"),
    };
    hyperloglog::runs(hll).map(run).collect::<Vec<_>>().join(" ")
}

pub(super) static PFSELFTEST: Command = Command {
    name: "PFSELFTEST",
    arity: Arity::Exactly(1),
    flags: flags::ADMIN,
    handler: Handler::Data(pfselftest),
    complexity: "O(1), but a large part of a second.",
    summary: "Checks the implementation of HyperLogLogs.",
    ..HYPERLOGLOG
};

fn pfselftest(_call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let seed = crate::base::random::with(|random| random.next_u64());
    match hyperloglog::self_test(seed) {
        Ok(()) => Ok(reply.simple("OK")),
        Err(what) => Err(CommandError::Message(format!("TESTFAILED {what}"))),
    }
}

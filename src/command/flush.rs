//! Commands for databases as a whole: DBSIZE, FLUSHALL, FLUSHDB, SWAPDB.
//!
//! They run alone. A flush takes directories out, a swap exchanges them: the work is per shard, not per
//! key, and what was taken out is freed by another thread, whichever of SYNC and ASYNC was asked for.

use smallvec::SmallVec;

use super::{Arity, Call, Command, CommandError, Db, Handler, Log, Outcome, args, categories, flags};
use crate::keyspace::SHARDS;
use crate::resp::Reply;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&DBSIZE, &FLUSHALL, &FLUSHDB, &SWAPDB];

static DBSIZE: Command = Command {
    name: "DBSIZE",
    arity: Arity::Exactly(1),
    flags: flags::READONLY.or(flags::FAST).or(flags::GATE),
    categories: categories::KEYSPACE,
    handler: Handler::Data(dbsize),
    group: "server",
    tips: "request_policy:all_shards response_policy:agg_sum",
    summary: "Counts the keys of the selected database.",
    ..Command::DEFAULT
};

fn dbsize(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (keys, _) = call.db.keyspace().count(call.db.index());
    Ok(reply.int(keys as i64))
}

static FLUSHALL: Command = Command {
    name: "FLUSHALL",
    arity: Arity::AtLeast(1),
    flags: flags::WRITE.or(flags::GATE),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    log: Log::Barrier,
    handler: Handler::Data(flushall),
    group: "server",
    complexity: "O(1) while others wait: the keys are freed in the background.",
    tips: "request_policy:all_shards response_policy:all_succeeded",
    syntax: "[ASYNC | SYNC]",
    summary: "Removes all keys of all databases.",
    ..Command::DEFAULT
};

fn flushall(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    check_flush_mode(call)?;
    flush(&mut call.db, |_| true);
    Ok(reply.ok())
}

static FLUSHDB: Command = Command {
    name: "FLUSHDB",
    handler: Handler::Data(flushdb),
    summary: "Removes all keys of the selected database.",
    ..FLUSHALL
};

fn flushdb(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    check_flush_mode(call)?;
    let index = call.db.index();
    flush(&mut call.db, |db| db == index);
    Ok(reply.ok())
}

fn check_flush_mode(call: &Call<'_>) -> Result<(), CommandError> {
    match call.args.len() {
        1 => Ok(()),
        2 if args::is(call.args.at(1), "SYNC") || args::is(call.args.at(1), "ASYNC") => Ok(()),
        _ => Err(CommandError::Syntax),
    }
}

/// Empties the databases that `chosen` names. Every key counts as a change.
fn flush(db: &mut Db<'_>, chosen: impl Fn(u32) -> bool) {
    let (keyspace, now) = (db.keyspace(), db.facts().now);
    for number in 0..SHARDS as u16 {
        let shard = db.held().shard(number);
        let filled: SmallVec<[u32; 16]> = shard.databases().map(|(db, _)| db).filter(|&db| chosen(db)).collect();
        let mut retired = SmallVec::<[_; 1]>::new();
        for emptied in filled {
            shard.watched_replaced(emptied, None, now);
            retired.extend(shard.replace_directory(emptied, None));
        }
        keyspace.renew_earliest_expiry(number, shard);
        let scratch = db.scratch();
        scratch.dirty += retired.iter().map(|directory| directory.len() as u64).sum::<u64>();
        scratch.retired_directories.extend(retired);
        db.release();
    }
}

static SWAPDB: Command = Command {
    name: "SWAPDB",
    arity: Arity::Exactly(3),
    flags: flags::WRITE.or(flags::FAST).or(flags::GATE),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    log: Log::Barrier,
    handler: Handler::Data(swapdb),
    since: "4.0.0",
    group: "server",
    complexity: "O(1): no key is touched.",
    syntax: "index1 index2",
    summary: "Exchanges the keys of two databases.",
    ..Command::DEFAULT
};

fn swapdb(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let number = |at, text| {
        let number = args::integer(call.args.at(at)).ok().and_then(|number| i32::try_from(number).ok());
        number.ok_or(CommandError::OutOfRange(text))
    };
    let one = number(1, "invalid first DB index")?;
    let other = number(2, "invalid second DB index")?;
    let databases = call.db.keyspace().databases();
    let within = |number: i32| u32::try_from(number).ok().filter(|&index| index < databases);
    let (Some(one), Some(other)) = (within(one), within(other)) else {
        return Err(CommandError::OutOfRange("DB index is out of range"));
    };
    let now = call.db.facts().now;
    if one != other {
        for number in 0..SHARDS as u16 {
            let shard = call.db.held().shard(number);
            shard.watched_replaced(one, Some(other), now);
            shard.watched_replaced(other, Some(one), now);
            shard.swap(one, other);
            call.db.release();
        }
    }
    call.db.scratch().dirty += 1;
    Ok(reply.ok())
}

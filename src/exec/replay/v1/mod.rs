//! The meaning of logs of format version 1: a frozen translation of their words into verbs.
//!
//! Version 1 logged command-like words: effects as a few fixed words (`DEL`, `SET … PXAT`, `STATE`), and many
//! commands of one key as a client had sent them. The list of these words is closed, and so is their grammar. Nothing
//! here depends on today's commands: no handler, no argument parser, no rule of today's ZADD. A word that is not on
//! the list is refused.
//!
//! - Each word is translated with regard to the key's value, because many depend on it (`INCR`, `LINSERT`), and its
//!   verbs are applied one by one. Conditions held when the word was logged, so most are not checked again.
//! - Names and options were logged in whatever case the client wrote them.
//!
//! | | words |
//! |---|---|
//! | any type | DEL, PEXPIREAT, PERSIST, STATE |
//! | strings | SET, APPEND, SETRANGE, INCR, DECR, INCRBY, DECRBY, SETBIT, BITFIELD, PFADD |
//! | lists | LPUSH, RPUSH, LPUSHX, RPUSHX, LPOP, RPOP, LSET, LINSERT, LREM, LTRIM |
//! | sets | SADD, SREM |
//! | hashes | HSET, HMSET, HSETNX, HINCRBY, HSETEX, HDEL, HPEXPIREAT, HPERSIST |
//! | sorted sets | ZADD, ZINCRBY, ZREM, ZPOPMIN, ZPOPMAX, ZREMRANGEBYRANK, -SCORE, -LEX |
//! | streams | XADD, XDEL, XTRIM, XSETID, XDELEX, XACKDEL, XACK, XGROUP, XDELIVERED, XCLAIMED |
//! | barriers | FLUSHALL, FLUSHDB, SWAPDB, RENAME, RENAMENX, COPY, MOVE, DEBUG POPULATE |

mod bits;
mod collections;
mod streams;
mod strings;
#[cfg(test)]
mod tests;
mod texts;
mod zsets;

use super::{Outcome, apply, refused};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::keyspace::Key;
use crate::persist::record::EncodedVerb;
use crate::persist::verbs::{RecordWriter, Verb};
use texts::integer;

/// The error for words that version 1 cannot have logged.
const MALFORMED: CommandError = CommandError::Text("a record of version 1 is malformed");

/// The words of a record.
type Words<'w> = [&'w [u8]];

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn at<'w>(words: &Words<'w>, index: usize) -> Result<&'w [u8], CommandError> {
    words.get(index).copied().ok_or(MALFORMED)
}

fn integer_at(words: &Words<'_>, index: usize) -> Result<i64, CommandError> {
    integer(at(words, index)?).ok_or(MALFORMED)
}

fn number_at(words: &Words<'_>, index: usize) -> Result<u64, CommandError> {
    u64::try_from(integer_at(words, index)?).map_err(|_| MALFORMED)
}

/// The words from an index on, at least one.
fn from<'a, 'w>(words: &'a Words<'w>, index: usize) -> Result<&'a Words<'w>, CommandError> {
    words.get(index..).filter(|rest| !rest.is_empty()).ok_or(MALFORMED)
}

/// Applies one verb.
fn say(db: &mut Db<'_>, key: Key<'_>, write: impl FnOnce(RecordWriter<'_>)) -> Outcome {
    let mut record = Vec::new();
    write(RecordWriter::new(&mut record, key.shard(), 0, db.index(), key.bytes));
    let Some(encoded) = EncodedVerb::of_record(&record) else { return Err(MALFORMED) };
    apply::apply(db, key, encoded.verb())
}

/// The key of words that are not a barrier.
///
/// # Errors
/// There is none.
pub(super) fn key<'w>(words: &Words<'w>) -> Result<&'w [u8], CommandError> {
    at(words, if is(at(words, 0)?, "XGROUP") { 2 } else { 1 })
}

/// Applies words to their key.
///
/// # Errors
/// The words do not fit, or version 1 had no such words.
pub(super) fn apply(db: &mut Db<'_>, key: Key<'_>, words: &Words<'_>) -> Outcome {
    let name = at(words, 0)?.to_ascii_uppercase();
    let Ok(name) = std::str::from_utf8(&name) else { return Err(MALFORMED) };
    match name {
        "DEL" if words.len() == 2 => say(db, key, |record| record.delete()),
        "PERSIST" if words.len() == 2 => only_if_there(db, key, |record| record.persist()),
        "PEXPIREAT" if words.len() == 3 => {
            let at = integer_at(words, 2)?;
            only_if_there(db, key, |record| record.expire_at(at))
        }
        "SET" | "STATE" | "APPEND" | "SETRANGE" | "INCR" | "DECR" | "INCRBY" | "DECRBY" | "PFADD" => {
            strings::apply(db, key, name, words)
        }
        "SETBIT" | "BITFIELD" => bits::apply(db, key, name, words),
        "LPUSH" | "RPUSH" | "LPUSHX" | "RPUSHX" | "LPOP" | "RPOP" | "LSET" | "LINSERT" | "LREM" | "LTRIM" => {
            collections::apply_to_list(db, key, name, words)
        }
        "SADD" => say(db, key, |record| record.set_add(words.iter().skip(2).copied())),
        "SREM" => say(db, key, |record| record.set_remove(words.iter().skip(2).copied())),
        "HSET" | "HMSET" | "HSETNX" | "HINCRBY" | "HSETEX" | "HDEL" | "HPEXPIREAT" | "HPERSIST" => {
            collections::apply_to_hash(db, key, name, words)
        }
        "ZADD" | "ZINCRBY" | "ZREM" | "ZPOPMIN" | "ZPOPMAX" | "ZREMRANGEBYRANK" | "ZREMRANGEBYSCORE"
        | "ZREMRANGEBYLEX" => zsets::apply(db, key, name, words),
        "XADD" | "XDEL" | "XTRIM" | "XSETID" | "XDELEX" | "XACKDEL" | "XACK" | "XGROUP" | "XDELIVERED" | "XCLAIMED" => {
            streams::apply(db, key, name, words)
        }
        _ => refused("version 1 logged no such words"),
    }
}

/// Applies a verb for which a missing key was not an error.
fn only_if_there(db: &mut Db<'_>, key: Key<'_>, write: impl FnOnce(RecordWriter<'_>)) -> Outcome {
    if db.exists(key) { say(db, key, write) } else { Ok(()) }
}

/// The barrier that the words stand for, if any.
pub(super) fn barrier<'w>(db: u32, words: &Words<'w>, databases: u32) -> Option<Result<Verb<'w>, CommandError>> {
    let name = words.first()?;
    let index = |at: usize| {
        let index = integer_at(words, at)?;
        u32::try_from(index).ok().filter(|index| *index < databases).ok_or(MALFORMED)
    };
    let to = |copies, to_db| Ok(Verb::Transfer { copies, source: at(words, 1)?, to_db, destination: at(words, 2)? });
    Some(match name {
        name if is(name, "FLUSHALL") => Ok(Verb::FlushAll),
        name if is(name, "FLUSHDB") => Ok(Verb::FlushDb),
        name if is(name, "SWAPDB") => index(1).and_then(|one| index(2).map(|other| Verb::SwapDbs { one, other })),
        name if is(name, "RENAME") || is(name, "RENAMENX") => to(false, db),
        name if is(name, "COPY") => {
            let named = words.iter().skip(3).position(|word| is(word, "DB"));
            named.map_or(Ok(db), |place| index(place + 4)).and_then(|to_db| to(true, to_db))
        }
        name if is(name, "MOVE") => index(2).and_then(|to_db| {
            let key = at(words, 1)?;
            Ok(Verb::Transfer { copies: false, source: key, to_db, destination: key })
        }),
        name if is(name, "DEBUG") => populate(words),
        _ => return None,
    })
}

/// DEBUG POPULATE count [prefix [size]]; a prefix ended at its first zero byte.
fn populate<'w>(words: &Words<'w>) -> Result<Verb<'w>, CommandError> {
    if !is(at(words, 1)?, "POPULATE") {
        return Err(MALFORMED);
    }
    let prefix = words.get(3).map_or(&b"key"[..], |prefix| texts::until_nul(prefix));
    let size = if words.len() > 4 { number_at(words, 4)? } else { 0 };
    Ok(Verb::Populate { count: number_at(words, 2)?, size, prefix })
}

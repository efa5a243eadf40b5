//! Replay applies the verbs of the log to the keys with the value layer alone. No command handler runs, so a change
//! of a command does not change what a log means.
//!
//! - A record is applied under the lock of its shard alone, a barrier under the locks that it needs. Nothing expires,
//!   and nothing is logged.
//! - Impossible effects are refused: a verb for another type, a missing element. A log that is applied to the state
//!   that it was written for never has any.
//! - Records of version 1 are words. [`v1`] holds their meaning.

mod apply;
mod barrier;
#[cfg(test)]
mod tests;
mod v1;

use crate::base::clock;
use crate::base::config::RdbVersionCheck;
use crate::command::keys::dump::Building;
use crate::core::db::{Db, Facts};
use crate::core::{CommandError, Scratch, Unit, Wants};
use crate::keyspace::access::AccessClock;
use crate::keyspace::{Held, Keyspace};
use crate::persist::record::{Effect, Record};
use crate::persist::verbs::Verb;
use crate::value::Limits;
use crate::value::stream::Window;

/// The result of applying a record. The text of the error says what does not fit.
type Outcome = Result<(), CommandError>;

/// The error for a record that does not fit the state to which it is applied.
const fn refused<T>(what: &'static str) -> Result<T, CommandError> {
    Err(CommandError::Text(what))
}

/// Applies one record of the log.
///
/// # Errors
/// The record does not fit: the log is not of this keyspace, or is damaged.
pub fn replay(keyspace: &Keyspace, replayer: &mut Replayer, record: &Record<'_>) -> Result<(), String> {
    match record.effect {
        Effect::Words(words) => {
            let words: Vec<&[u8]> = words.collect();
            replay_words(keyspace, replayer, record.db, &words)
        }
        Effect::Verb(encoded) => {
            if !record.is_barrier() && keyspace.key(encoded.key).shard() != record.shard {
                return Err(format!("{}: a key of another shard", encoded.code.name()));
            }
            let applied = replay_verb(keyspace, replayer, record.db, encoded.key, encoded.verb());
            applied.map_err(|what| match record.is_barrier() {
                true => format!("{}: {what}", encoded.code.name()),
                false => format!("{} (shard {}, number {}): {what}", encoded.code.name(), record.shard, record.seq),
            })
        }
    }
}

/// Applies a verb to a key. For a barrier, the key means nothing.
///
/// # Errors
/// What does not fit.
pub fn replay_verb(
    keyspace: &Keyspace,
    replayer: &mut Replayer,
    db: u32,
    key: &[u8],
    verb: Verb<'_>,
) -> Result<(), String> {
    if verb.code().is_barrier() {
        return replayer.work(barrier::hold(keyspace, &verb), db, |db| barrier::apply(db, verb));
    }
    let key = keyspace.key(key);
    replayer.work(Held::one(keyspace, key.shard()), db, |db| apply::apply(db, key, verb))
}

/// Applies words of version 1.
///
/// # Errors
/// What does not fit, or that there were no such words.
pub fn replay_words(keyspace: &Keyspace, replayer: &mut Replayer, db: u32, words: &[&[u8]]) -> Result<(), String> {
    let applied = match v1::barrier(db, words, keyspace.databases()) {
        Some(barrier) => barrier
            .map_err(|error| error.to_string())
            .and_then(|verb| replayer.work(barrier::hold(keyspace, &verb), db, |db| barrier::apply(db, verb))),
        None => v1::key(words).map_err(|error| error.to_string()).and_then(|key| {
            let key = keyspace.key(key);
            replayer.work(Held::one(keyspace, key.shard()), db, |db| v1::apply(db, key, words))
        }),
    };
    applied.map_err(|what| format!("{}: {what}", String::from_utf8_lossy(words.first().unwrap_or(&&b""[..]))))
}

/// Sets a key to a value that comes from another server's file, with its access field if that is known. False if there
/// is such a key already, unless it is to be replaced.
///
/// # Errors
/// The value is empty.
pub fn place(
    keyspace: &Keyspace,
    replayer: &mut Replayer,
    (db, name): (u32, &[u8]),
    value: Building,
    (expiry, access): (Option<i64>, Option<u32>),
    replaces: bool,
) -> Result<bool, String> {
    let key = keyspace.key(name);
    let mut is_placed = false;
    replayer.work(Held::one(keyspace, key.shard()), db, |db| {
        if !replaces && db.exists(key) {
            return Ok(());
        }
        value.store(db, key, expiry)?;
        if let Some(access) = access {
            db.set_access(key, access);
        }
        is_placed = true;
        Ok(())
    })?;
    Ok(is_placed)
}

/// What one thread needs to replay.
#[derive(Debug)]
pub struct Replayer {
    limits: Limits,
    unit: Unit,
    scratch: Scratch,
}

impl Replayer {
    /// One that makes collections by these limits.
    pub fn new(limits: Limits) -> Replayer {
        Replayer { limits, unit: Unit::default(), scratch: Scratch::default() }
    }

    /// Has the keys changed that `held` has locked.
    fn work(&mut self, held: Held<'_>, db: u32, work: impl FnOnce(&mut Db<'_>) -> Outcome) -> Result<(), String> {
        let Replayer { limits, unit, scratch } = self;
        unit.begin(Wants::default(), false);
        let facts = Facts {
            now: 0,
            // Replayed keys count as used now.
            access: AccessClock { seconds: (clock::now_ms() / 1000) as u64, lfu: None, lrm: false },
            string_max_bytes: u64::MAX,
            // A HyperLogLog that became dense was logged as such: a replay under another setting is the same.
            hll_sparse_max_bytes: usize::MAX,
            limits: *limits,
            // Records say what window a stream has.
            stream_window: Window::DEFAULT,
            cluster: false,
            growth_max: u64::MAX,
            replaying: true,
            no_touch: true,
            hides_expired: false,
            only_listens: false,
            flush_undo_ms: 0,
            as_valkey: false,
            rdb_versions: RdbVersionCheck::Strict,
        };
        let outcome = work(&mut Db::new(held, unit, scratch, db, &facts));
        unit.end(scratch);
        unit.retired.clear();
        unit.retired_directories.clear();
        outcome.map_err(|error| error.to_string())
    }
}

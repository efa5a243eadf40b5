//! Replay: the handlers that clients' commands run, applied to the records of the log.

use super::data::{find_keys, hold_alone};
use super::handler::run_handler;
use crate::base::clock;
use crate::core::call::HashedKeys;
use crate::core::db::{Db, Facts};
use crate::core::{Call, Handler, Scratch, Unit, Wants};
use crate::keyspace::Keyspace;
use crate::keyspace::access::AccessClock;
use crate::resp::{Args, Output, Reply, Resp};
use crate::value::Limits;

/// Applies one record of the log: the same handlers, replies thrown away, nothing logged, nothing expired.
///
/// # Errors
/// The text of what the handler refused, or that there is no such command: the log does not fit this server.
pub fn replay(
    table: &crate::core::Table,
    keyspace: &Keyspace,
    replayer: &mut Replayer,
    db: u32,
    args: Args<'_>,
) -> Result<(), String> {
    let entry = table.resolve_record(args).map_err(|error| error.to_string())?;
    let Handler::Data(handler) = entry.command.handler else {
        return Err(format!("the command '{}' cannot be replayed", entry.full_name));
    };
    let Replayer { limits, unit, scratch, keys, out } = replayer;
    keys.clear();
    find_keys(keyspace, entry, args, keys);
    let held = hold_alone(keyspace, entry.command, keys);
    unit.begin(Wants::default(), false);
    let facts = Facts {
        now: 0,
        access: AccessClock { seconds: replayer_seconds(), lfu: None },
        string_max_bytes: u64::MAX,
        // A HyperLogLog that became dense was logged as such: a replay under another setting is the same.
        hll_sparse_max_bytes: usize::MAX,
        limits: *limits,
        replaying: true,
        no_touch: true,
    };
    let db = Db::new(held, unit, scratch, db, &facts);
    let mut call = Call { args, db, entry, frozen: None, keys, may_block: false, block: None };
    let outcome = run_handler(handler, &mut call, Reply::new(out, Resp::V2));
    drop(call);
    out.clear();
    unit.end(scratch);
    unit.retired.clear();
    unit.retired_directories.clear();
    outcome.map(|_| ()).map_err(|error| error.to_string())
}

/// Replayed keys count as used now.
fn replayer_seconds() -> u64 {
    (clock::now_ms() / 1000) as u64
}

/// What one thread needs to replay.
#[derive(Debug)]
pub struct Replayer {
    limits: Limits,
    unit: Unit,
    scratch: Scratch,
    keys: HashedKeys,
    out: Output,
}

impl Replayer {
    /// One that makes collections by these limits.
    pub fn new(limits: Limits) -> Replayer {
        Replayer {
            limits,
            unit: Unit::default(),
            scratch: Scratch::default(),
            keys: HashedKeys::default(),
            out: Output::default(),
        }
    }
}

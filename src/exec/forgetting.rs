//! Ends the time in which a flush can be undone: when it is over, or earlier where memory is short or the disk full.
//!
//! Invariants:
//! - The gate is closed for it, but only to take out what another thread then frees: pointers, not keys.
//! - What is forgotten is logged, so that a replay does not keep it, either.

use std::time::Duration;

use super::Executor;
use super::data::append;
use super::facts::{facts_of, limits_of};
use super::group::Group;
use crate::base::clock;
use crate::core::db::Db;
use crate::core::{Hook, Server};
use crate::keyspace::{Busy, Held};

/// The most flushes that can be undone. Each costs a pointer for each shard and database, beside its keys.
const GRAVES_MAX: usize = 16;
/// How long the worker tries to close the gate. It comes again.
const PATIENCE: Duration = Duration::from_micros(200);

/// The flush whose time is over. `memory_max` is what all of the memory in use may be; 0 for no limit.
fn due(server: &Server, flush_undo_seconds: u64, now_ms: u64, memory_max: u64) -> Option<u64> {
    let (oldest, count, due) = {
        let yard = server.keyspace.graveyard();
        (yard.graves().first()?.id, yard.graves().len(), yard.due(now_ms))
    };
    let is_over = flush_undo_seconds == 0 || count > GRAVES_MAX;
    let is_short = || memory_max > 0 && server.counted_and_settled().1 > memory_max;
    // On a full disk, a snapshot without it gives back room.
    let is_over = is_over || server.store.log().lacks_room();
    if is_over || is_short() { Some(oldest) } else { due }
}

impl Executor {
    /// Forgets flushes that cannot be undone any more. Beyond `memory_max` in use, that is none; 0 for no limit. Never
    /// waits long.
    pub fn forget_flushes(&mut self, memory_max: u64) {
        self.refresh_settings();
        let now = clock::now_ms();
        let server = std::sync::Arc::clone(&self.server);
        let undo_seconds = self.settings.flush_undo_seconds;
        while let Some(id) = due(&server, undo_seconds, now.max(0) as u64, memory_max) {
            let limits = limits_of(&self.settings, server.keyspace.seed());
            let facts = facts_of(&self.settings, limits, now);
            let (mut group, ..) = self.group(facts, PATIENCE);
            // A pause that begins after this look is noticed where the gate is closed.
            if group.hooks.has(Hook::Pause) || group.forget_flush(id).is_err() {
                return;
            }
        }
    }
}

impl Group<'_> {
    /// Forgets the oldest flush that can be undone, for memory is short. Returns whether there was any.
    ///
    /// # Errors
    /// Another worker executes something.
    #[cold]
    pub(super) fn forget_oldest_flush(&mut self) -> Result<bool, Busy> {
        let oldest = self.server.keyspace.graveyard().graves().first().map(|grave| grave.id);
        oldest.map_or(Ok(false), |id| self.forget_flush(id))
    }

    /// Forgets a flush. Returns whether there was such a one.
    fn forget_flush(&mut self, id: u64) -> Result<bool, Busy> {
        debug_assert!(self.held.is_none() && self.closed.is_none(), "not within a transaction");
        self.close()?;
        self.unit.begin(self.wants(), false);
        let held = Held::on_demand(&self.server.keyspace);
        let mut db = Db::new(held, self.unit, self.scratch, 0, &self.facts);
        let is_gone = db.forget_flush(id);
        if is_gone {
            db.barrier().forget_buried(id);
        }
        append(self.server, self.worker, db.unit(), 0);
        drop(db);
        self.open();
        self.retire();
        Ok(is_gone)
    }
}

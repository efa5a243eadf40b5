//! Room below `maxmemory`: found before a command runs that needs it, and made in the background while there is less
//! than none.
//!
//! ```text
//! command that may grow ── its arguments fit what the group has left ─────────────────────────────▶ runs
//!                       └─ fit below the limit ─▶ the group gets a little more ────────────────────▶ runs
//!                       └─ evict, for a bounded time ─┬─ fits now, or has paid its way ────────────▶ runs
//!                                                     ├─ nothing is left that may go ──────────────▶ OOM
//!                                                     └─ time is over, or garbage is not freed yet ▶ parked
//! every worker, each 10 ms: above the limit? ─▶ evict for a bounded time ─▶ let others run ─▶ again
//! ```
//!
//! What is freed is measured in the allocator, not estimated. A command *pays its way* if eviction has freed on its
//! account as much as it brings. So a command need not wait for all of the excess, for instance after `CONFIG SET
//! maxmemory`, and memory does not grow meanwhile.
//!
//! **Garbage in flight.** Large collections are freed by another thread. They do not count as excess, so nothing else
//! is evicted for them, but commands that bring more wait while memory as a whole is too far above the limit.
//!
//! **Snapshots.** Removing a key that a frozen view shares frees nothing, and copies a piece of the directory. While a
//! snapshot is made, only keys of shards that it has written and released are evicted, and only down to
//! [`overdraft`] above the limit. Otherwise the whole keyspace could go in vain for what the snapshot holds. A command
//! for which that is not enough waits for the next shards, for at most [`SNAPSHOT_PATIENCE`].
//!
//! Invariants:
//! - Eviction for a command is logged before the command.
//! - What can be undone of flushes goes before any key does.
//! - A step of eviction takes a bounded time, and holds no lock but that of one shard at a time.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Executor;
use super::data::append;
use super::evict::{Bounds, Choice, EvictDb, Evicted};
use super::facts::{facts_of, limits_of};
use super::group::Group;
use crate::base::config::{EvictionPolicy, Settings};
use crate::base::latency::Event;
use crate::base::{alloc, clock};
use crate::core::client::Client;
use crate::core::memory::Claim;
use crate::core::server::UNCOUNTED_BYTES;
use crate::core::{CommandError, Flags, Handler, Hook, Server, Step, flags};
use crate::keyspace::{Busy, SHARDS};
use crate::resp::Args;

/// What an argument takes beyond its bytes, in the keyspace.
const PER_ARGUMENT_BYTES: u64 = 32;
/// The most that a group takes at once of what is left below the limit. All workers may do so at the same time.
const ROOM_MAX_BYTES: u64 = 64 * 1024;
/// From this size on, what a command needs is claimed until it has run.
const CLAIM_MIN_BYTES: u64 = 16 * 1024;
/// How long a command waits for a snapshot to release more shards.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(1);
/// The longest step of eviction in the background.
const STEP_MAX: Duration = Duration::from_millis(1);
/// The time of a step per point of `maxmemory-eviction-tenacity` up to 10; above, it grows by 15 % per point, as in
/// Redis.
const TENACITY_US: u64 = 50;

/// How far memory may be above the limit for a while: for garbage in flight, and for what a snapshot holds.
fn overdraft(limit: u64) -> u64 {
    limit / 32
}

/// How far commands may bring memory above the limit where nothing is left to evict because of BLESS, as in Redis.
fn guarded_overdraft(limit: u64) -> u64 {
    limit / 4
}

/// How long a step may take; `None` means without end.
fn step_time(tenacity: u32) -> Option<Duration> {
    match tenacity {
        0..=10 => Some(Duration::from_micros(TENACITY_US * u64::from(tenacity))),
        11..=99 => Some(Duration::from_micros((500.0 * 1.15_f64.powi(tenacity as i32 - 10)).round() as u64)),
        _ => None,
    }
}

/// The target of eviction now.
#[derive(Clone, Copy)]
struct Target {
    /// What memory should come down to.
    limit: u64,
    /// The shards whose keys may go.
    shards: usize,
}

impl Target {
    fn of(server: &Server, maxmemory: u64) -> Target {
        match server.saving.held_shards.load(Relaxed) {
            0 => Target { limit: maxmemory, shards: SHARDS },
            held => Target { limit: maxmemory.saturating_add(overdraft(maxmemory)), shards: SHARDS - held },
        }
    }
}

fn choice_of(settings: &Settings) -> Choice {
    Choice { policy: settings.maxmemory_policy, samples: settings.maxmemory_samples }
}

/// Whether keys may be evicted at all. Data that is being imported must be there in whole.
fn evicts(settings: &Settings) -> bool {
    settings.maxmemory_policy != EvictionPolicy::NoEviction && !settings.import_mode
}

impl Group<'_> {
    /// Makes sure that there is room for what a command brings. Commands that bring nothing need none: the background
    /// evicts.
    ///
    /// # Errors
    /// Nothing may be evicted for it; or it must wait.
    #[inline]
    pub(super) fn check_memory(
        &mut self,
        flags: Flags,
        handler: &Handler,
        args: Args<'_>,
        client: &mut Client,
    ) -> Result<(), CommandError> {
        if self.maxmemory == 0 || !flags.has(flags::DENYOOM) {
            return Ok(());
        }
        let mut need = args.extent() as u64 + args.len() as u64 * PER_ARGUMENT_BYTES;
        if let (Handler::Transaction(Step::Exec), Some(transaction)) = (handler, &client.transaction) {
            need += transaction.bytes as u64;
        }
        if need <= self.room {
            self.room -= need;
            return Ok(());
        }
        self.find_room(need, client)
    }

    /// Finds room for this many bytes, by eviction if necessary.
    #[cold]
    pub(super) fn find_room(&mut self, need: u64, client: &mut Client) -> Result<(), CommandError> {
        if self.hooks.has(Hook::Pause) {
            // Nothing is evicted in a pause. What it holds back is refused when the pause is over, if need be.
            return Ok(());
        }
        let own = client.claim.as_ref().map_or(0, Claim::bytes);
        // The same command, if it was parked: it may have asked for more than its arguments.
        let need = need.max(own);
        let used = self.server.counted_memory().saturating_sub(own);
        let outcome = match self.maxmemory.checked_sub(used.saturating_add(need)) {
            Some(left) => {
                self.room = left.min(ROOM_MAX_BYTES).min(self.maxmemory / 512);
                Ok(())
            }
            None => self.make_room(need, client),
        };
        let keeps = match &outcome {
            Ok(()) => need >= CLAIM_MIN_BYTES,
            Err(error) => matches!(error, CommandError::Busy(_)),
        };
        if !keeps {
            client.claim = None;
        } else if client.claim.is_none() {
            client.claim = Some(Claim::new(&self.server.memory, need));
        }
        outcome
    }

    /// Evicts for a command that needs this many bytes.
    fn make_room(&mut self, need: u64, client: &mut Client) -> Result<(), CommandError> {
        let server = self.server;
        let settings = server.config.settings();
        let maxmemory = self.maxmemory;
        if need > maxmemory {
            return Err(CommandError::OutOfMemory);
        }
        // What flushes have left goes first.
        if self.forget_oldest_flush().map_err(CommandError::Busy)? {
            return Err(CommandError::Busy(Busy::Memory));
        }
        if !evicts(&settings) {
            // Whole databases will be gone in a moment.
            let waits = server.pending_memory() >= UNCOUNTED_BYTES;
            return Err(if waits { CommandError::Busy(Busy::Memory) } else { CommandError::OutOfMemory });
        }
        let was_inside = self.inside.is_some();
        self.enter().map_err(CommandError::Busy)?;
        let target = Target::of(server, maxmemory);
        let (own, paid) = client.claim.as_ref().map_or((0, 0), |claim| (claim.bytes(), claim.paid));
        let wanted = need.saturating_mul(2).saturating_sub(paid);
        let until = step_time(settings.maxmemory_eviction_tenacity).map(|time| Instant::now() + time);
        let is_enough = |freed: u64| {
            let used = server.counted_and_settled().1.saturating_sub(own);
            used.saturating_add(need) <= target.limit || freed >= wanted
        };
        let (evicted, freed) = self.evict(choice_of(&settings), target, until, &is_enough);
        if !was_inside {
            self.inside = None;
        }
        self.serve_vanished();
        let (all, settled) = server.counted_and_settled();
        let with_need = |bytes: u64| bytes.saturating_sub(own).saturating_add(need);
        let (all, excess) = (with_need(all), with_need(settled));
        server.memory.note(all > maxmemory.saturating_add(need), all);
        let ceiling = maxmemory.saturating_add(overdraft(maxmemory)).max(server.memory.ceiling());
        if freed + paid >= need || excess <= target.limit && all <= ceiling {
            return Ok(());
        }
        if evicted.is_exhausted && server.pending_memory() == 0 {
            if evicted.is_guarded && all <= maxmemory.saturating_add(guarded_overdraft(maxmemory)) {
                return Ok(());
            }
            // More shards will be free soon if a snapshot is made.
            let waited = client.claim.as_ref().map_or(Duration::ZERO, |claim| claim.since.elapsed());
            if target.shards == SHARDS || waited >= SNAPSHOT_PATIENCE {
                return Err(CommandError::OutOfMemory);
            }
        }
        let claim = client.claim.get_or_insert_with(|| Claim::new(&server.memory, need));
        claim.paid += freed;
        Err(CommandError::Busy(Busy::Memory))
    }

    /// Evicts until it is enough, given the bytes freed. Returns what was evicted, and the bytes that this thread has
    /// freed thereby.
    fn evict(
        &mut self,
        choice: Choice,
        target: Target,
        until: Option<Instant>,
        is_enough: &dyn Fn(u64) -> bool,
    ) -> (Evicted, u64) {
        let (server, worker) = (self.server, self.worker);
        self.unit.begin(self.wants(), false);
        let reclaim = |heap: crate::value::entry::Heap| {
            let bytes = heap.bytes() as u64;
            server.reclaim(Box::new(heap), 1, bytes);
        };
        let mut world = EvictDb {
            keyspace: &server.keyspace,
            unit: self.unit,
            scratch: self.scratch,
            facts: self.facts,
            reclaim: &reclaim,
        };
        let before = alloc::thread_bytes();
        let freed = || u64::try_from(before - alloc::thread_bytes()).unwrap_or(0);
        let bounds = Bounds { until, shards: target.shards };
        let started = server.latency.start();
        let evicted = self.evictor.evict(&mut world, choice, bounds, &mut |_| is_enough(freed()), &mut |unit| {
            append(server, worker, unit, 0);
        });
        server.latency.end(Event::EvictionCycle, started);
        self.tell();
        self.stats.counters.evicted.add_alone(evicted.keys as u64);
        (evicted, freed())
    }
}

impl Executor {
    /// Evicts for a bounded time if memory is above the limit. Returns whether there is more to do at once. Never
    /// waits.
    pub fn evict_step(&mut self) -> bool {
        self.refresh_settings();
        let maxmemory = self.settings.maxmemory;
        let server = std::sync::Arc::clone(&self.server);
        let (all, settled) = if maxmemory == 0 { (0, 0) } else { server.counted_and_settled() };
        server.memory.note(all > maxmemory, all);
        let target = Target::of(&server, maxmemory);
        if settled <= target.limit {
            return false;
        }
        if !server.keyspace.graveyard().graves().is_empty() {
            self.forget_flushes(maxmemory);
            return false;
        }
        if !evicts(&self.settings) {
            return false;
        }
        let choice = choice_of(&self.settings);
        let time = step_time(self.settings.maxmemory_eviction_tenacity).map_or(STEP_MAX, |time| time.min(STEP_MAX));
        let limits = limits_of(&self.settings, server.keyspace.seed());
        let facts = facts_of(&self.settings, limits, clock::now_ms());
        let (mut group, ..) = self.group(facts, Duration::ZERO);
        // A pause that begins after this look is noticed on entering.
        if group.hooks.has(Hook::Pause) || group.enter().is_err() {
            return false;
        }
        let is_enough = |_| server.counted_and_settled().1 <= target.limit;
        let (evicted, _) = group.evict(choice, target, Some(Instant::now() + time), &is_enough);
        group.inside = None;
        group.tell();
        group.serve_vanished();
        group.retire();
        group.add_up();
        group.tell_readers();
        evicted.keys > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenacity_is_time_as_in_redis() {
        let us = |tenacity| step_time(tenacity).map(|time| time.as_micros());
        assert_eq!([us(0), us(1), us(10), us(11)], [Some(0), Some(50), Some(500), Some(575)]);
        assert!(us(99).is_some_and(|us| (120_000_000..130_000_000).contains(&us)), "{:?}", us(99));
        assert_eq!(us(100), None);
    }
}

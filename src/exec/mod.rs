//! The one path of a command: check, lock, run, log, unlock, reply.
//!
//! ```text
//! group of up to 16 ─ resolve, hash keys, fetch ahead ─ enter the gate
//!     each: check ─ lock the shards of its keys, ascending ─ handler ─ effects into this worker's log buffer
//!           ─ unlock ─ free what is large elsewhere
//! ```
//!
//! | step | file |
//! |---|---|
//! | fetch ahead what the group will touch | `ahead.rs` |
//! | execute a group in turn | `group.rs` |
//! | may this command run now? | `check.rs` |
//! | is there room below `maxmemory`? | `room.rs`; which keys go for it: `evict.rs` |
//! | lock, run, log, unlock | `data.rs`; the short path of reads in `reads.rs`; how a handler ends in `handler.rs` |
//! | MULTI and EXEC | `transaction.rs` |
//! | scripts | `script.rs`; the server as they see it: `script_host.rs`; time slices: `slices.rs`, `fiber.rs` |
//! | what counts of a script's run that may have to be repeated | `tally.rs` |
//! | libraries of functions | `functions.rs` |
//! | what a command leaves to be done outside the gate | `deferred.rs` |
//! | commands that wait, and who serves them | `serving.rs` |
//! | who has cached what has changed | `changes.rs` |
//! | what monitors see | `monitor.rs` |
//! | was it slow or large? | `noting.rs` |
//! | active expiry | `sweep.rs` |
//! | replay | `replay/` |
//!
//! Invariants:
//! - Effects enter the log buffer while the shards are locked, so that the order of the log is the order of
//!   the changes.
//! - A command that fails leaves no change, no record and no half reply. One that panics leaves none, or the whole
//!   change of its one key, in the log too.
//! - A command that must run alone, and every session command, runs while this worker is outside the gate.
//! - Replay applies the verbs of the log by [`replay()`], without handlers, and logs nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::base::clock;
use crate::base::config::Settings;
use crate::base::latency::Event;
use crate::core::call::HashedKeys;
use crate::core::db::Facts;
use crate::core::keystats::next_sample;
use crate::core::table::{CommandEntry, LastNamed};
use crate::core::waiting::Waiter;
use crate::core::{Hook, Scratch, Server, Unit};
use crate::keyspace::{Busy, Closing, Relocation};
use crate::resp::request::Progress;
use crate::resp::{self, Request};

mod ahead;
mod changes;
mod check;
mod data;
mod deferred;
#[cfg(test)]
mod event_tests;
pub mod evict;
mod facts;
mod fiber;
mod forgetting;
mod functions;
mod group;
mod handler;
mod migrate;
mod monitor;
mod noting;
mod reads;
mod replay;
#[cfg(test)]
mod rollback_tests;
mod room;
mod script;
mod script_host;
mod serving;
mod slices;
pub mod sweep;
mod tally;
#[cfg(test)]
pub mod testing;
mod transaction;

pub use replay::{Replayer, place, replay, replay_verb, replay_words};

use ahead::prefetch;
use data::{append, events_of, tell};
use evict::Evictor;
use facts::facts_of;
pub use facts::limits_of;
use fiber::Fibers;
pub use fiber::Suspended;
pub use group::{Ran, settle_reply_mode};
use noting::Bars;
pub use script::{compile_script, memory_of_scripts};

/// How many commands of one pipeline are prefetched and executed together.
pub const GROUP_MAX: usize = 16;
/// How long a command waits for a busy lock before it is parked.
pub const PATIENCE: Duration = Duration::from_millis(1);

/// What a worker needs to execute commands.
#[derive(Debug)]
pub struct Executor {
    server: Arc<Server>,
    worker: usize,
    unit: Unit,
    scratch: Scratch,
    evictor: Evictor,
    relocation: Relocation,
    keys: Vec<HashedKeys>,
    last_named: LastNamed,
    /// Decodes commands for prefetching before they are executed.
    request: Request,
    settings: Arc<Settings>,
    /// What the settings say of commands to be noted.
    bars: Bars,
    settings_generation: u64,
    /// How often this worker has tried in vain to close the gate.
    closing: Closing,
    /// What scripts run in.
    fibers: Fibers,
    /// In how many groups the keys of one are counted.
    until_sample: u32,
}

/// The command of one call of a group, resolved before any runs; `None` for a mistake, which is reported in its turn.
type Plan<'a> = Option<&'a CommandEntry>;

impl Executor {
    /// The executor of worker number `worker`.
    pub fn new(server: Arc<Server>, worker: usize) -> Self {
        let settings_generation = server.config.generation();
        let settings = server.config.settings();
        let keys = (0..GROUP_MAX).map(|_| HashedKeys::default()).collect();
        let bars = Bars::of(&settings);
        let relocation = Relocation::new(worker, server.roster.in_service());
        Executor {
            server,
            worker,
            unit: Unit::default(),
            scratch: Scratch::default(),
            evictor: Evictor::default(),
            relocation,
            keys,
            last_named: LastNamed::default(),
            request: Request::new(),
            settings,
            bars,
            settings_generation,
            closing: Closing::default(),
            fibers: Fibers::default(),
            until_sample: next_sample(),
        }
    }

    /// The configuration as of the last group.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Adopts a changed configuration.
    #[inline]
    pub fn refresh_settings(&mut self) {
        let generation = self.server.config.generation();
        if generation != self.settings_generation {
            self.settings_generation = generation;
            self.settings = self.server.config.settings();
            self.bars = Bars::of(&self.settings);
        }
    }

    /// Prefetches what the first commands of several connections will touch, each given with its database, like the
    /// commands of one pipeline.
    pub fn prefetch_firsts<'a>(&mut self, firsts: impl Iterator<Item = (u32, &'a [u8])>) {
        let Executor { server, request, .. } = self;
        let limits = resp::RequestLimits { bulk_max_bytes: u64::MAX, authenticated: true };
        let mut keys: SmallVec<[(u32, u64); GROUP_MAX]> = SmallVec::new();
        for (db, bytes) in firsts {
            // Mistakes in a command are detected when it is executed.
            if let Ok(Progress::Complete(_)) = request.decode(bytes, limits) {
                let args = request.args(bytes);
                let entry = if args.is_empty() { None } else { server.table.get(args.at(0)) };
                if let Some(key) = entry.and_then(|entry| entry.only_key).and_then(|at| args.get(at)) {
                    let hash = server.keyspace.seed().hash(key);
                    server.keyspace.prefetch_shard(hash);
                    keys.push((db, hash));
                }
            }
            request.reset();
        }
        prefetch(&server.keyspace, keys.iter().copied());
    }

    /// Whether a command that was parked for this lock is worth another try.
    pub fn may_retry(&self, busy: Busy) -> bool {
        // It is told that a script runs for too long.
        let is_answered = self.server.hooks.load().has(Hook::Busy);
        match busy {
            Busy::Gate | Busy::Workers | Busy::Shard(_) if is_answered => true,
            Busy::Gate => self.server.gate.is_open(self.worker),
            Busy::Workers => self.server.gate.have_passed(&self.closing),
            Busy::Shard(shard) => self.server.keyspace.is_free(shard),
            Busy::Mail => !self.server.mailboxes.is_congested(),
            Busy::Memory => true,
            Busy::Pause => self.server.pause.now(clock::now_ms(), &self.server.hooks).is_none(),
        }
    }

    /// Runs the active expiry of this worker's part of the shards. Returns whether more is due. Never waits.
    pub fn sweep_expired(&mut self, budget: usize) -> bool {
        self.refresh_settings();
        self.server.keyspace.catch_up();
        let Executor { server, worker, unit, scratch, settings, .. } = self;
        // The time is read first: what expires after expiry was switched off, or after a pause began, stays.
        let limits = limits_of(settings, server.keyspace.seed());
        let facts = Facts { no_touch: true, ..facts_of(settings, limits, clock::now_ms()) };
        let is_paused = server.hooks.load().has(Hook::Pause) || settings.import_mode;
        if is_paused || server.debugging.active_expiry_off.load(Relaxed) {
            self.serve_left_over();
            return false;
        }
        let stats = &server.workers[*worker];
        let started = Instant::now();
        // While the gate is closed there is nothing to do here: the next sweep comes soon.
        let Some(inside) = server.gate.try_enter(*worker, Duration::ZERO) else { return false };
        // CLIENT PAUSE has waited for those who had entered. Who enters later looks again.
        if server.hooks.load().has(Hook::Pause) {
            return false;
        }
        unit.begin(data::wants(server, events_of(settings)), false);
        let shards = server.roster.shards_of(*worker).map(|shard| shard as u16);
        let more = crate::exec::sweep::sweep(&server.keyspace, unit, scratch, facts, shards, budget, &mut |unit| {
            append(server, *worker, unit, 0);
        });
        drop(inside);
        let took = started.elapsed();
        stats.counters.expire_cycle_us.add_alone(took.as_micros() as u64);
        server.latency.note(Event::ExpireCycle, took.as_nanos() as u64);
        tell(server, unit);
        let (mut group, ..) = self.group(Facts { no_touch: false, ..facts }, Duration::ZERO);
        group.serve_vanished();
        group.retire();
        group.add_up();
        group.tell_readers();
        more
    }

    /// Executes the commands again that wait for a waiter's keys, because its time has come. Returns false, and does
    /// nothing, if that has to wait: never for long, unless clients are paused.
    pub fn serve_due(&mut self, waiter: &Waiter) -> bool {
        self.refresh_settings();
        let is_loading = self.server.keyspace.is_loading();
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_of(&self.settings, limits, clock::now_ms());
        let (mut group, ..) = self.group(facts, Duration::ZERO);
        // A pause that begins after this look is noticed where the gate is closed.
        if group.hooks.has(Hook::Pause) || is_loading {
            return false;
        }
        let is_served = group.serve_due(waiter);
        group.retire();
        group.add_up();
        group.tell_readers();
        is_served
    }

    /// Serves those who wait for keys that have vanished, if the gate could not be closed for it at the time.
    fn serve_left_over(&mut self) {
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_of(&self.settings, limits, clock::now_ms());
        let (mut group, ..) = self.group(facts, Duration::ZERO);
        group.serve_vanished();
        group.tell_readers();
    }

    /// Moves some blocks out of sparse slabs, in this worker's part of the shards. Returns whether that completed a
    /// pass over them.
    pub fn relocate(&mut self, is_sparse: fn(usize) -> bool) -> bool {
        let started = Instant::now();
        let Some(_inside) = self.server.gate.try_enter(self.worker, Duration::ZERO) else { return true };
        self.relocation.follow(self.server.roster.in_service());
        let is_end = self.relocation.step(&self.server.keyspace, is_sparse);
        let counters = &self.server.workers[self.worker].counters;
        let took = started.elapsed();
        counters.relocation_us.add_alone(took.as_micros() as u64);
        self.server.latency.note(Event::ActiveDefragCycle, took.as_nanos() as u64);
        is_end
    }
}

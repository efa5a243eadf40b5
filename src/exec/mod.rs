//! The one path of a command: check, lock, run, log, unlock, reply.
//!
//! ```text
//! group of up to 16 ─ resolve, hash keys, fetch ahead ─ enter the gate
//!     each: check ─ lock the shards of its keys, ascending ─ handler ─ effects into this worker's log buffer
//!           ─ unlock ─ free what is large elsewhere
//! ```
//!
//! Fetching ahead is in `exec/ahead.rs`, how a handler ends in `exec/handler.rs`, the short path of reads in
//! `exec/reads.rs`, MULTI and EXEC in `exec/transaction.rs`, commands that wait in `exec/blocking.rs`, replay in
//! `exec/replay.rs`.
//!
//! Invariants:
//! - Effects enter the log buffer while the shards are locked, so that the order of the log is the order of
//!   the changes.
//! - A command that fails or panics leaves no change, no record and no half reply.
//! - Whoever needs to be alone, and every session command, runs while this worker is outside the gate.
//! - Replay runs the same handlers by [`replay()`], with replies thrown away and nothing logged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use smallvec::SmallVec;

use crate::base::config::{EvictionPolicy, Settings};
use crate::base::hash::HashSeed;
use crate::base::{alloc, clock, logging};
use crate::core::call::{HashedKey, HashedKeys};
use crate::core::client::{Client, ReplyMode};
use crate::core::db::{Db, Facts, Scratch};
use crate::core::stats::WorkerStats;
use crate::core::table::{CommandEntry, LastNamed};
use crate::core::{Call, Command, CommandError, Handler, LogRule, Outcome, Server, SessionCall, flags};
use crate::exec::evict::{Choice, EvictDb, Evictor};
use crate::keyspace::access::{AccessClock, Lfu};
use crate::keyspace::gate::Inside;
use crate::keyspace::{Closed, Held, Keyspace, Relocation};
use crate::resp::reply::Mark;
use crate::resp::request::Progress;
use crate::resp::{self, Args, Output, Reply, Request};
use crate::value::Limits;

mod ahead;
pub mod evict;
mod handler;
mod reads;
mod replay;
mod serving;
pub mod sweep;
#[cfg(test)]
pub mod testing;
mod transaction;

pub use replay::{Replayer, replay};

use ahead::{plan, prefetch};
use handler::{error_reply, fail, internal_error, run_handler};
use reads::alike;
use serving::{is_waited_for, register};
use transaction::Part;

/// How many commands of one pipeline are prefetched and executed together.
pub const GROUP_MAX: usize = 16;
/// Room for effects that a worker keeps for the next command, in bytes.
const EFFECTS_KEPT_BYTES: usize = 1 << 20;

/// How many keys one command may evict, for each step of `maxmemory-eviction-tenacity`.
const EVICTED_PER_TENACITY: usize = 8;

/// What a worker needs to execute commands.
#[derive(Debug)]
pub struct Executor {
    server: Arc<Server>,
    worker: usize,
    scratch: Scratch,
    evictor: Evictor,
    relocation: Relocation,
    keys: Vec<HashedKeys>,
    last_named: LastNamed,
    /// For looking at commands before they are executed.
    request: Request,
    settings: Arc<Settings>,
    settings_generation: u64,
}

/// The command of one call of a group, found before any is run; `None` for a mistake, which is told in its turn.
type Plan<'a> = Option<&'a CommandEntry>;

impl Executor {
    /// The executor of worker number `worker`.
    pub fn new(server: Arc<Server>, worker: usize) -> Self {
        let settings_generation = server.config.generation();
        let settings = server.config.settings();
        let keys = (0..GROUP_MAX).map(|_| HashedKeys::default()).collect();
        let relocation = Relocation::new(worker, server.gate.workers());
        Executor {
            server,
            worker,
            scratch: Scratch::default(),
            evictor: Evictor::default(),
            relocation,
            keys,
            last_named: LastNamed::default(),
            request: Request::new(),
            settings,
            settings_generation,
        }
    }

    /// The configuration as of the last group.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes over a changed configuration.
    #[inline]
    pub fn refresh_settings(&mut self) {
        let generation = self.server.config.generation();
        if generation != self.settings_generation {
            self.settings_generation = generation;
            self.settings = self.server.config.settings();
        }
    }

    /// Fetches ahead what the first commands of several connections will touch, each given with the database
    /// that it is for: as for the commands of one pipeline.
    pub fn prefetch_firsts<'a>(&mut self, firsts: impl Iterator<Item = (u32, &'a [u8])>) {
        let Executor { server, request, .. } = self;
        let limits = resp::RequestLimits { bulk_max_bytes: u64::MAX, authenticated: true };
        let mut keys: SmallVec<[(u32, u64); GROUP_MAX]> = SmallVec::new();
        for (db, bytes) in firsts {
            // Whatever is wrong with a command is noticed when it is executed.
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

    /// Executes the commands of one connection in turn, at most [`GROUP_MAX`], and appends their replies.
    ///
    /// Returns how many were executed: fewer if the connection must wait or close.
    pub fn run(&mut self, client: &mut Client, calls: &[Args<'_>], out: &mut Output) -> usize {
        self.refresh_settings();
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_now(&self.settings, limits, client);
        let (mut group, all_keys, last_named) = self.group(facts);
        let (server, stats) = (group.server, group.stats);
        let started = Instant::now();
        let plans = plan(server, client.db, calls, all_keys, last_named);
        let keys = &*all_keys;
        let mut executed = 0;
        // The quick commands, each with how many of it followed each other, and the time of the others.
        let (mut quick, mut timed): (SmallVec<[(&CommandEntry, u64); GROUP_MAX]>, _) = (SmallVec::new(), 0);
        while executed < calls.len() {
            let (at, args) = (executed, calls[executed]);
            executed += 1;
            let entry = plans[at].map_or_else(|| server.table.resolve(args), Ok);
            let entry = match entry.and_then(|entry| group.check(entry, client).map(|()| entry)) {
                Ok(entry) => entry,
                Err(error) => {
                    group.refuse(&error, args, client, out);
                    if client.closing {
                        break;
                    }
                    continue;
                }
            };
            client.record.last_command.store(entry.index as u64 + 1, Relaxed);
            if client.transaction.is_some() && !entry.command.flags.has(flags::NOT_QUEUED) {
                group.queue(entry, args, client, out);
                continue;
            }
            if entry.is_plain_read && client.reply_mode == ReplyMode::On {
                executed = at + alike(&plans[at..], entry);
                group.reads(entry, &calls[at..executed], &keys[at..executed], client, out);
                let times = (executed - at) as u64;
                quick.push((entry, times));
                stats.commands[entry.index].calls.add_alone(times);
                continue;
            }
            let keys = &keys[at];
            if alone(entry.command, keys) {
                group.inside = None;
            } else {
                group.enter();
            }
            if entry.is_quick {
                group.one(entry, args, keys, client, out);
                match quick.last_mut() {
                    Some((last, times)) if std::ptr::eq(*last, entry) => *times += 1,
                    _ => quick.push((entry, 1)),
                }
            } else {
                let before = Instant::now();
                group.one(entry, args, keys, client, out);
                let took = before.elapsed().as_nanos() as u64;
                timed += took;
                group.count_time(entry, 1, took);
            }
            stats.commands[entry.index].calls.add_alone(1);
            group.serve_vanished();
            if !matches!(entry.command.handler, Handler::Data(_)) {
                // It may have changed what holds for the commands behind it: CONFIG SET, CLIENT NO-TOUCH.
                group.renew_facts(client);
            }
            if client.wait.is_some() || client.closing {
                break;
            }
        }
        group.inside = None;
        // Commands of constant time share the time of their group: two readings of the clock serve all.
        if !quick.is_empty() {
            let all: u64 = quick.iter().map(|(_, times)| times).sum();
            let each = (started.elapsed().as_nanos() as u64).saturating_sub(timed) / all;
            quick.into_iter().for_each(|(entry, times)| group.count_time(entry, times, each));
        }
        group.account(executed as u64, client);
        all_keys.iter_mut().take(calls.len()).for_each(HashedKeys::forget_many);
        executed
    }

    /// A group of commands to be executed by these facts, room for their keys, and what was called before.
    fn group(&mut self, facts: Facts) -> (Group<'_>, &mut [HashedKeys], &mut LastNamed) {
        let Executor { server, worker, scratch, evictor, keys, last_named, settings, .. } = self;
        let group = Group {
            server,
            worker: *worker,
            stats: &server.workers[*worker],
            scratch,
            evictor,
            facts,
            maxmemory: settings.maxmemory,
            latency_tracking: settings.latency_tracking,
            queue_bytes_max: settings.client_query_buffer_limit,
            inside: None,
            closed: None,
            held: None,
            parts: None,
        };
        (group, keys, last_named)
    }

    /// Runs the active expiry of this worker's part of the shards; returns whether more is due.
    pub fn sweep_expired(&mut self, budget: usize) -> bool {
        self.refresh_settings();
        let Executor { server, worker, scratch, settings, .. } = self;
        if server.active_expiry_off.load(Relaxed) {
            return false;
        }
        let stats = &server.workers[*worker];
        let limits = limits_of(settings, server.keyspace.seed());
        let facts = Facts { no_touch: true, ..facts_of(settings, limits, clock::now_ms()) };
        let started = Instant::now();
        let inside = server.gate.enter(*worker);
        scratch.begin(server.store.log().is_active(), false);
        let step = server.gate.workers();
        let shards = (*worker..crate::keyspace::SHARDS).step_by(step).map(|shard| shard as u16);
        let more = crate::exec::sweep::sweep(&server.keyspace, scratch, facts, shards, budget, &mut |scratch| {
            append_effects(server, *worker, scratch);
        });
        drop(inside);
        stats.counters.expire_cycle_us.add_alone(started.elapsed().as_micros() as u64);
        let (mut group, ..) = self.group(Facts { no_touch: false, ..facts });
        group.serve_vanished();
        group.retire();
        group.add_up();
        more
    }

    /// Moves some of what lies in sparse slabs, in this worker's part of the shards; returns whether that ended a pass
    /// over them.
    pub fn relocate(&mut self, is_sparse: fn(usize) -> bool) -> bool {
        let started = Instant::now();
        let _inside = self.server.gate.enter(self.worker);
        let is_end = self.relocation.step(&self.server.keyspace, is_sparse);
        let counters = &self.server.workers[self.worker].counters;
        counters.relocation_us.add_alone(started.elapsed().as_micros() as u64);
        is_end
    }
}

/// Whether the command must run outside the gate: to close it, or because it is no data command.
fn alone(command: &Command, keys: &HashedKeys) -> bool {
    !matches!(command.handler, Handler::Data(_)) || keys.any || command.flags.has(flags::FROZEN)
}

/// The sizes at which collections change their form, as configured.
pub fn limits_of(settings: &Settings, seed: HashSeed) -> Limits {
    Limits {
        list_max_listpack_size: settings.list_max_listpack_size,
        hash_max_listpack_entries: settings.hash_max_listpack_entries,
        hash_max_listpack_value: settings.hash_max_listpack_value,
        set_max_intset_entries: settings.set_max_intset_entries,
        set_max_listpack_entries: settings.set_max_listpack_entries,
        set_max_listpack_value: settings.set_max_listpack_value,
        zset_max_listpack_entries: settings.zset_max_listpack_entries,
        zset_max_listpack_value: settings.zset_max_listpack_value,
        stream_node_max_bytes: settings.stream_node_max_bytes,
        stream_node_max_entries: settings.stream_node_max_entries,
        seed,
    }
}

fn facts_of(settings: &Settings, limits: Limits, now: i64) -> Facts {
    let lfu = settings
        .maxmemory_policy
        .is_lfu()
        .then_some(Lfu { log_factor: settings.lfu_log_factor, decay_minutes: settings.lfu_decay_time_minutes });
    Facts {
        now,
        access: AccessClock { seconds: (now / 1000) as u64, lfu },
        string_max_bytes: settings.proto_max_bulk_len,
        hll_sparse_max_bytes: settings.hll_sparse_max_bytes,
        limits,
        replaying: false,
        no_touch: false,
    }
}

fn facts_now(settings: &Settings, limits: Limits, client: &Client) -> Facts {
    let no_touch = client.record.no_touch.load(Relaxed);
    Facts { no_touch, ..facts_of(settings, limits, clock::now_ms()) }
}

/// Finds and hashes the keys of a call.
#[inline(always)]
fn find_keys(keyspace: &Keyspace, entry: &CommandEntry, args: Args<'_>, keys: &mut HashedKeys) {
    keys.any = entry.command.flags.has(flags::GATE);
    match entry.only_key {
        Some(place) => {
            if let Some(key) = args.get(place) {
                keys.named.push(HashedKey { place, hash: keyspace.seed().hash(key) });
            }
        }
        None => find_other_keys(keyspace, entry.command, args, keys),
    }
}

/// The same, for commands that are not known to have just one key.
fn find_other_keys(keyspace: &Keyspace, command: &Command, args: Args<'_>, keys: &mut HashedKeys) {
    keys.any |= command.keys.may_be_any(args);
    // Arguments that do not fit leave the command without keys; its handler says what is wrong.
    if let Some(places) = command.keys.places(args) {
        let hashed = |&place: &usize| HashedKey { place, hash: keyspace.seed().hash(args.at(place)) };
        keys.named.extend(places.iter().map(hashed));
    }
}

/// Moves the effects of a command into the worker's log buffer. The caller holds the shards' locks.
#[inline]
fn append_effects(server: &Server, worker: usize, scratch: &mut Scratch) {
    if !scratch.effects.is_empty() {
        append(server, worker, &mut scratch.effects);
    }
}

fn append(server: &Server, worker: usize, effects: &mut Vec<u8>) {
    server.store.log().appender(worker).encoded(effects);
    if effects.capacity() > EFFECTS_KEPT_BYTES {
        *effects = Default::default();
    }
}

/// The commands of one group share these.
struct Group<'a> {
    server: &'a Arc<Server>,
    worker: usize,
    stats: &'a WorkerStats,
    scratch: &'a mut Scratch,
    evictor: &'a mut Evictor,
    facts: Facts,
    maxmemory: u64,
    latency_tracking: bool,
    /// The most that a transaction may queue, in bytes.
    queue_bytes_max: u64,
    /// This worker's right to execute, while it has it;
    inside: Option<Inside<'a>>,
    /// or its right to be alone.
    closed: Option<Closed<'a>>,
    /// The shards of a transaction that is not alone, for the next of its commands.
    held: Option<Held<'a>>,
    /// Inside a transaction, what is to be logged at its end.
    parts: Option<Vec<Part>>,
}

impl Group<'_> {
    /// Whether the command may run now, in Redis' order of checks.
    #[inline]
    fn check(&mut self, entry: &CommandEntry, client: &Client) -> Result<(), CommandError> {
        if entry.command.flags.has(flags::DEBUGGING) && !self.may_debug(client) {
            return Err(CommandError::Text(
                "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run \
                 it from a local connection, otherwise you need to set this option in the configuration file, and \
                 then restart the server.",
            ));
        }
        let flags = if client.transaction.is_none() {
            entry.command.flags
        } else if entry.command.flags.has(flags::NO_MULTI) {
            return Err(CommandError::Text("ERR Command not allowed inside a transaction"));
        } else {
            Self::flags_to_check(entry, client)
        };
        if !client.authenticated && !flags.has(flags::NO_AUTH) {
            return Err(CommandError::NoAuth);
        }
        if self.maxmemory > 0 && alloc::used_memory() as u64 > self.maxmemory {
            // Whatever is executed makes room, for replies take memory too; what needs more is refused without it.
            let made = self.make_room();
            // What is queued takes memory, whatever it is.
            let is_queued = client.transaction.is_some() && !flags.has(flags::NOT_QUEUED);
            if flags.has(flags::DENYOOM) || is_queued {
                made?;
            }
        }
        if flags.has(flags::WRITE.or(flags::REPORTS_DISK_ERRORS)) {
            self.server.check_disk()?;
        }
        Ok(())
    }

    /// Whether `enable-debug-command` allows DEBUG to this connection.
    #[cold]
    fn may_debug(&self, client: &Client) -> bool {
        self.server.config.settings().enable_debug_command.allows(client.record.is_local())
    }

    /// Evicts keys by the policy, since memory is above `maxmemory`.
    #[cold]
    fn make_room(&mut self) -> Result<(), CommandError> {
        let server = self.server;
        let settings = server.config.settings();
        let choice = Choice { policy: settings.maxmemory_policy, samples: settings.maxmemory_samples };
        if choice.policy == EvictionPolicy::NoEviction {
            return Err(CommandError::OutOfMemory);
        }
        // What a snapshot holds is gone when it ends; without this it would cost the keyspace again and again.
        let saving = &server.saving;
        let in_snapshot = saving.state.lock().running.is_some();
        if !in_snapshot {
            saving.evicted_bytes.store(0, Relaxed);
        }
        let used = (alloc::used_memory() as u64).saturating_sub(saving.evicted_bytes.load(Relaxed));
        let excess = used.saturating_sub(self.maxmemory);
        if excess == 0 {
            return Ok(());
        }
        let keys_max = match settings.maxmemory_eviction_tenacity {
            100.. => usize::MAX,
            tenacity => (tenacity as usize * EVICTED_PER_TENACITY).max(1),
        };
        let inside = self.inside.is_none().then(|| server.gate.enter(self.worker));
        self.scratch.begin(server.store.log().is_active(), false);
        let mut world = EvictDb { keyspace: &server.keyspace, scratch: self.scratch, facts: self.facts };
        let evicted = self.evictor.evict(&mut world, choice, excess, keys_max, &mut |scratch| {
            append_effects(server, self.worker, scratch);
        });
        drop(inside);
        self.serve_vanished();
        self.stats.counters.evicted.add_alone(evicted.keys as u64);
        if in_snapshot {
            saving.evicted_bytes.fetch_add(evicted.bytes, Relaxed);
        }
        if evicted.keys == 0 { Err(CommandError::OutOfMemory) } else { Ok(()) }
    }

    /// Replies with an error to a command that is not run.
    #[cold]
    fn refuse(&mut self, error: &CommandError, args: Args<'_>, client: &mut Client, out: &mut Output) {
        let table = &self.server.table;
        let entry = match table.resolve(args) {
            Err(CommandError::Arity(name)) => table.by_full_name(name.as_bytes()),
            found => found.ok(),
        };
        if let Some(entry) = entry {
            self.stats.commands[entry.index].rejected.add_alone(1);
        }
        if self.abort_transaction(self.server.table.get(args.at(0)), client) {
            let text = error.wire();
            let reason = text.strip_prefix(b"ERR ").unwrap_or(&text);
            let text = [b"EXECABORT Transaction discarded because of: ", reason].concat();
            return self.reply_refusal(&CommandError::Echo(text), client, out);
        }
        if matches!(error, CommandError::UnknownCommand(_)) && is_http(args.at(0)) {
            return abort(client, self.facts.now);
        }
        self.reply_refusal(error, client, out);
    }

    fn reply_refusal(&self, error: &CommandError, client: &mut Client, out: &mut Output) {
        let mark = out.mark();
        error_reply(self.server, error, out);
        settle_reply_mode(client, mark, out);
    }

    /// Runs one command that passed the checks.
    #[inline]
    fn one(&mut self, entry: &CommandEntry, args: Args<'_>, keys: &HashedKeys, client: &mut Client, out: &mut Output) {
        let mark = out.mark();
        let outcome = match entry.command.handler {
            Handler::Data(handler) => self.data(handler, entry, args, keys, client, out),
            Handler::Session(handler) | Handler::ContainerOr(_, handler) => {
                let (server, now) = (self.server, self.facts.now);
                let reply = Reply::new(out, client.resp);
                catch_unwind(AssertUnwindSafe(|| handler(&mut SessionCall { args, entry, server, client, now }, reply)))
                    .unwrap_or_else(|panic| Err(internal_error(entry, &*panic)))
            }
            Handler::Transaction(step) => self.step(step, args, keys, client, out),
            Handler::Container(_) => Err(CommandError::Arity(entry.full_name.clone())),
            Handler::Words(_) => Err(CommandError::subcommand_syntax(args.at(1), entry.command.name)),
        };
        if let Err(error) = outcome {
            fail(self.server, &self.stats.commands[entry.index], &error, mark, out);
        }
        settle_reply_mode(client, mark, out);
    }

    /// Runs one command and counts it and its time.
    fn timed(
        &mut self,
        entry: &CommandEntry,
        args: Args<'_>,
        keys: &HashedKeys,
        client: &mut Client,
        out: &mut Output,
    ) {
        let before = Instant::now();
        self.one(entry, args, keys, client, out);
        self.count_time(entry, 1, before.elapsed().as_nanos() as u64);
        self.stats.commands[entry.index].calls.add_alone(1);
        if !matches!(entry.command.handler, Handler::Data(_)) {
            self.renew_facts(client);
        }
    }

    /// Reads the configuration and the clock again.
    fn renew_facts(&mut self, client: &Client) {
        let settings = self.server.config.settings();
        let limits = limits_of(&settings, self.server.keyspace.seed());
        self.facts = facts_now(&settings, limits, client);
        self.maxmemory = settings.maxmemory;
    }

    /// Enters the gate, if this group is not inside already.
    #[inline]
    fn enter(&mut self) {
        if self.inside.is_none() {
            self.inside = Some(self.server.gate.enter(self.worker));
        }
    }

    /// Closes the gate, if it is not closed by this group already.
    fn close(&mut self) {
        if self.closed.is_none() {
            self.inside = None;
            self.closed = Some(self.server.gate.close());
        }
    }

    /// Opens the gate; the next command that needs it enters again.
    fn open(&mut self) {
        self.closed = None;
    }

    /// Runs a data command under the locks of its keys.
    #[inline]
    fn data(
        &mut self,
        handler: fn(&mut Call<'_>, Reply<'_>) -> Outcome,
        entry: &CommandEntry,
        args: Args<'_>,
        keys: &HashedKeys,
        client: &mut Client,
        out: &mut Output,
    ) -> Outcome {
        let (server, worker) = (self.server, self.worker);
        let command = entry.command;
        let was_alone = self.closed.is_some();
        if keys.any || command.flags.has(flags::FROZEN) {
            self.close();
        }
        let frozen = self.closed.as_ref().filter(|_| command.flags.has(flags::FROZEN));
        let frozen = frozen.map(|closed| server.keyspace.freeze(closed));
        if !was_alone && !keys.any {
            self.open();
        }
        // Nobody waits for a key of a transaction's shards.
        let in_transaction = self.held.is_some();
        let mut held = match &mut self.held {
            Some(held) => held.lend(keys.named.iter().map(HashedKey::shard)),
            None => hold(&server.keyspace, command, keys),
        };
        if command.flags.has(flags::WRITE)
            && self.closed.is_none()
            && !in_transaction
            && server.blocking.is_any()
            && is_waited_for(&mut held, args, keys)
        {
            drop(held);
            self.close();
            held = hold(&server.keyspace, command, keys);
        }
        self.scratch.begin(server.store.log().is_active(), entry.only_key.is_none());
        let mut db = Db::new(held, self.scratch, client.db, &self.facts);
        if command.flags.has(flags::NO_TOUCH) {
            db = db.without_touching();
        }
        let mut call = Call { args, db, entry, frozen, keys, may_block: !client.in_exec, block: None };
        let outcome = run_handler(handler, &mut call, Reply::new(out, client.resp));
        let barrier = outcome.is_ok() && (command.log == LogRule::Barrier || call.db.scratch().as_received());
        let logged = !call.db.scratch().effects.is_empty() || barrier;
        match &mut self.parts {
            None => {
                append_effects(server, worker, call.db.scratch());
                if barrier {
                    let words: SmallVec<[&[u8]; 4]> = args.from(0).collect();
                    server.store.log().appender(worker).barrier(client.db, &words);
                }
            }
            Some(parts) => {
                let records = std::mem::take(&mut call.db.scratch().effects);
                parts.extend((!records.is_empty()).then_some(Part::Records(records)));
                parts.extend(barrier.then(|| Part::Barrier(client.db, args.from(0).map(<[u8]>::to_vec).collect())));
            }
        }
        if let Some(block) = call.block.take().filter(|_| outcome.is_ok()) {
            register(server, &mut call, block, client);
        }
        drop(call);
        if self.closed.is_some() && !was_alone {
            if command.flags.has(flags::WRITE) && server.blocking.is_any() {
                let mut ready = Vec::new();
                self.add_ready(entry, args, keys, &mut ready);
                self.serve(ready);
            }
            self.open();
        }
        // An expired key that a read has removed is no write of this connection.
        if logged && command.flags.has(flags::WRITE) {
            client.last_write_block = server.store.log().position();
        }
        self.retire();
        outcome
    }

    /// Has large values freed by another thread.
    #[inline]
    fn retire(&mut self) {
        self.scratch.forget_undo();
        if !self.scratch.retired.is_empty() || !self.scratch.retired_directories.is_empty() {
            self.retire_large();
        }
    }

    #[cold]
    fn retire_large(&mut self) {
        if !self.scratch.retired.is_empty() {
            let values = std::mem::take(&mut self.scratch.retired);
            let count = values.len() as u64;
            self.server.reclaim(Box::new(values), count);
        }
        if !self.scratch.retired_directories.is_empty() {
            let directories = std::mem::take(&mut self.scratch.retired_directories);
            let count = directories.iter().map(|directory| directory.len() as u64).sum();
            self.server.reclaim(Box::new(directories), count);
        }
    }

    /// Counts the time of so many runs of a command, each of which took so long.
    #[inline]
    fn count_time(&self, entry: &CommandEntry, times: u64, nanoseconds: u64) {
        self.stats.commands[entry.index].nanoseconds.add_alone(nanoseconds * times);
        if self.latency_tracking {
            self.stats.latencies[entry.index].record_alone(nanoseconds, times);
        }
    }

    /// Adds up what the group did for its connection.
    fn account(&mut self, executed: u64, client: &Client) {
        self.stats.counters.commands.add_alone(executed);
        self.add_up();
        let total = &client.record.total_commands;
        total.store(total.load(Relaxed) + executed, Relaxed);
        client.record.active_ms.store(self.facts.now as u64, Relaxed);
    }

    /// Adds up what was found and changed.
    fn add_up(&mut self) {
        let counters = &self.stats.counters;
        counters.hits.add_alone(std::mem::take(&mut self.scratch.hits));
        counters.misses.add_alone(std::mem::take(&mut self.scratch.misses));
        counters.expired.add_alone(std::mem::take(&mut self.scratch.expired));
        counters.expired_fields.add_alone(std::mem::take(&mut self.scratch.expired_fields));
        let dirty = std::mem::take(&mut self.scratch.dirty);
        if dirty > 0 {
            self.server.saving.changes.fetch_add(dirty, Relaxed);
        }
    }
}

/// Locks what the command needs.
#[inline]
fn hold<'a>(keyspace: &'a Keyspace, command: &Command, keys: &HashedKeys) -> Held<'a> {
    match &keys.named[..] {
        _ if keys.any || command.flags.has(flags::WALKS) => Held::on_demand(keyspace),
        [] => Held::none(keyspace),
        [key] => Held::one(keyspace, key.shard()),
        several => Held::several(keyspace, &mut several.iter().map(HashedKey::shard).collect()),
    }
}

/// Whether this is a line of an HTTP request: a web page can have a browser send one here, with commands of
/// its own as the body.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}

/// Closes a connection that speaks HTTP, before it gets to the body.
#[cold]
fn abort(client: &mut Client, now: i64) {
    static LOGGED_MS: AtomicI64 = AtomicI64::new(i64::MIN);
    const LOGGED_AGAIN_AFTER_MS: i64 = 60_000;
    client.closing = true;
    client.aborted = true;
    let logged = LOGGED_MS.load(Relaxed);
    if now.saturating_sub(logged) > LOGGED_AGAIN_AFTER_MS {
        LOGGED_MS.store(now, Relaxed);
        logging::warning(format_args!(
            "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to this \
             server. This is likely due to an attacker attempting to use Cross Protocol Scripting to compromise it. \
             Connection from {} aborted.",
            client.record.peer
        ));
    }
}

/// Drops the reply of a command that the client does not want to hear of. A command that waits has not
/// replied yet: its turn comes at the end of the wait.
#[inline]
pub fn settle_reply_mode(client: &mut Client, mark: Mark, out: &mut Output) {
    match client.reply_mode {
        ReplyMode::On => {}
        _ if client.wait.is_some() => {}
        ReplyMode::Off => out.truncate(mark),
        ReplyMode::SkipNext => {
            out.truncate(mark);
            client.reply_mode = ReplyMode::Skip;
        }
        ReplyMode::Skip => {
            out.truncate(mark);
            client.reply_mode = ReplyMode::On;
        }
    }
}

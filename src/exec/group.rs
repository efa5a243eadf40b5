//! A group of commands of one connection, executed in turn: up to [`super::GROUP_MAX`] share the gate, the clock and
//! the settings.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::ahead::plan;
use super::changes::{tell_reader, tell_readers};
use super::data::events_of;
use super::evict::Evictor;
use super::facts::{facts_now, limits_of};
use super::fiber::{Fibers, Pausing};
use super::handler::internal_error;
use super::monitor;
use super::noting::{Bars, Shared};
use super::reads::alike;
use super::serving::ReadyKey;
use super::tally::Tally;
use super::{Executor, Plan};
use crate::base::config::{NotifyFlags, ScriptRollback, Settings};
use crate::core::audit::{Begun, Current as AuditLog, Ended};
use crate::core::call::HashedKeys;
use crate::core::client::{Client, ReplyMode};
use crate::core::db::Facts;
use crate::core::error::Remains;
use crate::core::hooks::{Hook, HookSet};
use crate::core::stats::WorkerStats;
use crate::core::table::{CommandEntry, LastNamed};
use crate::core::{Command, CommandError, Handler, Outcome, Scratch, Server, SessionCall, Unit, flags};
use crate::events::monitors::Lines;
use crate::keyspace::gate::Inside;
use crate::keyspace::{Busy, Closed, Closing, Held, Staying};
use crate::resp::reply::Mark;
use crate::resp::{Args, Output, Reply};

/// What the commands of one group share.
pub(super) struct Group<'a> {
    pub(super) server: &'a Arc<Server>,
    pub(super) worker: usize,
    pub(super) stats: &'a WorkerStats,
    pub(super) unit: &'a mut Unit,
    pub(super) scratch: &'a mut Scratch,
    pub(super) evictor: &'a mut Evictor,
    pub(super) facts: Facts,
    pub(super) maxmemory: u64,
    /// What commands of this group may still bring before they look at the memory in use.
    pub(super) room: u64,
    pub(super) hooks: HookSet,
    /// Keys that scripts of the running transaction have left for their waiters.
    pub(super) script_ready: Vec<ReadyKey>,
    /// What monitors are to be shown of the running transaction.
    pub(super) lines: Lines,
    /// Whether EXEC is among them.
    pub(super) has_shown_exec: bool,
    /// How many more commands count as processed than were executed: those of transactions and scripts, without those
    /// that were refused or queued.
    pub(super) processed: i64,
    /// What is to be counted of a script's run, once it is known that it is not repeated.
    pub(super) tally: Option<Box<Tally>>,
    /// From where on a command is noted.
    pub(super) bars: Bars,
    /// The events of keys that are published.
    pub(super) events: NotifyFlags,
    /// `min-replicas-to-write` asks for more replicas than there are: for any.
    pub(super) lacks_replicas: bool,
    pub(super) latency_tracking: bool,
    /// The most that a transaction may queue, in bytes.
    pub(super) queue_bytes_max: u64,
    /// This worker's right to execute, while it is inside the gate;
    pub(super) inside: Option<Inside<'a>>,
    /// or its right to be alone.
    pub(super) closed: Option<Closed<'a>>,
    /// The right of a script to be inside that its worker has left in the middle.
    pub(super) staying: Option<Staying<'a>>,
    /// The shards of a transaction or a script that does not run alone, for its next command.
    pub(super) held: Option<Held<'a>>,
    /// How long to wait for a busy lock;
    pub(super) patience: Duration,
    /// and how often this worker has tried to close the gate.
    pub(super) closing: &'a mut Closing,
    /// How a script of the running transaction gives its worker back; `None` outside of one.
    pub(super) pausing: Option<Pausing<'a>>,
    /// What scripts run in,
    pub(super) fibers: &'a mut Fibers,
    /// and what the settings say of them.
    pub(super) script_rules: ScriptRules,
    /// Whether a command of the running transaction has failed, with its error,
    pub(super) failed: Option<CommandError>,
    /// and whether the transaction is then taken back: `exec-rollback`.
    pub(super) exec_rollback: bool,
    /// In how many groups the keys of one are counted;
    pub(super) until_sample: &'a mut u32,
    /// whether this is such a one,
    pub(super) is_sampled: bool,
    /// and the hits and misses of its commands that are counted.
    pub(super) reads_seen: (u64, u64),
}

/// What the settings say of scripts.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScriptRules {
    pub(super) rollback: ScriptRollback,
    pub(super) busy_after_ms: i64,
    /// The memory that a machine may take, in bytes; 0 for a part of `maxmemory`.
    pub(super) memory_max: usize,
}

impl ScriptRules {
    fn of(settings: &Settings) -> Self {
        ScriptRules {
            rollback: settings.script_rollback,
            busy_after_ms: settings.busy_reply_threshold_ms,
            memory_max: settings.maxmemory_scripts,
        }
    }
}

/// The outcome of [`Executor::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How many were executed: fewer than given if the connection must wait, close, or park.
    pub executed: usize,
    /// The busy lock that the next command needs. It has done nothing and must run again later.
    pub parked: Option<Busy>,
}

impl Executor {
    /// Executes the commands of one connection in turn, at most [`super::GROUP_MAX`], and appends their replies.
    ///
    /// None waits much longer than `patience` for a busy lock: see [`Ran::parked`].
    pub fn run(&mut self, client: &mut Client, calls: &[Args<'_>], out: &mut Output, patience: Duration) -> Ran {
        self.refresh_settings();
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_now(&self.settings, limits, client, self.server.hooks.load());
        let (mut group, all_keys, last_named) = self.group(facts, patience);
        let (server, stats) = (group.server, group.stats);
        group.choose_sample(client);
        let may_go_on = client.renew_user(server);
        client.hear(server, out);
        let (mut shared, plans) = (Shared::new(), plan(server, client.db, calls, all_keys, last_named));
        client.served.note_begun(shared.started);
        let (mut executed, mut parked, keys) = (0, None, &*all_keys);
        while may_go_on && executed < calls.len() {
            let (at, args) = (executed, calls[executed]);
            executed += 1;
            let entry = match group.check(plans[at], args, client) {
                Ok(entry) => entry,
                Err(CommandError::Busy(busy)) => {
                    (executed, parked) = (at, Some(busy));
                    break;
                }
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
            if entry.is_plain_read && group.may_read_plainly(client) {
                let end = at + group.read_together(&plans[at..], entry, client);
                let (times, busy) = group.reads(entry, &calls[at..end], &keys[at..end], client, out);
                executed = at + times;
                if times > 0 {
                    shared.add(entry, times as u64);
                    stats.commands[entry.index].calls.add_alone(times as u64);
                }
                let Some(busy) = busy else { continue };
                parked = group.refuse_held(busy, calls[executed], client, out);
                if parked.is_some() {
                    break;
                }
                executed += 1;
                continue;
            }
            if changes_facts(entry.command) {
                // It may look at what the others took: INFO, LATENCY HISTOGRAM, CONFIG RESETSTAT.
                group.count_shared_time(&mut shared, (&plans, &calls[..at]), client);
            }
            let keys = &keys[at];
            let before = (!entry.is_quick || group.is_timed_alone(args)).then(Instant::now);
            let replied = out.len();
            let ran = group.take_place(entry, keys).and_then(|()| group.one(entry, args, keys, client, out));
            if let Err(busy) = ran {
                parked = group.refuse_held(busy, args, client, out);
                if parked.is_some() {
                    executed = at;
                    break;
                }
                continue;
            }
            let size = out.len().saturating_sub(replied);
            group.note_ran((entry, args, keys), (before, size), &mut shared, client);
            group.remove_met();
            group.serve_vanished();
            client.hear(server, out);
            if changes_facts(entry.command) {
                // It may have changed the facts for the commands behind it: CONFIG SET, CLIENT NO-TOUCH.
                group.renew_facts(client);
            }
            client.end_caching(entry.keeps_caching);
            if client.wait.is_some() || client.closing {
                break;
            }
        }
        group.leave(parked, client);
        group.count_shared_time(&mut shared, (&plans, &calls[..executed]), client);
        group.note_executed(&shared, client);
        group.account(executed as u64, client);
        all_keys.iter_mut().take(calls.len()).for_each(HashedKeys::forget_many);
        Ran { executed, parked }
    }

    /// A group of commands to execute with these facts, room for their keys, and the previously called command.
    pub(super) fn group(&mut self, facts: Facts, patience: Duration) -> (Group<'_>, &mut [HashedKeys], &mut LastNamed) {
        let Executor {
            server,
            worker,
            unit,
            scratch,
            evictor,
            keys,
            last_named,
            settings,
            bars,
            closing,
            fibers,
            until_sample,
            ..
        } = self;
        let group = Group {
            server,
            worker: *worker,
            stats: &server.workers[*worker],
            unit,
            scratch,
            evictor,
            facts,
            maxmemory: settings.maxmemory,
            room: 0,
            hooks: server.hooks.load(),
            lines: Lines::default(),
            has_shown_exec: false,
            processed: 0,
            tally: None,
            bars: *bars,
            events: events_of(settings),
            lacks_replicas: settings.min_replicas_to_write > 0,
            latency_tracking: settings.latency_tracking,
            queue_bytes_max: settings.client_query_buffer_limit,
            inside: None,
            closed: None,
            staying: None,
            held: None,
            script_ready: Vec::new(),
            patience,
            closing,
            pausing: None,
            fibers,
            script_rules: ScriptRules::of(settings),
            failed: None,
            exec_rollback: settings.exec_rollback,
            until_sample,
            is_sampled: false,
            reads_seen: (0, 0),
        };
        (group, keys, last_named)
    }
}

impl Group<'_> {
    /// Runs one command that passed the checks.
    ///
    /// # Errors
    /// A lock that it needs is busy: it has done nothing and must run again later. Never inside a transaction.
    #[inline]
    pub(super) fn one(
        &mut self,
        entry: &CommandEntry,
        args: Args<'_>,
        keys: &HashedKeys,
        client: &mut Client,
        out: &mut Output,
    ) -> Result<(), Busy> {
        let mark = out.mark();
        let audit = self.hooks.has(Hook::Audit).then(|| self.server.audit.current());
        let outcome = match entry.command.handler {
            Handler::Data(handler) => match self.data(handler, entry, args, keys, client, out) {
                Err(CommandError::NeedsRoom(bytes)) => {
                    out.truncate(mark);
                    self.data_with_room(bytes, handler, entry, args, keys, client, out)
                }
                outcome => outcome,
            },
            Handler::Session(handler) | Handler::ContainerOr(_, handler) => {
                client.said_secret |= entry.command.secrets.is_some();
                let (server, now) = (self.server, self.facts.now);
                let reply = Reply::new(out, client.resp);
                let mut call = SessionCall { args, entry, server, client, now };
                let outcome = catch_unwind(AssertUnwindSafe(|| handler(&mut call, reply)))
                    .unwrap_or_else(|panic| Err(internal_error(entry, Remains::Unknown, &*panic)));
                self.begin_deferred(mark, client, out);
                self.show(entry, args, client, &outcome);
                outcome
            }
            Handler::Transaction(step) => {
                let outcome = self.step(step, args, keys, client, out);
                self.begin_deferred(mark, client, out);
                self.show(entry, args, client, &outcome);
                outcome
            }
            Handler::Script(form) => self.script(form, entry, args, client, out),
            Handler::Libraries(change) => {
                let outcome = self.change_libraries(change, entry, args, client, out);
                self.show(entry, args, client, &outcome);
                outcome
            }
            Handler::Container(_) => Err(CommandError::Arity(entry.full_name.clone())),
            Handler::Words(_) => Err(CommandError::subcommand_syntax(args.at(1), entry.command.name)),
        };
        if let Some(log) = audit {
            self.audit(log, entry, args, client, &outcome);
        }
        if let Err(error) = outcome {
            if let CommandError::Busy(busy) = error {
                out.truncate(mark);
                return Err(busy);
            }
            self.fail(entry, &error, mark, out);
            // A script may have caught its error.
            if client.in_exec && !client.in_script && self.exec_rollback {
                self.failed.get_or_insert(error);
            }
        }
        let is_pushed = entry.command.flags.has(flags::PUSHES);
        settle_reply_mode(client, if is_pushed { out.mark() } else { mark }, out);
        if !client.in_exec && !self.unit.untold.changes.is_empty() {
            tell_reader(self.server, &mut self.unit.untold, client, out);
        }
        Ok(())
    }

    /// Leaves the gate at the end of a group, and what the group has taken for itself.
    fn leave(&mut self, parked: Option<Busy>, client: &mut Client) {
        self.inside = None;
        self.tell_readers();
        if client.claim.is_some() && parked != Some(Busy::Memory) {
            client.claim = None;
        }
    }

    /// Tells those who have cached what has changed, at the end of a group.
    #[inline]
    pub(super) fn tell_readers(&mut self) {
        if !self.unit.untold.is_empty() {
            tell_readers(self.server, &mut self.unit.untold);
        }
    }

    /// How many of the first calls, which are plain reads, run together. Each call of a limited user is checked by
    /// itself.
    #[inline]
    fn read_together(&self, plans: &[Plan<'_>], entry: &CommandEntry, client: &Client) -> usize {
        let is_checked = self.hooks.has(Hook::Access) && !client.is_unlimited();
        if is_checked { 1 } else { alike(plans, entry) }
    }

    /// Whether plain reads take their short path.
    #[inline]
    fn may_read_plainly(&self, client: &Client) -> bool {
        client.reply_mode == ReplyMode::On
            && !self.is_sampled
            && !self.hooks.sees_each_command()
            && !client.has_said_caching()
    }

    /// Shows monitors a command that is no data command.
    #[inline]
    fn show(&mut self, entry: &CommandEntry, args: Args<'_>, client: &Client, outcome: &Outcome) {
        if self.hooks.has(Hook::Monitor) && !std::mem::take(&mut self.has_shown_exec) {
            monitor::note(self.server, &mut self.lines, entry.command, args, client, outcome);
            if !client.in_exec {
                monitor::show(self.server, &mut self.lines, self.server.store.journal().position());
            }
        }
    }

    /// Tells the audit log of a command that has run.
    #[cold]
    fn audit(&self, log: Arc<AuditLog>, entry: &CommandEntry, args: Args<'_>, client: &mut Client, outcome: &Outcome) {
        let ended = match outcome {
            // It will run again.
            Err(CommandError::Busy(_)) => return,
            Err(error) => Ended::Failed(error),
            Ok(_) if client.wait.is_some() => Ended::Begun,
            Ok(_) => Ended::Done,
        };
        let is_meant = log.note_call(entry, args, &client.record, ended);
        let command = entry.full_name.as_str().into();
        client.audited = (is_meant && matches!(ended, Ended::Begun)).then_some(Begun { log, command });
    }

    /// Runs one command, and counts the call and its time.
    pub(super) fn timed(
        &mut self,
        entry: &CommandEntry,
        args: Args<'_>,
        keys: &HashedKeys,
        client: &mut Client,
        out: &mut Output,
    ) {
        let (before, replied) = (Instant::now(), out.len());
        if let Err(busy) = self.one(entry, args, keys, client, out) {
            unreachable!("a transaction has all that its commands need: {busy:?}");
        }
        let size = out.len().saturating_sub(replied);
        self.note_timed(entry, args, keys, (before, size), client);
        self.note_size(entry, args, size, client);
        self.stats.commands[entry.index].calls.add_alone(1);
        self.processed += 1;
        if changes_facts(entry.command) {
            self.renew_facts(client);
        }
    }

    /// Counts the time of a command that has begun then and has a reply of this size. Returns the nanoseconds.
    #[inline]
    pub(super) fn note_timed(
        &mut self,
        entry: &CommandEntry,
        args: Args<'_>,
        keys: &HashedKeys,
        (before, size): (Instant, usize),
        client: &Client,
    ) -> u64 {
        let took = before.elapsed().as_nanos() as u64;
        self.count_time(entry, 1, took);
        self.note_time(entry, args, took, client);
        self.note_keys(args, keys, (took, size), &client.record, client.db);
        took
    }

    /// Rereads the configuration and the clock.
    pub(super) fn renew_facts(&mut self, client: &mut Client) {
        client.renew_user(self.server);
        let settings = self.server.config.settings();
        let limits = limits_of(&settings, self.server.keyspace.seed());
        (self.maxmemory, self.room) = (settings.maxmemory, 0);
        self.hooks = self.server.hooks.load();
        self.facts = facts_now(&settings, limits, client, self.hooks);
        self.bars = Bars::of(&settings);
        self.latency_tracking = settings.latency_tracking;
        (self.script_rules, self.exec_rollback) = (ScriptRules::of(&settings), settings.exec_rollback);
        self.events = events_of(&settings);
        self.unit.want_events(self.events);
        self.lacks_replicas = settings.min_replicas_to_write > 0;
    }

    /// Enters the gate for a command that needs keys, and leaves it before one that must run outside.
    #[inline]
    fn take_place(&mut self, entry: &CommandEntry, keys: &HashedKeys) -> Result<(), Busy> {
        if alone(entry.command, keys) {
            self.inside = None;
        } else if !keys.named.is_empty() || entry.command.flags.has(flags::WALKS) {
            return self.enter();
        } else if !entry.is_quick {
            // A thread that closes the gate need not wait for a command without keys, however long it takes.
            self.inside = None;
        }
        Ok(())
    }

    /// Enters the gate, unless this group is already inside.
    ///
    /// # Errors
    /// The gate is closed.
    #[inline]
    pub(super) fn enter(&mut self) -> Result<(), Busy> {
        if self.inside.is_none() {
            let inside = self.server.gate.try_enter(self.worker, self.patience).ok_or(Busy::Gate)?;
            self.inside = Some(inside).filter(|_| !self.must_be_checked_again());
        }
        if self.inside.is_some() { Ok(()) } else { Err(Busy::Gate) }
    }

    /// Whether a pause has begun since the command was checked, or a shard was found damaged. It is then checked again:
    /// once CLIENT PAUSE is answered, nothing runs that the pause holds back; and nothing that is alone waits for a
    /// damaged shard.
    #[inline]
    fn must_be_checked_again(&self) -> bool {
        let now = self.server.hooks.load();
        [Hook::Pause, Hook::Damage].into_iter().any(|hook| !self.hooks.has(hook) && now.has(hook))
    }

    /// Closes the gate, unless this group has already closed it.
    ///
    /// # Errors
    /// Another worker executes something.
    pub(super) fn close(&mut self) -> Result<(), Busy> {
        if self.closed.is_none() {
            self.inside = None;
            let closed = self.server.gate.try_close_for(self.closing, self.patience);
            self.closed = Some(closed.ok_or(Busy::Workers)?).filter(|_| !self.must_be_checked_again());
        }
        if self.closed.is_some() { Ok(()) } else { Err(Busy::Gate) }
    }

    /// Opens the gate. The next command that needs it enters again.
    pub(super) fn open(&mut self) {
        self.closed = None;
    }

    /// Counts this many runs of a command that took this long each.
    #[inline]
    pub(super) fn count_time(&self, entry: &CommandEntry, times: u64, nanoseconds: u64) {
        self.stats.commands[entry.index].nanoseconds.add_alone(nanoseconds * times);
        if self.latency_tracking {
            self.stats.latencies[entry.index].record_alone(nanoseconds, times);
        }
    }

    /// Adds up the counters of the group for its connection.
    pub(super) fn account(&mut self, executed: u64, client: &Client) {
        self.processed += executed as i64;
        self.stats.counters.groups.add_alone(1);
        if client.record.observes {
            (self.scratch.hits, self.scratch.misses) = (0, 0);
        }
        self.add_up();
        let total = &client.record.total_commands;
        total.store(total.load(Relaxed) + executed, Relaxed);
        client.record.active_ms.store(self.facts.now as u64, Relaxed);
    }

    /// Adds up the counters of lookups and changes.
    pub(super) fn add_up(&mut self) {
        let counters = &self.stats.counters;
        // Below zero if what was executed is counted later. The counter wraps.
        counters.commands.add_alone(std::mem::take(&mut self.processed) as u64);
        counters.hits.add_alone(std::mem::take(&mut self.scratch.hits));
        counters.misses.add_alone(std::mem::take(&mut self.scratch.misses));
        counters.expired.add_alone(std::mem::take(&mut self.scratch.expired));
        counters.expired_fields.add_alone(std::mem::take(&mut self.scratch.expired_fields));
        self.scratch.expiry_lags_ms.drain(..).for_each(|lag| self.stats.expiry_lag_ms.record_alone(lag, 1));
        let dirty = std::mem::take(&mut self.scratch.dirty);
        if dirty > 0 {
            let (server, saving) = (self.server, &self.server.saving);
            let changes = saving.changes.fetch_add(dirty, Relaxed) + dirty;
            if std::mem::take(&mut self.scratch.flushed_all) {
                saving.flushed_all.store(true, Relaxed);
                if server.keeps_by_snapshots() {
                    saving.flushed_changes.store(changes, Relaxed);
                }
            }
        }
    }
}

/// Whether the command may change the facts for the commands behind it.
#[inline]
fn changes_facts(command: &Command) -> bool {
    !matches!(command.handler, Handler::Data(_)) && !command.flags.has(flags::KEEPS_FACTS)
}

/// Whether the command must run outside the gate: because it closes the gate, or because it is not a data command.
pub(super) fn alone(command: &Command, keys: &HashedKeys) -> bool {
    !matches!(command.handler, Handler::Data(_)) || keys.any || command.flags.has(flags::FROZEN)
}

/// Drops a reply that the client does not want. A waiting command has not replied yet: its turn comes at the end of
/// the wait.
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

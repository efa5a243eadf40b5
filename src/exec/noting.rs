//! Notes what is worth an operator's look about a command that ran: that it was slow, or large.
//!
//! A command that may take long is timed individually, and so is every command while [`Hook::Slowlog`] is set. Other
//! quick commands share two readings of the clock with their group. If a group takes as long as a slow command, the
//! log gets one entry with the total time, which names the command with most work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::data::find_keys;
use super::facts::{facts_of, limits_of};
use super::group::Group;
use super::handler::{error_reply, fail};
use super::tally::Tally;
use super::{Executor, GROUP_MAX, Plan};
use crate::base::clock;
use crate::base::config::Settings;
use crate::base::latency::Event;
use crate::base::slot;
use crate::core::call::{HashedKeys, Wait};
use crate::core::client::{Client, ClientRecord};
use crate::core::commandlog::{Bounds, Reason};
use crate::core::hotkeys::Used;
use crate::core::keystats::{Sampled, next_sample};
use crate::core::table::CommandEntry;
use crate::core::waiting::Asked;
use crate::core::{CommandError, Hook, flags};
use crate::keyspace::{Key, take_waited_ns};
use crate::resp::reply::Mark;
use crate::resp::{Args, Output};

/// A command with more arguments than this is not quick.
const QUICK_ARGUMENTS_MAX: usize = 64;
/// Behind a write with at least this many bytes, its keys are measured,
const LARGE_REQUEST_BYTES: u64 = 4096;
/// at most this many.
const MEASURED_KEYS_MAX: usize = 16;

/// From where on a command is noted; `u64::MAX` for never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bars {
    /// From how many nanoseconds on it may concern the slow log or the latency monitor;
    noted_ns: u64,
    /// and from how many on the slow log.
    slow_ns: u64,
    /// From how many bytes on its request is large;
    request_bytes: u64,
    /// and from how many on its reply.
    reply_bytes: u64,
}

impl Bars {
    /// What the settings say.
    pub(super) fn of(settings: &Settings) -> Bars {
        let bar = |figure: i64, reason: Reason| match u64::try_from(figure) {
            Ok(figure) if reason.len_max(settings) > 0 => figure,
            _ => u64::MAX,
        };
        let slow_ns = bar(settings.slowlog_log_slower_than_us, Reason::Slow).saturating_mul(1000);
        let latency_ns = match settings.latency_monitor_threshold_ms {
            0 => u64::MAX,
            ms => ms.saturating_mul(1_000_000),
        };
        Bars {
            noted_ns: slow_ns.min(latency_ns),
            slow_ns,
            request_bytes: bar(settings.commandlog_request_larger_than_bytes, Reason::LargeRequest),
            reply_bytes: bar(settings.commandlog_reply_larger_than_bytes, Reason::LargeReply),
        }
    }

    /// Whether a call with a reply of this size may have a large request or a large reply.
    #[inline]
    pub(super) fn may_be_large(&self, args: Args<'_>, reply_bytes: usize) -> bool {
        reply_bytes as u64 >= self.reply_bytes || args.may_reach(self.request_bytes)
    }
}

/// The time that the quick commands of a group take together: two readings of the clock serve all of them.
pub(super) struct Shared<'a> {
    pub(super) started: Instant,
    /// Each quick command with its number of consecutive calls.
    quick: SmallVec<[(&'a CommandEntry, u64); GROUP_MAX]>,
    /// The time of the others.
    pub(super) others_ns: u64,
    /// The first command of the group whose time is not counted yet.
    uncounted: usize,
    /// Whether the last quick command waits.
    last_waits: bool,
    /// When everything that has run was counted; `None` if something has run since.
    counted: Option<Instant>,
}

impl<'a> Shared<'a> {
    /// Begins.
    pub(super) fn new() -> Shared<'a> {
        Shared {
            started: Instant::now(),
            quick: SmallVec::new(),
            others_ns: 0,
            uncounted: 0,
            last_waits: false,
            counted: None,
        }
    }

    /// Adds calls of a quick command.
    #[inline]
    pub(super) fn add(&mut self, entry: &'a CommandEntry, times: u64) {
        match self.quick.last_mut() {
            Some((last, before)) if std::ptr::eq(*last, entry) => *before += times,
            _ => self.quick.push((entry, times)),
        }
    }
}

impl Group<'_> {
    /// Whether a quick command is timed individually.
    #[inline]
    pub(super) fn is_timed_alone(&self, args: Args<'_>) -> bool {
        self.hooks.times_each_command() || self.is_sampled || args.len() > QUICK_ARGUMENTS_MAX
    }

    /// Notes a command that took long.
    #[inline]
    pub(super) fn note_time(&self, entry: &CommandEntry, args: Args<'_>, took_ns: u64, client: &Client) {
        if took_ns >= self.bars.noted_ns {
            self.log_time_of(entry, args, took_ns, client);
        }
    }

    /// Notes a command with a large request or a large reply.
    #[inline]
    pub(super) fn note_size(&self, entry: &CommandEntry, args: Args<'_>, reply_bytes: usize, client: &Client) {
        if self.bars.may_be_large(args, reply_bytes) {
            self.log_size(entry, args, reply_bytes, &client.record);
        }
    }

    /// Counts what a command that was timed individually has cost its keys and its slot, if that is wanted.
    #[inline]
    pub(super) fn note_keys(
        &mut self,
        args: Args<'_>,
        keys: &HashedKeys,
        figures: (u64, usize),
        record: &ClientRecord,
        db: u32,
    ) {
        if record.observes {
            return;
        }
        if self.hooks.has(Hook::Hotkeys) {
            self.count_keys(args, keys, figures, db);
        }
        if self.hooks.has(Hook::SlotUsage) {
            self.count_slot(args, keys, figures);
        }
        if self.is_sampled {
            self.count_sampled(args, keys, figures.0, db);
        }
    }

    /// Decides whether this is a group whose keys are counted.
    #[inline]
    pub(super) fn choose_sample(&mut self, client: &Client) {
        if self.hooks.has(Hook::KeyStats) && !client.record.observes {
            match self.until_sample.checked_sub(1) {
                Some(left) => *self.until_sample = left,
                None => (self.is_sampled, *self.until_sample) = (true, next_sample()),
            }
        }
    }

    #[cold]
    fn count_sampled(&mut self, args: Args<'_>, keys: &HashedKeys, took_ns: u64, db: u32) {
        let now = (self.scratch.hits, self.scratch.misses);
        let before = std::mem::replace(&mut self.reads_seen, now);
        let keys: SmallVec<[Key<'_>; 4]> = keys.named.iter().map(|key| key.of(args)).collect();
        let settings = self.server.config.settings();
        let sampled = Sampled {
            keys: &keys,
            db,
            took_ns,
            reads: (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1)),
            separators: settings.key_prefix_separators.as_bytes(),
        };
        self.server.keystats.count(self.worker, &sampled);
        self.server.keystats.measure(&self.server.keyspace, db, keys.iter().copied(), self.facts.now);
    }

    /// Looks how large the keys of a command are now that may have made them large.
    #[cold]
    fn measure_keys(&self, args: Args<'_>, keys: &HashedKeys, db: u32) {
        let keys = keys.named.iter().take(MEASURED_KEYS_MAX).map(|key| key.of(args));
        self.server.keystats.measure(&self.server.keyspace, db, keys, self.facts.now);
    }

    /// Counts for the slot of the first key; all keys of a command are in one.
    #[cold]
    fn count_slot(&self, args: Args<'_>, keys: &HashedKeys, (took_ns, reply_bytes): (u64, usize)) {
        if let (Some(cluster), Some(first)) = (&self.server.cluster, keys.named.first()) {
            let usage = cluster.usage.of(slot::of_key(args.at(first.place)));
            usage.cpu_ns.add(took_ns);
            usage.bytes_in.add(args.wire_bytes());
            usage.bytes_out.add(reply_bytes as u64);
        }
    }

    #[cold]
    fn count_keys(&self, args: Args<'_>, keys: &HashedKeys, (took_ns, reply_bytes): (u64, usize), db: u32) {
        let keys: SmallVec<[Key<'_>; 4]> = keys.named.iter().map(|key| key.of(args)).collect();
        let net_bytes = args.wire_bytes() + reply_bytes as u64;
        self.server.hotkeys.count(self.worker, &Used { keys: &keys, db, took_ns, net_bytes });
    }

    /// Counts the time that the quick commands took together that have run so far.
    #[inline]
    pub(super) fn count_shared_time(
        &self,
        shared: &mut Shared<'_>,
        (plans, calls): (&[Plan<'_>], &[Args<'_>]),
        client: &mut Client,
    ) {
        shared.counted = None;
        if shared.quick.is_empty() {
            return;
        }
        let now = Instant::now();
        let took_ns = ((now - shared.started).as_nanos() as u64).saturating_sub(shared.others_ns);
        let all: u64 = shared.quick.iter().map(|(_, times)| times).sum();
        let each = took_ns / all.max(1);
        if self.latency_tracking {
            let run_ns = took_ns.saturating_sub(take_waited_ns()) / all.max(1);
            shared.quick.iter().for_each(|(entry, times)| client.served.add(entry.index, *times, run_ns));
            if shared.last_waits {
                client.served.take_back();
            }
        }
        shared.quick.drain(..).for_each(|(entry, times)| self.count_time(entry, times, each));
        if took_ns >= self.bars.noted_ns {
            let from = shared.uncounted.min(calls.len());
            self.note_shared_time(&plans[from..], &calls[from..], took_ns, client);
        }
        (shared.started, shared.others_ns, shared.uncounted) = (now, 0, calls.len());
        shared.counted = Some(now);
    }

    /// Notes the quick commands of a group that together took long.
    #[cold]
    fn note_shared_time(&self, plans: &[Plan<'_>], calls: &[Args<'_>], took_ns: u64, client: &Client) {
        let planned = plans.iter().zip(calls).filter_map(|(plan, args)| plan.map(|entry| (entry, *args)));
        let quick = planned.filter(|(entry, args)| entry.is_quick && !self.is_timed_alone(*args));
        // The first of several with equally many arguments.
        if let Some((entry, args)) = quick.rev().max_by_key(|(_, args)| args.len()) {
            self.log_time_of(entry, args, took_ns, client);
        }
    }

    /// Notes a command that took long, whose reply leaves with its batch.
    #[cold]
    fn log_time_of(&self, entry: &CommandEntry, args: Args<'_>, took_ns: u64, client: &Client) {
        if let Some(id) = self.log_time(entry, args, took_ns, &client.record) {
            client.served.note_slow(id, took_ns);
        }
    }

    /// Notes a command that took long. Returns its number in the slow log, if it is there.
    #[cold]
    pub(super) fn log_time(
        &self,
        entry: &CommandEntry,
        args: Args<'_>,
        took_ns: u64,
        record: &ClientRecord,
    ) -> Option<u64> {
        let event = if entry.command.flags.has(flags::FAST) { Event::FastCommand } else { Event::Command };
        self.server.latency.note(event, took_ns);
        let is_slow = took_ns >= self.bars.slow_ns;
        let logged = if is_slow { self.log(Reason::Slow, entry, args, took_ns / 1000, record) } else { None };
        if logged.is_some() {
            let (counters, took_us) = (&self.stats.commands[entry.index], took_ns / 1000);
            counters.slow.add_alone(1);
            counters.slow_us.add_alone(took_us);
            counters.slow_us_max.set(counters.slow_us_max.get().max(took_us));
        }
        logged
    }

    #[cold]
    pub(super) fn log_size(&self, entry: &CommandEntry, args: Args<'_>, reply_bytes: usize, client: &ClientRecord) {
        let request_bytes = args.wire_bytes();
        if request_bytes >= self.bars.request_bytes {
            self.log(Reason::LargeRequest, entry, args, request_bytes, client);
        }
        if reply_bytes as u64 >= self.bars.reply_bytes {
            self.log(Reason::LargeReply, entry, args, reply_bytes as u64, client);
        }
    }

    /// Adds a command to a log. Returns its number there, if it is one that is logged at all.
    fn log(
        &self,
        reason: Reason,
        entry: &CommandEntry,
        args: Args<'_>,
        figure: u64,
        client: &ClientRecord,
    ) -> Option<u64> {
        if entry.command.flags.has(flags::SKIP_SLOWLOG) {
            return None;
        }
        let bounds = Bounds::of(&self.server.config.settings(), reason);
        let figures = (self.facts.now / 1000, figure);
        Some(self.server.commandlogs.of(reason).add((entry.command, args), client, figures, bounds))
    }

    /// Counts a top-level command that has run: the call, its time, its request and its reply. One that is timed
    /// individually began at `before`; the others share the time of their group. One that waits for a key or for time
    /// is counted when it is answered.
    #[inline]
    pub(super) fn note_ran<'e>(
        &mut self,
        (entry, args, keys): (&'e CommandEntry, Args<'_>, &HashedKeys),
        (before, size): (Option<Instant>, usize),
        shared: &mut Shared<'e>,
        client: &mut Client,
    ) {
        match before {
            None => {
                shared.add(entry, 1);
                shared.last_waits = client.wait.is_some();
            }
            Some(before) if client.wait.as_ref().is_some_and(Wait::may_be_unblocked) => {
                let took_ns = before.elapsed().as_nanos() as u64;
                shared.others_ns += took_ns;
                client.asked.get_or_insert_with(|| Arc::new(Asked::new(args))).add_run(took_ns);
                return;
            }
            // One whose script goes on is timed when it has ended.
            Some(_) if matches!(client.wait, Some(Wait::Script(_))) => {}
            Some(before) => {
                let took_ns = self.note_timed(entry, args, keys, (before, size), client);
                shared.others_ns += took_ns;
                if self.latency_tracking && client.wait.is_none() {
                    client.served.add(entry.index, 1, took_ns.saturating_sub(take_waited_ns()));
                }
            }
        }
        self.stats.commands[entry.index].calls.add_alone(1);
        self.note_size(entry, args, size, client);
        let is_large = !entry.is_quick || args.may_reach(LARGE_REQUEST_BYTES);
        if is_large && self.hooks.has(Hook::KeyStats) && entry.command.flags.has(flags::DENYOOM) {
            self.measure_keys(args, keys, client.db);
        }
    }

    /// The commands of a group were executed. `shared` is what the last of them have counted.
    #[inline]
    pub(super) fn note_executed(&self, shared: &Shared<'_>, client: &mut Client) {
        if self.latency_tracking && !client.served.is_empty() {
            client.served.note_executed(shared.counted.unwrap_or_else(Instant::now));
        }
    }

    /// Whether a command of a script is to be noted.
    #[inline]
    pub(super) fn is_noted(&self, args: Args<'_>, took_ns: u64, reply_bytes: usize) -> bool {
        took_ns >= self.bars.noted_ns || self.bars.may_be_large(args, reply_bytes)
    }

    /// Notes a command of a script: before the script itself, as in Redis.
    pub(super) fn note_called(
        &self,
        entry: &CommandEntry,
        args: Args<'_>,
        (took_ns, size): (u64, usize),
        record: &ClientRecord,
    ) {
        if took_ns >= self.bars.noted_ns {
            self.log_time(entry, args, took_ns, record);
        }
        self.log_size(entry, args, size, record);
    }

    /// Counts and notes a command that has waited, now that it is answered: how long all its runs took together, and
    /// the size of its reply.
    pub(super) fn note_answered(
        &mut self,
        (entry, args, keys): (&CommandEntry, Args<'_>, &HashedKeys),
        (ran_ns, size): (u64, usize),
        record: &ClientRecord,
        db: u32,
    ) {
        self.count_time(entry, 1, ran_ns);
        self.stats.commands[entry.index].calls.add_alone(1);
        if ran_ns >= self.bars.noted_ns {
            self.log_time(entry, args, ran_ns, record);
        }
        self.note_keys(args, keys, (ran_ns, size), record, db);
        if self.bars.may_be_large(args, size) {
            self.log_size(entry, args, size, record);
        }
    }
}

/// What scripts count, which waits for the end of a run that may have to be repeated.
impl Group<'_> {
    /// A run begins that may have to be repeated: it is counted when it is known that it is not.
    pub(super) fn begin_tally(&mut self) {
        self.tally = Some(Box::new(Tally::begin(self.scratch, self.processed)));
    }

    /// The run is repeated: it counts for nothing.
    pub(super) fn drop_tally(&mut self) {
        if let Some(tally) = self.tally.take() {
            self.processed = tally.restore(self.scratch);
        }
    }

    /// The run is not repeated: it counts.
    pub(super) fn count_tally(&mut self) {
        if let Some(tally) = self.tally.take() {
            tally.count(self.server, self.stats);
        }
    }

    /// Counts a command of a script that has run for so long.
    #[inline]
    pub(super) fn count_called(&mut self, entry: &CommandEntry, nanoseconds: u64) {
        self.processed += 1;
        if let Some(tally) = &mut self.tally {
            return tally.add_call(entry.index, nanoseconds, self.latency_tracking);
        }
        self.count_time(entry, 1, nanoseconds);
        self.stats.commands[entry.index].calls.add_alone(1);
    }

    /// Counts a command that a script may not call.
    pub(super) fn count_rejected(&mut self, entry: &CommandEntry) {
        match &mut self.tally {
            Some(tally) => tally.add_rejected(entry.index),
            None => self.stats.commands[entry.index].rejected.add_alone(1),
        }
    }

    /// Replies with an error to a command that does not run, and counts it.
    pub(super) fn reply_error(&mut self, error: &CommandError, out: &mut Output) {
        let Some(tally) = &mut self.tally else { return error_reply(self.server, error, out) };
        let text = error.wire();
        tally.add_error(&text);
        out.error_bytes(&text);
    }

    /// Replies with an error to a command that ran, replacing its output behind the mark, and counts it.
    #[cold]
    pub(super) fn fail(&mut self, entry: &CommandEntry, error: &CommandError, mark: Mark, out: &mut Output) {
        if let Some(tally) = &mut self.tally {
            out.truncate(mark);
            tally.add_failed(entry.index);
            return self.reply_error(error, out);
        }
        fail(self.server, &self.stats.commands[entry.index], error, mark, out);
    }
}

impl Executor {
    /// Counts and notes a command that has waited and is answered without being executed again: because its time is
    /// over, or by CLIENT UNBLOCK, perhaps with an error. Its reply has this size.
    pub fn note_ended(&mut self, asked: &Asked, client: &Client, (is_error, size): (bool, usize)) {
        self.refresh_settings();
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_of(&self.settings, limits, clock::now_ms());
        let (mut group, ..) = self.group(facts, Duration::ZERO);
        let args = asked.args.args();
        let Ok(entry) = group.server.table.resolve(args) else { return };
        let mut keys = HashedKeys::default();
        find_keys(&group.server.keyspace, entry, args, &mut keys);
        group.note_answered((entry, args, &keys), (asked.add_run(0), size), &client.record, client.db);
        if is_error {
            let counters = &group.stats.commands[entry.index];
            // Valkey counts it as refused.
            let ended = if facts.as_valkey { &counters.rejected } else { &counters.failed };
            ended.add_alone(1);
        }
    }
}

//! Notes what is worth an operator's look about a command that ran: that it was slow, or large.
//!
//! A command that may take long is timed individually, and so is every command while [`Hook::Slowlog`] is set. Other
//! quick commands share two readings of the clock with their group. If a group takes as long as a slow command, the
//! log gets one entry with the total time, which names the command with most work.

use std::time::Instant;

use smallvec::SmallVec;

use super::group::Group;
use super::{GROUP_MAX, Plan};
use crate::base::config::Settings;
use crate::base::latency::Event;
use crate::base::slot;
use crate::core::call::HashedKeys;
use crate::core::client::{Client, ClientRecord};
use crate::core::commandlog::{Bounds, Reason};
use crate::core::hotkeys::Used;
use crate::core::table::CommandEntry;
use crate::core::{Hook, flags};
use crate::keyspace::Key;
use crate::resp::Args;

/// A command with more arguments than this is not quick.
const QUICK_ARGUMENTS_MAX: usize = 64;

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
    started: Instant,
    /// Each quick command with its number of consecutive calls.
    quick: SmallVec<[(&'a CommandEntry, u64); GROUP_MAX]>,
    /// The time of the others.
    pub(super) others_ns: u64,
    /// The first command of the group whose time is not counted yet.
    uncounted: usize,
}

impl<'a> Shared<'a> {
    /// Begins.
    pub(super) fn new() -> Shared<'a> {
        Shared { started: Instant::now(), quick: SmallVec::new(), others_ns: 0, uncounted: 0 }
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
        self.hooks.times_each_command() || args.len() > QUICK_ARGUMENTS_MAX
    }

    /// Notes a command that took long.
    #[inline]
    pub(super) fn note_time(&self, entry: &CommandEntry, args: Args<'_>, took_ns: u64, client: &Client) {
        if took_ns >= self.bars.noted_ns {
            self.log_time(entry, args, took_ns, client);
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
    pub(super) fn note_keys(&self, args: Args<'_>, keys: &HashedKeys, figures: (u64, usize), client: &Client) {
        if self.hooks.has(Hook::Hotkeys) {
            self.count_keys(args, keys, figures, client.db);
        }
        if self.hooks.has(Hook::SlotUsage) {
            self.count_slot(args, keys, figures);
        }
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
        client: &Client,
    ) {
        if shared.quick.is_empty() {
            return;
        }
        let now = Instant::now();
        let took_ns = ((now - shared.started).as_nanos() as u64).saturating_sub(shared.others_ns);
        let all: u64 = shared.quick.iter().map(|(_, times)| times).sum();
        let each = took_ns / all.max(1);
        shared.quick.drain(..).for_each(|(entry, times)| self.count_time(entry, times, each));
        if took_ns >= self.bars.noted_ns {
            let from = shared.uncounted.min(calls.len());
            self.note_shared_time(&plans[from..], &calls[from..], took_ns, client);
        }
        (shared.started, shared.others_ns, shared.uncounted) = (now, 0, calls.len());
    }

    /// Notes the quick commands of a group that together took long.
    #[cold]
    fn note_shared_time(&self, plans: &[Plan<'_>], calls: &[Args<'_>], took_ns: u64, client: &Client) {
        let planned = plans.iter().zip(calls).filter_map(|(plan, args)| plan.map(|entry| (entry, *args)));
        let quick = planned.filter(|(entry, args)| entry.is_quick && !self.is_timed_alone(*args));
        // The first of several with equally many arguments.
        if let Some((entry, args)) = quick.rev().max_by_key(|(_, args)| args.len()) {
            self.log_time(entry, args, took_ns, client);
        }
    }

    #[cold]
    fn log_time(&self, entry: &CommandEntry, args: Args<'_>, took_ns: u64, client: &Client) {
        let event = if entry.command.flags.has(flags::FAST) { Event::FastCommand } else { Event::Command };
        self.server.latency.note(event, took_ns);
        let is_slow = took_ns >= self.bars.slow_ns;
        if is_slow && self.log(Reason::Slow, entry, args, took_ns / 1000, &client.record) {
            let (counters, took_us) = (&self.stats.commands[entry.index], took_ns / 1000);
            counters.slow.add_alone(1);
            counters.slow_us.add_alone(took_us);
            counters.slow_us_max.set(counters.slow_us_max.get().max(took_us));
        }
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

    /// Adds a command to a log. Returns whether it is one that is logged at all.
    fn log(&self, reason: Reason, entry: &CommandEntry, args: Args<'_>, figure: u64, client: &ClientRecord) -> bool {
        let is_logged = !entry.command.flags.has(flags::SKIP_SLOWLOG);
        if is_logged {
            let bounds = Bounds::of(&self.server.config.settings(), reason);
            let figures = (self.facts.now / 1000, figure);
            self.server.commandlogs.of(reason).add((entry.command, args), client, figures, bounds);
        }
        is_logged
    }

    /// Notes the reply of a command that waited. Its request was noted when it began to wait.
    #[inline]
    pub(super) fn note_late_reply(&self, entry: &CommandEntry, args: Args<'_>, reply_bytes: usize, client: u64) {
        if reply_bytes as u64 >= self.bars.reply_bytes
            && let Some(record) = self.server.clients.get(client)
        {
            self.log(Reason::LargeReply, entry, args, reply_bytes as u64, &record);
        }
    }
}

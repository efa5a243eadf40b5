//! Decides which commands go to the slow log.
//!
//! A command that may take long is timed individually, and so is every command while [`Hook::Slowlog`] is set. Other
//! quick commands share two readings of the clock with their group. If a group takes as long as a slow command, the
//! log gets one entry with the total time, which names the command with most work.

use smallvec::SmallVec;

use super::group::Group;
use super::{GROUP_MAX, Plan};
use crate::base::config::Settings;
use crate::core::client::Client;
use crate::core::table::CommandEntry;
use crate::core::{Hook, flags};
use crate::resp::Args;

/// A command with more arguments than this is not quick.
const QUICK_ARGUMENTS_MAX: usize = 64;

/// From how many nanoseconds on a command is slow; `u64::MAX` for none.
pub(super) fn slow_ns(settings: &Settings) -> u64 {
    match u64::try_from(settings.slowlog_log_slower_than_us) {
        Ok(us) if settings.slowlog_max_len > 0 => us.saturating_mul(1000),
        _ => u64::MAX,
    }
}

/// The quick commands of a group, each with its number of consecutive calls.
pub(super) type Quick<'a> = SmallVec<[(&'a CommandEntry, u64); GROUP_MAX]>;

impl Group<'_> {
    /// Whether a quick command is timed individually.
    #[inline]
    pub(super) fn is_timed_alone(&self, args: Args<'_>) -> bool {
        self.hooks.has(Hook::Slowlog) || args.len() > QUICK_ARGUMENTS_MAX
    }

    /// Logs a command that took long.
    #[inline]
    pub(super) fn note_time(&self, entry: &CommandEntry, args: Args<'_>, took_ns: u64, client: &Client) {
        if took_ns >= self.slow_ns {
            self.log_slow(entry, args, took_ns, client);
        }
    }

    /// Counts the time that the quick commands of a group took together.
    #[inline]
    pub(super) fn count_shared_time(
        &self,
        quick: Quick<'_>,
        shared_ns: u64,
        (plans, calls): (&[Plan<'_>], &[Args<'_>]),
        client: &Client,
    ) {
        let all: u64 = quick.iter().map(|(_, times)| times).sum();
        let each = shared_ns / all.max(1);
        quick.into_iter().for_each(|(entry, times)| self.count_time(entry, times, each));
        if shared_ns >= self.slow_ns {
            self.note_shared_time(plans, calls, shared_ns, client);
        }
    }

    /// Logs the quick commands of a group that together took long.
    #[cold]
    fn note_shared_time(&self, plans: &[Plan<'_>], calls: &[Args<'_>], took_ns: u64, client: &Client) {
        let planned = plans.iter().zip(calls).filter_map(|(plan, args)| plan.map(|entry| (entry, *args)));
        let quick = planned.filter(|(entry, args)| entry.is_quick && !self.is_timed_alone(*args));
        // The first of several with equally many arguments.
        if let Some((entry, args)) = quick.rev().max_by_key(|(_, args)| args.len()) {
            self.log_slow(entry, args, took_ns, client);
        }
    }

    #[cold]
    fn log_slow(&self, entry: &CommandEntry, args: Args<'_>, took_ns: u64, client: &Client) {
        if !entry.command.flags.has(flags::SKIP_SLOWLOG) {
            let len_max = self.server.config.settings().slowlog_max_len;
            let times = (self.facts.now / 1000, took_ns / 1000);
            self.server.slowlog.add((entry.command, args), &client.record, times, len_max);
        }
    }
}

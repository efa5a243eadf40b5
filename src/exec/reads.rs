//! The short path of reads. Commands that read one key have nothing to log, to undo or to wake. Most of what
//! [`Group::one`] does for a command is left out, and the rest is done once for consecutive reads.
//!
//! Invariants:
//! - Only a command for which [`CommandEntry::is_plain_read`] holds comes here, outside a transaction, with CLIENT
//!   REPLY on.
//! - A read can still remove its key if that has expired. The removal is logged under the lock, as everywhere.
//! - What a read has to tell (its key is missing, or has expired) is told when the reads that follow it are done.

use std::panic::{AssertUnwindSafe, catch_unwind};

use smallvec::SmallVec;

use super::Plan;
use super::changes::{limit_tracking, remember};
use super::data::append;
use super::group::Group;
use super::handler::{fail, failure};
use crate::core::call::HashedKeys;
use crate::core::client::Client;
use crate::core::db::Db;
use crate::core::table::CommandEntry;
use crate::core::{Call, Handler};
use crate::keyspace::{Busy, Held};
use crate::resp::{Args, Output, Reply};

/// How many plans from the first on are of this command.
#[inline]
pub(super) fn alike(plans: &[Plan<'_>], entry: &CommandEntry) -> usize {
    plans.iter().take_while(|plan| plan.is_some_and(|plan| std::ptr::eq(plan, entry))).count()
}

impl Group<'_> {
    /// Runs calls of one command that only reads one key. Returns how many ran, and the busy lock that the next one
    /// needs.
    pub(super) fn reads(
        &mut self,
        entry: &CommandEntry,
        calls: &[Args<'_>],
        keys: &[HashedKeys],
        client: &Client,
        out: &mut Output,
    ) -> (usize, Option<Busy>) {
        let Handler::Data(handler) = entry.command.handler else { unreachable!("a read is a data command") };
        let (server, worker) = (self.server, self.worker);
        let wants = self.wants();
        if let Err(busy) = self.enter() {
            return (0, Some(busy));
        }
        let remembers = client.remembers_reads();
        let (mut times, mut parked) = (0, None);
        let bars = self.bars;
        // Each large call with the size of its reply.
        let mut large: SmallVec<[(usize, usize); 2]> = SmallVec::new();
        self.unit.begin(wants, false);
        let counters = &self.stats.commands[entry.index];
        let db = Db::new(Held::none(&server.keyspace), self.unit, self.scratch, client.db, &self.facts);
        let (args, user) = (Args::NONE, None);
        let mut call = Call {
            args,
            db,
            entry,
            frozen: None,
            keys: &keys[0],
            user,
            may_block: true,
            block: None,
            migration: None,
            fieldsets: None,
        };
        for (&args, keys) in calls.iter().zip(keys) {
            let (mark, replied) = (out.mark(), out.len());
            (call.args, call.keys) = (args, keys);
            if let Err(busy) = call.db.held().hold_one(keys.named[0].shard(), self.patience) {
                parked = Some(busy);
                break;
            }
            times += 1;
            let error = match catch_unwind(AssertUnwindSafe(|| handler(&mut call, Reply::new(out, client.resp)))) {
                Ok(Ok(_done)) => None,
                Ok(Err(error)) => Some(failure(Ok(error), &mut call)),
                Err(panic) => Some(failure(Err(panic), &mut call)),
            };
            let unit = call.db.unit();
            if unit.has_records() || unit.has_events() || unit.has_touched() {
                append(server, worker, call.db.unit(), 0);
                call.db.unit().begin(wants, false);
            }
            if remembers {
                remember(server, call.keys(), client);
            }
            if let Some(error) = error {
                fail(server, counters, &error, mark, out);
            }
            let reply_bytes = out.len() - replied;
            if bars.may_be_large(args, reply_bytes) {
                large.push((times - 1, reply_bytes));
            }
        }
        drop(call);
        for (at, reply_bytes) in large {
            self.log_size(entry, calls[at], reply_bytes, &client.record);
        }
        if remembers {
            limit_tracking(server);
        }
        self.retire();
        self.tell();
        self.serve_vanished();
        (times, parked)
    }
}

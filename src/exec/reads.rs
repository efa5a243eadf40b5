//! The short path of reads: commands that look at one key have nothing to log, to undo or to wake, so that most of what
//! [`Group::one`] does for a command can be left out, and the rest be done once for all that follow each other.
//!
//! Invariants:
//! - Only a command for which [`CommandEntry::is_plain_read`] holds comes here, outside a transaction, with CLIENT
//!   REPLY on.
//! - A read can still remove its key: one that has expired. That is logged under the lock, as everywhere.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Plan;
use super::data::{append, wants};
use super::group::Group;
use super::handler::{fail, failure};
use crate::core::call::HashedKeys;
use crate::core::client::Client;
use crate::core::db::Db;
use crate::core::table::CommandEntry;
use crate::core::{Call, Handler};
use crate::keyspace::{Busy, Held};
use crate::resp::{Args, Output, Reply};

/// How many plans from the first on are for this command.
#[inline]
pub(super) fn alike(plans: &[Plan<'_>], entry: &CommandEntry) -> usize {
    plans.iter().take_while(|plan| plan.is_some_and(|plan| std::ptr::eq(plan, entry))).count()
}

impl Group<'_> {
    /// Runs calls of one command that only looks at one key. Returns how many, and what the next one needs that is
    /// busy.
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
        let wants = wants(server);
        if let Err(busy) = self.enter() {
            return (0, Some(busy));
        }
        let (mut times, mut parked) = (0, None);
        self.unit.begin(wants, false);
        let counters = &self.stats.commands[entry.index];
        let db = Db::new(Held::none(&server.keyspace), self.unit, self.scratch, client.db, &self.facts);
        let mut call = Call { args: Args::NONE, db, entry, frozen: None, keys: &keys[0], may_block: true, block: None };
        for (&args, keys) in calls.iter().zip(keys) {
            let mark = out.mark();
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
            if call.db.unit().has_records() {
                append(server, worker, call.db.unit());
                call.db.unit().begin(wants, false);
            }
            if let Some(error) = error {
                fail(server, counters, &error, mark, out);
            }
        }
        drop(call);
        self.retire();
        self.serve_vanished();
        (times, parked)
    }
}

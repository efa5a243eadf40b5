//! MULTI, EXEC, DISCARD, WATCH and UNWATCH.
//!
//! Invariants:
//! - EXEC holds the shards of all keys that it watches, names or has conditions on, from the check of these until the
//!   effects of its last command are in the log's buffer.
//! - If that is not enough, it runs alone behind the gate: if a command names no key or may use keys that it does not
//!   name, or if a key of these shards has waiters. Those are then served before anything else runs.
//! - Until it has all of that, nothing has happened: a parked EXEC still has its transaction.
//! - Its effects enter the log through one appender, so they are inside one block, all of them or none.
//! - A command that fails inside changes nothing and does not stop the others, as in Redis.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use smallvec::SmallVec;

use super::data::{append, find_keys, post_needing};
use super::group::{Group, settle_reply_mode};
use super::handler::error_reply;
use super::monitor;
use super::serving::ReadyKey;
use crate::core::call::HashedKeys;
use crate::core::client::{Client, Transaction, WatchedKey};
use crate::core::conditions::{self, Condition};
use crate::core::db::Db;
use crate::core::message::Needs;
use crate::core::subscriber::OwnBlock;
use crate::core::table::CommandEntry;
use crate::core::{CommandError, Flags, Handler, Hook, Outcome, Step, flags};
use crate::keyspace::{Busy, Held, Key, SHARDS, shard_of};
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Output, Reply};

impl<'a> Group<'a> {
    /// Puts a command into the queue of its connection's transaction.
    ///
    /// # Errors
    /// The command has no place in a transaction.
    pub(super) fn queue(&mut self, entry: &CommandEntry, args: Args<'_>, client: &mut Client, out: &mut Output) {
        let mark = out.mark();
        let Some(transaction) = &mut client.transaction else { return };
        // One that will do nothing keeps nothing more.
        if !transaction.aborted {
            let args = OwnedArgs::new(args.from(0));
            transaction.bytes += args.bytes() + size_of::<OwnedArgs>();
            transaction.flags = transaction.flags.or(entry.command.flags);
            transaction.has_script |= matches!(entry.command.handler, Handler::Script(_));
            transaction.queue.push(args);
        }
        let (queued, bytes) = (transaction.queue.len() as u64, transaction.bytes as u64);
        client.record.queued.store(queued + 1, Relaxed);
        client.record.queued_bytes.store(bytes, Relaxed);
        // It is processed by EXEC.
        self.processed -= 1;
        if bytes > self.queue_bytes_max {
            // What a client may send before it is executed is bounded, in a transaction or not.
            client.end_transaction();
            client.closing = true;
            return;
        }
        let _done = Reply::new(out, client.resp).simple("QUEUED");
        settle_reply_mode(client, mark, out);
    }

    /// Takes a step of a transaction.
    pub(super) fn step(
        &mut self,
        step: Step,
        args: Args<'_>,
        keys: &HashedKeys,
        client: &mut Client,
        out: &mut Output,
    ) -> Outcome {
        match step {
            Step::Multi if client.transaction.is_some() => {
                return Err(CommandError::Text("ERR MULTI calls can not be nested"));
            }
            Step::Multi => client.begin_transaction(),
            Step::Discard if client.end_transaction().is_none() => {
                return Err(CommandError::Text("ERR DISCARD without MULTI"));
            }
            Step::Discard | Step::Unwatch => client.unwatch(&self.server.keyspace),
            Step::Watch if client.transaction.is_some() => {
                return Err(CommandError::Text("ERR WATCH inside MULTI is not allowed"));
            }
            Step::Watch => self.watch(args, keys, client).map_err(CommandError::Busy)?,
            Step::Exec if client.transaction.as_ref().is_some_and(|queued| queued.has_script && !queued.aborted) => {
                return self.exec_in_fiber(args, client, out);
            }
            Step::Exec => return self.exec(args, keys, client, out),
        }
        Ok(Reply::new(out, client.resp).ok())
    }

    /// Watches keys. If the shard of one is busy, earlier keys stay watched: watching them again changes nothing.
    fn watch(&mut self, args: Args<'_>, keys: &HashedKeys, client: &mut Client) -> Result<(), Busy> {
        // Not while a transaction runs alone: another change would get a version that the transaction rolls back.
        self.enter()?;
        let db = client.db;
        for named in &keys.named {
            let key = named.of(args);
            if client.record.watched.lock().contains_key(&(db, key.bytes.into())) {
                continue;
            }
            // A key that has already expired is not a later change.
            let existed = self.exists(Held::try_one(&self.server.keyspace, key.shard(), self.patience)?, db, key);
            self.tell();
            let mut held = Held::try_one(&self.server.keyspace, key.shard(), self.patience)?;
            let version = held.shard(key.shard()).watched.watch(db, key.bytes);
            client.watch(db, key.bytes, WatchedKey { hash: key.hash, version, existed });
        }
        Ok(())
    }

    /// Whether a key of the held shard exists. Removes it if it has expired.
    fn exists(&mut self, held: Held<'_>, db: u32, key: Key<'_>) -> bool {
        self.look(held, db, |db| db.exists(key))
    }

    /// Removes the expired keys that a walk has met. One whose shard is busy is left for the sweep.
    #[inline]
    pub(super) fn remove_met(&mut self) {
        if !self.scratch.met_expired.is_empty() {
            self.remove_each_met();
        }
    }

    #[cold]
    fn remove_each_met(&mut self) {
        let met = std::mem::take(&mut self.scratch.met_expired);
        if self.enter().is_err() {
            return;
        }
        for (db, bytes) in met {
            let key = self.server.keyspace.key(&bytes);
            if let Ok(held) = Held::try_one(&self.server.keyspace, key.shard(), Duration::ZERO) {
                self.exists(held, db, key);
                self.retire();
            }
        }
        self.tell();
    }

    /// Looks at a key of the held shard, which is removed if it has expired.
    fn look<T>(&mut self, held: Held<'_>, db: u32, look: impl FnOnce(&mut Db<'_>) -> T) -> T {
        self.unit.begin(self.wants(), false);
        let mut db = Db::new(held, self.unit, self.scratch, db, &self.facts);
        let seen = look(&mut db);
        append(self.server, self.worker, db.unit(), 0);
        seen
    }

    /// Whether all conditions of an EXEC hold, in order up to the first that does not.
    fn hold_true(
        &mut self,
        conditions: &[Condition<'_>],
        args: Args<'_>,
        db: u32,
        held: &mut Option<Held<'a>>,
    ) -> Result<bool, CommandError> {
        for condition in conditions {
            let key = self.server.keyspace.key(args.at(condition.place));
            let held = match held {
                Some(held) => held.lend(std::iter::once(key.shard())),
                None => Held::one(&self.server.keyspace, key.shard()),
            };
            if !self.look(held, db, |db| condition.holds(db, key))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// EXEC. If a script is among its commands, it is in a fiber.
    ///
    /// # Errors
    /// There is no transaction, or it has been given up; or a lock is busy, and nothing has happened.
    pub(super) fn exec(&mut self, args: Args<'_>, keys: &HashedKeys, client: &mut Client, out: &mut Output) -> Outcome {
        let keyspace = &self.server.keyspace;
        let conditions = match conditions::of(args) {
            Ok(conditions) => conditions,
            Err(mistake) => {
                client.end_transaction();
                client.unwatch(keyspace);
                return Err(mistake);
            }
        };
        let Some(transaction) = &client.transaction else {
            return Err(CommandError::Text("ERR EXEC without MULTI"));
        };
        if transaction.aborted {
            client.end_transaction();
            client.unwatch(keyspace);
            return Err(CommandError::Text("EXECABORT Transaction discarded because of previous errors."));
        }
        let held = self.hold_all(transaction, keys, client).map_err(CommandError::Busy);
        if held.is_err() || matches!(held, Ok(None)) {
            // Nothing is held while the command is parked.
            self.inside = None;
        }
        let mut held = held?;
        if held.is_none() {
            self.close().map_err(CommandError::Busy)?;
        }
        let transaction = client.end_transaction().expect("it was just there");
        // An expired key that SWAPDB brought, where no key was before, is not a change.
        for (db, bytes, hash) in client.watched_that_existed() {
            let key = Key { bytes: &bytes, hash };
            let held = match &mut held {
                Some(held) => held.lend(std::iter::once(key.shard())),
                None => Held::one(keyspace, key.shard()),
            };
            self.exists(held, db, key);
        }
        let has_changed = match &mut held {
            Some(held) => client.unwatch_held(held),
            None => client.unwatch_alone(keyspace),
        };
        let holds = if has_changed { Ok(false) } else { self.hold_true(&conditions, args, client.db, &mut held) };
        if !matches!(holds, Ok(true)) {
            drop(held);
            self.open();
            self.tell();
            return holds.map(|_| Reply::new(out, client.resp).null_array());
        }
        self.held = held;
        self.run_queue(&transaction, args, client, out);
        self.open();
        Ok(Reply::new(out, client.resp).withheld())
    }

    /// Locks the shards of all keys that a transaction names, watches or has conditions on; `None`: it must run alone.
    ///
    /// # Errors
    /// The gate is closed, or a shard is busy.
    fn hold_all(
        &mut self,
        transaction: &Transaction,
        depends_on: &HashedKeys,
        client: &Client,
    ) -> Result<Option<Held<'a>>, Busy> {
        let server = self.server;
        if server.gate.workers() == 1 && !server.gate.is_stayed_in() {
            // There are no other workers: running alone costs less.
            return Ok(None);
        }
        let (mut is_wanted, mut shards) = ([false; SHARDS], SmallVec::new());
        let mut want = |shard: u16| {
            if !std::mem::replace(&mut is_wanted[usize::from(shard)], true) {
                shards.push(shard);
            }
        };
        let mut keys = HashedKeys::default();
        for queued in &transaction.queue {
            let args = queued.args();
            let Ok(entry) = server.table.resolve(args) else { return Ok(None) };
            keys.clear();
            find_keys(&server.keyspace, entry, args, &mut keys);
            let needs_more = !matches!(entry.command.handler, Handler::Data(_))
                || keys.any
                || keys.named.is_empty()
                || entry.command.flags.has(flags::FROZEN.or(flags::WALKS));
            if needs_more {
                return Ok(None);
            }
            keys.named.iter().for_each(|key| want(key.shard()));
        }
        depends_on.named.iter().for_each(|key| want(key.shard()));
        client.record.watched.lock().values().for_each(|watched| want(shard_of(watched.hash)));
        self.enter()?;
        let held = Held::try_several(&server.keyspace, &mut shards, self.patience)?;
        // No other client can begin to wait for a key of a held shard.
        Ok((!held.is_waited_for()).then_some(held))
    }

    /// Runs the queued commands, alone or with the shards of all their keys held, and logs them as one.
    fn run_queue(&mut self, transaction: &Transaction, exec: Args<'_>, client: &mut Client, out: &mut Output) {
        let (begin, rolls_back, db) = (out.mark(), self.exec_rollback, client.db);
        out.raw(format!("*{}\r\n", transaction.queue.len()).as_bytes());
        // A script among them may have to be rolled back by itself.
        let may_roll_back = transaction.has_script || rolls_back;
        self.unit.begin_spanning(self.wants(), may_roll_back);
        let savepoint = may_roll_back.then(|| self.unit.savepoint());
        (client.in_exec, self.failed) = (true, None);
        let (mut ready, mut keys) = (Vec::new(), HashedKeys::default());
        for queued in &transaction.queue {
            let args = queued.args();
            let entry = match self.server.table.resolve(args) {
                Ok(entry) => entry,
                Err(error) => {
                    error_reply(self.server, &error, out);
                    continue;
                }
            };
            if self.unit.has_events() && !matches!(entry.command.handler, Handler::Data(_)) {
                self.tell_before(client);
            }
            if let Err(error) = self.check_again(entry, args, client) {
                error_reply(self.server, &error, out);
                continue;
            }
            keys.clear();
            find_keys(&self.server.keyspace, entry, args, &mut keys);
            self.timed(entry, args, &keys, client, out);
            if client.aborted && self.failed.is_some() {
                break;
            }
            if self.held.is_none() && entry.command.flags.has(flags::WRITE) && self.server.blocking.is_any() {
                self.add_ready(entry, args, &keys, &mut ready);
            }
        }
        ready.append(&mut self.script_ready);
        client.in_exec = false;
        if self.hooks.has(Hook::Monitor) {
            monitor::note_exec(self.server, &mut self.lines, exec, client);
            self.has_shown_exec = true;
        }
        if let (Some(error), Some(savepoint)) = (self.failed.take(), savepoint) {
            let held = match &mut self.held {
                Some(held) => held.lend_all(),
                None => Held::on_demand(&self.server.keyspace),
            };
            Db::new(held, self.unit, self.scratch, db, &self.facts).roll_back_to(savepoint);
            ready.clear();
            client.deferred.clear();
            client.select(db);
            out.truncate(begin);
            let text = error.wire();
            let reason = text.strip_prefix(b"ERR ").unwrap_or(&text);
            let told = [b"EXECABORT Transaction rolled back because of: ", reason].concat();
            error_reply(self.server, &CommandError::Echo(told), out);
        }
        self.end_unit(ready, client);
    }

    /// Ends the unit of several commands: logs their effects, shows them to monitors, and serves those who wait for
    /// these keys.
    pub(super) fn end_unit(&mut self, ready: Vec<ReadyKey>, client: &mut Client) {
        let block = append(self.server, self.worker, self.unit, client.record.id);
        if self.unit.has_changed() {
            client.last_write_block = block;
        }
        client.own_block = None;
        if self.hooks.has(Hook::Monitor) {
            monitor::show(self.server, &mut self.lines, block);
        }
        self.unit.end_spanning(self.scratch);
        self.retire();
        self.held = None;
        self.tell();
        if !ready.is_empty() {
            // For served waiters the time has advanced: pushed elements may have expired within the transaction.
            self.renew_facts(client);
            self.serve(ready);
        }
    }

    /// Tells the events so far of a transaction that runs alone, before a command that may publish something itself.
    /// They leave with the block of the transaction.
    #[cold]
    fn tell_before(&mut self, client: &mut Client) {
        debug_assert!(self.held.is_none(), "a transaction with such a command runs alone");
        let needs = match self.unit.is_logging() {
            true => client.own_block.get_or_insert_with(|| OwnBlock::new(self.server)).needs(),
            false => Needs::Block(0),
        };
        post_needing(self.server, self.unit, needs);
        self.tell();
    }

    /// The flags by which a command is checked. For EXEC, those of the commands that it will execute.
    pub(super) fn flags_to_check(entry: &CommandEntry, client: &Client) -> Flags {
        match (&entry.command.handler, &client.transaction) {
            (Handler::Transaction(Step::Exec), Some(transaction)) => entry.command.flags.or(transaction.flags),
            _ => entry.command.flags,
        }
    }

    /// Notes that a command was refused, so that its transaction will do nothing. If EXEC itself was refused,
    /// everything is dropped; returns whether that is the case.
    pub(super) fn abort_transaction(&self, entry: Option<&CommandEntry>, client: &mut Client) -> bool {
        let is_exec = entry.is_some_and(|e| matches!(e.command.handler, Handler::Transaction(Step::Exec)));
        if is_exec {
            client.end_transaction();
            client.unwatch(&self.server.keyspace);
        } else if let Some(transaction) = &mut client.transaction {
            transaction.aborted = true;
        }
        is_exec
    }
}

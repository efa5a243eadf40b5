//! Registers waiting commands, and serves them.
//!
//! Invariants:
//! - A command is registered under the locks of its keys, at the same moment in which it found nothing.
//! - A command that changes a key with waiters is alone behind the gate, and serves them before it opens the gate.
//! - A key may also be removed by expiry or eviction, under its lock alone. The code that notices serves the waiters
//!   next.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{oneshot, watch};

use super::data::{append, find_keys, hold_alone};
use super::group::Group;
use super::handler::{error_reply, run_handler};
use crate::access::log::Context;
use crate::base::lock::{Mutex, Rank};
use crate::core::call::{HashedKeys, Wait};
use crate::core::client::Client;
use crate::core::db::Db;
use crate::core::permission;
use crate::core::table::CommandEntry;
use crate::core::waiting::{Asked, Block, Blocked, Served, Waiter};
use crate::core::{Call, CommandError, Handler, Hook, Server, flags};
use crate::keyspace::{Held, Key};
use crate::resp::{Args, Output, Reply};
use crate::value::entry::Kind;

/// A key that may have something for its waiters.
pub(super) type ReadyKey = (u32, Box<[u8]>);

/// Whether one of these keys has waiters, in any database.
#[inline]
pub(super) fn is_waited_for(held: &mut Held<'_>, args: Args<'_>, keys: &HashedKeys) -> bool {
    let mut waited = false;
    for named in &keys.named {
        let key = named.of(args);
        let waiters = &held.shard(key.shard()).waiters;
        if !waiters.is_empty() {
            waited |= !waiters.keys(|_, bytes| bytes == key.bytes).is_empty();
        }
    }
    waited
}

/// Makes a connection wait for the keys of its command, which are still locked.
pub(super) fn register(server: &Arc<Server>, call: &mut Call<'_>, block: Block, client: &mut Client) {
    let blocking = &server.blocking;
    let keys: Vec<_> = call.keys().collect();
    let (sender, answer) = oneshot::channel();
    let asked = Arc::new(Asked::new(call.args));
    let waiter = Arc::new(Waiter {
        ticket: blocking.ticket(),
        client: client.record.id,
        record: Arc::clone(&client.record),
        user: client.user.clone(),
        db: client.db,
        resp: client.resp,
        asked: Arc::clone(&asked),
        again: block.again,
        on: block.on,
        null: block.null,
        keys: keys.iter().map(|key| (key.hash, key.bytes.into())).collect(),
        state: Mutex::new(Rank::WaiterState, Some(sender)),
        due: watch::Sender::new(block.due),
    });
    for (at, key) in keys.iter().enumerate() {
        // A repeated key gets one place in its queue.
        if keys[..at].iter().all(|earlier| earlier.bytes != key.bytes) {
            call.db.held().shard(key.shard()).waiters.wait(client.db, key.bytes, waiter.ticket);
        }
    }
    blocking.register(Arc::clone(&waiter));
    let timeout = block.timeout;
    client.asked = Some(asked);
    client.wait = Some(Wait::Keys(Blocked { server: Arc::clone(server), waiter, answer, timeout }));
}

impl Group<'_> {
    /// Adds the keys with waiters that a command may have changed.
    pub(super) fn add_ready(&self, entry: &CommandEntry, args: Args<'_>, keys: &HashedKeys, ready: &mut Vec<ReadyKey>) {
        let keyspace = &self.server.keyspace;
        if entry.command.flags.has(flags::GATE) {
            // FLUSHALL, SWAPDB: any key.
            let shards = 0..crate::keyspace::SHARDS as u16;
            ready.extend(shards.flat_map(|shard| keyspace.lock(shard).waiters.keys(|_, _| true)));
            return;
        }
        for named in &keys.named {
            let key = named.of(args);
            ready.extend(keyspace.lock(key.shard()).waiters.keys(|_, bytes| bytes == key.bytes));
        }
    }

    /// Serves the waiters of keys that have expired or were evicted.
    #[inline]
    pub(super) fn serve_vanished(&mut self) {
        if !self.unit.vanished.is_empty() {
            self.serve_alone();
        }
    }

    /// If the gate cannot be closed just now, the vanished keys are kept, and the next sweep tries again.
    #[cold]
    fn serve_alone(&mut self) {
        let patience = std::mem::take(&mut self.patience);
        if self.close().is_ok() {
            self.serve(Vec::new());
            self.open();
        }
        self.patience = patience;
    }

    /// Serves the waiters of these keys and of vanished keys in the order of their arrival, and then those whom that
    /// makes ready. The gate is closed.
    pub(super) fn serve(&mut self, mut ready: Vec<ReadyKey>) {
        let mut next = 0;
        loop {
            ready.append(&mut self.unit.vanished);
            let Some((db, key)) = ready.get(next).cloned() else { break };
            next += 1;
            let hash = self.server.keyspace.seed().hash(&key);
            let tickets = self.server.keyspace.lock(crate::keyspace::shard_of(hash)).waiters.of(db, &key);
            for ticket in tickets {
                let kind = self.kind_at(db, Key { bytes: &key, hash });
                if kind.is_none() && !self.server.blocking.is_any_group_reader() {
                    // Nothing is left for the remaining waiters.
                    break;
                }
                let Some(waiter) = self.server.blocking.get(ticket) else { continue };
                if waiter.on.may_use(kind) {
                    self.serve_one(&waiter, &mut ready);
                }
            }
        }
    }

    /// Serves those who wait for the keys of a waiter, in the order of their arrival. Returns false, and does nothing,
    /// if the gate cannot be closed just now.
    pub(super) fn serve_due(&mut self, waiter: &Waiter) -> bool {
        if self.close().is_err() {
            return false;
        }
        self.serve(waiter.keys.iter().map(|(_, key)| (waiter.db, key.clone())).collect());
        self.open();
        true
    }

    fn kind_at(&self, db: u32, key: Key<'_>) -> Option<Kind> {
        let shard = self.server.keyspace.lock(key.shard());
        let entry = shard.directory(db).and_then(|directory| directory.get(key.hash, key.bytes));
        entry.map(|entry| entry.kind())
    }

    /// Whether a waiting command is still allowed: its user, or the rules, may have changed meanwhile.
    fn check_waiter(&self, waiter: &Waiter, entry: &CommandEntry) -> Result<(), CommandError> {
        let server = self.server;
        if !server.hooks.load().has(Hook::Access) {
            return Ok(());
        }
        let users = &server.users;
        // One whose user was deleted is about to be closed.
        let user = match &waiter.user {
            Some(user) => users.renewed(user).ok_or(CommandError::NoAuth)?,
            None => users.default_user(),
        };
        let args = waiter.args();
        let Err(denied) = permission::check(&user, entry, args, waiter.db) else { return Ok(()) };
        server.note_refusal(entry, args, &waiter.record, &user, denied, Context::Toplevel);
        Err(permission::refused(&user, entry, denied))
    }

    /// Executes a waiting command again. If it replies, even with an error, its wait ends.
    fn serve_one(&mut self, waiter: &Arc<Waiter>, ready: &mut Vec<ReadyKey>) {
        let mut state = waiter.state.lock();
        let server = self.server;
        let args = waiter.args();
        let Ok(entry) = server.table.resolve(args) else { return };
        let (Some(_), Handler::Data(handler)) = (&*state, entry.command.handler) else { return };
        if let Err(error) = self.check_waiter(waiter, entry) {
            self.stats.commands[entry.index].rejected.add_alone(1);
            let mut out = Output::new();
            error_reply(server, &error, &mut out);
            let sender = state.take();
            drop(state);
            server.blocking.leave(&server.keyspace, waiter);
            // The client may be gone.
            let _ = sender.map(|sender| sender.send(Served { output: out, block: None, is_counted: true }));
            return;
        }
        let (mut keys, mut out, begun) = (HashedKeys::default(), Output::new(), Instant::now());
        find_keys(&server.keyspace, entry, args, &mut keys);
        let held = hold_alone(&server.keyspace, entry.command, &keys);
        self.unit.begin(self.wants(), entry.command.keys.only().is_none());
        let db = Db::new(held, self.unit, self.scratch, waiter.db, &self.facts).for_writing();
        let mut call = Call {
            args,
            db,
            entry,
            frozen: None,
            keys: &keys,
            user: None,
            may_block: true,
            block: None,
            migration: None,
            fieldsets: None,
        };
        let outcome = run_handler(handler, &mut call, Reply::new(&mut out, waiter.resp));
        let block = append(server, self.worker, call.db.unit(), waiter.client);
        let block = call.db.unit().has_changed().then_some(block);
        let waits_on = call.block.take();
        drop(call);
        self.retire();
        self.tell();
        let ran_ns = waiter.asked.add_run(begun.elapsed().as_nanos() as u64);
        if let (Some(block), Ok(_)) = (waits_on, &outcome) {
            waiter.due.send_if_modified(|due| std::mem::replace(due, block.due) != block.due);
            return;
        }
        if let Err(error) = outcome {
            self.stats.commands[entry.index].failed.add_alone(1);
            out = Output::new();
            error_reply(self.server, &error, &mut out);
        }
        let sender = state.take();
        drop(state);
        server.blocking.leave(&server.keyspace, waiter);
        // Before its client can see the reply.
        self.note_answered((entry, waiter.asked.args.args(), &keys), (ran_ns, out.len()), &waiter.record, waiter.db);
        if let Some(sender) = sender {
            // The client may be gone. The element is lost, as an in-flight reply would be.
            let _ = sender.send(Served { output: out, block, is_counted: true });
        }
        self.add_ready(entry, args, &keys, ready);
    }
}

//! Runs a data command under the locks of its keys: lock, run, log, unlock, and wake waiters.

use std::sync::Arc;
use std::time::Duration;

use super::changes::{gather, limit_tracking, remember};
use super::group::Group;
use super::handler::run_handler;
use super::migrate::sending;
use super::monitor;
use super::serving::{is_waited_for, register};
use crate::base::alloc;
use crate::base::config::{NotifyFlags, Settings};
use crate::core::call::{HashedKey, HashedKeys};
use crate::core::client::Client;
use crate::core::db::Db;
use crate::core::key_events::Told;
use crate::core::message::Needs;
use crate::core::server::UNCOUNTED_BYTES;
use crate::core::table::CommandEntry;
use crate::core::unit::Barrier;
use crate::core::{Call, Command, CommandError, Hook, Outcome, Server, Unit, Wants, flags};
use crate::keyspace::{Busy, Held, Keyspace};
use crate::persist::Appender;
use crate::resp::{Args, Output, Reply};

/// How much room for records a worker keeps for the next unit, in bytes.
const RECORDS_KEPT_BYTES: usize = 1 << 20;

impl Group<'_> {
    /// Runs a data command under the locks of its keys.
    #[inline]
    pub(super) fn data(
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
        let user = self.limited_user(client);
        let was_alone = self.closed.is_some();
        if keys.any || command.flags.has(flags::FROZEN) {
            self.close().map_err(CommandError::Busy)?;
        }
        let frozen = self.closed.as_ref().filter(|_| command.flags.has(flags::FROZEN));
        let frozen = frozen.map(|closed| server.keyspace.freeze(closed));
        if !was_alone && !keys.any {
            self.open();
        }
        // The shards of a transaction have no waiters.
        let in_transaction = self.held.is_some();
        let mut held = match &mut self.held {
            Some(held) => held.lend(keys.named.iter().map(HashedKey::shard)),
            None => hold(&server.keyspace, command, keys, self.closed.is_none().then_some(self.patience))
                .map_err(CommandError::Busy)?,
        };
        if command.flags.has(flags::WRITE)
            && self.closed.is_none()
            && !in_transaction
            && server.blocking.is_any()
            && is_waited_for(&mut held, args, keys)
        {
            drop(held);
            self.close().map_err(CommandError::Busy)?;
            held = hold(&server.keyspace, command, keys, None).map_err(CommandError::Busy)?;
        }
        match client.in_exec {
            false => self.unit.begin(wants(server, self.events), entry.only_key.is_none()),
            true => self.unit.begin_command(entry.only_key.is_none()),
        }
        let db = Db::new(held, self.unit, self.scratch, client.db, &self.facts);
        let db = db.for_command(command.flags.has(flags::NO_TOUCH), command.flags.has(flags::WRITE));
        let fieldsets = client.fieldsets.clone();
        let may_block = !client.in_exec;
        let mut call = Call { args, db, entry, frozen, keys, user, may_block, block: None, migration: None, fieldsets };
        let outcome = run_bounded(server, self.maxmemory, handler, &mut call, Reply::new(out, client.resp));
        if !client.in_exec {
            let block = append(server, worker, call.db.unit(), client.record.id);
            // The removal of an expired key is not a write of this connection.
            if call.db.unit().has_changed() {
                client.last_write_block = block;
            }
        }
        if client.in_exec && call.db.unit().has_touched() {
            gather(server, call.db.unit(), client.record.id);
        }
        let remembers = command.flags.has(flags::READONLY) && client.remembers_reads();
        if remembers {
            remember(server, call.keys(), client);
        }
        if self.hooks.has(Hook::Monitor) && !matches!(outcome, Err(CommandError::NeedsRoom(_))) {
            monitor::note(server, &mut self.lines, command, args, client, &outcome);
            if !client.in_exec {
                monitor::show(server, &mut self.lines, server.store.journal().position());
            }
        }
        if outcome.is_ok() {
            begin_wait(server, &mut call, client);
        }
        drop(call);
        if remembers {
            limit_tracking(server);
        }
        self.retire();
        if !client.in_exec {
            self.tell();
        }
        if self.closed.is_some() && !was_alone {
            if command.flags.has(flags::WRITE) && server.blocking.is_any() {
                let mut ready = Vec::new();
                self.add_ready(entry, args, keys, &mut ready);
                self.serve(ready);
            }
            self.open();
        }
        outcome
    }

    /// Runs a data command again that asked for room for this many bytes, once there is room.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "they are those of `data`, and the room")]
    pub(super) fn data_with_room(
        &mut self,
        bytes: u64,
        handler: fn(&mut Call<'_>, Reply<'_>) -> Outcome,
        entry: &CommandEntry,
        args: Args<'_>,
        keys: &HashedKeys,
        client: &mut Client,
        out: &mut Output,
    ) -> Outcome {
        if client.in_exec || self.closed.is_some() {
            // Nothing can be evicted beside the shards of a transaction.
            if self.server.counted_memory().saturating_add(bytes) > self.maxmemory {
                return Err(CommandError::OutOfMemory);
            }
        } else {
            self.find_room(bytes, client)?;
        }
        let growth_max = std::mem::replace(&mut self.facts.growth_max, bytes.saturating_add(bytes / 8));
        let outcome = self.data(handler, entry, args, keys, client, out);
        self.facts.growth_max = growth_max;
        match outcome {
            Err(CommandError::NeedsRoom(_)) => Err(CommandError::OutOfMemory),
            outcome => outcome,
        }
    }

    /// What is currently wanted of a unit.
    #[inline]
    pub(super) fn wants(&self) -> Wants {
        wants(self.server, self.events)
    }

    /// Tells the events that units of this worker have posted. No shard is held.
    #[inline]
    pub(super) fn tell(&mut self) {
        if self.unit.posted {
            tell(self.server, self.unit);
        }
    }

    /// Ends a unit, or one of its commands. Another thread frees the large values that it has removed.
    #[inline]
    pub(super) fn retire(&mut self) {
        self.unit.end(self.scratch);
        if !self.unit.retired.is_empty() || !self.unit.retired_directories.is_empty() {
            self.retire_large();
        }
    }

    #[cold]
    pub(super) fn retire_large(&mut self) {
        if self.unit.is_held_whole() {
            return;
        }
        if !self.unit.retired.is_empty() {
            let values = std::mem::take(&mut self.unit.retired);
            let count = values.len() as u64;
            let bytes = values.iter().map(|value| value.bytes() as u64).sum();
            self.server.reclaim(Box::new(values), count, bytes);
        }
        if !self.unit.retired_directories.is_empty() {
            let directories = std::mem::take(&mut self.unit.retired_directories);
            let count = directories.iter().map(|directory| directory.len() as u64).sum();
            self.server.reclaim(Box::new(directories), count, UNCOUNTED_BYTES);
        }
    }
}

/// Makes a connection wait for what its command has asked for, if anything. The keys are still locked.
#[inline]
fn begin_wait(server: &Arc<Server>, call: &mut Call<'_>, client: &mut Client) {
    if let Some(block) = call.block.take() {
        register(server, call, block, client);
    }
    if let Some(order) = call.migration.take() {
        sending::begin(server, call, order, client);
    }
}

/// Runs a handler below a limit of memory, if there is one. A command of several keys that has made more of them than
/// there is room for is taken back.
#[inline]
fn run_bounded(
    server: &Server,
    maxmemory: u64,
    handler: fn(&mut Call<'_>, Reply<'_>) -> Outcome,
    call: &mut Call<'_>,
    reply: Reply<'_>,
) -> Outcome {
    if maxmemory == 0 {
        return run_handler(handler, call, reply);
    }
    let before = alloc::thread_bytes();
    let outcome = run_handler(handler, call, reply);
    let added = u64::try_from(alloc::thread_bytes() - before).unwrap_or(0);
    let is_bounded = added <= call.db.facts().growth_max
        || !call.entry.command.flags.has(flags::DENYOOM)
        || server.counted_memory() <= maxmemory;
    if outcome.is_err() || is_bounded || !call.db.unit().is_undoable() {
        return outcome;
    }
    call.db.roll_back();
    Err(CommandError::NeedsRoom(added))
}

/// Finds and hashes the keys of a call.
#[inline(always)]
pub(super) fn find_keys(keyspace: &Keyspace, entry: &CommandEntry, args: Args<'_>, keys: &mut HashedKeys) {
    let command = entry.command;
    keys.any = command.flags.has(flags::GATE) || keyspace.is_loading() && command.flags.has(flags::COUNTS_KEYS);
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
pub(super) fn find_other_keys(keyspace: &Keyspace, command: &Command, args: Args<'_>, keys: &mut HashedKeys) {
    keys.any |= command.keys.may_be_any(args);
    // Arguments that do not fit leave the command without keys. Its handler reports what is wrong.
    if let Some(places) = command.keys.places(args) {
        let hashed = |&place: &usize| HashedKey { place, hash: keyspace.seed().hash(args.at(place)) };
        keys.named.extend(places.iter().map(hashed));
    }
}

/// What is currently wanted of a unit. `events` says which events the settings want.
#[inline]
pub(super) fn wants(server: &Server, events: NotifyFlags) -> Wants {
    Wants { records: server.store.journal().wants(), events }
}

/// The events that are published.
pub(super) fn events_of(settings: &Settings) -> NotifyFlags {
    settings.notify_keyspace_events.effective()
}

/// Commits a unit: hands its records to the log, all inside one block, posts its events, and finds out whom to tell of
/// its changes, which the connection `by` has made, or nobody if that is 0. Returns the number of that block, or of the
/// last one if there are no records. The caller holds the shards' locks.
#[inline]
pub(super) fn append(server: &Server, worker: usize, unit: &mut Unit, by: u64) -> u64 {
    let journal = server.store.journal();
    if unit.has_records() {
        let (records, barriers) = unit.records();
        let mut appender = journal.appender(worker);
        if !barriers.is_empty() {
            append_barriers(&mut appender, records, barriers);
            server.keyspace.graveyard().note_block(journal.position());
        }
        appender.encoded(records);
        if records.capacity() > RECORDS_KEPT_BYTES {
            *records = Default::default();
        }
    }
    let block = journal.position();
    if unit.has_events() {
        post(server, unit, block);
    }
    if unit.has_touched() || !unit.untold.is_empty() {
        gather(server, unit, by);
        unit.untold.block = block;
    }
    block
}

/// Posts the events of a unit, which the caller tells once the shards are unlocked.
#[cold]
fn post(server: &Server, unit: &mut Unit, block: u64) {
    let needs = Needs::Block(if unit.is_logging() { block } else { 0 });
    post_needing(server, unit, needs);
}

/// The same for a unit whose block may not be known yet.
pub(super) fn post_needing(server: &Server, unit: &mut Unit, needs: Needs) {
    server.key_events.post(Told { needs, events: unit.take_events() });
    unit.posted = true;
}

/// Tells the events that units of this worker have posted, and those of others. No shard is held.
#[cold]
pub(super) fn tell(server: &Server, unit: &mut Unit) {
    if std::mem::take(&mut unit.posted) {
        server.key_events.tell(|told| {
            for event in &told.events {
                event.messages(|kind, channel, message| {
                    server.publish_on(kind, channel, message, || told.needs.clone());
                });
            }
        });
    }
}

/// Appends the barriers and the records before each of them. Leaves the records behind the last barrier.
#[cold]
fn append_barriers(appender: &mut Appender<'_>, records: &mut Vec<u8>, barriers: &mut Vec<Barrier>) {
    let mut appended = 0;
    for Barrier { at, encoded } in barriers.drain(..) {
        if at > appended {
            appender.encoded(&mut records[appended..at].to_vec());
            appended = at;
        }
        appender.barrier(&encoded);
    }
    records.drain(..appended);
}

/// Locks what the command needs. `patience` is `None` behind the closed gate, where no lock is held for long.
///
/// # Errors
/// A shard is busy for longer than `patience`.
#[inline]
pub(super) fn hold<'a>(
    keyspace: &'a Keyspace,
    command: &Command,
    keys: &HashedKeys,
    patience: Option<Duration>,
) -> Result<Held<'a>, Busy> {
    let Some(patience) = patience else { return Ok(hold_alone(keyspace, command, keys)) };
    match &keys.named[..] {
        _ if command.flags.has(flags::WALKS) => Ok(Held::walking(keyspace)),
        [] => Ok(Held::none(keyspace)),
        [key] => Held::try_one(keyspace, key.shard(), patience),
        several => Held::try_several(keyspace, &mut several.iter().map(HashedKey::shard).collect(), patience),
    }
}

/// The same behind the closed gate, or without other workers.
pub(super) fn hold_alone<'a>(keyspace: &'a Keyspace, command: &Command, keys: &HashedKeys) -> Held<'a> {
    match &keys.named[..] {
        _ if keys.any || command.flags.has(flags::WALKS) => Held::on_demand(keyspace),
        [] => Held::none(keyspace),
        [key] => Held::one(keyspace, key.shard()),
        several => Held::several(keyspace, &mut several.iter().map(HashedKey::shard).collect()),
    }
}

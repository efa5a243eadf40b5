//! Checks whether a command may run now, in Redis' order, and refuses one that may not.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use super::Plan;
use super::data::find_keys;
use super::group::{Group, settle_reply_mode};
use super::handler::error_reply;
use crate::access::log::Context;
use crate::access::{Denied, User};
use crate::base::{clock, logging, slot};
use crate::core::call::HashedKeys;
use crate::core::client::{Client, ClientClass};
use crate::core::pause::Paused;
use crate::core::permission;
use crate::core::table::CommandEntry;
use crate::core::{CommandError, Flags, Handler, Hook, Step, flags};
use crate::keyspace::Busy;
use crate::resp::{Args, Output};

/// What a connection that watches all commands may not do, as in Redis, which has it be a kind of replica.
const USES_KEYSPACE: Flags = flags::WRITE.or(flags::READONLY).or(flags::MAY_REPLICATE);

impl<'g> Group<'g> {
    /// The command of a call, if it may run or be queued now. The checks and their order are those of Redis: does the
    /// command exist, and by so many arguments? Who asks? May it be in a transaction? Are its keys in one slot? Is
    /// there memory, and a disk?
    #[inline]
    pub(super) fn check<'c>(
        &mut self,
        plan: Plan<'c>,
        args: Args<'_>,
        client: &mut Client,
    ) -> Result<&'c CommandEntry, CommandError>
    where
        'g: 'c,
    {
        let entry = plan.map_or_else(|| self.server.table.resolve(args), Ok)?;
        if entry.command.flags.has(flags::DEBUGGING) && !self.may_debug(client) {
            return Err(CommandError::Text(
                "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run \
                 it from a local connection, otherwise you need to set this option in the configuration file, and \
                 then restart the server.",
            ));
        }
        let may_everything = !self.hooks.has(Hook::Access) || client.is_unlimited();
        if !may_everything {
            self.check_login(entry, client)?;
        }
        let flags = if client.transaction.is_none() {
            entry.command.flags
        } else {
            self.check_in_transaction(entry)?;
            Self::flags_to_check(entry, client)
        };
        if !may_everything {
            self.check_access(entry, args, client)?;
        }
        if self.hooks.has(Hook::Cluster) {
            self.check_slots(entry, args, client)?;
        }
        let publishes = flags.has(flags::PUBLISHES) || !self.events.is_empty() && flags.has(flags::WRITE);
        if publishes && self.server.mailboxes.is_congested() {
            return Err(CommandError::Busy(Busy::Mail));
        }
        self.check_memory(flags, &entry.command.handler, args, client)?;
        if flags.has(flags::WRITE.or(flags::REPORTS_DISK_ERRORS)) {
            self.server.check_disk(flags)?;
            if self.lacks_replicas && flags.has(flags::WRITE) {
                return Err(CommandError::Text("NOREPLICAS Not enough good replicas to write."));
            }
        }
        if client.only_listens() && !entry.command.flags.has(flags::LISTENING) {
            return Err(only_listens(entry));
        }
        if self.hooks.has(Hook::Monitor) && client.record.monitor.load(Relaxed) && flags.has(USES_KEYSPACE) {
            return Err(CommandError::Text("ERR Replica can't interact with the keyspace"));
        }
        if self.hooks.has(Hook::Pause) {
            self.check_pause(entry, args, client)?;
        }
        if self.hooks.has(Hook::Damage) {
            self.check_damage(entry, args)?;
        }
        Ok(entry)
    }

    /// Refuses a command that has no place in a transaction, which will then do nothing. For Valkey that is so of MULTI
    /// and WATCH; in Redis they fail, and the transaction goes on.
    fn check_in_transaction(&self, entry: &CommandEntry) -> Result<(), CommandError> {
        let as_valkey = self.facts.as_valkey;
        let is_nested = as_valkey && matches!(entry.command.handler, Handler::Transaction(Step::Multi | Step::Watch));
        match entry.command.flags.has(flags::NO_MULTI) || is_nested {
            false => Ok(()),
            true if as_valkey => {
                Err(CommandError::err(format_args!("Command '{}' not allowed inside a transaction", entry.full_name)))
            }
            true => Err(CommandError::Text("ERR Command not allowed inside a transaction")),
        }
    }

    /// Refuses a command that needs a damaged shard: by one of its keys, or because it needs every key.
    #[cold]
    pub(super) fn check_damage(&self, entry: &CommandEntry, args: Args<'_>) -> Result<(), CommandError> {
        let keyspace = &self.server.keyspace;
        let mut keys = HashedKeys::default();
        find_keys(keyspace, entry, args, &mut keys);
        let needs_all =
            flags::GATE.or(flags::FROZEN).or(flags::WALKS).or(flags::COUNTS_KEYS).or(flags::NO_ASYNC_LOADING);
        let what = match keys.any || entry.command.flags.has(needs_all) {
            true => keyspace.first_damage().map(|(_, what)| what),
            false => keys.named.iter().find_map(|key| keyspace.damage_of(key.shard())),
        };
        what.map_or(Ok(()), |what| Err(CommandError::damaged(&what)))
    }

    /// Refuses a connection that has not logged in, and must.
    #[cold]
    fn check_login(&self, entry: &CommandEntry, client: &Client) -> Result<(), CommandError> {
        let may_log_in = entry.command.flags.has(flags::NO_AUTH);
        if client.user.is_none() && !may_log_in && !self.server.users.default_user().is_open() {
            return Err(CommandError::NoAuth);
        }
        Ok(())
    }

    /// Refuses what the user of the connection may not do.
    #[cold]
    fn check_access(&self, entry: &CommandEntry, args: Args<'_>, client: &Client) -> Result<(), CommandError> {
        let context = if client.transaction.is_some() { Context::Multi } else { Context::Toplevel };
        // The log of refusals tells of the connection as it is.
        client.record.last_command.store(entry.index as u64 + 1, Relaxed);
        let checked = self.server.check_access(entry, args, client, context);
        checked.map_err(|(user, denied)| permission::refused(&user, entry, denied))
    }

    /// Whether a command of a running transaction is still allowed.
    #[inline]
    pub(super) fn check_again(
        &self,
        entry: &CommandEntry,
        args: Args<'_>,
        client: &Client,
    ) -> Result<(), CommandError> {
        if self.hooks.has(Hook::Damage) {
            self.check_damage(entry, args)?;
        }
        if !self.hooks.has(Hook::Access) || client.is_unlimited() {
            return Ok(());
        }
        self.server.check_access(entry, args, client, Context::Multi).map_err(|(_, denied)| no_longer_allowed(denied))
    }

    /// The user of a connection, unless it may do everything.
    #[inline]
    pub(super) fn limited_user(&self, client: &Client) -> Option<Arc<User>> {
        if !self.hooks.has(Hook::Access) || client.is_unlimited() {
            return None;
        }
        Some(client.acting_user(self.server).into_owned()).filter(|user| !user.is_unlimited())
    }

    /// Refuses a call whose keys are in several slots, and an EXEC whose commands together use several.
    #[inline(never)]
    fn check_slots(&self, entry: &CommandEntry, args: Args<'_>, client: &Client) -> Result<(), CommandError> {
        let mut slot = None;
        match (&entry.command.handler, &client.transaction) {
            (Handler::Transaction(Step::Exec), Some(transaction)) => {
                same_slot(entry, args, &mut slot)?;
                transaction.queue.iter().map(|queued| queued.args()).try_for_each(|args| {
                    // A command that cannot be resolved is reported in its turn.
                    let queued = self.server.table.resolve(args).ok();
                    queued.map_or(Ok(()), |queued| same_slot(queued, args, &mut slot))
                })
            }
            _ if entry.only_key.is_some() => Ok(()),
            _ => same_slot(entry, args, &mut slot),
        }
    }

    /// Refuses a command if what it has found busy is damaged, or held by a script that has been running for too long.
    /// Otherwise the command is to be parked.
    #[cold]
    pub(super) fn refuse_held(
        &mut self,
        busy: Busy,
        args: Args<'_>,
        client: &mut Client,
        out: &mut Output,
    ) -> Option<Busy> {
        if let Busy::Shard(shard) = busy
            && let Some(what) = self.server.keyspace.damage_of(shard)
        {
            self.refuse(&CommandError::damaged(&what), args, client, out);
            return None;
        }
        let running = &self.server.running_scripts;
        let is_held = self.server.hooks.load().has(Hook::Busy)
            && match busy {
                // It wanted to be alone, and the script is there.
                Busy::Workers => true,
                Busy::Gate => running.holds_everything(),
                Busy::Shard(shard) => running.is_held(shard),
                Busy::Mail | Busy::Memory | Busy::Pause => false,
            };
        if !is_held {
            return Some(busy);
        }
        self.refuse(&running.busy_error(), args, client, out);
        None
    }

    /// Whether a pause holds the command back. Replicas are never paused.
    #[cold]
    fn check_pause(&self, entry: &CommandEntry, args: Args<'_>, client: &Client) -> Result<(), CommandError> {
        let is_held_back = match self.server.pause.now(clock::now_ms(), &self.server.hooks) {
            None => false,
            Some((Paused::All, _)) => true,
            Some((Paused::Writes, _)) => self.may_write(entry, args, client),
        };
        if is_held_back && client.record.class() != ClientClass::Replica {
            client.record.last_command.store(entry.index as u64 + 1, Relaxed);
            return Err(CommandError::Busy(Busy::Pause));
        }
        Ok(())
    }

    /// Whether a call may change keys or publish something. A script that says that it does not write may not.
    fn may_write(&self, entry: &CommandEntry, args: Args<'_>, client: &Client) -> bool {
        match (&entry.command.handler, &client.transaction) {
            (Handler::Script(form), _) if self.says_no_writes(*form, args) => false,
            (Handler::Transaction(Step::Exec), Some(transaction)) => {
                let mut queue = transaction.queue.iter().map(|queued| queued.args());
                queue.any(|args| self.server.table.resolve(args).is_ok_and(|entry| self.may_write(entry, args, client)))
            }
            _ => entry.command.flags.has(flags::WRITE.or(flags::MAY_REPLICATE).or(flags::SPREADS)),
        }
    }

    /// Whether `enable-debug-command` allows DEBUG to this connection.
    #[cold]
    pub(super) fn may_debug(&self, client: &Client) -> bool {
        self.server.config.settings().enable_debug_command.allows(client.record.is_local())
    }

    /// Replies with an error to a command that does not run.
    #[cold]
    pub(super) fn refuse(&mut self, error: &CommandError, args: Args<'_>, client: &mut Client, out: &mut Output) {
        client.end_caching(false);
        self.processed -= 1;
        let table = &self.server.table;
        let entry = match table.resolve(args) {
            Err(CommandError::Arity(name)) => table.by_full_name(name.as_bytes()),
            found => found.ok(),
        };
        // What was asked for last, also if it was refused: 0 for what there is not.
        client.record.last_command.store(entry.map_or(0, |entry| entry.index as u64 + 1), Relaxed);
        if let Some(entry) = entry {
            self.stats.commands[entry.index].rejected.add_alone(1);
            if self.hooks.has(Hook::Audit) {
                self.server.audit.note_refused(entry, args, &client.record, error);
            }
        }
        let is_exec = self.abort_transaction(self.server.table.get(args.at(0)), client);
        if is_exec && *error != CommandError::CrossSlot {
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

    pub(super) fn reply_refusal(&self, error: &CommandError, client: &mut Client, out: &mut Output) {
        let mark = out.mark();
        error_reply(self.server, error, out);
        settle_reply_mode(client, mark, out);
    }
}

/// The refusal of a command by EXEC, that was allowed when it was queued.
#[cold]
fn no_longer_allowed(denied: Denied) -> CommandError {
    let reason = match denied {
        Denied::Command(_) => "no permission to execute the command or subcommand",
        Denied::Key(_) => "no permission to touch the specified keys",
        Denied::Channel(_) => "no permission to access one of the channels used as arguments",
        Denied::Database(_) => "no permission to access the database",
    };
    CommandError::Message(format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is \
         no longer allowed for the following reason: {reason}"
    ))
}

/// The refusal of a command to a subscriber in RESP2.
#[cold]
pub(super) fn only_listens(entry: &CommandEntry) -> CommandError {
    CommandError::err(format_args!(
        "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        entry.full_name
    ))
}

/// Checks that the keys and channels of a call are in the slot of those before them, if there were any.
pub(super) fn same_slot(entry: &CommandEntry, args: Args<'_>, slot: &mut Option<u16>) -> Result<(), CommandError> {
    let places = entry.command.keys.slot_places(args).unwrap_or_default();
    for of_key in places.into_iter().map(|place| slot::of_key(args.at(place))) {
        if slot.replace(of_key).is_some_and(|before| before != of_key) {
            return Err(CommandError::CrossSlot);
        }
    }
    Ok(())
}

/// Whether this is a line of an HTTP request: a web page can make a browser send one here, with commands as its body.
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

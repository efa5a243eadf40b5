//! The server, as a running script sees it.
//!
//! Invariants:
//! - A command of a script is checked, run and counted like any other, inside the unit of the script.
//! - A script that must be run again, or must end, is told so until it has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::check::same_slot;
use super::data::find_keys;
use super::fiber::Pausing;
use super::group::Group;
use super::serving::ReadyKey;
use crate::access::log::Context;
use crate::base::logging;
use crate::core::call::HashedKeys;
use crate::core::client::Client;
use crate::core::hooks::Hook;
use crate::core::permission;
use crate::core::scripts::{LongHeld, Script};
use crate::core::table::CommandEntry;
use crate::core::{Command, CommandError, Handler, flags};
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Output, Resp};
use crate::script::{Access, Flow, Host, LogLevel};

/// The error of a script that was killed.
pub(super) const KILLED: &str = "Script killed by user with SCRIPT KILL...";
/// How long a script runs before other connections of its worker get their turn.
const SLICE: Duration = Duration::from_millis(1);
/// How many bytes of lines for the log are kept until it is known that the run is not repeated.
const LINES_KEPT_BYTES: usize = 64 << 10;
/// How much of an error is kept, in bytes: more than its code.
const ERROR_KEPT_BYTES: usize = 64;
/// How many commands that are to be noted are kept until then. All are noted at once that would be more.
const NOTED_MAX: usize = 128;

/// What is to be run, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Called<'a> {
    pub(super) script: &'a Arc<Script>,
    /// The words of the call. The keys begin at the fourth, and the arguments are behind them.
    pub(super) args: Args<'a>,
    pub(super) keys_count: usize,
    /// Whether it must not write.
    pub(super) read_only: bool,
}

/// See the module.
pub(super) struct ScriptHost<'h, 'g> {
    group: &'h mut Group<'g>,
    client: &'h mut Client,
    pausing: Pausing<'h>,
    called: Called<'h>,
    read_only: bool,
    /// Memory was above `maxmemory` when the script began.
    pub(super) over_memory: bool,
    /// Whether what it has written stands if it is killed, so that it cannot be.
    pub(super) is_firm: bool,
    /// Whether its keys must be in one slot, and in which, once that is known.
    keeps_to_one_slot: bool,
    slot: Option<u16>,
    /// How long a script may run before others are told that the server is busy.
    pub(super) busy_after_ms: i64,
    /// When the script was first looked at, and when its time slice began.
    looked: Option<Instant>,
    slice: Option<Instant>,
    /// When the last command ended, unless the script has been looked at since.
    last: Option<Instant>,
    is_busy: bool,
    /// What the busy script was noted to hold; `None` for everything.
    busy_shards: Option<Vec<u16>>,
    /// Keys that may have something for their waiters.
    ready: Vec<ReadyKey>,
    keys: HashedKeys,
    needs_all: bool,
    was_ended: bool,
    lines: Vec<(LogLevel, Box<str>)>,
    line_bytes: usize,
    /// Commands that are to be noted, with their time and the size of their reply.
    noted: Vec<(&'g CommandEntry, OwnedArgs, (u64, usize))>,
    /// See [`Left`].
    errors: Vec<Box<[u8]>>,
    has_failed: bool,
}

/// What a script leaves behind.
pub(super) struct Left {
    /// Keys that may have something for their waiters.
    pub(super) ready: Vec<ReadyKey>,
    /// Whether it needs more than it held.
    pub(super) needs_all: bool,
    /// Whether it was ended because the server ends.
    pub(super) was_ended: bool,
    lines: Vec<(LogLevel, Box<str>)>,
    /// Errors of its own in its reply, to be counted,
    pub(super) errors: Vec<Box<[u8]>>,
    /// and whether there is any error in it.
    pub(super) has_failed: bool,
}

impl Left {
    /// Writes the lines that the script had for the log.
    pub(super) fn log_lines(&mut self) {
        self.lines.drain(..).for_each(|(level, line)| level.write(&line));
    }
}

impl<'h, 'g> ScriptHost<'h, 'g> {
    pub(super) fn new(
        group: &'h mut Group<'g>,
        client: &'h mut Client,
        called: Called<'h>,
        pausing: Pausing<'h>,
    ) -> Self {
        let flags = called.script.flags;
        ScriptHost {
            read_only: called.read_only || (flags.declared && flags.no_writes),
            over_memory: false,
            is_firm: false,
            keeps_to_one_slot: group.hooks.has(Hook::Cluster) && flags.declared && !flags.allow_cross_slot_keys,
            slot: None,
            busy_after_ms: 0,
            looked: None,
            slice: None,
            last: None,
            is_busy: false,
            busy_shards: None,
            ready: Vec::new(),
            keys: HashedKeys::default(),
            needs_all: false,
            was_ended: false,
            lines: Vec::new(),
            line_bytes: 0,
            noted: Vec::new(),
            errors: Vec::new(),
            has_failed: false,
            group,
            client,
            pausing,
            called,
        }
    }

    /// Ends the run.
    pub(super) fn leave(mut self) -> Left {
        if !self.needs_all {
            self.note_kept();
        }
        if self.looked.is_some() {
            let held = match &self.busy_shards {
                _ if !self.is_busy => None,
                None => Some(LongHeld::Everything),
                Some(shards) => Some(LongHeld::Shards(shards)),
            };
            let server = self.group.server;
            server.running_scripts.leave(self.pausing.me, held, &server.hooks);
        }
        let ScriptHost { ready, needs_all, was_ended, lines, errors, has_failed, .. } = self;
        Left { ready, needs_all, was_ended, lines, errors, has_failed }
    }

    /// Whether a script may call this now.
    fn check(&self, entry: &CommandEntry, args: Args<'_>) -> Result<(), CommandError> {
        let command = entry.command;
        let is_barred = command.flags.has(flags::NOSCRIPT)
            || matches!(command.handler, Handler::Transaction(_) | Handler::Script(_));
        if is_barred && !self.is_unbarred(command) {
            return Err(CommandError::Text("ERR This Redis command is not allowed from script"));
        }
        self.check_access(entry, args)?;
        if self.group.hooks.has(Hook::Damage) {
            self.group.check_damage(entry, args)?;
        }
        // What others hear of is a write, too: a read-only script passes when only writes are paused.
        if self.read_only && command.flags.has(flags::WRITE.or(flags::SPREADS)) {
            return Err(CommandError::Text("ERR Write commands are not allowed from read-only scripts."));
        }
        if command.flags.has(flags::WRITE) {
            self.group.server.check_disk(command.flags)?;
            if self.group.lacks_replicas {
                return Err(CommandError::Text("NOREPLICAS Not enough good replicas to write."));
            }
        }
        if command.flags.has(flags::DENYOOM) && self.over_memory && !self.group.unit.has_changed() {
            return Err(CommandError::OutOfMemory);
        }
        if command.flags.has(flags::WRITE) && self.is_firm && !self.pausing.me.begin_write() {
            return Err(CommandError::Text(KILLED));
        }
        Ok(())
    }

    /// Whether DEBUG SET-DISABLE-DENY-SCRIPTS lets a script call this: never what needs the connection, the log or all
    /// keys at one instant, or waits for others.
    #[cold]
    fn is_unbarred(&self, command: &Command) -> bool {
        self.group.server.debugging.deny_scripts_off.load(Relaxed)
            && matches!(command.handler, Handler::Data(_))
            && !command.flags.has(flags::GATE.or(flags::FROZEN).or(flags::NO_MULTI))
            && (!command.flags.has(flags::DEBUGGING) || self.group.may_debug(self.client))
    }

    /// Refuses what the user of the connection may not do.
    fn check_access(&self, entry: &CommandEntry, args: Args<'_>) -> Result<(), CommandError> {
        let (server, client) = (self.group.server, &*self.client);
        if !self.group.hooks.has(Hook::Access) || client.is_unlimited() {
            return Ok(());
        }
        let checked = server.check_access(entry, args, client, Context::Lua);
        checked.map_err(|(user, denied)| {
            let reason = permission::reason(&user, entry, denied, None);
            CommandError::Echo([b"ERR ACL failure in script: ", &reason[..]].concat())
        })
    }

    /// In a cluster, refuses keys of a second slot to a script that has not said that it uses several.
    fn check_slots(&mut self, entry: &CommandEntry, args: Args<'_>) -> Result<(), CommandError> {
        if !self.keeps_to_one_slot {
            return Ok(());
        }
        same_slot(entry, args, &mut self.slot)
            .map_err(|_| CommandError::Text("ERR Script attempted to access keys that do not hash to the same slot"))
    }
}

impl Host for ScriptHost<'_, '_> {
    fn call(&mut self, args: Args<'_>, resp: Resp, out: &mut Output) -> Flow {
        let server = self.group.server;
        let entry = match server.table.resolve(args) {
            Ok(entry) => entry,
            Err(CommandError::Arity(name)) => {
                if let Some(entry) = server.table.by_full_name(name.as_bytes()) {
                    self.group.count_rejected(entry);
                }
                let text = "ERR Wrong number of args calling Redis command from script";
                self.group.reply_error(&CommandError::Text(text), out);
                return Flow::GoesOn;
            }
            Err(_) => {
                let text = "ERR Unknown Redis command called from script";
                self.group.reply_error(&CommandError::Text(text), out);
                return Flow::GoesOn;
            }
        };
        if let Err(error) = self.check(entry, args).and_then(|()| self.check_slots(entry, args)) {
            self.group.count_rejected(entry);
            self.group.reply_error(&error, out);
            return Flow::GoesOn;
        }
        self.client.resp = resp;
        self.keys.clear();
        find_keys(&server.keyspace, entry, args, &mut self.keys);
        if self.group.held.is_some() && !self.hold_more(entry) {
            self.needs_all = true;
            out.error_bytes(b"ERR the script is run again");
            return Flow::Ends;
        }
        let (mark, replied) = (out.mark(), out.len());
        let before = self.last.unwrap_or_else(Instant::now);
        if let Err(busy) = self.group.one(entry, args, &self.keys, self.client, out) {
            unreachable!("a script has all that its commands need: {busy:?}");
        }
        if self.client.wait.take().is_some() {
            // Its reply would come later, and a script cannot wait.
            let error = CommandError::Text("ERR This Redis command is not allowed from script");
            self.group.fail(entry, &error, mark, out);
        }
        if let Some((kind, channel, text)) = self.client.published.take() {
            self.group.unit.note_published(kind, &channel, &text);
        }
        let after = Instant::now();
        let took = after.saturating_duration_since(before);
        self.last = Some(after);
        let (took_ns, size) = (took.as_nanos() as u64, out.len().saturating_sub(replied));
        self.group.count_called(entry, took_ns);
        if self.group.is_noted(args, took_ns, size) {
            self.note(entry, args, (took_ns, size));
        }
        if self.group.held.is_none() && entry.command.flags.has(flags::WRITE) && server.blocking.is_any() {
            self.group.add_ready(entry, args, &self.keys, &mut self.ready);
        }
        // A slow command is a reason to look at the script.
        if took > SLICE { Flow::Looks } else { Flow::GoesOn }
    }

    fn may(&self, args: Args<'_>) -> Access {
        let Some(entry) = self.group.server.table.meant(args) else { return Access::Unknown };
        let user = self.client.acting_user(self.group.server);
        match permission::check(&user, entry, args, self.client.db) {
            Ok(()) => Access::Allowed,
            Err(_) => Access::Denied,
        }
    }

    fn log(&mut self, level: LogLevel, line: &str) {
        self.line_bytes += line.len();
        if self.group.held.is_some() && self.line_bytes <= LINES_KEPT_BYTES {
            self.lines.push((level, line.into()));
        } else {
            self.lines.drain(..).for_each(|(level, line)| level.write(&line));
            level.write(line);
        }
    }

    fn note_error(&mut self, text: &[u8], is_of_command: bool) {
        self.has_failed = true;
        if !is_of_command {
            self.errors.push(text[..text.len().min(ERROR_KEPT_BYTES)].into());
        }
    }

    fn stop(&mut self) -> Option<&'static str> {
        self.last = None;
        if self.needs_all {
            return Some("the script needs more than its keys");
        }
        let now = Instant::now();
        let looked = match self.looked {
            Some(looked) => looked,
            None => {
                self.group.server.running_scripts.enter(self.pausing.me, self.called.function_call());
                *self.looked.insert(now)
            }
        };
        let is_long = i64::try_from((now - looked).as_millis()).unwrap_or(i64::MAX) > self.busy_after_ms;
        if !self.is_busy && is_long && self.busy_after_ms > 0 {
            self.grow_busy();
        }
        if now - *self.slice.get_or_insert(now) >= SLICE {
            self.pause();
        }
        if self.pausing.me.is_killed() {
            return Some(KILLED);
        }
        if self.group.server.running_scripts.is_ending() && self.pausing.me.kill() {
            self.was_ended = true;
            return Some(KILLED);
        }
        None
    }
}

impl<'g> ScriptHost<'_, 'g> {
    /// Locks the shards of the keys of a command beside those that the script holds. False if that is not possible, or
    /// not enough for the command.
    #[inline]
    fn hold_more(&mut self, entry: &CommandEntry) -> bool {
        let flags = entry.command.flags;
        let needs_all = self.keys.any
            || flags.has(flags::FROZEN.or(flags::WALKS))
            || !matches!(entry.command.handler, Handler::Data(_)) && !flags.has(flags::FAST);
        let Some(held) = self.group.held.as_mut().filter(|_| !needs_all) else { return false };
        for key in &self.keys.named {
            let before = held.count();
            if !held.try_hold_more(key.shard()) {
                return false;
            }
            if let Some(busy) = self.busy_shards.as_mut().filter(|_| held.count() > before) {
                busy.push(key.shard());
                self.group.server.running_scripts.hold_more(key.shard());
            }
        }
        true
    }

    /// Notes a command that took long or was large. If the run may be repeated, only once that is known.
    #[cold]
    fn note(&mut self, entry: &'g CommandEntry, args: Args<'_>, (took_ns, size): (u64, usize)) {
        if self.group.held.is_some() && self.noted.len() < NOTED_MAX {
            self.noted.push((entry, OwnedArgs::new(args.from(0)), (took_ns, size)));
        } else {
            self.note_kept();
            self.group.note_called(entry, args, (took_ns, size), &self.client.record);
        }
    }

    fn note_kept(&mut self) {
        for (entry, args, figures) in self.noted.drain(..) {
            self.group.note_called(entry, args.args(), figures, &self.client.record);
        }
    }

    /// Has those who need what the script holds be told that it runs for too long.
    #[cold]
    fn grow_busy(&mut self) {
        self.is_busy = true;
        self.busy_shards = self.group.held.as_ref().map(|held| held.shards());
        let held = self.busy_shards.as_deref().map_or(LongHeld::Everything, LongHeld::Shards);
        let server = self.group.server;
        server.running_scripts.grow_long(held, &server.hooks);
        logging::warning(format_args!(
            "Slow script detected: still in execution after {} milliseconds. You can try killing the script using the \
             SCRIPT KILL command.",
            self.busy_after_ms
        ));
    }

    /// Gives the worker back for a while.
    #[cold]
    fn pause(&mut self) {
        if let Some(inside) = self.group.inside.take() {
            self.group.staying = Some(self.group.server.gate.stay(self.group.worker, inside));
        }
        if self.pausing.lends() {
            // What its transaction has sent to itself comes behind the reply.
            self.client.hear(self.group.server, &mut Output::new());
        }
        self.pausing.pause(self.client);
        self.slice = None;
    }
}

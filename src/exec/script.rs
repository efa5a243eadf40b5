//! Runs scripts: EVAL, EVALSHA and their read-only forms.
//!
//! ```text
//! find the script ─ close the gate ─ begin a unit ─ engine ─ redis.call ─ the one path of a command, in that unit
//!                                                     └─ ends, fails or is killed
//!   commit: records to the log, as one block ─ serve waiters ─ open the gate      or: roll back, nothing remains
//! ```
//!
//! Invariants:
//! - A script runs alone: no other command sees a part of what it does, and its effects are inside one block.
//! - Time stands still inside a script.
//! - A script that is killed after writing is rolled back, unless `script-rollback` is `no`: then it cannot be killed.
//! - What a script changes of its connection, the database and the protocol, is as before when it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::check::same_slot;
use super::data::find_keys;
use super::group::Group;
use super::handler::{error_reply, fail, internal_error};
use super::monitor;
use super::serving::ReadyKey;
use crate::base::config::ScriptRollback;
use crate::base::{alloc, logging};
use crate::core::call::HashedKeys;
use crate::core::client::{Client, ReplyMode};
use crate::core::command::ScriptForm;
use crate::core::db::Db;
use crate::core::error::Remains;
use crate::core::hooks::Hook;
use crate::core::scripts::{Script, ScriptFlags, Sha};
use crate::core::table::CommandEntry;
use crate::core::{CommandError, Handler, Outcome, args, flags};
use crate::keyspace::Held;
use crate::resp::{Args, Output, Reply, Resp};
use crate::script::{Access, Failure, Host, LogLevel, Run, source, with_vm};

/// The error of a script that was killed.
const KILLED: &str = "Script killed by user with SCRIPT KILL...";

/// So many questions of a script share one look at the clock.
const QUESTIONS_PER_LOOK: u32 = 128;

impl Group<'_> {
    /// Runs a script.
    pub(super) fn script(
        &mut self,
        form: ScriptForm,
        entry: &CommandEntry,
        args: Args<'_>,
        client: &mut Client,
        out: &mut Output,
    ) -> Outcome {
        let keys_count = count_of_keys(args)?;
        let script = self.find_script(form, args)?;
        let read_only = matches!(form, ScriptForm::EvalRo | ScriptForm::EvalShaRo);
        self.check_script(script.flags, read_only)?;
        let was_alone = self.closed.is_some();
        self.close().map_err(CommandError::Busy)?;
        let mark = out.mark();
        let ran = self.run_script(&script, entry, args, keys_count, read_only, client, out);
        if !was_alone {
            self.open();
        }
        match ran {
            Ok(()) => Ok(Reply::new(out, client.resp).withheld()),
            Err(error) => {
                out.truncate(mark);
                Err(error)
            }
        }
    }

    /// The script that a call names or brings.
    fn find_script(&self, form: ScriptForm, args: Args<'_>) -> Result<Arc<Script>, CommandError> {
        let scripts = &self.server.scripts;
        match form {
            ScriptForm::EvalSha | ScriptForm::EvalShaRo => Sha::parse(args.at(1))
                .and_then(|sha| scripts.get(&sha))
                .ok_or(CommandError::Text("NOSCRIPT No matching script. Please use EVAL.")),
            ScriptForm::Eval | ScriptForm::EvalRo => {
                let sha = Sha::of(args.at(1));
                if let Some(script) = scripts.get(&sha) {
                    return Ok(script);
                }
                let script = compile_script(self.server.scripts.generation(), sha, args.at(1))?;
                scripts.add(Arc::clone(&script), false);
                Ok(script)
            }
        }
    }

    /// Checks what a script says about itself before it runs.
    fn check_script(&self, flags: ScriptFlags, read_only: bool) -> Result<(), CommandError> {
        if !flags.declared {
            return Ok(());
        }
        if flags.no_cluster && self.hooks.has(Hook::Cluster) {
            return Err(CommandError::Text("ERR Can not run script on cluster, 'no-cluster' flag is set."));
        }
        if !flags.no_writes {
            if read_only {
                return Err(CommandError::Text("ERR Can not execute a script with write flag using *_ro command."));
            }
            self.server.check_disk()?;
            if self.lacks_replicas {
                return Err(CommandError::Text("NOREPLICAS Not enough good replicas to write."));
            }
        }
        if self.is_over_memory() && !flags.no_writes && !flags.allow_oom {
            return Err(CommandError::Text(
                "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
            ));
        }
        Ok(())
    }

    fn is_over_memory(&self) -> bool {
        self.maxmemory > 0 && alloc::used_memory() as u64 > self.maxmemory
    }

    /// Runs a script behind the closed gate, in the transaction's unit or in one of its own.
    #[expect(clippy::too_many_arguments, reason = "one call, whose parts have nothing else in common")]
    fn run_script(
        &mut self,
        script: &Arc<Script>,
        entry: &CommandEntry,
        args: Args<'_>,
        keys_count: usize,
        read_only: bool,
        client: &mut Client,
        out: &mut Output,
    ) -> Result<(), CommandError> {
        let server = self.server;
        let settings = server.config.settings();
        let rollback = settings.script_rollback;
        let in_exec = client.in_exec;
        if !in_exec {
            self.unit.begin_spanning(self.wants(), rollback != ScriptRollback::No);
        }
        // A transaction that has a script in it can be rolled back to any point.
        let savepoint = self.unit.is_held_whole().then(|| self.unit.savepoint());
        let running = server.running_script.begin();
        let before = Before::of(client);
        if self.hooks.has(Hook::Monitor) {
            monitor::note_exec(&mut self.lines, args, client);
        }
        client.in_exec = true;
        client.in_script = true;
        client.reply_mode = ReplyMode::On;
        let over_memory = self.is_over_memory() && !script.flags.allow_oom;
        let (facts, memory_max) = (self.facts, memory_of_scripts(self.maxmemory));
        let mut host = ScriptHost {
            read_only: read_only || (script.flags.declared && script.flags.no_writes),
            over_memory,
            can_roll_back: savepoint.is_some(),
            keeps_to_one_slot: self.hooks.has(Hook::Cluster)
                && script.flags.declared
                && !script.flags.allow_cross_slot_keys,
            slot: None,
            busy_after_ms: settings.busy_reply_threshold_ms,
            questions: 0,
            is_busy: false,
            ready: Vec::new(),
            keys: HashedKeys::default(),
            group: self,
            client,
        };
        let run = Run {
            script,
            keys: args.from(3).take(keys_count),
            arguments: args.from(3 + keys_count),
            resp: before.resp,
            memory_max,
        };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            with_vm(server.scripts.generation(), |vm| vm.run(run, &mut host, out)).and_then(|ran| ran)
        }));
        let ScriptHost { ready, is_busy, .. } = host;
        let killed = server.running_script.is_killed();
        drop(running);
        if is_busy {
            server.hooks.set(Hook::Busy, false);
        }
        before.restore(client);
        client.in_exec = in_exec;
        client.in_script = false;
        self.facts = facts;
        let failed = match ran {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(error_of(failure, script, self.server)),
            Err(panic) => Some(internal_error(entry, Remains::Unknown, &*panic)),
        };
        let takes_back = killed && failed.is_some() || rollback == ScriptRollback::OnError && failed.is_some();
        let mut ready = ready;
        if let Some(savepoint) = savepoint.filter(|_| takes_back) {
            let held = Held::on_demand(&server.keyspace);
            Db::new(held, self.unit, self.scratch, client.db, &self.facts).roll_back_to(savepoint);
            ready.clear();
        }
        if in_exec {
            self.script_ready.append(&mut ready);
        } else {
            self.end_unit(ready, client);
        }
        failed.map_or(Ok(()), Err)
    }
}

/// The memory that the machine of a worker may take, in bytes: a quarter of `maxmemory`, within bounds.
fn memory_of_scripts(maxmemory: u64) -> usize {
    const LEAST: u64 = 16 << 20;
    const MOST: u64 = 512 << 20;
    let quarter = if maxmemory == 0 { MOST } else { maxmemory / 4 };
    quarter.clamp(LEAST, MOST) as usize
}

/// The number of keys that a call says it has.
fn count_of_keys(args: Args<'_>) -> Result<usize, CommandError> {
    let count = args::integer(args.at(2))?;
    if count > args.len() as i64 - 3 {
        return Err(CommandError::Text("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(count).map_err(|_| CommandError::Text("ERR Number of keys can't be negative"))
}

/// Reads and compiles a script.
///
/// # Errors
/// Its first line is wrong, or it is no Lua.
pub fn compile_script(generation: u64, sha: Sha, body: &[u8]) -> Result<Arc<Script>, CommandError> {
    let script = Arc::new(Script { sha, body: body.into(), flags: source::read(body)? });
    match with_vm(generation, |vm| vm.prepare(&script)).and_then(|prepared| prepared) {
        Ok(()) => Ok(script),
        Err(Failure::Compile(text) | Failure::Error(text)) => Err(CommandError::Echo(text)),
        Err(Failure::Engine(text)) => Err(CommandError::err(text)),
    }
}

fn error_of(failure: Failure, script: &Script, server: &crate::core::Server) -> CommandError {
    match failure {
        Failure::Compile(text) | Failure::Error(text) => CommandError::Echo(text),
        Failure::Engine(text) => {
            if !server.running_script.is_killed() {
                logging::warning(format_args!("A script failed in the engine: {text}"));
            }
            CommandError::Message(format!("ERR {text} script: {}", script.sha.as_str()))
        }
    }
}

/// What a script may change of its connection, as it was before.
struct Before {
    db: u32,
    resp: Resp,
    reply_mode: ReplyMode,
}

impl Before {
    fn of(client: &Client) -> Self {
        Before { db: client.db, resp: client.resp, reply_mode: client.reply_mode }
    }

    fn restore(self, client: &mut Client) {
        client.db = self.db;
        client.record.db.store(u64::from(self.db), Relaxed);
        client.resp = self.resp;
        client.reply_mode = self.reply_mode;
    }
}

/// The server, as the running script sees it.
struct ScriptHost<'h, 'g> {
    group: &'h mut Group<'g>,
    client: &'h mut Client,
    read_only: bool,
    /// Memory was above `maxmemory` when the script began.
    over_memory: bool,
    can_roll_back: bool,
    /// Whether its keys must be in one slot, and in which, once that is known.
    keeps_to_one_slot: bool,
    slot: Option<u16>,
    /// How long a script may run before others are told that the server is busy.
    busy_after_ms: i64,
    questions: u32,
    is_busy: bool,
    /// Keys that may have something for their waiters.
    ready: Vec<ReadyKey>,
    keys: HashedKeys,
}

impl ScriptHost<'_, '_> {
    /// Whether a script may call this now.
    fn check(&self, entry: &CommandEntry) -> Result<(), CommandError> {
        let command = entry.command;
        let is_barred = command.flags.has(flags::NOSCRIPT)
            || matches!(command.handler, Handler::Transaction(_) | Handler::Script(_));
        if is_barred {
            return Err(CommandError::Text("ERR This Redis command is not allowed from script"));
        }
        if command.flags.has(flags::WRITE) {
            if self.read_only {
                return Err(CommandError::Text("ERR Write commands are not allowed from read-only scripts."));
            }
            self.group.server.check_disk()?;
            if self.group.lacks_replicas {
                return Err(CommandError::Text("NOREPLICAS Not enough good replicas to write."));
            }
        }
        if command.flags.has(flags::DENYOOM) && self.over_memory && !self.group.unit.has_changed() {
            return Err(CommandError::OutOfMemory);
        }
        if command.flags.has(flags::WRITE) && !self.can_roll_back && !self.group.server.running_script.begin_write() {
            return Err(CommandError::Text(KILLED));
        }
        Ok(())
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
    fn call(&mut self, args: Args<'_>, resp: Resp, out: &mut Output) {
        let server = self.group.server;
        let entry = match server.table.resolve(args) {
            Ok(entry) => entry,
            Err(CommandError::Arity(_)) => {
                let text = "ERR Wrong number of args calling Redis command from script";
                return error_reply(server, &CommandError::Text(text), out);
            }
            Err(_) => {
                let text = "ERR Unknown Redis command called from script";
                return error_reply(server, &CommandError::Text(text), out);
            }
        };
        if let Err(error) = self.check(entry).and_then(|()| self.check_slots(entry, args)) {
            self.group.stats.commands[entry.index].rejected.add_alone(1);
            return error_reply(server, &error, out);
        }
        self.client.resp = resp;
        self.keys.clear();
        find_keys(&server.keyspace, entry, args, &mut self.keys);
        let mark = out.mark();
        let before = Instant::now();
        if let Err(busy) = self.group.one(entry, args, &self.keys, self.client, out) {
            unreachable!("a script runs alone: {busy:?}");
        }
        if self.client.wait.take().is_some() {
            // Its reply would come later, and a script cannot wait.
            let error = CommandError::Text("ERR This Redis command is not allowed from script");
            fail(server, &self.group.stats.commands[entry.index], &error, mark, out);
        }
        self.group.count_time(entry, 1, before.elapsed().as_nanos() as u64);
        self.group.stats.commands[entry.index].calls.add_alone(1);
        if entry.command.flags.has(flags::WRITE) && server.blocking.is_any() {
            self.group.add_ready(entry, args, &self.keys, &mut self.ready);
        }
    }

    fn may(&self, args: Args<'_>) -> Access {
        match self.group.server.table.resolve(args) {
            // There is one kind of user, who may do everything.
            Ok(_) => Access::Allowed,
            Err(_) => Access::Unknown,
        }
    }

    fn log(&self, level: LogLevel, line: &str) {
        match level {
            LogLevel::Debug => logging::debug(format_args!("{line}")),
            LogLevel::Verbose => logging::verbose(format_args!("{line}")),
            LogLevel::Notice => logging::notice(format_args!("{line}")),
            LogLevel::Warning => logging::warning(format_args!("{line}")),
        }
    }

    #[inline]
    fn stop(&mut self) -> Option<&'static str> {
        let running = &self.group.server.running_script;
        if running.is_killed() {
            return Some(KILLED);
        }
        self.questions = self.questions.wrapping_add(1);
        if !self.is_busy && self.questions.is_multiple_of(QUESTIONS_PER_LOOK) {
            let is_long = running.running_ms().is_some_and(|ms| ms > self.busy_after_ms);
            if is_long && self.busy_after_ms > 0 {
                self.is_busy = true;
                self.group.server.hooks.set(Hook::Busy, true);
                logging::warning(format_args!(
                    "Slow script detected: still in execution after {} milliseconds. You can try killing the script \
                     using the SCRIPT KILL command.",
                    self.busy_after_ms
                ));
            }
        }
        None
    }
}

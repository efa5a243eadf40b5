//! Runs scripts: EVAL, EVALSHA and their read-only forms.
//!
//! ```text
//! find the script ─ a fiber ─ lock the shards of the declared keys ─ begin a unit ─ engine
//!                     │       redis.call ─ lock further shards, if free ─ the one path of a command, in that unit
//!                     │       needs more than that: roll back, close the gate, again
//!                     │       ends: records to the log, as one block ─ events ─ serve waiters ─ unlock
//!                     │       fails, is killed: by `script-rollback`, roll back, nothing remains
//!                     └─ each time slice: back to the worker, which serves others and resumes it (`slices.rs`)
//! ```
//!
//! Invariants:
//! - No other command sees a part of what a script does, and its effects are inside one block.
//! - Scripts whose keys are in different shards run side by side. A key that a script has not declared is locked when
//!   it is used, if that is possible at once. If not, or if a command needs more than its keys, the script is rolled
//!   back and runs again, alone; so does every later run of it, until SCRIPT FLUSH.
//! - Nothing of a script leaves before it is committed: no message, and no line for the log of a run that is repeated.
//! - Time stands still inside a script.
//! - A script that is killed after writing is rolled back, unless `script-rollback` is `no`: then it cannot be killed.
//! - What a script changes of its connection, the database and the protocol, is as before when it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::fiber::{Pausing, Task};
use super::group::{Group, ScriptRules};
use super::handler::internal_error;
use super::monitor;
use super::script_host::{Called, KILLED, ScriptHost};
use crate::base::config::ScriptRollback;
use crate::base::{alloc, logging};
use crate::core::client::{Client, ReplyMode};
use crate::core::command::ScriptForm;
use crate::core::command::flags::{DENYOOM, WRITE};
use crate::core::db::Db;
use crate::core::error::Remains;
use crate::core::hooks::Hook;
use crate::core::scripts::{self, Script, Sha};
use crate::core::table::CommandEntry;
use crate::core::{CommandError, Outcome, Server, args};
use crate::keyspace::{Held, Libraries, shard_of};
use crate::resp::{Args, Output, Reply, Resp};
use crate::script::aside::call_aside;
use crate::script::functions::FunctionCall;
use crate::script::handed::with_machine;
use crate::script::{Failure, Host, Run, source, with_vm};

/// How a run has ended.
pub(super) enum Ended {
    /// Its reply is written.
    Well,
    /// It failed.
    Failed(CommandError),
    /// It needs more than it holds. Nothing of it remains.
    NeedsAll,
}

/// Why a script did not end well.
enum Why {
    Failed(CommandError),
    NeedsAll,
}

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
        let is_function = matches!(form, ScriptForm::Function | ScriptForm::FunctionRo);
        if !is_function {
            // Redis looks at that before it looks for a script, and behind it for a function.
            count_of_keys(args, false)?;
        }
        let script = self.find_script(form, args)?;
        let keys_count = count_of_keys(args, is_function)?;
        let read_only = matches!(form, ScriptForm::EvalRo | ScriptForm::EvalShaRo | ScriptForm::FunctionRo);
        self.check_script(&script, read_only)?;
        let called = Called { script: &script, args, keys_count, read_only };
        let Some(pausing) = self.pausing else {
            return self.script_in_fiber(called, client, out);
        };
        // In a transaction, which runs alone.
        let mark = out.mark();
        match self.run_script(called, entry, pausing, client, out) {
            Ended::Well => Ok(Reply::new(out, client.resp).withheld()),
            Ended::Failed(error) => {
                out.truncate(mark);
                if client.aborted && pausing.me.is_killed() {
                    // Its connection has ended: nothing of the transaction remains.
                    self.failed.get_or_insert_with(|| error.clone());
                }
                Err(error)
            }
            Ended::NeedsAll => unreachable!("it is alone"),
        }
    }

    /// Runs the script of a task in its fiber: with its declared keys, and if that is not enough, alone.
    ///
    /// # Errors
    /// Those of the script; or a lock is busy, and nothing has happened.
    pub(super) fn run_task(&mut self, task: &mut Task, pausing: Pausing<'_>) -> Result<(), CommandError> {
        let Task { script, args, keys_count, read_only, client, out, .. } = task;
        let Some(script) = script else { unreachable!("it has a script") };
        let args = args.args();
        let (keys_count, read_only) = (*keys_count, *read_only);
        let called = Called { script, args, keys_count, read_only };
        let entry = self.server.table.resolve(args)?;
        let mark = out.mark();
        let is_enough = !script.runs_alone() && self.hold_declared(called).map_err(CommandError::Busy)?;
        // Behind the gate, as whoever changes that is alone.
        if is_enough && self.may_run_aside(script) {
            match self.run_script(called, entry, pausing, client, out) {
                Ended::Well => return Ok(()),
                Ended::Failed(error) => return Err(error),
                Ended::NeedsAll => script.set_runs_alone(),
            }
            out.truncate(mark);
        }
        (self.held, self.staying) = (None, None);
        while let Err(busy) = self.close() {
            // Who is suspended cannot be parked: its connection waits already.
            if !pausing.me.has_paused() {
                return Err(CommandError::Busy(busy));
            }
            pausing.wait(client);
            // Its commands are checked for that one by one.
            self.hooks.learn(Hook::Damage, self.server.hooks.load());
            if pausing.me.is_killed() || self.server.running_scripts.is_ending() {
                return Err(CommandError::Message(format!("ERR {KILLED} script: {}.", called.script.name())));
            }
        }
        // The libraries may have changed until everything stood still.
        if let Some(found) = self.found_again(script)? {
            *script = found;
            self.check_script(script, read_only)?;
        }
        let called = Called { script, args, keys_count, read_only };
        match self.run_script(called, entry, pausing, client, out) {
            Ended::Well => Ok(()),
            Ended::Failed(error) => Err(error),
            Ended::NeedsAll => unreachable!("it is alone"),
        }
    }

    /// Locks the shards of the declared keys. False if that is not enough, because somebody waits for one of them.
    ///
    /// # Errors
    /// The gate is closed, or a shard is busy.
    fn hold_declared(&mut self, called: Called<'_>) -> Result<bool, crate::keyspace::Busy> {
        let keyspace = &self.server.keyspace;
        let keys = called.args.from(3).take(called.keys_count);
        let mut shards: SmallVec<[u16; 8]> = keys.map(|key| shard_of(keyspace.seed().hash(key))).collect();
        self.enter()?;
        let held = Held::try_several(keyspace, &mut shards, self.patience)?;
        // Whoever pushes to a key with waiters serves them, alone.
        let is_enough = !held.is_waited_for();
        self.held = Some(held).filter(|_| is_enough);
        Ok(is_enough)
    }

    /// Whether a script that has the shards of its keys may run beside others. A function must be one that is still
    /// there, and depend on no state that calls before it have left.
    fn may_run_aside(&self, script: &Script) -> bool {
        let Some((library, _)) = &script.function else { return true };
        let is_there =
            |libraries: &Libraries| libraries.get(&library.name).is_some_and(|one| Arc::ptr_eq(one, library));
        !script.runs_alone() && !self.server.functions.is_altered() && is_there(&self.server.keyspace.libraries())
    }

    /// The function that has this name now, if it is another one than that which was found before.
    fn found_again(&self, script: &Script) -> Result<Option<Arc<Script>>, CommandError> {
        let Some((library, at)) = &script.function else { return Ok(None) };
        let name = library.functions.get(*at).map_or(&b""[..], |function| &function.name);
        let libraries = self.server.keyspace.libraries();
        let (now, at) = libraries.function(name).ok_or(CommandError::Text("ERR Function not found"))?;
        Ok((!Arc::ptr_eq(now, library)).then(|| Arc::new(Script::of_function(now, at))))
    }

    /// The script that a call names or brings, or the function that it names.
    fn find_script(&mut self, form: ScriptForm, args: Args<'_>) -> Result<Arc<Script>, CommandError> {
        let scripts = &self.server.scripts;
        match form {
            ScriptForm::Function | ScriptForm::FunctionRo => {
                let libraries = self.server.keyspace.libraries();
                let found = libraries.function(args.at(1)).ok_or(CommandError::Text("ERR Function not found"))?;
                Ok(Arc::new(Script::of_function(found.0, found.1)))
            }
            ScriptForm::EvalSha | ScriptForm::EvalShaRo => {
                let (name, generation) = (args.at(1), scripts.generation());
                if let Some(script) = self.fibers.recent(name, generation) {
                    return Ok(script);
                }
                let script = Sha::parse(name).and_then(|sha| scripts.get(&sha));
                let script = script.ok_or(CommandError::Text("NOSCRIPT No matching script. Please use EVAL."))?;
                self.fibers.note_recent(name, generation, &script);
                Ok(script)
            }
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

    /// Whether the script or function of a call says that it does not write. One that is not found may do anything.
    #[cold]
    pub(super) fn says_no_writes(&self, form: ScriptForm, args: Args<'_>) -> bool {
        let flags = match form {
            ScriptForm::Eval | ScriptForm::EvalRo => source::read(args.at(1)).ok(),
            ScriptForm::EvalSha | ScriptForm::EvalShaRo => {
                Sha::parse(args.at(1)).and_then(|sha| self.server.scripts.get(&sha)).map(|script| script.flags)
            }
            ScriptForm::Function | ScriptForm::FunctionRo => {
                let libraries = self.server.keyspace.libraries();
                libraries.function(args.at(1)).map(|(library, at)| library.functions[at].flags)
            }
        };
        flags.is_some_and(|flags| flags.no_writes)
    }

    /// Checks what a script says about itself before it runs.
    fn check_script(&self, script: &Script, read_only: bool) -> Result<(), CommandError> {
        let flags = script.flags;
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
            // One that may run without memory frees something.
            self.server.check_disk(if flags.allow_oom { WRITE } else { WRITE.or(DENYOOM) })?;
            if self.lacks_replicas {
                return Err(CommandError::Text("NOREPLICAS Not enough good replicas to write."));
            }
        }
        if self.is_over_memory() && !flags.no_writes && !flags.allow_oom {
            if script.function.is_some() {
                return Err(CommandError::OutOfMemory);
            }
            return Err(CommandError::Text(
                "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
            ));
        }
        Ok(())
    }

    fn is_over_memory(&self) -> bool {
        self.maxmemory > 0 && alloc::used_memory() as u64 > self.maxmemory
    }

    /// The memory that a machine may take, in bytes.
    pub(super) fn memory_of_scripts(&self) -> usize {
        memory_of_scripts(self.script_rules.memory_max, self.maxmemory)
    }

    /// Runs a script with what is held, in the transaction's unit or in one of its own.
    pub(super) fn run_script(
        &mut self,
        called: Called<'_>,
        entry: &CommandEntry,
        pausing: Pausing<'_>,
        client: &mut Client,
        out: &mut Output,
    ) -> Ended {
        let (server, script) = (self.server, called.script);
        let ScriptRules { rollback, busy_after_ms, .. } = self.script_rules;
        let (in_exec, is_alone) = (client.in_exec, self.held.is_none());
        if !in_exec {
            // One that is not alone may have to be run again.
            self.unit.begin_spanning(self.wants(), !is_alone || rollback != ScriptRollback::No);
        }
        // A transaction that has a script in it can be rolled back to any point.
        let savepoint = self.unit.is_held_whole().then(|| self.unit.savepoint());
        pausing.me.begin();
        let before = Before::of(client);
        let shown = self.lines.len();
        if self.hooks.has(Hook::Monitor) {
            monitor::note_exec(server, &mut self.lines, called.args, client);
        }
        (client.in_exec, client.in_script, client.reply_mode) = (true, true, ReplyMode::On);
        let facts = self.facts;
        if !is_alone {
            self.begin_tally();
        }
        let memory_max = self.memory_of_scripts();
        let is_firm = rollback == ScriptRollback::No;
        let over_memory = self.is_over_memory() && !script.flags.allow_oom;
        let mut host = ScriptHost::new(self, client, called, pausing);
        (host.is_firm, host.over_memory, host.busy_after_ms) = (is_firm, over_memory, busy_after_ms);
        let ran =
            catch_unwind(AssertUnwindSafe(|| called.run(server, is_alone, (before.resp, memory_max), &mut host, out)));
        let mut left = host.leave();
        let killed = pausing.me.is_killed() || left.was_ended;
        before.restore(client);
        (client.in_exec, client.in_script) = (in_exec, false);
        self.facts = facts;
        let why = match ran {
            _ if left.needs_all => Some(Why::NeedsAll),
            Ok((Ok(()), true)) => Some(Why::NeedsAll),
            Ok((Err(_), true)) if !killed => Some(Why::NeedsAll),
            Ok((Ok(()), false)) => None,
            Ok((Err(failure), _)) => Some(Why::Failed(error_of(failure, script, killed))),
            Err(panic) => Some(Why::Failed(internal_error(entry, Remains::Unknown, &*panic))),
        };
        let takes_back = match why {
            None => false,
            Some(Why::NeedsAll) => true,
            Some(Why::Failed(_)) => killed && !is_firm || rollback == ScriptRollback::OnError,
        };
        if let Some(savepoint) = savepoint.filter(|_| takes_back) {
            let held = match &mut self.held {
                Some(held) => held.lend_all(),
                None => Held::on_demand(&server.keyspace),
            };
            Db::new(held, self.unit, self.scratch, client.db, &self.facts).roll_back_to(savepoint);
            left.ready.clear();
        }
        if matches!(why, Some(Why::NeedsAll)) {
            self.drop_tally();
            self.lines.truncate(shown);
            self.unit.end_spanning(self.scratch);
            self.retire();
            return Ended::NeedsAll;
        }
        self.count_tally();
        left.log_lines();
        if why.is_none() {
            left.errors.iter().for_each(|error| server.count_error(error, true));
            self.stats.commands[entry.index].failed.add_alone(u64::from(left.has_failed));
        }
        match in_exec {
            true => self.script_ready.append(&mut left.ready),
            false => self.end_unit(left.ready, client),
        }
        match why {
            Some(Why::Failed(error)) => Ended::Failed(error),
            _ => Ended::Well,
        }
    }
}

impl Called<'_> {
    /// Runs the script, or the function, in its machine. Returns also whether a function that is not alone must be,
    /// for the sake of the state that its library keeps.
    fn run(
        self,
        server: &Server,
        is_alone: bool,
        (resp, memory_max): (Resp, usize),
        host: &mut dyn Host,
        out: &mut Output,
    ) -> (Result<(), Failure>, bool) {
        let Called { script, args, keys_count, .. } = self;
        match &script.function {
            None => {
                let run = Run { script, args, keys_at: 3, keys_count, resp, memory_max };
                (with_vm(server.scripts.generation(), |vm| vm.run(run, host, out)).and_then(|ran| ran), false)
            }
            Some((library, at)) => {
                let call = FunctionCall { library, at: *at, args, keys: 3..3 + keys_count, resp };
                if !is_alone {
                    let called = call_aside(&server.keyspace.libraries(), memory_max, call, host, out);
                    return called.unwrap_or_else(|failure| (Err(failure), false));
                }
                let ran = with_machine(&server.functions, memory_max, |machine| {
                    let ran = machine.call(call, host, out);
                    machine.note_state(library);
                    if machine.is_altered() {
                        server.functions.note_altered();
                    }
                    ran
                });
                (ran.and_then(|ran| ran), false)
            }
        }
    }

    /// What FUNCTION STATS shows of it, if it is a call of a function.
    pub(super) fn function_call(self) -> Option<scripts::FunctionCall> {
        self.script.function.as_ref()?;
        let words = self.args.from(0).map(Box::from).collect();
        Some(scripts::FunctionCall { name: self.script.name().into_owned(), words })
    }
}

/// The memory that a machine of a worker, or that of functions, may take, in bytes: what is configured, or for 0 a
/// quarter of `maxmemory`, within bounds.
pub fn memory_of_scripts(configured: usize, maxmemory: u64) -> usize {
    if configured > 0 {
        return configured;
    }
    const LEAST: u64 = 16 << 20;
    const MOST: u64 = 512 << 20;
    let quarter = if maxmemory == 0 { MOST } else { maxmemory / 4 };
    quarter.clamp(LEAST, MOST) as usize
}

/// The number of keys that a call says it has.
fn count_of_keys(args: Args<'_>, is_function: bool) -> Result<usize, CommandError> {
    let count = args::integer(args.at(2)).map_err(|error| match is_function {
        true => CommandError::Text("ERR Bad number of keys provided"),
        false => error,
    })?;
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
    let script = Arc::new(Script::new(sha, body.into(), source::read(body)?));
    match with_vm(generation, |vm| vm.prepare(&script)).and_then(|prepared| prepared) {
        Ok(()) => Ok(script),
        Err(Failure::Compile(text) | Failure::Error(text) | Failure::OfCommand(text)) => Err(CommandError::Echo(text)),
        Err(Failure::Engine(text)) => Err(CommandError::err(text)),
    }
}

fn error_of(failure: Failure, script: &Script, killed: bool) -> CommandError {
    match failure {
        Failure::Compile(text) | Failure::Error(text) => CommandError::Echo(text),
        Failure::OfCommand(text) => CommandError::Counted(text),
        Failure::Engine(text) => {
            if !killed {
                logging::warning(format_args!("A script failed in the engine: {text}"));
            }
            CommandError::Message(format!("ERR {text} script: {}", script.name()))
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

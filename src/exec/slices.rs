//! Runs scripts, and transactions with scripts in them, in fibers, by time slices: what the worker does, and what the
//! executor of a fiber does.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Executor;
use super::changes::tell_reader;
use super::data::find_keys;
use super::facts::{facts_now, limits_of};
use super::fiber::{Fiber, Go, Pausing, Stop, Suspended, Task};
use super::group::Group;
use super::handler::error_reply;
use super::script_host::Called;
use crate::core::call::{HashedKeys, Wait};
use crate::core::client::Client;
use crate::core::{CommandError, Hook, Outcome};
use crate::resp::{Args, Output, Reply};

impl Executor {
    /// Runs a task, inside its fiber.
    fn run_task(&mut self, task: &mut Task, pausing: Pausing<'_>) {
        self.refresh_settings();
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_now(&self.settings, limits, &task.client, task.hooks);
        let patience = task.patience;
        let (mut group, ..) = self.group(facts, patience);
        // What has begun since it was checked is noticed where that is looked at: at the gate.
        group.hooks = task.hooks;
        pausing.me.forget_pauses();
        std::mem::swap(group.closing, &mut task.closing);
        let outcome = match task.script {
            Some(_) => group.run_task(task, pausing),
            None => group.run_exec(task, pausing),
        };
        std::mem::swap(group.closing, &mut task.closing);
        task.outcome = outcome;
        group.end_task(task, pausing);
    }

    /// The next script that was left in the middle, if there is one.
    pub fn take_suspended(&mut self) -> Option<Suspended> {
        (!self.fibers.suspended.is_empty()).then(|| self.fibers.suspended.remove(0))
    }

    /// Whether a script was left in the middle.
    #[inline]
    pub fn has_suspended(&self) -> bool {
        !self.fibers.suspended.is_empty()
    }

    /// Takes a script back after a time slice, which has ended or goes on later.
    pub fn after_slice(&mut self, mut suspended: Suspended) {
        let Some(mut task) = suspended.ended.take() else { return self.fibers.suspended.push(suspended) };
        let mut out = std::mem::take(&mut task.out);
        if let Err(error) = &task.outcome {
            out = Output::new();
            error_reply(&self.server, error, &mut out);
        }
        let block = task.client.last_write_block;
        // The connection may be gone.
        let _ = suspended.answer.send((out, (block > 0).then_some(block)));
        self.fibers.give_back(suspended.fiber, task);
    }
}

impl<'g> Group<'g> {
    /// Runs a script in a fiber.
    pub(super) fn script_in_fiber(&mut self, called: Called<'_>, client: &mut Client, out: &mut Output) -> Outcome {
        let (fiber, mut task) = self.idle_fiber(client)?;
        if !task.script.as_ref().is_some_and(|script| Arc::ptr_eq(script, called.script)) {
            task.script = Some(Arc::clone(called.script));
        }
        task.args.set(called.args);
        (task.keys_count, task.read_only) = (called.keys_count, called.read_only);
        self.in_fiber(fiber, task, client, out)
    }

    /// Runs a transaction in a fiber, because a script is in it.
    pub(super) fn exec_in_fiber(&mut self, args: Args<'_>, client: &mut Client, out: &mut Output) -> Outcome {
        let (fiber, mut task) = match self.idle_fiber(client) {
            Ok(idle) => idle,
            Err(error) => {
                client.end_transaction();
                client.unwatch(&self.server.keyspace);
                return Err(error);
            }
        };
        task.script = None;
        task.args.set(args);
        self.in_fiber(fiber, task, client, out)
    }

    fn idle_fiber(&mut self, client: &Client) -> Result<(Fiber, Box<Task>), CommandError> {
        if let Some(idle) = self.fibers.idle.pop() {
            return Ok(idle);
        }
        // In a box: what a fiber begins with must be small.
        let mut executor = Box::new(Executor::new(Arc::clone(self.server), self.worker));
        let fiber = Fiber::new(move |task, pausing| executor.run_task(task, pausing));
        let no_stack = |error| CommandError::err(format_args!("there is no stack for the script: {error}"));
        Ok((fiber.map_err(no_stack)?, Box::new(Task::new(client))))
    }

    /// Runs a task in a fiber. If it takes longer than a time slice, the connection waits for it.
    fn in_fiber(&mut self, mut fiber: Fiber, mut task: Box<Task>, client: &mut Client, out: &mut Output) -> Outcome {
        // The executor of the fiber enters the gate by itself.
        self.inside = None;
        let is_exec = task.script.is_none();
        task.client.act_for(client);
        if is_exec {
            std::mem::swap(&mut task.client, client);
            task.began = Instant::now();
        }
        (task.patience, task.outcome, task.has_shown) = (self.patience, Ok(()), false);
        task.hooks = self.hooks;
        std::mem::swap(self.closing, &mut task.closing);
        match fiber.resume(Go::Run(task)) {
            Stop::Slice { waits, lent } => {
                if let Some(lent) = lent {
                    *client = *lent;
                    // It shows its EXEC when it has run.
                    self.has_shown_exec = self.hooks.has(Hook::Monitor);
                }
                let (answer, done) = oneshot::channel();
                client.wait = Some(Wait::Script(done));
                let lender = is_exec.then_some(client.record.id);
                self.fibers.suspended.push(Suspended { fiber, answer, lender, waits, ended: None });
                Ok(Reply::new(out, client.resp).withheld())
            }
            Stop::Done(mut task) => {
                std::mem::swap(self.closing, &mut task.closing);
                out.append(&mut task.out);
                if is_exec {
                    std::mem::swap(&mut task.client, client);
                    self.has_shown_exec = task.has_shown;
                } else if task.client.last_write_block > 0 {
                    client.last_write_block = task.client.last_write_block;
                }
                let outcome = std::mem::replace(&mut task.outcome, Ok(()));
                self.fibers.give_back(fiber, task);
                outcome.map(|()| Reply::new(out, client.resp).withheld())
            }
        }
    }

    /// Runs the transaction of a task in its fiber.
    ///
    /// # Errors
    /// Those of [`Group::exec`].
    fn run_exec(&mut self, task: &mut Task, pausing: Pausing<'g>) -> Result<(), CommandError> {
        let Task { args, client, out, .. } = task;
        let (args, begin, mut keys) = (args.args(), out.mark(), HashedKeys::default());
        let entry = self.server.table.resolve(args)?;
        find_keys(&self.server.keyspace, entry, args, &mut keys);
        self.pausing = Some(pausing);
        let outcome = self.exec(args, &keys, client, out);
        self.pausing = None;
        self.begin_deferred(begin, client, out);
        if client.aborted {
            client.unsubscribe_some(self.server, usize::MAX);
            self.server.end_tracking(&client.record);
        }
        task.has_shown = std::mem::take(&mut self.has_shown_exec);
        outcome.map(|_done| ())
    }

    /// Ends what the group of a fiber has begun for a task.
    fn end_task(&mut self, task: &mut Task, pausing: Pausing<'_>) {
        (self.held, self.staying, self.inside, self.closed) = (None, None, None, None);
        self.serve_vanished();
        self.add_up();
        match task.outcome {
            Err(_) => task.out.clear(),
            Ok(()) if self.unit.untold.changes.is_empty() => {}
            // Behind the reply.
            Ok(()) => tell_reader(self.server, &mut self.unit.untold, &mut task.client, &mut task.out),
        }
        self.tell_readers();
        if pausing.me.has_paused()
            && let Ok(entry) = self.server.table.resolve(task.args.args())
        {
            let took = match task.script {
                Some(_) => pausing.me.running_us().saturating_mul(1000),
                None => task.began.elapsed().as_nanos() as u64,
            };
            self.count_time(entry, 1, took);
            self.note_time(entry, task.args.args(), took, &task.client);
            if task.outcome.is_err() {
                self.stats.commands[entry.index].failed.add_alone(1);
            }
        }
    }
}

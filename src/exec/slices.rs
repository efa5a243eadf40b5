//! Runs scripts in fibers, by time slices: what the worker does, and what the executor of a fiber does.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Executor;
use super::changes::tell_reader;
use super::facts::{facts_now, limits_of};
use super::fiber::{Fiber, Go, Pausing, Stop, Suspended, Task};
use super::group::Group;
use super::handler::error_reply;
use super::script_host::Called;
use crate::core::call::Wait;
use crate::core::client::Client;
use crate::core::{CommandError, Outcome};
use crate::resp::{Output, Reply};

impl Executor {
    /// Runs the script of a task, inside its fiber.
    fn run_task(&mut self, task: &mut Task, pausing: Pausing<'_>) {
        self.refresh_settings();
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_now(&self.settings, limits, &task.client, self.server.hooks.load());
        let patience = task.patience;
        let (mut group, ..) = self.group(facts, patience);
        pausing.me.forget_pauses();
        std::mem::swap(group.closing, &mut task.closing);
        let outcome = group.run_task(task, pausing);
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

impl Group<'_> {
    /// Runs a script in a fiber. If it takes longer than a time slice, the connection waits for it.
    pub(super) fn in_fiber(&mut self, called: Called<'_>, client: &mut Client, out: &mut Output) -> Outcome {
        // The executor of the fiber enters the gate by itself.
        self.inside = None;
        let (mut fiber, mut task) = match self.fibers.idle.pop() {
            Some(idle) => idle,
            None => {
                // In a box: what a fiber begins with must be small.
                let mut executor = Box::new(Executor::new(Arc::clone(self.server), self.worker));
                let fiber = Fiber::new(move |task, pausing| executor.run_task(task, pausing));
                let no_stack = |error| CommandError::err(format_args!("there is no stack for the script: {error}"));
                let fiber = fiber.map_err(no_stack)?;
                (fiber, Box::new(Task::new(called.script, client)))
            }
        };
        if !Arc::ptr_eq(&task.script, called.script) {
            task.script = Arc::clone(called.script);
        }
        task.args.set(called.args);
        (task.keys_count, task.read_only) = (called.keys_count, called.read_only);
        task.client.act_for(client);
        (task.patience, task.outcome) = (self.patience, Ok(()));
        std::mem::swap(self.closing, &mut task.closing);
        match fiber.resume(Go::Run(task)) {
            Stop::Slice { waits } => {
                let (answer, done) = oneshot::channel();
                client.wait = Some(Wait::Script(done));
                self.fibers.suspended.push(Suspended { fiber, answer, waits, ended: None });
                Ok(Reply::new(out, client.resp).withheld())
            }
            Stop::Done(mut task) => {
                std::mem::swap(self.closing, &mut task.closing);
                out.append(&mut task.out);
                if task.client.last_write_block > 0 {
                    client.last_write_block = task.client.last_write_block;
                }
                let outcome = std::mem::replace(&mut task.outcome, Ok(()));
                self.fibers.give_back(fiber, task);
                outcome.map(|()| Reply::new(out, client.resp).withheld())
            }
        }
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
            let took = pausing.me.running_us().saturating_mul(1000);
            self.count_time(entry, 1, took);
            self.note_time(entry, task.args.args(), took, &task.client);
            if task.outcome.is_err() {
                self.stats.commands[entry.index].failed.add_alone(1);
            }
        }
    }
}

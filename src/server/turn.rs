//! One turn of a worker: execute what has arrived, flush the log, send all replies.
//!
//! ```text
//! connections' tasks ─ little that arrived ─▶ staged ─┐
//!                    ─ much, or a rest ─▶ executed ─┐ │ at the end of the turn, together
//!                                                   ▼ ▼
//!                       replies ─▶ outboxes ─▶ the flush list ─▶ one write to the log ─▶ one write to each socket
//! ```
//!
//! Connections that were executed in one turn of the event loop are flushed together. Short inputs are executed
//! together, too, so that their cache misses overlap.
//!
//! Invariants:
//! - Under `appendfsync always`, a reply or a push leaves once the block that covers everything that it may show is
//!   synced; under the other policies, once that block is written to the file.
//! - If the log fails, a connection whose own change is not in it is closed without its replies, because the fate of
//!   that change is unknown. All others are served: reads continue, writes are refused.
//! - After a panic here, the next group of commands begins without anything of the last one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Notify;
use zeroize::Zeroize;

use super::connection::state::State;
use super::connection::{Connection, UNAUTHENTICATED_UNSENT_MAX_BYTES, UNSENT_MAX_BYTES};
use super::worker::Worker;
use crate::base::logging;
use crate::core::Client;
use crate::core::client::ReplyMode;
use crate::core::message::Needs;
use crate::events::invalidation::Invalidation;
use crate::exec::{GROUP_MAX, Ran};
use crate::persist::FsyncPolicy;
use crate::resp::request::{Progress, ProtocolError, RequestLimits};
use crate::resp::{Args, Output, Request, Resp};

/// The most bytes executed before other connections get their turn,
const EXECUTED_PER_TURN_BYTES: usize = 64 * 1024;
/// and about the longest time. A small command may have a large reply.
const EXECUTED_PER_TURN: Duration = Duration::from_millis(1);
/// An input of at most this many bytes is executed together with those of other connections.
const STAGED_MAX_BYTES: usize = 512;
/// To how many connections output is sent before others get their turn. A message may have thousands of receivers.
const RELEASED_PER_TURN: usize = 1024;
/// How many output buffers are kept for reuse.
const SPARE_OUTPUTS_MAX: usize = 64;

/// What a worker gathers in a turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// Inputs of connections, to be executed together.
    staged: RefCell<Staged>,
    /// When the first of them was read.
    staged_at: Cell<Option<Instant>>,
    /// Whether they are being executed right now.
    is_executing_staged: Cell<bool>,
    /// The commands of the group being executed.
    decoded: RefCell<Decoded>,
    /// Connections with replies that wait for the log.
    flush_list: RefCell<Vec<Rc<Connection>>>,
    /// Tells the flusher that there is something to execute or to flush.
    is_wanted: Notify,
    spare_outputs: RefCell<Vec<Output>>,
}

/// Short batches of commands from several connections.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    /// Each connection with the end of its part of `bytes`.
    connections: Vec<(Rc<Connection>, usize)>,
}

impl Drop for Staged {
    /// After a panic, nothing else would ever answer the waiting connections.
    fn drop(&mut self) {
        self.connections.iter().for_each(|(connection, _)| connection.close());
    }
}

/// The decoded commands of a group. The next group reuses the memory.
#[derive(Debug)]
struct Decoded {
    requests: Vec<Request>,
    /// Whether a group has begun and not ended.
    is_in_use: bool,
}

impl Default for Decoded {
    fn default() -> Self {
        Decoded { requests: (0..GROUP_MAX).map(|_| Request::new()).collect(), is_in_use: false }
    }
}

impl Decoded {
    /// Begins an empty group, even if a panic has kept the last one from ending.
    fn begin(&mut self) -> &mut [Request] {
        if std::mem::replace(&mut self.is_in_use, true) {
            self.requests.iter_mut().for_each(Request::reset);
        }
        &mut self.requests
    }

    /// Ends a group, whose requests are reset.
    fn end(&mut self) {
        self.is_in_use = false;
    }
}

impl Turn {
    /// An output buffer for a connection.
    fn take_output(&self) -> Output {
        self.spare_outputs.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives an output buffer back.
    pub fn return_output(&self, mut output: Output) {
        output.clear();
        let mut spare = self.spare_outputs.borrow_mut();
        if spare.len() < SPARE_OUTPUTS_MAX {
            spare.push(output);
        }
    }

    /// Stages the input of a connection until the end of the turn.
    fn stage(&self, connection: &Rc<Connection>, bytes: &[u8]) {
        let mut staged = self.staged.borrow_mut();
        if staged.connections.is_empty() {
            self.is_wanted.notify_one();
        }
        staged.bytes.extend_from_slice(bytes);
        let end = staged.bytes.len();
        staged.connections.push((Rc::clone(connection), end));
    }

    /// Puts a connection on the list of those with replies to send.
    pub fn want_flush(&self, connection: &Rc<Connection>) {
        let mut list = self.flush_list.borrow_mut();
        // The flusher itself, while it executes staged input, need not be told.
        if list.is_empty() && !self.is_executing_staged.get() {
            self.is_wanted.notify_one();
        }
        list.push(Rc::clone(connection));
    }

    /// Wakes the flusher to check for work.
    pub fn want(&self) {
        self.is_wanted.notify_one();
    }
}

impl Connection {
    /// Stages a short input, to be executed together with those of other connections in this turn of the event loop.
    /// Returns whether it did.
    pub(super) fn stage(self: &Rc<Self>, worker: &Worker, arrived: usize) -> bool {
        if arrived > STAGED_MAX_BYTES || !self.inbox.borrow().received.is_empty() {
            return false;
        }
        self.enter(State::Staged);
        if worker.executor.borrow().settings().latency_tracking {
            // One reading of the clock serves all that is staged in a turn.
            let at = worker.turn.staged_at.get().unwrap_or_else(Instant::now);
            worker.turn.staged_at.set(Some(at));
            self.client.borrow_mut().served.note_read(at);
        }
        worker.turn.stage(self, &worker.read_buffer.borrow()[..arrived]);
        true
    }

    /// Executes what was staged.
    fn execute_staged(self: &Rc<Self>, worker: &Worker, bytes: &[u8]) {
        if self.state() == (State::Over { abandoned: false }) {
            return;
        }
        self.execute_new(worker, bytes);
        self.settle(worker);
        // A task without work sleeps on: the next bytes, or the release of the replies, will wake it.
        let is_busy = self.is_held() && !matches!(self.state(), State::Waiting | State::Over { .. });
        if !is_busy {
            self.wake();
        }
    }

    /// Executes everything complete, from the earlier incomplete command and from the arrived bytes.
    pub(super) fn execute_arrived(self: &Rc<Self>, worker: &Worker, arrived: usize) {
        self.client.borrow_mut().served.note_read_now();
        let shared = worker.read_buffer.borrow();
        let arrived = &shared[..arrived];
        if self.inbox.borrow().received.is_empty() {
            self.execute_new(worker, arrived);
        } else {
            self.keep_arrived(arrived);
            drop(shared);
            // Also a command that is complete now may be too large.
            self.note_received(worker);
            if !self.state().is_over() {
                self.execute_received(worker);
            }
        }
        self.settle(worker);
    }

    /// Executes more of the input received earlier.
    pub(super) fn execute_unexecuted(self: &Rc<Self>, worker: &Worker) {
        self.execute_received(worker);
        self.settle(worker);
    }

    /// Tries the parked command again. [`Connection::parked`] tells whether it ran.
    pub fn execute_parked(self: &Rc<Self>, worker: &Worker) {
        if self.state().is_over() {
            return;
        }
        self.execute_received(worker);
        self.queue_replies(worker);
        if self.parked().is_none() {
            self.wake();
        }
    }

    /// Ends an execution: its replies may leave, and the rest of the input waits.
    fn settle(self: &Rc<Self>, worker: &Worker) {
        self.queue_replies(worker);
        if let Some(busy) = self.parked() {
            worker.parking.park(self, busy);
        }
    }

    /// Executes arrived bytes while nothing is pending, and keeps the rest.
    fn execute_new(&self, worker: &Worker, bytes: &[u8]) {
        let mut inbox = self.inbox.borrow_mut();
        let (consumed, next) = self.execute(worker, bytes, &mut inbox.decoding);
        if consumed < bytes.len() {
            inbox.received.extend(&bytes[consumed..], 0);
        }
        drop(inbox);
        if std::mem::take(&mut self.client.borrow_mut().said_secret) {
            worker.holds_secret.set(true);
        }
        self.enter(next);
        self.note_received(worker);
    }

    /// Executes the received input, up to the limit of a turn. Returns the next state, unless the connection is over.
    pub(super) fn execute_received(&self, worker: &Worker) -> State {
        let (next, spent) = {
            let inbox = &mut *self.inbox.borrow_mut();
            let (consumed, next) = self.execute(worker, inbox.received.as_slice(), &mut inbox.decoding);
            let is_secret = std::mem::take(&mut self.client.borrow_mut().said_secret);
            (next, inbox.received.consume(consumed, is_secret))
        };
        if let Some(buffer) = spent {
            worker.free_later(buffer);
        }
        self.enter(next);
        self.note_received(worker);
        next
    }

    /// Executes the complete commands at the beginning of `bytes`. Returns how many bytes they took, and the next
    /// state. `decoding` holds the decoding progress of the first command, and afterwards that of the last.
    fn execute(&self, worker: &Worker, bytes: &[u8], decoding: &mut Request) -> (usize, State) {
        let _ending = EndOnPanic(self);
        let log = worker.server.store.log();
        let failure = log.is_poisoned().then(|| log.failure()).flatten();
        let outcome = self.execute_complete(worker, bytes, decoding);
        self.outbox.borrow_mut().writes_refused = failure.is_some() && failure == log.failure();
        outcome
    }

    fn execute_complete(&self, worker: &Worker, bytes: &[u8], decoding: &mut Request) -> (usize, State) {
        let mut client = self.client.borrow_mut();
        let mut outbox = self.outbox.borrow_mut();
        if outbox.output.capacity() == 0 && outbox.output.is_empty() {
            outbox.output = worker.turn.take_output();
        }
        let mut executor = worker.executor.borrow_mut();
        let mut group = worker.turn.decoded.borrow_mut();
        let requests = group.begin();
        if decoding.has_begun() {
            requests[0] = std::mem::take(decoding);
        }
        // When the first group of several was over.
        let mut began: Option<Instant> = None;
        let (mut consumed, mut next) = (0, State::Idle);
        loop {
            if self.record.killed.load(Relaxed) {
                (consumed, next) = (bytes.len(), State::Over { abandoned: false });
                requests.iter_mut().for_each(Request::reset);
                break;
            }
            executor.refresh_settings();
            let limits = client.limits(executor.settings().proto_max_bulk_len);
            // Before authentication, one command may change what the next one may be.
            let (most, unsent_max) = match client.user {
                Some(_) => (GROUP_MAX, UNSENT_MAX_BYTES),
                None => (1, UNAUTHENTICATED_UNSENT_MAX_BYTES),
            };
            let mut begins = [0; GROUP_MAX];
            let (decoded, at, error) = decode_group(&mut requests[..most], bytes, consumed, limits, &mut begins);
            let mut calls = [Args::NONE; GROUP_MAX];
            for ((call, request), &begin) in calls.iter_mut().zip(requests.iter()).zip(&begins[..decoded]) {
                *call = request.args(&bytes[begin..]);
            }
            let Ran { executed, parked } = match decoded {
                0 => Ran { executed: 0, parked: None },
                _ => executor.run(&mut client, &calls[..decoded], &mut outbox.output, worker.parking.patience()),
            };
            if executor.has_suspended() {
                worker.scripts_wanted.notify_one();
            }
            consumed = if executed < decoded { begins[executed] } else { at };
            if client.wait.is_some() || client.closing || parked.is_some() {
                next = match parked {
                    Some(busy) => State::Parked(busy),
                    None if client.closing => State::Closing,
                    None => State::Waiting,
                };
                requests.iter_mut().for_each(Request::reset);
                break;
            }
            if let Some(mistake) = error {
                if client.reply_mode == ReplyMode::On {
                    outbox.output.error_bytes(&mistake.wire());
                }
                (client.closing, next) = (true, State::Closing);
                consumed = bytes.len();
                requests.iter_mut().for_each(Request::reset);
                break;
            }
            requests[..decoded].iter_mut().for_each(Request::reset);
            if decoded == most && consumed < bytes.len() {
                let is_late = began.get_or_insert_with(Instant::now).elapsed() >= EXECUTED_PER_TURN;
                if is_late || consumed >= EXECUTED_PER_TURN_BYTES || outbox.unsent() > unsent_max {
                    next = State::Unexecuted;
                    break;
                }
            }
            if decoded < most {
                // An incomplete command continues where it stopped, once more has arrived.
                if requests[decoded].has_begun() {
                    *decoding = std::mem::take(&mut requests[decoded]);
                }
                break;
            }
        }
        group.end();
        (consumed, next)
    }

    /// Queues the replies to be sent when the log allows it.
    pub(super) fn queue_replies(self: &Rc<Self>, worker: &Worker) {
        if self.client.borrow().aborted {
            return self.discard();
        }
        let mut outbox = self.outbox.borrow_mut();
        if outbox.output.is_empty() {
            worker.turn.return_output(outbox.take_empty());
            drop(outbox);
            self.client.borrow_mut().served.forget();
            if self.state() == State::Closing {
                self.enter(State::Over { abandoned: false });
            }
            return;
        }
        let shown = std::mem::take(&mut self.client.borrow_mut().shown);
        // A failed log must not hold back reads, nor the errors that answer writes.
        let needs = if outbox.writes_refused { 0 } else { worker.server.store.journal().position() };
        drop(outbox);
        self.hold(worker, needs, shown);
    }

    /// Lets the flusher send the output once this block of the log is safe, and what else it needs.
    fn hold(self: &Rc<Self>, worker: &Worker, block: u64, more: impl IntoIterator<Item = Needs>) {
        let is_new = {
            let mut outbox = self.outbox.borrow_mut();
            let is_new = outbox.hold(block);
            more.into_iter().for_each(|needs| outbox.hold_for(needs));
            outbox.note_unsent(&self.record);
            is_new
        };
        if is_new {
            worker.turn.want_flush(self);
        }
        if self.is_over_output_limit(worker) {
            self.end_over_output_limit(worker);
        }
    }

    /// Sends a push, behind the earlier output, once what it needs is safe. `number` is that of the letter that brings
    /// it; a client that has read the letter by itself receives nothing.
    pub fn push(self: &Rc<Self>, worker: &Worker, number: u64, needs: &Needs, write: impl FnOnce(Resp, &mut Output)) {
        if self.state().is_over() || self.state() == State::Closing {
            return;
        }
        let resp = {
            let mut client = self.client.borrow_mut();
            if number < client.mail_seen {
                return;
            }
            let resp = client.resp;
            if !client.late.is_empty() {
                // Behind what waits for the end of its transaction.
                write(resp, &mut client.late);
                client.shown.push(needs.clone());
                if client.late.len() > UNSENT_MAX_BYTES {
                    drop(client);
                    self.end_over_output_limit(worker);
                }
                return;
            }
            resp
        };
        {
            let mut outbox = self.outbox.borrow_mut();
            if outbox.output.capacity() == 0 && outbox.output.is_empty() {
                outbox.output = worker.turn.take_output();
            }
            write(resp, &mut outbox.output);
        }
        match needs {
            Needs::Block(block) => self.hold(worker, *block, []),
            Needs::Later(_) => self.hold(worker, 0, [needs.clone()]),
        }
    }
}

/// Decodes one command into each request, from `at` on, and notes where each begins. Returns how many are complete,
/// where the rest begins, and what is wrong with it.
fn decode_group(
    requests: &mut [Request],
    bytes: &[u8],
    mut at: usize,
    limits: RequestLimits,
    begins: &mut [usize],
) -> (usize, usize, Option<ProtocolError>) {
    let mut decoded = 0;
    while decoded < requests.len() {
        match requests[decoded].decode(&bytes[at..], limits) {
            Ok(Progress::Complete(taken)) => {
                // An empty line or array is not a command.
                if requests[decoded].args(bytes).is_empty() {
                    requests[decoded].reset();
                } else {
                    begins[decoded] = at;
                    decoded += 1;
                }
                at += taken;
            }
            Ok(Progress::Incomplete) => break,
            Err(mistake) => return (decoded, at, Some(mistake)),
        }
    }
    (decoded, at, None)
}

impl Connection {
    /// Tells it that keys have changed, if it still wants to know.
    pub fn invalidate(self: &Rc<Self>, worker: &Worker, number: u64, it: &Invalidation) {
        self.write(worker, number, it.block, |client, out| client.invalidate(&worker.server, it, out));
    }

    /// Has `write` write something behind the earlier output, which leaves once this block of the log is safe. `write`
    /// returns whether it did. `number` is that of the letter that asks for it, as in [`Connection::push`].
    pub fn write(
        self: &Rc<Self>,
        worker: &Worker,
        number: u64,
        block: u64,
        write: impl FnOnce(&mut Client, &mut Output) -> bool,
    ) {
        if self.state().is_over() || self.state() == State::Closing {
            return;
        }
        let has_written = {
            let mut client = self.client.borrow_mut();
            if number < client.mail_seen {
                return;
            }
            if !client.late.is_empty() {
                let mut late = std::mem::take(&mut client.late);
                if write(&mut client, &mut late) {
                    client.shown.push(Needs::Block(block));
                }
                client.late = late;
                return;
            }
            let mut outbox = self.outbox.borrow_mut();
            if outbox.output.capacity() == 0 && outbox.output.is_empty() {
                outbox.output = worker.turn.take_output();
            }
            write(&mut client, &mut outbox.output)
        };
        if has_written {
            self.hold(worker, block, []);
        }
    }
}

/// Ends a connection whose commands cause a panic: its input would cause it again.
struct EndOnPanic<'a>(&'a Connection);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

/// Executes the staged input group by group: prefetched together, then run one after another.
fn execute_staged(worker: &Worker) {
    worker.turn.staged_at.set(None);
    let mut staged = worker.turn.staged.take();
    if staged.connections.is_empty() {
        return wipe_secrets(worker, &mut Vec::new());
    }
    worker.turn.is_executing_staged.set(true);
    let mut start = 0;
    for group in staged.connections.chunks(GROUP_MAX) {
        let parts: SmallVec<[&[u8]; GROUP_MAX]> =
            group.iter().map(|(_, end)| &staged.bytes[std::mem::replace(&mut start, *end)..*end]).collect();
        if parts.len() > 1 {
            let firsts = group.iter().zip(&parts).map(|((connection, _), part)| (connection.selected_db(), *part));
            worker.executor.borrow_mut().prefetch_firsts(firsts);
        }
        for ((connection, _), part) in group.iter().zip(&parts) {
            connection.execute_staged(worker, part);
        }
    }
    staged.connections.clear();
    wipe_secrets(worker, &mut staged.bytes);
    staged.bytes.clear();
    worker.turn.staged.replace(staged);
    worker.turn.is_executing_staged.set(false);
}

/// Overwrites the buffers of the turn, if a client has sent a secret in it.
fn wipe_secrets(worker: &Worker, staged: &mut Vec<u8>) {
    if worker.holds_secret.take() {
        staged.zeroize();
        worker.read_buffer.borrow_mut().zeroize();
    }
}

/// Connections whose replies wait for the log.
struct Waiting(Vec<Rc<Connection>>);

impl Drop for Waiting {
    /// The flusher has ended, perhaps by a panic. Nothing else would ever answer the waiting connections.
    fn drop(&mut self) {
        self.0.iter().for_each(|connection| connection.discard());
    }
}

/// Ends turns: executes and flushes whenever connections ask for it or the log advances.
pub async fn run(worker: Rc<Worker>) {
    let mut progress = worker.log_progress.clone();
    let (mut waiting, mut counted) = (Waiting(Vec::new()), 0);
    // What an earlier run left behind, if a panic ended it, comes first.
    worker.turn.is_executing_staged.set(false);
    worker.turn.want();
    loop {
        tokio::select! {
            biased;
            () = worker.turn.is_wanted.notified() => {}
            changed = progress.changed(), if !waiting.0.is_empty() => if changed.is_err() { return },
        }
        execute_staged(&worker);
        let stats = &worker.server.workers[worker.index];
        stats.counters.turns.add_alone(1);
        let executed = stats.counters.commands.get();
        if executed != counted {
            // CONFIG RESETSTAT begins at zero again.
            stats.batch_commands.record_alone(executed.checked_sub(counted).unwrap_or(executed), 1);
            counted = executed;
        }
        waiting.0.append(&mut worker.turn.flush_list.borrow_mut());
        if flush(&worker, &mut waiting.0) {
            worker.turn.want();
            tokio::task::yield_now().await;
        }
    }
}

/// Sends what the log allows. Returns whether there is more, for the next turn.
fn flush(worker: &Worker, waiting: &mut Vec<Rc<Connection>>) -> bool {
    let (store, log) = (&worker.server.store, worker.server.store.log());
    if log.policy() == FsyncPolicy::Always && log.is_active() {
        if waiting.iter().any(|connection| connection.needs_block() > log.synced()) {
            log.kick();
        }
    } else {
        // An error poisons the log, and a log that has failed lets nothing pass that it does not hold.
        let _ = log.flush();
    }
    let horizon = store.horizon();
    let allowed = Instant::now();
    let failed = log.is_poisoned();
    let (mut closed, mut released) = (0, 0);
    let mut sent: SmallVec<[Rc<Connection>; GROUP_MAX]> = SmallVec::new();
    waiting.retain(|connection| {
        if connection.needs_block() <= horizon {
            released += 1;
            if released > RELEASED_PER_TURN {
                return true;
            }
            if connection.release(worker, allowed) {
                sent.push(Rc::clone(connection));
            }
            return false;
        }
        if failed && connection.has_unlogged_change(horizon) {
            connection.discard();
            closed += 1;
        } else if failed && connection.release(worker, allowed) {
            sent.push(Rc::clone(connection));
        }
        !failed
    });
    if !sent.is_empty() {
        // One reading of the clock serves all.
        let now = Instant::now();
        sent.iter().for_each(|connection| connection.settle_served(worker, now));
    }
    if closed > 0 {
        let cause = log.poisoned().unwrap_or_default();
        logging::warning(format_args!("{closed} connections close, for the log failed under their commands: {cause}"));
    }
    released > RELEASED_PER_TURN
}

//! One connection: read, execute everything complete, wait for the log, reply.
//!
//! Invariants:
//! - Commands of a connection run in their order, one batch at a time: the next batch is read when the
//!   replies of the last are on their way, so the log holds back a connection and never the reverse.
//! - An idle connection keeps no buffer: reads go to the worker's, only an incomplete command is kept.
//! - Replies that the socket does not take wait in memory, up to `client-output-buffer-limit`. What arrives while
//!   a command waits, or while many replies do, is kept unexecuted, up to `client-query-buffer-limit`: who sends
//!   without end and never reads costs no more than that.
//! - However much there is to execute or to send, the other connections have their turn in between.
//! - What a client has sent is executed though it goes before its turn comes. Only a wait ends with it.
//! - However its task ends, even by a panic, the connection leaves the register and its socket closes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::received::Received;
use super::waits::{Unblock, finished};
use super::worker::Worker;
use crate::base::{clock, logging};
use crate::core::client::{ClientRecord, ReplyMode};
use crate::core::{Client, Server, Wait};
use crate::exec::{GROUP_MAX, PATIENCE, Ran, settle_reply_mode};
use crate::keyspace::Busy;
use crate::resp::request::Progress;
use crate::resp::{Args, Output, Reply, Request};
use crate::server::socket::Stream;

/// How many pieces one write to a socket may have.
const SLICES_MAX: usize = 64;
/// What is executed, and what is sent, before other connections have their turn, in bytes.
const EXECUTED_PER_TURN_BYTES: usize = 64 * 1024;
const SENT_PER_TURN_BYTES: usize = 512 * 1024;
/// What arrives in no more than this is executed together with what others have sent, in bytes.
const STAGED_MAX_BYTES: usize = 512;
/// The most of an incomplete command that waits for the rest in the worker's buffer, in bytes.
const LENT_MAX_BYTES: usize = 4096;
/// While more than this waits to be sent nothing more is executed, in bytes.
const UNSENT_MAX_BYTES: usize = 32 << 20;
/// Sent bytes are dropped from the front of what waits once they are this many, and half of it.
const SENT_KEPT_BYTES: usize = 256 * 1024;

/// A connection, shared by its task and the flusher.
#[derive(Debug)]
pub struct Connection {
    /// What others may read of it.
    pub record: Arc<ClientRecord>,
    stream: RefCell<Stream>,
    client: RefCell<Client>,
    /// Replies, of which `sent` bytes are gone.
    output: RefCell<Output>,
    sent: Cell<usize>,
    /// What was received and not executed: an incomplete command, and how far it is decoded; or, where
    /// `unexecuted` says so, bytes that nobody has looked at.
    received: RefCell<Received>,
    decoding: RefCell<Request>,
    unexecuted: Cell<bool>,
    /// What its next command waits for, if that is a lock: see `parking`.
    parked: Cell<Option<Busy>>,
    /// The block of the log that must be safe before `output` may leave.
    needs_block: Cell<u64>,
    /// Whether the log had failed all the while that the last commands ran: then no write is among them.
    writes_refused: Cell<bool>,
    /// Whether the flusher has it on its list.
    unreleased: Cell<bool>,
    /// Whether what it sent last waits among the commands of others to be executed with them.
    staged: Cell<bool>,
    /// Whether bytes arrived that are not to be read yet: then a release must wake the task.
    readable: Cell<bool>,
    /// Whether the socket took less than there was.
    backlogged: Cell<bool>,
    /// Since when more than the soft limit waits to be sent, Unix ms; 0 for not.
    over_soft_limit_since_ms: Cell<i64>,
    closed: Cell<bool>,
    /// Whether the client has gone: nobody is left to read replies.
    abandoned: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What the task of a connection has to do next.
enum Event {
    /// This many bytes arrived in the worker's buffer.
    Read(usize),
    /// There is more to execute of what was received before.
    Unexecuted,
    /// A command that was executed among those of others waits for something.
    Waiting,
    /// The socket takes more.
    Writable,
    /// It is over.
    Closed,
}

impl Connection {
    /// A new connection.
    pub fn new(stream: Stream, record: Arc<ClientRecord>, server: &Server) -> Self {
        Connection {
            client: RefCell::new(Client::new(Arc::clone(&record), server.users.of_new_connection())),
            record,
            stream: RefCell::new(stream),
            output: RefCell::default(),
            sent: Cell::new(0),
            received: RefCell::default(),
            decoding: RefCell::default(),
            unexecuted: Cell::new(false),
            parked: Cell::new(None),
            needs_block: Cell::new(0),
            writes_refused: Cell::new(false),
            unreleased: Cell::new(false),
            staged: Cell::new(false),
            readable: Cell::new(false),
            backlogged: Cell::new(false),
            over_soft_limit_since_ms: Cell::new(0),
            closed: Cell::new(false),
            abandoned: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// The block of the log that must be safe before its replies may leave.
    pub fn needs_block(&self) -> u64 {
        self.needs_block.get()
    }

    /// When it last sent a command, Unix ms; now, if it waits in a command.
    pub fn idle_since_ms(&self) -> u64 {
        let waits = self.record.blocked.load(Relaxed) || self.parked.get().is_some();
        if waits { u64::MAX } else { self.record.active_ms.load(Relaxed) }
    }

    /// The lock that its next command waits for.
    pub fn parked(&self) -> Option<Busy> {
        self.parked.get()
    }

    /// Ends it: its task will notice.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// Ends it without sending its replies.
    pub fn discard(&self) {
        self.output.borrow_mut().clear();
        self.sent.set(0);
        self.unreleased.set(false);
        self.close();
    }

    /// The log is safe: sends the replies.
    pub fn release(&self, worker: &Worker) {
        self.unreleased.set(false);
        self.send(worker);
        // Without anything to do the task sleeps on: the next bytes will wake it.
        if self.readable.get() || self.backlogged.get() || self.unexecuted.get() || self.closed.get() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Sends as much as the socket takes, but no more than one turn's part.
    fn send(&self, worker: &Worker) {
        let mut output = self.output.borrow_mut();
        let counters = &worker.server.workers[worker.index].counters;
        let mut sent_now = 0;
        while self.sent.get() < output.len() {
            if sent_now >= SENT_PER_TURN_BYTES {
                return self.keep_unsent(&mut output);
            }
            let stream = self.stream.borrow();
            let outcome = match output.one_slice(self.sent.get()) {
                Some(slice) => stream.try_write(&[IoSlice::new(slice)]),
                None => {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let filled = output.slices(self.sent.get(), &mut slices);
                    stream.try_write(&slices[..filled])
                }
            };
            match outcome {
                Ok(written) => {
                    counters.writes.add_alone(1);
                    counters.net_output_bytes.add_alone(written as u64);
                    let total = &self.record.total_output;
                    total.store(total.load(Relaxed) + written as u64, Relaxed);
                    self.sent.set(self.sent.get() + written);
                    sent_now += written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.keep_unsent(&mut output),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.closed.set(true);
                    self.abandoned.set(true);
                    break;
                }
            }
        }
        worker.return_output(std::mem::take(&mut *output));
        self.sent.set(0);
        if self.backlogged.replace(false) {
            self.note_active();
        }
        self.over_soft_limit_since_ms.set(0);
        self.record.output_bytes.store(0, Relaxed);
        if self.client.borrow().closing {
            self.closed.set(true);
        }
    }

    /// Leaves the rest for when the socket takes more, without what has gone already.
    fn keep_unsent(&self, output: &mut Output) {
        if self.sent.get() > SENT_KEPT_BYTES && self.sent.get() > output.len() / 2 {
            self.sent.set(self.sent.get() - output.drop_front(self.sent.get()));
        }
        self.backlogged.set(true);
        self.note_active();
        self.record.output_bytes.store((output.len() - self.sent.get()) as u64, Relaxed);
    }

    /// Waits for what there is to do.
    fn poll_event(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Event> {
        if self.closed.get() {
            return Poll::Ready(Event::Closed);
        }
        if self.backlogged.get() && !self.unreleased.get() {
            match self.stream.borrow().poll_write_ready(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Writable),
                Poll::Ready(Err(_)) => {
                    self.abandoned.set(true);
                    return Poll::Ready(Event::Closed);
                }
                Poll::Pending => {}
            }
        }
        // Anything may end the connection or release it; remember whom to tell.
        if !self.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if self.client.borrow().wait.is_some() {
            return Poll::Ready(Event::Waiting);
        }
        let may_execute = !self.unreleased.get() && !self.staged.get() && self.parked.get().is_none();
        if !may_execute || self.client.borrow().closing {
            // Register for the next bytes all the same, so that a release need not wake us for nothing.
            return match self.stream.borrow().poll_read_ready(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(Event::Closed),
                ready => {
                    self.readable.set(ready.is_ready());
                    Poll::Pending
                }
            };
        }
        self.readable.set(false);
        if self.unsent() > UNSENT_MAX_BYTES {
            return self.poll_unexecuted(worker, cx);
        }
        if self.unexecuted.get() {
            return Poll::Ready(Event::Unexecuted);
        }
        let kept = self.lend_kept(worker);
        match self.poll_read(worker, kept, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(0) => self.poll_finished(),
            Poll::Ready(arrived) => {
                if kept > 0 {
                    self.received.replace(Received::default());
                    self.note_active();
                }
                Poll::Ready(Event::Read(kept + arrived))
            }
        }
    }

    /// The client sends no more. It may read on: it is over when it has all its replies, or an attempt to send more of
    /// them tells that it has gone.
    fn poll_finished(&self) -> Poll<Event> {
        if self.backlogged.get() { Poll::Pending } else { Poll::Ready(Event::Closed) }
    }

    /// Keeps what arrives, until some of the replies are gone: should the client read only when it has sent all,
    /// it must not wait for us.
    fn poll_unexecuted(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match self.poll_read(worker, 0, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => return self.poll_finished(),
                Poll::Ready(arrived) => {
                    self.keep_arrived(&worker.read_buffer.borrow()[..arrived]);
                    self.unexecuted.set(true);
                    self.note_received(worker);
                    if self.closed.get() {
                        return Poll::Ready(Event::Closed);
                    }
                }
            }
        }
    }

    /// How much waits to be sent, in bytes.
    fn unsent(&self) -> usize {
        self.output.borrow().len() - self.sent.get()
    }

    /// Puts what was kept of an incomplete command, if it is little, into the worker's buffer, so that what arrives
    /// stands behind it there and needs no memory of the connection's own. Returns how much that is.
    fn lend_kept(&self, worker: &Worker) -> usize {
        let received = self.received.borrow();
        let kept = received.as_slice();
        if kept.is_empty() || kept.len() > LENT_MAX_BYTES {
            return 0;
        }
        worker.read_buffer.borrow_mut()[..kept.len()].copy_from_slice(kept);
        kept.len()
    }

    /// Notes that its client has done something now.
    fn note_active(&self) {
        self.record.active_ms.store(clock::now_ms() as u64, Relaxed);
    }

    /// Reads into the worker's buffer, behind so many bytes; 0 at the end of the stream, whatever ended it.
    fn poll_read(&self, worker: &Worker, behind: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let mut shared = worker.read_buffer.borrow_mut();
        let mut buffer = ReadBuf::new(&mut shared[behind..]);
        let outcome = self.stream.borrow_mut().poll_read(cx, &mut buffer);
        let arrived = buffer.filled().len();
        outcome.map(|result| {
            let arrived = if result.is_ok() { arrived } else { 0 };
            let counters = &worker.server.workers[worker.index].counters;
            counters.reads.add_alone(1);
            counters.net_input_bytes.add_alone(arrived as u64);
            let total = &self.record.total_input;
            total.store(total.load(Relaxed) + arrived as u64, Relaxed);
            arrived
        })
    }

    /// Leaves little that has arrived to be executed with what other connections have sent in this turn of the
    /// event loop, so that its cache misses overlap theirs. Returns whether it did.
    fn stage(self: &Rc<Self>, worker: &Worker, arrived: usize) -> bool {
        if arrived > STAGED_MAX_BYTES || !self.received.borrow().is_empty() {
            return false;
        }
        self.staged.set(true);
        worker.stage(self, &worker.read_buffer.borrow()[..arrived]);
        true
    }

    /// Executes what was staged.
    pub fn execute_staged(self: &Rc<Self>, worker: &Worker, bytes: &[u8]) {
        self.staged.set(false);
        if self.closed.get() {
            return;
        }
        let consumed = self.execute(worker, bytes);
        self.received.borrow_mut().extend(&bytes[consumed..], 0);
        self.note_received(worker);
        self.queue_replies(worker);
        self.park(worker);
        let waits = self.client.borrow().wait.is_some();
        if waits || self.closed.get() || !self.unreleased.get() {
            self.wake();
        }
    }

    /// Has it wait among those that are parked, if its next command is.
    fn park(self: &Rc<Self>, worker: &Worker) {
        if let Some(busy) = self.parked.get() {
            worker.parking.park(self, busy);
        }
    }

    /// Tries again what is parked; see [`Connection::parked`] for whether it ran.
    pub fn execute_parked(self: &Rc<Self>, worker: &Worker) {
        if self.closed.get() {
            return;
        }
        self.execute_received(worker);
        self.queue_replies(worker);
        if self.parked.get().is_none() {
            self.wake();
        }
    }

    /// The database that its next command will use.
    pub fn selected_db(&self) -> u32 {
        self.client.borrow().db
    }

    /// Executes everything complete, of the incomplete command of before and of what has arrived.
    fn execute_arrived(&self, worker: &Worker, arrived: usize) {
        let shared = worker.read_buffer.borrow();
        let arrived = &shared[..arrived];
        if self.received.borrow().is_empty() {
            let consumed = self.execute(worker, arrived);
            if consumed < arrived.len() {
                self.received.borrow_mut().extend(&arrived[consumed..], 0);
            }
            self.note_received(worker);
        } else {
            self.keep_arrived(arrived);
            drop(shared);
            self.execute_received(worker);
        }
    }

    /// Adds what has arrived to what waits.
    fn keep_arrived(&self, arrived: &[u8]) {
        let mut received = self.received.borrow_mut();
        let wanted = self.decoding.borrow().wanted(received.len());
        received.extend(arrived, wanted);
        // A command that arrives in parts is activity too, though none is executed.
        self.note_active();
    }

    /// Executes what was received, or a turn's part of it.
    fn execute_received(&self, worker: &Worker) {
        self.unexecuted.set(false);
        self.parked.set(None);
        let consumed = self.execute(worker, self.received.borrow().as_slice());
        self.received.borrow_mut().consume(consumed);
        self.note_received(worker);
    }

    /// Executes what a client that has gone sent before it went.
    async fn execute_rest(&self, worker: &Worker) {
        if let Some(busy) = self.parked.get() {
            worker.parking.leave(self, busy);
        }
        while self.unexecuted.get() {
            self.output.borrow_mut().clear();
            self.sent.set(0);
            self.execute_received(worker);
            // Who reads no reply is not told that a change is not logged either: whoever wants to know asks the log.
            if let Err(error) = worker.server.store.log().flush() {
                logging::debug(format_args!("What a client sent that has gone is not logged: {error}"));
            }
            if self.client.borrow().closing || self.client.borrow().wait.is_some() {
                break;
            }
            match self.parked.get() {
                Some(_) => tokio::time::sleep(PATIENCE).await,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Says how much waits, and ends a connection with which it is too much.
    fn note_received(&self, worker: &Worker) {
        let waiting = self.received.borrow().len() as u64;
        self.record.query_bytes.store(waiting, Relaxed);
        if waiting > worker.executor.borrow().settings().client_query_buffer_limit {
            logging::warning(format_args!(
                "Closing client that reached max query buffer length: id={}",
                self.record.id
            ));
            worker.server.counters.query_buffer_limit_disconnections.add(1);
            self.closed.set(true);
        }
    }

    /// Executes the complete commands at the beginning of `bytes`; returns how many bytes they took.
    fn execute(&self, worker: &Worker, bytes: &[u8]) -> usize {
        let log = worker.server.store.log();
        let failure = log.is_poisoned().then(|| log.failure()).flatten();
        let consumed = self.execute_complete(worker, bytes);
        self.writes_refused.set(failure.is_some() && failure == log.failure());
        consumed
    }

    fn execute_complete(&self, worker: &Worker, bytes: &[u8]) -> usize {
        let mut client = self.client.borrow_mut();
        let mut output = self.output.borrow_mut();
        if output.capacity() == 0 && output.is_empty() {
            *output = worker.take_output();
        }
        let mut executor = worker.executor.borrow_mut();
        let mut requests = worker.requests.borrow_mut();
        std::mem::swap(&mut requests[0], &mut self.decoding.borrow_mut());
        let mut consumed = 0;
        loop {
            executor.refresh_settings();
            let limits = client.limits(executor.settings().proto_max_bulk_len);
            // Before authentication one command may change what the next may be.
            let most = if client.user.is_some() { GROUP_MAX } else { 1 };
            let (mut decoded, mut at, mut error) = (0, consumed, None);
            let mut begins = [0; GROUP_MAX];
            while decoded < most {
                match requests[decoded].decode(&bytes[at..], limits) {
                    Ok(Progress::Complete(taken)) => {
                        // An empty line or array is nothing, not even a command.
                        if requests[decoded].args(bytes).is_empty() {
                            requests[decoded].reset();
                        } else {
                            begins[decoded] = at;
                            decoded += 1;
                        }
                        at += taken;
                    }
                    Ok(Progress::Incomplete) => break,
                    Err(mistake) => {
                        error = Some(mistake);
                        break;
                    }
                }
            }
            let mut calls = [Args::NONE; GROUP_MAX];
            for ((call, request), &begin) in calls.iter_mut().zip(requests.iter()).zip(&begins[..decoded]) {
                *call = request.args(&bytes[begin..]);
            }
            let Ran { executed, parked } = match decoded {
                0 => Ran { executed: 0, parked: None },
                _ => executor.run(&mut client, &calls[..decoded], &mut output, worker.parking.patience()),
            };
            if parked.is_some() {
                self.parked.set(parked);
                self.unexecuted.set(true);
            }
            let stopped = client.wait.is_some() || client.closing || parked.is_some();
            consumed = if executed < decoded { begins[executed] } else { at };
            if stopped {
                requests.iter_mut().for_each(Request::reset);
                break;
            }
            if let Some(mistake) = error {
                if client.reply_mode == ReplyMode::On {
                    output.error_bytes(&mistake.wire());
                }
                client.closing = true;
                consumed = bytes.len();
                requests.iter_mut().for_each(Request::reset);
                break;
            }
            requests[..decoded].iter_mut().for_each(Request::reset);
            let is_enough = consumed >= EXECUTED_PER_TURN_BYTES || output.len() - self.sent.get() > UNSENT_MAX_BYTES;
            if is_enough && decoded == most && consumed < bytes.len() {
                self.unexecuted.set(true);
                break;
            }
            if decoded < most {
                // What is incomplete goes on where it stopped, once more has arrived.
                std::mem::swap(&mut requests[decoded], &mut self.decoding.borrow_mut());
                break;
            }
        }
        consumed
    }

    /// Has the replies sent when the log allows it.
    fn queue_replies(self: &Rc<Self>, worker: &Worker) {
        if self.client.borrow().aborted {
            return self.discard();
        }
        if self.output.borrow().is_empty() {
            let output = std::mem::take(&mut *self.output.borrow_mut());
            worker.return_output(output);
            if self.client.borrow().closing {
                self.closed.set(true);
            }
            return;
        }
        // A log that has failed cannot hold back what was read, nor the error that writes are answered with.
        let needs = if self.writes_refused.get() { 0 } else { worker.server.store.log().position() };
        self.hold(worker, needs);
    }

    /// Has the flusher send what waits once this block of the log is safe.
    fn hold(self: &Rc<Self>, worker: &Worker, needs: u64) {
        let before = if self.unreleased.get() { self.needs_block.get() } else { 0 };
        self.needs_block.set(needs.max(before));
        if self.over_output_limit(worker) {
            return self.end_over_output_limit(worker);
        }
        if !self.unreleased.replace(true) {
            worker.want_flush(self);
        }
    }

    /// Sends something that is no reply, behind what it is sent already, once this block of the log is safe.
    pub fn push(self: &Rc<Self>, worker: &Worker, bytes: &[u8], block: u64) {
        if self.closed.get() || self.client.borrow().closing {
            return;
        }
        {
            let mut output = self.output.borrow_mut();
            if output.capacity() == 0 && output.is_empty() {
                *output = worker.take_output();
            }
            output.raw(bytes);
        }
        self.hold(worker, block);
    }

    /// Ends it because too much waits to be sent.
    pub fn end_over_output_limit(&self, worker: &Worker) {
        logging::warning(format_args!("Client id={} closed for overcoming of output buffer limits.", self.record.id));
        worker.server.counters.output_buffer_limit_disconnections.add(1);
        self.discard();
    }

    /// Watches no key any more: it has ended.
    pub fn unwatch(&self, server: &Server) {
        // After a panic in the middle of a command nobody gives the client back.
        if let Ok(mut client) = self.client.try_borrow_mut() {
            client.unwatch(&server.keyspace);
        }
    }

    /// Whether its replies wait for the log.
    pub fn is_unreleased(&self) -> bool {
        self.unreleased.get()
    }

    /// Whether the log lacks a change of its own, so that nobody can say what becomes of it.
    pub fn has_unlogged_change(&self, logged: u64) -> bool {
        self.client.borrow().last_write_block > logged
    }

    /// Whether more waits to be sent than `client-output-buffer-limit` allows to a connection of its class.
    fn over_output_limit(&self, worker: &Worker) -> bool {
        let limit = worker.executor.borrow().settings().client_output_buffer_limits[self.record.class() as usize];
        let waiting = self.unsent() as u64;
        if limit.hard > 0 && waiting > limit.hard {
            return true;
        }
        if limit.soft == 0 || waiting <= limit.soft {
            self.over_soft_limit_since_ms.set(0);
            return false;
        }
        let now = clock::now_ms();
        if self.over_soft_limit_since_ms.get() == 0 {
            self.over_soft_limit_since_ms.set(now);
        }
        now - self.over_soft_limit_since_ms.get() > limit.soft_seconds as i64 * 1000
    }
}

/// Takes the connection out of the register when its task ends, by a panic too.
struct Registered<'a> {
    worker: &'a Worker,
    connection: &'a Connection,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.connection.parked.take() {
            self.worker.parking.leave(self.connection, busy);
        }
        self.worker.remove(self.connection);
    }
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, connection: Rc<Connection>) {
    let _registered = Registered { worker: &worker, connection: &connection };
    loop {
        match poll_fn(|cx| connection.poll_event(&worker, cx)).await {
            Event::Closed => break,
            Event::Writable => {
                connection.send(&worker);
                tokio::task::yield_now().await;
                continue;
            }
            Event::Read(arrived) if connection.stage(&worker, arrived) => continue,
            Event::Read(arrived) => connection.execute_arrived(&worker, arrived),
            Event::Waiting => {}
            Event::Unexecuted => {
                tokio::task::yield_now().await;
                connection.execute_received(&worker);
            }
        }
        connection.queue_replies(&worker);
        connection.park(&worker);
        // A statement of its own: an `if let` would keep the client borrowed during the wait.
        let wait = connection.client.borrow_mut().wait.take();
        if let Some(wait) = wait {
            wait_and_reply(&worker, &connection, wait).await;
        }
    }
    if connection.abandoned.get() {
        connection.execute_rest(&worker).await;
    }
}

/// Waits for what a command waits for, and writes its reply.
async fn wait_and_reply(worker: &Rc<Worker>, connection: &Rc<Connection>, wait: Wait) {
    let unblock = Unblock::new(&connection.record, &wait);
    connection.record.blocked.store(true, Relaxed);
    // Redis makes these in one go: the reply comes even if the client has said that it sends no more.
    let mut listening = !matches!(wait, Wait::Snapshot(_) | Wait::Reload(_) | Wait::Deferred(_));
    let finish = tokio::select! {
        finish = finished(worker, wait, unblock) => Some(finish),
        () = poll_fn(|cx| connection.poll_waiting(worker, &mut listening, cx)) => None,
    };
    connection.record.blocked.store(false, Relaxed);
    connection.note_active();
    let Some(finish) = finish else { return connection.close() };
    {
        let mut client = connection.client.borrow_mut();
        let mut output = connection.output.borrow_mut();
        let mark = output.mark();
        if let Some(block) = finish.block {
            client.last_write_block = block;
        }
        // Whatever the log was like when it began to wait: what the reply shows may have been written since.
        connection.writes_refused.set(false);
        let _done = (finish.reply)(Reply::new(&mut output, client.resp));
        settle_reply_mode(&mut client, mark, &mut output);
    }
    let unexecuted = !connection.received.borrow().is_empty();
    connection.unexecuted.set(unexecuted);
    connection.queue_replies(worker);
}

impl Connection {
    /// Completes when the connection is to end although it waits in a command. Until then it sends what the
    /// commands before have replied, and keeps what arrives; `listening` says whether the end of the stream
    /// ends the wait.
    fn poll_waiting(&self, worker: &Worker, listening: &mut bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.closed.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            if self.backlogged.get() && !self.unreleased.get() {
                match self.stream.borrow().poll_write_ready(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {
                        self.send(worker);
                        continue;
                    }
                }
            }
            if !*listening {
                return Poll::Pending;
            }
            match self.poll_read(worker, 0, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => return Poll::Ready(()),
                Poll::Ready(arrived) => {
                    self.keep_arrived(&worker.read_buffer.borrow()[..arrived]);
                    self.note_received(worker);
                }
            }
        }
    }

    /// Whether more than the soft limit of unsent replies has waited for too long.
    pub fn is_over_soft_limit(&self, worker: &Worker) -> bool {
        self.over_soft_limit_since_ms.get() > 0 && self.over_output_limit(worker)
    }
}

//! One connection: read, execute everything complete, wait for the log, reply.
//!
//! Invariants:
//! - Commands of a connection run in their order, one batch at a time: the next batch is read when the
//!   replies of the last are on their way, so the log holds back a connection and never the reverse.
//! - An idle connection keeps no buffer: reads go to the worker's, only an incomplete command is kept.
//! - Replies that the socket does not take wait in memory, up to `client-output-buffer-limit`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use smallvec::SmallVec;
use tokio::io::ReadBuf;

use super::stream::Stream;
use super::worker::Worker;
use crate::base::{clock, log};
use crate::command::client::ClientRecord;
use crate::command::{Client, Server, Wait};
use crate::exec::GROUP_MAX;
use crate::resp::request::Progress;
use crate::resp::{Args, Output, Reply, Request};

/// How many pieces one write to a socket may have.
const SLICES_MAX: usize = 64;
/// The least room made for the rest of an incomplete command, in bytes.
const PARTIAL_ROOM_BYTES: usize = 16 * 1024;

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
    /// An incomplete command, and how far it is decoded.
    partial: RefCell<Vec<u8>>,
    decoding: RefCell<Request>,
    /// The block of the log that must be safe before `output` may leave.
    needs_block: Cell<u64>,
    /// Whether the log had failed all the while that the last commands ran: then no write is among them.
    writes_refused: Cell<bool>,
    /// Whether the flusher has it on its list.
    unreleased: Cell<bool>,
    /// Whether the socket took less than there was.
    backlogged: Cell<bool>,
    /// Since when more than the soft limit waits to be sent, Unix ms; 0 for not.
    over_soft_limit_since_ms: Cell<i64>,
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What the task of a connection has to do next.
enum Event {
    /// This many bytes arrived, in the worker's buffer or behind the incomplete command.
    Read(usize),
    /// The socket takes more.
    Writable,
    /// It is over.
    Closed,
}

impl Connection {
    /// A new connection.
    pub fn new(stream: Stream, record: Arc<ClientRecord>, server: &Server) -> Self {
        let authenticated = server.config.settings().requirepass.is_empty();
        Connection {
            client: RefCell::new(Client::new(Arc::clone(&record), authenticated)),
            record,
            stream: RefCell::new(stream),
            output: RefCell::default(),
            sent: Cell::new(0),
            partial: RefCell::default(),
            decoding: RefCell::default(),
            needs_block: Cell::new(0),
            writes_refused: Cell::new(false),
            unreleased: Cell::new(false),
            backlogged: Cell::new(false),
            over_soft_limit_since_ms: Cell::new(0),
            closed: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// The block of the log that must be safe before its replies may leave.
    pub fn needs_block(&self) -> u64 {
        self.needs_block.get()
    }

    /// When it last sent a command, Unix ms; now, if it waits in a command.
    pub fn idle_since_ms(&self) -> u64 {
        if self.record.blocked.load(Relaxed) { u64::MAX } else { self.record.active_ms.load(Relaxed) }
    }

    /// Ends it: its task will notice.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake();
    }

    /// Ends it without sending its replies.
    pub fn discard(&self) {
        self.output.borrow_mut().clear();
        self.unreleased.set(false);
        self.close();
    }

    /// The log is safe: sends the replies.
    pub fn release(&self, worker: &Worker) {
        self.unreleased.set(false);
        self.send(worker);
        if self.backlogged.get() || self.closed.get() {
            self.wake();
        } else if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Sends as much as the socket takes.
    fn send(&self, worker: &Worker) {
        let mut output = self.output.borrow_mut();
        let counters = &worker.server.workers[worker.index].counters;
        while self.sent.get() < output.len() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = output.slices(self.sent.get(), &mut slices);
            match self.stream.borrow().try_write(&slices[..filled]) {
                Ok(written) => {
                    counters.writes.add_alone(1);
                    counters.net_output_bytes.add_alone(written as u64);
                    let total = &self.record.total_output;
                    total.store(total.load(Relaxed) + written as u64, Relaxed);
                    self.sent.set(self.sent.get() + written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.backlogged.set(true);
                    self.record.output_bytes.store((output.len() - self.sent.get()) as u64, Relaxed);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.closed.set(true);
                    break;
                }
            }
        }
        worker.return_output(std::mem::take(&mut *output));
        self.sent.set(0);
        self.backlogged.set(false);
        self.over_soft_limit_since_ms.set(0);
        self.record.output_bytes.store(0, Relaxed);
        if self.client.borrow().closing {
            self.closed.set(true);
        }
    }

    /// Waits for what there is to do.
    fn poll_event(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Event> {
        if self.closed.get() {
            return Poll::Ready(Event::Closed);
        }
        if self.backlogged.get() && !self.unreleased.get() {
            match self.stream.borrow().poll_write_ready(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Writable),
                Poll::Ready(Err(_)) => return Poll::Ready(Event::Closed),
                Poll::Pending => {}
            }
        }
        // Anything may end the connection or release it; remember whom to tell.
        if !self.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if self.unreleased.get() || self.client.borrow().closing {
            // Register for the next bytes all the same, so that a release need not wake us for nothing.
            return match self.stream.borrow().poll_read_ready(cx) {
                Poll::Ready(Err(_)) => Poll::Ready(Event::Closed),
                _ => Poll::Pending,
            };
        }
        self.poll_read(worker, cx)
    }

    fn poll_read(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Event> {
        let mut partial = self.partial.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        let outcome = if partial.is_empty() {
            let mut shared = worker.read_buffer.borrow_mut();
            let mut buffer = ReadBuf::new(&mut shared);
            stream.poll_read(cx, &mut buffer).map(|result| result.map(|()| buffer.filled().len()))
        } else {
            let have = partial.len();
            let wanted = self.decoding.borrow().wanted(have);
            let room = (wanted.saturating_sub(have)).max(PARTIAL_ROOM_BYTES);
            partial.resize(have + room, 0);
            let mut buffer = ReadBuf::new(&mut partial[have..]);
            let outcome = stream.poll_read(cx, &mut buffer).map(|result| result.map(|()| buffer.filled().len()));
            let read = if let Poll::Ready(Ok(read)) = outcome { read } else { 0 };
            partial.truncate(have + read);
            outcome
        };
        match outcome {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Event::Closed),
            Poll::Ready(Ok(read)) => Poll::Ready(Event::Read(read)),
        }
    }

    /// Executes everything complete, of the incomplete command of before and of what has arrived.
    fn execute_received(&self, worker: &Worker, arrived: usize) {
        let counters = &worker.server.workers[worker.index].counters;
        counters.reads.add_alone(1);
        counters.net_input_bytes.add_alone(arrived as u64);
        let total = &self.record.total_input;
        total.store(total.load(Relaxed) + arrived as u64, Relaxed);
        let mut partial = self.partial.borrow_mut();
        if partial.is_empty() {
            let shared = worker.read_buffer.borrow();
            let consumed = self.execute(worker, &shared[..arrived]);
            partial.extend_from_slice(&shared[consumed..arrived]);
        } else {
            let consumed = self.execute(worker, &partial);
            if consumed == partial.len() {
                *partial = Vec::new();
            } else {
                partial.drain(..consumed);
            }
        }
        self.record.query_bytes.store(partial.len() as u64, Relaxed);
        let limit = worker.executor.borrow().settings().client_query_buffer_limit;
        if partial.len() as u64 > limit {
            log::warning(format_args!("Closing client that reached max query buffer length: id={}", self.record.id));
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
            let most = if client.authenticated { GROUP_MAX } else { 1 };
            let (mut decoded, mut at, mut error) = (0, consumed, None);
            let mut begins: SmallVec<[usize; GROUP_MAX]> = SmallVec::new();
            while decoded < most {
                match requests[decoded].decode(&bytes[at..], limits) {
                    Ok(Progress::Complete(taken)) => {
                        begins.push(at);
                        at += taken;
                        decoded += 1;
                        if requests[decoded - 1].args(&bytes[begins[decoded - 1]..]).is_empty() {
                            // An empty line or array is nothing, not even a command.
                            begins.pop();
                            decoded -= 1;
                            requests[decoded].reset();
                        }
                    }
                    Ok(Progress::Incomplete) => break,
                    Err(mistake) => {
                        error = Some(mistake);
                        break;
                    }
                }
            }
            let calls: SmallVec<[Args<'_>; GROUP_MAX]> =
                begins.iter().zip(requests.iter()).map(|(&begin, request)| request.args(&bytes[begin..])).collect();
            let executed = if calls.is_empty() { 0 } else { executor.run(&mut client, &calls, &mut output) };
            drop(calls);
            let stopped = client.wait.is_some() || client.closing;
            consumed = if executed < decoded { begins[executed] } else { at };
            if stopped {
                requests.iter_mut().for_each(Request::reset);
                break;
            }
            if let Some(mistake) = error {
                output.error_bytes(&mistake.wire());
                client.closing = true;
                consumed = bytes.len();
                requests.iter_mut().for_each(Request::reset);
                break;
            }
            requests[..decoded].iter_mut().for_each(Request::reset);
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
        let before = if self.unreleased.get() { self.needs_block.get() } else { 0 };
        self.needs_block.set(needs.max(before));
        if self.over_output_limit(worker) {
            log::warning(format_args!("Client id={} closed for overcoming of output buffer limits.", self.record.id));
            worker.server.counters.output_buffer_limit_disconnections.add(1);
            return self.discard();
        }
        if !self.unreleased.replace(true) {
            worker.want_flush(self);
        }
    }

    /// Whether more waits to be sent than `client-output-buffer-limit normal` allows.
    fn over_output_limit(&self, worker: &Worker) -> bool {
        let executor = worker.executor.borrow();
        let limit = executor.settings().client_output_buffer_limits[0];
        let waiting = (self.output.borrow().len() - self.sent.get()) as u64;
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

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, connection: Rc<Connection>) {
    loop {
        match poll_fn(|cx| connection.poll_event(&worker, cx)).await {
            Event::Closed => break,
            Event::Writable => connection.send(&worker),
            Event::Read(arrived) => {
                connection.execute_received(&worker, arrived);
                connection.queue_replies(&worker);
                loop {
                    // A statement of its own: a `while let` would keep the client borrowed during the wait.
                    let wait = connection.client.borrow_mut().wait.take();
                    let Some(wait) = wait else { break };
                    wait_and_go_on(&worker, &connection, wait).await;
                }
            }
        }
    }
    worker.remove(&connection);
}

/// Waits for what a command waits for, writes its reply, and executes what has arrived behind it.
async fn wait_and_go_on(worker: &Rc<Worker>, connection: &Rc<Connection>, wait: Wait) {
    connection.record.blocked.store(true, Relaxed);
    let finish = tokio::select! {
        finish = super::waits::finished(worker, wait) => Some(finish),
        () = poll_fn(|cx| connection.poll_gone(cx)) => None,
    };
    connection.record.blocked.store(false, Relaxed);
    let Some(finish) = finish else { return connection.close() };
    {
        let client = connection.client.borrow();
        let mut output = connection.output.borrow_mut();
        if client.reply_mode == crate::command::client::ReplyMode::On {
            let _done = finish(Reply::new(&mut output, client.resp));
        }
    }
    let rest = std::mem::take(&mut *connection.partial.borrow_mut());
    let consumed = connection.execute(worker, &rest);
    *connection.partial.borrow_mut() = rest[consumed..].to_vec();
    connection.queue_replies(worker);
}

impl Connection {
    /// Completes when the connection is to end although it waits in a command.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closed.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        // Bytes may arrive while it waits, and stay where they are; the end of the stream ends the wait.
        match self.peek_end(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn peek_end(&self, cx: &mut Context<'_>) -> bool {
        let mut partial = self.partial.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        loop {
            let mut buffer = [0; 4096];
            let mut buffer = ReadBuf::new(&mut buffer);
            match stream.poll_read(cx, &mut buffer) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return true,
                Poll::Ready(Ok(())) => partial.extend_from_slice(buffer.filled()),
            }
        }
    }
}

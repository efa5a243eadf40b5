//! One connection: read, have it executed, wait for the log, reply.
//!
//! What it has received is in its [`Inbox`], what it has to send in its [`Outbox`], and what it is about to do next in
//! its [`State`]. How commands are executed and replies leave is in `server::turn`.
//!
//! Invariants:
//! - Commands of a connection run in their order, one batch at a time: the next batch is read when the
//!   replies of the last are on their way, so the log holds back a connection and never the reverse.
//! - An idle connection keeps no buffer: reads go to the worker's, only an incomplete command is kept.
//! - Replies that the socket does not take wait in memory, up to `client-output-buffer-limit`. What arrives while
//!   a command waits, or while many replies do, is kept unexecuted, up to `client-query-buffer-limit`: who sends
//!   without end and never reads costs no more than that.
//! - Before it has authenticated a connection costs less still: see [`UNAUTHENTICATED_UNSENT_MAX_BYTES`] and what
//!   stands beside it.
//! - However much there is to execute or to send, the other connections have their turn in between.
//! - What a client has sent is executed though it goes before its turn comes. Only a wait ends with it.
//! - However its task ends, even by a panic, the connection leaves the register and its socket closes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use super::waits::{Unblock, finished};
use super::worker::Worker;
use crate::base::logging;
use crate::core::client::ClientRecord;
use crate::core::{Client, Server, Wait};
use crate::exec::{PATIENCE, settle_reply_mode};
use crate::keyspace::Busy;
use crate::resp::Reply;
use crate::server::socket::Stream;

pub mod inbox;
pub mod outbox;
pub mod received;
pub mod state;

use inbox::Inbox;
use outbox::{Outbox, Sending, Sent, note_active};
use state::State;

/// While more than this waits to be sent nothing more is executed, in bytes.
pub const UNSENT_MAX_BYTES: usize = 32 << 20;
/// A connection that has not authenticated is closed when more than this waits to be sent although the socket took
/// what it could, in bytes. Nothing more is executed of it beforehand.
pub const UNAUTHENTICATED_UNSENT_MAX_BYTES: usize = 1024;
/// The same when so much of what it sent waits: the largest command that it may send takes less.
const UNAUTHENTICATED_QUERY_MAX_BYTES: u64 = 1 << 20;
/// How much of what it has sent is read at a time, in bytes.
const UNAUTHENTICATED_READ_MAX_BYTES: usize = 4096;

/// A connection, shared by its task and the flusher.
#[derive(Debug)]
pub struct Connection {
    /// What others may read of it.
    pub record: Arc<ClientRecord>,
    /// The state that its commands read and change.
    pub(super) client: RefCell<Client>,
    /// What it has received.
    pub(super) inbox: RefCell<Inbox>,
    /// What it has to send.
    pub(super) outbox: RefCell<Outbox>,
    state: Cell<State>,
    stream: RefCell<Stream>,
    /// Whether bytes arrived that are not to be read yet: then a release must wake the task.
    readable: Cell<bool>,
    /// The queue that it stands in; see `server::parking`, which alone changes it.
    pub(super) queued: Cell<Option<Busy>>,
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
    Over,
}

impl Connection {
    /// A new connection.
    pub fn new(stream: Stream, record: Arc<ClientRecord>, server: &Server) -> Self {
        Connection {
            client: RefCell::new(Client::new(Arc::clone(&record), server.users.of_new_connection())),
            record,
            inbox: RefCell::default(),
            outbox: RefCell::default(),
            state: Cell::new(State::Idle),
            stream: RefCell::new(stream),
            readable: Cell::new(false),
            queued: Cell::new(None),
            waker: RefCell::default(),
        }
    }

    /// What it is about to do next.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Goes over to another state, unless it is over.
    pub(super) fn enter(&self, next: State) {
        if !self.state.get().is_over() {
            self.state.set(next);
        }
    }

    /// The lock that its next command waits for.
    pub fn parked(&self) -> Option<Busy> {
        match self.state.get() {
            State::Parked(busy) => Some(busy),
            _ => None,
        }
    }

    /// When it last sent a command, Unix ms; now, if it waits in a command.
    pub fn idle_since_ms(&self) -> u64 {
        let waits = self.record.blocked.load(Relaxed) || self.parked().is_some();
        if waits { u64::MAX } else { self.record.active_ms.load(Relaxed) }
    }

    /// The database that its next command will use.
    pub fn selected_db(&self) -> u32 {
        self.client.borrow().db
    }

    /// The block of the log that must be safe before its replies may leave.
    pub(super) fn needs_block(&self) -> u64 {
        self.outbox.borrow().needs_block
    }

    /// Whether its replies wait for the log.
    pub fn is_held(&self) -> bool {
        self.outbox.borrow().sending == Sending::Held
    }

    /// Ends it: its task will notice.
    pub fn close(&self) {
        self.enter(State::Over { abandoned: false });
        self.wake();
    }

    /// Ends it without sending its replies.
    pub fn discard(&self) {
        self.outbox.borrow_mut().discard();
        self.close();
    }

    /// Ends it because too much waits to be sent.
    pub fn end_over_output_limit(&self, worker: &Worker) {
        logging::warning(format_args!("Client id={} closed for overcoming of output buffer limits.", self.record.id));
        worker.server.counters.output_buffer_limit_disconnections.add(1);
        self.discard();
    }

    /// Has its task look what there is to do.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The log is safe: sends the replies.
    pub fn release(&self, worker: &Worker) {
        self.send(worker);
        // Without anything to do the task sleeps on: the next bytes will wake it.
        let is_backlogged = self.outbox.borrow().sending == Sending::Backlogged;
        if self.readable.get() || is_backlogged || matches!(self.state(), State::Unexecuted | State::Over { .. }) {
            self.wake();
        }
    }

    /// Sends as much as the socket takes, but no more than one turn's part.
    fn send(&self, worker: &Worker) {
        let mut outbox = self.outbox.borrow_mut();
        let counters = &worker.server.workers[worker.index].counters;
        match outbox.send(&self.stream.borrow(), &self.record, counters) {
            Sent::All => {}
            Sent::Part => {
                let unsent = outbox.unsent();
                drop(outbox);
                if unsent > UNAUTHENTICATED_UNSENT_MAX_BYTES && self.is_unauthenticated() {
                    self.end_over_output_limit(worker);
                }
                return;
            }
            Sent::Failed => {
                outbox.discard();
                self.enter(State::Over { abandoned: true });
            }
        }
        worker.turn.return_output(outbox.take_empty());
        if self.state() == State::Closing {
            self.enter(State::Over { abandoned: false });
        }
    }

    /// Whether it may not execute anything yet but AUTH and its like.
    fn is_unauthenticated(&self) -> bool {
        self.client.borrow().user.is_none()
    }

    /// Waits for what there is to do.
    fn poll_event(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Event> {
        if self.state().is_over() {
            return Poll::Ready(Event::Over);
        }
        let (sending, unsent) = {
            let outbox = self.outbox.borrow();
            (outbox.sending, outbox.unsent())
        };
        if sending == Sending::Backlogged {
            match self.stream.borrow().poll_write_ready(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Writable),
                Poll::Ready(Err(_)) => {
                    self.enter(State::Over { abandoned: true });
                    return Poll::Ready(Event::Over);
                }
                Poll::Pending => {}
            }
        }
        // Anything may end the connection or release it; remember whom to tell.
        if !self.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if self.state() == State::Waiting {
            return Poll::Ready(Event::Waiting);
        }
        if sending == Sending::Held || self.state().is_deaf() {
            // Register for the next bytes all the same, so that a release need not wake us for nothing.
            return match self.stream.borrow().poll_read_ready(cx) {
                Poll::Ready(Err(_)) => {
                    self.enter(State::Over { abandoned: true });
                    Poll::Ready(Event::Over)
                }
                ready => {
                    self.readable.set(ready.is_ready());
                    Poll::Pending
                }
            };
        }
        self.readable.set(false);
        if unsent > UNSENT_MAX_BYTES {
            return self.poll_unexecuted(worker, cx);
        }
        if self.state() == State::Unexecuted {
            return Poll::Ready(Event::Unexecuted);
        }
        let lent = self.inbox.borrow().lend(&mut worker.read_buffer.borrow_mut());
        match self.poll_read(worker, lent, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(0) => self.poll_finished(),
            Poll::Ready(arrived) => {
                if lent > 0 {
                    self.inbox.borrow_mut().forget_lent();
                    note_active(&self.record);
                }
                Poll::Ready(Event::Read(lent + arrived))
            }
        }
    }

    /// The client sends no more. It may read on: it is over when it has all its replies, or an attempt to send more of
    /// them tells that it has gone.
    fn poll_finished(&self) -> Poll<Event> {
        match self.outbox.borrow().sending {
            Sending::Backlogged => Poll::Pending,
            Sending::Nothing | Sending::Held => Poll::Ready(Event::Over),
        }
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
                    self.enter(State::Unexecuted);
                    self.note_received(worker);
                    if self.state().is_over() {
                        return Poll::Ready(Event::Over);
                    }
                }
            }
        }
    }

    /// Reads into the worker's buffer, behind so many bytes; 0 at the end of the stream, whatever ended it.
    fn poll_read(&self, worker: &Worker, behind: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let mut shared = worker.read_buffer.borrow_mut();
        let room = match self.is_unauthenticated() {
            true => &mut shared[behind..behind + UNAUTHENTICATED_READ_MAX_BYTES],
            false => &mut shared[behind..],
        };
        let mut buffer = ReadBuf::new(room);
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

    /// Adds what has arrived to what waits.
    pub(super) fn keep_arrived(&self, arrived: &[u8]) {
        self.inbox.borrow_mut().add(arrived);
        // A command that arrives in parts is activity too, though none is executed.
        note_active(&self.record);
    }

    /// Says how much waits to be executed, and ends a connection with which it is too much.
    pub(super) fn note_received(&self, worker: &Worker) {
        let (received, decoded) = {
            let inbox = self.inbox.borrow();
            (inbox.received.len() as u64, inbox.decoding.room_bytes() as u64)
        };
        self.record.query_bytes.store(received, Relaxed);
        self.record.argument_bytes.store(decoded, Relaxed);
        let waiting = received + decoded;
        if waiting == 0 {
            return;
        }
        let mut limit = worker.executor.borrow().settings().client_query_buffer_limit;
        if self.is_unauthenticated() {
            limit = limit.min(UNAUTHENTICATED_QUERY_MAX_BYTES);
        }
        if waiting > limit {
            logging::warning(format_args!(
                "Closing client that reached max query buffer length: id={}",
                self.record.id
            ));
            worker.server.counters.query_buffer_limit_disconnections.add(1);
            self.enter(State::Over { abandoned: false });
        }
    }

    /// Watches no key any more: it has ended.
    pub fn unwatch(&self, server: &Server) {
        // After a panic in the middle of a command nobody gives the client back.
        if let Ok(mut client) = self.client.try_borrow_mut() {
            client.unwatch(&server.keyspace);
        }
    }

    /// Whether the log lacks a change of its own, so that nobody can say what becomes of it.
    pub fn has_unlogged_change(&self, logged: u64) -> bool {
        self.client.borrow().last_write_block > logged
    }

    /// Whether more waits to be sent than `client-output-buffer-limit` allows to a connection of its class.
    pub(super) fn is_over_output_limit(&self, worker: &Worker) -> bool {
        let limit = worker.executor.borrow().settings().client_output_buffer_limits[self.record.class() as usize];
        self.outbox.borrow_mut().is_over(limit)
    }

    /// Whether more than the soft limit of unsent replies has waited for too long.
    pub fn is_over_soft_limit(&self, worker: &Worker) -> bool {
        self.outbox.borrow().is_above_soft_limit() && self.is_over_output_limit(worker)
    }

    /// Executes what a client that has gone sent before it went.
    async fn execute_rest(&self, worker: &Worker) {
        loop {
            {
                let client = self.client.borrow();
                if client.closing || client.wait.is_some() || self.inbox.borrow().received.is_empty() {
                    return;
                }
            }
            self.outbox.borrow_mut().discard();
            let next = self.execute_received(worker);
            // Who reads no reply is not told that a change is not logged either: whoever wants to know asks the log.
            if let Err(error) = worker.server.store.log().flush() {
                logging::debug(format_args!("What a client sent that has gone is not logged: {error}"));
            }
            match next {
                State::Unexecuted => tokio::task::yield_now().await,
                State::Parked(_) => tokio::time::sleep(PATIENCE).await,
                _ => return,
            }
        }
    }

    /// Completes when the connection is to end although it waits in a command. Until then it sends what the
    /// commands before have replied, and keeps what arrives; `listening` says whether the end of the stream
    /// ends the wait.
    fn poll_waiting(&self, worker: &Worker, listening: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.state().is_over() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            let is_backlogged = self.outbox.borrow().sending == Sending::Backlogged;
            if is_backlogged {
                match self.stream.borrow().poll_write_ready(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {
                        self.send(worker);
                        continue;
                    }
                }
            }
            if !listening {
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
}

/// Takes the connection out of the registers when its task ends, by a panic too.
struct Registered<'a> {
    worker: &'a Worker,
    connection: &'a Connection,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.worker.parking.leave(self.connection);
        self.worker.remove(self.connection);
    }
}

/// Serves a connection until it ends.
pub async fn serve(worker: Rc<Worker>, connection: Rc<Connection>) {
    let _registered = Registered { worker: &worker, connection: &connection };
    loop {
        match poll_fn(|cx| connection.poll_event(&worker, cx)).await {
            Event::Over => break,
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
                connection.execute_unexecuted(&worker);
            }
        }
        // A statement of its own: an `if let` would keep the client borrowed during the wait.
        let wait = connection.client.borrow_mut().wait.take();
        if let Some(wait) = wait {
            wait_and_reply(&worker, &connection, wait).await;
        }
    }
    connection.enter(State::Over { abandoned: false });
    if connection.state() == (State::Over { abandoned: true }) {
        // In its queue it would run a second time.
        worker.parking.leave(&connection);
        connection.execute_rest(&worker).await;
    }
}

/// Waits for what a command waits for, and writes its reply.
async fn wait_and_reply(worker: &Rc<Worker>, connection: &Rc<Connection>, wait: Wait) {
    let unblock = Unblock::new(&connection.record, &wait);
    connection.record.blocked.store(true, Relaxed);
    // Redis makes these in one go: the reply comes even if the client has said that it sends no more.
    let listening = !matches!(wait, Wait::Snapshot(_) | Wait::Reload(_) | Wait::Deferred(_));
    let finish = tokio::select! {
        finish = finished(worker, wait, unblock) => Some(finish),
        () = poll_fn(|cx| connection.poll_waiting(worker, listening, cx)) => None,
    };
    connection.record.blocked.store(false, Relaxed);
    note_active(&connection.record);
    let Some(finish) = finish else { return connection.close() };
    {
        let mut client = connection.client.borrow_mut();
        let mut outbox = connection.outbox.borrow_mut();
        if let Some(block) = finish.block {
            client.last_write_block = block;
        }
        // Whatever the log was like when it began to wait: what the reply shows may have been written since.
        outbox.writes_refused = false;
        let mark = outbox.output.mark();
        let _done = (finish.reply)(Reply::new(&mut outbox.output, client.resp));
        settle_reply_mode(&mut client, mark, &mut outbox.output);
    }
    let is_idle = connection.inbox.borrow().received.is_empty();
    connection.enter(if is_idle { State::Idle } else { State::Unexecuted });
    connection.queue_replies(worker);
}

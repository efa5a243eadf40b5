//! One connection: read, execute, wait for the log, reply.
//!
//! Received bytes are in its [`Inbox`], pending output in its [`Outbox`], and its next step is its [`State`].
//! `server::turn` executes commands and sends replies.
//!
//! Invariants:
//! - Commands of a connection run in their order, one batch at a time: the next batch is read when the
//!   replies of the last are on their way, so the log holds back a connection and never the reverse.
//! - An idle connection keeps no buffer: reads go to the worker's, only an incomplete command is kept.
//! - Replies that the socket does not take wait in memory, up to `client-output-buffer-limit`. Bytes that arrive
//!   while a command waits, or while many replies wait, are kept unexecuted, up to `client-query-buffer-limit`. A
//!   client that sends without end and never reads costs no more than that.
//! - Before it has authenticated, a connection costs even less: see [`UNAUTHENTICATED_UNSENT_MAX_BYTES`] and the
//!   limits beside it.
//! - However much there is to execute or to send, other connections get their turn in between.
//! - Everything that a client has sent is executed, even if the client leaves first. Only a wait ends with the
//!   client.
//! - However its task ends, even by a panic, the connection leaves the register and its socket closes.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::ReadBuf;

use super::client_eviction;
use super::moving;
use super::waits::{Unblock, finished};
use super::worker::Worker;
use crate::access::User;
use crate::base::{alloc, logging};
use crate::core::client::ClientRecord;
use crate::core::mailbox::Accepted;
use crate::core::subscriber::{NAMES_PER_STEP, Subscribing};
use crate::core::{BlockedOn, Client, Server, Wait};
use crate::events::invalidation::{Invalidation, Reason, StaleKey};
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

/// While more than this is unsent, nothing more is executed, in bytes.
pub const UNSENT_MAX_BYTES: usize = 32 << 20;
/// An unauthenticated connection is closed when more than this is unsent after the socket has taken what it could, in
/// bytes. Before that, nothing more of it is executed.
pub const UNAUTHENTICATED_UNSENT_MAX_BYTES: usize = 1024;
/// The same when this much of its input is pending. The largest command that it may send takes less.
const UNAUTHENTICATED_QUERY_MAX_BYTES: u64 = 1 << 20;
/// How much of its input is read at a time, in bytes.
const UNAUTHENTICATED_READ_MAX_BYTES: usize = 4096;
/// From this size on, what a connection has received makes the worker evict before its time, in bytes.
const EVICTING_MIN_BYTES: u64 = 16 * 1024;

/// A connection, shared by its task and the flusher.
#[derive(Debug)]
pub struct Connection {
    /// The part that other threads may read.
    pub record: Arc<ClientRecord>,
    /// The state that its commands read and change.
    pub(super) client: RefCell<Client>,
    /// What it has received.
    pub(super) inbox: RefCell<Inbox>,
    /// What it has to send.
    pub(super) outbox: RefCell<Outbox>,
    state: Cell<State>,
    stream: RefCell<Stream>,
    /// Whether bytes arrived that must not be read yet, so that a release must wake the task.
    readable: Cell<bool>,
    /// The queue that it is in. Only `server::parking` changes it.
    pub(super) queued: Cell<Option<Busy>>,
    /// Since when.
    pub(super) queued_since: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    /// The worker to which it moves as soon as it can: see `server::moving`.
    pub(super) moves_to: Cell<Option<usize>>,
}

/// What the task of a connection has to do next.
enum Event {
    /// This many bytes arrived in the worker's buffer.
    Read(usize),
    /// There is more to execute of what was received before.
    Unexecuted,
    /// A command that was executed together with those of other connections waits.
    Waiting,
    /// The socket accepts more.
    Writable,
    /// It goes on at another worker.
    Moves,
    /// It is over.
    Over,
}

impl Connection {
    /// A new connection.
    pub fn new(stream: Stream, record: Arc<ClientRecord>, user: Option<Arc<User>>) -> Self {
        Connection::moved(stream, Client::new(record, user), Vec::new())
    }

    /// What was a connection of another worker, which had received this much of its next command.
    pub fn moved(stream: Stream, client: Client, received: Vec<u8>) -> Self {
        let state = if received.is_empty() { State::Idle } else { State::Unexecuted };
        Connection {
            record: Arc::clone(&client.record),
            client: RefCell::new(client),
            inbox: RefCell::new(Inbox::of(received)),
            outbox: RefCell::default(),
            state: Cell::new(state),
            stream: RefCell::new(stream),
            readable: Cell::new(false),
            queued: Cell::new(None),
            queued_since: Cell::new(None),
            waker: RefCell::default(),
            moves_to: Cell::new(None),
        }
    }

    /// Takes it apart for another worker: its state, what it has received, and its socket, unless the system fails.
    /// Nothing of it is under way: see `may_move`.
    pub fn take_apart(self) -> (Client, Vec<u8>, io::Result<Accepted>) {
        let (mut client, inbox) = (self.client.into_inner(), self.inbox.into_inner());
        // The letters of the other worker have numbers of their own.
        client.mail_seen = 0;
        (client, inbox.received.into_bytes(), self.stream.into_inner().deregister())
    }

    /// Whether it must stay with its worker just now, for what it listens to or waits for.
    pub fn is_tied(&self) -> bool {
        self.client.try_borrow().map_or(true, |client| client.is_tied())
    }

    /// Whether it is between two commands, with all replies sent and nothing else under way, and its task alone has
    /// hold of it beside the worker's list.
    fn may_move(self: &Rc<Self>) -> bool {
        let is_between = matches!(self.state(), State::Idle | State::Unexecuted);
        let has_sent = {
            let outbox = self.outbox.borrow();
            outbox.sending == Sending::Nothing && outbox.output.is_empty()
        };
        let is_held = Rc::strong_count(self) > 2 || self.queued.get().is_some();
        is_between && has_sent && !is_held && !self.record.killed.load(Relaxed) && !self.is_tied()
    }

    /// Its next step.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Enters another state, unless the connection is over.
    pub(super) fn enter(&self, next: State) {
        if !self.state.get().is_over() {
            self.state.set(next);
            if next == State::Closing {
                self.record.closing.store(true, Relaxed);
            }
            if next.is_over() {
                self.record.over.store(true, Relaxed);
            }
        }
    }

    /// The lock that its next command waits for.
    pub fn parked(&self) -> Option<Busy> {
        match self.state.get() {
            State::Parked(busy) => Some(busy),
            _ => None,
        }
    }

    /// When it last sent a command, Unix ms; the end of time if it waits in a command, or listens.
    pub fn idle_since_ms(&self) -> u64 {
        let may_idle_out = self.record.may_idle_out() && self.parked().is_none();
        if may_idle_out { self.record.active_ms.load(Relaxed) } else { u64::MAX }
    }

    /// The database that its next command will use.
    pub fn selected_db(&self) -> u32 {
        self.client.borrow().db
    }

    /// The block of the log that must be safe before its replies may leave.
    pub(super) fn needs_block(&self) -> u64 {
        self.outbox.borrow_mut().needs_block()
    }

    /// Whether its replies wait for the log.
    pub fn is_held(&self) -> bool {
        self.outbox.borrow().sending == Sending::Held
    }

    /// Ends it. Its task will notice.
    pub fn close(&self) {
        self.enter(State::Over { abandoned: false });
        self.wake();
    }

    /// Follows a change of users or their rules: it ends if its user was deleted, or may no longer hear what it
    /// listens to.
    pub fn follow_rules(&self, server: &Server) {
        // One that executes something just now looks for itself before its next command.
        let may_go_on = self.client.try_borrow_mut().map_or(true, |mut client| client.renew_user(server));
        if !may_go_on {
            server.close_client(self.record.id);
        }
    }

    /// Ends it without sending its replies.
    pub fn discard(&self) {
        self.outbox.borrow_mut().discard();
        self.close();
    }

    /// Ends it because too much is unsent.
    pub fn end_over_output_limit(&self, worker: &Worker) {
        logging::warning(format_args!("Client id={} closed for overcoming of output buffer limits.", self.record.id));
        worker.server.counters.output_buffer_limit_disconnections.add(1);
        self.discard();
    }

    /// Wakes its task to check for work.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The log is safe: sends the replies.
    ///
    /// Returns whether all have left and their service times are to be settled.
    pub fn release(&self, worker: &Worker, allowed: Instant) -> bool {
        if let Ok(mut client) = self.client.try_borrow_mut() {
            client.served.note_allowed(allowed);
        }
        let has_settled = self.send(worker);
        // Without work the task sleeps on: the next bytes will wake it.
        let is_backlogged = self.outbox.borrow().sending == Sending::Backlogged;
        if self.readable.get() || is_backlogged || matches!(self.state(), State::Unexecuted | State::Over { .. }) {
            self.wake();
        } else if self.moves_to.get().is_some() {
            // Now it may be able to.
            self.wake();
        }
        has_settled && self.client.try_borrow().is_ok_and(|client| !client.served.is_empty())
    }

    /// Sends as much as the socket takes, up to the limit of one turn. Returns whether everything has left.
    fn send(&self, worker: &Worker) -> bool {
        let mut outbox = self.outbox.borrow_mut();
        let counters = &worker.server.workers[worker.index].counters;
        let sent = outbox.send(&mut self.stream.borrow_mut(), &self.record, counters);
        match sent {
            Sent::All => {}
            Sent::Part => {
                let unsent = outbox.unsent();
                drop(outbox);
                worker.server.clients.recent_output.note(unsent as u64, self.record.active_ms.load(Relaxed));
                self.recount(worker);
                if unsent > UNAUTHENTICATED_UNSENT_MAX_BYTES && self.is_unauthenticated() {
                    self.end_over_output_limit(worker);
                }
                return false;
            }
            Sent::Failed => {
                outbox.discard();
                self.enter(State::Over { abandoned: true });
            }
        }
        worker.turn.return_output(outbox.take_empty());
        drop(outbox);
        if self.record.has_extra_memory() {
            self.recount(worker);
        }
        if self.state() == State::Closing {
            self.enter(State::Over { abandoned: false });
        }
        sent == Sent::All
    }

    /// All replies have left.
    pub(super) fn settle_served(&self, worker: &Worker, now: Instant) {
        // After a panic in the middle of a command, the client stays borrowed.
        let Ok(mut client) = self.client.try_borrow_mut() else { return };
        if !client.served.is_empty() {
            let stats = &worker.server.workers[worker.index];
            let slow = &worker.server.commandlogs.slow;
            client.served.settle(&stats.service, now, |id, parts| slow.settle(id, parts));
        }
    }

    /// Whether it may execute only AUTH and similar commands yet.
    fn is_unauthenticated(&self) -> bool {
        self.client.borrow().user.is_none()
    }

    /// Waits for the next event.
    fn poll_event(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Event> {
        if self.state().is_over() {
            return Poll::Ready(Event::Over);
        }
        let (sending, unsent) = {
            let outbox = self.outbox.borrow();
            (outbox.sending, outbox.unsent())
        };
        if sending == Sending::Backlogged {
            let ready = self.stream.borrow().poll_write_ready(cx);
            match ready {
                Poll::Ready(Ok(())) => return Poll::Ready(Event::Writable),
                Poll::Ready(Err(_)) => {
                    self.enter(State::Over { abandoned: true });
                    return Poll::Ready(Event::Over);
                }
                Poll::Pending => {}
            }
        }
        // Any event may end or release the connection, so the task to wake is remembered.
        if !self.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if self.state() == State::Waiting {
            return Poll::Ready(Event::Waiting);
        }
        if self.parked() == Some(Busy::Pause) {
            return self.poll_paused(worker, cx);
        }
        if sending == Sending::Held || self.state().is_deaf() {
            // Registers for the next bytes nevertheless, so that a release need not wake this task needlessly.
            let ready = self.stream.borrow().poll_read_ready(cx);
            return match ready {
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

    /// The client sends no more but may still read. The connection is over when the client has all its replies, or
    /// when sending more of them fails.
    fn poll_finished(&self) -> Poll<Event> {
        match self.outbox.borrow().sending {
            Sending::Backlogged => Poll::Pending,
            Sending::Nothing | Sending::Held => Poll::Ready(Event::Over),
        }
    }

    /// Keeps arriving bytes until some of the replies are gone: a client that reads only after it has sent everything
    /// must not be blocked.
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

    /// Keeps arriving bytes while its next command waits for the end of a pause, which may be long. A client that
    /// leaves is gone: that command is not executed.
    fn poll_paused(&self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match self.poll_read(worker, 0, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(0) => self.enter(State::Over { abandoned: false }),
                Poll::Ready(arrived) => {
                    self.keep_arrived(&worker.read_buffer.borrow()[..arrived]);
                    self.note_received(worker);
                }
            }
            if self.state().is_over() {
                return Poll::Ready(Event::Over);
            }
        }
    }

    /// Reads into the worker's buffer, behind this many bytes. Returns 0 at the end of the stream, for any reason.
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
        // A command that arrives in parts is activity, too, even if none is executed.
        note_active(&self.record);
    }

    /// Reports how much is pending, and ends the connection if it is too much.
    pub(super) fn note_received(&self, worker: &Worker) {
        let (received, room, decoded) = {
            let inbox = self.inbox.borrow();
            (inbox.received.len() as u64, inbox.received.room() as u64, inbox.decoding.room_bytes() as u64)
        };
        self.record.query_bytes.store(received, Relaxed);
        self.record.query_room.store(room, Relaxed);
        self.record.argument_bytes.store(decoded, Relaxed);
        self.recount(worker);
        let waiting = received + decoded;
        if waiting == 0 {
            return;
        }
        worker.server.clients.recent_input.note(waiting, self.record.active_ms.load(Relaxed));
        let (mut limit, maxmemory) = {
            let executor = worker.executor.borrow();
            (executor.settings().client_query_buffer_limit, executor.settings().maxmemory)
        };
        if waiting >= EVICTING_MIN_BYTES && maxmemory > 0 && alloc::used_memory() as u64 > maxmemory {
            worker.eviction_wanted.notify_one();
        }
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

    /// Goes on with a command about many subscriptions. Returns whether there is more to do.
    pub(super) fn go_on(self: &Rc<Self>, worker: &Worker, work: &mut Subscribing) -> bool {
        let more = {
            let (mut client, mut outbox) = (self.client.borrow_mut(), self.outbox.borrow_mut());
            work.step(&mut client, &worker.server, NAMES_PER_STEP, &mut outbox.output)
        };
        self.queue_replies(worker);
        more && !self.state().is_over()
    }

    /// Leaves some of its channels, because the connection has ended. Returns whether there are more.
    fn unsubscribe_some(&self, server: &Server, limit: usize) -> bool {
        self.client.try_borrow_mut().is_ok_and(|mut client| client.unsubscribe_some(server, limit))
    }

    /// Leaves all its channels, because the connection has ended.
    pub fn unsubscribe(&self, server: &Server) {
        self.unsubscribe_some(server, usize::MAX);
    }

    /// Counts its memory, if that has changed, and closes the largest clients if all take too much.
    fn recount(&self, worker: &Worker) {
        let clients = &worker.server.clients;
        if clients.recount(&self.record) {
            client_eviction::run_if_needed(&worker.server);
        }
    }

    /// Stops watching all keys, because the connection has ended.
    pub fn unwatch(&self, server: &Server) {
        // After a panic in the middle of a command, the client stays borrowed.
        if let Ok(mut client) = self.client.try_borrow_mut() {
            client.unwatch(&server.keyspace);
        }
    }

    /// Whether the log lacks a change of its own, so that the fate of the change is unknown.
    pub fn has_unlogged_change(&self, logged: u64) -> bool {
        self.client.borrow().last_write_block > logged
    }

    /// Whether more is unsent than `client-output-buffer-limit` allows for its class.
    pub(super) fn is_over_output_limit(&self, worker: &Worker) -> bool {
        let limit = worker.executor.borrow().settings().client_output_buffer_limits[self.record.class() as usize];
        self.outbox.borrow_mut().is_over(limit)
    }

    /// Whether the unsent output has exceeded the soft limit for too long.
    pub fn is_over_soft_limit(&self, worker: &Worker) -> bool {
        self.outbox.borrow().is_above_soft_limit() && self.is_over_output_limit(worker)
    }

    /// Executes what a client sent before it left.
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
            // A client that reads no replies does not learn of a failed log, either. The log itself reports it.
            if let Err(error) = worker.server.store.log().flush() {
                logging::debug(format_args!("What a client sent that has gone is not logged: {error}"));
            }
            match next {
                State::Unexecuted => tokio::task::yield_now().await,
                State::Parked(busy) if busy != Busy::Pause => tokio::time::sleep(PATIENCE).await,
                _ => return,
            }
        }
    }

    /// Completes when the connection must end although it waits in a command. Until then it sends the earlier replies
    /// and keeps arriving bytes. `listening` says whether the end of the stream ends the wait.
    fn poll_waiting(&self, worker: &Worker, listening: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.state().is_over() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            let is_backlogged = self.outbox.borrow().sending == Sending::Backlogged;
            if is_backlogged {
                // A statement of its own, because sending borrows the stream, too.
                let ready = self.stream.borrow().poll_write_ready(cx);
                match ready {
                    Poll::Pending => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {
                        if self.send(worker) {
                            self.settle_served(worker, Instant::now());
                        }
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

/// Removes the connection from the registers when its task ends, even by a panic.
struct Registered<'a> {
    worker: &'a Worker,
    connection: &'a Connection,
    /// Whether it only moves to another worker.
    moves: bool,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if self.moves {
            return;
        }
        self.worker.parking.leave(self.connection);
        self.worker.remove(self.connection);
    }
}

/// Serves a connection until it ends, or moves to another worker.
pub async fn serve(worker: Rc<Worker>, connection: Rc<Connection>) {
    if serve_here(&worker, &connection).await {
        moving::send_on(&worker, connection);
    }
}

/// Serves a connection, and returns whether it is to go on at another worker. If not, it has ended.
async fn serve_here(worker: &Rc<Worker>, connection: &Rc<Connection>) -> bool {
    let mut registered = Registered { worker, connection, moves: false };
    loop {
        let event = poll_fn(|cx| match connection.moves_to.get() {
            Some(_) if connection.may_move() => Poll::Ready(Event::Moves),
            _ => connection.poll_event(worker, cx),
        });
        match event.await {
            Event::Over => break,
            Event::Moves => {
                registered.moves = true;
                return true;
            }
            Event::Writable => {
                if connection.send(worker) {
                    connection.settle_served(worker, Instant::now());
                }
                tokio::task::yield_now().await;
                continue;
            }
            Event::Read(arrived) if connection.stage(worker, arrived) => continue,
            Event::Read(arrived) => connection.execute_arrived(worker, arrived),
            Event::Waiting => {}
            Event::Unexecuted => {
                tokio::task::yield_now().await;
                connection.execute_unexecuted(worker);
            }
        }
        // A separate statement, because an `if let` would keep the client borrowed during the wait.
        let mut wait = connection.client.borrow_mut().wait.take();
        while let Some(one) = wait {
            wait_and_reply(worker, connection, one).await;
            // A transaction with a long script in it may have left work to be done.
            wait = connection.client.borrow_mut().wait.take_if(|_| !connection.state().is_over());
        }
    }
    connection.enter(State::Over { abandoned: false });
    if connection.state() == (State::Over { abandoned: true }) {
        // If it stayed in its queue, it would run a second time.
        worker.parking.leave(connection);
        connection.execute_rest(worker).await;
    }
    while connection.unsubscribe_some(&worker.server, NAMES_PER_STEP) {
        tokio::task::yield_now().await;
    }
    if let Some(buffer) = connection.inbox.take().received.into_large() {
        worker.free_later(buffer);
    }
    false
}

/// The keys of a waiting XREAD of a connection that tracks what it reads. They are declared stale behind the reply: a
/// change of them may have been told while the reply was on its way here.
fn read_keys(client: &Client, wait: &Wait) -> Option<Arc<[StaleKey]>> {
    let Wait::Keys(blocked) = wait else { return None };
    let reads = client.remembers_reads() && blocked.waiter.on == BlockedOn::Stream;
    let stale = |(_, key): &(u64, Box<[u8]>)| StaleKey { key: key.clone(), by: 0 };
    reads.then(|| blocked.waiter.keys.iter().map(stale).collect())
}

/// Waits on behalf of a command, and writes its reply.
async fn wait_and_reply(worker: &Rc<Worker>, connection: &Rc<Connection>, wait: Wait) {
    let unblock = Unblock::new(&connection.record, &wait);
    connection.record.waits_for_time.store(wait.has_timeout(), Relaxed);
    connection.record.may_be_unblocked.store(wait.may_be_unblocked(), Relaxed);
    connection.record.blocked.store(!matches!(wait, Wait::Script(_)), Relaxed);
    // Redis does these synchronously: the reply comes even if the client has finished sending.
    let is_synchronous = matches!(
        wait,
        Wait::Snapshot(_)
            | Wait::Reload(_)
            | Wait::Migration(_)
            | Wait::Deferred(_)
            | Wait::Subscribing(_)
            | Wait::Script(_)
    );
    let listening = !is_synchronous;
    let read = read_keys(&connection.client.borrow(), &wait);
    let finish = tokio::select! {
        finish = finished(worker, connection, wait, unblock) => Some(finish),
        () = poll_fn(|cx| connection.poll_waiting(worker, listening, cx)) => None,
    };
    let (audited, asked) = {
        let mut client = connection.client.borrow_mut();
        (client.audited.take(), client.asked.take())
    };
    let finish = finish.filter(|_| !connection.record.killed.load(Relaxed));
    let has_finished = finish.is_some();
    if let Some(finish) = finish {
        let mut client = connection.client.borrow_mut();
        let mut outbox = connection.outbox.borrow_mut();
        if let Some(block) = finish.block {
            client.last_write_block = block;
        }
        // Whatever the state of the log when the wait began, the reply may show something written since.
        outbox.writes_refused = false;
        let (mark, replied) = (outbox.output.mark(), outbox.output.len());
        let _done = (finish.reply)(Reply::new(&mut outbox.output, client.resp));
        let error = outbox.output.error_since(mark);
        if let Some(asked) = asked.filter(|_| !finish.is_counted) {
            let size = outbox.output.len().saturating_sub(replied);
            worker.executor.borrow_mut().note_ended(&asked, &client, (error.is_some(), size));
        }
        if let Some(begun) = audited {
            begun.note_end(&connection.record, error);
        }
        settle_reply_mode(&mut client, mark, &mut outbox.output);
        if client.wait.is_none() && !client.late.is_empty() {
            outbox.output.append(&mut client.late);
        }
        if let Some(keys) = read {
            let it = Invalidation { keys, reason: Reason::Read, block: worker.server.store.journal().position() };
            client.invalidate(&worker.server, &it, &mut outbox.output);
        }
    } else if let Some(begun) = audited {
        begun.note_end(&connection.record, Some(b"closed"));
    }
    // Who sees that nobody waits finds the command counted.
    connection.record.blocked.store(false, Relaxed);
    connection.record.waits_for_time.store(false, Relaxed);
    connection.record.may_be_unblocked.store(false, Relaxed);
    note_active(&connection.record);
    if !has_finished {
        return connection.close();
    }
    let (waits, is_idle) = (connection.client.borrow().wait.is_some(), connection.inbox.borrow().received.is_empty());
    connection.enter(match (waits, is_idle) {
        (true, _) => State::Waiting,
        (false, true) => State::Idle,
        (false, false) => State::Unexecuted,
    });
    connection.queue_replies(worker);
}

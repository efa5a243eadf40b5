//! One worker: an OS thread with its own runtime and connections.
//!
//! Invariants:
//! - A command runs on the thread that read it. A connection moves to another worker only between two commands, when
//!   nothing of it is under way: see `server::moving`.
//! - State that tasks share belongs to this thread alone (`Rc`, `RefCell`), and no borrow lives across an `await`.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use super::connection::Connection;
use super::moving;
use super::parking::{self, Parking};
use super::turn::{self, Turn};
use crate::base::{cgroup, clock, logging, slab};
use crate::core::client::ClientRecord;
use crate::core::mailbox::{Accepted, Mail};
use crate::core::message::{Needs, Published};
use crate::core::{Client, Server};
use crate::events::invalidation::Redirected;
use crate::exec::Executor;
use crate::resp::{Output, Resp};
use crate::server::socket::Stream;

/// The most bytes of one read.
pub const READ_MAX_BYTES: usize = 64 * 1024;
/// How often a worker looks for expired keys.
const SWEEP_PERIOD: Duration = Duration::from_millis(50);
/// How often a worker that is out of service looks whether it is in service again.
const REST: Duration = Duration::from_millis(500);
/// How many expired keys are removed at once, before connections get their turn again.
const SWEEP_KEYS: usize = 200;
/// How often a worker looks whether memory is above `maxmemory`, and while there is no limit.
const EVICTION_PERIOD: Duration = Duration::from_millis(10);
const UNLIMITED_PERIOD: Duration = Duration::from_millis(100);
/// How often a worker takes back its own memory that other threads have freed, and how long it pauses between two
/// steps of that.
const TIDY_PERIOD: Duration = Duration::from_millis(50);
const TIDY_PAUSE: Duration = Duration::from_millis(1);
/// How often a worker begins a pass over sparse slabs, if there are any; after how many steps it pauses, and for how
/// long. A pass should take a small part of its time.
const RELOCATION_PERIOD: Duration = Duration::from_millis(100);
const RELOCATION_STEPS: usize = 4;
const RELOCATION_PAUSE: Duration = Duration::from_millis(1);
/// After how many periods a pass begins even if no more slabs have become sparse.
const RELOCATION_RETRY: usize = 50;
/// How long a script pauses that waits for a lock.
const SCRIPT_PAUSE: Duration = Duration::from_millis(1);
/// How often idle connections are searched for.
const IDLE_PERIOD: Duration = Duration::from_secs(1);
/// After how many of these searches the peak of a connection's output is measured anew.
const PEAK_TICKS: u32 = 5;

/// What the tasks of one worker share.
#[derive(Debug)]
pub struct Worker {
    /// The server.
    pub server: Arc<Server>,
    /// This worker's number.
    pub index: usize,
    /// What executes commands.
    pub executor: RefCell<Executor>,
    /// The buffer into which sockets are read, one at a time.
    pub read_buffer: RefCell<Box<[u8]>>,
    /// Whether a buffer of the worker may hold a secret that a client has sent, at the end of the turn.
    pub holds_secret: Cell<bool>,
    /// What it collects in a turn of the event loop.
    pub turn: Turn,
    /// Asks for eviction before its time.
    pub eviction_wanted: Notify,
    /// Connections whose next command waits for a lock.
    pub parking: Parking,
    /// Asks for connections to be woken that are to move to other workers.
    pub moves_wanted: Notify,
    /// Asks for the scripts that were left in the middle to go on.
    pub scripts_wanted: Notify,
    /// The progress of the log: changes whenever `synced` advances, or the log fails or heals.
    pub log_progress: watch::Receiver<u64>,
    /// The memory that the process may use, in bytes.
    memory_limit: u64,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
}

impl Worker {
    /// A connection of this worker.
    pub fn connection(&self, client: u64) -> Option<Rc<Connection>> {
        self.connections.borrow().get(&client).cloned()
    }

    /// Whether it is to send on its connections, and takes no part in what workers do beside serving.
    pub fn is_out_of_service(&self) -> bool {
        self.index >= self.server.roster.in_service()
    }

    /// All of its connections.
    pub fn all_connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Adds a connection.
    pub fn own(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().insert(connection.record.id, Rc::clone(connection));
    }

    /// Forgets a connection that goes on elsewhere.
    pub fn forget(&self, client: u64) {
        self.connections.borrow_mut().remove(&client);
    }

    /// Forgets what is left of a connection whose socket is gone, and that is in no list of a worker.
    pub fn end(&self, mut client: Client) {
        client.unwatch(&self.server.keyspace);
        self.server.clients.remove(&client.record);
    }

    /// The worker that serves a client which this one does not serve any more.
    fn elsewhere(&self, client: u64) -> Option<usize> {
        self.server.clients.get(client).map(|record| record.worker()).filter(|worker| *worker != self.index)
    }

    /// Forgets a connection that has ended.
    pub fn remove(&self, connection: &Connection) {
        let id = connection.record.id;
        connection.unwatch(&self.server);
        connection.unsubscribe(&self.server);
        self.server.end_monitoring(&connection.record);
        self.server.end_tracking(&connection.record);
        self.connections.borrow_mut().remove(&id);
        self.server.clients.remove(&connection.record);
    }

    /// Frees a large buffer on another thread, so that no connection waits for that.
    pub fn free_later(&self, buffer: Vec<u8>) {
        let bytes = buffer.capacity() as u64;
        self.server.reclaim(Box::new(buffer), 0, bytes);
    }
}

/// Runs a worker until the process ends.
pub fn run(server: Arc<Server>, index: usize, runtime: &Runtime, log_progress: watch::Receiver<u64>) {
    if let Some(place) = server.loops.get(index) {
        // A worker starts once.
        let _ = place.set(runtime.handle().clone());
    }
    let worker = Rc::new(Worker {
        executor: RefCell::new(Executor::new(Arc::clone(&server), index)),
        server,
        index,
        read_buffer: RefCell::new(vec![0; READ_MAX_BYTES].into_boxed_slice()),
        holds_secret: Cell::new(false),
        turn: Turn::default(),
        eviction_wanted: Notify::new(),
        parking: Parking::default(),
        moves_wanted: Notify::new(),
        scripts_wanted: Notify::new(),
        log_progress,
        memory_limit: cgroup::memory_limit(),
        connections: RefCell::default(),
    });
    let tasks = LocalSet::new();
    tasks.spawn_local(keep_running(Rc::clone(&worker), "flusher", turn::run));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "parking", parking::run));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "scripts", run_scripts));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "moving of connections", moving::run));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "expiry", sweep));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "eviction", evict));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "tidying", tidy));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "relocation", relocate));
    tasks.spawn_local(keep_running(Rc::clone(&worker), "watch over connections", close_overdue));
    tasks.block_on(runtime, keep_running(worker, "mail", read_mail));
}

/// Processes the letters to this worker.
async fn read_mail(worker: Rc<Worker>) {
    let mut letters = VecDeque::new();
    loop {
        let first = worker.server.mailboxes.receive(worker.index, &mut letters).await;
        read_each(&mut letters, first, |number, letter| read(&worker, number, letter));
        // What is delivered leaves, and connections get their turn, before more is delivered.
        tokio::task::yield_now().await;
    }
}

/// Processes letters in order. A panic over one of them does not lose the others, which may be new connections.
fn read_each(letters: &mut VecDeque<Mail>, first: u64, mut read: impl FnMut(u64, Mail)) {
    for (letter, number) in letters.drain(..).zip(first..) {
        if catch_unwind(AssertUnwindSafe(|| read(number, letter))).is_err() {
            logging::warning(format_args!("BUG: a panic stopped the processing of a letter to a worker"));
        }
    }
}

fn read(worker: &Rc<Worker>, number: u64, letter: Mail) {
    match letter {
        Mail::Connection { socket, record } => accept(worker, socket, record),
        Mail::Moved(moved) => moving::take_over(worker, *moved),
        Mail::Roster => moving::follow_roster(worker),
        Mail::Share(to) => moving::share(worker, to),
        Mail::Push { client, bytes, block } => {
            if let Some(connection) = worker.connection(client) {
                connection.push(worker, number, &Needs::Block(block), |_, out| out.raw(&bytes));
            } else if let Some(other) = worker.elsewhere(client) {
                worker.server.mailboxes.post(other, Mail::Push { client, bytes, block });
            }
        }
        Mail::Publish(published) => deliver(worker, number, &published),
        Mail::Settled => worker.turn.want(),
        Mail::Invalidate { clients, it } => {
            for client in clients.iter().filter_map(|client| worker.connection(*client)) {
                client.invalidate(worker, number, &it);
            }
        }
        Mail::InvalidateAll { except, it } => {
            let is_told = |c: &&Rc<Connection>| c.record.id != except && c.record.tracking.load(Relaxed) != 0;
            let clients: Vec<_> = worker.connections.borrow().values().filter(is_told).cloned().collect();
            clients.iter().for_each(|client| client.invalidate(worker, number, &it));
        }
        Mail::Redirected(redirected) => redirect(worker, number, redirected),
        Mail::RedirectMissed { client, to } => {
            if let Some(connection) = worker.connection(client) {
                connection.write(worker, number, 0, |client, out| client.miss_redirect(to, out));
            }
        }
        Mail::Shown { client, line, block } => {
            if let Some(connection) = worker.connection(client).filter(|c| c.record.monitor.load(Relaxed)) {
                connection.push(worker, number, &Needs::Block(block), |_, out| out.raw(&line));
            }
        }
        Mail::RulesChanged => {
            let all: Vec<_> = worker.connections.borrow().values().cloned().collect();
            all.iter().for_each(|connection| connection.follow_rules(&worker.server));
        }
        Mail::Resume => worker.parking.wake(),
        Mail::Close { client } => {
            if let Some(connection) = worker.connection(client) {
                connection.close();
            }
        }
    }
}

/// Writes an invalidation to the connection to which it is redirected.
fn redirect(worker: &Rc<Worker>, number: u64, redirected: Box<Redirected>) {
    let Redirected { to, from, block, .. } = *redirected;
    if let Some(connection) = worker.connection(to).filter(|connection| !connection.state().is_over()) {
        let server = &worker.server;
        return connection.write(worker, number, block, |client, out| client.take_redirected(server, &redirected, out));
    }
    match worker.elsewhere(to) {
        Some(other) => worker.server.mailboxes.post(other, Mail::Redirected(redirected)),
        None => worker.server.mailboxes.post(from.worker, Mail::RedirectMissed { client: from.client, to }),
    }
}

/// Sends a message to those of the worker's clients who receive it.
fn deliver(worker: &Rc<Worker>, number: u64, published: &Published) {
    let needs = &published.message.needs;
    let to = |client: u64, write: &dyn Fn(Resp, &mut Output)| {
        if let Some(connection) = worker.connection(client) {
            connection.push(worker, number, needs, write);
        }
    };
    for client in &*published.receivers.channel {
        to(*client, &|resp, out| published.write(resp, out));
    }
    for (pattern, clients) in &published.receivers.patterns {
        for client in &**clients {
            to(*client, &|resp, out| published.write_for_pattern(pattern, resp, out));
        }
    }
}

fn accept(worker: &Rc<Worker>, mut socket: Accepted, record: Arc<ClientRecord>) {
    let named = match &mut socket {
        Accepted::Tls(secured) => secured.user.take(),
        Accepted::Tcp(_) | Accepted::Unix(_) => None,
    };
    if record.killed.load(Relaxed) {
        return worker.server.clients.remove(&record);
    }
    let stream = match Stream::register(socket) {
        Ok(stream) => stream,
        Err(error) => {
            logging::warning(format_args!("A connection could not be registered: {error}"));
            return worker.server.clients.remove(&record);
        }
    };
    let user = named.or_else(|| worker.server.users.of_new_connection());
    moving::begin(worker, Rc::new(Connection::new(stream, record, user)));
}

/// Lets scripts go on that were left in the middle, each for a time slice in turn. Between two slices, connections get
/// their turn.
async fn run_scripts(worker: Rc<Worker>) {
    loop {
        let next = worker.executor.borrow_mut().take_suspended();
        let Some(mut script) = next else {
            worker.scripts_wanted.notified().await;
            continue;
        };
        // The executor is not borrowed meanwhile: the script has one of its own.
        let connection = script.borrows_from().and_then(|client| worker.connection(client));
        let mut client = connection.as_ref().and_then(|connection| connection.client.try_borrow_mut().ok());
        // Its connection is to wait for it first.
        let is_early = client.as_ref().is_some_and(|client| client.wait.is_some());
        let has_ended = !is_early && script.resume(client.as_deref_mut());
        drop(client);
        let waits = script.waits();
        worker.executor.borrow_mut().after_slice(script);
        if has_ended {
            worker.turn.want();
        }
        if waits && !has_ended {
            tokio::time::sleep(SCRIPT_PAUSE).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// Removes expired keys of this worker's shards, a few at a time.
async fn sweep(worker: Rc<Worker>) {
    loop {
        let effort = worker.server.config.settings().active_expire_effort;
        tokio::time::sleep(if worker.is_out_of_service() { REST } else { SWEEP_PERIOD / effort }).await;
        loop {
            let more = worker.executor.borrow_mut().sweep_expired(keys_per_sweep(effort));
            if worker.index == 0 {
                worker.executor.borrow_mut().forget_flushes(memory_for_flushes(&worker));
            }
            if let Err(error) = worker.server.store.log().flush() {
                logging::debug(format_args!("The removal of expired keys is not logged: {error}"));
            }
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Evicts keys while memory is above `maxmemory`, a little at a time.
async fn evict(worker: Rc<Worker>) {
    loop {
        let is_limited = worker.server.config.settings().maxmemory > 0;
        let period = match is_limited {
            _ if worker.is_out_of_service() => REST,
            true => EVICTION_PERIOD,
            false => UNLIMITED_PERIOD,
        };
        // It wakes earlier if a connection receives much. In time it wakes anyway.
        let _ = tokio::time::timeout(period, worker.eviction_wanted.notified()).await;
        loop {
            let more = worker.executor.borrow_mut().evict_step();
            if !more {
                break;
            }
            if let Err(error) = worker.server.store.log().flush() {
                logging::debug(format_args!("The removal of evicted keys is not logged: {error}"));
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The memory in use above which no flush can be undone: `maxmemory`, or else most of what the process may use.
fn memory_for_flushes(worker: &Worker) -> u64 {
    match worker.server.config.settings().maxmemory {
        0 => worker.memory_limit / 4 * 3,
        limit => limit,
    }
}

/// How many keys an effort from 1 to 10 removes before connections get their turn.
fn keys_per_sweep(effort: u32) -> usize {
    SWEEP_KEYS + SWEEP_KEYS / 4 * (effort as usize - 1)
}

/// Takes back the worker's memory that other threads have freed.
async fn tidy(_: Rc<Worker>) {
    let mut tick = tokio::time::interval(TIDY_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        while !slab::tidy() {
            tokio::time::sleep(TIDY_PAUSE).await;
        }
    }
}

/// Moves blocks out of sparse slabs, a few segments at a time.
async fn relocate(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(RELOCATION_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Not every block can be moved. A pass is therefore due when more slabs have become sparse, and otherwise after a
    // while, because blocks that a snapshot shared may be unshared by then.
    let (mut ever_before, mut waited) = (0, 0);
    loop {
        tick.tick().await;
        waited += 1;
        let (now, ever) = slab::sparse_slabs();
        let is_due = ever != ever_before || waited >= RELOCATION_RETRY;
        if now == 0 || !is_due || worker.is_out_of_service() {
            continue;
        }
        (ever_before, waited) = (ever, 0);
        let mut steps = 0;
        // A running pass ends early when nothing is sparse any more. The next one continues from there.
        while slab::sparse_slabs().0 > 0 && !worker.executor.borrow_mut().relocate(slab::is_sparse) {
            steps += 1;
            if steps % RELOCATION_STEPS == 0 {
                tokio::time::sleep(RELOCATION_PAUSE).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Closes connections that have been silent for longer than `timeout`, and those that do not read.
async fn close_overdue(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(IDLE_PERIOD);
    let mut ticks: u32 = 0;
    loop {
        tick.tick().await;
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(PEAK_TICKS) {
            worker.connections.borrow().values().for_each(|connection| connection.record.age_peak());
        }
        let timeout_seconds = worker.server.config.settings().timeout_seconds;
        let oldest = match timeout_seconds {
            0 => 0,
            seconds => (clock::now_ms() as u64).saturating_sub(seconds * 1000),
        };
        let overdue = |c: &&Rc<Connection>| c.idle_since_ms() < oldest || c.is_over_soft_limit(&worker);
        let connections: Vec<_> = worker.connections.borrow().values().filter(overdue).cloned().collect();
        for connection in connections {
            if connection.idle_since_ms() < oldest {
                logging::verbose(format_args!("Closing idle client"));
                connection.close();
            } else {
                connection.end_over_output_limit(&worker);
            }
        }
    }
}

/// Runs one of the worker's own tasks again if it panics, because every connection depends on it.
async fn keep_running<F: Future<Output = ()> + 'static>(worker: Rc<Worker>, name: &str, task: fn(Rc<Worker>) -> F) {
    while let Err(error) = tokio::task::spawn_local(task(Rc::clone(&worker))).await {
        logging::warning(format_args!("BUG: the {name} of worker {} panicked and starts again: {error}", worker.index));
        // Connections that waited for it are no longer in its list.
        let connections: Vec<_> = worker.connections.borrow().values().cloned().collect();
        connections.iter().filter(|c| c.is_held()).for_each(|connection| worker.turn.want_flush(connection));
        worker.turn.want();
        worker.parking.rebuild(&connections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_over_one_letter_loses_no_other() {
        let mut letters: VecDeque<_> = (0..4).map(|client| Mail::Close { client }).collect();
        let mut seen = Vec::new();
        read_each(&mut letters, 7, |number, letter| {
            let Mail::Close { client } = letter else { return };
            assert_eq!(number, 7 + client);
            assert!(client != 1, "on purpose, over the second letter");
            seen.push(client);
        });
        assert_eq!(seen, [0, 2, 3]);
        assert!(letters.is_empty());
    }
}

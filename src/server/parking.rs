//! Parked connections: their next command cannot have its locks, because another worker's command has closed the
//! gate, is inside while this one wants to close it, or holds a shard.
//!
//! ```text
//! execute ── busy ──▶ the connection is parked, in a queue for the gate or the shard
//!                     its replies so far leave; others go on
//! every millisecond while any is parked: whose lock is free? ── the first of the queue runs, then the next, until
//!                                                               one finds it busy again
//! ```
//!
//! Unlocking code knows nothing of this, so an uncontended lock costs what it always did. Only the first of a queue
//! tries, so that ten thousand parked connections cost as little as one. The end of a pause (CLIENT PAUSE) is awaited
//! in a queue, too. Its time is known, so nothing looks every millisecond.
//!
//! Invariants:
//! - A parked command has done nothing. Its connection keeps its bytes, unexecuted.
//! - Commands of one connection run in order. Connections that wait for the same lock are tried in order of arrival.
//! - A worker's thread waits for a lock for at most [`PATIENCE`], and not at all while anything is parked.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::Connection;
use super::worker::Worker;
use crate::base::clock;
use crate::exec::PATIENCE;
use crate::keyspace::Busy;

/// How often the awaited locks are checked.
const RETRY_PERIOD: Duration = Duration::from_millis(1);
/// How long a pause is slept through at a time: the clock of the system may be set.
const PAUSE_LOOK: Duration = Duration::from_secs(1);
/// After how many of them have run, other connections get their turn.
const RUNS_PER_TURN: usize = 16;

/// The parked connections of one worker.
#[derive(Debug, Default)]
pub struct Parking {
    queues: RefCell<BTreeMap<Busy, VecDeque<Rc<Connection>>>>,
    wanted: Notify,
}

impl Parking {
    /// How long a command may wait for a lock now.
    pub fn patience(&self) -> Duration {
        if self.queues.borrow().keys().all(|busy| *busy == Busy::Pause) { PATIENCE } else { Duration::ZERO }
    }

    /// Parks a connection behind the others.
    pub fn park(&self, connection: &Rc<Connection>, busy: Busy) {
        let mut queues = self.queues.borrow_mut();
        if !queues.contains_key(&busy) {
            self.wanted.notify_one();
        }
        connection.queued.set(Some(busy));
        if connection.queued_since.get().is_none() {
            connection.queued_since.set(Some(Instant::now()));
        }
        connection.record.blocked.store(busy == Busy::Pause, Relaxed);
        queues.entry(busy).or_default().push_back(Rc::clone(connection));
    }

    /// Removes a connection from its queue, if it is in one: it has run, or has ended.
    pub fn leave(&self, connection: &Connection) {
        let Some(busy) = connection.queued.take() else { return };
        if busy == Busy::Pause {
            connection.record.blocked.store(false, Relaxed);
        }
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(&busy) else { return };
        match queue.front() {
            Some(first) if std::ptr::eq(&**first, connection) => drop(queue.pop_front()),
            _ => queue.retain(|parked| !std::ptr::eq(&**parked, connection)),
        }
        if queue.is_empty() {
            queues.remove(&busy);
        }
    }

    /// Has the queues looked at now: a pause is over.
    pub fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Rebuilds the queues from these connections, after a panic.
    pub fn rebuild(&self, connections: &[Rc<Connection>]) {
        self.queues.borrow_mut().clear();
        for connection in connections {
            connection.queued.set(None);
            if let Some(busy) = connection.parked() {
                self.park(connection, busy);
            }
        }
        self.wanted.notify_one();
    }

    /// The awaited locks.
    fn wanted_locks(&self) -> Vec<Busy> {
        self.queues.borrow().keys().copied().collect()
    }

    /// The first of a queue. It stays there while it runs, so that no other overtakes it.
    fn first(&self, busy: Busy) -> Option<Rc<Connection>> {
        self.queues.borrow().get(&busy).and_then(VecDeque::front).cloned()
    }
}

/// Retries the parked commands, while there are any.
pub async fn run(worker: Rc<Worker>) {
    loop {
        let wanted = worker.parking.wanted_locks();
        match wanted.first() {
            None => worker.parking.wanted.notified().await,
            Some(Busy::Pause) => wait_for_pause(&worker).await,
            Some(_) => tokio::time::sleep(RETRY_PERIOD).await,
        }
        for busy in worker.parking.wanted_locks() {
            retry(&worker, busy).await;
        }
    }
}

/// Waits until the pause is over, or something else happens: it has been ended or prolonged, or a lock is awaited.
async fn wait_for_pause(worker: &Worker) {
    let left = worker.server.pause.now(clock::now_ms(), &worker.server.hooks);
    let Some((_, left_ms)) = left else { return };
    tokio::select! {
        () = worker.parking.wanted.notified() => {}
        () = tokio::time::sleep(Duration::from_millis(left_ms.unsigned_abs()).min(PAUSE_LOOK)) => {}
    }
}

/// Runs those that wait for one lock, as long as it is free.
async fn retry(worker: &Rc<Worker>, busy: Busy) {
    let mut ran = 0;
    while let Some(connection) = worker.parking.first(busy) {
        // A separate statement, so that the executor is not borrowed while the command runs.
        let may_retry = worker.executor.borrow().may_retry(busy);
        if !may_retry {
            return;
        }
        connection.execute_parked(worker);
        if connection.parked() == Some(busy) {
            return;
        }
        worker.parking.leave(&connection);
        if let Some(other) = connection.parked() {
            worker.parking.park(&connection, other);
        } else if let Some(since) = connection.queued_since.take() {
            worker.server.service.parked_us.record(since.elapsed().as_micros() as u64);
        }
        ran += 1;
        if ran % RUNS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

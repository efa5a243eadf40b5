//! How connections move to another worker, when `io-threads` changes while the server runs.
//!
//! ```text
//! CONFIG SET io-threads ─ Roster, Share ─▶ each worker marks who is to go, and wakes some at a time
//! a marked connection, between two commands, nothing of it under way:
//!   old worker   out of its list ─ socket out of its runtime ─ Moved ─▶ the other's mailbox
//!   new worker   socket into its runtime ─ into its list ─ a task of its own: it goes on
//! ```
//!
//! A connection takes along its state, MULTI and WATCH included, and what it has received of the next command. One that
//! listens (SUBSCRIBE, MONITOR, CLIENT TRACKING), waits (BLPOP, a script, a pause) or has something to send stays as
//! long as that lasts, because that belongs to its worker. Whoever is out of service serves it meanwhile as ever.
//!
//! Invariants:
//! - At any time one worker owns a connection. Its record names the new one from the letter on, under the lock of that
//!   mailbox: a letter to the connection is behind the one that brings it, or comes to its old worker.
//! - What comes to the old worker too late is sent on. So nothing that is meant for a connection is lost.
//! - A connection that is killed meanwhile ends: either whoever kills it sees the new worker, or the new worker sees
//!   that it was killed. Both are written and read in one order.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::connection::{self, Connection};
use super::worker::Worker;
use crate::base::logging;
use crate::core::Mail;
use crate::core::mailbox::Moved;
use crate::server::socket::Stream;

/// How many connections are woken at a time, to move, and how long others have their turn before the next.
const WOKEN: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);

/// Other workers than before are in service. One that is not any more sends on all its connections; one that is keeps
/// those that it was about to send on.
pub fn follow_roster(worker: &Worker) {
    let roster = &worker.server.roster;
    let is_out = worker.is_out_of_service();
    worker.all_connections().iter().for_each(|connection| connection.moves_to.set(is_out.then(|| roster.deal())));
    worker.moves_wanted.notify_one();
}

/// Has connections that could move move to these workers, one to each.
pub fn share(worker: &Worker, to: Vec<usize>) {
    let free = worker.all_connections().into_iter().filter(|connection| !connection.is_tied());
    free.zip(to).for_each(|(connection, to)| connection.moves_to.set(Some(to)));
    worker.moves_wanted.notify_one();
}

/// Wakes connections that are to move, a few at a time. Those that cannot move yet do so when they can.
pub async fn run(worker: Rc<Worker>) {
    loop {
        worker.moves_wanted.notified().await;
        // By number: whoever holds on to a connection keeps it here.
        let marked = worker.all_connections().into_iter().filter(|connection| connection.moves_to.get().is_some());
        let marked: Vec<u64> = marked.map(|connection| connection.record.id).collect();
        for some in marked.chunks(WOKEN) {
            some.iter().filter_map(|id| worker.connection(*id)).for_each(|connection| connection.wake());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Sends a connection on to the worker that it is marked with: the last act of its task. It stays here, with another
/// task, if something holds on to it.
pub fn send_on(worker: &Rc<Worker>, connection: Rc<Connection>) {
    let (id, marked) = (connection.record.id, connection.moves_to.take());
    worker.forget(id);
    let to = marked.filter(|to| *to < worker.server.roster.in_service()).unwrap_or_else(|| worker.server.roster.deal());
    let whole = match Rc::try_unwrap(connection) {
        Ok(whole) if to != worker.index => whole,
        Ok(whole) => return begin(worker, Rc::new(whole)),
        Err(shared) => return begin(worker, shared),
    };
    let record = Arc::clone(&whole.record);
    let (client, received, socket) = whole.take_apart();
    match socket {
        Ok(socket) => {
            let letter = Mail::Moved(Box::new(Moved { socket, client, received }));
            worker.server.mailboxes.post_after(to, letter, || record.served_by.store(to, SeqCst));
        }
        Err(error) => {
            logging::warning(format_args!("A connection is lost, which was to move to another worker: {error}"));
            worker.end(client);
        }
    }
}

/// Takes over a connection from another worker.
pub fn take_over(worker: &Rc<Worker>, moved: Moved) {
    let Moved { socket, client, received } = moved;
    let record = Arc::clone(&client.record);
    let stream = match Stream::register(socket) {
        Ok(stream) => stream,
        Err(error) => {
            logging::warning(format_args!("A connection is lost, which another worker cannot serve: {error}"));
            return worker.end(client);
        }
    };
    let connection = Rc::new(Connection::moved(stream, client, received));
    if record.killed.load(SeqCst) {
        connection.close();
    }
    begin(worker, connection);
}

/// Serves a connection from now on, or until it can be sent on.
pub fn begin(worker: &Rc<Worker>, connection: Rc<Connection>) {
    if worker.is_out_of_service() {
        connection.moves_to.set(Some(worker.server.roster.deal()));
    }
    worker.own(&connection);
    tokio::task::spawn_local(connection::serve(Rc::clone(worker), connection));
}

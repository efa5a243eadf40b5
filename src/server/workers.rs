//! The workers: starts them, and more of them while the server runs.
//!
//! ```text
//! CONFIG SET io-threads ─▶ more than were ever started? their threads begin, each with its runtime
//!                       ─▶ the roster says how many are in service: new connections go to those
//!                       ─▶ every worker is told, and connections move: see `server::moving`
//! ```
//!
//! Invariants:
//! - A worker has all that belongs to it before its number is known, and its number before it runs.
//! - A worker that was started stays: who is out of service serves what cannot move, and otherwise sleeps.
//! - If one of the threads cannot be had, none goes on, and nothing changes.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::assemble::{StartError, failed};
use super::worker;
use crate::base::logging;
use crate::core::roster::shares;
use crate::core::{Mail, Server};
use crate::script::WORKER_STACK_BYTES;

/// Starts the workers, which run until the process ends, and makes CONFIG SET able to start more.
pub(super) fn start(server: &Arc<Server>) -> Result<(), StartError> {
    let (progress, log_progress) = watch::channel(0);
    let log = Arc::downgrade(server.store.log());
    server.store.log().on_progress(Box::new(move || {
        if let Some(log) = log.upgrade() {
            progress.send_replace(log.synced());
        }
    }));
    for index in 0..server.gate.workers() {
        let numbers = begin(server, index, log_progress.clone()).map_err(failed("a worker thread"))?;
        // Nobody but that thread waits for it.
        let _ = numbers.send(index);
    }
    let weak = Arc::downgrade(server);
    let enlist = move |wanted| match weak.upgrade() {
        Some(server) => enlist(&server, wanted, &log_progress),
        None => Ok(()),
    };
    // Set once: the server has just been made.
    let _ = server.enlist.set(Box::new(enlist));
    Ok(())
}

/// Begins the thread of a worker, which has a runtime when this returns, and waits for its number.
fn begin(server: &Arc<Server>, expected: usize, log_progress: watch::Receiver<u64>) -> io::Result<mpsc::Sender<usize>> {
    let (ready, made) = mpsc::channel();
    let (numbers, number) = mpsc::channel();
    let server = Arc::clone(server);
    let run = move || {
        let runtime: io::Result<Runtime> = Builder::new_current_thread().enable_io().enable_time().build();
        let (runtime, outcome) = match runtime {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let _ = ready.send(outcome);
        // Without a number, it was begun in vain.
        if let (Some(runtime), Ok(index)) = (runtime, number.recv()) {
            worker::run(server, index, &runtime, log_progress);
        }
    };
    std::thread::Builder::new().name(format!("worker-{expected}")).stack_size(WORKER_STACK_BYTES).spawn(run)?;
    made.recv().map_err(io::Error::other)??;
    Ok(numbers)
}

/// Has this many workers be in service. Only whoever changes the configuration calls this, outside the gate.
fn enlist(server: &Arc<Server>, wanted: usize, log_progress: &watch::Receiver<u64>) -> io::Result<()> {
    let before = server.roster.in_service();
    if wanted == before {
        return Ok(());
    }
    let missing = server.gate.workers()..wanted;
    let begun = missing.map(|index| begin(server, index, log_progress.clone())).collect::<io::Result<Vec<_>>>()?;
    for numbers in begun {
        let index = server.add_worker().ok_or_else(|| io::Error::other("there are as many workers as there can be"))?;
        let _ = numbers.send(index);
    }
    server.roster.set_in_service(wanted);
    logging::notice(format_args!("{wanted} workers are in service instead of {before}"));
    for worker in 0..server.gate.workers() {
        server.mailboxes.post(worker, Mail::Roster);
    }
    if wanted > before {
        share(server);
    }
    Ok(())
}

/// Has connections move so that each worker in service has its share.
fn share(server: &Server) {
    let mut clients = vec![0; server.roster.in_service()];
    for record in server.clients.list() {
        // Who is still with a worker that is out of service is dealt to another one anyway.
        if let Some(own) = clients.get_mut(record.worker()) {
            *own += 1;
        }
    }
    for (worker, to) in shares(&clients) {
        server.mailboxes.post(worker, Mail::Share(to));
    }
}

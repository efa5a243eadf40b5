//! The end of a worker's turn: execute what connections have staged, then the log, then all replies that
//! waited for it.
//!
//! Connections that were executed in one turn of the event loop are flushed together: one write to the
//! log, then one write to each socket.
//!
//! Invariants:
//! - Under `appendfsync always` a reply leaves once the block that covers all it may show is synced; under
//!   the other policies, once that block is written to the file.
//! - If the log fails, a connection whose own change is not in it is closed without its replies: nobody can
//!   say what becomes of that change. All others are served: reads go on, writes are refused.

use std::rc::Rc;

use super::connection::Connection;
use super::worker::Worker;
use crate::base::logging;
use crate::persist::FsyncPolicy;

/// Connections whose replies wait for the log.
struct Waiting(Vec<Rc<Connection>>);

impl Drop for Waiting {
    /// The flusher has ended, by a panic perhaps: nobody else would ever answer those who wait.
    fn drop(&mut self) {
        self.0.iter().for_each(|connection| connection.discard());
    }
}

/// Flushes whenever connections ask for it or the log advances.
pub async fn run(worker: Rc<Worker>) {
    let mut progress = worker.log_progress.clone();
    let mut waiting = Waiting(Vec::new());
    // Whatever an earlier run of this left behind, should a panic have ended it, comes first.
    worker.executing_staged.set(false);
    worker.flush_wanted.notify_one();
    loop {
        tokio::select! {
            biased;
            () = worker.flush_wanted.notified() => {}
            changed = progress.changed(), if !waiting.0.is_empty() => if changed.is_err() { return },
        }
        worker.execute_staged();
        waiting.0.append(&mut worker.flush_list.borrow_mut());
        flush(&worker, &mut waiting.0);
    }
}

fn flush(worker: &Worker, waiting: &mut Vec<Rc<Connection>>) {
    let log = worker.server.store.log();
    let durable = if log.policy() == FsyncPolicy::Always && log.is_active() {
        if waiting.iter().any(|connection| connection.needs_block() > log.synced()) {
            log.kick();
        }
        log.synced()
    } else {
        // An error poisons the log.
        log.flush().unwrap_or_else(|_| log.written())
    };
    let failed = log.is_poisoned();
    let mut closed = 0;
    waiting.retain(|connection| {
        if connection.needs_block() <= durable || !log.is_active() {
            connection.release(worker);
            return false;
        }
        if failed && connection.has_unlogged_change(durable) {
            connection.discard();
            closed += 1;
        } else if failed {
            connection.release(worker);
        }
        !failed
    });
    if closed > 0 {
        let cause = log.poisoned().unwrap_or_default();
        logging::warning(format_args!("{closed} connections close, for the log failed under their commands: {cause}"));
    }
}

//! The waits of a connection whose command was not answered at once.

use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;

use super::connection::Connection;
use super::worker::Worker;
use crate::base::clock;
use crate::core::client::ClientRecord;
use crate::core::error::Remains;
use crate::core::migration::Sent;
use crate::core::waiting::{Migrating, Waiter};
use crate::core::{CommandError, Wait};
use crate::resp::{Done, Output, Reply};

/// How a wait has ended.
pub struct Finish {
    /// Writes the reply.
    pub reply: Box<dyn FnOnce(Reply<'_>) -> Done>,
    /// The block of the log that holds what the command changed when its wait ended, if anything. It counts as the
    /// connection's last write.
    pub block: Option<u64>,
    /// Whether the command was executed when its wait ended, and counted.
    pub is_counted: bool,
}

impl Finish {
    fn by(reply: impl FnOnce(Reply<'_>) -> Done + 'static) -> Finish {
        Finish { reply: Box::new(reply), block: None, is_counted: false }
    }
}

/// Allows CLIENT UNBLOCK to end a wait that no key ends.
#[derive(Debug)]
pub struct Unblock<'a> {
    record: &'a ClientRecord,
    ended: oneshot::Receiver<bool>,
}

impl<'a> Unblock<'a> {
    /// Allows it from now on, if the wait can be ended this way.
    pub fn new(record: &'a ClientRecord, wait: &Wait) -> Self {
        let (end, ended) = oneshot::channel();
        if matches!(wait, Wait::Synced { .. } | Wait::LocalAndReplicas { .. } | Wait::Replicas { .. }) {
            *record.unblock.lock() = Some(end);
        }
        Unblock { record, ended }
    }

    /// Waits until `over`, or until it is ended from outside. Returns whether that was by an error.
    async fn or(mut self, over: impl Future<Output = ()>) -> bool {
        tokio::select! {
            by_error = &mut self.ended => return by_error.unwrap_or(false),
            () = over => {}
        }
        if self.record.unblock.lock().take().is_some() {
            return false;
        }
        // The client that took it was told that it ended the wait.
        (&mut self.ended).await.unwrap_or(false)
    }
}

impl Drop for Unblock<'_> {
    fn drop(&mut self) {
        *self.record.unblock.lock() = None;
    }
}

/// Waits, and returns what to reply.
pub async fn finished(worker: &Worker, connection: &Rc<Connection>, wait: Wait, unblock: Unblock<'_>) -> Finish {
    match wait {
        Wait::Synced { block, timeout } => {
            let over = async {
                tokio::select! {
                    () = synced(worker, block) => {}
                    () = sleep(timeout) => {}
                }
            };
            match unblock.or(over).await {
                true => unblocked(),
                false => local_and_replicas(worker, block),
            }
        }
        Wait::LocalAndReplicas { block, timeout } => match unblock.or(sleep(timeout)).await {
            true => unblocked(),
            false => local_and_replicas(worker, block),
        },
        Wait::Replicas { timeout } => match unblock.or(sleep(timeout)).await {
            true => unblocked(),
            false => Finish::by(|reply| reply.int(0)),
        },
        Wait::Refused { delay, error } => {
            sleep(Some(delay)).await;
            Finish::by(move |reply| reply.error_bytes(&error))
        }
        Wait::Snapshot(done) => {
            let outcome = done.await;
            Finish::by(move |reply| match outcome {
                Ok(Ok(())) => reply.ok(),
                _ => reply.error(&"ERR"),
            })
        }
        Wait::Reload(done) => {
            let outcome = done.await.unwrap_or(Err(CommandError::Internal(Remains::Unknown)));
            Finish::by(move |reply| match outcome {
                Ok(()) => reply.ok(),
                Err(error) => reply.error_bytes(&error.wire()),
            })
        }
        Wait::Migration(migrating) => migrated(worker, connection, *migrating).await,
        Wait::Deferred(done) => {
            let outcome = done.await;
            Finish::by(move |reply| match outcome {
                Ok(mut whole) => reply.prepared(&mut whole),
                Err(_) => reply.error(&CommandError::Internal(Remains::Unknown)),
            })
        }
        Wait::Script(done) => match done.await {
            Ok((mut whole, block)) => Finish { block, ..Finish::by(move |reply| reply.prepared(&mut whole)) },
            Err(_) => Finish::by(|reply| reply.error(&CommandError::Internal(Remains::Unknown))),
        },
        Wait::Subscribing(mut work) => {
            while connection.go_on(worker, &mut work) {
                tokio::task::yield_now().await;
            }
            Finish::by(move |reply| if work.is_reset() { reply.simple("RESET") } else { reply.withheld() })
        }
        Wait::Keys(mut blocked) => {
            let waiter = Arc::clone(&blocked.waiter);
            let answer = tokio::select! {
                answer = &mut blocked.answer => answer,
                () = look_again(worker, &waiter) => unreachable!("it looks until it is dropped"),
                () = sleep(blocked.timeout) => {
                    let null = blocked.waiter.null;
                    if blocked.give_up() {
                        return Finish::by(move |reply| null.write(reply));
                    }
                    // It is just being served.
                    (&mut blocked.answer).await
                }
            };
            let (block, is_counted) = answer.as_ref().map_or((None, false), |served| (served.block, served.is_counted));
            let reply = move |reply: Reply<'_>| match answer {
                Ok(mut served) => reply.prepared(&mut served.output),
                Err(_) => reply.error(&CommandError::Internal(Remains::Unknown)),
            };
            Finish { block, is_counted, ..Finish::by(reply) }
        }
        Wait::Shutdown(refused) => match refused.await {
            Ok(text) => Finish::by(move |reply| reply.error(&text)),
            // The server is shutting down: there is nothing to reply.
            Err(_) => pending().await,
        },
    }
}

/// How long to wait for the gate before the next attempt to close it.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Has a waiting command executed again whenever the time has come that it has named. Ends by being dropped.
async fn look_again(worker: &Worker, waiter: &Waiter) {
    let mut due = waiter.due.subscribe();
    loop {
        let Some(at) = *due.borrow_and_update() else {
            // The sender is in the waiter, which is borrowed.
            let _ = due.changed().await;
            continue;
        };
        let left = u64::try_from(at.saturating_sub(clock::now_ms())).unwrap_or(0);
        if left > 0 {
            tokio::select! {
                () = sleep(Some(Duration::from_millis(left))) => {}
                _ = due.changed() => {}
            }
            continue;
        }
        // Whether it is answered or goes on waiting, until later: it is looked at after a moment.
        worker.executor.borrow_mut().serve_due(waiter);
        sleep(Some(LOOK_AGAIN)).await;
    }
}

/// Waits until keys are sent to another server, and removes those that it has taken.
async fn migrated(worker: &Worker, connection: &Connection, mut migrating: Migrating) -> Finish {
    let lost = |_| Sent { error: Some(CommandError::Internal(Remains::Unknown)), ..Sent::default() };
    let sent = (&mut migrating.sent).await.unwrap_or_else(lost);
    loop {
        if connection.record.killed.load(Relaxed) {
            // Its end is on the way. Whoever has killed it sees nothing removed any more.
            return pending().await;
        }
        let mut out = Output::new();
        let ended = {
            let mut client = connection.client.borrow_mut();
            worker.executor.borrow_mut().end_migration(&migrating, &sent, &mut client, &mut out)
        };
        if let Some(block) = ended {
            return Finish { block, is_counted: true, ..Finish::by(move |reply| reply.prepared(&mut out)) };
        }
        sleep(Some(LOOK_AGAIN)).await;
    }
}

/// Waits until the log is synced up to a block.
async fn synced(worker: &Worker, block: u64) {
    let mut progress = worker.log_progress.clone();
    // An error means that the log has ended: the timeout decides.
    if progress.wait_for(|_| worker.server.store.log().synced() >= block).await.is_err() {
        pending::<()>().await;
    }
}

fn unblocked() -> Finish {
    Finish::by(|reply| reply.error(&CommandError::Unblocked))
}

/// Whether the log is synced up to a block, and how many replicas have it.
fn local_and_replicas(worker: &Worker, block: u64) -> Finish {
    let local = i64::from(worker.server.store.log().synced() >= block);
    Finish::by(move |reply| {
        let mut counts = reply.array(2);
        counts.int(local);
        counts.int(0);
        counts.done()
    })
}

async fn sleep(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => pending().await,
    }
}

//! What a connection waits for when its command was not answered at once.

use std::future::pending;
use std::time::Duration;

use super::worker::Worker;
use crate::command::{CommandError, Wait};
use crate::resp::{Done, Reply};

/// Writes the reply once the wait is over.
pub type Finish = Box<dyn FnOnce(Reply<'_>) -> Done>;

/// Waits, and says what to reply.
pub async fn finished(worker: &Worker, wait: Wait) -> Finish {
    match wait {
        Wait::Synced { block, timeout } => {
            let mut progress = worker.log_progress.clone();
            let synced = async {
                // An error means that the log has ended: the timeout decides.
                if progress.wait_for(|_| worker.server.store.log().synced() >= block).await.is_err() {
                    pending::<()>().await;
                }
            };
            let local = tokio::select! {
                () = synced => 1,
                () = sleep(timeout) => 0,
            };
            Box::new(move |reply| {
                let mut counts = reply.array(2);
                counts.int(local);
                counts.int(0);
                counts.done()
            })
        }
        Wait::LocalAndReplicas { block, timeout } => {
            sleep(timeout).await;
            let local = i64::from(worker.server.store.log().synced() >= block);
            Box::new(move |reply| {
                let mut counts = reply.array(2);
                counts.int(local);
                counts.int(0);
                counts.done()
            })
        }
        Wait::Replicas { timeout } => {
            sleep(timeout).await;
            Box::new(|reply| reply.int(0))
        }
        Wait::Snapshot(done) => {
            let outcome = done.await;
            Box::new(move |reply| match outcome {
                Ok(Ok(())) => reply.ok(),
                _ => reply.error(&"ERR"),
            })
        }
        Wait::Reload(done) => {
            let outcome = done.await.unwrap_or(Err(CommandError::Internal));
            Box::new(move |reply| match outcome {
                Ok(()) => reply.ok(),
                Err(error) => reply.error_bytes(&error.wire()),
            })
        }
        Wait::Keys(mut blocked) => {
            let answer = tokio::select! {
                answer = &mut blocked.answer => answer,
                () = sleep(blocked.timeout) => {
                    let null = blocked.waiter.null;
                    if blocked.give_up() {
                        return Box::new(move |reply| null.write(reply));
                    }
                    // It is being served just now.
                    (&mut blocked.answer).await
                }
            };
            Box::new(move |reply| match answer {
                Ok(mut answer) => reply.prepared(&mut answer),
                Err(_) => reply.error(&CommandError::Internal),
            })
        }
        Wait::Shutdown(refused) => match refused.await {
            Ok(text) => Box::new(move |reply| reply.error(&text)),
            // The server is ending: there is nothing to say.
            Err(_) => pending().await,
        },
    }
}

async fn sleep(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => pending().await,
    }
}

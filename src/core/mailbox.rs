//! How a thread reaches what belongs to another: letters to a worker.
//!
//! ```text
//! acceptor ── Connection ──┐
//! any thread ── Push ──────┼──▶ the worker's queue ── one wake ──▶ the worker works off all letters in one go
//! any thread ── Close ─────┘
//! ```
//!
//! Invariants:
//! - Letters of one sender are processed in the order in which they were posted.
//! - The first letter into an empty queue wakes the worker; the others find it awake.
//! - Posting never waits: the queue's lock is held only to add a letter, or to take all.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::base::lock::Mutex;
use crate::core::client::ClientRecord;

/// A connected socket as the acceptor hands it over, not yet registered with any runtime.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix socket.
    Unix(std::os::unix::net::UnixStream),
}

/// A letter to a worker.
#[derive(Debug)]
pub enum Mail {
    /// The worker owns a new connection from now on.
    Connection {
        /// The socket.
        socket: Accepted,
        /// Its entry in the register of connections.
        record: Arc<ClientRecord>,
    },
    /// Sends a push to a client, behind its earlier replies and pushes.
    Push {
        /// The connection's id. A connection that is gone receives nothing.
        client: u64,
        /// The encoded message.
        bytes: Arc<[u8]>,
        /// The block of the log that must be safe before the message leaves, because the message shows its content; 0
        /// for none.
        block: u64,
    },
    /// Closes a connection at once, even with unsent output.
    Close {
        /// The connection's id.
        client: u64,
    },
}

/// The letters that one worker has not read.
#[derive(Debug, Default)]
struct Mailbox {
    letters: Mutex<Vec<Mail>>,
    posted: Notify,
}

/// The mailboxes of all workers.
#[derive(Debug)]
pub struct Mailboxes(Box<[Mailbox]>);

impl Mailboxes {
    /// Empty mailboxes for this many workers.
    pub fn new(workers: usize) -> Self {
        Mailboxes((0..workers).map(|_| Mailbox::default()).collect())
    }

    /// Posts a letter to a worker.
    ///
    /// # Panics
    /// There is no such worker.
    pub fn post(&self, worker: usize, letter: Mail) {
        let mailbox = &self.0[worker];
        let was_empty = {
            let mut letters = mailbox.letters.lock();
            letters.push(letter);
            letters.len() == 1
        };
        if was_empty {
            mailbox.posted.notify_one();
        }
    }

    /// Waits until there are letters for a worker, and moves all of them into `letters`, which must be empty.
    pub async fn receive(&self, worker: usize, letters: &mut Vec<Mail>) {
        let mailbox = &self.0[worker];
        loop {
            std::mem::swap(&mut *mailbox.letters.lock(), letters);
            if !letters.is_empty() {
                return;
            }
            mailbox.posted.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_in_their_order_and_all_that_are_there_at_once() {
        let mailboxes = Mailboxes::new(2);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        std::thread::scope(|scope| {
            for sender in 0..4 {
                let mailboxes = &mailboxes;
                scope.spawn(move || {
                    for number in 0..1000 {
                        mailboxes.post(1, Mail::Push { client: sender, bytes: Arc::from([]), block: number });
                    }
                });
            }
            let (mut next, mut letters) = ([0; 4], Vec::new());
            while next.iter().sum::<u64>() < 4000 {
                runtime.block_on(mailboxes.receive(1, &mut letters));
                for letter in letters.drain(..) {
                    let Mail::Push { client, block, .. } = letter else { panic!("{letter:?}") };
                    assert_eq!(block, next[client as usize]);
                    next[client as usize] += 1;
                }
            }
        });
        mailboxes.post(0, Mail::Close { client: 1 });
        mailboxes.post(0, Mail::Close { client: 2 });
        let mut letters = Vec::new();
        runtime.block_on(mailboxes.receive(0, &mut letters));
        assert_eq!(letters.len(), 2);
    }
}

//! How a thread reaches what belongs to another: letters to a worker.
//!
//! ```text
//! acceptor ── Connection ──┐
//! any thread ── Push ──────┼──▶ the worker's queue ── one wake ──▶ the worker works off all letters in one go
//! any thread ── Publish ───┤
//! any thread ── Shown ─────┤
//! any thread ── Close ─────┘
//! ```
//!
//! Invariants:
//! - Letters of one sender are processed in the order in which they were posted.
//! - The first letter into an empty queue wakes the worker; the others find it awake.
//! - Posting never waits: the queue's lock is held only to add a letter, to take all, or to look through them.
//! - Letters are numbered. A connection that has looked through the unread ones ([`Mailboxes::look`]) remembers up to
//!   which number, and receives no message twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::base::lock::Mutex;
use crate::core::client::ClientRecord;
use crate::core::message::Published;

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
    /// A published message for clients of the worker.
    Publish(Published),
    /// The block of a transaction is known, for which messages wait: see
    /// [`LaterBlock`](crate::core::message::LaterBlock).
    Settled,
    /// Shows a monitor commands.
    Shown {
        /// The connection's id. One that is gone, or watches no more, is shown nothing.
        client: u64,
        /// The lines.
        line: Arc<[u8]>,
        /// As for a push.
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
    queue: Mutex<Queue>,
    /// How many letters are in it, to see without its lock that there are none.
    unread: AtomicUsize,
    posted: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    letters: Vec<Mail>,
    /// The number of the first of them: how many were taken before.
    first: u64,
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
            let letters = &mut mailbox.queue.lock().letters;
            letters.push(letter);
            mailbox.unread.store(letters.len(), Ordering::Release);
            letters.len() == 1
        };
        if was_empty {
            mailbox.posted.notify_one();
        }
    }

    /// Waits until there are letters for a worker, and moves all of them into `letters`, which must be empty. Returns
    /// the number of the first.
    pub async fn receive(&self, worker: usize, letters: &mut Vec<Mail>) -> u64 {
        let mailbox = &self.0[worker];
        loop {
            if let Some(first) = self.take(worker, letters) {
                return first;
            }
            mailbox.posted.notified().await;
        }
    }

    /// The same without waiting; `None` if there are no letters.
    fn take(&self, worker: usize, letters: &mut Vec<Mail>) -> Option<u64> {
        let mailbox = &self.0[worker];
        let mut queue = mailbox.queue.lock();
        if queue.letters.is_empty() {
            return None;
        }
        std::mem::swap(&mut queue.letters, letters);
        mailbox.unread.store(0, Ordering::Release);
        let first = queue.first;
        queue.first += letters.len() as u64;
        Some(first)
    }

    /// Whether a worker has unread letters.
    #[inline]
    pub fn has_unread(&self, worker: usize) -> bool {
        self.0.get(worker).is_some_and(|mailbox| mailbox.unread.load(Ordering::Acquire) > 0)
    }

    /// Looks at the unread letters of a worker from this number on, in their order. They stay unread. Returns the
    /// number of the next one to come.
    pub fn look(&self, worker: usize, from: u64, mut at: impl FnMut(&Mail)) -> u64 {
        let Some(mailbox) = self.0.get(worker) else { return from };
        let queue = mailbox.queue.lock();
        let seen = from.saturating_sub(queue.first).min(queue.letters.len() as u64) as usize;
        queue.letters[seen..].iter().for_each(&mut at);
        queue.first + queue.letters.len() as u64
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

//! How a thread reaches what belongs to another: letters to a worker.
//!
//! ```text
//! acceptor ── Connection ──┐
//! a worker ── Moved ───────┤
//! any thread ── Push ──────┼──▶ the worker's queue ── one wake ──▶ the worker works off all letters in one go
//! any thread ── Publish ───┤
//! any thread ── Shown, Invalidate … ┤
//! any thread ── Close ─────┘
//! ```
//!
//! Invariants:
//! - Letters of one sender are processed in the order in which they were posted. Only a connection that moves to
//!   another worker meanwhile may get them in another order. One that listens, so that it matters, does not move.
//! - The first letter into an empty queue wakes the worker; the others find it awake.
//! - Posting never waits: the queue's lock is held only to add a letter, to take all, or to look through them.
//! - A worker that delivers messages more slowly than they are published is congested. Publishing commands wait until
//!   it is not (they are parked, see `server::parking`), so that undelivered messages take bounded memory.
//! - Letters are numbered. A connection that has looked through the unread ones ([`Mailboxes::look`]) remembers up to
//!   which number, and receives no message twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::access::User;
use crate::base::lock::Mutex;
use crate::base::per_worker::PerWorker;
use crate::core::client::{Client, ClientRecord};
use crate::core::message::Published;
use crate::events::invalidation::{Invalidation, Redirected};

/// A mailbox with more undelivered copies of messages than this, or more bytes of them, is congested.
const CONGESTED_COPIES: usize = 32 * 1024;
const CONGESTED_BYTES: usize = 16 << 20;
/// A worker takes letters with about this many copies at once, before its connections get their turn.
const TAKEN_COPIES: usize = 16 * 1024;

/// A connected socket as the acceptor hands it over, not yet registered with any runtime.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix socket.
    Unix(std::os::unix::net::UnixStream),
    /// TCP under TLS.
    Tls(Box<Secured>),
}

/// A TCP connection whose TLS handshake is done.
pub struct Secured {
    /// The socket.
    pub socket: std::net::TcpStream,
    /// The state of TLS.
    pub tls: rustls::ServerConnection,
    /// The user whom the client's certificate names.
    pub user: Option<Arc<User>>,
    /// What was read of it and is not decrypted yet.
    pub unread: Vec<u8>,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A connection on its way from one worker to another, between two of its commands.
#[derive(Debug)]
pub struct Moved {
    /// The socket, registered with no runtime.
    pub socket: Accepted,
    /// Its state.
    pub client: Client,
    /// What was received and is not executed yet.
    pub received: Vec<u8>,
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
    /// The worker owns from now on what was a connection of another worker. Nothing of it is under way.
    Moved(Box<Moved>),
    /// Other workers than before are in service: see [`Roster`](crate::core::roster::Roster).
    Roster,
    /// Connections are to move to these workers, one to each.
    Share(Vec<usize>),
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
    /// Tells clients that keys have changed which they may have cached.
    Invalidate {
        /// Their ids.
        clients: Box<[u64]>,
        /// Which keys.
        it: Invalidation,
    },
    /// Tells all clients of the worker that track keys.
    InvalidateAll {
        /// The id of a connection that is told otherwise.
        except: u64,
        /// What they are told.
        it: Invalidation,
    },
    /// An invalidation for the client to which it is redirected.
    Redirected(Box<Redirected>),
    /// The client to which it is redirected is gone.
    RedirectMissed {
        /// The connection that tracks.
        client: u64,
        /// The connection that is gone.
        to: u64,
    },
    /// Shows a monitor commands.
    Shown {
        /// The connection's id. One that is gone, or watches no more, is shown nothing.
        client: u64,
        /// The lines.
        line: Arc<[u8]>,
        /// As for a push.
        block: u64,
    },
    /// Users or their rules have changed: connections that must not go on are closed.
    RulesChanged,
    /// The pause is over: paused commands run.
    Resume,
    /// Closes a connection at once, even with unsent output.
    Close {
        /// The connection's id.
        client: u64,
    },
}

impl Mail {
    /// How many pushes it causes.
    fn copies(&self) -> usize {
        match self {
            Mail::Publish(published) => published.receivers.count(),
            _ => 1,
        }
    }

    /// The memory of what it carries, in bytes.
    fn bytes(&self) -> usize {
        size_of::<Mail>()
            + match self {
                Mail::Publish(published) => published.message.bytes(),
                Mail::Push { bytes, .. } => bytes.len(),
                Mail::Shown { line, .. } => line.len(),
                _ => 0,
            }
    }
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
    letters: VecDeque<Mail>,
    /// The number of the first of them: how many were taken before.
    first: u64,
    copies: usize,
    bytes: usize,
    is_congested: bool,
}

impl Queue {
    fn push(&mut self, letter: Mail) {
        self.copies += letter.copies();
        self.bytes += letter.bytes();
        self.letters.push_back(letter);
    }

    /// Moves the first letters into `taken`: all, or those with the copies of one turn.
    fn take(&mut self, taken: &mut VecDeque<Mail>) {
        if self.copies <= TAKEN_COPIES {
            std::mem::swap(&mut self.letters, taken);
            (self.copies, self.bytes) = (0, 0);
        } else {
            let mut copies = 0;
            while copies < TAKEN_COPIES
                && let Some(letter) = self.letters.pop_front()
            {
                copies += letter.copies();
                self.bytes -= letter.bytes();
                taken.push_back(letter);
            }
            self.copies -= copies;
        }
        self.first += taken.len() as u64;
    }
}

/// The mailboxes of all workers.
#[derive(Debug)]
pub struct Mailboxes {
    of_workers: PerWorker<Mailbox>,
    /// How many of them are congested.
    congested: AtomicUsize,
}

impl Mailboxes {
    /// Empty mailboxes for this many workers.
    pub fn new(workers: usize) -> Self {
        Mailboxes { of_workers: PerWorker::new(workers, |_| Mailbox::default()), congested: AtomicUsize::new(0) }
    }

    /// Adds the mailbox of one worker more, unless there can be no more. One thread adds at a time.
    pub fn add_worker(&self) {
        let _ = self.of_workers.add(Mailbox::default());
    }

    /// Posts a letter to a worker.
    ///
    /// # Panics
    /// There is no such worker.
    pub fn post(&self, worker: usize, letter: Mail) {
        self.post_after(worker, letter, || ());
    }

    /// The same, and does `first` where nobody can post to that worker meanwhile: whoever sees what it has done posts
    /// behind this letter.
    ///
    /// # Panics
    /// There is no such worker.
    pub fn post_after(&self, worker: usize, letter: Mail, first: impl FnOnce()) {
        let mailbox = &self.of_workers[worker];
        let was_empty = {
            let mut queue = mailbox.queue.lock();
            first();
            queue.push(letter);
            self.note(mailbox, &mut queue);
            queue.letters.len() == 1
        };
        if was_empty {
            mailbox.posted.notify_one();
        }
    }

    /// Notes how full a mailbox is now.
    fn note(&self, mailbox: &Mailbox, queue: &mut Queue) {
        mailbox.unread.store(queue.letters.len(), Ordering::Release);
        let is_congested = queue.copies > CONGESTED_COPIES || queue.bytes > CONGESTED_BYTES;
        if is_congested != std::mem::replace(&mut queue.is_congested, is_congested) {
            match is_congested {
                true => self.congested.fetch_add(1, Ordering::Relaxed),
                false => self.congested.fetch_sub(1, Ordering::Relaxed),
            };
        }
    }

    /// Whether a worker has so many undelivered messages that no more should be published.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed) > 0
    }

    /// Waits until there are letters for a worker, and moves all of them into `letters`, which must be empty; if they
    /// carry many copies of messages, only the first of them. Returns the number of the first.
    pub async fn receive(&self, worker: usize, letters: &mut VecDeque<Mail>) -> u64 {
        let mailbox = &self.of_workers[worker];
        loop {
            if let Some(first) = self.take(worker, letters) {
                return first;
            }
            mailbox.posted.notified().await;
        }
    }

    /// The same without waiting; `None` if there are no letters.
    fn take(&self, worker: usize, letters: &mut VecDeque<Mail>) -> Option<u64> {
        let mailbox = &self.of_workers[worker];
        let mut queue = mailbox.queue.lock();
        if queue.letters.is_empty() {
            return None;
        }
        let first = queue.first;
        queue.take(letters);
        self.note(mailbox, &mut queue);
        Some(first)
    }

    /// Whether a worker has unread letters.
    #[inline]
    pub fn has_unread(&self, worker: usize) -> bool {
        self.of_workers.get(worker).is_some_and(|mailbox| mailbox.unread.load(Ordering::Acquire) > 0)
    }

    /// Looks at the unread letters of a worker from this number on, in their order. They stay unread. Returns the
    /// number of the next one to come.
    pub fn look(&self, worker: usize, from: u64, mut at: impl FnMut(&Mail)) -> u64 {
        let Some(mailbox) = self.of_workers.get(worker) else { return from };
        let queue = mailbox.queue.lock();
        let seen = from.saturating_sub(queue.first).min(queue.letters.len() as u64) as usize;
        queue.letters.range(seen..).for_each(&mut at);
        queue.first + queue.letters.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::message::{Message, Needs};
    use crate::events::channels::{Kind, Receivers};

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
            let (mut next, mut letters) = ([0; 4], VecDeque::new());
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
        let mut letters = VecDeque::new();
        runtime.block_on(mailboxes.receive(0, &mut letters));
        assert_eq!(letters.len(), 2);
    }

    fn message(copies: u64, bytes: usize) -> Mail {
        let receivers = Receivers { channel: Arc::new((0..copies).collect()), patterns: Vec::new() };
        let message = Message::new(Kind::Channel, b"channel", &vec![b'x'; bytes], Needs::Block(0));
        Mail::Publish(Published { message: Arc::new(message), receivers })
    }

    #[test]
    fn too_many_copies_or_bytes_congest_until_they_are_taken() {
        let mailboxes = Mailboxes::new(2);
        let mut letters = VecDeque::new();
        (0..40).for_each(|_| mailboxes.post(0, message(1000, 1)));
        assert!(mailboxes.is_congested());
        (0..20).for_each(|_| mailboxes.post(1, message(1, 1 << 20)));
        let mut taken = Vec::new();
        while let Some(first) = mailboxes.take(0, &mut letters) {
            taken.push((first, letters.drain(..).len()));
        }
        assert_eq!(taken, [(0, 17), (17, 17), (34, 6)], "a turn's part each");
        assert!(mailboxes.is_congested(), "the other one");
        mailboxes.take(1, &mut letters);
        assert_eq!((letters.len(), mailboxes.is_congested()), (20, false));
    }

    #[test]
    fn unread_letters_can_be_looked_at_once() {
        let mailboxes = Mailboxes::new(1);
        let close = |client| mailboxes.post(0, Mail::Close { client });
        let look = |from| {
            let mut seen = Vec::new();
            let next = mailboxes.look(0, from, |letter| {
                let Mail::Close { client } = letter else { panic!("{letter:?}") };
                seen.push(*client);
            });
            (seen, next)
        };
        (0..3).for_each(close);
        assert_eq!(look(0), (vec![0, 1, 2], 3));
        close(3);
        assert_eq!(look(3), (vec![3], 4));
        assert_eq!(mailboxes.take(0, &mut VecDeque::new()), Some(0));
        assert!(!mailboxes.has_unread(0));
        close(4);
        assert!(mailboxes.has_unread(0));
        assert_eq!(look(2), (vec![4], 5));
        assert_eq!(look(5), (vec![], 5));
    }
}

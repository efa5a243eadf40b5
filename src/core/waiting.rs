//! Commands that wait until one of their keys has something for them.
//!
//! A command that finds nothing hands the executor a [`Block`]. The executor registers a [`Waiter`] for its keys
//! while it still holds their locks, so that nothing is missed in between. A command that changes such a key runs
//! alone. It executes the waiting commands again before anything else runs, first come first served.
//!
//! Invariants:
//! - A waiter is answered once: by the command that serves it, by its timeout, or by CLIENT UNBLOCK. Its state
//!   decides.
//! - A waiter that is answered, or whose connection ends, leaves the register at once, and leaves its queues as soon
//!   as the shards of its keys are free.
//! - A command may also be for what comes with time alone: an entry that becomes idle enough. It says when, and its
//!   connection has it executed again then, alone behind the gate, like one whose key was changed.
//! - Lock order: a waiter's state, then shards, then the register of waiters.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::access::User;
use crate::base::lock::{Mutex, Rank};
use crate::base::long_double::LongDouble;
use crate::core::client::ClientRecord;
use crate::core::migration::{Kept, Sent};
use crate::core::{CommandError, Server};
use crate::keyspace::Keyspace;
use crate::keyspace::waiters::Ticket;
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Done, Output, Reply, Resp};
use crate::value::entry::Kind;

/// What a waiting command is for: whether a value may be of use to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedOn {
    /// A list.
    List,
    /// A sorted set.
    Zset,
    /// A stream.
    Stream,
    /// A group of a stream: also told when the key is removed or changes its type.
    StreamGroup,
}

impl BlockedOn {
    /// Whether a key that holds this kind of value, or nothing, is worth another try.
    pub fn may_use(self, kind: Option<Kind>) -> bool {
        match self {
            BlockedOn::List => matches!(kind, Some(Kind::List | Kind::ListPacked)),
            BlockedOn::Zset => matches!(kind, Some(Kind::Zset | Kind::ZsetPacked)),
            BlockedOn::Stream => kind == Some(Kind::Stream),
            BlockedOn::StreamGroup => true,
        }
    }
}

/// The reply at the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Null {
    /// A null array in RESP2.
    Array,
    /// A null bulk string in RESP2.
    Bulk,
}

impl Null {
    /// Writes it.
    pub fn write(self, reply: Reply<'_>) -> Done {
        match self {
            Null::Array => reply.null_array(),
            Null::Bulk => reply.null(),
        }
    }
}

/// A command's wish to wait.
#[derive(Debug)]
pub struct Block {
    /// For how long; `None` for ever.
    pub timeout: Option<Duration>,
    /// What to wait for.
    pub on: BlockedOn,
    /// What to reply when the time is over.
    pub null: Null,
    /// The command to execute once there is something, if it is not the one that was sent.
    pub again: Option<OwnedArgs>,
    /// When there may be something although nobody changes a key, Unix ms.
    pub due: Option<i64>,
}

impl Block {
    /// A wait for a value of a type.
    pub fn new(timeout: Option<Duration>, on: BlockedOn) -> Block {
        Block { timeout, on, null: Null::Array, again: None, due: None }
    }
}

/// A timeout in seconds, with fractions; 0 is for ever.
///
/// # Errors
/// It is not a number, negative, or beyond what a clock can count.
pub fn timeout_seconds(word: &[u8], now: i64) -> Result<Option<Duration>, CommandError> {
    let seconds = LongDouble::parse(word).ok_or(CommandError::OutOfRange("timeout is not a float or out of range"))?;
    let ms = seconds.times(1000);
    if ms > LongDouble::from_i64(i64::MAX) {
        return Err(CommandError::OutOfRange("timeout is out of range"));
    }
    timeout(ms.ceil(), now)
}

/// A timeout in milliseconds; 0 is for ever.
///
/// # Errors
/// It is negative, or beyond what a clock can count.
pub fn timeout(ms: i64, now: i64) -> Result<Option<Duration>, CommandError> {
    match u64::try_from(ms) {
        Err(_) => Err(CommandError::OutOfRange("timeout is negative")),
        Ok(_) if now.checked_add(ms).is_none() => Err(CommandError::OutOfRange("timeout is out of range")),
        Ok(0) => Ok(None),
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
    }
}

/// What a command asked that waits for a key or for time, and how long it has run so far.
#[derive(Debug)]
pub struct Asked {
    /// The command, as it was sent.
    pub args: OwnedArgs,
    /// For how long it has run in all. One that is served at once, by another worker, may lack its first run.
    ran_ns: AtomicU64,
}

impl Asked {
    /// A command that has not run yet.
    pub fn new(args: Args<'_>) -> Asked {
        Asked { args: OwnedArgs::new(args.from(0)), ran_ns: AtomicU64::new(0) }
    }

    /// It has run for so long. Returns the time of all its runs.
    pub fn add_run(&self, ns: u64) -> u64 {
        self.ran_ns.fetch_add(ns, Ordering::Relaxed) + ns
    }
}

/// A command that waits.
#[derive(Debug)]
pub struct Waiter {
    /// Its number in the order of arrival.
    pub ticket: Ticket,
    /// The connection.
    pub client: u64,
    /// What others may read of it.
    pub record: Arc<ClientRecord>,
    /// For whom it acts; `None` if it has not logged in.
    pub user: Option<Arc<User>>,
    /// The database.
    pub db: u32,
    /// The version of the protocol.
    pub resp: Resp,
    /// The command.
    pub asked: Arc<Asked>,
    /// What is executed in its place, if anything.
    pub again: Option<OwnedArgs>,
    /// What it waits for.
    pub on: BlockedOn,
    /// What to reply when the time is over.
    pub null: Null,
    /// Its keys with their hashes.
    pub keys: Vec<(u64, Box<[u8]>)>,
    /// The receiver of the reply; `None` once it is answered.
    pub state: Mutex<Option<oneshot::Sender<Served>>>,
    /// When there may be something although nobody changes a key, Unix ms: as the command said when it last ran.
    pub due: watch::Sender<Option<i64>>,
}

impl Waiter {
    /// The command to execute.
    pub fn args(&self) -> Args<'_> {
        self.again.as_ref().unwrap_or(&self.asked.args).args()
    }
}

/// What ends the wait of a command.
#[derive(Debug)]
pub struct Served {
    /// The reply.
    pub output: Output,
    /// The block of the log that holds what the command has changed; `None` if it changed nothing.
    pub block: Option<u64>,
    /// Whether the command was executed, or refused, and counted.
    pub is_counted: bool,
}

/// All commands that wait.
#[derive(Debug)]
pub struct Blocking {
    next: AtomicU64,
    count: AtomicUsize,
    /// How many of them must also be told when their key is gone.
    group_readers: AtomicUsize,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    by_ticket: HashMap<Ticket, Arc<Waiter>>,
    /// A connection waits in one command at a time.
    by_client: HashMap<u64, Ticket>,
}

impl Default for Blocking {
    fn default() -> Self {
        Blocking {
            next: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            group_readers: AtomicUsize::new(0),
            waiters: Mutex::new(Rank::Waiters, Waiters::default()),
        }
    }
}

impl Blocking {
    /// Whether there are any waiters.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Whether any waiter must be told when a key is removed: see [`BlockedOn::StreamGroup`].
    pub fn is_any_group_reader(&self) -> bool {
        self.group_readers.load(Ordering::Relaxed) > 0
    }

    /// The number of the next waiter.
    pub fn ticket(&self) -> Ticket {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a waiter, which is already in the queues of its keys.
    pub fn register(&self, waiter: Arc<Waiter>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.group_readers.fetch_add(usize::from(waiter.on == BlockedOn::StreamGroup), Ordering::Relaxed);
        let mut waiters = self.waiters.lock();
        waiters.by_client.insert(waiter.client, waiter.ticket);
        waiters.by_ticket.insert(waiter.ticket, waiter);
    }

    /// A waiter by its number.
    pub fn get(&self, ticket: Ticket) -> Option<Arc<Waiter>> {
        self.waiters.lock().by_ticket.get(&ticket).cloned()
    }

    /// How many keys have waiters, and how many of them have waiters that are also told when the key is removed.
    pub fn count_keys(&self) -> (usize, usize) {
        let waiters = self.waiters.lock();
        let count = |counts: fn(&Waiter) -> bool| {
            let waiters = waiters.by_ticket.values().filter(|waiter| counts(waiter));
            let keys = waiters.flat_map(|waiter| waiter.keys.iter().map(|(_, key)| (waiter.db, key)));
            keys.collect::<HashSet<_>>().len()
        };
        (count(|_| true), count(|waiter| waiter.on == BlockedOn::StreamGroup))
    }

    /// The waiter of a connection.
    pub fn of_client(&self, client: u64) -> Option<Arc<Waiter>> {
        let waiters = self.waiters.lock();
        waiters.by_client.get(&client).and_then(|ticket| waiters.by_ticket.get(ticket)).cloned()
    }

    /// Removes a waiter from all queues; from a queue whose shard is busy, somewhat later.
    pub fn leave(&self, keyspace: &Keyspace, waiter: &Waiter) {
        for (hash, key) in &waiter.keys {
            keyspace.leave(waiter.db, key, *hash, waiter.ticket);
        }
        let was_there = {
            let mut waiters = self.waiters.lock();
            let was_there = waiters.by_ticket.remove(&waiter.ticket).is_some();
            if was_there {
                waiters.by_client.remove(&waiter.client);
            }
            was_there
        };
        if was_there {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.group_readers.fetch_sub(usize::from(waiter.on == BlockedOn::StreamGroup), Ordering::Relaxed);
        }
    }

    /// Ends the wait of a connection that is closed, so that nothing is taken for it any more.
    pub fn abandon(&self, keyspace: &Keyspace, client: u64) {
        let Some(waiter) = self.of_client(client) else { return };
        let sender = waiter.state.lock().take();
        if sender.is_some() {
            self.leave(keyspace, &waiter);
        }
    }

    /// Answers a waiter from outside and removes it from all queues. False if it has already been answered.
    pub fn answer(&self, keyspace: &Keyspace, waiter: &Waiter, write: impl FnOnce(Reply<'_>) -> Done) -> bool {
        let Some(sender) = waiter.state.lock().take() else { return false };
        self.leave(keyspace, waiter);
        let mut out = Output::new();
        let _done = write(Reply::new(&mut out, waiter.resp));
        // The client may be gone.
        let _ = sender.send(Served { output: out, block: None, is_counted: false });
        true
    }
}

/// A wait, as its connection holds it. The wait ends with the connection.
#[derive(Debug)]
pub struct Blocked {
    /// The server.
    pub server: Arc<Server>,
    /// The waiter.
    pub waiter: Arc<Waiter>,
    /// Brings the reply.
    pub answer: oneshot::Receiver<Served>,
    /// For how long; `None` for ever.
    pub timeout: Option<Duration>,
}

impl Blocked {
    /// Ends the wait at its timeout. False if it has already been answered.
    pub fn give_up(&self) -> bool {
        self.waiter.state.lock().take().is_some()
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.give_up();
        self.server.blocking.leave(&self.server.keyspace, &self.waiter);
    }
}

/// A running MIGRATE, as its connection holds it.
#[derive(Debug)]
pub struct Migrating {
    /// The command.
    pub args: OwnedArgs,
    /// Whether the keys stay here.
    pub copies: bool,
    /// The keys, in the order in which they are sent.
    pub watched: Watched,
    /// Brings what has become of them.
    pub sent: oneshot::Receiver<Sent>,
}

/// Keys whose versions are kept. They cease to be watched when it is dropped.
#[derive(Debug)]
pub struct Watched {
    /// The server.
    pub server: Arc<Server>,
    /// The database.
    pub db: u32,
    /// The keys.
    pub keys: Vec<Kept>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        for kept in &self.keys {
            self.server.keyspace.unwatch(self.db, &kept.key, kept.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_seconds_with_fractions() {
        let ms = |word: &str| timeout_seconds(word.as_bytes(), 1000).map(|time| time.map(|t| t.as_millis()));
        assert_eq!(ms("0").unwrap(), None);
        assert_eq!(ms("0.01").unwrap(), Some(10));
        assert_eq!(ms("0.0001").unwrap(), Some(1));
        assert_eq!(ms("1e-400").unwrap(), Some(1));
        assert_eq!(ms("-1e-400").unwrap(), None);
        assert_eq!(ms("1e3").unwrap(), Some(1_000_000));
        for word in ["-1", "-1e400", "-inf"] {
            assert_eq!(ms(word).unwrap_err().to_string(), "ERR timeout is negative", "{word}");
        }
        for word in ["abc", "", "nan", "1 ", "1e5000", "1e-5000"] {
            assert_eq!(ms(word).unwrap_err().to_string(), "ERR timeout is not a float or out of range", "{word}");
        }
        for word in ["1e300", "1e400", "inf", "9223372036854775"] {
            assert_eq!(ms(word).unwrap_err().to_string(), "ERR timeout is out of range", "{word}");
        }
    }
}

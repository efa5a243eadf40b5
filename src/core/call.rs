//! One call of a command: what its handler receives.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::access::User;
use crate::core::fieldsets::Fieldsets;
use crate::core::migration::Order;
use crate::core::stored_string::{StringRef, shareable};
use crate::core::subscriber::Subscribing;
use crate::core::table::CommandEntry;
use crate::core::waiting::{Block, Blocked, Migrating};
use crate::core::{Client, CommandError, Db, Outcome, Server};
use crate::keyspace::{Frozen, Key, shard_of};
use crate::persist::verbs::RecordWriter;
use crate::resp::{Args, Done, Output, Reply};

/// How much room for keys is kept for the next call.
const KEYS_KEPT: usize = 1024;

/// The keys of a call, hashed once, before its shards are locked.
#[derive(Debug, Default)]
pub struct HashedKeys {
    /// The keys that arguments name, in their order.
    pub named: SmallVec<[HashedKey; 4]>,
    /// Whether the call may use any key, so that it runs alone behind the gate.
    pub any: bool,
    /// The hash of the member of a large collection that is to be prefetched, if any.
    pub member: Option<u64>,
}

/// One key of a call.
#[derive(Clone, Copy, Debug)]
pub struct HashedKey {
    /// Its index among the arguments.
    pub place: usize,
    /// Its hash.
    pub hash: u64,
}

impl HashedKey {
    /// The shard that it lives in.
    #[inline]
    pub fn shard(&self) -> u16 {
        shard_of(self.hash)
    }

    /// The key itself.
    #[inline]
    pub fn of<'a>(&self, args: Args<'a>) -> Key<'a> {
        Key { bytes: args.at(self.place), hash: self.hash }
    }
}

/// A call of a data command: a pure function of its arguments and of the keys that it names.
#[derive(Debug)]
pub struct Call<'a> {
    /// The arguments. The first is the name; for a subcommand, the second is its own name.
    pub args: Args<'a>,
    /// The database that the connection has selected.
    pub db: Db<'a>,
    /// The command.
    pub entry: &'a CommandEntry,
    /// A view of the whole keyspace, for [`crate::core::flags::FROZEN`].
    pub frozen: Option<Frozen>,
    /// The keys, as the executor found them.
    pub keys: &'a HashedKeys,
    /// The user, unless it may do everything.
    pub user: Option<Arc<User>>,
    /// Whether it may wait for something that does not exist yet: not inside a transaction.
    pub may_block: bool,
    /// Its wish to wait; see [`Call::block_on`].
    pub block: Option<Block>,
    /// What is to be sent to another server: MIGRATE. Its reply was withheld.
    pub migration: Option<Box<Order>>,
    /// What its connection has prepared for HIMPORT.
    pub fieldsets: Option<Arc<Fieldsets>>,
}

impl HashedKeys {
    /// Forgets them.
    #[inline]
    pub fn clear(&mut self) {
        self.named.clear();
        self.any = false;
        self.member = None;
    }

    /// Forgets them, and their memory if there are many.
    #[inline]
    pub fn forget_many(&mut self) {
        if self.named.capacity() > KEYS_KEPT {
            self.named = SmallVec::new();
        }
    }
}

impl<'a> Call<'a> {
    /// The argument at `index` as a key.
    #[inline]
    pub fn key(&self, index: usize) -> Key<'a> {
        match &self.keys.named[..] {
            [only] if only.place == index => only.of(self.args),
            _ => self.one_of_several(index),
        }
    }

    fn one_of_several(&self, index: usize) -> Key<'a> {
        match self.keys.named.iter().find(|named| named.place == index) {
            Some(named) => named.of(self.args),
            None => self.db.keyspace().key(self.args.at(index)),
        }
    }

    /// All keys, in the order of the arguments.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = Key<'a>> + use<'a> {
        let (args, keys) = (self.args, self.keys);
        keys.named.iter().map(move |named| named.of(args))
    }

    /// For a call with nothing to reply yet: waits, or replies with null where waiting is not allowed. Nothing may
    /// have been changed.
    pub fn block_on(&mut self, block: Block, reply: Reply<'_>) -> Outcome {
        if !self.may_block {
            return Ok(block.null.write(reply));
        }
        self.block = Some(block);
        Ok(reply.withheld())
    }

    /// The name of the command in lower case, as in error texts.
    pub fn name(&self) -> &'a str {
        &self.entry.full_name
    }

    /// Begins a record of what has become of `key`; see [`Db::record`].
    #[inline]
    pub fn record<'w>(&'w mut self, key: Key<'w>) -> RecordWriter<'w> {
        self.db.record(key)
    }
}

/// Writes a string value: a large one by reference, an integer in digits.
#[inline]
pub fn string_reply(reply: Reply<'_>, value: StringRef<'_>) -> Done {
    if let Some(shared) = shareable(&value) {
        return reply.shared(Box::new(shared));
    }
    match value {
        StringRef::Int(number) => reply.bulk(itoa::Buffer::new().format(number).as_bytes()),
        StringRef::Str(bytes) | StringRef::Raw(bytes) => reply.bulk(&bytes),
    }
}

/// A call of a command that needs its connection or the server.
pub struct SessionCall<'a> {
    /// The arguments; the first is the name.
    pub args: Args<'a>,
    /// The command.
    pub entry: &'a CommandEntry,
    /// The server.
    pub server: &'a Arc<Server>,
    /// The connection.
    pub client: &'a mut Client,
    /// Unix time in milliseconds.
    pub now: i64,
}

/// Why a connection waits before it goes on with its next command. Its reply was withheld.
#[derive(Debug)]
pub enum Wait {
    /// Until the log is synced up to a block, or the timeout: WAITAOF. Replies with the two numbers.
    Synced {
        /// The block of the log.
        block: u64,
        /// `None` for ever.
        timeout: Option<Duration>,
    },
    /// Until the timeout: WAITAOF that asks for replicas, too. Replies with the two numbers.
    LocalAndReplicas {
        /// The block of the log.
        block: u64,
        /// `None` for ever.
        timeout: Option<Duration>,
    },
    /// Until the timeout: WAIT. Replies with zero replicas.
    Replicas {
        /// `None` for ever.
        timeout: Option<Duration>,
    },
    /// Until the time is over: a failed login, with `auth-failure-delay-ms`. Replies with the error.
    Refused {
        /// How long.
        delay: Duration,
        /// The error, as it is sent.
        error: Vec<u8>,
    },
    /// Until a requested snapshot is done: SAVE. Replies with OK or an error.
    Snapshot(tokio::sync::oneshot::Receiver<Result<(), String>>),
    /// Until all keys are reloaded from the disk: DEBUG RELOAD. Replies with OK or an error.
    Reload(tokio::sync::oneshot::Receiver<Result<(), CommandError>>),
    /// Until keys are sent to another server: MIGRATE. What it has taken is removed then.
    Migration(Box<Migrating>),
    /// Until all names are subscribed to, or left. RESET replies then.
    Subscribing(Subscribing),
    /// Until what the command has left to be done is done. Then the whole reply.
    Deferred(tokio::sync::oneshot::Receiver<Output>),
    /// Until its script, or a transaction with one in it, which runs for long, has ended. Then the whole reply, and the
    /// block of the log that holds what a script has changed, if anything.
    Script(tokio::sync::oneshot::Receiver<(Output, Option<u64>)>),
    /// Until a key has something for the command, or the timeout.
    Keys(Blocked),
    /// Until the server ends, or an error tells why it does not: SHUTDOWN.
    Shutdown(tokio::sync::oneshot::Receiver<String>),
}

impl Wait {
    /// Whether a key or CLIENT UNBLOCK may end it.
    pub fn may_be_unblocked(&self) -> bool {
        matches!(self, Wait::Keys(_) | Wait::Synced { .. } | Wait::LocalAndReplicas { .. } | Wait::Replicas { .. })
    }

    /// Whether it ends by itself after some time.
    pub fn has_timeout(&self) -> bool {
        match self {
            Wait::Synced { timeout, .. } | Wait::LocalAndReplicas { timeout, .. } | Wait::Replicas { timeout } => {
                timeout.is_some()
            }
            Wait::Keys(blocked) => blocked.timeout.is_some(),
            Wait::Refused { .. } => true,
            Wait::Snapshot(_)
            | Wait::Reload(_)
            | Wait::Migration(_)
            | Wait::Deferred(_)
            | Wait::Script(_)
            | Wait::Shutdown(_)
            | Wait::Subscribing(_) => false,
        }
    }
}

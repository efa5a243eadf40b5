//! One connection's state, and the register of all connections.
//!
//! A [`Client`] belongs to the worker that serves it. What other threads may read (`CLIENT LIST`) is in its
//! [`ClientRecord`]: plain atomics, and a lock around what changes rarely.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crate::access::User;
use crate::access::user::DEFAULT;
use crate::base::lock::Mutex;
use tokio::sync::oneshot;

use crate::core::audit::Begun;
use crate::core::call::Wait;
use crate::core::fieldsets::Fieldsets;
use crate::core::figures::{Figures, Look};
use crate::core::memory::Claim;
use crate::core::message::Needs;
use crate::core::pause::Paused;
use crate::core::service::Served;
use crate::core::subscriber::OwnBlock;
use crate::core::waiting::Asked;
use crate::core::{CommandError, Flags, Outcome, Server};
use crate::events::channels::{Kind, Subscriptions};
use crate::events::invalidation::Caching;
use crate::keyspace::{Held, Keyspace, shard_of};
use crate::resp::reply::Mark;
use crate::resp::request::OwnedArgs;
use crate::resp::{Done, Output, Reply, RequestLimits, Resp};

/// The keys that a connection watches, by database and name.
pub type Watches = HashMap<(u32, Box<[u8]>), WatchedKey>;

/// What a key under WATCH takes beside its name and what is remembered of it, about, in bytes: its count and version in
/// the shard, and the room that maps keep free.
const WATCHED_MORE_BYTES: usize = 64;

/// The part of a connection that any thread may read.
#[derive(Debug, Default)]
pub struct ClientRecord {
    /// From 1, never reused.
    pub id: u64,
    /// The peer, `ip:port`, or the path of the unix socket with `:0`.
    pub peer: String,
    /// Our side of the connection.
    pub local: String,
    /// The number of the file descriptor.
    pub fd: i32,
    /// The worker that serves it: see [`ClientRecord::worker`].
    pub served_by: AtomicUsize,
    /// When it was accepted, Unix ms.
    pub created_ms: u64,
    /// When it last sent something, Unix ms.
    pub active_ms: AtomicU64,
    /// The selected database.
    pub db: AtomicU64,
    /// The version of the protocol.
    pub resp: AtomicU64,
    /// One above the [`crate::core::table::CommandEntry::index`] of the last command; 0 for none.
    pub last_command: AtomicU64,
    /// The memory of a connection that has nothing to do, in bytes.
    pub own_bytes: u64,
    /// Received bytes that wait for the rest of their command.
    pub query_bytes: AtomicU64,
    /// The memory that is held for them, in bytes.
    pub query_room: AtomicU64,
    /// Memory of what is decoded of that command, in bytes.
    pub argument_bytes: AtomicU64,
    /// Bytes of replies that the socket did not take yet.
    pub output_bytes: AtomicU64,
    /// The memory that is held for them, in bytes, without values that are sent by reference.
    pub output_room: AtomicU64,
    /// How many values are sent by reference among them.
    pub output_shared: AtomicU64,
    /// The bytes of these values.
    pub output_shared_bytes: AtomicU64,
    /// The most bytes of replies at once, recently and in the period before.
    pub output_peaks: [AtomicU64; 2],
    /// What [`Clients::total_memory`] holds of its memory.
    pub counted: AtomicU64,
    /// Bytes received in all.
    pub total_input: AtomicU64,
    /// Bytes sent in all.
    pub total_output: AtomicU64,
    /// Commands in all.
    pub total_commands: AtomicU64,
    /// `CLIENT NO-EVICT`.
    pub no_evict: AtomicBool,
    /// Whether it watches all commands: MONITOR.
    pub monitor: AtomicBool,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: AtomicBool,
    /// READONLY, of a cluster client.
    pub read_only: AtomicBool,
    /// `CLIENT IMPORT-SOURCE`.
    pub import_source: AtomicBool,
    /// `CLIENT CAPA redirect`.
    pub follows_redirects: AtomicBool,
    /// Whether it waits in a blocking command, or for the end of a pause.
    pub blocked: AtomicBool,
    /// Whether that wait ends by itself.
    pub waits_for_time: AtomicBool,
    /// Whether that wait is one that a key or CLIENT UNBLOCK ends.
    pub may_be_unblocked: AtomicBool,
    /// Whether it closes once its replies are gone.
    pub closing: AtomicBool,
    /// Whether it is over, and is listed only until its task has ended.
    pub over: AtomicBool,
    /// Whether it was closed from outside: it executes nothing and receives nothing any more.
    pub killed: AtomicBool,
    /// Ends a wait that no key ends, WAIT or WAITAOF, while there is one. Sending true ends it by an error.
    pub unblock: Mutex<Option<oneshot::Sender<bool>>>,
    /// Whether it uses a unix socket.
    pub unix_socket: bool,
    /// Whether it only looks, for somebody at the page of the server: its reads change nothing that is known of keys.
    pub observes: bool,
    /// Whether it came from one of `priority-subnets`.
    pub has_priority: bool,
    /// One above the number of commands that a transaction has queued; 0 for no transaction.
    pub queued: AtomicU64,
    /// How many keys it watches.
    pub watching: AtomicU64,
    /// The keys that it watches, by database and name.
    pub watched: Mutex<Watches>,
    /// The memory that they take, about, in bytes.
    pub watched_bytes: AtomicU64,
    /// How many subscriptions it has, by `events::channels::Kind`.
    pub subscriptions: [AtomicU64; 3],
    /// The memory that they take, about, in bytes.
    pub subscribed_bytes: AtomicU64,
    /// The memory that the prefixes take that it tracks, about, in bytes.
    pub prefix_bytes: AtomicU64,
    /// The memory that its fieldsets take, about, in bytes.
    pub fieldset_bytes: AtomicU64,
    /// The memory that a transaction's queue takes, in bytes.
    pub queued_bytes: AtomicU64,
    /// Its [`ClientClass`].
    pub class: AtomicU8,
    /// How it tracks keys, as [`crate::events::invalidation::letters`]; 0 if it does not.
    pub tracking: AtomicU8,
    /// The connection to which its invalidations are redirected; 0 for none.
    pub redirect: AtomicU64,
    /// What the client says about itself.
    pub labels: Mutex<Labels>,
}

/// What a connection is for: `client-output-buffer-limit` and `CLIENT LIST TYPE` distinguish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientClass {
    /// Commands and replies.
    Normal = 0,
    /// A replica.
    Replica = 1,
    /// A subscriber.
    Pubsub = 2,
}

impl ClientRecord {
    /// The worker that serves it. It may be another one by now: a worker sends on what reaches a connection too late.
    #[inline]
    pub fn worker(&self) -> usize {
        self.served_by.load(Ordering::SeqCst)
    }

    /// What the connection is for.
    pub fn class(&self) -> ClientClass {
        match self.class.load(Ordering::Relaxed) {
            1 => ClientClass::Replica,
            2 => ClientClass::Pubsub,
            _ => ClientClass::Normal,
        }
    }

    /// Says what the connection is for from now on.
    pub fn set_class(&self, class: ClientClass) {
        self.class.store(class as u8, Ordering::Relaxed);
    }

    /// The memory that the connection takes, about, in bytes.
    pub fn memory(&self) -> u64 {
        let received = [&self.query_room, &self.argument_bytes, &self.queued_bytes];
        let others = [&self.output_room, &self.output_shared_bytes, &self.watched_bytes, &self.subscribed_bytes];
        let parts = received.into_iter().chain(others).chain([&self.prefix_bytes, &self.fieldset_bytes]);
        self.own_bytes + parts.map(|bytes| bytes.load(Ordering::Relaxed)).sum::<u64>()
    }

    /// Whether more was counted than a connection takes that has nothing to do.
    #[inline]
    pub fn has_extra_memory(&self) -> bool {
        self.counted.load(Ordering::Relaxed) != self.own_bytes
    }

    /// The most bytes of replies that it had at once, recently.
    pub fn output_peak(&self) -> u64 {
        self.output_peaks.iter().map(|peak| peak.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// Notes how many bytes of replies it has. Only its worker calls this.
    #[inline]
    pub fn note_output(&self, bytes: u64) {
        if bytes > self.output_peaks[0].load(Ordering::Relaxed) {
            self.output_peaks[0].store(bytes, Ordering::Relaxed);
        }
    }

    /// Begins another period of [`ClientRecord::output_peak`]. Only its worker calls this.
    pub fn age_peak(&self) {
        self.output_peaks[1].store(self.output_peaks[0].load(Ordering::Relaxed), Ordering::Relaxed);
        self.output_peaks[0].store(self.output_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether `timeout` closes it for its silence: it neither waits nor listens.
    pub fn may_idle_out(&self) -> bool {
        let listens = self.class() != ClientClass::Normal || self.monitor.load(Ordering::Relaxed);
        !listens && !self.blocked.load(Ordering::Relaxed)
    }

    /// Whether its wait in a command is over, although its worker has not gone on with it yet.
    pub fn is_unblocked(&self, server: &Server) -> bool {
        if !self.blocked.load(Ordering::Relaxed) || !self.may_be_unblocked.load(Ordering::Relaxed) {
            return false;
        }
        let waits_for_key = server.blocking.of_client(self.id).is_some();
        !waits_for_key && self.unblock.lock().is_none()
    }

    /// Whether a key that it watches has changed, so that EXEC will do nothing. A key whose shard is busy counts as
    /// unchanged, because a report never waits.
    pub fn watch_is_broken(&self, keyspace: &Keyspace) -> bool {
        self.watching.load(Ordering::Relaxed) > 0
            && self.watched.lock().iter().any(|((db, key), watched)| {
                let shard = keyspace.try_lock(shard_of(watched.hash));
                shard.is_some_and(|shard| shard.watched.version(*db, key) != Some(watched.version))
            })
    }

    /// Whether the peer is on this machine.
    pub fn is_local(&self) -> bool {
        self.unix_socket || self.peer.parse::<SocketAddr>().is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
    }
}

/// What a client says about itself.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Vec<u8>,
    /// The user it authenticated as.
    pub user: Vec<u8>,
}

impl Labels {
    /// The name of the user, as lists show it.
    pub fn user_name(&self) -> &[u8] {
        if self.user.is_empty() { DEFAULT } else { &self.user }
    }
}

/// How many seconds back [`Recent`] remembers.
const RECENT_SECONDS: usize = 8;

/// The highest of the numbers that were noted in the last seconds.
#[derive(Debug, Default)]
pub struct Recent {
    /// For each of the last seconds, by its number: the second and the highest number in it.
    slots: [(AtomicU64, AtomicU64); RECENT_SECONDS],
}

impl Recent {
    /// Notes a number at a time, in Unix ms. Two that are noted as a second begins may overwrite each other.
    pub fn note(&self, number: u64, now_ms: u64) {
        let second = now_ms / 1000;
        let (of, highest) = &self.slots[second as usize % RECENT_SECONDS];
        if of.load(Ordering::Relaxed) == second {
            highest.fetch_max(number, Ordering::Relaxed);
        } else {
            of.store(second, Ordering::Relaxed);
            highest.store(number, Ordering::Relaxed);
        }
    }

    /// The highest number of the last seconds; 0 for none.
    pub fn highest(&self, now_ms: u64) -> u64 {
        let oldest = (now_ms / 1000).saturating_sub(RECENT_SECONDS as u64 - 1);
        let recent = self.slots.iter().filter(|(of, _)| of.load(Ordering::Relaxed) >= oldest);
        recent.map(|(_, highest)| highest.load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

/// All connections, by id.
#[derive(Debug, Default)]
pub struct Clients {
    next_id: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<ClientRecord>>>,
    /// How many of them have priority.
    with_priority: AtomicUsize,
    /// About as much memory as all of them take, in bytes.
    memory: AtomicU64,
    /// What was received of unfinished commands at once, in bytes.
    pub recent_input: Recent,
    /// How many bytes of replies waited at once.
    pub recent_output: Recent,
}

impl Clients {
    /// Registers a connection under a new id.
    pub fn register(&self, mut record: ClientRecord) -> Arc<ClientRecord> {
        record.id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let record = Arc::new(record);
        self.recount(&record);
        self.with_priority.fetch_add(usize::from(record.has_priority), Ordering::Relaxed);
        self.all.lock().insert(record.id, Arc::clone(&record));
        record
    }

    /// Forgets a connection that has ended.
    pub fn remove(&self, record: &ClientRecord) {
        self.all.lock().remove(&record.id).inspect(|removed| self.note_removed(removed));
        self.memory.fetch_sub(record.counted.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Takes a connection out of the register that is about to be closed: nothing finds it any more.
    pub fn take(&self, id: u64) -> Option<Arc<ClientRecord>> {
        let record = self.all.lock().remove(&id)?;
        self.note_removed(&record);
        // In one order with the worker, which is read next: see `server::moving`.
        record.killed.store(true, Ordering::SeqCst);
        Some(record)
    }

    /// Counts the memory of a connection anew. Returns whether it has grown. Only its worker calls this.
    #[inline]
    pub fn recount(&self, record: &ClientRecord) -> bool {
        let (memory, counted) = (record.memory(), record.counted.load(Ordering::Relaxed));
        if memory != counted {
            record.counted.store(memory, Ordering::Relaxed);
            self.memory.fetch_add(memory.wrapping_sub(counted), Ordering::Relaxed);
        }
        memory > counted
    }

    /// The memory of all connections as last counted, in bytes; of those, too, that are about to be closed.
    pub fn total_memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// A connection.
    pub fn get(&self, id: u64) -> Option<Arc<ClientRecord>> {
        self.all.lock().get(&id).cloned()
    }

    /// All connections, by id.
    pub fn list(&self) -> Vec<Arc<ClientRecord>> {
        self.all.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.lock().len()
    }

    /// How many have no priority.
    pub fn len_without_priority(&self) -> usize {
        self.len().saturating_sub(self.with_priority.load(Ordering::Relaxed))
    }

    fn note_removed(&self, record: &ClientRecord) {
        self.with_priority.fetch_sub(usize::from(record.has_priority), Ordering::Relaxed);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the figures of all connections.
    pub fn figures(&self, look: &Look<'_>, out: &mut Figures) {
        let clients = self.list();
        let count = |is: fn(&ClientRecord) -> bool| clients.iter().filter(|client| is(client)).count();
        let now_ms = look.now.max(0) as u64;
        out.gauge("connected_clients", count(|c| c.class() != ClientClass::Replica));
        out.constants(&["cluster_connections"]);
        out.gauge("maxclients", look.settings.maxclients);
        out.gauge("connected_priority_clients", count(|c| c.has_priority));
        out.bytes("client_recent_max_input_buffer", self.recent_input.highest(now_ms));
        out.bytes("client_recent_max_output_buffer", self.recent_output.highest(now_ms));
        out.gauge("blocked_clients", count(|c| c.blocked.load(Ordering::Relaxed)));
        out.gauge("tracking_clients", look.server.tracking.count_trackers());
        out.gauge("pubsub_clients", count(|c| c.class() == ClientClass::Pubsub));
        out.gauge("watching_clients", count(|c| c.watching.load(Ordering::Relaxed) > 0));
        out.gauge("clients_in_timeout_table", count(|c| c.waits_for_time.load(Ordering::Relaxed)));
        out.gauge("total_watched_keys", clients.iter().map(|c| c.watching.load(Ordering::Relaxed)).sum::<u64>());
        let pause = look.server.pause.now(look.now, &look.server.hooks);
        let (keys, also_gone) = look.server.blocking.count_keys();
        out.gauge("total_blocking_keys", keys);
        out.gauge("total_blocking_keys_on_nokey", also_gone);
        out.text("paused_reason", if pause.is_some() { "client_pause" } else { "none" });
        let what = match pause {
            None => "none",
            Some((Paused::Writes, _)) => "write",
            Some((Paused::All, _)) => "all",
        };
        out.text("paused_actions", what);
        out.gauge("paused_timeout_milliseconds", pause.map_or(0, |(_, left_ms)| left_ms));
    }
}

/// What is sent back: `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    /// Everything.
    On,
    /// Nothing.
    Off,
    /// Everything again, after the requesting command and the next one are skipped.
    SkipNext,
    /// Nothing for this one command.
    Skip,
}

/// The state of a connection that its commands read and change.
#[derive(Debug)]
pub struct Client {
    /// What others may read.
    pub record: Arc<ClientRecord>,
    /// The selected database.
    pub db: u32,
    /// The version of the protocol.
    pub resp: Resp,
    /// For whom it acts; `None` until it has authenticated.
    pub user: Option<Arc<User>>,
    /// The generation of the users when it was last renewed: see [`Client::renew_user`].
    pub access_generation: u64,
    /// What is sent back.
    pub reply_mode: ReplyMode,
    /// Why it waits, if it waits.
    pub wait: Option<Wait>,
    /// What the command asked that waits for a key or for time, which is counted when it is answered.
    pub asked: Option<Arc<Asked>>,
    /// The command that waits, if the audit log was told that it has begun and is to be told of its end.
    pub audited: Option<Begun>,
    /// Whether a command with a secret in it has run: its bytes are to be wiped.
    pub said_secret: bool,
    /// Whether to close the connection once its replies are sent.
    pub closing: bool,
    /// Whether to close it without sending anything more.
    pub aborted: bool,
    /// The block of the log that holds its own last write, for WAITAOF.
    pub last_write_block: u64,
    /// The transaction that MULTI has begun.
    pub transaction: Option<Box<Transaction>>,
    /// Whether EXEC is executing its commands, which may then not wait for anything.
    pub in_exec: bool,
    /// What it has subscribed to.
    pub subscriptions: Subscriptions,
    /// The number of the first letter to its worker that it has not looked at: see [`Client::catch_up`].
    pub mail_seen: u64,
    /// The messages that it has read by itself during EXEC, whose reply comes before them.
    pub late: Output,
    /// What the messages need that it has read by itself, for its next output.
    pub shown: Vec<Needs>,
    /// The block of its running transaction, once that has published something.
    pub own_block: Option<OwnBlock>,
    /// How it tracks keys that it may have cached, if it does.
    pub caching: Option<Box<Caching>>,
    /// Whether a script is executing commands for it.
    pub in_script: bool,
    /// What its script has just published: the channel and the text. It leaves when the script has ended.
    pub published: Option<ToPublish>,
    /// What the commands that are executed just now have left to be done.
    pub deferred: Vec<Deferred>,
    /// The room that its command needs below `maxmemory`, while that is much or is being made.
    pub claim: Option<Claim>,
    /// What it has prepared for HIMPORT.
    pub fieldsets: Option<Arc<Fieldsets>>,
    /// The commands whose replies have not left, for their service times.
    pub served: Served,
}

/// A message that is to be published: the kind of the channel, its name, and the text.
pub type ToPublish = (Kind, Box<[u8]>, Box<[u8]>);

/// Work that may wait for the disk, for a lock above the gate, or for a thread that waits for the gate. A command
/// defers it to another thread, outside the gate, and its connection waits for it.
pub struct Deferred {
    /// Where its reply belongs.
    pub place: Mark,
    /// In which version of the protocol.
    pub resp: Resp,
    /// What is to be done.
    pub work: Work,
}

/// See [`Deferred`].
pub type Work = Box<dyn FnOnce(&Arc<Server>, Reply<'_>) -> Outcome + Send>;

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deferred").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The commands between MULTI and EXEC.
#[derive(Debug)]
pub struct Transaction {
    /// The commands.
    pub queue: Vec<OwnedArgs>,
    /// The memory that they take, in bytes.
    pub bytes: usize,
    /// All their flags.
    pub flags: Flags,
    /// Whether a script is among them.
    pub has_script: bool,
    /// Whether a command could not be queued, so that EXEC will do nothing.
    pub aborted: bool,
}

/// What is remembered of a key under WATCH.
#[derive(Debug)]
pub struct WatchedKey {
    /// The hash of the key.
    pub hash: u64,
    /// The version that EXEC must still find.
    pub version: u64,
    /// Whether it existed when it was watched.
    pub existed: bool,
}

impl Client {
    /// A new connection.
    pub fn new(record: Arc<ClientRecord>, user: Option<Arc<User>>) -> Self {
        record.resp.store(2, Ordering::Relaxed);
        Client::of(record, user)
    }

    fn of(record: Arc<ClientRecord>, user: Option<Arc<User>>) -> Self {
        Client {
            record,
            db: 0,
            resp: Resp::V2,
            user,
            access_generation: 0,
            reply_mode: ReplyMode::On,
            wait: None,
            asked: None,
            audited: None,
            said_secret: false,
            closing: false,
            aborted: false,
            last_write_block: 0,
            transaction: None,
            in_exec: false,
            in_script: false,
            published: None,
            subscriptions: Subscriptions::default(),
            mail_seen: 0,
            late: Output::new(),
            shown: Vec::new(),
            own_block: None,
            caching: None,
            deferred: Vec::new(),
            claim: None,
            fieldsets: None,
            served: Served::default(),
        }
    }

    /// One that acts for another in a script.
    pub fn for_script(of: &Client) -> Self {
        let mut client = Client::of(Arc::clone(&of.record), of.user.clone());
        client.act_for(of);
        client
    }

    /// Acts for this one from now on.
    pub fn act_for(&mut self, of: &Client) {
        if !Arc::ptr_eq(&self.record, &of.record) {
            self.record = Arc::clone(&of.record);
        }
        let is_same = |(one, other): (&Arc<User>, &Arc<User>)| Arc::ptr_eq(one, other);
        if !self.user.as_ref().zip(of.user.as_ref()).is_some_and(is_same) {
            self.user.clone_from(&of.user);
        }
        (self.db, self.resp, self.reply_mode, self.last_write_block) = (of.db, of.resp, ReplyMode::On, 0);
        if self.caching.is_some() || of.caching.is_some() {
            self.caching.clone_from(&of.caching);
        }
    }

    /// Goes back to its connection for a while, in the middle of its transaction. What stays has what is the
    /// transaction's.
    pub fn lend(&mut self) -> Box<Client> {
        let mut stand_in = Client::for_script(self);
        (stand_in.in_exec, stand_in.in_script) = (self.in_exec, self.in_script);
        stand_in.own_block = self.own_block.take();
        stand_in.deferred = std::mem::take(&mut self.deferred);
        Box::new(std::mem::replace(self, stand_in))
    }

    /// Goes on with what was lent to the connection.
    pub fn take_back(&mut self, lent: Client) {
        let stand_in = std::mem::replace(self, lent);
        (self.own_block, self.deferred) = (stand_in.own_block, stand_in.deferred);
    }

    /// Goes on without a connection, which has ended meanwhile.
    pub fn be_alone(&mut self) {
        (self.aborted, self.caching) = (true, None);
    }

    /// Is in no transaction any more that a panic has stopped.
    pub fn leave_exec(&mut self) {
        (self.in_exec, self.in_script, self.own_block) = (false, false, None);
        self.deferred.clear();
    }

    /// Leaves work to be done outside the gate, after which the reply is OK.
    pub fn defer(
        &mut self,
        reply: Reply<'_>,
        work: impl FnOnce(&Arc<Server>) -> Result<(), CommandError> + Send + 'static,
    ) -> Done {
        self.defer_reply(reply, |server, reply| work(server).map(|()| reply.ok()))
    }

    /// Leaves work to be done outside the gate. It writes the reply.
    pub fn defer_reply(
        &mut self,
        reply: Reply<'_>,
        work: impl FnOnce(&Arc<Server>, Reply<'_>) -> Outcome + Send + 'static,
    ) -> Done {
        self.deferred.push(Deferred { place: reply.place(), resp: self.resp, work: Box::new(work) });
        reply.withheld()
    }

    /// Begins a transaction.
    pub fn begin_transaction(&mut self) {
        let (queue, flags) = (Vec::new(), Flags(0));
        self.transaction = Some(Box::new(Transaction { queue, bytes: 0, flags, has_script: false, aborted: false }));
        self.record.queued.store(1, Ordering::Relaxed);
    }

    /// Ends the transaction, if there is one, and returns what it has queued.
    pub fn end_transaction(&mut self) -> Option<Box<Transaction>> {
        self.record.queued.store(0, Ordering::Relaxed);
        self.record.queued_bytes.store(0, Ordering::Relaxed);
        self.transaction.take()
    }

    /// Stops watching all keys, changed or not. Never waits.
    pub fn unwatch(&mut self, keyspace: &Keyspace) {
        self.unwatch_by(|db, key, hash| {
            keyspace.unwatch(db, key, hash);
            None
        });
    }

    /// Stops watching all keys, behind the closed gate. Returns whether one has changed; see [`WatchedKey::version`].
    pub fn unwatch_alone(&mut self, keyspace: &Keyspace) -> bool {
        self.unwatch_by(|db, key, hash| keyspace.lock(shard_of(hash)).watched.unwatch(db, key))
    }

    /// The same, if all their shards are held.
    pub fn unwatch_held(&mut self, held: &mut Held<'_>) -> bool {
        self.unwatch_by(|db, key, hash| held.shard(shard_of(hash)).watched.unwatch(db, key))
    }

    fn unwatch_by(&mut self, mut unwatch: impl FnMut(u32, &[u8], u64) -> Option<u64>) -> bool {
        if self.record.watching.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let watched = std::mem::take(&mut *self.record.watched.lock());
        let mut changed = false;
        for ((db, key), watched) in watched {
            changed |= unwatch(db, &key, watched.hash) != Some(watched.version);
        }
        self.record.watching.store(0, Ordering::Relaxed);
        self.record.watched_bytes.store(0, Ordering::Relaxed);
        changed
    }

    /// The keys under WATCH that existed when they were watched: database, name and hash.
    pub fn watched_that_existed(&self) -> Vec<(u32, Box<[u8]>, u64)> {
        let watched = self.record.watched.lock();
        let existed = watched.iter().filter(|(_, watched)| watched.existed);
        existed.map(|((db, key), watched)| (*db, key.clone(), watched.hash)).collect()
    }

    /// Watches one key more, which it does not watch yet.
    pub fn watch(&mut self, db: u32, key: &[u8], watched: WatchedKey) {
        self.record.watched.lock().insert((db, key.into()), watched);
        // The shard keeps another copy of the key, for all its watchers.
        let bytes = 2 * (key.len() + size_of::<(u32, Box<[u8]>)>()) + size_of::<WatchedKey>() + WATCHED_MORE_BYTES;
        self.record.watching.fetch_add(1, Ordering::Relaxed);
        self.record.watched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether something of it belongs to its worker, so that it cannot move to another one: what it listens to, and
    /// what is under way.
    pub fn is_tied(&self) -> bool {
        let listens = !self.subscriptions.is_empty()
            || self.record.class() != ClientClass::Normal
            || self.caching.is_some()
            || self.record.tracking.load(Ordering::Relaxed) != 0
            || self.record.monitor.load(Ordering::Relaxed);
        let is_busy = self.wait.is_some()
            || self.audited.is_some()
            || self.in_exec
            || self.in_script
            || self.published.is_some()
            || self.own_block.is_some()
            || self.claim.is_some();
        let has_more_to_say = !self.late.is_empty() || !self.shown.is_empty() || !self.deferred.is_empty();
        listens || is_busy || has_more_to_say || self.closing || self.aborted
    }

    /// Returns to the state of a new connection: RESET. Its name is dropped; its library information stays.
    pub fn reset(&mut self, user: Option<Arc<User>>) {
        self.select(0);
        self.set_resp(Resp::V2);
        self.user = user;
        self.reply_mode = ReplyMode::On;
        self.record.no_touch.store(false, Ordering::Relaxed);
        self.record.read_only.store(false, Ordering::Relaxed);
        self.record.no_evict.store(false, Ordering::Relaxed);
        self.record.import_source.store(false, Ordering::Relaxed);
        self.fieldsets = None;
        self.record.fieldset_bytes.store(0, Ordering::Relaxed);
        let mut labels = self.record.labels.lock();
        labels.name.clear();
        labels.user.clear();
    }

    /// Selects a database.
    pub fn select(&mut self, db: u32) {
        self.db = db;
        self.record.db.store(u64::from(db), Ordering::Relaxed);
    }

    /// Sets the version of the protocol.
    pub fn set_resp(&mut self, resp: Resp) {
        self.resp = resp;
        self.record.resp.store(resp.number() as u64, Ordering::Relaxed);
    }

    /// What the request decoder may accept from this connection.
    pub fn limits(&self, bulk_max_bytes: u64) -> RequestLimits {
        RequestLimits { bulk_max_bytes, authenticated: self.user.is_some() }
    }
}

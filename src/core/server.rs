//! The server as commands see it: everything that all connections share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::access::Users;
use crate::base::alloc;
use crate::base::lock::{Mutex, Rank};
use crate::base::logging;
use crate::base::per_worker::{PerWorker, WORKERS_MAX};

use crate::base::config::{CompatibilityMode, Config, Settings};
use crate::base::latency::LatencyMonitor;
use crate::base::progress::Progress;
use crate::base::tls::Tls;
use crate::core::audit::Audit;
use crate::core::backup::Backup;
use crate::core::client::{ClientRecord, Clients};
use crate::core::commandlog::CommandLogs;
use crate::core::disk::Disk;
use crate::core::functions::Functions;
use crate::core::hooks::{Hook, Hooks};
use crate::core::hotkeys::Hotkeys;
use crate::core::key_events::EventQueue;
use crate::core::keystats::KeyStats;
use crate::core::memory::MemoryState;
use crate::core::message::{Message, Needs, Published};
use crate::core::pause::Pause;
use crate::core::roster::Roster;
use crate::core::scripts::{RunningScripts, Scripts};
use crate::core::scrub::Scrub;
use crate::core::service::ServiceFigures;
use crate::core::stats::{ServerCounters, WorkerStats};
use crate::core::waiting::Blocking;
use crate::core::{Cluster, CommandError, Flags, Mail, Mailboxes, Table, flags};
use crate::events::channels::{Channels, Kind};
use crate::events::monitors::{Monitor, Monitors};
use crate::events::tracking::Tracking;
use crate::keyspace::{Gate, Keyspace};
use crate::persist::Store;

/// From this `slowlog-log-slower-than` on, in microseconds, quick commands go on sharing the time of their group: none
/// of them takes so long.
const SHARED_TIMES_US: i64 = 1000;

/// What counts as the size of whole databases that are to be freed, whose values nobody adds up: more than any limit.
/// Nothing is evicted while such a thing is freed.
pub const UNCOUNTED_BYTES: u64 = 1 << 48;

/// Why what may grow is refused on a full disk, as the system says it.
const DISK_FULL: &str = "No space left on device";

/// The most different codes that `INFO errorstats` distinguishes,
const ERROR_CODES_MAX: usize = 128;
/// and what it shows instead of all of them from then on, until CONFIG RESETSTAT.
const ERRORS_DISABLED: &str = "ERRORSTATS_DISABLED";

/// With the `compatibility-mode` of Valkey, what counts the others instead.
const ERRORS_OVERFLOW: &str = "ERRORSTATS_OVERFLOW";

/// Opens and closes listening sockets. An error leaves them as they were.
pub type ListenAnew = Box<dyn Fn(&Settings) -> std::io::Result<()> + Send + Sync>;

/// Has this many workers be in service. An error leaves those that were.
pub type Enlist = Box<dyn Fn(usize) -> std::io::Result<()> + Send + Sync>;

/// Everything that connections share.
pub struct Server {
    /// The configuration, live.
    pub config: Config,
    /// All keys.
    pub keyspace: Keyspace,
    /// One lock a worker.
    pub gate: Gate,
    /// Log, snapshot and manifest.
    pub store: Store,
    /// Who this server is to cluster clients; `None` unless `cluster-enabled` is set.
    pub cluster: Option<Cluster>,
    /// All commands.
    pub table: Table,
    /// All connections.
    pub clients: Clients,
    /// All users.
    pub users: Users,
    /// The commands that took long or were large.
    pub commandlogs: CommandLogs,
    /// The keys that are used most.
    pub hotkeys: Hotkeys,
    /// The biggest and busiest keys, and prefixes.
    pub keystats: KeyStats,
    /// The events that took long.
    pub latency: Arc<LatencyMonitor>,
    /// Distributions of what commands wait for.
    pub service: ServiceFigures,
    /// CLIENT PAUSE.
    pub pause: Pause,
    /// What the path of a command must look at besides it.
    pub hooks: Hooks,
    /// Counters of rare events.
    pub counters: ServerCounters,
    /// What each worker counts.
    pub workers: PerWorker<WorkerStats>,
    /// Which workers are in service.
    pub roster: Roster,
    /// Changes that; set once workers run.
    pub enlist: OnceLock<Enlist>,
    /// Error replies by their code.
    pub errors: Mutex<BTreeMap<String, u64>>,
    /// Snapshots: what runs, and how the last went.
    pub saving: Saving,
    /// The scrub of the files.
    pub scrub: Scrub,
    /// The backup that BACKUP makes.
    pub backup: Mutex<Backup>,
    /// The bytes that DEBUG RELOAD and its kind load.
    pub loading: Progress,
    /// What DEBUG has switched.
    pub debugging: Debugging,
    /// Has the server listen where the settings say; set once there are connections to be accepted.
    pub listen_anew: OnceLock<ListenAnew>,
    /// The audit log.
    pub audit: Audit,
    /// What new TLS connections are offered.
    pub tls: Tls,
    /// The scripts that EVALSHA finds.
    pub scripts: Scripts,
    /// What runs functions.
    pub functions: Functions,
    /// The scripts that run.
    pub running_scripts: RunningScripts,
    /// Commands that wait for a key.
    pub blocking: Blocking,
    /// Who may have cached which keys.
    pub tracking: Tracking,
    /// The connections that watch all commands.
    pub monitors: Monitors,
    /// What happened to keys, and is not told yet.
    pub key_events: EventQueue,
    /// How each worker, and through it each connection, is reached from any thread.
    pub mailboxes: Mailboxes,
    /// Who has subscribed to which channel.
    pub channels: Channels,
    /// When the server started, Unix ms.
    pub started_ms: i64,
    /// 40 hex digits, new at each start.
    pub run_id: String,
    /// The configuration file, absolute; empty for none.
    pub config_file: String,
    /// The program, absolute.
    pub executable: String,
    /// `used_memory` at the start, without the keys that were loaded.
    pub startup_memory: AtomicU64,
    /// The event loop of each worker, once it runs.
    pub loops: PerWorker<OnceLock<tokio::runtime::Handle>>,
    /// Samples of rates, kept by the timer.
    pub rates: Rates,
    /// How to end.
    pub shutdown: Shutdown,
    /// Frees large values without delaying a command.
    pub garbage: Garbage,
    /// What `maxmemory` is compared with.
    pub memory: Arc<MemoryState>,
}

/// What DEBUG has switched.
#[derive(Debug, Default)]
pub struct Debugging {
    /// Whether expired keys stay until they are accessed: DEBUG SET-ACTIVE-EXPIRE.
    pub active_expiry_off: AtomicBool,
    /// Whether DEBUG SET-DISABLE-DENY-SCRIPTS lets scripts call what they may not.
    pub deny_scripts_off: AtomicBool,
}

/// The way to the thread that frees large values.
#[derive(Debug)]
pub struct Garbage {
    /// To that thread.
    pub to_reclaim: std::sync::mpsc::Sender<Reclaim>,
    /// How many it has to free, and has freed.
    pub released: Arc<Released>,
}

/// A job for the thread that frees memory.
pub enum Reclaim {
    /// Drop something large that was taken out of the keyspace.
    Drop {
        /// What is to be dropped.
        garbage: Box<dyn Send>,
        /// How many values of keys that is.
        values: u64,
        /// An estimate of their size; see [`Released::pending_bytes`].
        bytes: u64,
    },
    /// Give all unused memory back to the system.
    Purge,
}

/// How many values were removed to be freed by another thread.
#[derive(Debug, Default)]
pub struct Released {
    /// Values that are not freed yet: `lazyfree_pending_objects`.
    pub pending_values: AtomicU64,
    /// Values freed since the start or CONFIG RESETSTAT: `lazyfreed_objects`.
    pub freed_values: AtomicU64,
    /// An estimate of the bytes that are not freed yet. Eviction does not remove keys for them.
    pub pending_bytes: AtomicU64,
}

impl Released {
    /// Counts values that are freed.
    pub fn count_freed(&self, values: u64, bytes: u64) {
        self.pending_bytes.fetch_sub(bytes, Ordering::Release);
        self.pending_values.fetch_sub(values, Ordering::Relaxed);
        self.freed_values.fetch_add(values, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Server {
    /// Has everything that holds a copy of these settings follow them: at the start, and when they have changed.
    pub fn follow(&self, settings: &Settings) {
        self.users.set_all_channels(settings.acl_pubsub_default == "allchannels");
        if self.users.follow_requirepass(&settings.requirepass) {
            self.rules_changed();
        }
        self.tracking.set_keys_max(usize::try_from(settings.tracking_table_max_keys).unwrap_or(usize::MAX));
        let slower_than_us = settings.slowlog_log_slower_than_us;
        let times_each = (0..SHARED_TIMES_US).contains(&slower_than_us) && settings.slowlog_max_len > 0;
        self.hooks.set(Hook::Slowlog, times_each);
        self.latency.set_threshold_ms(settings.latency_monitor_threshold_ms);
        self.store.log().set_segment_bytes(settings.log_segment_size);
        self.hooks.set(Hook::Cluster, self.cluster.is_some());
        self.hotkeys.follow(settings, &self.hooks);
        if self.hooks.load().has(Hook::KeyStats) && !settings.key_statistics {
            self.keystats.clear();
        }
        self.hooks.set(Hook::KeyStats, settings.key_statistics);
        self.hooks.set(
            Hook::SlotUsage,
            self.cluster.is_some()
                && (settings.cluster_slot_stats_enabled.cpu || settings.cluster_slot_stats_enabled.net),
        );
    }

    /// Has all connections follow a change of users, roles or their rules.
    pub fn rules_changed(&self) {
        self.hooks.set(Hook::Access, self.users.has_limits());
        for worker in 0..self.workers.len() {
            self.mailboxes.post(worker, Mail::RulesChanged);
        }
    }

    /// Makes what one worker more needs, but its thread. Returns its number; `None` if there can be no more. One thread
    /// adds at a time, outside the gate.
    pub fn add_worker(&self) -> Option<usize> {
        if self.gate.workers() >= WORKERS_MAX {
            return None;
        }
        let _ = self.workers.add(WorkerStats::new(self.table.indices()));
        let _ = self.loops.add(OnceLock::new());
        self.store.journal().add_worker();
        self.mailboxes.add_worker();
        self.hotkeys.add_worker();
        self.keystats.add_worker();
        // The last, because its number is how many workers there are.
        self.gate.add_worker()
    }

    /// Sends a client something that is no reply, from any thread; see [`Mail::Push`]. False if it has gone.
    pub fn push(&self, client: u64, bytes: Arc<[u8]>, block: u64) -> bool {
        let record = self.clients.get(client);
        record.map(|record| self.mailboxes.post(record.worker(), Mail::Push { client, bytes, block })).is_some()
    }

    /// Publishes a message to all subscribers of a channel and of the patterns that match its name, from any thread.
    /// Returns how many copies are sent. None leaves before `block` of the log is safe, whose content the message
    /// shows; 0 for none.
    ///
    /// No shard may be locked, nor a lock of rank [`Rank::Channels`] or higher.
    pub fn publish(&self, channel: &[u8], message: &[u8], block: u64) -> u64 {
        self.publish_on(Kind::Channel, channel, message, || Needs::Block(block))
    }

    /// The same for a channel or a shard channel, and for a block that may not be known yet.
    pub fn publish_on(&self, kind: Kind, channel: &[u8], text: &[u8], needs: impl FnOnce() -> Needs) -> u64 {
        let mut needs = Some(needs);
        let mut message: Option<Arc<Message>> = None;
        self.channels.publish(kind, channel, |worker, receivers| {
            let make =
                || Arc::new(Message::new(kind, channel, text, needs.take().map_or(Needs::Block(0), |needs| needs())));
            let message = Arc::clone(message.get_or_insert_with(make));
            self.mailboxes.post(worker, Mail::Publish(Published { message, receivers }));
        })
    }

    /// Closes a connection, from any thread. From now on it executes nothing, takes no element that it has waited
    /// for, and is in no list. False if there is no such client.
    pub fn close_client(&self, client: u64) -> bool {
        let Some(record) = self.clients.take(client) else { return false };
        self.blocking.abandon(&self.keyspace, client);
        self.mailboxes.post(record.worker(), Mail::Close { client });
        true
    }

    /// Shows a connection all commands from now on.
    pub fn begin_monitoring(&self, client: &ClientRecord) {
        client.monitor.store(true, Ordering::Relaxed);
        let monitor = Monitor { client: client.id, worker: client.worker() };
        self.monitors.add(monitor, |any| self.hooks.set(Hook::Monitor, any));
    }

    /// Shows a connection no more commands.
    pub fn end_monitoring(&self, client: &ClientRecord) {
        if client.monitor.swap(false, Ordering::Relaxed) {
            self.monitors.remove(client.id, |any| self.hooks.set(Hook::Monitor, any));
        }
    }

    /// Counts an error reply. One that a script has made up `is_custom`: its word may be any.
    pub fn count_error(&self, text: &[u8], is_custom: bool) {
        self.counters.error_replies.add(1);
        let code = &*String::from_utf8_lossy(CommandError::code(text));
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if self.config.settings().compatibility_mode == CompatibilityMode::Valkey {
            let has_room = errors.len() < ERROR_CODES_MAX || !is_custom;
            *errors.entry(if has_room { code } else { ERRORS_OVERFLOW }.to_owned()).or_insert(0) += 1;
        } else if errors.len() < ERROR_CODES_MAX && !errors.contains_key(ERRORS_DISABLED) {
            errors.insert(code.to_owned(), 1);
        } else if errors.len() >= ERROR_CODES_MAX {
            errors.clear();
            errors.insert(ERRORS_DISABLED.to_owned(), 1);
            drop(errors);
            logging::warning(format_args!(
                "Errorstats stopped adding new errors because the number of errors reached the limit, may be misuse \
                 of lua error_reply, please check INFO ERRORSTATS, this can be re-enabled via CONFIG RESETSTAT."
            ));
        }
    }

    /// Drops something large, which holds this many values and about this many bytes, on another thread.
    pub fn reclaim(&self, garbage: Box<dyn Send>, values: u64, bytes: u64) {
        let Garbage { to_reclaim, released } = &self.garbage;
        released.pending_values.fetch_add(values, Ordering::Relaxed);
        released.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
        // If that thread is gone, the garbage comes back in the error and is dropped here.
        if to_reclaim.send(Reclaim::Drop { garbage, values, bytes }).is_err() {
            released.count_freed(values, bytes);
        }
    }

    /// Whether the state of the disk allows a command of these flags. On a full disk, a command may run
    /// that never needs more memory: it leaves less for the next snapshot.
    ///
    /// # Errors
    /// The log cannot be written, or the last snapshot failed and `stop-writes-on-bgsave-error` is set.
    #[inline]
    pub fn check_disk(&self, of: Flags) -> Result<(), CommandError> {
        let log = self.store.log();
        if log.is_poisoned() {
            return Err(CommandError::MisconfLog(log.poisoned().unwrap_or_default()));
        }
        let may_grow = of.has(flags::DENYOOM.or(flags::REPORTS_DISK_ERRORS));
        if may_grow && log.lacks_room() {
            return Err(CommandError::MisconfLog(DISK_FULL.into()));
        }
        if !self.saving.last_save_ok.load(Ordering::Relaxed) {
            let settings = self.config.settings();
            let is_allowed = !may_grow && self.saving.disk.snapshot_lacked_room.load(Ordering::Relaxed);
            if settings.stop_writes_on_bgsave_error && !settings.save.is_empty() && !is_allowed {
                return Err(CommandError::MisconfSnapshot);
            }
        }
        Ok(())
    }

    /// The bytes that `maxmemory` bounds: all that are allocated, but for what is appended to the log and not written,
    /// and what the check of a backup has loaded; and those that commands have claimed.
    pub fn counted_memory(&self) -> u64 {
        let uncounted = self.store.journal().pending_bytes() as u64 + self.memory.passing_bytes();
        (alloc::used_memory() as u64).saturating_sub(uncounted) + self.memory.claimed_bytes()
    }

    /// Of these, the bytes that the freeing thread is about to free.
    pub fn pending_memory(&self) -> u64 {
        self.garbage.released.pending_bytes.load(Ordering::Acquire)
    }

    /// The bytes of [`Server::counted_memory`], with and without those that the freeing thread is about to free.
    ///
    /// What is pending is read first: if it was freed in between, too much is subtracted and not too little, for which
    /// something else would be evicted.
    pub fn counted_and_settled(&self) -> (u64, u64) {
        let pending = self.pending_memory();
        let all = self.counted_memory();
        (all, all.saturating_sub(pending))
    }

    /// Whether snapshots must hold all changes: there are save points, and no log. A snapshot then follows when
    /// everything was removed, because the last one holds what is gone.
    pub fn keeps_by_snapshots(&self) -> bool {
        !self.config.settings().save.is_empty() && !self.store.log().is_active()
    }

    /// The changes since the beginning of the last successful snapshot, or since everything was removed, which a
    /// snapshot follows.
    pub fn changes_since_save(&self) -> u64 {
        let of_flush = self.saving.flushed_changes.load(Ordering::Relaxed);
        self.saving.changes.load(Ordering::Relaxed).saturating_sub(of_flush)
    }
}

/// What the event loops of all workers have done.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventLoops {
    /// How often they have waited for something to do.
    pub cycles: u64,
    /// How long they were busy, in microseconds.
    pub busy_us: u64,
}

impl Server {
    /// What the event loops of all workers have done since the start.
    pub fn event_loops(&self) -> EventLoops {
        self.loops.iter().filter_map(OnceLock::get).fold(EventLoops::default(), |sum, handle| {
            let metrics = handle.metrics();
            EventLoops {
                cycles: sum.cycles + metrics.worker_park_count(0),
                busy_us: sum.busy_us + metrics.worker_total_busy_duration(0).as_micros() as u64,
            }
        })
    }
}

/// The rates that INFO shows.
#[derive(Debug, Default)]
pub struct Rates {
    /// Commands a second.
    pub commands: AtomicU64,
    /// Received bytes a second.
    pub input_bytes: AtomicU64,
    /// Sent bytes a second.
    pub output_bytes: AtomicU64,
    /// Cycles of all event loops a second.
    pub cycles: AtomicU64,
    /// Microseconds that a cycle takes.
    pub cycle_us: AtomicU64,
}

/// Snapshots: what runs, and how the last went.
#[derive(Debug)]
pub struct Saving {
    /// Changes since the last good snapshot.
    pub changes: AtomicU64,
    /// Whether everything was removed, and no snapshot has begun since.
    pub flushed_all: AtomicBool,
    /// Those of `changes` up to the removal of everything, until the snapshot that follows it has ended.
    pub flushed_changes: AtomicU64,
    /// What runs and what is to follow.
    pub state: Mutex<SavingState>,
    /// When the last good snapshot was made, Unix seconds.
    pub last_save: AtomicI64,
    /// Whether the last BGSAVE succeeded.
    pub last_save_ok: AtomicBool,
    /// Seconds that the last BGSAVE took; -1 for none.
    pub last_save_seconds: AtomicI64,
    /// Whether the last BGREWRITEAOF succeeded.
    pub last_rewrite_ok: AtomicBool,
    /// Keys of the snapshot that was loaded at the start.
    pub loaded_keys: AtomicU64,
    /// Snapshots made by SAVE, BGSAVE and save points since the start.
    pub saves: AtomicU64,
    /// Those made by BGREWRITEAOF and for the growth of the log.
    pub rewrites: AtomicU64,
    /// Failures of BGREWRITEAOF since one last succeeded.
    pub rewrite_failures: AtomicU64,
    /// Seconds that the last BGREWRITEAOF took; -1 for none.
    pub last_rewrite_seconds: AtomicI64,
    /// When the last attempt to save began, Unix ms.
    pub last_try_ms: AtomicI64,
    /// Whether the server is shutting down: a running snapshot is abandoned, and no new one begins. Set under the
    /// lock of `state`.
    pub ending: AtomicBool,
    /// The shards that the snapshot that is being made still holds: the last ones, because it releases them in order.
    pub held_shards: AtomicUsize,
    /// The keys that the snapshot that is being made has written.
    pub progress: Progress,
    /// The bytes that the verification of a backup reads and loads.
    pub verification: Progress,
    /// The room on the disk.
    pub disk: Disk,
}

impl Default for Saving {
    fn default() -> Self {
        Saving {
            changes: AtomicU64::new(0),
            flushed_all: AtomicBool::new(false),
            flushed_changes: AtomicU64::new(0),
            state: Mutex::new(Rank::Saving, SavingState::default()),
            last_save: AtomicI64::new(crate::base::clock::now_ms() / 1000),
            last_save_ok: AtomicBool::new(true),
            last_save_seconds: AtomicI64::new(-1),
            last_rewrite_ok: AtomicBool::new(true),
            loaded_keys: AtomicU64::new(0),
            saves: AtomicU64::new(0),
            rewrites: AtomicU64::new(0),
            rewrite_failures: AtomicU64::new(0),
            last_rewrite_seconds: AtomicI64::new(-1),
            last_try_ms: AtomicI64::new(0),
            ending: AtomicBool::new(false),
            held_shards: AtomicUsize::new(0),
            progress: Progress::default(),
            verification: Progress::default(),
            disk: Disk::default(),
        }
    }
}

/// Why a snapshot is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavePurpose {
    /// SAVE, BGSAVE, or a save point.
    Save,
    /// BGREWRITEAOF, or the log has grown.
    Rewrite,
}

/// What runs and what is to follow.
#[derive(Debug, Default)]
pub struct SavingState {
    /// The snapshot being made, and since when, Unix ms.
    pub running: Option<(SavePurpose, i64)>,
    /// The one to be made next.
    pub scheduled: Option<SavePurpose>,
    /// The receivers of the running one's result.
    pub waiting: Vec<tokio::sync::oneshot::Sender<Result<(), String>>>,
}

/// How to end the server.
#[derive(Debug, Default)]
pub struct Shutdown {
    /// Receives every request.
    pub requests: Mutex<Option<tokio::sync::mpsc::UnboundedSender<ShutdownRequest>>>,
    /// Whether there was a request that has not failed.
    pub asked: AtomicBool,
}

/// A request to end.
#[derive(Debug)]
pub struct ShutdownRequest {
    /// SAVE or NOSAVE; `None` leaves it to whether save points are set.
    pub save: Option<bool>,
    /// End even if saving fails.
    pub force: bool,
    /// Start again after so long, instead of ending.
    pub restart: Option<std::time::Duration>,
    /// Receives the reason if the server does not end.
    pub refused: Option<tokio::sync::oneshot::Sender<String>>,
}

impl Shutdown {
    /// Asks the server to end.
    pub fn request(&self, request: ShutdownRequest) {
        if let Some(requests) = &*self.requests.lock() {
            self.asked.store(true, Ordering::Relaxed);
            // Once the server is shutting down, nothing listens any more, and the request is already fulfilled.
            let _ = requests.send(request);
        }
    }
}

/// The shared server.
pub type Shared = Arc<Server>;

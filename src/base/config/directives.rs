//! The directives that work: each is one row of one list, which makes the table and the [`Settings`].
//!
//! A row is documentation, name, field of the settings and its type, form and default, rules. The documentation is
//! printed by `ironkeep config` and is the field's as well. Adding a directive is adding a row here; a field that
//! nobody reads fails a test. What is accepted and does nothing is listed in [`without_effect`](super::without_effect).

use std::path::PathBuf;
use std::sync::LazyLock;

use super::directive::{Directive, Group, Kind, bool, choice, int, memory, of, text, trimmed};
use super::notify::NotifyFlags;
use super::settings::{ClientsLimit, EndpointType, EvictionPolicy, FsyncPolicy, Permission, ScriptRollback, Setting};
use super::value::{Lines, OutputLimit, SavePoint, Value};
use super::without_effect::{NOT_APPLICABLE, WITHOUT_EFFECT};
use crate::base::logging::{Level, LineFormat, TimeFormat};

const I64_MAX: u64 = i64::MAX as u64;
const INT_MAX: i64 = i32::MAX as i64;
const MIB: u64 = 1 << 20;

const SYSLOG_FACILITIES: &[&str] =
    &["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"];

const SHUTDOWN: &[&str] = &["default", "save", "nosave", "now", "force", "safe", "failover"];

/// The one row without a field: it does its work while the file is read.
const INCLUDE: &[Directive] = &[Directive {
    name: "include",
    doc: "Reads another file at this place; *, ? and [] are expanded.",
    ..of(Kind::FileOnly, "").fixed()
}];

macro_rules! directives {
    ($($title:literal {
        $($(#[doc = $doc:literal])+ $name:literal => $field:ident: $type:ty = $row:expr;)*
    })*) => {
        /// The working directives, in the order in which they are printed.
        pub const GROUPS: &[Group] = &[
            Group { title: "Other files", directives: INCLUDE },
            $(Group {
                title: $title,
                directives: &[$(Directive { name: $name, doc: trimmed(concat!($($doc),+)), ..$row }),*],
            }),*
        ];

        /// The settings as the server reads them: one typed field for each directive that has an effect.
        ///
        /// It is immutable; a change makes a new one. Paths are as the operator wrote them, relative to the working
        /// directory. An empty path or text means "not given".
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(
                #[doc = concat!("`", $name, "`:")]
                $(#[doc = $doc])+
                pub $field: $type,
            )*)*
        }

        impl Settings {
            pub(super) fn from_values(values: &[Value]) -> Settings {
                Settings { $($($field: Setting::of(&values[const { position($name) }]),)*)* }
            }
        }
    };
}

directives! {
    "Files and start-up" {
        /// The number of databases, chosen with SELECT.
        "databases" => databases: usize = int("16", 1, INT_MAX).fixed();
        /// The directory of all data files; made when missing.
        "dir" => dir: PathBuf = of(Kind::Text, "./ironkeep-data").protected();
        /// Go on in the background after the start.
        "daemonize" => daemonize: bool = bool("no").fixed();
        /// Tell the service manager when ready.
        "supervised" => supervised: &'static str = choice("no", &["no", "systemd", "upstart", "auto"]).fixed();
        /// A file for the process id; removed on a clean exit.
        "pidfile" => pidfile: PathBuf = text("").fixed();
        /// The least level that is logged.
        "loglevel" => loglevel: Level = choice("notice", Level::WORDS);
        /// The operator's log; empty means standard output.
        "logfile" => logfile: PathBuf = text("").fixed();
        /// The form of the log's lines.
        "log-format" => log_format: LineFormat = choice("legacy", LineFormat::WORDS);
        /// The form of the time in the log's lines.
        "log-timestamp-format" => log_timestamp_format: TimeFormat = choice("legacy", TimeFormat::WORDS);
        /// Send the lines to the system's log as well.
        "syslog-enabled" => syslog_enabled: bool = bool("no").fixed();
        /// The name of this server in the system's log.
        "syslog-ident" => syslog_ident: String = text("ironkeep").fixed();
        /// The facility of the lines in the system's log.
        "syslog-facility" => syslog_facility: &'static str = choice("local0", SYSLOG_FACILITIES).fixed();
        /// Report state and stack after a panic and before the end by a fatal signal. no: one line.
        "crash-log-enabled" => crash_log_enabled: bool = bool("yes");
        /// Keep keys, values and arguments out of the operator's log.
        "hide-user-data-from-log" => hide_user_data_from_log: bool = bool("yes");
        /// Show a title in the place of the command line, as ps has it.
        "set-proc-title" => set_proc_title: bool = bool("yes").fixed();
        /// That title: {title}, {listen-addr}, {server-mode}, {port}, {tls-port}, {unixsocket}, {config-file}.
        "proc-title-template" => proc_title_template: String = text("{title} {listen-addr} {server-mode}");
        /// What SIGINT does: SHUTDOWN's options.
        "shutdown-on-sigint" => shutdown_on_sigint: Vec<&'static str> = of(Kind::Choices(SHUTDOWN), "default");
        /// What SIGTERM does: SHUTDOWN's options.
        "shutdown-on-sigterm" => shutdown_on_sigterm: Vec<&'static str> = of(Kind::Choices(SHUTDOWN), "default");
        /// The number of threads that execute commands; 0 means one per core.
        "io-threads" => io_threads: usize = int("0", 0, 256).fixed();
    }
    "Network" {
        /// The addresses to listen on; with a leading - an address may be missing. * means all.
        "bind" => bind: Vec<String> = of(Kind::Addresses, "127.0.0.1 -::1");
        /// The TCP port; 0 switches TCP off.
        "port" => port: u16 = int("6379", 0, 65535);
        /// Accept only local clients as long as the default user has no password.
        "protected-mode" => protected_mode: bool = bool("yes");
        /// The path of a Unix socket to listen on.
        "unixsocket" => unixsocket: PathBuf = text("").fixed();
        /// The permissions of the Unix socket, octal; 0 leaves them.
        "unixsocketperm" => unixsocketperm: u32 = of(Kind::Octal, "0").fixed();
        /// The group of the Unix socket.
        "unixsocketgroup" => unixsocketgroup: String = text("").fixed();
        /// The length of the kernel's queue of new connections.
        "tcp-backlog" => tcp_backlog: i32 = int("511", 0, INT_MAX).fixed();
        /// Seconds between TCP keep-alive probes; 0 switches them off.
        "tcp-keepalive" => tcp_keepalive_seconds: u64 = int("300", 0, INT_MAX);
        /// Close a connection after this many idle seconds; 0 means never.
        "timeout" => timeout_seconds: u64 = int("0", 0, INT_MAX);
        /// The highest number of connected clients.
        "maxclients" => maxclients: usize = int("10000", 1, u32::MAX as i64);
        /// Close a client whose waiting replies exceed the hard limit, or the soft limit for so many seconds: class
        /// hard soft seconds. 0 means no limit.
        "client-output-buffer-limit" => client_output_buffer_limits: [OutputLimit; 3] =
            of(Kind::OutputLimits, "normal 0 0 0 slave 256mb 64mb 60 pubsub 32mb 8mb 60");
        /// The longest unfinished request of a client.
        "client-query-buffer-limit" => client_query_buffer_limit: u64 = memory("1gb", MIB, I64_MAX);
        /// The longest single argument, and so the longest string.
        "proto-max-bulk-len" => proto_max_bulk_len: u64 = memory("512mb", MIB, I64_MAX);
    }
    "TLS" {
        /// The port for TLS; 0 switches TLS off.
        "tls-port" => tls_port: u16 = int("0", 0, 65535);
    }
    "Security" {
        /// The password of the default user; empty means none.
        "requirepass" => requirepass: Vec<u8> = text("").secret();
        /// A file of ACL users; excludes user lines here.
        "aclfile" => aclfile: PathBuf = text("").fixed();
        /// An ACL user and its rules. May be repeated.
        "user" => users: Lines = of(Kind::FileOnly, "").fixed().secret();
        /// Renames a command; to "" disables it. ACLs are the better way.
        "rename-command" => renamed_commands: Lines = of(Kind::FileOnly, "").fixed();
        /// May CONFIG SET change protected directives?
        "enable-protected-configs" => enable_protected_configs: Permission = choice("no", Permission::WORDS).fixed();
        /// May MODULE LOAD and UNLOAD say that there are no modules? Otherwise they are refused first.
        "enable-module-command" => enable_module_command: Permission = choice("no", Permission::WORDS).fixed();
        /// Is DEBUG allowed?
        "enable-debug-command" => enable_debug_command: Permission = choice("no", Permission::WORDS).fixed();
    }
    "The log" {
        /// Log every change before it is acknowledged. Without it, only snapshots remain.
        "appendonly" => appendonly: bool = bool("yes");
        /// When the log is forced to the disk: every second, before every reply, or when the kernel likes.
        "appendfsync" => appendfsync: FsyncPolicy = choice("everysec", FsyncPolicy::WORDS);
        /// Compact the log when it has grown by this many percent since the last time; 0 means never.
        "auto-aof-rewrite-percentage" => auto_aof_rewrite_percentage: u64 = int("100", 0, INT_MAX);
        /// But not before it has this size.
        "auto-aof-rewrite-min-size" => auto_aof_rewrite_min_size: u64 = memory("64mb", 0, I64_MAX);
        /// Compact the log at this size, whatever the percentage says, so that a restart stays short; 0 means no cap.
        "auto-aof-rewrite-max-size" => auto_aof_rewrite_max_size: u64 = memory("8gb", 0, I64_MAX);
        /// Start although the last, never acknowledged record is torn.
        "aof-load-truncated" => aof_load_truncated: bool = bool("yes");
    }
    "Snapshots" {
        /// Take a snapshot after this many seconds if there were this many changes; "" switches it off.
        "save" => save: Vec<SavePoint> = of(Kind::SavePoints, "3600 1 300 100 60 10000");
        /// Refuse writes while snapshots fail.
        "stop-writes-on-bgsave-error" => stop_writes_on_bgsave_error: bool = bool("yes");
        /// Compress snapshots.
        "rdbcompression" => rdbcompression: bool = bool("yes");
    }
    "Memory and eviction" {
        /// Evict keys, or refuse writes, beyond this many bytes; 0 means no limit.
        "maxmemory" => maxmemory: u64 = memory("0", 0, u64::MAX);
        /// Which keys to evict.
        "maxmemory-policy" => maxmemory_policy: EvictionPolicy = choice("noeviction", EvictionPolicy::WORDS);
        /// How many keys to compare when looking for one to evict.
        "maxmemory-samples" => maxmemory_samples: usize = int("5", 1, i32::MAX as i64);
        /// How long to go on evicting before serving; 100: to the end.
        "maxmemory-eviction-tenacity" => maxmemory_eviction_tenacity: u32 = int("10", 0, 100);
        /// Close the largest clients when all take more than this (bytes, or percent of maxmemory); 0 means no limit.
        "maxmemory-clients" => maxmemory_clients: ClientsLimit = of(Kind::MemoryOrPercent, "0");
        /// How many keys are remembered for those who have cached them; 0: any number.
        "tracking-table-max-keys" => tracking_table_max_keys: u64 = int("1000000", 0, i64::MAX);
        /// Whether data is being imported: nothing expires or is evicted, unless a client removes it.
        "import-mode" => import_mode: bool = bool("no");
        /// How slowly the counter of accesses grows.
        "lfu-log-factor" => lfu_log_factor: u32 = int("10", 0, INT_MAX);
        /// Minutes after which the counter of accesses is decreased.
        "lfu-decay-time" => lfu_decay_time_minutes: u32 = int("1", 0, INT_MAX);
        /// How hard to look for expired keys, from 1 to 10.
        "active-expire-effort" => active_expire_effort: u32 = int("1", 1, 10);
    }
    "Encodings of small values" {
        /// Fields of a hash that is kept as a listpack.
        "hash-max-listpack-entries" => hash_max_listpack_entries: usize =
            int("512", 0, i64::MAX).alias("hash-max-ziplist-entries");
        /// Longest field or value in such a hash.
        "hash-max-listpack-value" => hash_max_listpack_value: usize =
            memory("64", 0, I64_MAX).alias("hash-max-ziplist-value");
        /// Elements per list node; -1 to -5: 4 to 64 KiB.
        "list-max-listpack-size" => list_max_listpack_size: i32 =
            int("-2", i32::MIN as i64, INT_MAX).alias("list-max-ziplist-size");
        /// Members of a set of integers that is kept as an intset.
        "set-max-intset-entries" => set_max_intset_entries: usize = int("512", 0, i64::MAX);
        /// Members of a set that is kept as a listpack.
        "set-max-listpack-entries" => set_max_listpack_entries: usize = int("128", 0, i64::MAX);
        /// Longest member of such a set.
        "set-max-listpack-value" => set_max_listpack_value: usize = int("64", 0, i64::MAX);
        /// Members of a sorted set that is kept as a listpack.
        "zset-max-listpack-entries" => zset_max_listpack_entries: usize =
            int("128", 0, i64::MAX).alias("zset-max-ziplist-entries");
        /// Longest member of such a sorted set.
        "zset-max-listpack-value" => zset_max_listpack_value: usize =
            memory("64", 0, I64_MAX).alias("zset-max-ziplist-value");
        /// Size at which a HyperLogLog becomes dense.
        "hll-sparse-max-bytes" => hll_sparse_max_bytes: usize = memory("3000", 0, I64_MAX);
        /// Bytes of a stream's node; 0 means no limit.
        "stream-node-max-bytes" => stream_node_max_bytes: usize = memory("4096", 0, I64_MAX);
        /// Entries of a stream's node; 0 means no limit.
        "stream-node-max-entries" => stream_node_max_entries: usize = int("100", 0, i64::MAX);
    }
    "Scripts" {
        /// Milliseconds after which a running script is called busy, and others are told; 0: never.
        "busy-reply-threshold" => busy_reply_threshold_ms: i64 = int("5000", 0, i64::MAX).alias("lua-time-limit");
        /// When what a script has done is taken back: when it is killed, when it fails, or not at all.
        "script-rollback" => script_rollback: ScriptRollback = choice("on-kill", ScriptRollback::WORDS);
    }
    "Observation" {
        /// Keep a histogram of every command's latency.
        "latency-tracking" => latency_tracking: bool = bool("yes");
        /// The events of keys to publish: channels (K, E; of fields of hashes S, T, I, V) and classes (g$lshzxetd, or
        /// A for all of these; m, n, o, c). Empty: none.
        "notify-keyspace-events" => notify_keyspace_events: NotifyFlags = of(Kind::Notify, "");
        /// The percentiles that INFO latencystats shows.
        "latency-tracking-info-percentiles" => latency_tracking_info_percentiles: Vec<f64> =
            of(Kind::Percentiles, "50 99 99.9");
        /// Microseconds; slower commands go to SLOWLOG. -1: none.
        "slowlog-log-slower-than" => slowlog_log_slower_than_us: i64 =
            int("10000", -1, i64::MAX).alias("commandlog-execution-slower-than");
        /// The number of entries that SLOWLOG keeps.
        "slowlog-max-len" => slowlog_max_len: usize =
            int("128", 0, i64::MAX).alias("commandlog-slow-execution-max-len");
        /// The most arguments that an entry of SLOWLOG or COMMANDLOG shows.
        "slowlog-entry-max-argc" => slowlog_entry_max_argc: usize = int("32", 2, i64::MAX);
        /// The most bytes that it shows of each argument.
        "slowlog-entry-max-string-len" => slowlog_entry_max_string_len: usize = int("128", 1, i64::MAX);
        /// Bytes; commands with larger requests go to COMMANDLOG. -1: none.
        "commandlog-request-larger-than" => commandlog_request_larger_than_bytes: i64 = int("1048576", -1, i64::MAX);
        /// The number of large requests that COMMANDLOG keeps.
        "commandlog-large-request-max-len" => commandlog_large_request_max_len: usize = int("128", 0, i64::MAX);
        /// Bytes; commands with larger replies go to COMMANDLOG. -1: none.
        "commandlog-reply-larger-than" => commandlog_reply_larger_than_bytes: i64 = int("1048576", -1, i64::MAX);
        /// The number of large replies that COMMANDLOG keeps.
        "commandlog-large-reply-max-len" => commandlog_large_reply_max_len: usize = int("128", 0, i64::MAX);
        /// Milliseconds; events that take longer go to LATENCY. 0: none.
        "latency-monitor-threshold" => latency_monitor_threshold_ms: u64 = int("0", 0, i64::MAX);
        /// Show in INFO keysizes how much memory keys take, too.
        "key-memory-histograms" => key_memory_histograms: bool = bool("no");
        /// How many of the most used keys HOTKEYS shows without a session; 0: none are counted.
        "hotkeys-top-k" => hotkeys_top_k: usize = int("0", 0, 1000);
        /// The percentage of accesses that is counted.
        "hotkeys-sampling-percentage" => hotkeys_sampling_percentage: u64 = int("1", 1, 100);
        /// Seconds for which accesses are counted before they are shown.
        "hotkeys-window-seconds" => hotkeys_window_seconds: u64 = int("1", 1, 300);
        /// Microseconds to wait per key while loading; for tests.
        "key-load-delay" => key_load_delay_us: i64 = int("0", i32::MIN as i64, INT_MAX).hidden();
        /// Microseconds to wait per key while saving; for tests.
        "rdb-key-save-delay" => rdb_key_save_delay_us: i64 = int("0", i32::MIN as i64, INT_MAX).hidden();
    }
    "Replicas" {
        /// Refuse writes with fewer replicas than this. There are no replicas yet: any number but 0 refuses all.
        "min-replicas-to-write" => min_replicas_to_write: u64 = int("0", 0, INT_MAX).alias("min-slaves-to-write");
    }
    "Cluster clients" {
        /// Answer cluster clients: as a cluster of one node, which owns all slots and has database 0 alone.
        "cluster-enabled" => cluster_enabled: bool = bool("no").fixed();
        /// The file in dir that keeps who this node is.
        "cluster-config-file" => cluster_config_file: String = of(Kind::FileName, "nodes.conf").fixed();
        /// The address that clients are told; empty means that by which each has reached the server.
        "cluster-announce-ip" => cluster_announce_ip: String = text("");
        /// The port that clients are told; 0 means port.
        "cluster-announce-port" => cluster_announce_port: u16 = int("0", 0, 65535);
        /// The TLS port that clients are told; 0 means tls-port.
        "cluster-announce-tls-port" => cluster_announce_tls_port: u16 = int("0", 0, 65535);
        /// The port of the cluster bus that clients are told; 0 means cluster-port. There is no bus.
        "cluster-announce-bus-port" => cluster_announce_bus_port: u16 = int("0", 0, 65535);
        /// The port of the cluster bus that clients are told; 0 means 10000 above port.
        "cluster-port" => cluster_port: u16 = int("0", 0, 65535).fixed();
        /// The name of the host that clients are told.
        "cluster-announce-hostname" => cluster_announce_hostname: String = of(Kind::HostName, "");
        /// Count time and bytes of each slot's commands, for CLUSTER SLOT-STATS. Each command is timed then.
        "cluster-slot-stats-enabled" => cluster_slot_stats_enabled: bool = bool("no");
        /// What clients are told to connect to.
        "cluster-preferred-endpoint-type" => cluster_preferred_endpoint_type: EndpointType =
            choice("ip", EndpointType::WORDS);
    }
    "Operating system" {
        /// Set the kernel's out-of-memory score.
        "oom-score-adj" => oom_score_adj: &'static str = choice("no", &["no", "yes", "relative", "absolute"]);
        /// The scores of main, replica and child processes.
        "oom-score-adj-values" => oom_score_adj_values: [i64; 3] = of(Kind::OomScores, "0 200 800");
        /// The cores that the workers run on, as 0-3,8.
        "server-cpulist" => server_cpulist: String = text("").alias("server_cpulist").fixed();
    }
}

impl Settings {
    /// The number of worker threads: `io-threads`, or the number of cores.
    pub fn worker_count(&self) -> usize {
        match self.io_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(256),
            given => given,
        }
    }
}

/// The index in [`all`] of a working directive.
///
/// # Panics
/// There is none of this name; where it is called, that is an error of the compiler.
const fn position(name: &str) -> usize {
    let (mut group, mut index) = (0, 0);
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].directives.len() {
            if is_equal(GROUPS[group].directives[row].name.as_bytes(), name.as_bytes()) {
                return index;
            }
            row += 1;
            index += 1;
        }
        group += 1;
    }
    panic!("no directive has this name")
}

const fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Every directive: those that work in printing order, then those that are only accepted.
pub fn all() -> &'static [&'static Directive] {
    static ALL: LazyLock<Vec<&'static Directive>> =
        LazyLock::new(|| GROUPS.iter().chain(WITHOUT_EFFECT).flat_map(|group| group.directives).collect());
    &ALL
}

/// The index in [`all`] of the directive with this name or alias, whatever its case.
pub fn find(name: &[u8]) -> Option<usize> {
    all().iter().position(|directive| directive.is_called(name))
}

/// Is this a directive of Redis or Valkey that has no meaning here?
pub fn is_not_applicable(name: &[u8]) -> bool {
    NOT_APPLICABLE.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
#[path = "directives_tests.rs"]
mod facts_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names = HashSet::new();
        for directive in all() {
            for name in [directive.name, directive.alias] {
                assert!(name.is_empty() || names.insert(name), "{name} twice");
                assert_eq!(name, name.to_lowercase());
            }
            assert!(!directive.works || directive.doc.ends_with(['.', '?']), "{}", directive.name);
            assert!(!directive.doc.starts_with(' ') && !directive.doc.contains("  "), "{}", directive.doc);
            assert!(!is_not_applicable(directive.name.as_bytes()), "{}", directive.name);
        }
        assert!(names.len() > 190, "{}", names.len());
        assert!(WITHOUT_EFFECT.iter().all(|group| group.title.ends_with('.')), "a reason is a sentence");
    }

    #[test]
    fn positions_are_those_of_the_whole_table() {
        assert_eq!(position("include"), 0);
        assert_eq!(all()[const { position("appendonly") }].name, "appendonly");
    }

    #[test]
    fn names_are_found_without_case_and_by_alias() {
        let index = find(b"HASH-max-ziplist-entries").expect("an alias");
        assert_eq!(all()[index].name, "hash-max-listpack-entries");
        assert_eq!(find(b"nosuch"), None);
        assert_eq!(find(b""), None);
        assert!(is_not_applicable(b"LoadModule"));
    }
}

//! The settings as the server reads them: one typed field per directive that has an effect.
//!
//! A [`Settings`] is immutable; a change makes a new one. The paths are as the operator wrote them,
//! relative to the working directory. An empty path or text means "not given".

use std::path::PathBuf;

use super::notify::NotifyFlags;
use super::value::{OutputLimit, SavePoint};
use super::values::Values;
use crate::base::logging::{Level, LineFormat, TimeFormat};

/// When the log is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// Before every reply.
    Always,
    /// Every second.
    EverySec,
    /// When the kernel likes.
    No,
}

/// Which keys to evict when memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The least recently used with an expiry.
    VolatileLru,
    /// The least often used with an expiry.
    VolatileLfu,
    /// Any with an expiry.
    VolatileRandom,
    /// The next to expire.
    VolatileTtl,
    /// The least recently used.
    AllkeysLru,
    /// The least often used.
    AllkeysLfu,
    /// Any.
    AllkeysRandom,
    /// None: refuse writes.
    NoEviction,
}

impl EvictionPolicy {
    /// Its word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            EvictionPolicy::VolatileLru => "volatile-lru",
            EvictionPolicy::VolatileLfu => "volatile-lfu",
            EvictionPolicy::VolatileRandom => "volatile-random",
            EvictionPolicy::VolatileTtl => "volatile-ttl",
            EvictionPolicy::AllkeysLru => "allkeys-lru",
            EvictionPolicy::AllkeysLfu => "allkeys-lfu",
            EvictionPolicy::AllkeysRandom => "allkeys-random",
            EvictionPolicy::NoEviction => "noeviction",
        }
    }

    /// Whether access fields count how often a key is used.
    pub fn is_lfu(self) -> bool {
        matches!(self, EvictionPolicy::VolatileLfu | EvictionPolicy::AllkeysLfu)
    }
}

/// Who may use a dangerous command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nobody.
    No,
    /// Everybody.
    Yes,
    /// Connections from this machine.
    Local,
}

impl Permission {
    /// Is a client allowed, given whether it is on this machine?
    pub fn allows(self, is_local: bool) -> bool {
        self == Permission::Yes || (self == Permission::Local && is_local)
    }
}

/// `maxmemory-clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientsLimit {
    /// So many bytes; 0 means no limit.
    Bytes(u64),
    /// Percent of `maxmemory`.
    Percent(u64),
}

/// Everything the server reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `port`.
    pub port: u16,
    /// `bind`.
    pub bind: Vec<String>,
    /// `protected-mode`.
    pub protected_mode: bool,
    /// `bind-source-addr`.
    pub bind_source_addr: String,
    /// `unixsocket`.
    pub unixsocket: PathBuf,
    /// `unixsocketperm`.
    pub unixsocketperm: u32,
    /// `unixsocketgroup`.
    pub unixsocketgroup: String,
    /// `tcp-backlog`.
    pub tcp_backlog: i32,
    /// `tcp-keepalive`.
    pub tcp_keepalive_seconds: u64,
    /// `timeout`.
    pub timeout_seconds: u64,
    /// `maxclients`.
    pub maxclients: usize,
    /// `client-output-buffer-limit`.
    pub client_output_buffer_limits: [OutputLimit; 3],
    /// `client-query-buffer-limit`.
    pub client_query_buffer_limit: u64,
    /// `proto-max-bulk-len`.
    pub proto_max_bulk_len: u64,
    /// `tls-port`.
    pub tls_port: u16,
    /// `tls-cert-file`.
    pub tls_cert_file: PathBuf,
    /// `tls-key-file`.
    pub tls_key_file: PathBuf,
    /// `tls-key-file-pass`.
    pub tls_key_file_pass: Vec<u8>,
    /// `tls-ca-cert-file`.
    pub tls_ca_cert_file: PathBuf,
    /// `tls-ca-cert-dir`.
    pub tls_ca_cert_dir: PathBuf,
    /// `tls-auth-clients`.
    pub tls_auth_clients: &'static str,
    /// `tls-auth-clients-user`.
    pub tls_auth_clients_user: &'static str,
    /// `tls-protocols`.
    pub tls_protocols: String,
    /// `tls-ciphers`.
    pub tls_ciphers: String,
    /// `tls-ciphersuites`.
    pub tls_ciphersuites: String,
    /// `tls-prefer-server-ciphers`.
    pub tls_prefer_server_ciphers: bool,
    /// `tls-auto-reload-interval`.
    pub tls_auto_reload_interval_seconds: u64,
    /// `databases`.
    pub databases: usize,
    /// `dir`.
    pub dir: PathBuf,
    /// `daemonize`.
    pub daemonize: bool,
    /// `supervised`.
    pub supervised: &'static str,
    /// `pidfile`.
    pub pidfile: PathBuf,
    /// `loglevel`.
    pub loglevel: Level,
    /// `logfile`.
    pub logfile: PathBuf,
    /// `log-format`.
    pub log_format: LineFormat,
    /// `log-timestamp-format`.
    pub log_timestamp_format: TimeFormat,
    /// `hide-user-data-from-log`.
    pub hide_user_data_from_log: bool,
    /// `shutdown-on-sigint`.
    pub shutdown_on_sigint: Vec<&'static str>,
    /// `shutdown-on-sigterm`.
    pub shutdown_on_sigterm: Vec<&'static str>,
    /// `shutdown-timeout`.
    pub shutdown_timeout_seconds: u64,
    /// `io-threads`.
    pub io_threads: usize,
    /// `requirepass`.
    pub requirepass: Vec<u8>,
    /// `aclfile`.
    pub aclfile: PathBuf,
    /// `acllog-max-len`.
    pub acllog_max_len: usize,
    /// `acl-pubsub-default`: new users may use all channels.
    pub acl_pubsub_allchannels: bool,
    /// `enable-protected-configs`.
    pub enable_protected_configs: Permission,
    /// `enable-debug-command`.
    pub enable_debug_command: Permission,
    /// `user`: the words of each line.
    pub users: Vec<Vec<Vec<u8>>>,
    /// `rename-command`: the words of each line.
    pub renamed_commands: Vec<Vec<Vec<u8>>>,
    /// `appendonly`.
    pub appendonly: bool,
    /// `appendfsync`.
    pub appendfsync: FsyncPolicy,
    /// `auto-aof-rewrite-percentage`.
    pub auto_aof_rewrite_percentage: u64,
    /// `auto-aof-rewrite-min-size`.
    pub auto_aof_rewrite_min_size: u64,
    /// `auto-aof-rewrite-max-size`.
    pub auto_aof_rewrite_max_size: u64,
    /// `aof-load-truncated`.
    pub aof_load_truncated: bool,
    /// `aof-timestamp-enabled`.
    pub aof_timestamp_enabled: bool,
    /// `appendfilename`.
    pub appendfilename: String,
    /// `appenddirname`.
    pub appenddirname: String,
    /// `save`.
    pub save: Vec<SavePoint>,
    /// `stop-writes-on-bgsave-error`.
    pub stop_writes_on_bgsave_error: bool,
    /// `rdbcompression`.
    pub rdbcompression: bool,
    /// `rdbchecksum`.
    pub rdbchecksum: bool,
    /// `dbfilename`.
    pub dbfilename: String,
    /// `rdb-version-check`: refuse newer versions.
    pub rdb_version_check_strict: bool,
    /// `sanitize-dump-payload`.
    pub sanitize_dump_payload: &'static str,
    /// `maxmemory`.
    pub maxmemory: u64,
    /// `maxmemory-policy`.
    pub maxmemory_policy: EvictionPolicy,
    /// `maxmemory-samples`.
    pub maxmemory_samples: usize,
    /// `maxmemory-eviction-tenacity`.
    pub maxmemory_eviction_tenacity: u32,
    /// `maxmemory-clients`.
    pub maxmemory_clients: ClientsLimit,
    /// `lfu-log-factor`.
    pub lfu_log_factor: u32,
    /// `lfu-decay-time`.
    pub lfu_decay_time_minutes: u32,
    /// `active-expire-effort`.
    pub active_expire_effort: u32,
    /// `lazyfree-lazy-user-flush`.
    pub lazyfree_lazy_user_flush: bool,
    /// `lazyfree-lazy-user-del`.
    pub lazyfree_lazy_user_del: bool,
    /// `tracking-table-max-keys`.
    pub tracking_table_max_keys: usize,
    /// `hash-max-listpack-entries`.
    pub hash_max_listpack_entries: usize,
    /// `hash-max-listpack-value`.
    pub hash_max_listpack_value: usize,
    /// `list-max-listpack-size`.
    pub list_max_listpack_size: i32,
    /// `set-max-intset-entries`.
    pub set_max_intset_entries: usize,
    /// `set-max-listpack-entries`.
    pub set_max_listpack_entries: usize,
    /// `set-max-listpack-value`.
    pub set_max_listpack_value: usize,
    /// `zset-max-listpack-entries`.
    pub zset_max_listpack_entries: usize,
    /// `zset-max-listpack-value`.
    pub zset_max_listpack_value: usize,
    /// `hll-sparse-max-bytes`.
    pub hll_sparse_max_bytes: usize,
    /// `stream-node-max-bytes`.
    pub stream_node_max_bytes: usize,
    /// `stream-node-max-entries`.
    pub stream_node_max_entries: usize,
    /// `busy-reply-threshold`.
    pub busy_reply_threshold_ms: u64,
    /// `notify-keyspace-events`.
    pub notify_keyspace_events: NotifyFlags,
    /// `slowlog-log-slower-than`.
    pub slowlog_log_slower_than_us: i64,
    /// `slowlog-max-len`.
    pub slowlog_max_len: usize,
    /// `commandlog-request-larger-than`.
    pub commandlog_request_larger_than: i64,
    /// `commandlog-large-request-max-len`.
    pub commandlog_large_request_max_len: usize,
    /// `commandlog-reply-larger-than`.
    pub commandlog_reply_larger_than: i64,
    /// `commandlog-large-reply-max-len`.
    pub commandlog_large_reply_max_len: usize,
    /// `latency-monitor-threshold`.
    pub latency_monitor_threshold_ms: u64,
    /// `latency-tracking`.
    pub latency_tracking: bool,
    /// `latency-tracking-info-percentiles`.
    pub latency_tracking_info_percentiles: Vec<f64>,
    /// `key-load-delay`.
    pub key_load_delay_us: i64,
    /// `rdb-key-save-delay`.
    pub rdb_key_save_delay_us: i64,
    /// `oom-score-adj`.
    pub oom_score_adj: &'static str,
    /// `oom-score-adj-values`.
    pub oom_score_adj_values: [i64; 3],
    /// `server-cpulist`.
    pub server_cpulist: String,
}

impl Settings {
    pub(super) fn from_values(values: &Values) -> Settings {
        Settings {
            port: values.number("port"),
            bind: values.addresses("bind"),
            protected_mode: values.bool("protected-mode"),
            bind_source_addr: values.text("bind-source-addr"),
            unixsocket: values.path("unixsocket"),
            unixsocketperm: values.number("unixsocketperm"),
            unixsocketgroup: values.text("unixsocketgroup"),
            tcp_backlog: values.number("tcp-backlog"),
            tcp_keepalive_seconds: values.number("tcp-keepalive"),
            timeout_seconds: values.number("timeout"),
            maxclients: values.number("maxclients"),
            client_output_buffer_limits: values.output_limits("client-output-buffer-limit"),
            client_query_buffer_limit: values.number("client-query-buffer-limit"),
            proto_max_bulk_len: values.number("proto-max-bulk-len"),
            tls_port: values.number("tls-port"),
            tls_cert_file: values.path("tls-cert-file"),
            tls_key_file: values.path("tls-key-file"),
            tls_key_file_pass: values.bytes("tls-key-file-pass"),
            tls_ca_cert_file: values.path("tls-ca-cert-file"),
            tls_ca_cert_dir: values.path("tls-ca-cert-dir"),
            tls_auth_clients: values.choice("tls-auth-clients"),
            tls_auth_clients_user: values.choice("tls-auth-clients-user"),
            tls_protocols: values.text("tls-protocols"),
            tls_ciphers: values.text("tls-ciphers"),
            tls_ciphersuites: values.text("tls-ciphersuites"),
            tls_prefer_server_ciphers: values.bool("tls-prefer-server-ciphers"),
            tls_auto_reload_interval_seconds: values.number("tls-auto-reload-interval"),
            databases: values.number("databases"),
            dir: values.path("dir"),
            daemonize: values.bool("daemonize"),
            supervised: values.choice("supervised"),
            pidfile: values.path("pidfile"),
            loglevel: values.level(),
            logfile: values.path("logfile"),
            log_format: values.line_format("log-format"),
            log_timestamp_format: values.time_format("log-timestamp-format"),
            hide_user_data_from_log: values.bool("hide-user-data-from-log"),
            shutdown_on_sigint: values.choices("shutdown-on-sigint"),
            shutdown_on_sigterm: values.choices("shutdown-on-sigterm"),
            shutdown_timeout_seconds: values.number("shutdown-timeout"),
            io_threads: values.number("io-threads"),
            requirepass: values.bytes("requirepass"),
            aclfile: values.path("aclfile"),
            acllog_max_len: values.number("acllog-max-len"),
            acl_pubsub_allchannels: values.choice("acl-pubsub-default") == "allchannels",
            enable_protected_configs: values.permission("enable-protected-configs"),
            enable_debug_command: values.permission("enable-debug-command"),
            users: values.lines("user"),
            renamed_commands: values.lines("rename-command"),
            appendonly: values.bool("appendonly"),
            appendfsync: values.fsync(),
            auto_aof_rewrite_percentage: values.number("auto-aof-rewrite-percentage"),
            auto_aof_rewrite_min_size: values.number("auto-aof-rewrite-min-size"),
            auto_aof_rewrite_max_size: values.number("auto-aof-rewrite-max-size"),
            aof_load_truncated: values.bool("aof-load-truncated"),
            aof_timestamp_enabled: values.bool("aof-timestamp-enabled"),
            appendfilename: values.text("appendfilename"),
            appenddirname: values.text("appenddirname"),
            save: values.save_points("save"),
            stop_writes_on_bgsave_error: values.bool("stop-writes-on-bgsave-error"),
            rdbcompression: values.bool("rdbcompression"),
            rdbchecksum: values.bool("rdbchecksum"),
            dbfilename: values.text("dbfilename"),
            rdb_version_check_strict: values.choice("rdb-version-check") == "strict",
            sanitize_dump_payload: values.choice("sanitize-dump-payload"),
            maxmemory: values.number("maxmemory"),
            maxmemory_policy: values.eviction(),
            maxmemory_samples: values.number("maxmemory-samples"),
            maxmemory_eviction_tenacity: values.number("maxmemory-eviction-tenacity"),
            maxmemory_clients: values.clients_limit("maxmemory-clients"),
            lfu_log_factor: values.number("lfu-log-factor"),
            lfu_decay_time_minutes: values.number("lfu-decay-time"),
            active_expire_effort: values.number("active-expire-effort"),
            lazyfree_lazy_user_flush: values.bool("lazyfree-lazy-user-flush"),
            lazyfree_lazy_user_del: values.bool("lazyfree-lazy-user-del"),
            tracking_table_max_keys: values.number("tracking-table-max-keys"),
            hash_max_listpack_entries: values.number("hash-max-listpack-entries"),
            hash_max_listpack_value: values.number("hash-max-listpack-value"),
            list_max_listpack_size: values.number("list-max-listpack-size"),
            set_max_intset_entries: values.number("set-max-intset-entries"),
            set_max_listpack_entries: values.number("set-max-listpack-entries"),
            set_max_listpack_value: values.number("set-max-listpack-value"),
            zset_max_listpack_entries: values.number("zset-max-listpack-entries"),
            zset_max_listpack_value: values.number("zset-max-listpack-value"),
            hll_sparse_max_bytes: values.number("hll-sparse-max-bytes"),
            stream_node_max_bytes: values.number("stream-node-max-bytes"),
            stream_node_max_entries: values.number("stream-node-max-entries"),
            busy_reply_threshold_ms: values.number("busy-reply-threshold"),
            notify_keyspace_events: values.notify("notify-keyspace-events"),
            slowlog_log_slower_than_us: values.int("slowlog-log-slower-than"),
            slowlog_max_len: values.number("slowlog-max-len"),
            commandlog_request_larger_than: values.int("commandlog-request-larger-than"),
            commandlog_large_request_max_len: values.number("commandlog-large-request-max-len"),
            commandlog_reply_larger_than: values.int("commandlog-reply-larger-than"),
            commandlog_large_reply_max_len: values.number("commandlog-large-reply-max-len"),
            latency_monitor_threshold_ms: values.number("latency-monitor-threshold"),
            latency_tracking: values.bool("latency-tracking"),
            latency_tracking_info_percentiles: values.percentiles("latency-tracking-info-percentiles"),
            key_load_delay_us: values.int("key-load-delay"),
            rdb_key_save_delay_us: values.int("rdb-key-save-delay"),
            oom_score_adj: values.choice("oom-score-adj"),
            oom_score_adj_values: values.oom_scores("oom-score-adj-values"),
            server_cpulist: values.text("server-cpulist"),
        }
    }

    /// The number of worker threads: `io-threads`, or the number of cores.
    pub fn worker_count(&self) -> usize {
        match self.io_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(256),
            given => given,
        }
    }
}

//! The directives that work: each is one row of one list, which makes the table and the [`Settings`].
//!
//! A row is documentation, name, field of the settings and its type, form and default, rules. The documentation is
//! printed by `ironkeep config` and is the field's as well. Adding a directive is adding a row here; a field that
//! nobody reads fails a test. What is accepted and does nothing is listed in [`without_effect`](super::without_effect).

use std::path::PathBuf;
use std::sync::LazyLock;

use super::directive::{Directive, Group, Kind, bool, choice, int, memory, of, text, trimmed};
use super::notify::NotifyFlags;
use super::settings::{
    AuditKeys, ClientCertificates, ClientsLimit, CompatibilityMode, EndpointType, EvictionPolicy, FsyncPolicy,
    Permission, RdbVersionCheck, ScriptRollback, Setting, SlotStats, Subnets, UserField,
};
use super::value::{Lines, OutputLimit, SavePoint, Value};
use super::without_effect::{NOT_APPLICABLE, WITHOUT_EFFECT};
use crate::base::logging::{Level, LineFormat, TimeFormat};
use crate::base::secret::Secret;

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
        /// It is immutable; a change makes a new one. Paths are as the operator wrote them: relative to `dir`, which is
        /// absolute then, if that is given, else to where the server was started. An empty path or text: "not given".
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
        /// The directory of all data files; made when missing. If it is given, other relative paths are relative to it.
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
        /// May the process leave a core dump, which holds data and passwords? no: no debugger may attach, either.
        "core-dumps" => core_dumps: bool = bool("yes");
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
        /// The number of threads that execute commands; 0 means one per core, as far as server-cpulist and the CPU
        /// quota of the control group allow.
        "io-threads" => io_threads: usize = int("0", 0, 256);
    }
    "Network" {
        /// The addresses to listen on; with a leading - an address may be missing. * means all.
        "bind" => bind: Vec<String> = of(Kind::Addresses, "127.0.0.1 -::1");
        /// The zone of a cloud that this server is in, which HELLO and INFO tell; empty: none is told.
        "availability-zone" => availability_zone: String = text("");
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
        /// Of these, how many are for clients from priority-subnets alone, if there are any.
        "maxclients-reserved" => maxclients_reserved: usize = int("0", 0, INT_MAX);
        /// Addresses and subnets (10.0.0.0/8), separated by spaces or commas, whose new connections have priority.
        "priority-subnets" => priority_subnets: Subnets = of(Kind::Subnets, "");
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
        /// The server's certificate chain, PEM.
        "tls-cert-file" => tls_cert_file: PathBuf = text("").volatile();
        /// The server's private key, PEM.
        "tls-key-file" => tls_key_file: PathBuf = text("").volatile();
        /// The pass phrase of the private key.
        "tls-key-file-pass" => tls_key_file_pass: Secret = text("").secret();
        /// A second certificate chain, of another kind of key: each client gets the one that it prefers.
        "tls-alt-cert-file" => tls_alt_cert_file: PathBuf = text("").volatile();
        /// The private key of the second certificate.
        "tls-alt-key-file" => tls_alt_key_file: PathBuf = text("").volatile();
        /// The pass phrase of that key.
        "tls-alt-key-file-pass" => tls_alt_key_file_pass: Secret = text("").secret();
        /// The authorities that client certificates are checked against, PEM.
        "tls-ca-cert-file" => tls_ca_cert_file: PathBuf = text("").volatile();
        /// A directory of such authorities.
        "tls-ca-cert-dir" => tls_ca_cert_dir: PathBuf = text("").volatile();
        /// Must clients show a valid certificate?
        "tls-auth-clients" => tls_auth_clients: ClientCertificates = choice("yes", ClientCertificates::WORDS);
        /// Log a client in as the user its certificate names: in its common name, or in a URI.
        "tls-auth-clients-user" => tls_auth_clients_user: UserField = choice("off", UserField::WORDS);
        /// The TLS versions to offer, as "TLSv1.2 TLSv1.3"; empty means both.
        "tls-protocols" => tls_protocols: String = text("");
        /// The cipher suites of TLS 1.2.
        "tls-ciphers" => tls_ciphers: String = text("");
        /// The cipher suites of TLS 1.3.
        "tls-ciphersuites" => tls_ciphersuites: String = text("");
        /// The server's order of cipher suites decides.
        "tls-prefer-server-ciphers" => tls_prefer_server_ciphers: bool = bool("no");
        /// May clients resume a session instead of a whole handshake?
        "tls-session-caching" => tls_session_caching: bool = bool("yes");
        /// How many sessions are kept; 0 means any number, within 64 MiB.
        "tls-session-cache-size" => tls_session_cache_size: u64 = int("20480", 0, INT_MAX);
        /// How long a session may be resumed, in seconds.
        "tls-session-cache-timeout" => tls_session_cache_timeout_seconds: u64 = int("300", 0, INT_MAX);
        /// Look after this many seconds whether the files have changed, and read them again; 0: never.
        "tls-auto-reload-interval" => tls_auto_reload_interval_seconds: u64 = int("0", 0, INT_MAX);
    }
    "HTTP" {
        /// The port for metrics, health and state over HTTP; 0 switches it off.
        "http-port" => http_port: u16 = int("0", 0, 65535).fixed();
        /// The addresses to listen on for HTTP, as those of bind. One that other machines can reach needs http-token.
        "http-bind" => http_bind: Vec<String> = of(Kind::Addresses, "127.0.0.1 -::1").fixed();
        /// What every request must show: as "Authorization: Bearer", or as the password of Basic. Empty: nothing.
        "http-token" => http_token: Secret = text("").secret();
        /// May keys and values be read over HTTP, with the rights of the user that a request names? "read" or "no".
        "http-browse" => http_browse: &'static str = choice("no", &["no", "read"]);
        /// Serve HTTP by TLS alone, with the certificates of the tls- directives?
        "http-tls" => http_tls: bool = bool("no").fixed();
    }
    "Security" {
        /// The password of the default user; empty means none.
        "requirepass" => requirepass: Secret = text("").secret();
        /// A file of ACL users; excludes user lines here.
        "aclfile" => aclfile: PathBuf = text("").fixed();
        /// After so many failed logins from an address within a minute, refuse further ones from it, right or wrong,
        /// until the minute is over; 0 means no limit. Unix sockets have no address.
        "auth-failure-limit" => auth_failure_limit: u64 = int("0", 0, INT_MAX);
        /// How long the reply to a failed login is held back, in milliseconds; 0 means not at all.
        "auth-failure-delay-ms" => auth_failure_delay_ms: u64 = int("0", 0, 60_000);
        /// The number of entries that ACL LOG keeps.
        "acllog-max-len" => acllog_max_len: u64 = int("128", 0, i64::MAX);
        /// The channels that a new user may use.
        "acl-pubsub-default" => acl_pubsub_default: &'static str =
            choice("resetchannels", &["allchannels", "resetchannels"]);
        /// A role, which users take by `role=NAME`, and its rules. May be repeated.
        "role" => roles: Lines = of(Kind::FileOnly, "").fixed();
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
    "Audit" {
        /// A file for who did what, a line of JSON for each event; empty: none. One that is renamed is opened anew.
        "audit-log-file" => audit_log_file: PathBuf = text("").protected();
        /// What is noted: auth (logins), categories (@admin), commands (flushall, config|set), keys (~secret:*), and
        /// with a - what is not.
        "audit-log-rules" => audit_log_rules: String = text("auth @admin @dangerous -info");
        /// How keys are shown: as they are, as the beginning of their SHA-256, or not at all.
        "audit-log-keys" => audit_log_keys: AuditKeys = choice("digest", AuditKeys::WORDS);
        /// The most events a second; others are counted, and their number is noted. 0: any number.
        "audit-log-max-per-second" => audit_log_max_per_second: u64 = int("10000", 0, INT_MAX);
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
        /// End a segment of the log when it has this length and go on in the next one; 0 means never. Nothing waits for
        /// it.
        "log-segment-size" => log_segment_size: u64 = memory("32mb", 0, I64_MAX);
        /// Serve while the data are loaded: a command on a key waits for its part alone.
        "serve-while-loading" => serve_while_loading: bool = bool("yes").fixed();
        /// But load first what is smaller than this, snapshot and log together.
        "serve-while-loading-min-size" => serve_while_loading_min_size: u64 = memory("64mb", 0, I64_MAX).fixed();
        /// Start although the last, never acknowledged record is torn.
        "aof-load-truncated" => aof_load_truncated: bool = bool("yes");
    }
    "Files of Redis and Valkey" {
        /// Whether a start without a store of its own imports what a Redis has left in the directory, under the names
        /// of the directives appenddirname, appendfilename and dbfilename: with appendonly the append-only file, if
        /// there is one, otherwise the RDB file. The files stay as they are. With no, such a start is refused.
        "import-foreign-files" => import_foreign_files: bool = bool("yes").fixed();
        /// The name of Redis' append-only file, for the import.
        "appendfilename" => appendfilename: String = of(Kind::FileName, "appendonly.aof").fixed();
        /// The directory of Redis' append-only file, for the import.
        "appenddirname" => appenddirname: String = of(Kind::FileName, "appendonlydir").fixed();
        /// The name of Redis' RDB file, for the import.
        "dbfilename" => dbfilename: String = of(Kind::FileName, "dump.rdb").protected();
    }
    "Encryption at rest" {
        /// A file of master keys, each a line of 64 hexadecimal digits (`openssl rand -hex 32`). The first encrypts,
        /// the others are for what was encrypted before. It is read again at each snapshot.
        "encryption-key-file" => encryption_key_file: PathBuf = text("").fixed();
        /// A command that prints master keys, instead of a file. The shell runs it, at each snapshot again.
        "encryption-key-command" => encryption_key_command: String = text("").fixed().secret();
        /// Encrypt what is written, if there is a key. With no, what is encrypted is only read, and a snapshot writes
        /// all of it in the clear.
        "encrypt-files" => encrypt_files: bool = bool("yes").fixed();
    }
    "Snapshots" {
        /// Take a snapshot after this many seconds if there were this many changes; "" switches it off.
        "save" => save: Vec<SavePoint> = of(Kind::SavePoints, "3600 1 300 100 60 10000");
        /// Refuse writes while snapshots fail.
        "stop-writes-on-bgsave-error" => stop_writes_on_bgsave_error: bool = bool("yes");
        /// Keep this many older snapshots, each with the log behind it, for `ironkeep restore`.
        "keep-generations" => keep_generations: u64 = int("0", 0, 1000);
        /// But none for longer than this, in seconds after a newer snapshot has replaced it; 0 means any age.
        "keep-generations-age" => keep_generations_age: u64 = int("0", 0, INT_MAX);
        /// And no more than fit into this together; 0 means any size.
        "keep-generations-bytes" => keep_generations_bytes: u64 = memory("0", 0, I64_MAX);
        /// Read snapshots and log again and compare them with their checksums so often, in seconds; 0 means never.
        "scrub-interval" => scrub_interval: u64 = int("604800", 0, INT_MAX);
        /// But no more than so many bytes in a second.
        "scrub-bytes-per-second" => scrub_bytes_per_second: u64 = memory("8mb", 65536, I64_MAX);
        /// The directory of BACKUP, below dir.
        "backupdirname" => backupdirname: String = of(Kind::FileName, "backupdir").fixed();
        /// Remove a sealed backup after this many seconds; 0 keeps it until BACKUP CLEANUP.
        "backup-sealed-ttl" => backup_sealed_ttl: u64 = int("0", 0, INT_MAX);
        /// Read and load each backup once it is sealed, in the background, a shard at a time.
        "backup-verify" => backup_verify: bool = bool("yes");
        /// A command that sends a sealed and verified backup away. The shell runs it, with the directory as $1 and in
        /// IRONKEEP_BACKUP_DIR, and with IRONKEEP_BACKUP_ID and IRONKEEP_BACKUP_SIZE.
        "backup-command" => backup_command: String = text("").protected().secret();
        /// How long it may take, in seconds.
        "backup-command-timeout" => backup_command_timeout: u64 = int("3600", 1, INT_MAX);
        /// How often it is tried, if it fails.
        "backup-command-attempts" => backup_command_attempts: u64 = int("3", 1, 100);
        /// Warn when less than this is free on the disk of dir; 0 never warns.
        "disk-free-warning" => disk_free_warning: u64 = memory("1gb", 0, I64_MAX);
        /// Room that the log keeps for the time when the disk is full, so that keys can be removed then; no more than
        /// a 64th of the disk. 0: a full disk refuses all writes.
        "disk-reserve" => disk_reserve: u64 = memory("8mb", 0, I64_MAX);
        /// Compress snapshots.
        "rdbcompression" => rdbcompression: bool = bool("yes");
        /// Refuse RDB files, and payloads of RESTORE, of versions that are not known, or try to read them.
        "rdb-version-check" => rdb_version_check: RdbVersionCheck = choice("strict", RdbVersionCheck::WORDS);
    }
    "Memory and eviction" {
        /// Evict keys, or refuse writes, beyond this many bytes; 0 means no limit. auto: three quarters of what the
        /// control group allows the process, or of the machine's memory.
        "maxmemory" => maxmemory: u64 = of(Kind::MemoryOrAuto, "0");
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
        /// Fewest fields of a small hash that keeps their names in a template, shared with others like it; 0 for none.
        "hash-min-template-entries" => hash_min_template_entries: usize = int("2", 0, i64::MAX);
        /// Most fields of such a hash, up to 256; 0 means no limit but that.
        "hash-max-template-entries" => hash_max_template_entries: usize = int("64", 0, i64::MAX);
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
        /// For how many seconds a stream remembers what producers have added with IDMP, unless XCFGSET says otherwise.
        "stream-idmp-duration" => stream_idmp_duration_s: u32 = int("100", 1, 86_400);
        /// How many ids of each producer it remembers.
        "stream-idmp-maxsize" => stream_idmp_maxsize: u32 = int("100", 1, 10_000);
    }
    "Scripts and commands" {
        /// Milliseconds after which a running script is called busy, and others are told; 0: never.
        "busy-reply-threshold" => busy_reply_threshold_ms: i64 = int("5000", 0, i64::MAX).alias("lua-time-limit");
        /// When what a script has done is taken back: when it is killed, when it fails, or not at all.
        "script-rollback" => script_rollback: ScriptRollback = choice("on-kill", ScriptRollback::WORDS);
        /// The most memory that a running script may take, in bytes. 0: a quarter of maxmemory, from 16 to 512 MB.
        "maxmemory-scripts" => maxmemory_scripts: usize = memory("0", 0, I64_MAX);
        /// Whether EXEC takes everything back, and replies with an error, if one of its commands fails.
        "exec-rollback" => exec_rollback: bool = bool("no");
        /// For how many seconds UNFLUSH can undo a FLUSHALL or FLUSHDB. The keys take memory until then, unless it is
        /// short; 0 frees them at once.
        "flush-undo-seconds" => flush_undo_seconds: u64 = int("60", 0, INT_MAX);
        /// Whom to follow where Redis and Valkey answer the same command in two ways.
        "compatibility-mode" => compatibility_mode: CompatibilityMode = choice("redis", CompatibilityMode::WORDS);
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
        /// Know the biggest and busiest keys, and what prefixes hold: BIGKEYS.
        "key-statistics" => key_statistics: bool = bool("yes");
        /// The characters of which the first ends the prefix of a key, for BIGKEYS PREFIXES. Empty: there are none.
        "key-prefix-separators" => key_prefix_separators: String = text(":");
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
        /// What CLUSTER SLOT-STATS tells of each slot beside its keys: the time of its commands (cpu), their bytes
        /// (net), the memory of its keys (mem), all of it (yes), or nothing (no). With cpu or net each command is
        /// timed.
        "cluster-slot-stats-enabled" => cluster_slot_stats_enabled: SlotStats =
            of(Kind::Choices(SlotStats::WORDS), "no");
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
    /// Whether anything is served by TLS.
    pub fn uses_tls(&self) -> bool {
        self.tls_port != 0 || (self.http_tls && self.http_port != 0)
    }

    /// The number of worker threads: `io-threads`, or the number of cores that this process may use, by its affinity
    /// and by the CPU quota of its control group.
    pub fn worker_count(&self) -> usize {
        match self.io_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(256),
            given => given,
        }
    }
}

/// The index of `dir`.
pub(super) const DIR: usize = position("dir");

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

/// The names of all directives that may be suggested.
pub fn shown_names() -> impl Iterator<Item = &'static str> {
    all().iter().filter(|directive| !directive.hidden).map(|directive| directive.name)
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

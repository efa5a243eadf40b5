//! The directives that work, with their documentation; [`all`] is the whole table.
//!
//! A row is name, default, bounds, documentation, rules. Adding a directive is adding a row here and,
//! if the server reads it, a field in `settings.rs`. Tests walk over the table.

use std::sync::LazyLock;

use super::directive::{Directive, Group, Kind, bool, choice, directive, int, memory, text};
pub(super) use crate::base::config::directives_ignored::{IGNORED, NOT_APPLICABLE};

const I64_MAX: u64 = i64::MAX as u64;
const INT_MAX: i64 = i32::MAX as i64;
const MIB: u64 = 1 << 20;

const NO_YES_LOCAL: &[&str] = &["no", "yes", "local"];
const SHUTDOWN: &[&str] = &["default", "save", "nosave", "now", "force", "safe", "failover"];
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

/// The working directives, in the order in which they are printed.
pub static GROUPS: &[Group] = &[
    Group { title: "Files and start-up", directives: GENERAL },
    Group { title: "Network", directives: NETWORK },
    Group { title: "TLS", directives: TLS },
    Group { title: "Security", directives: SECURITY },
    Group { title: "The log", directives: LOG },
    Group { title: "Snapshots", directives: SNAPSHOTS },
    Group { title: "Memory and eviction", directives: MEMORY },
    Group { title: "Encodings of small values", directives: ENCODING },
    Group { title: "Scripts, notifications, observation", directives: OBSERVATION },
    Group { title: "Operating system", directives: SYSTEM },
];

const GENERAL: &[Directive] = &[
    directive("include", Kind::FileOnly, "", "Reads another file at this place; *, ? and [] are expanded.").fixed(),
    int("databases", "16", 1, INT_MAX, "The number of databases, chosen with SELECT.").fixed(),
    directive("dir", Kind::Text, "./ironkeep-data", "The directory of all data files; made when missing.").protected(),
    bool("daemonize", "no", "Go on in the background after the start.").fixed().useful(),
    choice("supervised", "no", &["no", "systemd", "upstart", "auto"], "Tell the service manager when ready.")
        .fixed()
        .useful(),
    text("pidfile", "", "A file for the process id; removed on a clean exit.").fixed(),
    choice(
        "loglevel",
        "notice",
        &["debug", "verbose", "notice", "warning", "nothing"],
        "The least level that is logged.",
    ),
    text("logfile", "", "The operator's log; empty means standard output.").fixed(),
    choice("log-format", "legacy", &["legacy", "logfmt", "json"], "The form of the log's lines.").useful(),
    choice(
        "log-timestamp-format",
        "legacy",
        &["legacy", "iso8601", "milliseconds"],
        "The form of the time in the log's lines.",
    )
    .useful(),
    bool("hide-user-data-from-log", "yes", "Keep keys, values and arguments out of the operator's log.").useful(),
    directive("shutdown-on-sigint", Kind::Choices(SHUTDOWN), "default", "What SIGINT does: SHUTDOWN's options.")
        .useful(),
    directive("shutdown-on-sigterm", Kind::Choices(SHUTDOWN), "default", "What SIGTERM does: SHUTDOWN's options.")
        .useful(),
    int("io-threads", "0", 0, 256, "The number of threads that execute commands; 0 means one per core.").fixed(),
];

const NETWORK: &[Directive] = &[
    directive(
        "bind",
        Kind::Addresses,
        "127.0.0.1 -::1",
        "The addresses to listen on; with a leading - an address may be missing. * means all.",
    ),
    int("port", "6379", 0, 65535, "The TCP port; 0 switches TCP off."),
    bool("protected-mode", "yes", "Accept only local clients as long as the default user has no password."),
    text("bind-source-addr", "", "The address that outgoing connections leave from.").useful(),
    text("unixsocket", "", "The path of a Unix socket to listen on.").fixed(),
    directive("unixsocketperm", Kind::Octal, "0", "The permissions of the Unix socket, octal; 0 leaves them.").fixed(),
    text("unixsocketgroup", "", "The group of the Unix socket.").fixed().useful(),
    int("tcp-backlog", "511", 0, INT_MAX, "The length of the kernel's queue of new connections.").fixed().useful(),
    int("tcp-keepalive", "300", 0, INT_MAX, "Seconds between TCP keep-alive probes; 0 switches them off."),
    int("timeout", "0", 0, INT_MAX, "Close a connection after so many idle seconds; 0 means never."),
    int("maxclients", "10000", 1, u32::MAX as i64, "The highest number of connected clients."),
    directive(
        "client-output-buffer-limit",
        Kind::OutputLimits,
        "normal 0 0 0 slave 256mb 64mb 60 pubsub 32mb 8mb 60",
        "Close a client whose waiting replies exceed the hard limit, or the soft limit for so many seconds: class \
         hard soft seconds. 0 means no limit.",
    ),
    memory("client-query-buffer-limit", "1gb", MIB, I64_MAX, "The longest unfinished request of a client."),
    memory("proto-max-bulk-len", "512mb", MIB, I64_MAX, "The longest single argument, and so the longest string."),
];

const TLS: &[Directive] = &[
    int("tls-port", "0", 0, 65535, "The port for TLS; 0 switches TLS off."),
    text("tls-cert-file", "", "The server's certificate chain, PEM."),
    text("tls-key-file", "", "The server's private key, PEM."),
    text("tls-key-file-pass", "", "The pass phrase of the private key.").secret().useful(),
    text("tls-ca-cert-file", "", "The authorities that client certificates are checked against, PEM."),
    text("tls-ca-cert-dir", "", "A directory of such authorities.").useful(),
    choice("tls-auth-clients", "yes", &["no", "yes", "optional"], "Must clients show a valid certificate?"),
    choice("tls-auth-clients-user", "off", &["CN", "URI", "off"], "Log a client in as the user its certificate names.")
        .useful(),
    text("tls-protocols", "", "The TLS versions to offer, as \"TLSv1.2 TLSv1.3\"; empty means both."),
    text("tls-ciphers", "", "The cipher suites of TLS 1.2.").useful(),
    text("tls-ciphersuites", "", "The cipher suites of TLS 1.3.").useful(),
    bool("tls-prefer-server-ciphers", "no", "The server's order of cipher suites decides.").useful(),
    int("tls-auto-reload-interval", "0", 0, INT_MAX, "Read the certificates again every so many seconds; 0: never.")
        .useful(),
];

const SECURITY: &[Directive] = &[
    text("requirepass", "", "The password of the default user; empty means none.").secret(),
    text("aclfile", "", "A file of ACL users; excludes user lines here.").fixed(),
    directive("user", Kind::FileOnly, "", "An ACL user and its rules. May be repeated.").fixed().secret(),
    int("acllog-max-len", "128", 0, i64::MAX, "The number of entries that ACL LOG keeps."),
    choice(
        "acl-pubsub-default",
        "resetchannels",
        &["allchannels", "resetchannels"],
        "The channels that a new user may use.",
    ),
    directive("rename-command", Kind::FileOnly, "", "Renames a command; to \"\" disables it. ACLs are the better way.")
        .fixed()
        .useful(),
    choice("enable-protected-configs", "no", NO_YES_LOCAL, "May CONFIG SET change protected directives?").fixed(),
    choice("enable-debug-command", "no", NO_YES_LOCAL, "Is DEBUG allowed?").fixed(),
];

const LOG: &[Directive] = &[
    bool("appendonly", "yes", "Log every change before it is acknowledged. Without it, only snapshots remain."),
    choice(
        "appendfsync",
        "everysec",
        &["everysec", "always", "no"],
        "When the log is forced to the disk: every second, before every reply, or when the kernel likes.",
    ),
    int(
        "auto-aof-rewrite-percentage",
        "100",
        0,
        INT_MAX,
        "Compact the log when it has grown by so many percent since the last time; 0 means never.",
    ),
    memory("auto-aof-rewrite-min-size", "64mb", 0, I64_MAX, "But not before it has this size."),
    memory(
        "auto-aof-rewrite-max-size",
        "8gb",
        0,
        I64_MAX,
        "Compact the log at this size, whatever the percentage says, so that a restart stays short; 0 means no cap.",
    ),
    bool("aof-load-truncated", "yes", "Start although the last, never acknowledged record is torn."),
    bool("aof-timestamp-enabled", "no", "Write the time into exported append-only files.").useful(),
    directive("appendfilename", Kind::FileName, "appendonly.aof", "The name of Redis' own log, when it is imported.")
        .fixed(),
    directive("appenddirname", Kind::FileName, "appendonlydir", "The directory of Redis' own log, for the import.")
        .fixed(),
];

const SNAPSHOTS: &[Directive] = &[
    directive(
        "save",
        Kind::SavePoints,
        "3600 1 300 100 60 10000",
        "Take a snapshot after so many seconds if there were so many changes; \"\" switches it off.",
    ),
    bool("stop-writes-on-bgsave-error", "yes", "Refuse writes while snapshots fail."),
    bool("rdbcompression", "yes", "Compress snapshots."),
    bool("rdbchecksum", "yes", "Check the sums of imported RDB files. Our own files always have them.").fixed(),
    directive("dbfilename", Kind::FileName, "dump.rdb", "The name of an RDB file in dir, for import and export.")
        .protected(),
    choice("rdb-version-check", "strict", &["strict", "relaxed"], "Refuse RDB files of newer versions, or try.")
        .useful(),
    choice("sanitize-dump-payload", "no", &["no", "yes", "clients"], "Check deeply what RESTORE is given.").useful(),
];

const MEMORY: &[Directive] = &[
    memory("maxmemory", "0", 0, u64::MAX, "Evict keys, or refuse writes, beyond so many bytes; 0 means no limit."),
    choice("maxmemory-policy", "noeviction", POLICIES, "Which keys to evict."),
    int("maxmemory-samples", "5", 1, i32::MAX as i64, "How many keys to compare when looking for one to evict."),
    int("maxmemory-eviction-tenacity", "10", 0, 100, "How long to go on evicting before serving; 100: to the end.")
        .useful(),
    directive(
        "maxmemory-clients",
        Kind::MemoryOrPercent,
        "0",
        "Close the largest clients when all take more than this (bytes, or percent of maxmemory); 0 means no limit.",
    )
    .useful(),
    int("lfu-log-factor", "10", 0, INT_MAX, "How slowly the counter of accesses grows.").useful(),
    int("lfu-decay-time", "1", 0, INT_MAX, "Minutes after which the counter of accesses is decreased.").useful(),
    int("active-expire-effort", "1", 1, 10, "How hard to look for expired keys, from 1 to 10."),
    bool("lazyfree-lazy-user-flush", "no", "FLUSHALL and FLUSHDB free in the background unless told otherwise.")
        .useful(),
    int("tracking-table-max-keys", "1000000", 0, i64::MAX, "Keys remembered for client-side caching; 0: no limit."),
];

const ENCODING: &[Directive] = &[
    int("hash-max-listpack-entries", "512", 0, i64::MAX, "Fields of a hash that is kept as a listpack.")
        .alias("hash-max-ziplist-entries"),
    memory("hash-max-listpack-value", "64", 0, I64_MAX, "Longest field or value in such a hash.")
        .alias("hash-max-ziplist-value"),
    int("list-max-listpack-size", "-2", i32::MIN as i64, INT_MAX, "Elements per list node; -1 to -5: 4 to 64 KiB.")
        .alias("list-max-ziplist-size"),
    int("set-max-intset-entries", "512", 0, i64::MAX, "Members of a set of integers that is kept as an intset."),
    int("set-max-listpack-entries", "128", 0, i64::MAX, "Members of a set that is kept as a listpack."),
    int("set-max-listpack-value", "64", 0, i64::MAX, "Longest member of such a set."),
    int("zset-max-listpack-entries", "128", 0, i64::MAX, "Members of a sorted set that is kept as a listpack.")
        .alias("zset-max-ziplist-entries"),
    memory("zset-max-listpack-value", "64", 0, I64_MAX, "Longest member of such a sorted set.")
        .alias("zset-max-ziplist-value"),
    memory("hll-sparse-max-bytes", "3000", 0, I64_MAX, "Size at which a HyperLogLog becomes dense."),
    memory("stream-node-max-bytes", "4096", 0, I64_MAX, "Bytes of a stream's node; 0 means no limit.").useful(),
    int("stream-node-max-entries", "100", 0, i64::MAX, "Entries of a stream's node; 0 means no limit."),
];

const OBSERVATION: &[Directive] = &[
    int("busy-reply-threshold", "5000", 0, i64::MAX, "Milliseconds after which a running script is called busy.")
        .alias("lua-time-limit"),
    directive(
        "notify-keyspace-events",
        Kind::Notify,
        "",
        "The events to publish: K and/or E, and classes of g$lshzxetdmn, or A.",
    ),
    int("slowlog-log-slower-than", "10000", -1, i64::MAX, "Microseconds; slower commands go to SLOWLOG. -1: none.")
        .alias("commandlog-execution-slower-than"),
    int("slowlog-max-len", "128", 0, i64::MAX, "The number of entries that SLOWLOG keeps.")
        .alias("commandlog-slow-execution-max-len"),
    int("commandlog-request-larger-than", "1048576", -1, i64::MAX, "Bytes; larger requests are recorded. -1: none.")
        .useful(),
    int("commandlog-large-request-max-len", "128", 0, i64::MAX, "The number of large requests kept.").useful(),
    int("commandlog-reply-larger-than", "1048576", -1, i64::MAX, "Bytes; larger replies are recorded. -1: none.")
        .useful(),
    int("commandlog-large-reply-max-len", "128", 0, i64::MAX, "The number of large replies kept.").useful(),
    int("latency-monitor-threshold", "0", 0, i64::MAX, "Milliseconds; slower events go to LATENCY. 0: none."),
    bool("latency-tracking", "yes", "Keep a histogram of every command's latency."),
    directive(
        "latency-tracking-info-percentiles",
        Kind::Percentiles,
        "50 99 99.9",
        "The percentiles that INFO latencystats shows.",
    ),
    int("key-load-delay", "0", i32::MIN as i64, INT_MAX, "Microseconds to wait per key while loading; for tests.")
        .hidden()
        .useful(),
    int("rdb-key-save-delay", "0", i32::MIN as i64, INT_MAX, "Microseconds to wait per key while saving; for tests.")
        .hidden()
        .useful(),
];

const SYSTEM: &[Directive] = &[
    choice("oom-score-adj", "no", &["no", "yes", "relative", "absolute"], "Set the kernel's out-of-memory score.")
        .useful(),
    directive("oom-score-adj-values", Kind::OomScores, "0 200 800", "The scores of main, replica and child processes.")
        .useful(),
    text("server-cpulist", "", "The cores that the workers run on, as 0-3,8.").alias("server_cpulist").fixed().useful(),
];

/// Every directive: those that work in printing order, then those that are only accepted.
pub fn all() -> &'static [&'static Directive] {
    static ALL: LazyLock<Vec<&'static Directive>> =
        LazyLock::new(|| GROUPS.iter().flat_map(|group| group.directives).chain(IGNORED).collect());
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
mod tests {
    use super::*;
    use crate::base::config::directive::Support;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names = HashSet::new();
        for directive in all() {
            for name in [directive.name, directive.alias] {
                assert!(name.is_empty() || names.insert(name), "{name} twice");
                assert_eq!(name, name.to_lowercase());
            }
            assert!(directive.support == Support::Ignored || directive.doc.ends_with(['.', '?']), "{}", directive.name);
            assert!(!is_not_applicable(directive.name.as_bytes()), "{}", directive.name);
        }
        assert!(names.len() > 190, "{}", names.len());
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

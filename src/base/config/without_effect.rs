//! The directives that are accepted without effect, each with the reason; and those that do not apply.
//!
//! The first are read, checked and reported, so that existing configuration files, and tools that read the
//! configuration, keep working. This is the only list of them: a directive that is not on it works, and a test looks
//! for its reader. A value that promises safety that nothing would keep is refused. The second are refused by name,
//! because an operator who sets them expects something that this store does not do.

use super::directive::{Directive, Group, Kind, bool, choice, int, memory, of, text, trimmed};

const I64_MAX: u64 = i64::MAX as u64;
const INT_MAX: i64 = i32::MAX as i64;

macro_rules! without_effect {
    ($($reason:literal { $($(#[doc = $doc:literal])* $name:literal = $row:expr;)* })*) => {
        &[$(Group {
            title: $reason,
            directives: &[$(Directive { name: $name, doc: trimmed(concat!($($doc),*)), works: false, ..$row }),*],
        }),*]
    };
}

/// Accepted and reported. The title of a group is the reason.
pub static WITHOUT_EFFECT: &[Group] = without_effect! {
    "These are for tests of Redis' own source." {
        "debug-context" = text("").hidden();
        "enable-debug-assert" = bool("no").fixed().hidden();
        "req-res-logfile" = text("").fixed().hidden();
        "use-exit-on-panic" = bool("no").hidden();
        "watchdog-period" = int("0", 0, INT_MAX).hidden();
    }
    "What is loaded follows hash-min-template-entries and hash-max-template-entries." {
        "hash-rdb-load-max-template-entries" = int("0", 0, i64::MAX);
        "hash-rdb-load-min-template-entries" = int("0", 0, i64::MAX);
        "hash-rdb-load-template-disassembly-threshold" = int("0", 0, i64::MAX);
    }
    "The memory of the machine is not tested after a crash." {
        "crash-memcheck-enabled" = bool("yes");
    }
    "A cluster has one node here: none to talk to, to fail over to, or to move slots to, and every slot is served." {
        "cluster-allow-pubsubshard-when-down" = bool("yes");
        "cluster-allow-reads-when-down" = bool("no");
        "cluster-allow-replica-migration" = bool("yes");
        "cluster-announce-human-nodename" = text("");
        "cluster-blacklist-ttl" = int("60", 0, i64::MAX);
        "cluster-compatibility-sample-ratio" = int("0", 0, 100);
        "cluster-config-save-behavior" = choice("sync", &["sync", "best-effort"]);
        "cluster-databases" =
            int("1", 1, INT_MAX).fixed().only_default("In cluster mode there is database 0 alone, as in Redis");
        "cluster-link-sendbuf-limit" = memory("0", 0, u64::MAX);
        "cluster-manual-failover-timeout" = int("5000", 1, INT_MAX);
        "cluster-migration-barrier" = int("1", 0, INT_MAX);
        "cluster-node-timeout" = int("15000", 0, i64::MAX);
        "cluster-ping-interval" = int("0", 0, i64::MAX).hidden();
        "cluster-replica-no-failover" = bool("no").alias("cluster-slave-no-failover");
        "cluster-replica-validity-factor" = int("10", 0, INT_MAX).alias("cluster-slave-validity-factor");
        "cluster-require-full-coverage" = bool("yes");
        "cluster-slot-migration-handoff-max-lag-bytes" = memory("1048576", 0, I64_MAX);
        "cluster-slot-migration-log-max-len" = int("1000", 0, i64::MAX);
        "cluster-slot-migration-write-pause-timeout" = int("10000", 0, i64::MAX);
        "slot-migration-max-failover-repl-bytes" = memory("0", 0, I64_MAX);
    }
    "There are no replicas yet, and this server is none." {
        /// The address that outgoing connections leave from.
        "bind-source-addr" = text("");
        "dual-channel-replication-enabled" = bool("no");
        "masterauth" = text("").alias("primaryauth").secret();
        "masteruser" = text("").alias("primaryuser");
        "min-replicas-max-lag" = int("10", 0, INT_MAX).alias("min-slaves-max-lag");
        "propagation-error-behavior" = choice("ignore", &["ignore", "panic", "panic-on-replicas"]);
        "repl-backlog-size" = memory("1048576", 1, I64_MAX);
        "repl-backlog-ttl" = int("3600", 0, i64::MAX);
        "repl-disable-tcp-nodelay" = bool("no");
        "repl-diskless-load" = choice("disabled", &["disabled", "on-empty-db", "swapdb", "flush-before-load"]);
        "repl-diskless-sync" = bool("yes");
        "repl-diskless-sync-delay" = int("5", 0, INT_MAX);
        "repl-diskless-sync-max-replicas" = int("0", 0, INT_MAX);
        "repl-mptcp" = bool("no").fixed();
        "repl-ping-replica-period" = int("10", 1, INT_MAX).alias("repl-ping-slave-period");
        "repl-timeout" = int("60", 1, INT_MAX);
        "replica-announce-ip" = text("").alias("slave-announce-ip");
        "replica-announce-port" = int("0", 0, 65535).alias("slave-announce-port");
        "replica-announced" = bool("yes");
        "replica-full-sync-buffer-limit" = memory("0", 0, u64::MAX);
        "replica-ignore-disk-write-errors" = bool("no");
        "replica-ignore-maxmemory" = bool("yes").alias("slave-ignore-maxmemory");
        "replica-lazy-flush" = bool("no").alias("slave-lazy-flush");
        "replica-priority" = int("100", 0, INT_MAX).alias("slave-priority");
        "replica-read-only" = bool("yes").alias("slave-read-only");
        "replica-serve-stale-data" = bool("yes").alias("slave-serve-stale-data");
        "replicaof" = of(Kind::ReplicaOf, "").alias("slaveof").fixed();
        "rdb-del-sync-files" = bool("no");
        "shutdown-timeout" = int("10", 0, INT_MAX);
    }
    "This server opens no connection of its own that TLS would protect." {
        "tls-client-cert-file" = text("");
        "tls-client-key-file" = text("");
        "tls-client-key-file-pass" = text("").secret();
        "tls-cluster" = bool("no").only_default("There is no other node to speak TLS with");
        "tls-replication" = bool("no").only_default("There are no replicas to speak TLS with");
    }
    "Every key exchange is over elliptic curves, which need no parameters." {
        "tls-dh-params-file" = text("");
    }
    "Handshakes run on threads of their own, so that many at once delay no command." {
        "max-new-tls-connections-per-cycle" = int("1", 1, 1000);
    }
    "Scripts have no API beyond that of Redis." {
        "lua-enable-insecure-api" = bool("no").fixed();
    }
    "Sums in RDB files are always checked and written, and an exported append-only file bears no times." {
        /// Write the time into exported append-only files.
        "aof-timestamp-enabled" = bool("no");
        /// Check the sums of imported RDB files. Our own files always have them.
        "rdbchecksum" = bool("yes").fixed();
    }
    "Every payload of RESTORE is checked deeply, whoever sends it." {
        /// Check deeply what RESTORE is given.
        "sanitize-dump-payload" = choice("no", &["no", "yes", "clients"]);
    }
    "Log and snapshots are written in another way: without a fork, in one format, with checksums." {
        "aof-disable-auto-gc" = bool("no");
        "aof-rewrite-cpulist" = text("").alias("aof_rewrite_cpulist").fixed();
        "aof-rewrite-incremental-fsync" = bool("yes");
        "aof-use-rdb-preamble" = bool("yes");
        "bgsave-cpulist" = text("").alias("bgsave_cpulist").fixed();
        "no-appendfsync-on-rewrite" = bool("no");
        "rdb-save-incremental-fsync" = bool("yes");
        "loading-process-events-interval-bytes" = int("2097152", 1024, INT_MAX).hidden();
    }
    "Memory is always freed in the background and always relocated, in small steps." {
        "activedefrag" = bool("no");
        "active-defrag-cycle-max" = int("25", 1, 99);
        "active-defrag-cycle-min" = int("1", 1, 99);
        "active-defrag-cycle-us" = int("500", 0, 100000);
        "active-defrag-ignore-bytes" = memory("104857600", 1, I64_MAX);
        "active-defrag-max-scan-fields" = int("1000", 1, i64::MAX);
        "active-defrag-threshold-lower" = int("10", 0, 1000);
        "active-defrag-threshold-upper" = int("100", 0, 1000);
        "activerehashing" = bool("yes");
        "bio-cpulist" = text("").alias("bio_cpulist").fixed();
        "disable-thp" = bool("yes").fixed();
        "jemalloc-bg-thread" = bool("yes");
        "lazyfree-lazy-eviction" = bool("no");
        "lazyfree-lazy-expire" = bool("no");
        "lazyfree-lazy-server-del" = bool("no");
        "lazyfree-lazy-user-del" = bool("no");
        /// FLUSHALL and FLUSHDB free in the background unless told otherwise.
        "lazyfree-lazy-user-flush" = bool("no");
        "list-compress-depth" = int("0", 0, INT_MAX);
    }
    "Threads and their periods adapt by themselves." {
        "dynamic-hz" = bool("yes");
        "events-per-io-thread" = int("2", 0, INT_MAX).hidden();
        "hz" = int("10", 0, INT_MAX);
        "io-threads-do-reads" = bool("no").fixed();
        "max-new-connections-per-cycle" = int("10", 1, 1000);
        "prefetch-batch-max-size" = int("16", 0, 128);
    }
    "A logo, a seed of hashes and an order of words are not to be chosen." {
        "always-show-logo" = bool("no").fixed();
        "extended-redis-compatibility" = bool("no");
        "hash-seed" = text("").fixed();
        "locale-collate" = text("");
        "mptcp" = bool("no").fixed();
        "socket-mark-id" =
            int("0", 0, 4294967295).fixed().only_default("Sockets cannot be marked: filter by port or address");
    }
    "Warnings of the start are never reasons to end, so there are none to ignore." {
        "ignore-warnings" = text("");
    }
};

/// Refused with the words "does not apply".
pub(super) const NOT_APPLICABLE: &[&str] = &[
    "cluster-announce-client-ipv4",
    "cluster-announce-client-ipv6",
    "cluster-announce-client-port",
    "cluster-announce-client-tls-port",
    "client-default-resp",
    "loadmodule",
    "rdma-bind",
    "rdma-completion-vector",
    "rdma-port",
    "rdma-rx-size",
    "sentinel",
];

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- without-effect:begin -->\n";
    const END: &str = "<!-- without-effect:end -->";

    fn rendered() -> String {
        let mut text = String::from("| reason | directives |\n|---|---|\n");
        for group in WITHOUT_EFFECT {
            let shown = group.directives.iter().filter(|directive| !directive.hidden);
            let names: Vec<String> = shown.map(|directive| format!("`{}`", directive.name)).collect();
            if !names.is_empty() {
                text += &format!("| {} | {} |\n", group.title, names.join(" "));
            }
        }
        text
    }

    #[test]
    fn the_document_lists_what_is_without_effect() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md");
        let document = std::fs::read_to_string(path).expect("docs/operating.md");
        let start = document.find(BEGIN).expect("the first marker") + BEGIN.len();
        let end = start + document[start..].find(END).expect("the second marker");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let updated = format!("{}{}{}", &document[..start], rendered(), &document[end..]);
            std::fs::write(path, updated).expect("the document can be written");
        } else {
            let hint = "the list in docs/operating.md is out of date: UPDATE_DOCS=1 cargo test --lib without_effect";
            assert!(document[start..end] == rendered(), "{hint}");
        }
    }
}

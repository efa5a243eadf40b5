//! The fields of INFO that are constant here, each with its reason. A field that gets a source leaves this list.

use crate::core::figures::Constant;

macro_rules! constants {
    ($($section:literal, $reason:literal { $($field:literal = $value:literal,)+ })+) => {
        /// See the module.
        pub static CONSTANT: &[Constant] =
            &[$($(Constant { section: $section, field: $field, value: $value, reason: $reason },)+)+];
    };
}

constants! {
    "server", "They are of a build of Redis." {
        "redis_git_sha1" = "00000000",
        "redis_git_dirty" = "0",
        "redis_build_id" = "0000000000000000",
    }
    "server", "The standard library and the runtime use them wherever we run." {
        "monotonic_clock" = "POSIX clock_gettime",
        "multiplexing_api" = "epoll",
        "atomicvar_api" = "c11-builtin",
    }
    "server", "No C compiler builds this." {
        "gcc_version" = "0.0.0",
    }
    "server", "No timer is set by hz, which has no effect." {
        "hz" = "10",
        "configured_hz" = "10",
    }
    "clients", "A cluster has no other node here." {
        "cluster_connections" = "0",
    }
    "clients", "Each connection that waits has its own timer; there is no table." {
        "clients_in_timeout_table" = "0",
    }
    "memory", "The allocator's resident bytes are those of the process." {
        "allocator_rss_ratio" = "1.00",
        "allocator_rss_bytes" = "0",
        "rss_overhead_ratio" = "1.00",
        "rss_overhead_bytes" = "0",
    }
    "memory", "There are no replicas yet." {
        "mem_replication_backlog" = "0",
        "mem_total_replication_buffers" = "0",
        "mem_clients_slaves" = "0",
        "mem_replica_full_sync_buffer" = "0",
    }
    "memory", "A cluster has no other node here." {
        "mem_cluster_links" = "0",
    }
    "memory", "Directories grow by one small split at a time, and are never rehashed." {
        "mem_overhead_db_hashtable_rehashing" = "0",
    }
    "memory", "The allocator keeps nothing that the system may take without being told." {
        "allocator_muzzy" = "0",
    }
    "memory", "The allocator is our own." {
        "mem_allocator" = "ironkeep",
    }
    "persistence", "Nothing is loaded from a primary." {
        "async_loading" = "0",
    }
    "persistence", "No snapshot forks the process." {
        "current_cow_peak" = "0",
        "current_cow_size" = "0",
        "current_cow_size_age" = "0",
        "rdb_last_cow_size" = "0",
        "aof_last_cow_size" = "0",
    }
    "persistence", "Expired keys are loaded, and removed like all others." {
        "rdb_last_load_keys_expired" = "0",
    }
    "persistence", "There are no modules." {
        "module_fork_in_progress" = "0",
        "module_fork_last_cow_size" = "0",
    }
    "persistence", "A write to the log never waits for an fsync that runs." {
        "aof_delayed_fsync" = "0",
    }
    "stats", "There are no replicas yet." {
        "total_net_repl_input_bytes" = "0",
        "total_net_repl_output_bytes" = "0",
        "instantaneous_input_repl_kbps" = "0.00",
        "instantaneous_output_repl_kbps" = "0.00",
        "sync_full" = "0",
        "sync_partial_ok" = "0",
        "sync_partial_err" = "0",
        "slave_expires_tracked_keys" = "0",
    }
    "stats", "Sweeps know where something expires, and estimate nothing." {
        "expired_stale_perc" = "0.00",
    }
    "stats", "Sweeps stop by the number of keys, not by time." {
        "expired_time_cap_reached_count" = "0",
    }
    "stats", "Nothing forks the process." {
        "latest_fork_usec" = "0",
        "total_forks" = "0",
    }
    "stats", "MIGRATE keeps no connections." {
        "migrate_cached_sockets" = "0",
    }
    "stats", "Defragmentation empties sparse slabs; it does not look at each value." {
        "active_defrag_hits" = "0",
        "active_defrag_misses" = "0",
        "active_defrag_key_hits" = "0",
        "active_defrag_key_misses" = "0",
        "current_active_defrag_time" = "0",
    }
    "stats", "Neither a master nor a log sends commands." {
        "unexpected_error_replies" = "0",
    }
    "stats", "Every payload is checked whole, so that there is nothing to choose and to count." {
        "dump_payload_sanitizations" = "0",
    }
    "stats", "Workers read, execute and write; no thread only reads or writes." {
        "io_threaded_reads_processed" = "0",
        "io_threaded_writes_processed" = "0",
    }
    "stats", "No reply buffer has a size that is adjusted." {
        "reply_buffer_shrinks" = "0",
        "reply_buffer_expands" = "0",
    }
    "tls", "This server opens no connection of its own." {
        "tls_client_cert_serial" = "none",
        "tls_client_cert_expires_in_seconds" = "0",
    }
    "replication", "There are no replicas yet." {
        "role" = "master",
        "connected_slaves" = "0",
        "master_failover_state" = "no-failover",
        "master_replid2" = "0000000000000000000000000000000000000000",
        "master_repl_offset" = "0",
        "second_repl_offset" = "-1",
        "repl_backlog_active" = "0",
        "repl_backlog_size" = "1048576",
        "repl_backlog_first_byte_offset" = "0",
        "repl_backlog_histlen" = "0",
    }
    "cpu", "There are no child processes." {
        "used_cpu_sys_children" = "0.000000",
        "used_cpu_user_children" = "0.000000",
    }
}

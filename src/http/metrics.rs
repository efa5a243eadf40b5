//! The figures of INFO as metrics.
//!
//! What redis_exporter shows has its name and labels, so that dashboards made for it work: [`KNOWN`] says which figure
//! is which. Every other figure that is a number is shown as `ironkeep_` with its own name. Fields of INFO that are
//! constant here are shown only where redis_exporter has them.

use std::borrow::Cow;

use super::beside_info;
use super::exposition::{Families, Form, Kind};
use crate::core::Server;
use crate::core::figures::{Figure, Value};
use crate::observe::info;

/// Fields of INFO, by the name that redis_exporter gives them behind `redis_`.
const KNOWN: &[(&str, &str)] = &[
    ("uptime_in_seconds", "uptime_in_seconds"),
    ("process_id", "process_id"),
    ("io_threads_active", "io_threads_active"),
    ("connected_clients", "connected_clients"),
    ("blocked_clients", "blocked_clients"),
    ("maxclients", "max_clients"),
    ("cluster_connections", "cluster_connections"),
    ("total_system_memory", "total_system_memory_bytes"),
    ("slave_expires_tracked_keys", "slave_expires_tracked_keys"),
    ("reply_buffer_shrinks", "reply_buffer_shrinks_total"),
    ("reply_buffer_expands", "reply_buffer_expands_total"),
    ("client_query_buffer_limit_disconnections", "client_query_buffer_limit_disconnections_total"),
    ("client_output_buffer_limit_disconnections", "client_output_buffer_limit_disconnections_total"),
    ("instantaneous_eventloop_cycles_per_sec", "instantaneous_eventloop_cycles_per_sec"),
    ("instantaneous_eventloop_duration_usec", "instantaneous_eventloop_duration_usec"),
    ("tracking_clients", "tracking_clients"),
    ("pubsub_clients", "pubsub_clients"),
    ("watching_clients", "watching_clients"),
    ("clients_in_timeout_table", "clients_in_timeout_table"),
    ("total_watched_keys", "total_watched_keys"),
    ("total_blocking_keys", "total_blocking_keys"),
    ("total_blocking_keys_on_nokey", "total_blocking_keys_on_nokey"),
    ("client_recent_max_input_buffer", "client_recent_max_input_buffer_bytes"),
    ("client_recent_max_output_buffer", "client_recent_max_output_buffer_bytes"),
    ("allocator_active", "allocator_active_bytes"),
    ("allocator_allocated", "allocator_allocated_bytes"),
    ("allocator_resident", "allocator_resident_bytes"),
    ("allocator_frag_ratio", "allocator_frag_ratio"),
    ("allocator_frag_bytes", "allocator_frag_bytes"),
    ("allocator_muzzy", "allocator_muzzy_bytes"),
    ("allocator_rss_ratio", "allocator_rss_ratio"),
    ("allocator_rss_bytes", "allocator_rss_bytes"),
    ("used_memory", "memory_used_bytes"),
    ("used_memory_rss", "memory_used_rss_bytes"),
    ("used_memory_peak", "memory_used_peak_bytes"),
    ("used_memory_lua", "memory_used_lua_bytes"),
    ("used_memory_vm_eval", "memory_used_vm_eval_bytes"),
    ("used_memory_scripts_eval", "memory_used_scripts_eval_bytes"),
    ("used_memory_overhead", "memory_used_overhead_bytes"),
    ("used_memory_startup", "memory_used_startup_bytes"),
    ("used_memory_dataset", "memory_used_dataset_bytes"),
    ("used_memory_vm_functions", "memory_used_vm_functions_bytes"),
    ("used_memory_functions", "memory_used_functions_bytes"),
    ("used_memory_scripts", "memory_used_scripts_bytes"),
    ("used_memory_hash_templates", "memory_used_hash_templates_bytes"),
    ("used_memory_vm_total", "memory_used_vm_total"),
    ("number_of_cached_scripts", "number_of_cached_scripts"),
    ("number_of_functions", "number_of_functions"),
    ("number_of_libraries", "number_of_libraries"),
    ("maxmemory", "memory_max_bytes"),
    ("mem_fragmentation_ratio", "mem_fragmentation_ratio"),
    ("mem_fragmentation_bytes", "mem_fragmentation_bytes"),
    ("mem_clients_slaves", "mem_clients_slaves"),
    ("mem_clients_normal", "mem_clients_normal"),
    ("mem_cluster_links", "mem_cluster_links_bytes"),
    ("mem_aof_buffer", "mem_aof_buffer_bytes"),
    ("mem_replication_backlog", "mem_replication_backlog_bytes"),
    ("mem_not_counted_for_evict", "mem_not_counted_for_eviction_bytes"),
    ("mem_total_replication_buffers", "mem_total_replication_buffers_bytes"),
    ("mem_overhead_db_hashtable_rehashing", "mem_overhead_db_hashtable_rehashing_bytes"),
    ("lazyfree_pending_objects", "lazyfree_pending_objects"),
    ("lazyfreed_objects", "lazyfreed_objects"),
    ("active_defrag_running", "active_defrag_running"),
    ("active_defrag_hits", "defrag_hits"),
    ("active_defrag_misses", "defrag_misses"),
    ("active_defrag_key_hits", "defrag_key_hits"),
    ("active_defrag_key_misses", "defrag_key_misses"),
    ("migrate_cached_sockets", "migrate_cached_sockets_total"),
    ("loading", "loading_dump_file"),
    ("async_loading", "async_loading"),
    ("rdb_changes_since_last_save", "rdb_changes_since_last_save"),
    ("rdb_bgsave_in_progress", "rdb_bgsave_in_progress"),
    ("rdb_last_save_time", "rdb_last_save_timestamp_seconds"),
    ("rdb_last_bgsave_status", "rdb_last_bgsave_status"),
    ("rdb_last_bgsave_time_sec", "rdb_last_bgsave_duration_sec"),
    ("rdb_current_bgsave_time_sec", "rdb_current_bgsave_duration_sec"),
    ("rdb_saves", "rdb_saves_total"),
    ("rdb_last_cow_size", "rdb_last_cow_size_bytes"),
    ("rdb_last_load_keys_expired", "rdb_last_load_expired_keys"),
    ("rdb_last_load_keys_loaded", "rdb_last_load_loaded_keys"),
    ("aof_enabled", "aof_enabled"),
    ("aof_rewrite_in_progress", "aof_rewrite_in_progress"),
    ("aof_rewrite_scheduled", "aof_rewrite_scheduled"),
    ("aof_last_rewrite_time_sec", "aof_last_rewrite_duration_sec"),
    ("aof_current_rewrite_time_sec", "aof_current_rewrite_duration_sec"),
    ("aof_last_bgrewrite_status", "aof_last_bgrewrite_status"),
    ("aof_last_write_status", "aof_last_write_status"),
    ("aof_last_cow_size", "aof_last_cow_size_bytes"),
    ("aof_current_size", "aof_current_size_bytes"),
    ("aof_base_size", "aof_base_size_bytes"),
    ("aof_pending_rewrite", "aof_pending_rewrite"),
    ("aof_buffer_length", "aof_buffer_length"),
    ("aof_pending_bio_fsync", "aof_pending_bio_fsync"),
    ("aof_delayed_fsync", "aof_delayed_fsync"),
    ("module_fork_in_progress", "module_fork_in_progress"),
    ("module_fork_last_cow_size", "module_fork_last_cow_size"),
    ("pubsub_channels", "pubsub_channels"),
    ("pubsub_patterns", "pubsub_patterns"),
    ("pubsubshard_channels", "pubsubshard_channels"),
    ("latest_fork_usec", "latest_fork_usec"),
    ("tracking_total_keys", "tracking_total_keys"),
    ("tracking_total_items", "tracking_total_items"),
    ("tracking_total_prefixes", "tracking_total_prefixes"),
    ("connected_slaves", "connected_slaves"),
    ("repl_backlog_size", "replication_backlog_bytes"),
    ("repl_backlog_active", "repl_backlog_is_active"),
    ("repl_backlog_first_byte_offset", "repl_backlog_first_byte_offset"),
    ("repl_backlog_histlen", "repl_backlog_history_bytes"),
    ("master_repl_offset", "master_repl_offset"),
    ("second_repl_offset", "second_repl_offset"),
    ("cluster_enabled", "cluster_enabled"),
    ("total_connections_received", "connections_received_total"),
    ("total_commands_processed", "commands_processed_total"),
    ("instantaneous_ops_per_sec", "instantaneous_ops_per_sec"),
    ("instantaneous_input_kbps", "instantaneous_input_kbps"),
    ("instantaneous_output_kbps", "instantaneous_output_kbps"),
    ("total_net_input_bytes", "net_input_bytes_total"),
    ("total_net_output_bytes", "net_output_bytes_total"),
    ("total_net_repl_input_bytes", "net_repl_input_bytes_total"),
    ("total_net_repl_output_bytes", "net_repl_output_bytes_total"),
    ("rejected_connections", "rejected_connections_total"),
    ("sync_full", "replica_resyncs_full"),
    ("sync_partial_ok", "replica_partial_resync_accepted"),
    ("sync_partial_err", "replica_partial_resync_denied"),
    ("expired_keys", "expired_keys_total"),
    ("expired_subkeys", "expired_subkeys_total"),
    ("expired_stale_perc", "expired_stale_percentage"),
    ("expired_time_cap_reached_count", "expired_time_cap_reached_total"),
    ("expire_cycle_cpu_milliseconds", "expire_cycle_cpu_time_ms_total"),
    ("evicted_keys", "evicted_keys_total"),
    ("evicted_clients", "evicted_clients_total"),
    ("evicted_scripts", "evicted_scripts_total"),
    ("total_eviction_exceeded_time", "eviction_exceeded_time_ms_total"),
    ("current_eviction_exceeded_time", "current_eviction_exceeded_time_ms"),
    ("keyspace_hits", "keyspace_hits_total"),
    ("keyspace_misses", "keyspace_misses_total"),
    ("eventloop_cycles", "eventloop_cycles_total"),
    ("eventloop_duration_sum", "eventloop_duration_sum_usec_total"),
    ("eventloop_duration_cmd_sum", "eventloop_duration_cmd_sum_usec_total"),
    ("unexpected_error_replies", "unexpected_error_replies"),
    ("total_error_replies", "total_error_replies"),
    ("dump_payload_sanitizations", "dump_payload_sanitizations"),
    ("total_reads_processed", "total_reads_processed"),
    ("total_writes_processed", "total_writes_processed"),
    ("io_threaded_reads_processed", "io_threaded_reads_processed"),
    ("io_threaded_writes_processed", "io_threaded_writes_processed"),
    ("acl_access_denied_auth", "acl_access_denied_auth_total"),
    ("acl_access_denied_cmd", "acl_access_denied_cmd_total"),
    ("acl_access_denied_key", "acl_access_denied_key_total"),
    ("acl_access_denied_channel", "acl_access_denied_channel_total"),
    ("used_cpu_sys", "cpu_sys_seconds_total"),
    ("used_cpu_user", "cpu_user_seconds_total"),
    ("used_cpu_sys_children", "cpu_sys_children_seconds_total"),
    ("used_cpu_user_children", "cpu_user_children_seconds_total"),
    ("used_cpu_sys_main_thread", "cpu_sys_main_thread_seconds_total"),
    ("used_cpu_user_main_thread", "cpu_user_main_thread_seconds_total"),
];

/// The columns of a row: its field, the column, the name, and what one unit is in the unit of the metric.
const COLUMNS: &[(&str, &str, &str, f64, Kind)] = &[
    ("cmdstat_", "calls", "redis_commands_total", 1.0, Kind::Counter),
    ("cmdstat_", "usec", "redis_commands_duration_seconds_total", 1e-6, Kind::Counter),
    ("cmdstat_", "rejected_calls", "redis_commands_rejected_calls_total", 1.0, Kind::Counter),
    ("cmdstat_", "failed_calls", "redis_commands_failed_calls_total", 1.0, Kind::Counter),
    ("errorstat_", "count", "redis_errors_total", 1.0, Kind::Counter),
    ("db", "keys", "redis_db_keys", 1.0, Kind::Gauge),
    ("db", "expires", "redis_db_keys_expiring", 1.0, Kind::Gauge),
    ("db", "avg_ttl", "redis_db_avg_ttl_seconds", 1e-3, Kind::Gauge),
    ("io_thread_", "clients", "ironkeep_worker_clients", 1.0, Kind::Gauge),
    ("io_thread_", "reads", "ironkeep_worker_reads_total", 1.0, Kind::Counter),
    ("io_thread_", "writes", "ironkeep_worker_writes_total", 1.0, Kind::Counter),
];

/// Fields that redis_exporter shows twice, as it asks for the configuration, too.
const CONFIGURED: &[(&str, &str)] =
    &[("maxclients", "redis_config_maxclients"), ("maxmemory", "redis_config_maxmemory")];

/// The texts of redis_exporter's `redis_instance_info`.
const INSTANCE: &[&str] = &[
    "role",
    "redis_version",
    "redis_build_id",
    "redis_mode",
    "os",
    "maxmemory_policy",
    "tcp_port",
    "run_id",
    "process_id",
    "master_replid",
];

/// More databases than this are shown only as far as they have keys.
const EMPTY_DATABASES_MAX: usize = 256;

/// The section that draws samples of the keys, which a scrape does not pay for.
const LEFT_OUT: &str = "keysizes";

/// The text of the page, at a time in Unix ms.
pub(super) fn report(server: &Server, now: i64, form: Form) -> String {
    let mut families = Families::default();
    let mut instance = Vec::new();
    families.add("redis_up", Kind::Gauge, "Whether the server answers.", &[], 1.0);
    let started = "When the server was started, Unix time.";
    let start_s = server.started_ms as f64 / 1000.0;
    families.add("redis_start_time_seconds", Kind::Gauge, started, &[], start_s);
    for (section, figures) in info::sections(server, now) {
        for figure in figures.iter().filter(|_| section != LEFT_OUT) {
            match (&figure.value, INSTANCE.contains(&&*figure.name)) {
                (Value::Text(text), true) => instance.push((figure.name.to_string(), text.clone())),
                (Value::Gauge(number), true) => instance.push((figure.name.to_string(), number.to_string())),
                _ => {}
            }
            // The number of the process is a figure as well.
            if figure.name == "process_id" || !INSTANCE.contains(&&*figure.name) {
                add(&mut families, section, figure);
            }
        }
    }
    beside_info::add(&mut families, server);
    // Those with keys are there already.
    let databases = server.config.settings().databases;
    for db in (0..databases).filter(|_| databases <= EMPTY_DATABASES_MAX) {
        for name in ["redis_db_keys", "redis_db_keys_expiring"] {
            families.add(name, Kind::Gauge, "Keys of a database.", &[("db", &format!("db{db}"))], 0.0);
        }
    }
    let labels: Vec<(&str, &str)> = instance.iter().map(|(name, text)| (&**name, &**text)).collect();
    families.add("redis_instance_info", Kind::Gauge, "What the server is.", &labels, 1.0);
    families.text(form)
}

fn add(families: &mut Families, section: &str, figure: &Figure) {
    if let Value::Row { by, label, columns } = &figure.value {
        return add_row(families, (&figure.name, by, label), columns);
    }
    if let Value::Columns(columns) = &figure.value {
        return add_distribution(families, &format!("ironkeep_{}", figure.name), &[], columns);
    }
    let Some((value, kind)) = number(&figure.value) else { return };
    let help = format!("{} of INFO {section}.", figure.name);
    if let Some((_, name)) = CONFIGURED.iter().find(|(field, _)| *field == figure.name) {
        families.add(name, kind, &help, &[], value);
    }
    match KNOWN.iter().find(|(field, _)| *field == figure.name) {
        Some((_, name)) => {
            // What never rises here, as there is no such thing, is a text in INFO.
            let kind = if name.ends_with("_total") { Kind::Counter } else { kind };
            families.add(&format!("redis_{name}"), kind, &help, &[], value);
        }
        None if matches!(figure.value, Value::Text(_)) => {}
        None => {
            let own: String = figure.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let name = match kind {
                Kind::Counter => format!("ironkeep_{}_total", own.strip_prefix("total_").unwrap_or(&own)),
                _ => format!("ironkeep_{own}"),
            };
            families.add(&name, kind, &help, &[], value);
        }
    }
}

fn add_row(families: &mut Families, (field, by, label): (&str, &str, &str), columns: &[(Cow<'static, str>, Value)]) {
    // redis_exporter's labels.
    let (by, label) = match by {
        "db" => ("db", format!("db{label}")),
        "error" => ("err", label.to_owned()),
        other => (other, label.to_owned()),
    };
    if let Some(part) = field.strip_prefix("service_").and_then(|rest| rest.strip_suffix("_usec_")) {
        return add_distribution(families, "ironkeep_service_usec", &[("cmd", &label), ("part", part)], columns);
    }
    for (column, value) in columns {
        let Some((value, _)) = number(value) else { continue };
        let help = format!("{column} of INFO's rows {field}.");
        if let Some(percent) = column.strip_prefix('p').filter(|_| field == "latency_percentiles_usec_") {
            // redis_exporter's quantiles are percentages, which is no summary to OpenMetrics.
            let labels = [(by, &*label), ("quantile", percent)];
            families.add("redis_latency_percentiles_usec", Kind::Gauge, "Time of a command, in us.", &labels, value);
            continue;
        }
        let known = COLUMNS.iter().find(|(of, name, ..)| *of == field && name == column);
        if let Some((_, _, name, unit, kind)) = known {
            families.add(name, *kind, &help, &[(by, &label)], value * unit);
        }
    }
}

/// Adds the columns of a distribution: a summary, and the largest beside it.
fn add_distribution(
    families: &mut Families,
    name: &str,
    labels: &[(&str, &str)],
    columns: &[(Cow<'static, str>, Value)],
) {
    let help = "A distribution of INFO servicestats.";
    // The parts of a service time add up; for the rest of their distributions there is INFO.
    let has_quantiles = !labels.iter().any(|(label, part)| *label == "part" && *part != "whole");
    for (column, value) in columns {
        let Some((value, _)) = number(value) else { continue };
        match (column.strip_prefix('p').map(str::parse::<f64>), &**column) {
            (Some(Ok(percent)), _) if has_quantiles => {
                let quantile = ((percent * 10.0).round() / 1000.0).to_string();
                let labels = [labels, &[("quantile", &*quantile)]].concat();
                families.add(name, Kind::Summary, help, &labels, value);
            }
            (_, "sum") => families.add_part(name, Kind::Summary, help, "_sum", labels, value),
            (_, "count") => families.add_part(name, Kind::Summary, help, "_count", labels, value),
            (_, "max") if has_quantiles => families.add(&format!("{name}_max"), Kind::Gauge, help, labels, value),
            _ => {}
        }
    }
}

/// A figure as a number, if it is one.
fn number(value: &Value) -> Option<(f64, Kind)> {
    Some(match value {
        Value::Counter(number) => (*number as f64, Kind::Counter),
        Value::Bytes(number) => (*number as f64, Kind::Gauge),
        Value::Gauge(number) => (*number as f64, Kind::Gauge),
        Value::Ratio(number) | Value::Percent(number) | Value::Micros(number) => (*number, Kind::Gauge),
        Value::CpuTime(us) => (*us as f64 / 1e6, Kind::Counter),
        Value::Text(text) if text == "ok" => (1.0, Kind::Gauge),
        Value::Text(text) if text == "err" => (0.0, Kind::Gauge),
        Value::Text(text) => (text.parse().ok().filter(|number: &f64| number.is_finite())?, Kind::Gauge),
        Value::Columns(_) | Value::Row { .. } => return None,
    })
}

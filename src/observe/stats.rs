//! The figures of activity: totals, commands, their times, and errors.

use std::sync::atomic::Ordering::Relaxed;

use crate::core::Server;
use crate::core::figures::{Figures, Look, Value};
use crate::core::keystats::By;
use crate::core::stats::{CommandCounters, Latencies, WorkerCounters};
use crate::core::table::CommandEntry;
use crate::events::channels::Kind;
use crate::value::hash::template;

/// Adds the totals.
pub(super) fn totals(look: &Look<'_>, out: &mut Figures) {
    let (counters, rates) = (&look.server.counters, &look.server.rates);
    let sum = |of: fn(&WorkerCounters) -> u64| look.server.workers.iter().map(|worker| of(&worker.counters)).sum();
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    out.counter("total_connections_received", counters.connections.get());
    out.counter("total_commands_processed", sum(|c| c.commands.get()));
    out.gauge("instantaneous_ops_per_sec", rates.commands.load(Relaxed));
    out.counter("total_net_input_bytes", sum(|c| c.net_input_bytes.get()));
    out.counter("total_net_output_bytes", sum(|c| c.net_output_bytes.get()));
    out.constants(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    out.ratio("instantaneous_input_kbps", kib(rates.input_bytes.load(Relaxed)));
    out.ratio("instantaneous_output_kbps", kib(rates.output_bytes.load(Relaxed)));
    out.constants(&["instantaneous_input_repl_kbps", "instantaneous_output_repl_kbps"]);
    out.counter("rejected_connections", counters.rejected_connections.get());
    out.constants(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    out.counter("expired_keys", sum(|c| c.expired.get()));
    out.counter("expired_subkeys", sum(|c| c.expired_fields.get()));
    out.constants(&["expired_stale_perc", "expired_time_cap_reached_count"]);
    out.counter("expire_cycle_cpu_milliseconds", sum(|c| c.expire_cycle_us.get()) / 1000);
    out.counter("evicted_keys", sum(|c| c.evicted.get()));
    out.counter("evicted_clients", counters.evicted_clients.get());
    let (above_ms, now_above_ms) = look.server.memory.above_ms();
    out.counter("total_eviction_exceeded_time", above_ms);
    out.gauge("current_eviction_exceeded_time", now_above_ms);
    out.counter("keyspace_hits", sum(|c| c.hits.get()));
    out.counter("keyspace_misses", sum(|c| c.misses.get()));
    let kinds =
        [("pubsub_channels", Kind::Channel), ("pubsub_patterns", Kind::Pattern), ("pubsubshard_channels", Kind::Shard)];
    for (field, kind) in kinds {
        out.gauge(field, look.server.channels.len(kind));
    }
    out.constants(&["latest_fork_usec", "total_forks"]);
    out.constants(&["migrate_cached_sockets", "slave_expires_tracked_keys", "active_defrag_hits"]);
    out.constants(&["active_defrag_misses", "active_defrag_key_hits", "active_defrag_key_misses"]);
    out.counter("total_active_defrag_time", sum(|c| c.relocation_us.get()) / 1000);
    out.constants(&["current_active_defrag_time"]);
    let tracking = &look.server.tracking;
    out.gauge("tracking_total_keys", tracking.count_keys());
    out.gauge("tracking_total_items", tracking.count_items());
    out.gauge("tracking_total_prefixes", tracking.count_prefixes());
    out.constants(&["unexpected_error_replies"]);
    out.counter("total_error_replies", counters.error_replies.get());
    out.constants(&["dump_payload_sanitizations"]);
    out.counter("total_reads_processed", sum(|c| c.reads.get()));
    out.counter("total_writes_processed", sum(|c| c.writes.get()));
    out.constants(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    out.constants(&["reply_buffer_shrinks", "reply_buffer_expands"]);
    let loops = look.server.event_loops();
    out.counter("eventloop_cycles", loops.cycles);
    out.counter("eventloop_duration_sum", loops.busy_us);
    let of_commands = commands(look.server).map(|entry| {
        look.server.workers.iter().map(|worker| worker.commands[entry.index].nanoseconds.get()).sum::<u64>()
    });
    out.counter("eventloop_duration_cmd_sum", of_commands.sum::<u64>() / 1000);
    out.gauge("instantaneous_eventloop_cycles_per_sec", rates.cycles.load(Relaxed));
    out.gauge("instantaneous_eventloop_duration_usec", rates.cycle_us.load(Relaxed));
    out.counter("acl_access_denied_auth", counters.access_denied_auth.get());
    out.counter("acl_access_denied_cmd", counters.access_denied_cmd.get());
    out.counter("acl_access_denied_key", counters.access_denied_key.get());
    out.counter("acl_access_denied_channel", counters.access_denied_channel.get());
    out.counter("acl_access_denied_db", counters.access_denied_db.get());
    let (of_queries, of_replies) =
        (&counters.query_buffer_limit_disconnections, &counters.output_buffer_limit_disconnections);
    out.counter("client_query_buffer_limit_disconnections", of_queries.get());
    out.counter("client_output_buffer_limit_disconnections", of_replies.get());
    out.gauge("hash_templates", template::totals().0);
    let of_templates = look.server.keyspace.counts().filled().map(|(_, census)| census.templated);
    out.gauge("hash_template_keys", of_templates.sum::<usize>());
    out.counter("evicted_scripts", look.server.scripts.evicted.load(Relaxed));
    out.counter("acl_access_denied_tls_cert", counters.access_denied_tls_cert.get());
    let audit = &look.server.audit.figures;
    out.counter("audit_log_events", audit.noted.load(Relaxed));
    out.counter("audit_log_dropped", audit.dropped.load(Relaxed));
    let (batches, batched) = (sum(|c| c.groups.get()), sum(|c| c.commands.get()));
    out.counter("total_client_processing_events", batches);
    out.counter("eventloop_cycles_with_clients_processing", sum(|c| c.turns.get()));
    out.counter("commands_per_parse_batch_sum", batched);
    out.counter("commands_per_parse_batch_cnt", batches);
    out.ratio("commands_per_parse_batch_avg", batched as f64 / batches.max(1) as f64);
    let slow = Slow::of(look.server, commands(look.server));
    out.counter("slowlog_commands_count", slow.count);
    out.ratio("slowlog_commands_time_ms_sum", slow.us as f64 / 1e3);
    out.ratio("slowlog_commands_time_ms_max", slow.us_max as f64 / 1e3);
    out.counter("rejected_priority_connections", counters.rejected_priority_connections.get());
    out.gauge("blessed_keys", look.server.keyspace.counts().filled().map(|(_, census)| census.blessed).sum::<usize>());
}

/// How often commands went to the slow log, and how long they took.
struct Slow {
    count: u64,
    us: u64,
    us_max: u64,
}

impl Slow {
    fn of<'a>(server: &Server, entries: impl IntoIterator<Item = &'a CommandEntry>) -> Slow {
        let mut slow = Slow { count: 0, us: 0, us_max: 0 };
        for entry in entries {
            for counters in server.workers.iter().map(|worker| &worker.commands[entry.index]) {
                slow.count += counters.slow.get();
                slow.us += counters.slow_us.get();
                slow.us_max = slow.us_max.max(counters.slow_us_max.get());
            }
        }
        slow
    }
}

/// All commands and subcommands.
fn commands(server: &Server) -> impl Iterator<Item = &CommandEntry> {
    server.table.entries().iter().flat_map(|entry| [entry].into_iter().chain(entry.subcommands()))
}

/// Adds a row for each command that was ever called.
pub(super) fn of_commands(look: &Look<'_>, out: &mut Figures) {
    for entry in commands(look.server) {
        let workers = &look.server.workers;
        let sum = |of: fn(&CommandCounters) -> u64| workers.iter().map(|w| of(&w.commands[entry.index])).sum::<u64>();
        let (calls, us) = (sum(|c| c.calls.get()), sum(|c| c.nanoseconds.get()) as f64 / 1e3);
        let (rejected, failed) = (sum(|c| c.rejected.get()), sum(|c| c.failed.get()));
        if calls + rejected + failed > 0 {
            let mut columns = vec![
                ("calls".into(), Value::Counter(calls)),
                ("usec".into(), Value::Counter(us.round() as u64)),
                ("usec_per_call".into(), Value::Ratio(us / calls.max(1) as f64)),
                ("rejected_calls".into(), Value::Counter(rejected)),
                ("failed_calls".into(), Value::Counter(failed)),
            ];
            let slow = Slow::of(look.server, [entry]);
            if slow.count > 0 {
                let ms = |us: u64| Value::Ratio(us as f64 / 1e3);
                columns.push(("slowlog_count".into(), Value::Counter(slow.count)));
                columns.push(("slowlog_time_ms_sum".into(), ms(slow.us)));
                columns.push(("slowlog_time_ms_max".into(), ms(slow.us_max)));
            }
            out.row("cmdstat_", ("cmd", entry.full_name.clone()), columns);
        }
    }
}

/// Adds a row for each command whose times are known.
pub(super) fn of_times(look: &Look<'_>, out: &mut Figures) {
    let percentages = &look.settings.latency_tracking_info_percentiles;
    for entry in commands(look.server) {
        let all = look.server.workers.iter().map(|worker| &worker.latencies[entry.index]);
        if let Some(bounds) = Latencies::percentiles(all, percentages) {
            let columns = percentages.iter().zip(bounds);
            let columns = columns.map(|(p, bound)| (format!("p{p}").into(), Value::Micros(bound as f64 / 1e3)));
            out.row("latency_percentiles_usec_", ("cmd", entry.full_name.clone()), columns.collect());
        }
    }
}

/// Adds a row for each worker.
pub(super) fn of_threads(look: &Look<'_>, out: &mut Figures) {
    let clients = look.server.clients.list();
    for (index, worker) in look.server.workers.iter().enumerate() {
        let own = clients.iter().filter(|client| client.worker() == index).count();
        // One that is out of service is told of while it serves somebody.
        if index >= look.server.roster.in_service() && own == 0 {
            continue;
        }
        let columns = vec![
            ("clients".into(), Value::Gauge(own as i64)),
            ("reads".into(), Value::Counter(worker.counters.reads.get())),
            ("writes".into(), Value::Counter(worker.counters.writes.get())),
        ];
        out.row("io_thread_", ("thread", index.to_string()), columns);
    }
}

/// Adds the figures of the session of HOTKEYS, and of the windows.
pub(super) fn of_hotkeys(look: &Look<'_>, out: &mut Figures) {
    if let Some(session) = look.server.hotkeys.session(look.now) {
        out.flag("tracking_active", session.is_active);
        out.bytes("used_memory", session.memory as u64);
        out.counter("cpu_time", session.counting_ms);
    }
    if let Some(window) = look.server.hotkeys.window() {
        out.gauge("hotkeys_last_window_samples", window.samples);
        out.gauge("hotkeys_last_window_duration_ms", window.length.as_millis());
    }
}

/// Adds the figures of the biggest and busiest keys. Their names are for those who may read them: BIGKEYS.
pub(super) fn of_keys(look: &Look<'_>, out: &mut Figures) {
    let server = look.server;
    out.flag("key_statistics", look.settings.key_statistics);
    if look.settings.key_statistics {
        let biggest = |by| server.keystats.biggest(&server.keyspace, by, look.now).into_iter().next();
        out.bytes("biggest_key_bytes", biggest(By::Bytes).map_or(0, |key| key.bytes));
        out.gauge("biggest_key_elements", biggest(By::Elements).map_or(0, |key| key.elements));
        out.gauge("busiest_key_calls", server.keystats.busiest().first().map_or(0, |key| key.count));
        out.gauge("slowest_key_usec", server.keystats.slowest().first().map_or(0, |key| key.count / 1000));
        out.gauge("prefixes", server.keystats.prefixes().len());
        out.counter("key_walks", server.keystats.walks.load(Relaxed));
    }
}

/// Adds a row for each kind of error.
pub(super) fn of_errors(look: &Look<'_>, out: &mut Figures) {
    for (code, count) in &*look.server.errors.lock() {
        out.row("errorstat_", ("error", code.clone()), vec![("count".into(), Value::Counter(*count))]);
    }
}

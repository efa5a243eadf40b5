//! What redis_exporter asks with other commands than INFO: SLOWLOG, COMMANDLOG and LATENCY.
//!
//! Invariant: the locks of these logs are held for the copy of one entry at most.

use super::exposition::{Families, Kind};
use crate::core::Server;
use crate::core::commandlog::Reason;
use crate::core::stats::Latencies;
use crate::core::table::CommandEntry;

/// Adds all of it.
pub(super) fn add(families: &mut Families, server: &Server) {
    add_logs(families, server);
    for (event, series) in server.latency.all() {
        let (Some(last), labels) = (series.samples.back(), [("event_name", event.name())]) else { continue };
        let mut gauge = |name: &str, help: &str, value: f64| families.add(name, Kind::Gauge, help, &labels, value);
        gauge("redis_latency_spike_last", "When the event last took long, Unix time.", last.at as f64);
        gauge("redis_latency_spike_duration_seconds", "How long it took then.", last.took_ms as f64 / 1e3);
    }
    for entry in server.table.entries() {
        [entry].into_iter().chain(entry.subcommands()).for_each(|entry| add_latencies(families, server, entry));
    }
}

fn add_logs(families: &mut Families, server: &Server) {
    let (logs, settings) = (&server.commandlogs, server.config.settings());
    let newest = logs.slow.newest(1).pop();
    let (id, us) = newest.map_or((0, 0), |entry| (entry.id, entry.figure));
    let mut gauge = |name: &str, help: &str, value: f64| families.add(name, Kind::Gauge, help, &[], value);
    gauge("redis_config_io_threads", "The directive io-threads.", settings.io_threads as f64);
    gauge("redis_slowlog_length", "Entries of SLOWLOG.", logs.slow.len() as f64);
    gauge("redis_slowlog_last_id", "Number of the newest of them.", id as f64);
    gauge("redis_last_slow_execution_duration_seconds", "How long that took.", us as f64 / 1e6);
    let bounds = [
        ("slow", "slow_execution", "execution_slower", settings.slowlog_log_slower_than_us),
        ("large_request", "large_request", "request_larger", settings.commandlog_request_larger_than_bytes),
        ("large_reply", "large_reply", "reply_larger", settings.commandlog_reply_larger_than_bytes),
    ];
    for (reason, (name, kept, from, bound)) in Reason::ALL.into_iter().zip(bounds) {
        let (length, most) = (logs.of(reason).len() as f64, reason.len_max(&settings) as f64);
        gauge(&format!("redis_commandlog_{name}_length"), "Entries of this log of COMMANDLOG.", length);
        gauge(&format!("redis_commandlog_{kept}_max_len"), "The most entries that it keeps.", most);
        gauge(&format!("redis_commandlog_{from}_than"), "What makes an entry, in us or bytes.", bound as f64);
    }
}

/// The histogram of a command, and the sums of redis_exporter's summary.
fn add_latencies(families: &mut Families, server: &Server, entry: &CommandEntry) {
    let latencies = Latencies::cumulated(server.workers.iter().map(|worker| &worker.latencies[entry.index]));
    let Some((calls, bounds)) = latencies else { return };
    let ns: u64 = server.workers.iter().map(|worker| worker.commands[entry.index].nanoseconds.get()).sum();
    let (name, help) = ("redis_commands_latencies_usec", "How many calls took how long, in us.");
    let cmd = ("cmd", &*entry.full_name);
    for (us, count) in bounds {
        let labels = [cmd, ("le", &*us.to_string())];
        families.add_part(name, Kind::Histogram, help, "_bucket", &labels, count as f64);
    }
    families.add_part(name, Kind::Histogram, help, "_bucket", &[cmd, ("le", "+Inf")], calls as f64);
    families.add_part(name, Kind::Histogram, help, "_sum", &[cmd], ns as f64 / 1e3);
    families.add_part(name, Kind::Histogram, help, "_count", &[cmd], calls as f64);
    let name = "redis_latency_percentiles_usec";
    families.add(&format!("{name}_sum"), Kind::Counter, "Time of a command in all, in us.", &[cmd], ns as f64 / 1e3);
    families.add(&format!("{name}_count"), Kind::Counter, "Calls of a command.", &[cmd], calls as f64);
}

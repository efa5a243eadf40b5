//! Service times and other distributions, as data for INFO and whoever else shows them.

use std::borrow::Cow;

use crate::base::histogram::{Distribution, Histogram};
use crate::core::Server;
use crate::core::figures::{Figures, Look, Value};
use crate::core::service::{Part, ServiceTimes};

/// The percentiles that are shown.
pub const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// The service times of a command, of all workers.
#[derive(Clone, Debug)]
pub struct CommandService {
    /// Its name, as INFO shows it.
    pub name: String,
    /// By [`Part`], in nanoseconds.
    pub parts: [Distribution; 5],
}

/// The service times of every command that has any. It takes no lock.
pub fn of_commands(server: &Server) -> Vec<CommandService> {
    let all = server.table.entries().iter().flat_map(|entry| [entry].into_iter().chain(entry.subcommands()));
    let service = all.map(|entry| CommandService {
        name: entry.full_name.clone(),
        parts: Part::ALL
            .map(|part| ServiceTimes::of_part(server.workers.iter().map(|worker| &worker.service[entry.index]), part)),
    });
    service.filter(|service| service.parts[Part::Whole as usize].count > 0).collect()
}

/// The service times of all commands together, by [`Part`], in nanoseconds. It takes no lock.
pub fn of_all(server: &Server) -> [Distribution; 5] {
    Part::ALL.map(|part| ServiceTimes::of_part(server.workers.iter().flat_map(|worker| &worker.service), part))
}

/// Distributions that belong to no command, each with its name, whose last word is the unit.
pub fn of_server(server: &Server) -> [(&'static str, Distribution); 6] {
    let (log, workers) = (&server.store.log().figures, &server.workers);
    [
        ("fsync_us", Distribution::of([&log.fsync_us])),
        ("block_bytes", Distribution::of([&log.block_bytes])),
        ("batch_commands", Distribution::of(workers.iter().map(|worker| &worker.batch_commands))),
        ("parked_us", Distribution::of([&server.service.parked_us])),
        ("expiry_lag_ms", Distribution::of(workers.iter().map(|worker| &worker.expiry_lag_ms))),
        ("snapshot_freeze_us", Distribution::of([&server.service.freeze_us])),
    ]
}

/// Sets all of them to zero: CONFIG RESETSTAT.
pub fn reset(server: &Server) {
    let log = &server.store.log().figures;
    let shared = [&log.fsync_us, &log.block_bytes, &server.service.parked_us, &server.service.freeze_us];
    shared.into_iter().for_each(Histogram::reset);
    for worker in &server.workers {
        worker.batch_commands.reset();
        worker.expiry_lag_ms.reset();
        worker.service.iter().for_each(ServiceTimes::reset);
    }
}

/// Adds a row for each command and part, and one for each of the other distributions.
pub(super) fn figures(look: &Look<'_>, out: &mut Figures) {
    out.flag("service_tracking", look.settings.latency_tracking);
    for service in of_commands(look.server) {
        for (part, distribution) in Part::ALL.into_iter().zip(&service.parts) {
            let name = match part {
                Part::Wait => "service_wait_usec_",
                Part::Run => "service_run_usec_",
                Part::Log => "service_log_usec_",
                Part::Send => "service_send_usec_",
                Part::Whole => "service_whole_usec_",
            };
            out.row(name, ("cmd", service.name.clone()), columns(distribution, 1e3));
        }
    }
    for (name, distribution) in of_server(look.server) {
        out.add(name, Value::Columns(columns(&distribution, 1.0)));
    }
}

/// The columns of a distribution, whose numbers are shown divided by this.
fn columns(distribution: &Distribution, unit: f64) -> Vec<(Cow<'static, str>, Value)> {
    let show = |number: u64| Value::Micros(number as f64 / unit);
    let mut columns =
        vec![("count".into(), Value::Counter(distribution.count)), ("sum".into(), show(distribution.sum))];
    columns.extend(PERCENTILES.map(|(name, percent)| (name.into(), show(distribution.percentile(percent)))));
    columns.push(("max".into(), show(distribution.largest)));
    columns
}

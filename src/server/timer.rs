//! What the server does by itself, ten times a second: rates, the peak of memory, save points, compaction,
//! healing of the log, eviction of clients.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::client_eviction;
use crate::base::{alloc, clock, logging};
use crate::core::Server;
use crate::core::server::SavePurpose;
use crate::durable::{backup, disk, saving, scrub};

const PERIOD: Duration = Duration::from_millis(100);
/// After a failed snapshot the next attempt waits this long.
const RETRY_MS: i64 = 5000;
/// How many tracked keys are dropped at a time, if there are too many.
const TRACKED_DROPPED_MAX: usize = 10_000;
/// How long all keys are walked over, each time.
const WALK: Duration = Duration::from_micros(250);
/// Samples behind the rates of INFO.
const SAMPLES: usize = 16;

/// A ring of samples of counters that only grow.
#[derive(Default)]
struct Rate {
    samples: [u64; SAMPLES],
    last: u64,
    next: usize,
}

impl Rate {
    /// The mean growth a second, with `now` as the newest value after `elapsed_us`.
    fn sample(&mut self, now: u64, elapsed_us: u64) -> u64 {
        self.samples[self.next] = now.saturating_sub(self.last).saturating_mul(1_000_000) / elapsed_us.max(1);
        self.next = (self.next + 1) % SAMPLES;
        self.last = now;
        self.samples.iter().sum::<u64>() / SAMPLES as u64
    }
}

/// Runs for ever.
pub async fn run(server: Arc<Server>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut commands, mut input, mut output) = (Rate::default(), Rate::default(), Rate::default());
    let (mut cycles, mut busy) = (Rate::default(), Rate::default());
    let mut last_us = clock::monotonic_us();
    loop {
        tick.tick().await;
        let now_us = clock::monotonic_us();
        let elapsed = now_us - last_us;
        last_us = now_us;
        let sum = |of: fn(&crate::core::stats::WorkerCounters) -> u64| -> u64 {
            server.workers.iter().map(|worker| of(&worker.counters)).sum()
        };
        server.rates.commands.store(commands.sample(sum(|c| c.commands.get()), elapsed), Relaxed);
        server.rates.input_bytes.store(input.sample(sum(|c| c.net_input_bytes.get()), elapsed), Relaxed);
        server.rates.output_bytes.store(output.sample(sum(|c| c.net_output_bytes.get()), elapsed), Relaxed);
        let loops = server.event_loops();
        let (cycles_a_second, busy_us_a_second) =
            (cycles.sample(loops.cycles, elapsed), busy.sample(loops.busy_us, elapsed));
        server.rates.cycles.store(cycles_a_second, Relaxed);
        server.rates.cycle_us.store(busy_us_a_second / cycles_a_second.max(1), Relaxed);
        alloc::sample_peak();
        // A pause that is over is noted here even if no client asks.
        server.pause.now(clock::now_ms(), &server.hooks);
        disk::tick(&server);
        watch_snapshots(&server);
        backup::tick(&server);
        scrub::tick(&server);
        client_eviction::run_if_needed(&server);
        server.hotkeys.tick(clock::now_ms(), Instant::now(), &server.hooks);
        server.limit_tracking(TRACKED_DROPPED_MAX);
        let settings = server.config.settings();
        if settings.key_statistics {
            let separators = settings.key_prefix_separators.as_bytes();
            server.keystats.walk(&server.keyspace, separators, clock::now_ms(), WALK);
        }
    }
}

/// Begins a snapshot when a save point is reached, the log has grown, or the log has failed.
fn watch_snapshots(server: &Arc<Server>) {
    let now = clock::now_ms();
    let saving = &server.saving;
    if saving.state.lock().running.is_some() || server.keyspace.is_loading() {
        return;
    }
    // No snapshot is made over damage. Without a log, the attempt fails and has writes refused.
    if server.keyspace.damaged_shards() > 0 && server.store.log().is_active() {
        return;
    }
    let failed = !saving.last_save_ok.load(Relaxed) || !saving.last_rewrite_ok.load(Relaxed);
    if (failed || server.store.log().is_poisoned()) && now - saving.last_try_ms.load(Relaxed) < RETRY_MS {
        return;
    }
    if server.store.log().is_poisoned() {
        logging::warning(format_args!("The log has failed; trying to heal it by a fresh snapshot"));
        saving::request(server, SavePurpose::Rewrite, false, None);
        return;
    }
    if server.store.log().lacks_room()
        && now - saving.last_try_ms.load(Relaxed) >= RETRY_MS
        && disk::snapshot_makes_room(server)
    {
        logging::notice(format_args!("Starting automatic rewriting of AOF, for the disk is full"));
        saving::request(server, SavePurpose::Rewrite, false, None);
        return;
    }
    if server.store.needs_rewrite() {
        let how = if server.store.is_encrypted() { "encrypt" } else { "write in the clear" };
        logging::notice(format_args!("Starting automatic rewriting of AOF to {how} what was written otherwise"));
        saving::request(server, SavePurpose::Rewrite, false, None);
        return;
    }
    let settings = server.config.settings();
    if saving.flushed_all.swap(false, Relaxed) && server.keeps_by_snapshots() {
        logging::notice(format_args!("All keys were removed. Saving..."));
        saving::request(server, SavePurpose::Save, false, None);
        return;
    }
    let changes = saving.changes.load(Relaxed);
    let seconds = (now / 1000 - saving.last_save.load(Relaxed)).max(0) as u64;
    if let Some(point) = settings.save.iter().find(|point| changes >= point.changes && seconds > point.seconds) {
        logging::notice(format_args!("{} changes in {} seconds. Saving...", point.changes, point.seconds));
        saving::request(server, SavePurpose::Save, false, None);
        return;
    }
    if let Some(why) = log_has_grown(server) {
        logging::notice(format_args!("Starting automatic rewriting of AOF on {why}"));
        saving::request(server, SavePurpose::Rewrite, false, None);
    }
}

/// Why the log is to be compacted, if it is.
fn log_has_grown(server: &Server) -> Option<String> {
    let settings = server.config.settings();
    let sizes = server.store.sizes();
    if !server.store.log().is_active() {
        return None;
    }
    if settings.auto_aof_rewrite_max_size > 0 && sizes.log_bytes >= settings.auto_aof_rewrite_max_size {
        return Some(format!("{} bytes of log", sizes.log_bytes));
    }
    let percentage = settings.auto_aof_rewrite_percentage;
    if percentage == 0 || sizes.log_bytes + sizes.base_bytes < settings.auto_aof_rewrite_min_size {
        return None;
    }
    let growth = sizes.log_bytes.saturating_mul(100) / sizes.base_bytes.max(1);
    (growth >= percentage).then(|| format!("{growth}% growth"))
}

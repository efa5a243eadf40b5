//! The figures of persistence: snapshots, the log, and what was loaded.

use std::sync::atomic::Ordering::Relaxed;

use crate::base::progress::Standing;
use crate::core::Server;
use crate::core::backup::{Backup, Outcome, Phase};
use crate::core::figures::{Figures, Look};
use crate::core::server::SavePurpose;

/// Adds them.
pub fn persistence(look: &Look<'_>, out: &mut Figures) {
    let (server, log) = (look.server, look.server.store.log());
    let saving = &server.saving;
    let (running, scheduled) = {
        let state = saving.state.lock();
        (state.running, state.scheduled)
    };
    let since = |purpose| match running {
        Some((of, since)) if of == purpose => (true, (look.now - since).max(0) / 1000),
        _ => (false, -1),
    };
    let (saves, save_seconds) = since(SavePurpose::Save);
    let (rewrites, rewrite_seconds) = since(SavePurpose::Rewrite);
    let status = |ok: bool| if ok { "ok" } else { "err" };
    let (loading, snapshot) = (server.loading.now(), saving.progress.now());
    out.flag("loading", loading.is_some() && !server.keyspace.is_loading());
    out.flag("async_loading", server.keyspace.is_loading());
    out.gauge("loading_damaged_shards", server.keyspace.damaged_shards());
    out.constants(&["current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    out.ratio("current_fork_perc", snapshot.and_then(Standing::percent).unwrap_or(0.0));
    out.gauge("current_save_keys_processed", snapshot.map_or(0, |snapshot| snapshot.done));
    out.gauge("current_save_keys_total", snapshot.map_or(0, |snapshot| snapshot.total));
    if let Some(snapshot) = snapshot {
        out.gauge("current_save_keys_per_second", snapshot.per_second());
        out.gauge("current_save_eta_seconds", seconds_left(Some(snapshot)));
    }
    out.gauge("rdb_changes_since_last_save", server.changes_since_save());
    out.flag("rdb_bgsave_in_progress", saves);
    out.gauge("rdb_last_save_time", saving.last_save.load(Relaxed));
    out.text("rdb_last_bgsave_status", status(saving.last_save_ok.load(Relaxed)));
    out.gauge("rdb_last_bgsave_time_sec", saving.last_save_seconds.load(Relaxed));
    out.gauge("rdb_current_bgsave_time_sec", save_seconds);
    out.counter("rdb_saves", saving.saves.load(Relaxed));
    out.constants(&["rdb_last_cow_size", "rdb_last_load_keys_expired"]);
    out.gauge("rdb_last_load_keys_loaded", saving.loaded_keys.load(Relaxed));
    backup(look, out);
    let scrub = &server.scrub;
    out.flag("scrub_in_progress", scrub.is_running.load(Relaxed));
    out.gauge("scrub_last_time", scrub.last_time.load(Relaxed));
    out.counter("scrub_passes", scrub.passes.load(Relaxed));
    out.counter("scrub_bytes", scrub.bytes.load(Relaxed));
    out.counter("scrub_faults", scrub.faults.load(Relaxed));
    if let Some(pass) = scrub.progress.now() {
        out.bytes("scrub_current_bytes", pass.done);
        out.bytes("scrub_current_total_bytes", pass.total);
        out.ratio("scrub_current_perc", pass.percent().unwrap_or(0.0));
        out.gauge("scrub_current_eta_seconds", seconds_left(Some(pass)));
    }
    let (kept, kept_bytes) = server.store.kept();
    out.gauge("kept_generations", kept);
    out.bytes("kept_generations_bytes", kept_bytes);
    out.flag("encrypted", server.store.is_encrypted());
    out.flag("aof_enabled", log.is_active());
    out.flag("aof_rewrite_in_progress", rewrites);
    out.flag("aof_rewrite_scheduled", scheduled == Some(SavePurpose::Rewrite));
    out.gauge("aof_last_rewrite_time_sec", saving.last_rewrite_seconds.load(Relaxed));
    out.gauge("aof_current_rewrite_time_sec", rewrite_seconds);
    out.text("aof_last_bgrewrite_status", status(saving.last_rewrite_ok.load(Relaxed)));
    out.counter("aof_rewrites", saving.rewrites.load(Relaxed));
    out.gauge("aof_rewrites_consecutive_failures", saving.rewrite_failures.load(Relaxed));
    out.text("aof_last_write_status", status(!log.is_poisoned() && !log.lacks_room()));
    let free = saving.disk.free.load(Relaxed);
    out.bytes("disk_free_bytes", if free == u64::MAX { 0 } else { free });
    out.bytes("disk_total_bytes", saving.disk.total.load(Relaxed));
    out.flag("disk_full", log.lacks_room());
    out.constants(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if log.is_active() {
        let sizes = server.store.sizes();
        out.bytes("aof_current_size", sizes.base_bytes + sizes.log_bytes);
        out.bytes("aof_base_size", sizes.base_bytes);
        out.flag("aof_pending_rewrite", scheduled == Some(SavePurpose::Rewrite));
        out.bytes("aof_buffer_length", sizes.pending_bytes as u64);
        out.flag("aof_pending_bio_fsync", log.written() > log.synced());
        // Durable first: the other only rises meanwhile, so that the difference is never negative.
        out.gauge("log_durable_block", log.synced());
        out.gauge("log_written_block", log.written());
        out.constants(&["aof_delayed_fsync"]);
    }
    if let Some(loading) = loading {
        out.gauge("loading_start_time", look.now / 1000 - (loading.elapsed_us / 1_000_000) as i64);
        out.bytes("loading_total_bytes", loading.total);
        out.bytes("loading_loaded_bytes", loading.done);
        out.ratio("loading_loaded_perc", loading.percent().unwrap_or(0.0));
        out.gauge("loading_eta_seconds", loading.seconds_left().unwrap_or(1));
    }
}

/// In how many seconds it will be over; -1 if nobody knows.
fn seconds_left(standing: Option<Standing>) -> i64 {
    standing.and_then(Standing::seconds_left).map_or(-1, |seconds| seconds as i64)
}

/// What is being done for a backup, and how that stands if it can be told.
fn current(backup: &Backup, server: &Server) -> Option<(&'static str, Option<Standing>)> {
    match backup.phase {
        Phase::Snapshotting => Some(("snapshot", server.saving.progress.now())),
        // It makes a snapshot only if there is no log to seal it with.
        Phase::Incrementing { .. } if backup.is_sealing => Some(("seal", server.saving.progress.now())),
        Phase::Sealed if backup.verification.outcome == Outcome::Running => {
            Some(("verification", server.saving.verification.now()))
        }
        Phase::Sealed if backup.sending.outcome == Outcome::Running => Some(("command", None)),
        _ => None,
    }
}

/// What has become of the backup.
fn backup(look: &Look<'_>, out: &mut Figures) {
    let backup = look.server.backup.lock();
    let (verification, sending) = (backup.verification, backup.sending);
    out.flag("backup_in_progress", backup.phase.is_in_progress());
    out.gauge("backup_last_time", if backup.phase == Phase::Sealed { backup.end_time } else { 0 });
    out.bytes("backup_bytes", backup.bytes);
    out.text("backup_verification", verification.outcome.name());
    out.gauge("backup_verified_keys", verification.keys);
    out.text("backup_command_status", sending.outcome.name());
    out.gauge("backup_command_attempts", sending.attempts);
    out.gauge("backup_command_exit_code", sending.exit_code);
    if let Some((name, standing)) = current(&backup, look.server) {
        out.text("backup_current_step", name);
        out.ratio("backup_current_perc", standing.and_then(Standing::percent).unwrap_or(0.0));
        out.gauge("backup_current_eta_seconds", seconds_left(standing));
    }
}

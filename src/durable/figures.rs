//! The figures of persistence: snapshots, the log, and what was loaded.

use std::sync::atomic::Ordering::Relaxed;

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
    out.constants(&["loading", "async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    out.constants(&["current_fork_perc", "current_save_keys_processed", "current_save_keys_total"]);
    out.gauge("rdb_changes_since_last_save", server.changes_since_save());
    out.flag("rdb_bgsave_in_progress", saves);
    out.gauge("rdb_last_save_time", saving.last_save.load(Relaxed));
    out.text("rdb_last_bgsave_status", status(saving.last_save_ok.load(Relaxed)));
    out.gauge("rdb_last_bgsave_time_sec", saving.last_save_seconds.load(Relaxed));
    out.gauge("rdb_current_bgsave_time_sec", save_seconds);
    out.counter("rdb_saves", saving.saves.load(Relaxed));
    out.constants(&["rdb_last_cow_size", "rdb_last_load_keys_expired"]);
    out.gauge("rdb_last_load_keys_loaded", saving.loaded_keys.load(Relaxed));
    out.flag("aof_enabled", log.is_active());
    out.flag("aof_rewrite_in_progress", rewrites);
    out.flag("aof_rewrite_scheduled", scheduled == Some(SavePurpose::Rewrite));
    out.gauge("aof_last_rewrite_time_sec", saving.last_rewrite_seconds.load(Relaxed));
    out.gauge("aof_current_rewrite_time_sec", rewrite_seconds);
    out.text("aof_last_bgrewrite_status", status(saving.last_rewrite_ok.load(Relaxed)));
    out.counter("aof_rewrites", saving.rewrites.load(Relaxed));
    out.gauge("aof_rewrites_consecutive_failures", saving.rewrite_failures.load(Relaxed));
    out.text("aof_last_write_status", status(!log.is_poisoned()));
    out.constants(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if log.is_active() {
        let sizes = server.store.sizes();
        out.bytes("aof_current_size", sizes.base_bytes + sizes.log_bytes);
        out.bytes("aof_base_size", sizes.base_bytes);
        out.flag("aof_pending_rewrite", scheduled == Some(SavePurpose::Rewrite));
        out.bytes("aof_buffer_length", sizes.pending_bytes as u64);
        out.flag("aof_pending_bio_fsync", log.written() > log.synced());
        out.constants(&["aof_delayed_fsync"]);
    }
}

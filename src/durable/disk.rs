//! The room on the disk: looked at every second, told when it gets short, and compared with what a snapshot needs
//! before one is begun.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::{clock, format, logging};
use crate::core::Server;
use crate::persist::CommitSummary;

/// How often is looked, in ms.
const PERIOD_MS: i64 = 1000;
/// Before the first snapshot, one is expected to take this part of the memory that the keys occupy: less than most
/// take, since it is an attempt that is refused.
const PART_OF_MEMORY: u64 = 4;
/// Room for what is none of the snapshot's keys, in bytes.
const FRAME: u64 = 4 << 10;

/// Looks at the disk. Called by the timer.
pub fn tick(server: &Arc<Server>) {
    let disk = &server.saving.disk;
    let now = clock::now_ms();
    if now - disk.looked_ms.load(Relaxed) < PERIOD_MS {
        return;
    }
    disk.looked_ms.store(now, Relaxed);
    let settings = server.config.settings();
    server.store.log().keep_room(settings.disk_reserve);
    let Ok(space) = server.store.storage().space() else { return };
    disk.free.store(space.free, Relaxed);
    disk.total.store(space.total, Relaxed);
    let limit = settings.disk_free_warning;
    if space.free < limit && !disk.is_low.swap(true, Relaxed) {
        logging::warning(format_args!(
            "The disk of {} gets full: {} of {} are free, below disk-free-warning {}",
            server.store.storage().path("").display(),
            format::human_bytes(space.free),
            format::human_bytes(space.total),
            format::human_bytes(limit),
        ));
    } else if space.free >= limit.saturating_add(limit / 10) && disk.is_low.swap(false, Relaxed) {
        logging::notice(format_args!("The disk has {} free again", format::human_bytes(space.free)));
    }
}

/// The memory that the keys occupy, in bytes.
pub fn memory_of_keys(server: &Server) -> u64 {
    #[cfg(test)]
    return server.saving.disk.memory_of_keys.load(Relaxed);
    #[cfg(not(test))]
    (crate::base::alloc::used_memory() as u64).saturating_sub(server.startup_memory.load(Relaxed))
}

/// About how many bytes a snapshot would take now: the memory of the keys, in the proportion of the last one, and no
/// more than the files that it would replace.
fn expected(server: &Server) -> u64 {
    let (disk, sizes) = (&server.saving.disk, server.store.sizes());
    let memory = memory_of_keys(server);
    let (bytes, of) = (disk.snapshot_bytes.load(Relaxed), disk.snapshot_of_bytes.load(Relaxed));
    let expected = match of {
        0 => memory / PART_OF_MEMORY,
        of => (u128::from(memory) * u128::from(bytes.min(of)) / u128::from(of)) as u64,
    };
    let replaced = match server.store.log().is_active() {
        true => sizes.base_bytes.saturating_add(sizes.log_bytes),
        false => u64::MAX,
    };
    expected.min(replaced).saturating_add(FRAME)
}

/// Whether there is room for a snapshot.
///
/// # Errors
/// There is not. The text says how much is needed, and how much there is.
pub fn check_room(server: &Server) -> Result<(), String> {
    let needed = expected(server);
    match server.store.storage().space() {
        Ok(space) if space.free < needed => Err(format!(
            "not enough room on the disk of {}: a snapshot needs about {}, and {} are free",
            server.store.storage().path("").display(),
            format::human_bytes(needed),
            format::human_bytes(space.free),
        )),
        _ => Ok(()),
    }
}

/// Whether a snapshot would give back room on a full disk, and there is enough for it. The room that the log has kept
/// for that is then free.
pub fn snapshot_makes_room(server: &Server) -> bool {
    let (log, sizes) = (server.store.log(), server.store.sizes());
    let needed = expected(server);
    let held = sizes.base_bytes.saturating_add(sizes.log_bytes);
    if !log.lacks_room() || held < needed.saturating_mul(2) {
        return false;
    }
    let Ok(space) = server.store.storage().space() else { return false };
    if space.free >= needed {
        return true;
    }
    let is_enough = space.free.saturating_add(log.room_for_snapshot()) >= needed;
    if is_enough {
        log.give_room_to_snapshot();
    }
    is_enough
}

/// Notes what a snapshot has taken.
pub fn note_snapshot(server: &Server, summary: &CommitSummary, of_keys: u64) {
    server.saving.disk.snapshot_bytes.store(summary.bytes, Relaxed);
    server.saving.disk.snapshot_of_bytes.store(of_keys, Relaxed);
}

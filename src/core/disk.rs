//! What is known of the disk under the data directory.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

/// The room on the disk, and what snapshots need of it.
#[derive(Debug)]
pub struct Disk {
    /// What is free, in bytes, as last seen; the largest number before that.
    pub free: AtomicU64,
    /// How large the file system is, in bytes; 0 if that is not known.
    pub total: AtomicU64,
    /// When that was, Unix ms.
    pub looked_ms: AtomicI64,
    /// Whether less is free than `disk-free-warning` says, and that was told.
    pub is_low: AtomicBool,
    /// Whether the last snapshot failed for want of room.
    pub snapshot_lacked_room: AtomicBool,
    /// Bytes of the last snapshot of this process, and the memory of what it held; 0 before it.
    pub snapshot_bytes: AtomicU64,
    /// See `snapshot_bytes`.
    pub snapshot_of_bytes: AtomicU64,
    /// The memory that the keys are to occupy. Unit tests run without the allocator that counts it.
    #[cfg(test)]
    pub memory_of_keys: AtomicU64,
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            free: AtomicU64::new(u64::MAX),
            total: AtomicU64::new(0),
            looked_ms: AtomicI64::new(0),
            is_low: AtomicBool::new(false),
            snapshot_lacked_room: AtomicBool::new(false),
            snapshot_bytes: AtomicU64::new(0),
            snapshot_of_bytes: AtomicU64::new(0),
            #[cfg(test)]
            memory_of_keys: AtomicU64::new(0),
        }
    }
}

//! The figures of memory, taken once for INFO and for MEMORY.

use std::sync::atomic::Ordering::Relaxed;

use super::process;
use crate::base::alloc;
use crate::core::Server;
use crate::keyspace::SHARDS;

/// Bytes, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFigures {
    /// Allocated now.
    pub used: u64,
    /// The highest amount ever allocated.
    pub peak: u64,
    /// The resident bytes, as counted by the operating system.
    pub resident: u64,
    /// Allocated when the server started, without keys.
    pub startup: u64,
    /// Received and not executed, or replied and not sent.
    pub clients: u64,
    /// Appended to the log and not written.
    pub log_buffer: u64,
}

impl MemoryFigures {
    /// Takes the current figures.
    pub fn take(server: &Server) -> Self {
        let used = alloc::sample_peak() as u64;
        MemoryFigures {
            used,
            peak: (alloc::peak_memory() as u64).max(used),
            resident: process::resident_bytes(),
            startup: server.startup_memory.load(Relaxed).min(used),
            clients: server.clients.list().iter().map(|client| client.memory()).sum(),
            log_buffer: server.store.sizes().pending_bytes as u64,
        }
    }

    /// Allocated since the start.
    pub fn dataset(&self) -> u64 {
        self.used - self.startup
    }

    /// Resident bytes per allocated byte.
    pub fn fragmentation(&self) -> f64 {
        self.resident as f64 / self.used.max(1) as f64
    }

    /// Resident bytes beyond the allocated ones; negative if some were never touched.
    pub fn fragmentation_bytes(&self) -> i64 {
        self.resident as i64 - self.used as i64
    }
}

/// The overhead of one database, beyond its keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseFigures {
    /// Its number.
    pub index: u32,
    /// Its keys.
    pub keys: u64,
    /// Bytes of its directories that do not hold records of keys.
    pub overhead: u64,
}

/// The databases that hold keys, ascending. Counts one shard after the other, so the numbers of a busy server are
/// near, not exact; what a command holds just now is left out.
pub fn databases(server: &Server) -> Vec<DatabaseFigures> {
    let mut all = vec![DatabaseFigures::default(); server.keyspace.databases() as usize];
    for shard in 0..SHARDS as u16 {
        let Some(locked) = server.keyspace.try_lock(shard) else { continue };
        for (db, directory) in locked.databases() {
            let figures = &mut all[db as usize];
            figures.index = db;
            figures.keys += directory.len() as u64;
            figures.overhead += directory.memory().saturating_sub(directory.live_bytes()) as u64;
        }
    }
    all.retain(|figures| figures.keys > 0);
    all
}

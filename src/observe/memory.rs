//! The figures of memory, taken once for INFO and for MEMORY.

use std::sync::atomic::Ordering::Relaxed;

use super::process;
use crate::base::{alloc, format, slab};
use crate::core::Server;
use crate::core::figures::{Figures, Look};
use crate::keyspace::SHARDS;
use crate::script;
use crate::value::hash::template;

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

    /// Allocated for anything other than keys.
    pub fn overhead(&self) -> u64 {
        (self.startup + self.clients + self.log_buffer).min(self.used)
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

/// Adds the engine of scripts, as Valkey tells of its engines.
pub(super) fn of_engines(look: &Look<'_>, out: &mut Figures) {
    let used = script::machine_bytes() as u64 + look.server.functions.memory_bytes() as u64;
    out.gauge("engines_count", 1);
    out.bytes("engines_total_used_memory", used);
    // The engine is counted whole.
    out.bytes("engines_total_memory_overhead", 0u64);
    out.text("engine_0", format!("name=LUA,module=built-in,abi_version=0,used_memory={used},memory_overhead=0"));
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
    /// Of these, bytes of the tables that lead to segments.
    pub tables: u64,
    /// Of these, bytes of the index of keys that are protected from eviction.
    pub blessed: u64,
}

/// The databases that hold keys, ascending. The overhead omits shards that a command currently holds, because a
/// report never waits.
pub fn databases(server: &Server) -> Vec<DatabaseFigures> {
    let filled = server.keyspace.counts().filled();
    let mut all: Vec<DatabaseFigures> = filled
        .map(|(index, census)| DatabaseFigures { index, keys: census.keys as u64, overhead: 0, tables: 0, blessed: 0 })
        .collect();
    for shard in 0..SHARDS as u16 {
        let Some(locked) = server.keyspace.try_lock(shard) else { continue };
        for (db, directory) in locked.databases() {
            if let Ok(at) = all.binary_search_by_key(&db, |figures| figures.index) {
                all[at].overhead += directory.memory().saturating_sub(directory.live_bytes()) as u64;
                all[at].tables += directory.table_bytes() as u64;
                all[at].blessed += directory.blessed_bytes() as u64;
            }
        }
    }
    all
}

/// Adds the figures of memory.
pub(super) fn figures(look: &Look<'_>, out: &mut Figures) {
    let figures = MemoryFigures::take(look.server);
    let MemoryFigures { used, peak, resident, startup, .. } = figures;
    let dataset = used - figures.overhead();
    out.bytes_and_human("used_memory", used);
    out.bytes_and_human("used_memory_rss", resident);
    out.bytes_and_human("used_memory_peak", peak);
    out.gauge("used_memory_peak_time", alloc::peak_time());
    out.percent("used_memory_peak_perc", used, peak);
    out.bytes("used_memory_overhead", figures.overhead());
    out.bytes("used_memory_startup", startup);
    out.bytes("used_memory_dataset", dataset);
    out.percent("used_memory_dataset_perc", dataset, used - startup);
    out.bytes("allocator_allocated", used);
    out.bytes("allocator_active", resident);
    out.bytes("allocator_resident", resident);
    out.constants(&["allocator_muzzy"]);
    out.bytes_and_human("total_system_memory", process::machine_memory());
    let machines = script::machine_bytes() as u64;
    out.bytes("used_memory_lua", machines);
    out.bytes("used_memory_vm_eval", machines);
    out.text("used_memory_lua_human", format::human_bytes(machines));
    let (scripts, of_scripts) = look.server.scripts.size();
    out.bytes("used_memory_scripts_eval", of_scripts as u64);
    out.gauge("number_of_cached_scripts", scripts);
    let (libraries, of_machine) = (look.server.keyspace.libraries(), look.server.functions.memory_bytes() as u64);
    out.gauge("number_of_functions", libraries.functions_count());
    out.gauge("number_of_libraries", libraries.len());
    out.bytes("used_memory_vm_functions", of_machine);
    out.bytes_and_human("used_memory_vm_total", machines + of_machine);
    out.bytes("used_memory_functions", libraries.code_bytes() as u64);
    out.bytes("used_memory_hash_templates", template::totals().1 as u64);
    out.bytes_and_human("used_memory_scripts", (of_scripts + libraries.code_bytes()) as u64);
    out.bytes_and_human("maxmemory", look.settings.maxmemory);
    out.text("maxmemory_policy", look.settings.maxmemory_policy.name());
    out.ratio("allocator_frag_ratio", figures.fragmentation());
    out.gauge("allocator_frag_bytes", figures.fragmentation_bytes());
    out.constants(&["allocator_rss_ratio", "allocator_rss_bytes", "rss_overhead_ratio", "rss_overhead_bytes"]);
    out.ratio("mem_fragmentation_ratio", figures.fragmentation());
    out.gauge("mem_fragmentation_bytes", figures.fragmentation_bytes());
    out.bytes("mem_not_counted_for_evict", look.server.store.journal().pending_bytes() as u64);
    out.constants(&["mem_replication_backlog", "mem_total_replication_buffers"]);
    out.constants(&["mem_replica_full_sync_buffer", "mem_clients_slaves"]);
    out.bytes("mem_clients_normal", figures.clients);
    out.constants(&["mem_cluster_links"]);
    out.bytes("mem_aof_buffer", figures.log_buffer);
    out.constants(&["mem_allocator", "mem_overhead_db_hashtable_rehashing"]);
    out.flag("active_defrag_running", slab::sparse_slabs().0 > 0);
    let released = &look.server.garbage.released;
    out.gauge("lazyfree_pending_objects", released.pending_values.load(Relaxed));
    out.counter("lazyfreed_objects", released.freed_values.load(Relaxed));
    let yard = look.server.keyspace.graveyard();
    let (keys, bytes) = yard.sizes();
    out.gauge("flush_undo_flushes", yard.graves().len());
    out.gauge("flush_undo_keys", keys);
    out.bytes("flush_undo_bytes", bytes.min(dataset));
    out.gauge("flush_undo_until", yard.graves().last().map_or(0, |grave| grave.until_ms / 1000));
}

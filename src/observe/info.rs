//! INFO: its sections, their fields in Redis' order and form, and which of them a client asked for.
//!
//! A field without meaning here is printed as Redis prints it when it has no meaning there, because clients and
//! monitors look fields up by name.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::memory::MemoryFigures;
use super::process;
use crate::base::{clock, format::human_bytes, random, slab};
use crate::core::Server;
use crate::core::server::SavePurpose;
use crate::core::stats::{CommandCounters, Latencies, WorkerCounters};
use crate::core::table::CommandEntry;
use crate::keyspace::{Census, Keyspace, SHARDS};

/// The version of Redis that is emulated, for clients that check it.
pub const REDIS_VERSION: &str = "7.2.4";

/// One section.
struct Section {
    /// Its name in requests, and, with a capital letter, its heading.
    name: &'static str,
    heading: &'static str,
    shown: Shown,
    write: fn(&mut Lines<'_>),
}

/// When a section is shown without being requested by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Always.
    Default,
    /// In `all` and `everything`.
    All,
    /// By default and in `everything`, not in `all`.
    NotInAll,
}

const fn section(name: &'static str, heading: &'static str, shown: Shown, write: fn(&mut Lines<'_>)) -> Section {
    Section { name, heading, shown, write }
}

static SECTIONS: &[Section] = &[
    section("server", "Server", Shown::Default, server_section),
    section("clients", "Clients", Shown::Default, clients_section),
    section("memory", "Memory", Shown::Default, memory_section),
    section("persistence", "Persistence", Shown::Default, persistence_section),
    section("stats", "Stats", Shown::Default, stats_section),
    section("replication", "Replication", Shown::Default, replication_section),
    section("cpu", "CPU", Shown::Default, cpu_section),
    section("modules", "Modules", Shown::NotInAll, |_| {}),
    section("commandstats", "Commandstats", Shown::All, commandstats_section),
    section("errorstats", "Errorstats", Shown::Default, errorstats_section),
    section("latencystats", "Latencystats", Shown::All, latencystats_section),
    section("cluster", "Cluster", Shown::Default, |out| out.field("cluster_enabled", 0)),
    section("keyspace", "Keyspace", Shown::Default, keyspace_section),
];

impl Section {
    fn is_wanted(&self, words: &[&[u8]]) -> bool {
        let asked = |word: &&[u8]| match () {
            () if word.eq_ignore_ascii_case(b"default") => self.shown != Shown::All,
            () if word.eq_ignore_ascii_case(b"all") => self.shown != Shown::NotInAll,
            () => word.eq_ignore_ascii_case(b"everything") || word.eq_ignore_ascii_case(self.name.as_bytes()),
        };
        if words.is_empty() { self.shown != Shown::All } else { words.iter().any(asked) }
    }
}

/// The text of INFO with these arguments, at a time in Unix ms.
pub fn report(server: &Server, words: &[&[u8]], now: i64) -> String {
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| section.is_wanted(words)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str("# ");
        text.push_str(section.heading);
        text.push_str("\r\n");
        (section.write)(&mut Lines { text: &mut text, server, now });
    }
    text
}

/// The output of a section, and its sources.
struct Lines<'a> {
    text: &'a mut String,
    server: &'a Server,
    now: i64,
}

impl Lines<'_> {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.text, "{name}:{value}\r\n").expect("a String takes every write");
    }

    fn fields(&mut self, fields: &[(&str, &dyn std::fmt::Display)]) {
        fields.iter().for_each(|(name, value)| self.field(name, value));
    }

    /// A number of bytes, and its readable form.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(&format!("{name}_human"), human_bytes(bytes));
    }

    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.field(name, 0));
    }

    /// A sum over all workers.
    fn sum(&self, counter: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.server.workers.iter().map(|worker| counter(&worker.counters)).sum()
    }
}

fn server_section(out: &mut Lines<'_>) {
    let (server, settings) = (out.server, out.server.config.settings());
    let uptime = (out.now - server.started_ms).max(0) / 1000;
    out.fields(&[
        ("redis_version", &REDIS_VERSION),
        ("redis_git_sha1", &"00000000"),
        ("redis_git_dirty", &0),
        ("redis_build_id", &"0000000000000000"),
        ("redis_mode", &"standalone"),
        ("os", &process::system_name()),
        ("arch_bits", &usize::BITS),
        ("monotonic_clock", &"POSIX clock_gettime"),
        ("multiplexing_api", &"epoll"),
        ("atomicvar_api", &"c11-builtin"),
        ("gcc_version", &"0.0.0"),
        ("process_id", &std::process::id()),
        ("process_supervised", &settings.supervised),
        ("run_id", &server.run_id),
        ("tcp_port", &settings.port),
        ("server_time_usec", &clock::now_us()),
        ("uptime_in_seconds", &uptime),
        ("uptime_in_days", &(uptime / 86400)),
        ("hz", &10),
        ("configured_hz", &10),
        ("lru_clock", &((out.now / 1000) & 0xff_ffff)),
        ("executable", &server.executable),
        ("config_file", &server.config_file),
        ("io_threads_active", &i32::from(server.workers.len() > 1)),
    ]);
    let mut listeners = 0;
    if settings.port != 0 {
        let addresses: String = settings.bind.iter().map(|address| format!("bind={address},")).collect();
        out.field("listener0", format!("name=tcp,{addresses}port={}", settings.port));
        listeners += 1;
    }
    if !settings.unixsocket.as_os_str().is_empty() {
        out.field(&format!("listener{listeners}"), format!("name=unix,bind={}", settings.unixsocket.display()));
    }
    out.field("ironkeep_version", env!("CARGO_PKG_VERSION"));
}

fn clients_section(out: &mut Lines<'_>) {
    let clients = out.server.clients.list();
    let most = |of: fn(&crate::core::client::ClientRecord) -> u64| clients.iter().map(|c| of(c)).max().unwrap_or(0);
    out.fields(&[
        ("connected_clients", &clients.len()),
        ("cluster_connections", &0),
        ("maxclients", &out.server.config.settings().maxclients),
        ("client_recent_max_input_buffer", &most(|c| c.query_bytes.load(Relaxed))),
        ("client_recent_max_output_buffer", &most(|c| c.output_bytes.load(Relaxed))),
        ("blocked_clients", &clients.iter().filter(|c| c.blocked.load(Relaxed)).count()),
    ]);
    out.zeros(&["tracking_clients", "clients_in_timeout_table"]);
    let (keys, also_gone) = out.server.blocking.count_keys();
    out.fields(&[("total_blocking_keys", &keys), ("total_blocking_keys_on_nokey", &also_gone)]);
}

fn memory_section(out: &mut Lines<'_>) {
    let settings = out.server.config.settings();
    let figures = MemoryFigures::take(out.server);
    let MemoryFigures { used, peak, resident, startup, .. } = figures;
    let percent = |part: u64, whole: u64| format!("{:.2}%", 100.0 * part as f64 / whole.max(1) as f64);
    out.bytes("used_memory", used);
    out.bytes("used_memory_rss", resident);
    out.bytes("used_memory_peak", peak);
    out.fields(&[
        ("used_memory_peak_perc", &percent(used, peak)),
        ("used_memory_overhead", &startup),
        ("used_memory_startup", &startup),
        ("used_memory_dataset", &figures.dataset()),
        ("used_memory_dataset_perc", &percent(figures.dataset(), used - startup)),
        ("allocator_allocated", &used),
        ("allocator_active", &resident),
        ("allocator_resident", &resident),
    ]);
    out.bytes("total_system_memory", process::machine_memory());
    out.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    out.field("used_memory_lua_human", human_bytes(0));
    out.zeros(&["used_memory_scripts_eval", "number_of_cached_scripts", "number_of_functions", "number_of_libraries"]);
    out.zeros(&["used_memory_vm_functions", "used_memory_vm_total"]);
    out.field("used_memory_vm_total_human", human_bytes(0));
    out.zeros(&["used_memory_functions", "used_memory_scripts"]);
    out.field("used_memory_scripts_human", human_bytes(0));
    out.bytes("maxmemory", settings.maxmemory);
    out.field("maxmemory_policy", settings.maxmemory_policy.name());
    let (ratio, excess) = (figures.fragmentation(), figures.fragmentation_bytes());
    out.fields(&[
        ("allocator_frag_ratio", &format!("{ratio:.2}")),
        ("allocator_frag_bytes", &excess),
        ("allocator_rss_ratio", &"1.00"),
        ("allocator_rss_bytes", &0),
        ("rss_overhead_ratio", &"1.00"),
        ("rss_overhead_bytes", &0),
        ("mem_fragmentation_ratio", &format!("{ratio:.2}")),
        ("mem_fragmentation_bytes", &excess),
    ]);
    out.zeros(&["mem_not_counted_for_evict", "mem_replication_backlog", "mem_total_replication_buffers"]);
    out.fields(&[
        ("mem_clients_slaves", &0),
        ("mem_clients_normal", &figures.clients),
        ("mem_cluster_links", &0),
        ("mem_aof_buffer", &figures.log_buffer),
        ("mem_allocator", &"ironkeep"),
        ("active_defrag_running", &u8::from(slab::sparse_slabs().0 > 0)),
        ("lazyfree_pending_objects", &out.server.garbage.released.pending_values.load(Relaxed)),
        ("lazyfreed_objects", &out.server.garbage.released.freed_values.load(Relaxed)),
    ]);
}

fn persistence_section(out: &mut Lines<'_>) {
    let (server, log) = (out.server, out.server.store.log());
    let saving = &server.saving;
    let (running, scheduled) = {
        let state = saving.state.lock();
        (state.running, state.scheduled)
    };
    let since = |purpose| match running {
        Some((of, since)) if of == purpose => (1, (out.now - since).max(0) / 1000),
        _ => (0, -1),
    };
    let (saves, save_seconds) = since(SavePurpose::Save);
    let (rewrites, rewrite_seconds) = since(SavePurpose::Rewrite);
    let status = |ok: bool| if ok { "ok" } else { "err" };
    out.zeros(&["loading", "async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    out.field("current_fork_perc", "0.00");
    out.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    out.fields(&[
        ("rdb_changes_since_last_save", &server.changes_since_save()),
        ("rdb_bgsave_in_progress", &saves),
        ("rdb_last_save_time", &saving.last_save.load(Relaxed)),
        ("rdb_last_bgsave_status", &status(saving.last_save_ok.load(Relaxed))),
        ("rdb_last_bgsave_time_sec", &saving.last_save_seconds.load(Relaxed)),
        ("rdb_current_bgsave_time_sec", &save_seconds),
    ]);
    out.field("rdb_saves", saving.saves.load(Relaxed));
    out.zeros(&["rdb_last_cow_size", "rdb_last_load_keys_expired", "rdb_last_load_keys_loaded"]);
    out.fields(&[
        ("aof_enabled", &i32::from(log.is_active())),
        ("aof_rewrite_in_progress", &rewrites),
        ("aof_rewrite_scheduled", &i32::from(scheduled == Some(SavePurpose::Rewrite))),
        ("aof_last_rewrite_time_sec", &saving.last_rewrite_seconds.load(Relaxed)),
        ("aof_current_rewrite_time_sec", &rewrite_seconds),
        ("aof_last_bgrewrite_status", &status(saving.last_rewrite_ok.load(Relaxed))),
        ("aof_rewrites", &saving.rewrites.load(Relaxed)),
        ("aof_rewrites_consecutive_failures", &saving.rewrite_failures.load(Relaxed)),
        ("aof_last_write_status", &status(!log.is_poisoned())),
    ]);
    out.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if log.is_active() {
        let sizes = server.store.sizes();
        out.fields(&[
            ("aof_current_size", &(sizes.base_bytes + sizes.log_bytes)),
            ("aof_base_size", &sizes.base_bytes),
            ("aof_pending_rewrite", &0),
            ("aof_buffer_length", &sizes.pending_bytes),
            ("aof_pending_bio_fsync", &i32::from(log.written() > log.synced())),
            ("aof_delayed_fsync", &0),
        ]);
    }
}

fn stats_section(out: &mut Lines<'_>) {
    let (counters, rates) = (&out.server.counters, &out.server.rates);
    let per_second = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    out.fields(&[
        ("total_connections_received", &counters.connections.get()),
        ("total_commands_processed", &out.sum(|c| c.commands.get())),
        ("instantaneous_ops_per_sec", &rates.commands.load(Relaxed)),
        ("total_net_input_bytes", &out.sum(|c| c.net_input_bytes.get())),
        ("total_net_output_bytes", &out.sum(|c| c.net_output_bytes.get())),
        ("total_net_repl_input_bytes", &0),
        ("total_net_repl_output_bytes", &0),
        ("instantaneous_input_kbps", &per_second(rates.input_bytes.load(Relaxed))),
        ("instantaneous_output_kbps", &per_second(rates.output_bytes.load(Relaxed))),
        ("instantaneous_input_repl_kbps", &"0.00"),
        ("instantaneous_output_repl_kbps", &"0.00"),
        ("rejected_connections", &counters.rejected_connections.get()),
    ]);
    out.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    out.fields(&[
        ("expired_keys", &out.sum(|c| c.expired.get())),
        ("expired_subkeys", &out.sum(|c| c.expired_fields.get())),
        ("expired_stale_perc", &"0.00"),
        ("expired_time_cap_reached_count", &0),
        ("expire_cycle_cpu_milliseconds", &(out.sum(|c| c.expire_cycle_us.get()) / 1000)),
    ]);
    out.field("evicted_keys", out.sum(|c| c.evicted.get()));
    out.field("evicted_clients", counters.evicted_clients.get());
    out.zeros(&["total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    out.field("keyspace_hits", out.sum(|c| c.hits.get()));
    out.field("keyspace_misses", out.sum(|c| c.misses.get()));
    out.zeros(&["pubsub_channels", "pubsub_patterns", "pubsubshard_channels", "latest_fork_usec", "total_forks"]);
    out.zeros(&["migrate_cached_sockets", "slave_expires_tracked_keys", "active_defrag_hits"]);
    out.zeros(&["active_defrag_misses", "active_defrag_key_hits", "active_defrag_key_misses"]);
    out.field("total_active_defrag_time", out.sum(|c| c.relocation_us.get()) / 1000);
    out.zeros(&["current_active_defrag_time", "tracking_total_keys"]);
    out.zeros(&["tracking_total_items", "tracking_total_prefixes", "unexpected_error_replies"]);
    out.field("total_error_replies", out.server.counters.error_replies.get());
    out.field("dump_payload_sanitizations", 0);
    out.field("total_reads_processed", out.sum(|c| c.reads.get()));
    out.field("total_writes_processed", out.sum(|c| c.writes.get()));
    out.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    out.zeros(&["reply_buffer_shrinks", "reply_buffer_expands", "eventloop_cycles", "eventloop_duration_sum"]);
    out.zeros(&["eventloop_duration_cmd_sum", "instantaneous_eventloop_cycles_per_sec"]);
    out.field("instantaneous_eventloop_duration_usec", 0);
    out.field("acl_access_denied_auth", counters.access_denied_auth.get());
    out.zeros(&["acl_access_denied_cmd", "acl_access_denied_key", "acl_access_denied_channel"]);
    out.fields(&[
        ("client_query_buffer_limit_disconnections", &counters.query_buffer_limit_disconnections.get()),
        ("client_output_buffer_limit_disconnections", &counters.output_buffer_limit_disconnections.get()),
    ]);
}

fn replication_section(out: &mut Lines<'_>) {
    out.fields(&[
        ("role", &"master"),
        ("connected_slaves", &0),
        ("master_failover_state", &"no-failover"),
        ("master_replid", &out.server.run_id),
        ("master_replid2", &"0".repeat(40)),
        ("master_repl_offset", &0),
        ("second_repl_offset", &-1),
        ("repl_backlog_active", &0),
        ("repl_backlog_size", &1_048_576),
        ("repl_backlog_first_byte_offset", &0),
        ("repl_backlog_histlen", &0),
    ]);
}

fn cpu_section(out: &mut Lines<'_>) {
    let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let (whole, main) = process::cpu_times();
    out.fields(&[
        ("used_cpu_sys", &seconds(whole.system_us)),
        ("used_cpu_user", &seconds(whole.user_us)),
        ("used_cpu_sys_children", &seconds(0)),
        ("used_cpu_user_children", &seconds(0)),
        ("used_cpu_sys_main_thread", &seconds(main.system_us)),
        ("used_cpu_user_main_thread", &seconds(main.user_us)),
    ]);
}

fn commandstats_section(out: &mut Lines<'_>) {
    let server = out.server;
    for entry in server.table.entries() {
        command_line(out, entry);
        entry.subcommands().iter().for_each(|sub| command_line(out, sub));
    }
}

/// One command's line, if it was ever called.
fn command_line(out: &mut Lines<'_>, entry: &CommandEntry) {
    let workers = &out.server.workers;
    let sum = |of: fn(&CommandCounters) -> u64| -> u64 { workers.iter().map(|w| of(&w.commands[entry.index])).sum() };
    let (calls, us) = (sum(|c| c.calls.get()), sum(|c| c.nanoseconds.get()) as f64 / 1e3);
    let (rejected, failed) = (sum(|c| c.rejected.get()), sum(|c| c.failed.get()));
    if calls + rejected + failed > 0 {
        let each = if calls == 0 { 0.0 } else { us / calls as f64 };
        let line = format!(
            "calls={calls},usec={us:.0},usec_per_call={each:.2},rejected_calls={rejected},failed_calls={failed}"
        );
        out.field(&format!("cmdstat_{}", entry.full_name), line);
    }
}

fn latencystats_section(out: &mut Lines<'_>) {
    let server = out.server;
    let percentages = &server.config.settings().latency_tracking_info_percentiles;
    let entries = server.table.entries().iter().flat_map(|entry| [entry].into_iter().chain(entry.subcommands()));
    for entry in entries {
        let all = server.workers.iter().map(|worker| &worker.latencies[entry.index]);
        let Some(bounds) = Latencies::percentiles(all, percentages) else { continue };
        let each = percentages.iter().zip(bounds);
        let text: Vec<String> = each.map(|(p, bound)| format!("p{p}={:.3}", bound as f64 / 1e3)).collect();
        out.field(&format!("latency_percentiles_usec_{}", entry.full_name), text.join(","));
    }
}

fn errorstats_section(out: &mut Lines<'_>) {
    let server = out.server;
    for (code, count) in &*server.errors.lock() {
        out.field(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

/// How many sampled times to live represent a database.
const TTL_SAMPLES: usize = 128;

/// What each database holds.
fn keyspace_section(out: &mut Lines<'_>) {
    let keyspace = &out.server.keyspace;
    let filled: Vec<(u32, Census)> = keyspace.counts().filled().collect();
    let averages = average_ttls(keyspace, &filled, out.now);
    for ((db, census), average) in filled.into_iter().zip(averages) {
        let mut line = format!("keys={},expires={},avg_ttl={average}", census.keys, census.volatile);
        // Redis 8 shows how many hashes have expiring fields; clients of 7.2 do not expect it.
        if census.elementwise > 0 {
            line.push_str(&format!(",subexpiry={}", census.elementwise));
        }
        out.field(&format!("db{db}"), line);
    }
}

/// The mean time to live of a few keys of each database, drawn at random, in ms. A shard that somebody holds is passed
/// over: a report waits for nobody.
fn average_ttls(keyspace: &Keyspace, filled: &[(u32, Census)], now: i64) -> Vec<u64> {
    let mut sampled = vec![Vec::new(); filled.len()];
    let is_wanted = |(_, census): &(u32, Census), sampled: &Vec<u64>| sampled.len() < census.volatile.min(TTL_SAMPLES);
    let first = random::with(|random| random.index(SHARDS));
    for shard in (0..SHARDS).map(|at| ((first + at) % SHARDS) as u16) {
        if !filled.iter().zip(&sampled).any(|(of, sampled)| is_wanted(of, sampled)) {
            break;
        }
        let Some(shard) = keyspace.try_lock(shard) else { continue };
        for (of, sampled) in filled.iter().zip(&mut sampled).filter(|(of, sampled)| is_wanted(of, sampled)) {
            let random = random::with(|random| random.next_u64());
            let entry = shard.directory(of.0).and_then(|directory| directory.random_volatile(random));
            let expiry = entry.and_then(|entry| entry.expiry());
            sampled.extend(expiry.map(|expiry| expiry.saturating_sub(now as u64)));
        }
    }
    sampled.iter().map(|sampled| sampled.iter().sum::<u64>() / sampled.len().max(1) as u64).collect()
}

//! MEMORY: the memory of the server, in total and by parts.

use crate::base::slab::PoolFigures;
use crate::base::{alloc, slab};
use crate::command::keys::memory_usage::{SUBCOMMAND, USAGE};
use crate::core::server::Reclaim;
use crate::core::{Arity, Command, Handler, Outcome, SessionCall, flags, help};
use crate::observe::memory::{MemoryFigures, databases};
use crate::resp::{Elements, Reply};
use crate::value::hash::template;

/// See the module.
pub static COMMANDS: &[&Command] = &[&MEMORY];

static MEMORY: Command = Command {
    name: "MEMORY",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&DOCTOR, &HELP, &MALLOC_STATS, &PURGE, &STATS, &USAGE]),
    complexity: "Depends on subcommand.",
    summary: "A container for commands about memory.",
    ..SUBCOMMAND
};

const PER_SHARD: &str = "nondeterministic_output request_policy:all_shards response_policy:special";

static DOCTOR: Command = Command {
    name: "DOCTOR",
    handler: Handler::Session(doctor),
    complexity: "O(1)",
    tips: PER_SHARD,
    summary: "Says whether anything is wrong with the memory.",
    ..SUBCOMMAND
};

fn doctor(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.verbatim("txt", diagnosis(&MemoryFigures::take(call.server), call.server.clients.len() as u64).as_bytes()))
}

/// With less memory than this, in bytes, a diagnosis makes no sense.
const TELLING_MIN_BYTES: u64 = 5 << 20;
/// With more pending bytes than this per client on average, clients do not read.
const CLIENT_MAX_BYTES: u64 = 200 << 10;
/// A ratio of peak or resident memory to allocated memory above this is high.
const MUCH: f64 = 1.4;

/// Diagnoses these figures for this many clients.
fn diagnosis(figures: &MemoryFigures, clients: u64) -> String {
    if figures.used < TELLING_MIN_BYTES {
        return "There is nothing to report: hardly any memory is in use.".into();
    }
    let mut found = Vec::new();
    if figures.peak as f64 > MUCH * figures.used as f64 {
        found.push(format!(
            "Peak: {} bytes were in use once, {} are now. What was freed goes back to the system little by little, \
             and until then the fragmentation ratio looks high for it: that is no leak. See MEMORY PURGE.",
            figures.peak, figures.used
        ));
    } else if figures.fragmentation() > MUCH {
        found.push(format!(
            "Fragmentation: {} bytes are resident for {} in use. Freed pieces lie between those in use.",
            figures.resident, figures.used
        ));
    }
    if figures.clients / clients.max(1) > CLIENT_MAX_BYTES {
        found.push(format!(
            "Clients: {} bytes wait in the buffers of {clients} clients. Some do not read their replies; see CLIENT \
             LIST, and client-output-buffer-limit.",
            figures.clients
        ));
    }
    match found.is_empty() {
        true => "There is nothing to report: values are freed when they go, and snapshots take no fork.".into(),
        false => found.join("\n"),
    }
}

static STATS: Command = Command {
    name: "STATS",
    handler: Handler::Session(stats),
    tips: PER_SHARD,
    summary: "Gives the memory in use and what for.",
    ..SUBCOMMAND
};

/// A field of STATS.
enum Figure {
    Bytes(u64),
    Signed(i64),
    Ratio(f64),
}

fn write(fields: &mut Elements<'_>, figures: &[(&str, Figure)]) {
    for (name, figure) in figures {
        fields.bulk(name.as_bytes());
        match figure {
            Figure::Bytes(number) => fields.int(*number as i64),
            Figure::Signed(number) => fields.int(*number),
            Figure::Ratio(number) => fields.number(*number),
        }
    }
}

/// The fields of Redis 8, in its order, and what Valkey 9 has beside them.
fn stats(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    use Figure::{Bytes, Ratio, Signed};
    let figures = MemoryFigures::take(call.server);
    let databases = databases(call.server);
    let keys: u64 = databases.iter().map(|db| db.keys).sum();
    let of_databases: u64 = databases.iter().map(|db| db.overhead).sum();
    let tables: u64 = databases.iter().map(|db| db.tables).sum();
    let (_, of_scripts) = call.server.scripts.size();
    let overhead = figures.startup + figures.clients + figures.log_buffer + of_databases;
    let dataset = figures.used.saturating_sub(overhead);
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    let first = [
        ("peak.allocated", Bytes(figures.peak)),
        ("total.allocated", Bytes(figures.used)),
        ("startup.allocated", Bytes(figures.startup)),
        // There are no replicas, and no other node of a cluster.
        ("replication.backlog", Bytes(0)),
        ("replica.fullsync.buffer", Bytes(0)),
        ("replicas.repl.buffer", Bytes(0)),
        ("clients.slaves", Bytes(0)),
        ("clients.normal", Bytes(figures.clients)),
        ("cluster.links", Bytes(0)),
        ("cluster.slot_import", Bytes(0)),
        ("cluster.slot_export", Bytes(0)),
        ("aof.buffer", Bytes(figures.log_buffer)),
        ("lua.caches", Bytes(of_scripts as u64)),
        ("functions.caches", Bytes(call.server.keyspace.libraries().code_bytes() as u64)),
        // What the machines of scripts take is part of the total alone.
        ("script.VMs", Bytes(0)),
        ("hash.templates", Bytes(template::totals().1 as u64)),
    ];
    // Directories grow segment by segment: nothing is ever rehashed.
    let last = [
        ("overhead.db.hashtable.lut", Bytes(tables)),
        ("overhead.db.hashtable.rehashing", Bytes(0)),
        ("overhead.total", Bytes(overhead)),
        ("db.dict.rehashing.count", Bytes(0)),
        ("keys.count", Bytes(keys)),
        ("keys.bytes-per-key", Bytes(figures.dataset() / keys.max(1))),
        ("dataset.bytes", Bytes(dataset)),
        ("dataset.percentage", Ratio(percent(dataset, figures.dataset()))),
        ("peak.percentage", Ratio(percent(figures.used, figures.peak))),
        ("allocator.allocated", Bytes(figures.used)),
        ("allocator.active", Bytes(figures.resident)),
        ("allocator.resident", Bytes(figures.resident)),
        ("allocator.muzzy", Bytes(0)),
        ("allocator-fragmentation.ratio", Ratio(figures.fragmentation())),
        ("allocator-fragmentation.bytes", Signed(figures.fragmentation_bytes())),
        ("allocator-rss.ratio", Ratio(1.0)),
        ("allocator-rss.bytes", Bytes(0)),
        ("rss-overhead.ratio", Ratio(1.0)),
        ("rss-overhead.bytes", Bytes(0)),
        ("fragmentation", Ratio(figures.fragmentation())),
        ("fragmentation.bytes", Signed(figures.fragmentation_bytes())),
    ];
    let mut fields = reply.map(first.len() + databases.len() + last.len());
    write(&mut fields, &first);
    for db in &databases {
        fields.bulk(format!("db.{}", db.index).as_bytes());
        let mut parts = fields.map(3);
        // Expiries are stored in the records of their keys.
        let of_db = [
            ("overhead.hashtable.main", Bytes(db.overhead)),
            ("overhead.hashtable.expires", Bytes(0)),
            ("overhead.hashtable.blessed", Bytes(db.blessed)),
        ];
        write(&mut parts, &of_db);
        parts.end();
    }
    write(&mut fields, &last);
    Ok(fields.done())
}

static MALLOC_STATS: Command = Command {
    name: "MALLOC-STATS",
    handler: Handler::Session(|_, reply| Ok(reply.verbatim("txt", allocator_report().as_bytes()))),
    complexity: "Depends on how much memory is allocated, could be slow",
    tips: PER_SHARD,
    summary: "Gives what the allocator says of its slabs.",
    ..SUBCOMMAND
};

/// What the allocator says of itself.
fn allocator_report() -> String {
    let mut text = format!(
        "Ironkeep's slabs. Blocks of more than {} bytes come from the C library.\n\nallocated: {} bytes\n",
        slab::BLOCK_MAX,
        alloc::used_memory()
    );
    for pool in slab::figures() {
        let PoolFigures { slab_bytes, slabs, dirty, clean } = pool;
        let (used, mapped) = (pool.used_bytes(), pool.mapped_bytes());
        text += &format!(
            "slabs of {slab_bytes} bytes: {slabs} made, {} in use ({used} bytes), {dirty} empty with memory, {clean} \
             empty without; {mapped} bytes mapped\n",
            slabs - dirty - clean
        );
    }
    let (sparse, ever) = slab::sparse_slabs();
    text + &format!("sparse slabs: {sparse} now, {ever} since the start\n")
}

fn purge(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    // If its thread has ended, nothing can be given back.
    let _ = call.server.garbage.to_reclaim.send(Reclaim::Purge);
    Ok(reply.ok())
}

static PURGE: Command = Command {
    name: "PURGE",
    handler: Handler::Session(purge),
    complexity: "Depends on how much memory is allocated, could be slow",
    tips: "request_policy:all_shards response_policy:all_succeeded",
    summary: "Has the allocator give back to the system what nobody uses; in time it does so by itself.",
    ..SUBCOMMAND
};

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(|_, reply| help(reply, "MEMORY", HELP_LINES)),
    summary: "Describes the subcommands.",
    ..SUBCOMMAND
};

const HELP_LINES: &[&str] = &[
    "DOCTOR",
    "    Return memory problems reports.",
    "MALLOC-STATS",
    "    Return internal statistics report from the memory allocator.",
    "PURGE",
    "    Attempt to purge dirty pages for reclamation by the allocator.",
    "STATS",
    "    Return information about the memory usage of the server.",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Nested values are",
    "    sampled up to <count> times (default: 5, 0 means sample all).",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Runner;

    #[test]
    fn declarations_are_sound() {
        for command in COMMANDS.iter().chain(MEMORY.subcommands()) {
            assert_eq!(crate::core::table::mistake(command), None);
        }
    }

    #[test]
    fn the_allocator_tells_of_its_slabs() {
        let _block = Box::new([0_u8; 100]);
        let told = allocator_report();
        assert!(told.contains("\nslabs of 65536 bytes: ") && told.contains("\nsparse slabs: "), "{told}");
        for pool in slab::figures() {
            assert!(pool.used_bytes() <= pool.mapped_bytes() && pool.mapped_bytes() <= pool.slabs * pool.slab_bytes);
        }
    }

    #[test]
    fn a_larger_value_takes_more() {
        let mut t = Runner::new();
        let mut usage = |line: &str, key: &str| {
            t.run(line);
            t.run(&format!("MEMORY USAGE {key} SAMPLES 0"))[1..].trim_end().parse::<usize>().unwrap()
        };
        let short = usage("SET k v", "k");
        assert!((10..64).contains(&short), "{short}");
        assert!((1000..1100).contains(&usage(&format!("SET k {}", "x".repeat(1000)), "k")));
        let few = usage("SADD s a b c", "s");
        let members: Vec<String> = (0..1000).map(|number| format!("member:{number}")).collect();
        let many = usage(&format!("SADD s {}", members.join(" ")), "s");
        assert!(few < 100 && (12_000..60_000).contains(&many), "{few} {many}");
        assert_eq!(t.run("MEMORY USAGE none"), "$-1 ");
        assert_eq!(t.run("MEMORY USAGE s SAMPLES"), "-ERR syntax error ");
        assert_eq!(t.run("MEMORY USAGE s SAMPLES -1"), "-ERR syntax error ");
    }

    /// The names of the fields, in the order of Redis 8.
    #[test]
    fn stats_tell_of_every_database_that_holds_keys() {
        let mut t = Runner::new();
        let stats = t.run("MEMORY STATS");
        assert!(stats.starts_with("*74 $14 peak.allocated :"), "{stats}");
        assert!(stats.contains(" $10 keys.count :0 $18 keys.bytes-per-key :0 "), "{stats}");
        t.run("SET a 1");
        t.run("SELECT 3");
        t.run("MSET a 1 b 2");
        t.run("HELLO 3");
        let stats = t.run("MEMORY STATS");
        assert!(stats.starts_with("%39 $14 peak.allocated :"), "{stats}");
        assert!(stats.contains(" $4 db.0 %3 $23 overhead.hashtable.main :"), "{stats}");
        assert!(stats.contains(" $4 db.3 %3 $23 overhead.hashtable.main :"), "{stats}");
        assert!(stats.contains(" $10 keys.count :3 "), "{stats}");
        assert!(stats.contains(" $15 peak.percentage ,"), "{stats}");
    }

    #[test]
    fn the_doctor_names_what_is_wrong_and_nothing_else() {
        let well = MemoryFigures { used: 100 << 20, peak: 110 << 20, resident: 120 << 20, ..Default::default() };
        assert!(diagnosis(&MemoryFigures::default(), 0).contains("hardly any"));
        assert!(diagnosis(&well, 10).starts_with("There is nothing to report"));
        let peak = MemoryFigures { peak: 300 << 20, resident: 300 << 20, ..well.clone() };
        assert!(diagnosis(&peak, 10).starts_with("Peak: 314572800 bytes"));
        let fragmented = MemoryFigures { resident: 200 << 20, clients: 5 << 20, ..well };
        let both = diagnosis(&fragmented, 10);
        assert!(both.starts_with("Fragmentation: ") && both.contains("\nClients: 5242880 bytes"), "{both}");
    }
}

//! The line of CLIENT LIST about a connection.
//!
//! Invariants:
//! - Every field is in a place where clients of Redis and Valkey look for it: `name=value`, separated by spaces.
//! - Labels hold no space and no line end, so a line has the same fields whatever a client calls itself.

use std::sync::atomic::Ordering::Relaxed;

use crate::core::client::{ClientClass, ClientRecord};
use crate::core::{Server, Table};
use crate::events::channels::Kind;
use crate::events::invalidation::letters;

/// The names of commands and subcommands by [`crate::core::table::CommandEntry::index`].
pub fn full_names(table: &Table) -> Vec<&str> {
    let mut names = vec![""; table.indices()];
    for entry in table.entries() {
        names[entry.index] = &entry.full_name;
        for sub in entry.subcommands() {
            names[sub.index] = &sub.full_name;
        }
    }
    names
}

/// How much of a connection's output Redis keeps in a buffer of the connection's own, in bytes.
pub const BUFFER_BYTES: u64 = 16 * 1024;

/// The line, without its line end. `names` are the [`full_names`].
pub fn line_of(server: &Server, record: &ClientRecord, names: &[&str], now: i64) -> Vec<u8> {
    let seconds_since = |ms: u64| now.saturating_sub(ms as i64).max(0) / 1000;
    let last = record.last_command.load(Relaxed) as usize;
    let command = last.checked_sub(1).and_then(|index| names.get(index)).copied().unwrap_or("NULL");
    let output = record.output_bytes.load(Relaxed);
    // As in Redis: what is more than its buffer of a connection takes is in a list of pieces.
    let own = output.saturating_sub(record.output_shared_bytes.load(Relaxed));
    let buffered = own.min(BUFFER_BYTES);
    let listed = output - buffered;
    // Before the labels are locked, for it may look at keys.
    let flags = flags_of(server, record);
    let labels = record.labels.lock();
    let first = format!("id={} addr={} laddr={} fd={} name=", record.id, record.peer, record.local, record.fd);
    let mut line = first.into_bytes();
    line.extend_from_slice(&labels.name);
    let rest = format!(
        " age={} idle={} flags={} capa={} db={} sub={} psub={} ssub={} multi={} watch={} qbuf={} qbuf-free={} argv-mem={} \
         multi-mem={} rbs={} rbp={} obl={} oll={} omem={} tot-mem={} events={} cmd={command} user={} redir={} resp={} \
         lib-name=",
        seconds_since(record.created_ms),
        seconds_since(record.active_ms.load(Relaxed)),
        flags,
        capabilities_of(record),
        record.db.load(Relaxed),
        record.subscriptions[Kind::Channel as usize].load(Relaxed),
        record.subscriptions[Kind::Pattern as usize].load(Relaxed),
        record.subscriptions[Kind::Shard as usize].load(Relaxed),
        record.queued.load(Relaxed) as i64 - 1,
        record.watching.load(Relaxed),
        record.query_bytes.load(Relaxed),
        record.query_room.load(Relaxed).saturating_sub(record.query_bytes.load(Relaxed)),
        record.argument_bytes.load(Relaxed),
        record.queued_bytes.load(Relaxed),
        record.output_room.load(Relaxed),
        record.output_peak(),
        buffered,
        listed.div_ceil(BUFFER_BYTES).max(record.output_shared.load(Relaxed)),
        listed,
        record.memory(),
        if output > 0 { "rw" } else { "r" },
        String::from_utf8_lossy(labels.user_name()),
        redirect_of(record),
        record.resp.load(Relaxed).max(2),
    );
    line.extend_from_slice(rest.as_bytes());
    line.extend_from_slice(&labels.lib_name);
    line.extend_from_slice(b" lib-ver=");
    line.extend_from_slice(&labels.lib_ver);
    let totals = format!(
        " io-thread={} tot-net-in={} tot-net-out={} tot-cmds={}",
        record.worker(),
        record.total_input.load(Relaxed),
        record.total_output.load(Relaxed),
        record.total_commands.load(Relaxed),
    );
    line.extend_from_slice(totals.as_bytes());
    line
}

/// The connection to which invalidations are redirected: 0 for none, -1 for a connection that tracks nothing.
fn redirect_of(record: &ClientRecord) -> i64 {
    if record.tracking.load(Relaxed) == 0 { -1 } else { record.redirect.load(Relaxed) as i64 }
}

/// The letters of a connection's state, in Redis' order.
pub fn flags_of(server: &Server, record: &ClientRecord) -> String {
    let tracking = record.tracking.load(Relaxed);
    let is_unblocked = record.is_unblocked(server);
    let letters = [
        ('O', record.monitor.load(Relaxed)),
        ('S', record.class() == ClientClass::Replica),
        ('P', record.class() == ClientClass::Pubsub),
        ('x', record.queued.load(Relaxed) > 0),
        ('b', record.blocked.load(Relaxed) && !is_unblocked),
        ('t', tracking & letters::TRACKING != 0),
        ('R', tracking & letters::BROKEN != 0),
        ('B', tracking & letters::BROADCAST != 0),
        ('d', record.watch_is_broken(&server.keyspace)),
        ('c', record.closing.load(Relaxed)),
        ('u', is_unblocked),
        ('A', record.over.load(Relaxed)),
        ('U', record.unix_socket),
        ('r', record.read_only.load(Relaxed)),
        ('e', record.no_evict.load(Relaxed)),
        ('T', record.no_touch.load(Relaxed)),
        ('I', record.import_source.load(Relaxed)),
    ];
    let set: String = letters.iter().filter(|(_, on)| *on).map(|(letter, _)| letter).collect();
    if set.is_empty() { "N".into() } else { set }
}

/// The letters of what the client claims to be capable of: CLIENT CAPA.
pub fn capabilities_of(record: &ClientRecord) -> &'static str {
    if record.follows_redirects.load(Relaxed) { "r" } else { "" }
}

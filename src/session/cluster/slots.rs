//! What is in a slot.
//!
//! The keyspace is not divided by slots: finding the keys of one means looking at the names of all. That is done on
//! another thread, from a frozen view, so that nobody else waits; only this connection does.
//!
//! Invariant: the view is released shard by shard, so that writers soon stop copying what it holds.

use std::ops::ControlFlow;

use super::{QUESTION, of, slot_range};
use crate::base::clock;
use crate::base::config::SlotStats;
use crate::base::slot::{self, SLOTS};
use crate::core::args::{self, is};
use crate::core::{Arity, Command, CommandError, Handler, Outcome, Server, SessionCall, Words, flags};
use crate::keyspace::{EntryRef, Frozen};
use crate::resp::Reply;

/// A view of all keys. Waits for the gate, and so until all are loaded.
///
/// # Errors
/// A shard is damaged.
fn view(server: &Server) -> Result<Frozen, CommandError> {
    let closed = server.gate.close();
    match server.keyspace.first_damage() {
        None => Ok(server.keyspace.freeze(&closed)),
        Some((_, what)) => Err(CommandError::damaged(&what)),
    }
}

/// Gives every key, with its slot, to `visit`, until it has seen enough.
fn each_key(mut frozen: Frozen, mut visit: impl FnMut(u16, EntryRef<'_>) -> ControlFlow<()>) {
    let now = clock::now_ms();
    for shard in 0..frozen.shards() {
        for entry in frozen.shard(shard).filter(|(db, _)| *db == 0).flat_map(|(_, directory)| directory.iter()) {
            let is_alive = entry.expiry().is_none_or(|at| at as i64 > now);
            if is_alive && visit(slot::of_key(entry.key()), entry).is_break() {
                return;
            }
        }
        drop(frozen.release_shard(shard));
    }
}

/// The number of keys in each slot, and the memory that they take, in bytes.
fn contents(server: &Server) -> Result<(Vec<u64>, Vec<u64>), CommandError> {
    let (mut counts, mut bytes) = (vec![0; SLOTS], vec![0; SLOTS]);
    each_key(view(server)?, |slot, entry| {
        counts[usize::from(slot)] += 1;
        bytes[usize::from(slot)] += entry.memory() as u64;
        ControlFlow::Continue(())
    });
    Ok((counts, bytes))
}

pub(super) static KEYSLOT: Command = Command {
    name: "KEYSLOT",
    arity: Arity::Exactly(3),
    handler: Handler::Session(keyslot),
    complexity: "O(N)",
    syntax: "key",
    summary: "The slot of a key, which need not exist.",
    ..QUESTION
};

fn keyslot(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    Ok(reply.int(slot::of_key(call.args.at(2)).into()))
}

/// The slot that the first argument names; `None` if there is no such slot.
fn wanted_slot(call: &SessionCall<'_>) -> Result<Option<u16>, CommandError> {
    let number = args::integer(call.args.at(2))?;
    Ok(u16::try_from(number).ok().filter(|&slot| usize::from(slot) < SLOTS))
}

pub(super) static COUNTKEYSINSLOT: Command = Command {
    name: "COUNTKEYSINSLOT",
    arity: Arity::Exactly(3),
    handler: Handler::Session(countkeysinslot),
    complexity: "O(N), where N is the number of all keys; other connections go on meanwhile.",
    syntax: "slot",
    summary: "How many keys are in a slot.",
    ..QUESTION
};

fn countkeysinslot(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    let wanted = wanted_slot(call)?.ok_or(CommandError::Text("ERR Invalid slot"))?;
    Ok(call.client.defer_reply(reply, move |server, reply| {
        let mut count = 0;
        each_key(view(server)?, |slot, _| {
            count += i64::from(slot == wanted);
            ControlFlow::Continue(())
        });
        Ok(reply.int(count))
    }))
}

pub(super) static GETKEYSINSLOT: Command = Command {
    name: "GETKEYSINSLOT",
    arity: Arity::Exactly(4),
    handler: Handler::Session(getkeysinslot),
    complexity: "O(N), where N is the number of all keys; other connections go on meanwhile.",
    tips: "nondeterministic_output",
    syntax: "slot count",
    summary: "Some keys of a slot.",
    ..QUESTION
};

fn getkeysinslot(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    let (slot, most) = (wanted_slot(call)?, args::integer(call.args.at(3))?);
    let (Some(wanted), Ok(most)) = (slot, usize::try_from(most)) else {
        return Err(CommandError::Text("ERR Invalid slot or number of keys"));
    };
    let user = call.client.acting_user(call.server).into_owned();
    let sight = Some(user).filter(|user| !user.sees_all_keys());
    Ok(call.client.defer_reply(reply, move |server, reply| {
        let is_seen = |key: &[u8]| sight.as_ref().is_none_or(|user| user.may_read(0, key));
        let view = view(server)?;
        Ok(reply.array_of_unknown(|keys| {
            if most == 0 {
                return;
            }
            each_key(view, |slot, entry| {
                if slot == wanted && is_seen(entry.key()) {
                    keys.bulk(entry.key());
                }
                if keys.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }))
    }))
}

pub(super) static SLOT_STATS: Command = Command {
    name: "SLOT-STATS",
    arity: Arity::AtLeast(4),
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(slot_stats),
    since: "8.2.0",
    complexity: "O(N), where N is the number of all keys; other connections go on meanwhile.",
    tips: "nondeterministic_output request_policy:all_shards",
    syntax: "<SLOTSRANGE start-slot end-slot | ORDERBY metric [LIMIT limit] [ASC | DESC]>",
    summary: "How slots are used: a range of them, or those with the most or the least.",
    ..QUESTION
};

/// What SLOT-STATS tells of a slot, in its order. All but the first are shown only as far as
/// `cluster-slot-stats-enabled` says.
const METRICS: [&str; 5] = ["key-count", "cpu-usec", "memory-bytes", "network-bytes-in", "network-bytes-out"];

/// The metrics that are shown.
fn shown_metrics(wanted: SlotStats) -> Vec<usize> {
    let is_shown = [true, wanted.cpu, wanted.mem, wanted.net, wanted.net];
    (0..METRICS.len()).filter(|metric| is_shown[*metric]).collect()
}

/// What SLOT-STATS is asked for.
enum Wanted {
    Range(std::ops::RangeInclusive<u16>),
    Extremes { metric: usize, limit: usize, ascending: bool },
}

fn slot_stats(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    let shown = shown_metrics(call.server.config.settings().cluster_slot_stats_enabled);
    let wanted = match call.args.at(2) {
        word if is(word, "SLOTSRANGE") && call.args.len() == 5 => {
            Wanted::Range(slot_range(call.args.at(3), call.args.at(4), "Start")?)
        }
        word if is(word, "ORDERBY") => extremes(call, &shown)?,
        _ => return Err(CommandError::subcommand_syntax(call.args.at(1), "CLUSTER")),
    };
    Ok(call.client.defer_reply(reply, move |server, reply| {
        let (keys, bytes) = contents(server)?;
        let usage = &of(server)?.usage;
        let value = |metric: usize, slot: u16| match metric {
            0 => keys[usize::from(slot)],
            1 => usage.of(slot).cpu_ns.get() / 1000,
            2 => bytes[usize::from(slot)],
            3 => usage.of(slot).bytes_in.get(),
            _ => usage.of(slot).bytes_out.get(),
        };
        let mut slots: Vec<u16>;
        match wanted {
            Wanted::Range(range) => slots = range.collect(),
            Wanted::Extremes { metric, limit, ascending } => {
                slots = (0..SLOTS as u16).collect();
                // Equal ones in the order of the slots.
                slots.sort_by_cached_key(|&slot| match value(metric, slot) {
                    value if ascending => value,
                    value => u64::MAX - value,
                });
                slots.truncate(limit);
            }
        }
        let mut all = reply.array(slots.len());
        for slot in slots {
            let mut two = all.array(2);
            two.int(slot.into());
            let mut map = two.map(shown.len());
            for &metric in &shown {
                map.bulk(METRICS[metric].as_bytes());
                map.int(value(metric, slot) as i64);
            }
            map.end();
            two.end();
        }
        Ok(all.done())
    }))
}

/// Reads `metric [LIMIT limit] [ASC | DESC]`, where these metrics are known.
fn extremes(call: &SessionCall<'_>, shown: &[usize]) -> Result<Wanted, CommandError> {
    let metric = shown.iter().copied().find(|&metric| is(call.args.at(3), METRICS[metric]));
    let metric = metric.ok_or(CommandError::Text("ERR Unrecognized sort metric for ORDERBY."))?;
    let (mut limit, mut ascending) = (None, None);
    let mut words = Words::new(call.args, 4);
    while let Some(word) = words.next() {
        let is_again = if is(word, "LIMIT") && words.left() > 0 {
            let count = words.value()?;
            let count = args::integer(count).ok().filter(|count| (1..=SLOTS as i64).contains(count));
            let text = "ERR Limit has to lie in between 1 and 16384 (maximum number of slots).";
            limit.replace(count.ok_or(CommandError::Text(text))? as usize).is_some()
        } else if is(word, "ASC") || is(word, "DESC") {
            ascending.replace(is(word, "ASC")).is_some()
        } else {
            return Err(CommandError::Syntax);
        };
        if is_again {
            return Err(CommandError::Text("ERR Multiple filters of the same type are disallowed."));
        }
    }
    Ok(Wanted::Extremes { metric, limit: limit.unwrap_or(SLOTS), ascending: ascending.unwrap_or(false) })
}

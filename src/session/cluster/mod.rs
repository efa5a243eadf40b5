//! CLUSTER, READONLY, READWRITE and ASKING: what cluster clients ask.
//!
//! With `cluster-enabled yes` the server answers as a cluster of one node, which owns all slots: see
//! [`crate::core::cluster`]. What needs another node is answered as Redis answers it where there is none, or refused in
//! plain words. Without it, every command here is refused.
//!
//! | file | job |
//! |---|---|
//! | `map` | who and where the node is: SLOTS, SHARDS, NODES, INFO and the like |
//! | `slots` | what is in a slot: KEYSLOT, COUNTKEYSINSLOT, GETKEYSINSLOT, SLOT-STATS |
//! | `change` | what would change the cluster: epochs, slots, other nodes |

use std::sync::atomic::Ordering::Relaxed;

use crate::base::format;
use crate::base::slot::SLOTS;
use crate::core::{
    Arity, Cluster, Command, CommandError, Flags, Handler, Outcome, Server, SessionCall, categories, flags, help,
};
use crate::resp::Reply;

mod change;
mod map;
mod slots;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&ASKING, &CLUSTER, &READONLY, &READWRITE];

const DISABLED: CommandError = CommandError::Text("ERR This instance has cluster support disabled");

/// The cluster, if this server is one.
fn of(server: &Server) -> Result<&Cluster, CommandError> {
    server.cluster.as_ref().ok_or(DISABLED)
}

static CLUSTER: Command = Command {
    name: "CLUSTER",
    arity: Arity::AtLeast(2),
    flags: Flags(0),
    handler: Handler::Container(&[
        &change::ADDSLOTS,
        &change::ADDSLOTSRANGE,
        &change::BUMPEPOCH,
        &change::COUNT_FAILURE_REPORTS,
        &slots::COUNTKEYSINSLOT,
        &change::DELSLOTS,
        &change::DELSLOTSRANGE,
        &change::FAILOVER,
        &change::FLUSHSLOTS,
        &change::FORGET,
        &slots::GETKEYSINSLOT,
        &HELP,
        &map::INFO,
        &slots::KEYSLOT,
        &map::LINKS,
        &change::MEET,
        &map::MYID,
        &map::MYSHARDID,
        &map::NODES,
        &map::REPLICAS,
        &change::REPLICATE,
        &change::RESET,
        &change::SAVECONFIG,
        &change::SET_CONFIG_EPOCH,
        &change::SETSLOT,
        &map::SHARDS,
        &map::SLAVES,
        &slots::SLOT_STATS,
        &map::SLOTS,
    ]),
    complexity: "Depends on subcommand.",
    summary: "Commands for cluster clients.",
    ..QUESTION
};

/// What the subcommands share that only tell something.
const QUESTION: Command =
    Command { arity: Arity::Exactly(2), flags: flags::STALE, since: "3.0.0", group: "cluster", ..Command::DEFAULT };

/// The slot that an argument names.
fn slot_of(word: &[u8]) -> Result<u16, CommandError> {
    let slot = format::parse_i64(word).filter(|&slot| (0..SLOTS as i64).contains(&slot));
    slot.map(|slot| slot as u16).ok_or(CommandError::Text("ERR Invalid or out of range slot"))
}

/// The two slots that end a range.
fn slot_range(first: &[u8], last: &[u8], start: &str) -> Result<std::ops::RangeInclusive<u16>, CommandError> {
    let (first, last) = (slot_of(first)?, slot_of(last)?);
    if first > last {
        return Err(CommandError::err(format_args!(
            "{start} slot number {first} is greater than end slot number {last}"
        )));
    }
    Ok(first..=last)
}

static ASKING: Command = Command {
    name: "ASKING",
    arity: Arity::Exactly(1),
    flags: flags::FAST,
    categories: categories::CONNECTION,
    handler: Handler::Session(|call, reply| of(call.server).map(|_| reply.ok())),
    summary: "Asks for a slot that is on its way here; no slot ever is.",
    ..QUESTION
};

static READONLY: Command = Command {
    name: "READONLY",
    flags: flags::FAST.or(flags::LOADING).or(flags::STALE),
    handler: Handler::Session(|call, reply| set_read_only(call, reply, true)),
    summary: "Says that the connection is content with a replica; this server is none.",
    ..ASKING
};

static READWRITE: Command = Command {
    name: "READWRITE",
    handler: Handler::Session(|call, reply| set_read_only(call, reply, false)),
    summary: "Takes READONLY back.",
    ..READONLY
};

/// Every slot is here, and may be read and written: CLIENT LIST alone tells the difference.
fn set_read_only(call: &mut SessionCall<'_>, reply: Reply<'_>, read_only: bool) -> Outcome {
    of(call.server)?;
    call.client.record.read_only.store(read_only, Relaxed);
    Ok(reply.ok())
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(cluster_help),
    since: "5.0.0",
    summary: "What the subcommands do.",
    ..QUESTION
};

fn cluster_help(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    help(
        reply,
        "CLUSTER",
        &[
            "COUNTKEYSINSLOT <slot>",
            "    Return the number of keys in <slot>.",
            "GETKEYSINSLOT <slot> <count>",
            "    Return key names stored by current node in a slot.",
            "INFO",
            "    Return information about the cluster.",
            "KEYSLOT <key>",
            "    Return the hash slot for <key>.",
            "MYID",
            "    Return the node id.",
            "MYSHARDID",
            "    Return the node's shard id.",
            "NODES",
            "    Return cluster configuration seen by node. Output format:",
            "    <id> <ip:port@bus-port[,hostname]> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
            "REPLICAS <node-id>",
            "    Return <node-id> replicas.",
            "SLOT-STATS",
            "    Return an array of slot usage statistics for slots assigned to the current node.",
            "SLOTS",
            "    Return information about slots range mappings. Each range is made of:",
            "    start, end, master and replicas IP addresses, ports and ids",
            "SHARDS",
            "    Return information about slot range mappings and the nodes associated with them.",
            "BUMPEPOCH",
            "    Advance the cluster config epoch.",
            "COUNT-FAILURE-REPORTS <node-id>",
            "    Return number of failure reports for <node-id>.",
            "RESET [HARD|SOFT]",
            "    Reset current node (default: soft).",
            "SET-CONFIG-EPOCH <epoch>",
            "    Set config epoch of current node.",
            "SAVECONFIG",
            "    Force saving cluster configuration on disk.",
            "LINKS",
            "    Return information about all network links between this node and its peers.",
            "    Output format is an array where each array element is a map containing attributes of a link",
        ],
    )
}

#[cfg(test)]
mod tests;

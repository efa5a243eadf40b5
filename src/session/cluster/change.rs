//! What would change the cluster. A node alone can count its epochs on, save its file, and become another node. The
//! rest needs other nodes.

use super::map::check_is_me;
use super::{QUESTION, of, slot_of, slot_range};
use crate::base::{format, slot};
use crate::core::args::{self, is};
use crate::core::cluster::Node;
use crate::core::{Arity, Cluster, Command, CommandError, Flags, Handler, Outcome, Server, SessionCall, flags};
use crate::resp::Reply;

const ADMIN: Flags = flags::ADMIN.or(flags::STALE);

/// What most subcommands here share.
const CHANGE: Command = Command { flags: ADMIN.or(flags::NO_ASYNC_LOADING), ..QUESTION };

/// The reply to whatever would give slots away.
const OWNS_ALL: CommandError =
    CommandError::Text("ERR Ironkeep is a cluster of one node: it owns all slots and gives none away");

/// Changes the node on another thread, because that waits for the disk. `change` returns the text of the reply, or why
/// the node is left as it is.
fn change_node(
    call: &mut SessionCall<'_>,
    reply: Reply<'_>,
    change: impl FnOnce(&Server, &mut Node) -> Result<String, CommandError> + Send + 'static,
) -> Outcome {
    of(call.server)?;
    Ok(call.client.defer_reply(reply, move |server, reply| {
        let mut refused = None;
        let changed = of(server)?.change(|node| change(server, node).map_err(|error| refused = Some(error)).ok());
        let text = changed
            .map_err(|error| CommandError::err(format_args!("error saving the cluster node config: {error}")))?;
        match (text, refused) {
            (Some(text), _) => Ok(reply.simple(&text)),
            (None, refused) => Err(refused.unwrap_or(CommandError::Syntax)),
        }
    }))
}

pub(super) static BUMPEPOCH: Command = Command {
    name: "BUMPEPOCH",
    handler: Handler::Session(bumpepoch),
    tips: "nondeterministic_output",
    summary: "Gives the node an epoch that is newer than all others.",
    ..CHANGE
};

fn bumpepoch(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    change_node(call, reply, |_, node| {
        if node.config_epoch != 0 && node.config_epoch == node.current_epoch {
            return Ok(format!("STILL {}", node.config_epoch));
        }
        node.current_epoch += 1;
        node.config_epoch = node.current_epoch;
        Ok(format!("BUMPED {}", node.config_epoch))
    })
}

pub(super) static SET_CONFIG_EPOCH: Command = Command {
    name: "SET-CONFIG-EPOCH",
    arity: Arity::Exactly(3),
    handler: Handler::Session(set_config_epoch),
    syntax: "config-epoch",
    summary: "Gives the node its first epoch.",
    ..CHANGE
};

fn set_config_epoch(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    let epoch = args::integer(call.args.at(2))?;
    let epoch =
        u64::try_from(epoch).map_err(|_| CommandError::err(format_args!("Invalid config epoch specified: {epoch}")))?;
    change_node(call, reply, move |_, node| {
        if node.config_epoch != 0 {
            return Err(CommandError::Text("ERR Node config epoch is already non-zero"));
        }
        node.config_epoch = epoch;
        node.current_epoch = node.current_epoch.max(epoch);
        Ok("OK".to_owned())
    })
}

pub(super) static SAVECONFIG: Command = Command {
    name: "SAVECONFIG",
    handler: Handler::Session(saveconfig),
    summary: "Writes the node into its file.",
    ..CHANGE
};

fn saveconfig(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    change_node(call, reply, |_, _| Ok("OK".to_owned()))
}

pub(super) static RESET: Command = Command {
    name: "RESET",
    arity: Arity::AtLeast(2),
    flags: ADMIN.or(flags::NOSCRIPT),
    handler: Handler::Session(reset),
    complexity: "O(N)",
    syntax: "[HARD | SOFT]",
    summary: "Forgets other nodes, of which there are none; HARD makes this a new node. The slots stay.",
    ..CHANGE
};

fn reset(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    let hard = match call.args.len() {
        2 => false,
        3 if is(call.args.at(2), "HARD") => true,
        3 if is(call.args.at(2), "SOFT") => false,
        3 => return Err(CommandError::Syntax),
        _ => return Err(CommandError::subcommand_syntax(call.args.at(1), "CLUSTER")),
    };
    change_node(call, reply, move |server, node| {
        // Until all are loaded, nobody knows how many keys there are.
        drop(server.gate.close());
        if let Some((_, what)) = server.keyspace.first_damage() {
            return Err(CommandError::damaged(&what));
        }
        if server.keyspace.counts().of(0).keys != 0 {
            return Err(CommandError::Text("ERR CLUSTER RESET can't be called with master nodes containing keys"));
        }
        if hard {
            *node = Node { shard_id: node.shard_id.clone(), ..Node::new() };
        }
        Ok("OK".to_owned())
    })
}

pub(super) static ADDSLOTS: Command = Command {
    name: "ADDSLOTS",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(addslots),
    complexity: "O(N)",
    syntax: "slot [slot ...]",
    summary: "Would take slots that no node owns; this node owns all.",
    ..CHANGE
};

fn addslots(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    of(call.server)?;
    let slots = call.args.from(2).map(slot_of).collect::<Result<Vec<u16>, _>>()?;
    Err(is_busy(slots[0]))
}

fn is_busy(slot: u16) -> CommandError {
    CommandError::err(format_args!("Slot {slot} is already busy"))
}

pub(super) static ADDSLOTSRANGE: Command = Command {
    name: "ADDSLOTSRANGE",
    arity: Arity::AtLeast(4),
    handler: Handler::Session(addslotsrange),
    since: "7.0.0",
    syntax: "start-slot end-slot [start-slot end-slot ...]",
    ..ADDSLOTS
};

fn addslotsrange(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    check_pairs(call)?;
    let range = slot_range(call.args.at(2), call.args.at(3), "start")?;
    Err(is_busy(*range.start()))
}

fn check_pairs(call: &SessionCall<'_>) -> Result<(), CommandError> {
    of(call.server)?;
    match call.args.len() % 2 {
        0 => Ok(()),
        _ => Err(CommandError::Arity(call.entry.full_name.clone())),
    }
}

pub(super) static DELSLOTS: Command = Command {
    name: "DELSLOTS",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(delslots),
    complexity: "O(N)",
    syntax: "slot [slot ...]",
    summary: "Would leave slots without an owner; refused.",
    ..CHANGE
};

fn delslots(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    of(call.server)?;
    let ranges = call.args.from(2).map(|word| slot_of(word).map(|slot| slot..=slot));
    Err(refusal(ranges))
}

pub(super) static DELSLOTSRANGE: Command = Command {
    name: "DELSLOTSRANGE",
    arity: Arity::AtLeast(4),
    handler: Handler::Session(delslotsrange),
    since: "7.0.0",
    syntax: "start-slot end-slot [start-slot end-slot ...]",
    ..DELSLOTS
};

fn delslotsrange(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    check_pairs(call)?;
    let words: Vec<&[u8]> = call.args.from(2).collect();
    Err(refusal(words.chunks_exact(2).map(|pair| slot_range(pair[0], pair[1], "start"))))
}

/// Why these slots cannot be given away: the first mistake in them, or that none can.
fn refusal(ranges: impl Iterator<Item = Result<std::ops::RangeInclusive<u16>, CommandError>>) -> CommandError {
    let mut seen = vec![false; slot::SLOTS];
    for range in ranges {
        let Ok(range) = range else { return range.map(drop).expect_err("it was just looked at") };
        for slot in range {
            if std::mem::replace(&mut seen[usize::from(slot)], true) {
                return CommandError::err(format_args!("Slot {slot} specified multiple times"));
            }
        }
    }
    OWNS_ALL
}

pub(super) static FLUSHSLOTS: Command = Command {
    name: "FLUSHSLOTS",
    handler: Handler::Session(flushslots),
    summary: "Would leave all slots without an owner; refused.",
    ..CHANGE
};

fn flushslots(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    of(call.server)?;
    if call.server.keyspace.counts().of(0).keys != 0 {
        return Err(CommandError::Text("ERR DB must be empty to perform CLUSTER FLUSHSLOTS."));
    }
    Err(OWNS_ALL)
}

pub(super) static SETSLOT: Command = Command {
    name: "SETSLOT",
    arity: Arity::AtLeast(4),
    handler: Handler::Session(setslot),
    syntax: "slot <IMPORTING importing | MIGRATING migrating | NODE node | STABLE>",
    summary: "Says where a slot is, or goes; here it is, and stays.",
    ..CHANGE
};

fn setslot(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    let slot = slot_of(call.args.at(2))?;
    let (action, len) = (call.args.at(3), call.args.len());
    if is(action, "STABLE") && len == 4 {
        return Ok(reply.ok());
    }
    if len != 5 || !["NODE", "MIGRATING", "IMPORTING"].iter().any(|word| is(action, word)) {
        let text = "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP";
        return Err(CommandError::Text(text));
    }
    let is_me = check_is_me(call, 4);
    if is(action, "IMPORTING") {
        return Err(CommandError::err(format_args!("I'm already the owner of hash slot {slot}")));
    }
    if is(action, "MIGRATING") {
        return Err(match is_me {
            Ok(()) => CommandError::Text("ERR Target node is myself"),
            Err(_) => CommandError::echo("I don't know about node ", call.args.at(4), ""),
        });
    }
    is_me.map(|()| reply.ok())
}

pub(super) static COUNT_FAILURE_REPORTS: Command = Command {
    name: "COUNT-FAILURE-REPORTS",
    arity: Arity::Exactly(3),
    flags: ADMIN,
    handler: Handler::Session(|call, reply| check_is_me(call, 2).map(|()| reply.int(0))),
    complexity: "O(N)",
    tips: "nondeterministic_output",
    syntax: "node-id",
    summary: "How many other nodes report the failure of a node; there is none to report it.",
    ..CHANGE
};

pub(super) static FAILOVER: Command = Command {
    name: "FAILOVER",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(failover),
    syntax: "[FORCE | TAKEOVER]",
    summary: "Would make a replica the master; this node is none.",
    ..CHANGE
};

fn failover(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    of(call.server)?;
    match call.args.len() {
        2 => {}
        3 if is(call.args.at(2), "FORCE") || is(call.args.at(2), "TAKEOVER") => {}
        3 => return Err(CommandError::Syntax),
        _ => return Err(CommandError::subcommand_syntax(call.args.at(1), "CLUSTER")),
    }
    Err(CommandError::Text("ERR You should send CLUSTER FAILOVER to a replica"))
}

pub(super) static FORGET: Command = Command {
    name: "FORGET",
    arity: Arity::Exactly(3),
    handler: Handler::Session(forget),
    syntax: "node-id",
    summary: "Would remove another node; there is none.",
    ..CHANGE
};

fn forget(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    check_is_me(call, 2)?;
    Err(CommandError::Text("ERR I tried hard but I can't forget myself..."))
}

pub(super) static REPLICATE: Command = Command {
    name: "REPLICATE",
    arity: Arity::Exactly(3),
    handler: Handler::Session(replicate),
    syntax: "node-id",
    summary: "Would make this node a replica of another; there is none.",
    ..CHANGE
};

fn replicate(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    check_is_me(call, 2)?;
    Err(CommandError::Text("ERR Can't replicate myself"))
}

pub(super) static MEET: Command = Command {
    name: "MEET",
    arity: Arity::AtLeast(4),
    handler: Handler::Session(meet),
    syntax: "ip port [cluster-bus-port@4.0.0]",
    summary: "Would add another node; refused.",
    ..CHANGE
};

fn meet(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    let _: &Cluster = of(call.server)?;
    if call.args.len() > 5 {
        return Err(CommandError::subcommand_syntax(call.args.at(1), "CLUSTER"));
    }
    let (ip, port) = (call.args.at(2), call.args.at(3));
    let number = |at: usize, which: &str| {
        let word = call.args.at(at);
        let wrong = || CommandError::echo(&format!("Invalid TCP {which} port specified: "), word, "");
        format::parse_i64(word).ok_or_else(wrong)
    };
    let (mut ports, is_port) = (vec![number(3, "base")?], |port: &i64| (1..=65535).contains(port));
    if call.args.len() == 5 {
        ports.push(number(4, "bus")?);
    }
    let is_ip = std::str::from_utf8(ip).is_ok_and(|ip| ip.parse::<std::net::IpAddr>().is_ok());
    if !is_ip || !ports.iter().all(is_port) {
        let address = [ip, b":", port].concat();
        return Err(CommandError::echo("Invalid node address specified: ", &address, ""));
    }
    Err(CommandError::Text("ERR Ironkeep is a cluster of one node: it meets no others"))
}

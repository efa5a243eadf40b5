//! Commands about replication, which is not built: the server is a master without replicas, and says so.

use crate::base::format;
use crate::core::args::{self, is};
use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, Words, categories, flags};
use crate::resp::Reply;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&FAILOVER, &PSYNC, &REPLCONF, &REPLICAOF, &ROLE, &SLAVEOF, &SYNC];

/// What a server gets that wants to be a replica.
const NO_REPLICAS: CommandError = CommandError::Text("ERR Ironkeep is a single-node store: it cannot have replicas");

const ADMIN: Flags = flags::ADMIN.or(flags::NOSCRIPT);

static ROLE: Command = Command {
    name: "ROLE",
    flags: flags::NOSCRIPT.or(flags::LOADING).or(flags::STALE).or(flags::FAST),
    categories: categories::ADMIN.or(categories::DANGEROUS),
    handler: Handler::Session(role),
    since: "2.8.12",
    group: "server",
    summary: "Says that this is a master, with no replicas.",
    ..Command::DEFAULT
};

fn role(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let mut three = reply.array(3);
    three.bulk(b"master");
    three.int(0);
    three.array(0).end();
    Ok(three.done())
}

static REPLICAOF: Command = Command {
    name: "REPLICAOF",
    arity: Arity::Exactly(3),
    flags: ADMIN.or(flags::STALE).or(flags::NO_ASYNC_LOADING),
    handler: Handler::Session(replicaof),
    since: "5.0.0",
    group: "server",
    syntax: "<host port | NO ONE>",
    summary: "NO ONE changes nothing, for this is a master; another host is refused.",
    ..Command::DEFAULT
};

static SLAVEOF: Command = Command { name: "SLAVEOF", since: "1.0.0", ..REPLICAOF };

fn replicaof(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    if call.server.cluster.is_some() {
        return Err(CommandError::Text("ERR REPLICAOF not allowed in cluster mode."));
    }
    if is(call.args.at(1), "NO") && is(call.args.at(2), "ONE") {
        return Ok(reply.ok());
    }
    let port = format::parse_i64(call.args.at(2)).filter(|port| (0..=65535).contains(port));
    port.ok_or(CommandError::Text("ERR Invalid master port"))?;
    Err(CommandError::Text("ERR Ironkeep is a single-node store: it cannot be a replica of another server"))
}

static FAILOVER: Command = Command {
    name: "FAILOVER",
    arity: Arity::AtLeast(1),
    flags: ADMIN.or(flags::STALE),
    handler: Handler::Session(failover),
    since: "6.2.0",
    group: "server",
    syntax: "[TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]",
    summary: "Would make a replica the master; there is none.",
    ..Command::DEFAULT
};

fn failover(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    if call.server.cluster.is_some() {
        let text = "ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead.";
        return Err(CommandError::Text(text));
    }
    if call.args.len() == 2 && is(call.args.at(1), "ABORT") {
        return Err(CommandError::Text("ERR No failover in progress."));
    }
    let (mut host, mut timeout, mut force) = (false, false, false);
    let mut words = Words::new(call.args, 1);
    while let Some(word) = words.next() {
        if is(word, "TIMEOUT") && words.left() >= 1 && !timeout {
            if words.integer()? <= 0 {
                return Err(CommandError::Text("ERR FAILOVER timeout must be greater than 0"));
            }
            timeout = true;
        } else if is(word, "TO") && words.left() >= 2 && !host {
            words.value()?;
            args::integer(words.value()?)?;
            host = true;
        } else if is(word, "FORCE") && !force {
            force = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Err(CommandError::Text("ERR FAILOVER requires connected replicas."))
}

static SYNC: Command = Command {
    name: "SYNC",
    flags: ADMIN.or(flags::NO_ASYNC_LOADING).or(flags::NO_MULTI),
    handler: Handler::Session(|_, _| Err(NO_REPLICAS)),
    group: "server",
    complexity: "",
    summary: "Would begin to replicate; refused.",
    ..Command::DEFAULT
};

static PSYNC: Command =
    Command { name: "PSYNC", arity: Arity::AtLeast(3), since: "2.8.0", syntax: "replicationid offset", ..SYNC };

static REPLCONF: Command = Command {
    name: "REPLCONF",
    arity: Arity::AtLeast(1),
    flags: ADMIN.or(flags::LOADING).or(flags::STALE).or(flags::ALLOW_BUSY),
    since: "3.0.0",
    complexity: "O(1)",
    ..SYNC
};

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;

    #[test]
    fn a_master_without_replicas_says_so() {
        let mut t = Runner::new();
        assert_eq!(t.run("ROLE"), "*3 $6 master :0 *0 ");
        for ok in ["REPLICAOF NO ONE", "SLAVEOF no one"] {
            assert_eq!(t.run(ok), "+OK ");
        }
        for (refused, why) in [
            ("REPLICAOF host 6379", "it cannot be a replica"),
            ("REPLICAOF host x", "Invalid master port"),
            ("SYNC", "it cannot have replicas"),
            ("PSYNC ? -1", "it cannot have replicas"),
            ("REPLCONF listening-port 6380", "it cannot have replicas"),
            ("FAILOVER", "requires connected replicas"),
            ("FAILOVER ABORT", "No failover in progress"),
        ] {
            let reply = t.run(refused);
            assert!(reply.starts_with("-ERR ") && reply.contains(why), "{refused}: {reply}");
        }
    }
}

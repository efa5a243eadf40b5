//! Channels: SUBSCRIBE and its kind, PUBLISH, and PUBSUB, which describes them.

use crate::core::command::Channels;
use crate::core::command::Handler::Session;
use crate::core::message::Needs;
use crate::core::subscriber::{NAMES_PER_STEP, OwnBlock, Subscribing};
use crate::core::{
    Arity, Command, CommandError, Flags, Handler, KeySpec, Keys, Outcome, SessionCall, Wait, flags, help,
};
use crate::events::channels::Kind;
use crate::resp::{Done, Reply};

/// See the module.
pub(super) static COMMANDS: &[&Command] =
    &[&PSUBSCRIBE, &PUBLISH, &PUBSUB, &PUNSUBSCRIBE, &SPUBLISH, &SSUBSCRIBE, &SUBSCRIBE, &SUNSUBSCRIBE, &UNSUBSCRIBE];

const SUBSCRIBING: Flags =
    flags::PUBSUB.or(flags::NOSCRIPT).or(flags::LOADING).or(flags::STALE).or(flags::PUSHES).or(flags::LISTENING);
const PUBLISHING: Flags = DESCRIBING.or(flags::FAST).or(flags::KEEPS_FACTS).or(flags::PUBLISHES).or(flags::SPREADS);
const DESCRIBING: Flags = flags::PUBSUB.or(flags::LOADING).or(flags::STALE);

static SUBSCRIBE: Command = Command {
    name: "SUBSCRIBE",
    arity: Arity::AtLeast(2),
    flags: SUBSCRIBING,
    channels: Channels::All,
    handler: Session(|call, reply| subscribe(call, reply, Kind::Channel, b"subscribe")),
    since: "2.0.0",
    group: "pubsub",
    complexity: "O(N), when N is the number of channels",
    syntax: "channel [channel ...]",
    summary: "Receives the messages of these channels from now on.",
    ..Command::DEFAULT
};

static PSUBSCRIBE: Command = Command {
    name: "PSUBSCRIBE",
    channels: Channels::Patterns,
    handler: Session(|call, reply| subscribe(call, reply, Kind::Pattern, b"psubscribe")),
    complexity: "O(N), when N is the number of patterns",
    syntax: "pattern [pattern ...]",
    summary: "Receives the messages of all channels whose names match these patterns.",
    ..SUBSCRIBE
};

static SSUBSCRIBE: Command = Command {
    name: "SSUBSCRIBE",
    keys: Keys(&[KeySpec::range(1, -1, 1, "not_key")]),
    handler: Session(|call, reply| subscribe(call, reply, Kind::Shard, b"ssubscribe")),
    since: "7.0.0",
    complexity: "O(N), when N is the number of shard channels",
    syntax: "shardchannel [shardchannel ...]",
    summary: "Receives the messages of these shard channels from now on.",
    ..SUBSCRIBE
};

fn subscribe(call: &mut SessionCall<'_>, reply: Reply<'_>, kind: Kind, told: &'static [u8]) -> Outcome {
    if kind == Kind::Shard && call.client.in_exec {
        return Err(CommandError::Text("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client"));
    }
    let names = call.args.from(1);
    Ok(begin(call, reply, Subscribing::join(kind, names, told)))
}

/// Begins with the first names. The connection waits for the others, except in a transaction, which is done as a whole.
pub(super) fn begin(call: &mut SessionCall<'_>, reply: Reply<'_>, mut work: Subscribing) -> Done {
    let (server, client) = (call.server, &mut *call.client);
    let limit = if client.in_exec { usize::MAX } else { NAMES_PER_STEP };
    reply.pushed(|out| {
        if work.step(client, server, limit, out) {
            client.wait = Some(Wait::Subscribing(work));
        }
    })
}

static UNSUBSCRIBE: Command = Command {
    name: "UNSUBSCRIBE",
    arity: Arity::AtLeast(1),
    channels: Channels::None,
    handler: Session(|call, reply| unsubscribe(call, reply, Kind::Channel, b"unsubscribe")),
    syntax: "[channel [channel ...]]",
    summary: "Leaves these channels, or all.",
    ..SUBSCRIBE
};

static PUNSUBSCRIBE: Command = Command {
    name: "PUNSUBSCRIBE",
    handler: Session(|call, reply| unsubscribe(call, reply, Kind::Pattern, b"punsubscribe")),
    complexity: "O(N), when N is the number of patterns",
    syntax: "[pattern [pattern ...]]",
    summary: "Leaves these patterns, or all.",
    ..UNSUBSCRIBE
};

static SUNSUBSCRIBE: Command = Command {
    name: "SUNSUBSCRIBE",
    keys: Keys(&[KeySpec::range(1, -1, 1, "not_key")]),
    handler: Session(|call, reply| unsubscribe(call, reply, Kind::Shard, b"sunsubscribe")),
    since: "7.0.0",
    complexity: "O(N), when N is the number of shard channels",
    syntax: "[shardchannel [shardchannel ...]]",
    summary: "Leaves these shard channels, or all.",
    ..UNSUBSCRIBE
};

fn unsubscribe(call: &mut SessionCall<'_>, reply: Reply<'_>, kind: Kind, told: &'static [u8]) -> Outcome {
    let names = call.args.from(1);
    Ok(begin(call, reply, Subscribing::leave(kind, names, told)))
}

static PUBLISH: Command = Command {
    name: "PUBLISH",
    arity: Arity::Exactly(3),
    flags: PUBLISHING,
    channels: Channels::First,
    handler: Session(|call, reply| publish(call, reply, Kind::Channel)),
    since: "2.0.0",
    group: "pubsub",
    complexity: "O(log N), when N is the number of patterns; each worker sends the copies to its own clients",
    syntax: "channel message",
    summary: "Sends a message to all who have subscribed to the channel or to a pattern that matches its name.",
    ..Command::DEFAULT
};

static SPUBLISH: Command = Command {
    name: "SPUBLISH",
    keys: Keys(&[KeySpec::at(1, "not_key")]),
    handler: Session(|call, reply| publish(call, reply, Kind::Shard)),
    since: "7.0.0",
    complexity: "O(1); each worker sends the copies to its own clients",
    syntax: "shardchannel message",
    summary: "Sends a message to all who have subscribed to the shard channel.",
    ..PUBLISH
};

fn publish(call: &mut SessionCall<'_>, reply: Reply<'_>, kind: Kind) -> Outcome {
    let (server, client) = (call.server, &mut *call.client);
    let (channel, text) = (call.args.at(1), call.args.at(2));
    // The message may show anything that its sender has written or seen.
    let copies = match client.in_exec {
        _ if client.in_script => {
            client.published = Some((kind, channel.into(), text.into()));
            server.channels.publish(kind, channel, |_, _| {})
        }
        false => server.publish_on(kind, channel, text, || Needs::Block(server.store.journal().position())),
        true => {
            let own = &mut client.own_block;
            server.publish_on(kind, channel, text, || own.get_or_insert_with(|| OwnBlock::new(server)).needs())
        }
    };
    Ok(reply.int(copies as i64))
}

static PUBSUB: Command = Command {
    name: "PUBSUB",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[&CHANNELS, &HELP, &NUMPAT, &NUMSUB, &SHARDCHANNELS, &SHARDNUMSUB]),
    since: "2.8.0",
    group: "pubsub",
    complexity: "Depends on subcommand.",
    summary: "Commands about channels and their subscribers.",
    ..Command::DEFAULT
};

static CHANNELS: Command = Command {
    name: "CHANNELS",
    flags: DESCRIBING,
    handler: Session(|call, reply| channels(call, reply, Kind::Channel)),
    complexity: "O(N), when N is the number of channels",
    syntax: "[pattern]",
    summary: "The channels with subscribers.",
    ..PUBSUB
};

static SHARDCHANNELS: Command = Command {
    name: "SHARDCHANNELS",
    handler: Session(|call, reply| channels(call, reply, Kind::Shard)),
    since: "7.0.0",
    complexity: "O(N), when N is the number of shard channels",
    summary: "The shard channels with subscribers.",
    ..CHANNELS
};

fn channels(call: &mut SessionCall<'_>, reply: Reply<'_>, kind: Kind) -> Outcome {
    if call.args.len() > 3 {
        return Err(CommandError::subcommand_syntax(call.args.at(1), "PUBSUB"));
    }
    let names = call.server.channels.list(kind, call.args.get(2));
    let mut elements = reply.array(names.len());
    names.iter().for_each(|name| elements.bulk(name));
    Ok(elements.done())
}

static NUMSUB: Command = Command {
    name: "NUMSUB",
    handler: Session(|call, reply| numsub(call, reply, Kind::Channel)),
    complexity: "O(N), when N is the number of channels asked for",
    syntax: "[channel [channel ...]]",
    summary: "How many clients have subscribed to each of these channels, not counting patterns.",
    ..CHANNELS
};

static SHARDNUMSUB: Command = Command {
    name: "SHARDNUMSUB",
    handler: Session(|call, reply| numsub(call, reply, Kind::Shard)),
    since: "7.0.0",
    complexity: "O(N), when N is the number of shard channels asked for",
    syntax: "[shardchannel [shardchannel ...]]",
    summary: "How many clients have subscribed to each of these shard channels.",
    ..CHANNELS
};

fn numsub(call: &mut SessionCall<'_>, reply: Reply<'_>, kind: Kind) -> Outcome {
    let names = call.args.from(2);
    let mut pairs = reply.array(2 * (call.args.len() - 2));
    for name in names {
        pairs.bulk(name);
        pairs.int(call.server.channels.subscribers(kind, name) as i64);
    }
    Ok(pairs.done())
}

static NUMPAT: Command = Command {
    name: "NUMPAT",
    arity: Arity::Exactly(2),
    handler: Session(|call, reply| Ok(reply.int(call.server.channels.len(Kind::Pattern) as i64))),
    complexity: "O(1)",
    syntax: "",
    summary: "How many different patterns have subscribers.",
    ..CHANNELS
};

static HELP: Command = Command {
    name: "HELP",
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE),
    handler: Session(pubsub_help),
    since: "6.2.0",
    complexity: "O(1)",
    summary: "What the subcommands do.",
    ..PUBSUB
};

fn pubsub_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::testing::Runner;

    /// Subscribes by another connection, and publishes until its worker, which does not run, is congested.
    fn congested(t: &mut Runner) {
        let mut another = t.connection();
        for number in 0..40 {
            another.subscribe(&t.server, super::Kind::Pattern, format!("*{}", "c".repeat(number)).as_bytes());
        }
        let channel = "c".repeat(40);
        while !t.server.mailboxes.is_congested() {
            assert_eq!(t.run(&format!("PUBLISH {channel} text")), ":40 ");
        }
    }

    #[test]
    fn publishing_waits_for_a_congested_worker_and_nothing_else_does() {
        let mut t = Runner::new();
        congested(&mut t);
        assert!(t.is_parked("PUBLISH c text") && t.is_parked("SPUBLISH c text"));
        for line in ["MULTI", "SET k v"] {
            t.run(line);
        }
        assert!(t.is_parked("PUBLISH c text"));
        assert_eq!(t.run("GET k"), "+QUEUED ");
        assert_eq!(t.run("EXEC"), "*2 +OK $1 v ");
        assert_eq!(t.run("SUBSCRIBE a"), "*3 $9 subscribe $1 a :1 ");
        assert_eq!(t.run("UNSUBSCRIBE"), "*3 $11 unsubscribe $1 a :0 ");
        assert!(!t.is_parked("SET k v"));
        t.run("CONFIG SET notify-keyspace-events KEA");
        assert!(t.is_parked("SET k v") && !t.is_parked("GET k"), "a write is told to subscribers, too");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        while t.server.mailboxes.has_unread(0) {
            runtime.block_on(t.server.mailboxes.receive(0, &mut VecDeque::new()));
        }
        assert_eq!(t.run("PUBLISH c text"), ":2 ");
    }

    #[test]
    fn a_transaction_that_publishes_waits_as_a_whole() {
        let mut t = Runner::new();
        for line in ["MULTI", "SET k v", "PUBLISH c text"] {
            t.run(line);
        }
        let mut other = t.connection();
        std::mem::swap(&mut t.client, &mut other);
        congested(&mut t);
        std::mem::swap(&mut t.client, &mut other);
        assert!(t.is_parked("EXEC"));
        assert!(t.client.transaction.is_some(), "nothing has happened");
    }

    #[test]
    fn a_subscriber_is_shown_as_one() {
        let mut t = Runner::new();
        let listed = |t: &mut Runner| t.run("CLIENT LIST");
        t.run("HELLO 3");
        assert!(listed(&mut t).contains(" flags=N ") && listed(&mut t).contains(" sub=0 psub=0 ssub=0 "));
        for line in ["SUBSCRIBE a b", "PSUBSCRIBE p*", "SSUBSCRIBE s", "UNSUBSCRIBE b"] {
            t.run(line);
        }
        let line = listed(&mut t);
        assert!(line.contains(" flags=P ") && line.contains(" sub=1 psub=1 ssub=1 "), "{line}");
        assert!(t.run("CLIENT LIST TYPE pubsub").contains("id=1 ") && t.run("CLIENT LIST TYPE normal").len() < 10);
        assert!(t.run("INFO clients").contains("pubsub_clients:1 "));
        let stats = t.run("INFO stats");
        for field in ["pubsub_channels:1 ", "pubsub_patterns:1 ", "pubsubshard_channels:1 "] {
            assert!(stats.contains(field), "{field}");
        }
        for line in ["UNSUBSCRIBE", "SUNSUBSCRIBE", "PUNSUBSCRIBE"] {
            t.run(line);
        }
        assert!(listed(&mut t).contains(" flags=N ") && t.run("INFO clients").contains("pubsub_clients:0 "));
    }
}

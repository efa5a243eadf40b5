//! Who and where the node is.
//!
//! A client is told the address by which it has reached the server, unless `cluster-announce-ip` names another. Redis
//! learns its own address from other nodes only, and tells an empty one until it meets some.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{QUESTION, of};
use crate::base::config::{EndpointType, Settings};
use crate::base::slot;
use crate::core::cluster::Node;
use crate::core::{Arity, Command, CommandError, Handler, Outcome, SessionCall, flags};
use crate::resp::Reply;
use crate::resp::reply::Elements;

/// How far the cluster bus of Redis is above the port.
const BUS_ABOVE: u16 = 10_000;
/// Stands for a missing name of the host.
const NO_HOST_NAME: &str = "?";

/// What clients are told of the node.
struct Told {
    node: Arc<Node>,
    settings: Arc<Settings>,
    ip: String,
    port: u16,
    bus_port: u16,
}

impl Told {
    fn to(call: &SessionCall<'_>) -> Result<Told, CommandError> {
        let (node, settings) = (of(call.server)?.node(), call.server.config.settings());
        let ip = match &*settings.cluster_announce_ip {
            "" => reached_by(&call.client.record.local),
            given => given.to_owned(),
        };
        let or = |given: u16, otherwise: u16| if given == 0 { otherwise } else { given };
        let port = or(settings.cluster_announce_port, settings.port);
        let bus_port = or(settings.cluster_port, settings.port.saturating_add(BUS_ABOVE));
        let bus_port = or(settings.cluster_announce_bus_port, bus_port);
        Ok(Told { node, settings, ip, port, bus_port })
    }

    fn host_name(&self) -> &str {
        &self.settings.cluster_announce_hostname
    }

    fn prefers(&self) -> EndpointType {
        self.settings.cluster_preferred_endpoint_type
    }

    /// What clients are to connect to; `None` for what they have connected to.
    fn endpoint(&self) -> Option<&str> {
        match self.prefers() {
            EndpointType::Ip => Some(&self.ip),
            EndpointType::HostName if self.host_name().is_empty() => Some(NO_HOST_NAME),
            EndpointType::HostName => Some(self.host_name()),
            EndpointType::Unknown => None,
        }
    }

    /// The line of CLUSTER NODES.
    fn line(&self) -> String {
        let host = match self.host_name() {
            "" => String::new(),
            name => format!(",{name}"),
        };
        let (Node { id, config_epoch, .. }, Told { ip, port, bus_port, .. }) = (&*self.node, self);
        format!("{id} {ip}:{port}@{bus_port}{host} myself,master - 0 0 {config_epoch} connected 0-{}", slot::SLOTS - 1)
    }
}

/// The address in `ip:port`; empty for a unix socket.
fn reached_by(local: &str) -> String {
    local.parse::<SocketAddr>().map(|address| address.ip().to_canonical().to_string()).unwrap_or_default()
}

pub(super) static MYID: Command =
    Command { name: "MYID", handler: Handler::Session(myid), summary: "The id of the node.", ..QUESTION };

fn myid(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.bulk(of(call.server)?.node().id.as_bytes()))
}

pub(super) static MYSHARDID: Command = Command {
    name: "MYSHARDID",
    handler: Handler::Session(myshardid),
    since: "7.2.0",
    tips: "nondeterministic_output",
    summary: "The id of the node's shard.",
    ..QUESTION
};

fn myshardid(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.bulk(of(call.server)?.node().shard_id.as_bytes()))
}

pub(super) static INFO: Command = Command {
    name: "INFO",
    handler: Handler::Session(info),
    tips: "nondeterministic_output",
    summary: "The state of the cluster.",
    ..QUESTION
};

fn info(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let node = of(call.server)?.node();
    let fields = [
        ("slots_assigned", slot::SLOTS as u64),
        ("slots_ok", slot::SLOTS as u64),
        ("slots_pfail", 0),
        ("slots_fail", 0),
        ("known_nodes", 1),
        ("size", 1),
        ("current_epoch", node.current_epoch),
        ("my_epoch", node.config_epoch),
        ("stats_messages_sent", 0),
        ("stats_messages_received", 0),
    ];
    let mut text = String::from("cluster_state:ok\r\n");
    for (name, value) in fields {
        text += &format!("cluster_{name}:{value}\r\n");
    }
    text += "total_cluster_links_buffer_limit_exceeded:0\r\n";
    Ok(reply.verbatim("txt", text.as_bytes()))
}

pub(super) static NODES: Command = Command {
    name: "NODES",
    handler: Handler::Session(nodes),
    complexity: "O(N)",
    tips: "nondeterministic_output",
    summary: "The nodes of the cluster, a line each, as in the file of Redis.",
    ..QUESTION
};

fn nodes(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let line = Told::to(call)?.line() + "\n";
    Ok(reply.verbatim("txt", line.as_bytes()))
}

pub(super) static SLOTS: Command = Command {
    name: "SLOTS",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(slots),
    complexity: "O(N)",
    tips: "nondeterministic_output",
    summary: "Which node serves which slots.",
    ..QUESTION
};

fn slots(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let told = Told::to(call)?;
    let mut ranges = reply.array(1);
    let mut range = ranges.array(3);
    range.int(0);
    range.int(slot::SLOTS as i64 - 1);
    let mut node = range.array(4);
    match told.endpoint() {
        Some(endpoint) => node.bulk(endpoint.as_bytes()),
        None => node.null(),
    }
    node.int(told.port.into());
    node.bulk(told.node.id.as_bytes());
    // What the endpoint does not tell.
    let ip = (told.prefers() != EndpointType::Ip).then_some(("ip", &*told.ip));
    let host_name = Some(("hostname", told.host_name()));
    let host_name = host_name.filter(|(_, name)| told.prefers() != EndpointType::HostName && !name.is_empty());
    let rest = [ip, host_name].into_iter().flatten();
    let mut map = node.map(rest.clone().count());
    rest.for_each(|(name, value)| pair(&mut map, name, value));
    map.end();
    node.end();
    range.end();
    Ok(ranges.done())
}

fn pair(map: &mut Elements<'_>, name: &str, value: &str) {
    map.bulk(name.as_bytes());
    map.bulk(value.as_bytes());
}

pub(super) static SHARDS: Command = Command {
    name: "SHARDS",
    handler: Handler::Session(shards),
    since: "7.0.0",
    summary: "The nodes of the cluster by shard, and the slots of each.",
    ..SLOTS
};

fn shards(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let told = Told::to(call)?;
    let tls_port = match told.settings.cluster_announce_tls_port {
        0 => told.settings.tls_port,
        given => given,
    };
    let ports = [("port", told.port), ("tls-port", tls_port)].into_iter().filter(|(_, port)| *port != 0);
    let mut shards = reply.array(1);
    let mut shard = shards.map(2);
    shard.bulk(b"slots");
    let mut range = shard.array(2);
    range.int(0);
    range.int(slot::SLOTS as i64 - 1);
    range.end();
    shard.bulk(b"nodes");
    let mut nodes = shard.array(1);
    let mut node = nodes.map(6 + ports.clone().count() + usize::from(!told.host_name().is_empty()));
    pair(&mut node, "id", &told.node.id);
    for (name, port) in ports {
        node.bulk(name.as_bytes());
        node.int(port.into());
    }
    pair(&mut node, "ip", &told.ip);
    pair(&mut node, "endpoint", told.endpoint().unwrap_or_default());
    if !told.host_name().is_empty() {
        pair(&mut node, "hostname", told.host_name());
    }
    pair(&mut node, "role", "master");
    node.bulk(b"replication-offset");
    node.int(0);
    pair(&mut node, "health", "online");
    node.end();
    nodes.end();
    shard.end();
    Ok(shards.done())
}

pub(super) static LINKS: Command = Command {
    name: "LINKS",
    handler: Handler::Session(links),
    since: "7.0.0",
    complexity: "O(N)",
    tips: "nondeterministic_output",
    summary: "The links to other nodes; there are none.",
    ..QUESTION
};

fn links(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    of(call.server)?;
    Ok(reply.array(0).done())
}

pub(super) static REPLICAS: Command = Command {
    name: "REPLICAS",
    arity: Arity::Exactly(3),
    flags: flags::ADMIN.or(flags::STALE),
    handler: Handler::Session(replicas),
    since: "5.0.0",
    complexity: "O(N)",
    tips: "nondeterministic_output",
    syntax: "node-id",
    summary: "The replicas of a node; it has none.",
    ..QUESTION
};

pub(super) static SLAVES: Command = Command { name: "SLAVES", since: "3.0.0", ..REPLICAS };

fn replicas(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    check_is_me(call, 2)?;
    Ok(reply.array(0).done())
}

/// Checks that an argument is the id of this node. There is no other.
pub(super) fn check_is_me(call: &SessionCall<'_>, at: usize) -> Result<(), CommandError> {
    let id = call.args.at(at);
    match of(call.server)?.node().id.as_bytes() == id {
        true => Ok(()),
        false => Err(CommandError::echo("Unknown node ", id, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::reached_by;

    #[test]
    fn a_client_has_reached_an_address() {
        assert_eq!(reached_by("127.0.0.1:6379"), "127.0.0.1");
        assert_eq!(reached_by("[::1]:6379"), "::1");
        assert_eq!(reached_by("[::ffff:10.0.0.1]:6379"), "10.0.0.1", "a socket for both protocols");
        assert_eq!(reached_by("/run/ironkeep.sock:0"), "");
    }
}

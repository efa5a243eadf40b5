//! Random sequences of several connections that subscribe, publish and leave: what each of them receives must be what
//! it receives from the reference, in the same order.
//!
//! After each command every connection sends a PING: all that comes before its reply was sent before. In RESP3 pushes
//! and replies are compared apart, because Redis 7.0 sends a message to oneself before the reply and later versions
//! behind it.

use crate::cases::difference;
use crate::compare::{Clients, Pair, Protocol};
use crate::support::client::{Client, encode, show};
use crate::support::random::Random;
use crate::support::reply::{self, Reply};

const CONNECTIONS: usize = 5;
const STEPS: usize = 400;

type Command = Vec<String>;

const NAMES: &[&str] = &[
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "PUBLISH",
    "PUBLISH",
    "PUBLISH",
    "PUBLISH",
    "SPUBLISH",
    "PUBSUB NUMSUB",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDNUMSUB",
    "PING",
    "GET",
];

fn channel(random: &mut Random) -> String {
    random.pick(&["a", "b", "ab", "abc", "news.1", "news.2", ""]).to_owned()
}

fn pattern(random: &mut Random) -> String {
    random.pick(&["*", "a*", "?", "a?", "news.*", "[ab]", "*b*", "abc", "x*"]).to_owned()
}

/// What one connection does next: one command, or those of a transaction.
fn commands(random: &mut Random) -> Vec<Command> {
    let one = |random: &mut Random| -> Command {
        let name = random.pick(NAMES);
        let mut command: Command = name.split(' ').map(str::to_owned).collect();
        match name {
            "PUBLISH" | "SPUBLISH" => command.extend([channel(random), random.below(1000).to_string()]),
            "PSUBSCRIBE" | "PUNSUBSCRIBE" => command.extend((0..=random.below(2)).map(|_| pattern(random))),
            "PUBSUB NUMPAT" | "PING" => {}
            "GET" => command.push("k".to_owned()),
            _ => command.extend((0..=random.below(2)).map(|_| channel(random))),
        }
        command
    };
    if random.below(8) > 0 {
        return vec![one(random)];
    }
    let mut all = vec![vec!["MULTI".to_owned()]];
    all.extend((0..random.below(4)).map(|_| one(random)));
    all.push(vec!["EXEC".to_owned()]);
    all
}

/// Everything that a connection has received, up to the reply to a PING.
fn receive_all(client: &mut Client, token: &str) -> Vec<Vec<u8>> {
    client.send(&encode(&["PING", token])).expect("the connection holds");
    let is_end = |frame: &Reply| match frame {
        Reply::Text(b'$', text) => text == token.as_bytes(),
        Reply::Aggregate(b'*', parts) => parts.len() == 2 && parts.iter().any(|part| is_text(part, token)),
        _ => false,
    };
    let mut frames = Vec::new();
    loop {
        let frame = client.receive().expect("the server answers");
        if is_end(&reply::parse(&frame)) {
            return frames;
        }
        frames.push(frame);
    }
}

fn is_text(reply: &Reply, text: &str) -> bool {
    matches!(reply, Reply::Text(b'$', bytes) if bytes == text.as_bytes())
}

/// Copies of one message for several patterns come in any order, so each run of them is sorted.
fn settled(frames: Vec<Vec<u8>>, protocol: Protocol) -> Vec<Vec<u8>> {
    let is_copy = |frame: &[u8]| frame.get(4..16) == Some(b"$8\r\npmessage");
    let mut frames = frames;
    frames
        .chunk_by_mut(|one, next| is_copy(one) && is_copy(next) && text_of(one) == text_of(next))
        .for_each(<[_]>::sort);
    if protocol == Protocol::Resp3 {
        let (pushes, replies): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame.starts_with(b">"));
        return [replies, pushes].concat();
    }
    frames
}

/// The channel and the text of a copy for a pattern.
fn text_of(frame: &[u8]) -> Vec<Reply> {
    reply::parse(frame).elements()[2..].to_vec()
}

fn random_messages(threads: usize, protocol: Protocol) {
    let pair = Pair::with_threads(threads);
    let seed = Random::seed_of_this_run();
    let mut random = Random::new(seed);
    let mut connections: Vec<Clients> = (0..CONNECTIONS).map(|_| pair.clients(protocol)).collect();
    let mut done: Vec<String> = Vec::new();
    let mut received = 0;
    for step in 0..STEPS {
        let who = random.below(CONNECTIONS);
        let mut batch = commands(&mut random);
        let listens = protocol == Protocol::Resp3 || batch.iter().any(|command| command[0].ends_with("SUBSCRIBE"));
        if listens && batch.len() > 1 {
            // Redis 7.0 writes messages to oneself into the middle of EXEC's reply.
            batch.retain(|command| !command[0].ends_with("PUBLISH"));
        }
        for command in &batch {
            done.push(format!("    {who}> {}", show(command)));
            let Clients { reference, tested } = &mut connections[who];
            for client in [reference, tested] {
                client.send(&encode(command)).expect("the connection holds");
            }
        }
        for at in (who..CONNECTIONS).chain(0..who) {
            let token = format!("step:{step}:{at}");
            let clients = &mut connections[at];
            let reference = settled(receive_all(&mut clients.reference, &token), protocol);
            let tested = settled(receive_all(&mut clients.tested, &token), protocol);
            received += reference.len();
            let last: Vec<_> = done.iter().rev().take(60).rev().cloned().collect();
            assert!(
                reference == tested,
                "IRONKEEP_TEST_SEED={seed}, {protocol:?}, {threads} threads:\n{}\n    and connection {at} receives\n{}",
                last.join("\n"),
                difference(&reference.concat(), &tested.concat())
            );
        }
    }
    assert!(received > STEPS, "{received} replies and messages");
}

#[test]
fn one_worker() {
    random_messages(1, Protocol::Resp2);
}

#[test]
fn two_workers() {
    random_messages(2, Protocol::Resp3);
}

#[test]
fn four_workers() {
    random_messages(4, Protocol::Resp2);
    random_messages(4, Protocol::Resp3);
}

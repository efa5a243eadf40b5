//! Random sequences of connections that track keys, in all modes: what each of them is told after each step must be
//! what the reference tells it, as a set, and what it replies must be the same.

use std::collections::BTreeSet;

use crate::cases::difference;
use crate::compare::{Clients, Pair, Protocol};
use crate::support::client::{Client, encode, show};
use crate::support::random::Random;
use crate::support::reply::{self, Reply};

/// The first of them receive what others redirect to them.
const CONNECTIONS: usize = 6;
const RECEIVERS: usize = 2;
const STEPS: usize = 500;

type Command = Vec<String>;

fn key(random: &mut Random) -> String {
    random.pick(&["a", "b", "ab", "ac", "b:1", "l", "h", ""]).to_owned()
}

fn words(line: &str) -> Command {
    line.split(' ').map(str::to_owned).collect()
}

fn read(random: &mut Random) -> Command {
    match random.below(6) {
        0 => vec!["MGET".into(), key(random), key(random)],
        1 => vec!["EXISTS".into(), key(random), key(random)],
        2 => vec!["LRANGE".into(), "l".into(), "0".into(), "-1".into()],
        3 => vec!["HGETALL".into(), "h".into()],
        _ => vec!["GET".into(), key(random)],
    }
}

fn write(random: &mut Random) -> Command {
    let number = random.below(1000).to_string();
    match random.below(14) {
        0 => vec!["DEL".into(), key(random), key(random)],
        1 => vec!["MSET".into(), key(random), number.clone(), key(random), number],
        2 => words("RPUSH l x"),
        3 => words("LPOP l"),
        4 => words("HSET h f v"),
        5 => words("HDEL h f"),
        6 => vec!["RENAME".into(), key(random), key(random)],
        7 => vec!["EXPIRE".into(), key(random), "1000".into()],
        8 => vec!["APPEND".into(), key(random), "x".into()],
        9 => vec!["COPY".into(), key(random), key(random), "REPLACE".into()],
        10 if random.one_in(4) => words("FLUSHALL"),
        11 => vec!["PERSIST".into(), key(random)],
        12 => vec!["INCR".into(), key(random)],
        _ => vec!["SET".into(), key(random), number],
    }
}

fn tracking(random: &mut Random, protocol: Protocol) -> Command {
    let mut command = words("CLIENT TRACKING");
    if random.one_in(5) {
        command.push("off".to_owned());
        return command;
    }
    command.push("on".to_owned());
    match random.below(6) {
        0 | 1 => {
            command.push("BCAST".to_owned());
            for prefix in [["PREFIX", "a"], ["PREFIX", "b"]] {
                if random.one_in(2) {
                    command.extend(prefix.map(str::to_owned));
                }
            }
        }
        2 => command.push("OPTIN".to_owned()),
        3 => command.push("OPTOUT".to_owned()),
        _ => {}
    }
    if random.one_in(3) {
        command.push("NOLOOP".to_owned());
    }
    // In RESP2 nobody else is told.
    if protocol == Protocol::Resp2 && random.below(5) > 0 || random.one_in(3) {
        // The id of this receiver stands here.
        command.extend(["REDIRECT".to_owned(), format!("{{{}}}", random.below(RECEIVERS))]);
    }
    command
}

/// What a connection does next: one command, or those of a transaction.
fn commands(random: &mut Random, protocol: Protocol) -> Vec<Command> {
    let one = |random: &mut Random| match random.below(12) {
        0 => tracking(random, protocol),
        1 => words("CLIENT TRACKINGINFO"),
        2 => words(random.pick(&["CLIENT CACHING YES", "CLIENT CACHING NO"])),
        3..=6 => read(random),
        _ => write(random),
    };
    if random.below(6) > 0 {
        return vec![one(random)];
    }
    let mut all = vec![words("MULTI")];
    all.extend((0..random.below(4)).map(|_| if random.one_in(2) { read(random) } else { write(random) }));
    all.push(words("EXEC"));
    all
}

/// Everything that a connection has received, up to the reply to a PING behind so many replies: these replies, and the
/// keys it was told of.
fn receive_all(client: &mut Client, count: usize, token: &str) -> (Vec<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let (mut replies, mut told) = (Vec::new(), BTreeSet::new());
    let ping = |client: &mut Client| client.send(&encode(&["PING", token])).expect("the connection holds");
    if count == 0 {
        ping(client);
    }
    loop {
        let frame = client.receive().expect("the server answers");
        let parts = match reply::parse(&frame) {
            Reply::Text(b'$', text) if text == token.as_bytes() => return (replies, told),
            Reply::Aggregate(b'*', parts) if is_text(parts.first(), "pong") => {
                assert!(is_text(parts.get(1), token));
                return (replies, told);
            }
            Reply::Aggregate(b'>', parts) => parts,
            Reply::Aggregate(b'*', parts) if is_text(parts.first(), "message") => parts[1..].to_vec(),
            _ => {
                replies.push(frame);
                // Not before: what arrives together is executed together, and told of behind all of it.
                if replies.len() == count {
                    ping(client);
                }
                continue;
            }
        };
        match &parts[1] {
            Reply::Aggregate(b'*', keys) => told.extend(keys.iter().map(|key| key.text().to_vec())),
            Reply::Null(_) => drop(told.insert(b"(all)".to_vec())),
            other => panic!("{other:?}"),
        }
    }
}

fn is_text(reply: Option<&Reply>, text: &str) -> bool {
    matches!(reply, Some(Reply::Text(b'$', bytes)) if bytes == text.as_bytes())
}

/// The command with the ids of receivers in their places.
fn with_ids(command: &Command, ids: &[String]) -> Command {
    let put = |word: &String| match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
        Some(at) => ids[at.parse::<usize>().expect("a number")].clone(),
        None => word.clone(),
    };
    command.iter().map(put).collect()
}

fn id_of(client: &mut Client) -> String {
    client.ok("CLIENT ID").integer().to_string()
}

fn random_trackers(threads: usize, protocol: Protocol) {
    let pair = Pair::with_threads(threads);
    let seed = Random::seed_of_this_run();
    let mut random = Random::new(seed);
    let mut connections: Vec<Clients> = (0..CONNECTIONS).map(|_| pair.clients(protocol)).collect();
    let mut ids = [Vec::new(), Vec::new()];
    for Clients { reference, tested } in &mut connections[..RECEIVERS] {
        for (client, ids) in [reference, tested].into_iter().zip(&mut ids) {
            ids.push(id_of(client));
            client.call(&["SUBSCRIBE", "__redis__:invalidate"]);
        }
    }
    // While anybody tracks, neither server forgets tracked keys.
    let mut lasting = pair.clients(protocol);
    for client in [&mut lasting.reference, &mut lasting.tested] {
        client.ok("CLIENT TRACKING on");
    }
    let (mut done, mut count): (Vec<String>, usize) = (Vec::new(), 0);
    for step in 0..STEPS {
        let who = RECEIVERS + random.below(CONNECTIONS - RECEIVERS);
        let batch = commands(&mut random, protocol);
        for command in &batch {
            done.push(format!("    {who}> {}", show(command)));
            let Clients { reference, tested } = &mut connections[who];
            for (client, ids) in [reference, tested].into_iter().zip(&ids) {
                client.send(&encode(&with_ids(command, ids))).expect("the connection holds");
            }
        }
        // First all who track may hear of it, then the receivers of what they redirect.
        for at in (who..CONNECTIONS).chain(RECEIVERS..who).chain(0..RECEIVERS) {
            let token = format!("step:{step}:{at}");
            let clients = &mut connections[at];
            let sent = if at == who { batch.len() } else { 0 };
            let (mut replies, told) = receive_all(&mut clients.reference, sent, &token);
            let (mut tested_replies, tested_told) = receive_all(&mut clients.tested, sent, &token);
            for (replies, ids) in [&mut replies, &mut tested_replies].into_iter().zip(&ids) {
                without_ids(replies, ids);
            }
            count += told.len();
            let last: Vec<_> = done.iter().rev().take(60).rev().cloned().collect();
            let context = format!(
                "IRONKEEP_TEST_SEED={seed}, {protocol:?}, {threads} threads:\n{}\n    and connection {at}",
                last.join("\n")
            );
            assert!(
                replies == tested_replies,
                "{context} receives\n{}",
                difference(&replies.concat(), &tested_replies.concat())
            );
            assert_eq!(told, tested_told, "{context} is told of other keys");
        }
    }
    assert!(count > 10, "{count} keys were told");
}

/// Ids differ from one server to the other.
fn without_ids(replies: &mut [Vec<u8>], ids: &[String]) {
    for reply in replies {
        let mut text = String::from_utf8_lossy(reply).into_owned();
        for (at, id) in ids.iter().enumerate() {
            text = text.replace(&format!("redirect\r\n:{id}\r\n"), &format!("redirect\r\n:receiver {at}\r\n"));
        }
        *reply = text.into_bytes();
    }
}

#[test]
fn one_worker() {
    random_trackers(1, Protocol::Resp3);
    random_trackers(1, Protocol::Resp2);
}

#[test]
fn four_workers() {
    random_trackers(4, Protocol::Resp3);
    random_trackers(4, Protocol::Resp2);
}

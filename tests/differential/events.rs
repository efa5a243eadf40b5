//! Random sequences of commands, with a subscriber to all events of keys: both servers publish the same events, in the
//! same order, with the same bytes.
//!
//! Left out of the comparison is what another moment or another version explains: `expired`, which Redis tells when it
//! finds the key (and a miss, when SCAN finds one), or `del` where a command removes it without a look at its time; and
//! new consumers of groups, which Redis 7.0 makes later than its successors.

use std::collections::BTreeSet;

use crate::compare::{Pair, Protocol};
use crate::support::client::{Client, encode, show};
use crate::support::generator::{Command, Generator};
use crate::support::random::Random;
use crate::support::reply;

/// How many commands lie between two looks at the events.
const BATCH: usize = 10;

/// A connection that runs commands, and one that hears of them.
struct Ears {
    driver: Client,
    subscriber: Client,
    /// The keys of which nothing else was told since they have expired.
    over: BTreeSet<Vec<u8>>,
}

/// What some commands have come to.
struct Ran {
    replies: Vec<Vec<u8>>,
    /// What was published meanwhile, as it came.
    heard: Vec<Vec<u8>>,
    /// Which keys were over then.
    expired: BTreeSet<Vec<u8>>,
}

impl Ears {
    fn open(mut driver: Client, mut subscriber: Client, protocol: Protocol) -> Ears {
        driver.ok("CONFIG SET notify-keyspace-events KEAnm");
        if protocol == Protocol::Resp3 {
            subscriber.ok("HELLO 3");
        }
        subscriber.ok("PSUBSCRIBE __key*__:*");
        Ears { driver, subscriber, over: BTreeSet::new() }
    }

    /// Runs commands.
    fn run(&mut self, commands: &[Command]) -> Ran {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        self.driver.send(&bytes).expect("the connection holds");
        let replies = commands.iter().map(|_| self.driver.receive().expect("a reply")).collect();
        self.subscriber.send(&encode(&["PING", "end"])).expect("the connection holds");
        let scans = commands.iter().any(|command| command[0].eq_ignore_ascii_case(b"SCAN"));
        let (mut heard, mut expired) = (Vec::new(), self.over.clone());
        loop {
            let next = self.subscriber.receive().expect("an event, or the end");
            if next == b"$3\r\nend\r\n" || next == b"*2\r\n$4\r\npong\r\n$3\r\nend\r\n" {
                return Ran { replies, heard, expired };
            }
            let (key, event) = event_of(&next);
            if event == b"expired" {
                self.over.insert(key.clone());
                expired.insert(key);
            } else if event != b"keymiss" {
                self.over.remove(&key);
            }
            if !is_left_out(&event, scans) {
                heard.push(next);
            }
        }
    }
}

/// The key and the event that a message tells of: one is in its channel, and one is its content.
fn event_of(message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let parsed = reply::parse(message);
    let (channel, content) = (parsed.elements()[2].text(), parsed.elements()[3].text());
    let named = channel.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default();
    match channel.starts_with(b"__keyspace") {
        true => (named.to_vec(), content.to_vec()),
        false => (content.to_vec(), named.to_vec()),
    }
}

/// Whether an event is not compared.
fn is_left_out(event: &[u8], scans: bool) -> bool {
    let of_consumers = event == b"xgroup-createconsumer" || event == b"xgroup-delconsumer";
    event == b"expired" || of_consumers || scans && event == b"keymiss"
}

/// Whether what was heard is what was expected. `expired` are keys of which Ironkeep has told that, and Redis, which
/// removes the target of BITOP or SORT without a look at its time, perhaps `del`.
fn is_alike(expected: &[Vec<u8>], heard: &[Vec<u8>], expired: &BTreeSet<Vec<u8>>) -> bool {
    let mut heard = heard.iter().peekable();
    let all_found = expected.iter().all(|one| {
        let (key, event) = event_of(one);
        heard.next_if(|next| *next == one).is_some() || event == b"del" && expired.contains(&key)
    });
    all_found && heard.next().is_none()
}

/// Whether Redis has met a damaged HyperLogLog in the middle of its work and left the part that was done.
fn is_half_done(command: &Command, reference: &[u8]) -> bool {
    let name = command[0].to_ascii_uppercase();
    matches!(name.as_slice(), b"PFADD" | b"PFMERGE") && reference.starts_with(b"-INVALIDOBJ")
}

fn shown(heard: &[Vec<u8>]) -> String {
    let texts = heard.iter().map(|bytes| {
        let parsed = reply::parse(bytes);
        let elements = parsed.elements();
        format!("{} {}", elements[2].text().escape_ascii(), elements[3].text().escape_ascii())
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// Runs a sequence from empty databases. Returns what differs first, and by which command.
fn first_difference(pair: &Pair, protocol: Protocol, commands: &[Command], batch: usize) -> Option<(usize, String)> {
    pair.flush();
    let mut reference = Ears::open(pair.reference.client(), pair.reference.client(), protocol);
    let mut tested = Ears::open(pair.tested.client(), pair.tested.client(), protocol);
    for (number, chunk) in commands.chunks(batch).enumerate() {
        let Ran { replies, heard: expected, .. } = reference.run(chunk);
        let Ran { heard, expired, .. } = tested.run(chunk);
        if chunk.iter().zip(&replies).any(|(command, reply)| is_half_done(command, reply)) {
            // They hold different things now, and should.
            pair.flush();
            continue;
        }
        if !is_alike(&expected, &heard, &expired) {
            let at = number * batch + chunk.len();
            return Some((at, format!("    expected {}\n    heard    {}", shown(&expected), shown(&heard))));
        }
    }
    None
}

/// Removes what is not needed to show a difference, with a limited number of tries.
fn shorten(pair: &Pair, protocol: Protocol, mut commands: Vec<Command>) -> Vec<Command> {
    let (mut tries, mut size) = (200, commands.len() / 2);
    while size > 0 {
        let mut from = 0;
        while from < commands.len() && tries > 0 {
            tries -= 1;
            let mut fewer = commands.clone();
            fewer.drain(from..(from + size).min(commands.len()));
            match first_difference(pair, protocol, &fewer, BATCH) {
                Some((until, _)) => {
                    fewer.truncate(until);
                    commands = fewer;
                }
                None => from += size,
            }
        }
        size /= 2;
    }
    commands
}

fn random_sequences(threads: usize, protocol: Protocol) {
    let pair = Pair::with_threads(threads);
    let seed = Random::seed_of_this_run();
    for round in 0..4 {
        let seed = seed.wrapping_add(round);
        let mut random = Random::new(seed);
        let mut generator = Generator { random: &mut random };
        let mut commands: Vec<Command> = (0..1000).map(|_| generator.command()).collect();
        if let Some((until, text)) = first_difference(&pair, protocol, &commands, BATCH) {
            commands.truncate(until);
            let short = shorten(&pair, protocol, commands.clone());
            let text = first_difference(&pair, protocol, &short, 1).map_or(text, |(_, text)| text);
            let lines: Vec<String> = short.iter().map(|command| format!("    {}", show(command))).collect();
            panic!("IRONKEEP_TEST_SEED={seed}, {protocol:?}:\n{}\n{text}", lines.join("\n"));
        }
    }
}

#[test]
fn every_event_is_the_same() {
    random_sequences(1, Protocol::Resp2);
}

#[test]
fn every_event_is_the_same_on_four_threads() {
    random_sequences(4, Protocol::Resp3);
}

//! Long random sequences of string and key commands, good and malformed, on few keys.
//!
//! Every reply is compared, and at the end both keyspaces, by their digests too; then everything is loaded anew
//! from the disk and must be as before. Expiry times are far ahead or long past, so
//! that nothing depends on the clock. A failure prints its seed (`IRONKEEP_TEST_SEED` repeats it) and the
//! shortest sequence found that still shows a difference.

use crate::cases::difference;
use crate::compare::{Clients, Likeness, Pair, Protocol};
use crate::support::client::{Client, encode, show};
use crate::support::generator::{Command, Generator};
use crate::support::random::Random;
use crate::support::server::Recipe;

/// What is asked at the end, of both servers: every key of every database, in full.
fn last_look(clients: &mut Clients) -> Vec<Command> {
    let words = |line: &[&[u8]]| line.iter().map(|word| word.to_vec()).collect::<Command>();
    let mut commands = Vec::new();
    for database in 0..16 {
        let index = database.to_string();
        clients.reference.call(&["SELECT", &index]);
        commands.push(words(&[b"SELECT", index.as_bytes()]));
        // A key set with an expiry long past counts in Redis' DBSIZE until someone asks for it.
        let mut touch = vec![b"EXISTS".to_vec()];
        touch.extend(Generator::all_keys());
        commands.push(touch);
        commands.push(words(&[b"KEYS", b"*"]));
        commands.push(words(&[b"DBSIZE"]));
        let keys = crate::support::reply::parse(&clients.reference.call(&["KEYS", "*"]));
        for key in keys.elements() {
            commands.push(words(&[b"GET", key.text()]));
            commands.push(words(&[b"HGETALL", key.text()]));
            commands.push(words(&[b"XRANGE", key.text(), b"-", b"+"]));
            commands.push(words(&[b"LRANGE", key.text(), b"0", b"-1"]));
            commands.push(words(&[b"PEXPIRETIME", key.text()]));
            commands.push(words(&[b"OBJECT", b"ENCODING", key.text()]));
            commands.push(words(&[b"DEBUG", b"DIGEST-VALUE", key.text()]));
        }
    }
    // All values of all databases, byte for byte: what no command above has shown.
    commands.push(words(&[b"DEBUG", b"DIGEST"]));
    commands
}

/// What can be told of all keys without reading them out: the digest, and every key's encoding.
fn look_over(client: &mut Client) -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("DEBUG DIGEST".to_owned(), client.call(&["DEBUG", "DIGEST"]))];
    for database in 0..16 {
        client.call(&["SELECT", &database.to_string()]);
        for key in Generator::all_keys() {
            let encoding = client.call::<&[u8]>(&[b"OBJECT", b"ENCODING", &key]);
            // A short string that has grown in place is stored as any other short one, as with Redis.
            let is_string = encoding == b"$3\r\nraw\r\n" || encoding == b"$6\r\nembstr\r\n";
            let encoding = if is_string { b"a string".to_vec() } else { encoding };
            all.push((format!("{database} {}", key.escape_ascii()), encoding));
        }
    }
    all
}

/// Makes the server under test reload everything from the disk, and asserts that nothing changed.
fn assert_reload_changes_nothing(client: &mut Client, seed: u64) {
    let before = look_over(client);
    assert_eq!(client.call(&["DEBUG", "RELOAD"]), b"+OK\r\n");
    for (before, after) in before.iter().zip(look_over(client)) {
        let text = difference(&before.1, &after.1);
        assert_eq!(*before, after, "IRONKEEP_TEST_SEED={seed}, after DEBUG RELOAD, {}:\n{text}", before.0);
    }
}

fn likeness_of(command: &Command) -> Likeness {
    match command[0].to_ascii_uppercase().as_slice() {
        b"KEYS" | b"SCAN" => Likeness::Sorted,
        // Redis may or may not have removed the expired keys yet: see `last_look`.
        b"DBSIZE" if command.len() == 1 => Likeness::Form,
        b"OBJECT" => Likeness::Encoding,
        _ => Likeness::Exact,
    }
}

/// Runs a sequence from empty databases; gives the number of the first unlike reply and both replies.
fn first_difference(pair: &Pair, protocol: Protocol, commands: &[Command], batch: usize) -> Option<(usize, String)> {
    pair.flush();
    let mut clients = pair.clients(protocol);
    compare_all(&mut clients, commands, batch).or_else(|| {
        let look = last_look(&mut clients);
        compare_all(&mut clients, &look, batch).map(|(index, text)| {
            (commands.len().saturating_sub(1), format!("    at the end, {}\n{text}", show(&look[index])))
        })
    })
}

/// Whether Redis has met a damaged HyperLogLog in the middle of its work and left the part that was done, where
/// Ironkeep changes nothing.
fn is_half_done(command: &Command, reference: &[u8]) -> bool {
    let name = command[0].to_ascii_uppercase();
    matches!(name.as_slice(), b"PFADD" | b"PFMERGE") && reference.starts_with(b"-INVALIDOBJ")
}

fn compare_all(clients: &mut Clients, commands: &[Command], batch: usize) -> Option<(usize, String)> {
    let mut number = 0;
    for chunk in commands.chunks(batch) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|command| encode(command)).collect();
        for client in [&mut clients.reference, &mut clients.tested] {
            client.send(&bytes).expect("the connection holds");
        }
        let mut half_done = false;
        for command in chunk {
            let reference = clients.reference.receive().expect("the reference answers");
            let tested = match clients.tested.receive() {
                Ok(bytes) => bytes,
                Err(error) => return Some((number, format!("    no reply: {error}\n"))),
            };
            if !half_done && !likeness_of(command).holds(&reference, &tested) {
                return Some((number, difference(&reference, &tested)));
            }
            half_done |= is_half_done(command, &reference);
            number += 1;
        }
        if half_done {
            // They hold different things now, and should: both begin again from nothing.
            for client in [&mut clients.reference, &mut clients.tested] {
                client.call(&["FLUSHALL"]);
            }
        }
    }
    None
}

/// Removes what is not needed to show a difference, with a limited number of tries.
fn shorten(pair: &Pair, protocol: Protocol, mut commands: Vec<Command>) -> Vec<Command> {
    let mut tries = 300;
    let mut size = commands.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < commands.len() && tries > 0 {
            tries -= 1;
            let mut fewer = commands.clone();
            fewer.drain(from..(from + size).min(commands.len()));
            match first_difference(pair, protocol, &fewer, 64) {
                Some((index, _)) => {
                    fewer.truncate(index + 1);
                    commands = fewer;
                }
                None => from += size,
            }
        }
        size /= 2;
    }
    commands
}

fn random_sequences(threads: usize, batch: usize, protocol: Protocol) {
    let pair = Pair::with_threads(threads);
    let seed = Random::seed_of_this_run();
    for round in 0..8 {
        let seed = seed.wrapping_add(round);
        let mut random = Random::new(seed);
        let mut generator = Generator { random: &mut random };
        let mut commands: Vec<Command> = (0..1500).map(|_| generator.command()).collect();
        if let Some((index, text)) = first_difference(&pair, protocol, &commands, batch) {
            commands.truncate(index + 1);
            let short = shorten(&pair, protocol, commands.clone());
            let (shown, text) = match first_difference(&pair, protocol, &short, 1) {
                Some((_, text)) => (short, text),
                // Only the pipelined form shows it: the last commands are all there is to see.
                None => (commands.split_off(commands.len().saturating_sub(40)), text),
            };
            let lines: Vec<String> = shown.iter().map(|command| format!("    {}", show(command))).collect();
            panic!("IRONKEEP_TEST_SEED={seed}, {protocol:?}, batches of {batch}:\n{}\n{text}", lines.join("\n"));
        }
        // Redis itself chooses the encodings of what it reloads.
        if !Recipe::is_stand_in() {
            assert_reload_changes_nothing(&mut pair.tested.client(), seed);
        }
    }
}

#[test]
fn one_by_one() {
    random_sequences(1, 1, Protocol::Resp2);
}

#[test]
fn in_small_pipelines() {
    random_sequences(1, 7, Protocol::Resp3);
}

#[test]
fn in_deep_pipelines() {
    random_sequences(2, 200, Protocol::Resp2);
}

#[test]
fn on_four_threads() {
    random_sequences(4, 17, Protocol::Resp3);
}

/// The harness must find a planted difference and shorten it to what matters.
#[test]
fn a_difference_is_found_and_shortened() {
    let pair =
        Pair { reference: Recipe::reference().start(), tested: Recipe::reference().with("databases", "2").start() };
    let mut random = Random::new(1);
    let mut generator = Generator { random: &mut random };
    let mut commands: Vec<Command> = (0..500).map(|_| generator.command()).collect();
    let (index, _) = first_difference(&pair, Protocol::Resp2, &commands, 10).expect("databases 2 and 15 are used");
    commands.truncate(index + 1);
    let short = shorten(&pair, Protocol::Resp2, commands);
    assert!(short.len() <= 4, "{} commands are left", short.len());
}

/// Sequences of nothing but errors would prove little: most commands must succeed, on keys that exist.
#[test]
fn most_commands_succeed() {
    let server = Recipe::reference().start();
    let mut client = server.client();
    let mut random = Random::new(7);
    let mut generator = Generator { random: &mut random };
    let (mut errors, mut nothing) = (0, 0);
    for _ in 0..3000 {
        let reply = client.call(&generator.command());
        errors += usize::from(reply[0] == b'-');
        nothing += usize::from(reply == b"$-1\r\n");
    }
    assert!((300..1500).contains(&errors), "{errors} errors");
    assert!(nothing < 1000, "{nothing} times nothing");
}

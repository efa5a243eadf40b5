//! Scripts of random commands: they do what the same commands do in a transaction, their effects replay, and one that
//! is taken back leaves everything as it was.

use std::sync::Arc;

use super::testing::{Caller, start, state};
use crate::core::call::Wait;
use crate::core::{Handler, Server, flags};
use crate::exec::PATIENCE;
use crate::exec::testing::generator::{Command, Generator};
use crate::exec::testing::random::Random;
use crate::exec::testing::with_args;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;
use crate::resp::Output;

/// Runs a command, which may be a script that takes longer than a time slice, and returns its reply.
fn run(caller: &mut Caller, words: &[Vec<u8>]) -> String {
    let mut out = Output::new();
    with_args(
        words,
        |args| {
            while caller.executor.run(&mut caller.client, &[args], &mut out, PATIENCE).parked.is_some() {}
        },
    );
    let wait = caller.client.wait.take();
    while let Some(mut script) = caller.executor.take_suspended() {
        script.resume(Some(&mut caller.client));
        caller.executor.after_slice(script);
    }
    if let Some(Wait::Script(mut done)) = wait {
        out = done.try_recv().expect("the script has ended").0;
    }
    String::from_utf8_lossy(out.as_bytes()).into_owned()
}

/// A command that may be in a script and whose outcome is the same everywhere.
fn command(server: &Server, random: &mut Random) -> Command {
    const BY_CHANCE: &[&[u8]] = &[b"SPOP", b"SRANDMEMBER", b"HRANDFIELD", b"ZRANDMEMBER", b"RANDOMKEY", b"TOUCH"];
    loop {
        let words = Generator { random }.command();
        let is_fit = with_args(&words, |args| {
            server.table.resolve(args).is_ok_and(|entry| {
                matches!(entry.command.handler, Handler::Data(_)) && !entry.command.flags.has(flags::NOSCRIPT)
            })
        });
        let is_chance = BY_CHANCE.iter().any(|name| words[0].eq_ignore_ascii_case(name));
        let takes_time = words.iter().any(|word| word == b"*");
        if is_fit && !is_chance && !takes_time {
            return words;
        }
    }
}

/// A script that runs these commands, and then something else.
fn script(commands: &[Command], end: &str) -> Vec<Vec<u8>> {
    let mut text = String::new();
    for words in commands {
        let literal = |word: &Vec<u8>| word.iter().map(|byte| format!("\\{byte:03}")).collect::<String>();
        let literals: Vec<_> = words.iter().map(|word| format!("\"{}\"", literal(word))).collect();
        text.push_str(&format!("redis.pcall({})\n", literals.join(",")));
    }
    text.push_str(end);
    [b"EVAL".to_vec(), text.into_bytes(), b"0".to_vec()].into()
}

fn serve(storage: &SimStorage) -> (Arc<Server>, Caller) {
    let server = start(storage, 1, 2, FsyncPolicy::No).unwrap();
    let caller = Caller::new(&server, 0);
    (server, caller)
}

#[test]
fn a_script_does_what_a_transaction_does_and_replays() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    for round in 0..6 {
        let random = &mut Random::new(seed.wrapping_add(round));
        let (one, other) = (SimStorage::new(), SimStorage::new());
        let ((scripted, mut script_caller), (transacted, mut caller)) = (serve(&one), serve(&other));
        for _ in 0..12 {
            let commands: Vec<_> = (0..1 + random.below(25)).map(|_| command(&scripted, random)).collect();
            let reply = run(&mut script_caller, &script(&commands, "return 7"));
            assert_eq!(reply, ":7\r\n");
            run(&mut caller, &[b"MULTI".to_vec()]);
            for words in &commands {
                assert_eq!(run(&mut caller, words), "+QUEUED\r\n");
            }
            run(&mut caller, &[b"EXEC".to_vec()]);
            assert_eq!(state(&scripted), state(&transacted), "{commands:?}");
        }
        scripted.store.log().sync_now().unwrap();
        let again = start(&one.process_image(), 2, 2, FsyncPolicy::No).unwrap();
        assert_eq!(state(&again), state(&scripted));
    }
}

#[test]
fn a_script_that_fails_leaves_what_was_there() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    for round in 0..4 {
        let random = &mut Random::new(seed.wrapping_add(round));
        let storage = SimStorage::new();
        let (server, mut caller) = serve(&storage);
        for _ in 0..200 {
            let words = command(&server, random);
            run(&mut caller, &words);
        }
        for _ in 0..12 {
            let before = state(&server);
            let commands: Vec<_> = (0..1 + random.below(40)).map(|_| command(&server, random)).collect();
            let end = if random.below(2) == 0 { "error('no')" } else { "redis.call('FLUSHALL') error('no')" };
            let reply = run(&mut caller, &script(&commands, end));
            assert!(reply.starts_with("-ERR user_script:"), "{reply}");
            assert_eq!(state(&server), before, "{commands:?}");
        }
        server.store.log().sync_now().unwrap();
        let again = start(&storage.process_image(), 2, 2, FsyncPolicy::No).unwrap();
        assert_eq!(state(&again), state(&server));
    }
}

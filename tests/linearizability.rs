//! Does the checker of histories accept good ones, and does it reject every planted bug? Are histories of real crashes
//! under `appendfsync always` linearizable?

mod support;

use support::keys::{Call, Keys, KeysModel};
use support::linear::{Checker, End, Op};
use support::load;
use support::random::Random;
use support::server::{Recipe, Server};

/// A history in short form: client, beginning, end, what was called, and the reply (`?`: none, for ever; `+`: none,
/// and the server died then).
fn op(client: usize, began: u64, ended: u64, lines: &[&str], reply: &str) -> Op<Call, String> {
    let call = match lines {
        [line] => Call::of(line),
        lines => Call::transaction(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>()),
    };
    let end = match reply {
        "?" => End::Open,
        "died" => End::Died(ended),
        reply => End::Answered(ended, reply.replace(' ', "\r\n") + "\r\n"),
    };
    Op { client, call, began, end }
}

fn verdict(ops: Vec<Op<Call, String>>) -> Result<(), String> {
    Checker::<KeysModel>::new(Keys::new()).feed(ops)
}

#[track_caller]
fn good(ops: Vec<Op<Call, String>>) {
    verdict(ops).expect("a good history");
}

#[track_caller]
fn bad(ops: Vec<Op<Call, String>>) {
    let found = verdict(ops).expect_err("a planted bug");
    assert!(found.contains("no order of the calls gives this reply"), "{found}");
}

#[test]
fn calls_one_after_the_other_are_checked_exactly() {
    good(vec![op(0, 1, 2, &["SET k v"], "+OK"), op(0, 3, 4, &["GET k"], "$1 v")]);
    bad(vec![op(0, 1, 2, &["SET k v"], "+OK"), op(0, 3, 4, &["GET k"], "$1 w")]);
    bad(vec![op(0, 1, 2, &["SET k v"], "+OK"), op(0, 3, 4, &["GET k"], "$-1")]);
    good(vec![op(0, 1, 2, &["SET k v PXAT 9"], "+OK"), op(0, 3, 4, &["PEXPIRETIME k"], ":9")]);
    // An expiry that became another one.
    bad(vec![op(0, 1, 2, &["SET k v PXAT 9"], "+OK"), op(0, 3, 4, &["PEXPIRETIME k"], ":10")]);
}

#[test]
fn calls_at_once_may_take_effect_in_any_order_that_all_replies_agree_on() {
    let sets = || vec![op(0, 1, 9, &["SET k a"], "+OK"), op(1, 2, 8, &["SET k b"], "+OK")];
    for seen in ["$1 a", "$1 b"] {
        good([sets(), vec![op(2, 10, 11, &["GET k"], seen)]].concat());
    }
    good([sets(), vec![op(2, 3, 4, &["GET k"], "$-1"), op(2, 5, 6, &["GET k"], "$1 b")]].concat());
    // Seen b, then a: so a came last.
    bad([
        sets(),
        vec![op(2, 3, 4, &["GET k"], "$1 b"), op(2, 5, 6, &["GET k"], "$1 a"), op(2, 10, 11, &["GET k"], "$1 b")],
    ]
    .concat());
}

/// Two readers, one after the other: the second one sees an older state.
#[test]
fn a_stale_read_is_rejected() {
    let set = || op(0, 1, 20, &["SET k new"], "+OK");
    good(vec![set(), op(1, 2, 3, &["GET k"], "$-1"), op(2, 4, 5, &["GET k"], "$3 new")]);
    bad(vec![set(), op(1, 2, 3, &["GET k"], "$3 new"), op(2, 4, 5, &["GET k"], "$-1")]);
}

#[test]
fn what_died_unanswered_took_effect_before_the_crash_or_never() {
    let crash = || op(0, 1, 5, &["SET k v"], "died");
    for seen in ["$1 v", "$-1"] {
        good(vec![crash(), op(1, 6, 7, &["GET k"], seen)]);
    }
    // After the restart it was not there, and then it is: only an open call may do that.
    let looks = || vec![op(1, 6, 7, &["GET k"], "$-1"), op(1, 8, 9, &["GET k"], "$1 v")];
    bad([vec![crash()], looks()].concat());
    good([vec![op(0, 1, 5, &["SET k v"], "?")], looks()].concat());
    // Twice the effect of one call.
    good(vec![op(0, 1, 5, &["INCRBY n 1"], "died"), op(1, 6, 7, &["GET n"], "$1 1")]);
    bad(vec![op(0, 1, 5, &["INCRBY n 1"], "died"), op(1, 6, 7, &["GET n"], "$1 2")]);
}

/// The reply left before its sync: it was acknowledged, and the crash took it.
#[test]
fn a_reply_before_its_sync_is_rejected() {
    bad(vec![op(0, 1, 2, &["SET k v"], "+OK"), op(1, 6, 7, &["GET k"], "$-1")]);
    // A reader saw what was lost, although its writer was never answered.
    bad(vec![op(0, 1, 5, &["SET k v"], "died"), op(1, 2, 3, &["GET k"], "$1 v"), op(2, 6, 7, &["GET k"], "$-1")]);
    bad(vec![
        op(0, 1, 2, &["RPUSH l a"], ":1"),
        op(0, 3, 4, &["RPUSH l b"], ":2"),
        op(1, 6, 7, &["LRANGE l 0 -1"], "*1 $1 a"),
    ]);
    // An element that was taken is there again.
    bad(vec![
        op(0, 1, 2, &["RPUSH l a"], ":1"),
        op(0, 3, 4, &["LPOP l"], "$1 a"),
        op(1, 6, 7, &["LRANGE l 0 -1"], "*1 $1 a"),
    ]);
}

#[test]
fn a_torn_exec_is_rejected() {
    let both = |ended, reply| op(0, 1, ended, &["SET a 1", "SET b 1"], reply);
    for seen in ["*2 $1 1 $1 1", "*2 $-1 $-1"] {
        good(vec![both(5, "died"), op(1, 6, 7, &["MGET a b"], seen)]);
    }
    for seen in ["*2 $1 1 $-1", "*2 $-1 $1 1"] {
        bad(vec![both(5, "died"), op(1, 6, 7, &["MGET a b"], seen)]);
        bad(vec![both(9, "*2 +OK +OK"), op(1, 2, 3, &["MGET a b"], seen)]);
    }
}

#[test]
fn a_history_goes_on_from_life_to_life() {
    let mut checker = Checker::<KeysModel>::new(Keys::new());
    for life in 0..50u64 {
        let tick = life * 10;
        let before = checker.states().cloned().collect::<Vec<_>>();
        assert_eq!(before.len(), 1, "{before:?}");
        let counted = before[0].get("n").map_or(0, |_| life as i64);
        let ops = vec![
            op(0, tick, tick + 4, &["INCRBY n 1"], "died"),
            op(1, tick + 1, tick + 4, &["INCRBY n 1"], "died"),
            op(2, tick + 5, tick + 6, &["GET n"], &format!("${} {}", (counted + 1).to_string().len(), counted + 1)),
        ];
        checker.feed(ops).expect("one of the two took effect");
    }
    assert_eq!((checker.answered, checker.unanswered), (50, 100));
    // A reply of the first life comes too late.
    assert!(checker.feed(vec![op(0, 900, 901, &["GET n"], "$1 3")]).is_err());
}

/// Six calls at once on a list, all unanswered: the search stays small, and the order is free.
#[test]
fn many_unanswered_calls_are_searched_quickly() {
    let pushes = (0..6).map(|n| op(n, n as u64, 20, &[&format!("RPUSH l {n}")], "died"));
    let look = op(9, 30, 31, &["LRANGE l 0 -1"], "*3 $1 5 $1 0 $1 3");
    good(pushes.clone().chain([look]).collect());
    let twice = op(9, 30, 31, &["LRANGE l 0 -1"], "*3 $1 5 $1 0 $1 5");
    bad(pushes.chain([twice]).collect());
}

// ---------------------------------------------------------------- real crashes

const CLIENTS: usize = 8;

/// One life that `kill -9` ends, and what the next one holds, by object.
fn life(server: &mut Server, random: &mut Random) -> (Vec<load::Object>, Vec<Vec<Op<Call, String>>>) {
    let (objects, clock) = (load::objects_for(CLIENTS), load::Clock::default());
    let histories = load::live(server, &objects, CLIENTS, random, &clock, Server::kill);
    server.start_again();
    let mut parts = load::by_object(&objects, histories);
    load::look(server, &objects, &clock, &mut parts);
    (objects, parts)
}

/// A server that keeps nothing: the checker must say so for some object.
#[test]
fn a_server_that_loses_everything_is_caught() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let mut server = Recipe::reference().start();
    // A life may be too short to acknowledge anything.
    let caught = (0..20).any(|_| {
        let (_, parts) = life(&mut server, &mut random);
        parts.into_iter().any(|part| verdict(part).is_err())
    });
    assert!(caught, "everything was lost, and nobody noticed");
}

/// Bugs are planted into histories of real crashes, which pass without them.
#[test]
fn bugs_planted_into_histories_of_real_crashes_are_caught() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let recipe = Recipe::under_test().with("save", "").with("appendonly", "yes").with("appendfsync", "always");
    let (mut lost, mut torn, mut stale) = (0, 0, 0);
    // A life may be too short for some bug to be planted.
    for lives in 0..50 {
        if lives >= 8 && lost > 0 && torn > 0 && stale > 0 {
            break;
        }
        let mut server = recipe.clone().start();
        let (objects, parts) = life(&mut server, &mut random);
        for (object, part) in objects.iter().zip(parts) {
            verdict(part.clone()).unwrap_or_else(|what| panic!("{}: {what}", object.name));
            lost += u32::from(object.kind == load::Kind::Counter && rejects(&part, lose_a_step));
            torn += u32::from(object.kind == load::Kind::Pair && rejects(&part, tear));
            stale += u32::from(object.kind == load::Kind::Register && rejects(&part, make_stale));
        }
    }
    println!("planted and caught: {lost} lost acknowledgements, {torn} torn transactions, {stale} stale reads");
    assert!(lost > 0 && torn > 0 && stale > 0, "{lost} {torn} {stale}");
}

/// Whether the bug could be planted. If it could, it must be caught.
fn rejects(part: &[Op<Call, String>], plant: fn(&mut [Op<Call, String>]) -> bool) -> bool {
    let mut planted = part.to_vec();
    if !plant(&mut planted) {
        return false;
    }
    assert!(verdict(planted).is_err(), "a planted bug passed");
    true
}

/// The counter is below what was acknowledged last.
fn lose_a_step(part: &mut [Op<Call, String>]) -> bool {
    let Some(number) = text_of(part.last()) else { return false };
    let number: u64 = number.parse().expect("a counter");
    let acknowledged = part.iter().filter_map(|op| match &op.end {
        End::Answered(_, reply) => reply.strip_prefix(':')?.trim_end().parse::<u64>().ok(),
        _ => None,
    });
    let Some(highest) = acknowledged.max() else { return false };
    answer(part, &(highest - 1).min(number - 1).to_string());
    true
}

/// One half of a pair is as it was before the transaction that wrote both.
fn tear(part: &mut [Op<Call, String>]) -> bool {
    let last = part.last_mut().expect("each object was read");
    let End::Answered(_, reply) = &mut last.end else { return false };
    let words: Vec<&str> = reply.split("\r\n").collect();
    // MGET of two strings: their lengths and contents in turn.
    if words.len() != 6 || words[1] == "$-1" {
        return false;
    }
    *reply = format!("*2\r\n{}\r\n{}\r\n$-1\r\n", words[1], words[2]);
    true
}

/// The register holds what another value has replaced before the last acknowledged write began.
fn make_stale(part: &mut [Op<Call, String>]) -> bool {
    let mut written: Vec<(u64, u64, String)> = part
        .iter()
        .filter(|op| matches!(op.call.commands[0][0].as_str(), "SET" | "GETSET"))
        .filter_map(|op| match op.end {
            End::Answered(at, _) => Some((op.began, at, op.call.commands[0][2].clone())),
            _ => None,
        })
        .collect();
    written.sort();
    let Some((began, _, _)) = written.last().cloned() else { return false };
    let Some((_, _, stale)) = written.into_iter().find(|(_, ended, _)| *ended < began) else { return false };
    // The look at the value stands before the one at its expiry.
    let at = part.len() - 2;
    let End::Answered(_, reply) = &mut part[at].end else { return false };
    *reply = format!("${}\r\n{stale}\r\n", stale.len());
    true
}

fn text_of(op: Option<&Op<Call, String>>) -> Option<String> {
    match &op?.end {
        End::Answered(_, reply) if reply.starts_with('$') => reply.split("\r\n").nth(1).map(str::to_owned),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

/// Puts another text into the last reply.
fn answer(part: &mut [Op<Call, String>], text: &str) {
    let last = part.last_mut().expect("each object was read");
    let End::Answered(_, reply) = &mut last.end else { panic!("it was answered") };
    *reply = format!("${}\r\n{text}\r\n", text.len());
}

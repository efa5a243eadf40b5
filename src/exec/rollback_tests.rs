//! Tests of units that are rolled back: the keyspace is what it was, whatever was done to it, and nothing is
//! published.

use std::collections::BTreeMap;

use super::testing::generator::{Command, Generator};
use super::testing::random::Random;
use super::testing::{Dumped, Runner, dump};
use crate::base::config::NotifyFlags;
use crate::base::hash::HashSeed;
use crate::core::Wants;
use crate::keyspace::{Census, Key, SHARDS};
use crate::value::Limits;
use crate::value::entry::Heap;
use crate::value::kind::Kind;

/// Databases that the generator's commands use.
const DATABASES: [u32; 4] = [0, 1, 2, 15];

/// Everything that a rollback must restore.
#[derive(Debug, PartialEq)]
struct State {
    keys: Vec<Dumped>,
    /// The form and the access field of each key.
    forms: BTreeMap<(u32, Vec<u8>), (Kind, u32)>,
    /// The versions of all watched keys.
    versions: BTreeMap<(u32, Vec<u8>), u64>,
    /// The number of the last record of each shard.
    sequences: Vec<u64>,
    /// Keys, and keys with an expiry, as DBSIZE and INFO count them.
    counts: Vec<Census>,
}

fn state(t: &Runner) -> State {
    let (mut forms, mut versions, mut sequences) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for number in 0..SHARDS as u16 {
        let shard = t.keyspace().lock(number);
        sequences.push(shard.sequence);
        versions.extend(shard.watched.versions().map(|(db, key, version)| ((db, key.to_vec()), version)));
        for (db, directory) in shard.databases() {
            for entry in directory.iter() {
                let bound = t.keyspace().earliest_expiry(number);
                assert!(entry.expiry().is_none_or(|at| bound <= at), "the sweep never comes to {:?}", entry.key());
                forms.insert((db, entry.key().to_vec()), (entry.kind(), entry.access()));
            }
        }
    }
    let counts = DATABASES.iter().map(|&db| t.keyspace().counts().of(db)).collect();
    State { keys: dump(t.keyspace()), forms, versions, sequences, counts }
}

/// A runner whose collections soon become large.
fn narrow() -> Runner {
    let mut t = Runner::new();
    t.limits = Limits {
        list_max_listpack_size: 3,
        hash_max_listpack_entries: 3,
        hash_max_listpack_value: 12,
        set_max_intset_entries: 3,
        set_max_listpack_entries: 3,
        set_max_listpack_value: 12,
        zset_max_listpack_entries: 3,
        zset_max_listpack_value: 12,
        stream_node_max_entries: 3,
        ..Limits::defaults(HashSeed(*b"a seed for tests"))
    };
    t.hll_sparse_max_bytes = 40;
    t
}

/// A command of the generator, or of the families that it leaves out.
fn command(random: &mut Random) -> Command {
    let sets = ["set", "set", "set:2", "a"];
    let (one, other, n) = (random.pick(&sets), random.pick(&sets), random.below(9));
    let line = match random.below(43) {
        0..3 => format!("SADD {one} {n} m:{n} a:longer:member:{n}"),
        3 => format!("SREM {one} {n} m:{n}"),
        4 => format!("SPOP {one}"),
        5 => format!("SMOVE {one} {other} m:{n}"),
        6 => format!("SUNIONSTORE {one} {one} {other}"),
        7 => format!("SDIFFSTORE set:2 {one} {other}"),
        8 => format!("GEOADD geo {n}.5 {n} place:{n} {n} 1 place"),
        9 => "GEOSEARCHSTORE zset:2 geo FROMLONLAT 1 1 BYRADIUS 500 km".to_owned(),
        10 => format!("HPEXPIREAT hash 33177117420000 FIELDS 1 f{n}"),
        11 => "HPEXPIREAT hash 1700000005000 FIELDS 2 f1 f2".to_owned(),
        12 => format!("PEXPIREAT {one} 1700000005000"),
        13 => format!("SORT list ALPHA STORE list:{}", 2 + n % 2),
        14 => format!("APPEND {} {}", random.pick(&["a", "b", "c"]), "x".repeat(200)),
        15 => format!("SETRANGE {} 100 {n}", random.pick(&["a", "b", "c"])),
        16 => format!("SWAPDB {} {}", n % 3, (n + 1) % 3),
        17 if n < 2 => "FLUSHDB".to_owned(),
        18 if n < 2 => "FLUSHALL".to_owned(),
        18 if n < 4 => "UNFLUSH MERGE".to_owned(),
        18 if n < 6 => "UNFLUSH REPLACE".to_owned(),
        19 => format!("RESTORE restored:{n} 0 nonsense REPLACE IDLETIME 100"),
        20..23 => format!("BLESS SET {} NO-EVICT", random.pick(&["a", "b", "list", "hash", "zset", one])),
        23 => format!("BLESS CLEAR {} NO-EVICT", random.pick(&["a", "b", "list", "hash", "zset", one])),
        24 => format!("XADD produced IDMP p:{} {} * f v", n % 2, random.below(9)),
        25 => format!("XCFGSET produced IDMP-MAXSIZE {}", 2 + n % 2),
        26 => format!("XNACK stream:1 g SILENT IDS 2 2-{n} 2-{} FORCE", n * 3),
        _ => return Generator { random }.command(),
    };
    super::testing::words(&line)
}

fn run(t: &mut Runner, random: &mut Random, commands: usize) -> Vec<Command> {
    let mut done = Vec::new();
    for _ in 0..commands {
        let words = command(random);
        // A touched key stays touched, whatever the outcome of the unit.
        if t.is_data(&words) && !words[0].eq_ignore_ascii_case(b"TOUCH") {
            t.db = DATABASES[random.below(DATABASES.len())];
            t.run_words(&words);
            done.push(words);
        }
    }
    done
}

fn assert_same(now: &State, before: &State, what: &str, done: &[Command]) {
    if now == before {
        return;
    }
    let lines = |state: &State| -> Vec<String> {
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let keys = state.keys.iter().map(|(db, key, value, at)| format!("{db} {} {} {at:?}", shown(key), shown(value)));
        let forms = state.forms.iter().map(|((db, key), form)| format!("{db} {} {form:?}", shown(key)));
        let versions =
            state.versions.iter().map(|((db, key), version)| format!("{db} {} version {version}", shown(key)));
        let sequences = state.sequences.iter().enumerate().map(|(shard, last)| format!("shard {shard} {last}"));
        keys.chain(forms).chain(versions).chain(sequences).chain([format!("{:?}", state.counts)]).collect()
    };
    let (now, before) = (lines(now), lines(before));
    let lost: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    let done: Vec<_> = done.iter().map(|words| words.join(&b' ').escape_ascii().to_string()).collect();
    panic!("{what}\n{}\nlost: {lost:#?}\nnew: {new:#?}", done.join("\n"));
}

/// Watched keys of every type and form, some of which expire when the unit begins.
fn filled(random: &mut Random) -> Runner {
    let mut t = narrow();
    for db in DATABASES {
        for key in Generator::all_keys().chain([b"set".to_vec(), b"set:2".to_vec(), b"geo".to_vec()]) {
            let shard = t.keyspace().key(&key).shard();
            t.keyspace().lock(shard).watched.watch(db, &key);
        }
    }
    run(&mut t, random, 400);
    t.db = 0;
    for line in ["SET brief v PX 4000", "HSET hash f1 v f2 v f7 v", "HPEXPIRE hash 4000 FIELDS 1 f7", "SADD set 1 m"] {
        t.run(line);
    }
    t.advance_ms(5000);
    t.no_touch = true;
    t
}

#[test]
fn a_unit_that_is_taken_back_leaves_the_keyspace_as_it_was() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    for round in 0..25 {
        let random = &mut Random::new(seed.wrapping_add(round));
        let mut t = filled(random);
        let logged = t.take_logged().len();
        assert!(logged > 100);
        let before = state(&t);
        let begin = t.begin_unit();
        let mut done = run(&mut t, random, 1 + random.clone().below(60));
        let (middle, savepoint) = (state(&t), t.unit().savepoint());
        let later = run(&mut t, random, 1 + random.clone().below(60));
        t.roll_back_to(savepoint);
        assert_same(&state(&t), &middle, "back to the savepoint", &later);
        done.extend(run(&mut t, random, 20));
        t.roll_back_to(begin);
        assert_same(&state(&t), &before, "back to the beginning", &done);
        assert!(!t.unit().has_records() && !t.unit().has_changed());
        t.commit_unit();
        assert_eq!(t.take_logged(), [""; 0]);
    }
}

#[test]
fn what_is_committed_of_a_unit_is_what_was_not_taken_back() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    for round in 0..15 {
        let random = &mut Random::new(seed.wrapping_add(round));
        let mut t = filled(random);
        t.begin_unit();
        for _ in 0..4 {
            run(&mut t, random, 10);
            let (savepoint, middle) = (t.unit().savepoint(), state(&t));
            let done = run(&mut t, random, 10);
            t.roll_back_to(savepoint);
            assert_same(&state(&t), &middle, "back to the savepoint", &done);
        }
        t.commit_unit();
        t.assert_replay_equals_live();
        // Everything continues to work.
        t.no_touch = false;
        run(&mut t, random, 50);
        t.assert_replay_equals_live();
    }
}

/// What is wanted of a unit does not affect its changes: without a log, the result is the same.
#[test]
fn without_a_log_a_unit_is_taken_back_too() {
    for round in 0..8 {
        let random = &mut Random::new(round);
        let mut t = filled(random);
        t.wants = Wants::default();
        let before = state(&t);
        let begin = t.begin_unit();
        let done = run(&mut t, random, 60);
        assert!(t.unit().has_changed() && !t.unit().has_records());
        assert_eq!(state(&t).sequences, before.sequences, "nothing is encoded");
        t.roll_back_to(begin);
        assert_same(&state(&t), &before, "back to the beginning", &done);
        t.commit_unit();
    }
}

#[test]
fn events_are_told_with_the_commit_and_not_without() {
    let mut t = Runner::new();
    t.wants = Wants { records: true, events: NotifyFlags::ALL };
    for db in [0, 3] {
        t.db = db;
        t.run("SET brief v PX 10");
    }
    t.take_told();
    t.advance_ms(10);
    let begin = t.begin_unit();
    t.run("GET brief");
    t.run("SET other v");
    t.roll_back_to(begin);
    t.commit_unit();
    assert_eq!(t.take_told(), [""; 0]);
    t.begin_unit();
    t.run("GET brief");
    t.run("SET other v");
    assert_eq!(t.events, [], "not before the commit");
    t.commit_unit();
    assert_eq!(t.take_told(), ["expired brief@3", "set other@3"]);
    t.db = 0;
    t.run("GETSET brief w");
    assert_eq!(t.take_told(), ["expired brief", "set brief"], "the key was removed before it was set");
    t.wants.events = NotifyFlags::NONE;
    t.run("SET brief w PX 10");
    t.advance_ms(10);
    t.run("GET brief");
    assert_eq!(t.take_told(), [""; 0], "nobody wants to know");
}

/// The removal of an expired key stands even if its command fails, and so does its event.
#[test]
fn what_had_expired_is_told_though_the_command_fails() {
    let mut t = Runner::new();
    t.wants = Wants { records: true, events: NotifyFlags::ALL };
    t.run("SET brief v PX 10");
    t.run("SET text abc");
    t.advance_ms(10);
    t.take_logged();
    t.take_told();
    assert!(t.run("SUNIONSTORE to brief text").starts_with("-WRONGTYPE"));
    assert_eq!((t.take_logged(), t.take_told()), (vec!["DEL brief".to_owned()], vec!["expired brief".to_owned()]));
}

/// Rolling back a change of a large value costs a pointer and the nodes on its path.
#[test]
fn a_large_value_is_not_copied_to_be_taken_back() {
    let mut t = Runner::new();
    for part in 0..100 {
        let members: Vec<_> = (0..1000).map(|n| format!("{} m{}", n, part * 1000 + n)).collect();
        t.run(&format!("ZADD big {}", members.join(" ")));
    }
    let hash = t.keyspace().key(b"big").hash;
    let key = Key { bytes: b"big", hash };
    let set_of = |t: &Runner| {
        let shard = t.keyspace().lock(key.shard());
        match shard.directory(0).and_then(|directory| directory.get(key.hash, key.bytes)?.heap()) {
            Some(Heap::Zset(set)) => set,
            _ => panic!("no large sorted set"),
        }
    };
    let before = set_of(&t);
    let begin = t.begin_unit();
    t.run("ZADD big 5 new");
    t.run("ZREM big m77");
    t.roll_back_to(begin);
    t.commit_unit();
    assert!(triomphe::Arc::ptr_eq(&before, &set_of(&t)), "the very value is back");
    assert_eq!(t.run("ZCARD big"), ":100000 ");
}

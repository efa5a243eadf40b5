//! Tests of flushes that can be undone: what comes back, what does not, and what a replay and a rollback make of it.

use crate::exec::testing::{BURIED, Runner, dump};
use crate::keyspace::SHARDS;

/// Keys of several kinds in the databases 0, 1 and 2.
fn filled() -> Runner {
    let mut t = Runner::new();
    for db in 0..3 {
        t.db = db;
        t.run(&format!("MSET a {db} b {db} only{db} x"));
        t.run("PEXPIRE b 5000");
        t.run("RPUSH list 1 2 3");
        t.run("BLESS SET list NO-EVICT");
    }
    t.db = 0;
    t
}

/// What the databases hold, without what can be undone.
fn keys(t: &Runner) -> Vec<crate::exec::testing::Dumped> {
    let all = dump(t.keyspace()).into_iter();
    all.filter(|(_, key, ..)| !key.starts_with(BURIED)).collect()
}

fn flushes(t: &Runner) -> usize {
    t.keyspace().graveyard().graves().len()
}

#[test]
fn a_flush_is_undone_as_if_it_had_not_been() {
    for flush in ["FLUSHALL", "FLUSHALL SYNC", "FLUSHALL ASYNC", "FLUSHDB"] {
        let mut t = filled();
        let before = keys(&t);
        assert_eq!(t.run(flush), "+OK ");
        assert_ne!(keys(&t), before);
        t.assert_replay_equals_live();
        let back = if flush == "FLUSHDB" { ":4 " } else { ":12 " };
        assert_eq!(t.run("UNFLUSH"), back, "{flush}");
        assert_eq!(keys(&t), before, "{flush}");
        assert_eq!((t.run("DBSIZE"), t.run("PTTL b"), flushes(&t)), (":4 ".into(), ":5000 ".into(), 0));
        t.assert_replay_equals_live();
        // And so they are swept in time.
        t.advance_ms(5000);
        t.sweep(100);
        assert_eq!(t.run("DBSIZE"), ":3 ");
        t.assert_replay_equals_live();
    }
}

#[test]
fn it_is_logged_as_what_has_become_of_the_keys() {
    let mut t = filled();
    t.take_logged();
    let (now, until) = (t.now(), t.now() + 60_000);
    t.script("FLUSHDB => +OK\nFLUSHALL => +OK\nUNFLUSH => :8\nUNFLUSH => :4");
    let expected = [
        format!("BURY ONE 1 {now} {until}"),
        format!("BURY ALL 2 {now} {until}"),
        "UNBURY 2 MERGE".into(),
        "UNBURY 1 MERGE".into(),
    ];
    assert_eq!(t.take_logged(), expected);
    t.script("FLUSHALL => +OK\nSET a 9 => +OK\nUNFLUSH REPLACE => :12");
    assert_eq!(t.take_logged()[2], "UNBURY 3 REPLACE");
}

#[test]
fn flushes_are_undone_one_by_one_the_newest_first() {
    let mut t = filled();
    let before = keys(&t);
    // One that found no keys is none: the one before it is undone.
    t.script("FLUSHALL => +OK\nFLUSHALL => +OK\nFLUSHDB => +OK\nUNFLUSH => :12");
    assert_eq!(keys(&t), before);
    assert!(t.run("UNFLUSH").starts_with("-ERR there is no flush to be undone."), "once is enough");
    // Each has its own databases, whichever is selected.
    t.run("FLUSHDB");
    t.db = 1;
    t.run("FLUSHDB");
    t.db = 5;
    t.script("UNFLUSH => :4\nUNFLUSH => :4");
    assert_eq!(keys(&t), before);
    // What one brings back is newer than what the one before it took.
    t.db = 0;
    t.script("FLUSHDB => +OK\nSET a between => +OK\nFLUSHDB => +OK\nUNFLUSH => :1");
    assert!(t.run("UNFLUSH").starts_with("-ERR 1 key was written since the flush of database 0: "));
    t.script("UNFLUSH MERGE => :3\nGET a => $7 between");
    t.script("FLUSHDB => +OK\nSET a between => +OK\nFLUSHDB => +OK\nUNFLUSH => :1\nUNFLUSH REPLACE => :4");
    t.assert_replay_equals_live();
}

#[test]
fn keys_written_since_are_asked_about() {
    let mut t = filled();
    let before = keys(&t);
    t.script("FLUSHALL => +OK\nSET a new => +OK");
    let refused = "-ERR 1 key was written since the flush of all databases: UNFLUSH MERGE keeps what was written and \
                   adds what was flushed, UNFLUSH REPLACE drops what was written ";
    assert_eq!(t.run("UNFLUSH"), refused);
    t.db = 7;
    t.run("SET elsewhere 1");
    assert!(t.run("UNFLUSH").starts_with("-ERR 2 keys were written since"));
    assert_eq!(flushes(&t), 1, "a refusal changes nothing");
    t.db = 0;
    assert_eq!(t.run("UNFLUSH MERGE"), ":11 ");
    t.script("GET a => $3 new\nGET only0 => $1 x\nLLEN list => :3\nBLESS GET list => *1 $8 NO-EVICT");
    t.assert_replay_equals_live();
    t.script("FLUSHALL => +OK\nSET a newer => +OK\nUNFLUSH REPLACE => :13\nGET a => $3 new");
    t.db = 7;
    assert_eq!(t.run("DEL elsewhere"), ":1 ");
    t.db = 0;
    t.run("SET a 0");
    assert_eq!(keys(&t), before);
    t.assert_replay_equals_live();
}

#[test]
fn a_merge_is_the_same_whichever_side_is_larger() {
    for (older, newer) in [(200, 5), (5, 200), (100, 100), (1, 0)] {
        let mut t = Runner::new();
        for number in 0..older {
            t.run(&format!("SET k{number} old"));
        }
        t.run("FLUSHDB");
        for number in 0..newer {
            t.run(&format!("SET k{} new", number + 3));
        }
        t.run("UNFLUSH MERGE");
        let new = keys(&t).iter().filter(|(_, _, value, _)| value.ends_with(b"new")).count();
        assert_eq!(new, newer);
        let names =
            older.max(if newer > 0 { newer + 3 } else { 0 }) - if older < 3 && newer > 0 { 3 - older } else { 0 };
        assert_eq!(t.run("DBSIZE"), format!(":{names} "), "{older} {newer}");
        t.assert_replay_equals_live();
    }
}

#[test]
fn only_the_flushed_database_counts() {
    let mut t = filled();
    t.db = 1;
    t.script("FLUSHDB => +OK\nFLUSHDB => +OK");
    t.db = 0;
    t.script("SET a changed => +OK\nUNFLUSH => :4\nGET a => $7 changed");
    t.db = 1;
    t.script(
        "GET a => $1 1\nUNFLUSH MERGE => -ERR there is no flush to be undone. What the files reach back to: ironkeep \
              restore DIR --list",
    );
    t.assert_replay_equals_live();
}

#[test]
fn the_newest_flush_comes_first() {
    let mut t = Runner::new();
    t.script(
        "SET a 1 => +OK\nFLUSHALL => +OK\nSET a 2 => +OK\nSET b 2 => +OK\nFLUSHALL => +OK\nSET a 3 => +OK\n\
         FLUSHDB => +OK\nUNFLUSH => :1\nGET a => $1 3\nUNFLUSH MERGE => :1\nGET b => $1 2\nUNFLUSH REPLACE => :1\n\
         GET a => $1 1\nDBSIZE => :1",
    );
    t.assert_replay_equals_live();
}

#[test]
fn keys_come_back_to_where_they_would_be_now() {
    let mut t = filled();
    t.script("FLUSHDB => +OK\nSWAPDB 0 1 => +OK\nUNFLUSH => :4");
    t.db = 1;
    t.script("GET only0 => $1 x\nGET a => $1 0");
    t.db = 0;
    t.script("GET only1 => $1 x\nFLUSHALL => +OK\nSWAPDB 2 9 => +OK\nUNFLUSH => :12");
    t.db = 9;
    t.script("GET only2 => $1 x");
    t.assert_replay_equals_live();
}

#[test]
fn what_has_expired_meanwhile_does_not_come_back() {
    let mut t = filled();
    t.script("FLUSHALL => +OK\nSET brief 1 PX 100 => +OK\nSET a 9 PX 100 => +OK");
    t.advance_ms(5000);
    // What was written since has expired, too, and asks for no option.
    t.script("UNFLUSH => :12\nEXISTS b => :0\nGET a => $1 0\nEXISTS brief => :0");
    t.assert_replay_equals_live();
    t.sweep(100);
    assert_eq!(keys(&t).iter().filter(|(_, key, ..)| key == b"b").count(), 0);
    t.assert_replay_equals_live();
    for shard in 0..SHARDS as u16 {
        assert_eq!(t.keyspace().earliest_expiry(shard), u64::MAX);
    }
}

#[test]
fn after_its_time_the_error_says_what_to_type() {
    let mut t = filled();
    let told = |at: i64| {
        format!(
            "-ERR the last flush cannot be undone at once any more. If the files still reach back to it: ironkeep \
             restore '/my data' --to {at} --into NEW "
        )
    };
    let none = "-ERR there is no flush to be undone. What the files reach back to: ironkeep restore '/my data' --list ";
    t.keyspace().graveyard().set_files("/my data");
    assert_eq!(t.run("UNFLUSH"), none);
    t.run("FLUSHALL");
    let at = t.now() - 1;
    t.advance_ms(59_999);
    assert_eq!(t.keyspace().graveyard().due(t.now() as u64), None);
    t.advance_ms(1);
    assert_eq!(t.run("UNFLUSH"), told(at));
    assert_eq!(t.keyspace().graveyard().due(t.now() as u64), Some(1));
    t.keyspace().graveyard().note_block(42);
    assert!(t.run("UNFLUSH MERGE").contains("--to block:41 --into NEW"));
    t.run("FLUSHALL");
    t.keyspace().graveyard().set_files("/data");
    assert!(
        t.run("UNFLUSH").contains("restore /data --to 17"),
        "an empty database, flushed again, has nothing to undo"
    );
}

#[test]
fn with_no_time_to_undo_a_flush_is_for_good() {
    let mut t = filled();
    t.run("FLUSHDB");
    t.flush_undo_ms = 0;
    t.db = 1;
    assert_eq!((t.run("FLUSHDB"), flushes(&t)), ("+OK ".into(), 1));
    t.assert_replay_equals_live();
    assert_eq!((t.run("FLUSHALL"), flushes(&t)), ("+OK ".into(), 0));
    assert!(t.run("UNFLUSH").starts_with("-ERR the last flush cannot be undone"));
    t.assert_replay_equals_live();
    assert_eq!(dump(t.keyspace()), []);
    let logged = t.take_logged();
    assert_eq!(logged[logged.len() - 2..], ["FLUSHDB", "FLUSHALL"]);
}

#[test]
fn mistakes_are_syntax_errors() {
    let mut t = filled();
    t.run("FLUSHALL");
    for line in ["UNFLUSH ASYNC", "UNFLUSH ''", "UNFLUSH MERGE REPLACE", "UNFLUSH MERGE MERGE"] {
        assert_eq!(t.run(line), "-ERR syntax error ", "{line}");
    }
    assert_eq!(t.run("unflush merge"), ":12 ");
}

/// Whether the version of a watched key rises with a command.
fn raises(t: &mut Runner, key: &str, line: &str) -> bool {
    let shard = t.keyspace().key(key.as_bytes()).shard();
    let before = t.keyspace().lock(shard).watched.watch(t.db, key.as_bytes());
    let reply = t.run(line);
    assert!(!reply.starts_with('-'), "{reply}");
    t.keyspace().lock(shard).watched.unwatch(t.db, key.as_bytes()) != Some(before)
}

#[test]
fn watched_keys_have_changed_if_they_come_back_or_go() {
    let flushed = || {
        let mut t = filled();
        t.run("FLUSHALL");
        t.run("SET a new");
        t
    };
    assert!(raises(&mut flushed(), "only0", "UNFLUSH MERGE"), "it came back");
    assert!(!raises(&mut flushed(), "a", "UNFLUSH MERGE"), "it has stayed");
    assert!(!raises(&mut flushed(), "missing", "UNFLUSH MERGE"));
    assert!(raises(&mut flushed(), "a", "UNFLUSH REPLACE"));
    let mut t = flushed();
    t.advance_ms(5000);
    assert!(!raises(&mut t, "b", "UNFLUSH MERGE"), "it has expired");
}

#[test]
fn a_transaction_takes_back_flushes_and_their_undoing() {
    for lines in [
        &["FLUSHALL"][..],
        &["FLUSHDB", "SET a 1", "FLUSHALL"],
        &["UNFLUSH"],
        &["UNFLUSH MERGE", "DEL a", "FLUSHALL", "SET b 2", "UNFLUSH REPLACE"],
        &["SET a new", "UNFLUSH MERGE", "SWAPDB 0 5"],
        &["SWAPDB 0 5", "UNFLUSH"],
        &["FLUSHALL", "UNFLUSH", "UNFLUSH"],
    ] {
        let mut t = filled();
        t.run("FLUSHDB");
        let (before, next) = (dump(t.keyspace()), t.keyspace().graveyard().next_id());
        let savepoint = t.begin_unit();
        for line in lines {
            t.run(line);
        }
        let after = dump(t.keyspace());
        assert_ne!(after, before, "{lines:?}");
        t.roll_back_to(savepoint);
        assert_eq!((dump(t.keyspace()), t.keyspace().graveyard().next_id()), (before, next), "{lines:?}");
        for line in lines {
            t.run(line);
        }
        t.commit_unit();
        assert_eq!(dump(t.keyspace()), after, "{lines:?}");
        t.assert_replay_equals_live();
    }
}

#[test]
fn what_a_snapshot_holds_does_not_change_when_keys_come_back() {
    let mut t = filled();
    t.run("FLUSHALL");
    let gate = crate::keyspace::Gate::new(1);
    let frozen = t.keyspace().freeze(&gate.close());
    t.script("SET a new => +OK\nUNFLUSH MERGE => :11\nSET only0 changed => +OK\nDEL b => :1");
    assert!(frozen.is_empty() && frozen.graves().len() == 1);
    let old = frozen.graves()[0].buried.iter().flat_map(|buried| buried.directory.iter());
    assert_eq!(old.filter(|entry| [&b"a"[..], b"b", b"only0"].contains(&entry.key())).count(), 7);
    t.assert_replay_equals_live();
}

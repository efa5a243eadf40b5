//! A command with a bug panics halfway. Its changes are undone or stand as a whole, its reply is one error, and
//! everything continues.

use std::cell::Cell;
use std::sync::Arc;

use super::testing::{Caller, Dump, start, start_with, state};
use crate::command::GROUPS as DATA_GROUPS;
use crate::core::Server;
use crate::core::call::string_reply;
use crate::core::stored_string::StringRef;
use crate::core::{
    Arity, Call, Command, Handler, KeySpec, Keys, LogRule, Outcome, SessionCall, Table, categories, flags,
};
use crate::exec::testing::words;
use crate::exec::{PATIENCE, Ran};
use crate::keyspace::NewValue;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;
use crate::resp::request::OwnedArgs;
use crate::resp::{Args, Output, Reply};
use crate::session::GROUPS as SESSION_GROUPS;
use crate::value::list::{AnyList, End};

const INTERNAL: &str = "-ERR internal error, the command was undone ";
const STANDS: &str = "-ERR internal error, what the command had changed stands ";
const STOPPED: &str = "-ERR internal error, the command was stopped where it was ";

static FAULTY: &[&Command] =
    &[&SEVERAL, &IN_PLACE, &EDIT, &OVERWRITE, &LOGGED, &HALF_LOGGED, &ALONE, &OF_THE_SESSION, &READ];

/// Changes all of its keys except the last, logs that, and panics.
static SEVERAL: Command = Command {
    name: "FAULTY.SEVERAL",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE,
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::range(1, -1, 1, "OW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(several),
    summary: "Panics amid several keys.",
    ..Command::DEFAULT
};

fn several(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let keys: Vec<_> = call.keys().collect();
    for key in &keys[..keys.len() - 1] {
        if !call.db.remove(*key) {
            call.db.set(*key, NewValue::Bytes(b"half done"), Some(33_177_117_420_000));
        }
        call.db.log_state(*key);
    }
    let mut array = reply.array(3);
    array.bulk(b"half a reply");
    panic!("on purpose, amid several keys");
}

/// Changes its one key in place, and panics before anything is logged.
static IN_PLACE: Command = Command {
    name: "FAULTY.INPLACE",
    arity: Arity::Exactly(2),
    keys: Keys(&[KeySpec::at(1, "RW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(in_place),
    summary: "Panics after its change in place.",
    ..SEVERAL
};

fn in_place(call: &mut Call<'_>, _: Reply<'_>) -> Outcome {
    let key = call.key(1);
    call.db.raw_mut(key).expect("a raw string").extend_from_slice(b" and more");
    panic!("on purpose, after a change in place");
}

/// Edits a large list in place, and panics during the edit.
static EDIT: Command =
    Command { name: "FAULTY.EDIT", handler: Handler::Data(edit), summary: "Panics amid an edit.", ..IN_PLACE };

fn edit(call: &mut Call<'_>, _: Reply<'_>) -> Outcome {
    let key = call.key(1);
    call.db.edit::<AnyList, ()>(key, |list| {
        list.push(b"half done", End::Right);
        panic!("on purpose, amid an edit");
    })?;
    unreachable!("the edit panics");
}

/// Sets its one key, and panics before anything is logged.
static OVERWRITE: Command = Command {
    name: "FAULTY.OVERWRITE",
    handler: Handler::Data(overwrite),
    summary: "Panics after setting its key.",
    ..IN_PLACE
};

fn overwrite(call: &mut Call<'_>, _: Reply<'_>) -> Outcome {
    let key = call.key(1);
    call.db.set(key, NewValue::Bytes(b"overwritten"), Some(33_177_117_420_000));
    panic!("on purpose, after setting");
}

/// Sets its one key, logs that, and panics.
static LOGGED: Command = Command {
    name: "FAULTY.LOGGED",
    log: LogRule::Effects,
    handler: Handler::Data(logged),
    summary: "Panics after logging its change.",
    ..IN_PLACE
};

fn logged(call: &mut Call<'_>, _: Reply<'_>) -> Outcome {
    let key = call.key(1);
    call.db.set(key, NewValue::Int(7), None);
    call.db.log_state(key);
    panic!("on purpose, after logging");
}

/// Sets its one key, and panics in the middle of the record of that.
static HALF_LOGGED: Command = Command {
    name: "FAULTY.HALFLOGGED",
    handler: Handler::Data(half_logged),
    summary: "Panics amid its record.",
    ..LOGGED
};

fn half_logged(call: &mut Call<'_>, _: Reply<'_>) -> Outcome {
    let key = call.key(1);
    call.db.set(key, NewValue::Int(7), None);
    call.db.record(key).delete();
    let drawn = Cell::new(0);
    let members = [b"one", b"two"].into_iter().map(|member| {
        drawn.set(drawn.get() + 1);
        // The first two are looked at for the length of the record.
        assert!(drawn.get() < 4, "on purpose, amid a record");
        &member[..]
    });
    call.db.record(key).set_add(members);
    unreachable!("the record panics");
}

/// Panics behind the closed gate.
static ALONE: Command = Command {
    name: "FAULTY.ALONE",
    arity: Arity::Exactly(1),
    flags: flags::WRITE.or(flags::GATE),
    keys: Keys::NONE,
    log: LogRule::Barrier,
    handler: Handler::Data(alone),
    summary: "Panics behind the closed gate.",
    ..SEVERAL
};

fn alone(call: &mut Call<'_>, _: Reply<'_>) -> Outcome {
    call.db.held().shard(3);
    panic!("on purpose, behind the gate");
}

/// Panics outside the gate.
static OF_THE_SESSION: Command = Command {
    name: "FAULTY.SESSION",
    flags: flags::NOSCRIPT,
    log: LogRule::Nothing,
    handler: Handler::Session(of_the_session),
    summary: "Panics in a session command.",
    ..ALONE
};

fn of_the_session(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let mut array = reply.array(2);
    array.bulk(b"half a reply");
    panic!("on purpose, in a session command");
}

/// Reads its one key, and panics at one value.
static READ: Command = Command {
    name: "FAULTY.READ",
    flags: flags::READONLY.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    log: LogRule::Nothing,
    handler: Handler::Data(read),
    summary: "Panics over one value.",
    ..IN_PLACE
};

fn read(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let Some(value) = call.db.string(key)? else { return Ok(reply.null()) };
    if let StringRef::Str(bytes) = value {
        let mut array = reply.array(2);
        array.bulk(&bytes);
        panic!("on purpose, in a read");
    }
    Ok(string_reply(reply, value))
}

struct Faulty {
    storage: SimStorage,
    server: Arc<Server>,
    caller: Caller,
}

impl Faulty {
    fn new() -> Faulty {
        let storage = SimStorage::new();
        let groups: Vec<_> = DATA_GROUPS.iter().chain(SESSION_GROUPS).copied().chain([FAULTY]).collect();
        let server = start_with(&storage, 1, 2, FsyncPolicy::Always, Table::new(&groups)).unwrap();
        Faulty { caller: Caller::new(&server, 0), storage, server }
    }

    fn filled() -> Faulty {
        let mut t = Faulty::new();
        t.caller.run("MSET a 1 b 2 c short");
        t.caller.run("SET long xxxxxxxxxx PXAT 33177117420123");
        t.caller.run(&format!("SETRANGE long 300 {}", "y".repeat(300)));
        t.caller.run("APPEND raw some");
        t.caller.run("APPEND raw thing");
        t
    }

    /// Runs the lines as one pipeline. Returns the replies with spaces for their line ends.
    fn pipeline(&mut self, lines: &[&str]) -> String {
        let commands: Vec<_> =
            lines.iter().map(|line| OwnedArgs::new(words(line).iter().map(|word| &word[..]))).collect();
        let calls: Vec<Args<'_>> = commands.iter().map(OwnedArgs::args).collect();
        let mut out = Output::new();
        let ran = self.caller.executor.run(&mut self.caller.client, &calls, &mut out, PATIENCE);
        assert_eq!(ran, Ran { executed: lines.len(), parked: None });
        String::from_utf8_lossy(out.as_bytes()).replace("\r\n", " ")
    }

    /// Replays the log into a new server, which must hold the same content.
    fn assert_replay_equals_live(&self) -> Dump {
        self.server.store.log().sync_now().unwrap();
        let live = state(&self.server);
        let again = start(&self.storage.recover_image(1), 2, 1, FsyncPolicy::Always).unwrap();
        assert_eq!(state(&again), live);
        live
    }

    /// Everything still works: the same shards, other workers, the gate, a snapshot.
    fn assert_alive(&mut self) {
        let mut other = Caller::new(&self.server, 1);
        for caller in [&mut self.caller, &mut other] {
            for key in ["a", "b", "c", "long", "raw", "new"] {
                assert_eq!(caller.run(&format!("SET {key} 1")), "+OK ");
                assert_eq!(caller.run(&format!("INCR {key}")), ":2 ");
            }
            assert_eq!(caller.run("DBSIZE"), ":6 ");
            assert_eq!(caller.run("SWAPDB 0 1"), "+OK ");
            assert_eq!(caller.run("SWAPDB 1 0"), "+OK ");
        }
        self.assert_replay_equals_live();
        crate::durable::saving::save_now(&self.server).unwrap();
        self.assert_replay_equals_live();
    }
}

#[test]
fn declarations_are_sound() {
    for command in FAULTY {
        assert_eq!(crate::core::table::mistake(command), None);
    }
}

#[test]
fn a_panic_amid_several_keys_undoes_them_all() {
    let mut t = Faulty::filled();
    let before = t.assert_replay_equals_live();
    let position = t.server.store.journal().position();
    let changes = t.server.changes_since_save();
    for line in
        ["FAULTY.SEVERAL a b c", "FAULTY.SEVERAL long raw a", "FAULTY.SEVERAL new newer a", "FAULTY.SEVERAL a a a a b"]
    {
        assert_eq!(t.caller.run(line), INTERNAL, "{line}");
        assert_eq!(t.assert_replay_equals_live(), before, "{line}");
    }
    assert_eq!(t.server.store.journal().position(), position, "nothing is left in the log's buffer");
    assert_eq!(t.server.changes_since_save(), changes, "nothing has changed");
    assert!(t.caller.run("INFO errorstats").contains("errorstat_ERR:count=4"));
    t.assert_alive();
}

/// Whether a command was undone once depended on the content of the log's buffer.
#[test]
fn without_a_log_a_panic_leaves_the_same() {
    let mut t = Faulty::filled();
    t.caller.run("CONFIG SET appendonly no");
    let before = state(&t.server);
    let changes = t.server.changes_since_save();
    for line in ["FAULTY.SEVERAL a b c", "FAULTY.SEVERAL long raw a", "FAULTY.SEVERAL new newer a", "FAULTY.ALONE"] {
        assert_eq!(t.caller.run(line), INTERNAL, "{line}");
        assert_eq!(state(&t.server), before, "{line}");
    }
    assert_eq!(t.server.changes_since_save(), changes, "nothing has changed");
    for line in ["FAULTY.INPLACE raw", "FAULTY.OVERWRITE a", "FAULTY.LOGGED b"] {
        assert_eq!(t.caller.run(line), STANDS, "{line}");
    }
    t.caller.run("SET brief v PX 1");
    std::thread::sleep(std::time::Duration::from_millis(3));
    assert_eq!(t.caller.run("FAULTY.SEVERAL brief a b"), INTERNAL);
    assert_eq!(t.caller.run("GET a"), "$11 overwritten ");
    assert!(state(&t.server).iter().all(|(_, key, ..)| key != b"brief"));
}

#[test]
fn what_expired_stays_expired_though_the_command_is_undone() {
    let mut t = Faulty::filled();
    t.caller.run("SET brief v PX 1");
    std::thread::sleep(std::time::Duration::from_millis(3));
    assert_eq!(t.caller.run("FAULTY.SEVERAL brief a b"), INTERNAL);
    assert!(t.assert_replay_equals_live().iter().all(|(_, key, ..)| key != b"brief"));
    t.assert_alive();
}

#[test]
fn a_panic_after_the_change_of_one_key_leaves_log_and_keyspace_alike() {
    let mut t = Faulty::filled();
    for (line, key, value) in [
        ("FAULTY.INPLACE raw", "raw", "$18 something and more "),
        ("FAULTY.OVERWRITE a", "a", "$11 overwritten "),
        ("FAULTY.OVERWRITE new", "new", "$11 overwritten "),
        ("FAULTY.OVERWRITE long", "long", "$11 overwritten "),
        ("FAULTY.LOGGED b", "b", "$1 7 "),
        ("FAULTY.HALFLOGGED c", "c", "$1 7 "),
    ] {
        assert_eq!(t.caller.run(line), STANDS, "{line}");
        assert_eq!(t.caller.run(&format!("GET {key}")), value, "{line}");
        t.assert_replay_equals_live();
    }
    t.assert_alive();
}

/// A collection that is edited in place has changed by the time of the panic, and the log must say so.
#[test]
fn a_panic_amid_an_edit_leaves_log_and_keyspace_alike() {
    let mut t = Faulty::filled();
    t.caller.run(&format!("RPUSH many {}", "element ".repeat(3000)));
    t.caller.run("RPUSH few a b");
    t.caller.run("PEXPIREAT many 33177117420123");
    for (line, told) in [("FAULTY.EDIT many", STANDS), ("FAULTY.EDIT few", INTERNAL), ("FAULTY.EDIT none", INTERNAL)] {
        assert_eq!(t.caller.run(line), told, "{line}");
        t.assert_replay_equals_live();
    }
    assert_eq!(t.caller.run("LLEN few"), ":2 ", "a small one is changed when the edit is over");
    assert_eq!(t.caller.run("EXISTS none"), ":0 ");
    t.caller.run("MULTI");
    t.caller.run("RPUSH many more");
    t.caller.run("FAULTY.EDIT many");
    t.caller.run("SET after 1");
    assert_eq!(t.caller.run("EXEC"), format!("*3 :3002 {STANDS}+OK "));
    t.assert_replay_equals_live();
    t.caller.run("DEL many few after");
    t.assert_alive();
}

#[test]
fn a_panic_behind_the_gate_or_in_a_session_command_harms_nobody() {
    let mut t = Faulty::filled();
    let before = t.assert_replay_equals_live();
    for (line, told) in [("FAULTY.ALONE", INTERNAL), ("FAULTY.SESSION", STOPPED), ("FAULTY.ALONE", INTERNAL)] {
        assert_eq!(t.caller.run(line), told, "{line}");
        assert_eq!(t.assert_replay_equals_live(), before, "{line}");
    }
    t.assert_alive();
}

#[test]
fn the_commands_around_it_in_a_pipeline_have_their_replies() {
    let mut t = Faulty::filled();
    let lines = ["SET a 5", "FAULTY.SEVERAL a b c", "GET a", "FAULTY.SESSION", "FAULTY.ALONE", "INCR a", "ECHO end"];
    assert_eq!(t.pipeline(&lines), format!("+OK {INTERNAL}$1 5 {STOPPED}{INTERNAL}:6 $3 end "));
    t.assert_alive();
}

#[test]
fn reads_that_follow_each_other_fail_each_for_itself() {
    let mut t = Faulty::filled();
    t.caller.run("RPUSH list x");
    t.caller.run("SET brief 3 PX 1");
    std::thread::sleep(std::time::Duration::from_millis(3));
    t.server.store.log().sync_now().unwrap();
    let position = t.server.store.journal().position();
    let lines = ["a", "c", "brief", "list", "brief", "missing", "b"].map(|key| format!("FAULTY.READ {key}"));
    let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value ";
    let replies = t.pipeline(&lines.each_ref().map(|line| &line[..]));
    assert_eq!(replies, format!("$1 1 {INTERNAL}$-1 {wrong_type}$-1 $-1 $1 2 "));
    let stats = t.caller.run("INFO commandstats");
    let of_read = stats.split(' ').find(|line| line.starts_with("cmdstat_faulty.read:")).expect("its statistics");
    assert!(of_read.starts_with("cmdstat_faulty.read:calls=7,") && of_read.ends_with(",failed_calls=2"), "{of_read}");
    let found = t.caller.run("INFO stats");
    assert!(found.contains("keyspace_hits:4 keyspace_misses:3 ") && found.contains(" expired_keys:1 "), "{found}");
    assert_eq!(t.server.store.journal().position(), position + 1, "the removal of the expired key is logged");
    assert!(t.assert_replay_equals_live().iter().all(|(_, key, ..)| key != b"brief"));
    t.caller.run("DEL list");
    t.assert_alive();
}

#[test]
fn reads_in_a_pipeline_heed_what_goes_before_them() {
    let mut t = Faulty::filled();
    let lines = ["GET a", "CLIENT REPLY OFF", "GET a", "GET b", "CLIENT REPLY ON", "GET b", "STRLEN b", "GET a"];
    assert_eq!(t.pipeline(&lines), "$1 1 +OK $1 2 :1 $1 1 ");
    let lines =
        ["CLIENT REPLY SKIP", "GET a", "GET b", "MULTI", "GET a", "GET b", "EXEC", "SELECT 1", "GET a", "GET b"];
    assert_eq!(t.pipeline(&lines), "$1 2 +OK +QUEUED +QUEUED *2 $1 1 $1 2 +OK $-1 $-1 ");
    let lines = ["SELECT 0", "SET a x", "GET a", "GET a", "DEL a", "GET a", "GET b extra", "get b", "GET b"];
    let arity = "-ERR wrong number of arguments for 'get' command ";
    assert_eq!(t.pipeline(&lines), format!("+OK +OK $1 x $1 x :1 $-1 {arity}$1 2 $1 2 "));
}

//! Libraries of functions: what is recovered equals what was there, whatever happened in between.

use super::testing::{Caller, random_command, snapshot, start, state};
use crate::base::random::Random;
use crate::core::server::SavePurpose;
use crate::core::{Server, Wait};
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

fn library(name: &str, function: &str, value: &str) -> String {
    format!("#!lua name={name}\\nredis.register_function('{function}', function() return '{value}' end)")
}

/// Counts its calls, in a state that no disk has.
const COUNTER: &str = "#!lua name=counter\\nlocal n = 0\\nredis.register_function('count', \
                       function(keys, args) n = n + 1 redis.call('SET', keys[1], n) return n end)";

fn load(caller: &mut Caller, options: &str, code: &str) -> String {
    caller.run(&format!("FUNCTION LOAD {options} \"{code}\""))
}

/// A change of the libraries, or of keys.
fn random_change(random: &mut Random, caller: &mut Caller) {
    let (name, value) = (format!("lib{}", random.below(4)), format!("v{}", random.below(100)));
    match random.below(12) {
        0..4 => drop(load(caller, "REPLACE", &library(&name, &format!("f{}", random.below(6)), &value))),
        4 => drop(load(caller, "", &library(&name, "f0", &value))),
        5 => drop(load(caller, "REPLACE", &format!("#!lua name={name}\\nreturn 1"))),
        6 | 7 => drop(caller.run(&format!("FUNCTION DELETE {name}"))),
        8 if random.below(3) == 0 => drop(caller.run("FUNCTION FLUSH")),
        9 => {
            let name = format!("restored{}", random.below(3));
            let text = library(&name, "g", &value).replace("\\n", "\n");
            let payload = crate::persist::rdb::encode_libraries([text.as_bytes()].into_iter());
            let policy = ["FLUSH", "APPEND", "REPLACE"][random.below(3) as usize];
            let payload: String = payload.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            caller.run(&format!("FUNCTION RESTORE \"{payload}\" {policy}"));
        }
        _ => drop(caller.run(&random_command(random, "k"))),
    }
}

fn assert_recovered(storage: &SimStorage, live: &Server, generation: u64, what: &str) {
    let expected = (state(live), live.keyspace.libraries());
    for (number, image) in [storage.recover_image(generation), storage.process_image()].iter().enumerate() {
        let server = start(image, generation, 1, FsyncPolicy::Always).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((state(&server), server.keyspace.libraries()), expected, "{what}, image {number}");
    }
}

#[test]
fn log_and_snapshot_give_the_live_libraries() {
    for seed in 0..6 {
        let (storage, mut random) = (SimStorage::new(), Random::from_seed(seed));
        let server = start(&storage, 1, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        for round in 0..4 {
            (0..25).for_each(|_| random_change(&mut random, &mut caller));
            if round % 2 == 1 {
                let purpose = if random.below(2) == 0 { SavePurpose::Save } else { SavePurpose::Rewrite };
                snapshot(&server, purpose).unwrap();
                assert_eq!(server.store.sizes().log_bytes, 0, "all is in the snapshot");
            }
            server.store.log().sync_now().unwrap();
            assert_recovered(&storage, &server, 2, &format!("seed {seed}, round {round}"));
        }
    }
}

#[test]
fn a_recovered_function_is_called_as_before_and_begins_anew() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::Always).unwrap();
    let mut caller = Caller::new(&server, 0);
    assert_eq!(load(&mut caller, "", COUNTER), "$7 counter ");
    let flagged = "#!lua name=flagged\\nredis.register_function{function_name='Ro', description='reads', \
                   flags={'no-writes', 'allow-oom'}, callback=function(k, a) return {k, a} end}";
    assert_eq!(load(&mut caller, "", flagged), "$7 flagged ");
    for count in 1..4 {
        assert_eq!(caller.run("FCALL count 1 counted"), format!(":{count} "));
    }
    assert_eq!(caller.run("FLUSHALL"), "+OK ");
    assert_eq!(caller.run("FCALL COUNT 1 counted"), ":4 ", "FLUSHALL keeps libraries, and the case does not matter");
    server.store.log().sync_now().unwrap();
    for from_snapshot in [false, true] {
        if from_snapshot {
            snapshot(&server, SavePurpose::Save).unwrap();
        }
        let again = start(&storage.process_image(), 2, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&again, 0);
        assert_eq!(caller.run("GET counted"), "$1 4 ");
        assert_eq!(caller.run("FCALL_RO ro 1 k a"), "*2 *1 $1 k *1 $1 a ");
        assert_eq!(caller.run("FCALL count 1 counted"), ":1 ", "its state was in the machine alone");
        assert!(caller.run("FUNCTION LIST LIBRARYNAME f*").contains("$5 reads $5 flags *2 +no-writes +allow-oom"));
    }
}

#[test]
fn a_reload_brings_the_libraries_of_the_disk() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::Always).unwrap();
    let mut caller = Caller::new(&server, 0);
    let debug = |caller: &mut Caller, line: &str| {
        caller.run(line);
        let Some(Wait::Reload(outcome)) = caller.client.wait.take() else { panic!("{line}: nothing was begun") };
        outcome.blocking_recv().expect("an outcome").unwrap_or_else(|error| panic!("{line}: {error}"));
    };
    load(&mut caller, "", COUNTER);
    assert_eq!(caller.run("FCALL count 1 k"), ":1 ");
    let before = server.keyspace.libraries();
    debug(&mut caller, "DEBUG RELOAD");
    assert_eq!((server.keyspace.libraries(), &*caller.run("FCALL count 1 k")), (before, ":1 "));
    load(&mut caller, "", &library("late", "late", "1"));
    debug(&mut caller, "DEBUG LOADAOF");
    assert_eq!(caller.run("FCALL late 0"), "$1 1 ");
    load(&mut caller, "REPLACE", &library("late", "later", "2"));
    caller.run("FUNCTION DELETE counter");
    caller.run("FLUSHALL");
    caller.run("DEBUG RELOAD NOSAVE NOFLUSH");
    let Some(Wait::Reload(outcome)) = caller.client.wait.take() else { panic!("nothing was begun") };
    outcome.blocking_recv().expect("an outcome").expect_err("a library is in both");
    debug(&mut caller, "DEBUG RELOAD NOSAVE NOFLUSH MERGE");
    assert_eq!(server.keyspace.libraries().len(), 1, "the disk has the log, too");
    assert_eq!(caller.run("FCALL later 0"), "$1 2 ");
    server.store.log().sync_now().unwrap();
    assert_recovered(&storage, &server, 2, "after reloads");
}

/// What functions leave behind is there for those that follow, whatever machine they would run in.
#[test]
fn state_is_shared_once_there_is_some() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::Always).unwrap();
    let mut caller = Caller::new(&server, 0);
    let both = "#!lua name=both\\nlocal n = 0\\nredis.register_function('get', function() return n end)\\n\
                redis.register_function('set', function(keys, args) n = args[1] redis.call('INCR', keys[1]) end)\\n\
                redis.register_function('far', function(keys, args) return redis.call('INCR', args[1]) end)";
    assert_eq!(load(&mut caller, "", both), "$4 both ");
    let library = || std::sync::Arc::clone(server.keyspace.libraries().get(b"both").expect("it is there"));
    assert_eq!(caller.run("FCALL get 1 k"), ":0 ");
    assert_eq!((caller.run("FCALL far 1 k other"), caller.run("FCALL far 0 other")), (":1 ".into(), ":2 ".into()));
    assert!(!library().keeps_state.is_so(), "it has not left anything");
    assert_eq!(caller.run("FCALL set 1 k 7"), "$-1 ");
    assert!(library().keeps_state.is_so());
    assert_eq!((caller.run("GET k"), caller.run("FCALL get 1 k")), ("$1 1 ".into(), "$1 7 ".into()), "it ran once");
    assert_eq!(load(&mut caller, "REPLACE", both), "$4 both ");
    assert_eq!(caller.run("FCALL get 1 k"), ":0 ", "it begins anew");
    caller.run("MULTI");
    caller.run("FCALL set 1 k 8");
    caller.run("EXEC");
    assert_eq!(caller.run("FCALL get 1 k"), "$1 8 ", "from inside a transaction");
    let json = "#!lua name=json\\nredis.register_function('allow', function() cjson.encode_sparse_array(true) end)\\n\
                redis.register_function('sparse', function() return cjson.encode({[1000] = 1}) end)";
    assert_eq!(load(&mut caller, "", json), "$4 json ");
    assert!(caller.run("FCALL sparse 1 k").contains("excessively sparse"));
    caller.run("FCALL allow 1 k");
    assert_eq!(caller.run("FCALL sparse 1 k"), "$10 {\"1000\":1} ", "options hold from call to call");
}

/// Whoever rolls back also has the functions of before.
#[test]
fn a_transaction_sees_and_keeps_its_libraries() {
    let storage = SimStorage::new();
    let server = start(&storage, 1, 1, FsyncPolicy::Always).unwrap();
    let mut caller = Caller::new(&server, 0);
    caller.run("MULTI");
    load(&mut caller, "", &library("one", "f", "1"));
    caller.run("FCALL f 0");
    load(&mut caller, "", &library("two", "f", "2"));
    caller.run("FUNCTION DELETE one");
    load(&mut caller, "", &library("two", "f", "2"));
    caller.run("FCALL f 0");
    assert_eq!(caller.run("EXEC"), "*6 $3 one $1 1 -ERR Function f already exists +OK $3 two $1 2 ");
    server.store.log().sync_now().unwrap();
    assert_recovered(&storage, &server, 2, "a transaction");
}

/// Payloads as Redis 7.0, Redis 8.0 and Valkey 9.1 wrote them; see `data/README.md`.
#[test]
fn payloads_of_other_servers_are_restored() {
    for name in ["redis-7.0", "redis-8.0", "valkey-9.1"] {
        let server = start(&SimStorage::new(), 1, 1, FsyncPolicy::No).unwrap();
        let mut caller = Caller::new(&server, 0);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/functions/{name}.bin"));
        let payload: String = std::fs::read(path).unwrap().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        assert_eq!(caller.run(&format!("FUNCTION RESTORE \"{payload}\"")), "+OK ", "{name}");
        assert_eq!(caller.run("FCALL short 0"), "$1 s ");
        assert_eq!(caller.run("FCALL_RO long 0 a b"), ":2 ");
        let listed = caller.run("FUNCTION LIST LIBRARYNAME long");
        let described = format!("of {name}");
        assert!(listed.contains(&format!("${} {described} $5 flags *1 +no-writes", described.len())), "{listed}");
    }
}

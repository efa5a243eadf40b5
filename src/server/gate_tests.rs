//! Which calls wait until every other worker is between two groups of commands, and which do not.

use std::sync::mpsc;
use std::time::Duration;

use super::testing::{Caller, start};
use crate::core::Server;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

/// Longer than any call takes, and short enough to wait for each call that must not finish.
const SHORT: Duration = Duration::from_millis(50);
/// After this time, a call that needs no gate counts as hung.
const LONG: Duration = Duration::from_secs(60);

/// Runs one call while another worker executes a group. Returns the reply. `waits` says that the call must wait for
/// the end of that group.
fn run_beside_another(server: &Server, caller: &mut Caller, line: &str, waits: bool) -> String {
    let (enters, has_entered) = mpsc::channel();
    let (ends, has_ended) = mpsc::channel();
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let inside = server.gate.enter(1);
            enters.send(()).expect("somebody listens");
            let ended = has_ended.recv_timeout(if waits { SHORT } else { LONG });
            drop(inside);
            ended.is_ok()
        });
        has_entered.recv().expect("the other enters");
        let reply = caller.run(line);
        // The other may have gone on already.
        let _ = ends.send(());
        assert_eq!(other.join().expect("it ends well"), !waits, "{line}");
        reply
    })
}

#[test]
fn only_calls_that_may_use_any_key_are_alone() {
    let server = start(&SimStorage::new(), 1, 2, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    for line in ["RPUSH l 3 1 2", "RPUSH o 3 1 2", "MSET w:1 3 w:2 2 w:3 1", "HSET h f v"] {
        caller.run(line);
    }
    for (line, reply) in [
        ("MGET w:1 w:2", "*2 $1 3 $1 2 "),
        ("SORT l", "*3 $1 1 $1 2 $1 3 "),
        ("SORT_RO l DESC LIMIT 0 1", "*1 $1 3 "),
        ("SORT l BY nosort GET # LIMIT 0 1", "*1 $1 3 "),
        ("SORT l STORE ignored ALPHA STORE d LIMIT 0 -1", ":3 "),
        ("SORT o STORE o", ":3 "),
        ("SORT none STORE STORE", ":0 "),
        ("SORT l LIMIT 0 BY w:*", "-ERR value is not an integer or out of range "),
        ("SORT h", "-WRONGTYPE Operation against a key holding the wrong kind of value "),
        ("EXISTS d ignored STORE", ":1 "),
        ("DBSIZE", ":7 "),
    ] {
        assert_eq!(run_beside_another(&server, &mut caller, line, false), reply, "{line}");
    }
    for (line, reply) in [
        ("SORT l BY w:*", "*3 $1 3 $1 2 $1 1 "),
        ("SORT_RO l GET # GET w:*", "*6 $1 1 $1 3 $1 2 $1 2 $1 3 $1 1 "),
        ("SORT l BY w:* BY nosort LIMIT 0 1", "*1 $1 3 "),
        ("FLUSHALL", "+OK "),
    ] {
        assert_eq!(run_beside_another(&server, &mut caller, line, true), reply, "{line}");
    }
}

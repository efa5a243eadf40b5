//! What becomes of a unit of work outside the executor: whose write it was, in which block, and how it is counted.

use std::sync::atomic::Ordering::Relaxed;

use super::testing::{Caller, start};
use crate::core::Wait;
use crate::core::waiting::Served;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

/// What a connection that waited for a key has been served.
fn served(caller: &mut Caller) -> Served {
    let Some(Wait::Keys(mut blocked)) = caller.client.wait.take() else { panic!("it does not wait") };
    blocked.answer.try_recv().expect("it has been served")
}

/// The change of a command that was served later was the last write of nobody.
#[test]
fn what_serves_a_waiter_says_in_which_block_its_change_is() {
    let server = start(&SimStorage::new(), 1, 2, FsyncPolicy::No).unwrap();
    let (mut waiting, mut writer) = (Caller::new(&server, 0), Caller::new(&server, 1));
    writer.run("XGROUP CREATE stream g $ MKSTREAM");
    for (blocking, write, changes) in [
        ("BLPOP list 0", "RPUSH list a", true),
        ("BLMOVE list to LEFT LEFT 0", "RPUSH list a", true),
        ("BRPOPLPUSH list to 0", "RPUSH list a", true),
        ("BLMPOP 0 1 list LEFT", "RPUSH list a", true),
        ("BZPOPMAX zset 0", "ZADD zset 1 a", true),
        ("BZMPOP 0 1 zset MIN", "ZADD zset 1 a", true),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS stream >", "XADD stream 1-1 f v", true),
        ("XREAD BLOCK 0 STREAMS stream $", "XADD stream 2-1 f v", false),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS stream >", "XGROUP DESTROY stream g", false),
    ] {
        if blocking.starts_with("XREADGROUP") {
            waiting.run("XREADGROUP GROUP g c STREAMS stream >");
        }
        let before = waiting.client.last_write_block;
        assert_eq!(waiting.run(blocking), "");
        // All that was written so far is in a block of its own.
        server.store.log().flush().unwrap();
        writer.run(write);
        let served = served(&mut waiting);
        let position = server.store.journal().position();
        assert_eq!(served.block, changes.then_some(position), "{blocking}");
        assert_eq!((waiting.client.last_write_block, writer.client.last_write_block), (before, position), "{blocking}");
    }
}

/// What a command had changed that served another was not counted as a change since the last snapshot.
#[test]
fn changes_that_serve_a_waiter_are_counted() {
    let server = start(&SimStorage::new(), 1, 2, FsyncPolicy::No).unwrap();
    let (mut waiting, mut writer) = (Caller::new(&server, 0), Caller::new(&server, 1));
    waiting.run("BLPOP list 0");
    writer.run("RPUSH list a b c");
    assert!(served(&mut waiting).block.is_some());
    assert_eq!(server.saving.changes.load(Relaxed), 4, "three pushes and a pop");
    waiting.run("BLPOP other 0");
    for line in ["MULTI", "SET k v", "RPUSH other a", "EXEC"] {
        writer.run(line);
    }
    assert!(served(&mut waiting).block.is_some());
    assert_eq!(server.saving.changes.load(Relaxed), 7, "two writes and a pop more");
}

#[test]
fn a_transaction_is_a_write_if_one_of_its_commands_is() {
    for policy in [FsyncPolicy::No, FsyncPolicy::Always] {
        let server = start(&SimStorage::new(), 1, 2, policy).unwrap();
        let (mut caller, mut other) = (Caller::new(&server, 0), Caller::new(&server, 1));
        let mut transaction = |lines: &[&str]| {
            // What others write, in a block of its own, is no concern of this connection.
            server.store.log().flush().unwrap();
            other.run("INCR others");
            server.store.log().flush().unwrap();
            caller.run("MULTI");
            lines.iter().for_each(|line| drop(caller.run(line)));
            let reply = caller.run("EXEC");
            assert!(reply.starts_with('*'), "{reply}");
            caller.client.last_write_block == server.store.journal().position()
        };
        assert!(!transaction(&["GET a", "STRLEN b"]));
        assert!(!transaction(&["GET a", "DEL missing", "LPUSHX missing x"]));
        assert!(!transaction(&["GET a", "DBSIZE"]), "alone");
        assert!(transaction(&["GET a", "SET a 1"]));
        assert!(transaction(&["SET a 1", "LPUSH a x", "GET a"]), "one of them fails");
        assert!(!transaction(&["LPUSH a x", "GET a"]), "the only one that would write fails");
        assert!(transaction(&["FLUSHALL"]));
        assert!(transaction(&["DBSIZE", "SWAPDB 0 1", "GET a"]));
    }
}

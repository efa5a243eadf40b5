//! Tests that large values are not freed by the worker that removed them, and that a worker does not keep the memory
//! for a command of many keys.

use super::testing::{Caller, start};
use crate::exec::PATIENCE;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;
use crate::resp::Output;
use crate::resp::request::OwnedArgs;

#[test]
fn nothing_holds_a_large_value_that_a_command_has_removed() {
    let server = start(&SimStorage::new(), 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    for command in [
        "DEL big",
        "UNLINK big",
        "RENAME other big",
        "MSET big 1 other 2",
        "SUNIONSTORE big small",
        "SMOVE big small member:1",
    ] {
        for begin in (0..20_000).step_by(1000) {
            let members: Vec<String> = (begin..begin + 1000).map(|n| format!("member:{n}")).collect();
            caller.run(&format!("SADD big {}", members.join(" ")));
        }
        caller.run("SET other 1");
        caller.run("SADD small 1");
        let reply = caller.run(command);
        assert!(!reply.starts_with('-'), "{command}: {reply}");
        assert!(caller.executor.remembers_nothing(), "{command}");
        let stays = command.starts_with("SMOVE");
        assert_eq!(caller.run("OBJECT ENCODING big") == "$9 hashtable ", stays, "{command}");
        caller.run("FLUSHALL");
    }
}

#[test]
fn a_command_of_many_keys_leaves_no_room_behind() {
    let server = start(&SimStorage::new(), 1, 1, FsyncPolicy::No).unwrap();
    let mut caller = Caller::new(&server, 0);
    let many = |separator: &str| (0..50_000).map(|n| format!("key:{n}{separator}")).collect::<Vec<_>>().join(" ");
    let (keys, pairs) = (many(""), many(" value"));
    let commands = [
        (format!("MSET {pairs}"), "+OK "),
        (format!("MSET {pairs}"), "+OK "),
        (format!("MSETNX {pairs}"), ":0 "),
        ("MULTI".to_owned(), "+OK "),
        (format!("MSET {pairs}"), "+QUEUED "),
        ("EXEC".to_owned(), "*1 +OK "),
        (format!("EXISTS {keys}"), ":50000 "),
        (format!("DEL {keys}"), ":50000 "),
    ];
    for (command, reply) in commands {
        assert_eq!(caller.run(&command), reply, "{}", &command[..6.min(command.len())]);
        let room = caller.executor.room_bytes();
        assert!(room < 512 << 10, "{room} bytes after {}", &command[..6.min(command.len())]);
    }
    // Behind others in its pipeline, too.
    let command = OwnedArgs::new(format!("EXISTS {keys}").split(' ').map(str::as_bytes));
    let mut out = Output::new();
    let executed = caller.executor.run(&mut caller.client, &[command.args(); 16], &mut out, PATIENCE).executed;
    assert_eq!((executed, out.as_bytes()), (16, &b":0\r\n".repeat(16)[..]));
    assert!(caller.executor.room_bytes() < 512 << 10);
}

//! Who frees large values: not the worker that has removed them.

use super::testing::{Caller, start};
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

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

//! Declarations of MULTI and related commands. The executor takes these steps itself (`exec/transaction.rs`).

use crate::core::conditions;
use crate::core::{Arity, Command, Flags, Handler, KeySpec, Keys, Step, categories, flags};

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&DISCARD, &EXEC, &MULTI, &UNWATCH, &WATCH];

/// The flags of a step. Without the last flag, it is queued, as UNWATCH is.
const QUEUED_STEP: Flags = flags::NOSCRIPT.or(flags::LOADING).or(flags::STALE).or(flags::FAST).or(flags::ALLOW_BUSY);
const STEP: Flags = QUEUED_STEP.or(flags::NOT_QUEUED);

static MULTI: Command = Command {
    name: "MULTI",
    flags: STEP,
    categories: categories::TRANSACTION,
    handler: Handler::Transaction(Step::Multi),
    since: "1.2.0",
    group: "transactions",
    summary: "Begins a transaction: the commands that follow are queued.",
    ..Command::DEFAULT
};

static EXEC: Command = Command {
    name: "EXEC",
    arity: Arity::AtLeast(1),
    // The keys of its conditions, as Valkey has them.
    keys: Keys(&[KeySpec::looked_up(conditions::keys, "RO access")]),
    flags: flags::NOSCRIPT
        .or(flags::LOADING)
        .or(flags::STALE)
        .or(flags::SKIP_SLOWLOG)
        .or(flags::NOT_QUEUED)
        .or(flags::MOVABLEKEYS),
    handler: Handler::Transaction(Step::Exec),
    complexity: "Depends on commands in the transaction",
    syntax: "[IFEQ key value | IFNE key value | XX key | NX key ...]",
    summary: "Executes all queued commands, or none if a watched key has changed or a condition does not hold.",
    ..MULTI
};

static DISCARD: Command = Command {
    name: "DISCARD",
    handler: Handler::Transaction(Step::Discard),
    since: "2.0.0",
    complexity: "O(N), when N is the number of queued commands",
    summary: "Drops the queued commands and ends the transaction.",
    ..MULTI
};

static WATCH: Command = Command {
    name: "WATCH",
    arity: Arity::AtLeast(2),
    keys: Keys(&[KeySpec::range(1, -1, 1, "RO")]),
    handler: Handler::Transaction(Step::Watch),
    since: "2.2.0",
    complexity: "O(1) for every key.",
    syntax: "key [key ...]",
    summary: "Has the next transaction do nothing if one of these keys changes before it is executed.",
    ..MULTI
};

static UNWATCH: Command = Command {
    name: "UNWATCH",
    flags: QUEUED_STEP,
    handler: Handler::Transaction(Step::Unwatch),
    since: "2.2.0",
    summary: "Watches no key any more.",
    ..MULTI
};

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::super::testing::Runner;

    /// Runs EXEC while another worker executes something until EXEC is done, or until `patience` is over. Returns the
    /// reply, and whether EXEC was done before.
    fn exec_beside(t: &mut Runner, patience: Duration) -> (String, bool) {
        let server = Arc::clone(&t.server);
        let (entered, is_inside) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let other = std::thread::spawn(move || {
            let _inside = server.gate.enter(1);
            entered.send(()).expect("somebody waits for it");
            is_done.recv_timeout(patience).is_ok()
        });
        is_inside.recv().expect("it enters");
        let reply = t.run("EXEC");
        // An impatient receiver no longer listens.
        let _ = done.send(());
        (reply, other.join().expect("it only waits"))
    }

    #[test]
    fn a_transaction_that_names_its_keys_does_not_wait_for_other_workers() {
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(20));
        let mut t = Runner::new();
        t.run("SET a 1");
        for line in ["WATCH a w", "MULTI", "INCR a", "MSET b 2 c 3", "MGET a b c", "LPUSH a x", "COPY a d"] {
            t.run(line);
        }
        let (reply, is_beside) = exec_beside(&mut t, long);
        let wrong_type = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        assert_eq!(reply, format!("*5 :2 +OK *3 $1 2 $1 2 $1 3 {wrong_type} :1 "));
        assert!(is_beside);
        for other in ["DBSIZE", "SORT a BY w_*", "SELECT 1", "SCAN 0", "UNWATCH", "FLUSHALL"] {
            for line in ["MULTI", "SET a 1", other] {
                t.run(line);
            }
            let (_, is_beside) = exec_beside(&mut t, short);
            assert!(!is_beside, "{other}");
        }
    }

    #[test]
    fn a_watched_key_that_has_changed_ends_a_transaction_that_names_its_keys() {
        let mut t = Runner::new();
        for line in ["SET w 1", "WATCH w", "INCR w", "MULTI", "SET a 1"] {
            t.run(line);
        }
        assert_eq!(t.run("EXEC"), "*-1 ");
        assert_eq!(t.run("EXISTS a"), ":0 ");
        for line in ["WATCH w", "MULTI", "SET a 1"] {
            t.run(line);
        }
        assert_eq!(t.run("EXEC"), "*1 +OK ");
    }

    #[test]
    fn a_transaction_is_executed_if_its_conditions_hold() {
        let mut t = Runner::new();
        for (line, expected) in [
            ("SET v 1", "+OK "),
            ("MULTI", "+OK "),
            ("SET v 2", "+QUEUED "),
            ("EXEC IFEQ v 1 NX none", "*1 +OK "),
            ("MULTI", "+OK "),
            ("SET v 3", "+QUEUED "),
            ("EXEC XX v IFNE v 2", "*-1 "),
            ("GET v", "$1 2 "),
            ("MULTI", "+OK "),
            ("EXEC IFEQ v", "-EXECABORT Transaction discarded because of: invalid check condition syntax "),
            ("EXEC", "-ERR EXEC without MULTI "),
            ("RPUSH l a", ":1 "),
            ("MULTI", "+OK "),
            ("EXEC IFNE l a", "-WRONGTYPE Operation against a key holding the wrong kind of value "),
            ("EXEC XX l", "-ERR EXEC without MULTI "),
            ("MULTI", "+OK "),
            ("EXEC now", "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command "),
            ("EXEC", "-ERR EXEC without MULTI "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
    }

    #[test]
    fn others_see_that_commands_are_queued_and_keys_watched() {
        let mut t = Runner::new();
        t.run("WATCH a b a");
        t.run("MULTI");
        t.run("PING");
        let record = t.server.clients.list()[0].clone();
        assert_eq!(record.queued.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!(record.watching.load(std::sync::atomic::Ordering::Relaxed), 2);
        t.run("CLIENT LIST");
        let list = t.run("EXEC");
        assert!(list.contains("multi=-1 watch=0"), "{list}");
    }

    /// A field of CLIENT LIST.
    fn listed(t: &mut Runner, field: &str) -> usize {
        let list = t.run("CLIENT LIST");
        let value = list.split(' ').find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).expect("the field is there")
    }

    /// Each new key was compared with all that were watched before, and nothing was counted for it.
    #[test]
    fn a_hundred_thousand_keys_are_watched_at_little_cost_which_is_counted() {
        let mut t = Runner::new();
        let before = listed(&mut t, "tot-mem");
        for round in 0..100 {
            let keys: Vec<_> = (0..1000).map(|key| format!("key:{}", round * 1000 + key)).collect();
            t.run(&format!("WATCH {} key:0", keys.join(" ")));
        }
        assert_eq!(listed(&mut t, "watch"), 100_000);
        let more = listed(&mut t, "tot-mem") - before;
        assert!((10_000_000..40_000_000).contains(&more), "{more} bytes");
        t.run("MULTI");
        t.run("SET key:99999 v");
        assert_eq!(t.run("EXEC"), "*1 +OK ");
        assert_eq!((listed(&mut t, "watch"), listed(&mut t, "tot-mem")), (0, before));
        t.run("WATCH key:7 key:99998");
        t.run("SET key:7 v");
        t.run("MULTI");
        assert_eq!(t.run("EXEC"), "*-1 ");
    }

    #[test]
    fn what_is_queued_is_counted() {
        let mut t = Runner::new();
        t.run("MULTI");
        t.run(&format!("SET k {}", "x".repeat(10_000)));
        let queued = t.server.clients.list()[0].queued_bytes.load(std::sync::atomic::Ordering::Relaxed);
        assert!((10_000..11_000).contains(&queued), "{queued}");
        t.run("CLIENT LIST");
        assert!(t.run("EXEC").contains(" multi-mem=0 "));
        assert_eq!(t.server.clients.list()[0].queued_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_queued_is_bounded() {
        let mut t = Runner::new();
        t.run("CONFIG SET client-query-buffer-limit 1mb");
        t.run("MULTI");
        let line = format!("SET k {}", "x".repeat(100_000));
        (0..11).for_each(|_| drop(t.run(&line)));
        assert!(t.client.closing);
        assert_eq!(t.run("EXISTS k"), ":0 ");
    }

    #[test]
    fn a_connection_that_ends_watches_no_more() {
        let mut t = Runner::new();
        t.run("SET k v");
        t.run("WATCH k");
        let key = t.server.keyspace.key(b"k");
        t.client.unwatch(&t.server.keyspace);
        assert_eq!(t.server.keyspace.lock(key.shard()).watched.unwatch(0, b"k"), None);
    }
}

//! MONITOR: shows a connection all commands that run.

use std::sync::atomic::Ordering::Relaxed;

use crate::core::{Command, CommandError, Handler, Outcome, SessionCall, flags};
use crate::resp::Reply;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&MONITOR];

static MONITOR: Command = Command {
    name: "MONITOR",
    flags: flags::ADMIN.or(flags::NOSCRIPT).or(flags::LOADING).or(flags::STALE),
    handler: Handler::Session(monitor),
    group: "server",
    complexity: "",
    summary: "Shows this connection every command that any connection runs, until RESET or its end.",
    ..Command::DEFAULT
};

fn monitor(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    if call.client.in_exec {
        return Err(CommandError::Text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if call.client.record.monitor.load(Relaxed) {
        // As in Redis, it is not even answered.
        return Ok(reply.withheld());
    }
    call.server.begin_monitoring(&call.client.record);
    Ok(reply.ok())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use crate::core::{Handler, Mail, flags};

    /// A server whose commands are shown to a connection.
    fn monitored(config: &str) -> Runner {
        let mut t = Runner::with_config(config);
        assert_eq!(t.run("MONITOR"), "+OK ");
        t.reconnect();
        t
    }

    /// The lines that were posted since the last call, without their times.
    fn lines(t: &Runner) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut letters = std::collections::VecDeque::new();
        t.server.mailboxes.post(0, Mail::Close { client: 0 });
        runtime.block_on(t.server.mailboxes.receive(0, &mut letters));
        let line = |letter| match letter {
            Mail::Shown { line, .. } => Some(String::from_utf8_lossy(&line).into_owned()),
            _ => None,
        };
        let text: String = letters.into_iter().filter_map(line).collect();
        let without_time = |line: &str| {
            let (time, rest) = line.split_once(' ').expect("a time");
            let (seconds, us) = time.strip_prefix('+').and_then(|time| time.split_once('.')).expect("two numbers");
            assert!(seconds.parse::<u64>().is_ok() && us.len() == 6 && us.parse::<u64>().is_ok(), "{line}");
            rest.to_owned()
        };
        text.lines().map(without_time).collect()
    }

    #[test]
    fn commands_are_shown_as_they_run() {
        let mut t = monitored("");
        t.run("CONFIG SET requirepass secret");
        t.reconnect();
        let shown = |t: &mut Runner, line: &str| {
            t.run(line);
            lines(t)
        };
        assert_eq!(shown(&mut t, "GET k"), [""; 0], "refused");
        assert_eq!(shown(&mut t, "AUTH wrong"), [r#"[0 127.0.0.1:1] "AUTH" "(redacted)""#]);
        let hello = r#"[0 127.0.0.1:1] "HELLO" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "me""#;
        assert_eq!(shown(&mut t, "HELLO 3 AUTH default secret SETNAME me"), [hello]);
        assert_eq!(shown(&mut t, "SELECT 3"), [r#"[3 127.0.0.1:1] "SELECT" "3""#]);
        assert_eq!(shown(&mut t, "LPUSH l 'a\"b'"), [r#"[3 127.0.0.1:1] "LPUSH" "l" "a\"b""#]);
        assert_eq!(shown(&mut t, "GET l"), [r#"[3 127.0.0.1:1] "GET" "l""#], "although it failed");
        for unseen in ["NOSUCH", "GET", "CONFIG SET requirepass secret", "CLIENT LIST"] {
            assert_eq!(shown(&mut t, unseen), [""; 0], "{unseen}");
        }
        t.run("MULTI");
        assert_eq!(lines(&t), [r#"[3 127.0.0.1:1] "MULTI""#]);
        t.run("SET k v");
        t.run("SELECT 0");
        t.run("MONITOR");
        assert_eq!(lines(&t), [""; 0], "what is queued has not run");
        assert!(t.run("EXEC").contains("-ERR MONITOR isn't allowed for DENY BLOCKING client"));
        let transaction = [r#"[3 127.0.0.1:1] "SET" "k" "v""#, r#"[0 127.0.0.1:1] "SELECT" "0""#];
        assert_eq!(lines(&t)[..2], transaction);
        assert_eq!(shown(&mut t, "EXEC"), [r#"[0 127.0.0.1:1] "EXEC""#], "although there was no MULTI");
    }

    #[test]
    fn a_transaction_ends_with_its_exec() {
        let mut t = monitored("");
        for line in ["MULTI", "INCR k", "GET k"] {
            t.run(line);
        }
        lines(&t);
        t.run("EXEC");
        let address = "[0 127.0.0.1:1]";
        let expected = [r#""INCR" "k""#, r#""GET" "k""#, r#""EXEC""#].map(|words| format!("{address} {words}"));
        assert_eq!(lines(&t), expected);
    }

    #[test]
    fn a_monitor_uses_no_keys_and_leaves_by_reset() {
        let mut t = Runner::new();
        t.run("MONITOR");
        assert_eq!(t.run("MONITOR"), "", "the second is not answered");
        for refused in ["GET k", "SET k v", "DBSIZE", "FLUSHALL"] {
            assert_eq!(t.run(refused), "-ERR Replica can't interact with the keyspace ");
        }
        assert!(t.run("PING").starts_with("+PONG "));
        assert!(t.run("CLIENT INFO").contains(" flags=O "));
        assert_eq!(lines(&t).last().map(String::as_str), Some(r#"[0 127.0.0.1:1] "CLIENT" "INFO""#));
        assert_eq!(t.run("RESET"), "+RESET ");
        assert_eq!(t.run("GET k"), "$-1 ");
        assert!(t.run("CLIENT INFO").contains(" flags=N "));
        assert_eq!(lines(&t), [""; 0]);
    }

    /// The shortest call of a command: its name, and as many arguments as it must have.
    fn least(name: &str, arity: i64) -> String {
        let named: Vec<&str> = name.split('|').collect();
        let missing = (arity.unsigned_abs() as usize).saturating_sub(named.len());
        format!("{}{}", named.join(" "), " 1".repeat(missing))
    }

    #[test]
    fn no_command_escapes_the_monitors() {
        let table = super::super::table();
        let all = table.entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
        let all = all.filter(|entry| !matches!(entry.command.handler, Handler::Container(_)));
        for entry in all.filter(|entry| entry.full_name != "shutdown") {
            let line = least(&entry.full_name, entry.command.arity.number());
            let mut t = monitored("enable-debug-command yes\n");
            t.run(&line);
            let is_shown = !entry.command.flags.has(flags::ADMIN.or(flags::SKIP_MONITOR));
            assert_eq!(lines(&t).len(), usize::from(is_shown), "{line}");
        }
    }
}

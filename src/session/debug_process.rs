//! DEBUG: the words about the process and its clients: how it restarts, and what it holds of memory.

use std::time::Duration;

use crate::base::config::ClientsLimit;
use crate::base::{logging, restart};
use crate::command::debug_words::WORD;
use crate::core::server::ShutdownRequest;
use crate::core::{Arity, Command, CommandError, Handler, Outcome, SessionCall, Wait, args, flags};
use crate::resp::Reply;
use tokio::sync::oneshot;

/// The words of this file.
pub(super) static WORDS: &[&Command] =
    &[&AOF_FLUSH_SLEEP, &CLIENT_EVICTION, &CRASH_AND_RECOVER, &LEAK, &REPLICATE, &RESTART];

const NOT_RESTARTED: CommandError = CommandError::Text("ERR failed to restart the server. Check server logs.");
/// The smallest class of clients ends below two to this power, in bytes; the largest begins with the other.
const CLASS_MIN_LOG: u32 = 15;
const CLASS_MAX_LOG: u32 = 33;

/// The delay of RESTART and CRASH-AND-RECOVER; one below zero counts as none.
fn delay(call: &SessionCall<'_>) -> Result<Duration, CommandError> {
    match call.args.len() {
        2 => Ok(Duration::ZERO),
        _ => Ok(Duration::from_millis(u64::try_from(args::integer(call.args.at(2))?).unwrap_or(0))),
    }
}

static RESTART: Command = Command {
    name: "RESTART",
    arity: Arity::AtLeast(2),
    flags: WORD.flags.or(flags::NO_MULTI),
    handler: Handler::Session(|call, reply| {
        let (refused, answer) = oneshot::channel();
        let restart = Some(delay(call)?);
        call.server.shutdown.request(ShutdownRequest { save: None, force: false, restart, refused: Some(refused) });
        call.client.wait = Some(Wait::Shutdown(answer));
        Ok(reply.withheld())
    }),
    syntax: "[delay]",
    summary: "Ends the server as SHUTDOWN does, and starts it again.",
    ..WORD
};

static CRASH_AND_RECOVER: Command = Command {
    name: "CRASH-AND-RECOVER",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(|call, _| {
        let delay = delay(call)?;
        logging::warning(format_args!("DEBUG CRASH-AND-RECOVER called"));
        std::thread::sleep(delay);
        let error = restart::again();
        logging::warning(format_args!("The program cannot be started again: {error}"));
        Err(NOT_RESTARTED)
    }),
    syntax: "[delay]",
    summary: "Ends the server as kill -9 does, and starts it again.",
    ..WORD
};

static REPLICATE: Command = Command {
    name: "REPLICATE",
    arity: Arity::AtLeast(3),
    // There are no replicas.
    handler: Handler::Session(|_, reply| Ok(reply.ok())),
    syntax: "argument [argument ...]",
    summary: "Sends words to the replicas alone, of which there are none.",
    ..WORD
};

static LEAK: Command = Command {
    name: "LEAK",
    arity: Arity::Exactly(3),
    handler: Handler::Session(|call, reply| {
        std::mem::forget(call.args.at(2).to_vec());
        Ok(reply.ok())
    }),
    syntax: "string",
    summary: "Leaks the memory of a string.",
    ..WORD
};

static AOF_FLUSH_SLEEP: Command = Command {
    name: "AOF-FLUSH-SLEEP",
    arity: Arity::Exactly(3),
    handler: Handler::Session(|call, reply| {
        let us = args::integer(call.args.at(2))?;
        call.server.store.log().sleep_before_writes(Duration::from_micros(u64::try_from(us).unwrap_or(0)));
        Ok(reply.ok())
    }),
    syntax: "microseconds",
    summary: "Has every write to the log wait for so long first.",
    ..WORD
};

static CLIENT_EVICTION: Command = Command {
    name: "CLIENT-EVICTION",
    handler: Handler::Session(client_eviction),
    summary: "How much memory clients take, by classes of size, while maxmemory-clients is set.",
    ..WORD
};

fn client_eviction(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let settings = call.server.config.settings();
    if matches!(settings.maxmemory_clients, ClientsLimit::Bytes(0) | ClientsLimit::Percent(0)) {
        return Err(CommandError::Text("ERR maxmemory-clients is disabled."));
    }
    let memories: Vec<u64> = call.server.clients.list().iter().map(|client| client.memory()).collect();
    Ok(reply.verbatim("txt", classes(&memories).as_bytes()))
}

/// A line for each class of sizes: its bounds, and what the clients in it take, in bytes.
fn classes(memories: &[u64]) -> String {
    let mut text = String::new();
    for log in CLASS_MIN_LOG..=CLASS_MAX_LOG {
        let first = if log == CLASS_MIN_LOG { 0 } else { 1_u64 << (log - 1) };
        let last = if log == CLASS_MAX_LOG { None } else { Some((1_u64 << log) - 1) };
        let of_class = memories.iter().filter(|bytes| **bytes >= first && last.is_none_or(|last| **bytes <= last));
        text += &match last {
            Some(last) => format!("Bucket {first:>10} - {last:>10}: "),
            None => format!("Bucket {first:>10}+            : "),
        };
        text += &format!("tot-mem: {:>10}, clients: {}\n", of_class.clone().sum::<u64>(), of_class.count());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::Runner;

    #[test]
    fn words_are_checked() {
        let mut t = { Runner::with_config("enable-debug-command yes") };
        t.run("CONFIG SET maxmemory-clients 0");
        for (line, expected) in [
            ("DEBUG LEAK some", "+OK "),
            ("DEBUG REPLICATE SET a b", "+OK "),
            ("DEBUG AOF-FLUSH-SLEEP 0", "+OK "),
            ("DEBUG AOF-FLUSH-SLEEP x", "-ERR value is not an integer or out of range "),
            ("DEBUG RESTART x", "-ERR value is not an integer or out of range "),
            ("DEBUG CRASH-AND-RECOVER x", "-ERR value is not an integer or out of range "),
            ("DEBUG CLIENT-EVICTION", "-ERR maxmemory-clients is disabled. "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
        t.run("CONFIG SET maxmemory-clients 100mb");
        let told = t.run("DEBUG CLIENT-EVICTION");
        assert!(told.contains("tot-mem:") && told.contains(", clients: 1\n"), "{told}");
    }

    #[test]
    fn every_client_is_in_the_class_of_its_size() {
        let text = classes(&[100, 32_767, 32_768, 1 << 40]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 19);
        assert_eq!(lines[0], "Bucket          0 -      32767: tot-mem:      32867, clients: 2");
        assert_eq!(lines[1], "Bucket      32768 -      65535: tot-mem:      32768, clients: 1");
        assert_eq!(lines[18], "Bucket 4294967296+            : tot-mem: 1099511627776, clients: 1");
    }
}

//! What monitors see of the commands: one line for each, when it has run.
//!
//! ```text
//! +1339518083.107412 [0 127.0.0.1:60866] "keys" "*"
//! ```
//!
//! Commands of operators and those that say so are not shown, secrets are left out, and a command that was refused has
//! not run. A transaction is shown when it runs: its commands one after another, and EXEC behind them.
//!
//! Invariants:
//! - A line is shown while the shards of the command's keys are held, so that monitors see the commands on one key in
//!   the order of their effects: see [`crate::events::monitors`]. Of a transaction, that is so for all lines together.
//! - A monitor whose user may not read all is shown the commands alone of whose keys, channels and databases it may.
//! - A line leaves when the changes that it tells of are as safe as the policy demands.

use std::io::Write;

use crate::base::clock;
use crate::core::client::Client;
use crate::core::{Command, CommandError, Outcome, Server, flags};
use crate::events::monitors::Lines;
use crate::resp::Args;

/// Adds the line of a command that has run, if monitors may see it.
#[cold]
pub(super) fn note(
    server: &Server,
    lines: &mut Lines,
    command: &Command,
    args: Args<'_>,
    client: &Client,
    outcome: &Outcome,
) {
    // One that found a lock busy will run again.
    let ran = !matches!(outcome, Err(CommandError::Busy(_)));
    if !ran || command.flags.has(flags::ADMIN.or(flags::SKIP_MONITOR)) {
        return;
    }
    let begin = lines.len();
    write_line(lines.text_mut(), command.secrets, args, client);
    server.choose_monitors(lines, begin, command, args, client.db);
}

/// Adds EXEC behind the commands of its transaction, or the call of a script before its commands.
#[cold]
pub(super) fn note_exec(server: &Server, lines: &mut Lines, args: Args<'_>, client: &Client) {
    let begin = lines.len();
    write_line(lines.text_mut(), None, args, client);
    if let Ok(entry) = server.table.resolve(args) {
        server.choose_monitors(lines, begin, entry.command, args, client.db);
    }
}

fn write_line(lines: &mut Vec<u8>, secrets: Option<fn(Args<'_>, usize) -> bool>, args: Args<'_>, client: &Client) {
    let now_us = clock::now_us();
    let (seconds, us) = (now_us.div_euclid(1_000_000), now_us.rem_euclid(1_000_000));
    let record = &client.record;
    let (kind, peer) = match record.peer.strip_suffix(":0").filter(|_| record.unix_socket) {
        Some(path) => ("unix:", path),
        None => ("", &*record.peer),
    };
    // A vector takes everything.
    let _ = match client.in_script {
        true => write!(lines, "+{seconds}.{us:06} [{} lua]", client.db),
        false => write!(lines, "+{seconds}.{us:06} [{} {kind}{peer}]", client.db),
    };
    for (at, arg) in args.from(0).enumerate() {
        let is_secret = secrets.is_some_and(|secrets| secrets(args, at));
        lines.push(b' ');
        quote(lines, if is_secret { b"(redacted)" } else { arg });
    }
    lines.extend_from_slice(b"\r\n");
}

/// Shows the lines that were added. The shards of the commands' keys are still held.
#[cold]
pub(super) fn show(server: &Server, lines: &mut Lines, block: u64) {
    if !lines.is_empty() {
        server.show(&std::mem::take(lines), block);
    }
}

/// Appends a word in quotes, in which no byte ends the line.
fn quote(line: &mut Vec<u8>, word: &[u8]) {
    line.push(b'"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => line.extend_from_slice(&[b'\\', byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\t' => line.extend_from_slice(b"\\t"),
            7 => line.extend_from_slice(b"\\a"),
            8 => line.extend_from_slice(b"\\b"),
            b' '..=b'~' => line.push(byte),
            _ => line.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_shown_within_the_line() {
        let mut line = Vec::new();
        quote(&mut line, b"a \"b\"\\\n\r\t\x07\x08\x00\x1f\x7f\xff~");
        assert_eq!(line, br#""a \"b\"\\\n\r\t\a\b\x00\x1f\x7f\xff~""#);
    }
}

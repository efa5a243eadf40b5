//! A client's mistakes, with the exact texts of the replies.
//!
//! [`CommandError::wire`] is the text without the leading `-`. One test pins all texts. A few repeat what the client
//! sent, byte for byte as Redis does: such a word need not be UTF-8, and it ends at its first NUL. `Display` is for
//! logs.

use std::borrow::Cow;
use std::fmt;

pub use crate::base::bytes::until_nul;
use crate::keyspace::Busy;

/// The most bytes of a word that an error text repeats.
const REPEATED_MAX: usize = 128;

/// An error reply of a command. The command that returned it has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds another type.
    WrongType,
    /// Not an integer, or one that does not fit 64 bits.
    NotInteger,
    /// Not a floating-point number.
    NotFloat,
    /// Incompatible options, or unknown words.
    Syntax,
    /// An integer outside the bounds that the text names.
    OutOfRange(&'static str),
    /// The key must exist.
    NoSuchKey,
    /// `SET … EX 0` and the like, with the command's name in lower case.
    InvalidExpire(&'static str),
    /// INCR beyond 64 bits.
    Overflow,
    /// DECRBY by the one number without a negation.
    DecrementOverflow,
    /// INCRBYFLOAT to infinity or NaN.
    NanOrInfinity,
    /// A string longer than `proto-max-bulk-len`.
    StringTooLong,
    /// The number of arguments, with the command's full name in lower case.
    Arity(String),
    /// No such command; with the words that the text repeats.
    UnknownCommand(Vec<u8>),
    /// No such subcommand.
    UnknownSubcommand {
        /// The word given, cut to 128 bytes.
        given: Vec<u8>,
        /// The container, upper case.
        container: String,
    },
    /// The keys of a call, or of a transaction, are in several slots of a cluster.
    CrossSlot,
    /// Not authenticated.
    NoAuth,
    /// The log cannot be written: the reason.
    MisconfLog(String),
    /// The last snapshot failed and `stop-writes-on-bgsave-error` is on.
    MisconfSnapshot,
    /// `used_memory` is above `maxmemory`.
    OutOfMemory,
    /// CLIENT UNBLOCK has ended the wait.
    Unblocked,
    /// A text that only one command uses, including its code.
    Text(&'static str),
    /// The same, made at run time.
    Message(String),
    /// The same, repeating a word of the client.
    Echo(Vec<u8>),
    /// The same, of a command that a script has called, for which the error was counted.
    Counted(Vec<u8>),
    /// A bug of ours stopped the command.
    Internal(Remains),
    /// Not an error, and never sent: the command adds this many bytes beyond its arguments, for which there may be no
    /// room below `maxmemory`. It has done nothing, and runs again when there is.
    NeedsRoom(u64),
    /// Not an error, and never sent: a lock that the command needs is busy. The command has done nothing and runs
    /// again.
    Busy(Busy),
}

/// What is left of a command that a bug of ours stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing: its changes were undone, or it had made none.
    Nothing,
    /// Its change of its one key, which it makes as its last step. The log holds it, if there is one.
    Change,
    /// Nobody knows: it is no data command, and nothing of it is undone.
    Unknown,
}

/// A script runs for too long, and the command needs what it holds.
pub const SCRIPT_RUNS: CommandError =
    CommandError::Text("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.");

/// The same of a function.
pub const FUNCTION_RUNS: CommandError =
    CommandError::Text("BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.");

impl CommandError {
    /// An error with the code `ERR` and a text made at run time.
    pub fn err(text: impl fmt::Display) -> Self {
        CommandError::Message(format!("ERR {text}"))
    }

    /// The refusal of a command that needs a damaged shard.
    #[cold]
    pub fn damaged(what: &str) -> Self {
        CommandError::Message(format!("LOADERR {what}"))
    }

    /// An error with the code `ERR` that repeats a word of the client between two texts.
    pub fn echo(before: &str, word: &[u8], after: &str) -> Self {
        CommandError::Echo([b"ERR ", before.as_bytes(), until_nul(word), after.as_bytes()].concat())
    }

    /// No such subcommand, or the wrong number of arguments, for a container that checks this itself.
    pub fn subcommand_syntax(given: &[u8], container: &str) -> Self {
        let given = &given[..given.len().min(REPEATED_MAX)];
        let after = format!("'. Try {container} HELP.");
        CommandError::echo("unknown subcommand or wrong number of arguments for '", given, &after)
    }

    /// The text as it is sent, without the leading `-`. The reply writer takes care of line ends.
    pub fn wire(&self) -> Cow<'_, [u8]> {
        match self {
            CommandError::UnknownCommand(words) => Cow::Owned([b"ERR unknown command ", &words[..]].concat()),
            CommandError::UnknownSubcommand { given, container } => {
                let after = format!("'. Try {container} HELP.");
                Cow::Owned([b"ERR unknown subcommand '", &given[..], after.as_bytes()].concat())
            }
            CommandError::Echo(text) | CommandError::Counted(text) => Cow::Borrowed(text),
            CommandError::Text(text) => Cow::Borrowed(text.as_bytes()),
            CommandError::Message(text) => Cow::Borrowed(text.as_bytes()),
            _ => Cow::Owned(self.to_string().into_bytes()),
        }
    }

    /// The first word of a text, which `INFO errorstats` counts by. As in Redis, one that is too long is none.
    pub fn code(text: &[u8]) -> &[u8] {
        const MAX_BYTES: usize = 31;
        let begin = &text[..text.len().min(MAX_BYTES)];
        begin.iter().position(|&byte| byte == b' ').map_or(b"ERR", |end| &begin[..end])
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            CommandError::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            CommandError::NotInteger => "ERR value is not an integer or out of range",
            CommandError::NotFloat => "ERR value is not a valid float",
            CommandError::Syntax => "ERR syntax error",
            CommandError::OutOfRange(text) => return write!(f, "ERR {text}"),
            CommandError::NoSuchKey => "ERR no such key",
            CommandError::InvalidExpire(command) => {
                return write!(f, "ERR invalid expire time in '{command}' command");
            }
            CommandError::Overflow => "ERR increment or decrement would overflow",
            CommandError::DecrementOverflow => "ERR decrement would overflow",
            CommandError::NanOrInfinity => "ERR increment would produce NaN or Infinity",
            CommandError::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            CommandError::Arity(name) => return write!(f, "ERR wrong number of arguments for '{name}' command"),
            CommandError::UnknownCommand(_)
            | CommandError::UnknownSubcommand { .. }
            | CommandError::Echo(_)
            | CommandError::Counted(_) => {
                return f.write_str(&String::from_utf8_lossy(&self.wire()));
            }
            CommandError::CrossSlot => "CROSSSLOT Keys in request don't hash to the same slot",
            CommandError::NoAuth => "NOAUTH Authentication required.",
            CommandError::MisconfLog(reason) => return write!(f, "MISCONF Errors writing to the AOF file: {reason}"),
            CommandError::MisconfSnapshot => {
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
                 Commands that may modify the data set are disabled, because this instance is configured to report \
                 errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check \
                 the Redis logs for details about the RDB error."
            }
            CommandError::OutOfMemory | CommandError::NeedsRoom(_) => {
                "OOM command not allowed when used memory > 'maxmemory'."
            }
            CommandError::Unblocked => "UNBLOCKED client unblocked via CLIENT UNBLOCK",
            CommandError::Text(text) => text,
            CommandError::Message(text) => text,
            CommandError::Internal(Remains::Nothing) => "ERR internal error, the command was undone",
            CommandError::Internal(Remains::Change) => "ERR internal error, what the command had changed stands",
            CommandError::Internal(Remains::Unknown) => "ERR internal error, the command was stopped where it was",
            CommandError::Busy(_) => "BUSY what the command needs is in use",
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_redis() {
        let texts = [
            (CommandError::WrongType, "WRONGTYPE Operation against a key holding the wrong kind of value"),
            (CommandError::NotInteger, "ERR value is not an integer or out of range"),
            (CommandError::NotFloat, "ERR value is not a valid float"),
            (CommandError::Syntax, "ERR syntax error"),
            (CommandError::OutOfRange("offset is out of range"), "ERR offset is out of range"),
            (CommandError::NoSuchKey, "ERR no such key"),
            (CommandError::InvalidExpire("set"), "ERR invalid expire time in 'set' command"),
            (CommandError::Overflow, "ERR increment or decrement would overflow"),
            (CommandError::DecrementOverflow, "ERR decrement would overflow"),
            (CommandError::NanOrInfinity, "ERR increment would produce NaN or Infinity"),
            (CommandError::StringTooLong, "ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
            (CommandError::Arity("client|kill".into()), "ERR wrong number of arguments for 'client|kill' command"),
            (CommandError::CrossSlot, "CROSSSLOT Keys in request don't hash to the same slot"),
            (CommandError::NoAuth, "NOAUTH Authentication required."),
            (
                CommandError::MisconfLog("No space left on device".into()),
                "MISCONF Errors writing to the AOF file: No space left on device",
            ),
            (CommandError::OutOfMemory, "OOM command not allowed when used memory > 'maxmemory'."),
            (CommandError::Unblocked, "UNBLOCKED client unblocked via CLIENT UNBLOCK"),
            (CommandError::err("no"), "ERR no"),
            (CommandError::UnknownCommand(b"'a'".to_vec()), "ERR unknown command 'a'"),
            (
                CommandError::UnknownSubcommand { given: b"a".to_vec(), container: "CLIENT".into() },
                "ERR unknown subcommand 'a'. Try CLIENT HELP.",
            ),
            (CommandError::echo("Bad '", b"a", "'"), "ERR Bad 'a'"),
        ];
        for (error, text) in texts {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.wire(), text.as_bytes());
        }
    }

    #[test]
    fn a_word_of_the_client_is_repeated_byte_for_byte_until_its_first_nul() {
        let error = CommandError::echo("Bad '", b"\xff\r\x80\0rest", "'");
        assert_eq!(error.wire(), &b"ERR Bad '\xff\r\x80'"[..]);
        assert_eq!(CommandError::code(&error.wire()), b"ERR");
    }
}

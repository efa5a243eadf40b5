//! The logs of commands that took long, were large, or were answered at length: the last of each kind, newest first,
//! of all workers. SLOWLOG shows the first of them, COMMANDLOG all three.
//!
//! Invariants:
//! - Ids rise by one with each entry of a log, of any worker, and are never reused.
//! - An entry holds no secret and a bounded part of the call: see [`Bounds`].

use std::collections::VecDeque;

use crate::base::config::Settings;
use crate::base::lock::{Mutex, Rank};
use crate::core::Command;
use crate::core::client::ClientRecord;
use crate::core::service::Parts;
use crate::resp::Args;

/// Why a command is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It took long; the figure is microseconds.
    Slow,
    /// Its request was large; the figure is bytes.
    LargeRequest,
    /// Its reply was large; the figure is bytes.
    LargeReply,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 3] = [Reason::Slow, Reason::LargeRequest, Reason::LargeReply];

    /// How many entries its log keeps.
    pub fn len_max(self, settings: &Settings) -> usize {
        match self {
            Reason::Slow => settings.slowlog_max_len,
            Reason::LargeRequest => settings.commandlog_large_request_max_len,
            Reason::LargeReply => settings.commandlog_large_reply_max_len,
        }
    }
}

/// How much of a call an entry shows, and how many entries there are.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most arguments: `slowlog-entry-max-argc`.
    pub arguments_max: usize,
    /// The most bytes of each: `slowlog-entry-max-string-len`.
    pub argument_bytes_max: usize,
    /// The most entries.
    pub entries_max: usize,
}

impl Bounds {
    /// What the settings say for one log.
    pub fn of(settings: &Settings, reason: Reason) -> Bounds {
        Bounds {
            arguments_max: settings.slowlog_entry_max_argc,
            argument_bytes_max: settings.slowlog_entry_max_string_len,
            entries_max: reason.len_max(settings),
        }
    }
}

/// A logged command.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its number, from 0.
    pub id: u64,
    /// When it ran, Unix seconds.
    pub at: i64,
    /// How long it took, in microseconds, or how large it was, in bytes.
    pub figure: u64,
    /// The call, without secrets and cut if it is long.
    pub args: Vec<Vec<u8>>,
    /// How many arguments the call had, with its name.
    pub argc: usize,
    /// The address of the caller.
    pub peer: String,
    /// The name of the connection.
    pub name: Vec<u8>,
    /// Of what its service time consisted, once its reply has left.
    pub parts: Option<Parts>,
}

/// One log.
#[derive(Debug)]
pub struct CommandLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    next_id: u64,
    entries: VecDeque<Logged>,
}

impl Default for CommandLog {
    fn default() -> Self {
        CommandLog(Mutex::new(Rank::Register, Kept::default()))
    }
}

impl CommandLog {
    /// Adds a call that ran at a time in Unix seconds, with its figure, and drops the oldest beyond the bounds. Returns
    /// its number.
    pub fn add(
        &self,
        (command, args): (&Command, Args<'_>),
        client: &ClientRecord,
        (at, figure): (i64, u64),
        bounds: Bounds,
    ) -> u64 {
        let (argc, args, peer) = (args.len(), shown(command, args, bounds), client.peer.clone());
        let name = client.labels.lock().name.clone();
        let mut kept = self.0.lock();
        let id = kept.next_id;
        kept.next_id += 1;
        kept.entries.push_front(Logged { id, at, figure, args, argc, peer, name, parts: None });
        kept.entries.truncate(bounds.entries_max);
        id
    }

    /// The reply to entry number `id` has left.
    pub fn settle(&self, id: u64, parts: Parts) {
        let mut kept = self.0.lock();
        let entry = kept.next_id.checked_sub(id + 1).and_then(|at| kept.entries.get_mut(usize::try_from(at).ok()?));
        if let Some(entry) = entry.filter(|entry| entry.id == id) {
            entry.parts = Some(parts);
        }
    }

    /// The newest entries, at most this many.
    pub fn newest(&self, count: usize) -> Vec<Logged> {
        self.0.lock().entries.iter().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all of them.
    pub fn clear(&self) {
        let dropped = std::mem::take(&mut self.0.lock().entries);
        drop(dropped);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct CommandLogs {
    /// The commands that took long.
    pub slow: CommandLog,
    /// The commands whose requests were large.
    pub large_request: CommandLog,
    /// The commands whose replies were large.
    pub large_reply: CommandLog,
}

impl CommandLogs {
    /// The log of one kind.
    pub fn of(&self, reason: Reason) -> &CommandLog {
        match reason {
            Reason::Slow => &self.slow,
            Reason::LargeRequest => &self.large_request,
            Reason::LargeReply => &self.large_reply,
        }
    }
}

/// A call as it may be shown: without secrets, and cut if it is long.
fn shown(command: &Command, args: Args<'_>, bounds: Bounds) -> Vec<Vec<u8>> {
    let Bounds { arguments_max, argument_bytes_max, .. } = bounds;
    let is_secret = |at| command.secrets.is_some_and(|secrets| secrets(args, at));
    let show = |at: usize| {
        let arg = args.at(at);
        match arg.len().checked_sub(argument_bytes_max) {
            _ if is_secret(at) => b"(redacted)".to_vec(),
            None | Some(0) => arg.to_vec(),
            Some(more) => [&arg[..argument_bytes_max], format!("... ({more} more bytes)").as_bytes()].concat(),
        }
    };
    if args.len() <= arguments_max {
        return (0..args.len()).map(show).collect();
    }
    let mut all: Vec<Vec<u8>> = (0..arguments_max.saturating_sub(1)).map(show).collect();
    all.push(format!("... ({} more arguments)", args.len() - all.len()).into_bytes());
    all
}

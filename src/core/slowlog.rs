//! The slow log: the last commands that took long, newest first, of all workers.
//!
//! Invariants:
//! - Ids rise by one with each entry of any worker, and are never reused.
//! - An entry holds no secret and a bounded part of the call: [`ARGUMENTS_MAX`] arguments of [`ARGUMENT_BYTES_MAX`].

use std::collections::VecDeque;

use crate::base::lock::{Mutex, Rank};
use crate::core::Command;
use crate::core::client::ClientRecord;
use crate::resp::Args;

/// The most arguments that an entry shows,
pub const ARGUMENTS_MAX: usize = 32;
/// and the most bytes of each.
pub const ARGUMENT_BYTES_MAX: usize = 128;

/// A command that took long.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Its number, from 0.
    pub id: u64,
    /// When it ran, Unix seconds.
    pub at: i64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// The call, without secrets and cut if it is long.
    pub args: Vec<Vec<u8>>,
    /// The address of the caller.
    pub peer: String,
    /// The name of the connection.
    pub name: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct SlowLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    next_id: u64,
    entries: VecDeque<Slow>,
}

impl Default for SlowLog {
    fn default() -> Self {
        SlowLog(Mutex::new(Rank::Register, Kept::default()))
    }
}

impl SlowLog {
    /// Adds a call that ran at a time in Unix seconds, and drops the oldest beyond `len_max`.
    pub fn add(
        &self,
        (command, args): (&Command, Args<'_>),
        client: &ClientRecord,
        (at, took_us): (i64, u64),
        len_max: usize,
    ) {
        let (args, peer) = (shown(command, args), client.peer.clone());
        let name = client.labels.lock().name.clone();
        let mut kept = self.0.lock();
        let id = kept.next_id;
        kept.next_id += 1;
        kept.entries.push_front(Slow { id, at, took_us, args, peer, name });
        kept.entries.truncate(len_max);
    }

    /// The newest entries, at most this many.
    pub fn newest(&self, count: usize) -> Vec<Slow> {
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

/// A call as it may be shown: without secrets, and cut if it is long.
fn shown(command: &Command, args: Args<'_>) -> Vec<Vec<u8>> {
    let is_secret = |at| command.secrets.is_some_and(|secrets| secrets(args, at));
    let show = |at: usize| {
        let arg = args.at(at);
        match arg.len().checked_sub(ARGUMENT_BYTES_MAX) {
            _ if is_secret(at) => b"(redacted)".to_vec(),
            None | Some(0) => arg.to_vec(),
            Some(more) => [&arg[..ARGUMENT_BYTES_MAX], format!("... ({more} more bytes)").as_bytes()].concat(),
        }
    };
    if args.len() <= ARGUMENTS_MAX {
        return (0..args.len()).map(show).collect();
    }
    let mut all: Vec<Vec<u8>> = (0..ARGUMENTS_MAX - 1).map(show).collect();
    all.push(format!("... ({} more arguments)", args.len() - all.len()).into_bytes());
    all
}

//! The log of refusals: ACL LOG.
//!
//! Invariant: it holds at most as many entries as it was told, and an entry takes bounded memory.

use std::collections::VecDeque;

/// Refusals alike within this time make one entry, in milliseconds.
const GROUPED_MS: i64 = 60_000;
/// How many entries are compared.
const COMPARED: usize = 10;
/// The most bytes of a name that an entry keeps.
const NAME_MAX: usize = 1024;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A command.
    Command,
    /// The use of a key.
    Key,
    /// The use of a channel.
    Channel,
    /// The use of a database.
    Database,
    /// A login.
    Auth,
}

impl Reason {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Database => "database",
            Reason::Auth => "auth",
        }
    }
}

/// Where a call stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// By itself.
    Toplevel,
    /// Between MULTI and EXEC.
    Multi,
    /// In a script.
    Lua,
}

impl Context {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Context::Toplevel => "toplevel",
            Context::Multi => "multi",
            Context::Lua => "lua",
        }
    }
}

/// Refusals alike.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Grows with each entry.
    pub id: u64,
    /// How many there were.
    pub count: u64,
    /// What was refused,
    pub reason: Reason,
    /// and where.
    pub context: Context,
    /// The command, key or channel.
    pub object: Vec<u8>,
    /// The user.
    pub username: Vec<u8>,
    /// The line of CLIENT LIST of the last one's connection.
    pub client: Vec<u8>,
    /// When the first came, Unix ms,
    pub created_ms: i64,
    /// and the last.
    pub updated_ms: i64,
}

/// One refusal.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// See [`Entry`], likewise the others.
    pub reason: Reason,
    /// Where.
    pub context: Context,
    /// The command, key or channel.
    pub object: &'a [u8],
    /// The user.
    pub username: &'a [u8],
    /// The line of its connection.
    pub client: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct RefusalLog {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl RefusalLog {
    /// Notes a refusal.
    pub fn note(&mut self, refusal: Refusal<'_>, now_ms: i64, len_max: usize) {
        let Refusal { reason, context, object, username, client } = refusal;
        let (object, username) = (cut(object), cut(username));
        let is_like = |entry: &Entry| {
            entry.reason == reason
                && entry.context == context
                && now_ms.abs_diff(entry.updated_ms) <= GROUPED_MS as u64
                && entry.object == object
                && entry.username == username
        };
        let known = self.entries.iter().take(COMPARED).position(is_like);
        match known.and_then(|at| self.entries.remove(at)) {
            Some(entry) if len_max > 0 => {
                let entry = Entry { count: entry.count + 1, client, updated_ms: now_ms, ..entry };
                self.entries.push_front(entry);
            }
            _ if len_max > 0 => {
                let (id, object, username) = (self.next_id, object.to_vec(), username.to_vec());
                let (created_ms, updated_ms) = (now_ms, now_ms);
                let entry = Entry { id, count: 1, reason, context, object, username, client, created_ms, updated_ms };
                self.entries.push_front(entry);
                self.next_id += 1;
            }
            _ => {}
        }
        self.entries.truncate(len_max);
    }

    /// The newest entries, the newest first.
    pub fn newest(&self, count: usize) -> Vec<Entry> {
        self.entries.iter().take(count).cloned().collect()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries = VecDeque::new();
    }
}

fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_MAX)]
}

//! What commands are made of: the vocabulary that every family, the executor and the server share.
//!
//! - [`command`]: the declaration of a command; [`table`]: all of them, by name.
//! - [`call`], [`db`], [`args`], [`error`]: what a handler is given, and how it fails.
//! - [`mod@unit`]: what a command does, until it is committed or taken back.
//! - [`key_spec`]: where the keys of a command are.
//! - [`server`], [`client`], [`stats`]: the shared state of the server, and that of one connection.
//! - [`permission`]: whether a user may make a call; [`monitoring`]: what a monitor is shown of it.
//! - [`mod@cluster`]: who this server is to cluster clients.
//! - [`roster`]: which workers are in service.
//! - [`mailbox`]: how one thread reaches what belongs to another; [`message`]: a published message on its way.
//! - [`subscriber`]: subscriptions of a connection.
//! - [`key_events`]: what happened to keys, on its way to those who listen.
//! - [`memory`]: what `maxmemory` is compared with.
//! - [`caching`]: how a connection is told of changed keys.
//! - [`waiting`]: commands that wait for a key.
//! - [`backup`]: how far BACKUP is.
//! - [`figures`]: what the server tells of itself.

pub mod args;
pub mod audit;
pub mod backup;
pub mod caching;
pub mod call;
pub mod client;
pub mod client_line;
pub mod cluster;
pub mod command;
pub mod commandlog;
pub mod conditions;
pub mod db;
pub mod disk;
pub mod error;
pub mod fieldsets;
pub mod figures;
pub mod flushes;
pub mod functions;
pub mod help;
pub mod hooks;
pub mod hotkeys;
pub mod key_events;
pub mod key_spec;
pub mod keystats;
pub mod mailbox;
pub mod memory;
pub mod message;
pub mod migration;
pub mod monitoring;
mod notify;
pub mod pause;
pub mod permission;
pub mod roster;
pub mod scripts;
pub mod scrub;
pub mod server;
pub mod service;
pub mod stats;
pub mod stored_string;
pub mod subscriber;
pub mod table;
mod undo;
pub mod unit;
pub mod waiting;

pub use crate::base::config::NotifyFlags;
pub use args::Words;
pub use call::{Call, SessionCall, Wait};
pub use client::Client;
pub use cluster::Cluster;
pub use command::{Arity, Categories, Command, Flags, Handler, LogRule, Outcome, Step, categories, flags};
pub use db::Db;
pub use error::CommandError;
pub use help::help;
pub use hooks::{Hook, Hooks};
pub use key_spec::{KeySpec, Keys};
pub use mailbox::{Mail, Mailboxes};
pub use server::Server;
pub use table::Table;
pub use unit::{Scratch, Unit, Wants};
pub use waiting::{Block, BlockedOn};

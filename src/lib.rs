//! Ironkeep: a persistent, Redis-compatible, single-node data store.
//!
//! The layers, lowest first. **Imports only go down this list** (`tests/tidy.rs` checks it):
//!
//! | layer | job |
//! |---|---|
//! | [`base`] | clock, hashing, number formatting, glob, counting allocator, configuration directives |
//! | [`resp`] | the wire protocol: request decoder and reply writer |
//! | [`value`] | what a key can hold: strings, collections, and the copy-on-write map that keys live in |
//! | [`keyspace`] | databases, shards, locks, expiry, the frozen view |
//! | [`persist`] | storage trait, log, snapshot, manifest, recovery |
//! | [`events`] | registers of what clients listen to: channels, patterns, cached keys, monitors |
//! | [`access`] | users, roles and their rules; the log of refusals |
//! | [`core`] | what commands are made of: declaration, table, call, errors; the server's and a connection's state |
//! | [`command`] | the families of data commands |
//! | [`script`] | the engine that runs Lua, its sandbox and libraries |
//! | [`exec`] | the one path of a command: check, lock, run, log, unlock, reply |
//! | [`durable`] | what moves whole keyspaces: saving, loading, reloading |
//! | [`observe`] | INFO, and what the kernel says of the process |
//! | [`session`] | commands that need the connection or the whole server |
//! | [`http`] | a page, metrics, health and state for those who watch the server |
//! | [`server`] | acceptor, workers, connections, start-up and shutdown |
//! | [`tool`] | what the binary does beside serving: check, restore, repair |

pub mod access;
pub mod base;
pub mod command;
pub mod core;
pub mod durable;
pub mod events;
pub mod exec;
pub mod http;
pub mod keyspace;
pub mod observe;
pub mod persist;
pub mod resp;
pub mod script;
pub mod server;
pub mod session;
pub mod tool;
pub mod value;

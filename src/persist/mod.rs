//! Persistence: log, snapshot, manifest, recovery. This layer deals in bytes and knows no command.
//!
//! Read bottom-up: [`storage`] (every file access), [`format`](mod@format) (every byte, drawn), [`wire`],
//! [`verbs`], [`record`], [`block`], [`journal`], [`log`], [`fsync`], [`chunk`], [`snapshot`], [`manifest`],
//! [`recover`], [`store`] (which ties them together). Beside them stand [`rdb`], the import and export form, and
//! [`nodes`], who this server is to cluster clients. Nothing here imports the keyspace, a command or the executor.

pub mod block;
pub mod chunk;
#[cfg(test)]
mod crash_tests;
pub mod error;
pub mod format;
pub mod fsync;
pub mod journal;
pub mod log;
pub mod manifest;
pub mod nodes;
pub mod rdb;
pub mod record;
pub mod recover;
pub mod snapshot;
pub mod storage;
pub mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod testing;
pub mod verbs;
pub mod wire;

pub use chunk::{Chunk, ChunkWriter, Entry, WireValue};
pub use error::PersistError;
pub use journal::{Appender, Journal, Sink};
pub use log::{FsyncPolicy, Log};
pub use record::{Args, Effect, EncodedVerb, Record};
pub use recover::{Epoch, Recovery, RecoverySummary, Window};
pub use snapshot::{FinishedSnapshot, SnapshotWriter};
pub use store::{CommitSummary, Cut, Sizes, Store, StoreOptions};

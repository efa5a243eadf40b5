//! Persistence: log, snapshot, manifest, recovery. This layer deals in bytes and knows no command.
//!
//! Read bottom-up: [`storage`] (every file access), [`format`](mod@format) (every byte, drawn), [`wire`],
//! [`verbs`], [`record`], [`block`], [`journal`], [`log`], [`fsync`], [`chunk`], [`snapshot`], [`manifest`],
//! [`index`] and [`places`] (where the records of a shard lie), [`recover`], [`windows`] (the whole log in order),
//! [`generations`] (which of them stay), [`store`] (which ties them together), [`examine`] (which reads all of them and
//! changes nothing). Beside them stand [`rdb`] and [`foreign`], the import and export forms, and [`nodes`], who this
//! server is to cluster clients. Nothing here imports the keyspace, a command or the executor.

pub mod block;
pub mod chunk;
#[cfg(test)]
mod crash_tests;
pub mod crypt;
#[cfg(test)]
mod damage_tests;
pub mod error;
pub mod examine;
pub mod foreign;
pub mod format;
pub mod fsync;
pub mod generations;
#[cfg(test)]
mod generations_tests;
pub mod graves;
mod importing;
pub mod index;
#[cfg(test)]
mod index_tests;
pub mod journal;
pub mod log;
pub mod manifest;
pub mod nodes;
pub mod places;
pub mod rdb;
pub mod record;
pub mod recover;
pub mod restore;
mod settling;
pub mod snapshot;
pub mod storage;
pub mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod sweep_tests;
#[cfg(test)]
mod testing;
pub mod verbs;
pub mod windows;
pub mod wire;

pub use chunk::{Chunk, ChunkWriter, Entry, WireValue};
pub use error::PersistError;
pub use generations::Retention;
pub use graves::WireGrave;
pub use journal::{Appender, Journal, Sink};
pub use log::{FsyncPolicy, Log};
pub use places::{Position, Records, position};
pub use record::{Args, Effect, EncodedVerb, Record};
pub use recover::{Recovery, RecoverySummary};
pub use snapshot::{FinishedSnapshot, SnapshotWriter};
pub use store::{CommitSummary, Cut, Sizes, Store, StoreOptions};
pub use windows::{Epoch, Window};

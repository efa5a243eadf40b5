//! The files of Redis and Valkey: RDB files and append-only files, read to be imported and written to be exported.
//!
//! | step | file |
//! |---|---|
//! | bytes from a file, at most a buffer of them ahead | `source.rs` |
//! | where a value in an RDB file ends | `extent.rs` |
//! | the RDB file, one key at a time | `rdb_file.rs` |
//! | the commands of an append-only file, one at a time | `aof_file.rs` |
//! | which files make up an append-only file | `aof_manifest.rs` |
//! | what a path holds | `find.rs` |
//! | an RDB file is written | `rdb_writer.rs`; versions and their types: `file_version.rs`, `opcode.rs` |
//! | an append-only file is written | `aof_writer.rs` |
//!
//! Invariants:
//! - Memory is bounded by the buffer and one value, one command or one transaction: no length in a file makes room
//!   before its bytes are there.
//! - Whatever the bytes are, reading ends, with content or with an error that names file and offset. It never panics.
//! - Foreign files are never changed.

pub mod aof_file;
mod aof_manifest;
pub mod aof_writer;
mod extent;
pub mod file_version;
pub mod find;
mod opcode;
pub mod rdb_file;
pub mod rdb_writer;
pub mod source;
#[cfg(test)]
mod tests;

pub use aof_file::{AofCommand, AofFile, AofItem};
pub use aof_writer::AofFileWriter;
pub use file_version::FileVersion;
pub use find::{Foreign, ForeignNames, Piece, PieceKind};
pub use rdb_file::{RdbFile, RdbItem, RdbKey};
pub use rdb_writer::{KeyFacts, RdbFileWriter};
pub use source::Source;

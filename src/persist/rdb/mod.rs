//! RDB, the format of Redis' snapshots, for single values: what DUMP gives and RESTORE takes.
//!
//! It is an import and export form; [`super::format`] draws the native one. Reading feeds an [`RdbSink`], writing
//! takes pieces ([`DumpWriter`]); neither knows how values are kept in memory. Tests and tools use a neutral value
//! ([`RdbValue`], [`decode_dump`], [`encode_dump`]). The bytes come from clients: reading never panics, and holds at
//! most one string of the payload, which LZF expands 88 times at most, and a stream's groups. The sink accounts for
//! what it keeps itself.
//!
//! # Payload
//!
//! ```text
//! type u8 | value | RDB version u16 LE | CRC-64 (Jones) of all before it u64 LE
//! ```
//!
//! Versions 1 to 15 are of Redis; 80 and 81 are of Valkey 9, whose type 22 differs.
//!
//! # Primitives
//!
//! ```text
//! length   00LLLLLL                         6 bits
//!          01LLLLLL LLLLLLLL                14 bits, highest first
//!          10000000 u32 BE | 10000001 u64 BE
//! string   length | bytes
//!          C0 i8 | C1 i16 LE | C2 i32 LE    the number in decimal
//!          C3 | packed length | length | LZF (drawn in `lzf`)
//! double   f64 LE
//! digits   n u8 | n bytes of ASCII          253 NaN, 254 +inf, 255 -inf
//! id       ms length | sequence length
//! rawid    ms u64 BE | sequence u64 BE
//! time     i64 LE, unix ms
//! ```
//!
//! # Values
//!
//! `W` marks what is written. Containers (below) stand in a string each.
//!
//! ```text
//!  0 W string
//!  1   list       count length | string*
//!  2 W set        count | string*
//!  3   zset       count | (string | digits)*
//!  4 W hash       count | (field string | value string)*
//!  5 W zset       count | (string | double)*
//!  9   hash       zipmap
//! 10   list       ziplist
//! 11 W set        intset
//! 12   zset       ziplist: member, score …
//! 13   hash       ziplist: field, value …
//! 14   list       count | ziplist*
//! 15   stream     version 1
//! 16 W hash       listpack: field, value …
//! 17 W zset       listpack: member, score …
//! 18 W list       count | node*              node: 1 | string, or 2 | listpack
//! 19 W stream     version 2
//! 20   set        listpack
//! 21   stream     version 3
//! 22   hash       Redis: as 24 without the earliest, times absolute
//!                 Valkey: count | (field | value | time or -1)*
//! 23   hash       as 25 without the earliest
//! 24 W hash       earliest time | count | (ahead length | field | value)*     ahead: 0, or expiry - earliest + 1
//! 25   hash       earliest time | listpack: field, value, expiry or 0 …
//! 26 W stream     version 4                  if producers make it idempotent
//! 27 W stream     version 5                  if consumers have handed entries back
//! ```
//!
//! # Stream
//!
//! ```text
//! stream   count | (node id: string of rawid | node: listpack)* | entries length | last id
//!          | [from 2: first id | max deleted id | entries added length]
//!          | groups count | group* | [from 4: idempotency]
//! node     live | deleted | fields | name* | 0 | entry*
//! entry    flags | ms - node's | sequence - node's | [fields] | (name value)* or value* | elements
//!          flags: 1 deleted, 2 same fields as the node (neither count nor names)
//! group    name string | last id | [from 2: entries read length, all ones: unknown]
//!          | count | (rawid | delivery time | delivery count length)*
//!          | count | consumer* | [from 5: count | rawid*: handed back by XNACK]
//! consumer name string | seen time | [from 3: active time or -1] | count | rawid*
//! idempotency  seconds | entries | count | (producer string | count | (string | id)*)* | added | duplicates
//! ```
//!
//! # Containers
//!
//! ```text
//! listpack size u32 LE | count u16 LE, all ones: many | element* | FF
//!   0vvvvvvv              7 bits, unsigned    | back length: of the element, 7 bits a byte, highest first,
//!   10LLLLLL              string              | the top bit set on all but the first
//!   110vvvvv v8           13 bits, signed
//!   1110LLLL L8           string
//!   F0 u32 LE             string
//!   F1 F2 F3 F4           16, 24, 32, 64 bits, signed, LE
//! ziplist  size u32 LE | offset of the last entry u32 LE | count u16 LE, all ones: many | entry* | FF
//!   entry: length of the one before, u8 or FE u32 LE | form | bytes
//!   00LLLLLL | 01LLLLLL L8 | 80 u32 BE                       string
//!   C0 D0 E0 F0 FE        16, 32, 64, 24, 8 bits, signed, LE
//!   F1..FD                0 to 12
//! zipmap   count u8, from 254: many | (length | field | length | padding u8 | value | padding)* | FF
//!   length: u8 below 254, or FE u32 LE
//! intset   width u32 LE, 2 4 8 | count u32 LE | integers LE, ascending
//! ```
//!
//! Depends on this drawing: everything in this directory, and the payloads under `data/rdb`.

pub mod collect;
mod containers;
pub mod decode;
pub mod encode;
pub mod footer;
pub mod libraries;
pub mod lzf;
pub mod packed;
pub mod reader;
mod stream;
pub mod writer;

use std::fmt;
use std::sync::Arc;

pub use collect::decode_dump;
pub use decode::{RdbSink, decode_dump_into, decode_value_into};
pub use encode::{ListWriter, StreamWriter, encode_dump};
pub use footer::Dialect;
pub use libraries::{DumpedLibraries, LibrariesError, encode_libraries};
pub use packed::ListpackWriter;
pub use reader::Reader;
pub use writer::DumpWriter;

/// The type codes, and the kinds of a list's nodes.
pub(crate) mod code {
    #![allow(missing_docs)] // each is explained in the drawing above
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    pub(crate) const ZSET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    pub(crate) const ZSET_2: u8 = 5;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const ZSET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM_LISTPACKS: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const ZSET_LISTPACK: u8 = 17;
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const STREAM_LISTPACKS_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    pub(crate) const STREAM_LISTPACKS_3: u8 = 21;
    pub(crate) const HASH_METADATA_PRE_GA: u8 = 22;
    pub(crate) const VALKEY_HASH_2: u8 = 22;
    pub(crate) const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    pub(crate) const HASH_METADATA: u8 = 24;
    pub(crate) const HASH_LISTPACK_EX: u8 = 25;
    pub(crate) const STREAM_LISTPACKS_4: u8 = 26;
    pub(crate) const STREAM_LISTPACKS_5: u8 = 27;

    pub(crate) const NODE_PLAIN: u64 = 1;
    pub(crate) const NODE_PACKED: u64 = 2;
}

/// The types that are written: those that Redis 7.0 reads, and more for what it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RdbType {
    /// A string.
    String = code::STRING,
    /// Count and members.
    Set = code::SET,
    /// Count, fields and values.
    Hash = code::HASH,
    /// Count, members and doubles.
    Zset = code::ZSET_2,
    /// One intset.
    SetIntset = code::SET_INTSET,
    /// One listpack of fields and values.
    HashListpack = code::HASH_LISTPACK,
    /// One listpack of members and scores, by score.
    ZsetListpack = code::ZSET_LISTPACK,
    /// Count and nodes.
    List = code::LIST_QUICKLIST_2,
    /// A stream of version 2.
    Stream = code::STREAM_LISTPACKS_2,
    /// A hash with fields that expire: Redis 7.4 and later.
    HashVolatile = code::HASH_METADATA,
    /// A stream that remembers what producers have added: Redis 8.6 and later.
    StreamIdempotent = code::STREAM_LISTPACKS_4,
    /// A stream with entries that consumers have handed back: Redis 8.8 and later.
    StreamReleased = code::STREAM_LISTPACKS_5,
}

impl RdbType {
    /// The RDB version in the footer: the oldest that has the type.
    pub fn version(self) -> u16 {
        match self {
            Self::StreamReleased => 14,
            Self::StreamIdempotent => 13,
            Self::HashVolatile => 12,
            _ => 10,
        }
    }
}

/// Milliseconds and sequence number.
pub type RdbStreamId = (u64, u64);

/// A hash's field, its value, and when it expires in unix ms; that may be in the past.
pub type RdbField = (Vec<u8>, Vec<u8>, Option<u64>);

/// The fields of a stream's entry; entries share their names.
pub type RdbEntryFields = Vec<(Arc<[u8]>, Vec<u8>)>;

/// A stream's entry.
pub type RdbEntry = (RdbStreamId, RdbEntryFields);

/// A value, as its type's commands see it. Collections are not empty, and their members are distinct.
#[derive(Clone, Debug, PartialEq)]
pub enum RdbValue {
    /// Any bytes.
    String(Vec<u8>),
    /// From head to tail.
    List(Vec<Vec<u8>>),
    /// In no order.
    Set(Vec<Vec<u8>>),
    /// In no order.
    Hash(Vec<RdbField>),
    /// In no order; no score is NaN.
    Zset(Vec<(Vec<u8>, f64)>),
    /// May be empty.
    Stream(RdbStream),
}

impl RdbValue {
    /// The same value with unordered parts sorted, for comparisons.
    pub fn sorted(mut self) -> Self {
        match &mut self {
            RdbValue::Set(members) => members.sort(),
            RdbValue::Hash(fields) => fields.sort(),
            RdbValue::Zset(members) => members.sort_by(|a, b| a.0.cmp(&b.0)),
            RdbValue::String(_) | RdbValue::List(_) | RdbValue::Stream(_) => {}
        }
        self
    }
}

/// A stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RdbStream {
    /// By id, ascending.
    pub entries: Vec<RdbEntry>,
    /// Everything besides the entries.
    pub meta: RdbStreamMeta,
}

/// A stream without its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RdbStreamMeta {
    /// The highest id ever; at least that of the last entry.
    pub last_id: RdbStreamId,
    /// The highest id ever deleted.
    pub max_deleted_id: RdbStreamId,
    /// How many entries were ever added; at least as many as there are.
    pub entries_added: u64,
    /// The consumer groups, their names distinct.
    pub groups: Vec<RdbGroup>,
    /// What producers have added lately, and what makes that lately.
    pub idempotency: Option<RdbIdempotency>,
}

/// What makes XADD idempotent (Redis 8.6). Its numbers are as they were read: they may be no window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdbIdempotency {
    /// For how long an id is remembered.
    pub seconds: u64,
    /// How many of a producer.
    pub ids_max: u64,
    /// The producers, their names distinct.
    pub producers: Vec<RdbProducer>,
    /// How many ids were ever added.
    pub added: u64,
    /// How many entries were duplicates.
    pub duplicates: u64,
}

/// A producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdbProducer {
    /// Its name.
    pub name: Vec<u8>,
    /// Its ids, distinct and the oldest first, each with its entry.
    pub ids: Vec<(Vec<u8>, RdbStreamId)>,
}

/// A consumer group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RdbGroup {
    /// Its name.
    pub name: Vec<u8>,
    /// The last id delivered.
    pub last_id: RdbStreamId,
    /// How many entries were read up to there, if that is known.
    pub entries_read: Option<u64>,
    /// The entries delivered and not acknowledged, by ascending id. The entries themselves may be gone.
    pub pel: Vec<RdbPending>,
    /// The entries that consumers handed back with XNACK (Redis 8.8), in the order in which they are to be claimed.
    /// They are pending for nobody, so `consumer` means nothing.
    pub released: Vec<RdbPending>,
    /// The consumers, their names distinct.
    pub consumers: Vec<RdbConsumer>,
}

/// An entry delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdbPending {
    /// The entry.
    pub id: RdbStreamId,
    /// When it was delivered last, unix ms.
    pub delivery_time_ms: u64,
    /// How often it was delivered.
    pub delivery_count: u64,
    /// To whom: an index into the group's consumers.
    pub consumer: usize,
}

/// A consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdbConsumer {
    /// Its name.
    pub name: Vec<u8>,
    /// When it last tried to read, unix ms.
    pub seen_time_ms: u64,
    /// When it last received an entry, if ever.
    pub active_time_ms: Option<u64>,
}

/// Why a payload is refused. The displayed text follows `ERR ` in the reply of RESTORE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdbError {
    /// It is damaged, or of a version that is not known.
    Footer,
    /// The value in it is malformed.
    Format {
        /// The offset at which reading stopped.
        at: usize,
        /// What is wrong, for the operator who imports a file.
        what: &'static str,
    },
}

impl fmt::Display for RdbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Footer => "DUMP payload version or checksum are wrong",
            Self::Format { .. } => "Bad data format",
        })
    }
}

impl std::error::Error for RdbError {}

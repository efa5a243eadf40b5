//! Every byte that Ironkeep persists, drawn once. Format version 2. Version 1 differs in the items of a block alone:
//! the log of a directory may have segments of both.
//!
//! All integers are little-endian. `varint` is LEB128: seven bits a byte, lowest first, the top bit
//! set on all but the last, at most ten bytes. `crc` is CRC-32 (IEEE), as crc32fast computes it.
//!
//! A data directory:
//!
//! ```text
//! LOCK                       flock()ed by the running process; never removed; remembers the newest manifest
//! MANIFEST                   which of the files below are the store
//! snapshot-<number>.ik       one whole keyspace            (number: 16 hex digits)
//! log-<number>.ik            one segment of the log
//! index-<number>.ik          where the records of each shard lie in a segment; may be missing
//! log-<number>.torn-<offset> bytes cut from that segment at that offset by a recovery; never read
//! *.tmp                      being written; removed at start
//! KEYS                       if encrypted: the keys of the files, wrapped under a master key
//! nodes.conf                 with `cluster-enabled yes`: who this server is (or as `cluster-config-file` names it)
//! ```
//!
//! # Manifest
//!
//! ```text
//! 0   magic "IKMANIF1"                 8
//! 8   format version                   u32
//! 12  length of the body               u32
//! 16  crc of the body                  u32
//! 20  crc of bytes 0..20               u32
//! 24  body: ManifestWire (below)
//! ```
//!
//! # Keys
//!
//! ```text
//! 0   magic "IKKEYRNG"                 8
//! 8   format version, 3                u32
//! 12  length of the body, crc, crc     as in the manifest
//! 24  body: KeysWire (below)
//! ```
//!
//! A data key is wrapped by AES-256-GCM-SIV under the master key: the text is the key (32) and the hash seed (16) of
//! the keyspace; the associated data are "ironkeep data key", the store and the key's number. The hash seed in the
//! manifest, in segments and in snapshots only names the store that was created encrypted. The key of a file comes by
//! HKDF-SHA256, without salt, from the data key and "ironkeep file" | kind u8, 1 log, 2 snapshot or 3 index | number u64
//! | generation u64. Nonces are a place as u64 and four zeros.
//!
//! # Lock
//!
//! The file may be empty or hold anything else: a note counts only if it is whole.
//!
//! ```text
//! 0   magic "IKNEWEST"                 8
//! 8   sequence of the newest manifest  u64
//! 16  hash seed of its store           16
//! 32  crc of bytes 0..32               u32
//! ```
//!
//! # Node of the cluster
//!
//! Text, in the form of Redis' file of this name: a line of words for each node, of which there is one, and one of
//! variables. An id has 40 hexadecimal digits, and an epoch is a decimal number. What stands in brackets is written as
//! it stands here and ignored by a reader.
//!
//! ```text
//! <id> [:0@0],,shard-id=<id> myself,master [- 0 0] <config epoch> [connected 0-16383]
//! vars currentEpoch <current epoch> [lastVoteEpoch 0]
//! ```
//!
//! # Log segment
//!
//! ```text
//! 0   magic "IKLOGSG1"                 8
//! 8   format version                   u32
//! 12  kind                             u32   0 = attached: goes on where the sealed segment before it ends
//!                                            1 = detached: counts only if the manifest names it
//! 16  number of the segment            u64
//! 24  generation                       u64   random for each run of the process
//! 32  hash seed of the store           16
//! 48  flags                            u32   bit 0: recycled; bit 1: encrypted; others zero
//! 52  number of the data key           u32   0 if not encrypted
//! 56  reserved, zero                   4
//! 60  crc of bytes 0..60               u32
//! 64  block, block, …
//! ```
//!
//! A recycled segment overwrites the file of a segment that is no longer needed, because a disk overwrites faster
//! than it appends. An end mark follows its last block: 8 zero bytes, or as many as the file has left. Behind the
//! mark stands anything, in particular blocks with lower numbers. In any other segment the file ends behind the last
//! block, or holds zeros to its end, written ahead of need.
//!
//! A block is one flush and one group commit. It is the unit of atomicity and of recovery.
//!
//! ```text
//! 0   magic "IKB1"                     4
//! 4   reserved, zero                   u32
//! 8   length of the payload            u64
//! 16  block number                     u64   dense over all segments
//! 24  generation                       u64   as in the segment's header: a value cannot pose as a block
//! 32  time, unix ms                    u64
//! 40  durable mark                     u64   the highest block known synced when this one was written
//! 48  next segment                     u64   0, or: this is the last block here, that segment goes on
//! 56  crc field of the block before    u32
//! 60  crc of bytes 0..60 and payload   u32
//! 64  payload
//! ```
//!
//! In an encrypted segment, of version 3, the payload is sealed: the ciphertext and a tag of 16 bytes. The place is
//! the block's number, and the associated data are bytes 0..60 of the header.
//!
//! The payload is a sequence of items. The items of one worker are contiguous and in order. Each worker's part opens
//! with an epoch item, which tells how many barriers came before. Within an epoch, `seq` orders the records of one
//! shard. The order between shards is free.
//!
//! ```text
//! epoch    0x02 | epoch varint
//! verb     0x04 | length of the rest varint | shard u16 | seq varint | db varint | code u8 | key string | body
//! barrier  0x05 | length of the rest varint | db varint | code u8 | body      first thing of its epoch
//! string   length varint | bytes
//! ```
//!
//! A verb says what has become of its key, a barrier what has become of several keys. The codes, and what each means:
//! `verbs::Code`. The bodies (`…` is one item or more, to the end; `rest` is bytes to the end; a time is a varint,
//! Unix ms, below 2^48; an id is two varints, the milliseconds and the number within them):
//!
//! ```text
//!   1 SET            type u8, as in a chunk's tag, bit 7: expiry | [time] | rest: the value without its length
//!   2 DEL            nothing                                4 PERSIST     nothing
//!   5 BLESS          nothing                                6 UNBLESS     nothing
//!   3 PEXPIREAT      time
//!  16 APPEND         rest                                  17 SETRANGE    offset varint | rest
//!  18 PFRAISE        (register varint, below 2^14 | rank u8, up to 63)…
//!  32 LPUSH          string…                               33 RPUSH       string…
//!  34 LPOP           count varint                          35 RPOP        count varint
//!  36 LSET           index varint | rest                   37 LINSERT     index varint | rest
//!  38 LREM           end u8, 0 left or 1 right | count varint | rest
//!  39 LTRIM          index varint | count varint
//!  48 HSET           expiry u8: 0 none, 1 kept, 2 and a time that is not 0 | (name string | value string)…
//!  49 HDEL           string…                               51 HPERSIST    string…
//!  50 HPEXPIREAT     time, not 0 | string…
//!  64 SADD           string…                               65 SREM        string…
//!  80 ZADD           (score f64, no NaN | member string)…  81 ZREM        string…
//!  82 ZREMRANKS      rank varint | count varint
//!  96 XADD           id | (name string | value string)…    97 XDEL        ids, one or more
//!  98 XTRIM          count varint                          99 XTRIMACKED  id
//! 100 XSETID         last id | largest deleted id | entries ever added varint
//! 101 XFORGET        ids, one or more                     102 XFORGETUPTO id
//! 103 XIDMPRECORD    how many of the oldest go varint | producer string | its id string | id | time zigzag
//! 104 XCFGSET        seconds varint, 1 to 86400 | ids of a producer varint, 1 to 10000
//! 112 XGROUPCREATE   group string | position              113 XGROUPSETID group string | position
//! 114 XGROUPDESTROY  group string                         115 XGROUPDELCONSUMER  group string | consumer string
//! 116 XDELIVER       group string | consumer string | position | seen zigzag | active zigzag
//!                    | number of pending varint | pending, … | ids
//! 117 XACK           group string | ids, one or more
//! 118 XNACK          group string | (id as in ids | times delivered varint)…
//!     position       last delivered id | entries read: 0, or 1 and a varint
//!     ids            (zigzag of the milliseconds less those of the id before, 0 at first | number varint), to the end
//!     pending        an id as in ids | zigzag of the time less that of the one before, `seen` at first
//!                    | times delivered varint
//! 240 FLUSHALL       nothing                              241 FLUSHDB     nothing
//! 242 SWAPDB         db varint | db varint
//! 243 TRANSFER       u8: 1 copies, 0 moves | source string | db of the destination varint | rest: destination
//! 244 POPULATE       count varint | size varint | rest: prefix
//! 245 FUNCTIONLOAD   name string | rest: text             246 FUNCTIONDELETE rest: name
//! 247 FUNCTIONFLUSH  nothing
//! 248 BURY           u8: 1 all databases, 0 one | number varint | time | time
//! 249 UNBURY         u8: 1 replaces, 0 merges | number varint
//! 250 FORGETBURIED   number varint
//! ```
//!
//! Differences of times and of milliseconds wrap around. The log of version 1 has words instead, the key behind the
//! name, and no verbs; what they meant: `exec::replay::v1`.
//!
//! ```text
//! record   0x01 | length of the rest varint | shard u16 | seq varint | db varint | args
//! barrier  0x03 | length of the rest varint | db varint | args      first thing of its epoch
//! args     count varint | (length varint | bytes)*
//! ```
//!
//! # Index of a segment
//!
//! It is made once the segment is durable and not written any more. Without it, or if it does not fit the segment, the
//! segment is read instead.
//!
//! ```text
//! 0   magic "IKINDEX1"                 8
//! 8   format version, length, crc, crc as in the manifest
//! 24  body: IndexWire (below)
//!     lists, one behind the other, as the body names them: that of barriers is of shard 65535
//!
//! list     place, place, … in the order in which the records are to be applied
//! place    (zigzag of the offset in the segment less that of the place before, 0 at first) * 2 varint, plus 1 and
//!          then a varint if barriers came between, in the segment: how many; a barrier counts itself
//! ```
//!
//! A place is that of a record in a block, or of an epoch right before it. The bytes of a record, for its checksum,
//! begin there.
//!
//! That of an encrypted segment, of version 3, is sealed. Its body is SealedIndexWire, which holds the IndexWire,
//! sealed at the place 2^64 - 1. Behind it stand the lists, each sealed at the number of its shard, with its tag behind
//! it. The number of the file's key is that of the segment, and its generation a random number: an index can be made
//! twice. One more list, of shard 65533, says where the blocks are: the length of each, as a varint. The places lie in
//! the blocks as they are once they are open.
//!
//! # Snapshot
//!
//! ```text
//! 0   magic "IKSNAPS1"                 8
//! 8   format version                   u32
//! 12  length of the header             u32
//! 16  crc of the header                u32
//! 20  crc of bytes 0..20               u32
//! 24  header: SnapshotHeaderWire
//!     chunk, chunk, …                        in any order, at most one a shard, one of libraries, and those
//!                                            of the graveyard
//!     index: SnapshotIndexWire
//!     footer, the last 48 bytes:
//! 0     offset of the index            u64
//! 8     length of the index            u64
//! 16    entries in the chunks of shards u64
//! 24    crc of the index               u32
//! 28    crc of all bytes before the footer u32
//! 32    number of the data key         u32   0 if not encrypted
//! 36    crc of footer bytes 0..36      u32
//! 40    magic "IKSNAPE1"               8
//! ```
//!
//! In an encrypted snapshot, of version 3, the stored bytes of a chunk are frames: length u32 | ciphertext | tag 16,
//! where the length is that of ciphertext and tag. What they hold, one behind the other, is what stands there
//! otherwise. The place is the shard times 2^32 and the number of the frame, from 0. Behind the index and within its
//! length stands a tag without ciphertext, of place 2^64 - 1, with the framed header and the index as associated data.
//!
//! A chunk is the range of stored bytes that the index names. One of shard 65535 holds the libraries of functions, each
//! as a key, which is its name, and bytes, which are its text. If flushes can be undone, one of shard 65534 holds them,
//! each as a key, which is its number as u64, and bytes: the database as u64, or 2^64 - 1 for all of them, and as u64s
//! when it was, until when it can be undone (unix ms), and an estimate of its bytes. Then a chunk of shard 32768 + n
//! holds what they took out of shard n: entries as in its own chunk, but the number of the flush, as u64, precedes each
//! key, and its length counts both. The footer counts none of these. There are such chunks only in a store of at most
//! 32768 shards. The codec of a chunk decodes it to entries:
//!
//! ```text
//! [0x1F] | tag u8 | [db varint] | [expiry u64, unix ms] | [access u32] | key length varint | key | value
//!   0x1F: the key is protected from eviction
//!   tag: bits 0..4 the type, bit 5: a database other than 0, bit 6: access, bit 7: expiry
//!   type 1, bytes   length varint | bytes
//!   type 2, integer zigzag varint
//!   type 3, list    length varint | listpack, in Redis' bytes
//!   type 4, set     length varint | intset, in Redis' bytes
//!   type 5, set     length varint | listpack: members, none twice
//!   type 6, hash    length varint | listpack, in Redis' bytes: field, value, …
//!   type 7, hash    the same with expiries: field, value, expiry in unix ms or 0, …; ascending, those of 0 last
//!   type 8, zset    length varint | listpack, in Redis' bytes: member, score, …; by score and then member
//!   type 9, list    length varint | listpack, listpack, … each behind its length varint, none empty
//!   type 10, set    length varint | number of members varint | member, member, … each behind its length varint
//!   type 11, hash   length varint | number of fields varint | field, field, …
//!     field         flags u8 | name length varint | name | value | [expiry u64, unix ms, 1 to 2^48 - 1]
//!     flags         bit 0: the value is a zigzag varint, else length varint | bytes; bit 1: expiry
//!   type 12, zset   length varint | number of members varint | item, item, … by score and then member
//!     item          score f64, no NaN | member length varint | member
//!   type 13, stream length varint | last id | max deleted id | entries ever added varint
//!                   | number of blocks varint | block, … | number of groups varint | group, …
//!     id            ms varint | number within it varint
//!     block         id | length varint | listpack, in Redis' bytes: a node of its streams, some entry live
//!     group         name length varint | name | last id | entries read | number of consumers varint | consumer, …
//!     entries read  0, or 1 and a varint
//!     consumer      name length varint | name | seen zigzag | active zigzag, -1 for never
//!                   | number of pending varint | pending, …
//!     pending       id | delivered zigzag, unix ms | times delivered varint
//!                   blocks, groups, consumers and what is pending ascend by id or name
//!   type 14, stream as type 13, and behind the groups part, part, … within the length: none twice, at least one
//!     part          1 | seconds varint | ids of a producer at most varint | ids ever added varint
//!                   | duplicates varint | number of producers varint | name string, … ascending, each with an id
//!                   | number of ids varint | (place of the producer varint | its id string | id
//!                   | remembered since, zigzag, unix ms), … the oldest first, none twice
//!                   2 | number of groups varint | (name string | number varint | (id | times delivered varint), …),
//!                   … : what is pending there for nobody, in the order in which it is to be claimed
//! codec 0: as they are; codec 1: one raw LZ4 block; codec 2: piece, piece, …
//!   piece           raw length u32, 1 to 2^21 | stored length u32 | bytes
//!                   bytes of the raw length are as they are, fewer are one raw LZ4 block; more there are not
//! ```
//!
//! # Wire structs
//!
//! `wire.rs` encodes these with bincode: fixed-width integers, little-endian, in the order drawn. An option is one
//! byte, 0 or 1, and then the value. A list is its length as u64 and then its items.
//!
//! ```text
//! ManifestWire       sequence u64 | hash seed 16 | shards u32 | durable block u64 | next segment u64
//!                    | clean u8 | current GenerationWire | kept [GenerationWire]
//! GenerationWire     snapshot option SnapshotWire | segments [SegmentWire]
//! SnapshotWire       number u64 | length u64 | crc of all u32 | cut block u64 | entries u64
//! SegmentWire        number u64 | generation u64 | first block u64 | crc of the block before it u32
//! SnapshotHeaderWire hash seed 16 | shards u32 | cut block u64 | generation u64 | time ms u64
//!                    | first segment after the cut, option u64
//! SnapshotIndexWire  [ChunkWire]
//! IndexWire          store 16 | SegmentWire | end u64 | offset of the last block u64 | its number u64
//!                    | its crc u32 | its time ms u64 | highest durable mark u64 | next segment u64 | blocks u64
//!                    | databases u32 | [ListWire]
//! SealedIndexWire    number of the segment u64 | number of the data key u32 | a random number u64 | sealed [u8]
//! ListWire           shard u16 | records u64 | last seq u64 | length u64 | crc of the list u32
//!                    | crc of the records u32
//! KeysWire           store 16 | [WrappedKeyWire]
//! WrappedKeyWire     number u32 | fingerprint of the master key 8 | nonce 12 | sealed [u8]
//! ChunkWire          shard u16 | codec u8 | offset u64 | stored length u64 | raw length u64
//!                    | entries u64 | volatile entries u64 | crc of the stored bytes u32
//! ```
//!
//! These depend on this file: `wire`, `verbs`, `record`, `block`, `log` (segment header), `chunk`, `snapshot`,
//! `manifest`, `recover`, and the golden files under `data/`.

pub use crate::base::varint::{put_varint, take_bytes, take_string, take_varint, varint_len};

/// The format version that this program writes in the clear.
pub const VERSION: u32 = 2;
/// The format version of files that are encrypted, and the newest that this program reads.
pub const VERSION_ENCRYPTED: u32 = 3;
/// The oldest that it reads.
pub const VERSION_OLDEST: u32 = 1;

/// Opens the manifest.
pub const MANIFEST_MAGIC: [u8; 8] = *b"IKMANIF1";
/// Opens the index of a log segment.
pub const INDEX_MAGIC: [u8; 8] = *b"IKINDEX1";
/// Opens the file of the data keys.
pub const KEYS_MAGIC: [u8; 8] = *b"IKKEYRNG";
/// Opens the note in the lock file.
pub const LOCK_MAGIC: [u8; 8] = *b"IKNEWEST";
/// Opens a log segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"IKLOGSG1";
/// Opens a block.
pub const BLOCK_MAGIC: [u8; 4] = *b"IKB1";
/// Opens a snapshot.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"IKSNAPS1";
/// Ends a snapshot.
pub const FOOTER_MAGIC: [u8; 8] = *b"IKSNAPE1";

/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 64;
/// Bytes of a block's header.
pub const BLOCK_HEADER: usize = 64;
/// Bytes of a framed wire struct's header (manifest, snapshot).
pub const FRAME_HEADER: usize = 24;
/// Bytes of a snapshot's footer.
pub const FOOTER: usize = 48;

/// Segment kind: continues where the sealed segment before it ends.
pub const SEGMENT_ATTACHED: u32 = 0;
/// Segment kind: counts only if the manifest names it.
pub const SEGMENT_DETACHED: u32 = 1;

/// Segment flag: overwrites an older segment.
pub const SEGMENT_RECYCLED: u32 = 1;
/// Segment flag: its blocks are encrypted.
pub const SEGMENT_ENCRYPTED: u32 = 2;
/// Length of the mark that ends a recycled segment; all its bytes are zero.
pub const END_MARK: usize = 8;

/// Log item: a record of one key.
pub const ITEM_RECORD: u8 = 1;
/// Log item: the number of barriers before what follows.
pub const ITEM_EPOCH: u8 = 2;
/// Log item: an effect on the whole keyspace.
pub const ITEM_BARRIER: u8 = 3;
/// Log item: a record of one key, as a verb.
pub const ITEM_VERB: u8 = 4;
/// Log item: an effect on several keys, as a verb.
pub const ITEM_VERB_BARRIER: u8 = 5;

/// The shard number that stands for the whole keyspace in a record, and for the libraries of functions in a chunk.
pub const BARRIER_SHARD: u16 = 0xFFFF;

/// The shard number that stands for the blocks in the index of an encrypted segment.
pub const BLOCKS_SHARD: u16 = 0xFFFD;
/// The shard number that stands for the list of flushes in a chunk.
pub const GRAVES_SHARD: u16 = 0xFFFE;
/// Added to the number of a shard, it stands for what flushes took out of that shard in a chunk.
pub const BURIED_SHARD: u16 = 0x8000;
/// Bytes of the number of a flush in front of a key.
pub const BURIED_PREFIX: usize = 8;
/// Bytes of what the list says of a flush.
pub const GRAVE_BYTES: usize = 32;
/// Stands for all databases there.
pub const GRAVE_ALL: u64 = u64::MAX;

/// Stands before the tag of a key that is protected from eviction.
pub const ENTRY_BLESSED: u8 = 0x1F;
/// Entry type: a byte string. Types are append-only and at most 30.
pub const TYPE_BYTES: u8 = 1;
/// Entry type: a string held as an integer.
pub const TYPE_INT: u8 = 2;
/// The bits of an entry's tag that hold the type.
pub const TYPE_MASK: u8 = 0x1F;
/// Entry flag: a database other than 0 is given.
pub const ENTRY_DB: u8 = 0x20;
/// Entry flag: the access field is given.
pub const ENTRY_ACCESS: u8 = 0x40;
/// Entry flag: the key expires.
pub const ENTRY_EXPIRY: u8 = 0x80;

/// Chunk codec: stored uncompressed.
pub const CODEC_NONE: u8 = 0;
/// Chunk codec: one LZ4 block.
pub const CODEC_LZ4: u8 = 1;
/// Chunk codec: pieces, each compressed or not.
pub const CODEC_PIECES: u8 = 2;
/// Bytes of the header of a piece.
pub const PIECE_HEADER: usize = 8;
/// The most bytes that a piece decodes to.
pub const PIECE_MAX: usize = 1 << 21;

/// Numbers of blocks, segments, snapshots and manifests lie below this, so that counting up cannot overflow.
pub const NUMBER_END: u64 = 1 << 62;

/// The manifest's name.
pub const MANIFEST: &str = "MANIFEST";
/// The name of the file that the running process locks. It is never removed: removing it would let two processes lock
/// two files.
pub const LOCK: &str = "LOCK";
/// The name of the file that holds the data keys, wrapped.
pub const KEYS: &str = "KEYS";
/// The name of a file of data keys that is being written.
pub const KEYS_TMP: &str = "KEYS.tmp";
/// The name of a manifest that is being written.
pub const MANIFEST_TMP: &str = "MANIFEST.tmp";

/// Stands in a directory whose content is being imported, until that is durable. It is empty.
pub const IMPORTING: &str = "IMPORTING";

/// Stands in the directory of a backup that was found to be damaged, and says in words what was found.
pub const DAMAGED: &str = "DAMAGED";

/// A file that is removed as soon as it is made, where a file system makes none without a name.
pub const ROOM: &str = ".room";

/// Whether a file of this name is the store's own.
pub fn is_own_name(name: &str) -> bool {
    let whole = name.strip_suffix(".tmp").unwrap_or(name);
    let begins = ["log-", "snapshot-", "index-"];
    [MANIFEST, LOCK, KEYS, IMPORTING, DAMAGED].contains(&whole) || begins.iter().any(|begin| whole.starts_with(begin))
}

/// The name of a snapshot.
pub fn snapshot_name(number: u64) -> String {
    format!("snapshot-{number:016x}.ik")
}

/// The name of a log segment.
pub fn segment_name(number: u64) -> String {
    format!("log-{number:016x}.ik")
}

/// The name of the index of a log segment.
pub fn index_name(number: u64) -> String {
    format!("index-{number:016x}.ik")
}

/// The number of the segment in an index's name, if it is one.
pub fn index_number(name: &str) -> Option<u64> {
    hex_number(name.strip_prefix("index-")?.strip_suffix(".ik")?)
}

/// The name of the file that keeps the bytes cut from a segment.
pub fn torn_name(number: u64, offset: u64) -> String {
    format!("log-{number:016x}.torn-{offset}")
}

/// The number in a snapshot's name, if it is one.
pub fn snapshot_number(name: &str) -> Option<u64> {
    hex_number(name.strip_prefix("snapshot-")?.strip_suffix(".ik")?)
}

/// The number in a segment's name, if it is one.
pub fn segment_number(name: &str) -> Option<u64> {
    hex_number(name.strip_prefix("log-")?.strip_suffix(".ik")?)
}

fn hex_number(digits: &str) -> Option<u64> {
    let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u64::from_str_radix(digits, 16).ok().filter(|&number| number < NUMBER_END) } else { None }
}

/// The u16 at an offset, if the bytes reach that far.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    bytes.get(at..end)?.try_into().ok().map(u16::from_le_bytes)
}

/// The u32 at an offset, if the bytes reach that far.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_le_bytes)
}

/// The u64 at an offset, if the bytes reach that far.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    bytes.get(at..end)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_pinned() {
        assert_eq!([VERSION_OLDEST, VERSION, VERSION_ENCRYPTED], [1, 2, 3]);
        assert_eq!([ITEM_RECORD, ITEM_EPOCH, ITEM_BARRIER, ITEM_VERB, ITEM_VERB_BARRIER], [1, 2, 3, 4, 5]);
        assert_eq!([TYPE_BYTES, TYPE_INT, TYPE_MASK], [1, 2, 31]);
        assert_eq!([ENTRY_BLESSED, ENTRY_DB, ENTRY_ACCESS, ENTRY_EXPIRY], [31, 32, 64, 128]);
        assert_eq!([CODEC_NONE, CODEC_LZ4, CODEC_PIECES], [0, 1, 2]);
        assert_eq!([BARRIER_SHARD, GRAVES_SHARD, BLOCKS_SHARD, BURIED_SHARD], [65535, 65534, 65533, 32768]);
        assert_eq!((BURIED_PREFIX, GRAVE_BYTES, GRAVE_ALL), (8, 32, u64::MAX));
        assert_eq!([SEGMENT_ATTACHED, SEGMENT_DETACHED], [0, 1]);
        assert_eq!([SEGMENT_HEADER, BLOCK_HEADER, FRAME_HEADER, FOOTER], [64, 64, 24, 48]);
        assert_eq!(snapshot_name(0x1F), "snapshot-000000000000001f.ik");
        assert_eq!(segment_name(1), "log-0000000000000001.ik");
        assert_eq!(index_name(1), "index-0000000000000001.ik");
    }

    #[test]
    fn names_round_trip_and_strangers_are_not_ours() {
        for number in [0, 1, 0xABCDEF, NUMBER_END - 1] {
            assert_eq!(snapshot_number(&snapshot_name(number)), Some(number));
            assert_eq!(segment_number(&segment_name(number)), Some(number));
            assert_eq!(index_number(&index_name(number)), Some(number));
        }
        for name in ["log-1.ik", "log-+000000000000001.ik", "log-000000000000000A.ik", "dump.rdb"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
        assert_eq!(segment_number(&torn_name(1, 64)), None);
        assert_eq!(
            (segment_number(&segment_name(NUMBER_END)), snapshot_number(&snapshot_name(u64::MAX))),
            (None, None)
        );
    }

    #[test]
    fn varints_round_trip_in_their_shortest_form_only() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                let mut rest = out.as_slice();
                assert_eq!(take_varint(&mut rest), Some(value));
                assert!(rest.is_empty());
                for cut in 0..out.len() {
                    assert_eq!(take_varint(&mut &out[..cut]), None);
                }
            }
        }
        assert_eq!(take_varint(&mut [0x80, 0].as_slice()), None);
        assert_eq!(take_varint(&mut [0xFF; 11].as_slice()), None);
        let too_big = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2];
        assert_eq!(take_varint(&mut too_big.as_slice()), None);
    }
}

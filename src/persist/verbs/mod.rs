//! The verbs of the log: they say what has become of a key. They are a closed list, independent of the commands.
//!
//! A command may be renamed, parse more strictly, or lose a bug. The meaning of an old log stays the same, because a
//! log holds only verbs. Each verb has a code, its own small decoder here, and its bytes drawn in `format.rs`.
//! `exec::replay` applies them.
//!
//! - Codes are only ever added. A verb that turns out to be wrong gets a successor with another code.
//! - Verbs say what has become of a key, not what was requested: times are absolute, counters are results, ranges are
//!   positions, and conditions are gone. They mean the same whatever the settings at the time of replay.
//! - Decoding borrows, never panics, and never reads or allocates beyond the given bytes. It accepts a body only if
//!   it equals the one that [`RecordWriter`] makes for the decoded verb: no byte is left over.

mod lists;
#[cfg(test)]
mod tests;
mod text;
mod write;

pub use lists::{Ids, Pairs, PendingEntries, PendingEntry, Registers, ReleasedEntries, Scores, Strings};
#[cfg(test)]
pub(crate) use tests::drawn;
pub use write::{BarrierWriter, RecordWriter};

use super::chunk::WireValue;
use super::format::{
    ENTRY_EXPIRY, NUMBER_END, TYPE_BYTES, TYPE_INT, TYPE_MASK, put_varint, take_bytes, take_string, take_varint, u64_at,
};
use crate::value::list::End;
use crate::value::stream::{Known, StreamId, Window};

/// The latest expiry, Unix ms: an entry has 48 bits for it.
const TIME_MAX: u64 = (1 << 48) - 1;

macro_rules! verbs {
    ($($name:ident = $code:literal, $shown:literal, $meaning:literal;)*) => {
        /// Which verb: one byte of a record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Code {
            $(#[doc = $meaning] $name = $code,)*
        }

        impl Code {
            /// All verbs by ascending code, with their names and meanings.
            pub const ALL: &[(Code, &str, &str)] = &[$((Code::$name, $shown, $meaning)),*];

            /// The verb of a code.
            pub fn of(code: u8) -> Option<Code> {
                match code {
                    $($code => Some(Code::$name),)*
                    _ => None,
                }
            }

            /// Its name: that of the Redis command with the same effect, if there is one.
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$name => $shown,)*
                }
            }
        }
    };
}

verbs! {
    Set = 1, "SET", "The key has this value and this expiry, or none, whatever was there.";
    Delete = 2, "DEL", "The key is gone.";
    ExpireAt = 3, "PEXPIREAT", "The key expires at this time.";
    Persist = 4, "PERSIST", "The key does not expire.";
    Bless = 5, "BLESS", "The key, which is there, is protected from eviction until it is gone: whatever it holds.";
    Unbless = 6, "UNBLESS", "The key is not protected from eviction.";
    Append = 16, "APPEND", "The string at the key has these bytes more at its end.";
    SetRange = 17, "SETRANGE", "The string at the key, empty if there is none, is filled up with zero bytes to the \
        offset, and has these bytes there.";
    RaiseRegisters = 18, "PFRAISE", "The registers of the HyperLogLog at the key are these where they were lower, \
        and its count is out of date. A sparse one stays sparse unless a rank is above 32.";
    PushLeft = 32, "LPUSH", "The list at the key, empty if there is none, has these elements more at its left end, \
        one after the other.";
    PushRight = 33, "RPUSH", "The same at its right end.";
    PopLeft = 34, "LPOP", "The list at the key has lost so many elements, which were there, at its left end.";
    PopRight = 35, "RPOP", "The same at its right end.";
    ListSet = 36, "LSET", "The element at an index from the left, which was there, is this.";
    ListInsert = 37, "LINSERT", "This element is at an index from the left, in front of what was there.";
    ListRemove = 38, "LREM", "So many elements that equal this one are gone, counted from an end: they were there.";
    ListKeep = 39, "LTRIM", "So many elements from an index on are left: they were there.";
    HashSet = 48, "HSET", "The hash at the key, empty if there is none, has these fields with these values; what they \
        had of an expiry is gone, stays, or is this time.";
    HashDelete = 49, "HDEL", "The hash at the key does not have these fields.";
    HashExpireAt = 50, "HPEXPIREAT", "These fields, as far as the hash has them, expire at this time.";
    HashPersist = 51, "HPERSIST", "These fields, as far as the hash has them, do not expire.";
    SetAdd = 64, "SADD", "The set at the key, empty if there is none, has these members.";
    SetRemove = 65, "SREM", "The set at the key does not have these members.";
    ZsetSet = 80, "ZADD", "The sorted set at the key, empty if there is none, has these members with these scores.";
    ZsetRemove = 81, "ZREM", "The sorted set at the key does not have these members.";
    ZsetRemoveRanks = 82, "ZREMRANKS", "So many members from a rank on, by rising score and then member, are gone: \
        they were there.";
    StreamAdd = 96, "XADD", "The stream at the key, empty if there is none, has this entry more, whose id is above \
        its last one.";
    StreamDelete = 97, "XDEL", "The stream at the key does not have these entries. The largest of those that were \
        there is its largest deleted id, unless that is larger.";
    StreamTrim = 98, "XTRIM", "The stream has lost so many entries, which were there, at its beginning.";
    StreamTrimAcked = 99, "XTRIMACKED", "The stream has lost, of its entries up to this id, those that every group was \
        delivered and none has pending.";
    StreamSetIds = 100, "XSETID", "The stream at the key, empty if there is none, has this last id, this largest \
        deleted id, and so many entries were ever added.";
    StreamForget = 101, "XFORGET", "No group of the stream has these ids pending.";
    StreamForgetUpTo = 102, "XFORGETUPTO", "No group of the stream has anything pending up to this id.";
    StreamRemember = 103, "XIDMPRECORD", "The stream, which has a window, has forgotten so many of its oldest ids of \
        producers, this one if it had it, and the producer's oldest if it had as many as the window allows; and \
        remembers since this time, as the newest, that the producer's id stands for this entry.";
    StreamWindow = 104, "XCFGSET", "The stream has this window for ids of producers, and has forgotten all of them if \
        it had another.";
    GroupCreate = 112, "XGROUPCREATE", "The stream at the key, empty if there is none, has this group more, which was \
        delivered what is up to this id, and so many entries if that is known.";
    GroupSet = 113, "XGROUPSETID", "The group was delivered what is up to this id, and so many entries if that is \
        known.";
    GroupDestroy = 114, "XGROUPDESTROY", "The stream does not have this group.";
    GroupDropConsumer = 115, "XGROUPDELCONSUMER", "The group does not have this consumer, nor what was pending for it.";
    GroupDeliver = 116, "XDELIVER", "The group was delivered what is up to this id, and so many entries if that is \
        known; the consumer, added if need be, was seen and active at these times; these ids are pending for it, \
        whoever had them, delivered at these times and so often; and those ids are pending no more.";
    GroupAcknowledge = 117, "XACK", "The group does not have these ids pending.";
    GroupRelease = 118, "XNACK", "These ids are pending for nobody in the group, whoever had them, delivered so often, \
        and are to be claimed first, in this order, behind what was handed back before.";
    FlushAll = 240, "FLUSHALL", "No database has a key.";
    FlushDb = 241, "FLUSHDB", "The database has no key.";
    SwapDbs = 242, "SWAPDB", "The keys of the one database are those of the other, and the other way round.";
    Transfer = 243, "TRANSFER", "The destination has the value and the expiry of the source, which is there, and its \
        protection from eviction, whatever was there; the source is gone unless it was copied.";
    Populate = 244, "POPULATE", "The database has the keys `prefix:0` and on, so many, each cut to 127 bytes; those that \
        were not there have `value:0` and on, each cut or filled up with zero bytes to a size if that is not 0.";
    SetLibrary = 245, "FUNCTIONLOAD", "The library of functions of this name has this text, whatever was there.";
    DropLibrary = 246, "FUNCTIONDELETE", "There is no library of functions of this name.";
    DropLibraries = 247, "FUNCTIONFLUSH", "There are no libraries of functions.";
    Bury = 248, "BURY", "The database, or each of them, has no key. What they had lies in the graveyard under this \
        number, if it was any, from this time on and until that one. FLUSHALL empties the graveyard, too.";
    Unbury = 249, "UNBURY", "What lies in the graveyard under this number, where there is something, is in its \
        databases. What they had beside it stays, or is gone if it was replaced; of a name that is in both, it stays.";
    ForgetBuried = 250, "FORGETBURIED", "Nothing lies in the graveyard under this number.";
}

impl Code {
    /// Whether it concerns more than one key: a barrier of the log.
    pub fn is_barrier(self) -> bool {
        self as u8 >= Code::FlushAll as u8
    }
}

/// The expiry of fields that are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiry {
    /// They have none.
    Clear,
    /// They keep the old one.
    Keep,
    /// This time, Unix ms.
    At(u64),
}

/// The progress of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// The last id that was delivered.
    pub last_id: StreamId,
    /// How many of all entries ever added were delivered; `None` if unknown.
    pub entries_read: Option<u64>,
}

/// The content of [`Code::GroupDeliver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The group.
    pub group: &'a [u8],
    /// The receiving consumer.
    pub consumer: &'a [u8],
    /// How far the group has come.
    pub position: GroupPosition,
    /// When the consumer last tried to read, Unix ms.
    pub seen: i64,
    /// When it last received an entry, Unix ms; -1 for never.
    pub active: i64,
    /// The newly pending entries, besides the earlier ones.
    pub pending: PendingEntries<'a>,
    /// The entries that are no longer pending.
    pub gone: Ids<'a>,
}

/// A flush that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undoable {
    /// Its number.
    pub id: u64,
    /// When it is, Unix ms.
    pub at_ms: u64,
    /// Until when it can be undone, Unix ms.
    pub until_ms: u64,
}

/// A verb with its content, borrowed from a record. [`Code`] documents the meanings.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the fields are named after what `Code` says of each
pub enum Verb<'a> {
    Set { value: WireValue<'a>, expiry: Option<u64> },
    Delete,
    ExpireAt(u64),
    Persist,
    Bless,
    Unbless,
    Append(&'a [u8]),
    SetRange { offset: u64, bytes: &'a [u8] },
    RaiseRegisters(Registers<'a>),
    Push(End, Strings<'a>),
    Pop(End, u64),
    ListSet { index: u64, element: &'a [u8] },
    ListInsert { index: u64, element: &'a [u8] },
    ListRemove { from: End, count: u64, element: &'a [u8] },
    ListKeep { start: u64, len: u64 },
    HashSet { expiry: FieldExpiry, fields: Pairs<'a> },
    HashDelete(Strings<'a>),
    HashExpireAt { at: u64, fields: Strings<'a> },
    HashPersist(Strings<'a>),
    SetAdd(Strings<'a>),
    SetRemove(Strings<'a>),
    ZsetSet(Scores<'a>),
    ZsetRemove(Strings<'a>),
    ZsetRemoveRanks { start: u64, count: u64 },
    StreamAdd { id: StreamId, fields: Pairs<'a> },
    StreamDelete(Ids<'a>),
    StreamTrim(u64),
    StreamTrimAcked(StreamId),
    StreamSetIds { last_id: StreamId, max_deleted_id: StreamId, entries_added: u64 },
    StreamForget(Ids<'a>),
    StreamForgetUpTo(StreamId),
    StreamRemember { forgotten: u64, known: Known<'a> },
    StreamWindow(Window),
    GroupCreate { group: &'a [u8], position: GroupPosition },
    GroupSet { group: &'a [u8], position: GroupPosition },
    GroupDestroy { group: &'a [u8] },
    GroupDropConsumer { group: &'a [u8], consumer: &'a [u8] },
    GroupDeliver(Delivery<'a>),
    GroupAcknowledge { group: &'a [u8], ids: Ids<'a> },
    GroupRelease { group: &'a [u8], released: ReleasedEntries<'a> },
    FlushAll,
    FlushDb,
    SwapDbs { one: u32, other: u32 },
    Transfer { copies: bool, source: &'a [u8], to_db: u32, destination: &'a [u8] },
    Populate { count: u64, size: u64, prefix: &'a [u8] },
    SetLibrary { name: &'a [u8], code: &'a [u8] },
    DropLibrary(&'a [u8]),
    DropLibraries,
    Bury { all: bool, flush: Undoable },
    Unbury { id: u64, replaces: bool },
    ForgetBuried { id: u64 },
}

impl<'a> Verb<'a> {
    /// Decodes a verb; `None` if the body does not fit the code.
    pub fn decode(code: Code, mut body: &'a [u8]) -> Option<Verb<'a>> {
        let at = &mut body;
        let verb = match code {
            Code::Set => return decode_set(body),
            Code::Delete => Verb::Delete,
            Code::ExpireAt => Verb::ExpireAt(take_time(at)?),
            Code::Persist => Verb::Persist,
            Code::Bless => Verb::Bless,
            Code::Unbless => Verb::Unbless,
            Code::Append => Verb::Append(take_rest(at)),
            Code::SetRange => Verb::SetRange { offset: take_varint(at)?, bytes: take_rest(at) },
            Code::PushLeft => Verb::Push(End::Left, Strings::take(at)?),
            Code::PushRight => Verb::Push(End::Right, Strings::take(at)?),
            Code::PopLeft => Verb::Pop(End::Left, take_varint(at)?),
            Code::PopRight => Verb::Pop(End::Right, take_varint(at)?),
            Code::ListSet => Verb::ListSet { index: take_varint(at)?, element: take_rest(at) },
            Code::ListInsert => Verb::ListInsert { index: take_varint(at)?, element: take_rest(at) },
            Code::ListRemove => {
                let from = if take_flag(at)? { End::Right } else { End::Left };
                Verb::ListRemove { from, count: take_varint(at)?, element: take_rest(at) }
            }
            Code::ListKeep => Verb::ListKeep { start: take_varint(at)?, len: take_varint(at)? },
            Code::HashSet => Verb::HashSet { expiry: take_field_expiry(at)?, fields: Pairs::take(at)? },
            Code::HashDelete => Verb::HashDelete(Strings::take(at)?),
            Code::HashExpireAt => Verb::HashExpireAt { at: take_field_time(at)?, fields: Strings::take(at)? },
            Code::HashPersist => Verb::HashPersist(Strings::take(at)?),
            Code::SetAdd => Verb::SetAdd(Strings::take(at)?),
            Code::SetRemove => Verb::SetRemove(Strings::take(at)?),
            Code::ZsetSet => Verb::ZsetSet(Scores::take(at)?),
            Code::ZsetRemove => Verb::ZsetRemove(Strings::take(at)?),
            Code::ZsetRemoveRanks => Verb::ZsetRemoveRanks { start: take_varint(at)?, count: take_varint(at)? },
            Code::RaiseRegisters => Verb::RaiseRegisters(Registers::take(at)?),
            code if code.is_barrier() => decode_barrier(code, at)?,
            code => decode_stream(code, at)?,
        };
        body.is_empty().then_some(verb)
    }
}

impl Verb<'_> {
    /// Which verb it is.
    pub fn code(&self) -> Code {
        match self {
            Verb::Set { .. } => Code::Set,
            Verb::Delete => Code::Delete,
            Verb::ExpireAt(_) => Code::ExpireAt,
            Verb::Persist => Code::Persist,
            Verb::Bless => Code::Bless,
            Verb::Unbless => Code::Unbless,
            Verb::Append(_) => Code::Append,
            Verb::SetRange { .. } => Code::SetRange,
            Verb::RaiseRegisters(_) => Code::RaiseRegisters,
            Verb::Push(End::Left, _) => Code::PushLeft,
            Verb::Push(End::Right, _) => Code::PushRight,
            Verb::Pop(End::Left, _) => Code::PopLeft,
            Verb::Pop(End::Right, _) => Code::PopRight,
            Verb::ListSet { .. } => Code::ListSet,
            Verb::ListInsert { .. } => Code::ListInsert,
            Verb::ListRemove { .. } => Code::ListRemove,
            Verb::ListKeep { .. } => Code::ListKeep,
            Verb::HashSet { .. } => Code::HashSet,
            Verb::HashDelete(_) => Code::HashDelete,
            Verb::HashExpireAt { .. } => Code::HashExpireAt,
            Verb::HashPersist(_) => Code::HashPersist,
            Verb::SetAdd(_) => Code::SetAdd,
            Verb::SetRemove(_) => Code::SetRemove,
            Verb::ZsetSet(_) => Code::ZsetSet,
            Verb::ZsetRemove(_) => Code::ZsetRemove,
            Verb::ZsetRemoveRanks { .. } => Code::ZsetRemoveRanks,
            Verb::StreamAdd { .. } => Code::StreamAdd,
            Verb::StreamDelete(_) => Code::StreamDelete,
            Verb::StreamTrim(_) => Code::StreamTrim,
            Verb::StreamTrimAcked(_) => Code::StreamTrimAcked,
            Verb::StreamSetIds { .. } => Code::StreamSetIds,
            Verb::StreamForget(_) => Code::StreamForget,
            Verb::StreamForgetUpTo(_) => Code::StreamForgetUpTo,
            Verb::StreamRemember { .. } => Code::StreamRemember,
            Verb::StreamWindow(_) => Code::StreamWindow,
            Verb::GroupCreate { .. } => Code::GroupCreate,
            Verb::GroupSet { .. } => Code::GroupSet,
            Verb::GroupDestroy { .. } => Code::GroupDestroy,
            Verb::GroupDropConsumer { .. } => Code::GroupDropConsumer,
            Verb::GroupDeliver(_) => Code::GroupDeliver,
            Verb::GroupAcknowledge { .. } => Code::GroupAcknowledge,
            Verb::GroupRelease { .. } => Code::GroupRelease,
            Verb::FlushAll => Code::FlushAll,
            Verb::FlushDb => Code::FlushDb,
            Verb::SwapDbs { .. } => Code::SwapDbs,
            Verb::Transfer { .. } => Code::Transfer,
            Verb::Populate { .. } => Code::Populate,
            Verb::SetLibrary { .. } => Code::SetLibrary,
            Verb::DropLibrary(_) => Code::DropLibrary,
            Verb::DropLibraries => Code::DropLibraries,
            Verb::Bury { .. } => Code::Bury,
            Verb::Unbury { .. } => Code::Unbury,
            Verb::ForgetBuried { .. } => Code::ForgetBuried,
        }
    }
}

/// The verbs of streams and their groups.
fn decode_stream<'a>(code: Code, at: &mut &'a [u8]) -> Option<Verb<'a>> {
    Some(match code {
        Code::StreamAdd => Verb::StreamAdd { id: take_id(at)?, fields: Pairs::take(at)? },
        Code::StreamDelete => Verb::StreamDelete(Ids::take_some(at)?),
        Code::StreamTrim => Verb::StreamTrim(take_varint(at)?),
        Code::StreamTrimAcked => Verb::StreamTrimAcked(take_id(at)?),
        Code::StreamSetIds => {
            Verb::StreamSetIds { last_id: take_id(at)?, max_deleted_id: take_id(at)?, entries_added: take_varint(at)? }
        }
        Code::StreamForget => Verb::StreamForget(Ids::take_some(at)?),
        Code::StreamForgetUpTo => Verb::StreamForgetUpTo(take_id(at)?),
        Code::StreamRemember => {
            let (forgotten, producer, iid) = (take_varint(at)?, take_string(at)?, take_string(at)?);
            Verb::StreamRemember {
                forgotten,
                known: Known { producer, iid, entry: take_id(at)?, at: take_zigzag(at)? },
            }
        }
        Code::StreamWindow => {
            let (seconds, ids_max) = (take_varint(at)?, take_varint(at)?);
            let window = Window { seconds: u32::try_from(seconds).ok()?, ids_max: u32::try_from(ids_max).ok()? };
            Verb::StreamWindow(Some(window).filter(Window::is_valid)?)
        }
        Code::GroupCreate => Verb::GroupCreate { group: take_string(at)?, position: take_position(at)? },
        Code::GroupSet => Verb::GroupSet { group: take_string(at)?, position: take_position(at)? },
        Code::GroupDestroy => Verb::GroupDestroy { group: take_string(at)? },
        Code::GroupDropConsumer => Verb::GroupDropConsumer { group: take_string(at)?, consumer: take_string(at)? },
        Code::GroupDeliver => {
            let (group, consumer, position) = (take_string(at)?, take_string(at)?, take_position(at)?);
            let (seen, active) = (take_zigzag(at)?, take_zigzag(at)?);
            let pending = PendingEntries::take(at, seen)?;
            Verb::GroupDeliver(Delivery { group, consumer, position, seen, active, pending, gone: Ids::take(at)? })
        }
        Code::GroupAcknowledge => Verb::GroupAcknowledge { group: take_string(at)?, ids: Ids::take_some(at)? },
        Code::GroupRelease => Verb::GroupRelease { group: take_string(at)?, released: ReleasedEntries::take(at)? },
        _ => return None,
    })
}

/// The verbs that are barriers.
fn decode_barrier<'a>(code: Code, at: &mut &'a [u8]) -> Option<Verb<'a>> {
    Some(match code {
        Code::FlushAll => Verb::FlushAll,
        Code::FlushDb => Verb::FlushDb,
        Code::SwapDbs => Verb::SwapDbs { one: take_db(at)?, other: take_db(at)? },
        Code::Transfer => Verb::Transfer {
            copies: take_flag(at)?,
            source: take_string(at)?,
            to_db: take_db(at)?,
            destination: take_rest(at),
        },
        Code::Populate => Verb::Populate { count: take_varint(at)?, size: take_varint(at)?, prefix: take_rest(at) },
        Code::SetLibrary => Verb::SetLibrary { name: take_string(at)?, code: take_rest(at) },
        Code::DropLibrary => Verb::DropLibrary(take_rest(at)),
        Code::DropLibraries => Verb::DropLibraries,
        Code::Bury => {
            let (all, id) = (take_flag(at)?, take_buried_id(at)?);
            Verb::Bury { all, flush: Undoable { id, at_ms: take_time(at)?, until_ms: take_time(at)? } }
        }
        Code::Unbury => Verb::Unbury { replaces: take_flag(at)?, id: take_buried_id(at)? },
        Code::ForgetBuried => Verb::ForgetBuried { id: take_buried_id(at)? },
        _ => return None,
    })
}

/// A whole value: its type as in a chunk, an expiry if there is one, and its bytes to the end.
fn decode_set(body: &[u8]) -> Option<Verb<'_>> {
    let (&tag, mut rest) = body.split_first()?;
    let expiry = if tag & ENTRY_EXPIRY != 0 { Some(take_time(&mut rest)?) } else { None };
    let value = match tag & !ENTRY_EXPIRY {
        TYPE_BYTES => WireValue::Bytes(rest),
        TYPE_INT => {
            let number = take_zigzag(&mut rest)?;
            if !rest.is_empty() {
                return None;
            }
            WireValue::Int(number)
        }
        0 => return None,
        kind if kind <= TYPE_MASK => WireValue::Collection(kind, rest),
        _ => return None,
    };
    Some(Verb::Set { value, expiry })
}

fn take_rest<'a>(at: &mut &'a [u8]) -> &'a [u8] {
    std::mem::take(at)
}

fn take_byte(at: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = at.split_first()?;
    *at = rest;
    Some(byte)
}

fn take_flag(at: &mut &[u8]) -> Option<bool> {
    match take_byte(at)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_db(at: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(at)?).ok()
}

/// The number of a flush, below the greatest so that counting up cannot overflow.
fn take_buried_id(at: &mut &[u8]) -> Option<u64> {
    take_varint(at).filter(|&id| id < NUMBER_END)
}

fn take_zigzag(at: &mut &[u8]) -> Option<i64> {
    let value = take_varint(at)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn take_f64(at: &mut &[u8]) -> Option<f64> {
    let value = f64::from_bits(u64_at(take_bytes(at, 8)?, 0)?);
    (!value.is_nan()).then_some(value)
}

/// When a key expires.
fn take_time(at: &mut &[u8]) -> Option<u64> {
    take_varint(at).filter(|&time| time <= TIME_MAX)
}

/// When a field expires; a hash writes 0 for never.
fn take_field_time(at: &mut &[u8]) -> Option<u64> {
    take_time(at).filter(|&time| time > 0)
}

fn take_id(at: &mut &[u8]) -> Option<StreamId> {
    Some(StreamId::new(take_varint(at)?, take_varint(at)?))
}

fn take_position(at: &mut &[u8]) -> Option<GroupPosition> {
    let last_id = take_id(at)?;
    let entries_read = if take_flag(at)? { Some(take_varint(at)?) } else { None };
    Some(GroupPosition { last_id, entries_read })
}

fn take_field_expiry(at: &mut &[u8]) -> Option<FieldExpiry> {
    Some(match take_byte(at)? {
        0 => FieldExpiry::Clear,
        1 => FieldExpiry::Keep,
        2 => FieldExpiry::At(take_field_time(at)?),
        _ => return None,
    })
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn put_zigzag(out: &mut Vec<u8>, number: i64) {
    put_varint(out, zigzag(number));
}

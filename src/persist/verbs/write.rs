//! Writes verbs directly into the buffer of a worker: without a list of words in between, and nothing at all if no
//! log is wanted.
//!
//! - The length before a record is computed before its body is written. A body whose length differs is moved
//!   afterwards; this happens only for the state of a large collection.

use super::lists::{PendingEntry, put_id_behind};
use super::{Code, FieldExpiry, GroupPosition, Ids, TIME_MAX, Undoable, Verb, put_zigzag, zigzag};
use crate::base::varint::{put_varint, varint_len};
use crate::persist::chunk::WireValue;
use crate::persist::format::{BARRIER_SHARD, ENTRY_EXPIRY, ITEM_VERB, ITEM_VERB_BARRIER, TYPE_BYTES, TYPE_INT};
use crate::value::codec;
use crate::value::entry::ValueRef;
use crate::value::list::End;
use crate::value::stream::{Known, StreamId, Window};

/// A record about to be written. A method chooses its verb.
#[must_use = "a record has a verb"]
#[derive(Debug)]
pub struct RecordWriter<'w>(Option<Head<'w>>);

/// The bytes before the verb.
#[derive(Debug)]
struct Head<'w> {
    out: &'w mut Vec<u8>,
    shard: u16,
    seq: u64,
    db: u32,
    key: &'w [u8],
}

/// Byte strings that can be iterated twice: the first time for their length.
pub trait Words<'s>: Iterator<Item = &'s [u8]> + Clone {}
impl<'s, I: Iterator<Item = &'s [u8]> + Clone> Words<'s> for I {}

fn string_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn id_len(id: StreamId) -> usize {
    varint_len(id.ms) + varint_len(id.seq)
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    put_varint(out, id.ms);
    put_varint(out, id.seq);
}

fn position_len(position: &GroupPosition) -> usize {
    id_len(position.last_id) + 1 + position.entries_read.map_or(0, varint_len)
}

fn put_position(out: &mut Vec<u8>, position: &GroupPosition) {
    put_id(out, position.last_id);
    out.push(position.entries_read.is_some().into());
    if let Some(read) = position.entries_read {
        put_varint(out, read);
    }
}

/// The approximate length of ids that are encoded relative to each other.
fn ids_len_about(count: usize) -> usize {
    5 + 2 * count
}

fn put_ids(out: &mut Vec<u8>, ids: &[StreamId]) {
    let mut before = StreamId::MIN;
    for id in ids {
        put_id_behind(out, before, *id);
        before = *id;
    }
}

/// A time as it is persisted.
fn time(at: i64) -> u64 {
    u64::try_from(at).unwrap_or(0).min(TIME_MAX)
}

impl<'w> Head<'w> {
    #[inline]
    fn write(self, code: Code, body_len: usize, body: impl FnOnce(&mut Vec<u8>)) {
        let Head { out, shard, seq, db, key } = self;
        let len = 2 + varint_len(seq) + varint_len(u64::from(db)) + 1 + string_len(key) + body_len;
        out.reserve(len + 11);
        out.push(ITEM_VERB);
        put_varint(out, len as u64);
        let start = out.len();
        out.extend_from_slice(&shard.to_le_bytes());
        put_varint(out, seq);
        put_varint(out, u64::from(db));
        out.push(code as u8);
        put_string(out, key);
        body(out);
        if out.len() - start != len {
            amend_len(out, start, len);
        }
    }
}

/// Corrects the length before the body that begins at `start`.
#[cold]
fn amend_len(out: &mut Vec<u8>, start: usize, reckoned: usize) {
    let mut len = Vec::new();
    put_varint(&mut len, (out.len() - start) as u64);
    out.splice(start - varint_len(reckoned as u64)..start, len);
}

impl<'w> RecordWriter<'w> {
    /// A record of `key`, the shard's `seq`-th, behind what is in `out`.
    ///
    /// # Panics
    /// If the shard does not exist.
    #[inline]
    pub fn new(out: &'w mut Vec<u8>, shard: u16, seq: u64, db: u32, key: &'w [u8]) -> Self {
        assert!(shard != BARRIER_SHARD, "a record has a shard");
        RecordWriter(Some(Head { out, shard, seq, db, key }))
    }

    /// A record that is not wanted: nothing is written.
    #[inline]
    pub fn unwanted() -> Self {
        RecordWriter(None)
    }

    /// Leaves the record away: nobody wants it, and to look for what it says would cost something.
    pub fn unwritten(self) {
        debug_assert!(self.0.is_none(), "a record that is wanted is written: its number was given out");
    }

    #[inline]
    fn write(self, code: Code, body_len: impl FnOnce() -> usize, body: impl FnOnce(&mut Vec<u8>)) {
        if let Some(head) = self.0 {
            head.write(code, body_len(), body);
        }
    }

    #[inline]
    fn bytes(self, code: Code, bytes: &[u8]) {
        self.write(code, || bytes.len(), |out| out.extend_from_slice(bytes));
    }

    #[inline]
    fn strings<'s>(self, code: Code, strings: impl Words<'s>) {
        self.write(
            code,
            || strings.clone().map(string_len).sum(),
            |out| strings.clone().for_each(|string| put_string(out, string)),
        );
    }

    fn numbers<const N: usize>(self, code: Code, numbers: [u64; N], rest: &[u8]) {
        self.write(
            code,
            || numbers.iter().map(|number| varint_len(*number)).sum::<usize>() + rest.len(),
            |out| {
                numbers.iter().for_each(|number| put_varint(out, *number));
                out.extend_from_slice(rest);
            },
        );
    }

    /// [`Code::Set`] of a string or of a collection's bytes; `expiry` in Unix ms.
    #[inline]
    pub fn set(self, value: WireValue<'_>, expiry: Option<i64>) {
        let expiry = expiry.map(time);
        let flag = if expiry.is_some() { ENTRY_EXPIRY } else { 0 };
        let (tag, number, bytes) = match value {
            WireValue::Bytes(bytes) => (TYPE_BYTES, None, bytes),
            WireValue::Int(number) => (TYPE_INT, Some(zigzag(number)), &b""[..]),
            WireValue::Collection(tag, bytes) => (tag, None, bytes),
        };
        let numbers = [expiry, number];
        let numbers = || numbers.into_iter().flatten();
        self.write(
            Code::Set,
            || 1 + numbers().map(varint_len).sum::<usize>() + bytes.len(),
            |out| {
                out.push(tag | flag);
                numbers().for_each(|number| put_varint(out, number));
                out.extend_from_slice(bytes);
            },
        );
    }

    /// [`Code::Set`] of a key's value.
    pub fn set_value(self, value: ValueRef<'_>, expiry: Option<u64>) {
        let expiry = expiry.map(|at| at.min(TIME_MAX) as i64);
        match value {
            ValueRef::Int(number) => self.set(WireValue::Int(number), expiry),
            ValueRef::Str(bytes) | ValueRef::Raw(bytes) => self.set(WireValue::Bytes(&bytes), expiry),
            collection => {
                let expiry = expiry.map(time);
                let flag = if expiry.is_some() { ENTRY_EXPIRY } else { 0 };
                self.write(
                    Code::Set,
                    || 1 + expiry.map_or(0, varint_len) + codec::encoded_len_about(collection),
                    |out| {
                        let tag_at = out.len();
                        out.push(flag);
                        expiry.into_iter().for_each(|at| put_varint(out, at));
                        let tag = codec::encode(collection, out).expect("no string");
                        out[tag_at] |= tag;
                    },
                );
            }
        }
    }

    /// [`Code::Delete`].
    #[inline]
    pub fn delete(self) {
        self.bytes(Code::Delete, b"");
    }

    /// [`Code::ExpireAt`], Unix ms.
    #[inline]
    pub fn expire_at(self, at: i64) {
        self.numbers(Code::ExpireAt, [time(at)], b"");
    }

    /// [`Code::Persist`].
    pub fn persist(self) {
        self.bytes(Code::Persist, b"");
    }

    /// [`Code::Bless`], or [`Code::Unbless`].
    pub fn bless(self, on: bool) {
        self.bytes(if on { Code::Bless } else { Code::Unbless }, b"");
    }

    /// [`Code::Append`].
    #[inline]
    pub fn append(self, bytes: &[u8]) {
        self.bytes(Code::Append, bytes);
    }

    /// [`Code::SetRange`].
    pub fn set_range(self, offset: usize, bytes: &[u8]) {
        self.numbers(Code::SetRange, [offset as u64], bytes);
    }

    /// [`Code::RaiseRegisters`], of one register or more, each with its rank.
    pub fn raise_registers(self, registers: &[(u16, u8)]) {
        self.write(
            Code::RaiseRegisters,
            || registers.iter().map(|(register, _)| varint_len(u64::from(*register)) + 1).sum(),
            |out| {
                for (register, rank) in registers {
                    put_varint(out, u64::from(*register));
                    out.push(*rank);
                }
            },
        );
    }

    /// [`Code::PushLeft`] or [`Code::PushRight`].
    #[inline]
    pub fn push<'s>(self, end: End, elements: impl Words<'s>) {
        self.strings(if end == End::Left { Code::PushLeft } else { Code::PushRight }, elements);
    }

    /// [`Code::PopLeft`] or [`Code::PopRight`].
    #[inline]
    pub fn pop(self, end: End, count: usize) {
        self.numbers(if end == End::Left { Code::PopLeft } else { Code::PopRight }, [count as u64], b"");
    }

    /// [`Code::ListSet`].
    pub fn list_set(self, index: usize, element: &[u8]) {
        self.numbers(Code::ListSet, [index as u64], element);
    }

    /// [`Code::ListInsert`].
    pub fn list_insert(self, index: usize, element: &[u8]) {
        self.numbers(Code::ListInsert, [index as u64], element);
    }

    /// [`Code::ListRemove`].
    pub fn list_remove(self, from: End, count: usize, element: &[u8]) {
        // A flag is a byte, and so is a varint below 128.
        self.numbers(Code::ListRemove, [u64::from(from == End::Right), count as u64], element);
    }

    /// [`Code::ListKeep`].
    pub fn list_keep(self, start: usize, len: usize) {
        self.numbers(Code::ListKeep, [start as u64, len as u64], b"");
    }

    /// [`Code::HashSet`], names and values in turn.
    #[inline]
    pub fn hash_set<'s>(self, expiry: FieldExpiry, fields: impl Words<'s>) {
        let (mode, at) = match expiry {
            FieldExpiry::Clear => (0, None),
            FieldExpiry::Keep => (1, None),
            FieldExpiry::At(at) => (2, Some(at.clamp(1, TIME_MAX))),
        };
        self.write(
            Code::HashSet,
            || 1 + at.map_or(0, varint_len) + fields.clone().map(string_len).sum::<usize>(),
            |out| {
                out.push(mode);
                at.into_iter().for_each(|at| put_varint(out, at));
                fields.clone().for_each(|string| put_string(out, string));
            },
        );
    }

    /// [`Code::HashDelete`].
    #[inline]
    pub fn hash_delete<'s>(self, fields: impl Words<'s>) {
        self.strings(Code::HashDelete, fields);
    }

    /// [`Code::HashExpireAt`], Unix ms.
    pub fn hash_expire_at<'s>(self, at: u64, fields: impl Words<'s>) {
        let at = at.clamp(1, TIME_MAX);
        self.write(
            Code::HashExpireAt,
            || varint_len(at) + fields.clone().map(string_len).sum::<usize>(),
            |out| {
                put_varint(out, at);
                fields.clone().for_each(|string| put_string(out, string));
            },
        );
    }

    /// [`Code::HashPersist`].
    pub fn hash_persist<'s>(self, fields: impl Words<'s>) {
        self.strings(Code::HashPersist, fields);
    }

    /// [`Code::SetAdd`].
    #[inline]
    pub fn set_add<'s>(self, members: impl Words<'s>) {
        self.strings(Code::SetAdd, members);
    }

    /// [`Code::SetRemove`].
    #[inline]
    pub fn set_remove<'s>(self, members: impl Words<'s>) {
        self.strings(Code::SetRemove, members);
    }

    /// [`Code::ZsetSet`]; no score is NaN.
    #[inline]
    pub fn zset_set<'s>(self, members: impl Iterator<Item = (f64, &'s [u8])> + Clone) {
        self.write(
            Code::ZsetSet,
            || members.clone().map(|(_, member)| 8 + string_len(member)).sum(),
            |out| {
                for (score, member) in members.clone() {
                    debug_assert!(!score.is_nan());
                    out.extend_from_slice(&score.to_bits().to_le_bytes());
                    put_string(out, member);
                }
            },
        );
    }

    /// [`Code::ZsetRemove`].
    #[inline]
    pub fn zset_remove<'s>(self, members: impl Words<'s>) {
        self.strings(Code::ZsetRemove, members);
    }

    /// [`Code::ZsetRemoveRanks`].
    pub fn zset_remove_ranks(self, ranks: std::ops::Range<usize>) {
        self.numbers(Code::ZsetRemoveRanks, [ranks.start as u64, ranks.len() as u64], b"");
    }
}

/// Streams and their groups.
impl RecordWriter<'_> {
    /// [`Code::StreamAdd`], names and values in turn.
    pub fn stream_add<'s>(self, id: StreamId, fields: impl Words<'s>) {
        self.write(
            Code::StreamAdd,
            || id_len(id) + fields.clone().map(string_len).sum::<usize>(),
            |out| {
                put_id(out, id);
                fields.clone().for_each(|string| put_string(out, string));
            },
        );
    }

    /// [`Code::StreamDelete`], of one id or more.
    pub fn stream_delete(self, ids: &[StreamId]) {
        self.write(Code::StreamDelete, || ids_len_about(ids.len()), |out| put_ids(out, ids));
    }

    /// [`Code::StreamTrim`].
    pub fn stream_trim(self, count: u64) {
        self.numbers(Code::StreamTrim, [count], b"");
    }

    /// [`Code::StreamTrimAcked`].
    pub fn stream_trim_acked(self, up_to: StreamId) {
        self.numbers(Code::StreamTrimAcked, [up_to.ms, up_to.seq], b"");
    }

    /// [`Code::StreamSetIds`].
    pub fn stream_set_ids(self, last_id: StreamId, max_deleted_id: StreamId, entries_added: u64) {
        let numbers = [last_id.ms, last_id.seq, max_deleted_id.ms, max_deleted_id.seq, entries_added];
        self.numbers(Code::StreamSetIds, numbers, b"");
    }

    /// [`Code::StreamForget`], of one id or more.
    pub fn stream_forget(self, ids: &[StreamId]) {
        self.write(Code::StreamForget, || ids_len_about(ids.len()), |out| put_ids(out, ids));
    }

    /// [`Code::StreamForgetUpTo`].
    pub fn stream_forget_up_to(self, id: StreamId) {
        self.numbers(Code::StreamForgetUpTo, [id.ms, id.seq], b"");
    }

    /// [`Code::StreamRemember`].
    pub fn stream_remember(self, forgotten: u64, known: &Known<'_>) {
        self.write(
            Code::StreamRemember,
            || {
                let numbers = varint_len(forgotten) + id_len(known.entry) + varint_len(zigzag(known.at));
                numbers + string_len(known.producer) + string_len(known.iid)
            },
            |out| {
                put_varint(out, forgotten);
                put_string(out, known.producer);
                put_string(out, known.iid);
                put_id(out, known.entry);
                put_zigzag(out, known.at);
            },
        );
    }

    /// [`Code::StreamWindow`].
    pub fn stream_window(self, window: Window) {
        self.numbers(Code::StreamWindow, [window.seconds.into(), window.ids_max.into()], b"");
    }

    fn group(self, code: Code, group: &[u8], position: &GroupPosition) {
        self.write(
            code,
            || string_len(group) + position_len(position),
            |out| {
                put_string(out, group);
                put_position(out, position);
            },
        );
    }

    /// [`Code::GroupCreate`].
    pub fn group_create(self, group: &[u8], position: &GroupPosition) {
        self.group(Code::GroupCreate, group, position);
    }

    /// [`Code::GroupSet`].
    pub fn group_set(self, group: &[u8], position: &GroupPosition) {
        self.group(Code::GroupSet, group, position);
    }

    /// [`Code::GroupDestroy`].
    pub fn group_destroy(self, group: &[u8]) {
        self.strings(Code::GroupDestroy, std::iter::once(group));
    }

    /// [`Code::GroupDropConsumer`].
    pub fn group_drop_consumer(self, group: &[u8], consumer: &[u8]) {
        self.strings(Code::GroupDropConsumer, [group, consumer].into_iter());
    }

    /// [`Code::GroupDeliver`] of what is pending in `pending`, and of what is `gone`.
    pub fn group_deliver(
        self,
        (group, consumer): (&[u8], &[u8]),
        position: &GroupPosition,
        (seen, active): (i64, i64),
        pending: impl ExactSizeIterator<Item = PendingEntry>,
        gone: &[StreamId],
    ) {
        let count = pending.len() as u64;
        self.write(
            Code::GroupDeliver,
            || {
                let names = string_len(group) + string_len(consumer) + position_len(position);
                let times = varint_len(zigzag(seen)) + varint_len(zigzag(active)) + varint_len(count);
                names + times + 4 * count as usize + ids_len_about(gone.len())
            },
            |out| {
                put_string(out, group);
                put_string(out, consumer);
                put_position(out, position);
                put_zigzag(out, seen);
                put_zigzag(out, active);
                put_varint(out, count);
                let (mut before, mut delivered_before) = (StreamId::MIN, seen);
                for entry in pending {
                    put_id_behind(out, before, entry.id);
                    put_zigzag(out, entry.delivered.wrapping_sub(delivered_before));
                    put_varint(out, entry.count);
                    (before, delivered_before) = (entry.id, entry.delivered);
                }
                put_ids(out, gone);
            },
        );
    }

    /// [`Code::GroupAcknowledge`], of one id or more.
    pub fn group_acknowledge(self, group: &[u8], ids: &[StreamId]) {
        self.write(
            Code::GroupAcknowledge,
            || string_len(group) + ids_len_about(ids.len()),
            |out| {
                put_string(out, group);
                put_ids(out, ids);
            },
        );
    }

    /// [`Code::GroupRelease`], of one entry or more.
    pub fn group_release(self, group: &[u8], released: &[(StreamId, u64)]) {
        self.write(
            Code::GroupRelease,
            || string_len(group) + 4 * released.len(),
            |out| {
                put_string(out, group);
                let mut before = StreamId::MIN;
                for (id, count) in released {
                    put_id_behind(out, before, *id);
                    put_varint(out, *count);
                    before = *id;
                }
            },
        );
    }
}

/// A barrier about to be written. A method chooses its verb.
#[must_use = "a barrier has a verb"]
#[derive(Debug)]
pub struct BarrierWriter<'w>(Option<(&'w mut Vec<u8>, u32)>);

impl<'w> BarrierWriter<'w> {
    /// A barrier of a database, behind what is in `out`.
    pub fn new(out: &'w mut Vec<u8>, db: u32) -> Self {
        BarrierWriter(Some((out, db)))
    }

    /// A barrier that is not wanted: nothing is written.
    pub fn unwanted() -> Self {
        BarrierWriter(None)
    }

    fn write(self, code: Code, body: impl FnOnce(&mut Vec<u8>)) {
        let Some((out, db)) = self.0 else { return };
        let mut rest = Vec::new();
        put_varint(&mut rest, u64::from(db));
        rest.push(code as u8);
        body(&mut rest);
        out.push(ITEM_VERB_BARRIER);
        put_string(out, &rest);
    }

    /// [`Code::FlushAll`].
    pub fn flush_all(self) {
        self.write(Code::FlushAll, |_| ());
    }

    /// [`Code::FlushDb`].
    pub fn flush_db(self) {
        self.write(Code::FlushDb, |_| ());
    }

    /// [`Code::SwapDbs`].
    pub fn swap_dbs(self, one: u32, other: u32) {
        self.write(Code::SwapDbs, |out| {
            put_varint(out, u64::from(one));
            put_varint(out, u64::from(other));
        });
    }

    /// [`Code::Transfer`]; the source is in the barrier's database.
    pub fn transfer(self, copies: bool, source: &[u8], to_db: u32, destination: &[u8]) {
        self.write(Code::Transfer, |out| {
            out.push(copies.into());
            put_string(out, source);
            put_varint(out, u64::from(to_db));
            out.extend_from_slice(destination);
        });
    }

    /// [`Code::Populate`]; a size of 0 leaves the values as they are.
    pub fn populate(self, count: u64, size: u64, prefix: &[u8]) {
        self.write(Code::Populate, |out| {
            put_varint(out, count);
            put_varint(out, size);
            out.extend_from_slice(prefix);
        });
    }

    /// [`Code::SetLibrary`]; the database means nothing.
    pub fn set_library(self, name: &[u8], code: &[u8]) {
        self.write(Code::SetLibrary, |out| {
            put_string(out, name);
            out.extend_from_slice(code);
        });
    }

    /// [`Code::DropLibrary`]; the database means nothing.
    pub fn drop_library(self, name: &[u8]) {
        self.write(Code::DropLibrary, |out| out.extend_from_slice(name));
    }

    /// [`Code::DropLibraries`]; the database means nothing.
    pub fn drop_libraries(self) {
        self.write(Code::DropLibraries, |_| ());
    }

    /// [`Code::Bury`], of all databases or of the barrier's own.
    pub fn bury(self, all: bool, flush: Undoable) {
        self.write(Code::Bury, |out| {
            out.push(all.into());
            put_varint(out, flush.id);
            put_varint(out, flush.at_ms.min(TIME_MAX));
            put_varint(out, flush.until_ms.min(TIME_MAX));
        });
    }

    /// [`Code::Unbury`]; the database means nothing.
    pub fn unbury(self, id: u64, replaces: bool) {
        self.write(Code::Unbury, |out| {
            out.push(replaces.into());
            put_varint(out, id);
        });
    }

    /// [`Code::ForgetBuried`]; the database means nothing.
    pub fn forget_buried(self, id: u64) {
        self.write(Code::ForgetBuried, |out| put_varint(out, id));
    }
}

impl Verb<'_> {
    /// Writes it as a record of `key`; `None` for a barrier.
    pub fn record(&self, writer: RecordWriter<'_>) -> Option<()> {
        let pair = |(name, value)| [name, value];
        match *self {
            Verb::Set { value, expiry } => writer.set(value, expiry.map(|at| at as i64)),
            Verb::Delete => writer.delete(),
            Verb::ExpireAt(at) => writer.expire_at(at as i64),
            Verb::Persist => writer.persist(),
            Verb::Bless | Verb::Unbless => writer.bless(matches!(self, Verb::Bless)),
            Verb::Append(bytes) => writer.append(bytes),
            Verb::SetRange { offset, bytes } => writer.numbers(Code::SetRange, [offset], bytes),
            Verb::RaiseRegisters(registers) => writer.raise_registers(&registers.collect::<Vec<_>>()),
            Verb::Push(end, elements) => writer.push(end, elements),
            Verb::Pop(_, count) => writer.numbers(self.code(), [count], b""),
            Verb::ListSet { index, element } | Verb::ListInsert { index, element } => {
                writer.numbers(self.code(), [index], element);
            }
            Verb::ListRemove { from, count, element } => {
                writer.numbers(Code::ListRemove, [u64::from(from == End::Right), count], element);
            }
            Verb::ListKeep { start, len } => writer.numbers(Code::ListKeep, [start, len], b""),
            Verb::HashSet { expiry, fields } => writer.hash_set(expiry, fields.flat_map(pair)),
            Verb::HashDelete(fields) => writer.hash_delete(fields),
            Verb::HashExpireAt { at, fields } => writer.hash_expire_at(at, fields),
            Verb::HashPersist(fields) => writer.hash_persist(fields),
            Verb::SetAdd(members) => writer.set_add(members),
            Verb::SetRemove(members) => writer.set_remove(members),
            Verb::ZsetSet(members) => writer.zset_set(members),
            Verb::ZsetRemove(members) => writer.zset_remove(members),
            Verb::ZsetRemoveRanks { start, count } => writer.numbers(Code::ZsetRemoveRanks, [start, count], b""),
            _ if self.code().is_barrier() => return None,
            _ => self.stream_record(writer),
        }
        Some(())
    }

    fn stream_record(&self, writer: RecordWriter<'_>) {
        let collected = |ids: Ids<'_>| ids.collect::<Vec<_>>();
        match *self {
            Verb::StreamAdd { id, fields } => writer.stream_add(id, fields.flat_map(|(name, value)| [name, value])),
            Verb::StreamDelete(ids) => writer.stream_delete(&collected(ids)),
            Verb::StreamTrim(count) => writer.stream_trim(count),
            Verb::StreamTrimAcked(id) => writer.stream_trim_acked(id),
            Verb::StreamSetIds { last_id, max_deleted_id, entries_added } => {
                writer.stream_set_ids(last_id, max_deleted_id, entries_added);
            }
            Verb::StreamForget(ids) => writer.stream_forget(&collected(ids)),
            Verb::StreamForgetUpTo(id) => writer.stream_forget_up_to(id),
            Verb::StreamRemember { forgotten, ref known } => writer.stream_remember(forgotten, known),
            Verb::StreamWindow(window) => writer.stream_window(window),
            Verb::GroupCreate { group, ref position } => writer.group_create(group, position),
            Verb::GroupSet { group, ref position } => writer.group_set(group, position),
            Verb::GroupDestroy { group } => writer.group_destroy(group),
            Verb::GroupDropConsumer { group, consumer } => writer.group_drop_consumer(group, consumer),
            Verb::GroupDeliver(ref delivery) => {
                let names = (delivery.group, delivery.consumer);
                let pending = delivery.pending.collect::<Vec<_>>().into_iter();
                let times = (delivery.seen, delivery.active);
                writer.group_deliver(names, &delivery.position, times, pending, &collected(delivery.gone));
            }
            Verb::GroupAcknowledge { group, ids } => writer.group_acknowledge(group, &collected(ids)),
            Verb::GroupRelease { group, released } => writer.group_release(group, &released.collect::<Vec<_>>()),
            _ => unreachable!("the other verbs are written by `record`"),
        }
    }

    /// Writes it as a barrier; `None` if it is not one.
    pub fn barrier(&self, writer: BarrierWriter<'_>) -> Option<()> {
        match *self {
            Verb::FlushAll => writer.flush_all(),
            Verb::FlushDb => writer.flush_db(),
            Verb::SwapDbs { one, other } => writer.swap_dbs(one, other),
            Verb::Transfer { copies, source, to_db, destination } => {
                writer.transfer(copies, source, to_db, destination);
            }
            Verb::Populate { count, size, prefix } => writer.populate(count, size, prefix),
            Verb::SetLibrary { name, code } => writer.set_library(name, code),
            Verb::DropLibrary(name) => writer.drop_library(name),
            Verb::DropLibraries => writer.drop_libraries(),
            Verb::Bury { all, flush } => writer.bury(all, flush),
            Verb::Unbury { id, replaces } => writer.unbury(id, replaces),
            Verb::ForgetBuried { id } => writer.forget_buried(id),
            _ => return None,
        }
        Some(())
    }
}

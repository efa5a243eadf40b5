//! A stream as bytes, as `persist::format` draws it.
//!
//! [`Stream::decode`] takes any bytes. Every block is read to its end, ids must rise, every pending entry must have
//! an owner, and no memory is allocated for a count that the bytes do not support.

use std::collections::HashMap;

use super::Stream;
use super::block::Block;
use super::group::{Consumer, Group, Owned, Pending};
use super::id::StreamId;
use super::idempotency::{Idempotency, Known, Window};
use super::ordered::Ordered;
use crate::base::varint::{put_varint, take_string, take_varint};
use crate::value::codec::Spill;
use crate::value::entry::SharedBytes;
use crate::value::tree::{Leaf, Tree};

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    put_varint(out, id.ms);
    put_varint(out, id.seq);
}

fn take_id(rest: &mut &[u8]) -> Option<StreamId> {
    Some(StreamId::new(take_varint(rest)?, take_varint(rest)?))
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_varint(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    let zigzag = take_varint(rest)?;
    Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
}

/// Takes a count of items of at least one byte each.
fn take_count(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_varint(rest)?).ok().filter(|count| *count <= rest.len())
}

/// The parts of a stream that most have not.
const PART_IDEMPOTENCY: u8 = 1;
const PART_RELEASED: u8 = 2;

impl Stream {
    /// Whether it has parts behind its groups, for which its bytes have a type of their own.
    pub fn has_parts(&self) -> bool {
        self.idempotency.is_some() || self.has_released()
    }

    fn has_released(&self) -> bool {
        self.groups.iter().any(|group| group.released_len() > 0)
    }

    /// Appends its elements in the form that `persist::format` draws.
    pub fn encode(&self, out: &mut Vec<u8>, spill: &mut Spill<'_>) {
        self.encode_counters(out);
        put_varint(out, self.blocks as u64);
        for block in self.entries.leaves() {
            put_id(out, block.master());
            put_string(out, block.as_bytes());
            spill(out);
        }
        self.encode_groups(out, |consumer| consumer.seen, spill);
        if let Some(idempotency) = &self.idempotency {
            out.push(PART_IDEMPOTENCY);
            idempotency.encode(idempotency.duplicates(), out, spill);
        }
        if self.has_released() {
            out.push(PART_RELEASED);
            self.encode_released(out, spill);
        }
    }

    /// Gives equal streams the same bytes, however their entries are spread over blocks, and whenever consumers have
    /// asked and producers have added in vain, which is not logged.
    pub fn canonical(&self, out: &mut Vec<u8>) {
        self.encode_counters(out);
        for entry in self.range(StreamId::MIN, StreamId::MAX) {
            put_id(out, entry.id);
            put_varint(out, entry.len() as u64);
            for (name, value) in entry.fields() {
                put_string(out, &name.to_vec());
                put_string(out, &value.to_vec());
            }
        }
        self.encode_groups(out, |_| 0, &mut |_| ());
        if let Some(idempotency) = &self.idempotency {
            idempotency.encode(0, out, &mut |_| ());
        }
        self.encode_released(out, &mut |_| ());
    }

    /// What was handed back in each group, in the order in which it is to be claimed.
    fn encode_released(&self, out: &mut Vec<u8>, spill: &mut Spill<'_>) {
        let groups = || self.groups.iter().filter(|group| group.released_len() > 0);
        put_varint(out, groups().count() as u64);
        for group in groups() {
            put_string(out, &group.name);
            put_varint(out, group.released_len() as u64);
            for pending in group.released() {
                put_id(out, pending.id);
                put_varint(out, pending.count);
                spill(out);
            }
        }
    }

    fn decode_released(&mut self, rest: &mut &[u8]) -> Option<()> {
        for _ in 0..take_count(rest)? {
            let name = take_string(rest)?;
            let count = take_count(rest)?;
            let mut ids = Vec::new();
            for _ in 0..count {
                ids.push((take_id(rest)?, take_varint(rest)?));
            }
            let group = self.group(name).filter(|group| group.released_len() == 0 && count > 0)?;
            if ids.iter().any(|(id, _)| group.pending.get(id).is_some()) {
                return None;
            }
            self.edit_group(name, |group| ids.iter().for_each(|(id, count)| group.release(*id, *count)));
            // One that came twice has displaced itself.
            self.group(name).filter(|group| group.released_len() == count)?;
        }
        self.has_released().then_some(())
    }

    fn encode_counters(&self, out: &mut Vec<u8>) {
        put_id(out, self.last_id);
        put_id(out, self.max_deleted_id);
        put_varint(out, self.entries_added);
    }

    fn encode_groups(&self, out: &mut Vec<u8>, seen: impl Fn(&Consumer) -> i64, spill: &mut Spill<'_>) {
        put_varint(out, self.groups.len() as u64);
        for group in self.groups.iter() {
            put_string(out, &group.name);
            put_id(out, group.last_id);
            match group.entries_read {
                None => out.push(0),
                Some(read) => {
                    out.push(1);
                    put_varint(out, read);
                }
            }
            put_varint(out, group.consumers.len() as u64);
            for consumer in group.consumers.iter() {
                put_string(out, &consumer.name);
                put_signed(out, seen(consumer));
                put_signed(out, consumer.active);
                put_varint(out, consumer.pending.len() as u64);
                for Owned(id) in consumer.pending.iter() {
                    put_id(out, *id);
                    if let Some(pending) = group.pending.get(id) {
                        put_signed(out, pending.delivered);
                        put_varint(out, pending.count);
                    }
                    spill(out);
                }
            }
        }
    }

    /// Reads what [`Stream::encode`] wrote, with parts behind the groups or without; `None` if the bytes are not that.
    pub fn decode(bytes: &[u8], has_parts: bool) -> Option<Stream> {
        let rest = &mut &bytes[..];
        let (last_id, max_deleted_id, entries_added) = (take_id(rest)?, take_id(rest)?, take_varint(rest)?);
        let mut blocks = Vec::new();
        let mut before = None;
        for _ in 0..take_count(rest)? {
            let block = Block::parse(take_id(rest)?, take_string(rest)?)?;
            if before.is_some_and(|before| block.master() <= before) {
                return None;
            }
            before = Some(block.last().and_then(|at| block.read(at))?.entry.id);
            blocks.push(block);
        }
        let len: usize = blocks.iter().map(Leaf::len).sum();
        if before.is_some_and(|last| last > last_id) || entries_added < len as u64 {
            return None;
        }
        let count = blocks.len();
        let mut stream = Stream { last_id, max_deleted_id, entries_added, blocks: count, ..Stream::new() };
        stream.entries = Tree::from_leaves(blocks);
        let mut groups: Vec<Group> = Vec::new();
        for _ in 0..take_count(rest)? {
            let group = decode_group(rest)?;
            if groups.last().is_some_and(|before| before.name[..] >= group.name[..]) {
                return None;
            }
            groups.push(group);
        }
        stream.groups.extend_back(groups);
        while !rest.is_empty() {
            stream.decode_part(rest)?;
        }
        (stream.has_parts() == has_parts).then_some(stream)
    }

    fn decode_part(&mut self, rest: &mut &[u8]) -> Option<()> {
        let (&kind, behind) = rest.split_first()?;
        *rest = behind;
        match kind {
            PART_IDEMPOTENCY if self.idempotency.is_none() => {
                self.idempotency = Some(Box::new(Idempotency::decode(rest)?));
            }
            PART_RELEASED if !self.has_released() => self.decode_released(rest)?,
            _ => return None,
        }
        Some(())
    }
}

impl Idempotency {
    fn encode(&self, duplicates: u64, out: &mut Vec<u8>, spill: &mut Spill<'_>) {
        let Window { seconds, ids_max } = self.window();
        for number in [u64::from(seconds), u64::from(ids_max), self.added(), duplicates] {
            put_varint(out, number);
        }
        put_varint(out, self.producers_len() as u64);
        self.producers().for_each(|name| put_string(out, name));
        put_varint(out, self.len() as u64);
        let places: HashMap<&[u8], u64> = self.producers().zip(0..).collect();
        for known in self.iter() {
            put_varint(out, places.get(known.producer).copied().unwrap_or_default());
            put_string(out, known.iid);
            put_id(out, known.entry);
            put_signed(out, known.at);
            spill(out);
        }
    }

    fn decode(rest: &mut &[u8]) -> Option<Idempotency> {
        let mut small = || take_varint(rest).and_then(|number| u32::try_from(number).ok());
        let window = Window { seconds: small()?, ids_max: small()? };
        let (added, duplicates) = (take_varint(rest)?, take_varint(rest)?);
        let producers = (0..take_count(rest)?).map(|_| take_string(rest)).collect::<Option<Vec<_>>>()?;
        let rise = producers.windows(2).all(|two| two[0] < two[1]);
        if !window.is_valid() || !rise {
            return None;
        }
        let count = take_count(rest)?;
        let mut idempotency = Idempotency::with_counters(window, added.wrapping_sub(count as u64), duplicates);
        for _ in 0..count {
            let producer = *producers.get(usize::try_from(take_varint(rest)?).ok()?)?;
            let (iid, entry, at) = (take_string(rest)?, take_id(rest)?, take_signed(rest)?);
            idempotency.remember(Known { producer, iid, entry, at }, 0);
        }
        // One that came twice, or too many of a producer, have displaced others.
        let is_whole = idempotency.len() == count && idempotency.producers_len() == producers.len();
        is_whole.then_some(idempotency)
    }
}

fn decode_group(rest: &mut &[u8]) -> Option<Group> {
    let (name, last_id) = (take_string(rest)?, take_id(rest)?);
    let entries_read = match take_varint(rest)? {
        0 => None,
        1 => Some(take_varint(rest)?),
        _ => return None,
    };
    let mut group = Group::new(name, last_id, entries_read);
    let (mut consumers, mut pending): (Vec<Consumer>, Vec<Pending>) = Default::default();
    for _ in 0..take_count(rest)? {
        let consumer = decode_consumer(rest, &mut pending)?;
        if consumers.last().is_some_and(|before| before.name[..] >= consumer.name[..]) {
            return None;
        }
        consumers.push(consumer);
    }
    pending.sort_unstable_by_key(|pending| pending.id);
    if pending.windows(2).any(|two| two[0].id == two[1].id) {
        return None;
    }
    group.consumers.extend_back(consumers);
    group.pending.extend_back(pending);
    Some(group)
}

/// Reads a consumer and adds its pending entries.
fn decode_consumer(rest: &mut &[u8], all: &mut Vec<Pending>) -> Option<Consumer> {
    let name = SharedBytes::new(take_string(rest)?);
    let (seen, active) = (take_signed(rest)?, take_signed(rest)?);
    let (mut own, mut before) = (Vec::new(), None);
    for _ in 0..take_count(rest)? {
        let id = take_id(rest)?;
        if before.is_some_and(|before| id <= before) {
            return None;
        }
        before = Some(id);
        let (delivered, count) = (take_signed(rest)?, take_varint(rest)?);
        all.push(Pending { id, delivered, count, consumer: Some(name.clone()) });
        own.push(Owned(id));
    }
    let mut pending = Ordered::default();
    pending.extend_back(own);
    Some(Consumer { name, seen, active, pending })
}

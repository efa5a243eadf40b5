//! Writes whole values: a [`RdbValue`], a list from its items, a stream from its entries.
//!
//! Small collections become the packed containers that Redis would use at its default thresholds. A reader converts
//! them to its own thresholds anyway.

use super::code::{NODE_PACKED, NODE_PLAIN};
use super::packed::{ListpackWriter, intset};
use super::stream::{ENTRY_ELEMENTS, ENTRY_SAME_FIELDS, RDB_WINDOW_USUAL};
use super::writer::id_bytes;
use super::{
    DumpWriter, RdbField, RdbGroup, RdbIdempotency, RdbPending, RdbStream, RdbStreamId, RdbStreamMeta, RdbType,
    RdbValue,
};
use crate::base::format::{parse_i64, write_double};

/// A hash with more fields than this is not written as a listpack.
const HASH_LISTPACK_ENTRIES_MAX: usize = 512;
/// A sorted set with more members than this is not written as a listpack.
const ZSET_LISTPACK_ENTRIES_MAX: usize = 128;
/// A hash or sorted set with a longer element is not written as a listpack.
const LISTPACK_VALUE_MAX: usize = 64;
/// A set with more members than this is not written as an intset.
const INTSET_ENTRIES_MAX: usize = 512;
/// A node of a list is full at this size; a larger item has a node of its own.
const LIST_NODE_BYTES: usize = 8192;
/// The estimated overhead of an item in a node, in bytes.
const ITEM_OVERHEAD: usize = 8;
/// A node of a stream is full at this size, or at this many entries.
const STREAM_NODE_BYTES: usize = 4096;
const STREAM_NODE_ENTRIES: usize = 100;

/// Writes the payload that DUMP gives for this value. A collection must not be empty, and a group's pending entries
/// must name one of its consumers.
pub fn encode_dump(value: &RdbValue) -> Vec<u8> {
    match value {
        RdbValue::String(bytes) => {
            let mut writer = DumpWriter::new(RdbType::String);
            writer.string(bytes);
            writer.finish()
        }
        RdbValue::List(items) => {
            let mut list = ListWriter::new();
            items.iter().for_each(|item| list.push(item));
            list.finish()
        }
        RdbValue::Set(members) => encode_set(members),
        RdbValue::Hash(fields) => encode_hash(fields),
        RdbValue::Zset(members) => encode_zset(members),
        RdbValue::Stream(stream) => encode_stream(stream),
    }
}

fn encode_set(members: &[Vec<u8>]) -> Vec<u8> {
    if members.len() <= INTSET_ENTRIES_MAX
        && let Some(mut numbers) = members.iter().map(|member| parse_i64(member)).collect::<Option<Vec<i64>>>()
    {
        numbers.sort_unstable();
        let mut writer = DumpWriter::new(RdbType::SetIntset);
        writer.blob(&intset(&numbers));
        return writer.finish();
    }
    let mut writer = DumpWriter::new(RdbType::Set);
    writer.length(members.len() as u64);
    members.iter().for_each(|member| writer.string(member));
    writer.finish()
}

fn encode_hash(fields: &[RdbField]) -> Vec<u8> {
    if let Some(earliest) = fields.iter().filter_map(|(_, _, expiry)| *expiry).min() {
        return encode_volatile_hash(fields, earliest);
    }
    let small = |bytes: &[u8]| bytes.len() <= LISTPACK_VALUE_MAX;
    if fields.len() <= HASH_LISTPACK_ENTRIES_MAX && fields.iter().all(|(field, value, _)| small(field) && small(value))
    {
        let mut listpack = ListpackWriter::new();
        for (field, value, _) in fields {
            listpack.push(field);
            listpack.push(value);
        }
        let mut writer = DumpWriter::new(RdbType::HashListpack);
        writer.blob(&listpack.finish());
        return writer.finish();
    }
    let mut writer = DumpWriter::new(RdbType::Hash);
    writer.length(fields.len() as u64);
    for (field, value, _) in fields {
        writer.string(field);
        writer.string(value);
    }
    writer.finish()
}

fn encode_volatile_hash(fields: &[RdbField], earliest: u64) -> Vec<u8> {
    let mut writer = DumpWriter::new(RdbType::HashVolatile);
    writer.time_ms(Some(earliest));
    writer.length(fields.len() as u64);
    for (field, value, expiry) in fields {
        writer.length(expiry.map_or(0, |time| time - earliest + 1));
        writer.string(field);
        writer.string(value);
    }
    writer.finish()
}

fn encode_zset(members: &[(Vec<u8>, f64)]) -> Vec<u8> {
    if members.len() <= ZSET_LISTPACK_ENTRIES_MAX
        && members.iter().all(|(member, _)| member.len() <= LISTPACK_VALUE_MAX)
    {
        // A reader expects a listpack to be in the order of the scores.
        let mut sorted: Vec<&(Vec<u8>, f64)> = members.iter().collect();
        sorted.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.0.cmp(&b.0)));
        let mut listpack = ListpackWriter::new();
        let mut text = Vec::new();
        for (member, score) in sorted {
            listpack.push(member);
            text.clear();
            write_double(&mut text, *score);
            listpack.push(&text);
        }
        let mut writer = DumpWriter::new(RdbType::ZsetListpack);
        writer.blob(&listpack.finish());
        return writer.finish();
    }
    let mut writer = DumpWriter::new(RdbType::Zset);
    writer.length(members.len() as u64);
    for (member, score) in members {
        writer.string(member);
        writer.double(*score);
    }
    writer.finish()
}

/// Writes a list item by item, from head to tail.
pub struct ListWriter {
    nodes: DumpWriter,
    count: u64,
    node: ListpackWriter,
}

impl Default for ListWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ListWriter {
    /// Begins a list.
    pub fn new() -> Self {
        Self { nodes: DumpWriter::new(RdbType::List), count: 0, node: ListpackWriter::new() }
    }

    /// Appends an item.
    pub fn push(&mut self, item: &[u8]) {
        if self.node.count() > 0 && self.node.bytes() + item.len() + ITEM_OVERHEAD > LIST_NODE_BYTES {
            self.close_node();
        }
        if item.len() > LIST_NODE_BYTES {
            self.nodes.length(NODE_PLAIN);
            self.nodes.blob(item);
            self.count += 1;
        } else {
            self.node.push(item);
        }
    }

    fn close_node(&mut self) {
        let node = std::mem::take(&mut self.node);
        self.nodes.length(NODE_PACKED);
        self.nodes.blob(&node.finish());
        self.count += 1;
    }

    /// Returns the payload. The list must not be empty.
    pub fn finish(mut self) -> Vec<u8> {
        if self.node.count() > 0 {
            self.close_node();
        }
        let mut writer = DumpWriter::new(RdbType::List);
        writer.length(self.count);
        writer.append(&self.nodes.into_body());
        writer.finish()
    }
}

fn encode_stream(stream: &RdbStream) -> Vec<u8> {
    let mut writer = StreamWriter::new();
    for (id, fields) in &stream.entries {
        writer.push(*id, fields.iter().map(|(name, value)| (&**name, value.as_slice())));
    }
    writer.finish(&stream.meta)
}

/// Writes a stream entry by entry, by ascending id.
pub struct StreamWriter {
    nodes: DumpWriter,
    count: u64,
    entries: u64,
    first_id: RdbStreamId,
    node: Option<StreamNode>,
}

/// A node being filled.
struct StreamNode {
    id: RdbStreamId,
    names: Vec<Vec<u8>>,
    entries: usize,
    /// The entries alone. The elements before them hold their count, so they are written last.
    elements: ListpackWriter,
}

impl Default for StreamWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamWriter {
    /// Begins a stream.
    pub fn new() -> Self {
        let nodes = DumpWriter::new(RdbType::Stream);
        Self { nodes, count: 0, entries: 0, first_id: (0, 0), node: None }
    }

    /// Appends an entry: its id, the names and values of its fields.
    pub fn push<'a>(&mut self, id: RdbStreamId, fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) {
        if self.entries == 0 {
            self.first_id = id;
        }
        self.entries += 1;
        let full =
            |node: &StreamNode| node.entries >= STREAM_NODE_ENTRIES || node.elements.bytes() >= STREAM_NODE_BYTES;
        if self.node.as_ref().is_some_and(full) {
            self.close_node();
        }
        let node = self.node.get_or_insert_with(|| StreamNode {
            id,
            names: fields.clone().map(|(name, _)| name.to_vec()).collect(),
            entries: 0,
            elements: ListpackWriter::new(),
        });
        node.push(id, fields);
    }

    fn close_node(&mut self) {
        if let Some(node) = self.node.take() {
            self.nodes.blob(&id_bytes(node.id));
            self.nodes.blob(&node.finish());
            self.count += 1;
        }
    }

    /// Returns the payload.
    pub fn finish(mut self, meta: &RdbStreamMeta) -> Vec<u8> {
        self.close_node();
        let has_released = meta.groups.iter().any(|group| !group.released.is_empty());
        let kind = match meta.idempotency {
            _ if has_released => RdbType::StreamReleased,
            Some(_) => RdbType::StreamIdempotent,
            None => RdbType::Stream,
        };
        let mut writer = DumpWriter::new(kind);
        writer.length(self.count);
        writer.append(&self.nodes.into_body());
        writer.length(self.entries);
        writer.id(meta.last_id);
        writer.id(self.first_id);
        writer.id(meta.max_deleted_id);
        writer.length(meta.entries_added);
        writer.length(meta.groups.len() as u64);
        meta.groups.iter().for_each(|group| write_group(&mut writer, kind, group));
        match &meta.idempotency {
            Some(idempotency) => write_idempotency(&mut writer, idempotency),
            None if has_released => {
                let (seconds, ids_max) = RDB_WINDOW_USUAL;
                write_idempotency(&mut writer, &RdbIdempotency { seconds, ids_max, ..RdbIdempotency::default() });
            }
            None => {}
        }
        writer.finish()
    }
}

impl StreamNode {
    fn push<'a>(&mut self, id: RdbStreamId, fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) {
        let names = fields.clone().map(|(name, _)| name);
        let same = names.eq(self.names.iter().map(Vec::as_slice));
        let elements = &mut self.elements;
        elements.push_int(if same { ENTRY_SAME_FIELDS } else { 0 });
        elements.push_int(id.0.wrapping_sub(self.id.0) as i64);
        elements.push_int(id.1.wrapping_sub(self.id.1) as i64);
        let mut count = 0;
        if same {
            for (_, value) in fields {
                elements.push(value);
                count += 1;
            }
        } else {
            count = 1;
            elements.push_int(fields.clone().count() as i64);
            for (name, value) in fields {
                elements.push(name);
                elements.push(value);
                count += 2;
            }
        }
        elements.push_int((ENTRY_ELEMENTS + count) as i64);
        self.entries += 1;
    }

    fn finish(self) -> Vec<u8> {
        let mut listpack = ListpackWriter::new();
        listpack.push_int(self.entries as i64);
        listpack.push_int(0);
        listpack.push_int(self.names.len() as i64);
        self.names.iter().for_each(|name| listpack.push(name));
        listpack.push_int(0);
        listpack.append(self.elements);
        listpack.finish()
    }
}

fn write_idempotency(writer: &mut DumpWriter, idempotency: &RdbIdempotency) {
    writer.id((idempotency.seconds, idempotency.ids_max));
    writer.length(idempotency.producers.len() as u64);
    for producer in &idempotency.producers {
        writer.string(&producer.name);
        writer.length(producer.ids.len() as u64);
        for (iid, entry) in &producer.ids {
            writer.string(iid);
            writer.id(*entry);
        }
    }
    writer.id((idempotency.added, idempotency.duplicates));
}

fn write_group(writer: &mut DumpWriter, kind: RdbType, group: &RdbGroup) {
    writer.string(&group.name);
    writer.id(group.last_id);
    writer.length(group.entries_read.unwrap_or(u64::MAX));
    let mut all: Vec<&RdbPending> = group.pel.iter().chain(&group.released).collect();
    all.sort_unstable_by_key(|pending| pending.id);
    writer.length(all.len() as u64);
    for pending in all {
        writer.raw_id(pending.id);
        writer.time_ms(Some(pending.delivery_time_ms));
        writer.length(pending.delivery_count);
    }
    let mut owned = vec![Vec::new(); group.consumers.len()];
    for pending in &group.pel {
        owned[pending.consumer].push(pending.id);
    }
    writer.length(group.consumers.len() as u64);
    for (consumer, ids) in group.consumers.iter().zip(owned) {
        writer.string(&consumer.name);
        writer.time_ms(Some(consumer.seen_time_ms));
        if kind != RdbType::Stream {
            writer.time_ms(consumer.active_time_ms);
        }
        writer.length(ids.len() as u64);
        ids.into_iter().for_each(|id| writer.raw_id(id));
    }
    if kind == RdbType::StreamReleased {
        writer.length(group.released.len() as u64);
        group.released.iter().for_each(|pending| writer.raw_id(pending.id));
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;

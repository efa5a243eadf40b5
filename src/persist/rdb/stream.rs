//! Reads a stream: nodes of entries, then the stream's counters, then its groups.
//!
//! A node is a listpack whose first elements name the fields of its first entry. Entries with the same fields store
//! only their values. The names are shared here too, so that a few bytes of payload do not become a copy of a long
//! name.

use std::collections::HashSet;
use std::sync::Arc;

use super::containers::{Element, Listpack};
use super::decode::{RdbSink, TWICE};
use super::reader::{Parsed, Reader, id_from_bytes};
use super::{
    RdbConsumer, RdbEntryFields, RdbGroup, RdbIdempotency, RdbPending, RdbProducer, RdbStreamId, RdbStreamMeta,
};

pub(super) const ENTRY_DELETED: i64 = 1;
pub(super) const ENTRY_SAME_FIELDS: i64 = 2;
/// Elements of an entry besides its fields: flags, two differences.
pub(super) const ENTRY_ELEMENTS: usize = 3;

/// An entry with more fields than this is refused, because LZF packs millions of them into a few kilobytes.
const FIELDS_MAX: usize = 1 << 20;

const ENDS_EARLY: &str = "a stream's node ends within an entry";
const MISCOUNTED: &str = "a stream's node holds another number of entries than it says";

/// Reads a stream of this version of the encoding, 1 to 5.
pub(super) fn decode(reader: &mut Reader<'_>, version: u8, sink: &mut impl RdbSink) -> Parsed<()> {
    let mut seen = Seen::default();
    for _ in 0..reader.count(2)? {
        let master = <[u8; 16]>::try_from(&*reader.string()?).map_err(|_| "a stream's node has no id")?;
        let blob = reader.string()?;
        read_node(Node(Listpack::new(&blob)?), id_from_bytes(master), &mut seen, sink)?;
    }
    if reader.length()? != seen.live {
        return Err("a stream holds another number of entries than it says");
    }
    let last_id = reader.id()?;
    if seen.last > last_id {
        return Err("a stream holds an entry after its last id");
    }
    let mut meta = RdbStreamMeta { last_id, entries_added: seen.live, ..RdbStreamMeta::default() };
    if version >= 2 {
        // The first id, which follows from the entries.
        reader.id()?;
        meta.max_deleted_id = reader.id()?;
        meta.entries_added = reader.length()?;
        if meta.entries_added < seen.live {
            return Err("a stream holds more entries than were ever added");
        }
    }
    for _ in 0..reader.count(5)? {
        let mut group = read_group(reader, version)?;
        if version == 1 {
            group.entries_read = estimate_read(&seen, last_id, group.last_id);
        }
        meta.groups.push(group);
    }
    distinct(&meta.groups, |group| &group.name)?;
    if version >= 4 {
        meta.idempotency = read_idempotency(reader)?;
    }
    sink.stream_end(meta);
    Ok(())
}

/// Checks that no two items have the same name.
fn distinct<T>(items: &[T], name: impl Fn(&T) -> &[u8]) -> Parsed<()> {
    let mut seen = HashSet::with_capacity(items.len());
    if items.iter().all(|item| seen.insert(name(item))) { Ok(()) } else { Err(TWICE) }
}

/// What the entries have shown once they are read.
#[derive(Default)]
struct Seen {
    live: u64,
    first_live: RdbStreamId,
    /// The last id of all entries, deleted ones included.
    last: RdbStreamId,
}

/// The elements of a node. Running out of them is an error.
struct Node<'a>(Listpack<'a>);

impl<'a> Node<'a> {
    fn next(&mut self) -> Parsed<Element<'a>> {
        self.0.next().ok_or(ENDS_EARLY)?
    }

    fn int(&mut self) -> Parsed<i64> {
        self.next()?.integer().ok_or("no integer where a stream's node needs one")
    }

    fn count(&mut self) -> Parsed<usize> {
        usize::try_from(self.int()?).map_err(|_| "a negative number in a stream's node")
    }

    /// The number of an entry's fields.
    fn fields(&mut self) -> Parsed<usize> {
        let fields = self.count()?;
        if fields <= FIELDS_MAX { Ok(fields) } else { Err("an entry with too many fields") }
    }
}

fn read_node(mut node: Node<'_>, master: RdbStreamId, seen: &mut Seen, sink: &mut impl RdbSink) -> Parsed<()> {
    let claimed = (node.count()?, node.count()?);
    let mut names: Vec<Arc<[u8]>> = Vec::new();
    for _ in 0..node.fields()? {
        names.push(node.next()?.to_vec().into());
    }
    if node.int()? != 0 {
        return Err("the fields of a stream's node do not end");
    }
    let (mut live, mut deleted) = (0, 0);
    while let Some(flags) = node.0.next() {
        let flags = flags?.integer().filter(|flags| (0..=3).contains(flags)).ok_or("unknown flags of an entry")?;
        // Differences are taken modulo 2^64: the sequence number may be smaller than the node's.
        let id = (master.0.wrapping_add(node.int()? as u64), master.1.wrapping_add(node.int()? as u64));
        if id <= seen.last {
            return Err("the entries of a stream are out of order");
        }
        seen.last = id;
        if flags & ENTRY_DELETED != 0 {
            skip_fields(&mut node, flags, names.len())?;
            deleted += 1;
            continue;
        }
        sink.stream_entry(id, read_fields(&mut node, flags, &names)?);
        if seen.live == 0 {
            seen.first_live = id;
        }
        seen.live += 1;
        live += 1;
    }
    if (live, deleted) == claimed { Ok(()) } else { Err(MISCOUNTED) }
}

fn read_fields(node: &mut Node<'_>, flags: i64, names: &[Arc<[u8]>]) -> Parsed<RdbEntryFields> {
    let mut fields = Vec::new();
    if flags & ENTRY_SAME_FIELDS != 0 {
        for name in names {
            fields.push((Arc::clone(name), node.next()?.to_vec()));
        }
        check_elements(node, ENTRY_ELEMENTS + fields.len())?;
    } else {
        for _ in 0..node.fields()? {
            fields.push((node.next()?.to_vec().into(), node.next()?.to_vec()));
        }
        check_elements(node, ENTRY_ELEMENTS + 1 + 2 * fields.len())?;
    }
    if fields.is_empty() { Err("an entry without fields") } else { Ok(fields) }
}

fn skip_fields(node: &mut Node<'_>, flags: i64, names: usize) -> Parsed<()> {
    let (elements, inner) = if flags & ENTRY_SAME_FIELDS != 0 {
        (ENTRY_ELEMENTS + names, names)
    } else {
        let inner = 2 * node.fields()?;
        (ENTRY_ELEMENTS + 1 + inner, inner)
    };
    for _ in 0..inner {
        node.next()?;
    }
    check_elements(node, elements)
}

/// The number of elements, which ends an entry so that it can be read backwards.
fn check_elements(node: &mut Node<'_>, elements: usize) -> Parsed<()> {
    if node.count()? == elements { Ok(()) } else { Err("a stream's node does not read backwards") }
}

/// A pending entry has at least its id, its time and its count.
const PENDING_BYTES: usize = 16 + 8 + 1;

fn read_group(reader: &mut Reader<'_>, version: u8) -> Parsed<RdbGroup> {
    let name = reader.string()?.into_owned();
    let last_id = reader.id()?;
    let entries_read = if version >= 2 { Some(reader.length()?).filter(|&read| read != u64::MAX) } else { None };
    let mut pending = Vec::new();
    for _ in 0..reader.count(PENDING_BYTES)? {
        let id = reader.raw_id()?;
        let delivery_time_ms = time_ms(reader)?;
        pending.push(RdbPending { id, delivery_time_ms, delivery_count: reader.length()?, consumer: UNOWNED });
    }
    pending.sort_by_key(|entry| entry.id);
    if pending.windows(2).any(|two| two[0].id == two[1].id) {
        return Err("a group has an entry pending twice");
    }
    let consumers = read_consumers(reader, version, &mut pending)?;
    let mut released = Vec::new();
    if version >= 5 {
        for _ in 0..reader.count(16)? {
            released.push(own(&mut pending, reader.raw_id()?, RELEASED)?);
        }
    }
    if pending.iter().any(|entry| entry.consumer == UNOWNED) {
        return Err("a group has an entry pending for nobody");
    }
    let pel = pending.into_iter().filter(|entry| entry.consumer != RELEASED).collect();
    Ok(RdbGroup { name, last_id, entries_read, pel, released, consumers })
}

/// Marks an entry that no consumer has claimed yet, while a group is read.
const UNOWNED: usize = usize::MAX;
/// See [`RdbGroup::released`].
pub(super) const RELEASED: usize = usize::MAX - 1;

fn read_consumers(reader: &mut Reader<'_>, version: u8, pending: &mut [RdbPending]) -> Parsed<Vec<RdbConsumer>> {
    let mut consumers = Vec::new();
    for index in 0..reader.count(1 + 8 + 1)? {
        let name = reader.string()?.into_owned();
        let seen_time_ms = time_ms(reader)?;
        let active_time_ms = match version {
            3.. => u64::try_from(reader.i64()?).ok(),
            _ => Some(seen_time_ms),
        };
        for _ in 0..reader.count(16)? {
            own(pending, reader.raw_id()?, index)?;
        }
        consumers.push(RdbConsumer { name, seen_time_ms, active_time_ms });
    }
    distinct(&consumers, |consumer: &RdbConsumer| &consumer.name)?;
    Ok(consumers)
}

/// A time that clients see. A time before 1970 becomes 1970.
fn time_ms(reader: &mut Reader<'_>) -> Parsed<u64> {
    Ok(u64::try_from(reader.i64()?).unwrap_or(0))
}

/// Assigns a pending entry its only owner.
fn own(pending: &mut [RdbPending], id: RdbStreamId, owner: usize) -> Parsed<RdbPending> {
    let found = pending.binary_search_by_key(&id, |entry| entry.id).map_err(|_| "an entry is pending for one only")?;
    if pending[found].consumer != UNOWNED {
        return Err("an entry is pending for two");
    }
    pending[found].consumer = owner;
    Ok(pending[found])
}

/// How many entries a group has read when the payload does not say so. This is known only at the ends of a stream.
/// The entries of such a stream count as all that were ever added.
fn estimate_read(seen: &Seen, last_id: RdbStreamId, id: RdbStreamId) -> Option<u64> {
    match id {
        _ if seen.live == 0 => Some(0),
        id if id == last_id => Some(seen.live),
        id if id > last_id => None,
        id if id < seen.first_live => Some(0),
        id if id == seen.first_live => Some(1),
        _ => None,
    }
}

/// Reads what makes XADD idempotent; `None` if it is as in a stream that never had any of it.
fn read_idempotency(reader: &mut Reader<'_>) -> Parsed<Option<RdbIdempotency>> {
    let (seconds, ids_max) = reader.id()?;
    let mut producers: Vec<RdbProducer> = Vec::new();
    for _ in 0..reader.count(2)? {
        let name = reader.string()?.into_owned();
        let mut ids = Vec::new();
        for _ in 0..reader.count(3)? {
            ids.push((reader.string()?.into_owned(), reader.id()?));
        }
        distinct(&ids, |(iid, _)| iid)?;
        producers.push(RdbProducer { name, ids });
    }
    distinct(&producers, |producer| &producer.name)?;
    let (added, duplicates) = reader.id()?;
    let is_unused = (seconds, ids_max) == RDB_WINDOW_USUAL && producers.is_empty() && added == 0 && duplicates == 0;
    Ok((!is_unused).then_some(RdbIdempotency { seconds, ids_max, producers, added, duplicates }))
}

/// Redis' usual window: every stream of Redis 8.6 has one.
pub(super) const RDB_WINDOW_USUAL: (u64, u64) = (100, 100);

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;

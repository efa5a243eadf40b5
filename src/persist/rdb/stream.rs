//! Reads a stream: nodes of entries, then the stream's counters, then its groups.
//!
//! A node is a listpack whose first elements name the fields of its first entry; entries with the same fields
//! store their values alone, so the names are shared here too: a few bytes of payload must not become a
//! copy of a long name.

use std::sync::Arc;

use super::containers::{Element, Listpack};
use super::decode::distinct;
use super::reader::{Parsed, Reader, id_from_bytes};
use super::{RdbConsumer, RdbEntry, RdbEntryFields, RdbGroup, RdbPending, RdbStream, RdbStreamId, RdbStreamMeta};

pub(super) const ENTRY_DELETED: i64 = 1;
pub(super) const ENTRY_SAME_FIELDS: i64 = 2;
/// Elements of an entry besides its fields: flags, two differences.
pub(super) const ENTRY_ELEMENTS: usize = 3;

const ENDS_EARLY: &str = "a stream's node ends within an entry";
const MISCOUNTED: &str = "a stream's node holds another number of entries than it says";

/// Reads a stream of this version of the encoding, 1 to 5.
pub(super) fn decode(reader: &mut Reader<'_>, version: u8) -> Parsed<RdbStream> {
    let mut entries = Vec::new();
    let mut last = (0, 0);
    for _ in 0..reader.count(2)? {
        let master = <[u8; 16]>::try_from(&*reader.string()?).map_err(|_| "a stream's node has no id")?;
        let blob = reader.string()?;
        read_node(&mut entries, &mut last, id_from_bytes(master), Listpack::new(&blob)?)?;
    }
    if reader.length()? != entries.len() as u64 {
        return Err("a stream holds another number of entries than it says");
    }
    let last_id = reader.id()?;
    if last > last_id {
        return Err("a stream holds an entry after its last id");
    }
    let mut meta =
        RdbStreamMeta { last_id, max_deleted_id: (0, 0), entries_added: entries.len() as u64, groups: Vec::new() };
    if version >= 2 {
        // The first id, which the entries tell as well.
        reader.id()?;
        meta.max_deleted_id = reader.id()?;
        meta.entries_added = reader.length()?;
        if meta.entries_added < entries.len() as u64 {
            return Err("a stream holds more entries than were ever added");
        }
    }
    for _ in 0..reader.count(5)? {
        let mut group = read_group(reader, version)?;
        if version == 1 {
            group.entries_read = estimate_read(&entries, &meta, group.last_id);
        }
        meta.groups.push(group);
    }
    if !meta.groups.is_empty() {
        distinct(&meta.groups, |group| &group.name)?;
    }
    if version >= 4 {
        skip_idempotency(reader)?;
    }
    Ok(RdbStream { entries, meta })
}

/// The elements of a node, of which there must be as many as are asked for.
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
}

fn read_node(
    entries: &mut Vec<RdbEntry>,
    last: &mut RdbStreamId,
    master: RdbStreamId,
    elements: Listpack<'_>,
) -> Parsed<()> {
    let mut node = Node(elements);
    let (live, deleted) = (node.count()?, node.count()?);
    let mut names: Vec<Arc<[u8]>> = Vec::new();
    for _ in 0..node.count()? {
        names.push(node.next()?.to_vec().into());
    }
    if node.int()? != 0 {
        return Err("the fields of a stream's node do not end");
    }
    let (mut live_seen, mut deleted_seen) = (0, 0);
    while let Some(flags) = node.0.next() {
        let flags = flags?.integer().filter(|flags| (0..=3).contains(flags)).ok_or("unknown flags of an entry")?;
        // Differences are taken modulo 2^64: the sequence number may be smaller than the node's.
        let id = (master.0.wrapping_add(node.int()? as u64), master.1.wrapping_add(node.int()? as u64));
        if id <= *last {
            return Err("the entries of a stream are out of order");
        }
        *last = id;
        if flags & ENTRY_DELETED != 0 {
            skip_fields(&mut node, flags, names.len())?;
            deleted_seen += 1;
        } else {
            entries.push((id, read_fields(&mut node, flags, &names)?));
            live_seen += 1;
        }
    }
    if (live_seen, deleted_seen) == (live, deleted) { Ok(()) } else { Err(MISCOUNTED) }
}

fn read_fields(node: &mut Node<'_>, flags: i64, names: &[Arc<[u8]>]) -> Parsed<RdbEntryFields> {
    let mut fields = Vec::new();
    if flags & ENTRY_SAME_FIELDS != 0 {
        for name in names {
            fields.push((Arc::clone(name), node.next()?.to_vec()));
        }
        check_elements(node, ENTRY_ELEMENTS + fields.len())?;
    } else {
        for _ in 0..node.count()? {
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
        let inner = node.count()?.checked_mul(2).ok_or(ENDS_EARLY)?;
        (inner.checked_add(ENTRY_ELEMENTS + 1).ok_or(ENDS_EARLY)?, inner)
    };
    for _ in 0..inner {
        node.next()?;
    }
    check_elements(node, elements)
}

/// The number of elements that closes an entry, so that it can be read backwards.
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
    if version >= 5 {
        for _ in 0..reader.count(16)? {
            own(&mut pending, reader.raw_id()?, RELEASED)?;
        }
    }
    if pending.iter().any(|entry| entry.consumer == UNOWNED) {
        return Err("a group has an entry pending for nobody");
    }
    let (released, pel) = pending.into_iter().partition(|entry| entry.consumer == RELEASED);
    Ok(RdbGroup { name, last_id, entries_read, pel, released, consumers })
}

/// While a group is read: an entry that no consumer has claimed yet.
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
    if !consumers.is_empty() {
        distinct(&consumers, |consumer: &RdbConsumer| &consumer.name)?;
    }
    Ok(consumers)
}

/// A time that is shown to clients; before 1970 is as good as 1970.
fn time_ms(reader: &mut Reader<'_>) -> Parsed<u64> {
    Ok(u64::try_from(reader.i64()?).unwrap_or(0))
}

/// Gives a pending entry its one owner.
fn own(pending: &mut [RdbPending], id: RdbStreamId, owner: usize) -> Parsed<()> {
    let found = pending.binary_search_by_key(&id, |entry| entry.id).map_err(|_| "an entry is pending for one only")?;
    if pending[found].consumer != UNOWNED {
        return Err("an entry is pending for two");
    }
    pending[found].consumer = owner;
    Ok(())
}

/// How many entries a group has read that does not say so: known at the ends of a stream without gaps only.
fn estimate_read(entries: &[RdbEntry], meta: &RdbStreamMeta, id: RdbStreamId) -> Option<u64> {
    let Some((first, _)) = entries.first() else {
        return (meta.entries_added == 0 || id <= meta.last_id).then_some(meta.entries_added);
    };
    match id {
        id if id == meta.last_id => Some(meta.entries_added),
        id if id > meta.last_id => None,
        id if id < *first => Some(meta.entries_added - entries.len() as u64),
        id if id == *first => Some(meta.entries_added - entries.len() as u64 + 1),
        _ => None,
    }
}

/// What makes XADD idempotent in Redis 8.6; there is no such thing here.
fn skip_idempotency(reader: &mut Reader<'_>) -> Parsed<()> {
    // For how long and for how many entries.
    reader.id()?;
    for _ in 0..reader.count(2)? {
        reader.string()?;
        for _ in 0..reader.count(3)? {
            reader.string()?;
            reader.id()?;
        }
    }
    // How many were added, how many were duplicates.
    reader.id()?;
    Ok(())
}

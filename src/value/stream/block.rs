//! A block of stream entries: one listpack, byte for byte a node of Redis' streams.
//!
//! ```text
//! master   live | deleted | n | name × n | 0
//! entry    flags | ms − master ms | seq − master seq | n | (name | value) × n | elements before this one
//!          flags | ms − master ms | seq − master seq | value × n              | elements before this one
//!
//! flags    1 deleted, 2 its names are those of the master (the second form), which is the block's first entry
//! ```
//!
//! Each part between bars is an element. Differences are modulo 2^64. The last element of an entry is the number of
//! elements before it, so that entries can be read backwards.
//!
//! Invariants:
//! - At least one entry is live, or the block is about to be removed.
//! - Ids rise from entry to entry, deleted ones included, and none is below the master's.
//! - A deleted entry keeps its bytes until the whole block is removed. As in Redis, the effect of approximate
//!   trimming and the start of a new block depend on them.

use std::ops::Range;

use super::{StreamId, Trim};
use crate::value::Limits;
use crate::value::listpack::{self, Item, Listpack, ListpackBuf, Pos};
use crate::value::tree::{Leaf, Where};

const DELETED: i64 = 1;
const SAME_NAMES: i64 = 2;
/// Elements of an entry besides its fields: flags and two differences,
const ENTRY_ELEMENTS: usize = 3;
/// and one more, the number of fields, if its names are its own.
const OWN_NAMES_ELEMENTS: usize = ENTRY_ELEMENTS + 1;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Block {
    master: StreamId,
    /// Its first element is the number of live entries, which is stored only there, because there are many blocks.
    list: ListpackBuf,
}

/// The content of the master entry, and where the entries begin.
struct Master<'a> {
    deleted: i64,
    names: listpack::Iter<'a>,
    names_len: usize,
    /// The position of the element that ends the master entry.
    end: Pos,
    first: Option<Pos>,
}

/// One entry, as stored in its block.
#[derive(Clone, Debug)]
pub(super) struct Raw<'a> {
    flags: i64,
    pub(super) entry: Entry<'a>,
    pub(super) next: Option<Pos>,
}

impl Raw<'_> {
    pub(super) fn is_live(&self) -> bool {
        self.flags & DELETED == 0
    }
}

/// An entry of a stream.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    fields: Fields<'a>,
}

impl<'a> Entry<'a> {
    /// How many fields it has.
    #[allow(clippy::len_without_is_empty)] // there is always a field
    pub fn len(&self) -> usize {
        self.fields.left
    }

    /// Its fields: names with values.
    pub fn fields(&self) -> Fields<'a> {
        self.fields.clone()
    }
}

/// The fields of an entry.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The names, if they are the master's.
    names: Option<listpack::Iter<'a>>,
    rest: listpack::Iter<'a>,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Item<'a>, Item<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = match &mut self.names {
            Some(names) => names.next()?,
            None => self.rest.next()?,
        };
        Some((name, self.rest.next()?))
    }
}

impl Block {
    /// A block of one entry, whose fields are alternating names and values.
    pub(super) fn new<'f>(id: StreamId, fields: impl Iterator<Item = &'f [u8]> + Clone) -> Block {
        let count = fields.clone().count() / 2;
        let mut list = ListpackBuf::new();
        for number in [0, 0, count as i64] {
            list.push_back(number);
        }
        list.extend(fields.clone().step_by(2));
        list.push_back(0);
        let mut block = Block { master: id, list };
        block.append(id, fields);
        block
    }

    /// The id of its first entry, deleted or not.
    pub(super) fn master(&self) -> StreamId {
        self.master
    }

    /// Its bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.list.as_bytes()
    }

    /// Whether another entry with this many bytes of names and values belongs into it.
    pub(super) fn has_room(&self, text_bytes: usize, limits: &Limits) -> bool {
        let bytes_max = match limits.stream_node_max_bytes {
            0 => listpack::BYTES_MAX,
            max => max.min(listpack::BYTES_MAX),
        };
        let entries_max = limits.stream_node_max_entries;
        self.list.encoded_len() + text_bytes < bytes_max
            && (entries_max == 0 || self.live() + (self.master_entry().deleted as usize) < entries_max)
    }

    /// Gives back the memory reserved for more entries: no more will be added.
    pub(super) fn shrink(&mut self) {
        self.list.shrink_to_fit();
    }

    /// Adds an entry behind all others.
    pub(super) fn append<'f>(&mut self, id: StreamId, fields: impl Iterator<Item = &'f [u8]> + Clone) {
        let master = self.master_entry();
        let mut names = master.names.take(master.names_len);
        let mut given = fields.clone().step_by(2);
        let mut count = 0;
        let same = given.by_ref().inspect(|_| count += 1).all(|name| names.next().is_some_and(|own| own.is(name)))
            && names.next().is_none();
        count += given.count();
        let list = &mut self.list;
        list.push_back(if same { SAME_NAMES } else { 0 });
        list.push_back(id.ms.wrapping_sub(self.master.ms) as i64);
        list.push_back(id.seq.wrapping_sub(self.master.seq) as i64);
        if same {
            list.extend(fields.skip(1).step_by(2));
            list.push_back((ENTRY_ELEMENTS + count) as i64);
        } else {
            list.push_back(count as i64);
            list.extend(fields);
            list.push_back((OWN_NAMES_ELEMENTS + 2 * count) as i64);
        }
        self.write_counts(self.live() + 1, 0);
    }

    /// How many entries are live.
    fn live(&self) -> usize {
        self.list.as_listpack().iter().next().and_then(Item::to_i64).map_or(0, |live| live as usize)
    }

    /// Writes how many entries are live, and adds to the number of deleted ones.
    fn write_counts(&mut self, live: usize, deleted_more: usize) {
        let Some(first) = self.list.as_listpack().first() else { return };
        self.list.replace(first, live as i64);
        if deleted_more > 0 {
            let deleted = self.master_entry().deleted + deleted_more as i64;
            if let Some(second) = self.list.as_listpack().next(first) {
                self.list.replace(second, deleted);
            }
        }
    }

    fn master_entry(&self) -> Master<'_> {
        read_master(self.list.as_listpack()).expect("a block has its master")
    }

    /// Where the first entry is, deleted or not.
    pub(super) fn first(&self) -> Option<Pos> {
        self.master_entry().first
    }

    /// Where the last entry is, deleted or not.
    pub(super) fn last(&self) -> Option<Pos> {
        self.entry_before(self.list.as_listpack().last()?)
    }

    /// Where the entry before the one at `at` is.
    pub(super) fn previous(&self, at: Pos) -> Option<Pos> {
        self.entry_before(self.list.as_listpack().prev(at)?)
    }

    /// Where the entry begins whose last element is at `counted`.
    fn entry_before(&self, counted: Pos) -> Option<Pos> {
        let list = self.list.as_listpack();
        let elements = list.get_at(counted).to_i64()?;
        if elements <= 0 {
            return None;
        }
        (0..elements).try_fold(counted, |at, _| list.prev(at))
    }

    /// The entry at a place.
    #[inline]
    pub(super) fn read(&self, at: Pos) -> Option<Raw<'_>> {
        let list = self.list.as_listpack();
        let mut rest = list.iter_from(at);
        let flags = rest.next()?.to_i64()?;
        let ms = rest.next()?.to_i64()?;
        let seq = rest.next()?.to_i64()?;
        let id = StreamId::new(self.master.ms.wrapping_add(ms as u64), self.master.seq.wrapping_add(seq as u64));
        let (names, left, elements) = if flags & SAME_NAMES != 0 {
            let master = read_master(list)?;
            (Some(master.names), master.names_len, master.names_len)
        } else {
            let count = usize::try_from(rest.next()?.to_i64()?).ok()?;
            (None, count, count.checked_mul(2)?)
        };
        let fields = Fields { names, rest: rest.clone(), left };
        // The element that ends the entry is skipped, too.
        rest.nth(elements)?;
        Some(Raw { flags, entry: Entry { id, fields }, next: rest.front_pos() })
    }

    /// The positions of all entries, with the entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Pos, Raw<'_>)> {
        let mut next = self.first();
        std::iter::from_fn(move || {
            let at = next?;
            let raw = self.read(at)?;
            next = raw.next;
            Some((at, raw))
        })
    }

    /// The live entry of an id.
    pub(super) fn find(&self, id: StreamId) -> Option<(Pos, Raw<'_>)> {
        self.entries().find(|(_, raw)| raw.entry.id >= id).filter(|(_, raw)| raw.entry.id == id && raw.is_live())
    }

    /// The ids of the entries that are not deleted.
    pub(super) fn live_ids(&self) -> impl Iterator<Item = StreamId> {
        self.entries().filter(|(_, raw)| raw.is_live()).map(|(_, raw)| raw.entry.id)
    }

    /// Whether all of it may be trimmed from a stream with this many entries left.
    pub(super) fn may_go_whole(&self, trim: Trim, left: u64) -> bool {
        match trim {
            Trim::MaxLen(max) => left - self.live() as u64 >= max,
            Trim::MinId(min) => self.last().and_then(|at| self.read(at)).is_some_and(|raw| raw.entry.id < min),
        }
    }

    /// Marks the live entry at a place as deleted.
    pub(super) fn delete_at(&mut self, at: Pos) {
        let flags = self.list.as_listpack().get_at(at).to_i64().unwrap_or(0);
        self.list.replace(at, flags | DELETED);
        self.write_counts(self.live() - 1, 1);
    }

    /// Takes a block's bytes from outside; `None` if they are not a block. Ids must rise, and every entry must have
    /// fields.
    pub(super) fn parse(master: StreamId, bytes: &[u8]) -> Option<Block> {
        let list = Listpack::parse(bytes)?;
        let head = read_master(list)?;
        let live = u32::try_from(list.iter().next()?.to_i64()?).ok().filter(|live| *live > 0)?;
        let claimed_deleted = head.deleted;
        if list.get_at(head.end).to_i64() != Some(0) || head.names_len == 0 {
            return None;
        }
        let block = Block { master, list: ListpackBuf::from(list) };
        let (mut next, mut before, mut counts) = (head.first, None, (0u32, 0i64));
        while let Some(at) = next {
            let raw = block.read(at)?;
            let fields = raw.entry.len();
            let same = raw.flags & SAME_NAMES != 0;
            let elements = if same { ENTRY_ELEMENTS + fields } else { OWN_NAMES_ELEMENTS + 2 * fields };
            let mut rest = list.iter_from(at);
            let closing = rest.nth(elements)?.to_i64()?;
            if !(0..=3).contains(&raw.flags) || fields == 0 || usize::try_from(closing) != Ok(elements) {
                return None;
            }
            let id = raw.entry.id;
            if before.is_some_and(|before| id <= before) || id < master {
                return None;
            }
            (before, next) = (Some(id), raw.next);
            counts = if raw.is_live() { (counts.0 + 1, counts.1) } else { (counts.0, counts.1 + 1) };
        }
        (counts == (live, claimed_deleted)).then_some(block)
    }

    /// Panics if an invariant is broken.
    pub(super) fn check_invariants(&self) {
        assert!(Block::parse(self.master, self.as_bytes()).is_some());
    }
}

#[inline]
fn read_master(list: Listpack<'_>) -> Option<Master<'_>> {
    let mut rest = list.iter();
    rest.next()?;
    let deleted = rest.next()?.to_i64().filter(|deleted| *deleted >= 0)?;
    let names_len = usize::try_from(rest.next()?.to_i64()?).ok()?;
    let names = rest.clone();
    if names_len > 0 {
        rest.nth(names_len - 1)?;
    }
    let end = rest.front_pos()?;
    rest.next()?;
    Some(Master { deleted, names, names_len, end, first: rest.front_pos() })
}

impl Leaf for Block {
    type Key = StreamId;

    fn first_key(&self) -> StreamId {
        self.master
    }

    fn len(&self) -> usize {
        self.live()
    }

    fn bytes(&self) -> usize {
        self.list.encoded_len()
    }

    // Blocks are never split or merged, because approximate trimming reveals their borders.
    fn is_overfull(&self) -> bool {
        false
    }

    fn is_sparse(&self) -> bool {
        false
    }

    fn fits_with(&self, _next: &Self) -> bool {
        false
    }

    fn split(&mut self, _at: Where) -> Self {
        unreachable!("a block is never overfull")
    }

    fn append(&mut self, _next: &Self) {
        unreachable!("a block fits with none")
    }

    fn remove_range(&mut self, range: Range<usize>) {
        let live = self.entries().filter(|(_, raw)| raw.is_live()).map(|(at, _)| at);
        let going: Vec<Pos> = live.skip(range.start).take(range.len()).collect();
        let deleted = going.len();
        for at in going {
            // Flags always take one byte, so positions stay valid.
            let flags = self.list.as_listpack().get_at(at).to_i64().unwrap_or(0);
            self.list.replace(at, flags | DELETED);
        }
        self.write_counts(self.live() - deleted, deleted);
    }
}

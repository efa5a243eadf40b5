//! Streams: entries by rising ids, in blocks, and the groups that consume them.
//!
//! ```text
//! stream ─┬ tree of blocks, by the id of each one's first entry: see `block`
//!         ├ groups by name ─┬ pending entries by id
//!         │                 └ consumers by name ─ the ids of those that are theirs
//!         └ what makes XADD idempotent, if anything does: see `idempotency`
//! ```
//!
//! All of it is copy-on-write. A clone is cheap at any size, and a later XADD or XACK copies one block or run and the
//! nodes above it.
//!
//! Invariants:
//! - The ids of entries rise over all blocks and do not exceed `last_id`.
//! - `blocks` is the number of blocks.
//! - A stream may be empty; its key stays.

mod block;
mod encoding;
mod group;
mod id;
mod idempotency;
mod ordered;
mod range;
mod references;
mod released;

pub use block::{Entry, Fields};
pub use group::{COUNT_MAX, Claim, Consumer, Count, Group, Owned, Pending};
pub use id::{IdText, StreamId};
pub use idempotency::{Idempotency, Known, Window};
pub use ordered::{Items, Ordered};
pub use range::{Backward, Forward};
pub use references::{Deletion, RefPolicy};

use block::Block;

use super::Limits;
use super::collection::{Collection, Finished, Stored};
use super::entry::{Heap, HeapMut, Kind, ValueRef};
use super::listpack;
use super::tree::{Leaf, Tree, Where};

/// How a stream is trimmed at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// Until this many entries are left.
    MaxLen(u64),
    /// Until no entry below this id is left.
    MinId(StreamId),
}

/// See the module. A clone shares everything.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    entries: Tree<Block>,
    blocks: usize,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
    groups: Ordered<Group>,
    idempotency: Option<Box<Idempotency>>,
}

/// How many blocks [`Stream::radix_nodes`] counts.
const NODES_COUNTED: usize = 4096;

/// The number of nodes of a radix tree that joins chains of single children: one for each key, one for each branch,
/// and one for each chain in between.
fn radix_nodes(mut keys: impl Iterator<Item = StreamId>) -> usize {
    const KEY_BYTES: u32 = 16;
    let bits = |id: StreamId| u128::from(id.ms) << 64 | u128::from(id.seq);
    let chain = |from: u32, to: u32| usize::from(to > from + 1);
    let Some(mut before) = keys.next().map(bits) else { return 1 };
    let (mut nodes, mut partings, mut shared_before) = (1, Vec::<u32>::new(), None::<u32>);
    for key in keys.map(bits) {
        let shared = (before ^ key).leading_zeros() / 8;
        nodes += 1 + chain(shared_before.unwrap_or(0).max(shared), KEY_BYTES);
        while let Some(depth) = partings.pop_if(|depth| *depth > shared) {
            nodes += chain(partings.last().copied().unwrap_or(0).max(shared), depth);
        }
        if partings.last() != Some(&shared) {
            partings.push(shared);
            nodes += 1;
        }
        (before, shared_before) = (key, Some(shared));
    }
    while let Some(depth) = partings.pop() {
        nodes += match partings.last() {
            Some(above) => chain(*above, depth),
            None => usize::from(depth > 0),
        };
    }
    nodes + shared_before.map_or(1, |shared| chain(shared, KEY_BYTES))
}

/// The figures that group counters are computed from.
#[derive(Clone, Copy, Debug)]
struct Extent {
    len: u64,
    first: StreamId,
    last: StreamId,
    max_deleted: StreamId,
    added: u64,
}

impl Extent {
    /// Whether an entry behind `start` may have been deleted.
    fn has_gap_behind(&self, start: StreamId) -> bool {
        self.len > 0 && self.max_deleted != StreamId::MIN && start <= self.max_deleted
    }

    /// How many entries were ever added up to this one, if that is known.
    fn count_up_to(&self, id: StreamId) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last {
            return Some(self.added);
        }
        if id != StreamId::MIN && id < self.max_deleted {
            return None;
        }
        if id >= self.last {
            return (id == self.last).then_some(self.added);
        }
        if self.max_deleted != StreamId::MIN && self.max_deleted >= self.first {
            return None;
        }
        match id.cmp(&self.first) {
            std::cmp::Ordering::Less => Some(self.added.wrapping_sub(self.len)),
            std::cmp::Ordering::Equal => Some(self.added.wrapping_sub(self.len).wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// The count after one more entry was delivered.
    fn count_after(&self, read: Option<u64>, last_delivered: StreamId, id: StreamId) -> Option<u64> {
        match read {
            Some(read) if last_delivered >= self.first && !self.has_gap_behind(last_delivered) => {
                Some(read.wrapping_add(1))
            }
            read if self.added == 0 => read,
            _ => self.count_up_to(id),
        }
    }
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// How many entries there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The largest id ever used.
    #[inline]
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The largest id that was deleted individually.
    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// How many entries were ever added.
    pub fn entries_added(&self) -> u64 {
        self.entries_added
    }

    /// How many blocks there are.
    pub fn blocks_len(&self) -> usize {
        self.blocks
    }

    /// The blocks: the first id of each, and the bytes of its listpack, which are those of Redis' nodes.
    pub fn blocks(&self) -> impl Iterator<Item = (StreamId, &[u8])> {
        self.entries.leaves().map(|block| (block.master(), block.as_bytes()))
    }

    /// How many nodes Redis' radix tree of the blocks would have: counted for the first `NODES_COUNTED` blocks,
    /// estimated for the rest.
    pub fn radix_nodes(&self) -> usize {
        if self.blocks == 0 {
            return 1;
        }
        let masters = self.entries.leaves().take(NODES_COUNTED).map(Block::master);
        let counted = radix_nodes(masters);
        if self.blocks <= NODES_COUNTED { counted } else { counted * self.blocks / NODES_COUNTED }
    }

    /// An estimate of its bytes, without a walk, for the decision to free it on another thread.
    pub fn bytes(&self) -> usize {
        let idempotency = self.idempotency.as_ref().map_or(0, |idempotency| idempotency.bytes());
        size_of::<Stream>() + self.entries.bytes() + self.groups.bytes() + idempotency
    }

    /// The first entry, if there is one.
    pub fn first(&self) -> Option<Entry<'_>> {
        self.range(StreamId::MIN, StreamId::MAX).next()
    }

    /// The last entry.
    pub fn last(&self) -> Option<Entry<'_>> {
        self.range_back(StreamId::MIN, StreamId::MAX).next()
    }

    /// An entry.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        let (block, _) = self.entries.locate_by(|master| *master <= id)?;
        block.find(id).map(|(_, raw)| raw.entry)
    }

    /// The entries from one id to another, inclusive.
    pub fn range(&self, start: StreamId, end: StreamId) -> Forward<'_> {
        Forward::new(&self.entries, start, end)
    }

    /// The same from the last to the first.
    pub fn range_back(&self, start: StreamId, end: StreamId) -> Backward<'_> {
        Backward::new(&self.entries, start, end)
    }

    /// Adds an entry whose id is above all others. Its fields are alternating names and values. Returns false and
    /// does nothing if the entry is too large.
    pub fn append<'f>(
        &mut self,
        id: StreamId,
        fields: impl Iterator<Item = &'f [u8]> + Clone,
        limits: &Limits,
    ) -> bool {
        debug_assert!(id > self.last_id);
        let text_bytes: usize = fields.clone().map(<[u8]>::len).sum();
        if text_bytes > listpack::BYTES_MAX {
            return false;
        }
        let appended = self.entries.edit_at(self.entries.len(), |block, _| {
            let has_room = block.has_room(text_bytes, limits);
            if has_room {
                block.append(id, fields.clone());
            } else {
                block.shrink();
            }
            (has_room, Where::Back)
        });
        if appended != Some(true) {
            self.entries.add_leaf(Block::new(id, fields), true);
            self.blocks += 1;
        }
        self.last_id = id;
        self.entries_added = self.entries_added.wrapping_add(1);
        true
    }

    /// Deletes an entry. Returns whether it existed.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some((block, _)) = self.entries.locate_by(|master| *master <= id) else { return false };
        let Some((at, _)) = block.find(id) else { return false };
        self.blocks -= usize::from(block.len() == 1);
        self.entries.edit_by(
            |master| *master <= id,
            |block, _| {
                block.delete_at(at);
                ((), Where::Middle)
            },
        );
        self.max_deleted_id = self.max_deleted_id.max(id);
        true
    }

    /// Trims the stream at its beginning. With `whole_blocks`, only whole blocks are removed, and at most about
    /// `limit` entries unless that is 0. Returns how many entries were removed.
    pub fn trim(&mut self, trim: Trim, whole_blocks: bool, limit: u64) -> u64 {
        let (going, blocks_going) = self.to_trim(trim, whole_blocks, limit);
        self.remove_first(going, blocks_going)
    }

    /// Removes the first `going` entries, among them `blocks_going` whole blocks. Returns how many entries were
    /// removed.
    fn remove_first(&mut self, going: u64, blocks_going: usize) -> u64 {
        if going > 0 {
            self.entries.remove_range(0..going as usize);
            self.blocks -= blocks_going;
        }
        going
    }

    /// How many entries, and whole blocks, [`Stream::trim`] removes.
    fn to_trim(&self, trim: Trim, whole_blocks: bool, limit: u64) -> (u64, usize) {
        let (mut going, mut blocks_going, len) = (0u64, 0, self.len() as u64);
        for block in self.entries.leaves() {
            if let Trim::MaxLen(max) = trim
                && len - going <= max
            {
                break;
            }
            let here = block.len() as u64;
            if limit > 0 && going + here > limit {
                break;
            }
            if block.may_go_whole(trim, len - going) {
                (going, blocks_going) = (going + here, blocks_going + 1);
                continue;
            }
            if !whole_blocks {
                let part = match trim {
                    Trim::MaxLen(max) => len - going - max,
                    Trim::MinId(min) => {
                        let below = block.entries().take_while(|(_, raw)| raw.entry.id < min);
                        below.filter(|(_, raw)| raw.is_live()).count() as u64
                    }
                };
                going += part;
                blocks_going += usize::from(part == here);
            }
            break;
        }
        (going, blocks_going)
    }

    /// Sets what XSETID sets. A `None` leaves the old value.
    pub fn set_ids(&mut self, last_id: StreamId, entries_added: Option<u64>, max_deleted_id: Option<StreamId>) {
        self.last_id = last_id;
        self.entries_added = entries_added.unwrap_or(self.entries_added);
        self.max_deleted_id = max_deleted_id.unwrap_or(self.max_deleted_id);
    }

    fn extent(&self) -> Extent {
        Extent {
            len: self.len() as u64,
            first: self.first().map_or(StreamId::MIN, |entry| entry.id),
            last: self.last_id,
            max_deleted: self.max_deleted_id,
            added: self.entries_added,
        }
    }
}

/// Idempotent producers.
impl Stream {
    /// What is remembered of producers, if the stream has ever had any, or a window of its own.
    pub fn idempotency(&self) -> Option<&Idempotency> {
        self.idempotency.as_deref()
    }

    /// The same, to be changed; with this window if there was nothing.
    pub fn idempotency_mut(&mut self, window: Window) -> &mut Idempotency {
        self.idempotency.get_or_insert_with(|| Box::new(Idempotency::new(window)))
    }

    /// Replaces all that is remembered.
    pub fn set_idempotency(&mut self, idempotency: Idempotency) {
        self.idempotency = Some(Box::new(idempotency));
    }
}

/// Groups.
impl Stream {
    /// How many groups there are.
    pub fn groups_len(&self) -> usize {
        self.groups.len()
    }

    /// The groups, by name.
    pub fn groups(&self) -> Items<'_, Group> {
        self.groups.iter()
    }

    /// A group.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Changes a group.
    pub fn edit_group<R>(&mut self, name: &[u8], edit: impl FnOnce(&mut Group) -> R) -> Option<R> {
        self.groups.edit(name, edit)
    }

    /// Adds a group unless one of that name exists.
    pub fn add_group(&mut self, name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> bool {
        if self.groups.get(name).is_some() {
            return false;
        }
        self.groups.insert(name, Group::new(name, last_id, entries_read));
        true
    }

    /// Adds a group with all its content: consumers with distinct names, each with its times of being seen and
    /// active, and pending entries by rising ids, each with time and number of deliveries and the index of its
    /// consumer. Returns false and does nothing if the parts contradict each other.
    pub fn restore_group<'n>(
        &mut self,
        (name, last_id, entries_read): (&[u8], StreamId, Option<u64>),
        consumers: impl IntoIterator<Item = (&'n [u8], i64, i64)>,
        pending: impl IntoIterator<Item = (StreamId, i64, u64, usize)>,
    ) -> bool {
        let mut group = Group::new(name, last_id, entries_read);
        let is_new = self.groups.get(name).is_none();
        if !is_new || !group.restore(consumers, pending) {
            return false;
        }
        self.groups.insert(name, group);
        true
    }

    /// Removes a group.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name).is_some()
    }

    /// How many entries a group has yet to read, if that is known. Counters that a client has set can make it
    /// negative.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        let extent = self.extent();
        if extent.added == 0 || extent.len == 0 {
            return Some(0);
        }
        if group.last_id < extent.first && extent.max_deleted < extent.first {
            return Some(extent.len as i64);
        }
        let read = group.entries_read.filter(|_| !extent.has_gap_behind(group.last_id));
        Some(extent.added.wrapping_sub(read.or_else(|| extent.count_up_to(group.last_id))?) as i64)
    }

    /// Delivers the next entries of a group to a consumer, which is added if it does not exist: up to `count`, or all
    /// if that is `None`. With `keep` they become pending for it. Returns the id before the first of them, and their
    /// number.
    pub fn deliver(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        count: Option<usize>,
        now: i64,
        keep: bool,
    ) -> (StreamId, usize) {
        let Some(after) = self.groups.get(group).map(|group| group.last_id) else { return (StreamId::MAX, 0) };
        let extent = self.extent();
        let next = after.next().map(|start| self.range(start, StreamId::MAX));
        let ids: Vec<StreamId> =
            next.into_iter().flatten().take(count.unwrap_or(usize::MAX)).map(|entry| entry.id).collect();
        self.groups.edit(group, |group| {
            group.see(consumer, now);
            for id in &ids {
                group.entries_read = extent.count_after(group.entries_read, group.last_id, *id);
                group.last_id = *id;
            }
            if keep {
                group.give(consumer, &ids, now);
            }
        });
        (after, ids.len())
    }

    /// Delivers to a consumer again what is pending for it after an id: up to `count` entries, or all. Returns the
    /// ids. A pending entry whose stream entry is gone stays unchanged.
    pub fn deliver_again(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        after: StreamId,
        count: Option<usize>,
        now: i64,
    ) -> Vec<StreamId> {
        let entries = &self.entries;
        let exists = |id| entries.locate_by(|master| *master <= id).is_some_and(|(block, _)| block.find(id).is_some());
        let again = |group: &mut Group| {
            group.see(consumer, now);
            let own = group.consumer(consumer).zip(after.next()).map(|(own, start)| own.pending.iter_from(&start));
            let ids: Vec<StreamId> =
                own.into_iter().flatten().take(count.unwrap_or(usize::MAX)).map(|owned| owned.0).collect();
            for id in ids.iter().filter(|id| exists(**id)) {
                group.deliver_again(*id, now);
            }
            ids
        };
        self.groups.edit(group, again).unwrap_or_default()
    }

    /// Gives entries to a consumer, which is added if it does not exist. An entry that is pending although it was
    /// deleted ceases to be pending. `claims` says for each pending entry whether it may be taken. Returns the ids
    /// that the consumer owns now, and the ids that were dropped.
    pub fn claim(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        ids: impl IntoIterator<Item = StreamId>,
        claim: &Claim,
        mut claims: impl FnMut(&Pending) -> bool,
    ) -> (Vec<StreamId>, Vec<StreamId>) {
        let entries = &self.entries;
        let exists = |id| entries.locate_by(|master| *master <= id).is_some_and(|(block, _)| block.find(id).is_some());
        let (mut claimed, mut gone) = (Vec::new(), Vec::new());
        self.groups.edit(group, |group| {
            group.see(consumer, claim.now);
            for id in ids {
                if !exists(id) {
                    if group.acknowledge(id) {
                        gone.push(id);
                    }
                } else if group.pending.get(&id).is_none_or(&mut claims) && group.claim(consumer, id, claim) {
                    claimed.push(id);
                }
            }
        });
        (claimed, gone)
    }

    /// Hands pending entries of a group back to it, each delivered as often as `count` makes of the number so far. With
    /// `force`, entries that are not pending become so, never delivered. Returns what became of whom.
    pub fn release(
        &mut self,
        group: &[u8],
        ids: &[StreamId],
        force: bool,
        count: impl Fn(u64) -> u64,
    ) -> Vec<(StreamId, u64)> {
        let entries = &self.entries;
        let exists = |id| entries.locate_by(|master| *master <= id).is_some_and(|(block, _)| block.find(id).is_some());
        let mut released = Vec::new();
        self.groups.edit(group, |group| {
            for id in ids {
                let before = group.pending.get(id).map(|pending| pending.count);
                let Some(before) = before.or_else(|| (force && exists(*id)).then_some(0)) else { continue };
                group.release(*id, count(before));
                released.push((*id, count(before)));
            }
        });
        released
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        self.entries.check_invariants();
        self.entries.leaves().for_each(Block::check_invariants);
        assert_eq!(self.entries.leaves().count(), self.blocks);
        let ids: Vec<StreamId> = self.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).collect();
        assert_eq!(ids.len(), self.len());
        assert!(ids.windows(2).all(|two| two[0] < two[1]) && ids.last().is_none_or(|last| *last <= self.last_id));
        self.groups.check_invariants(|one, two| one.name[..] < two.name[..]);
        self.groups.iter().for_each(Group::check_invariants);
        self.idempotency().into_iter().for_each(Idempotency::check_invariants);
    }
}

/// A stream, for editing.
#[derive(Debug)]
pub enum StreamMut<'a> {
    /// A new stream.
    Fresh(Box<Stream>),
    /// A stream stored at a key.
    Large(&'a mut Stream),
}

impl std::ops::Deref for StreamMut<'_> {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        match self {
            StreamMut::Fresh(stream) => stream,
            StreamMut::Large(stream) => stream,
        }
    }
}

impl std::ops::DerefMut for StreamMut<'_> {
    fn deref_mut(&mut self) -> &mut Stream {
        match self {
            StreamMut::Fresh(stream) => stream,
            StreamMut::Large(stream) => stream,
        }
    }
}

/// The type of streams.
#[derive(Debug)]
pub struct AnyStream;

impl Collection for AnyStream {
    type Ref<'a> = &'a Stream;
    type Mut<'a> = StreamMut<'a>;

    fn is(kind: Kind) -> bool {
        kind == Kind::Stream
    }

    #[inline]
    fn view(value: ValueRef<'_>) -> Option<&Stream> {
        match value {
            ValueRef::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    fn edit<'a>(stored: Stored<'a>, _limits: &Limits) -> Option<StreamMut<'a>> {
        match stored {
            Stored::Missing(_) => Some(StreamMut::Fresh(Box::default())),
            Stored::Large(HeapMut::Stream(stream)) => Some(StreamMut::Large(stream)),
            _ => None,
        }
    }

    fn finish(edited: StreamMut<'_>) -> Finished {
        match edited {
            StreamMut::Fresh(stream) => Finished::Large(Heap::Stream(triomphe::Arc::new(*stream))),
            StreamMut::Large(_) => Finished::InPlace,
        }
    }
}

#[cfg(test)]
mod tests;

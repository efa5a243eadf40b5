//! References of groups to entries, and deletion that respects them.
//!
//! A group refers to entries that it has delivered and that are not acknowledged, and to entries that it has yet to
//! deliver. A reference of the first kind can outlive the entry: it stays pending until it is acknowledged.
//!
//! Invariants:
//! - References are looked up by id in each group, never by a walk over all pending entries.
//! - Trimming does not raise `max_deleted_id`, whatever it leaves in between. No group has yet to read what it
//!   removes, so no count of a group becomes wrong.

use std::ops::Range;

use super::{Group, Pending, Stream, StreamId, Trim};
use crate::value::tree::Leaf;

/// What a deletion does to an entry and to the references of groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefPolicy {
    /// The entry is removed. Where it is pending, it stays so.
    #[default]
    KeepRef,
    /// The entry is removed, also from all pending lists.
    DelRef,
    /// The entry stays as long as any group refers to it.
    Acked,
}

/// The result of deleting an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// There is no such entry.
    Missing,
    /// It was deleted.
    Deleted,
    /// Some group still refers to its id.
    Referenced,
}

/// What trimming removes, by positions among all entries.
#[derive(Debug, Default)]
struct Going {
    runs: Vec<Range<usize>>,
    entries: u64,
    blocks: usize,
    last: Option<StreamId>,
}

impl Going {
    fn add(&mut self, place: usize, id: StreamId) {
        match self.runs.last_mut() {
            Some(run) if run.end == place => run.end += 1,
            _ => self.runs.push(place..place + 1),
        }
        self.entries += 1;
        self.last = Some(id);
    }
}

impl Stream {
    /// Whether any group has an entry of this id pending, or has yet to deliver it.
    pub fn is_referenced(&self, id: StreamId) -> bool {
        self.groups().any(|group| id > group.last_id || group.pending.get(&id).is_some())
    }

    /// Removes an entry of this id from the pending lists of all groups. Returns whether it was in any.
    fn drop_references(&mut self, id: StreamId) -> bool {
        let holds = |group: &&Group| group.pending.get(&id).is_some();
        let names: Vec<_> = self.groups().filter(holds).map(|group| group.name.clone()).collect();
        for name in &names {
            self.edit_group(name, |group| group.acknowledge(id));
        }
        !names.is_empty()
    }

    /// Nothing of these ids is pending in any group any more.
    pub fn forget(&mut self, ids: impl Iterator<Item = StreamId>) {
        for id in ids {
            self.drop_references(id);
        }
    }

    /// Nothing up to this id is pending in any group any more.
    pub fn forget_up_to(&mut self, id: StreamId) {
        self.drop_references_before(id.next());
    }

    /// Deletes an entry by a policy. Returns the result, and whether anything has changed.
    pub fn delete_by(&mut self, id: StreamId, policy: RefPolicy) -> (Deletion, bool) {
        if policy == RefPolicy::Acked && self.is_referenced(id) {
            return (Deletion::Referenced, false);
        }
        let dropped = policy == RefPolicy::DelRef && self.drop_references(id);
        match self.delete(id) {
            true => (Deletion::Deleted, true),
            false => (Deletion::Missing, dropped),
        }
    }

    /// Trims like [`Stream::trim`], including parts of blocks, and drops all pending entries before the new
    /// beginning, whether they were removed now or deleted earlier. With [`Trim::MinId`] those are the entries below
    /// the id and below every remaining entry. With [`Trim::MaxLen`] they are the entries below the first remaining
    /// one, and only if an entry was removed. Returns how many entries were removed, and how many ids the groups
    /// dropped.
    pub fn trim_with_references(&mut self, trim: Trim, limit: u64) -> (u64, u64) {
        let (going, blocks_going) = self.to_trim(trim, false, limit);
        self.remove_first(going, blocks_going);
        let first = self.first().map(|entry| entry.id);
        let beginning = match trim {
            Trim::MaxLen(_) if going == 0 => return (0, 0),
            Trim::MaxLen(_) => first,
            Trim::MinId(min) => Some(first.map_or(min, |first| first.min(min))),
        };
        (going, self.drop_references_before(beginning))
    }

    /// Removes entries below an id, or all if that is `None`, from the pending lists of all groups. Returns how many
    /// ids the groups dropped.
    fn drop_references_before(&mut self, beginning: Option<StreamId>) -> u64 {
        let is_before = |pending: &&Pending| beginning.is_none_or(|beginning| pending.id < beginning);
        let before = |group: &Group| -> Vec<StreamId> {
            group.pending.iter().take_while(is_before).map(|pending| pending.id).collect()
        };
        let dropped = self.groups().map(|group| (group.name.clone(), before(group)));
        let dropped: Vec<_> = dropped.filter(|(_, ids)| !ids.is_empty()).collect();
        for (name, ids) in &dropped {
            self.edit_group(name, |group| ids.iter().filter(|id| group.acknowledge(**id)).count());
        }
        dropped.iter().map(|(_, ids)| ids.len() as u64).sum()
    }

    /// Trims entries that no group refers to, block by block as Redis does. In a block that could be removed as a
    /// whole, every unreferenced entry is removed, and the search continues behind it. In the first other block, only
    /// the excess is removed. Returns how many entries were removed, and the last of them: every unreferenced entry
    /// up to it was removed.
    pub fn trim_acked(&mut self, trim: Trim, limit: u64) -> (u64, Option<StreamId>) {
        let going = self.to_trim_acked(trim, limit);
        for run in going.runs.into_iter().rev() {
            self.entries.remove_range(run);
        }
        self.blocks -= going.blocks;
        (going.entries, going.last)
    }

    fn to_trim_acked(&self, trim: Trim, limit: u64) -> Going {
        let delivered = self.groups().map(|group| group.last_id).min().unwrap_or(StreamId::MAX);
        let (len, mut going, mut place) = (self.len() as u64, Going::default(), 0);
        for block in self.entries.leaves() {
            let (left, here) = (len - going.entries, Leaf::len(block));
            let is_enough = matches!(trim, Trim::MaxLen(max) if left <= max);
            if is_enough || limit > 0 && going.entries + here as u64 > limit || block.master() > delivered {
                break;
            }
            let may_go_whole = block.may_go_whole(trim, left);
            let before = going.entries;
            for (at, id) in block.live_ids().enumerate() {
                let stays = match trim {
                    Trim::MaxLen(max) => len - going.entries <= max,
                    Trim::MinId(min) => id >= min,
                };
                if stays || id > delivered {
                    break;
                }
                if !self.is_referenced(id) {
                    going.add(place + at, id);
                }
            }
            going.blocks += usize::from(going.entries - before == here as u64);
            place += here;
            if !may_go_whole {
                break;
            }
        }
        going
    }
}

#[cfg(test)]
#[path = "references_tests.rs"]
mod tests;

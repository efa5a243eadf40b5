//! What groups still refer to, and deleting entries with regard to that.
//!
//! A group refers to an entry that it has delivered and nobody has acknowledged, and to one that it has yet to
//! deliver. The first kind can outlive the entry: it stays pending until it is acknowledged.
//!
//! Invariants:
//! - What a group refers to is looked up in each group by the id: never by a walk over all that is pending.
//! - Trimming does not raise `max_deleted_id`, whatever it leaves in between: what it removes no group has yet to
//!   read, so no count of a group is wrong for it.

use std::ops::Range;

use super::{Group, Pending, Stream, StreamId, Trim};
use crate::value::tree::Leaf;

/// What becomes of an entry, and of what groups refer to, when it is to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefPolicy {
    /// It goes, and what is pending of it stays so.
    #[default]
    KeepRef,
    /// It goes, and is pending nowhere any more.
    DelRef,
    /// It stays as long as any group refers to it.
    Acked,
}

/// What a wish to delete an entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// There is no such entry.
    Missing,
    /// It is gone.
    Deleted,
    /// Some group still refers to its id.
    Referenced,
}

/// What trimming removes, by places among all entries.
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

    /// An entry of this id is pending in no group any more. Returns whether it was in any.
    fn drop_references(&mut self, id: StreamId) -> bool {
        let holds = |group: &&Group| group.pending.get(&id).is_some();
        let names: Vec<_> = self.groups().filter(holds).map(|group| group.name.clone()).collect();
        for name in &names {
            self.edit_group(name, |group| group.acknowledge(id));
        }
        !names.is_empty()
    }

    /// Deletes an entry by a policy. Gives what that came to, and whether anything has changed.
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

    /// Trims as [`Stream::trim`] does, by parts of blocks too, and drops what is pending of all entries before the new
    /// beginning, whether they went now or were deleted before. With [`Trim::MinId`] that is what is below the id and
    /// below every entry that stays; with [`Trim::MaxLen`] it is what is below the first entry that stays, and only
    /// where an entry went. Returns how many entries went, and how many ids the groups dropped.
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

    /// What is below an id, or anything if that is `None`, is pending in no group any more. Returns how many ids the
    /// groups dropped.
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

    /// Trims what no group refers to, block by block as Redis does: in a block that could go as a whole whatever
    /// may go, and the search goes on behind it; in the first other one what is too much. Returns how many went, and
    /// the last of them: all up to it went that no group refers to.
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

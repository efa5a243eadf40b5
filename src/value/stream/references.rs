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

use super::block::Block;
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

    /// Trims as [`Stream::trim`] does, by parts of blocks too, and drops what is pending of the entries that went; what
    /// is pending of entries deleted before stays. Returns how many went.
    pub fn trim_with_references(&mut self, trim: Trim, limit: u64) -> u64 {
        let (going, blocks_going) = self.to_trim(trim, false, limit);
        let ids: Vec<StreamId> = match self.groups_len() {
            0 => Vec::new(),
            _ => self.entries.leaves().flat_map(Block::live_ids).take(going as usize).collect(),
        };
        if let (Some(first), Some(last)) = (ids.first(), ids.last()) {
            let went = |pending: &&Pending| ids.binary_search(&pending.id).is_ok();
            let pending = |group: &Group| -> Vec<StreamId> {
                let among = group.pending.iter_from(first).take_while(|pending| pending.id <= *last);
                among.filter(went).map(|pending| pending.id).collect()
            };
            let dropped: Vec<_> = self.groups().map(|group| (group.name.clone(), pending(group))).collect();
            for (name, ids) in dropped.iter().filter(|(_, ids)| !ids.is_empty()) {
                self.edit_group(name, |group| ids.iter().filter(|id| group.acknowledge(**id)).count());
            }
        }
        self.remove_first(going, blocks_going)
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

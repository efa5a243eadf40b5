//! What happens when the disk is full.
//!
//! ```text
//! the disk has room     the log keeps some more of it than it needs                            all writes
//! a write finds none    half of that is given to the segment, and the write is repeated        what frees something
//! enough was removed    the other half is given up for a snapshot, which needs less than the log
//! there is room again   some is kept as before                                                 all writes
//! ```
//!
//! A write that finds no room does not fail the log, as long as something was kept. If that is used up, too, the log
//! has failed, and heals as ever: nothing acknowledged depends on what is kept.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::logging;
use crate::persist::storage::{Room, Space, Storage};

/// No more than this part of the disk is kept.
const PART_OF_DISK: u64 = 64;

/// Whether the disk is full.
#[derive(Debug, Default)]
pub(super) struct Lack(AtomicBool);

impl Lack {
    #[inline]
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        if !self.0.swap(true, Ordering::Relaxed) {
            logging::warning(format_args!(
                "The disk is full: only what frees something is executed until there is room again"
            ));
        }
    }

    pub(super) fn end(&self) {
        if self.0.swap(false, Ordering::Relaxed) {
            logging::notice(format_args!("There is room on the disk again: all commands are executed"));
        }
    }
}

/// Room that is kept for the time when the disk is full.
pub(super) struct KeptRoom {
    /// How much was asked for, in bytes.
    asked: u64,
    /// How large each half is, in bytes.
    pub(super) half: u64,
    for_log: Option<Room>,
    pub(super) for_snapshot: Option<Room>,
}

impl KeptRoom {
    /// How large each half is, in bytes, if so much is asked for.
    pub(super) fn half_of(asked: u64, space: Space) -> u64 {
        asked.min(space.total / PART_OF_DISK) / 2
    }

    pub(super) fn keep(storage: &dyn Storage, asked: u64, half: u64) -> std::io::Result<KeptRoom> {
        let [for_log, for_snapshot] = [storage.keep_room(half)?, storage.keep_room(half)?].map(Some);
        Ok(KeptRoom { asked, half, for_log, for_snapshot })
    }

    /// Whether all is there that was asked for.
    pub(super) fn is_whole(&self, asked: u64) -> bool {
        self.asked == asked && self.for_log.is_some() && self.for_snapshot.is_some()
    }

    /// Gives up the log's half, if it is there. Returns how much that is, in bytes.
    pub(super) fn give_to_log(&mut self) -> Option<u64> {
        self.for_log.take().map(|_| self.half)
    }
}

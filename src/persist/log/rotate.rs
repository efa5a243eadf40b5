//! Ends one segment of the log and begins the next: the store's side of the log.
//!
//! - An *attached* segment continues where the sealed one before it ends. It takes blocks at once. The sealed one is
//!   made durable first, and until then no block of either counts as durable.
//! - A segment ends when it is long enough (`log-segment-size`), with the block that fills it, if the next one is made
//!   already. That costs no more than a write. Nothing is frozen, and no manifest names the next segment: the seal
//!   does. A thread of its own makes segments ahead of need ([`Log::tend`]). Until it has, the current one grows.
//! - A segment that is no longer needed is *recycled*: the next one overwrites it. It gets its new name only when its
//!   new header is durable.
//! - A *detached* segment does not count until a manifest names it. It is used when the log has failed or was off:
//!   the snapshot in progress completes it.

use std::sync::atomic::Ordering;

use super::{Frozen, Log, Sealed, Writer};
use crate::base::logging::warning;
use crate::persist::error::PersistError;
use crate::persist::format::{SEGMENT_ATTACHED, SEGMENT_DETACHED, segment_name};
use crate::persist::index;
use crate::persist::log::segment_file::{SegmentFile, SegmentMaker};
use crate::persist::wire::SegmentWire;

/// The place of a cut.
pub(crate) struct LogCut {
    /// The last block whose effects are in the frozen view.
    pub(crate) block: u64,
    /// The segment that continues from it; none if no log is kept.
    pub(crate) segment: Option<SegmentWire>,
    pub(crate) detached: bool,
    /// Log bytes before it.
    bytes: u64,
}

impl Log {
    /// Starts logging into a new segment, which the manifest then names.
    pub(crate) fn start(&self) -> Result<SegmentWire, PersistError> {
        let mut writer = self.writer.lock();
        let number = writer.take_number();
        let segment = writer.maker.create(number, SEGMENT_ATTACHED)?;
        let wire = writer.describe(&segment, writer.last_written + 1);
        writer.begun.push(wire.clone());
        writer.current = Some(segment);
        writer.keep = true;
        drop(writer);
        self.want(true);
        self.active.store(true, Ordering::Release);
        Ok(wire)
    }

    /// Creates the next segment ahead of need. It overwrites the one that is given, which nothing needs any more and
    /// which is then gone. A failure is harmless: the cut tries again.
    pub(crate) fn prepare_spare(&self, recycled: Option<u64>) {
        let mut writer = self.writer.lock();
        // Closing one that is kept gives back the room that it had reserved.
        let retired = writer.retired.take();
        let goes_on = writer.current.is_some() && !self.is_poisoned();
        let lacks_one = writer.spare.is_none();
        // One that overwrites another takes the place of a new one.
        let may_be_recycled = goes_on && writer.spare.as_ref().is_none_or(SegmentFile::is_new);
        let maker = writer.maker.clone();
        // The disk may be slow, and flushes need the writer.
        drop(writer);
        let retired = match (recycled, retired) {
            (None, _) => None,
            (Some(number), Some(retired)) if retired.number == number => Some((number, Some(retired))),
            (Some(number), _) => Some((number, maker.open(number).ok())),
        };
        let mut spare = None;
        if let Some((old, retired)) = retired {
            // What has another name is a backup of somebody's, and is not written over. On a full disk, others need the
            // room of a large one.
            let may_recycle =
                |retired: &SegmentFile| retired.file.links() == 1 && maker.may_recycle(retired) && !self.lacks_room();
            let retired = retired.filter(|retired| may_be_recycled && may_recycle(retired));
            let number = || self.writer.lock().take_number();
            spare = retired.and_then(|retired| maker.recycle(number(), retired).ok());
            if spare.is_none() {
                // What stays is removed by the next commit or start.
                let _ = maker.storage.remove(&segment_name(old));
            }
        }
        if goes_on && lacks_one && spare.is_none() {
            spare = self.make_spare(&maker);
        }
        if let Some(made) = spare {
            self.take_spare(&maker, made);
        }
    }

    /// Makes the next segment, if there is none, and the indexes of those that are not written any more. Whoever calls
    /// it may wait for the disk.
    pub(crate) fn tend(&self) {
        let (maker, is_wanted) = {
            let writer = self.writer.lock();
            let goes_on = writer.current.as_ref().is_some_and(|current| !current.detached);
            (writer.maker.clone(), goes_on && writer.spare.is_none() && !writer.is_cut && !self.is_poisoned())
        };
        if is_wanted && let Some(made) = self.make_spare(&maker) {
            self.take_spare(&maker, made);
        }
        let Some(mut tended) = self.tended.try_lock() else { return };
        while let Some(frozen) = self.next_frozen() {
            self.index(&maker, &frozen);
            // The end of the log stays in the system's cache.
            if let Some((before, bytes)) = tended.replace((frozen.wire.number, frozen.bytes))
                && let Ok(reader) = maker.storage.reader(&segment_name(before))
            {
                reader.uncache(0, bytes);
            }
        }
    }

    /// Has indexes made of segments of earlier runs, oldest first, unless a commit has replaced them.
    pub(crate) fn tend_earlier(&self, mut earlier: Vec<Frozen>) {
        if self.indexed_shards.is_some() {
            let mut writer = self.writer.lock();
            let begun_from = writer.committed_from;
            earlier.retain(|frozen| frozen.wire.number >= begun_from);
            earlier.append(&mut writer.frozen);
            writer.frozen = earlier;
            drop(writer);
            self.tending.kick();
        }
    }

    /// The oldest segment that is not written any more, is durable, and was not tended.
    fn next_frozen(&self) -> Option<Frozen> {
        let mut writer = self.writer.lock();
        loop {
            let first = writer.frozen.first()?;
            if self.is_poisoned() || first.last_block > self.synced() || self.tending.is_stopped() {
                return None;
            }
            let frozen = writer.frozen.remove(0);
            if !writer.untrusted.contains(&frozen.wire.number) {
                return Some(frozen);
            }
        }
    }

    /// Writes the index of a segment. Without it, a start reads the segment.
    fn index(&self, maker: &SegmentMaker, frozen: &Frozen) {
        let Some(shards) = self.indexed_shards else { return };
        let (storage, store) = (&*maker.storage, maker.hash_seed);
        let keys = maker.keys.as_deref();
        if let Err(error) = index::make(storage, store, shards, &frozen.wire, frozen.last_block, keys) {
            warning(format_args!("A segment of the log gets no index, so that the next start reads it: {error}"));
        }
    }

    pub(super) fn make_spare(&self, maker: &SegmentMaker) -> Option<SegmentFile> {
        let number = self.writer.lock().take_number();
        maker.create(number, SEGMENT_ATTACHED).ok()
    }

    /// Keeps a segment for the next rotation, unless there is one that is as good, or a later one has begun or is about
    /// to: the numbers of the log ascend.
    pub(super) fn take_spare(&self, maker: &SegmentMaker, made: SegmentFile) {
        let mut writer = self.writer.lock();
        let is_better = writer.spare.as_ref().is_none_or(|spare| spare.is_new() && !made.is_new());
        let ascends = writer.current.as_ref().is_some_and(|current| current.number < made.number);
        let unwanted = match is_better && ascends && !writer.is_cut && !self.is_poisoned() {
            true => writer.spare.replace(made),
            false => Some(made),
        };
        drop(writer);
        if let Some(unwanted) = unwanted {
            let _ = maker.storage.remove(&segment_name(unwanted.number));
        }
    }

    /// Whether a block of this length fills the current segment, and the next one is there.
    pub(super) fn is_full_with(&self, writer: &Writer, len: u64) -> bool {
        let max = self.segment_bytes.load(Ordering::Relaxed);
        let Some(current) = writer.current.as_ref().filter(|_| max > 0) else { return false };
        if current.detached || writer.is_cut || current.len + len < max || self.is_poisoned() {
            return false;
        }
        if writer.spare.is_none() {
            self.tending.kick();
        }
        writer.spare.as_ref().is_some_and(|spare| spare.number > current.number)
    }

    /// Goes on in the next segment, behind a block that has sealed the current one.
    pub(super) fn rotate(&self, writer: &mut Writer, block: u64) {
        let next = writer.spare.take();
        self.go_on(writer, next, block);
        // What was sealed is still to be made durable.
        self.kick();
        self.tending.kick();
    }

    /// The number of the segment that takes blocks; beyond any if there is none.
    pub(crate) fn running_segment(&self) -> u64 {
        self.writer.lock().current.as_ref().map_or(u64::MAX, |current| current.number)
    }

    /// Whether another segment may overwrite this one once nothing needs it.
    pub(crate) fn may_recycle(&self, number: u64) -> bool {
        let writer = self.writer.lock();
        let is_in_use = writer.sealed.iter().any(|sealed| sealed.number == number)
            || writer.current.as_ref().is_some_and(|current| current.number == number);
        !is_in_use && !writer.untrusted.contains(&number)
    }

    /// The segments that were begun before a cut and belong to what its snapshot replaces.
    pub(crate) fn rotated_before(&self, cut: &LogCut) -> Vec<SegmentWire> {
        let end = cut.segment.as_ref().map_or(u64::MAX, |segment| segment.number);
        let writer = self.writer.lock();
        writer.begun.iter().filter(|segment| segment.number < end).cloned().collect()
    }

    /// Flushes and syncs without a gate, so that the cut itself has little to sync.
    pub(crate) fn settle(&self) {
        // A failure poisons the log, which the cut will notice.
        let _ = self.sync_now();
    }

    /// Ends the current segment at the instant at which `freeze` calls its argument; see `Store::cut`. Meanwhile none
    /// ends for its length.
    pub(crate) fn cut<T>(
        &self,
        wait: impl Fn(),
        freeze: impl FnMut(&mut dyn FnMut()) -> Option<T>,
    ) -> Result<(T, LogCut), PersistError> {
        self.writer.lock().is_cut = true;
        let cut = self.cut_meanwhile(wait, freeze);
        self.writer.lock().is_cut = false;
        self.tending.kick();
        cut
    }

    fn cut_meanwhile<T>(
        &self,
        wait: impl Fn(),
        mut freeze: impl FnMut(&mut dyn FnMut()) -> Option<T>,
    ) -> Result<(T, LogCut), PersistError> {
        let mut next = None;
        let cut = loop {
            next = self.make_next(next)?;
            wait();
            let mut cutting = self.journal.cutting();
            {
                let mut writer = self.writer.lock();
                if self.next_kind(&writer) != next.as_ref().map(SegmentFile::kind) {
                    continue;
                }
                writer.seal_for = next.as_ref().filter(|next| !next.detached).map_or(0, |next| next.number);
            }
            let mut taken = None;
            let value = freeze(&mut || {
                if taken.is_none() {
                    taken = Some(cutting.take(|| self.wanted.store(next.is_some(), Ordering::Relaxed)));
                }
            });
            if value.is_some() {
                cutting.deliver();
            }
            let mut writer = self.writer.lock();
            let sealed_for = std::mem::take(&mut writer.seal_for);
            let Some(value) = value else { continue };
            let block = taken.expect("freeze must take the buffers while the world stands still");
            if sealed_for != 0 && writer.last_written != block {
                // What follows must not hang on to a segment that fails: the next time it goes into a detached one. The
                // segment that the seal names stays: the seal may be on the disk, and then asks for it.
                next = None;
                continue;
            }
            break (value, self.go_on(&mut writer, next.take(), block));
        };
        // What was sealed is still to be made durable.
        self.kick();
        self.notify();
        Ok(cut)
    }

    /// What kind of segment goes on from a cut: none if no log is to be kept.
    fn next_kind(&self, writer: &Writer) -> Option<u32> {
        let goes_on = !self.is_poisoned() && writer.current.as_ref().is_some_and(|segment| !segment.detached);
        writer.keep.then_some(if goes_on { SEGMENT_ATTACHED } else { SEGMENT_DETACHED })
    }

    /// Makes the segment for the next cut, unless it is already `made` or spare. It does so without the writer,
    /// because the disk may be slow.
    fn make_next(&self, made: Option<SegmentFile>) -> Result<Option<SegmentFile>, PersistError> {
        let mut writer = self.writer.lock();
        let wanted = self.next_kind(&writer);
        if made.as_ref().map(SegmentFile::kind) == wanted {
            return Ok(made);
        }
        let spare = writer.spare.take_if(|_| wanted == Some(SEGMENT_ATTACHED));
        let to_make = wanted.filter(|_| spare.is_none()).map(|kind| (writer.take_number(), kind));
        let maker = writer.maker.clone();
        drop(writer);
        if let Some(unwanted) = made {
            // What stays is removed by the next commit or start.
            let _ = maker.storage.remove(&segment_name(unwanted.number));
        }
        to_make.map_or(Ok(spare), |(number, kind)| maker.create(number, kind).map(Some))
    }

    /// Replaces the current segment by the next one. A sealed one is made durable later, but before any block of the
    /// next one counts as durable.
    fn go_on(&self, writer: &mut Writer, next: Option<SegmentFile>, block: u64) -> LogCut {
        let detached = next.as_ref().is_none_or(|segment| segment.detached);
        if next.is_some() && detached {
            writer.spare = None;
            writer.sealed.clear();
            writer.frozen.clear();
            writer.prev_crc = 0;
            writer.last_written = block;
        }
        let segment = next.as_ref().map(|segment| writer.describe(segment, block + 1));
        if next.is_some() {
            let before = std::mem::replace(&mut writer.current, next).filter(|_| !detached);
            writer.sealed.extend(before.as_ref().map(|before| Sealed::of(before, block)));
            writer.freeze(before.as_ref(), block);
            writer.begun.extend(segment.clone());
            // It may be overwritten later, but for one that failed.
            writer.retired = before.filter(|before| !writer.untrusted.contains(&before.number));
        }
        LogCut { block, segment, detached, bytes: self.bytes() }
    }

    /// Notes that the snapshot of a cut is now the store: everything up to the cut is durable, and a log that failed
    /// before it is healed.
    pub(crate) fn committed(&self, cut: &LogCut) {
        let mut writer = self.writer.lock();
        let begun_from = cut.segment.as_ref().map_or(u64::MAX, |segment| segment.number);
        writer.begun.retain(|begun| begun.number >= begun_from);
        writer.frozen.retain(|frozen| frozen.wire.number >= begun_from);
        writer.committed_from = begun_from;
        if let Some(segment) = &cut.segment {
            let mut poison = self.poison.lock();
            writer.sealed.retain(|sealed| sealed.number >= segment.number);
            if poison.as_ref().is_some_and(|poison| poison.segment < segment.number) {
                *poison = None;
                self.poisoned.store(false, Ordering::Release);
            }
            drop(poison);
            if let Some(current) = &mut writer.current
                && current.number == segment.number
            {
                current.detached = false;
                self.active.store(true, Ordering::Release);
            }
        }
        if !self.is_poisoned() {
            self.synced.fetch_max(cut.block, Ordering::Release);
            self.written.fetch_max(writer.last_written.max(cut.block), Ordering::Release);
        }
        self.bytes.fetch_sub(cut.bytes.min(self.bytes()), Ordering::Relaxed);
        drop(writer);
        self.kick();
        self.notify();
    }

    /// Notes that the snapshot of a cut has failed. An attached segment simply continues. A detached one does not
    /// count, and its name is returned so that it can be removed.
    pub(crate) fn discarded(&self, cut: &LogCut) -> Option<String> {
        let segment = cut.segment.as_ref().filter(|_| cut.detached)?;
        let mut writer = self.writer.lock();
        let is_current = writer.current.as_ref().is_some_and(|current| current.number == segment.number);
        writer.begun.retain(|begun| begun.number != segment.number);
        if is_current {
            writer.forget_segments();
        }
        drop(writer);
        if is_current && !self.is_poisoned() {
            let taken = self.want(false);
            self.publish_all(taken);
        }
        self.notify();
        Some(segment_name(segment.number))
    }

    /// Makes the next cut begin a log, if none is kept.
    pub(crate) fn keep(&self) {
        self.writer.lock().keep = true;
    }

    /// Stops logging: what is logged is made durable, and what follows is dropped.
    pub(crate) fn turn_off(&self) -> Result<(), PersistError> {
        // A log that has failed, or does not count yet, has nothing to lose.
        let healthy = self.is_active() && !self.is_poisoned();
        let result = if healthy { self.sync_now().map(|_| ()) } else { Ok(()) };
        self.writer.lock().keep = false;
        let taken = self.want(false);
        self.active.store(false, Ordering::Release);
        let mut writer = self.writer.lock();
        writer.forget_segments();
        let mut poison = self.poison.lock();
        *poison = None;
        self.poisoned.store(false, Ordering::Release);
        drop((poison, writer));
        self.publish_all(taken);
        self.notify();
        result
    }

    /// Starts or stops receiving blocks from the journal at one instant. Returns the last block before that.
    fn want(&self, wanted: bool) -> u64 {
        let mut cutting = self.journal.cutting();
        let taken = cutting.take(|| self.wanted.store(wanted, Ordering::Relaxed));
        cutting.deliver();
        taken
    }

    /// No reply needs to wait for a log that is not kept.
    fn publish_all(&self, taken: u64) {
        self.written.fetch_max(taken, Ordering::Release);
        self.synced.fetch_max(taken, Ordering::Release);
    }

    /// Whether the current segment does not count until a commit.
    pub(crate) fn is_detached(&self) -> bool {
        self.writer.lock().current.as_ref().is_none_or(|segment| segment.detached)
    }

    /// The number that the next segment will bear.
    pub(crate) fn next_segment(&self) -> u64 {
        self.writer.lock().next_segment
    }
}

impl Writer {
    /// A number is used only once, whatever happens to the file.
    fn take_number(&mut self) -> u64 {
        self.next_segment += 1;
        self.next_segment - 1
    }

    /// Notes that a segment is not written any more.
    fn freeze(&mut self, segment: Option<&SegmentFile>, last_block: u64) {
        let Some(segment) = segment else { return };
        if let Some(wire) = self.begun.iter().find(|begun| begun.number == segment.number) {
            self.frozen.push(Frozen { wire: wire.clone(), last_block, bytes: segment.len });
        }
    }

    fn forget_segments(&mut self) {
        self.frozen.clear();
        self.current = None;
        self.spare = None;
        self.retired = None;
        self.sealed.clear();
    }

    fn describe(&self, segment: &SegmentFile, first_block: u64) -> SegmentWire {
        SegmentWire { number: segment.number, generation: self.maker.generation, first_block, prev_crc: self.prev_crc }
    }
}

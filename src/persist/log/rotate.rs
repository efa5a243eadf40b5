//! Ends one segment of the log and begins the next: the store's side of the log.
//!
//! - An *attached* segment continues where the sealed one before it ends. It takes blocks at once. The sealed one is
//!   made durable first, and until then no block of either counts as durable.
//! - A segment that is no longer needed is *recycled*: the next one overwrites it. It gets its new name only when its
//!   new header is durable.
//! - A *detached* segment does not count until a manifest names it. It is used when the log has failed or was off:
//!   the snapshot in progress completes it.

use std::sync::atomic::Ordering;

use super::{Log, Sealed, Writer};
use crate::persist::error::PersistError;
use crate::persist::format::{SEGMENT_ATTACHED, SEGMENT_DETACHED, segment_name};
use crate::persist::log::segment_file::SegmentFile;
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
        writer.current = Some(segment);
        writer.keep = true;
        drop(writer);
        self.want(true);
        self.active.store(true, Ordering::Release);
        Ok(wire)
    }

    /// Creates the next segment ahead of need. It overwrites the retired one, which is then gone, if that may be
    /// `recycled`. A failure is harmless: the cut tries again.
    pub(crate) fn prepare_spare(&self, recycled: bool) {
        let mut writer = self.writer.lock();
        let retired = writer.retired.take_if(|_| recycled);
        let wanted = writer.current.is_some() && writer.spare.is_none() && !self.is_poisoned();
        let maker = writer.maker.clone();
        // The disk may be slow, and flushes need the writer.
        drop(writer);
        let number = || self.writer.lock().take_number();
        let mut spare = None;
        if let Some(retired) = retired {
            let name = segment_name(retired.number);
            spare = wanted.then(|| maker.recycle(number(), retired)).and_then(Result::ok);
            if spare.is_none() {
                // What stays is removed by the next commit or start.
                let _ = maker.storage.remove(&name);
            }
        }
        if wanted && spare.is_none() {
            spare = maker.create(number(), SEGMENT_ATTACHED).ok();
        }
        let Some(made) = spare else { return };
        let mut writer = self.writer.lock();
        let fits =
            writer.spare.is_none() && writer.current.as_ref().is_some_and(|current| current.number < made.number);
        if fits && !self.is_poisoned() {
            writer.spare = Some(made);
        } else {
            let _ = maker.storage.remove(&segment_name(made.number));
        }
    }

    /// The name of the segment that was sealed last, if another may overwrite it once nothing needs it.
    pub(crate) fn retired(&self) -> Option<String> {
        self.writer.lock().retired.as_ref().map(|segment| segment_name(segment.number))
    }

    /// Flushes and syncs without a gate, so that the cut itself has little to sync.
    pub(crate) fn settle(&self) {
        // A failure poisons the log, which the cut will notice.
        let _ = self.sync_now();
    }

    /// Ends the current segment at the instant at which `freeze` calls its argument; see `Store::cut`.
    pub(crate) fn cut<T>(
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
            writer.prev_crc = 0;
            writer.last_written = block;
        }
        let segment = next.as_ref().map(|segment| writer.describe(segment, block + 1));
        if next.is_some() {
            let before = std::mem::replace(&mut writer.current, next).filter(|_| !detached);
            writer.sealed.extend(before.as_ref().map(|before| Sealed::of(before, block)));
            // No segment overwrites one that failed: what the system still holds of it is not trustworthy.
            writer.retired = before;
        }
        LogCut { block, segment, detached, bytes: self.bytes() }
    }

    /// Notes that the snapshot of a cut is now the store: everything up to the cut is durable, and a log that failed
    /// before it is healed.
    pub(crate) fn committed(&self, cut: &LogCut) {
        let mut writer = self.writer.lock();
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

    fn forget_segments(&mut self) {
        self.current = None;
        self.spare = None;
        self.retired = None;
        self.sealed.clear();
    }

    fn describe(&self, segment: &SegmentFile, first_block: u64) -> SegmentWire {
        SegmentWire { number: segment.number, generation: self.maker.generation, first_block, prev_crc: self.prev_crc }
    }
}

//! Where one segment of the log ends and the next begins: the store's side of the log.
//!
//! - An *attached* segment goes on where the sealed one before it ends. The seal is durable before
//!   the attached segment takes its first block.
//! - A segment that nothing needs any more is *recycled*: the next one is written over it. It comes under its new
//!   name only when its new header is durable.
//! - A *detached* segment counts for nothing until a manifest names it. It is used when the log
//!   failed, or was off: the snapshot in progress is what makes it whole.

use std::sync::atomic::Ordering;

use super::{Log, Writer};
use crate::persist::error::PersistError;
use crate::persist::format::{SEGMENT_ATTACHED, SEGMENT_DETACHED, segment_name};
use crate::persist::log::segment_file::SegmentFile;
use crate::persist::wire::SegmentWire;

/// Where a cut fell.
pub(crate) struct LogCut {
    /// The last block whose effects are in the frozen view.
    pub(crate) block: u64,
    /// The segment that goes on from it; none when no log is kept.
    pub(crate) segment: Option<SegmentWire>,
    pub(crate) detached: bool,
    /// Log bytes before it.
    bytes: u64,
}

impl Log {
    /// Starts logging into a new segment, which the manifest then names.
    pub(crate) fn start(&self) -> Result<SegmentWire, PersistError> {
        let mut writer = self.writer.lock();
        let segment = writer.create_segment(SEGMENT_ATTACHED)?;
        let wire = writer.describe(&segment);
        writer.current = Some(segment);
        self.active.store(true, Ordering::Relaxed);
        Ok(wire)
    }

    /// Creates the next segment ahead of need, over the retired one if that may be `recycled`: which is not there
    /// afterwards. Failure is no harm: the cut tries again.
    pub(crate) fn prepare_spare(&self, recycled: bool) {
        let mut writer = self.writer.lock();
        let retired = writer.retired.take_if(|_| recycled);
        let wanted = writer.current.is_some() && writer.spare.is_none() && !self.is_poisoned();
        let maker = writer.maker.clone();
        // The disk may take its time, and whoever flushes needs the writer.
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

    /// The name of the segment that was sealed last, if another may be written over it once nothing needs it.
    pub(crate) fn retired(&self) -> Option<String> {
        self.writer.lock().retired.as_ref().map(|segment| segment_name(segment.number))
    }

    /// Flushes and syncs without a gate, so that the cut itself has little to sync.
    pub(crate) fn settle(&self) {
        // A failure poisons the log, and the cut will see that.
        let _ = self.sync_now();
    }

    /// Ends the current segment at the instant at which `freeze` calls its argument.
    ///
    /// `keep` says whether a log goes on from there.
    pub(crate) fn cut<T>(
        &self,
        keep: bool,
        freeze: impl FnOnce(&mut dyn FnMut()) -> T,
    ) -> Result<(T, LogCut), PersistError> {
        let mut guard = self.writer.lock();
        let writer = &mut *guard;
        let rotate = keep && !self.is_poisoned() && writer.current.as_ref().is_some_and(|segment| !segment.detached);
        // Slow I/O before the caller stops the world.
        let next = match (keep, rotate) {
            (false, _) => None,
            (true, true) => Some(match writer.spare.take() {
                Some(spare) => spare,
                None => writer.create_segment(SEGMENT_ATTACHED)?,
            }),
            (true, false) => Some(writer.create_segment(SEGMENT_DETACHED)?),
        };
        let mut taken = None;
        let value = freeze(&mut || {
            if taken.is_none() {
                taken = Some(self.take(writer, Some(keep)));
            }
        });
        let block = taken.expect("freeze must take the buffers while the world stands still");
        let sealed = match &next {
            Some(next) if rotate => self.seal(writer, block, next.number).is_ok(),
            _ => true,
        };
        let result = self.go_on(writer, next, block, sealed);
        drop(guard);
        self.notify();
        result.map(|cut| (value, cut))
    }

    /// Writes the last block of the current segment and makes it durable before any block of the
    /// next one can be written: so a hole between two segments is never the work of a crash.
    fn seal(&self, writer: &mut Writer, block: u64, next: u64) -> Result<(), PersistError> {
        self.write_block(writer, block, next)?;
        let segment = writer.current.as_ref().expect("rotation has a current segment");
        let path = writer.maker.storage.path(&segment_name(segment.number));
        self.sync_file(&*segment.file, segment.number, block, path)
    }

    fn go_on(
        &self,
        writer: &mut Writer,
        next: Option<SegmentFile>,
        block: u64,
        sealed: bool,
    ) -> Result<LogCut, PersistError> {
        writer.discard();
        let next = match next {
            // The old segment just failed: what follows must not hang on to it. The spare stays
            // where it is, for the seal may have reached the disk and then asks for it.
            Some(_) if !sealed => Some(writer.create_segment(SEGMENT_DETACHED)?),
            next => next,
        };
        let detached = next.as_ref().is_some_and(|segment| segment.detached);
        if detached {
            writer.spare = None;
            writer.prev_crc = 0;
            writer.last_written = block;
        }
        let segment = next.as_ref().map(|segment| SegmentWire { first_block: block + 1, ..writer.describe(segment) });
        if next.is_some() {
            let before = std::mem::replace(&mut writer.current, next);
            // No segment is written over one that failed: what the system still holds of that is not to be trusted.
            writer.retired = before.filter(|_| !detached);
        }
        Ok(LogCut { block, segment, detached, bytes: self.bytes() })
    }

    /// The snapshot of a cut is the store now: everything up to the cut is durable, and a log that
    /// failed before it is healed.
    pub(crate) fn committed(&self, cut: &LogCut) {
        let mut writer = self.writer.lock();
        if let Some(segment) = &cut.segment {
            let mut poison = self.poison.lock();
            if poison.as_ref().is_some_and(|poison| poison.segment < segment.number) {
                *poison = None;
                self.poisoned.store(false, Ordering::Release);
            }
            drop(poison);
            if let Some(current) = &mut writer.current
                && current.number == segment.number
            {
                current.detached = false;
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

    /// The snapshot of a cut came to nothing. An attached segment simply goes on; a detached one
    /// counts for nothing, and its name is returned so that it can be removed.
    pub(crate) fn discarded(&self, cut: &LogCut) -> Option<String> {
        let segment = cut.segment.as_ref().filter(|_| cut.detached)?;
        let mut writer = self.writer.lock();
        if writer.current.as_ref().is_some_and(|current| current.number == segment.number) {
            writer.current = None;
            writer.spare = None;
            writer.retired = None;
            if !self.is_poisoned() {
                self.take(&mut writer, Some(false));
                writer.discard();
                self.publish_all(&writer);
            }
        }
        drop(writer);
        self.notify();
        Some(segment_name(segment.number))
    }

    /// Stops logging: what is there is made durable, and what comes is dropped.
    pub(crate) fn turn_off(&self) -> Result<(), PersistError> {
        // A log that failed has nothing left to lose.
        let healthy = self.is_active() && !self.is_poisoned();
        let result = if healthy { self.sync_now().map(|_| ()) } else { Ok(()) };
        let mut writer = self.writer.lock();
        self.take(&mut writer, Some(false));
        writer.discard();
        writer.current = None;
        writer.spare = None;
        writer.retired = None;
        let mut poison = self.poison.lock();
        *poison = None;
        self.poisoned.store(false, Ordering::Release);
        drop(poison);
        self.publish_all(&writer);
        drop(writer);
        self.notify();
        result
    }

    /// Nobody needs to wait for a log that is not kept.
    fn publish_all(&self, writer: &Writer) {
        self.written.fetch_max(writer.taken, Ordering::Release);
        self.synced.fetch_max(writer.taken, Ordering::Release);
    }

    /// Whether the current segment counts for nothing until a commit.
    pub(crate) fn is_detached(&self) -> bool {
        self.writer.lock().current.as_ref().is_none_or(|segment| segment.detached)
    }

    /// The number that the next segment will bear.
    pub(crate) fn next_segment(&self) -> u64 {
        self.writer.lock().next_segment
    }
}

impl Writer {
    /// Creates the next segment. A number is used once, whatever becomes of the file.
    fn create_segment(&mut self, kind: u32) -> Result<SegmentFile, PersistError> {
        let number = self.take_number();
        self.maker.create(number, kind)
    }

    fn take_number(&mut self) -> u64 {
        self.next_segment += 1;
        self.next_segment - 1
    }

    fn describe(&self, segment: &SegmentFile) -> SegmentWire {
        SegmentWire {
            number: segment.number,
            generation: self.maker.generation,
            first_block: self.taken + 1,
            prev_crc: self.prev_crc,
        }
    }
}

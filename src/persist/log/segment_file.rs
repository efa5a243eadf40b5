//! One segment's file: its creation, its recycling from an older one, and the zeros in it.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::persist::block::{SegmentHeader, read_segment_header, segment_header};
use crate::persist::crypt::{FileCipher, FileKind, Keyring};
use crate::persist::error::PersistError;
use crate::persist::format::{
    END_MARK, SEGMENT_ATTACHED, SEGMENT_DETACHED, SEGMENT_HEADER, VERSION, VERSION_ENCRYPTED, segment_name,
};
use crate::persist::storage::{Storage, StorageFile};

use super::FsyncPolicy;

/// How much room a segment reserves on the disk ahead of need, in bytes: a quarter of its content, within these
/// bounds.
const RESERVED_AHEAD: std::ops::RangeInclusive<u64> = 1 << 20..=16 << 20;
/// A recycled segment is cut to this length, in bytes, so that the room of a very large one is given back.
const RECYCLED_MAX: u64 = 64 << 20;
/// The unit of the system's file cache, in bytes.
const PAGE: u64 = 4096;
/// Zeros are written ahead of need up to a multiple of this, in bytes; fewer in tests, which simulate many disks. The
/// system finds memory for this many pages at once, and overwriting them then costs a third less. More than fits into
/// a core's cache would cost more than it saves.
const AHEAD: u64 = if cfg!(test) { 1 << 10 } else { 64 << 10 };
/// The same under `Always`, so that a sync rarely has to record where new bytes are.
const AHEAD_ALWAYS: u64 = if cfg!(test) { 2 << 10 } else { 256 << 10 };
static ZEROS: [u8; AHEAD_ALWAYS as usize] = [0; AHEAD_ALWAYS as usize];

/// A segment that is or will be written.
pub(super) struct SegmentFile {
    pub(super) number: u64,
    pub(super) file: Arc<dyn StorageFile>,
    /// Whether it is not named by a manifest yet, and so does not count.
    pub(super) detached: bool,
    /// Its length in bytes.
    pub(super) len: u64,
    /// Up to which offset the disk has reserved room.
    reserved: u64,
    /// Up to which offset the file was written before: with the bytes of an older segment, or with zeros ahead of
    /// need.
    old_end: u64,
    /// Up to which offset zeros follow its own bytes.
    blank_end: u64,
    /// Encrypts its blocks.
    pub(super) cipher: Option<FileCipher>,
}

impl SegmentFile {
    /// Writes a segment's header, durably, into a file that holds this many bytes of an older one.
    pub(super) fn begin(
        file: Arc<dyn StorageFile>,
        header: &SegmentHeader,
        cipher: Option<FileCipher>,
        old_end: u64,
    ) -> std::io::Result<SegmentFile> {
        let mut bytes = segment_header(header).to_vec();
        let (number, len) = (header.number, bytes.len() as u64);
        let detached = header.kind == SEGMENT_DETACHED;
        let (reserved, blank_end) = (old_end, 0);
        let mut segment = SegmentFile { number, file, detached, len, reserved, old_end, blank_end, cipher };
        bytes.resize((len + segment.blanks(len)) as usize, 0);
        segment.file.write_at(0, &bytes)?;
        segment.file.sync_data()?;
        Ok(segment)
    }

    /// `SEGMENT_ATTACHED`, or `SEGMENT_DETACHED` as long as no manifest names it.
    pub(super) fn kind(&self) -> u32 {
        if self.detached { SEGMENT_DETACHED } else { SEGMENT_ATTACHED }
    }

    /// Whether it overwrites nothing. Asked before anything is written to it.
    pub(super) fn is_new(&self) -> bool {
        self.old_end == 0
    }

    /// Writes a block at the end. Zeros may be appended to the block on the way.
    ///
    /// Before it reaches an area that was never written, zeros are written there, up to the next multiple of
    /// [`AHEAD`].
    pub(super) fn write(&mut self, block: &mut Vec<u8>, policy: FsyncPolicy) -> std::io::Result<()> {
        let (start, len) = (self.len, block.len() as u64);
        self.len += len;
        if self.len > self.old_end {
            let ahead = if policy == FsyncPolicy::Always { AHEAD_ALWAYS } else { AHEAD };
            let end = self.len.next_multiple_of(ahead);
            let zeros = (end - self.old_end.max(start)).min(ahead);
            match self.file.write_at(end - zeros, &ZEROS[..zeros as usize]) {
                Ok(()) => (self.old_end, self.blank_end) = (end, end),
                // If there is no room for the zeros, there may still be room for the blocks.
                Err(error) if is_lack_of_room(&error) => {}
                // Any other error is a disk error and must be reported.
                Err(error) => return Err(error),
            }
        }
        block.resize((len + self.blanks(self.len)) as usize, 0);
        self.file.write_at(start, block)
    }

    /// Writes the last block again, for which there was no room, where it begins. What room there is now is kept for
    /// this file.
    pub(super) fn write_again(&mut self, start: u64, block: &[u8], room: u64) -> std::io::Result<()> {
        self.reserved = start + room;
        self.file.reserve(self.reserved);
        self.file.write_at(start, block)
    }

    /// How many zeros to write behind bytes that end here.
    fn blanks(&mut self, end: u64) -> u64 {
        let mark_end = (end + END_MARK as u64).min(self.old_end);
        if end >= self.old_end || mark_end <= self.blank_end {
            return 0;
        }
        self.blank_end = mark_end.next_multiple_of(PAGE).min(self.old_end);
        self.blank_end - end
    }

    /// Ensures that the disk has room for this many more bytes.
    pub(super) fn reserve(&mut self, more: u64) {
        let end = self.len + more;
        if end > self.reserved {
            self.reserved = end + (end / 4).clamp(*RESERVED_AHEAD.start(), *RESERVED_AHEAD.end());
            self.file.reserve(self.reserved);
        }
    }
}

/// Whether a write failed for lack of room.
fn is_lack_of_room(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Creates the segments of one run of the process.
#[derive(Clone)]
pub(super) struct SegmentMaker {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) hash_seed: [u8; 16],
    pub(super) generation: u64,
    pub(super) keys: Option<Arc<Keyring>>,
}

impl SegmentMaker {
    /// Creates a segment with its header, durably, entry and content.
    pub(super) fn create(&self, number: u64, kind: u32) -> Result<SegmentFile, PersistError> {
        let name = segment_name(number);
        let path = self.storage.path(&name);
        let file: Arc<dyn StorageFile> =
            Arc::from(self.storage.create(&name).map_err(PersistError::io("create", &path))?);
        let (header, cipher) = self.header(number, kind, false);
        let segment = SegmentFile::begin(file, &header, cipher, 0).map_err(PersistError::io("write", &path))?;
        self.storage.sync_dir().map_err(PersistError::io("sync", self.storage.path("")))?;
        Ok(segment)
    }

    /// Opens a segment that is no longer needed, to be recycled.
    pub(super) fn open(&self, number: u64) -> std::io::Result<SegmentFile> {
        let name = segment_name(number);
        let reader = self.storage.reader(&name)?;
        let (len, mut head) = (reader.len()?, [0; SEGMENT_HEADER]);
        reader.read_at(0, &mut head)?;
        let file: Arc<dyn StorageFile> = Arc::from(self.storage.open(&name)?);
        let key = read_segment_header(&head).ok().filter(|header| header.key != 0).zip(self.keys.as_ref());
        let cipher = key.and_then(|(was, keys)| keys.open_file(was.key, FileKind::Segment, number, was.generation));
        Ok(SegmentFile { number, file, detached: false, len, reserved: len, old_end: len, blank_end: 0, cipher })
    }

    /// Turns a segment that is no longer needed into an attached one. A crash on the way leaves either the file under
    /// its old name or the new segment.
    ///
    /// The segment's own handle stays in use, because another one could cut the file when it is closed.
    pub(super) fn recycle(&self, number: u64, retired: SegmentFile) -> Result<SegmentFile, PersistError> {
        let (from, to) = (segment_name(retired.number), segment_name(number));
        let path = self.storage.path(&from);
        let mut old_end = retired.len.max(retired.old_end);
        if old_end > RECYCLED_MAX {
            old_end = RECYCLED_MAX;
            retired.file.set_len(old_end).map_err(PersistError::io("cut", &path))?;
        }
        let (header, cipher) = self.header(number, SEGMENT_ATTACHED, true);
        let segment = SegmentFile::begin(retired.file, &header, cipher, old_end);
        let segment = segment.map_err(PersistError::io("write", &path))?;
        self.storage.rename(&from, &to).map_err(PersistError::io("rename", &path))?;
        self.storage.sync_dir().map_err(PersistError::io("sync", self.storage.path("")))?;
        Ok(segment)
    }

    /// Whether a new segment may leave the bytes of an older one behind its own: what was written in the clear would
    /// stay readable in an encrypted one.
    pub(super) fn may_recycle(&self, retired: &SegmentFile) -> bool {
        let encrypts = self.keys.as_ref().is_some_and(|keys| keys.writes());
        retired.cipher.is_some() || !encrypts
    }

    fn header(&self, number: u64, kind: u32, recycled: bool) -> (SegmentHeader, Option<FileCipher>) {
        let (hash_seed, generation) = (self.hash_seed, self.generation);
        let cipher = self.keys.as_ref().and_then(|keys| keys.seal(FileKind::Segment, number, generation));
        let key = cipher.as_ref().map_or(0, FileCipher::key_id);
        let version = if key == 0 { VERSION } else { VERSION_ENCRYPTED };
        (SegmentHeader { version, kind, number, generation, hash_seed, recycled, key }, cipher)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Notes what is asked of it.
    #[derive(Default)]
    struct Noted {
        /// How long it may become.
        room: Option<u64>,
        /// What a write beyond that fails with.
        fails_with: Option<ErrorKind>,
        reserved: Mutex<Vec<u64>>,
        written: Mutex<Vec<(u64, Vec<u8>)>>,
    }

    impl StorageFile for Noted {
        fn append(&self, _: &[u8]) -> std::io::Result<()> {
            unreachable!("a segment says where it writes")
        }
        fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            if self.room.is_some_and(|room| offset + bytes.len() as u64 > room) {
                return Err(self.fails_with.unwrap_or(ErrorKind::StorageFull).into());
            }
            self.written.lock().push((offset, bytes.to_vec()));
            Ok(())
        }
        fn sync_data(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> std::io::Result<()> {
            Ok(())
        }
        fn reserve(&self, len: u64) {
            self.reserved.lock().push(len);
        }
    }

    fn begun(old_end: u64) -> (Arc<Noted>, SegmentFile) {
        begun_in(old_end, Noted::default())
    }

    fn begun_in(old_end: u64, file: Noted) -> (Arc<Noted>, SegmentFile) {
        let file = Arc::new(file);
        let header = SegmentHeader {
            version: VERSION,
            kind: SEGMENT_ATTACHED,
            number: 1,
            generation: 2,
            hash_seed: *b"0123456789abcdef",
            recycled: old_end > 0,
            key: 0,
        };
        let segment = SegmentFile::begin(Arc::clone(&file) as Arc<dyn StorageFile>, &header, None, old_end).unwrap();
        (file, segment)
    }

    /// Does to an image what was written.
    fn put(file: &Noted, image: &mut Vec<u8>) {
        for (at, bytes) in file.written.lock().drain(..) {
            let end = at as usize + bytes.len();
            image.resize(image.len().max(end), 0);
            image[at as usize..end].copy_from_slice(&bytes);
        }
    }

    #[test]
    fn room_is_asked_for_ahead_and_seldom() {
        let (file, mut segment) = begun(0);
        let asked = &file.reserved;
        segment.reserve(0);
        assert_eq!(*asked.lock(), [64 + (1 << 20)], "room for the first blocks");
        for block in [100, 1000, 5_000_000, 64].into_iter().cycle().take(200) {
            segment.reserve(block);
            segment.len += block;
            let reserved = *asked.lock().last().expect("asked before");
            assert!((segment.len..=segment.len + (16 << 20)).contains(&reserved), "{reserved} for {}", segment.len);
        }
        assert_eq!(segment.len, 250_058_264);
        let calls = asked.lock().len();
        assert!((15..40).contains(&calls), "asked {calls} times");
        // What is written over needs no room.
        let (file, mut segment) = begun(1 << 20);
        segment.reserve((1 << 20) - 64);
        assert!(file.reserved.lock().is_empty());
        segment.reserve(1 << 20);
        assert_eq!(file.reserved.lock().len(), 1);
    }

    #[test]
    fn zeros_follow_what_is_written_over_and_only_that() {
        let places = |old_end, blocks: &[usize]| -> Vec<(u64, usize)> {
            let (file, mut segment) = begun(old_end);
            for len in blocks {
                segment.write(&mut vec![1; *len], FsyncPolicy::EverySec).unwrap();
            }
            let written = file.written.lock();
            written.iter().map(|(at, bytes)| (*at, bytes.len())).collect()
        };
        // To the end of the page; not again within it; and a page more where there is no room for the mark.
        let expected = [(0, 4096), (64, 100), (164, 3924), (4088, 8 + 4096), (4096, 8192)];
        assert_eq!(places(1 << 20, &[100, 3924, 8, 8184]), expected);
        // Beyond the old end none but those ahead of need.
        assert_eq!(places(100, &[30, 6, 50]), [(0, 100), (64, 30), (94, 6), (100, 924), (100, 50)]);
        assert_eq!(places(5000, &[5000]), [(0, 4096), (5000, 120), (64, 5000)]);
    }

    #[test]
    fn zeros_ahead_of_need_are_written_seldom_and_once() {
        let places = |policy, blocks: &[usize]| -> Vec<(u64, usize)> {
            let (file, mut segment) = begun(0);
            for len in blocks {
                segment.write(&mut vec![1; *len], policy).unwrap();
            }
            let written = file.written.lock().drain(1..).map(|(at, bytes)| (at, bytes.len())).collect();
            assert!(segment.len <= segment.old_end);
            written
        };
        let blocks = [100, 860, 1, 5000, 100];
        let expected =
            [(64, 960), (64, 100), (164, 860), (1024, 1024), (1024, 1), (5120, 1024), (1025, 5000), (6025, 100)];
        assert_eq!(places(FsyncPolicy::No, &blocks), expected);
        let expected = [(64, 1984), (64, 100), (164, 860), (1024, 1), (4096, 2048), (1025, 5000), (6025, 100)];
        assert_eq!(places(FsyncPolicy::Always, &blocks), expected);
    }

    #[test]
    fn a_disk_without_room_ahead_takes_what_it_has_room_for() {
        for policy in [FsyncPolicy::Always, FsyncPolicy::EverySec] {
            let (file, mut segment) = begun_in(0, Noted { room: Some(1300), ..Noted::default() });
            for number in 1..=12 {
                segment.write(&mut vec![number; 100], policy).unwrap();
            }
            assert!(segment.write(&mut vec![1; 100], policy).is_err());
            let mut image = vec![0xEE; 20_000];
            put(&file, &mut image);
            for number in 1..=12 {
                let at = 64 + (number - 1) * 100;
                assert_eq!(image[at..at + 100], [number as u8; 100], "{policy:?}");
            }
        }
    }

    #[test]
    fn a_disk_that_fails_under_zeros_ahead_fails_the_write() {
        for (kind, is_noticed) in [(ErrorKind::Other, true), (ErrorKind::QuotaExceeded, false)] {
            let (_, mut segment) = begun_in(0, Noted { room: Some(500), fails_with: Some(kind), ..Noted::default() });
            assert_eq!(segment.write(&mut vec![1; 100], FsyncPolicy::EverySec).is_err(), is_noticed, "{kind}");
        }
    }

    #[test]
    fn behind_every_block_stands_the_mark_whatever_was_there() {
        let mut image = vec![0xEE; 20_000];
        let (file, mut segment) = begun(image.len() as u64);
        put(&file, &mut image);
        for len in (1..400).map(|n| n * 7919 % 300 + 1) {
            segment.write(&mut vec![0xBB; len], FsyncPolicy::EverySec).unwrap();
            put(&file, &mut image);
            assert!(crate::persist::block::is_end_mark(&image, segment.len as usize), "behind {}", segment.len);
        }
        assert_eq!(image.len() as u64, segment.len.next_multiple_of(AHEAD), "written beyond the old end");
    }
}

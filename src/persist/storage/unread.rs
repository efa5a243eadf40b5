//! A file that is mapped and was not read. In a map, a sector that cannot be read kills the process; so each page is
//! read once, by a call that can fail, before anybody looks at it in the map.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{FileBytes, Storage, StorageReader};

const PAGE: usize = 4096;
/// How many pages are read at a time.
const PAGES_AT_ONCE: usize = 256;
const BITS: usize = u64::BITS as usize;

/// See the module.
pub struct Unread {
    reader: Box<dyn StorageReader>,
    /// Which pages were read, a bit for each.
    pages: Vec<AtomicU64>,
    len: usize,
}

impl Unread {
    /// Maps a file.
    ///
    /// # Errors
    /// The system refused.
    pub fn open(storage: &dyn Storage, name: &str) -> io::Result<(FileBytes, Unread)> {
        let (bytes, reader) = (storage.map(name)?, storage.reader(name)?);
        let words = bytes.len().div_ceil(PAGE).div_ceil(BITS);
        let pages = (0..words).map(|_| AtomicU64::new(0)).collect();
        let len = bytes.len();
        Ok((bytes, Unread { reader, pages, len }))
    }

    fn has(&self, page: usize) -> bool {
        self.pages[page / BITS].load(Relaxed) & 1 << (page % BITS) != 0
    }

    /// Makes so many bytes from an offset safe to look at, as far as the file has them.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn reach(&self, from: usize, len: usize) -> io::Result<()> {
        let end = from.saturating_add(len).min(self.len);
        let mut page = from / PAGE;
        while page * PAGE < end {
            if self.has(page) {
                page += 1;
                continue;
            }
            let last = end.div_ceil(PAGE).min(page + PAGES_AT_ONCE);
            let unread = (page..last).take_while(|&page| !self.has(page)).count();
            let mut bytes = vec![0; unread * PAGE];
            let at = (page * PAGE) as u64;
            let read = |error: io::Error| io::Error::new(error.kind(), format!("at offset {at}: {error}"));
            self.reader.read_at(at, &mut bytes).map_err(read)?;
            for page in page..page + unread {
                self.pages[page / BITS].fetch_or(1 << (page % BITS), Relaxed);
            }
            page += unread;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::storage::RealStorage;

    #[test]
    fn pages_are_read_once_and_the_end_is_respected() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let content: Vec<u8> = (0..3_000_001_u32).map(|n| (n / 7) as u8).collect();
        storage.create("file").unwrap().append(&content).unwrap();
        let (bytes, unread) = Unread::open(&storage, "file").unwrap();
        assert!(matches!(bytes, FileBytes::Mapped(_)) && *bytes == content[..]);
        let read = || unread.pages.iter().map(|word| word.load(Relaxed).count_ones()).sum::<u32>();
        unread.reach(5000, 0).unwrap();
        unread.reach(4096, 4096).unwrap();
        unread.reach(8191, 1).unwrap();
        assert_eq!(read(), 1);
        unread.reach(8191, 2).unwrap();
        assert!(read() == 2 && unread.has(1) && unread.has(2) && !unread.has(0));
        unread.reach(0, usize::MAX).unwrap();
        assert_eq!(read(), 3_000_001_u32.div_ceil(4096));
        unread.reach(usize::MAX, usize::MAX).unwrap();
    }
}

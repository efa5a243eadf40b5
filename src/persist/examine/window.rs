//! A file through a window of bounded size.

use std::io;

use crate::persist::storage::StorageReader;

/// How much is read at a time, in bytes; less in tests, which have small files.
pub(crate) const PIECE: usize = if cfg!(test) { 256 } else { 1 << 20 };

/// Reads a file mostly from front to back.
pub(crate) struct Window {
    reader: Box<dyn StorageReader>,
    start: u64,
    bytes: Vec<u8>,
    /// Whether nothing of what is read stays in the system's cache.
    past_cache: bool,
}

impl Window {
    pub(crate) fn new(reader: Box<dyn StorageReader>) -> Window {
        Window { reader, start: 0, bytes: Vec::new(), past_cache: false }
    }

    /// Leaves nothing of what it reads in the system's cache, and finds nothing there.
    pub(crate) fn past_cache(mut self) -> Window {
        self.past_cache = true;
        self
    }

    /// The file's length now.
    pub(crate) fn file_len(&self) -> io::Result<u64> {
        self.reader.len()
    }

    /// Up to `len` bytes at an offset, at most [`PIECE`]: fewer only at the end of the file.
    pub(crate) fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(PIECE);
        let inside = at >= self.start && at - self.start + len as u64 <= self.bytes.len() as u64;
        if !inside {
            self.bytes.resize(PIECE, 0);
            if self.past_cache {
                // What somebody else has read would hide the disk.
                self.reader.uncache(at, PIECE as u64);
            }
            let count = self.reader.read_at(at, &mut self.bytes);
            if self.past_cache {
                self.reader.uncache(at, PIECE as u64);
            }
            // After an error nothing is known.
            self.bytes.truncate(*count.as_ref().unwrap_or(&0));
            self.start = at;
            count?;
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from..self.bytes.len().min(from + len)])
    }

    /// Everything from one offset up to another, or to the end of the file, piece by piece.
    pub(crate) fn each(&mut self, from: u64, to: u64, mut take: impl FnMut(u64, &[u8])) -> io::Result<u64> {
        let mut at = from;
        while at < to {
            let piece = self.get(at, usize::try_from(to - at).unwrap_or(PIECE))?;
            if piece.is_empty() {
                break;
            }
            take(at, piece);
            at += piece.len() as u64;
        }
        Ok(at)
    }

    /// Forgets what was read: the file may have changed.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
    }
}

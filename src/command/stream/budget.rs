//! What one XREAD or XREADGROUP may still give: MAXCOUNT and MAXSIZE, which count over all its streams.
//!
//! Invariant: the first entry is always given, however large it is.

use super::entry_reply;
use crate::core::{CommandError, Words, args};
use crate::resp::{Output, Reply, Resp};
use crate::value::stream::Entry;

/// The entries and the bytes that are left.
#[derive(Debug)]
pub(super) struct Budget {
    entries: usize,
    bytes: usize,
    /// Whether there is a limit at all.
    pub(super) is_limited: bool,
    has_given: bool,
    scratch: Output,
}

impl Default for Budget {
    fn default() -> Self {
        let scratch = Output::new();
        Budget { entries: usize::MAX, bytes: usize::MAX, is_limited: false, has_given: false, scratch }
    }
}

impl Budget {
    /// Takes MAXCOUNT or MAXSIZE and its value. Returns whether the word is one of them.
    ///
    /// # Errors
    /// The value is no number above 0.
    pub(super) fn take_option(&mut self, word: &[u8], words: &mut Words<'_>) -> Result<bool, CommandError> {
        let (limit, text) = if args::is(word, "MAXCOUNT") {
            (&mut self.entries, "MAXCOUNT should be greater than 0")
        } else if args::is(word, "MAXSIZE") {
            (&mut self.bytes, "MAXSIZE should be greater than 0")
        } else {
            return Ok(false);
        };
        *limit = args::positive(words.value()?, text)?;
        self.is_limited = true;
        Ok(true)
    }

    /// How many of these entries, which may be deleted ones, may be given: `most` without a limit. They count as given.
    pub(super) fn spend<'e>(&mut self, entries: impl Iterator<Item = Option<Entry<'e>>>, most: usize) -> usize {
        if !self.is_limited {
            return most;
        }
        let mut count = 0;
        for entry in entries.take(most) {
            let bytes = entry.map_or(0, |entry| {
                self.scratch.clear();
                entry_reply(Reply::new(&mut self.scratch, Resp::V2), &entry);
                self.scratch.len()
            });
            if self.has_given && (self.entries == 0 || bytes > self.bytes) {
                // Nothing behind it is given, either.
                (self.entries, self.bytes) = (0, 0);
                break;
            }
            self.has_given = true;
            self.entries = self.entries.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes);
            count += 1;
        }
        count
    }
}

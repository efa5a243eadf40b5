//! Reads the commands of an append-only file, one at a time.
//!
//! ```text
//! file       [an RDB file] (annotation | command)*
//! command    *words\r\n ($length\r\n bytes \r\n)*
//! annotation #…\r\n                                    a time: #TS:seconds
//! ```

use super::source::{Fault, Source, Taken};
use crate::persist::PersistError;
use crate::resp::Args;
use crate::resp::request::Span;

/// The longest line that stands around words, in bytes: a mark, a number, and the end.
const LINE_BYTES_MAX: usize = 1 << 10;
/// Buffers above this are given back after a command, in bytes.
const KEPT_BYTES: usize = 1 << 20;

/// The next piece of an append-only file.
#[derive(Debug)]
pub enum AofItem<'a> {
    /// A command.
    Command(AofCommand<'a>),
    /// The file ends in the middle of a command that begins here.
    Torn(u64),
    /// The file has ended.
    End,
}

/// A command of an append-only file.
#[derive(Clone, Copy)]
pub struct AofCommand<'a> {
    /// Where it begins in the file.
    pub offset: u64,
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> AofCommand<'a> {
    /// The words. There is at least one.
    pub fn args(self) -> Args<'a> {
        Args::new(self.bytes, self.spans)
    }

    /// The command as a client sends it.
    pub fn request(self) -> &'a [u8] {
        self.bytes
    }
}

impl std::fmt::Debug for AofCommand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.bytes.escape_ascii(), self.offset)
    }
}

/// See the module.
#[derive(Debug)]
pub struct AofFile {
    source: Source,
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl AofFile {
    /// Reads commands from here on: from the beginning of a file, or from the end of the RDB file that opens it.
    pub fn new(source: Source) -> AofFile {
        AofFile { source, bytes: Vec::new(), spans: Vec::new() }
    }

    /// Where the next piece begins.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The memory for a command, in bytes.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.bytes.capacity() + self.spans.capacity() * size_of::<Span>()
    }

    /// An error about what begins here.
    pub fn error_at(&self, offset: u64, what: &str) -> PersistError {
        PersistError::corrupt(self.source.file(), offset, what)
    }

    /// The next command.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn next_item(&mut self) -> Result<AofItem<'_>, PersistError> {
        if self.bytes.capacity() > KEPT_BYTES || self.spans.capacity() > KEPT_BYTES / size_of::<Span>() {
            (self.bytes, self.spans) = (Vec::new(), Vec::new());
        }
        let offset = loop {
            let offset = self.source.offset();
            self.bytes.clear();
            self.spans.clear();
            match self.advance() {
                Ok(Some(true)) => break offset,
                Ok(Some(false)) => {}
                Ok(None) => return Ok(AofItem::End),
                Err(Fault::End) => return Ok(AofItem::Torn(offset)),
                Err(fault) => return Err(self.source.error(fault, &format!("the command at offset {offset}"))),
            }
        };
        Ok(AofItem::Command(AofCommand { offset, bytes: &self.bytes, spans: &self.spans }))
    }

    /// Reads a command, or an annotation: then it is false. `None` at the end of the file.
    fn advance(&mut self) -> Taken<Option<bool>> {
        match self.source.peek()? {
            None => return Ok(None),
            Some(b'#') => {
                self.source.line(&mut self.bytes, LINE_BYTES_MAX)?;
                return Ok(Some(false));
            }
            Some(b'*') => {}
            Some(_) => return Err(Fault::Wrong("no command begins here")),
        }
        let words = self.number(b'*')?;
        if words == 0 {
            return Err(Fault::Wrong("a command without words"));
        }
        for _ in 0..words {
            let len = self.number(b'$')?;
            let start = self.bytes.len();
            self.source.copy(len, Some(&mut self.bytes))?;
            self.spans.push(Span { start, len: self.bytes.len() - start });
            if self.source.array()? != *b"\r\n" {
                return Err(Fault::Wrong("a word is longer than it says"));
            }
            self.bytes.extend_from_slice(b"\r\n");
        }
        Ok(Some(true))
    }

    /// Reads a line of a mark and a number.
    fn number(&mut self, mark: u8) -> Taken<u64> {
        let start = self.bytes.len();
        if self.source.byte()? != mark {
            return Err(Fault::Wrong("a length is missing"));
        }
        self.bytes.push(mark);
        self.source.line(&mut self.bytes, LINE_BYTES_MAX)?;
        let digits = self.bytes[start + 1..].strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
        digits.and_then(|digits| digits.parse().ok()).ok_or(Fault::Wrong("a length is no number"))
    }
}

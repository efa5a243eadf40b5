//! Bytes from a file, in order: a buffer of fixed size, the offset, and the checksum of what was taken.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::progress::Progress;
use crate::persist::PersistError;
use crate::persist::rdb::footer::Checksum;

/// How much is read at a time, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Why nothing more can be taken.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file ends here.
    End,
    /// The bytes mean nothing.
    Wrong(&'static str),
    /// The file cannot be read.
    Io(io::Error),
}

/// Something that was taken.
pub(super) type Taken<T> = Result<T, Fault>;

/// See the module.
pub struct Source {
    input: Box<dyn Read + Send>,
    file: PathBuf,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// The offset of the buffer in the file.
    base: u64,
    /// The checksum of what was taken before `summed`.
    sum: Option<Checksum>,
    summed: usize,
    progress: Option<Arc<Progress>>,
}

impl Source {
    /// A file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Source, PersistError> {
        let file = File::open(path).map_err(PersistError::io("open", path))?;
        Ok(Source::new(Box::new(file), path))
    }

    /// Anything that gives bytes; `path` is for errors.
    pub fn new(input: Box<dyn Read + Send>, path: &Path) -> Source {
        Source {
            input,
            file: path.to_path_buf(),
            buffer: vec![0; BUFFER_BYTES].into(),
            at: 0,
            end: 0,
            base: 0,
            sum: None,
            summed: 0,
            progress: None,
        }
    }

    /// Tells how many bytes are read.
    pub fn count_into(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Begins a checksum at the next byte.
    pub(super) fn begin_sum(&mut self) {
        (self.sum, self.summed) = (Some(Checksum::new()), self.at);
    }

    /// Ends it, and returns it.
    pub(super) fn end_sum(&mut self) -> u64 {
        self.sum_up();
        self.sum.take().map_or(0, Checksum::value)
    }

    fn sum_up(&mut self) {
        if let Some(sum) = &mut self.sum {
            sum.add(&self.buffer[self.summed..self.at]);
        }
        self.summed = self.at;
    }

    /// The bytes that are there already; none at the end of the file.
    fn some(&mut self) -> Taken<&[u8]> {
        if self.at == self.end {
            self.sum_up();
            self.base += self.end as u64;
            (self.at, self.end, self.summed) = (0, 0, 0);
            self.end = loop {
                match self.input.read(&mut self.buffer) {
                    Ok(count) => break count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Fault::Io(error)),
                }
            };
            if let Some(progress) = &self.progress {
                progress.add(self.end as u64);
            }
        }
        Ok(&self.buffer[self.at..self.end])
    }

    /// The next byte, without taking it; `None` at the end of the file.
    pub(super) fn peek(&mut self) -> Taken<Option<u8>> {
        self.some().map(|bytes| bytes.first().copied())
    }

    /// The next bytes of the buffer, without taking them: at least one, except at the end of the file.
    pub(super) fn ahead(&mut self) -> Taken<&[u8]> {
        self.some()
    }

    pub(super) fn byte(&mut self) -> Taken<u8> {
        let byte = self.peek()?.ok_or(Fault::End)?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Taken<[u8; N]> {
        let mut taken = [0; N];
        for byte in &mut taken {
            *byte = self.byte()?;
        }
        Ok(taken)
    }

    /// Takes `len` bytes, into a buffer that grows as they come, or nowhere.
    pub(super) fn copy(&mut self, len: u64, mut into: Option<&mut Vec<u8>>) -> Taken<()> {
        let mut left = len;
        while left > 0 {
            let bytes = self.some()?;
            if bytes.is_empty() {
                return Err(Fault::End);
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            if let Some(into) = &mut into {
                into.extend_from_slice(&bytes[..count]);
            }
            self.at += count;
            left -= count as u64;
        }
        Ok(())
    }

    /// Takes a line, with its end, of at most so many bytes.
    pub(super) fn line(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> Taken<()> {
        for _ in 0..bytes_max {
            let byte = self.byte()?;
            into.push(byte);
            if byte == b'\n' {
                return Ok(());
            }
        }
        Err(Fault::Wrong("a line is too long"))
    }

    /// The error that a fault stands for, here. `what` says what was being read.
    pub(super) fn error(&self, fault: Fault, what: &str) -> PersistError {
        self.error_at(self.offset(), fault, what)
    }

    /// The same, at another place.
    pub(super) fn error_at(&self, offset: u64, fault: Fault, what: &str) -> PersistError {
        let named = |problem: &str| match what.is_empty() {
            true => problem.to_owned(),
            false => format!("{what}: {problem}"),
        };
        match fault {
            Fault::End => PersistError::corrupt(&self.file, offset, named("the file ends too early")),
            Fault::Wrong(problem) => PersistError::corrupt(&self.file, offset, named(problem)),
            Fault::Io(source) => PersistError::Io {
                op: "read",
                path: self.file.clone(),
                source: io::Error::new(source.kind(), format!("at offset {offset}: {source}")),
            },
        }
    }
}

//! Writes an RDB file from payloads of DUMP, one key at a time.
//!
//! A value is written as it is if the version of the file has its type, and otherwise in an older type. Without a
//! given version, the file gets the oldest that has all types in it: 10 for most, 12 once a field of a hash expires,
//! 80 for the same from Valkey. The head of the file is corrected at the end, and the checksum is then made anew.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use super::file_version::{FileVersion, VERSION_USUAL, has, older, version_of};
use super::opcode;
use crate::base::config::RdbVersionCheck;
use crate::persist::rdb::footer::{self, Checksum, FOOTER};
use crate::persist::rdb::{Dialect, DumpWriter, RdbType};

/// The version that has libraries of functions.
const VERSION_OF_FUNCTIONS: u16 = 10;
/// How much is written, or read again, at once, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// What stands beside a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyFacts {
    /// When it expires, Unix ms.
    pub expiry: Option<i64>,
    /// For how long it has not been used, in seconds.
    pub idle_seconds: Option<u64>,
    /// The logarithmic counter of its uses.
    pub frequency: Option<u8>,
}

/// See the module.
pub struct RdbFileWriter {
    out: BufWriter<File>,
    sum: Checksum,
    /// The version that was asked for.
    asked: Option<FileVersion>,
    /// The version that the file needs so far.
    needed: FileVersion,
    db: Option<u32>,
    keys: u64,
}

impl RdbFileWriter {
    /// Begins a file, which is open for reading, too, and empty.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(file: File, version: Option<FileVersion>, aux: &[(&str, &str)]) -> io::Result<RdbFileWriter> {
        let needed = version.unwrap_or(VERSION_USUAL);
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut writer = RdbFileWriter { out, sum: Checksum::new(), asked: version, needed, db: None, keys: 0 };
        writer.put(needed.header().as_bytes())?;
        // Redis has them since version 7.
        for (name, value) in aux.iter().filter(|_| needed.number() >= 7) {
            writer.put(&[opcode::AUX])?;
            writer.string(name.as_bytes())?;
            writer.string(value.as_bytes())?;
        }
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.add(bytes);
        self.out.write_all(bytes)
    }

    fn primitive(&mut self, write: impl FnOnce(&mut DumpWriter)) -> io::Result<()> {
        let mut writer = DumpWriter::new(RdbType::String);
        write(&mut writer);
        self.put(&writer.into_body())
    }

    fn string(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.primitive(|writer| writer.string(bytes))
    }

    /// How many keys were written.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Adds a library of functions.
    ///
    /// # Errors
    /// The version has none, or the file cannot be written.
    pub fn library(&mut self, text: &[u8]) -> io::Result<()> {
        if self.needed.number() < VERSION_OF_FUNCTIONS {
            return Err(io::Error::other(format!("RDB version {} has no functions", self.needed.number())));
        }
        self.put(&[opcode::FUNCTION])?;
        self.string(text)
    }

    /// Adds a key with the payload that DUMP gave.
    ///
    /// # Errors
    /// The payload is damaged, the version has no type for it, or the file cannot be written.
    pub fn key(&mut self, db: u32, name: &[u8], facts: KeyFacts, payload: &[u8]) -> io::Result<()> {
        let value = self
            .fitting(payload)
            .map_err(|what| io::Error::other(format!("key '{}' of database {db}: {what}", name.escape_ascii())))?;
        if self.db != Some(db) {
            self.put(&[opcode::SELECT])?;
            self.primitive(|writer| writer.length(u64::from(db)))?;
            self.db = Some(db);
        }
        if let Some(expiry) = facts.expiry {
            self.put(&[opcode::EXPIRY_MS])?;
            self.put(&expiry.to_le_bytes())?;
        }
        // Redis has them since version 9.
        match (facts.idle_seconds, facts.frequency) {
            _ if self.needed.number() < 9 => {}
            (Some(seconds), _) => {
                self.put(&[opcode::IDLE])?;
                self.primitive(|writer| writer.length(seconds))?;
            }
            (_, Some(frequency)) => self.put(&[opcode::FREQUENCY, frequency])?,
            (None, None) => {}
        }
        self.put(&value[..1])?;
        self.string(name)?;
        self.put(&value[1..])?;
        self.keys += 1;
        Ok(())
    }

    /// Type and value in a form that the file may hold, and notes what version that needs.
    fn fitting<'p>(&mut self, payload: &'p [u8]) -> Result<Cow<'p, [u8]>, String> {
        let dialect = footer::check(payload, RdbVersionCheck::Strict).map_err(|error| error.to_string())?.1;
        let kind = *payload.first().ok_or("an empty payload")?;
        let body = Cow::Borrowed(&payload[..payload.len() - FOOTER]);
        match self.asked {
            Some(version) if !has(version, kind, dialect) => older(version, payload).map(Cow::Owned),
            Some(_) => Ok(body),
            // One file speaks one dialect.
            None if has(self.needed, kind, dialect) => Ok(body),
            None if self.needed.dialect() == Dialect::Valkey => older(self.needed, payload).map(Cow::Owned),
            None => {
                let version = FileVersion::new(version_of(kind, dialect)).unwrap_or(FileVersion::LAST_OF_REDIS);
                if !has(version, kind, dialect) {
                    return older(version, payload).map(Cow::Owned);
                }
                if version.dialect() == Dialect::Valkey && self.needed.number() > VERSION_USUAL.number() + 1 {
                    return older(self.needed, payload).map(Cow::Owned);
                }
                self.needed = self.needed.max(version);
                Ok(body)
            }
        }
    }

    /// Ends the file. Returns it, its content not synced yet, and its version.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<(File, FileVersion)> {
        self.put(&[opcode::END])?;
        let RdbFileWriter { out, sum, asked, needed, .. } = self;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let mut sum = sum.value();
        if needed != asked.unwrap_or(VERSION_USUAL) {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(needed.header().as_bytes())?;
            sum = sum_of(&mut file)?;
        }
        file.write_all(&sum.to_le_bytes())?;
        Ok((file, needed))
    }
}

/// The checksum of a whole file.
fn sum_of(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut sum = Checksum::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(sum.value()),
            Ok(count) => sum.add(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

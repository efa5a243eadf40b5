//! Reads an RDB file, one key at a time.
//!
//! ```text
//! file    REDIS | version, 4 digits, or VALKEY | version, 3 digits
//!         part*
//!         FF | from version 5: CRC-64 of all before it u64 LE, 0 for none
//!
//! part    FA | name string | value string             about the file: redis-ver, ctime, aof-base …
//!         F5 | string                                 the text of a library of functions
//!         FE | length                                 the database of the keys that follow
//!         FB | length | length                        how many keys it has, and how many of them expire
//!         F4 | length | length | length               the same of a slot
//!         F3 | string | count | (length | length)*    Valkey: a slot that is being imported
//!         F3 | count | (class u32 | marks)*           Redis: what modules note about the next key
//!         F7 | module length | marks                  what a module notes about the file
//!         [FC | time i64 LE, ms  or  FD | time i32 LE, s] [F8 | idle seconds length  or  F9 | frequency u8]
//!              type u8 | key string | value           a key; its value is drawn in `rdb`
//! marks   (1 | length  or  2 | length  or  3 | f32  or  4 | f64  or  5 | string)* | 0       each mark a length
//! ```
//!
//! F6 opens a library as release candidates of Redis 7.0 wrote it; Redis refuses it, and so does this.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::extent::Taking;
use super::file_version::{self, FileVersion};
use super::opcode;
use super::source::{Fault, Source, Taken};
use crate::base::config::RdbVersionCheck;
use crate::base::logging;
use crate::persist::PersistError;
use crate::persist::rdb::footer::VALKEY_VERSION_MIN;
use crate::persist::rdb::{Dialect, RdbError, RdbSink, Reader, decode_value_into};

/// The types of values of modules: of release candidates, and since.
const MODULE_PRE_GA: u8 = 6;
const MODULE: u8 = 7;
/// From this version on, the file ends with a checksum.
const CHECKSUM_SINCE: u16 = 5;
/// The longest magic word and version, in bytes.
const HEADER_BYTES: usize = 9;
/// Buffers above this are given back after a value, in bytes.
const KEPT_BYTES: usize = 1 << 20;

/// The next piece of an RDB file.
#[derive(Debug)]
pub enum RdbItem<'a> {
    /// Something about the file.
    Aux {
        /// What: `redis-ver`, `ctime`.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// The text of a library of functions.
    Library(&'a [u8]),
    /// A key.
    Key(RdbKey<'a>),
}

/// A key of an RDB file, its value not decoded yet.
#[derive(Debug)]
pub struct RdbKey<'a> {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub name: &'a [u8],
    /// When it expires, Unix ms; that may be in the past.
    pub expiry: Option<i64>,
    /// For how long it had not been used, in seconds.
    pub idle_seconds: Option<u64>,
    /// The logarithmic counter of its uses.
    pub frequency: Option<u8>,
    kind: u8,
    dialect: Dialect,
    body: &'a [u8],
    offset: u64,
    source: &'a Source,
}

impl RdbKey<'_> {
    /// Reads the value.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode_into(&self, sink: &mut impl RdbSink) -> Result<(), PersistError> {
        let mut reader = Reader::new(self.body);
        let decoded = decode_value_into(&mut reader, self.kind, self.dialect, sink);
        decoded.map_err(|error| match error {
            RdbError::Footer => self.error("a checksum in a file"),
            RdbError::Format { at, what } => {
                self.source.error_at(self.offset + at as u64, Fault::Wrong(what), &of_key(self.name))
            }
        })?;
        if reader.remaining() == 0 { Ok(()) } else { Err(self.error("bytes after the value")) }
    }

    /// The payload of DUMP for a server that takes this version: the value as it is, if that server has its type.
    ///
    /// # Errors
    /// The value is malformed, or the version has nothing like it.
    pub fn payload(&self, version: FileVersion) -> Result<Vec<u8>, String> {
        file_version::payload(version, self.kind, self.dialect, self.body)
    }

    /// An error about this key.
    pub fn error(&self, what: &str) -> PersistError {
        PersistError::corrupt(self.source.file(), self.offset, format!("{}: {what}", of_key(self.name)))
    }
}

fn of_key(name: &[u8]) -> String {
    format!("key '{}'", logging::user_data(name.escape_ascii()))
}

/// What was found, before it is lent.
enum Found {
    Aux,
    Library,
    Key { kind: u8, offset: u64 },
    Skipped,
    End,
}

/// What stands before a key.
#[derive(Clone, Copy, Default)]
struct Ahead {
    expiry: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct RdbFile {
    source: Source,
    version: u16,
    dialect: Dialect,
    skips_modules: bool,
    skipped: BTreeMap<String, u64>,
    db: u32,
    ahead: Ahead,
    name: Vec<u8>,
    value: Vec<u8>,
    is_at_end: bool,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("file", &self.file()).field("offset", &self.offset()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("expiry", &self.expiry).finish_non_exhaustive()
    }
}

impl RdbFile {
    /// Reads the head of the file. With `skips_modules`, what modules have written is left out and counted; without,
    /// it is an error.
    ///
    /// # Errors
    /// It is no RDB file, or one of a version that is not to be read.
    pub fn open(mut source: Source, skips_modules: bool, versions: RdbVersionCheck) -> Result<RdbFile, PersistError> {
        source.begin_sum();
        let header = source.array::<HEADER_BYTES>().map_err(|fault| source.error(fault, "the head of an RDB file"))?;
        let digits = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u16>().ok());
        let version = match (header.strip_prefix(b"REDIS"), header.strip_prefix(b"VALKEY")) {
            (Some(version), _) => {
                digits(version).filter(|version| *version < VALKEY_VERSION_MIN).map(|version| (version, Dialect::Redis))
            }
            (_, Some(version)) => digits(version).map(|version| (version, Dialect::Valkey)),
            _ => return Err(source.error_at(0, Fault::Wrong("no RDB file"), "")),
        };
        let known = version.filter(|(version, dialect)| {
            *version >= CHECKSUM_SINCE && Dialect::of_version(*version, versions).is_some_and(|known| known == *dialect)
        });
        let Some((version, dialect)) = known else {
            let what = format!("an RDB file of version '{}'", header.escape_ascii());
            return Err(source.error_at(0, Fault::Wrong("it is not known"), &what));
        };
        Ok(RdbFile {
            source,
            version,
            dialect,
            skips_modules,
            skipped: BTreeMap::new(),
            db: 0,
            ahead: Ahead::default(),
            name: Vec::new(),
            value: Vec::new(),
            is_at_end: false,
        })
    }

    /// The version of the file.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// How many values and notes of modules were left out, by the name of the module.
    pub fn skipped(&self) -> &BTreeMap<String, u64> {
        &self.skipped
    }

    /// The memory for keys and values, in bytes.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.name.capacity() + self.value.capacity()
    }

    /// What follows the RDB file, once that has ended.
    pub fn into_source(self) -> Source {
        self.source
    }

    /// The next piece; `None` once the file has ended and its checksum was right.
    ///
    /// # Errors
    /// The file is damaged, or cannot be read.
    pub fn next_item(&mut self) -> Result<Option<RdbItem<'_>>, PersistError> {
        if self.value.capacity() > KEPT_BYTES {
            self.value = Vec::new();
        }
        let found = loop {
            if self.is_at_end {
                return Ok(None);
            }
            self.name.clear();
            self.value.clear();
            match self.advance() {
                Ok(Found::Skipped) => {}
                Ok(found) => break found,
                Err(Refused::Fault(fault)) => {
                    let what = if self.name.is_empty() { String::new() } else { of_key(&self.name) };
                    return Err(self.source.error(fault, &what));
                }
                Err(Refused::Module(module)) => return Err(self.module_error(&module)),
            }
        };
        let Ahead { expiry, idle_seconds, frequency } = std::mem::take(&mut self.ahead);
        Ok(match found {
            Found::End | Found::Skipped => None,
            Found::Aux => Some(RdbItem::Aux { name: &self.name, value: &self.value }),
            Found::Library => Some(RdbItem::Library(&self.value)),
            Found::Key { kind, offset } => Some(RdbItem::Key(RdbKey {
                db: self.db,
                name: &self.name,
                expiry,
                idle_seconds,
                frequency,
                kind,
                dialect: self.dialect,
                body: &self.value,
                offset,
                source: &self.source,
            })),
        })
    }

    fn module_error(&self, module: &str) -> PersistError {
        let key = if self.name.is_empty() { String::new() } else { format!(" of {}", of_key(&self.name)) };
        PersistError::Refused {
            file: self.source.file().to_path_buf(),
            why: format!(
                "at offset {} it holds data{key} of the module '{module}', which cannot be imported; it can be left out",
                self.source.offset()
            ),
        }
    }

    fn keeping(&mut self) -> Taking<'_> {
        Taking { source: &mut self.source, into: Some(&mut self.value) }
    }

    fn dropping(&mut self) -> Taking<'_> {
        Taking { source: &mut self.source, into: None }
    }

    /// Reads a string into `value`, decoded.
    fn string(&mut self) -> Taken<()> {
        let mut raw = std::mem::take(&mut self.value);
        raw.clear();
        let taken = Taking { source: &mut self.source, into: Some(&mut raw) }.string();
        let decoded = taken.and_then(|()| Reader::new(&raw).string().map(Cow::into_owned).map_err(Fault::Wrong));
        self.value = decoded?;
        Ok(())
    }

    /// Reads one piece.
    fn advance(&mut self) -> Result<Found, Refused> {
        let kind = self.source.byte()?;
        match kind {
            opcode::END => {
                self.end()?;
                return Ok(Found::End);
            }
            opcode::AUX => {
                self.string()?;
                self.name = std::mem::take(&mut self.value);
                self.string()?;
                return Ok(Found::Aux);
            }
            opcode::FUNCTION => {
                self.string()?;
                return Ok(Found::Library);
            }
            opcode::FUNCTION_PRE_GA => return Err(Fault::Wrong("a library of a release candidate of Redis 7.0").into()),
            opcode::SELECT => {
                let db = self.dropping().length()?;
                self.db = u32::try_from(db).map_err(|_| Fault::Wrong("a database beyond all numbers"))?;
            }
            opcode::RESIZE => self.dropping().lengths(2)?,
            opcode::SLOT_INFO => {
                self.dropping().lengths(3)?;
            }
            opcode::KEY_META_OR_SLOT_IMPORT if self.dialect == Dialect::Valkey => {
                self.dropping().string()?;
                for _ in 0..self.dropping().length()? {
                    self.dropping().lengths(2)?;
                }
            }
            opcode::KEY_META_OR_SLOT_IMPORT => {
                for _ in 0..self.dropping().length()? {
                    let class = u32::from_le_bytes(self.source.array()?);
                    self.module(&format!("class {class:#010x}"))?;
                }
            }
            opcode::MODULE_AUX => {
                let module = module_name(self.dropping().length()?);
                self.module(&module)?;
            }
            opcode::EXPIRY_MS => self.ahead.expiry = Some(i64::from_le_bytes(self.source.array()?)),
            opcode::EXPIRY_S => {
                self.ahead.expiry = Some(i64::from(i32::from_le_bytes(self.source.array()?)).saturating_mul(1000));
            }
            opcode::IDLE => self.ahead.idle_seconds = Some(self.dropping().length()?),
            opcode::FREQUENCY => self.ahead.frequency = Some(self.source.byte()?),
            kind => return self.key(kind),
        }
        Ok(Found::Skipped)
    }

    fn key(&mut self, kind: u8) -> Result<Found, Refused> {
        self.string()?;
        self.name = std::mem::take(&mut self.value);
        match kind {
            MODULE => {
                let module = module_name(self.dropping().length()?);
                self.module(&module)?;
                self.ahead = Ahead::default();
                return Ok(Found::Skipped);
            }
            MODULE_PRE_GA => {
                let module = module_name(self.dropping().length()?);
                return Err(Refused::Module(format!("{module}, in the form of a release candidate of Redis 4.0")));
            }
            _ => {}
        }
        let offset = self.source.offset();
        let dialect = self.dialect;
        self.keeping().value(kind, dialect)?;
        Ok(Found::Key { kind, offset })
    }

    /// Leaves out what a module has written, if that is allowed.
    fn module(&mut self, name: &str) -> Result<(), Refused> {
        if !self.skips_modules {
            return Err(Refused::Module(name.to_owned()));
        }
        self.dropping().module()?;
        *self.skipped.entry(name.to_owned()).or_default() += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refused> {
        self.is_at_end = true;
        let sum = self.source.end_sum();
        if self.version >= CHECKSUM_SINCE {
            let stored = u64::from_le_bytes(self.source.array()?);
            if stored != 0 && stored != sum {
                return Err(Fault::Wrong("the checksum of the file is another one").into());
            }
        }
        Ok(())
    }
}

/// Why a piece is not read.
enum Refused {
    Fault(Fault),
    Module(String),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::Fault(fault)
    }
}

/// The name that the number of a module spells: nine characters of six bits, and ten bits of a version.
fn module_name(number: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|at| char::from(LETTERS[(number >> (58 - 6 * at) & 63) as usize])).collect()
}

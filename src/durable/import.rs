//! Reads the files of another server, in their order, into a target: a keyspace, or a server elsewhere.
//!
//! ```text
//! RDB file:          libraries and keys, without those that have expired
//! append-only file:  its base, an RDB file or commands, then the commands of each increment
//! ```
//!
//! A file that ends in the middle of a command or of a transaction is taken up to there if it is the last one and
//! `aof-load-truncated` allows it, as by Redis. Everything else that is wrong is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::clock;
use crate::base::config::RdbVersionCheck;
use crate::base::progress::{Display, Progress, Unit, watched};
use crate::persist::PersistError;
use crate::persist::foreign::{
    AofCommand, AofFile, AofItem, Foreign, Piece, PieceKind, RdbFile, RdbItem, RdbKey, Source,
};

/// What to do with what cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Leave out what modules have written.
    pub skips_modules: bool,
    /// Which versions of RDB files are read.
    pub versions: RdbVersionCheck,
    /// Take an append-only file that is cut in its middle up to there.
    pub takes_torn: bool,
}

/// Takes what is read.
pub trait Target {
    /// A library of functions.
    ///
    /// # Errors
    /// It cannot be taken.
    fn library(&mut self, text: &[u8]) -> Result<(), String>;

    /// A key that has not expired.
    ///
    /// # Errors
    /// It is malformed, or cannot be taken.
    fn key(&mut self, key: &RdbKey<'_>) -> Result<(), PersistError>;

    /// Commands of another file follow.
    ///
    /// # Errors
    /// The target is gone.
    fn begin_commands(&mut self) -> Result<(), String>;

    /// A command.
    ///
    /// # Errors
    /// It failed.
    fn command(&mut self, command: AofCommand<'_>) -> Result<(), String>;
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys from RDB files.
    pub keys: u64,
    /// Keys of an RDB file that had expired, which are left out.
    pub expired: u64,
    /// Commands of append-only files.
    pub commands: u64,
    /// Libraries of functions.
    pub libraries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What was left out of modules, by the name of the module.
    pub skipped: BTreeMap<String, u64>,
    /// Where the last file ended in the middle of something.
    pub torn: Option<(PathBuf, u64)>,
    /// What wrote the files, if they say it.
    pub writer: Option<String>,
}

/// Reads all files into the target, and shows the progress in bytes.
///
/// # Errors
/// See the module. What the target has taken by then is worthless.
pub fn read(
    foreign: &Foreign,
    rules: Rules,
    target: &mut impl Target,
    display: Display,
) -> Result<Tally, PersistError> {
    let progress = Arc::new(Progress::of(foreign.bytes()));
    let mut reading = Reading { rules, target, tally: Tally::default(), progress: Arc::clone(&progress) };
    let is_rdb_alone = matches!(&foreign.pieces[..], [piece] if piece.kind == PieceKind::Rdb && !is_manifest(foreign));
    watched(&progress, ("Importing", Unit::Bytes), display, || {
        let mut pieces = foreign.pieces.iter().enumerate();
        pieces.try_for_each(|(at, piece)| reading.piece(piece, is_rdb_alone, at + 1 == foreign.pieces.len()))
    })?;
    reading.tally.bytes = foreign.bytes();
    Ok(reading.tally)
}

/// Whether the files are those of a manifest: then even one alone is an append-only file.
fn is_manifest(foreign: &Foreign) -> bool {
    foreign.pieces.first().is_none_or(|piece| piece.path != foreign.path)
}

struct Reading<'a, T> {
    rules: Rules,
    target: &'a mut T,
    tally: Tally,
    progress: Arc<Progress>,
}

impl<T: Target> Reading<'_, T> {
    fn piece(&mut self, piece: &Piece, is_rdb_alone: bool, is_last: bool) -> Result<(), PersistError> {
        let mut source = Source::open(&piece.path)?;
        source.count_into(Arc::clone(&self.progress));
        let source = match piece.kind {
            PieceKind::Aof => source,
            PieceKind::Rdb => self.rdb(source, is_rdb_alone)?,
        };
        self.commands(AofFile::new(source), &piece.path, is_last)
    }

    fn rdb(&mut self, source: Source, is_alone: bool) -> Result<Source, PersistError> {
        let path = source.file().to_path_buf();
        let mut file = RdbFile::open(source, self.rules.skips_modules, self.rules.versions)?;
        // Commands behind it may speak of a key that has expired.
        let expired_until = if is_alone && !self.has_commands_behind(&path)? { clock::now_ms() } else { i64::MIN };
        while let Some(item) = file.next_item()? {
            match item {
                RdbItem::Aux { name: name @ (b"redis-ver" | b"valkey-ver"), value } => {
                    let program = if name == b"redis-ver" { "Redis" } else { "Valkey" };
                    self.tally.writer = Some(format!("{program} {}", value.escape_ascii()));
                }
                RdbItem::Aux { .. } => {}
                RdbItem::Library(text) => {
                    let taken = self.target.library(text);
                    taken.map_err(|what| refused(&path, format!("a library of functions cannot be taken: {what}")))?;
                    self.tally.libraries += 1;
                }
                RdbItem::Key(key) if key.expiry.is_some_and(|at| at <= expired_until) => self.tally.expired += 1,
                RdbItem::Key(key) => {
                    self.target.key(&key)?;
                    self.tally.keys += 1;
                }
            }
        }
        for (module, count) in file.skipped() {
            *self.tally.skipped.entry(module.clone()).or_default() += count;
        }
        Ok(file.into_source())
    }

    /// Whether a file that begins with an RDB file is an append-only file: then it says so.
    fn has_commands_behind(&self, path: &Path) -> Result<bool, PersistError> {
        let mut file = RdbFile::open(Source::open(path)?, true, self.rules.versions)?;
        // It stands among the first.
        while let Some(RdbItem::Aux { name, value }) = file.next_item()? {
            if name == b"aof-base" || name == b"aof-preamble" {
                return Ok(value == b"1");
            }
        }
        Ok(false)
    }

    fn commands(&mut self, mut file: AofFile, path: &Path, is_last: bool) -> Result<(), PersistError> {
        let begun = self.target.begin_commands();
        begun.map_err(|what| refused(path, what))?;
        let mut transaction = None;
        loop {
            let (offset, failed) = match file.next_item()? {
                AofItem::End => break,
                AofItem::Torn(offset) => {
                    return self.torn(path, transaction.unwrap_or(offset), is_last, "a command");
                }
                AofItem::Command(command) => {
                    let verb = command.args().at(0);
                    if verb.eq_ignore_ascii_case(b"MULTI") {
                        transaction = Some(command.offset);
                    } else if verb.eq_ignore_ascii_case(b"EXEC") || verb.eq_ignore_ascii_case(b"DISCARD") {
                        transaction = None;
                    }
                    let name = verb.escape_ascii().to_string();
                    (command.offset, self.target.command(command).err().map(|error| format!("{name}: {error}")))
                }
            };
            if let Some(what) = failed {
                return Err(file.error_at(offset, &what));
            }
            self.tally.commands += 1;
        }
        match transaction {
            None => Ok(()),
            Some(offset) => self.torn(path, offset, is_last, "a transaction"),
        }
    }

    fn torn(&mut self, path: &Path, offset: u64, is_last: bool, what: &str) -> Result<(), PersistError> {
        if !is_last || !self.rules.takes_torn {
            let what = match is_last {
                true => format!("the file ends within {what}; with `aof-load-truncated yes` it is taken up to there"),
                false => format!("the file ends within {what}, and it is not the last one"),
            };
            return Err(PersistError::corrupt(path, offset, what));
        }
        self.tally.torn = Some((path.to_path_buf(), offset));
        Ok(())
    }
}

fn refused(path: &Path, why: impl Into<String>) -> PersistError {
    PersistError::Refused { file: path.to_path_buf(), why: why.into() }
}

//! What a path holds: an RDB file, an append-only file, or a directory of them.

use std::path::{Path, PathBuf};

use super::aof_manifest;
use super::source::Source;
use crate::persist::PersistError;

/// How a file begins, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// An RDB file, and nothing behind it.
    Rdb,
    /// Commands, perhaps behind an RDB file.
    Aof,
}

/// One file that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub path: PathBuf,
    /// Its kind.
    pub kind: PieceKind,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// Files that together hold the data of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What the operator would call it: the file or the manifest.
    pub path: PathBuf,
    /// The files, in the order in which they are read.
    pub pieces: Vec<Piece>,
}

impl Foreign {
    /// The length of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }
}

fn refused(path: &Path, why: impl Into<String>) -> PersistError {
    PersistError::Refused { file: path.to_path_buf(), why: why.into() }
}

/// The names in a data directory of Redis, by its directives.
#[derive(Clone, Debug)]
pub struct ForeignNames {
    /// `dbfilename`.
    pub rdb: String,
    /// `appenddirname`.
    pub aof_dir: String,
    /// `appendfilename`.
    pub aof: String,
}

impl Default for ForeignNames {
    fn default() -> Self {
        ForeignNames { rdb: "dump.rdb".into(), aof_dir: "appendonlydir".into(), aof: "appendonly.aof".into() }
    }
}

/// Finds the data of a Redis that had this data directory. Of an append-only file and an RDB file, the first is taken
/// if `prefers_aof`, as a Redis with `appendonly yes` does. `None` if there is neither.
///
/// # Errors
/// What is there is not what its name says, or cannot be read.
pub fn in_data_directory(dir: &Path, names: &ForeignNames, prefers_aof: bool) -> Result<Option<Foreign>, PersistError> {
    let manifest = dir.join(&names.aof_dir).join(format!("{}.manifest", names.aof));
    let aof = [manifest, dir.join(&names.aof)].into_iter().find(|path| path.is_file());
    let rdb = Some(dir.join(&names.rdb)).filter(|path| path.is_file());
    let found = if prefers_aof { aof.or(rdb) } else { rdb.or(aof) };
    found.map(|path| at(&path)).transpose()
}

/// Finds what a path holds that an operator has named.
///
/// # Errors
/// It is no data of Redis or Valkey, or an RDB file and an append-only file stand beside each other, or it cannot be
/// read.
pub fn at(path: &Path) -> Result<Foreign, PersistError> {
    let about = std::fs::metadata(path).map_err(PersistError::io("read", path))?;
    if about.is_dir() {
        return in_directory(path);
    }
    if path.extension().is_some_and(|ending| ending == "manifest") {
        return of_manifest(path);
    }
    let piece = piece(path)?;
    Ok(Foreign { path: path.to_path_buf(), pieces: vec![piece] })
}

/// A directory: of an append-only file itself, or one that holds data under their usual names.
fn in_directory(dir: &Path) -> Result<Foreign, PersistError> {
    let mut manifests = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(PersistError::io("list", dir))? {
        let path = entry.map_err(PersistError::io("list", dir))?.path();
        if path.extension().is_some_and(|ending| ending == "manifest") && path.is_file() {
            manifests.push(path);
        }
    }
    match &manifests[..] {
        [manifest] => return of_manifest(manifest),
        [] => {}
        _ => return Err(refused(dir, "it holds several manifests: name the one that counts")),
    }
    let names = ForeignNames::default();
    let (aof, rdb) = (in_data_directory(dir, &names, true)?, in_data_directory(dir, &names, false)?);
    match (aof, rdb) {
        (Some(aof), Some(rdb)) if aof != rdb => Err(refused(
            dir,
            format!("it holds {} and {}: name the one that counts", aof.path.display(), rdb.path.display()),
        )),
        (Some(found), _) => Ok(found),
        _ => Err(refused(dir, "it holds neither a manifest of an append-only file, nor appendonly.aof, nor dump.rdb")),
    }
}

fn of_manifest(path: &Path) -> Result<Foreign, PersistError> {
    let bytes = std::fs::metadata(path).map_err(PersistError::io("read", path))?.len();
    if bytes > aof_manifest::BYTES_MAX {
        return Err(refused(path, "it is too long for a manifest"));
    }
    let text = std::fs::read(path).map_err(PersistError::io("read", path))?;
    let names = aof_manifest::parse(&text).map_err(|what| refused(path, what))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let pieces = names.iter().map(|name| piece(&dir.join(name))).collect::<Result<_, _>>()?;
    Ok(Foreign { path: path.to_path_buf(), pieces })
}

/// Looks at how a file begins.
fn piece(path: &Path) -> Result<Piece, PersistError> {
    let bytes = std::fs::metadata(path).map_err(PersistError::io("read", path))?.len();
    let mut source = Source::open(path)?;
    let ahead = source.ahead();
    let ahead = ahead.map(|bytes| bytes[..bytes.len().min(6)].to_vec());
    let start = ahead.map_err(|fault| source.error(fault, "the beginning of the file"))?;
    let is_rdb = start.starts_with(b"REDIS") || start.starts_with(b"VALKEY");
    let kind = match start.first() {
        // Whether commands follow shows when the RDB file has ended.
        _ if is_rdb => PieceKind::Rdb,
        None | Some(b'*' | b'#') => PieceKind::Aof,
        Some(_) => return Err(refused(path, "it is neither an RDB file nor an append-only file")),
    };
    Ok(Piece { path: path.to_path_buf(), kind, bytes })
}

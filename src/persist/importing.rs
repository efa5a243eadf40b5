//! The mark of an import, which stands in a fresh directory until what is imported is durable.
//!
//! ```text
//! mark ─ files ─ snapshot ─ manifest, which is the commit ─ mark removed
//! ```
//!
//! With the mark and no manifest, everything else that is ours is worthless. With both, the mark is.

use super::error::PersistError;
use super::format::{IMPORTING, LOCK, MANIFEST, is_own_name};
use super::storage::Storage;

/// Clears a directory whose import did not come to its end, if there is to be another one.
///
/// # Errors
/// There is not to be another one, or the disk refuses.
pub(super) fn settle(storage: &dyn Storage, imports: bool) -> Result<(), PersistError> {
    let exists = |name: &str| storage.exists(name).map_err(PersistError::io("look for", storage.path(name)));
    if !exists(IMPORTING)? || exists(MANIFEST)? {
        return Ok(());
    }
    if !imports {
        let why = "the import into this directory did not come to its end: import again, or empty the directory";
        return Err(PersistError::Refused { file: storage.path(IMPORTING), why: why.to_owned() });
    }
    remove_unfinished(storage)
}

/// Sets the mark, durably.
pub(super) fn begin(storage: &dyn Storage) -> Result<(), PersistError> {
    let mark = storage.path(IMPORTING);
    let file = storage.create(IMPORTING).map_err(PersistError::io("create", &mark))?;
    file.sync_data().map_err(PersistError::io("sync", &mark))?;
    storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))
}

/// Removes what an unfinished import has left. The mark goes last, so that it can be done again.
pub(super) fn remove_unfinished(storage: &dyn Storage) -> Result<(), PersistError> {
    let files = storage.list().map_err(PersistError::io("list", storage.path("")))?;
    for name in files.iter().filter(|name| is_own_name(name) && ![LOCK, IMPORTING].contains(&&***name)) {
        storage.remove(name).map_err(PersistError::io("remove", storage.path(name)))?;
    }
    storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
    storage.remove(IMPORTING).map_err(PersistError::io("remove", storage.path(IMPORTING)))
}

/// Removes the mark of an import, if there is one, durably.
pub(super) fn end(storage: &dyn Storage) -> Result<(), PersistError> {
    let mark = storage.path(IMPORTING);
    if storage.exists(IMPORTING).map_err(PersistError::io("look for", &mark))? {
        storage.remove(IMPORTING).map_err(PersistError::io("remove", &mark))?;
        storage.sync_dir().map_err(PersistError::io("sync", storage.path("")))?;
    }
    Ok(())
}

//! Applies each verb that concerns several keys.

use std::sync::Arc;

use super::{Outcome, refused};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::keyspace::{Held, Key, Keyspace, Library, NewValue};
use crate::persist::verbs::Verb;

/// The longest name of a key that [`Verb::Populate`] makes, in bytes.
const POPULATED_KEY_MAX: usize = 127;
/// The least that a value takes, and the most that all of them may take together, in bytes. No log holds more.
const POPULATED_MIN_BYTES: u64 = 32;
const POPULATED_MAX_BYTES: u64 = 1 << 36;

/// Locks what a barrier needs: two shards, or one after another.
pub(super) fn hold<'a>(keyspace: &'a Keyspace, verb: &Verb<'_>) -> Held<'a> {
    match verb {
        Verb::Transfer { source, destination, .. } => {
            let shards = [source, destination].map(|key| keyspace.key(key).shard());
            Held::several(keyspace, &mut shards.into_iter().collect())
        }
        _ => Held::on_demand(keyspace),
    }
}

/// Applies a barrier under the locks of [`hold`].
///
/// # Errors
/// The verb does not fit. Nothing was changed.
pub(super) fn apply(db: &mut Db<'_>, verb: Verb<'_>) -> Outcome {
    let databases = db.keyspace().databases();
    match verb {
        Verb::FlushAll => db.flush(None),
        Verb::FlushDb => db.flush(Some(db.index())),
        Verb::Bury { flush, .. } if db.keyspace().graveyard().graves().iter().any(|grave| grave.id >= flush.id) => {
            return refused("the number of an earlier flush");
        }
        Verb::Bury { all, flush } => db.bury(if all { None } else { Some(db.index()) }, flush),
        Verb::Unbury { id, replaces } => {
            if db.unflush(id, replaces).is_none() {
                return refused("there is no such flush");
            }
        }
        Verb::ForgetBuried { id } => {
            db.forget_flush(id);
        }
        Verb::SwapDbs { one, other } => {
            if one >= databases || other >= databases {
                return refused("a database beyond the `databases` directive");
            }
            db.swap(one, other);
        }
        Verb::Transfer { to_db, .. } if to_db >= databases => {
            return refused("a database beyond the `databases` directive");
        }
        Verb::Transfer { copies, source, to_db, destination } => {
            let keyspace = db.keyspace();
            return transfer(db, copies, keyspace.key(source), to_db, keyspace.key(destination));
        }
        Verb::Populate { count, size, prefix } => return populate(db, count, size, prefix),
        Verb::SetLibrary { name, code } => {
            db.keyspace().change_libraries(|all| all.insert(Arc::new(Library::unread(name, code))));
        }
        Verb::DropLibrary(name) => db.keyspace().change_libraries(|all| {
            all.remove(name);
        }),
        Verb::DropLibraries => drop(db.keyspace().replace_libraries(Arc::default())),
        _ => return refused("no barrier"),
    }
    Ok(())
}

fn transfer(db: &mut Db<'_>, copies: bool, source: Key<'_>, to_db: u32, destination: Key<'_>) -> Outcome {
    let (from_db, is_blessed) = (db.index(), db.is_blessed(source));
    let Some(entry) = db.peek(source) else { return Err(CommandError::Text("there is no source")) };
    let expiry = entry.expiry().map(|at| at as i64);
    let (mut bytes, mut packing) = (Vec::new(), None);
    let value = match entry.to_new_value() {
        NewValue::Bytes(inline) => {
            bytes.extend_from_slice(inline);
            None
        }
        NewValue::Packed(its, inline) => {
            packing = Some(its);
            bytes.extend_from_slice(inline);
            None
        }
        NewValue::Int(number) => Some(NewValue::Int(number)),
        NewValue::Shared(shared) => Some(NewValue::Shared(shared)),
        NewValue::Raw(raw) => Some(NewValue::Raw(raw)),
        NewValue::Heap(heap) => Some(NewValue::Heap(heap)),
    };
    let value = match (value, packing) {
        (Some(value), _) => value,
        (None, Some(packing)) => NewValue::Packed(packing, &bytes),
        (None, None) => NewValue::Bytes(&bytes),
    };
    db.select(to_db);
    db.set(destination, value, expiry);
    db.bless(destination, is_blessed);
    db.select(from_db);
    if !copies && (from_db != to_db || source.bytes != destination.bytes) {
        db.remove(source);
    }
    Ok(())
}

fn populate(db: &mut Db<'_>, count: u64, size: u64, prefix: &[u8]) -> Outcome {
    if count.saturating_mul(size.max(POPULATED_MIN_BYTES)) > POPULATED_MAX_BYTES {
        return refused("more keys than anybody may make at once");
    }
    let keyspace = db.keyspace();
    for index in 0..count {
        let mut name = [prefix, format!(":{index}").as_bytes()].concat();
        name.truncate(POPULATED_KEY_MAX);
        let key = keyspace.key(&name);
        if !db.exists(key) {
            let mut value = format!("value:{index}").into_bytes();
            if size > 0 {
                value.resize(size as usize, 0);
            }
            db.set(key, NewValue::Bytes(&value), None);
        }
        db.release();
    }
    Ok(())
}

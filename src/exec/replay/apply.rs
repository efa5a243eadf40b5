//! Applies each verb to its key.

use super::{Outcome, refused};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::core::stored_string::string_of;
use crate::keyspace::{Key, NewValue};
use crate::persist::WireValue;
use crate::persist::verbs::{Delivery, FieldExpiry, GroupPosition, Ids, PendingEntry, Verb};
use crate::value::codec;
use crate::value::hash::{AnyHash, HashMut, NewExpiry};
use crate::value::hyperloglog::{self, Observation};
use crate::value::list::{AnyList, End, ListMut};
use crate::value::set::{AnySet, SetMut};
use crate::value::stream::{AnyStream, Group, Idempotency, StreamId, StreamMut, Trim};
use crate::value::zset::{AnyZset, Rule, ZsetMut};

/// The most room by which a string or a list grows at once, in bytes.
const ROOM_MAX_BYTES: u64 = 1 << 40;

/// Applies a verb that is not a barrier.
///
/// # Errors
/// The verb does not fit. The key is as it was.
pub(super) fn apply(db: &mut Db<'_>, key: Key<'_>, verb: Verb<'_>) -> Outcome {
    match verb {
        Verb::Set { value, expiry } => set(db, key, value, expiry),
        Verb::Delete => {
            db.remove(key);
            Ok(())
        }
        Verb::ExpireAt(at) => set_expiry(db, key, Some(at)),
        Verb::Persist => set_expiry(db, key, None),
        Verb::Bless if !db.exists(key) => refused("there is no such key"),
        Verb::Bless | Verb::Unbless => {
            db.bless(key, matches!(verb, Verb::Bless));
            Ok(())
        }
        Verb::Append(bytes) => {
            existing_string(db, key)?.extend_from_slice(bytes);
            Ok(())
        }
        Verb::SetRange { offset, bytes } => set_range(db, key, offset, bytes),
        Verb::RaiseRegisters(registers) => raise_registers(db, key, registers),
        Verb::Push(end, elements) => edit_list(db, key, |list| {
            list.expect(elements.count(), elements.map(<[u8]>::len).sum());
            elements.for_each(|element| list.push(element, end));
            Ok(())
        }),
        Verb::HashSet { .. } | Verb::HashDelete(_) | Verb::HashExpireAt { .. } | Verb::HashPersist(_) => {
            apply_to_hash(db, key, verb)
        }
        Verb::SetAdd(members) => edit_set(db, key, |set| {
            let mut others = members;
            others.next().into_iter().for_each(|first| set.expect(members.count(), first));
            for member in members {
                set.add(member);
            }
        }),
        Verb::SetRemove(members) => edit_set(db, key, |set| {
            for member in members {
                set.remove(member);
            }
        }),
        Verb::ZsetSet(_) | Verb::ZsetRemove(_) | Verb::ZsetRemoveRanks { .. } => apply_to_zset(db, key, verb),
        Verb::Pop(..) | Verb::ListSet { .. } | Verb::ListInsert { .. } => apply_to_list(db, key, verb),
        Verb::ListRemove { .. } | Verb::ListKeep { .. } => apply_to_list(db, key, verb),
        verb if verb.code().is_barrier() => refused("a barrier is no record of a key"),
        verb => apply_to_stream(db, key, verb),
    }
}

fn set(db: &mut Db<'_>, key: Key<'_>, value: WireValue<'_>, expiry: Option<u64>) -> Outcome {
    let limits = db.facts().limits;
    let value = match value {
        WireValue::Int(number) => NewValue::Int(number),
        WireValue::Bytes(bytes) => NewValue::Bytes(bytes),
        WireValue::Collection(tag, bytes) => codec::decode(tag, bytes, &limits).map_err(CommandError::Text)?,
    };
    // An expiry has 48 bits: it always fits.
    db.set(key, value, expiry.map(|at| at as i64));
    Ok(())
}

fn set_expiry(db: &mut Db<'_>, key: Key<'_>, at: Option<u64>) -> Outcome {
    if !db.exists(key) {
        return refused("there is no such key");
    }
    db.set_expiry(key, at.map(|at| at as i64));
    Ok(())
}

/// The string at a key that must exist, to be changed.
fn existing_string<'d>(db: &'d mut Db<'_>, key: Key<'_>) -> Result<&'d mut Vec<u8>, CommandError> {
    match db.peek(key) {
        None => return refused("there is no such key"),
        Some(entry) => string_of(entry)?,
    };
    db.raw_mut(key).ok_or(CommandError::WrongType)
}

fn set_range(db: &mut Db<'_>, key: Key<'_>, offset: u64, bytes: &[u8]) -> Outcome {
    let start = usize::try_from(offset).ok().filter(|start| *start as u64 <= ROOM_MAX_BYTES);
    let Some(start) = start else { return refused("an offset beyond all strings") };
    if !db.exists(key) {
        let mut value = Vec::new();
        value.try_reserve_exact(start + bytes.len()).map_err(|_| CommandError::OutOfMemory)?;
        value.resize(start, 0);
        value.extend_from_slice(bytes);
        db.set(key, NewValue::Raw(value), None);
        return Ok(());
    }
    let value = existing_string(db, key)?;
    if value.len() < start {
        value.try_reserve(start - value.len()).map_err(|_| CommandError::OutOfMemory)?;
        value.resize(start, 0);
    }
    let replaced = bytes.len().min(value.len() - start);
    value[start..start + replaced].copy_from_slice(&bytes[..replaced]);
    value.extend_from_slice(&bytes[replaced..]);
    Ok(())
}

fn raise_registers(db: &mut Db<'_>, key: Key<'_>, registers: impl Iterator<Item = (u16, u8)>) -> Outcome {
    const NO_HYPERLOGLOG: &str = "the string is no HyperLogLog";
    let value = existing_string(db, key)?;
    if hyperloglog::encoding(value).is_none() {
        return refused(NO_HYPERLOGLOG);
    }
    let mut raised = value.clone();
    for (register, rank) in registers {
        let seen = Observation { register: usize::from(register), rank };
        hyperloglog::observe(&mut raised, seen, usize::MAX).map_err(|_| CommandError::Text(NO_HYPERLOGLOG))?;
    }
    hyperloglog::invalidate_count(&mut raised);
    *value = raised;
    Ok(())
}

fn edit_list(
    db: &mut Db<'_>,
    key: Key<'_>,
    edit: impl FnOnce(&mut ListMut<'_>) -> Result<(), CommandError>,
) -> Outcome {
    db.edit::<AnyList, _>(key, |list| edit(list).map(|()| ((), 1)))
}

/// The verbs of lists that need elements which are there.
fn apply_to_list(db: &mut Db<'_>, key: Key<'_>, verb: Verb<'_>) -> Outcome {
    const MISSING: &str = "the list does not have so many elements";
    let place = |index: u64, len: usize| {
        let index = usize::try_from(index).ok().filter(|index| *index < len);
        index.ok_or(CommandError::Text(MISSING))
    };
    edit_list(db, key, |list| {
        let len = list.view().len();
        match verb {
            Verb::Pop(end, count) => {
                let Some(count) = usize::try_from(count).ok().filter(|count| *count <= len) else {
                    return refused(MISSING);
                };
                list.remove_range(if end == End::Left { 0..count } else { len - count..len });
            }
            Verb::ListSet { index, element } => {
                let index = place(index, len)?;
                list.expect(1, element.len());
                list.set(index, element);
            }
            Verb::ListInsert { index, element } => {
                let index = place(index, len + 1)?;
                list.expect(1, element.len());
                list.insert(index, element);
            }
            Verb::ListRemove { from, count, element } => {
                let wanted = usize::try_from(count).map_err(|_| CommandError::Text(MISSING))?;
                let equal = crate::value::listpack::Item::canonical(element);
                if list.view().iter().filter(|its| *its == equal).take(wanted).count() < wanted {
                    return refused(MISSING);
                }
                if wanted > 0 {
                    list.remove_equal(element, wanted, from);
                }
            }
            Verb::ListKeep { start, len: kept } => {
                let until = start.checked_add(kept).and_then(|until| usize::try_from(until).ok());
                let Some(until) = until.filter(|until| *until <= len) else { return refused(MISSING) };
                list.remove_range(until..len);
                list.remove_range(0..start as usize);
            }
            _ => return refused("no verb of a list"),
        }
        Ok(())
    })
}

fn apply_to_hash(db: &mut Db<'_>, key: Key<'_>, verb: Verb<'_>) -> Outcome {
    db.edit::<AnyHash, _>(key, |hash| {
        match verb {
            Verb::HashSet { expiry, fields } => {
                let expiry = match expiry {
                    FieldExpiry::Clear => NewExpiry::Clear,
                    FieldExpiry::Keep => NewExpiry::Keep,
                    FieldExpiry::At(at) => NewExpiry::At(at),
                };
                hash.reserve(fields.count());
                for (name, value) in fields {
                    hash.set(name, value, expiry);
                }
            }
            Verb::HashDelete(fields) => {
                for name in fields {
                    hash.remove(name);
                }
            }
            Verb::HashExpireAt { at, fields } => fields.for_each(|name| expire_field(hash, name, Some(at))),
            Verb::HashPersist(fields) => fields.for_each(|name| expire_field(hash, name, None)),
            _ => return refused("no verb of a hash"),
        }
        Ok(((), 1))
    })
}

fn expire_field(hash: &mut HashMut<'_>, name: &[u8], at: Option<u64>) {
    if hash.view().contains(name, 0) {
        hash.set_expiry(name, at);
    }
}

fn edit_set(db: &mut Db<'_>, key: Key<'_>, edit: impl FnOnce(&mut SetMut<'_>)) -> Outcome {
    db.edit::<AnySet, _>(key, |set| {
        edit(set);
        Ok(((), 1))
    })
}

fn apply_to_zset(db: &mut Db<'_>, key: Key<'_>, verb: Verb<'_>) -> Outcome {
    db.edit::<AnyZset, _>(key, |zset: &mut ZsetMut<'_>| {
        match verb {
            Verb::ZsetSet(members) => {
                let mut others = members;
                others.next().into_iter().for_each(|(_, first)| zset.expect(members.count(), first));
                for (score, member) in members {
                    zset.add(member, score, Rule::default());
                }
            }
            Verb::ZsetRemove(members) => {
                for member in members {
                    zset.remove(member);
                }
            }
            Verb::ZsetRemoveRanks { start, count } => {
                let until = start.checked_add(count).and_then(|until| usize::try_from(until).ok());
                let Some(until) = until.filter(|until| *until <= zset.view().len()) else {
                    return refused("the sorted set does not have so many members");
                };
                if count > 0 {
                    zset.remove_range(start as usize..until);
                }
            }
            _ => return refused("no verb of a sorted set"),
        }
        Ok(((), 1))
    })
}

/// The verbs of streams and their groups; all but four want a stream that is there.
fn apply_to_stream(db: &mut Db<'_>, key: Key<'_>, verb: Verb<'_>) -> Outcome {
    let limits = db.facts().limits;
    db.edit::<AnyStream, _>(key, |stream| {
        let makes = matches!(verb, Verb::StreamAdd { .. } | Verb::StreamSetIds { .. } | Verb::GroupCreate { .. });
        if matches!(stream, StreamMut::Fresh(_)) && !makes {
            return refused("there is no such key");
        }
        match verb {
            Verb::StreamAdd { id, fields } => {
                if id <= stream.last_id() {
                    return refused("the entry's id is not above the last one");
                }
                let fields = fields.flat_map(|(name, value)| [name, value]);
                if !stream.append(id, fields, &limits) {
                    return refused("the entry is too large");
                }
            }
            Verb::StreamDelete(ids) => {
                for id in ids {
                    stream.delete(id);
                }
            }
            Verb::StreamTrim(count) => {
                let Some(left) = (stream.len() as u64).checked_sub(count) else {
                    return refused("the stream does not have so many entries");
                };
                stream.trim(Trim::MaxLen(left), false, 0);
            }
            Verb::StreamTrimAcked(id) => {
                stream.trim_acked(id.next().map_or(Trim::MaxLen(0), Trim::MinId), 0);
            }
            Verb::StreamSetIds { last_id, max_deleted_id, entries_added } => {
                if stream.last().is_some_and(|last| last_id < last.id) {
                    return refused("the last id is below that of an entry");
                }
                stream.set_ids(last_id, Some(entries_added), Some(max_deleted_id));
            }
            Verb::StreamForget(ids) => stream.forget(ids),
            Verb::StreamForgetUpTo(id) => stream.forget_up_to(id),
            Verb::StreamWindow(window) => {
                stream.idempotency_mut(window).set_window(window);
            }
            Verb::StreamRemember { forgotten, known } => {
                let Some(window) = stream.idempotency().map(Idempotency::window) else {
                    return refused("the stream has no window for ids of producers");
                };
                stream.idempotency_mut(window).remember(known, forgotten);
            }
            verb => apply_to_group(stream, verb)?,
        }
        Ok(((), 1))
    })
}

fn apply_to_group(stream: &mut StreamMut<'_>, verb: Verb<'_>) -> Outcome {
    let found = match verb {
        Verb::GroupCreate { group, position: GroupPosition { last_id, entries_read } } => {
            if !stream.add_group(group, last_id, entries_read) {
                return refused("there is such a group already");
            }
            Some(())
        }
        Verb::GroupSet { group, position: GroupPosition { last_id, entries_read } } => {
            stream.edit_group(group, |group| (group.last_id, group.entries_read) = (last_id, entries_read))
        }
        Verb::GroupDestroy { group } => stream.remove_group(group).then_some(()),
        Verb::GroupDropConsumer { group, consumer } => {
            stream.edit_group(group, |group| group.remove_consumer(consumer).map_or((), |_| ()))
        }
        Verb::GroupDeliver(delivery) => deliver(stream, &delivery),
        Verb::GroupAcknowledge { group, ids } => stream.edit_group(group, |group| acknowledge(group, ids)),
        Verb::GroupRelease { group, released } => {
            stream.edit_group(group, |group| released.for_each(|(id, count)| group.release(id, count)))
        }
        _ => return refused("no verb of a stream"),
    };
    found.ok_or(CommandError::Text("there is no such group"))
}

fn acknowledge(group: &mut Group, ids: Ids<'_>) {
    for id in ids {
        group.acknowledge(id);
    }
}

fn deliver(stream: &mut StreamMut<'_>, delivery: &Delivery<'_>) -> Option<()> {
    let GroupPosition { last_id, entries_read } = delivery.position;
    stream.edit_group(delivery.group, |group| {
        (group.last_id, group.entries_read) = (last_id, entries_read);
        group.set_consumer(delivery.consumer, delivery.seen, delivery.active);
        let entry =
            |PendingEntry { id, delivered, count }: PendingEntry| -> (StreamId, i64, u64) { (id, delivered, count) };
        group.assign(delivery.consumer, delivery.pending.map(entry));
        acknowledge(group, delivery.gone);
    })
}

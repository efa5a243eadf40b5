//! Words of streams and their groups.

use super::{MALFORMED, Outcome, Words, at, from, integer, integer_at, is, number_at, say, texts};
use crate::core::CommandError;
use crate::core::db::Db;
use crate::keyspace::Key;
use crate::persist::verbs::{GroupPosition, PendingEntry};
use crate::value::stream::{AnyStream, Group, Stream, StreamId};

pub(super) fn apply(db: &mut Db<'_>, key: Key<'_>, name: &str, words: &Words<'_>) -> Outcome {
    match name {
        "XADD" => {
            let (trim, place) = Trim::read(words, 2)?;
            let (id, fields) = (id_at(words, place)?, from(words, place + 1)?);
            if !fields.len().is_multiple_of(2) {
                return Err(MALFORMED);
            }
            say(db, key, |record| record.stream_add(id, fields.iter().copied()))?;
            trim.apply(db, key)
        }
        "XTRIM" => match Trim::read(words, 2)? {
            (_, place) if place != words.len() => Err(MALFORMED),
            (trim, _) => trim.apply(db, key),
        },
        "XDEL" => {
            let ids = ids_from(words, 2)?;
            say(db, key, |record| record.stream_delete(&ids))
        }
        "XSETID" => xsetid(db, key, words),
        "XDELEX" => delete(db, key, None, words, 2),
        "XACKDEL" => delete(db, key, Some(at(words, 2)?), words, 3),
        "XACK" => {
            let (group, ids) = (at(words, 2)?, ids_from(words, 3)?);
            say(db, key, |record| record.group_acknowledge(group, &ids))
        }
        "XGROUP" => xgroup(db, key, words),
        "XDELIVERED" => xdelivered(db, key, words),
        _ => xclaimed(db, key, words),
    }
}

fn id_at(words: &Words<'_>, index: usize) -> Result<StreamId, CommandError> {
    texts::id(at(words, index)?).ok_or(MALFORMED)
}

fn ids_from(words: &Words<'_>, index: usize) -> Result<Vec<StreamId>, CommandError> {
    from(words, index)?.iter().map(|word| texts::id(word).ok_or(MALFORMED)).collect()
}

fn stream<'d>(db: &'d mut Db<'_>, key: Key<'_>) -> Result<&'d Stream, CommandError> {
    db.peek_view::<AnyStream>(key)?.ok_or(MALFORMED)
}

fn group<'d>(db: &'d mut Db<'_>, key: Key<'_>, name: &[u8]) -> Result<&'d Group, CommandError> {
    stream(db, key)?.group(name).ok_or(MALFORMED)
}

/// How trimming was logged.
enum Trim {
    Nothing,
    /// The first entries, until this many are left, and their pending references, if it says so.
    ToLen(u64, bool),
    /// Every unreferenced entry up to an id.
    AckedUpTo(StreamId),
}

impl Trim {
    /// Parses the options from an index on. Returns them and where they end.
    fn read(words: &Words<'_>, index: usize) -> Result<(Trim, usize), CommandError> {
        let first = at(words, index)?;
        if is(first, "ACKED") {
            let up_to = match at(words, index + 1)? {
                word if is(word, "MINID") => id_at(words, index + 2)?.previous().ok_or(MALFORMED)?,
                _ => StreamId::MAX,
            };
            return Ok((Trim::AckedUpTo(up_to), index + 3));
        }
        let drops = is(first, "DELREF");
        let index = index + usize::from(drops);
        match at(words, index)? {
            word if is(word, "MAXLEN") => Ok((Trim::ToLen(number_at(words, index + 1)?, drops), index + 2)),
            _ if drops => Err(MALFORMED),
            _ => Ok((Trim::Nothing, index)),
        }
    }

    fn apply(self, db: &mut Db<'_>, key: Key<'_>) -> Outcome {
        match self {
            Trim::Nothing => Ok(()),
            Trim::AckedUpTo(id) => say(db, key, |record| record.stream_trim_acked(id)),
            Trim::ToLen(left, drops) => {
                let stream = stream(db, key)?;
                let count = (stream.len() as u64).saturating_sub(left);
                // References to entries that had been deleted earlier stayed pending.
                let going = if drops { count as usize } else { 0 };
                let entries = stream.range(StreamId::MIN, StreamId::MAX).take(going);
                let ids: Vec<StreamId> = entries.map(|entry| entry.id).collect();
                if !ids.is_empty() {
                    say(db, key, |record| record.stream_forget(&ids))?;
                }
                if count > 0 { say(db, key, |record| record.stream_trim(count)) } else { Ok(()) }
            }
        }
    }
}

fn xsetid(db: &mut Db<'_>, key: Key<'_>, words: &Words<'_>) -> Outcome {
    let (mut added, mut deleted) = (None, None);
    for option in words.get(3..).unwrap_or_default().chunks(2) {
        match option {
            [name, value] if is(name, "ENTRIESADDED") => added = Some(integer(value).ok_or(MALFORMED)? as u64),
            [name, value] if is(name, "MAXDELETEDID") => deleted = Some(texts::id(value).ok_or(MALFORMED)?),
            _ => return Err(MALFORMED),
        }
    }
    let last_id = id_at(words, 2)?;
    let stream = stream(db, key)?;
    let added = added.unwrap_or(stream.entries_added());
    let deleted = deleted.filter(|id| *id != StreamId::MIN).unwrap_or(stream.max_deleted_id());
    say(db, key, |record| record.stream_set_ids(last_id, deleted, added))
}

/// XDELEX, and XACKDEL of a group.
fn delete(db: &mut Db<'_>, key: Key<'_>, of_group: Option<&[u8]>, words: &Words<'_>, first: usize) -> Outcome {
    let (mut policy, mut ids, mut place) = ("KEEPREF", None, first);
    while place < words.len() {
        if is(words[place], "IDS") && place + 1 < words.len() {
            let count = number_at(words, place + 1)? as usize;
            let end = (place + 2).checked_add(count).filter(|end| *end <= words.len()).ok_or(MALFORMED)?;
            ids = Some(ids_from(&words[..end], place + 2)?);
            place = end;
            continue;
        }
        let known = ["KEEPREF", "DELREF", "ACKED"].into_iter().find(|name| is(words[place], name));
        policy = known.ok_or(MALFORMED)?;
        place += 1;
    }
    for id in ids.ok_or(MALFORMED)? {
        if let Some(name) = of_group {
            if group(db, key, name)?.pending.get(&id).is_none() {
                continue;
            }
            say(db, key, |record| record.group_acknowledge(name, &[id]))?;
        }
        let refers = |group: &Group| id > group.last_id || group.pending.get(&id).is_some();
        match policy {
            "ACKED" if stream(db, key)?.groups().any(refers) => continue,
            "DELREF" => say(db, key, |record| record.stream_forget(&[id]))?,
            _ => {}
        }
        say(db, key, |record| record.stream_delete(&[id]))?;
    }
    Ok(())
}

fn xgroup(db: &mut Db<'_>, key: Key<'_>, words: &Words<'_>) -> Outcome {
    let (subcommand, name) = (at(words, 1)?, at(words, 3)?);
    if is(subcommand, "DESTROY") {
        return say(db, key, |record| record.group_destroy(name));
    }
    if is(subcommand, "DELCONSUMER") {
        let consumer = at(words, 4)?;
        return say(db, key, |record| record.group_drop_consumer(name, consumer));
    }
    let is_new = is(subcommand, "CREATE");
    if !is_new && !is(subcommand, "SETID") {
        return Err(MALFORMED);
    }
    let last_id = match at(words, 4)? {
        word if texts::until_nul(word) == b"$" => {
            db.peek_view::<AnyStream>(key)?.map_or(StreamId::MIN, Stream::last_id)
        }
        word if is_new => texts::id(word).ok_or(MALFORMED)?,
        word => texts::id_or_end(word).ok_or(MALFORMED)?,
    };
    let read = words.iter().skip(5).position(|word| is(word, "ENTRIESREAD"));
    let entries_read = match read {
        None => None,
        Some(place) => u64::try_from(integer_at(words, 6 + place)?).ok(),
    };
    let position = GroupPosition { last_id, entries_read };
    say(db, key, |record| match is_new {
        true => record.group_create(name, &position),
        false => record.group_set(name, &position),
    })
}

/// Appends a delivery to a consumer that keeps its active time, or is active now.
fn say_delivered(
    db: &mut Db<'_>,
    key: Key<'_>,
    names: (&[u8], &[u8]),
    position: GroupPosition,
    (now, is_active): (i64, bool),
    pending: &[PendingEntry],
    gone: &[StreamId],
) -> Outcome {
    let before = group(db, key, names.0)?.consumer(names.1).map_or(-1, |consumer| consumer.active);
    let times = (now, if is_active { now } else { before });
    say(db, key, |record| record.group_deliver(names, &position, times, pending.iter().copied(), gone))
}

/// XDELIVERED key group consumer time `> | id` count `KEEP | NOACK`
fn xdelivered(db: &mut Db<'_>, key: Key<'_>, words: &Words<'_>) -> Outcome {
    let names = (at(words, 2)?, at(words, 3)?);
    let (now, count, keeps) = (integer_at(words, 4)?, number_at(words, 6)? as usize, at(words, 7)? == b"KEEP");
    let stream = stream(db, key)?;
    let group = stream.group(names.0).ok_or(MALFORMED)?;
    let mut position = GroupPosition { last_id: group.last_id, entries_read: group.entries_read };
    let mut pending = Vec::new();
    match at(words, 5)? {
        b">" => {
            let extent = Extent::of(stream);
            let next = group.last_id.next().map(|start| stream.range(start, StreamId::MAX));
            for entry in next.into_iter().flatten().take(count) {
                position.entries_read = extent.count_after(&position, entry.id);
                position.last_id = entry.id;
                pending.push(PendingEntry { id: entry.id, delivered: now, count: 1 });
            }
            if !keeps {
                pending.clear();
            }
            let is_active = !pending.is_empty();
            say_delivered(db, key, names, position, (now, is_active), &pending, &[])
        }
        after => {
            let start = texts::id(after).ok_or(MALFORMED)?.next();
            let own = group.consumer(names.1).zip(start).map(|(own, start)| own.pending.iter_from(&start));
            for owned in own.into_iter().flatten().take(count) {
                let its = group.pending.get(&owned.0).filter(|its| stream.get(its.id).is_some());
                pending.extend(its.map(|its| PendingEntry {
                    id: its.id,
                    delivered: now,
                    count: its.count.wrapping_add(1),
                }));
            }
            say_delivered(db, key, names, position, (now, false), &pending, &[])
        }
    }
}

/// XCLAIMED key group consumer time delivered `+1 | = | count` `FORCE | -` last-id [id …]
fn xclaimed(db: &mut Db<'_>, key: Key<'_>, words: &Words<'_>) -> Outcome {
    let names = (at(words, 2)?, at(words, 3)?);
    let (now, delivered) = (integer_at(words, 4)?, integer_at(words, 5)?);
    let count = |before: u64| match at(words, 6)? {
        b"+1" => Ok(before.wrapping_add(1)),
        b"=" => Ok(before),
        number => integer(number).map(|number| number as u64).ok_or(MALFORMED),
    };
    let (forces, raised) = (at(words, 7)? == b"FORCE", id_at(words, 8)?);
    let its = group(db, key, names.0)?;
    let position = GroupPosition { last_id: its.last_id.max(raised), entries_read: its.entries_read };
    say_delivered(db, key, names, position, (now, false), &[], &[])?;
    // One by one, because an id may come twice.
    for word in words.get(9..).unwrap_or_default() {
        let id = texts::id(word).ok_or(MALFORMED)?;
        let stream = stream(db, key)?;
        let before = stream.group(names.0).and_then(|group| group.pending.get(&id)).map(|pending| pending.count);
        if stream.get(id).is_none() {
            say_delivered(db, key, names, position, (now, false), &[], &[id])?;
        } else if let Some(before) = before.or(forces.then_some(1)) {
            let entry = PendingEntry { id, delivered, count: count(before)? };
            say_delivered(db, key, names, position, (now, true), &[entry], &[])?;
        }
    }
    Ok(())
}

/// The figures that group counters were computed from.
struct Extent {
    len: u64,
    first: StreamId,
    last: StreamId,
    max_deleted: StreamId,
    added: u64,
}

impl Extent {
    fn of(stream: &Stream) -> Extent {
        Extent {
            len: stream.len() as u64,
            first: stream.first().map_or(StreamId::MIN, |entry| entry.id),
            last: stream.last_id(),
            max_deleted: stream.max_deleted_id(),
            added: stream.entries_added(),
        }
    }

    /// How many entries were ever added up to this one, if that was known.
    fn count_up_to(&self, id: StreamId) -> Option<u64> {
        if self.added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last {
            return Some(self.added);
        }
        if id != StreamId::MIN && id < self.max_deleted {
            return None;
        }
        if id >= self.last {
            return (id == self.last).then_some(self.added);
        }
        if self.max_deleted != StreamId::MIN && self.max_deleted >= self.first {
            return None;
        }
        match id.cmp(&self.first) {
            std::cmp::Ordering::Less => Some(self.added.wrapping_sub(self.len)),
            std::cmp::Ordering::Equal => Some(self.added.wrapping_sub(self.len).wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// The count after one more entry was delivered.
    fn count_after(&self, before: &GroupPosition, id: StreamId) -> Option<u64> {
        let gap = self.len > 0 && self.max_deleted != StreamId::MIN && before.last_id <= self.max_deleted;
        match before.entries_read {
            Some(read) if before.last_id >= self.first && !gap => Some(read.wrapping_add(1)),
            read if self.added == 0 => read,
            _ => self.count_up_to(id),
        }
    }
}

//! DUMP and RESTORE: a value as a payload that Redis and Valkey read and write, too.
//!
//! A value is read through the type's own edit form. It thus takes the form that the limits demand, and no payload
//! takes more memory than its value.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::core::db::Db;
use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args, categories,
    flags,
};
use crate::keyspace::{Key, NewValue, ValueRef};
use crate::persist::rdb::{
    DumpWriter, ListWriter, RdbConsumer, RdbEntryFields, RdbError, RdbGroup, RdbIdempotency, RdbPending, RdbProducer,
    RdbSink, RdbStreamId, RdbStreamMeta, RdbType, StreamWriter, decode_dump_into,
};
use crate::resp::Reply;
use crate::value::entry::Heap;
use crate::value::hash::{AnyHash, HashMut, HashRef, NewExpiry};
use crate::value::list::{AnyList, End, ListMut};
use crate::value::set::{AnySet, SetMut, SetRef};
use crate::value::stream::{Group, Idempotency, Known, Pending, Stream, StreamId, Window};
use crate::value::zset::{Added, AnyZset, Rule, ZsetMut, ZsetRef};
use crate::value::{Collection, Finished, Limits, Packing, Stored, codec};

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&DUMP, &RESTORE, &RESTORE_ASKING];

static DUMP: Command = Command {
    name: "DUMP",
    arity: Arity::Exactly(2),
    flags: flags::READONLY,
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RO access")]),
    handler: Handler::Data(dump),
    since: "2.6.0",
    complexity: "O(1) to access the key and additional O(N*M) to serialize it, where N is the number of Redis objects composing the value and M their average size. For small string values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1).",
    tips: "nondeterministic_output",
    syntax: "key",
    summary: "Gives the value of a key as a payload for RESTORE.",
    ..Command::DEFAULT
};

fn dump(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    Ok(match call.db.read(key).map(|entry| payload(entry.value())) {
        None => reply.null(),
        Some(payload) => reply.bulk(&payload),
    })
}

/// The payload of a value.
pub fn payload(value: ValueRef<'_>) -> Vec<u8> {
    if let Some(list) = AnyList::view(value) {
        let mut writer = ListWriter::new();
        list.iter().for_each(|element| writer.push(element.as_bytes(&mut itoa::Buffer::new())));
        return writer.finish();
    }
    if let Some(set) = AnySet::view(value) {
        return dump_set(set);
    }
    if let Some(hash) = AnyHash::view(value) {
        return dump_hash(value, hash);
    }
    if let Some(zset) = AnyZset::view(value) {
        return dump_zset(zset);
    }
    if let ValueRef::Stream(stream) = value {
        return dump_stream(stream);
    }
    let mut writer = DumpWriter::new(RdbType::String);
    match value {
        ValueRef::Int(number) => writer.string(itoa::Buffer::new().format(number).as_bytes()),
        ValueRef::Str(bytes) | ValueRef::Raw(bytes) => writer.string(&bytes),
        _ => unreachable!("every collection has been written"),
    }
    writer.finish()
}

fn dump_set(set: SetRef<'_>) -> Vec<u8> {
    if let SetRef::Ints(ints) = set {
        let mut writer = DumpWriter::new(RdbType::SetIntset);
        writer.blob(ints.as_bytes());
        return writer.finish();
    }
    let mut writer = DumpWriter::new(RdbType::Set);
    writer.length(set.len() as u64);
    set.iter().for_each(|member| writer.string(member.as_bytes(&mut itoa::Buffer::new())));
    writer.finish()
}

fn dump_zset(zset: ZsetRef<'_>) -> Vec<u8> {
    if let ZsetRef::Packed(pack) = zset {
        let mut writer = DumpWriter::new(RdbType::ZsetListpack);
        writer.blob(pack.as_bytes());
        return writer.finish();
    }
    let mut writer = DumpWriter::new(RdbType::Zset);
    writer.length(zset.len() as u64);
    // From the highest, as in Redis: a reader then adds each before all others.
    for (member, score) in zset.range(0..zset.len(), true) {
        writer.string(member.as_bytes(&mut itoa::Buffer::new()));
        writer.double(score);
    }
    writer.finish()
}

fn dump_hash(value: ValueRef<'_>, hash: HashRef<'_>) -> Vec<u8> {
    // Expired fields that are not removed yet are included: they will expire where they are restored.
    const ALL: u64 = 0;
    let text = |item: crate::value::listpack::Item<'_>| item.to_vec();
    let earliest = hash.iter(ALL).filter_map(|field| field.expiry).min();
    let Some(earliest) = earliest else {
        // Not the listpack with a place for expiries, which a hash keeps when the last one is gone.
        if let ValueRef::Packed(Packing::Hash | Packing::HashTemplated, _) = value {
            let mut pairs = Vec::new();
            codec::encode(value, &mut pairs);
            let mut writer = DumpWriter::new(RdbType::HashListpack);
            writer.blob(&pairs);
            return writer.finish();
        }
        let mut writer = DumpWriter::new(RdbType::Hash);
        writer.length(hash.stored_len() as u64);
        for field in hash.iter(ALL) {
            writer.string(&text(field.name));
            writer.string(&text(field.value.item()));
        }
        return writer.finish();
    };
    let mut writer = DumpWriter::new(RdbType::HashVolatile);
    writer.time_ms(Some(earliest));
    writer.length(hash.stored_len() as u64);
    for field in hash.iter(ALL) {
        writer.length(field.expiry.map_or(0, |at| at - earliest + 1));
        writer.string(&text(field.name));
        writer.string(&text(field.value.item()));
    }
    writer.finish()
}

fn dump_stream(stream: &Stream) -> Vec<u8> {
    let mut writer = StreamWriter::new();
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        let fields: Vec<_> = entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        writer.push(rdb_id(entry.id), fields.iter().map(|(name, value)| (&name[..], &value[..])));
    }
    writer.finish(&RdbStreamMeta {
        last_id: rdb_id(stream.last_id()),
        max_deleted_id: rdb_id(stream.max_deleted_id()),
        entries_added: stream.entries_added(),
        groups: stream.groups().map(rdb_group).collect(),
        idempotency: stream.idempotency().map(rdb_idempotency),
    })
}

/// The time since an id is remembered is that of the entry's id there.
fn rdb_idempotency(its: &Idempotency) -> RdbIdempotency {
    let (window, mut producers) = (its.window(), BTreeMap::<&[u8], RdbProducer>::new());
    for Known { producer, iid, entry, .. } in its.iter() {
        let of = producers.entry(producer).or_insert_with(|| RdbProducer { name: producer.to_vec(), ids: Vec::new() });
        of.ids.push((iid.to_vec(), rdb_id(entry)));
    }
    RdbIdempotency {
        seconds: window.seconds.into(),
        ids_max: window.ids_max.into(),
        producers: producers.into_values().collect(),
        added: its.added(),
        duplicates: its.duplicates(),
    }
}

fn rdb_id(id: StreamId) -> RdbStreamId {
    (id.ms, id.seq)
}

fn rdb_group(group: &Group) -> RdbGroup {
    let names: Vec<&[u8]> = group.consumers.iter().map(|consumer| &consumer.name[..]).collect();
    let time = |ms: i64| u64::try_from(ms).unwrap_or(0);
    // What was handed back is nobody's: the place then means nothing.
    let place = |pending: &Pending| {
        let owner = pending.consumer.as_deref();
        owner.map_or(0, |owner| names.binary_search(&owner).expect("a pending entry has its consumer"))
    };
    let pending = |pending: &Pending| RdbPending {
        id: rdb_id(pending.id),
        delivery_time_ms: time(pending.delivered),
        delivery_count: pending.count,
        consumer: place(pending),
    };
    let consumers = group.consumers.iter().map(|consumer| RdbConsumer {
        name: consumer.name.to_vec(),
        seen_time_ms: time(consumer.seen),
        active_time_ms: u64::try_from(consumer.active).ok(),
    });
    RdbGroup {
        name: group.name.to_vec(),
        last_id: rdb_id(group.last_id),
        entries_read: group.entries_read,
        pel: group.pending.iter().filter(|pending| pending.consumer.is_some()).map(pending).collect(),
        released: group.released().map(pending).collect(),
        consumers: consumers.collect(),
    }
}

static RESTORE: Command = Command {
    name: "RESTORE",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE.or(flags::DENYOOM),
    categories: categories::KEYSPACE.or(categories::DANGEROUS),
    keys: Keys(&[KeySpec::at(1, "OW update")]),
    log: LogRule::Effects, // as the key's whole state
    handler: Handler::Data(restore),
    since: "2.6.0",
    complexity: "O(1) to create the new key and additional O(N*M) to reconstruct the serialized value, where N is the number of Redis objects composing the value and M their average size. For small string values the time complexity is thus O(1)+O(1*M) where M is small, so simply O(1). However for sorted set values the complexity is O(N*M*log(N)) because inserting values into sorted sets is O(log(N)).",
    syntax: "key ttl serialized-value [REPLACE@3.0.0] [ABSTTL@5.0.0] [IDLETIME seconds@5.0.0] [FREQ frequency@5.0.0]",
    summary: "Makes a key of a payload that DUMP gave.",
    ..Command::DEFAULT
};

static RESTORE_ASKING: Command = Command {
    name: "RESTORE-ASKING",
    flags: flags::WRITE.or(flags::DENYOOM).or(flags::ASKING),
    since: "3.0.0",
    group: "server",
    summary: "The same as RESTORE, for a cluster that moves keys.",
    ..RESTORE
};

/// The options of RESTORE.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<u64>,
    frequency: Option<u32>,
}

impl Options {
    fn parse(mut words: Words<'_>) -> Result<Options, CommandError> {
        const IDLETIME: CommandError = CommandError::OutOfRange("Invalid IDLETIME value, must be >= 0");
        const FREQ: CommandError = CommandError::OutOfRange("Invalid FREQ value, must be >= 0 and <= 255");
        let mut options = Options::default();
        while let Some(word) = words.next() {
            if args::is(word, "REPLACE") {
                options.replace = true;
            } else if args::is(word, "ABSTTL") {
                options.absolute = true;
            } else if args::is(word, "IDLETIME") && words.left() > 0 && options.frequency.is_none() {
                options.idle_seconds = Some(u64::try_from(words.integer()?).map_err(|_| IDLETIME)?);
            } else if args::is(word, "FREQ") && words.left() > 0 && options.idle_seconds.is_none() {
                let frequency = u32::try_from(words.integer()?).ok().filter(|frequency| *frequency <= 255);
                options.frequency = Some(frequency.ok_or(FREQ)?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn restore(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let options = Options::parse(Words::new(call.args, 4))?;
    if !options.replace && call.db.exists(key) {
        return Err(CommandError::Text("BUSYKEY Target key name already exists."));
    }
    let ttl = args::integer(call.args.at(2))?;
    if ttl < 0 {
        return Err(CommandError::OutOfRange("Invalid TTL value, must be >= 0"));
    }
    let mut built = Building::new(call.db.facts().limits);
    decode_dump_into(call.args.at(3), call.db.facts().rdb_versions, &mut built).map_err(|error| match error {
        RdbError::Footer => CommandError::OutOfRange("DUMP payload version or checksum are wrong"),
        RdbError::Format { .. } => CommandError::OutOfRange("Bad data format"),
    })?;
    let now = call.db.facts().now;
    let expiry = match ttl {
        0 => None,
        at if options.absolute => Some(at),
        ms => Some(now.saturating_add(ms)),
    };
    if expiry.is_some_and(|at| at <= now) {
        if call.db.remove(key) {
            call.record(key).delete();
            call.db.notify(NotifyFlags::GENERIC, "del", key);
        }
        return Ok(reply.ok());
    }
    let replaced = call.db.kind_to_tell(key);
    built.store(&mut call.db, key, expiry)?;
    let access = call.db.facts().access;
    let field = match (options.idle_seconds, options.frequency) {
        (Some(seconds), _) => access.idle_for(seconds),
        (_, Some(frequency)) => access.used_as_often(frequency),
        _ => None,
    };
    if let Some(field) = field {
        call.db.set_access(key, field);
    }
    call.db.log_state(key);
    call.db.notify_came_anew(key, replaced);
    call.db.notify(NotifyFlags::GENERIC, "restore", key);
    call.db.notify_replaced(key, replaced);
    Ok(reply.ok())
}

/// A value that is being read, in the form in which it is stored.
pub struct Building {
    limits: Limits,
    value: Built,
}

enum Built {
    Nothing,
    String(Vec<u8>),
    List(ListMut<'static>),
    Set(SetMut<'static>),
    Hash(HashMut<'static>),
    Zset(ZsetMut<'static>),
    Stream(Box<Stream>),
}

impl Building {
    /// Nothing yet, by these limits.
    pub fn new(limits: Limits) -> Building {
        Building { limits, value: Built::Nothing }
    }

    /// Sets a key to the value.
    ///
    /// # Errors
    /// There is no value, or it is empty.
    pub fn store(self, db: &mut Db<'_>, key: Key<'_>, expiry: Option<i64>) -> Result<(), CommandError> {
        self.give(|value| db.set(key, value, expiry))
    }

    /// Gives the value to `take`.
    ///
    /// # Errors
    /// There is no value, or it is empty.
    pub fn give(self, take: impl FnOnce(NewValue<'_>)) -> Result<(), CommandError> {
        let finished = match self.value {
            Built::Nothing => return Err(CommandError::OutOfRange("Bad data format")),
            Built::String(bytes) => {
                take(crate::base::format::parse_i64(&bytes).map_or(NewValue::Bytes(&bytes), NewValue::Int));
                return Ok(());
            }
            Built::List(list) => AnyList::finish(list),
            Built::Set(set) => AnySet::finish(set),
            Built::Hash(hash) => AnyHash::finish(hash),
            Built::Zset(zset) => AnyZset::finish(zset),
            Built::Stream(stream) => Finished::Large(Heap::Stream(triomphe::Arc::new(*stream))),
        };
        match finished {
            Finished::Packed(packing, bytes) => take(NewValue::Packed(packing, &bytes)),
            Finished::Large(heap) => take(NewValue::Heap(heap)),
            Finished::Empty | Finished::InPlace => return Err(CommandError::OutOfRange("Bad data format")),
        }
        Ok(())
    }

    /// An empty collection, for editing.
    fn begin<C: Collection>(&self) -> Option<C::Mut<'static>> {
        C::edit(Stored::Missing(Vec::new()), &self.limits)
    }
}

impl RdbSink for Building {
    fn string(&mut self, value: Cow<'_, [u8]>) {
        self.value = Built::String(value.into_owned());
    }

    fn list_item(&mut self, item: &[u8]) {
        if let Built::Nothing = self.value {
            self.value = Built::List(ListMut::new(&self.limits));
        }
        if let Built::List(list) = &mut self.value {
            list.expect(1, item.len());
            list.push(item, End::Right);
        }
    }

    fn set_member(&mut self, member: &[u8]) -> bool {
        if let Built::Nothing = self.value {
            self.value = Built::Set(SetMut::new(&self.limits));
        }
        match &mut self.value {
            Built::Set(set) => set.add(member),
            _ => false,
        }
    }

    fn hash_field(&mut self, field: &[u8], value: &[u8], expiry: Option<u64>) -> bool {
        if let (Built::Nothing, Some(hash)) = (&self.value, self.begin::<AnyHash>()) {
            self.value = Built::Hash(hash);
        }
        // A time at or before the epoch has passed just like the first millisecond.
        let expiry = expiry.map_or(NewExpiry::Clear, |at| NewExpiry::At(at.max(1)));
        match &mut self.value {
            Built::Hash(hash) => hash.set(field, value, expiry),
            _ => false,
        }
    }

    fn zset_member(&mut self, member: &[u8], score: f64) -> bool {
        if let Built::Nothing = self.value {
            self.value = Built::Zset(ZsetMut::new(&self.limits));
        }
        match &mut self.value {
            Built::Zset(zset) if !score.is_nan() => {
                matches!(zset.add(member, score, Rule::default()), Added::New(_))
            }
            _ => false,
        }
    }

    fn stream_entry(&mut self, id: RdbStreamId, fields: RdbEntryFields) {
        if let Built::Nothing = self.value {
            self.value = Built::Stream(Box::default());
        }
        if let Built::Stream(stream) = &mut self.value {
            let words = fields.iter().flat_map(|(name, value)| [&name[..], &value[..]]);
            stream.append(StreamId::new(id.0, id.1), words, &self.limits);
        }
    }

    fn stream_end(&mut self, meta: RdbStreamMeta) {
        let mut stream = match std::mem::replace(&mut self.value, Built::Nothing) {
            Built::Stream(stream) => stream,
            _ => Box::default(),
        };
        let id = |id: RdbStreamId| StreamId::new(id.0, id.1);
        stream.set_ids(id(meta.last_id), Some(meta.entries_added), Some(id(meta.max_deleted_id)));
        let restored = meta.groups.iter().all(|group| restore_group(&mut stream, group));
        let idempotency = meta.idempotency.as_ref().map(restored_idempotency);
        let is_sound = idempotency.as_ref().is_none_or(Option::is_some);
        idempotency.flatten().into_iter().for_each(|its| stream.set_idempotency(its));
        if restored && is_sound {
            self.value = Built::Stream(stream);
        }
    }
}

/// What producers have added; `None` if the window is none.
fn restored_idempotency(its: &RdbIdempotency) -> Option<Idempotency> {
    let (seconds, ids_max) = (u32::try_from(its.seconds).ok()?, u32::try_from(its.ids_max).ok()?);
    let window = Some(Window { seconds, ids_max }).filter(Window::is_valid)?;
    let ids = its.producers.iter().flat_map(|producer| producer.ids.iter().map(|(iid, id)| (*id, &producer.name, iid)));
    let mut ids: Vec<(RdbStreamId, &Vec<u8>, &Vec<u8>)> = ids.collect();
    ids.sort_unstable();
    let mut restored = Idempotency::with_counters(window, its.added.wrapping_sub(ids.len() as u64), its.duplicates);
    for ((ms, seq), producer, iid) in ids {
        let at = i64::try_from(ms).unwrap_or(i64::MAX);
        restored.remember(Known { producer, iid, entry: StreamId::new(ms, seq), at }, 0);
    }
    Some(restored)
}

/// Adds a group.
fn restore_group(stream: &mut Stream, group: &RdbGroup) -> bool {
    let id = |id: RdbStreamId| StreamId::new(id.0, id.1);
    let time = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let consumers = group
        .consumers
        .iter()
        .map(|consumer| (&consumer.name[..], time(consumer.seen_time_ms), consumer.active_time_ms.map_or(-1, time)));
    let pending = group
        .pel
        .iter()
        .map(|pending| (id(pending.id), time(pending.delivery_time_ms), pending.delivery_count, pending.consumer));
    let is_new = stream.restore_group((&group.name, id(group.last_id), group.entries_read), consumers, pending);
    if is_new {
        let mut released = group.released.iter().map(|pending| (id(pending.id), pending.delivery_count));
        stream.edit_group(&group.name, |its| released.by_ref().for_each(|(id, count)| its.release(id, count)));
    }
    is_new
}

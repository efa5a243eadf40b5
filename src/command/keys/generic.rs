//! Commands for keys of any type: existence, type, removing, renaming, copying.
//!
//! A value moves to its new name unchanged, and by reference if it is on the heap, so that renaming a large value
//! costs no more than renaming a small one. Its protection from eviction goes with it.

use smallvec::{SmallVec, smallvec};

use crate::core::command::Databases;
use crate::core::db::LARGE_MIN_BYTES;
use crate::core::key_spec::Places;
use crate::core::{
    Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome, Words, args,
    categories, flags,
};
use crate::keyspace::{Key, NewValue};
use crate::resp::{Args, Reply};
use crate::value::entry::{INLINE_VALUE_MAX, Kind, Packing};

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&COPY, &DEL, &EXISTS, &MOVE, &RENAME, &RENAMENX, &TOUCH, &TYPE, &UNLINK];

/// All arguments are keys.
const EVERY_ARGUMENT_RO: Keys = Keys(&[KeySpec::range(1, -1, 1, "RO")]);
const EVERY_ARGUMENT_DELETED: Keys = Keys(&[KeySpec::range(1, -1, 1, "RM delete")]);
const PER_SHARD_SUM: &str = "request_policy:multi_shard response_policy:agg_sum";

/// An argument that names a database.
///
/// # Errors
/// It is not an integer, or there is no such database.
pub fn database(argument: &[u8], databases: u32) -> Result<u32, CommandError> {
    let number = args::integer(argument)?;
    if i32::try_from(number).is_err() {
        let text = "value is out of range, value must between -2147483648 and 2147483647";
        return Err(CommandError::OutOfRange(text));
    }
    match u32::try_from(number) {
        Ok(index) if index < databases => Ok(index),
        _ => Err(CommandError::OutOfRange("DB index is out of range")),
    }
}

/// A value on its way from one key to another, with its expiry.
struct Carried {
    body: Body,
    expiry: Option<i64>,
    is_blessed: bool,
}

enum Body {
    /// Short bytes from the record.
    Inline(SmallVec<[u8; INLINE_VALUE_MAX]>),
    /// A small collection from the record.
    Packed(Packing, SmallVec<[u8; INLINE_VALUE_MAX]>),
    /// Anything owned: a number, or a payload by reference.
    Owned(NewValue<'static>),
}

impl Carried {
    /// What an existing key holds.
    fn of(db: &mut Db<'_>, key: Key<'_>) -> Option<Carried> {
        let is_blessed = db.is_blessed(key);
        let entry = db.peek(key)?;
        let body = match entry.to_new_value() {
            NewValue::Bytes(bytes) => Body::Inline(SmallVec::from_slice(bytes)),
            NewValue::Packed(packing, bytes) => Body::Packed(packing, SmallVec::from_slice(bytes)),
            NewValue::Int(number) => Body::Owned(NewValue::Int(number)),
            NewValue::Shared(bytes) => Body::Owned(NewValue::Shared(bytes)),
            NewValue::Raw(bytes) => Body::Owned(NewValue::Raw(bytes)),
            NewValue::Heap(heap) => Body::Owned(NewValue::Heap(heap)),
        };
        Some(Carried { body, expiry: entry.expiry().map(|at| at as i64), is_blessed })
    }

    /// Stores the value at `key` in the database that `db` works on, and logs it as a whole: its record
    /// must not depend on the key that it came from. A large one is not written out again: a barrier says that it
    /// went, or was copied, from there. Returns whether such a barrier was written.
    fn store(self, db: &mut Db<'_>, key: Key<'_>, copies: bool, (from_db, from): (u32, Key<'_>)) -> bool {
        let is_large = matches!(&self.body, Body::Owned(NewValue::Heap(heap)) if heap.bytes() >= LARGE_MIN_BYTES);
        match self.body {
            Body::Inline(bytes) => db.set(key, NewValue::Bytes(&bytes), self.expiry),
            Body::Packed(packing, bytes) => db.set(key, NewValue::Packed(packing, &bytes), self.expiry),
            Body::Owned(value) => db.set(key, value, self.expiry),
        }
        let before = db.changes();
        let reblessed = db.bless(key, self.is_blessed);
        db.count_as(before, 0);
        match is_large {
            true => {
                let to_db = db.index();
                db.select(from_db);
                db.barrier().transfer(copies, from.bytes, to_db, key.bytes);
                db.select(to_db);
            }
            false => {
                db.log_state(key);
                if reblessed {
                    db.record(key).bless(self.is_blessed);
                }
            }
        }
        is_large
    }
}

/// Removes a key whose value was moved elsewhere. Both together count as one change. `logs` says whether it is to be
/// logged: a barrier says it already.
fn remove_source(db: &mut Db<'_>, key: Key<'_>, logs: bool) {
    let before = db.changes();
    db.remove(key);
    db.count_as(before, 0);
    if logs {
        db.record(key).delete();
    }
}

static DEL: Command = Command {
    name: "DEL",
    arity: Arity::AtLeast(2),
    flags: flags::WRITE,
    categories: categories::KEYSPACE,
    keys: EVERY_ARGUMENT_DELETED,
    log: LogRule::Effects,
    handler: Handler::Data(del),
    complexity: "O(N), where N is the number of keys: large values are freed in the background.",
    tips: PER_SHARD_SUM,
    syntax: "key [key ...]",
    summary: "Removes keys, whatever they hold.",
    ..Command::DEFAULT
};

static UNLINK: Command = Command {
    name: "UNLINK",
    flags: flags::WRITE.or(flags::FAST),
    since: "4.0.0",
    summary: "Removes keys and frees what they hold in the background.",
    ..DEL
};

fn del(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut removed = 0;
    for key in call.keys() {
        if call.db.remove(key) {
            call.record(key).delete();
            call.db.notify(NotifyFlags::GENERIC, "del", key);
            removed += 1;
        }
    }
    Ok(reply.int(removed))
}

static EXISTS: Command = Command {
    name: "EXISTS",
    arity: Arity::AtLeast(2),
    flags: flags::READONLY.or(flags::FAST).or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: EVERY_ARGUMENT_RO,
    handler: Handler::Data(exists),
    complexity: "O(N), where N is the number of keys.",
    tips: PER_SHARD_SUM,
    syntax: "key [key ...]",
    summary: "Counts how many of the given keys exist, a repeated one each time.",
    ..Command::DEFAULT
};

fn exists(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let found = call.keys().filter(|key| call.db.read(*key).is_some()).count();
    Ok(reply.int(found as i64))
}

static TOUCH: Command = Command {
    name: "TOUCH",
    arity: Arity::AtLeast(2),
    // The touch is explicit, because it happens even if the client asked for NO-TOUCH.
    flags: flags::READONLY.or(flags::FAST).or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: EVERY_ARGUMENT_RO,
    handler: Handler::Data(touch),
    since: "3.2.1",
    complexity: "O(N), where N is the number of keys.",
    tips: PER_SHARD_SUM,
    syntax: "key [key ...]",
    summary: "Marks keys as used now, and counts those that exist.",
    ..Command::DEFAULT
};

fn touch(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut found = 0;
    for key in call.keys() {
        if call.db.read(key).is_some() {
            call.db.touch(key);
            found += 1;
        }
    }
    Ok(reply.int(found))
}

static TYPE: Command = Command {
    name: "TYPE",
    arity: Arity::Exactly(2),
    flags: flags::READONLY.or(flags::FAST).or(flags::NO_TOUCH),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RO")]),
    handler: Handler::Data(type_of),
    syntax: "key",
    summary: "Names the type of the value at a key.",
    ..Command::DEFAULT
};

fn type_of(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let key = call.key(1);
    let kind = call.db.read(key).map(|entry| entry.kind());
    Ok(reply.simple(kind.map_or("none", Kind::type_name)))
}

static RENAME: Command = Command {
    name: "RENAME",
    arity: Arity::Exactly(3),
    flags: flags::WRITE,
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RW access delete"), KeySpec::at(2, "OW update")]),
    log: LogRule::Effects,
    handler: Handler::Data(rename),
    syntax: "key newkey",
    summary: "Gives a key another name, replacing what that name held.",
    ..Command::DEFAULT
};

fn rename(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    rename_generic(call, false)?;
    Ok(reply.ok())
}

static RENAMENX: Command = Command {
    name: "RENAMENX",
    flags: flags::WRITE.or(flags::FAST),
    keys: Keys(&[KeySpec::at(1, "RW access delete"), KeySpec::at(2, "OW insert")]),
    handler: Handler::Data(renamenx),
    summary: "Gives a key another name, unless that name is taken.",
    ..RENAME
};

fn renamenx(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let renamed = rename_generic(call, true)?;
    Ok(reply.int(renamed.into()))
}

/// Renames the first key to the second. With `only_new`, an existing second key prevents that. Returns whether the
/// key was renamed.
fn rename_generic(call: &mut Call<'_>, only_new: bool) -> Result<bool, CommandError> {
    let (from, to) = (call.key(1), call.key(2));
    let carried = Carried::of(&mut call.db, from).ok_or(CommandError::NoSuchKey)?;
    if from.bytes == to.bytes || only_new && call.db.exists(to) {
        return Ok(false);
    }
    let (from_db, replaced) = (call.db.index(), call.db.kind_to_tell(to));
    let is_told = carried.store(&mut call.db, to, false, (from_db, from));
    remove_source(&mut call.db, from, !is_told);
    call.db.notify_came_anew(to, replaced);
    call.db.notify(NotifyFlags::GENERIC, "rename_from", from);
    call.db.notify(NotifyFlags::GENERIC, "rename_to", to);
    call.db.notify_replaced(to, replaced);
    Ok(true)
}

static COPY: Command = Command {
    name: "COPY",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::DENYOOM),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RO access"), KeySpec::at(2, "OW update")]),
    databases: Databases::Named(copied_to),
    log: LogRule::Effects,
    handler: Handler::Data(copy),
    since: "6.2.0",
    complexity: "O(1): the copy shares the value until one of them changes.",
    syntax: "source destination [DB destination-db] [REPLACE]",
    summary: "Copies the value and the expiry of a key to another key, or to another database.",
    ..Command::DEFAULT
};

/// The places of the numbers of databases that COPY is given.
fn copied_to(args: Args<'_>) -> Places {
    let (mut words, mut places) = (Words::new(args, 3), Places::new());
    while let Some(word) = words.next() {
        if args::is(word, "DB") && words.next().is_some() {
            places.push(args.len() - words.left() - 1);
        }
    }
    places
}

fn copy(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let source_db = call.db.index();
    let databases = call.db.keyspace().databases();
    let (mut target_db, mut replace) = (source_db, false);
    let mut words = Words::new(call.args, 3);
    while let Some(word) = words.next() {
        if args::is(word, "REPLACE") {
            replace = true;
        } else if args::is(word, "DB") {
            target_db = database(words.value()?, databases)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (from, to) = (call.key(1), call.key(2));
    if source_db == target_db && from.bytes == to.bytes {
        return Err(CommandError::Text("ERR source and destination objects are the same"));
    }
    call.db.read(from);
    let Some(carried) = Carried::of(&mut call.db, from) else { return Ok(reply.int(0)) };
    call.db.select(target_db);
    let free = replace || !call.db.exists(to);
    if free {
        let replaced = call.db.kind_to_tell(to);
        carried.store(&mut call.db, to, true, (source_db, from));
        call.db.notify_came_anew(to, replaced);
        call.db.notify(NotifyFlags::GENERIC, "copy_to", to);
        call.db.notify_replaced(to, replaced);
    }
    call.db.select(source_db);
    Ok(reply.int(free.into()))
}

static MOVE: Command = Command {
    name: "MOVE",
    arity: Arity::AtLeast(3),
    flags: flags::WRITE.or(flags::FAST),
    categories: categories::KEYSPACE,
    keys: Keys(&[KeySpec::at(1, "RW access update")]),
    databases: Databases::Named(|_| smallvec![2]),
    log: LogRule::Effects,
    handler: Handler::Data(move_key),
    syntax: "key db [REPLACE]",
    summary: "Moves a key to another database, unless that one has such a key and it is not to be replaced.",
    ..Command::DEFAULT
};

fn move_key(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    if call.db.facts().cluster {
        return Err(CommandError::Text("ERR MOVE is not allowed in cluster mode"));
    }
    let replaces = match call.args.get(3) {
        None => false,
        Some(word) if args::is(word, "REPLACE") && call.args.len() == 4 => true,
        // As in Redis, which takes no option.
        Some(_) => return Err(CommandError::Arity(call.name().to_owned())),
    };
    let source_db = call.db.index();
    let target_db = database(call.args.at(2), call.db.keyspace().databases())?;
    if source_db == target_db {
        return Err(CommandError::Text("ERR source and destination objects are the same"));
    }
    let key = call.key(1);
    // Two keys change: if the second change fails, the first is undone.
    call.db.change_several();
    let Some(carried) = Carried::of(&mut call.db, key) else { return Ok(reply.int(0)) };
    call.db.select(target_db);
    let exists = call.db.exists(key);
    let free = replaces || !exists;
    let replaced = if exists && replaces { call.db.kind_to_tell(key) } else { None };
    let is_told = free && carried.store(&mut call.db, key, false, (source_db, key));
    call.db.select(source_db);
    if free {
        remove_source(&mut call.db, key, !is_told);
        call.db.notify(NotifyFlags::GENERIC, "move_from", key);
        call.db.select(target_db);
        call.db.notify(NotifyFlags::GENERIC, "move_to", key);
        call.db.notify_replaced(key, replaced);
        call.db.select(source_db);
    }
    Ok(reply.int(free.into()))
}

#[cfg(test)]
mod tests {
    use crate::base::random::Random;
    use crate::exec::testing::Runner;

    #[test]
    fn removing_counts_and_logs_each_key_once() {
        let mut t = Runner::new();
        t.run("SET a 1");
        t.run("SET b 2");
        t.take_logged();
        assert_eq!(t.run("EXISTS a a b nokey"), ":3 ");
        assert_eq!(t.run("DEL a nokey a"), ":1 ");
        assert_eq!(t.run("UNLINK b b"), ":1 ");
        assert_eq!(t.run("DEL a b"), ":0 ");
        assert_eq!(t.take_logged(), ["DEL a", "DEL b"]);
        assert_eq!(t.run("DEL"), "-ERR wrong number of arguments for 'del' command ");
    }

    #[test]
    fn an_expired_key_is_neither_counted_nor_removed_twice() {
        let mut t = Runner::new();
        t.run("SET a 1 PX 10");
        t.advance_ms(10);
        t.take_logged();
        assert_eq!(t.run("DEL a"), ":0 ");
        assert_eq!(t.take_logged(), ["DEL a"]);
        assert_eq!(t.run("EXISTS a"), ":0 ");
        assert_eq!(t.run("TYPE a"), "+none ");
    }

    #[test]
    fn touch_sets_the_access_time_and_looking_does_not() {
        let mut t = Runner::new();
        t.run("SET a 1");
        t.advance_ms(30_000);
        assert_eq!(t.run("TYPE a"), "+string ");
        assert_eq!(t.run("EXISTS a"), ":1 ");
        assert_eq!(t.run("TTL a"), ":-1 ");
        assert_eq!(t.run("OBJECT IDLETIME a"), ":30 ");
        assert_eq!(t.run("TOUCH a nokey a"), ":2 ");
        assert_eq!(t.run("OBJECT IDLETIME a"), ":0 ");
    }

    #[test]
    fn rename_carries_value_and_expiry_and_replaces_both() {
        let mut t = Runner::new();
        let long = "x".repeat(60_000);
        t.run(&format!("SET a {long} PX 5000"));
        t.run("SET b 1");
        t.take_logged();
        assert_eq!(t.run("RENAME a b"), "+OK ");
        let at = t.now() + 5000;
        assert_eq!(t.take_logged(), [format!("SET b {long} PXAT {at}"), "DEL a".into()]);
        assert_eq!(t.run("EXISTS a"), ":0 ");
        assert_eq!(t.run("PEXPIRETIME b"), format!(":{at} "));
        assert_eq!(t.run("GET b"), format!("$60000 {long} "));

        t.run("SET c 7");
        assert_eq!(t.run("RENAME c b"), "+OK ");
        assert_eq!((t.run("GET b"), t.run("TTL b")), ("$1 7 ".into(), ":-1 ".into()));
        assert_eq!(t.run("RENAME nokey b"), "-ERR no such key ");
        assert_eq!(t.run("RENAME nokey nokey"), "-ERR no such key ");
        t.take_logged();
        assert_eq!(t.run("RENAME b b"), "+OK ");
        assert_eq!(t.run("RENAMENX b b"), ":0 ");
        t.run("SET d 1");
        t.take_logged();
        assert_eq!(t.run("RENAMENX b d"), ":0 ");
        assert_eq!(t.take_logged(), [""; 0]);
        assert_eq!(t.run("RENAMENX b e"), ":1 ");
        assert_eq!(t.take_logged(), ["SET e 7", "DEL b"]);
    }

    #[test]
    fn a_large_value_that_gets_another_name_is_not_written_out() {
        let mut t = Runner::new();
        t.run(&format!("SET a {}", "x".repeat(70_000)));
        t.run("RPUSH list 1");
        for part in 0..20 {
            t.run(&format!("RPUSH list {}", format!("element:{part} ").repeat(500)));
        }
        t.run("PEXPIRE list 5000");
        t.run("SET b 1 PX 10");
        t.advance_ms(10);
        assert_eq!(t.run("RENAME a b"), "+OK ");
        assert_eq!(t.run("RENAMENX list fresh"), ":1 ");
        assert_eq!(t.run("RENAMENX fresh b"), ":0 ");
        assert_eq!(t.run("COPY fresh again DB 3"), ":1 ");
        assert_eq!(t.run("COPY fresh again DB 3"), ":0 ");
        t.run("SET gone 1 PX 10");
        t.advance_ms(10);
        assert_eq!(t.run("RENAMENX fresh gone"), ":1 ");
        assert_eq!(t.run("MOVE b 5"), ":1 ");
        t.run("LPUSH gone more");
        t.assert_replay_equals_live();
        let logged = t.take_logged();
        let carried: Vec<&String> = logged.iter().filter(|line| line.len() < 60 && !line.contains("PUSH")).collect();
        let mut expected = [
            "TRANSFER MOVE a 0 b",
            "TRANSFER MOVE list 0 fresh",
            "DEL gone",
            "TRANSFER MOVE fresh 0 gone",
            "TRANSFER COPY fresh 3 again",
            "TRANSFER MOVE b 5 b",
        ]
        .into_iter();
        assert!(expected.all(|line| carried.iter().any(|logged| *logged == line)), "{carried:?}");
        assert!(!logged.iter().any(|line| line.starts_with("STATE")), "no state is written out");
    }

    #[test]
    fn a_copy_is_independent_and_may_go_to_another_database() {
        let mut t = Runner::new();
        t.run(&format!("SET a {} PX 5000", "x".repeat(200)));
        assert_eq!(t.run("COPY a b"), ":1 ");
        assert_eq!(t.run("APPEND b y"), ":201 ");
        assert_eq!(t.run("COPY b c"), ":1 ");
        assert_eq!(t.run("APPEND b zz"), ":203 ");
        assert_eq!(t.run("GET a"), format!("$200 {} ", "x".repeat(200)));
        assert_eq!(t.run("GET c"), format!("$201 {}y ", "x".repeat(200)));
        assert_eq!(t.run("PTTL c"), ":5000 ");
        assert_eq!(t.run("COPY a b"), ":0 ");
        assert_eq!(t.run("COPY a b REPLACE"), ":1 ");
        assert_eq!(t.run("COPY a a db 3"), ":1 ");
        assert_eq!(t.run("COPY a a DB 3"), ":0 ");
        assert_eq!(t.run("COPY nokey a DB 3 REPLACE"), ":0 ");
        t.db = 3;
        assert_eq!(t.run("PTTL a"), ":5000 ");
        assert_eq!(t.run("EXISTS b"), ":0 ");
        t.assert_replay_equals_live();
    }

    #[test]
    fn move_needs_the_name_to_be_free_there() {
        let mut t = Runner::new();
        t.run("SET a 1 PX 700");
        assert_eq!(t.run("MOVE a 5"), ":1 ");
        assert_eq!(t.run("MOVE a 5"), ":0 ");
        t.run("SET a 2");
        assert_eq!(t.run("MOVE a 5"), ":0 ");
        assert_eq!(t.run("GET a"), "$1 2 ");
        t.db = 5;
        assert_eq!((t.run("GET a"), t.run("PTTL a")), ("$1 1 ".into(), ":700 ".into()));
        t.advance_ms(700);
        t.db = 0;
        // An expired key there is no obstacle.
        assert_eq!(t.run("MOVE a 5"), ":1 ");
        t.run("SET a 3 PX 900");
        assert_eq!(t.run("MOVE a 5"), ":0 ");
        assert_eq!(t.run("MOVE a 5 REPLACE"), ":1 ");
        assert_eq!(t.run("MOVE a 5 REPLACE"), ":0 ");
        assert_eq!(t.run("MOVE a 5 FOO"), "-ERR wrong number of arguments for 'move' command ");
        assert_eq!(t.run("MOVE a 5 REPLACE x"), "-ERR wrong number of arguments for 'move' command ");
        t.db = 5;
        assert_eq!((t.run("GET a"), t.run("PTTL a")), ("$1 3 ".into(), ":900 ".into()));
        t.assert_replay_equals_live();
    }

    #[test]
    fn mistakes_are_noticed_in_redis_order() {
        let mut t = Runner::new();
        t.run("SET a 1");
        t.take_logged();
        let same = "-ERR source and destination objects are the same ";
        let beyond = "-ERR DB index is out of range ";
        let int = "-ERR value is not an integer or out of range ";
        let int32 = "-ERR value is out of range, value must between -2147483648 and 2147483647 ";
        let syntax = "-ERR syntax error ";
        for (line, expected) in [
            ("COPY nokey nokey", same),
            ("COPY a a REPLACE DB 0", same),
            ("COPY a a FOO", syntax),
            ("COPY a b DB", syntax),
            ("COPY nokey b DB 16", beyond),
            ("COPY a b DB -1", beyond),
            ("COPY a b DB x", int),
            ("COPY a b DB 5000000000", int32),
            ("COPY a b DB 16 FOO", beyond),
            ("MOVE nokey 0", same),
            ("MOVE nokey 16", beyond),
            ("MOVE nokey -1", beyond),
            ("MOVE nokey x", int),
            ("MOVE nokey -5000000000", int32),
            ("MOVE nokey 3", ":0 "),
        ] {
            assert_eq!(t.run(line), expected, "{line}");
        }
        assert_eq!(t.take_logged(), [""; 0]);
    }

    #[test]
    fn a_replay_of_whatever_happened_gives_what_is_there() {
        let mut random = Random::from_seed(7);
        for _ in 0..20 {
            let mut t = Runner::new();
            for _ in 0..300 {
                let key = |random: &mut Random| ["a", "b", "c", "d"][random.index(4)];
                let (one, other) = (key(&mut random), key(&mut random));
                let db = random.below(3);
                let line = match random.below(17) {
                    14 | 15 => format!("BLESS SET {one} NO-EVICT"),
                    16 => format!("BLESS CLEAR {one} NO-EVICT"),
                    0 => format!("SET {one} {}", random.below(1000)),
                    1 => format!("SET {one} {} PX {}", "v".repeat(random.index(300)), random.below(50) + 1),
                    2 => format!("APPEND {one} xyz"),
                    3 => format!("RENAME {one} {other}"),
                    4 => format!("RENAMENX {one} {other}"),
                    5 => format!("COPY {one} {other} DB {db}"),
                    6 => format!("COPY {one} {other} DB {db} REPLACE"),
                    7 => format!("MOVE {one} {db}"),
                    8 => format!("DEL {one} {other}"),
                    9 => format!("PEXPIRE {one} {}", random.below(60)),
                    10 => format!("PERSIST {one}"),
                    11 => format!("SWAPDB {db} 1"),
                    12 if random.below(10) == 0 => "FLUSHDB".into(),
                    _ => format!("EXPIREAT {one} {}", random.below(2) * 4_000_000_000),
                };
                t.run(&line.replace(" PX", "  PX"));
                t.db = random.below(3) as u32;
                t.advance_ms(random.below(10) as i64);
                if random.below(20) == 0 {
                    t.sweep(usize::MAX);
                }
            }
            t.assert_replay_equals_live();
        }
    }
}

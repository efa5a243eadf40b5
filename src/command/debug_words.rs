//! DEBUG: the subcommands that tests of servers and clients use and that need only the keyspace, or nothing.
//!
//! The subcommands that need the server, and the command itself, are in `session::debug`. Those about Redis' own
//! memory do not exist here. Those that would only tune what Ironkeep does not have are
//! accepted and do nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use super::digest::Digest;
use crate::base::config::words::parse_memory;
use crate::base::{format, glob, logging};
use crate::command::keys::{dump, object};
use crate::core::error::until_nul;
use crate::core::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, LogRule, Outcome, flags};
use crate::keyspace::{EntryRef, NewValue, ValueRef};
use crate::resp::{Reply, Resp};
use crate::value::list::{AnyList, ListRef};
use crate::value::listpack::Listpack;
use crate::value::{Collection, Packing, codec};

/// The words of this file.
pub static WORDS: &[&Command] = &[
    &CHANGE_REPL_ID,
    &DICT_RESIZING,
    &DIGEST,
    &DIGEST_VALUE,
    &CLIENT_ENFORCE_REPLY_LIST,
    &ERROR,
    &HTSTATS,
    &HTSTATS_KEY,
    &LISTPACK,
    &LOG,
    &OBJECT,
    &PAUSE_CRON,
    &POPULATE,
    &PROTOCOL,
    &QUICKLIST,
    &QUICKLIST_PACKED_THRESHOLD,
    &REPLYBUFFER,
    &SDSLEN,
    &SLEEP,
    &STRINGMATCH_LEN,
];

/// What DEBUG and all its words share.
pub const WORD: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::ADMIN
        .or(flags::NOSCRIPT)
        .or(flags::LOADING)
        .or(flags::STALE)
        .or(flags::NO_TOUCH)
        .or(flags::DEBUGGING),
    group: "server",
    complexity: "Depends on subcommand.",
    ..Command::DEFAULT
};

static DIGEST: Command = Command {
    name: "DIGEST",
    flags: WORD.flags.or(flags::FROZEN),
    handler: Handler::Data(digest),
    summary: "A digest of all databases, equal to that of a Redis with the same content.",
    ..WORD
};

fn digest(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = call.db.facts().now.max(0) as u64;
    let frozen = call.frozen.as_ref().expect("the executor gives it to whoever asks for it");
    let used: BTreeSet<u32> = (0..frozen.shards()).flat_map(|shard| frozen.shard(shard)).map(|(db, _)| db).collect();
    let mut digest = Digest::default();
    for db in used {
        digest.database(db);
        frozen.entries(db).for_each(|entry| digest.key(entry, now));
    }
    Ok(reply.simple(&digest.to_string()))
}

static DIGEST_VALUE: Command = Command {
    name: "DIGEST-VALUE",
    arity: Arity::AtLeast(2),
    keys: Keys(&[KeySpec::range(2, -1, 1, "RO")]),
    handler: Handler::Data(digest_value),
    summary: "A digest of each value.",
    ..WORD
};

fn digest_value(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now = call.db.facts().now.max(0) as u64;
    let keys = call.keys();
    let mut digests = reply.array(keys.len());
    for key in keys {
        let mut digest = Digest::default();
        if let Some(entry) = call.db.peek(key) {
            digest.value(entry, now);
        }
        digests.simple(&digest.to_string());
    }
    Ok(digests.done())
}

static OBJECT: Command = Command {
    name: "OBJECT",
    arity: Arity::Exactly(3),
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(describe),
    summary: "How a value is stored.",
    ..WORD
};

fn describe(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    /// The bytes of a DUMP payload around the value: the type before it, version and checksum behind it.
    const AROUND_VALUE_BYTES: usize = 1 + 10;
    let facts = *call.db.facts();
    let entry = call.db.peek(call.key(2)).ok_or(CommandError::NoSuchKey)?;
    let value = entry.value();
    let mut line = format!(
        "Value at:{:#x} refcount:{} encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
        address(&entry),
        object::reference_count(value),
        object::encoding_name(value),
        dump::payload(value).len() - AROUND_VALUE_BYTES,
        entry.access(),
        facts.access.idle_seconds(entry.access()),
    );
    if let (ValueRef::List(list), Some(elements)) = (value, AnyList::view(value)) {
        let (chunks, bytes) = list.chunks();
        line += &format!(
            " ql_nodes:{chunks} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:0 ql_uncompressed_size:{bytes}",
            elements.len() as f64 / chunks.max(1) as f64,
            facts.limits.list_max_listpack_size,
        );
    }
    Ok(reply.simple(&line))
}

/// The address of the key, because a value may be in the same record.
fn address(entry: &EntryRef<'_>) -> usize {
    entry.key().as_ptr().addr()
}

static LISTPACK: Command = Command {
    name: "LISTPACK",
    arity: Arity::Exactly(3),
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(|call, reply| {
        let entry = call.db.peek(call.key(2)).ok_or(CommandError::NoSuchKey)?;
        let mut bytes = Vec::new();
        match entry.value() {
            ValueRef::Packed(Packing::SetInts, _) => None,
            value @ ValueRef::Packed(..) => codec::encode(value, &mut bytes),
            _ => None,
        }
        .ok_or(CommandError::Text("ERR Not a listpack encoded object."))?;
        let listpack = Listpack::trusted(&bytes);
        logging::notice(format_args!("DEBUG LISTPACK: {} bytes, {} elements", bytes.len(), listpack.len()));
        Ok(reply.simple("Listpack structure printed on stdout"))
    }),
    syntax: "key",
    summary: "Writes the size of a listpack to the server's log.",
    ..WORD
};

static QUICKLIST: Command = Command {
    name: "QUICKLIST",
    arity: Arity::AtLeast(3),
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(|call, reply| {
        if call.args.len() > 4 {
            return Err(CommandError::subcommand_syntax(call.args.at(1), "DEBUG"));
        }
        let entry = call.db.peek(call.key(2)).ok_or(CommandError::NoSuchKey)?;
        let ValueRef::List(list) = entry.value() else {
            return Err(CommandError::Text("ERR Not a quicklist encoded object."));
        };
        let (chunks, bytes) = list.chunks();
        logging::notice(format_args!(
            "DEBUG QUICKLIST: {} elements in {chunks} nodes of {bytes} bytes",
            ListRef::Large(list).len()
        ));
        Ok(reply.simple("Quicklist structure printed on stdout"))
    }),
    syntax: "key [0|1]",
    summary: "Writes the size of a quicklist to the server's log.",
    ..WORD
};

static SDSLEN: Command = Command {
    name: "SDSLEN",
    arity: Arity::Exactly(3),
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(|call, reply| {
        let key = call.key(2);
        let entry = call.db.peek(key).ok_or(CommandError::NoSuchKey)?;
        let (ValueRef::Str(bytes) | ValueRef::Raw(bytes)) = entry.value() else {
            return Err(CommandError::Text("ERR Not an sds encoded string."));
        };
        let (key_len, len) = (key.bytes.len(), bytes.len());
        let line = format!(
            "key_sds_len:{key_len}, key_sds_avail:0, key_zmalloc: {key_len}, val_sds_len:{len}, val_sds_avail:0, \
             val_zmalloc: {}",
            entry.memory().saturating_sub(key_len)
        );
        Ok(reply.simple(&line))
    }),
    syntax: "key",
    summary: "How long a key and its string are.",
    ..WORD
};

static HTSTATS: Command = Command {
    name: "HTSTATS",
    arity: Arity::AtLeast(3),
    flags: WORD.flags.or(flags::FROZEN),
    handler: Handler::Data(htstats),
    syntax: "dbid [full]",
    summary: "How full the directories of a database are.",
    ..WORD
};

fn htstats(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.len() > 4 {
        return Err(CommandError::subcommand_syntax(call.args.at(1), "DEBUG"));
    }
    let databases = u64::from(call.db.keyspace().databases());
    let db = format::parse_u64(call.args.at(2)).filter(|db| *db < databases);
    let db = db.ok_or(CommandError::Text("ERR Out of range database"))? as u32;
    let frozen = call.frozen.as_ref().expect("the executor gives it to whoever asks for it");
    let shards = (0..frozen.shards()).flat_map(|shard| frozen.shard(shard));
    let (mut shards_used, mut keys, mut expiring, mut bytes) = (0, 0, 0, 0);
    for (_, directory) in shards.filter(|(at, _)| *at == db) {
        shards_used += 1;
        keys += directory.len();
        expiring += directory.volatile_len();
        bytes += directory.memory();
    }
    let text = format!(
        "[Dictionary HT]\nHash table 0 stats (main hash table):\n number of elements: {keys}\n directories: {shards_used}\n \
         memory: {bytes}\n[Expires HT]\n number of elements: {expiring}\n"
    );
    Ok(reply.verbatim("txt", text.as_bytes()))
}

static HTSTATS_KEY: Command = Command {
    name: "HTSTATS-KEY",
    arity: Arity::AtLeast(3),
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(|call, reply| {
        if call.args.len() > 4 {
            return Err(CommandError::subcommand_syntax(call.args.at(1), "DEBUG"));
        }
        let entry = call.db.peek(call.key(2)).ok_or(CommandError::NoSuchKey)?;
        let Some(map) = entry.value().map() else {
            return Err(CommandError::Text(
                "ERR The value stored at the specified key is not represented using an hash table",
            ));
        };
        let (bytes, len) = (entry.memory(), map.len());
        let text = format!("Hash table 0 stats (main hash table):\n number of elements: {len}\n memory: {bytes}\n");
        Ok(reply.verbatim("txt", text.as_bytes()))
    }),
    syntax: "key [full]",
    summary: "How full the map of a large collection is.",
    ..WORD
};

static POPULATE: Command = Command {
    name: "POPULATE",
    arity: Arity::AtLeast(3),
    flags: WORD.flags.or(flags::WRITE).or(flags::GATE),
    log: LogRule::Barrier, // one record for any number of keys: it depends only on which keys exist
    handler: Handler::Data(populate),
    syntax: "count [prefix [size]]",
    summary: "Makes so many keys with strings, as far as they are not there yet.",
    ..WORD
};

/// The longest name of a created key, in bytes.
const POPULATED_KEY_MAX: usize = 127;
/// The least that a key with a short value takes, and the most that all of them may take together, in bytes.
const POPULATED_MIN_BYTES: u64 = 32;
const POPULATED_MAX_BYTES: u64 = 1 << 36;

fn populate(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.len() > 5 {
        return Err(CommandError::subcommand_syntax(call.args.at(1), "DEBUG"));
    }
    let number = |at: usize| {
        let number =
            call.args.get(at).map_or(Some(0), format::parse_u64).filter(|number| i64::try_from(*number).is_ok());
        number.ok_or(CommandError::OutOfRange("value is out of range, must be positive"))
    };
    let (count, size) = (number(2)?, number(4)?);
    if size > call.db.facts().string_max_bytes {
        return Err(CommandError::StringTooLong);
    }
    if count.saturating_mul(size.max(POPULATED_MIN_BYTES)) > POPULATED_MAX_BYTES {
        return Err(CommandError::Text("ERR OOM in dictTryExpand"));
    }
    let prefix = call.args.get(3).map_or(&b"key"[..], until_nul);
    let (mut name, mut value) = (Vec::new(), Vec::new());
    // Nothing can fail from here on, so nothing needs to be undone.
    call.db.change_one();
    for index in 0..count {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(index).as_bytes();
        name.clear();
        name.extend([prefix, b":", digits].concat().into_iter().take(POPULATED_KEY_MAX));
        let key = call.db.keyspace().key(&name);
        if !call.db.exists(key) {
            value.clear();
            value.extend_from_slice(b"value:");
            value.extend_from_slice(digits);
            if size > 0 {
                value.resize(size as usize, 0);
            }
            call.db.set(key, NewValue::Bytes(&value), None);
        }
    }
    call.db.barrier().populate(count, size, prefix);
    Ok(reply.ok())
}

static SLEEP: Command = Command {
    name: "SLEEP",
    arity: Arity::Exactly(3),
    handler: Handler::Data(sleep),
    syntax: "seconds",
    summary: "Keeps its worker from doing anything else for a while; in a transaction that is alone, the server.",
    ..WORD
};

fn sleep(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    std::thread::sleep(duration(call.args.at(2)));
    Ok(reply.ok())
}

/// The time at the start of a word, as C parses it: zero if the word does not begin with a number.
fn duration(word: &[u8]) -> Duration {
    let end = word.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.').unwrap_or(word.len());
    let number = (0..=end).rev().find_map(|end| std::str::from_utf8(&word[..end]).ok()?.parse::<f64>().ok());
    Duration::try_from_secs_f64(number.unwrap_or(0.0)).unwrap_or_default()
}

static STRINGMATCH_LEN: Command = Command {
    name: "STRINGMATCH-LEN",
    arity: Arity::Exactly(4),
    handler: Handler::Data(|call, reply| Ok(reply.int(glob::matches(call.args.at(2), call.args.at(3)).into()))),
    syntax: "pattern string",
    summary: "Whether a string is as a pattern says: 1 or 0.",
    ..WORD
};

static ERROR: Command = Command {
    name: "ERROR",
    arity: Arity::Exactly(3),
    handler: Handler::Data(|call, reply| {
        // Every line end is kept, including those at the end that our own errors would drop.
        let is_line_end = |byte: &u8| matches!(*byte, b'\r' | b'\n');
        let text = call.args.at(2).iter().map(|byte| if is_line_end(byte) { b' ' } else { *byte });
        Ok(reply.error_bytes(&text.collect::<Vec<u8>>()))
    }),
    syntax: "text",
    summary: "Replies with an error, for tests of clients.",
    ..WORD
};

static LOG: Command = Command {
    name: "LOG",
    arity: Arity::Exactly(3),
    handler: Handler::Data(|call, reply| {
        logging::warning(format_args!("DEBUG LOG: {}", String::from_utf8_lossy(until_nul(call.args.at(2)))));
        Ok(reply.ok())
    }),
    syntax: "text",
    summary: "Writes a line to the server's log.",
    ..WORD
};

/// A word that is accepted without effect.
const IGNORED: Command = Command {
    arity: Arity::Exactly(3),
    handler: Handler::Data(|_, reply| Ok(reply.ok())),
    summary: "Is taken, and does nothing.",
    ..WORD
};

static CLIENT_ENFORCE_REPLY_LIST: Command = Command { name: "CLIENT-ENFORCE-REPLY-LIST", ..IGNORED };
static CHANGE_REPL_ID: Command = Command { name: "CHANGE-REPL-ID", arity: Arity::Exactly(2), ..IGNORED };
static DICT_RESIZING: Command = Command { name: "DICT-RESIZING", ..IGNORED };
static PAUSE_CRON: Command = Command { name: "PAUSE-CRON", ..IGNORED };
static REPLYBUFFER: Command = Command { name: "REPLYBUFFER", arity: Arity::Exactly(4), ..IGNORED };

static QUICKLIST_PACKED_THRESHOLD: Command = Command {
    name: "QUICKLIST-PACKED-THRESHOLD",
    handler: Handler::Data(|call, reply| match parse_memory(call.args.at(2)) {
        Some(0..=QUICKLIST_THRESHOLD_MAX) => Ok(reply.ok()),
        _ => Err(CommandError::Text("ERR argument must be a memory value bigger than 1 and smaller than 4gb")),
    }),
    ..IGNORED
};

/// The largest size that Redis accepts there, which leaves room below 4 GiB.
const QUICKLIST_THRESHOLD_MAX: u64 = (1 << 32) - (1 << 20);

static PROTOCOL: Command = Command {
    name: "PROTOCOL",
    arity: Arity::Exactly(3),
    handler: Handler::Data(protocol),
    syntax: "type",
    summary: "Replies with a value of a type of the protocol, for tests of clients.",
    ..WORD
};

fn protocol(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let word = call.args.at(2).to_ascii_lowercase();
    Ok(match word.as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.int(12345),
        b"double" => reply.double("3.141"),
        b"bignum" => reply.big_number("1234567999999999999999999999999999999"),
        b"null" => reply.null(),
        b"array" => {
            let mut elements = reply.array(3);
            (0..3).for_each(|number| elements.int(number));
            elements.done()
        }
        b"set" => {
            let mut elements = reply.set(3);
            (0..3).for_each(|number| elements.int(number));
            elements.done()
        }
        b"map" => {
            let mut pairs = reply.map(3);
            for number in 0..3 {
                pairs.int(number);
                pairs.boolean(number == 1);
            }
            pairs.done()
        }
        b"attrib" => {
            let reply = reply.with_attributes(1, |attributes| {
                attributes.bulk(b"key-popularity");
                let mut popularity = attributes.array(2);
                popularity.bulk(b"key:123");
                popularity.int(90);
                popularity.end();
            });
            reply.bulk(b"Some real reply following the attribute")
        }
        b"push" if reply.resp() == Resp::V2 => {
            return Err(CommandError::Text("ERR RESP2 is not supported by this command"));
        }
        b"push" => {
            let reply = reply.with_push(2, |push| {
                push.bulk(b"server-cpu-usage");
                push.int(42);
            });
            // A client that drops pushes needs a reply to continue with.
            reply.bulk(b"Some real reply following the push reply")
        }
        b"verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err(CommandError::Text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    })
}

//! Writes an append-only file: the commands that make each key, which every server of the family and every reader of
//! the protocol understands.
//!
//! Commands hold at most `ITEMS_MAX` items and about `COMMAND_BYTES` of them. An append-only file has no place for
//! when a key was last used.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::base::config::RdbVersionCheck;
use crate::base::format::write_double;
use crate::persist::rdb::{RdbEntryFields, RdbGroup, RdbSink, RdbStreamId, RdbStreamMeta, decode_dump_into};

/// How many items a command holds, as in Redis.
const ITEMS_MAX: usize = 64;
/// From how many bytes of items on a command is closed.
const COMMAND_BYTES: usize = 1 << 20;

/// See the module.
pub struct AofFileWriter<W: Write> {
    out: W,
    db: Option<u32>,
    keys: u64,
}

impl<W: Write> AofFileWriter<W> {
    /// Begins an empty file.
    pub fn new(out: W) -> AofFileWriter<W> {
        AofFileWriter { out, db: None, keys: 0 }
    }

    /// How many keys were written.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Adds a library of functions.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn library(&mut self, text: &[u8]) -> io::Result<()> {
        command(&mut self.out, &[b"FUNCTION", b"LOAD", text])
    }

    /// Adds a key with the payload that DUMP gave.
    ///
    /// # Errors
    /// The payload is damaged, or the file cannot be written.
    pub fn key(&mut self, db: u32, name: &[u8], expiry: Option<i64>, payload: &[u8]) -> io::Result<()> {
        if self.db != Some(db) {
            command(&mut self.out, &[b"SELECT", db.to_string().as_bytes()])?;
            self.db = Some(db);
        }
        let mut commands = Commands {
            out: &mut self.out,
            key: name,
            verb: b"",
            items: Vec::new(),
            count: 0,
            bytes: 0,
            times: Vec::new(),
            has_entries: false,
            failed: None,
        };
        decode_dump_into(payload, RdbVersionCheck::Strict, &mut commands)
            .map_err(|error| io::Error::other(format!("key '{}' of database {db}: {error}", name.escape_ascii())))?;
        commands.end()?;
        if let Some(expiry) = expiry {
            command(&mut self.out, &[b"PEXPIREAT", name, expiry.to_string().as_bytes()])?;
        }
        self.keys += 1;
        Ok(())
    }

    /// Ends the file, its content not synced yet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

fn command(out: &mut impl Write, words: &[&[u8]]) -> io::Result<()> {
    write!(out, "*{}\r\n", words.len())?;
    words.iter().try_for_each(|each| word(out, each))
}

fn word(out: &mut impl Write, word: &[u8]) -> io::Result<()> {
    write!(out, "${}\r\n", word.len())?;
    out.write_all(word)?;
    out.write_all(b"\r\n")
}

/// The commands of one key, as its value is read.
struct Commands<'a, W: Write> {
    out: &'a mut W,
    key: &'a [u8],
    /// The command that is being gathered, and its words after the key.
    verb: &'static [u8],
    items: Vec<u8>,
    count: usize,
    bytes: usize,
    /// The fields of the command that expire, and when.
    times: Vec<(Vec<u8>, u64)>,
    has_entries: bool,
    /// The first error; then nothing more is written.
    failed: Option<io::Error>,
}

impl<W: Write> Commands<'_, W> {
    fn end(mut self) -> io::Result<()> {
        self.flush();
        self.failed.map_or(Ok(()), Err)
    }

    /// Adds an item of several words to the command.
    fn item(&mut self, verb: &'static [u8], words: &[&[u8]]) {
        self.verb = verb;
        for each in words {
            // A vector takes everything.
            let _ = word(&mut self.items, each);
            self.bytes += each.len();
        }
        self.count += words.len();
        if self.count >= ITEMS_MAX * words.len() || self.bytes >= COMMAND_BYTES {
            self.flush();
        }
    }

    /// Writes the command that was gathered.
    fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        let head = |out: &mut W, count: usize, verb: &[u8], key: &[u8]| {
            write!(out, "*{}\r\n", count + 2)?;
            word(out, verb)?;
            word(out, key)
        };
        if self.failed.is_none() {
            let written =
                head(self.out, self.count, self.verb, self.key).and_then(|()| self.out.write_all(&self.items));
            self.failed = written.err();
        }
        (self.count, self.bytes) = (0, 0);
        self.items.clear();
        for (field, time) in std::mem::take(&mut self.times) {
            let time = time.to_string();
            self.whole(&[b"HPEXPIREAT", self.key, time.as_bytes(), b"FIELDS", b"1", &field]);
        }
    }

    /// Writes a command of its own.
    fn whole(&mut self, words: &[&[u8]]) {
        if self.failed.is_none() {
            self.failed = command(self.out, words).err();
        }
    }

    fn group(&mut self, group: &RdbGroup) {
        let (last, key) = (text(group.last_id), self.key);
        match group.entries_read {
            Some(read) => {
                let read = read.to_string();
                self.whole(&[b"XGROUP", b"CREATE", key, &group.name, last.as_bytes(), b"ENTRIESREAD", read.as_bytes()]);
            }
            None => self.whole(&[b"XGROUP", b"CREATE", key, &group.name, last.as_bytes()]),
        }
        for consumer in &group.consumers {
            self.whole(&[b"XGROUP", b"CREATECONSUMER", key, &group.name, &consumer.name]);
        }
        for pending in &group.pel {
            let Some(consumer) = group.consumers.get(pending.consumer) else { continue };
            let (id, time) = (text(pending.id), pending.delivery_time_ms.to_string());
            let count = pending.delivery_count.to_string();
            let claim: &[&[u8]] = &[b"XCLAIM", key, &group.name, &consumer.name, b"0", id.as_bytes()];
            let how: &[&[u8]] = &[b"TIME", time.as_bytes(), b"RETRYCOUNT", count.as_bytes(), b"JUSTID", b"FORCE"];
            self.whole(&[claim, how].concat());
        }
        // Only Redis 8.8 and later have such entries, and this command.
        for pending in &group.released {
            let (id, count) = (text(pending.id), pending.delivery_count.to_string());
            let which: &[&[u8]] = &[b"XNACK", key, &group.name, b"FAIL", b"IDS", b"1", id.as_bytes()];
            self.whole(&[which, &[b"RETRYCOUNT", count.as_bytes(), b"FORCE"]].concat());
        }
    }
}

fn text(id: RdbStreamId) -> String {
    format!("{}-{}", id.0, id.1)
}

impl<W: Write> RdbSink for Commands<'_, W> {
    fn string(&mut self, value: Cow<'_, [u8]>) {
        self.whole(&[b"SET", self.key, &value]);
    }

    fn list_item(&mut self, item: &[u8]) {
        self.item(b"RPUSH", &[item]);
    }

    fn set_member(&mut self, member: &[u8]) -> bool {
        self.item(b"SADD", &[member]);
        true
    }

    fn hash_field(&mut self, field: &[u8], value: &[u8], expiry: Option<u64>) -> bool {
        if let Some(time) = expiry {
            self.times.push((field.to_vec(), time));
        }
        self.item(b"HMSET", &[field, value]);
        true
    }

    fn zset_member(&mut self, member: &[u8], score: f64) -> bool {
        let mut digits = Vec::new();
        write_double(&mut digits, score);
        self.item(b"ZADD", &[&digits, member]);
        true
    }

    fn stream_entry(&mut self, id: RdbStreamId, fields: RdbEntryFields) {
        self.has_entries = true;
        let id = text(id);
        let mut words: Vec<&[u8]> = vec![b"XADD", self.key, id.as_bytes()];
        words.extend(fields.iter().flat_map(|(name, value)| [&name[..], &value[..]]));
        self.whole(&words);
    }

    fn stream_end(&mut self, meta: RdbStreamMeta) {
        let key = self.key;
        if !self.has_entries {
            self.whole(&[b"XADD", key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
        }
        let (last, deleted, added) = (text(meta.last_id), text(meta.max_deleted_id), meta.entries_added.to_string());
        self.whole(&[
            b"XSETID",
            key,
            last.as_bytes(),
            b"ENTRIESADDED",
            added.as_bytes(),
            b"MAXDELETEDID",
            deleted.as_bytes(),
        ]);
        meta.groups.iter().for_each(|group| self.group(group));
    }
}

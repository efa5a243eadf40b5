//! The items of a block's payload: records, barriers, epochs. Drawn in `format.rs`.
//!
//! - A record names one key and replays without reading any other.
//! - Decoding borrows, never allocates, never reads past the end, and refuses malformed bytes. A record from
//!   [`Items`] is whole, and its [`Effect`] cannot fail.

use super::format::{
    BARRIER_SHARD, ITEM_BARRIER, ITEM_EPOCH, ITEM_RECORD, ITEM_VERB, ITEM_VERB_BARRIER, VERSION, put_varint,
    take_bytes, take_string, take_varint, u16_at,
};
use super::verbs::{Code, Verb};

/// One effect, borrowed from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The shard of its key; [`BARRIER_SHARD`] for a barrier.
    pub shard: u16,
    /// The shard's own sequence number; 0 for a barrier.
    pub seq: u64,
    /// The database.
    pub db: u32,
    /// What has become of the key, or of the whole keyspace.
    pub effect: Effect<'a>,
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Command-like words, with the key behind the name: records of version 1.
    Words(Args<'a>),
    /// A verb.
    Verb(EncodedVerb<'a>),
}

/// A verb as it is stored in the log. It was decoded once, so decoding it again cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedVerb<'a> {
    /// Which one.
    pub code: Code,
    /// The key; empty for a barrier.
    pub key: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> EncodedVerb<'a> {
    /// Parses the code, the key unless it is a barrier, and the body.
    fn parse(mut bytes: &'a [u8], is_barrier: bool) -> Option<Self> {
        let code = Code::of(take_bytes(&mut bytes, 1)?[0]).filter(|code| code.is_barrier() == is_barrier)?;
        let key = if is_barrier { &[] } else { take_string(&mut bytes)? };
        Verb::decode(code, bytes).map(|_| EncodedVerb { code, key, body: bytes })
    }

    /// The verb of one record, as [`RecordWriter`](super::verbs::RecordWriter) writes it.
    pub fn of_record(record: &'a [u8]) -> Option<Self> {
        let (&[ITEM_VERB], mut rest) = record.split_first_chunk()? else { return None };
        let mut body = take_string(&mut rest).filter(|_| rest.is_empty())?;
        take_bytes(&mut body, 2)?;
        take_varint(&mut body)?;
        take_varint(&mut body)?;
        EncodedVerb::parse(body, false)
    }

    /// The verb.
    pub fn verb(self) -> Verb<'a> {
        Verb::decode(self.code, self.body).expect("decoded when the record was parsed")
    }
}

impl Record<'_> {
    /// Whether it concerns the whole keyspace.
    pub fn is_barrier(&self) -> bool {
        self.shard == BARRIER_SHARD
    }
}

/// The arguments of a record: an iterator that allocates nothing and cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Args<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Args<'a> {
    /// Checks that `bytes` are exactly a list of at least one argument.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let count = take_varint(&mut rest)?;
        let args = Self { left: usize::try_from(count).ok()?, bytes: rest };
        // Each argument takes at least one byte, so a false count ends soon.
        for _ in 0..count {
            take_string(&mut rest)?;
        }
        (count > 0 && rest.is_empty()).then_some(args)
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(take_string(&mut self.bytes).expect("checked when the record was parsed"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Args<'_> {}

/// Appends an epoch mark.
pub fn put_epoch(out: &mut Vec<u8>, epoch: u64) {
    out.push(ITEM_EPOCH);
    put_varint(out, epoch);
}

/// What precedes the effect of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its epoch.
    pub epoch: u64,
    /// Its shard, or that of barriers.
    pub shard: u16,
    /// Its sequence number.
    pub seq: u64,
    /// Its database.
    pub db: u32,
    /// Where it ends in the payload.
    pub end: usize,
}

/// The records of a payload in their written order, each with its epoch.
///
/// Yields `Err(offset)` once, and then nothing, when the payload is malformed.
pub struct Items<'a> {
    payload: &'a [u8],
    rest: &'a [u8],
    epoch: Option<u64>,
    version: u32,
}

impl<'a> Items<'a> {
    /// Walks a payload of the current version.
    pub fn new(payload: &'a [u8]) -> Self {
        Self::of_version(VERSION, payload)
    }

    /// Walks a payload of a segment of this format version. Version 1 has words and no verbs; later versions have
    /// verbs and no words.
    pub fn of_version(version: u32, payload: &'a [u8]) -> Self {
        Self { payload, rest: payload, epoch: None, version }
    }

    /// Walks on in a payload of the current version from the place of an item, which [`Items::offset`] gave.
    pub fn resume(rest: &'a [u8]) -> Self {
        Self { payload: rest, rest, epoch: Some(0), version: VERSION }
    }

    /// Where the next item begins.
    pub fn offset(&self) -> usize {
        self.payload.len() - self.rest.len()
    }

    /// Where the next record stands, and what precedes its effect; the effect is not looked at. `Err` is as in
    /// [`Items`], which is what walks on.
    pub fn next_head(&mut self) -> Option<Result<Head, usize>> {
        while !self.rest.is_empty() {
            match self.head() {
                Some(Some((head, ..))) => return Some(Ok(head)),
                Some(None) => {}
                None => {
                    let at = self.offset();
                    self.rest = &[];
                    return Some(Err(at));
                }
            }
        }
        None
    }

    fn step(&mut self) -> Option<Option<(u64, Record<'a>)>> {
        let before = self.rest;
        let Some((Head { epoch, shard, seq, db, .. }, tag, body)) = self.head()? else { return Some(None) };
        let effect = match tag {
            ITEM_RECORD | ITEM_BARRIER => Args::parse(body).map(Effect::Words),
            _ => EncodedVerb::parse(body, shard == BARRIER_SHARD).map(Effect::Verb),
        };
        match effect {
            Some(effect) => Some(Some((epoch, Record { shard, seq, db, effect }))),
            None => {
                self.rest = before;
                None
            }
        }
    }

    /// Takes a record, and gives its tag and the bytes of its effect; or takes an epoch.
    #[inline]
    fn head(&mut self) -> Option<Option<(Head, u8, &'a [u8])>> {
        let (&tag, mut rest) = self.rest.split_first()?;
        if tag == ITEM_EPOCH {
            self.epoch = Some(take_varint(&mut rest)?);
            self.rest = rest;
            return Some(None);
        }
        if matches!(tag, ITEM_RECORD | ITEM_BARRIER) != (self.version == 1) {
            return None;
        }
        let mut body = take_string(&mut rest)?;
        let epoch = self.epoch?;
        let is_barrier = matches!(tag, ITEM_BARRIER | ITEM_VERB_BARRIER);
        let (shard, seq) = match tag {
            ITEM_RECORD | ITEM_VERB => {
                let shard = u16_at(take_bytes(&mut body, 2)?, 0)?;
                (shard, take_varint(&mut body)?)
            }
            ITEM_BARRIER | ITEM_VERB_BARRIER => (BARRIER_SHARD, 0),
            _ => return None,
        };
        if is_barrier != (shard == BARRIER_SHARD) {
            return None;
        }
        let db = u32::try_from(take_varint(&mut body)?).ok()?;
        self.rest = rest;
        Some(Some((Head { epoch, shard, seq, db, end: self.offset() }, tag, body)))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(u64, Record<'a>), usize>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.step() {
                Some(Some(item)) => return Some(Ok(item)),
                Some(None) => {}
                None => {
                    let at = self.offset();
                    self.rest = &[];
                    return Some(Err(at));
                }
            }
        }
        None
    }
}

/// How many bytes a record takes, with the epochs before it. The bytes may be anything.
pub(crate) fn item_len(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    loop {
        let tag = take_bytes(&mut rest, 1)?[0];
        if tag != ITEM_EPOCH {
            break;
        }
        take_varint(&mut rest)?;
    }
    take_string(&mut rest)?;
    Some(bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::format::{put_varint, varint_len};
    use crate::persist::verbs::RecordWriter;
    use proptest::prelude::*;

    fn args_len(args: &[&[u8]]) -> usize {
        let each = |arg: &&[u8]| varint_len(arg.len() as u64) + arg.len();
        varint_len(args.len() as u64) + args.iter().map(each).sum::<usize>()
    }

    fn put_args(out: &mut Vec<u8>, args: &[&[u8]]) {
        put_varint(out, args.len() as u64);
        for arg in args {
            put_varint(out, arg.len() as u64);
            out.extend_from_slice(arg);
        }
    }

    /// Appends a record of version 1.
    fn put_record(out: &mut Vec<u8>, shard: u16, seq: u64, db: u32, args: &[&[u8]]) {
        assert!(shard != BARRIER_SHARD && !args.is_empty(), "a record has a shard and arguments");
        let len = 2 + varint_len(seq) + varint_len(u64::from(db)) + args_len(args);
        out.reserve(len + 11);
        out.push(ITEM_RECORD);
        put_varint(out, len as u64);
        out.extend_from_slice(&shard.to_le_bytes());
        put_varint(out, seq);
        put_varint(out, u64::from(db));
        put_args(out, args);
    }

    /// Appends a version 1 effect on the whole keyspace, which its epoch precedes.
    fn put_barrier(out: &mut Vec<u8>, db: u32, args: &[&[u8]]) {
        assert!(!args.is_empty(), "a barrier has arguments");
        out.push(ITEM_BARRIER);
        put_varint(out, (varint_len(u64::from(db)) + args_len(args)) as u64);
        put_varint(out, u64::from(db));
        put_args(out, args);
    }

    #[test]
    fn the_bytes_are_as_drawn() {
        let mut out = Vec::new();
        put_epoch(&mut out, 300);
        put_record(&mut out, 0x0102, 5, 0, &[b"SET", b"k", b"v"]);
        put_barrier(&mut out, 2, &[b"FLUSHDB"]);
        let drawn = b"\x02\xAC\x02\x01\x0D\x02\x01\x05\x00\x03\x03SET\x01k\x01v\x03\x0A\x02\x01\x07FLUSHDB";
        assert_eq!(out, drawn);
    }

    #[test]
    fn the_bytes_of_verbs_are_as_drawn() {
        use crate::persist::WireValue;
        use crate::persist::verbs::{BarrierWriter, RecordWriter};
        let mut out = Vec::new();
        put_epoch(&mut out, 300);
        RecordWriter::new(&mut out, 0x0102, 5, 0, b"k").set(WireValue::Bytes(b"v"), None);
        BarrierWriter::new(&mut out, 2).flush_db();
        let drawn = b"\x02\xAC\x02\x04\x09\x02\x01\x05\x00\x01\x01k\x01v\x05\x02\x02\xF1";
        assert_eq!(out, drawn);
    }

    #[test]
    fn words_and_verbs_do_not_stand_in_the_log_of_the_other_version() {
        let (mut words, mut verbs) = (Vec::new(), Vec::new());
        for out in [&mut words, &mut verbs] {
            put_epoch(out, 0);
        }
        put_record(&mut words, 1, 1, 0, &[b"DEL", b"k"]);
        RecordWriter::new(&mut verbs, 1, 1, 0, b"k").delete();
        for (version, right, wrong) in [(1, &words, &verbs), (VERSION, &verbs, &words)] {
            assert!(Items::of_version(version, right).all(|item| item.is_ok()));
            assert_eq!(Items::of_version(version, wrong).next(), Some(Err(2)), "version {version}");
        }
    }

    #[test]
    fn malformed_items_are_refused() {
        let refused = |bytes: &[u8]| Items::of_version(1, bytes).any(|item| item.is_err());
        assert!(refused(b"\x09\x00"), "unknown tag");
        assert!(refused(b"\x01\x06\x01\x00\x00\x00\x01\x00"), "a record before any epoch");
        assert!(!refused(b"\x02\x00\x01\x06\x01\x00\x00\x00\x01\x00"));
        assert!(refused(b"\x02\x00\x01\x06\xFF\xFF\x00\x00\x01\x00"), "the barrier's shard");
        assert!(refused(b"\x02\x00\x01\x05\x01\x00\x00\x00\x00"), "no arguments");
        assert!(refused(b"\x02\x00\x01\x07\x01\x00\x00\x00\x01\x00\x00"), "bytes left over");
        assert!(refused(b"\x02\x00\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"), "a huge length");
        assert!(refused(b"\x02\x00\x03\x06\x80\x80\x80\x80\x10\x01"), "a db beyond u32");
    }

    proptest! {
        #[test]
        fn records_round_trip(
            records in prop::collection::vec(
                (0u16..1024, any::<u64>(), any::<u32>(),
                 prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)),
                0..20)
        ) {
            let mut out = Vec::new();
            put_epoch(&mut out, 7);
            for (shard, seq, db, args) in &records {
                let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_slice()).collect();
                put_record(&mut out, *shard, *seq, *db, &args);
            }
            let read: Vec<_> = Items::of_version(1, &out).map(|item| item.unwrap()).collect();
            prop_assert_eq!(read.len(), records.len());
            for ((epoch, record), (shard, seq, db, args)) in read.into_iter().zip(&records) {
                prop_assert_eq!((epoch, record.shard, record.seq, record.db), (7, *shard, *seq, *db));
                let Effect::Words(words) = record.effect else { panic!("{record:?}") };
                prop_assert_eq!(words.len(), args.len());
                prop_assert!(words.eq(args.iter().map(|arg| arg.as_slice())));
            }
        }

        #[test]
        fn any_bytes_end_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let of_each = [1, VERSION].into_iter().flat_map(|version| Items::of_version(version, &bytes));
            for (_, record) in of_each.flatten() {
                let words = match record.effect {
                    Effect::Words(words) => words.map(<[u8]>::to_vec).collect(),
                    Effect::Verb(verb) => verb.verb().words(verb.key),
                };
                prop_assert!(!words.is_empty());
            }
        }
    }
}

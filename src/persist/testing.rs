//! Records for tests of this layer, given as the words that [`Verb::words`] makes of them.

use super::record::{Effect, Record};
use super::verbs::{BarrierWriter, RecordWriter, Verb};
use super::{Appender, Journal, WireValue};

/// One record: SET key value, with PXAT and a time behind if it expires, or DEL key.
pub(crate) fn record(shard: u16, seq: u64, db: u32, words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let writer = RecordWriter::new(&mut out, shard, seq, db, words[1]);
    match words[0] {
        b"SET" => {
            let at = words.get(4).map(|at| std::str::from_utf8(at).unwrap().parse().unwrap());
            writer.set(WireValue::Bytes(words[2]), at);
        }
        b"DEL" => writer.delete(),
        other => panic!("no such verb here: {other:?}"),
    }
    out
}

/// One barrier: FLUSHALL, FLUSHDB, or SWAPDB of 0 and 1.
pub(crate) fn barrier(db: u32, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let writer = BarrierWriter::new(&mut out, db);
    match name {
        b"FLUSHALL" => writer.flush_all(),
        b"FLUSHDB" => writer.flush_db(),
        b"SWAPDB" => writer.swap_dbs(0, 1),
        other => panic!("no such barrier: {other:?}"),
    }
    out
}

impl Appender<'_> {
    /// Appends one record: see [`record`].
    pub(crate) fn record(&mut self, shard: u16, seq: u64, db: u32, words: &[&[u8]]) {
        self.encoded(&mut record(shard, seq, db, words));
    }
}

impl Journal {
    /// Appends one record: see [`record`].
    pub(crate) fn append(&self, worker: usize, shard: u16, seq: u64, db: u32, words: &[&[u8]]) {
        self.appender(worker).record(shard, seq, db, words);
    }
}

impl Record<'_> {
    /// Its words if it is of version 1, otherwise its verb as words.
    pub(crate) fn words(&self) -> Vec<Vec<u8>> {
        match self.effect {
            Effect::Words(words) => words.map(<[u8]>::to_vec).collect(),
            Effect::Verb(encoded) => Verb::words(&encoded.verb(), encoded.key),
        }
    }
}

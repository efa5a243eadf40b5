//! Verbs as readable words, for errors and for comparisons in tests.

use super::{Delivery, FieldExpiry, GroupPosition, Undoable, Verb};
use crate::persist::chunk::WireValue;
use crate::value::list::End;
use crate::value::stream::{Known, Window};

/// The words of one verb, under construction.
struct Line(Vec<Vec<u8>>);

impl Line {
    fn word(mut self, word: impl AsRef<[u8]>) -> Line {
        self.0.push(word.as_ref().to_vec());
        self
    }

    fn number(self, number: impl ToString) -> Line {
        self.word(number.to_string())
    }

    fn words<W: AsRef<[u8]>>(self, words: impl IntoIterator<Item = W>) -> Line {
        words.into_iter().fold(self, Line::word)
    }

    fn numbers<N: ToString>(self, numbers: impl IntoIterator<Item = N>) -> Line {
        numbers.into_iter().fold(self, Line::number)
    }

    fn expiry(self, at: Option<u64>) -> Line {
        match at {
            Some(at) => self.word("PXAT").number(at),
            None => self,
        }
    }

    fn position(self, position: &GroupPosition) -> Line {
        let line = self.number(position.last_id);
        match position.entries_read {
            Some(read) => line.number(read),
            None => line.word("?"),
        }
    }
}

impl Verb<'_> {
    /// Its name, or STATE if it sets a collection; `key` unless it is a barrier; and its content: raw bytes, and
    /// numbers in digits.
    pub fn words(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let name = match self {
            Verb::Set { value: WireValue::Collection(..), .. } => "STATE",
            _ => self.code().name(),
        };
        let line = Line(vec![name.into()]);
        let line = if self.code().is_barrier() { line } else { line.word(key) };
        let line = match *self {
            Verb::Set { value, expiry } => match value {
                WireValue::Bytes(bytes) => line.word(bytes),
                WireValue::Int(number) => line.number(number),
                WireValue::Collection(tag, bytes) => line.number(tag).word(bytes),
            }
            .expiry(expiry),
            Verb::Delete | Verb::Persist | Verb::Bless | Verb::Unbless => line,
            Verb::FlushAll | Verb::FlushDb | Verb::DropLibraries => line,
            Verb::ExpireAt(at) => line.number(at),
            Verb::Append(bytes) => line.word(bytes),
            Verb::SetRange { offset, bytes } => line.number(offset).word(bytes),
            Verb::RaiseRegisters(registers) => line.words(registers.map(|(at, rank)| format!("{at}:{rank}"))),
            Verb::Push(_, strings) => line.words(strings),
            Verb::HashDelete(strings) | Verb::HashPersist(strings) => line.words(strings),
            Verb::SetAdd(strings) | Verb::SetRemove(strings) | Verb::ZsetRemove(strings) => line.words(strings),
            Verb::Pop(_, count) => line.number(count),
            Verb::ListSet { index, element } | Verb::ListInsert { index, element } => line.number(index).word(element),
            Verb::ListRemove { from, count, element } => {
                line.word(if from == End::Left { "LEFT" } else { "RIGHT" }).number(count).word(element)
            }
            Verb::ListKeep { start, len } => line.numbers([start, len]),
            Verb::HashSet { expiry, fields } => {
                let line = match expiry {
                    FieldExpiry::Clear => line,
                    FieldExpiry::Keep => line.word("KEEPTTL"),
                    FieldExpiry::At(at) => line.expiry(Some(at)),
                };
                line.words(fields.flat_map(|(name, value)| [name, value]))
            }
            Verb::HashExpireAt { at, fields } => line.number(at).words(fields),
            Verb::ZsetSet(members) => members.fold(line, |line, (score, member)| line.number(score).word(member)),
            Verb::ZsetRemoveRanks { start, count } => line.numbers([start, count]),
            Verb::SwapDbs { one, other } => line.numbers([one, other]),
            Verb::Transfer { copies, source, to_db, destination } => {
                line.word(if copies { "COPY" } else { "MOVE" }).word(source).number(to_db).word(destination)
            }
            Verb::Populate { count, size, prefix } => line.numbers([count, size]).word(prefix),
            Verb::SetLibrary { name, code } => line.words([name, code]),
            Verb::DropLibrary(name) => line.word(name),
            Verb::Bury { all, flush: Undoable { id, at_ms, until_ms } } => {
                line.word(if all { "ALL" } else { "ONE" }).numbers([id, at_ms, until_ms])
            }
            Verb::Unbury { id, replaces } => line.number(id).word(if replaces { "REPLACE" } else { "MERGE" }),
            Verb::ForgetBuried { id } => line.number(id),
            _ => self.stream_words(line),
        };
        line.0
    }

    fn stream_words(&self, line: Line) -> Line {
        match *self {
            Verb::StreamAdd { id, fields } => line.number(id).words(fields.flat_map(|(name, value)| [name, value])),
            Verb::StreamDelete(ids) | Verb::StreamForget(ids) => line.numbers(ids),
            Verb::StreamTrim(count) => line.number(count),
            Verb::StreamTrimAcked(id) | Verb::StreamForgetUpTo(id) => line.number(id),
            Verb::StreamSetIds { last_id, max_deleted_id, entries_added } => {
                line.numbers([last_id, max_deleted_id]).number(entries_added)
            }
            Verb::StreamRemember { forgotten, known: Known { producer, iid, entry, at } } => {
                line.number(forgotten).words([producer, iid]).number(entry).number(at)
            }
            Verb::StreamWindow(Window { seconds, ids_max }) => line.numbers([seconds, ids_max]),
            Verb::GroupCreate { group, position } | Verb::GroupSet { group, position } => {
                line.word(group).position(&position)
            }
            Verb::GroupDestroy { group } => line.word(group),
            Verb::GroupDropConsumer { group, consumer } => line.words([group, consumer]),
            Verb::GroupDeliver(Delivery { group, consumer, position, seen, active, pending, gone }) => {
                let line = line.words([group, consumer]).position(&position).numbers([seen, active]);
                let pending = pending.map(|entry| format!("{}@{}x{}", entry.id, entry.delivered, entry.count));
                line.words(pending).words(gone.map(|id| format!("-{id}")))
            }
            Verb::GroupAcknowledge { group, ids } => line.word(group).numbers(ids),
            Verb::GroupRelease { group, released } => {
                line.word(group).words(released.map(|(id, count)| format!("{id}x{count}")))
            }
            _ => line,
        }
    }
}

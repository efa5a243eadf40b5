//! Patterns with their subscribers, and which of them match a name.
//!
//! A name that matches a pattern contains every run of plain bytes of the pattern. Each pattern is filed under one such
//! piece, of at most eight bytes, and only the patterns filed under a piece of the name are tried:
//!
//! ```text
//! news.*.sport    filed under ".sport" or "news.", whichever has fewer patterns so far
//! h?llo           filed under "llo"
//! *, ?, [ab]*     filed under the empty piece: tried for every name
//! ```
//!
//! Invariants:
//! - Each pattern is in exactly one file, at the place that its entry says.
//! - Few patterns are tried one by one, without the files.

use std::sync::Arc;

use smallvec::SmallVec;

use super::subscribers::{Name, Subscribers};
use super::wide::Wide;
use crate::base::glob;

/// The longest piece that patterns are filed under, in bytes.
const PIECE_MAX: usize = 8;
/// How many pieces of one pattern are considered.
const PIECES_MAX: usize = 8;
/// Up to so many patterns are tried one by one.
const FEW: usize = 16;
/// A file with more room than this gives it back once most of it is unused.
const ROOM_KEPT: usize = 1024;

/// Some bytes of a pattern: their number, and themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Piece {
    len: u8,
    bytes: [u8; PIECE_MAX],
}

impl Piece {
    fn new(bytes: &[u8]) -> Piece {
        let mut piece = Piece { len: bytes.len() as u8, ..Piece::default() };
        piece.bytes[..bytes.len()].copy_from_slice(bytes);
        piece
    }
}

/// A pattern.
#[derive(Debug, Default)]
struct Entry {
    subscribers: Subscribers,
    piece: Piece,
    /// Its place in the file of that piece.
    at: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    entries: Wide<Name, Entry>,
    files: Wide<Piece, Vec<Name>>,
    /// How many files there are, by the length of their pieces.
    lengths: [usize; PIECE_MAX + 1],
}

impl Patterns {
    /// Adds a subscriber, a client of this worker. Returns the shared pattern, and whether it is new.
    pub(super) fn add(&mut self, pattern: &[u8], worker: usize, client: u64) -> (Name, bool) {
        if let Some((known, _)) = self.entries.get_key_value(pattern) {
            let known = Arc::clone(known);
            if let Some(entry) = self.entries.get_mut(pattern) {
                entry.subscribers.add(worker, client);
            }
            return (known, false);
        }
        let name: Name = pattern.into();
        let piece = self.piece_for(pattern);
        let mut entry = Entry { piece, ..Entry::default() };
        match self.files.get_mut(&piece) {
            Some(file) => {
                entry.at = file.len();
                file.push(Arc::clone(&name));
            }
            None => {
                self.files.insert(piece, vec![Arc::clone(&name)]);
                self.lengths[usize::from(piece.len)] += 1;
            }
        }
        entry.subscribers.add(worker, client);
        self.entries.insert(Arc::clone(&name), entry);
        (name, true)
    }

    /// The piece of a new pattern that has the fewest patterns so far.
    fn piece_for(&self, pattern: &[u8]) -> Piece {
        let size = |piece: &Piece| self.files.get(piece).map_or(0, Vec::len);
        let pieces = pieces(pattern);
        pieces.iter().copied().min_by_key(|piece| (size(piece), std::cmp::Reverse(piece.len))).unwrap_or_default()
    }

    /// Removes a subscriber. Returns whether that was the last of its pattern.
    pub(super) fn remove(&mut self, pattern: &[u8], worker: usize, client: u64) -> bool {
        let Some(entry) = self.entries.get_mut(pattern) else { return false };
        entry.subscribers.remove(worker, client);
        if !entry.subscribers.is_empty() {
            return false;
        }
        let (piece, at) = (entry.piece, entry.at);
        self.entries.remove(pattern);
        if let Some(file) = self.files.get_mut(&piece) {
            file.swap_remove(at);
            if let Some(moved) = file.get(at).and_then(|moved| self.entries.get_mut(moved)) {
                moved.at = at;
            }
            if file.is_empty() {
                self.files.remove(&piece);
                self.lengths[usize::from(piece.len)] -= 1;
            } else if file.capacity() > ROOM_KEPT && file.len() < file.capacity() / 8 {
                file.shrink_to(file.len() * 2);
            }
        }
        true
    }

    /// Calls `found` with each pattern that matches a name.
    pub(super) fn matching(&self, name: &[u8], mut found: impl FnMut(&Name, &Subscribers)) {
        let lengths = (1..=PIECE_MAX.min(name.len())).filter(|length| self.lengths[*length] > 0);
        if self.entries.len() <= FEW || lengths.clone().count() * name.len() > self.entries.len() {
            let all = self.entries.iter().filter(|(pattern, _)| glob::matches(pattern, name));
            return all.for_each(|(pattern, entry)| found(pattern, &entry.subscribers));
        }
        let mut matching: SmallVec<[&Name; 16]> = SmallVec::new();
        let mut look = |piece| {
            let filed = self.files.get(&piece).map_or(&[][..], Vec::as_slice);
            matching.extend(filed.iter().filter(|pattern| glob::matches(pattern, name)));
        };
        look(Piece::default());
        for length in lengths {
            name.windows(length).for_each(|bytes| look(Piece::new(bytes)));
        }
        // A piece that occurs twice in the name has found its patterns twice.
        matching.sort_unstable_by_key(|pattern| Arc::as_ptr(pattern).cast::<u8>());
        matching.dedup_by(|one, other| Arc::ptr_eq(one, other));
        for pattern in matching {
            if let Some(entry) = self.entries.get(pattern) {
                found(pattern, &entry.subscribers);
            }
        }
    }

    /// Checks what the module promises.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.entries.len(), self.files.iter().map(|(_, file)| file.len()).sum::<usize>());
        let mut lengths = [0; PIECE_MAX + 1];
        for (piece, file) in self.files.iter() {
            assert!(!file.is_empty());
            lengths[usize::from(piece.len)] += 1;
            for (at, pattern) in file.iter().enumerate() {
                let entry = self.entries.get(pattern).expect("an entry of each");
                assert_eq!((entry.piece, entry.at), (*piece, at));
                assert!(!entry.subscribers.is_empty());
            }
        }
        assert_eq!(lengths, self.lengths);
    }
}

/// Pieces that every name contains that matches the pattern: the first and the last bytes of each run of plain ones.
fn pieces(pattern: &[u8]) -> SmallVec<[Piece; PIECES_MAX]> {
    let mut pieces = SmallVec::new();
    let mut run: SmallVec<[u8; 32]> = SmallVec::new();
    let mut end_run = |run: &mut SmallVec<[u8; 32]>| {
        let len = run.len().min(PIECE_MAX);
        if len > 0 && pieces.len() < PIECES_MAX {
            pieces.push(Piece::new(&run[..len]));
        }
        if run.len() > PIECE_MAX && pieces.len() < PIECES_MAX {
            pieces.push(Piece::new(&run[run.len() - len..]));
        }
        run.clear();
    };
    let mut rest = pattern;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match (byte, behind) {
            (b'*' | b'?', _) => {
                end_run(&mut run);
                behind
            }
            (b'[', _) => {
                end_run(&mut run);
                &rest[glob::class_len(rest)..]
            }
            (b'\\', [escaped, behind @ ..]) => {
                run.push(*escaped);
                behind
            }
            _ => {
                run.push(byte);
                behind
            }
        };
    }
    end_run(&mut run);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{Random, os_bytes};

    fn texts(pattern: &str) -> Vec<String> {
        let text = |piece: &Piece| String::from_utf8_lossy(&piece.bytes[..usize::from(piece.len)]).into_owned();
        pieces(pattern.as_bytes()).iter().map(text).collect()
    }

    #[test]
    fn pieces_are_runs_of_plain_bytes() {
        assert_eq!(texts("news.*.sport"), ["news.", ".sport"]);
        assert_eq!(texts("h?llo"), ["h", "llo"]);
        assert_eq!(texts("a[b]]c[^d-e]f[unclosed"), ["a", "]c", "f"]);
        assert_eq!(texts(r"a\*b\[c*[\]x]y"), ["a*b[c", "y"]);
        assert_eq!(texts(r"x\"), [r"x\"]);
        assert_eq!(texts("a-long-name-of-a-channel"), ["a-long-n", "-channel"]);
        assert!(texts("*?[ab]").is_empty() && texts("").is_empty());
    }

    #[test]
    fn those_that_match_are_found_however_many_there_are() {
        let seed = u64::from_le_bytes(os_bytes());
        println!("seed {seed}");
        let mut random = Random::from_seed(seed);
        let mut word = |bytes: &[u8], most: u64| -> Vec<u8> {
            (0..random.below(most)).map(|_| bytes[random.below(bytes.len() as u64) as usize]).collect()
        };
        let mut patterns = Patterns::default();
        let mut all: Vec<Vec<u8>> = Vec::new();
        for round in 0..3000 {
            let pattern = word(b"aaabbbc.*?[]\\^-", 12);
            if all.iter().all(|known| *known != pattern) {
                assert!(patterns.add(&pattern, 0, 1).1);
                all.push(pattern);
            }
            if round % 3 == 0 && !all.is_empty() {
                let gone = all.swap_remove(word(b"x", all.len() as u64).len());
                assert!(patterns.remove(&gone, 0, 1));
            }
            if round % 50 == 0 {
                patterns.check_invariants();
                let name = word(b"aaabbbc.[]", 20);
                let mut found = Vec::new();
                patterns.matching(&name, |pattern, _| found.push(pattern.to_vec()));
                found.sort();
                let mut expected: Vec<_> = all.iter().filter(|p| glob::matches(p, &name)).cloned().collect();
                expected.sort();
                assert_eq!(found, expected, "{}", name.escape_ascii());
            }
        }
    }

    #[test]
    fn a_pattern_is_filed_where_there_are_few() {
        let mut patterns = Patterns::default();
        for number in 0..10_000 {
            patterns.add(format!("room:general:*:{number:05}").as_bytes(), 0, 1);
            patterns.add(format!("user:{number:05}:*").as_bytes(), 0, 1);
        }
        assert!(patterns.files.iter().all(|(_, file)| file.len() <= 2));
        let mut found = Vec::new();
        patterns.matching(b"user:00077:name", |pattern, _| found.push(pattern.to_vec()));
        assert_eq!(found, [b"user:00077:*"]);
    }
}

//! Where the keys of a command are: Redis' key specifications, and how keys are found by them.

use smallvec::SmallVec;

use crate::access::selector::KeyUse;
use crate::core::Command;
use crate::resp::Args;

/// All key specifications of a command.
#[derive(Clone, Copy, Debug)]
pub struct Keys(pub &'static [KeySpec]);

/// One key specification.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Where to begin.
    pub begin: Begin,
    /// How to continue.
    pub find: Find,
    /// What is done with these keys.
    pub flags: KeyFlags,
    /// A remark for `COMMAND`; empty for none.
    pub notes: &'static str,
    /// Finds the key of a call if `begin` and `find`, which `COMMAND` shows, cannot.
    pub look: Option<fn(Args<'_>) -> Look>,
    /// What a call does with these keys, where `flags` are only the most that it may do.
    pub flags_of: Option<fn(Args<'_>) -> KeyFlags>,
}

/// What a command does with a key: how it uses the whole, and what it does with the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFlags(u16);

/// The word of each flag, by its bit, in the order of `COMMAND`.
const KEY_FLAGS: [&str; 11] =
    ["RO", "RW", "OW", "RM", "access", "update", "insert", "delete", "not_key", "incomplete", "variable_flags"];
/// The flag of arguments that are placed like keys and are none: channels of a shard.
const NOT_KEY: KeyFlags = KeyFlags::of("not_key");

impl KeyFlags {
    /// The flags of these words, which a blank separates: declarations are checked when they are compiled.
    ///
    /// # Panics
    /// If a word is no flag.
    pub const fn of(words: &str) -> KeyFlags {
        let (bytes, mut flags, mut start) = (words.as_bytes(), 0, 0);
        while start < bytes.len() {
            let mut end = start;
            while end < bytes.len() && bytes[end] != b' ' {
                end += 1;
            }
            let mut bit = 0;
            while !is_part(bytes, start, end, KEY_FLAGS[bit].as_bytes()) {
                bit += 1;
                assert!(bit < KEY_FLAGS.len(), "no flag of a key has this name");
            }
            flags |= 1 << bit;
            start = end + 1;
        }
        KeyFlags(flags)
    }

    /// Whether the content of the key is read, and whether it is changed.
    pub fn key_use(self) -> KeyUse {
        let has = |flags: KeyFlags| self.0 & flags.0 != 0;
        KeyUse { reads: has(KeyFlags::of("access")), writes: has(KeyFlags::of("update insert delete")) }
    }

    /// Their words, in the order of `COMMAND`.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        KEY_FLAGS.into_iter().enumerate().filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, word)| word)
    }
}

/// Whether a part of a text is this word.
const fn is_part(text: &[u8], start: usize, end: usize, word: &[u8]) -> bool {
    let mut at = 0;
    while at < word.len() && start + at < end && text[start + at] == word[at] {
        at += 1;
    }
    at == word.len() && start + at == end
}

/// What a call uses by one specification, found from its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The key at this argument.
    At(usize),
    /// The keys at these arguments.
    Each(Places),
    /// No key.
    Nowhere,
    /// Any key: no argument names it.
    Anywhere,
}

/// Where the keys of one specification begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// Behind this word, which is searched from an argument on (from the end if negative).
    Keyword(&'static str, i32),
    /// Only the handler knows.
    Unknown,
}

/// Which arguments are keys, from the beginning on.
#[derive(Clone, Copy, Debug)]
pub enum Find {
    /// Up to `last` (relative to the beginning; negative: from the end of the arguments), every `step`;
    /// a `limit` of 2 stops at half of the rest, and so on.
    Range {
        /// Relative to the first, or from the end if negative.
        last: i32,
        /// From one key to the next.
        step: usize,
        /// A divisor of the remaining arguments; 0 and 1 for none.
        limit: usize,
    },
    /// The number of keys is at `at`, and the keys are from `first` on, both relative to the beginning.
    Keynum {
        /// The index of the number.
        at: usize,
        /// The index of the first key.
        first: usize,
        /// From one key to the next.
        step: usize,
    },
    /// Only the handler knows.
    Unknown,
}

impl KeySpec {
    /// Whether what it places are keys.
    fn is_key(&self) -> bool {
        self.flags != NOT_KEY
    }

    /// Keys that are found only from the options.
    pub const fn looked_up(look: fn(Args<'_>) -> Look, flags: &'static str) -> KeySpec {
        let (begin, find, flags) = (Begin::Unknown, Find::Unknown, KeyFlags::of(flags));
        KeySpec { begin, find, flags, notes: "", look: Some(look), flags_of: None }
    }

    /// The key behind a word that is searched from an argument on (from the end if negative).
    pub const fn behind(word: &'static str, from: i32, flags: &'static str) -> KeySpec {
        KeySpec { begin: Begin::Keyword(word, from), ..KeySpec::at(0, flags) }
    }

    /// One key at an argument.
    pub const fn at(index: usize, flags: &'static str) -> KeySpec {
        KeySpec::range(index, 0, 1, flags)
    }

    /// Keys from an argument on; see [`Find::Range`].
    pub const fn range(first: usize, last: i32, step: usize, flags: &'static str) -> KeySpec {
        let find = Find::Range { last, step, limit: 0 };
        let flags = KeyFlags::of(flags);
        KeySpec { begin: Begin::Index(first), find, flags, notes: "", look: None, flags_of: None }
    }

    /// Keys behind their number, which is at an argument.
    pub const fn counted(at: usize, flags: &'static str) -> KeySpec {
        KeySpec { find: Find::Keynum { at: 0, first: 1, step: 1 }, ..KeySpec::at(at, flags) }
    }
}

impl KeySpec {
    /// Adds the places of what it means in a call; `None` if the arguments do not fit it.
    #[inline]
    fn add_places(&self, args: Args<'_>, places: &mut Places) -> Option<()> {
        if let Some(look) = self.look {
            match look(args) {
                Look::At(place) => places.push(place),
                Look::Each(those) => places.extend(those),
                Look::Nowhere | Look::Anywhere => {}
            }
            return Some(());
        }
        let first = match self.begin {
            Begin::Index(index) => index,
            Begin::Keyword(word, from) => match find_word(word, from, args) {
                Some(at) => at + 1,
                None => return Some(()),
            },
            Begin::Unknown => return Some(()),
        };
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => (first, last_of_range(first, last, limit, args.len())?, step),
            Find::Keynum { at, first: offset, step } => {
                let count: usize = std::str::from_utf8(args.get(first + at)?).ok()?.parse().ok()?;
                let start = first + offset;
                (start, start.checked_add(count.checked_mul(step)?)?.checked_sub(step)?, step)
            }
            Find::Unknown => return Some(()),
        };
        if last >= args.len() {
            return None;
        }
        places.extend((first..=last).step_by(step));
        Some(())
    }
}

/// The places of keys among the arguments.
pub type Places = SmallVec<[usize; 4]>;

impl Keys {
    /// No key.
    pub const NONE: Keys = Keys(&[]);

    /// The place of the only key, for commands that always have exactly one, at a fixed place.
    #[inline]
    pub fn only(&self) -> Option<usize> {
        match self.0 {
            [spec @ KeySpec { begin: Begin::Index(at), find: Find::Range { last: 0, .. }, .. }] => {
                spec.is_key().then_some(*at)
            }
            _ => None,
        }
    }

    /// The first key, the last, and the step, for old clients; zeros if there is no such rule.
    pub fn first_last_step(&self) -> (i64, i64, i64) {
        let mut merged: Option<(i64, i64, i64)> = None;
        for spec in self.0 {
            let (Begin::Index(first), Find::Range { last, step, .. }) = (spec.begin, spec.find) else { continue };
            let first = first as i64;
            let last = if last < 0 { i64::from(last) } else { first + i64::from(last) };
            merged = Some(match merged {
                None => (first, last, step as i64),
                // Consecutive ranges count as one.
                Some((from, to, by)) if to >= 0 && first == to + by => (from, last, by),
                Some(earlier) => earlier,
            });
        }
        merged.unwrap_or((0, 0, 0))
    }

    /// Whether there are keys: some specifications place only channels.
    pub fn is_any(&self) -> bool {
        self.0.iter().any(KeySpec::is_key)
    }

    /// Whether a call may use keys that none of its arguments names.
    pub fn may_be_any(&self, args: Args<'_>) -> bool {
        self.0.iter().any(|spec| spec.look.is_some_and(|look| look(args) == Look::Anywhere))
    }

    /// The indexes of all keys of a call; `None` if the arguments do not fit the specification.
    pub fn places(&self, args: Args<'_>) -> Option<Places> {
        self.places_by(args, KeySpec::is_key)
    }

    /// The indexes of all keys of a call with what it does with each; `None` if the arguments do not fit the
    /// specification.
    pub fn uses(&self, args: Args<'_>) -> Option<SmallVec<[(usize, KeyUse); 4]>> {
        let mut uses = SmallVec::new();
        for spec in self.0.iter().filter(|spec| spec.is_key()) {
            let how = spec.flags_of.map_or(spec.flags, |flags_of| flags_of(args)).key_use();
            let mut places = Places::new();
            spec.add_places(args, &mut places)?;
            uses.extend(places.into_iter().map(|place| (place, how)));
        }
        Some(uses)
    }

    /// The indexes of everything that has a slot in a cluster: keys, and channels of a shard.
    pub fn slot_places(&self, args: Args<'_>) -> Option<Places> {
        self.places_by(args, |_| true)
    }

    fn places_by(&self, args: Args<'_>, is_wanted: fn(&KeySpec) -> bool) -> Option<Places> {
        let mut places = Places::new();
        self.0.iter().filter(|spec| is_wanted(spec)).try_for_each(|spec| spec.add_places(args, &mut places))?;
        Some(places)
    }
}

fn last_of_range(first: usize, last: i32, limit: usize, args: usize) -> Option<usize> {
    if last >= 0 {
        return first.checked_add(last as usize);
    }
    if last == -1 && limit > 1 {
        return Some(first + (args.checked_sub(first)? / limit).checked_sub(1)?);
    }
    args.checked_sub(last.unsigned_abs() as usize)
}

fn find_word(word: &str, from: i32, args: Args<'_>) -> Option<usize> {
    let is_word = |&at: &usize| args.at(at).eq_ignore_ascii_case(word.as_bytes());
    if from >= 0 {
        (from as usize..args.len()).find(is_word)
    } else {
        (1..=args.len().checked_sub(from.unsigned_abs() as usize)?).rev().find(is_word)
    }
}

/// The places of the keys of one call of a command.
pub fn places(command: &Command, args: Args<'_>) -> Option<Places> {
    command.keys.places(args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Span;

    fn places_of(specs: &'static [KeySpec], words: &str) -> Option<Vec<usize>> {
        let mut spans = Vec::new();
        let mut start = 0;
        for word in words.split(' ') {
            spans.push(Span { start, len: word.len() });
            start += word.len() + 1;
        }
        Keys(specs).places(Args::new(words.as_bytes(), &spans)).map(|p| p.to_vec())
    }

    #[test]
    fn finds_keys_by_range_by_number_and_behind_a_word() {
        static ONE: &[KeySpec] = &[KeySpec::at(1, "RO")];
        static PAIRS: &[KeySpec] = &[KeySpec::range(1, -1, 2, "OW")];
        static NUMBERED: &[KeySpec] = &[KeySpec::counted(1, "RO")];
        static STREAMS: &[KeySpec] =
            &[KeySpec { find: Find::Range { last: -1, step: 1, limit: 2 }, ..KeySpec::behind("STREAMS", 1, "RO") }];
        assert_eq!(places_of(ONE, "get k"), Some(vec![1]));
        assert_eq!(places_of(PAIRS, "mset a 1 b 2"), Some(vec![1, 3]));
        assert_eq!(places_of(NUMBERED, "zunion 2 a b WITHSCORES"), Some(vec![2, 3]));
        assert_eq!(places_of(NUMBERED, "zunion 9 a"), None);
        assert_eq!(places_of(NUMBERED, "zunion 18446744073709551615 a"), None);
        assert_eq!(places_of(STREAMS, "xread count 2 streams a b 0 0"), Some(vec![4, 5]));
    }

    #[test]
    fn flags_are_told_by_their_words() {
        let words = |flags: KeyFlags| flags.words().collect::<Vec<_>>().join(" ");
        for declared in ["RO", "OW update", "RW access delete", "RM delete", "RW access update variable_flags"] {
            assert_eq!(words(KeyFlags::of(declared)), declared);
        }
        assert_eq!(words(KeyFlags::of("delete update RW")), "RW update delete");
        for wrong in ["R", "ROW", "RO accessed", "RO  access"] {
            assert!(std::panic::catch_unwind(|| KeyFlags::of(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_old_triple_joins_ranges_that_follow_each_other() {
        static COPY: &[KeySpec] = &[KeySpec::at(1, "RO"), KeySpec::at(2, "OW")];
        assert_eq!(Keys(COPY).first_last_step(), (1, 2, 1));
        static MSET: &[KeySpec] = &[KeySpec::range(1, -1, 2, "OW")];
        assert_eq!(Keys(MSET).first_last_step(), (1, -1, 2));
        assert_eq!(Keys::NONE.first_last_step(), (0, 0, 0));
    }
}

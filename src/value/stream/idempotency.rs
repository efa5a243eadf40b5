//! What makes XADD idempotent: the ids that producers gave to their entries, for as long as they are remembered.
//!
//! ```text
//! by age      number ─ when, the entry, its name        the oldest first, of all producers
//! by name     producer and id ─ number
//! producers   name ─ the numbers of its ids             the oldest first
//! ```
//!
//! A stream has none of this until an XADD with IDMP or an XCFGSET, and a clone shares all of it.
//!
//! Invariants:
//! - Each remembered id is in all three. A producer without ids is not there.
//! - No producer has more ids than the window allows.
//! - Nothing here reads a clock. What is forgotten because its time is over is a number of the oldest ids, which the
//!   log records, so that a replay forgets the same.

use super::id::StreamId;
use super::ordered::{Keyed, Ordered};
use crate::base::varint::put_varint;
use crate::value::entry::SharedBytes;

/// How many ids are forgotten at once because their time is over. Each XADD adds one, so those behind them go soon.
const FORGOTTEN_MAX: usize = 64;

/// What a stream remembers of its producers' ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// For how long, in seconds.
    pub seconds: u32,
    /// How many of each producer.
    pub ids_max: u32,
}

impl Window {
    /// The longest time, in seconds.
    pub const SECONDS_MAX: u32 = 86_400;
    /// The most ids of a producer.
    pub const IDS_MAX: u32 = 10_000;
    /// Redis' default.
    pub const DEFAULT: Window = Window { seconds: 100, ids_max: 100 };

    /// Whether it is one that can be set.
    pub fn is_valid(&self) -> bool {
        (1..=Window::SECONDS_MAX).contains(&self.seconds) && (1..=Window::IDS_MAX).contains(&self.ids_max)
    }

    /// Whether what was remembered at a time, Unix ms, is no longer. A time that is further ahead than the window is
    /// one that the clock has jumped back from.
    pub fn is_over(&self, at: i64, now: i64) -> bool {
        let ms = i64::from(self.seconds) * 1000;
        now.saturating_sub(at) >= ms || at.saturating_sub(now) > ms
    }
}

/// An id that a producer gave to an entry.
#[derive(Clone, Debug)]
struct Remembered {
    number: u64,
    at: i64,
    entry: StreamId,
    name: SharedBytes,
}

/// The producer and the id as one string: see [`name_of`].
#[derive(Clone, Debug)]
struct Named {
    name: SharedBytes,
    number: u64,
}

#[derive(Clone, Debug)]
struct Producer {
    name: SharedBytes,
    numbers: Ordered<Number>,
}

#[derive(Clone, Copy, Debug)]
struct Number(u64);

impl Keyed for Remembered {
    type Key = u64;
    type Query = u64;
    const RUN_MAX: usize = 64;

    fn key(&self) -> u64 {
        self.number
    }

    fn query(&self) -> &u64 {
        &self.number
    }

    fn heap_bytes(run: &[Self]) -> usize {
        run.iter().map(|one| NAME_OVERHEAD + one.name.len()).sum()
    }
}

/// What a name takes besides its bytes: a counter and a length.
const NAME_OVERHEAD: usize = 16;

impl Keyed for Named {
    type Key = SharedBytes;
    type Query = [u8];
    const RUN_MAX: usize = 32;

    fn key(&self) -> SharedBytes {
        self.name.clone()
    }

    fn query(&self) -> &[u8] {
        &self.name
    }
}

impl Keyed for Producer {
    type Key = SharedBytes;
    type Query = [u8];
    const RUN_MAX: usize = 16;

    fn key(&self) -> SharedBytes {
        self.name.clone()
    }

    fn query(&self) -> &[u8] {
        &self.name
    }

    fn heap_bytes(run: &[Self]) -> usize {
        run.iter().map(|one| NAME_OVERHEAD + one.name.len() + one.numbers.bytes()).sum()
    }
}

impl Keyed for Number {
    type Key = u64;
    type Query = u64;
    const RUN_MAX: usize = 128;

    fn key(&self) -> u64 {
        self.0
    }

    fn query(&self) -> &u64 {
        &self.0
    }
}

/// One string for a producer and an id: the length of the producer's name comes first, so no two pairs are alike.
fn name_of(producer: &[u8], iid: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(5 + producer.len() + iid.len());
    put_varint(&mut name, producer.len() as u64);
    name.extend_from_slice(producer);
    name.extend_from_slice(iid);
    name
}

/// The producer and the id of such a string.
fn split_name(mut name: &[u8]) -> (&[u8], &[u8]) {
    let producer = crate::base::varint::take_string(&mut name).unwrap_or_default();
    (producer, name)
}

/// An id as it is listed: a producer, its id, the entry and since when it is remembered, Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// The producer.
    pub producer: &'a [u8],
    /// Its id.
    pub iid: &'a [u8],
    /// The entry that was added.
    pub entry: StreamId,
    /// When that was, Unix ms.
    pub at: i64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Idempotency {
    window: Window,
    next: u64,
    added: u64,
    duplicates: u64,
    by_age: Ordered<Remembered>,
    by_name: Ordered<Named>,
    producers: Ordered<Producer>,
}

impl Idempotency {
    /// Nothing is remembered yet.
    pub fn new(window: Window) -> Idempotency {
        Idempotency::with_counters(window, 0, 0)
    }

    /// The same, and so many ids were ever added and refused as duplicates.
    pub fn with_counters(window: Window, added: u64, duplicates: u64) -> Idempotency {
        debug_assert!(window.is_valid());
        Idempotency {
            window,
            next: 0,
            added,
            duplicates,
            by_age: Ordered::default(),
            by_name: Ordered::default(),
            producers: Ordered::default(),
        }
    }

    /// The window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How many ids were ever remembered.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// How many entries were not added because their id was known.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// An estimate of its bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Idempotency>() + self.by_age.bytes() + self.by_name.bytes() + self.producers.bytes()
    }

    /// The ids, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Known<'_>> {
        self.by_age.iter().map(|one| {
            let (producer, iid) = split_name(&one.name);
            Known { producer, iid, entry: one.entry, at: one.at }
        })
    }

    /// How many ids there are, whether their time is over or not.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// How many producers have ids, whether their time is over or not.
    pub(super) fn producers_len(&self) -> usize {
        self.producers.len()
    }

    /// Their names, ascending.
    pub(super) fn producers(&self) -> impl Iterator<Item = &[u8]> {
        self.producers.iter().map(|producer| &producer.name[..])
    }

    /// How many producers and how many ids are remembered now.
    pub fn tracked(&self, now: i64) -> (usize, usize) {
        let Some(first) = self.by_age.iter().find(|one| !self.window.is_over(one.at, now)) else { return (0, 0) };
        let over = self.by_age.iter().take_while(|one| one.number < first.number).count();
        if over == 0 {
            return (self.producers.len(), self.by_age.len());
        }
        let is_tracked = |producer: &&Producer| producer.numbers.last().is_some_and(|last| last.0 >= first.number);
        (self.producers.iter().filter(is_tracked).count(), self.by_age.len() - over)
    }

    /// The entry that a producer has added under an id, if that is remembered.
    pub fn find(&self, producer: &[u8], iid: &[u8], now: i64) -> Option<StreamId> {
        let known = self.entry_of(producer, iid)?;
        (!self.window.is_over(known.at, now)).then_some(known.entry)
    }

    fn entry_of(&self, producer: &[u8], iid: &[u8]) -> Option<&Remembered> {
        let named = self.by_name.get(&name_of(producer, iid))?;
        self.by_age.get(&named.number)
    }

    /// How many of the oldest ids the next one makes go because their time is over.
    pub fn over(&self, now: i64) -> u64 {
        let over = self.by_age.iter().take(FORGOTTEN_MAX).take_while(|one| self.window.is_over(one.at, now));
        over.count() as u64
    }

    /// Counts an entry that was not added.
    pub fn count_duplicate(&mut self) {
        self.duplicates = self.duplicates.wrapping_add(1);
    }

    /// Forgets so many of the oldest ids, and remembers one since this time, Unix ms. If the producer has as many as
    /// the window allows, its oldest goes.
    pub fn remember(&mut self, known: Known<'_>, forgotten: u64) {
        for _ in 0..forgotten {
            let Some(oldest) = self.by_age.first().map(|oldest| oldest.number) else { break };
            self.forget(oldest);
        }
        let name = SharedBytes::new(&name_of(known.producer, known.iid));
        if let Some(number) = self.by_name.get(&name).map(|named| named.number) {
            self.forget(number);
        }
        while let Some(oldest) = self.oldest_of_full(known.producer) {
            self.forget(oldest);
        }
        let number = self.next;
        self.next += 1;
        self.added = self.added.wrapping_add(1);
        if self.producers.get(known.producer).is_none() {
            let new = Producer { name: SharedBytes::new(known.producer), numbers: Ordered::default() };
            self.producers.insert(known.producer, new);
        }
        self.producers.edit(known.producer, |producer| producer.numbers.extend_back([Number(number)]));
        self.by_name.insert(&name.clone(), Named { name: name.clone(), number });
        self.by_age.extend_back([Remembered { number, at: known.at, entry: known.entry, name }]);
    }

    /// The oldest number of a producer that has as many as the window allows.
    fn oldest_of_full(&self, producer: &[u8]) -> Option<u64> {
        let numbers = &self.producers.get(producer)?.numbers;
        (numbers.len() >= self.window.ids_max as usize).then(|| numbers.first().map(|first| first.0)).flatten()
    }

    fn forget(&mut self, number: u64) {
        let Some(gone) = self.by_age.remove(&number) else { return };
        self.by_name.remove(&gone.name);
        let (producer, _) = split_name(&gone.name);
        let is_last = self.producers.edit(producer, |producer| {
            producer.numbers.remove(&number);
            producer.numbers.is_empty()
        });
        if is_last == Some(true) {
            self.producers.remove(producer);
        }
    }

    /// Sets the window. Another window than before forgets all ids. Returns whether it is another.
    pub fn set_window(&mut self, window: Window) -> bool {
        if self.window == window {
            return false;
        }
        *self = Idempotency::with_counters(window, self.added, self.duplicates);
        true
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self) {
        assert!(self.window.is_valid());
        self.by_age.check_invariants(|one, two| one.number < two.number);
        self.by_name.check_invariants(|one, two| one.name[..] < two.name[..]);
        self.producers.check_invariants(|one, two| one.name[..] < two.name[..]);
        assert_eq!(self.by_age.len(), self.by_name.len());
        assert!(self.by_age.last().is_none_or(|last| last.number < self.next));
        let mut numbers = 0;
        for producer in self.producers.iter() {
            producer.numbers.check_invariants(|one, two| one.0 < two.0);
            assert!((1..=self.window.ids_max as usize).contains(&producer.numbers.len()));
            numbers += producer.numbers.len();
        }
        assert_eq!(numbers, self.by_age.len());
        for one in self.by_age.iter() {
            assert_eq!(self.by_name.get(&one.name).map(|named| named.number), Some(one.number));
            let (producer, _) = split_name(&one.name);
            assert!(self.producers.get(producer).is_some_and(|its| its.numbers.get(&one.number).is_some()));
        }
    }
}

#[cfg(test)]
#[path = "idempotency_tests.rs"]
mod tests;

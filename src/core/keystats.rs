//! Which keys are big and which are busy, and what prefixes hold: always known, without a scan when somebody asks.
//!
//! ```text
//! one group of commands in about 256, at random ─▶ its keys: calls, time, hits and misses ─▶ summaries of the worker
//! large requests, slow kinds of writes ──────────▶ how large their keys are now ──────────▶ the biggest keys
//! a walk of the timer, a little at a time ───────▶ every key once a walk ─────────────────▶ the biggest keys, prefixes
//! ```
//!
//! Invariants:
//! - Without `key-statistics`, [`Hook::KeyStats`](crate::core::Hook::KeyStats) is not set, and nothing is counted.
//! - Memory is bounded: [`BIGGEST`] keys by bytes and as many by elements; `SUMMED` keys a worker by calls and as
//!   many by time; `PREFIXES_MAX` prefixes a worker and in the walk. Longer keys than [`KEY_BYTES_MAX`] are left out,
//!   and further prefixes are added up.
//! - What is told of a big key is its size at that moment, and it exists. That none is missing is an estimate: a key
//!   that has grown in small steps is found by the next walk at the latest.
//! - Calls, time, hits and misses are estimates. Of `n` of them, about `16 × √n` may be missing or too many, and more
//!   if they come in pipelines.
//! - No lock of a shard is waited for, and none is held while one of these is waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::base::lock::{Mutex, Rank};
use crate::base::per_worker::PerWorker;
use crate::base::random;
use crate::core::hotkeys::{Counted, KEY_BYTES_MAX, Summary, merged};
use crate::keyspace::{EntryRef, Key, Keyspace, SHARDS, ValueRef, shard_of};
use crate::value::Collection;
use crate::value::hash::AnyHash;
use crate::value::list::AnyList;
use crate::value::set::AnySet;
use crate::value::zset::AnyZset;

/// How many of the biggest keys are known.
pub const BIGGEST: usize = 128;
/// How many keys a worker's summary holds.
const SUMMED: usize = 128;
/// How many prefixes are told apart.
const PREFIXES_MAX: usize = 512;
/// The longest prefix, in bytes. Of a longer one this much counts.
const PREFIX_BYTES_MAX: usize = 128;
/// How many groups of commands one stands for that is looked at.
const WEIGHT: u64 = 256;
/// How many keys are visited under one lock of a shard, about.
const VISITED_PER_LOCK: usize = 64;
/// How long a walk pauses behind its end.
const WALKS_APART_MS: i64 = 1000;

/// In how many groups the next one is looked at: at random, so that no rhythm of a client is followed.
pub fn next_sample() -> u32 {
    random::with(|random| random.below(2 * WEIGHT - 1)) as u32
}

/// What a list of big keys is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The memory that they take.
    Bytes,
    /// The elements of collections.
    Elements,
}

/// A big key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigKey {
    /// Its database.
    pub db: u32,
    /// The key.
    pub key: Box<[u8]>,
    /// The type of its value, as TYPE tells it.
    pub type_name: &'static str,
    /// The memory that it takes, in bytes.
    pub bytes: u64,
    /// Its elements; 0 for a string.
    pub elements: u64,
}

impl BigKey {
    fn of(db: u32, entry: EntryRef<'_>, now: i64) -> BigKey {
        BigKey {
            db,
            key: entry.key().into(),
            type_name: entry.kind().type_name(),
            bytes: entry.memory() as u64,
            elements: elements(entry.value(), now),
        }
    }

    fn figure(&self, by: By) -> u64 {
        match by {
            By::Bytes => self.bytes,
            By::Elements => self.elements,
        }
    }
}

/// How many elements a value has; 0 for a string.
fn elements(value: ValueRef<'_>, now: i64) -> u64 {
    let counted = match value {
        ValueRef::Stream(stream) => Some(stream.len()),
        _ => None,
    };
    let counted = counted
        .or_else(|| AnyList::view(value).map(|list| list.len()))
        .or_else(|| AnySet::view(value).map(|set| set.len()))
        .or_else(|| AnyZset::view(value).map(|zset| zset.len()))
        .or_else(|| AnyHash::view(value).map(|hash| hash.len(now.max(0) as u64)));
    counted.unwrap_or(0) as u64
}

/// The biggest keys by one figure.
#[derive(Debug)]
struct Top {
    by: By,
    keys: HashMap<(u32, u64), BigKey>,
}

impl Top {
    fn new(by: By) -> Top {
        Top { by, keys: HashMap::new() }
    }

    /// Adds a key, or what it has become. Returns from which figure on the next one is worth it.
    fn add(&mut self, hash: u64, key: &BigKey) -> u64 {
        let by = self.by;
        if let Some(known) = self.keys.get_mut(&(key.db, hash)) {
            known.clone_from(key);
        } else if key.figure(by) > 0 {
            if self.keys.len() >= BIGGEST {
                let least = self.keys.iter().min_by_key(|(_, key)| key.figure(by));
                let (place, figure) = least.map_or(((0, 0), 0), |(place, key)| (*place, key.figure(by)));
                if figure >= key.figure(by) {
                    return figure + 1;
                }
                self.keys.remove(&place);
            }
            self.keys.insert((key.db, hash), key.clone());
        }
        self.least()
    }

    fn least(&self) -> u64 {
        match self.keys.len() {
            ..BIGGEST => 1,
            _ => self.keys.values().map(|key| key.figure(self.by)).min().unwrap_or(0) + 1,
        }
    }
}

/// A prefix of keys of a database: everything up to the first separator, and the separator.
type PrefixName = (u32, Box<[u8]>);

/// The prefix of a key: everything up to the first of these separators, and it; empty without one.
fn prefix_of<'k>(key: &'k [u8], separators: &[u8]) -> &'k [u8] {
    let end = key.iter().position(|byte| separators.contains(byte)).map_or(0, |at| at + 1);
    &key[..end.min(PREFIX_BYTES_MAX)]
}

/// What the keys of a prefix are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixFigures {
    /// How many there are, as the last whole walk has found them.
    pub keys: u64,
    /// The memory that they take, in bytes, likewise.
    pub bytes: u64,
    /// Reads that found their key, about, since the start or CONFIG RESETSTAT.
    pub hits: u64,
    /// Reads that did not, likewise.
    pub misses: u64,
}

/// Figures by prefix, bounded in number.
#[derive(Clone, Debug, Default)]
struct Tally {
    of: HashMap<PrefixName, PrefixFigures>,
    /// All further prefixes together.
    others: PrefixFigures,
}

impl Tally {
    fn entry(&mut self, db: u32, prefix: &[u8]) -> &mut PrefixFigures {
        let name = (db, Box::from(prefix));
        if self.of.len() >= PREFIXES_MAX && !self.of.contains_key(&name) {
            return &mut self.others;
        }
        self.of.entry(name).or_default()
    }

    fn add(&mut self, more: &Tally) {
        let sum = |to: &mut PrefixFigures, more: &PrefixFigures| {
            to.keys += more.keys;
            to.bytes += more.bytes;
            to.hits += more.hits;
            to.misses += more.misses;
        };
        more.of.iter().for_each(|((db, prefix), figures)| sum(self.entry(*db, prefix), figures));
        sum(&mut self.others, &more.others);
    }
}

/// A prefix with its figures; without a name for all that are not told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The database and the prefix.
    pub name: Option<PrefixName>,
    /// Its figures.
    pub figures: PrefixFigures,
}

/// What one worker counts.
#[derive(Debug)]
struct Part {
    calls: Summary,
    time_ns: Summary,
    prefixes: Tally,
}

impl Part {
    fn new() -> Part {
        Part { calls: Summary::new(SUMMED), time_ns: Summary::new(SUMMED), prefixes: Tally::default() }
    }
}

/// Where a walk is.
#[derive(Debug, Default)]
struct Walk {
    shard: u16,
    db: u32,
    position: u64,
    /// What it has counted.
    tally: Tally,
    /// When the next one begins, Unix ms.
    begins_ms: i64,
}

/// A sampled command.
#[derive(Debug)]
pub struct Sampled<'a> {
    /// Its keys.
    pub keys: &'a [Key<'a>],
    /// The database.
    pub db: u32,
    /// How long it took.
    pub took_ns: u64,
    /// The reads of keys that were found, and that were not.
    pub reads: (u64, u64),
    /// `key-prefix-separators`.
    pub separators: &'a [u8],
}

fn part(worker: usize) -> Mutex<Part> {
    Mutex::indexed(Rank::Register, worker as u32 + 1, Part::new())
}

/// See the module.
#[derive(Debug)]
pub struct KeyStats {
    parts: PerWorker<Mutex<Part>>,
    top: Mutex<[Top; 2]>,
    /// From which figure on a key is worth to be added to the two lists.
    least: [AtomicU64; 2],
    walk: Mutex<Walk>,
    /// What the last whole walk has counted.
    walked: Mutex<Arc<Tally>>,
    /// How many walks there were.
    pub walks: AtomicU64,
}

impl KeyStats {
    /// Nothing is known.
    pub fn new(workers: usize) -> KeyStats {
        KeyStats {
            parts: PerWorker::new(workers, part),
            top: Mutex::new(Rank::Register, [Top::new(By::Bytes), Top::new(By::Elements)]),
            least: [AtomicU64::new(1), AtomicU64::new(1)],
            walk: Mutex::new(Rank::Register, Walk::default()),
            walked: Mutex::new(Rank::Register, Arc::default()),
            walks: AtomicU64::new(0),
        }
    }

    /// Adds the part of one worker more, unless there can be no more. One thread adds at a time.
    pub fn add_worker(&self) {
        let _ = self.parts.add(part(self.parts.len()));
    }

    /// Counts a command that stands for `WEIGHT` others.
    pub fn count(&self, worker: usize, sampled: &Sampled<'_>) {
        let &Sampled { keys, db, took_ns, reads: (hits, misses), separators } = sampled;
        let (Some(first), Some(part)) = (keys.first(), self.parts.get(worker)) else { return };
        let mut part = part.lock();
        for key in keys.iter().filter(|key| key.bytes.len() <= KEY_BYTES_MAX) {
            part.calls.add(db, (key.bytes, key.hash), WEIGHT);
            part.time_ns.add(db, (key.bytes, key.hash), took_ns / keys.len() as u64 * WEIGHT);
        }
        if !separators.is_empty() && hits + misses > 0 {
            let figures = part.prefixes.entry(db, prefix_of(first.bytes, separators));
            figures.hits += hits * WEIGHT;
            figures.misses += misses * WEIGHT;
        }
    }

    /// Looks how large keys are that were just written. A shard that is busy is left to the walk.
    pub fn measure<'k>(&self, keyspace: &Keyspace, db: u32, keys: impl Iterator<Item = Key<'k>>, now: i64) {
        for key in keys.filter(|key| key.bytes.len() <= KEY_BYTES_MAX) {
            let found = keyspace.try_lock(key.shard()).and_then(|shard| {
                let entry = shard.directory(db)?.get(key.hash, key.bytes)?;
                self.is_big(entry, now).then(|| BigKey::of(db, entry, now))
            });
            found.into_iter().for_each(|found| self.add(key.hash, &found));
        }
    }

    #[inline]
    fn is_big(&self, entry: EntryRef<'_>, now: i64) -> bool {
        entry.memory() as u64 >= self.least[0].load(Relaxed)
            || elements(entry.value(), now) >= self.least[1].load(Relaxed)
    }

    fn add(&self, hash: u64, key: &BigKey) {
        let mut top = self.top.lock();
        for (top, least) in top.iter_mut().zip(&self.least) {
            least.store(top.add(hash, key), Relaxed);
        }
    }

    /// Goes on with the walk for about so long. It begins anew a second after its end.
    pub fn walk(&self, keyspace: &Keyspace, separators: &[u8], now_ms: i64, budget: Duration) {
        let mut walk = std::mem::take(&mut *self.walk.lock());
        // The clock of the system may be set back.
        if !(now_ms..now_ms + WALKS_APART_MS).contains(&(walk.begins_ms - 1)) {
            let begun = Instant::now();
            while usize::from(walk.shard) < SHARDS && begun.elapsed() < budget {
                if !self.visit(keyspace, separators, now_ms, &mut walk) {
                    break;
                }
            }
            if usize::from(walk.shard) == SHARDS {
                self.verify(keyspace, now_ms);
                *self.walked.lock() = Arc::new(std::mem::take(&mut walk.tally));
                walk = Walk { begins_ms: now_ms + WALKS_APART_MS, ..Walk::default() };
                self.walks.fetch_add(1, Relaxed);
            }
        }
        *self.walk.lock() = walk;
    }

    /// Visits some keys of a shard, and goes to the next one behind the last. Returns false if the shard is busy.
    fn visit(&self, keyspace: &Keyspace, separators: &[u8], now: i64, walk: &mut Walk) -> bool {
        let mut found = Vec::new();
        {
            let Some(shard) = keyspace.try_lock(walk.shard) else { return false };
            let Some((db, directory)) = shard.database_from(walk.db).and_then(|db| Some((db, shard.directory(db)?)))
            else {
                (walk.shard, walk.db, walk.position) = (walk.shard + 1, 0, 0);
                return true;
            };
            let position = if db == walk.db { walk.position } else { 0 };
            let tally = &mut walk.tally;
            let next = directory.scan(position, VISITED_PER_LOCK, &mut |entry| {
                if !separators.is_empty() {
                    let figures = tally.entry(db, prefix_of(entry.key(), separators));
                    figures.keys += 1;
                    figures.bytes += entry.memory() as u64;
                }
                if self.is_big(entry, now) && entry.key().len() <= KEY_BYTES_MAX {
                    found.push(BigKey::of(db, entry, now));
                }
            });
            (walk.db, walk.position) = next.map_or((db + 1, 0), |position| (db, position));
        }
        found.iter().for_each(|key| self.add(keyspace.seed().hash(&key.key), key));
        true
    }

    /// Brings all big keys up to date, and forgets those that are gone.
    fn verify(&self, keyspace: &Keyspace, now: i64) {
        let known: Vec<(u64, BigKey)> = {
            let top = self.top.lock();
            top.iter().flat_map(|top| &top.keys).map(|((_, hash), key)| (*hash, key.clone())).collect()
        };
        let is_alive = |entry: &EntryRef<'_>| entry.expiry().is_none_or(|at| at as i64 > now);
        let looked: Vec<(u64, BigKey, bool)> = known
            .into_iter()
            .map(|(hash, key)| {
                // Of a busy shard's key stands what is known.
                let Some(shard) = keyspace.try_lock(shard_of(hash)) else { return (hash, key, true) };
                let entry = shard.directory(key.db).and_then(|directory| directory.get(hash, &key.key));
                match entry.filter(is_alive) {
                    Some(entry) => (hash, BigKey::of(key.db, entry, now), true),
                    None => (hash, key, false),
                }
            })
            .collect();
        let mut top = self.top.lock();
        for (top, least) in top.iter_mut().zip(&self.least) {
            for (hash, key, exists) in &looked {
                match top.keys.get_mut(&(key.db, *hash)) {
                    Some(known) if *exists => known.clone_from(key),
                    Some(_) => drop(top.keys.remove(&(key.db, *hash))),
                    None => {}
                }
            }
            top.keys.retain(|_, key| key.figure(top.by) > 0);
            least.store(top.least(), Relaxed);
        }
    }

    /// The biggest keys, as large as they are now, biggest first.
    pub fn biggest(&self, keyspace: &Keyspace, by: By, now: i64) -> Vec<BigKey> {
        self.verify(keyspace, now);
        let top = self.top.lock();
        let mut keys: Vec<BigKey> = top[by as usize].keys.values().cloned().collect();
        keys.sort_by(|a, b| b.figure(by).cmp(&a.figure(by)).then_with(|| (a.db, &a.key).cmp(&(b.db, &b.key))));
        keys
    }

    /// The keys with the most calls, about.
    pub fn busiest(&self) -> Vec<Counted> {
        self.summed(|part| &part.calls)
    }

    /// The keys that took the most time, in nanoseconds, about.
    pub fn slowest(&self) -> Vec<Counted> {
        self.summed(|part| &part.time_ns)
    }

    fn summed(&self, of: fn(&Part) -> &Summary) -> Vec<Counted> {
        let parts: Vec<_> = self.parts.iter().map(|part| part.lock()).collect();
        merged(parts.iter().map(|part| of(part)), SUMMED)
    }

    /// All prefixes, those with the most memory first; at the end, without a name, all that are not told apart.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let mut all = Tally::clone(&self.walked.lock());
        self.parts.iter().for_each(|part| all.add(&part.lock().prefixes));
        let named = |(name, figures)| Prefix { name: Some(name), figures };
        let mut prefixes: Vec<Prefix> = all.of.into_iter().map(named).collect();
        let order = |prefix: &Prefix| (std::cmp::Reverse(prefix.figures.bytes), prefix.name.clone());
        prefixes.sort_by_cached_key(order);
        if all.others != PrefixFigures::default() {
            prefixes.push(Prefix { name: None, figures: all.others });
        }
        prefixes
    }

    /// Forgets calls, time, hits and misses: CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.parts.iter().for_each(|part| *part.lock() = Part::new());
    }

    /// Forgets everything: it is switched off.
    pub fn clear(&self) {
        self.reset();
        self.top.lock().iter_mut().for_each(|top| top.keys.clear());
        self.least.iter().for_each(|least| least.store(1, Relaxed));
        *self.walk.lock() = Walk::default();
        *self.walked.lock() = Arc::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::HashSeed;
    use crate::keyspace::NewValue;

    const LONG: Duration = Duration::from_secs(60);

    fn keyspace() -> Keyspace {
        Keyspace::new(4, HashSeed(*b"seed of the test"))
    }

    fn set(keyspace: &Keyspace, db: u32, key: &str, len: usize) {
        let key = keyspace.key(key.as_bytes());
        let mut shard = keyspace.lock(key.shard());
        let _ = shard.directory_mut(db).set(key.hash, key.bytes, NewValue::Bytes(&vec![b'x'; len]), None, 0);
    }

    fn remove(keyspace: &Keyspace, db: u32, key: &str) {
        let key = keyspace.key(key.as_bytes());
        keyspace.lock(key.shard()).directory_mut(db).remove(key.hash, key.bytes);
    }

    fn names(keys: &[BigKey]) -> Vec<String> {
        keys.iter().map(|key| String::from_utf8_lossy(&key.key).into_owned()).collect()
    }

    #[test]
    fn a_walk_finds_the_biggest_keys_and_the_prefixes() {
        let (keyspace, stats) = (keyspace(), KeyStats::new(2));
        for number in 0..1000 {
            set(&keyspace, 0, &format!("small:{number}"), 10 + number % 7);
        }
        set(&keyspace, 0, "big:1", 100_000);
        set(&keyspace, 2, "big:2", 50_000);
        set(&keyspace, 2, "plain", 1);
        stats.walk(&keyspace, b":", 1, LONG);
        let biggest = stats.biggest(&keyspace, By::Bytes, 1);
        assert_eq!((names(&biggest)[..2].join(" "), biggest[1].db), ("big:1 big:2".to_owned(), 2));
        assert_eq!(biggest.len(), BIGGEST);
        assert!(stats.biggest(&keyspace, By::Elements, 1).is_empty(), "strings have no elements");
        let of = |prefixes: &[Prefix], db: u32, name: &[u8]| {
            let found = prefixes.iter().find(|prefix| prefix.name == Some((db, name.into())));
            found.map(|prefix| prefix.figures).unwrap_or_default()
        };
        let prefixes = stats.prefixes();
        assert_eq!(of(&prefixes, 0, b"small:").keys, 1000);
        assert!(of(&prefixes, 0, b"big:").bytes >= 100_000);
        assert_eq!([of(&prefixes, 2, b"big:").keys, of(&prefixes, 2, b"").keys], [1, 1]);
        // Within a second, no other walk begins.
        remove(&keyspace, 0, "big:1");
        stats.walk(&keyspace, b":", 2, LONG);
        assert_eq!(stats.walks.load(Relaxed), 1);
        assert_eq!(names(&stats.biggest(&keyspace, By::Bytes, 2))[0], "big:2", "what is gone is not told");
        stats.walk(&keyspace, b":", 2000, LONG);
        assert_eq!(of(&stats.prefixes(), 0, b"big:").keys, 0);
    }

    #[test]
    fn a_key_that_grows_is_told_with_its_size_of_now() {
        let (keyspace, stats) = (keyspace(), KeyStats::new(1));
        set(&keyspace, 0, "k", 5_000);
        stats.measure(&keyspace, 0, [keyspace.key(b"k"), keyspace.key(b"missing")].into_iter(), 1);
        set(&keyspace, 0, "k", 90_000);
        let biggest = stats.biggest(&keyspace, By::Bytes, 1);
        assert_eq!(biggest.len(), 1);
        assert!(biggest[0].bytes >= 90_000 && biggest[0].type_name == "string", "{biggest:?}");
        stats.clear();
        assert!(stats.biggest(&keyspace, By::Bytes, 1).is_empty());
    }

    #[test]
    fn the_lists_and_the_prefixes_are_bounded_and_nothing_is_lost_of_the_sums() {
        let (keyspace, stats) = (keyspace(), KeyStats::new(1));
        for number in 0..3000 {
            set(&keyspace, 0, &format!("{number}:k"), 1 + number);
        }
        stats.walk(&keyspace, b":", 1, LONG);
        let biggest = stats.biggest(&keyspace, By::Bytes, 1);
        assert_eq!((biggest.len(), names(&biggest)[0].as_str()), (BIGGEST, "2999:k"));
        let prefixes = stats.prefixes();
        assert_eq!(prefixes.len(), PREFIXES_MAX + 1);
        assert_eq!(prefixes.iter().map(|prefix| prefix.figures.keys).sum::<u64>(), 3000);
        assert_eq!(prefixes.last().map(|prefix| prefix.name.clone()), Some(None));
    }

    #[test]
    fn samples_of_all_workers_add_up() {
        let (keyspace, stats) = (keyspace(), KeyStats::new(2));
        let (hot, cold) = (keyspace.key(b"user:hot"), keyspace.key(b"user:cold"));
        for (worker, keys, reads) in [(0, [hot], (1, 0)), (1, [hot], (1, 0)), (1, [cold], (0, 1))] {
            stats.count(worker, &Sampled { keys: &keys, db: 3, took_ns: 100, reads, separators: b":" });
        }
        let busiest = stats.busiest();
        assert_eq!((busiest[0].db, &busiest[0].key[..], busiest[0].count), (3, &b"user:hot"[..], 2 * WEIGHT));
        assert_eq!(stats.slowest()[0].count, 200 * WEIGHT);
        let prefixes = stats.prefixes();
        assert_eq!(prefixes.len(), 1);
        assert_eq!((prefixes[0].figures.hits, prefixes[0].figures.misses), (2 * WEIGHT, WEIGHT));
        stats.reset();
        assert!(stats.busiest().is_empty() && stats.prefixes().is_empty());
    }

    #[test]
    fn prefixes_end_with_the_first_separator() {
        assert_eq!(prefix_of(b"user:1:name", b":/"), b"user:");
        assert_eq!(prefix_of(b"a/b:c", b":/"), b"a/");
        assert_eq!(prefix_of(b"plain", b":"), b"");
        assert_eq!(prefix_of(&[b"x".repeat(500), b":".to_vec()].concat(), b":").len(), PREFIX_BYTES_MAX);
    }

    #[test]
    fn groups_are_sampled_at_the_rate_that_one_stands_for() {
        let mean = (0..100_000).map(|_| u64::from(next_sample()) + 1).sum::<u64>() as f64 / 100_000.0;
        assert!((mean - WEIGHT as f64).abs() < 2.0, "{mean}");
    }
}

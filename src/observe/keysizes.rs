//! How large keys are: the section `keysizes`.
//!
//! A database of up to [`EXACT_KEYS_MAX`] keys is looked at whole. Of a larger one, [`DRAWN_PER_SHARD`] random keys of
//! each shard stand for all, so that a report takes as long for ten million keys as for ten thousand. Shards that a
//! command holds are skipped, because a report never waits.

use crate::base::random;
use crate::core::figures::{Figures, Look, Value};
use crate::keyspace::{Census, SHARDS};
use crate::value::entry::EntryRef;
use crate::value::hash::AnyHash;
use crate::value::list::AnyList;
use crate::value::set::AnySet;
use crate::value::zset::AnyZset;
use crate::value::{Collection, ValueRef};

/// The most keys of a database that is looked at whole.
const EXACT_KEYS_MAX: usize = 8192;
/// How many keys of each shard stand for those of a larger one.
const DRAWN_PER_SHARD: usize = 2;

/// The rows of a database: what is counted, and whether that are bytes of memory.
const ROWS: [(&str, bool); 9] = [
    ("strings_sizes", false),
    ("lists_items", false),
    ("sets_items", false),
    ("zsets_items", false),
    ("hashes_items", false),
    ("lists_sizes", true),
    ("sets_sizes", true),
    ("zsets_sizes", true),
    ("hashes_sizes", true),
];
/// How many rows after that of the items of a collection the row of its bytes is.
const TO_BYTES: usize = 4;

/// How many keys have at least one, two, four … elements; the first counts those without any.
type Histogram = [u64; 65];

/// Adds a row for each type of each database that has keys of it.
pub(super) fn distributions(look: &Look<'_>, out: &mut Figures) {
    let keyspace = &look.server.keyspace;
    for (db, census) in keyspace.counts().filled() {
        let mut rows = [[0_u64; 65]; ROWS.len()];
        let drawn = count(look, db, census, &mut rows);
        for ((name, of_bytes), histogram) in ROWS.iter().zip(&rows) {
            let is_empty = histogram.iter().all(|count| *count == 0);
            if !is_empty && (!of_bytes || look.settings.key_memory_histograms) {
                let columns = columns(histogram, census.keys as u64, drawn);
                out.add(format!("db{db}_distrib_{name}"), Value::Columns(columns));
            }
        }
    }
}

/// Counts the keys of a database. Returns how many stand for all of them; 0 if these are all.
fn count(look: &Look<'_>, db: u32, census: Census, rows: &mut [Histogram; ROWS.len()]) -> u64 {
    let is_exact = census.keys <= EXACT_KEYS_MAX;
    let mut drawn = 0;
    let mut add = |entry: EntryRef<'_>| {
        for (row, figure) in figures_of(entry, look.now) {
            rows[row][figure.checked_ilog2().map_or(0, |power| power as usize + 1)] += 1;
        }
    };
    for shard in 0..SHARDS as u16 {
        let Some(shard) = look.server.keyspace.try_lock(shard) else { continue };
        let Some(directory) = shard.directory(db) else { continue };
        if is_exact {
            directory.iter().for_each(&mut add);
            continue;
        }
        for _ in 0..DRAWN_PER_SHARD {
            let entry = directory.random(random::with(|random| random.next_u64()));
            entry.into_iter().for_each(|entry| {
                drawn += 1;
                add(entry);
            });
        }
    }
    drawn
}

/// The rows that a key belongs to, each with its figure.
fn figures_of(entry: EntryRef<'_>, now: i64) -> impl Iterator<Item = (usize, u64)> {
    let value = entry.value();
    let string = match value {
        ValueRef::Int(number) => Some(decimal_len(number)),
        ValueRef::Str(bytes) | ValueRef::Raw(bytes) => Some(bytes.as_slice().len()),
        _ => None,
    };
    let items = [
        AnyList::view(value).map(|list| list.len()),
        AnySet::view(value).map(|set| set.len()),
        AnyZset::view(value).map(|zset| zset.len()),
        AnyHash::view(value).map(|hash| hash.len(now.max(0) as u64)),
    ];
    let bytes = entry.memory() as u64;
    let items = (1..).zip(items).filter_map(|(row, items)| Some((row, items?)));
    let items = items.flat_map(move |(row, items)| [(row, items as u64), (row + TO_BYTES, bytes)]);
    string.map(|len| (0, len as u64)).into_iter().chain(items)
}

/// How long a number is when it is written.
fn decimal_len(number: i64) -> usize {
    usize::from(number < 0) + number.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1
}

/// The columns of a row: the lower bound of each power of two, and how many keys it has.
fn columns(histogram: &Histogram, keys: u64, drawn: u64) -> Vec<(std::borrow::Cow<'static, str>, Value)> {
    let scaled = |count: u64| match drawn {
        0 => count,
        drawn => (u128::from(count) * u128::from(keys) / u128::from(drawn)) as u64,
    };
    let filled = histogram.iter().enumerate().filter(|(_, count)| **count > 0);
    filled.map(|(at, count)| (bound(at).into(), Value::Counter(scaled(*count)))).collect()
}

/// The lower bound of a bin, as Redis writes it: `0`, `512`, `1K`, `2M`.
fn bound(bin: usize) -> String {
    let Some(power) = bin.checked_sub(1) else { return "0".into() };
    let unit = ["", "K", "M", "G", "T", "P", "E"][power / 10];
    format!("{}{unit}", 1_u64 << (power % 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_two_with_a_unit() {
        assert_eq!([0, 1, 2, 10, 11, 12, 21, 64].map(bound), ["0", "1", "2", "512", "1K", "2K", "1M", "8E"]);
        assert_eq!([0, 7, -7, 10, i64::MIN].map(decimal_len), [1, 1, 2, 2, 20]);
    }
}

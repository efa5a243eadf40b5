//! The figures of the databases.

use crate::base::random;
use crate::core::figures::{Figures, Look, Value};
use crate::keyspace::{Census, Keyspace, SHARDS};

/// How many sampled times to live represent a database.
const TTL_SAMPLES: usize = 128;

/// Adds a row for each database that holds keys.
pub(super) fn databases(look: &Look<'_>, out: &mut Figures) {
    let keyspace = &look.server.keyspace;
    let filled: Vec<(u32, Census)> = keyspace.counts().filled().collect();
    let averages = average_ttls(keyspace, &filled, look.now);
    for ((db, census), average) in filled.into_iter().zip(averages) {
        let gauge = |number: usize| Value::Gauge(number as i64);
        let mut columns = vec![
            ("keys".into(), gauge(census.keys)),
            ("expires".into(), gauge(census.volatile)),
            ("avg_ttl".into(), Value::Gauge(average as i64)),
        ];
        // Redis 8 and Valkey 9 show how many hashes have expiring fields; clients of 7.2 do not expect it.
        if census.elementwise > 0 {
            columns.push(("subexpiry".into(), gauge(census.elementwise)));
            columns.push(("keys_with_volatile_items".into(), gauge(census.elementwise)));
        }
        out.row("db", ("db", db.to_string()), columns);
    }
}

/// The mean time to live of a few random keys of each database, in ms. A busy shard is skipped, because a report
/// never waits.
fn average_ttls(keyspace: &Keyspace, filled: &[(u32, Census)], now: i64) -> Vec<u64> {
    let mut sampled = vec![Vec::new(); filled.len()];
    let is_wanted = |(_, census): &(u32, Census), sampled: &Vec<u64>| sampled.len() < census.volatile.min(TTL_SAMPLES);
    let first = random::with(|random| random.index(SHARDS));
    for shard in (0..SHARDS).map(|at| ((first + at) % SHARDS) as u16) {
        if !filled.iter().zip(&sampled).any(|(of, sampled)| is_wanted(of, sampled)) {
            break;
        }
        let Some(shard) = keyspace.try_lock(shard) else { continue };
        for (of, sampled) in filled.iter().zip(&mut sampled).filter(|(of, sampled)| is_wanted(of, sampled)) {
            let random = random::with(|random| random.next_u64());
            let entry = shard.directory(of.0).and_then(|directory| directory.random_volatile(random));
            let expiry = entry.and_then(|entry| entry.expiry());
            sampled.extend(expiry.map(|expiry| expiry.saturating_sub(now as u64)));
        }
    }
    sampled.iter().map(|sampled| sampled.iter().sum::<u64>() / sampled.len().max(1) as u64).collect()
}

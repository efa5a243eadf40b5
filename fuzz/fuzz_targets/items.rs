//! Any bytes as the payload of a block, of version 1 and of today's: items or an error with its place. A verb that is
//! read says the same when it is written anew, and is applied to keys of every type or refused.
#![no_main]

use ironkeep::base::hash::HashSeed;
use ironkeep::exec::{Replayer, replay_verb, replay_words};
use ironkeep::keyspace::Keyspace;
use ironkeep::persist::format::VERSION;
use ironkeep::persist::record::{Effect, EncodedVerb, Items, put_epoch};
use ironkeep::persist::verbs::{BarrierWriter, RecordWriter, Verb};
use ironkeep::value::Limits;
use libfuzzer_sys::fuzz_target;

const SEED: HashSeed = HashSeed(*b"0123456789abcdef");
/// No server logs more keys at once, or a string that grows by more bytes: an input could take all memory.
const COUNT_MAX: u64 = 1000;
const OFFSET_MAX: u64 = 1 << 20;

/// Keys of every type, for verbs that want one.
const KEYS: &[&[&[u8]]] = &[
    &[b"SET", b"string", b"v"],
    &[b"RPUSH", b"list", b"a", b"b", b"c"],
    &[b"SADD", b"set", b"a", b"5"],
    &[b"HSET", b"hash", b"f", b"v"],
    &[b"ZADD", b"zset", b"1", b"a", b"2", b"b"],
    &[b"XADD", b"stream", b"1-1", b"f", b"v"],
    &[b"XGROUP", b"CREATE", b"stream", b"g", b"0"],
    &[b"PFADD", b"hll", b"a"],
];

fn apply(keyspace: &Keyspace, replayer: &mut Replayer, key: &[u8], verb: Verb<'_>) {
    match verb {
        Verb::Populate { count, size, .. } if count > COUNT_MAX || size > OFFSET_MAX => {}
        Verb::SetRange { offset, .. } if offset > OFFSET_MAX => {}
        verb => drop(replay_verb(keyspace, replayer, 0, key, verb)),
    }
}

/// Applies a verb to its own key, and to one of another type.
fn apply_to_all(keyspace: &Keyspace, replayer: &mut Replayer, encoded: EncodedVerb<'_>) {
    apply(keyspace, replayer, encoded.key, encoded.verb());
    let other = KEYS[encoded.body.len() % KEYS.len()];
    apply(keyspace, replayer, other[usize::from(other[0] == b"XGROUP") + 1], encoded.verb());
}

fuzz_target!(|payload: &[u8]| {
    for item in Items::of_version(1, payload) {
        assert!(
            item.is_ok_and(|(_, record)| matches!(record.effect, Effect::Words(_)))
                || item.is_err_and(|at| at <= payload.len())
        );
    }
    let keyspace = Keyspace::new(16, SEED);
    let mut replayer = Replayer::new(Limits::defaults(SEED));
    for words in KEYS {
        replay_words(&keyspace, &mut replayer, 0, words).expect("words of version 1");
    }
    let (mut again, mut read) = (Vec::new(), Vec::new());
    for item in Items::of_version(VERSION, payload) {
        match item {
            Ok((epoch, record)) => {
                let Effect::Verb(encoded) = record.effect else { panic!("words of version 1") };
                let verb = encoded.verb();
                put_epoch(&mut again, epoch);
                let written = match record.is_barrier() {
                    true => verb.barrier(BarrierWriter::new(&mut again, record.db)),
                    false => {
                        verb.record(RecordWriter::new(&mut again, record.shard, record.seq, record.db, encoded.key))
                    }
                };
                written.expect("a barrier or none, as its code says");
                apply_to_all(&keyspace, &mut replayer, encoded);
                read.push((epoch, record));
            }
            Err(at) => assert!(at <= payload.len()),
        }
    }
    let rewritten: Vec<_> = Items::new(&again).map(|item| item.expect("just written")).collect();
    assert_eq!(read, rewritten);
});

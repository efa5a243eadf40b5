//! Tests of streams as values, against plain models.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::hash::HashSeed;

type Words = Vec<Vec<u8>>;

fn limits() -> Limits {
    Limits {
        stream_node_max_entries: 5,
        stream_node_max_bytes: 200,
        ..Limits::defaults(HashSeed(*b"a seed for tests"))
    }
}

fn words(entry: &Entry<'_>) -> Words {
    let words: Words = entry.fields().flat_map(|(name, value)| [name.to_vec(), value.to_vec()]).collect();
    assert_eq!(words.len(), 2 * entry.len());
    words
}

fn append(stream: &mut Stream, id: StreamId, fields: &[Vec<u8>]) {
    assert!(stream.append(id, fields.iter().map(Vec::as_slice), &limits()));
}

fn again(stream: &Stream) -> Stream {
    let mut bytes = Vec::new();
    stream.encode(&mut bytes, &mut |_| ());
    assert!(Stream::decode(&[&bytes[..], b"x"].concat(), stream.has_parts()).is_none());
    let again = Stream::decode(&bytes, stream.has_parts()).expect("what was encoded");
    let mut bytes_again = Vec::new();
    again.encode(&mut bytes_again, &mut |_| ());
    assert_eq!(bytes, bytes_again);
    again
}

fn same(stream: &Stream, model: &BTreeMap<StreamId, Words>) {
    stream.check_invariants();
    let all = |stream: &Stream| -> Vec<_> {
        stream.range(StreamId::MIN, StreamId::MAX).map(|entry| (entry.id, words(&entry))).collect()
    };
    let expected: Vec<_> = model.iter().map(|(id, words)| (*id, words.clone())).collect();
    assert_eq!(all(stream), expected);
    assert_eq!(all(&again(stream)), expected);
}

fn fields() -> impl Strategy<Value = Words> {
    let name = prop::sample::select(vec!["a", "b", "", "7"]);
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..40)
    ];
    let field = (name, value).prop_map(|(name, value)| [name.as_bytes().to_vec(), value]);
    prop::collection::vec(field, 1..4).prop_map(|fields| fields.concat())
}

#[derive(Clone, Debug)]
enum Edit {
    Append(u64, u64, Words),
    Delete(usize),
    Trim(u64, bool, u64),
    TrimBelow(usize, bool),
    Freeze,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (0u64..3, 0u64..4, fields()).prop_map(|(ms, seq, fields)| Edit::Append(ms, seq, fields)),
        3 => any::<usize>().prop_map(Edit::Delete),
        1 => (0u64..30, any::<bool>(), 0u64..20).prop_map(|(len, whole, limit)| Edit::Trim(len, whole, limit)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, whole)| Edit::TrimBelow(at, whole)),
        1 => Just(Edit::Freeze),
    ]
}

fn nth(model: &BTreeMap<StreamId, Words>, at: usize) -> Option<StreamId> {
    model.keys().nth(at.checked_rem(model.len())?).copied()
}

/// Trims, and takes from the model what is said to have gone.
fn trim(stream: &mut Stream, model: &mut BTreeMap<StreamId, Words>, trim: Trim, whole: bool, limit: u64) {
    let gone = stream.trim(trim, whole, limit);
    for _ in 0..gone {
        model.pop_first();
    }
    let excess = match trim {
        Trim::MaxLen(len) => (model.len() as u64).saturating_sub(len),
        Trim::MinId(min) => model.keys().filter(|id| **id < min).count() as u64,
    };
    assert!(whole || limit > 0 || excess == 0, "{excess} too many");
    assert!(limit == 0 || gone <= limit);
    assert!(!whole || limit > 0 || excess < 5, "a whole block too many");
}

proptest! {
    #[test]
    fn entries_are_those_of_a_plain_map(edits in prop::collection::vec(edit(), 1..120)) {
        let (mut stream, mut model, mut frozen) = (Stream::new(), BTreeMap::new(), Vec::new());
        let (mut added, mut max_deleted) = (0, StreamId::MIN);
        for edit in edits {
            match edit {
                Edit::Append(ms, seq, fields) => {
                    let last = stream.last_id();
                    let id = if ms == 0 { last.next().unwrap() } else { StreamId::new(last.ms + ms, seq) };
                    append(&mut stream, id, &fields);
                    model.insert(id, fields);
                    added += 1;
                }
                Edit::Delete(at) => if let Some(id) = nth(&model, at) {
                    prop_assert!(stream.delete(id) && !stream.delete(id));
                    model.remove(&id);
                    max_deleted = max_deleted.max(id);
                },
                Edit::Trim(len, whole, limit) => {
                    trim(&mut stream, &mut model, Trim::MaxLen(len), whole, if whole { limit } else { 0 });
                }
                Edit::TrimBelow(at, whole) => if let Some(id) = nth(&model, at) {
                    trim(&mut stream, &mut model, Trim::MinId(id), whole, 0);
                },
                Edit::Freeze => frozen.push((stream.clone(), model.clone())),
            }
            prop_assert_eq!(stream.len(), model.len());
            prop_assert_eq!(stream.first().map(|entry| entry.id), model.keys().next().copied());
            prop_assert_eq!(stream.last().map(|entry| entry.id), model.keys().next_back().copied());
        }
        prop_assert_eq!((stream.entries_added(), stream.max_deleted_id()), (added, max_deleted));
        for at in 0..model.len() {
            let (one, two) = (nth(&model, at).unwrap(), nth(&model, at * 7 + 3).unwrap());
            let expected: Vec<_> = match one <= two {
                true => model.range(one..=two).map(|(id, _)| *id).collect(),
                false => Vec::new(),
            };
            let mut backward: Vec<_> = stream.range_back(one, two).map(|entry| entry.id).collect();
            backward.reverse();
            prop_assert_eq!(&stream.range(one, two).map(|entry| entry.id).collect::<Vec<_>>(), &expected);
            prop_assert_eq!(&backward, &expected);
            prop_assert_eq!(stream.get(one).map(|entry| words(&entry)), model.get(&one).cloned());
            prop_assert!(stream.get(one.next().unwrap()).is_none_or(|entry| model.contains_key(&entry.id)));
        }
        frozen.push((stream, model));
        frozen.iter().for_each(|(stream, model)| same(stream, model));
    }

    #[test]
    fn groups_are_those_of_a_plain_map(steps in prop::collection::vec((0u8..10, 0usize..4, 0u64..40), 1..150)) {
        let mut stream = Stream::new();
        for ms in 1..=20 {
            append(&mut stream, StreamId::new(ms, 0), &[b"a".to_vec(), b"1".to_vec()]);
        }
        prop_assert!(stream.add_group(b"g", StreamId::MIN, Some(0)) && !stream.add_group(b"g", StreamId::MIN, None));
        let names: [&[u8]; 4] = [b"", b"c1", b"c2", b"c3"];
        // The pending entries: who has them, since when, how often delivered. What was handed back is nobody's.
        const NOBODY: usize = 4;
        let mut model: BTreeMap<u64, (usize, i64, u64)> = BTreeMap::new();
        let mut queue: Vec<u64> = Vec::new();
        let (mut last, mut frozen) = (0u64, Vec::new());
        for (now, (what, consumer, number)) in steps.into_iter().enumerate() {
            let (now, name, id) = (now as i64, names[consumer], StreamId::new(number, 0));
            let exists = |ms: u64| (1..=20).contains(&ms);
            match what {
                0 => {
                    let (after, count) = stream.deliver(b"g", name, Some(number as usize % 7), now, true);
                    prop_assert_eq!(after.ms, last);
                    for ms in last + 1..=last + count as u64 {
                        model.insert(ms, (consumer, now, 1));
                    }
                    last += count as u64;
                }
                1 => {
                    let acknowledged = stream.edit_group(b"g", |group| group.acknowledge(id));
                    prop_assert_eq!(acknowledged, Some(model.remove(&number).is_some()));
                }
                2 | 3 => {
                    let force = what == 3;
                    let claim = Claim { now, delivered: now / 2, count: Count::OneMore, force };
                    let had = model.contains_key(&number);
                    let (claimed, gone) = stream.claim(b"g", name, [id], &claim, |_| true);
                    prop_assert_eq!(claimed.len() == 1, exists(number) && (had || force));
                    prop_assert_eq!(gone.len() == 1, !exists(number) && had);
                    if !claimed.is_empty() {
                        let count = model.get(&number).map_or(1, |pending| pending.2) + 1;
                        model.insert(number, (consumer, now / 2, count));
                    }
                }
                4 => {
                    let own = stream.deliver_again(b"g", name, id, None, now);
                    let expected: Vec<u64> =
                        model.range(number + 1..).filter(|(_, p)| p.0 == consumer).map(|(ms, _)| *ms).collect();
                    prop_assert_eq!(own.iter().map(|id| id.ms).collect::<Vec<_>>(), expected);
                    for id in own {
                        model.entry(id.ms).and_modify(|pending| *pending = (pending.0, now, pending.2 + 1));
                    }
                }
                5 => {
                    let removed = stream.edit_group(b"g", |group| group.remove_consumer(name)).flatten();
                    let before = model.len();
                    model.retain(|_, pending| pending.0 != consumer);
                    prop_assert_eq!(removed.unwrap_or(0), before - model.len());
                }
                6 => {
                    // Back to an earlier place: entries that are pending there are delivered again.
                    last = last.min(number);
                    stream.edit_group(b"g", |group| group.last_id = StreamId::new(last, 0));
                }
                7 | 8 => {
                    let force = what == 8;
                    let released = stream.release(b"g", &[id], force, |count| count / 2);
                    let had = model.get(&number).map(|pending| pending.2);
                    let count = had.or((force && exists(number)).then_some(0)).map(|count| count / 2);
                    prop_assert_eq!(released, count.map(|count| (id, count)).into_iter().collect::<Vec<_>>());
                    if let Some(count) = count {
                        model.insert(number, (NOBODY, 0, count));
                        queue.retain(|ms| *ms != number);
                        queue.push(number);
                    }
                }
                _ => frozen.push((stream.clone(), model.clone(), queue.clone())),
            }
            queue.retain(|ms| model.get(ms).is_some_and(|pending| pending.0 == NOBODY));
        }
        frozen.push((stream, model, queue));
        for (stream, model, queue) in frozen {
            for stream in [again(&stream), stream] {
                stream.check_invariants();
                let group = stream.group(b"g").unwrap();
                let shown = |p: &Pending| (p.id.ms, p.owner().to_vec(), p.delivered, p.count);
                let pending: Vec<_> = group.pending.iter().map(shown).collect();
                let name = |owner: usize| names.get(owner).map_or(Vec::new(), |name| name.to_vec());
                let expected: Vec<_> = model.iter().map(|(ms, p)| (*ms, name(p.0), p.1, p.2)).collect();
                prop_assert_eq!(pending, expected);
                prop_assert_eq!(&group.released().map(|pending| pending.id.ms).collect::<Vec<_>>(), &queue);
            }
        }
    }

    #[test]
    fn any_bytes_end_in_peace(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
                              cut in any::<prop::sample::Index>(), has_parts in any::<bool>()) {
        let mut stream = Stream::new();
        for ms in 1..=12 {
            let name = if ms % 3 == 0 { b"b" } else { b"a" };
            let fields = [name.to_vec(), b"hello".to_vec()];
            append(&mut stream, StreamId::new(ms, ms), &fields);
        }
        stream.delete(StreamId::new(7, 7));
        stream.add_group(b"g", StreamId::new(2, 2), Some(2));
        stream.deliver(b"g", b"c", Some(5), 1_700_000_000_000, true);
        stream.deliver(b"g", b"d", Some(2), 1_700_000_000_000, true);
        if has_parts {
            stream.release(b"g", &[StreamId::new(4, 4), StreamId::new(3, 3)], false, |count| count);
            for iid in [b"x", b"y", b"z"] {
                let known = Known { producer: &iid[..iid[0] as usize % 2], iid, entry: StreamId::new(9, 9), at: 9 };
                stream.idempotency_mut(Window::DEFAULT).remember(known, 0);
            }
        }
        let mut bytes = Vec::new();
        stream.encode(&mut bytes, &mut |_| ());
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if changes.is_empty() {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Some(stream) = Stream::decode(&bytes, has_parts) {
            stream.check_invariants();
            let mut copy = stream.clone();
            copy.trim(Trim::MaxLen(3), false, 0);
            copy.check_invariants();
        }
    }

    #[test]
    fn random_bytes_are_no_stream_or_a_sound_one(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for has_parts in [false, true] {
            if let Some(stream) = Stream::decode(&bytes, has_parts) {
                stream.check_invariants();
            }
        }
    }
}

#[test]
fn a_block_is_a_node_of_redis_byte_for_byte() {
    // As DUMP of Redis 7.0.15 gives it after XADD s 1-1 a 1, XADD s 1-2 a hello, XADD s 5-0 b x c -3, XDEL s 1-2.
    const NODE: &[u8] = b"\
        \x42\0\0\0\x18\0\x02\x01\x01\x01\x01\x01\x81a\x02\0\x01\
        \x02\x01\0\x01\0\x01\x01\x01\x04\x01\
        \x03\x01\0\x01\x01\x01\x85hello\x06\x04\x01\
        \0\x01\x04\x01\xdf\xff\x02\x02\x01\x81b\x02\x81x\x02\x81c\x02\xdf\xfd\x02\x08\x01\xff";
    let mut stream = Stream::new();
    let fields = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    append(&mut stream, StreamId::new(1, 1), &fields(&["a", "1"]));
    append(&mut stream, StreamId::new(1, 2), &fields(&["a", "hello"]));
    append(&mut stream, StreamId::new(5, 0), &fields(&["b", "x", "c", "-3"]));
    stream.delete(StreamId::new(1, 2));
    let blocks: Vec<_> = stream.blocks().collect();
    assert_eq!(blocks, [(StreamId::new(1, 1), NODE)]);
}

#[test]
fn ids_far_apart_share_a_block() {
    let mut stream = Stream::new();
    let ids = [StreamId::new(0, 1), StreamId::new(1, 0), StreamId::new(u64::MAX, 0), StreamId::MAX];
    for id in ids {
        append(&mut stream, id, &[b"a".to_vec(), b"1".to_vec()]);
    }
    assert_eq!(stream.blocks_len(), 1);
    assert_eq!(again(&stream).range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).collect::<Vec<_>>(), ids);
}

#[test]
fn blocks_that_overlap_or_lie_about_their_entries_are_refused() {
    let mut stream = Stream::new();
    for ms in 1..=8 {
        append(&mut stream, StreamId::new(ms, 0), &[b"a".to_vec(), b"1".to_vec()]);
    }
    assert_eq!(stream.blocks_len(), 2);
    let mut lower = stream.clone();
    lower.set_ids(StreamId::new(7, 0), None, None);
    let mut fewer = stream.clone();
    fewer.set_ids(StreamId::new(8, 0), Some(7), None);
    for stream in [lower, fewer] {
        let mut bytes = Vec::new();
        stream.encode(&mut bytes, &mut |_| ());
        assert!(Stream::decode(&bytes, false).is_none());
    }
    let mut bytes = Vec::new();
    stream.encode(&mut bytes, &mut |_| ());
    // The second block begins at 6-0: said to begin at 3-0 it lies among the entries of the first.
    let at = bytes.windows(2).rposition(|two| two == [6, 0]).unwrap();
    bytes[at] = 3;
    assert!(Stream::decode(&bytes, false).is_none());
}

#[test]
fn a_change_after_a_clone_copies_little() {
    let limits = Limits::defaults(HashSeed(*b"a seed for tests"));
    let mut stream = Stream::new();
    for ms in 1..=100_000u64 {
        assert!(stream.append(StreamId::new(ms, 0), [b"field".as_slice(), b"value"].into_iter(), &limits));
    }
    stream.add_group(b"g", StreamId::MIN, None);
    stream.deliver(b"g", b"c", None, 1, true);
    stream.check_invariants();
    // As in Redis: some dozen bytes an entry, and no block half empty.
    assert!(stream.entries.bytes() < 100_000 * 20, "{}", stream.entries.bytes());
    let frozen = stream.clone();
    let shared = |stream: &Stream| -> std::collections::HashSet<*const u8> {
        stream.blocks().map(|(_, bytes)| bytes.as_ptr()).collect()
    };
    stream.append(StreamId::new(100_001, 0), [b"field".as_slice(), b"value"].into_iter(), &limits);
    stream.delete(StreamId::new(50_000, 0));
    stream.edit_group(b"g", |group| group.acknowledge(StreamId::new(70_000, 0)));
    // The last block, which was full, the one behind it, and that of the deleted entry.
    assert_eq!(shared(&stream).difference(&shared(&frozen)).count(), 3);
    assert_eq!(frozen.group(b"g").map(|group| group.pending.len()), Some(100_000));
    assert_eq!((frozen.len(), stream.len()), (100_000, 100_000));
}

#[test]
fn nodes_of_a_radix_tree_are_counted_where_keys_part() {
    let nodes = |ids: &[(u64, u64)]| radix_nodes(ids.iter().map(|(ms, seq)| StreamId::new(*ms, *seq)));
    assert_eq!(nodes(&[]), 1);
    assert_eq!(nodes(&[(1, 1)]), 2);
    // One chain, one parting, two ends.
    assert_eq!(nodes(&[(1, 1), (1, 2)]), 4);
    // Beyond the parting two chains more.
    assert_eq!(nodes(&[(1, 0), (2, 0)]), 6);
    assert_eq!(nodes(&[(1, 0), (1, 1), (2, 0)]), 8);
}

//! Tests of deleting with regard to groups, against a plain model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::base::hash::HashSeed;
use crate::value::Limits;

const GROUPS: [&[u8]; 2] = [b"g", b"h"];

/// The entries, and of each group the last id delivered and what is pending.
#[derive(Clone, Debug, Default)]
struct Model {
    entries: BTreeSet<u64>,
    groups: BTreeMap<&'static [u8], (u64, BTreeSet<u64>)>,
}

impl Model {
    fn is_referenced(&self, ms: u64) -> bool {
        self.groups.values().any(|(last, pending)| ms > *last || pending.contains(&ms))
    }

    fn delete(&mut self, ms: u64, policy: RefPolicy) -> Deletion {
        if policy == RefPolicy::Acked && self.is_referenced(ms) {
            return Deletion::Referenced;
        }
        if policy == RefPolicy::DelRef {
            self.groups.values_mut().for_each(|(_, pending)| pending.retain(|other| *other != ms));
        }
        if self.entries.remove(&ms) { Deletion::Deleted } else { Deletion::Missing }
    }
}

fn id(ms: u64) -> StreamId {
    StreamId::new(ms, 0)
}

fn policy() -> impl Strategy<Value = RefPolicy> {
    prop::sample::select(vec![RefPolicy::KeepRef, RefPolicy::DelRef, RefPolicy::Acked])
}

fn same(stream: &Stream, model: &Model) {
    stream.check_invariants();
    let ids: Vec<u64> = stream.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id.ms).collect();
    assert_eq!(ids, model.entries.iter().copied().collect::<Vec<_>>());
    assert_eq!(stream.groups_len(), model.groups.len());
    for group in stream.groups() {
        let (last, pending) = &model.groups[&group.name[..]];
        assert_eq!(group.last_id.ms, *last);
        assert_eq!(group.pending.iter().map(|p| p.id.ms).collect::<BTreeSet<_>>(), *pending);
    }
}

/// Trims both; what the stream says has gone is held against what had to go.
fn trim(stream: &mut Stream, model: &mut Model, trim: Trim, whole: bool, limit: u64, policy: RefPolicy) {
    let before = model.clone();
    let below = |ms: u64| matches!(trim, Trim::MinId(min) if ms < min.ms);
    let gone = match policy {
        RefPolicy::KeepRef => stream.trim(trim, whole, limit),
        RefPolicy::DelRef => {
            let (gone, _) = stream.trim_with_references(trim, limit);
            let first = before.entries.iter().copied().nth(gone as usize);
            let is_dropped = |ms: u64| match trim {
                Trim::MaxLen(_) => gone > 0 && first.is_none_or(|first| ms < first),
                Trim::MinId(min) => ms < min.ms && first.is_none_or(|first| ms < first),
            };
            model.groups.values_mut().for_each(|(_, pending)| pending.retain(|ms| !is_dropped(*ms)));
            if limit == 0 && matches!(trim, Trim::MinId(_)) {
                assert_eq!(gone as usize, before.entries.iter().filter(|ms| below(**ms)).count());
            }
            gone
        }
        RefPolicy::Acked => {
            let (gone, last) = stream.trim_acked(trim, limit);
            let free: Vec<u64> = before.entries.iter().copied().filter(|ms| !before.is_referenced(*ms)).collect();
            assert_eq!(last.map(|id| id.ms), gone.checked_sub(1).map(|at| free[at as usize]));
            model.entries.retain(|ms| !free[..gone as usize].contains(ms));
            if limit == 0 && matches!(trim, Trim::MinId(_)) {
                assert_eq!(gone as usize, free.iter().filter(|ms| below(**ms)).count());
            }
            gone
        }
    };
    if policy != RefPolicy::Acked {
        model.entries = before.entries.iter().skip(gone as usize).copied().collect();
    }
    assert!(limit == 0 || gone <= limit);
    match trim {
        Trim::MaxLen(max) => assert!(gone == 0 || model.entries.len() as u64 >= max),
        Trim::MinId(min) => assert!(before.entries.difference(&model.entries).all(|ms| *ms < min.ms)),
    }
}

proptest! {
    #[test]
    fn deleting_and_trimming_leave_what_a_plain_model_leaves(
        steps in prop::collection::vec((0u8..10, 0u64..60, 0usize..2, policy(), any::<bool>()), 1..150),
    ) {
        let limits = Limits {
            stream_node_max_entries: 5,
            ..Limits::defaults(HashSeed(*b"a seed for tests"))
        };
        let (mut stream, mut model, mut frozen) = (Stream::new(), Model::default(), Vec::new());
        for (what, number, group, policy, whole) in steps {
            let name = GROUPS[group];
            match what {
                0..=3 => {
                    let next = stream.last_id().ms + 1 + number % 2;
                    prop_assert!(stream.append(id(next), [&b"a"[..], b"1"].into_iter(), &limits));
                    model.entries.insert(next);
                }
                4 => {
                    if stream.add_group(name, id(0), None) {
                        model.groups.insert(name, (0, BTreeSet::new()));
                    }
                }
                5 => {
                    stream.deliver(name, b"c", Some(number as usize % 9), 1, true);
                    if let Some((last, pending)) = model.groups.get_mut(name) {
                        let new = model.entries.range(*last + 1..).take(number as usize % 9);
                        let ids: Vec<u64> = new.copied().collect();
                        *last = ids.last().copied().unwrap_or(*last);
                        pending.extend(ids);
                    }
                }
                6 => {
                    stream.edit_group(name, |group| (0..number).filter(|ms| group.acknowledge(id(*ms))).count());
                    if let Some((_, pending)) = model.groups.get_mut(name) {
                        pending.retain(|ms| *ms >= number);
                    }
                }
                7 => {
                    let was = model.clone();
                    let (deletion, changed) = stream.delete_by(id(number), policy);
                    prop_assert_eq!(deletion, model.delete(number, policy));
                    prop_assert_eq!(changed, was.entries != model.entries || was.groups != model.groups);
                }
                8 => {
                    let bound = if number % 2 == 0 { Trim::MaxLen(number % 13) } else { Trim::MinId(id(number)) };
                    let limit = if whole { number % 3 * 7 } else { 0 };
                    trim(&mut stream, &mut model, bound, whole, limit, policy);
                }
                _ => frozen.push((stream.clone(), model.clone())),
            }
        }
        frozen.push((stream, model));
        frozen.iter().for_each(|(stream, model)| same(stream, model));
    }
}

#[test]
fn trimming_what_is_acknowledged_leaves_gaps_and_no_empty_block() {
    let limits = Limits { stream_node_max_entries: 2, ..Limits::defaults(HashSeed(*b"a seed for tests")) };
    let mut stream = Stream::new();
    for ms in 1..=9 {
        assert!(stream.append(id(ms), [&b"a"[..], b"1"].into_iter(), &limits));
    }
    stream.add_group(b"g", id(0), Some(0));
    stream.deliver(b"g", b"c", Some(7), 1, true);
    stream.edit_group(b"g", |group| [1, 2, 4, 5, 6].iter().filter(|ms| group.acknowledge(id(**ms))).count());
    // Blocks of 1 2, 3 4, 5 6, 7 8 and 9: of the second one goes, of the fourth none.
    assert_eq!(stream.trim_acked(Trim::MaxLen(0), 0), (5, Some(id(6))));
    assert_eq!((stream.len(), stream.blocks_len()), (4, 3));
    assert_eq!(stream.max_deleted_id(), StreamId::MIN);
    assert_eq!(stream.group(b"g").and_then(|group| stream.lag(group)), Some(2));
    stream.check_invariants();
}

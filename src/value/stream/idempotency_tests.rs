//! Tests of what makes XADD idempotent, against a plain list.

use proptest::prelude::*;

use super::*;
use crate::value::stream::Stream;

/// A plain model: the ids, the oldest first.
#[derive(Clone, Debug, Default)]
struct Model(Vec<(Vec<u8>, Vec<u8>, StreamId, i64)>);

impl Model {
    fn remember(&mut self, known: Known<'_>, window: Window) {
        let over = self.0.iter().take(FORGOTTEN_MAX).take_while(|one| window.is_over(one.3, known.at)).count();
        self.0.drain(..over);
        self.0.retain(|(producer, iid, ..)| (&producer[..], &iid[..]) != (known.producer, known.iid));
        let own = self.0.iter().filter(|one| one.0 == known.producer).count();
        if own == window.ids_max as usize {
            let oldest = self.0.iter().position(|one| one.0 == known.producer).expect("it has some");
            self.0.remove(oldest);
        }
        self.0.push((known.producer.to_vec(), known.iid.to_vec(), known.entry, known.at));
    }

    fn find(&self, producer: &[u8], iid: &[u8], now: i64, window: Window) -> Option<StreamId> {
        let found = self.0.iter().find(|(its, id, ..)| (&its[..], &id[..]) == (producer, iid))?;
        (!window.is_over(found.3, now)).then_some(found.2)
    }
}

fn same(its: &Idempotency, model: &Model) {
    its.check_invariants();
    let all: Vec<_> = its.iter().map(|one| (one.producer.to_vec(), one.iid.to_vec(), one.entry, one.at)).collect();
    assert_eq!(all, model.0);
}

/// The same through its bytes.
fn again(its: &Idempotency) -> Idempotency {
    let mut stream = Stream::new();
    stream.set_idempotency(its.clone());
    let mut bytes = Vec::new();
    stream.encode(&mut bytes, &mut |_| ());
    assert!(Stream::decode(&bytes, false).is_none(), "it has parts");
    for cut in 0..bytes.len() {
        assert!(Stream::decode(&bytes[..cut], true).is_none(), "{cut}");
    }
    let twice = [&bytes[..], &bytes[bytes.len() - 5..]].concat();
    assert!(Stream::decode(&twice, true).is_none());
    let read = Stream::decode(&bytes, true).expect("what was encoded");
    let (mut one, mut other) = (Vec::new(), Vec::new());
    stream.canonical(&mut one);
    read.canonical(&mut other);
    assert_eq!(one, other);
    read.idempotency().expect("a part").clone()
}

proptest! {
    #[test]
    fn it_remembers_what_a_plain_list_does(
        edits in prop::collection::vec((0u8..4, 0u8..6, 0i64..900, any::<bool>()), 1..200),
        ids_max in 1u32..6,
    ) {
        let window = Window { seconds: 1, ids_max };
        let (mut its, mut model, mut now) = (Idempotency::new(window), Model::default(), 1_000_000);
        let (mut frozen, mut added) = (Vec::new(), 0);
        for (number, (producer, iid, ms, jumps)) in edits.into_iter().enumerate() {
            now += if jumps { -ms * 3 } else { ms / 4 };
            let (producer, iid) = (&[b'p', producer][..1 + usize::from(producer > 0)], &[iid][..]);
            prop_assert_eq!(its.find(producer, iid, now), model.find(producer, iid, now, window));
            if its.find(producer, iid, now).is_some() {
                its.count_duplicate();
                continue;
            }
            let known = Known { producer, iid, entry: StreamId::new(number as u64, 7), at: now };
            its.remember(known, its.over(now));
            model.remember(known, window);
            added += 1;
            if number % 16 == 0 {
                frozen.push((its.clone(), model.clone()));
            }
        }
        prop_assert_eq!(its.added(), added);
        frozen.push((its, model));
        for (its, model) in frozen {
            same(&its, &model);
            let read = again(&its);
            same(&read, &model);
            prop_assert_eq!((read.window(), read.added(), read.duplicates()), (window, its.added(), its.duplicates()));
            prop_assert_eq!(read.tracked(now), its.tracked(now));
        }
    }
}

#[test]
fn producers_and_ids_are_counted_while_they_are_remembered() {
    let mut its = Idempotency::new(Window { seconds: 10, ids_max: 2 });
    for (producer, iid, at) in [(&b"p"[..], 1u8, 0), (b"q", 1, 4000), (b"p", 2, 5000), (b"p", 3, 6000)] {
        its.remember(Known { producer, iid: &[iid], entry: StreamId::new(1, 1), at }, 0);
    }
    assert_eq!(its.tracked(9999), (2, 3), "the first of p had to go");
    assert_eq!(its.tracked(14_000), (1, 2));
    assert_eq!(its.tracked(15_999), (1, 1));
    assert_eq!(its.tracked(16_000), (0, 0));
    assert_eq!((its.over(14_000), its.over(13_999), its.len()), (1, 0, 3));
    // The clock has been set back by more than the window.
    assert_eq!(its.find(b"p", &[3], -4000), Some(StreamId::new(1, 1)));
    assert_eq!(its.find(b"p", &[3], -4001), None);
    let empty = its.bytes();
    assert!(!its.set_window(Window { seconds: 10, ids_max: 2 }) && its.len() == 3);
    assert!(its.set_window(Window { seconds: 10, ids_max: 3 }) && its.is_empty());
    assert_eq!((its.added(), its.duplicates()), (4, 0));
    assert!(its.bytes() < empty);
}

#[test]
fn a_long_id_counts_as_memory() {
    let mut its = Idempotency::new(Window::DEFAULT);
    its.remember(Known { producer: &[1; 10_000], iid: &[2; 50_000], entry: StreamId::MIN, at: 0 }, 0);
    assert!(its.bytes() > 70_000, "{}", its.bytes());
}

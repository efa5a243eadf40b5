//! Any bytes as a listpack and as an intset: they are refused, or every reader agrees with reading forwards and edits
//! leave valid bytes. The first byte chooses the edit and its place.
#![no_main]

use ironkeep::value::intset::{Intset, IntsetBuf};
use ironkeep::value::listpack::{Item, Listpack, ListpackBuf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    if let Some(list) = Listpack::parse(bytes) {
        read_listpack(list);
        edit_listpack(list, *choice);
    }
    if let Some(set) = Intset::parse(bytes) {
        edit_intset(set, *choice);
    }
});

fn read_listpack(list: Listpack<'_>) {
    let items: Vec<Item<'_>> = list.iter().collect();
    assert_eq!(list.len(), items.len());
    assert!(list.iter().rev().eq(items.iter().rev().copied()));
    assert_eq!(list.pairs().count(), items.len() / 2);
    let mut pos = list.first();
    for (index, item) in items.iter().enumerate() {
        let at = pos.expect("as many positions as elements");
        assert_eq!(list.get_at(at), *item);
        assert_eq!(list.next(at).and_then(|next| list.prev(next)).unwrap_or(at), at);
        let (mut text, index) = (Vec::new(), index as i64);
        item.write_to(&mut text);
        assert_eq!((text.len(), item.is(&text)), (item.text_len(), true));
        assert_eq!(
            (item.to_i64().is_some(), item.cmp_text(&text)),
            (Item::from(&text).to_i64().is_some(), std::cmp::Ordering::Equal)
        );
        let _ = item.to_f64();
        // Walking from either end is slow for each of many elements.
        if index < 32 {
            assert_eq!((list.seek(index), list.seek(index - items.len() as i64)), (Some(at), Some(at)));
            assert_eq!(list.find(&text, at, 0), Some(at));
        }
        pos = list.next(at);
    }
    assert_eq!((pos, list.seek(items.len() as i64)), (None, None));
}

fn edit_listpack(list: Listpack<'_>, choice: u8) {
    let mut own = ListpackBuf::from(list);
    let len = list.len();
    let place = list.seek(i64::from(choice >> 3));
    match (choice & 7, place) {
        (0, _) => own.push_back(b"back"),
        (1, _) => own.push_front(&[b'x'; 200]),
        (2, Some(pos)) => assert!(own.insert_before(pos, i64::MIN) == pos),
        (3, Some(pos)) => assert!(own.insert_after(pos, b"007") > pos),
        (4, Some(pos)) => own.replace(pos, b""),
        (5, Some(pos)) => drop(own.remove(pos, 2)),
        (6, Some(pos)) => {
            let tail = own.split_off(pos);
            own.check_invariants();
            tail.check_invariants();
            own.append(tail.as_listpack());
            assert_eq!(own.len(), len);
        }
        _ => drop(own.retain(1 + usize::from(choice >> 7), |item| item.text_len() % 2 == 0)),
    }
    own.check_invariants();
    read_listpack(own.as_listpack());
}

fn edit_intset(set: Intset<'_>, choice: u8) {
    let mut own = IntsetBuf::from(set);
    let values: Vec<i64> = set.iter().collect();
    assert!(set.iter().rev().eq(values.iter().rev().copied()));
    assert_eq!((set.min(), set.max()), (values.first().copied(), values.last().copied()));
    assert!(values.iter().enumerate().all(|(index, value)| set.search(*value) == Ok(index)));
    let value = [i64::MIN, i64::MAX, -40_000, 70_000, 0, 7, -1, 1][usize::from(choice & 7)];
    assert_eq!(own.insert(value), !values.contains(&value));
    own.check_invariants();
    assert!(own.contains(value));
    assert_eq!(own.remove_at(usize::from(choice >> 3)), own_value(set, value, usize::from(choice >> 3)));
    own.check_invariants();
}

/// The integer of an index once a value is in the set.
fn own_value(set: Intset<'_>, added: i64, index: usize) -> Option<i64> {
    let mut values: Vec<i64> = set.iter().chain([added]).collect();
    values.sort_unstable();
    values.dedup();
    values.get(index).copied()
}

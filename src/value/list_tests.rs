//! Tests of lists against a vector, in both forms, and of the rules by which the forms change.

use proptest::prelude::*;

use super::*;
use crate::base::hash::HashSeed;

fn limits() -> Limits {
    Limits { list_max_listpack_size: 4, ..Limits::defaults(HashSeed([3; 16])) }
}

fn unbounded() -> Limits {
    Limits { list_max_listpack_size: -5, ..limits() }
}

/// Stores what an edit has come to, and takes it up again.
fn through_store(list: ListMut<'_>) -> ListMut<'static> {
    let limits = list.limits;
    let stored = match AnyList::finish(list) {
        Finished::Empty => Stored::Missing(Vec::new()),
        Finished::Packed(packing, bytes) => {
            let read = decode_packed(&bytes, &unbounded());
            assert!(matches!(read, Ok(NewValue::Packed(Packing::List, same)) if same == bytes));
            Stored::Packed(packing, bytes)
        }
        Finished::Large(Heap::List(list)) => {
            list.check_invariants();
            let mut bytes = Vec::new();
            list.encode(&mut bytes, &mut |_| ());
            return ListMut::of(Form::Fresh(List::decode(&bytes, &limits).expect("what was encoded")), &limits);
        }
        other => panic!("{other:?}"),
    };
    AnyList::edit(stored, &limits).expect("a list")
}

#[derive(Clone, Debug)]
enum Edit {
    Push(Vec<u8>, bool),
    Pop(bool),
    Insert(usize, Vec<u8>),
    Set(usize, Vec<u8>),
    Remove(usize, usize),
    RemoveEqual(Vec<u8>, usize, bool),
    Store,
}

fn end(left: bool) -> End {
    if left { End::Left } else { End::Right }
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (0i16..4).prop_map(|number| number.to_string().into_bytes()),
        2 => any::<i16>().prop_map(|number| number.to_string().into_bytes()),
        4 => prop::collection::vec(any::<u8>(), 0..10),
        1 => (2000usize..12_000).prop_map(|len| vec![b'x'; len]),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => (element(), any::<bool>()).prop_map(|(e, left)| Edit::Push(e, left)),
        2 => any::<bool>().prop_map(Edit::Pop),
        2 => (any::<usize>(), element()).prop_map(|(at, e)| Edit::Insert(at, e)),
        2 => (any::<usize>(), element()).prop_map(|(at, e)| Edit::Set(at, e)),
        1 => (any::<usize>(), 0usize..8).prop_map(|(at, len)| Edit::Remove(at, len)),
        1 => (element(), 0usize..6, any::<bool>()).prop_map(|(e, most, left)| Edit::RemoveEqual(e, most, left)),
        1 => Just(Edit::Store),
    ]
}

fn remove_from_model(model: &mut Vec<Vec<u8>>, element: &[u8], most: usize, left: bool) -> usize {
    let mut found: Vec<usize> = (0..model.len()).filter(|&at| model[at] == element).collect();
    if !left {
        found.reverse();
    }
    found.truncate(most);
    found.sort_unstable();
    found.iter().rev().for_each(|&at| drop(model.remove(at)));
    found.len()
}

proptest! {
    #[test]
    fn it_does_what_a_vector_does(edits in prop::collection::vec(edit(), 1..120)) {
        let (mut list, mut model) = (ListMut::new(&limits()), Vec::<Vec<u8>>::new());
        let mut frozen = Vec::new();
        for edit in edits {
            match edit {
                Edit::Push(element, left) => {
                    list.expect(1, element.len());
                    list.push(&element, end(left));
                    model.insert(if left { 0 } else { model.len() }, element);
                }
                Edit::Pop(left) => {
                    let popped = list.pop(end(left), |item| item.to_vec());
                    let expected = match left {
                        true if !model.is_empty() => Some(model.remove(0)),
                        _ => model.pop(),
                    };
                    prop_assert_eq!(popped, expected);
                }
                Edit::Insert(at, element) => {
                    let at = at % (model.len() + 1);
                    list.insert(at, &element);
                    model.insert(at, element);
                }
                Edit::Set(at, element) if !model.is_empty() => {
                    let at = at % model.len();
                    list.set(at, &element);
                    model[at] = element;
                }
                Edit::Set(..) => {}
                Edit::Remove(at, len) => {
                    let from = at % (model.len() + 1);
                    let to = (from + len).min(model.len());
                    list.remove_range(from..to);
                    model.drain(from..to);
                }
                Edit::RemoveEqual(element, most, left) => {
                    let removed = list.remove_equal(&element, most, if left { End::Left } else { End::Right });
                    prop_assert_eq!(removed, remove_from_model(&mut model, &element, most, left));
                }
                Edit::Store => {
                    list = through_store(list);
                    if let Form::Fresh(large) = &list.form {
                        frozen.push((large.clone(), model.clone()));
                    }
                }
            }
            prop_assert_eq!(list.view().len(), model.len());
        }
        let all = |list: ListRef<'_>| list.iter().map(Item::to_vec).collect::<Vec<_>>();
        prop_assert_eq!(all(list.view()), model.clone());
        for at in 0..model.len() {
            prop_assert_eq!(list.view().get(at).map(Item::to_vec), Some(model[at].clone()));
            let left: Vec<Vec<u8>> = list.view().iter_from(at, End::Left).map(Item::to_vec).collect();
            prop_assert_eq!(left, model[..=at].iter().rev().cloned().collect::<Vec<_>>());
            let right: Vec<Vec<u8>> = list.view().iter_from(at, End::Right).map(Item::to_vec).collect();
            prop_assert_eq!(&right, &model[at..]);
        }
        for (large, model) in frozen {
            prop_assert_eq!(all(ListRef::Large(&large)), model);
        }
    }

    #[test]
    fn any_bytes_end_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some(list) = List::decode(&bytes, &limits()) {
            list.check_invariants();
        }
        let _ = decode_packed(&bytes, &limits());
    }
}

#[test]
fn a_large_list_takes_little_more_than_its_elements() {
    let mut list = List::default();
    for number in 0..200_000 {
        list.push(Item::Str(format!("element:{number:012}").as_bytes()), End::Right);
    }
    list.check_invariants();
    // A head byte, 20 bytes, a back length.
    let bytes = list.bytes() as f64 / (200_000.0 * 22.0);
    assert!(bytes < 1.02, "{bytes}");
}

/// Edits a stored list and stores it again.
fn edited(value: Finished, limits: &Limits, edit: impl FnOnce(&mut ListMut<'_>)) -> Finished {
    match value {
        Finished::Large(Heap::List(mut list)) => {
            let place = HeapMut::List(triomphe::Arc::get_mut(&mut list).expect("one owner"));
            let mut large = AnyList::edit(Stored::Large(place), limits).expect("a list");
            edit(&mut large);
            match AnyList::finish(large) {
                Finished::InPlace => Finished::Large(Heap::List(list)),
                other => other,
            }
        }
        Finished::Packed(packing, bytes) => {
            let mut small = AnyList::edit(Stored::Packed(packing, bytes), limits).expect("a list");
            edit(&mut small);
            AnyList::finish(small)
        }
        other => panic!("{other:?}"),
    }
}

fn pushed(texts: &[&[u8]], limits: &Limits) -> Finished {
    let mut list = ListMut::new(limits);
    list.expect(texts.len(), texts.iter().map(|text| text.len()).sum());
    texts.iter().for_each(|text| list.push(text, End::Right));
    AnyList::finish(list)
}

fn is_large(value: &Finished) -> bool {
    matches!(value, Finished::Large(_))
}

#[test]
fn a_list_grows_by_what_is_announced_and_shrinks_by_half() {
    let four = limits();
    let large = pushed(&[b"a", b"b", b"c", b"d", b"e"], &four);
    assert!(is_large(&large), "five of four");
    let large = edited(large, &four, |list| list.remove_range(0..2));
    assert!(is_large(&large), "three are more than half of four");
    let small = edited(large, &four, |list| {
        list.pop(End::Left, |_| ());
    });
    assert!(!is_large(&small), "two are half of four");

    let full = pushed(&[b"a", b"b", b"c", b"d"], &four);
    assert!(!is_large(&full));
    let replaced = edited(full, &four, |list| {
        list.expect(1, 1);
        list.set(0, b"z");
    });
    assert!(is_large(&replaced), "as in Redis, a replacement is announced as one more");
}

#[test]
fn the_limit_in_bytes_counts_texts_and_not_what_packs_them() {
    let eight_kb = Limits { list_max_listpack_size: -2, ..limits() };
    let text = [b'x'; 80];
    assert!(!is_large(&pushed(&[&text[..]; 102], &eight_kb)), "102 × 80 + 7 bytes are no more than 8192");
    assert!(is_large(&pushed(&[&text[..]; 103], &eight_kb)));
    assert!(!is_large(&pushed(&[&[b'x'; 8185]], &eight_kb)));
    assert!(is_large(&pushed(&[&[b'x'; 8186]], &eight_kb)));
    // A large element replaced by a small one leaves a small list.
    let large = pushed(&[&[b'x'; 9000]], &eight_kb);
    assert!(!is_large(&edited(large, &eight_kb, |list| list.set(0, b"small"))));
}

#[test]
fn a_small_list_from_outside_takes_the_form_that_fits() {
    let Finished::Packed(_, bytes) = pushed(&[b"a", b"b", b"c", b"d", b"e"], &unbounded()) else { panic!("small") };
    assert!(matches!(decode_packed(&bytes, &limits()), Ok(NewValue::Heap(Heap::List(list))) if list.len() == 5));
    assert!(decode_packed(Listpack::EMPTY.as_bytes(), &limits()).is_err());
}

#[test]
fn many_tiny_leaves_are_read_as_few() {
    let mut one = ListpackBuf::new();
    one.push_back(b"x");
    let mut bytes = Vec::new();
    for _ in 0..5000 {
        put_varint(&mut bytes, one.encoded_len() as u64);
        bytes.extend_from_slice(one.as_bytes());
    }
    let list = List::decode(&bytes, &limits()).expect("a list");
    list.check_invariants();
    assert_eq!(list.len(), 5000);
    assert!(list.bytes() < bytes.len(), "{}", list.bytes());
}

#[test]
fn an_edit_after_a_clone_copies_one_path() {
    let mut list = List::default();
    (0..100_000).for_each(|number| list.push(Item::Int(number), End::Right));
    let frozen = list.clone();
    let mut edit = ListMut::of(Form::Large(&mut list), &unbounded());
    assert_eq!(edit.remove_equal(b"50000", 1, End::Left), 1);
    let shared = list.chunks.leaves().zip(frozen.chunks.leaves()).filter(|(one, two)| std::ptr::eq(*one, *two)).count();
    assert!(shared + 1 >= frozen.chunks.leaves().count(), "{shared} leaves are shared");
    assert_eq!((list.len(), frozen.len()), (99_999, 100_000));
}

#[test]
fn whoever_pushes_leaves_full_leaves_behind() {
    for end in [End::Left, End::Right] {
        let mut list = List::default();
        for number in 0..20_000 {
            list.push(Item::Str(format!("element:{number:010}").as_bytes()), end);
        }
        list.check_invariants();
        let bytes: Vec<usize> = list.chunks.leaves().map(|chunk| chunk.bytes()).collect();
        let (growing, full) = match end {
            End::Left => bytes.split_first(),
            End::Right => bytes.split_last(),
        }
        .expect("there are leaves");
        assert!(*growing <= LEAF_BYTES_MAX);
        assert!(full.len() > LEAVES_OF_A_LONG_LIST);
        assert!(full.iter().all(|bytes| (LEAF_BYTES_MAX - 20..=LEAF_BYTES_MAX).contains(bytes)), "{bytes:?}");
    }
}

#[test]
fn an_element_longer_than_a_leaf_has_one_of_its_own() {
    let long = vec![b'x'; 3 * LEAF_BYTES_MAX];
    for end in [End::Left, End::Right] {
        let mut list = List::default();
        for element in [&b"a"[..], &long, b"b", &long, &long, b"c"] {
            list.push(Item::Str(element), end);
        }
        list.check_invariants();
        assert_eq!(list.len(), 6);
        assert_eq!(list.chunks.leaves().count(), 6);
    }
}

#[test]
fn leaves_that_long_elements_leave_half_empty_keep_no_room() {
    let sizes = [[5000, 5000, 5000], [20, 9000, 20], [9000, 9000, 9000]];
    for (end, sizes) in [End::Left, End::Right].into_iter().flat_map(|end| sizes.map(|sizes| (end, sizes))) {
        let mut list = List::default();
        for number in 0..300 {
            list.push(Item::Str(&vec![b'x'; sizes[number % 3]]), end);
        }
        let room = list.chunks.leaves().map(|chunk| chunk.0.capacity()).sum::<usize>();
        let used = list.chunks.leaves().map(|chunk| chunk.bytes()).sum::<usize>();
        assert!(room <= used * 9 / 8 + LEAF_BYTES_MAX, "{sizes:?}: {room} bytes for {used}");
    }
}

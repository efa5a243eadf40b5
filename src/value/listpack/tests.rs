//! Tests of the listpack against bytes that Redis 7.0.15 wrote, a `Vec` of texts, and arbitrary bytes.

use super::*;
use proptest::prelude::*;
use std::cmp::Ordering;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn build(items: &[&[u8]]) -> ListpackBuf {
    let mut list = ListpackBuf::new();
    list.extend(items.iter().copied());
    list
}

/// Texts around every change of form, and some that only look like integers.
const EDGES: &[&str] = &[
    "0",
    "127",
    "128",
    "-1",
    "4095",
    "4096",
    "-4096",
    "-4097",
    "32767",
    "32768",
    "-32768",
    "-32769",
    "8388607",
    "8388608",
    "-8388608",
    "-8388609",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "+1",
    "-0",
    "01",
    "1.0",
    " 1",
    "-",
    "",
    "00",
    "a",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// What DUMP gave for a hash of [`EDGES`], fields and values in that order.
const EDGES_RECORDED: &str = "08010000220000017f01c08002dfff02cfff02f1001003d00002f1ffef03f1ff7f03f200800004f1008003f2ff7fff04f2ffff7f\
    04f30000800005f200008004f3ffff7fff05f3ffffff7f05f4000000800000000009f30000008005f4ffffff7fffffffff09f4ff\
    ffffffffffff7f09f4000000000000008009933932323333373230333638353437373538303814942d3932323333373230333638\
    353437373538303915822b3103822d30038230310383312e300482203103812d02800182303003816102bf787878787878787878\
    78787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878\
    787840ff";

#[test]
fn every_form_is_that_of_redis() {
    let recorded = bytes(EDGES_RECORDED);
    let edges: Vec<&[u8]> = EDGES.iter().map(|text| text.as_bytes()).collect();
    let list = build(&edges);
    assert_eq!(list.as_bytes(), recorded);
    let parsed = Listpack::parse(&recorded).expect("Redis wrote it");
    assert!(parsed.iter().map(Item::to_vec).eq(edges.iter().map(|text| text.to_vec())));
    let mut backwards = ListpackBuf::new();
    edges.iter().rev().for_each(|text| backwards.push_front(*text));
    assert_eq!(backwards, list);
}

#[test]
fn long_strings_have_the_heads_and_back_lengths_of_redis() {
    // The length of the value in a hash `f` → `y…`, and what DUMP had before and after it.
    for (len, before, after) in [
        (63, "4b0000000200816602bf", "40ff"),
        (64, "4d0000000200816602e040", "42ff"),
        (125, "8a0000000200816602e07d", "7fff"),
        (126, "8c0000000200816602e07e", "0180ff"),
        (4095, "0d1000000200816602efff", "2081ff"),
        (4096, "111000000200816602f000100000", "2085ff"),
        (16_377, "0a4000000200816602f0f93f0000", "7ffeff"),
        (16_378, "0c4000000200816602f0fa3f0000", "00ffffff"),
        (16_379, "0d4000000200816602f0fb3f0000", "018080ff"),
        (2_097_145, "0b0020000200816602f0f9ff1f00", "7ffffeff"),
        (2_097_146, "0d0020000200816602f0faff1f00", "00ffffffff"),
    ] {
        let value = vec![b'y'; len];
        let list = build(&[b"f", &value]);
        let recorded = [bytes(before), value.clone(), bytes(after)].concat();
        assert!(list.as_bytes() == recorded, "{len}");
        let parsed = Listpack::parse(&recorded).expect("Redis wrote it");
        assert!(parsed.get(-1) == Some(Item::Str(&value)), "{len}");
        assert_eq!(item_size(&value), list.encoded_len() - EMPTY.len() - item_size(b"f"));
    }
}

#[test]
fn edits_leave_the_bytes_that_redis_leaves() {
    // HSET h a 1 b two c 300 d x…; HSET h b -70000; HDEL h a; HSET h d 9; HSET h e "".
    let mut list = build(&[b"a", b"1", b"b", b"two", b"c", b"300", b"d", &[b'x'; 200]]);
    let value_of = |list: &ListpackBuf, field: &[u8]| {
        let view = list.as_listpack();
        view.find(field, view.first().expect("not empty"), 1).and_then(|pos| view.next(pos)).expect("a field")
    };
    list.replace(value_of(&list, b"b"), b"-70000");
    let first = list.as_listpack().first().expect("not empty");
    assert_eq!(list.remove(first, 2), Some(first));
    list.replace(value_of(&list, b"d"), 9);
    list.extend([b"e" as &[u8], b""]);
    assert_eq!(list.as_bytes(), bytes("1f0000000800816202f290eefe04816302c12c0281640209018165028001ff"));

    // RPUSH l 1 a -1 200.
    let list = build(&[b"1", b"a", b"-1", b"200"]);
    assert_eq!(list.as_bytes(), bytes("1200000004000101816102dfff02c0c802ff"));
    // ZADD z 1.5 a -inf b 3 c 1e300 7 0.1 e: scores are texts, unless they are integers.
    let recorded = bytes(
        "500000000a00816202842d696e660581650293302e31303030303030303030303030303030311481610283312e35048163020301070197\
         312e30303030303030303030303030303030652b33303018ff",
    );
    let sorted = Listpack::parse(&recorded).expect("Redis wrote it");
    let scores: Vec<_> = sorted.pairs().map(|(member, score)| (member.to_vec(), score.to_f64())).collect();
    let wanted = [("b", f64::NEG_INFINITY), ("e", 0.1), ("a", 1.5), ("c", 3.0), ("7", 1e300)];
    assert_eq!(scores, wanted.map(|(member, score)| (member.as_bytes().to_vec(), Some(score))));
    let mut anew = ListpackBuf::new();
    anew.extend(sorted);
    assert_eq!(anew.as_bytes(), recorded);
}

#[test]
fn many_elements_leave_the_count_unknown() {
    let mut list = ListpackBuf::new();
    let count = |list: &ListpackBuf| u16::from_le_bytes([list.as_bytes()[4], list.as_bytes()[5]]);
    list.extend(0..65_534);
    assert_eq!((count(&list), list.len()), (65_534, 65_534));
    list.push_back(b"one more");
    assert_eq!((count(&list), list.len()), (COUNT_UNKNOWN, 65_535));
    let view = list.as_listpack();
    assert_eq!((view.get(65_534), view.get(65_535)), (Some(Item::Str(b"one more")), None));
    assert_eq!((view.get(-65_535), view.get(-65_536)), (Some(Item::Int(0)), None));
    list.check_invariants();
    let first = list.as_listpack().first().expect("not empty");
    list.remove(first, 65_000);
    assert_eq!((count(&list), list.len()), (COUNT_UNKNOWN, 535));
    list.check_invariants();
    let mut both = build(&[b"x"]);
    both.append(list.as_listpack());
    assert_eq!((count(&both), both.len()), (536, 536));
}

#[test]
fn damaged_bytes_are_refused() {
    let good = bytes("1200000004000101816102dfff02c0c802ff");
    assert!(Listpack::parse(&good).is_some());
    for cut in 0..good.len() {
        assert_eq!(Listpack::parse(&good[..cut]), None);
    }
    for bad in [
        "070000000100ff",               // A count without its element.
        "0900000000000101ff",           // An element that is not counted.
        "0900000001000102ff",           // A back length that is wrong.
        "0a000000010001ff01ff",         // The end mark among the elements.
        "09000000010083ff01",           // No end mark.
        "0a0000000100f0ffffff",         // A length that is cut off.
        "0e0000000100f0ffffffff0505ff", // A string that leaves the bytes.
        "0900000001008101ff",           // A string that would hold the end mark.
        "0a000000010001018101ff",       // A second byte in the back length.
        "080000000100f5ff",             // A head that means nothing.
        "06000000ff00",
    ] {
        assert_eq!(Listpack::parse(&bytes(bad)), None, "{bad}");
    }
    assert_eq!(Listpack::parse(Listpack::EMPTY.as_bytes()), Some(Listpack::EMPTY));
}

#[test]
fn longer_forms_from_outside_mean_the_same() {
    // 5 as an integer of 8 bytes, and as a string of 32-bit length.
    let odd = bytes("1a0000000200f4050000000000000009f0010000003506ff");
    let odd = [&(odd.len() as u32).to_le_bytes(), &odd[4..]].concat();
    let list = Listpack::parse(&odd).expect("Redis takes it");
    assert!(list.iter().all(|item| item == Item::Int(5) && item.is(b"5") && !item.is(b"05")));
    let first = list.first().expect("not empty");
    assert_eq!(list.find(b"5", first, 0), Some(first));
    assert_eq!(list.find(b"5", list.next(first).expect("two"), 0), list.last());
}

#[test]
fn items_speak_as_texts_and_as_numbers() {
    let mut out = b"=".to_vec();
    Item::Int(-12).write_to(&mut out);
    Item::Str(b"ab").write_to(&mut out);
    assert_eq!(out, b"=-12ab");
    assert_eq!((Item::Int(-12).text_len(), Item::Str(b"ab").text_len()), (3, 2));
    assert_eq!((Item::Int(7).to_i64(), Item::Str(b"7").to_i64(), Item::Str(b"x").to_i64()), (Some(7), Some(7), None));
    assert_eq!((Item::Int(7).to_f64(), Item::Str(b"-inf").to_f64()), (Some(7.0), Some(f64::NEG_INFINITY)));
    assert_eq!(Item::Str(b"nan").to_f64(), None);
    assert_eq!((Item::Int(10).cmp_text(b"9"), Item::Int(10).cmp_text(b"10")), (Ordering::Less, Ordering::Equal));
    assert_ne!(Item::Int(1), Item::Str(b"01"));
}

/// Calls every reader. Each must agree with the list as it is read forwards.
fn read_all(list: Listpack<'_>) {
    let items: Vec<Item<'_>> = list.iter().collect();
    assert_eq!(list.len(), items.len());
    assert_eq!(list.is_empty(), items.is_empty());
    assert!(list.iter().rev().eq(items.iter().rev().copied()));
    assert!(list.pairs().eq(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))));
    let (mut pos, mut positions) = (list.first(), Vec::new());
    while let Some(at) = pos {
        positions.push(at);
        assert_eq!(list.get_at(at), items[positions.len() - 1]);
        pos = list.next(at);
    }
    assert_eq!(positions.len(), items.len());
    assert_eq!(positions.last().copied(), list.last());
    let len = items.len() as i64;
    for (index, at) in positions.iter().enumerate() {
        assert_eq!(list.prev(*at), index.checked_sub(1).map(|index| positions[index]));
        assert_eq!(list.seek(index as i64), Some(*at));
        assert_eq!(list.seek(index as i64 - len), Some(*at));
        for skip in 0..3 {
            let candidates = (0..=index).rev().step_by(skip + 1);
            let (from, text) = (candidates.clone().last().expect("itself"), items[index].to_vec());
            let wanted = candidates.filter(|index| items[*index] == Item::Str(&text)).min();
            assert_eq!(list.find(&text, positions[from], skip), wanted.map(|index| positions[index]));
        }
    }
    assert_eq!(
        (list.seek(len), list.seek(-len - 1), list.seek(i64::MIN), list.seek(i64::MAX)),
        (None, None, None, None)
    );
}

/// Reads bytes that are not a listpack. Any answer is allowed, but every reader must end.
fn read_garbage(list: Listpack<'_>) {
    let (mut forwards, mut backwards) = (list.iter(), list.iter());
    while let (Some(pos), Some(item)) = (forwards.front_pos(), forwards.next()) {
        let _ = (list.get_at(pos), list.next(pos), list.prev(pos), item.text_len(), list.find(b"1", pos, 1));
    }
    while backwards.next_back().is_some() {}
    let _ = (list.len(), list.is_empty(), list.first(), list.last(), list.get(3), list.get(-3), list.pairs().count());
}

#[derive(Clone, Debug)]
enum Edit {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    InsertBefore(usize, Vec<u8>),
    InsertAfter(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    SplitAndAppend(usize),
    Retain(usize, u8),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        4 => (-140..140_i64).prop_map(|number| number.to_string().into_bytes()),
        4 => prop::sample::select(EDGES).prop_map(|text| text.as_bytes().to_vec()),
        4 => prop::collection::vec(any::<u8>(), 0..80),
        1 => (prop::sample::select(vec![64_usize, 126, 4095, 4096, 16_377]), 0..4_usize)
            .prop_map(|(len, more)| vec![b'y'; len + more]),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        3 => text().prop_map(Edit::PushBack),
        2 => text().prop_map(Edit::PushFront),
        2 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::InsertBefore(at, text)),
        2 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::InsertAfter(at, text)),
        3 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::Replace(at, text)),
        2 => (any::<usize>(), 0..4_usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        1 => any::<usize>().prop_map(Edit::SplitAndAppend),
        1 => (1..4_usize, any::<u8>()).prop_map(|(group, byte)| Edit::Retain(group, byte)),
    ]
}

/// Does the same to the listpack and to the model.
fn apply(list: &mut ListpackBuf, model: &mut Vec<Vec<u8>>, edit: Edit) {
    // Edits at a place leave an empty list as it is.
    let place = |list: &ListpackBuf, at: usize| {
        let index = at.checked_rem(list.len())?;
        Some((index, list.as_listpack().seek(index as i64).expect("inside")))
    };
    match edit {
        Edit::PushBack(text) => {
            list.push_back(&text);
            model.push(text);
        }
        Edit::PushFront(text) => {
            list.push_front(&text);
            model.insert(0, text);
        }
        Edit::InsertBefore(at, text) => {
            let Some((index, pos)) = place(list, at) else { return };
            let new = list.insert_before(pos, &text);
            assert!(list.as_listpack().get_at(new).is(&text));
            model.insert(index, text);
        }
        Edit::InsertAfter(at, text) => {
            let Some((index, pos)) = place(list, at) else { return };
            let new = list.insert_after(pos, &text);
            assert!(list.as_listpack().get_at(new).is(&text));
            model.insert(index + 1, text);
        }
        Edit::Replace(at, text) => {
            let Some((index, pos)) = place(list, at) else { return };
            list.replace(pos, &text);
            model[index] = text;
        }
        Edit::Remove(at, count) => {
            let Some((index, pos)) = place(list, at) else { return };
            let next = list.remove(pos, count);
            model.drain(index..(index + count).min(model.len()));
            assert_eq!(next, (index < model.len()).then_some(pos));
        }
        Edit::SplitAndAppend(at) => {
            let Some((index, pos)) = place(list, at) else { return };
            let tail = list.split_off(pos);
            list.check_invariants();
            tail.check_invariants();
            assert_eq!((list.len(), tail.len()), (index, model.len() - index));
            list.append(tail.as_listpack());
        }
        Edit::Retain(group, byte) => {
            let keep = |text: &[u8]| text.last().is_none_or(|last| last & 7 != byte & 7);
            let kept: Vec<&[Vec<u8>]> = model.chunks(group).filter(|group| keep(&group[0])).collect();
            let removed = model.chunks(group).count() - kept.len();
            let kept = kept.concat();
            assert_eq!(list.retain(group, |item| keep(&item.to_vec())), removed);
            *model = kept;
        }
    }
}

proptest! {
    #[test]
    fn edits_agree_with_a_vector_of_texts(edits in prop::collection::vec(edit(), 0..40)) {
        let (mut list, mut model) = (ListpackBuf::new(), Vec::new());
        for edit in edits {
            apply(&mut list, &mut model, edit);
            list.check_invariants();
            prop_assert!(list.as_listpack().iter().map(Item::to_vec).eq(model.iter().cloned()));
        }
        read_all(list.as_listpack());
        // Edits leave no trace: the same texts, pushed into a new list, give the same bytes.
        let anew = build(&model.iter().map(Vec::as_slice).collect::<Vec<_>>());
        prop_assert_eq!(anew.as_bytes(), list.as_bytes());
        let sizes: usize = model.iter().map(item_size).sum();
        prop_assert_eq!(list.encoded_len(), EMPTY.len() + sizes);
    }

    #[test]
    fn a_changed_byte_is_harmless(texts in prop::collection::vec(text(), 1..12), at: prop::sample::Index, byte: u8) {
        let mut list = ListpackBuf::new();
        list.extend(&texts);
        let mut damaged = list.into_vec();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        if let Some(list) = Listpack::parse(&damaged) {
            read_all(list);
        }
        read_garbage(Listpack(&damaged));
    }

    #[test]
    fn any_bytes_are_harmless(body: Vec<u8>, count: u16) {
        let total = (body.len() + EMPTY.len()) as u32;
        let any = [&total.to_le_bytes()[..], &count.to_le_bytes(), &body, &[END]].concat();
        if let Some(list) = Listpack::parse(&any) {
            read_all(list);
        }
        read_garbage(Listpack(&any));
        read_garbage(Listpack(&body));
    }
}

/// Elements come and go at both ends of a buffer of bounded memory.
#[test]
fn room_at_either_end_is_made_within_the_memory_that_is_allowed() {
    const MOST: usize = 1000;
    let mut random = crate::base::random::Random::from_seed(7);
    for _ in 0..200 {
        let (mut list, mut model) = (ListpackBuf::new(), std::collections::VecDeque::<Vec<u8>>::new());
        let favourite = random.next_u64() % 4;
        for step in 0..300_u64 {
            let draw = random.next_u64();
            let what = if draw.is_multiple_of(3) { favourite } else { (draw >> 8) % 4 };
            let element = vec![b'a' + (step % 26) as u8; (draw >> 16) as usize % 60];
            let size = item_size(Item::Str(&element));
            match what {
                0 if list.make_room_front(size, MOST) => {
                    let room = list.bytes.as_ptr();
                    list.push_front(Item::Str(&element));
                    assert_eq!(list.bytes.as_ptr(), room, "the room was there");
                    model.push_front(element);
                }
                1 if list.make_room_back(size, MOST) => {
                    let capacity = list.capacity();
                    list.push_back(Item::Str(&element));
                    assert_eq!(list.capacity(), capacity, "the room was there");
                    model.push_back(element);
                }
                0 | 1 => assert!(list.encoded_len() + size > MOST * 3 / 4, "no room in {} bytes", list.encoded_len()),
                2 => assert_eq!(pop(&mut list, true), model.pop_front()),
                _ => assert_eq!(pop(&mut list, false), model.pop_back()),
            }
            list.check_invariants();
            assert!(list.capacity() <= MOST, "{} bytes of memory", list.capacity());
            let elements: Vec<_> = list.as_listpack().iter().map(|item| item.to_vec()).collect();
            assert!(elements.iter().eq(model.iter()));
        }
        assert_eq!(ListpackBuf::from_vec(list.clone().into_vec()), list);
        list.shrink_to_fit();
        assert_eq!(list.capacity(), list.encoded_len());
    }
}

#[test]
fn elements_that_come_at_both_ends_in_turn_seldom_move_the_others() {
    const MOST: usize = 4000;
    for capacity in [0, 100, MOST] {
        let (mut list, mut moves, mut added) = (ListpackBuf::with_capacity(capacity), 0, 0);
        let element = Item::Str(b"element");
        let size = item_size(element);
        loop {
            let at = list.as_bytes().as_ptr();
            let room = if added % 2 == 0 { list.make_room_front(size, MOST) } else { list.make_room_back(size, MOST) };
            if !room {
                break;
            }
            moves += usize::from(list.as_bytes().as_ptr() != at);
            if added % 2 == 0 {
                list.push_front(element)
            } else {
                list.push_back(element)
            }
            added += 1;
        }
        assert!(list.encoded_len() > MOST * 3 / 4, "full at {} bytes", list.encoded_len());
        assert!(moves <= 16, "{moves} moves for {added} elements, from {capacity} bytes on");
    }
}

/// Removes an element from an end.
fn pop(list: &mut ListpackBuf, front: bool) -> Option<Vec<u8>> {
    let elements = list.as_listpack();
    let pos = if front { elements.first()? } else { elements.last()? };
    let element = elements.get_at(pos).to_vec();
    list.remove(pos, 1);
    Some(element)
}

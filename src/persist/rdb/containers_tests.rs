//! Tests of the containers: every form of an element, and false headers.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::packed::{ListpackWriter, intset};
use super::*;

fn all<'a>(container: Parsed<impl Iterator<Item = Parsed<Element<'a>>>>) -> Parsed<Vec<Vec<u8>>> {
    container?.map(|element| element.map(Element::to_vec)).collect()
}

fn texts(items: &[&str]) -> Vec<Vec<u8>> {
    items.iter().map(|item| item.as_bytes().to_vec()).collect()
}

#[test]
fn a_listpack_holds_every_width_of_number_and_string() {
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for bits in 0..64 {
        for number in [1_i64 << bits, -1 << bits, (1_i64 << bits).wrapping_sub(1), (-1_i64 << bits).wrapping_sub(1)] {
            expected.push(number.to_string().into_bytes());
        }
    }
    for len in [0, 1, 63, 64, 120, 126, 127, 4095, 4096, 16_377, 16_378, 16_379, 70_000, 2_097_145, 2_097_146] {
        expected.push(vec![b'x'; len]);
    }
    let mut writer = ListpackWriter::new();
    expected.iter().for_each(|item| writer.push(item));
    assert_eq!(writer.count(), expected.len());
    let size = writer.bytes();
    let blob = writer.finish();
    assert_eq!(blob.len(), size);
    assert_eq!(all(Listpack::new(&blob)), Ok(expected));
}

#[test]
fn a_listpack_of_many_elements_leaves_the_counting_to_its_reader() {
    for count in [65_534, 65_535, 65_536] {
        let mut writer = ListpackWriter::new();
        (0..count).for_each(|_| writer.push_int(1));
        let blob = writer.finish();
        assert_eq!(all(Listpack::new(&blob)).map(|items| items.len()), Ok(count));
    }
}

#[test]
fn a_listpack_that_lies_is_refused() {
    let mut writer = ListpackWriter::new();
    writer.push(b"abc");
    writer.push(b"7");
    let good = writer.finish();
    assert_eq!(all(Listpack::new(&good)), Ok(texts(&["abc", "7"])));
    for at in 0..good.len() {
        // The letters, the number, and all ones in the count's high byte stay readable.
        if (7..10).contains(&at) || at == 11 {
            continue;
        }
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            assert!(all(Listpack::new(&changed)).is_err(), "{at} {bit}");
        }
        assert!(all(Listpack::new(&good[..at])).is_err(), "{at}");
    }
    assert!(all(Listpack::new(&[8, 0, 0, 0, 0, 0, 0xFF, 0xFF])).is_err(), "two ends");
}

#[test]
fn a_ziplist_that_lies_is_refused() {
    // "ab", 5, "c"
    let good = [0x14, 0, 0, 0, 0x10, 0, 0, 0, 3, 0, 0, 2, b'a', b'b', 4, 0xF6, 2, 1, b'c', 0xFF];
    assert_eq!(all(Ziplist::new(&good)), Ok(texts(&["ab", "5", "c"])));
    for at in (0..12).chain([14, 16, 17, 19]) {
        for bit in 0..8 {
            let mut changed = good;
            changed[at] ^= 1 << bit;
            assert!(all(Ziplist::new(&changed)).is_err(), "{at} {bit}");
        }
    }
    for cut in 0..good.len() {
        assert!(all(Ziplist::new(&good[..cut])).is_err(), "{cut}");
    }
}

#[test]
fn a_zipmap_that_lies_is_refused() {
    let good = [1, 1, b'f', 2, 1, b'v', b'w', 0, 0xFF];
    assert_eq!(all(Zipmap::new(&good)), Ok(texts(&["f", "vw"])));
    for cut in 0..good.len() {
        assert!(all(Zipmap::new(&good[..cut])).is_err(), "{cut}");
    }
    for (at, byte) in [(0, 2), (0, 0), (1, 0xFF), (3, 0xFF), (1, 0xFE), (4, 9), (8, 0)] {
        let mut changed = good;
        changed[at] = byte;
        assert!(all(Zipmap::new(&changed)).is_err(), "{at} {byte}");
    }
}

#[test]
fn an_intset_that_lies_is_refused() {
    for numbers in [&[-5, 0, 7][..], &[-40_000, 1], &[i64::MIN, i64::MAX]] {
        let blob = intset(numbers);
        let expected: Vec<Vec<u8>> = numbers.iter().map(|number| number.to_string().into_bytes()).collect();
        assert_eq!(all(Intset::new(&blob)), Ok(expected));
        for cut in 0..blob.len() {
            assert!(all(Intset::new(&blob[..cut])).is_err(), "{cut}");
        }
        let mut changed = blob.clone();
        changed[0] = 3;
        assert!(all(Intset::new(&changed)).is_err());
    }
    let overflow = [8, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
    assert!(all(Intset::new(&overflow)).is_err());
}

proptest! {
    #[test]
    fn any_bytes_end(blob in vec(any::<u8>(), 0..200)) {
        let _ = all(Listpack::new(&blob));
        let _ = all(Ziplist::new(&blob));
        let _ = all(Zipmap::new(&blob));
        let _ = all(Intset::new(&blob));
    }

    #[test]
    fn a_listpack_returns_its_elements(items in vec(vec(any::<u8>(), 0..300), 0..50)) {
        let mut writer = ListpackWriter::new();
        items.iter().for_each(|item| writer.push(item));
        let blob = writer.finish();
        prop_assert_eq!(all(Listpack::new(&blob)), Ok(items));
    }
}

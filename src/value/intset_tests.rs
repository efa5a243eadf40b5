//! The intset against bytes that Redis 7.0.15 wrote, against a `BTreeSet`, and against any bytes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// What SADD was given, and the payload of DUMP.
const RECORDED: &[(&[i64], &str)] = &[
    (&[1, 2, 3], "0200000003000000010002000300"),
    (&[-32768, 32767], "02000000020000000080ff7f"),
    (&[1, 32768], "04000000020000000100000000800000"),
    (&[-32769, 5], "0400000002000000ff7fffff05000000"),
    (&[2147483648, 1, -7], "0800000003000000f9ffffffffffffff01000000000000000000008000000000"),
    (&[-2147483649, 0, 9], "0800000003000000ffffff7fffffffff00000000000000000900000000000000"),
    (&[i64::MAX, i64::MIN, 0], "080000000300000000000000000000800000000000000000ffffffffffffff7f"),
];

#[test]
fn the_bytes_are_those_of_redis() {
    for (values, recorded) in RECORDED {
        let mut set = IntsetBuf::new();
        for value in *values {
            assert!(set.insert(*value));
        }
        assert_eq!(set.as_bytes(), bytes(recorded), "{values:?}");
        assert_eq!(Intset::parse(&bytes(recorded)), Some(set.as_intset()));
    }
    // The width stays when the integer that needed it goes.
    let mut set = IntsetBuf::new();
    for value in [1, 2, 70_000] {
        set.insert(value);
    }
    assert!(set.remove(70_000));
    assert_eq!(set.as_bytes(), bytes("04000000020000000100000002000000"));
}

#[test]
fn damaged_bytes_are_refused() {
    let good = bytes("0200000003000000010002000300");
    for cut in 0..good.len() {
        assert_eq!(Intset::parse(&good[..cut]), None);
    }
    for bad in [
        "0300000000000000",
        "0000000000000000",
        "02010000010000000100",
        "020000000100000001000200",
        "0200000002000000010002000300",
        "020000000200000001000200ff",
        "04000000ffffffff01000000",
    ] {
        assert_eq!(Intset::parse(&bytes(bad)), None, "{bad}");
    }
    assert_eq!(Intset::parse(&bytes("020000000200000001000100")), None, "twice the same");
    assert_eq!(Intset::parse(&bytes("020000000200000002000100")), None, "descending");
    assert!(Intset::parse(Intset::EMPTY.as_bytes()).is_some_and(Intset::is_empty));
}

fn read_all(set: Intset<'_>) {
    let values: Vec<i64> = set.iter().collect();
    let backwards: Vec<i64> = set.iter().rev().collect();
    assert_eq!(values.len(), backwards.len());
    let _ = (set.min(), set.max(), set.len(), set.is_empty(), set.get(usize::MAX), set.contains(0), set.search(-9));
}

/// Integers around every change of width, often the same.
fn integer() -> impl Strategy<Value = i64> {
    let edge = prop::sample::select(vec![0, -0x8000, 0x7FFF, -0x8000_0000, 0x7FFF_FFFF, i64::MIN, i64::MAX]);
    prop_oneof![-20..20_i64, (edge, -2..3_i64).prop_map(|(edge, by)| edge.saturating_add(by)), any::<i64>()]
}

proptest! {
    #[test]
    fn edits_agree_with_a_sorted_set(edits in prop::collection::vec((0..3_u8, integer()), 0..60)) {
        let (mut set, mut model) = (IntsetBuf::new(), BTreeSet::new());
        for (kind, value) in edits {
            match kind {
                0 => prop_assert_eq!(set.remove(value), model.remove(&value)),
                _ => prop_assert_eq!(set.insert(value), model.insert(value)),
            }
            set.check_invariants();
            prop_assert_eq!(set.contains(value), model.contains(&value));
            let view = set.as_intset();
            prop_assert_eq!((view.len(), view.is_empty()), (model.len(), model.is_empty()));
            prop_assert_eq!((view.min(), view.max()), (model.first().copied(), model.last().copied()));
            prop_assert!(view.iter().eq(model.iter().copied()));
            prop_assert!(view.iter().rev().eq(model.iter().rev().copied()));
            for (index, own) in model.iter().enumerate() {
                prop_assert_eq!((view.get(index), view.search(*own)), (Some(*own), Ok(index)));
            }
            prop_assert_eq!(view.get(model.len()), None);
        }
        let copy = IntsetBuf::from_vec(set.clone().into_vec());
        prop_assert_eq!(copy, set);
    }

    #[test]
    fn any_bytes_are_harmless(width in 0..10_u8, body: Vec<u8>) {
        let mut any = vec![width, 0, 0, 0, (body.len() / usize::from(width.max(1))) as u8, 0, 0, 0];
        any.extend_from_slice(&body);
        if let Some(set) = Intset::parse(&any) {
            read_all(set);
        }
        // Even where they were trusted and should not have been.
        read_all(Intset(&any));
        read_all(Intset(&body));
    }
}

//! Tests of HyperLogLogs, against a plain model: one byte for each register.

use proptest::prelude::*;

use super::*;

/// A value with these elements, and the plain registers.
fn seen<'a>(elements: impl Iterator<Item = &'a [u8]>, sparse_len_max: usize) -> (Vec<u8>, Box<Registers>) {
    let (mut hll, mut plain) = (empty(), Box::new([0; REGISTERS]));
    for element in elements {
        let observation = Observation::of(element);
        let slot = &mut plain[observation.register];
        let expected = *slot < observation.rank;
        *slot = (*slot).max(observation.rank);
        assert_eq!(would_change(&hll, observation), Ok(expected));
        assert_eq!(observe(&mut hll, observation, sparse_len_max), Ok(expected));
    }
    (hll, plain)
}

fn registers(hll: &[u8]) -> Box<Registers> {
    let mut registers = Box::new([0; REGISTERS]);
    merge(&mut registers, hll).expect("a sound value");
    registers
}

#[test]
fn every_byte_counts_in_the_hash() {
    assert_eq!(murmur64a(b"", 0), 0);
    for len in 0..40 {
        let bytes: Vec<u8> = (0..len).collect();
        let hash = murmur64a(&bytes, HASH_SEED);
        for flipped in 0..bytes.len() {
            let mut other = bytes.clone();
            other[flipped] ^= 0x80;
            assert_ne!(murmur64a(&other, HASH_SEED), hash);
        }
    }
}

#[test]
fn an_empty_value_is_eighteen_bytes() {
    assert_eq!(empty(), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff");
    assert_eq!(count(&empty()), Ok(0));
    assert_eq!(cached_count(&empty()), Some(0));
    assert_eq!(runs(&empty()).collect::<Vec<_>>(), [Run::XZero(REGISTERS)]);
}

#[test]
fn only_whole_values_are_recognised() {
    let mut dense = empty();
    assert_eq!(make_dense(&mut dense), Ok(true));
    assert_eq!(make_dense(&mut dense), Ok(false));
    assert_eq!((encoding(&empty()), encoding(&dense)), (Some(Encoding::Sparse), Some(Encoding::Dense)));
    assert_eq!(encoding(&dense[..DENSE_LEN - 1]), None);
    assert_eq!(encoding(&[&dense[..], b"x"].concat()), None);
    assert_eq!(encoding(&empty()[..15]), None);
    assert_eq!(encoding(b"HYLM\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff"), None);
    assert_eq!(encoding(b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\0\x7f\xff"), None);
}

#[test]
fn runs_that_do_not_add_up_are_corrupt_and_leave_the_value_alone() {
    let header = &empty()[..HEADER_LEN];
    let tails: [&[u8]; 6] = [b"", b"\x7f", b"\x7f\xfe", b"\x7f\xff\x00", b"\x80", b"\x7f\xff\x7f\xff"];
    for tail in tails {
        let hll = [header, tail].concat();
        assert_eq!(count(&hll), Err(Corrupt), "{tail:?}");
        assert_eq!(merge(&mut [0; REGISTERS], &hll), Err(Corrupt), "{tail:?}");
        let mut copy = hll.clone();
        assert_eq!(make_dense(&mut copy), Err(Corrupt), "{tail:?}");
        assert_eq!(observe(&mut copy, Observation { register: 0, rank: 40 }, 3000), Err(Corrupt), "{tail:?}");
        assert_eq!(copy, hll);
    }
    let mut short = [header, b"\x3f"].concat();
    let behind = Observation { register: 64, rank: 1 };
    assert_eq!(would_change(&short, behind), Err(Corrupt));
    assert_eq!(observe(&mut short, behind, 3000), Err(Corrupt));
}

#[test]
fn neighbours_of_one_value_share_a_run() {
    let mut hll = empty();
    for register in [10, 12, 11, 13, 14] {
        assert_eq!(observe(&mut hll, Observation { register, rank: 2 }, 3000), Ok(true));
    }
    let expected = [Run::Zero(10), Run::Val(2, 4), Run::Val(2, 1), Run::XZero(REGISTERS - 15)];
    assert_eq!(runs(&hll).collect::<Vec<_>>(), expected);
    assert_eq!(observe(&mut hll, Observation { register: 11, rank: 3 }, 3000), Ok(true));
    let expected = [Run::Zero(10), Run::Val(2, 1), Run::Val(3, 1), Run::Val(2, 3), Run::XZero(REGISTERS - 15)];
    assert_eq!(runs(&hll).collect::<Vec<_>>(), expected, "those behind are joined anew");
    assert_eq!(observe(&mut hll, Observation { register: REGISTERS - 1, rank: 33 }, 3000), Ok(true));
    assert_eq!(encoding(&hll), Some(Encoding::Dense), "a run holds no 33");
    assert_eq!((registers(&hll)[11], registers(&hll)[REGISTERS - 1]), (3, 33));
}

#[test]
fn the_estimate_is_near() {
    assert_eq!(self_test(1), Ok(()));
    // Registers that no hash can produce give some number, too.
    let mut dense = empty();
    make_dense(&mut dense).expect("a sound value");
    dense[HEADER_LEN..].fill(0xff);
    assert!(count(&dense).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_encodings_hold_what_was_seen(
        numbers in prop::collection::vec(0_u16..600, 0..500),
        len_max in 18_usize..900,
    ) {
        let words: Vec<String> = numbers.iter().map(|number| format!("element {number}")).collect();
        let (hll, plain) = seen(words.iter().map(String::as_bytes), len_max);
        prop_assert_eq!(&registers(&hll), &plain);
        prop_assert_eq!(count(&hll), Ok(count_registers(&plain)));
        prop_assert!(hll.len() <= len_max || encoding(&hll) == Some(Encoding::Dense));
        let mut dense = hll.clone();
        prop_assert!(make_dense(&mut dense).is_ok());
        prop_assert_eq!(&registers(&dense), &plain);
    }

    #[test]
    fn any_bytes_are_safe(
        tail in prop::collection::vec(any::<u8>(), 0..80),
        register in 0..REGISTERS,
        rank in 1_u8..52,
    ) {
        let mut hll = [&empty()[..HEADER_LEN], &tail[..]].concat();
        let before = hll.clone();
        let _ = (count(&hll), runs(&hll).count());
        let _ = merge(&mut [0; REGISTERS], &hll);
        if observe(&mut hll, Observation { register, rank }, 3000) != Ok(true) {
            prop_assert_eq!(hll, before);
        }
    }

    #[test]
    fn any_registers_pack(values in prop::collection::vec((0..REGISTERS, 0_u8..64), 1..200)) {
        let mut dense = empty();
        prop_assert!(make_dense(&mut dense).is_ok());
        let mut plain = Box::new([0; REGISTERS]);
        for (register, value) in values {
            set_dense_register(&mut dense[HEADER_LEN..], register, value);
            plain[register] = value;
            prop_assert_eq!(dense_register(&dense[HEADER_LEN..], register), value);
        }
        prop_assert_eq!(&registers(&dense), &plain);
        prop_assert_eq!(dense.len(), DENSE_LEN);
    }
}

//! Tests of bitmaps: scripts, and random commands against a plain model with one bool per bit.

use proptest::prelude::*;

use super::bit_range;
use crate::exec::testing::Runner;
use crate::resp::Resp;

/// Runs lines of `command => reply`.
#[test]
fn bits_are_set_and_read() {
    let mut t = Runner::new();
    t.script(
        "GETBIT k 7 => :0
         SETBIT k 7 1 => :0
         SETBIT k 7 1 => :1
         GETBIT k 7 => :1
         GETBIT k 100 => :0
         SETBIT k 17 0 => :0
         STRLEN k => :3
         SETBIT k 7 0 => :1
         SET n 12 => +OK
         GETBIT n 3 => :1
         SETBIT n 3 1 => :1
         OBJECT ENCODING n => $3 raw
         SETBIT n 6 1 => :0
         GET n => $2 32
         SETBIT k -1 1 => -ERR bit offset is not an integer or out of range
         SETBIT k 4294967296 1 => -ERR bit offset is not an integer or out of range
         SETBIT k #1 1 => -ERR bit offset is not an integer or out of range
         GETBIT k x => -ERR bit offset is not an integer or out of range
         SETBIT k x 2 => -ERR bit offset is not an integer or out of range
         SETBIT k 1 2 => -ERR bit is not an integer or out of range
         SETBIT k 1 x => -ERR bit is not an integer or out of range",
    );
    t.assert_replay_equals_live();
    let changes = ["SETRANGE k 0 \x01", "SETRANGE k 2 \0", "SETRANGE k 0 \0", "SET n 12", "SETRANGE n 0 3"];
    assert_eq!(t.take_logged(), changes, "nothing is logged where nothing changed");
}

#[test]
fn indices_mean_bytes_or_bits() {
    let cases = [
        (0, -1, false, Some((0, 23))),
        (0, -1, true, Some((0, 23))),
        (1, 1, false, Some((8, 15))),
        (-2, -2, true, Some((22, 22))),
        (-100, -100, true, Some((0, 0))),
        (5, 100, true, Some((5, 23))),
        (24, 100, true, None),
        (2, 1, false, None),
        (i64::MIN, i64::MAX, true, Some((0, 23))),
        (i64::MAX, i64::MIN, true, None),
    ];
    for (start, end, is_bit, range) in cases {
        assert_eq!(bit_range(start, end, is_bit, 3), range, "{start} {end} {is_bit}");
    }
    assert_eq!(bit_range(0, -1, true, 0), None);
}

#[test]
fn counting_and_searching() {
    let mut t = Runner::new();
    t.script(
        r#"SET k foobar => +OK
         BITCOUNT k => :26
         BITCOUNT k 0 0 => :4
         BITCOUNT k 1 1 BYTE => :6
         BITCOUNT k 5 30 bit => :17
         BITCOUNT k -1 -2 => :0
         BITCOUNT k -100 -200 => :0
         BITCOUNT nothing => :0
         BITCOUNT k 0 => :26
         BITCOUNT nothing 0 1 X => -ERR syntax error
         BITCOUNT nothing a 1 => -ERR value is not an integer or out of range
         SET p "\xff\xf0\x00" => +OK
         BITPOS p 0 => :12
         BITPOS p 1 => :0
         BITPOS p 1 2 => :-1
         BITPOS p 1 2 -1 BYTE => :-1
         BITPOS p 0 5 9 BIT => :-1
         BITPOS p 0 5 12 BIT => :12
         BITPOS p 1 13 -1 BIT => :-1
         SET f "\xff\xff" => +OK
         BITPOS f 0 => :16
         BITPOS f 0 1 => :16
         BITPOS f 0 0 -1 => :-1
         BITPOS f 0 2 => :-1
         BITPOS nothing 0 => :0
         BITPOS nothing 1 => :-1
         BITPOS nothing 1 x => -ERR value is not an integer or out of range
         BITPOS f 2 => -ERR The bit argument must be 1 or 0.
         BITPOS f 0 0 1 x => -ERR syntax error
         BITPOS f 0 0 1 BIT more => -ERR syntax error"#,
    );
}

#[test]
fn strings_are_combined() {
    let mut t = Runner::new();
    t.script(
        r#"SET a "\xff\x0f\x01" => +OK
         SET b "\x0f" => +OK
         BITOP AND d a b => :3
         BITCOUNT d => :4"#,
    );
    for (operation, bits) in [("AND", 4), ("OR", 13), ("xor", 9)] {
        t.script(&format!("BITOP {operation} d a b nothing => :3"));
        let expected = if operation == "AND" { 0 } else { bits };
        t.script(&format!("BITCOUNT d => :{expected}"));
    }
    t.script(
        "BITOP NOT d b => :1
         BITCOUNT d => :4
         PEXPIRE d 1000 => :1
         BITOP OR d d a => :3
         PTTL d => :-1
         BITOP OR d nothing => :0
         EXISTS d => :0
         BITOP OR d nothing => :0
         BITOP NOT d a b => -ERR BITOP NOT must be called with a single source key.
         BITOP NAND d a => -ERR syntax error",
    );
    t.assert_replay_equals_live();
    assert_eq!(t.take_logged().last().map(String::as_str), Some("DEL d"), "nothing to remove is nothing to log");
}

#[test]
fn fields_are_read_set_and_counted_up() {
    let mut t = Runner::new();
    t.script(
        "BITFIELD k => *0
         BITFIELD k GET u8 0 GET i5 #3 => *2 :0 :0
         EXISTS k => :0
         BITFIELD k SET u8 0 255 GET i8 0 GET u4 2 => *3 :0 :-1 :15
         BITFIELD k INCRBY u8 0 10 => *1 :9
         BITFIELD k OVERFLOW SAT INCRBY u8 0 1000 OVERFLOW FAIL INCRBY u8 0 1 GET u8 0 => *3 :255 $-1 :255
         BITFIELD k SET i64 #1 -9223372036854775808 INCRBY i64 #1 -1 => *2 :0 :9223372036854775807
         BITFIELD k OVERFLOW SAT INCRBY i64 #1 1 INCRBY i8 #1 -500 => *2 :9223372036854775807 :-128
         BITFIELD k SET u3 5 9 GET u3 5 => *2 :7 :1
         BITFIELD new OVERFLOW FAIL SET u8 0 256 => *1 $-1
         GET new => $1 \0
         BITFIELD k GET u8 -1 => -ERR bit offset is not an integer or out of range
         BITFIELD k GET u8 #9223372036854775807 => -ERR bit offset is not an integer or out of range
         BITFIELD k SET u8 0 x => -ERR value is not an integer or out of range
         BITFIELD k SET u8 0 => -ERR syntax error
         BITFIELD k OVERFLOW => -ERR syntax error
         BITFIELD k OVERFLOW X => -ERR Invalid OVERFLOW type specified
         BITFIELD_RO k SET u8 0 1 => -ERR BITFIELD_RO only supports the GET subcommand
         BITFIELD_RO k OVERFLOW SAT GET u8 0 => *1 :249",
    );
    let bad_type = "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is. ";
    for bad in ["u64", "i65", "u0", "i", "8", "x8", "I8", "u-1"] {
        assert_eq!(t.run(&format!("BITFIELD k GET {bad} 0")), bad_type);
    }
    t.resp = Resp::V3;
    t.script("BITFIELD new OVERFLOW FAIL SET u8 0 256 => *1 _");
    t.assert_replay_equals_live();
    let logged = t.take_logged();
    assert_eq!(logged.last().map(String::as_str), Some("SETRANGE new 1 "), "room is made all the same");
    assert_eq!(logged.len(), 8, "{logged:?}");
}

/// The bits of a string.
fn bits(t: &mut Runner, key: &str) -> Vec<bool> {
    let len: usize = t.run(&format!("STRLEN {key}")).trim().trim_start_matches(':').parse().expect("a length");
    let ask = (0..len * 8).map(|at| t.run(&format!("GETBIT {key} {at}")) == ":1 ");
    ask.collect()
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>())
}

fn to_bits(bytes: &[u8]) -> Vec<bool> {
    bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte & 0x80 >> bit != 0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn parts_are_counted_and_searched_as_bits(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(prop::sample::select(vec![0_u8, 0xff]), 0..60),
        ],
        start in -330_i64..330,
        end in -330_i64..330,
    ) {
        let mut t = Runner::new();
        t.run(&format!("SET k {}", quoted(&bytes)));
        let all = to_bits(&bytes);
        let range = bit_range(start, end, true, bytes.len());
        let part = range.map_or(&[][..], |(first, last)| &all[first..=last]);
        let ones = part.iter().filter(|bit| **bit).count();
        let expected = if start < 0 && end < 0 && start > end { 0 } else { ones };
        prop_assert_eq!(t.run(&format!("BITCOUNT k {start} {end} BIT")), format!(":{expected} "));
        prop_assert_eq!(t.run("BITCOUNT k"), format!(":{} ", all.iter().filter(|bit| **bit).count()));
        for set in [false, true] {
            let found = part.iter().position(|bit| *bit == set).zip(range);
            let at = found.map_or(-1, |(at, (first, _))| (first + at) as i64);
            prop_assert_eq!(t.run(&format!("BITPOS k {} {start} {end} BIT", u8::from(set))), format!(":{at} "));
        }
    }

    #[test]
    fn fields_are_what_their_bits_say(
        bytes in prop::collection::vec(any::<u8>(), 1..20),
        offset in 0_usize..100,
        width in 1_usize..64,
        value in any::<i64>(),
    ) {
        let mut t = Runner::new();
        t.run(&format!("SET k {}", quoted(&bytes)));
        let mut model = to_bits(&bytes);
        model.resize(model.len().max((offset + width).div_ceil(8) * 8), false);
        let field = |model: &[bool]| model[offset..offset + width].iter().fold(0, |n, bit| n << 1 | i64::from(*bit));
        let old = field(&model);
        let low = value & (i64::MAX >> (63 - width));
        for (at, slot) in model[offset..offset + width].iter_mut().enumerate() {
            *slot = low >> (width - 1 - at) & 1 == 1;
        }
        prop_assert_eq!(t.run(&format!("BITFIELD k SET u{width} {offset} {value}")), format!("*1 :{old} "));
        prop_assert_eq!(bits(&mut t, "k"), model.clone());
        prop_assert_eq!(t.run(&format!("BITFIELD_RO k GET u{width} {offset}")), format!("*1 :{low} "));
        let signed = low << (64 - width) >> (64 - width);
        prop_assert_eq!(t.run(&format!("BITFIELD_RO k GET i{width} {offset}")), format!("*1 :{signed} "));
        t.assert_replay_equals_live();
    }

    #[test]
    fn sums_stay_inside_their_field(
        width in 1_u32..63,
        old in any::<i64>(),
        more in any::<i64>(),
        is_signed in any::<bool>(),
        how in prop::sample::select(vec!["WRAP", "SAT", "FAIL"]),
    ) {
        let (min, max) = match is_signed {
            true => (-(1_i128 << (width - 1)), (1_i128 << (width - 1)) - 1),
            false => (0, (1_i128 << width) - 1),
        };
        let size = 1_i128 << width;
        let wrapped = |number: i128| (number - min).rem_euclid(size) + min;
        let old = wrapped(i128::from(old));
        let sum = old + i128::from(more);
        let expected = match how {
            _ if (min..=max).contains(&sum) => format!(":{sum}"),
            "WRAP" => format!(":{}", wrapped(sum)),
            "SAT" => format!(":{}", sum.clamp(min, max)),
            _ => "$-1".to_owned(),
        };
        let mut t = Runner::new();
        let kind = format!("{}{width}", if is_signed { 'i' } else { 'u' });
        t.run(&format!("BITFIELD k SET {kind} 3 {old}"));
        prop_assert_eq!(t.run(&format!("BITFIELD k OVERFLOW {how} INCRBY {kind} 3 {more}")), format!("*1 {expected} "));
        t.assert_replay_equals_live();
    }

    #[test]
    fn strings_are_combined_bit_by_bit(
        sources in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 2..6),
        operation in prop::sample::select(vec!["AND", "OR", "XOR", "DIFF", "DIFF1", "ANDOR", "ONE"]),
    ) {
        let mut t = Runner::new();
        let len = sources.iter().map(Vec::len).max().unwrap_or(0);
        let mut line = format!("BITOP {operation} d");
        for (number, source) in sources.iter().enumerate() {
            t.run(&format!("SET s{number} {}", quoted(source)));
            line += &format!(" s{number}");
        }
        let at = |source: &Vec<u8>, index: usize| source.get(index).copied().unwrap_or(0);
        let combined = (0..len).map(|index| {
            let bytes: Vec<u8> = sources.iter().map(|source| at(source, index)).collect();
            let (first, others) = (bytes[0], bytes[1..].iter().fold(0, |a, b| a | b));
            match operation {
                "AND" => bytes.iter().fold(0xff, |a, b| a & b),
                "OR" => first | others,
                "XOR" => bytes.iter().fold(0, |a, b| a ^ b),
                "DIFF" => first & !others,
                "DIFF1" => others & !first,
                "ANDOR" => first & others,
                _ => (0..8).map(|bit| 1 << bit).filter(|bit| bytes.iter().filter(|b| *b & bit != 0).count() == 1).sum(),
            }
        });
        let expected: Vec<u8> = combined.collect();
        prop_assert_eq!(t.run(&line), format!(":{len} "));
        prop_assert_eq!(bits(&mut t, "d"), to_bits(&expected));
        t.assert_replay_equals_live();
    }
}

#[test]
fn a_replay_of_random_commands_makes_the_same_keys() {
    let mut random = crate::base::random::Random::from_seed(11);
    let mut t = Runner::new();
    for _ in 0..3000 {
        let key = ["a", "b", "c"][random.index(3)];
        let (other, offset, number) = (["a", "b", "n"][random.index(3)], random.index(300), random.index(600));
        let line = match random.index(7) {
            0 => format!("SETBIT {key} {offset} {}", random.index(2)),
            1 => format!("BITFIELD {key} SET u{} {offset} {number}", 1 + random.index(63)),
            2 => format!("BITFIELD {key} OVERFLOW FAIL INCRBY i{} {offset} {number}", 1 + random.index(64)),
            3 => {
                let operations = ["AND", "OR", "XOR", "DIFF", "DIFF1", "ANDOR", "ONE"];
                format!("BITOP {} {key} {other} c", operations[random.index(7)])
            }
            4 => format!("BITOP NOT {key} {other}"),
            5 if random.index(4) == 0 => format!("SET {key} {number} PX {}", 1 + random.index(30)),
            5 => format!("PERSIST {key}"),
            _ => format!("DEL {other}"),
        };
        t.run(&line);
        t.advance_ms(random.index(4) as i64);
    }
    t.assert_replay_equals_live();
}

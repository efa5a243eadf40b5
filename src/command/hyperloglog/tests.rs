//! Tests of the HyperLogLog commands.

use crate::base::random::Random;
use crate::exec::testing::Runner;

/// Runs lines of `command => reply`.
const NO_HLL: &str = "-WRONGTYPE Key is not a valid HyperLogLog string value.";
const CORRUPT: &str = "-INVALIDOBJ Corrupted HLL object detected";

#[test]
fn elements_are_counted_once() {
    let mut t = Runner::new();
    t.script(
        "PFCOUNT h => :0
         PFADD h => :1
         PFADD h => :0
         PFADD h a b c => :1
         PFADD h a c => :0
         PFCOUNT h => :3
         PFCOUNT h => :3
         PFADD i c d => :1
         PFCOUNT h i nothing => :4
         PFMERGE j h i => +OK
         PFCOUNT j => :4
         PFMERGE k => +OK
         PFCOUNT k => :0
         OBJECT ENCODING h => $3 raw",
    );
    t.assert_replay_equals_live();
    let logged = t.take_logged();
    let heads: Vec<&str> = logged.iter().map(|line| line.split('\0').next().unwrap_or("")).collect();
    let starts =
        ["SET h HYLL\x01", "PFRAISE h 12711:2 15780:1 8436:1", "SETRANGE h 8 \x03", "SET i HYLL\x01", "SET j HYLL\x01"];
    assert_eq!(&heads[..5], &starts);
}

#[test]
fn other_strings_and_damaged_ones_are_refused_and_left_alone() {
    let mut t = Runner::new();
    let header = r"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80".replace(r"\0", r"\x00");
    t.run("SET n 12345");
    t.run(&format!("SET short \"{header}\\x3f\""));
    t.run(&format!("SET long \"{header}\\x7f\\xff\\x00\""));
    t.take_logged();
    for line in ["PFADD n a", "PFCOUNT n", "PFCOUNT n h", "PFMERGE d n", "PFMERGE n", "PFDEBUG ENCODING n"] {
        assert_eq!(t.run(line).trim_end(), NO_HLL, "{line}");
    }
    for line in ["PFADD short a", "PFCOUNT short", "PFCOUNT long long", "PFMERGE d short", "PFDEBUG TODENSE long"] {
        assert_eq!(t.run(line).trim_end(), CORRUPT, "{line}");
    }
    assert_eq!(t.take_logged(), [""; 0]);
    assert_eq!(t.run("EXISTS d"), ":0 ");
}

#[test]
fn debugging_shows_registers_and_runs() {
    let mut t = Runner::new();
    t.script(
        "PFADD h => :1
         PFDEBUG DECODE h => $7 Z:16384
         PFDEBUG encoding h => +sparse
         PFDEBUG TODENSE h => :1
         PFDEBUG TODENSE h => :0
         PFDEBUG ENCODING h => +dense
         PFDEBUG DECODE h => -ERR HLL encoding is not sparse
         PFDEBUG ENCODING nothing => -ERR The specified key does not exist
         PFDEBUG FOO h => -ERR Unknown PFDEBUG subcommand 'FOO'
         PFADD i a => :1",
    );
    let registers = t.run("PFDEBUG GETREG i");
    assert!(registers.starts_with("*16384 :0 "));
    assert_eq!(registers.matches(":0 ").count(), 16383);
    assert_eq!(t.run("PFDEBUG ENCODING i"), "+dense ");
    t.assert_replay_equals_live();
}

#[test]
fn the_self_test_passes() {
    assert_eq!(Runner::new().run("PFSELFTEST"), "+OK ");
}

#[test]
fn a_replay_is_the_same_whatever_limit_held() {
    for limit in [0, 40, 300, 3000, usize::MAX] {
        let mut random = Random::from_seed(5);
        let mut t = Runner::new();
        t.hll_sparse_max_bytes = limit;
        for _ in 0..1500 {
            let (key, other) = (["a", "b", "c"][random.index(3)], ["a", "b", "n"][random.index(3)]);
            let line = match random.index(12) {
                0 => format!("PFMERGE {key} {other} c"),
                1 => format!("PFCOUNT {key}"),
                2 => format!("PFCOUNT {key} {other}"),
                3 if random.index(10) == 0 => format!("PFDEBUG TODENSE {key}"),
                4 if random.index(10) == 0 => format!("PEXPIRE {key} {}", 1 + random.index(30)),
                5 if random.index(10) == 0 => format!("DEL {key}"),
                _ => format!("PFADD {key} {} {} {}", random.index(900), random.index(900), random.index(900)),
            };
            t.run(&line);
            t.advance_ms(random.index(3) as i64);
        }
        t.assert_replay_equals_live();
    }
}

//! Writes random commands that came after Redis 7.0, on the keys of [`Generator`]: a reference of that version does
//! not know them, but log, snapshot and restarts must.

use super::generator::{Command, Generator};
use super::random::Random;

const STRINGS: &[&str] = &["a", "b", "c", "d", "e", "key:with:a:long:name", "hash"];
const HASHES: &[&str] = &["hash", "hash", "hash:2", "hash:3", "a"];
const LISTS: &[&str] = &["list", "list", "list:2", "list:3", "b"];
const ZSETS: &[&str] = &["zset", "zset:2", "zset:3", "a"];
const STREAMS: &[&str] = &["stream:1", "stream:1", "stream:2", "a"];
const FIELDS: &[&str] = &["f1", "f2", "f3", "7", "f:with:a:longer:name"];
/// Thousands of years ahead, or long past.
const TIMES_MS: &[&str] = &["33177117420000", "44177117420999", "1"];

/// The next command: every fourth is a newer one.
pub(crate) fn any_command(random: &mut Random) -> Command {
    match random.below(4) {
        0 => command(random),
        _ => Generator { random }.command(),
    }
}

/// The next newer command.
pub(crate) fn command(random: &mut Random) -> Command {
    let line = match random.below(5) {
        0 => of_strings(random),
        1 | 2 => of_hashes(random),
        3 => of_lists_and_sets(random),
        _ => of_streams(random),
    };
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn of_strings(random: &mut Random) -> String {
    let [a, b, c] = [0; 3].map(|_| random.pick(STRINGS));
    let (number, at) = (random.below(30), random.pick(TIMES_MS));
    let condition = random.pick(&["IFEQ", "IFNE"]);
    match random.below(12) {
        0 => format!("SET {a} {number} {condition} {}", random.below(30)),
        1 => format!("SET {a} {number} IFDNE 0123456789abcdef PXAT {at}"),
        2 => format!("SET {a} {number} GET {condition} {}", random.below(30)),
        3 => format!("DELEX {a} {condition} {}", random.below(30)),
        4 => format!("DELIFEQ {a} {}", random.below(30)),
        5 => format!(
            "MSETEX 2 {a} {number} {b} long:{} {}",
            "x".repeat(number * 9),
            random.pick(&["NX", "XX", "KEEPTTL"])
        ),
        6 => format!("MSETEX 2 {a} {number} {b} {number} PXAT {at}"),
        7 => format!("INCREX {a} BYINT {number} UBOUND 100 SATURATE PXAT {at}"),
        8 => format!("INCREX {a} BYFLOAT 0.5 LBOUND -10 PERSIST"),
        9 => format!("MOVE {a} {} REPLACE", random.below(3)),
        10 => format!("BITOP {} {a} {b} {c}", random.pick(&["DIFF", "DIFF1", "ANDOR", "ONE"])),
        _ => format!("DIGEST {a}"),
    }
}

fn of_hashes(random: &mut Random) -> String {
    let key = random.pick(HASHES);
    let [f, g] = [0; 2].map(|_| random.pick(FIELDS));
    let (number, at) = (random.below(1000), random.pick(TIMES_MS));
    match random.below(12) {
        0 => format!("HSETEX {key} PXAT {at} FIELDS 2 {f} {number} {g} v{number}"),
        1 => format!("HSETEX {key} {} KEEPTTL FIELDS 1 {f} {number}", random.pick(&["FNX", "FXX"])),
        2 => format!("HGETEX {key} PXAT {at} FIELDS 1 {f}"),
        3 => format!("HGETEX {key} PERSIST FIELDS 2 {f} {g}"),
        4 => format!("HGETDEL {key} FIELDS 1 {f}"),
        5 | 6 => format!("HPEXPIREAT {key} {at} {} FIELDS 1 {f}", random.pick(&["NX", "XX", "GT", "LT"])),
        7 => format!("HEXPIRE {key} 100000000 FIELDS 1 {f}"),
        8 => format!("HPERSIST {key} FIELDS 1 {f}"),
        9 => format!("HIMPORT PREPARE set:{f} {f} {f}:2 {f}:3"),
        10 => format!("HIMPORT SET {key} set:{f} {number} {g} long:{}", "y".repeat(number / 5)),
        _ => format!("HTTL {key} FIELDS 2 {f} {g}"),
    }
}

fn of_lists_and_sets(random: &mut Random) -> String {
    let [from, to] = [0; 2].map(|_| random.pick(LISTS));
    let [side, other] = [0; 2].map(|_| random.pick(&["LEFT", "RIGHT"]));
    let many = format!("{} {} {}", random.pick(&["COUNT", "EXACTLY"]), random.below(5), random.pick(&["OBO", "BULK"]));
    let [x, y] = [0; 2].map(|_| random.pick(ZSETS));
    match random.below(6) {
        0 => format!("LMOVEM {from} {to} {side} {other}"),
        1 | 2 => format!("LMOVEM {from} {to} {side} {other} {many}"),
        3 => format!("BLMOVEM {from} {to} {side} {other} 0.001 {many}"),
        4 => format!("ZUNIONSTORE {x} 2 {x} {y} WEIGHTS 2 3 AGGREGATE COUNT"),
        _ => format!("ZINTERSTORE {x} 2 {x} {y} AGGREGATE COUNT"),
    }
}

fn of_streams(random: &mut Random) -> String {
    let (key, references) = (random.pick(STREAMS), random.pick(&["KEEPREF", "DELREF", "ACKED"]));
    let id = format!("2-{}", random.below(120));
    match random.below(6) {
        0 => format!("XADD {key} {references} MAXLEN = 40 2-* f v"),
        1 => format!("XTRIM {key} MAXLEN = 30 {references}"),
        2 => format!("XDELEX {key} {references} IDS 1 {id}"),
        3 => format!("XACKDEL {key} g {references} IDS 1 {id}"),
        4 => format!("XREADGROUP GROUP g c COUNT 3 CLAIM 0 STREAMS {key} >"),
        _ => format!("XREADGROUP GROUP g d MAXCOUNT 2 STREAMS {key} >"),
    }
}

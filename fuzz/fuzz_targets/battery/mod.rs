//! Runs commands of every type on a value of unknown content. Each must give one whole reply, keep the value sound
//! and agree with the others. DUMP and RESTORE must keep the value, and the log must restore it.

mod families;
mod live;

use ironkeep::base::clock;
use ironkeep::persist::rdb::decode_dump;

use families::{ANY, FAMILIES, Family, OTHERS};
use live::Reply;
pub use live::{Left, Live};

/// The key that holds the value; no command of the battery changes it.
pub const BASE: &str = "base";
/// How many commands of each other type are tried on it.
const WRONG_TYPES: usize = 4;

/// What the placeholders of a command line stand for.
#[derive(Debug)]
struct Words {
    /// `{a}`, `{b}`, `{c}`: the first, the middle and the last element.
    elements: [Vec<u8>; 3],
    /// `{g}` and `{n}`: a group and a consumer of a stream.
    group: Vec<u8>,
    consumer: Vec<u8>,
}

impl Words {
    fn of(live: &mut Live, family: &Family) -> Words {
        let mut all = live.run(family.elements).bulks;
        if family.name == "stream" {
            all.retain(|text| text.contains(&b'-') && text.iter().all(|b| b.is_ascii_digit() || *b == b'-'));
        }
        let pick = |at: usize| all.get(at).cloned().unwrap_or_else(|| b"none".to_vec());
        let elements = [pick(0), pick(all.len() / 2), pick(all.len().saturating_sub(1))];
        let mut second = |words: &[&[u8]]| live.run_words(words).bulks.into_iter().nth(1).unwrap_or_default();
        let group = second(&[b"XINFO", b"GROUPS", b"base"]);
        let consumer = second(&[b"XINFO", b"CONSUMERS", b"base", &group]);
        Words { elements, group, consumer }
    }

    fn run(&self, live: &mut Live, line: &str) -> Reply {
        let fill = |word| match word {
            "{a}" => &self.elements[0][..],
            "{b}" => &self.elements[1],
            "{c}" => &self.elements[2],
            "{g}" => &self.group,
            "{n}" => &self.consumer,
            word => word.as_bytes(),
        };
        let words: Vec<&[u8]> = line.split(' ').map(fill).collect();
        live.run_words(&words)
    }
}

/// Tries everything on the value at [`BASE`]. The numbers choose the order of what changes it.
pub fn check(live: &mut Live, order: u8) {
    let before = live.canonical(BASE).expect("there is a value");
    // A hash all of whose fields have expired is no more, though it may still be there.
    if !live.exists(BASE) {
        return live.check_replay();
    }
    let earliest = live.earliest_field_expiry(BASE);
    let name = live.run("TYPE base").text();
    let family = FAMILIES.iter().find(|family| family.name == name).expect("a type that is known");
    let words = Words::of(live, family);
    for line in family.reads.iter().chain(ANY) {
        let reply = words.run(live, line);
        assert!(!reply.is_wrong_type() || line.starts_with("PF"), "{line}: {reply:?}");
    }
    for other in FAMILIES.iter().filter(|other| other.name != name) {
        for line in other.reads.iter().take(WRONG_TYPES) {
            let reply = words.run(live, line);
            assert!(reply.is_wrong_type(), "{line} on a {name}: {reply:?}");
        }
    }
    check_counts(live, family, &words);
    check_scan(live, family);
    check_dump(live);
    check_writes(live, family, &words, order);
    // Time may have removed a field.
    if earliest.is_none_or(|at| at > clock::now_ms() as u64) {
        assert_eq!(live.canonical(BASE), Some(before), "a copy shares no change");
    }
    live.check_replay();
}

/// A command that counts says what one that lists shows.
fn check_counts(live: &mut Live, family: &Family, words: &Words) {
    let (Some(count), listed) = (family.count, live.run(family.elements)) else { return };
    // Fields that have expired count until they are removed.
    if live.earliest_field_expiry(BASE).is_none() {
        let shown = if family.name == "stream" { listed.elements } else { listed.bulks.len() };
        assert_eq!(live.run(count).number(), Some(shown as i64), "{count}");
    }
    if family.name == "zset" {
        for (rank, member) in [(0, &words.elements[0]), (listed.bulks.len() - 1, &words.elements[2])] {
            let reply = live.run_words(&[b"ZRANK", b"base", member]);
            assert_eq!(reply.number(), Some(rank as i64), "the rank of {}", member.escape_ascii());
        }
    }
    if family.name == "list" {
        let (index, middle) = (listed.bulks.len() / 2, &words.elements[1]);
        assert_eq!(live.run(&format!("LINDEX base {index}")).bulks, [middle.clone()]);
    }
}

/// A scan shows each element, and ends.
fn check_scan(live: &mut Live, family: &Family) {
    let Some(scan) = family.scan else { return };
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    for _ in 0..100_000 {
        let mut page = live.run(&format!("{scan} base {cursor} COUNT 3")).bulks.into_iter();
        cursor = page.next().map(|text| String::from_utf8_lossy(&text).into_owned()).expect("a cursor");
        let step = if scan == "SSCAN" { 1 } else { 2 };
        found.extend(page.step_by(step));
        if cursor == "0" {
            break;
        }
    }
    let mut listed = live.run(family.elements).bulks;
    found.sort();
    found.dedup();
    listed.sort();
    assert!(cursor == "0" && found == listed, "{scan}: {found:?} {listed:?}");
}

/// What DUMP gives, RESTORE takes, and it is the same value in the same form.
fn check_dump(live: &mut Live) {
    let payload = live.run("DUMP base").bulks.pop().expect("a payload");
    let restored = live.run_words(&[b"RESTORE", b"again", b"0", &payload, b"REPLACE"]);
    assert_eq!(restored.text(), "OK");
    let again = live.run("DUMP again").bulks.pop().expect("a payload");
    let value = |payload| decode_dump(payload).expect("a payload of ours").sorted();
    assert_eq!(value(&payload), value(&again));
    assert_eq!(live.run("TYPE base").text(), live.run("TYPE again").text());
    live.run("UNLINK again");
}

/// Each changing command on a fresh copy, and all of them one after the other on one.
fn check_writes(live: &mut Live, family: &Family, words: &Words, order: u8) {
    let lines: Vec<&str> = family.writes.iter().chain(OTHERS).copied().collect();
    let start = usize::from(order) % lines.len();
    for fresh in [true, false] {
        for line in lines[start..].iter().chain(&lines[..start]) {
            if fresh || order & 1 == 0 && !live.exists("k") {
                live.run("COPY base k REPLACE");
                live.run("COPY base dst REPLACE");
            }
            let reply = words.run(live, line);
            assert!(!reply.is_internal_error(), "{line}: {reply:?}");
            live.check("k");
            live.check("dst");
        }
    }
    live.sweep();
    live.run("UNLINK k dst");
}

/// Limits at which a few elements make a large form, and the directives that set them.
pub const NARROW: &str = "hash-max-listpack-entries 3\nhash-max-listpack-value 12\nset-max-intset-entries 3\n\
    set-max-listpack-entries 3\nset-max-listpack-value 12\nzset-max-listpack-entries 3\nzset-max-listpack-value 12\n\
    list-max-listpack-size 3\nstream-node-max-entries 3\nhll-sparse-max-bytes 40";

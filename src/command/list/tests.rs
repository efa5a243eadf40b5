//! Tests of the commands for lists.

use crate::base::random::Random;
use crate::exec::testing::Runner;

#[test]
fn a_moved_element_is_a_record_of_each_key() {
    let mut t = Runner::new();
    t.run("RPUSH a 1 2 3");
    t.take_logged();
    assert_eq!(t.run("LMOVE a b LEFT RIGHT"), "$1 1 ");
    assert_eq!(t.take_logged(), ["LPOP a 1", "RPUSH b 1"]);
    assert_eq!(t.run("RPOPLPUSH a a"), "$1 3 ");
    assert_eq!(t.take_logged(), ["LPUSH a 3", "RPOP a 1"]);
    assert_eq!(t.run("LMPOP 2 none a LEFT COUNT 5"), "*2 $1 a *2 $1 3 $1 2 ");
    assert_eq!(t.take_logged(), ["LPOP a 2"]);
    assert_eq!(t.run("BLPOP a b 0"), "*2 $1 b $1 1 ");
    assert_eq!(t.take_logged(), ["LPOP b 1"]);
}

#[test]
fn nothing_changed_is_nothing_logged() {
    let mut t = Runner::new();
    t.run("RPUSH l a b c");
    t.run("SET k v");
    t.take_logged();
    for line in [
        "LPUSHX none a",
        "LPOP none",
        "LPOP l 0",
        "LSET l 9 x",
        "LINSERT l BEFORE none x",
        "LREM l 0 none",
        "LTRIM l 0 -1",
        "LTRIM none 5 1",
        "LMOVE none l LEFT LEFT",
        "LMOVE l k LEFT LEFT",
        "LPUSH k x",
        "BLPOP none 0",
        "LMPOP 1 none LEFT",
    ] {
        t.run(line);
        assert_eq!(t.take_logged(), [""; 0], "{line}");
    }
    assert_eq!(t.run("LRANGE l 0 -1"), "*3 $1 a $1 b $1 c ");
}

#[test]
fn replay_makes_what_random_commands_made() {
    let mut t = Runner::new();
    t.limits.list_max_listpack_size = 5;
    let mut random = Random::from_seed(23);
    let mut pick = |words: &[&str]| words[random.index(words.len())].to_owned();
    let long = "x".repeat(3000);
    let elements = ["1", "-7", "a", "b", "", "100000", &long];
    for _ in 0..4000 {
        let keys = ["l1", "l2", "l3", "str"];
        let (one, two) = (pick(&keys), pick(&keys));
        let (first, second) = (pick(&elements), pick(&elements));
        let index = pick(&["0", "1", "-1", "-2", "3", "7", "100"]);
        let end = pick(&["LEFT", "RIGHT"]);
        let verbs =
            ["push", "push", "push", "pushx", "pop", "set", "insert", "rem", "trim", "move", "mpop", "copy", "other"];
        let line = match pick(&verbs).as_str() {
            "push" => format!("{} {one} '{first}' '{second}'", pick(&["LPUSH", "RPUSH"])),
            "pushx" => format!("{} {one} '{first}'", pick(&["LPUSHX", "RPUSHX"])),
            "pop" => format!("{} {one} {}", pick(&["LPOP", "RPOP"]), pick(&["", "2", "0"])),
            "set" => format!("LSET {one} {index} '{first}'"),
            "insert" => format!("LINSERT {one} {} '{first}' '{second}'", pick(&["BEFORE", "AFTER"])),
            "rem" => format!("LREM {one} {} '{first}'", pick(&["0", "1", "-1"])),
            "trim" if index == "7" => format!("LTRIM {one} 1 -2"),
            "move" => format!("LMOVE {one} {two} {end} {}", pick(&["LEFT", "RIGHT"])),
            "mpop" => format!("LMPOP 2 {one} {two} {end} COUNT 2"),
            "copy" => format!("COPY {one} {two} REPLACE"),
            _ => "SET str 1".into(),
        };
        t.run(&line);
    }
    t.assert_replay_equals_live();
}

#[test]
fn a_long_list_is_found_its_way_in_from_both_ends() {
    let mut t = Runner::new();
    let numbers: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    for part in numbers.chunks(50) {
        t.run(&format!("RPUSH l {}", part.join(" ")));
    }
    assert_eq!(t.run("OBJECT ENCODING l"), "$9 quicklist ");
    assert_eq!(t.run("LINDEX l 2500"), "$4 2500 ");
    assert_eq!(t.run("LINDEX l -1"), "$4 4999 ");
    assert_eq!(t.run("LRANGE l 3000 3001"), "*2 $4 3000 $4 3001 ");
    t.run("LSET l 2500 x");
    t.run("LINSERT l AFTER x y");
    assert_eq!(t.run("LRANGE l 2499 2502"), "*4 $4 2499 $1 x $1 y $4 2501 ");
    assert_eq!(t.run("LPOS l 4999"), ":5000 ");
    t.run("LTRIM l 2499 2502");
    assert_eq!(t.run("OBJECT ENCODING l"), "$8 listpack ");
    assert_eq!(t.run("LLEN l"), ":4 ");
    t.assert_replay_equals_live();
}

/// Moving the only element of a list to the list itself once lost the expiry, because the key was removed with the
/// element and created again.
#[test]
fn a_rotated_list_keeps_its_expiry() {
    let mut t = Runner::new();
    t.run("RPUSH l a");
    t.run("EXPIRE l 100");
    for line in ["RPOPLPUSH l l", "LMOVE l l LEFT RIGHT", "LMOVE l l RIGHT RIGHT", "BLMOVE l l LEFT LEFT 0"] {
        assert_eq!(t.run(line), "$1 a ", "{line}");
        assert_eq!(t.run("TTL l"), ":100 ", "{line}");
    }
    assert_eq!(t.run("LRANGE l 0 -1"), "*1 $1 a ");
    t.assert_replay_equals_live();
}

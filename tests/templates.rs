//! Hashes with the same field names keep them once. Nobody sees a difference but in memory: not in replies, not in
//! payloads, and not after a crash or a snapshot.

mod support;

use support::client::Client;
use support::server::{Recipe, Server};

const HASHES: usize = 2000;
const NAMES: [&str; 5] = ["email_address", "first_name", "last_login", "country_of_residence", "3"];

fn start(entries_min: &str) -> Server {
    let recipe = Recipe::under_test().with("io-threads", "2").with("appendonly", "yes");
    recipe.with("hash-min-template-entries", entries_min).with("enable-debug-command", "yes").start()
}

/// A number of INFO.
fn info(client: &mut Client, name: &str) -> u64 {
    let text = client.ok("INFO everything").string();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("INFO has the number {name}"))
}

/// Hashes with the same names, made in all ways, and others.
fn fill(client: &mut Client) {
    let prepare = ["HIMPORT", "PREPARE", "imported"];
    client.call(&[&prepare[..], &["imported:a", "imported:b"]].concat());
    for at in 0..HASHES {
        let (key, value) = (format!("h:{at}"), format!("value {at}"));
        let pairs: Vec<&str> = NAMES.iter().flat_map(|name| [*name, &value]).collect();
        match at % 4 {
            0 | 1 => drop(client.call(&[&["HSET", &key][..], &pairs].concat())),
            2 => pairs.chunks(2).for_each(|pair| drop(client.call(&["HSET", &key, pair[0], pair[1]]))),
            _ => drop(client.call(&["HIMPORT", "SET", &key, "imported", &value, "7"])),
        }
        match at % 50 {
            8 => drop(client.ok(&format!("HDEL {key} country_of_residence"))),
            12 => drop(client.ok(&format!("HEXPIREAT {key} 33177117420 FIELDS 1 first_name"))),
            16 => drop(client.ok(&format!("HSET {key} {value:?} {value:?}"))),
            20 => drop(client.ok(&format!("HINCRBY {key} counter 5"))),
            24 => drop(client.ok(&format!("HSET {key} first_name \"x\"*100"))),
            28 => drop(client.ok(&format!("RENAME {key} renamed:{at}"))),
            32 => drop(client.ok(&format!("COPY {key} copied:{at}"))),
            _ => {}
        }
    }
}

#[test]
fn nothing_but_memory_tells_of_templates() {
    let (plain, mut server) = (start("0"), start("2"));
    let (mut plain, mut client) = (plain.client(), server.client());
    fill(&mut plain);
    fill(&mut client);
    assert_eq!((info(&mut plain, "hash_templates"), info(&mut plain, "hash_template_keys")), (1, 500), "HIMPORT's");
    let of_templates = info(&mut client, "hash_template_keys");
    assert!(of_templates > 1800, "{of_templates} of {HASHES} hashes");
    assert!(info(&mut client, "hash_templates") >= 5 && info(&mut client, "used_memory_hash_templates") > 200);
    let digest = plain.ok("DEBUG DIGEST").string();
    assert_eq!(client.ok("DEBUG DIGEST").string(), digest);
    for at in (0..HASHES).step_by(37) {
        for command in ["DUMP", "HGETALL", "HKEYS", "OBJECT ENCODING", "HSCAN"] {
            let line = format!("{command} h:{at}{}", if command == "HSCAN" { " 0" } else { "" });
            assert_eq!(client.line(&line), plain.line(&line), "{line}");
        }
    }
    let (small, large) = (client.ok("MEMORY USAGE h:1001").integer(), plain.ok("MEMORY USAGE h:1001").integer());
    assert!(small + 50 < large, "{small} bytes, and {large} with names");
    // What is persisted has names, and they are shared again.
    for how in ["log", "snapshot"] {
        if how == "snapshot" {
            client.ok("SAVE");
        }
        server.kill();
        server.start_again();
        client = server.client();
        assert_eq!(client.ok("DEBUG DIGEST").string(), digest, "from the {how}");
        let again = info(&mut client, "hash_template_keys");
        assert!(again > 1700, "{again} of {HASHES} hashes after a start from the {how}");
    }
    client.ok("FLUSHALL");
    assert_eq!(info(&mut client, "hash_template_keys"), 0);
}

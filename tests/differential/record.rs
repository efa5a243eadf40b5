//! The replies that stand in the case files behind `=>`, against a server that has those commands.
//!
//! The reference of the other tests is Redis 7.0, which is what systems package; it lacks newer commands and words
//! some errors otherwise. Their expected replies come from here: with `IRONKEEP_TEST_PEER` (a newer `redis-server`,
//! and the arguments before its own) the groups that have any are sent to that server, in RESP2 and RESP3, and every
//! difference is reported. With `IRONKEEP_TEST_RECORD` too, what it says is written into the files in place of what
//! stands there (nothing need stand behind a new `=>`). What is `=>ours` is left alone, and so is a group that says
//! `!since` a later version than the peer's; those are counted on the error output. `IRONKEEP_TEST_FILE` names the one
//! file to be asked for: a peer may crash on what stands in another.

use crate::cases::{Difference, Group, Run, Version, files, report, version};
use crate::cluster;
use crate::compare::{Pair, Protocol};
use crate::support::server::Recipe;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The replies of the peer where they differ from the file: by line of the command and protocol.
type Heard = BTreeMap<(usize, bool), Vec<u8>>;

#[test]
fn expected_replies_are_those_of_a_newer_server() {
    let Some(peer) = Recipe::peer() else { return };
    let mut differences = differing(&Pair::start(peer.clone()), files());
    let cluster = Pair { reference: cluster::redis(Recipe::reference()), tested: cluster::redis(peer) };
    differences.extend(differing(&cluster, cluster::groups()));
    if std::env::var_os("IRONKEEP_TEST_RECORD").is_some() {
        return record(differences);
    }
    let texts: Vec<String> = differences.into_iter().map(|difference| difference.text).collect();
    report(&texts);
}

/// The replies of the peer that differ from what stands in the files.
fn differing(pair: &Pair, groups: Vec<Group>) -> Vec<Difference> {
    let peers_version = version_of(pair);
    let only = std::env::var("IRONKEEP_TEST_FILE").ok();
    let mut differences = Vec::new();
    for group in groups.into_iter().filter(|group| only.as_deref().is_none_or(|only| only == group.file)) {
        let lines: BTreeSet<usize> = group
            .expecting()
            .filter(|call| call.expected.as_ref().is_some_and(|expected| !expected.is_ours))
            .map(|call| call.line_number)
            .collect();
        if lines.is_empty() {
            continue;
        }
        if group.since > peers_version {
            let (title, since, count) = (group.title(), group.since, lines.len());
            eprintln!("not asked for {count} replies of {since:?}: {} [{title}]", group.file);
            continue;
        }
        for protocol in Protocol::ALL {
            let run = Run { pair, protocol, batch: 1, flush: true, is_peer: true };
            differences.extend(run.group(&group).into_iter().filter(|found| lines.contains(&found.line_number)));
        }
    }
    differences
}

fn version_of(pair: &Pair) -> Version {
    let info = pair.tested.client().call(&["INFO", "server"]);
    let info = String::from_utf8_lossy(&info).into_owned();
    let line = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    version(line.expect("a server says its version"))
}

/// Writes what the peer said into the files.
fn record(differences: Vec<Difference>) {
    let mut files: BTreeMap<&str, Heard> = BTreeMap::new();
    for difference in differences {
        let tested = difference.tested.unwrap_or_else(|| panic!("no reply to write: {}", difference.text));
        let key = (difference.line_number, difference.protocol == Protocol::Resp3);
        files.entry(difference.file).or_default().insert(key, tested);
    }
    for (file, heard) in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/cases").join(file);
        let text = std::fs::read_to_string(&path).expect("a case file");
        std::fs::write(&path, written(&text, &heard)).expect("a case file can be written");
    }
}

/// The text of a case file with the replies in their places.
fn written(text: &str, heard: &Heard) -> String {
    let mut out = String::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let said = |is_resp3| heard.get(&(index + 1, is_resp3));
        if said(false).is_none() && said(true).is_none() {
            continue;
        }
        let (mut old2, mut old3) = (None, None);
        while let Some((_, line)) = lines.next_if(|(_, line)| line.trim_start().starts_with("=>")) {
            let quoted = line.trim_start().trim_start_matches("=>");
            match quoted.strip_prefix('3') {
                Some(quoted) => old3 = Some(quoted.trim().to_owned()),
                None => old2 = Some(quoted.trim().to_owned()),
            }
        }
        let new2 = said(false).map(|reply| quoted(reply)).or_else(|| old2.clone()).unwrap_or_default();
        let new3 = said(true).map(|reply| quoted(reply)).or(old3).or(old2).unwrap_or_default();
        out.push_str(&format!("    => {new2}\n"));
        if new3 != new2 {
            out.push_str(&format!("    =>3 {new3}\n"));
        }
    }
    out
}

/// As the case files quote.
fn quoted(reply: &[u8]) -> String {
    format!("\"{}\"", reply.escape_ascii().to_string().replace("\\'", "'"))
}

#[test]
fn replies_are_written_into_their_places() {
    let text = "# group\nA\n    => \":1\\r\\n\"\n    =>3 \":2\\r\\n\"\nB\n    =>\nC\nD\n    => \"_\\r\\n\"\n";
    let heard = Heard::from([
        ((2, true), b",1\r\n".to_vec()),
        ((5, false), b"+it's \"\xff\"\r\n".to_vec()),
        ((5, true), b"+it's \"\xff\"\r\n".to_vec()),
        ((8, false), b"$-1\r\n".to_vec()),
    ]);
    assert_eq!(
        written(text, &heard),
        concat!(
            "# group\nA\n    => \":1\\r\\n\"\n    =>3 \",1\\r\\n\"\n",
            "B\n    => \"+it's \\\"\\xff\\\"\\r\\n\"\n",
            "C\nD\n    => \"$-1\\r\\n\"\n    =>3 \"_\\r\\n\"\n",
        )
    );
}

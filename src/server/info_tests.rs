//! INFO against the facts of Redis 7.2 (`data/facts/info.tsv`) and of what came later (`data/facts/info-newer.tsv`).

use std::collections::BTreeSet;

use super::testing::{Caller, snapshot, start};
use crate::base::latency::Event;
use crate::core::backup::{Outcome, Phase};
use crate::core::hotkeys::Wish;
use crate::core::server::SavePurpose;
use crate::observe::constant::CONSTANT;
use crate::observe::info::report;
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;

const FACTS: &str = include_str!("../../data/facts/info.tsv");
const NEWER: &str = include_str!("../../data/facts/info-newer.tsv");

/// Section, field and value of each line of INFO.
fn shown(info: &str) -> Vec<(String, &str, &str)> {
    let (mut section, mut all) = (String::new(), Vec::new());
    for line in info.split("\r\n").filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(heading) => section = heading.to_ascii_lowercase(),
            None => {
                let (field, value) = line.split_once(':').expect("a field and its value");
                all.push((section.clone(), field, value));
            }
        }
    }
    all
}

#[test]
fn every_field_of_redis_is_shown_in_its_order_and_what_is_constant_is_listed() {
    let server = start(&SimStorage::new(), 1, 2, FsyncPolicy::No).expect("a server");
    let info = report(&server, &[b"everything"], server.started_ms);
    let shown = shown(&info);
    let facts = FACTS.lines().filter(|line| !line.starts_with('#')).skip(1);
    let facts: Vec<(&str, &str)> = facts
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            (columns[0], columns[1])
        })
        .collect();
    let known: BTreeSet<_> = facts.iter().copied().collect();
    let ours = shown.iter().map(|(section, field, _)| (&**section, *field));
    assert_eq!(ours.filter(|field| known.contains(field)).collect::<Vec<_>>(), facts);
    for row in CONSTANT {
        let found: Vec<_> = shown.iter().filter(|(s, field, _)| s == row.section && *field == row.field).collect();
        assert!(matches!(found[..], [(_, _, value)] if *value == row.value), "{} {}", row.section, row.field);
        assert!(row.reason.ends_with('.'), "{}: a reason is a sentence", row.field);
    }
}

/// The lines of a name that begins so.
fn lines_of(server: &crate::core::Server, beginning: &str) -> Vec<String> {
    let info = report(server, &[b"persistence"], server.started_ms);
    info.lines().filter(|line| line.starts_with(beginning)).map(str::to_owned).collect()
}

#[test]
fn what_takes_long_is_told_while_it_runs() {
    let server = start(&SimStorage::new(), 1, 2, FsyncPolicy::No).expect("a server");
    let nothing = Vec::<String>::new();
    assert_eq!((lines_of(&server, "scrub_current"), lines_of(&server, "backup_current")), (nothing.clone(), nothing));
    server.scrub.progress.begin(200);
    assert_eq!(lines_of(&server, "scrub_current_eta"), ["scrub_current_eta_seconds:-1"], "nothing is done");
    server.scrub.progress.add(50);
    let lines = lines_of(&server, "scrub_current");
    let known = ["scrub_current_bytes:50", "scrub_current_total_bytes:200", "scrub_current_perc:25.00"];
    assert_eq!(lines[..3], known);
    let eta = lines[3].strip_prefix("scrub_current_eta_seconds:").and_then(|seconds| seconds.parse::<i64>().ok());
    assert!(eta.is_some_and(|seconds| seconds >= 0), "{lines:?}");
    server.scrub.progress.end();
    assert_eq!(lines_of(&server, "scrub_current"), Vec::<String>::new());
    // A backup, from its snapshot to its end.
    let step = |phase, verifies, sends| {
        let mut backup = server.backup.lock();
        (backup.phase, backup.is_sealing) = (phase, true);
        backup.verification.outcome = if verifies { Outcome::Running } else { Outcome::Done };
        backup.sending.outcome = if sends { Outcome::Running } else { Outcome::None };
        drop(backup);
        lines_of(&server, "backup_current").join(" ")
    };
    server.saving.progress.begin(4);
    server.saving.progress.add(2);
    let told = step(Phase::Snapshotting, false, false);
    assert!(told.starts_with("backup_current_step:snapshot backup_current_perc:50.00 backup_current_eta_"), "{told}");
    assert!(!told.ends_with("-1"), "{told}");
    server.saving.progress.end();
    let unknown = "backup_current_perc:0.00 backup_current_eta_seconds:-1";
    let sealing = step(Phase::Incrementing { snapshot: 1 }, false, false);
    assert_eq!(sealing, format!("backup_current_step:seal {unknown}"));
    server.saving.verification.begin(10);
    server.saving.verification.add(1);
    let told = step(Phase::Sealed, true, false);
    assert!(told.starts_with("backup_current_step:verification backup_current_perc:10.00 "), "{told}");
    server.saving.verification.end();
    assert_eq!(step(Phase::Sealed, false, true), format!("backup_current_step:command {unknown}"));
    assert_eq!(step(Phase::Sealed, false, false), "");
}

/// A server with what makes fields appear that are shown sometimes.
#[test]
fn every_newer_field_is_shown_or_has_its_reason() {
    let server = start(&SimStorage::new(), 1, 2, FsyncPolicy::No).expect("a server");
    let config = &server.config;
    let pairs: [(&[u8], &[u8]); 3] =
        [(b"hotkeys-top-k", b"8"), (b"key-memory-histograms", b"yes"), (b"compatibility-mode", b"valkey")];
    config.set(&pairs, true, |_, _, _| Ok(())).expect("these directives can be set");
    server.follow(&config.settings());
    let wish = Wish { cpu: true, net: true, count: 1, duration_ms: 0, sample_ratio: 1, slots: None };
    assert!(server.hotkeys.start(wish, 0, (0, 0), &server.hooks));
    let mut caller = Caller::new(&server, 0);
    for line in ["SET s abcdefgh", "SET n 12", "RPUSH l a b c", "SADD m a", "ZADD z 1 a", "HSET h a 1"] {
        let reply = caller.run(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    let info = report(&server, &[b"everything"], server.started_ms);
    let shown = shown(&info);
    let value_of = |section: &str, field: &str| shown.iter().find(|(s, f, _)| s == section && *f == field);
    for line in NEWER.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [section, field, _, word] = columns[..] else { panic!("four columns: {line}") };
        let is_shown = value_of(section, field).is_some();
        match word {
            "shown" | "sometimes" => assert!(is_shown, "{section}: {field} is missing"),
            reason => assert!(reason.ends_with('.') && !is_shown, "{section}: {field} is shown, against its reason"),
        }
    }
    for (field, value) in [
        ("db0_distrib_strings_sizes", "2=1,8=1"),
        ("db0_distrib_lists_items", "2=1"),
        ("db0_distrib_hashes_items", "1=1"),
    ] {
        assert_eq!(value_of("keysizes", field).map(|(.., value)| *value), Some(value), "{field}");
    }
}

/// Events that no command causes. Most are too short to be noted, on a machine that is not slow.
#[test]
fn expiry_and_the_freeze_of_a_snapshot_are_events_of_the_latency_monitor() {
    let server = start(&SimStorage::new(), 1, 1, FsyncPolicy::No).expect("a server");
    let mut caller = Caller::new(&server, 0);
    assert_eq!(caller.run("SET k v PX 1"), "+OK ");
    server.latency.note_all();
    let mut sweep = || {
        caller.executor.sweep_expired(100);
    };
    let mut save = || snapshot(&server, SavePurpose::Save).expect("a snapshot");
    let causes: [(Event, &mut dyn FnMut()); 2] = [(Event::ExpireCycle, &mut sweep), (Event::SnapshotFreeze, &mut save)];
    for (event, cause) in causes {
        let noted = || server.latency.all().iter().any(|(noted, _)| *noted == event);
        assert!(!noted(), "{event:?}");
        cause();
        assert!(noted(), "{event:?}");
    }
}

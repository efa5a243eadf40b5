//! The tools on real directories, by their arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::*;

fn tool(name: &str, args: &[&str]) -> Ended {
    let (_, run) = TOOLS.iter().find(|(known, _)| *known == name).expect("a tool");
    run(args.iter().map(OsString::from).collect())
}

/// What a tool says with `--json`, and how it ends.
fn as_json(name: &str, args: &[&str]) -> (serde_json::Value, u8) {
    let (text, code) = tool(name, &[args, &["--json"]].concat()).expect("it has worked");
    assert!(text.ends_with("}\n") || text.ends_with("]\n"), "{text}");
    (serde_json::from_str(&text).expect("JSON"), code)
}

/// A copy of a directory under `data/`.
fn golden(name: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
    }
    let path = dir.path().display().to_string();
    (dir, path)
}

fn flip(file: PathBuf, at: usize) {
    let mut bytes = std::fs::read(&file).expect("readable");
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).expect("writable");
}

#[test]
fn every_tool_has_a_name_on_the_command_line() {
    let names: Vec<&str> = TOOLS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, crate::base::config::TOOLS);
}

#[test]
fn golden_directories_are_sound_and_load() {
    for name in ["store-v1-server", "store-v1-collections", "store-v2-functions", "store-v2-verbs", "store-v2-blessed"]
    {
        let (dir, path) = golden(name);
        let files = || std::fs::read_dir(dir.path()).expect("readable").count();
        let before = files();
        let (text, code) = tool("check", &[&path, "--load"]).expect("checked");
        assert_eq!(code, SOUND, "{name}: {text}");
        assert!(text.contains("loaded: ") && text.ends_with("sound\n"), "{name}: {text}");
        let (text, code) = tool("check", &["--json", &path]).expect("checked");
        assert!(code == SOUND && text.contains(r#""sound":true"#) && text.contains(r#""faults":[]"#), "{text}");
        assert_eq!(files(), before, "nothing is left behind");
    }
}

#[test]
fn damage_is_named_and_repaired_as_far_as_can_be_proven() {
    let (dir, path) = golden("store-v2-verbs");
    let log = dir.path().join("log-0000000000000003.ik");
    flip(log.clone(), 70);
    let (text, code) = tool("check", &[&path]).expect("checked");
    assert_eq!(code, DAMAGED, "{text}");
    assert!(text.contains("log-0000000000000003.ik at offset 64, block"), "{text}");
    let into = tempfile::tempdir().expect("a directory");
    let new = into.path().join("new").display().to_string();
    let (text, code) = tool("repair", &[&path, "--into", &new]).expect("repaired");
    assert!(code == DAMAGED && text.contains("lost: "), "{text}");
    let (text, code) = tool("check", &[&new, "--load"]).expect("checked");
    assert_eq!(code, SOUND, "{text}");
    let beside = into.path().join("beside").display().to_string();
    let (said, code) = as_json("repair", &[&path, "--into", &beside]);
    assert_eq!(code, DAMAGED);
    assert!(said["lost_blocks"].as_u64().expect("a number") > 0 && said["into"] == beside.as_str(), "{said}");
    assert_eq!(said["faults"][0]["offset"], 64, "{said}");
    let again = tool("repair", &[&path, "--into", &new]).expect_err("refused");
    assert!(again.contains("nothing is overwritten"), "{again}");
    // Without any manifest, the files speak for themselves.
    flip(log, 70);
    std::fs::remove_file(dir.path().join("MANIFEST")).expect("removed");
    let newer = into.path().join("newer").display().to_string();
    let (text, _) = tool("repair", &[&path, "--into", &newer]).expect("repaired");
    assert!(text.contains("the manifest was not relied on"), "{text}");
    assert_eq!(tool("check", &[&newer, "--load"]).expect("checked").1, SOUND);
}

#[test]
fn a_state_is_listed_and_restored() {
    let (_dir, path) = golden("store-v1-server");
    let (text, _) = tool("restore", &[&path, "--list"]).expect("listed");
    assert!(text.starts_with("current generation: snapshot 1 with "), "{text}");
    let (json, _) = tool("restore", &[&path, "--list", "--json"]).expect("listed");
    let field = |name: &str| {
        let at = json.find(&format!("\"{name}\":")).expect("a field") + name.len() + 3;
        json[at..].split([',', '}']).next().expect("a value").to_owned()
    };
    let into = tempfile::tempdir().expect("a directory");
    for (at, target) in [format!("block:{}", field("from_block")), field("to_time_ms")].iter().enumerate() {
        let new = into.path().join(at.to_string()).display().to_string();
        let (text, code) = tool("restore", &[&path, "--to", target, "--into", &new]).expect("restored");
        assert!(code == SOUND && text.contains(" keys, from the current generation"), "{text}");
        assert_eq!(tool("check", &[&new, "--load"]).expect("checked").1, SOUND);
    }
    let new = into.path().join("as-json").display().to_string();
    let (said, _) = as_json("restore", &[&path, "--to", &field("to_time_ms"), "--into", &new]);
    assert!(said["into"] == new.as_str() && said["generation"]["current"] == true, "{said}");
    assert_eq!(said["block"].to_string(), field("to_block"));
    let new = into.path().join("never").display().to_string();
    let error = tool("restore", &[&path, "--to", "block:999999", "--into", &new]).expect_err("refused");
    assert!(error.contains("no generation reaches that state"), "{error}");
    assert!(!Path::new(&new).exists());
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for (name, args) in [
        ("check", &[][..]),
        ("check", &["a", "b"]),
        ("check", &["a", "--loud"]),
        ("check", &["/nonexistent/directory"]),
        ("restore", &["/tmp", "--to"]),
        ("restore", &["/tmp", "--to", "1", "--to", "2"]),
        ("restore", &["/tmp", "--into", "b"]),
        ("restore", &["/tmp", "--to", "yesterday", "--into", "b"]),
        ("repair", &["/tmp"]),
    ] {
        assert!(tool(name, args).is_err(), "{name} {args:?}");
    }
    let (text, code) =
        tool("check", &[&tempfile::tempdir().expect("a directory").path().display().to_string()]).expect("looked at");
    assert!(code == UNREADABLE && text.contains("there is no store here"), "{text}");
}

//! What becomes of a backup after its seal: it is loaded, marked if it is damaged, and sent away.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::client::Client;
use support::reply::Reply;
use support::server::{Recipe, Server};

/// After this long, what should have happened is a failure. What looks after backups leaves the cores to all others.
const FAILED_AFTER: Duration = Duration::from_secs(180);

fn recipe() -> Recipe {
    Recipe::under_test().with("save", "").with("enable-debug-command", "yes")
}

/// A field of BACKUP STATUS.
fn status(client: &mut Client, name: &str) -> String {
    let fields = client.ok("BACKUP STATUS");
    let mut pairs = fields.elements().chunks_exact(2);
    let value = &pairs.find(|pair| pair[0].text() == name.as_bytes()).expect("a field")[1];
    match value {
        Reply::Integer(number) => number.to_string(),
        text => text.string(),
    }
}

fn wait_for(client: &mut Client, name: &str, wanted: &str) {
    let deadline = Instant::now() + FAILED_AFTER;
    while status(client, name) != wanted {
        assert!(Instant::now() < deadline, "{name}: {wanted} and not {}", status(client, name));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes a backup of snapshot and log, with libraries, databases and keys that were renamed.
fn back_up(server: &Server) -> i64 {
    let mut client = server.client();
    for number in 0..300 {
        client.ok(&format!("SET key:{number} {number}"));
        client.ok(&format!("RPUSH list:{} {number} b c", number % 7));
    }
    client.ok("BACKUP START");
    wait_for(&mut client, "state", "incrementing");
    client.ok("RENAME key:1 other");
    client.ok("SELECT 3");
    client.ok("MSET a 1 b 2");
    client.ok("SWAPDB 3 4");
    client.ok("SELECT 0");
    client.ok("DEL key:2 list:0");
    let keys = client.ok("DBSIZE").integer() + 2;
    client.ok("BACKUP SEAL");
    keys
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_backup_is_loaded_once_it_is_sealed() {
    for (log, encrypted) in [("yes", false), ("yes", true), ("no", false)] {
        let keys = tempfile::tempdir().expect("a directory");
        let key = keys.path().join("key");
        std::fs::write(&key, "7".repeat(64)).expect("written");
        let mut recipe = recipe().with("appendonly", log);
        if encrypted {
            recipe = recipe.with("encryption-key-file", shown(&key));
        }
        let server = recipe.start();
        let expected = back_up(&server);
        let mut client = server.client();
        wait_for(&mut client, "verification", "ok");
        let found: i64 = status(&mut client, "verified_keys").parse().expect("a number");
        // Of an encrypted log every record is decoded, and none is applied.
        let is_right = if encrypted { found == 307 } else { found == expected };
        assert!(is_right, "log {log}, encrypted {encrypted}: {found} of {expected}");
        assert_eq!(status(&mut client, "command"), "none");
        client.ok("BACKUP VERIFY");
        let info = client.ok("INFO persistence").string();
        for line in ["backup_verification:ok", &format!("backup_verified_keys:{found}"), "backup_command_status:none"] {
            assert!(info.contains(line), "{line}: {info}");
        }
        assert!(server.log().contains("The backup is verified"), "{}", server.log());
    }
}

#[test]
fn a_flipped_byte_is_told_with_its_place_and_marks_the_backup() {
    for part in ["snapshot-", "log-"] {
        let mut server = recipe().start();
        back_up(&server);
        let mut client = server.client();
        wait_for(&mut client, "verification", "ok");
        let directory = server.directory().join("backupdir");
        let files = std::fs::read_dir(&directory).expect("listed").flatten().map(|entry| entry.path());
        let of_part = files.filter(|path| shown(path).contains(part));
        let file = of_part.max_by_key(|path| path.metadata().expect("there").len()).expect("a file");
        // The file has another name in the data directory, where it is to stay as it is.
        let mut bytes = std::fs::read(&file).expect("read");
        bytes[300] ^= 1;
        std::fs::remove_file(&file).expect("removed");
        std::fs::write(&file, &bytes).expect("written");
        let reply = client.call(&["BACKUP", "VERIFY"]);
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let place = format!("{} at offset ", file.display());
        assert!(reply.starts_with("-ERR The backup failed: ") && reply.contains(&place), "{reply}");
        for name in ["state", "verification"] {
            assert_eq!(status(&mut client, name), "failed");
        }
        assert!(status(&mut client, "error").contains(&place));
        assert!(server.log().contains("The backup is damaged, make another one: "), "{}", server.log());
        // The mark outlives the server.
        server.kill();
        server.start_again();
        let mut client = server.client();
        assert_eq!(status(&mut client, "state"), "failed");
        assert!(status(&mut client, "error").contains(&place));
        assert!(client.call(&["BACKUP", "VERIFY"]).starts_with(b"-ERR There is no sealed backup"));
        client.ok("BACKUP CLEANUP");
        assert_eq!(std::fs::read_dir(&directory).expect("listed").count(), 0);
        client.ok("BACKUP START");
        wait_for(&mut client, "state", "incrementing");
    }
}

fn script(home: &Path, text: &str) -> PathBuf {
    let path = home.join("send.sh");
    std::fs::write(&path, format!("set -e\nhome={}\n{text}\n", home.display())).expect("written");
    path
}

#[test]
fn a_backup_is_sent_away_by_a_command_that_is_tried_again() {
    let home = tempfile::tempdir().expect("a directory");
    let path = script(
        home.path(),
        "echo attempt >> $home/attempts\n[ $(wc -l < $home/attempts) -gt 1 ] || { echo no route >&2; exit 7; }\n\
         until [ -e $home/go ]; do sleep 0.02; done\n\
         cp -r \"$1\" $home/copy\necho \"$IRONKEEP_BACKUP_ID $IRONKEEP_BACKUP_SIZE\" > $home/told",
    );
    let server = recipe().with("backup-command", &format!("sh {} \"$1\"", path.display())).start();
    let expected = back_up(&server);
    let mut client = server.client();
    wait_for(&mut client, "command_attempts", "2");
    // It holds up nothing: commands run, snapshots are made.
    assert_eq!((status(&mut client, "command"), status(&mut client, "verification")), ("running".into(), "ok".into()));
    assert!(server.log().contains("no route"), "{}", server.log());
    client.ok("SET after 1");
    client.ok("SAVE");
    std::fs::write(home.path().join("go"), "").expect("written");
    wait_for(&mut client, "command", "ok");
    assert_eq!(status(&mut client, "command_exit_code"), "0");
    let told = std::fs::read_to_string(home.path().join("told")).expect("told");
    assert_eq!(told.trim(), format!("{} {}", status(&mut client, "end_time"), status(&mut client, "bytes")));
    let copy = recipe().start_in(&home.path().join("copy"));
    let mut of_copy = copy.client();
    assert_eq!(of_copy.ok("DBSIZE").integer() + 2, expected);
    assert!(client.call(&["CONFIG", "SET", "backup-command", "x"]).starts_with(b"-ERR"), "it is protected");
}

#[test]
fn what_fails_or_hangs_is_given_up_and_told() {
    let home = tempfile::tempdir().expect("a directory");
    let path = script(home.path(), "exit 5");
    let server =
        recipe().with("backup-command", &format!("sh {}", path.display())).with("backup-command-attempts", "2").start();
    back_up(&server);
    let mut client = server.client();
    wait_for(&mut client, "command", "failed");
    assert_eq!(
        (status(&mut client, "command_attempts"), status(&mut client, "command_exit_code")),
        ("2".into(), "5".into())
    );
    assert_eq!(status(&mut client, "state"), "sealed");
    assert!(client.ok("INFO persistence").string().contains("backup_command_status:failed"));
    // One that is removed ends its command.
    let path = script(home.path(), "echo $$ > $home/pid; sleep 1000");
    let server = recipe().with("backup-command", &format!("sh {}", path.display())).start();
    back_up(&server);
    let mut client = server.client();
    wait_for(&mut client, "command", "running");
    let pid = home.path().join("pid");
    let deadline = Instant::now() + FAILED_AFTER;
    while std::fs::read_to_string(&pid).unwrap_or_default().trim().is_empty() {
        assert!(Instant::now() < deadline, "the command runs");
        std::thread::sleep(Duration::from_millis(5));
    }
    let process = Path::new("/proc").join(std::fs::read_to_string(&pid).expect("read").trim());
    client.ok("BACKUP CLEANUP");
    while process.exists() {
        assert!(Instant::now() < deadline, "the command is ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}

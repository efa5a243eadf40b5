//! Real file systems on a loop device: a full disk, and power cuts.
//!
//! They need root, a loop device and `mkfs`. Where something is missing, the test says so and passes: what it would
//! show is also shown on the simulated disk.
//!
//! A power cut is made so: the server is stopped (SIGSTOP), the image under the file system is copied, and the server
//! killed. The copy holds what the file system had written, its journal included, and nothing of the page cache.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::Client;
use support::keys::{Keys, KeysModel};
use support::linear::Checker;
use support::load;
use support::random::Random;
use support::server::Recipe;

const CLIENTS: usize = 8;

/// A file system in a file, unmounted when dropped.
struct Mounted {
    home: tempfile::TempDir,
    image: PathBuf,
}

impl Mounted {
    /// A new file system of this kind, or why there is none.
    fn new(kind: &str, mib: u64) -> Result<Mounted, String> {
        let home = tempfile::tempdir().expect("a temporary directory");
        let image = home.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mib << 20).map_err(|error| error.to_string())?;
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image))?;
        Mounted::of(home, image)
    }

    fn of(home: tempfile::TempDir, image: PathBuf) -> Result<Mounted, String> {
        std::fs::create_dir(home.path().join("mounted")).map_err(|error| error.to_string())?;
        let mounted = Mounted { home, image };
        run(Command::new("mount").args(["-o", "loop"]).arg(&mounted.image).arg(mounted.path()))?;
        Ok(mounted)
    }

    fn in_memory(mib: u64) -> Result<Mounted, String> {
        let home = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(home.path().join("mounted")).map_err(|error| error.to_string())?;
        let mounted = Mounted { home, image: PathBuf::new() };
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(mounted.path()))?;
        Ok(mounted)
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("mounted")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may not have been mounted.
        let _ = run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Runs a test on each kind of file system that can be made here.
fn on_each(test: fn(&str, Mounted)) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root mounts file systems");
        return;
    }
    for (kind, mib) in [("ext4", 48), ("xfs", 320), ("btrfs", 128)] {
        match Mounted::new(kind, mib) {
            Ok(mounted) => {
                test(kind, mounted);
                println!("{kind}: done");
            }
            Err(why) => println!("skipped {kind}: {why}"),
        }
    }
}

fn recipe(policy: &str) -> Recipe {
    Recipe::under_test().with("save", "").with("appendonly", "yes").with("appendfsync", policy)
}

/// Sets keys until the server refuses, or closes the connection, because it cannot keep the last one. Returns how many
/// were acknowledged.
fn fill(client: &mut Client, value: &str) -> u64 {
    for number in 0.. {
        let key = format!("key:{number}");
        match client.try_call(&["SET", &key, value]) {
            Ok(reply) if reply == b"+OK\r\n" => {}
            Ok(reply) => {
                assert!(reply.starts_with(b"-MISCONF"), "{}", reply.escape_ascii());
                return number;
            }
            Err(_) => return number,
        }
    }
    unreachable!("no disk is that large")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_full_disk_loses_nothing_acknowledged_and_heals() {
    on_each(|kind, mounted| {
        // Whatever size the file system is, little room is left.
        let filler = mounted.path().join("filler");
        fill_up_to(&filler, 12 << 20);
        let data = mounted.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        let mut server = recipe("everysec").start_in(&data);
        let value = "v".repeat(20_000);
        let acknowledged = fill(&mut server.client(), &value);
        assert!(acknowledged > 10, "{kind}: {acknowledged}");
        let mut client = server.client();
        assert_eq!(client.line("GET key:0").string(), value, "{kind}: reads go on");
        std::fs::remove_file(&filler).expect("the filler");
        until("the log heals", || !client.line("SET after it").is_error());
        server.kill();
        server.start_again();
        let mut client = server.client();
        for number in 0..acknowledged {
            assert_eq!(
                client.line(&format!("GET key:{number}")).string(),
                value,
                "{kind}: key {number} of {acknowledged}"
            );
        }
        assert_eq!(client.line("GET after").string(), "it");
        server.kill();
    });
}

fn figure(client: &mut Client, name: &str) -> u64 {
    let info = client.ok("INFO persistence").string();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("INFO lacks {name}")).trim().parse().expect("a number")
}

#[test]
fn on_a_full_disk_keys_are_removed_and_that_makes_room() {
    on_each_and_in_memory(|kind, mounted| {
        let filler = mounted.path().join("filler");
        fill_up_to(&filler, 16 << 20);
        let data = mounted.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        let mut server = recipe("everysec").start_in(&data);
        let mut client = server.client();
        until("room is kept", || figure(&mut client, "disk_free_bytes") > 0);
        let value: String =
            (0..2000).map(|number| format!("{:08x}", number * 2_654_435_761_u64 % 0xFFFF_FFFF)).collect();
        let acknowledged = fill(&mut client, &value);
        assert!(acknowledged > 100, "{kind}: {acknowledged}");
        assert_eq!(figure(&mut client, "disk_full"), 1, "{kind}");
        let reply = client.call(&["BGSAVE"]);
        assert!(reply.starts_with(b"-ERR There is not enough room on the disk"), "{kind}: {}", reply.escape_ascii());
        for number in 0..100 {
            assert_eq!(client.line(&format!("DEL key:{number}")).integer(), 1, "{kind}");
            let next = (number + 100) % acknowledged;
            assert!(!client.line(&format!("EXPIRE key:{next} 5000")).is_error(), "{kind}");
        }
        let mut copy = server.client();
        assert_eq!(copy.line("DBSIZE").integer() as u64, acknowledged - 100, "{kind}");
        // What was acknowledged on a full disk is there after a `kill -9`.
        server.kill();
        std::fs::remove_file(&filler).expect("the filler");
        server.start_again();
        let mut client = server.client();
        assert_eq!(client.line("DBSIZE").integer() as u64, acknowledged - 100, "{kind}");
        for number in 0..acknowledged {
            let expected = if number < 100 { None } else { Some(value.as_str()) };
            let found = client.call(&["GET", &format!("key:{number}")]);
            assert_eq!(found != b"$-1\r\n", expected.is_some(), "{kind}: {number}");
        }
        // Full again. Nobody makes room but the server itself.
        until("room is kept", || figure(&mut client, "disk_free_bytes") > 0);
        fill_up_to(&filler, 12 << 20);
        fill(&mut client, &value);
        assert_eq!(figure(&mut client, "disk_full"), 1, "{kind}");
        client.ok("FLUSHALL");
        until("the disk has room again", || !client.line("SET after it").is_error());
        assert_eq!(figure(&mut client, "disk_full"), 0, "{kind}");
        server.kill();
        server.start_again();
        let mut client = server.client();
        assert_eq!((client.line("DBSIZE").integer(), client.line("GET after").string()), (1, "it".into()), "{kind}");
        server.kill();
    });
}

/// The same as [`on_each`], and a file system in memory.
fn on_each_and_in_memory(test: fn(&str, Mounted)) {
    on_each(test);
    if rustix::process::geteuid().is_root() {
        match Mounted::in_memory(48) {
            Ok(mounted) => {
                test("tmpfs", mounted);
                println!("tmpfs: done");
            }
            Err(why) => println!("skipped tmpfs: {why}"),
        }
    }
}

/// Makes a file so large that only this many bytes stay free.
fn fill_up_to(path: &Path, free: u64) {
    let directory = path.parent().expect("a directory");
    let space = rustix::fs::statvfs(directory).expect("the file system's figures");
    let available = space.f_bavail * space.f_frsize;
    let Some(len) = available.checked_sub(free) else { return };
    std::fs::write(path, vec![1; len as usize]).expect("there is room for the filler");
}

#[test]
fn a_power_cut_under_always_loses_nothing_acknowledged() {
    let seed = Random::seed_of_this_run();
    println!("IRONKEEP_TEST_SEED={seed}");
    on_each(|kind, mounted| {
        let mut random = Random::new(Random::seed_of_this_run());
        let mut server = recipe("always").start_in(&mounted.path());
        let objects = load::objects_for(CLIENTS);
        let clock = load::Clock::default();
        let after = tempfile::tempdir().expect("a temporary directory");
        let copy = after.path().join("image");
        let histories = load::live(&mut server, &objects, CLIENTS, &mut random, &clock, |server| {
            let id = server.id().to_string();
            run(Command::new("kill").args(["-STOP", &id])).expect("the server stops");
            std::fs::copy(&mounted.image, &copy).expect("a copy of the image");
            server.kill();
        });
        let mut parts = load::by_object(&objects, histories);
        // No two with the same name for themselves are mounted, at least with xfs and btrfs.
        drop(mounted);
        let cut = Mounted::of(after, copy).unwrap_or_else(|why| panic!("{kind} does not mount after the cut: {why}"));
        let mut server = recipe("always").start_in(&cut.path());
        load::look(&server, &objects, &clock, &mut parts);
        let mut answered = 0;
        for (object, part) in objects.iter().zip(parts) {
            let mut checker = Checker::<KeysModel>::new(Keys::new());
            checker.feed(part).unwrap_or_else(|what| panic!("{kind}, {}: {what}", object.name));
            answered += checker.answered;
        }
        println!("{kind}: a power cut after {answered} acknowledged calls lost none");
        server.kill();
    });
}

//! The doors of a server, each with somebody who tries to get in.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::{Address, Client};
use support::server::Recipe;
use support::words;

fn recipe() -> Recipe {
    Recipe::under_test().with("save", "").with("io-threads", "2")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The permissions of a file; `None`: it is gone.
fn mode_of(path: &Path) -> Option<u32> {
    match fs::metadata(path) {
        Ok(found) => Some(found.permissions().mode() & 0o777),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{}: {error}", path.display());
            None
        }
    }
}

fn mode(path: &Path) -> u32 {
    mode_of(path).expect("it is there")
}

#[test]
fn renamed_commands_answer_as_in_redis() {
    let renamed = |recipe: Recipe| {
        recipe
            .with_words("rename-command", &["CONFIG", "b840fc02d524045429941cc15f59e41cb7be6c52"])
            .with_words("rename-command", &["FLUSHALL", ""])
            .with_words("rename-command", &["get", "Holen"])
            .with_words("rename-command", &["EXEC", "los"])
            .with("slowlog-log-slower-than", "0")
            .start()
    };
    let (ours, redis) = (renamed(recipe()), renamed(Recipe::reference()));
    let (mut tested, mut reference) = (ours.client(), redis.client());
    for line in [
        "CONFIG GET port",
        "config",
        "FLUSHALL",
        "SET a 1",
        "GET a",
        "HOLEN a",
        "holen",
        "B840FC02D524045429941CC15F59E41CB7BE6C52 get maxmemory",
        "b840fc02d524045429941cc15f59e41cb7be6c52",
        "b840fc02d524045429941cc15f59e41cb7be6c52 nope",
        "COMMAND INFO get flushall exec config|get",
        "COMMAND INFO holen",
        "COMMAND DOCS get",
        "COMMAND GETKEYS holen a",
        "COMMAND GETKEYS get a",
        "COMMAND LIST FILTERBY PATTERN flusha*",
        "COMMAND LIST FILTERBY PATTERN conf*g",
        "COMMAND LIST FILTERBY PATTERN exec",
        "MULTI",
        "INCR a",
        "holen a",
        "flushall",
        "EXEC",
        "DISCARD",
        "MULTI",
        "holen a",
        "los",
        "EVAL \"return redis.call('holen', 'a')\" 0",
        "SLOWLOG RESET",
        "holen a",
    ] {
        let words = words::split(line);
        assert_eq!(text(&tested.call(&words)), text(&reference.call(&words)), "{line}");
    }
    // How they are shown.
    for (command, shown) in [
        (&["INFO", "commandstats"][..], "cmdstat_get:calls="),
        (&["SLOWLOG", "GET", "1"], "$5\r\nholen\r\n"),
        (&["LATENCY", "HISTOGRAM", "holen"], "$3\r\nget\r\n"),
    ] {
        for client in [&mut tested, &mut reference] {
            client.call(&["holen", "a"]);
            let reply = text(&client.call(command));
            assert!(reply.contains(shown), "{command:?}: {reply}");
        }
    }
    for server in [&ours, &redis] {
        let (mut monitor, mut client) = (server.client(), server.client());
        assert_eq!(monitor.call(&["MONITOR"]), b"+OK\r\n");
        client.call(&["holen", "a"]);
        assert!(text(&monitor.receive().expect("a line")).contains("\"holen\" \"a\""));
    }
    let eval = text(&tested.call(&["EVAL", "return redis.call('get', 'a')", "0"]));
    assert!(eval.contains("Unknown Redis command called from script"), "{eval}");
}

#[test]
fn the_log_knows_no_new_names() {
    let mut server = recipe().with_words("rename-command", &["SET", "secret-set"]).start();
    assert_eq!(server.client().call(&["secret-set", "k", "v"]), b"+OK\r\n");
    server.kill();
    server.set_recipe(recipe().with_words("rename-command", &["SET", ""]));
    server.start_again();
    assert_eq!(server.client().call(&["GET", "k"]), b"$1\r\nv\r\n");
}

#[test]
fn what_is_off_by_default_is_refused_as_in_redis() {
    let (ours, redis) = (recipe().start(), Recipe::reference().start());
    let (mut tested, mut reference) = (ours.client(), redis.client());
    for line in [
        "DEBUG SLEEP 0",
        "DEBUG JMAP",
        "MODULE LOAD /tmp/x.so",
        "MODULE UNLOAD x",
        "CONFIG SET dbfilename x.rdb",
        "CONFIG SET dir /tmp",
        "CONFIG SET enable-debug-command yes",
        "CONFIG SET enable-module-command yes",
        "CONFIG SET enable-protected-configs yes",
        "CONFIG SET unixsocketperm 777",
        "CONFIG GET enable-*",
    ] {
        let words = words::split(line);
        let (mut ours, mut theirs) = (text(&tested.call(&words)), text(&reference.call(&words)));
        if line.contains("GET") {
            // The order is free.
            let sorted = |reply: String| {
                let mut lines: Vec<String> = reply.lines().map(str::to_owned).collect();
                lines.sort();
                lines.join("\n")
            };
            (ours, theirs) = (sorted(ours), sorted(theirs));
        }
        assert_eq!(ours, theirs, "{line}");
    }
}

/// The address of this machine by which others reach it.
fn public_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

#[test]
fn protected_mode_lets_nobody_in_from_elsewhere() {
    let Some(address) = public_address() else {
        eprintln!("this machine has no other address than the loopback's: protected mode is not tried");
        return;
    };
    let server = recipe().with("bind", &format!("127.0.0.1 {address} -192.0.2.254 -::1")).start();
    let try_in = || {
        let stream = TcpStream::connect((&*address, server.port())).expect("it listens there, too");
        let mut client = Client::of(stream).expect("a socket");
        client.try_call(&["PING"])
    };
    let refused = text(&try_in().expect("the reason"));
    assert!(refused.starts_with("-DENIED Redis is running in protected mode because protected mode is"), "{refused}");
    assert_eq!(server.client().call(&["CONFIG", "SET", "requirepass", "secret"]), b"+OK\r\n");
    assert_eq!(text(&try_in().expect("an answer")), "-NOAUTH Authentication required.\r\n");
    let mut admin = server.client();
    admin.call(&["AUTH", "secret"]);
    assert_eq!(admin.call(&["CONFIG", "SET", "requirepass", "", "protected-mode", "no"]), b"+OK\r\n");
    assert_eq!(text(&try_in().expect("an answer")), "+PONG\r\n");
    assert_eq!(admin.call(&["CONFIG", "SET", "bind", "127.0.0.1"]), b"+OK\r\n");
    assert!(TcpStream::connect((&*address, server.port())).is_err(), "nobody listens there any more");
}

#[test]
fn a_web_page_gets_nothing_done() {
    let server = recipe().start();
    for request in ["POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n", "Host: localhost\r\nSET k v\r\n"] {
        let mut client = server.client();
        client.send(request.as_bytes()).expect("a small write");
        assert_eq!(text(&client.receive_until_close().expect("it closes")), "");
    }
    assert_eq!(server.client().call(&["EXISTS", "k"]), b":0\r\n");
    let log = server.log();
    assert!(
        log.contains("Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host:"),
        "{log}"
    );
}

#[test]
fn files_are_the_owners_alone_and_a_socket_has_its_permissions() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("deep/data");
    let mut server = recipe().with("dir", &data.display().to_string()).with("unixsocketperm", "700");
    server = server.with("unixsocket", &home.path().join("socket").display().to_string());
    let mut server = server.start_in(home.path());
    assert_eq!(server.client().call(&["SET", "k", "v"]), b"+OK\r\n");
    assert_eq!(server.client().call(&["SAVE"]), b"+OK\r\n");
    assert_eq!((mode(&data), mode(&home.path().join("deep"))), (0o700, 0o700));
    let files: Vec<_> =
        fs::read_dir(&data).expect("it is there").map(|entry| entry.expect("an entry").path()).collect();
    // The server may remove one meanwhile.
    let modes: Vec<(&PathBuf, u32)> = files.iter().filter_map(|file| Some((file, mode_of(file)?))).collect();
    assert!(modes.len() >= 3, "{files:?}");
    assert!(modes.iter().all(|(_, mode)| *mode == 0o600), "{modes:?}");
    assert_eq!(mode(&home.path().join("socket")), 0o700);
    let mut client = Client::connect(&Address::Unix(home.path().join("socket"))).expect("it listens");
    assert_eq!(client.call(&["GET", "k"]), b"$1\r\nv\r\n");
    assert!(!server.log().contains("others may read"));
    // Somebody has opened them.
    server.terminate();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("our own");
    files.iter().filter(|file| file.exists()).for_each(|file| {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("our own");
    });
    server.start_again();
    assert!(server.log().contains("others may read"), "{}", server.log());
}

/// Whether a text is in memory of a process that it can write.
fn is_in_memory(process: u32, text: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("it runs");
    let memory = fs::File::open(format!("/proc/{process}/mem")).expect("it is our child");
    maps.lines().filter(|map| map.contains(" rw")).any(|map| {
        let (from, to) = map.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [mut from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("an address"));
        let mut piece = vec![0; 1 << 20];
        while from < to {
            let wanted = piece.len().min((to - from) as usize);
            // It may be gone meanwhile.
            let Ok(read @ 1..) = memory.read_at(&mut piece[..wanted], from) else { return false };
            if memchr::memmem::find(&piece[..read], text.as_bytes()).is_some() {
                return true;
            }
            from += if from + (read as u64) < to { read.saturating_sub(text.len()).max(1) } else { read } as u64;
        }
        false
    })
}

/// A core dump does not tell what the password was.
#[test]
fn a_password_that_was_replaced_is_not_in_memory() {
    let (old, new) = ("a-word-0f-24-bytes-in-all", "an0ther-word-as-long-as-it");
    let server = recipe().with("save", "").start();
    let mut admin = server.client();
    assert_eq!(admin.call(&["CONFIG", "SET", "requirepass", old]), b"+OK\r\n");
    assert!(is_in_memory(server.id(), old), "CONFIG GET shows it");
    assert_eq!(server.client().call(&["AUTH", old]), b"+OK\r\n");
    assert_eq!(admin.call(&["CONFIG", "SET", "requirepass", new]), b"+OK\r\n");
    // Each worker keeps the settings that it has until it has something to do.
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_in_memory(server.id(), old) {
        assert!(Instant::now() < deadline, "it is still there");
        (0..16).for_each(|_| drop(server.client().call(&["PING"])));
    }
    assert_eq!(admin.call(&["CONFIG", "SET", "requirepass", ""]), b"+OK\r\n");
}

#[test]
fn no_secret_is_shown() {
    const SECRET: &str = "hush-6c52-hush";
    let mut server = recipe()
        .with("requirepass", SECRET)
        .with("slowlog-log-slower-than", "0")
        .with("loglevel", "debug")
        .with("enable-debug-command", "yes")
        .with("latency-monitor-threshold", "1")
        .with("hide-user-data-from-log", "no")
        .start();
    let mut admin = server.client();
    assert_eq!(admin.call(&["AUTH", SECRET]), b"+OK\r\n");
    let mut monitor = server.client();
    assert_eq!(monitor.call(&["AUTH", SECRET]), b"+OK\r\n");
    assert_eq!(monitor.call(&["MONITOR"]), b"+OK\r\n");
    for words in [
        &["AUTH", SECRET][..],
        &["AUTH", "default", SECRET],
        &["AUTH", "nobody", SECRET],
        &["HELLO", "3", "AUTH", "default", SECRET],
        &["HELLO", "2", "AUTH", "nobody", SECRET],
        &["CONFIG", "SET", "requirepass", SECRET],
        &["CONFIG", "SET", "tls-key-file-pass", SECRET, "masterauth", SECRET],
        &["CONFIG", "SET", "tls-alt-key-file-pass", SECRET, "maxmemory", "x"],
    ] {
        let mut client = server.client();
        client.call(&["AUTH", SECRET]);
        client.call(words);
    }
    assert_eq!(admin.call(&["PING"]), b"+PONG\r\n");
    for command in [
        &["SLOWLOG", "GET", "-1"][..],
        &["INFO", "everything"],
        &["CLIENT", "LIST"],
        &["COMMANDLOG", "GET", "-1", "slow"],
    ] {
        let reply = text(&admin.call(command));
        assert!(!reply.contains(SECRET), "{command:?}: {reply}");
        assert!(command[0] != "SLOWLOG" || reply.contains("(redacted)"), "{reply}");
    }
    monitor.finish_sending();
    let seen = text(&monitor.receive_until_close().expect("the end"));
    assert!(seen.contains("\"(redacted)\"") && !seen.contains(SECRET), "{seen}");
    let id = rustix::process::Pid::from_raw(server.id() as i32).expect("a process");
    rustix::process::kill_process(id, rustix::process::Signal::SEGV).expect("our own process");
    server.wait_for_exit();
    let log = server.log();
    assert!(!log.contains(SECRET), "nor in the report of the crash: {log}");
}

#[test]
fn check_config_says_what_is_open() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("server.conf");
    let check = |text: &str, mode: u32, more: &[&str]| {
        fs::write(&file, format!("dir {}\n{text}", home.path().display())).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our own");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ironkeep"));
        let output = command.arg("check-config").arg(&file).args(more).output().expect("it ends by itself");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    assert_eq!(check("port 7777\n", 0o644, &[]), (Some(0), String::new()));
    let (code, said) = check("requirepass abcdefghijklmnopq\n", 0o644, &[]);
    assert!(code == Some(3) && said.starts_with("open: ") && said.contains("every user may read"), "{said}");
    assert!(!said.contains("abcdefgh"), "{said}");
    let (code, said) = check("requirepass abcdefghijklmnopq\n", 0o600, &["--bind", "*"]);
    assert!(code == Some(2) && said.starts_with("weak: port 6379: passwords and data cross"), "{said}");
    let (code, said) = check("", 0o600, &["--bind", "*", "--protected-mode", "no"]);
    assert!(code == Some(3) && said.contains("anybody who reaches"), "{said}");
    let (code, said) = check("requirepass abcdefghijklmnopq\n", 0o644, &["--json", "--bind", "*"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(code == Some(3) && said["starts"] == true && said["error"].is_null(), "{said}");
    assert_eq!(said["file"], file.display().to_string());
    let doors = said["doors"].as_array().expect("a list");
    let of = |is_open: bool| doors.iter().filter(|door| door["open"] == is_open).count();
    assert!(of(true) == 1 && of(false) == 1, "{said}");
    for wrong in ["nosuch 1\n", "tls-port 7000\n"] {
        let (code, said) = check(wrong, 0o600, &["--json"]);
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        assert!(code == Some(1) && said["starts"] == false && said["doors"] == serde_json::json!([]), "{said}");
        assert!(!said["error"].as_str().expect("a text").is_empty(), "{said}");
    }
    for wrong in ["nosuch 1\n", "rename-command NOSUCH x\n", "tls-port 7000\n"] {
        let (code, said) = check(wrong, 0o600, &[]);
        assert!(code == Some(1) && !said.is_empty(), "{wrong}: {said}");
    }
    assert_eq!(fs::read_dir(home.path()).expect("it is there").count(), 1, "nothing was started");
}

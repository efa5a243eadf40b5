//! What a terminal, a supervisor and a rotation of logs tell the server, and what it tells its supervisor.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::client::{Address, Client, PATIENCE};
use support::server::{Recipe, Server, free_port};

fn send(server: &Server, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(server.id()).expect("small")).expect("not zero");
    kill_process(id, signal).expect("the signal can be sent");
}

/// Waits until the server's output holds a text.
fn wait_for_line(server: &Server, text: &str) {
    let start = Instant::now();
    while !server.log().contains(text) {
        assert!(start.elapsed() < PATIENCE, "no '{text}' in\n{}", server.log());
        sleep(Duration::from_millis(5));
    }
}

/// A closed terminal or a rotation of logs ended the server; with the log off the data was lost too.
#[test]
fn signals_that_end_nothing() {
    let server = Recipe::under_test().with("appendonly", "no").start();
    let mut client = server.client();
    client.ok("SET k v");
    for signal in [Signal::HUP, Signal::PIPE, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::VTALARM, Signal::IO] {
        send(&server, signal);
        assert_eq!(client.ok("GET k").string(), "v", "{signal:?}");
    }
    sleep(Duration::from_millis(100));
    assert_eq!(server.client().ok("GET k").string(), "v");
}

#[test]
fn a_hangup_opens_the_log_file_anew() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (log, rotated) = (home.path().join("log"), home.path().join("log.1"));
    let server = Recipe::under_test().with("logfile", log.to_str().expect("text")).start();
    fs::rename(&log, &rotated).expect("the log is there");
    send(&server, Signal::HUP);
    let start = Instant::now();
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("opened anew")) {
        assert!(start.elapsed() < PATIENCE, "no new log file");
        sleep(Duration::from_millis(5));
    }
    assert!(fs::read_to_string(&rotated).expect("the old log").contains("Ready to accept connections"));
}

/// `copytruncate` of logrotate: the file is copied and cut, and nobody is told.
#[test]
fn a_log_file_that_is_cut_goes_on_from_its_beginning() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let log = home.path().join("log");
    let server = Recipe::under_test().with("logfile", log.to_str().expect("text")).start();
    fs::OpenOptions::new().write(true).open(&log).and_then(|file| file.set_len(0)).expect("the log can be cut");
    send(&server, Signal::HUP);
    let start = Instant::now();
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("opened anew")) {
        assert!(start.elapsed() < PATIENCE, "no line");
        sleep(Duration::from_millis(5));
    }
    let text = fs::read(&log).expect("the log");
    assert!(!text.contains(&0) && !String::from_utf8_lossy(&text).contains("Ready"), "{}", text.escape_ascii());
}

#[test]
fn a_fatal_signal_ends_the_server_behind_a_report() {
    for (whole, signal) in [(true, Signal::SEGV), (true, Signal::ABORT), (false, Signal::BUS)] {
        let mut server = Recipe::under_test().with("crash-log-enabled", if whole { "yes" } else { "no" }).start();
        server.client().ok("SET k v");
        send(&server, signal);
        let status = server.wait_for_exit();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status:?}");
        let log = server.log();
        assert!(log.contains("crashed by SIG"), "{log}");
        assert_eq!(log.contains("=== IRONKEEP BUG REPORT END ==="), whole, "{log}");
        // With and without line tables.
        let has_frames = log.contains("fatal::note") || log.contains("src/base/fatal.rs:");
        assert_eq!(has_frames && log.contains("Log: on, at block 1"), whole, "{log}");
    }
}

#[test]
fn the_title_of_the_process_is_configured() {
    let server = Recipe::under_test().start();
    let shown = || {
        let text = fs::read(format!("/proc/{}/cmdline", server.id())).expect("a process");
        String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned()
    };
    assert!(shown().starts_with("ironkeep 127.0.0.1:"), "{}", shown());
    let mut client = server.client();
    let long = "x".repeat(300);
    for (template, title) in [("short", "short"), ("{title}{server-mode}{unixsocket}!", "ironkeep!"), (&long, &long)] {
        client.ok(&format!("CONFIG SET proc-title-template {template}"));
        assert_eq!(shown(), title);
    }
    let error = client.call(&["CONFIG", "SET", "proc-title-template", "{nothing}"]);
    assert!(
        error.ends_with(b"template format is invalid or contains unknown variables\r\n"),
        "{}",
        error.escape_ascii()
    );
    assert_eq!(shown(), long);
    client.ok("CONFIG SET proc-title-template again");
}

#[test]
fn a_second_interrupt_ends_the_server_at_once() {
    let mut server = Recipe::under_test()
        .with("appendonly", "no")
        .with("shutdown-on-sigint", "save")
        .with("rdb-key-save-delay", "10000000")
        .start();
    server.client().ok("MSET a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8");
    send(&server, Signal::INT);
    wait_for_line(&server, "Saving the final snapshot");
    send(&server, Signal::TERM);
    sleep(Duration::from_millis(100));
    send(&server, Signal::INT);
    // To save to the end takes longer than this waits.
    assert_eq!(server.wait_for_exit().code(), Some(1), "{}", server.log());
    assert!(server.log().contains("You insist"), "{}", server.log());
}

#[test]
fn a_signal_ends_the_loading() {
    let mut server = Recipe::under_test().with("save", "1 1").with("appendonly", "no").start();
    server.client().ok("MSET a 1 b 2 c 3 d 4 e 5 f 6 g 7 h 8");
    server.client().ok("SAVE");
    server.terminate();
    let port = free_port();
    let mut command = server.recipe().command(server.directory(), port);
    let log = server.directory().join("loading.log");
    command.args(["--key-load-delay", "10000000"]).stdout(fs::File::create(&log).expect("a file"));
    let mut child = Ended(command.spawn().expect("the program starts"));
    // It listens before it loads, and hears signals before it listens.
    let start = Instant::now();
    while Client::connect(&Address::Port(port)).is_err() {
        assert!(start.elapsed() < PATIENCE, "it does not listen");
        sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child.0), Signal::TERM).expect("the signal can be sent");
    let status = support::server::wait(&mut child.0).expect("it ends");
    let said = fs::read_to_string(&log).expect("text");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("during loading, exiting now"), "{said}");
}

/// A server whose service manager is this test.
struct Supervised {
    child: Ended,
    manager: UnixDatagram,
    port: u16,
    _home: tempfile::TempDir,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Supervised {
    fn start(supervised: &str, environment: &[(&str, &str)]) -> Supervised {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let port = free_port();
        let mut command: Command = Recipe::under_test().with("supervised", supervised).command(home.path(), port);
        command.env("NOTIFY_SOCKET", &path).envs(environment.iter().copied()).stdout(Stdio::null());
        let child = Ended(command.spawn().expect("the program starts"));
        Supervised { child, manager, port, _home: home }
    }

    fn message(&self) -> String {
        let mut bytes = [0; 1000];
        loop {
            match self.manager.recv(&mut bytes) {
                Ok(length) => return String::from_utf8(bytes[..length].to_vec()).expect("text"),
                // A signal, of a debugger for example.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no message: {error}"),
            }
        }
    }

    /// The messages up to the one that holds a line.
    fn messages_to(&self, line: &str) -> Vec<String> {
        let mut messages = Vec::new();
        while !messages.last().is_some_and(|message: &String| message.lines().any(|own| own == line)) {
            messages.push(self.message());
        }
        messages
    }
}

/// systemd waited in vain: a service of `Type=notify` never became active.
#[test]
fn systemd_is_told_of_start_life_and_end() {
    for supervised in ["systemd", "auto"] {
        // The socket may hold ten messages only, and those of the watchdog are not repeated.
        let mut server = Supervised::start(supervised, &[("WATCHDOG_USEC", "1000000")]);
        let start = server.messages_to("READY=1");
        assert!(start[0].starts_with("EXTEND_TIMEOUT_USEC="), "loading may take long: {start:?}");
        let mut client = Client::connect(&Address::Port(server.port)).expect("what is ready listens");
        for _ in 0..3 {
            server.messages_to("WATCHDOG=1");
        }
        assert!(client.try_call(&["SHUTDOWN", "SAVE"]).is_err(), "it ends");
        server.messages_to("STOPPING=1");
        assert!(support::server::wait(&mut server.child.0).expect("it ends").success());
    }
}

#[test]
fn who_is_not_to_be_told_is_not() {
    let server = Supervised::start("no", &[]);
    let start = Instant::now();
    while Client::connect(&Address::Port(server.port)).is_err() {
        assert!(start.elapsed() < PATIENCE, "it does not listen");
        sleep(Duration::from_millis(5));
    }
    server.manager.set_nonblocking(true).expect("a mode");
    assert!(server.manager.recv(&mut [0; 10]).is_err());
}

/// upstart takes a process for ready that has stopped itself.
#[test]
fn upstart_finds_the_server_stopped() {
    let server = Supervised::start("upstart", &[("UPSTART_JOB", "store")]);
    let id = Pid::from_child(&server.child.0);
    let stat = format!("/proc/{}/stat", server.child.0.id());
    let start = Instant::now();
    while !fs::read_to_string(&stat).expect("it runs").contains(") T ") {
        assert!(start.elapsed() < PATIENCE, "it does not stop");
        sleep(Duration::from_millis(5));
    }
    kill_process(id, Signal::CONT).expect("the signal can be sent");
    let mut client = Client::connect(&Address::Port(server.port)).expect("it listens");
    client.ok("PING");
}

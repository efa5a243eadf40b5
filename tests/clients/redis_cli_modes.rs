//! redis-cli's modes that go on: figures, latency, messages, MONITOR, the prompt; and what it says where the server
//! lacks what it asks for.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::start;
use crate::support::program::Program;
use crate::support::server::Server;

/// redis-cli with its output by lines, as it appears. Without a terminal it would keep them back.
fn streaming(server: &Server, arguments: &[&str]) -> Program {
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "redis-cli", "-p", &server.port().to_string()]).args(arguments);
    Program::start(&mut command)
}

/// What it prints on both outputs, and whether it succeeded.
fn outcome(server: &Server, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port().to_string()]).args(arguments).stdin(Stdio::null());
    let output = command.output().expect("redis-cli is installed: start with `tests/run`");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

/// Types lines at the prompt, on a terminal, and gives what stands on the screen at the end.
fn at_the_prompt(server: &Server, lines: &str) -> String {
    let command = format!("TERM=dumb redis-cli -p {}", server.port());
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .env("HOME", server.directory())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`script` is part of every Debian");
    child.stdin.take().expect("its input is a pipe").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn figures_and_latency_go_on() {
    let server = start();
    let mut client = server.client();
    (0..7).for_each(|at| drop(client.call(&["SET", &format!("k{at}"), "v"])));
    let mut stat = streaming(&server, &["--stat", "-i", "0.05"]);
    let rows: Vec<String> = stat.lines().filter(|line| line.starts_with('7')).take(3).collect();
    assert!(rows.iter().all(|row| numbers(row).len() >= 5), "keys, memory, clients, requests: {rows:?}");

    let (fine, said) = outcome(&server, &["--latency", "-i", "0.1", "--raw"]);
    assert!(fine && numbers(&said).len() == 4, "smallest, largest, mean, count: {said}");
    let mut history = streaming(&server, &["--latency-history", "-i", "0.1", "--csv"]);
    assert_eq!(history.lines().filter(|line| line.ends_with("seconds range")).take(2).count(), 2);
    let mut spectrum = streaming(&server, &["--latency-dist", "-i", "0.1"]);
    assert!(spectrum.lines().take(40).any(|line| line.contains("From 0 to 100%")));
}

#[test]
fn messages_in_every_form() {
    let server = start();
    let mut client = server.client();
    let publish = |client: &mut crate::support::client::Client, channel: &str, message: &str| {
        while client.call(&["PUBLISH", channel, message]) == b":0\r\n" {
            std::thread::yield_now();
        }
    };
    for (options, command, expected) in [
        (&[][..], "SUBSCRIBE", vec!["subscribe", "news", "1", "message", "news", "hello world"]),
        (&["-3"], "SUBSCRIBE", vec!["subscribe", "news", "1", "message", "news", "hello world"]),
        (&["--csv"], "SUBSCRIBE", vec!["\"subscribe\",\"news\",1", "\"message\",\"news\",\"hello world\""]),
        (
            &["--no-raw"],
            "SUBSCRIBE",
            vec!["1) \"subscribe\"", "2) \"news\"", "3) (integer) 1", "1) \"message\"", "2) \"news\""],
        ),
        (&[], "PSUBSCRIBE", vec!["psubscribe", "news", "1", "pmessage", "news", "news", "hello world"]),
    ] {
        let mut arguments = options.to_vec();
        arguments.extend([command, "news"]);
        let mut subscriber = streaming(&server, &arguments);
        publish(&mut client, "news", "hello world");
        let lines = subscriber.lines().filter(|line| !line.starts_with("Reading messages"));
        assert_eq!(lines.take(expected.len()).collect::<Vec<_>>(), expected, "{options:?} {command}");
        drop(subscriber);
        while client.call(&["PUBLISH", "news", "is anybody there?"]) != b":0\r\n" {
            std::thread::yield_now();
        }
    }
}

#[test]
fn every_command_is_monitored() {
    let server = start();
    let mut monitor = streaming(&server, &["MONITOR"]);
    assert_eq!(monitor.line().as_deref(), Some("OK"));
    let mut client = server.client();
    client.call(&["SELECT", "2"]);
    client.call(&["SET", "a key", "line\n"]);
    let seen: Vec<String> = monitor.lines().take(2).collect();
    assert!(seen[0].ends_with("\"SELECT\" \"2\""), "{seen:?}");
    assert!(seen[1].contains(" [2 127.0.0.1:") && seen[1].ends_with("\"SET\" \"a key\" \"line\\n\""), "{seen:?}");
}

#[test]
fn invalidations_are_shown() {
    let server = start();
    let mut prompt = streaming(&server, &["-3", "--show-pushes", "yes"]);
    ["CLIENT TRACKING ON", "GET k", "SET k 1", "PING"].iter().for_each(|line| prompt.answer(line));
    let shown = prompt.finish();
    assert!(shown.contains("invalidate\nk\n"), "{shown}");
}

#[test]
fn transactions_and_databases_at_the_prompt() {
    let server = start();
    let screen = at_the_prompt(
        &server,
        "SET k 1\nMULTI\nINCR k\nGET k\nEXEC\nMULTI\nDISCARD\nSELECT 3\nDBSIZE\n3 INCR n\nINCR\nHELLO 3\nCONFIG GET maxmemory\nquit\n",
    );
    for shown in [
        "(TX)> ",
        "QUEUED",
        "1) (integer) 2\n2) \"2\"",
        "[3]> ",
        "(integer) 0",
        "(integer) 3",
        "(error) ERR wrong number of arguments for 'incr' command",
        "1# \"maxmemory\" => \"0\"",
    ] {
        assert!(screen.contains(shown), "{shown}\n{screen}");
    }
}

#[test]
fn the_prompt_comes_back_after_a_crash() {
    let mut server = start();
    let mut prompt = streaming(&server, &["--no-raw"]);
    prompt.answer("SET k v");
    assert_eq!(prompt.line().as_deref(), Some("OK"));
    server.kill();
    prompt.answer("GET k");
    server.start_again_on_its_port();
    prompt.answer("GET k");
    let rest = prompt.finish();
    assert!(rest.lines().any(|line| line == "\"v\""), "{rest}");
}

#[test]
fn addresses_and_passwords() {
    let server = start();
    let port = server.port();
    assert_eq!(outcome(&server, &["-u", &format!("redis://127.0.0.1:{port}/5"), "SET", "k", "in 5"]).1, "OK\n");
    assert_eq!(outcome(&server, &["-n", "5", "GET", "k"]).1, "in 5\n");
    assert_eq!(outcome(&server, &["CONFIG", "SET", "requirepass", "secret"]).1, "OK\n");
    assert!(outcome(&server, &["GET", "k"]).1.contains("NOAUTH Authentication required."));
    for way in [
        &["-a", "secret", "--no-auth-warning"][..],
        &["--user", "default", "--pass", "secret", "--no-auth-warning"],
        &["-u", &format!("redis://default:secret@127.0.0.1:{port}"), "--no-auth-warning"],
    ] {
        let mut arguments = way.to_vec();
        arguments.extend(["-n", "5", "GET", "k"]);
        assert_eq!(outcome(&server, &arguments).1, "in 5\n", "{way:?}");
    }
    let (_, said) = outcome(&server, &["-a", "wrong", "PING"]);
    assert!(said.contains("AUTH failed: WRONGPASS"), "{said}");
}

#[test]
fn forms_of_input_and_output() {
    let server = start();
    for (arguments, expected) in [
        (&["SET", "k", "v"][..], "OK\n"),
        (&["--quoted-input", "SET", "\"a\\x00b\"", "\"line\\n\""], "OK\n"),
        (&["--no-raw", "--quoted-input", "GET", "\"a\\x00b\""], "\"line\\n\"\n"),
        (&["-d", "|", "MGET", "k", "none"], "v|\n"),
        (&["-D", "", "GET", "k"], "v"),
        (&["-r", "3", "-i", "0.01", "APPEND", "k", "!"], "2\n3\n4\n"),
        (&["-3", "--json", "HGETALL", "none"], "{}\n"),
        (&["-2", "--json", "MGET", "k", "none"], "[\"v!!!\",null]\n"),
        (&["-3", "--csv", "HGETALL", "none"], "\n"),
        (&["--scan", "--pattern", "k*"], "k\n"),
    ] {
        assert_eq!(outcome(&server, arguments), (true, expected.to_owned()), "{arguments:?}");
    }
    let (fine, said) = outcome(&server, &["-e", "INCR", "k"]);
    assert!(!fine && said.contains("not an integer"), "{said}");
}

#[test]
fn a_script_from_a_file() {
    let server = start();
    let file = server.directory().join("limit.lua");
    let script = "local n = redis.call('INCRBY', KEYS[1], ARGV[1])\nreturn {n, redis.sha1hex(ARGV[2])}\n";
    std::fs::write(&file, script).expect("the file can be written");
    let path = file.to_str().expect("text");
    for expected in ["5\n", "10\n"] {
        let (fine, said) = outcome(&server, &["--eval", path, "n", ",", "5", ""]);
        assert!(fine, "{said}");
        assert_eq!(said, format!("{expected}da39a3ee5e6b4b0d3255bfef95601890afd80709\n"));
    }
}

/// Errors that say what is missing: no hang, no half file.
#[test]
fn what_the_server_lacks_is_a_plain_error() {
    let server = start();
    assert!(outcome(&server, &["SET", "k", "v"]).0);
    let target = server.directory().join("copy.rdb");
    let target = target.to_str().expect("a plain path");
    for (arguments, expected) in [
        (&["--rdb", target][..], "SYNC with master failed: -ERR"),
        (&["--functions-rdb", target], "Failed requesting functions only RDB from server"),
        (&["--replica"], "SYNC with master failed: -ERR"),
        (&["--cluster", "info", &format!("127.0.0.1:{}", server.port())], "is not configured as a cluster node"),
        (&["--hotkeys"], "ERR An LFU maxmemory policy is not selected"),
    ] {
        let (_, said) = outcome(&server, arguments);
        assert!(said.contains(expected), "{arguments:?}\n{said}");
    }
}

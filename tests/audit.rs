//! The audit log: what is in it, what is not, and that nobody waits for it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::server::{Recipe, Server};

/// A server with an audit log, and where that is.
fn start(home: &Path, directives: &[(&str, &str)]) -> (Server, PathBuf) {
    let file = home.join("audit.log");
    let recipe = Recipe::under_test().with("save", "").with("io-threads", "2");
    let recipe = recipe.with("audit-log-file", &file.display().to_string());
    (directives.iter().fold(recipe, |recipe, (name, value)| recipe.with(name, value)).start(), file)
}

/// The lines, once one of them contains this.
fn lines(file: &Path, last: &str) -> Vec<String> {
    for _ in 0..6000 {
        let text = fs::read_to_string(file).unwrap_or_default();
        if text.contains(last) {
            return text.lines().map(str::to_owned).collect();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no {last}: {}", fs::read_to_string(file).unwrap_or_default());
}

#[test]
fn logins_administration_and_chosen_keys_are_noted() {
    let home = tempfile::tempdir().expect("a directory");
    let rules = "auth @admin @dangerous -info ~secret:*";
    let (server, file) = start(home.path(), &[("requirepass", "hush-hush"), ("audit-log-rules", rules)]);
    let mut client = server.client();
    for (words, answer) in [
        (&["SET", "a", "1"][..], "-NOAUTH"),
        (&["AUTH", "wrong-pass"], "-WRONGPASS"),
        (&["AUTH", "no\"body", "hush-hush"], "-WRONGPASS"),
        (&["AUTH", "hush-hush"], "+OK"),
        (&["SET", "a", "value-of-a"], "+OK"),
        (&["SET", "secret:1", "value-of-secret"], "+OK"),
        (&["GET", "secret:1"], "$"),
        (&["GET", "a"], "$"),
        (&["EVAL", "return redis.call('get', KEYS[1])", "1", "secret:2"], "$-1"),
        (&["INCR", "secret:1"], "-ERR"),
        (&["INFO"], "$"),
        (&["CONFIG", "SET", "requirepass", "hush-hush-2", "maxmemory", "100mb"], "+OK"),
        (&["CONFIG", "SET", "port", "x"], "-ERR"),
        (&["CONFIG", "SET", "port", "0"], "+OK"),
        (&["DEBUG", "SLEEP", "0"], "-ERR"),
        (&["KEYS", "*"], "*"),
        (&["FLUSHALL"], "+OK"),
    ] {
        let reply = String::from_utf8_lossy(&client.call(words)).into_owned();
        assert!(reply.starts_with(answer), "{words:?}: {reply}");
    }
    let lines = lines(&file, "\"flushall\"");
    let digest = "sha256:808d0577d711dd91b461ab5c50b70d66";
    // Beside the questions of who waits for the server to start.
    let mut rest = lines.iter().filter(|line| !line.contains("\"command\":\"ping\""));
    for parts in [
        &["\"command\":\"set\"", "\"outcome\":\"NOAUTH\""][..],
        &["\"event\":\"login\"", "\"login\":\"default\"", "\"by\":\"password\"", "\"outcome\":\"WRONGPASS\""],
        &["\"login\":\"no\\\"body\"", "\"outcome\":\"WRONGPASS\""],
        &["\"login\":\"default\"", "\"outcome\":\"ok\""],
        &["\"command\":\"set\"", digest, "\"key_count\":1", "\"outcome\":\"ok\""],
        &["\"command\":\"get\"", digest, "\"outcome\":\"ok\""],
        &["\"command\":\"get\"", "\"outcome\":\"ok\""],
        &["\"command\":\"eval\"", "\"outcome\":\"ok\""],
        &["\"command\":\"incr\"", digest, "\"outcome\":\"ERR\""],
        &["\"command\":\"config|set\"", "[\"SET\",\"requirepass\",\"(redacted)\",\"maxmemory\",\"100mb\"]", "\"ok\""],
        &["\"command\":\"config|set\"", "\"outcome\":\"ERR\""],
        &["\"command\":\"config|set\"", "\"port\",\"0\"", "\"outcome\":\"begun\""],
        &["\"event\":\"end\"", "\"command\":\"config|set\"", "\"outcome\":\"ok\""],
        &["\"command\":\"debug\"", "\"outcome\":\"ERR\""],
        &["\"command\":\"keys\"", "\"outcome\":\"ok\""],
        &["\"command\":\"flushall\"", "\"user\":\"default\"", "\"address\":\"127.0.0.1:", "\"outcome\":\"ok\""],
    ] {
        let line = rest.next().unwrap_or_else(|| panic!("{parts:?} is missing: {lines:#?}"));
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
        assert!(
            line.starts_with("{\"time\":\"20") && line.contains("Z\",\"user\":\"") && line.ends_with('}'),
            "{line}"
        );
    }
    assert_eq!(rest.next(), None);
    let all = lines.join("\n");
    for secret in ["hush", "wrong-pass", "value-of", "secret:1"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).expect("a file").permissions()) & 0o777,
        0o640
    );
}

#[test]
fn who_writes_much_is_not_held_up_and_what_is_dropped_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let directives = [("audit-log-rules", "@write"), ("audit-log-keys", "plain"), ("audit-log-max-per-second", "50")];
    let (server, file) = start(home.path(), &directives);
    let mut client = server.client();
    let many: String = (0..20_000).map(|number| format!("SET key:{} {number}\r\n", number % 3)).collect();
    client.send(many.as_bytes()).expect("the server reads");
    (0..20_000).for_each(|_| assert_eq!(client.receive().expect("a reply"), b"+OK\r\n"));
    let found = lines(&file, "\"event\":\"dropped\"");
    assert!(found[0].contains("\"keys\":[\"key:0\"]"), "{found:?}");
    let stats = String::from_utf8_lossy(&client.call(&["INFO", "stats"])).into_owned();
    let figure = |name: &str| -> usize {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).expect("the figure");
        line.trim_start_matches(':').trim().parse().expect("a number")
    };
    assert_eq!(figure("audit_log_events") + figure("audit_log_dropped"), 20_000);
    assert!(figure("audit_log_dropped") > 10_000, "{stats}");
}

#[test]
fn it_follows_a_rotation_and_rules_that_mean_nothing_are_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let (server, file) = start(home.path(), &[("enable-protected-configs", "yes")]);
    let mut client = server.client();
    client.call(&["FLUSHALL"]);
    lines(&file, "\"flushall\"");
    fs::rename(&file, home.path().join("audit.1")).expect("our own");
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no new file");
        client.call(&["FLUSHDB"]);
        std::thread::sleep(Duration::from_millis(10));
    }
    client.call(&["FLUSHDB"]);
    lines(&file, "\"flushdb\"");
    for (name, value, problem) in [
        ("audit-log-rules", "auth @nosuch", "there is no category '@nosuch'"),
        ("audit-log-rules", "nosuch", "there is no command 'nosuch'"),
        ("audit-log-file", "/nowhere/at/all", "No such file or directory (os error 2)"),
    ] {
        let reply = String::from_utf8_lossy(&client.call(&["CONFIG", "SET", name, value])).into_owned();
        assert_eq!(reply, format!("-ERR CONFIG SET failed (possibly related to argument '{name}') - {problem}\r\n"));
    }
    assert_eq!(client.call(&["CONFIG", "SET", "audit-log-file", ""]), b"+OK\r\n");
    client.call(&["SWAPDB", "0", "1"]);
    // The file also tells who has switched it off, and that this was done.
    let noted = lines(&file, "\"event\":\"end\",\"command\":\"config|set\",\"outcome\":\"ok\"");
    let text = noted.join("\n");
    assert!(text.contains("[\"SET\",\"audit-log-file\",\"\"]") && !text.contains("swapdb"), "{text}");
}

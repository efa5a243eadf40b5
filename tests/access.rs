//! Users and their rules, among several connections on several workers, through files and restarts.

mod support;

use std::time::{Duration, Instant};
use support::client::Client;
use support::server::{Recipe, Server};

/// After this long, what should have happened is a failure.
const FAILED_AFTER: Duration = Duration::from_secs(60);

fn start() -> Server {
    Recipe::under_test().with("io-threads", "2").start()
}

fn text(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    String::from_utf8_lossy(&client.call(&words)).into_owned()
}

fn ok(client: &mut Client, lines: &[&str]) {
    for line in lines {
        assert_eq!(text(client, line), "+OK\r\n", "{line}");
    }
}

/// Waits until the reply to a line is as wanted.
fn wait_for(client: &mut Client, line: &str, wanted: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    while !wanted(&text(client, line)) {
        assert!(begun.elapsed() < FAILED_AFTER, "{line}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Connections of a user, on every worker.
fn connections_of(server: &Server, user: &str) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| ok(client, &[&format!("AUTH {user} x")]));
    clients
}

#[test]
fn the_connections_of_a_deleted_user_close_whatever_they_do() {
    let server = start();
    let mut admin = server.client();
    ok(&mut admin, &["ACL SETUSER u on nopass +@all ~* &*", "ACL SETUSER other on nopass +@all"]);
    let mut others = connections_of(&server, "other");
    let mut clients = connections_of(&server, "u");
    clients[0].send(b"BLPOP l 0\r\n").expect("it is connected");
    clients[1].send(b"SUBSCRIBE c\r\n").expect("it is connected");
    clients[1].receive().expect("a confirmation");
    clients[2].send(b"MULTI\r\n").expect("it is connected");
    clients[2].receive().expect("a reply");
    wait_for(&mut admin, "INFO clients", |info| info.contains("blocked_clients:1\r"));
    assert_eq!(text(&mut admin, "ACL DELUSER u"), ":1\r\n");
    for mut client in clients {
        assert_eq!(client.receive_until_close().expect("it closes"), b"");
    }
    wait_for(&mut admin, "CLIENT LIST", |list| !list.contains("user=u "));
    assert_eq!(text(&mut admin, "RPUSH l a"), ":1\r\n");
    assert_eq!(text(&mut admin, "LLEN l"), ":1\r\n", "nobody has taken it");
    others.iter_mut().for_each(|client| assert_eq!(text(client, "PING"), "+PONG\r\n"));
    assert_eq!(text(&mut admin, "CLIENT KILL USER other"), ":4\r\n");
}

#[test]
fn subscribers_who_lose_their_channel_close_and_others_stay() {
    let server = start();
    let mut admin = server.client();
    for (subscribe, kept, lost) in [
        ("SUBSCRIBE news", "resetchannels &n*", "resetchannels &x*"),
        ("PSUBSCRIBE n*", "resetchannels &n*", "resetchannels &news"),
        ("SSUBSCRIBE news", "resetchannels &news", "resetchannels"),
    ] {
        ok(&mut admin, &["ACL SETUSER u reset on nopass +@all &*"]);
        let mut clients = connections_of(&server, "u");
        let mut deaf = clients.pop().expect("there are some");
        for client in &mut clients {
            client.send(format!("{subscribe}\r\n").as_bytes()).expect("it is connected");
            client.receive().expect("a confirmation");
        }
        ok(&mut admin, &[&format!("ACL SETUSER u {kept}")]);
        let is_shard = subscribe.starts_with("SS");
        let publish = if is_shard { "SPUBLISH news text" } else { "PUBLISH news text" };
        assert_eq!(text(&mut admin, publish), ":3\r\n");
        clients.iter_mut().for_each(|client| assert!(client.receive().expect("a message").ends_with(b"text\r\n")));
        ok(&mut admin, &[&format!("ACL SETUSER u {lost}")]);
        for mut client in clients {
            assert_eq!(client.receive_until_close().expect("it closes"), b"", "{subscribe}");
        }
        assert_eq!(text(&mut deaf, "PING"), "+PONG\r\n");
        wait_for(&mut admin, publish, |copies| copies == ":0\r\n");
    }
}

#[test]
fn a_monitor_ends_with_its_permission() {
    let server = start();
    let mut admin = server.client();
    ok(&mut admin, &["ACL SETUSER u on nopass +@all ~*"]);
    let mut clients = connections_of(&server, "u");
    ok(&mut clients[0], &["MONITOR"]);
    ok(&mut admin, &["ACL SETUSER u -get"]);
    assert_eq!(text(&mut admin, "ECHO seen"), "$4\r\nseen\r\n");
    let shown = String::from_utf8_lossy(&clients[0].receive().expect("a line")).into_owned();
    assert!(shown.contains("\"ECHO\" \"seen\""), "{shown}");
    ok(&mut admin, &["ACL SETUSER u -monitor"]);
    clients[0].receive_until_close().expect("it closes");
}

/// As in Redis, a connection's `cmd` is what it asked for last, whatever became of that.
#[test]
fn what_was_refused_is_the_last_command_of_its_connection() {
    let server = start();
    let mut admin = server.client();
    ok(&mut admin, &["ACL SETUSER u on nopass +auth +client|id ~*"]);
    let client = &mut server.client();
    ok(client, &["AUTH u x"]);
    let id = text(client, "CLIENT ID");
    let id = id.trim_start_matches(':').trim_end();
    for (asked, shown) in [("GET k", "get"), ("CLIENT ID x", "client|id"), ("NOSUCH k", "NULL"), ("GET", "get")] {
        assert!(text(client, asked).starts_with('-'), "{asked}");
        let listed = text(&mut admin, &format!("CLIENT LIST ID {id}"));
        assert!(listed.contains(&format!(" cmd={shown} ")), "{asked}: {listed}");
    }
    assert!(text(&mut admin, "ACL LOG").contains(" cmd=get "));
}

/// A command that waits is checked again when it is served: the element stays for others.
#[test]
fn a_waiting_command_is_served_only_as_far_as_it_is_still_allowed() {
    for workers in ["1", "2"] {
        let server = Recipe::under_test().with("io-threads", workers).start();
        let mut admin = server.client();
        ok(&mut admin, &["ACL SETUSER u on nopass +@all ~*"]);
        let mut clients = connections_of(&server, "u");
        let mut may = server.client();
        clients[0].send(b"BLPOP l 0\r\n").expect("it is connected");
        wait_for(&mut admin, "INFO clients", |info| info.contains("blocked_clients:1\r"));
        may.send(b"BLPOP l 0\r\n").expect("it is connected");
        wait_for(&mut admin, "INFO clients", |info| info.contains("blocked_clients:2\r"));
        ok(&mut admin, &["ACL SETUSER u resetkeys ~x"]);
        assert_eq!(text(&mut admin, "RPUSH l a"), ":1\r\n");
        assert_eq!(clients[0].receive().expect("a reply"), b"-NOPERM No permissions to access a key\r\n");
        assert_eq!(may.receive().expect("a reply"), b"*2\r\n$1\r\nl\r\n$1\r\na\r\n");
        assert!(text(&mut admin, "ACL LOG").contains("\r\nkey\r\n"));
    }
}

#[test]
fn a_file_of_users_is_loaded_saved_and_reloaded_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.acl");
    let write = |text: &str| std::fs::write(&path, text).expect("a writable directory");
    write("user alice on >secret ~a* +get +set\nrole r +@read\n");
    let mut server = Recipe::under_test().with("aclfile", &path.display().to_string()).start();
    let mut admin = server.client();
    let mut alice = server.client();
    ok(&mut alice, &["AUTH alice secret", "SET a 1"]);
    ok(&mut admin, &["ACL SETUSER bob on nopass role=r ~b* &c (+set ~z)", "ACL SAVE"]);
    let saved = std::fs::read_to_string(&path).expect("a file");
    assert!(saved.starts_with("role r resetchannels -@all +@read\nuser alice on sanitize-payload #"), "{saved}");
    assert!(!saved.contains("secret") && saved.contains("user bob on nopass sanitize-payload role=r ~b*"), "{saved}");

    let lines = text(&mut admin, "ACL LIST");
    write("user alice on >other ~b* +get\nuser carol on +nope\nuser dan on ~x bad\n");
    let refused = text(&mut admin, "ACL LOAD");
    for part in [
        "-ERR ",
        ":2: Error in applying operation '+nope': Unknown command or category name in ACL. ",
        ":3: Syntax error. ",
        "WARNING: ACL errors detected, no change to the previously active ACL rules was performed",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    assert_eq!(text(&mut admin, "ACL LIST"), lines);
    assert_eq!(text(&mut alice, "GET a"), "$1\r\n1\r\n");

    let mut bobs = connections_of(&server, "bob");
    write("user alice on >other ~b* +get\nuser default on nopass ~* &* +@all\n");
    ok(&mut admin, &["ACL LOAD"]);
    assert_eq!(text(&mut alice, "GET a"), "-NOPERM No permissions to access a key\r\n", "she stays, by the new rules");
    bobs.iter_mut().for_each(|bob| assert_eq!(bob.receive_until_close().expect("it closes"), b""));
    std::fs::remove_file(&path).expect("a file");
    assert!(text(&mut admin, "ACL LOAD").contains("No such file or directory\r\n"));

    write(&saved);
    server.kill();
    server.start_again();
    let mut admin = server.client();
    assert_eq!(text(&mut admin, "ACL LIST"), lines);
    assert!(text(&mut admin, "ACL GETROLE r").contains("bob"));
}

#[test]
fn users_survive_in_the_configuration_file() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("redis.conf");
    std::fs::write(&path, "# users\nuser alice on >secret ~a* +get\nmaxmemory 0\n").expect("a writable directory");
    let start = || {
        let script = format!("exec \"$0\" {} \"$@\"", path.display());
        Recipe::under_test().through_shell(&script).start()
    };
    let server = start();
    let mut admin = server.client();
    ok(&mut admin, &["ACL SETUSER bob on >p %R~b* (+set ~c)", "ACL SETROLE r +@read", "ACL SETUSER bob role=r"]);
    ok(&mut admin, &["CONFIG REWRITE"]);
    let lines = text(&mut admin, "ACL LIST");
    let file = std::fs::read_to_string(&path).expect("a file");
    assert!(file.starts_with("# users\nuser alice on sanitize-payload ") && !file.contains("secret"), "{file}");
    drop(server);
    let server = start();
    let mut admin = server.client();
    assert_eq!(text(&mut admin, "ACL LIST"), lines);
    ok(&mut admin, &["AUTH bob p", "AUTH alice secret"]);
}

#[test]
fn a_server_with_broken_users_does_not_start() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("users.acl");
    std::fs::write(&file, "user a on >hunter2 ~x bad\n").expect("a writable directory");
    let conf = folder.path().join("redis.conf");
    for (text, problem) in [
        (format!("aclfile {}\n", file.display()), "users.acl:1: Syntax error. "),
        (format!("aclfile {}\nuser a on\n", file.display()), "is not possible"),
        ("aclfile /nowhere/users.acl\n".to_owned(), "opening file '/nowhere/users.acl': No such file or directory"),
        ("user a on >hunter2 bad\n".to_owned(), "Error loading ACL rules for the user named 'a': Syntax error"),
        ("user a on +nope\n".to_owned(), "'+nope': Unknown command or category name in ACL"),
        ("user a on\nuser a off\n".to_owned(), "Duplicate user"),
        ("user a (+get\n".to_owned(), "Unmatched parenthesis"),
        ("user a role=nope\n".to_owned(), "The role does not exist"),
    ] {
        std::fs::write(&conf, &text).expect("a writable directory");
        let mut command = Recipe::under_test().through_shell(&format!("exec \"$0\" {} \"$@\"", conf.display()));
        command = command.with("loglevel", "warning");
        let output = command.command(folder.path(), support::server::free_port()).output().expect("it runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(problem), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// What secrets a monitor, the slow log and errors of others may show.
#[test]
fn passwords_are_shown_to_nobody() {
    let server = start();
    let mut admin = server.client();
    let mut monitor = server.client();
    ok(&mut admin, &["CONFIG SET slowlog-log-slower-than 0"]);
    ok(&mut monitor, &["MONITOR"]);
    ok(&mut admin, &["ACL SETUSER u on >hunter2", "AUTH u hunter2", "AUTH default x"]);
    text(&mut admin, "HELLO 3 AUTH u hunter2");
    ok(&mut admin, &["AUTH default x"]);
    text(&mut admin, "AUTH u hunter2x");
    for line in ["SLOWLOG GET", "ACL LOG", "CLIENT LIST", "INFO everything", "ACL LIST"] {
        assert!(!text(&mut admin, line).contains("hunter2"), "{line}");
    }
    text(&mut admin, "ECHO end");
    let mut shown = String::new();
    while !shown.contains("end") {
        shown += &String::from_utf8_lossy(&monitor.receive().expect("a line"));
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!server.log().contains("hunter2"));
}

/// What a monitor has been shown before a line with `end`.
fn shown_until_end(monitor: &mut Client) -> String {
    let mut shown = String::new();
    while !shown.contains("\"end\"") {
        shown += &String::from_utf8_lossy(&monitor.receive().expect("a line"));
    }
    shown
}

#[test]
fn a_monitor_sees_what_its_user_may_read() {
    let server = start();
    let mut admin = server.client();
    ok(
        &mut admin,
        &["ACL SETUSER u on nopass +@all ~k* %W~w* resetchannels &news", "ACL SETUSER all on nopass +monitor"],
    );
    ok(&mut admin, &["ACL SETUSER all allkeys allchannels"]);
    let (mut limited, mut whole) = (server.client(), server.client());
    ok(&mut limited, &["AUTH u x", "MONITOR"]);
    ok(&mut whole, &["AUTH all x", "MONITOR"]);
    let seen = ["SET k1 k-value", "PUBLISH news n-value", "EVAL return 1 k2"];
    let unseen = [
        "SET other o-value",
        "SET w1 w-value",
        "MSET k3 x other2 o-value",
        "PUBLISH private p-value",
        "EVAL return 1 other3",
        "EVAL return 7 other4",
    ];
    seen.iter().chain(&unseen).for_each(|line| drop(text(&mut admin, line)));
    ok(&mut admin, &["MULTI"]);
    ["SET k4 1", "SET other5 1"].iter().for_each(|line| drop(text(&mut admin, line)));
    text(&mut admin, "EXEC");
    text(&mut admin, "ECHO end");
    let (limited_lines, all_lines) = (shown_until_end(&mut limited), shown_until_end(&mut whole));
    for line in seen.iter().chain(&["SET k4 1", "EXEC", "MULTI"]) {
        let quoted: Vec<String> = line.split(' ').map(|word| format!("\"{word}\"")).collect();
        assert!(limited_lines.contains(&quoted.join(" ")) && all_lines.contains(&quoted.join(" ")), "{line}");
    }
    for word in ["other", "\"w1\"", "private", "k3", "-value\" \"o"] {
        assert!(!limited_lines.contains(word), "{word}: {limited_lines}");
    }
    for word in ["other", "other2", "other3", "other5", "w1", "private"] {
        assert!(all_lines.contains(word), "{word}: {all_lines}");
    }
    // Changed rules hold from the next command of anybody on.
    ok(&mut admin, &["ACL SETUSER u resetkeys ~other*"]);
    ["SET other6 1", "SET k6 1", "ECHO end"].iter().for_each(|line| drop(text(&mut admin, line)));
    let lines = shown_until_end(&mut limited);
    assert!(lines.contains("other6") && !lines.contains("k6"), "{lines}");
}

#[test]
fn nobody_is_told_that_a_key_has_changed_which_it_may_not_read() {
    let server = start();
    let mut admin = server.client();
    ok(&mut admin, &["ACL SETUSER u on nopass +@all ~k* &*", "ACL SETUSER v on nopass +@all ~v* &*"]);
    let (mut of_prefixes, mut tracker, mut receiver) = (server.client(), server.client(), server.client());
    text(&mut of_prefixes, "HELLO 3 AUTH u x");
    ok(&mut of_prefixes, &["CLIENT TRACKING on BCAST"]);
    text(&mut receiver, "HELLO 3 AUTH v x");
    let id = text(&mut receiver, "CLIENT ID").trim().trim_start_matches(':').to_owned();
    ok(&mut tracker, &[&format!("CLIENT TRACKING on REDIRECT {id}")]);
    ["GET k1", "GET v1", "GET other"].iter().for_each(|line| drop(text(&mut tracker, line)));
    ok(&mut admin, &["SET other 1", "SET v1 1", "SET k1 1"]);
    let told = |key: &str| format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len());
    let hears = |client: &mut Client, key: &str| {
        let message = client.receive().expect("a push");
        assert_eq!(String::from_utf8_lossy(&message), told(key));
    };
    hears(&mut of_prefixes, "k1");
    hears(&mut receiver, "v1");
    ok(&mut admin, &["ACL SETUSER u resetkeys ~other", "SET k1 2", "SET other 2"]);
    hears(&mut of_prefixes, "other");
}

/// What a client has sent to log in, right or wrong, stays in no buffer of the server.
#[test]
fn no_password_stays_in_memory() {
    let server = Recipe::under_test().with("save", "").with("io-threads", "1").start();
    let mut client = server.client();
    let planted = |what: &str| format!("planted-{what}-{}", "x".repeat(20));
    for what in ["auth", "hello", "user"] {
        let secret = planted(what);
        let words: &[&str] = match what {
            "auth" => &["AUTH", "default", &secret],
            "hello" => &["HELLO", "2", "AUTH", "nobody", &secret],
            _ => &["ACL", "SETUSER", "planted", &format!(">{secret}")],
        };
        client.call(words);
    }
    // In two parts, so that it waits in the buffer of the connection.
    let bytes = support::client::encode(&["AUTH", "default", &planted("parts")]);
    let id = text(&mut client, "CLIENT ID").trim().trim_start_matches(':').to_owned();
    client.send(&bytes[..30]).expect("sent");
    let mut other = server.client();
    wait_for(&mut other, &format!("CLIENT LIST ID {id}"), |line| line.contains(" qbuf=30 "));
    client.send(&bytes[30..]).expect("sent");
    // The default user takes any password.
    assert_eq!(client.receive().expect("a reply"), b"+OK\r\n");
    client.call(&["PING"]);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.id())).expect("the process is ours");
    let memory = std::fs::File::open(format!("/proc/{}/mem", server.id())).expect("the process is ours");
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let [from, to] = [0, 1].map(|at| u64::from_str_radix(range.split('-').nth(at).expect("two"), 16).expect("hex"));
        let mut bytes = vec![0; (to - from) as usize];
        // Parts of a guard cannot be read.
        if std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, from).is_ok() {
            let found = memchr::memmem::find(&bytes, b"planted-").map(|at| &bytes[at..(at + 40).min(bytes.len())]);
            let secret = found.filter(|found| found.windows(10).any(|part| part == b"xxxxxxxxxx"));
            assert_eq!(secret.map(|found| String::from_utf8_lossy(found).into_owned()), None, "{line}");
        }
    }
}

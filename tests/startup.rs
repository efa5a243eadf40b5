//! Starting and ending the server as an operator does: arguments, configuration file, signals, limits.

mod support;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::client::{Address, Client};
use support::reply::Reply;
use support::server::{Recipe, free_port, wait};

/// The program under test without any arguments.
fn program() -> Command {
    let line = std::env::var("IRONKEEP_TEST_SERVER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ironkeep").to_owned());
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The exit status of the program, and all its output.
fn run_to_end(command: &mut Command) -> (ExitStatus, String) {
    let mut child = command.spawn().expect("the program starts");
    let status = wait(&mut child).expect("it ends by itself");
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (status, said)
}

/// Ends the child with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something listens on the port.
fn connect(port: u16) -> Client {
    let start = Instant::now();
    loop {
        match Client::connect(&Address::Port(port)) {
            Ok(client) => return client,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "port {port}: {error}"),
        }
        sleep(Duration::from_millis(5));
    }
}

fn start_with_file(directory: &Path, text: &str, more: &[&str]) -> (Running, Client) {
    let port = free_port();
    let file = directory.join("server.conf");
    fs::write(&file, format!("port {port}\ndir {}\n{text}", directory.display())).expect("the file can be written");
    let child = program().arg(&file).args(more).spawn().expect("the program starts");
    (Running(child), connect(port))
}

#[test]
fn a_configuration_file_is_read() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (_running, mut client) = start_with_file(
        home.path(),
        "# a comment\n\n  timeout   17  \nMAXMEMORY 100mb\nmaxmemory-policy allkeys-lru\nrequirepass \"s e\\x63ret\"\nhz 20\n",
        &["--hz", "30", "--appendfsync", "no"],
    );
    assert!(client.line("PING").is_error());
    client.ok(r#"AUTH "s ecret""#);
    for (name, value) in [
        ("timeout", "17"),
        ("maxmemory", "104857600"),
        ("maxmemory-policy", "allkeys-lru"),
        // The command line comes after the file.
        ("hz", "30"),
        ("appendfsync", "no"),
    ] {
        assert_eq!(client.ok(&format!("CONFIG GET {name}")).elements()[1].string(), value, "{name}");
    }
}

#[test]
fn config_rewrite_keeps_what_was_set() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("server.conf");
    let (running, mut client) = start_with_file(home.path(), "# keep this comment\ntimeout 17\n", &[]);
    client.ok("CONFIG SET timeout 23 maxmemory 50mb");
    client.ok("CONFIG REWRITE");
    let text = fs::read_to_string(&file).expect("the file is there");
    assert!(text.contains("# keep this comment"), "{text}");
    assert!(text.lines().any(|line| line == "timeout 23"), "{text}");
    assert!(!text.contains("timeout 17"), "{text}");
    drop(running);

    let port: u16 =
        text.lines().find_map(|line| line.strip_prefix("port ")).and_then(|port| port.parse().ok()).expect("a port");
    let _running = Running(program().arg(&file).spawn().expect("the program starts"));
    let mut client = connect(port);
    assert_eq!(client.ok("CONFIG GET timeout").elements()[1].string(), "23");
    assert_eq!(client.ok("CONFIG GET maxmemory").elements()[1].string(), "52428800");
}

#[test]
fn a_bad_configuration_is_refused_by_name() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("server.conf");
    for (text, named) in [
        ("port 0\nnosuchdirective yes\n", "nosuchdirective"),
        ("port 0\ntimeout abc\n", "timeout"),
        ("port 0\nmaxmemory-policy sometimes\n", "maxmemory-policy"),
        ("port 0\nrequirepass \"unbalanced\n", "requirepass"),
        ("port 99999\n", "port"),
        // A directive that guards access and is not built yet must not be ignored.
        ("port 0\nuser default on >secret ~* +@nothing\n", "user"),
        ("port 0\nrename-command NOSUCH x\n", "No such command in rename-command"),
        ("port 0\nrename-command GET SET\n", "Target command name already exists"),
        ("port 0\naclfile users.acl\n", "users.acl"),
        ("port 0\ntls-port 6380\n", "No tls-cert-file configured!"),
        ("port 0\ntls-port 6380\ntls-cert-file a\ntls-key-file b\n", "tls-auth-clients"),
    ] {
        fs::write(&file, text).expect("the file can be written");
        let (status, said) = run_to_end(program().arg(&file).current_dir(home.path()));
        assert_eq!(status.code(), Some(1), "{text}{said}");
        assert!(said.contains(named), "{text}{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let (status, said) = run_to_end(program().args(["--nosuchdirective", "yes"]).current_dir(home.path()));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("nosuchdirective"), "{said}");
    let (status, said) = run_to_end(program().arg(home.path().join("missing.conf")).current_dir(home.path()));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("missing.conf"), "{said}");
}

/// Both started in silence, one empty and the other without what was durable.
#[test]
fn a_start_that_would_lose_data_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    fs::create_dir(&data).expect("it can be made");
    fs::write(data.join("dump.rdb"), b"REDIS0011").expect("it can be written");
    let refused = |named: &str| {
        let command = &mut program();
        command.args(["--port", &free_port().to_string(), "--dir"]).arg(&data);
        let (status, said) = run_to_end(command);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(named) && !said.contains("panicked"), "{said}");
    };
    refused("dump.rdb is corrupt at offset 9: ");
    let command = &mut program();
    command.args(["--import-foreign-files", "no", "--port", &free_port().to_string(), "--dir"]).arg(&data);
    let (status, said) = run_to_end(command);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("dump.rdb: it holds the data of another server"), "{said}");
    assert!(!data.join("MANIFEST").exists() && !data.join("IMPORTING").exists(), "a refusal changes nothing");
    fs::remove_file(data.join("dump.rdb")).expect("it is there");
    let text = format!("dir {}\nappendonly yes\nappendfsync always\n", data.display());
    let run = |command: &str| {
        let (mut running, mut client) = start_with_file(home.path(), &text, &[]);
        client.ok(command);
        running.0.kill().expect("it runs");
        running.0.wait().expect("it ends");
    };
    run("SET a 1");
    let stale = fs::read(data.join("MANIFEST")).expect("it is there");
    run("SET c 3");
    let newest = fs::read(data.join("MANIFEST")).expect("it is there");
    fs::write(data.join("MANIFEST"), stale).expect("it can be written");
    refused("MANIFEST: it is number");
    fs::remove_file(data.join("LOCK")).expect("it is there");
    refused("it is older than log-");
    fs::write(data.join("MANIFEST"), newest).expect("it can be written");
    let (_running, mut client) = start_with_file(home.path(), &text, &[]);
    assert_eq!(client.ok("GET c").string(), "3");
}

#[test]
fn a_port_in_use_is_refused() {
    let server = Recipe::under_test().start();
    let home = tempfile::tempdir().expect("a temporary directory");
    let port = server.port().to_string();
    let mut command = program();
    command.args(["--bind", "127.0.0.1", "--port", &port, "--dir"]).arg(home.path());
    let (status, said) = run_to_end(&mut command);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&port) && said.to_lowercase().contains("in use"), "{said}");
    server.client().ok("PING");
}

#[test]
fn the_log_says_when_it_is_ready() {
    let server = Recipe::under_test().start();
    assert!(server.log().contains("Ready to accept connections"), "{}", server.log());
}

#[test]
fn signals_end_the_server_well() {
    let mut server = Recipe::under_test().start();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        server.client().ok("SET k v");
        let id = rustix::process::Pid::from_raw(i32::try_from(server.id()).expect("small")).expect("not zero");
        rustix::process::kill_process(id, signal).expect("the signal can be sent");
        assert_eq!(server.wait_for_exit().code(), Some(0), "{signal:?}: {}", server.log());
        server.start_again();
    }
}

#[test]
fn a_pid_file_comes_and_goes() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("server.pid");
    let mut server = Recipe::under_test().with("pidfile", file.to_str().expect("text")).start();
    let text = fs::read_to_string(&file).expect("the file is there");
    assert_eq!(text.trim(), server.id().to_string());
    server.terminate();
    assert!(!file.exists(), "it goes with the server");
}

#[test]
fn ports_and_addresses_change_while_it_runs() {
    let server = Recipe::under_test().with("bind", "127.0.0.1").start();
    let other = Recipe::under_test().start();
    let mut client = server.client();
    let refusal = |client: &mut Client, line: &str| {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        String::from_utf8(client.call(&words)).expect("text")
    };
    let answers = |host: &str, port: u16| std::net::TcpStream::connect((host, port)).is_ok();
    let (first, second) = (server.port(), free_port());

    client.ok(&format!("CONFIG SET port {second}"));
    connect(second).ok("SET k v");
    assert!(!answers("127.0.0.1", first), "the old port is closed");
    assert_eq!(client.ok("GET k").string(), "v", "a connection outlives the port that it came by");

    let taken = refusal(&mut client, &format!("CONFIG SET port {}", other.port()));
    assert_eq!(
        taken,
        "-ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check server \
         logs.\r\n"
    );
    assert_eq!(client.ok("CONFIG GET port").elements()[1].string(), second.to_string());
    connect(second).ok("PING");

    client.ok("CONFIG SET bind 127.0.0.2");
    assert!(answers("127.0.0.2", second) && !answers("127.0.0.1", second));
    client.ok("CONFIG SET bind *");
    assert!(answers("127.0.0.2", second) && answers("127.0.0.1", second), "all addresses exclude the one before");
    let absent = refusal(&mut client, "CONFIG SET bind 192.0.2.1");
    assert_eq!(
        absent,
        "-ERR CONFIG SET failed (possibly related to argument 'bind') - Failed to bind to specified addresses.\r\n"
    );
    assert!(answers("127.0.0.2", second) && answers("127.0.0.1", second), "what fails changes nothing");
    let optional = refusal(&mut client, "CONFIG SET bind -192.0.2.1");
    assert_eq!(optional, absent, "an address may be lacking, not all of them");
    let half = refusal(&mut client, "CONFIG SET bind 127.0.0.2 192.0.2.1");
    assert_eq!(half, absent);
    assert!(answers("127.0.0.2", second) && answers("127.0.0.1", second), "what fails half-way changes nothing");

    assert_eq!(client.ok("CONFIG GET bind").elements()[1].string(), "*");
    client.ok("CONFIG SET bind 127.0.0.1");

    client.ok("CONFIG SET port 0");
    assert!(!answers("127.0.0.1", second));
    client.ok(&format!("CONFIG SET port {first}"));
    connect(first).ok("PING");
}

#[test]
fn a_server_that_would_listen_nowhere_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (status, said) = run_to_end(program().args(["--port", "0", "--dir"]).arg(home.path()));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("not listen anywhere"), "{said}");
}

#[test]
fn a_unix_socket_alone() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let socket = home.path().join("socket");
    let mut command = program();
    command.args(["--port", "0", "--unixsocketperm", "700", "--unixsocket"]).arg(&socket).arg("--dir").arg(home.path());
    let _running = Running(command.spawn().expect("the program starts"));
    let start = Instant::now();
    let mut client = loop {
        match Client::connect(&Address::Unix(socket.clone())) {
            Ok(client) => break client,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
        }
        sleep(Duration::from_millis(5));
    };
    client.ok("SET k v");
    assert_eq!(client.ok("CONFIG GET port").elements()[1].string(), "0");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(&socket).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn no_more_clients_than_allowed() {
    let server = Recipe::under_test().with("maxclients", "3").start();
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.ok("PING")));
    let refused = server.client().receive_until_close().expect("it closes");
    assert_eq!(refused.escape_ascii().to_string(), r"-ERR max number of clients reached\r\n");
    clients[0].ok("PING");
    // A released place can be taken, though perhaps not in the same instant.
    clients.pop();
    let start = Instant::now();
    while server.client().try_call(&["PING"]).is_ok_and(|reply| reply != b"+PONG\r\n") {
        assert!(start.elapsed() < Duration::from_secs(60), "the place stays taken");
    }
}

#[test]
fn idle_clients_are_closed_after_the_timeout() {
    let server = Recipe::under_test().with("timeout", "1").start();
    // A pause of this process is idleness, too: then the next connection is served.
    let start = Instant::now();
    let served = || loop {
        let mut client = server.client();
        match client.try_call(&["PING"]) {
            Ok(reply) => break (client, reply),
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
        }
    };
    let (mut idle, reply) = served();
    assert_eq!(reply, b"+PONG\r\n");
    assert_eq!(idle.receive_until_close().expect("it closes"), b"");
    served();
}

#[test]
fn memory_is_limited() {
    let server = Recipe::under_test().start();
    let mut client = server.client();
    client.ok("SET before v");
    client.ok("CONFIG SET maxmemory 1");
    for line in ["SET k v", "APPEND before w", "INCR n", "SETRANGE before 5 x", "COPY before other", "MSET a 1"] {
        let reply = client.line(line);
        assert!(reply.is_error() && reply.string().starts_with("OOM command not allowed"), "{line}: {reply:?}");
    }
    // Commands that free memory, or need none, still work.
    assert_eq!(client.ok("GET before").string(), "v");
    assert_eq!(client.ok("EXPIRE before 100").integer(), 1);
    assert_eq!(client.ok("DEL before").integer(), 1);
    client.ok("CONFIG SET maxmemory 0");
    client.ok("SET k v");
}

/// Whatever was queued above `maxmemory` was refused, so that a transaction could not even make room.
#[test]
fn above_maxmemory_a_transaction_is_refused_only_what_may_take_memory() {
    if Recipe::is_stand_in() {
        println!("not checked: Redis refuses whatever is queued");
        return;
    }
    let server = Recipe::under_test().start();
    let (mut client, mut other) = (server.client(), server.client());
    client.ok("MSET a 1 b 2");
    client.ok("CONFIG SET maxmemory 1");
    client.ok("WATCH a");
    for line in ["DEL a", "GET b", "EXPIRE b 100", "PING", "UNWATCH"] {
        client.ok("MULTI");
        assert_eq!(client.ok(line).string(), "QUEUED", "{line}");
        assert_eq!(client.ok("EXEC").elements().len(), 1, "{line}");
    }
    assert_eq!(client.ok("EXISTS a b").integer(), 1);
    let refused = |reply: Reply, text: &str| assert!(reply.is_error() && reply.string().starts_with(text), "{reply:?}");
    client.ok("MULTI");
    client.ok("DEL b");
    refused(client.line("SET c 1"), "OOM command not allowed when used memory > 'maxmemory'.");
    refused(client.line("EXEC"), "EXECABORT Transaction discarded because of previous errors.");
    client.ok("MULTI");
    refused(client.line("SET c 1"), "OOM command not allowed");
    client.ok("DISCARD");
    // What was queued while there was room is executed without it if none of it may take memory.
    for (line, executed) in [("SET c 1", false), ("DEL b", true)] {
        other.ok("CONFIG SET maxmemory 0");
        client.ok("MULTI");
        client.ok(line);
        other.ok("CONFIG SET maxmemory 1");
        match executed {
            true => assert_eq!(client.ok("EXEC").elements().len(), 1),
            false => refused(client.line("EXEC"), "EXECABORT Transaction discarded because of: OOM"),
        }
    }
    assert_eq!(client.ok("EXISTS b c").integer(), 0);
}

#[test]
fn eviction_keeps_memory_below_the_limit() {
    let server = Recipe::under_test().start();
    let mut client = server.client();
    let field = |client: &mut Client, name: &str| -> u64 {
        let info = client.ok("INFO").string();
        let line = info.lines().find_map(|line| line.strip_prefix(name)).expect("the field is there");
        line.trim_start_matches(':').parse().expect("a number")
    };
    let limit = field(&mut client, "used_memory") + 3_000_000;
    client.ok(&format!("CONFIG SET maxmemory {limit} maxmemory-policy allkeys-lru"));
    for number in 0..10_000 {
        client.ok(&format!("SET k:{number} \"v\"*1000"));
    }
    assert!(field(&mut client, "evicted_keys") > 5000);
    // One command may overshoot before the next makes room.
    assert!(field(&mut client, "used_memory") < limit + 100_000);
    let left = client.ok("DBSIZE").integer();
    assert!((500..4000).contains(&left), "{left} keys are left");
}

/// Ends a server that is not a child of the test, and waits for its end.
fn end_detached(client: &mut Client) {
    let _ = client.try_call(&["SHUTDOWN", "NOSAVE"]);
}

#[test]
fn a_daemon_is_ready_when_its_parent_exits() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let daemon = || {
        let mut command = program();
        command.args(["--daemonize", "yes", "--port", &port.to_string(), "--dir"]).arg(home.path());
        command.arg("--pidfile").arg(home.path().join("pid")).arg("--logfile").arg(home.path().join("log"));
        command
    };
    let (status, output) = run_to_end(&mut daemon());
    assert!(status.success(), "{output}");
    let mut client = Client::connect(&Address::Port(port)).expect("it listens");
    client.ok("SET k v");
    let id: u32 = client
        .ok("INFO server")
        .string()
        .lines()
        .find_map(|line| line.strip_prefix("process_id:")?.parse().ok())
        .expect("INFO has it");
    let noted = std::fs::read_to_string(home.path().join("pid")).expect("the pid file is there");
    assert_eq!(noted.trim(), id.to_string());
    // The second one cannot have the port, and its parent learns that.
    let (status, output) = run_to_end(&mut daemon());
    assert!(!status.success());
    assert!(output.contains(&format!("{port}")), "{output}");
    assert_eq!(client.ok("GET k").string(), "v");
    end_detached(&mut client);
}

#[test]
fn the_limit_of_open_files_bounds_the_clients() {
    let script = "ulimit -S -n 64; exec \"$0\" \"$@\"";
    let server = Recipe::under_test().with("maxclients", "500").through_shell(script).start();
    assert_eq!(server.client().ok("CONFIG GET maxclients").elements()[1].string(), "500", "the soft limit is raised");
    let clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    server.client().ok("PING");
    drop(clients);
}

/// As in Redis: `dir` is where the server works, and where it looks for what is named relative to it.
#[test]
fn relative_paths_are_relative_to_dir_also_after_a_restart() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    fs::create_dir(&data).expect("our own");
    fs::write(data.join("users.acl"), "user default on nopass ~* &* +@all\nuser reader on nopass ~* +get\n")
        .expect("ours");
    let port = free_port();
    let text = format!(
        "port {port}\ndir ./data\nlogfile server.log\npidfile server.pid\nunixsocket socket\naclfile users.acl\n\
         audit-log-file audit.log\nenable-debug-command yes\nsave \"\"\n"
    );
    fs::write(home.path().join("server.conf"), text).expect("ours");
    let mut command = program();
    let child = command.arg("server.conf").current_dir(home.path()).spawn().expect("the program starts");
    let _running = Running(child);
    for round in 0..2 {
        // The last program may still take a connection with it.
        let mut client = loop {
            let mut client = connect(port);
            if client.try_call(&["PING"]).is_ok() {
                break client;
            }
        };
        assert_eq!(client.ok("ACL USERS").elements().len(), 2);
        for name in ["server.log", "server.pid", "socket", "audit.log"] {
            assert!(data.join(name).exists() && !home.path().join(name).exists(), "{name}, round {round}");
        }
        client.ok("SET k v");
        client.ok("CONFIG REWRITE");
        let kept = fs::read_to_string(home.path().join("server.conf")).expect("text");
        assert!(kept.contains(&format!("dir {}", data.display())) || kept.contains("dir \"/"), "{kept}");
        if round == 0 {
            client.send(b"DEBUG RESTART\r\n").expect("the server reads");
            while client.receive().is_ok() {}
        } else {
            assert_eq!(client.ok("GET k").string(), "v");
        }
    }
}

//! CONFIG SET io-threads while clients are busy: whoever can move does, and no client notices.
//!
//! What is compared is replies and where CLIENT LIST says that a client is served, never a clock.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::client::{Client, PATIENCE};
use support::server::{Recipe, Server};

/// How many commands a pipeline has.
const PIPELINE: usize = 100;

fn start(workers: &str, fsync: &str) -> Server {
    let recipe = Recipe::under_test().with("io-threads", workers).with("save", "");
    recipe.with("appendonly", "yes").with("appendfsync", fsync).start()
}

/// Waits for something that comes sooner or later.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The worker of each client, by the client's id, as CLIENT LIST tells it.
fn workers(admin: &mut Client) -> BTreeMap<i64, usize> {
    let list = admin.ok("CLIENT LIST").string();
    let field = |line: &str, name: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(name));
        word.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
    };
    list.lines().map(|line| (field(line, "id="), field(line, "io-thread=") as usize)).collect()
}

fn set(admin: &mut Client, workers: usize) {
    admin.ok(&format!("CONFIG SET io-threads {workers}"));
}

/// Sets the number of workers, and waits until these clients are with those that are left.
fn settle(admin: &mut Client, count: usize, movable: &[i64]) {
    set(admin, count);
    wait_until(&format!("the clients are with {count} workers"), || {
        let at = workers(admin);
        movable.iter().all(|id| at[id] < count)
    });
}

fn field(admin: &mut Client, name: &str) -> String {
    let info = admin.ok("INFO everything").string();
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// What one client does again and again until it is told to stop. Each counts its rounds.
struct Load<'a> {
    server: &'a Server,
    stop: &'a AtomicBool,
    rounds: &'a [AtomicU64],
}

impl Load<'_> {
    /// Has a client do rounds of something. Its one connection must last.
    fn run(&self, number: usize, mut round: impl FnMut(&mut Client, u64)) {
        let mut client = self.server.client();
        let mut done = 0;
        while !self.stop.load(Relaxed) {
            round(&mut client, done);
            done += 1;
            self.rounds[number].store(done, Relaxed);
        }
        assert_eq!(client.ok("PING").string(), "PONG");
    }

    /// Pipelines whose replies are consecutive, sent in two pieces that end within a command.
    fn pipelines(&self, number: usize) {
        let request = format!("INCR pipeline:{number}\r\n").repeat(PIPELINE);
        self.run(number, |client, round| {
            let cut = (round as usize * 7919) % request.len();
            client.send(&request.as_bytes()[..cut]).expect("the connection holds");
            if round % 3 == 0 {
                std::thread::yield_now();
            }
            client.send(&request.as_bytes()[cut..]).expect("the connection holds");
            for at in 1..=PIPELINE as u64 {
                let reply = client.receive().expect("a reply");
                let expected = format!(":{}\r\n", round * PIPELINE as u64 + at);
                assert_eq!(String::from_utf8_lossy(&reply), expected);
            }
        });
    }

    /// A transaction, command by command, on a key that it watches.
    fn transactions(&self, number: usize) {
        self.run(number, |client, round| {
            client.ok(&format!("WATCH watched:{number}"));
            client.ok("MULTI");
            client.ok(&format!("INCR watched:{number}"));
            client.ok(&format!("GET watched:{number}"));
            let reply = client.ok("EXEC");
            assert_eq!(reply.elements()[0].integer() as u64, round + 1);
            assert_eq!(reply.elements()[1].string(), (round + 1).to_string());
        });
    }

    /// Scripts, of which some run for longer than a time slice.
    fn scripts(&self, number: usize) {
        let text =
            "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + 1 end redis.call('INCRBY', KEYS[1], 1) return n";
        self.run(number, |client, round| {
            let loops = if round % 8 == 0 { "300000" } else { "10" };
            let key = format!("script:{number}");
            assert_eq!(client.call(&["EVAL", text, "1", &key, loops]), format!(":{loops}\r\n").as_bytes());
            assert_eq!(client.ok(&format!("GET {key}")).string(), (round + 1).to_string());
        });
    }

    /// Waits for elements that another one pushes. None is lost, and none comes twice.
    fn blocked(&self, number: usize) {
        let mut pusher = self.server.client();
        self.run(number, |client, round| {
            client.send(format!("BLPOP queue:{number} 0\r\n").as_bytes()).expect("the connection holds");
            pusher.ok(&format!("RPUSH queue:{number} {round}"));
            let reply = client.receive().expect("a reply");
            let expected = format!("*2\r\n$7\r\nqueue:{number}\r\n${}\r\n{round}\r\n", round.to_string().len());
            assert_eq!(String::from_utf8_lossy(&reply), expected);
        });
    }

    /// Subscribes, hears some messages, and leaves.
    fn subscribed(&self, number: usize) {
        let mut publisher = self.server.client();
        let channel = format!("channel:{number}");
        self.run(number, |client, _| {
            client.ok(&format!("SUBSCRIBE {channel}"));
            for message in 0..20 {
                assert_eq!(publisher.ok(&format!("PUBLISH {channel} {message}")).integer(), 1);
            }
            for message in 0..20 {
                let heard = support::reply::parse(&client.receive().expect("a message"));
                assert_eq!(heard.elements()[2].string(), message.to_string());
            }
            client.ok(&format!("UNSUBSCRIBE {channel}"));
            assert_eq!(publisher.ok(&format!("PUBLISH {channel} gone")).integer(), 0);
        });
    }

    /// Reads a key and hears of its change, tracking anew each time.
    fn tracking(&self, number: usize) {
        let mut writer = self.server.client();
        let key = format!("cached:{number}");
        self.run(number, |client, round| {
            if round == 0 {
                client.ok("HELLO 3");
            }
            client.ok("CLIENT TRACKING ON");
            client.line(&format!("GET {key}"));
            writer.ok(&format!("SET {key} {round}"));
            let told = support::reply::parse(&client.receive().expect("an invalidation"));
            assert_eq!(told.elements()[1].elements()[0].string(), key);
            client.ok("CLIENT TRACKING OFF");
            assert_eq!(client.ok(&format!("GET {key}")).string(), round.to_string());
        });
    }
}

/// Stops all clients in the end, even if that is a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn nobody_notices(fsync: &str, steps: &[usize]) {
    const LOADS: usize = 9;
    let server = start("1", fsync);
    let mut admin = server.client();
    let (stop, rounds) = (AtomicBool::new(false), std::array::from_fn::<_, LOADS, _>(|_| AtomicU64::new(0)));
    let load = &Load { server: &server, stop: &stop, rounds: &rounds };
    std::thread::scope(|scope| {
        let loads: [fn(&Load<'_>, usize); LOADS] = [
            |load, number| load.pipelines(number),
            |load, number| load.pipelines(number),
            |load, number| load.pipelines(number),
            |load, number| load.transactions(number),
            |load, number| load.transactions(number),
            |load, number| load.scripts(number),
            |load, number| load.blocked(number),
            |load, number| load.subscribed(number),
            |load, number| load.tracking(number),
        ];
        // If one fails, the others end, too.
        let all_stop = Stop(&stop);
        let threads: Vec<_> = (0..LOADS)
            .map(|number| {
                scope.spawn(move || {
                    let _others = Stop(load.stop);
                    loads[number](load, number);
                })
            })
            .collect();
        let busy = |what: &str| {
            let before: Vec<u64> = rounds.iter().map(|rounds| rounds.load(Relaxed)).collect();
            wait_until(what, || {
                stop.load(Relaxed) || rounds.iter().zip(&before).all(|(now, before)| now.load(Relaxed) > before + 2)
            });
            assert!(!stop.load(Relaxed), "a client has failed");
        };
        busy("all clients are busy");
        let connections = field(&mut admin, "total_connections_received");
        let ids: Vec<i64> = workers(&mut admin).into_keys().collect();
        for &count in steps {
            // Each of them is free to move now and then.
            settle(&mut admin, count, &ids);
            busy(&format!("all go on with {count} workers"));
        }
        assert_eq!(field(&mut admin, "total_connections_received"), connections, "nobody had to connect anew");
        assert_eq!(workers(&mut admin).into_keys().collect::<Vec<_>>(), ids, "nobody was disconnected");
        drop(all_stop);
        for thread in threads {
            thread.join().expect("the replies are right");
        }
    });
    assert!(!server.log().contains("BUG"), "{}", server.log());
}

#[test]
fn busy_clients_move_and_their_replies_are_right_and_complete() {
    nobody_notices("everysec", &[4, 1, 3, 2, 4, 1, 2, 1, 4, 1]);
}

#[test]
fn so_they_are_under_always() {
    nobody_notices("always", &[4, 1, 4, 1, 3, 1]);
}

#[test]
fn what_was_acknowledged_on_the_way_survives_kill_9() {
    const CLIENTS: usize = 6;
    for fsync in ["always", "everysec"] {
        let mut server = start("1", fsync);
        let mut admin = server.client();
        let acknowledged = std::array::from_fn::<_, CLIENTS, _>(|_| AtomicU64::new(0));
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
        std::thread::scope(|scope| {
            for (number, (client, acknowledged)) in clients.iter_mut().zip(&acknowledged).enumerate() {
                scope.spawn(move || {
                    // Until the server is killed.
                    while let Ok(reply) = client.try_call(&["INCR", &format!("n:{number}")]) {
                        let count = String::from_utf8_lossy(&reply[1..]).trim_end().parse().expect("a number");
                        acknowledged.store(count, Relaxed);
                    }
                });
            }
            let ids: Vec<i64> = workers(&mut admin).into_keys().collect();
            for count in [3, 1, 4, 2, 1, 4] {
                settle(&mut admin, count, &ids);
                let before: Vec<u64> = acknowledged.iter().map(|count| count.load(Relaxed)).collect();
                let go_on = || acknowledged.iter().zip(&before).all(|(now, before)| now.load(Relaxed) > *before);
                wait_until("all go on", go_on);
            }
            set(&mut admin, 1);
            server.kill();
        });
        server.start_again();
        let mut admin = server.client();
        for (number, acknowledged) in acknowledged.iter().enumerate() {
            let found: u64 = admin.ok(&format!("GET n:{number}")).string().parse().expect("a number");
            let acknowledged = acknowledged.load(Relaxed);
            // One more may have been executed, whose reply was on its way.
            assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} of {acknowledged}");
        }
    }
}

#[test]
fn new_workers_get_a_fair_share_and_those_out_of_service_nothing() {
    let server = start("1", "everysec");
    let mut admin = server.client();
    let mut clients: Vec<Client> = (0..15).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.ok("PING")));
    let count = |admin: &mut Client| {
        let mut of_workers = vec![0; 4];
        workers(admin).into_values().for_each(|worker| of_workers[worker] += 1);
        of_workers
    };
    wait_until("all are there", || count(&mut admin) == [16, 0, 0, 0]);
    assert_eq!(field(&mut admin, "io_threads_active"), "0");
    set(&mut admin, 4);
    wait_until("everybody has moved", || count(&mut admin) == [4, 4, 4, 4]);
    assert_eq!(field(&mut admin, "io_threads_active"), "1");
    assert_eq!(admin.ok("CONFIG GET io-threads").elements()[1].string(), "4");
    clients.iter_mut().for_each(|client| drop(client.ok("SET k v")));
    for worker in 0..4 {
        assert!(field(&mut admin, &format!("io_thread_{worker}")).starts_with("clients=4,"));
    }
    set(&mut admin, 2);
    wait_until("everybody has moved", || count(&mut admin) == [8, 8, 0, 0]);
    let more: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = server.client();
            client.ok("GET k");
            client
        })
        .collect();
    assert_eq!(count(&mut admin), [12, 12, 0, 0], "new ones go to those in service");
    assert!(!admin.ok("INFO everything").string().contains("io_thread_2:"), "it serves nobody");
    drop(more);
    set(&mut admin, 1);
    wait_until("everybody has moved", || count(&mut admin)[1..] == [0, 0, 0]);
    assert_eq!(field(&mut admin, "io_threads_active"), "0");
    clients.iter_mut().for_each(|client| assert_eq!(client.ok("GET k").string(), "v"));
}

#[test]
fn who_listens_or_waits_stays_until_that_ends_and_is_served_meanwhile() {
    let server = start("4", "everysec");
    let mut admin = server.client();
    let id = |client: &mut Client| client.ok("CLIENT ID").integer();
    // Four of each kind, so that at least three are not with the first worker.
    let many = || (0..4).map(|_| server.client()).collect::<Vec<Client>>();
    let [mut subscribers, mut monitors, mut blocked, mut scripts, mut trackers] = std::array::from_fn(|_| many());
    let ids: Vec<i64> = [&mut subscribers, &mut monitors, &mut blocked, &mut scripts, &mut trackers]
        .into_iter()
        .flat_map(|clients| clients.iter_mut().map(id).collect::<Vec<_>>())
        .collect();
    // Scripts that take long make nobody busy here, however long all of this takes.
    admin.ok("CONFIG SET busy-reply-threshold 600000");
    let before = workers(&mut admin);
    subscribers.iter_mut().for_each(|client| drop(client.ok("SUBSCRIBE news")));
    monitors.iter_mut().for_each(|client| drop(client.ok("MONITOR")));
    blocked.iter_mut().for_each(|client| client.send(b"BLPOP queue 0\r\n").expect("sent"));
    wait_until("all wait", || field(&mut admin, "blocked_clients") == "4");
    for (number, client) in scripts.iter_mut().enumerate() {
        let script = format!("EVAL \"while true do end\" 1 script:{number}\r\n");
        client.send(script.as_bytes()).expect("sent");
    }
    let running = |admin: &mut Client| admin.ok("CLIENT LIST").string().matches(" cmd=eval ").count();
    wait_until("the scripts run", || running(&mut admin) == 4);
    trackers.iter_mut().for_each(|client| {
        client.ok("HELLO 3");
        client.ok("CLIENT TRACKING ON");
        client.line("GET cached");
    });
    admin.ok("CONFIG SET io-threads 1");
    let movable = id(&mut admin);
    wait_until("the one that can has moved", || workers(&mut admin)[&movable] == 0);
    let now = workers(&mut admin);
    ids.iter().for_each(|id| assert_eq!(now[id], before[id], "{id} has something under way"));
    assert!(ids.iter().any(|id| now[id] != 0), "or nothing is tested: {now:?}");

    for client in &mut scripts {
        wait_until("the scripts end", || {
            admin.line("SCRIPT KILL");
            client.arrived() > 0
        });
        assert!(client.receive().expect("an error").starts_with(b"-ERR "));
    }
    assert_eq!(admin.ok("PUBLISH news hello").integer(), 4);
    for client in &mut subscribers {
        assert!(client.receive().expect("a message").ends_with(b"hello\r\n"));
        client.ok("UNSUBSCRIBE news");
    }
    admin.ok("SET cached 1");
    for client in &mut trackers {
        assert!(client.receive().expect("an invalidation").starts_with(b">2\r\n$10\r\ninvalidate"));
        client.ok("CLIENT TRACKING OFF");
    }
    admin.ok("RPUSH queue a b c d");
    let mut elements: Vec<_> = blocked.iter_mut().map(|client| client.receive().expect("an element")).collect();
    elements.sort();
    assert_eq!(elements[3], b"*2\r\n$5\r\nqueue\r\n$1\r\nd\r\n");
    for client in &mut monitors {
        while !client.receive().expect("a line").ends_with(b"\"RPUSH\" \"queue\" \"a\" \"b\" \"c\" \"d\"\r\n") {}
        client.send(b"RESET\r\n").expect("sent");
        while client.receive().expect("a line") != b"+RESET\r\n" {}
    }
    wait_until("all have moved", || workers(&mut admin).into_values().all(|worker| worker == 0));
    for client in [subscribers, monitors, blocked, scripts, trackers].iter_mut().flatten() {
        assert_eq!(client.ok("GET cached").string(), "1");
    }
}

#[test]
fn what_was_received_of_a_command_moves_along() {
    let server = start("2", "everysec");
    let mut admin = server.client();
    let mut clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    let ids: Vec<i64> = clients.iter_mut().map(|client| client.ok("CLIENT ID").integer()).collect();
    let value = "v".repeat(300_000);
    for (round, count) in [1, 4, 1, 2].into_iter().enumerate() {
        for (number, client) in clients.iter_mut().enumerate() {
            // Some in the middle of a short command, some in the middle of a long value.
            let head = format!("*3\r\n$3\r\nSET\r\n$5\r\nkey:{number}\r\n${}\r\n", value.len() + round);
            let request = head + &value[..[0, 10, 200_000][number % 3]];
            client.send(request.as_bytes()).expect("the connection holds");
        }
        settle(&mut admin, count, &ids);
        for (number, client) in clients.iter_mut().enumerate() {
            let rest = value[[0, 10, 200_000][number % 3]..].to_owned() + &"w".repeat(round) + "\r\n";
            client.send(rest.as_bytes()).expect("the connection holds");
            assert_eq!(client.receive().expect("a reply"), b"+OK\r\n");
            assert_eq!(client.ok(&format!("STRLEN key:{number}")).integer() as usize, value.len() + round);
        }
    }
}

#[test]
fn settings_in_quick_succession_lead_to_the_last() {
    let server = start("1", "everysec");
    let mut admin = server.client();
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.ok("PING")));
    for last in [1, 3] {
        let others: Vec<String> = [4, 1, 4, 2, 8, last].map(|n| format!("CONFIG SET io-threads {n}\r\n")).into();
        let mut second = server.client();
        second.send(others[..3].concat().as_bytes()).expect("sent");
        admin.send(others[3..].concat().as_bytes()).expect("sent");
        for client in [&mut admin, &mut second] {
            (0..3).for_each(|_| assert_eq!(client.receive().expect("a reply"), b"+OK\r\n"));
        }
        set(&mut admin, last);
        wait_until("all are with those in service", || workers(&mut admin).into_values().all(|worker| worker < last));
        clients.iter_mut().for_each(|client| assert_eq!(client.ok("PING").string(), "PONG"));
        assert_eq!(field(&mut admin, "io_threads_active"), if last > 1 { "1" } else { "0" });
    }
}

#[test]
fn who_is_killed_on_the_way_is_gone() {
    let server = start("4", "everysec");
    let mut admin = server.client();
    for round in 0..30 {
        let mut clients: Vec<Client> = (0..16).map(|_| server.client()).collect();
        let ids: Vec<i64> = clients.iter_mut().map(|client| client.ok("CLIENT ID").integer()).collect();
        let count = if round % 2 == 0 { 1 } else { 4 };
        let kills: String = ids.iter().map(|id| format!("CLIENT KILL ID {id}\r\n")).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| set(&mut server.client(), count));
            admin.send(kills.as_bytes()).expect("sent");
            (0..16).for_each(|_| assert_eq!(admin.receive().expect("a reply"), b":1\r\n"));
        });
        for client in &mut clients {
            assert_eq!(client.receive_until_close().expect("it closes"), b"");
        }
    }
    let list = || server.client().ok("CLIENT LIST").string().lines().count();
    wait_until("only those are left that are there", || list() == 2);
}

#[test]
fn the_configuration_tells_the_truth() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let file = home.path().join("ironkeep.conf");
    std::fs::write(&file, "io-threads 2\n").expect("a file");
    let mut server = Recipe::under_test().through_shell(&format!("exec \"$0\" {} \"$@\"", file.display())).start();
    let mut admin = server.client();
    let problem = "-ERR CONFIG SET failed (possibly related to argument 'io-threads') - argument ";
    for (value, reason) in [
        ("257", "must be between 0 and 256 inclusive"),
        ("-1", "must be between 0 and 256 inclusive"),
        ("many", "couldn't be parsed into an integer"),
        ("", "couldn't be parsed into an integer"),
    ] {
        let reply = admin.call(&["CONFIG", "SET", "io-threads", value]);
        assert_eq!(String::from_utf8_lossy(&reply), format!("{problem}{reason}\r\n"));
    }
    let get = |admin: &mut Client| admin.ok("CONFIG GET io-threads").elements()[1].string();
    assert_eq!(get(&mut admin), "2", "what is refused changes nothing");
    // All or nothing.
    assert!(admin.line("CONFIG SET io-threads 3 port nonsense").is_error());
    assert_eq!(get(&mut admin), "2");
    set(&mut admin, 3);
    assert_eq!(get(&mut admin), "3");
    admin.ok("CONFIG REWRITE");
    let text = std::fs::read_to_string(&file).expect("the file");
    assert!(text.contains("io-threads 3\n"), "{text}");
    for line in ["MULTI", "SET k 1", "CONFIG SET io-threads 1", "GET k"] {
        admin.ok(line);
    }
    let replies = admin.ok("EXEC");
    assert_eq!(replies.elements()[1].string(), "OK", "in a transaction, too");
    assert_eq!(replies.elements()[2].string(), "1");
    assert_eq!(get(&mut admin), "1");
    admin.ok("CONFIG SET io-threads 0");
    assert_eq!(get(&mut admin), "0", "as many as cores");
    assert!(server.terminate().success());
}

#[test]
fn without_the_means_for_all_threads_nothing_changes() {
    let recipe = Recipe::under_test().with("io-threads", "1").with("save", "").with("maxclients", "20");
    let server = recipe.through_shell("ulimit -n 120; exec \"$0\" \"$@\"").start();
    let mut admin = server.client();
    for _ in 0..3 {
        let error = admin.line("CONFIG SET io-threads 250").string();
        assert!(error.ends_with("'io-threads') - Unable to start the threads. Check server logs."), "{error}");
        assert_eq!(admin.ok("CONFIG GET io-threads").elements()[1].string(), "1");
        assert_eq!(field(&mut admin, "io_threads_active"), "0");
    }
    assert!(server.log().contains("Could not start a worker: "), "{}", server.log());
    // What was begun is given back, sooner or later.
    wait_until("some threads can be had", || !admin.line("CONFIG SET io-threads 4").is_error());
    let mut others: Vec<Client> = (0..8).map(|_| server.client()).collect();
    others.iter_mut().for_each(|client| assert_eq!(client.ok("PING").string(), "PONG"));
    assert!(workers(&mut admin).into_values().any(|worker| worker == 3));
}

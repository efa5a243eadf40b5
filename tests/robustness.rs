//! The server against clients that misbehave, operators in a hurry, and a disk that fails.
//!
//! Each test tells what went wrong, or could. None measures time: a read that times out shows a hang.

mod support;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::SetOnDrop;
use support::client::{Client, PATIENCE, encode};
use support::server::{Recipe, Server};

fn start() -> Server {
    Recipe::under_test().with("io-threads", "2").start()
}

/// A field of INFO.
fn info(client: &mut Client, field: &str) -> String {
    let text = client.ok("INFO everything").string();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("INFO lacks {field}")).to_owned()
}

/// Waits until a field of INFO has the wanted value.
fn wait_for(client: &mut Client, field: &str, wanted: impl Fn(&str) -> bool) -> String {
    for _ in 0..6000 {
        let value = info(client, field);
        if wanted(&value) {
            return value;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{field} stays {}", info(client, field));
}

/// The same for how many clients wait, without a pause.
fn wait_for_blocked(client: &mut Client, wanted: &str) {
    let (began, wanted) = (Instant::now(), format!("blocked_clients:{wanted}"));
    loop {
        let clients = client.ok("INFO clients").string();
        if clients.lines().any(|line| line == wanted) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not {wanted}: {clients}");
        std::thread::yield_now();
    }
}

/// Checks the replies to a pipeline that another thread sends, so that neither side can block the other.
fn pipeline(server: &Server, bytes: &[u8], replies: usize, mut check: impl FnMut(usize, Vec<u8>)) {
    let mut client = server.client();
    client.send(b"PING\r\n").expect("it is connected");
    client.receive().expect("it is served");
    let mut sender = client.second_handle();
    std::thread::scope(|scope| {
        scope.spawn(move || sender.send(bytes).expect("the server takes it"));
        for number in 0..replies {
            check(number, client.receive().expect("each command is answered"));
        }
    });
}

#[test]
fn workers_give_back_the_memory_of_a_value_that_another_thread_has_dropped() {
    let server = start();
    let mut client = server.client();
    for begin in (0..20_000).step_by(100) {
        let members: Vec<String> = (begin..begin + 100).map(|n| format!("member:{n}")).collect();
        client.ok(&format!("SADD big {}", members.join(" ")));
    }
    client.ok("UNLINK big");
    wait_for(&mut client, "lazyfreed_objects", |values| values == "1");
    assert_eq!(info(&mut client, "lazyfree_pending_objects"), "0");
    client.ok("CONFIG RESETSTAT");
    assert_eq!(info(&mut client, "lazyfreed_objects"), "0");
    (0..500).for_each(|n| drop(client.ok(&format!("SET key:{n} value"))));
    // Unknown to another server.
    client.line("CONFIG SET flush-undo-seconds 0");
    client.ok("FLUSHALL");
    wait_for(&mut client, "lazyfreed_objects", |values| values == "500");
    assert_eq!(info(&mut client, "lazyfree_pending_objects"), "0");
}

#[test]
fn a_call_with_too_few_arguments_is_counted_as_rejected() {
    let server = start();
    let mut client = server.client();
    for line in ["SET", "MULTI", "SET", "EXEC", "CLIENT SETNAME", "CONFIG NOPE"] {
        client.line(line);
    }
    let stats = client.ok("INFO commandstats").string();
    let rejected = |name: &str, count: u32| {
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:"))).unwrap_or_default();
        assert!(line.contains("calls=0,") && line.contains(&format!(",rejected_calls={count},")), "{name}: {stats}");
    };
    rejected("set", 2);
    rejected("client|setname", 1);
}

#[test]
fn replies_come_although_the_client_has_finished_sending() {
    let server = start();
    for policy in ["always", "everysec"] {
        server.client().ok(&format!("CONFIG SET appendfsync {policy}"));
        let mut client = server.client();
        let mut bytes = Vec::new();
        (0..5000).for_each(|n| bytes.extend(encode(&["INCR".to_owned(), format!("{policy}:{}", n % 3)])));
        client.send(&bytes).expect("it is connected");
        client.finish_sending();
        let replies = client.receive_until_close().expect("it closes");
        assert_eq!(replies.iter().filter(|&&byte| byte == b'\n').count(), 5000);
    }
}

/// SAVE waits for its snapshot without holding up the server. The end of the client's input used to end the wait, and
/// the reply never came. `echo SAVE | nc -N` must work as with Redis.
#[test]
fn save_is_answered_although_the_client_has_finished_sending() {
    let server = start();
    let mut client = server.client();
    client.send(b"SET k v\r\nSAVE\r\nGET k\r\n").expect("it is connected");
    client.finish_sending();
    assert_eq!(client.receive_until_close().expect("it closes"), b"+OK\r\n+OK\r\n$1\r\nv\r\n");
}

/// Commands that arrived during a wait used to be executed all at once, while no other connection was served.
#[test]
fn a_pipeline_behind_a_wait_is_executed_in_order() {
    let server = start();
    let mut bytes = encode(&["WAIT", "1", "200"]);
    (0..200_000).for_each(|_| bytes.extend(encode(&["INCR", "n"])));
    bytes.extend(encode(&["WAIT", "1", "50"]));
    bytes.extend(encode(&["GET", "n"]));
    pipeline(&server, &bytes, 200_003, |number, reply| {
        let expected = match number {
            0 | 200_001 => ":0\r\n".to_owned(),
            200_002 => "$6\r\n200000\r\n".to_owned(),
            number => format!(":{number}\r\n"),
        };
        assert_eq!(String::from_utf8_lossy(&reply), expected);
    });
}

/// While a command waited, the rest of the earlier replies, which the socket had not taken, was not sent.
#[test]
fn a_wait_does_not_hold_back_the_replies_before_it() {
    let server = start();
    let mut client = server.client();
    let value = vec![b'v'; 40 << 20];
    client.call(&[&b"SET"[..], b"big", &value]);
    client.send(b"GET big\r\nWAIT 1 0\r\n").expect("it is connected");
    let reply = client.receive().expect("the value comes, though WAIT lasts for ever");
    assert!(reply.len() > value.len() && reply.ends_with(b"vv\r\n"));
    // What is unread holds back what follows, so WAIT may begin once the value has come. It lasts, and the client can
    // leave.
    wait_for(&mut server.client(), "blocked_clients", |count| count == "1");
    drop(client);
    wait_for(&mut server.client(), "blocked_clients", |count| count == "0");
}

#[test]
fn a_client_that_waits_cannot_fill_the_memory() {
    let server = Recipe::under_test().with("client-query-buffer-limit", "1mb").start();
    let mut client = server.client();
    client.send(b"WAIT 1 0\r\n").expect("it is connected");
    let flood = vec![b'x'; 64 << 10];
    let refused = (0..1000).find_map(|_| client.send(&flood).err()).expect("the server closes at the limit");
    assert!(matches!(refused.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{refused}");
    let mut other = server.client();
    assert_eq!(info(&mut other, "client_query_buffer_limit_disconnections"), "1");
    wait_for(&mut other, "connected_clients", |count| count == "1");
}

#[test]
fn a_client_that_does_not_read_cannot_fill_the_memory() {
    let server = Recipe::under_test().with("client-output-buffer-limit", "normal 8mb 0 0").start();
    let mut client = server.client();
    client.call(&[&b"SET"[..], b"big", &vec![b'v'; 1 << 20]]);
    client.send(&b"GET big\r\n".repeat(100)).expect("it is connected");
    let mut other = server.client();
    wait_for(&mut other, "client_output_buffer_limit_disconnections", |count| count == "1");
    wait_for(&mut other, "connected_clients", |count| count == "1");
}

/// As in Redis, the first 16 KiB of the output count for no limit.
#[test]
fn short_replies_pass_whatever_the_limit() {
    let server = Recipe::under_test().with("client-output-buffer-limit", "normal 10 0 0").start();
    let mut client = server.client();
    for (bytes, passes) in [(10_000, true), (100_000, false)] {
        client.call(&[&b"SET"[..], b"k", &vec![b'v'; bytes]]);
        client.send(b"GET k\r\n").expect("it is connected");
        assert_eq!(client.receive().is_ok(), passes, "{bytes}");
    }
    assert_eq!(info(&mut server.client(), "client_output_buffer_limit_disconnections"), "1");
}

/// Arguments are counted by where they lie, too: six bytes of a request made sixteen more that nobody saw.
#[test]
fn an_unfinished_command_of_many_arguments_is_counted_and_bounded() {
    let server = Recipe::under_test().with("client-query-buffer-limit", "4mb").start();
    let (mut client, mut other) = (server.client(), server.client());
    let id = client.ok("CLIENT ID").integer();
    let arguments = b"$0\r\n\r\n".repeat(10_000);
    client.send(b"*1000000\r\n").expect("it is connected");
    let mut figure = |field: &str| -> u64 {
        let line = other.ok(&format!("CLIENT LIST ID {id}")).string();
        let value = line.split(' ').find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
        value.map_or(0, |value| value.parse().expect("a number"))
    };
    (0..5).for_each(|_| client.send(&arguments).expect("it is connected"));
    let received = 5 * arguments.len() as u64;
    // They are counted when they have been decoded, a moment after they have arrived.
    for (field, least) in [("tot-net-in", received), ("argv-mem", 50_000 * 16), ("tot-mem", received + 50_000 * 16)] {
        let began = Instant::now();
        while figure(field) < least {
            assert!(began.elapsed() < PATIENCE, "{field}: {} of {least}", figure(field));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // By their bytes alone the server would take twice as many and more. It may close before the last is sent.
    (0..25).for_each(|_| drop(client.send(&arguments)));
    wait_for(&mut other, "client_query_buffer_limit_disconnections", |count| count == "1");
}

/// Fifty million commands before AUTH, whose refusals nobody read, took 582 MB.
#[test]
fn before_authentication_a_client_costs_next_to_nothing() {
    let server = Recipe::under_test().with("requirepass", "secret").with("io-threads", "2").start();
    let mut operator = server.client();
    operator.ok("AUTH secret");
    let before: u64 = info(&mut operator, "used_memory").parse().expect("a number");
    for command in [&b"PING\r\n"[..], b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"HELLO 9\r\n", b"AUTH wrong\r\n"] {
        let mut client = server.client();
        let flood = command.repeat(10_000);
        let refused = (0..2000).find_map(|_| client.send(&flood).err()).expect("the server closes");
        assert!(matches!(refused.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{refused}");
    }
    wait_for(&mut operator, "client_output_buffer_limit_disconnections", |count| count == "4");
    // Many at once, each with much that was sent and nothing read, or with as long a command as is allowed.
    let mut crowd: Vec<_> = (0..300).map(|_| server.client()).collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        let sent = match number % 3 {
            0 => client.send(&b"PING\r\n".repeat(10_000)),
            1 => client.send(&[&b"*10\r\n$16384\r\n"[..], &[b'x'; 10_000]].concat()),
            _ => client.send(&[b'x'; 60_000]),
        };
        sent.expect("it is connected");
    }
    assert_eq!(operator.call(&["PING"]), b"+PONG\r\n");
    let peak: u64 = info(&mut operator, "used_memory_peak").parse().expect("a number");
    assert!(peak < before + (16 << 20), "{before} {peak}");
}

#[test]
fn before_authentication_who_reads_is_answered_and_long_commands_are_refused() {
    let server = Recipe::under_test().with("requirepass", "secret").start();
    let refusal = b"-NOAUTH Authentication required.\r\n";
    pipeline(&server, &b"PING\r\n".repeat(20_000), 20_000, |_, reply| assert_eq!(reply, refusal));
    let mut client = server.client();
    let pipelined = [&b"AUTH secret\r\n"[..], &b"INCR n\r\n".repeat(1000)].concat();
    client.send(&pipelined).expect("it is connected");
    assert_eq!(client.receive().expect("a reply"), b"+OK\r\n");
    for number in 1..=1000 {
        assert_eq!(client.receive().expect("a reply"), format!(":{number}\r\n").as_bytes());
    }
    for (command, text) in [
        (b"*11\r\n".to_vec(), "unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n".to_vec(), "unauthenticated bulk length"),
        (vec![b'x'; 70_000], "too big inline request"),
    ] {
        let mut client = server.client();
        client.send(&command).expect("it is connected");
        let reply = client.receive_until_close().expect("the server closes");
        assert_eq!(reply, format!("-ERR Protocol error: {text}\r\n").as_bytes());
    }
}

/// Without a limit, nothing stopped a client that kept asking: megabytes of replies for a few bytes each.
#[test]
fn much_unread_holds_back_what_is_asked_for_further() {
    const ASKED: usize = 10_000;
    let server = start();
    let mut client = server.client();
    client.call(&[&b"SET"[..], b"v", &vec![b'v'; 12_000]]);
    for _ in 0..ASKED / 100 {
        client.send(&b"INCR n\r\nGET v\r\n".repeat(100)).expect("it is connected");
    }
    let mut other = server.client();
    wait_for(&mut other, "client_recent_max_output_buffer", |bytes| bytes.parse::<u64>().unwrap() > 32 << 20);
    std::thread::sleep(Duration::from_millis(100));
    let peak: u64 = info(&mut other, "used_memory_peak").parse().expect("a number");
    assert!(peak < 80 << 20, "{peak}");
    for number in 1..=ASKED {
        assert_eq!(client.receive().expect("it is answered"), format!(":{number}\r\n").as_bytes());
        assert_eq!(client.receive().expect("it is answered").len(), 12_000 + "$12000\r\n\r\n".len());
    }
    assert_eq!(other.ok("GET n").string(), ASKED.to_string());
}

/// Commands held back when their client left were lost, although the server had received them; Redis executes them on
/// arrival. And a client that had only finished sending was dropped before it had read its replies.
#[test]
fn what_was_held_back_is_executed_though_the_client_has_finished_or_gone() {
    const ASKED: usize = 10_000;
    let server = Recipe::under_test().with("enable-debug-command", "yes").start();
    let mut other = server.client();
    other.call(&[&b"SET"[..], b"v", &vec![b'v'; 12_000]]);
    for (goes, round) in [(false, 1), (true, 2)] {
        let mut client = server.client();
        let id = client.ok("CLIENT ID").integer();
        let mut arrived = || -> usize {
            let line = other.ok(&format!("CLIENT LIST ID {id}")).string();
            line.split(' ').find_map(|word| word.strip_prefix("tot-net-in=")?.parse().ok()).expect("a number")
        };
        let (commands, before) = (b"INCR n\r\nGET v\r\n".repeat(ASKED), arrived());
        client.send(&commands).expect("it is connected");
        // Bytes still in the socket are lost when the client leaves.
        let began = Instant::now();
        while arrived() < before + commands.len() {
            assert!(began.elapsed() < PATIENCE, "{} of {} have arrived", arrived() - before, commands.len());
            std::thread::sleep(Duration::from_millis(1));
        }
        let executed: usize = other.ok("GET n").string().parse().expect("a number");
        assert!(executed < round * ASKED, "nothing is held back");
        if goes {
            drop(client);
        } else {
            client.finish_sending();
            let replies = client.receive_until_close().expect("it closes");
            assert_eq!(replies.iter().filter(|&&byte| byte == b':').count(), ASKED);
            assert_eq!(replies.iter().filter(|&&byte| byte == b'$').count(), ASKED);
        }
        wait_for(&mut other, "connected_clients", |count| count == "1");
        assert_eq!(other.ok("GET n").string(), (round * ASKED).to_string());
    }
    // And it is in the log.
    other.ok("DEBUG LOADAOF");
    assert_eq!(other.ok("GET n").string(), (2 * ASKED).to_string());
}

/// Only commands that may need memory made room, so unread replies took all memory.
#[test]
fn reads_evict_when_their_replies_have_filled_the_memory() {
    let server = Recipe::under_test().with("maxmemory", "12mb").with("maxmemory-policy", "allkeys-random").start();
    let mut client = server.client();
    for key in 0..500 {
        client.call(&[b"SET".to_vec(), format!("key:{key}").into_bytes(), vec![b'v'; 10_000]]);
    }
    let mut other = server.client();
    assert_eq!(info(&mut other, "evicted_keys"), "0");
    client.send(&b"MGET key:1 key:2 key:3 key:4 key:5\r\n".repeat(400)).expect("it is connected");
    wait_for(&mut other, "evicted_keys", |keys| keys != "0");
}

/// For a slow reader that never caught up, the server kept everything that it had sent.
#[test]
fn what_was_sent_is_given_back() {
    let server = Recipe::under_test().with("io-threads", "1").start();
    let mut client = server.client();
    client.call(&[&b"SET"[..], b"v", &vec![b'v'; 10_000]]);
    // There is always more in flight than the sockets hold, for 400 MB in total.
    let turn = b"GET v\r\n".repeat(1000);
    (0..2).for_each(|_| client.send(&turn).expect("it is connected"));
    for _ in 0..40 {
        (0..1000).for_each(|_| drop(client.receive().expect("it is answered")));
        client.send(&turn).expect("it is connected");
    }
    (0..2000).for_each(|_| drop(client.receive().expect("it is answered")));
    let peak: u64 = info(&mut server.client(), "used_memory_peak").parse().expect("a number");
    assert!(peak < 150 << 20, "{peak}");
}

/// Each read of a large value zeroed as much memory as had already arrived.
#[test]
fn a_large_value_arrives_while_others_are_served() {
    let server = Recipe::under_test().with("io-threads", "1").start();
    let value: Vec<u8> = (0..200_u32 << 20).map(|n| (n % 251) as u8).collect();
    let mut other = server.client();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut client = server.client();
            client.call(&[&b"SET"[..], b"large", &value]);
            client.call(&["GET", "large"])
        });
        while !sending.is_finished() {
            other.ok("PING");
        }
        let reply = sending.join().expect("it is answered");
        assert!(reply[12..].starts_with(&value), "the value comes back");
    });
    // The log holds it until the disk has taken it.
    wait_for(&mut other, "used_memory", |used| used.parse::<u64>().expect("a number") < 260 << 20);
}

/// Freed memory stayed resident, because something nearby always lived on and did not move.
#[test]
fn memory_that_is_free_goes_back_to_the_system() {
    const KEYS: usize = 300_000;
    const MB: u64 = 1 << 20;
    for workers in ["1", "2"] {
        let server = Recipe::under_test().with("io-threads", workers).with("appendonly", "no").start();
        let mut other = server.client();
        let resident = |client: &mut Client| -> u64 { info(client, "used_memory_rss").parse().expect("a number") };
        let falls_below = |client: &mut Client, limit: u64| {
            wait_for(client, "used_memory_rss", |rss| rss.parse::<u64>().expect("a number") < limit);
        };
        let each = |keys: &mut dyn Iterator<Item = usize>, command: &dyn Fn(usize) -> Vec<u8>| {
            let bytes: Vec<Vec<u8>> = keys.map(command).collect();
            pipeline(&server, &bytes.concat(), bytes.len(), |_, reply| assert_ne!(reply[0], b'-'));
        };
        let begin = resident(&mut other);
        each(&mut (0..KEYS), &|n| encode(&["SET", &format!("key:{n}"), &"v".repeat(n % 200)]));
        each(&mut (0..KEYS), &|n| encode(&["HSET", "hash", &format!("field:{n}"), "value"]));
        let full = resident(&mut other);
        assert!(full > begin + 50 * MB, "{full}");
        // One of ten keys is left, everywhere.
        each(&mut (0..KEYS).filter(|n| n % 10 != 0), &|n| encode(&["DEL", &format!("key:{n}")]));
        each(&mut (0..KEYS).filter(|n| n % 10 != 0), &|n| encode(&["HDEL", "hash", &format!("field:{n}")]));
        falls_below(&mut other, begin + (full - begin) / 3);
        assert_ne!(info(&mut other, "total_active_defrag_time"), "0");
        assert_eq!(other.ok("DBSIZE").integer(), KEYS as i64 / 10 + 1);
        assert_eq!(other.ok("HLEN hash").integer(), KEYS as i64 / 10);
        assert_eq!(other.ok("GET key:10").string(), "v".repeat(10));
        assert_eq!(other.ok("HGET hash field:299990").string(), "value");
        other.line("CONFIG SET flush-undo-seconds 0");
        other.ok("FLUSHALL");
        other.ok("MEMORY PURGE");
        falls_below(&mut other, begin + 12 * MB);
    }
}

/// The rest of a command is read behind its kept beginning, if that is short, in the buffer that all connections of a
/// worker share.
#[test]
fn commands_in_parts_from_many_clients_are_not_mixed_up() {
    let server = Recipe::under_test().with("io-threads", "1").start();
    let mut watcher = server.client();
    let kept = |watcher: &mut Client| -> usize {
        let clients = watcher.ok("CLIENT LIST").string();
        let sizes = clients.split_whitespace().filter_map(|word| word.strip_prefix("qbuf=")?.parse::<usize>().ok());
        sizes.sum()
    };
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    let own = kept(&mut watcher);
    for cut in [1, 30, 600, 4095, 4096, 4097, 8000] {
        let value = |number: usize, round: usize| vec![b'a' + (number + round) as u8; 9000];
        let bytes: Vec<_> = (0..3)
            .map(|number| {
                let set = |round| encode(&[&b"SET"[..], format!("key:{number}").as_bytes(), &value(number, round)]);
                [set(0), set(7)].concat()
            })
            .collect();
        let second = bytes[0].len() / 2;
        for end in [cut, second + cut] {
            let begin = if end == cut { 0 } else { cut };
            for (client, bytes) in clients.iter_mut().zip(&bytes) {
                client.send(&bytes[begin..end]).expect("it is connected");
            }
            let began = Instant::now();
            while kept(&mut watcher) != own + 3 * cut {
                assert!(began.elapsed() < PATIENCE, "{} is kept of commands cut at {cut}", kept(&mut watcher));
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for (client, bytes) in clients.iter_mut().zip(&bytes).rev() {
            client.send(&bytes[second + cut..]).expect("it is connected");
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.receive().expect("it is answered"), b"+OK\r\n");
            assert_eq!(client.receive().expect("it is answered"), b"+OK\r\n");
            let got = client.call(&["GET".to_owned(), format!("key:{number}")]);
            assert!(got.ends_with(&[&value(number, 7)[..], b"\r\n"].concat()), "cut at {cut}");
        }
    }
}

#[test]
fn a_client_that_wants_no_reply_gets_none() {
    let server = start();
    let mut client = server.client();
    // The reply of a waiting command comes late: SKIP had ended by then.
    client.send(b"CLIENT REPLY SKIP\r\nWAIT 1 10\r\nPING\r\n").expect("it is connected");
    assert_eq!(client.receive().expect("it is answered"), b"+PONG\r\n");
    client.send(b"CLIENT REPLY SKIP\r\nNOSUCH\r\nGET\r\n").expect("it is connected");
    assert!(client.receive().expect("it is answered").starts_with(b"-ERR wrong number"));
    client.send(b"CLIENT REPLY OFF\r\nNOSUCH\r\nSAVE\r\nCLIENT REPLY ON\r\n").expect("it is connected");
    assert_eq!(client.receive().expect("it is answered"), b"+OK\r\n");
    client.send(b"CLIENT REPLY OFF\r\nPING\r\n*1\r\n!\r\n").expect("it is connected");
    assert_eq!(client.receive_until_close().expect("it closes"), b"");
}

#[test]
fn a_protocol_error_follows_the_replies_before_it() {
    let server = start();
    let mut client = server.client();
    let mut bytes = b"PING\r\n".repeat(40);
    bytes.extend(b"*1\r\n$x\r\nPING\r\n");
    client.send(&bytes).expect("it is connected");
    let replies = client.receive_until_close().expect("it closes");
    let expected = [&b"+PONG\r\n".repeat(40)[..], b"-ERR Protocol error: invalid bulk length\r\n"].concat();
    assert_eq!(replies, expected);
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let server = Recipe::under_test().with("maxclients", "50").start();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..500 {
                    let mut client = server.client();
                    let bytes: &[u8] = [&b"PING\r\n"[..], b"*3\r\n$3\r\nSET", b"WAIT 1 0\r\n", b""][round % 4];
                    // Refused clients are part of it.
                    let _ = client.send(bytes);
                    if thread == 0 && round % 4 == 0 {
                        let _ = client.receive();
                    }
                }
            });
        }
    });
    let mut client = loop {
        let mut client = server.client();
        if client.try_call(&["PING"]).is_ok_and(|reply| reply == b"+PONG\r\n") {
            break client;
        }
    };
    wait_for(&mut client, "connected_clients", |count| count == "1");
    wait_for(&mut client, "blocked_clients", |count| count == "0");
}

/// A reply that waited for an fsync never came if the policy stopped asking for one.
#[test]
fn the_fsync_policy_changes_under_load() {
    let mut server = Recipe::under_test().with("io-threads", "3").with("appendfsync", "always").start();
    let stop = AtomicBool::new(false);
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let (server, stop) = (&server, &stop);
        let ends = SetOnDrop(stop);
        let writer = |name: usize| {
            let mut client = server.client();
            move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.ok(&format!("INCR n:{name}"));
                    count += 1;
                }
                count
            }
        };
        let writers: Vec<_> = (0..8).map(|name| scope.spawn(writer(name))).collect();
        let mut operator = server.client();
        for _ in 0..100 {
            for policy in ["no", "always"] {
                operator.ok(&format!("CONFIG SET appendfsync {policy}"));
            }
        }
        drop(ends);
        writers.into_iter().map(|writer| writer.join().expect("every write is answered")).collect()
    });
    server.kill();
    server.start_again();
    for (name, count) in counts.iter().enumerate() {
        assert_eq!(server.client().ok(&format!("GET n:{name}")).string(), count.to_string());
    }
}

/// A log that is switched off keeps what was acknowledged before. One that is switched on holds everything once its
/// snapshot has ended.
#[test]
fn the_log_is_switched_under_load() {
    let mut server = Recipe::under_test().with("io-threads", "2").with("save", "").start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&stop);
        for name in 0..4 {
            let (mut client, stop) = (server.client(), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.ok(&format!("INCR n:{name}"));
                }
            });
        }
        let mut operator = server.client();
        for round in 0..20 {
            operator.ok("CONFIG SET appendonly no");
            operator.ok(&format!("SET unlogged:{round} 1"));
            operator.ok("CONFIG SET appendonly yes");
            wait_for(&mut operator, "aof_rewrite_in_progress", |running| running == "0");
            assert_eq!(info(&mut operator, "aof_enabled"), "1");
        }
    });
    let mut client = server.client();
    let before: Vec<String> = (0..4).map(|name| client.ok(&format!("GET n:{name}")).string()).collect();
    server.kill();
    server.start_again();
    let mut client = server.client();
    let after: Vec<String> = (0..4).map(|name| client.ok(&format!("GET n:{name}")).string()).collect();
    assert_eq!(before, after);
    assert_eq!(client.ok("EXISTS unlogged:0 unlogged:19"), support::reply::Reply::Integer(2));
    client.ok("CONFIG SET appendonly no");
    client.ok("SET lost 1");
    server.kill();
    server.start_again();
    assert_eq!(server.client().ok("EXISTS n:0 lost"), support::reply::Reply::Integer(1));
}

/// When the log could not be written, reads lost their connections, because their replies waited for a block that
/// never came.
#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    for policy in ["always", "everysec"] {
        let recipe = Recipe::under_test().with("appendfsync", policy).with("save", "").with("rdbcompression", "no");
        let mut server = recipe.with_file_limit_kib(256).start();
        let mut reader = server.client();
        let mut writer = server.client();
        // A snapshot of this is larger than a file may be, so that the log cannot heal before all was looked at.
        writer.ok("SETRANGE large 400000 x");
        let value = "v".repeat(1000);
        let mut acknowledged = 0;
        // The write that fails is not answered. The next one is refused.
        while writer.try_call(&["SET", &format!("k:{acknowledged}"), &value]).is_ok_and(|reply| reply == b"+OK\r\n") {
            acknowledged += 1;
            assert!(acknowledged < 1000, "the limit does not work");
        }
        assert!(acknowledged > 100, "{acknowledged}");
        reader.ok("GET k:0");
        let mut writer = server.client();
        let refused = writer.line("SET more v");
        assert!(refused.string().starts_with("MISCONF Errors writing to the AOF file"), "{refused:?}");
        assert_eq!(writer.ok("GET k:1").string(), value);
        reader.ok("GET k:2");
        assert_eq!(info(&mut reader, "aof_last_write_status"), "err");
        server.kill();
        server.set_recipe(Recipe::under_test());
        server.start_again();
        let mut client = server.client();
        for number in 0..acknowledged {
            assert_eq!(client.ok(&format!("GET k:{number}")).string(), value, "{policy} k:{number}");
        }
    }
}

/// A waiting command told its client what it had taken, although the log had not taken that change: it was
/// acknowledged, and after a restart it had never happened.
#[test]
fn a_served_pop_that_the_log_did_not_take_is_not_answered() {
    for policy in ["always", "everysec"] {
        let recipe = Recipe::under_test().with("appendfsync", policy).with("save", "").with("io-threads", "2");
        let server = recipe.with_file_limit_kib(256).start();
        let (mut pusher, mut popper, mut asking) = (server.client(), server.client(), server.client());
        let value = "v".repeat(1000);
        let mut pushed = 0;
        loop {
            assert!(pushed < 1000, "the limit does not work");
            wait_for_blocked(&mut asking, "0");
            popper.send(&encode(&["BLPOP", "l", "0"])).expect("it is connected");
            wait_for_blocked(&mut asking, "1");
            let is_pushed = pusher.try_call(&["RPUSH", "l", &value]).is_ok_and(|reply| reply == b":1\r\n");
            let is_popped = popper.receive().is_ok_and(|reply| reply.starts_with(b"*2"));
            // The pop is in the block of the push, or in a later one.
            assert!(is_pushed || !is_popped, "{policy}: the pop is answered, and the push before it is not");
            if !is_popped {
                break;
            }
            pushed += 1;
        }
        assert!(pushed > 50, "{policy}: {pushed}");
        assert_eq!(info(&mut asking, "aof_last_write_status"), "err");
    }
}

/// WAITAOF looked at the last write that the connection had made itself, and took what a waiting command had done,
/// served by the write of another, for synced.
#[test]
fn waitaof_waits_for_what_a_served_command_has_done() {
    let server = Recipe::under_test().with("appendfsync", "no").with("save", "").with("io-threads", "2").start();
    let (mut writer, mut asking) = (server.client(), server.client());
    writer.ok("XGROUP CREATE stream g $ MKSTREAM");
    writer.ok("RPUSH from 1");
    for (blocking, write) in [
        ("BLPOP list 0", "RPUSH list a"),
        ("BLMOVE list to LEFT LEFT 0", "RPUSH list a"),
        ("BZPOPMIN zset 0", "ZADD zset 1 a"),
        ("BLMPOP 0 1 list LEFT", "LMOVE from list LEFT LEFT"),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS stream >", "XADD stream * f v"),
    ] {
        let mut waiting = server.client();
        // Whatever was written before it began is synced, as far as it is concerned.
        assert_eq!(waiting.ok("WAITAOF 1 0 0").elements()[0].integer(), 1);
        // The one before may still be counted.
        wait_for_blocked(&mut asking, "0");
        waiting.send(&encode(&support::words::split(blocking))).expect("it is connected");
        wait_for_blocked(&mut asking, "1");
        writer.ok(write);
        assert!(waiting.receive().expect("it is served").starts_with(b"*") || blocking.starts_with("BLMOVE"));
        let waited = waiting.ok("WAITAOF 1 0 10");
        assert_eq!(waited.elements()[0].integer(), 0, "{blocking}: nothing is ever synced");
    }
}

/// Shutdown, a snapshot and the log each waited for a lock of another, and the last snapshot missed what was written
/// while it was made.
#[test]
fn the_server_ends_under_load_whatever_it_is_doing() {
    for round in 0..8 {
        let log = if round % 2 == 0 { "yes" } else { "no" };
        let mut server =
            Recipe::under_test().with("io-threads", "2").with("appendonly", log).with("save", "3600 1").start();
        let mut filler = server.client();
        for part in 0..20 {
            let mut bytes = Vec::new();
            (0..1000).for_each(|n| bytes.extend(encode(&["SET".to_owned(), format!("k:{part}:{n}"), "v".repeat(90)])));
            filler.send(&bytes).expect("it is connected");
            (0..1000).for_each(|_| drop(filler.receive().expect("it is answered")));
        }
        let clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
        let ends = [server.client(), server.client()];
        let mut operator = server.client();
        let writing = AtomicUsize::new(0);
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let write = |(name, mut client): (usize, Client)| {
                let writing = &writing;
                move || {
                    let mut count = 0;
                    while client.try_call(&["INCR".to_owned(), format!("n:{name}")]).is_ok() {
                        count += 1;
                        if count == 1 {
                            writing.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    count
                }
            };
            let writers: Vec<_> = clients.into_iter().enumerate().map(|pair| scope.spawn(write(pair))).collect();
            let began = Instant::now();
            while writing.load(Ordering::Relaxed) < writers.len() {
                if began.elapsed() > PATIENCE {
                    // The writers go on until then.
                    server.kill();
                    panic!("not all have begun");
                }
                std::thread::yield_now();
            }
            operator.line("BGSAVE");
            operator.line("BGREWRITEAOF");
            if round % 4 < 2 {
                for mut end in ends {
                    scope.spawn(move || end.try_call(&["SHUTDOWN"]).is_err());
                }
                assert!(server.wait_for_exit().success());
            } else {
                assert!(server.terminate().success());
            }
            writers.into_iter().map(|writer| writer.join().expect("it ends")).collect()
        });
        server.start_again();
        let mut client = server.client();
        for (name, count) in counts.iter().enumerate() {
            let kept: u64 = client.ok(&format!("GET n:{name}")).string().parse().expect("a number");
            assert!(kept >= *count, "round {round}: of {count} acknowledged increments {kept} are kept");
        }
        assert_eq!(client.ok("EXISTS k:0:0 k:19:999"), support::reply::Reply::Integer(2));
    }
}

#[test]
fn save_points_and_the_growth_of_the_log_make_one_snapshot_each() {
    let server = Recipe::under_test().with("save", "1 100").with("auto-aof-rewrite-min-size", "1mb").start();
    let mut client = server.client();
    (0..99).for_each(|n| drop(client.ok(&format!("SET k:{n} v"))));
    assert_eq!(info(&mut client, "rdb_changes_since_last_save"), "99");
    client.ok("SET k:99 v");
    wait_for(&mut client, "rdb_changes_since_last_save", |changes| changes == "0");
    // It is counted when it has ended.
    wait_for(&mut client, "rdb_saves", |count| count == "1");
    client.ok("CONFIG SET save ''");
    let base: u64 = info(&mut client, "aof_base_size").parse().expect("a number");
    assert!(base > 0);
    // The same keys again and again: the log grows, the data does not.
    let value = "v".repeat(1000);
    for n in 0..1500 {
        client.ok(&format!("SET k:{} {value}", n % 100));
    }
    wait_for(&mut client, "aof_rewrites", |count| count == "1");
    wait_for(&mut client, "aof_rewrite_in_progress", |running| running == "0");
    let size: u64 = info(&mut client, "aof_current_size").parse().expect("a number");
    assert!(size < 1 << 20, "{size}");
    let files = std::fs::read_dir(server.directory()).expect("it is there");
    // One may go meanwhile.
    let bytes: u64 = files.map(|file| file.expect("readable").metadata().map_or(0, |found| found.len())).sum();
    assert!(bytes < 2 << 20, "old files are gone: {bytes}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(info(&mut client, "aof_rewrites"), "1", "once is enough");
}

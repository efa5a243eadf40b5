//! Channels among many clients on several workers: one order for all, true counts, and nobody is held up.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use support::SetOnDrop;
use support::client::{Client, encode};
use support::reply::{self, Reply};
use support::server::{Recipe, Server};

fn server(threads: usize) -> Server {
    Recipe::under_test().with("io-threads", &threads.to_string()).start()
}

/// A field of INFO.
fn info(client: &mut Client, field: &str) -> u64 {
    let text = client.ok("INFO").string();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {field}"))
}

/// Waits until this holds.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{what} did not happen");
}

fn receive(client: &mut Client) -> Vec<Reply> {
    reply::parse(&client.receive().expect("a message")).elements().to_vec()
}

/// Publishers on all workers send to a few channels, while subscribers on all workers listen.
fn one_order(threads: usize) {
    const PUBLISHERS: usize = 4;
    const SUBSCRIBERS: usize = 6;
    const CHANNELS: usize = 3;
    const MESSAGES: usize = 600;
    let server = server(threads);
    let mut subscribers: Vec<Client> = (0..SUBSCRIBERS).map(|_| server.client()).collect();
    for (at, client) in subscribers.iter_mut().enumerate() {
        if at % 2 == 0 {
            client.line("HELLO 3");
        }
        for channel in 0..CHANNELS {
            client.ok(&format!("SUBSCRIBE channel:{channel}"));
        }
        client.ok("PSUBSCRIBE chan*:1");
    }
    let copies = AtomicU64::new(0);
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (server, copies) = (&server, &copies);
            scope.spawn(move || {
                let mut client = server.client();
                for chunk in 0..MESSAGES / 20 {
                    let numbers = chunk * 20..(chunk + 1) * 20;
                    let command = |number: usize| {
                        let channel = format!("channel:{}", number % CHANNELS);
                        encode(&["PUBLISH", &channel, &format!("{publisher}:{number}")])
                    };
                    client.send(&numbers.clone().flat_map(command).collect::<Vec<u8>>()).expect("sent");
                    for _ in numbers {
                        copies.fetch_add(reply::parse(&client.receive().expect("a count")).integer() as u64, Relaxed);
                    }
                }
            });
        }
    });
    let each = PUBLISHERS * MESSAGES + PUBLISHERS * MESSAGES / CHANNELS;
    assert_eq!(copies.load(Relaxed), (SUBSCRIBERS * each) as u64);
    let mut seen: Vec<HashMap<Vec<u8>, Vec<Vec<u8>>>> = Vec::new();
    for client in &mut subscribers {
        let mut channels: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for _ in 0..each {
            let message = receive(client);
            let (kind, rest) = (message[0].string(), &message[message.len() - 2..]);
            let list = format!("{kind} {}", rest[0].string()).into_bytes();
            channels.entry(list).or_default().push(rest[1].text().to_vec());
        }
        assert_eq!(channels["pmessage channel:1".as_bytes()], channels["message channel:1".as_bytes()]);
        seen.push(channels);
    }
    assert!(seen.iter().all(|channels| *channels == seen[0]), "all see one order");
    for publisher in 0..PUBLISHERS {
        let own = |texts: &Vec<Vec<u8>>| -> Vec<usize> {
            let text = |text: &Vec<u8>| String::from_utf8_lossy(text).into_owned();
            let prefix = format!("{publisher}:");
            texts.iter().filter_map(|one| text(one).strip_prefix(&prefix)?.parse().ok()).collect()
        };
        assert!(seen[0].values().map(own).all(|numbers| numbers.is_sorted()), "each publisher's own order");
    }
}

#[test]
fn all_subscribers_see_one_order_on_one_worker() {
    one_order(1);
}

#[test]
fn all_subscribers_see_one_order_on_two_workers() {
    one_order(2);
}

#[test]
fn all_subscribers_see_one_order_on_four_workers() {
    one_order(4);
}

/// While clients subscribe and leave all the time, each copy that PUBLISH has counted arrives, and arrives between the
/// confirmations of the subscription that it is for.
fn true_counts(threads: usize) {
    const SUBSCRIBERS: usize = 4;
    const ROUNDS: usize = 150;
    // A subscriber that does not come to its turn for seconds is not closed for what it has not read.
    let recipe = Recipe::under_test().with("io-threads", &threads.to_string());
    let server = recipe.with("client-output-buffer-limit", "pubsub 0 0 0").start();
    let (counted, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let received: u64 = thread::scope(|scope| {
        // A failure must end the publishers, too.
        let _ends = SetOnDrop(&over);
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.client();
                    while !over.load(Relaxed) {
                        client.send(&encode(&["PUBLISH", "news", "text"]).repeat(5)).expect("sent");
                        for _ in 0..5 {
                            counted
                                .fetch_add(reply::parse(&client.receive().expect("a count")).integer() as u64, Relaxed);
                        }
                    }
                })
            })
            .collect();
        let subscribers: Vec<_> = (0..SUBSCRIBERS)
            .map(|at| {
                let server = &server;
                scope.spawn(move || {
                    let mut client = server.client();
                    let (join, leave, name) = match at % 2 {
                        0 => ("SUBSCRIBE", "UNSUBSCRIBE", "news"),
                        _ => ("PSUBSCRIBE", "PUNSUBSCRIBE", "n?w*"),
                    };
                    let (mut received, mut is_in) = (0, false);
                    for round in 0..ROUNDS {
                        client.send(&encode(&[join, name])).expect("sent");
                        for _ in 0..round % 7 {
                            client.send(&encode(&["PING"])).expect("sent");
                        }
                        client.send(&encode(&[leave, name])).expect("sent");
                        loop {
                            let frame = receive(&mut client);
                            match frame[0].string().to_uppercase() {
                                word if word == join => is_in = true,
                                word if word == leave => {
                                    is_in = false;
                                    break;
                                }
                                word if word == "PONG" => {}
                                _ => {
                                    assert!(is_in, "a message for who has not subscribed: {frame:?}");
                                    received += 1;
                                }
                            }
                        }
                    }
                    received
                })
            })
            .collect();
        let received = subscribers.into_iter().map(|handle| handle.join().expect("a subscriber")).sum();
        over.store(true, Relaxed);
        publishers.into_iter().for_each(|handle| handle.join().expect("a publisher"));
        received
    });
    assert_eq!(counted.load(Relaxed), received);
    let mut client = server.client();
    assert_eq!(client.ok("PUBSUB CHANNELS").elements(), []);
    assert_eq!(client.ok("PUBSUB NUMPAT").integer(), 0);
}

#[test]
fn every_counted_copy_arrives_on_two_workers() {
    true_counts(2);
}

#[test]
fn every_counted_copy_arrives_on_four_workers() {
    true_counts(4);
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_holds_up_nobody() {
    let server =
        Recipe::under_test().with("io-threads", "2").with("client-output-buffer-limit", "pubsub 4mb 0 0").start();
    let mut publisher = server.client();
    let (mut slow, mut quick) = (server.client(), server.client());
    slow.ok("SUBSCRIBE news");
    quick.ok("SUBSCRIBE news");
    let text = "x".repeat(50_000);
    let mut sent = 0;
    wait_until("the end of the slow subscriber", || {
        let copies = reply::parse(&publisher.call(&["PUBLISH", "news", &text])).integer();
        sent += 1;
        assert_eq!(receive(&mut quick)[2].text(), text.as_bytes());
        copies == 1
    });
    assert!(sent * text.len() > 4 << 20, "{sent} messages are less than the limit");
    assert_eq!(info(&mut publisher, "client_output_buffer_limit_disconnections"), 1);
    // It has left the channel, and goes from the list of clients a moment later.
    wait_until("its end", || info(&mut publisher, "pubsub_clients") == 1);
    assert_eq!(info(&mut publisher, "pubsub_channels"), 1);
    quick.ok("PING");
}

#[test]
fn a_subscriber_above_the_soft_limit_is_closed_after_its_time() {
    let server = Recipe::under_test().with("client-output-buffer-limit", "pubsub 0 100kb 1").start();
    let (mut publisher, mut slow) = (server.client(), server.client());
    slow.ok("SUBSCRIBE news");
    let text = "x".repeat(1 << 20);
    // More than the buffers of the sockets take.
    for _ in 0..16 {
        publisher.call(&["PUBLISH", "news", &text]);
    }
    wait_until("the end of the slow subscriber", || info(&mut publisher, "pubsub_clients") == 0);
    assert_eq!(info(&mut publisher, "client_output_buffer_limit_disconnections"), 1);
}

/// Also while messages are only added to what the socket does not take.
#[test]
fn what_waits_for_a_subscriber_is_shown_as_it_grows() {
    let server = Recipe::under_test().with("client-output-buffer-limit", "pubsub 0 0 0").start();
    let (mut publisher, mut slow) = (server.client(), server.client());
    slow.ok("CLIENT SETNAME slow");
    slow.ok("SUBSCRIBE news");
    // More than the sockets take. What follows is small, and only added to what waits.
    let text = "x".repeat(1 << 20);
    (0..16).for_each(|_| drop(publisher.call(&["PUBLISH", "news", &text])));
    let mut least = None;
    wait_until("half a megabyte more that waits", || {
        publisher.send(&encode(&["PUBLISH", "news", "a short message"]).repeat(500)).expect("sent");
        (0..500).for_each(|_| drop(publisher.receive().expect("a count")));
        let list = publisher.ok("CLIENT LIST").string();
        let line = list.lines().find(|line| line.contains(" name=slow ")).expect("it is connected");
        let waiting = line.split(' ').find_map(|word| word.strip_prefix("omem=")).expect("a field");
        let waiting: usize = waiting.parse().expect("a number");
        waiting > *least.get_or_insert(waiting) + 500_000
    });
}

/// Publishers that send faster than workers deliver wait for them, and lose nothing.
#[test]
fn a_flood_of_messages_arrives_whole() {
    const SUBSCRIBERS: usize = 300;
    const MESSAGES: usize = 400;
    let server = server(2);
    let mut subscribers: Vec<Client> = (0..SUBSCRIBERS).map(|_| server.client()).collect();
    for client in &mut subscribers {
        client.ok("SUBSCRIBE news");
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = server.client();
                client.send(&encode(&["PUBLISH", "news", "0123456789"]).repeat(MESSAGES)).expect("sent");
                for _ in 0..MESSAGES {
                    assert_eq!(reply::parse(&client.receive().expect("a count")).integer(), SUBSCRIBERS as i64);
                }
            });
        }
        for client in &mut subscribers {
            (0..2 * MESSAGES).for_each(|_| assert_eq!(receive(client)[2].text(), b"0123456789"));
        }
    });
}

#[test]
fn a_client_with_many_subscriptions_is_counted_and_evicted() {
    let server = Recipe::under_test().with("io-threads", "2").start();
    let (mut watcher, mut client) = (server.client(), server.client());
    let id = client.ok("CLIENT ID").integer();
    let before = info(&mut watcher, "used_memory");
    let patterns: Vec<String> = (0..20_000).map(|number| format!("user:{number}:*")).collect();
    let mut words = vec!["PSUBSCRIBE"];
    words.extend(patterns.iter().map(String::as_str));
    client.send(&encode(&words)).expect("sent");
    for number in 1..=patterns.len() {
        assert_eq!(receive(&mut client)[2].integer(), number as i64);
    }
    let taken = info(&mut watcher, "used_memory") - before;
    let line = watcher.ok(&format!("CLIENT LIST ID {id}")).string();
    assert!(line.contains(" flags=P ") && line.contains(" sub=0 psub=20000 ssub=0 "), "{line}");
    let told: u64 =
        line.split(' ').find_map(|word| word.strip_prefix("tot-mem=")).expect("a field").parse().expect("bytes");
    assert!(told > taken / 2 && told < 2 * taken, "{told} bytes are told, {taken} are taken");
    assert_eq!(watcher.ok("PUBLISH user:777:name x").integer(), 1);
    assert_eq!(receive(&mut client)[1].string(), "user:777:*");
    assert_eq!(info(&mut watcher, "pubsub_patterns"), 20_000);
    // Leaving all of them, and the end of the connection, go by steps, too.
    client.send(&encode(&["PUNSUBSCRIBE"])).expect("sent");
    for number in (0..20_000).rev() {
        assert_eq!(receive(&mut client)[2].integer(), number);
    }
    client.ok("GET k");
    client.send(&encode(&words)).expect("sent");
    client.send(&encode(&["RESET"])).expect("sent");
    (0..20_000).for_each(|_| drop(receive(&mut client)));
    assert_eq!(client.receive().expect("a reply"), b"+RESET\r\n");
    assert_eq!(info(&mut watcher, "pubsub_patterns"), 0);
    client.send(&encode(&words)).expect("sent");
    wait_until("the subscriptions", || info(&mut watcher, "pubsub_patterns") == 20_000);
    watcher.ok("CONFIG SET maxmemory-clients 3mb");
    wait_until("the eviction", || info(&mut watcher, "pubsub_patterns") == 0);
    // It is counted once it has been told to end.
    wait_until("its count", || info(&mut watcher, "evicted_clients") == 1);
}

/// Under `appendfsync always`, whoever hears of a write finds it after a crash: of a write before PUBLISH and of one in
/// the same transaction.
#[test]
fn a_message_is_as_durable_as_the_write_that_it_tells_of() {
    let mut server =
        Recipe::under_test().with("io-threads", "2").with("appendonly", "yes").with("appendfsync", "always").start();
    let (mut writer, mut listener) = (server.client(), server.client());
    listener.ok("SUBSCRIBE written");
    let mut commands = Vec::new();
    for number in 0..200 {
        let number = number.to_string();
        if number.len() % 2 == 0 {
            commands.extend(encode(&["SET", &format!("key:{number}"), "v"]));
            commands.extend(encode(&["PUBLISH", "written", &number]));
        } else {
            commands.extend(encode(&["MULTI"]));
            commands.extend(encode(&["PUBLISH", "written", &number]));
            commands.extend(encode(&["SET", &format!("key:{number}"), "v"]));
            commands.extend(encode(&["EXEC"]));
        }
    }
    writer.send(&commands).expect("sent");
    let mut last = 0;
    for number in 0..150 {
        last = receive(&mut listener)[2].string().parse().expect("a number");
        assert_eq!(last, number);
    }
    server.kill();
    server.start_again();
    let mut client = server.client();
    for number in 0..=last {
        assert_eq!(client.ok(&format!("EXISTS key:{number}")).integer(), 1, "key:{number}");
    }
}

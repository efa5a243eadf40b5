//! The crate `redis` where more than one connection matters: messages, WATCH among threads, one connection that many
//! tasks share, caching in the client, and a connection that comes back after `kill -9`.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncCommands, AsyncConnectionConfig, Commands, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::server::Server;
use crate::{start, start_with};

/// A bound for what should take moments; nothing depends on how long it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn client(server: &Server, protocol: &str) -> redis::Client {
    redis::Client::open(format!("redis://127.0.0.1:{}/{protocol}", server.port())).expect("a valid address")
}

/// Runs tasks on this thread.
fn tasks<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("in time") })
}

async fn multiplexed(client: &redis::Client, config: AsyncConnectionConfig) -> MultiplexedConnection {
    let config = config.set_response_timeout(Some(PATIENCE)).set_connection_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&config).await.expect("the server listens")
}

#[test]
fn messages() {
    for protocol in ["", "?protocol=resp3"] {
        let server = start();
        let client = client(&server, protocol);
        let (ready, subscribed) = std::sync::mpsc::channel();
        let listening = std::thread::spawn({
            let client = client.clone();
            move || {
                let mut connection = client.get_connection().expect("the server listens");
                let mut subscriber = connection.as_pubsub();
                // One by one: this client awaits one confirmation a call.
                subscriber.subscribe("news").expect("SUBSCRIBE");
                subscriber.subscribe("sport").expect("SUBSCRIBE");
                subscriber.psubscribe("n*").expect("PSUBSCRIBE");
                ready.send(()).expect("somebody waits");
                let mut heard = Vec::new();
                while heard.len() < 1001 {
                    let message = subscriber.get_message().expect("a message");
                    let pattern: Option<String> = message.get_pattern().expect("a text");
                    heard.push((
                        message.get_channel_name().to_owned(),
                        pattern,
                        message.get_payload::<i32>().expect("a number"),
                    ));
                }
                subscriber.unsubscribe("news").expect("UNSUBSCRIBE");
                subscriber.unsubscribe("sport").expect("UNSUBSCRIBE");
                subscriber.punsubscribe("n*").expect("PUNSUBSCRIBE");
                drop(subscriber);
                let pong: String = redis::cmd("PING").query(&mut connection).expect("an ordinary connection again");
                assert_eq!(pong, "PONG");
                heard
            }
        });
        subscribed.recv().expect("it subscribes");
        let mut connection = client.get_connection().expect("the server listens");
        let mut pipe = redis::pipe();
        for at in 0..500 {
            pipe.publish("news", at);
        }
        assert_eq!(pipe.query(&mut connection), Ok(vec![2; 500]), "by its channel and by its pattern");
        assert_eq!(connection.publish("sport", 7), Ok(1));
        let heard = listening.join().expect("it does not panic");
        let of = |pattern: Option<&str>| -> Vec<i32> {
            let from = heard.iter().filter(|(channel, by, _)| channel == "news" && by.as_deref() == pattern);
            from.map(|(_, _, number)| *number).collect()
        };
        assert_eq!((of(None), of(Some("n*"))), ((0..500).collect(), (0..500).collect()));
        assert_eq!(heard.last(), Some(&("sport".to_owned(), None, 7)));
    }
}

/// Four threads add by WATCH: no turn is lost.
#[test]
fn transactions_with_watch() {
    for workers in ["2", "4"] {
        let server = start_with(workers);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut own = client(&server, "").get_connection().expect("the server listens");
                    for _ in 0..100 {
                        let added: (i64,) = redis::transaction(&mut own, &["sum"], |own, pipe| {
                            let sum: i64 = own.get::<_, Option<i64>>("sum")?.unwrap_or(0);
                            pipe.set("sum", sum + 1).ignore().get("sum").query(own)
                        })
                        .expect("a transaction");
                        assert!(added.0 > 0);
                    }
                });
            }
        });
        let mut connection = client(&server, "").get_connection().expect("the server listens");
        assert_eq!(connection.get("sum"), Ok(400));
    }
}

#[test]
fn many_tasks_share_a_connection() {
    for protocol in ["", "?protocol=resp3"] {
        let server = start_with("4");
        tasks(async {
            let shared = multiplexed(&client(&server, protocol), AsyncConnectionConfig::new()).await;
            let work = (0..8).map(|task| {
                let mut own = shared.clone();
                tokio::spawn(async move {
                    for turn in 0..100 {
                        let key = format!("{task}:{turn}");
                        own.set::<_, _, ()>(&key, turn).await.expect("SET");
                        assert_eq!(own.get::<_, i32>(&key).await.expect("GET"), turn, "its own reply");
                        let mut pipe = redis::pipe();
                        pipe.atomic().incr("count", 1).ignore().del(&key);
                        let removed: (i32,) = pipe.query_async(&mut own).await.expect("a transaction");
                        assert_eq!(removed, (1,));
                    }
                })
            });
            for task in work.collect::<Vec<_>>() {
                task.await.expect("it does not panic");
            }
            let mut own = shared.clone();
            assert_eq!(own.get::<_, i32>("count").await.expect("GET"), 800);
            let error = own.lpush::<_, _, i32>("count", "x").await.expect_err("a number is no list");
            assert!(error.to_string().contains("WRONGTYPE"), "{error}");
        });
    }
}

/// The next message of a channel; what else is pushed is passed over.
async fn message(pushes: &mut UnboundedReceiver<PushInfo>) -> Vec<Value> {
    loop {
        let push = pushes.recv().await.expect("the connection stays");
        if push.kind == PushKind::Message || push.kind == PushKind::PMessage {
            return push.data;
        }
    }
}

fn bytes(words: &[&str]) -> Vec<Value> {
    words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect()
}

/// With RESP3, one connection subscribes and goes on with commands.
#[test]
fn messages_among_replies() {
    let server = start();
    tasks(async {
        let client = client(&server, "?protocol=resp3");
        let (sender, mut pushes) = unbounded_channel();
        let mut own = multiplexed(&client, AsyncConnectionConfig::new().set_push_sender(sender)).await;
        own.subscribe("news").await.expect("SUBSCRIBE");
        own.psubscribe("w*").await.expect("PSUBSCRIBE");
        let mut other = multiplexed(&client, AsyncConnectionConfig::new()).await;
        for turn in 0..200 {
            assert_eq!(other.publish("news", turn).await, Ok(1));
            assert_eq!(own.incr("turns", 1).await, Ok(turn + 1));
        }
        for turn in 0..200 {
            assert_eq!(message(&mut pushes).await, bytes(&["news", &turn.to_string()]));
        }
        // A message to itself.
        assert_eq!(own.publish("weather", "rain").await, Ok(1));
        assert_eq!(message(&mut pushes).await, bytes(&["w*", "weather", "rain"]));
        own.unsubscribe("news").await.expect("UNSUBSCRIBE");
        assert_eq!(other.publish("news", "unheard").await, Ok(0));
    });
}

/// A manager connects again and subscribes again; meanwhile its commands fail, and none hangs.
#[test]
fn a_connection_comes_back_after_a_crash() {
    let mut server = start();
    let client = client(&server, "3?protocol=resp3");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (sender, mut pushes) = unbounded_channel();
    let config = ConnectionManagerConfig::new()
        .set_push_sender(sender)
        .set_automatic_resubscription()
        .set_number_of_retries(1000)
        .set_min_delay(Duration::from_millis(5))
        .set_max_delay(Duration::from_millis(50))
        .set_response_timeout(Some(PATIENCE))
        .set_connection_timeout(Some(PATIENCE));
    let mut managed: ConnectionManager = runtime.block_on(async {
        let mut managed = ConnectionManager::new_with_config(client.clone(), config).await.expect("the server listens");
        managed.subscribe("news").await.expect("SUBSCRIBE");
        managed.set::<_, _, ()>("kept", "before").await.expect("SET");
        managed
    });
    server.kill();
    runtime.block_on(async { managed.get::<_, String>("kept").await.expect_err("nobody is there") });
    server.start_again_on_its_port();
    runtime.block_on(async {
        let again = async {
            loop {
                if let Ok(kept) = managed.get::<_, String>("kept").await {
                    return kept;
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, again).await.expect("in time"), "before", "in its database");
        let mut other = multiplexed(&client, AsyncConnectionConfig::new()).await;
        while other.publish::<_, _, i32>("news", "after").await.expect("PUBLISH") == 0 {
            tokio::task::yield_now().await;
        }
        let heard = tokio::time::timeout(PATIENCE, message(&mut pushes)).await.expect("in time");
        assert_eq!(heard, bytes(&["news", "after"]));
    });
}

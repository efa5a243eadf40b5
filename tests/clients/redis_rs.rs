//! The crate `redis`, end to end.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Commands, Connection};

use crate::start;
use crate::support::server::Server;

fn connect(server: &Server, protocol: &str) -> Connection {
    let url = format!("redis://127.0.0.1:{}/6{protocol}", server.port());
    redis::Client::open(url).expect("a valid address").get_connection().expect("the server listens")
}

#[test]
fn strings_and_counters() {
    for protocol in ["", "?protocol=resp3"] {
        let mut server = start();
        let mut connection = connect(&server, protocol);
        connection.set_ex::<_, _, ()>("session", "data", 600).expect("SETEX");
        connection.mset::<_, _, ()>(&[("a", "1"), ("b", "2")]).expect("MSET");
        let mut pipe = redis::pipe();
        for number in 0..500 {
            pipe.set(format!("many:{number}"), number).ignore().incr("counter", 2);
        }
        let counts: Vec<i64> = pipe.query(&mut connection).expect("a pipeline");
        assert_eq!(counts, (1..=500).map(|count| count * 2).collect::<Vec<_>>());
        let error = connection.incr::<_, _, i64>("session", 1).expect_err("INCR of a text");
        assert!(error.to_string().contains("not an integer"), "{error}");

        server.kill();
        server.start_again();
        let mut connection = connect(&server, protocol);
        assert_eq!(connection.get::<_, i64>("counter").expect("GET"), 1000);
        let both: Vec<Option<String>> = connection.mget(&["a", "b", "none"]).expect("MGET");
        assert_eq!(both, [Some("1".to_owned()), Some("2".to_owned()), None]);
        assert!((1..=600).contains(&connection.ttl::<_, i64>("session").expect("TTL")));
        let found: BTreeSet<String> = connection
            .scan_match::<_, String>("many:*")
            .expect("SCAN")
            .collect::<Result<_, _>>()
            .expect("every page of SCAN");
        assert_eq!(found.len(), 500);
    }
}

type Entries = Vec<(String, Vec<String>)>;

/// A profile, a queue with a worker that waits, tags, a leaderboard and a stream with a group.
#[test]
fn collections() {
    for protocol in ["", "?protocol=resp3"] {
        let mut server = start();
        let mut connection = connect(&server, protocol);
        connection.hset_multiple::<_, _, _, ()>("user:1", &[("name", "Ada"), ("visits", "1")]).expect("HSET");
        assert_eq!(connection.hincr::<_, _, _, i64>("user:1", "visits", 2).expect("HINCRBY"), 3);
        queue(&server, &mut connection, protocol);
        connection.sadd::<_, _, ()>("tag:red", &["a", "b", "c"]).expect("SADD");
        connection.sadd::<_, _, ()>("tag:round", &["b", "c", "d"]).expect("SADD");
        let players: Vec<(f64, String)> = (0..1000).map(|at| (f64::from(at * 7 % 1000), format!("p{at}"))).collect();
        connection.zadd_multiple::<_, _, _, ()>("board", &players).expect("ZADD");
        let mut pipe = redis::pipe();
        pipe.cmd("XGROUP").arg("CREATE").arg("events").arg("readers").arg("0").arg("MKSTREAM").ignore();
        for number in 1..=20 {
            pipe.cmd("XADD").arg("events").arg(format!("{number}-0")).arg("number").arg(number).ignore();
        }
        pipe.exec(&mut connection).expect("a pipeline");
        let read = ["XREADGROUP", "GROUP", "readers", "alice", "COUNT", "5", "STREAMS", "events", ">"];
        redis::cmd(read[0]).arg(&read[1..]).exec(&mut connection).expect("XREADGROUP");
        let acknowledged = redis::cmd("XACK").arg("events").arg("readers").arg(&["1-0", "2-0"]).query(&mut connection);
        assert_eq!(acknowledged, Ok(2));

        server.kill();
        server.start_again();
        let mut connection = connect(&server, protocol);
        let profile: BTreeMap<String, String> = connection.hgetall("user:1").expect("HGETALL");
        assert_eq!(profile, [("name", "Ada"), ("visits", "3")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        assert_eq!(connection.lrange::<_, Vec<i32>>("jobs", 0, -1).expect("LRANGE"), (1..100).collect::<Vec<_>>());
        let both: BTreeSet<String> = connection.sinter(&["tag:red", "tag:round"]).expect("SINTER");
        assert_eq!(both, ["b", "c"].map(str::to_owned).into());
        let top: Vec<(String, f64)> = connection.zrevrange_withscores("board", 0, 1).expect("ZREVRANGE");
        assert_eq!(top, [("p857".to_owned(), 999.0), ("p714".to_owned(), 998.0)]);
        assert_eq!(connection.zrank::<_, _, Option<i64>>("board", "p857").expect("ZRANK"), Some(999));
        let entries: Entries =
            redis::cmd("XRANGE").arg("events").arg("-").arg("+").query(&mut connection).expect("XRANGE");
        assert!(entries.iter().map(|(id, _)| id.clone()).eq((1..=20).map(|number| format!("{number}-0"))));
        let claim = ["XCLAIM", "events", "readers", "bob", "0", "1-0", "3-0", "4-0", "5-0"];
        let claimed: Entries = redis::cmd(claim[0]).arg(&claim[1..]).query(&mut connection).expect("XCLAIM");
        assert_eq!(claimed.len(), 3, "what was acknowledged is not pending");
    }
}

/// One worker waits for the first of a hundred jobs.
fn queue(server: &Server, connection: &mut Connection, protocol: &str) {
    let mut worker = connect(server, protocol);
    let waiting = std::thread::spawn(move || worker.blpop::<_, Option<(String, i32)>>("jobs", 30.0).expect("BLPOP"));
    while !redis::cmd("INFO").arg("clients").query::<String>(connection).expect("INFO").contains("blocked_clients:1") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let jobs: Vec<i32> = (0..100).collect();
    assert_eq!(connection.rpush("jobs", jobs), Ok(100));
    assert_eq!(waiting.join().expect("a worker that does not panic"), Some(("jobs".to_owned(), 0)));
}

//! Keys in the browser: what is shown of them, to whom, and that looking at them costs and changes nothing.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::client::PATIENCE;
use super::support::http::read;
use super::support::server::{Recipe, free_port};
use super::{HERE, TOKEN, Watched, start};

/// The JSON of `/data/…`, with these headers, and its status.
fn data(watched: &Watched, path: &str, headers: &str) -> (u16, serde_json::Value) {
    let reply = watched.get(&format!("/data/{path}"), &format!("{HERE}{headers}"));
    let json = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{path}: {} {}", reply.head, reply.body));
    (reply.status, json)
}

/// The same, of a request that is answered.
fn shown(watched: &Watched, path: &str) -> serde_json::Value {
    let (status, json) = data(watched, path, "");
    assert_eq!(status, 200, "{path}: {json}");
    json
}

/// The names on a page of keys.
fn names(json: &serde_json::Value) -> Vec<String> {
    let keys = json["keys"].as_array().expect("keys").iter();
    let mut names: Vec<_> = keys.map(|key| key["key"]["text"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

fn texts(rows: &serde_json::Value, column: usize) -> Vec<String> {
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| row[column]["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn keys_and_values_of_every_type_are_shown_in_pages() {
    let watched = start(&[("http-browse", "read"), ("hash-max-listpack-entries", "64")]);
    let mut client = watched.server.client();
    let numbers: Vec<String> = (0..250).map(|number| format!("{number:03}")).collect();
    for number in &numbers {
        client.call(&["RPUSH", "list", number]);
        client.call(&["SADD", "set", number]);
        client.call(&["ZADD", "zset", number, number]);
        client.call(&["HSET", "hash", number, number]);
        client.call(&["XADD", "stream", &format!("1-{}", number.parse::<u32>().expect("one") + 1), "f", number]);
    }
    client.call(&["SET", "string", &"0123456789abcdef".repeat(2000), "PX", "99999999"]);
    client.call(&["SET", "other", "1"]);
    assert_eq!(names(&shown(&watched, "keys")), ["hash", "list", "other", "set", "stream", "string", "zset"]);
    assert_eq!(names(&shown(&watched, "keys?match=*s*t*&type=hash")), Vec::<String>::new());
    assert_eq!(names(&shown(&watched, "keys?match=*set&type=zset")), ["zset"]);
    assert_eq!(names(&shown(&watched, "keys?db=3")), Vec::<String>::new());
    for (key, column) in [("list", 1), ("set", 0), ("zset", 1), ("hash", 1), ("stream", 1)] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let json = shown(&watched, &format!("key?key={key}&cursor={cursor}"));
            assert_eq!((&json["type"], &json["length"], &json["ttl_ms"]), (&key.into(), &250.into(), &(-1).into()));
            match key {
                "stream" => {
                    let rows = json["rows"].as_array().expect("rows").iter();
                    seen.extend(rows.map(|row| row[1][0][1]["text"].as_str().expect("a value").to_owned()));
                }
                _ => seen.extend(texts(&json["rows"], column)),
            }
            pages += 1;
            match json["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert!(pages > 1, "{key} fits on one page");
        if key == "set" || key == "hash" {
            seen.sort();
            seen.dedup();
        }
        assert_eq!(seen, numbers, "{key}");
    }
    let first = shown(&watched, "key?key=string");
    assert_eq!((&first["length"], &first["encoding"], &first["next"]), (&32000.into(), &"raw".into(), &"16384".into()));
    assert!(first["ttl_ms"].as_i64() > Some(1) && first["bytes"].as_u64() > Some(32000), "{first}");
    let second = shown(&watched, "key?key=string&cursor=16384");
    assert_eq!((&second["rows"][0][1]["bytes"], &second["next"]), (&15616.into(), &serde_json::Value::Null));
    assert_eq!(data(&watched, "key?key=none", "").0, 404);
}

#[test]
fn what_clients_have_written_stays_text() {
    let watched = start(&[("http-browse", "read"), ("slowlog-log-slower-than", "0")]);
    let mut client = watched.server.client();
    let hostile: [&[u8]; 4] = [
        b"<script>alert(1)</script>",
        b"\"'><img src=x onerror=alert(1)>\r\n\r\n",
        b"\xff\xfe\x00%2F",
        b"a&b=c#d+e f?",
    ];
    for name in hostile {
        client.call(&[&b"HSET"[..], name, name, name]);
    }
    let json = shown(&watched, "keys");
    let keys = json["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 4);
    for key in keys {
        let code = key["key"]["code"].as_str().expect("a code");
        assert!(code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte)), "{code}");
        let found = shown(&watched, &format!("key?key={code}"));
        assert_eq!((&found["type"], &found["key"]["text"]), (&"hash".into(), &key["key"]["text"]));
        assert_eq!(texts(&found["rows"], 1), [key["key"]["text"].as_str().expect("a text")]);
    }
    for path in ["keys", "slow", "clients", "top?by=bytes", "me"] {
        let reply = watched.get(&format!("/data/{path}"), HERE);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        assert!(reply.head.contains("content-type: application/json"), "{}", reply.head);
        assert!(reply.head.contains("x-content-type-options: nosniff"), "{}", reply.head);
    }
    let slow = shown(&watched, "slow");
    assert!(slow["commands"][0]["words"].as_array().is_some_and(|words| !words.is_empty()), "{slow}");
    assert!(
        slow["commands"].as_array().is_some_and(|all| all.iter().any(|of| of["parts_us"]["wait"].is_u64())),
        "{slow}"
    );
    let name = "n".repeat(5000);
    client.call(&["SET", &name, "v"]);
    let long = shown(&watched, "keys?match=nnn*");
    assert_eq!((&long["keys"][0]["key"]["code"], &long["keys"][0]["key"]["is_cut"]), (&().into(), &true.into()));
}

#[test]
fn rules_of_users_hold_for_the_browser_too() {
    let watched = start(&[("http-browse", "read"), ("http-token", TOKEN)]);
    let mut client = watched.server.client();
    client.call(&["SET", "public:1", "seen"]);
    client.call(&["SET", "secret:1", "hidden"]);
    client.call(&["ACL", "SETUSER", "guest", "on", ">pass", "~public:*", "+@read", "+select"]);
    client.call(&["ACL", "SETUSER", "lister", "on", ">pass", "~public:*", "+scan"]);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    // "guest:pass", "lister:pass", "guest:wrong", "nobody:pass"
    let user = |pair: &str| format!("{token}X-Ironkeep-User: {pair}\r\n");
    let (guest, lister) = (user("Z3Vlc3Q6cGFzcw=="), user("bGlzdGVyOnBhc3M="));
    let ask = |path: &str, headers: &str| data(&watched, path, headers);
    assert_eq!(names(&ask("keys", &guest).1), ["public:1"], "a name that may not be read is not told");
    assert_eq!(texts(&ask("key?key=public:1", &guest).1["rows"], 1), ["seen"]);
    let (status, refused) = ask("key?key=secret:1", &guest);
    assert_eq!((status, refused["error"].as_str().expect("an error").starts_with("NOPERM")), (403, true), "{refused}");
    for path in ["slow", "clients", "top"] {
        assert_eq!(ask(path, &guest).0, 403, "{path}");
    }
    assert_eq!(ask("me", &guest).1["user"]["text"], "guest");
    let (status, listed) = ask("keys", &lister);
    assert_eq!((status, names(&listed), &listed["keys"][0]["bytes"]), (200, vec!["public:1".to_owned()], &().into()));
    for wrong in ["Z3Vlc3Q6d3Jvbmc=", "bm9ib2R5OnBhc3M="] {
        let (status, refused) = ask("keys", &user(wrong));
        assert_eq!((status, refused["error"].as_str().expect("an error").starts_with("WRONGPASS")), (403, true));
    }
    assert_eq!(ask("keys", &user("!!")).0, 400);
    // Without a user, it acts as a new connection does.
    assert_eq!(names(&ask("keys", &token).1).len(), 2);
    client.call(&["CONFIG", "SET", "requirepass", "pw"]);
    assert_eq!(ask("me", &token).1["user"], serde_json::Value::Null);
    let (status, refused) = ask("keys", &token);
    assert_eq!((status, refused["error"].as_str().expect("an error").starts_with("NOAUTH")), (403, true));
    // The token comes first, and no user replaces it.
    let bare = watched.get("/data/keys", &format!("{HERE}X-Ironkeep-User: Z3Vlc3Q6cGFzcw==\r\n"));
    assert_eq!(bare.status, 401);
    client.call(&["CONFIG", "SET", "http-browse", "no"]);
    for path in ["me", "keys", "key?key=public:1", "slow", "clients", "top", "none"] {
        let (status, refused) = ask(path, &guest);
        assert_eq!((status, refused.to_string().contains("http-browse")), (403, true), "{path}: {refused}");
    }
}

#[test]
fn basic_names_the_user_where_there_is_no_token() {
    let watched = start(&[("http-browse", "read")]);
    let mut client = watched.server.client();
    client.call(&["ACL", "SETUSER", "guest", "on", ">pass", "~public:*", "+@read"]);
    client.call(&["SET", "secret", "1"]);
    let guest = "Authorization: Basic Z3Vlc3Q6cGFzcw==\r\n";
    assert_eq!(data(&watched, "me", guest).1["user"]["text"], "guest");
    assert_eq!(names(&data(&watched, "keys", guest).1), Vec::<String>::new());
    assert_eq!(data(&watched, "me", "Authorization: Basic Z3Vlc3Q6d3Jvbmc=\r\n").0, 403);
    // A site that lets its own name point here could read along with its visitor.
    for host in ["evil.example", "evil.example:80", "localhost.evil.example"] {
        let request = format!("GET /data/keys HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let reply = watched.send(request.as_bytes());
        assert_eq!((reply.status, reply.body.contains("secret")), (403, false), "{host}");
    }
}

#[test]
fn protected_mode_holds_for_the_browser_too() {
    let Some(own) = own_address() else {
        println!("not checked: this machine has only a loopback address");
        return;
    };
    let watched = start(&[("http-browse", "read"), ("http-bind", "0.0.0.0"), ("http-token", TOKEN)]);
    let mut client = watched.server.client();
    client.call(&["SET", "k", "v"]);
    let ask = |host: std::net::IpAddr, user: &str| {
        let mut stream = TcpStream::connect((host, watched.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = format!("Host: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n{user}");
        write!(stream, "GET /data/keys HTTP/1.1\r\n{head}\r\n").expect("it is open");
        read(stream)
    };
    let refused = ask(own, "");
    assert_eq!((refused.status, refused.body.contains("DENIED")), (403, true), "{}", refused.body);
    assert_eq!(ask(std::net::Ipv4Addr::LOCALHOST.into(), "").status, 200);
    client.call(&["CONFIG", "SET", "requirepass", "pw"]);
    assert_eq!(ask(own, "").status, 403);
    // "default:pw"
    let reply = ask(own, "X-Ironkeep-User: ZGVmYXVsdDpwdw==\r\n");
    assert_eq!((reply.status, reply.body.contains("\"k\"")), (200, true), "{}", reply.body);
}

/// An address of this machine that is no loopback address. Nothing is sent to find it.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("10.255.255.255:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn who_looks_needs_a_place_among_the_clients() {
    let watched = start(&[("http-browse", "read")]);
    let mut client = watched.server.client();
    client.call(&["CONFIG", "SET", "maxclients", "1"]);
    let (status, refused) = data(&watched, "keys", "");
    assert_eq!((status, &refused["error"]), (503, &"ERR max number of clients reached".into()));
    client.call(&["CONFIG", "SET", "maxclients", "100"]);
    assert_eq!(data(&watched, "keys", "").0, 200);
}

#[test]
fn who_looks_leaves_no_trace() {
    // Nor does the minute that may end meanwhile.
    let lfu = [("maxmemory-policy", "allkeys-lfu"), ("lfu-decay-time", "0"), ("maxmemory", "1gb")];
    let watched = start(&[&[("http-browse", "read")][..], &lfu].concat());
    let mut client = watched.server.client();
    client.call(&["HSET", "h", "f", "v"]);
    client.call(&["SET", "k", "v"]);
    let frequency = client.call(&["OBJECT", "FREQ", "k"]);
    for _ in 0..200 {
        shown(&watched, "key?key=k");
        shown(&watched, "key?key=h");
        assert_eq!(data(&watched, "key?key=none", "").0, 404);
    }
    shown(&watched, "keys");
    assert_eq!(client.call(&["OBJECT", "FREQ", "k"]), frequency);
    let info = String::from_utf8(client.call(&["INFO", "stats"])).expect("a text");
    // OBJECT has looked twice.
    assert!(info.contains("keyspace_hits:2\r\nkeyspace_misses:0\r\n"), "{info}");
    // The client of a request is gone with it.
    watched.wait_for_clients(1.0);
}

#[test]
fn broken_requests_for_keys_are_refused() {
    let watched = start(&[("http-browse", "read")]);
    watched.server.client().call(&["RPUSH", "l", "v"]);
    for (path, wanted) in [
        ("", 404),
        ("../status", 404),
        ("keys?db=99", 400),
        ("keys?db=x", 400),
        ("keys?db=-1", 400),
        ("keys?cursor=x", 400),
        ("keys?cursor=99999999999999999999999", 400),
        ("keys?match=%zz", 400),
        ("keys?type=nonsense", 200),
        ("keys?match=%5B%5B%5B%2A%2A%2A%2A", 200),
        ("key", 404),
        ("key?key=%", 400),
        ("key?key=l&cursor=x", 200),
        ("key?key=l&cursor=99", 200),
        ("key?key=l&cursor=18446744073709551615", 200),
        ("top?by=x", 400),
    ] {
        let (status, json) = data(&watched, path, "");
        assert_eq!(status, wanted, "{path}: {json}");
        assert!(status != 200 || json["rows"].as_array().is_none_or(Vec::is_empty), "{path}: {json}");
    }
    // What does not fit into the head of a request is refused before it is looked at.
    let long = "x".repeat(20_000);
    for path in [format!("/data/key?key={long}"), format!("/data/keys?{}", "a=b&".repeat(10_000))] {
        let status = watched.get(&path, HERE).status;
        assert!([0, 400, 414, 431].contains(&status), "{status}");
    }
    let user = watched.get("/data/me", &format!("{HERE}X-Ironkeep-User: {long}\r\n")).status;
    assert!([0, 400, 431].contains(&user), "{user}");
    assert_eq!(data(&watched, "key?key=l&key=none&key", "").0, 200, "the first of a name counts");
    watched.is_alive();
}

#[test]
fn a_busy_server_keeps_the_browser_waiting_and_nobody_else() {
    // Nobody is told that it is busy, however slow the machine is: who is told leaves room for the next.
    let watched = start(&[("http-browse", "read"), ("io-threads", "1"), ("busy-reply-threshold", "86400000")]);
    watched.server.client().call(&["SET", "k", "v"]);
    let mut busy = watched.begin_endless_function(&["k"]);
    // That one itself.
    watched.wait_for_clients(1.0);
    let request = format!("GET /data/key?key=k HTTP/1.1\r\n{HERE}Connection: close\r\n\r\n");
    let ask = |_| {
        let mut stream = watched.connect();
        stream.write_all(request.as_bytes()).expect("it is open");
        stream
    };
    let asked = Instant::now();
    let waiting: Vec<TcpStream> = (0..40).map(ask).collect();
    // The rest of HTTP goes on, and the clients of those who wait are few.
    for _ in 0..20 {
        let status = watched.get("/status", "");
        assert_eq!(status.status, 200);
        let json: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
        let clients = json["sections"]["clients"]["connected_clients"].as_u64().expect("a number");
        assert!(clients < 12, "{clients}");
    }
    assert_eq!(watched.server.client().call(&["FUNCTION", "KILL"]), b"+OK\r\n");
    assert!(busy.receive().expect("an error").starts_with(b"-ERR Script killed"));
    for stream in waiting {
        let reply = read(stream);
        // Nobody waits for longer than that.
        let is_late = asked.elapsed() >= Duration::from_secs(20);
        assert!(reply.status == 200 || is_late && reply.status == 504, "{} {}", reply.status, reply.body);
    }
}

#[test]
fn who_needs_what_a_function_holds_for_long_is_told_that_it_is_busy() {
    let watched = start(&[("http-browse", "read"), ("busy-reply-threshold", "1")]);
    let _busy = watched.begin_endless_function(&["k"]);
    let (status, refused) = data(&watched, "key?key=k", "");
    assert_eq!((status, refused["error"].as_str().expect("an error").starts_with("BUSY")), (503, true), "{refused}");
    watched.is_alive();
}

#[test]
fn a_server_that_serves_while_it_loads_is_ready_and_shows_keys() {
    let http = free_port();
    let recipe = || {
        let recipe = Recipe::under_test().with("save", "").with("enable-debug-command", "yes");
        let recipe = recipe.with("http-port", &http.to_string()).with("http-bind", "127.0.0.1");
        recipe.with("http-browse", "read").with("serve-while-loading-min-size", "0").with("io-threads", "2")
    };
    let mut server = recipe().start();
    let mut client = server.client();
    for number in 0..2000 {
        client.call(&["SET", &format!("k:{number}"), &format!("v:{number}")]);
    }
    server.kill();
    // Longer than this test, if all were waited for.
    server.set_recipe(recipe().with("key-load-delay", "100000"));
    server.start_again();
    let watched = Watched { server, port: http };
    assert_eq!(watched.get("/readyz", "").status, 200);
    for number in [7, 1234, 1999] {
        let key = shown(&watched, &format!("key?key=k:{number}"));
        assert_eq!(texts(&key["rows"], 1), [format!("v:{number}")]);
    }
    let status: serde_json::Value = serde_json::from_str(&watched.get("/status", "").body).expect("JSON");
    assert_eq!(status["sections"]["persistence"]["async_loading"], 1, "all of that while the rest is loaded");
    assert!(status["sections"]["persistence"]["loading_total_bytes"].is_number(), "{status}");
}

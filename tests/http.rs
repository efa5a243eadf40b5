//! HTTP: metrics, health and state, who may see them, and what clients that mean harm cost.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use support::certificates::Certificates;
use support::client::PATIENCE;
use support::http::{Reply, read};
use support::server::{Recipe, Server, free_port};

const TOKEN: &str = "a-token-of-this-test";
/// How the browser of somebody at this machine names it.
const HERE: &str = "Host: localhost\r\n";

/// A server with HTTP, and its port.
struct Watched {
    server: Server,
    port: u16,
}

fn start(directives: &[(&str, &str)]) -> Watched {
    let port = free_port();
    let recipe = Recipe::under_test().with("io-threads", "2").with("http-port", &port.to_string());
    let recipe = recipe.with("http-bind", "127.0.0.1");
    let recipe = directives.iter().fold(recipe, |recipe, (name, value)| recipe.with(name, value));
    Watched { server: recipe.start(), port }
}

impl Watched {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends these bytes and reads until the server closes.
    fn send(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // A server that has refused the beginning need not read the rest.
        let _ = stream.write_all(bytes);
        read(stream)
    }

    fn get(&self, path: &str, headers: &str) -> Reply {
        let host = if headers.contains("Host: ") { "" } else { "Host: x\r\n" };
        self.send(format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n").as_bytes())
    }

    fn is_alive(&self) {
        assert_eq!(self.get("/healthz", "").status, 200);
        assert_eq!(self.server.client().call(&["PING"]), b"+PONG\r\n");
    }
}

/// The value of a sample.
fn sample(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn metrics_have_the_names_of_redis_exporter() {
    let watched = start(&[
        ("maxmemory", "1gb"),
        ("slowlog-log-slower-than", "0"),
        ("latency-monitor-threshold", "1"),
        ("enable-debug-command", "yes"),
    ]);
    let mut client = watched.server.client();
    for line in [&["SET", "k", "v"][..], &["SET", "l", "v", "EX", "1000"], &["GET", "k"], &["GET", "none"]] {
        client.call(line);
    }
    client.call(&["LPUSH", "k", "v"]);
    assert_eq!(client.call(&["DEBUG", "SLEEP", "0.05"]), b"+OK\r\n");
    let reply = watched.get("/metrics", "");
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    let text = &reply.body;
    for (name, value) in [
        ("redis_up", 1.0),
        ("redis_connected_clients", 1.0),
        ("redis_memory_max_bytes", 1_073_741_824.0),
        ("redis_commands_total{cmd=\"set\"}", 2.0),
        ("redis_commands_total{cmd=\"get\"}", 2.0),
        ("redis_commands_failed_calls_total{cmd=\"lpush\"}", 1.0),
        ("redis_errors_total{err=\"WRONGTYPE\"}", 1.0),
        ("redis_db_keys{db=\"db0\"}", 2.0),
        ("redis_db_keys_expiring{db=\"db0\"}", 1.0),
        ("redis_keyspace_hits_total", 1.0),
        ("redis_keyspace_misses_total", 1.0),
        ("redis_aof_last_write_status", 1.0),
    ] {
        assert_eq!(sample(text, name), value, "{name}");
    }
    assert!(sample(text, "redis_memory_used_bytes") > 1e5 && sample(text, "redis_uptime_in_seconds") < 1000.0);
    assert!(text.contains("redis_instance_info{redis_version=\"") && text.contains("role=\"master\""), "{text}");
    assert!(text.contains("# TYPE redis_commands_total counter\n") && text.contains("\nironkeep_"));
    let mut names: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').expect("a name and a value").0)
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "each sample is there once");
    // What redis_exporter asks beside INFO, and how the service times are shown, which only we have.
    for (name, value) in [
        ("redis_config_maxmemory", 1_073_741_824.0),
        ("redis_commandlog_request_larger_than", 1_048_576.0),
        ("redis_commands_latencies_usec_bucket{cmd=\"get\",le=\"+Inf\"}", 2.0),
        ("redis_commands_latencies_usec_count{cmd=\"get\"}", 2.0),
        ("redis_latency_percentiles_usec_count{cmd=\"set\"}", 2.0),
        ("ironkeep_service_usec_count{cmd=\"get\",part=\"log\"}", 2.0),
    ] {
        assert_eq!(sample(text, name), value, "{name}");
    }
    assert!(sample(text, "redis_latency_percentiles_usec{cmd=\"set\",quantile=\"99.9\"}") > 0.0);
    let logged = sample(text, "redis_slowlog_length");
    assert!(logged >= 6.0 && logged == sample(text, "redis_slowlog_last_id") + 1.0, "{logged}");
    assert_eq!(logged, sample(text, "redis_commandlog_slow_length"));
    assert!(sample(text, "redis_last_slow_execution_duration_seconds") >= 0.05);
    assert!(sample(text, "redis_latency_spike_duration_seconds{event_name=\"command\"}") >= 0.05);
    let part = |part: &str| sample(text, &format!("ironkeep_service_usec_sum{{cmd=\"get\",part=\"{part}\"}}"));
    let parts: f64 = ["wait", "run", "log", "send"].map(part).iter().sum();
    assert!((parts - part("whole")).abs() < 0.1, "{parts}");
    assert!(sample(text, "ironkeep_service_usec{cmd=\"get\",part=\"whole\",quantile=\"0.999\"}") > 0.0);
    assert!(sample(text, "ironkeep_fsync_us_count") >= 0.0 && sample(text, "ironkeep_expiry_lag_ms_max") >= 0.0);
    let open = watched.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert!(open.head.contains("content-type: application/openmetrics-text"), "{}", open.head);
    assert!(open.body.contains("# TYPE redis_commands counter\n") && open.body.ends_with("\n# EOF\n"));
}

#[test]
fn health_and_state_are_told() {
    let watched = start(&[]);
    assert_eq!(watched.get("/healthz", "").body, "alive\n");
    let ready = watched.get("/readyz", "");
    assert_eq!((ready.status, &*ready.body), (200, "ready: master\n"));
    watched.server.client().call(&["SET", "k", "v"]);
    let status = watched.get("/status", "");
    assert!(status.head.contains("content-type: application/json"), "{}", status.head);
    let json: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
    assert_eq!((&json["role"], &json["is_ready"]), (&"master".into(), &true.into()));
    assert_eq!(json["sections"]["keyspace"]["db0"]["keys"], 1);
    assert_eq!(json["sections"]["server"]["tcp_port"], watched.server.port());
    let head = watched.send(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
    // One connection serves many requests.
    let mut stream = watched.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(9).as_slice()).expect("it is open");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("replies");
    assert_eq!(text.matches("alive\n").count(), 10);
}

/// What `/history` tells since a time.
fn history(watched: &Watched, since: &str) -> serde_json::Value {
    let reply = watched.get(&format!("/history{since}"), "");
    assert_eq!(reply.status, 200, "{}", reply.body);
    serde_json::from_str(&reply.body).expect("JSON")
}

#[test]
fn the_last_minutes_are_kept_for_plots() {
    let watched = start(&[]);
    let mut client = watched.server.client();
    // Rows follow each other a second apart. One of them shows the commands between two samples.
    let rows = loop {
        client.call(&["SET", "k", "v"]);
        let json = history(&watched, "");
        let columns: Vec<String> = serde_json::from_value(json["columns"].clone()).expect("names");
        let rows: Vec<Vec<Option<f64>>> = serde_json::from_value(json["tracks"][0]["rows"].clone()).expect("rows");
        assert!(rows.iter().all(|row| row.len() == columns.len()), "{json}");
        let at = |name: &str| columns.iter().position(|known| known == name).expect("a column");
        let (commands, whole, memory, keys) = (at("commands"), at("whole_us_p99"), at("used_memory"), at("keys"));
        let is_full = |row: &Vec<Option<f64>>| row[commands] > Some(0.0) && row[whole] > Some(0.0);
        if rows.len() > 1 && rows.iter().any(is_full) {
            assert!(rows.iter().all(|row| row[memory] > Some(1e5) && row[keys] == Some(1.0)), "{json}");
            break rows;
        }
    };
    assert!(rows.windows(2).all(|pair| pair[0][0] < pair[1][0]), "the oldest is first");
    let last = rows.last().and_then(|row| row[0]).expect("a time");
    let since = |json: serde_json::Value| json["tracks"][0]["rows"].as_array().expect("rows").to_vec();
    let newer = since(history(&watched, &format!("?since={last}")));
    assert!(newer.iter().all(|row| row[0].as_f64() > Some(last)), "{newer:?}");
    assert_eq!(since(history(&watched, "?since=1e300")).len(), 0);
    for odd in ["?since=", "?since=x", "?since=NaN", "?since=-inf", "?x", "?&&=", "?since=%00"] {
        assert!(since(history(&watched, odd)).len() >= rows.len(), "{odd}");
    }
}

#[test]
fn the_state_names_no_key_and_no_argument() {
    let watched = start(&[("slowlog-log-slower-than", "0")]);
    let mut client = watched.server.client();
    client.call(&["SET", "secret-key", "secret-value"]);
    client.call(&["RPUSH", "secret-list", "secret-element"]);
    let status = watched.get("/status", "");
    let json: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
    assert!(!status.body.contains("secret"), "{}", status.body);
    assert!(json["slow_commands"].as_array().expect("a list").iter().any(|slow| slow["command"] == "rpush"), "{json}");
    let types = json["memory_by_type"].as_array().expect("a list");
    let of = |name: &str| types.iter().find(|of| of["type"] == name).expect("a type").clone();
    assert_eq!((&of("string")["keys"], &of("list")["keys"], &of("list")["db"]), (&1.into(), &1.into(), &0.into()));
    assert!(of("string")["bytes"].as_u64() > Some(20) && of("list")["is_estimate"] == false);
    assert!(json["service_us"]["whole"]["count"].as_u64() > Some(1), "{json}");
    assert_eq!(json["log"]["failure"], serde_json::Value::Null);
}

#[test]
fn nobody_is_answered_without_the_token() {
    let watched = start(&[("http-token", TOKEN), ("requirepass", "other")]);
    let basic = |pair: &str| format!("Authorization: Basic {pair}\r\n");
    for path in ["/metrics", "/healthz", "/readyz", "/status", "/history", "/", "/data/me", "/none"] {
        for wrong in ["", "Authorization: Bearer other\r\n", "Authorization: x\r\n", &basic("eDp4"), &basic("!")] {
            let reply = watched.get(path, wrong);
            assert_eq!(reply.status, 401, "{path} {wrong}");
            assert!(reply.head.contains("www-authenticate: basic"), "{}", reply.head);
        }
    }
    assert_eq!(watched.get("/metrics", &format!("Authorization: Bearer {TOKEN}\r\n")).status, 200);
    // "x:a-token-of-this-test"
    assert_eq!(watched.get("/metrics", &basic("eDphLXRva2VuLW9mLXRoaXMtdGVzdA==")).status, 200);
    let mut client = watched.server.client();
    client.call(&["AUTH", "other"]);
    client.call(&["CONFIG", "SET", "http-token", "new"]);
    assert_eq!(watched.get("/healthz", &format!("Authorization: Bearer {TOKEN}\r\n")).status, 401);
    assert_eq!(watched.get("/healthz", "Authorization: Bearer new\r\n").status, 200);
    let info = String::from_utf8(client.call(&["INFO", "stats"])).expect("a text");
    assert!(info.contains("acl_access_denied_auth:41\r\n"), "{info}");
    assert!(!watched.server.log().contains(TOKEN));
}

#[test]
fn a_public_address_needs_a_token() {
    let directory = tempfile::tempdir().expect("a directory");
    for address in ["0.0.0.0", "*"] {
        let recipe = Recipe::under_test().with("http-port", &free_port().to_string()).with("http-bind", address);
        let output = recipe.command(directory.path(), free_port()).output().expect("it runs");
        let told = [output.stdout, output.stderr].concat();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&told).contains("set http-token"), "{}", String::from_utf8_lossy(&told));
    }
    let watched = start(&[("http-bind", "0.0.0.0"), ("http-token", TOKEN)]);
    for path in ["/", "/metrics", "/history", "/data/keys"] {
        assert_eq!(watched.get(path, "").status, 401, "{path}");
    }
    watched.server.client().call(&["CONFIG", "SET", "http-token", ""]);
    for path in ["/", "/metrics", "/history", "/data/keys"] {
        assert_eq!(watched.get(path, "").status, 403, "{path} closes with its token");
    }
}

#[test]
fn tls_serves_http_and_nothing_else_does_then() {
    let certificates = Certificates::new();
    let (server, key) = (certificates.text("server.crt"), certificates.text("server.key"));
    let watched =
        start(&[("http-tls", "yes"), ("tls-auth-clients", "no"), ("tls-cert-file", &server), ("tls-key-file", &key)]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("ca.crt")).expect("a file")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut stream = StreamOwned::new(connection, watched.connect());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is open");
    let reply = read(stream);
    assert_eq!((reply.status, sample(&reply.body, "redis_up")), (200, 1.0));
    assert_eq!(watched.get("/metrics", "").status, 0, "plain text is closed");
    assert_eq!(watched.server.client().call(&["PING"]), b"+PONG\r\n");
}

#[test]
fn broken_requests_are_refused_and_harm_nobody() {
    let watched = start(&[]);
    let long = "x".repeat(1 << 20);
    let many = "a: b\r\n".repeat(1000);
    let requests: [(&str, &[u16]); 14] = [
        ("GET /../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &[404]),
        ("GET /%2e%2e/metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &[404]),
        ("GET //metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &[404]),
        ("GET /metrics/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &[404]),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n", &[405]),
        ("DELETE /status HTTP/1.1\r\nHost: x\r\n\r\n", &[405]),
        ("GET /metrics\r\n\r\n", &[0, 400]),
        ("GET /metrics HTTP/9.9\r\n\r\n", &[0, 400, 505]),
        ("*1\r\n$4\r\nPING\r\n", &[0, 400]),
        ("\0\x01\x02\r\n\r\n", &[0, 400]),
        ("GET / HTTP/1.1\r\nbroken\r\n\r\n", &[0, 400]),
        ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &[0, 400]),
        (&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), &[0, 400, 414, 431]),
        (&format!("GET / HTTP/1.1\r\n{many}\r\n"), &[0, 400, 431]),
    ];
    for (request, wanted) in requests {
        let status = watched.send(request.as_bytes()).status;
        assert!(wanted.contains(&status), "{status}: {}", &request[..request.len().min(60)]);
    }
    watched.is_alive();
}

#[test]
fn thousands_of_idle_connections_keep_nobody_out() {
    let watched = start(&[]);
    let before = watched.server.client();
    let mut idle: Vec<TcpStream> = Vec::new();
    for number in 0..2000 {
        let mut stream = watched.connect();
        // Half of them have begun a request.
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHo");
        }
        idle.push(stream);
        // Those that were closed need no place here.
        if idle.len() > 600 {
            idle.remove(0);
        }
    }
    watched.is_alive();
    drop(before);
    let text = watched.get("/metrics", "").body;
    assert!(sample(&text, "redis_connected_clients") <= 2.0, "they are no clients");
    // The oldest of those that are left were closed by the server.
    let oldest = &mut idle[0];
    oldest.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let closed = oldest.read(&mut [0; 1]);
    assert!(matches!(closed, Ok(0)) || closed.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn a_scrape_waits_for_no_command() {
    let watched = start(&[("enable-debug-command", "yes")]);
    let mut busy = watched.server.client();
    busy.send(b"EVAL \"while true do end\" 0\r\n").expect("it is connected");
    let mut other = watched.server.client();
    while !String::from_utf8_lossy(&other.call(&["SCRIPT", "KILL"])).starts_with('+') {
        let reply = watched.get("/metrics", "");
        assert_eq!((reply.status, sample(&reply.body, "redis_up")), (200, 1.0));
    }
    watched.is_alive();
}

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
fn the_page_is_guarded_and_loads_nothing_from_elsewhere() {
    let watched = start(&[]);
    let page = watched.get("/", "");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{}", page.head);
    for part in ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'"] {
        assert!(page.head.contains(part), "{part}: {}", page.head);
    }
    for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "x-frame-options: deny"] {
        assert!(page.head.contains(part), "{part}: {}", page.head);
    }
    for part in ["cross-origin-resource-policy: same-origin", "referrer-policy: no-referrer", "cache-control: no-store"]
    {
        assert!(page.head.contains(part), "{part}: {}", page.head);
    }
    assert!(!page.head.contains("unsafe-") && !page.head.contains("access-control-allow-origin"), "{}", page.head);
    assert!(page.body.starts_with("<!DOCTYPE html>") && page.body.ends_with("</html>\n"));
    assert!(!page.body.contains("/*STYLE*/") && !page.body.contains("/*SCRIPT*/"));
    let head = watched.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(watched.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status, 405);
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

/// What the keys of each type of the first database are said to be.
fn types(watched: &Watched) -> serde_json::Value {
    let json: serde_json::Value = serde_json::from_str(&watched.get("/status", "").body).expect("JSON");
    json["memory_by_type"].clone()
}

#[test]
fn big_keys_are_not_lost_among_many() {
    let watched = start(&[("enable-debug-command", "yes")]);
    let mut client = watched.server.client();
    client.call(&["DEBUG", "POPULATE", "20000", "key", "10"]);
    client.call(&["RPUSH", "list", &"x".repeat(100_000)]);
    let types = types(&watched);
    let of =
        |name: &str| types.as_array().expect("a list").iter().find(|of| of["type"] == name).expect("a type").clone();
    let (list, string) = (of("list"), of("string"));
    assert_eq!((&list["keys"], &list["is_estimate"], &string["keys"]), (&1.into(), &true.into(), &20_000.into()));
    assert!(list["bytes"].as_u64() > Some(100_000) && string["bytes"].as_u64() > Some(200_000), "{types}");
    assert!(string["bytes"].as_u64() < Some(4_000_000), "{types}");
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
    let watched = start(&[("http-browse", "read"), ("maxmemory-policy", "allkeys-lfu"), ("maxmemory", "1gb")]);
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
    while !String::from_utf8_lossy(&client.call(&["INFO", "clients"])).contains("connected_clients:1\r\n") {}
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
    let watched = start(&[("http-browse", "read"), ("io-threads", "1")]);
    watched.server.client().call(&["SET", "k", "v"]);
    let mut busy = watched.server.client();
    busy.send(b"EVAL \"while true do redis.call('GET', 'k') end\" 1 k\r\n").expect("it is connected");
    let request = format!("GET /data/key?key=k HTTP/1.1\r\n{HERE}Connection: close\r\n\r\n");
    let ask = |_| {
        let mut stream = watched.connect();
        stream.write_all(request.as_bytes()).expect("it is open");
        stream
    };
    let waiting: Vec<TcpStream> = (0..40).map(ask).collect();
    // The rest of HTTP goes on, and the clients of those who wait are few.
    for _ in 0..20 {
        let status = watched.get("/status", "");
        assert_eq!(status.status, 200);
        let json: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
        let clients = json["sections"]["clients"]["connected_clients"].as_u64().expect("a number");
        assert!(clients < 12, "{clients}");
    }
    let mut other = watched.server.client();
    while !String::from_utf8_lossy(&other.call(&["SCRIPT", "KILL"])).starts_with('+') {}
    for stream in waiting {
        let reply = read(stream);
        let is_busy = reply.status == 503 && reply.body.contains("BUSY");
        assert!(reply.status == 200 || is_busy, "{} {}", reply.status, reply.body);
    }
}

#[test]
fn a_server_that_loads_is_alive_and_not_ready() {
    let recipe = Recipe::under_test().with("save", "").with("enable-debug-command", "yes");
    let mut server = recipe.start();
    let mut client = server.client();
    for number in 0..100 {
        client.call(&["SET", &format!("k:{number}"), "v"]);
    }
    server.kill();
    let (port, http) = (free_port(), free_port());
    // It takes ten seconds with two threads.
    let slow = Recipe::under_test().with("key-load-delay", "200000").with("http-port", &http.to_string());
    let slow = slow.with("http-bind", "127.0.0.1").with("enable-debug-command", "yes");
    let mut child = slow.command(server.directory(), port).stdout(Stdio::null()).spawn().expect("it starts");
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", http)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        Some(read(stream)).filter(|reply| reply.status > 0)
    };
    let first = loop {
        if let Some(reply) = ask("/readyz") {
            break reply;
        }
    };
    assert_eq!((first.status, &*first.body), (503, "not ready: loading\n"));
    assert_eq!(ask("/healthz").map(|reply| reply.status), Some(200));
    for path in ["/status", "/history", "/metrics", "/data/keys"] {
        assert_eq!(ask(path).map(|reply| reply.status), Some(503), "{path}");
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
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

#[test]
fn a_server_whose_log_has_failed_is_not_ready() {
    let http = free_port();
    let recipe = Recipe::under_test().with("appendfsync", "always").with("save", "").with("rdbcompression", "no");
    let recipe = recipe.with("http-port", &http.to_string()).with("http-bind", "127.0.0.1");
    let server = recipe.with_file_limit_kib(256).start();
    let watched = Watched { server, port: http };
    assert_eq!(watched.get("/readyz", "").status, 200);
    let (mut writer, value) = (watched.server.client(), "v".repeat(1000));
    // Little in the log and too much for a snapshot, which would heal the log.
    assert_eq!(writer.call(&["SETRANGE", "large", "400000", "x"]), b":400001\r\n");
    let taken = (0..1000).take_while(|number| {
        writer.try_call(&["SET", &format!("k:{number}"), &value]).is_ok_and(|reply| reply == b"+OK\r\n")
    });
    assert!(taken.count() < 1000, "the limit does not work");
    let ready = watched.get("/readyz", "");
    assert_eq!((ready.status, &*ready.body), (503, "not ready: the log has failed\n"));
    assert_eq!(watched.get("/healthz", "").status, 200);
    let status: serde_json::Value = serde_json::from_str(&watched.get("/status", "").body).expect("JSON");
    assert_eq!(status["is_ready"], false);
    assert!(status["log"]["failure"].is_string(), "{}", status["log"]);
}

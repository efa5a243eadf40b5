//! HTTP: metrics, health and state, who may see them, and what clients that mean harm cost.

mod browse;
#[path = "../support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use support::certificates::Certificates;
use support::client::{Client, PATIENCE, encode};
use support::http::{Reply, read};
use support::server::{Recipe, Server, free_port};
use support::until::wait_until;

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

    /// Waits until there are no other clients than these: those who leave are there for another moment.
    fn wait_for_clients(&self, count: f64) {
        wait_until("the others leave", || sample(&self.get("/metrics", "").body, "redis_connected_clients") == count);
    }

    /// Has a function run until FUNCTION KILL, which reads this key again and again if there is one. It runs now.
    fn begin_endless_function(&self, keys: &[&str]) -> Client {
        const ENDLESS: &str = "#!lua name=endless\nredis.register_function('endless', function(keys)\n\
                               while true do if keys[1] then redis.call('GET', keys[1]) end end end)";
        let mut other = self.server.client();
        other.call(&["FUNCTION", "LOAD", ENDLESS]);
        let mut busy = self.server.client();
        let count = keys.len().to_string();
        busy.send(&encode(&[&["FCALL", "endless", &count], keys].concat())).expect("it is connected");
        wait_until("it runs", || {
            String::from_utf8_lossy(&other.call(&["FUNCTION", "STATS"])).contains("\r\nendless\r\n")
        });
        busy
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
    // The first one asked whether the server is there.
    watched.wait_for_clients(1.0);
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
    client.call(&["SET", "k", "v"]);
    let since_set = history(&watched, "")["time_ms"].as_f64();
    let deadline = Instant::now() + PATIENCE;
    // Rows follow each other a second apart. One of them shows the commands between two samples.
    let rows = loop {
        assert!(Instant::now() < deadline, "no row shows the commands");
        client.call(&["SET", "k", "v"]);
        let json = history(&watched, "");
        let columns: Vec<String> = serde_json::from_value(json["columns"].clone()).expect("names");
        let rows: Vec<Vec<Option<f64>>> = serde_json::from_value(json["tracks"][0]["rows"].clone()).expect("rows");
        assert!(rows.iter().all(|row| row.len() == columns.len()), "{json}");
        let at = |name: &str| columns.iter().position(|known| known == name).expect("a column");
        let (commands, whole, memory, keys) = (at("commands"), at("whole_us_p99"), at("used_memory"), at("keys"));
        let is_full = |row: &Vec<Option<f64>>| row[commands] > Some(0.0) && row[whole] > Some(0.0);
        if rows.len() > 1 && rows.iter().any(is_full) {
            let knows_key = |row: &Vec<Option<f64>>| row[keys] == Some(1.0) || row[0] <= since_set;
            assert!(rows.iter().all(|row| row[memory] > Some(1e5) && knows_key(row)), "{json}");
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
    // Their times are noted behind their replies, and before the next command.
    client.call(&["PING"]);
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
    // They are no clients.
    watched.wait_for_clients(0.0);
    // The oldest of those that are left were closed by the server.
    let oldest = &mut idle[0];
    oldest.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let closed = oldest.read_to_end(&mut Vec::new());
    assert!(matches!(closed, Ok(0)) || closed.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn a_scrape_waits_for_no_command() {
    let watched = start(&[]);
    let mut busy = watched.begin_endless_function(&[]);
    for _ in 0..20 {
        let reply = watched.get("/metrics", "");
        assert_eq!((reply.status, sample(&reply.body, "redis_up")), (200, 1.0));
    }
    assert_eq!(watched.server.client().call(&["FUNCTION", "KILL"]), b"+OK\r\n");
    assert!(busy.receive().expect("an error").starts_with(b"-ERR Script killed"));
    watched.is_alive();
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

/// A process that ends with its value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
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
    // A quarter of an hour with one thread: until the end of the test.
    let slow = Recipe::under_test().with("key-load-delay", "9000000").with("http-port", &http.to_string());
    let slow = slow.with("http-bind", "127.0.0.1").with("enable-debug-command", "yes");
    let child = slow.command(server.directory(), port).stdout(Stdio::null()).spawn().expect("it starts");
    let _child = Ended(child);
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", http)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        Some(read(stream)).filter(|reply| reply.status > 0)
    };
    let mut first = None;
    wait_until("it answers", || {
        first = ask("/readyz");
        first.is_some()
    });
    let first = first.expect("a reply");
    assert_eq!((first.status, &*first.body), (503, "not ready: loading\n"));
    assert_eq!(ask("/healthz").map(|reply| reply.status), Some(200));
    for path in ["/status", "/history", "/metrics", "/data/keys"] {
        assert_eq!(ask(path).map(|reply| reply.status), Some(503), "{path}");
    }
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

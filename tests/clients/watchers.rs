//! Those who watch a server: redis_exporter itself, and the commands of redis_exporter and RedisInsight, whose replies
//! must parse as these programs parse them. The genuine server is asked the same, so that the checks themselves hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Client, PATIENCE};
use crate::support::reply::Reply;
use crate::support::server::{Recipe, Server, free_port};

/// What redis_exporter tells of itself, of single clients and keys, and under names of older versions.
const OF_EXPORTER: &[&str] = &[
    "redis_exporter_",
    "redis_target_",
    "redis_key_",
    "redis_stream_",
    "redis_connected_clients_details",
    "redis_connected_client_",
    "redis_instance_info",
    "redis_last_key_groups_",
    "redis_latest_fork_seconds",
    // It takes the rows of INFO keysizes, which it does not know, for plain fields.
    "redis_db0_distrib_",
];

/// The exporter, which ends with its value.
struct Exporter {
    child: Child,
    port: u16,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn export(server: &Server) -> Exporter {
    let port = free_port();
    let mut command = Command::new("prometheus-redis-exporter");
    command.args(["-redis.addr", &format!("redis://127.0.0.1:{}", server.port())]);
    command.args([
        "-web.listen-address",
        &format!("127.0.0.1:{port}"),
        "-include-system-metrics",
        "-export-client-list",
    ]);
    command.args(["-check-single-keys", "db0=text,db0=list", "-check-single-streams", "db0=stream"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Exporter { child: child.expect("redis_exporter is there: start these tests with `tests/run`"), port }
}

/// The page of metrics at a port, by names with their labels.
fn metrics(port: u16) -> BTreeMap<String, f64> {
    let mut text = String::new();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").expect("it reads");
        stream.read_to_string(&mut text).expect("a text");
        break;
    }
    assert!(text.starts_with("HTTP/1."), "nobody answers at {port}: {text}");
    let (_, page) = text.split_once("\r\n\r\n").expect("a head and a body");
    let lines = page.lines().filter(|line| line.starts_with("redis_"));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// Something of everything to look at.
fn fill(client: &mut Client) {
    for line in [
        "SET text value",
        "SET gone value PX 100000",
        "GET text",
        "GET nothing",
        "RPUSH list a b c",
        "XADD stream 1-1 field value",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group consumer STREAMS stream >",
        "EVAL \"return {'one', '1', 'two', '2'}\" 0",
    ] {
        client.ok(line);
    }
    assert!(client.line("INCR list").is_error());
}

#[test]
fn redis_exporter_shows_what_metrics_show() {
    let http = free_port();
    let recipe = Recipe::under_test().with("save", "").with("appendonly", "yes").with("maxmemory", "1gb");
    let recipe = recipe.with("slowlog-log-slower-than", "0");
    let recipe = if Recipe::is_stand_in() { recipe } else { recipe.with("http-port", &http.to_string()) };
    let server = recipe.start();
    fill(&mut server.client());
    let exporter = export(&server);
    // The first look makes the commands of the exporter known, which the second one then shows.
    metrics(exporter.port);
    let shown = metrics(exporter.port);
    for (name, value) in [
        ("redis_up", 1.0),
        ("redis_exporter_last_scrape_error{err=\"\"}", 0.0),
        ("redis_db_keys{db=\"db0\"}", 4.0),
        ("redis_db_keys_expiring{db=\"db0\"}", 1.0),
        ("redis_config_maxmemory", 1_073_741_824.0),
        ("redis_commands_total{cmd=\"rpush\"}", 1.0),
        ("redis_commands_failed_calls_total{cmd=\"incr\"}", 1.0),
        ("redis_keyspace_misses_total", 1.0),
        ("redis_aof_enabled", 1.0),
        ("redis_key_size{db=\"db0\",key=\"list\"}", 3.0),
        ("redis_stream_length{db=\"db0\",stream=\"stream\"}", 1.0),
        ("redis_stream_group_messages_pending{db=\"db0\",group=\"group\",stream=\"stream\"}", 1.0),
    ] {
        assert_eq!(shown.get(name), Some(&value), "{name}");
    }
    // It asks PFCOUNT of strings, too.
    assert!(shown["redis_errors_total{err=\"WRONGTYPE\"}"] >= 1.0);
    assert!(shown["redis_slowlog_length"] >= 10.0 && shown["redis_memory_used_bytes"] > 1e5);
    let clients = ["redis_connected_clients_details{", "redis_connected_client_info{"];
    assert!(shown.keys().any(|name| clients.iter().any(|begin| name.starts_with(begin))), "{shown:?}");
    if !Recipe::is_stand_in() {
        let ours = metrics(http);
        let is_of_server = |name: &&&String| !OF_EXPORTER.iter().any(|begin| name.starts_with(begin));
        let missing: Vec<_> = shown.keys().filter(|name| is_of_server(&name) && !ours.contains_key(*name)).collect();
        assert!(missing.is_empty(), "redis_exporter shows them, /metrics does not: {missing:#?}");
        for name in [
            "redis_db_keys{db=\"db0\"}",
            "redis_db_keys{db=\"db5\"}",
            "redis_config_maxclients",
            "redis_config_maxmemory",
        ] {
            assert_eq!(ours[name], shown[name], "{name}");
        }
    }
}

/// The pairs of a reply that is a map in RESP3.
fn pairs(reply: &Reply) -> BTreeMap<String, Reply> {
    assert_eq!(reply.elements().len() % 2, 0, "{reply:?}");
    reply.elements().chunks(2).map(|pair| (pair[0].string(), pair[1].clone())).collect()
}

/// What both servers are asked.
fn ask_both(ask: impl Fn(&mut Client)) {
    for recipe in [Recipe::under_test().with("save", "").with("appendonly", "yes"), Recipe::reference()] {
        let recipe = recipe.with("slowlog-log-slower-than", "0").with("latency-monitor-threshold", "1");
        let server = recipe.start();
        let mut client = server.client();
        fill(&mut client);
        ask(&mut client);
    }
}

#[test]
fn the_server_is_described() {
    ask_both(|client| {
        assert_eq!(client.ok("MODULE LIST").elements(), []);
        let modules = client.ok("COMMAND INFO FT.SEARCH JSON.GET TS.ADD BF.ADD");
        assert!(modules.elements().iter().all(|info| matches!(info, Reply::Null(_))), "{modules:?}");
        let hello = pairs(&client.ok("HELLO"));
        assert!(hello["modules"].elements().is_empty() && hello["server"].string() == "redis", "{hello:?}");
        for lacking in ["FT._LIST", "SENTINEL MASTERS", "SERVER EXT"] {
            let name = lacking.split(' ').next().expect("a word");
            let begin = format!("ERR unknown command '{name}', with args beginning with:");
            assert!(client.line(lacking).string().starts_with(&begin), "{lacking}");
        }
        assert_eq!(client.line("CLUSTER INFO").string(), "ERR This instance has cluster support disabled");
        let role = client.ok("ROLE");
        assert!(role.elements()[0].string() == "master" && role.elements()[2].elements().is_empty(), "{role:?}");
        assert_eq!(client.ok("ACL WHOAMI").string(), "default");
        assert!(client.ok("LASTSAVE").integer() > 1_700_000_000 && client.ok("DBSIZE").integer() == 4);
        let count = client.ok("COMMAND COUNT").integer();
        let commands = client.ok("COMMAND");
        assert_eq!(commands.elements().len() as i64, count);
        for command in commands.elements() {
            let [name, arity, flags, first, last, step, ..] = command.elements() else { panic!("{command:?}") };
            assert!(!name.string().is_empty() && arity.integer() != 0 && flags.elements().len() < 30);
            assert!([first, last, step].iter().all(|number| number.integer() >= -2), "{command:?}");
        }
        let documents = pairs(&client.ok("COMMAND DOCS"));
        assert!(documents.values().all(|one| pairs(one).contains_key("summary") && pairs(one).contains_key("group")));
    });
}

/// The fields of INFO by section, as RedisInsight takes them apart.
fn info(client: &mut Client, words: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let (mut sections, mut section) = (BTreeMap::new(), String::new());
    for line in client.ok(words).string().split("\r\n").filter(|line| !line.is_empty()) {
        if let Some(heading) = line.strip_prefix("# ") {
            section = heading.to_ascii_lowercase();
            sections.insert(section.clone(), BTreeMap::new());
        } else {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line}"));
            let fields = sections.get_mut(&section).expect("a heading stands before its fields");
            let old = fields.insert(name.to_owned(), value.to_owned());
            assert!(old.is_none() || name.starts_with("module"), "{name} is there twice");
        }
    }
    sections
}

#[test]
fn figures_are_told() {
    ask_both(|client| {
        let sections = info(client, "INFO");
        for (section, numbers) in [
            ("server", &["uptime_in_seconds", "uptime_in_days", "process_id", "tcp_port", "hz"][..]),
            ("clients", &["connected_clients", "blocked_clients", "maxclients"]),
            (
                "memory",
                &["used_memory", "used_memory_rss", "used_memory_peak", "maxmemory", "number_of_cached_scripts"],
            ),
            ("memory", &["mem_fragmentation_ratio", "used_memory_lua", "used_memory_dataset"]),
            ("stats", &["keyspace_hits", "keyspace_misses", "total_commands_processed", "instantaneous_ops_per_sec"]),
            ("stats", &["instantaneous_input_kbps", "instantaneous_output_kbps", "expired_keys", "evicted_keys"]),
            ("persistence", &["loading", "rdb_changes_since_last_save", "rdb_last_save_time", "aof_enabled"]),
            ("replication", &["connected_slaves", "master_repl_offset"]),
            ("cpu", &["used_cpu_sys", "used_cpu_user"]),
        ] {
            for name in numbers {
                let value = sections[section].get(*name).unwrap_or_else(|| panic!("INFO {section} has no {name}"));
                assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{name}:{value}");
            }
        }
        assert_eq!(sections["server"]["redis_mode"], "standalone");
        assert!(
            sections["server"]["redis_version"].split('.').filter_map(|part| part.parse::<u32>().ok()).count() == 3
        );
        assert!(sections["keyspace"]["db0"].starts_with("keys=4,expires=1,avg_ttl="), "{sections:?}");
        let all = info(client, "INFO everything");
        for (section, begin, columns) in [
            ("commandstats", "cmdstat_", &["calls", "usec", "usec_per_call", "rejected_calls", "failed_calls"][..]),
            ("latencystats", "latency_percentiles_usec_", &["p50", "p99", "p99.9"]),
            ("errorstats", "errorstat_", &["count"]),
        ] {
            assert!(!all[section].is_empty(), "{section}");
            for (name, value) in &all[section] {
                let found = value.split(',').map(|column| column.split_once('=').expect("name=value"));
                let found: Vec<_> =
                    found.map(|(name, value)| (name, value.parse::<f64>().expect("a number"))).collect();
                let names: Vec<_> = found.iter().map(|(name, _)| *name).take(columns.len()).collect();
                assert!(name.starts_with(begin) && names == columns, "{name}:{value}");
            }
        }
    });
}

#[test]
fn configuration_and_clients_are_told() {
    ask_both(|client| {
        let all = pairs(&client.ok("CONFIG GET *"));
        for name in ["databases", "maxclients", "maxmemory", "io-threads", "repl-backlog-size"] {
            assert!(all[name].string().parse::<u64>().is_ok(), "{name}");
        }
        let limits = all["client-output-buffer-limit"].string();
        let limits: Vec<&str> = limits.split(' ').collect();
        let classes: Vec<&str> = limits.chunks(4).map(|four| four[0]).collect();
        assert_eq!(classes, ["normal", "slave", "pubsub"], "{limits:?}");
        assert!(limits.chunks(4).flat_map(|four| &four[1..]).all(|number| number.parse::<u64>().is_ok()));
        assert_eq!(client.ok("CONFIG GET databases").elements().len(), 2);
        let slow: BTreeSet<String> = pairs(&client.ok("CONFIG GET slowlog*")).into_keys().collect();
        assert!(slow.contains("slowlog-max-len") && slow.contains("slowlog-log-slower-than"), "{slow:?}");

        client.ok("CLIENT SETNAME redis_exporter");
        let list = client.ok("CLIENT LIST").string();
        for line in list.split('\n').filter(|line| !line.is_empty()) {
            assert!(line.starts_with("id=") && line.split(' ').nth(1).expect("a field").starts_with("addr="), "{line}");
            let parts: Vec<Vec<&str>> = line.split(' ').map(|field| field.split('=').collect()).collect();
            assert!(parts.iter().all(|field| field.len() == 2), "name=value and nothing else: {line}");
            let fields: BTreeMap<&str, &str> = parts.iter().map(|field| (field[0], field[1])).collect();
            for name in ["id", "age", "idle", "db", "sub", "psub", "qbuf", "qbuf-free", "obl", "oll", "omem", "tot-mem"]
            {
                assert!(fields[name].parse::<i64>().is_ok(), "{name}: {line}");
            }
            assert!(fields["name"] == "redis_exporter" && fields["user"] == "default", "{line}");
            assert!(fields["addr"].rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()), "{line}");
        }
    });
}

#[test]
fn slow_commands_and_latencies_are_told() {
    ask_both(|client| {
        let entries = client.ok("SLOWLOG GET 50");
        assert!(client.ok("SLOWLOG LEN").integer() >= entries.elements().len() as i64);
        assert!(entries.elements().len() >= 10, "{entries:?}");
        for entry in entries.elements() {
            let [id, at, took, words, address, name, ..] = entry.elements() else { panic!("{entry:?}") };
            assert!(id.integer() >= 0 && at.integer() > 1_700_000_000 && took.integer() >= 0, "{entry:?}");
            assert!(!words.elements().is_empty() && address.string().contains(':') && name.string().is_empty());
        }
        for event in client.ok("LATENCY LATEST").elements() {
            let [name, at, last, longest] = event.elements() else { panic!("{event:?}") };
            assert!(!name.string().is_empty() && at.integer() > 0 && last.integer() <= longest.integer());
        }
        let histograms = pairs(&client.ok("LATENCY HISTOGRAM"));
        for (command, histogram) in &histograms {
            let histogram = pairs(histogram);
            let calls = histogram["calls"].integer();
            let buckets: Vec<i64> = histogram["histogram_usec"].elements().iter().map(Reply::integer).collect();
            let counts: Vec<i64> = buckets.chunks(2).map(|pair| pair[1]).collect();
            assert!(counts.is_sorted() && counts.last() == Some(&calls), "{command}: {buckets:?}");
        }
        assert!(histograms.contains_key("rpush") && histograms.contains_key("slowlog|get"), "{histograms:?}");
    });
}

#[test]
fn keys_are_looked_at() {
    ask_both(|client| {
        let page = client.ok("SCAN 0 MATCH * COUNT 10000 TYPE list");
        let [cursor, keys] = page.elements() else { panic!("{page:?}") };
        assert_eq!((cursor.string(), keys.elements().len()), ("0".to_owned(), 1));
        for (key, kind, size) in [("text", "string", "STRLEN"), ("list", "list", "LLEN"), ("stream", "stream", "XLEN")]
        {
            assert_eq!(client.ok(&format!("TYPE {key}")).string(), kind);
            assert_eq!(client.ok(&format!("TTL {key}")).integer(), -1);
            assert!(client.ok(&format!("{size} {key}")).integer() > 0);
            assert!(client.ok(&format!("MEMORY USAGE {key} SAMPLES 0")).integer() > 0);
            assert!(!client.ok(&format!("OBJECT ENCODING {key}")).string().is_empty());
        }
        assert!(client.line("PFCOUNT text").is_error(), "the exporter tells strings from HyperLogLogs so");
        let stream = pairs(&client.ok("XINFO STREAM stream"));
        assert_eq!(stream["first-entry"].elements()[0].string(), "1-1");
        assert!(stream["length"].integer() == 1 && stream["groups"].integer() == 1, "{stream:?}");
        let group = pairs(&client.ok("XINFO GROUPS stream").elements()[0]);
        assert!(group["pending"].integer() == 1 && group["consumers"].integer() == 1 && group["lag"].integer() == 0);
        let consumer = pairs(&client.ok("XINFO CONSUMERS stream group").elements()[0]);
        assert!(consumer["idle"].integer() >= 0 && consumer["name"].string() == "consumer", "{consumer:?}");
        let stats = pairs(&client.ok("MEMORY STATS"));
        assert!(stats["total.allocated"].integer() > 0 && stats["keys.count"].integer() == 4, "{stats:?}");
        assert!(
            !client.ok("MEMORY DOCTOR").string().is_empty() && !client.ok("MEMORY MALLOC-STATS").string().is_empty()
        );
        let made = pairs(&client.ok("EVAL \"return {'one', '1', 'two', '2'}\" 0 0"));
        assert!(made.values().all(|value| value.string().parse::<f64>().is_ok()), "{made:?}");
    });
}

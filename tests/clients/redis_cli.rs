//! redis-cli, end to end: its forms of output, its modes, and what tutorials teach with it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::client::encode;
use crate::support::server::{Server, wait};
use crate::{run, start};

fn cli(server: &Server, arguments: &[&str]) -> String {
    let output = run(Command::new("redis-cli").args(["-p", &server.port().to_string()]).args(arguments));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

#[test]
fn output_in_its_forms() {
    let server = start();
    assert_eq!(cli(&server, &["SET", "k", "hello world"]), "OK");
    assert_eq!(cli(&server, &["GET", "k"]), "hello world");
    assert_eq!(cli(&server, &["-n", "5", "INCR", "n"]), "1");
    assert_eq!(cli(&server, &["-3", "GET", "missing"]), "");
    assert_eq!(cli(&server, &["--no-raw", "GET", "missing"]), "(nil)");
    assert_eq!(cli(&server, &["-r", "5", "INCR", "counter"]), "1\n2\n3\n4\n5");
    assert!(cli(&server, &["INFO", "server"]).contains("redis_version:"));
    assert!(cli(&server, &["--no-raw", "INCR", "k"]).starts_with("(error) ERR value is not an integer"));
    assert_eq!(cli(&server, &["--csv", "MGET", "k", "n"]), "\"hello world\",NULL");
    assert_eq!(cli(&server, &["-3", "--json", "CONFIG", "GET", "maxmemory"]), r#"{"maxmemory":"0"}"#);
    cli(&server, &["MSET", "user:1", "a", "user:2", "b"]);
    let mut scanned: Vec<String> =
        cli(&server, &["--scan", "--pattern", "user:*"]).lines().map(str::to_owned).collect();
    scanned.sort();
    assert_eq!(scanned, ["user:1", "user:2"]);
}

/// Mass insertion: a file of commands through `redis-cli --pipe`.
#[test]
fn mass_insertion() {
    const COUNT: usize = 20_000;
    let mut server = start();
    pipe(&server, (0..COUNT).map(|number| vec!["SET".to_owned(), format!("key:{number}"), format!("value {number}")]));
    server.kill();
    server.start_again();
    assert_eq!(cli(&server, &["DBSIZE"]), COUNT.to_string());
    assert_eq!(cli(&server, &["GET", "key:19999"]), "value 19999");
}

fn started(server: &Server, arguments: &[&str]) -> Child {
    Command::new("redis-cli")
        .args(["-p", &server.port().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-cli: {error}\nstart these tests with `tests/run`"))
}

/// Sends commands through `redis-cli --pipe`; each must succeed.
fn pipe(server: &Server, commands: impl Iterator<Item = Vec<String>>) {
    let mut child = started(server, &["--pipe"]);
    let (mut input, mut count) = (child.stdin.take().expect("its input is a pipe"), 0);
    let bytes: Vec<u8> = commands.inspect(|_| count += 1).flat_map(|words| encode(&words)).collect();
    input.write_all(&bytes).expect("it reads on");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("errors: 0, replies: {count}")), "{said}");
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// The lines that one command prints.
fn lines(server: &Server, line: &str) -> Vec<String> {
    let printed = cli(server, &line.split(' ').collect::<Vec<_>>());
    printed.lines().map(str::to_owned).collect()
}

fn sorted(server: &Server, line: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = lines(server, line).iter().map(|line| line.parse().expect("a number")).collect();
    numbers.sort_unstable();
    numbers
}

// ---------------------------------------------------------------- what tutorials teach

#[test]
fn profiles_survive_a_crash() {
    let mut server = start();
    pipe(
        &server,
        (0..1000).map(|id| words(&format!("HSET user:{id} name User{id} email u{id}@example.com visits {id}"))),
    );
    assert_eq!(cli(&server, &["-r", "10", "HINCRBY", "user:7", "visits", "1"]).lines().last(), Some("17"));
    assert_eq!(cli(&server, &["HINCRBYFLOAT", "user:7", "balance", "10.5"]), "10.5");
    assert_eq!(cli(&server, &["HDEL", "user:8", "email"]), "1");
    server.kill();
    server.start_again();
    let profile = r#"{"name":"User7","email":"u7@example.com","visits":"17","balance":"10.5"}"#;
    assert_eq!(cli(&server, &["-3", "--json", "HGETALL", "user:7"]), profile);
    assert_eq!(cli(&server, &["--no-raw", "HMGET", "user:8", "name", "email"]), "1) \"User8\"\n2) (nil)");
    let scanned: BTreeSet<String> =
        cli(&server, &["--scan", "--pattern", "user:*"]).lines().map(str::to_owned).collect();
    assert_eq!(scanned, (0..1000).map(|id| format!("user:{id}")).collect());
}

const JOBS: u32 = 2000;
const WORKERS: u32 = 4;

/// Starts workers that wait for jobs and move them to the list of jobs in progress, this many each.
fn workers(server: &Server, jobs_each: u32) -> Vec<Child> {
    let each = jobs_each.to_string();
    let worker = |_| started(server, &["-r", &each, "BLMOVE", "jobs", "progress", "LEFT", "RIGHT", "30"]);
    (0..WORKERS).map(worker).collect()
}

/// What the workers took, once they have all had their share.
fn taken(workers: Vec<Child>) -> Vec<u32> {
    let mut taken = Vec::new();
    for mut worker in workers {
        assert!(wait(&mut worker).expect("it ends").success());
        let output = worker.wait_with_output().expect("it has ended");
        let printed = String::from_utf8(output.stdout).expect("text");
        taken.extend(printed.lines().filter(|line| !line.is_empty()).map(|line| line.parse::<u32>().expect("a job")));
    }
    taken.sort_unstable();
    taken
}

#[test]
fn a_queue_with_waiting_workers_survives_a_crash() {
    let mut server = start();
    let first = workers(&server, JOBS / 2 / WORKERS);
    let began = Instant::now();
    while !cli(&server, &["INFO", "clients"]).contains(&format!("blocked_clients:{WORKERS}")) {
        assert!(began.elapsed() < Duration::from_secs(30), "the workers wait");
        sleep(Duration::from_millis(10));
    }
    pipe(&server, (0..JOBS).map(|job| words(&format!("RPUSH jobs {job}"))));
    let all: Vec<u32> = (0..JOBS).collect();
    assert_eq!(taken(first), all[..all.len() / 2], "each job is given out once, the oldest first");
    server.kill();
    server.start_again();
    let list =
        |key: &str| lines(&server, &format!("LRANGE {key} 0 -1")).iter().map(|n| n.parse().expect("a job")).collect();
    let (progress, waiting): (Vec<u32>, Vec<u32>) = (list("progress"), list("jobs"));
    assert_eq!([progress, waiting].concat(), all, "nothing is lost and the order is kept");
    assert_eq!(taken(workers(&server, JOBS / 2 / WORKERS)), all[all.len() / 2..]);
    assert_eq!(cli(&server, &["LLEN", "jobs"]), "0");
    let progress: Vec<u32> = list("progress");
    assert_eq!(progress, all);
}

#[test]
fn tags_survive_a_crash() {
    let mut server = start();
    let tags = [("even", 2), ("three", 3), ("five", 5)];
    let of = |article: u32| tags.into_iter().filter(move |(_, every)| article.is_multiple_of(*every));
    let commands =
        (0..1000).flat_map(|article| of(article).map(move |(tag, _)| words(&format!("SADD tag:{tag} {article}"))));
    pipe(&server, commands.chain([words("SADD words first second third")]));
    server.kill();
    server.start_again();
    let numbers = |keep: fn(u32) -> bool| (0..1000).filter(|n| keep(*n)).collect::<Vec<u32>>();
    assert_eq!(sorted(&server, "SINTER tag:even tag:three tag:five"), numbers(|n| n % 30 == 0));
    assert_eq!(sorted(&server, "SDIFF tag:three tag:even"), numbers(|n| n % 3 == 0 && n % 2 == 1));
    let either = numbers(|n| n % 2 == 0 || n % 3 == 0);
    assert_eq!(cli(&server, &["SUNIONSTORE", "tag:any", "tag:even", "tag:three"]), either.len().to_string());
    assert_eq!(sorted(&server, "SMEMBERS tag:any"), either);
    assert_eq!(cli(&server, &["SINTERCARD", "2", "tag:even", "tag:five"]), "100");
    assert_eq!(cli(&server, &["SMISMEMBER", "tag:five", "5", "6"]), "1\n0");
    assert_eq!(cli(&server, &["OBJECT", "ENCODING", "tag:five"]), "intset");
    assert_eq!(cli(&server, &["SCARD", "words"]), "3");
}

#[test]
fn a_leaderboard_of_100_000_players_survives_a_crash() {
    const PLAYERS: u32 = 100_000;
    let before = |player: u32| (u64::from(player) * 7919) % 1_000_003;
    let score = |player: u32| before(player) + if player == 77 { 2_000_000 } else { 0 };
    let mut server = start();
    pipe(&server, (0..PLAYERS).map(|player| words(&format!("ZADD board {} player:{player}", before(player)))));
    assert_eq!(cli(&server, &["ZINCRBY", "board", "2000000", "player:77"]), score(77).to_string());
    server.kill();
    server.start_again();
    let mut ranked: Vec<(u64, String)> = (0..PLAYERS).map(|at| (score(at), format!("player:{at}"))).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    let top: Vec<String> = ranked[..100].iter().flat_map(|(score, name)| [name.clone(), score.to_string()]).collect();
    assert_eq!(lines(&server, "ZRANGE board 0 99 REV WITHSCORES"), top);
    for rank in [0, 1, 99, 50_000, ranked.len() - 1] {
        assert_eq!(cli(&server, &["ZREVRANK", "board", &ranked[rank].1]), rank.to_string());
    }
    let within: Vec<String> =
        ranked.iter().rev().filter(|(s, _)| (1000..=1100).contains(s)).map(|(_, name)| name.clone()).collect();
    assert_eq!(lines(&server, "ZRANGE board 1000 1100 BYSCORE"), within);
    assert_eq!(cli(&server, &["ZCARD", "board"]), PLAYERS.to_string());
    assert_eq!(cli(&server, &["ZPOPMAX", "board"]), format!("player:77\n{}", score(77)));
}

#[test]
fn a_stream_with_a_group_survives_a_crash() {
    let mut server = start();
    assert_eq!(cli(&server, &["XGROUP", "CREATE", "events", "readers", "0", "MKSTREAM"]), "OK");
    pipe(&server, (1..=500).map(|number| words(&format!("XADD events {number}-0 number {number}"))));
    let read = "XREADGROUP GROUP readers alice COUNT 100 STREAMS events >";
    // The stream's name, then an id, a field and a value for each entry.
    assert_eq!(lines(&server, read).len(), 1 + 100 * 3);
    let ids: Vec<String> = (1..=60).map(|number| format!("{number}-0")).collect();
    assert_eq!(
        cli(
            &server,
            &["XACK", "events", "readers"].into_iter().chain(ids.iter().map(|id| &id[..])).collect::<Vec<_>>()
        ),
        "60"
    );
    server.kill();
    server.start_again();
    let entries = |from: u32, to: u32| (from..=to).flat_map(|n| [format!("{n}-0"), "number".to_owned(), n.to_string()]);
    assert!(lines(&server, "XRANGE events - +").into_iter().eq(entries(1, 500)), "nothing is lost, in order");
    assert_eq!(lines(&server, "XPENDING events readers"), ["40", "61-0", "100-0", "alice", "40"]);
    let claimed = lines(&server, "XAUTOCLAIM events readers bob 0 0 COUNT 100");
    assert!(claimed[1..].iter().filter(|line| !line.is_empty()).cloned().eq(entries(61, 100)), "{claimed:?}");
    let rest = lines(&server, "XREADGROUP GROUP readers bob COUNT 1000 STREAMS events >");
    assert!(rest[1..].iter().cloned().eq(entries(101, 500)));
    let waiting =
        started(&server, &["XREADGROUP", "GROUP", "readers", "bob", "BLOCK", "30000", "STREAMS", "events", ">"]);
    while !cli(&server, &["INFO", "clients"]).contains("blocked_clients:1") {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(cli(&server, &["XADD", "events", "501-0", "number", "501"]), "501-0");
    let got = String::from_utf8(waiting.wait_with_output().expect("it ends").stdout).expect("text");
    assert!(got.contains("501-0"), "{got}");
}

// ---------------------------------------------------------------- its modes

#[test]
fn the_largest_keys_are_found() {
    let server = start();
    cli(&server, &["SET", "text", &"x".repeat(5000)]);
    pipe(&server, (0..300).map(|n| words(&format!("RPUSH list element:{n}"))));
    pipe(&server, (0..200).map(|n| words(&format!("SADD set member:{n}"))));
    pipe(&server, (0..100).map(|n| words(&format!("HSET hash field:{n} {n}"))));
    pipe(&server, (0..90).map(|n| words(&format!("ZADD zset {n} member:{n}"))));
    pipe(&server, (0..80).map(|n| words(&format!("XADD stream * n {n}"))));
    cli(&server, &["HSET", "small", "f", "v"]);
    let found = cli(&server, &["--bigkeys"]);
    for largest in [
        "Biggest string found '\"text\"' has 5000 bytes",
        "Biggest   list found '\"list\"' has 300 items",
        "Biggest    set found '\"set\"' has 200 members",
        "Biggest   hash found '\"hash\"' has 100 fields",
        "Biggest   zset found '\"zset\"' has 90 members",
        "Biggest stream found '\"stream\"' has 80 entries",
    ] {
        assert!(found.contains(largest), "{largest}\n{found}");
    }
    let found = cli(&server, &["--memkeys"]);
    assert!(found.contains("Biggest string found '\"text\"' has 5") && found.contains("'\"stream\"'"), "{found}");
    assert!(cli(&server, &["--memkeys-samples", "0"]).contains("2 hashs with"), "both hashes are counted");
}

#[test]
fn the_keys_used_most_are_found() {
    let server = start();
    cli(&server, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]);
    pipe(&server, (0..50).map(|n| words(&format!("HSET cold:{n} f v"))));
    cli(&server, &["SADD", "hot", "member"]);
    pipe(&server, (0..2000).map(|_| words("SISMEMBER hot member")));
    assert!(cli(&server, &["--hotkeys"]).contains("keyname: \"hot\""));
}

#[test]
fn a_script_of_commands_on_its_input_is_run() {
    let server = start();
    let mut child = started(&server, &[]);
    let script =
        "LPUSH queue a b c\nMULTI\nRPOP queue\nSADD done a\nEXEC\nHSET h \"a field\" 'a value'\nHGET h \"a field\"\n";
    child.stdin.take().expect("its input is a pipe").write_all(script.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let expected = "3\nOK\nQUEUED\nQUEUED\na\n1\n1\na value\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let mut child = started(&server, &["-x", "RPUSH", "queue"]);
    child.stdin.take().expect("its input is a pipe").write_all(b"from\0input").expect("it reads");
    assert_eq!(child.wait_with_output().expect("it ends").stdout, b"3\n");
    assert_eq!(cli(&server, &["--no-raw", "LINDEX", "queue", "-1"]), "\"from\\x00input\"");
}

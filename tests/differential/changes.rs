//! How many changes a command counts as, which is what save points go by: the step of
//! `rdb_changes_since_last_save`, for every command that writes.

use crate::compare::{Pair, Protocol};
use crate::support::client::Client;
use crate::support::reply::Reply;
use crate::support::server::Recipe;
use crate::support::words;
use std::collections::BTreeSet;
use std::time::Duration;

/// A line a case: commands that prepare, and behind the last bar the one whose changes are counted. `=> n` is
/// what the reference cannot tell: it has no such command, or later versions count differently.
const CASES: &str = r#"
    SET k v
    SET k v | SET k w NX
    SET k v | SET k w EX 100
    SET k v | SET k w PXAT 1
    SETNX k v
    SETEX k 100 v
    SET k v | BLESS SET k NO-EVICT => 1
    SET k v | BLESS SET k NO-EVICT | BLESS SET k NO-EVICT => 0
    SET k v | BLESS SET k NO-EVICT | BLESS CLEAR k NO-EVICT => 1
    SET k v | SET l v | FLUSHALL | UNFLUSH => 2
    SET k v | SET l v | FLUSHALL | SET k w | UNFLUSH => 0
    SET k v | SET l v | FLUSHALL | SET k w | UNFLUSH MERGE => 1
    SET k v | SET l v | FLUSHALL | SET k w | UNFLUSH REPLACE => 3
    FUNCTION FLUSH | FUNCTION LOAD {library}
    FUNCTION LOAD REPLACE {library} | FUNCTION LOAD REPLACE {library}
    FUNCTION LOAD REPLACE {library} | FUNCTION LOAD {library}
    FUNCTION LOAD REPLACE {library} | FUNCTION DELETE a
    FUNCTION LOAD REPLACE {library} | FUNCTION FLUSH
    FUNCTION FLUSH | FUNCTION RESTORE {libraries}
    PSETEX k 100000 v
    GETSET k v
    SET k v | GETDEL k
    GETDEL k
    SET k v | GETEX k EX 100
    SET k v | GETEX k PERSIST
    SET k v | GETEX k PXAT 1
    MSET a 1 b 2 c 3
    MSETNX a 1 b 2
    SET a 1 | MSETNX a 1 b 2
    APPEND k v
    SET k v | APPEND k ""
    SETRANGE k 3 v
    SETRANGE k 3 ""
    INCR n
    INCRBY n 3
    DECR n
    DECRBY n 5
    INCRBYFLOAT n 1.5
    SETBIT b 7 1
    SETBIT b 7 1 | SETBIT b 7 1
    SET a abc | BITOP DIFF d a b => 1
    SET k v | DELEX k IFEQ v => 1
    SET k v | DELEX k IFEQ w => 0
    SET k v | DELIFEQ k v => 1
    SET k v | SET k w IFEQ v => 1
    SET k v | SET k w IFEQ w => 0
    MSETEX 3 a 1 b 2 c 3 EX 100 => 3
    SET a 1 | MSETEX 2 a 1 b 2 NX => 0
    SET a 1 | MSETEX 2 a 1 b 2 PXAT 1 => 1
    INCREX n => 1
    INCREX n UBOUND 0 => 0
    SET n 1 | INCREX n PXAT 1 => 1
    SET k v | SELECT 1 | SET k w | SELECT 0 | MOVE k 1 REPLACE => 1
    BITFIELD b SET u8 0 1 INCRBY u8 8 1 GET u8 0
    BITFIELD b SET u8 0 0
    SET b abc | BITFIELD b SET u8 0 97
    SET b abc | BITFIELD b SET u8 0 97 SET u8 8 1 INCRBY u8 8 1
    BITFIELD b SET u8 0 1 | BITFIELD b OVERFLOW FAIL INCRBY u8 0 255 SET u8 0 7
    SET a abc | BITOP NOT d a
    SET d x | BITOP NOT d a
    PFADD h a b c
    PFADD h
    PFADD h a | PFADD h a
    PFADD h a | PFADD h a b c
    PFADD h a | PFADD i b | PFMERGE j h i
    PFMERGE j
    PFADD h a | PFCOUNT h
    PFADD h a | PFDEBUG TODENSE h
    RPUSH l a b c
    LPUSH l a b c
    RPUSHX l a
    RPUSH l a | RPUSHX l a b
    RPUSH l a | LPUSHX l a b
    RPUSH l a b c | LPOP l 2
    RPUSH l a b c | LPOP l 0
    RPUSH l a b c | RPOP l
    RPUSH l a b c | LSET l 0 a
    RPUSH l a b c | LINSERT l BEFORE b x
    RPUSH l a b c | LINSERT l BEFORE z x
    RPUSH l a a a b c | LREM l 0 a
    RPUSH l a b c | LREM l 0 z
    RPUSH l a b c | LTRIM l 1 1
    RPUSH l a b c | LTRIM l 0 -1
    RPUSH l a b c | LTRIM l 5 6
    RPUSH l a b c | LMOVE l m LEFT RIGHT
    RPUSH l a | RPUSH m b | LMOVE l m LEFT RIGHT
    RPUSH l a b | LMOVE l l LEFT RIGHT
    RPUSH l a | RPOPLPUSH l l
    LMOVE l m LEFT RIGHT
    RPUSH l a b c | LMOVEM l m LEFT RIGHT COUNT 2 BULK => 2
    RPUSH l a b c | LMOVEM l l LEFT LEFT COUNT 2 OBO => 2
    RPUSH l a b c | LMOVEM l m LEFT RIGHT EXACTLY 4 BULK => 0
    RPUSH l a b c | BLMOVEM l m LEFT RIGHT 0 EXACTLY 3 BULK => 3
    HIMPORT PREPARE f a b | HIMPORT SET h f 1 2 => 1
    RPUSH l a b | RPOPLPUSH l m
    RPUSH l a b | BLMOVE l m LEFT RIGHT 1
    RPUSH l a b | BRPOPLPUSH l m 1
    RPUSH l a b | BLPOP l 1
    RPUSH l a b | BRPOP k l 1
    RPUSH l a b c | LMPOP 2 k l LEFT COUNT 2
    RPUSH l a b c | BLMPOP 1 2 k l LEFT COUNT 20
    SADD s a b c
    SADD s a | SADD s a b
    SADD s a b c | SREM s a b z
    SADD s a b | SREM s a b
    SADD s a b c | SPOP s
    SADD s a b c | SPOP s 2
    SADD s a b c | SPOP s 3
    SADD s a b c | SPOP s 0
    SADD s a b c | SMOVE s t a
    SADD s a | SADD t z | SMOVE s t a
    SADD s a b | SADD t a | SMOVE s t a
    SADD s a | SMOVE s s a
    SADD s a | SMOVE s t z
    SADD s a b | SADD t b c | SINTERSTORE d s t
    SADD s a b | SADD t b c | SUNIONSTORE s s t
    SADD s a b | SADD t b c | SDIFFSTORE d s t
    SADD d a b | SDIFFSTORE d s t
    HSET h a 1 b 2 c 3
    HSET h a 1 | HSET h a 1
    HMSET h a 1 b 2
    HSETNX h a 1
    HSET h a 1 | HSETNX h a 1
    HSET h a 1 b 2 | HDEL h a b c
    HINCRBY h a 5
    HINCRBYFLOAT h a 1.5
    HSET h a 1 b 2 | HEXPIRE h 100 FIELDS 2 a z => 1
    HSET h a 1 b 2 | HPEXPIRE h 100000 FIELDS 2 a b => 2
    HSET h a 1 b 2 | HEXPIREAT h 1 FIELDS 2 a b => 2
    HSET h a 1 b 2 | HPEXPIREAT h 1 FIELDS 1 a => 1
    HSET h a 1 b 2 | HEXPIRE h 100 FIELDS 1 a | HPERSIST h FIELDS 2 a b => 1
    HSET h a 1 b 2 | HGETDEL h FIELDS 2 a b => 2
    HSET h a 1 b 2 | HGETEX h EX 100 FIELDS 2 a b => 2
    HSETEX h EX 100 FIELDS 2 a 1 b 2 => 2
    ZADD z 1 a 2 b
    ZADD z 1 a | ZADD z 1 a
    ZADD z 1 a | ZADD z 2 a 3 c
    ZADD z 1 a | ZADD z INCR 2 a
    ZINCRBY z 1 a
    ZADD z 1 a | ZINCRBY z 0 a
    ZADD z 1 a 2 b 3 c | ZREM z a b x
    ZADD z 1 a 2 b 3 c | ZREMRANGEBYSCORE z 1 2
    ZADD z 1 a 2 b 3 c | ZREMRANGEBYRANK z 0 -1
    ZADD z 1 a 1 b 1 c | ZREMRANGEBYLEX z - [b
    ZADD z 1 a 2 b 3 c | ZPOPMIN z
    ZADD z 1 a 2 b 3 c | ZPOPMAX z 20
    ZADD z 1 a 2 b 3 c | BZPOPMIN z 1
    ZADD z 1 a 2 b 3 c | BZPOPMAX y z 1
    ZADD z 1 a 2 b 3 c | ZMPOP 1 z MIN COUNT 2
    ZADD z 1 a 2 b 3 c | BZMPOP 1 1 z MIN COUNT 20
    ZADD z 1 a 2 b 3 c | ZUNIONSTORE d 1 z
    ZADD z 1 a 2 b 3 c | ZINTERSTORE d 1 z
    ZADD z 1 a 2 b 3 c | ZDIFFSTORE d 1 z
    ZADD d 1 a | ZDIFFSTORE d 1 z
    ZADD z 1 a 2 b 3 c | ZRANGESTORE d z 0 1
    ZADD d 1 a | ZRANGESTORE d z 0 1
    GEOADD g 1 1 a 2 2 b
    GEOADD g 1 1 a | GEOADD g 1 1 a
    GEOADD g 1 1 a 2 2 b | GEOSEARCHSTORE d g FROMLONLAT 1 1 BYRADIUS 1000 km
    GEOADD d 1 1 a 2 2 b | GEOSEARCHSTORE d g FROMLONLAT 1 1 BYRADIUS 1000 km
    GEOADD g 1 1 a 2 2 b | GEORADIUS g 1 1 1000 km STORE d
    GEOADD g 1 1 a 2 2 b | GEORADIUSBYMEMBER g a 1000 km STOREDIST d
    XADD x 1-1 a 1
    XADD x NOMKSTREAM 1-1 a 1
    XADD x 1-1 a 1 | XADD x MAXLEN 1 2-2 a 1
    XADD x IDMP p i * a 1 => 1
    XADD x IDMP p i * a 1 | XADD x IDMP p i * a 1 => 0
    {two} | XCFGSET x IDMP-DURATION 9 => 1
    {two} | XCFGSET x IDMP-DURATION 9 | XCFGSET x IDMP-DURATION 9 => 0
    {two} | XIDMPRECORD x p i 1-1 => 0
    XADD x 9999999999999-1 a 1 | XIDMPRECORD x p i 9999999999999-1 => 1
    XADD x 9999999999999-1 a 1 | XIDMPRECORD x p i 9999999999999-1 | XIDMPRECORD x p i 9999999999999-1 => 0
    {two} | XDEL x 1-1 2-1 3-3
    {read} | XDELEX x DELREF IDS 3 1-1 2-1 3-3 => 2
    {read} | XDEL x 1-1 | XDELEX x DELREF IDS 1 1-1 => 0
    {read} | XDELEX x ACKED IDS 2 1-1 2-1 => 0
    {read} | XACKDEL x g IDS 3 1-1 2-1 3-3 => 2
    {two} | XTRIM x MAXLEN 0
    {two} | XTRIM x MAXLEN 2
    {two} | XSETID x 5-5
    {two} | XGROUP CREATE x h 0
    XGROUP CREATE x g 0 MKSTREAM
    {two} | XGROUP SETID x g $
    {two} | XGROUP DESTROY x g
    {two} | XGROUP DESTROY x h
    {two} | XGROUP CREATECONSUMER x g c
    {read} | XGROUP CREATECONSUMER x g c
    {read} | XGROUP DELCONSUMER x g c
    {read} | XGROUP DELCONSUMER x g d
    {two} | XREADGROUP GROUP g c STREAMS x >
    {two} | XREADGROUP GROUP g c NOACK STREAMS x >
    {two} | XGROUP CREATECONSUMER x g c | XREADGROUP GROUP g c STREAMS x >
    {two} | XGROUP CREATE y g 0 MKSTREAM | XADD y 1-1 a 1 | XREADGROUP GROUP g c STREAMS x y > >
    {read} | XREADGROUP GROUP g c STREAMS x >
    {read} | XREADGROUP GROUP g d STREAMS x > => 1
    {read} | XREADGROUP GROUP g c STREAMS x 0
    {read} | XREADGROUP GROUP g c STREAMS x 5 => 0
    {read} | XACK x g 1-1 2-1 3-3
    {read} | XNACK x g FAIL IDS 3 1-1 2-1 3-3 => 2
    {two} | XNACK x g FAIL IDS 2 1-1 3-3 => 0
    {two} | XNACK x g FAIL IDS 2 1-1 3-3 FORCE => 1
    {read} | XCLAIM x g d 0 1-1 2-1
    {read} | XCLAIM x g c 0 1-1 2-1 JUSTID
    {read} | XCLAIM x g d 9999999 1-1 => 1
    {read} | XCLAIM x g c 9999999 1-1
    {read} | XCLAIM x g c 0 1-1 LASTID 7-7
    {read} | XCLAIM x g c 9999999 1-1 LASTID 7-7
    {read} | XCLAIM x g c 0 3-3 FORCE
    {read} | XDEL x 1-1 | XCLAIM x g c 0 1-1 2-1
    {read} | XAUTOCLAIM x g d 0 0
    {read} | XDEL x 1-1 | XAUTOCLAIM x g d 0 0
    {read} | XAUTOCLAIM x g d 9999999 0 => 1
    {read} | XAUTOCLAIM x g c 9999999 0
    SET a 1 | SET b 1 | DEL a b c
    SET a 1 | UNLINK a
    SET a 1 | RENAME a b
    SET a 1 | SET b 1 | RENAME a b
    SET a 1 | RENAME a a
    SET a 1 | RENAMENX a b
    SET a 1 | SET b 1 | RENAMENX a b
    SET a 1 | SET b 1 | COPY a b REPLACE
    SET a 1 | SET b 1 | COPY a b
    SET a 1 | MOVE a 1
    SET a 1 | EXPIRE a 100
    SET a 1 | EXPIRE a -1
    EXPIRE a 100
    SET a 1 | PEXPIRE a 100000
    SET a 1 | EXPIREAT a 1
    SET a 1 | PEXPIREAT a 1
    SET a 1 EX 100 | PERSIST a
    SET a 1 | PERSIST a
    SET a 1 | TOUCH a
    SET a 1 | FLUSHDB
    SET a 1 | SET b 1 | FLUSHALL
    FLUSHALL
    SET a 1 | SWAPDB 0 1
    RPUSH l 3 1 2 | SORT l STORE d
    RPUSH d 1 | SORT l STORE d
    SET k v | MIGRATE 127.0.0.1 1 k 0 100
    RESTORE r 0 {dump}
    RESTORE-ASKING r 0 {dump}
    RESTORE r 1 {dump} ABSTTL
    SET a 1 PX 1 | !sleep 20 | GET a
    SET a 1 PX 1 | !sleep 20 | DEL a
    SET a 1 PX 1 | !sleep 20 | SET a 2
    SET a 1 PX 1 | RPUSH l a | PEXPIRE l 1 | !sleep 500 | EXISTS a l
    PUBLISH channel message
"#;

/// What stands for the names in braces.
const NAMES: &[(&str, &str)] = &[
    ("{two}", "XADD x 1-1 a 1 | XADD x 2-1 a 1 | XGROUP CREATE x g 0"),
    ("{read}", "XADD x 1-1 a 1 | XADD x 2-1 a 1 | XGROUP CREATE x g 0 | XREADGROUP GROUP g c STREAMS x >"),
    ("{library}", "\"#!lua name=a\\nredis.register_function('f1',function() return 1 end)\""),
    (
        "{libraries}",
        concat!(
            "\"\\xf5@B#!lua name=a\\nredis.register_function",
            "('f1',function() return 1 end)\\n\\x00\\x85\\x90\\xeb\\xe3}\\x0c\\xdc\\xed\"",
        ),
    ),
    ("{dump}", "\"\\x00\\xc0\\x01\\x0a\\x00\\x26\\x78\\xe7\\xb6\\xd1\\x01\\x11\\xfc\""),
];

/// One line of [`CASES`].
struct Case {
    steps: Vec<String>,
    expected: Option<i64>,
}

fn cases() -> Vec<Case> {
    let case = |line: &str| {
        let (line, expected) = match line.split_once(" => ") {
            None => (line, None),
            Some((line, expected)) => (line, Some(expected.parse().expect("a number"))),
        };
        let line = NAMES.iter().fold(line.to_owned(), |line, (name, meaning)| line.replace(name, meaning));
        Case { steps: line.split(" | ").map(str::to_owned).collect(), expected }
    };
    CASES.lines().map(str::trim).filter(|line| !line.is_empty()).map(case).collect()
}

fn changes(client: &mut Client) -> i64 {
    let info = client.ok("INFO persistence").string();
    let field = info.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
    field.and_then(|number| number.trim().parse().ok()).expect("the field is there")
}

/// The changes that the last step of a case is counted as.
fn count(client: &mut Client, case: &Case) -> i64 {
    client.ok("FLUSHALL");
    let mut before = 0;
    for (at, step) in case.steps.iter().enumerate() {
        if at + 1 == case.steps.len() {
            before = changes(client);
        }
        match step.strip_prefix("!sleep ") {
            Some(ms) => std::thread::sleep(Duration::from_millis(ms.parse().expect("a number"))),
            None => drop(client.call(&words::split(step))),
        }
    }
    changes(client) - before
}

#[test]
fn commands_count_as_many_changes_as_in_redis() {
    // A snapshot would begin the count anew.
    let pair = Pair::start(Recipe::under_test().with("save", ""));
    let mut clients = pair.clients(Protocol::Resp2);
    let mut wrong = Vec::new();
    for case in cases() {
        let expected = case.expected.unwrap_or_else(|| count(&mut clients.reference, &case));
        let counted = count(&mut clients.tested, &case);
        if counted != expected {
            wrong.push(format!("{}: {counted}, should be {expected}", case.steps.join(" | ")));
        }
    }
    assert!(wrong.is_empty(), "\n    {}", wrong.join("\n    "));
}

#[test]
fn every_command_that_writes_is_counted() {
    fn writing(command: &Reply, found: &mut BTreeSet<String>) {
        let parts = command.elements();
        if parts[2].elements().iter().any(|flag| flag.string() == "write") {
            found.insert(parts[0].string());
        }
        parts.get(9).into_iter().flat_map(Reply::elements).for_each(|subcommand| writing(subcommand, found));
    }
    let server = Recipe::under_test().start();
    let mut names = BTreeSet::new();
    server.client().ok("COMMAND").elements().iter().for_each(|command| writing(command, &mut names));
    for case in cases() {
        let last = case.steps.last().map(|step| step.to_lowercase()).unwrap_or_default();
        let mut words = last.split(' ');
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        names.remove(first);
        names.remove(&format!("{first}|{second}"));
    }
    assert!(names.is_empty(), "no case for {names:?}");
}

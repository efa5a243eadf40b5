//! Keys for people: pages of names and of values, and what names keys, as JSON. Nothing here writes.
//!
//! | path under `/data/` | answer |
//! |---|---|
//! | `me` | for whom the request acts |
//! | `keys?db=&cursor=&match=&type=` | names, with what can be said of a key in a line |
//! | `key?db=&key=&cursor=` | one key, and a page of its value |
//! | `top?by=bytes`, `elements`, `calls`, `time` | the biggest and busiest keys |
//! | `slow`, `clients` | slow commands with their arguments, and connections |
//!
//! A request is a client ([`super::line`]) for as long as it lasts: the user whom `X-Ironkeep-User` names, or `Basic`
//! where there is no token, or whoever a new connection is. What that user may not see is not shown.
//!
//! Invariants:
//! - With `http-browse no` nobody is answered.
//! - A page is bounded: see the constants. What a key holds is read in parts, by a few requests at once.

use std::io;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode, header};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::house::{Caller, House};
use super::line::{Answer, Line, Trouble};
use super::reply::{JSON, Reply, pair_of, query, reply};
use super::shown;

/// Where the paths of this module begin.
pub(super) const UNDER: &str = "/data/";
/// The header that names a user: the Base64 of `user:password`.
const USER: &str = "x-ironkeep-user";

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// From how many names on a page of them is full,
const NAMES_FULL: usize = 100;
/// and how often the keyspace is scanned for it, with this COUNT.
const SCANS_MAX: usize = 400;
const SCAN_COUNT: &[u8] = b"500";
/// How many names are asked for at once what they are.
const NAMES_AT_ONCE: usize = 32;
/// The most bytes of a name, and of an element, that are shown.
const NAME_SHOWN: usize = 512;
const ELEMENT_SHOWN: usize = 2048;
/// The part of a string that is a page,
const STRING_BYTES: u64 = 16 * 1024;
/// and how many elements of a collection are one at most, if they are not larger than this on average in all.
const ELEMENTS_MAX: u64 = 100;
const ELEMENTS_BYTES: u64 = 1 << 20;
/// How many rows of other tables there are.
const ROWS_MAX: usize = 500;
/// How many big, busy and slow ones are asked for.
const TOP: &[u8] = b"30";

/// What of `CLIENT LIST` is shown.
const OF_CLIENTS: [&str; 11] = ["id", "addr", "name", "user", "db", "cmd", "age", "idle", "flags", "tot-mem", "omem"];

/// Answers a request that has shown the token.
pub(super) async fn answer(request: &Request<Incoming>, house: &House, caller: Caller) -> Reply {
    let Some(server) = house.shared.server() else {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "The data is being loaded.");
    };
    let settings = server.config.settings();
    if settings.http_browse != "read" {
        return failed(StatusCode::FORBIDDEN, "Keys are not shown here: 'http-browse' is 'no'.");
    }
    if settings.http_token.is_empty() && !is_named_here(request) {
        // Another site may have pointed its name at this machine, and its page reads along.
        return failed(StatusCode::FORBIDDEN, "Without 'http-token', ask for 'localhost' or an address.");
    }
    let user = match request.headers().get(USER) {
        Some(pair) => pair.to_str().ok().and_then(pair_of).map(Some).ok_or(()),
        None if settings.http_token.is_empty() => Ok(basic(request)),
        None => Ok(None),
    };
    let Ok(user) = user else {
        return failed(StatusCode::BAD_REQUEST, "The user is not written as it should be.");
    };
    match timeout(ANSWER_MAX, read(request, house, caller, user)).await {
        Ok(Ok(Some(json))) => reply(StatusCode::OK, JSON, json.to_string().into()),
        Ok(Ok(None)) => failed(StatusCode::NOT_FOUND, "There is no such page, or no such key."),
        Ok(Err(trouble)) => failed(status_of(&trouble), &trouble.to_string()),
        Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, "The answer takes too long."),
    }
}

fn failed(status: StatusCode, text: &str) -> Reply {
    reply(status, JSON, json!({"error": text}).to_string().into())
}

fn status_of(trouble: &Trouble) -> StatusCode {
    let text = match trouble {
        Trouble::Lost(_) => return StatusCode::SERVICE_UNAVAILABLE,
        Trouble::TooLarge => return StatusCode::PAYLOAD_TOO_LARGE,
        Trouble::Refused(text) => text,
    };
    // What passes is told apart from what is forbidden.
    let passes: [&[u8]; 3] = [b"BUSY ", b"LOADING ", b"ERR max number of clients reached"];
    match text {
        _ if passes.iter().any(|beginning| text.starts_with(beginning)) => StatusCode::SERVICE_UNAVAILABLE,
        _ if text.starts_with(b"ERR ") => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    }
}

/// Whether the host of a request is an address or `localhost`, which no other site can call itself.
fn is_named_here(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    is_own_name(host)
}

fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

/// The user of `Basic`, if there is one.
fn basic(request: &Request<Incoming>) -> Option<(Vec<u8>, Vec<u8>)> {
    let given = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, pair) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| pair_of(pair)).flatten()
}

/// A parameter, decoded; empty if it is missing.
fn parameter(request: &Request<Incoming>, name: &str) -> Result<Vec<u8>, Trouble> {
    let broken = || Trouble::Refused(format!("ERR the parameter '{name}' is broken").into_bytes());
    query(request, name).map_or(Ok(Vec::new()), |value| shown::decode(value).ok_or_else(broken))
}

async fn read(
    request: &Request<Incoming>,
    house: &House,
    caller: Caller,
    user: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<Option<Json>, Trouble> {
    // It is never closed.
    let _place = house.looking.acquire().await;
    let connect = house.shared.loaded.connect.get().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
    let mut line = Line::new(connect(caller)?)?;
    if let Some((name, password)) = &user {
        line.call(&[b"AUTH", name, password]).await?;
    }
    let db = parameter(request, "db")?;
    if !db.is_empty() && db != b"0" {
        line.call(&[b"SELECT", &db]).await?;
    }
    match request.uri().path().strip_prefix(UNDER).unwrap_or_default() {
        "me" => me(&mut line, user.map(|(name, _)| name)).await.map(Some),
        "keys" => keys(&mut line, request).await.map(Some),
        "key" => key(&mut line, request).await,
        "top" => top(&mut line, &parameter(request, "by")?).await.map(Some),
        "slow" => slow(&mut line).await.map(Some),
        "clients" => clients(&mut line).await.map(Some),
        _ => Ok(None),
    }
}

/// For whom a request acts; nobody if that needs a login.
async fn me(line: &mut Line, name: Option<Vec<u8>>) -> Result<Json, Trouble> {
    // Any command tells whether there must be a login first. The user need not be allowed to make it.
    let name = match (name, line.call(&[b"ACL", b"WHOAMI"]).await) {
        (Some(name), _) => Some(name),
        (None, Err(Trouble::Refused(text))) if text.starts_with(b"NOAUTH") => None,
        (None, Err(Trouble::Refused(text))) if text.starts_with(b"NOPERM") => Some(b"default".to_vec()),
        (None, other) => Some(other?.bytes().to_vec()),
    };
    Ok(json!({"user": name.map(|name| shown::text(&name, NAME_SHOWN))}))
}

/// A page of names.
async fn keys(line: &mut Line, request: &Request<Incoming>) -> Result<Json, Trouble> {
    let (pattern, kind) = (parameter(request, "match")?, parameter(request, "type")?);
    let mut cursor = parameter(request, "cursor")?;
    if cursor.is_empty() {
        cursor = b"0".to_vec();
    }
    let mut names: Vec<Vec<u8>> = Vec::new();
    for _ in 0..SCANS_MAX {
        let mut words: Vec<&[u8]> = vec![b"SCAN", &cursor, b"COUNT", SCAN_COUNT];
        for (word, value) in [(&b"MATCH"[..], &pattern), (b"TYPE", &kind)] {
            if !value.is_empty() {
                words.extend([word, value]);
            }
        }
        let page = line.call(&words).await?;
        let [next, found] = page.many() else { break };
        names.extend(found.many().iter().map(|name| name.bytes().to_vec()));
        cursor = next.bytes().to_vec();
        if cursor == b"0" || names.len() >= NAMES_FULL {
            break;
        }
    }
    let mut rows = Vec::new();
    for names in names.chunks(NAMES_AT_ONCE) {
        let of = |name| [vec![&b"TYPE"[..], name], vec![b"PTTL", name], vec![b"MEMORY", b"USAGE", name]];
        let calls: Vec<_> = names.iter().flat_map(|name| of(name)).collect();
        let answers = line.calls(&calls).await?;
        for (name, about) in names.iter().zip(answers.as_chunks::<3>().0) {
            let [kind, ttl, bytes] = about;
            let kind = String::from_utf8_lossy(kind.bytes());
            // One that is gone by now is none.
            if kind != "none" {
                let key = shown::name(name, NAME_SHOWN);
                rows.push(json!({"key": key, "type": kind, "ttl_ms": ttl.int(), "bytes": bytes.int()}));
            }
        }
    }
    let next = (cursor != b"0").then(|| String::from_utf8_lossy(&cursor).into_owned());
    Ok(json!({"keys": rows, "next": next}))
}

/// A part of a value: the names of columns, the rows, and where the next part begins.
struct Part {
    columns: &'static [&'static str],
    rows: Vec<Json>,
    next: Option<String>,
}

/// One key; `None` if there is none.
async fn key(line: &mut Line, request: &Request<Incoming>) -> Result<Option<Json>, Trouble> {
    let (name, cursor) = (parameter(request, "key")?, parameter(request, "cursor")?);
    let name = &name[..];
    let kind = line.call(&[b"TYPE", name]).await?;
    let length_of: &[u8] = match kind.bytes() {
        b"string" => b"STRLEN",
        b"list" => b"LLEN",
        b"set" => b"SCARD",
        b"zset" => b"ZCARD",
        b"hash" => b"HLEN",
        b"stream" => b"XLEN",
        _ => return Ok(None),
    };
    let about = [
        vec![&b"PTTL"[..], name],
        vec![b"MEMORY", b"USAGE", name],
        vec![b"OBJECT", b"ENCODING", name],
        vec![length_of, name],
    ];
    let about = line.calls(&about).await?;
    let (bytes, length) = (about[1].int(), about[3].int());
    let average = bytes.unwrap_or(0).max(0) as u64 / length.unwrap_or(0).max(1) as u64;
    let count = (ELEMENTS_BYTES / average.max(1)).clamp(1, ELEMENTS_MAX);
    let part = part(line, (name, kind.bytes()), &cursor, (count, length.unwrap_or(0).max(0) as u64)).await;
    // What the key is may be seen even if its value may not.
    let (part, error) = match part {
        Ok(part) => (part, None),
        Err(Trouble::Refused(text)) => {
            let error = String::from_utf8_lossy(&text).into_owned();
            (Part { columns: &[], rows: Vec::new(), next: None }, Some(error))
        }
        Err(other) => return Err(other),
    };
    Ok(Some(json!({
        "key": shown::name(name, ELEMENT_SHOWN),
        "type": String::from_utf8_lossy(kind.bytes()),
        "ttl_ms": about[0].int(),
        "bytes": bytes,
        "encoding": String::from_utf8_lossy(about[2].bytes()),
        "length": length,
        "columns": part.columns,
        "rows": part.rows,
        "next": part.next,
        "error": error,
    })))
}

/// A part of the value of a key of this type, from a cursor on: about `count` of its `length` elements.
async fn part(
    line: &mut Line,
    (name, kind): (&[u8], &[u8]),
    cursor: &[u8],
    (count, length): (u64, u64),
) -> Result<Part, Trouble> {
    let element = |answer: &Answer| shown::text(answer.bytes(), ELEMENT_SHOWN);
    let start = || match cursor {
        b"" => Ok(0),
        cursor => std::str::from_utf8(cursor).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(no_cursor),
    };
    let behind = |start: u64, seen: usize| {
        let end = start.saturating_add(seen as u64);
        (seen > 0 && end < length).then(|| end.to_string())
    };
    let range = |start: u64, count: u64| [start, start.saturating_add(count - 1)].map(|end| end.to_string());
    let counted = count.to_string();
    Ok(match kind {
        b"string" => {
            let start = start()?;
            let [from, to] = range(start, STRING_BYTES);
            let value = line.call(&[b"GETRANGE", name, from.as_bytes(), to.as_bytes()]).await?;
            let next = behind(start, value.bytes().len());
            let rows = vec![json!([start, shown::text(value.bytes(), STRING_BYTES as usize)])];
            Part { columns: &["offset", "value"], rows, next }
        }
        b"list" => {
            let start = start()?;
            let [from, to] = range(start, count);
            let found = line.call(&[b"LRANGE", name, from.as_bytes(), to.as_bytes()]).await?;
            let rows: Vec<Json> = (start..).zip(found.many()).map(|(at, value)| json!([at, element(value)])).collect();
            Part { columns: &["index", "value"], next: behind(start, rows.len()), rows }
        }
        b"zset" => {
            let start = start()?;
            let [from, to] = range(start, count);
            let found = line.call(&[b"ZRANGE", name, from.as_bytes(), to.as_bytes(), b"WITHSCORES"]).await?;
            let pairs = (start..).zip(found.many().as_chunks::<2>().0);
            let rows: Vec<Json> =
                pairs.map(|(at, [member, score])| json!([at, element(member), element(score)])).collect();
            Part { columns: &["rank", "member", "score"], next: behind(start, rows.len()), rows }
        }
        b"set" | b"hash" => {
            let (scan, cursor): (&[u8], &[u8]) =
                (if kind == b"set" { b"SSCAN" } else { b"HSCAN" }, if cursor.is_empty() { b"0" } else { cursor });
            let page = line.call(&[scan, name, cursor, b"COUNT", counted.as_bytes()]).await?;
            let [next, found] = page.many() else { return Err(no_cursor()) };
            let next = String::from_utf8_lossy(next.bytes()).into_owned();
            let next = (next != "0").then_some(next);
            if kind == b"set" {
                let rows = found.many().iter().map(|member| json!([element(member)])).collect();
                return Ok(Part { columns: &["member"], rows, next });
            }
            let pairs = found.many().as_chunks::<2>().0;
            let rows = pairs.iter().map(|[field, value]| json!([element(field), element(value)])).collect();
            Part { columns: &["field", "value"], rows, next }
        }
        _ => {
            let from = if cursor.is_empty() { b"-".to_vec() } else { [b"(", cursor].concat() };
            let found = line.call(&[b"XRANGE", name, &from, b"+", b"COUNT", counted.as_bytes()]).await?;
            let is_full = found.many().len() as u64 == count;
            let last = found.many().last().and_then(|entry| entry.many().first());
            let next = last.filter(|_| is_full).map(|id| String::from_utf8_lossy(id.bytes()).into_owned());
            let pairs = |fields: &Answer| -> Json {
                let pairs = fields.many().as_chunks::<2>().0;
                pairs.iter().map(|[field, value]| json!([element(field), element(value)])).collect()
            };
            let entries = found.many().iter().filter_map(|entry| entry.many().first_chunk::<2>());
            let rows = entries.map(|[id, fields]| json!([element(id), pairs(fields)])).collect();
            Part { columns: &["id", "fields"], rows, next }
        }
    })
}

fn no_cursor() -> Trouble {
    Trouble::Refused(b"ERR invalid cursor".to_vec())
}

/// The biggest or busiest keys.
async fn top(line: &mut Line, by: &[u8]) -> Result<Json, Trouble> {
    let by = if by.is_empty() { b"bytes" } else { by };
    let found = line.call(&[b"BIGKEYS", by, b"COUNT", TOP]).await?;
    let row = |of: &Answer| {
        json!({
            "key": shown::name(of.field("key").bytes(), NAME_SHOWN),
            "db": of.field("db").int(),
            "type": String::from_utf8_lossy(of.field("type").bytes()),
            "bytes": of.field("bytes").int(),
            "elements": of.field("elements").int(),
            "calls": of.field("calls").int(),
            "usec": of.field("usec").int(),
            "error": of.field("error").int(),
        })
    };
    Ok(json!({"keys": found.many().iter().map(row).collect::<Vec<_>>()}))
}

/// The newest slow commands.
async fn slow(line: &mut Line) -> Result<Json, Trouble> {
    let calls = [&b"GET"[..], b"PARTS"].map(|word| vec![&b"SLOWLOG"[..], word, TOP]);
    let mut answers = line.calls(&calls).await?;
    let (parts, found) = (answers.pop().unwrap_or(Answer::Nil), answers.pop().unwrap_or(Answer::Nil).fine()?);
    let parts_of = |id: Option<i64>| {
        let known = parts.many().iter().find(|of| of.many().first().and_then(Answer::int) == id)?;
        let [_, wait, run, log, send, ..] = known.many() else { return None };
        Some(json!({"wait": wait.int(), "run": run.int(), "log": log.int(), "send": send.int()}))
    };
    let row = |of: &Answer| {
        let [id, at, us, words, peer, name, ..] = of.many() else { return Json::Null };
        let words: Vec<Json> = words.many().iter().map(|word| shown::text(word.bytes(), NAME_SHOWN)).collect();
        json!({
            "id": id.int(),
            "time_s": at.int(),
            "us": us.int(),
            "words": words,
            "parts_us": parts_of(id.int()),
            "peer": shown::text(peer.bytes(), NAME_SHOWN),
            "name": shown::text(name.bytes(), NAME_SHOWN),
        })
    };
    Ok(json!({"commands": found.many().iter().map(row).collect::<Vec<_>>()}))
}

/// The connections.
async fn clients(line: &mut Line) -> Result<Json, Trouble> {
    let found = line.call(&[b"CLIENT", b"LIST"]).await?;
    let lines = found.bytes().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let field = |line: &[u8], name: &str| {
        let mut fields = line.split(|byte| *byte == b' ');
        let value = fields.find_map(|field| field.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        shown::text(value.unwrap_or_default(), NAME_SHOWN)
    };
    let all = lines.clone().count();
    let rows: Vec<Json> =
        lines.take(ROWS_MAX).map(|line| Json::Array(OF_CLIENTS.map(|name| field(line, name)).to_vec())).collect();
    Ok(json!({"columns": OF_CLIENTS, "rows": rows, "count": all}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_not_forbidden() {
        for (text, status) in [
            ("BUSY Redis is busy running a script.", 503),
            ("ERR max number of clients reached", 503),
            ("ERR syntax error", 400),
            ("NOPERM User x", 403),
            ("NOAUTH Authentication required.", 403),
            ("DENIED Redis is running in protected mode", 403),
        ] {
            assert_eq!(status_of(&Trouble::Refused(text.as_bytes().to_vec())).as_u16(), status, "{text}");
        }
    }

    #[test]
    fn only_an_address_or_localhost_is_this_machine() {
        for own in ["localhost", "LOCALHOST:9121", "127.0.0.1", "127.0.0.1:9121", "[::1]:9121", "[::1]", "10.0.0.1:1"] {
            assert!(is_own_name(own), "{own}");
        }
        for other in
            ["", "evil.example", "evil.example:9121", "localhost.evil.example", "127.0.0.1.evil.example", "[x]"]
        {
            assert!(!is_own_name(other), "{other}");
        }
    }
}

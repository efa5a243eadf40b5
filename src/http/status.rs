//! The state of the server as JSON: the sections of INFO, with numbers as numbers, and what INFO does not show.
//!
//! Whoever watches the server need not be allowed to see data. So nothing here names a key, or what a client has sent
//! beside the names of commands.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Map, Number, Value as Json, json};

use crate::base::histogram::Distribution;
use crate::core::Server;
use crate::core::commandlog::Logged;
use crate::core::figures::{Figure, Value};
use crate::core::service::Part;
use crate::observe::types::{self, OfType};
use crate::observe::{info, service};

/// How old the figures of the types may be, in ms: they look at keys.
const TYPES_AGE_MAX_MS: i64 = 10_000;
/// How many slow commands are shown.
const SLOW_MAX: usize = 20;

/// The memory of each type as it was last looked at, and when that was.
pub(super) type TypesSeen = Rc<RefCell<Option<(i64, Vec<OfType>)>>>;

/// The text of the page, at a time in Unix ms.
pub(super) fn report(server: &Server, types: &TypesSeen, now: i64) -> Vec<u8> {
    let mut sections = Map::new();
    for (name, figures) in info::sections(server, now) {
        let mut section = Map::new();
        figures.into_iter().for_each(|figure| add(&mut section, figure));
        sections.insert(name.to_owned(), Json::Object(section));
    }
    let whole = json!({
        "name": "ironkeep",
        "version": env!("CARGO_PKG_VERSION"),
        "time_ms": now,
        "role": "master",
        "is_ready": why_not_ready(server).is_none(),
        "log": log(server),
        "memory_by_type": by_type(server, types, now),
        "service_us": service_times(server),
        "slow_commands": slow(server),
        "browse": server.config.settings().http_browse,
        "sections": sections,
    });
    let mut text = whole.to_string().into_bytes();
    text.push(b'\n');
    text
}

/// Why clients should not be sent here, if they should not.
pub(super) fn why_not_ready(server: &Server) -> Option<&'static str> {
    let log = server.store.log();
    match () {
        () if log.is_poisoned() => Some("the log has failed"),
        () if log.lacks_room() => Some("the disk is full"),
        () if server.keyspace.damaged_shards() > 0 => Some("a part of the data is damaged"),
        () => None,
    }
}

/// How far the log is: the last block that the system has, and the last one that is on the disk.
fn log(server: &Server) -> Json {
    let log = server.store.log();
    json!({
        "is_active": log.is_active(),
        "written_block": log.written(),
        "durable_block": log.synced(),
        "failure": log.poisoned(),
    })
}

/// What the keys of each type take in each database.
fn by_type(server: &Server, seen: &TypesSeen, now: i64) -> Json {
    let mut seen = seen.borrow_mut();
    let (_, types) = match seen.take() {
        Some((at, types)) if (0..TYPES_AGE_MAX_MS).contains(&(now - at)) => seen.insert((at, types)),
        _ => seen.insert((now, types::by_type(server, now))),
    };
    let show = |of: &OfType| json!({"db": of.db, "type": of.name, "keys": of.keys, "bytes": of.bytes, "is_estimate": of.is_estimate});
    types.iter().map(show).collect()
}

/// The service times of all commands together, since the start or the last reset.
fn service_times(server: &Server) -> Json {
    let show = |(part, of): (Part, Distribution)| {
        let us = |ns: u64| ns as f64 / 1e3;
        let percentiles =
            service::PERCENTILES.map(|(name, percent)| (name.to_owned(), json!(us(of.percentile(percent)))));
        let more = [("count", json!(of.count)), ("max", json!(us(of.largest)))];
        let more = more.map(|(name, value)| (name.to_owned(), value));
        (part.name().to_owned(), Json::Object(percentiles.into_iter().chain(more).collect()))
    };
    Json::Object(Part::ALL.into_iter().zip(service::of_all(server)).map(show).collect())
}

/// The newest slow commands: by name, without their arguments.
fn slow(server: &Server) -> Json {
    let entries = server.commandlogs.slow.newest(SLOW_MAX).into_iter();
    let show = |entry: Logged| {
        let name = entry.args.first().map(|name| String::from_utf8_lossy(name).to_lowercase());
        let us = |ns: u64| ns / 1000;
        let parts = entry
            .parts
            .map(|p| json!({"wait": us(p.wait_ns), "run": us(p.run_ns), "log": us(p.log_ns), "send": us(p.send_ns)}));
        json!({"id": entry.id, "time_s": entry.at, "us": entry.figure, "command": name, "parts_us": parts})
    };
    entries.map(show).collect()
}

fn add(section: &mut Map<String, Json>, figure: Figure) {
    let name = match &figure.value {
        Value::Row { label, .. } => format!("{}{label}", figure.name),
        _ => figure.name.into_owned(),
    };
    section.insert(name, of(figure.value));
}

fn of(value: Value) -> Json {
    let float = |number: f64| Number::from_f64(number).map_or(Json::Null, Json::Number);
    match value {
        Value::Counter(number) | Value::Bytes(number) => json!(number),
        Value::Gauge(number) => json!(number),
        Value::Ratio(number) | Value::Percent(number) | Value::Micros(number) => float(number),
        Value::CpuTime(us) => float(us as f64 / 1e6),
        Value::Text(text) => match text.parse::<i64>() {
            Ok(number) => json!(number),
            Err(_) => json!(text),
        },
        Value::Columns(columns) | Value::Row { columns, .. } => {
            Json::Object(columns.into_iter().map(|(name, value)| (name.into_owned(), of(value))).collect())
        }
    }
}

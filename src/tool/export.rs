//! `ironkeep export DIR|HOST:PORT --format rdb|aof --to FILE`
//!
//! A directory without a server is exported shard by shard if it has no log behind its snapshot; otherwise all keys are
//! loaded first. A server is asked key by key, so that what is exported is not of one instant; of each key that SCAN
//! has named, sixteen bytes are remembered, because an RDB file must not hold one twice.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::hash::Hasher;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::arguments::Arguments;
use super::json::Object;
use super::link::{CA_CERT, CERT, KEY, TLS};
use super::remote::{Remote, Value, is_address};
use super::{Ended, SOUND};
use crate::base::clock;
use crate::base::config::{Config, Source};
use crate::base::hash::HashSeed;
use crate::base::progress::{Display, Progress};
use crate::command::keys::dump::payload;
use crate::durable::loading;
use crate::durable::pace::Pace;
use crate::keyspace::access::{AccessClock, Lfu};
use crate::keyspace::{Keyspace, SHARDS};
use crate::persist::foreign::{AofFileWriter, FileVersion, KeyFacts, RdbFileWriter};
use crate::persist::storage::{RealStorage, Storage};
use crate::persist::{Recovery, examine};

/// How many keys a server is asked for at a time.
const PAGE: &[u8] = b"64";

pub(super) fn run(args: Vec<OsString>) -> Ended {
    let with_value = ["--format", "--to", "--rdb-version", "--user", CA_CERT, CERT, KEY];
    let args = Arguments::parse(args, &with_value, &["--lfu", "--json", TLS])?;
    let from = args.dir().map_err(|_| "what to export is missing: a data directory, or HOST:PORT")?;
    let mut out = Out::create(&args)?;
    match from.to_str().filter(|word| is_address(word)) {
        Some(address) => from_server(address, &args, &mut out.writer)?,
        None => from_directory(from, &args, &mut out.writer)?,
    }
    let (keys, libraries, bytes, version) = out.finish()?;
    let text = match args.has("--json") {
        true => {
            let fields = Object::new().number("keys", keys).number("libraries", libraries).number("bytes", bytes);
            fields.maybe("rdb_version", version.map(u64::from)).end() + "\n"
        }
        false => {
            let version = version.map_or(String::new(), |version| format!(", RDB version {version}"));
            format!("{keys} keys and {libraries} libraries of functions, {bytes} bytes{version}\n")
        }
    };
    Ok((text, SOUND))
}

/// Writes either kind of file.
enum Writer {
    Rdb(RdbFileWriter),
    Aof(AofFileWriter<BufWriter<File>>),
}

impl Writer {
    fn library(&mut self, text: &[u8]) -> Result<(), String> {
        let written = match self {
            Writer::Rdb(writer) => writer.library(text),
            Writer::Aof(writer) => writer.library(text),
        };
        written.map_err(|error| error.to_string())
    }

    fn key(&mut self, db: u32, name: &[u8], facts: KeyFacts, payload: &[u8]) -> Result<(), String> {
        let written = match self {
            Writer::Rdb(writer) => writer.key(db, name, facts, payload),
            Writer::Aof(writer) => writer.key(db, name, facts.expiry, payload),
        };
        written.map_err(|error| error.to_string())
    }
}

/// The file that is being made, under another name until it is whole.
struct Out {
    writer: Counting,
    temporary: PathBuf,
    path: PathBuf,
}

/// A writer, and how many libraries it was given.
struct Counting {
    writer: Writer,
    libraries: u64,
}

impl Counting {
    fn library(&mut self, text: &[u8]) -> Result<(), String> {
        self.libraries += 1;
        self.writer.library(text)
    }
}

impl Out {
    fn create(args: &Arguments) -> Result<Out, String> {
        let path = PathBuf::from(args.value("--to")?);
        if path.exists() {
            return Err(format!("{} is there already", path.display()));
        }
        let version = match args.value("--rdb-version") {
            Err(_) => None,
            Ok(number) => {
                let version = number.to_str().and_then(|text| text.parse().ok()).and_then(FileVersion::new);
                Some(version.ok_or("--rdb-version is 6 to 15, 80 or 81")?)
            }
        };
        let mut temporary = path.clone().into_os_string();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let failed = |error: std::io::Error| format!("{}: {error}", temporary.display());
        let format = args.value("--format")?.to_str().unwrap_or_default();
        if !["rdb", "aof"].contains(&format) {
            return Err("--format is rdb or aof".into());
        }
        let file = File::options().read(true).write(true).create_new(true).open(&temporary).map_err(failed)?;
        let writer = match format {
            "rdb" => {
                let time = (clock::now_ms() / 1000).to_string();
                let about = [
                    ("redis-ver", "7.0.0"),
                    ("redis-bits", "64"),
                    ("ctime", &time),
                    ("ironkeep-ver", env!("CARGO_PKG_VERSION")),
                ];
                Writer::Rdb(RdbFileWriter::new(file, version, &about).map_err(failed)?)
            }
            _ => Writer::Aof(AofFileWriter::new(BufWriter::with_capacity(256 << 10, file))),
        };
        Ok(Out { writer: Counting { writer, libraries: 0 }, temporary, path })
    }

    /// Makes the file durable under its name. Returns the numbers of keys, libraries and bytes, and the version.
    fn finish(mut self) -> Result<(u64, u64, u64, Option<u16>), String> {
        let failed = |error: std::io::Error| error.to_string();
        let spare = Writer::Aof(AofFileWriter::new(BufWriter::new(File::open(&self.temporary).map_err(failed)?)));
        let (keys, file, version) = match std::mem::replace(&mut self.writer.writer, spare) {
            Writer::Rdb(writer) => {
                let keys = writer.keys();
                let (file, version) = writer.finish().map_err(failed)?;
                (keys, file, Some(version.number()))
            }
            Writer::Aof(writer) => {
                let keys = writer.keys();
                let file = writer.finish().and_then(|out| out.into_inner().map_err(|error| error.into_error()));
                (keys, file.map_err(failed)?, None)
            }
        };
        file.sync_all().map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        std::fs::rename(&self.temporary, &self.path).map_err(failed)?;
        let dir = std::path::absolute(&self.path).map_err(failed)?;
        let dir = dir.parent().unwrap_or(Path::new("/"));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok((keys, self.writer.libraries, bytes, version))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // It is gone if all went well.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn from_directory(dir: &Path, args: &Arguments, out: &mut Counting) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let storage = RealStorage::existing(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let storage: Arc<dyn Storage> = Arc::new(storage);
    // Held to the end, so that no server changes the files meanwhile.
    let _lock = storage.lock().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            format!("{}: a server has it open: export from its address, or from a backup", dir.display())
        }
        _ => error.to_string(),
    })?;
    let recovery = examine::recovery(&storage, args.encryption()?.as_ref()).map_err(|error| text(&error))?;
    if recovery.shards() != SHARDS as u32 {
        return Err(format!("it is laid out in {} shards, not {SHARDS}", recovery.shards()));
    }
    let config = Config::load(&Source::Defaults, b"").map_err(|error| text(&error))?;
    let keyspace = Keyspace::new(i32::MAX as u32, HashSeed(recovery.hash_seed()));
    let limits = crate::exec::limits_of(&config.settings(), keyspace.seed());
    let lfu = args.has("--lfu").then_some(Lfu { log_factor: 10, decay_minutes: 1 });
    let access = AccessClock { seconds: (clock::now_ms() / 1000) as u64, lfu, lrm: false };
    let is_whole = recovery.summary().blocks > 0;
    if is_whole {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        loading::load(&keyspace, &recovery, limits, cores, Pace::default(), (&Progress::default(), Display::of_tool()))
            .map_err(|error| text(&error))?;
    }
    libraries(&recovery, &keyspace, is_whole, out)?;
    // By database, for an RDB file says SELECT once for each.
    let mut databases: Vec<u32> = Vec::new();
    for shard in 0..SHARDS as u16 {
        if !is_whole {
            loading::load_shard(&keyspace, &recovery, &limits, shard, Pace::default()).map_err(|error| text(&error))?;
            export_shard(&keyspace, shard, None, access, out)?;
            let mut locked = keyspace.lock(shard);
            let filled: Vec<u32> = locked.databases().map(|(db, _)| db).collect();
            filled.into_iter().for_each(|db| drop(locked.replace_directory(db, None)));
        } else {
            databases.extend(keyspace.lock(shard).databases().map(|(db, _)| db));
            databases.sort_unstable();
            databases.dedup();
        }
    }
    for db in databases {
        for shard in 0..SHARDS as u16 {
            export_shard(&keyspace, shard, Some(db), access, out)?;
        }
    }
    Ok(())
}

fn libraries(recovery: &Recovery, keyspace: &Keyspace, is_whole: bool, out: &mut Counting) -> Result<(), String> {
    match is_whole {
        true => keyspace.libraries().iter().try_for_each(|library| out.library(&library.code)),
        false => {
            let libraries = recovery.libraries().map_err(|error| error.to_string())?;
            libraries.iter().try_for_each(|(_, code)| out.library(code))
        }
    }
}

/// Exports the keys of a shard, in all databases or in one.
fn export_shard(
    keyspace: &Keyspace,
    shard: u16,
    only: Option<u32>,
    access: AccessClock,
    out: &mut Counting,
) -> Result<(), String> {
    let now = clock::now_ms();
    let locked = keyspace.lock(shard);
    for (db, directory) in locked.databases().filter(|(db, _)| only.is_none_or(|only| only == *db)) {
        for entry in directory.iter() {
            let expiry = entry.expiry().and_then(|at| i64::try_from(at).ok());
            if expiry.is_some_and(|at| at <= now) {
                continue;
            }
            let field = entry.access();
            let facts = match access.lfu {
                Some(_) => KeyFacts { expiry, idle_seconds: None, frequency: Some(access.frequency(field) as u8) },
                None => KeyFacts { expiry, idle_seconds: Some(access.idle_seconds(field)), frequency: None },
            };
            out.writer.key(db, entry.key(), facts, &payload(entry.value()))?;
        }
    }
    Ok(())
}

fn from_server(address: &str, args: &Arguments, out: &mut Counting) -> Result<(), String> {
    let mut remote = Remote::connect(address, args)?;
    // So that looking at a key does not count as using it. Servers before 7.2 do not know it.
    remote.ask(&[b"CLIENT", b"NO-TOUCH", b"ON"])?;
    server_libraries(&mut remote, out)?;
    let policy = remote.ask(&[b"CONFIG", b"GET", b"maxmemory-policy"])?;
    let is_lfu = match policy {
        Value::Items(pair) => {
            pair.get(1).is_some_and(|value| matches!(value, Value::Text(policy) if policy.ends_with(b"lfu")))
        }
        // It may be forbidden. Then the key's last use is asked for, which a server under LFU refuses.
        _ => args.has("--lfu"),
    };
    let keyspace = remote.ask(&[b"INFO", b"keyspace"])?.bytes()?;
    let keyspace = String::from_utf8_lossy(&keyspace).into_owned();
    let databases = keyspace.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':')?.0.parse::<u32>().ok());
    for db in databases {
        remote.ask(&[b"SELECT", db.to_string().as_bytes()])?.bytes()?;
        let (mut cursor, mut seen) = (b"0".to_vec(), HashSet::new());
        loop {
            let page = remote.ask(&[b"SCAN", &cursor, b"COUNT", PAGE])?.items()?;
            let [next, keys] = <[Value; 2]>::try_from(page).map_err(|_| "SCAN has not replied with two things")?;
            let names: Result<Vec<_>, _> = keys.items()?.into_iter().map(Value::bytes).collect();
            let mut names = names?;
            names.retain(|name| seen.insert(fingerprint(name)));
            page_of_server(&mut remote, db, &names, is_lfu, out)?;
            cursor = next.bytes()?;
            if cursor == b"0" {
                break;
            }
        }
    }
    Ok(())
}

fn fingerprint(name: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(name);
    hasher.finish128().as_u128()
}

/// Asks for some keys and takes them one after the other.
fn page_of_server(
    remote: &mut Remote,
    db: u32,
    names: &[Vec<u8>],
    is_lfu: bool,
    out: &mut Counting,
) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    for name in names {
        remote.send(&[b"OBJECT", if is_lfu { b"FREQ" } else { b"IDLETIME" }, name]).map_err(text)?;
        remote.send(&[b"PTTL", name]).map_err(text)?;
        remote.send(&[b"DUMP", name]).map_err(text)?;
    }
    remote.flush().map_err(text)?;
    for name in names {
        let used = remote.reply().map_err(text)?;
        let left = remote.reply().map_err(text)?;
        let now = clock::now_ms();
        let expiry = match left {
            Value::Number(left) if left >= 0 => Some(now.saturating_add(left)),
            Value::Error(error) => return Err(format!("key '{}' of database {db}: {error}", name.escape_ascii())),
            _ => None,
        };
        let payload = match remote.reply().map_err(text)? {
            // It has gone meanwhile.
            Value::Nothing => continue,
            reply => {
                reply.bytes().map_err(|error| format!("key '{}' of database {db}: {error}", name.escape_ascii()))?
            }
        };
        let facts = match (used, is_lfu) {
            (Value::Number(count), true) => {
                KeyFacts { expiry, idle_seconds: None, frequency: Some(count.clamp(0, 255) as u8) }
            }
            (Value::Number(seconds), false) => {
                KeyFacts { expiry, idle_seconds: u64::try_from(seconds).ok(), frequency: None }
            }
            _ => KeyFacts { expiry, ..KeyFacts::default() },
        };
        out.writer.key(db, name, facts, &payload)?;
    }
    Ok(())
}

fn server_libraries(remote: &mut Remote, out: &mut Counting) -> Result<(), String> {
    let libraries = match remote.ask(&[b"FUNCTION", b"LIST", b"WITHCODE"])? {
        Value::Items(libraries) => libraries,
        // Servers before 7.0 have none.
        Value::Error(error) if error.to_ascii_lowercase().contains("unknown command") => return Ok(()),
        other => return other.items().map(drop),
    };
    for library in libraries {
        let mut fields = library.items()?.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            if name.bytes()? == b"library_code" {
                out.library(&value.bytes()?)?;
            }
        }
    }
    Ok(())
}

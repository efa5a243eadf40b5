//! `ironkeep import FILE|DIR --into DIR|HOST:PORT`

use std::path::Path;

use super::arguments::Arguments;
use super::json::Object;
use super::link::{CA_CERT, CERT, KEY, TLS};
use super::remote::{Remote, is_address};
use super::{DAMAGED, Ended, SOUND};
use crate::base::config::{Config, RdbVersionCheck, Source};
use crate::base::logging::{self, Level};
use crate::base::progress::Display;
use crate::durable::import::{Rules, Tally, Target, read};
use crate::persist::PersistError;
use crate::persist::foreign::{AofCommand, FileVersion, Foreign, RdbKey, find};
use crate::server::import::{Import, import};

pub(super) fn run(args: Vec<std::ffi::OsString>) -> Ended {
    let args = Arguments::parse(
        args,
        &["--into", "--databases", "--user", CA_CERT, CERT, KEY],
        &["--merge", "--skip-modules", "--any-version", "--strict", "--json", TLS],
    )?;
    let from = args.dir().map_err(|_| "what to import is missing: a file or a directory")?;
    let foreign = find::at(from).map_err(|error| error.to_string())?;
    let versions = if args.has("--any-version") { RdbVersionCheck::Relaxed } else { RdbVersionCheck::Strict };
    let rules = Rules { skips_modules: args.has("--skip-modules"), versions, takes_torn: !args.has("--strict") };
    let into = args.value("--into")?;
    let tally = match into.to_str().filter(|word| is_address(word)) {
        Some(address) => into_server(address, &args, &foreign, rules)?,
        None => into_directory(Path::new(into), &args, &foreign, rules)?,
    };
    let code = if tally.skipped.is_empty() && tally.torn.is_none() { SOUND } else { DAMAGED };
    let text = if args.has("--json") { as_json(&foreign, &tally) } else { as_text(&foreign, &tally) };
    Ok((text, code))
}

fn into_directory(dir: &Path, args: &Arguments, foreign: &Foreign, rules: Rules) -> Result<Tally, String> {
    let mut text = args.key_lines();
    let databases = match args.value("--databases") {
        Ok(number) => number.to_str().and_then(|text| text.parse::<u32>().ok()).ok_or("--databases needs a number")?,
        Err(_) => 16,
    };
    text.extend_from_slice(format!("databases {databases}\n").as_bytes());
    let config = Config::load(&Source::Defaults, &text).map_err(|error| error.to_string())?;
    // Standard output is for the result.
    logging::set_level(Level::Nothing);
    let order = Import { foreign, dir, rules, merges: args.has("--merge"), display: Display::of_tool() };
    import(&order, &config).map_err(|error| error.to_string())
}

fn into_server(address: &str, args: &Arguments, foreign: &Foreign, rules: Rules) -> Result<Tally, String> {
    let mut remote = Remote::connect(address, args)?;
    let (version, times_are_absolute) = version_of(&mut remote)?;
    let mut target = Server { remote, version, times_are_absolute, db: 0, replaces: args.has("--merge") };
    let tally = read(foreign, rules, &mut target, Display::of_tool());
    let tally = tally.map_err(|error| error.to_string())?;
    target.remote.settle()?;
    Ok(tally)
}

/// The version of payloads that a server takes, and whether RESTORE knows ABSTTL and the rest.
pub(super) fn version_of(remote: &mut Remote) -> Result<(FileVersion, bool), String> {
    let info = remote.ask(&[b"INFO", b"server"])?.bytes()?;
    let version = FileVersion::of_info(&String::from_utf8_lossy(&info));
    let version = version.ok_or("the server does not say which version it is (INFO)")?;
    Ok((version, version.number() >= 9))
}

/// A server elsewhere.
struct Server {
    remote: Remote,
    version: FileVersion,
    times_are_absolute: bool,
    db: u32,
    replaces: bool,
}

impl Server {
    fn restore(&mut self, key: &RdbKey<'_>) -> Result<(), String> {
        let payload = key.payload(self.version)?;
        if self.db != key.db {
            let db = key.db.to_string();
            self.remote.post(&[b"SELECT", db.as_bytes()], &format!("SELECT {db}"))?;
            self.db = key.db;
        }
        let now = crate::base::clock::now_ms();
        let expiry = match key.expiry {
            None => 0,
            Some(at) if self.times_are_absolute => at.max(1),
            Some(at) => (at - now).max(1),
        };
        let (expiry, idle) = (expiry.to_string(), key.idle_seconds.map(|seconds| seconds.to_string()));
        let frequency = key.frequency.map(|frequency| frequency.to_string());
        let mut words: Vec<&[u8]> = vec![b"RESTORE", key.name, expiry.as_bytes(), &payload];
        if self.replaces {
            words.push(b"REPLACE");
        }
        if self.times_are_absolute {
            words.push(b"ABSTTL");
            match (&idle, &frequency) {
                (Some(seconds), _) => words.extend([&b"IDLETIME"[..], seconds.as_bytes()]),
                (_, Some(frequency)) => words.extend([&b"FREQ"[..], frequency.as_bytes()]),
                _ => {}
            }
        }
        self.remote.post(&words, &format!("key '{}' of database {}", key.name.escape_ascii(), key.db))
    }
}

impl Target for Server {
    fn library(&mut self, text: &[u8]) -> Result<(), String> {
        let words: &[&[u8]] =
            if self.replaces { &[b"FUNCTION", b"LOAD", b"REPLACE", text] } else { &[b"FUNCTION", b"LOAD", text] };
        self.remote.post(words, "FUNCTION LOAD")
    }

    fn key(&mut self, key: &RdbKey<'_>) -> Result<(), PersistError> {
        self.restore(key).map_err(|what| key.error(&what))
    }

    fn begin_commands(&mut self) -> Result<(), String> {
        if self.db != 0 {
            self.remote.post(&[b"SELECT", b"0"], "SELECT 0")?;
            self.db = 0;
        }
        Ok(())
    }

    fn command(&mut self, command: AofCommand<'_>) -> Result<(), String> {
        let args = command.args();
        if args.at(0).eq_ignore_ascii_case(b"SELECT") {
            let number = args.get(1).and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse().ok());
            // Whatever it is, the next file begins with another SELECT.
            self.db = number.unwrap_or(u32::MAX);
        }
        let what = format!("{} at offset {}", args.at(0).escape_ascii(), command.offset);
        self.remote.post_request(command.request(), &what)
    }
}

fn as_text(foreign: &Foreign, tally: &Tally) -> String {
    let mut out = format!(
        "{}, written by {}: {} keys, {} commands, {} libraries of functions\n",
        foreign.path.display(),
        tally.writer.as_deref().unwrap_or("an unknown program"),
        tally.keys,
        tally.commands,
        tally.libraries
    );
    if tally.expired > 0 {
        out.push_str(&format!("  {} keys had expired and are left out\n", tally.expired));
    }
    for (module, count) in &tally.skipped {
        out.push_str(&format!("  left out: {count} values of the module {module}\n"));
    }
    if let Some((file, offset)) = &tally.torn {
        out.push_str(&format!("  {} ends in the middle of a command, at offset {offset}\n", file.display()));
    }
    out
}

fn as_json(foreign: &Foreign, tally: &Tally) -> String {
    let skipped =
        tally.skipped.iter().map(|(module, count)| Object::new().text("module", module).number("values", *count).end());
    let text = Object::new()
        .text("from", &foreign.path.to_string_lossy())
        .text("writer", tally.writer.as_deref().unwrap_or(""))
        .number("keys", tally.keys)
        .number("expired", tally.expired)
        .number("commands", tally.commands)
        .number("libraries", tally.libraries)
        .number("bytes", tally.bytes)
        .maybe("torn_at", tally.torn.as_ref().map(|(_, offset)| *offset))
        .list("left_out", skipped)
        .end();
    text + "\n"
}

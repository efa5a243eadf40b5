//! `ironkeep check DIR [--json] [--load]`

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use super::arguments::Arguments;
use super::json::Object;
use super::time::shown;
use super::{DAMAGED, Ended, SOUND, UNREADABLE, load};
use crate::persist::examine::directory::{FileKind, FileReport, GenerationReport};
use crate::persist::examine::{self, Fault, Report};
use crate::persist::storage::{RealStorage, Storage};

pub(super) fn run(args: Vec<OsString>) -> Ended {
    let args = Arguments::parse(args, &[], &["--json", "--load"])?;
    let dir = args.dir()?;
    let storage: Arc<dyn Storage> =
        Arc::new(RealStorage::existing(dir).map_err(|error| format!("{}: {error}", dir.display()))?);
    let mut report = examine::check(&*storage);
    let mut keys = None;
    if args.has("--load") && report.faults.is_empty() {
        if report.is_live {
            return Err("--load is for a directory that no server has open: a backup, or a stopped server's".into());
        }
        let loaded = examine::recovery(&storage, args.encryption()?.as_ref()).map_err(|error| error.to_string());
        match loaded.and_then(|recovery| load::load(&recovery)) {
            Ok(loaded) => keys = Some(loaded),
            Err(what) => {
                let file = report.dir.clone();
                report.faults.push(Fault { file, offset: None, block: None, what, is_damage: true });
            }
        }
    }
    let code = match (report.is_damaged(), report.faults.is_empty()) {
        (true, _) => DAMAGED,
        (false, false) => UNREADABLE,
        (false, true) => SOUND,
    };
    let text = if args.has("--json") { as_json(&report, keys) } else { as_text(&report, keys) };
    Ok((text, code))
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Manifest => "manifest",
        FileKind::Keys => "keys",
        FileKind::Snapshot => "snapshot",
        FileKind::Segment => "log",
        FileKind::Aside => "set aside",
        FileKind::Index => "index",
        FileKind::Unused => "unused",
    }
}

fn as_text(report: &Report, keys: Option<u64>) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}{}", report.dir.display(), if report.is_live { " (a server has it open)" } else { "" });
    for file in &report.files {
        let verified = match (file.kind, file.blocks) {
            (FileKind::Snapshot, Some((_, cut))) => {
                format!("{} chunks verified, cut at block {cut}", file.verified)
            }
            (FileKind::Segment, Some((first, last))) => {
                format!("{} blocks verified, {first} to {last}", file.verified)
            }
            (FileKind::Segment, None) => "no blocks".to_owned(),
            (FileKind::Keys, _) => format!("{} wrapped keys verified", file.verified),
            (FileKind::Manifest, _) => format!("number {} verified", report.sequence),
            _ => "no part of the store".to_owned(),
        };
        let _ = writeln!(out, "  {:<36} {:<9} {:>12} bytes  {verified}", file.name, kind(file.kind), file.bytes);
    }
    for generation in &report.generations {
        let _ = writeln!(out, "  {}", generation_text(generation));
    }
    let time = shown(report.last_time_ms);
    let _ = writeln!(
        out,
        "  durable up to block {} at least; last block {} ({time})",
        report.durable_block, report.last_block
    );
    if let Some(tail) = &report.tail {
        let _ = writeln!(
            out,
            "  the log ends in an unfinished block, which is no damage: {} at offset {}, block {}: {}",
            tail.file.display(),
            tail.offset,
            tail.block,
            tail.what
        );
    }
    if let Some(keys) = keys {
        let _ = writeln!(out, "  loaded: {keys} keys");
    }
    for fault in &report.faults {
        let _ = writeln!(out, "  {}", fault_text(fault));
    }
    let verdict = match (report.is_damaged(), report.faults.is_empty()) {
        (true, _) => "damaged",
        (false, false) => "unreadable",
        (false, true) => "sound",
    };
    let _ = writeln!(out, "{verdict}");
    out
}

/// A fault in a line.
pub(super) fn fault_text(fault: &Fault) -> String {
    let mut out = format!("{} {}", if fault.is_damage { "damaged:" } else { "cannot be read:" }, fault.file.display());
    if let Some(offset) = fault.offset {
        let _ = write!(out, " at offset {offset}");
    }
    if let Some(block) = fault.block {
        let _ = write!(out, ", block {block}");
    }
    let _ = write!(out, ": {}", fault.what);
    out
}

/// A generation in a line.
pub(super) fn generation_text(generation: &GenerationReport) -> String {
    let from = match generation.snapshot {
        Some(number) => format!("snapshot {number} with {} keys", generation.entries),
        None => "from nothing".to_owned(),
    };
    format!(
        "{} generation: {from}, blocks {} to {}, {} to {}",
        if generation.is_current { "current" } else { "kept" },
        generation.from_block,
        generation.to_block,
        shown(generation.from_time_ms),
        shown(generation.to_time_ms)
    )
}

/// Generations as JSON.
pub(super) fn generation_json(generation: &GenerationReport) -> String {
    Object::new()
        .maybe("snapshot", generation.snapshot)
        .number("entries", generation.entries)
        .number("from_block", generation.from_block)
        .number("from_time_ms", generation.from_time_ms)
        .number("to_block", generation.to_block)
        .number("to_time_ms", generation.to_time_ms)
        .flag("current", generation.is_current)
        .end()
}

fn file_json(file: &FileReport) -> String {
    Object::new()
        .text("name", &file.name)
        .text("kind", kind(file.kind))
        .number("bytes", file.bytes)
        .number("verified", file.verified)
        .maybe("first_block", file.blocks.map(|(first, _)| first))
        .maybe("last_block", file.blocks.map(|(_, last)| last))
        .maybe("first_time_ms", file.times_ms.map(|(first, _)| first))
        .maybe("last_time_ms", file.times_ms.map(|(_, last)| last))
        .end()
}

/// A path as JSON can hold it.
pub(super) fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A fault as JSON.
pub(super) fn fault_json(fault: &Fault) -> String {
    Object::new()
        .text("file", &lossy(&fault.file))
        .maybe("offset", fault.offset)
        .maybe("block", fault.block)
        .text("what", &fault.what)
        .flag("damage", fault.is_damage)
        .end()
}

fn as_json(report: &Report, keys: Option<u64>) -> String {
    let tail = report.tail.as_ref().map_or("null".to_owned(), |tail| {
        Object::new()
            .text("file", &lossy(&tail.file))
            .number("offset", tail.offset)
            .number("block", tail.block)
            .text("what", &tail.what)
            .end()
    });
    let text = Object::new()
        .text("dir", &lossy(&report.dir))
        .flag("sound", report.faults.is_empty())
        .flag("live", report.is_live)
        .number("manifest", report.sequence)
        .number("durable_block", report.durable_block)
        .number("last_block", report.last_block)
        .number("last_time_ms", report.last_time_ms)
        .maybe("loaded_keys", keys)
        .raw("tail", &tail)
        .list("files", report.files.iter().map(file_json))
        .list("generations", report.generations.iter().map(generation_json))
        .list("faults", report.faults.iter().map(fault_json))
        .end();
    text + "\n"
}

//! `ironkeep repair DIR --into NEW [--json]`

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

use super::arguments::Arguments;
use super::check::{fault_json, fault_text, lossy};
use super::json::{Object, quoted};
use super::restore::{empty_directory, finish};
use super::time::shown;
use super::{DAMAGED, Ended, SOUND};
use crate::keyspace::SHARDS;
use crate::persist::restore::repair::{self, Repair};
use crate::persist::storage::RealStorage;

pub(super) fn run(args: Vec<OsString>) -> Ended {
    let args = Arguments::parse(args, &["--into"], &["--json"])?;
    let dir = args.dir()?;
    let into = Path::new(args.value("--into")?);
    let from = RealStorage::existing(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let repair = repair::plan(&from, SHARDS as u32).map_err(|error| error.to_string())?;
    let to = empty_directory(into)?;
    let prepared = repair.begin(&from, to).map_err(|error| error.to_string())?;
    let keys = finish(prepared, &args)?;
    let code = if repair.lost_blocks() > 0 { DAMAGED } else { SOUND };
    let text = if args.has("--json") { as_json(&repair, into, keys) } else { as_text(&repair, into, keys) };
    Ok((text, code))
}

fn as_text(repair: &Repair, into: &Path, keys: u64) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    for fault in &repair.faults {
        let _ = writeln!(out, "{}", fault_text(fault));
    }
    if let Some(why) = &repair.without_manifest {
        let _ = writeln!(out, "the manifest was not relied on, but what the files say of themselves: {why}");
    }
    for path in &repair.bad_snapshots {
        let _ = writeln!(out, "not taken, because it is damaged: {}", path.display());
    }
    if let Some(tail) = &repair.tail {
        let (file, offset) = (tail.file.display(), tail.offset);
        let _ = writeln!(out, "not taken: an unfinished block at offset {offset} of {file}: {}", tail.what);
    }
    let begins = repair.snapshot.map_or("nothing".to_owned(), |number| format!("snapshot {number}"));
    let (block, time) = (repair.block, shown(repair.time_ms));
    let _ = writeln!(out, "{}: {keys} keys, from {begins} and the log up to block {block} ({time})", into.display());
    let lost = repair.lost_blocks();
    let _ = match lost {
        0 => writeln!(out, "nothing that was found is lost"),
        _ => writeln!(
            out,
            "lost: {lost} blocks, {} to {}, up to {}",
            block + 1,
            repair.highest_block,
            shown(repair.highest_time_ms)
        ),
    };
    out
}

fn as_json(repair: &Repair, into: &Path, keys: u64) -> String {
    let text = Object::new()
        .text("into", &lossy(into))
        .number("keys", keys)
        .maybe("snapshot", repair.snapshot)
        .number("block", repair.block)
        .number("time_ms", repair.time_ms)
        .number("lost_blocks", repair.lost_blocks())
        .number("highest_block", repair.highest_block)
        .number("highest_time_ms", repair.highest_time_ms)
        .maybe_text("without_manifest", repair.without_manifest.as_deref())
        .list("bad_snapshots", repair.bad_snapshots.iter().map(|path| quoted(&lossy(path))))
        .list("faults", repair.faults.iter().map(fault_json));
    text.end() + "\n"
}

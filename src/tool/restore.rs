//! `ironkeep restore DIR --to TIME|BLOCK --into NEW [--json]`, and `ironkeep restore DIR --list [--json]`

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use super::arguments::Arguments;
use super::check::{generation_json, generation_text};
use super::json::Object;
use super::time::{shown, target};
use super::{Ended, SOUND, load};
use crate::persist::restore;
use crate::persist::restore::copy::Prepared;
use crate::persist::storage::{RealStorage, Storage};

pub(super) fn run(args: Vec<OsString>) -> Ended {
    let args = Arguments::parse(args, &["--to", "--into"], &["--list", "--json"])?;
    let dir = args.dir()?;
    let from = RealStorage::existing(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    if args.has("--list") {
        let listed = restore::list(&from).map_err(|error| error.to_string())?;
        let lines: Vec<String> = match args.has("--json") {
            true => vec![format!("[{}]", listed.iter().map(generation_json).collect::<Vec<_>>().join(","))],
            false => listed.iter().map(generation_text).collect(),
        };
        return Ok((lines.join("\n") + "\n", SOUND));
    }
    let target = target(&args.value("--to")?.to_string_lossy())?;
    let into = args.value("--into")?;
    let plan = restore::plan(&from, target).map_err(|error| error.to_string())?;
    let (block, time, generation) = (plan.block, plan.time_ms, plan.generation.clone());
    let to = empty_directory(into.as_ref())?;
    let prepared = restore::begin(&from, to, plan).map_err(|error| error.to_string())?;
    let keys = finish(prepared, &args)?;
    let into = Path::new(into).display();
    if args.has("--json") {
        let text = Object::new()
            .text("into", &into.to_string())
            .number("block", block)
            .number("time_ms", time)
            .number("keys", keys)
            .raw("generation", &generation_json(&generation));
        return Ok((text.end() + "\n", SOUND));
    }
    let (time, generation) = (shown(time), generation_text(&generation));
    let text = format!("restored {into}: block {block}, {time}, {keys} keys, from the {generation}\n");
    Ok((text, SOUND))
}

/// A new or empty directory.
pub(super) fn empty_directory(dir: &Path) -> Result<Arc<dyn Storage>, String> {
    let storage = RealStorage::vacant(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::DirectoryNotEmpty => {
            format!("{} is not empty, and nothing is overwritten", dir.display())
        }
        _ => format!("{}: {error}", dir.display()),
    })?;
    Ok(Arc::new(storage))
}

/// Loads the new directory, and makes it a store if it is whole. Returns the number of keys.
pub(super) fn finish(prepared: Prepared, args: &Arguments) -> Result<u64, String> {
    let recovery = prepared.recovery(args.encryption()?.as_ref()).map_err(|error| error.to_string())?;
    let keys = load::load(&recovery)?;
    drop(recovery);
    prepared.finish().map_err(|error| error.to_string())?;
    Ok(keys)
}

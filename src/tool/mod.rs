//! What the binary does beside serving: `ironkeep check`, `restore`, `repair`, `import`, `export`, and what it prints
//! about itself: `completions`, `man`; and `ping`, which asks a server. `check-config` looks at a configuration.
//!
//! A tool reads its own arguments, works on directories through `persist`, prints to standard output, and ends with an
//! exit code. None changes the directory that it reads. `import` and `export` also speak to servers (`remote`).

mod arguments;
mod check;
pub mod check_config;
mod completions;
mod export;
mod import;
mod json;
mod link;
mod load;
mod manual;
mod ping;
mod remote;
mod repair;
mod restore;
#[cfg(test)]
mod tests;
mod time;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Everything was as it should be.
const SOUND: u8 = 0;
/// The tool could not do its work: wrong arguments, an unreadable directory.
const UNREADABLE: u8 = 1;
/// Something is damaged, or was lost.
const DAMAGED: u8 = 2;

/// What a tool prints, and how it ends.
type Ended = Result<(String, u8), String>;

/// What a tool runs, with the words behind its name.
type Run = fn(Vec<OsString>) -> Ended;

/// Every tool by name.
const TOOLS: &[(&str, Run)] = &[
    ("check", check::run),
    ("export", export::run),
    ("import", import::run),
    ("repair", repair::run),
    ("restore", restore::run),
    ("ping", ping::run),
    ("completions", completions::run),
    ("man", manual::run),
];

/// Runs the tool of this name.
pub fn run(name: &str, args: Vec<OsString>) -> ExitCode {
    let tool = TOOLS.iter().find(|(known, _)| *known == name).map(|(_, run)| run);
    let ended = tool.map_or_else(|| Err(format!("there is no tool '{name}'")), |run| run(args));
    match ended {
        Ok((text, code)) => {
            // A reader that has gone away still gets the exit code.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("ironkeep {name}: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}

//! Starts the program again in its place: the process stays, everything in it is new.
//!
//! The kernel ends all other threads, and closes the files, of which none is meant to be inherited. So this is as hard
//! an end as `kill -9` for whatever was not settled before.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The variable of the environment that tells a process that it was started to be in the background.
pub const DETACHED: &str = "IRONKEEP_DETACHED";

/// The program, its arguments, and the directory in which it was called: they may name files relative to it.
static COMMAND_LINE: OnceLock<(PathBuf, Vec<OsString>, PathBuf)> = OnceLock::new();

/// Remembers how the program was called, before a title is written over that, and before it goes elsewhere.
///
/// # Errors
/// The program does not find its own file, or the directory in which it was called is gone.
pub fn remember() -> io::Result<()> {
    let line = (std::env::current_exe()?, std::env::args_os().skip(1).collect(), std::env::current_dir()?);
    COMMAND_LINE.get_or_init(|| line);
    Ok(())
}

/// Starts the program again; into the background, if it was there. Returns only if that fails, with the reason.
pub fn again() -> io::Error {
    let Some((program, arguments, directory)) = COMMAND_LINE.get() else {
        return io::Error::other("how the program was called is not known");
    };
    Command::new(program).args(arguments).current_dir(directory).env_remove(DETACHED).exec()
}

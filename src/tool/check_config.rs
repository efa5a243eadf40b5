//! `ironkeep check-config [--json] FILE`: what a configuration leaves open.
//!
//! Invariants: nothing is started and nothing changed. The usage names the exit codes.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::json::Object;
use super::{DAMAGED, SOUND, UNREADABLE};
use crate::base::config::{Config, Source};
use crate::base::doors::{self, Door};
use crate::persist::format::is_own_name;
use crate::server::startup;

/// A door is open: worse than [`DAMAGED`], which stands for a weak one.
const OPEN: u8 = 3;

/// What is to be said of a configuration.
#[derive(Debug)]
pub struct Verdict {
    file: Option<PathBuf>,
    /// Why the server would not start, or what is open if it would.
    found: Result<Vec<Door>, String>,
}

/// Looks at a configuration that could be read.
pub fn judge(config: &Config) -> Verdict {
    let (settings, file) = (config.settings(), config.file());
    // As the server does. One that is not there yet holds no file that could be looked at.
    let _ = settings.dir.is_absolute().then(|| std::env::set_current_dir(&settings.dir));
    let found = startup::check(&settings).map_err(|error| error.to_string());
    Verdict { file: file.map(Path::to_path_buf), found: found.map(|()| doors::all(&settings, file, is_own_name)) }
}

impl Verdict {
    /// For a configuration that could not be read.
    pub fn refusal(source: &Source, error: &dyn Display) -> Verdict {
        let file = if let Source::File(path) = source { Some(path.clone()) } else { None };
        Verdict { file, found: Err(error.to_string()) }
    }

    /// Prints it, and says how the program ends.
    pub fn print(&self, as_json: bool) -> ExitCode {
        // A reader that has gone away still gets the exit code.
        let _ = match &self.found {
            Err(error) if !as_json => writeln!(std::io::stderr(), "{error}"),
            _ => write!(std::io::stdout(), "{}", if as_json { self.as_json() } else { self.as_text() }),
        };
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match &self.found {
            Err(_) => UNREADABLE,
            Ok(doors) => match doors.iter().map(|door| door.is_open).max() {
                None => SOUND,
                Some(false) => DAMAGED,
                Some(true) => OPEN,
            },
        }
    }

    fn doors(&self) -> &[Door] {
        self.found.as_deref().unwrap_or_default()
    }

    fn as_text(&self) -> String {
        self.doors().iter().map(|door| format!("{}: {door}\n", if door.is_open { "open" } else { "weak" })).collect()
    }

    fn as_json(&self) -> String {
        let file = self.file.as_ref().map(|path| path.to_string_lossy());
        let door = |door: &Door| Object::new().flag("open", door.is_open).text("what", &door.text).end();
        let text = Object::new()
            .maybe_text("file", file.as_deref())
            .flag("starts", self.found.is_ok())
            .maybe_text("error", self.found.as_ref().err().map(|error| error.trim()))
            .list("doors", self.doors().iter().map(door))
            .end();
        text + "\n"
    }
}

//! Reading redis.conf: lines, includes, repeated directives.
//!
//! Reads only the files that it is told to read, with `std::fs`: configuration comes before storage.
//! Invariants: a file that includes itself is an error, not a loop; the number of included files is
//! bounded; bad bytes give an error that names file, line and directive, never a panic.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::directive::Kind;
use super::error::ConfigError;
use super::value::{self, Value};
use super::values::Values;
use super::{table, words};
use crate::base::glob;

const FILES_MAX: usize = 1000;
const DEPTH_MAX: usize = 16;

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The defaults alone.
    Defaults,
    /// A file.
    File(PathBuf),
    /// `-`: standard input.
    Stdin,
}

/// Collects the values of one start.
pub(super) struct Loader {
    pub(super) values: Values,
    /// The first `save` line replaces the default ones, the next ones add.
    save_seen: bool,
    /// May lines include files? Not when the text comes from a test or a fuzzer.
    includes: bool,
    files_read: usize,
    open: Vec<PathBuf>,
}

impl Loader {
    pub(super) fn new(includes: bool) -> Loader {
        Loader { values: Values::default(), save_seen: false, includes, files_read: 0, open: Vec::new() }
    }

    pub(super) fn source(&mut self, source: &Source) -> Result<(), ConfigError> {
        match source {
            Source::Defaults => Ok(()),
            Source::File(path) => self.file(path).map_err(|problem| match problem {
                Included::Config(error) => error,
                Included::Problem(problem) => ConfigError::CommandLine(problem),
            }),
            Source::Stdin => {
                let mut text = Vec::new();
                let read = std::io::stdin().lock().read_to_end(&mut text);
                read.map_err(|cause| ConfigError::Unreadable { path: PathBuf::from("-"), cause })?;
                self.text("standard input", &text)
            }
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), Included> {
        let unreadable = |cause| Included::Config(ConfigError::Unreadable { path: path.to_owned(), cause });
        let canonical = fs::canonicalize(path).map_err(unreadable)?;
        self.files_read += 1;
        if self.open.contains(&canonical) {
            return Err(Included::Problem(format!("include loop: '{}' includes itself", path.display())));
        }
        if self.open.len() >= DEPTH_MAX || self.files_read > FILES_MAX {
            return Err(Included::Problem("too many included files".to_owned()));
        }
        let text = fs::read(path).map_err(unreadable)?;
        self.open.push(canonical);
        let result = self.text(&path.display().to_string(), &text);
        self.open.pop();
        result.map_err(Included::Config)
    }

    /// Reads the lines of `text`; `source` names it in errors.
    pub(super) fn text(&mut self, source: &str, text: &[u8]) -> Result<(), ConfigError> {
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            self.line(line).map_err(|problem| match problem {
                Included::Config(error) => error,
                Included::Problem(problem) => ConfigError::Line {
                    source: source.to_owned(),
                    line_number: index + 1,
                    line: shown_line(line),
                    problem,
                },
            })?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Included> {
        let mut words = words::split(line).ok_or("Unbalanced quotes in configuration line")?;
        if words.is_empty() {
            return Ok(());
        }
        let name = words.remove(0);
        let Some(index) = table::find(&name) else {
            let name = String::from_utf8_lossy(&name).to_lowercase();
            return Err(Included::Problem(if table::is_not_applicable(name.as_bytes()) {
                format!("'{name}' does not apply to Ironkeep, a single-node store without modules")
            } else {
                "Bad directive or wrong number of arguments".to_owned()
            }));
        };
        let directive = table::all()[index];
        match directive.kind {
            Kind::FileOnly => return self.file_only(index, directive.name, words),
            _ if words.is_empty() => return Err("wrong number of arguments".into()),
            Kind::SavePoints | Kind::Addresses | Kind::OutputLimits if words.len() == 1 && !words[0].is_empty() => {
                words = words[0].split(u8::is_ascii_whitespace).map(<[u8]>::to_vec).collect();
            }
            Kind::ReplicaOf if words.len() != 2 && !words[0].is_empty() => {
                return Err("wrong number of arguments".into());
            }
            _ => {}
        }
        let mut parsed = value::parse(directive, &words, self.values.at(index))?;
        if let Value::SavePoints(points) = &mut parsed {
            if self.save_seen
                && !points.is_empty()
                && let Value::SavePoints(earlier) = self.values.at(index)
            {
                points.splice(..0, earlier.iter().copied());
            }
            self.save_seen = true;
        }
        self.values.set(index, parsed);
        Ok(())
    }

    fn file_only(&mut self, index: usize, name: &str, words: Vec<Vec<u8>>) -> Result<(), Included> {
        let enough = match name {
            "include" => words.len() == 1,
            "rename-command" => words.len() == 2,
            _ => !words.is_empty(),
        };
        if !enough {
            return Err("Bad directive or wrong number of arguments".into());
        }
        if name == "include" {
            return self.include(&words[0]);
        }
        self.values.push_line(index, words);
        Ok(())
    }

    fn include(&mut self, pattern: &[u8]) -> Result<(), Included> {
        use std::os::unix::ffi::OsStrExt;
        if !self.includes {
            return Err("include is not possible here".into());
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(pattern));
        if !glob::is_pattern(pattern) {
            return self.file(path);
        }
        for path in expand(path) {
            self.file(&path)?;
        }
        Ok(())
    }
}

/// A line as an error shows it: secrets stay out of the operator's log.
fn shown_line(line: &[u8]) -> String {
    let name = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let name = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(name);
    if table::find(name).is_some_and(|index| table::all()[index].secret) {
        return format!("{} (redacted)", String::from_utf8_lossy(name));
    }
    String::from_utf8_lossy(line).into_owned()
}

/// Why a line failed: of itself, or because of what it includes.
enum Included {
    Problem(String),
    Config(ConfigError),
}

impl From<String> for Included {
    fn from(problem: String) -> Included {
        Included::Problem(problem)
    }
}

impl From<&str> for Included {
    fn from(problem: &str) -> Included {
        Included::Problem(problem.to_owned())
    }
}

/// The files that a pattern names, sorted; nothing when none exists. Hidden files must be asked for.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let part = component.as_os_str();
        if !glob::is_pattern(part.as_bytes()) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut deeper = Vec::new();
        for directory in &found {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            let Ok(entries) = fs::read_dir(directory) else { continue };
            for name in entries.flatten().map(|entry| entry.file_name()) {
                let hidden = name.as_bytes().starts_with(b".") && !part.as_bytes().starts_with(b".");
                if !hidden && glob::matches(part.as_bytes(), name.as_bytes()) {
                    deeper.push(directory.join(name));
                }
            }
        }
        deeper.sort();
        found = deeper;
    }
    found.retain(|path| path.exists());
    found
}

//! The live configuration: what CONFIG GET, SET and REWRITE work on.
//!
//! Invariants: readers see one complete [`Settings`] or the next, never a mixture; `generation` grows
//! after every change, so that a worker may cache the settings and look only at the number; a CONFIG
//! SET that fails, in parsing or in being applied, changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::directive::{Change, Directive, Kind};
use super::error::ConfigError;
use super::file::{Loader, Source};
use super::settings::Settings;
use super::value;
use super::values::Values;
use super::{rewrite, table};
use crate::base::glob;

/// The configuration of a running server.
#[derive(Debug)]
pub struct Config {
    settings: RwLock<Arc<Settings>>,
    generation: AtomicU64,
    /// Also makes changes one at a time.
    values: Mutex<Values>,
    /// The file to rewrite, made absolute at the start.
    file: Option<PathBuf>,
}

impl Default for Config {
    /// Every directive at its default.
    fn default() -> Config {
        Config::from_values(Values::default(), None)
    }
}

impl Config {
    /// Reads the source, then the lines of `overrides`.
    pub fn load(source: &Source, overrides: &[u8]) -> Result<Config, ConfigError> {
        let mut loader = Loader::new(true);
        loader.source(source)?;
        loader.text("command line", overrides)?;
        let file = match source {
            Source::File(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            _ => None,
        };
        let config = Config::from_values(loader.values, file);
        config.check()?;
        Ok(config)
    }

    /// Reads a text; it may not include files.
    pub fn from_text(text: &[u8]) -> Result<Config, ConfigError> {
        let mut loader = Loader::new(false);
        loader.text("text", text)?;
        Ok(Config::from_values(loader.values, None))
    }

    fn from_values(values: Values, file: Option<PathBuf>) -> Config {
        let settings = RwLock::new(Arc::new(Settings::from_values(&values)));
        Config { settings, generation: AtomicU64::new(0), values: Mutex::new(values), file }
    }

    /// Directives that exclude each other.
    fn check(&self) -> Result<(), ConfigError> {
        let settings = self.settings();
        if !settings.aclfile.as_os_str().is_empty() && !settings.users.is_empty() {
            return Err(ConfigError::CommandLine(
                "Configuring ACL users both in the configuration file and in an ACL file is not possible: use user \
                 lines or aclfile, not both"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// The settings now: a cheap clone of a pointer.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Grows with every change; a cache of [`Config::settings`] is valid while it stays the same.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The file that the configuration came from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// CONFIG GET: names and values of all directives that match any of the patterns, each name once.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let values = self.values.lock();
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for pattern in patterns {
            if !pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[')) {
                let shown = table::find(pattern).filter(|&index| is_gettable(table::all()[index]));
                if let Some(index) = shown
                    && !found.iter().any(|(name, _)| name.eq_ignore_ascii_case(pattern))
                {
                    found.push((pattern.to_vec(), shown_value(&values, index)));
                }
                continue;
            }
            for (index, directive) in table::all().iter().enumerate() {
                for name in [directive.name, directive.alias] {
                    let wanted = !name.is_empty()
                        && is_gettable(directive)
                        && !directive.hidden
                        && glob::matches_nocase(pattern, name.as_bytes())
                        && !found.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
                    if wanted {
                        found.push((name.as_bytes().to_vec(), shown_value(&values, index)));
                    }
                }
            }
        }
        found
    }

    /// CONFIG SET: all or nothing. Gives the names whose value changed.
    ///
    /// `apply` puts the new settings into effect where storing them is not enough (sockets, files); it
    /// gets the settings before and after, and the changed names, and its error names the directive at
    /// fault and the reason. If it fails it is called once more with the two exchanged, to undo what it
    /// had done. It must not call this object's `set` or `rewrite`.
    pub fn set(
        &self,
        pairs: &[(&[u8], &[u8])],
        is_local: bool,
        mut apply: impl FnMut(&Settings, &Settings, &[&'static str]) -> Result<(), (&'static str, String)>,
    ) -> Result<Vec<&'static str>, ConfigError> {
        let mut values = self.values.lock();
        let before = self.settings();
        let indexes = check_names(pairs, before.enable_protected_configs.allows(is_local))?;
        let mut changed_values = values.clone();
        let mut changed = Vec::new();
        for (&index, (_, text)) in indexes.iter().zip(pairs) {
            let directive = table::all()[index];
            let words: Vec<Vec<u8>> = match directive.kind.takes_words() {
                true if text.is_empty() => vec![Vec::new()],
                true => text.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect(),
                false => vec![text.to_vec()],
            };
            let current = values.at(index);
            let new = value::parse(directive, &words, current).map_err(|problem| failed(directive.name, problem))?;
            if new != *current {
                changed.push(directive.name);
            }
            changed_values.set(index, new);
        }
        let after = Arc::new(Settings::from_values(&changed_values));
        if let Err((name, problem)) = apply(&before, &after, &changed) {
            // Undoing is done as well as it can be; the first error is the one to report.
            let _ = apply(&after, &before, &changed);
            return Err(failed(name, problem));
        }
        *values = changed_values;
        *self.settings.write() = after;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(changed)
    }

    /// CONFIG REWRITE. `users`, when given, are the words of each ACL user's line (without `user`), and
    /// replace the file's user lines.
    pub fn rewrite(&self, users: Option<&[Vec<Vec<u8>>]>) -> Result<(), ConfigError> {
        let path = self.file.as_deref().ok_or(ConfigError::NoFile)?;
        let values = self.values.lock();
        let old = match std::fs::read(path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ConfigError::RewriteFailed(error)),
        };
        rewrite::replace(path, &rewrite::rewritten(&old, &values, users)).map_err(ConfigError::RewriteFailed)
    }
}

/// Must the value of this directive stay out of logs and MONITOR?
pub fn is_secret(name: &[u8]) -> bool {
    table::find(name).is_some_and(|index| table::all()[index].secret)
}

fn is_gettable(directive: &Directive) -> bool {
    !matches!(directive.kind, Kind::FileOnly)
}

fn shown_value(values: &Values, index: usize) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    let directive = table::all()[index];
    match directive.kind {
        Kind::Octal => values.at(index).octal_text(),
        // As Redis, which shows its working directory here: tools join it with a file's name.
        _ if directive.name == "dir" => {
            let dir = values.path("dir");
            let absolute = std::path::absolute(&dir).unwrap_or(dir);
            absolute.components().collect::<PathBuf>().into_os_string().into_vec()
        }
        _ => values.at(index).text(),
    }
}

fn failed(name: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::SetFailed { name: name.to_owned(), problem: problem.into() }
}

/// The directives of CONFIG SET's arguments; the first that may not be set is the error.
fn check_names(pairs: &[(&[u8], &[u8])], protected_allowed: bool) -> Result<Vec<usize>, ConfigError> {
    let mut indexes = Vec::with_capacity(pairs.len());
    for (name, _) in pairs {
        let shown = String::from_utf8_lossy(name);
        let found = table::find(name).filter(|&index| is_gettable(table::all()[index]));
        let Some(index) = found else {
            return Err(ConfigError::UnknownOption(shown.into_owned()));
        };
        match table::all()[index].change {
            Change::Fixed => return Err(failed(&shown, "can't set immutable config")),
            Change::Protected if !protected_allowed => return Err(failed(&shown, "can't set protected config")),
            Change::Live | Change::Protected => {}
        }
        if indexes.contains(&index) {
            return Err(failed(&shown, "duplicate parameter"));
        }
        indexes.push(index);
    }
    Ok(indexes)
}

//! The live configuration: what CONFIG GET, SET and REWRITE work on.
//!
//! Invariants:
//! - Readers see one complete [`Settings`] or the next, never a mixture.
//! - `generation` grows after every change, so that a worker may cache the settings and compare only the number.
//! - A CONFIG SET that fails, in parsing or in being applied, changes nothing.
//! - No reader waits for a directive that is being applied, which may take as long as the disk. A change is prepared
//!   from a copy, applied without any lock that a reader takes, and committed in an instant. [`Config::changing`]
//!   serialises the appliers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zeroize::Zeroizing;

use crate::base::lock::{Mutex, MutexGuard, Rank, RwLock};

use super::directive::{Change, Directive, Kind};
use super::error::ConfigError;
use super::file::{Loader, Source};
use super::print;
use super::rewrite;
use super::settings::Setting;
use super::value::{self, Lines, Value};
use super::values::Values;
use crate::base::config::directives::{self, Settings};
use crate::base::glob;

/// The configuration of a running server.
#[derive(Debug)]
pub struct Config {
    /// Held only to copy two pointers, or to replace them.
    current: RwLock<Current>,
    generation: AtomicU64,
    /// Held while a change is applied, however long that takes.
    changing: Mutex<()>,
    /// Held while the file is rewritten, so that the last writer writes the newest values.
    rewriting: Mutex<()>,
    /// The file to rewrite, made absolute at the start.
    file: Option<PathBuf>,
}

/// The values of all directives, and the settings made from them.
#[derive(Clone, Debug)]
struct Current {
    settings: Arc<Settings>,
    values: Arc<Values>,
}

/// A change that was parsed and checked, and is not in effect yet.
#[derive(Debug)]
pub struct Prepared {
    new: Vec<(usize, Value)>,
    /// The names of the directives whose value it changes.
    pub changed: Vec<&'static str>,
    /// The settings that it was prepared from.
    pub before: Arc<Settings>,
    /// The settings that it leads to.
    pub after: Arc<Settings>,
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
        // Relative paths are relative to it, if it is given. So it must say itself where it is.
        let (mut values, dir) = (loader.values, directives::DIR);
        let given = PathBuf::of(values.at(dir));
        if values.at(dir) != Values::default().at(dir)
            && let Ok(absolute) = std::path::absolute(&given)
        {
            values.set(dir, Value::Text(absolute.into_os_string().into_encoded_bytes()));
        }
        let file = match source {
            Source::File(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            _ => None,
        };
        let config = Config::from_values(values, file);
        config.check()?;
        Ok(config)
    }

    /// Reads a text, which may not include files.
    pub fn from_text(text: &[u8]) -> Result<Config, ConfigError> {
        let mut loader = Loader::new(false);
        loader.text("text", text)?;
        Ok(Config::from_values(loader.values, None))
    }

    fn from_values(values: Values, file: Option<PathBuf>) -> Config {
        let settings = Arc::new(values.settings());
        Config {
            current: RwLock::new(Rank::Settings, Current { settings, values: Arc::new(values) }),
            generation: AtomicU64::new(0),
            changing: Mutex::new(Rank::ConfigChange, ()),
            rewriting: Mutex::new(Rank::ConfigFile, ()),
            file,
        }
    }

    /// Checks for directives that exclude each other.
    fn check(&self) -> Result<(), ConfigError> {
        let settings = self.settings();
        let has_lines = !settings.users.is_empty() || !settings.roles.is_empty();
        if !settings.aclfile.as_os_str().is_empty() && has_lines {
            return Err(ConfigError::CommandLine(
                "Configuring ACL users both in the configuration file and in an ACL file is not possible: use user \
                 lines or aclfile, not both"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// The current settings: a cheap clone of a pointer.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.current.read().settings)
    }

    fn values(&self) -> Arc<Values> {
        Arc::clone(&self.current.read().values)
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

    /// CONFIG GET: names and values of all directives that match any of the patterns, each name once, sorted.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let values = self.values();
        let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for pattern in patterns {
            if !pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[')) {
                let shown = directives::find(pattern).filter(|&index| is_gettable(directives::all()[index]));
                if let Some(index) = shown
                    && !found.iter().any(|(name, _)| name.eq_ignore_ascii_case(pattern))
                {
                    found.push((pattern.to_vec(), shown_value(&values, index)));
                }
                continue;
            }
            for (index, directive) in directives::all().iter().enumerate() {
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
        found.sort_unstable();
        found
    }

    /// CONFIG INFO: what the directives are that match any of the patterns. What is secret has no value.
    pub fn describe(&self, patterns: &[&[u8]]) -> Vec<Described> {
        let found = self.get(patterns).into_iter();
        let described = found.filter_map(|(name, value)| {
            let directive = directives::all()[directives::find(&name)?];
            let default = directive.default;
            let value = if directive.secret { Vec::new() } else { value };
            let kind = match directive.kind {
                Kind::Bool => "bool",
                Kind::Int(..) | Kind::Octal => "numeric",
                Kind::Memory(..) | Kind::MemoryOrPercent => "memory",
                Kind::Choice(_) | Kind::Choices(_) => "enum",
                Kind::Text | Kind::FileName | Kind::HostName => "string",
                _ => "special",
            };
            let words = match directive.kind {
                Kind::Choice(words) | Kind::Choices(words) => words,
                _ => &[],
            };
            let is_mutable = directive.change != Change::Fixed && directive.only_default.is_none();
            Some(Described { name, kind, default, value, words, is_mutable, doc: directive.doc })
        });
        described.collect()
    }

    /// The first half of CONFIG SET: parses and checks the new values, and changes nothing.
    ///
    /// # Errors
    /// A refused name or value. Nothing of the rest may then be set, either.
    pub fn prepare(&self, pairs: &[(&[u8], &[u8])], is_local: bool) -> Result<Prepared, ConfigError> {
        let Current { settings: before, values } = self.current.read().clone();
        let indexes = check_names(pairs, before.enable_protected_configs.allows(is_local))?;
        let mut changed_values = Values::clone(&values);
        let (mut new, mut changed) = (Vec::with_capacity(pairs.len()), Vec::new());
        for (&index, (name, text)) in indexes.iter().zip(pairs) {
            let directive = directives::all()[index];
            let words: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(match directive.kind.takes_words() {
                true if text.is_empty() => vec![Vec::new()],
                true => text.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect(),
                false => vec![text.to_vec()],
            });
            let current = values.at(index);
            let value = value::parse(directive, &words, current).map_err(|problem| {
                let is_alias = name.eq_ignore_ascii_case(directive.alias.as_bytes());
                failed(if is_alias { directive.alias } else { directive.name }, problem)
            })?;
            if value != *current || directive.volatile {
                changed.push(directive.name);
            }
            changed_values.set(index, value.clone());
            new.push((index, value));
        }
        let after = Arc::new(changed_values.settings());
        Ok(Prepared { new, changed, before, after })
    }

    /// The second half of CONFIG SET: readers see the new values from now on. Changes that others have committed
    /// since [`Config::prepare`] stay.
    pub fn commit(&self, change: Prepared) {
        let mut current = self.current.write();
        let mut values = Values::clone(&current.values);
        for (index, value) in change.new {
            values.set(index, value);
        }
        let settings = Arc::new(values.settings());
        *current = Current { settings, values: Arc::new(values) };
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The right to apply a change between [`Config::prepare`] and [`Config::commit`]. It must not be requested
    /// behind the closed gate: its holder may wait for the disk, and for a thread that waits for the gate.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// CONFIG SET: all or nothing. Returns the names whose values changed.
    ///
    /// `apply` puts the new settings into effect where storing them is not enough (sockets, files). It receives the
    /// settings before and after, and the changed names. Its error names the directive at fault and the reason. If it
    /// fails, it is called again with the two exchanged, to undo what it has done. It may read this object and must
    /// not change it.
    ///
    /// # Errors
    /// Those of [`Config::prepare`] and of `apply`.
    pub fn set(
        &self,
        pairs: &[(&[u8], &[u8])],
        is_local: bool,
        mut apply: impl FnMut(&Settings, &Settings, &[&'static str]) -> Result<(), (&'static str, String)>,
    ) -> Result<Vec<&'static str>, ConfigError> {
        let _changing = self.changing();
        let change = self.prepare(pairs, is_local)?;
        if let Err((name, problem)) = apply(&change.before, &change.after, &change.changed) {
            // Undoing is best effort. The first error is reported.
            let _ = apply(&change.after, &change.before, &change.changed);
            return Err(failed(name, problem));
        }
        let changed = change.changed.clone();
        self.commit(change);
        Ok(changed)
    }

    /// Appends the configuration with its documentation, in the form of a file.
    pub fn print(&self, out: &mut Vec<u8>) {
        print::print(out, &self.values());
    }

    /// CONFIG REWRITE. `access`, when given, are the words of the line of each role, and of each user (without `role`
    /// and `user`), and replace those lines of the file.
    ///
    /// # Errors
    /// There is no file, or it cannot be read or written. The old one is then untouched.
    pub fn rewrite(&self, access: Option<&[Lines; 2]>) -> Result<(), ConfigError> {
        let path = self.file.as_deref().ok_or(ConfigError::NoFile)?;
        let _rewriting = self.rewriting.lock();
        let values = self.values();
        let old = Zeroizing::new(match std::fs::read(path) {
            Ok(old) => old,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ConfigError::RewriteFailed(error)),
        });
        let new = Zeroizing::new(rewrite::rewritten(&old, &values, access));
        rewrite::replace(path, &new).map_err(ConfigError::RewriteFailed)
    }
}

/// Whether the value of this directive must stay out of logs and MONITOR.
pub fn is_secret(name: &[u8]) -> bool {
    directives::find(name).is_some_and(|index| directives::all()[index].secret)
}

/// What CONFIG INFO tells of a directive.
#[derive(Clone, Debug)]
pub struct Described {
    /// The name, or the alias that was asked for.
    pub name: Vec<u8>,
    /// The form of its value, in a word.
    pub kind: &'static str,
    /// The default, as written in a file.
    pub default: &'static str,
    /// The value now.
    pub value: Vec<u8>,
    /// The words that it may be, if only certain words are allowed.
    pub words: &'static [&'static str],
    /// Whether CONFIG SET may change it.
    pub is_mutable: bool,
    /// Documentation.
    pub doc: &'static str,
}

fn is_gettable(directive: &Directive) -> bool {
    !matches!(directive.kind, Kind::FileOnly)
}

fn shown_value(values: &Values, index: usize) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    let directive = directives::all()[index];
    match directive.kind {
        Kind::Octal => values.at(index).octal_text(),
        // As in Redis, which shows its working directory here: tools join it with a file name.
        _ if directive.name == "dir" => {
            let dir = PathBuf::of(values.at(index));
            let absolute = std::path::absolute(&dir).unwrap_or(dir);
            absolute.components().collect::<PathBuf>().into_os_string().into_vec()
        }
        _ => values.at(index).text(),
    }
}

fn failed(name: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::SetFailed { name: name.to_owned(), problem: problem.into() }
}

/// The directives in the arguments of CONFIG SET. The first one that may not be set is the error.
fn check_names(pairs: &[(&[u8], &[u8])], protected_allowed: bool) -> Result<Vec<usize>, ConfigError> {
    let mut indexes = Vec::with_capacity(pairs.len());
    for (name, _) in pairs {
        let shown = String::from_utf8_lossy(name);
        let found = directives::find(name).filter(|&index| is_gettable(directives::all()[index]));
        let Some(index) = found else {
            return Err(ConfigError::UnknownOption(name.to_vec()));
        };
        match directives::all()[index].change {
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

#[cfg(test)]
#[path = "live_tests.rs"]
mod secrets;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::settings::{EvictionPolicy, FsyncPolicy};

    fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<Vec<&'static str>, String> {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        config.set(&pairs, true, |_, _, _| Ok(())).map_err(|error| error.to_string())
    }

    fn get(config: &Config, patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
        let pairs = config.get(&patterns);
        pairs.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect()
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("ASCII")
    }

    #[test]
    fn own_defaults() {
        let settings = Config::default().settings();
        assert!(settings.appendonly && settings.protected_mode);
        assert_eq!(settings.appendfsync, FsyncPolicy::EverySec);
        assert_eq!((settings.port, settings.databases, settings.io_threads), (6379, 16, 0));
        assert_eq!(settings.bind, ["127.0.0.1", "-::1"]);
        assert_eq!(settings.dir, Path::new("./ironkeep-data"));
        assert_eq!(settings.auto_aof_rewrite_max_size, 8 << 30);
        assert!((1..=256).contains(&settings.worker_count()));
    }

    #[test]
    fn get_by_name_alias_and_pattern() {
        let config = Config::default();
        assert_eq!(get(&config, &["MAXMEMORY"]), ["MAXMEMORY=0"]);
        assert_eq!(get(&config, &["hash-max-ziplist-entries"]), ["hash-max-ziplist-entries=512"]);
        let mut both = get(&config, &["hash-max-*list*-entries", "hash-max-listpack-entries"]);
        both.sort();
        assert_eq!(both, ["hash-max-listpack-entries=512", "hash-max-ziplist-entries=512"]);
        assert_eq!(get(&config, &["key-load-delay"]), ["key-load-delay=0"]);
        assert!(get(&config, &["key-load*", "nosuch", "user", "include"]).is_empty());
        assert!(get(&config, &["*"]).len() > 190);
        assert!(get(&config, &["dir"])[0].starts_with("dir=/"));
        assert!(get(&config, &["dir"])[0].ends_with("/ironkeep-data"));
    }

    #[test]
    fn set_is_all_or_nothing() {
        let config = Config::default();
        let before = config.generation();
        let problem = set(&config, &[("appendonly", "NO"), ("maxmemory", "zip")]);
        assert_eq!(
            problem,
            Err("CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value"
                .to_owned())
        );
        assert_eq!((config.settings().appendonly, config.generation()), (true, before));
        let changed = set(&config, &[("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-LFU"), ("port", "6379")]);
        assert_eq!(changed, Ok(vec!["maxmemory", "maxmemory-policy"]));
        assert_eq!(config.settings().maxmemory, 100 << 20);
        assert_eq!(config.settings().maxmemory_policy, EvictionPolicy::AllkeysLfu);
        assert_ne!(config.generation(), before);
    }

    #[test]
    fn refusals_recorded_from_redis() {
        let config = Config::default();
        let related =
            |name, problem| Err(format!("CONFIG SET failed (possibly related to argument '{name}') - {problem}"));
        let unknown = |name| Err(format!("Unknown option or number of arguments for CONFIG SET - '{name}'"));
        assert_eq!(set(&config, &[("NOSUCH", "1"), ("maxmemory", "x")]), unknown("NOSUCH"));
        assert_eq!(set(&config, &[("maxmemory", "x"), ("nosuch", "1")]), unknown("nosuch"));
        assert_eq!(
            set(&config, &[("databases", "3"), ("nosuch", "1")]),
            related("databases", "can't set immutable config")
        );
        assert_eq!(set(&config, &[("dbfilename", "x")]), related("dbfilename", "can't set protected config"));
        assert_eq!(
            set(&config, &[("maxmemory", "1"), ("MAXMEMORY", "2")]),
            related("MAXMEMORY", "duplicate parameter")
        );
        // As in Redis 8.10: both names are the same parameter.
        assert_eq!(
            set(&config, &[("replica-priority", "1"), ("slave-priority", "2")]),
            related("slave-priority", "duplicate parameter")
        );
        assert_eq!(set(&config, &[("MAXMEMORY", "x")]), related("maxmemory", "argument must be a memory value"));
        assert_eq!(set(&config, &[("user", "x")]), unknown("user"));
    }

    #[test]
    fn protected_directives_need_the_permission() {
        let config = Config::from_text(b"enable-protected-configs local").expect("a valid text");
        let pair: &[(&[u8], &[u8])] = &[(b"dbfilename", b"x.rdb")];
        assert!(config.set(pair, false, |_, _, _| Ok(())).is_err());
        assert!(config.set(pair, true, |_, _, _| Ok(())).is_ok());
        assert_eq!(get(&config, &["dbfilename"]), ["dbfilename=x.rdb"]);
    }

    #[test]
    fn what_cannot_be_applied_is_undone() {
        let config = Config::default();
        let mut calls = Vec::new();
        let result = config.set(&[(b"port", b"7000")], true, |before, after, changed| {
            calls.push((before.port, after.port, changed.to_vec()));
            Err(("port", "Unable to listen on this port. Check server logs.".to_owned()))
        });
        assert_eq!(
            result.expect_err("apply failed").to_string(),
            "CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check server logs."
        );
        assert_eq!(calls, [(6379, 7000, vec!["port"]), (7000, 6379, vec!["port"])]);
        assert_eq!((config.settings().port, config.generation()), (6379, 0));
        assert_eq!(get(&config, &["port"]), ["port=6379"]);
    }

    #[test]
    fn readers_do_not_wait_for_what_is_being_applied() {
        let config = Config::default();
        let inner = &config;
        let applied = config.set(&[(b"appendonly", b"no")], true, |_, _, _| {
            // Everything that a command behind the closed gate may ask for.
            assert_eq!(get(inner, &["appendonly"]), ["appendonly=yes"]);
            assert!(inner.settings().appendonly);
            let change = inner.prepare(&[(b"maxmemory", b"5")], true).expect("valid");
            assert_eq!((change.before.maxmemory, change.after.maxmemory), (0, 5));
            inner.commit(change);
            Ok(())
        });
        assert_eq!(applied.expect("valid"), ["appendonly"]);
        let settings = config.settings();
        assert_eq!((settings.appendonly, settings.maxmemory), (false, 5), "both changes stand");
        assert_eq!(get(&config, &["appendonly", "maxmemory"]), ["appendonly=no", "maxmemory=5"]);
    }

    #[test]
    fn output_limits_change_class_by_class() {
        let config = Config::default();
        set(&config, &[("client-output-buffer-limit", "normal 1mb 2kb 60")]).expect("valid");
        set(&config, &[("client-output-buffer-limit", "pubsub 3 4 5")]).expect("valid");
        let limits = "normal 1048576 2048 60 slave 268435456 67108864 60 pubsub 3 4 5";
        assert_eq!(get(&config, &["client-output-buffer-limit"]), [format!("client-output-buffer-limit={limits}")]);
    }

    #[test]
    fn secrets_are_known() {
        assert!(is_secret(b"REQUIREPASS") && is_secret(b"masterauth") && is_secret(b"primaryauth"));
        assert!(!is_secret(b"port") && !is_secret(b"nosuch"));
    }
}

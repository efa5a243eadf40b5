//! Reading redis.conf: lines, includes, repeated directives.
//!
//! It reads only the files that it is told to read, with `std::fs`, because configuration comes before storage.
//! Invariants: a file that includes itself is an error, not a loop; the number of included files is bounded; bad
//! bytes give an error that names file, line and directive, never a panic.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::directive::Kind;
use super::error::ConfigError;
use super::value::{self, Value};
use super::values::Values;
use super::words;
use crate::base::config::directives;
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
    /// The first `save` line replaces the defaults; later ones add to it.
    save_seen: bool,
    /// Whether lines may include files. Not for a text from a test or a fuzzer.
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
                let mut text = Zeroizing::new(Vec::new());
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
        // It may hold passwords.
        let text = Zeroizing::new(fs::read(path).map_err(unreadable)?);
        self.open.push(canonical);
        let result = self.text(&path.display().to_string(), &text);
        self.open.pop();
        result.map_err(Included::Config)
    }

    /// Reads the lines of `text`. `source` names it in errors.
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
        let mut words = Zeroizing::new(words::split(line).ok_or("Unbalanced quotes in configuration line")?);
        if words.is_empty() {
            return Ok(());
        }
        let name = words.remove(0);
        let Some(index) = directives::find(&name) else {
            let name = String::from_utf8_lossy(&name).to_lowercase();
            if directives::is_not_applicable(name.as_bytes()) {
                let problem = format!("'{name}' does not apply to Ironkeep, a single-node store without modules");
                return Err(problem.into());
            }
            let unknown = "Bad directive or wrong number of arguments";
            return Err(match words::nearest(&name, directives::shown_names()) {
                Some(near) => format!("{unknown}; did you mean '{near}'?").into(),
                None => unknown.into(),
            });
        };
        let directive = directives::all()[index];
        match directive.kind {
            Kind::FileOnly => return self.file_only(index, directive.name, std::mem::take(&mut *words)),
            // The only directive that may stand without a value: no save points.
            Kind::SavePoints if words.is_empty() => words.push(Vec::new()),
            // These say which words there are.
            Kind::Choices(_) if words.is_empty() => {}
            _ if words.is_empty() => return Err("wrong number of arguments".into()),
            Kind::ReplicaOf if words.len() != 2 && !words[0].is_empty() => {
                return Err("wrong number of arguments".into());
            }
            Kind::ReplicaOf => {}
            // As one quoted word, which a command line makes of it.
            _ if directive.kind.takes_words() && words.len() == 1 && !words[0].is_empty() => {
                *words = words[0].split(u8::is_ascii_whitespace).map(<[u8]>::to_vec).collect();
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
    if directives::find(name).is_some_and(|index| directives::all()[index].secret) {
        return format!("{} (redacted)", String::from_utf8_lossy(name));
    }
    String::from_utf8_lossy(line).into_owned()
}

/// Why a line failed: by itself, or because of a file that it includes.
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

/// The files that match a pattern, sorted; none if none exists. Hidden files must be named explicitly.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::live::Config;
    use crate::base::config::value::SavePoint;
    use proptest::prelude::*;

    fn error(text: &str) -> (usize, String, String) {
        match Config::from_text(text.as_bytes()) {
            Err(ConfigError::Line { line_number, line, problem, .. }) => (line_number, line, problem),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn words_may_come_as_one_quoted_word() {
        let text = b"oom-score-adj-values \"20 30 40\"\nshutdown-on-sigterm \"now save\"\n\
            latency-tracking-info-percentiles '50 99'\nsave \"1 2\"\n";
        let settings = Config::from_text(text).expect("a valid text").settings();
        assert_eq!(settings.oom_score_adj_values, [20, 30, 40]);
        assert_eq!(settings.shutdown_on_sigterm, ["save", "now"]);
        assert_eq!(settings.latency_tracking_info_percentiles, [50.0, 99.0]);
        assert_eq!(settings.save, [SavePoint { seconds: 1, changes: 2 }]);
    }

    #[test]
    fn repeated_directives() {
        let text = b"# comment\r\n\n  SAVE 100 1\nsave 200 2\nuser a on >x ~*\nuser b off\nrename-command GET \"\"\n\
            client-output-buffer-limit normal 1 2 3\nclient-output-buffer-limit replica 4 5 6\nbind \"1.1.1.1 ::1\"\n";
        let settings = Config::from_text(text).expect("a valid text").settings();
        let points = [(100, 1), (200, 2)].map(|(seconds, changes)| SavePoint { seconds, changes });
        assert_eq!(settings.save, points);
        assert_eq!(settings.users.len(), 2);
        assert_eq!(settings.renamed_commands, [[b"GET".to_vec(), Vec::new()]]);
        let limits = settings.client_output_buffer_limits;
        assert_eq!((limits[0].hard, limits[1].soft_seconds, limits[2].hard), (1, 6, 32 << 20));
        assert_eq!(settings.bind, ["1.1.1.1", "::1"]);
        for none in ["save 1 1\nsave \"\"", "save 1 1\nsave"] {
            let settings = Config::from_text(none.as_bytes()).expect("a valid text").settings();
            assert!(settings.save.is_empty(), "{none}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (line, problem) in [
            ("port", "wrong number of arguments"),
            (
                "shutdown-on-sigint",
                "argument(s) must be one of the following: default, save, nosave, now, force, safe, \
                 failover",
            ),
            ("port a", "argument couldn't be parsed into an integer"),
            ("port 1 2", "wrong number of arguments"),
            ("port 6379 # x", "wrong number of arguments"),
            ("save 1", "Invalid save parameters"),
            ("save 1 1 2", "Invalid save parameters"),
            ("bind \"a", "Unbalanced quotes in configuration line"),
            ("rename-command get", "Bad directive or wrong number of arguments"),
            ("unknown 3", "Bad directive or wrong number of arguments"),
            ("maxmemroy 3", "Bad directive or wrong number of arguments; did you mean 'maxmemory'?"),
            ("AppendFsnc no", "Bad directive or wrong number of arguments; did you mean 'appendfsync'?"),
            ("prt 1", "Bad directive or wrong number of arguments; did you mean 'port'?"),
            ("replicaof a", "wrong number of arguments"),
            ("databases 0", "argument must be between 1 and 2147483647 inclusive"),
            ("dbfilename a/b", "dbfilename can't be a path, just a filename"),
            ("include x", "include is not possible here"),
        ] {
            assert_eq!(error(&format!("# x\n {line} ")), (2, line.to_owned(), problem.to_owned()));
        }
        assert!(error("loadmodule x.so").2.contains("does not apply"));
        assert!(error("replicaof host 6379").2.contains("single-node"));
    }

    #[test]
    fn error_text_has_redis_form_and_hides_secrets() {
        let text = Config::from_text(b"\nport x").expect_err("a bad port").to_string();
        assert!(text.contains("*** FATAL CONFIG FILE ERROR"), "{text}");
        assert!(text.contains("at line 2\n>>> 'port x'\nargument couldn't be parsed into an integer"), "{text}");
        let text = Config::from_text(b"requirepass hunter2 x").expect_err("two words").to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn includes_nest_expand_and_do_not_loop() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: String| fs::write(path(name), text).expect("a writable directory");
        write("main.conf", format!("port 1\ninclude {}/part-*.conf\ninclude {0}/none-*\n", dir.path().display()));
        write("part-2.conf", "port 3\n".to_owned());
        write("part-1.conf", format!("port 2\nmaxclients 5\ninclude {}\n", path("deep").display()));
        write("deep", "timeout 9\n".to_owned());
        let config = Config::load(&Source::File(path("main.conf")), b"maxclients 7\n").expect("valid files");
        let settings = config.settings();
        assert_eq!((settings.port, settings.maxclients, settings.timeout_seconds), (3, 7, 9));

        write("deep", format!("include {}\n", path("main.conf").display()));
        let problem = Config::load(&Source::File(path("main.conf")), b"").expect_err("a loop").to_string();
        assert!(problem.contains("include loop") && problem.contains("deep"), "{problem}");
        write("deep", format!("include {}\n", path("missing").display()));
        let problem = Config::load(&Source::File(path("main.conf")), b"").expect_err("no file").to_string();
        assert!(problem.contains("can't open config file") && problem.contains("missing"), "{problem}");
    }

    #[test]
    fn users_stand_in_one_place() {
        assert!(Config::load(&Source::Defaults, b"aclfile x\nuser a on\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text: Vec<u8>, name in 0..directives::all().len(), words in "[ -~]{0,30}") {
            let _ = Config::from_text(&text);
            let line = format!("{} {words}", directives::all()[name].name);
            let _ = Config::from_text(line.as_bytes());
        }
    }
}

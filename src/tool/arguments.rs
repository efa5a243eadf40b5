//! The arguments of a tool: one directory, options with a value, and flags.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::base::config::words::write_quoted;
use crate::base::config::{Config, Source};
use crate::durable::encryption::encryption;
use crate::persist::crypt::Encryption;

/// The options that give the key of an encrypted directory, as the directives of these names do.
const KEY_OPTIONS: &[&str] = &["--encryption-key-file", "--encryption-key-command"];

/// The parsed arguments.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    dir: Option<PathBuf>,
    values: Vec<(&'static str, OsString)>,
    flags: Vec<&'static str>,
}

impl Arguments {
    /// Parses them. The names of options are given with their dashes.
    ///
    /// # Errors
    /// Something that is not expected, or given twice.
    pub(super) fn parse(
        args: Vec<OsString>,
        with_value: &[&'static str],
        flags: &[&'static str],
    ) -> Result<Arguments, String> {
        let mut parsed = Arguments::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let is = |name: &&&'static str| name.as_bytes() == arg.as_bytes();
            if let Some(name) = with_value.iter().chain(KEY_OPTIONS).find(is) {
                let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
                if parsed.values.iter().any(|(known, _)| known == name) {
                    return Err(format!("{name} is given twice"));
                }
                parsed.values.push((name, value));
            } else if let Some(name) = flags.iter().find(is) {
                parsed.flags.push(name);
            } else if arg.as_bytes().starts_with(b"-") {
                return Err(format!("unknown option '{}'", arg.display()));
            } else if parsed.dir.is_some() {
                return Err(format!("one directory is expected, '{}' is one more", arg.display()));
            } else {
                parsed.dir = Some(PathBuf::from(arg));
            }
        }
        Ok(parsed)
    }

    /// The directory.
    ///
    /// # Errors
    /// None was given.
    pub(super) fn dir(&self) -> Result<&PathBuf, String> {
        self.dir.as_ref().ok_or_else(|| "the data directory is missing".to_owned())
    }

    /// The value of an option.
    ///
    /// # Errors
    /// It was not given.
    pub(super) fn value(&self, name: &str) -> Result<&OsString, String> {
        let value = self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        value.ok_or_else(|| format!("{name} is missing"))
    }

    /// How the directory is encrypted; none if no key is given.
    ///
    /// # Errors
    /// The options contradict each other.
    pub(super) fn encryption(&self) -> Result<Option<Encryption>, String> {
        let mut text = b"encrypt-files no\n".to_vec();
        text.extend(self.key_lines());
        let config = Config::load(&Source::Defaults, &text).map_err(|error| error.to_string())?;
        Ok(encryption(&config.settings()))
    }

    /// The options of the key as lines of a configuration file.
    pub(super) fn key_lines(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (name, value) in self.values.iter().filter(|(name, _)| KEY_OPTIONS.contains(name)) {
            text.extend_from_slice(&name.as_bytes()[2..]);
            text.push(b' ');
            write_quoted(&mut text, value.as_bytes());
            text.push(b'\n');
        }
        text
    }

    /// Whether a flag was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }
}

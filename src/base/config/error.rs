//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

/// A refused configuration. It names the directive and, for a file, the line.
#[derive(Debug)]
pub enum ConfigError {
    /// A line that cannot be used. It is shown in the form that operators know from Redis.
    Line {
        /// The file's name, or `command line`.
        source: String,
        /// Counted from 1.
        line_number: usize,
        /// The line, without blanks around it.
        line: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that cannot be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// CONFIG SET of a name that does not exist.
    UnknownOption(Vec<u8>),
    /// CONFIG SET of a value that is refused, or cannot be applied.
    SetFailed {
        /// The argument at fault, as the client wrote it if Redis shows it that way.
        name: String,
        /// Why.
        problem: String,
    },
    /// CONFIG REWRITE without a file.
    NoFile,
    /// CONFIG REWRITE failed; the old file is untouched.
    RewriteFailed(std::io::Error),
    /// A command line that makes no sense.
    CommandLine(String),
}

impl fmt::Display for ConfigError {
    /// For CONFIG SET and REWRITE, the text of the error reply after `ERR `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Line { source, line_number, line, problem } => write!(
                f,
                "\n*** FATAL CONFIG FILE ERROR (Ironkeep {}) ***\nReading the configuration ({source}), at line \
                 {line_number}\n>>> '{line}'\n{problem}",
                env!("CARGO_PKG_VERSION")
            ),
            ConfigError::Unreadable { path, cause } => {
                write!(f, "Fatal error, can't open config file '{}': {cause}", path.display())
            }
            ConfigError::UnknownOption(name) => {
                let name = String::from_utf8_lossy(name);
                write!(f, "Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            ConfigError::SetFailed { name, problem } => {
                write!(f, "CONFIG SET failed (possibly related to argument '{name}') - {problem}")
            }
            ConfigError::NoFile => f.write_str("The server is running without a config file"),
            ConfigError::RewriteFailed(cause) => write!(f, "Rewriting config file: {cause}"),
            ConfigError::CommandLine(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable { cause, .. } | ConfigError::RewriteFailed(cause) => Some(cause),
            _ => None,
        }
    }
}

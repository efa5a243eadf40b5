//! The command line: `ironkeep [config-file|-] [--directive value …]`, as `redis-server`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::error::ConfigError;
use super::file::Source;
use super::words;

/// What the operator asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Start the server.
    Serve {
        /// The configuration file.
        source: Source,
        /// Lines that follow those of the file and therefore override them.
        overrides: Vec<u8>,
    },
    /// Print name and version.
    Version,
    /// Print the usage.
    Help,
    /// Print the commented default configuration.
    PrintConfig,
}

/// The text of `--help`.
pub const USAGE: &str = "\
Usage: ironkeep [config-file | -] [--directive value ...]
       ironkeep config            print the commented default configuration
       ironkeep -v | --version
       ironkeep -h | --help

The configuration file has the form of redis.conf; - reads it from standard input.
Examples:
       ironkeep
       ironkeep /etc/ironkeep.conf --loglevel verbose
       ironkeep --port 7777 --save 3600 1 300 100 --maxmemory 2gb
";

/// Parses the arguments, without the program's name.
pub fn parse_command_line(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, ConfigError> {
    let mut args = args.into_iter().peekable();
    match args.peek().map(|first| first.as_bytes()) {
        Some(b"-v" | b"--version") => return Ok(Invocation::Version),
        Some(b"-h" | b"--help") => return Ok(Invocation::Help),
        Some(b"config") => return Ok(Invocation::PrintConfig),
        _ => {}
    }
    let source = match args.next_if(|first| !first.as_bytes().starts_with(b"--")) {
        None => Source::Defaults,
        Some(first) if first.as_bytes() == b"-" => Source::Stdin,
        Some(first) if first.as_bytes().starts_with(b"-") => {
            return Err(ConfigError::CommandLine(format!("unknown option '{}'", first.display())));
        }
        Some(first) => Source::File(PathBuf::from(first)),
    };
    Ok(Invocation::Serve { source, overrides: overrides(args)? })
}

/// Turns `--name value …` into lines of a configuration file.
fn overrides(args: impl Iterator<Item = OsString>) -> Result<Vec<u8>, ConfigError> {
    let mut lines = Vec::new();
    let mut args = args.peekable();
    while let Some(option) = args.next() {
        let Some(name) = option.as_bytes().strip_prefix(b"--").filter(|name| !name.is_empty()) else {
            let shown = option.display();
            return Err(ConfigError::CommandLine(format!("'{shown}' is not an option: expected --directive value")));
        };
        // "--port 7777" may come as one argument, and so may "--port=7777" not: as in redis-server.
        if name.contains(&b'\n') {
            return Err(ConfigError::CommandLine("an option must not contain a line break".to_owned()));
        }
        lines.extend_from_slice(name);
        let has_value_inside = name.contains(&b' ');
        let is_save = name.eq_ignore_ascii_case(b"save");
        let mut values = 0;
        // The first value may itself begin with --, except after --save, where none means "".
        while let Some(value) = args.next_if(|next| {
            let starts_option = next.as_bytes().starts_with(b"--");
            !starts_option || (values == 0 && !is_save && !has_value_inside)
        }) {
            lines.push(b' ');
            words::write_quoted(&mut lines, value.as_bytes());
            values += 1;
        }
        if values == 0 && is_save {
            lines.extend_from_slice(b" \"\"");
        }
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Invocation, ConfigError> {
        parse_command_line(args.iter().map(OsString::from))
    }

    fn serve(args: &[&str]) -> (Source, String) {
        match parse(args).expect("a valid command line") {
            Invocation::Serve { source, overrides } => (source, String::from_utf8(overrides).expect("ASCII")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_that_do_not_serve() {
        assert_eq!(parse(&["--version"]).expect("valid"), Invocation::Version);
        assert_eq!(parse(&["-h"]).expect("valid"), Invocation::Help);
        assert_eq!(parse(&["config"]).expect("valid"), Invocation::PrintConfig);
        assert!(parse(&["-x"]).is_err());
        assert!(parse(&["file", "stray"]).is_err());
        assert!(parse(&["--port 1\nuser x"]).is_err());
    }

    #[test]
    fn file_and_overrides() {
        assert_eq!(serve(&[]), (Source::Defaults, String::new()));
        assert_eq!(serve(&["-"]), (Source::Stdin, String::new()));
        let (source, lines) = serve(&["a.conf", "--port", "7777", "--save", "1", "2", "3", "4"]);
        assert_eq!(source, Source::File("a.conf".into()));
        assert_eq!(lines, "port 7777\nsave 1 2 3 4\n");
        assert_eq!(serve(&["--save", "--port", "1"]).1, "save \"\"\nport 1\n");
        assert_eq!(serve(&["--port 7777", "--requirepass", "--x y"]).1, "port 7777\nrequirepass \"--x y\"\n");
    }
}

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
    /// Check a configuration, and say what it leaves open.
    Check {
        /// The configuration file.
        source: Source,
        /// As for serving.
        overrides: Vec<u8>,
        /// Whether it is said as JSON.
        as_json: bool,
    },
    /// Work on files instead of serving, as the tool of this name does.
    Tool {
        /// One of [`TOOLS`].
        name: &'static str,
        /// What follows the name.
        args: Vec<OsString>,
    },
    /// Print name and version.
    Version,
    /// Print the usage.
    Help,
    /// Print the part of the usage that tells of one command.
    HelpOf(&'static str),
    /// Print the configuration with comments.
    PrintConfig {
        /// The configuration file.
        source: Source,
        /// As for serving.
        overrides: Vec<u8>,
    },
}

/// The names of the tools.
pub const TOOLS: &[&str] = &["check", "export", "import", "repair", "restore", "ping", "completions", "man"];

/// The commands that take a configuration.
pub const SERVER_COMMANDS: [&str; 3] = ["serve", "config", "check-config"];

/// The text of `--help`.
pub const USAGE: &str = "\
Usage: ironkeep [config-file | -] [--directive value ...]
       ironkeep serve [config-file | -] [--directive value ...]
                                 the server, which is also what runs without a command
       ironkeep config [config-file | -] [--directive value ...]
                                 print the configuration with comments, every directive with its value
       ironkeep check-config [--json] [config-file | -] [--directive value ...]
                                 say what it leaves open: exit code 0 for nothing, 1 if the server would not start
                                 with it, 2 for weak doors, 3 for an open one
       ironkeep check DIR [--json] [--load]
                                 verify every file of a data directory, also beside its server; --load loads it, too:
                                 exit code 0 if it is sound, 1 if it cannot be read, 2 if it is damaged
       ironkeep restore DIR --list [--json]
       ironkeep restore DIR --to TIME|BLOCK --into NEW [--json]
                                 an earlier state: TIME in Unix seconds, milliseconds or ISO 8601, BLOCK as block:N;
                                 exit code 0 if it is there, 1 if not
       ironkeep repair DIR --into NEW [--json]
                                 what can be proven of a damaged directory: exit code 0 if nothing is lost, 1 if it
                                 failed, 2 if blocks are lost
                                 these take --encryption-key-file FILE or --encryption-key-command COMMAND, too
       ironkeep import FILE|DIR --into DIR|HOST:PORT [--merge] [--skip-modules] [--strict] [--databases N] [--json]
                                 the data of a Redis or Valkey: an RDB file, an append-only file or its directory,
                                 into a new directory or a running server; --merge: in the place of keys that are
                                 there; exit code 0 if all was taken, 1 if it failed, 2 if something was left out:
                                 values of modules, or the torn end of an append-only file (not with --strict);
                                 --any-version: try RDB files of versions that are not known
       ironkeep export DIR|HOST:PORT --format rdb|aof --to FILE [--rdb-version N] [--lfu] [--json]
                                 a file for Redis and Valkey; from a running server key by key, and not of one instant
                                 both ask servers as --user NAME with the password in REDISCLI_AUTH, under TLS with
                                 --tls [--cacert FILE] [--cert FILE --key FILE], and take
                                 --encryption-key-file FILE or --encryption-key-command COMMAND for directories
       ironkeep ping [HOST:PORT | SOCKET] [--json]
                                 ask a server whether it lives: exit code 0 if it answers, 1 if it does not within 3 s,
                                 2 if it answers that it cannot serve, as while it loads
       ironkeep completions bash|zsh|fish
                                 print what the shell is to complete
       ironkeep man              print the manual page
       ironkeep -v | --version
       ironkeep -h | --help

The configuration file has the form of redis.conf; - reads it from standard input.
Examples:
       ironkeep
       ironkeep /etc/ironkeep.conf --loglevel verbose
       ironkeep serve --dir /var/lib/ironkeep --appendfsync always
       ironkeep --port 7777 --save 3600 1 300 100 --maxmemory 2gb
       ironkeep config > ironkeep.conf
       ironkeep check-config /etc/ironkeep/ironkeep.conf
       ironkeep check /var/lib/ironkeep --json
       ironkeep restore /var/lib/ironkeep --to 2026-11-30T12:00:00Z --into /var/lib/ironkeep-noon
       ironkeep repair /var/lib/ironkeep --into /var/lib/ironkeep-repaired
       ironkeep import /var/lib/redis/dump.rdb --into /var/lib/ironkeep
       ironkeep export /var/lib/ironkeep --format rdb --to dump.rdb
       ironkeep export cache.example:6380 --tls --cacert ca.crt --format rdb --to dump.rdb
       ironkeep ping 127.0.0.1:6379
       ironkeep completions bash > /etc/bash_completion.d/ironkeep
       ironkeep man | man -l -
";

/// Parses the arguments, without the program's name.
pub fn parse_command_line(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, ConfigError> {
    let args: Vec<OsString> = args.into_iter().collect();
    if let [name, help, ..] = &args[..]
        && matches!(help.as_bytes(), b"-h" | b"--help")
        && let Some(name) = TOOLS.iter().chain(&SERVER_COMMANDS).find(|known| **known == name)
    {
        return Ok(Invocation::HelpOf(name));
    }
    let mut args = args.into_iter().peekable();
    match args.peek().map(|first| first.as_bytes()) {
        Some(b"-v" | b"--version") => return Ok(Invocation::Version),
        Some(b"-h" | b"--help") => return Ok(Invocation::Help),
        _ => {}
    }
    let is_tool = |first: &OsString| TOOLS.iter().copied().find(|name| first.as_bytes() == name.as_bytes());
    if let Some(name) = args.peek().and_then(is_tool) {
        return Ok(Invocation::Tool { name, args: args.skip(1).collect() });
    }
    let is_word = |first: &OsString| SERVER_COMMANDS.into_iter().find(|name| first.as_bytes() == name.as_bytes());
    let command = args.peek().and_then(is_word);
    args.next_if(|_| command.is_some());
    let (prints, checks) = (command == Some("config"), command == Some("check-config"));
    let is_json = |word: &OsString| word.as_bytes() == b"--json";
    let mut as_json = checks && args.next_if(is_json).is_some();
    let source = match args.next_if(|first| !first.as_bytes().starts_with(b"--")) {
        None => Source::Defaults,
        Some(first) if first.as_bytes() == b"-" => Source::Stdin,
        Some(first) if first.as_bytes().starts_with(b"-") => {
            return Err(ConfigError::CommandLine(format!("unknown option '{}'", first.display())));
        }
        Some(first) => Source::File(PathBuf::from(first)),
    };
    // Behind the file as well. There is no directive of this name.
    as_json |= checks && args.next_if(is_json).is_some();
    let overrides = overrides(args)?;
    Ok(match (prints, checks) {
        (true, _) => Invocation::PrintConfig { source, overrides },
        (_, true) => Invocation::Check { source, overrides, as_json },
        _ => Invocation::Serve { source, overrides },
    })
}

/// Turns `--name value …` into lines of a configuration file, each value in quotes as in Redis, whose errors show the
/// line. As there, what comes before the first `--name` is a line as well.
fn overrides(args: impl Iterator<Item = OsString>) -> Result<Vec<u8>, ConfigError> {
    let mut lines = Vec::new();
    let mut args = args.peekable();
    while let Some(option) = args.next() {
        let name = option.as_bytes().strip_prefix(b"--").unwrap_or(option.as_bytes());
        if name.is_empty() {
            let shown = option.display();
            return Err(ConfigError::CommandLine(format!("'{shown}' is not an option: expected --directive value")));
        }
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
            words::write_in_quotes(&mut lines, value.as_bytes());
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
        let printed = Invocation::PrintConfig { source: Source::Defaults, overrides: b"port \"1\"\n".to_vec() };
        assert_eq!(parse(&["config", "--port", "1"]).expect("valid"), printed);
        assert!(parse(&["-x"]).is_err());
        assert_eq!(parse(&["repair", "--help"]).expect("valid"), Invocation::HelpOf("repair"));
        assert_eq!(parse(&["config", "-h"]).expect("valid"), Invocation::HelpOf("config"));
        let tool = Invocation::Tool { name: "check", args: vec!["dir".into(), "--json".into()] };
        assert_eq!(parse(&["check", "dir", "--json"]).expect("valid"), tool);
        assert_eq!(serve(&["serve", "a.conf", "--port", "1"]), serve(&["a.conf", "--port", "1"]));
        assert_eq!(serve(&["serve"]), serve(&[]));
        assert_eq!(serve(&["./serve"]).0, Source::File("./serve".into()));
        assert!(TOOLS.iter().all(|name| USAGE.contains(&format!("ironkeep {name} "))));
        let checked = |as_json| {
            let source = Source::File("a.conf".into());
            Invocation::Check { source, overrides: b"port \"1\"\n".to_vec(), as_json }
        };
        assert_eq!(parse(&["check-config", "a.conf", "--port", "1"]).expect("valid"), checked(false));
        assert_eq!(parse(&["check-config", "--json", "a.conf", "--port", "1"]).expect("valid"), checked(true));
        assert_eq!(parse(&["check-config", "a.conf", "--json", "--port", "1"]).expect("valid"), checked(true));
        assert!(parse(&["file", "--"]).is_err());
        assert!(parse(&["--port 1\nuser x"]).is_err());
    }

    #[test]
    fn file_and_overrides() {
        assert_eq!(serve(&[]), (Source::Defaults, String::new()));
        assert_eq!(serve(&["-"]), (Source::Stdin, String::new()));
        let (source, lines) = serve(&["a.conf", "--port", "7777", "--save", "1", "2", "3", "4"]);
        assert_eq!(source, Source::File("a.conf".into()));
        assert_eq!(lines, "port \"7777\"\nsave \"1\" \"2\" \"3\" \"4\"\n");
        assert_eq!(serve(&["a.conf", "port", "1", "--x '2'"]).1, "port \"1\"\nx '2'\n");
        assert_eq!(serve(&["--save", "--port", "1"]).1, "save \"\"\nport \"1\"\n");
        assert_eq!(serve(&["--port 7777", "--requirepass", "--x y"]).1, "port 7777\nrequirepass \"--x y\"\n");
    }
}

//! The `ironkeep` binary: understand the command line, then serve.

use std::io::Write;
use std::process::ExitCode;

use ironkeep::base::alloc::Counting;
use ironkeep::base::config::{Config, Invocation, USAGE, parse_command_line, print_default};
use ironkeep::server::{daemon, startup, supervisor};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let command = match parse_command_line(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => return fail(&error),
    };
    let mut text = Vec::new();
    match command {
        Invocation::Serve { source, overrides } => match Config::load(&source, &overrides) {
            Ok(config) => return serve(config),
            Err(error) => return fail(&error),
        },
        Invocation::Version => {
            text.extend_from_slice(
                format!("Ironkeep {} (compatible with Redis 7.2)\n", env!("CARGO_PKG_VERSION")).as_bytes(),
            );
        }
        Invocation::Help => text.extend_from_slice(USAGE.as_bytes()),
        Invocation::PrintConfig => print_default(&mut text),
    }
    // A reader that has gone away, as `head` does, is no failure.
    let _ = std::io::stdout().write_all(&text);
    ExitCode::SUCCESS
}

fn serve(config: Config) -> ExitCode {
    let settings = config.settings();
    // A service manager wants the process that it has started.
    if settings.daemonize && !daemon::is_detached() && !supervisor::is_supervised(&settings) {
        return daemon::detach().unwrap_or_else(|error| fail(&error));
    }
    match startup::serve(config) {
        // Workers may still hold connections; nothing of theirs is owed once the log is closed.
        Ok(code) => std::process::exit(code),
        Err(error) => {
            ironkeep::base::logging::warning(format_args!("{error}"));
            fail(&error)
        }
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

//! The `ironkeep` binary: understand the command line, then serve.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use ironkeep::base::alloc::Counting;
use ironkeep::base::config::{Config, ConfigError, Invocation, USAGE, parse_command_line, usage};
use ironkeep::base::restart;
use ironkeep::persist::storage::RealStorage;
use ironkeep::server::{daemon, startup, supervisor};
use ironkeep::tool;
use ironkeep::tool::check_config::{self, Verdict};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    if let Err(error) = restart::remember() {
        return fail(&error);
    }
    let command = match parse_command_line(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => return fail(&error),
    };
    let mut text = Vec::new();
    match command {
        Invocation::Serve { source, overrides } => match Config::load(&source, &overrides) {
            Ok(config) => return serve(config),
            Err(error) => return refuse(&error),
        },
        Invocation::Check { source, overrides, as_json } => {
            let verdict = match Config::load(&source, &overrides) {
                Ok(config) => check_config::judge(&config),
                Err(error) if as_json => Verdict::refusal(&source, &error),
                Err(error) => return refuse(&error),
            };
            return verdict.print(as_json);
        }
        Invocation::Tool { name, args } => return tool::run(name, args),
        Invocation::Version => {
            text.extend_from_slice(
                format!("Ironkeep {} (compatible with Redis 7.4)\n", env!("CARGO_PKG_VERSION")).as_bytes(),
            );
        }
        Invocation::Help => text.extend_from_slice(USAGE.as_bytes()),
        Invocation::HelpOf(name) => text.extend_from_slice(usage::help_of(name).unwrap_or_default().as_bytes()),
        Invocation::PrintConfig { source, overrides } => match Config::load(&source, &overrides) {
            Ok(config) => config.print(&mut text),
            Err(error) => return refuse(&error),
        },
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
    if let Err(error) = enter(&settings.dir) {
        return fail(&format!("Can't chdir to '{}': {error}", settings.dir.display()));
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

/// Goes to the data directory, if one is given, and makes it, if it is missing. As in Redis, other paths are relative
/// to it.
fn enter(dir: &Path) -> std::io::Result<()> {
    if dir.is_absolute() {
        RealStorage::open(dir)?;
        std::env::set_current_dir(dir)?;
    }
    Ok(())
}

/// Ends because of the configuration. A word that is no file may have been meant as a command.
fn refuse(error: &ConfigError) -> ExitCode {
    let code = fail(error);
    if let ConfigError::Unreadable { path, .. } = error
        && let Some(near) = path.to_str().and_then(usage::nearest_command)
    {
        eprintln!("Did you mean 'ironkeep {near}'?");
    }
    code
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

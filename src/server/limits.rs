//! The limit of file descriptors of the process, and thus of clients.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::base::config::{Config, Settings};
use crate::base::logging;
use crate::http::DESCRIPTORS_MAX as HTTP_MAX;
use crate::server::handshakes::HALF_OPEN_MAX;

/// Descriptors for everything except clients: listeners, logs, snapshots, the workers' own. TLS needs more, for
/// connections whose handshake is not done.
const RESERVED: u64 = 32;
/// By how much a refused limit is lowered for the next attempt.
const STEP: u64 = 16;

/// Raises the limit of open files to what `maxclients` needs, and lowers `maxclients` if that is refused. Returns the
/// resulting settings.
pub fn make_room_for_clients(config: &Config) -> Arc<Settings> {
    let settings = config.settings();
    let reserved = RESERVED + if settings.tls_port == 0 { 0 } else { HALF_OPEN_MAX as u64 };
    let reserved = reserved + if settings.http_port == 0 { 0 } else { HTTP_MAX as u64 };
    let wanted = settings.maxclients as u64 + reserved;
    let allowed = raise(wanted);
    if allowed >= wanted {
        return settings;
    }
    logging::warning(format_args!(
        "You requested maxclients of {} requiring at least {wanted} max file descriptors; the system allows {allowed}.",
        settings.maxclients
    ));
    let possible = allowed.saturating_sub(reserved).max(1);
    let text = possible.to_string();
    match config.set(&[(b"maxclients", text.as_bytes())], true, |_, _, _| Ok(())) {
        Ok(_) => logging::warning(format_args!(
            "maxclients has been reduced to {possible} to compensate for the low limit. If you need higher maxclients \
             increase 'ulimit -n', or LimitNOFILE= of the service."
        )),
        Err(error) => logging::warning(format_args!("maxclients cannot be reduced: {error}")),
    }
    config.settings()
}

/// Whether this many clients fit, after raising the limit if necessary.
pub fn admits(clients: usize) -> bool {
    let wanted = clients as u64 + RESERVED;
    raise(wanted) >= wanted
}

/// Raises the limit as far towards `wanted` as the system allows. Returns the resulting limit.
fn raise(wanted: u64) -> u64 {
    let now = getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let hard = now.maximum.unwrap_or(u64::MAX);
    let mut attempt = wanted;
    while attempt > current {
        // Only a privileged process may raise the hard limit, which it must then do.
        let maximum = Some(hard.max(attempt)).filter(|limit| *limit != u64::MAX);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(attempt), maximum }).is_ok() {
            return attempt;
        }
        attempt = if attempt > hard { hard } else { attempt.saturating_sub(STEP) };
    }
    current
}

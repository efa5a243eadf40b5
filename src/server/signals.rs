//! The signals that a terminal, a supervisor or a rotation of logs sends.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT | the server ends as `shutdown-on-sigterm` and `shutdown-on-sigint` say; while it loads: at once |
//! | a further SIGINT | it ends at once, without saving |
//! | SIGHUP, SIGUSR1 | `logfile` is reopened, because it may have been renamed; without one: nothing |
//! | SIGPIPE, SIGUSR2, SIGALRM, SIGVTALRM, SIGIO | nothing |
//! | SIGXFSZ | the write beyond the limit fails, and the log deals with it |
//! | SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT | a report (`base/fatal.rs`), then as the system has it: a core dump |
//! | all others | as the system has it: SIGQUIT ends the process with a core dump |
//!
//! A separate thread receives them, because a second SIGINT must be noticed while the final snapshot is written.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::base::logging;
use crate::core::Server;
use crate::core::server::ShutdownRequest;

/// Signals without effect. Rust's runtime already ignores SIGPIPE.
const WITHOUT_EFFECT: &[libc::c_int] = &[libc::SIGXFSZ, libc::SIGUSR2, libc::SIGALRM, libc::SIGVTALRM, libc::SIGIO];

/// A handle to the receiver of signals, which continues without it.
#[derive(Debug)]
pub struct Signals {
    server: Arc<OnceLock<Arc<Server>>>,
}

/// From now on, receives signals.
///
/// # Errors
/// A signal cannot be caught, or a thread cannot be started.
pub fn receive() -> io::Result<Signals> {
    let server = Arc::new(OnceLock::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let streams = {
        let _context = runtime.enter();
        for &number in WITHOUT_EFFECT {
            // The signal stays caught when the stream is dropped.
            drop(signal(SignalKind::from_raw(number))?);
        }
        Streams {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user_defined: signal(SignalKind::user_defined1())?,
        }
    };
    let signals = Signals { server: Arc::clone(&server) };
    thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(streams.watch(&server)))?;
    Ok(signals)
}

impl Signals {
    /// From now on, signals that end the process are requests to this server.
    pub fn serve(&self, server: &Arc<Server>) {
        // Set once: there is one server per process.
        let _ = self.server.set(Arc::clone(server));
    }
}

struct Streams {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user_defined: Signal,
}

impl Streams {
    async fn watch(mut self, server: &OnceLock<Arc<Server>>) {
        // Whether a signal has requested the shutdown in progress.
        let mut signalled = false;
        loop {
            let is_interrupt = tokio::select! {
                _ = self.terminate.recv() => false,
                _ = self.interrupt.recv() => true,
                _ = self.hangup.recv() => { reopen_log("SIGHUP"); continue }
                _ = self.user_defined.recv() => { reopen_log("SIGUSR1"); continue }
            };
            let name = if is_interrupt { "SIGINT" } else { "SIGTERM" };
            let Some(server) = server.get() else {
                logging::warning(format_args!("Received {name} during loading, exiting now."));
                std::process::exit(0);
            };
            signalled &= server.shutdown.asked.load(Relaxed);
            if signalled && is_interrupt {
                logging::warning(format_args!("You insist... exiting now."));
                std::process::exit(1);
            }
            if !signalled {
                request_end(server, name, is_interrupt);
            }
            signalled = true;
        }
    }
}

fn request_end(server: &Server, name: &str, is_interrupt: bool) {
    logging::warning(format_args!("Received {name} scheduling shutdown..."));
    let settings = server.config.settings();
    let flags = if is_interrupt { &settings.shutdown_on_sigint } else { &settings.shutdown_on_sigterm };
    let save = match (flags.contains(&"save"), flags.contains(&"nosave")) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    server.shutdown.request(ShutdownRequest { save, force: flags.contains(&"force"), restart: None, refused: None });
}

/// Tools that rotate logs rename the file first, and then send a signal.
fn reopen_log(name: &str) {
    match logging::reopen() {
        Ok(true) => logging::notice(format_args!("Received {name}: the log file was opened anew")),
        Ok(false) => logging::notice(format_args!("Received {name}: nothing to do")),
        Err(error) => logging::warning(format_args!("Received {name}, but the log file cannot be opened: {error}")),
    }
}

//! What the operator's log says of a bug: after a panic, which the server survives, and of a signal that ends it.
//!
//! ```text
//! === IRONKEEP BUG REPORT START ===
//! what happened, on which thread, and where
//! version, system, uptime, memory, state of the log
//! the frames of the thread
//! === IRONKEEP BUG REPORT END ===
//! ```
//!
//! Invariant: it reads atomics and immutable values alone, because the thread that failed may hold any lock.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{OnceLock, Weak};

use crate::base::fatal::{self, Fault};
use crate::base::{alloc, clock, logging};
use crate::core::Server;

/// Between two whole reports of panics pass at least this many milliseconds, so that a client that provokes one again
/// and again does not fill the disk. A panic in between takes one line.
const REPORTS_APART_MS: i64 = 10_000;

/// Lines of a panic's stack, two for a frame. The first of them are the report's own.
const FRAMES_SHOWN: usize = 128;

static SERVER: OnceLock<Weak<Server>> = OnceLock::new();
static IS_WHOLE: AtomicBool = AtomicBool::new(true);
static LAST_MS: AtomicI64 = AtomicI64::new(0);

/// From now on, reports panics and fatal signals. Without `whole` a panic takes one line, and signals are left to the
/// system: `crash-log-enabled`.
pub fn begin(whole: bool) {
    IS_WHOLE.store(whole, Relaxed);
    std::panic::set_hook(Box::new(report_panic));
    if let Err(error) = fatal::watch(report_fault) {
        logging::warning(format_args!("Fatal signals cannot be reported: {error}"));
    }
}

/// `crash-log-enabled` has changed.
pub fn set_whole(whole: bool) {
    IS_WHOLE.store(whole, Relaxed);
}

/// Reports tell of the state of this server from now on.
pub fn tell_of(server: &std::sync::Arc<Server>) {
    // Set once: there is one server per process.
    let _ = SERVER.set(std::sync::Arc::downgrade(server));
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    // What follows the first line are the values that were compared, which may be a user's.
    let (first, values) = message.split_once('\n').unwrap_or((message, ""));
    let place = info.location().map_or_else(|| "?".to_owned(), ToString::to_string);
    let thread = std::thread::current().name().unwrap_or("?").to_owned();
    logging::warning(format_args!("Panic on thread '{thread}' at {place}: {first}"));
    if !values.is_empty() {
        logging::warning(format_args!("{}", logging::user_data(values.trim())));
    }
    let now = clock::now_ms();
    let last = LAST_MS.load(Relaxed);
    if IS_WHOLE.load(Relaxed)
        && (last == 0 || now - last >= REPORTS_APART_MS)
        && LAST_MS.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    {
        let frames = Backtrace::force_capture().to_string();
        report(
            "the server goes on; whether the command was undone stands in its reply",
            frames.lines().take(FRAMES_SHOWN),
        );
    }
}

fn report_fault(fault: &Fault) {
    let Fault { signal, address, thread, .. } = fault;
    logging::warning(format_args!("Ironkeep {} crashed by {signal} on thread '{thread}'", env!("CARGO_PKG_VERSION")));
    logging::warning(format_args!("Accessing address: {address:#x}"));
    if IS_WHOLE.load(Relaxed) {
        report("the server ends", fault.frames());
    }
}

fn report(outcome: &str, frames: impl Iterator<Item = impl AsRef<str>>) {
    let line = |text: std::fmt::Arguments<'_>| logging::warning(text);
    line(format_args!("=== IRONKEEP BUG REPORT START: Cut & paste starting from here ==="));
    line(format_args!("Outcome: {outcome}"));
    let system = rustix::system::uname();
    line(format_args!(
        "Version: Ironkeep {}, {} build; system: {} {} {}",
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) { "debug" } else { "release" },
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.machine().to_string_lossy(),
    ));
    line(format_args!("Memory: {} bytes used", alloc::used_memory()));
    match SERVER.get().and_then(Weak::upgrade) {
        None => line(format_args!("State: before the start or behind the end")),
        Some(server) => tell_state(&server),
    }
    line(format_args!("Stack:"));
    frames.for_each(|frame| line(format_args!("  {}", frame.as_ref().trim_end())));
    line(format_args!("=== IRONKEEP BUG REPORT END ==="));
}

fn tell_state(server: &Server) {
    let uptime = (clock::now_ms() - server.started_ms) / 1000;
    let commands: u64 =
        server.workers.iter().flat_map(|worker| worker.commands.iter()).map(|command| command.calls.get()).sum();
    logging::warning(format_args!(
        "State: up for {uptime} s, {} workers, {commands} commands, {} connections accepted, program {}, \
         configuration {}",
        server.roster.in_service(),
        server.counters.connections.get(),
        server.executable,
        if server.config_file.is_empty() { "none" } else { &server.config_file },
    ));
    let log = server.store.log();
    logging::warning(format_args!(
        "Log: {}, at block {}, synced up to {}",
        match (log.is_poisoned(), log.is_active()) {
            (true, _) => "failed",
            (_, true) => "on",
            _ => "off",
        },
        log.journal().position(),
        log.synced(),
    ));
}

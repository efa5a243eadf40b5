//! The scrub: reads the files of the store again, slowly, and compares them with their checksums, so that a disk that
//! forgets is noticed while older generations and backups can still help.
//!
//! It has a thread of its own, holds no lock while it reads, and sleeps between reads. No command waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::base::{clock, logging};
use crate::core::Server;

/// How much may be read at once before the thread sleeps, in bytes.
const AT_ONCE: u64 = 1 << 20;
/// The longest sleep after which the settings and the end of the server are looked at again.
const NAP_MAX: Duration = Duration::from_millis(200);

/// Begins a pass if it is time. Called by the timer.
pub fn tick(server: &Arc<Server>) {
    let settings = server.config.settings();
    let interval_ms = settings.scrub_interval as i64 * 1000;
    let is_due = interval_ms > 0 && clock::now_ms() - server.scrub.begun_ms.load(Relaxed) >= interval_ms;
    if !is_due || server.saving.ending.load(Relaxed) || server.scrub.is_running.swap(true, Relaxed) {
        return;
    }
    server.scrub.begun_ms.store(clock::now_ms(), Relaxed);
    let shared = Arc::clone(server);
    let spawned = std::thread::Builder::new().name("scrub".into()).spawn(move || {
        // A panic has been reported.
        let _ = catch_unwind(AssertUnwindSafe(|| scrub(&shared)));
        shared.scrub.progress.end();
        shared.scrub.is_running.store(false, Relaxed);
    });
    if let Err(error) = spawned {
        server.scrub.is_running.store(false, Relaxed);
        logging::warning(format_args!("Nothing is scrubbed, for there is no thread to do it: {error}"));
    }
}

fn scrub(server: &Server) {
    let mut read = 0;
    let pace = |bytes| {
        read += bytes;
        server.scrub.bytes.fetch_add(bytes, Relaxed);
        server.scrub.progress.add(bytes);
        if read >= AT_ONCE {
            sleep_for(server, std::mem::take(&mut read));
        }
        !server.saving.ending.load(Relaxed) && server.config.settings().scrub_interval > 0
    };
    let scrubbed = server.store.scrub(|total| server.scrub.progress.begin(total), pace);
    server.scrub.faults.fetch_add(scrubbed.faults.len() as u64, Relaxed);
    for fault in &scrubbed.faults {
        let (file, what) = (fault.file.display(), &fault.what);
        let offset = fault.offset.map_or(String::new(), |offset| format!(" at offset {offset}"));
        logging::warning(format_args!(
            "The scrub found a fault in {file}{offset}: {what}. `ironkeep check` says more; BGSAVE writes all anew"
        ));
    }
    if scrubbed.is_complete {
        server.scrub.passes.fetch_add(1, Relaxed);
        server.scrub.last_time.store(clock::now_ms() / 1000, Relaxed);
        logging::verbose(format_args!("The scrub has read {} bytes", scrubbed.bytes));
    }
}

/// Sleeps as long as these bytes may take.
fn sleep_for(server: &Server, bytes: u64) {
    let mut left = Duration::from_secs_f64(bytes as f64 / server.config.settings().scrub_bytes_per_second as f64);
    while !left.is_zero() && !server.saving.ending.load(Relaxed) {
        let nap = left.min(NAP_MAX);
        std::thread::sleep(nap);
        left -= nap;
    }
}

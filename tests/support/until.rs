//! Waits for what comes by itself, however slow the machine is, and ends all the same when it does not come.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::server::Server;

/// How long is waited. A machine may have fifty other things to do.
const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until a condition holds; fails the test, and says what it waited for, when that takes too long.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Kills its server when it goes, also by a panic. A scope waits for its threads, and those for the server's end.
pub(crate) struct KillOnDrop<'a>(pub(crate) &'a mut Server);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        self.0.kill();
    }
}

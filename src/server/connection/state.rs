//! What a connection is about to do next.
//!
//! ```text
//!              bytes                        executed
//!   ┌─▶ Idle ────────▶ (Staged) ──────────────────────────▶ Idle
//!   │                      │ more than a turn's part ──▶ Unexecuted ──▶ executed again
//!   │                      │ a lock is busy ───────────▶ Parked ──────▶ executed again
//!   │                      │ BLPOP, WAIT, SAVE … ──────▶ Waiting ─┐
//!   │                      │ QUIT, a protocol error ───▶ Closing ─│──▶ Over, when its replies are gone
//!   └──────────────────────────────────────────────────────────────┘
//!   any ── closed, failed, the client went ──▶ Over
//! ```
//!
//! Whether its replies have left is the outbox's own matter: see [`Sending`](super::outbox::Sending).
//!
//! Invariants:
//! - A connection that is over stays so.

use crate::keyspace::Busy;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for bytes.
    Idle,
    /// What it sent last is executed with what others have sent, at the end of this turn of the event loop.
    Staged,
    /// There is more to execute of what was received, once the replies so far have left.
    Unexecuted,
    /// Its next command waits for a lock: see `server::parking`.
    Parked(Busy),
    /// A command waits: for a key, for time to pass, for the disk.
    Waiting,
    /// It executes nothing more, and ends when its replies are gone.
    Closing,
    /// It ends now.
    Over {
        /// Whether the client went first: nobody is left to read replies, but what was sent is executed.
        abandoned: bool,
    },
}

impl State {
    /// Whether it ends now.
    pub fn is_over(self) -> bool {
        matches!(self, State::Over { .. })
    }

    /// Whether it takes no bytes of its client just now: those wait in the socket.
    pub fn is_deaf(self) -> bool {
        matches!(self, State::Staged | State::Parked(_) | State::Closing)
    }
}

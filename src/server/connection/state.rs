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
//! Whether its replies have left is a matter of the outbox: see [`Sending`](super::outbox::Sending).
//!
//! Invariants:
//! - A connection that is over stays so.

use crate::keyspace::Busy;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for bytes.
    Idle,
    /// Its last input is executed together with that of other connections, at the end of this turn of the event loop.
    Staged,
    /// More of its input is to be executed, once the replies so far have left.
    Unexecuted,
    /// Its next command waits for a lock, or for the end of a pause: see `server::parking`.
    Parked(Busy),
    /// A command waits: for a key, for time to pass, for the disk.
    Waiting,
    /// It executes nothing more, and ends when its replies are gone.
    Closing,
    /// It ends now.
    Over {
        /// Whether the client left first: nobody will read replies, but its input is executed.
        abandoned: bool,
    },
}

impl State {
    /// Whether it ends now.
    pub fn is_over(self) -> bool {
        matches!(self, State::Over { .. })
    }

    /// Whether it currently takes no bytes from its client; those wait in the socket.
    pub fn is_deaf(self) -> bool {
        matches!(self, State::Staged | State::Parked(_) | State::Closing)
    }
}

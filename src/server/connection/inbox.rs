//! What a connection has received and not executed yet.
//!
//! Invariants:
//! - An idle connection keeps only an incomplete command here.
//! - All of its memory is counted and bounded together: the bytes, and the positions of the arguments among them.

use super::received::Received;
use crate::resp::Request;

/// The largest part of an incomplete command that waits for the rest in the worker's buffer, in bytes.
const LENT_MAX_BYTES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The pending bytes.
    pub received: Received,
    /// The decoding progress of the incomplete command at their beginning.
    pub decoding: Request,
}

impl Inbox {
    /// What was received elsewhere.
    pub fn of(bytes: Vec<u8>) -> Inbox {
        Inbox { received: Received::of(bytes), decoding: Request::default() }
    }

    /// Appends arrived bytes to the pending ones.
    pub fn add(&mut self, arrived: &[u8]) {
        let wanted = self.decoding.wanted(self.received.len());
        self.received.extend(arrived, wanted);
    }

    /// Copies a short pending part of an incomplete command into the worker's buffer, so that the rest arrives behind
    /// it there and needs no memory of the connection. Returns its length.
    pub fn lend(&self, buffer: &mut [u8]) -> usize {
        let waiting = self.received.as_slice();
        if waiting.is_empty() || waiting.len() > LENT_MAX_BYTES {
            return 0;
        }
        buffer[..waiting.len()].copy_from_slice(waiting);
        waiting.len()
    }

    /// Drops the lent part: everything is in the worker's buffer now.
    pub fn forget_lent(&mut self) {
        self.received = Received::default();
    }
}

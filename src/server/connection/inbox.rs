//! What a connection has received, and no command was executed of.
//!
//! Invariants:
//! - An idle connection keeps nothing here but an incomplete command.
//! - All of its memory is counted, and bounded together: the bytes, and where the arguments among them lie.

use super::received::Received;
use crate::resp::Request;

/// The most of an incomplete command that waits for the rest in the worker's buffer, in bytes.
const LENT_MAX_BYTES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The bytes that wait.
    pub received: Received,
    /// How far the incomplete command at their beginning is decoded.
    pub decoding: Request,
}

impl Inbox {
    /// Adds what has arrived to what waits.
    pub fn add(&mut self, arrived: &[u8]) {
        let wanted = self.decoding.wanted(self.received.len());
        self.received.extend(arrived, wanted);
    }

    /// Puts what waits of an incomplete command, if it is little, into the worker's buffer, so that what arrives stands
    /// behind it there and needs no memory of the connection's own. Returns how much that is.
    pub fn lend(&self, buffer: &mut [u8]) -> usize {
        let waiting = self.received.as_slice();
        if waiting.is_empty() || waiting.len() > LENT_MAX_BYTES {
            return 0;
        }
        buffer[..waiting.len()].copy_from_slice(waiting);
        waiting.len()
    }

    /// What was lent has been added to: it is all in the buffer now.
    pub fn forget_lent(&mut self) {
        self.received = Received::default();
    }
}

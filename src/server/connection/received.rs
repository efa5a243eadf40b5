//! Received bytes of a connection that are not decoded into commands yet.
//!
//! Invariants:
//! - Taking commands from the front costs nothing per remaining byte, however many there are.
//! - Memory is held for bytes that have arrived, not for announced ones, and is given back when they are consumed.

use zeroize::Zeroize;

/// Memory beyond this is given back once most of it is unused, in bytes.
const ROOM_KEPT_BYTES: usize = 64 * 1024;
/// A buffer from this size on, in bytes, is freed by another thread: a gigabyte takes the kernel a tenth of a second.
const LARGE_MIN_BYTES: usize = 1 << 20;

/// Received bytes, of which those before `start` are consumed.
#[derive(Debug, Default)]
pub struct Received {
    bytes: Vec<u8>,
    start: usize,
}

impl Received {
    /// What was received elsewhere.
    pub fn of(bytes: Vec<u8>) -> Received {
        Received { bytes, start: 0 }
    }

    /// The pending bytes.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.bytes
    }

    /// The pending bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many are pending.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The memory that is held for them, in bytes.
    pub fn room(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether none is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends arrived bytes. `wanted` is the length at which the pending command is complete, as far as that is
    /// known and credible.
    pub fn extend(&mut self, arrived: &[u8], wanted: usize) {
        // More is not moved, because with much pending and little consumed at a time this would happen again and
        // again.
        let is_little = self.len() <= self.start.max(ROOM_KEPT_BYTES);
        if self.start > 0 && is_little && self.bytes.len() + arrived.len() > self.bytes.capacity() {
            drop(self.compact());
        }
        if wanted > self.bytes.capacity() && wanted >= self.len() + arrived.len() {
            // The last step does not double: a large value would otherwise cost twice its size.
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(arrived);
    }

    /// Drops `count` bytes from the front, and overwrites them if they hold a secret. Returns a large buffer that has
    /// become useless: freeing it takes long.
    #[must_use]
    pub fn consume(&mut self, count: usize, is_secret: bool) -> Option<Vec<u8>> {
        self.start += count;
        if is_secret {
            self.bytes[..self.start].zeroize();
        }
        if self.is_empty() {
            return std::mem::take(self).into_large();
        }
        if self.start > self.bytes.len() / 2 {
            return self.compact();
        }
        None
    }

    /// Its buffer, if that is large.
    pub fn into_large(self) -> Option<Vec<u8>> {
        Some(self.bytes).filter(|bytes| bytes.capacity() >= LARGE_MIN_BYTES)
    }

    /// Moves the pending bytes to the front. Fewer bytes are moved than were consumed since the last time. Returns a
    /// large buffer that they have left.
    fn compact(&mut self) -> Option<Vec<u8>> {
        let is_far_too_large = self.bytes.capacity() > ROOM_KEPT_BYTES && self.len() < self.bytes.capacity() / 4;
        if !is_far_too_large {
            self.bytes.drain(..self.start);
            self.start = 0;
            return None;
        }
        let bytes = self.as_slice().to_vec();
        std::mem::replace(self, Received { bytes, start: 0 }).into_large()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_came_in() {
        let mut received = Received::default();
        let mut expected = Vec::new();
        for round in 0..1000_usize {
            let arrived = vec![round as u8; round % 91];
            received.extend(&arrived, 0);
            expected.extend_from_slice(&arrived);
            let gone = (round * 7 % 89).min(expected.len());
            assert_eq!(received.consume(gone, false), None);
            expected.drain(..gone);
            assert_eq!(received.as_slice(), expected);
            assert_eq!((received.len(), received.is_empty()), (expected.len(), expected.is_empty()));
        }
    }

    #[test]
    fn what_waits_is_not_moved_for_little_that_was_consumed() {
        let mut received = Received::default();
        received.extend(&vec![1; 1_000_000], 1_000_000);
        assert_eq!(received.consume(300, false), None);
        received.extend(&[2; 200], 0);
        assert_eq!((received.start, received.len()), (300, 999_900));
        drop(received.consume(999_699, false));
        assert_eq!((received.start, received.as_slice()), (0, &[&[1][..], &[2; 200][..]].concat()[..]));
    }

    #[test]
    fn memory_follows_what_waits() {
        let mut received = Received::default();
        received.extend(&vec![1; 600_000], 0);
        received.extend(&vec![1; 100_000], 1_000_000);
        assert_eq!(received.bytes.capacity(), 1_000_000);
        received.extend(&vec![1; 300_000], 1_000_000);
        assert_eq!(received.bytes.capacity(), 1_000_000, "exactly what the command needs");
        assert_eq!(received.consume(999_990, false), None);
        assert!(received.bytes.capacity() < 1000, "the rest of a large command keeps no large buffer");
        assert_eq!(received.consume(10, false), None);
        assert_eq!(received.bytes.capacity(), 0);
    }

    #[test]
    fn a_large_buffer_is_given_to_who_frees_it() {
        for rest in [0, 10] {
            let mut received = Received::default();
            received.extend(&vec![1; LARGE_MIN_BYTES + rest], 0);
            let large = received.consume(LARGE_MIN_BYTES, false).expect("it is large");
            assert!(large.capacity() >= LARGE_MIN_BYTES);
            assert_eq!(received.as_slice(), vec![1; rest]);
        }
    }
}

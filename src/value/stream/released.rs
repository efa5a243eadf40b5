//! Pending entries that consumers have handed back with XNACK: they are nobody's, and the first to be claimed, in the
//! order in which they came back.
//!
//! Invariant: each entry has one place in the queue.

use super::id::StreamId;
use super::ordered::{Keyed, Ordered};

/// An entry in the queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    id: StreamId,
}

/// Where in the queue an entry is.
#[derive(Clone, Copy, Debug)]
struct Placed {
    id: StreamId,
    number: u64,
}

impl Keyed for Place {
    type Key = u64;
    type Query = u64;
    const RUN_MAX: usize = 64;

    fn key(&self) -> u64 {
        self.number
    }

    fn query(&self) -> &u64 {
        &self.number
    }
}

impl Keyed for Placed {
    type Key = StreamId;
    type Query = StreamId;
    const RUN_MAX: usize = 64;

    fn key(&self) -> StreamId {
        self.id
    }

    fn query(&self) -> &StreamId {
        &self.id
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Released {
    next: u64,
    queue: Ordered<Place>,
    places: Ordered<Placed>,
}

impl Released {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// An estimate of its bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Released>() + self.queue.bytes() + self.places.bytes()
    }

    /// The entries in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = StreamId> {
        self.queue.iter().map(|place| place.id)
    }

    /// Puts an entry behind all others, wherever it was.
    pub(super) fn push(&mut self, id: StreamId) {
        self.remove(id);
        let number = self.next;
        self.next += 1;
        self.queue.extend_back([Place { number, id }]);
        self.places.insert(&id, Placed { id, number });
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, id: StreamId) {
        if let Some(placed) = self.places.remove(&id) {
            self.queue.remove(&placed.number);
        }
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub(super) fn check_invariants(&self) {
        self.queue.check_invariants(|one, two| one.number < two.number);
        self.places.check_invariants(|one, two| one.id < two.id);
        assert_eq!(self.queue.len(), self.places.len());
        for place in self.queue.iter() {
            assert_eq!(self.places.get(&place.id).map(|placed| placed.number), Some(place.number));
            assert!(place.number < self.next);
        }
    }
}

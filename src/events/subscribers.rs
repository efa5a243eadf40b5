//! The subscribers of one channel or pattern.
//!
//! A message takes their lists along, so a list that is changed meanwhile is copied.

use std::sync::Arc;

use smallvec::SmallVec;

/// The name of a channel, or a pattern.
pub type Name = Arc<[u8]>;
/// The ids of clients, ascending.
pub type Ids = Arc<Vec<u64>>;

/// The subscribers of a channel or pattern, by worker.
#[derive(Debug, Default)]
pub(super) struct Subscribers(SmallVec<[(usize, Ids); 1]>);

impl Subscribers {
    /// Adds one, a client of this worker.
    pub(super) fn add(&mut self, worker: usize, client: u64) {
        let at = match self.0.iter().position(|(of, _)| *of == worker) {
            Some(at) => at,
            None => {
                self.0.push((worker, Ids::default()));
                self.0.len() - 1
            }
        };
        let ids = Arc::make_mut(&mut self.0[at].1);
        if let Err(place) = ids.binary_search(&client) {
            ids.insert(place, client);
        }
    }

    /// Removes one.
    pub(super) fn remove(&mut self, worker: usize, client: u64) {
        let Some(at) = self.0.iter().position(|(of, _)| *of == worker) else { return };
        let ids = &mut self.0[at].1;
        if let Ok(place) = ids.binary_search(&client) {
            Arc::make_mut(ids).remove(place);
        }
        if ids.is_empty() {
            self.0.swap_remove(at);
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|(_, ids)| ids.len()).sum()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The workers, each with its own.
    pub(super) fn by_worker(&self) -> impl Iterator<Item = &(usize, Ids)> {
        self.0.iter()
    }
}

//! Which workers are in service: those whose number is below a limit that CONFIG SET io-threads moves.
//!
//! A worker that was started stays for as long as the process. One that is out of service gets no new connections and
//! sends on those that it has, each as soon as nothing of it is under way: see `server::moving`.
//!
//! Invariants:
//! - At least one worker is in service, and each in service is started.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::keyspace::SHARDS;

/// See the module.
#[derive(Debug)]
pub struct Roster {
    in_service: AtomicUsize,
    /// How many connections were dealt.
    dealt: AtomicUsize,
}

impl Roster {
    /// This many workers are in service, at least one.
    pub fn new(workers: usize) -> Roster {
        Roster { in_service: AtomicUsize::new(workers.max(1)), dealt: AtomicUsize::new(0) }
    }

    /// How many are in service.
    #[inline]
    pub fn in_service(&self) -> usize {
        self.in_service.load(Relaxed)
    }

    /// Has this many be in service. They are started.
    pub fn set_in_service(&self, workers: usize) {
        self.in_service.store(workers.max(1), Relaxed);
    }

    /// The shards that a worker tends beside serving, such as to remove expired keys: none if it is out of service.
    pub fn shards_of(&self, worker: usize) -> impl Iterator<Item = usize> + use<> {
        let workers = self.in_service();
        (if worker < workers { worker } else { SHARDS }..SHARDS).step_by(workers)
    }

    /// The worker for the next connection, in turn.
    pub fn deal(&self) -> usize {
        self.dealt.fetch_add(1, Relaxed) % self.in_service()
    }
}

/// Which connections move so that all workers in service have the same number of them, give or take one: for each
/// worker with too many, its number and to which workers they go. `clients` is how many each worker in service has.
pub fn shares(clients: &[usize]) -> Vec<(usize, Vec<usize>)> {
    let total: usize = clients.iter().sum();
    let (each, more) = (total / clients.len().max(1), total % clients.len().max(1));
    // Who has more keeps the odd ones: the fewest connections move.
    let mut by_number: Vec<usize> = (0..clients.len()).collect();
    by_number.sort_by_key(|worker| std::cmp::Reverse(clients[*worker]));
    let mut wanted = vec![each; clients.len()];
    by_number.iter().take(more).for_each(|worker| wanted[*worker] += 1);
    let few = |worker: usize| std::iter::repeat_n(worker, wanted[worker].saturating_sub(clients[worker]));
    let mut places = (0..clients.len()).flat_map(few);
    let give = |worker: usize| {
        let to: Vec<usize> = places.by_ref().take(clients[worker].saturating_sub(wanted[worker])).collect();
        (!to.is_empty()).then_some((worker, to))
    };
    (0..clients.len()).filter_map(give).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_dealt_to_those_in_service() {
        let roster = Roster::new(3);
        assert_eq!((0..6).map(|_| roster.deal()).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        roster.set_in_service(1);
        assert_eq!((0..3).map(|_| roster.deal()).collect::<Vec<_>>(), [0, 0, 0]);
        roster.set_in_service(0);
        assert_eq!((roster.shards_of(0).count(), roster.shards_of(1).count()), (SHARDS, 0));
        assert_eq!((roster.in_service(), Roster::new(0).in_service()), (1, 1), "somebody must serve");
    }

    #[test]
    fn shares_are_fair_and_move_no_more_than_they_must() {
        assert_eq!(shares(&[8, 0, 0, 0]), [(0, vec![1, 1, 2, 2, 3, 3])]);
        assert_eq!(shares(&[5, 5, 0]), [(0, vec![2]), (1, vec![2, 2])].map(|of| of));
        assert_eq!(shares(&[2, 1, 1]), []);
        assert_eq!(shares(&[1, 2, 1]), [], "the odd one stays where it is");
        assert_eq!(shares(&[0, 0]), []);
        assert_eq!(shares(&[]), []);
        for clients in [vec![100, 3, 0, 40], vec![0, 0, 9], vec![1, 1, 1, 17]] {
            let mut after = clients.clone();
            for (from, to) in shares(&clients) {
                after[from] -= to.len();
                to.iter().for_each(|to| after[*to] += 1);
            }
            let (least, most) = (after.iter().min(), after.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{clients:?} {after:?}");
        }
    }
}

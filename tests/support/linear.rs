//! Checks recorded histories for linearizability: each call takes effect at one instant between its beginning and its
//! end, and gives the reply of that instant.
//!
//! The search is that of Wing and Gong, with the just-in-time order and the memory of Lowe: events are taken in the
//! order of time, and the checker keeps the set of all *configurations* that explain them so far. A configuration is a
//! state and the calls in progress that have taken effect in it. A reply that no configuration explains is a violation.
//!
//! - Histories are checked by object, because linearizability is local.
//! - A call that was not answered stays open. If its server died, it took effect before that, or never: nothing that
//!   a crash interrupted may come about after the restart.
//! - The file depends on nothing else, so that the simulation inside the crate uses it as well.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

/// More configurations than this mean that the history is not made for checking.
const CONFIGURATIONS_MAX: usize = 500_000;

/// What an object is, in one thread.
pub(crate) trait Model {
    /// All that it remembers.
    type State: Clone + Eq + Hash + Debug;
    /// One call.
    type Call: Debug;
    /// What the caller receives.
    type Reply: Eq + Debug;

    /// The state after the call, and the reply to it.
    fn apply(state: &Self::State, call: &Self::Call) -> (Self::State, Self::Reply);
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum End<R> {
    /// With a reply, at that time.
    Answered(u64, R),
    /// Its server died at that time.
    Died(u64),
    /// Nobody knows: it may take effect at any time after its beginning, or never.
    Open,
}

/// One call of a history. Times are ticks of one clock for all clients.
#[derive(Clone, Debug)]
pub(crate) struct Op<C, R> {
    /// Who called, for messages.
    pub(crate) client: usize,
    /// What was called.
    pub(crate) call: C,
    /// Before it was sent.
    pub(crate) began: u64,
    /// How it ended.
    pub(crate) end: End<R>,
}

/// What the configurations explain: a state, and a bit for each call in progress that has taken effect.
type Configuration<S> = (S, u128);

/// Checks the history of one object, life after life.
pub(crate) struct Checker<M: Model> {
    configurations: HashSet<Configuration<M::State>>,
    pending: HashMap<usize, Op<M::Call, M::Reply>>,
    /// Answered calls so far.
    pub(crate) answered: u64,
    /// Calls so far that nobody answered.
    pub(crate) unanswered: u64,
    /// The largest set of configurations.
    pub(crate) widest: usize,
}

enum Event {
    Begin(usize),
    End(usize),
}

impl<M: Model> Checker<M> {
    /// An object that is in this state.
    pub(crate) fn new(state: M::State) -> Self {
        let configurations = HashSet::from([(state, 0)]);
        Checker { configurations, pending: HashMap::new(), answered: 0, unanswered: 0, widest: 1 }
    }

    /// The states in which the object may be.
    pub(crate) fn states(&self) -> impl Iterator<Item = &M::State> {
        self.configurations.iter().map(|(state, _)| state)
    }

    /// Takes the next part of the history. No call of it overlaps one of the parts before, other than open ones.
    ///
    /// # Errors
    /// A reply that nothing explains, with what came before it.
    pub(crate) fn feed(&mut self, ops: Vec<Op<M::Call, M::Reply>>) -> Result<(), String> {
        let mut events = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            events.push((op.began, 0, Event::Begin(index)));
            match op.end {
                End::Answered(at, _) | End::Died(at) => events.push((at, 1, Event::End(index))),
                End::Open => {}
            }
        }
        // What begins and ends at one tick overlaps: that allows more than the other way round.
        events.sort_by_key(|(at, kind, _)| (*at, *kind));
        let mut ops: Vec<Option<Op<M::Call, M::Reply>>> = ops.into_iter().map(Some).collect();
        let mut slots = HashMap::new();
        let mut past: Vec<String> = Vec::new();
        for (_, _, event) in events {
            match event {
                Event::Begin(index) => {
                    let slot = (0..128).find(|slot| !self.pending.contains_key(slot)).expect("at most 128 at a time");
                    self.pending.insert(slot, ops[index].take().expect("a call begins once"));
                    slots.insert(index, slot);
                }
                Event::End(index) => {
                    let slot = slots[&index];
                    let explained = self.finish(slot);
                    let op = self.pending.remove(&slot).expect("it is in progress");
                    past.push(format!("    client {}: {:?} => {:?}", op.client, op.call, op.end));
                    if let Err(before) = explained {
                        let shown = &past[past.len().saturating_sub(12)..];
                        let open: Vec<String> = self
                            .pending
                            .values()
                            .map(|op| format!("    client {}: {:?}", op.client, op.call))
                            .collect();
                        return Err(format!(
                            "no order of the calls gives this reply: {:?} => {:?}\n  the states before it: {}\n  \
                             the last calls:\n{}\n  in progress:\n{}",
                            op.call,
                            op.end,
                            before,
                            shown.join("\n"),
                            open.join("\n")
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the call in this slot: in all configurations it has taken effect, or it died without.
    fn finish(&mut self, slot: usize) -> Result<(), String> {
        let died = matches!(self.pending[&slot].end, End::Died(_));
        *if died { &mut self.unanswered } else { &mut self.answered } += 1;
        let bit = 1_u128 << slot;
        let mut after = HashSet::new();
        for (state, effective) in &self.configurations {
            if effective & bit != 0 {
                after.insert((state.clone(), effective & !bit));
                continue;
            }
            if died {
                after.insert((state.clone(), *effective));
            }
            self.linearize((state.clone(), *effective), slot, &mut after);
            assert!(after.len() < CONFIGURATIONS_MAX, "too many calls at once on one object");
        }
        if after.is_empty() {
            let shown: Vec<String> = self.states().take(4).map(|state| format!("{state:?}")).collect();
            return Err(shown.join(" or "));
        }
        self.widest = self.widest.max(after.len());
        self.configurations = after;
        Ok(())
    }

    /// All configurations in which the call has just taken effect, after any of the others in progress.
    fn linearize(&self, from: Configuration<M::State>, target: usize, after: &mut HashSet<Configuration<M::State>>) {
        let mut seen = HashSet::from([from.clone()]);
        let mut stack = vec![from];
        while let Some((state, effective)) = stack.pop() {
            for (&slot, op) in &self.pending {
                let bit = 1_u128 << slot;
                if effective & bit != 0 {
                    continue;
                }
                let (next, reply) = M::apply(&state, &op.call);
                if matches!(&op.end, End::Answered(_, given) if *given != reply) {
                    continue;
                }
                if slot == target {
                    after.insert((next, effective));
                } else {
                    let next = (next, effective | bit);
                    if seen.insert(next.clone()) {
                        assert!(seen.len() < CONFIGURATIONS_MAX, "too many calls at once on one object");
                        stack.push(next);
                    }
                }
            }
        }
    }
}

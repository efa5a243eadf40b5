//! A copy-on-write ordered map on [`Tree`]: pending entries by id, consumers and groups by name.
//!
//! Items are stored in short sorted runs, the leaves of the tree. A clone is cheap at any size. A change copies one
//! run and the nodes above it, if they are shared.
//!
//! Invariants:
//! - Keys rise strictly from item to item, over all runs.

use std::borrow::Borrow;
use std::fmt::Debug;
use std::ops::Range;

use crate::value::tree::{Cursor, Leaf, Tree, Where};

/// An item that contains its key.
pub trait Keyed: Clone + Debug {
    /// The key, as the nodes of the tree store it.
    type Key: Clone + Debug + PartialEq + Borrow<Self::Query>;
    /// The key, as a search passes it. Its order is that of the items.
    type Query: Ord + ?Sized;

    /// How many items a run holds.
    const RUN_MAX: usize;

    /// The key.
    fn key(&self) -> Self::Key;

    /// The key, as a search compares it.
    fn query(&self) -> &Self::Query;

    /// The heap bytes that the items of a run own, where that matters.
    fn heap_bytes(_run: &[Self]) -> usize {
        0
    }
}

/// Whether a key is the searched one, or comes before it.
fn is_up_to<T: Keyed>(key: &T::Key, query: &T::Query) -> bool {
    let key: &T::Query = key.borrow();
    key <= query
}

#[derive(Clone, Debug)]
struct Run<T>(Vec<T>);

impl<T: Keyed> Run<T> {
    fn search(&self, query: &T::Query) -> Result<usize, usize> {
        self.0.binary_search_by(|item| item.query().cmp(query))
    }
}

impl<T: Keyed> Leaf for Run<T> {
    type Key = T::Key;

    fn first_key(&self) -> T::Key {
        self.0[0].key()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<T>() + T::heap_bytes(&self.0)
    }

    fn is_overfull(&self) -> bool {
        self.0.len() > T::RUN_MAX
    }

    fn is_sparse(&self) -> bool {
        self.0.len() < T::RUN_MAX / 4
    }

    fn fits_with(&self, next: &Self) -> bool {
        // Not completely full, or the next item would split it again.
        self.0.len() + next.0.len() <= T::RUN_MAX * 3 / 4
    }

    fn split(&mut self, at: Where) -> Self {
        let len = self.0.len();
        Run(self.0.split_off(match at {
            Where::Front => 1,
            Where::Middle => len / 2,
            Where::Back => len - 1,
        }))
    }

    fn append(&mut self, next: &Self) {
        self.0.extend_from_slice(&next.0);
    }

    fn remove_range(&mut self, range: Range<usize>) {
        self.0.drain(range);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Ordered<T: Keyed>(Tree<Run<T>>);

impl<T: Keyed> Default for Ordered<T> {
    fn default() -> Self {
        Ordered(Tree::new())
    }
}

impl<T: Keyed> Ordered<T> {
    /// How many items there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An estimate of its bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// An item.
    #[inline]
    pub fn get(&self, query: &T::Query) -> Option<&T> {
        let (run, _) = self.0.locate_by(|key| is_up_to::<T>(key, query))?;
        run.search(query).ok().map(|at| &run.0[at])
    }

    /// The first item.
    pub fn first(&self) -> Option<&T> {
        self.0.locate(0).map(|(run, at)| &run.0[at])
    }

    /// The last item.
    pub fn last(&self) -> Option<&T> {
        self.0.locate(self.len().checked_sub(1)?).map(|(run, at)| &run.0[at])
    }

    /// Changes an item in place. Its key must stay the same.
    pub fn edit<R>(&mut self, query: &T::Query, edit: impl FnOnce(&mut T) -> R) -> Option<R> {
        // A missing item must not cost a copy.
        self.get(query)?;
        self.0.edit_by(
            |key| is_up_to::<T>(key, query),
            |run, _| match run.search(query) {
                Ok(at) => (edit(&mut run.0[at]), Where::Middle),
                Err(_) => unreachable!("it was found just now"),
            },
        )
    }

    /// Adds an item, or replaces and returns the one with the same key.
    pub fn insert(&mut self, query: &T::Query, item: T) -> Option<T> {
        if self.is_empty() {
            self.0.add_leaf(Run(vec![item]), true);
            return None;
        }
        let insert = |run: &mut Run<T>, _| match run.search(query) {
            Ok(at) => (Some(std::mem::replace(&mut run.0[at], item)), Where::Middle),
            Err(at) => {
                let place = match at {
                    0 => Where::Front,
                    at if at == run.0.len() => Where::Back,
                    _ => Where::Middle,
                };
                run.0.insert(at, item);
                (None, place)
            }
        };
        self.0.edit_by(|key| is_up_to::<T>(key, query), insert).flatten()
    }

    /// Removes an item.
    pub fn remove(&mut self, query: &T::Query) -> Option<T> {
        self.get(query)?;
        self.0.edit_by(
            |key| is_up_to::<T>(key, query),
            |run, _| (run.search(query).ok().map(|at| run.0.remove(at)), Where::Middle),
        )?
    }

    /// Appends items behind all others, in their order.
    pub fn extend_back(&mut self, items: impl IntoIterator<Item = T>) {
        let mut items = items.into_iter().peekable();
        if !self.is_empty() {
            self.0.edit_at(self.len(), |run, _| {
                let room = T::RUN_MAX.saturating_sub(run.0.len());
                run.0.extend(items.by_ref().take(room));
                ((), Where::Back)
            });
        }
        while items.peek().is_some() {
            self.0.add_leaf(Run(items.by_ref().take(T::RUN_MAX).collect()), true);
        }
    }

    /// All items.
    pub fn iter(&self) -> Items<'_, T> {
        Items { cursor: self.0.cursor(0), at: 0 }
    }

    /// The items from a key on.
    pub fn iter_from(&self, query: &T::Query) -> Items<'_, T> {
        let cursor = self.0.cursor_by(|key| is_up_to::<T>(key, query));
        let at = cursor.as_ref().map_or(0, |cursor| match cursor.leaf().search(query) {
            Ok(at) | Err(at) => at,
        });
        Items { cursor, at }
    }

    /// Checks all invariants.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self, precedes: impl Fn(&T, &T) -> bool) {
        self.0.check_invariants();
        let mut before: Option<&T> = None;
        for item in self.iter() {
            assert!(before.is_none_or(|before| precedes(before, item)), "keys rise");
            before = Some(item);
        }
    }
}

/// Items in the order of their keys.
#[derive(Debug)]
pub struct Items<'a, T: Keyed> {
    cursor: Option<Cursor<'a, Run<T>>>,
    at: usize,
}

impl<T: Keyed> Clone for Items<'_, T> {
    fn clone(&self) -> Self {
        Items { cursor: self.cursor.clone(), at: self.at }
    }
}

impl<'a, T: Keyed> Iterator for Items<'a, T> {
    type Item = &'a T;

    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        let cursor = self.cursor.as_mut()?;
        if let Some(item) = cursor.leaf().0.get(self.at) {
            self.at += 1;
            return Some(item);
        }
        if !cursor.forward() {
            self.cursor = None;
            return None;
        }
        self.at = 1;
        cursor.leaf().0.first()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Numbered(u16, u16);

    impl Keyed for Numbered {
        type Key = u16;
        type Query = u16;
        const RUN_MAX: usize = 4;

        fn key(&self) -> u16 {
            self.0
        }

        fn query(&self) -> &u16 {
            &self.0
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_map_does(edits in prop::collection::vec((0u8..6, 0u16..400, any::<u16>()), 1..500)) {
            let (mut ordered, mut model) = (Ordered::<Numbered>::default(), BTreeMap::new());
            let mut frozen = Vec::new();
            for (what, key, value) in edits {
                match what {
                    0 | 1 => {
                        let old = ordered.insert(&key, Numbered(key, value));
                        prop_assert_eq!(old.map(|old| old.1), model.insert(key, value));
                    }
                    2 => prop_assert_eq!(ordered.remove(&key).map(|old| old.1), model.remove(&key)),
                    3 => {
                        ordered.edit(&key, |item| item.1 = value);
                        model.entry(key).and_modify(|own| *own = value);
                    }
                    4 => {
                        let last = model.last_key_value().map_or(0, |(key, _)| *key);
                        let more: Vec<Numbered> =
                            (1..=key % 20).map(|step| Numbered(last + step, value)).collect();
                        model.extend(more.iter().map(|item| (item.0, item.1)));
                        ordered.extend_back(more);
                    }
                    _ => frozen.push((ordered.clone(), model.clone())),
                }
                let from: Vec<u16> = ordered.iter_from(&key).map(|item| item.0).collect();
                prop_assert_eq!(from, model.range(key..).map(|(key, _)| *key).collect::<Vec<_>>());
                prop_assert_eq!(ordered.get(&key).map(|item| item.1), model.get(&key).copied());
                prop_assert_eq!(ordered.last().map(Keyed::key), model.keys().next_back().copied());
                prop_assert_eq!(ordered.first().map(Keyed::key), model.keys().next().copied());
            }
            frozen.push((ordered, model));
            for (ordered, model) in frozen {
                ordered.check_invariants(|one, two| one.0 < two.0);
                prop_assert_eq!(ordered.len(), model.len());
                let all: Vec<(u16, u16)> = ordered.iter().map(|item| (item.0, item.1)).collect();
                prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
            }
        }
    }
}

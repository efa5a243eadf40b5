//! A counted, copy-on-write B+tree: lists by position, sorted sets by score and rank, streams by id.
//!
//! ```text
//!             inner: up to 32 children, each with how many items and bytes are below it, and its first key
//!            ╱  │  ╲
//!       inner inner inner          … the same number of levels everywhere
//!      ╱ │ ╲
//!   leaf leaf leaf                 items packed as the user of the tree likes: see `Leaf`
//! ```
//!
//! A clone shares everything. A change copies the shared nodes on the path to the leaf that it touches, and no
//! others.
//!
//! Invariants:
//! - All leaves are equally deep. No node is empty. The root never has a single child.
//! - What a node records of a child (items, bytes, first key) is correct.
//! - No leaf with more than one item is overfull.

use std::ops::Range;

use smallvec::SmallVec;
use triomphe::Arc;

/// The most children of an inner node,
const CHILDREN_MAX: usize = 32;
/// and those below which it is merged with a neighbour.
const CHILDREN_SPARSE: usize = 8;
/// Deeper than any tree grows: 32^8 leaves.
const DEPTH: usize = 8;

/// Where an edit has added or removed items. It lets a leaf at an end of the tree stay full when it is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// At the very beginning of the leaf.
    Front,
    /// At its very end.
    Back,
    /// Anywhere.
    Middle,
}

/// A packed run of items: what a tree is made of.
#[allow(clippy::len_without_is_empty)] // a leaf in a tree is never empty
pub trait Leaf: Clone + std::fmt::Debug {
    /// The key that orders the items; `()` if they are ordered by position.
    type Key: Clone + std::fmt::Debug;

    /// The key of the first item.
    fn first_key(&self) -> Self::Key;

    /// Makes `key` the key of the first item. Changing it in place can avoid an allocation.
    fn renew_key(&self, key: &mut Self::Key) {
        *key = self.first_key();
    }

    /// How many items there are.
    fn len(&self) -> usize;

    /// The bytes that it takes.
    fn bytes(&self) -> usize;

    /// Whether it must be split. Never true of a single item.
    fn is_overfull(&self) -> bool;

    /// Whether it should be merged with a neighbour.
    fn is_sparse(&self) -> bool;

    /// Whether it and the next leaf together would not be overfull.
    fn fits_with(&self, next: &Self) -> bool;

    /// Splits off the upper part. Neither part is empty. `Front` leaves little below, `Back` little above.
    fn split(&mut self, at: Where) -> Self;

    /// Appends the items of the next leaf.
    fn append(&mut self, next: &Self);

    /// Removes the items in this range.
    fn remove_range(&mut self, range: Range<usize>);
}

#[derive(Clone, Debug)]
enum Node<L: Leaf> {
    Leaf(L),
    Inner(Vec<Child<L>>),
}

#[derive(Clone, Debug)]
struct Child<L: Leaf> {
    node: Arc<Node<L>>,
    len: usize,
    bytes: usize,
    key: L::Key,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Tree<L: Leaf> {
    root: Option<Child<L>>,
}

impl<L: Leaf> Default for Tree<L> {
    fn default() -> Self {
        Tree { root: None }
    }
}

impl<L: Leaf> Child<L> {
    fn of(node: Node<L>) -> Child<L> {
        let (len, bytes, key) = node.summary();
        Child { node: Arc::new(node), len, bytes, key }
    }

    /// Updates the record after the node has changed.
    fn refresh(&mut self) {
        (self.len, self.bytes) = self.node.size();
        match &*self.node {
            _ if self.len == 0 => {}
            Node::Leaf(leaf) => leaf.renew_key(&mut self.key),
            Node::Inner(children) => self.key.clone_from(&children[0].key),
        }
    }

    fn is_sparse(&self) -> bool {
        match &*self.node {
            Node::Leaf(leaf) => leaf.is_sparse(),
            Node::Inner(children) => children.len() < CHILDREN_SPARSE,
        }
    }

    fn fits_with(&self, next: &Child<L>) -> bool {
        match (&*self.node, &*next.node) {
            (Node::Leaf(leaf), Node::Leaf(next)) => leaf.fits_with(next),
            (Node::Inner(children), Node::Inner(next)) => children.len() + next.len() <= CHILDREN_MAX,
            _ => false,
        }
    }

    fn merge(&mut self, next: Child<L>) {
        match (Arc::make_mut(&mut self.node), &*next.node) {
            (Node::Leaf(leaf), Node::Leaf(next)) => leaf.append(next),
            (Node::Inner(children), Node::Inner(next)) => children.extend_from_slice(next),
            _ => unreachable!("all leaves are equally deep"),
        }
        self.refresh();
    }
}

/// The bytes of the slots for children, used or not.
fn slot_bytes<L: Leaf>(children: &Vec<Child<L>>) -> usize {
    children.capacity() * size_of::<Child<L>>()
}

impl<L: Leaf> Node<L> {
    fn slot_bytes(&self) -> usize {
        match self {
            Node::Leaf(_) => 0,
            Node::Inner(children) => slot_bytes(children),
        }
    }

    /// How many items and bytes it has.
    fn size(&self) -> (usize, usize) {
        match self {
            Node::Leaf(leaf) => (leaf.len(), leaf.bytes() + size_of::<Node<L>>() + 8),
            Node::Inner(children) => {
                let len = children.iter().map(|child| child.len).sum();
                let bytes: usize = children.iter().map(|child| child.bytes).sum();
                (len, bytes + slot_bytes(children) + 40)
            }
        }
    }

    fn summary(&self) -> (usize, usize, L::Key) {
        let (len, bytes) = self.size();
        let key = match self {
            Node::Leaf(leaf) => leaf.first_key(),
            Node::Inner(children) => children[0].key.clone(),
        };
        (len, bytes, key)
    }
}

/// How to find the way from the root to a leaf.
trait Way<L: Leaf> {
    /// Chooses among the children of a node.
    fn choose(&mut self, children: &[Child<L>]) -> usize;
    /// The rank of the first item of the leaf chosen so far.
    fn rank(&self) -> usize;
}

/// By the index of an item. The end belongs to the last leaf.
struct ByIndex {
    left: usize,
    rank: usize,
}

impl<L: Leaf> Way<L> for ByIndex {
    #[inline]
    fn choose(&mut self, children: &[Child<L>]) -> usize {
        let last = children.len() - 1;
        for (at, child) in children[..last].iter().enumerate() {
            if self.left < child.len {
                return at;
            }
            self.left -= child.len;
            self.rank += child.len;
        }
        last
    }

    fn rank(&self) -> usize {
        self.rank
    }
}

/// By key: the last leaf whose first key is not above the searched one.
struct ByKey<F> {
    not_above: F,
    rank: usize,
}

impl<L: Leaf, F: FnMut(&L::Key) -> bool> Way<L> for ByKey<F> {
    #[inline]
    fn choose(&mut self, children: &[Child<L>]) -> usize {
        let at = children.partition_point(|child| (self.not_above)(&child.key)).saturating_sub(1);
        self.rank += children[..at].iter().map(|child| child.len).sum::<usize>();
        at
    }

    fn rank(&self) -> usize {
        self.rank
    }
}

impl<L: Leaf> Tree<L> {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tree of these leaves, in this order, without the empty ones.
    pub fn from_leaves(leaves: impl IntoIterator<Item = L>) -> Self {
        let leaves = leaves.into_iter().filter(|leaf| leaf.len() > 0);
        let mut level: Vec<Child<L>> = leaves.map(|leaf| Child::of(Node::Leaf(leaf))).collect();
        while level.len() > 1 {
            // All nodes are full except the last two, which share the rest.
            let mut above = Vec::with_capacity(level.len() / CHILDREN_MAX + 1);
            let mut rest = level.into_iter().peekable();
            while rest.peek().is_some() {
                let left = rest.len();
                let take = if left > CHILDREN_MAX && left < 2 * CHILDREN_MAX { left / 2 } else { CHILDREN_MAX };
                above.push(Child::of(Node::Inner(rest.by_ref().take(take).collect())));
            }
            level = above;
        }
        Tree { root: level.pop() }
    }

    /// How many items there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.len)
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The bytes that it takes: nodes and leaves.
    pub fn bytes(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.bytes)
    }

    /// The leaf of the item at `index`, and the item's place in it.
    #[inline]
    pub fn locate(&self, index: usize) -> Option<(&L, usize)> {
        let mut way = ByIndex { left: index, rank: 0 };
        let leaf = self.descend(&mut way)?;
        (way.left < leaf.len()).then_some((leaf, way.left))
    }

    /// The last leaf whose first key is `not_above` the searched one (the first leaf if none is), and the rank of its
    /// first item. `None` for an empty tree.
    #[inline]
    pub fn locate_by(&self, not_above: impl FnMut(&L::Key) -> bool) -> Option<(&L, usize)> {
        let mut way = ByKey { not_above, rank: 0 };
        let leaf = self.descend(&mut way)?;
        Some((leaf, Way::<L>::rank(&way)))
    }

    #[inline]
    fn descend(&self, way: &mut impl Way<L>) -> Option<&L> {
        let mut node = &*self.root.as_ref()?.node;
        loop {
            match node {
                Node::Leaf(leaf) => return Some(leaf),
                Node::Inner(children) => node = &children[way.choose(children)].node,
            }
        }
    }

    /// Edits the leaf of the item at `index`; an index at the end means the last leaf. `edit` receives the leaf and
    /// the place in it, and returns where it has put something. `None` for an empty tree.
    pub fn edit_at<R>(&mut self, index: usize, edit: impl FnOnce(&mut L, usize) -> (R, Where)) -> Option<R> {
        let mut way = ByIndex { left: index, rank: 0 };
        self.edit(&mut way, |leaf, way| edit(leaf, way.left))
    }

    /// Edits the leaf that [`Tree::locate_by`] finds with the same function. `edit` receives the leaf and the rank of
    /// its first item.
    pub fn edit_by<R>(
        &mut self,
        not_above: impl FnMut(&L::Key) -> bool,
        edit: impl FnOnce(&mut L, usize) -> (R, Where),
    ) -> Option<R> {
        let mut way = ByKey { not_above, rank: 0 };
        self.edit(&mut way, |leaf, way| edit(leaf, Way::<L>::rank(way)))
    }

    /// Adds this leaf as the first, or as the last if `back`. Serves the first item of a tree, and whole leaves.
    pub fn add_leaf(&mut self, leaf: L, back: bool) {
        if leaf.len() == 0 {
            return;
        }
        let Some(mut root) = self.root.take() else {
            self.root = Some(Child::of(Node::Leaf(leaf)));
            return;
        };
        let split = insert_leaf(&mut root, leaf, back);
        self.root = Some(root);
        self.grow(split.into_iter().collect());
    }

    /// Removes the items in this range of indexes.
    pub fn remove_range(&mut self, range: Range<usize>) {
        let range = range.start.min(self.len())..range.end.min(self.len());
        if range.is_empty() {
            return;
        }
        if let Some(root) = &mut self.root {
            remove_range(root, range);
        }
        self.shrink();
    }

    /// A cursor at the leaf of the item at `index`, movable in both directions; an index at the end means the last
    /// leaf. `None` for an empty tree.
    pub fn cursor(&self, index: usize) -> Option<Cursor<'_, L>> {
        Cursor::new(self, ByIndex { left: index, rank: 0 })
    }

    /// The same from the leaf that [`Tree::locate_by`] finds with the same function.
    pub fn cursor_by(&self, not_above: impl FnMut(&L::Key) -> bool) -> Option<Cursor<'_, L>> {
        Cursor::new(self, ByKey { not_above, rank: 0 })
    }

    /// All leaves, in order.
    pub fn leaves(&self) -> impl Iterator<Item = &L> {
        let mut next = self.cursor(0);
        std::iter::from_fn(move || {
            let cursor = next.as_mut()?;
            let leaf = cursor.leaf();
            if !cursor.forward() {
                next = None;
            }
            Some(leaf)
        })
    }

    fn edit<R, W: Way<L>>(&mut self, way: &mut W, edit: impl FnOnce(&mut L, &W) -> (R, Where)) -> Option<R> {
        let root = self.root.as_mut()?;
        let (result, split) = edit_child(root, way, edit, (true, true));
        self.grow(split);
        self.shrink();
        Some(result)
    }

    /// Puts a new root above the parts of the old one.
    fn grow(&mut self, split: Split<L>) {
        if split.is_empty() {
            return;
        }
        let mut level: Vec<Child<L>> = self.root.take().into_iter().chain(split).collect();
        while level.len() > 1 {
            let nodes = level.len().div_ceil(CHILDREN_MAX);
            let each = level.len().div_ceil(nodes);
            let mut rest = level.into_iter();
            level = (0..nodes).map(|_| Child::of(Node::Inner(rest.by_ref().take(each).collect()))).collect();
        }
        self.root = level.pop();
    }

    /// Removes a root that is empty or has a single child.
    fn shrink(&mut self) {
        while let Some(root) = &self.root {
            match &*root.node {
                _ if root.len == 0 => self.root = None,
                Node::Inner(children) if children.len() == 1 => self.root = Some(children[0].clone()),
                _ => break,
            }
        }
    }

    /// Checks all invariants. Those inside the leaves are the caller's.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check_invariants(&self)
    where
        L::Key: PartialEq,
    {
        fn check<L: Leaf>(child: &Child<L>, is_root: bool) -> usize
        where
            L::Key: PartialEq,
        {
            let (len, bytes, key) = child.node.summary();
            assert_eq!((child.len, child.bytes, &child.key), (len, bytes, &key), "a node says what is so");
            assert!(len > 0, "no node is empty");
            match &*child.node {
                Node::Leaf(leaf) => {
                    assert!(leaf.len() == 1 || !leaf.is_overfull(), "an overfull leaf is split");
                    0
                }
                Node::Inner(children) => {
                    assert!(children.len() <= CHILDREN_MAX && (!is_root || children.len() > 1));
                    let depths: Vec<usize> = children.iter().map(|child| check(child, false)).collect();
                    assert!(depths.iter().all(|depth| *depth == depths[0]), "all leaves are equally deep");
                    depths[0] + 1
                }
            }
        }
        if let Some(root) = &self.root {
            assert!(check(root, true) < DEPTH);
        }
    }
}

/// The new nodes behind a node that was split; nearly always none or one.
type Split<L> = SmallVec<[Child<L>; 1]>;

/// Edits a leaf below a child and repairs everything above it. `ends` says whether the child is the first and
/// the last of its level.
fn edit_child<L: Leaf, R, W: Way<L>>(
    child: &mut Child<L>,
    way: &mut W,
    edit: impl FnOnce(&mut L, &W) -> (R, Where),
    ends: (bool, bool),
) -> (R, Split<L>) {
    // A copy of a shared node has only the slots that it needs, so they are counted before the copy is made.
    let slots = child.node.slot_bytes();
    let (result, split) = match Arc::make_mut(&mut child.node) {
        Node::Leaf(leaf) => {
            let (result, at) = edit(leaf, way);
            let at = match at {
                Where::Front if !ends.0 => Where::Middle,
                Where::Back if !ends.1 => Where::Middle,
                at => at,
            };
            let mut parts: Vec<L> = Vec::new();
            if leaf.is_overfull() && leaf.len() > 1 {
                split_leaf(leaf, at, &mut parts);
            }
            (result, parts.into_iter().map(|leaf| Child::of(Node::Leaf(leaf))).collect())
        }
        Node::Inner(children) => {
            let at = way.choose(children);
            let below = (ends.0 && at == 0, ends.1 && at == children.len() - 1);
            let was = (children[at].len, children[at].bytes);
            let (result, split) = edit_child(&mut children[at], way, edit, below);
            if !split.is_empty() {
                children.insert_many_at(at + 1, split);
            } else if !repair(children, at) {
                // The usual case, and the reason for the sums: the siblings of the edited child are not read.
                let now = &children[at];
                child.len = child.len - was.0 + now.len;
                child.bytes = child.bytes - was.1 + now.bytes - slots + slot_bytes(children);
                if at == 0 {
                    child.key = now.key.clone();
                }
                return (result, split);
            }
            (result, split_children(children, ends.1))
        }
    };
    child.refresh();
    (result, split)
}

/// Splits a leaf until no part is overfull. The parts behind the first are added to `parts`.
fn split_leaf<L: Leaf>(leaf: &mut L, at: Where, parts: &mut Vec<L>) {
    let mut upper = leaf.split(at);
    if leaf.is_overfull() && leaf.len() > 1 {
        split_leaf(leaf, Where::Middle, parts);
    }
    let start = parts.len();
    if upper.is_overfull() && upper.len() > 1 {
        split_leaf(&mut upper, Where::Middle, parts);
    }
    parts.insert(start, upper);
}

/// Inserts several items at once, shifting the rest once.
trait InsertMany<T> {
    fn insert_many_at(&mut self, at: usize, items: impl IntoIterator<Item = T>);
}

impl<T> InsertMany<T> for Vec<T> {
    fn insert_many_at(&mut self, at: usize, items: impl IntoIterator<Item = T>) {
        self.splice(at..at, items);
    }
}

/// Splits a node with too many children into as many nodes as needed. At the end of a level, full ones are left
/// behind.
fn split_children<L: Leaf>(children: &mut Vec<Child<L>>, is_last: bool) -> Split<L> {
    let mut split = Split::new();
    if children.len() <= CHILDREN_MAX {
        return split;
    }
    let nodes = children.len().div_ceil(CHILDREN_MAX);
    let each = if is_last { CHILDREN_MAX } else { children.len().div_ceil(nodes) };
    let mut rest = children.split_off(each);
    // The extra child had doubled the room.
    children.shrink_to(CHILDREN_MAX);
    while !rest.is_empty() {
        let behind = rest.split_off(each.min(rest.len()));
        rest.reserve_exact(CHILDREN_MAX.saturating_sub(rest.len()).min(rest.len() + 4));
        split.push(Child::of(Node::Inner(rest)));
        rest = behind;
    }
    split
}

/// Removes an empty child, or merges a sparse one with a neighbour. Returns whether it did.
fn repair<L: Leaf>(children: &mut Vec<Child<L>>, at: usize) -> bool {
    if children[at].len == 0 {
        children.remove(at);
        return true;
    }
    if !children[at].is_sparse() {
        return false;
    }
    let lower = match at {
        _ if at + 1 < children.len() && children[at].fits_with(&children[at + 1]) => at,
        0 => return false,
        _ if children[at - 1].fits_with(&children[at]) => at - 1,
        _ => return false,
    };
    let upper = children.remove(lower + 1);
    children[lower].merge(upper);
    true
}

fn insert_leaf<L: Leaf>(child: &mut Child<L>, leaf: L, back: bool) -> Split<L> {
    if matches!(&*child.node, Node::Leaf(_)) {
        // The new leaf is added as a neighbour, so that a shared one need not be copied. An exchange puts the two in
        // order.
        let mut new = Child::of(Node::Leaf(leaf));
        if !back {
            std::mem::swap(child, &mut new);
        }
        return std::iter::once(new).collect();
    }
    let mut split = Split::new();
    if let Node::Inner(children) = Arc::make_mut(&mut child.node) {
        let at = if back { children.len() - 1 } else { 0 };
        let below = insert_leaf(&mut children[at], leaf, back);
        children.insert_many_at(at + 1, below);
        split = split_children(children, back);
    }
    child.refresh();
    split
}

fn remove_range<L: Leaf>(child: &mut Child<L>, range: Range<usize>) {
    match Arc::make_mut(&mut child.node) {
        Node::Leaf(leaf) => leaf.remove_range(range),
        Node::Inner(children) => {
            let mut start = 0;
            for child in children.iter_mut() {
                let here = start..start + child.len;
                start = here.end;
                let (from, to) = (range.start.max(here.start), range.end.min(here.end));
                if from == here.start && to == here.end {
                    child.len = 0;
                } else if from < to {
                    remove_range(child, from - here.start..to - here.start);
                }
            }
            children.retain(|child| child.len > 0);
            // The leaves at both ends of the gap may be sparse now.
            let mut at = 0;
            while at < children.len() {
                at += usize::from(!repair(children, at));
            }
        }
    }
    child.refresh();
}

/// The children of a node, and which of them was chosen.
type Step<'a, L> = (&'a [Child<L>], usize);

/// A place among the leaves of a tree.
#[derive(Clone, Debug)]
pub struct Cursor<'a, L: Leaf> {
    path: SmallVec<[Step<'a, L>; DEPTH]>,
    leaf: &'a L,
    rank: usize,
}

impl<'a, L: Leaf> Cursor<'a, L> {
    fn new(tree: &'a Tree<L>, mut way: impl Way<L>) -> Option<Self> {
        let mut node = &*tree.root.as_ref()?.node;
        let mut path = SmallVec::new();
        loop {
            match node {
                Node::Leaf(leaf) => return Some(Cursor { path, leaf, rank: way.rank() }),
                Node::Inner(children) => {
                    let at = way.choose(children);
                    path.push((&children[..], at));
                    node = &children[at].node;
                }
            }
        }
    }

    /// The leaf.
    #[inline]
    pub fn leaf(&self) -> &'a L {
        self.leaf
    }

    /// The rank of its first item.
    #[inline]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Moves to the next leaf. At the last leaf it returns false and does not move.
    pub fn forward(&mut self) -> bool {
        let Some(level) = self.path.iter().rposition(|(children, at)| at + 1 < children.len()) else { return false };
        self.rank += self.leaf.len();
        self.path[level].1 += 1;
        self.fall(level, false);
        true
    }

    /// Moves to the previous leaf. At the first leaf it returns false and does not move.
    pub fn backward(&mut self) -> bool {
        let Some(level) = self.path.iter().rposition(|(_, at)| *at > 0) else { return false };
        self.path[level].1 -= 1;
        self.fall(level, true);
        self.rank -= self.leaf.len();
        true
    }

    /// Descends from a level to the first leaf, or to the last.
    fn fall(&mut self, level: usize, last: bool) {
        self.path.truncate(level + 1);
        let (children, at) = self.path[level];
        let mut node = &*children[at].node;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    self.leaf = leaf;
                    return;
                }
                Node::Inner(children) => {
                    let at = if last { children.len() - 1 } else { 0 };
                    self.path.push((&children[..], at));
                    node = &children[at].node;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;

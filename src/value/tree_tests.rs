//! Tests of the tree, with leaves of a few numbers so that it gets deep.

use proptest::prelude::*;

use super::*;

const MAX: usize = 4;

#[derive(Clone, Debug, Default, PartialEq)]
struct Few(Vec<u32>);

impl Leaf for Few {
    type Key = u32;

    fn first_key(&self) -> u32 {
        self.0[0]
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn bytes(&self) -> usize {
        self.0.len() * 4
    }
    fn is_overfull(&self) -> bool {
        self.0.len() > MAX
    }
    fn is_sparse(&self) -> bool {
        self.0.len() <= MAX / 4
    }
    fn fits_with(&self, next: &Self) -> bool {
        self.0.len() + next.0.len() <= MAX
    }
    fn split(&mut self, at: Where) -> Self {
        let at = match at {
            Where::Front => 1,
            Where::Back => self.0.len() - 1,
            Where::Middle => self.0.len() / 2,
        };
        Few(self.0.split_off(at))
    }
    fn append(&mut self, next: &Self) {
        self.0.extend_from_slice(&next.0);
    }
    fn remove_range(&mut self, range: Range<usize>) {
        self.0.drain(range);
    }
}

fn insert_at(tree: &mut Tree<Few>, index: usize, number: u32) {
    if tree.is_empty() {
        return tree.add_leaf(Few(vec![number]), true);
    }
    tree.edit_at(index, |leaf, at| {
        leaf.0.insert(at, number);
        let place = if at == 0 {
            Where::Front
        } else if at + 1 == leaf.0.len() {
            Where::Back
        } else {
            Where::Middle
        };
        ((), place)
    });
}

fn all(tree: &Tree<Few>) -> Vec<u32> {
    tree.leaves().flat_map(|leaf| leaf.0.iter().copied()).collect()
}

fn leaf_pointers(tree: &Tree<Few>) -> Vec<*const Few> {
    tree.leaves().map(std::ptr::from_ref).collect()
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, u32),
    InsertMany(usize, usize),
    Remove(usize),
    RemoveRange(usize, usize),
    Add(Vec<u32>, bool),
    Clone,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        12 => (any::<usize>(), any::<u32>()).prop_map(|(at, number)| Edit::Insert(at, number)),
        4 => any::<u32>().prop_map(|number| Edit::Insert(usize::MAX, number)),
        4 => any::<u32>().prop_map(|number| Edit::Insert(0, number)),
        1 => (any::<usize>(), 0usize..300).prop_map(|(at, count)| Edit::InsertMany(at, count)),
        4 => any::<usize>().prop_map(Edit::Remove),
        1 => (any::<usize>(), 0usize..60).prop_map(|(at, len)| Edit::RemoveRange(at, len)),
        2 => (prop::collection::vec(any::<u32>(), 0..MAX), any::<bool>()).prop_map(|(l, b)| Edit::Add(l, b)),
        1 => Just(Edit::Clone),
    ];
    prop::collection::vec(edit, 1..600)
}

proptest! {
    #[test]
    fn by_position_it_does_what_a_vector_does(edits in edits()) {
        let (mut tree, mut model) = (Tree::new(), Vec::new());
        let mut frozen = Vec::new();
        for edit in edits {
            match edit {
                Edit::Insert(at, number) => {
                    let at = if at == usize::MAX { model.len() } else { at % (model.len() + 1) };
                    insert_at(&mut tree, at, number);
                    model.insert(at, number);
                }
                Edit::InsertMany(at, count) if !model.is_empty() => {
                    let at = at % (model.len() + 1);
                    let many = 0..count as u32;
                    tree.edit_at(at, |leaf, at| (drop(leaf.0.splice(at..at, many.clone())), Where::Middle));
                    model.splice(at..at, many);
                }
                Edit::InsertMany(..) => {}
                Edit::Remove(at) if !model.is_empty() => {
                    let at = at % model.len();
                    let gone = tree.edit_at(at, |leaf, at| (leaf.0.remove(at), Where::Middle));
                    prop_assert_eq!(gone, Some(model.remove(at)));
                }
                Edit::Remove(_) => {}
                Edit::RemoveRange(at, len) => {
                    let from = at % (model.len() + 1);
                    let to = (from + len).min(model.len());
                    tree.remove_range(from..to);
                    model.drain(from..to);
                }
                Edit::Add(numbers, back) => {
                    tree.add_leaf(Few(numbers.clone()), back);
                    let at = if back { model.len() } else { 0 };
                    model.splice(at..at, numbers);
                }
                Edit::Clone => frozen.push((tree.clone(), model.clone())),
            }
            prop_assert_eq!(tree.len(), model.len());
            // Checked after each edit, because the next split would correct a wrong sum.
            tree.check_invariants();
        }
        prop_assert_eq!(all(&tree), model.clone());
        for (at, number) in model.iter().enumerate() {
            let (leaf, offset) = tree.locate(at).unwrap();
            prop_assert_eq!(leaf.0[offset], *number);
        }
        prop_assert!(tree.locate(model.len()).is_none());
        for (tree, model) in frozen {
            tree.check_invariants();
            prop_assert_eq!(all(&tree), model);
        }
    }

    #[test]
    fn by_key_it_does_what_a_sorted_set_does(edits in prop::collection::vec((0u32..500, any::<bool>()), 1..800)) {
        let (mut tree, mut model) = (Tree::<Few>::new(), std::collections::BTreeSet::new());
        for (number, insert) in edits {
            let find = |leaf: &Few| leaf.0.binary_search(&number);
            if insert && tree.is_empty() {
                tree.add_leaf(Few(vec![number]), true);
            } else {
                tree.edit_by(|key| *key <= number, |leaf, _| {
                    match find(leaf) {
                        Err(at) if insert => leaf.0.insert(at, number),
                        Ok(at) if !insert => drop(leaf.0.remove(at)),
                        _ => {}
                    }
                    ((), Where::Middle)
                });
            }
            if insert { model.insert(number); } else { model.remove(&number); }
            tree.check_invariants();
        }
        prop_assert_eq!(all(&tree), model.iter().copied().collect::<Vec<_>>());
        for (rank, number) in model.iter().enumerate() {
            let (leaf, first) = tree.locate_by(|key| key <= number).unwrap();
            prop_assert_eq!(first + leaf.0.binary_search(number).unwrap(), rank);
        }
    }

    #[test]
    fn a_cursor_walks_both_ways(len in 1usize..900, from in 0usize..900) {
        let leaves = (0..len as u32).collect::<Vec<_>>();
        let tree = Tree::from_leaves(leaves.chunks(3).map(|part| Few(part.to_vec())));
        tree.check_invariants();
        prop_assert_eq!(tree.len(), len);
        let from = from % len;
        let mut cursor = tree.cursor(from).unwrap();
        let start = cursor.clone();
        let mut seen = cursor.leaf().0.clone();
        while cursor.forward() {
            prop_assert_eq!(cursor.rank(), cursor.leaf().0[0] as usize);
            seen.extend_from_slice(&cursor.leaf().0);
        }
        prop_assert_eq!(seen, (start.rank() as u32..len as u32).collect::<Vec<_>>());
        let mut cursor = start;
        let mut before = 0;
        while cursor.backward() {
            prop_assert_eq!(cursor.rank(), cursor.leaf().0[0] as usize);
            before += cursor.leaf().len();
        }
        prop_assert_eq!(before, from / 3 * 3);
        let by_key = tree.cursor_by(|key| *key as usize <= from).unwrap();
        prop_assert_eq!(by_key.rank(), from / 3 * 3);
    }
}

#[test]
fn growing_at_an_end_leaves_full_leaves() {
    for back in [true, false] {
        let mut tree = Tree::new();
        for number in 0..10_000 {
            insert_at(&mut tree, if back { number } else { 0 }, number as u32);
        }
        tree.check_invariants();
        let leaves = tree.leaves().count();
        assert!(leaves <= 10_000 / MAX + 1, "{leaves}");
    }
}

/// The nodes of a tree, of all levels.
fn node_pointers(tree: &Tree<Few>) -> Vec<*const Node<Few>> {
    fn walk(child: &Child<Few>, found: &mut Vec<*const Node<Few>>) {
        found.push(Arc::as_ptr(&child.node));
        if let Node::Inner(children) = &*child.node {
            children.iter().for_each(|child| walk(child, found));
        }
    }
    let mut found = Vec::new();
    tree.root.iter().for_each(|root| walk(root, &mut found));
    found
}

#[test]
fn a_change_after_a_clone_copies_one_path() {
    let numbers: Vec<u32> = (0..10_000).collect();
    let mut tree = Tree::from_leaves(numbers.chunks(3).map(|part| Few(part.to_vec())));
    let before = tree.clone();
    let old = node_pointers(&before);
    assert_eq!(node_pointers(&tree), old, "a clone shares everything");
    insert_at(&mut tree, 5_000, 7);
    let new = node_pointers(&tree);
    let height = tree.cursor(0).unwrap().path.len() + 1;
    assert_eq!(old.iter().filter(|node| !new.contains(node)).count(), height);
    assert_eq!(all(&before), numbers);
    insert_at(&mut tree, 5_001, 8);
    assert!(new.iter().all(|node| node_pointers(&tree).contains(node)), "what is not shared is not copied");
}

#[test]
fn a_leaf_added_at_an_end_copies_no_leaf() {
    let tree = Tree::from_leaves((0..1000).map(|number| Few(vec![number])));
    for back in [true, false] {
        let mut grown = tree.clone();
        grown.add_leaf(Few(vec![7]), back);
        grown.check_invariants();
        let new = leaf_pointers(&grown);
        assert!(leaf_pointers(&tree).iter().all(|leaf| new.contains(leaf)));
        assert_eq!(grown.len(), 1001);
    }
}

#[test]
fn one_large_insert_is_split_into_as_many_leaves_as_it_needs() {
    let mut tree = Tree::from_leaves([Few(vec![1, 2, 3])]);
    tree.edit_at(1, |leaf, at| (leaf.0.splice(at..at, 10..1000).count(), Where::Middle));
    tree.check_invariants();
    assert_eq!(tree.len(), 993);
    tree.remove_range(0..993);
    assert!(tree.is_empty() && tree.cursor(0).is_none());
}

#[test]
fn a_large_edit_of_a_deep_tree_makes_no_node_too_wide() {
    for at in [0, 5_000, 10_000] {
        let numbers: Vec<u32> = (0..10_000).collect();
        let mut tree = Tree::from_leaves(numbers.chunks(MAX).map(|part| Few(part.to_vec())));
        tree.edit_at(at, |leaf, at| (leaf.0.splice(at..at, 0..3_000).count(), Where::Middle));
        tree.check_invariants();
        assert_eq!(tree.len(), 13_000);
    }
}

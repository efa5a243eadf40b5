//! Tests of sorted sets against a plain map, with limits so small that both forms occur.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::hash::HashSeed;

fn limits() -> Limits {
    Limits { zset_max_listpack_entries: 6, zset_max_listpack_value: 12, ..Limits::defaults(HashSeed([5; 16])) }
}

type Model = BTreeMap<Vec<u8>, f64>;

fn in_order(model: &Model) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<(Vec<u8>, f64)> = model.iter().map(|(member, score)| (member.clone(), *score)).collect();
    all.sort_by(|one, two| one.1.partial_cmp(&two.1).expect("no NaN").then_with(|| one.0.cmp(&two.0)));
    all
}

fn plain(items: impl Iterator<Item = (Vec<u8>, f64)>) -> Vec<(Vec<u8>, f64)> {
    items.collect()
}

fn items(zset: ZsetRef<'_>, range: Range<usize>, backward: bool) -> Vec<(Vec<u8>, f64)> {
    plain(zset.range(range, backward).map(|(member, score)| (member.to_vec(), score)))
}

fn check(zset: &ZsetMut<'_>) {
    match &zset.form {
        Form::Packed(pack) => assert!(pack.is_empty() || is_sound(pack.as_bytes())),
        Form::Fresh(large) => large.check_invariants(),
        Form::Large(large) => large.check_invariants(),
    }
}

/// Stores the result of an edit and opens it again. A large form goes through its bytes.
fn through_store(zset: ZsetMut<'_>) -> ZsetMut<'static> {
    let limits = zset.limits;
    let stored = match AnyZset::finish(zset) {
        Finished::Empty => Stored::Missing(vec![1, 2, 3]),
        Finished::Packed(packing, bytes) => {
            assert!(is_sound(&bytes));
            Stored::Packed(packing, bytes)
        }
        Finished::Large(Heap::Zset(large)) => {
            let mut bytes = Vec::new();
            large.encode(&mut bytes, &mut |_| ());
            for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                assert!(Zset::decode(&bytes[..cut], &limits).is_none());
            }
            let form = Form::Fresh(Zset::decode(&bytes, &limits).expect("what was encoded"));
            return ZsetMut { form, limits };
        }
        other => panic!("{other:?}"),
    };
    AnyZset::edit(stored, &limits).expect("a sorted set")
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0u8..60).prop_map(|number| number.to_string().into_bytes()),
        4 => prop::collection::vec(prop::sample::select(&b"ab0-\0"[..]), 0..8),
        1 => (0usize..600, 0u8..3).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-5i32..5).prop_map(f64::from),
        2 => any::<i32>().prop_map(f64::from),
        2 => prop::sample::select(&[0.5, -0.25, 1e300, -1e-300, f64::INFINITY, f64::NEG_INFINITY, 1e17, 5e-324][..]),
        1 => any::<f64>().prop_filter("a number", |score| !score.is_nan() && score.to_bits() != (-0.0_f64).to_bits()),
    ]
}

#[derive(Clone, Debug)]
enum Edit {
    Add(Vec<u8>, f64),
    Increment(Vec<u8>, f64),
    Remove(Vec<u8>),
    RemoveRange(usize, usize),
    Store,
    Clone,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        24 => (member(), score()).prop_map(|(member, score)| Edit::Add(member, score)),
        6 => (member(), score()).prop_map(|(member, score)| Edit::Increment(member, score)),
        6 => member().prop_map(Edit::Remove),
        2 => (any::<usize>(), 0usize..8).prop_map(|(at, len)| Edit::RemoveRange(at, len)),
        1 => Just(Edit::Store),
        1 => Just(Edit::Clone),
    ];
    prop::collection::vec(edit, 1..250)
}

/// Applies an edit to both and compares the answers.
fn edit_both(zset: &mut ZsetMut<'_>, model: &mut Model, edit: Edit) {
    match edit {
        Edit::Add(member, score) => {
            let added = zset.add(&member, score, Rule::default());
            let expected = match model.insert(member, score) {
                None => Added::New(score),
                Some(old) if old == score => Added::Same(score),
                Some(_) => Added::Changed(score),
            };
            assert_eq!(added, expected);
        }
        Edit::Increment(member, by) => {
            let added = zset.add(&member, by, Rule { increment: true, ..Rule::default() });
            let sum = model.get(&member).map_or(by, |old| old + by);
            assert_eq!(added == Added::NotANumber, sum.is_nan());
            if !sum.is_nan() {
                model.insert(member, sum);
            }
        }
        Edit::Remove(member) => assert_eq!(zset.remove(&member), model.remove(&member).is_some()),
        Edit::RemoveRange(at, len) => {
            let from = at % (model.len() + 1);
            let to = (from + len).min(model.len());
            zset.remove_range(from..to);
            for (member, _) in &in_order(model)[from..to] {
                model.remove(member);
            }
        }
        Edit::Store | Edit::Clone => {}
    }
}

proptest! {
    #[test]
    fn it_does_what_a_plain_map_does(edits in edits(), edges in prop::collection::vec(score(), 4)) {
        let (mut zset, mut model) = (ZsetMut::new(&limits()), Model::new());
        let mut frozen: Vec<(Zset, Model)> = Vec::new();
        for edit in edits {
            match edit {
                Edit::Store => zset = through_store(zset),
                Edit::Clone => {
                    if let Form::Fresh(large) = &zset.form {
                        frozen.push((large.clone(), model.clone()));
                    }
                }
                edit => edit_both(&mut zset, &mut model, edit),
            }
            prop_assert_eq!(zset.view().len(), model.len());
        }
        check(&zset);
        let (all, view) = (in_order(&model), zset.view());
        prop_assert_eq!(items(view, 0..all.len(), false), all.clone());
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        prop_assert_eq!(items(view, 0..all.len(), true), reversed);
        for (rank, (member, score)) in all.iter().enumerate() {
            prop_assert_eq!(view.rank(member), Some((rank, *score)));
            prop_assert_eq!(view.score(member), Some(*score));
            prop_assert_eq!(items(view, rank..rank + 1, true), vec![all[rank].clone()]);
            prop_assert_eq!(items(view, 0..rank, true).last().cloned(), all[..rank].first().cloned());
        }
        for edge in edges {
            let below = |not_above: bool| all.iter().filter(|i| i.1 < edge || (not_above && i.1 == edge)).count();
            prop_assert_eq!(view.count_below(Edge::BeforeScore(edge)), below(false));
            prop_assert_eq!(view.count_below(Edge::AfterScore(edge)), below(true));
        }
        prop_assert!(view.score(b"none").is_none() && view.rank(b"none").is_none());
        for (large, model) in frozen {
            large.check_invariants();
            prop_assert_eq!(items(ZsetRef::Large(&large), 0..large.len(), false), in_order(&model));
        }
    }

    #[test]
    fn among_equal_scores_edges_are_members(members in prop::collection::btree_set(member(), 1..80), edge in member()) {
        let mut zset = ZsetMut::new(&limits());
        for member in &members {
            zset.add(member, 0.0, Rule::default());
        }
        check(&zset);
        let below = members.iter().filter(|member| **member < edge).count();
        prop_assert_eq!(zset.view().count_below(Edge::BeforeMember(&edge)), below);
        let below = below + usize::from(members.contains(&edge));
        prop_assert_eq!(zset.view().count_below(Edge::AfterMember(&edge)), below);
    }

    #[test]
    fn what_is_collected_at_once_is_what_is_added_one_by_one(
            model in prop::collection::btree_map(member(), score(), 1..60)
        ) {
        let finished = collect(model.iter().map(|(member, score)| (*score, member)).collect(), &limits());
        let all = in_order(&model);
        let is_small = model.len() <= 6 && model.keys().all(|member| member.len() <= 12);
        match finished {
            Finished::Packed(Packing::Zset, bytes) => {
                prop_assert!(is_small && is_sound(&bytes));
                prop_assert_eq!(items(ZsetRef::Packed(Listpack::trusted(&bytes)), 0..all.len(), false), all);
            }
            Finished::Large(Heap::Zset(large)) => {
                prop_assert!(!is_small);
                large.check_invariants();
                prop_assert_eq!(items(ZsetRef::Large(&large), 0..all.len(), false), all);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_bytes_end_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Some(zset) = Zset::decode(&bytes, &limits()) {
            zset.check_invariants();
        }
        is_sound(&bytes);
    }
}

#[test]
fn minus_zero_is_kept_by_the_large_form_and_equal_to_zero() {
    let mut zset = ZsetMut::new(&limits());
    for (member, score) in [("b", -0.0), ("a", 0.0), ("c", -0.0), ("d", 1.0)] {
        zset.add(member.as_bytes(), score, Rule::default());
    }
    assert!(zset.view().iter().all(|(_, score)| score.is_sign_positive()));
    zset.expect(7, b"");
    zset.add(b"b2", -0.0, Rule::default());
    check(&zset);
    zset = through_store(zset);
    let signs: Vec<bool> = zset.view().iter().map(|(_, score)| score.is_sign_negative()).collect();
    assert_eq!(signs, [false, false, true, false, false]);
    assert_eq!(zset.view().rank(b"b2"), Some((2, 0.0)));
    assert!(zset.remove(b"b2"));
    check(&zset);
}

#[test]
fn unsound_bytes_are_refused() {
    let pack = |items: &[&str]| {
        let mut pack = ListpackBuf::new();
        items.iter().for_each(|item| pack.push_back(item.as_bytes()));
        pack.into_vec()
    };
    assert!(is_sound(&pack(&["a", "1", "b", "1.5"])));
    for bad in [
        &[][..],
        &["a"],
        &["a", "x"],
        &["a", "nan"],
        &["a", "2", "b", "1"],
        &["b", "1", "a", "1"],
        &["a", "1", "a", "1"],
        &["a", "1", "b", "2", "a", "3"],
    ] {
        assert!(!is_sound(&pack(bad)), "{bad:?}");
    }
    let large = |items: &[(f64, &str)]| {
        let mut bytes = vec![items.len() as u8];
        for (score, member) in items {
            bytes.extend_from_slice(&score.to_le_bytes());
            bytes.push(member.len() as u8);
            bytes.extend_from_slice(member.as_bytes());
        }
        Zset::decode(&bytes, &limits()).is_some()
    };
    assert!(large(&[(1.0, "a"), (1.0, "b"), (f64::INFINITY, "")]));
    assert!(!large(&[]) && !large(&[(f64::NAN, "a")]) && !large(&[(2.0, "a"), (1.0, "b")]));
    assert!(!large(&[(1.0, "a"), (2.0, "a")]) && !large(&[(1.0, "b"), (1.0, "a")]));
}

#[test]
fn rules_are_those_of_zadd() {
    let mut zset = ZsetMut::new(&limits());
    let rule = Rule::default();
    assert_eq!(zset.add(b"a", 1.0, Rule { only_old: true, ..rule }), Added::Refused);
    assert_eq!(zset.add(b"a", 1.0, Rule { only_new: true, ..rule }), Added::New(1.0));
    assert_eq!(zset.add(b"a", 2.0, Rule { only_new: true, ..rule }), Added::Refused);
    assert_eq!(zset.add(b"a", 0.5, Rule { only_up: true, ..rule }), Added::Refused);
    assert_eq!(zset.add(b"a", 1.0, Rule { only_up: true, ..rule }), Added::Refused);
    assert_eq!(zset.add(b"a", 3.0, Rule { only_up: true, ..rule }), Added::Changed(3.0));
    assert_eq!(zset.add(b"a", 4.0, Rule { only_down: true, ..rule }), Added::Refused);
    assert_eq!(zset.add(b"a", -4.0, Rule { only_down: true, increment: true, ..rule }), Added::Changed(-1.0));
    assert_eq!(zset.add(b"b", f64::INFINITY, rule), Added::New(f64::INFINITY));
    assert_eq!(zset.add(b"b", f64::NEG_INFINITY, Rule { increment: true, ..rule }), Added::NotANumber);
}

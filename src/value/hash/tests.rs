//! Tests of small and large hashes against a plain map, and of bytes of any origin.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::hash::HashSeed;
use crate::base::random::Random;
use crate::value::codec;
use crate::value::entry::{Heap, NewValue};
use crate::value::listpack::ListpackBuf;

const SEED: HashSeed = HashSeed(*b"seed of the test");

/// Limits that lead to both forms within a few edits.
fn tiny() -> Limits {
    Limits { hash_max_listpack_entries: 6, hash_max_listpack_value: 12, ..Limits::defaults(SEED) }
}

/// A stored hash, as an entry would hold it.
#[derive(Clone, Debug)]
enum Kept {
    Nothing,
    Packed(Packing, Vec<u8>),
    Large(Heap),
}

impl Kept {
    fn edit<R>(&mut self, limits: &Limits, edit: impl FnOnce(&mut HashMut<'_>) -> R) -> R {
        let mut heap;
        let stored = match std::mem::replace(self, Kept::Nothing) {
            Kept::Nothing => Stored::Missing(b"what was left here".to_vec()),
            Kept::Packed(packing, bytes) => Stored::Packed(packing, bytes),
            Kept::Large(Heap::Hash(hash)) => {
                heap = hash;
                let mut edited =
                    AnyHash::edit(Stored::Large(HeapMut::Hash(triomphe::Arc::make_mut(&mut heap))), limits)
                        .expect("a hash");
                let result = edit(&mut edited);
                *self = match AnyHash::finish(edited) {
                    Finished::Empty => Kept::Nothing,
                    Finished::InPlace => Kept::Large(Heap::Hash(heap)),
                    other => panic!("{other:?}"),
                };
                return result;
            }
            Kept::Large(other) => panic!("{other:?}"),
        };
        let mut edited = AnyHash::edit(stored, limits).expect("a hash");
        let result = edit(&mut edited);
        *self = match AnyHash::finish(edited) {
            Finished::Empty => Kept::Nothing,
            Finished::Packed(packing, bytes) => Kept::Packed(packing, bytes),
            Finished::Large(heap) => Kept::Large(heap),
            Finished::InPlace => panic!("nothing is in its place"),
        };
        result
    }

    fn view(&self) -> Option<HashRef<'_>> {
        Some(match self {
            Kept::Nothing => return None,
            Kept::Packed(packing, bytes) => HashRef::packed(*packing, bytes),
            Kept::Large(Heap::Hash(hash)) => HashRef::Large(hash),
            Kept::Large(other) => panic!("{other:?}"),
        })
    }

    fn encoded(&self) -> (u8, Vec<u8>) {
        match self {
            Kept::Nothing => (0, Vec::new()),
            Kept::Packed(Packing::Hash, bytes) => (codec::tags::HASH_PACKED, bytes.clone()),
            Kept::Packed(Packing::HashTemplated, bytes) => {
                (codec::tags::HASH_PACKED, packed::expanded(bytes).as_bytes().to_vec())
            }
            Kept::Packed(_, bytes) => (codec::tags::HASH_PACKED_EX, bytes.clone()),
            Kept::Large(Heap::Hash(hash)) => {
                let mut out = Vec::new();
                hash.encode(&mut out, &mut |_| ());
                (codec::tags::HASH, out)
            }
            Kept::Large(other) => panic!("{other:?}"),
        }
    }

    fn decoded(tag: u8, bytes: &[u8], limits: &Limits) -> Result<Kept, &'static str> {
        Ok(match codec::decode(tag, bytes, limits)? {
            NewValue::Packed(packing, bytes) => Kept::Packed(packing, bytes.to_vec()),
            NewValue::Heap(Heap::Packed(packing, bytes)) => Kept::Packed(packing, bytes.to_vec()),
            NewValue::Heap(heap) => Kept::Large(heap),
            other => panic!("{other:?}"),
        })
    }

    fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(hash) = self.view() {
            canonical(hash, &mut out);
        }
        out
    }
}

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

fn check(kept: &Kept, model: &Model, limits: &Limits) {
    let Some(hash) = kept.view() else { return assert!(model.is_empty()) };
    if let HashRef::Large(large) = hash {
        large.check_invariants();
    }
    for now in [0, 5, u64::MAX] {
        let alive: Model = model.iter().filter(|(_, (_, at))| is_alive(*at, now)).map(clone).collect();
        let read = |field: Field<'_>| (field.name.to_vec(), (field.value.item().to_vec(), field.expiry));
        assert_eq!(hash.iter(now).map(read).collect::<Model>(), alive);
        assert_eq!(hash.len(now), alive.len());
        let mut scanned = Model::new();
        let mut position = Some(0);
        while let Some(at) = position {
            position = hash.scan(at, 3, now, &mut |field| scanned.extend([read(field)]));
        }
        assert_eq!(scanned, alive);
        let mut random = Random::from_seed(3);
        let drawn = hash.random(now, &mut || random.next_u64()).map(read);
        assert_eq!(drawn.is_some(), !alive.is_empty());
        assert!(drawn.is_none_or(|(name, rest)| alive.get(&name) == Some(&rest)));
    }
    let exact = model.values().filter_map(|(_, at)| *at).min();
    assert_eq!(hash.earliest_expiry().is_some(), exact.is_some());
    assert!(hash.earliest_expiry() <= exact);
    let is_small = matches!(hash, HashRef::Small(_));
    assert!(!is_small || model.len() <= limits.hash_max_listpack_entries);
    let (tag, bytes) = kept.encoded();
    let again = Kept::decoded(tag, &bytes, limits).expect("what was encoded");
    assert_eq!(again.canonical(), kept.canonical());
}

fn clone(entry: (&Vec<u8>, &(Vec<u8>, Option<u64>))) -> (Vec<u8>, (Vec<u8>, Option<u64>)) {
    (entry.0.clone(), entry.1.clone())
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    let text = |number: u32| number.to_string().into_bytes();
    prop_oneof![(0u32..12).prop_map(text), Just(b"a field of some length".to_vec()), Just(Vec::new())]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..16),
        (100usize..200).prop_map(|len| vec![b'v'; len]),
    ]
}

#[derive(Clone, Debug)]
enum Edit {
    Set(Vec<u8>, Vec<u8>, NewExpiry),
    Remove(Vec<u8>),
    SetExpiry(Vec<u8>, Option<u64>),
    RemoveExpired(u64, usize),
    Reserve(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    edit_of(field().boxed())
}

/// Few names, so that the orders in which hashes have them need few templates.
fn edit_of_few() -> impl Strategy<Value = Edit> {
    edit_of(prop::sample::select(vec![b"3".to_vec(), b"7".to_vec(), b"name".to_vec()]).boxed())
}

fn edit_of(field: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Edit> {
    let field = || field.clone();
    let expiry =
        prop_oneof![3 => Just(NewExpiry::Clear), 1 => Just(NewExpiry::Keep), 1 => (1u64..10).prop_map(NewExpiry::At)];
    prop_oneof![
        6 => (field(), value(), expiry).prop_map(|(field, value, expiry)| Edit::Set(field, value, expiry)),
        3 => field().prop_map(Edit::Remove),
        2 => (field(), prop::option::of(1u64..10)).prop_map(|(field, at)| Edit::SetExpiry(field, at)),
        1 => (1u64..10, 0usize..4).prop_map(|(now, limit)| Edit::RemoveExpired(now, limit)),
        1 => (0usize..8).prop_map(Edit::Reserve),
    ]
}

fn apply(kept: &mut Kept, model: &mut Model, edit: Edit, limits: &Limits) {
    kept.edit(limits, |hash| match edit {
        Edit::Set(field, value, expiry) => {
            let old = model.get(&field).and_then(|(_, at)| *at);
            let at = match expiry {
                NewExpiry::Clear => None,
                NewExpiry::Keep => old,
                NewExpiry::At(at) => Some(at),
            };
            let is_new = hash.set(&field, &value, expiry);
            assert_eq!(is_new, model.insert(field, (value, at)).is_none());
        }
        Edit::Remove(field) => assert_eq!(hash.remove(&field), model.remove(&field).is_some()),
        Edit::SetExpiry(field, at) => {
            if let Some(known) = model.get_mut(&field) {
                hash.set_expiry(&field, at);
                known.1 = at;
            }
        }
        Edit::RemoveExpired(now, limit) => {
            let due = model.values().filter(|(_, at)| !is_alive(*at, now)).count();
            let removed = hash.remove_expired(now, limit);
            assert_eq!(removed.len(), due.min(limit));
            for name in removed {
                let (_, at) = model.remove(&*name).expect("it was there");
                assert!(!is_alive(at, now));
            }
            if due < limit {
                let bound = hash.view().earliest_expiry();
                assert!(bound.is_none_or(|at| at > now), "a bound that is too low was made exact");
            }
        }
        Edit::Reserve(fields) => hash.reserve(fields),
    });
    for field in ["3", "7", ""] {
        let found = kept.view().and_then(|hash| hash.get_with_expiry(field.as_bytes(), 0));
        let found = found.map(|(value, at)| (value.item().to_vec(), at));
        assert_eq!(found.as_ref(), model.get(field.as_bytes()));
    }
}

proptest! {
    #[test]
    fn every_form_does_what_a_plain_map_does(edits in prop::collection::vec(edit(), 1..120)) {
        let limits = tiny();
        let (mut kept, mut model) = (Kept::Nothing, Model::new());
        for (number, edit) in edits.into_iter().enumerate() {
            let frozen = (kept.clone(), kept.canonical());
            apply(&mut kept, &mut model, edit, &limits);
            if number % 8 == 0 {
                check(&kept, &model, &limits);
            }
            prop_assert_eq!(frozen.0.canonical(), frozen.1, "a clone stays as it was");
        }
        check(&kept, &model, &limits);
    }

    #[test]
    fn a_hash_of_a_template_does_what_a_plain_map_does(edits in prop::collection::vec(edit_of_few(), 1..60)) {
        let limits = Limits { hash_templates: template::Policy::PREPARED, ..tiny() };
        let (mut kept, mut model) = (Kept::Nothing, Model::new());
        for edit in edits {
            let frozen = (kept.clone(), kept.canonical());
            apply(&mut kept, &mut model, edit, &limits);
            check(&kept, &model, &limits);
            prop_assert!(!matches!(kept, Kept::Packed(Packing::Hash, _)), "it found its template: {kept:?}");
            prop_assert_eq!(frozen.0.canonical(), frozen.1, "a clone stays as it was");
        }
    }

    #[test]
    fn bytes_from_outside_give_a_sound_hash_or_an_error(
        tag in prop::sample::select(vec![codec::tags::HASH, codec::tags::HASH_PACKED, codec::tags::HASH_PACKED_EX]),
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let limits = tiny();
        if let Ok(kept) = Kept::decoded(tag, &bytes, &limits) {
            let hash = kept.view().unwrap();
            prop_assert!(hash.iter(0).count() == hash.len(0) && hash.len(0) > 0);
        }
    }

    #[test]
    fn damaged_bytes_of_a_large_hash_are_sound_or_refused(
        edits in prop::collection::vec(edit(), 20..40), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let limits = Limits { hash_max_listpack_entries: 0, ..tiny() };
        let (mut kept, mut model) = (Kept::Nothing, Model::new());
        edits.into_iter().for_each(|edit| apply(&mut kept, &mut model, edit, &limits));
        let (tag, mut bytes) = kept.encoded();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            prop_assert!(Kept::decoded(tag, &bytes[..at], &limits).is_err(), "cut");
            bytes[at] = byte;
            if let Ok(Kept::Large(Heap::Hash(hash))) = Kept::decoded(tag, &bytes, &limits) {
                hash.check_invariants();
            }
        }
    }
}

/// The fields and expiries of a small hash in their order.
fn order(kept: &Kept) -> String {
    let field = |field: Field<'_>| format!("{}:{}", field.name.to_vec().escape_ascii(), field.expiry.unwrap_or(0));
    kept.view().unwrap().iter(0).map(field).collect::<Vec<_>>().join(" ")
}

/// As recorded from Redis 8.
#[test]
fn a_small_hash_with_expiries_is_in_redis_order() {
    let limits = Limits::defaults(SEED);
    let set = |hash: &mut HashMut<'_>, field: &[u8], value: i64, expiry| {
        assert!(hash.set(field, value, expiry) == (field == b"f"))
    };
    let mut kept = Kept::Nothing;
    let mut step = |edit: &dyn Fn(&mut HashMut<'_>), expected: &str| {
        kept.edit(&limits, |hash| edit(hash));
        assert_eq!(order(&kept), expected);
    };
    step(
        &|hash| {
            for name in [b"a", b"b", b"c", b"d", b"e"] {
                hash.set(name, 1, NewExpiry::Clear);
            }
        },
        "a:0 b:0 c:0 d:0 e:0",
    );
    step(
        &|hash| ["c", "d"].iter().for_each(|name| hash.set_expiry(name.as_bytes(), Some(50))),
        "d:50 c:50 a:0 b:0 e:0",
    );
    step(&|hash| hash.set_expiry(b"e", Some(40)), "e:40 d:50 c:50 a:0 b:0");
    step(&|hash| hash.set_expiry(b"a", Some(50)), "e:40 a:50 d:50 c:50 b:0");
    step(&|hash| set(hash, b"c", 9, NewExpiry::Clear), "e:40 a:50 d:50 b:0 c:0");
    step(&|hash| set(hash, b"b", 9, NewExpiry::Clear), "e:40 a:50 d:50 b:0 c:0");
    step(&|hash| hash.set_expiry(b"e", None), "a:50 d:50 b:0 c:0 e:0");
    step(&|hash| set(hash, b"d", 7, NewExpiry::Keep), "a:50 d:50 b:0 c:0 e:0");
    step(&|hash| set(hash, b"d", 7, NewExpiry::At(50)), "d:50 a:50 b:0 c:0 e:0");
    step(&|hash| set(hash, b"f", 7, NewExpiry::Keep), "d:50 a:50 b:0 c:0 e:0 f:0");
    assert!(matches!(kept, Kept::Packed(Packing::HashEx, _)));
}

#[test]
fn a_hash_grows_large_where_redis_lets_it_and_never_small_again() {
    let limits = Limits::defaults(SEED);
    let large = |kept: &Kept| matches!(kept, Kept::Large(_));
    let (mut kept, value) = (Kept::Nothing, [b'x'; 65]);
    kept.edit(&limits, |hash| hash.set(b"f", &value[..64], NewExpiry::Clear));
    assert!(!large(&kept));
    kept.edit(&limits, |hash| hash.set(b"f", &value[..], NewExpiry::Clear));
    assert!(large(&kept));
    kept.edit(&limits, |hash| hash.set(b"f", 1, NewExpiry::Clear));
    assert!(large(&kept));
    let mut kept = Kept::Nothing;
    for number in 0..513 {
        assert!(!large(&kept));
        kept.edit(&limits, |hash| hash.set(number.to_string().as_bytes(), number, NewExpiry::Clear));
    }
    assert!(large(&kept));
    let mut kept = Kept::Nothing;
    kept.edit(&limits, |hash| hash.reserve(512));
    kept.edit(&limits, |hash| hash.set(b"f", 1, NewExpiry::Clear));
    assert!(!large(&kept));
    kept.edit(&limits, |hash| hash.reserve(513));
    assert!(large(&kept));
}

#[test]
fn malformed_hashes_are_refused() {
    let limits = tiny();
    let list = |items: &[&str]| {
        let mut list = ListpackBuf::new();
        list.extend(items.iter().map(|item| item.as_bytes()));
        list.into_vec()
    };
    let (plain, wide) = (codec::tags::HASH_PACKED, codec::tags::HASH_PACKED_EX);
    let decode = |tag, items: &[&str]| Kept::decoded(tag, &list(items), &limits);
    assert!(decode(plain, &["a", "1", "1", "2"]).is_ok());
    for items in [&[][..], &["a"], &["a", "1", "b"], &["a", "1", "a", "2"], &["1", "1", "1", "2"]] {
        assert!(decode(plain, items).is_err(), "{items:?}");
    }
    assert!(decode(wide, &["a", "1", "5", "b", "1", "5", "c", "1", "0"]).is_ok());
    for items in [
        &["a", "1"][..],
        &["a", "1", "x"],
        &["a", "1", "-1"],
        &["a", "1", "281474976710656"],
        &["a", "1", "0", "b", "1", "5"],
        &["a", "1", "6", "b", "1", "5"],
        &["a", "1", "5", "a", "1", "6"],
    ] {
        assert!(decode(wide, items).is_err(), "{items:?}");
    }
    let many: Vec<String> = (0..14).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(decode(plain, &many), Ok(Kept::Large(_))), "beyond the limits");
    for bytes in [
        &[][..],
        &[0],
        &[1],
        &[2, 0, 1, b'a', 1, b'x'],
        &[1, 4, 1, b'a', 1, b'x'],
        &[1, 0, 1, b'a', 1, b'x', 0],
        &[2, 0, 1, b'a', 1, b'x', 0, 1, b'a', 1, b'y'],
        &[1, 2, 1, b'a', 1, b'x', 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
    ] {
        assert!(Kept::decoded(codec::tags::HASH, bytes, &limits).is_err(), "{bytes:?}");
    }
    assert!(Kept::decoded(codec::tags::HASH, &[1, 3, 1, b'a', 1, 7, 0, 0, 0, 0, 0, 0, 0], &limits).is_ok());
}

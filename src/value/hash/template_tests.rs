//! Tests of templates: which hashes use them, and what that saves. The table is that of the whole process, so each test
//! has names of its own.

use super::template::{BYTES_MAX, Policy, TEMPLATES_MAX, totals};
use super::*;
use crate::base::hash::HashSeed;
use crate::value::codec;
use crate::value::entry::NewValue;

const DEFAULT: Policy = Policy { entries_min: 2, entries_max: 64, ..Policy::NONE };

fn limits(templates: Policy) -> Limits {
    Limits { hash_templates: templates, ..Limits::defaults(HashSeed([7; 16])) }
}

fn made(fields: &[(&str, &str)], policy: Policy) -> (Packing, Vec<u8>) {
    let mut hash = HashMut::empty(Vec::new(), &limits(policy));
    for (field, value) in fields {
        hash.set(field.as_bytes(), value.as_bytes(), NewExpiry::Clear);
    }
    match AnyHash::finish(hash) {
        Finished::Packed(packing, bytes) => (packing, bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_make_a_template_once_they_were_seen_often() {
    let fields = [("seen-often-name", "Ada"), ("seen-often-email", "ada@example.org")];
    let (packing, plain) = made(&fields, DEFAULT);
    assert_eq!(packing, Packing::Hash, "once is not often");
    for _ in 0..14 {
        assert_eq!(made(&fields, DEFAULT).0, Packing::Hash);
    }
    let (packing, compact) = made(&fields, DEFAULT);
    assert_eq!(packing, Packing::HashTemplated);
    assert_eq!(compact.len() + "seen-often-name".len() + "seen-often-email".len() + 4 - 2, plain.len());
    let hash = HashRef::packed(packing, &compact);
    assert_eq!(hash.get(b"seen-often-email", 0).map(|value| value.item().to_vec()), Some(b"ada@example.org".to_vec()));
    assert!(!hash.contains(b"ada@example.org", 0), "a value is no name");
    // Another order is another template.
    let turned = [fields[1], fields[0]];
    assert_eq!(made(&turned, DEFAULT).0, Packing::Hash);
}

#[test]
fn fields_that_come_together_find_their_template_before_the_hash_is_made() {
    let fields: [(&[u8], &[u8]); 2] = [(b"together-a", b"12"), (b"together-b", b"text")];
    let all = |fields: &[(&[u8], &[u8])], limits: &Limits| {
        let mut hash = HashMut::empty(Vec::new(), limits);
        let created = hash.set_all(fields.iter().copied());
        match AnyHash::finish(hash) {
            Finished::Packed(packing, bytes) => (packing, bytes, created),
            other => panic!("{other:?}"),
        }
    };
    let limits = limits(DEFAULT);
    let (plain, _, created) = all(&fields, &limits);
    assert_eq!((plain, created), (Packing::Hash, 2));
    let expected = made(&[("together-a", "12"), ("together-b", "text")], Policy::PREPARED);
    assert_eq!(all(&fields, &limits), (expected.0, expected.1.clone(), 2));
    // A field twice, a value that is too long, a hash that has fields already.
    let (packing, bytes, created) = all(&[fields[0], fields[0]], &limits);
    assert_eq!((packing, created, HashRef::packed(packing, &bytes).stored_len()), (Packing::Hash, 1, 1));
    let mut hash = HashMut::empty(Vec::new(), &limits);
    hash.set_all([(fields[0].0, &[b'v'; 65][..]), fields[1]].into_iter());
    assert!(matches!(AnyHash::finish(hash), Finished::Large(_)));
    let mut hash = HashMut::packed(expected.0, expected.1, &limits);
    assert_eq!(hash.set_all([fields[1], fields[0]].into_iter()), 0);
    assert_eq!(hash.view().stored_len(), 2);
}

#[test]
fn a_hash_that_is_made_field_by_field_goes_from_template_to_template() {
    let names = ["by-one-a", "by-one-b", "by-one-c", "by-one-d"];
    let limits = limits(DEFAULT);
    let forms_of_last = |names: &[&str]| {
        let (mut forms, mut stored) = (Vec::new(), Stored::Missing(Vec::new()));
        for name in names {
            let mut hash = AnyHash::edit(stored, &limits).expect("a hash");
            assert!(hash.set(name.as_bytes(), name.as_bytes(), NewExpiry::Keep));
            let Finished::Packed(packing, bytes) = AnyHash::finish(hash) else { panic!("a small hash") };
            let read = HashRef::packed(packing, &bytes);
            assert!(names.iter().take_while(|other| *other != name).all(|other| read.contains(other.as_bytes(), 0)));
            assert_eq!(read.get(name.as_bytes(), 0).map(|value| value.item().to_vec()), Some(name.as_bytes().to_vec()));
            forms.push(packing);
            stored = Stored::Packed(packing, bytes);
        }
        forms
    };
    (0..60).for_each(|_| drop(forms_of_last(&names)));
    let templated = Packing::HashTemplated;
    assert_eq!(forms_of_last(&names), [Packing::Hash, templated, templated, templated]);
    assert_eq!(forms_of_last(&["by-one-b", "by-one-a", "by-one-c"]), [Packing::Hash; 3], "names in another order");
}

#[test]
fn the_settings_say_which_hashes_use_templates() {
    let of = |count: usize| -> Vec<(String, String)> {
        (0..count).map(|at| (format!("settings-{count}-{at}"), at.to_string())).collect()
    };
    let often = |count: usize, policy: Policy| {
        let fields = of(count);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        (0..20).for_each(|_| drop(made(&fields, policy)));
        made(&fields, policy).0 == Packing::HashTemplated
    };
    assert!(!often(4, Policy::NONE));
    assert!(!often(4, Policy { entries_min: 5, entries_max: 6, ..Policy::NONE }));
    assert!(often(5, Policy { entries_min: 5, entries_max: 6, ..Policy::NONE }));
    assert!(!often(7, Policy { entries_min: 5, entries_max: 6, ..Policy::NONE }));
    assert!(often(8, Policy { entries_min: 5, entries_max: 0, ..Policy::NONE }), "no upper bound");
    assert!(!often(257, Policy { entries_min: 1, entries_max: 0, ..Policy::NONE }), "more than a template may have");
    assert!(!often(9, Policy { entries_min: 0, entries_max: 64, ..Policy::NONE }));
}

#[test]
fn an_expiry_or_another_name_gives_a_hash_its_names_back() {
    let fields = [("back-a", "1"), ("back-b", "2")];
    let (packing, bytes) = made(&fields, Policy::PREPARED);
    assert_eq!(packing, Packing::HashTemplated);
    let edited = |edit: &dyn Fn(&mut HashMut<'_>)| {
        let mut hash = HashMut::packed(packing, bytes.clone(), &limits(DEFAULT));
        edit(&mut hash);
        match AnyHash::finish(hash) {
            Finished::Packed(packing, _) => packing,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(edited(&|hash| hash.set_expiry(b"back-a", Some(5))), Packing::HashEx);
    assert_eq!(edited(&|hash| assert!(hash.remove(b"back-b"))), Packing::Hash);
    assert_eq!(edited(&|hash| assert!(hash.set(b"back-c", 3i64, NewExpiry::Clear))), Packing::Hash);
    // These leave the names as they are.
    assert_eq!(
        edited(&|hash| assert!(!hash.set(b"back-a", b"new".as_slice(), NewExpiry::Clear))),
        Packing::HashTemplated
    );
    assert_eq!(edited(&|hash| assert!(!hash.remove(b"back-c"))), Packing::HashTemplated);
    assert_eq!(edited(&|hash| hash.set_expiry(b"back-a", None)), Packing::HashTemplated);
}

#[test]
fn what_is_persisted_has_names_and_is_read_as_a_template_again() {
    let fields = [("persisted", "x"), ("12", "-5"), ("other", "")];
    let (packing, bytes) = made(&fields, Policy::PREPARED);
    assert_eq!(packing, Packing::HashTemplated);
    let plain = made(&fields, Policy::NONE).1;
    assert_eq!(packed::expanded(&bytes).as_bytes(), plain);
    assert_eq!(packed::expanded_len(&bytes), plain.len());
    let read = codec::decode(codec::tags::HASH_PACKED, &plain, &limits(DEFAULT)).unwrap();
    assert!(read.is_templated(), "{read:?}");
    let read = codec::decode(codec::tags::HASH_PACKED, &plain, &limits(Policy::NONE)).unwrap();
    assert!(matches!(read, NewValue::Packed(Packing::Hash, _)), "{read:?}");
}

#[test]
fn templates_take_bounded_memory() {
    let (count, bytes) = totals();
    assert!(count <= TEMPLATES_MAX && bytes <= BYTES_MAX);
    // Names that are too long for a template are kept by their hash, at any number of sightings.
    let long = "n".repeat(256);
    let mut hash = HashMut::empty(Vec::new(), &Limits { hash_max_listpack_value: 1000, ..limits(Policy::PREPARED) });
    hash.set(long.as_bytes(), 1i64, NewExpiry::Clear);
    assert!(matches!(AnyHash::finish(hash), Finished::Packed(Packing::Hash, _)));
}

//! Tests of encryption, and the register of what was sealed.
//!
//! The register is a thread's: while it is on, sealing two texts at one place under one key is a panic.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::persist::crash_tests::{Model, length_of, options, script, script_of_recycling, script_of_switches};
use crate::persist::format::{KEYS, LOCK, MANIFEST};
use crate::persist::storage::{SimStorage, Storage as _};
use crate::persist::{PersistError, Store, StoreOptions};

/// The checksum of what was sealed, by key and place.
type Sealed = HashMap<([u8; 8], u64), u32>;

thread_local! {
    /// How this thread's stores are encrypted.
    static CURRENT: RefCell<Option<Encryption>> = const { RefCell::new(None) };
    /// What was sealed, by the fingerprint of the key and the place, if that is noted.
    static SEALED: RefCell<Option<Sealed>> = const { RefCell::new(None) };
}

/// How this thread's stores are encrypted.
pub(crate) fn current() -> Option<Encryption> {
    CURRENT.with_borrow(Clone::clone)
}

/// Encrypts this thread's stores under master keys that consist of one digit each, or only reads what is encrypted.
pub(crate) fn encrypt(keys: &'static str, writes: bool) {
    let text = || keys.chars().map(|digit| digit.to_string().repeat(64) + "\n").collect::<String>();
    let source = Arc::new(move || MasterKeys::parse(text().as_bytes()));
    CURRENT.set(Some(Encryption { source, writes }));
}

/// Leaves this thread's stores in the clear from now on.
pub(crate) fn encrypt_no_more() {
    CURRENT.set(None);
}

/// Begins an empty register.
fn begin_register() {
    SEALED.set(Some(HashMap::new()));
}

/// Notes what is sealed.
pub(super) fn note_use(cipher: &FileCipher, place: u64, associated: &[u8], bytes: &[u8]) {
    let text = crc32fast::hash(&[associated, b"|", bytes].concat());
    SEALED.with_borrow_mut(|sealed| {
        let Some(sealed) = sealed else { return };
        let before = sealed.insert((cipher.fingerprint, place), text);
        assert!(before.is_none_or(|before| before == text), "two texts at place {place} under one key");
    });
}

fn cipher(number: u64, generation: u64) -> FileCipher {
    FileCipher::derive(&Zeroizing::new([7; KEY]), 1, FileKind::Segment, number, generation)
}

#[test]
fn what_is_sealed_opens_at_its_place_in_its_file_alone() {
    let sealing = cipher(1, 2);
    for len in [0, 1, 15, 16, 17, 5000] {
        let text: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let mut sealed = [&b"head"[..], &text].concat();
        sealing.seal(9, b"associated", &mut sealed, 4);
        assert_eq!((&sealed[..4], sealed.len()), (&b"head"[..], 4 + len + TAG));
        let sealed = &sealed[4..];
        assert_eq!(sealing.open(9, b"associated", sealed), Ok(text.clone()));
        assert!(len < 8 || !sealed.windows(8).any(|part| part == &text[..8]));
        assert_eq!(sealing.open(8, b"associated", sealed), Err(NotAuthentic));
        assert_eq!(sealing.open(9, b"other", sealed), Err(NotAuthentic));
        for other in [cipher(2, 2), cipher(1, 3)] {
            assert_eq!(other.open(9, b"associated", sealed), Err(NotAuthentic));
        }
        for at in (0..sealed.len()).step_by(1 + len / 50) {
            let mut bad = sealed.to_vec();
            bad[at] ^= 1;
            assert_eq!(sealing.open(9, b"associated", &bad), Err(NotAuthentic));
            assert_eq!(sealing.open(9, b"associated", &sealed[..at]), Err(NotAuthentic));
        }
    }
}

#[test]
fn master_keys_are_lines_of_digits() {
    let (a, b) = ("0a".repeat(32), "F".repeat(64));
    let keys = MasterKeys::parse(format!("# the new one\n\n  {a} \r\n{b}").as_bytes()).ok().unwrap();
    assert_eq!(**keys.first(), [10; 32]);
    assert_eq!(keys.find(master::fingerprint(&Zeroizing::new([255; 32]))).map(|key| **key), Some([255; 32]));
    assert!(keys.find([0; 8]).is_none());
    for bad in ["", "# none", &a[1..], &format!("{a}0"), &a.replace('a', "g"), &format!("{a}\nsecret")] {
        let problem = MasterKeys::parse(bad.as_bytes()).err().unwrap();
        assert!(problem.contains("key") && !problem.contains("secret"), "{problem}");
    }
}

/// Everything in the directory that could tell what was written: values are digits and many dots.
fn tells(storage: &SimStorage) -> Vec<String> {
    let names = storage.names().into_iter();
    names.filter(|name| storage.get(name).is_some_and(|bytes| bytes.windows(6).any(|part| part == b"......"))).collect()
}

/// Through a power cut at every operation, and a change of the master key between two runs.
#[test]
fn a_crash_loses_nothing_tells_nothing_and_uses_no_nonce_twice() {
    for script in [script, script_of_switches, script_of_recycling] {
        for crash in 0..=length_of(script) + 4 {
            begin_register();
            encrypt("1", true);
            let storage = SimStorage::new();
            storage.crash_at(crash);
            let (low, high) = match Model::open(&storage, 1, 0, 0, true) {
                Ok(mut model) => {
                    script(&mut model);
                    (model.acknowledged, model.appended)
                }
                Err(_) => (0, 0),
            };
            assert_eq!(tells(&storage.process_image()), [""; 0], "crash at {crash}");
            let image = storage.recover_image(crash);
            if crash % 2 == 0 {
                encrypt("21", true);
            }
            let mut model = Model::open(&image, 2, low, high, true).unwrap_or_else(|e| panic!("{crash}: {e}"));
            model.append(3);
            model.sync().unwrap();
            model.snapshot().unwrap();
            let (low, high) = (model.acknowledged, model.appended);
            drop(model);
            if crash % 2 == 0 {
                // The old key is not needed any more.
                encrypt("2", true);
            }
            let image = image.recover_image(crash + 1);
            Model::open(&image, 3, low, high, true).unwrap_or_else(|e| panic!("{crash}: {e}"));
            assert_eq!(tells(&image), [""; 0], "crash at {crash}");
        }
    }
}

#[test]
fn encryption_is_switched_on_and_off_over_what_is_there() {
    CURRENT.set(None);
    let storage = SimStorage::new();
    let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
    model.append(20);
    model.sync().unwrap();
    model.snapshot().unwrap();
    model.sync().unwrap();
    let (mut at, mut generation) = (model.appended, 1);
    drop(model);
    for (keys, writes, needs, told) in
        [("1", true, true, false), ("1", true, false, false), ("31", false, true, true), ("", false, false, true)]
    {
        CURRENT.set(None);
        if !keys.is_empty() {
            encrypt(keys, writes);
        }
        generation += 1;
        let mut model = Model::open(&storage, generation, at, at, true).unwrap();
        assert_eq!((model.store.needs_rewrite(), model.store.is_encrypted()), (needs, writes), "{keys}");
        // Recycling leaves no trace of the segment before.
        for _ in 0..3 {
            model.append(9);
            model.sync().unwrap();
            model.snapshot().unwrap();
        }
        assert!(!model.store.needs_rewrite());
        model.sync().unwrap();
        at = model.appended;
        drop(model);
        assert_eq!(!tells(&storage).is_empty(), told, "{keys}: {:?}", tells(&storage));
        // Once nothing is encrypted, no key is needed.
        if !writes && storage.names().iter().any(|name| name == KEYS) {
            storage.remove(KEYS).unwrap();
        }
    }
}

fn refusal(storage: &SimStorage, generation: u64) -> String {
    match Store::open(Arc::new(storage.clone()), options(generation, true)) {
        Ok(_) => panic!("the store opens"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_wrong_key_none_or_a_lost_file_of_keys_is_refused_and_changes_nothing() {
    encrypt("1", true);
    let storage = SimStorage::new();
    let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
    model.append(20);
    model.snapshot().unwrap();
    model.append(20);
    model.sync().unwrap();
    drop(model);
    let all = |storage: &SimStorage| storage.names().into_iter().map(|n| (storage.get(&n), n)).collect::<Vec<_>>();
    let before = all(&storage);
    CURRENT.set(None);
    assert!(refusal(&storage, 2).contains("`encryption-key-file` or `encryption-key-command` must give its key"));
    encrypt("2", true);
    assert!(refusal(&storage, 2).contains("which is not among those given"));
    CURRENT.set(Some(Encryption { source: Arc::new(|| Err("no such file".into())), writes: true }));
    assert!(refusal(&storage, 2).contains("no such file"));
    assert!(all(&storage) == before);
    encrypt("1", true);
    let keys = storage.get(KEYS).unwrap();
    storage.remove(KEYS).unwrap();
    assert!(refusal(&storage, 2).contains("under the data key"));
    assert!(storage.get(KEYS).is_none(), "no new key in its place");
    for at in 0..keys.len() {
        let mut bad = keys.clone();
        bad[at] ^= 4;
        storage.put(KEYS, &bad);
        assert!(refusal(&storage, 2).contains(KEYS), "{at}");
        storage.put(KEYS, &keys[..at]);
        assert!(refusal(&storage, 2).contains(KEYS), "cut at {at}");
    }
    storage.put(KEYS, &keys);
    Model::open(&storage, 2, 46, 46, true).unwrap();
}

/// An attacker with the disk, who makes all checksums fit.
#[test]
fn what_is_changed_and_given_a_new_checksum_does_not_decrypt() {
    use crate::persist::block::{finish_block, read_block};
    use crate::persist::format::{BLOCK_HEADER, SEGMENT_HEADER, segment_name};
    encrypt("1", true);
    let storage = SimStorage::new();
    let mut model = Model::open(&storage, 1, 0, 0, true).unwrap();
    model.append(5);
    model.sync().unwrap();
    drop(model);
    let name = segment_name(1);
    let log = storage.get(&name).unwrap();
    let block = read_block(&log, SEGMENT_HEADER, true).unwrap();
    let (header, len) = (block.header, block.len);
    for at in (BLOCK_HEADER..len).step_by(7) {
        let mut bad = log.clone();
        bad[SEGMENT_HEADER + at] ^= 1;
        finish_block(&mut bad[SEGMENT_HEADER..SEGMENT_HEADER + len], &header);
        storage.put(&name, &bad);
        let (store, recovery) = Store::open(Arc::new(storage.clone()), options(2, false)).unwrap();
        drop(store);
        let problem = recovery.windows().next_window().map(|_| ()).unwrap_err();
        assert!(matches!(problem, PersistError::Corrupt { .. }) && problem.to_string().contains("decrypt"));
    }
}

#[test]
fn a_store_tells_its_hash_seed_only_if_it_was_created_in_the_clear() {
    encrypt("1", true);
    for (is_fresh, tells_seed) in [(true, false), (false, true)] {
        let storage = SimStorage::new();
        if !is_fresh {
            CURRENT.set(None);
            drop(Model::open(&storage, 1, 0, 0, true).unwrap());
            encrypt("1", true);
        }
        let mut seeds = Vec::new();
        for generation in 2..4 {
            let opened = Store::open(Arc::new(storage.clone()), StoreOptions { ..options(generation, true) });
            seeds.push(opened.unwrap().1.hash_seed());
        }
        assert_eq!(seeds[0], seeds[1]);
        let holds = |name: &String| storage.get(name).unwrap().windows(16).any(|part| part == seeds[0]);
        assert_eq!(storage.names().iter().any(holds), tells_seed, "{is_fresh}");
        assert!(storage.names().iter().any(|name| [MANIFEST, LOCK].contains(&name.as_str())));
    }
}

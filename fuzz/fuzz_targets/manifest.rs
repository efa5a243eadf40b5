//! Any bytes as the manifest of a store, with or without a valid frame around them.
#![no_main]

mod support;

use ironkeep::persist::format::MANIFEST_MAGIC;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [choice, bytes @ ..] = input else { return };
    let storage = support::golden();
    match choice & 1 {
        0 => storage.put("MANIFEST", bytes),
        _ => storage.put("MANIFEST", &support::framed(MANIFEST_MAGIC, bytes)),
    }
    support::check(&storage, choice & 2 != 0);
});

//! Any bytes as a payload of FUNCTION DUMP, with a valid footer: libraries or an error. What was read is written and read
//! again. Its texts are loaded, with little time and memory, and their functions are called.
#![no_main]

mod lua;

use std::sync::Arc;
use std::time::Duration;

use ironkeep::keyspace::Libraries;
use ironkeep::persist::rdb::{DumpedLibraries, LibrariesError, encode_libraries, footer};
use ironkeep::resp::request::OwnedArgs;
use ironkeep::resp::{Output, Resp};
use ironkeep::script::functions::{FunctionCall, FunctionMachine};
use ironkeep::script::source;
use libfuzzer_sys::fuzz_target;

const TEXTS_MAX_BYTES: u64 = 1 << 20;
const MEMORY_MAX: usize = 16 << 20;

fn decoded(payload: &[u8]) -> Result<Vec<Vec<u8>>, LibrariesError> {
    DumpedLibraries::new(payload, TEXTS_MAX_BYTES)?.map(|text| text.map(|text| text.into_owned())).collect()
}

fuzz_target!(|body: &[u8]| {
    let mut payload = body.to_vec();
    footer::append(&mut payload, 10);
    let texts = match decoded(&payload) {
        Ok(texts) => texts,
        Err(error) => return assert_ne!(error, LibrariesError::Footer, "the footer was right"),
    };
    let again = encode_libraries(texts.iter().map(Vec::as_slice));
    assert_eq!(decoded(&again).as_ref(), Ok(&texts));
    let mut machine = FunctionMachine::new(MEMORY_MAX).expect("there is memory");
    let mut all = Libraries::default();
    for text in &texts {
        let Ok(source) = source::library(text) else { continue };
        let Ok(read) = machine.read(&source, Duration::from_millis(200)) else { continue };
        all.insert(Arc::clone(read.library()));
        machine.keep(vec![read], &all);
    }
    let words = OwnedArgs::new([&b"key"[..], b"argument"].into_iter());
    for library in all.iter() {
        assert!(!library.functions.is_empty(), "a library has functions");
        for at in 0..library.functions.len().min(4) {
            let call = FunctionCall { library, at, args: words.args(), keys: 0..1, resp: Resp::V3 };
            // It may fail as it likes.
            let _ = machine.call(call, &mut lua::Echo::new(), &mut Output::new());
        }
    }
    assert!(machine.memory() <= MEMORY_MAX);
});

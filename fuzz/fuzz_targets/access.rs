//! Any bytes as the file of users, and as the rules of one: an error that changes nothing, or users whose lines make the
//! same users again.
#![no_main]

use ironkeep::access::Users;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let new = || Users::new(ironkeep::session::table().catalogue());
    let (users, again) = (new(), new());
    let before = users.lines();
    match users.load("file", text) {
        Err(error) => assert!(!error.is_empty() && users.lines() == before),
        Ok(()) => {
            again.load("file", &users.lines().join(&b'\n')).expect("what is written can be read");
            assert_eq!(users.lines(), again.lines());
        }
    }
    let before = users.lines();
    let rules: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
    match users.set(b"user", &rules) {
        Err(mistake) => assert!(!mistake.wire().is_empty() && users.lines() == before),
        Ok(()) => {
            let lines = users.lines().join(&b'\n');
            again.load("file", &lines).expect("what is written can be read");
            assert_eq!(users.digest(), again.digest());
        }
    }
});

//! Any text as a script, which runs with little time and memory: it ends, and leaves nothing for the next one.
//!
//! The first byte chooses the protocol.
#![no_main]

mod lua;

use std::sync::OnceLock;

use ironkeep::resp::Resp;
use libfuzzer_sys::fuzz_target;

/// Looks at what a script could have left: the machine is the same.
const AFTER: &[u8] = b"local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names)
    return table.concat(names, ' ') .. #KEYS .. #ARGV .. KEYS[1] .. string.rep('ab', 2) .. redis.call('x')[1] ..
        cjson.encode({1}) .. type(redis.call) .. tostring(rawget(_G, 'x'))";

fuzz_target!(|input: &[u8]| {
    let Some((choice, text)) = input.split_first() else { return };
    let resp = if choice & 1 == 0 { Resp::V2 } else { Resp::V3 };
    // The reply, or the error, may be anything.
    let _ = lua::run(text, &[b"argument", b"17"], resp);
    let after = lua::run(AFTER, &[], Resp::V2).expect("it runs after anything");
    static CLEAN: OnceLock<Vec<u8>> = OnceLock::new();
    // On a thread of its own, a machine is new.
    let clean = || std::thread::spawn(|| lua::run(AFTER, &[], Resp::V2)).join().expect("no panic").expect("it runs");
    assert_eq!(after.escape_ascii().to_string(), CLEAN.get_or_init(clean).escape_ascii().to_string());
});

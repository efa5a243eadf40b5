//! Any bytes as a payload of DUMP, with a valid footer: RESTORE refuses them, or makes a value that commands of all
//! types can work on.
//!
//! The first byte chooses the dialect of the type codes, the sizes at which values change their form, and the
//! protocol; the second one chooses the order of the commands.
#![no_main]

mod battery;

use battery::{BASE, Left, Live, NARROW};
use ironkeep::persist::rdb::footer;
use ironkeep::resp::Resp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [choice, order, body @ ..] = input else { return };
    let mut payload = body.to_vec();
    footer::append(&mut payload, if choice & 1 == 0 { 15 } else { 80 });
    let resp = if choice & 4 == 0 { Resp::V2 } else { Resp::V3 };
    Live::with(if choice & 2 == 0 { NARROW } else { "" }, resp, |live| {
        let reply = live.run_words(&[b"RESTORE", BASE.as_bytes(), b"0", &payload]);
        match reply.text().as_str() {
            "OK" => {
                battery::check(live, *order);
                Left::Used
            }
            refused => {
                assert_eq!(refused, "ERR Bad data format");
                assert!(!live.exists(BASE), "what is refused leaves nothing");
                Left::Untouched
            }
        }
    });
});

//! Any bytes as a collection in a snapshot or in a log record: an error, or a value that means the same when it is
//! written again and that commands of all types can work on.
//!
//! The first byte chooses the sizes at which values change their form, the second one the order of the commands. The
//! third one is the tag.
#![no_main]

mod battery;

use battery::{BASE, Left, Live, NARROW};
use ironkeep::resp::Resp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [choice, order, tag, bytes @ ..] = input else { return };
    Live::with(if choice & 1 == 0 { NARROW } else { "" }, Resp::V2, |live| {
        if !live.restore_state(BASE, *tag, bytes) {
            assert!(!live.exists(BASE), "what is refused leaves nothing");
            return Left::Untouched;
        }
        battery::check(live, *order);
        Left::Used
    });
});

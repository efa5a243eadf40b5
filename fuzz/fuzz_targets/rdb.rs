//! Any bytes as a payload of DUMP, with a valid footer: a value or an error. A value must mean the same when it is
//! written again. The first byte chooses the dialect of the type codes.
#![no_main]

use ironkeep::persist::rdb::{RdbError, RdbValue, decode_dump, encode_dump, footer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&dialect, body)) = input.split_first() else { return };
    let mut payload = body.to_vec();
    footer::append(&mut payload, if dialect & 1 == 0 { 15 } else { 80 });
    match decode_dump(&payload) {
        Ok(value) => {
            let value = comparable(value);
            let again = decode_dump(&encode_dump(&value)).expect("just written");
            assert_eq!(value, comparable(again));
        }
        Err(RdbError::Format { at, .. }) => assert!(at <= body.len()),
        Err(RdbError::Footer) => panic!("the footer was right"),
    }
});

/// Sorts where order says nothing, and forgets what is not written.
fn comparable(mut value: RdbValue) -> RdbValue {
    match &mut value {
        RdbValue::Set(members) => members.sort(),
        RdbValue::Hash(fields) => fields.sort(),
        RdbValue::Zset(members) => members.sort_by(|a, b| a.0.cmp(&b.0)),
        RdbValue::Stream(stream) => {
            for group in &mut stream.meta.groups {
                group.released.clear();
                group.consumers.iter_mut().for_each(|consumer| consumer.active_time_ms = None);
            }
        }
        RdbValue::String(_) | RdbValue::List(_) => {}
    }
    value
}

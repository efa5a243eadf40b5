//! Any bytes as the payload of a block: items or an error with its place. Items that were read must mean the same
//! when they are written again.
#![no_main]

use ironkeep::persist::record::{Items, put_barrier, put_epoch, put_record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let mut again = Vec::new();
    let mut read = Vec::new();
    for item in Items::new(payload) {
        match item {
            Ok((epoch, record)) => {
                let args: Vec<&[u8]> = record.args.collect();
                put_epoch(&mut again, epoch);
                match record.is_barrier() {
                    true => put_barrier(&mut again, record.db, &args),
                    false => put_record(&mut again, record.shard, record.seq, record.db, &args),
                }
                read.push((epoch, record));
            }
            Err(at) => assert!(at <= payload.len()),
        }
    }
    let rewritten: Vec<_> = Items::new(&again).map(|item| item.expect("just written")).collect();
    assert_eq!(read, rewritten);
});

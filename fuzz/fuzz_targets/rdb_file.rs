//! Any bytes as an RDB file: keys or an error, and a value that is read can be read again from the payload made of it.
//! The first byte chooses whether what modules have written is left out, and whether unknown versions are read.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use ironkeep::base::config::RdbVersionCheck;
use ironkeep::persist::foreign::{FileVersion, RdbFile, RdbItem, Source};
use ironkeep::persist::rdb::decode_dump;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&first, bytes)) = input.split_first() else { return };
    let versions = if first & 2 == 2 { RdbVersionCheck::Relaxed } else { RdbVersionCheck::Strict };
    let source = Source::new(Box::new(Cursor::new(bytes.to_vec())), Path::new("any.rdb"));
    let Ok(mut file) = RdbFile::open(source, first & 1 == 1, versions) else { return };
    while let Ok(Some(item)) = file.next_item() {
        let RdbItem::Key(key) = item else { continue };
        for version in [9, 12, 80] {
            let version = FileVersion::new(version).expect("it is known");
            // One that had to be written anew was read before.
            if let Ok(payload) = key.payload(version) {
                let _ = decode_dump(&payload);
            }
        }
    }
});

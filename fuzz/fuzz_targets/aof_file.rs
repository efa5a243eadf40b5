//! Any bytes as an append-only file: commands, then its end, a torn end, or an error; and every command has words.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use ironkeep::persist::foreign::{AofFile, AofItem, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let source = Source::new(Box::new(Cursor::new(input.to_vec())), Path::new("any.aof"));
    let mut file = AofFile::new(source);
    let mut before = 0;
    while let Ok(AofItem::Command(command)) = file.next_item() {
        assert!(!command.args().is_empty());
        assert!(command.offset >= before && command.request().len() <= input.len());
        before = command.offset + 1;
    }
});

//! The blocks of one segment, read through a window. A payload is only checked, never held.

use std::io;

use crc32fast::Hasher;

use super::window::{PIECE, Window};
use crate::persist::block::BlockHeader;
use crate::persist::format::{BLOCK_HEADER, BLOCK_MAGIC, END_MARK, u32_at, u64_at};

/// A block in a file. Its checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it begins.
    pub at: u64,
    /// Its length, header included.
    pub len: u64,
    /// What its header says.
    pub header: BlockHeader,
    /// Its CRC, which the next block carries.
    pub crc: u32,
}

impl Place {
    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// Reads the block at an offset. The inner error says what is wrong with it, in the words of
/// [`read_block`](crate::persist::block::read_block).
pub(crate) fn read_place(window: &mut Window, at: u64) -> io::Result<Result<Place, &'static str>> {
    let head: [u8; BLOCK_HEADER] = match window.get(at, BLOCK_HEADER)?.try_into() {
        Ok(head) => head,
        Err(_) => return Ok(Err("the block's header is cut")),
    };
    if head[..4] != BLOCK_MAGIC {
        return Ok(Err("the block's magic number is wrong"));
    }
    let word = |at| u32_at(&head, at).expect("the header is whole");
    let long = |at| u64_at(&head, at).expect("the header is whole");
    let end = (at + BLOCK_HEADER as u64).checked_add(long(8));
    let file_len = window.file_len()?;
    let Some(end) = end.filter(|&end| end <= file_len) else { return Ok(Err("the block reaches past the end")) };
    let mut hasher = Hasher::new();
    hasher.update(&head[..60]);
    let read_to = window.each(at + BLOCK_HEADER as u64, end, |_, piece| hasher.update(piece))?;
    if read_to != end {
        return Ok(Err("the block reaches past the end"));
    }
    let crc = word(60);
    if hasher.finalize() != crc {
        return Ok(Err("the block's checksum does not match"));
    }
    if word(4) != 0 {
        return Ok(Err("the block has reserved bits set"));
    }
    let header = BlockHeader {
        number: long(16),
        generation: long(24),
        time_ms: long(32),
        durable: long(40),
        next_segment: long(48),
        prev_crc: word(56),
    };
    Ok(Ok(Place { at, len: end - at, header, crc }))
}

/// Whether the blocks end at an offset: at the end mark of a recycled segment, at the end of the file, or where only
/// zeros follow.
pub(crate) fn ends_at(window: &mut Window, at: u64, recycled: bool) -> io::Result<bool> {
    if recycled {
        return Ok(window.get(at, END_MARK)?.iter().all(|&byte| byte == 0));
    }
    // Most often, a block follows.
    if window.get(at, 4)? == BLOCK_MAGIC {
        return Ok(false);
    }
    let mut blank = true;
    let mut from = at;
    while blank {
        let piece = window.get(from, PIECE)?;
        if piece.is_empty() {
            break;
        }
        blank = piece.iter().all(|&byte| byte == 0);
        from += piece.len() as u64;
    }
    Ok(blank)
}

/// Calls `take` for each valid block of a generation with this number or a higher one, anywhere from an offset on,
/// until it returns false. See [`find_blocks`](crate::persist::block::find_blocks).
pub(crate) fn find_places(
    window: &mut Window,
    from: u64,
    generation: u64,
    number: u64,
    mut take: impl FnMut(Place) -> bool,
) -> io::Result<()> {
    let mut at = from;
    loop {
        let piece = window.get(at, PIECE)?;
        let candidates: Vec<u64> =
            memchr::memmem::find_iter(piece, &BLOCK_MAGIC).map(|found| at + found as u64).collect();
        let len = piece.len();
        for candidate in candidates {
            let head = window.get(candidate, BLOCK_HEADER)?;
            let fits = u64_at(head, 24) == Some(generation) && u64_at(head, 16).is_some_and(|found| found >= number);
            if fits
                && let Ok(place) = read_place(window, candidate)?
                && !take(place)
            {
                return Ok(());
            }
        }
        if len < PIECE {
            return Ok(());
        }
        // The magic number may lie across two pieces.
        at += (len - BLOCK_MAGIC.len() + 1) as u64;
    }
}

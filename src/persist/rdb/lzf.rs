//! LZF, the compression inside RDB strings.
//!
//! ```text
//! 000LLLLL                        L + 1 literal bytes follow
//! LLLooooo oooooooo               L + 2 bytes from o + 1 bytes back         L in 1..=6
//! 111ooooo LLLLLLLL oooooooo      L + 9 bytes from o + 1 bytes back
//! ```
//!
//! Reading: the output has exactly the claimed length, or there is none. A claim that the input cannot fulfil is
//! refused before anything is allocated. Writing: matches are found as in the LZF that Redis carries (same hash, same
//! positions entered), so that equal values give equal payloads.

/// The most output bytes per input byte: three bytes can copy 264.
const EXPANSION_MAX: u64 = 88;
const LITERALS_MAX: usize = 32;
const COPY_MAX: usize = 264;
const DISTANCE_MAX: usize = 1 << 13;
const HASH_BITS: u32 = 16;

/// Decompresses `input`, which claims to hold `len` bytes; `None` if it does not.
pub fn decompress(input: &[u8], len: u64) -> Option<Vec<u8>> {
    if len > input.len() as u64 * EXPANSION_MAX {
        return None;
    }
    let len = usize::try_from(len).ok()?;
    let mut out = Vec::with_capacity(len);
    let mut rest = input;
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        let top = usize::from(control >> 5);
        if top == 0 {
            let (literals, after) = rest.split_at_checked(usize::from(control) + 1)?;
            rest = after;
            if literals.len() > len - out.len() {
                return None;
            }
            out.extend_from_slice(literals);
            continue;
        }
        let mut count = top + 2;
        if top == 7 {
            let (&more, after) = rest.split_first()?;
            rest = after;
            count += usize::from(more);
        }
        let (&low, after) = rest.split_first()?;
        rest = after;
        let distance = (usize::from(control & 0x1F) << 8 | usize::from(low)) + 1;
        let from = out.len().checked_sub(distance)?;
        if count > len - out.len() {
            return None;
        }
        copy_back(&mut out, from, count);
    }
    (out.len() == len).then_some(out)
}

/// Appends `count` bytes from `from` on. The source may include bytes that this copy itself appends.
fn copy_back(out: &mut Vec<u8>, from: usize, mut count: usize) {
    while count > 0 {
        let step = count.min(out.len() - from);
        out.extend_from_within(from..from + step);
        count -= step;
    }
}

/// Compresses, and keeps its table of positions between calls.
#[derive(Default)]
pub struct Compressor {
    /// Where each hash was last seen, as `base` + position. Numbers below `base` belong to an earlier input.
    seen: Vec<u32>,
    base: u32,
    /// The base of the next input.
    next: u32,
}

impl Compressor {
    /// Compresses `input` into less than `limit` bytes; `None` if it does not fit.
    pub fn compress(&mut self, input: &[u8], limit: usize) -> Option<Vec<u8>> {
        let len = u32::try_from(input.len()).ok().filter(|&len| len > 2 && limit > 0)?;
        self.make_room(len);
        let mut out = Output { bytes: Vec::with_capacity(limit.min(input.len()) + 4), literals: 0 };
        out.bytes.push(0);
        let mut at = 0;
        while at + 2 < input.len() {
            let candidate = self.enter(input, at);
            let Some(from) = candidate
                .filter(|&from| from > 0 && at - from <= DISTANCE_MAX && input[from..from + 3] == input[at..at + 3])
            else {
                if out.bytes.len() >= limit {
                    return None;
                }
                out.literal(input[at]);
                at += 1;
                continue;
            };
            let count_max = (input.len() - at - 2).min(COPY_MAX);
            let mut count = 3;
            while count < count_max && input[from + count] == input[at + count] {
                count += 1;
            }
            if out.bytes.len() + 4 - usize::from(out.literals == 0) >= limit {
                return None;
            }
            out.copy(count, at - from);
            at += count;
            if at + 2 >= input.len() {
                break;
            }
            self.enter(input, at - 2);
            self.enter(input, at - 1);
        }
        if out.bytes.len() + 3 > limit {
            return None;
        }
        input[at..].iter().for_each(|&byte| out.literal(byte));
        Some(out.finish())
    }

    fn make_room(&mut self, len: u32) {
        if self.seen.is_empty() || self.next.checked_add(len).is_none() {
            // Allocated as zeros instead of filled, so that a short input touches few pages of it.
            self.seen = vec![0; 1 << HASH_BITS];
            self.next = 1;
        }
        self.base = self.next;
        self.next += len;
    }

    /// Enters the three bytes at a position. Returns where their hash was seen before in this input.
    fn enter(&mut self, input: &[u8], at: usize) -> Option<usize> {
        let hash = u32::from_be_bytes([0, input[at], input[at + 1], input[at + 2]]);
        let slot = (hash >> (24 - HASH_BITS)).wrapping_sub(hash.wrapping_mul(5)) & ((1 << HASH_BITS) - 1);
        let before = std::mem::replace(&mut self.seen[slot as usize], self.base + at as u32);
        before.checked_sub(self.base).map(|position| position as usize)
    }
}

/// The output. Its last run of literals is open; the byte before that run will hold its length.
struct Output {
    bytes: Vec<u8>,
    literals: usize,
}

impl Output {
    fn literal(&mut self, byte: u8) {
        self.bytes.push(byte);
        self.literals += 1;
        if self.literals == LITERALS_MAX {
            self.close_run();
            self.bytes.push(0);
        }
    }

    /// Writes the length of the open run, or removes its length byte if the run is empty.
    fn close_run(&mut self) {
        if self.literals == 0 {
            self.bytes.pop();
        } else {
            let place = self.bytes.len() - self.literals - 1;
            self.bytes[place] = (self.literals - 1) as u8;
            self.literals = 0;
        }
    }

    fn copy(&mut self, count: usize, distance: usize) {
        self.close_run();
        let (length, offset) = (count - 2, distance - 1);
        let high = (offset >> 8) as u8;
        if length < 7 {
            self.bytes.push((length as u8) << 5 | high);
        } else {
            self.bytes.extend_from_slice(&[7 << 5 | high, (length - 7) as u8]);
        }
        self.bytes.extend_from_slice(&[offset as u8, 0]);
    }

    fn finish(mut self) -> Vec<u8> {
        self.close_run();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_run_is_compressed_as_redis_does() {
        let expected = [1, b'x', b'x', 0xE0, 57, 0, 1, b'x', b'x'];
        assert_eq!(Compressor::default().compress(&[b'x'; 70], 66), Some(expected.to_vec()));
        assert_eq!(decompress(&expected, 70), Some(vec![b'x'; 70]));
    }

    #[test]
    fn wrong_input_gives_nothing() {
        let good = [1, b'x', b'x', 0xE0, 57, 0, 1, b'x', b'x'];
        for cut in 0..good.len() {
            assert_eq!(decompress(&good[..cut], 70), None, "{cut}");
        }
        for len in [0, 69, 71, 793, u64::MAX] {
            assert_eq!(decompress(&good, len), None, "{len}");
        }
        assert_eq!(decompress(&[0, b'x', 0x20, 1], 4), None, "reaches before the start");
        assert_eq!(decompress(&[0x20, 0], 3), None, "nothing to copy yet");
        assert_eq!(decompress(&[], 0), Some(Vec::new()));
    }

    #[test]
    fn a_claim_at_the_bound_of_expansion_is_believed() {
        // One literal, and then as often as possible three bytes that copy 264.
        let mut input = vec![0, b'x'];
        let copies = 1000;
        (0..copies).for_each(|_| input.extend_from_slice(&[0xE0, 0xFF, 0]));
        let len = 1 + copies * COPY_MAX;
        assert_eq!(decompress(&input, len as u64), Some(vec![b'x'; len]));
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let noise: Vec<u8> = (0..200_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(Compressor::default().compress(&noise, noise.len() - 4), None);
        assert_eq!(Compressor::default().compress(b"ab", 10), None);
    }

    #[test]
    fn a_worn_out_table_starts_anew() {
        let mut compressor = Compressor::default();
        let input = b"one two one two one two one two".repeat(3);
        let first = compressor.compress(&input, input.len()).expect("shrinks");
        compressor.next = u32::MAX - 5;
        assert_eq!(compressor.compress(&input, input.len()), Some(first));
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(inputs in vec(vec(0_u8..4, 0..3000), 1..4)) {
            let mut compressor = Compressor::default();
            for input in inputs {
                // An input that does not fit leaves its positions in the table.
                prop_assert_eq!(compressor.compress(&input, 1), None);
                if let Some(packed) = compressor.compress(&input, input.len()) {
                    prop_assert!(packed.len() < input.len());
                    prop_assert_eq!(decompress(&packed, input.len() as u64), Some(input));
                }
            }
        }

        #[test]
        fn any_input_is_refused_or_gives_its_claim(input in vec(any::<u8>(), 0..100), len in 0_u64..9000) {
            if let Some(out) = decompress(&input, len) {
                prop_assert_eq!(out.len() as u64, len);
            }
        }
    }
}

//! Hash slots: how cluster clients divide keys. A key belongs to the slot `CRC16(key) mod 16384`. If it has a hash
//! tag, text between the first `{` and the next `}` that is not empty, only that text counts.

/// The number of slots of a cluster.
pub const SLOTS: usize = 16384;

/// The sums of single bytes: CRC-16 with the polynomial 0x1021, as XMODEM has it.
const TABLE: [u16; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        let (mut sum, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// The slot of a key.
pub fn of_key(key: &[u8]) -> u16 {
    of_text(tag(key).unwrap_or(key))
}

/// The slot of all keys that a pattern can match; `None` if it may match keys of several.
pub fn of_pattern(pattern: &[u8]) -> Option<u16> {
    let special = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    let tag_end = pattern.iter().position(|&byte| byte == b'{').zip(tag(pattern)).map(|(at, tag)| at + tag.len());
    match (special, tag_end) {
        (None, _) => Some(of_key(pattern)),
        (Some(special), Some(end)) if end < special => tag(pattern).map(of_text),
        _ => None,
    }
}

/// The hash tag of a key.
fn tag(key: &[u8]) -> Option<&[u8]> {
    let behind = &key[key.iter().position(|&byte| byte == b'{')? + 1..];
    let end = behind.iter().position(|&byte| byte == b'}')?;
    (end > 0).then(|| &behind[..end])
}

fn of_text(text: &[u8]) -> u16 {
    let step = |sum: u16, &byte: &u8| sum << 8 ^ TABLE[usize::from((sum >> 8) as u8 ^ byte)];
    text.iter().fold(0, step) % SLOTS as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        for (key, slot) in [
            ("", 0),
            ("a", 15495),
            ("b", 3300),
            ("foo", 12182),
            ("123456789", 0x31c3),
            ("a{b}c", 3300),
            ("{b}", 3300),
            ("x{b}{a}", 3300),
            ("{}", 15257),
        ] {
            assert_eq!(of_key(key.as_bytes()), slot, "{key}");
        }
        // Without an end, or with nothing inside, the whole key counts.
        for whole in ["a{}b", "a{b", "a}{", "{}{b}"] {
            assert_eq!(of_key(whole.as_bytes()), of_text(whole.as_bytes()), "{whole}");
        }
        assert_eq!(of_key(b"foo{{bar}}zap"), of_text(b"{bar"));
    }

    #[test]
    fn a_pattern_has_a_slot_if_all_that_it_matches_has_it() {
        assert_eq!(of_pattern(b"a"), Some(15495));
        assert_eq!(of_pattern(b"{b}*"), Some(3300));
        assert_eq!(of_pattern(b"x{b}[0-9]?"), Some(3300));
        for several in ["*", "a*", "*{b}", "{b*}", "{b?}", "\\{b}", "{}*", "{b[}"] {
            assert_eq!(of_pattern(several.as_bytes()), None, "{several}");
        }
    }
}

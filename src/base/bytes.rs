//! Byte strings.

/// Whether two byte strings are equal. It is made for short strings: up to 32 bytes are compared without a loop and
/// without a call.
#[inline]
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    // Two overlapping pieces cover every length from one piece to two.
    match one.len() {
        len if len != other.len() => false,
        0 => true,
        len @ 1..=3 => one[0] == other[0] && one[len / 2] == other[len / 2] && one[len - 1] == other[len - 1],
        4..=7 => one.first_chunk::<4>() == other.first_chunk() && one.last_chunk::<4>() == other.last_chunk(),
        8..=15 => one.first_chunk::<8>() == other.first_chunk() && one.last_chunk::<8>() == other.last_chunk(),
        16..=32 => one.first_chunk::<16>() == other.first_chunk() && one.last_chunk::<16>() == other.last_chunk(),
        _ => one == other,
    }
}

/// The bytes before the first NUL, where Redis' C strings end.
pub fn until_nul(word: &[u8]) -> &[u8] {
    word.split(|&byte| byte == 0).next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_every_length_counts() {
        for len in 0..100 {
            let one: Vec<u8> = (0..len as u8).collect();
            assert!(is_same(&one, &one.clone()));
            assert!(!is_same(&one, &[&one[..], b"x"].concat()));
            for at in 0..len {
                let mut other = one.clone();
                other[at] ^= 0x80;
                assert!(!is_same(&one, &other), "byte {at} of {len}");
            }
        }
    }
}

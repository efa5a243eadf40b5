//! Glob patterns with Redis' semantics (KEYS, SCAN MATCH, PSUBSCRIBE, ACL, CONFIG GET).
//!
//! | pattern | matches |
//! |---|---|
//! | `*` | any bytes; but a lone `*` does not match the empty string (KEYS treats it apart) |
//! | `?` | one byte |
//! | `[abc]` `[a-z]` `[^x]` | one byte of a class; an unclosed class ends with the pattern |
//! | `\x` | the byte x |
//!
//! Invariant: the time is at most pattern × string, and the stack is constant. Only the last `*` is ever backtracked:
//! if the rest cannot match behind it, a longer match of an earlier one does not help. Never panics, whatever the
//! bytes.

/// Whether `pattern` matches the whole of `string`.
pub fn matches(pattern: &[u8], string: &[u8]) -> bool {
    match_glob(pattern, string, false)
}

/// As [`matches()`], ignoring the case of ASCII letters.
pub fn matches_nocase(pattern: &[u8], string: &[u8]) -> bool {
    match_glob(pattern, string, true)
}

/// Whether `pattern` has a character with a special meaning. If not, it is a plain name.
pub fn is_pattern(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

fn match_glob(pattern: &[u8], string: &[u8], nocase: bool) -> bool {
    let (mut p, mut s) = (0, 0);
    // Where to resume: behind the last star, and the first byte it has not yet swallowed.
    let mut resume: Option<(usize, usize)> = None;
    while p < pattern.len() && s < string.len() {
        if pattern[p] == b'*' {
            while pattern.get(p + 1) == Some(&b'*') {
                p += 1;
            }
            p += 1;
            if p == pattern.len() {
                return true;
            }
            resume = Some((p, s));
            continue;
        }
        let next = match_one(&pattern[p..], string[s], nocase).map(|used| (p + used, s + 1));
        let failed = match next {
            Some((next_p, next_s)) => {
                (p, s) = (next_p, next_s);
                let finished = s == string.len() || p == pattern.len();
                if finished && is_match_end(&pattern[p..], &string[s..]) {
                    return true;
                }
                finished
            }
            None => true,
        };
        if failed {
            match resume {
                Some((after_star, from)) if from + 1 < string.len() => {
                    resume = Some((after_star, from + 1));
                    (p, s) = (after_star, from + 1);
                }
                _ => return false,
            }
        }
    }
    pattern.is_empty() && string.is_empty()
}

/// Whether the string is used up and only stars remain of the pattern.
fn is_match_end(pattern: &[u8], string: &[u8]) -> bool {
    string.is_empty() && pattern.iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the first element of `pattern` (not a star). Returns the element's length.
fn match_one(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'[' => match_class(pattern, byte, nocase),
        b'\\' if pattern.len() >= 2 => same(pattern[1], byte, nocase).then_some(2),
        literal => same(literal, byte, nocase).then_some(1),
    }
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    if nocase { a.eq_ignore_ascii_case(&b) } else { a == b }
}

/// Matches a `[...]` class. Returns its length in the pattern if `byte` is in it.
fn match_class(pattern: &[u8], byte: u8, nocase: bool) -> Option<usize> {
    let (len, is_in) = read_class(pattern, byte, nocase);
    is_in.then_some(len)
}

/// The length of the `[...]` class at the beginning of a pattern.
pub fn class_len(pattern: &[u8]) -> usize {
    read_class(pattern, 0, false).0
}

/// The length of a class, and whether `byte` is in it.
fn read_class(pattern: &[u8], byte: u8, nocase: bool) -> (usize, bool) {
    let mut i = 1;
    let negated = pattern.get(i) == Some(&b'^');
    if negated {
        i += 1;
    }
    let mut found = false;
    loop {
        match &pattern[i..] {
            [] => break,
            [b'\\', escaped, ..] => {
                found |= *escaped == byte; // Redis respects the case here even when told to ignore it
                i += 2;
            }
            [b']', ..] => {
                i += 1;
                break;
            }
            [start, b'-', end, ..] => {
                found |= in_range(*start, *end, byte, nocase);
                i += 3;
            }
            [literal, ..] => {
                found |= same(*literal, byte, nocase);
                i += 1;
            }
        }
    }
    (i, found != negated)
}

/// Bytes compare as signed characters, as in Redis: a range from ASCII to above 0x7f wraps.
fn in_range(start: u8, end: u8, byte: u8, nocase: bool) -> bool {
    let (mut low, mut high, mut byte) = (start as i8, end as i8, byte);
    if low > high {
        (low, high) = (high, low);
    }
    if nocase {
        low = (low as u8).to_ascii_lowercase() as i8;
        high = (high as u8).to_ascii_lowercase() as i8;
        byte = byte.to_ascii_lowercase();
    }
    (low..=high).contains(&(byte as i8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A direct transcription of the published C algorithm (plain recursion), with `skip` set once
    /// no longer match of an earlier star can help.
    fn reference(mut p: &[u8], mut s: &[u8], nocase: bool, skip: &mut bool) -> bool {
        while !p.is_empty() && !s.is_empty() {
            match p[0] {
                b'*' => {
                    while p.get(1) == Some(&b'*') {
                        p = &p[1..];
                    }
                    if p.len() == 1 {
                        return true;
                    }
                    while !s.is_empty() {
                        if reference(&p[1..], s, nocase, skip) {
                            return true;
                        }
                        if *skip {
                            return false;
                        }
                        s = &s[1..];
                    }
                    *skip = true;
                    return false;
                }
                _ => match match_one(p, s[0], nocase) {
                    Some(used) => (p, s) = (&p[used..], &s[1..]),
                    None => return false,
                },
            }
            if s.is_empty() {
                while p.first() == Some(&b'*') {
                    p = &p[1..];
                }
                break;
            }
        }
        p.is_empty() && s.is_empty()
    }

    #[test]
    fn recorded_answers() {
        for (pattern, string, expected) in [
            ("*", "abc", true),
            ("", "", true),
            ("", "a", false),
            ("*", "", false),
            ("a*", "a", true),
            ("a**", "a", true),
            ("a*b", "acccb", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxbx", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("[abc", "b", true),
            ("[", "[", false),
            ("[^", "x", true),
            ("[]", "]", false),
            ("[\\]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("[a-]", "-", false),
            ("*a", "bbba", true),
            ("*?", "a", true),
            ("?*?", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), string.as_bytes()), expected, "{pattern} {string}");
        }
        assert!(matches_nocase(b"MAX*[A-C]", b"maxmemoryB"));
        assert!(!matches(b"MAX*", b"maxmemory"));
    }

    #[test]
    fn hostile_pattern_is_quick() {
        let pattern = [b"a*".repeat(200), b"b".to_vec()].concat();
        assert!(!matches(&pattern, &b"a".repeat(20_000)));
        let stars = b"*a".repeat(300_000); // deep recursion would overflow the stack
        assert!(!matches(&stars, b"aaaa"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn agrees_with_the_reference(pattern in "[*?ab^\\\\\\[\\]AB-]{0,10}", string in "[abAB\\]^-]{0,8}", nocase: bool) {
            let (p, s) = (pattern.as_bytes(), string.as_bytes());
            prop_assert_eq!(match_glob(p, s, nocase), reference(p, s, nocase, &mut false));
        }

        #[test]
        fn any_bytes_are_harmless(pattern: Vec<u8>, string: Vec<u8>) {
            prop_assert_eq!(match_glob(&pattern, &string, true), reference(&pattern, &string, true, &mut false));
        }
    }
}

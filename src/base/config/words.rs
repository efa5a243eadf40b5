//! The words of a configuration line: splitting, quoting, and memory sizes.
//!
//! Splitting follows `sdssplitargs`: blanks separate; `"…"` knows `\n \r \t \b \a \xHH \\ \"`; `'…'`
//! knows `\'`; a closing quote must be followed by a blank or the end. Never panics on bad bytes.

/// The known name that was probably meant by `name`: a few letters differ. None if nothing is near.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer names are no slips of the keyboard, and comparing costs the product of both lengths.
    const LEN_MAX: usize = 64;
    if name.len() > LEN_MAX {
        return None;
    }
    let differing = (name.len() / 3).clamp(1, 3);
    let name = name.to_ascii_lowercase();
    let near = known.map(|known| (strsim::osa_distance(&name, known), known));
    near.filter(|(distance, _)| *distance <= differing).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// A word of this many bytes is made in one piece.
const WORD_BYTES: usize = 64;

/// Splits a line into words; `None` when quotes are unbalanced.
pub fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [blank, after @ ..] = rest
            && is_space(*blank)
        {
            rest = after;
        }
        if rest.is_empty() || rest[0] == 0 {
            return Some(words);
        }
        let (word, after) = next_word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn next_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    // A password does not leave a copy behind where the word grows.
    let mut word = Vec::with_capacity(rest.len().min(WORD_BYTES));
    loop {
        match rest {
            [] | [0, ..] => return Some((word, &[])),
            [b'"', after @ ..] => return double_quoted(word, after),
            [b'\'', after @ ..] => return single_quoted(word, after),
            [byte, ..] if is_space(*byte) => return Some((word, rest)),
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn closed(word: Vec<u8>, rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    rest.first().is_none_or(|&byte| is_space(byte) || byte == 0).then_some((word, rest))
}

fn double_quoted(mut word: Vec<u8>, mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    loop {
        match rest {
            [] | [0, ..] => return None,
            [b'"', after @ ..] => return closed(word, after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] if *escaped != 0 => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn single_quoted(mut word: Vec<u8>, mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    loop {
        match rest {
            [] | [0, ..] => return None,
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                rest = after;
            }
            [b'\'', after @ ..] => return closed(word, after),
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Appends a word so that [`split`] gives it back: plain if possible, otherwise in `"…"`.
pub fn write_quoted(out: &mut Vec<u8>, word: &[u8]) {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\' | b'#');
    if !word.is_empty() && word.iter().all(plain) {
        return out.extend_from_slice(word);
    }
    write_in_quotes(out, word);
}

/// Appends a word in `"…"`, so that [`split`] gives it back.
pub fn write_in_quotes(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'"');
    for &byte in word {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

/// Parses `100`, `1k` (1000), `1kb` (1024), `5mb`, `2gb` …; the empty text is 0, and a number without a unit that is
/// too large is the largest, as in Redis.
pub fn parse_memory(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    let more = |value: u64, digit: &u8| value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    number.iter().fold(0, more).checked_mul(unit)
}

/// A size in the largest unit that divides it, as CONFIG REWRITE writes it: `64mb`, `1gb`, `100`.
pub fn memory_text(bytes: u64) -> String {
    for (shift, unit) in [(30, "gb"), (20, "mb"), (10, "kb")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split(line.as_bytes())?;
        Some(words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    #[test]
    fn splits_as_sdssplitargs() {
        let some = |expected: &[&str]| Some(expected.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(""), some(&[]));
        assert_eq!(words("  a  b\tc\r"), some(&["a", "b", "c"]));
        assert_eq!(words(r#"a "b c" d"#), some(&["a", "b c", "d"]));
        assert_eq!(words(r#""\x41\n\"\q\x4""#), some(&["A\n\"qx4"]));
        assert_eq!(words(r#"'a\'b\n' """#), some(&["a'b\\n", ""]));
        assert_eq!(words(r#"pre"fix""#), some(&["prefix"]));
        for unbalanced in [r#"""#, r#""a"#, r#""a"b"#, "'a", "'a'b", r#""a\""#] {
            assert_eq!(words(unbalanced), None, "{unbalanced}");
        }
    }

    #[test]
    fn memory_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("", Some(0)),
            ("100", Some(100)),
            ("100b", Some(100)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("3m", Some(3_000_000)),
            ("3mb", Some(3 << 20)),
            ("2g", Some(2_000_000_000)),
            ("2Gb", Some(2 << 30)),
            ("18446744073709551615", Some(u64::MAX)),
            // As in Redis, so that bounds are what refuses it.
            ("18446744073709551616", Some(u64::MAX)),
            ("99999999999gb", None),
            ("-1", None),
            ("1.5gb", None),
            ("1tb", None),
            ("1 kb", None),
        ] {
            assert_eq!(parse_memory(text.as_bytes()), bytes, "{text}");
        }
        assert_eq!(memory_text(64 << 20), "64mb");
        assert_eq!(memory_text(1025), "1025");
        assert_eq!(memory_text(0), "0");
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(word: Vec<u8>, other: Vec<u8>) {
            let mut line = Vec::new();
            write_quoted(&mut line, &word);
            line.push(b' ');
            write_quoted(&mut line, &other);
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(split(&line), Some(vec![word, other]));
        }

        #[test]
        fn memory_returns(bytes: u64) {
            prop_assert_eq!(parse_memory(memory_text(bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn any_line_is_harmless(line: Vec<u8>) {
            let _ = (split(&line), parse_memory(&line));
        }
    }
}

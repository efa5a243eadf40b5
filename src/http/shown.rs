//! Bytes that clients have written, as the page may show them.
//!
//! Names and values can be anything: broken text, control characters, marks that turn the direction of writing. What is
//! shown is text that looks like what it is; the rest stands there as an escape.

use std::fmt::Write;

use serde_json::{Value as Json, json};

/// The most bytes of a name that can be asked for: its code must fit into the head of a request.
const NAME_MAX: usize = 4096;

/// A text as the page shows it, of at most this many bytes: what it is, how long all of it is, and whether it is whole.
pub(super) fn text(bytes: &[u8], bytes_max: usize) -> Json {
    let (cut, mut shown, mut is_escaped) = (&bytes[..bytes.len().min(bytes_max)], String::new(), false);
    for chunk in cut.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if is_plain(letter) {
                shown.push(letter);
            } else {
                is_escaped = true;
                write!(shown, "\\u{{{:x}}}", u32::from(letter)).expect("a String takes every write");
            }
        }
        for byte in chunk.invalid() {
            is_escaped = true;
            write!(shown, "\\x{byte:02x}").expect("a String takes every write");
        }
    }
    json!({"text": shown, "bytes": bytes.len(), "is_cut": cut.len() < bytes.len(), "is_escaped": is_escaped})
}

/// The name of a key, and the code by which it can be asked for; none if it is too long for that.
pub(super) fn name(bytes: &[u8], bytes_max: usize) -> Json {
    let mut name = text(bytes, bytes_max);
    name["code"] = if bytes.len() <= NAME_MAX { json!(encode(bytes)) } else { Json::Null };
    name
}

/// Whether a letter can be told from others and leaves those around it where they are.
fn is_plain(letter: char) -> bool {
    let hides = matches!(u32::from(letter),
        0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x2028..=0x202e
        | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0xe0000..=0xe0fff);
    matches!(letter, '\n' | '\t') || !letter.is_control() && !hides
}

/// Bytes as a part of an address.
fn encode(bytes: &[u8]) -> String {
    let mut code = String::new();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => code.push(char::from(*byte)),
            other => write!(code, "%{other:02X}").expect("a String takes every write"),
        }
    }
    code
}

/// The bytes of a part of an address; `None` if it is broken.
pub(super) fn decode(code: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(code.len()), code.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (pair, more) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
        rest = more;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(decode("a%2fb%2F+"), Some(b"a/b/+".to_vec()));
        for broken in ["%", "%1", "%zz", "a%+1", "%€"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
        assert_eq!(name(&[b'x'; NAME_MAX + 1], 9)["code"], Json::Null);
    }

    #[test]
    fn what_hides_or_deceives_is_escaped() {
        let shown = |bytes: &[u8]| text(bytes, 100)["text"].as_str().expect("a text").to_owned();
        assert_eq!(shown("<b>ä€😀</b>\n".as_bytes()), "<b>ä€😀</b>\n");
        assert_eq!(shown(b"a\xff\x00b\x1b[2J\r"), "a\\xff\\u{0}b\\u{1b}[2J\\u{d}");
        assert_eq!(shown("exe\u{202e}gpj\u{feff}\u{e0041}".as_bytes()), "exe\\u{202e}gpj\\u{feff}\\u{e0041}");
        let cut = text("aé".as_bytes(), 2);
        assert_eq!((&cut["text"], &cut["bytes"], &cut["is_cut"]), (&"a\\xc3".into(), &3.into(), &true.into()));
        assert_eq!((&cut["is_escaped"], &text(b"a", 1)["is_escaped"]), (&true.into(), &false.into()));
    }
}

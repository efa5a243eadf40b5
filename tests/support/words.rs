//! Splits a line into arguments with the quoting of redis-cli: `"\x00\n"` with escapes, `'raw'`, bare words.
//!
//! `"text"*1000` repeats the text, so that cases can name long values.

/// The words of a line, as bytes. Panics on unbalanced quotes: case files are ours.
pub(crate) fn split(line: &str) -> Vec<Vec<u8>> {
    let bytes = line.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while at < bytes.len() && bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        if at == bytes.len() {
            return words;
        }
        let (word, next) = match bytes[at] {
            b'"' => repeated(bytes, double_quoted(line, at + 1)),
            b'\'' => single_quoted(line, at + 1),
            _ => bare(bytes, at),
        };
        assert!(
            next == bytes.len() || bytes[next].is_ascii_whitespace(),
            "a space belongs after a closing quote: {line}"
        );
        words.push(word);
        at = next;
    }
}

fn bare(bytes: &[u8], from: usize) -> (Vec<u8>, usize) {
    let length = bytes[from..].iter().position(u8::is_ascii_whitespace).unwrap_or(bytes.len() - from);
    (bytes[from..from + length].to_vec(), from + length)
}

fn single_quoted(line: &str, from: usize) -> (Vec<u8>, usize) {
    let length = line[from..].find('\'').unwrap_or_else(|| panic!("unbalanced quote: {line}"));
    (line.as_bytes()[from..from + length].to_vec(), from + length + 1)
}

fn double_quoted(line: &str, from: usize) -> (Vec<u8>, usize) {
    let bytes = line.as_bytes();
    let mut word = Vec::new();
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return (word, at + 1),
            b'\\' => {
                at += 1;
                word.push(match bytes[at] {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'0' => 0,
                    b'x' => {
                        at += 2;
                        u8::from_str_radix(&line[at - 1..=at], 16)
                            .unwrap_or_else(|_| panic!("two hex digits belong after \\x: {line}"))
                    }
                    other => other,
                });
            }
            other => word.push(other),
        }
        at += 1;
    }
    panic!("unbalanced quote: {line}")
}

fn repeated(bytes: &[u8], (word, at): (Vec<u8>, usize)) -> (Vec<u8>, usize) {
    if bytes.get(at) != Some(&b'*') {
        return (word, at);
    }
    let (count, next) = bare(bytes, at + 1);
    let count = String::from_utf8_lossy(&count).parse().expect("a number belongs after the star");
    (word.repeat(count), next)
}

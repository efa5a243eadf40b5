//! The manifest of an append-only file of several: which files, in which order.
//!
//! ```text
//! file NAME seq NUMBER type b|h|i [NAME VALUE]…       b: the base, i: an increment, h: history, which is not read
//! ```

use crate::base::config::words;

/// The longest manifest, in bytes.
pub(super) const BYTES_MAX: u64 = 64 << 20;

/// The names of the files in their order: the base, if there is one, and the increments.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn parse(text: &[u8]) -> Result<Vec<String>, String> {
    let mut base = None;
    let mut increments: Vec<(u64, String)> = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", at + 1);
        let line_words = words::split(line).ok_or_else(|| wrong("a quote does not close"))?;
        let (name, number, kind) = entry(&line_words).map_err(wrong)?;
        match kind {
            b"b" if base.is_some() => return Err(wrong("a second base")),
            b"b" => base = Some(name),
            b"i" if increments.last().is_some_and(|(before, _)| *before >= number) => {
                return Err(wrong("the increments are out of order"));
            }
            b"i" => increments.push((number, name)),
            b"h" => {}
            _ => return Err(wrong("an unknown type of a file")),
        }
    }
    Ok(base.into_iter().chain(increments.into_iter().map(|(_, name)| name)).collect())
}

/// The name, the number and the type in a line.
fn entry(words: &[Vec<u8>]) -> Result<(String, u64, &[u8]), &'static str> {
    let (mut name, mut number, mut kind) = (None, None, None);
    let mut pairs = words.chunks_exact(2);
    for pair in &mut pairs {
        match &pair[0][..] {
            b"file" => name = Some(&pair[1]),
            b"seq" => number = std::str::from_utf8(&pair[1]).ok().and_then(|text| text.parse().ok()),
            b"type" => kind = Some(&pair[1][..]),
            // Where replication was, in newer versions.
            _ => {}
        }
    }
    let (Some(name), Some(number), Some(kind)) = (name, number, kind) else {
        return Err("it does not name a file, its number and its type");
    };
    if !pairs.remainder().is_empty() {
        return Err("a word without a value");
    }
    let name = String::from_utf8(name.clone()).map_err(|_| "the name of a file is no text")?;
    if name.is_empty() || name.contains('/') || name == ".." || name == "." {
        return Err("the name of a file leads out of the directory");
    }
    Ok((name, number, kind))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn base_and_increments_come_in_their_order_and_history_does_not() {
        let text = b"# made by hand\nfile a.2.base.rdb seq 2 type b\nfile a.1.incr.aof seq 1 type h\n\
            file \"a b.2.incr.aof\" seq 2 type i startoffset 17\nfile a.3.incr.aof seq 3 type i\r\n\n";
        assert_eq!(parse(text).expect("sound"), ["a.2.base.rdb", "a b.2.incr.aof", "a.3.incr.aof"]);
        assert!(parse(b"").expect("sound").is_empty());
    }

    #[test]
    fn what_is_wrong_names_its_line() {
        for (text, what) in [
            (&b"file a seq 1 type b\nfile b seq 2 type b"[..], "line 2: a second base"),
            (b"file a seq 2 type i\nfile b seq 2 type i", "line 2: the increments are out of order"),
            (b"file ../a seq 1 type b", "line 1: the name of a file leads out of the directory"),
            (b"file a seq x type b", "line 1: it does not name a file, its number and its type"),
            (b"file a seq 1", "line 1: it does not name a file, its number and its type"),
            (b"file a seq 1 type q", "line 1: an unknown type of a file"),
            (b"file \"a seq 1 type b", "line 1: a quote does not close"),
            (b"file a seq 1 type b more", "line 1: a word without a value"),
        ] {
            assert_eq!(parse(text).expect_err("wrong"), what);
        }
    }
}

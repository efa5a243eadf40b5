//! The first line of a script: `#!lua flags=no-writes,allow-oom`.

use crate::base::config::words;
use crate::core::CommandError;
use crate::core::scripts::ScriptFlags;

/// The words of a first line, and its length without its end.
type FirstLine<'a> = (Vec<&'a [u8]>, usize);

/// Splits the words of a first line, if there is one: the engine, the options, and the length of the line without its
/// end.
///
/// # Errors
/// The line has no end.
pub(super) fn first_line(body: &[u8]) -> Result<Option<FirstLine<'_>>, CommandError> {
    if !body.starts_with(b"#!") {
        return Ok(None);
    }
    let end = body.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or(CommandError::Text("ERR Invalid script shebang"))?;
    let words = body[..end].split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    Ok(Some((words.collect(), end)))
}

/// Reads the first line of a script.
///
/// # Errors
/// Those of Redis.
pub fn read(body: &[u8]) -> Result<ScriptFlags, CommandError> {
    let Some((words, _)) = first_line(body)? else { return Ok(ScriptFlags::default()) };
    let mut words = words.into_iter();
    let engine = words.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err(CommandError::echo("Unexpected engine in script shebang: ", engine, ""));
    }
    let mut flags = ScriptFlags { declared: true, ..ScriptFlags::default() };
    for word in words {
        let Some(list) = word.strip_prefix(b"flags=") else {
            return Err(CommandError::echo("Unknown lua shebang option: ", word, ""));
        };
        for flag in list.split(|byte| *byte == b',').filter(|flag| !flag.is_empty()) {
            flags.set(flag).map_err(|flag| CommandError::echo("Unexpected flag in script shebang: ", &flag, ""))?;
        }
    }
    Ok(flags)
}

/// What the first line of a library says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibrarySource<'a> {
    /// Its name.
    pub name: Vec<u8>,
    /// The whole text.
    pub text: &'a [u8],
    /// The text without its first line, whose end stays, so that lines keep their numbers.
    pub(super) body: &'a [u8],
}

/// Reads the first line of a library: `#!lua name=mylib`.
///
/// # Errors
/// Those of Redis.
pub fn library(text: &[u8]) -> Result<LibrarySource<'_>, CommandError> {
    const INVALID: CommandError = CommandError::Text("ERR Invalid library metadata");
    if !text.starts_with(b"#!") {
        return Err(CommandError::Text("ERR Missing library metadata"));
    }
    let end = text.iter().position(|byte| *byte == b'\n').ok_or(INVALID)?;
    let words = words::split(&text[..end]).ok_or(INVALID)?;
    let (engine, options) = words.split_first().ok_or(INVALID)?;
    let mut name: Option<&[u8]> = None;
    for option in options {
        match option.split_at_checked(5) {
            Some((key, value)) if key.eq_ignore_ascii_case(b"name=") => {
                if name.replace(value).is_some() {
                    return Err(CommandError::Text(
                        "ERR Invalid metadata value, name argument was given multiple times",
                    ));
                }
            }
            _ => return Err(CommandError::echo("Invalid metadata value given: ", option, "")),
        }
    }
    let name = name.ok_or(CommandError::Text("ERR Library name was not given"))?;
    if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
        return Err(CommandError::Text(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one \
             character long",
        ));
    }
    match engine.get(2..).unwrap_or_default() {
        engine if engine.eq_ignore_ascii_case(b"lua") => {}
        engine => return Err(CommandError::echo("Engine '", engine, "' not found")),
    }
    Ok(LibrarySource { name: name.to_vec(), text, body: &text[end..] })
}

/// A script without its first line, whose end stays, so that lines keep their numbers.
pub(super) fn without_first_line(body: &[u8]) -> &[u8] {
    match first_line(body) {
        Ok(Some((_, end))) => &body[end..],
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_what_a_script_may_do() {
        let flags = |line: &str| read(line.as_bytes()).map(ScriptFlags::names);
        assert_eq!(read(b"return 1").unwrap(), ScriptFlags::default());
        assert_eq!(flags("#!lua flags=no-writes,allow-oom flags=no-cluster\nreturn").unwrap().len(), 3);
        assert!(read(b"#!lua flags=\n").unwrap().declared);
        for (line, text) in [
            ("#!lua", "ERR Invalid script shebang"),
            ("#!js\n", "ERR Unexpected engine in script shebang: #!js"),
            ("#!lua name=x\n", "ERR Unknown lua shebang option: name=x"),
            ("#!lua flags=foo\n", "ERR Unexpected flag in script shebang: foo"),
        ] {
            assert_eq!(flags(line).unwrap_err().to_string(), text);
        }
        assert_eq!(without_first_line(b"#!lua\nreturn 1"), b"\nreturn 1");
    }

    #[test]
    fn the_first_line_names_a_library() {
        const NAMES: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";
        let source = library(b"#!LUA NAME=\"a_1\"\nbody").unwrap();
        assert_eq!((&*source.name, source.body), (&b"a_1"[..], &b"\nbody"[..]));
        for (text, error) in [
            ("", "Missing library metadata"),
            ("return 1\n", "Missing library metadata"),
            ("#!lua name=x", "Invalid library metadata"),
            ("#!lua 'name=a\nx", "Invalid library metadata"),
            ("#!lua\nx", "Library name was not given"),
            ("#!\nx", "Library name was not given"),
            ("#!lua name=a b=c\n", "Invalid metadata value given: b=c"),
            ("#! lua name=a\n", "Invalid metadata value given: lua"),
            ("#!lua name=a name=b\n", "Invalid metadata value, name argument was given multiple times"),
            ("#!lua name=a-b\n", NAMES),
            ("#!lua name=\n", NAMES),
            ("#!js name=a\n", "Engine 'js' not found"),
        ] {
            assert_eq!(library(text.as_bytes()).unwrap_err().to_string(), format!("ERR {error}"), "{text}");
        }
    }
}

//! `ironkeep config`: a configuration with its documentation, generated from the table.
//!
//! Invariant: the printed text reads back as the same configuration.

use super::directive::{Directive, Kind};
use super::value::{self, Value};
use super::values::Values;
use super::words;
use crate::base::config::directives::{self, GROUPS};
use crate::base::config::without_effect::WITHOUT_EFFECT;

const WIDTH: usize = 96;

/// Appends a configuration with comments.
pub(super) fn print(out: &mut Vec<u8>, values: &Values) {
    let what: &[u8] = match *values == Values::default() {
        true => b"# Ironkeep's configuration, with every directive at its default.\n",
        false => b"# Ironkeep's configuration.\n",
    };
    out.extend_from_slice(what);
    out.extend_from_slice(
        b"# Sizes: 1k is 1000 bytes, 1kb 1024; \
          likewise m, mb, g, gb. Case does not matter.\n",
    );
    for group in GROUPS {
        out.extend_from_slice(format!("\n## {}\n", group.title).as_bytes());
        for directive in group.directives.iter().filter(|directive| !directive.hidden) {
            print_directive(out, directive, value_of(directive, values));
        }
    }
    let heading = "\n## Accepted without effect, so that existing files keep working; each with the reason\n";
    out.extend_from_slice(heading.as_bytes());
    for group in WITHOUT_EFFECT {
        out.push(b'\n');
        print_comment(out, group.title);
        for directive in group.directives.iter().filter(|directive| !directive.hidden) {
            let value = value_of(directive, values);
            let is_given = *value != value::default(directive);
            for line in lines(directive, value) {
                out.extend_from_slice(if is_given { b"" } else { b"# " });
                out.extend_from_slice(&line);
                out.push(b'\n');
            }
        }
    }
}

fn value_of<'a>(directive: &Directive, values: &'a Values) -> &'a Value {
    let index = directives::find(directive.name.as_bytes());
    values.at(index.expect("a row of the table, which finds all its names"))
}

fn print_directive(out: &mut Vec<u8>, directive: &Directive, value: &Value) {
    out.push(b'\n');
    let mut comment = directive.doc.to_owned();
    if let Kind::Choice(words) | Kind::Choices(words) = directive.kind {
        comment.push_str(&format!(" One of: {}.", words.join(", ")));
    }
    if !directive.alias.is_empty() {
        comment.push_str(&format!(" Also called {}.", directive.alias));
    }
    print_comment(out, &comment);
    if matches!(value, Value::Lines(lines) if lines.is_empty()) {
        return out.extend_from_slice(format!("# {} ...\n", directive.name).as_bytes());
    }
    for line in lines(directive, value) {
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
}

/// Appends a text as comment lines of bounded width.
fn print_comment(out: &mut Vec<u8>, comment: &str) {
    let mut width = 0;
    for word in comment.split(' ') {
        if width == 0 || width + 1 + word.len() > WIDTH {
            out.extend_from_slice(if width == 0 { b"#" } else { b"\n#" });
            width = 1;
        }
        out.push(b' ');
        out.extend_from_slice(word.as_bytes());
        width += 1 + word.len();
    }
    out.push(b'\n');
}

/// The lines that give a directive this value in a file.
pub(super) fn lines(directive: &Directive, value: &Value) -> Vec<Vec<u8>> {
    let mut words = match directive.kind {
        Kind::Octal => vec![value.octal_text()],
        _ => value.words(),
    };
    let per_line = match value {
        Value::SavePoints(_) => 2,
        Value::OutputLimits(_) => 4,
        Value::Lines(lines) => return lines.iter().map(|words| line(directive.name, words)).collect(),
        _ => words.len().max(1),
    };
    if words.is_empty() {
        words.push(Vec::new());
    }
    words.chunks(per_line).map(|words| line(directive.name, words)).collect()
}

fn line(name: &str, words: &[Vec<u8>]) -> Vec<u8> {
    let mut line = name.as_bytes().to_vec();
    for word in words {
        line.push(b' ');
        words::write_quoted(&mut line, word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::directives;
    use crate::base::config::live::Config;

    #[test]
    fn a_printed_configuration_reads_back() {
        let text = b"port 7\nmaxmemory auto\nsave \"\"\nuser a on >x ~*\nuser b off\nhz 30\nrename-command GET \"\"\n";
        let config = Config::from_text(text).expect("a valid text");
        let mut out = Vec::new();
        config.print(&mut out);
        let again = Config::from_text(&out).expect("our own text is valid");
        assert_eq!(again.settings(), config.settings());
        assert_eq!(again.get(&[b"*"]), config.get(&[b"*"]));
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.contains("\nmaxmemory auto\n") && text.contains("\nhz 30\n"), "{text}");
    }

    #[test]
    fn printed_defaults_read_back_as_the_defaults() {
        let mut out = Vec::new();
        Config::default().print(&mut out);
        let config = Config::from_text(&out).expect("our own text is valid");
        assert_eq!(config.settings(), Config::default().settings());
        assert_eq!(config.get(&[b"*"]), Config::default().get(&[b"*"]));

        // The commented lines of the last part are valid, too, once they are uncommented.
        let text = String::from_utf8(out).expect("ASCII");
        let (_, ignored) = text.split_once("Accepted without effect").expect("the last heading");
        let is_directive = |line: &&str| {
            let name = line.strip_prefix("# ").and_then(|line| line.split(' ').next()).unwrap_or_default();
            directives::find(name.as_bytes()).is_some()
        };
        let lines: Vec<&str> = ignored.lines().filter(is_directive).map(|line| &line[2..]).collect();
        assert!(lines.len() > 90, "{lines:?}");
        let lines = lines.join("\n");
        assert_eq!(Config::from_text(lines.as_bytes()).expect("valid").settings(), config.settings());
        assert!(text.lines().all(|line| line.len() <= WIDTH + 4), "{text}");
        assert!(text.contains("\nsave 3600 1\nsave 300 100\nsave 60 10000\n"));
    }
}

//! `ironkeep config`: the default configuration with its documentation, generated from the table.
//!
//! Invariant: the printed text reads back as the defaults.

use super::directive::{Directive, Kind};
use super::value::{self, Value};
use super::words;
use crate::base::config::directives::GROUPS;
use crate::base::config::without_effect::WITHOUT_EFFECT;

const WIDTH: usize = 96;

/// Appends the commented default configuration.
pub fn print_default(out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"# Ironkeep's configuration, with every directive at its default.\n# Sizes: 1k is 1000 bytes, 1kb 1024; \
          likewise m, mb, g, gb. Case does not matter.\n",
    );
    for group in GROUPS {
        out.extend_from_slice(format!("\n## {}\n", group.title).as_bytes());
        for directive in group.directives.iter().filter(|directive| !directive.hidden) {
            print_directive(out, directive);
        }
    }
    let heading = "\n## Accepted without effect, so that existing files keep working; each with the reason\n";
    out.extend_from_slice(heading.as_bytes());
    for group in WITHOUT_EFFECT {
        out.push(b'\n');
        print_comment(out, group.title);
        for directive in group.directives.iter().filter(|directive| !directive.hidden) {
            for line in lines(directive, &value::default(directive)) {
                out.extend_from_slice(b"# ");
                out.extend_from_slice(&line);
                out.push(b'\n');
            }
        }
    }
}

fn print_directive(out: &mut Vec<u8>, directive: &Directive) {
    out.push(b'\n');
    let mut comment = directive.doc.to_owned();
    if let Kind::Choice(words) | Kind::Choices(words) = directive.kind {
        comment.push_str(&format!(" One of: {}.", words.join(", ")));
    }
    if !directive.alias.is_empty() {
        comment.push_str(&format!(" Also called {}.", directive.alias));
    }
    print_comment(out, &comment);
    if matches!(directive.kind, Kind::FileOnly) {
        return out.extend_from_slice(format!("# {} ...\n", directive.name).as_bytes());
    }
    for line in lines(directive, &value::default(directive)) {
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
    fn printed_defaults_read_back_as_the_defaults() {
        let mut out = Vec::new();
        print_default(&mut out);
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
        assert!(lines.len() > 100, "{lines:?}");
        let lines = lines.join("\n");
        assert_eq!(Config::from_text(lines.as_bytes()).expect("valid").settings(), config.settings());
        assert!(text.lines().all(|line| line.len() <= WIDTH + 4), "{text}");
        assert!(text.contains("\nsave 3600 1\nsave 300 100\nsave 60 10000\n"));
    }
}

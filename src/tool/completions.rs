//! `ironkeep completions bash|zsh|fish`: what a shell completes, made from the usage and the table of directives.

use std::ffi::OsString;

use super::{Ended, SOUND};
use crate::base::config::directive::{Directive, Kind};
use crate::base::config::{directives, usage};

/// Prints the completions for one shell.
pub(super) fn run(args: Vec<OsString>) -> Ended {
    let shell = match &args[..] {
        [shell] => shell.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let text = match shell.as_str() {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        _ => return Err("one of bash, zsh and fish is expected".to_owned()),
    };
    Ok((text, SOUND))
}

/// The directives that the command line takes.
fn shown() -> impl Iterator<Item = &'static Directive> {
    directives::all().iter().copied().filter(|row| row.works && !row.hidden && !matches!(row.kind, Kind::FileOnly))
}

/// The words that a directive's value is chosen from.
fn values(directive: &Directive) -> &'static [&'static str] {
    match directive.kind {
        Kind::Bool => &["yes", "no"],
        Kind::Choice(words) | Kind::Choices(words) => words,
        Kind::MemoryOrAuto => &["auto"],
        _ => &[],
    }
}

/// The first sentence of a directive's documentation.
fn summary(directive: &Directive) -> &'static str {
    directive.doc.split_inclusive(['.', ';', '?']).next().unwrap_or_default().trim_end_matches(['.', ';'])
}

fn bash() -> String {
    let options: Vec<String> = shown().map(|row| format!("--{}", row.name)).collect();
    let mut text = format!(
        "# bash completion for ironkeep, made by `ironkeep completions bash`\n_ironkeep() {{\n    local current \
         previous words\n    current=${{COMP_WORDS[COMP_CWORD]}}\n    previous=${{COMP_WORDS[COMP_CWORD-1]}}\n    \
         COMPREPLY=()\n    words=\"{}\"\n    case ${{COMP_WORDS[1]}} in\n",
        options.join(" ")
    );
    let commands = usage::commands();
    for command in commands.iter().filter(|command| !command.takes_directives) {
        text.push_str(&format!("        {}) words=\"{}\" ;;\n", command.name, command.words().join(" ")));
    }
    for command in commands.iter().filter(|command| command.takes_directives && !command.words().is_empty()) {
        text.push_str(&format!("        {}) words=\"{} $words\" ;;\n", command.name, command.words().join(" ")));
    }
    text.push_str("    esac\n    case $previous in\n");
    for row in shown().filter(|row| !values(row).is_empty()) {
        text.push_str(&format!("        --{}) words=\"{}\" ;;\n", row.name, values(row).join(" ")));
    }
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    text.push_str(&format!(
        "    esac\n    if [ \"$COMP_CWORD\" = 1 ]; then\n        words=\"{} --help --version $words\"\n    fi\n    \
         while IFS= read -r line; do COMPREPLY+=(\"$line\"); done < <(compgen -W \"$words\" -- \"$current\")\n    \
         [ ${{#COMPREPLY[@]}} -gt 0 ] || while IFS= read -r line; do COMPREPLY+=(\"$line\"); done < <(compgen -f -- \
         \"$current\")\n}}\ncomplete -o filenames -F _ironkeep ironkeep\n",
        names.join(" ")
    ));
    text
}

/// A text in single quotes, as shells read it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn zsh() -> String {
    let escaped = |text: &str| text.replace('\\', r"\\").replace('[', r"\[").replace(']', r"\]").replace(':', r"\:");
    let mut text = "#compdef ironkeep\n# zsh completion for ironkeep, made by `ironkeep completions zsh`\n_ironkeep() \
                    {\n    local -a commands options\n    commands=(\n"
        .to_owned();
    for command in usage::commands() {
        let described = format!("{}:{}", command.name, escaped(&command.summary));
        text.push_str(&format!("        {}\n", quoted(&described)));
    }
    text.push_str("    )\n    options=(\n");
    for row in shown() {
        let values = match values(row) {
            [] => "value".to_owned(),
            words => format!("value:({})", words.join(" ")),
        };
        let option = format!("--{}[{}]:{values}", row.name, escaped(summary(row)));
        text.push_str(&format!("        {}\n", quoted(&option)));
    }
    text.push_str("    )\n    case ${words[2]} in\n");
    for command in usage::commands().iter().filter(|command| !command.takes_directives) {
        text.push_str(&format!(
            "        {}) [ $CURRENT -gt 2 ] && {{ compadd -- {}; _files; return; }} ;;\n",
            command.name,
            command.words().join(" ")
        ));
    }
    for command in usage::commands().iter().filter(|command| command.takes_directives) {
        for word in command.words() {
            text.push_str(&format!("        {}) options+=({}) ;;\n", command.name, quoted(word)));
        }
    }
    text.push_str(
        "    esac\n    [ $CURRENT -eq 2 ] && _describe command commands\n    _arguments '*:file:_files' \
         $options\n}\n_ironkeep \"$@\"\n",
    );
    text
}

fn fish() -> String {
    let mut text = "# fish completion for ironkeep, made by `ironkeep completions fish`\n".to_owned();
    for command in usage::commands() {
        text.push_str(&format!(
            "complete -c ironkeep -n __fish_use_subcommand -a {} -d {}\n",
            command.name,
            quoted(&command.summary)
        ));
        for word in command.words() {
            let option = match word.strip_prefix("--") {
                Some(long) => format!("-l {long}"),
                None => format!("-a {word}"),
            };
            let name = command.name;
            text.push_str(&format!("complete -c ironkeep -n '__fish_seen_subcommand_from {name}' {option}\n"));
        }
    }
    let not_with: Vec<&str> =
        usage::commands().iter().filter(|command| !command.takes_directives).map(|command| command.name).collect();
    for row in shown() {
        let words = match values(row) {
            [] => "-r".to_owned(),
            words => format!("-x -a {}", quoted(&words.join(" "))),
        };
        text.push_str(&format!(
            "complete -c ironkeep -n 'not __fish_seen_subcommand_from {}' -l {} {words} -d {}\n",
            not_with.join(" "),
            row.name,
            quoted(summary(row))
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn text(shell: &str) -> String {
        run(vec![shell.into()]).expect("a known shell").0
    }

    #[test]
    fn every_shell_hears_of_commands_and_directives() {
        for shell in ["bash", "zsh", "fish"] {
            let text = text(shell);
            for word in ["check-config", "repair", "maxmemory", "appendfsync", "everysec"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
        assert!(run(vec!["tcsh".into()]).is_err());
        assert!(run(Vec::new()).is_err());
    }

    /// What bash completes in such a line.
    fn completed(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let script = format!(
            "{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_ironkeep\necho \"${{COMPREPLY[*]}}\"\n",
            text("bash"),
            words.join(" "),
            words.len() - 1
        );
        let mut bash = Command::new("bash");
        let mut bash = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash starts");
        bash.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("it reads");
        let output = bash.wait_with_output().expect("it ends");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    #[test]
    fn bash_completes() {
        assert_eq!(completed(&["ironkeep", "repa"]), "repair");
        assert_eq!(completed(&["ironkeep", "--appendfs"]), "--appendfsync");
        assert_eq!(completed(&["ironkeep", "--port", "1", "--appendfsync", "e"]), "everysec");
        assert_eq!(completed(&["ironkeep", "check-config", "--maxmemory-p"]), "--maxmemory-policy");
        assert_eq!(completed(&["ironkeep", "check-config", "--js"]), "--json");
        assert_eq!(completed(&["ironkeep", "--js"]), "");
        assert_eq!(completed(&["ironkeep", "repair", "--in"]), "--into");
    }
}

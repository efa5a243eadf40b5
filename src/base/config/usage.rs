//! The usage as data: `--help` of one command, the manual page and the completions of shells are made from its text,
//! so that there is one text to keep true.
//!
//! Form of the text: `       ironkeep NAME …` begins a command's part, which lasts until the next such line or a blank
//! line; lines that are indented further describe it. After `Examples:` come examples.

use super::cli::USAGE;
use super::words;

/// How far the description of a command is indented, at least.
const INDENT: &str = "                ";

/// A command of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subcommand {
    /// Its name.
    pub name: &'static str,
    /// Its part of the usage.
    pub text: String,
    /// What it is for, in a line.
    pub summary: String,
    /// Whether it takes `--directive value`.
    pub takes_directives: bool,
}

impl Subcommand {
    /// The options that it takes, and the words of which it takes one.
    pub fn words(&self) -> Vec<&'static str> {
        let is_of_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let mut words = Vec::new();
        for line in lines_of(self.name) {
            for part in line.split(|c: char| !is_of_name(c)) {
                if part.len() > 2 && part.starts_with("--") && part != "--directive" && !words.contains(&part) {
                    words.push(part);
                }
            }
            // `completions bash|zsh|fish`
            let choices = line.split_whitespace().filter(|word| word.contains('|') && word.len() > 1);
            let choices = choices.filter(|word| word.chars().all(is_choice));
            choices.flat_map(|word| word.split('|')).for_each(|word| words.push(word));
        }
        words
    }
}

fn is_choice(c: char) -> bool {
    c.is_ascii_lowercase() || c == '|'
}

/// The synopsis: everything before the blank line.
pub fn forms() -> &'static str {
    USAGE.split("\n\n").next().unwrap_or_default().strip_prefix("Usage: ").unwrap_or_default()
}

/// The examples, a line for each.
pub fn examples() -> &'static str {
    USAGE.split_once("Examples:\n").map_or("", |(_, examples)| examples)
}

/// The name that a line of the synopsis begins to describe.
fn named(line: &'static str) -> Option<&'static str> {
    let name = line.strip_prefix("       ironkeep ")?.split_whitespace().next()?;
    name.starts_with(|c: char| c.is_ascii_lowercase()).then_some(name)
}

/// The lines of the synopsis about one command.
fn lines_of(name: &'static str) -> impl Iterator<Item = &'static str> {
    let mut is_about = false;
    forms().lines().filter(move |line| {
        if !line.starts_with(INDENT) {
            is_about = named(line) == Some(name);
        }
        is_about
    })
}

/// All commands, in the order of the usage.
pub fn commands() -> Vec<Subcommand> {
    let mut found: Vec<Subcommand> = Vec::new();
    for name in forms().lines().filter_map(named) {
        if found.iter().any(|command| command.name == name) {
            continue;
        }
        let text: String = lines_of(name).flat_map(|line| [line, "\n"]).collect();
        // Behind the form in its line, or in the lines below it.
        let first = lines_of(name).next().unwrap_or_default().trim_start();
        let beside = first.split_once("  ").map(|(_, summary)| summary.trim());
        let below = lines_of(name).find(|line| line.starts_with(INDENT)).map(str::trim);
        let summary = beside.or(below).unwrap_or_default();
        let summary = summary.split(": ").next().unwrap_or_default().to_owned();
        found.push(Subcommand { name, takes_directives: text.contains("--directive"), text, summary });
    }
    found
}

/// The help of one command: its part of the usage, and the examples that call it.
pub fn help_of(name: &str) -> Option<String> {
    let command = commands().into_iter().find(|command| command.name == name)?;
    let mut text = format!("Usage:\n{}", command.text);
    let is_about = |line: &&str| line.split_whitespace().nth(1) == Some(name);
    let examples: Vec<&str> = examples().lines().filter(is_about).collect();
    if !examples.is_empty() {
        text.push_str(&format!("Examples:\n{}\n", examples.join("\n")));
    }
    Some(text)
}

/// The command that was probably meant by this word.
pub fn nearest_command(word: &str) -> Option<&'static str> {
    words::nearest(word, forms().lines().filter_map(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::cli::{SERVER_COMMANDS, TOOLS};

    #[test]
    fn every_command_is_in_the_usage_with_its_options_and_an_example() {
        let commands = commands();
        for name in TOOLS.iter().chain(&SERVER_COMMANDS) {
            let command = commands.iter().find(|command| command.name == *name);
            let command = command.unwrap_or_else(|| panic!("the usage does not tell of {name}"));
            assert!(!command.summary.is_empty(), "{command:?}");
            let help = help_of(name).expect("known");
            assert!(help.contains("Examples:\n"), "there is no example of {name}");
        }
        assert_eq!(
            commands.len(),
            TOOLS.len() + SERVER_COMMANDS.len(),
            "the usage tells of a command that there is not"
        );
        let help = help_of("repair").expect("known");
        assert!(help.contains("ironkeep repair DIR") && !help.contains("restore"), "{help}");
        assert!(help_of("serve").is_some_and(|help| help.contains("ironkeep serve [config-file")));
        assert_eq!(help_of("sing"), None);
        assert_eq!(nearest_command("chek"), Some("check"));
        assert_eq!(nearest_command("a.conf"), None);
    }

    #[test]
    fn options_are_found() {
        let of = |name: &str| commands().into_iter().find(|command| command.name == name).expect("known");
        assert!(of("check").words().contains(&"--json"));
        assert_eq!(of("completions").words(), ["bash", "zsh", "fish"]);
        assert!(of("check-config").takes_directives && !of("check").takes_directives);
        assert_eq!(of("check-config").words(), ["--json"]);
        assert!(of("ping").words().contains(&"--json"));
        assert_eq!(of("config").summary, "print the configuration with comments, every directive with its value");
    }
}

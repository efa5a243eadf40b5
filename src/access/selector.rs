//! A set of permissions, and the rules that change it.
//!
//! Invariants:
//! - `rules` are the rules for commands since the last `+@all` or `-@all`. With that one before them, they make the
//!   same permissions again. A rule that is given again moves to the end.
//! - Who may use all keys has no patterns; likewise for channels and databases.

use std::collections::BTreeMap;

use super::catalogue::{Catalogue, Known};
use crate::base::config::words;
use crate::base::{format, glob};

/// The highest number of a database in a rule.
const DATABASE_MAX: i64 = i32::MAX as i64;

/// What is wrong with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No command or category has this name.
    Unknown,
    /// It is no rule.
    Syntax,
    /// A pattern, where all keys are allowed.
    AfterAllKeys,
    /// A pattern, where all channels are allowed.
    AfterAllChannels,
    /// The password to be removed is not there.
    NoSuchPassword,
    /// It is no digest.
    BadDigest,
    /// The first argument of a subcommand.
    UnderSubcommand,
    /// No database can have this number.
    BadDatabase,
    /// No role has this name.
    NoSuchRole,
    /// The rule is for users, not for roles.
    NotForRoles,
}

impl Wrong {
    /// As it is told.
    pub fn text(self) -> &'static str {
        match self {
            Wrong::Unknown => "Unknown command or category name in ACL",
            Wrong::Syntax => "Syntax error",
            Wrong::AfterAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            Wrong::AfterAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            Wrong::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            Wrong::BadDigest => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            Wrong::UnderSubcommand => "Allowing first-arg of a subcommand is not supported",
            Wrong::BadDatabase => "The provided database ID is out of range",
            Wrong::NoSuchRole => "The role does not exist",
            Wrong::NotForRoles => "The rule is not valid for a role",
        }
    }
}

/// What is done with a key: reads of its content, writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Its content is read, and may be told.
    pub reads: bool,
    /// It is changed.
    pub writes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Box<[u8]>,
    allows: KeyUse,
}

impl KeyPattern {
    /// Whether a key that matches may be used so.
    fn is_enough(&self, wanted: KeyUse) -> bool {
        (self.allows.reads || !wanted.reads) && (self.allows.writes || !wanted.writes)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let prefix: &[u8] = match self.allows {
            KeyUse { reads: true, writes: true } => b"~",
            KeyUse { reads: true, writes: false } => b"%R~",
            _ => b"%W~",
        };
        out.extend_from_slice(prefix);
        out.extend_from_slice(&self.pattern);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CommandRule {
    allows: bool,
    /// In lower case, `@` before a category.
    name: Vec<u8>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Whether no command has been excepted since `+@all`.
    all_commands: bool,
    /// Whether the rules begin with `+@all`.
    from_all: bool,
    /// A bit for each command that is allowed whatever its arguments.
    commands: Box<[u64]>,
    /// The first arguments with which commands are allowed, in lower case.
    first_arguments: BTreeMap<usize, Vec<Vec<u8>>>,
    rules: Vec<CommandRule>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Box<[u8]>>,
    all_databases: bool,
    databases: Vec<u32>,
}

impl Selector {
    /// One that allows nothing but, if it is so set, all channels; and, as long as no rule says more, all databases.
    pub fn new(catalogue: &Catalogue, all_channels: bool) -> Selector {
        Selector {
            all_commands: false,
            from_all: false,
            commands: vec![0; catalogue.indices().div_ceil(64)].into(),
            first_arguments: BTreeMap::new(),
            rules: Vec::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
            all_databases: true,
            databases: Vec::new(),
        }
    }

    /// Whether everything is allowed.
    pub fn is_unlimited(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels && self.all_databases
    }

    /// Whether all keys are allowed.
    #[inline]
    pub fn has_all_keys(&self) -> bool {
        self.all_keys
    }

    /// Whether all channels are allowed.
    #[inline]
    pub fn has_all_channels(&self) -> bool {
        self.all_channels
    }

    /// Whether all databases are allowed.
    #[inline]
    pub fn has_all_databases(&self) -> bool {
        self.all_databases
    }

    /// Whether a command is allowed with this first argument.
    pub fn allows_command(&self, index: usize, first_argument: Option<&[u8]>) -> bool {
        if self.all_commands || self.commands[index / 64] & 1 << (index % 64) != 0 {
            return true;
        }
        let (Some(given), Some(allowed)) = (first_argument, self.first_arguments.get(&index)) else { return false };
        allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(given))
    }

    /// Whether a key may be used so.
    pub fn allows_key(&self, key: &[u8], wanted: KeyUse) -> bool {
        self.all_keys || self.keys.iter().any(|of| of.is_enough(wanted) && glob::matches(&of.pattern, key))
    }

    /// Whether every key may be used so.
    pub fn allows_every_key(&self, wanted: KeyUse) -> bool {
        self.all_keys || self.keys.iter().any(|of| of.is_enough(wanted) && &*of.pattern == b"*")
    }

    /// Whether a channel may be used. A pattern of channels may if it is itself among the patterns.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let matches = |allowed: &[u8]| match is_pattern {
            true => allowed == channel,
            false => glob::matches(allowed, channel),
        };
        self.all_channels || self.channels.iter().any(|allowed| matches(allowed))
    }

    /// Whether a database may be used.
    pub fn allows_database(&self, database: u32) -> bool {
        self.all_databases || self.databases.binary_search(&database).is_ok()
    }

    /// Applies one rule.
    ///
    /// # Errors
    /// It is wrong, and nothing has changed.
    pub fn apply(&mut self, catalogue: &Catalogue, rule: &[u8]) -> Result<(), Wrong> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        if is("allkeys") || is("~*") {
            (self.all_keys, self.keys) = (true, Vec::new());
        } else if is("resetkeys") {
            (self.all_keys, self.keys) = (false, Vec::new());
        } else if is("allchannels") || is("&*") {
            (self.all_channels, self.channels) = (true, Vec::new());
        } else if is("resetchannels") {
            (self.all_channels, self.channels) = (false, Vec::new());
        } else if is("alldbs") {
            (self.all_databases, self.databases) = (true, Vec::new());
        } else if is("resetdbs") {
            (self.all_databases, self.databases) = (false, Vec::new());
        } else if is("allcommands") || is("+@all") {
            self.reset_commands(true);
        } else if is("nocommands") || is("-@all") {
            self.reset_commands(false);
        } else if rule.len() >= 3 && rule[..3].eq_ignore_ascii_case(b"db=") {
            (self.all_databases, self.databases) = (false, read_databases(&rule[3..])?);
        } else {
            return match rule {
                [b'~' | b'%', ..] => self.add_key_pattern(rule),
                [b'&', pattern @ ..] => self.add_channel(pattern),
                [sign @ (b'+' | b'-'), b'@', category @ ..] => self.set_category(catalogue, category, *sign == b'+'),
                [b'+', name @ ..] => self.allow(catalogue, name),
                [b'-', name @ ..] => {
                    let command = catalogue.find(name).ok_or(Wrong::Unknown)?;
                    self.set_command(command, false);
                    self.note_rule(command.name.as_bytes().to_vec(), false);
                    Ok(())
                }
                _ => Err(Wrong::Syntax),
            };
        }
        Ok(())
    }

    /// Applies the rules between the parentheses of a selector, to a new one.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn parse(catalogue: &Catalogue, rules: &[u8], all_channels: bool) -> Result<Selector, Wrong> {
        let mut selector = Selector::new(catalogue, all_channels);
        for rule in words::split(rules).ok_or(Wrong::Syntax)? {
            // Written into a file, such a word would end the selector, or not be one word.
            if rule.ends_with(b")") || rule.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
                return Err(Wrong::Syntax);
            }
            selector.apply(catalogue, &rule)?;
        }
        Ok(selector)
    }

    fn reset_commands(&mut self, allows: bool) {
        (self.all_commands, self.from_all) = (allows, allows);
        self.commands.fill(if allows { u64::MAX } else { 0 });
        self.rules.clear();
        self.first_arguments.clear();
    }

    fn set_bit(&mut self, index: usize, allows: bool) {
        let bit = 1 << (index % 64);
        match allows {
            true => self.commands[index / 64] |= bit,
            false => {
                self.commands[index / 64] &= !bit;
                self.all_commands = false;
            }
        }
    }

    /// Allows a command, or not, and its subcommands with it.
    fn set_command(&mut self, command: &Known, allows: bool) {
        self.set_bit(command.index, allows);
        self.first_arguments.remove(&command.index);
        command.subcommands.iter().for_each(|&index| self.set_bit(index, allows));
    }

    fn set_category(&mut self, catalogue: &Catalogue, category: &[u8], allows: bool) -> Result<(), Wrong> {
        let bit = catalogue.category(category).ok_or(Wrong::Unknown)?;
        for command in catalogue.commands().iter().filter(|command| command.categories & bit != 0) {
            self.set_command(command, allows);
        }
        self.note_rule([b"@", category].concat(), allows);
        Ok(())
    }

    /// `+name`, `+name|subcommand`, `+name|argument`.
    fn allow(&mut self, catalogue: &Catalogue, name: &[u8]) -> Result<(), Wrong> {
        let Some(bar) = name.iter().rposition(|&byte| byte == b'|') else {
            let command = catalogue.find(name).ok_or(Wrong::Unknown)?;
            self.set_command(command, true);
            self.note_rule(command.name.as_bytes().to_vec(), true);
            return Ok(());
        };
        let command = catalogue.find(&name[..bar]).ok_or(Wrong::Unknown)?;
        let argument = &name[bar + 1..];
        if command.is_sub {
            return Err(Wrong::UnderSubcommand);
        }
        if argument.is_empty() || has_blanks(argument) {
            return Err(Wrong::Syntax);
        }
        if command.subcommands.is_empty() {
            let allowed = self.first_arguments.entry(command.index).or_default();
            if !allowed.iter().any(|known| known.eq_ignore_ascii_case(argument)) {
                allowed.push(argument.to_ascii_lowercase());
            }
        } else {
            let sub = catalogue.find(name).ok_or(Wrong::Unknown)?;
            self.set_command(sub, true);
        }
        self.note_rule(name.to_vec(), true);
        Ok(())
    }

    /// Notes a rule for commands. It takes the place of an earlier one for the same, and of those for its subcommands.
    fn note_rule(&mut self, name: Vec<u8>, allows: bool) {
        let name = name.to_ascii_lowercase();
        let is_replaced = |rule: &CommandRule| match rule.name.strip_prefix(&name[..]) {
            Some(rest) => rest.is_empty() || rest[0] == b'|',
            None => false,
        };
        self.rules.retain(|rule| !is_replaced(rule));
        self.rules.push(CommandRule { allows, name });
    }

    fn add_key_pattern(&mut self, rule: &[u8]) -> Result<(), Wrong> {
        if self.all_keys {
            return Err(Wrong::AfterAllKeys);
        }
        let (allows, pattern) = read_key_pattern(rule).ok_or(Wrong::Syntax)?;
        if has_blanks(pattern) {
            return Err(Wrong::Syntax);
        }
        match self.keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => {
                known.allows.reads |= allows.reads;
                known.allows.writes |= allows.writes;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.into(), allows }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), Wrong> {
        if self.all_channels {
            return Err(Wrong::AfterAllChannels);
        }
        if has_blanks(pattern) {
            return Err(Wrong::Syntax);
        }
        if !self.channels.iter().any(|known| **known == *pattern) {
            self.channels.push(pattern.into());
        }
        Ok(())
    }

    /// The rules for commands, as they make the same permissions again.
    pub fn command_rules(&self) -> Vec<u8> {
        let mut text = if self.from_all { b"+@all".to_vec() } else { b"-@all".to_vec() };
        for rule in &self.rules {
            text.extend_from_slice(if rule.allows { b" +" } else { b" -" });
            text.extend_from_slice(&rule.name);
        }
        text
    }

    /// The patterns of keys.
    pub fn key_rules(&self) -> Vec<u8> {
        let mut text = if self.all_keys { b"~*".to_vec() } else { Vec::new() };
        for (at, pattern) in self.keys.iter().enumerate() {
            if at > 0 {
                text.push(b' ');
            }
            pattern.write(&mut text);
        }
        text
    }

    /// The patterns of channels.
    pub fn channel_rules(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let rules: Vec<Vec<u8>> = self.channels.iter().map(|pattern| [b"&", &pattern[..]].concat()).collect();
        rules.join(&b' ')
    }

    /// The databases.
    pub fn database_rules(&self) -> Vec<u8> {
        if self.all_databases {
            return b"alldbs".to_vec();
        }
        if self.databases.is_empty() {
            return b"resetdbs".to_vec();
        }
        let numbers: Vec<String> = self.databases.iter().map(u32::to_string).collect();
        format!("db={}", numbers.join(",")).into_bytes()
    }

    /// Appends all rules, as a line of a file has them.
    pub fn write_rules(&self, line: &mut Vec<u8>) {
        let keys = self.key_rules();
        if !keys.is_empty() {
            line.extend_from_slice(&keys);
            line.push(b' ');
        }
        if !self.all_channels {
            line.extend_from_slice(b"resetchannels ");
        }
        let channels = self.channel_rules();
        if !channels.is_empty() {
            line.extend_from_slice(&channels);
            line.push(b' ');
        }
        if !self.all_databases {
            line.extend_from_slice(&self.database_rules());
            line.push(b' ');
        }
        line.extend_from_slice(&self.command_rules());
    }
}

/// Whether a word would not stay one word in a file.
pub(super) fn has_blanks(word: &[u8]) -> bool {
    word.iter().any(|&byte| matches!(byte, 0 | b' ' | b'\t'..=b'\r'))
}

/// `~pattern`, `%R~pattern`, `%W~pattern`, `%RW~pattern`.
fn read_key_pattern(rule: &[u8]) -> Option<(KeyUse, &[u8])> {
    let Some(rest) = rule.strip_prefix(b"%") else {
        return Some((KeyUse { reads: true, writes: true }, &rule[1..]));
    };
    let mut allows = KeyUse::default();
    for (at, letter) in rest.iter().enumerate() {
        match letter {
            b'R' | b'r' if !allows.reads => allows.reads = true,
            b'W' | b'w' if !allows.writes => allows.writes = true,
            b'~' if allows != KeyUse::default() => return Some((allows, &rest[at + 1..])),
            _ => return None,
        }
    }
    // As in Redis, `%R` alone is the empty pattern.
    (allows != KeyUse::default()).then_some((allows, &[]))
}

/// Numbers with commas between them, in their order.
fn read_databases(text: &[u8]) -> Result<Vec<u32>, Wrong> {
    let mut databases = Vec::new();
    for number in text.split(|&byte| byte == b',') {
        let number = format::parse_i64(number).ok_or(Wrong::Syntax)?;
        if !(0..=DATABASE_MAX).contains(&number) {
            return Err(Wrong::BadDatabase);
        }
        databases.push(number as u32);
    }
    databases.sort_unstable();
    databases.dedup();
    Ok(databases)
}

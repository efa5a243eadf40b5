//! Looks commands up by name.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::access::{Catalogue, Known};
use crate::base::bytes::is_same;
use crate::core::error::until_nul;
use crate::core::{Arity, Command, CommandError, Flags, Handler, LogRule, categories, flags};
use crate::resp::Args;

/// The longest name of a command, in bytes. `rename-command` gives names such as digests.
const NAME_MAX: usize = 64;
/// What a command that takes the short path of reads does not do.
const NOT_PLAIN: Flags = flags::WRITE
    .or(flags::BLOCKING)
    .or(flags::MAY_REPLICATE)
    .or(flags::GATE)
    .or(flags::FROZEN)
    .or(flags::WALKS)
    .or(flags::NO_TOUCH);

/// A cheap hash for names that no client can choose.
#[derive(Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

/// A command of the table, or a subcommand, with its index in the statistics.
#[derive(Debug)]
pub struct CommandEntry {
    /// The command.
    pub command: &'static Command,
    /// The full name in lower case: `get`, `client|kill`.
    pub full_name: String,
    /// Dense, from 0: where its statistics are.
    pub index: usize,
    /// Whether it takes about the same short time for any arguments, so that a group of such commands need not be
    /// timed individually. One that may wait is timed, because it is counted only when it is answered.
    pub is_quick: bool,
    /// Whether what CLIENT CACHING has said stays said behind it.
    pub keeps_caching: bool,
    /// Whether it only reads one key, in a short time, so that it takes the short path.
    pub is_plain_read: bool,
    /// See [`crate::core::key_spec::Keys::only`].
    pub only_key: Option<usize>,
    /// Whether it can be called: `rename-command` may have taken its name.
    is_named: bool,
    /// Whether it is a subcommand of another one.
    is_subcommand: bool,
    subcommands: Vec<CommandEntry>,
    /// Its hidden subcommands: [`Handler::Words`].
    words: Vec<CommandEntry>,
}

/// All commands of the server, by name.
#[derive(Debug)]
pub struct Table {
    entries: Vec<CommandEntry>,
    by_name: HashMap<Box<[u8]>, usize, BuildHasherDefault<NameHasher>>,
    len: usize,
}

impl Table {
    /// The table of these commands.
    ///
    /// # Panics
    /// If two have one name.
    pub fn new(groups: &[&[&'static Command]]) -> Self {
        let mut table = Table { entries: Vec::new(), by_name: HashMap::default(), len: 0 };
        for &command in groups.iter().flat_map(|group| group.iter()) {
            let name = command.name.to_ascii_lowercase();
            let mut entry = CommandEntry::new(command, name.clone(), table.len);
            table.len += 1;
            for &sub in command.subcommands() {
                let full_name = format!("{name}|{}", sub.name.to_ascii_lowercase());
                let keeps_caching = command.flags.has(flags::KEEPS_CACHING);
                let sub =
                    CommandEntry { keeps_caching, is_subcommand: true, ..CommandEntry::new(sub, full_name, table.len) };
                entry.subcommands.push(sub);
                table.len += 1;
            }
            if let Handler::Words(groups) = command.handler {
                let words = groups.iter().flat_map(|group| group.iter());
                entry.words.extend(words.map(|&word| CommandEntry::new(word, name.clone(), entry.index)));
            }
            let earlier = table.by_name.insert(command.name.as_bytes().into(), table.entries.len());
            assert!(earlier.is_none(), "two commands are named {}", command.name);
            table.entries.push(entry);
        }
        table
    }

    /// Gives a command another name, by which alone it is called from now on; or none. Statistics, errors and access
    /// rules go on naming it as it is declared.
    ///
    /// # Errors
    /// In Redis' words: there is no such command, or another one of the new name.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), &'static str> {
        let (from, to) = (from.to_ascii_uppercase(), to.to_ascii_uppercase());
        let at = *self.by_name.get(&from[..]).ok_or("No such command in rename-command")?;
        if from != to && self.by_name.contains_key(&to[..]) {
            return Err("Target command name already exists");
        }
        if to.len() > NAME_MAX {
            return Err("The new name of a command must not be longer than 64 bytes");
        }
        self.by_name.remove(&from[..]);
        self.entries[at].is_named = !to.is_empty();
        if !to.is_empty() {
            self.by_name.insert(to.into(), at);
        }
        Ok(())
    }

    /// The names of all commands and subcommands, as rules of users know them.
    pub fn catalogue(&self) -> Catalogue {
        const CATEGORIES: &[(&str, u32)] = &{
            let mut named = [("", 0); categories::ALL.len()];
            let mut at = 0;
            while at < named.len() {
                named[at] = (categories::ALL[at].1, categories::ALL[at].0.0);
                at += 1;
            }
            named
        };
        let known = |entry: &CommandEntry| Known {
            name: entry.full_name.clone(),
            index: entry.index,
            categories: categories::of(entry.command).0,
            subcommands: entry.subcommands.iter().map(|sub| sub.index).collect(),
            is_sub: entry.is_subcommand,
        };
        let all = self.entries.iter().flat_map(|entry| std::iter::once(entry).chain(&entry.subcommands));
        Catalogue::new(all.map(known).collect(), CATEGORIES, self.len)
    }

    /// A command or subcommand that a call means, whatever the number of its arguments.
    pub fn meant(&self, args: Args<'_>) -> Option<&CommandEntry> {
        let entry = self.get(args.at(0))?;
        match entry.command.handler {
            Handler::Container(_) | Handler::ContainerOr(..) if args.len() > 1 => entry.subcommand(args).ok(),
            Handler::Words(_) => Some(entry.words.iter().find(|word| word.is_word_of(args)).unwrap_or(entry)),
            _ => Some(entry),
        }
    }

    /// The number of commands that can be called, without subcommands.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no command.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The commands that can be called, without subcommands.
    pub fn named(&self) -> impl Iterator<Item = &CommandEntry> {
        self.entries.iter().filter(|entry| entry.is_named)
    }

    /// The number of commands and subcommands: the statistics that are kept.
    pub fn indices(&self) -> usize {
        self.len
    }

    /// All commands, named or not, without subcommands: see [`CommandEntry::subcommands`].
    pub fn entries(&self) -> &[CommandEntry] {
        &self.entries
    }

    /// The command of this name, in any case.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&CommandEntry> {
        let mut upper = [0; NAME_MAX];
        self.by_name.get(upper_case(name, &mut upper)?).map(|&at| &self.entries[at])
    }

    /// The command or subcommand that a call means, its arity checked.
    ///
    /// # Errors
    /// No such command or subcommand, or the wrong number of arguments.
    #[inline]
    pub fn resolve(&self, args: Args<'_>) -> Result<&CommandEntry, CommandError> {
        let Some(entry) = self.get(args.at(0)) else { return Err(unknown_command(args)) };
        self.resolve_entry(entry, args)
    }

    /// The same after the command `last`, which probably has the same name. If there is a mistake, [`Table::resolve`]
    /// tells which.
    #[inline]
    pub fn resolve_after(&self, last: &mut LastNamed, args: Args<'_>) -> Option<&CommandEntry> {
        let name = args.at(0);
        if last.len == 0 || !is_same(last.name(), name) {
            self.note_named(last, name)?;
        }
        let entry = &self.entries[last.at];
        match entry.command.handler {
            Handler::Data(_) if entry.command.arity.accepts(args.len()) => Some(entry),
            _ => self.resolve_entry(entry, args).ok(),
        }
    }

    /// Finds a command by its name for [`Table::resolve_after`].
    fn note_named(&self, last: &mut LastNamed, name: &[u8]) -> Option<()> {
        let mut upper = [0; NAME_MAX];
        let at = *self.by_name.get(upper_case(name, &mut upper)?)?;
        last.bytes[..name.len()].copy_from_slice(name);
        (last.len, last.at) = (name.len(), at);
        Some(())
    }

    #[inline]
    fn resolve_entry<'a>(&'a self, entry: &'a CommandEntry, args: Args<'_>) -> Result<&'a CommandEntry, CommandError> {
        let entry = match entry.command.handler {
            Handler::Container(_) | Handler::ContainerOr(..) => entry.subcommand(args)?,
            // If there is no such word, the command itself reports that, because it may not even be allowed.
            Handler::Words(_) => entry.words.iter().find(|word| word.is_word_of(args)).unwrap_or(entry),
            _ => entry,
        };
        if !entry.command.arity.accepts(args.len()) {
            return Err(CommandError::Arity(entry.full_name.clone()));
        }
        Ok(entry)
    }

    /// The command of a full name such as `client|kill`.
    pub fn by_full_name(&self, name: &[u8]) -> Option<&CommandEntry> {
        match name.iter().position(|&b| b == b'|') {
            None => self.get(name),
            Some(bar) => self
                .get(&name[..bar])?
                .subcommands
                .iter()
                .find(|s| s.command.name.as_bytes().eq_ignore_ascii_case(&name[bar + 1..])),
        }
    }
}

/// The command that was called last, and its name as received.
#[derive(Debug)]
pub struct LastNamed {
    bytes: [u8; NAME_MAX],
    /// 0 for none yet.
    len: usize,
    at: usize,
}

impl Default for LastNamed {
    fn default() -> Self {
        LastNamed { bytes: [0; NAME_MAX], len: 0, at: 0 }
    }
}

impl LastNamed {
    #[inline]
    fn name(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A name in upper case; `None` if it is longer than any command's.
#[inline]
fn upper_case<'a>(name: &[u8], upper: &'a mut [u8; NAME_MAX]) -> Option<&'a [u8]> {
    let upper = upper.get_mut(..name.len())?;
    for (to, from) in upper.iter_mut().zip(name) {
        *to = from.to_ascii_uppercase();
    }
    Some(upper)
}

impl CommandEntry {
    fn new(command: &'static Command, full_name: String, index: usize) -> Self {
        let data = matches!(command.handler, Handler::Data(_));
        let is_quick = (data || command.flags.has(flags::KEEPS_FACTS))
            && (command.flags.has(flags::FAST) || command.complexity == "O(1)")
            && !command.flags.has(flags::BLOCKING);
        let only_key = command.keys.only();
        let is_plain_read = is_quick
            && only_key.is_some()
            && command.flags.has(flags::READONLY)
            && command.log == LogRule::Nothing
            && !command.flags.has(NOT_PLAIN);
        CommandEntry {
            command,
            full_name,
            index,
            is_quick,
            is_plain_read,
            keeps_caching: false,
            is_named: true,
            only_key,
            is_subcommand: false,
            subcommands: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Whether it is a subcommand, so that its arguments begin behind its own name.
    pub fn is_subcommand(&self) -> bool {
        self.is_subcommand
    }

    /// The subcommands of a container.
    pub fn subcommands(&self) -> &[CommandEntry] {
        &self.subcommands
    }

    fn is_word_of(&self, args: Args<'_>) -> bool {
        let named = args.get(1).is_some_and(|word| word.eq_ignore_ascii_case(self.command.name.as_bytes()));
        named && self.command.arity.accepts(args.len())
    }

    fn subcommand(&self, args: Args<'_>) -> Result<&CommandEntry, CommandError> {
        let Some(word) = args.get(1) else {
            return match self.command.handler {
                Handler::ContainerOr(..) => Ok(self),
                _ => Err(CommandError::Arity(self.full_name.clone())),
            };
        };
        let found = self.subcommands.iter().find(|s| s.command.name.as_bytes().eq_ignore_ascii_case(word));
        found.ok_or_else(|| CommandError::UnknownSubcommand {
            given: repeated(word, 128).to_vec(),
            container: String::from_utf8_lossy(args.at(0)).to_ascii_uppercase(),
        })
    }
}

/// Redis repeats the name, and as many arguments as begin within 128 bytes.
fn unknown_command(args: Args<'_>) -> CommandError {
    let mut words = Vec::new();
    for argument in args.from(1) {
        if words.len() >= 128 {
            break;
        }
        let argument = repeated(argument, 128 - words.len());
        words.extend_from_slice(&[b"'", argument, b"' "].concat());
    }
    let name = repeated(args.at(0), 128);
    CommandError::UnknownCommand([b"'", name, b"', with args beginning with: ", &words[..]].concat())
}

/// The part of a word that an error text repeats: at most `bytes_max`, and nothing from a NUL on.
fn repeated(word: &[u8], bytes_max: usize) -> &[u8] {
    until_nul(&word[..word.len().min(bytes_max)])
}

/// What is wrong with the declaration of a command, if anything: for the tests of every table.
pub fn mistake(command: &Command) -> Option<String> {
    let name = command.name;
    let writes = command.flags.has(flags::WRITE);
    let least = match command.arity {
        Arity::Exactly(n) | Arity::AtLeast(n) => n,
    };
    let checks = [
        (name.is_empty() || name != name.to_ascii_uppercase(), "its name is not upper case"),
        (name.len() > NAME_MAX, "its name is too long to be found"),
        (writes && command.log == LogRule::Nothing, "it writes and has no rule for the log"),
        (!writes && command.log != LogRule::Nothing, "it does not write and has a rule for the log"),
        (command.summary.is_empty() || !command.summary.ends_with('.'), "its summary is not a sentence"),
        (least == 0, "its arity does not count its name"),
        (command.since.split('.').count() != 3, "its version is not of three numbers"),
    ];
    checks.iter().find(|(wrong, _)| *wrong).map(|(_, what)| format!("{name}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::with_args;

    #[test]
    fn a_command_is_found_by_its_new_name_alone() {
        let mut table = Table::new(crate::command::GROUPS);
        let count = table.len();
        assert_eq!(table.rename(b"nosuch", b"x"), Err("No such command in rename-command"));
        assert_eq!(table.rename(b"get", b"Set"), Err("Target command name already exists"));
        assert!(table.rename(b"get", &[b'x'; 65]).is_err());
        table.rename(b"get", b"b840fc02d524045429941cc15f59e41cb7be6c52").expect("a free name");
        table.rename(b"DEL", b"").expect("a command");
        table.rename(b"set", b"SET").expect("its own name");
        let name = |of: &[u8]| table.get(of).map(|entry| &*entry.full_name);
        assert_eq!(name(b"B840FC02D524045429941CC15F59E41CB7BE6C52"), Some("get"));
        assert_eq!((name(b"get"), name(b"del"), name(b""), name(b"set")), (None, None, None, Some("set")));
        assert_eq!((table.len(), table.named().count(), table.entries().len()), (count - 1, count - 1, count));
    }

    #[test]
    fn the_last_command_is_found_again_by_its_name_and_no_other() {
        let table = Table::new(crate::command::GROUPS);
        let mut last = LastNamed::default();
        let names = ["", "GET", "GET", "get", "", "GETX", "GET", "G", "set", "SET", "\0", "gEt", "STRLEN", ""];
        for name in names.into_iter().chain(["a name that is much longer than that of any command"]) {
            let words = [name.as_bytes().to_vec(), b"k".to_vec()];
            with_args(&words, |args| {
                let found = table.resolve_after(&mut last, args).map(|entry| entry.index);
                assert_eq!(found, table.resolve(args).ok().map(|entry| entry.index), "{name}");
            });
        }
    }
}

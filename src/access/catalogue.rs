//! The names of commands, subcommands and categories, as rules know them.

use std::collections::HashMap;

/// A command or subcommand.
#[derive(Debug)]
pub struct Known {
    /// Its full name in lower case: `get`, `config|get`.
    pub name: String,
    /// Its number, which permissions are kept by.
    pub index: usize,
    /// Its categories, a bit each.
    pub categories: u32,
    /// Its subcommands, as numbers, if it is a container.
    pub subcommands: Vec<usize>,
    /// Whether it is a subcommand.
    pub is_sub: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Catalogue {
    commands: Vec<Known>,
    by_name: HashMap<String, usize>,
    categories: &'static [(&'static str, u32)],
    indices: usize,
}

impl Catalogue {
    /// The catalogue of these commands, whose numbers are below `indices`.
    pub fn new(commands: Vec<Known>, categories: &'static [(&'static str, u32)], indices: usize) -> Catalogue {
        let by_name = commands.iter().enumerate().map(|(at, known)| (known.name.clone(), at)).collect();
        Catalogue { commands, by_name, categories, indices }
    }

    /// A command or subcommand by its full name, in any case.
    pub fn find(&self, name: &[u8]) -> Option<&Known> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        self.by_name.get(&name).map(|&at| &self.commands[at])
    }

    /// The bit of a category, by its name in any case.
    pub fn category(&self, name: &[u8]) -> Option<u32> {
        let found = self.categories.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        found.map(|(_, bit)| *bit)
    }

    /// All commands and subcommands.
    pub fn commands(&self) -> &[Known] {
        &self.commands
    }

    /// One above the highest number.
    pub fn indices(&self) -> usize {
        self.indices
    }
}

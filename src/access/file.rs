//! The lines of users and roles, in the configuration and in a file of their own.
//!
//! ```text
//! role reader ~app:* +@read
//! user alice on #<64 digits> role=reader &news:* +publish (~tmp:* +@write)
//! ```
//!
//! Invariants:
//! - Roles may stand behind the users who have them.
//! - Nothing of a text with a mistake is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::selector::{Wrong, has_blanks};
use super::user::{Beginning, DEFAULT, Role, User};

/// Joins the words of selectors that were split at their blanks. Words that follow an opening parenthesis belong to
/// it, up to one that ends with a closing parenthesis.
///
/// # Errors
/// The index of the word whose parenthesis is not closed.
pub fn merge_selectors(words: &[&[u8]]) -> Result<Vec<Vec<u8>>, usize> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, word) in words.iter().enumerate() {
        let closes = word.last() == Some(&b')');
        match open.take() {
            Some((since, mut selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
                match closes {
                    true => merged.push(selector),
                    false => open = Some((since, selector)),
                }
            }
            None if word.first() == Some(&b'(') && !closes => open = Some((at, word.to_vec())),
            None => merged.push(word.to_vec()),
        }
    }
    match open {
        Some((since, _)) => Err(since),
        None => Ok(merged),
    }
}

/// Whether this can be the name of a user or a role.
pub fn is_name(name: &[u8]) -> bool {
    !has_blanks(name)
}

/// All users and roles of a file.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By name.
    pub users: BTreeMap<Box<[u8]>, User>,
    /// By name.
    pub roles: BTreeMap<Box<[u8]>, Arc<Role>>,
}

/// A line of a user or role: where it stands, its name and its rules.
struct Line<'a> {
    /// As errors name it: `file:number`.
    place: String,
    name: &'a [u8],
    rules: Vec<&'a [u8]>,
}

impl Loaded {
    /// Reads the text of a file, which errors call `file`. `id` gives numbers to users.
    ///
    /// # Errors
    /// Everything that is wrong, in one line.
    pub fn read(
        file: &str,
        text: &[u8],
        beginning: Beginning<'_>,
        id: &mut dyn FnMut(&[u8]) -> u64,
    ) -> Result<Loaded, String> {
        let (mut users, mut roles, mut errors) = (Vec::new(), Vec::new(), String::new());
        for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let number = at + 1;
            let mut words = line.split(|&byte| byte == b' ');
            let (kind, name) = (words.next().unwrap_or_default(), words.next());
            let (Some(name), true) = (name, kind == b"user" || kind == b"role") else {
                errors += &format!("{file}:{number} should start with user keyword followed by the username. ");
                continue;
            };
            if !is_name(name) {
                let name = String::from_utf8_lossy(name);
                errors += &format!("'{file}:{number}: username '{name}' contains invalid characters. ");
                continue;
            }
            let line = Line { place: format!("{file}:{number}"), name, rules: words.collect() };
            if kind == b"user" { users.push(line) } else { roles.push(line) }
        }
        let mut loaded = Loaded::default();
        for line in roles {
            loaded.add_role(&line, beginning, &mut errors);
        }
        for line in users {
            let id = id(line.name);
            loaded.add_user(&line, id, beginning, &mut errors);
        }
        if !errors.is_empty() {
            errors += "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
            return Err(errors);
        }
        loaded.users.entry(DEFAULT.into()).or_insert_with(|| User::new_default(id(DEFAULT), beginning));
        Ok(loaded)
    }

    fn add_role(&mut self, line: &Line<'_>, beginning: Beginning<'_>, errors: &mut String) {
        let mut role = Role::new(line.name, beginning);
        apply_all(line, errors, |rule| role.apply(beginning, rule));
        if self.roles.insert(line.name.into(), Arc::new(role)).is_some() {
            *errors += &duplicate("role", line);
        }
    }

    fn add_user(&mut self, line: &Line<'_>, id: u64, beginning: Beginning<'_>, errors: &mut String) {
        if self.users.contains_key(line.name) {
            *errors += &duplicate("user", line);
            return;
        }
        let mut user = User::new(line.name, id, beginning);
        let find = |name: &[u8]| self.roles.get(name).cloned();
        apply_all(line, errors, |rule| user.apply(beginning, &find, rule));
        self.users.insert(line.name.into(), user);
    }
}

fn duplicate(kind: &str, line: &Line<'_>) -> String {
    let number = line.place.rsplit(':').next().unwrap_or_default();
    format!("WARNING: Duplicate {kind} '{}' found on line {number}. ", String::from_utf8_lossy(line.name))
}

/// Applies the rules of a line. A mistake that may have followed from an earlier one is not told.
fn apply_all(line: &Line<'_>, errors: &mut String, mut apply: impl FnMut(&[u8]) -> Result<(), Wrong>) {
    let place = &line.place;
    let Ok(rules) = merge_selectors(&line.rules) else {
        *errors += &format!("{place}: Unmatched parenthesis in selector definition.");
        return;
    };
    let mut is_told = false;
    for rule in rules {
        let rule = rule.trim_ascii();
        match apply(rule) {
            Ok(()) => {}
            // This shows no secret.
            Err(wrong @ Wrong::Unknown) => {
                let rule = String::from_utf8_lossy(rule);
                *errors += &format!("{place}: Error in applying operation '{rule}': {}. ", wrong.text());
            }
            Err(wrong) if !is_told => {
                *errors += &format!("{place}: {}. ", wrong.text());
                is_told = true;
            }
            Err(_) => {}
        }
    }
}

//! Users and roles.
//!
//! Invariants:
//! - A user of a name keeps its number through all changes of its rules. Once it is deleted, another one of that name
//!   has another number: connections of the old one do not become connections of the new one.

use std::sync::Arc;

use super::catalogue::Catalogue;
use super::password::Digest;
use super::selector::{Selector, Wrong};

/// The name of the user that a connection begins as.
pub const DEFAULT: &[u8] = b"default";

/// What the rules of new users and selectors begin with.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// The names of commands.
    pub catalogue: &'a Catalogue,
    /// Whether they may use all channels: `acl-pubsub-default`.
    pub all_channels: bool,
}

/// A named set of permissions, which users take as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: Box<[u8]>,
    /// The permissions outside parentheses, and those in each pair.
    pub selectors: Vec<Selector>,
}

impl Role {
    /// One that allows nothing.
    pub fn new(name: &[u8], beginning: Beginning<'_>) -> Role {
        let root = Selector::new(beginning.catalogue, beginning.all_channels);
        Role { name: name.into(), selectors: vec![root] }
    }

    /// Applies one rule.
    ///
    /// # Errors
    /// It is wrong, and nothing has changed.
    pub fn apply(&mut self, beginning: Beginning<'_>, rule: &[u8]) -> Result<(), Wrong> {
        if is_for_users(rule) {
            return Err(Wrong::NotForRoles);
        }
        apply_to_selectors(&mut self.selectors, beginning, rule)
    }

    /// Its rules, as a line of a file has them.
    pub fn rules(&self) -> Vec<u8> {
        let mut line = Vec::new();
        write_selectors(&self.selectors, &mut line);
        line
    }
}

/// Whether a rule makes sense for users alone.
fn is_for_users(rule: &[u8]) -> bool {
    let words: [&[u8]; 8] = [
        b"on",
        b"off",
        b"nopass",
        b"resetpass",
        b"reset",
        b"resetroles",
        b"sanitize-payload",
        b"skip-sanitize-payload",
    ];
    words.iter().any(|word| rule.eq_ignore_ascii_case(word))
        || matches!(rule.first(), Some(b'>' | b'<' | b'#' | b'!'))
        || role_of(rule).is_some()
}

/// The name in a rule that gives a role: `role=name`, or `role:name`.
fn role_of(rule: &[u8]) -> Option<&[u8]> {
    let (word, name) = rule.split_at_checked(5)?;
    (word.eq_ignore_ascii_case(b"role=") || word.eq_ignore_ascii_case(b"role:")).then_some(name)
}

/// A rule of selectors: of the first one, in parentheses another one, or `clearselectors`.
fn apply_to_selectors(selectors: &mut Vec<Selector>, beginning: Beginning<'_>, rule: &[u8]) -> Result<(), Wrong> {
    match rule {
        [b'(', inner @ .., b')'] => {
            selectors.push(Selector::parse(beginning.catalogue, inner, beginning.all_channels)?);
        }
        _ if rule.eq_ignore_ascii_case(b"clearselectors") => selectors.truncate(1),
        _ => selectors[0].apply(beginning.catalogue, rule)?,
    }
    Ok(())
}

fn write_selectors(selectors: &[Selector], line: &mut Vec<u8>) {
    for (at, selector) in selectors.iter().enumerate() {
        match at {
            0 => selector.write_rules(line),
            _ => {
                line.extend_from_slice(b" (");
                selector.write_rules(line);
                line.push(b')');
            }
        }
    }
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    name: Box<[u8]>,
    id: u64,
    is_enabled: bool,
    needs_no_password: bool,
    skips_sanitizing: bool,
    passwords: Vec<Digest>,
    selectors: Vec<Selector>,
    roles: Vec<Arc<Role>>,
    is_unlimited: bool,
}

impl User {
    /// One that may do nothing, and that nobody can log in as.
    pub fn new(name: &[u8], id: u64, beginning: Beginning<'_>) -> User {
        User {
            name: name.into(),
            id,
            is_enabled: false,
            needs_no_password: false,
            skips_sanitizing: false,
            passwords: Vec::new(),
            selectors: vec![Selector::new(beginning.catalogue, beginning.all_channels)],
            roles: Vec::new(),
            is_unlimited: false,
        }
    }

    /// The default user of a new server, who may do everything without a password.
    pub fn new_default(id: u64, beginning: Beginning<'_>) -> User {
        let mut user = User::new(DEFAULT, id, beginning);
        for rule in ["+@all", "~*", "&*", "alldbs", "on", "nopass"] {
            // These rules hold for every selector that allows nothing.
            let applied = user.apply(beginning, &|_| None, rule.as_bytes());
            debug_assert!(applied.is_ok() || rule == "&*");
        }
        user
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// See the module.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether one can log in as this user.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether any password is right.
    pub fn needs_no_password(&self) -> bool {
        self.needs_no_password
    }

    /// Whether a connection may use it without logging in, if it is the default user.
    pub fn is_open(&self) -> bool {
        self.is_enabled && self.needs_no_password
    }

    /// Whether it may do everything.
    #[inline]
    pub fn is_unlimited(&self) -> bool {
        self.is_unlimited
    }

    /// Whether RESTORE takes its payloads as they are.
    pub fn skips_sanitizing(&self) -> bool {
        self.skips_sanitizing
    }

    /// The digests of its passwords.
    pub fn passwords(&self) -> &[Digest] {
        &self.passwords
    }

    /// The selectors of its own: the permissions outside parentheses first.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// Its roles, in the order in which it got them.
    pub fn roles(&self) -> &[Arc<Role>] {
        &self.roles
    }

    /// Its own selectors, and those of its roles.
    pub fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        self.selectors.iter().chain(self.roles.iter().flat_map(|role| &role.selectors))
    }

    /// Whether all of its keys are the same to it.
    pub fn has_all_keys(&self) -> bool {
        self.all_selectors().all(Selector::has_all_keys)
    }

    /// Whether all channels are.
    pub fn has_all_channels(&self) -> bool {
        self.all_selectors().all(Selector::has_all_channels)
    }

    /// Whether all databases are.
    pub fn has_all_databases(&self) -> bool {
        self.all_selectors().all(Selector::has_all_databases)
    }

    /// Whether it sees every key of every database.
    pub fn sees_all_keys(&self) -> bool {
        self.is_unlimited || self.all_selectors().any(|s| s.has_all_keys() && s.has_all_databases())
    }

    /// Whether it may read every key of every database, and hear every channel.
    pub fn sees_everything(&self) -> bool {
        let is_whole = |s: &Selector| s.has_all_keys() && s.has_all_channels() && s.has_all_databases();
        self.is_unlimited || self.all_selectors().any(is_whole)
    }

    /// Whether a password is right. It takes the same time whichever it is.
    pub fn accepts(&self, given: &Digest) -> bool {
        let is_known = given.is_among(&self.passwords);
        self.is_enabled && (self.needs_no_password || is_known)
    }

    /// The same user with a new version of a role, if it has that.
    pub fn with_role(&self, role: &Arc<Role>) -> Option<User> {
        let at = self.roles.iter().position(|own| own.name == role.name)?;
        let mut user = self.clone();
        user.roles[at] = Arc::clone(role);
        user.settle();
        Some(user)
    }

    /// Notes what follows from its rules. Called after every change.
    pub fn settle(&mut self) {
        let is_unlimited = self.all_selectors().any(Selector::is_unlimited);
        self.is_unlimited = is_unlimited;
    }

    /// Applies one rule. `role` finds roles by their names.
    ///
    /// # Errors
    /// It is wrong, and nothing has changed.
    pub fn apply(
        &mut self,
        beginning: Beginning<'_>,
        role: &dyn Fn(&[u8]) -> Option<Arc<Role>>,
        rule: &[u8],
    ) -> Result<(), Wrong> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        if is("on") || is("off") {
            self.is_enabled = is("on");
        } else if is("sanitize-payload") || is("skip-sanitize-payload") {
            self.skips_sanitizing = is("skip-sanitize-payload");
        } else if is("nopass") || is("resetpass") {
            self.needs_no_password = is("nopass");
            self.passwords.clear();
        } else if is("resetroles") {
            self.roles.clear();
        } else if is("reset") {
            *self = User::new(&self.name, self.id, beginning);
        } else if let [sign @ (b'>' | b'#' | b'<' | b'!'), word @ ..] = rule {
            let digest = match sign {
                b'>' | b'<' => Digest::of(word),
                _ => Digest::parse(word).ok_or(Wrong::BadDigest)?,
            };
            self.change_password(digest, matches!(sign, b'>' | b'#'))?;
        } else if let Some(name) = role_of(rule) {
            let role = role(name).ok_or(Wrong::NoSuchRole)?;
            if !self.roles.iter().any(|own| own.name == role.name) {
                self.roles.push(role);
            }
        } else if !rule.is_empty() {
            apply_to_selectors(&mut self.selectors, beginning, rule)?;
        }
        self.settle();
        Ok(())
    }

    fn change_password(&mut self, digest: Digest, adds: bool) -> Result<(), Wrong> {
        let known = self.passwords.iter().position(|password| *password == digest);
        match (adds, known) {
            (true, None) => self.passwords.push(digest),
            (true, Some(_)) => {}
            (false, Some(at)) => drop(self.passwords.remove(at)),
            (false, None) => return Err(Wrong::NoSuchPassword),
        }
        self.needs_no_password &= !adds;
        Ok(())
    }

    /// Its flags, as words.
    pub fn flags(&self) -> Vec<&'static str> {
        let flags = [
            (self.is_enabled, "on"),
            (!self.is_enabled, "off"),
            (self.needs_no_password, "nopass"),
            (self.skips_sanitizing, "skip-sanitize-payload"),
            (!self.skips_sanitizing, "sanitize-payload"),
        ];
        flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word).collect()
    }

    /// Its rules, as a line of a file has them.
    pub fn rules(&self) -> Vec<u8> {
        let mut line = self.flags().join(" ").into_bytes();
        line.push(b' ');
        for password in &self.passwords {
            line.extend_from_slice(format!("#{password} ").as_bytes());
        }
        for role in &self.roles {
            line.extend_from_slice(b"role=");
            line.extend_from_slice(&role.name);
            line.push(b' ');
        }
        write_selectors(&self.selectors, &mut line);
        line
    }
}

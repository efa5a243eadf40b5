//! The register of all users and roles.
//!
//! Invariants:
//! - There is always a default user.
//! - The generation grows after every change. A connection that remembers it knows whether its user is as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::catalogue::Catalogue;
use super::failures::Failures;
use super::file::{Loaded, is_name, merge_selectors};
use super::log::RefusalLog;
use super::password::Digest;
use super::selector::Wrong;
use super::user::{Beginning, DEFAULT, Role, User};
use crate::base::bytes::until_nul;
use crate::base::lock::{Mutex, Rank, RwLock};
use zeroize::Zeroizing;

/// Names of users.
pub type Names = Vec<Box<[u8]>>;

/// See the module.
#[derive(Debug)]
pub struct Users {
    catalogue: Catalogue,
    state: RwLock<State>,
    generation: AtomicU64,
    /// `acl-pubsub-default`.
    all_channels: AtomicBool,
    /// What `requirepass` was when it was last followed.
    requirepass: Mutex<Option<Digest>>,
    /// What was refused.
    pub refusals: Mutex<RefusalLog>,
    /// Failed logins, by address.
    pub failures: Mutex<Failures>,
}

#[derive(Debug)]
struct State {
    users: BTreeMap<Box<[u8]>, Arc<User>>,
    roles: BTreeMap<Box<[u8]>, Arc<Role>>,
    last_id: u64,
}

impl State {
    fn default_user(&self) -> Arc<User> {
        Arc::clone(self.users.get(DEFAULT).expect("there is always a default user"))
    }
}

impl Users {
    /// The default user alone, who may do everything.
    pub fn new(catalogue: Catalogue) -> Users {
        let default = User::new_default(1, Beginning { catalogue: &catalogue, all_channels: false });
        let users = BTreeMap::from([(DEFAULT.into(), Arc::new(default))]);
        Users {
            state: RwLock::new(Rank::Register, State { users, roles: BTreeMap::new(), last_id: 1 }),
            catalogue,
            generation: AtomicU64::new(1),
            all_channels: AtomicBool::new(false),
            requirepass: Mutex::default(),
            refusals: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// The names of commands.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Grows with every change.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether new users and selectors may use all channels: `acl-pubsub-default`.
    pub fn set_all_channels(&self, all: bool) {
        self.all_channels.store(all, Ordering::Relaxed);
    }

    fn beginning(&self) -> Beginning<'_> {
        Beginning { catalogue: &self.catalogue, all_channels: self.all_channels.load(Ordering::Relaxed) }
    }

    fn has_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The user of this name, if it may log in: a client's certificate is as good as a password.
    pub fn enabled(&self, name: &[u8]) -> Option<Arc<User>> {
        self.get(name).filter(|user| user.is_enabled())
    }

    /// Whether anybody but the default user is known, or that one may not do everything without a password.
    pub fn has_limits(&self) -> bool {
        let state = self.state.read();
        let default = state.default_user();
        state.users.len() > 1 || !default.is_open() || !default.is_unlimited()
    }

    /// The default user.
    pub fn default_user(&self) -> Arc<User> {
        self.state.read().default_user()
    }

    /// A user by name.
    pub fn get(&self, name: &[u8]) -> Option<Arc<User>> {
        self.state.read().users.get(name).cloned()
    }

    /// A role by name, and the names of its users.
    pub fn role(&self, name: &[u8]) -> Option<(Arc<Role>, Names)> {
        let state = self.state.read();
        let role = state.roles.get(name)?;
        let has_it = |user: &&Arc<User>| user.roles().iter().any(|own| own.name == role.name);
        let users = state.users.values().filter(has_it).map(|user| user.name().into()).collect();
        Some((Arc::clone(role), users))
    }

    /// All users, by name.
    pub fn all(&self) -> Vec<Arc<User>> {
        self.state.read().users.values().cloned().collect()
    }

    /// All roles, by name.
    pub fn roles(&self) -> Vec<Arc<Role>> {
        self.state.read().roles.values().cloned().collect()
    }

    /// What a user is now; `None` if it was deleted.
    pub fn renewed(&self, user: &User) -> Option<Arc<User>> {
        self.get(user.name()).filter(|now| now.id() == user.id())
    }

    /// The user of a new connection; `None` until it has logged in.
    pub fn of_new_connection(&self) -> Option<Arc<User>> {
        Some(self.default_user()).filter(|user| user.is_open())
    }

    /// The user of this name and password. Whether there is such a user makes no difference in time.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let (given, user) = (Digest::of(password), self.get(name));
        user.filter(|user| user.accepts(&given))
    }

    /// Has the default user follow `requirepass`, empty for none, if that has changed. Returns whether it has.
    pub fn follow_requirepass(&self, password: &[u8]) -> bool {
        let digest = (!password.is_empty()).then(|| Digest::of(password));
        let mut known = self.requirepass.lock();
        if *known == digest {
            return false;
        }
        *known = digest;
        drop(known);
        let rule = digest.map_or("nopass".to_owned(), |digest| format!("#{digest}"));
        // These rules hold for every user.
        let _ = self.set(DEFAULT, &[b"resetpass", rule.as_bytes()]);
        true
    }

    /// Makes a user, or changes one, by rules.
    ///
    /// # Errors
    /// What is wrong. Nothing has changed.
    pub fn set(&self, name: &[u8], rules: &[&[u8]]) -> Result<(), Mistake> {
        let (rules, beginning) = (merged(rules)?, self.beginning());
        let mut state = self.state.write();
        let (next, roles) = (state.last_id + 1, &state.roles);
        let find = |name: &[u8]| roles.get(name).cloned();
        let known = state.users.get(name);
        let mut user = known.map_or_else(|| User::new(name, next, beginning), |known| User::clone(known));
        for rule in &rules {
            user.apply(beginning, &find, rule).map_err(|wrong| Mistake::of(rule, wrong))?;
        }
        state.last_id = next;
        state.users.insert(name.into(), Arc::new(user));
        drop(state);
        self.has_changed();
        Ok(())
    }

    /// Makes a role, or changes one, by rules. Its users change with it.
    ///
    /// # Errors
    /// What is wrong. Nothing has changed.
    pub fn set_role(&self, name: &[u8], rules: &[&[u8]]) -> Result<(), Mistake> {
        let (rules, beginning) = (merged(rules)?, self.beginning());
        let mut state = self.state.write();
        let known = state.roles.get(name);
        let mut role = known.map_or_else(|| Role::new(name, beginning), |known| Role::clone(known));
        for rule in &rules {
            role.apply(beginning, rule).map_err(|wrong| Mistake::of(rule, wrong))?;
        }
        let role = Arc::new(role);
        for user in state.users.values_mut() {
            if let Some(changed) = user.with_role(&role) {
                *user = Arc::new(changed);
            }
        }
        state.roles.insert(name.into(), role);
        drop(state);
        self.has_changed();
        Ok(())
    }

    /// Deletes users. Returns how many there were. The default user is not among them.
    pub fn delete<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut state = self.state.write();
        let deleted = names.filter(|name| *name != DEFAULT && state.users.remove(*name).is_some()).count();
        drop(state);
        self.has_changed();
        deleted
    }

    /// Deletes roles. Returns how many there were.
    ///
    /// # Errors
    /// The name of one that users have. None is deleted then.
    pub fn delete_roles<'a>(&self, names: impl Iterator<Item = &'a [u8]> + Clone) -> Result<usize, Vec<u8>> {
        let mut state = self.state.write();
        let is_used = |name: &&[u8]| state.users.values().any(|user| user.roles().iter().any(|r| *r.name == **name));
        if let Some(used) = names.clone().find(is_used) {
            return Err(used.to_vec());
        }
        let deleted = names.filter(|name| state.roles.remove(*name).is_some()).count();
        drop(state);
        self.has_changed();
        Ok(deleted)
    }

    /// Puts the users and roles of a file in the place of all others.
    ///
    /// # Errors
    /// All that is wrong with the file. Nothing has changed.
    pub fn load(&self, file: &str, text: &[u8]) -> Result<(), String> {
        let mut state = self.state.write();
        let mut last_id = state.last_id;
        let mut id = |name: &[u8]| match state.users.get(name) {
            Some(known) => known.id(),
            None => {
                last_id += 1;
                last_id
            }
        };
        let loaded = Loaded::read(file, text, self.beginning(), &mut id)?;
        let users = loaded.users.into_iter().map(|(name, user)| (name, Arc::new(user))).collect();
        *state = State { users, roles: loaded.roles, last_id };
        drop(state);
        self.has_changed();
        Ok(())
    }

    /// Adds the users and roles that a configuration names: the words of each line, the name first.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn configure(&self, roles: &[Vec<Vec<u8>>], users: &[Vec<Vec<u8>>]) -> Result<(), String> {
        let (mut seen_roles, mut seen) = (Vec::new(), Vec::new());
        for (kind, lines, seen) in [("role", roles, &mut seen_roles), ("user", users, &mut seen)] {
            for line in lines {
                let (name, rules) = line.split_first().ok_or("a name is missing")?;
                let shown = String::from_utf8_lossy(name).into_owned();
                if !is_name(name) {
                    return Err("Spaces not allowed in ACL usernames".to_owned());
                }
                if seen.contains(name) {
                    return Err(format!("Duplicate {kind} found: '{shown}'. It can only be defined once"));
                }
                seen.push(name.clone());
                // What the file says of the default user is all that there is.
                let reset: &[&[u8]] = if kind == "user" { &[b"reset"] } else { &[] };
                let rules: Vec<&[u8]> = reset.iter().copied().chain(rules.iter().map(Vec::as_slice)).collect();
                let set = if kind == "user" { self.set(name, &rules) } else { self.set_role(name, &rules) };
                set.map_err(|mistake| format!("Error loading ACL rules for the {kind} named '{shown}': {mistake}"))?;
            }
        }
        Ok(())
    }

    /// The lines of all roles and users, as a file has them: `user`, the name, the rules.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let state = self.state.read();
        let roles = state.roles.values().map(|role| [b"role ", &role.name[..], b" ", &role.rules()].concat());
        let users = state.users.values().map(|user| [b"user ", user.name(), b" ", &user.rules()].concat());
        roles.chain(users).collect()
    }

    /// The words of the lines of all roles, and of those of all users, each without its first.
    pub fn words(&self) -> [Vec<Vec<Vec<u8>>>; 2] {
        let words = |name: &[u8], rules: &[u8]| {
            let rules = rules.split(|&byte| byte == b' ').map(<[u8]>::to_vec);
            std::iter::once(name.to_vec()).chain(rules).collect()
        };
        let state = self.state.read();
        let roles = state.roles.values().map(|role| words(&role.name, &role.rules())).collect();
        let users = state.users.values().map(|user| words(user.name(), &user.rules())).collect();
        [roles, users]
    }

    /// A digest of all rules.
    pub fn digest(&self) -> String {
        Digest::of(&self.lines().join(&b'\n')).to_string()
    }
}

/// What is wrong with the rules of a user or role.
#[derive(Debug)]
pub enum Mistake {
    /// A parenthesis is not closed: the word in which it opens.
    Open(Vec<u8>),
    /// A rule.
    Rule(Zeroizing<Vec<u8>>, Wrong),
}

impl Mistake {
    fn of(rule: &[u8], wrong: Wrong) -> Mistake {
        Mistake::Rule(Zeroizing::new(until_nul(rule).to_vec()), wrong)
    }

    /// As the client is told who sent the rules.
    pub fn wire(&self) -> Vec<u8> {
        match self {
            Mistake::Open(word) => [b"Unmatched parenthesis in acl selector starting at '", &word[..], b"'."].concat(),
            Mistake::Rule(rule, wrong) => {
                [b"Error in ACL SETUSER modifier '", &rule[..], b"': ", wrong.text().as_bytes()].concat()
            }
        }
    }
}

impl std::fmt::Display for Mistake {
    /// As it may stand in a log: a rule that may be a password is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mistake::Open(_) => f.write_str("Unmatched parenthesis in selector definition"),
            Mistake::Rule(rule, wrong @ Wrong::Unknown) => {
                write!(f, "'{}': {}", String::from_utf8_lossy(rule), wrong.text())
            }
            Mistake::Rule(_, wrong) => f.write_str(wrong.text()),
        }
    }
}

/// The rules, with the words of each selector in one. What may be a password is wiped when they are dropped.
fn merged(rules: &[&[u8]]) -> Result<Vec<Zeroizing<Vec<u8>>>, Mistake> {
    match merge_selectors(rules) {
        Ok(merged) => Ok(merged.into_iter().map(Zeroizing::new).collect()),
        Err(at) => Err(Mistake::Open(until_nul(rules[at]).to_vec())),
    }
}

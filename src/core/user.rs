//! Users: a connection acts for one of them.
//!
//! Invariants:
//! - A user is immutable: a new password makes a new user of the same name. A connection keeps the one that it
//!   authenticated as.

use std::sync::Arc;

use crate::base::lock::{Mutex, Rank};

/// The name of the user that a connection begins as.
const DEFAULT: &str = "default";

/// See the module.
#[derive(Debug)]
pub struct User {
    name: &'static str,
    /// `None` if any password is accepted, and none is needed.
    password: Option<Box<[u8]>>,
}

impl User {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Whether a connection may use it without a password.
    pub fn is_open(&self) -> bool {
        self.password.is_none()
    }

    fn accepts(&self, given: &[u8]) -> bool {
        self.password.as_ref().is_none_or(|password| same_in_constant_time(given, password))
    }
}

/// All users.
#[derive(Debug)]
pub struct Users {
    default: Mutex<Arc<User>>,
}

impl Default for Users {
    /// The default user alone, without a password.
    fn default() -> Users {
        Users { default: Mutex::new(Rank::Register, default_user(b"")) }
    }
}

impl Users {
    /// The default user.
    pub fn default_user(&self) -> Arc<User> {
        Arc::clone(&self.default.lock())
    }

    /// Whether there is a user of this name.
    pub fn has(&self, name: &[u8]) -> bool {
        name == self.default_user().name().as_bytes()
    }

    /// Sets the password of the default user; empty for none.
    pub fn set_default_password(&self, password: &[u8]) {
        *self.default.lock() = default_user(password);
    }

    /// The user of a new connection; `None` until it has authenticated.
    pub fn of_new_connection(&self) -> Option<Arc<User>> {
        Some(self.default_user()).filter(|user| user.is_open())
    }

    /// The user of this name and password.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        Some(self.default_user()).filter(|user| user.accepts(password) && name == user.name().as_bytes())
    }
}

fn default_user(password: &[u8]) -> Arc<User> {
    Arc::new(User { name: DEFAULT, password: (!password.is_empty()).then(|| password.into()) })
}

/// Compares in a time that does not reveal where the difference is: it always reads all of the given bytes, whatever
/// the length of the secret.
fn same_in_constant_time(given: &[u8], secret: &[u8]) -> bool {
    let mut difference = given.len() ^ secret.len();
    for (at, byte) in given.iter().enumerate() {
        let other = secret.get(at % secret.len().max(1)).copied().unwrap_or(0);
        difference |= usize::from(std::hint::black_box(byte ^ other));
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_compared_whole() {
        assert!(same_in_constant_time(b"", b""));
        for (given, secret) in [("a", ""), ("", "a"), ("ab", "a"), ("aa", "a"), ("a", "aa"), ("b", "a")] {
            assert!(!same_in_constant_time(given.as_bytes(), secret.as_bytes()), "{given} {secret}");
        }
        assert!(same_in_constant_time(b"secret", b"secret"));
    }

    #[test]
    fn a_connection_keeps_the_user_that_it_has() {
        let users = Users::default();
        let user = users.of_new_connection().expect("nobody asks for a password");
        users.set_default_password(b"secret");
        assert!(users.of_new_connection().is_none() && user.is_open());
        assert!(users.authenticate(b"default", b"secret").is_some_and(|user| !user.is_open()));
        assert!(users.authenticate(b"default", b"").is_none());
        assert!(users.authenticate(b"nobody", b"secret").is_none());
        users.set_default_password(b"");
        assert!(users.authenticate(b"default", b"whatever").is_some());
    }
}

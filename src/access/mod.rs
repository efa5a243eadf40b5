//! Who may do what: users and roles, their rules, and the log of refusals.
//!
//! - [`catalogue`]: the names of commands and categories, as rules know them.
//! - [`selector`]: one set of permissions, and the rules that change it.
//! - [`user`]: users and roles, made of selectors; [`call`]: whether one may make a call.
//! - [`users`]: all of them; [`file`](mod@file): their lines in files.
//! - [`password`]: what is kept of passwords; [`failures`]: addresses that guess them.
//! - [`log`]: what was refused.
//!
//! Invariants:
//! - A user or role never changes: a change makes another one, which takes its place in the register.
//! - A change by several rules takes place as a whole, or not at all.
//! - This layer knows no command: it compares numbers, names and patterns.

pub mod call;
pub mod catalogue;
pub mod failures;
pub mod file;
pub mod log;
pub mod password;
pub mod selector;
#[cfg(test)]
mod tests;
pub mod user;
pub mod users;

pub use call::{Denied, Need, Wish};
pub use catalogue::{Catalogue, Known};
pub use selector::KeyUse;
pub use user::{Role, User};
pub use users::Users;

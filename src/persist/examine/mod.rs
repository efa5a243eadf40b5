//! Looks at the files of a store without changing them, in pieces of bounded size.
//!
//! Check, scrub, restore, repair and backup share what is here. It takes no lock, so a server may run on the same
//! directory: what it is just writing is not damage, and a piece that looks damaged is read again before it is called
//! so.
//!
//! Read bottom-up: `window` (a file in pieces), `blocks` (the blocks of one segment), [`chain`] (the log over all
//! kept generations), `snapshot` (a snapshot in one pass), [`directory`] (all of a directory), [`scrub`] (what does
//! not change any more, slowly).

pub(crate) mod blocks;
pub mod chain;
pub mod directory;
pub mod scrub;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod window;

pub(crate) use directory::recovery_of;
pub use directory::{Fault, Report, check, recovery};

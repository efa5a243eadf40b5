//! MIGRATE behind its handler: sends what that has read, and removes what the target has taken. `core::migration` tells
//! the whole.

mod removal;
pub(super) mod sending;
mod target;

//! What everything else stands on; imports nothing of the project.
//!
//! Each file is one small service without state of its own, or with state that it keeps to itself.

pub mod hash;

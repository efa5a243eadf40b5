//! Moves whole keyspaces between memory and disk: saving, loading at a start, reloading, backup.

pub mod background;
pub mod backup;
pub mod disk;
pub mod encryption;
pub mod figures;
pub mod import;
pub mod loading;
pub mod pace;
pub mod reload;
pub mod saving;
pub mod scrub;
pub mod sending;
pub mod shell;
pub mod verify;

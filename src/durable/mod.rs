//! Moves whole keyspaces between memory and disk: saving, loading at a start, reloading.

pub mod figures;
pub mod loading;
pub mod pace;
pub mod reload;
pub mod saving;

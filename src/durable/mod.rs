//! What moves whole keyspaces between memory and disk: saving, loading at a start, loading anew.

pub mod loading;
pub mod pace;
pub mod reload;
pub mod saving;

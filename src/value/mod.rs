//! What a key can hold, as bytes and structures of their own: nothing here knows keys, locks or commands.

pub mod hyperloglog;

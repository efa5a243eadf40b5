//! Configuration: the table of directives, redis.conf's syntax, the live settings.
pub mod directive;
pub mod error;
pub mod notify;
pub mod table;
mod table_ignored;
pub mod value;
pub mod words;

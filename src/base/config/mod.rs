//! Configuration: the table of directives, redis.conf's syntax, and the live settings.
//!
//! | file | job |
//! |---|---|
//! | [`directive`], [`directives`], [`without_effect`] | what a directive is; those that work, those that do nothing |
//! | [`value`], [`words`], [`notify`] | values and their texts |
//! | [`settings`] | types of the fields that the server reads |
//! | [`mod@file`], [`cli`], [`mod@print`] | redis.conf, the command line, the printed defaults |
//! | [`live`] | CONFIG GET, SET and REWRITE |
//! | [`error`] | what can be wrong |

pub mod cli;
pub mod directive;
pub mod directives;
pub mod error;
pub mod file;
pub mod live;
pub mod notify;
pub mod print;
mod rewrite;
pub mod settings;
pub mod value;
mod values;
pub mod without_effect;
pub mod words;

pub use cli::{Invocation, USAGE, parse_command_line};
pub use directives::Settings;
pub use error::ConfigError;
pub use file::Source;
pub use live::{Config, Prepared, is_secret};
pub use notify::NotifyFlags;
pub use print::print_default;
pub use settings::{ClientsLimit, EndpointType, EvictionPolicy, FsyncPolicy, Permission, ScriptRollback};
pub use value::{OutputLimit, SavePoint};

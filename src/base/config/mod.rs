//! Configuration: the table of directives, redis.conf's syntax, and the live settings.
//!
//! | file | job |
//! |---|---|
//! | [`directive`], [`directives`], [`without_effect`] | what a directive is; those that work, those that do nothing |
//! | [`value`], [`words`], [`notify`] | values and their texts |
//! | [`settings`] | types of the fields that the server reads |
//! | [`mod@file`], [`cli`], [`usage`], [`mod@print`] | redis.conf, the command line, its help, the printed defaults |
//! | [`acl_file`] | the file of users |
//! | [`live`] | CONFIG GET, SET and REWRITE |
//! | [`error`] | what can be wrong |

pub mod acl_file;
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
mod subnets;
pub mod usage;
pub mod value;
mod values;
pub mod without_effect;
pub mod words;

pub use cli::{Invocation, TOOLS, USAGE, parse_command_line};
pub use directives::Settings;
pub use error::ConfigError;
pub use file::Source;
pub use live::{Config, Described, Prepared, is_secret};
pub use notify::NotifyFlags;
pub use settings::{
    AuditKeys, ClientCertificates, ClientsLimit, CompatibilityMode, EndpointType, EvictionPolicy, FsyncPolicy,
    Permission, RdbVersionCheck, ScriptRollback, SlotStats, UserField,
};
pub use value::{OutputLimit, SavePoint};

//! The values of all directives, by their index in the table, and typed access to them.
//!
//! Invariant: the value at an index has the form that its row's kind says; typed access by a wrong
//! name or kind is our own bug, and the test that builds the default settings finds it.

use std::path::PathBuf;

use super::notify::NotifyFlags;
use super::settings::{ClientsLimit, EvictionPolicy, FsyncPolicy, Permission};
use super::value::{self, OutputLimit, SavePoint, Value};
use crate::base::config::directives;
use crate::base::logging::{Level, LineFormat, TimeFormat};

/// One value per row of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Values(Vec<Value>);

impl Default for Values {
    fn default() -> Values {
        Values(directives::all().iter().map(|directive| value::default(directive)).collect())
    }
}

/// Typed access: `$name(directive)` gives the content of `Value::$variant`.
macro_rules! typed {
    ($($name:ident: $variant:ident -> $type:ty;)*) => {
        $(pub(super) fn $name(&self, directive: &str) -> $type {
            match self.named(directive) {
                Value::$variant(content) => content.clone(),
                other => unreachable!("{directive} has the form {other:?}"),
            }
        })*
    };
}

impl Values {
    pub(super) fn at(&self, index: usize) -> &Value {
        &self.0[index]
    }

    pub(super) fn set(&mut self, index: usize, value: Value) {
        self.0[index] = value;
    }

    pub(super) fn push_line(&mut self, index: usize, words: Vec<Vec<u8>>) {
        if let Value::Lines(lines) = &mut self.0[index] {
            lines.push(words);
        }
    }

    fn named(&self, directive: &str) -> &Value {
        let index = directives::find(directive.as_bytes()).expect("settings name directives of the table");
        self.at(index)
    }

    typed! {
        bool: Bool -> bool;
        int: Int -> i64;
        choice: Choice -> &'static str;
        choices: Choices -> Vec<&'static str>;
        bytes: Text -> Vec<u8>;
        addresses: Addresses -> Vec<String>;
        save_points: SavePoints -> Vec<SavePoint>;
        output_limits: OutputLimits -> [OutputLimit; 3];
        notify: Notify -> NotifyFlags;
        oom_scores: OomScores -> [i64; 3];
        percentiles: Percentiles -> Vec<f64>;
        lines: Lines -> Vec<Vec<Vec<u8>>>;
    }

    /// A number in the type of its field; the table's bounds see to it that it fits.
    pub(super) fn number<N: TryFrom<i128>>(&self, directive: &str) -> N {
        let number = match self.named(directive) {
            Value::Int(value) => i128::from(*value),
            Value::Memory(bytes) => i128::from(*bytes),
            other => unreachable!("{directive} has the form {other:?}"),
        };
        let Ok(number) = N::try_from(number) else { unreachable!("{directive} has too wide bounds: {number}") };
        number
    }

    pub(super) fn text(&self, directive: &str) -> String {
        String::from_utf8_lossy(&self.bytes(directive)).into_owned()
    }

    pub(super) fn path(&self, directive: &str) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        PathBuf::from(std::ffi::OsString::from_vec(self.bytes(directive)))
    }

    pub(super) fn permission(&self, directive: &str) -> Permission {
        match self.choice(directive) {
            "yes" => Permission::Yes,
            "local" => Permission::Local,
            _ => Permission::No,
        }
    }

    pub(super) fn clients_limit(&self, directive: &str) -> ClientsLimit {
        match self.named(directive) {
            Value::Percent(percent) => ClientsLimit::Percent(*percent),
            _ => ClientsLimit::Bytes(self.number(directive)),
        }
    }

    pub(super) fn fsync(&self) -> FsyncPolicy {
        match self.choice("appendfsync") {
            "always" => FsyncPolicy::Always,
            "no" => FsyncPolicy::No,
            _ => FsyncPolicy::EverySec,
        }
    }

    pub(super) fn eviction(&self) -> EvictionPolicy {
        match self.choice("maxmemory-policy") {
            "volatile-lru" => EvictionPolicy::VolatileLru,
            "volatile-lfu" => EvictionPolicy::VolatileLfu,
            "volatile-random" => EvictionPolicy::VolatileRandom,
            "volatile-ttl" => EvictionPolicy::VolatileTtl,
            "allkeys-lru" => EvictionPolicy::AllkeysLru,
            "allkeys-lfu" => EvictionPolicy::AllkeysLfu,
            "allkeys-random" => EvictionPolicy::AllkeysRandom,
            _ => EvictionPolicy::NoEviction,
        }
    }

    pub(super) fn line_format(&self, directive: &str) -> LineFormat {
        match self.choice(directive) {
            "logfmt" => LineFormat::Logfmt,
            "json" => LineFormat::Json,
            _ => LineFormat::Legacy,
        }
    }

    pub(super) fn time_format(&self, directive: &str) -> TimeFormat {
        match self.choice(directive) {
            "iso8601" => TimeFormat::Iso8601,
            "milliseconds" => TimeFormat::Milliseconds,
            _ => TimeFormat::Legacy,
        }
    }

    pub(super) fn level(&self) -> Level {
        match self.choice("loglevel") {
            "debug" => Level::Debug,
            "verbose" => Level::Verbose,
            "warning" => Level::Warning,
            "nothing" => Level::Nothing,
            _ => Level::Notice,
        }
    }
}

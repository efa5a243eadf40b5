//! The types of settings, and how each is read from the value of its directive.
//!
//! Invariant: a value has the form that its directive's kind says. Reading another form is our own bug, which the
//! test that builds the default settings finds.

use std::path::PathBuf;

use super::notify::NotifyFlags;
pub use super::subnets::Subnets;
use super::value::{Lines, OutputLimit, SavePoint, Value};
use crate::base::logging::{Level, LineFormat, TimeFormat};
use crate::base::secret::Secret;

/// When the log is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// Before every reply.
    Always,
    /// Every second.
    EverySec,
    /// Whenever the kernel decides.
    No,
}

/// Which keys are evicted when memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The least recently used with an expiry.
    VolatileLru,
    /// The least recently modified with an expiry.
    VolatileLrm,
    /// The least often used with an expiry.
    VolatileLfu,
    /// Any with an expiry.
    VolatileRandom,
    /// The next to expire.
    VolatileTtl,
    /// The least recently used.
    AllkeysLru,
    /// The least recently modified.
    AllkeysLrm,
    /// The least often used.
    AllkeysLfu,
    /// Any.
    AllkeysRandom,
    /// None: refuse writes.
    NoEviction,
}

impl EvictionPolicy {
    /// Whether only keys with an expiry may go.
    pub fn is_volatile(self) -> bool {
        use EvictionPolicy::{VolatileLfu, VolatileLrm, VolatileLru, VolatileRandom, VolatileTtl};
        matches!(self, VolatileLru | VolatileLrm | VolatileLfu | VolatileRandom | VolatileTtl)
    }

    /// Whether only writes set access fields.
    pub fn is_lrm(self) -> bool {
        matches!(self, EvictionPolicy::VolatileLrm | EvictionPolicy::AllkeysLrm)
    }

    /// Whether access fields count how often a key is used.
    pub fn is_lfu(self) -> bool {
        matches!(self, EvictionPolicy::VolatileLfu | EvictionPolicy::AllkeysLfu)
    }
}

/// When what a script has done is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptRollback {
    /// Never, as in Redis. A script that has written cannot be killed.
    No,
    /// When it is killed.
    OnKill,
    /// When it is killed, and when it fails.
    OnError,
}

/// Which clients may use a dangerous command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Nobody.
    No,
    /// Everybody.
    Yes,
    /// Connections from this machine.
    Local,
}

impl Permission {
    /// Whether a client is allowed, given whether it is on this machine.
    pub fn allows(self, is_local: bool) -> bool {
        self == Permission::Yes || (self == Permission::Local && is_local)
    }
}

/// Whether a client of TLS must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    Refused,
    /// A valid one.
    Required,
    /// A valid one or none.
    Optional,
}

/// `compatibility-mode`: whom to follow where Redis and Valkey cannot both be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompatibilityMode {
    /// Redis.
    #[default]
    Redis,
    /// Valkey.
    Valkey,
}

/// `rdb-version-check`: which versions of RDB files and of payloads of DUMP are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RdbVersionCheck {
    /// Those that are known.
    #[default]
    Strict,
    /// All: a value is refused only if it cannot be read.
    Relaxed,
}

/// How the audit log shows keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditKeys {
    /// As they are.
    Plain,
    /// As a digest.
    Digest,
    /// Not at all.
    #[default]
    None,
}

/// The part of a client's certificate that names its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserField {
    /// The common name of its subject.
    CommonName,
    /// The URIs among its alternative names.
    Uri,
    /// None.
    Off,
}

/// By which name `CLUSTER SLOTS` tells clients to reach this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointType {
    /// Its address.
    Ip,
    /// `cluster-announce-hostname`.
    HostName,
    /// None: that by which the client has reached it.
    Unknown,
}

/// `maxmemory-clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientsLimit {
    /// This many bytes; 0 means no limit.
    Bytes(u64),
    /// Percent of `maxmemory`.
    Percent(u64),
}

/// What `CLUSTER SLOT-STATS` tells of a slot beside its keys: `cluster-slot-stats-enabled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotStats {
    /// The time of its commands.
    pub cpu: bool,
    /// The bytes of their requests and replies.
    pub net: bool,
    /// The memory of its keys.
    pub mem: bool,
}

impl SlotStats {
    pub(super) const WORDS: &'static [&'static str] = &["no", "cpu", "net", "mem", "yes"];
}

impl Setting for SlotStats {
    fn of(value: &Value) -> SlotStats {
        let chosen = Vec::<&'static str>::of(value);
        let has = |word| chosen.contains(&word) || chosen.contains(&"yes");
        SlotStats { cpu: has("cpu"), net: has("net"), mem: has("mem") }
    }
}

impl Setting for Subnets {
    fn of(value: &Value) -> Subnets {
        Subnets::parse(&Vec::<u8>::of(value)).unwrap_or_default()
    }
}

/// A type that a field of the settings can have.
pub(super) trait Setting {
    /// The content of a value, which has the form that the directive's kind says.
    fn of(value: &Value) -> Self;
}

/// The types of which a value holds one as it is.
macro_rules! held {
    ($($variant:ident: $type:ty,)*) => {
        $(impl Setting for $type {
            fn of(value: &Value) -> $type {
                match value {
                    Value::$variant(content) => content.clone(),
                    other => unreachable!("not a {}: {other:?}", stringify!($variant)),
                }
            }
        })*
    };
}

held! {
    Bool: bool,
    Choice: &'static str,
    Choices: Vec<&'static str>,
    Text: Vec<u8>,
    Secret: Secret,
    Addresses: Vec<String>,
    SavePoints: Vec<SavePoint>,
    OutputLimits: [OutputLimit; 3],
    OomScores: [i64; 3],
    Percentiles: Vec<f64>,
    Notify: NotifyFlags,
    Lines: Lines,
}

/// Numbers in the type of their field; the table's bounds see to it that they fit.
macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl Setting for $type {
            fn of(value: &Value) -> $type {
                let number = match value {
                    Value::Int(value) => i128::from(*value),
                    Value::Memory(bytes) | Value::Auto(bytes) => i128::from(*bytes),
                    other => unreachable!("not a number: {other:?}"),
                };
                let Ok(number) = <$type>::try_from(number) else { unreachable!("too wide bounds: {number}") };
                number
            }
        })*
    };
}

numbers!(u16, u32, u64, usize, i32, i64);

impl Setting for String {
    fn of(value: &Value) -> String {
        match value {
            Value::Secret(secret) => String::from_utf8_lossy(secret).into_owned(),
            other => String::from_utf8_lossy(&Vec::of(other)).into_owned(),
        }
    }
}

impl Setting for PathBuf {
    fn of(value: &Value) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        PathBuf::from(std::ffi::OsString::from_vec(Vec::of(value)))
    }
}

impl Setting for ClientsLimit {
    fn of(value: &Value) -> ClientsLimit {
        match value {
            Value::Percent(percent) => ClientsLimit::Percent(*percent),
            bytes => ClientsLimit::Bytes(u64::of(bytes)),
        }
    }
}

/// The words of a choice, and what they stand for.
macro_rules! words {
    ($($type:ident { $($word:literal => $variant:ident,)* })*) => {
        $(
            impl $type {
                /// Its words in the configuration.
                pub(super) const WORDS: &[&str] = &[$($word),*];

                /// Its word in the configuration.
                pub const fn name(self) -> &'static str {
                    match self {
                        $($type::$variant => $word,)*
                    }
                }
            }

            impl Setting for $type {
                fn of(value: &Value) -> $type {
                    match <&str>::of(value) {
                        $($word => $type::$variant,)*
                        other => unreachable!("not a word of this choice: {other}"),
                    }
                }
            }
        )*
    };
}

words! {
    FsyncPolicy {
        "everysec" => EverySec,
        "always" => Always,
        "no" => No,
    }
    EvictionPolicy {
        "volatile-lru" => VolatileLru,
        "volatile-lfu" => VolatileLfu,
        "volatile-random" => VolatileRandom,
        "volatile-ttl" => VolatileTtl,
        "allkeys-lru" => AllkeysLru,
        "allkeys-lfu" => AllkeysLfu,
        "allkeys-random" => AllkeysRandom,
        "noeviction" => NoEviction,
        "volatile-lrm" => VolatileLrm,
        "allkeys-lrm" => AllkeysLrm,
    }
    ClientCertificates {
        "no" => Refused,
        "yes" => Required,
        "optional" => Optional,
    }
    CompatibilityMode {
        "redis" => Redis,
        "valkey" => Valkey,
    }
    RdbVersionCheck {
        "strict" => Strict,
        "relaxed" => Relaxed,
    }
    AuditKeys {
        "plain" => Plain,
        "digest" => Digest,
        "none" => None,
    }
    UserField {
        "CN" => CommonName,
        "URI" => Uri,
        "off" => Off,
    }
    EndpointType {
        "ip" => Ip,
        "hostname" => HostName,
        "unknown-endpoint" => Unknown,
    }
    ScriptRollback {
        "on-kill" => OnKill,
        "on-error" => OnError,
        "no" => No,
    }
    Permission {
        "no" => No,
        "yes" => Yes,
        "local" => Local,
    }
    Level {
        "debug" => Debug,
        "verbose" => Verbose,
        "notice" => Notice,
        "warning" => Warning,
        "nothing" => Nothing,
    }
    LineFormat {
        "legacy" => Legacy,
        "logfmt" => Logfmt,
        "json" => Json,
    }
    TimeFormat {
        "legacy" => Legacy,
        "iso8601" => Iso8601,
        "iso8601-utc" => Iso8601Utc,
        "milliseconds" => Milliseconds,
    }
}

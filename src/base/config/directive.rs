//! What a directive is: a row of the table.

/// One directive: name, form of its value, default, rules and documentation.
#[derive(Debug)]
pub struct Directive {
    /// The name, in lower case.
    pub name: &'static str,
    /// A second name that is accepted and reported, too; or empty.
    pub alias: &'static str,
    /// The form of the value.
    pub kind: Kind,
    /// The default, as written in a file.
    pub default: &'static str,
    /// Whether CONFIG SET may change it.
    pub change: Change,
    /// Whether it has an effect.
    pub works: bool,
    /// Found only by its exact name, never by a pattern.
    pub hidden: bool,
    /// Not to be shown in logs.
    pub secret: bool,
    /// The value names a file, so that setting the same value again is a change, too.
    pub volatile: bool,
    /// The reason why any value but the default is refused.
    pub only_default: Option<&'static str>,
    /// Documentation for users, in our own words. May be empty for a directive without effect.
    pub doc: &'static str,
}

/// The form of a directive's value.
#[derive(Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Bool,
    /// A decimal integer within bounds.
    Int(i64, i64),
    /// A number of bytes within bounds, with an optional unit.
    Memory(u64, u64),
    /// A number of bytes with an optional unit, or `auto`: a share of the memory that this process may use.
    MemoryOrAuto,
    /// A number of bytes, or a percentage of `maxmemory`.
    MemoryOrPercent,
    /// File permission bits.
    Octal,
    /// One of several words.
    Choice(&'static [&'static str]),
    /// Several of these words (`shutdown-on-sigterm`).
    Choices(&'static [&'static str]),
    /// Any text.
    Text,
    /// A file's name, which must not contain a slash.
    FileName,
    /// The name of a host, or nothing.
    HostName,
    /// IP addresses, each with a number of bits or without, separated by spaces or commas.
    Subnets,
    /// Addresses, separated by blanks.
    Addresses,
    /// `seconds changes` pairs.
    SavePoints,
    /// `class hard soft seconds` groups.
    OutputLimits,
    /// The letters of event classes.
    Notify,
    /// Three numbers from -2000 to 2000.
    OomScores,
    /// Numbers from 0 to 100.
    Percentiles,
    /// `host port`; only the empty value is accepted.
    ReplicaOf,
    /// Only in a file; may be repeated, and is collected as written.
    FileOnly,
}

impl Kind {
    /// Whether the value consists of several words.
    pub fn takes_words(&self) -> bool {
        matches!(
            self,
            Kind::Choices(_)
                | Kind::Addresses
                | Kind::SavePoints
                | Kind::OutputLimits
                | Kind::OomScores
                | Kind::Percentiles
                | Kind::ReplicaOf
                | Kind::FileOnly
        )
    }
}

/// Whether CONFIG SET may change a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At any time.
    Live,
    /// Never.
    Fixed,
    /// Only as `enable-protected-configs` allows.
    Protected,
}

/// Directives that belong together.
#[derive(Debug)]
pub struct Group {
    /// The heading in the printed configuration, or why the rows have no effect.
    pub title: &'static str,
    /// The rows.
    pub directives: &'static [Directive],
}

/// The least that every row says; name and documentation come from the list, and the rest is chained.
pub(super) const fn of(kind: Kind, default: &'static str) -> Directive {
    Directive {
        name: "",
        alias: "",
        kind,
        default,
        change: Change::Live,
        works: true,
        hidden: false,
        secret: false,
        volatile: false,
        only_default: None,
        doc: "",
    }
}

pub(super) const fn bool(default: &'static str) -> Directive {
    of(Kind::Bool, default)
}

pub(super) const fn int(default: &'static str, min: i64, max: i64) -> Directive {
    of(Kind::Int(min, max), default)
}

pub(super) const fn memory(default: &'static str, min: u64, max: u64) -> Directive {
    of(Kind::Memory(min, max), default)
}

pub(super) const fn choice(default: &'static str, words: &'static [&'static str]) -> Directive {
    of(Kind::Choice(words), default)
}

pub(super) const fn text(default: &'static str) -> Directive {
    of(Kind::Text, default)
}

/// The text of documentation lines, each of which begins with a blank, as `///` has it.
pub(super) const fn trimmed(doc: &'static str) -> &'static str {
    doc.trim_ascii()
}

impl Directive {
    pub(super) const fn alias(self, alias: &'static str) -> Directive {
        Directive { alias, ..self }
    }

    pub(super) const fn fixed(self) -> Directive {
        Directive { change: Change::Fixed, ..self }
    }

    pub(super) const fn protected(self) -> Directive {
        Directive { change: Change::Protected, ..self }
    }

    pub(super) const fn hidden(self) -> Directive {
        Directive { hidden: true, ..self }
    }

    pub(super) const fn secret(self) -> Directive {
        Directive { secret: true, ..self }
    }

    pub(super) const fn volatile(self) -> Directive {
        Directive { volatile: true, ..self }
    }

    pub(super) const fn only_default(self, reason: &'static str) -> Directive {
        Directive { only_default: Some(reason), ..self }
    }

    /// Whether `name` is this directive's name or alias.
    pub fn is_called(&self, name: &[u8]) -> bool {
        self.name.as_bytes().eq_ignore_ascii_case(name)
            || (!self.alias.is_empty() && self.alias.as_bytes().eq_ignore_ascii_case(name))
    }
}

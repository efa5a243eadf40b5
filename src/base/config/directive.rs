//! What a directive is: a row of the table.

/// One directive: name, form of its value, default, rules and documentation.
#[derive(Debug)]
pub struct Directive {
    /// The name, in lower case.
    pub name: &'static str,
    /// A second name that is accepted and reported as well; or empty.
    pub alias: &'static str,
    /// The form of the value.
    pub kind: Kind,
    /// The default, as one would write it in a file.
    pub default: &'static str,
    /// Whether CONFIG SET may change it.
    pub change: Change,
    /// What it does here.
    pub support: Support,
    /// Found only by its exact name, never by a pattern.
    pub hidden: bool,
    /// Not to be shown in logs.
    pub secret: bool,
    /// A value that is refused, with the reason.
    pub refused: Option<(&'static str, &'static str)>,
    /// For people, in our own words. May be empty where there is no effect.
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
    /// `host port`, of which only the empty one is accepted.
    ReplicaOf,
    /// In a file only: may be repeated, collected as written.
    FileOnly,
}

impl Kind {
    /// Do several words make the value?
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

/// What a directive does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It works, and users rely on it.
    Core,
    /// It works.
    Useful,
    /// It is accepted and reported, and has no effect.
    Ignored,
}

/// Directives that belong together.
#[derive(Debug)]
pub struct Group {
    /// The heading in the printed configuration.
    pub title: &'static str,
    /// The rows.
    pub directives: &'static [Directive],
}

/// The least that every row says; the rest is chained.
pub(super) const fn directive(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Directive {
    Directive {
        name,
        alias: "",
        kind,
        default,
        change: Change::Live,
        support: Support::Core,
        hidden: false,
        secret: false,
        refused: None,
        doc,
    }
}

pub(super) const fn bool(name: &'static str, default: &'static str, doc: &'static str) -> Directive {
    directive(name, Kind::Bool, default, doc)
}

pub(super) const fn int(name: &'static str, default: &'static str, min: i64, max: i64, doc: &'static str) -> Directive {
    directive(name, Kind::Int(min, max), default, doc)
}

pub(super) const fn memory(
    name: &'static str,
    default: &'static str,
    min: u64,
    max: u64,
    doc: &'static str,
) -> Directive {
    directive(name, Kind::Memory(min, max), default, doc)
}

pub(super) const fn choice(
    name: &'static str,
    default: &'static str,
    words: &'static [&'static str],
    doc: &'static str,
) -> Directive {
    directive(name, Kind::Choice(words), default, doc)
}

pub(super) const fn text(name: &'static str, default: &'static str, doc: &'static str) -> Directive {
    directive(name, Kind::Text, default, doc)
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

    pub(super) const fn useful(self) -> Directive {
        Directive { support: Support::Useful, ..self }
    }

    pub(super) const fn ignored(self) -> Directive {
        Directive { support: Support::Ignored, ..self }
    }

    pub(super) const fn hidden(self) -> Directive {
        Directive { hidden: true, ..self }
    }

    pub(super) const fn secret(self) -> Directive {
        Directive { secret: true, ..self }
    }

    pub(super) const fn refuse(self, value: &'static str, reason: &'static str) -> Directive {
        Directive { refused: Some((value, reason)), ..self }
    }

    /// Is `name` this directive's name or alias?
    pub fn is_called(&self, name: &[u8]) -> bool {
        self.name.as_bytes().eq_ignore_ascii_case(name)
            || (!self.alias.is_empty() && self.alias.as_bytes().eq_ignore_ascii_case(name))
    }
}

//! What the server reports about itself, as data: the owner of a figure adds it here, and a writer turns all of them
//! into text.
//!
//! Invariants:
//! - A figure is typed, so that a writer can distinguish what only rises from what goes up and down.
//! - Constant fields are listed in one table, with their reasons: see [`Constant`].

use std::borrow::Cow;

use crate::base::config::Settings;
use crate::core::Server;

/// The sources of the figures. The settings are read once for all of them.
#[derive(Debug)]
pub struct Look<'a> {
    /// The server.
    pub server: &'a Server,
    /// The current settings.
    pub settings: &'a Settings,
    /// The time, Unix ms.
    pub now: i64,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Its name, as INFO shows it.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: Value,
}

/// The value of a figure.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number that only rises, except for CONFIG RESETSTAT and a restart.
    Counter(u64),
    /// A number that goes up and down.
    Gauge(i64),
    /// A number of bytes that goes up and down.
    Bytes(u64),
    /// The ratio of two numbers.
    Ratio(f64),
    /// A percentage.
    Percent(f64),
    /// A time that only rises, in microseconds.
    CpuTime(u64),
    /// A duration, in microseconds.
    Micros(f64),
    /// Words.
    Text(String),
    /// Numbers in columns, each with its name.
    Columns(Vec<(Cow<'static, str>, Value)>),
    /// One row of several under the same name, distinguished by a label.
    Row {
        /// The name of the label: `cmd`.
        by: &'static str,
        /// The label.
        label: String,
        /// The columns, each with its name.
        columns: Vec<(Cow<'static, str>, Value)>,
    },
}

/// A field that clients and monitors look for and that is constant here.
#[derive(Debug)]
pub struct Constant {
    /// The section of INFO.
    pub section: &'static str,
    /// The field.
    pub field: &'static str,
    /// Its constant value.
    pub value: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// The figures of one section, in the order in which they are shown.
#[derive(Debug)]
pub struct Figures {
    section: &'static str,
    constants: &'static [Constant],
    all: Vec<Figure>,
}

impl Figures {
    /// No figures yet, for a section, with the table of constant fields.
    pub fn new(section: &'static str, constants: &'static [Constant]) -> Figures {
        Figures { section, constants, all: Vec::new() }
    }

    /// All that were added.
    pub fn into_all(self) -> Vec<Figure> {
        self.all
    }

    /// Adds a figure.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, value: Value) {
        self.all.push(Figure { name: name.into(), value });
    }

    /// Adds a number that only rises.
    pub fn counter(&mut self, name: &'static str, value: u64) {
        self.add(name, Value::Counter(value));
    }

    /// Adds a number that goes up and down.
    pub fn gauge(&mut self, name: &'static str, value: impl TryInto<i64>) {
        self.add(name, Value::Gauge(value.try_into().unwrap_or(i64::MAX)));
    }

    /// Adds a boolean, as 0 or 1.
    pub fn flag(&mut self, name: &'static str, is_so: bool) {
        self.gauge(name, i64::from(is_so));
    }

    /// Adds a number of bytes.
    pub fn bytes(&mut self, name: &'static str, bytes: impl TryInto<u64>) {
        self.add(name, Value::Bytes(bytes.try_into().unwrap_or(0)));
    }

    /// Adds the same twice, the second time in readable form.
    pub fn bytes_and_human(&mut self, name: &'static str, bytes: u64) {
        self.bytes(name, bytes);
        self.add(format!("{name}_human"), Value::Text(crate::base::format::human_bytes(bytes)));
    }

    /// Adds a ratio.
    pub fn ratio(&mut self, name: &'static str, ratio: f64) {
        self.add(name, Value::Ratio(ratio));
    }

    /// Adds a part of a whole, in percent.
    pub fn percent(&mut self, name: &'static str, part: u64, whole: u64) {
        self.add(name, Value::Percent(100.0 * part as f64 / whole.max(1) as f64));
    }

    /// Adds words.
    pub fn text(&mut self, name: impl Into<Cow<'static, str>>, text: impl Into<String>) {
        self.add(name, Value::Text(text.into()));
    }

    /// Adds one row of several under the same name.
    pub fn row(
        &mut self,
        name: &'static str,
        (by, label): (&'static str, String),
        columns: Vec<(Cow<'static, str>, Value)>,
    ) {
        self.add(name, Value::Row { by, label, columns });
    }

    /// Adds fields that are constant.
    ///
    /// # Panics
    /// If one is not in the table.
    pub fn constants(&mut self, fields: &[&'static str]) {
        for field in fields {
            let listed = self.constants.iter().find(|row| row.section == self.section && row.field == *field);
            let listed = listed.unwrap_or_else(|| panic!("{}: {field} is no constant", self.section));
            self.text(*field, listed.value);
        }
    }
}

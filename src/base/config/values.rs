//! The values of all directives, by their index in the table.
//!
//! Invariant: the value at an index has the form that its row's kind says.

use super::value::{self, Value};
use crate::base::config::directives::{self, Settings};

/// One value per row of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Values(Vec<Value>);

impl Default for Values {
    fn default() -> Values {
        Values(directives::all().iter().map(|directive| value::default(directive)).collect())
    }
}

impl Values {
    pub(super) fn settings(&self) -> Settings {
        Settings::from_values(&self.0)
    }

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
}

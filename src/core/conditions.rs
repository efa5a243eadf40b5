//! The conditions of EXEC: on which keys its transaction depends, and how.

use super::args::{Words, is};
use super::key_spec::{Look, Places};
use super::stored_string::text;
use super::{CommandError, Db};
use crate::keyspace::Key;
use crate::resp::Args;

/// A condition on one key.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    /// The argument that is the key.
    pub place: usize,
    wanted: Wanted<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Wanted<'a> {
    Equal(&'a [u8]),
    NotEqual(&'a [u8]),
    Existing,
    Missing,
}

/// The conditions that the arguments of EXEC are.
///
/// # Errors
/// They are none: a word misses its key or its value; or there is another word, and the error is that of Redis, where
/// EXEC takes no arguments. The transaction is dropped.
pub fn of(args: Args<'_>) -> Result<Vec<Condition<'_>>, CommandError> {
    const MISTAKE: CommandError =
        CommandError::Text("EXECABORT Transaction discarded because of: invalid check condition syntax");
    let (mut words, mut conditions) = (Words::new(args, 1), Vec::new());
    while let Some(word) = words.next() {
        let place = args.len() - words.left();
        if !["XX", "NX", "IFEQ", "IFNE"].iter().any(|name| is(word, name)) {
            return Err(CommandError::Text(
                "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command",
            ));
        }
        words.next().ok_or(MISTAKE)?;
        let wanted = if is(word, "XX") {
            Wanted::Existing
        } else if is(word, "NX") {
            Wanted::Missing
        } else if is(word, "IFEQ") {
            Wanted::Equal(words.next().ok_or(MISTAKE)?)
        } else {
            Wanted::NotEqual(words.next().ok_or(MISTAKE)?)
        };
        conditions.push(Condition { place, wanted });
    }
    Ok(conditions)
}

/// The keys among the arguments of EXEC.
pub fn keys(args: Args<'_>) -> Look {
    match of(args) {
        Ok(conditions) if !conditions.is_empty() => {
            Look::Each(conditions.iter().map(|condition| condition.place).collect::<Places>())
        }
        _ => Look::Nowhere,
    }
}

impl Condition<'_> {
    /// Whether it holds for the key at its place.
    ///
    /// # Errors
    /// [`CommandError::WrongType`] if a value is wanted, or not wanted, and the key holds no string.
    pub fn holds(&self, db: &mut Db<'_>, key: Key<'_>) -> Result<bool, CommandError> {
        let mut digits = itoa::Buffer::new();
        let (wanted, is_equal) = match self.wanted {
            Wanted::Existing => return Ok(db.exists(key)),
            Wanted::Missing => return Ok(!db.exists(key)),
            Wanted::Equal(value) => (value, true),
            Wanted::NotEqual(value) => (value, false),
        };
        let value = db.string_to_change(key)?.map(|value| text(value, &mut digits));
        Ok((value == Some(wanted)) == is_equal)
    }
}

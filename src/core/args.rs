//! Parses the arguments of a command: numbers, and options word by word.

use crate::base::format;
use crate::core::CommandError;
use crate::resp::Args;

/// An integer argument.
///
/// # Errors
/// [`CommandError::NotInteger`].
#[inline]
pub fn integer(bytes: &[u8]) -> Result<i64, CommandError> {
    format::parse_i64(bytes).ok_or(CommandError::NotInteger)
}

/// An integer argument whose sign is a direction: its magnitude is an `i64`, too.
///
/// # Errors
/// [`CommandError::NotInteger`], or it is the one integer without a counterpart.
pub fn signed(bytes: &[u8]) -> Result<i64, CommandError> {
    match integer(bytes)? {
        i64::MIN => Err(CommandError::OutOfRange(NOT_SYMMETRIC)),
        number => Ok(number),
    }
}

const NOT_SYMMETRIC: &str = "value is out of range, value must between -9223372036854775807 and 9223372036854775807";

/// A number of keys or elements: an integer above zero.
///
/// # Errors
/// `otherwise`, an out-of-range text.
pub fn positive(bytes: &[u8], otherwise: &'static str) -> Result<usize, CommandError> {
    let number = format::parse_i64(bytes).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or(CommandError::OutOfRange(otherwise))
}

/// The index behind the keys whose number is at the argument `numkeys_at`.
///
/// # Errors
/// It is not a number, or there are too few arguments: a syntax error, as in Redis for commands that expect something
/// behind the keys.
pub fn behind_counted_keys(args: Args<'_>, numkeys_at: usize) -> Result<usize, CommandError> {
    let numkeys = positive(args.at(numkeys_at), "numkeys should be greater than 0")?;
    let behind = numkeys.saturating_add(numkeys_at + 1);
    if behind >= args.len() { Err(CommandError::Syntax) } else { Ok(behind) }
}

/// Which end, and how many: the words of LMPOP and ZMPOP behind the keys, whose number is at an argument.
///
/// # Errors
/// What is wrong with the number of keys, the end or the count.
pub fn end_and_count<E>(
    args: Args<'_>,
    numkeys_at: usize,
    end: impl FnOnce(&[u8]) -> Result<E, CommandError>,
) -> Result<(E, usize), CommandError> {
    let mut words = Words::new(args, behind_counted_keys(args, numkeys_at)?);
    let end = end(words.value()?)?;
    let mut count = None;
    while let Some(word) = words.next() {
        if count.is_some() || !is(word, "COUNT") {
            return Err(CommandError::Syntax);
        }
        count = Some(positive(words.value()?, "count should be greater than 0")?);
    }
    Ok((end, count.unwrap_or(1)))
}

/// The option LIMIT of SINTERCARD and ZINTERCARD, alone in these words; 0 means none.
///
/// # Errors
/// Another word, or not a number of 0 or more.
pub fn limit(mut words: Words<'_>) -> Result<usize, CommandError> {
    let mut limit = 0;
    while let Some(word) = words.next() {
        if !is(word, "LIMIT") {
            return Err(CommandError::Syntax);
        }
        limit = limit_value(&mut words)?;
    }
    Ok(limit)
}

/// The value of LIMIT.
///
/// # Errors
/// Not a number of 0 or more.
pub fn limit_value(words: &mut Words<'_>) -> Result<usize, CommandError> {
    let given = integer(words.value()?).ok().and_then(|limit| usize::try_from(limit).ok());
    given.ok_or(CommandError::OutOfRange("LIMIT can't be negative"))
}

/// The most elements that a command draws with repetition, because its reply is built in memory.
const REPEATED_MAX: i64 = 1 << 27;

/// Checks the count of a command that draws random elements, with repetition if the count is negative.
///
/// # Errors
/// More elements than may be drawn with repetition.
pub fn check_repeated(count: i64) -> Result<(), CommandError> {
    if count < -REPEATED_MAX { Err(CommandError::OutOfRange(NOT_SYMMETRIC)) } else { Ok(()) }
}

/// The options behind the fixed arguments, one word after the other.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Words<'a> {
    /// The words from the argument `first` on.
    pub fn new(args: Args<'a>, first: usize) -> Self {
        Words { args, next: first }
    }

    /// How many words are left.
    pub fn left(&self) -> usize {
        self.args.len().saturating_sub(self.next)
    }

    /// Skips this many words, or all that are left.
    pub fn pass_over(&mut self, count: usize) {
        self.next += count.min(self.left());
    }

    /// The value of the option just taken.
    ///
    /// # Errors
    /// [`CommandError::Syntax`] if there is none.
    pub fn value(&mut self) -> Result<&'a [u8], CommandError> {
        self.next().ok_or(CommandError::Syntax)
    }

    /// The value of the option just taken, an integer.
    ///
    /// # Errors
    /// [`CommandError::Syntax`] if there is none, [`CommandError::NotInteger`] if it is not an integer.
    pub fn integer(&mut self) -> Result<i64, CommandError> {
        integer(self.value()?)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let word = self.args.get(self.next)?;
        self.next += 1;
        Some(word)
    }
}

/// Whether an argument is this word, in any case. `word` is upper case.
#[inline]
pub fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

//! XTRIM, and the options that XADD shares with it.

use super::{ONE_STREAM, ids};
use crate::command::{Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Log, Outcome, Words, args, flags};
use crate::resp::{Args, Reply};
use crate::value::Limits;
use crate::value::stream::{AnyStream, Stream, Trim};

/// Where trimming is approximate and no LIMIT is given, so many blocks go at once, ...
const BLOCKS_MAX: usize = 100;
/// ... so many entries if a block has no largest number of them, ...
const LIMIT_OF_UNLIMITED: u64 = 10_000;
/// ... and never more than this.
const LIMIT_MAX: u64 = 1_000_000;

/// The options of XADD and XTRIM.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// NOMKSTREAM.
    pub(super) only_existing: bool,
    trim: Option<Trim>,
    approximately: bool,
    limit: Option<u64>,
}

impl Options {
    /// The options of XADD, and where its id stands.
    pub(super) fn parse_xadd(args: Args<'_>, limits: &Limits) -> Result<(Options, usize), CommandError> {
        let mut options = Options::default();
        let mut words = Words::new(args, 2);
        loop {
            let at = args.len() - words.left();
            let Some(word) = words.next() else { return Ok((options.settle(limits, false)?, at)) };
            if word == b"*" {
                return Ok((options.settle(limits, false)?, at));
            }
            if args::is(word, "NOMKSTREAM") {
                options.only_existing = true;
            } else if !options.take(word, &mut words)? {
                // An id, or a mistake, and that comes before those among the options.
                ids::wanted(word)?;
                return Ok((options.settle(limits, false)?, at));
            }
        }
    }

    fn parse_xtrim(args: Args<'_>, limits: &Limits) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut words = Words::new(args, 2);
        while let Some(word) = words.next() {
            if !options.take(word, &mut words)? {
                return Err(CommandError::Syntax);
            }
        }
        options.settle(limits, true)
    }

    /// Takes one option with its values; false if the word is none.
    fn take(&mut self, word: &[u8], words: &mut Words<'_>) -> Result<bool, CommandError> {
        if words.left() == 0 {
            return Ok(false);
        }
        if args::is(word, "LIMIT") {
            let limit = u64::try_from(words.integer()?);
            self.limit = Some(limit.map_err(|_| CommandError::Text("ERR The LIMIT argument must be >= 0."))?);
            return Ok(true);
        }
        let by_len = args::is(word, "MAXLEN");
        if !by_len && !args::is(word, "MINID") {
            return Ok(false);
        }
        if self.trim.is_some() {
            return Err(CommandError::Text(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let mut threshold = words.value()?;
        if words.left() > 0 && matches!(threshold, b"~" | b"=") {
            self.approximately = threshold == b"~";
            threshold = words.value()?;
        }
        self.trim = Some(if by_len {
            let len = u64::try_from(args::integer(threshold)?);
            Trim::MaxLen(len.map_err(|_| CommandError::Text("ERR The MAXLEN argument must be >= 0."))?)
        } else {
            Trim::MinId(ids::any(threshold, 0)?)
        });
        Ok(true)
    }

    /// Checks the options together, and sets the limit where none is given.
    fn settle(mut self, limits: &Limits, must_trim: bool) -> Result<Options, CommandError> {
        if self.limit.is_some_and(|limit| limit > 0) && self.trim.is_none() {
            return Err(CommandError::Text(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if must_trim && self.trim.is_none() {
            return Err(CommandError::Text("ERR syntax error, XTRIM must be called with a trimming strategy"));
        }
        if self.limit.is_some() && !self.approximately {
            return Err(CommandError::Text("ERR syntax error, LIMIT cannot be used without the special ~ option"));
        }
        if self.approximately && self.limit.is_none() {
            self.limit = Some(match limits.stream_node_max_entries {
                0 => LIMIT_OF_UNLIMITED,
                entries => (entries.saturating_mul(BLOCKS_MAX) as u64).min(LIMIT_MAX),
            });
        }
        Ok(self)
    }

    /// Trims a stream; returns whether anything went.
    pub(super) fn apply(&self, stream: &mut Stream) -> bool {
        self.trim.is_some_and(|trim| stream.trim(trim, self.approximately, self.limit.unwrap_or(0)) > 0)
    }
}

pub(super) static XTRIM: Command = Command {
    name: "XTRIM",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: Log::Rewritten, // as what it came to: blocks may differ where it is replayed
    handler: Handler::Data(xtrim),
    complexity: "O(N), with N being the number of evicted entries. Constant times are very small however, since entries are organized in macro nodes containing multiple entries that can be released with a single deallocation.",
    tips: "nondeterministic_output",
    syntax: "key <MAXLEN | MINID@6.2.0> [= | ~] threshold [LIMIT count@6.2.0]",
    summary: "Cuts a stream at its beginning.",
    ..ONE_STREAM
};

fn xtrim(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, limits) = (call.key(1), call.db.facts().limits);
    let options = Options::parse_xtrim(call.args, &limits)?;
    if call.db.peek_view::<AnyStream>(key)?.is_none() {
        return Ok(reply.int(0));
    }
    let (trimmed, len) = call.db.edit::<AnyStream, _>(key, |stream| {
        let before = stream.len();
        options.apply(stream);
        let trimmed = (before - stream.len()) as u64;
        Ok(((trimmed, stream.len()), trimmed))
    })?;
    if trimmed > 0 {
        call.db.log(key, &[b"XTRIM", key.bytes, b"MAXLEN", itoa::Buffer::new().format(len).as_bytes()]);
    }
    Ok(reply.int(trimmed as i64))
}

//! XTRIM, and the options that XADD shares with it.

use super::idempotency::Producer;
use super::{ONE_STREAM, delete, ids};
use crate::core::{Arity, Call, Command, CommandError, Db, Handler, KeySpec, Keys, LogRule, NotifyFlags, Outcome};
use crate::core::{Words, args, flags};
use crate::keyspace::Key;
use crate::resp::{Args, Reply};
use crate::value::Limits;
use crate::value::stream::{AnyStream, RefPolicy, Stream, StreamId, Trim};

/// Without a LIMIT, approximate trimming removes this many blocks at once, ...
const BLOCKS_MAX: usize = 100;
/// ... this many entries if blocks have no largest number of entries, ...
const LIMIT_OF_UNLIMITED: u64 = 10_000;
/// ... and never more than this.
const LIMIT_MAX: u64 = 1_000_000;

/// The result of trimming, as it is logged. The request itself is not logged, because blocks may differ in a replay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trimmed {
    /// Nothing changed.
    Nothing,
    /// This many entries were removed at the beginning; with DELREF, the groups' references up to an id, too.
    First(u64, Option<StreamId>),
    /// Every unreferenced entry up to this id.
    AckedUpTo(StreamId),
}

impl Trimmed {
    /// Logs it.
    pub(super) fn log(self, db: &mut Db<'_>, key: Key<'_>) {
        match self {
            Trimmed::Nothing => {}
            Trimmed::First(count, forgotten) => {
                if count > 0 {
                    db.record(key).stream_trim(count);
                }
                if let Some(up_to) = forgotten {
                    db.record(key).stream_forget_up_to(up_to);
                }
            }
            Trimmed::AckedUpTo(id) => db.record(key).stream_trim_acked(id),
        }
    }
}

/// The options of XADD and XTRIM.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options<'a> {
    /// NOMKSTREAM.
    pub(super) only_existing: bool,
    /// IDMP or IDMPAUTO.
    pub(super) producer: Option<Producer<'a>>,
    policy: Option<RefPolicy>,
    trim: Option<Trim>,
    approximately: bool,
    limit: Option<u64>,
}

impl<'a> Options<'a> {
    /// The options of XADD, and the index of its id.
    pub(super) fn parse_xadd(args: Args<'a>, limits: &Limits) -> Result<(Options<'a>, usize), CommandError> {
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
            } else if let Some(producer) = Producer::take(word, &mut words)? {
                if options.producer.replace(producer).is_some() {
                    return Err(CommandError::Text("ERR syntax error, IDMP/IDMPAUTO specified multiple times"));
                }
            } else if !options.take(word, &mut words)? {
                // It is an id or a mistake, and that is reported before mistakes in the options.
                ids::wanted(word)?;
                return Ok((options.settle(limits, false)?, at));
            }
        }
    }

    fn parse_xtrim(args: Args<'a>, limits: &Limits) -> Result<Options<'a>, CommandError> {
        let mut options = Options::default();
        let mut words = Words::new(args, 2);
        while let Some(word) = words.next() {
            if !options.take(word, &mut words)? {
                return Err(CommandError::Syntax);
            }
        }
        options.settle(limits, true)
    }

    /// Takes one option with its values; false if the word is not an option.
    fn take(&mut self, word: &[u8], words: &mut Words<'_>) -> Result<bool, CommandError> {
        if let Some(policy) = delete::policy(word).filter(|_| self.policy.is_none()) {
            self.policy = Some(policy);
            return Ok(true);
        }
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
            Trim::MinId(ids::exact(threshold, 0)?)
        });
        Ok(true)
    }

    /// Checks the options together, and sets the limit where none is given.
    fn settle(mut self, limits: &Limits, must_trim: bool) -> Result<Options<'a>, CommandError> {
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

    /// Trims a stream. Returns how many entries were removed, and how to log the change. If a policy examines every
    /// entry, `~` does not spare the rest of a block; it only brings its limit.
    pub(super) fn apply(&self, stream: &mut Stream) -> (u64, Trimmed) {
        let Some(trim) = self.trim else { return (0, Trimmed::Nothing) };
        let (policy, limit) = (self.policy.unwrap_or_default(), self.limit.unwrap_or(0));
        match policy {
            RefPolicy::KeepRef => {
                let gone = stream.trim(trim, self.approximately, limit);
                (gone, if gone > 0 { Trimmed::First(gone, None) } else { Trimmed::Nothing })
            }
            RefPolicy::DelRef => {
                let (gone, dropped) = stream.trim_with_references(trim, limit);
                let first = stream.first().map(|first| first.id);
                let beginning = match trim {
                    Trim::MaxLen(_) => first,
                    Trim::MinId(min) => Some(first.map_or(min, |first| first.min(min))),
                };
                // References to entries before the beginning, or all references if no entry is left.
                let last = beginning.map_or(Some(StreamId::MAX), StreamId::previous).filter(|_| dropped > 0);
                (gone, if gone + dropped > 0 { Trimmed::First(gone, last) } else { Trimmed::Nothing })
            }
            RefPolicy::Acked => {
                let (gone, last) = stream.trim_acked(trim, limit);
                (gone, last.map_or(Trimmed::Nothing, Trimmed::AckedUpTo))
            }
        }
    }
}

pub(super) static XTRIM: Command = Command {
    name: "XTRIM",
    arity: Arity::AtLeast(4),
    flags: flags::WRITE,
    keys: Keys(&[KeySpec::at(1, "RW delete")]),
    log: LogRule::Effects, // as its result: blocks may differ in a replay
    handler: Handler::Data(xtrim),
    complexity: "O(N), with N being the number of evicted entries. Constant times are very small however, since entries are organized in macro nodes containing multiple entries that can be released with a single deallocation.",
    tips: "nondeterministic_output",
    syntax: "key <MAXLEN | MINID@6.2.0> [= | ~] threshold [LIMIT count@6.2.0] [KEEPREF | DELREF | ACKED]@8.2.0",
    summary: "Cuts a stream at its beginning.",
    ..ONE_STREAM
};

fn xtrim(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let (key, limits) = (call.key(1), call.db.facts().limits);
    let options = Options::parse_xtrim(call.args, &limits)?;
    if call.db.peek_view::<AnyStream>(key)?.is_none() {
        return Ok(reply.int(0));
    }
    let before = call.db.changes();
    let (gone, trimmed) = call.db.edit_unwatched::<AnyStream, _>(key, |stream| {
        let (gone, trimmed) = options.apply(stream);
        Ok(((gone, trimmed), u64::from(!matches!(trimmed, Trimmed::Nothing))))
    })?;
    // Groups that drop references to entries deleted earlier do not change the key, but this must be logged.
    call.db.count_as(before, gone);
    if gone > 0 {
        call.db.note_watched(key);
    }
    trimmed.log(&mut call.db, key);
    if gone > 0 {
        call.db.notify(NotifyFlags::STREAM, "xtrim", key);
    }
    Ok(reply.int(gone as i64))
}

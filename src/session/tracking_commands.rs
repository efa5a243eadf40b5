//! CLIENT TRACKING and its kind: client-side caching.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::core::args::{integer, is};
use crate::core::error::until_nul;
use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, Words, categories, flags};
use crate::events::invalidation::{Caching, Mode};
use crate::resp::Reply;

/// What these subcommands of CLIENT share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: ANYWHERE,
    categories: categories::CONNECTION,
    group: "connection",
    since: "6.0.0",
    ..Command::DEFAULT
};

const ANYWHERE: Flags = flags::NOSCRIPT.or(flags::LOADING).or(flags::STALE);

pub(super) static CACHING: Command = Command {
    name: "CACHING",
    arity: Arity::Exactly(3),
    handler: Handler::Session(caching),
    syntax: "<YES | NO>",
    summary: "Says whether the keys of the next command are tracked, in the modes OPTIN and OPTOUT.",
    ..SUBCOMMAND
};

fn caching(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let Some(caching) = &mut call.client.caching else {
        return Err(CommandError::Text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled",
        ));
    };
    let word = call.args.at(2);
    let (wanted, text) = match () {
        () if is(word, "YES") => {
            (Mode::OptIn, "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
        }
        () if is(word, "NO") => {
            (Mode::OptOut, "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
        }
        () => return Err(CommandError::Syntax),
    };
    if caching.mode != wanted {
        return Err(CommandError::Text(text));
    }
    caching.was_said = true;
    Ok(reply.ok())
}

pub(super) static GETREDIR: Command = Command {
    name: "GETREDIR",
    handler: Handler::Session(getredir),
    summary: "The connection to which invalidations are redirected: 0 for none, -1 without tracking.",
    ..SUBCOMMAND
};

fn getredir(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.int(redirect_of(call.client.caching.as_deref())))
}

fn redirect_of(caching: Option<&Caching>) -> i64 {
    caching.map_or(-1, |caching| caching.redirect as i64)
}

pub(super) static TRACKINGINFO: Command = Command {
    name: "TRACKINGINFO",
    handler: Handler::Session(trackinginfo),
    since: "6.2.0",
    summary: "How this connection tracks keys.",
    ..SUBCOMMAND
};

fn trackinginfo(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let caching = call.client.caching.as_deref();
    let mut words = vec![if caching.is_some() { "on" } else { "off" }];
    if let Some(caching) = caching {
        let (mode, said) = match caching.mode {
            Mode::Default => ("", ""),
            Mode::Broadcast => ("bcast", ""),
            Mode::OptIn => ("optin", "caching-yes"),
            Mode::OptOut => ("optout", "caching-no"),
        };
        let all = [
            (mode, true),
            (said, caching.was_said),
            ("noloop", caching.noloop),
            ("broken_redirect", caching.is_broken),
        ];
        words.extend(all.iter().filter(|(word, holds)| *holds && !word.is_empty()).map(|(word, _)| *word));
    }
    let mut map = reply.map(3);
    map.bulk(b"flags");
    let mut set = map.set(words.len());
    words.iter().for_each(|word| set.bulk(word.as_bytes()));
    set.end();
    map.bulk(b"redirect");
    map.int(redirect_of(caching));
    map.bulk(b"prefixes");
    let mut prefixes = map.array(caching.map_or(0, |caching| caching.prefixes.len()));
    caching.iter().flat_map(|caching| &caching.prefixes).for_each(|prefix| prefixes.bulk(prefix));
    prefixes.end();
    Ok(map.done())
}

pub(super) static TRACKING: Command = Command {
    name: "TRACKING",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(tracking),
    complexity: "O(1). Some options may introduce additional complexity.",
    syntax: "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
    summary: "Has the server tell this connection, or another, when keys change that it may have cached.",
    ..SUBCOMMAND
};

/// The options of CLIENT TRACKING.
#[derive(Default)]
struct Options<'a> {
    redirect: i64,
    bcast: bool,
    optin: bool,
    optout: bool,
    noloop: bool,
    prefixes: Vec<&'a [u8]>,
}

fn tracking(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let options = options(call)?;
    let on = call.args.at(2);
    if is(on, "OFF") {
        call.client.track_nothing(call.server);
        return Ok(reply.ok());
    }
    if !is(on, "ON") {
        return Err(CommandError::Syntax);
    }
    let mode = mode(&options, call.client.caching.as_deref())?;
    let Options { redirect, noloop, prefixes, .. } = options;
    call.client.track(call.server, mode, redirect as u64, noloop, &prefixes);
    Ok(reply.ok())
}

fn options<'a>(call: &SessionCall<'a>) -> Result<Options<'a>, CommandError> {
    let (mut options, mut words) = (Options::default(), Words::new(call.args, 3));
    while let Some(word) = words.next() {
        match () {
            () if is(word, "REDIRECT") && words.left() > 0 => {
                if options.redirect != 0 {
                    return Err(CommandError::Text("ERR A client can only redirect to a single other client"));
                }
                options.redirect = integer(words.value()?)?;
                if u64::try_from(options.redirect).ok().and_then(|id| call.server.clients.get(id)).is_none() {
                    return Err(CommandError::Text("ERR The client ID you want redirect to does not exist"));
                }
            }
            () if is(word, "BCAST") => options.bcast = true,
            () if is(word, "OPTIN") => options.optin = true,
            () if is(word, "OPTOUT") => options.optout = true,
            () if is(word, "NOLOOP") => options.noloop = true,
            () if is(word, "PREFIX") && words.left() > 0 => options.prefixes.push(words.value()?),
            () => return Err(CommandError::Syntax),
        }
    }
    Ok(options)
}

/// The mode that the options choose, if they fit each other and the present mode.
fn mode(options: &Options<'_>, present: Option<&Caching>) -> Result<Mode, CommandError> {
    const SWITCH: &str = "before disabling tracking for this client, and then re-enabling it with a different mode.";
    let &Options { bcast, optin, optout, .. } = options;
    let present_mode = present.map(|caching| caching.mode);
    let switches = present_mode.is_some_and(|mode| bcast != (mode == Mode::Broadcast));
    let switches_choice = optin && present_mode == Some(Mode::OptOut) || optout && present_mode == Some(Mode::OptIn);
    match () {
        () if !bcast && !options.prefixes.is_empty() => {
            Err(CommandError::Text("ERR PREFIX option requires BCAST mode to be enabled"))
        }
        () if switches => Err(CommandError::err(format!("You can't switch BCAST mode on/off {SWITCH}"))),
        () if bcast && (optin || optout) => {
            Err(CommandError::Text("ERR OPTIN and OPTOUT are not compatible with BCAST"))
        }
        () if optin && optout => Err(CommandError::Text("ERR You can't specify both OPTIN mode and OPTOUT mode")),
        () if switches_choice => Err(CommandError::err(format!("You can't switch OPTIN/OPTOUT mode {SWITCH}"))),
        () if bcast => check_overlaps(&options.prefixes, present).map(|()| Mode::Broadcast),
        () if optin => Ok(Mode::OptIn),
        () if optout => Ok(Mode::OptOut),
        () => Ok(Mode::Default),
    }
}

/// No key may have two prefixes of one connection.
fn check_overlaps(prefixes: &[&[u8]], present: Option<&Caching>) -> Result<(), CommandError> {
    let refuse = |prefix: &[u8], which: &str, other: &[u8]| {
        let end = b"'. Prefixes for a single client must not overlap.";
        Err(CommandError::Echo(
            [b"ERR Prefix '", until_nul(prefix), which.as_bytes(), b"'", until_nul(other), end].concat(),
        ))
    };
    let existing = |prefix: &&[u8]| present.and_then(|caching| overlapping(&caching.prefixes, prefix));
    let with_existing = prefixes.iter().position(|prefix| existing(prefix).is_some());
    match first_overlap(prefixes) {
        Some((at, later)) if with_existing.is_none_or(|first| at < first) => {
            refuse(prefixes[at], "' overlaps with another provided prefix ", prefixes[later])
        }
        _ => match with_existing.and_then(|first| Some((prefixes[first], existing(&prefixes[first])?))) {
            Some((prefix, other)) => refuse(prefix, "' overlaps with an existing prefix ", other),
            None => Ok(()),
        },
    }
}

fn overlap(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// One of these prefixes that overlaps with this one. None of them overlaps with another but the empty one, which
/// BCAST without PREFIX adds: so only that and its neighbours can.
fn overlapping<'a, P: Borrow<[u8]> + Ord>(prefixes: &'a BTreeSet<P>, prefix: &[u8]) -> Option<&'a P> {
    let before = prefixes.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(prefix))).next_back();
    let behind = prefixes.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded)).next();
    let empty = prefixes.get(&b""[..]);
    empty.into_iter().chain(before).chain(behind).find(|other| overlap((*other).borrow(), prefix))
}

/// The first prefix that overlaps with a later one, and the first such. In a time that grows little faster than their
/// number: there may be as many as the client likes.
fn first_overlap(prefixes: &[&[u8]]) -> Option<(usize, usize)> {
    // Of the later ones, those that have no prefix among them: who overlaps with any overlaps with one of these.
    let (mut later, mut first) = (BTreeSet::<&[u8]>::new(), None);
    for (at, &prefix) in prefixes.iter().enumerate().rev() {
        while let Some(&other) = overlapping(&later, prefix) {
            first = Some(at);
            if prefix.starts_with(other) {
                break;
            }
            later.remove(other);
        }
        if overlapping(&later, prefix).is_none() {
            later.insert(prefix);
        }
    }
    let at = first?;
    let behind = prefixes[at + 1..].iter().position(|other| overlap(prefixes[at], other))?;
    Some((at, at + 1 + behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::Random;

    #[test]
    fn overlaps_are_found_as_by_comparing_each_with_each() {
        let mut random = Random::from_seed(1);
        let mut found = [0; 2];
        for _ in 0..20_000 {
            let mut word = |most: u64| -> Vec<u8> {
                (0..1 + random.below(most)).map(|_| [b'a', b'b', 0xff][random.below(3) as usize]).collect()
            };
            let words: Vec<Vec<u8>> = (0..1 + word(6).len()).map(|_| word(7)).collect();
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let slow = (0..words.len()).find_map(|at| {
                let behind = words[at + 1..].iter().position(|other| overlap(words[at], other))?;
                Some((at, at + 1 + behind))
            });
            assert_eq!(first_overlap(&words), slow, "{words:?}");
            found[usize::from(slow.is_some())] += 1;
            if slow.is_none() {
                let mut set: BTreeSet<&[u8]> = words.iter().copied().collect();
                if word(9).len() == 1 {
                    set.insert(b"");
                }
                let prefix = word(8);
                assert_eq!(overlapping(&set, &prefix), set.iter().find(|other| overlap(other, &prefix)), "{set:?}");
            }
        }
        assert!(found.iter().all(|times| *times > 1000), "{found:?}");
    }
}

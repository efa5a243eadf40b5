//! HOTKEYS: the keys that are used most.
//!
//! Redis 8.6 and Valkey 9.2 share the name. Redis counts in a session (START, STOP), Valkey in windows while
//! `hotkeys-top-k` is set. GET tells of the session if one was started and not reset, else of the last window.

use std::sync::Arc;
use std::time::Instant;

use crate::base::config::CompatibilityMode;
use crate::base::slot::SLOTS;
use crate::core::hotkeys::{Counted, SessionReport, SlotSet, Wish};
use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, args, flags, help};
use crate::observe::process;
use crate::resp::{Elements, Reply};

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&HOTKEYS];

static HOTKEYS: Command = Command {
    name: "HOTKEYS",
    arity: Arity::AtLeast(2),
    flags: Flags(0),
    handler: Handler::Container(&[&GET, &HELP, &RESET, &START, &STOP]),
    complexity: "Depends on subcommand.",
    summary: "The keys that are used most.",
    ..SUBCOMMAND
};

/// What most of them share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::ADMIN.or(flags::NOSCRIPT),
    complexity: "O(1)",
    since: "8.6.0",
    group: "server",
    ..Command::DEFAULT
};

static START: Command = Command {
    name: "START",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(start),
    syntax: "[METRICS count [CPU] [NET]] [COUNT k] [DURATION seconds] [SAMPLE ratio] [SLOTS count slot [slot ...]]",
    summary: "Begins to count which keys take the most time and bytes.",
    ..SUBCOMMAND
};

fn start(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let server = call.server;
    server.hotkeys.tick(call.now, Instant::now(), &server.hooks);
    if server.hotkeys.session(call.now).is_some_and(|session| session.is_active) {
        return Err(ACTIVE);
    }
    let wish = wish(call.args.from(2).collect::<Vec<_>>().as_slice(), server.cluster.is_some())?;
    let (whole, _) = process::cpu_times();
    match server.hotkeys.start(wish, call.now, (whole.user_us, whole.system_us), &server.hooks) {
        true => Ok(reply.ok()),
        false => Err(ACTIVE),
    }
}

const ACTIVE: CommandError = CommandError::Text("ERR hotkey tracking session already in progress");

/// A number of an option, from 1 to `most`.
fn number(word: &[u8], most: i64, mistake: &'static str) -> Result<i64, CommandError> {
    let number = args::integer(word).ok().filter(|number| (1..=most).contains(number));
    number.ok_or(CommandError::Text(mistake))
}

/// What the words behind START ask for, in cluster mode or not.
fn wish(words: &[&[u8]], in_cluster: bool) -> Result<Wish, CommandError> {
    let Some((count, mut rest)) =
        words.split_first().filter(|(word, _)| args::is(word, "METRICS")).and_then(|(_, rest)| {
            let (count, rest) = rest.split_first()?;
            Some((*count, rest))
        })
    else {
        return Err(CommandError::Text("ERR METRICS parameter is required"));
    };
    let metrics = number(count, 2, "ERR METRICS count must be > 0 and <= 2")? as usize;
    if rest.len() < metrics {
        return Err(CommandError::Text("ERR METRICS count does not match number of metric types provided"));
    }
    let mut wish = Wish { cpu: false, net: false, count: 10, duration_ms: 0, sample_ratio: 1, slots: None };
    for word in &rest[..metrics] {
        if args::is(word, "CPU") && std::mem::replace(&mut wish.cpu, true) {
            return Err(CommandError::Text("ERR METRICS CPU defined more than once!"));
        }
        if args::is(word, "NET") && std::mem::replace(&mut wish.net, true) {
            return Err(CommandError::Text("ERR METRICS NET defined more than once!"));
        }
    }
    if !wish.cpu && !wish.net {
        return Err(CommandError::Text("ERR METRICS no valid metrics passed. Supported: CPU|NET"));
    }
    rest = &rest[metrics..];
    while let [option, value, more @ ..] = rest {
        match () {
            () if args::is(option, "COUNT") => {
                wish.count = number(value, 64, "ERR COUNT must be between 1 and 64")? as usize;
            }
            () if args::is(option, "DURATION") => {
                let seconds = number(value, 1_000_000, "ERR DURATION must be between 1 and 1000000")?;
                wish.duration_ms = seconds as u64 * 1000;
            }
            () if args::is(option, "SAMPLE") => {
                wish.sample_ratio = number(value, i32::MAX.into(), "ERR SAMPLE ratio must be positive")? as u64;
            }
            () if args::is(option, "SLOTS") => {
                let mistake = match wish.slots {
                    _ if !in_cluster => Some("ERR SLOTS parameter cannot be used in non-cluster mode"),
                    Some(_) => Some("ERR SLOTS parameter already specified"),
                    None => None,
                };
                if let Some(mistake) = mistake {
                    return Err(CommandError::Text(mistake));
                }
                let (slots, behind) = slots(value, more)?;
                wish.slots = Some(Arc::new(slots));
                rest = behind;
                continue;
            }
            () => return Err(CommandError::Syntax),
        }
        rest = more;
    }
    if rest.is_empty() { Ok(wish) } else { Err(CommandError::Syntax) }
}

/// Reads so many numbers of slots. Returns them, and the words behind them.
fn slots<'w>(count: &[u8], words: &'w [&'w [u8]]) -> Result<(SlotSet, &'w [&'w [u8]]), CommandError> {
    let count = number(count, SLOTS as i64, "ERR SLOTS count must be between 1 and 16384")? as usize;
    let Some((numbers, behind)) = words.split_at_checked(count) else {
        return Err(CommandError::Text("ERR not enough slot numbers provided"));
    };
    let mut slots = SlotSet::default();
    for word in numbers {
        let slot = args::integer(word).ok().and_then(|slot| u16::try_from(slot).ok());
        let slot = slot.filter(|slot| usize::from(*slot) < SLOTS);
        if !slots.insert(slot.ok_or(CommandError::Text("ERR Invalid or out of range slot"))?) {
            return Err(CommandError::Text("ERR duplicate slot number"));
        }
    }
    Ok((slots, behind))
}

static STOP: Command = Command {
    name: "STOP",
    handler: Handler::Session(|call, reply| match call.server.hotkeys.stop(call.now, &call.server.hooks) {
        true => Ok(reply.ok()),
        false => Ok(reply.null()),
    }),
    summary: "Ends the counting. GET still tells what was counted.",
    ..SUBCOMMAND
};

static GET: Command = Command {
    name: "GET",
    handler: Handler::Session(get),
    complexity: "O(K) where K is the number of hotkeys returned.",
    summary: "The keys that were used most, by time and by bytes, or by accesses in the last window.",
    ..SUBCOMMAND
};

fn get(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let server = call.server;
    server.hotkeys.tick(call.now, Instant::now(), &server.hooks);
    if let Some(session) = server.hotkeys.session(call.now) {
        let mut whole = reply.array(1);
        tell(&mut whole, &session);
        return Ok(whole.done());
    }
    let Some(window) = server.hotkeys.window() else {
        return Ok(match server.config.settings().compatibility_mode {
            CompatibilityMode::Redis => reply.null(),
            CompatibilityMode::Valkey => reply.array(0).done(),
        });
    };
    let mut all = reply.array(window.keys.len());
    for counted in &window.keys {
        let mut three = all.map(3);
        three.bulk(b"key");
        three.bulk(&counted.key);
        three.bulk(b"db");
        three.int(counted.db.into());
        three.bulk(b"qps");
        three.int(window.per_second(counted) as i64);
        three.end();
    }
    Ok(all.done())
}

/// Writes what Redis tells of a session.
fn tell(whole: &mut Elements<'_>, session: &SessionReport) {
    let (cpu, net) = (session.wish.cpu, session.wish.net);
    let (selects, samples) = (session.wish.slots.is_some(), session.wish.sample_ratio > 1);
    let of_slots = if selects && samples {
        4
    } else if selects {
        2
    } else {
        0
    };
    let mut map = whole.map(7 + of_slots + if cpu { 3 } else { 0 } + if net { 2 } else { 0 });
    let mut pair = |name: &str, figure: u64| {
        map.bulk(name.as_bytes());
        map.int(figure as i64);
    };
    pair("tracking-active", session.is_active.into());
    pair("sample-ratio", session.wish.sample_ratio);
    map.bulk(b"selected-slots");
    let selected = match &session.wish.slots {
        None => vec![(0, SLOTS as u16 - 1)],
        Some(slots) => slots.ranges(),
    };
    let mut ranges = map.array(selected.len());
    for (first, last) in selected {
        // One slot stands alone.
        let mut range = ranges.array(if first == last { 1 } else { 2 });
        range.int(first.into());
        if first != last {
            range.int(last.into());
        }
        range.end();
    }
    ranges.end();
    let mut pair = |name: &str, figure: u64| {
        map.bulk(name.as_bytes());
        map.int(figure as i64);
    };
    if selects && samples {
        pair("sampled-commands-selected-slots-us", session.sampled.time_us());
    }
    if selects {
        pair("all-commands-selected-slots-us", session.selected.time_us());
    }
    pair("all-commands-all-slots-us", session.all.time_us());
    if selects && samples {
        pair("net-bytes-sampled-commands-selected-slots", session.sampled.net_bytes);
    }
    if selects {
        pair("net-bytes-all-commands-selected-slots", session.selected.net_bytes);
    }
    pair("net-bytes-all-commands-all-slots", session.all.net_bytes);
    pair("collection-start-time-unix-ms", session.started_ms as u64);
    pair("collection-duration-ms", session.duration_ms);
    if cpu {
        let (now, _) = process::cpu_times();
        let (user_us, system_us) = session.started_cpu_us;
        pair("total-cpu-time-user-ms", now.user_us.saturating_sub(user_us) / 1000);
        pair("total-cpu-time-sys-ms", now.system_us.saturating_sub(system_us) / 1000);
    }
    if net {
        pair("total-net-bytes", session.net_bytes_of_keys);
    }
    let mut list = |name: &str, keys: &[Counted]| {
        map.bulk(name.as_bytes());
        let mut flat = map.array(2 * keys.len());
        for counted in keys {
            flat.bulk(&counted.key);
            flat.int(counted.count as i64);
        }
        flat.end();
    };
    if cpu {
        list("by-cpu-time-us", &session.by_time_us);
    }
    if net {
        list("by-net-bytes", &session.by_net_bytes);
    }
    map.end();
}

static RESET: Command = Command {
    name: "RESET",
    handler: Handler::Session(|call, reply| match call.server.hotkeys.reset(call.now, &call.server.hooks) {
        true => Ok(reply.ok()),
        false => Err(CommandError::Text("ERR hotkey tracking session in progress, stop tracking first")),
    }),
    summary: "Forgets what was counted.",
    ..SUBCOMMAND
};

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(|_, reply| help(reply, "HOTKEYS", HELP_LINES)),
    since: "8.6.1",
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

const HELP_LINES: &[&str] = &[
    "START METRICS <count> [CPU] [NET] [COUNT <k>] [DURATION <seconds>] [SAMPLE <ratio>]",
    "      [SLOTS <count> <slot> ...]",
    "    Begin to count which keys take the most time (CPU) and bytes (NET).",
    "    * COUNT: how many keys to show (default: 10).",
    "    * DURATION: stop by itself after so many seconds.",
    "    * SAMPLE: look at one of <ratio> commands (default: 1).",
    "    * SLOTS: count keys of these slots alone, in cluster mode.",
    "STOP",
    "    Stop counting. GET still shows what was counted.",
    "GET",
    "    Return what the session has counted. Without a session, return the keys of the last",
    "    completed window and how often a second they were used, if hotkeys-top-k is set.",
    "RESET",
    "    Forget what was counted. The session must have been stopped.",
];

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::testing::Runner;
    use crate::core::Hook;

    #[test]
    fn a_session_counts_time_and_bytes_of_keys() {
        let mut t = Runner::new();
        assert_eq!(t.run("HOTKEYS GET"), "$-1 ");
        assert_eq!(t.run("HOTKEYS STOP"), "$-1 ");
        assert_eq!(t.run("HOTKEYS START METRICS 2 CPU NET COUNT 2"), "+OK ");
        assert!(t.server.hooks.load().has(Hook::Hotkeys));
        assert_eq!(t.run("HOTKEYS START METRICS 1 CPU"), "-ERR hotkey tracking session already in progress ");
        assert_eq!(t.run("HOTKEYS RESET"), "-ERR hotkey tracking session in progress, stop tracking first ");
        (0..50).for_each(|_| drop(t.run("SET hot aaaaaaaaaa")));
        (0..9).for_each(|_| drop(t.run("GET hot")));
        t.run("MULTI");
        t.run("INCR warm");
        t.run("EXEC");
        t.run("MGET cold hot");
        assert_eq!(t.run("HOTKEYS STOP"), "+OK ");
        t.run("SET hot after");
        assert!(!t.server.hooks.load().has(Hook::Hotkeys));
        let got = t.run("HOTKEYS GET");
        assert!(
            got.starts_with("*1 *24 $15 tracking-active :0 $12 sample-ratio :1 $14 selected-slots *1 *2 :0 :16383 ")
        );
        // SET: 39 + 5, GET: 22 + 17, MGET: 33 + 26, INCR: 24 + 4.
        let hot = 50 * 44 + 9 * 39 + 59 / 2;
        assert!(got.ends_with(&format!(" $12 by-net-bytes *4 $3 hot :{hot} $4 cold :29 ")), "{got}");
        let total = 50 * 44 + 9 * 39 + 59 + 28;
        assert!(got.contains(&format!(" $32 net-bytes-all-commands-all-slots :{total} ")), "{got}");
        assert!(got.contains(" $14 by-cpu-time-us *4 $3 hot :"), "{got}");
        t.run("HELLO 3");
        assert!(t.run("HOTKEYS GET").starts_with("*1 %12 "));
        assert_eq!(t.run("HOTKEYS RESET"), "+OK ");
        assert_eq!(t.run("HOTKEYS GET"), "_ ");
    }

    #[test]
    fn windows_count_accesses_while_they_are_configured() {
        let mut t = Runner::new();
        t.run("CONFIG SET hotkeys-top-k 2 hotkeys-sampling-percentage 100 hotkeys-window-seconds 10");
        assert!(t.server.hooks.load().has(Hook::Hotkeys));
        assert_eq!(t.run("HOTKEYS GET"), "*0 ");
        (0..200).for_each(|_| drop(t.run("GET missing")));
        t.run("SELECT 3");
        (0..100).for_each(|_| drop(t.run("SET k v")));
        let later = Instant::now() + Duration::from_secs(11);
        t.server.hotkeys.tick(0, later, &t.server.hooks);
        let got = t.run("HOTKEYS GET");
        assert!(got.starts_with("*2 *6 $3 key $7 missing $2 db :0 $3 qps :"), "{got}");
        assert!(got.contains(" *6 $3 key $1 k $2 db :3 $3 qps :"), "{got}");
        assert!(t.run("INFO hotkeys").contains("hotkeys_last_window_samples:300"));
        assert_eq!(t.run("HOTKEYS RESET"), "+OK ");
        assert_eq!(t.run("HOTKEYS GET"), "*0 ");
        (0..9).for_each(|_| drop(t.run("GET k")));
        t.server.hotkeys.tick(0, later + Duration::from_secs(60), &t.server.hooks);
        assert_eq!(t.run("HOTKEYS GET"), "*0 ", "the window was too long to tell anything");
        t.run("CONFIG SET hotkeys-top-k 0");
        assert!(!t.server.hooks.load().has(Hook::Hotkeys));
        assert_eq!(t.run("HOTKEYS GET"), "$-1 ");
    }

    #[test]
    fn a_session_ends_by_itself() {
        let mut t = Runner::new();
        assert_eq!(t.run("HOTKEYS START METRICS 1 NET DURATION 5"), "+OK ");
        let begun = t.server.hotkeys.session(0).expect("a session").started_ms;
        t.server.hotkeys.tick(begun + 4_999, Instant::now(), &t.server.hooks);
        assert!(t.server.hooks.load().has(Hook::Hotkeys));
        t.server.hotkeys.tick(begun + 60_000, Instant::now(), &t.server.hooks);
        assert!(!t.server.hooks.load().has(Hook::Hotkeys));
        assert!(t.run("HOTKEYS GET").contains(" $22 collection-duration-ms :5000 "));
    }

    #[test]
    fn mistakes_have_the_texts_of_redis() {
        let mut t = Runner::new();
        for (words, expected) in [
            ("", "METRICS parameter is required"),
            ("METRICS", "METRICS parameter is required"),
            ("COUNT 2", "METRICS parameter is required"),
            ("METRICS 0 CPU", "METRICS count must be > 0 and <= 2"),
            ("METRICS 3 CPU NET CPU", "METRICS count must be > 0 and <= 2"),
            ("METRICS x CPU", "METRICS count must be > 0 and <= 2"),
            ("METRICS 2 CPU", "METRICS count does not match number of metric types provided"),
            ("METRICS 2 CPU CPU", "METRICS CPU defined more than once!"),
            ("METRICS 2 net NET", "METRICS NET defined more than once!"),
            ("METRICS 1 DISK", "METRICS no valid metrics passed. Supported: CPU|NET"),
            ("METRICS 1 CPU COUNT 65", "COUNT must be between 1 and 64"),
            ("METRICS 1 CPU DURATION 0", "DURATION must be between 1 and 1000000"),
            ("METRICS 1 CPU SAMPLE 0", "SAMPLE ratio must be positive"),
            ("METRICS 1 CPU SLOTS 1 1", "SLOTS parameter cannot be used in non-cluster mode"),
            ("METRICS 1 CPU COUNT", "syntax error"),
            ("METRICS 1 CPU NET 5", "syntax error"),
        ] {
            assert_eq!(t.run(&format!("HOTKEYS START {words}")), format!("-ERR {expected} "), "{words}");
        }
        assert_eq!(t.run("HOTKEYS GET x"), "-ERR wrong number of arguments for 'hotkeys|get' command ");
    }
}

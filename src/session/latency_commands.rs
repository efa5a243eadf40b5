//! LATENCY: the events that took long, and how long commands take.

use crate::core::stats::Latencies;
use crate::core::table::CommandEntry;
use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, flags, help};
use crate::observe::latency::{graph, report};
use crate::resp::Reply;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&LATENCY];

static LATENCY: Command = Command {
    name: "LATENCY",
    arity: Arity::AtLeast(2),
    flags: Flags(0),
    handler: Handler::Container(&[&DOCTOR, &GRAPH, &HELP, &HISTOGRAM, &HISTORY, &LATEST, &RESET]),
    complexity: "Depends on subcommand.",
    tips: "",
    summary: "What takes long.",
    ..SUBCOMMAND
};

/// What most of them share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::ADMIN.or(flags::NOSCRIPT).or(flags::LOADING).or(flags::STALE),
    complexity: "O(1)",
    tips: "nondeterministic_output request_policy:all_nodes response_policy:special",
    since: "2.8.13",
    group: "server",
    ..Command::DEFAULT
};

static DOCTOR: Command = Command {
    name: "DOCTOR",
    handler: Handler::Session(|call, reply| {
        let events = call.server.latency.all();
        let text = report(&events, &call.server.config.settings(), call.now / 1000);
        Ok(reply.verbatim("txt", text.as_bytes()))
    }),
    summary: "Reports on the events that took long.",
    ..SUBCOMMAND
};

static GRAPH: Command = Command {
    name: "GRAPH",
    arity: Arity::Exactly(3),
    handler: Handler::Session(draw),
    syntax: "event",
    summary: "Draws the samples of an event.",
    ..SUBCOMMAND
};

fn draw(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let name = call.args.at(2);
    let Some((event, series)) = call.server.latency.named(name) else {
        return Err(CommandError::echo("No samples available for event '", name, "'"));
    };
    Ok(reply.verbatim("txt", graph(event, &series, call.now / 1000).as_bytes()))
}

static HISTORY: Command = Command {
    name: "HISTORY",
    arity: Arity::Exactly(3),
    handler: Handler::Session(history),
    syntax: "event",
    summary: "Gives the samples of an event: when, and how many milliseconds.",
    ..SUBCOMMAND
};

fn history(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let series = call.server.latency.named(call.args.at(2)).map(|(_, series)| series).unwrap_or_default();
    let mut all = reply.array(series.samples.len());
    for sample in &series.samples {
        let mut pair = all.array(2);
        pair.int(sample.at);
        pair.int(sample.took_ms as i64);
        pair.end();
    }
    Ok(all.done())
}

static LATEST: Command = Command {
    name: "LATEST",
    handler: Handler::Session(latest),
    summary: "Gives the last sample of each event, and the longest.",
    ..SUBCOMMAND
};

fn latest(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let events = call.server.latency.all();
    let mut all = reply.array(events.len());
    for (event, series) in &events {
        let last = series.samples.back().expect("an event has a sample");
        let mut four = all.array(4);
        four.bulk(event.name().as_bytes());
        four.int(last.at);
        four.int(last.took_ms as i64);
        four.int(series.longest_ms as i64);
        four.end();
    }
    Ok(all.done())
}

static RESET: Command = Command {
    name: "RESET",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(|call, reply| Ok(reply.int(call.server.latency.forget(call.args.from(2)) as i64))),
    tips: "request_policy:all_nodes response_policy:agg_sum",
    syntax: "[event [event ...]]",
    summary: "Forgets these events, or all of them.",
    ..SUBCOMMAND
};

static HISTOGRAM: Command = Command {
    name: "HISTOGRAM",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(histogram),
    complexity: "O(N) where N is the number of commands with latency information being retrieved.",
    since: "7.0.0",
    syntax: "[command [command ...]]",
    summary: "Gives how many calls of each command took at most how long.",
    ..SUBCOMMAND
};

fn histogram(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let server = call.server;
    let with_subcommands = |entry| std::iter::once(entry).chain(CommandEntry::subcommands(entry));
    let meant: Vec<&CommandEntry> = match call.args.len() {
        2 => server.table.entries().iter().flat_map(with_subcommands).collect(),
        _ => call.args.from(2).filter_map(|name| server.table.by_full_name(name)).flat_map(with_subcommands).collect(),
    };
    let counted = meant.into_iter().filter_map(|entry| {
        let of_workers = server.workers.iter().map(|worker| &worker.latencies[entry.index]);
        Latencies::cumulated(of_workers).map(|counts| (entry, counts))
    });
    let counted: Vec<_> = counted.collect();
    let mut all = reply.map(counted.len());
    for (entry, (calls, bounds)) in counted {
        all.bulk(entry.full_name.as_bytes());
        let mut one = all.map(2);
        one.bulk(b"calls");
        one.int(calls as i64);
        one.bulk(b"histogram_usec");
        let mut histogram = one.map(bounds.len());
        for (us, count) in bounds {
            histogram.int(us as i64);
            histogram.int(count as i64);
        }
        histogram.end();
        one.end();
    }
    Ok(all.done())
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(|_, reply| help(reply, "LATENCY", HELP_LINES)),
    tips: "",
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

const HELP_LINES: &[&str] = &[
    "DOCTOR",
    "    Return a human readable latency analysis report.",
    "GRAPH <event>",
    "    Return an ASCII latency graph for the <event> class.",
    "HISTORY <event>",
    "    Return time-latency samples for the <event> class.",
    "LATEST",
    "    Return the latest latency samples for all events.",
    "RESET [<event> ...]",
    "    Reset latency data of one or more <event> classes.",
    "    (default: reset all data for all event classes)",
    "HISTOGRAM [COMMAND ...]",
    "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
    "    If no commands are specified then all histograms are replied.",
];

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;
    use crate::base::latency::Event;

    #[test]
    fn commands_above_the_threshold_are_events() {
        let mut t = Runner::with_config("latency-monitor-threshold 1\nenable-debug-command yes\n");
        assert_eq!(t.run("LATENCY LATEST"), "*0 ");
        assert_eq!(t.run("LATENCY HISTORY command"), "*0 ");
        assert_eq!(t.run("LATENCY GRAPH command"), "-ERR No samples available for event 'command' ");
        t.run("DEBUG SLEEP 0.002");
        let latest = t.run("LATENCY LATEST");
        assert!(latest.starts_with("*1 *4 $7 command :"), "{latest}");
        assert!(t.run("LATENCY HISTORY command").starts_with("*1 *2 :"));
        assert!(t.run("LATENCY GRAPH command").contains("command - high "));
        assert!(t.run("LATENCY DOCTOR").contains("1. command: 1 latency spikes (average "));
        assert_eq!(t.run("LATENCY RESET nope"), ":0 ");
        assert_eq!(t.run("LATENCY RESET Command command"), ":1 ");
        t.run("CONFIG SET latency-monitor-threshold 0");
        t.run("DEBUG SLEEP 0.002");
        assert_eq!(t.run("LATENCY LATEST"), "*0 ");
        assert!(t.run("LATENCY DOCTOR").contains("Latency monitoring is disabled"));
    }

    #[test]
    fn events_of_the_server_are_shown_by_name() {
        let mut t = Runner::with_config("latency-monitor-threshold 1\n");
        for event in [Event::ExpireCycle, Event::AofFsyncAlways] {
            t.server.latency.note(event, 7_000_000);
        }
        let latest = t.run("LATENCY LATEST");
        assert!(latest.starts_with("*2 *4 $16 aof-fsync-always :") && latest.contains(" *4 $12 expire-cycle :"));
        assert_eq!(t.run("LATENCY RESET"), ":2 ");
    }

    #[test]
    fn histograms_count_calls_by_command_and_subcommand() {
        let mut t = Runner::new();
        assert_eq!(t.run("LATENCY HISTOGRAM"), "*0 ");
        (0..3).for_each(|_| drop(t.run("SET k v")));
        t.run("CONFIG GET port");
        let set = t.run("LATENCY HISTOGRAM set");
        assert!(set.starts_with("*2 $3 set *4 $5 calls :3 $14 histogram_usec *"), "{set}");
        assert!(set.trim_end().ends_with(" :3"), "the last bound holds all: {set}");
        assert!(t.run("LATENCY HISTOGRAM config").starts_with("*2 $10 config|get *4 $5 calls :1 "));
        assert!(t.run("LATENCY HISTOGRAM nope CONFIG|GET").starts_with("*2 $10 config|get *4 "));
        assert_eq!(t.run("LATENCY HISTOGRAM get"), "*0 ");
        t.run("CONFIG SET latency-tracking no");
        t.run("CONFIG RESETSTAT");
        t.run("SET k v");
        assert_eq!(t.run("LATENCY HISTOGRAM set"), "*0 ");
        t.run("HELLO 3");
        assert_eq!(t.run("LATENCY HISTOGRAM"), "%0 ");
    }
}

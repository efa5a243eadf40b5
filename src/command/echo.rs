//! Commands that answer without any key: ECHO, PING, TIME.

use crate::base::clock;
use crate::core::{Arity, Call, Command, CommandError, Handler, Outcome, categories, flags};
use crate::resp::Reply;

/// The commands of this file.
pub static COMMANDS: &[&Command] = &[&ECHO, &PING, &TIME];

static ECHO: Command = Command {
    name: "ECHO",
    arity: Arity::Exactly(2),
    flags: flags::LOADING.or(flags::STALE).or(flags::FAST),
    categories: categories::CONNECTION,
    handler: Handler::Data(echo),
    group: "connection",
    syntax: "message",
    summary: "Sends back what it is given.",
    ..Command::DEFAULT
};

fn echo(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.bulk(call.args.at(1)))
}

static PING: Command = Command {
    name: "PING",
    arity: Arity::AtLeast(1),
    flags: flags::FAST.or(flags::REPORTS_DISK_ERRORS).or(flags::LISTENING),
    categories: categories::CONNECTION,
    handler: Handler::Data(ping),
    group: "connection",
    tips: "request_policy:all_shards response_policy:all_succeeded",
    syntax: "[message]",
    summary: "Answers PONG, or with the message given.",
    ..Command::DEFAULT
};

fn ping(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    match call.args.len() {
        1 | 2 if call.db.only_listens() => {
            // The form of a message.
            let mut pair = reply.array(2);
            pair.bulk(b"pong");
            pair.bulk(call.args.get(1).unwrap_or_default());
            Ok(pair.done())
        }
        1 => Ok(reply.simple("PONG")),
        2 => Ok(reply.bulk(call.args.at(1))),
        _ => Err(CommandError::Arity(call.name().to_owned())),
    }
}

static TIME: Command = Command {
    name: "TIME",
    flags: flags::LOADING.or(flags::STALE).or(flags::FAST),
    handler: Handler::Data(time),
    since: "2.6.0",
    group: "server",
    tips: "nondeterministic_output",
    summary: "Gives the server's time: Unix seconds, and the microseconds of the current one.",
    ..Command::DEFAULT
};

/// The only handler that reads the clock, because the clock is its answer. The milliseconds in the call are too
/// coarse for clients that order events by it.
fn time(_call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let now_us = clock::now_us();
    let mut parts = reply.array(2);
    parts.bulk(itoa::Buffer::new().format(now_us / 1_000_000).as_bytes());
    parts.bulk(itoa::Buffer::new().format(now_us % 1_000_000).as_bytes());
    Ok(parts.done())
}

#[cfg(test)]
mod tests {
    use crate::exec::testing::Runner;

    #[test]
    fn the_message_comes_back_as_it_was() {
        let mut t = Runner::new();
        assert_eq!(t.run("PING"), "+PONG ");
        assert_eq!(t.run("PING 'a b'"), "$3 a b ");
        assert_eq!(t.run("PING a b"), "-ERR wrong number of arguments for 'ping' command ");
        assert_eq!(t.run("ECHO ''"), "$0  ");
        assert_eq!(t.run("ECHO"), "-ERR wrong number of arguments for 'echo' command ");
    }

    #[test]
    fn time_is_seconds_and_microseconds() {
        let reply = Runner::new().run("TIME");
        let parts: Vec<&str> = reply.split(' ').collect();
        let [array, _, seconds, _, microseconds, ""] = parts[..] else { panic!("{reply}") };
        let number = |text: &str| text.parse::<i64>().expect("digits");
        assert_eq!(array, "*2");
        assert!((0..1_000_000).contains(&number(microseconds)));
        assert!(number(seconds) > 1_700_000_000);
    }
}

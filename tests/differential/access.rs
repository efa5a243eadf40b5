//! Random rules and random commands: every user may do exactly what the reference lets it do.
//!
//! A user is given rules step by step. After each step `ACL DRYRUN` gives the same verdict about random commands. In
//! the end a connection of that user executes some. How users are shown has changed since Redis 7.0: `cases/acl.txt`.

use crate::compare::{Clients, Pair, Protocol};
use crate::support::client::{Client, show};
use crate::support::generator::Generator;
use crate::support::random::Random;
use crate::support::reply;

const USERS: usize = 40;
const STEPS: usize = 6;
const COMMANDS: usize = 25;

/// What users begin with.
const BEGINNINGS: [&str; 5] = ["+@all ~* &*", "+@all ~k* &a", "~* &*", "+@read +@write ~*", "+@all %R~* %W~a*"];
/// Rules of keys, channels and everything. Those of commands are made from the names that the reference has.
const RULES: [&str; 22] = [
    "~*",
    "~a*",
    "~k1",
    "~b",
    "%R~*",
    "%W~a*",
    "%RW~k*",
    "%R~k?",
    "%W~*",
    "allkeys",
    "resetkeys",
    "&*",
    "&news.*",
    "&a",
    "allchannels",
    "resetchannels",
    "+@all",
    "-@all",
    "allcommands",
    "nocommands",
    "sanitize-payload",
    "off",
];
/// Rules that are refused, with the same words.
const WRONG: [&str; 12] = [
    "+nosuch",
    "-nosuch",
    "+@nosuch",
    "-@nosuch",
    "~",
    "%X~a",
    "%~a",
    "x",
    "+get|nosuch",
    "+config|nosuch",
    "#12",
    "(~a",
];
/// Commands beside those of keys.
const OTHERS: [&str; 22] = [
    "PUBLISH a m",
    "PUBLISH news.1 m",
    "SPUBLISH a m",
    "SUBSCRIBE a news.1",
    "PSUBSCRIBE a",
    "PSUBSCRIBE news.*",
    "PING",
    "CONFIG GET save",
    "CONFIG SET save x",
    "CLIENT LIST",
    "CLIENT ID",
    "ACL WHOAMI",
    "ACL LIST",
    "INFO",
    "DBSIZE",
    "KEYS *",
    "FLUSHALL",
    "EVAL return 2 k1 a",
    "SORT a BY b* GET k*",
    "MULTI",
    "OBJECT ENCODING a",
    "MEMORY USAGE k1",
];

/// Commands that take more words than in Redis 7.0, where these are an error before the user is looked at.
const WIDER: [&[u8]; 5] = [b"MOVE", b"SISMEMBER", b"ZRANK", b"ZREVRANK", b"EXEC"];

/// Whether the reference refuses a command for words that newer versions take.
fn is_wider(reference: &[u8], command: &[Vec<u8>]) -> bool {
    let is_known = command.iter().any(|word| WIDER.contains(&&*word.to_ascii_uppercase()));
    is_known && String::from_utf8_lossy(reference).contains("wrong number of arguments")
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// Names of commands, and categories, that both servers know.
struct Known {
    commands: Vec<String>,
    categories: Vec<String>,
}

impl Known {
    fn of(clients: &mut Clients) -> Known {
        let mut both = |command: [&str; 2]| {
            let names = |client: &mut Client| -> Vec<String> {
                reply::parse(&client.call(&command)).elements().iter().map(|name| name.string()).collect()
            };
            let ours = names(&mut clients.tested);
            names(&mut clients.reference).into_iter().filter(|name| ours.contains(name)).collect()
        };
        Known { commands: both(["COMMAND", "LIST"]), categories: both(["ACL", "CAT"]) }
    }

    fn rule(&self, random: &mut Random) -> String {
        let of = |names: &[String], random: &mut Random| names[random.below(names.len())].clone();
        let sign = *random.pick(&[&"+", &"-"]);
        match random.below(12) {
            0 => random.pick(&WRONG).to_owned(),
            1..4 => format!("{sign}@{}", of(&self.categories, random)),
            4..7 => format!("{sign}{}", of(&self.commands, random)),
            7 => format!("(+{} ~{})", of(&self.commands, random), random.pick(&["a*", "k1", "*"])),
            _ => random.pick(&RULES).to_owned(),
        }
    }
}

/// A verdict without who is refused, which later versions of Redis name, and what, which Redis cuts at a zero byte.
fn essence(reply: &[u8]) -> String {
    let text = reply.escape_ascii().to_string();
    match text.split_once(" has no permissions to ") {
        Some((_, what)) => what.split("\\'").step_by(2).collect(),
        None => text,
    }
}

/// Both replies to a command, if they differ.
fn unlike(clients: &mut Clients, command: &[Vec<u8>]) -> Option<String> {
    let (reference, tested) = (clients.reference.call(command), clients.tested.call(command));
    let text = |reply: &[u8]| reply.escape_ascii().to_string();
    (essence(&reference) != essence(&tested) && !is_wider(&reference, command))
        .then(|| format!("{}\n  reference {}\n  tested    {}", show(command), text(&reference), text(&tested)))
}

#[test]
fn users_may_do_what_they_may_do_in_redis() {
    let pair = Pair::with_threads(2);
    let seed = Random::seed_of_this_run();
    let mut random = Random::new(seed);
    let mut clients = pair.clients(Protocol::Resp2);
    let known = Known::of(&mut clients);
    let (mut differences, mut verdicts, mut allowed) = (Vec::new(), 0, 0);
    for user in 0..USERS {
        let name = format!("user{user}");
        let mut given = Vec::new();
        let mut check = |clients: &mut Clients, line: Vec<Vec<u8>>, given: &[String]| {
            let found = unlike(clients, &line).map(|found| format!("{}: {found}", given.join(" ")));
            differences.extend(found);
        };
        check(
            &mut clients,
            words(&format!("ACL SETUSER {name} on nopass {}", BEGINNINGS[user % BEGINNINGS.len()])),
            &given,
        );
        for _ in 0..STEPS {
            let rule = known.rule(&mut random);
            let command = [b"ACL".to_vec(), b"SETUSER".to_vec(), name.clone().into_bytes(), rule.clone().into_bytes()];
            given.push(rule);
            check(&mut clients, command.to_vec(), &given);
            for _ in 0..COMMANDS {
                let command = match random.one_in(3) {
                    true => words(random.pick(&OTHERS)),
                    false => Generator { random: &mut random }.command(),
                };
                let mut dry = words(&format!("ACL DRYRUN {name}"));
                dry.extend(command);
                verdicts += 1;
                allowed += usize::from(clients.reference.call(&dry) == b"+OK\r\n");
                check(&mut clients, dry, &given);
            }
        }
        // What it may, it does.
        let mut own = pair.clients(Protocol::Resp2);
        check(&mut own, words(&format!("AUTH {name} x")), &given);
        for _ in 0..COMMANDS {
            let command = Generator { random: &mut random }.command();
            let is_refused = |reply: Vec<u8>| reply.starts_with(b"-NOPERM");
            let (reference, tested) = (own.reference.call(&command), own.tested.call(&command));
            let differs = is_refused(reference.clone()) != is_refused(tested.clone());
            if differs && !is_wider(&reference, &command) {
                let text = [&reference, &tested].map(|reply| reply.escape_ascii().to_string()).join(" / ");
                differences.push(format!("{}: {} does {text}", given.join(" "), show(&command)));
            }
        }
    }
    assert!(allowed > verdicts / 20 && allowed < verdicts * 19 / 20, "{allowed} of {verdicts} were allowed");
    let first: Vec<_> = differences.iter().take(10).map(String::as_str).collect();
    assert!(
        differences.is_empty(),
        "IRONKEEP_TEST_SEED={seed}, {} differences\n{}",
        differences.len(),
        first.join("\n")
    );
}

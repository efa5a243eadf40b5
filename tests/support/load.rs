//! What the clients do, and what of it becomes history.
//!
//! An *object* is a few keys that are checked together. Few clients use one object, so that each waits for few others
//! when it is checked; all clients of a life run at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use super::SetOnDrop;
use super::client::{Client, encode};
use super::keys::Call;
use super::linear::{End, Op};
use super::random::Random;
use super::server::Server;
use super::until::KillOnDrop;

/// How many clients use one object.
const CLIENTS_OF_OBJECT: usize = 4;
/// A time that no key reaches while the test runs, in Unix ms.
const FAR_MS: u64 = 33_177_117_420_000;

/// The script that moves a number from one key to another.
const MOVE: &str = "redis.call('INCRBY', KEYS[1], -ARGV[1]) return redis.call('INCRBY', KEYS[2], ARGV[1])";

/// What an object is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One string, with and without an expiry.
    Register,
    /// One number that only grows.
    Counter,
    /// A queue.
    List,
    /// Two strings, written together by MULTI and EXEC, and by MSET.
    Pair,
    /// Two numbers whose sum is always 0: a script and transactions move from one to the other.
    Accounts,
}

/// All kinds, in the order in which objects are made.
pub(crate) const KINDS: [Kind; 5] = [Kind::Register, Kind::Counter, Kind::List, Kind::Pair, Kind::Accounts];

/// A few keys that are checked together.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// The clock of a history: its ticks only grow.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// The next tick.
    pub(crate) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What one client did in one life: the number of the object, and the call.
pub(crate) type History = Vec<(usize, Op<Call, String>)>;

impl Object {
    /// The object with this number.
    pub(crate) fn numbered(number: usize) -> Object {
        let kind = KINDS[number % KINDS.len()];
        Object { kind, name: format!("{kind:?}:{number}").to_lowercase() }
    }

    /// The reads that show all of it.
    pub(crate) fn looks(&self) -> Vec<Call> {
        let name = &self.name;
        match self.kind {
            Kind::Register => vec![Call::of(&format!("GET {name}")), Call::of(&format!("PEXPIRETIME {name}"))],
            Kind::Counter => vec![Call::of(&format!("GET {name}"))],
            Kind::List => vec![Call::of(&format!("LRANGE {name} 0 -1"))],
            Kind::Pair | Kind::Accounts => vec![Call::of(&format!("MGET {name}:a {name}:b"))],
        }
    }

    /// Some call on it. `unique` is a number that no other call of the history has.
    pub(crate) fn some(&self, random: &mut Random, unique: u64) -> Call {
        let name = &self.name;
        let padding = "x".repeat([0, 0, 9, 200, 5000][random.below(5)]);
        let line = match (self.kind, random.below(8)) {
            (Kind::Register, 0 | 1) => format!("SET {name} {unique}{padding}"),
            (Kind::Register, 2) => format!("SET {name} {unique} PXAT {}", FAR_MS + unique),
            (Kind::Register, 3) => format!("GETSET {name} {unique}{padding}"),
            (Kind::Register, 4) => format!("DEL {name}"),
            (Kind::Register, 5) => format!("PEXPIRETIME {name}"),
            (Kind::Register, _) => format!("GET {name}"),
            (Kind::Counter, 0..6) => format!("INCRBY {name} {}", random.below(9) + 1),
            (Kind::Counter, _) => format!("GET {name}"),
            (Kind::List, 0..3) => format!("RPUSH {name} {unique}"),
            (Kind::List, 3..6) => format!("LPOP {name}"),
            (Kind::List, _) => format!("LRANGE {name} 0 -1"),
            (Kind::Pair, 0..3) => {
                let lines = [format!("SET {name}:a {unique}{padding}"), format!("SET {name}:b {unique}{padding}")];
                return Call::transaction(&lines);
            }
            (Kind::Pair, 3) => format!("MSET {name}:a {unique} {name}:b {unique}"),
            (Kind::Accounts, 0 | 1) => {
                let by = random.below(99) + 1;
                let lines = [format!("INCRBY {name}:a -{by}"), format!("INCRBY {name}:b {by}")];
                return Call::transaction(&lines);
            }
            (Kind::Accounts, 2 | 3) => {
                let (from, to) = if random.one_in(2) { ("a", "b") } else { ("b", "a") };
                let arguments = format!("{name}:{from} {name}:{to} {}", random.below(99) + 1);
                let mut command = vec!["EVAL".to_owned(), MOVE.to_owned(), "2".to_owned()];
                command.extend(arguments.split(' ').map(str::to_owned));
                return Call { commands: vec![command], transaction: false };
            }
            (Kind::Pair | Kind::Accounts, 4 | 5) => {
                return Call::transaction(&[format!("MGET {name}:a {name}:b"), format!("GET {name}:b")]);
            }
            (Kind::Pair | Kind::Accounts, _) => format!("MGET {name}:a {name}:b"),
        };
        Call::of(&line)
    }
}

/// The objects of this many clients: each group of clients has its own.
pub(crate) fn objects_for(clients: usize) -> Vec<Object> {
    (0..clients.div_ceil(CLIENTS_OF_OBJECT) * KINDS.len()).map(Object::numbered).collect()
}

/// What happened to each object.
pub(crate) fn by_object(objects: &[Object], histories: Vec<History>) -> Vec<Vec<Op<Call, String>>> {
    let mut parts: Vec<_> = objects.iter().map(|_| Vec::new()).collect();
    for (number, op) in histories.into_iter().flatten() {
        parts[number].push(op);
    }
    parts
}

/// Sends a call and gives the bytes of its reply; of a transaction, those of EXEC.
pub(crate) fn call(client: &mut Client, call: &Call) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let multi = encode(&["MULTI"]);
    if call.transaction {
        bytes.extend_from_slice(&multi);
    }
    for command in &call.commands {
        bytes.extend(encode(command));
    }
    if call.transaction {
        bytes.extend(encode(&["EXEC"]));
    }
    client.send(&bytes)?;
    let replies = if call.transaction { call.commands.len() + 2 } else { 1 };
    let mut last = Vec::new();
    for _ in 0..replies {
        last = client.receive()?;
    }
    Ok(String::from_utf8_lossy(&last).into_owned())
}

/// Calls until the server dies, and notes everything. What it leaves unanswered has [`End::Open`].
fn run(name: usize, mut client: Client, objects: &[(usize, Object)], random: &mut Random, clock: &Clock) -> History {
    let mut history = History::new();
    loop {
        let (number, object) = &objects[random.below(objects.len())];
        let began = clock.tick();
        let what = object.some(random, began);
        let reply = call(&mut client, &what);
        let end = match reply {
            Ok(reply) => End::Answered(clock.tick(), reply),
            Err(_) => End::Open,
        };
        let over = matches!(end, End::Open);
        history.push((*number, Op { client: name, call: what, began, end }));
        if over {
            return history;
        }
    }
}

/// One life, which `end` ends: it kills the server. The clients have stopped when it returns.
pub(crate) fn live(
    server: &mut Server,
    objects: &[Object],
    clients: usize,
    random: &mut Random,
    clock: &Clock,
    end: impl FnOnce(&mut Server),
) -> Vec<History> {
    let stop = AtomicBool::new(false);
    let ends_after = Duration::from_millis(20 + random.below(600) as u64);
    let mut histories = std::thread::scope(|scope| {
        let _stops = SetOnDrop(&stop);
        let running = KillOnDrop(server);
        let server = &mut *running.0;
        let mut handles = Vec::new();
        for name in 0..clients {
            let group = name / CLIENTS_OF_OBJECT;
            let of_group = (group * KINDS.len()..(group + 1) * KINDS.len())
                .map(|number| (number, objects[number].clone()))
                .collect::<Vec<_>>();
            let client = server.client();
            let mut random = Random::new(random.next());
            handles.push(scope.spawn(move || run(name, client, &of_group, &mut random, clock)));
        }
        let mut disturbing = server.client();
        let mut disturbance = Random::new(random.next());
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(disturbance.below(80) as u64));
                // One may be in progress, and the server may be dead: neither matters here.
                if disturbing.try_call(&[*disturbance.pick(&[&"BGSAVE", &"BGREWRITEAOF"])]).is_err() {
                    return;
                }
            }
        });
        sleep(ends_after);
        end(server);
        handles.into_iter().map(|handle| handle.join().expect("a client that does not panic")).collect::<Vec<_>>()
    });
    let died = clock.tick();
    for (_, op) in histories.iter_mut().flatten() {
        if matches!(op.end, End::Open) {
            op.end = End::Died(died);
        }
    }
    histories
}

/// Reads all objects.
pub(crate) fn look(server: &Server, objects: &[Object], clock: &Clock, parts: &mut [Vec<Op<Call, String>>]) {
    let mut client = server.client();
    for (object, part) in objects.iter().zip(parts) {
        for look in object.looks() {
            let began = clock.tick();
            let reply = call(&mut client, &look).unwrap_or_else(|error| panic!("{}: {error}", object.name));
            part.push(Op { client: usize::MAX, call: look, began, end: End::Answered(clock.tick(), reply) });
        }
    }
}

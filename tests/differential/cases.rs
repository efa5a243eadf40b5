//! Reads the case files and runs them on both servers.
//!
//! A case file is a list of groups. A group begins at a line `# title`, with empty databases and new
//! connections; then every line is a command in redis-cli's quoting (`"a"*100` repeats):
//!
//! ```text
//! # GETDEL gives the value and removes the key
//! SET k v
//! GETDEL k
//! @near(1000) PTTL k           the reply may differ a little, and by the time that the group has taken: milliseconds,
//!                                  or seconds where the number is below 100; the marks are listed in `mark`
//! 2> CLIENT SETNAME other      on a second connection
//! !sleep 20                    lets 20 milliseconds pass
//! !until EXISTS k              asks the server under test again until it gives the reply behind `=>`
//! !since 8.2                   an older server than this cannot vouch for the group
//! 2> @later BLPOP k 0          sends a command and waits until it blocks; its reply is looked at by
//! 2<                               this line (marks go here)
//! 2+                               the next push on that connection
//! 2+3                              the next three, whose parts may come in any order
//! @bag(3) UNSUBSCRIBE              replies with three pushes, whose parts may come in any order
//! WAITAOF 0 0 0                the reference has no such command yet:
//!     => "*2\r\n:0\r\n:0\r\n"      so the expected reply stands here (=>3 for another one in RESP3)
//!     =>ours "*2\r\n:1\r\n:0\r\n"  the same (and =>ours3), where we differ from every Redis on purpose
//! ```
//!
//! `record.rs` holds what stands behind `=>` against a newer server, and can write it.

use crate::compare::{Clients, Likeness, Pair, Protocol};
use crate::support::client::{Client, encode, show};
use crate::support::reply::{self, Reply};
use crate::support::server::{Recipe, Server};
use crate::support::words;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// One group of a case file.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) file: &'static str,
    title: String,
    /// The version of Redis that has its commands, where a peer of less is not asked.
    pub(crate) since: Version,
    steps: Vec<Step>,
}

/// The first two numbers of a version.
pub(crate) type Version = (u32, u32);

/// Reads `8.2` or `8.2.1`.
pub(crate) fn version(text: &str) -> Version {
    let mut numbers = text.split('.').map(|number| number.parse().expect("a version is of numbers"));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[derive(Debug)]
enum Step {
    Sleep(Duration),
    Call(Call),
    /// A command that is repeated until its reply is as expected.
    Until(Call),
    /// A command that blocks.
    Later(Call),
    /// The reply of one that blocked.
    Receive(Call),
    /// Pushes.
    Push(Call),
}

impl Step {
    /// The command whose reply is looked at by this step.
    fn answered(&mut self) -> Option<&mut Call> {
        match self {
            Step::Call(call) | Step::Until(call) | Step::Receive(call) | Step::Push(call) => Some(call),
            Step::Sleep(_) | Step::Later(_) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) line_number: usize,
    connection: usize,
    args: Vec<Vec<u8>>,
    answer: Answer,
    pub(crate) expected: Option<Expected>,
}

/// When the commands of a group began, and which connections have sent one that blocks: with how many replies each
/// server had sent them before.
struct Course {
    begun: Instant,
    later: BTreeMap<usize, [usize; 2]>,
}

/// How long a command may take to block.
const PATIENCE: Duration = Duration::from_secs(60);

/// What comes back on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// One reply.
    Reply(Likeness),
    /// Nothing at all (CLIENT REPLY OFF).
    Nothing,
    /// A reply, and then the connection is closed.
    Close,
    /// So many replies, whose parts may come in any order.
    Bag(usize),
}

/// A reply that the reference cannot give.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    resp2: Vec<u8>,
    resp3: Option<Vec<u8>>,
    /// True where no other server replies so.
    pub(crate) is_ours: bool,
}

impl Expected {
    pub(crate) fn bytes(&self, protocol: Protocol) -> &[u8] {
        match (&self.resp3, protocol) {
            (Some(bytes), Protocol::Resp3) => bytes,
            _ => &self.resp2,
        }
    }
}

/// Two unlike replies to one command of a case.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) file: &'static str,
    pub(crate) line_number: usize,
    pub(crate) protocol: Protocol,
    /// What the server under test said, unless the connection broke.
    pub(crate) tested: Option<Vec<u8>>,
    /// A few lines for a failure message.
    pub(crate) text: String,
}

/// The case files of a server without a password.
pub(crate) fn files() -> Vec<Group> {
    let files = [
        ("acl.txt", include_str!("cases/acl.txt")),
        ("bitmap.txt", include_str!("cases/bitmap.txt")),
        ("bulk.txt", include_str!("cases/bulk.txt")),
        ("connection.txt", include_str!("cases/connection.txt")),
        ("counters.txt", include_str!("cases/counters.txt")),
        ("databases.txt", include_str!("cases/databases.txt")),
        ("debug.txt", include_str!("cases/debug.txt")),
        ("dump.txt", include_str!("cases/dump.txt")),
        ("events.txt", include_str!("cases/events.txt")),
        ("expiry.txt", include_str!("cases/expiry.txt")),
        ("memory.txt", include_str!("cases/memory.txt")),
        ("fields.txt", include_str!("cases/fields.txt")),
        ("geo.txt", include_str!("cases/geo.txt")),
        ("hash.txt", include_str!("cases/hash.txt")),
        ("hyperloglog.txt", include_str!("cases/hyperloglog.txt")),
        ("keys.txt", include_str!("cases/keys.txt")),
        ("messages.txt", include_str!("cases/messages.txt")),
        ("lcs.txt", include_str!("cases/lcs.txt")),
        ("lists.txt", include_str!("cases/lists.txt")),
        ("observe.txt", include_str!("cases/observe.txt")),
        ("ranges.txt", include_str!("cases/ranges.txt")),
        ("functions.txt", include_str!("cases/functions.txt")),
        ("scripts.txt", include_str!("cases/scripts.txt")),
        ("server.txt", include_str!("cases/server.txt")),
        ("set.txt", include_str!("cases/set.txt")),
        ("sets.txt", include_str!("cases/sets.txt")),
        ("sort.txt", include_str!("cases/sort.txt")),
        ("streams.txt", include_str!("cases/streams.txt")),
        ("strings.txt", include_str!("cases/strings.txt")),
        ("tracking.txt", include_str!("cases/tracking.txt")),
        ("transactions.txt", include_str!("cases/transactions.txt")),
        ("zset.txt", include_str!("cases/zset.txt")),
    ];
    files.into_iter().flat_map(|(name, text)| read(name, text)).collect()
}

/// The groups of one file.
pub(crate) fn read(file: &'static str, text: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut in_title = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let line_number = index + 1;
        if let Some(title) = line.strip_prefix('#') {
            if !in_title {
                groups.push(Group { file, title: title.trim().to_owned(), since: (0, 0), steps: Vec::new() });
            }
            in_title = true;
            continue;
        }
        in_title = false;
        if line.is_empty() {
            continue;
        }
        let group = groups.last_mut().unwrap_or_else(|| panic!("{file} does not begin with a title"));
        if let Some(milliseconds) = line.strip_prefix("!sleep ") {
            let milliseconds = milliseconds.parse().expect("milliseconds follow !sleep");
            group.steps.push(Step::Sleep(Duration::from_millis(milliseconds)));
        } else if let Some(line) = line.strip_prefix("!until ") {
            group.steps.push(Step::Until(command(line_number, line)));
        } else if let Some(text) = line.strip_prefix("!since ") {
            group.since = version(text);
        } else if let Some(expected) = line.strip_prefix("=>") {
            let call = group.steps.last_mut().and_then(Step::answered);
            let call = call.unwrap_or_else(|| panic!("{file}:{line_number} follows no command"));
            expect(call.expected.get_or_insert_default(), expected);
        } else if let Some((connection, count)) = line.split_once('+').filter(|(number, _)| number.len() == 1) {
            let mark = if count.is_empty() { String::new() } else { format!("@bag({count}) ") };
            group.steps.push(Step::Push(command(line_number, &format!("{connection}> {mark}(a push)"))));
        } else if let Some((connection, mark)) = line.split_once('<').filter(|(number, _)| number.len() == 1) {
            let line = format!("{connection}> {} (its reply)", mark.trim());
            group.steps.push(Step::Receive(command(line_number, &line)));
        } else if let Some((connection, rest)) = line.split_once("> @later ") {
            group.steps.push(Step::Later(command(line_number, &format!("{connection}> {rest}"))));
        } else {
            group.steps.push(Step::Call(command(line_number, line)));
        }
    }
    groups
}

fn expect(expected: &mut Expected, text: &str) {
    let ours = text.strip_prefix("ours");
    expected.is_ours |= ours.is_some();
    let text = ours.unwrap_or(text);
    match text.strip_prefix('3') {
        Some(text) => expected.resp3 = Some(words::split(text).concat()),
        None => expected.resp2 = words::split(text).concat(),
    }
}

fn command(line_number: usize, line: &str) -> Call {
    let (connection, line) = match line.split_once("> ") {
        Some((number, rest)) if number.len() == 1 => (number.parse().expect("the number of a connection"), rest),
        _ => (1, line),
    };
    let (answer, line) = match line.strip_prefix('@') {
        Some(marked) => {
            let (name, rest) = marked.split_once(' ').expect("a command follows the mark");
            (mark(name), rest)
        }
        None => (Answer::Reply(Likeness::Exact), line),
    };
    Call { line_number, connection, args: words::split(line), answer, expected: None }
}

fn mark(name: &str) -> Answer {
    if let Some(tolerance) = name.strip_prefix("near(").and_then(|rest| rest.strip_suffix(')')) {
        return Answer::Reply(Likeness::Near(tolerance.parse().expect("a tolerance")));
    }
    if let Some(count) = name.strip_prefix("bag(").and_then(|rest| rest.strip_suffix(')')) {
        return Answer::Bag(count.parse().expect("a number of replies"));
    }
    match name {
        "sorted" => Answer::Reply(Likeness::Sorted),
        "form" => Answer::Reply(Likeness::Form),
        "rows" => Answer::Reply(Likeness::Rows),
        "error" => Answer::Reply(Likeness::Error),
        "any" => Answer::Reply(Likeness::Any),
        "nothing" => Answer::Nothing,
        "close" => Answer::Close,
        _ => panic!("no such mark: @{name}"),
    }
}

/// Runs groups in one protocol; `batch` commands at most are sent before their replies are read.
/// Gives the differences, each as a few lines of text.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) pair: &'a Pair,
    pub(crate) protocol: Protocol,
    pub(crate) batch: usize,
    /// False on a server that asks for a password first.
    pub(crate) flush: bool,
    /// True when the server under test is another Redis.
    pub(crate) is_peer: bool,
}

impl Run<'_> {
    /// Runs all groups.
    pub(crate) fn all(&self, groups: &[Group]) -> Vec<String> {
        groups.iter().flat_map(|group| self.group(group)).map(|difference| difference.text).collect()
    }

    /// Runs one group.
    pub(crate) fn group(&self, group: &Group) -> Vec<Difference> {
        if self.flush {
            // What waits for a key on a connection of the last group would take what this one pushes.
            [&self.pair.reference, &self.pair.tested].into_iter().for_each(await_alone);
            self.pair.flush();
        }
        let mut connections = BTreeMap::new();
        let mut differences = Vec::new();
        let mut batch: Vec<&Call> = Vec::new();
        let mut course = Course { begun: Instant::now(), later: BTreeMap::new() };
        for step in &group.steps {
            let fits = match step {
                Step::Sleep(_) | Step::Until(_) | Step::Later(_) | Step::Receive(_) | Step::Push(_) => false,
                Step::Call(call) => {
                    batch.len() < self.batch && batch.last().is_none_or(|last| last.connection == call.connection)
                }
            };
            if !fits && !self.batch(group, &std::mem::take(&mut batch), &mut connections, &course, &mut differences) {
                return differences;
            }
            match step {
                Step::Sleep(time) => std::thread::sleep(*time),
                Step::Call(call) => batch.push(call),
                Step::Until(call) => {
                    let clients = connections.entry(call.connection).or_insert_with(|| self.clients());
                    differences.extend(self.until(group, call, clients));
                }
                Step::Later(call) => {
                    let clients = connections.entry(call.connection).or_insert_with(|| self.clients());
                    let before = [clients.reference.arrived(), clients.tested.arrived()];
                    course.later.insert(call.connection, before);
                    let bytes = encode(&call.args);
                    clients.reference.send(&bytes).and_then(|()| clients.tested.send(&bytes)).expect("a connection");
                    self.await_blocked(&course, &mut connections);
                }
                Step::Push(call) => {
                    let clients = connections.get_mut(&call.connection).expect("it has subscribed");
                    if !self.receive(group, call, clients, &course, &mut differences) {
                        return differences;
                    }
                }
                Step::Receive(call) => {
                    course.later.remove(&call.connection);
                    let clients = connections.get_mut(&call.connection).expect("a command was sent there");
                    if !self.receive(group, call, clients, &course, &mut differences) {
                        return differences;
                    }
                }
            }
        }
        self.batch(group, &batch, &mut connections, &course, &mut differences);
        differences
    }

    /// Waits until the connections of both servers block that have sent a command which does, unless its reply is
    /// there; but not for ever: what is wrong shows by the replies.
    fn await_blocked(&self, course: &Course, connections: &mut BTreeMap<usize, Clients>) {
        for (at, server) in [&self.pair.reference, &self.pair.tested].into_iter().enumerate() {
            let (mut client, begun) = (server.client(), Instant::now());
            let mut wait = |(connection, before): (&usize, &[usize; 2])| {
                let Clients { reference, tested } = connections.get_mut(connection).expect("it has sent a command");
                [reference, tested][at].arrived() == before[at]
            };
            while begun.elapsed() < PATIENCE {
                let waiting = course.later.iter().filter(|later| wait(*later)).count();
                if figure(&mut client, "blocked_clients:") >= waiting {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Repeats a command until the reply of the server under test is as expected, but not for ever.
    fn until(&self, group: &Group, call: &Call, clients: &mut Clients) -> Option<Difference> {
        let expected = call.expected.as_ref().expect("what to wait for stands behind it").bytes(self.protocol);
        let begun = Instant::now();
        loop {
            let tested = clients.tested.call(&call.args);
            if self.skips(call) || tested == expected {
                return None;
            }
            if begun.elapsed() > PATIENCE {
                let text = difference(expected, &tested);
                return Some(self.difference(group, call, Some(tested), &text));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// False when the connection broke: the rest of the group makes no sense then.
    fn batch(
        &self,
        group: &Group,
        batch: &[&Call],
        connections: &mut BTreeMap<usize, Clients>,
        course: &Course,
        differences: &mut Vec<Difference>,
    ) -> bool {
        let Some(first) = batch.first() else { return true };
        let clients = connections.entry(first.connection).or_insert_with(|| self.clients());
        let mut to_reference = Vec::new();
        let mut to_tested = Vec::new();
        for call in batch {
            let bytes = encode(&call.args);
            if call.expected.is_none() {
                to_reference.extend_from_slice(&bytes);
            }
            if !self.skips(call) {
                to_tested.extend_from_slice(&bytes);
            }
        }
        let sent = clients.reference.send(&to_reference).and_then(|()| clients.tested.send(&to_tested));
        if let Err(error) = sent {
            differences.push(self.difference(group, first, None, &format!("    {error} while sending\n")));
            return false;
        }
        batch.iter().all(|call| self.receive(group, call, clients, course, differences))
    }

    /// Takes the replies to a command; false when the connection broke.
    fn receive(
        &self,
        group: &Group,
        call: &Call,
        clients: &mut Clients,
        course: &Course,
        differences: &mut Vec<Difference>,
    ) -> bool {
        match self.call(call, clients, course) {
            Ok(None) => true,
            Ok(Some((expected, tested))) => {
                let text = difference(&expected, &tested);
                differences.push(self.difference(group, call, Some(tested), &text));
                true
            }
            Err(error) => {
                differences.push(self.difference(group, call, None, &format!("    {error}\n")));
                false
            }
        }
    }

    /// A stand-in for Ironkeep lacks what the reference lacks, and a peer what is ours alone.
    fn skips(&self, call: &Call) -> bool {
        let Some(expected) = &call.expected else { return false };
        Recipe::is_stand_in() || (self.is_peer && expected.is_ours)
    }

    fn clients(&self) -> Clients {
        // A server with a password refuses HELLO 3: its cases say HELLO themselves.
        match self.flush {
            true => self.pair.clients(self.protocol),
            false => self.pair.clients(Protocol::Resp2),
        }
    }

    /// The reply that was to come and the one that came, if they are not alike.
    fn call(&self, call: &Call, clients: &mut Clients, course: &Course) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        if self.skips(call) {
            return Ok(None);
        }
        let likeness = match call.answer {
            Answer::Nothing => return Ok(None),
            Answer::Close => {
                let reference = clients.reference.receive_until_close()?;
                let tested = clients.tested.receive_until_close()?;
                return Ok((reference != tested).then_some((reference, tested)));
            }
            Answer::Bag(count) => {
                let all = |client: &mut Client| -> io::Result<Vec<Vec<u8>>> {
                    (0..count).map(|_| client.receive()).collect()
                };
                let (reference, tested) = (all(&mut clients.reference)?, all(&mut clients.tested)?);
                return Ok((parts(&reference) != parts(&tested)).then(|| (reference.concat(), tested.concat())));
            }
            Answer::Reply(likeness) => likeness,
        };
        let expected = match &call.expected {
            Some(expected) => expected.bytes(self.protocol).to_vec(),
            None => clients.reference.receive().map_err(|error| io::Error::other(format!("reference: {error}")))?,
        };
        let tested = clients.tested.receive().map_err(|error| io::Error::other(format!("tested: {error}")))?;
        // One server may have been asked, or the time have been told, that much later than the other.
        let likeness = match likeness {
            Likeness::Near(seconds @ ..100) => Likeness::Near(seconds + course.begun.elapsed().as_secs() as i64),
            Likeness::Near(ms) => Likeness::Near(ms + course.begun.elapsed().as_millis() as i64),
            other => other,
        };
        Ok((!likeness.holds(&expected, &tested)).then_some((expected, tested)))
    }

    fn difference(&self, group: &Group, call: &Call, tested: Option<Vec<u8>>, difference: &str) -> Difference {
        let text = format!(
            "{}:{} [{}] ({:?}, {})\n    {}\n{difference}",
            group.file,
            call.line_number,
            group.title,
            self.protocol,
            if self.batch == 1 { "one by one" } else { "pipelined" },
            show(&call.args),
        );
        Difference { file: group.file, line_number: call.line_number, protocol: self.protocol, tested, text }
    }
}

/// Waits until no other connection is left.
fn await_alone(server: &Server) {
    let (mut client, begun) = (server.client(), Instant::now());
    while figure(&mut client, "connected_clients:") > 1 {
        assert!(begun.elapsed() < PATIENCE, "connections stay: {}", client.ok("CLIENT LIST").string());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A figure of INFO clients.
fn figure(client: &mut Client, name: &str) -> usize {
    let info = client.ok("INFO clients").string();
    let figure = info.lines().find_map(|line| line.strip_prefix(name));
    figure.and_then(|number| number.parse().ok()).expect("the field is there")
}

/// The elements of all these replies, sorted.
fn parts(replies: &[Vec<u8>]) -> Vec<Reply> {
    let mut parts: Vec<Reply> = replies.iter().flat_map(|reply| reply::parse(reply).elements().to_vec()).collect();
    parts.sort();
    parts
}

/// Two unlike replies for a failure message.
pub(crate) fn difference(reference: &[u8], tested: &[u8]) -> String {
    let cut = |bytes: &[u8]| match bytes.len() {
        length if length > 600 => format!("{}… ({length} bytes)", bytes[..600].escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    };
    format!("    expected  {}\n    got       {}\n", cut(reference), cut(tested))
}

impl Group {
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The commands whose reply stands in the file.
    pub(crate) fn expecting(&self) -> impl Iterator<Item = &Call> {
        self.steps.iter().filter_map(|step| match step {
            Step::Call(call) | Step::Until(call) | Step::Receive(call) | Step::Push(call) => {
                Some(call).filter(|call| call.expected.is_some())
            }
            Step::Sleep(_) | Step::Later(_) => None,
        })
    }
}

/// Fails the test when there are differences, and shows the first fifty.
pub(crate) fn report(differences: &[String]) {
    let shown: Vec<&str> = differences.iter().take(50).map(String::as_str).collect();
    assert!(differences.is_empty(), "{} replies differ:\n{}", differences.len(), shown.join("\n"));
}

fn run_everywhere(pair: &Pair) {
    let groups = files();
    let mut differences = Vec::new();
    for protocol in Protocol::ALL {
        for batch in [1, usize::MAX] {
            differences.extend(Run { pair, protocol, batch, flush: true, is_peer: false }.all(&groups));
        }
    }
    report(&differences);
}

#[test]
fn one_thread() {
    run_everywhere(&Pair::with_threads(1));
}

#[test]
fn two_threads() {
    run_everywhere(&Pair::with_threads(2));
}

#[test]
fn four_threads() {
    run_everywhere(&Pair::with_threads(4));
}

#[test]
fn unix_socket() {
    run_everywhere(&Pair::start(Recipe::under_test().on_unix_socket()));
}

/// The harness must notice a wrong reply: a pair of servers that differ in one setting.
#[test]
fn a_difference_is_noticed() {
    let pair =
        Pair { reference: Recipe::reference().start(), tested: Recipe::reference().with("databases", "3").start() };
    let groups = read("self-check", "# fewer databases\nSELECT 2\nSELECT 3\nPING\n");
    for batch in [1, usize::MAX] {
        let differences =
            Run { pair: &pair, protocol: Protocol::Resp2, batch, flush: true, is_peer: false }.all(&groups);
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert!(differences[0].contains("SELECT 3"), "{differences:?}");
        assert!(differences[0].contains("-ERR DB index is out of range"), "{differences:?}");
    }
}

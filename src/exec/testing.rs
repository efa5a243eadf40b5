//! A small server inside a test: commands as words, replies as text, and a clock that the test moves.
//!
//! It runs data commands on its own keyspace, keeps the records that they log, and can compare a replay of those
//! records with the keyspace.

use super::*;
use crate::base::config::{NotifyFlags, RdbVersionCheck};
use crate::base::hash::HashSeed;
use crate::base::random::Random;
use crate::command::keys::dump::{Building, payload};
use crate::core::call::HashedKey;
use crate::core::db::Db;
use crate::core::key_events::Event;
use crate::core::unit::Savepoint;
use crate::core::{Call, Handler, Table, Unit, Wants, flags};
use crate::exec::data::{find_keys, hold_alone};
use crate::exec::evict::{Bounds, Choice, EvictDb, Evicted};
use crate::exec::handler::run_handler;
use crate::keyspace::Keyspace;
use crate::keyspace::access::{AccessClock, Lfu};
use crate::keyspace::{Census, SHARDS};
use crate::persist::rdb::decode_dump_into;
use crate::persist::record::{Effect, EncodedVerb, Items};
use crate::persist::verbs::{Code, Verb};
use crate::resp::{Args, Output, Reply, Resp, Span};
use crate::value::codec::{canonical, check_invariants};
use crate::value::directory::Directory;
use crate::value::entry::NewValue;
use crate::value::stream::Window;
use crate::value::{Limits, ValueRef};

#[allow(dead_code)]
#[path = "../../tests/support/generator.rs"]
pub mod generator;
#[allow(dead_code)]
#[path = "../../tests/support/random.rs"]
pub mod random;

/// The log is wanted.
const WANTS: Wants = Wants { records: true, events: NotifyFlags::NONE };
const SEED: HashSeed = HashSeed(*b"a seed for tests");

/// See the module.
pub struct Runner {
    table: Table,
    keyspace: Keyspace,
    unit: Unit,
    scratch: Scratch,
    gate: crate::keyspace::Gate,
    now: i64,
    /// The selected database.
    pub db: u32,
    /// The version of the protocol.
    pub resp: Resp,
    /// Whether reads leave access times alone.
    pub no_touch: bool,
    /// The policy of access fields.
    pub lfu: Option<Lfu>,
    /// Whether the policy is an LRM policy.
    pub lrm: bool,
    /// What a command may add beyond its arguments.
    pub growth_max: u64,
    /// Whether cluster clients are served.
    pub cluster: bool,
    /// `hll-sparse-max-bytes`.
    pub hll_sparse_max_bytes: usize,
    /// The window of streams that have none of their own.
    pub stream_window: Window,
    /// The sizes at which collections change their form.
    pub limits: Limits,
    /// For how long a flush can be undone.
    pub flush_undo_ms: u64,
    /// What is wanted of a unit: records, at first.
    pub wants: Wants,
    /// The events so far.
    pub events: Vec<Event>,
    /// Whether a unit of several commands is open.
    is_open: bool,
    /// All records so far: shard by shard in their order, barriers in between.
    logged: Vec<Logged>,
}

/// A record of the log.
struct Logged {
    db: u32,
    code: Code,
    key: Vec<u8>,
    body: Vec<u8>,
}

impl Logged {
    fn verb(&self) -> Verb<'_> {
        Verb::decode(self.code, &self.body).expect("a verb that was just written")
    }

    /// Its words, with a space between two.
    fn line(&self) -> String {
        let words = self.verb().words(&self.key);
        words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
    }
}

impl Executor {
    /// The room that is kept for the next commands, in bytes.
    pub fn room_bytes(&self) -> usize {
        let keys = self.keys.iter().map(|keys| keys.named.capacity() * size_of::<HashedKey>());
        self.unit.room_bytes() + keys.sum::<usize>()
    }

    /// Whether nothing of the last command is kept for undo.
    pub fn remembers_nothing(&self) -> bool {
        self.unit.remembers_nothing()
    }
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

/// Splits at spaces; `'…'` and `"…"` quote, with the escapes of the command line.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    crate::base::config::words::split(line.as_bytes()).expect("quotes that close")
}

/// Calls `f` with the words as arguments.
pub fn with_args<T>(words: &[Vec<u8>], f: impl FnOnce(Args<'_>) -> T) -> T {
    let mut spans = Vec::new();
    let mut start = 0;
    for word in words {
        spans.push(Span { start, len: word.len() });
        start += word.len();
    }
    f(Args::new(&words.concat(), &spans))
}

impl Runner {
    /// An empty keyspace of 16 databases, at a fixed time.
    pub fn new() -> Self {
        Runner {
            table: Table::new(crate::command::GROUPS),
            keyspace: Keyspace::new(16, SEED),
            unit: Unit::default(),
            scratch: Scratch::default(),
            gate: crate::keyspace::Gate::new(1),
            now: 1_700_000_000_000,
            db: 0,
            resp: Resp::V2,
            no_touch: false,
            lfu: None,
            lrm: false,
            growth_max: u64::MAX,
            cluster: false,
            hll_sparse_max_bytes: 3000,
            stream_window: Window::DEFAULT,
            limits: Limits::defaults(SEED),
            flush_undo_ms: 60_000,
            wants: WANTS,
            events: Vec::new(),
            is_open: false,
            logged: Vec::new(),
        }
    }

    /// Scans a key to the end by HSCAN or a similar command. Returns the words of all replies that begin with `m`,
    /// each once, and how many calls it took.
    pub fn scan_members(&mut self, command: &str, key: &str) -> (usize, usize) {
        let (mut seen, mut cursor, mut calls) = (std::collections::HashSet::new(), "0".to_owned(), 0);
        loop {
            let reply = self.run(&format!("{command} {key} {cursor} COUNT 100"));
            cursor = reply.split(' ').nth(2).expect("a cursor").to_owned();
            seen.extend(reply.split(' ').filter(|word| word.starts_with('m')).map(str::to_owned));
            calls += 1;
            if cursor == "0" {
                return (seen.len(), calls);
            }
        }
    }

    /// Runs lines of the form `command => reply`, the reply with spaces for its line ends.
    pub fn script(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, reply) = line.split_once(" => ").expect("a line has a reply");
            assert_eq!(self.run(command).trim_end(), reply, "{command}");
        }
    }

    /// The time of the clock, Unix ms.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Moves the clock.
    pub fn advance_ms(&mut self, by: i64) {
        self.now += by;
    }

    /// The keyspace, to look into.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Runs one command line and returns the reply, its line ends written as spaces: `+OK `.
    pub fn run(&mut self, line: &str) -> String {
        self.run_words(&words(line))
    }

    /// Runs a command and returns the bytes of its reply, as text with spaces for line ends.
    pub fn run_words(&mut self, words: &[Vec<u8>]) -> String {
        let reply = self.reply_bytes(words);
        String::from_utf8_lossy(&reply).replace("\r\n", " ")
    }

    /// The facts for commands at this moment.
    pub fn facts(&self) -> Facts {
        Facts {
            now: self.now,
            access: AccessClock { seconds: (self.now / 1000) as u64, lfu: self.lfu, lrm: self.lrm },
            string_max_bytes: 512 << 20,
            hll_sparse_max_bytes: self.hll_sparse_max_bytes,
            limits: self.limits,
            stream_window: self.stream_window,
            cluster: self.cluster,
            growth_max: self.growth_max,
            replaying: false,
            no_touch: self.no_touch,
            hides_expired: false,
            only_listens: false,
            flush_undo_ms: self.flush_undo_ms,
            as_valkey: false,
            rdb_versions: RdbVersionCheck::Strict,
        }
    }

    /// Runs the active expiry over all shards.
    pub fn sweep(&mut self, budget: usize) -> bool {
        self.unit.begin(self.wants, false);
        let facts = self.facts();
        let (logged, events) = (&mut self.logged, &mut self.events);
        crate::exec::sweep::sweep(
            &self.keyspace,
            &mut self.unit,
            &mut self.scratch,
            facts,
            0..crate::keyspace::SHARDS as u16,
            budget,
            &mut |unit| {
                keep(unit, logged);
                events.extend(unit.take_events());
            },
        )
    }

    /// Evicts at most this many keys, as the executor does.
    pub fn evict(&mut self, choice: Choice, keys_max: usize) -> Evicted {
        self.evict_within(choice, Bounds { until: None, shards: SHARDS }, keys_max)
    }

    /// The same within bounds.
    pub fn evict_within(&mut self, choice: Choice, bounds: Bounds, keys_max: usize) -> Evicted {
        self.unit.begin(self.wants, false);
        let facts = self.facts();
        let Runner { keyspace, unit, scratch, logged, events, .. } = self;
        let mut world = EvictDb { keyspace, unit, scratch, facts, reclaim: &drop };
        // The choices of a test are always the same; otherwise its assertions would depend on chance.
        let mut evictor = Evictor::new(Random::from_seed(11));
        let mut is_enough = |evicted: &Evicted| evicted.keys >= keys_max;
        evictor.evict(&mut world, choice, bounds, &mut is_enough, &mut |unit| {
            keep(unit, logged);
            events.extend(unit.take_events());
        })
    }

    /// Runs a command and returns the bytes of its reply.
    pub fn reply_bytes(&mut self, words: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Output::new();
        let (resp, db, facts) = (self.resp, self.db, self.facts());
        let Runner { table, keyspace, unit, scratch, gate, logged, is_open, wants, events, .. } = self;
        with_args(words, |args| {
            let entry = match table.resolve(args) {
                Ok(entry) => entry,
                Err(error) => return out.error_bytes(&error.wire()),
            };
            let Handler::Data(handler) = entry.command.handler else { panic!("not a data command: {words:?}") };
            let mut keys = HashedKeys::default();
            find_keys(keyspace, entry, args, &mut keys);
            let closed = gate.close();
            let frozen = entry.command.flags.has(flags::FROZEN).then(|| keyspace.freeze(&closed));
            let undoable = entry.command.keys.only().is_none();
            match is_open {
                true => unit.begin_command(undoable),
                false => unit.begin(*wants, undoable),
            }
            let held = hold_alone(keyspace, entry.command, &keys);
            let no_touch = entry.command.flags.has(flags::NO_TOUCH);
            let facts = Facts { no_touch: no_touch || facts.no_touch, ..facts };
            let db_view = Db::new(held, unit, scratch, db, &facts);
            let (db, user) = (db_view, None);
            let mut call = Call {
                args,
                db,
                entry,
                frozen,
                keys: &keys,
                user,
                may_block: false,
                block: None,
                migration: None,
                fieldsets: None,
            };
            let outcome = run_handler(handler, &mut call, Reply::new(&mut out, resp));
            if !*is_open {
                keep(call.db.unit(), logged);
                events.extend(call.db.unit().take_events());
            }
            if let Err(error) = outcome {
                out = Output::new();
                out.error_bytes(&error.wire());
            }
        });
        let mut slices = [std::io::IoSlice::new(&[]); 16];
        let filled = out.slices(0, &mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    /// Begins a unit of several commands that can be rolled back. Returns the savepoint at its beginning.
    pub fn begin_unit(&mut self) -> Savepoint {
        self.unit.begin_spanning(self.wants, true);
        self.is_open = true;
        self.unit.savepoint()
    }

    /// The unit that is open.
    pub fn unit(&mut self) -> &mut Unit {
        &mut self.unit
    }

    /// Rolls back to a savepoint of the unit.
    pub fn roll_back_to(&mut self, savepoint: Savepoint) {
        let facts = self.facts();
        let _alone = self.gate.close();
        let held = crate::keyspace::Held::on_demand(&self.keyspace);
        Db::new(held, &mut self.unit, &mut self.scratch, 0, &facts).roll_back_to(savepoint);
    }

    /// Commits the unit.
    pub fn commit_unit(&mut self) {
        keep(&mut self.unit, &mut self.logged);
        self.events.extend(self.unit.take_events());
        self.unit.end_spanning(&mut self.scratch);
        self.is_open = false;
    }

    /// Whether the words are a call of a data command, or a mistake.
    pub fn is_data(&self, words: &[Vec<u8>]) -> bool {
        with_args(words, |args| {
            self.table.resolve(args).map_or(true, |entry| matches!(entry.command.handler, Handler::Data(_)))
        })
    }

    /// The events since the last call: `set k`, and for other databases than the first `set k@3`.
    pub fn take_told(&mut self) -> Vec<String> {
        let told = |event: Event| {
            let db = if event.db == 0 { String::new() } else { format!("@{}", event.db) };
            format!("{} {}{db}", event.name, String::from_utf8_lossy(&event.key))
        };
        std::mem::take(&mut self.events).into_iter().map(told).collect()
    }

    /// Runs lines of the form `command => events`, with commas between; none is a dash.
    pub fn script_of_events(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, events) = line.split_once(" => ").expect("a line has events");
            self.run(command);
            let told = self.take_told().join(", ");
            assert_eq!(if told.is_empty() { "-" } else { &told }, events, "{command}");
        }
    }

    /// How many records were logged and not taken.
    pub fn logged_len(&self) -> usize {
        self.logged.len()
    }

    /// The data commands that change keys, by full name.
    pub fn commands_that_write(&self) -> Vec<String> {
        let all = self.table.entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
        let writes = all
            .filter(|entry| entry.command.flags.has(flags::WRITE) && matches!(entry.command.handler, Handler::Data(_)));
        writes.map(|entry| entry.full_name.clone()).collect()
    }

    /// The records logged since the last call, as lines.
    pub fn take_logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.logged).iter().map(Logged::line).collect()
    }

    /// Replays everything that was logged into an empty keyspace, and asserts that it equals the live one.
    /// Call it before [`Runner::take_logged`] takes any.
    pub fn assert_replay_equals_live(&self) {
        let again = Keyspace::new(16, HashSeed(*b"another seed!..."));
        let mut replayer = Replayer::new(self.limits);
        for logged in &self.logged {
            let result = replay_verb(&again, &mut replayer, logged.db, &logged.key, logged.verb());
            assert_eq!(result, Ok(()), "replaying {}", logged.line());
        }
        assert_eq!(dump(&again), dump(&self.keyspace));
    }
}

/// One key of a dump: database, key, value, expiry.
pub type Dumped = (u32, Vec<u8>, Vec<u8>, Option<u64>);

/// What stands as the value of a second line of a key that is protected from eviction.
pub const BLESSED: &[u8] = b"protected from eviction";

/// What precedes the key, the number and the scope of a flush that can be undone.
pub const BURIED: &[u8] = b"\0flushed ";

/// Everything in a keyspace, what can be undone of flushes included, whose counts are checked.
pub fn dump(keyspace: &Keyspace) -> Vec<Dumped> {
    assert_counted(keyspace);
    walk(keyspace, true)
}

/// The same without the checks, for tests that look after every command.
pub fn content(keyspace: &Keyspace) -> Vec<Dumped> {
    walk(keyspace, false)
}

fn walk(keyspace: &Keyspace, checked: bool) -> Vec<Dumped> {
    let gate = crate::keyspace::Gate::new(1);
    let frozen = keyspace.freeze(&gate.close());
    let limits = Limits::defaults(keyspace.seed());
    let mut all = Vec::new();
    for shard in 0..frozen.shards() {
        for (db, directory) in frozen.shard(shard) {
            if checked {
                directory.check_invariants();
            }
            for entry in directory.iter() {
                if checked {
                    check_invariants(entry.value(), &limits);
                    // The payload has no place for some times of a stream.
                    if !matches!(entry.value(), ValueRef::Stream(_)) {
                        let value = canonical(entry.value());
                        assert_eq!(restored(entry.value(), limits), value, "what DUMP gives is the value");
                    }
                }
                all.push((db, entry.key().to_vec(), canonical(entry.value()), entry.expiry()));
            }
            let protected = directory.blessed().into_iter().flat_map(|index| index.iter());
            all.extend(protected.map(|name| (db, name.key().to_vec(), BLESSED.to_vec(), name.expiry())));
        }
    }
    for grave in frozen.graves() {
        for buried in &grave.buried {
            if checked {
                buried.directory.check_invariants();
            }
            let only = format!("{:?}", grave.only);
            let name = |key: &[u8]| [BURIED, format!("{} {only} ", grave.id).as_bytes(), key].concat();
            let keys = buried.directory.iter();
            all.extend(keys.map(|e| (buried.db, name(e.key()), canonical(e.value()), e.expiry())));
            let protected = buried.directory.blessed().into_iter().flat_map(|index| index.iter());
            all.extend(protected.map(|e| (buried.db, name(e.key()), BLESSED.to_vec(), e.expiry())));
        }
    }
    all.sort();
    all
}

/// What RESTORE makes of what DUMP gives of a value.
fn restored(value: ValueRef<'_>, limits: Limits) -> Vec<u8> {
    let (seed, mut building) = (limits.seed, Building::new(limits));
    decode_dump_into(&payload(value), RdbVersionCheck::Strict, &mut building).expect("a payload of ours");
    let mut directory = Directory::new(seed);
    let store = |value: NewValue<'_>| drop(directory.set(seed.hash(b"key"), b"key", value, None, 0));
    building.give(store).expect("a value");
    directory.iter().map(|entry| canonical(entry.value())).collect::<Vec<_>>().concat()
}

/// Asserts that the counts of all databases are what a walk finds.
pub fn assert_counted(keyspace: &Keyspace) {
    let mut walked = std::collections::BTreeMap::new();
    for shard in 0..crate::keyspace::SHARDS as u16 {
        for (db, directory) in keyspace.lock(shard).databases() {
            let sum: &mut Census = walked.entry(db).or_default();
            let found = directory.census();
            sum.keys += found.keys;
            sum.volatile += found.volatile;
            sum.elementwise += found.elementwise;
            sum.templated += found.templated;
            sum.blessed += found.blessed;
        }
    }
    walked.retain(|_, census| *census != Census::default());
    assert_eq!(keyspace.counts().filled().collect::<std::collections::BTreeMap<_, _>>(), walked);
}

fn keep(unit: &mut Unit, logged: &mut Vec<Logged>) {
    let (records, barriers) = unit.records();
    let mut kept = 0;
    for barrier in barriers.drain(..) {
        keep_records(&records[kept..barrier.at], logged);
        kept = barrier.at;
        keep_records(&barrier.encoded, logged);
    }
    keep_records(&records[kept..], logged);
    records.clear();
}

fn keep_records(records: &[u8], logged: &mut Vec<Logged>) {
    let mut payload = Vec::new();
    crate::persist::record::put_epoch(&mut payload, 0);
    payload.extend_from_slice(records);
    for item in Items::new(&payload) {
        let (_, record) = item.expect("a record that was just written");
        let Effect::Verb(EncodedVerb { code, key, body }) = record.effect else { panic!("{record:?}") };
        logged.push(Logged { db: record.db, code, key: key.to_vec(), body: body.to_vec() });
    }
}

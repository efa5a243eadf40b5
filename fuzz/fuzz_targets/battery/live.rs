//! One server on a simulated disk, whose replies are read as a client reads them.

#[path = "../support/keys.rs"]
mod keys;

use std::cell::RefCell;
use std::io::IoSlice;
use std::sync::Arc;

use ironkeep::base::config::Config;
use ironkeep::base::logging::{self, Level};
use ironkeep::core::server::Garbage;
use ironkeep::core::{Client, Server};
use ironkeep::exec::{Executor, Replayer, limits_of, replay_verb};
use ironkeep::keyspace::SHARDS;
use ironkeep::persist::storage::SimStorage;
use ironkeep::persist::verbs::Verb;
use ironkeep::persist::{FsyncPolicy, StoreOptions, WireValue};
use ironkeep::resp::request::OwnedArgs;
use ironkeep::resp::{Output, Resp};
use ironkeep::server::startup::recover_from;
use ironkeep::value::codec::{canonical, check_invariants};
use keys::keys;

/// What a server is after an input.
pub enum Left {
    /// As empty as before.
    Untouched,
    /// Full of what was done.
    Used,
}

/// A server with one worker, and a connection to it.
pub struct Live {
    pub server: Arc<Server>,
    storage: SimStorage,
    directives: &'static str,
    client: Client,
    executor: Executor,
}

fn start(storage: &SimStorage, generation: u64, directives: &str) -> Arc<Server> {
    logging::set_level(Level::Nothing);
    let text = format!("appendonly yes\nsave \"\"\n{directives}");
    let config = Config::from_text(text.as_bytes()).expect("a configuration");
    let options = StoreOptions {
        workers: 1,
        shards: SHARDS as u32,
        hash_seed: *b"0123456789abcdef",
        generation,
        appendonly: true,
        policy: FsyncPolicy::No,
        clock: Arc::new(|| 1_700_000_000_000),
        cut_at_corruption: false,
        refuse_torn: false,
        foreign: Vec::new(),
        import: false,
        encryption: None,
        segment_bytes: 0,
        indexes: false,
        threads: false,
    };
    // Nobody receives the garbage: it is dropped at once, and no thread outlives an input.
    let garbage = Garbage { to_reclaim: std::sync::mpsc::channel().0, released: Default::default() };
    let started = recover_from(Arc::new(storage.clone()), options, config, ironkeep::session::table(), garbage);
    started.unwrap_or_else(|error| panic!("what a server wrote is read again: {error}")).0
}

impl Live {
    /// Works on an empty server with these directives. One that `work` calls untouched is used again: most
    /// inputs are refused, and a start takes longer than that.
    pub fn with(directives: &'static str, resp: Resp, work: impl FnOnce(&mut Live) -> Left) {
        thread_local!(static UNTOUCHED: RefCell<Vec<Live>> = const { RefCell::new(Vec::new()) });
        let mut kept = UNTOUCHED.take();
        let mut live = match kept.iter().position(|live| live.directives == directives) {
            Some(at) => kept.swap_remove(at),
            None => Live::new(directives),
        };
        live.client.set_resp(resp);
        if let Left::Untouched = work(&mut live) {
            kept.push(live);
        }
        UNTOUCHED.set(kept);
    }

    fn new(directives: &'static str) -> Live {
        let storage = SimStorage::new();
        let server = start(&storage, 1, directives);
        let client = Client::new(server.clients.register(Default::default()), server.users.of_new_connection());
        let executor = Executor::new(Arc::clone(&server), 0);
        Live { server, storage, directives, client, executor }
    }

    /// Runs a command line.
    pub fn run(&mut self, line: &str) -> Reply {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.run_words(&words)
    }

    /// Runs a command; its reply is whole, and one.
    pub fn run_words(&mut self, words: &[&[u8]]) -> Reply {
        let args = OwnedArgs::new(words.iter().copied());
        let mut out = Output::new();
        self.executor.run(&mut self.client, &[args.args()], &mut out, ironkeep::exec::PATIENCE);
        let (mut bytes, mut slices) = (Vec::with_capacity(out.len()), [IoSlice::new(&[]); 16]);
        loop {
            match out.slices(bytes.len(), &mut slices) {
                0 => break,
                filled => slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice)),
            }
        }
        Reply::read(&bytes)
    }

    /// Makes a key of a collection's bytes, as a record of the log does. False if they are refused.
    #[allow(dead_code)] // one of the targets needs it
    pub fn restore_state(&mut self, key: &str, tag: u8, bytes: &[u8]) -> bool {
        let state = Verb::Set { value: WireValue::Collection(tag, bytes), expiry: None };
        let keyspace = &self.server.keyspace;
        let limits = limits_of(&self.server.config.settings(), keyspace.seed());
        let applied = replay_verb(keyspace, &mut Replayer::new(limits), 0, b"raw", state);
        // A replay logs nothing, so that the key that is to be found again is a copy.
        applied.is_ok()
            && self.run(&format!("COPY raw {key}")).number() == Some(1)
            && self.run("UNLINK raw").number() == Some(1)
    }

    /// Has the active expiry do its work.
    pub fn sweep(&mut self) {
        self.executor.sweep_expired(1000);
    }

    /// Whether there is such a key.
    pub fn exists(&mut self, key: &str) -> bool {
        self.run(&format!("EXISTS {key}")).number() == Some(1)
    }

    fn value<T>(&self, key: &str, look: impl Fn(ironkeep::value::ValueRef<'_>) -> T) -> Option<T> {
        let key = self.server.keyspace.key(key.as_bytes());
        let shard = self.server.keyspace.lock(key.shard());
        let entry = shard.directory(0).and_then(|directory| directory.get(key.hash, key.bytes));
        entry.map(|entry| look(entry.value()))
    }

    /// The value of a key of database 0, for comparisons.
    pub fn canonical(&self, key: &str) -> Option<Vec<u8>> {
        self.value(key, canonical)
    }

    /// When the first of a hash's fields expires.
    pub fn earliest_field_expiry(&self, key: &str) -> Option<u64> {
        let key = self.server.keyspace.key(key.as_bytes());
        let shard = self.server.keyspace.lock(key.shard());
        let directory = shard.directory(0)?;
        directory.get(key.hash, key.bytes)?.value_expiry()
    }

    /// Checks the value of a key.
    pub fn check(&self, key: &str) {
        let limits = limits_of(&self.server.config.settings(), self.server.keyspace.seed());
        self.value(key, |value| check_invariants(value, &limits));
    }

    /// Starts again on what the disk has: the same keys and values.
    pub fn check_replay(&self) {
        self.server.store.log().flush().expect("a disk that works");
        let again = start(&self.storage.process_image(), 2, self.directives);
        assert_eq!(keys(&again.keyspace), keys(&self.server.keyspace));
    }
}

/// What is in a reply, as far as the battery asks.
#[derive(Debug, Default)]
pub struct Reply {
    /// All bulk strings in it, in their order.
    pub bulks: Vec<Vec<u8>>,
    /// How many elements it has at its first level.
    pub elements: usize,
    /// Its first line.
    line: Vec<u8>,
}

impl Reply {
    /// Reads one reply that fills the bytes.
    fn read(bytes: &[u8]) -> Reply {
        let mut reply = Reply::default();
        let rest = reply.element(bytes, 0);
        assert!(rest.is_empty(), "one reply and no more: {}", bytes.escape_ascii());
        reply
    }

    fn element<'a>(&mut self, bytes: &'a [u8], depth: usize) -> &'a [u8] {
        let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line that ends");
        let (line, mut rest) = (&bytes[..end], &bytes[end + 2..]);
        if depth == 0 {
            self.line = line.to_vec();
        }
        let count =
            || std::str::from_utf8(&line[1..]).ok().and_then(|text| text.parse::<i64>().ok()).expect("a number");
        match line[0] {
            b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => {}
            b'$' | b'=' => {
                if let Ok(len) = usize::try_from(count()) {
                    self.bulks.push(rest[..len].to_vec());
                    assert_eq!(&rest[len..len + 2], b"\r\n");
                    rest = &rest[len + 2..];
                }
            }
            kind @ (b'*' | b'~' | b'%' | b'>') => {
                let elements = usize::try_from(count()).unwrap_or(0) * if kind == b'%' { 2 } else { 1 };
                if depth == 0 {
                    self.elements = elements;
                }
                for _ in 0..elements {
                    rest = self.element(rest, depth + 1);
                }
            }
            other => panic!("no reply starts with {other}"),
        }
        rest
    }

    /// The text of a simple reply.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.line.get(1..).unwrap_or_default()).into_owned()
    }

    /// The number of an integer reply.
    pub fn number(&self) -> Option<i64> {
        let digits = self.line.strip_prefix(b":")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// Whether the command was meant for another type.
    pub fn is_wrong_type(&self) -> bool {
        self.line.starts_with(b"-WRONGTYPE")
    }

    /// Whether the command failed through a fault of ours.
    pub fn is_internal_error(&self) -> bool {
        self.line.starts_with(b"-ERR internal")
    }
}

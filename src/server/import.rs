//! Imports the files of another server into a data directory, which no server has open.
//!
//! ```text
//! open the directory, with the mark of an import and no log ─ read the files into a keyspace ─ snapshot
//!     ─ commit: the manifest ─ remove the mark ─ close
//! ```
//!
//! Invariants:
//! - Nothing counts before the commit: if the process ends before it, the next import begins again.
//! - What is imported does not depend on how the server is configured that will serve it: no user, no limit of memory
//!   and no renamed command stands in the way, and nothing expires meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::assemble::{StartError, reclaimer, recover_from};
use crate::base::config::words::write_quoted;
use crate::base::config::{Config, Settings};
use crate::base::progress::Display;
use crate::base::{clock, lock, random};
use crate::command::keys::dump::Building;
use crate::core::client::{Client, ClientRecord};
use crate::core::server::SavePurpose;
use crate::core::{Server, Wait};
use crate::durable::encryption::encryption;
use crate::durable::import::{Rules, Tally, Target, read};
use crate::durable::saving;
use crate::exec::{Executor, PATIENCE, Replayer, limits_of, place};
use crate::keyspace::SHARDS;
use crate::keyspace::access::{AccessClock, Lfu};
use crate::persist::foreign::{AofCommand, Foreign, RdbKey};
use crate::persist::storage::{RealStorage, Storage};
use crate::persist::{FsyncPolicy, PersistError, StoreOptions};
use crate::resp::request::Span;
use crate::resp::{Args, Output};
use crate::session;
use crate::value::Limits;

/// The directives that say how data is stored, and not who may do what. An import follows them.
const FOLLOWED: &[&[u8]] = &[
    b"databases",
    b"maxmemory-policy",
    b"lfu-log-factor",
    b"lfu-decay-time",
    b"rdbcompression",
    b"hash-max-listpack-entries",
    b"hash-max-listpack-value",
    b"list-max-listpack-size",
    b"set-max-intset-entries",
    b"set-max-listpack-entries",
    b"set-max-listpack-value",
    b"zset-max-listpack-entries",
    b"zset-max-listpack-value",
    b"hll-sparse-max-bytes",
    b"stream-node-max-bytes",
    b"stream-node-max-entries",
];

/// The directives of the importing server, besides those that it follows.
const NEUTRAL: &[u8] = b"appendonly no\nsave \"\"\nimport-mode yes\nproto-max-bulk-len 9223372036854775807\n\
    client-query-buffer-limit 9223372036854775807\nlatency-tracking no\nscript-rollback no\n\
    flush-undo-seconds 0\n";

/// What to import, and how.
pub struct Import<'a> {
    /// The files.
    pub foreign: &'a Foreign,
    /// The data directory; it is made if it is missing.
    pub dir: &'a Path,
    /// See [`Rules`].
    pub rules: Rules,
    /// Whether keys are added to those of a store that is there, in the place of those of the same name.
    pub merges: bool,
    /// Where progress is shown.
    pub display: Display,
}

/// Imports. Returns once everything is durable.
///
/// # Errors
/// The files are damaged, the directory is in use or has a store, or the disk refuses. A store that was there is as it
/// was.
pub fn import(import: &Import<'_>, config: &Config) -> Result<Tally, StartError> {
    let failed = |what: String| move |source| StartError::Io { what, source };
    let storage = RealStorage::open(import.dir).map_err(failed(format!("dir {}", import.dir.display())))?;
    // A start blocks on futures here, and what waits below must not know.
    let thread = std::thread::Builder::new().name("import".into());
    let outcome = std::thread::scope(|scope| {
        let running = thread.spawn_scoped(scope, || import_into(Arc::new(storage), import, config));
        running.map(|running| running.join())
    });
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => Err(failed("the thread of the import".to_owned())(error)),
    }
}

fn neutral(config: &Config) -> Result<Config, StartError> {
    let mut text = NEUTRAL.to_vec();
    for (name, value) in config.get(FOLLOWED) {
        text.extend_from_slice(&name);
        text.push(b' ');
        write_quoted(&mut text, &value);
        text.push(b'\n');
    }
    let refused = |error: &dyn std::fmt::Display| {
        StartError::Persist(PersistError::Refused { file: "the configuration".into(), why: error.to_string() })
    };
    Config::from_text(&text).map_err(|error| refused(&error))
}

fn import_into(storage: Arc<dyn Storage>, import: &Import<'_>, config: &Config) -> Result<Tally, StartError> {
    let encryption = encryption(&config.settings());
    let config = neutral(config)?;
    let options = StoreOptions {
        workers: 1,
        shards: SHARDS as u32,
        hash_seed: random::os_bytes(),
        generation: u64::from_le_bytes(random::os_bytes()),
        appendonly: false,
        policy: FsyncPolicy::EverySec,
        clock: Arc::new(|| clock::now_ms() as u64),
        cut_at_corruption: false,
        refuse_torn: false,
        foreign: Vec::new(),
        import: true,
        encryption,
        segment_bytes: 0,
        indexes: false,
        threads: true,
    };
    let dir = storage.path("");
    let (server, found, _) = recover_from(storage, options, config, session::table(), reclaimer()?)?;
    if !found.fresh && !import.merges {
        let why = "it holds a store already: name another directory, or say --merge".to_owned();
        return Err(PersistError::Refused { file: dir, why }.into());
    }
    let filled = fill(&server, import).map_err(StartError::Persist).and_then(|tally| {
        let failed = |what: String| StartError::Io {
            what: "what was imported cannot be saved".into(),
            source: std::io::Error::other(what),
        };
        save(&server).map_err(failed).map(|()| tally)
    });
    if filled.is_err() && found.fresh {
        // The first error is the one to be told.
        let _ = server.store.abandon_import();
    }
    let tally = filled?;
    server.store.end_import()?;
    server.store.close()?;
    // The directory is free for the next one when the last owner is gone.
    let mut server = server;
    while let Err(still) = Arc::try_unwrap(server) {
        server = still;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(tally)
}

fn fill(server: &Arc<Server>, import: &Import<'_>) -> Result<Tally, PersistError> {
    let mut target = Local::new(server, import.merges);
    read(import.foreign, import.rules, &mut target, import.display)
}

/// Makes the snapshot with which the import counts.
fn save(server: &Arc<Server>) -> Result<(), String> {
    let _order = lock::out_of_order("who holds the log's writer tries the gate for a moment and never waits for it");
    saving::wait_for_turn(server, SavePurpose::Save);
    let (outcome, closed) = saving::save_and_stay_closed(server);
    drop(closed);
    saving::end_turn(server);
    outcome
}

/// The keyspace of a server that serves nobody.
struct Local<'a> {
    server: &'a Arc<Server>,
    executor: Executor,
    client: Client,
    replayer: Replayer,
    limits: Limits,
    access: AccessClock,
    replaces: bool,
}

impl<'a> Local<'a> {
    fn new(server: &'a Arc<Server>, replaces: bool) -> Self {
        let settings = server.config.settings();
        let limits = limits_of(&settings, server.keyspace.seed());
        Local {
            server,
            executor: Executor::new(Arc::clone(server), 0),
            client: client(server),
            replayer: Replayer::new(limits),
            limits,
            access: access_clock(&settings),
            replaces,
        }
    }

    fn run(&mut self, args: Args<'_>) -> Result<(), String> {
        let mut out = Output::new();
        while self.executor.run(&mut self.client, &[args], &mut out, PATIENCE).parked.is_some() {}
        let script = self.client.wait.take_if(|wait| matches!(wait, Wait::Script(_)));
        while let Some(mut script) = self.executor.take_suspended() {
            script.resume(Some(&mut self.client));
            self.executor.after_slice(script);
        }
        if let Some(Wait::Script(mut done)) = script {
            out = done.try_recv().map_err(|_| "the script has not ended")?.0;
        }
        match self.client.wait.take() {
            Some(Wait::Deferred(done)) => out.append(&mut done.blocking_recv().map_err(|_| "it has not ended")?),
            None => {}
            Some(_) => return Err("it waits for something that never comes".into()),
        }
        match out.as_bytes() {
            [b'-', error @ ..] => Err(String::from_utf8_lossy(error).trim_end().to_owned()),
            _ => Ok(()),
        }
    }
}

fn client(server: &Server) -> Client {
    let record = server.clients.register(ClientRecord { peer: "import".into(), ..ClientRecord::default() });
    // For it nothing expires.
    record.import_source.store(true, Relaxed);
    Client::new(record, server.users.of_new_connection())
}

fn access_clock(settings: &Settings) -> AccessClock {
    let lfu = settings
        .maxmemory_policy
        .is_lfu()
        .then_some(Lfu { log_factor: settings.lfu_log_factor, decay_minutes: settings.lfu_decay_time_minutes });
    AccessClock { seconds: (clock::now_ms() / 1000) as u64, lfu, lrm: settings.maxmemory_policy.is_lrm() }
}

impl Target for Local<'_> {
    fn library(&mut self, text: &[u8]) -> Result<(), String> {
        let words: &[&[u8]] =
            if self.replaces { &[b"FUNCTION", b"LOAD", b"REPLACE", text] } else { &[b"FUNCTION", b"LOAD", text] };
        let mut spans = Vec::with_capacity(words.len());
        let mut start = 0;
        for word in words {
            spans.push(Span { start, len: word.len() });
            start += word.len();
        }
        self.run(Args::new(&words.concat(), &spans))
    }

    fn key(&mut self, key: &RdbKey<'_>) -> Result<(), PersistError> {
        let databases = self.server.keyspace.databases();
        if key.db >= databases {
            let what = format!("it is in database {}, but only {databases} are configured (`databases`)", key.db);
            return Err(key.error(&what));
        }
        let mut value = Building::new(self.limits);
        key.decode_into(&mut value)?;
        let access = match (key.idle_seconds, key.frequency) {
            (Some(seconds), _) => self.access.idle_for(seconds),
            (_, Some(frequency)) => self.access.used_as_often(u32::from(frequency)),
            _ => None,
        };
        // A time before the epoch has passed like any other.
        let expiry = key.expiry.map(|at| at.clamp(1, (1 << 48) - 1));
        let at = (key.db, key.name);
        match place(&self.server.keyspace, &mut self.replayer, at, value, (expiry, access), self.replaces) {
            Ok(true) => Ok(()),
            Ok(false) => Err(key.error("it stands twice in the file")),
            Err(what) => Err(key.error(&what)),
        }
    }

    fn begin_commands(&mut self) -> Result<(), String> {
        self.server.clients.remove(&self.client.record);
        self.client = client(self.server);
        Ok(())
    }

    fn command(&mut self, command: AofCommand<'_>) -> Result<(), String> {
        self.run(command.args())
    }
}

//! FUNCTION LOAD, DELETE, FLUSH and RESTORE: the libraries of functions change, all at once or not at all.
//!
//! ```text
//! close the gate ─ read what is new, in the machine of functions ─ name clashes? ─ replace the libraries ─ log
//! ```
//!
//! Invariants:
//! - The keyspace and the log have the texts. The machine that has them loaded follows.
//! - A library that cannot be read, or that clashes with another, changes nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::data::append;
use super::group::Group;
use super::handler::internal_error;
use crate::core::args::is;
use crate::core::client::Client;
use crate::core::command::LibraryChange;
use crate::core::db::Db;
use crate::core::error::Remains;
use crate::core::table::CommandEntry;
use crate::core::{CommandError, Outcome};
use crate::keyspace::{Held, Libraries, Library};
use crate::persist::rdb::{DumpedLibraries, LibrariesError};
use crate::persist::verbs::BarrierWriter;
use crate::resp::{Args, Done, Output, Reply};
use crate::script::functions::{FunctionMachine, LOAD_TIMEOUT, Read};
use crate::script::handed::with_machine;
use crate::script::{Failure, source};

/// What becomes of the libraries, for the log.
enum Edit {
    Set(Arc<Library>),
    Drop(Box<[u8]>),
    DropAll,
}

impl Edit {
    fn write(&self, barrier: BarrierWriter<'_>) {
        match self {
            Edit::Set(library) => barrier.set_library(&library.name, &library.code),
            Edit::Drop(name) => barrier.drop_library(name),
            Edit::DropAll => barrier.drop_libraries(),
        }
    }
}

/// An error of registering a function, which has another name in Valkey.
fn in_words_of_valkey(error: CommandError) -> CommandError {
    const NAME: &[u8] = b"redis.register_function";
    let CommandError::Echo(text) = error else { return error };
    let words = match memchr::memmem::find(&text, NAME) {
        Some(at) => [&text[..at], b"server.register_function", &text[at + NAME.len()..]].concat(),
        None => text,
    };
    CommandError::Echo(words)
}

/// The libraries after a change.
struct Changed {
    libraries: Libraries,
    edits: Vec<Edit>,
    /// The name of the library that was loaded; the reply is its name, or OK.
    name: Option<Box<[u8]>>,
}

impl Changed {
    /// Adds a library that was read, if no other library has functions of these names.
    fn add(&mut self, read: &Read) -> Result<(), CommandError> {
        let library = read.library();
        let clashes = |name: &[u8]| self.libraries.function(name).is_some_and(|(of, _)| of.name != library.name);
        if let Some(function) = library.functions.iter().find(|function| clashes(&function.name)) {
            return Err(CommandError::echo("Function ", &function.name, " already exists"));
        }
        self.libraries.insert(Arc::clone(library));
        self.edits.push(Edit::Set(Arc::clone(library)));
        Ok(())
    }
}

impl Group<'_> {
    /// Changes the libraries of functions.
    pub(super) fn change_libraries(
        &mut self,
        change: LibraryChange,
        entry: &CommandEntry,
        args: Args<'_>,
        client: &mut Client,
        out: &mut Output,
    ) -> Outcome {
        let was_alone = self.closed.is_some();
        self.close().map_err(CommandError::Busy)?;
        let before = self.server.keyspace.libraries();
        let memory_max = self.memory_of_scripts();
        let bytes_max = self.facts.string_max_bytes;
        let work = || {
            with_machine(&self.server.functions, memory_max, |machine| {
                changed(change, args, &before, machine, bytes_max)
            })
        };
        let changed = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(changed)) => changed,
            Ok(Err(Failure::Compile(text) | Failure::Error(text) | Failure::OfCommand(text))) => {
                Err(CommandError::Echo(text))
            }
            Ok(Err(Failure::Engine(text))) => Err(CommandError::err(text)),
            Err(panic) => Err(internal_error(entry, Remains::Nothing, &*panic)),
        };
        let in_words = |error| if self.facts.as_valkey { in_words_of_valkey(error) } else { error };
        let outcome = changed.map_err(in_words).map(|changed| self.replace_libraries(changed, client, out));
        if !was_alone {
            self.open();
        }
        outcome
    }

    /// Puts the libraries in the place of those before, and logs what has become of them.
    fn replace_libraries(&mut self, changed: Changed, client: &mut Client, out: &mut Output) -> Done {
        match client.in_exec {
            false => self.unit.begin(self.wants(), false),
            true => self.unit.begin_command(false),
        }
        let held = Held::none(&self.server.keyspace);
        let mut db = Db::new(held, self.unit, self.scratch, client.db, &self.facts);
        db.set_libraries(Arc::new(changed.libraries));
        changed.edits.iter().for_each(|edit| edit.write(db.barrier()));
        if !client.in_exec {
            client.last_write_block = append(self.server, self.worker, db.unit(), client.record.id);
        }
        drop(db);
        self.retire();
        let reply = Reply::new(out, client.resp);
        match changed.name {
            Some(name) => reply.bulk(&name),
            None => reply.ok(),
        }
    }
}

/// The libraries after a change.
fn changed(
    change: LibraryChange,
    args: Args<'_>,
    before: &Libraries,
    machine: &mut FunctionMachine,
    bytes_max: u64,
) -> Result<Changed, CommandError> {
    let mut changed = Changed { libraries: before.clone(), edits: Vec::new(), name: None };
    let mut all_read = Vec::new();
    match change {
        LibraryChange::Load => {
            let read = load(args, before, machine)?;
            changed.name = Some(read.library().name.clone());
            let added = changed.add(&read);
            all_read.push(read);
            if let Err(error) = added {
                machine.discard(all_read);
                return Err(error);
            }
        }
        LibraryChange::Delete => {
            if !changed.libraries.remove(args.at(2)) {
                return Err(CommandError::Text("ERR Library not found"));
            }
            changed.edits.push(Edit::Drop(args.at(2).into()));
        }
        LibraryChange::Flush => {
            check_flush_mode(args)?;
            (changed.libraries, changed.edits) = (Libraries::default(), vec![Edit::DropAll]);
        }
        LibraryChange::Restore => all_read = restore(args, &mut changed, machine, bytes_max)?,
    }
    machine.keep(all_read, &changed.libraries);
    Ok(changed)
}

/// Reads the library that a client sends.
fn load(args: Args<'_>, before: &Libraries, machine: &mut FunctionMachine) -> Result<Read, CommandError> {
    let code_at = args.len() - 1;
    let mut replaces = false;
    for at in 2..code_at {
        if !is(args.at(at), "REPLACE") {
            return Err(CommandError::echo("Unknown option given: ", args.at(at), ""));
        }
        replaces = true;
    }
    let source = source::library(args.at(code_at))?;
    if !replaces && before.get(&source.name).is_some() {
        return Err(CommandError::echo("Library '", &source.name, "' already exists"));
    }
    machine.read(&source, LOAD_TIMEOUT)
}

fn check_flush_mode(args: Args<'_>) -> Result<(), CommandError> {
    match args.len() {
        2 => Ok(()),
        3 if is(args.at(2), "ASYNC") || is(args.at(2), "SYNC") => Ok(()),
        3 => Err(CommandError::Text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")),
        _ => Err(CommandError::subcommand_syntax(args.at(1), "FUNCTION")),
    }
}

/// Reads the libraries of a payload, and adds them as the call wants it.
fn restore(
    args: Args<'_>,
    changed: &mut Changed,
    machine: &mut FunctionMachine,
    bytes_max: u64,
) -> Result<Vec<Read>, CommandError> {
    let (flushes, replaces) = match args.get(3) {
        _ if args.len() > 4 => return Err(CommandError::subcommand_syntax(args.at(1), "FUNCTION")),
        None => (false, false),
        Some(word) if is(word, "APPEND") => (false, false),
        Some(word) if is(word, "FLUSH") => (true, false),
        Some(word) if is(word, "REPLACE") => (false, true),
        Some(_) => {
            return Err(CommandError::Text(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let mut all = Vec::new();
    let added = read_payload(args.at(2), machine, bytes_max, &mut all).and_then(|()| {
        if flushes {
            (changed.libraries, changed.edits) = (Libraries::default(), vec![Edit::DropAll]);
        }
        for read in &all {
            let name = &read.library().name;
            if changed.libraries.remove(name) && !replaces {
                return Err(CommandError::echo("Library ", name, " already exists"));
            }
        }
        all.iter().try_for_each(|read| changed.add(read))
    });
    match added {
        Ok(()) => Ok(all),
        Err(error) => {
            machine.discard(all);
            Err(error)
        }
    }
}

/// Reads the libraries of a payload, as far as they can be read.
fn read_payload(
    payload: &[u8],
    machine: &mut FunctionMachine,
    bytes_max: u64,
    all: &mut Vec<Read>,
) -> Result<(), CommandError> {
    let refused = |error: LibrariesError| CommandError::err(error);
    let mut within = Changed { libraries: Libraries::default(), edits: Vec::new(), name: None };
    for text in DumpedLibraries::new(payload, bytes_max).map_err(refused)? {
        let text = text.map_err(refused)?;
        let source = source::library(&text)?;
        if within.libraries.get(&source.name).is_some() {
            return Err(CommandError::echo("Library '", &source.name, "' already exists"));
        }
        let read = machine.read(&source, LOAD_TIMEOUT)?;
        let added = within.add(&read);
        all.push(read);
        added?;
    }
    Ok(())
}

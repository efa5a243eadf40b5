//! Removes what the target of a MIGRATE has taken, and writes the reply.

use std::time::Duration;

use crate::command::keys::migrate::{TAKEN_WORDS, remove_taken};
use crate::core::call::{HashedKey, HashedKeys};
use crate::core::client::Client;
use crate::core::migration::{Kept, Sent};
use crate::core::waiting::Migrating;
use crate::core::{CommandError, Hook};
use crate::exec::Executor;
use crate::exec::changes::tell_reader;
use crate::exec::facts::{facts_now, limits_of};
use crate::exec::group::Group;
use crate::exec::handler::fail;
use crate::resp::request::OwnedArgs;
use crate::resp::{Output, Reply};

impl Executor {
    /// Removes what a target has taken, and writes the reply. Returns the block of the log that holds the change, if
    /// there is one; or `None`, having done nothing, if that has to wait, as for a lock or a pause.
    pub fn end_migration(
        &mut self,
        migrating: &Migrating,
        sent: &Sent,
        client: &mut Client,
        out: &mut Output,
    ) -> Option<Option<u64>> {
        self.refresh_settings();
        let limits = limits_of(&self.settings, self.server.keyspace.seed());
        let facts = facts_now(&self.settings, limits, client, self.server.hooks.load());
        let (mut group, ..) = self.group(facts, Duration::ZERO);
        let (written, mark) = (client.last_write_block, out.mark());
        let outcome = group.end_migration(migrating, sent, client, out);
        group.inside = None;
        group.open();
        group.retire();
        group.add_up();
        group.tell_readers();
        if outcome.is_none() {
            out.truncate(mark);
        }
        outcome.map(|()| Some(client.last_write_block).filter(|block| *block != written))
    }
}

impl Group<'_> {
    fn end_migration(
        &mut self,
        migrating: &Migrating,
        sent: &Sent,
        client: &mut Client,
        out: &mut Output,
    ) -> Option<()> {
        let (mark, server) = (out.mark(), self.server);
        let stayed = match sent.taken.is_empty() || migrating.copies {
            true => None,
            false => match self.remove_taken(migrating, sent, client, out) {
                Err(CommandError::Busy(_)) => return None,
                removed => removed.err(),
            },
        };
        out.truncate(mark);
        let error = match (&sent.error, stayed) {
            (None, None) => {
                let _done = Reply::new(out, client.resp).ok();
                return Some(());
            }
            (Some(first), None) => first.wire().into_owned(),
            (None, Some(second)) => second.wire().into_owned(),
            (Some(first), Some(second)) => [&first.wire()[..], b"; and: ", &second.wire()[..]].concat(),
        };
        match server.table.resolve(migrating.args.args()) {
            Ok(entry) => {
                fail(server, &self.stats.commands[entry.index], &CommandError::Echo(error), mark, out);
            }
            Err(_) => out.error_bytes(&error),
        }
        Some(())
    }

    /// Removes what the target has taken.
    ///
    /// # Errors
    /// A key has changed and stays, or all stay: nothing may be written now.
    fn remove_taken(
        &mut self,
        migrating: &Migrating,
        sent: &Sent,
        client: &mut Client,
        out: &mut Output,
    ) -> Result<(), CommandError> {
        let (server, mark) = (self.server, out.mark());
        // All checks again: rules and settings may have changed, the disk be full, or a pause have begun.
        let entry = self.check(None, migrating.args.args(), client)?;
        let taken: Vec<&Kept> = sent.taken.iter().map(|at| &migrating.watched.keys[*at]).collect();
        let numbers = |kept: &&Kept| [kept.version.to_le_bytes(), kept.expiry.unwrap_or(i64::MAX).to_le_bytes()];
        let numbers: Vec<_> = taken.iter().map(numbers).collect();
        let words = taken.iter().zip(&numbers).flat_map(|(kept, [version, expiry])| [&*kept.key, version, expiry]);
        let words = OwnedArgs::new(std::iter::once(&b"MIGRATE"[..]).chain(words));
        let mut keys = HashedKeys::default();
        let places = (1..).step_by(TAKEN_WORDS);
        keys.named.extend(taken.iter().zip(places).map(|(kept, place)| HashedKey { place, hash: kept.hash }));
        // Monitors have seen the command, and are not to see these words.
        self.hooks = self.hooks.without(Hook::Monitor);
        self.enter().map_err(CommandError::Busy)?;
        let _done = self.data(remove_taken, entry, words.args(), &keys, client, out)?;
        self.remove_met();
        self.serve_vanished();
        if !self.unit.untold.changes.is_empty() {
            // They leave behind the reply.
            let mut late = std::mem::take(&mut client.late);
            tell_reader(server, &mut self.unit.untold, client, &mut late);
            client.late = late;
        }
        let said = out.split_off(mark).into_bytes();
        said.strip_prefix(b"-").map_or(Ok(()), |text| Err(CommandError::Echo(text.trim_ascii_end().to_vec())))
    }
}

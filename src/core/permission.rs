//! Whether a user may make a call of a command: its declaration says what the call needs.
//!
//! Invariants:
//! - The keys of a call are those by which the executor locks it.
//! - Arguments that do not fit the key specifications name no key; the command then reports what is wrong and touches
//!   none.

use std::borrow::Cow;
use std::sync::Arc;

use crate::access::log::{Context, Reason, Refusal};
use crate::access::{Denied, Need, User, Wish};
use crate::base::format;
use crate::core::client::{Client, ClientRecord};
use crate::core::client_line::{full_names, line_of};
use crate::core::command::{Channels, Databases};
use crate::core::table::CommandEntry;
use crate::core::{Call, Command, CommandError, Server, categories, flags};
use crate::resp::Args;

/// What a call needs of this user, as far as that is limited.
fn wish<'a>(user: &User, entry: &CommandEntry, args: Args<'a>, db: u32) -> Wish<'a> {
    let command = entry.command;
    let is_free = command.flags.has(flags::NO_AUTH);
    let mut wish = Wish {
        command: (!is_free).then_some(entry.index),
        first_argument: args.get(if entry.is_subcommand() { 2 } else { 1 }),
        ..Wish::default()
    };
    if !user.has_all_keys() && !command.keys.0.is_empty() {
        for (place, how) in command.keys.uses(args).unwrap_or_default() {
            wish.keys.push(Need { place, name: args.at(place), how });
        }
    }
    if !user.has_all_channels() {
        add_channels(&mut wish, command, args);
    }
    if !user.has_all_databases() {
        add_databases(&mut wish, command, args, db);
    }
    wish
}

/// Adds the channels of a call.
pub(super) fn add_channels<'a>(wish: &mut Wish<'a>, command: &Command, args: Args<'a>) {
    let (count, how) = match command.channels {
        Channels::None => (0, false),
        Channels::First => (1, false),
        Channels::All => (usize::MAX, false),
        Channels::Patterns => (usize::MAX, true),
    };
    let channels = args.from(1).enumerate().take(count);
    wish.channels.extend(channels.map(|(at, name)| Need { place: at + 1, name, how }));
}

/// Adds the databases that a call uses.
pub(super) fn add_databases(wish: &mut Wish<'_>, command: &Command, args: Args<'_>, db: u32) {
    let is_of_keyspace = categories::of(command).has(categories::KEYSPACE);
    match command.databases {
        Databases::All => wish.all_databases = true,
        Databases::Current if !command.keys.is_any() && !is_of_keyspace => {}
        Databases::Current => wish.databases.push((0, db)),
        Databases::Named(places) => {
            if command.keys.is_any() {
                wish.databases.push((0, db));
            }
            // What is no number of a database, the command refuses.
            let number = |place: usize| u32::try_from(format::parse_i64(args.get(place)?)?).ok();
            wish.databases.extend(places(args).into_iter().filter_map(|place| Some((place, number(place)?))));
        }
    }
}

/// Whether a user may make a call from this database.
///
/// # Errors
/// It may not.
pub fn check(user: &User, entry: &CommandEntry, args: Args<'_>, db: u32) -> Result<(), Denied> {
    if user.is_unlimited() { Ok(()) } else { user.check(&wish(user, entry, args, db)) }
}

/// The reason of a refusal as a text. The long one names the key or channel.
pub fn reason(user: &User, entry: &CommandEntry, denied: Denied, object: Option<&[u8]>) -> Vec<u8> {
    let (what, short): (_, &[u8]) = match denied {
        Denied::Command(_) => {
            let name = entry.full_name.as_bytes();
            return [b"User ", user.name(), b" has no permissions to run the '", name, b"' command"].concat();
        }
        Denied::Key(_) => ("key", b"No permissions to access a key"),
        Denied::Channel(_) => ("channel", b"No permissions to access a channel"),
        Denied::Database(_) => ("database", b"No permissions to access database"),
    };
    match object {
        None => short.to_vec(),
        Some(object) if what == "database" => {
            [b"User ", user.name(), b" has no permissions to access database ", object].concat()
        }
        Some(object) => {
            [b"User ", user.name(), b" has no permissions to access the '", object, b"' ", what.as_bytes()].concat()
        }
    }
}

impl Server {
    /// Whether a connection may make a call; notes a refusal.
    ///
    /// # Errors
    /// It may not.
    #[cold]
    pub fn check_access(
        &self,
        entry: &CommandEntry,
        args: Args<'_>,
        client: &Client,
        context: Context,
    ) -> Result<(), (Arc<User>, Denied)> {
        let user = client.acting_user(self);
        let Err(denied) = check(&user, entry, args, client.db) else { return Ok(()) };
        self.note_refusal(entry, args, &client.record, &user, denied, context);
        Err((user.into_owned(), denied))
    }

    /// Notes that a call was refused.
    pub fn note_refusal(
        &self,
        entry: &CommandEntry,
        args: Args<'_>,
        client: &ClientRecord,
        user: &User,
        denied: Denied,
        context: Context,
    ) {
        let counters = &self.counters;
        let (reason, counter, object) = match denied {
            Denied::Command(_) => (Reason::Command, &counters.access_denied_cmd, entry.full_name.as_bytes()),
            Denied::Key(place) => (Reason::Key, &counters.access_denied_key, args.at(place)),
            Denied::Channel(place) => (Reason::Channel, &counters.access_denied_channel, args.at(place)),
            Denied::Database(place) => (Reason::Database, &counters.access_denied_db, args.at(place)),
        };
        counter.add(1);
        self.log_refusal(reason, context, object, user.name(), client);
    }

    /// Adds a refusal to the log of refusals.
    pub fn log_refusal(&self, reason: Reason, context: Context, object: &[u8], username: &[u8], client: &ClientRecord) {
        let now_ms = crate::base::clock::now_ms();
        let len_max = usize::try_from(self.config.settings().acllog_max_len).unwrap_or(usize::MAX);
        let client = match len_max {
            0 => Vec::new(),
            _ => line_of(self, client, &full_names(&self.table), now_ms),
        };
        let refusal = Refusal { reason, context, object, username, client };
        self.users.refusals.lock().note(refusal, now_ms, len_max);
    }
}

impl Client {
    /// The user for whom it acts as its rules are by now; `None` if it was deleted.
    pub fn user_by_now(&self, server: &Server) -> Option<Arc<User>> {
        match &self.user {
            None => Some(server.users.default_user()),
            Some(user) if server.users.generation() == self.access_generation => Some(Arc::clone(user)),
            Some(user) => server.users.renewed(user),
        }
    }

    /// The user for whom it acts. One that has not logged in acts for the default user.
    pub fn acting_user(&self, server: &Server) -> Cow<'_, Arc<User>> {
        match &self.user {
            Some(user) => Cow::Borrowed(user),
            None => Cow::Owned(server.users.default_user()),
        }
    }

    /// Whether its user may do everything.
    #[inline]
    pub fn is_unlimited(&self) -> bool {
        self.user.as_ref().is_some_and(|user| user.is_unlimited())
    }

    /// Takes over what its user is by now. A connection whose user was deleted, or may no longer hear what it listens
    /// to, closes; it must not execute anything more, and false says so.
    #[inline]
    pub fn renew_user(&mut self, server: &Server) -> bool {
        let generation = server.users.generation();
        generation == self.access_generation || self.renew_user_from(server, generation)
    }

    #[cold]
    fn renew_user_from(&mut self, server: &Server, generation: u64) -> bool {
        let now = self.user.as_ref().map(|user| server.users.renewed(user));
        let is_deleted = matches!(now, Some(None));
        if let Some(Some(now)) = now {
            self.user = Some(now);
        }
        // One that closes stays of an old generation, and one whose user is deleted stays who it was.
        if is_deleted || !self.may_go_on_listening(server) {
            self.closing = true;
            return false;
        }
        self.access_generation = generation;
        true
    }

    /// Whether its user may still hear all that it has subscribed to, and see what it monitors.
    fn may_go_on_listening(&self, server: &Server) -> bool {
        use crate::events::channels::Kind;
        if !self.is_subscriber() && !self.record.monitor.load(std::sync::atomic::Ordering::Relaxed) {
            return true;
        }
        let user = self.acting_user(server);
        let is_watching = self.record.monitor.load(std::sync::atomic::Ordering::Relaxed);
        let named = |entry: &&CommandEntry| entry.full_name == "monitor";
        let monitor = server.table.entries().iter().find(named).filter(|_| is_watching);
        let may_monitor = monitor.is_none_or(|entry| check(&user, entry, Args::NONE, self.db).is_ok());
        let mut names = Kind::ALL
            .into_iter()
            .flat_map(|kind| self.subscriptions.of(kind).map(move |name| (name, kind == Kind::Pattern)));
        may_monitor && names.all(|(name, is_pattern)| user.may_hear(name, is_pattern))
    }
}

impl Call<'_> {
    /// Whether keys that no argument names may be read: those that are made from patterns and elements.
    pub fn may_read_all(&self) -> bool {
        let (entry, args, db) = (self.entry, self.args, self.db.index());
        self.user.as_ref().is_none_or(|user| user.may_read_all(&wish(user, entry, args, db)))
    }

    /// The user, if there are keys that it must not see.
    pub fn limited_sight(&self) -> Option<Arc<User>> {
        self.user.clone().filter(|user| !user.sees_all_keys())
    }
}

/// The error of a call that was refused.
pub fn refused(user: &User, entry: &CommandEntry, denied: Denied) -> CommandError {
    CommandError::Echo([b"NOPERM ", &reason(user, entry, denied, None)[..]].concat())
}

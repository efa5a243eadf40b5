//! Filters of CLIENT KILL and CLIENT LIST: which connections are meant.
//!
//! Both know all filters of Redis 8 and Valkey 9. A connection is chosen if all filters match it. A filter that is
//! given twice counts as given the last time; ids add up.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::format;
use crate::core::args::is;
use crate::core::client::{ClientClass, ClientRecord};
use crate::core::client_line::{capabilities_of, flags_of};
use crate::core::{CommandError, Server};
use crate::resp::Args;

/// The letters of CLIENT LIST's flags that a filter may ask for.
const KNOWN_FLAGS: &[u8] = b"bcdeirtuxABEIMNOPRSTU";
/// The letters of capabilities that a filter may ask for.
const KNOWN_CAPABILITIES: &[u8] = b"r";

/// The command whose filters are read. They differ in a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// CLIENT KILL, which spares its own connection by default.
    Kill,
    /// CLIENT LIST.
    List,
}

/// What a connection must be like.
#[derive(Debug, PartialEq)]
enum Trait {
    Ids(Vec<i64>),
    Addr(Vec<u8>),
    Laddr(Vec<u8>),
    Ip(Vec<u8>),
    User(Vec<u8>),
    Class(Class),
    MaxAge(i64),
    Idle(i64),
    Name(Vec<u8>),
    LibName(Vec<u8>),
    LibVer(Vec<u8>),
    Db(u64),
    Flags(Vec<u8>),
    Capa(Vec<u8>),
}

#[derive(Debug)]
struct Condition {
    of: Trait,
    /// Whether the connection must not be like this.
    is_negated: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Filter {
    conditions: Vec<Condition>,
    /// Whether the asking connection itself is left out.
    skips_own: bool,
}

/// The classes of connections that filters know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Normal,
    Primary,
    Replica,
    Pubsub,
}

impl Class {
    fn named(word: &[u8]) -> Result<Class, CommandError> {
        let known = [
            ("NORMAL", Class::Normal),
            ("MASTER", Class::Primary),
            ("PRIMARY", Class::Primary),
            ("REPLICA", Class::Replica),
            ("SLAVE", Class::Replica),
            ("PUBSUB", Class::Pubsub),
        ];
        let found = known.iter().find(|(name, _)| is(word, name)).map(|(_, class)| *class);
        found.ok_or_else(|| CommandError::echo("Unknown client type '", word, "'"))
    }

    /// There is no primary here yet.
    fn of(record: &ClientRecord) -> Class {
        match record.class() {
            ClientClass::Normal => Class::Normal,
            ClientClass::Replica => Class::Replica,
            ClientClass::Pubsub => Class::Pubsub,
        }
    }
}

impl Filter {
    /// Reads filters from the arguments, from index `from` on.
    ///
    /// # Errors
    /// Those of Redis and Valkey, word for word.
    pub(super) fn read(server: &Server, args: Args<'_>, from: usize, of: Of) -> Result<Filter, CommandError> {
        let mut filter = Filter { conditions: Vec::new(), skips_own: of == Of::Kill };
        let mut at = from;
        while let Some(word) = args.get(at) {
            let Some(value) = args.get(at + 1) else { return Err(CommandError::Syntax) };
            let is_negated = word.len() > 4 && word[..4].eq_ignore_ascii_case(b"NOT-");
            let name = if is_negated { &word[4..] } else { word };
            at += 2;
            let found = match () {
                () if is(name, "ID") => {
                    let mut ids = vec![first_id(value, of)?];
                    while let Some(word) = args.get(at) {
                        match format::parse_i64(word) {
                            Some(id) => ids.push(valid_id(id, of)?),
                            None if of == Of::List && !is_filter(word) => return Err(NO_ID),
                            None => break,
                        }
                        at += 1;
                    }
                    Trait::Ids(ids)
                }
                () if is(name, "SKIPME") && !is_negated => {
                    filter.skips_own = yes_or_no(value)?;
                    continue;
                }
                () => read_one(server, name, value, is_negated)?,
            };
            filter.add(found, is_negated);
        }
        Ok(filter)
    }

    /// The one connection with this address: the old form of CLIENT KILL.
    pub(super) fn of_address(address: &[u8]) -> Filter {
        let mut filter = Filter { conditions: Vec::new(), skips_own: false };
        filter.add(Trait::Addr(address.to_vec()), false);
        filter
    }

    fn add(&mut self, of: Trait, is_negated: bool) {
        let is_same = |c: &&mut Condition| {
            c.is_negated == is_negated && std::mem::discriminant(&c.of) == std::mem::discriminant(&of)
        };
        match self.conditions.iter_mut().find(is_same) {
            None => self.conditions.push(Condition { of, is_negated }),
            Some(Condition { of: Trait::Ids(ids), .. }) => {
                if let Trait::Ids(more) = of {
                    ids.extend(more);
                }
            }
            Some(earlier) => earlier.of = of,
        }
    }

    /// The chosen connections: in the order of the given ids if there are any, otherwise by id.
    pub(super) fn choose(&self, server: &Server, own: u64, now: i64) -> Vec<Arc<ClientRecord>> {
        let matches = |record: &Arc<ClientRecord>| {
            (!self.skips_own || record.id != own) && self.conditions.iter().all(|c| c.matches(server, record, now))
        };
        let ids = self.conditions.iter().find_map(|condition| match condition {
            Condition { of: Trait::Ids(ids), is_negated: false } => Some(ids),
            _ => None,
        });
        match ids {
            None => server.clients.list().into_iter().filter(matches).collect(),
            Some(ids) => {
                let with_id = |id: &i64| server.clients.get(u64::try_from(*id).ok()?);
                ids.iter().filter_map(with_id).filter(matches).collect()
            }
        }
    }
}

impl Condition {
    fn matches(&self, server: &Server, record: &ClientRecord, now: i64) -> bool {
        let seconds_since = |ms: u64| now.saturating_sub(ms as i64) / 1000;
        let label = |label: &[u8], wanted: &[u8]| !label.is_empty() && label == wanted;
        let has_all = |letters: &str, wanted: &[u8]| wanted.iter().all(|letter| letters.as_bytes().contains(letter));
        let is_so = match &self.of {
            Trait::Ids(ids) => ids.contains(&(record.id as i64)),
            Trait::Addr(address) => record.peer.as_bytes() == address,
            Trait::Laddr(address) => record.local.as_bytes() == address,
            Trait::Ip(ip) => ip_of(&record.peer).as_bytes() == ip,
            Trait::User(name) => record.labels.lock().user_name() == name,
            Trait::Class(class) => Class::of(record) == *class,
            Trait::MaxAge(seconds) => seconds_since(record.created_ms) >= *seconds,
            Trait::Idle(seconds) => seconds_since(record.active_ms.load(Relaxed)) >= *seconds,
            Trait::Name(name) => label(&record.labels.lock().name, name),
            Trait::LibName(name) => label(&record.labels.lock().lib_name, name),
            Trait::LibVer(version) => label(&record.labels.lock().lib_ver, version),
            Trait::Db(db) => record.db.load(Relaxed) == *db,
            Trait::Flags(letters) => has_all(&flags_of(server, record), letters),
            Trait::Capa(letters) => has_all(capabilities_of(record), letters),
        };
        is_so != self.is_negated
    }
}

/// The peer without its port.
fn ip_of(peer: &str) -> &str {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

const NO_ID: CommandError = CommandError::Text("ERR Invalid client ID");
const ID_NOT_POSITIVE: CommandError = CommandError::Text("ERR client-id should be greater than 0");

/// Redis words a mistake in the first id by command.
fn first_id(word: &[u8], of: Of) -> Result<i64, CommandError> {
    match (format::parse_i64(word), of) {
        (Some(id), _) => valid_id(id, of),
        (None, Of::Kill) => Err(ID_NOT_POSITIVE),
        (None, Of::List) => Err(NO_ID),
    }
}

/// CLIENT LIST takes an id that no connection can have for one that is not there.
fn valid_id(id: i64, of: Of) -> Result<i64, CommandError> {
    if id < 1 && of == Of::Kill { Err(ID_NOT_POSITIVE) } else { Ok(id) }
}

/// Whether the word names a filter, so that a list of ids ends before it.
fn is_filter(word: &[u8]) -> bool {
    let name = match word.get(..4) {
        Some(not) if not.eq_ignore_ascii_case(b"NOT-") => &word[4..],
        _ => word,
    };
    let known = [
        "ID", "ADDR", "LADDR", "IP", "USER", "TYPE", "MAXAGE", "IDLE", "NAME", "LIB-NAME", "LIB-VER", "DB", "FLAGS",
        "CAPA", "SKIPME",
    ];
    known.iter().any(|known| is(name, known))
}

fn read_one(server: &Server, name: &[u8], value: &[u8], is_negated: bool) -> Result<Trait, CommandError> {
    let text = || value.to_vec();
    Ok(match () {
        () if is(name, "TYPE") => Trait::Class(Class::named(value)?),
        () if is(name, "ADDR") => Trait::Addr(text()),
        () if is(name, "LADDR") => Trait::Laddr(text()),
        () if is(name, "IP") => Trait::Ip(text()),
        () if is(name, "USER") => match server.users.get(value).is_some() {
            true => Trait::User(text()),
            false => return Err(CommandError::echo("No such user '", value, "'")),
        },
        () if is(name, "MAXAGE") && !is_negated => Trait::MaxAge(seconds("maxage", value)?),
        () if is(name, "IDLE") && !is_negated => Trait::Idle(seconds("idle", value)?),
        () if is(name, "NAME") => Trait::Name(text()),
        () if is(name, "LIB-NAME") => Trait::LibName(text()),
        () if is(name, "LIB-VER") => Trait::LibVer(text()),
        () if is(name, "DB") => Trait::Db(database(server, value)?),
        () if is(name, "FLAGS") => Trait::Flags(letters("flags", "FLAGS", KNOWN_FLAGS, value, is_negated)?),
        () if is(name, "CAPA") => Trait::Capa(letters("capa", "CAPA", KNOWN_CAPABILITIES, value, is_negated)?),
        () => return Err(CommandError::Syntax),
    })
}

fn seconds(name: &str, value: &[u8]) -> Result<i64, CommandError> {
    match format::parse_i64(value) {
        None => Err(CommandError::err(format_args!("{name} is not an integer or out of range"))),
        Some(seconds) if seconds < 1 => Err(CommandError::err(format_args!("{name} should be greater than 0"))),
        Some(seconds) => Ok(seconds),
    }
}

fn database(server: &Server, value: &[u8]) -> Result<u64, CommandError> {
    let number = format::parse_i64(value).ok_or(CommandError::Text("ERR DB is not an integer or out of range"))?;
    let last = server.config.settings().databases as u64 - 1;
    let known = u64::try_from(number).ok().filter(|number| *number <= last);
    known.ok_or_else(|| CommandError::err(format_args!("DB number should be between 0 and {last}")))
}

fn letters(what: &str, filter: &str, known: &[u8], value: &[u8], is_negated: bool) -> Result<Vec<u8>, CommandError> {
    if value.iter().all(|letter| known.contains(letter)) {
        return Ok(value.to_vec());
    }
    let place = if is_negated { format!("NOT-{filter}") } else { "provided".to_owned() };
    Err(CommandError::echo(&format!("Unknown {what} found in the {place} filter: "), value, ""))
}

fn yes_or_no(word: &[u8]) -> Result<bool, CommandError> {
    match () {
        () if is(word, "YES") => Ok(true),
        () if is(word, "NO") => Ok(false),
        () => Err(CommandError::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        assert_eq!(ip_of("127.0.0.1:6379"), "127.0.0.1");
        assert_eq!(ip_of("[::1]:6379"), "::1");
        assert_eq!(ip_of("/tmp/socket:0"), "/tmp/socket");
    }
}

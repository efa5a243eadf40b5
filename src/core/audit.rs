//! Which commands and keys the audit log is told of, and what it is told.
//!
//! `audit-log-rules` is a list of words. A command is noted if one of them means it, and none with a `-` does:
//!
//! | word | what it means |
//! |---|---|
//! | `auth` | logins and refusals of clients that have not logged in |
//! | `@admin` | the commands of a category |
//! | `flushall`, `config|set` | a command, or a subcommand |
//! | `~secret:*` | commands with a key that fits the pattern |
//! | `-info` | not this command |
//!
//! Invariants:
//! - What is noted of a call is its name, its keys in the form that `audit-log-keys` says, and of commands of the
//!   operator (`@admin`) their arguments, without secrets and cut. No value of a key is ever noted.
//! - While the log is off, no command looks at more than a bit of the hooks.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::base::audit::{AuditFile, Figures, json, now};
use crate::base::config::{AuditKeys, Settings};
use crate::base::glob;
use crate::base::lock::{Rank, RwLock};
use crate::core::client::ClientRecord;
use crate::core::hooks::{Hook, Hooks};
use crate::core::table::{CommandEntry, Table};
use crate::core::{CommandError, categories, flags};
use crate::resp::Args;

/// The most arguments of a command of the operator that are shown, and the most bytes of each.
const ARGUMENTS_MAX: usize = 16;
const ARGUMENT_BYTES_MAX: usize = 128;
/// The most keys that are shown.
const KEYS_MAX: usize = 16;

/// What to note.
#[derive(Debug, Default)]
pub struct Rules {
    /// By the index of a command.
    commands: Box<[bool]>,
    patterns: Vec<Box<[u8]>>,
    logins: bool,
    /// Whether a command may be among them that only reads a key.
    sees_reads: bool,
}

impl Rules {
    /// Reads the words of `audit-log-rules`.
    ///
    /// # Errors
    /// A word means nothing.
    pub fn of(text: &str, table: &Table) -> Result<Rules, String> {
        let mut rules = Rules { commands: vec![false; table.indices()].into(), ..Rules::default() };
        let all = || table.entries().iter().flat_map(|entry| std::iter::once(entry).chain(entry.subcommands()));
        let mut excluded = Vec::new();
        for word in text.split_ascii_whitespace() {
            if word.eq_ignore_ascii_case("auth") {
                rules.logins = true;
            } else if let Some(pattern) = word.strip_prefix('~') {
                rules.patterns.push(pattern.as_bytes().into());
            } else if let Some(name) = word.strip_prefix('@') {
                let found = categories::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
                let (category, _) = found.ok_or_else(|| format!("there is no category '{word}'"))?;
                all().filter(|entry| categories::of(entry.command).has(*category)).for_each(|entry| {
                    rules.commands[entry.index] = true;
                });
            } else {
                let (name, means) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
                let is_meant = |entry: &&CommandEntry| {
                    let of_container = entry.full_name.split('|').next().unwrap_or_default();
                    [&*entry.full_name, of_container].iter().any(|full| full.eq_ignore_ascii_case(name))
                };
                let meant: Vec<usize> = all().filter(is_meant).map(|entry| entry.index).collect();
                if meant.is_empty() {
                    return Err(format!("there is no command '{name}'"));
                }
                if means { meant.into_iter().for_each(|at| rules.commands[at] = true) } else { excluded.extend(meant) }
            }
        }
        excluded.into_iter().for_each(|at| rules.commands[at] = false);
        let reads = all().any(|entry| entry.is_plain_read && rules.commands[entry.index]);
        rules.sees_reads = reads || !rules.patterns.is_empty();
        Ok(rules)
    }

    fn mean(&self, entry: &CommandEntry, args: Args<'_>) -> bool {
        self.commands[entry.index] || !self.patterns.is_empty() && keys_of(entry, args).iter().any(|key| self.fit(key))
    }

    fn fit(&self, key: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| glob::matches(pattern, key))
    }
}

fn keys_of<'a>(entry: &CommandEntry, args: Args<'a>) -> Vec<&'a [u8]> {
    let places = entry.command.keys.slot_places(args).unwrap_or_default();
    places.into_iter().map(|place| args.at(place)).collect()
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub enum Ended<'a> {
    /// It was done.
    Done,
    /// It goes on elsewhere, or waits.
    Begun,
    /// This error answered it.
    Failed(&'a CommandError),
}

impl Ended<'_> {
    fn text(self) -> String {
        match self {
            Ended::Done => "ok".into(),
            Ended::Begun => "begun".into(),
            Ended::Failed(error) => String::from_utf8_lossy(CommandError::code(&error.wire())).into_owned(),
        }
    }
}

/// The audit log as it was at one time: a call is noted where the log was when the call began, so that the file also
/// tells who has switched it off.
#[derive(Debug, Default)]
pub struct Current {
    file: Option<AuditFile>,
    rules: Rules,
    keys: AuditKeys,
    rate_max: u64,
}

/// A call of which the log says that it has begun, and is to say how it ends.
#[derive(Debug)]
pub struct Begun {
    /// Where the log was when it began.
    pub log: Arc<Current>,
    /// The command's full name.
    pub command: Box<str>,
}

impl Begun {
    /// Notes how it has ended. Without an error it was done.
    #[cold]
    pub fn note_end(&self, client: &ClientRecord, error: Option<&[u8]>) {
        let (command, outcome) = (json(self.command.as_bytes()), json(error.unwrap_or(b"ok")));
        self.log.note(client, || format!("\"event\":\"end\",\"command\":\"{command}\",\"outcome\":\"{outcome}\""));
    }
}

/// The audit log of the server.
#[derive(Debug)]
pub struct Audit {
    current: RwLock<Arc<Current>>,
    /// How many events there were.
    pub figures: Arc<Figures>,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit { current: RwLock::new(Rank::Settings, Arc::default()), figures: Arc::default() }
    }
}

impl Audit {
    /// Follows the settings: opens the file, and reads the rules.
    ///
    /// # Errors
    /// The name of the directive at fault, and why; everything is as before.
    pub fn follow(&self, settings: &Settings, table: &Table, hooks: &Hooks) -> Result<(), (&'static str, String)> {
        let rules = Rules::of(&settings.audit_log_rules, table).map_err(|problem| ("audit-log-rules", problem))?;
        let path = &settings.audit_log_file;
        let file = match path.as_os_str().is_empty() {
            true => None,
            false => {
                let opened = AuditFile::open(path, Arc::clone(&self.figures));
                Some(opened.map_err(|error| ("audit-log-file", error.to_string()))?)
            }
        };
        let is_on = file.is_some();
        let sees_reads = is_on && rules.sees_reads;
        let (keys, rate_max) = (settings.audit_log_keys, settings.audit_log_max_per_second);
        *self.current.write() = Arc::new(Current { file, rules, keys, rate_max });
        hooks.set(Hook::Audit, is_on);
        hooks.set(Hook::AuditReads, sees_reads);
        Ok(())
    }

    /// The log as it is now.
    #[cold]
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    /// Notes a call that was refused before it ran, if the rules mean it, or because its client has not logged in.
    #[cold]
    pub fn note_refused(&self, entry: &CommandEntry, args: Args<'_>, client: &ClientRecord, error: &CommandError) {
        let current = self.current();
        let has_arguments = entry.command.arity.accepts(args.len());
        let is_login = current.rules.logins && matches!(error, CommandError::NoAuth);
        if is_login || has_arguments && current.rules.mean(entry, args) {
            current.note(client, || current.of_call(entry, args, Ended::Failed(error)));
        }
    }

    /// Notes that a client has tried to log in as this user.
    #[cold]
    pub fn note_login(&self, client: &ClientRecord, user: &[u8], how: &str, succeeded: bool) {
        let current = self.current();
        if current.rules.logins {
            let outcome = if succeeded { "ok" } else { "WRONGPASS" };
            let login = json(&user[..user.len().min(ARGUMENT_BYTES_MAX)]);
            current.note(client, || {
                format!("\"event\":\"login\",\"login\":\"{login}\",\"by\":\"{how}\",\"outcome\":\"{outcome}\"")
            });
        }
    }
}

impl Current {
    /// Notes a call, if the rules mean it. Returns whether they do.
    #[cold]
    pub fn note_call(&self, entry: &CommandEntry, args: Args<'_>, client: &ClientRecord, ended: Ended<'_>) -> bool {
        let is_meant = self.rules.mean(entry, args);
        if is_meant {
            self.note(client, || self.of_call(entry, args, ended));
        }
        is_meant
    }

    fn note(&self, client: &ClientRecord, what: impl FnOnce() -> String) {
        let Some(file) = &self.file else { return };
        file.note(self.rate_max, || {
            let user = json(client.labels.lock().user_name());
            let (id, address) = (client.id, json(client.peer.as_bytes()));
            let (time, what) = (now(), what());
            format!("{{\"time\":\"{time}\",\"user\":\"{user}\",\"address\":\"{address}\",\"client\":{id},{what}}}\n")
        });
    }

    fn of_call(&self, entry: &CommandEntry, args: Args<'_>, ended: Ended<'_>) -> String {
        let mut text = format!("\"event\":\"command\",\"command\":\"{}\"", json(entry.full_name.as_bytes()));
        let keys = keys_of(entry, args);
        if !keys.is_empty() && self.keys != AuditKeys::None {
            let shown: Vec<String> = keys.iter().take(KEYS_MAX).map(|key| format!("\"{}\"", self.key(key))).collect();
            text += &format!(",\"keys\":[{}],\"key_count\":{}", shown.join(","), keys.len());
        }
        if entry.command.flags.has(flags::ADMIN) {
            let shown: Vec<String> =
                (1..args.len().min(ARGUMENTS_MAX + 1)).map(|at| argument(entry, args, at)).collect();
            text += &format!(",\"arguments\":[{}]", shown.join(","));
        }
        text + &format!(",\"outcome\":\"{}\"", ended.text())
    }

    fn key(&self, key: &[u8]) -> String {
        match self.keys {
            AuditKeys::Plain => json(&key[..key.len().min(ARGUMENT_BYTES_MAX)]),
            AuditKeys::Digest => {
                let digest = Sha256::digest(key);
                format!("sha256:{}", digest[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
            AuditKeys::None => String::new(),
        }
    }
}

/// An argument of a command of the operator. Passwords in rules of users begin with a sign.
fn argument(entry: &CommandEntry, args: Args<'_>, at: usize) -> String {
    let arg = args.at(at);
    let is_password = arg.starts_with(b">") || arg.starts_with(b"<") || arg.starts_with(b"#") || arg.starts_with(b"!");
    if is_password || entry.command.secrets.is_some_and(|secrets| secrets(args, at)) {
        return "\"(redacted)\"".into();
    }
    format!("\"{}\"", json(&arg[..arg.len().min(ARGUMENT_BYTES_MAX)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing::with_args;

    fn meant(rules: &str, line: &str) -> bool {
        let table = Table::new(crate::command::GROUPS);
        let rules = Rules::of(rules, &table).expect("valid rules");
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        with_args(&words, |args| rules.mean(table.resolve(args).expect("a command"), args))
    }

    #[test]
    fn words_mean_commands_and_keys() {
        for (rules, line, expected) in [
            ("", "GET a", false),
            ("@read", "GET a", true),
            ("@read -get", "GET a", false),
            ("-get @read", "GET a", false),
            ("get", "GET a", true),
            ("xgroup|create", "XGROUP CREATE s g $", true),
            ("xgroup|create", "XGROUP DESTROY s g", false),
            ("xgroup", "XGROUP DESTROY s g", true),
            ("~secret:*", "MSET a 1 secret:b 2", true),
            ("~secret:*", "MSET a secret:1 b 2", false),
            ("auth", "GET a", false),
        ] {
            assert_eq!(meant(rules, line), expected, "{rules}: {line}");
        }
        let table = Table::new(crate::command::GROUPS);
        assert_eq!(Rules::of("@nosuch", &table).err().as_deref(), Some("there is no category '@nosuch'"));
        assert_eq!(Rules::of("-nosuch", &table).err().as_deref(), Some("there is no command 'nosuch'"));
        let sees_reads = |text| Rules::of(text, &table).expect("valid").sees_reads;
        assert!(sees_reads("~a") && sees_reads("@string") && !sees_reads("@write auth"));
    }
}

//! What a command is: a plain `static` beside its handler, with name, arity, flags, where its keys are, how it is
//! logged and its documentation.
//!
//! Policy lives in these fields and is never a comparison of names. Invariant: a [`flags::WRITE`] command has a
//! [`LogRule`] other than [`LogRule::Nothing`].

use super::call::{Call, SessionCall};
use super::error::CommandError;
use super::key_spec::{Keys, Places};
use crate::resp::{Args, Done, Reply};

/// What every handler returns.
pub type Outcome = Result<Done, CommandError>;

/// One command, or one subcommand of a container.
#[derive(Debug)]
pub struct Command {
    /// Upper case; of a subcommand, without its container.
    pub name: &'static str,
    /// How many arguments, the name (and the container's) included.
    pub arity: Arity,
    /// What it does, may do, and must be checked for.
    pub flags: Flags,
    /// Categories beyond those that the flags imply.
    pub categories: Categories,
    /// Where its keys are.
    pub keys: Keys,
    /// Which of its arguments are channels.
    pub channels: Channels,
    /// Which databases it uses.
    pub databases: Databases,
    /// The argument that is a member of the large collection at its only key, to be prefetched; 0 for none.
    pub member: usize,
    /// Whether an argument of a call is a secret, which no log may show; `None` if none is.
    pub secrets: Option<fn(Args<'_>, usize) -> bool>,
    /// How its effect is written to the log.
    pub log: LogRule,
    /// What runs it.
    pub handler: Handler,
    /// The version of Redis that had it first.
    pub since: &'static str,
    /// The group of Redis' documentation.
    pub group: &'static str,
    /// Its complexity, as documentation gives it.
    pub complexity: &'static str,
    /// Hints for clients, space-separated.
    pub tips: &'static str,
    /// Its arguments, as documentation writes them.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
}

impl Command {
    /// The values that most commands share, for `..Command::DEFAULT`.
    pub const DEFAULT: Command = Command {
        name: "",
        arity: Arity::Exactly(1),
        flags: Flags(0),
        categories: Categories(0),
        keys: Keys::NONE,
        channels: Channels::None,
        databases: Databases::Current,
        member: 0,
        secrets: None,
        log: LogRule::Nothing,
        handler: Handler::Container(&[]),
        since: "1.0.0",
        group: "generic",
        complexity: "O(1)",
        tips: "",
        syntax: "",
        summary: "",
    };

    /// The subcommands, of a container.
    pub fn subcommands(&self) -> &'static [&'static Command] {
        match self.handler {
            Handler::Container(subcommands) | Handler::ContainerOr(subcommands, _) => subcommands,
            _ => &[],
        }
    }
}

/// Which arguments of a command are channels that it publishes to, or subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// None.
    None,
    /// The first behind its name.
    First,
    /// All behind its name.
    All,
    /// All behind its name; they are patterns of channels.
    Patterns,
}

/// Which databases a command uses.
#[derive(Clone, Copy, Debug)]
pub enum Databases {
    /// If it has keys, or is about the keyspace: the selected one.
    Current,
    /// Those that the arguments at these places name; and the selected one, if it has keys.
    Named(fn(Args<'_>) -> Places),
    /// All.
    All,
}

/// How many arguments a command takes, its name included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// This many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
}

impl Arity {
    /// Whether this number of arguments is right.
    #[inline]
    pub fn accepts(self, given: usize) -> bool {
        match self {
            Arity::Exactly(n) => given == n,
            Arity::AtLeast(n) => given >= n,
        }
    }

    /// The arity that `COMMAND` shows.
    pub fn number(self) -> i64 {
        match self {
            Arity::Exactly(n) => n as i64,
            Arity::AtLeast(n) => -(n as i64),
        }
    }
}

/// What runs a command.
#[derive(Clone, Copy)]
pub enum Handler {
    /// A pure function of the keyspace.
    Data(fn(&mut Call<'_>, Reply<'_>) -> Outcome),
    /// Needs the connection or the server.
    Session(fn(&mut SessionCall<'_>, Reply<'_>) -> Outcome),
    /// A step of a transaction, which the executor takes itself.
    Transaction(Step),
    /// A script, which the executor runs.
    Script(ScriptForm),
    /// A change of the libraries of functions, which the executor makes.
    Libraries(LibraryChange),
    /// Does nothing by itself: its second word chooses.
    Container(&'static [&'static Command]),
    /// The same, with hidden subcommands: no list of commands shows them, statistics count them as the command
    /// itself, and a wrong number of arguments counts as an unknown word. DEBUG.
    Words(&'static [&'static [&'static Command]]),
    /// A container that does something without a second word.
    ContainerOr(&'static [&'static Command], fn(&mut SessionCall<'_>, Reply<'_>) -> Outcome),
}

/// A step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Commands are queued from here on.
    Multi,
    /// The queued commands are executed, unless a watched key has changed.
    Exec,
    /// The queue is dropped.
    Discard,
    /// EXEC will do nothing if these keys change.
    Watch,
    /// All keys cease to be watched.
    Unwatch,
}

/// How a call says which script it means, and what that may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptForm {
    /// By its text.
    Eval,
    /// By its name.
    EvalSha,
    /// By its text; it may not write.
    EvalRo,
    /// By its name; it may not write.
    EvalShaRo,
    /// A function.
    Function,
    /// A function, which may not write.
    FunctionRo,
}

/// What becomes of the libraries of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LibraryChange {
    /// There is one more, or another one of a name.
    Load,
    /// One is gone.
    Delete,
    /// All are gone.
    Flush,
    /// Those of a payload come in.
    Restore,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Handler::Data(_) => "Data",
            Handler::Session(_) => "Session",
            Handler::Transaction(_) => "Transaction",
            Handler::Script(_) => "Script",
            Handler::Libraries(_) => "Libraries",
            Handler::Container(_) | Handler::ContainerOr(..) => "Container",
            Handler::Words(_) => "Words",
        })
    }
}

/// What a command writes to the log: verbs, whatever a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRule {
    /// It changes nothing.
    Nothing,
    /// What became of each key that it changed, by [`Db::record`](crate::core::Db::record): relative times become
    /// absolute, conditions vanish, a change of nothing logs nothing. Where a large value went from one key to
    /// another, one barrier says so.
    Effects,
    /// What became of the whole keyspace or of a database, by [`Db::barrier`](crate::core::Db::barrier).
    Barrier,
}

/// A set of [`flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u64);

impl Flags {
    /// Both sets together.
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether any flag of `other` is in this set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }
}

/// The flags of a command. Those up to [`flags::MOVABLEKEYS`] are shown by `COMMAND`.
pub mod flags {
    use crate::core::Flags;

    macro_rules! define {
        ($($(#[$doc:meta])* $name:ident = $bit:literal, $shown:literal;)*) => {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
            /// Every flag that `COMMAND` shows, with its name there, in Redis' order.
            pub const SHOWN: &[(Flags, &str)] = &[$(($name, $shown)),*];
        };
    }
    define! {
        /// Changes the keyspace.
        WRITE = 0, "write";
        /// Reads keys and changes none.
        READONLY = 1, "readonly";
        /// Refused above `maxmemory`.
        DENYOOM = 2, "denyoom";
        /// For operators.
        ADMIN = 3, "admin";
        /// Publish and subscribe.
        PUBSUB = 4, "pubsub";
        /// Not in scripts.
        NOSCRIPT = 5, "noscript";
        /// May wait.
        BLOCKING = 6, "blocking";
        /// Allowed while the data is being loaded.
        LOADING = 7, "loading";
        /// Allowed on a stale replica.
        STALE = 8, "stale";
        /// Not shown to MONITOR.
        SKIP_MONITOR = 9, "skip_monitor";
        /// Not in the slow log.
        SKIP_SLOWLOG = 10, "skip_slowlog";
        /// Only meant for a cluster.
        ASKING = 11, "asking";
        /// Constant or logarithmic time.
        FAST = 12, "fast";
        /// Allowed before authentication.
        NO_AUTH = 13, "no_auth";
        /// May be replicated although it is no write.
        MAY_REPLICATE = 14, "may_replicate";
        /// Not between MULTI and EXEC.
        NO_MULTI = 15, "no_multi";
        /// Its keys depend on other arguments.
        MOVABLEKEYS = 16, "movablekeys";
        /// Allowed while a script runs for too long.
        ALLOW_BUSY = 17, "allow_busy";
        /// May be called without keys.
        NO_MANDATORY_KEYS = 18, "no_mandatory_keys";
        /// Not while loading in the background.
        NO_ASYNC_LOADING = 19, "no_async_loading";
    }
    /// Sends messages: waits while too many are undelivered.
    pub const PUBLISHES: Flags = Flags(1 << 20);
    /// Changes neither the settings nor the connection's state, so that the commands behind it share its facts.
    pub const KEEPS_FACTS: Flags = Flags(1 << 21);
    /// Answers by pushes, which `CLIENT REPLY` does not suppress.
    pub const PUSHES: Flags = Flags(1 << 22);
    /// Allowed to a subscriber in RESP2.
    pub const LISTENING: Flags = Flags(1 << 23);
    /// What CLIENT CACHING has said stays said behind its subcommands.
    pub const KEEPS_CACHING: Flags = Flags(1 << 31);
    /// Its effect reaches replicas although it changes no key, so that it waits in a pause of writes.
    pub const SPREADS: Flags = Flags(1 << 32);
    /// Runs alone, behind the closed gate, and may change any key.
    pub const GATE: Flags = Flags(1 << 24);
    /// Reads how many keys there are: waits until all are loaded.
    pub const COUNTS_KEYS: Flags = Flags(1 << 33);
    /// Receives a frozen view of the keyspace.
    pub const FROZEN: Flags = Flags(1 << 25);
    /// Locks one shard after another by itself.
    pub const WALKS: Flags = Flags(1 << 26);
    /// Does not set the access time of what it reads.
    pub const NO_TOUCH: Flags = Flags(1 << 27);
    /// Answers with the error of the disk, if there is one, although it writes nothing.
    pub const REPORTS_DISK_ERRORS: Flags = Flags(1 << 28);
    /// Is executed between MULTI and EXEC too, not queued.
    pub const NOT_QUEUED: Flags = Flags(1 << 29);
    /// Refused unless `enable-debug-command` allows it to this connection.
    pub const DEBUGGING: Flags = Flags(1 << 30);

    /// No two flags share a bit.
    const _: () = {
        let hidden = [
            PUBLISHES,
            KEEPS_CACHING,
            KEEPS_FACTS,
            PUSHES,
            LISTENING,
            GATE,
            FROZEN,
            WALKS,
            NO_TOUCH,
            REPORTS_DISK_ERRORS,
            NOT_QUEUED,
            DEBUGGING,
            SPREADS,
            COUNTS_KEYS,
        ];
        let (mut seen, mut at) = ((1 << SHOWN.len()) - 1, 0);
        while at < hidden.len() {
            assert!(seen & hidden[at].0 == 0 && hidden[at].0.is_power_of_two());
            seen |= hidden[at].0;
            at += 1;
        }
    };
}

/// A set of ACL [`categories`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Categories(pub u32);

impl Categories {
    /// Both sets together.
    pub const fn or(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// Whether any category of `other` is in this set.
    pub const fn has(self, other: Categories) -> bool {
        self.0 & other.0 != 0
    }
}

/// The ACL categories, in Redis' order.
pub mod categories {
    use crate::core::{Categories, Command, flags};

    macro_rules! define {
        ($($name:ident = $bit:literal, $shown:literal;)*) => {
            $(#[doc = concat!("`@", $shown, "`")] pub const $name: Categories = Categories(1 << $bit);)*
            /// Every category with its name.
            pub const ALL: &[(Categories, &str)] = &[$(($name, $shown)),*];
        };
    }
    define! {
        KEYSPACE = 0, "keyspace"; READ = 1, "read"; WRITE = 2, "write"; SET = 3, "set"; SORTEDSET = 4, "sortedset";
        LIST = 5, "list"; HASH = 6, "hash"; STRING = 7, "string"; BITMAP = 8, "bitmap"; HYPERLOGLOG = 9, "hyperloglog";
        GEO = 10, "geo"; STREAM = 11, "stream"; PUBSUB = 12, "pubsub"; ADMIN = 13, "admin"; FAST = 14, "fast";
        SLOW = 15, "slow"; BLOCKING = 16, "blocking"; DANGEROUS = 17, "dangerous"; CONNECTION = 18, "connection";
        TRANSACTION = 19, "transaction"; SCRIPTING = 20, "scripting";
    }

    /// All categories of a command: its own and those that its flags imply.
    pub fn of(command: &Command) -> Categories {
        let mut all = command.categories;
        let implied = [
            (flags::WRITE, WRITE),
            (flags::ADMIN, ADMIN.or(DANGEROUS)),
            (flags::PUBSUB, PUBSUB),
            (flags::BLOCKING, BLOCKING),
        ];
        for (flag, category) in implied {
            if command.flags.has(flag) {
                all = all.or(category);
            }
        }
        if command.flags.has(flags::READONLY) && !all.has(SCRIPTING) {
            all = all.or(READ);
        }
        all.or(if command.flags.has(flags::FAST) { FAST } else { SLOW })
    }
}

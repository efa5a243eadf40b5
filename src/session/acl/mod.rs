//! ACL: users, their rules, and what was refused to them.
//!
//! | file | subcommands |
//! |---|---|
//! | `users.rs` | SETUSER, DELUSER, GETUSER, USERS, LIST, DIGEST, WHOAMI, DRYRUN |
//! | `roles.rs` | SETROLE, DELROLE, GETROLE, ROLES |
//! | `files.rs` | LOAD, SAVE |
//! | here | CAT, GENPASS, LOG, HELP |

use crate::base::random;
use crate::core::args::{self, is};
use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, categories, flags, help};
use crate::resp::Reply;

mod files;
mod roles;
#[cfg(test)]
mod tests;
mod users;

pub use files::{load_at_start, tell_of_disabled};

/// See the module.
pub static COMMANDS: &[&Command] = &[&ACL];

static ACL: Command = Command {
    name: "ACL",
    arity: Arity::AtLeast(2),
    handler: Handler::Container(&[
        &CAT,
        &users::DELUSER,
        &roles::DELROLE,
        &users::DIGEST,
        &users::DRYRUN,
        &GENPASS,
        &roles::GETROLE,
        &users::GETUSER,
        &HELP,
        &users::LIST,
        &files::LOAD,
        &LOG,
        &roles::ROLES,
        &files::SAVE,
        &roles::SETROLE,
        &users::SETUSER,
        &users::USERS,
        &users::WHOAMI,
    ]),
    since: "6.0.0",
    group: "server",
    complexity: "Depends on subcommand.",
    summary: "Commands about users and what they may do.",
    ..Command::DEFAULT
};

const ANYWHERE: Flags = flags::NOSCRIPT.or(flags::LOADING).or(flags::STALE);

/// What most subcommands share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: ANYWHERE.or(flags::ADMIN),
    since: "6.0.0",
    group: "server",
    ..Command::DEFAULT
};

/// What a client of a cluster must do with the subcommands that change the server.
const ON_ALL_NODES: &str = "request_policy:all_nodes response_policy:all_succeeded";

/// The error of a form that no subcommand has.
fn unknown_form(call: &SessionCall<'_>) -> CommandError {
    CommandError::subcommand_syntax(call.args.at(1), "ACL")
}

static CAT: Command = Command {
    name: "CAT",
    arity: Arity::AtLeast(2),
    flags: ANYWHERE,
    handler: Handler::Session(cat),
    syntax: "[category]",
    summary: "The categories of commands, or the commands of one.",
    ..SUBCOMMAND
};

fn cat(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.len() > 3 {
        return Err(unknown_form(call));
    }
    let Some(wanted) = call.args.get(2) else {
        let mut names = reply.array(categories::ALL.len());
        categories::ALL.iter().for_each(|(_, name)| names.bulk(name.as_bytes()));
        return Ok(names.done());
    };
    let catalogue = call.server.users.catalogue();
    let Some(bit) = catalogue.category(wanted) else {
        return Err(CommandError::echo("Unknown category '", &wanted[..wanted.len().min(128)], "'"));
    };
    let found: Vec<_> = catalogue.commands().iter().filter(|known| known.categories & bit != 0).collect();
    let mut names = reply.array(found.len());
    found.iter().for_each(|known| names.bulk(known.name.as_bytes()));
    Ok(names.done())
}

static GENPASS: Command = Command {
    name: "GENPASS",
    arity: Arity::AtLeast(2),
    flags: ANYWHERE,
    handler: Handler::Session(genpass),
    syntax: "[bits]",
    summary: "Makes a password of random bits.",
    ..SUBCOMMAND
};

/// The most bits of a password.
const BITS_MAX: usize = 4096;

fn genpass(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let bits = match call.args.len() {
        2 => 256,
        3 => args::integer(call.args.at(2))?,
        _ => return Err(unknown_form(call)),
    };
    let bits = usize::try_from(bits).ok().filter(|bits| (1..=BITS_MAX).contains(bits));
    let bits = bits.ok_or(CommandError::Text(
        "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
    ))?;
    let digits: String = random::os_bytes::<{ BITS_MAX / 8 }>().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(reply.bulk(&digits.as_bytes()[..bits.div_ceil(4)]))
}

static LOG: Command = Command {
    name: "LOG",
    arity: Arity::AtLeast(2),
    handler: Handler::Session(log),
    complexity: "O(N)",
    syntax: "[count | RESET]",
    summary: "What was refused lately, or, by RESET, nothing more of it.",
    ..SUBCOMMAND
};

fn log(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    const SHOWN: i64 = 10;
    let refusals = &call.server.users.refusals;
    let count = match (call.args.len(), call.args.get(2)) {
        (2, _) => SHOWN,
        (3, Some(word)) if is(word, "RESET") => {
            refusals.lock().clear();
            return Ok(reply.ok());
        }
        (3, Some(word)) => args::integer(word)?,
        _ => return Err(unknown_form(call)),
    };
    let entries = refusals.lock().newest(usize::try_from(count).unwrap_or(0));
    let mut all = reply.array(entries.len());
    for entry in entries {
        let mut fields = all.map(10);
        fields.bulk(b"count");
        fields.int(entry.count as i64);
        let texts: [(&str, &[u8]); 4] = [
            ("reason", entry.reason.word().as_bytes()),
            ("context", entry.context.word().as_bytes()),
            ("object", &entry.object),
            ("username", &entry.username),
        ];
        for (name, text) in texts {
            fields.bulk(name.as_bytes());
            fields.bulk(text);
        }
        fields.bulk(b"age-seconds");
        fields.number(call.now.saturating_sub(entry.updated_ms) as f64 / 1000.0);
        fields.bulk(b"client-info");
        fields.bulk(&entry.client);
        let numbers = [
            ("entry-id", entry.id as i64),
            ("timestamp-created", entry.created_ms),
            ("timestamp-last-updated", entry.updated_ms),
        ];
        for (name, number) in numbers {
            fields.bulk(name.as_bytes());
            fields.int(number);
        }
        fields.end();
    }
    Ok(all.done())
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(acl_help),
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

fn acl_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "ACL",
        &[
            "CAT [<category>]",
            "    List all commands that belong to <category>, or all command categories",
            "    when no category is specified.",
            "DELROLE <rolename> [<rolename> ...]",
            "    Delete a list of roles that no user has.",
            "DELUSER <username> [<username> ...]",
            "    Delete a list of users.",
            "DIGEST",
            "    Return a digest of all roles and users.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Returns whether the user can execute the given command without executing the command.",
            "GETROLE <rolename>",
            "    Get the role's details.",
            "GETUSER <username>",
            "    Get the user's details.",
            "GENPASS [<bits>]",
            "    Generate a secure 256-bit user password. The optional `bits` argument can",
            "    be used to specify a different size.",
            "LIST",
            "    Show users details in config file format.",
            "LOAD",
            "    Reload users from the ACL file.",
            "LOG [<count> | RESET]",
            "    Show the ACL log entries.",
            "ROLES",
            "    List all the names of roles.",
            "SAVE",
            "    Save the current config to the ACL file.",
            "SETROLE <rolename> <rule> [<rule> ...]",
            "    Create or modify a role with the specified rules.",
            "SETUSER <username> <attribute> [<attribute> ...]",
            "    Create or modify a user with the specified attributes.",
            "USERS",
            "    List all the registered usernames.",
            "WHOAMI",
            "    Return the current connection username.",
        ],
    )
}

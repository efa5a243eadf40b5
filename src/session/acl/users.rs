//! ACL's subcommands about users.

use super::{ANYWHERE, ON_ALL_NODES, SUBCOMMAND};
use crate::access::file::is_name;
use crate::access::selector::Selector;
use crate::core::{Arity, Command, CommandError, Handler, Outcome, SessionCall, permission};
use crate::resp::Reply;
use crate::resp::reply::Elements;

pub(super) static SETUSER: Command = Command {
    name: "SETUSER",
    arity: Arity::AtLeast(3),
    secrets: Some(|_, at| at > 1),
    handler: Handler::Session(setuser),
    complexity: "O(N)",
    tips: ON_ALL_NODES,
    syntax: "username [rule [rule ...]]",
    summary: "Makes a user, or changes one, by rules: by all of them, or by none.",
    ..SUBCOMMAND
};

/// What is refused as the name of a user or a role.
pub(super) const BAD_NAME: CommandError = CommandError::Text("ERR Usernames can't contain spaces or null characters");

fn setuser(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let name = call.args.at(2);
    if !is_name(name) {
        return Err(BAD_NAME);
    }
    let rules: Vec<&[u8]> = call.args.from(3).collect();
    let set = call.server.users.set(name, &rules);
    set.map_err(|mistake| CommandError::Echo([b"ERR ", &mistake.wire()[..]].concat()))?;
    call.server.rules_changed();
    Ok(reply.ok())
}

pub(super) static DELUSER: Command = Command {
    name: "DELUSER",
    arity: Arity::AtLeast(3),
    secrets: Some(|_, at| at > 1),
    handler: Handler::Session(deluser),
    tips: ON_ALL_NODES,
    syntax: "username [username ...]",
    summary: "Deletes users, and closes their connections.",
    ..SUBCOMMAND
};

fn deluser(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    if call.args.from(2).any(|name| name == b"default") {
        return Err(CommandError::Text("ERR The 'default' user cannot be removed"));
    }
    let deleted = call.server.users.delete(call.args.from(2));
    call.server.rules_changed();
    Ok(reply.int(deleted as i64))
}

pub(super) static GETUSER: Command = Command {
    name: "GETUSER",
    arity: Arity::Exactly(3),
    secrets: Some(|_, at| at > 1),
    handler: Handler::Session(getuser),
    complexity: "O(N)",
    syntax: "username",
    summary: "What is known of a user, and what it may do.",
    ..SUBCOMMAND
};

fn getuser(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let Some(user) = call.server.users.get(call.args.at(2)) else { return Ok(reply.null()) };
    // As in Redis, unless there is more to tell than Redis knows.
    let has_databases = user.all_selectors().any(|selector| !selector.has_all_databases());
    let has_roles = !user.roles().is_empty();
    let mut fields = reply.map(6 + usize::from(has_databases) + usize::from(has_roles));
    fields.bulk(b"flags");
    let flags = user.flags();
    let mut words = fields.set(flags.len());
    flags.iter().for_each(|word| words.bulk(word.as_bytes()));
    words.end();
    fields.bulk(b"passwords");
    let mut passwords = fields.array(user.passwords().len());
    user.passwords().iter().for_each(|password| passwords.bulk(password.to_string().as_bytes()));
    passwords.end();
    describe(user.selectors(), has_databases, &mut fields);
    if has_roles {
        fields.bulk(b"roles");
        let mut roles = fields.array(user.roles().len());
        user.roles().iter().for_each(|role| roles.bulk(&role.name));
        roles.end();
    }
    Ok(fields.done())
}

/// Adds four fields, or five, about selectors: those of the first one, and `selectors` with the others.
pub(super) fn describe(selectors: &[Selector], has_databases: bool, fields: &mut Elements<'_>) {
    let one = |selector: &Selector, fields: &mut Elements<'_>| {
        let texts = [
            ("commands", selector.command_rules()),
            ("keys", selector.key_rules()),
            ("channels", selector.channel_rules()),
            ("databases", selector.database_rules()),
        ];
        for (name, rules) in texts.iter().take(3 + usize::from(has_databases)) {
            fields.bulk(name.as_bytes());
            fields.bulk(rules);
        }
    };
    let Some((root, others)) = selectors.split_first() else { return };
    one(root, fields);
    fields.bulk(b"selectors");
    let mut all = fields.array(others.len());
    for selector in others {
        let mut inner = all.map(3 + usize::from(has_databases));
        one(selector, &mut inner);
        inner.end();
    }
    all.end();
}

pub(super) static USERS: Command = Command {
    name: "USERS",
    handler: Handler::Session(users),
    complexity: "O(N)",
    summary: "The names of all users.",
    ..SUBCOMMAND
};

fn users(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let all = call.server.users.all();
    let mut names = reply.array(all.len());
    all.iter().for_each(|user| names.bulk(user.name()));
    Ok(names.done())
}

pub(super) static LIST: Command = Command {
    name: "LIST",
    handler: Handler::Session(list),
    complexity: "O(N)",
    summary: "The lines of all roles and users, as a file has them.",
    ..SUBCOMMAND
};

fn list(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let all = call.server.users.lines();
    let mut lines = reply.array(all.len());
    all.iter().for_each(|line| lines.bulk(line));
    Ok(lines.done())
}

pub(super) static DIGEST: Command = Command {
    name: "DIGEST",
    handler: Handler::Session(|call, reply| Ok(reply.bulk(call.server.users.digest().as_bytes()))),
    since: "valkey-9.2.0",
    complexity: "O(N)",
    summary: "A digest of all roles and users with their rules.",
    ..SUBCOMMAND
};

pub(super) static WHOAMI: Command = Command {
    name: "WHOAMI",
    flags: ANYWHERE,
    handler: Handler::Session(whoami),
    summary: "The user of this connection.",
    ..SUBCOMMAND
};

fn whoami(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.bulk(call.client.acting_user(call.server).name()))
}

pub(super) static DRYRUN: Command = Command {
    name: "DRYRUN",
    arity: Arity::AtLeast(4),
    handler: Handler::Session(dryrun),
    since: "7.0.0",
    syntax: "username command [arg [arg ...]]",
    summary: "Whether a user may make a call, which is not made.",
    ..SUBCOMMAND
};

fn dryrun(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let name = call.args.at(2);
    let Some(user) = call.server.users.get(name) else {
        return Err(CommandError::echo("User '", name, "' not found"));
    };
    let args = call.args.skip(3);
    let Some(entry) = call.server.table.meant(args) else {
        return Err(CommandError::echo("Command '", args.at(0), "' not found"));
    };
    if !entry.command.arity.accepts(args.len()) {
        return Err(CommandError::Arity(entry.full_name.clone()));
    }
    match permission::check(&user, entry, args, call.client.db) {
        Ok(()) => Ok(reply.ok()),
        Err(denied) => Ok(reply.bulk(&permission::reason(&user, entry, denied, Some(args.at(denied.place()))))),
    }
}

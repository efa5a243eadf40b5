//! ACL's subcommands about roles: named sets of rules that users take as a whole.

use super::users::{BAD_NAME, describe};
use super::{ON_ALL_NODES, SUBCOMMAND};
use crate::access::file::is_name;
use crate::core::{Arity, Command, CommandError, Handler, Outcome, SessionCall};
use crate::resp::Reply;

pub(super) static SETROLE: Command = Command {
    name: "SETROLE",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(setrole),
    since: "valkey-9.2.0",
    complexity: "O(N+M*C)",
    tips: ON_ALL_NODES,
    syntax: "rolename [rule [rule ...]]",
    summary: "Makes a role, or changes one and the users who have it, by rules: by all of them, or by none.",
    ..SUBCOMMAND
};

fn setrole(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let name = call.args.at(2);
    if !is_name(name) || name.is_empty() {
        return Err(BAD_NAME);
    }
    let rules: Vec<&[u8]> = call.args.from(3).collect();
    let set = call.server.users.set_role(name, &rules);
    set.map_err(|mistake| CommandError::Echo([b"ERR ", &mistake.wire()[..]].concat()))?;
    call.server.rules_changed();
    Ok(reply.ok())
}

pub(super) static DELROLE: Command = Command {
    name: "DELROLE",
    arity: Arity::AtLeast(3),
    handler: Handler::Session(delrole),
    since: "valkey-9.2.0",
    complexity: "O(N)",
    tips: ON_ALL_NODES,
    syntax: "rolename [rolename ...]",
    summary: "Deletes roles, all of them, unless a user has one.",
    ..SUBCOMMAND
};

fn delrole(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    match call.server.users.delete_roles(call.args.from(2)) {
        Ok(deleted) => Ok(reply.int(deleted as i64)),
        Err(used) => Err(CommandError::echo("The role '", &used, "' is assigned to users and cannot be removed")),
    }
}

pub(super) static GETROLE: Command = Command {
    name: "GETROLE",
    arity: Arity::Exactly(3),
    handler: Handler::Session(getrole),
    since: "valkey-9.2.0",
    complexity: "O(N)",
    syntax: "rolename",
    summary: "What the users of a role may do, and who they are.",
    ..SUBCOMMAND
};

fn getrole(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let Some((role, users)) = call.server.users.role(call.args.at(2)) else { return Ok(reply.null()) };
    let mut fields = reply.map(6);
    describe(&role.selectors, true, &mut fields);
    fields.bulk(b"users");
    let mut names = fields.array(users.len());
    users.iter().for_each(|name| names.bulk(name));
    names.end();
    Ok(fields.done())
}

pub(super) static ROLES: Command = Command {
    name: "ROLES",
    handler: Handler::Session(roles),
    since: "valkey-9.2.0",
    complexity: "O(N)",
    summary: "The names of all roles.",
    ..SUBCOMMAND
};

fn roles(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let all = call.server.users.roles();
    let mut names = reply.array(all.len());
    all.iter().for_each(|role| names.bulk(&role.name));
    Ok(names.done())
}

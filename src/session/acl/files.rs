//! Users in files: those that the configuration names, and the file that `aclfile` names.
//!
//! Invariants:
//! - A file with a mistake changes nothing, and does not let the server start.
//! - A saved file is complete on the disk before it takes the old one's name.

use std::path::Path;
use std::sync::Arc;

use super::{ON_ALL_NODES, SUBCOMMAND};
use crate::access::Users;
use crate::base::config::{Settings, acl_file};
use crate::base::logging;
use crate::core::{Command, CommandError, Handler, Outcome, Server, SessionCall};
use crate::resp::Reply;

/// The error of LOAD and SAVE without a file.
const NO_FILE: CommandError = CommandError::Text(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
     command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store \
     users in the Redis configuration.",
);

/// Makes the users that the settings name, in lines of their own or in a file.
///
/// # Errors
/// What is wrong with them.
pub fn load_at_start(users: &Users, settings: &Settings) -> Result<(), String> {
    users.set_all_channels(settings.acl_pubsub_default == "allchannels");
    users.follow_requirepass(&settings.requirepass);
    users.configure(&settings.roles, &settings.users)?;
    if !settings.aclfile.as_os_str().is_empty() {
        load_file(users, &settings.aclfile)?;
    }
    Ok(())
}

/// Tells the operator of users whom nobody can log in as.
pub fn tell_of_disabled(users: &Users) {
    for user in users.all().iter().filter(|user| !user.is_enabled()) {
        logging::notice(format_args!(
            "The user '{}' is disabled (there is no 'on' modifier in the user description). Make sure this is not a \
             configuration error.",
            String::from_utf8_lossy(user.name())
        ));
    }
}

fn load_file(users: &Users, path: &Path) -> Result<(), String> {
    let shown = path.display().to_string();
    let text = acl_file::read(path).map_err(|error| format!("Error loading ACLs, opening file '{shown}': {error}"))?;
    users.load(&shown, &text)
}

fn configured(call: &SessionCall<'_>) -> Result<Arc<Settings>, CommandError> {
    let settings = call.server.config.settings();
    if settings.aclfile.as_os_str().is_empty() { Err(NO_FILE) } else { Ok(settings) }
}

pub(super) static LOAD: Command = Command {
    name: "LOAD",
    handler: Handler::Session(load),
    complexity: "O(N)",
    summary: "Reads all users from their file again: all of them, or, if it has a mistake, none.",
    ..SUBCOMMAND
};

fn load(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let settings = configured(call)?;
    Ok(call.client.defer(reply, move |server: &Arc<Server>| {
        load_file(&server.users, &settings.aclfile).map_err(CommandError::err)?;
        server.rules_changed();
        Ok(())
    }))
}

pub(super) static SAVE: Command = Command {
    name: "SAVE",
    handler: Handler::Session(save),
    complexity: "O(N)",
    tips: ON_ALL_NODES,
    summary: "Writes all users to their file.",
    ..SUBCOMMAND
};

fn save(call: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    let settings = configured(call)?;
    Ok(call.client.defer(reply, move |server: &Arc<Server>| {
        let lines = server.users.lines();
        let text: Vec<u8> = lines.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect();
        acl_file::replace(&settings.aclfile, &text).map_err(|error| {
            logging::warning(format_args!("Writing ACL file for ACL SAVE: {error}"));
            CommandError::Text(
                "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
            )
        })
    }))
}

//! MODULE: there are no modules, and none can be loaded.

use crate::core::{Arity, Command, CommandError, Flags, Handler, Outcome, SessionCall, flags, help};
use crate::resp::Reply;

/// See the module.
pub(super) static COMMANDS: &[&Command] = &[&MODULE];

static MODULE: Command = Command {
    name: "MODULE",
    arity: Arity::AtLeast(2),
    flags: Flags(0),
    handler: Handler::Container(&[&HELP, &LIST, &LOAD, &LOADEX, &UNLOAD]),
    complexity: "Depends on subcommand.",
    summary: "Commands about modules, of which there are none.",
    ..SUBCOMMAND
};

/// What most subcommands share.
const SUBCOMMAND: Command = Command {
    arity: Arity::Exactly(2),
    flags: flags::ADMIN.or(flags::NOSCRIPT),
    since: "4.0.0",
    group: "server",
    ..Command::DEFAULT
};

static LIST: Command = Command {
    name: "LIST",
    handler: Handler::Session(|_, reply| Ok(reply.array(0).done())),
    complexity: "O(N)",
    tips: "nondeterministic_output_order",
    summary: "The loaded modules: none.",
    ..SUBCOMMAND
};

static LOAD: Command = Command {
    name: "LOAD",
    arity: Arity::AtLeast(3),
    flags: SUBCOMMAND.flags.or(flags::NO_ASYNC_LOADING),
    handler: Handler::Session(refuse),
    syntax: "path [arg [arg ...]]",
    summary: "Would load a module; refused.",
    ..SUBCOMMAND
};

static LOADEX: Command = Command {
    name: "LOADEX",
    since: "7.0.0",
    syntax: "path [CONFIG name value [CONFIG name value ...]] [ARGS args [args ...]]",
    ..LOAD
};

static UNLOAD: Command = Command {
    name: "UNLOAD",
    arity: Arity::Exactly(3),
    syntax: "name",
    summary: "Would unload a module; there is none.",
    ..LOAD
};

fn refuse(call: &mut SessionCall<'_>, _: Reply<'_>) -> Outcome {
    if !call.server.config.settings().enable_module_command.allows(call.client.record.is_local()) {
        return Err(CommandError::Text(
            "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it \
             from a local connection, otherwise you need to set this option in the configuration file, and then \
             restart the server.",
        ));
    }
    Err(CommandError::Text("ERR Ironkeep has no modules: none can be loaded, and there is none to unload"))
}

static HELP: Command = Command {
    name: "HELP",
    flags: flags::LOADING.or(flags::STALE),
    handler: Handler::Session(module_help),
    since: "5.0.0",
    summary: "What the subcommands do.",
    ..SUBCOMMAND
};

fn module_help(_: &mut SessionCall<'_>, reply: Reply<'_>) -> Outcome {
    help(
        reply,
        "MODULE",
        &[
            "LIST",
            "    Return a list of loaded modules.",
            "LOAD <path> [<arg> ...]",
            "    Load a module library from <path>, passing to it any optional arguments.",
            "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
            "    Load a module library from <path>, while passing it module configurations and optional arguments.",
            "UNLOAD <name>",
            "    Unload a module.",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::Runner;

    #[test]
    fn there_are_no_modules_and_the_permission_comes_first() {
        let mut t = Runner::new();
        assert_eq!(t.run("MODULE LIST"), "*0 ");
        assert!(t.run("MODULE LOAD /x.so").starts_with("-ERR MODULE command not allowed."));
        let mut t = Runner::with_config("enable-module-command local\n");
        for refused in ["MODULE LOAD /x.so", "MODULE LOADEX /x.so ARGS a", "MODULE UNLOAD x"] {
            assert!(t.run(refused).starts_with("-ERR Ironkeep has no modules"), "{refused}");
        }
        t.connect_from("10.0.0.1:5");
        assert!(t.run("MODULE UNLOAD x").starts_with("-ERR MODULE command not allowed."));
    }
}

//! MEMORY USAGE: the memory of a value. The container and its other subcommands are in `session::memory_commands`.

use crate::core::{
    Arity, Call, Command, CommandError, Handler, KeySpec, Keys, Outcome, Words, args, categories, flags,
};
use crate::resp::Reply;

/// What all subcommands share.
pub const SUBCOMMAND: Command =
    Command { arity: Arity::Exactly(2), since: "4.0.0", group: "server", ..Command::DEFAULT };

/// See the module.
pub static USAGE: Command = Command {
    name: "USAGE",
    arity: Arity::AtLeast(3),
    flags: flags::READONLY.or(flags::NO_TOUCH),
    categories: categories::READ,
    keys: Keys(&[KeySpec::at(2, "RO")]),
    handler: Handler::Data(usage),
    complexity: "O(N) where N is the number of samples.",
    syntax: "key [SAMPLES count]",
    summary: "Estimates the bytes of memory that a key and its value take.",
    ..SUBCOMMAND
};

fn usage(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let mut words = Words::new(call.args, 3);
    while let Some(word) = words.next() {
        // The size of a collection is known, not sampled. The count is checked and has no other effect.
        if !args::is(word, "SAMPLES") || words.left() == 0 || words.integer()? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    let key = call.key(2);
    Ok(match call.db.look_up(key).map(|entry| entry.memory()) {
        None => reply.null(),
        Some(bytes) => reply.int(bytes as i64),
    })
}

//! HELP: how every container describes its subcommands.

use crate::core::Outcome;
use crate::resp::Reply;

/// The reply of a container's HELP, in Redis' form. `lines` are those of the other subcommands: each a name with its
/// arguments, followed by its indented description.
pub fn help(reply: Reply<'_>, container: &str, lines: &[&str]) -> Outcome {
    let mut elements = reply.array(lines.len() + 3);
    elements.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    lines.iter().for_each(|line| elements.simple(line));
    elements.simple("HELP");
    elements.simple("    Prints this help.");
    Ok(elements.done())
}

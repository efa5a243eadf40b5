//! `ironkeep man`: the manual page, made from the usage and the table of directives.

use std::ffi::OsString;

use super::{Ended, SOUND};
use crate::base::config::directive::{Directive, Kind};
use crate::base::config::directives::GROUPS;
use crate::base::config::usage;

const DESCRIPTION: &str = "\
Ironkeep is a persistent data store that speaks the protocol of Redis. It serves with every core, writes each change \
into a checksummed log, and takes snapshots without a fork. Without arguments it serves at 127.0.0.1:6379 and keeps \
its data in ./ironkeep-data.";

/// What is true of every way to call the program.
const STATUS: &[(&str, &str)] = &[
    ("0", "Success: the server was asked to end and lost nothing, or a command found nothing wrong."),
    ("1", "The server could not start, or a command could not do its work. Standard error says why."),
    ("2", "A command has done its work and found damage, losses, or weak doors."),
    ("3", "check-config has found an open door."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/ironkeep/ironkeep.conf", "The configuration of the packaged service."),
    ("/var/lib/ironkeep", "The data of the packaged service: MANIFEST, log, snapshots."),
    ("./ironkeep-data", "The data without a configuration (directive dir)."),
];

const SIGNALS: &[(&str, &str)] = &[
    ("SIGTERM, SIGINT", "End, as shutdown-on-sigterm and shutdown-on-sigint say."),
    ("SIGHUP, SIGUSR1", "Open logfile anew."),
];

/// Prints the page.
pub(super) fn run(args: Vec<OsString>) -> Ended {
    if !args.is_empty() {
        return Err("no arguments are expected".to_owned());
    }
    Ok((page(), SOUND))
}

/// A text as roff reads it.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', r"\e").replace('-', r"\-");
    // A line must not begin as a request does.
    match escaped.starts_with(['.', '\'']) {
        true => format!(r"\&{escaped}"),
        false => escaped,
    }
}

fn page() -> String {
    let mut page = format!(
        ".TH IRONKEEP 1 \"\" \"Ironkeep {}\" \"User Commands\"\n.SH NAME\nironkeep \\- a persistent, Redis-compatible \
         data store\n.SH SYNOPSIS\n",
        env!("CARGO_PKG_VERSION")
    );
    preformatted(&mut page, usage::forms());
    page.push_str(&format!(".SH DESCRIPTION\n{}\n", roff(DESCRIPTION)));
    page.push_str(".SH EXAMPLES\n");
    preformatted(&mut page, usage::examples());
    for (title, rows) in [("EXIT STATUS", STATUS), ("FILES", FILES), ("SIGNALS", SIGNALS)] {
        page.push_str(&format!(".SH {title}\n"));
        rows.iter().for_each(|(name, text)| entry(&mut page, name, text));
    }
    page.push_str(".SH DIRECTIVES\nOf the configuration file, and with two dashes in front, of the command line.\n");
    for group in GROUPS {
        page.push_str(&format!(".SS {}\n", roff(group.title)));
        for directive in group.directives.iter().filter(|directive| !directive.hidden) {
            entry(&mut page, &heading(directive), directive.doc);
        }
    }
    page.push_str(".SH SEE ALSO\n.BR redis\\-cli (1)\n");
    page
}

fn preformatted(page: &mut String, text: &str) {
    page.push_str(".nf\n");
    for line in text.lines() {
        page.push_str(&roff(line.strip_prefix("       ").unwrap_or(line)));
        page.push('\n');
    }
    page.push_str(".fi\n");
}

fn entry(page: &mut String, name: &str, text: &str) {
    page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(name), roff(text)));
}

/// Name and default of a directive.
fn heading(directive: &Directive) -> String {
    match (&directive.kind, directive.default) {
        (Kind::FileOnly, _) => format!("{} ...", directive.name),
        (_, "") => format!("{} \"\"", directive.name),
        (_, default) => format!("{} {default}", directive.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn the_page_names_everything() {
        let page = page();
        for word in ["\n.SH EXIT STATUS\n", r"check\-config", r"\fBmaxmemory\-policy noeviction\fR", "SIGHUP"] {
            assert!(page.contains(word), "{word}");
        }
        assert!(page.lines().all(|line| !line.starts_with('\'')), "no line begins as a request by accident");
        assert_eq!(roff(".x -a \\"), r"\&.x \-a \e");
    }

    /// `man` reads the page without a complaint, where there is one.
    #[test]
    fn man_reads_it() {
        let mut man = Command::new("man");
        man.args(["--warnings", "-l", "-"]).env("MANROFFSEQ", "").env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8");
        let Ok(mut man) = man.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
            return eprintln!("there is no man here: the page was not read");
        };
        man.stdin.take().expect("a pipe").write_all(page().as_bytes()).expect("it reads");
        let output = man.wait_with_output().expect("it ends");
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.is_empty(), "{said}");
        assert!(text.contains("appendfsync"), "{text}");
    }
}

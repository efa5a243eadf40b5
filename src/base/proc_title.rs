//! The title of the process, which `ps` and `top` show: `proc-title-template`.
//!
//! ```text
//! memory of the kernel's making:  argument 0 ‖ argument 1 ‖ … ‖ NAME=value ‖ …       (strings, each with its NUL)
//! with a title:                   the title ‖ zeros
//! ```
//!
//! The kernel shows this memory, so a title is written over it. The environment's strings are moved away first, which
//! makes room for a title longer than the command line.

use std::sync::OnceLock;

use super::lock::{Mutex, Rank};

/// The memory for titles, and the name that the program was called by.
#[derive(Debug)]
struct Room {
    /// Its first byte.
    start: usize,
    /// Behind the last byte of the arguments.
    arguments_end: usize,
    /// Behind its last byte.
    end: usize,
}

static ROOM: OnceLock<Option<Room>> = OnceLock::new();
static WRITING: Mutex<()> = Mutex::new(Rank::OperatorLog, ());

/// What stands for `{name}` in a template.
pub type Values<'a> = &'a [(&'a str, &'a str)];

/// A template with its values filled in, without spaces at its end; `None` if it is empty, names something that there
/// is not, or its braces do not match.
pub fn expand(template: &str, values: Values<'_>) -> Option<String> {
    let (mut title, mut rest) = (String::new(), template);
    while let Some(open) = rest.find('{') {
        let (before, name) = rest.split_at(open);
        let (name, behind) = name[1..].split_once('}')?;
        title += before;
        title += values.iter().find(|(known, _)| *known == name)?.1;
        rest = behind;
    }
    title += rest;
    title.truncate(title.trim_end().len());
    (!title.is_empty() && !rest.contains('}')).then_some(title)
}

/// Moves the environment, so that [`set`] has its memory. Later calls of [`set`] do nothing without it.
///
/// To be called once, before there is a second thread and after the arguments were read.
pub fn make_room() {
    ROOM.get_or_init(|| {
        let room = find_room()?;
        for (name, value) in std::env::vars_os() {
            // SAFETY: there is no other thread that could read the environment. Setting a variable copies its strings.
            unsafe { std::env::set_var(name, value) };
        }
        Some(room)
    });
}

/// Where the kernel put arguments and environment: fields 48 to 51 of `/proc/self/stat`.
fn find_room() -> Option<Room> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let fields: Vec<usize> = stat.rsplit_once(')')?.1.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    let at = |field: usize| fields.get(field - 2).copied().filter(|address| *address != 0);
    let (start, arguments_end, environment, end) = (at(48)?, at(49)?, at(50)?, at(51)?);
    let is_one = start < arguments_end && arguments_end == environment && environment <= end;
    is_one.then_some(Room { start, arguments_end, end })
}

/// Sets the title, as much of it as there is room for.
pub fn set(title: &str) {
    let Some(Some(room)) = ROOM.get() else { return };
    let _one_at_a_time = WRITING.lock();
    let length = title.len().min(room.end - room.start - 1);
    let base = room.start as *mut u8;
    // SAFETY: the bytes from `start` to `end` are writable memory of this process that lasts as long as it. The
    // arguments were read before, and the environment's strings have been moved. Writers take turns.
    unsafe {
        base.write_bytes(0, room.end - room.start);
        base.copy_from_nonoverlapping(title.as_ptr(), length);
        let last = room.arguments_end - 1;
        if length < last - room.start {
            // An argument area whose last byte is not zero tells the kernel that a title stands there.
            (last as *mut u8).write(b'.');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_what_there_is() {
        let values: Values<'_> = &[("title", "ironkeep"), ("listen-addr", "*:6379"), ("server-mode", "")];
        let expanded = |template| expand(template, values);
        assert_eq!(expanded("{title} {listen-addr} {server-mode}").as_deref(), Some("ironkeep *:6379"));
        assert_eq!(expanded("my {title}!").as_deref(), Some("my ironkeep!"));
        assert_eq!(expanded("plain").as_deref(), Some("plain"));
        for wrong in ["", "{server-mode}", "{titel}", "{title", "title}", "{}"] {
            assert_eq!(expanded(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_kernel_says_where_arguments_and_environment_are() {
        let room = find_room().expect("a kernel with /proc");
        assert!(room.start < room.arguments_end && room.arguments_end <= room.end);
    }
}

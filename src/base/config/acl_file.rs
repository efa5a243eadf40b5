//! The file of users, as the configuration is a file: read as a whole, and replaced as a whole.

use std::io;
use std::path::Path;

use super::rewrite;

/// The most bytes that are read.
const BYTES_MAX: u64 = 64 << 20;

/// The text of the file.
///
/// # Errors
/// It cannot be read, or is too long. The error's text is the system's.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| system_text(&error))?.len();
    if length > BYTES_MAX {
        return Err("the file is too long".to_owned());
    }
    std::fs::read(path).map_err(|error| system_text(&error))
}

/// Puts a text in the place of the file's. The permissions stay; those of a new file are its owner's alone.
///
/// # Errors
/// It cannot be written. The old text is then untouched.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    rewrite::replace(path, text)
}

/// The text of an error without its number.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

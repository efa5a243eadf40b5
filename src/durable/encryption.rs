//! Where the master keys of an encrypted store come from.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::shell;
use crate::base::config::Settings;
use crate::persist::crypt::{Encryption, MasterKeys};

/// How long a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });

/// How the store is encrypted, as it is configured; `None` without a key.
pub fn encryption(settings: &Settings) -> Option<Encryption> {
    let (path, command) = (settings.encryption_key_file.clone(), settings.encryption_key_command.clone());
    // The keys are asked for again later, when the working directory may be another one.
    let path = std::path::absolute(&path).unwrap_or(path);
    let source: Arc<dyn Fn() -> _ + Send + Sync> =
        match (settings.encryption_key_file.as_os_str().is_empty(), command.is_empty()) {
            (true, true) => return None,
            (false, true) => Arc::new(move || from_file(&path)),
            (true, false) => Arc::new(move || from_command(&command)),
            (false, false) => Arc::new(|| {
                Err("there are `encryption-key-file` and `encryption-key-command`; one of them must go".into())
            }),
        };
    Some(Encryption { source, writes: settings.encrypt_files })
}

/// Reads the master keys from a file.
///
/// # Errors
/// In words for the operator, with the file's name.
fn from_file(path: &Path) -> Result<MasterKeys, String> {
    let failed = |problem: String| format!("encryption-key-file {}: {problem}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    MasterKeys::read(file).map_err(failed)
}

/// Runs a command by the shell and reads the master keys from what it prints.
///
/// # Errors
/// In words for the operator. What the command prints is not repeated.
fn from_command(command: &str) -> Result<MasterKeys, String> {
    let failed = |problem: String| format!("encryption-key-command: {problem}");
    let ended = shell::run(shell::command(command, &[]), COMMAND_TIME, || true, MasterKeys::read);
    let ended = ended.map_err(failed)?;
    if !ended.status.success() {
        return Err(failed(format!("it has failed: {}", ended.status)));
    }
    ended.output.unwrap_or_else(|| Err("its output does not end".into())).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Config;

    fn problem(directive: &str, value: &str) -> String {
        let config = Config::from_text(format!("{directive} \"{value}\"").as_bytes()).expect("a valid text");
        let encryption = encryption(&config.settings()).expect("there is a key");
        (encryption.source)().err().unwrap_or_default()
    }

    #[test]
    fn keys_come_from_a_file_or_a_command() {
        let home = tempfile::tempdir().unwrap();
        let (path, key) = (home.path().join("key"), "5".repeat(64));
        let file = path.to_str().unwrap();
        std::fs::write(&path, &key).unwrap();
        assert_eq!(problem("encryption-key-file", file), "");
        assert!(problem("encryption-key-file", "/nowhere").contains("/nowhere: No such file"));
        std::fs::write(&path, vec![b'#'; 70_000]).unwrap();
        assert!(problem("encryption-key-file", file).contains("more than 65536 bytes"));
        assert_eq!(problem("encryption-key-command", &format!("echo {key}")), "");
        assert!(problem("encryption-key-command", "echo secret; exit 3").contains("exit status: 3"));
        let told = problem("encryption-key-command", "echo secret");
        assert!(told.contains("line 1 is no key") && !told.contains("secret"), "{told}");
        assert!(problem("encryption-key-command", "sleep 7 & echo x").contains("does not end"));
        assert!(encryption(&Config::from_text(b"").unwrap().settings()).is_none());
    }
}

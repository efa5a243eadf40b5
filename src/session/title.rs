//! The title of the process: what `proc-title-template` stands for.

use crate::base::config::Settings;
use crate::base::proc_title;

/// Sets the title that the settings ask for.
///
/// # Errors
/// The template is not one, in Redis' words.
pub fn apply(settings: &Settings, config_file: &str) -> Result<(), String> {
    let title = expand(settings, config_file)
        .ok_or_else(|| "template format is invalid or contains unknown variables".to_owned())?;
    if settings.set_proc_title {
        proc_title::set(&title);
    }
    Ok(())
}

fn expand(settings: &Settings, config_file: &str) -> Option<String> {
    let program = std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let unix = settings.unixsocket.display().to_string();
    let first = settings.bind.first().map_or("*", |address| address.trim_start_matches('-'));
    let first = if first == "*" || first == "::*" { "*" } else { first };
    let listens = match settings.port {
        0 if settings.tls_port != 0 => format!("{first}:{}", settings.tls_port),
        0 if !unix.is_empty() => unix.clone(),
        port => format!("{first}:{port}"),
    };
    proc_title::expand(
        &settings.proc_title_template,
        &[
            ("title", program.as_deref().unwrap_or("ironkeep")),
            ("listen-addr", &listens),
            ("server-mode", ""),
            ("port", &settings.port.to_string()),
            ("tls-port", &settings.tls_port.to_string()),
            ("unixsocket", &unix),
            ("config-file", config_file),
        ],
    )
}

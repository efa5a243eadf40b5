//! Any bytes as a configuration file: an error or settings, never a panic. CONFIG SET must accept the values that
//! CONFIG GET shows.
#![no_main]

use ironkeep::base::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(config) = Config::from_text(text) else { return };
    let default = Config::default();
    for (name, value) in config.get(&[b"*"]) {
        let result = default.set(&[(&name, &value)], true, |_, _, _| Ok(()));
        if let Err(error) = result {
            let problem = error.to_string();
            assert!(problem.contains("immutable") || problem.contains("protected"), "{problem}");
        }
    }
});

//! The names of protocol versions and cipher suites in the configuration: those of OpenSSL, as Redis takes them, and
//! those of the standard.
//!
//! Only what the library offers can be named. All of it has forward secrecy and authenticated encryption, so the
//! classes of OpenSSL's language (`HIGH`, `DEFAULT`, `!aNULL` …) each stand for everything or for nothing.

use rustls::crypto::ring::cipher_suite as suite;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// The suites with OpenSSL's names, as the server prefers them. The name of the standard is the library's.
static SUITES: &[(&str, SupportedCipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", suite::TLS13_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Classes of OpenSSL's language that all suites of TLS 1.2 here belong to.
const ALL: &[&str] = &["ALL", "DEFAULT", "COMPLEMENTOFALL", "HIGH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2"];

/// The versions that a text like `TLSv1.2 TLSv1.3` names; both for an empty one.
///
/// # Errors
/// Redis' text, or that the version is too old.
pub(super) fn protocols(text: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let mut versions: Vec<&'static SupportedProtocolVersion> = Vec::new();
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        let version = match () {
            () if word.eq_ignore_ascii_case("TLSv1.3") => &rustls::version::TLS13,
            () if word.eq_ignore_ascii_case("TLSv1.2") => &rustls::version::TLS12,
            () if word.eq_ignore_ascii_case("TLSv1") || word.eq_ignore_ascii_case("TLSv1.1") => {
                return Err(format!("tls-protocols: {word} is withdrawn (RFC 8996) and not offered"));
            }
            () => {
                return Err("Invalid tls-protocols specified. Use a combination of 'TLSv1', 'TLSv1.1', 'TLSv1.2' and \
                            'TLSv1.3'."
                    .into());
            }
        };
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    Ok(if versions.is_empty() { rustls::ALL_VERSIONS.to_vec() } else { versions })
}

/// The suites that `tls-ciphers` (TLS 1.2) and `tls-ciphersuites` (TLS 1.3) leave; all for an empty text.
///
/// # Errors
/// One of them leaves nothing, in Redis' words.
pub(super) fn suites(old: &str, new: &str) -> Result<Vec<SupportedCipherSuite>, String> {
    let all = |of_new: bool| SUITES.iter().filter(move |(_, suite)| suite.tls13().is_some() == of_new);
    let named = |word: &str, of_new: bool| {
        let is_called = |suite: &SupportedCipherSuite| {
            suite.suite().as_str().is_some_and(|name| name.replace("TLS13_", "TLS_").eq_ignore_ascii_case(word))
        };
        all(of_new).find(|(name, suite)| name.eq_ignore_ascii_case(word) || is_called(suite)).map(|(_, suite)| *suite)
    };
    let chosen = |text: &str, of_new: bool| {
        let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
        for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
            if let Some(excluded) = word.strip_prefix(['!', '-']) {
                let of_class = |name: &str| name.split('-').any(|part| part.eq_ignore_ascii_case(excluded));
                let is_excluded = |suite: &SupportedCipherSuite| {
                    named(excluded, of_new) == Some(*suite)
                        || SUITES.iter().any(|(name, other)| other == suite && of_class(name))
                };
                chosen.retain(|suite| !is_excluded(suite));
                continue;
            }
            let word = word.trim_start_matches('+');
            match named(word, of_new) {
                Some(suite) if !chosen.contains(&suite) => chosen.push(suite),
                Some(_) => {}
                None if !of_new && ALL.contains(&word) => {
                    let more: Vec<_> = all(of_new).map(|(_, suite)| *suite).collect();
                    chosen.extend(more.into_iter().filter(|suite| !chosen.contains(suite)).collect::<Vec<_>>());
                }
                // As OpenSSL: a suite that is not offered is passed over, if another one is.
                None => {}
            }
        }
        chosen
    };
    let mut suites = Vec::new();
    for (text, of_new, name) in [(new, true, "ciphersuites"), (old, false, "ciphers")] {
        if text.is_empty() {
            suites.extend(all(of_new).map(|(_, suite)| *suite));
            continue;
        }
        let chosen = chosen(text, of_new);
        if chosen.is_empty() {
            return Err(format!("Failed to configure {name}: {text}"));
        }
        suites.extend(chosen);
    }
    Ok(suites)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(protocols("").map(|all| all.len()), Ok(2));
        assert_eq!(protocols("TLSv1.3"), Ok(vec![&rustls::version::TLS13]));
        assert_eq!(protocols("tlsv1.2 TLSv1.3 TLSv1.2").map(|all| all.len()), Ok(2));
        assert!(protocols("TLSv1.1").is_err_and(|problem| problem.contains("RFC 8996")));
        assert!(protocols("SSLv3").is_err_and(|problem| problem.starts_with("Invalid tls-protocols specified.")));
    }

    #[test]
    fn suites_by_both_names_and_by_class() {
        let count = |old, new| suites(old, new).map(|suites| suites.len());
        assert_eq!(count("", ""), Ok(9));
        assert_eq!(count("ECDHE-RSA-AES128-GCM-SHA256", ""), Ok(4));
        assert_eq!(count("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:nosuch", "TLS_AES_128_GCM_SHA256"), Ok(2));
        assert_eq!(count("HIGH:!aNULL:!MD5", ""), Ok(9));
        assert_eq!(count("HIGH:!CHACHA20", "TLS_AES_256_GCM_SHA384"), Ok(5));
        assert_eq!(count("DEFAULT:!ECDSA:!ECDHE-RSA-AES256-GCM-SHA384", ""), Ok(5));
        assert_eq!(count("", "nosuch"), Err("Failed to configure ciphersuites: nosuch".into()));
        assert_eq!(count("RC4-SHA", ""), Err("Failed to configure ciphers: RC4-SHA".into()));
        let first = suites("", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256").map(|suites| suites[0].suite());
        assert_eq!(first, Ok(rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256));
    }
}

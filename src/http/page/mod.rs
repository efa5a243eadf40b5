//! The page for people: one file, put together from the parts beside this one, that asks `/status`, `/history` and
//! `/data/…` for all that it shows.
//!
//! Invariants:
//! - It loads nothing from elsewhere, and the browser is told to refuse what is not this style and this script, and
//!   markup that a script makes of text.
//! - The server's words reach it as JSON alone and become text, never markup.

use std::sync::LazyLock;

use base64ct::{Base64, Encoding};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{StatusCode, header::CONTENT_SECURITY_POLICY};
use sha2::{Digest, Sha256};

use super::reply::{Reply, reply};

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(include_str!("plot.js"), include_str!("figures.js"), include_str!("keys.js"));

/// The page, and what its browser may do with it.
static PAGE: LazyLock<(Bytes, HeaderValue)> = LazyLock::new(|| {
    let page = FRAME.replacen("/*STYLE*/", STYLE, 1).replacen("/*SCRIPT*/", SCRIPT, 1);
    let digest = |text: &str| Base64::encode_string(&Sha256::digest(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
        digest(STYLE),
        digest(SCRIPT)
    );
    (page.into(), HeaderValue::try_from(policy).expect("letters, digits and signs"))
});

/// Gives it.
pub(super) fn give() -> Reply {
    let (page, policy) = &*PAGE;
    let mut reply = reply(StatusCode::OK, "text/html; charset=utf-8", page.clone());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_needs_more_than_the_policy_allows() {
        let page = std::str::from_utf8(&PAGE.0).expect("a text");
        assert_eq!((page.matches("<style").count(), page.matches("<script").count()), (1, 1));
        assert!(
            page.contains(&format!("<style>{STYLE}</style>")) && page.contains(&format!("<script>{SCRIPT}</script>"))
        );
        let has_handler = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(!FRAME.split([' ', '\n', '<']).any(has_handler), "an event handler in markup");
        for forbidden in ["style=", "javascript:", "http://", "https://", "src=", "@import", "url("] {
            let allowed = forbidden == "http://" && SCRIPT.matches(forbidden).count() == 1;
            assert!(!FRAME.contains(forbidden) && !STYLE.contains(forbidden), "{forbidden}");
            // The name of SVG is no address.
            assert!(allowed || !SCRIPT.contains(forbidden), "{forbidden}");
        }
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!SCRIPT.contains(forbidden), "{forbidden} makes markup or code of text");
        }
        let policy = PAGE.1.to_str().expect("a text");
        assert!(!policy.contains("inline") && !policy.contains("eval") && !policy.contains('*'), "{policy}");
    }

    #[test]
    fn what_the_script_looks_for_is_in_the_frame() {
        for part in SCRIPT.split("byId('").skip(1) {
            let id = part.split('\'').next().expect("a name");
            assert!(FRAME.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
}

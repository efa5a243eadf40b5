//! What is asked for, who may ask, and the answer.

use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};

use super::exposition::Form;
use super::house::{Caller, House, Shared};
use super::reply::{JSON, Reply, TEXT, pair_of, plain, query, reply};
use super::{browse, metrics, page, status};
use crate::access::password::Digest;
use crate::base::clock;
use crate::base::doors::is_public;
use crate::core::Server;

/// How a page is made of a server whose data is loaded.
type Page = fn(&Server, &House, &Request<Incoming>) -> Reply;

/// The pages that need the data. `/`, `/healthz` and `/readyz` answer before it is there.
const PAGES: &[(&str, Page)] = &[("/metrics", metrics_page), ("/status", status_page), ("/history", history_page)];

/// Answers a request.
pub(super) async fn answer(request: &Request<Incoming>, house: &House, caller: Caller) -> Reply {
    let mut reply = match refusal(request, &house.shared) {
        Some(refusal) => refusal,
        None if request.uri().path().starts_with(browse::UNDER) => browse::answer(request, house, caller).await,
        None => answer_here(request, house),
    };
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let of_others = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(of_others, HeaderValue::from_static("same-origin"));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        // Its body is not read.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

fn answer_here(request: &Request<Incoming>, house: &House) -> Reply {
    let (path, server) = (request.uri().path(), house.shared.server());
    match path {
        "/" => page::give(),
        "/healthz" => plain(StatusCode::OK, "alive\n"),
        "/readyz" => ready(server.map(|server| &**server)),
        _ => match (PAGES.iter().find(|(of, _)| *of == path), server) {
            (None, _) => plain(StatusCode::NOT_FOUND, "There is no such page.\n"),
            (Some(_), None) => plain(StatusCode::SERVICE_UNAVAILABLE, "The data is being loaded.\n"),
            (Some((_, page)), Some(server)) => page(server, house, request),
        },
    }
}

/// Why a request is not answered.
fn refusal(request: &Request<Incoming>, shared: &Shared) -> Option<Reply> {
    let current = shared.server().map(|server| server.config.settings());
    let settings = current.as_ref().unwrap_or(&shared.settings);
    if settings.http_token.is_empty() {
        // The token was taken away while other machines can reach the endpoint.
        let is_open = settings.http_bind.iter().any(|address| is_public(address));
        if is_open {
            return Some(plain(StatusCode::FORBIDDEN, "Set http-token: other machines can reach this address.\n"));
        }
    } else if !given_token(request).is_some_and(|given| is_same(&given, &settings.http_token)) {
        if let Some(server) = shared.server() {
            server.counters.access_denied_auth.add(1);
        }
        let mut reply = plain(StatusCode::UNAUTHORIZED, "The token is missing or wrong.\n");
        let ways = HeaderValue::from_static("Basic realm=\"ironkeep\", charset=\"UTF-8\"");
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, ways);
        return Some(reply);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut reply = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered.\n");
        reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(reply);
    }
    None
}

/// Compares in a time that does not depend on where they differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    Digest::of(given).is_among(&[Digest::of(token)])
}

/// The token of a request: `Bearer token`, or the password of `Basic`, whatever the user.
fn given_token(request: &Request<Incoming>) -> Option<Vec<u8>> {
    token_of(request.headers().get(header::AUTHORIZATION)?.to_str().ok()?)
}

fn token_of(authorization: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| pair_of(rest)).flatten();
    pair.map(|(_, password)| password)
}

/// Whether clients should be sent here: the data is loaded and the log takes writes.
fn ready(server: Option<&Server>) -> Reply {
    match server.map_or(Some("loading"), status::why_not_ready) {
        Some(why) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n").into()),
        None => plain(StatusCode::OK, "ready: master\n"),
    }
}

fn metrics_page(server: &Server, _: &House, request: &Request<Incoming>) -> Reply {
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accepted);
    reply(StatusCode::OK, form.content_type(), metrics::report(server, clock::now_ms(), form).into())
}

fn status_page(server: &Server, house: &House, _: &Request<Incoming>) -> Reply {
    reply(StatusCode::OK, JSON, status::report(server, &house.types, clock::now_ms()).into())
}

/// `?since=` names the youngest sample that the client has, in Unix ms.
fn history_page(_: &Server, house: &House, request: &Request<Incoming>) -> Reply {
    let since = query(request, "since").and_then(|since| since.parse().ok()).filter(|since: &f64| since.is_finite());
    reply(StatusCode::OK, JSON, house.history.report(since.unwrap_or(0.0), clock::now_ms()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_both_schemes() {
        assert_eq!(token_of("Bearer secret").as_deref(), Some(&b"secret"[..]));
        assert_eq!(token_of("bearer  secret ").as_deref(), Some(&b"secret"[..]));
        // "me:se:cret"
        assert_eq!(token_of("Basic bWU6c2U6Y3JldA==").as_deref(), Some(&b"se:cret"[..]));
        for broken in ["", "Bearer", "Basic", "Basic ???", "Basic bWU=", "Digest secret", "secret"] {
            assert_eq!(token_of(broken), None, "{broken}");
        }
        assert!(is_same(b"secret", b"secret") && !is_same(b"secre", b"secret") && !is_same(b"", b"secret"));
    }
}

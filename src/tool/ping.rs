//! `ironkeep ping`: asks a server whether it lives, for containers and scripts that have no client at hand.
//!
//! It needs no password: a server that demands one answers as well, and so lives.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::json::Object;
use super::{DAMAGED, Ended, SOUND, UNREADABLE};

/// How long to wait for each step.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 3 });
/// More bytes than an answer to PING has.
const ANSWER_MAX: usize = 512;

/// Asks the server at an address or a socket.
pub(super) fn run(args: Vec<OsString>) -> Ended {
    let (flags, places): (Vec<OsString>, Vec<OsString>) = args.into_iter().partition(|word| word == "--json");
    let place = match &places[..] {
        [] => "127.0.0.1:6379".to_owned(),
        [place] if !place.as_encoded_bytes().starts_with(b"-") => place.to_string_lossy().into_owned(),
        _ => return Err("one address is expected".to_owned()),
    };
    let answer = if place.contains('/') { ask_socket(&place) } else { ask_address(&place) };
    let said = answer.map_err(|error| error.to_string()).and_then(|answer| match answer.as_str() {
        "+PONG" => Ok(("PONG".to_owned(), SOUND)),
        _ if answer.starts_with("-NOAUTH") => Ok(("lives, and wants a password".to_owned(), SOUND)),
        _ if answer.starts_with('-') => Ok((answer[1..].to_owned(), DAMAGED)),
        _ => Err("this is no server of this protocol".to_owned()),
    });
    match said {
        _ if !flags.is_empty() => Ok(as_json(&place, &said)),
        Ok((text, code)) => Ok((text + "\n", code)),
        Err(error) => Err(format!("{place}: {error}")),
    }
}

/// The answer, or why there is none, and the exit code.
fn as_json(place: &str, said: &Result<(String, u8), String>) -> (String, u8) {
    let code = said.as_ref().map_or(UNREADABLE, |(_, code)| *code);
    let text = Object::new()
        .text("server", place)
        .flag("lives", said.is_ok())
        .flag("serves", code == SOUND)
        .maybe_text("answer", said.as_ref().ok().map(|(text, _)| text.as_str()))
        .maybe_text("error", said.as_ref().err().map(String::as_str))
        .end();
    (text + "\n", code)
}

fn ask_address(place: &str) -> io::Result<String> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in place.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return ask(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask_socket(path: &str) -> io::Result<String> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    ask(stream)
}

/// The first line of the answer, without its end.
fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    let (mut answer, mut bytes) = (Vec::new(), [0; 64]);
    while !answer.contains(&b'\n') && answer.len() < ANSWER_MAX {
        match stream.read(&mut bytes)? {
            0 => break,
            count => answer.extend_from_slice(&bytes[..count]),
        }
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(line.iter().map(|byte| if byte.is_ascii_control() { '?' } else { char::from(*byte) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What the tool makes of an answer.
    fn made_of(answer: &'static [u8]) -> Ended {
        made_of_with(answer, &[])
    }

    fn made_of_with(answer: &'static [u8], more: &[&str]) -> Ended {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let place = listener.local_addr().expect("an address").to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut question = [0; 14];
            stream.read_exact(&mut question).expect("a question");
            // A client that has seen enough may be gone.
            let _ = stream.write_all(answer);
        });
        let words = more.iter().copied().chain([place.as_str()]);
        let ended = run(words.map(OsString::from).collect());
        server.join().expect("it answers");
        ended
    }

    #[test]
    fn answers_become_exit_codes() {
        assert_eq!(made_of(b"+PONG\r\n").map(|(_, code)| code), Ok(0));
        assert_eq!(made_of(b"-NOAUTH Authentication required.\r\n").map(|(_, code)| code), Ok(0));
        let loading = made_of(b"-LOADING it loads\x1b\r\n").expect("an answer");
        assert_eq!(loading, ("LOADING it loads?\n".to_owned(), 2));
        for other in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", &[0; 5000]] {
            assert!(made_of(other).is_err());
        }
        assert!(run(vec!["127.0.0.1:1".into()]).is_err() && run(vec!["/nowhere/s".into()]).is_err());
        assert!(run(vec!["nonsense".into()]).is_err() && run(vec!["--loud".into()]).is_err());
    }

    #[test]
    fn answers_become_json() {
        let said = |answer| {
            let (text, code) = made_of_with(answer, &["--json"]).expect("an answer");
            let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let place = value.as_object_mut().expect("an object").remove("server").expect("whom it asked");
            assert!(place.as_str().expect("a text").starts_with("127.0.0.1:"), "{place}");
            (value.to_string(), code)
        };
        let pong = r#"{"answer":"PONG","error":null,"lives":true,"serves":true}"#;
        assert_eq!(said(b"+PONG\r\n"), (pong.to_owned(), 0));
        let loading = r#"{"answer":"LOADING \"it\"","error":null,"lives":true,"serves":false}"#;
        assert_eq!(said(b"-LOADING \"it\"\r\n"), (loading.to_owned(), 2));
        let (text, code) = said(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(code == 1 && text.contains(r#""lives":false"#) && text.contains("no server of this"), "{text}");
        let (text, code) = run(vec!["/nowhere/s".into(), "--json".into()]).expect("said as JSON");
        assert!(code == 1 && text.contains(r#""server":"/nowhere/s""#) && text.contains("No such file"), "{text}");
    }
}

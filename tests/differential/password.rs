//! Servers with `requirepass`: what works before AUTH, and how much an unknown client may send.

use crate::cases::{Run, read, report};
use crate::compare::{Pair, Protocol};
use crate::support::server::{Recipe, Server};

fn pair() -> Pair {
    Pair {
        reference: Recipe::reference().with("requirepass", "secret").start(),
        tested: Recipe::under_test().with("requirepass", "secret").start(),
    }
}

#[test]
fn cases() {
    let pair = pair();
    let groups = read("password.txt", include_str!("cases/password.txt"));
    let mut differences = Vec::new();
    for batch in [1, usize::MAX] {
        differences
            .extend(Run { pair: &pair, protocol: Protocol::Resp2, batch, flush: false, is_peer: false }.all(&groups));
    }
    report(&differences);
}

/// Before AUTH a client may send ten arguments of 16 KiB, no more.
#[test]
fn limits_before_auth() {
    let pair = pair();
    let streams: [&[u8]; 7] = [
        b"*10\r\n$4\r\nPING\r\n",
        b"*11\r\n$4\r\nPING\r\n",
        b"*1\r\n$16384\r\n",
        b"*1\r\n$16385\r\n",
        b"*2\r\n$4\r\nAUTH\r\n$16385\r\n",
        b"AUTH secret\r\n*11\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
        b"PING\r\nAUTH nope\r\nAUTH secret\r\nPING\r\n",
    ];
    for stream in streams {
        let (reference, tested) = (answer(&pair.reference, stream), answer(&pair.tested, stream));
        assert_eq!(
            reference.escape_ascii().to_string(),
            tested.escape_ascii().to_string(),
            "to {}",
            stream.escape_ascii()
        );
    }
}

fn answer(server: &Server, stream: &[u8]) -> Vec<u8> {
    let mut client = server.client();
    client.send(stream).expect("a small write");
    client.finish_sending();
    client.receive_until_close().expect("the server closes")
}

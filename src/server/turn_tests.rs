//! Tests of a panic in the middle of a turn, outside any handler.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::testing::start_with;
use super::workers;
use crate::command::GROUPS as DATA_GROUPS;
use crate::core::client::ClientRecord;
use crate::core::key_spec::Look;
use crate::core::mailbox::Accepted;
use crate::core::{Arity, Call, Command, Handler, KeySpec, Keys, Mail, Outcome, Server, Table, flags};
use crate::persist::FsyncPolicy;
use crate::persist::storage::SimStorage;
use crate::resp::{Args, Reply};
use crate::session::GROUPS as SESSION_GROUPS;

/// It panics when its keys are looked up, before it is executed.
static LOOK: Command = Command {
    name: "FAULTY.LOOK",
    arity: Arity::Exactly(2),
    flags: flags::READONLY,
    keys: Keys(&[KeySpec::looked_up(look, "RO access")]),
    handler: Handler::Data(looked_at),
    syntax: "key",
    summary: "Panics outside its handler.",
    ..Command::DEFAULT
};

static FAULTY: &[&Command] = &[&LOOK];

fn look(args: Args<'_>) -> Look {
    assert!(args.at(1) != b"panic", "on purpose, before the command is executed");
    Look::At(1)
}

fn looked_at(_: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    Ok(reply.ok())
}

fn connect(server: &Server) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let record = server.clients.register(ClientRecord { unix_socket: true, ..ClientRecord::default() });
    server.mailboxes.post(0, Mail::Connection { socket: Accepted::Unix(theirs), record });
    ours
}

fn expect(stream: &mut UnixStream, expected: &[u8]) {
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// The decoded commands of one client were left to the next client of its worker, which got their replies, or none.
#[test]
fn the_next_group_begins_with_nothing_of_one_that_panicked() {
    let storage = SimStorage::new();
    let groups: Vec<_> = DATA_GROUPS.iter().chain(SESSION_GROUPS).copied().chain([FAULTY]).collect();
    let table = Table::new(&groups);
    let server: Arc<Server> = start_with(&storage, 1, 1, FsyncPolicy::No, table).unwrap();
    workers::start(&server).unwrap();
    let mut healthy = connect(&server);
    for size in [3, 2000] {
        let mut faulty = connect(&server);
        faulty.write_all(b"FAULTY.LOOK k\r\n").unwrap();
        expect(&mut faulty, b"+OK\r\n");
        // One long argument: it is decoded on the general path, which keeps its progress, and it is too long to be
        // staged.
        let echo = format!("*2\r\n$4\r\nECHO\r\n${size}\r\n{}\r\n", "s".repeat(size));
        let many = format!("{echo}*12\r\n$6\r\nEXISTS\r\n{}", "$6\r\nsecret\r\n".repeat(11));
        faulty.write_all(format!("{many}FAULTY.LOOK panic\r\n").as_bytes()).unwrap();
        let mut rest = Vec::new();
        faulty.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "the connection of the panic ends");
        if size > 1000 {
            // This connection was not among those executed together with it.
            healthy.write_all(&b"PING\r\n".repeat(40)).unwrap();
            expect(&mut healthy, &b"+PONG\r\n".repeat(40));
        }
        healthy = connect(&server);
        healthy.write_all(&b"PING\r\n*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n".repeat(20)).unwrap();
        expect(&mut healthy, &b"+PONG\r\n$5\r\nhello\r\n".repeat(20));
    }
}

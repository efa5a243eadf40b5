//! The same bytes to the server under test and to a genuine redis-server: the replies must be the same bytes.
//!
//! | where | what |
//! |---|---|
//! | `cases/*.txt` | commands written by hand, one a line, one file per family; `cases.rs` reads and runs them |
//! | `record.rs` | holds the replies that stand in `cases/` against a newer server, and writes them |
//! | `protocol.rs` | raw byte streams from `cases/protocol.txt`, cut at every boundary, thousands deep |
//! | `password.rs` | `cases/password.txt` on servers with `requirepass` |
//! | `cluster.rs` | `cases/cluster.txt` on servers with `cluster-enabled` |
//! | `sequences.rs` | long random sequences, with a shortened one printed on failure |
//! | `messages.rs` | random sequences of several connections that subscribe and publish |
//! | `events.rs` | random sequences with a subscriber to the events of keys |
//! | `trackers.rs` | random sequences of several connections that track keys |
//! | `introspection.rs` | INFO, COMMAND, CLIENT LIST, LOLWUT: where only the form can be compared |
//! | `corpus.rs` | the scripts of the frameworks that `tests/run` installs |
//! | `access.rs` | random rules and random commands: the same verdicts |
//! | `changes.rs` | how many changes each command counts as, for save points |
//! | `compare.rs` | a pair of servers, and what "the same reply" means |
//!
//! Everything runs in RESP2 and RESP3, one by one and pipelined, with one, two and four threads.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod cases;
mod changes;
mod cluster;
mod compare;
mod corpus;
mod dump;
mod events;
mod introspection;
mod messages;
mod password;
mod protocol;
mod record;
mod sequences;
mod trackers;

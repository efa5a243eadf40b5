//! Shared by the tests of the whole server: starts servers and speaks to them in raw bytes.
//!
//! - Nothing here interprets a reply beyond its framing: tests compare the exact bytes.
//! - Every wait ends: a server that hangs fails the test.
//! - A server started here dies with its `Server` value, even when the test panics.
//!
//! The server under test is the `ironkeep` binary of this build. `IRONKEEP_TEST_SERVER` may name another program with
//! its arguments (`IRONKEEP_TEST_SERVER=redis-server`). The tests then check themselves against a server known to be
//! right.

// Each test program uses its own part of this module.
#![allow(dead_code)]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod generator;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod linear;
pub(crate) mod load;
pub(crate) mod newer;
pub(crate) mod program;
pub(crate) mod random;
pub(crate) mod reply;
pub(crate) mod server;
pub(crate) mod until;
pub(crate) mod words;

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag that ends other threads when it goes, also by a panic. A scope waits for its threads, so that a
/// failure would hang otherwise.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

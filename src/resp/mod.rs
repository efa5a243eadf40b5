//! The wire protocol, both directions, as bytes: RESP2, RESP3 and inline commands.
//!
//! - [`request`]: an incremental decoder from received bytes to the arguments of one command.
//! - [`reply`]: the only writer of replies; the versions of the protocol differ here and nowhere else.
//!
//! Nothing here knows commands, keys or connections.

pub mod reply;
pub mod request;

pub use reply::{Done, Elements, Output, Reply, Resp};
pub use request::{Args, ProtocolError, Request, RequestLimits, Span};

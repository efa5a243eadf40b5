//! The pending output of a connection: replies and pushes, in one order.
//!
//! Invariants:
//! - Nothing leaves before the block of the log whose content it may show is safe: see `server::turn`.
//! - Output that the socket does not take waits in memory, up to `client-output-buffer-limit` of the connection's
//!   class.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering::Relaxed;

use crate::base::clock;
use crate::base::config::OutputLimit;
use crate::core::client::ClientRecord;
use crate::core::client_line::BUFFER_BYTES;
use crate::core::message::Needs;
use crate::core::stats::WorkerCounters;
use crate::resp::Output;
use crate::server::socket::Stream;

/// The most pieces of one write to a socket.
const SLICES_MAX: usize = 64;
/// The most bytes sent before other connections get their turn.
const SENT_PER_TURN_BYTES: usize = 512 * 1024;
/// Sent bytes are dropped from the front once they are this many, and at least half of the output.
const SENT_KEPT_BYTES: usize = 256 * 1024;

/// What keeps bytes from leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// There is nothing to send.
    Nothing,
    /// They wait for the log. The flusher has the connection on its list.
    Held,
    /// The socket took less than there was.
    Backlogged,
}

/// The result of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Everything has left.
    All,
    /// The socket takes no more for now, or other connections get their turn.
    Part,
    /// The client has gone.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    /// Replies and pushes, of which `sent` bytes are gone.
    pub output: Output,
    sent: usize,
    /// What keeps them.
    pub sending: Sending,
    /// The block of the log that must be safe before they may leave.
    needs_block: u64,
    /// The blocks of running transactions that must be safe, too.
    needs_later: Vec<Needs>,
    /// Whether the log had failed all the time while the last commands ran, so that no write is among them.
    pub writes_refused: bool,
    /// Since when more than the soft limit is unsent, Unix ms; 0 if it is not.
    over_soft_limit_since_ms: i64,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox {
            output: Output::default(),
            sent: 0,
            sending: Sending::Nothing,
            needs_block: 0,
            needs_later: Vec::new(),
            writes_refused: false,
            over_soft_limit_since_ms: 0,
        }
    }
}

impl Outbox {
    /// How much is unsent, in bytes.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Holds the output until this block of the log is safe. Returns whether it was not held already.
    pub fn hold(&mut self, block: u64) -> bool {
        let was_held = self.sending == Sending::Held;
        self.needs_block = if was_held { self.needs_block.max(block) } else { block };
        self.sending = Sending::Held;
        !was_held
    }

    /// Has the output that is held wait for this, too.
    pub fn hold_for(&mut self, needs: Needs) {
        match needs.block() {
            u64::MAX => self.needs_later.push(needs),
            block => self.needs_block = self.needs_block.max(block),
        }
    }

    /// The block of the log that must be safe before the output may leave; `u64::MAX` while it is not known.
    pub fn needs_block(&mut self) -> u64 {
        let block = &mut self.needs_block;
        self.needs_later.retain(|needs| match needs.block() {
            u64::MAX => true,
            known => {
                *block = known.max(*block);
                false
            }
        });
        if self.needs_later.is_empty() { self.needs_block } else { u64::MAX }
    }

    /// Drops the output, which nobody will read.
    pub fn discard(&mut self) {
        self.output.clear();
        self.sent = 0;
        self.sending = Sending::Nothing;
        self.needs_later.clear();
    }

    /// Gives the empty buffer away.
    pub fn take_empty(&mut self) -> Output {
        self.sent = 0;
        std::mem::take(&mut self.output)
    }

    /// Sends as much as the socket takes, but no more than one turn's part.
    pub fn send(&mut self, stream: &mut Stream, record: &ClientRecord, counters: &WorkerCounters) -> Sent {
        let mut sent_now = 0;
        record.note_output(self.unsent() as u64);
        while self.sent < self.output.len() {
            if sent_now >= SENT_PER_TURN_BYTES {
                return self.keep_unsent(record);
            }
            let outcome = match self.output.one_slice(self.sent) {
                Some(slice) => stream.try_write(&[IoSlice::new(slice)]),
                None => {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let filled = self.output.slices(self.sent, &mut slices);
                    stream.try_write(&slices[..filled])
                }
            };
            match outcome {
                Ok(written) => {
                    counters.writes.add_alone(1);
                    counters.net_output_bytes.add_alone(written as u64);
                    record.total_output.store(record.total_output.load(Relaxed) + written as u64, Relaxed);
                    self.sent += written;
                    sent_now += written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.keep_unsent(record),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Sent::Failed,
            }
        }
        // What TLS has encrypted must leave as well.
        match stream.flush() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.keep_unsent(record),
            Err(_) => return Sent::Failed,
        }
        if self.sending == Sending::Backlogged {
            note_active(record);
        }
        self.sending = Sending::Nothing;
        self.over_soft_limit_since_ms = 0;
        if record.output_bytes.load(Relaxed) > 0 {
            let all = [&record.output_bytes, &record.output_room, &record.output_shared, &record.output_shared_bytes];
            all.into_iter().for_each(|of| of.store(0, Relaxed));
        }
        Sent::All
    }

    /// Keeps the rest for when the socket takes more, without the sent part.
    fn keep_unsent(&mut self, record: &ClientRecord) -> Sent {
        if self.sent > SENT_KEPT_BYTES && self.sent > self.output.len() / 2 {
            self.sent -= self.output.drop_front(self.sent);
        }
        self.sending = Sending::Backlogged;
        note_active(record);
        self.note_unsent(record);
        Sent::Part
    }

    /// Notes how much waits for the socket, for CLIENT LIST.
    pub fn note_unsent(&self, record: &ClientRecord) {
        if self.sending != Sending::Backlogged {
            return;
        }
        let (shared, shared_bytes) = self.output.by_reference();
        record.output_bytes.store(self.unsent() as u64, Relaxed);
        record.output_room.store(self.output.capacity() as u64, Relaxed);
        record.output_shared.store(shared as u64, Relaxed);
        record.output_shared_bytes.store(shared_bytes as u64, Relaxed);
    }

    /// Whether more is unsent than the limit allows.
    pub fn is_over(&mut self, limit: OutputLimit) -> bool {
        // Zero for what Redis keeps in the connection's own buffer, which counts for no limit.
        let waiting = Some(self.unsent() as u64).filter(|unsent| *unsent > BUFFER_BYTES).unwrap_or(0);
        if limit.hard > 0 && waiting > limit.hard {
            return true;
        }
        if limit.soft == 0 || waiting <= limit.soft {
            self.over_soft_limit_since_ms = 0;
            return false;
        }
        let now = clock::now_ms();
        if self.over_soft_limit_since_ms == 0 {
            self.over_soft_limit_since_ms = now;
        }
        now - self.over_soft_limit_since_ms > limit.soft_seconds as i64 * 1000
    }

    /// Whether more than the soft limit was unsent at the last check.
    pub fn is_above_soft_limit(&self) -> bool {
        self.over_soft_limit_since_ms > 0
    }
}

/// Notes that the client has done something now.
pub fn note_active(record: &ClientRecord) {
    record.active_ms.store(clock::now_ms() as u64, Relaxed);
}

//! A published message on its way: encoded once, shared by all who receive it.
//!
//! ```text
//! RESP2  *3 ┐                            ┌ $7 channel $5 hello
//! RESP3  >3 ┴ $7 message ────────────────┤
//!        >4   $8 pmessage $2 c* ─────────┘ the rest, the same for all
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::events::channels::{Kind, Receivers};
use crate::resp::reply::BY_REFERENCE_MIN_BYTES;
use crate::resp::{Output, Resp};

/// A message, whoever receives it.
#[derive(Debug)]
pub struct Message {
    kind: Kind,
    /// The channel and the text, encoded as the last two elements.
    rest: Vec<u8>,
    /// What must be safe before it leaves.
    pub needs: Needs,
}

impl Message {
    /// A message on a channel or shard channel.
    pub fn new(kind: Kind, channel: &[u8], text: &[u8], needs: Needs) -> Self {
        let mut rest = Output::new();
        rest.bulk(channel);
        rest.bulk(text);
        Message { kind, rest: rest.into_bytes(), needs }
    }

    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.rest.capacity() + size_of::<Message>()
    }
}

/// A message for the clients of one worker.
#[derive(Debug)]
pub struct Published {
    /// The message.
    pub message: Arc<Message>,
    /// Who receives it.
    pub receivers: Receivers,
}

impl Published {
    /// Writes a copy for a subscriber of the channel.
    pub fn write(&self, resp: Resp, out: &mut Output) {
        out.raw(match (self.message.kind, resp) {
            (Kind::Shard, Resp::V2) => b"*3\r\n$8\r\nsmessage\r\n",
            (Kind::Shard, Resp::V3) => b">3\r\n$8\r\nsmessage\r\n",
            (_, Resp::V2) => b"*3\r\n$7\r\nmessage\r\n",
            (_, Resp::V3) => b">3\r\n$7\r\nmessage\r\n",
        });
        self.write_rest(out);
    }

    /// Writes a copy for a subscriber of a pattern.
    pub fn write_for_pattern(&self, pattern: &[u8], resp: Resp, out: &mut Output) {
        out.raw(match resp {
            Resp::V2 => b"*4\r\n$8\r\npmessage\r\n",
            Resp::V3 => b">4\r\n$8\r\npmessage\r\n",
        });
        out.bulk(pattern);
        self.write_rest(out);
    }

    fn write_rest(&self, out: &mut Output) {
        if self.message.rest.len() < BY_REFERENCE_MIN_BYTES {
            out.raw(&self.message.rest);
        } else {
            out.raw_shared(Box::new(Rest(Arc::clone(&self.message))));
        }
    }

    /// Writes all copies for one client. Returns whether there was one.
    pub fn write_all(&self, client: u64, resp: Resp, out: &mut Output) -> bool {
        let mut is_receiver = self.receivers.channel.binary_search(&client).is_ok();
        if is_receiver {
            self.write(resp, out);
        }
        for (pattern, ids) in &self.receivers.patterns {
            if ids.binary_search(&client).is_ok() {
                self.write_for_pattern(pattern, resp, out);
                is_receiver = true;
            }
        }
        is_receiver
    }
}

/// The large rest of a message, which every receiver shares.
struct Rest(Arc<Message>);

impl AsRef<[u8]> for Rest {
    fn as_ref(&self) -> &[u8] {
        &self.0.rest
    }
}

/// The block of the log that must be safe before something leaves, because it shows that block's content.
#[derive(Clone, Debug)]
pub enum Needs {
    /// This one; 0 for none.
    Block(u64),
    /// The block of a transaction that is still running.
    Later(Arc<LaterBlock>),
}

impl Needs {
    /// The block; `u64::MAX` while it is not known.
    pub fn block(&self) -> u64 {
        match self {
            Needs::Block(block) => *block,
            Needs::Later(later) => later.0.load(Ordering::Acquire),
        }
    }
}

/// See [`Needs::Later`].
#[derive(Debug)]
pub struct LaterBlock(AtomicU64);

impl Default for LaterBlock {
    fn default() -> Self {
        LaterBlock(AtomicU64::new(u64::MAX))
    }
}

impl LaterBlock {
    /// Says which block it is.
    pub fn settle(&self, block: u64) {
        self.0.store(block, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_its_receiver_speaks() {
        let receivers =
            Receivers { channel: Arc::new(vec![1, 3]), patterns: vec![(b"c*"[..].into(), Arc::new(vec![3]))] };
        let message = Arc::new(Message::new(Kind::Channel, b"ch", b"hello", Needs::Block(0)));
        let published = Published { message, receivers };
        let written = |client, resp| {
            let mut out = Output::new();
            let was_written = published.write_all(client, resp, &mut out);
            assert_eq!(was_written, !out.is_empty());
            String::from_utf8_lossy(out.as_bytes()).replace("\r\n", " ")
        };
        assert_eq!(written(1, Resp::V2), "*3 $7 message $2 ch $5 hello ");
        let both = ">3 $7 message $2 ch $5 hello >4 $8 pmessage $2 c* $2 ch $5 hello ";
        assert_eq!(written(3, Resp::V3), both);
        assert_eq!(written(2, Resp::V3), "");
    }

    #[test]
    fn a_large_text_is_shared() {
        let text = vec![b'x'; 100_000];
        let message = Arc::new(Message::new(Kind::Shard, b"ch", &text, Needs::Block(0)));
        let published = Published { message, receivers: Receivers::default() };
        let mut out = Output::new();
        published.write(Resp::V3, &mut out);
        assert_eq!(out.len(), b">3\r\n$8\r\nsmessage\r\n$2\r\nch\r\n$100000\r\n\r\n".len() + 100_000);
        assert!(out.capacity() < 1000 && Arc::strong_count(&published.message) == 2);
    }

    #[test]
    fn a_block_is_known_when_the_transaction_ends() {
        let later = Arc::new(LaterBlock::default());
        let needs = Needs::Later(Arc::clone(&later));
        assert_eq!(needs.block(), u64::MAX);
        later.settle(7);
        assert_eq!((needs.block(), Needs::Block(3).block()), (7, 3));
    }
}

//! The log of a recovery in windows of bounded size: how all of it is applied before the server serves.

use super::block::{Block, open_block, read_block};
use super::error::PersistError;
use super::format::{BLOCK_HEADER, SEGMENT_HEADER};
use super::record::{Items, Record};
use super::recover::{Recovery, Segment};

/// Payload bytes after which a window ends.
const WINDOW_BYTES: u64 = 8 << 20;

/// The windows of the log; see [`Recovery::windows`].
pub struct Windows<'a> {
    recovery: &'a Recovery,
    segment: usize,
    at: usize,
    window_bytes: u64,
    /// The payloads of the current window that were encrypted.
    opened: Vec<Vec<u8>>,
}

/// Some consecutive blocks. The epochs must be applied in order.
#[derive(Debug, Default)]
pub struct Window<'a> {
    /// The epochs. Between two barriers, shards are independent of each other.
    pub epochs: Vec<Epoch<'a>>,
    /// How many blocks.
    pub blocks: u64,
    /// How many bytes they take in the file.
    pub bytes: u64,
    /// The number of the last.
    pub last_block: u64,
}

/// A barrier and the records after it.
#[derive(Debug, Default)]
pub struct Epoch<'a> {
    /// The barrier, which must be applied before the shards' records.
    pub barrier: Option<Record<'a>>,
    /// Each shard's records, in order. Shards may be applied in parallel.
    pub shards: Vec<(u16, Vec<Record<'a>>)>,
}

impl Recovery {
    /// The log in windows of bounded size, oldest first.
    pub fn windows(&self) -> Windows<'_> {
        Windows { recovery: self, segment: 0, at: SEGMENT_HEADER, window_bytes: WINDOW_BYTES, opened: Vec::new() }
    }
}

impl Windows<'_> {
    /// Sets how many payload bytes end a window.
    pub fn of_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// The next window, or `None` at the end of the log.
    ///
    /// # Errors
    /// A record is malformed. Nothing follows.
    pub fn next_window(&mut self) -> Result<Option<Window<'_>>, PersistError> {
        // In case of an error.
        let (mut segment, mut at) = (std::mem::replace(&mut self.segment, usize::MAX), self.at);
        let mut window = Window::default();
        let mut blocks: Vec<(&Segment, usize, Block<'_>, Option<usize>)> = Vec::new();
        self.opened.clear();
        let recovery = self.recovery;
        while window.bytes < self.window_bytes {
            let Some(read) = recovery.segments.get(segment) else { break };
            if at >= read.end {
                (segment, at) = (segment + 1, SEGMENT_HEADER);
                continue;
            }
            // The checksum was verified when the store was opened.
            let block = read_block(&read.bytes, at, false).map_err(|what| read.corrupt(at, what))?;
            let mut opened = None;
            if let Some(cipher) = &read.cipher {
                self.opened.push(open_block(&block, cipher).map_err(|what| read.corrupt(at, what))?);
                opened = Some(self.opened.len() - 1);
            }
            blocks.push((read, at, block, opened));
            at += block.len;
            window.blocks += 1;
            window.bytes += block.len as u64;
            window.last_block = block.header.number;
        }
        (self.segment, self.at) = (segment, at);
        let mut slots = vec![None; self.recovery.shards as usize];
        for (read, at, mut block, opened) in blocks {
            if let Some(opened) = opened {
                block.payload = &self.opened[opened];
            }
            add_block(&mut window, &block, read.version, &mut slots).map_err(|offset| {
                self.segment = usize::MAX;
                let what = format!("block {}: a record is malformed", block.header.number);
                read.corrupt(at + BLOCK_HEADER + offset, &what)
            })?;
        }
        Ok((window.blocks > 0).then_some(window))
    }
}

/// Adds a block's records to a window. `slots` maps a shard to its place in the last epoch.
fn add_block<'a>(
    window: &mut Window<'a>,
    block: &Block<'a>,
    version: u32,
    slots: &mut [Option<usize>],
) -> Result<(), usize> {
    let mut records = Vec::new();
    for item in Items::of_version(version, block.payload) {
        let (epoch, record) = item?;
        if !record.is_barrier() && usize::from(record.shard) >= slots.len() {
            return Err(0);
        }
        records.push((epoch, record));
    }
    // A barrier opens its epoch. The sort is stable: equal numbers keep their order.
    records.sort_by_key(|(epoch, record)| (*epoch, !record.is_barrier(), record.seq));
    for (_, record) in records {
        if record.is_barrier() || window.epochs.is_empty() {
            slots.fill(None);
            window.epochs.push(Epoch::default());
        }
        let epoch = window.epochs.last_mut().expect("pushed above at the latest");
        if record.is_barrier() {
            epoch.barrier = Some(record);
            continue;
        }
        let slot = &mut slots[usize::from(record.shard)];
        let index = *slot.get_or_insert_with(|| {
            epoch.shards.push((record.shard, Vec::new()));
            epoch.shards.len() - 1
        });
        epoch.shards[index].1.push(record);
    }
    Ok(())
}

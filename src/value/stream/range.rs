//! Iterators over the entries of a stream, in both directions.

use super::block::{Block, Entry};
use super::id::StreamId;
use crate::value::listpack::Pos;
use crate::value::tree::{Cursor, Tree};

/// Live entries by rising ids.
#[derive(Clone, Debug)]
pub struct Forward<'a> {
    cursor: Option<Cursor<'a, Block>>,
    next: Option<Pos>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Forward<'a> {
    pub(super) fn new(entries: &'a Tree<Block>, start: StreamId, end: StreamId) -> Self {
        let cursor = entries.cursor_by(|master| *master <= start).filter(|_| start <= end);
        let next = cursor.as_ref().and_then(|cursor| cursor.leaf().first());
        Forward { cursor, next, start, end }
    }
}

impl<'a> Iterator for Forward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let cursor = self.cursor.as_mut()?;
        loop {
            let Some(at) = self.next else {
                if !cursor.forward() {
                    break;
                }
                self.next = cursor.leaf().first();
                continue;
            };
            let raw = cursor.leaf().read(at)?;
            self.next = raw.next;
            if raw.entry.id > self.end {
                break;
            }
            if raw.entry.id >= self.start && raw.is_live() {
                return Some(raw.entry);
            }
        }
        self.cursor = None;
        None
    }
}

/// Live entries by falling ids.
#[derive(Clone, Debug)]
pub struct Backward<'a> {
    cursor: Option<Cursor<'a, Block>>,
    next: Option<Pos>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Backward<'a> {
    pub(super) fn new(entries: &'a Tree<Block>, start: StreamId, end: StreamId) -> Self {
        let cursor = entries.cursor_by(|master| *master <= end).filter(|_| start <= end);
        let next = cursor.as_ref().and_then(|cursor| cursor.leaf().last());
        Backward { cursor, next, start, end }
    }
}

impl<'a> Iterator for Backward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let cursor = self.cursor.as_mut()?;
        loop {
            let Some(at) = self.next else {
                if !cursor.backward() {
                    break;
                }
                self.next = cursor.leaf().last();
                continue;
            };
            let block = cursor.leaf();
            let raw = block.read(at)?;
            self.next = block.previous(at);
            if raw.entry.id < self.start {
                break;
            }
            if raw.entry.id <= self.end && raw.is_live() {
                return Some(raw.entry);
            }
        }
        self.cursor = None;
        None
    }
}

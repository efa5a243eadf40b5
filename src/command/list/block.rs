//! LMOVEM and BLMOVEM: several elements move from one list to another, together.
//!
//! Invariants:
//! - The reply has the elements in the order in which they stand in the destination.
//! - With EXACTLY, nothing moves unless there are as many.

use super::several::{BLOCKING, MOVE_KEYS, end};
use super::{ONE_LIST, ends};
use crate::core::waiting::{Block, BlockedOn, timeout_seconds};
use crate::core::{Arity, Call, Command, CommandError, Handler, LogRule, NotifyFlags, Outcome, Words, args, flags};
use crate::resp::Reply;
use crate::value::list::{AnyList, End, ListMut};

pub(super) static LMOVEM: Command = Command {
    name: "LMOVEM",
    arity: Arity::AtLeast(5),
    flags: flags::WRITE.or(flags::DENYOOM),
    keys: MOVE_KEYS,
    log: LogRule::Effects, // as a pop from one list and a push to the other
    handler: Handler::Data(lmovem),
    since: "8.10.0",
    complexity: "O(N) where N is the number of elements moved.",
    syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT> [<COUNT count | EXACTLY exactly> <OBO | BULK>]",
    summary: "Moves several elements from an end of one list to an end of another.",
    ..ONE_LIST
};

pub(super) static BLMOVEM: Command = Command {
    name: "BLMOVEM",
    arity: Arity::AtLeast(6),
    flags: BLOCKING.or(flags::DENYOOM),
    handler: Handler::Data(blmovem),
    syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout [<COUNT count | EXACTLY exactly> <OBO | BULK>]",
    summary: "Moves several elements as LMOVEM does, and waits for one, or for as many as there must be.",
    ..LMOVEM
};

/// What is to be moved.
struct Wish {
    from: End,
    to: End,
    count: usize,
    /// All of them, or none.
    exactly: bool,
    /// One is pushed after the other, in the order of their removal. Otherwise they keep their order.
    one_by_one: bool,
}

impl Wish {
    /// Reads the ends, and the words from an argument on.
    fn parse(call: &Call<'_>, words_at: usize) -> Result<Wish, CommandError> {
        let (from, to) = (end(call.args.at(3))?, end(call.args.at(4))?);
        let mut wish = Wish { from, to, count: 1, exactly: false, one_by_one: false };
        let mut words = Words::new(call.args, words_at);
        match words.left() {
            0 => return Ok(wish),
            3 => {}
            _ => return Err(CommandError::Syntax),
        }
        wish.exactly = match words.value()? {
            word if args::is(word, "EXACTLY") => true,
            word if args::is(word, "COUNT") => false,
            _ => return Err(CommandError::Syntax),
        };
        wish.count = args::positive(words.value()?, "count should be greater than 0")?;
        wish.one_by_one = match words.value()? {
            word if args::is(word, "OBO") => true,
            word if args::is(word, "BULK") => false,
            _ => return Err(CommandError::Syntax),
        };
        Ok(wish)
    }

    /// Whether elements that come in the order of their removal are turned round on their way to the destination.
    fn turns(&self) -> bool {
        self.from == End::Right && !self.one_by_one || self.to == End::Left && self.one_by_one
    }
}

fn lmovem(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let wish = Wish::parse(call, 5)?;
    Ok(match shift(call, &wish)? {
        Some(moved) => write(reply, &moved),
        None if wish.exactly => reply.null_array(),
        None => reply.array(0).done(),
    })
}

fn blmovem(call: &mut Call<'_>, reply: Reply<'_>) -> Outcome {
    let wish = Wish::parse(call, 6)?;
    let timeout = timeout_seconds(call.args.at(5), call.db.facts().now)?;
    match shift(call, &wish)? {
        Some(moved) => Ok(write(reply, &moved)),
        None => call.block_on(Block::new(timeout, BlockedOn::List), reply),
    }
}

fn write(reply: Reply<'_>, moved: &[Vec<u8>]) -> crate::resp::Done {
    let mut elements = reply.array(moved.len());
    moved.iter().for_each(|element| elements.bulk(element));
    elements.done()
}

/// Moves elements. Gives them as they stand in the destination; `None` if there are none, or not enough.
fn shift(call: &mut Call<'_>, wish: &Wish) -> Result<Option<Vec<Vec<u8>>>, CommandError> {
    let (source, destination) = (call.key(1), call.key(2));
    let len = call.db.peek_view::<AnyList>(source)?.map_or(0, |list| list.len());
    if len > 0 {
        call.db.peek_view::<AnyList>(destination)?;
    }
    if len == 0 || wish.exactly && len < wish.count {
        return Ok(None);
    }
    let count = len.min(wish.count);
    let push = |list: &mut ListMut<'_>, elements: &[Vec<u8>]| {
        list.expect(elements.len(), elements.iter().map(Vec::len).sum());
        match wish.to {
            End::Right => elements.iter().for_each(|element| list.push(element, End::Right)),
            End::Left => elements.iter().rev().for_each(|element| list.push(element, End::Left)),
        }
    };
    let is_rotation = source.bytes == destination.bytes;
    let moved = call.db.edit::<AnyList, _>(source, |list| {
        let (at, towards, range) = match wish.from {
            End::Left => (0, End::Right, 0..count),
            End::Right => (len - 1, End::Left, len - count..len),
        };
        let taken = list.view().iter_from(at, towards).take(count);
        let mut taken: Vec<Vec<u8>> = taken.map(|item| item.as_bytes(&mut itoa::Buffer::new()).to_vec()).collect();
        if wish.turns() {
            taken.reverse();
        }
        list.remove_range(range);
        if is_rotation {
            push(list, &taken);
        }
        Ok((taken, count as u64))
    })?;
    if is_rotation {
        match count < len {
            true => {
                call.record(source).pop(wish.from, count);
                record_push(call, 1, wish.to, &moved);
            }
            // A replay that removes all elements would remove the key, and its expiry.
            false => call.db.log_state(source),
        }
        call.db.notify(NotifyFlags::LIST, ends::pop_event(wish.from), source);
        call.db.notify(NotifyFlags::LIST, ends::push_event(wish.to), source);
        return Ok(Some(moved));
    }
    let before = call.db.changes();
    call.db.edit::<AnyList, _>(destination, |list| {
        push(list, &moved);
        Ok(((), 1))
    })?;
    // A move counts once for each element.
    call.db.count_as(before, 0);
    call.record(source).pop(wish.from, count);
    record_push(call, 2, wish.to, &moved);
    call.db.notify(NotifyFlags::LIST, ends::push_event(wish.to), destination);
    call.db.notify_edited(NotifyFlags::LIST, ends::pop_event(wish.from), source);
    Ok(Some(moved))
}

/// Logs that these elements were pushed to the list whose key is at an argument, where they stand in this order.
fn record_push(call: &mut Call<'_>, key_at: usize, to: End, elements: &[Vec<u8>]) {
    let key = call.key(key_at);
    match to {
        End::Right => call.record(key).push(to, elements.iter().map(Vec::as_slice)),
        End::Left => call.record(key).push(to, elements.iter().rev().map(Vec::as_slice)),
    }
}

#[cfg(test)]
mod tests {
    use crate::exec::testing::Runner;

    #[test]
    fn elements_move_together() {
        let mut t = Runner::new();
        t.script(
            "LMOVEM s d LEFT RIGHT => *0
             LMOVEM s d LEFT RIGHT EXACTLY 1 BULK => *-1
             RPUSH s 1 2 3 4 5 6 7 8 9 => :9
             LMOVEM s d LEFT LEFT COUNT 3 OBO => *3 $1 3 $1 2 $1 1
             LMOVEM s d LEFT LEFT COUNT 2 BULK => *2 $1 4 $1 5
             LMOVEM s d RIGHT RIGHT COUNT 2 OBO => *2 $1 9 $1 8
             LMOVEM s d RIGHT LEFT EXACTLY 3 BULK => *-1
             LRANGE d 0 -1 => *7 $1 4 $1 5 $1 3 $1 2 $1 1 $1 9 $1 8
             LMOVEM d d LEFT LEFT COUNT 3 OBO => *3 $1 3 $1 5 $1 4
             LMOVEM d d RIGHT LEFT COUNT 2 BULK => *2 $1 9 $1 8
             LRANGE d 0 -1 => *7 $1 9 $1 8 $1 3 $1 5 $1 4 $1 2 $1 1
             EXPIRE d 100 => :1
             LMOVEM d d LEFT LEFT COUNT 99 OBO => *7 $1 1 $1 2 $1 4 $1 5 $1 3 $1 8 $1 9
             TTL d => :100
             LMOVEM s d RIGHT RIGHT EXACTLY 2 BULK => *2 $1 6 $1 7
             EXISTS s => :0
             SET k v => +OK
             LMOVEM k d LEFT LEFT => -WRONGTYPE Operation against a key holding the wrong kind of value
             LMOVEM d k LEFT LEFT => -WRONGTYPE Operation against a key holding the wrong kind of value
             LMOVEM s k LEFT LEFT => *0",
        );
        t.assert_replay_equals_live();
    }

    #[test]
    fn random_moves_are_replayed() {
        let mut random = crate::base::random::Random::from_seed(5);
        let mut t = Runner::new();
        for round in 0..3000 {
            let mut pick = |words: &[&'static str]| words[random.index(words.len())];
            let (from, to) = (pick(&["a", "b"]), pick(&["a", "b", "c"]));
            let ends = [pick(&["LEFT", "RIGHT"]), pick(&["LEFT", "RIGHT"])].join(" ");
            let how = pick(&["", "COUNT 2 OBO", "COUNT 9 BULK", "EXACTLY 3 OBO", "EXACTLY 2 BULK"]);
            t.run(&match round % 4 {
                0 => format!("RPUSH {from} {round} x{round} {round}y"),
                1 if round % 40 == 1 => format!("PEXPIRE {from} 30"),
                _ => format!("LMOVEM {from} {to} {ends} {how}"),
            });
            t.advance_ms(1);
        }
        t.assert_replay_equals_live();
    }
}

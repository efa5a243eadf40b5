//! `math.random` and `math.randomseed` as Redis has them: the 48-bit generator of POSIX. It goes on from script to
//! script, for each worker by itself.

use std::cell::Cell;

use mlua::prelude::*;

use super::library::{Given, Returned, guarded, number};

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const LOW: u64 = 0x330E;
const MASK: u64 = (1 << 48) - 1;
/// The state before any seed.
const INITIAL: u64 = 0x1234_ABCD_330E;
const MAX: f64 = i32::MAX as f64;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(INITIAL) };
}

/// Where the sequence is.
pub(super) fn state() -> u64 {
    STATE.get()
}

/// Goes back to where it was.
pub(super) fn set_state(state: u64) {
    STATE.set(state);
}

/// Begins the sequence of a seed.
fn seed(value: i32) {
    STATE.set((u64::from(value as u32) << 16) | LOW);
}

/// The next number, in `[0, 1)`.
fn next() -> f64 {
    let state = (STATE.get().wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)) & MASK;
    STATE.set(state);
    // 31 bits; of 2^31 - 1 the remainder is 0.
    ((state >> 17) % i32::MAX as u64) as f64 / MAX
}

fn random(_: &Lua, arguments: LuaMultiValue) -> Returned {
    let given = Given::new("random", &arguments);
    let drawn = next();
    match given.len() {
        0 => number(drawn),
        1 => match given.integer(1)? {
            high if high < 1 => given.bad(1, "interval is empty"),
            high => number((drawn * high as f64).floor() + 1.0),
        },
        2 => match (given.integer(1)?, given.integer(2)?) {
            (low, high) if low > high => given.bad(2, "interval is empty"),
            (low, high) => number((drawn * (high.wrapping_sub(low).wrapping_add(1)) as f64).floor() + low as f64),
        },
        _ => super::library::fault("wrong number of arguments"),
    }
}

fn randomseed(_: &Lua, arguments: LuaMultiValue) -> Returned {
    seed(Given::new("randomseed", &arguments).integer(1)? as i32);
    Ok(LuaMultiValue::new())
}

/// The functions, with their names.
pub(super) fn functions(lua: &Lua) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    table.raw_set("random", guarded(lua, random)?)?;
    table.raw_set("randomseed", guarded(lua, randomseed)?)?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_redis() {
        seed(0);
        assert_eq!(format!("{:.14}", next()), "0.17082803611217");
        assert_eq!(((next() * 100.0).floor() + 1.0, (next() * 1000.0).floor() + 1.0), (75.0, 97.0));
        seed(42);
        assert_eq!(((next() * 1e6).floor() + 1.0, (next() * 1e6).floor() + 1.0), (744526.0, 342702.0));
    }
}

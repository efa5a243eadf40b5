//! The stack of a virtual machine, for code that passes values in and out of it without the engine's own wrappers.
//!
//! Bytes cross as (pointer, length): a string of Lua is read in place, and made by one copy.
//!
//! Invariants:
//! - Functions here may raise an error of the engine (no memory), which unwinds the frames above the protected call.
//!   Those frames therefore own nothing: no `Vec`, no guard, nothing with a `Drop`.

use std::ffi::{CStr, c_char, c_int};

use mlua::ffi;

/// What lies at a place of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nil,
    Boolean,
    Number,
    Integer,
    String,
    Table,
    Other,
}

/// See the module. Places count from 1 at the bottom of the running function, or from -1 at the top.
#[derive(Clone, Copy)]
pub(super) struct Stack(*mut ffi::lua_State);

impl Stack {
    /// The stack of a state.
    ///
    /// # Safety
    /// The state is valid as long as this is used, and the caller runs inside a protected call of it.
    pub(super) unsafe fn new(state: *mut ffi::lua_State) -> Stack {
        Stack(state)
    }

    #[inline]
    pub(super) fn push_nil(self) {
        // SAFETY: see `new`.
        unsafe { ffi::lua_pushnil(self.0) }
    }

    #[inline]
    pub(super) fn push_boolean(self, value: bool) {
        // SAFETY: see `new`.
        unsafe { ffi::lua_pushboolean(self.0, c_int::from(value)) }
    }

    #[inline]
    pub(super) fn push_number(self, value: f64) {
        // SAFETY: see `new`.
        unsafe { ffi::lua_pushnumber(self.0, value) }
    }

    #[inline]
    pub(super) fn push_bytes(self, bytes: &[u8]) {
        // SAFETY: see `new`; the engine copies the bytes.
        unsafe { ffi::lua_pushlstring_(self.0, bytes.as_ptr().cast(), bytes.len()) }
    }

    /// Pushes what a reference keeps.
    #[inline]
    pub(super) fn push_reference(self, reference: c_int) {
        // SAFETY: see `new`.
        unsafe { ffi::lua_rawgeti_(self.0, ffi::LUA_REGISTRYINDEX, reference) };
    }

    /// Pushes a new table with room for so many elements.
    #[inline]
    pub(super) fn new_table(self, elements: usize, fields: usize) {
        let room = |count: usize| c_int::try_from(count).unwrap_or(c_int::MAX);
        // SAFETY: see `new`.
        unsafe { ffi::lua_createtable(self.0, room(elements), room(fields)) }
    }

    /// Removes the uppermost values.
    #[inline]
    pub(super) fn pop(self, count: c_int) {
        // SAFETY: see `new`.
        unsafe { ffi::lua_settop(self.0, -count - 1) }
    }

    /// Makes room for so many values, or raises an error.
    pub(super) fn reserve(self, values: c_int) {
        // SAFETY: see `new`.
        unsafe {
            if ffi::lua_checkstack(self.0, values) == 0 {
                self.raise_text(b"stack overflow");
            }
        }
    }

    /// Takes the uppermost value as an element of the table below it.
    #[inline]
    pub(super) fn set_element(self, index: c_int) {
        // SAFETY: see `new`.
        unsafe { ffi::lua_rawseti_(self.0, -2, index) }
    }

    /// Takes the uppermost value as a field of the table below it.
    pub(super) fn set_field(self, name: &CStr) {
        // SAFETY: see `new`.
        unsafe { ffi::lua_rawsetfield(self.0, -2, name.as_ptr()) }
    }

    /// Takes the two uppermost values as a key and its value in the table below them. False, and nothing is taken, if
    /// the key is none that a table can have.
    pub(super) fn set_pair(self) -> bool {
        // SAFETY: see `new`.
        unsafe {
            let is_key = match self.kind(-2) {
                Kind::Nil => false,
                Kind::Number => !self.number(-2).is_nan(),
                _ => true,
            };
            if is_key {
                ffi::lua_rawset(self.0, -3);
            }
            is_key
        }
    }

    /// Pushes an element of a table.
    #[inline]
    pub(super) fn element(self, table: c_int, index: c_int) -> Kind {
        // SAFETY: see `new`.
        unsafe { ffi::lua_rawgeti_(self.0, table, index) };
        self.kind(-1)
    }

    /// Pushes a field of a table.
    pub(super) fn field(self, table: c_int, name: &CStr) -> Kind {
        // SAFETY: see `new`.
        unsafe { ffi::lua_rawgetfield(self.0, table, name.as_ptr()) };
        self.kind(-1)
    }

    /// Replaces the uppermost value, a key of the table, by the next key and its value. False, and nothing is left of
    /// it, if there is none.
    pub(super) fn next(self, table: c_int) -> bool {
        // SAFETY: see `new`.
        unsafe { ffi::lua_next(self.0, table) != 0 }
    }

    /// Empties a table, which keeps its room, and takes its metatable away.
    pub(super) fn clear_table(self, table: c_int) {
        // SAFETY: see `new`.
        unsafe {
            if ffi::lua_getmetatable(self.0, table) != 0 {
                ffi::lua_settop(self.0, -2);
                let table = ffi::lua_absindex(self.0, table);
                ffi::lua_pushnil(self.0);
                ffi::lua_setmetatable(self.0, table);
            }
            ffi::lua_cleartable(self.0, table);
        }
    }

    /// The place from the bottom.
    pub(super) fn absolute(self, at: c_int) -> c_int {
        // SAFETY: see `new`.
        unsafe { ffi::lua_absindex(self.0, at) }
    }

    /// How many values there are.
    #[inline]
    pub(super) fn len(self) -> c_int {
        // SAFETY: see `new`.
        unsafe { ffi::lua_gettop(self.0) }
    }

    #[inline]
    pub(super) fn kind(self, at: c_int) -> Kind {
        // SAFETY: see `new`.
        match unsafe { ffi::lua_type(self.0, at) } {
            ffi::LUA_TNIL | ffi::LUA_TNONE => Kind::Nil,
            ffi::LUA_TBOOLEAN => Kind::Boolean,
            ffi::LUA_TNUMBER => Kind::Number,
            ffi::LUA_TINTEGER => Kind::Integer,
            ffi::LUA_TSTRING => Kind::String,
            ffi::LUA_TTABLE => Kind::Table,
            _ => Kind::Other,
        }
    }

    /// The bytes of a string; none of anything else. They are those of the string itself, so they are read before it
    /// leaves the stack.
    #[inline]
    pub(super) fn bytes<'s>(self, at: c_int) -> &'s [u8] {
        if self.kind(at) != Kind::String {
            // Asking for the text of a number would turn it into one.
            return b"";
        }
        let mut len = 0;
        // SAFETY: see `new`. The string has this many bytes; it does not move, and lives while it is on the stack.
        unsafe {
            let start: *const c_char = ffi::lua_tolstring(self.0, at, &raw mut len);
            std::slice::from_raw_parts(start.cast(), len)
        }
    }

    #[inline]
    pub(super) fn number(self, at: c_int) -> f64 {
        // SAFETY: see `new`.
        unsafe { ffi::lua_tonumberx(self.0, at, std::ptr::null_mut()) }
    }

    pub(super) fn integer(self, at: c_int) -> i64 {
        // SAFETY: see `new`.
        unsafe { ffi::lua_tointeger64(self.0, at, std::ptr::null_mut()) }
    }

    #[inline]
    pub(super) fn boolean(self, at: c_int) -> bool {
        // SAFETY: see `new`.
        unsafe { ffi::lua_toboolean(self.0, at) != 0 }
    }

    /// Calls the function below its arguments, under the handler of errors at a place. Returns whether it went well:
    /// its result, or what the handler made of its error, is then uppermost.
    pub(super) fn call(self, arguments: c_int, handler: c_int) -> bool {
        // SAFETY: see `new`.
        unsafe { ffi::lua_pcall(self.0, arguments, 1, handler) == ffi::LUA_OK }
    }

    /// Raises the uppermost value as an error.
    ///
    /// # Safety
    /// No frame between here and the protected call owns anything.
    pub(super) unsafe fn raise(self) -> ! {
        // SAFETY: see above.
        unsafe { ffi::lua_error(self.0) }
    }

    /// Raises a text.
    ///
    /// # Safety
    /// As for [`Stack::raise`].
    pub(super) unsafe fn raise_text(self, text: &[u8]) -> ! {
        self.push_bytes(text);
        // SAFETY: see above.
        unsafe { self.raise() }
    }
}

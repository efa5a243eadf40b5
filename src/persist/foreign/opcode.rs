//! The bytes that open what is not a key in an RDB file. `rdb_file` draws what follows each.

pub(super) const KEY_META_OR_SLOT_IMPORT: u8 = 0xF3;
pub(super) const SLOT_INFO: u8 = 0xF4;
pub(super) const FUNCTION: u8 = 0xF5;
pub(super) const FUNCTION_PRE_GA: u8 = 0xF6;
pub(super) const MODULE_AUX: u8 = 0xF7;
pub(super) const IDLE: u8 = 0xF8;
pub(super) const FREQUENCY: u8 = 0xF9;
pub(super) const AUX: u8 = 0xFA;
pub(super) const RESIZE: u8 = 0xFB;
pub(super) const EXPIRY_MS: u8 = 0xFC;
pub(super) const EXPIRY_S: u8 = 0xFD;
pub(super) const SELECT: u8 = 0xFE;
pub(super) const END: u8 = 0xFF;

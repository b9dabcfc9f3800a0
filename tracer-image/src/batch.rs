//! Items as bytes.

use minicbor::Encode;

/// A batch is sent when it has grown to this size, or when the ring is empty.
pub const FULL: usize = 128 << 10;

/// Appends an item.
pub fn put(item: &impl Encode<()>, batch: &mut Vec<u8>) {
    match minicbor::encode(item, &mut *batch) {
        Ok(()) => {}
        // Writing to a Vec can't fail, and no item has an encoder that does.
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    }
}

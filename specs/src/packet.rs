//! How messages become bytes: a length, a codec, and a CBOR message, compressed where that pays.
//!
//! ```text
//! u32 little endian: length of what follows | u8 codec | message
//! codec 0: the message as it is; codec 1: an LZ4 block with its size prepended (u32 little endian)
//! ```
//!
//! A recording is the eight bytes of [`MAGIC`], then packets of [`Recorded`].

use minicbor::{Decode, Encode};

/// A message may not be longer than this, before or after compression.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Below this size compression isn't tried.
const WORTH_COMPRESSING: usize = 256;
/// The first bytes of a recording; the last one is its version.
pub const MAGIC: [u8; 8] = *b"KNARKRC\x01";

/// One packet of a recording.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Recorded {
    /// A node's stream begins; later packets name it by its number.
    #[n(0)]
    Node {
        /// 0 for the first.
        #[n(0)]
        number: u32,
        /// The node's name; empty in local mode.
        #[n(1)]
        name: String,
        /// The node's clock minus the plugin's, in ns, as far as the plugin could tell.
        #[n(2)]
        clock_offset_ns: i64,
    },
    /// A message of that node's tracer, or a batch that the plugin added.
    #[n(1)]
    Up {
        /// Which node.
        #[n(0)]
        node: u32,
        /// What it sent.
        #[n(1)]
        message: crate::frame::Up,
    },
}

/// Why bytes aren't a packet.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// The length is absurd.
    #[error("a packet of {0} bytes exceeds the limit of {MAX_MESSAGE}: not a knark stream, or a damaged one")]
    TooLong(usize),
    /// The codec byte is not of this version.
    #[error("unknown codec {0}: the other side is newer, or the stream is damaged")]
    Codec(u8),
    /// Decompression failed.
    #[error("damaged compressed packet: {0}")]
    Lz4(#[from] lz4_flex::block::DecompressError),
    /// Not the expected message.
    #[error("damaged message: {0}")]
    Cbor(#[from] minicbor::decode::Error),
}

/// Encodes one message as a packet.
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    match minicbor::encode(message, &mut body) {
        Ok(()) => {}
        // Writing to a Vec can't fail, and no message has an encoder that does.
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    }
    let mut packet = Vec::with_capacity(body.len() / 2 + 16);
    packet.extend([0; 5]);
    if body.len() < WORTH_COMPRESSING {
        packet.extend_from_slice(&body);
    } else {
        packet[4] = 1;
        packet.extend(lz4_flex::compress_prepend_size(&body));
    }
    let length = u32::try_from(packet.len() - 4).unwrap_or(u32::MAX);
    packet[..4].copy_from_slice(&length.to_le_bytes());
    packet
}

/// Splits a byte stream into messages, however the bytes arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.pending.drain(..self.consumed);
            self.consumed = 0;
        }
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more bytes come.
    #[expect(clippy::should_implement_trait, reason = "the caller chooses the message's type")]
    pub fn next<T: for<'b> Decode<'b, ()>>(&mut self) -> Result<Option<T>, PacketError> {
        loop {
            let rest = &self.pending[self.consumed..];
            let Some((head, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            let length = u32::from_le_bytes(*head) as usize;
            if length > MAX_MESSAGE || length == 0 {
                return Err(PacketError::TooLong(length));
            }
            let Some(packet) = rest.get(..length) else { return Ok(None) };
            self.consumed += 4 + length;
            let decoded = match packet[0] {
                0 => minicbor::decode(&packet[1..]),
                1 => minicbor::decode(&decompress(&packet[1..])?),
                codec => return Err(PacketError::Codec(codec)),
            };
            match decoded {
                Ok(message) => return Ok(Some(message)),
                // A newer side may say more than this one understands.
                Err(error) if error.is_unknown_variant() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How many bytes were pushed and belong to no message so far.
    pub fn pending(&self) -> usize {
        self.pending.len() - self.consumed
    }

    /// Whether bytes are left that make no whole packet: at the end of a stream, it was cut.
    pub fn is_inside_packet(&self) -> bool {
        self.consumed < self.pending.len()
    }
}

fn decompress(packet: &[u8]) -> Result<Vec<u8>, PacketError> {
    let (size, body) = lz4_flex::block::uncompressed_size(packet)?;
    if size > MAX_MESSAGE {
        return Err(PacketError::TooLong(size));
    }
    Ok(lz4_flex::block::decompress(body, size)?)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
mod tests {
    use super::*;
    use crate::frame::{Batch, Up};

    fn batch(n: usize) -> Up {
        Up::Batch(Batch { seq: 7, items: (0..n).map(|i| (i / 3) as u8).collect() })
    }

    #[test]
    fn messages_survive_any_split() {
        let sent = [batch(0), batch(10), batch(100_000)];
        let bytes: Vec<u8> = sent.iter().flat_map(encode).collect();
        for step in [1, 3, 4, 5, 1000, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(message) = decoder.next::<Up>().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, sent, "in pieces of {step}");
            assert!(!decoder.is_inside_packet());
        }
    }

    #[test]
    fn hostile_lengths_are_refused_before_memory_is_taken() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.next::<Up>(), Err(PacketError::TooLong(_))));

        let mut bomb = vec![0, 0, 0, 0, 1];
        bomb.extend(u32::MAX.to_le_bytes());
        bomb.extend([0x1f; 64]);
        let length = (bomb.len() - 4) as u32;
        bomb[..4].copy_from_slice(&length.to_le_bytes());
        let mut decoder = Decoder::default();
        decoder.push(&bomb);
        assert!(matches!(decoder.next::<Up>(), Err(PacketError::TooLong(_))));
    }

    #[test]
    fn damaged_packets_are_errors_not_panics() {
        let whole = encode(&batch(3000));
        for at in 4..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            let _ = decoder.next::<Up>();
        }
    }
}

//! What a file or a pipe holds, as it stands or compressed.

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// What a gzip file begins with.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// What a zstd file begins with.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What is in it, by its first bytes, and whether that is what it says as it stands.
pub fn decompressed(mut from: impl Read + Send + 'static) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut first = Vec::new();
    from.by_ref().take(ZSTD.len() as u64).read_to_end(&mut first)?;
    let (gzip, zstd) = (first.starts_with(GZIP), first == ZSTD);
    let whole = Cursor::new(first).chain(from);
    Ok(if gzip {
        (Box::new(MultiGzDecoder::new(BufReader::new(whole))), false)
    } else if zstd {
        (Box::new(Zstd { rest: Some(Box::new(BufReader::new(whole))), frame: None }), false)
    } else {
        (Box::new(whole), true)
    })
}

/// All frames of a zstd file.
struct Zstd {
    /// What follows the frame; with the frame while there is one.
    rest: Option<Box<dyn io::BufRead + Send>>,
    frame: Option<StreamingDecoder<Box<dyn io::BufRead + Send>, ruzstd::decoding::FrameDecoder>>,
}

impl Read for Zstd {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(mut frame) = self.frame.take() {
                let length = frame.read(piece)?;
                if length > 0 {
                    self.frame = Some(frame);
                    return Ok(length);
                }
                self.rest = Some(frame.into_inner());
            }
            let Some(mut rest) = self.rest.take() else { return Ok(0) };
            if rest.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(StreamingDecoder::new(rest).map_err(io::Error::other)?);
        }
    }
}

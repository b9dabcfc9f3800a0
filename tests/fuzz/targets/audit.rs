//! Any bytes as an audit log: requests, or what is wrong, however the bytes come in.
#![no_main]

use knark_specs::{
    audit::{Piece, Splitter, parse, series},
    frame::Bodies,
};
use libfuzzer_sys::fuzz_target;

const BODIES: Option<Bodies> = Some(Bodies { limit: 1 << 16, show_secrets: false });

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let found = |step: usize| {
        let (mut splitter, mut found) = (Splitter::default(), Vec::new());
        let mut each = |piece: Piece<'_>| match piece {
            Piece::Object { line, json } => {
                if let Ok(Some(record)) = parse(json, BODIES) {
                    drop(record.item());
                }
                found.push((line, json.len()));
            }
            Piece::Damage { line, .. } => found.push((line, 0)),
        };
        bytes.chunks(step).for_each(|bytes| splitter.push(bytes, &mut each));
        splitter.end(&mut each);
        found
    };
    assert_eq!(found(usize::from(*step) + 1), found(bytes.len().max(1)));
    if let Ok(text) = std::str::from_utf8(bytes) {
        series(text.lines());
    }
});

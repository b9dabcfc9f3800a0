//! Any bytes as what a tracer sends, or as a recording: an answer or an error, in bounded memory.
#![no_main]

use knark_specs::{
    assemble::Assembler,
    event::Node,
    frame::{Hello, Up},
    packet::{Decoder, Recorded},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let node = Node { name: "node".to_owned(), clock_offset_ns: 0 };
    let hello = Hello {
        version: String::new(),
        kernel: String::new(),
        arch: "x86_64".to_owned(),
        probes: Vec::new(),
        realtime_offset_ns: 0,
        hostname: String::new(),
        portable: Vec::new(),
    };
    let mut assembler = Assembler::new(node, &hello);
    let mut feed = |items: &[u8]| {
        let mut rest = items;
        // A reader may stop anywhere, and go on there.
        while let Ok(read) = assembler.feed(rest, |event| {
            assert!(serde_json::to_string(&event).is_ok());
            false
        }) {
            assert!(read <= rest.len());
            if read == 0 {
                break;
            }
            rest = &rest[read..];
        }
    };
    let mut decoder = Decoder::default();
    match how % 3 {
        0 => feed(bytes),
        1 => {
            decoder.push(bytes);
            while let Ok(Some(message)) = decoder.next::<Up>() {
                if let Up::Batch(batch) = message {
                    feed(&batch.items);
                }
            }
        }
        _ => {
            for piece in bytes.chunks(7) {
                decoder.push(piece);
                while let Ok(Some(_)) = decoder.next::<Recorded>() {}
            }
        }
    }
});

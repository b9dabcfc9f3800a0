//! `-o json`: one object per line.

use std::io;

use knark_specs::event::{Event, Summary};

/// The renderer.
#[derive(Debug, Default)]
pub struct Json {}

impl super::Render for Json {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) -> io::Result<()> {
        serde_json::to_writer(&mut *out, event)?;
        out.push(b'\n');
        Ok(())
    }

    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) -> io::Result<()> {
        serde_json::to_writer(&mut *out, summary)?;
        out.push(b'\n');
        Ok(())
    }
}

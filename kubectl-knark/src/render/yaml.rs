//! `-o yaml`: one document per event.

use std::io;

use knark_specs::{
    alert::{Alert, Match},
    event::{Event, Summary},
};
use serde::Serialize;

/// The renderer.
#[derive(Debug, Default)]
pub struct Yaml {
    has_begun: bool,
}

impl super::Render for Yaml {
    fn event(&mut self, event: &Event, matches: &[Match], out: &mut Vec<u8>) -> io::Result<()> {
        if matches.is_empty() {
            return self.document(event, out);
        }
        self.document(&Alert { event: event.clone(), matches: matches.to_vec() }, out)
    }

    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) -> io::Result<()> {
        self.document(summary, out)
    }
}

impl Yaml {
    fn document(&mut self, value: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
        if std::mem::replace(&mut self.has_begun, true) {
            out.extend_from_slice(b"---\n");
        }
        serde_yaml::to_writer(out, value).map_err(io::Error::other)
    }
}

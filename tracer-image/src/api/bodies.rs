//! Bodies of requests and of their responses: joined of the pieces that the probes hand over, read, and rid of secrets.

use knark_specs::{
    body::{self, Subject},
    event, frame,
};

use crate::bpf;

/// No body is longer than this, in bytes: what says so was misread.
const ABSURD: u64 = 1 << 40;

/// Both bodies of a request, as far as they have come.
#[derive(Debug, Default)]
pub struct Bodies {
    request: Body,
    response: Body,
}

#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    total: u64,
    /// How long it was when its front had been written.
    first: u64,
    /// How often its front has come.
    fronts: u32,
}

/// Both bodies as an event says them.
#[derive(Debug, Default, PartialEq)]
pub struct Read {
    /// The request's.
    pub request: Option<Shown>,
    /// The response's.
    pub response: Option<Shown>,
    /// Name and namespace of the object that the response shows, or else the request.
    pub name: Option<String>,
    /// See `name`.
    pub namespace: Option<String>,
    /// Those that aren't whole, by the names of their fields.
    pub truncated: Vec<&'static str>,
}

/// A body: JSON, or a text.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    bytes: Vec<u8>,
    truncated_from: Option<u64>,
}

impl Shown {
    /// As a part of an item.
    pub fn item(&self) -> frame::ApiBody<'_> {
        frame::ApiBody { bytes: &self.bytes, truncated_from: self.truncated_from }
    }
}

impl Bodies {
    /// Adds a piece, unless that takes more than `room` bytes more: what has come so far is then all.
    pub fn add(&mut self, piece: &bpf::ApiBody<'_>, room: usize) {
        let body = if piece.response { &mut self.response } else { &mut self.request };
        body.add(piece, room);
    }

    /// About how much memory they take beside their own size, in bytes.
    pub fn measure(&self) -> usize {
        self.request.bytes.capacity() + self.response.bytes.capacity()
    }

    /// What they say. `answered`: with so many bytes the client was answered, which may be compressed.
    pub fn read(self, subject: &Subject<'_>, show_secrets: bool, answered: u64) -> Read {
        let Self { request, mut response } = self;
        if request.fronts > 1 {
            // Two probes are in the same place, underneath files of two containers. What was written in pieces can't be told apart.
            response.bytes.truncate(usize::try_from(response.first).unwrap_or(usize::MAX));
            response.total /= 2;
        }
        if response.fronts > 0 {
            // Its last pieces may be lost.
            response.total = response.total.max(answered);
        }
        let mut truncated = Vec::new();
        // A response is looked at after its request's body was, and nearly every response has one.
        if request.fronts == 0 && response.fronts > 0 {
            truncated.push("request_body");
        }
        if response.fronts == 0 && request.fronts > 0 && answered > 0 {
            truncated.push("response_body");
        }
        let (request, response) = (read(request), read(response));
        let of_either = |find: fn(&event::ApiBody) -> Option<&str>| {
            [&response, &request].into_iter().flatten().find_map(find).map(str::to_owned)
        };
        let (name, namespace) = (of_either(body::name), of_either(body::namespace));
        let mut show = |body: Option<event::ApiBody>, field| {
            let mut body = body?;
            if !show_secrets {
                body::redact(subject, &mut body);
            }
            let shown = shown(&body);
            if shown.truncated_from.is_some() {
                truncated.push(field);
            }
            Some(shown)
        };
        let (request, response) = (show(request, "request_body"), show(response, "response_body"));
        Read { request, response, name, namespace, truncated }
    }
}

impl Body {
    /// What follows a piece that was lost is of no use, and what is there already has come twice.
    fn add(&mut self, piece: &bpf::ApiBody<'_>, room: usize) {
        let end = piece.offset.saturating_add(piece.bytes.len() as u64);
        if piece.total > ABSURD || end > piece.total {
            return;
        }
        if piece.offset == 0 {
            self.fronts += 1;
            self.first = piece.total;
        }
        self.total = self.total.max(piece.total);
        if piece.offset == self.bytes.len() as u64 && piece.bytes.len() <= room {
            self.bytes.reserve_exact(piece.bytes.len());
            self.bytes.extend_from_slice(piece.bytes);
        }
    }
}

/// What a body says; none if there is none.
fn read(body: Body) -> Option<event::ApiBody> {
    let Body { bytes, total, .. } = body;
    let truncated_from = ((bytes.len() as u64) < total).then_some(total);
    (total > 0).then(|| body::read(&bytes, truncated_from))
}

fn shown(body: &event::ApiBody) -> Shown {
    let (bytes, truncated_from) = body::shown(body);
    Shown { bytes, truncated_from }
}

#[cfg(test)]
mod tests;

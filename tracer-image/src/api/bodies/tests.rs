use super::*;
use crate::bpf::{Head, Verdict};

const PLENTY: usize = 1 << 20;
const REQUEST: bool = false;
const RESPONSE: bool = true;

/// Bytes of a body that is `total` long, from `offset` on.
fn piece(response: bool, offset: u64, total: usize, bytes: &[u8]) -> bpf::ApiBody<'_> {
    let head = Head {
        boot_ns: 1,
        cgroup: 0,
        verdict: Verdict::Trace,
        marks: 0,
        tgid: 7,
        tid: 8,
        ppid: 1,
        uid: 0,
        gid: 0,
        ns_tgid: 7,
        ns_uid: 0,
        ns_gid: 0,
        start_ns: 0,
        parent_start_ns: 0,
        exec_id: 0,
        comm: [0; 16],
        repeats: None,
    };
    bpf::ApiBody { head, response, goroutine: 10, parent: 1, offset, total: total as u64, bytes }
}

fn whole(response: bool, text: &str) -> bpf::ApiBody<'_> {
    piece(response, 0, text.len(), text.as_bytes())
}

fn read_of(pieces: &[bpf::ApiBody<'_>], room: usize, answered: u64) -> Read {
    let mut bodies = Bodies::default();
    for piece in pieces {
        bodies.add(piece, room - bodies.measure());
        assert!(bodies.measure() <= room);
    }
    let subject = Subject { group: "", resource: "configmaps", subresource: "" };
    bodies.read(&subject, false, answered)
}

/// The bytes that are shown, and how many there were, where that is more.
fn text(shown: Option<&Shown>) -> (String, Option<u64>) {
    let shown = shown.expect("there is a body");
    (String::from_utf8(shown.bytes.clone()).expect("UTF-8"), shown.truncated_from)
}

#[test]
fn pieces_become_bodies() {
    let (sent, got) = (r#"{"metadata":{"generateName":"a-"}}"#, r#"{"metadata":{"name":"a-x","namespace":"n"}}"#);
    let pieces = [
        piece(REQUEST, 0, sent.len(), &sent.as_bytes()[..10]),
        piece(REQUEST, 10, sent.len(), &sent.as_bytes()[10..]),
        // written in three parts, of which one is empty
        piece(RESPONSE, 0, 5, &got.as_bytes()[..5]),
        piece(RESPONSE, 5, 5, b""),
        piece(RESPONSE, 5, got.len(), &got.as_bytes()[5..]),
    ];
    let read = read_of(&pieces, PLENTY, 1);
    assert_eq!(text(read.request.as_ref()), (sent.to_owned(), None));
    assert_eq!(text(read.response.as_ref()), (got.to_owned(), None));
    assert_eq!((read.name.as_deref(), read.namespace.as_deref()), (Some("a-x"), Some("n")));
    assert!(read.truncated.is_empty());
}

#[test]
fn a_name_is_the_requests_where_the_response_has_none() {
    let pieces =
        [whole(REQUEST, r#"{"metadata":{"name":"a"}}"#), whole(RESPONSE, r#"{"kind":"Status","metadata":{},"code":409}"#)];
    assert_eq!(read_of(&pieces, PLENTY, 1).name.as_deref(), Some("a"));
}

#[test]
fn what_follows_a_hole_is_left_out_and_the_body_said_not_to_be_whole() {
    // The middle was lost, the end, the front, and all but what tells how long it was.
    let at = |offset: u64, bytes: &'static [u8]| piece(REQUEST, offset, 9, bytes);
    for (pieces, want) in [
        (&[at(0, b"abc"), at(6, b"ghi")][..], "abc"),
        (&[at(0, b"abc"), at(3, b"def")], "abcdef"),
        (&[at(3, b"def"), at(6, b"ghi")], ""),
        (&[at(6, b"")], ""),
    ] {
        let read = read_of(pieces, PLENTY, 0);
        assert_eq!(text(read.request.as_ref()), (want.to_owned(), Some(9)), "{want:?}");
        assert_eq!(read.truncated, ["request_body"]);
    }
}

#[test]
fn a_response_whose_last_pieces_were_lost_is_not_whole() {
    let pieces = [whole(REQUEST, "{}"), piece(RESPONSE, 0, 3, b"[1,"), piece(RESPONSE, 3, 5, b"2,")];
    let read = read_of(&pieces, PLENTY, 7);
    assert_eq!(text(read.response.as_ref()), ("[1,2,".to_owned(), Some(7)));
    assert_eq!(read.truncated, ["response_body"]);
}

#[test]
fn a_body_that_was_lost_as_a_whole_is_told() {
    let truncated = |pieces: &[bpf::ApiBody<'_>], answered| read_of(pieces, PLENTY, answered).truncated;
    assert_eq!(truncated(&[whole(RESPONSE, "{}")], 1), ["request_body"]);
    assert_eq!(truncated(&[whole(REQUEST, "{}")], 1), ["response_body"]);
    assert!(truncated(&[whole(REQUEST, "{}")], 0).is_empty());
    assert!(truncated(&[], 1).is_empty());
    // a delete without options
    let read = read_of(&[whole(REQUEST, ""), whole(RESPONSE, "{}")], PLENTY, 1);
    assert!(read.request.is_none() && read.response.is_some() && read.truncated.is_empty());
}

#[test]
fn pieces_that_come_twice_are_one() {
    let sent = |offset: u64, bytes: &'static [u8]| piece(REQUEST, offset, 4, bytes);
    let twice = [
        sent(0, b"{}"),
        sent(2, b"  "),
        sent(0, b"{}"),
        sent(2, b"  "),
        piece(RESPONSE, 0, 3, b"[1]"),
        // told apart from another part of the response by what came twice before
        piece(RESPONSE, 3, 6, b"[1]"),
    ];
    let read = read_of(&twice, PLENTY, 1);
    assert_eq!(text(read.request.as_ref()), ("{}".to_owned(), None));
    assert_eq!(text(read.response.as_ref()), ("[1]".to_owned(), None));
    let parts = [piece(RESPONSE, 6, 8, b",2"), piece(RESPONSE, 8, 10, b",2")];
    let read = read_of(&[&twice[..], &parts].concat(), PLENTY, 1);
    assert_eq!(text(read.response.as_ref()), ("[1]".to_owned(), Some(5)));
}

#[test]
fn what_takes_too_much_or_makes_no_sense_is_left_out() {
    let long = "x".repeat(3000);
    let cut = piece(REQUEST, 0, 9000, long.as_bytes());
    let more = piece(REQUEST, 3000, 9000, long.as_bytes());
    let read = read_of(&[cut, more], 4096, 0);
    assert_eq!(text(read.request.as_ref()), (long.clone(), Some(9000)));
    for (offset, total) in [(u64::MAX, 3), (0, 2), (1 << 41, 1 << 42), (0, usize::MAX)] {
        let read = read_of(&[piece(REQUEST, offset, total, b"abc")], PLENTY, 1);
        assert_eq!(read, Read::default(), "{offset} of {total}");
    }
}

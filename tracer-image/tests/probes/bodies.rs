//! Bodies of requests to an API server, as functions of this program's own hold them.

use std::{
    arch::{asm, global_asm},
    path::Path,
};

use knark_abi::{API_BODY_BYTES, API_CHUNK, ApiLayout};
use knark_tracer::{
    api::binary::Site,
    bpf::{ApiBody, Events, Options, Probes, Record},
};

use crate::harness::{Story, attach, run_as};

// Functions that begin as Go's do, which is where the probes go.
global_asm!(".globl knark_read_body", "knark_read_body:", "push rbp", "pop rbp", "ret");
global_asm!(".globl knark_write_body", "knark_write_body:", "push rbp", "pop rbp", "ret");

unsafe extern "C" {
    fn knark_read_body();
    fn knark_write_body();
}

/// A `runtime.g` with a goroutine's number and its parent's.
type Goroutine = [u64; 2];
const LAYOUT: ApiLayout = ApiLayout { g_goid: 0, g_parent_goid: 8, ..EMPTY };
const EMPTY: ApiLayout = unsafe { std::mem::zeroed() };

/// Calls a function as Go does, with arguments in rax, rbx, rcx, rdi and the goroutine in r14.
fn call(function: unsafe extern "C" fn(), g: &Goroutine, arguments: [u64; 4]) {
    let [rax, rbx, rcx, rdi] = arguments;
    unsafe {
        asm!(
            "push rbx", "push r14", "mov rbx, {rbx}", "mov r14, {g}", "call {function}", "pop r14", "pop rbx",
            rbx = in(reg) rbx, g = in(reg) g, function = in(reg) function,
            in("rax") rax, in("rcx") rcx, in("rdi") rdi, clobber_abi("C"),
        );
    }
}

/// A body has been read.
fn read(g: &Goroutine, from: u64, len: usize, error: u64) {
    call(knark_read_body, g, [from, len as u64, len as u64, error]);
}

/// A part of a response is written.
fn write(g: &Goroutine, bytes: &[u8]) {
    call(knark_write_body, g, [0, bytes.as_ptr() as u64, bytes.len() as u64, 0]);
}

/// Where in this program's file a function lies.
fn site(program: &'static str, function: unsafe extern "C" fn()) -> Site {
    let address = function as usize as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let offset = maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (begin, end) = fields.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (begin, end, offset) = (number(begin)?, number(end)?, number(fields.nth(1)?)?);
        (begin..end).contains(&address).then(|| address - begin + offset)
    });
    Site { program: program.into(), offset: offset.unwrap() }
}

/// `lost`: how many bodies can't be read.
fn story(limit: usize, lost: u64, work: impl FnOnce()) -> Story {
    let events = Events { exec: false, file: false, exit: false, api: true };
    let mut probes = attach(&Options { events, body_bytes: limit as u32, ..Options::default() });
    let sites = [site("api_request_body", knark_read_body), site("api_response_body", knark_write_body)];
    let _attached = probes.attach_api(Path::new("/proc/self/exe"), &sites).unwrap();
    let story = run_as(&mut probes, |probes, tgid| probes.watch_api_server(tgid, &LAYOUT).unwrap(), |_| work());
    assert_eq!(probes.counters().unwrap().api_body().emitted, story.records().count() as u64);
    assert_eq!(probes.counters().unwrap().lost(), lost);
    story
}

/// Goroutine, whose body, where, how long that is, and how many bytes there are.
fn told(story: &Story) -> Vec<(u64, bool, u64, u64, usize)> {
    let of = |piece: ApiBody<'_>| (piece.goroutine, piece.response, piece.offset, piece.total, piece.bytes.len());
    story.records().map(|record| if let Record::ApiBody(piece) = record { of(piece) } else { panic!("{record:?}") }).collect()
}

fn pattern() -> Vec<u8> {
    (0..API_BODY_BYTES + 4096).map(|at| (at / 7) as u8).collect()
}

#[test]
fn bodies_are_copied_in_pieces_up_to_a_limit() {
    let bytes = pattern();
    let from = bytes.as_ptr() as u64;
    let (chunk, limit) = (API_CHUNK, 2 * API_CHUNK + 100);
    let story = story(limit, 1, || {
        // On the stack, since what the program's file holds may not have come into memory yet.
        let [one, two, failed, unreadable, empty] = std::hint::black_box([11, 12, 13, 14, 15]).map(|number| [number, 1]);
        // what is only read has no body
        write(&one, b"list");
        read(&one, from, 10, 0);
        write(&one, &bytes[..5]);
        write(&two, b"list");
        read(&two, from, bytes.len(), 0);
        write(&one, &bytes[5..chunk + 6]);
        read(&failed, from, 10, 7);
        read(&unreadable, 8, 10, 0);
        read(&empty, from, 0, 0);
        write(&one, &bytes[chunk + 6..]);
        // that there is more than is wanted is known already
        write(&one, b"more");
        write(&unreadable, b"");
    });
    let (all, chunk_bytes) = (bytes.len() as u64, chunk as u64);
    assert_eq!(
        told(&story),
        [
            (11, false, 0, 10, 10),
            (11, true, 0, 5, 5),
            (12, false, 0, all, chunk),
            (12, false, chunk_bytes, all, chunk),
            (12, false, 2 * chunk_bytes, all, 100),
            (11, true, 5, chunk_bytes + 6, chunk),
            (11, true, chunk_bytes + 5, chunk_bytes + 6, 1),
            // what can't be read
            (14, false, 0, 10, 0),
            (15, false, 0, 0, 0),
            (11, true, chunk_bytes + 6, all, chunk),
            (11, true, 2 * chunk_bytes + 6, all, 94),
            (14, true, 0, 0, 0),
        ]
    );
    for record in story.records() {
        let Record::ApiBody(piece) = record else { panic!("{record:?}") };
        let at = piece.offset as usize;
        assert!(piece.bytes.is_empty() || piece.bytes == &bytes[at..at + piece.bytes.len()], "at {at}");
        assert_eq!((piece.parent, piece.head.tgid), (1, story.tgid));
    }
}

#[test]
fn the_longest_body_that_can_be_asked_for_is_copied() {
    let bytes = pattern();
    let story = story(API_BODY_BYTES, 0, || {
        let g = std::hint::black_box([11, 1]);
        read(&g, bytes.as_ptr() as u64, API_BODY_BYTES - 1, 0);
        write(&g, &bytes);
    });
    let mut bodies = [Vec::new(), Vec::new()];
    for record in story.records() {
        let Record::ApiBody(piece) = record else { panic!("{record:?}") };
        let body = &mut bodies[usize::from(piece.response)];
        assert_eq!(piece.offset, body.len() as u64);
        body.extend_from_slice(piece.bytes);
    }
    assert!(bodies[0] == bytes[..API_BODY_BYTES - 1] && bodies[1] == bytes[..API_BODY_BYTES]);
}

#[test]
fn where_the_ring_is_crowded_it_is_told_how_long_a_body_is() {
    let events = Events { exec: false, file: false, exit: false, api: true };
    let body_bytes = API_BODY_BYTES as u32;
    let mut probes = attach(&Options { events, body_bytes, ring_bytes: 16 << 10, ..Options::default() });
    let _attached = probes.attach_api(Path::new("/proc/self/exe"), &[site("api_request_body", knark_read_body)]).unwrap();
    let bytes = pattern();
    let admit = |probes: &mut Probes, tgid| probes.watch_api_server(tgid, &LAYOUT).unwrap();
    let story = run_as(&mut probes, admit, |_| {
        let g = std::hint::black_box([11, 1]);
        read(&g, bytes.as_ptr() as u64, 40_000, 0);
        read(&g, bytes.as_ptr() as u64, 10, 0);
    });
    let chunk = API_CHUNK as u64;
    assert_eq!(told(&story), [(11, false, 0, 40_000, API_CHUNK), (11, false, chunk, 40_000, 0), (11, false, 0, 10, 0)]);
    let counters = probes.counters().unwrap();
    assert_eq!((counters.api_body().emitted, counters.api_body().lost_ring, counters.api_body().seen), (3, 2, 5));
}

#[test]
fn all_programs_for_api_servers_load_on_this_kernel() {
    let events = Events { exec: false, file: false, exit: false, api: true };
    attach(&Options { events, ..Options::default() });
}

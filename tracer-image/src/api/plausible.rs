//! Whether what was read of an API server's memory can be what it should be. Only what no client chooses is looked at, so that none can
//! have a server taken for another.

use rustc_hash::FxHashMap;

use crate::bpf::{self, site};

/// So many steps of a process are judged together ...
const JUDGED: u32 = 16;
/// ... and so many of them may not make sense.
const TOLERATED: u32 = 2;

/// What a step says that can't be: the field; `None` where all of it can.
pub fn odd(step: &bpf::Api<'_>) -> Option<&'static str> {
    let unreadable = |place| step.is_cut(place) && step.text(place).is_empty();
    match step.site {
        _ if step.goroutine == 0 => Some("goroutine"),
        site::BEGIN if unreadable(0) => Some("method"),
        site::BEGIN if unreadable(1) => Some("path"),
        site::BEGIN if !is_peer(step.text(2)) => Some("source"),
        site::BEGIN if unreadable(4) => Some("audit id"),
        site::ATTRIBUTES if unreadable(2) => Some("verb"),
        site::END if !matches!(step.status, 0 | 100..=999) => Some("code"),
        site::END if step.bytes < 0 => Some("response size"),
        _ => None,
    }
}

/// `ADDRESS:PORT`, whose address may have a zone, or what stands for it where there is none, as over a Unix socket.
fn is_peer(peer: &[u8]) -> bool {
    let port = |text: &[u8]| !text.is_empty() && text.len() <= 5 && text.iter().all(u8::is_ascii_digit);
    let mut parts = peer.rsplitn(2, |byte| *byte == b':');
    parts.next().is_some_and(port) && parts.next().is_some() || peer == b"@" || peer.starts_with(b"/")
}

/// What is thought of a step, and of the process that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken as it is.
    Plausible,
    /// It makes no sense; its process may yet.
    Odd,
    /// Its process is no API server that can be read.
    Condemned,
}

/// Judges processes by their first steps.
#[derive(Debug, Default)]
pub struct Judge {
    judged: FxHashMap<u32, Judged>,
}

#[derive(Debug, Default)]
struct Judged {
    start_ns: u64,
    steps: u32,
    odd: u32,
}

impl Judge {
    /// Takes a step of a process, which started then (0: as the last one that said so), and whether it is odd. Once judging is over, each step of a process that was found to be an API server
    /// is taken as it is.
    pub fn judge(&mut self, pid: u32, start_ns: u64, odd: bool) -> Verdict {
        let judged = self.judged.entry(pid).or_default();
        if start_ns != 0 && judged.start_ns != start_ns {
            *judged = Judged { start_ns, ..Judged::default() };
        }
        if judged.odd <= TOLERATED && judged.steps >= JUDGED {
            return Verdict::Plausible;
        }
        judged.steps = judged.steps.saturating_add(1);
        judged.odd = judged.odd.saturating_add(u32::from(odd));
        match odd {
            _ if judged.odd > TOLERATED => Verdict::Condemned,
            true => Verdict::Odd,
            false => Verdict::Plausible,
        }
    }

    /// Forgets a process that has ended.
    pub fn forget(&mut self, pid: u32) {
        self.judged.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_condemned_by_its_first_steps_alone() {
        let mut judge = Judge::default();
        assert_eq!([0; 3].map(|_| judge.judge(1, 5, true)), [Verdict::Odd, Verdict::Odd, Verdict::Condemned]);
        // whatever else it says
        for _ in 0..2 * JUDGED {
            assert_eq!(judge.judge(1, 5, false), Verdict::Condemned);
        }
        for odd in [false, true, false, true].into_iter().chain([false; JUDGED as usize - 4]) {
            assert_eq!(judge.judge(2, 5, odd), if odd { Verdict::Odd } else { Verdict::Plausible });
        }
        // judging is over
        for _ in 0..100 {
            assert_eq!(judge.judge(2, 5, true), Verdict::Plausible);
        }
        // another process of that pid
        assert_eq!(judge.judge(1, 6, true), Verdict::Odd);
        judge.forget(2);
        assert_eq!(judge.judge(2, 5, true), Verdict::Odd);
    }

    #[test]
    fn peers_are_addresses() {
        for (peer, want) in [
            ("127.0.0.1:80", true),
            ("[::1]:6443", true),
            ("[fe80::1%eth0]:6443", true),
            ("@", true),
            ("/run/api.sock", true),
            ("localhost", false),
            ("80", false),
            ("::", false),
            (":123456", false),
            ("\u{1}", false),
            ("", false),
        ] {
            assert_eq!(is_peer(peer.as_bytes()), want, "{peer}");
        }
    }
}

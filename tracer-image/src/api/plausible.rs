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
    let printable = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
    let place = match step.site {
        _ if step.goroutine == 0 => return Some("goroutine"),
        site::BEGIN if step.text(2).is_empty() || !is_peer(step.text(2)) => "source",
        site::BEGIN if !printable(step.text(0)) => "method",
        site::AUDIT_ID if !printable(step.text(0)) => "audit id",
        site::USER | site::ATTRIBUTES if !step.is_cut(0) && std::str::from_utf8(step.text(0)).is_err() => "user",
        site::USER | site::ATTRIBUTES if step.groups > 4096 => "groups",
        site::ATTRIBUTES if !printable(step.text(2)) => "verb",
        site::ATTRIBUTES if !step.is_cut(9) && !step.text(9).starts_with(b"/") => "path",
        site::END if !matches!(step.status, 0 | 100..=999) => "code",
        site::END if step.bytes < 0 => "response size",
        _ => return None,
    };
    Some(place)
}

/// `ADDRESS:PORT`, or what stands for it where there is none, as over a Unix socket.
fn is_peer(peer: &[u8]) -> bool {
    let text = std::str::from_utf8(peer).unwrap_or_default();
    text.parse::<std::net::SocketAddr>().is_ok() || text == "@" || text.starts_with('/')
}

/// Judges processes by their first steps.
#[derive(Debug, Default)]
pub struct Judge {
    /// Steps and odd ones, by process.
    judged: FxHashMap<u32, (u32, u32)>,
}

impl Judge {
    /// Takes a step and what is odd of it; whether its process is no API server that can be read.
    pub fn condemns(&mut self, pid: u32, odd: bool) -> bool {
        let (steps, odd_ones) = self.judged.entry(pid).or_default();
        if *steps >= JUDGED {
            return false;
        }
        *steps += 1;
        *odd_ones += u32::from(odd);
        *odd_ones > TOLERATED
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
        assert!(!judge.condemns(1, true) && !judge.condemns(1, true) && judge.condemns(1, true));
        for _ in 0..JUDGED {
            assert!(!judge.condemns(2, false));
        }
        for _ in 0..100 {
            assert!(!judge.condemns(2, true));
        }
        judge.forget(1);
        assert!(!judge.condemns(1, true));
    }

    #[test]
    fn peers_are_addresses() {
        for (peer, want) in
            [("127.0.0.1:80", true), ("[::1]:6443", true), ("@", true), ("localhost:80", false), ("\u{1}", false), ("", false)]
        {
            assert_eq!(is_peer(peer.as_bytes()), want, "{peer}");
        }
    }
}

//! Which matches receivers are told of, and which are only counted.
//!
//! The first match of a key is told at once. Repeats within the cool-down are counted; when it is over, they are told as one, and it
//! begins anew; without repeats it ends, and the next match is told at once again. Nothing is dropped: what there is no room to count
//! is told early.

use std::collections::{HashMap, VecDeque};

use super::{Match, Notice, Repeated, subject};
use crate::event::Event;

/// So many keys are counted at a time; beyond, the oldest gives way.
const KEYS: usize = 10_000;
/// What is kept of them takes so much memory, in bytes.
const BYTES: usize = 16 << 20;

/// What repeats may have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyField {
    /// The policy's name.
    Policy,
    /// The rule's name.
    Rule,
    /// The node's name.
    Node,
    /// The namespace.
    Namespace,
    /// The pod's name.
    Pod,
    /// The container's id; outside of containers the node's name.
    Container,
    /// The executable.
    Exe,
    /// The process id.
    Pid,
    /// The user: of a request its name, else the process's user id.
    User,
    /// The file, the executed name, or the request's verb and path.
    Object,
    /// The rule's message with its fields filled in.
    Message,
}

impl KeyField {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Policy,
        Self::Rule,
        Self::Node,
        Self::Namespace,
        Self::Pod,
        Self::Container,
        Self::Exe,
        Self::Pid,
        Self::User,
        Self::Object,
        Self::Message,
    ];
    /// What repeats have in common if the user says nothing else.
    pub const DEFAULT: [Self; 6] = [Self::Policy, Self::Rule, Self::Container, Self::Exe, Self::User, Self::Object];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Rule => "rule",
            Self::Node => "node",
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::Exe => "exe",
            Self::Pid => "pid",
            Self::User => "user",
            Self::Object => "object",
            Self::Message => "message",
        }
    }

    fn of(self, event: &Event, matched: &Match) -> String {
        match self {
            Self::Policy => matched.policy.clone(),
            Self::Rule => matched.rule.clone(),
            Self::Node => event.node.name.clone(),
            Self::Namespace => subject::namespace(event).to_owned(),
            Self::Pod => subject::pod(event).to_owned(),
            Self::Container => subject::container_or_node(event).to_owned(),
            Self::Exe => event.process.exe.clone(),
            Self::Pid => event.process.pid.to_string(),
            Self::User => subject::user(event).into_owned(),
            Self::Object => subject::object(event).into_owned(),
            Self::Message => matched.message.clone(),
        }
    }
}

/// The matches that are being counted.
#[derive(Debug)]
pub struct Repeats {
    fields: Vec<KeyField>,
    cooldown_ns: i64,
    counted: HashMap<Vec<String>, Counted>,
    /// When which cool-down is over, the first one first: all last equally long.
    order: VecDeque<(i64, Vec<String>)>,
    bytes: usize,
}

/// What came within a key's cool-down.
#[derive(Debug, Default)]
struct Counted {
    count: u64,
    first_time: String,
    last: Option<Box<(Event, Match)>>,
    bytes: usize,
}

impl Repeats {
    /// Counts those that have these fields in common, for so many nanoseconds; for none, each match is told.
    pub fn new(fields: Vec<KeyField>, cooldown_ns: i64) -> Self {
        Self { fields, cooldown_ns, counted: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// Takes a match in that happened at this time, in nanoseconds of any one clock, and tells what is to be told now.
    pub fn take(&mut self, event: &Event, matched: &Match, now_ns: i64, mut tell: impl FnMut(Notice)) {
        self.due(now_ns, &mut tell);
        let key: Vec<String> = self.fields.iter().map(|field| field.of(event, matched)).collect();
        let count = event.events();
        let first_time = || event.first_time.as_ref().unwrap_or(&event.time).clone();
        if let Some(counted) = self.counted.get_mut(&key) {
            if counted.count == 0 {
                counted.first_time = first_time();
            }
            counted.count = counted.count.saturating_add(count);
            let bytes = bytes(event, matched);
            self.bytes = self.bytes - counted.bytes + bytes;
            counted.bytes = bytes;
            counted.last = Some(Box::new((event.clone(), matched.clone())));
        } else {
            let alert = Repeated { key: key.clone(), count, first_time: first_time() };
            tell(Notice { event: event.clone(), matches: [matched.clone()], alert });
            if self.cooldown_ns > 0 {
                self.begin(key, now_ns);
            }
        }
        while self.counted.len() > KEYS || self.bytes > BYTES {
            let Some((_, key)) = self.order.pop_front() else { break };
            self.end(&key, &mut tell);
        }
    }

    /// Tells what was counted in cool-downs that are over at this time.
    pub fn due(&mut self, now_ns: i64, mut tell: impl FnMut(Notice)) {
        while let Some((_, key)) = self.order.pop_front_if(|(over_ns, _)| *over_ns <= now_ns) {
            if self.end(&key, &mut tell) {
                self.begin(key, now_ns);
            }
        }
    }

    /// Tells all that was counted: no more comes.
    pub fn rest(&mut self, mut tell: impl FnMut(Notice)) {
        while let Some((_, key)) = self.order.pop_front() {
            self.end(&key, &mut tell);
        }
    }

    fn begin(&mut self, key: Vec<String>, now_ns: i64) {
        // An event may come somewhat late; the order must hold all the same.
        let last = self.order.back().map_or(i64::MIN, |(over_ns, _)| *over_ns);
        self.order.push_back((now_ns.saturating_add(self.cooldown_ns).max(last), key.clone()));
        let bytes = 2 * key.iter().map(|text| text.len() + size_of::<String>()).sum::<usize>();
        self.bytes += bytes;
        self.counted.insert(key, Counted { bytes, ..Counted::default() });
    }

    /// Whether there was something to tell.
    fn end(&mut self, key: &[String], tell: &mut impl FnMut(Notice)) -> bool {
        let Some(Counted { count, first_time, last, bytes }) = self.counted.remove(key) else { return false };
        self.bytes -= bytes;
        let Some((event, matched)) = last.map(|last| *last) else { return false };
        tell(Notice { event, matches: [matched], alert: Repeated { key: key.to_vec(), count, first_time } });
        true
    }
}

/// About how much memory is taken by what is kept of a match.
fn bytes(event: &Event, matched: &Match) -> usize {
    let texts = [&matched.policy, &matched.rule, &matched.message].map(String::len).iter().sum::<usize>();
    event.bytes() + texts + size_of::<Match>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matched() -> Match {
        crate::alert::tests::read().matches[0].clone()
    }

    fn event(path: &str, bytes: usize) -> Event {
        let event = json!({ "process": { "exe": "/bin/cat", "args": ["cat", "x".repeat(bytes)] }, "file": { "path": path } });
        crate::cases::event(event.as_object().unwrap()).unwrap()
    }

    fn told(repeats: &mut Repeats, path: &str, now_ns: i64) -> Vec<(String, u64)> {
        let mut told = Vec::new();
        repeats.take(&event(path, 0), &matched(), now_ns, |notice| told.push(short(&notice)));
        told
    }

    fn short(notice: &Notice) -> (String, u64) {
        (subject::object(&notice.event).into_owned(), notice.alert.count)
    }

    fn pair(path: &str, count: u64) -> (String, u64) {
        (path.to_owned(), count)
    }

    #[test]
    fn repeats_are_counted_until_the_cool_down_is_over() {
        let mut repeats = Repeats::new(KeyField::DEFAULT.to_vec(), 60);
        assert_eq!(told(&mut repeats, "/a", 0), [pair("/a", 1)]);
        assert_eq!(told(&mut repeats, "/a", 1), []);
        assert_eq!(told(&mut repeats, "/b", 2), [pair("/b", 1)]);
        assert_eq!(told(&mut repeats, "/a", 59), []);
        // Its cool-down is over: what was counted is told, and the one that comes then is counted anew.
        assert_eq!(told(&mut repeats, "/a", 60), [pair("/a", 2)]);
        let mut rest = Vec::new();
        // Nothing repeated /b, so the next one is told at once.
        repeats.due(100, |notice| rest.push(short(&notice)));
        assert_eq!(rest, []);
        assert_eq!(told(&mut repeats, "/b", 101), [pair("/b", 1)]);
        repeats.rest(|notice| rest.push(short(&notice)));
        assert_eq!(rest, [pair("/a", 1)]);
        assert_eq!((repeats.bytes, repeats.counted.len(), repeats.order.len()), (0, 0, 0));
    }

    #[test]
    fn without_a_cool_down_all_are_told() {
        let mut repeats = Repeats::new(KeyField::DEFAULT.to_vec(), 0);
        assert_eq!([0, 0, 1].map(|now| told(&mut repeats, "/a", now).len()), [1, 1, 1]);
    }

    #[test]
    fn the_key_is_what_the_user_says() {
        let mut repeats = Repeats::new(vec![KeyField::Rule], 60);
        assert_eq!(told(&mut repeats, "/a", 0), [pair("/a", 1)]);
        assert_eq!(told(&mut repeats, "/b", 1), []);
        let mut rest = Vec::new();
        repeats.rest(|notice| rest.push(notice));
        assert_eq!(rest[0].alert.key, ["shadow-read"]);
        assert_eq!(short(&rest[0]), pair("/b", 1));
    }

    #[test]
    fn what_there_is_no_room_for_is_told_early_and_nothing_is_dropped() {
        let mut repeats = Repeats::new(KeyField::DEFAULT.to_vec(), 60);
        let (mut sum, mut event, matched) = (0, event("/", 0), matched());
        for round in 0..3 {
            for n in 0..KEYS + 5 {
                if let crate::event::What::File { file } = &mut event.what {
                    file.path.path = format!("/{n}");
                }
                repeats.take(&event, &matched, round, |notice| sum += notice.alert.count);
                assert!(repeats.counted.len() <= KEYS);
            }
        }
        repeats.rest(|notice| sum += notice.alert.count);
        assert_eq!(sum, 3 * (KEYS as u64 + 5));
    }

    #[test]
    fn memory_is_bounded_by_bytes_as_well() {
        let mut repeats = Repeats::new(KeyField::DEFAULT.to_vec(), 60);
        let mut sum = 0;
        for n in 0..60 {
            let event = event(&format!("/{}", n % 30), 1 << 20);
            repeats.take(&event, &matched(), 0, |notice| sum += notice.alert.count);
            assert!(repeats.bytes <= BYTES, "{}", repeats.bytes);
        }
        repeats.rest(|notice| sum += notice.alert.count);
        assert_eq!((sum, repeats.bytes), (60, 0));
    }
}

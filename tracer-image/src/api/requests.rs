//! What the probes tell of a request, step by step, joined into one item.
//!
//! A request comes in on a goroutine of its connection and ends there. In between it may run on a goroutine that this one has
//! started: ordinary requests do, long-running ones don't.

mod told;

use std::collections::VecDeque;

use knark_specs::{
    body::Subject,
    frame::{ApiStage, ApiUser},
    redact,
    request::Request,
};
use rustc_hash::FxHashMap;

use self::told::{Told, put};
use super::bodies::{Bodies, Read};
use crate::bpf::{self, site};

/// All requests that are open together, with what is kept of their bodies, take about this much memory, in bytes; then the oldest
/// are given up.
const CAPACITY: usize = 24 << 20;
/// A long-running request is told of when it has gone on for so long, in ns: one that is refused ends sooner.
const SETTLED: u64 = 50_000_000;

/// No name is longer, in bytes; what a body calls one may be.
const NAME: usize = 256;

/// A step that comes again within so many ns is the same: files of two containers may be one underneath, whose probes then fire twice.
const TWICE: u64 = 1_000_000;

/// Requests that have begun and not ended.
#[derive(Debug, Default)]
pub struct Requests {
    open: FxHashMap<Key, Open>,
    /// In the order in which they began; those that have ended since are still there.
    order: VecDeque<(Key, u64)>,
    /// Long-running ones, not yet told of.
    unsettled: VecDeque<(Key, u64)>,
    bytes: usize,
    next: u64,
    given_up: u64,
    /// What gives access is left in bodies.
    show_secrets: bool,
}

/// Process and goroutine.
pub type Key = (u32, u64);

#[derive(Debug)]
struct Open {
    number: u64,
    begun_ns: u64,
    head: bpf::Head,
    method: Box<[u8]>,
    uri: Box<[u8]>,
    source: Box<[u8]>,
    user_agent: Box<[u8]>,
    audit_id: Box<[u8]>,
    authenticated: Option<User>,
    attributes: Option<Box<Attributes>>,
    /// The goroutine that was authorised, and reads and answers what there is to read.
    handler: Option<u64>,
    denied: bool,
    bodies: Bodies,
    truncated: Vec<&'static str>,
    bytes: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct User {
    name: Box<[u8]>,
    uid: Box<[u8]>,
    groups: Vec<Box<[u8]>>,
    /// There are more groups than these.
    cut: bool,
}

#[derive(Debug, Default)]
struct Attributes {
    user: Option<User>,
    verb: Box<[u8]>,
    namespace: Box<[u8]>,
    group: Box<[u8]>,
    version: Box<[u8]>,
    resource: Box<[u8]>,
    subresource: Box<[u8]>,
    name: Box<[u8]>,
}

impl Requests {
    /// None yet.
    pub fn new(show_secrets: bool) -> Self {
        Self { show_secrets, ..Self::default() }
    }

    /// Takes a piece of a body. It must not push out requests: where there is no room for it, the body isn't whole.
    pub fn add(&mut self, piece: &bpf::ApiBody<'_>) {
        let key = self.outer(piece.head.tgid, piece.goroutine, piece.parent);
        // The rest is left to the steps of requests.
        let room = (CAPACITY / 2).saturating_sub(self.bytes);
        // A handler that was given up may write on, when its connection's next request has begun.
        let is_handlers = |open: &Open| open.handler.is_none_or(|handler| handler == piece.goroutine);
        self.learn(key, |open| {
            if is_handlers(open) {
                open.bodies.add(piece, room);
            }
        });
    }

    /// Takes a step. The items that it completes go to `batch`; says how many. `server` gives the slot of the API server by the head of
    /// a request's first step, and defines it in the batch before.
    pub fn take(
        &mut self,
        step: &bpf::Api<'_>,
        batch: &mut Vec<u8>,
        server: impl FnOnce(&bpf::Head, &mut Vec<u8>) -> u32,
    ) -> u64 {
        let key = (step.head.tgid, step.goroutine);
        match step.site {
            site::BEGIN => self.begin(key, step),
            site::USER => self.learn(self.outer_of(step), |open| open.authenticated = Some(user(open, step, "impersonator"))),
            site::ATTRIBUTES => self.attributes(self.outer_of(step), step),
            site::DENIED => self.learn(self.outer_of(step), |open| open.denied = true),
            site::END => return self.end(key, step, Some(code(step.status)), batch, server),
            // An HTTP/1 connection that no request had taken over has none open.
            site::CLOSED => return self.end(key, step, Some(SWITCHING), batch, server),
            // What its client was answered, if anything, isn't known.
            site::ABORTED => return self.end(key, step, None, batch, server),
            _ => {}
        }
        0
    }

    /// Gives up the request of a step that makes no sense, be it its first.
    pub fn discard(&mut self, step: &bpf::Api<'_>) {
        self.given_up += u64::from(step.site == site::BEGIN);
        for key in [(step.head.tgid, step.goroutine), self.outer_of(step)] {
            if self.remove(key).is_some() {
                self.given_up += 1;
            }
        }
    }

    /// The next long-running request that has begun some time before `now_ns` and has not been told of, and whose it is.
    pub fn settle(&mut self, now_ns: u64) -> Option<(Key, bpf::Head)> {
        while let Some((key, number)) = self.unsettled.front().copied() {
            let open = self.open.get(&key).filter(|open| open.number == number);
            if open.is_some_and(|open| open.begun_ns.saturating_add(SETTLED) > now_ns) {
                return None;
            }
            self.unsettled.pop_front();
            if let Some(open) = open.filter(|open| !open.denied) {
                return Some((key, open.head));
            }
        }
        None
    }

    /// Tells that it has begun.
    pub fn tell(&self, key: Key, process: u32, batch: &mut Vec<u8>) {
        if let Some(open) = self.open.get(&key) {
            put(open, &Told::started(process, open), batch);
        }
    }

    /// Since when (`CLOCK_BOOTTIME`, ns) there may be requests whose beginning has not been told yet.
    pub fn unsettled_since(&self) -> Option<u64> {
        let (key, number) = self.unsettled.front()?;
        self.open.get(key).filter(|open| open.number == *number).map(|open| open.begun_ns)
    }

    /// Gives up the requests of a process that has gone or is looked at no more, and says how many.
    pub fn forget(&mut self, pid: u32) -> usize {
        let gone: Vec<Key> = self.open.keys().filter(|(tgid, _)| *tgid == pid).copied().collect();
        let count = gone.len();
        for key in gone {
            self.remove(key);
        }
        self.given_up += count as u64;
        count
    }

    /// Requests that were given up since too many were open, or since their end was not seen or couldn't be.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Requests that have begun and not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn begin(&mut self, key: Key, step: &bpf::Api<'_>) {
        let open = self.open.get(&key).filter(|open| open.is_untouched() && *open.audit_id == *step.text(4));
        if open.is_some_and(|open| step.head.boot_ns.saturating_sub(open.begun_ns) < TWICE) {
            return;
        }
        if self.remove(key).is_some() {
            // Its end was lost.
            self.given_up += 1;
        }
        self.next += 1;
        let mut open = Open::new(self.next, step.head);
        open.method = text(&mut open, step, 0, "method");
        open.uri = redact::uri(&text(&mut open, step, 1, "path")).into();
        if open.truncated.last() == Some(&"path") && open.uri.contains(&b'?') {
            open.truncated.pop();
            open.truncated.push("query");
        }
        open.source = address(&text(&mut open, step, 2, "source")).into();
        open.user_agent = text(&mut open, step, 3, "user_agent");
        open.audit_id = text(&mut open, step, 4, "audit_id");
        open.bytes = open.measure();
        self.bytes += open.bytes;
        self.order.push_back((key, open.number));
        self.open.insert(key, open);
        self.make_room();
    }

    fn attributes(&mut self, key: Key, step: &bpf::Api<'_>) {
        let mut long = None;
        self.learn(key, |open| {
            let known = Attributes {
                user: (!step.is_cut(0) || !step.text(0).is_empty()).then(|| user(open, step, "user")),
                verb: text(open, step, 2, "verb"),
                namespace: text(open, step, 3, "namespace"),
                group: text(open, step, 4, "group"),
                version: text(open, step, 5, "version"),
                resource: text(open, step, 6, "resource"),
                subresource: text(open, step, 7, "subresource"),
                name: text(open, step, 8, "name"),
            };
            // Told a second time, it is in the queue already.
            let first = open.attributes.is_none();
            long = (first && is_long_running(&known, &open.uri)).then_some(open.number);
            open.attributes = Some(Box::new(known));
            open.handler = Some(step.goroutine);
        });
        self.unsettled.extend(long.map(|number| (key, number)));
    }

    fn end(
        &mut self,
        key: Key,
        step: &bpf::Api<'_>,
        code: Option<u16>,
        batch: &mut Vec<u8>,
        server: impl FnOnce(&bpf::Head, &mut Vec<u8>) -> u32,
    ) -> u64 {
        let Some(mut open) = self.remove(key) else { return 0 };
        let process = server(&open.head, batch);
        // A session that was short has a beginning all the same.
        let begins = code.is_none_or(|code| code < 400) && !open.denied && self.unsettled.contains(&(key, open.number));
        if begins {
            put(&open, &Told::started(process, &open), batch);
        }
        let bytes = (step.site == site::END).then(|| u64::try_from(step.bytes).ok()).flatten();
        let bodies = open.read_bodies(self.show_secrets, bytes.unwrap_or_default());
        put(&open, &Told { process, stage: ApiStage::Complete, time_ns: step.head.boot_ns, code, bytes, bodies }, batch);
        1 + u64::from(begins)
    }

    /// The goroutine on which the request of this step came in.
    fn outer_of(&self, step: &bpf::Api<'_>) -> Key {
        self.outer(step.head.tgid, step.goroutine, step.parent)
    }

    fn outer(&self, pid: u32, goroutine: u64, parent: u64) -> Key {
        let own = (pid, goroutine);
        if self.open.contains_key(&own) { own } else { (pid, parent) }
    }

    /// Adds to what is known of a request; of one that began before the probes were there, nothing is.
    fn learn(&mut self, key: Key, learn: impl FnOnce(&mut Open)) {
        let Some(open) = self.open.get_mut(&key) else { return };
        learn(open);
        self.bytes -= std::mem::replace(&mut open.bytes, 0);
        open.bytes = open.measure();
        self.bytes += open.bytes;
        self.make_room();
    }

    fn remove(&mut self, key: Key) -> Option<Open> {
        let open = self.open.remove(&key)?;
        self.bytes -= open.bytes;
        // What has ended is forgotten in its turn, and at last when it is most of what is there.
        while self.order.len() > 2 * self.open.len() + 64 {
            self.drop_ended();
        }
        Some(open)
    }

    fn make_room(&mut self) {
        while self.bytes > CAPACITY
            && let Some((key, number)) = self.order.pop_front()
        {
            if self.open.get(&key).is_some_and(|open| open.number == number) {
                self.remove(key);
                self.given_up += 1;
            }
        }
    }

    fn drop_ended(&mut self) {
        self.order.retain(|(key, number)| self.open.get(key).is_some_and(|open| open.number == *number));
    }
}

impl Open {
    /// One of which nothing is known but that it has begun.
    fn new(number: u64, head: bpf::Head) -> Self {
        Self {
            number,
            begun_ns: head.boot_ns,
            head,
            method: Box::default(),
            uri: Box::default(),
            source: Box::default(),
            user_agent: Box::default(),
            audit_id: Box::default(),
            authenticated: None,
            attributes: None,
            handler: None,
            denied: false,
            bodies: Bodies::default(),
            truncated: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether nothing is known but that it has begun.
    fn is_untouched(&self) -> bool {
        self.authenticated.is_none() && self.attributes.is_none() && !self.denied
    }

    /// What its bodies say. A create is of the object that they show.
    /// `answered`: how many bytes the client was answered with.
    fn read_bodies(&mut self, show_secrets: bool, answered: u64) -> Read {
        let bodies = std::mem::take(&mut self.bodies);
        let guess = self.attributes.is_none().then(|| Attributes::of(&self.method, &self.uri));
        let Some(known) = self.attributes.as_deref().or(guess.as_ref()) else { return Read::default() };
        let text = |bytes| String::from_utf8_lossy(bytes);
        let (group, resource, subresource) = (text(&known.group), text(&known.resource), text(&known.subresource));
        let subject = Subject { group: &group, resource: &resource, subresource: &subresource };
        let read = bodies.read(&subject, show_secrets, answered);
        for field in &read.truncated {
            self.cut(field);
        }
        let mut cut = Vec::new();
        if let Some(known) = self.attributes.as_mut().filter(|known| &*known.verb == b"create") {
            let fields = [("name", &mut known.name, &read.name), ("namespace", &mut known.namespace, &read.namespace)];
            for (name, field, shown) in fields {
                if let Some(shown) = shown.as_ref().filter(|_| field.is_empty()) {
                    let kept = &shown[..shown.floor_char_boundary(NAME)];
                    *field = kept.as_bytes().into();
                    cut.extend((kept.len() < shown.len()).then_some(name));
                }
            }
        }
        for field in cut {
            self.cut(field);
        }
        read
    }

    fn measure(&self) -> usize {
        let Self { method, uri, source, user_agent, audit_id, authenticated, attributes, bodies, truncated, .. } = self;
        let texts = method.len() + uri.len() + source.len() + user_agent.len() + audit_id.len();
        let attributes = attributes.as_ref().map_or(0, |known| {
            let Attributes { user, verb, namespace, group, version, resource, subresource, name } = &**known;
            let texts = [verb, namespace, group, version, resource, subresource, name].map(|text| text.len());
            size_of::<Attributes>() + texts.iter().sum::<usize>() + user.as_ref().map_or(0, User::measure)
        });
        // It is in two tables besides.
        size_of::<Self>()
            + 2 * size_of::<(Key, u64)>()
            + texts
            + attributes
            + bodies.measure()
            + authenticated.as_ref().map_or(0, User::measure)
            + size_of_val(truncated.as_slice())
    }

    /// Puts that a field isn't whole on record.
    fn cut(&mut self, field: &'static str) {
        if !self.truncated.contains(&field) {
            self.truncated.push(field);
        }
    }
}

impl Attributes {
    /// As far as the request itself tells: of one that was answered before it was authorised.
    fn of(method: &[u8], uri: &[u8]) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes);
        let Request { verb, group, version, resource, subresource, namespace, name } = Request::of(&text(method), &text(uri));
        let bytes = |text: String| text.into_bytes().into();
        Self {
            user: None,
            verb: bytes(verb),
            namespace: bytes(namespace),
            group: bytes(group),
            version: bytes(version),
            resource: bytes(resource),
            subresource: bytes(subresource),
            name: bytes(name),
        }
    }
}

impl User {
    fn measure(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| size_of_val(group) + group.len()).sum();
        self.name.len() + self.uid.len() + groups
    }

    /// Whether a request that this one authenticated for acts as somebody else, be it oneself with other groups. Of groups that are cut
    /// only so many are compared as both have: who acts as oneself has them in the same order.
    fn is_other_than(&self, user: &Self) -> bool {
        let both = if self.cut || user.cut { self.groups.len().min(user.groups.len()) } else { usize::MAX };
        let lacks = |one: &Self, other: &Self| {
            let mut groups = one.groups.iter().take(both).filter(|group| !EVERYBODYS.contains(&&***group));
            groups.any(|group| !other.groups.iter().take(both).any(|own| own == group))
        };
        self.name != user.name || self.uid != user.uid || lacks(self, user) || lacks(user, self)
    }

    fn item(&self) -> ApiUser<'_> {
        ApiUser { name: &self.name, uid: &self.uid, groups: self.groups.iter().map(|group| (&**group).into()).collect() }
    }
}

/// Groups that are given to everybody who has been authenticated, or to everybody else, by what runs after that.
const EVERYBODYS: [&[u8]; 2] = [b"system:authenticated", b"system:unauthenticated"];

/// The status of a response that is none of HTTP's own, but of what took its connection over.
const SWITCHING: u16 = 101;

/// A handler that writes none gives 200.
fn code(status: i64) -> u16 {
    match status {
        0 => 200,
        status => u16::try_from(status).unwrap_or(0),
    }
}

fn text(open: &mut Open, step: &bpf::Api<'_>, place: usize, field: &'static str) -> Box<[u8]> {
    if step.is_cut(place) {
        open.cut(field);
    }
    step.text(place).into()
}

/// Of a step that tells of one: name, UID and groups.
fn user(open: &mut Open, step: &bpf::Api<'_>, field: &'static str) -> User {
    if step.is_cut(0) || step.is_cut(1) || step.groups_cut() {
        open.cut(field);
    }
    User {
        name: step.text(0).into(),
        uid: step.text(1).into(),
        groups: step.groups().map(Box::from).collect(),
        cut: step.groups_cut(),
    }
}

/// An address without its port, and an IPv6 address without its brackets.
fn address(peer: &[u8]) -> &[u8] {
    let host = peer.iter().rposition(|byte| *byte == b':').map_or(peer, |colon| &peer[..colon]);
    host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host)
}

/// Requests that end when somebody wants them to. As the API server's own check tells them: by verb and subresource, and a log only
/// where it is followed.
fn is_long_running(known: &Attributes, uri: &[u8]) -> bool {
    match (&*known.verb, &*known.subresource) {
        (b"watch" | b"proxy", _) | (_, b"exec" | b"attach" | b"portforward" | b"proxy") => true,
        (_, b"log") => {
            let query = uri.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
            query.split(|byte| *byte == b'&').any(|part| matches!(part, b"follow=true" | b"follow=1" | b"follow"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;

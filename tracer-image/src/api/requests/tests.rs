use std::mem::offset_of;

use knark_abi::{API_GROUPS, API_GROUPS_MAX, API_TEXTS, ApiBody, Header, api_text, kind, verdict};
use knark_specs::frame::{self, Item};

use super::*;
use crate::{api::plausible, bpf::Record};

/// A step as its bytes come out of the ring.
#[derive(Clone)]
struct Step {
    site: u8,
    pid: u32,
    at: u64,
    goroutine: u64,
    parent: u64,
    status: i64,
    texts: Vec<(usize, Vec<u8>)>,
    marks: Vec<(usize, u16)>,
    groups: u32,
}

fn step(site: u8, at: u64, goroutine: u64, parent: u64) -> Step {
    Step { site, pid: 7, at, goroutine, parent, status: 0, texts: Vec::new(), marks: Vec::new(), groups: 0 }
}

impl Step {
    fn texts(mut self, from: usize, texts: &[&str]) -> Self {
        self.texts.extend((from..).zip(texts.iter().map(|text| text.as_bytes().to_vec())));
        self
    }

    fn groups(mut self, groups: &[&str]) -> Self {
        self.groups = u32::try_from(groups.len()).unwrap();
        self.texts(API_GROUPS, groups)
    }

    fn status(mut self, status: i64) -> Self {
        self.status = status;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut lengths = [0_u16; API_TEXTS];
        for (place, text) in &self.texts {
            lengths[*place] |= u16::try_from(text.len()).unwrap();
        }
        for (place, mark) in &self.marks {
            lengths[*place] |= mark;
        }
        let mut bytes = vec![0; size_of::<Header>()];
        bytes[4..7].copy_from_slice(&[kind::API, self.site, verdict::TRACE]);
        bytes[12..16].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[offset_of!(Header, boot_ns)..][..8].copy_from_slice(&self.at.to_ne_bytes());
        for number in [self.goroutine, self.parent, self.status.cast_unsigned(), 99] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(lengths.iter().flat_map(|length| length.to_ne_bytes()));
        bytes.extend(self.groups.to_ne_bytes());
        bytes.extend([0; 4]);
        assert_eq!(bytes.len(), size_of::<Header>() + size_of::<ApiBody>());
        let mut texts = self.texts.clone();
        texts.sort();
        bytes.extend(texts.into_iter().flat_map(|(_, text)| text));
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }
}

/// Gives the steps to the requests; what is told of them.
fn take(requests: &mut Requests, steps: &[Step]) -> Vec<String> {
    let mut batch = Vec::new();
    let mut items = 0;
    for step in steps {
        let bytes = step.bytes();
        let Some(Record::Api(record)) = Record::parse(&bytes) else { panic!("no record of a step") };
        items += usize::try_from(requests.take(&record, &mut batch, |_, _| 3)).unwrap();
    }
    let told = told(&batch);
    assert_eq!(told.len(), items);
    told
}

fn told(batch: &[u8]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let user = |user: &Option<frame::ApiUser<'_>>| match user {
        Some(user) => format!("{}{:?}", text(user.name), user.groups.iter().map(|group| text(group)).collect::<Vec<_>>()),
        None => "-".to_owned(),
    };
    let of = |item| {
        let Ok(Item::Api(api)) = item else { panic!("{item:?}") };
        assert_eq!(api.process, 3);
        format!(
            "{:?} {} {} {} {} {} as {} {:?} {:?} {} {} {} {:?}",
            api.stage,
            api.time_ns,
            user(&api.impersonator),
            text(api.verb),
            text(api.resource),
            text(api.name),
            user(&api.user),
            api.decision,
            api.code,
            text(api.source),
            text(api.audit_id),
            text(api.uri),
            api.truncated,
        )
    };
    frame::items(batch).map(of).collect()
}

fn begin(at: u64, goroutine: u64, uri: &str) -> Step {
    step(site::BEGIN, at, goroutine, 1).texts(0, &["GET", uri, "[::1]:6443", "kubectl"])
}

fn attributes(at: u64, goroutine: u64, parent: u64, user: &str, verb: &str, resource: &str, sub: &str) -> Step {
    let texts = [user, "", verb, "prod", "", "v1", resource, sub, "web"];
    step(site::ATTRIBUTES, at, goroutine, parent).texts(0, &texts).groups(&["dev", "all"])
}

#[test]
fn steps_on_two_goroutines_are_one_request() {
    let mut requests = Requests::default();
    let steps = [
        begin(1, 10, "/api/v1/pods/web").texts(4, &["id-1"]),
        begin(2, 20, "/healthz"),
        step(site::USER, 4, 11, 10).texts(0, &["root", ""]).groups(&["dev"]),
        attributes(5, 11, 10, "alice", "get", "pods", ""),
        step(site::END, 6, 20, 1),
        step(site::END, 7, 10, 1).status(404),
        // of requests that began before the probes were there
        step(site::END, 8, 30, 1),
        step(site::DENIED, 8, 31, 30),
        step(site::CLOSED, 8, 10, 1),
    ];
    assert_eq!(
        take(&mut requests, &steps),
        [
            "Complete 6 - get   as - None Some(200) ::1  /healthz []",
            r#"Complete 7 root["dev"] get pods web as alice["dev", "all"] Some(Allowed) Some(404) ::1 id-1 /api/v1/pods/web []"#,
        ]
    );
    assert_eq!((requests.open(), requests.given_up(), requests.bytes), (0, 0, 0));
}

#[test]
fn who_acts_as_oneself_is_no_impersonator() {
    let many: Vec<String> = (0..API_GROUPS_MAX).map(|n| format!("g{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let other: Vec<&str> = ["system:masters"].into_iter().chain(many.iter().copied()).take(API_GROUPS_MAX).collect();
    // what was authenticated, how many groups more, what the request acts as, how many more, whether that is somebody else
    for (real, more, acting, more_acting, is_other) in [
        (&["dev", "all"][..], 0, &["dev", "all"][..], 0, false),
        (&["dev"], 0, &["dev", "system:authenticated"], 0, false),
        (&["dev", "system:unauthenticated"], 0, &["dev"], 0, false),
        (&["admins"], 0, &["dev", "all"], 0, true),
        (&["dev", "admins"], 0, &["dev"], 0, true),
        // more than one has
        (&["dev"], 0, &["dev", "system:masters"], 0, true),
        (&[], 0, &["system:masters", "system:authenticated"], 0, true),
        (&many, 3, &many, 4, false),
        (&many, 0, &many, 1, false),
        (&many, 3, &other, 4, true),
        (&["dev"], 0, &other, 4, true),
    ] {
        let mut requests = Requests::default();
        let mut known = step(site::USER, 2, 10, 1).texts(0, &["alice", ""]).groups(real);
        known.groups += more;
        let mut acts = attributes(3, 10, 1, "alice", "get", "pods", "");
        acts.texts.truncate(9);
        acts = acts.groups(acting);
        acts.groups += more_acting;
        let told = take(&mut requests, &[begin(1, 10, "/x"), known, acts, step(site::END, 4, 10, 1)]);
        assert_eq!(told[0].starts_with("Complete 4 alice["), is_other, "{told:?}");
        assert_eq!(told[0].starts_with("Complete 4 - get"), !is_other, "{told:?}");
    }
}

#[test]
fn of_authenticators_within_one_another_the_outermost_is_believed() {
    let mut requests = Requests::default();
    let answer = |at, groups: &[&str]| step(site::USER, at, 10, 1).texts(0, &["alice", ""]).groups(groups);
    let outer = ["dev", "system:authenticated"];
    let steps = [begin(1, 10, "/x"), answer(2, &["dev"]), answer(3, &outer), answer(4, &outer), step(site::END, 5, 10, 1)];
    let told = take(&mut requests, &steps);
    assert!(told.len() == 1 && told[0].contains(r#"as alice["dev", "system:authenticated"]"#), "{told:?}");
}

#[test]
fn decisions_are_told_apart() {
    let mut requests = Requests::default();
    let denied = [
        begin(1, 10, "/api/v1/namespaces/prod/secrets/web"),
        attributes(2, 10, 1, "bob", "get", "secrets", ""),
        step(site::DENIED, 3, 10, 1),
        step(site::END, 4, 10, 1).status(403),
    ];
    assert!(take(&mut requests, &denied)[0].contains("Some(Denied) Some(403)"));
    // by a quota, or by another server
    let refused = [begin(1, 10, "/x"), attributes(2, 10, 1, "bob", "get", "secrets", ""), step(site::END, 4, 10, 1).status(403)];
    assert!(take(&mut requests, &refused)[0].contains("Some(Allowed) Some(403)"));
    let before = |status| [begin(1, 10, "/api/v1/namespaces/prod/secrets/web"), step(site::END, 4, 10, 1).status(status)];
    assert_eq!(
        take(&mut requests, &before(401)),
        ["Complete 4 - get secrets web as - Some(Unauthenticated) Some(401) ::1  /api/v1/namespaces/prod/secrets/web []"]
    );
    assert!(take(&mut requests, &before(403))[0].contains("Some(Denied) Some(403)"));
    assert!(take(&mut requests, &before(429))[0].contains("None Some(429)"));
}

#[test]
fn long_running_requests_are_told_of_when_they_last() {
    let mut requests = Requests::default();
    let long = |goroutine: u64, sub: &str, verb: &str, uri: &str| {
        [begin(1000, goroutine, uri), attributes(1001, goroutine, 1, "alice", verb, "pods", sub)]
    };
    for (goroutine, sub, verb, uri) in [
        (10, "exec", "create", "/x"),
        (20, "log", "get", "/x?container=c&follow=true"),
        (30, "log", "get", "/x?followed=true"),
        (40, "", "watch", "/x"),
        (50, "", "list", "/x?watch=1"),
        (60, "portforward", "get", "/x"),
    ] {
        assert!(take(&mut requests, &long(goroutine, sub, verb, uri)).is_empty());
    }
    // One that was short has a beginning all the same.
    let short = take(&mut requests, &[step(site::DENIED, 1002, 40, 1), step(site::CLOSED, 1003, 60, 1)]);
    assert!(short.len() == 2 && short[0].starts_with("Started 1000") && short[1].contains("Some(101)"), "{short:?}");
    assert_eq!(requests.settle(1000 + SETTLED - 1), None);
    assert_eq!(requests.unsettled_since(), Some(1000));
    let mut batch = Vec::new();
    while let Some((key, head)) = requests.settle(1000 + SETTLED) {
        assert_eq!(head.tgid, 7);
        requests.tell(key, 3, &mut batch);
    }
    let told = told(&batch);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("Started 1000 - create pods") && told[1].contains("follow=true"), "{told:?}");
    assert_eq!(requests.unsettled_since(), None);
    assert_eq!((requests.forget(8), requests.forget(7)), (0, 5));
    assert_eq!((requests.open(), requests.bytes, requests.given_up()), (0, 0, 5));
}

#[test]
fn steps_that_come_twice_are_one() {
    let mut requests = Requests::default();
    let twice = [
        begin(1, 10, "/x").texts(4, &["id"]),
        step(site::USER, 3, 10, 1).texts(0, &["alice", ""]).groups(&["dev", "all"]),
        attributes(4, 10, 1, "alice", "watch", "pods", ""),
    ];
    for step in &twice {
        assert!(take(&mut requests, &[step.clone(), step.clone()]).is_empty());
    }
    assert_eq!((requests.open(), requests.unsettled.len()), (1, 1));
    let end = step(site::END, 5, 10, 1);
    let told = take(&mut requests, &[end.clone(), end, begin(6, 10, "/y"), step(site::END, 7, 10, 1)]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("Started 1 - watch") && told[1].starts_with("Complete 5 - watch"), "{told:?}");
    assert!(told[2].ends_with("/y []"), "{told:?}");
    // one whose steps but the first are lost, before another
    assert!(take(&mut requests, &[begin(8, 10, "/a"), begin(8 + TWICE, 10, "/b")]).is_empty());
    assert_eq!((requests.open(), requests.given_up()), (1, 1));
    assert!(take(&mut requests, &[begin(9 + TWICE, 10, "/c").texts(4, &["other"])]).is_empty());
    assert_eq!((requests.open(), requests.given_up()), (1, 2));
}

#[test]
fn a_request_that_is_given_up_has_no_code() {
    let mut requests = Requests::default();
    let steps = [begin(1, 10, "/x"), attributes(2, 11, 10, "alice", "get", "pods", ""), step(site::ABORTED, 9, 10, 1)];
    assert!(take(&mut requests, &steps)[0].contains("Some(Allowed) None"));
    assert!(take(&mut requests, &[step(site::END, 10, 10, 1)]).is_empty());
}

#[test]
fn what_is_cut_is_named() {
    let mut requests = Requests::default();
    let mut first = begin(1, 10, "/x?y=z");
    first.marks.push((1, api_text::CUT));
    let mut second = attributes(2, 10, 1, "", "get", "pods", "");
    // a user of another kind, which can't be read, with more groups than there is room for
    second.texts.remove(0);
    second.marks.push((0, api_text::FAULT));
    let mut more = step(site::USER, 2, 10, 1).texts(0, &["u", ""]).groups(&["a"]);
    more.groups = 40;
    let told = take(&mut requests, &[first, more, second, step(site::END, 3, 10, 1)]);
    assert!(told[0].ends_with(r#"/x?y=z ["query", "impersonator"]"#), "{told:?}");
    assert!(told[0].contains(r#"as u["a""#), "{told:?}");
}

#[test]
fn nothing_that_a_client_chooses_is_odd() {
    let odd = |step: &Step| {
        let bytes = step.bytes();
        let Some(Record::Api(record)) = Record::parse(&bytes) else { panic!("no record of a step") };
        plausible::odd(&record)
    };
    let ours = |site| step(site, 1, 10, 1);
    for step in [
        ours(site::BEGIN).texts(0, &["\u{1}", "*", "[fe80::1%eth0]:6443", "\u{1}"]),
        ours(site::BEGIN).texts(0, &["GET", "/", "@", "", "any thing\n"]),
        ours(site::USER).texts(0, &["\u{7}", "\u{7}"]),
        ours(site::ATTRIBUTES).texts(0, &["", "", "", "", "", "", "", "", "*"]),
        ours(site::END).status(999),
    ] {
        assert_eq!(odd(&step), None, "{}", step.site);
    }
    let mut unreadable = ours(site::BEGIN).texts(0, &["GET", "/", "@", ""]);
    unreadable.marks.push((4, api_text::FAULT));
    assert_eq!(odd(&unreadable), Some("audit id"));
    assert_eq!(odd(&ours(site::BEGIN).texts(0, &["GET", "/", "nowhere"])), Some("source"));
    assert_eq!(odd(&ours(site::END).status(1000)), Some("code"));
    assert_eq!(odd(&step(site::DENIED, 1, 0, 1)), Some("goroutine"));
}

#[test]
fn a_request_whose_beginning_is_refused_is_counted() {
    let mut requests = Requests::default();
    take(&mut requests, &[begin(1, 10, "/x")]);
    for (step, given_up) in [(begin(2, 20, "/y"), 1), (step(site::USER, 3, 10, 1), 2), (step(site::END, 4, 10, 1), 2)] {
        let bytes = step.bytes();
        let Some(Record::Api(record)) = Record::parse(&bytes) else { panic!("no record of a step") };
        requests.discard(&record);
        assert_eq!(requests.given_up(), given_up);
    }
    assert_eq!((requests.open(), requests.bytes), (0, 0));
}

/// Gives a piece of a body, at its front.
fn carry(requests: &mut Requests, response: bool, goroutine: u64, parent: u64, total: u64, bytes: &[u8]) {
    carry_at(requests, response, [goroutine, parent], [0, total], bytes);
}

fn carry_at(requests: &mut Requests, response: bool, [goroutine, parent]: [u64; 2], [offset, total]: [u64; 2], bytes: &[u8]) {
    let from = step(site::DENIED, 1, goroutine, parent).bytes();
    let Some(Record::Api(bpf::Api { head, .. })) = Record::parse(&from) else { panic!("no record of a step") };
    requests.add(&bpf::ApiBody { head, response, goroutine, parent, offset, total, bytes });
}

#[test]
fn what_a_handler_writes_late_is_not_the_next_requests() {
    let mut requests = Requests::default();
    take(&mut requests, &[begin(1, 10, "/a"), attributes(2, 11, 10, "alice", "patch", "widgets", "")]);
    // It is answered that it took too long; the connection's next request is another's.
    let mut about = attributes(5, 12, 10, "bob", "create", "pods", "");
    about.texts[8].1 = "".into();
    take(&mut requests, &[step(site::END, 3, 10, 1), begin(4, 10, "/b"), about]);
    for (handler, body) in [(11, br#"{"metadata":{"name":"late"}}"#), (12, br#"{"metadata":{"name":"own-"}}"#)] {
        carry(&mut requests, true, handler, 10, body.len() as u64, body);
    }
    let told = take(&mut requests, &[step(site::END, 6, 10, 1)]);
    assert!(told[0].contains("create pods own- as bob"), "{told:?}");
}

#[test]
fn a_create_is_of_what_its_bodies_show() {
    let create = |requests: &mut Requests, verb: &str, name: &str, sent: &[u8], got: &[u8]| {
        let mut about = attributes(2, 11, 10, "alice", verb, "pods", "");
        about.texts[8].1 = name.into();
        take(requests, &[begin(1, 10, "/x"), about]);
        // on the goroutine that handles it
        carry(requests, false, 11, 10, sent.len() as u64, sent);
        carry(requests, true, 11, 10, got.len() as u64, got);
        let mut end = step(site::END, 3, 10, 1);
        end.status = 201;
        take(requests, &[end]).remove(0)
    };
    let mut requests = Requests::default();
    // as long as the end says
    let (sent, got) = (br#"{"metadata":{"generateName":"a-"}}"#, format!("{:99}", r#"{"metadata":{"name":"a-x"}}"#));
    for (verb, name, want) in
        [("create", "", "create pods a-x as"), ("create", "web", "create pods web as"), ("deletecollection", "", "pods  as")]
    {
        let told = create(&mut requests, verb, name, sent, got.as_bytes());
        assert!(told.contains(want) && told.ends_with("[]"), "{told}");
    }
    // of a request that is not known, and of one whose response was lost
    carry(&mut requests, false, 20, 21, 2, b"{}");
    take(&mut requests, &[begin(1, 10, "/x"), attributes(2, 11, 10, "alice", "update", "pods", "")]);
    carry(&mut requests, false, 11, 10, 2, b"{}");
    let told = take(&mut requests, &[step(site::END, 3, 10, 1)]);
    assert!(told[0].ends_with(r#"["response_body"]"#), "{told:?}");
    assert_eq!((requests.open(), requests.bytes), (0, 0));
}

#[test]
fn bodies_push_no_request_out() {
    let mut requests = Requests::default();
    let body = vec![b'x'; 8 << 10];
    for goroutine in 0..50 {
        take(&mut requests, &[begin(goroutine, goroutine + 100, "/x")]);
        for offset in (0..1 << 20).step_by(8 << 10) {
            carry_at(&mut requests, false, [goroutine + 100, 1], [offset, 1 << 20], &body);
        }
        assert!(requests.bytes <= CAPACITY / 2 + (64 << 10));
    }
    assert_eq!((requests.open(), requests.given_up()), (50, 0));
    let told = take(&mut requests, &[step(site::END, 60, 149, 1)]);
    assert!(told[0].contains("request_body"), "what found no room isn't whole: {told:?}");
    assert_eq!(take(&mut requests, &[step(site::END, 60, 100, 1)]).len(), 1);
}

#[test]
fn open_requests_take_bounded_memory() {
    let mut requests = Requests::default();
    let long = format!("/{}", "x".repeat(2000));
    let count = 20_000;
    for goroutine in 0..count {
        assert!(take(&mut requests, &[begin(goroutine, goroutine + 1, &long)]).is_empty());
        assert!(requests.bytes <= CAPACITY && requests.order.len() <= 2 * requests.open.len() + 65);
    }
    assert!(requests.given_up() > 0 && requests.open() as u64 + requests.given_up() == count);
    // the oldest have gone, the newest are there
    assert!(take(&mut requests, &[step(site::END, count, 1, 1)]).is_empty());
    assert_eq!(take(&mut requests, &[step(site::END, count, count, 1)]).len(), 1);
    // a goroutine whose request is begun anew
    let before = requests.given_up();
    assert!(take(&mut requests, &[begin(count + TWICE, count - 1, "/y")]).is_empty());
    assert_eq!(requests.given_up(), before + 1);
    // many that begin and end leave nothing
    let mut requests = Requests::default();
    for at in 0..10_000 {
        take(&mut requests, &[begin(at, at + 1, "/x"), step(site::END, at, at + 1, 1)]);
    }
    assert!(requests.order.len() < 100 && requests.bytes == 0);
}

#[test]
fn records_that_contradict_themselves_are_none() {
    let whole = begin(1, 10, "/x").bytes();
    for length in 0..whole.len() {
        assert!(Record::parse(&whole[..length]).is_none());
    }
    let mut lying = whole.clone();
    let lengths = size_of::<Header>() + 32;
    lying[lengths] = 0xff;
    lying[lengths + 1] = 0x3f;
    assert!(Record::parse(&lying).is_none());
}

//! The engine's part in requests to the Kubernetes API.

use std::time::{Duration, Instant};

use knark_specs::frame::{Item, Probe, Target};

use super::Tracer;
use crate::{
    api::{
        plausible::{self, Verdict},
        servers::{News, Servers},
    },
    batch,
    bpf::{self, API_SERVER, Probes},
};

/// How often API servers are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the beginning waits for programs to be looked into; of those that take longer it is told later.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Watches for API servers, where that is asked for.
pub struct Watch {
    servers: Option<Servers>,
    looked: Instant,
    told: Vec<Probe>,
}

impl Watch {
    /// Attaches to those that run.
    pub fn begin(tracer: &mut Tracer, probes: &mut Probes) -> Self {
        let mut servers = tracer.plan.api.then(|| Servers::new(tracer.plan.bodies.is_some()));
        let mut first = servers.as_mut().map(|servers| servers.look(probes)).unwrap_or_default();
        let until = Instant::now() + PATIENCE;
        while let Some(servers) = servers.as_mut().filter(|servers| servers.waiting().next().is_some() && Instant::now() < until)
        {
            std::thread::sleep(POLL);
            first.extend(servers.look(probes));
        }
        let waiting: Vec<Probe> = servers.iter().flat_map(Servers::waiting).map(|name| coming(&name)).collect();
        // Of a cluster's nodes only few run one.
        let alone = servers.is_some() && first.is_empty() && waiting.is_empty() && matches!(tracer.plan.target, Target::Host(_));
        let mut told: Vec<Probe> = first.into_iter().flat_map(of_news).collect();
        told.extend(waiting);
        told.extend(alone.then(|| missing(API_SERVER.to_owned(), "none runs here".to_owned())));
        Self { servers, looked: Instant::now(), told }
    }

    /// What became of those that ran at the beginning.
    pub fn probes(&mut self) -> Vec<Probe> {
        std::mem::take(&mut self.told)
    }

    /// Looks for those that have come or gone since.
    pub fn look(&mut self, tracer: &mut Tracer, probes: &mut Probes) {
        let Some(servers) = &mut self.servers else { return };
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        for (pid, field) in std::mem::take(&mut tracer.condemned) {
            servers.refuse(pid, probes);
            let open = tracer.requests.forget(pid);
            tracer.note(&format!(
                "{API_SERVER} {pid} is no longer traced: what was read as its requests' {field} can't be that, so this version of knark \
                 doesn't know its build; {open} requests that were open are given up"
            ));
        }
        for news in servers.look(probes) {
            match news {
                News::Traced(name, bodiless) => {
                    tracer.note(&format!("{API_SERVER} {name} is traced from now on; what it did before was not seen"));
                    if let Some(why) = bodiless {
                        tracer.note(&format!("{API_SERVER} {name} is traced without bodies: {why}"));
                    }
                }
                News::Refused(name, why) => {
                    tracer.note(&format!("{API_SERVER} {name} can't be traced, so its requests are missed: {why}"));
                }
                News::Gone(pid) => {
                    let open = tracer.requests.forget(pid);
                    tracer.judge.forget(pid);
                    tracer.note(&format!("{API_SERVER} {pid} has ended, and with it {open} requests whose end is not told"));
                }
            }
        }
    }
}

impl Tracer {
    /// A request's step: of every API server, whoever the target is.
    pub(super) fn take_step(&mut self, step: &bpf::Api<'_>) {
        let pid = step.head.tgid;
        let odd = plausible::odd(step);
        let verdict = self.judge.judge(pid, step.head.start_ns, odd.is_some());
        if verdict == Verdict::Condemned && !self.condemned.iter().any(|(condemned, _)| *condemned == pid) {
            self.condemned.push((pid, odd.unwrap_or("request")));
        }
        if verdict != Verdict::Plausible {
            return self.requests.discard(step);
        }
        let Self { requests, containers, processes, batch, .. } = self;
        let told = requests.take(step, batch, |head, batch| {
            let container = containers.slot(head.cgroup, batch);
            processes.slot(head, container, batch)
        });
        self.count_requests(told);
        if self.batch.len() >= batch::FULL {
            self.flush();
        }
    }

    /// Tells of long-running requests that have begun; until when (`CLOCK_BOOTTIME`, ns) all of them have been told.
    pub(super) fn settle(&mut self, now_ns: u64) -> u64 {
        while let Some((key, head)) = self.requests.settle(now_ns) {
            let process = self.api_server(&head);
            self.requests.tell(key, process, &mut self.batch);
            self.count_requests(1);
        }
        self.requests.unsettled_since().unwrap_or(u64::MAX)
    }

    /// Tells the user something.
    pub(super) fn note(&mut self, text: &str) {
        batch::put(&Item::Note(text), &mut self.batch);
    }

    fn count_requests(&mut self, told: u64) {
        self.requests_sent += told;
        self.sent += told;
    }

    fn api_server(&mut self, head: &bpf::Head) -> u32 {
        let container = self.containers.slot(head.cgroup, &mut self.batch);
        self.processes.slot(head, container, &mut self.batch)
    }
}

/// What there is to say of an API server: of its requests, and of their bodies where these can't be seen.
fn of_news(news: News) -> Vec<Probe> {
    match news {
        News::Traced(name, bodiless) => {
            let name_of_bodies = format!("what requests to {API_SERVER} {name} carry");
            let bodies = bodiless.map(|why| Probe { name: name_of_bodies, serves: "body".into(), missing: Some(why) });
            let requests = Probe { name: format!("{API_SERVER} {name}"), serves: "api".into(), missing: None };
            [requests].into_iter().chain(bodies).collect()
        }
        News::Refused(name, why) => vec![missing(format!("{API_SERVER} {name}"), why)],
        News::Gone(_) => Vec::new(),
    }
}

/// Of one that may be traced yet: a note will say so, or why it isn't.
fn coming(name: &str) -> Probe {
    Probe { name: format!("{API_SERVER} {name}, being looked into"), serves: "api".into(), missing: None }
}

fn missing(name: String, why: String) -> Probe {
    Probe { name, serves: "api".into(), missing: Some(why) }
}

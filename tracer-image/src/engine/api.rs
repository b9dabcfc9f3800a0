//! The engine's part in requests to the Kubernetes API.

use std::time::{Duration, Instant};

use knark_specs::frame::Probe;

use super::Tracer;
use crate::{
    api::servers::{News, Servers},
    batch,
    bpf::{self, API_SERVER, Probes},
};

/// How often API servers are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches for API servers, where that is asked for.
pub struct Watch {
    servers: Option<Servers>,
    looked: Instant,
    first: Vec<News>,
}

impl Watch {
    /// Attaches to those that run.
    pub fn begin(tracer: &mut Tracer, probes: &mut Probes) -> Self {
        let mut servers = tracer.plan.api.then(Servers::default);
        let first = servers.as_mut().map(|servers| servers.look(probes)).unwrap_or_default();
        Self { servers, looked: Instant::now(), first }
    }

    /// What became of those that ran at the beginning.
    pub fn probes(&mut self) -> Vec<Probe> {
        let probe = |news| match news {
            News::Traced(name) => Some(Probe { name: format!("{API_SERVER} {name}"), serves: "api".into(), missing: None }),
            News::Refused(name, why) => {
                Some(Probe { name: format!("{API_SERVER} {name}"), serves: "api".into(), missing: Some(why) })
            }
            News::Gone(_) => None,
        };
        std::mem::take(&mut self.first).into_iter().filter_map(probe).collect()
    }

    /// Looks for those that have come or gone since.
    pub fn look(&mut self, tracer: &mut Tracer, probes: &mut Probes) {
        let Some(servers) = &mut self.servers else { return };
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        for news in servers.look(probes) {
            if let News::Gone(pid) = news {
                tracer.requests.forget(pid);
            }
        }
    }
}

impl Tracer {
    /// A request's step: of every API server, whoever the target is.
    pub(super) fn take_step(&mut self, step: &bpf::Api<'_>) {
        let process = self.api_server(&step.head);
        if self.requests.take(step, process, &mut self.batch) {
            self.count_request();
        }
        if self.batch.len() >= batch::FULL {
            self.flush();
        }
    }

    /// Tells of long-running requests that have begun; until when (`CLOCK_BOOTTIME`, ns) all of them have been told.
    pub(super) fn settle(&mut self, now_ns: u64) -> u64 {
        while let Some((key, head)) = self.requests.settle(now_ns) {
            let process = self.api_server(&head);
            self.requests.tell(key, process, &mut self.batch);
            self.count_request();
        }
        self.requests.unsettled_since().unwrap_or(u64::MAX)
    }

    fn count_request(&mut self) {
        self.requests_sent += 1;
        self.sent += 1;
    }

    fn api_server(&mut self, head: &bpf::Head) -> u32 {
        let container = self.containers.slot(head.cgroup, &mut self.batch);
        self.processes.slot(head, container, &mut self.batch)
    }
}

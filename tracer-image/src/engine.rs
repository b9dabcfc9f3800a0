//! The tracer's heart: takes records from the kernel, decides, names, encodes, and hands batches to the outbox.

mod api;
mod limits;
mod log;
mod plan;
mod same;
mod want;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use knark_specs::frame::{Ending, Hello, LOG_FOLDER, Plan, PodVerdict, Portable, Probe, Stage, Status, Up};

use rustc_hash::FxHashMap;

use self::limits::Limits;
use crate::{
    api::{plausible::Judge, requests::Requests},
    batch,
    bpf::{self, AttachError, MapError, ProbeState, Probes, Record, Wanted},
    clock,
    containers::{Containers, Decision},
    encode,
    hold::Hold,
    outbox::Outbox,
    processes::Processes,
    same::{Watch, WatchError},
};

/// Pause between looks at the ring while there are events: far below the time that fills it.
const BUSY: Duration = Duration::from_millis(5);
/// The same when there were none for a while.
const IDLE: Duration = Duration::from_millis(20);
/// Looks without events that hurry after which the pause grows.
const CALM: u32 = 100;
/// How often counters and the watermark are sent.
const STATUS_EVERY: Duration = Duration::from_millis(200);
/// A record's time is taken before its place in the ring: the watermark stays this far behind (ns).
const WATERMARK_LAG: u64 = 1_000_000;
/// Records taken in one go before commands are looked at.
const BURST: usize = 16_384;
/// Records taken before the filter is brought up to date and a full batch is sent.
const PIECE: usize = 1024;
/// Counts of repeats taken before what came of them is sent.
const REPEATS: usize = 128;
/// A lost record of a new cgroup is made up for by reading the tree again, but not more often than this.
const RESCAN_EVERY: Duration = Duration::from_millis(500);
/// How long a slow plugin may take to make room for the last records.
const EMPTYING: Duration = Duration::from_secs(3);

/// What a connection asks of the engine.
#[derive(Debug)]
pub enum Command {
    /// What to watch; the first one counts.
    Plan(Box<Plan>),
    /// Verdicts on pods.
    Pods(Vec<PodVerdict>),
    /// End.
    Stop,
}

/// Why the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The probes can't be had.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A filter can't be set.
    #[error("setting the kernel's filter: {0}")]
    Map(#[from] MapError),
    /// The kernel's side can't be read.
    #[error("{0}")]
    Io(String, #[source] std::io::Error),
    /// Files can't be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The audit log can't be read.
    #[error("{0}")]
    Log(String),
}

/// What the engine works with.
#[derive(Debug)]
pub struct Engine<E> {
    /// Where batches go.
    pub outbox: Arc<Outbox>,
    /// What the plugin says.
    pub commands: mpsc::Receiver<Command>,
    /// Tells why it is time to end, if it is.
    pub ending: E,
    /// The UID of the pod that this runs in.
    pub own_pod: Option<String>,
}

impl<E: Fn() -> Option<Ending>> Engine<E> {
    /// Runs until told to end, says goodbye, and tells why it ended; a failure is said as well.
    pub fn run(self) -> Result<Ending, EngineError> {
        let outbox = Arc::clone(&self.outbox);
        self.trace().inspect_err(|error| outbox.last(&Up::Refuse { message: describe(error) }))
    }

    fn trace(self) -> Result<Ending, EngineError> {
        let plan = loop {
            match self.commands.recv_timeout(IDLE) {
                Ok(Command::Plan(plan)) => break *plan,
                Ok(Command::Stop) => return Ok(self.bye(Ending::Stopped, Status::default())),
                // Verdicts follow the plan on every connection.
                Ok(Command::Pods(_)) | Err(_) => {}
            }
            if let Some(reason) = (self.ending)() {
                return Ok(self.bye(reason, Status::default()));
            }
        };
        if let Some(log) = &plan.log {
            return self.read_log(Path::new(LOG_FOLDER), log);
        }
        let options = plan::options(&plan)?;
        let mut probes = Probes::attach(&options)?;
        plan::add_processes(&plan, &mut probes)?;
        let hierarchy = bpf::hierarchy().map_err(|e| EngineError::Io("finding the cgroup hierarchy".into(), e))?;
        plan::check_host(&plan, &hierarchy)?;
        let mut tracer = Tracer {
            containers: Containers::new(plan.target.clone(), hierarchy, self.own_pod.clone()),
            outbox: Arc::clone(&self.outbox),
            wanted: options.wanted,
            processes: Processes::default(),
            args: bpf::Args::default(),
            hold: Hold::default(),
            batch: Vec::with_capacity(batch::FULL * 2),
            sent: 0,
            requests: Requests::new(plan.bodies.is_some_and(|bodies| bodies.show_secrets)),
            judge: Judge::default(),
            condemned: Vec::new(),
            requests_sent: 0,
            filtered: 0,
            limits: Limits::default(),
            incomplete: false,
            mkdirs_lost: 0,
            same: None,
            young: FxHashMap::default(),
            plan,
        };
        // Verdicts that are there already spare holding what they judge.
        let stopped = self.obey(&mut tracer, &mut probes)?;
        tracer.containers.scan(&mut probes)?;
        tracer.watch_files(&mut probes)?;
        let mut servers = self::api::Watch::begin(&mut tracer, &mut probes);
        let attached = probes.attached();
        let all = attached.iter().map(probe).chain(servers.probes()).collect();
        self.outbox.hello(&Up::Hello(hello(all, portable(attached))));
        let reason = match stopped {
            Some(reason) => reason,
            None => self.follow(&mut tracer, &mut probes, &mut servers)?,
        };
        probes.detach();
        let status = empty(&mut tracer, &mut probes)?;
        Ok(self.bye(reason, status))
    }

    /// Does what the plugin asked for meanwhile.
    fn obey(&self, tracer: &mut Tracer, probes: &mut Probes) -> Result<Option<Ending>, EngineError> {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Plan(_) => {}
                Command::Pods(pods) => {
                    tracer.incomplete |= tracer.containers.decide(pods);
                    tracer.containers.apply(probes)?;
                    tracer.release();
                }
                Command::Stop => return Ok(Some(Ending::Stopped)),
            }
        }
        Ok((self.ending)())
    }

    fn follow(&self, tracer: &mut Tracer, probes: &mut Probes, servers: &mut self::api::Watch) -> Result<Ending, EngineError> {
        let (mut calm, mut reported, mut scanned) = (0, Instant::now(), Instant::now());
        loop {
            let before = clock::boot_ns();
            let drained = drain(tracer, probes)?;
            if let Some(reason) = self.obey(tracer, probes)? {
                return Ok(reason);
            }
            servers.look(tracer, probes);
            let unsettled_ns = tracer.settle(before);
            if tracer.incomplete && scanned.elapsed() > RESCAN_EVERY {
                (tracer.incomplete, scanned) = (false, Instant::now());
                tracer.containers.scan(probes)?;
                tracer.release();
            }
            if reported.elapsed() > STATUS_EVERY && self.outbox.has_room() {
                tracer.containers.look_again();
                tracer.containers.apply(probes)?;
                tracer.release();
                tracer.hold.expire(Instant::now());
                tracer.take_repeats(probes)?;
                tracer.look_after_files();
                tracer.flush();
                let complete_to = if drained.all { before.min(unsettled_ns).saturating_sub(WATERMARK_LAG) } else { 0 };
                self.outbox.status(tracer.status(probes, complete_to)?);
                reported = Instant::now();
            }
            if drained.all || drained.taken == 0 {
                calm = if drained.hurried == 0 { calm + 1 } else { 0 };
                let pause = if calm < CALM { BUSY } else { IDLE };
                probes.wait(pause).map_err(|e| EngineError::Io("waiting for the ring buffer".into(), e))?;
            }
        }
    }

    fn bye(&self, reason: Ending, status: Status) -> Ending {
        self.outbox.last(&Up::Bye { reason, status });
        reason
    }
}

/// How far a look at the ring got.
struct Drained {
    taken: usize,
    /// Those of them that are no steps of requests: the plugin shows requests when a status says that they are all there, and each look
    /// costs more than the steps that it finds.
    hurried: usize,
    all: bool,
}

/// Takes what the ring holds, up to a burst; nothing while the outbox is full, so that losses happen in one place.
fn drain(tracer: &mut Tracer, probes: &mut Probes) -> Result<Drained, EngineError> {
    let mut drained = Drained { taken: 0, hurried: 0, all: false };
    while drained.taken < BURST && !drained.all && tracer.outbox.has_room() {
        let got = probes.drain(PIECE, |bytes, record| {
            drained.hurried += usize::from(!matches!(record, Record::Api(_)));
            tracer.take(bytes, &record);
        });
        tracer.forget_rates(probes)?;
        tracer.containers.apply(probes)?;
        drained.taken += got;
        drained.all = got < PIECE;
    }
    tracer.flush();
    Ok(drained)
}

/// Takes all that is left in the ring, as long as the plugin makes room for it, and draws the final balance.
fn empty(tracer: &mut Tracer, probes: &mut Probes) -> Result<Status, EngineError> {
    let mut until = Instant::now() + EMPTYING;
    tracer.hold.abandon();
    loop {
        tracer.take_repeats(probes)?;
        // Counted before the ring is emptied: what comes later must not be missed in the sum.
        let mut status = tracer.status(probes, clock::boot_ns())?;
        let drained = drain(tracer, probes)?;
        tracer.hold.abandon();
        let left = |status: &Status| status.seen.saturating_sub(status.filtered + status.sent + status.lost_total());
        if drained.all && drained.taken == 0 && left(&status) == 0 {
            return Ok(status);
        }
        if Instant::now() > until {
            status = tracer.status(probes, clock::boot_ns())?;
            let left = left(&status);
            status.lost.extend((left > 0).then_some((Stage::Stream, left)));
            return Ok(status);
        }
        if drained.taken == 0 {
            std::thread::sleep(BUSY);
        } else {
            until = Instant::now() + EMPTYING;
        }
    }
}

/// What is known of this node, and what became of its events.
struct Tracer {
    outbox: Arc<Outbox>,
    plan: Plan,
    /// Which events; None: all of the plan's kinds.
    wanted: Option<Wanted>,
    containers: Containers,
    processes: Processes,
    args: bpf::Args,
    hold: Hold,
    batch: Vec<u8>,
    sent: u64,
    requests: Requests,
    /// Whether API servers are what they seem.
    judge: Judge,
    /// Those that aren't: the process, and the field that can't be.
    condemned: Vec<(u32, &'static str)>,
    /// Those of `sent` that are requests.
    requests_sent: u64,
    filtered: u64,
    limits: Limits,
    /// There are cgroups that the table lacks.
    incomplete: bool,
    mkdirs_lost: u64,
    /// Files that are watched under whatever name.
    same: Option<Watch>,
    /// How many executions were seen in containers, while there are few.
    young: FxHashMap<u64, u8>,
}

impl Tracer {
    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let next = Vec::with_capacity(batch::FULL * 2);
            self.outbox.push(std::mem::replace(&mut self.batch, next));
        }
    }

    /// A record from the ring.
    fn take(&mut self, bytes: &[u8], record: &Record<'_>) {
        match record {
            Record::Api(step) => return self.take_step(step),
            Record::ApiBody(piece) => return self.requests.add(piece),
            Record::CgroupMkdir(made) => return self.containers.add(made.id, made.parent, made.path),
            Record::CgroupRmdir(gone) => {
                self.limits.leaves(gone.id);
                return self.containers.remove(gone.id);
            }
            _ => {}
        }
        self.see_files_change(record);
        let events = want::events(&self.plan, record);
        let wanted = want::is_wanted(self.wanted.as_ref(), record, &self.watched_paths(record));
        // Here, and not where it is judged again: each is counted once.
        self.filtered += if wanted { 0 } else { events };
        // An exec that isn't wanted still tells what its process runs.
        if wanted || matches!(record, Record::Exec(_)) {
            self.judge(bytes, record, if wanted { events } else { 0 });
        }
    }

    /// Takes what was counted as repeats, as far as their time is over and there is room: each may bring along what its process is.
    fn take_repeats(&mut self, probes: &mut Probes) -> Result<(), EngineError> {
        while self.outbox.has_room()
            && probes.take_repeats(REPEATS, clock::boot_ns(), |bytes, record| self.take(bytes, &record))?
        {
            self.flush();
        }
        Ok(())
    }

    /// What control groups lost that are gone is remembered here, and the kernel has room for others.
    fn forget_rates(&mut self, probes: &mut Probes) -> Result<(), EngineError> {
        for id in self.limits.take_leaving() {
            if let Some(lost) = probes.forget_rate(id)? {
                self.limits.settle(self.containers.limited(id), lost);
            }
        }
        Ok(())
    }

    /// Does with a record what becomes of its cgroup's. It counts as so many events.
    fn judge(&mut self, bytes: &[u8], record: &Record<'_>, events: u64) {
        match self.containers.decision(record.head().cgroup) {
            Some(Decision::Send) => self.send(record, events),
            Some(Decision::Drop) => self.filtered += events,
            Some(Decision::Hold { pod_uid }) => self.hold.push(pod_uid, bytes, events),
            // The record of its making was lost, and the kernel let it inherit a verdict: whose it is, the tree tells.
            None => {
                self.incomplete = true;
                self.hold.push(&unknown(record.head().cgroup), bytes, events);
            }
        }
    }

    /// Judges again what was held for a verdict that has come.
    fn release(&mut self) {
        let containers = &self.containers;
        let known = |key: &str| key.strip_prefix('#').and_then(|id| id.parse().ok()).is_some_and(|id| containers.is_known(id));
        for released in self.hold.release(|key| containers.is_decided(key) || known(key)) {
            for bytes in released.iter() {
                if let Some(record) = Record::parse(bytes) {
                    let wanted = want::is_wanted(self.wanted.as_ref(), &record, &self.watched_paths(&record));
                    self.judge(bytes, &record, if wanted { want::events(&self.plan, &record) } else { 0 });
                }
            }
        }
    }

    fn send(&mut self, record: &Record<'_>, events: u64) {
        let (head, event) = (record.head(), events > 0);
        let container = self.containers.slot(head.cgroup, &mut self.batch);
        match record {
            Record::Exec(exec) => {
                let args = self.args.join(exec);
                let process = self.processes.exec(exec, &args, container, &mut self.batch);
                if event {
                    encode::exec(exec, process, &mut self.batch);
                }
            }
            Record::ExecArgs(part) => self.args.push(part),
            Record::Open(open) => {
                let process = self.processes.slot(head, container, &mut self.batch);
                encode::open(open, process, self.processes.comm(process), &self.watched_paths(record), &mut self.batch);
            }
            Record::Path(call) => {
                let process = self.processes.slot(head, container, &mut self.batch);
                encode::path_call(call, process, self.processes.comm(process), &self.watched_paths(record), &mut self.batch);
            }
            Record::Exit(exit) => {
                let process = self.processes.slot(head, container, &mut self.batch);
                encode::exit(exit, process, &mut self.batch);
            }
            Record::Api(_) | Record::ApiBody(_) | Record::CgroupMkdir(_) | Record::CgroupRmdir(_) => {}
        }
        self.sent += events;
        if self.batch.len() >= batch::FULL {
            self.flush();
        }
    }

    fn status(&mut self, probes: &mut Probes, watermark_ns: u64) -> Result<Status, EngineError> {
        let counters = probes.counters().map_err(|e| EngineError::Io("reading the kernel's counters".into(), e))?;
        let kinds = [
            (self.plan.exec, counters.exec()),
            (self.plan.file, counters.open()),
            (self.plan.file, counters.path()),
            (self.plan.exit, counters.exit()),
        ];
        // Of requests only lost steps and pieces of bodies are counted there; each loses what its request's event would have said, or
        // the event.
        let (steps, pieces) = (counters.api(), counters.api_body());
        let sum =
            |of: fn(&bpf::Count) -> u64| kinds.iter().filter(|(wanted, _)| *wanted).map(|(_, count)| of(count)).sum::<u64>();
        // New cgroups whose records were lost may have inherited nothing, and so send nothing that would tell of them.
        let mkdirs_lost = counters.cgroup_mkdir().lost();
        self.incomplete |= mkdirs_lost > std::mem::replace(&mut self.mkdirs_lost, mkdirs_lost);
        let skipped = counters.missed.unwrap_or(0) + counters.scope_lost + self.containers.blind();
        let too_fast = sum(|count| count.lost_rate);
        self.limits.look(too_fast, probes, &self.containers)?;
        let lost = [
            (Stage::Ring, sum(|count| count.lost_ring) + steps.lost_ring + pieces.lost_ring),
            (
                Stage::InFlight,
                sum(|count| count.lost_inflight) + steps.lost_inflight + pieces.lost_inflight + self.requests.given_up(),
            ),
            // Records that aren't understood have been seen and emitted.
            (Stage::Probe, skipped + probes.malformed()),
            (Stage::Held, self.hold.lost()),
            (Stage::RateLimit, too_fast),
        ];
        Ok(Status {
            // Calls that have begun and not returned aren't events yet.
            seen: sum(|count| count.emitted + count.aggregated + count.lost())
                + skipped
                + self.requests_sent
                + steps.lost()
                + pieces.lost()
                + self.requests.given_up(),
            filtered: self.filtered,
            sent: self.sent,
            held: self.hold.events(),
            lost: lost.into_iter().filter(|(_, n)| *n > 0).collect(),
            watermark_ns,
            realtime_offset_ns: clock::realtime_offset_ns(),
            limited: self.limits.told().to_vec(),
            ..Status::default()
        })
    }
}

/// What the events of a cgroup are held under until its pod is known.
fn unknown(cgroup: u64) -> String {
    format!("#{cgroup}")
}

fn hello(probes: Vec<Probe>, portable: Vec<Portable>) -> Hello {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        kernel: text(name.release()),
        arch: text(name.machine()),
        probes,
        realtime_offset_ns: clock::realtime_offset_ns(),
        hostname: text(name.nodename()),
        portable,
    }
}

/// The calls that are not seen by the better probes that there are for them, by the reason.
fn portable(probes: &[bpf::ProbeStatus]) -> Vec<Portable> {
    let by_reason = bpf::not_precise(probes).into_iter();
    by_reason
        .map(|(why, calls)| Portable { calls: calls.into_iter().map(str::to_owned).collect(), why: why.to_owned() })
        .collect()
}

fn probe(status: &bpf::ProbeStatus) -> Probe {
    let missing = match &status.state {
        ProbeState::Attached => None,
        ProbeState::Missing(_, reason) => Some(reason.clone()),
    };
    Probe { name: status.name.clone(), serves: status.serves().into(), missing }
}

/// An error with its causes, in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

//! From what the user typed to receivers whose tasks run.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use anyhow::Context as _;
use knark_specs::{
    alert::{
        receiver::{self, Receiver, Target},
        repeats::Repeats,
    },
    yaml,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    AlertFlags, Receivers, Running, Surroundings,
    alertmanager::Alertmanager,
    delivery::{Delivery, INTAKE, Sink},
    events::PodEvents,
    exec::Hook,
    file::AlertFile,
    http::Post,
    otlp::Otlp,
    queue::Queue,
    spool::Spool,
    syslog::Syslog,
    webhook::Webhook,
};
use crate::{
    exit::{self, UsageError},
    render::{self, problem::Source},
};

/// How long an attempt may take, if the user doesn't say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer the end never waits: the clock has an end, too.
const LONGEST_DRAIN: Duration = Duration::from_hours(24 * 365);
/// How much room a spool takes, likewise.
const SPOOL: u64 = 64 << 20;
/// A file of receivers is no larger.
const FILE: u64 = 1 << 20;
/// Warnings that nobody has read yet.
const WARNINGS: usize = 64;

/// A receiver that is ready.
struct Opened {
    name: String,
    sink: Box<dyn Sink>,
    network: bool,
    only_pods: bool,
    /// Of a program: its process id, while it runs.
    pid: Option<Arc<AtomicU32>>,
}

impl AlertFlags {
    /// Opens the receivers and starts their tasks; `None`: nobody is to be told. `live`: alerts are told as they come, by this
    /// machine's clock; else by that of what was recorded.
    ///
    /// # Errors
    /// One can't be meant, or not be opened.
    pub fn open(&self, live: bool, around: Surroundings<'_>) -> anyhow::Result<Option<Receivers>> {
        let typed = self.typed()?;
        if typed.is_empty() {
            return Ok(None);
        }
        if !around.policies {
            return Err(UsageError::because("alerts are matches of policies' rules: name some by -f or --pack"));
        }
        let stdout = typed.iter().any(|receiver| matches!(receiver.target(), Ok(Target::Stdout)));
        if stdout && around.dashboard {
            return Err(UsageError::because(
                "standard output can't have both alerts and a dashboard: leave out -o tui or --alert-to stdout",
            ));
        }
        let mut opened = Vec::new();
        for receiver in &typed {
            if let Some(ready) = open(receiver, around)? {
                opened.push((ready, receiver));
            }
        }
        let (deadline, deadlines) = watch::channel(None);
        let (patience, impatience) = watch::channel(!live);
        let (sender, warnings) = mpsc::channel(WARNINGS);
        let (mut receivers, mut hooks) = (Vec::new(), Vec::new());
        for (Opened { name, sink, network, only_pods, pid }, receiver) in opened {
            hooks.extend(pid.filter(|_| around.local));
            let spool = if network { spool(receiver, &name)? } else { None };
            let (intake, heard) = mpsc::channel(INTAKE);
            let delivery = Delivery {
                name: name.clone(),
                sink,
                intake: heard,
                queue: Queue::new(spool, impatience.clone()),
                warnings: sender.clone(),
                deadline: deadlines.clone(),
            };
            let task = tokio::spawn(delivery.run());
            receivers.push(Running { name, intake: Some(intake), task, only_pods, overflown: 0 });
        }
        let cooldown_ns = i64::try_from(self.cooldown.as_nanos()).unwrap_or(i64::MAX);
        Ok(Some(Receivers {
            repeats: Repeats::new(self.key.clone(), cooldown_ns),
            running: receivers,
            lines: stdout.then(Vec::new),
            warnings,
            deadline,
            drain: self.drain.min(LONGEST_DRAIN),
            began: live.then(Instant::now),
            suppressed: 0,
            patience,
            full_since: None,
            hooks,
        }))
    }

    /// What was typed, on the command line and in files.
    fn typed(&self) -> anyhow::Result<Vec<Receiver>> {
        let mut receivers = Vec::new();
        for text in &self.receivers {
            receivers.push(Receiver::parse(text).map_err(|error| UsageError::because(format!("--alert-to: {error}")))?);
        }
        for file in &self.receiver_files {
            receivers.extend(read(file)?);
        }
        Ok(receivers)
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Receiver>> {
    use std::io::Read as _;
    let doing = || format!("reading the receivers in {}", file.display());
    let mut bytes = Vec::new();
    std::fs::File::open(file).with_context(doing)?.take(FILE + 1).read_to_end(&mut bytes).with_context(doing)?;
    if bytes.len() as u64 > FILE {
        return Err(UsageError::because(format!(
            "{} has more than {} MiB: that is no file of receivers",
            file.display(),
            FILE >> 20
        )));
    }
    let name = file.display().to_string();
    let text = yaml::decode(&bytes).map_err(|problem| UsageError::because(format!("{name}: {}", problem.message)))?;
    receiver::read_file(&text).map_err(|problems| {
        let source = Source::new(&name, &text);
        for problem in &problems {
            exit::say(&source.show(problem, render::colours_stderr()));
        }
        UsageError::because(format!("the receivers can't be used: mend {name}"))
    })
}

fn open(receiver: &Receiver, around: Surroundings<'_>) -> anyhow::Result<Option<Opened>> {
    let timeout = match &receiver.timeout {
        Some(text) => crate::cli::duration(text).map_err(UsageError::because)?,
        None => TIMEOUT,
    };
    let target = receiver.target().map_err(|error| UsageError::because(error.to_string()))?;
    let ready = |name: String, sink: Box<dyn Sink>| Opened { name, sink, network: false, only_pods: false, pid: None };
    let far = |name: String, sink: Box<dyn Sink>| Opened { name, sink, network: true, only_pods: false, pid: None };
    let opened = match target {
        Target::Stdout => return Ok(None),
        Target::File(path) => ready(path.to_owned(), Box::new(AlertFile::open(path, false)?)),
        Target::Csv(path) => ready(path.to_owned(), Box::new(AlertFile::open(path, true)?)),
        Target::Exec(program) => {
            let hook = Hook::start(program, &receiver.args, around.dashboard)?;
            Opened { pid: Some(hook.pid()), ..ready(program.to_owned(), Box::new(hook)) }
        }
        Target::Webhook(url) => {
            let post = Post::new(receiver, url, timeout)?;
            far(format!("webhook {}", post.origin()), Box::new(Webhook { post, format: receiver.format.unwrap_or_default() }))
        }
        Target::Alertmanager(url) => {
            let post = Post::new(receiver, url, timeout)?.below("/api/v2/alerts")?;
            far(format!("alertmanager {}", post.origin()), Box::new(Alertmanager { post }))
        }
        Target::Otlp(url) => {
            let post = Post::new(receiver, url, timeout)?.below("/v1/logs")?;
            far(format!("otlp {}", post.origin()), Box::new(Otlp { post }))
        }
        Target::Syslog(place) => far(format!("syslog {place}"), Box::new(Syslog::new(receiver, place, timeout)?)),
        Target::Events => {
            let Some(cluster) = around.cluster else {
                return Err(UsageError::because(
                    "Events are made on the pods of a cluster that is traced, and there is none here",
                ));
            };
            Opened { only_pods: true, ..far("events".to_owned(), Box::new(PodEvents::new(cluster.clone(), timeout))) }
        }
    };
    Ok(Some(opened))
}

/// The spool of a receiver. Its name is the same each time, and tells nothing that may be secret.
fn spool(receiver: &Receiver, name: &str) -> anyhow::Result<Option<Spool>> {
    let folder = match receiver.spool.as_deref() {
        Some("none") => return Ok(None),
        Some(folder) => PathBuf::from(folder),
        None => match default_folder() {
            Some(folder) => folder,
            None => return Ok(None),
        },
    };
    let limit = match &receiver.spool_size {
        Some(text) => crate::cli::bytes(text).map_err(UsageError::because)?,
        None => SPOOL,
    };
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    let told = format!("{}#{:?}", receiver.to, receiver.format);
    let doing = || format!("opening the spool of {name} in {} (spool=none does without)", folder.display());
    Spool::new(folder.clone(), format!("{plain}-{:016x}", fnv1a(told.as_bytes())), limit).with_context(doing).map(Some)
}

/// Where programs keep what they go on with the next time: `XDG_STATE_HOME` and its like.
fn default_folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = if cfg!(windows) { named("LOCALAPPDATA") } else { named("XDG_STATE_HOME") };
    let state = state.or_else(|| Some(std::env::home_dir()?.join(".local").join("state")))?;
    Some(state.join("kubectl-knark").join("alerts"))
}

/// A hash that is the same in every version of this program: <http://www.isthe.com/chongo/tech/comp/fnv/>
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

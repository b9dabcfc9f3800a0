//! `knark-tracer local`: the child of a plugin on the same host, over its own stdin and stdout.

use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use ed25519_dalek::VerifyingKey;
use knark_specs::frame::Ending;

use crate::{
    engine::Engine,
    outbox::Outbox,
    session::{Incoming, Session},
};

/// How long the plugin may stand still before the last word is out.
const GOODBYE: Duration = Duration::from_secs(5);

/// Traces until the plugin says stop or closes its end.
pub fn run(key: VerifyingKey) -> anyhow::Result<()> {
    // Ctrl-C reaches the whole process group; it is the plugin that decides what it means.
    let ignored = Arc::new(AtomicBool::new(false));
    let ended = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, ignored).context("handling SIGINT")?;
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&ended)).context("handling SIGTERM")?;

    let outbox = Arc::new(Outbox::default());
    let (commands, wishes) = mpsc::channel();
    let session = Arc::new(Session { key, outbox: Arc::clone(&outbox), commands, heard_ns: AtomicU64::new(0) });
    let gone = Arc::new(AtomicBool::new(false));

    let mut from = Incoming::new(io::stdin());
    let mut to = File::from(io::stdout().as_fd().try_clone_to_owned().context("duplicating stdout")?);
    let cursor = session.greet(&mut from, &mut to).context("greeting the plugin")?;
    let listener = Arc::clone(&session);
    let (seen_gone, writer_gone) = (Arc::clone(&gone), Arc::clone(&gone));
    thread::spawn(move || {
        // However the stream ends, the plugin is gone.
        let _ = listener.listen(&mut from);
        seen_gone.store(true, Ordering::Relaxed);
    });
    let writer = thread::spawn(move || {
        let written = session.talk(cursor, &mut to);
        writer_gone.store(true, Ordering::Relaxed);
        written
    });
    let left = Arc::clone(&gone);
    let ending = move || match (ended.load(Ordering::Relaxed), left.load(Ordering::Relaxed)) {
        (true, _) => Some(Ending::Signal),
        (_, true) => Some(Ending::Orphaned),
        _ => None,
    };
    let result = Engine { outbox: Arc::clone(&outbox), commands: wishes, ending, own_pod: None }.run();
    // The last word is on its way, unless nobody reads.
    outbox.linger(GOODBYE, || gone.load(Ordering::Relaxed) || writer.is_finished());
    result.context("tracing").map(|_| ())
}

//! `knark-tracer serve`: a pod's main process. It holds the probes and the stream; plugins come and go through `connect`.

use std::{
    io::Write as _,
    net::Shutdown,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use ed25519_dalek::VerifyingKey;
use knark_specs::frame::Ending;

use crate::{
    clock,
    engine::Engine,
    outbox::Outbox,
    session::{Incoming, Session},
};

/// The abstract socket's name: it is the pod's own, since it lies in the pod's network namespace.
const SOCKET: &[u8] = b"knark-tracer";
/// Connections that haven't proved themselves yet.
const MAX_STRANGERS: usize = 8;
/// How long one may take to prove itself.
const GREETING: Duration = Duration::from_secs(5);
/// How much longer than the grace time the first connection may take (ns): the plugin must first learn that the pod runs.
const FIRST_WORD: u64 = 20_000_000_000;
/// How long nothing may be heard of the plugin before the last word is out.
const GOODBYE: Duration = Duration::from_secs(5);

/// The address that [`run`] listens on.
pub fn address() -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(SOCKET)
}

/// Traces until the plugin says stop, none was heard for the grace time, or a signal comes.
pub fn run(key: VerifyingKey, grace: Duration) -> anyhow::Result<()> {
    let terminated = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&terminated)).context("handling signals")?;
    }
    let outbox = Arc::new(Outbox::default());
    let (commands, wishes) = mpsc::channel();
    let session =
        Arc::new(Session { key, outbox: Arc::clone(&outbox), commands, heard_ns: AtomicU64::new(clock::boot_ns() + FIRST_WORD) });
    let listener = UnixListener::bind_addr(&address()?).context("binding the tracer's socket")?;
    let received = Arc::new(AtomicBool::new(false));
    let door = Door { session: Arc::clone(&session), current: Mutex::default(), received: Arc::clone(&received) };
    thread::spawn(move || door.keep(&listener));

    let grace_ns = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
    let ending = move || {
        let silence = clock::boot_ns().saturating_sub(session.heard_ns.load(Ordering::Relaxed));
        match (terminated.load(Ordering::Relaxed), silence > grace_ns) {
            (true, _) => Some(Ending::Signal),
            (_, true) => Some(Ending::Orphaned),
            _ => None,
        }
    };
    let own_pod = std::env::var("KNARK_POD_UID").ok().filter(|uid| !uid.is_empty());
    let result = Engine { outbox: Arc::clone(&outbox), commands: wishes, ending, own_pod }.run();
    if !matches!(result, Ok(Ending::Orphaned)) {
        outbox.linger(GOODBYE, || received.load(Ordering::Relaxed));
    }
    result.context("tracing").map(|_| ())
}

struct Door {
    session: Arc<Session>,
    current: Mutex<Option<UnixStream>>,
    /// The last word was said, and the other side has closed its end: until then it may still be on its way.
    received: Arc<AtomicBool>,
}

impl Door {
    fn keep(self, listener: &UnixListener) {
        let door = Arc::new(self);
        let strangers = Arc::new(AtomicUsize::new(0));
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            if strangers.fetch_add(1, Ordering::Relaxed) >= MAX_STRANGERS {
                strangers.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (door, strangers) = (Arc::clone(&door), Arc::clone(&strangers));
            thread::spawn(move || {
                if let Err(error) = door.receive(stream, &strangers) {
                    // The pod's log is for whoever asks why a connection failed.
                    let _ = writeln!(std::io::stderr(), "connection: {error:#}");
                }
            });
        }
    }

    fn receive(&self, stream: UnixStream, strangers: &AtomicUsize) -> anyhow::Result<()> {
        let greeted = self.greet(&stream);
        strangers.fetch_sub(1, Ordering::Relaxed);
        let (mut from, cursor) = greeted?;
        // The one before may hang in a write to a connection that is dead: end it.
        let earlier = self.lock().replace(stream.try_clone()?);
        if let Some(earlier) = earlier {
            let _ = earlier.shutdown(Shutdown::Both);
        }
        let (session, mut to) = (Arc::clone(&self.session), stream);
        let said_all = Arc::new(AtomicBool::new(false));
        let saying = Arc::clone(&said_all);
        thread::spawn(move || {
            saying.store(matches!(session.talk(cursor, &mut to), Ok(true)), Ordering::Release);
            let _ = to.shutdown(Shutdown::Write);
        });
        let heard = self.session.listen(&mut from);
        if said_all.load(Ordering::Acquire) {
            self.received.store(true, Ordering::Relaxed);
            return Ok(());
        }
        Ok(heard?)
    }

    fn greet(&self, stream: &UnixStream) -> anyhow::Result<(Incoming<UnixStream>, crate::outbox::Cursor)> {
        // A deadline for the whole of it: a stranger that sends a byte now and then must not keep others out.
        let (greeted, waiting) = mpsc::channel::<()>();
        let late = stream.try_clone()?;
        thread::spawn(move || {
            if waiting.recv_timeout(GREETING) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = late.shutdown(Shutdown::Both);
            }
        });
        let mut from = Incoming::new(stream.try_clone()?);
        let cursor = self.session.greet(&mut from, &mut &*stream)?;
        drop(greeted);
        Ok((from, cursor))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One connection to a tracer, over whatever carries bytes: an exec websocket, or a child's pipes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::{Signer, SigningKey};
use knark_specs::{
    PROTOCOL,
    frame::{Down, Ending, Plan, PodVerdict, Status, Up},
    packet::{self, PacketError},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, timeout},
};

use crate::source::Input;

/// How often the plugin shows that it lives; the tracer gives it a multiple of this.
const PING_EVERY: Duration = Duration::from_secs(2);
/// A tracer that says nothing for this long is gone: it sends its status several times in that.
const SILENCE: Duration = Duration::from_secs(10);
/// How often what arrived is acknowledged.
const ACK_EVERY: Duration = Duration::from_millis(250);

/// What all connections of one session share.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its public half is in the tracer's arguments.
    pub key: Arc<SigningKey>,
    /// What to watch.
    pub plan: Plan,
    /// The verdicts on pods so far, by UID; changes are sent as they come.
    pub verdicts: watch::Receiver<Arc<BTreeMap<String, PodVerdict>>>,
    /// Turns true when the tracer shall end.
    pub stop: watch::Receiver<bool>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The tracer said goodbye.
    Bye(Ending),
    /// The connection broke; it can be taken up again.
    Cut(String),
}

/// What can't be mended by connecting again.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The other side isn't a tracer of this version.
    #[error(
        "plugin {} speaks protocol {PROTOCOL}, the tracer ({version}) speaks {protocol}: use the tracer image of the plugin's own version (see `kubectl knark version`)",
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// The tracer's version.
        version: String,
        /// Its protocol.
        protocol: u32,
    },
    /// The tracer can't do its work.
    #[error("{0}")]
    Refused(String),
    /// Not a tracer's stream.
    #[error("reading the tracer's stream: {0}")]
    Packet(#[from] PacketError),
}

/// Speaks with a tracer until the connection ends. `last_seq` is the last batch that was passed on, over all connections;
/// `contact` is when either side last got something through to the other.
#[expect(clippy::too_many_lines, reason = "one loop over all that can happen to a connection")]
pub async fn drive(
    node: u32,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut session: Session,
    last_seq: &mut u64,
    contact: &mut Instant,
    out: &mpsc::Sender<Input>,
) -> Result<End, ConnectionError> {
    let started = Instant::now();
    let mut decoder = packet::Decoder::default();
    let mut buffer = vec![0; 128 << 10];
    let mut known: BTreeMap<String, PodVerdict> = BTreeMap::new();
    let mut waiting: VecDeque<Input> = VecDeque::new();
    let (mut greeted, mut acked, mut stopping) = (false, *last_seq, false);
    let mut ping = tokio::time::interval(PING_EVERY);
    let mut ack = tokio::time::interval(ACK_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ack.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    // The other side may have said its last word and gone: what it sent is still to be read, and its end says the rest.
    let mut deaf = false;
    // What can't be mended; what came before it in the same read is still to be passed on.
    let mut wrong: Option<ConnectionError> = None;
    macro_rules! send {
        ($message:expr) => {
            if !deaf {
                match timeout(SILENCE, write(&mut to, &$message)).await {
                    Ok(Ok(())) => *contact = Instant::now(),
                    Ok(Err(_)) => deaf = true,
                    Err(_) => return Ok(End::Cut(format!("nothing could be sent for {} s", SILENCE.as_secs()))),
                }
            }
        };
    }
    loop {
        if waiting.is_empty()
            && let Some(error) = wrong
        {
            return Err(error);
        }
        tokio::select! {
            // While the pipeline is busy nothing more is read, which the tracer's bounded buffer takes; heartbeats go on.
            read = from.read(&mut buffer), if waiting.is_empty() => {
                let length = match read {
                    Ok(0) if decoder.is_inside_packet() => return Ok(End::Cut("the stream ended inside a packet".into())),
                    Ok(0) => return Ok(End::Cut("the stream ended".into())),
                    Ok(length) => length,
                    Err(error) => return Ok(End::Cut(error.to_string())),
                };
                heard = Instant::now();
                *contact = heard;
                decoder.push(&buffer[..length]);
                while wrong.is_none() {
                    let message = match decoder.next::<Up>() {
                        Ok(Some(message)) => message,
                        Ok(None) => break,
                        Err(error) => {
                            wrong = Some(error.into());
                            break;
                        }
                    };
                    match message {
                        Up::Challenge { protocol, version, .. } if protocol != PROTOCOL => {
                            wrong = Some(ConnectionError::Version { version, protocol });
                        }
                        Up::Challenge { nonce, .. } => {
                            let verdicts = changes(&mut known, &session.verdicts.borrow_and_update());
                            for answer in answers(&session, &nonce, *last_seq, verdicts) {
                                send!(answer);
                            }
                            greeted = true;
                            ping.reset_immediately();
                            if *session.stop.borrow_and_update() {
                                stopping = true;
                                send!(Down::Stop);
                            }
                        }
                        Up::Refuse { message } => wrong = Some(ConnectionError::Refused(message)),
                        // Sent again after a reconnection, though it had arrived.
                        Up::Batch(batch) if batch.seq <= *last_seq => {}
                        message => {
                            if let Up::Status(status) = &message
                                && let Some(offset_ns) = clock_offset(status, started)
                            {
                                waiting.push_back(Input::Clock { node, offset_ns });
                            }
                            waiting.push_back(Input::Up { node, message });
                        }
                    }
                }
            }
            permit = out.reserve(), if !waiting.is_empty() => {
                let Ok(permit) = permit else { return Ok(End::Cut("the pipeline has ended".into())) };
                let Some(input) = waiting.pop_front() else { continue };
                let bye = passing(&input, last_seq);
                permit.send(input);
                heard = Instant::now();
                if let Some(reason) = bye {
                    return Ok(End::Bye(reason));
                }
            }
            Ok(()) = session.verdicts.changed(), if greeted => {
                let news = changes(&mut known, &session.verdicts.borrow_and_update());
                if !news.is_empty() {
                    send!(Down::Pods(news));
                }
            }
            Ok(()) = session.stop.changed(), if greeted && !stopping => {
                if *session.stop.borrow_and_update() {
                    stopping = true;
                    send!(Down::Stop);
                }
            }
            _ = ping.tick() => {
                if waiting.is_empty() && heard.elapsed() > SILENCE {
                    return Ok(End::Cut(format!("nothing heard for {} s", SILENCE.as_secs())));
                }
                if greeted {
                    send!(Down::Ping(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)));
                }
            }
            _ = ack.tick(), if greeted && acked < *last_seq => {
                acked = *last_seq;
                send!(Down::Ack(acked));
            }
        }
    }
}

/// Notes how far the pipeline has got; says when this is the last word.
fn passing(input: &Input, last_seq: &mut u64) -> Option<Ending> {
    match input {
        Input::Up { message: Up::Batch(batch), .. } => *last_seq = batch.seq,
        Input::Up { message: Up::Bye { reason, .. }, .. } => return Some(*reason),
        _ => {}
    }
    None
}

/// What follows a challenge.
fn answers(session: &Session, nonce: &[u8], resume_after: u64, verdicts: Vec<PodVerdict>) -> [Down; 3] {
    let signature = session.key.sign(nonce).to_bytes().to_vec();
    let mut plan = session.plan.clone();
    if resume_after > 0 {
        // It is traced already by the plan that came first, and this is long.
        plan.btf = None;
    }
    [Down::Auth { signature, resume_after }, Down::Plan(Box::new(plan)), Down::Pods(verdicts)]
}

async fn write(to: &mut (impl AsyncWrite + Unpin), message: &Down) -> std::io::Result<()> {
    to.write_all(&packet::encode(message)).await?;
    to.flush().await
}

/// What changed since `known`, which it brings up to date. A pod that is gone keeps its last verdict: its events may still come.
fn changes(known: &mut BTreeMap<String, PodVerdict>, now: &BTreeMap<String, PodVerdict>) -> Vec<PodVerdict> {
    let news: Vec<_> = now.iter().filter(|(uid, verdict)| known.get(*uid) != Some(verdict)).map(|(_, v)| v.clone()).collect();
    known.clone_from(now);
    news
}

/// The tracer answers a ping at once, so its clock was read halfway between then and now.
fn clock_offset(status: &Status, started: Instant) -> Option<i64> {
    let sent = Duration::from_nanos(status.pong);
    let round_trip = started.elapsed().checked_sub(sent).filter(|t| status.pong > 0 && *t < PING_EVERY)?;
    let here = now()?.checked_sub(round_trip / 2)?;
    let there = i128::from(status.now_ns) + i128::from(status.realtime_offset_ns);
    i64::try_from(there - i128::try_from(here.as_nanos()).ok()?).ok()
}

/// This machine's clock, as if nobody had set it since the first time that it was asked for: the order of nodes' events hangs on it.
fn now() -> Option<Duration> {
    static FIRST: LazyLock<(SystemTime, Duration)> = LazyLock::new(|| (SystemTime::now(), running()));
    let (time, at) = &*FIRST;
    time.checked_add(running().checked_sub(*at)?)?.duration_since(UNIX_EPOCH).ok()
}

/// A clock that nobody sets, and that goes on while the machine sleeps, as those of the nodes do meanwhile.
#[cfg(target_os = "linux")]
fn running() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// A clock that nobody sets. After the machine has slept, the nodes' times lag behind as much, all by the same.
#[cfg(not(target_os = "linux"))]
fn running() -> Duration {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    FIRST.elapsed()
}

#[cfg(test)]
mod tests {
    use knark_specs::frame::Batch;

    use super::*;

    /// What comes of a connection that brings these bytes and ends, and the batches that were passed on.
    async fn connect(bytes: &[u8], last_seq: &mut u64) -> (Result<End, ConnectionError>, Vec<u64>) {
        let (_stop, stop) = watch::channel(false);
        let (_verdicts, verdicts) = watch::channel(Arc::default());
        let session = Session { key: Arc::new(SigningKey::from_bytes(&[7; 32])), plan: Plan::default(), verdicts, stop };
        let (out, mut inputs) = mpsc::channel(16);
        let ended = drive(0, bytes, tokio::io::sink(), session, last_seq, &mut Instant::now(), &out).await;
        drop(out);
        let mut seqs = Vec::new();
        while let Some(input) = inputs.recv().await {
            if let Input::Up { message: Up::Batch(batch), .. } = input {
                seqs.push(batch.seq);
            }
        }
        (ended, seqs)
    }

    fn bytes(messages: &[Up]) -> Vec<u8> {
        messages.iter().flat_map(packet::encode).collect()
    }

    #[tokio::test]
    async fn another_version_is_named_with_the_remedy() {
        let challenge = Up::Challenge { nonce: vec![1; 32], protocol: PROTOCOL + 1, version: "9.9.9".into() };
        let error = connect(&bytes(&[challenge]), &mut 0).await.0.unwrap_err().to_string();
        for mark in ["9.9.9", env!("CARGO_PKG_VERSION"), "protocol", "kubectl knark version"] {
            assert!(error.contains(mark), "{mark} is missing: {error}");
        }
    }

    #[tokio::test]
    async fn what_a_new_connection_repeats_is_passed_on_once() {
        let batch = |seq| Up::Batch(Batch { seq, items: Vec::new() });
        let mut last_seq = 0;
        let (ended, seqs) = connect(&bytes(&[batch(1), batch(2)]), &mut last_seq).await;
        assert!(matches!(ended, Ok(End::Cut(_))), "{ended:?}");
        assert_eq!((seqs, last_seq), (vec![1, 2], 2));
        let bye = Up::Bye { reason: Ending::Stopped, status: Status::default() };
        let (ended, seqs) = connect(&bytes(&[batch(2), batch(3), bye]), &mut last_seq).await;
        assert_eq!((ended.unwrap(), seqs), (End::Bye(Ending::Stopped), vec![3]));
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_passed_on() {
        let batch = |seq| Up::Batch(Batch { seq, items: Vec::new() });
        let refused = bytes(&[batch(1), batch(2), Up::Refuse { message: "no".into() }, batch(3)]);
        let (ended, seqs) = connect(&refused, &mut 0).await;
        assert!(matches!(ended, Err(ConnectionError::Refused(_))), "{ended:?}");
        assert_eq!(seqs, [1, 2]);
        let damaged = [bytes(&[batch(1)]), vec![0xff; 64]].concat();
        let (ended, seqs) = connect(&damaged, &mut 0).await;
        assert!(matches!(ended, Err(ConnectionError::Packet(_))), "{ended:?}");
        assert_eq!(seqs, [1]);
    }

    #[tokio::test]
    async fn what_is_no_tracer_is_refused() {
        let (ended, _) = connect(&[0xff; 64], &mut 0).await;
        assert!(matches!(ended, Err(ConnectionError::Packet(_))), "{ended:?}");
    }
}

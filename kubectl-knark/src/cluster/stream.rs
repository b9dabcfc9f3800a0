//! A tracer's stream: `pods/exec` of its `connect` verb, taken up again where it was cut.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use knark_specs::frame::Ending;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    manifest::{BINARY, GRACE},
    tracer::Tracers,
};
use crate::{
    connection::{self, End, Session},
    source::Input,
};

/// The first wait before connecting again; it doubles.
const RETRY: Duration = Duration::from_millis(100);
/// The longest one.
const RETRY_AT_MOST: Duration = Duration::from_secs(1);
/// How long after the stream's end the pod's own end is waited for, so that the message can say why.
const FATE_WITHIN: Duration = Duration::from_secs(3);

/// One node's tracer, as it runs.
pub struct Stream<'a> {
    /// All tracers of the session.
    pub tracers: &'a Tracers,
    /// The node's number.
    pub number: u32,
    /// The tracer's Job.
    pub job: &'a str,
    /// The tracer's pod.
    pub pod: &'a str,
}

/// How an attempt ended that brought no goodbye.
enum Cut {
    /// Connecting again may help.
    Again(String),
    /// It won't.
    Final(anyhow::Error),
}

impl Stream<'_> {
    /// Passes on what the tracer says until its goodbye; connects again where the connection is cut.
    pub async fn follow(&self, session: Session, out: &mpsc::Sender<Input>) -> Result<()> {
        let mut ended = std::pin::pin!(self.tracers.ended(self.job));
        let (mut last_seq, mut contact, mut wait) = (0, Instant::now(), RETRY);
        loop {
            let before = contact;
            let (attempt, over) = {
                let mut attempt = std::pin::pin!(self.attempt(&session, &mut last_seq, &mut contact, out));
                tokio::select! {
                    biased;
                    attempt = &mut attempt => (attempt, None),
                    // What its tracer sent before may still be on the way, to a slow reader for long.
                    over = &mut ended => (attempt.await, Some(over)),
                }
            };
            let why = match (attempt, over) {
                (Ok(ending), _) => return check(ending, &session),
                // What the tracer itself says tells more than its pod's end.
                (Err(Cut::Final(error)), _) => return Err(error),
                (Err(Cut::Again(why)), Some(over)) => return Err(over.and_the_stream(&why).into()),
                (Err(Cut::Again(why)), None) => why,
            };
            if contact.elapsed() > GRACE {
                // It has ended itself by now; its pod may tell more than the connection does.
                return Err(match timeout(FATE_WITHIN, &mut ended).await {
                    Ok(over) => over.into(),
                    Err(_) => {
                        anyhow!("the connection to the tracer was lost for {} s: {why}", GRACE.as_secs())
                    }
                });
            }
            if contact > before {
                wait = RETRY;
            }
            let _ = out.send(Input::Phase { node: self.number, phase: "connecting".to_owned() }).await;
            tokio::select! {
                () = sleep(wait) => wait = (wait * 2).min(RETRY_AT_MOST),
                over = &mut ended => return Err(over.into()),
            }
        }
    }

    /// One connection, from exec to its end.
    async fn attempt(
        &self,
        session: &Session,
        last_seq: &mut u64,
        contact: &mut Instant,
        out: &mpsc::Sender<Input>,
    ) -> Result<Ending, Cut> {
        let exec = timeout(GRACE, self.tracers.exec(self.pod, &[BINARY, "connect"])).await;
        let (mut stdout, stdin) = match exec {
            Ok(Ok(streams)) => streams,
            // The container may not be ready for it, or the way there is cut; that the pod is over comes by its watch.
            Ok(Err(error)) if error.is_transient() || error.is_not_found() => return Err(Cut::Again(error.to_string())),
            Ok(Err(error)) => return Err(Cut::Final(error.into())),
            Err(_) => return Err(Cut::Again("the API server gave no answer in time".to_owned())),
        };
        match connection::drive(self.number, &mut stdout, stdin, session.clone(), last_seq, contact, out).await {
            Ok(End::Bye(ending)) => Ok(ending),
            Ok(End::Cut(why)) => Err(Cut::Again(stdout.last_words().unwrap_or(why))),
            Err(error) => Err(Cut::Final(error.into())),
        }
    }
}

/// Whether a goodbye was asked for.
fn check(ending: Ending, session: &Session) -> Result<()> {
    let why = match ending {
        Ending::Stopped => return Ok(()),
        Ending::Signal if *session.stop.borrow() => return Ok(()),
        Ending::Signal => "the tracer was told to end by a signal: its pod was deleted, or its deadline is over (--deadline)",
        Ending::Orphaned => "the tracer ended itself, as it heard nothing from here for too long",
        Ending::Failed => "the tracer failed",
    };
    Err(anyhow!(why))
}

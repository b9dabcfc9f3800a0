//! Reading an audit log of this node for a plugin, instead of tracing.

use std::{io, path::Path, time::Duration};

use knark_audit_log::{FindError, Log, Next, PIECE};
use knark_specs::frame::{Ending, LOG_FOLDER, LogPart, LogPlan, Status, Up};

use super::{Command, Engine, EngineError, hello};
use crate::batch;

/// Pause when there is nothing new, or no room.
const PAUSE: Duration = Duration::from_millis(50);

impl<E: Fn() -> Option<Ending>> Engine<E> {
    /// Passes the log on, as fast as the plugin takes it: nothing is lost.
    pub(super) fn read_log(&self, plan: &LogPlan) -> Result<Ending, EngineError> {
        let mut log = Log::find_beneath(Path::new(LOG_FOLDER), &plan.name, plan.follow).map_err(|error| why(&error))?;
        self.outbox.hello(&Up::Hello(hello(Vec::new())));
        let mut piece = vec![0; PIECE];
        let (mut parts, mut reading) = (Vec::new(), String::new());
        let reason = loop {
            let pause = match self.outbox.has_room().then(|| log.next(&mut piece)) {
                Some(Next::End) => break Ending::Stopped,
                Some(Next::Nothing) | None => PAUSE,
                Some(next) => {
                    let now = log.reading();
                    if reading != now {
                        reading = now;
                        batch::put(&LogPart::File(&reading), &mut parts);
                    }
                    match next {
                        Next::Bytes(length) if length > 0 => batch::put(&LogPart::Bytes(&piece[..length]), &mut parts),
                        Next::FileEnded(note) => batch::put(&LogPart::Ended(note.as_deref()), &mut parts),
                        Next::Broken(why) => batch::put(&LogPart::Broken(&why.to_string()), &mut parts),
                        Next::Bytes(_) | Next::Nothing | Next::End => {}
                    }
                    Duration::ZERO
                }
            };
            if parts.len() >= batch::FULL || !pause.is_zero() && !parts.is_empty() {
                self.outbox.push(std::mem::take(&mut parts));
            }
            if let Some(reason) = self.is_over(pause) {
                break reason;
            }
        };
        if !parts.is_empty() {
            self.outbox.push(parts);
        }
        Ok(self.bye(reason, Status::default()))
    }

    /// Waits that long for a word that ends this.
    fn is_over(&self, pause: Duration) -> Option<Ending> {
        match self.commands.recv_timeout(pause) {
            Ok(Command::Stop) => Some(Ending::Stopped),
            Ok(Command::Plan(_) | Command::Pods(_)) | Err(_) => (self.ending)(),
        }
    }
}

/// With what to do. The plugin says which log it is.
fn why(error: &FindError) -> EngineError {
    let remedy = match error {
        FindError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is none on this node: --audit-log-path of its kube-apiserver says where it is"
        }
        FindError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "the tracer may not read it: --privileged lets it"
        }
        _ => "",
    };
    EngineError::Log(if remedy.is_empty() { error.to_string() } else { format!("{remedy} ({error})") })
}

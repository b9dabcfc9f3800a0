//! Reading an audit log of this node for a plugin, instead of tracing.

use std::{io, path::Path, time::Duration};

use knark_audit_log::{FindError, Log, Next, PIECE};
use knark_specs::frame::{Ending, LogPart, LogPlan, Status, Up};

use super::{Command, Engine, EngineError, hello};
use crate::batch;

/// Pause when there is nothing new, or no room.
const PAUSE: Duration = Duration::from_millis(50);

impl<E: Fn() -> Option<Ending>> Engine<E> {
    /// Passes a log of that folder on, as fast as the plugin takes it: nothing is lost.
    pub(super) fn read_log(&self, folder: &Path, plan: &LogPlan) -> Result<Ending, EngineError> {
        let mut log = Log::find_beneath(folder, &plan.name, plan.follow).map_err(|error| why(&error))?;
        self.outbox.hello(&Up::Hello(hello(Vec::new(), Vec::new())));
        let mut piece = vec![0; PIECE];
        let (mut parts, mut reading, mut is_read) = (Vec::new(), String::new(), false);
        let reason = loop {
            let pause = match (!is_read && self.outbox.has_room()).then(|| log.next(&mut piece)) {
                // This process ends with its last word, and with it what is on the way to a slow plugin.
                None if is_read && parts.is_empty() && self.outbox.is_empty() => break Ending::Stopped,
                Some(Next::End) => {
                    is_read = true;
                    PAUSE
                }
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
            match self.is_over(pause) {
                // What has been read is brought to its end.
                Some(Ending::Stopped) => is_read = true,
                Some(reason) => break reason,
                None => {}
            }
        };
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{Arc, mpsc},
        time::Instant,
    };

    use knark_specs::packet;

    use super::*;
    use crate::outbox::{self, Cursor, Outbox};

    /// What the tracer says next.
    fn said(outbox: &Outbox, cursor: &mut Cursor) -> Up {
        let begun = Instant::now();
        loop {
            if let outbox::Next::Packet(packet) | outbox::Next::Last(packet) = outbox.next(cursor, PAUSE) {
                let mut decoder = packet::Decoder::default();
                decoder.push(&packet);
                match decoder.next().unwrap().unwrap() {
                    Up::Status(_) => {}
                    message => return message,
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "nothing is said");
        }
    }

    fn parts(items: &[u8]) -> Vec<LogPart<'_>> {
        let mut decoder = minicbor::Decoder::new(items);
        std::iter::from_fn(|| (decoder.position() < items.len()).then(|| decoder.decode().unwrap())).collect()
    }

    #[test]
    fn the_last_word_waits_for_all_to_arrive() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("audit-2026-01-02T03-04-05.678.log"), "old").unwrap();
        fs::write(folder.path().join("audit.log"), "new").unwrap();
        let outbox = Arc::new(Outbox::default());
        let (_stop, commands) = mpsc::channel();
        let engine = Engine { outbox: Arc::clone(&outbox), commands, ending: || None, own_pod: None };
        let path = folder.path().to_owned();
        let tracer = std::thread::spawn(move || engine.read_log(&path, &LogPlan::default()).unwrap());
        let mut cursor = outbox.take_over(0);
        assert!(matches!(said(&outbox, &mut cursor), Up::Hello(_)));
        let Up::Batch(batch) = said(&outbox, &mut cursor) else { panic!("no batch") };
        let old = "audit-2026-01-02T03-04-05.678.log";
        let of = |name, text| [LogPart::File(name), LogPart::Bytes(text), LogPart::Ended(None)];
        assert_eq!(parts(&batch.items), [of(old, b"old"), of("audit.log", b"new")].concat());
        // It has read all, and waits.
        assert_eq!(outbox.next(&mut cursor, PAUSE * 4), outbox::Next::Idle);
        assert!(!tracer.is_finished());
        outbox.ack(batch.seq);
        assert!(matches!(said(&outbox, &mut cursor), Up::Bye { reason: Ending::Stopped, .. }));
        assert_eq!(tracer.join().unwrap(), Ending::Stopped);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (_stop, commands) = mpsc::channel();
        let engine = Engine { outbox: Arc::default(), commands, ending: || None, own_pod: None };
        let plan = LogPlan { name: "audit.log".to_owned(), follow: true };
        let error = engine.read_log(folder.path(), &plan).unwrap_err().to_string();
        assert!(error.contains("--audit-log-path"), "{error}");
    }
}

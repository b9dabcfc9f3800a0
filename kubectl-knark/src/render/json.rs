//! `-o json`: one object per line.

use std::{io, sync::Arc};

use knark_specs::{
    alert::Match,
    event::{Container, Event, Kubernetes, Node, Process, Summary},
};
use serde::Serialize;

/// How many processes are remembered; a power of two.
const PLACES: usize = 256;
/// Their texts take this much memory at most, in bytes, or that of a single one.
const CAPACITY: usize = 16 << 20;

/// The renderer. Most of an event's text is its process, which many events share, so that part is kept as text.
#[derive(Debug)]
pub struct Json {
    /// By process id, as far as there is room.
    places: Vec<Option<Place>>,
    /// How long all their texts are.
    bytes: usize,
}

/// Where events come from, and the part of their JSON that says so.
#[derive(Debug)]
struct Place {
    node: Arc<Node>,
    kubernetes: Option<Arc<Kubernetes>>,
    container: Option<Arc<Container>>,
    process: Arc<Process>,
    text: Vec<u8>,
}

impl Default for Json {
    fn default() -> Self {
        Self { places: std::iter::repeat_with(|| None).take(PLACES).collect(), bytes: 0 }
    }
}

impl super::Render for Json {
    /// Writes what serde would write for the whole event, or the whole alert (a test compares).
    fn event(&mut self, event: &Event, matches: &[Match], out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(b"{\"schema\":");
        write(out, &event.schema)?;
        field(out, "time", &event.time)?;
        field(out, "boot_ns", &event.boot_ns.to_string())?;
        if let Some(count) = &event.count {
            field(out, "count", count)?;
        }
        for (name, time) in [("first_time", &event.first_time), ("last_time", &event.last_time)] {
            if let Some(time) = time {
                field(out, name, time)?;
            }
        }
        out.extend_from_slice(self.place(event)?);
        if let Some(thread) = &event.thread {
            field(out, "thread", thread)?;
        }
        if let Some(cause) = &event.cause {
            field(out, "cause", cause)?;
        }
        // What happened is an object of its own, whose fields belong into this one.
        let brace = out.len();
        write(out, &event.what)?;
        out[brace] = b',';
        if !matches.is_empty() {
            out.pop();
            field(out, "matches", &matches)?;
            out.push(b'}');
        }
        out.push(b'\n');
        Ok(())
    }

    fn end(&mut self, summary: &Summary, out: &mut Vec<u8>) -> io::Result<()> {
        write(out, summary)?;
        out.push(b'\n');
        Ok(())
    }
}

impl Json {
    fn place(&mut self, event: &Event) -> io::Result<&[u8]> {
        let at = event.process.pid as usize % PLACES;
        let place = &mut self.places[at];
        if place.as_ref().is_none_or(|place| !place.fits(event)) {
            let new = Place::of(event)?;
            self.bytes += new.text.len();
            self.bytes -= place.replace(new).map_or(0, |old| old.text.len());
            if self.bytes > CAPACITY {
                self.forget_all_but(at);
            }
        }
        let place = &self.places[at];
        Ok(place.as_ref().map_or(&[], |place| &place.text))
    }

    fn forget_all_but(&mut self, kept: usize) {
        self.places.iter_mut().enumerate().filter(|(at, _)| *at != kept).for_each(|(_, place)| *place = None);
        self.bytes = self.places[kept].as_ref().map_or(0, |place| place.text.len());
    }
}

impl Place {
    fn of(event: &Event) -> io::Result<Self> {
        let Event { node, kubernetes, container, process, .. } = event.clone();
        let mut text = Vec::new();
        field(&mut text, "node", &node)?;
        if let Some(kubernetes) = &kubernetes {
            field(&mut text, "kubernetes", kubernetes)?;
        }
        if let Some(container) = &container {
            field(&mut text, "container", container)?;
        }
        field(&mut text, "process", &process)?;
        Ok(Self { node, kubernetes, container, process, text })
    }

    /// What is shared is never changed, so being the same is enough, and it stays alive here.
    fn fits(&self, event: &Event) -> bool {
        fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
        }
        Arc::ptr_eq(&self.process, &event.process)
            && Arc::ptr_eq(&self.node, &event.node)
            && same(self.kubernetes.as_ref(), event.kubernetes.as_ref())
            && same(self.container.as_ref(), event.container.as_ref())
    }
}

/// One value on several lines, for reading.
pub fn pretty(value: &impl Serialize) -> io::Result<String> {
    let mut out = Vec::new();
    // Its line breaks stand between values; those inside of texts are escaped already.
    for line in serde_json::to_string_pretty(value)?.lines() {
        serde_json::ser::Formatter::write_string_fragment(&mut Escaping, &mut out, line)?;
        out.push(b'\n');
    }
    String::from_utf8(out).map_err(io::Error::other)
}

fn field(out: &mut Vec<u8>, name: &str, value: &impl Serialize) -> io::Result<()> {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    write(out, value)
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    Ok(value.serialize(&mut serde_json::Serializer::with_formatter(out, Escaping))?)
}

/// Compact JSON that escapes all control characters: JSON itself asks for those below U+0020 only, and some terminals obey
/// U+0080 to U+009F as well.
struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        // In UTF-8 they are 7F, and C2 80 to C2 9F.
        while rest.bytes().any(|byte| matches!(byte, 0x7f | 0xc2))
            && let Some(at) = rest.find(char::is_control)
        {
            let control = rest[at..].chars().next().unwrap_or_default();
            writer.write_all(&rest.as_bytes()[..at])?;
            write!(writer, "\\u{:04x}", u32::from(control))?;
            rest = &rest[at + control.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use knark_specs::{
        event::Thread,
        link::{Cause, Certainty},
    };

    use super::*;
    use crate::{pipeline::tests::event, render::Render as _};

    fn check(json: &mut Json, event: &Event) {
        let mut out = Vec::new();
        json.event(event, &[], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(event).unwrap() + "\n");
    }

    #[test]
    fn lines_are_what_serde_makes_of_the_whole() {
        let mut json = Json::default();
        let mut event = event(7);
        check(&mut json, &event);
        check(&mut json, &event);
        event.thread = Some(Thread { tid: 9, comm: "t".into() });
        event.cause = Some(Arc::new(Cause {
            request_id: "1".into(),
            user: "alice".into(),
            impersonator: None,
            verb: "get".into(),
            subresource: "exec".into(),
            source: None,
            certainty: Certainty::Certain,
            others: ["bob"].into_iter().collect(),
        }));
        event.container = Some(Arc::new(Container { id: "c".into(), name: "n".into(), image: "i".into(), cgroup_id: 3 }));
        check(&mut json, &event);
        let pod = Kubernetes { namespace: "ns".into(), pod: "p".into(), pod_uid: "u".into(), labels: None, owner: None };
        event.kubernetes = Some(Arc::new(pod));
        check(&mut json, &event);
        Arc::make_mut(&mut event.process).comm = "other".into();
        check(&mut json, &event);
        Arc::make_mut(&mut event.node).clock_offset_ns = 5;
        check(&mut json, &event);
    }

    #[test]
    fn an_alert_has_its_matches() {
        let rule = Match {
            policy: "p".into(),
            rule: "r".into(),
            severity: knark_specs::policy::Severity::High,
            message: "m".into(),
            tags: vec!["t".into()],
            references: Vec::new(),
        };
        let alert = knark_specs::alert::Alert { event: event(7), matches: vec![rule] };
        let mut out = Vec::new();
        Json::default().event(&alert.event, &alert.matches, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&alert).unwrap() + "\n");
    }

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let mut event = event(7);
        let comm = "\u{1b}[2J\u{9b}2J\u{7f}ü \u{a0}";
        Arc::make_mut(&mut event.process).comm = comm.into();
        let mut out = Vec::new();
        Json::default().event(&event, &[], &mut out).unwrap();
        let line = String::from_utf8(out).unwrap();
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap().process.comm, comm);

        let text = pretty(&[comm]).unwrap();
        assert!(text.lines().count() == 3 && !text.replace('\n', "").contains(char::is_control), "{text:?}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [comm]);
    }
}

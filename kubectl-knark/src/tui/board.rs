//! Between the pipeline and the screen: the one writes what comes, the other reads it when it is time to draw. Neither waits
//! for the other, and what nobody reads stays bounded.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use knark_specs::{
    alert::Match,
    event::{Event, Summary, Sums},
    frame::Pod,
};

use super::history::{Entry, History};
use crate::render::{Render, Scene, escape};

/// How many warnings and errors are kept for the end.
const NOTICES: usize = 500;

/// A handle to what both sides share.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    news: News,
    next: u64,
    /// All that was said, for after the end.
    said: VecDeque<String>,
    forgotten: u64,
    closed: bool,
}

/// What has come since the screen last looked.
#[derive(Debug, Default)]
pub struct News {
    /// Events.
    pub events: History,
    /// Warnings and errors.
    pub notices: Vec<String>,
    /// How the trace is doing, if that was told.
    pub status: Option<Status>,
    /// What the events are of, if that was told.
    pub setting: Option<Setting>,
    /// The trace has ended.
    pub over: bool,
    /// The user wants to leave.
    pub leave: bool,
}

/// How the trace is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Who is waited for; empty: nobody.
    pub waiting: String,
    /// What was seen so far, and what became of it.
    pub sums: Sums,
}

/// A [`Scene`] to keep.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Setting {
    /// There is no cluster.
    pub local: bool,
    /// How many nodes there are.
    pub nodes: usize,
    /// The pod of the longest name.
    pub pod: Option<Pod>,
    /// Events are shown for the rules that they match.
    pub policies: bool,
}

impl Board {
    /// Something that the user should know. False where the screen has been left: say it elsewhere.
    pub fn say(&self, text: &str) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.said.push_back(text.to_owned());
        state.news.notices.push(text.to_owned());
        if state.said.len() > NOTICES {
            state.said.pop_front();
            state.forgotten += 1;
        }
        if state.news.notices.len() > NOTICES {
            state.news.notices.remove(0);
        }
        true
    }

    /// Who is waited for, and the sums.
    pub fn count(&self, waiting: String, sums: Sums) {
        self.lock().news.status = Some(Status { waiting, sums });
    }

    /// The user wants to leave: the screen does so when the trace has ended.
    pub fn leave(&self) {
        self.lock().news.leave = true;
    }

    /// The trace has ended. Whether the user wanted to leave by then.
    pub fn end(&self) -> bool {
        let mut state = self.lock();
        state.news.over = true;
        state.news.leave
    }

    /// What is new. The events stay where they are unless they are asked for; how many wait, and how many of those had to go,
    /// is told instead.
    pub fn look(&self, take_events: bool) -> (News, (usize, u64)) {
        let mut state = self.lock();
        let (over, leave) = (state.news.over, state.news.leave);
        let mut news = mem::take(&mut state.news);
        (state.news.over, state.news.leave) = (over, leave);
        if !take_events {
            state.news.events = mem::take(&mut news.events);
        }
        (news, (state.news.events.len(), state.news.events.dropped))
    }

    /// Nobody looks any more. What was said, for the terminal as it was before.
    pub fn close(&self) -> String {
        let mut state = self.lock();
        state.closed = true;
        let forgotten = mem::take(&mut state.forgotten);
        let mut text = match forgotten {
            0 => String::new(),
            n => format!("{n} earlier messages are left out here\n"),
        };
        for said in mem::take(&mut state.said) {
            text += &escape::lines(&said);
            text.push('\n');
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself, whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Render for Board {
    fn begin(&mut self, scene: &Scene<'_>, _out: &mut Vec<u8>) {
        let longest = scene.pods.iter().max_by_key(|pod| pod.name.len() + pod.namespace.len());
        let pod = longest.map(|pod| Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), ..Pod::default() });
        let setting = Setting { local: scene.local, nodes: scene.nodes, pod, policies: scene.policies };
        self.lock().news.setting = Some(setting);
    }

    fn event(&mut self, event: &Event, matches: &[Match], _out: &mut Vec<u8>) -> io::Result<()> {
        // Copied before the lock is taken, so that the screen waits for nothing.
        let (event, matches) = (event.clone(), matches.to_vec());
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.news.events.push(Entry { number, event, matches });
        Ok(())
    }

    fn end(&mut self, summary: &Summary, _out: &mut Vec<u8>) -> io::Result<()> {
        self.count(String::new(), summary.summary.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::tests::event;

    #[test]
    fn events_wait_while_nobody_asks_for_them() {
        let mut board = Board::default();
        for at in 0..3 {
            board.event(&event(at), &[], &mut Vec::new()).unwrap();
        }
        board.leave();
        let (news, waiting) = board.look(false);
        assert_eq!((news.events.len(), waiting, news.leave), (0, (3, 0), true));
        let (news, waiting) = board.look(true);
        assert_eq!((news.events.len(), waiting, news.leave), (3, (0, 0), true));
        board.event(&event(3), &[], &mut Vec::new()).unwrap();
        assert_eq!(board.look(true).0.events.first(), Some(3), "numbers go on");
    }

    #[test]
    fn what_was_said_is_said_again_at_the_end() {
        let board = Board::default();
        assert!((0..=NOTICES).all(|n| board.say(&format!("warning: {n}\x1b"))));
        let text = board.close();
        assert!(text.starts_with("1 earlier messages are left out here\nwarning: 1\\x1b\n"), "{text:?}");
        assert!(!board.say("warning: late"), "the screen has been left");
    }
}

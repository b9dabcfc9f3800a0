//! What the dashboard knows and shows. Pure: no terminal, no clock, no threads.

use std::{cell::RefCell, collections::VecDeque};

use knark_specs::event::{Event, What};

use super::{
    board::{News, Setting, Status},
    filter::Filter,
    history::{Entry, History},
    line::Line,
    pane::{Kind, Order, Pane},
    rows::Words,
};

/// How many warnings and errors can be looked at.
const NOTICES: usize = 500;

/// What of it is fixed for as long as it runs.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// This happens now; otherwise it was recorded.
    pub live: bool,
    /// Whether to colour.
    pub colour: bool,
    /// A pod's name alone doesn't say enough.
    pub many_namespaces: bool,
}

/// What the keys go to.
#[derive(Debug, Default, PartialEq)]
pub enum Mode {
    /// The panes.
    #[default]
    Browse,
    /// The filter that is being typed. What it was before is kept, to go back to.
    Filter {
        /// What it was.
        before: String,
    },
    /// The name of the file to save to.
    Save(Line),
    /// What the keys do, scrolled down by so many lines.
    Help(usize),
    /// Warnings and errors, likewise.
    Notices(usize),
}

/// All of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Model {
    /// What is fixed.
    pub manner: Manner,
    /// What the keys go to.
    pub mode: Mode,
    /// What is typed as the filter.
    pub filter_line: Line,
    filter: Filter,
    words: RefCell<Words>,
    /// All events that are kept, whether shown or not.
    pub history: History,
    /// The lists, one or two.
    pub panes: Vec<Pane>,
    /// Which list the keys move in.
    pub focus: usize,
    /// The selected event's details are shown, scrolled down by so many lines.
    pub details: Option<usize>,
    /// The keys move the details instead of a list.
    pub in_details: bool,
    /// In which order the lists are.
    pub order: Order,
    /// New events wait outside.
    pub paused: bool,
    /// How many wait there, and how many of those had to go.
    pub waiting: (usize, u64),
    /// What the events are of.
    pub setting: Setting,
    /// How the trace is doing.
    pub status: Status,
    /// Warnings and errors, the newest last.
    pub notices: VecDeque<String>,
    /// How many of them have not been looked at.
    pub unread: usize,
    /// What the last key did, where that doesn't show by itself.
    pub answer: Option<String>,
    /// The trace has ended.
    pub over: bool,
    /// The user wants to leave.
    pub leaving: bool,
}

impl Model {
    /// Nothing has come yet.
    pub fn new(manner: Manner) -> Self {
        Self {
            manner,
            mode: Mode::Browse,
            filter_line: Line::default(),
            filter: Filter::default(),
            words: RefCell::default(),
            history: History::default(),
            panes: vec![Pane::new(Kind::Timeline, Order::Time)],
            focus: 0,
            details: None,
            in_details: false,
            order: Order::Time,
            paused: false,
            waiting: (0, 0),
            setting: Setting::default(),
            status: Status::default(),
            notices: VecDeque::new(),
            unread: 0,
            answer: None,
            over: false,
            leaving: false,
        }
    }

    /// Takes in what has come. Whether anything of it changes what is shown.
    pub fn take(&mut self, news: News, waiting: (usize, u64)) -> bool {
        let News { events, notices, status, setting, over, leave } = news;
        let quiet = events.len() == 0
            && notices.is_empty()
            && status.as_ref().is_none_or(|status| *status == self.status)
            && setting.is_none()
            && (over, leave, waiting) == (self.over, self.leaving, self.waiting);
        self.waiting = waiting;
        self.status = status.unwrap_or_else(|| std::mem::take(&mut self.status));
        if let Some(setting) = setting {
            self.setting = setting;
        }
        self.history.dropped += events.dropped;
        for entry in events.into_entries() {
            let admitted = self.admits(&entry);
            for pane in self.panes.iter_mut().filter(|pane| admitted && pane.takes(&entry)) {
                pane.push(&entry);
            }
            self.history.push(entry);
        }
        let oldest = self.history.first().unwrap_or(0);
        self.panes.iter_mut().for_each(|pane| pane.forget_before(oldest));
        self.unread += notices.len();
        self.notices.extend(notices);
        let excess = self.notices.len().saturating_sub(NOTICES);
        self.notices.drain(..excess);
        (self.over, self.leaving) = (over, leave);
        !quiet
    }

    /// The pane that the keys move in.
    pub fn pane(&mut self) -> &mut Pane {
        &mut self.panes[self.focus]
    }

    /// The event whose details are shown.
    pub fn selected(&self) -> Option<&Entry> {
        self.panes[self.focus].selected().and_then(|number| self.history.get(number))
    }

    /// Applies what is typed as the filter by now.
    pub fn refilter(&mut self) {
        let filter = Filter::parse(self.filter_line.text());
        if filter != self.filter {
            self.filter = filter;
            self.refill();
        }
    }

    /// One list, or one for requests and one for nodes.
    pub fn switch_view(&mut self) {
        let selected = self.panes[self.focus].selected().filter(|_| !self.panes[self.focus].follows());
        let kinds: &[Kind] = if self.panes.len() > 1 { &[Kind::Timeline] } else { &[Kind::Requests, Kind::Nodes] };
        self.panes = kinds.iter().map(|kind| Pane::new(*kind, self.order)).collect();
        self.focus = 0;
        self.refill();
        if let Some(number) = selected {
            self.go_to(number);
        } else if self.panes[0].len() == 0 {
            self.focus = self.panes.len() - 1;
        }
    }

    /// The other order.
    pub fn switch_order(&mut self) {
        self.order = if self.order == Order::Time { Order::Severity } else { Order::Time };
        self.panes.iter_mut().for_each(|pane| pane.sort(self.order));
    }

    /// The next place for the keys: each list, then the details.
    pub fn switch_focus(&mut self, back: bool) {
        let places = self.panes.len() + usize::from(self.details.is_some());
        let here = if self.in_details { self.panes.len() } else { self.focus };
        let next = (here + if back { places - 1 } else { 1 }) % places;
        self.in_details = next == self.panes.len();
        if !self.in_details {
            self.set_focus(next);
        }
    }

    /// This list is the one for the keys.
    pub fn set_focus(&mut self, pane: usize) {
        self.in_details = false;
        if self.focus != pane {
            self.focus = pane;
            self.rewind_details();
        }
    }

    /// Shows the selected event's details, or no longer.
    pub fn switch_details(&mut self) {
        self.details = if self.details.is_some() { None } else { Some(0) };
        self.in_details = false;
        // What is being read stays when something new comes.
        if let (Some(_), Some(number)) = (self.details, self.pane().selected()) {
            self.pane().select(number);
        }
    }

    /// Another event's details begin at their beginning.
    pub fn rewind_details(&mut self) {
        self.details = self.details.map(|_| 0);
    }

    /// Selects the next event that is linked with the selected one, whichever list it is in. Whether there is one.
    pub fn follow_link(&mut self) -> bool {
        let Some(from) = self.selected() else { return false };
        let number = from.number;
        let linked = |entry: &&Entry| entry.number != number && are_linked(&from.event, &entry.event);
        let shown = |entry: &&Entry| self.panes.iter().any(|pane| pane.takes(entry)) && self.admits(entry);
        let mut all = self.history.iter().filter(linked).filter(shown).map(|entry| entry.number);
        // After the last comes the first again.
        let first = all.next();
        let next = first.into_iter().chain(all).find(|other| *other > number).or(first);
        next.is_some_and(|next| self.go_to(next))
    }

    /// What is shown, in its order: list by list.
    pub fn shown(&self) -> impl Iterator<Item = &Entry> {
        self.panes.iter().flat_map(Pane::numbers).filter_map(|number| self.history.get(number))
    }

    fn go_to(&mut self, number: u64) -> bool {
        // In order of severity a list must know its events before it finds one.
        let Some(entry) = self.history.get(number) else { return false };
        let Some(at) = self.panes.iter().position(|pane| pane.takes(entry)) else { return false };
        self.panes[at].refresh();
        self.panes[at].select(number);
        self.set_focus(at);
        self.rewind_details();
        true
    }

    fn admits(&self, entry: &Entry) -> bool {
        self.filter.is_empty() || self.filter.admits(entry, || self.words.borrow_mut().of(entry))
    }

    fn refill(&mut self) {
        self.panes.iter_mut().for_each(Pane::clear);
        for entry in self.history.iter() {
            if self.filter.is_empty() || self.filter.admits(entry, || self.words.borrow_mut().of(entry)) {
                self.panes.iter_mut().filter(|pane| pane.takes(entry)).for_each(|pane| pane.push(entry));
            }
        }
    }
}

/// Whether two events tell of one thing: the beginning and the end of one request, what came of a request, or what one process
/// did.
fn are_linked(one: &Event, other: &Event) -> bool {
    let request = |event: &Event| match &event.what {
        What::Api { api } => Some(api.request_id.clone()).filter(|id| !id.is_empty()),
        _ => event.cause.as_ref().map(|cause| cause.request_id.clone()),
    };
    let is_request = |event: &Event| matches!(event.what, What::Api { .. });
    let process = |event: &Event| (event.process.pid, event.process.start_boot_ns, event.node.name.clone());
    let same_request = request(one).is_some_and(|id| request(other) == Some(id));
    same_request || !is_request(one) && !is_request(other) && process(one) == process(other)
}

#[cfg(test)]
mod tests;

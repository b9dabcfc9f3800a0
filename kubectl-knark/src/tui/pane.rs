//! A list of events: which of them are in it, in which order, and which one is selected.

use std::collections::VecDeque;

use knark_specs::policy::Severity;

use super::history::Entry;

/// Which events a pane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All of them.
    Timeline,
    /// Requests to the Kubernetes API.
    Requests,
    /// What processes did on nodes.
    Nodes,
}

/// In which order they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// As they came, which is by time as far as the pipeline can tell; the newest is at the end.
    #[default]
    Time,
    /// By the severity of the rules that they match, the most severe first; of equals, the newest first.
    Severity,
}

/// A list and its selection.
#[derive(Debug)]
pub struct Pane {
    /// Which events it is for.
    pub kind: Kind,
    order: Order,
    /// Numbers of its events in order of arrival.
    arrived: VecDeque<(u64, Option<Severity>)>,
    /// Numbers by severity, where that is the order; brought up to date by [`Self::settle`].
    ranked: Vec<u64>,
    is_stale: bool,
    /// The number of the selected event; `None`: whichever comes to stand where the news are.
    selected: Option<u64>,
    /// On which line of the pane the selected one is.
    line: usize,
    /// How many lines there are for events.
    height: usize,
}

impl Pane {
    /// An empty one.
    pub fn new(kind: Kind, order: Order) -> Self {
        Self {
            kind,
            order,
            arrived: VecDeque::new(),
            ranked: Vec::new(),
            is_stale: true,
            selected: None,
            line: usize::MAX,
            height: 1,
        }
    }

    /// Whether such an event belongs here.
    pub fn takes(&self, entry: &Entry) -> bool {
        match self.kind {
            Kind::Timeline => true,
            Kind::Requests => entry.is_request(),
            Kind::Nodes => !entry.is_request(),
        }
    }

    /// Adds the newest event.
    pub fn push(&mut self, entry: &Entry) {
        self.arrived.push_back((entry.number, entry.severity()));
        self.is_stale = true;
    }

    /// Forgets events older than this one.
    pub fn forget_before(&mut self, number: u64) {
        let gone = self.arrived.partition_point(|(old, _)| *old < number);
        if gone > 0 {
            self.arrived.drain(..gone);
            self.is_stale = true;
        }
    }

    /// Empties it; the selection stays for what comes back.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.is_stale = true;
    }

    /// Changes the order. The selected event stays selected.
    pub fn sort(&mut self, order: Order) {
        self.order = order;
        self.is_stale = true;
    }

    /// Makes what has changed good for looking at, with so many lines.
    pub fn settle(&mut self, height: usize) {
        self.height = height.max(1);
        self.refresh();
        // An event that was selected and is not here any more leaves the selection to its neighbour.
        if let Some(number) = self.selected
            && self.find(number).is_none()
        {
            let at = self.arrived.partition_point(|(arrived, _)| *arrived < number);
            self.selected = self.arrived.get(at).map(|(number, _)| *number);
        }
        self.line = self.position().saturating_sub(self.top());
    }

    /// Puts the events in order, where their order is not that of arrival.
    pub fn refresh(&mut self) {
        if std::mem::take(&mut self.is_stale) && self.order == Order::Severity {
            let mut ranked: Vec<_> = self.arrived.iter().copied().collect();
            ranked.sort_unstable_by_key(|(number, severity)| std::cmp::Reverse((*severity, *number)));
            self.ranked = ranked.into_iter().map(|(number, _)| number).collect();
        }
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.arrived.len()
    }

    /// The number of the event at this place of the order.
    pub fn at(&self, place: usize) -> Option<u64> {
        match self.order {
            Order::Time => self.arrived.get(place).map(|(number, _)| *number),
            Order::Severity => self.ranked.get(place).copied(),
        }
    }

    /// The place of this event in the order.
    pub fn find(&self, number: u64) -> Option<usize> {
        match self.order {
            Order::Time => self.arrived.binary_search_by_key(&number, |(number, _)| *number).ok(),
            Order::Severity => self.ranked.iter().position(|ranked| *ranked == number),
        }
    }

    /// All numbers in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        (0..self.len()).filter_map(|place| self.at(place))
    }

    /// The number of the selected event.
    pub fn selected(&self) -> Option<u64> {
        self.selected.or_else(|| self.at(self.news()))
    }

    /// Whether the selection stays where the news are.
    pub fn follows(&self) -> bool {
        self.selected.is_none()
    }

    /// The place of the selected event.
    pub fn position(&self) -> usize {
        self.selected.and_then(|number| self.find(number)).unwrap_or_else(|| self.news())
    }

    /// The place of the first event that is on the screen.
    pub fn top(&self) -> usize {
        let line = self.line.min(self.height.saturating_sub(1));
        self.position().saturating_sub(line).min(self.len().saturating_sub(self.height))
    }

    /// Selects the event so many places further down.
    pub fn step(&mut self, by: isize) {
        let from = self.position();
        let to = from.saturating_add_signed(by).min(self.len().saturating_sub(1));
        self.line = if to < from { self.line.saturating_sub(from - to) } else { self.line.saturating_add(to - from) };
        let ahead = if self.order == Order::Time { by > 0 } else { by < 0 };
        self.selected = if ahead && to == self.news() { None } else { self.at(to) };
    }

    /// How far a page is.
    pub fn page(&self) -> isize {
        isize::try_from(self.height.saturating_sub(1).max(1)).unwrap_or(isize::MAX)
    }

    /// Selects this event.
    pub fn select(&mut self, number: u64) {
        if let Some(place) = self.find(number) {
            let top = self.top();
            // Where it is on the screen already, nothing moves.
            self.line = if (top..top + self.height).contains(&place) { place - top } else { self.height / 2 };
            self.selected = Some(number);
        }
    }

    /// Selects what is on this line.
    pub fn select_line(&mut self, line: usize) {
        if let Some(number) = self.at(self.top() + line) {
            self.select(number);
        }
    }

    /// The place where the news are.
    fn news(&self) -> usize {
        match self.order {
            Order::Time => self.len().saturating_sub(1),
            Order::Severity => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pipeline::tests::event, tui::tests::matched};

    fn entry(number: u64, severity: Option<Severity>) -> Entry {
        let matches = severity.map(|severity| matched("r", severity)).into_iter().collect();
        Entry { number, event: event(number), matches }
    }

    fn pane(order: Order, severities: &[Option<Severity>]) -> Pane {
        let mut pane = Pane::new(Kind::Timeline, order);
        for (number, severity) in severities.iter().enumerate() {
            pane.push(&entry(number as u64, *severity));
        }
        pane.settle(3);
        pane
    }

    #[test]
    fn the_newest_is_followed_until_another_is_selected() {
        let mut pane = pane(Order::Time, &[None; 10]);
        assert_eq!((pane.selected(), pane.top()), (Some(9), 7));
        pane.step(-1);
        pane.push(&entry(10, None));
        pane.settle(3);
        assert_eq!((pane.selected(), pane.top(), pane.follows()), (Some(8), 7, false), "nothing moves on the screen");
        pane.step(99);
        pane.push(&entry(11, None));
        pane.settle(3);
        assert_eq!((pane.selected(), pane.top(), pane.follows()), (Some(11), 9, true));
    }

    #[test]
    fn what_is_gone_leaves_the_selection_to_its_neighbour() {
        let mut pane = pane(Order::Time, &[None; 10]);
        pane.step(-99);
        assert_eq!((pane.selected(), pane.top()), (Some(0), 0));
        pane.forget_before(4);
        pane.settle(3);
        assert_eq!((pane.selected(), pane.top(), pane.len()), (Some(4), 0, 6));
        pane.forget_before(99);
        pane.settle(3);
        assert_eq!((pane.selected(), pane.top(), pane.len()), (None, 0, 0));
        pane.step(5);
        pane.step(-5);
        assert_eq!(pane.selected(), None);
    }

    #[test]
    fn the_most_severe_is_first_and_then_the_newest() {
        use Severity::{High, Low};
        let mut pane = pane(Order::Severity, &[Some(Low), None, Some(High), Some(Low), Some(High)]);
        assert_eq!(pane.numbers().collect::<Vec<_>>(), [4, 2, 3, 0, 1]);
        assert_eq!((pane.selected(), pane.top()), (Some(4), 0));
        pane.step(1);
        pane.push(&entry(5, Some(High)));
        pane.settle(3);
        assert_eq!((pane.selected(), pane.position(), pane.top()), (Some(2), 2, 1), "its line stays");
        pane.sort(Order::Time);
        pane.settle(3);
        assert_eq!((pane.selected(), pane.position()), (Some(2), 2));
    }

    #[test]
    fn lines_select() {
        let mut pane = pane(Order::Time, &[None; 10]);
        pane.select_line(1);
        assert_eq!((pane.selected(), pane.top()), (Some(8), 7));
        pane.select_line(7);
        assert_eq!(pane.selected(), Some(8), "there is nothing on that line");
        pane.select(2);
        pane.settle(3);
        assert_eq!((pane.selected(), pane.top()), (Some(2), 1));
    }
}

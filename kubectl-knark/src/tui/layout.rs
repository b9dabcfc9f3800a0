//! Where on the screen everything is: for drawing, and to know what the mouse points at.

use ratatui::layout::{Constraint, Layout, Rect};

/// Details stand beside the lists from this width on, else below them.
const BESIDE: u16 = 140;
/// With fewer lines than this, details take the place of the lists.
const BELOW: u16 = 14;
/// A pane has a line for the names of its columns from this height on.
const HEADED: u16 = 5;

/// The parts of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The line at the top that says how the trace is doing.
    pub status: Rect,
    /// The lists, each with its title; empty where the details need all the room.
    pub panes: Vec<Rect>,
    /// The selected event's details, with their title.
    pub details: Option<Rect>,
    /// The line with the last warning.
    pub notice: Option<Rect>,
    /// The line at the bottom: keys, or what is typed.
    pub footer: Rect,
}

impl Places {
    /// Divides the screen among so many lists, and details and a warning if there are.
    pub fn of(screen: Rect, panes: u16, details: bool, notice: bool) -> Self {
        let lines = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(u16::from(notice)), Constraint::Length(1)];
        let [status, body, notice_line, footer] = Layout::vertical(lines).areas(screen);
        let (lists, details) = match () {
            () if !details => (body, None),
            () if body.width >= BESIDE => {
                let [lists, details] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).spacing(1).areas(body);
                (lists, Some(details))
            }
            () if body.height >= BELOW => {
                let [lists, details] = Layout::vertical([Constraint::Fill(1); 2]).areas(body);
                (lists, Some(details))
            }
            () => (Rect { height: 0, ..body }, Some(body)),
        };
        let parts = (0..panes).map(|_| Constraint::Fill(1));
        let side_by_side = lists.width >= 150;
        let panes = if side_by_side { Layout::horizontal(parts).spacing(1) } else { Layout::vertical(parts) };
        Self { status, panes: panes.split(lists).to_vec(), details, notice: notice.then_some(notice_line), footer }
    }

    /// The list at this point, and the line of an event in it if there is one.
    pub fn pane_at(&self, column: u16, row: u16) -> Option<(usize, Option<usize>)> {
        let at = self.panes.iter().position(|pane| pane.contains((column, row).into()))?;
        let events = events(self.panes[at]);
        Some((at, row.checked_sub(events.y).map(usize::from)))
    }

    /// Whether the details are at this point.
    pub fn has_details_at(&self, column: u16, row: u16) -> bool {
        self.details.is_some_and(|details| details.contains((column, row).into()))
    }
}

/// The lines of a list that are for events.
pub fn events(pane: Rect) -> Rect {
    let taken = (1 + u16::from(pane.height >= HEADED)).min(pane.height);
    Rect { y: pane.y + taken, height: pane.height - taken, ..pane }
}

/// The line of a list that names its columns.
pub fn header(pane: Rect) -> Option<Rect> {
    (pane.height >= HEADED).then_some(Rect { y: pane.y + 1, height: 1, ..pane })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_leaves_the_screen_or_overlaps_another() {
        for (width, height) in [(80, 24), (40, 10), (200, 60), (1, 1), (0, 0), (500, 2), (3, 200)] {
            let screen = Rect::new(0, 0, width, height);
            for (panes, details, notice) in [(1, false, false), (2, true, true), (1, true, false), (2, false, true)] {
                let places = Places::of(screen, panes, details, notice);
                assert_eq!(places.panes.len(), usize::from(panes));
                let mut all = places.panes.clone();
                all.extend([places.status, places.footer].into_iter().chain(places.details).chain(places.notice));
                all.retain(|place| !place.is_empty());
                for (at, place) in all.iter().enumerate() {
                    assert_eq!(screen.intersection(*place), *place);
                    assert!(all[..at].iter().all(|other| !other.intersects(*place)), "{all:?}");
                }
                for pane in places.panes {
                    assert_eq!(pane.intersection(events(pane)).height, events(pane).height);
                }
            }
        }
    }

    #[test]
    fn points_find_what_is_there() {
        let places = Places::of(Rect::new(0, 0, 80, 24), 2, true, false);
        assert_eq!(places.pane_at(5, 0), None);
        assert_eq!(places.pane_at(5, 1), Some((0, None)));
        assert_eq!(places.pane_at(5, 3), Some((0, Some(0))));
        let second = places.panes[1];
        assert_eq!(places.pane_at(5, second.y), Some((1, None)));
        assert_eq!(places.pane_at(5, second.y + 3), Some((1, Some(1))));
        assert!(places.has_details_at(5, 14) && !places.has_details_at(5, 23));
    }
}

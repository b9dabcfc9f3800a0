//! What the user reads on standard error while waiting: how far the nodes are, and warnings.

use std::{collections::BTreeMap, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{render::escape, tui::Board};

/// A line that is there until the first event, and only on a terminal. A dashboard has a place of its own for it.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    board: Option<Board>,
    /// Each node's name, and what it does; `None` once it streams.
    nodes: BTreeMap<u32, (String, Option<String>)>,
}

impl Progress {
    /// A line that doesn't show yet.
    pub fn new(board: Option<Board>) -> Self {
        let bar = if board.is_some() { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, board, nodes: BTreeMap::new() }
    }

    /// What a node does; `None`: it streams, or is gone.
    pub fn set(&mut self, node: u32, name: &str, phase: Option<&str>) {
        let entry = self.nodes.entry(node).or_default();
        *entry = (escape::cell(name).into_owned(), phase.map(|phase| escape::cell(phase).into_owned()));
        let text = self.text();
        if self.board.is_some() {
            // It asks.
        } else if text.is_empty() {
            self.clear();
        } else {
            self.bar.enable_steady_tick(Duration::from_millis(120));
            self.bar.set_message(text);
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Something that the user should know although things go on.
    pub fn warn(&self, text: &str) {
        self.say(&format!("warning: {}", escape::lines(text)));
    }

    /// Something that the user may want to know.
    pub fn note(&self, text: &str) {
        self.say(&format!("note: {}", escape::lines(text)));
    }

    /// Something that failed.
    pub fn fail(&self, text: &str) {
        self.say(&format!("error: {}", escape::lines(text)));
    }

    fn say(&self, text: &str) {
        if self.board.as_ref().is_some_and(|board| board.say(text)) {
            return;
        }
        self.bar.suspend(|| crate::exit::say(&format!("{text}\n")));
    }

    /// Who is waited for; empty: nobody.
    pub fn text(&self) -> String {
        let ready = self.nodes.values().filter(|(_, phase)| phase.is_none()).count();
        let busy: Vec<_> = self.nodes.values().filter_map(|(name, phase)| Some(format!("{name} {}", phase.as_ref()?))).collect();
        if busy.is_empty() {
            return String::new();
        }
        // In local mode the only node has no name.
        if let [only] = busy.as_slice()
            && let Some(phase) = only.strip_prefix(' ')
        {
            return phase.to_owned();
        }
        format!("{ready}/{} nodes ready: {}", self.nodes.len(), busy.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_who_is_waited_for() {
        let mut progress = Progress::new(None);
        progress.set(0, "knark-1", Some("pulling the image"));
        progress.set(1, "knark-2", None);
        assert_eq!(progress.text(), "1/2 nodes ready: knark-1 pulling the image");
        progress.set(0, "knark-1", None);
        assert_eq!(progress.text(), "");
        progress.set(0, "", Some("attaching probes"));
        assert_eq!(progress.text(), "attaching probes");
        progress.set(0, "", None);
        assert_eq!(progress.text(), "");
    }
}

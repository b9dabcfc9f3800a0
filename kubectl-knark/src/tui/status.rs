//! The line at the top: how the trace is doing, what is lost, what waits.

use std::time::Duration;

use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::model::Model;
use crate::render::{escape::cell, shorten};

/// As much as there is room for, the most important first.
pub fn line(model: &Model, width: usize) -> Line<'static> {
    let sums = &model.status.sums;
    let mut line = Pieces { spans: Vec::new(), room: width, colour: model.manner.colour };
    let (state, colour) = match () {
        () if model.over && model.manner.live => ("ended", Color::Yellow),
        () if model.leaving => ("ending", Color::Yellow),
        () if model.over => ("recording", Color::Cyan),
        () if !model.manner.live => ("reading", Color::Cyan),
        () if !model.status.waiting.is_empty() => ("waiting", Color::Yellow),
        () => ("live", Color::Green),
    };
    line.add(state, Some(colour));
    let incomplete = model.over && sums.nodes.iter().any(|node| node.incomplete);
    let lost = format!("{} lost{}", sums.lost, if incomplete { ", incomplete" } else { "" });
    line.add(&lost, (sums.lost > 0 || incomplete).then_some(Color::Red));
    if model.paused {
        line.add(&format!("paused: {} wait", model.waiting.0), Some(Color::Yellow));
    }
    let dropped = model.history.dropped.saturating_add(model.waiting.1);
    if dropped > 0 {
        line.add(&format!("{dropped} oldest dropped from view"), Some(Color::Yellow));
    }
    if !model.status.waiting.is_empty() && !model.over {
        line.add(&cell(&model.status.waiting), Some(Color::Yellow));
    }
    line.add(&format!("{} {}", sums.shown, if sums.shown == 1 { "event" } else { "events" }), None);
    if sums.aggregated > 0 {
        line.add(&format!("{} more in their counts", sums.aggregated), None);
    }
    for (severity, n) in sums.matches.iter().flatten().rev() {
        line.add(&format!("{n} {}", severity.name()), None);
    }
    if sums.filtered > 0 {
        line.add(&format!("{} filtered", sums.filtered), None);
    }
    match sums.nodes.as_slice() {
        [] => {}
        [node] => line.add(&format!("on {}", cell(&node.node)), None),
        nodes => line.add(&format!("on {} nodes", nodes.len()), None),
    }
    let seconds = Duration::try_from_secs_f64(sums.seconds).unwrap_or_default().as_secs();
    line.add(&format!("{}", humantime::format_duration(Duration::from_secs(seconds))), None);
    Line::from(line.spans)
}

struct Pieces {
    spans: Vec<Span<'static>>,
    room: usize,
    colour: bool,
}

impl Pieces {
    /// Adds a piece if there is room; the first is shortened rather than left out. One in a colour matters more.
    fn add(&mut self, text: &str, colour: Option<Color>) {
        let gap = if self.spans.is_empty() { "" } else { " · " };
        let Some(room) = self.room.checked_sub(shorten::width(gap)).filter(|room| *room > 0) else { return };
        let text = if colour.is_some() { shorten::end(text, room) } else { text.into() };
        let width = shorten::width(&text);
        if width > room {
            return;
        }
        self.room = room - width;
        let style = match colour {
            Some(colour) if self.colour => Style::new().fg(colour).add_modifier(Modifier::BOLD),
            Some(_) => Style::new().add_modifier(Modifier::BOLD),
            None => Style::new(),
        };
        self.spans.push(Span::raw(gap));
        self.spans.push(Span::styled(text.into_owned(), style));
    }
}

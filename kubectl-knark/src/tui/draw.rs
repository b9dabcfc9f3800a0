//! The model on the screen.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Position, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Padding, Widget as _},
};

use super::{
    details,
    input::KEYS,
    layout::{self, Places},
    line,
    model::{Mode, Model},
    pane::{Kind, Order},
    rows::Rows,
    status,
};
use crate::render::{escape::cell, shorten};

/// What the footer offers, the most useful first.
const HINTS: [&str; 9] =
    ["? help", "q quit", "/ filter", "Enter details", "v view", "o order", "Space pause", "w write", "l linked"];

/// Draws all of it, and says where everything is.
pub fn draw(model: &mut Model, frame: &mut Frame<'_>) -> Places {
    let screen = frame.area();
    let count = u16::try_from(model.panes.len()).unwrap_or(u16::MAX);
    let places = Places::of(screen, count, model.details.is_some(), model.unread > 0);
    for (pane, place) in model.panes.iter_mut().zip(&places.panes) {
        pane.settle(layout::events(*place).height.into());
    }
    let buffer = frame.buffer_mut();
    put(buffer, places.status, &status::line(model, places.status.width.into()));
    for at in 0..model.panes.len() {
        draw_pane(model, at, places.panes[at], buffer);
    }
    if let Some(place) = places.details {
        draw_details(model, place, buffer);
    }
    if let (Some(place), Some(notice)) = (places.notice, model.notices.back()) {
        let more = if model.unread > 1 { format!(" (+{}, m)", model.unread - 1) } else { " (m)".to_owned() };
        let room = usize::from(place.width).saturating_sub(more.len());
        let text = format!("{}{more}", shorten::end(&cell(notice), room));
        put(buffer, place, &Line::styled(text, coloured(model, Color::Yellow)));
    }
    let body = Rect { y: places.status.bottom(), height: places.footer.y.saturating_sub(places.status.bottom()), ..screen };
    match model.mode {
        Mode::Help(scroll) => {
            let lines: Vec<_> = KEYS.iter().map(|(keys, what)| Line::from(format!("{keys:12} {what}"))).collect();
            let top = draw_overlay("keys", &lines, scroll, body, buffer);
            model.mode = Mode::Help(top);
        }
        Mode::Notices(scroll) => {
            let mut lines = Vec::new();
            for notice in &model.notices {
                details::wrap(&cell(notice), "  ", usize::from(body.width).saturating_sub(4), Style::new(), &mut lines);
            }
            let top = draw_overlay("messages", &lines, scroll, body, buffer);
            model.mode = Mode::Notices(top);
        }
        Mode::Browse | Mode::Filter { .. } | Mode::Save(_) => {}
    }
    if let Some(cursor) = draw_footer(model, places.footer, buffer) {
        frame.set_cursor_position(cursor);
    }
    places
}

fn draw_pane(model: &mut Model, at: usize, place: Rect, buffer: &mut Buffer) {
    if place.is_empty() {
        return;
    }
    let (pane, focused) = (&model.panes[at], at == model.focus && !model.in_details);
    let name = match pane.kind {
        Kind::Timeline => "timeline",
        Kind::Requests => "requests",
        Kind::Nodes => "nodes",
    };
    let place_in_list = if pane.len() == 0 { 0 } else { pane.position() + 1 };
    let mut title = format!("{name} {place_in_list}/{}", pane.len());
    if model.order == Order::Severity {
        title += " by severity";
    }
    if !model.filter_line.text().trim().is_empty() {
        title = format!("{title} · /{}", model.filter_line.text());
    }
    draw_title(&title, focused, Rect { height: 1, ..place }, buffer);
    let mut rows = Rows::new(pane.kind, place.width.into(), &model.setting, &model.manner);
    if let Some(header) = layout::header(place) {
        put(buffer, header, rows.header());
    }
    let events = layout::events(place);
    let selected = pane.selected();
    for (row, place_in_list) in events.rows().zip(pane.top()..) {
        let Some(entry) = pane.at(place_in_list).and_then(|number| model.history.get(number)) else { break };
        put(buffer, row, &rows.line(entry));
        if selected == Some(entry.number) {
            let style = if focused { Modifier::REVERSED } else { Modifier::BOLD };
            buffer.set_style(row, style);
        }
    }
}

fn draw_details(model: &mut Model, place: Rect, buffer: &mut Buffer) {
    let lines = match model.selected() {
        Some(entry) => details::lines(entry, place.width.into(), model.manner.colour),
        None => vec![Line::from("no event is selected")],
    };
    let room = usize::from(place.height.saturating_sub(1));
    let top = model.details.unwrap_or(0).min(lines.len().saturating_sub(room));
    model.details = Some(top);
    let end = (top + room).min(lines.len());
    draw_title(&format!("details {}-{end}/{}", top + 1, lines.len()), model.in_details, Rect { height: 1, ..place }, buffer);
    for (row, line) in place.rows().skip(1).zip(lines.iter().skip(top)) {
        put(buffer, row, line);
    }
}

/// A box in the middle, scrolled down by so many lines, or as many as there are to scroll: those it returns.
fn draw_overlay(title: &str, lines: &[Line<'_>], scroll: usize, body: Rect, buffer: &mut Buffer) -> usize {
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(body.height);
    let widest = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).max(20).min(body.width);
    let place = Rect { x: body.x + (body.width - width) / 2, y: body.y + (body.height - height) / 2, width, height };
    let frame = Block::bordered().padding(Padding::horizontal(1));
    let inner = frame.inner(place);
    let room = usize::from(inner.height);
    let top = scroll.min(lines.len().saturating_sub(room));
    let title = if room < lines.len() {
        format!(" {title} {}-{} of {} ", top + 1, top + room, lines.len())
    } else {
        format!(" {title} ")
    };
    Clear.render(place, buffer);
    frame.title(title).render(place, buffer);
    for (row, line) in inner.rows().zip(lines.iter().skip(top)) {
        put(buffer, row, line);
    }
    top
}

fn draw_title(title: &str, focused: bool, place: Rect, buffer: &mut Buffer) {
    if place.is_empty() {
        return;
    }
    let (rule, style) = if focused { ("━", Modifier::BOLD) } else { ("─", Modifier::DIM) };
    let room = usize::from(place.width);
    let title = format!("{rule} {} ", shorten::end(&cell(title), room.saturating_sub(3)));
    let rest = rule.repeat(room.saturating_sub(shorten::width(&title)));
    put(buffer, place, &Line::styled(title + &rest, Style::new().add_modifier(style)));
}

fn draw_footer(model: &Model, place: Rect, buffer: &mut Buffer) -> Option<Position> {
    let typed = |what: &str, typed: &line::Line, buffer: &mut Buffer| {
        let room = usize::from(place.width).saturating_sub(shorten::width(what) + 1);
        // The end of what stands before the cursor is what is being typed.
        let (before, after) = (cell(typed.before()).into_owned(), cell(&typed.text()[typed.before().len()..]).into_owned());
        let before = shorten::last(&before, room);
        let at = shorten::width(what) + shorten::width(before);
        put(buffer, place, &Line::from(vec![Span::raw(what.to_owned()), Span::raw(before.to_owned()), Span::raw(after)]));
        Some(Position { x: place.x + u16::try_from(at).unwrap_or(u16::MAX).min(place.width.saturating_sub(1)), y: place.y })
    };
    match &model.mode {
        Mode::Filter { .. } => return typed("/", &model.filter_line, buffer),
        Mode::Save(name) => return typed("write what is shown to the new file: ", name, buffer),
        Mode::Browse | Mode::Help(_) | Mode::Notices(_) => {}
    }
    let line = if let Some(answer) = &model.answer {
        Line::styled(cell(answer).into_owned(), Modifier::BOLD)
    } else {
        let mut text = String::new();
        for hint in HINTS {
            if shorten::width(&text) + hint.len() <= usize::from(place.width) {
                text += hint;
                text += "  ";
            }
        }
        Line::styled(text, Modifier::DIM)
    };
    put(buffer, place, &line);
    None
}

/// The text is harmless already.
fn put(buffer: &mut Buffer, place: Rect, line: &Line<'_>) {
    if !place.is_empty() {
        buffer.set_line(place.x, place.y, line, place.width);
    }
}

fn coloured(model: &Model, colour: Color) -> Style {
    if model.manner.colour { Style::new().fg(colour) } else { Style::new().add_modifier(Modifier::BOLD) }
}

#[cfg(test)]
mod tests;

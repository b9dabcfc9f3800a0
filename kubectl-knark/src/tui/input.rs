//! What keys and the mouse do. Pure: what needs a clock, a file or a signal is handed back as a command.

use ratatui::crossterm::event::{
    Event, KeyCode as Code, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::{
    layout::Places,
    line::Line,
    model::{Mode, Model},
};

/// How many lines one turn of the wheel is.
const WHEEL: isize = 3;

/// What the model can't do itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// End the trace, or leave if it has ended.
    Quit,
    /// Ask for the name of a file to save to; propose one.
    AskName,
    /// Save what is shown to this new file.
    Save(String),
}

/// The keys by what they do, as help shows them.
pub const KEYS: [(&str, &str); 18] = [
    ("↑ ↓ j k", "one event up, down"),
    ("PgUp PgDn", "one page up, down"),
    ("Home End g G", "first, last; at the newest it follows"),
    ("Enter", "details of the event, or no longer"),
    ("Tab", "next pane, or the details, to move in"),
    ("v", "one timeline, or requests beside node events"),
    ("o", "order: by time, or by severity"),
    ("/", "filter as you type"),
    ("", "word: anywhere; !word: nowhere; all must hold"),
    ("", "ns: pod: container: node: comm: pid: uid: op:"),
    ("", "user: verb: resource: code: rule: sev: (or worse)"),
    ("Esc", "back; then no filter any more"),
    ("l", "next event of the same request or process"),
    ("Space p", "pause: new events wait"),
    ("w", "write what is shown to a new file, as JSON lines"),
    ("m", "messages: warnings and errors"),
    ("mouse", "click selects, the wheel moves"),
    ("q Ctrl-C", "end the trace and leave"),
];

/// Does what was asked for.
pub fn handle(model: &mut Model, event: &Event, places: &Places) -> Option<Command> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => {
            model.answer = None;
            press(model, *key)
        }
        Event::Mouse(mouse) => {
            point(model, *mouse, places);
            None
        }
        Event::Paste(text) => {
            if let Some(line) = typed(model) {
                text.chars().for_each(|c| line.insert(c));
            }
            None
        }
        _ => None,
    }
}

fn press(model: &mut Model, key: KeyEvent) -> Option<Command> {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == Code::Char('c') {
        return Some(Command::Quit);
    }
    let held = key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    match &mut model.mode {
        // Other letters with Ctrl or Alt mean nothing here.
        Mode::Browse if held && matches!(key.code, Code::Char(_)) => None,
        Mode::Browse => browse(model, key),
        Mode::Filter { before } => {
            match key.code {
                Code::Esc => {
                    model.filter_line = Line::of(std::mem::take(before));
                    model.mode = Mode::Browse;
                }
                Code::Enter => model.mode = Mode::Browse,
                Code::Up | Code::Down | Code::PageUp | Code::PageDown => return browse(model, key),
                _ => {
                    // Many keys may come together: it applies after the last.
                    edit(&mut model.filter_line, key);
                    return None;
                }
            }
            model.refilter();
            None
        }
        Mode::Save(name) => {
            match key.code {
                Code::Enter => {
                    let name = name.text().to_owned();
                    model.mode = Mode::Browse;
                    return (!name.is_empty()).then_some(Command::Save(name));
                }
                Code::Esc => model.mode = Mode::Browse,
                _ => edit(name, key),
            }
            None
        }
        Mode::Help(scroll) | Mode::Notices(scroll) => {
            match key.code {
                Code::Up | Code::Char('k') => *scroll = scroll.saturating_sub(1),
                Code::Down | Code::Char('j') => *scroll = scroll.saturating_add(1),
                Code::PageUp => *scroll = scroll.saturating_sub(10),
                Code::PageDown | Code::Char(' ') => *scroll = scroll.saturating_add(10),
                Code::Home | Code::Char('g') => *scroll = 0,
                Code::End | Code::Char('G') => *scroll = usize::MAX,
                _ => model.mode = Mode::Browse,
            }
            None
        }
    }
}

fn browse(model: &mut Model, key: KeyEvent) -> Option<Command> {
    let page = model.pane().page();
    match key.code {
        Code::Up | Code::Char('k') => step(model, -1),
        Code::Down | Code::Char('j') => step(model, 1),
        Code::PageUp => step(model, -page),
        Code::PageDown => step(model, page),
        Code::Home | Code::Char('g') => step(model, isize::MIN + 1),
        Code::End | Code::Char('G') => step(model, isize::MAX),
        Code::Enter => model.switch_details(),
        Code::Tab => model.switch_focus(false),
        Code::BackTab => model.switch_focus(true),
        Code::Char('v') => model.switch_view(),
        Code::Char('o') => model.switch_order(),
        Code::Char('/') => model.mode = Mode::Filter { before: model.filter_line.text().to_owned() },
        Code::Esc if model.details.is_some() => model.switch_details(),
        Code::Esc => {
            model.filter_line = Line::default();
            model.refilter();
        }
        Code::Char('l') => {
            let found = model.follow_link();
            model.answer = (!found).then(|| "nothing else that is shown is of the same request or process".to_owned());
        }
        Code::Char(' ' | 'p') => model.paused = !model.paused,
        Code::Char('w') => return Some(Command::AskName),
        Code::Char('m') => {
            model.unread = 0;
            model.mode = Mode::Notices(usize::MAX);
        }
        Code::Char('?' | 'h') | Code::F(1) => model.mode = Mode::Help(0),
        Code::Char('q') => return Some(Command::Quit),
        _ => {}
    }
    None
}

fn step(model: &mut Model, by: isize) {
    match &mut model.details {
        Some(scroll) if model.in_details => *scroll = scroll.saturating_add_signed(by),
        _ => {
            model.pane().step(by);
            model.rewind_details();
        }
    }
}

fn typed(model: &mut Model) -> Option<&mut Line> {
    match &mut model.mode {
        Mode::Filter { .. } => Some(&mut model.filter_line),
        Mode::Save(name) => Some(name),
        _ => None,
    }
}

fn edit(line: &mut Line, key: KeyEvent) {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        Code::Char('a') if control => line.home(),
        Code::Char('e') if control => line.end(),
        Code::Char('u') if control => line.erase_all(),
        Code::Char('w') if control => line.erase_word(),
        Code::Char(c) if !control && !key.modifiers.contains(KeyModifiers::ALT) => line.insert(c),
        Code::Backspace => line.erase(),
        Code::Delete => line.delete(),
        Code::Left => line.left(),
        Code::Right => line.right(),
        Code::Home => line.home(),
        Code::End => line.end(),
        _ => {}
    }
}

fn point(model: &mut Model, mouse: MouseEvent, places: &Places) {
    let wheel = match mouse.kind {
        MouseEventKind::ScrollUp => -WHEEL,
        MouseEventKind::ScrollDown => WHEEL,
        MouseEventKind::Down(MouseButton::Left) => 0,
        _ => return,
    };
    match &mut model.mode {
        Mode::Help(scroll) | Mode::Notices(scroll) => return *scroll = scroll.saturating_add_signed(wheel),
        _ => {}
    }
    if places.has_details_at(mouse.column, mouse.row) {
        model.in_details = true;
        step(model, wheel);
    } else if let Some((pane, line)) = places.pane_at(mouse.column, mouse.row)
        && pane < model.panes.len()
    {
        model.set_focus(pane);
        match line {
            _ if wheel != 0 => step(model, wheel),
            Some(line) => {
                model.pane().select_line(line);
                model.rewind_details();
            }
            None => {}
        }
    }
}

use knark_specs::policy::Severity;
use ratatui::{
    crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    layout::Rect,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    render::Render as _,
    tui::{
        board::Board,
        input::{Command, handle},
        layout::Places,
        tests::{entry, matched},
    },
};

fn exec(comm: &str, pid: u32) -> Value {
    json!({"process": {"comm": comm, "pid": pid, "args": [comm]}, "exec": {}})
}

fn request(verb: &str, id: &str) -> Value {
    json!({"api": {"verb": verb, "resource": "pods", "request_id": id, "user": {"name": "alice"}}})
}

/// A model that has taken these in.
fn model(events: impl IntoIterator<Item = (Value, Option<Severity>)>) -> Model {
    let mut model = Model::new(Manner { live: true, ..Manner::default() });
    let mut board = Board::default();
    for (event, severity) in events {
        let entry = entry(0, event);
        let matches: Vec<_> = severity.map(|severity| matched("r", severity)).into_iter().collect();
        board.event(&entry.event, &matches, &mut Vec::new()).unwrap();
    }
    let (news, waiting) = board.look(true);
    model.take(news, waiting);
    settle(&mut model);
    model
}

fn settle(model: &mut Model) {
    model.panes.iter_mut().for_each(|pane| pane.settle(5));
}

fn some() -> Model {
    model([
        (exec("cat", 7), None),
        (request("watch", "r1"), None),
        (exec("sh", 8), None),
        (exec("cat", 7), None),
        (request("get", "r2"), None),
        (request("watch", "r1"), None),
    ])
}

fn places(model: &Model) -> Places {
    let panes = u16::try_from(model.panes.len()).unwrap();
    Places::of(Rect::new(0, 0, 80, 24), panes, model.details.is_some(), false)
}

fn press(model: &mut Model, keys: &str) -> Option<Command> {
    let mut last = None;
    for c in keys.chars() {
        let code = match c {
            '⏎' => KeyCode::Enter,
            '⎋' => KeyCode::Esc,
            '⇥' => KeyCode::Tab,
            '⌫' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        };
        let places = places(model);
        last = handle(model, &Input::Key(KeyEvent::new(code, KeyModifiers::NONE)), &places);
        model.refilter();
        settle(model);
    }
    last
}

fn mouse(model: &mut Model, kind: MouseEventKind, column: u16, row: u16) {
    let places = places(model);
    let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
    assert_eq!(handle(model, &Input::Mouse(event), &places), None);
    settle(model);
}

fn shown(model: &Model) -> Vec<u64> {
    model.shown().map(|entry| entry.number).collect()
}

fn selected(model: &Model) -> Option<u64> {
    model.selected().map(|entry| entry.number)
}

#[test]
fn the_filter_applies_as_it_is_typed_and_can_be_taken_back() {
    let mut model = some();
    press(&mut model, "/ca");
    assert_eq!(shown(&model), [0, 3]);
    press(&mut model, "t pid:7 verb⌫⌫⌫⌫⏎");
    assert_eq!((shown(&model), &model.mode), (vec![0, 3], &Mode::Browse));
    press(&mut model, "/ nothing");
    assert_eq!((shown(&model), selected(&model)), (vec![], None));
    press(&mut model, "⎋");
    assert_eq!((shown(&model), model.filter_line.text()), (vec![0, 3], "cat pid:7 "));
    press(&mut model, "⎋");
    assert_eq!((shown(&model).len(), model.filter_line.text()), (6, ""));
}

#[test]
fn what_comes_is_filtered_too() {
    let mut model = some();
    press(&mut model, "/verb:get⏎");
    let mut board = Board::default();
    for event in [request("get", "r9"), exec("get", 1)] {
        board.event(&entry(0, event).event, &[], &mut Vec::new()).unwrap();
    }
    let (mut news, waiting) = board.look(true);
    // As if they had come after the first.
    let mut later = History::default();
    std::mem::take(&mut news.events).into_entries().for_each(|e| later.push(Entry { number: e.number + 6, ..e }));
    news.events = later;
    assert!(model.take(news, waiting));
    assert_eq!((shown(&model), model.history.len()), (vec![4, 6], 8));
}

#[test]
fn two_lists_divide_the_events() {
    let mut model = some();
    press(&mut model, "v");
    assert_eq!(model.panes.iter().map(Pane::len).collect::<Vec<_>>(), [3, 3]);
    assert_eq!((shown(&model), selected(&model)), (vec![1, 4, 5, 0, 2, 3], Some(5)));
    press(&mut model, "⇥k");
    assert_eq!((model.focus, selected(&model)), (1, Some(2)));
    press(&mut model, "v");
    assert_eq!((model.panes.len(), selected(&model)), (1, Some(2)), "the selection stays");
    press(&mut model, "v");
    assert_eq!((model.focus, selected(&model)), (1, Some(2)));
    let mut nodes_only = self::model([(exec("cat", 7), None)]);
    press(&mut nodes_only, "v");
    assert_eq!((nodes_only.focus, selected(&nodes_only)), (1, Some(0)), "the list that has events");
}

#[test]
fn the_most_severe_can_come_first() {
    let rated = [Severity::Low, Severity::Critical, Severity::Medium, Severity::Critical];
    let mut model = model(rated.map(|severity| (exec("x", 1), Some(severity))));
    press(&mut model, "o");
    assert_eq!((shown(&model), selected(&model)), (vec![3, 1, 2, 0], Some(3)));
    press(&mut model, "jj");
    assert_eq!(selected(&model), Some(2));
    press(&mut model, "o");
    assert_eq!((shown(&model), selected(&model)), (vec![0, 1, 2, 3], Some(2)));
}

#[test]
fn links_lead_around() {
    let mut model = some();
    press(&mut model, "g");
    assert_eq!(selected(&model), Some(0));
    press(&mut model, "l");
    assert_eq!(selected(&model), Some(3), "the same process");
    press(&mut model, "l");
    assert_eq!(selected(&model), Some(0));
    press(&mut model, "jl");
    assert_eq!(selected(&model), Some(5), "the same request");
    press(&mut model, "vl");
    assert_eq!((selected(&model), model.focus), (Some(1), 0));
    press(&mut model, "jl");
    assert_eq!(selected(&model), Some(4), "there is none");
    assert!(model.answer.is_some());
    press(&mut model, "k");
    assert!(model.answer.is_none());
    press(&mut model, "v/sh⏎l");
    assert_eq!(selected(&model), Some(2), "what is filtered out is no place to go");
}

#[test]
fn a_pause_lets_events_wait_outside() {
    let mut model = some();
    let mut board = Board::default();
    press(&mut model, "p");
    assert!(model.paused);
    board.event(&entry(0, exec("late", 9)).event, &[], &mut Vec::new()).unwrap();
    let (news, waiting) = board.look(!model.paused);
    assert!(model.take(news, waiting), "how many wait is shown");
    assert_eq!((model.history.len(), model.waiting), (6, (1, 0)));
    let (news, waiting) = board.look(!model.paused);
    assert!(!model.take(news, waiting), "nothing has changed");
    press(&mut model, " ");
    let (news, waiting) = board.look(!model.paused);
    assert!(model.take(news, waiting));
    assert_eq!((model.history.len(), model.waiting), (7, (0, 0)));
}

#[test]
fn details_are_scrolled_when_they_have_the_keys() {
    let mut model = some();
    press(&mut model, "⏎⇥jjj");
    assert_eq!((model.details, model.in_details, selected(&model)), (Some(3), true, Some(5)));
    press(&mut model, "⇥k");
    assert_eq!((model.details, model.in_details, selected(&model)), (Some(0), false, Some(4)), "another's begin at the top");
    press(&mut model, "⎋");
    assert_eq!(model.details, None);
}

#[test]
fn the_mouse_selects_and_scrolls() {
    let mut model = some();
    // Status, title, header: the first event is on line 3.
    mouse(&mut model, MouseEventKind::Down(MouseButton::Left), 10, 4);
    assert_eq!(selected(&model), Some(2), "the sixth is the last of five lines");
    mouse(&mut model, MouseEventKind::ScrollUp, 10, 4);
    assert_eq!(selected(&model), Some(0));
    mouse(&mut model, MouseEventKind::ScrollDown, 10, 4);
    assert_eq!(selected(&model), Some(3));
    press(&mut model, "v");
    assert_eq!(model.focus, 1);
    mouse(&mut model, MouseEventKind::Down(MouseButton::Left), 10, 1);
    assert_eq!(model.focus, 0, "a title takes the keys");
    press(&mut model, "⏎");
    mouse(&mut model, MouseEventKind::ScrollDown, 10, 20);
    assert_eq!((model.in_details, model.details), (true, Some(3)));
    press(&mut model, "?");
    mouse(&mut model, MouseEventKind::ScrollDown, 10, 20);
    assert_eq!(model.mode, Mode::Help(3));
    for (column, row) in [(0, 0), (200, 200), (79, 23)] {
        mouse(&mut model, MouseEventKind::Down(MouseButton::Left), column, row);
    }
}

#[test]
fn files_have_names_that_the_user_chooses() {
    let mut model = some();
    assert_eq!(press(&mut model, "w"), Some(Command::AskName));
    model.mode = Mode::Save(crate::tui::line::Line::of("a.jsonl".into()));
    assert_eq!(press(&mut model, "⌫⏎"), Some(Command::Save("a.json".into())));
    assert_eq!(model.mode, Mode::Browse);
    model.mode = Mode::Save(crate::tui::line::Line::of("q".into()));
    assert_eq!(press(&mut model, "q⎋"), None);
    assert_eq!(press(&mut model, "/q⏎"), None, "typing q doesn't quit");
    assert_eq!(press(&mut model, "q"), Some(Command::Quit));
    let interrupt = Input::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    press(&mut model, "/");
    let places = places(&model);
    assert_eq!(handle(&mut model, &interrupt, &places), Some(Command::Quit));
}

#[test]
fn messages_are_unread_until_they_are_looked_at() {
    let board = Board::default();
    let mut model = some();
    assert!(board.say("warning: one") && board.say("warning: two"));
    let (news, waiting) = board.look(true);
    assert!(model.take(news, waiting));
    assert_eq!((model.unread, model.notices.len()), (2, 2));
    press(&mut model, "m");
    assert_eq!(model.unread, 0);
    press(&mut model, "jx");
    assert_eq!(model.mode, Mode::Browse);
}

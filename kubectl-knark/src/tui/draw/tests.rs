use knark_specs::{
    event::{NodeSums, Sums},
    policy::Severity,
};
use ratatui::{Terminal, backend::TestBackend, crossterm::event::Event as Input};
use serde_json::{Value, json};

use super::*;
use crate::{
    render::Render as _,
    tui::{
        board::{Board, Setting, Status},
        line,
        model::Manner,
        tests::{entry, matched},
    },
};

/// Requests and node events, one of them with a rule.
fn model(policies: bool) -> Model {
    let pod = json!({"namespace": "prod", "pod": "web-7d9f8b6c5-x2x7k"});
    let node = json!({"name": "knark-1"});
    let events: [Value; 4] = [
        json!({"process": {"comm": "sh", "args": ["sh", "-c", "cat /etc/shadow"], "pid": 7, "exe": "/bin/sh"}, "exec": {},
            "kubernetes": pod, "node": node}),
        json!({"process": {"comm": "cat", "pid": 8}, "file": {"op": "open", "path": "/etc/shadow", "result": -13,
            "error": "EACCES"}, "kubernetes": pod, "node": node}),
        json!({"api": {"verb": "create", "resource": "pods", "subresource": "exec", "namespace": "prod", "name": "web",
            "user": {"name": "alice"}, "code": 101, "stage": "started"}, "node": node}),
        json!({"api": {"verb": "get", "resource": "secrets", "namespace": "prod", "name": "db", "user": {"name": "mallory"},
            "code": 403, "stage": "complete"}, "node": node}),
    ];
    let mut board = Board::default();
    for (at, event) in events.into_iter().enumerate() {
        let rules = if policies { vec![matched("rule", if at == 3 { Severity::High } else { Severity::Low })] } else { vec![] };
        board.event(&entry(0, event).event, &rules, &mut Vec::new()).unwrap();
    }
    let (mut news, waiting) = board.look(true);
    news.setting = Some(Setting { local: false, nodes: 1, pod: None, policies });
    let node = NodeSums { node: "knark-1".into(), ..NodeSums::default() };
    let sums = Sums { seconds: 65.2, shown: 4, filtered: 9, nodes: vec![node], ..Sums::default() };
    news.status = Some(Status { waiting: String::new(), sums });
    let mut model = Model::new(Manner { live: true, colour: true, many_namespaces: false });
    model.take(news, waiting);
    model
}

fn drawn(model: &mut Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| drop(draw(model, frame))).unwrap();
    terminal.backend().buffer().clone()
}

/// The screen's lines without blanks at their ends. Times of day are where the user is: they show as `hh:mm:ss`.
fn lines(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let buffer = drawn(model, width, height);
    let line = |y: u16| {
        let mut text = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            x += u16::try_from(shorten::width(symbol)).unwrap().max(1);
        }
        let is_time = |at: usize| {
            let part = text.as_bytes().get(at..at + 8)?;
            let digits = [0, 1, 3, 4, 6, 7].iter().all(|at| part[*at].is_ascii_digit());
            (digits && part[2] == b':' && part[5] == b':').then_some(at)
        };
        if let Some(at) = (0..text.len()).find_map(is_time) {
            text.replace_range(at..at + 8, "hh:mm:ss");
        }
        text.trim_end().to_owned()
    };
    (0..height).map(line).collect()
}

fn keys(model: &mut Model, keys: &str) {
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    let places = Places::of(Rect::new(0, 0, 80, 24), 1, false, false);
    for c in keys.chars() {
        let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
        super::super::input::handle(model, &Input::Key(KeyEvent::new(code, KeyModifiers::NONE)), &places);
        model.refilter();
    }
}

#[test]
fn at_80_by_24() {
    let mut model = model(false);
    let screen = lines(&mut model, 80, 24);
    assert_eq!(
        screen[..7],
        [
            "live · 0 lost · 4 events · 9 filtered · on knark-1 · 1m 5s",
            "━ timeline 4/4 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━",
            "TIME      POD               OP          PROCESS     DETAIL",
            "hh:mm:ss  web-7…b6c5-x2x7k  exec        sh -c 'cat /etc/shadow'",
            "hh:mm:ss  web-7…b6c5-x2x7k  open        cat         /etc/shadow EACCES",
            "hh:mm:ss  api  alice create pods/exec prod/web 101 started",
            "hh:mm:ss  api  mallory get secrets prod/db 403",
        ],
        "{screen:#?}"
    );
    assert_eq!(screen[23], "? help  q quit  / filter  Enter details  v view  o order  Space pause  w write");
    assert!(screen[7..23].iter().all(String::is_empty), "{screen:#?}");
    let buffer = drawn(&mut model, 80, 24);
    assert!(buffer[(0, 6)].modifier.contains(Modifier::REVERSED) && !buffer[(0, 5)].modifier.contains(Modifier::REVERSED));
    assert_eq!(buffer[(28, 4)].fg, Color::Red, "what failed is red");
}

#[test]
fn two_lists_and_details_at_80_by_24() {
    let mut model = model(true);
    keys(&mut model, "v\n");
    let screen = lines(&mut model, 80, 24);
    assert!(screen[1].starts_with("━ requests 2/2 ━"), "{screen:#?}");
    assert_eq!(screen[3], "hh:mm:ss  low       message of rule", "{screen:#?}");
    assert!(screen[6].starts_with("─ nodes 2/2 ─") || screen[7].starts_with("─ nodes 2/2 ─"), "{screen:#?}");
    let details = screen.iter().position(|line| line.starts_with("─ details 1-")).unwrap();
    assert_eq!(screen[details + 1..details + 4], ["api mallory get secrets prod/db 403", "high p/rule", "  message of rule",]);
}

#[test]
fn at_40_by_10() {
    let mut model = model(false);
    let screen = lines(&mut model, 40, 10);
    assert_eq!(
        screen,
        [
            "live · 0 lost · 4 events · 9 filtered",
            "━ timeline 4/4 ━━━━━━━━━━━━━━━━━━━━━━━━━",
            "TIME      OP          DETAIL",
            "hh:mm:ss  exec        sh -c 'cat /etc/s…",
            "hh:mm:ss  open        /etc/shadow EACCES",
            "hh:mm:ss  api  alice create… 101 started",
            "hh:mm:ss  api  mallory get secrets … 403",
            "",
            "",
            "? help  q quit  / filter  Enter details",
        ],
        "{screen:#?}"
    );
    keys(&mut model, "\n");
    let screen = lines(&mut model, 40, 10);
    assert!(screen[1].starts_with("─ details 1-7/"), "{screen:#?}");
    assert_eq!(screen[2], "api mallory get secrets prod/db 403");
    keys(&mut model, "?");
    let help = lines(&mut model, 40, 10);
    assert!(help[1].starts_with("┌ keys 1-6 of 18 ─"), "{help:#?}");
}

#[test]
fn at_200_by_60_all_stand_side_by_side() {
    let mut model = model(true);
    keys(&mut model, "\n");
    let screen = lines(&mut model, 200, 60);
    assert!(screen[1].contains("━ timeline 4/4 ━") && screen[1].contains(" ─ details 1-"), "{screen:#?}");
    assert!(screen[3].contains("low       rule "), "{screen:#?}");
    let mut model = self::model(false);
    keys(&mut model, "v");
    let screen = lines(&mut model, 200, 60);
    assert!(screen[1].starts_with("━ requests 2/2 ━") && screen[1].contains(" ─ nodes 2/2 ─"), "{screen:#?}");
}

#[test]
fn hostile_text_neither_commands_nor_shifts_anything() {
    let event = json!({"process": {"comm": "\u{1b}[2J日本e\u{301}", "args": ["\u{1b}]0;x\u{7}\u{9b}2J\u{202e}", "日本語\n"],
        "exe": "/bin/\r"}, "exec": {}, "kubernetes": {"namespace": "n", "pod": "e\u{301}日\u{200d}web"},
        "node": {"name": "\u{1b}c"}});
    let mut hostile = matched("r\u{1b}[31m", Severity::High);
    hostile.message = "first\u{1b}[2J\nsecond".into();
    let mut board = Board::default();
    board.event(&entry(0, event).event, &[hostile], &mut Vec::new()).unwrap();
    board.say("warning: \u{1b}[2J\nand more");
    let (mut news, waiting) = board.look(true);
    let node = NodeSums { node: "\u{1b}c".into(), ..NodeSums::default() };
    news.status = Some(Status { waiting: "\u{1b}[2J waits".into(), sums: Sums { nodes: vec![node], ..Sums::default() } });
    for policies in [false, true] {
        let mut model = Model::new(Manner { live: true, colour: true, many_namespaces: true });
        model.take(std::mem::take(&mut news), waiting);
        model.setting.policies = policies;
        model.filter_line = line::Line::of("\u{202e}".into());
        for (width, height) in [(80, 24), (40, 10), (200, 60), (12, 6), (3, 3), (1, 1)] {
            for mode in [Mode::Browse, Mode::Help(9), Mode::Notices(0), Mode::Save(line::Line::of("日\u{202e}".repeat(90)))] {
                model.mode = mode;
                for details in [None, Some(0), Some(usize::MAX)] {
                    model.details = details;
                    let buffer = drawn(&mut model, width, height);
                    let bad = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200d}');
                    assert!(buffer.content.iter().all(|cell| !cell.symbol().contains(bad)));
                }
            }
        }
        model.details = None;
        model.mode = Mode::Browse;
        if !policies {
            let buffer = drawn(&mut model, 80, 24);
            let column = |y: u16, text: &str| {
                (0..80 - u16::try_from(text.len()).unwrap())
                    .find(|x| text.chars().zip(*x..).all(|(c, x)| buffer[(x, y)].symbol() == c.to_string()))
            };
            assert_eq!(column(2, "OP"), column(3, "exec"), "wide and combining characters leave columns where they are");
        }
    }
}

#[test]
fn what_matters_most_stays_on_a_narrow_status_line() {
    let mut model = model(false);
    model.status.sums.lost = 12;
    model.paused = true;
    model.waiting = (3, 0);
    model.history.dropped = 7;
    let screen = lines(&mut model, 60, 10);
    assert_eq!(screen[0], "live · 12 lost · paused: 3 wait · 7 oldest dropped from view");
    assert_eq!(lines(&mut model, 24, 10)[0], "live · 12 lost · paused…");
    model.over = true;
    assert!(lines(&mut model, 60, 10)[0].starts_with("ended · 12 lost"));
}

#[test]
fn without_colour_there_is_none() {
    let mut model = model(true);
    model.manner.colour = false;
    keys(&mut model, "\n");
    let buffer = drawn(&mut model, 200, 60);
    assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}

#[test]
fn what_is_typed_shows_with_the_cursor_behind_it() {
    let mut model = model(false);
    keys(&mut model, "/shadow");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| drop(draw(&mut model, frame))).unwrap();
    terminal.backend_mut().assert_cursor_position((7, 23));
    let screen = lines(&mut model, 80, 24);
    assert!(screen[1].starts_with("━ timeline 2/2 · /shadow ━"), "{screen:#?}");
    assert_eq!(screen[23], "/shadow");
}

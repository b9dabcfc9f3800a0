//! `-o tui`: a dashboard that fills the terminal.
//!
//! The pipeline writes what comes onto a [`Board`], and never waits. A thread of its own has the terminal: it takes from the
//! board what is new, reads keys, and draws, at most ten times a second unless a key was pressed. The model that it draws is
//! pure, and so is what keys do to it.

mod board;
mod details;
mod draw;
mod filter;
mod history;
mod input;
mod layout;
mod line;
mod model;
mod pane;
mod rows;
mod save;
mod status;
mod terminal;

use std::{
    convert::Infallible,
    io,
    mem::ManuallyDrop,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Zoned;
use ratatui::crossterm::event;
use tokio::sync::{mpsc, oneshot};

pub use board::Board;
pub use model::Manner;
pub use terminal::check;

use input::Command;
use layout::Places;
use line::Line;
use model::{Mode, Model};

/// What comes is drawn this often at most.
const FRAME: Duration = Duration::from_millis(100);
/// So many keys, or turns of the wheel, are taken together at most.
const KEYS_AT_ONCE: usize = 100;
/// How long a terminal that takes nothing is waited for.
const MOMENT: Duration = Duration::from_millis(500);

/// The dashboard. It has the terminal until it is closed or dropped.
#[derive(Debug)]
pub struct Screen {
    board: Board,
    ended: oneshot::Receiver<io::Result<()>>,
    /// Nothing is ever sent: it breaks off when the thread has given the terminal back.
    alive: std::sync::mpsc::Receiver<Infallible>,
}

impl Screen {
    /// Takes the terminal. The user's wish to end is told to `quit`, as Ctrl-C would.
    pub fn open(manner: Manner, quit: mpsc::Sender<()>) -> anyhow::Result<Self> {
        let board = Board::default();
        let terminal = terminal::take().context("taking the terminal for the dashboard")?;
        let (end, ended) = oneshot::channel();
        let (living, alive) = std::sync::mpsc::channel();
        let shown = board.clone();
        std::thread::spawn(move || {
            let _living = living;
            let result = show(terminal, &shown, manner, &quit);
            terminal::give_back();
            if result.is_err() {
                shown.leave();
                let _ = quit.try_send(());
            }
            let _ = end.send(result);
        });
        Ok(Self { board, ended, alive })
    }

    /// Where the pipeline writes what comes.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The trace has ended: waits until the user has seen enough, or a signal comes, and gives the terminal back. What was
    /// said meanwhile is then said again.
    pub async fn close(mut self, signals: &mut mpsc::Receiver<()>) -> io::Result<()> {
        let leaving = self.board.end();
        let left = async {
            if !leaving && signals.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        let given_up = async {
            left.await;
            self.board.leave();
            tokio::time::sleep(MOMENT).await;
        };
        let shown = tokio::select! {
            shown = &mut self.ended => shown,
            () = given_up => Ok(Ok(())),
        };
        drop(self);
        shown.unwrap_or_else(|_| Err(io::Error::other("the dashboard's thread panicked")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.board.leave();
        self.board.end();
        if self.alive.recv_timeout(MOMENT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            terminal::abandon();
        }
        crate::exit::say(&self.board.close());
    }
}

/// Draws until the user leaves and the trace has ended, or something else has given the terminal back.
fn show(terminal: terminal::Screen, board: &Board, manner: Manner, quit: &mpsc::Sender<()>) -> io::Result<()> {
    // Dropping it would show the cursor, and print where that fails; the cursor is given back with the rest.
    let mut terminal = ManuallyDrop::new(terminal);
    let mut model = Model::new(manner);
    let mut places = Places::of(ratatui::layout::Rect::ZERO, 1, false, false);
    let (mut changed, mut drawn) = (true, None::<Instant>);
    while terminal::is_taken() {
        let (news, waiting) = board.look(!model.paused);
        changed |= model.take(news, waiting);
        if model.over && model.leaving {
            break;
        }
        let rest = drawn.map_or(Duration::ZERO, |drawn| FRAME.saturating_sub(drawn.elapsed()));
        if changed && rest.is_zero() {
            terminal.draw(|frame| places = draw::draw(&mut model, frame))?;
            (changed, drawn) = (false, Some(Instant::now()));
        }
        let mut patience = if changed { rest } else { FRAME };
        for _ in 0..KEYS_AT_ONCE {
            if !terminal::wait(patience)? {
                break;
            }
            patience = Duration::ZERO;
            let event = event::read()?;
            if matches!(&event, event::Event::Mouse(mouse) if mouse.kind == event::MouseEventKind::Moved) {
                continue;
            }
            let command = input::handle(&mut model, &event, &places);
            obey(command, &mut model, board, quit);
            // What the user does shows at once.
            (changed, drawn) = (true, None);
        }
        model.refilter();
    }
    Ok(())
}

fn obey(command: Option<Command>, model: &mut Model, board: &Board, quit: &mpsc::Sender<()>) {
    match command {
        None => {}
        Some(Command::Quit) => {
            board.leave();
            if !model.over {
                // When nobody hears, the end is near anyway.
                let _ = quit.try_send(());
            }
        }
        Some(Command::AskName) => {
            let name = Zoned::now().strftime("knark-%Y%m%dT%H%M%S.jsonl").to_string();
            model.mode = Mode::Save(Line::of(name));
        }
        Some(Command::Save(name)) => {
            model.answer = Some(match save::save(Path::new(&name), model.shown()) {
                Ok(count) => format!("{count} {} written to {name}", if count == 1 { "event" } else { "events" }),
                Err(error) => format!("error: {error:#}"),
            });
        }
    }
}

#[cfg(test)]
pub mod tests;

//! Events as text, one format per file. Renderers write to memory; the pipeline brings it to standard output.

pub mod escape;
pub mod json;
mod name;
pub mod problem;
pub mod shorten;
pub mod style;
pub mod table;
mod times;
pub mod words;
mod yaml;

use std::io::{self, IsTerminal as _};

use knark_specs::{
    alert::Match,
    event::{Event, Summary},
    frame::Pod,
};
use tokio::sync::mpsc;

use crate::tui::{self, Manner, Screen};

/// A format.
pub trait Render: Send {
    /// Called once, before the first event.
    fn begin(&mut self, _scene: &Scene<'_>, _out: &mut Vec<u8>) {}
    /// Called for each event; where policies are given, with the rules that it matches.
    fn event(&mut self, event: &Event, matches: &[Match], out: &mut Vec<u8>) -> io::Result<()>;
    /// Called once, after the last event.
    fn end(&mut self, _summary: &Summary, _out: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

/// What a format may adapt to.
#[derive(Debug)]
pub struct Scene<'a> {
    /// There is no cluster.
    pub local: bool,
    /// How many nodes there are.
    pub nodes: usize,
    /// The pods known so far.
    pub pods: &'a [&'a Pod],
    /// Events are shown for the rules that they match.
    pub policies: bool,
    /// All events are requests: that they are, and who served them, goes without saying.
    pub requests: bool,
}

/// `-o`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One line per event, as wide as the terminal
    #[default]
    Table,
    /// One line per event with everything that fits no terminal
    Wide,
    /// One JSON object per line (see `kubectl knark schema event`), a summary last
    Json,
    /// One YAML document per event, a summary last
    Yaml,
    /// Each pod once, as it is first seen; in local mode each process
    Name,
    /// A dashboard that fills the terminal: panes, filters, details; ? explains its keys
    Tui,
}

/// How to show events.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputFlags {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Format,
    /// Leave out the header of table and wide
    #[arg(long)]
    pub no_headers: bool,
    /// Add the namespace to each pod: the events are of several
    #[arg(skip)]
    pub many_namespaces: bool,
}

impl OutputFlags {
    /// The chosen renderer, fit for what standard output is.
    pub fn renderer(&self) -> Box<dyn Render> {
        match self.output {
            Format::Table => Box::new(table::Table::new(self.layout(false))),
            Format::Wide => Box::new(table::Table::new(self.layout(true))),
            Format::Json => Box::new(json::Json::default()),
            Format::Yaml => Box::new(yaml::Yaml::default()),
            Format::Name => Box::new(name::Name::default()),
            Format::Tui => unreachable!("its screen is its renderer"),
        }
    }

    /// Whether this output can be had here.
    ///
    /// # Errors
    /// It can't, which is a matter of usage.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.output == Format::Tui { tui::check() } else { Ok(()) }
    }

    /// The chosen renderer; where that is the dashboard, the terminal is its from now on. It tells `quit` that the user wants to
    /// end.
    pub fn open(&self, live: bool, quit: mpsc::Sender<()>) -> anyhow::Result<(Box<dyn Render>, Option<Screen>)> {
        if self.output != Format::Tui {
            return Ok((self.renderer(), None));
        }
        let manner = Manner { live, colour: colours_stdout(), many_namespaces: self.many_namespaces };
        let screen = Screen::open(manner, quit)?;
        Ok((Box::new(screen.board().clone()), Some(screen)))
    }

    fn layout(&self, wide: bool) -> table::Layout {
        table::Layout {
            wide,
            width: (!wide).then(terminal_width).flatten(),
            header: !self.no_headers,
            colour: colours_stdout(),
            many_namespaces: self.many_namespaces,
        }
    }
}

fn colours_stdout() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

/// Whether what goes to standard error is to be coloured.
pub fn colours_stderr() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// The terminal's width; `None` where there is none, so that nothing is shortened.
fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    told.or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()))
}

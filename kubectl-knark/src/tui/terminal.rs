//! The terminal: taken whole, and given back as it was, whatever happens.

use std::{
    io::{self, IsTerminal as _, Stdout},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use crate::exit::UsageError;

/// Whether the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What is drawn on.
pub type Screen = Terminal<CrosstermBackend<Stdout>>;

/// Whether there is a terminal to take.
///
/// # Errors
/// There is none, which is a matter of usage.
pub fn check() -> anyhow::Result<()> {
    for (name, is_terminal) in [("standard output", io::stdout().is_terminal()), ("standard input", io::stdin().is_terminal())] {
        if !is_terminal {
            return Err(UsageError::because(format!(
                "-o tui draws on a terminal and reads its keys, and {name} is none: run it in a terminal, or choose another -o"
            )));
        }
    }
    Ok(())
}

/// Takes the terminal. What panics from now on gives it back first, so that its message can be read.
pub fn take() -> io::Result<Screen> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
    });
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let begun = execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture, EnableBracketedPaste);
    begun.and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout()))).inspect_err(|_| give_back())
}

/// Waits so long at most for a key, the mouse, or another size.
///
/// # Errors
/// The terminal has gone, or can't be read.
pub fn wait(patience: Duration) -> io::Result<bool> {
    if event::poll(Duration::ZERO)? {
        return Ok(true);
    }
    // crossterm reads a terminal that has gone for ever: it must not be asked for that one's input. Elsewhere than on Linux
    // poll(2) may not know terminals; there the end of the trace ends the wait.
    #[cfg(target_os = "linux")]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        // Longer than any sensible patience is as good as for ever.
        let patience = Timespec::try_from(patience).ok();
        match poll(&mut fds, patience.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the terminal has gone"));
        }
        event::poll(Duration::ZERO)
    }
    #[cfg(not(target_os = "linux"))]
    event::poll(patience)
}

/// Whether it is still ours.
pub fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// Gives it back, once. One that has gone needs nothing.
pub fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), DisableBracketedPaste, DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// As [`give_back`], where writing would wait for a terminal that takes nothing: it keeps its picture, and works.
pub fn abandon() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
    }
}

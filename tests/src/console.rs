//! A program on a terminal of its own: what it shows there, and keys for it.

use std::{
    io::{Read as _, Write},
    num::NonZero,
    process::Command,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use portable_pty::{CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};

/// What takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal with a program on it.
pub struct Console {
    shared: Arc<Shared>,
    master: Option<Box<dyn MasterPty + Send>>,
    keys: Box<dyn Write + Send>,
    status: mpsc::Receiver<std::io::Result<ExitStatus>>,
    /// The program's process id.
    pub pid: i32,
}

struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

struct Seen {
    terminal: vt100::Parser,
    /// All that was written to the terminal.
    bytes: Vec<u8>,
    closed: bool,
    hung_up: bool,
}

impl Console {
    /// Starts a program on a terminal of this size.
    ///
    /// # Panics
    /// Where the machine gives no terminal, or the program can't be started.
    #[expect(clippy::expect_used, reason = "a test has no better way to end")]
    pub fn start(command: &Command, rows: u16, cols: u16) -> Self {
        let pair = native_pty_system().openpty(size(rows, cols)).expect("making a terminal");
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => builder.env(name, value),
                None => builder.env_remove(name),
            }
        }
        builder.cwd(command.get_current_dir().map_or_else(std::env::temp_dir, std::path::Path::to_owned));
        let mut child = pair.slave.spawn_command(builder).expect("starting the program");
        drop(pair.slave);
        let pid = child.process_id().and_then(|pid| pid.try_into().ok()).expect("the program's process id");
        let (ended, status) = mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait()));

        let mut output = pair.master.try_clone_reader().expect("reading the terminal");
        let keys = pair.master.take_writer().expect("typing on the terminal");
        let seen =
            Seen { terminal: vt100::Parser::new(count(rows), count(cols), 0), bytes: Vec::new(), closed: false, hung_up: false };
        let shared = Arc::new(Shared { seen: Mutex::new(seen), changed: Condvar::new() });
        let told = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal that nobody has open any more is an error to read.
            while let Ok(n @ 1..) = output.read(&mut piece) {
                let mut seen = told.lock();
                seen.terminal.process(&piece[..n]);
                seen.bytes.extend(&piece[..n]);
                told.changed.notify_all();
                if seen.hung_up {
                    break;
                }
            }
            drop(output);
            told.lock().closed = true;
            told.changed.notify_all();
        });
        Self { shared, master: Some(pair.master), keys, status, pid }
    }

    /// Types.
    ///
    /// # Panics
    /// Where the terminal has gone.
    #[expect(clippy::expect_used, reason = "a test has no better way to end")]
    pub fn type_keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("typing on the terminal");
        self.keys.flush().expect("typing on the terminal");
    }

    /// Changes the terminal's size.
    ///
    /// # Panics
    /// Where the terminal has gone.
    #[expect(clippy::expect_used, reason = "a test has no better way to end")]
    pub fn resize(&self, rows: u16, cols: u16) {
        self.shared.lock().terminal.screen_mut().set_size(count(rows), count(cols));
        self.master.as_ref().expect("the terminal is there").resize(size(rows, cols)).expect("resizing the terminal");
    }

    /// Waits until all of this is on the screen, and returns what it shows.
    ///
    /// # Panics
    /// After half a minute, with what is there instead.
    #[track_caller]
    pub fn wait_for(&self, texts: &[&str]) -> String {
        self.wait_until(&format!("{texts:?}"), |screen| texts.iter().all(|text| screen.contents().contains(text)))
    }

    /// Waits until the screen is so, and returns what it shows.
    ///
    /// # Panics
    /// After half a minute, with what is there instead.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut(&vt100::Screen) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.shared.lock();
        while !is_so(seen.terminal.screen()) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} didn't come; the screen shows\n{}", seen.terminal.screen().contents());
            seen = self.shared.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        seen.terminal.screen().contents()
    }

    /// Whether what is typed shows and is edited by the terminal itself, as it is for a shell's commands.
    #[expect(clippy::expect_used, reason = "a test has no better way to end")]
    pub fn is_cooked(&self) -> bool {
        let master = self.master.as_ref().expect("the terminal is there");
        let modes = master.get_termios().map(|modes| format!("{:?}", modes.local_flags)).expect("the terminal's modes");
        modes.contains("ICANON") && modes.contains("ECHO")
    }

    /// The terminal goes, as when its window is closed.
    pub fn hang_up(&mut self) {
        self.shared.lock().hung_up = true;
        // The program draws anew, so that its reader here looks up and goes too.
        self.resize(20, 60);
        self.master = None;
        self.keys = Box::new(std::io::sink());
    }

    /// Waits until the program has ended; its exit status, and all that it wrote.
    ///
    /// # Panics
    /// After half a minute.
    #[expect(clippy::expect_used, reason = "a test has no better way to end")]
    #[track_caller]
    pub fn wait(&self) -> (u32, String) {
        let status = self.status.recv_timeout(PATIENCE).expect("the program should have ended").expect("its status");
        let mut seen = self.shared.lock();
        let deadline = Instant::now() + PATIENCE;
        while !seen.closed && self.master.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the terminal should have been closed");
            seen = self.shared.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        (status.exit_code(), String::from_utf8_lossy(&seen.bytes).into_owned())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap_or(NonZero::<u16>::MIN)
}

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }
}

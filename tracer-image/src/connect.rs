//! `knark-tracer connect`: run by pods/exec, it joins the plugin's stream to the pod's main process.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::fd::AsFd as _,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// The main process may have been started only just now.
const PATIENCE: Duration = Duration::from_secs(5);

/// Copies both ways until either side ends.
pub fn run() -> anyhow::Result<()> {
    let stream = connect().context("connecting to the tracer in this pod: is `knark-tracer serve` its main process?")?;
    let mut up = stream.try_clone()?;
    thread::spawn(move || {
        let _ = copy(&mut io::stdin(), &mut up);
        // The plugin has gone; the tracer must know at once.
        let _ = up.shutdown(Shutdown::Both);
    });
    let mut down = File::from(io::stdout().as_fd().try_clone_to_owned().context("duplicating stdout")?);
    copy(&mut &stream, &mut down).context("passing the tracer's stream on")
}

fn connect() -> io::Result<UnixStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect_addr(&crate::serve::address()?) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < until => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// As `io::copy`, but flushes what it has before it waits for more.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&buffer[..length])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

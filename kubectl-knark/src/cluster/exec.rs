//! `pods/exec` over a websocket, as a reader and a writer.
//!
//! kube's own `AttachedProcess` copies through a task that stops writing while nobody reads, and doesn't end its readers when
//! the connection breaks. Here a reader that pauses leaves the writer free, so that heartbeats go on while the user's terminal
//! or pager is busy, and a broken connection shows at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{
    Sink, Stream, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Client, Resource as _,
    api::{AttachParams, Request},
    client::Connection,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// The websocket under a [`Connection`], whose own type kube keeps to itself.
trait Socket: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Send + Unpin {}
impl<T: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Send + Unpin> Socket for T {}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// How much of stderr is kept.
const STDERR_KEPT: usize = 4096;

/// Runs a command in a container.
pub async fn exec(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
) -> kube::Result<(Stdout, Stdin)> {
    let params = AttachParams {
        container: Some(container.to_owned()),
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachParams::default()
    };
    let request = Request::new(Pod::url_path(&(), Some(namespace)));
    let request = request.exec(pod, command.iter().copied(), &params).map_err(kube::Error::BuildRequest)?;
    let socket: Box<dyn Socket> = Box::new(Connection::into_stream(client.connect(request).await?));
    let (sink, stream) = socket.split();
    Ok((Stdout { stream, rest: Vec::new(), read: 0, stderr: Vec::new(), status: None }, Stdin { sink }))
}

/// What the command writes.
pub struct Stdout {
    stream: SplitStream<Box<dyn Socket>>,
    rest: Vec<u8>,
    read: usize,
    stderr: Vec<u8>,
    status: Option<Status>,
}

impl Stdout {
    /// The last line that the command wrote to stderr, else how it ended; known once its stdout has ended.
    pub fn last_words(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.stderr);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        line.or_else(|| self.failure().and_then(|status| status.message.clone()))
    }

    /// How the command failed, once its stdout has ended.
    pub fn failure(&self) -> Option<&Status> {
        self.status.as_ref().filter(|status| status.status.as_deref() == Some("Failure"))
    }

    fn take(&mut self, message: &[u8]) {
        let Some((channel, bytes)) = message.split_first() else { return };
        match *channel {
            STDOUT => {
                self.rest.clear();
                self.rest.extend_from_slice(bytes);
                self.read = 0;
            }
            STDERR => {
                self.stderr.extend_from_slice(bytes);
                let excess = self.stderr.len().saturating_sub(STDERR_KEPT);
                self.stderr.drain(..excess);
            }
            STATUS => self.status = serde_json::from_slice(bytes).ok(),
            _ => {}
        }
    }
}

impl AsyncRead for Stdout {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read == self.rest.len() {
            match ready!(self.stream.poll_next_unpin(context)) {
                Some(Ok(Message::Binary(message))) => self.take(&message),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let rest = &self.rest[self.read..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.read += length;
        Poll::Ready(Ok(()))
    }
}

/// What the command reads.
pub struct Stdin {
    sink: SplitSink<Box<dyn Socket>, Message>,
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut sink = Pin::new(&mut self.sink);
        ready!(sink.as_mut().poll_ready(context)).map_err(to_io)?;
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(STDIN);
        message.extend_from_slice(bytes);
        sink.start_send(Message::binary(message)).map_err(to_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sink).poll_flush(context).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.sink).poll_close(context).map_err(to_io)
    }
}

fn to_io(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        error => io::Error::other(error),
    }
}

//! Alerts to a syslog daemon: datagrams to UDP and to the local socket, a stream with counted messages (RFC 6587, RFC 5425) over TCP
//! and TLS.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures::{FutureExt as _, future::BoxFuture};
use knark_specs::alert::{Notice, receiver::Receiver, syslog};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};
use tokio_rustls::TlsConnector;

use super::{
    delivery::{Failure, Sink},
    tls,
};
use crate::exit::UsageError;

/// A daemon.
pub struct Syslog {
    way: Way,
    timeout: Duration,
    open: Option<Connection>,
}

enum Way {
    Udp(String, u16),
    Tcp(String, u16),
    Tls(String, u16, TlsConnector),
    #[cfg(unix)]
    Unix(String),
}

enum Connection {
    Udp(UdpSocket),
    #[cfg(unix)]
    Unix(tokio::net::UnixDatagram),
    Stream(Box<dyn Stream>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

impl Syslog {
    /// `udp://HOST:PORT`, `tcp://HOST:PORT`, `tls://HOST:PORT` or `unix:PATH`. Nothing is opened yet.
    ///
    /// # Errors
    /// It can't be meant, or one of the receiver's files can't be read.
    pub fn new(receiver: &Receiver, place: &str, timeout: Duration) -> anyhow::Result<Self> {
        let files = [&receiver.ca_file, &receiver.cert_file, &receiver.key_file];
        if !place.starts_with("tls://") && files.iter().any(|file| file.is_some()) {
            return Err(UsageError::because("certificates are for syslog:tls://"));
        }
        let way = match place.split_once(':') {
            Some(("udp", rest)) => address(rest, 514).map(|(host, port)| Way::Udp(host, port))?,
            Some(("tcp", rest)) => address(rest, 601).map(|(host, port)| Way::Tcp(host, port))?,
            Some(("tls", rest)) => {
                let (host, port) = address(rest, 6514)?;
                Way::Tls(host, port, TlsConnector::from(Arc::new(tls::config(receiver)?)))
            }
            #[cfg(unix)]
            Some(("unix", path)) if !path.is_empty() => Way::Unix(path.to_owned()),
            _ => {
                let text =
                    "a syslog daemon is at udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or, on Unix, at unix:/dev/log";
                return Err(UsageError::because(text));
            }
        };
        Ok(Self { way, timeout, open: None })
    }

    async fn open(&self) -> anyhow::Result<Connection> {
        Ok(match &self.way {
            Way::Udp(host, port) => {
                let mut addresses = tokio::net::lookup_host((host.as_str(), *port)).await.context("looking up its address")?;
                let address = addresses.next().ok_or_else(|| anyhow!("{host} has no address"))?;
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await.context("opening a socket")?;
                socket.connect(address).await.context("opening a socket")?;
                Connection::Udp(socket)
            }
            Way::Tcp(host, port) => {
                Connection::Stream(Box::new(TcpStream::connect((host.as_str(), *port)).await.context("connecting")?))
            }
            Way::Tls(host, port, connector) => {
                let name = ServerName::try_from(host.clone()).context("connecting")?;
                let stream = TcpStream::connect((host.as_str(), *port)).await.context("connecting")?;
                Connection::Stream(Box::new(connector.connect(name, stream).await.context("connecting by TLS")?))
            }
            #[cfg(unix)]
            Way::Unix(path) => {
                let socket = tokio::net::UnixDatagram::unbound().context("opening a socket")?;
                socket.connect(path).with_context(|| format!("connecting to {path}"))?;
                Connection::Unix(socket)
            }
        })
    }

    async fn write(&mut self, notices: &[&Notice]) -> anyhow::Result<()> {
        if self.open.as_mut().is_some_and(Connection::has_gone) {
            self.open = None;
        }
        let mut connection = match self.open.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        let messages = notices.iter().map(|notice| syslog::message(notice, std::process::id()));
        match &mut connection {
            Connection::Udp(socket) => {
                for message in messages {
                    socket.send(message.as_bytes()).await.context("sending")?;
                }
            }
            #[cfg(unix)]
            Connection::Unix(socket) => {
                for message in messages {
                    socket.send(message.as_bytes()).await.context("sending")?;
                }
            }
            Connection::Stream(stream) => {
                let text = messages.fold(String::new(), |text, message| format!("{text}{} {message}", message.len()));
                stream.write_all(text.as_bytes()).await.context("sending")?;
                stream.flush().await.context("sending")?;
            }
        }
        self.open = Some(connection);
        Ok(())
    }
}

impl Sink for Syslog {
    /// What is in one write when a connection is cut is in doubt, so that is little.
    fn most(&self) -> usize {
        16
    }

    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let limit = self.timeout;
            match tokio::time::timeout(limit, self.write(notices)).await {
                Ok(written) => Ok(written?),
                Err(_) => Err(anyhow!("it takes nothing within {}", humantime::format_duration(limit)).into()),
            }
        })
    }

    fn close(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            if let Some(Connection::Stream(mut stream)) = self.open.take() {
                stream.shutdown().await.context("ending the connection")?;
            }
            Ok(())
        })
    }
}

impl Connection {
    /// Whether the other side has ended it: what is written then is lost, and nobody says so.
    fn has_gone(&mut self) -> bool {
        match self {
            Self::Stream(stream) => matches!(stream.read(&mut [0; 64]).now_or_never(), Some(Ok(0) | Err(_))),
            _ => false,
        }
    }
}

/// `//HOST:PORT`
fn address(text: &str, port: u16) -> anyhow::Result<(String, u16)> {
    let usage = || UsageError::because(format!("{text:?} is no address: write HOST:PORT, such as //localhost:{port}"));
    let authority: http::uri::Authority = text.strip_prefix("//").ok_or_else(usage)?.parse().map_err(|_| usage())?;
    if authority.as_str().contains('@') {
        bail!(UsageError::because("a syslog daemon takes no password"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(usage());
    }
    Ok((host, authority.port_u16().unwrap_or(port)))
}

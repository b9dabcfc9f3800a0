//! An HTTP server that answers as a test wants, with or without TLS.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::Value;

/// What a request is answered; after the last one, all are answered 200.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// A status, and nothing else.
    Status(u16),
    /// Nothing, for as long as the client likes.
    Nothing,
    /// The connection is cut.
    Cut,
}

/// A request that came.
#[derive(Debug)]
pub struct Request {
    /// Method and path.
    pub line: String,
    /// `name: value`, names in lower case.
    pub headers: Vec<String>,
    /// The body.
    pub body: Value,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| header.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A server until the test ends.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    requests: mpsc::Receiver<Request>,
}

impl Server {
    /// One that answers these, first to last.
    pub fn start(tls: Option<Arc<ServerConfig>>, answers: &[Answer]) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), tls, answers)
    }

    /// One at this address that answers 200.
    pub fn start_at(address: &str) -> Self {
        Self::listen(TcpListener::bind(address).unwrap(), None, &[])
    }

    /// Where nobody listens.
    pub fn free_address() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    fn listen(listener: TcpListener, tls: Option<Arc<ServerConfig>>, answers: &[Answer]) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<_>>()));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls, sender, answers) = (stream.unwrap(), tls.clone(), sender.clone(), Arc::clone(&answers));
                thread::spawn(move || match tls {
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(session, stream), &sender, &answers)
                    }
                    None => serve(stream, &sender, &answers),
                });
            }
        });
        Self { address, requests }
    }

    /// The next request.
    pub fn next(&self) -> Request {
        self.requests.recv_timeout(Duration::from_secs(30)).expect("no request came in time")
    }

    /// All that came so far and were not looked at.
    pub fn rest(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }
}

/// Requests of one connection, until it ends.
fn serve(stream: impl Read + Write, sender: &mpsc::Sender<Request>, answers: &Mutex<VecDeque<Answer>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let headers = lines.split_off(1);
        let headers: Vec<_> = headers
            .iter()
            .filter_map(|header| header.split_once(": "))
            .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
            .collect();
        let mut request = Request { line: lines.pop()?, headers, body: Value::Null };
        let length = request.header("content-length")?.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        request.body = serde_json::from_slice(&body).unwrap();
        sender.send(request).ok()?;
        let answer = answers.lock().unwrap().pop_front().unwrap_or(Answer::Status(200));
        match answer {
            Answer::Status(status) => {
                let answer = format!("HTTP/1.1 {status} As Told\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n");
                stream.get_mut().write_all(answer.as_bytes()).ok()?;
                stream.get_mut().flush().ok()?;
            }
            Answer::Nothing => {
                // Until the client has had enough.
                let _ = stream.read(&mut [0]);
                return None;
            }
            Answer::Cut => return None,
        }
    }
}

/// Writes `ca.pem`, `client.pem` and `client.key`; a server's configuration that asks for such a client.
pub fn certificates(folder: &Path) -> Arc<ServerConfig> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (server, server_key) = signed("localhost");
    let (client, client_key) = signed("knark");
    for (name, text) in [
        ("ca.pem", &ca.pem()),
        ("client.pem", &client),
        ("client.key", &client_key),
        ("server.pem", &server),
        ("server.key", &server_key),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let certificate = CertificateDer::from_pem_slice(server.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(server_key.as_bytes()).unwrap();
    Arc::new(config.with_client_cert_verifier(clients).with_single_cert(vec![certificate], key).unwrap())
}

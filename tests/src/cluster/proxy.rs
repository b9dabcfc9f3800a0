//! A way to the API server that a test can cut.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Passes connections on to another port of this machine, until it is told to cut them.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    closed: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on a port of its own. The thread behind it ends with the test's process.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(target) else { continue };
                if shared.closed.load(Ordering::SeqCst) {
                    continue;
                }
                shared.join(client, server);
            }
        });
        Self { address, state }
    }

    /// Cuts all connections, and lets no new ones through.
    pub fn cut(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        for stream in self.state.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.state.closed.store(false, Ordering::SeqCst);
    }
}

impl State {
    fn join(&self, client: TcpStream, server: TcpStream) {
        let copies = client.try_clone().and_then(|c| Ok((c, server.try_clone()?)));
        let Ok((client_too, server_too)) = copies else { return };
        if let (Ok(client), Ok(server)) = (client.try_clone(), server.try_clone()) {
            self.streams.lock().unwrap_or_else(PoisonError::into_inner).extend([client, server]);
        }
        thread::spawn(move || copy(client, server));
        thread::spawn(move || copy(server_too, client_too));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

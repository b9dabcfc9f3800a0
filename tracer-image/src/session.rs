//! One connection of a plugin: who are you, what do you want, here are the events.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use knark_specs::{
    PROTOCOL,
    frame::{Down, Up},
    packet::{self, PacketError},
};

use crate::{
    clock,
    engine::Command,
    outbox::{Cursor, Next, Outbox},
};

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The other side closed it, or it broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// Not a plugin's stream.
    #[error("reading the plugin's stream: {0}")]
    Packet(#[from] PacketError),
    /// The nonce wasn't signed with the session's key.
    #[error("the plugin's signature doesn't fit this session's key")]
    Signature,
}

/// What all connections share.
#[derive(Debug)]
pub struct Session {
    /// The session's public key.
    pub key: VerifyingKey,
    /// What waits to be sent.
    pub outbox: Arc<Outbox>,
    /// Where the plugin's wishes go.
    pub commands: mpsc::Sender<Command>,
    /// When a plugin that proved itself was last heard (boot time, ns).
    pub heard_ns: AtomicU64,
}

impl Session {
    /// Challenges the other side. Only who holds the session's key gets a cursor into the stream.
    pub fn greet(&self, from: &mut Incoming<impl Read>, to: &mut impl Write) -> Result<Cursor, SessionError> {
        let mut nonce = vec![0; 32];
        getrandom::fill(&mut nonce).map_err(|e| io::Error::other(format!("reading random bytes: {e}")))?;
        let challenge = Up::Challenge { nonce: nonce.clone(), protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() };
        to.write_all(&packet::encode(&challenge))?;
        to.flush()?;
        match from.next()? {
            Down::Auth { signature, resume_after } => {
                let signature = Signature::from_slice(&signature).map_err(|_| SessionError::Signature)?;
                self.key.verify(&nonce, &signature).map_err(|_| SessionError::Signature)?;
                self.hear();
                Ok(self.outbox.take_over(resume_after))
            }
            _ => Err(SessionError::Signature),
        }
    }

    /// Passes the plugin's messages on until the connection ends.
    pub fn listen(&self, from: &mut Incoming<impl Read>) -> Result<(), SessionError> {
        loop {
            let message = from.next()?;
            self.hear();
            // The engine is gone only after its goodbye: nothing it would do remains.
            let _ = match message {
                Down::Plan(plan) => self.commands.send(Command::Plan(plan)),
                Down::Pods(pods) => self.commands.send(Command::Pods(pods)),
                Down::Stop => self.commands.send(Command::Stop),
                Down::Ack(seq) => {
                    self.outbox.ack(seq);
                    Ok(())
                }
                Down::Ping(value) => {
                    self.outbox.pong(value);
                    Ok(())
                }
                Down::Auth { .. } => Ok(()),
            };
        }
    }

    /// Writes what there is until the last word, or until another connection takes over. True after the last word.
    pub fn talk(&self, mut cursor: Cursor, to: &mut impl Write) -> io::Result<bool> {
        loop {
            match self.outbox.next(&mut cursor, Duration::from_millis(500)) {
                Next::Packet(packet) => to.write_all(&packet)?,
                Next::Last(packet) => {
                    to.write_all(&packet)?;
                    to.flush()?;
                    return Ok(true);
                }
                Next::Idle => to.flush()?,
                Next::Replaced => return Ok(false),
            }
        }
    }

    fn hear(&self) {
        self.heard_ns.store(clock::boot_ns(), Ordering::Relaxed);
    }
}

/// Messages out of a byte stream.
#[derive(Debug)]
pub struct Incoming<R> {
    from: R,
    decoder: packet::Decoder,
    buffer: Vec<u8>,
}

impl<R: Read> Incoming<R> {
    /// Reads from here.
    pub fn new(from: R) -> Self {
        Self { from, decoder: packet::Decoder::default(), buffer: vec![0; 64 << 10] }
    }

    /// The next message; the end of the stream is an error.
    fn next(&mut self) -> Result<Down, SessionError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            match self.from.read(&mut self.buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(length) => self.decoder.push(&self.buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

//! The signals that end a trace.

use tokio::sync::mpsc;

/// One word for each Ctrl-C, SIGTERM or SIGHUP from now on. They no longer end the process by themselves.
pub fn listen() -> std::io::Result<mpsc::Receiver<()>> {
    Ok(listen_and_send()?.1)
}

/// As [`listen`], with a way to say the same by other means, such as a key.
pub fn listen_and_send() -> std::io::Result<(mpsc::Sender<()>, mpsc::Receiver<()>)> {
    let (heard, signals) = mpsc::channel(4);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let (mut stream, heard) = (signal(kind)?, heard.clone());
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    let _ = heard.send(()).await;
                }
            });
        }
    }
    #[cfg(not(unix))]
    {
        let heard = heard.clone();
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                let _ = heard.send(()).await;
            }
        });
    }
    Ok((heard, signals))
}

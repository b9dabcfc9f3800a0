//! Alerts as OpenTelemetry's logs.

use futures::future::BoxFuture;
use jiff::Timestamp;
use knark_specs::alert::{Notice, otlp};

use super::{
    delivery::{Failure, Sink},
    http::Post,
};

/// A collector.
pub struct Otlp {
    /// Where its logs are posted.
    pub post: Post,
}

impl Sink for Otlp {
    fn most(&self) -> usize {
        100
    }

    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let body = serde_json::to_vec(&otlp::logs(notices, Timestamp::now(), env!("CARGO_PKG_VERSION")))?;
            let answer = self.post.send(body).await?;
            match otlp::rejected(&answer) {
                Some((refused, why)) => Err(Failure::Partly(refused, anyhow::anyhow!("it says: {why}"))),
                None => Ok(()),
            }
        })
    }
}

//! Alerts by HTTP to whatever takes one of three bodies.

use futures::future::BoxFuture;
use knark_specs::alert::{Alerts, Notice, kive, kubecop, receiver::Format};

use super::{
    delivery::{Failure, Sink},
    http::Post,
};

/// A webhook.
pub struct Webhook {
    /// Where it is.
    pub post: Post,
    /// What it is sent.
    pub format: Format,
}

impl Sink for Webhook {
    fn most(&self) -> usize {
        match self.format {
            Format::Knark | Format::Kubecop => 100,
            Format::Kive => 1,
        }
    }

    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let body = match (self.format, notices) {
                (Format::Knark, notices) => serde_json::to_vec(&Alerts::of(notices))?,
                (Format::Kubecop, notices) => serde_json::to_vec(&kubecop::runtime_alerts(notices))?,
                (Format::Kive, notices) => match notices.first() {
                    Some(notice) => serde_json::to_vec(&kive::alert(notice, &self.post.origin()))?,
                    None => return Ok(()),
                },
            };
            self.post.send(body).await.map(drop)
        })
    }
}

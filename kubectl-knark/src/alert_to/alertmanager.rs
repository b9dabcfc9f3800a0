//! Alerts to Alertmanager.

use futures::future::BoxFuture;
use jiff::Timestamp;
use knark_specs::alert::{Notice, alertmanager};

use super::{
    delivery::{Failure, Sink},
    http::Post,
};

/// An Alertmanager.
pub struct Alertmanager {
    /// Where its alerts are posted.
    pub post: Post,
}

impl Sink for Alertmanager {
    fn most(&self) -> usize {
        100
    }

    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let body = serde_json::to_vec(&alertmanager::alerts(notices, Timestamp::now()))?;
            self.post.send(body).await.map(drop)
        })
    }
}

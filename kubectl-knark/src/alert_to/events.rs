//! Alerts as Kubernetes Events on the pods that they are about, with the user's own rights.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use knark_specs::{
    alert::{Notice, kubernetes},
    policy::Severity,
};
use kube::{Api, api::PostParams};

use super::delivery::{Failure, Sink};
use crate::cluster::{Cluster, ConnectionFlags};

/// Who reports.
const CONTROLLER: &str = "knark.dev/kubectl-knark";

/// The pods of a cluster.
pub struct PodEvents {
    connection: ConnectionFlags,
    cluster: Option<Cluster>,
    instance: String,
    timeout: Duration,
}

impl PodEvents {
    /// Of the cluster that is traced. It is connected to when there is something to tell.
    pub fn new(connection: ConnectionFlags, timeout: Duration) -> Self {
        Self { connection, cluster: None, instance: format!("kubectl-knark-{}", std::process::id()), timeout }
    }

    async fn post(&mut self, notice: &Notice) -> Result<(), Failure> {
        let Some(pod) = &notice.event.kubernetes else { return Ok(()) };
        let cluster = match &self.cluster {
            Some(cluster) => cluster,
            None => self.cluster.insert(self.connection.connect().await?),
        };
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("{error}")).context("naming an Event")?;
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("knark-{:016x}", u64::from_ne_bytes(random))),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some("Alert".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(kubernetes::note(notice)),
            reason: Some(kubernetes::reason(notice)),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(pod.namespace.clone()),
                name: Some(pod.pod.clone()),
                uid: Some(pod.pod_uid.clone()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if notice.rule().severity == Severity::Info { "Normal" } else { "Warning" }.to_owned()),
            ..Event::default()
        };
        let api = Api::<Event>::namespaced(cluster.client.clone(), &pod.namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let wrong = matches!(&error, kube::Error::Api(status) if [400, 403, 404, 413, 422].contains(&status.code));
                let why = cluster.explain(format!("creating an Event in {}", pod.namespace), error).into();
                // A namespace that is gone takes no more Events, and one where the user may make none must not keep others from theirs.
                Err(if wrong { Failure::Never(why) } else { Failure::Later { why, after: None } })
            }
        }
    }
}

impl Sink for PodEvents {
    fn most(&self) -> usize {
        1
    }

    fn send<'s>(&'s mut self, notices: &'s [&'s Notice]) -> BoxFuture<'s, Result<(), Failure>> {
        Box::pin(async move {
            let limit = self.timeout;
            for notice in notices {
                match tokio::time::timeout(limit, self.post(notice)).await {
                    Ok(posted) => posted?,
                    Err(_) => return Err(anyhow!("no answer within {}", humantime::format_duration(limit)).into()),
                }
            }
            Ok(())
        })
    }
}

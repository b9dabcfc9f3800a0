//! Finding and removing what earlier sessions left.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
    core::{NamespaceResourceScope, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::{
    client::Cluster,
    error::ApiError,
    manifest::{MANAGED_BY, NAME, SESSION, USER, user_label},
    tracer::NAMESPACES,
};

/// How long the removed pods' end is waited for.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Only in this namespace; `None`: wherever they are.
    pub namespace: Option<String>,
    /// Only of this session.
    pub session: Option<String>,
    /// Only of this user; `None`: of all.
    pub user: Option<String>,
}

/// Something that a session made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Its namespace.
    pub namespace: String,
    /// A pod without its Job, or else the Job.
    pub is_pod: bool,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", if self.is_pod { "pod" } else { "job.batch" }, self.name)
    }
}

impl Leftovers {
    fn selector(&self) -> String {
        let mut terms = vec![format!("{}={}", NAME.0, NAME.1), format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)];
        terms.extend(self.session.as_ref().map(|session| format!("{SESSION}={session}")));
        terms.extend(self.user.as_ref().map(|user| format!("{USER}={}", user_label(user))));
        terms.join(",")
    }

    /// Finds them: Jobs, and pods whose Job is gone already.
    pub async fn find(&self, cluster: &Cluster) -> Result<Vec<Leftover>, ApiError> {
        let jobs = self.list::<Job>(cluster, "listing Jobs").await?;
        let pods = match self.list::<Pod>(cluster, "listing pods").await {
            // Whoever may remove Jobs needs no right on pods: they follow.
            Err(error) if error.is_forbidden() => Vec::new(),
            pods => pods?,
        };
        let mut found: Vec<_> = jobs.iter().map(|job| leftover(job, false)).collect();
        let known: BTreeSet<_> = found.iter().map(|job| (job.namespace.clone(), job.name.clone())).collect();
        let orphaned = |pod: &&PartialObjectMeta<Pod>| {
            let namespace = pod.namespace().unwrap_or_default();
            !pod.owner_references().iter().any(|owner| known.contains(&(namespace.clone(), owner.name.clone())))
        };
        found.extend(pods.iter().filter(orphaned).map(|pod| leftover(pod, true)));
        found.sort();
        Ok(found)
    }

    /// Waits until their pods are gone; says which are not.
    pub async fn gone(&self, cluster: &Cluster) -> Result<Vec<Leftover>, ApiError> {
        let begun = Instant::now();
        loop {
            let left = match self.list::<Pod>(cluster, "waiting for the pods' end").await {
                Err(error) if error.is_forbidden() => return Ok(Vec::new()),
                left => left?,
            };
            if left.is_empty() || begun.elapsed() > GONE_WITHIN {
                return Ok(left.iter().map(|pod| leftover(pod, true)).collect());
            }
            sleep(POLL).await;
        }
    }

    /// In all namespaces where the user may, else in those where tracers run unless told otherwise.
    async fn list<K>(&self, cluster: &Cluster, doing: &str) -> Result<Vec<PartialObjectMeta<K>>, ApiError>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let params = ListParams::default().labels(&self.selector());
        if let Some(namespace) = &self.namespace {
            let listed = Api::<K>::namespaced(cluster.client.clone(), namespace).list_metadata(&params).await;
            return Ok(listed.map_err(|error| cluster.explain(doing, error))?.items);
        }
        let listed = Api::<K>::all(cluster.client.clone()).list_metadata(&params).await;
        let refused = match listed.map_err(|error| cluster.explain(doing, error)) {
            Ok(listed) => return Ok(listed.items),
            Err(error) if error.is_forbidden() => error,
            Err(error) => return Err(error),
        };
        let (mut items, mut allowed) = (Vec::new(), false);
        for namespace in NAMESPACES {
            let listed = Api::<K>::namespaced(cluster.client.clone(), namespace).list_metadata(&params).await;
            match listed.map_err(|error| cluster.explain(doing, error)) {
                Ok(listed) => {
                    allowed = true;
                    items.extend(listed.items);
                }
                Err(error) if error.is_forbidden() => {}
                Err(error) => return Err(error),
            }
        }
        if allowed { Ok(items) } else { Err(refused) }
    }
}

fn leftover<K>(object: &PartialObjectMeta<K>, is_pod: bool) -> Leftover
where
    K: kube::Resource<DynamicType = ()>,
{
    Leftover {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        is_pod,
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

impl Leftover {
    /// Removes it; whether it was still there.
    pub async fn remove(&self, cluster: &Cluster) -> Result<bool, ApiError> {
        let params = DeleteParams::background();
        let client = cluster.client.clone();
        let result = if self.is_pod {
            Api::<Pod>::namespaced(client, &self.namespace).delete(&self.name, &params).await.map(|_| ())
        } else {
            Api::<Job>::namespaced(client, &self.namespace).delete(&self.name, &params).await.map(|_| ())
        };
        match result.map_err(|error| cluster.explain(format!("removing {self} in namespace {}", self.namespace), error)) {
            Err(error) if error.is_not_found() => Ok(false),
            result => result.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_found() {
        let all = Leftovers::default().selector();
        assert_eq!(all, "app.kubernetes.io/name=kubectl-knark,app.kubernetes.io/managed-by=kubectl-knark");
        let mine = Leftovers { user: Some("jane".into()), session: Some("0a".into()), namespace: None }.selector();
        assert_eq!(mine, format!("{all},knark.dev/session=0a,knark.dev/user=jane"));
    }
}

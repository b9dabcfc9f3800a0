//! `--watch`: policies that change while a trace runs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt as _, stream};
use knark_specs::policy::matcher::Policies;
use kube::{
    Api,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{PolicyFlags, Set, Source};
use crate::{cluster::Cluster, source::Input};

/// How often files are looked at. Editors replace files rather than write to them, and mounted ConfigMaps change by links, so
/// what a name stands for is what counts.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the policies in force were read from.
#[derive(Debug)]
pub struct Before {
    /// What [`state`] said before they were read.
    pub seen: Vec<(PathBuf, Option<SystemTime>, u64)>,
    /// What they were read from.
    pub sources: Vec<Source>,
    /// Whether requests to the Kubernetes API are traced: that is settled when the trace begins.
    pub requests: bool,
}

/// Reads the policies again whenever they change, until nobody listens. Those with an error don't replace the ones in force.
pub async fn follow(
    flags: PolicyFlags,
    cluster: Option<Cluster>,
    before: Before,
    policies: watch::Sender<Arc<Policies>>,
    out: mpsc::WeakSender<Input>,
) {
    let Before { mut seen, mut sources, requests } = before;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut objects = match cluster.as_ref().filter(|_| flags.from_cluster) {
        Some(cluster) => changes(cluster),
        None => stream::pending().boxed(),
    };
    // The watches begin with what is there already, and begin anew after an outage.
    let (mut dirty, mut failed) = (false, false);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let now = state(&flags.files);
                // What is still being written is left to the next look.
                let changing = now != seen;
                dirty |= changing;
                seen = now;
                if changing {
                    continue;
                }
            }
            changed = objects.next() => {
                dirty |= changed.is_some();
                continue;
            }
            () = policies.closed() => return,
        }
        if !dirty {
            continue;
        }
        let read = flags.read(cluster.as_ref()).await.map(Set::of);
        // What can't be read now is tried again.
        dirty = read.is_err();
        let text = match read {
            Err(_) if failed => continue,
            Err(error) => {
                failed = true;
                format!("the policies have changed and can't be read; the ones before stay in force: {error:#}")
            }
            Ok(set) if set.sources == sources => continue,
            Ok(set) => {
                (sources, failed) = (set.sources.clone(), false);
                change(set, &policies, requests)
            }
        };
        // The trace ends when its sources do, of which this is none.
        let Some(out) = out.upgrade() else { return };
        if out.send(Input::Warning(text.trim_end().to_owned())).await.is_err() {
            return;
        }
    }
}

/// Puts new policies in force if they can be used; says what became of them.
fn change(set: Set, policies: &watch::Sender<Arc<Policies>>, requests: bool) -> String {
    let rules = set.policies.rules().len();
    let complaints = set.complaints();
    if set.has_errors() {
        return format!("the policies have changed and can't be used; the ones before stay in force\n{complaints}");
    }
    if rules == 0 {
        return "the policies have changed and have no rules; the ones before stay in force".to_owned();
    }
    let unseen = if set.policies.wants_api() && !requests {
        "; those on api match nothing, since this trace began without them: begin another"
    } else {
        ""
    };
    policies.send_replace(Arc::new(set.policies));
    format!("the policies have changed; rules in force now: {rules}{unseen}\n{complaints}")
}

/// All files, with what changes when they do.
pub fn state(paths: &[PathBuf]) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let file = |path: &Path| {
        let data = fs::metadata(path).ok();
        (path.to_owned(), data.as_ref().and_then(|data| data.modified().ok()), data.map_or(0, |data| data.len()))
    };
    let mut all: Vec<_> = paths
        .iter()
        .flat_map(|path| {
            let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
            std::iter::once(path.clone()).chain(inside).map(|path| file(&path)).collect::<Vec<_>>()
        })
        .collect();
    all.sort();
    all
}

/// A word for each change of the policies in the cluster, after the first look.
fn changes(cluster: &Cluster) -> stream::BoxStream<'static, ()> {
    let watches = [("TracePolicy", "tracepolicies"), ("TraceList", "tracelists")].map(|(kind, plural)| {
        let kind = GroupVersionKind::gvk("knark.dev", "v1alpha1", kind);
        let api = Api::<DynamicObject>::all_with(cluster.client.clone(), &ApiResource::from_gvk_with_plural(&kind, plural));
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let events = events.filter_map(|event| async move {
            match event {
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => Some(()),
                _ => None,
            }
        });
        events.boxed()
    });
    stream::select_all(watches).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_changes_comes_into_force_unless_it_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.yaml");
        let policy = |path: &str| {
            format!(
                "apiVersion: knark.dev/v1alpha1\nkind: TracePolicy\nmetadata: {{name: p}}\nspec:\n  rules:\n  - name: {path}\n    file: {{paths: [/{path}]}}\n"
            )
        };
        fs::write(&file, policy("one")).unwrap();
        let flags = PolicyFlags { files: vec![file.clone()], ..PolicyFlags::default() };
        let seen = state(&flags.files);
        let set = Set::of(flags.read(None).await.unwrap());
        let before = Before { seen, sources: set.sources, requests: false };
        let (sender, mut policies) = watch::channel(Arc::new(set.policies));
        let (out, mut inputs) = mpsc::channel(4);
        let task = tokio::spawn(follow(flags, None, before, sender, out.downgrade()));
        tokio::task::yield_now().await;

        fs::write(&file, "kind: nonsense").unwrap();
        let Some(Input::Warning(text)) = inputs.recv().await else { panic!("no word came") };
        assert!(text.contains("stay in force") && text.contains("p.yaml"), "{text}");
        assert_eq!(policies.borrow_and_update().rules()[0].name, "one");

        fs::write(&file, policy("two")).unwrap();
        policies.changed().await.unwrap();
        assert_eq!(policies.borrow_and_update().rules()[0].name, "two");
        drop(policies);
        task.await.unwrap();
    }
}

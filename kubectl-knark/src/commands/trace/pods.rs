//! The pods of a trace: those that read logs begin, and all are removed at its end.

use futures::future::join_all;
use tokio::sync::{mpsc, watch};

use crate::{
    audit::AuditLogs,
    cluster::{NodeLogs, Remover, Running},
    exit::Exit,
    pipeline,
    source::Input,
};

/// Begins to read audit logs, those on nodes by pods of their own.
pub(super) fn begin(
    mut logs: AuditLogs,
    on_nodes: Option<NodeLogs>,
    stop: &watch::Sender<bool>,
    sink: mpsc::Sender<Input>,
) -> (anyhow::Result<()>, Vec<Running>) {
    let mut running = Vec::new();
    if let Some(on_nodes) = on_nodes {
        tell(on_nodes.warnings.clone(), sink.clone());
        for (stream, pod) in on_nodes.begin(&stop.subscribe()) {
            logs.add_stream(stream);
            running.push(pod);
        }
    }
    (logs.start(stop.clone(), sink), running)
}

/// There may be more warnings than a sink has room for that nobody reads yet.
fn tell(warnings: Vec<String>, sink: mpsc::Sender<Input>) {
    tokio::spawn(async move {
        for warning in warnings {
            let _ = sink.send(Input::Warning(warning)).await;
        }
    });
}

/// Shows what is left, and removes what was made in the cluster.
pub(super) async fn end(
    ended: anyhow::Result<pipeline::Ended>,
    stop: &watch::Sender<bool>,
    running: Vec<Running>,
    signals: &mut mpsc::Receiver<()>,
) -> anyhow::Result<Exit> {
    stop.send_replace(true);
    let hurried = ended.as_ref().is_ok_and(pipeline::Ended::is_hurried);
    let removers: Vec<_> = running.iter().map(Running::remover).collect();
    let removed = async {
        if hurried {
            // What this can't remove, the regular end tries again.
            join_all(removers.iter().map(Remover::remove)).await;
        }
        let mut removed = join_all(running.into_iter().map(Running::finish)).await;
        let first = removed.iter().position(Result::is_err).map(|at| removed.swap_remove(at));
        removed.iter().filter_map(|removed| removed.as_ref().err()).for_each(crate::exit::warn);
        first.unwrap_or(Ok(()))
    };
    let mut removed = std::pin::pin!(removed);
    let mut early = None;
    // A slow reader of the output doesn't keep pods in the cluster.
    let shown = {
        let shown = async {
            match ended {
                Ok(ended) => ended.finish(signals).await,
                Err(error) => Err(error),
            }
        };
        let mut shown = std::pin::pin!(shown);
        loop {
            tokio::select! {
                shown = &mut shown => break shown,
                removed = &mut removed, if early.is_none() => early = Some(removed),
            }
        }
    };
    let removed = if let Some(removed) = early {
        removed
    } else {
        tokio::select! {
            removed = removed => removed,
            Some(()) = signals.recv() => Err(give_up(&removers)),
        }
    };
    if let (Err(_), Err(left)) = (&shown, &removed) {
        crate::exit::warn(left);
    }
    let exit = shown?;
    removed?;
    Ok(exit)
}

/// What may still be there.
fn give_up(removers: &[Remover]) -> anyhow::Error {
    let mut left = removers.iter().map(Remover::give_up);
    let last = left.next_back();
    left.for_each(|left| crate::exit::warn(&left));
    last.unwrap_or_else(|| anyhow::anyhow!("the end was not waited for"))
}

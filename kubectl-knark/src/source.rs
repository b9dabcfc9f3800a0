//! What reaches the pipeline, wherever it comes from: tracer pods, a local child, audit logs, or a recording.

use knark_specs::frame::{Pod, Up};
use tokio::sync::mpsc;

/// A source's next word. Nodes are numbered from 0 in the order in which they appear.
#[derive(Debug)]
pub enum Input {
    /// A tracer is being started on this node.
    Node {
        /// Its number from now on.
        node: u32,
        /// Its name; empty in local mode, until Hello tells the host's.
        name: String,
    },
    /// What that node is doing meanwhile, for the progress line: `scheduling`, `pulling the image`, `attaching probes`.
    Phase {
        /// Which node.
        node: u32,
        /// What it does.
        phase: String,
    },
    /// A message of that node's tracer: Hello, Batch, Status or Bye.
    Up {
        /// Which node.
        node: u32,
        /// What it said.
        message: Up,
    },
    /// The node's clock minus this machine's, in ns, newly measured.
    Clock {
        /// Which node.
        node: u32,
        /// The difference.
        offset_ns: i64,
    },
    /// What the API server knows of a wanted pod.
    Pod(Pod),
    /// That pod is gone.
    PodGone {
        /// Its UID as its cgroup bears it.
        uid: String,
    },
    /// Something that the user should know at once, though the trace goes on.
    Warning(String),
    /// The node's stream is over: after Bye without an error, otherwise with what went wrong.
    Gone {
        /// Which node.
        node: u32,
        /// What went wrong.
        error: Option<anyhow::Error>,
    },
}

/// Takes what a source says whose nodes come after `first` others.
pub fn after(first: u32, out: mpsc::Sender<Input>) -> mpsc::Sender<Input> {
    if first == 0 {
        return out;
    }
    // `out` has room enough; what waits there is waited for.
    let (sender, mut inputs) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(mut input) = inputs.recv().await {
            if let Input::Node { node, .. }
            | Input::Phase { node, .. }
            | Input::Up { node, .. }
            | Input::Clock { node, .. }
            | Input::Gone { node, .. } = &mut input
            {
                *node = node.saturating_add(first);
            }
            if out.send(input).await.is_err() {
                break;
            }
        }
    });
    sender
}

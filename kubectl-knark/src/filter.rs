//! What is shown of a recording, and of requests to the Kubernetes API. All else of a live trace is filtered by the tracer, long
//! before this.

mod requests;

use knark_specs::{
    event::{Event, What},
    frame::FileOp,
};

pub use requests::RequestFilter;

/// Conditions, joined by and; the values of one are joined by or, and an empty list sets none.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Filters (each repeatable or separated by commas)")]
pub struct Filter {
    /// Kinds of events: exec, file, exit, api, write, map-exec
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    pub on: Vec<Kind>,
    /// Namespaces
    #[arg(short, long = "namespace", value_name = "NAME", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Pods
    #[arg(long = "pod", value_name = "NAME", value_delimiter = ',')]
    pub pods: Vec<String>,
    /// Containers, by name, id or the beginning of an id
    #[arg(short, long = "container", value_name = "NAME", value_delimiter = ',')]
    pub containers: Vec<String>,
    /// Nodes
    #[arg(long = "node", value_name = "NAME", value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// These processes and their descendants
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Names of processes, as ps -o comm shows them
    #[arg(long = "comm", value_name = "NAME", value_delimiter = ',')]
    pub comms: Vec<String>,
    /// Paths of executables
    #[arg(long = "exe", value_name = "PATH", value_delimiter = ',')]
    pub exes: Vec<String>,
    #[command(flatten)]
    pub requests: RequestFilter,
}

/// `--on`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Executions of programs
    Exec,
    /// Operations on files
    File,
    /// Ends of processes
    Exit,
    /// Requests to the Kubernetes API
    Api,
    /// Writes to files through what is open or mapped: the first of each process through each open file
    Write,
    /// Mappings of files that are to be executed, such as libraries: the first by each process
    MapExec,
}

impl Kind {
    /// The operation that it names, if it is one that is watched only where it is named.
    pub fn op(self) -> Option<FileOp> {
        match self {
            Kind::Write => Some(FileOp::Write),
            Kind::MapExec => Some(FileOp::MapExec),
            Kind::Exec | Kind::File | Kind::Exit | Kind::Api => None,
        }
    }
}

impl Filter {
    /// Whether the event meets all conditions.
    pub fn wants(&self, event: &Event) -> bool {
        let process = &event.process;
        let kind = match &event.what {
            What::Exec { .. } => Kind::Exec,
            What::File { .. } => Kind::File,
            What::Exit { .. } => Kind::Exit,
            What::Api { .. } => Kind::Api,
        };
        let is_named = |name: &String, actual: Option<&String>| actual.is_some_and(|actual| actual == name);
        // A request is where its object is, not where the API server runs.
        let namespace = match &event.what {
            What::Api { api } => Some(&api.namespace),
            _ => event.kubernetes.as_ref().map(|pod| &pod.namespace),
        };
        let op = if let What::File { file } = &event.what { Some(file.op) } else { None };
        any(&self.on, |wanted| *wanted == kind || wanted.op().is_some() && wanted.op() == op)
            && any(&self.namespaces, |name| is_named(name, namespace))
            && any(&self.pods, |name| is_named(name, event.kubernetes.as_ref().map(|k| &k.pod)))
            && any(&self.containers, |name| {
                event.container.as_ref().is_some_and(|c| c.name == *name || !name.is_empty() && c.id.starts_with(name.as_str()))
            })
            && any(&self.nodes, |name| event.node.name == *name)
            && any(&self.pids, |pid| process.pid == *pid || process.ancestors.iter().any(|a| a.pid == *pid))
            && any(&self.comms, |comm| process.comm == *comm || event.thread.as_ref().is_some_and(|t| t.comm == *comm))
            && any(&self.exes, |exe| process.exe == *exe)
            && match &event.what {
                What::Api { api } => self.requests.wants(api),
                _ => event.cause.as_ref().is_none_or(|cause| self.requests.wants_user(cause)),
            }
    }
}

fn any<T>(wanted: &[T], is_met: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is_met)
}

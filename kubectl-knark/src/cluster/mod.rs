//! Everything that touches the API server.
//!
//! - [`client`]: kubectl's connection flags, with [`kubeconfig`] and [`error`].
//! - [`target`]: what the user typed; [`resolve`]: what it means in this cluster; [`pods`], [`outage`]: keeping up with it.
//! - [`manifest`], [`tracer`], [`diagnose`]: tracer pods, from making them to their removal.
//! - [`exec`], [`stream`]: the connection to each; [`start`], [`session`]: all of it together.
//! - [`logs`]: audit logs that lie on nodes, read by such pods.
//! - [`complete`]: names for the shell's completion.
//! - [`cleanup`]: what earlier sessions left; [`examine`], [`rights`]: what nodes can do, and users may.

mod cleanup;
mod client;
mod complete;
mod control_plane;
mod diagnose;
mod error;
mod examine;
mod exec;
mod kubeconfig;
mod logs;
mod manifest;
mod outage;
mod own;
mod pods;
mod resolve;
pub mod rights;
mod selector;
mod session;
mod start;
mod stream;
mod target;
mod tracer;

pub use cleanup::Leftovers;
pub use client::{Cluster, ConnectionFlags};
pub use examine::Examination;
pub use logs::{LogPlace, LogRequest, LogStream, NodeLogs};
pub use own::OwnRequests;
pub use rights::Right;
pub use session::{Remover, Running};
pub use start::{ClusterRequest, DEFAULT_IMAGE, TracerFlags, start, user_name};
pub use target::{NodeChoice, TargetFlags};

//! The contract between the tracer, the plugin and the user: events, the frames that carry them, and their schema.
//!
//! Everything here is pure: no I/O, no clock, no unsafe, and no knowledge of aya or kube.
//!
//! - [`event`]: what the user sees, as JSON shows it.
//! - [`frame`]: the messages between tracer and plugin.
//! - [`packet`]: how messages become bytes, and back.
//! - [`assemble`]: frames in, events out.
//! - [`audit`]: requests out of the API server's audit log.
//! - [`body`]: bodies of requests to the Kubernetes API, without secrets.
//! - [`path`]: joining the path that a syscall was given to the directory that it was given in.
//! - [`texts`]: lists of texts that stay small in memory.
//! - [`policy`]: what a user writes to say what matters.
//! - [`alert`]: events that policies match.
//! - [`cel`]: conditions on events.
//! - [`template`]: messages with an event's fields in them.
//! - [`problem`]: what is wrong with it, and where.
//! - [`yaml`]: YAML with positions.
//! - [`structure`]: whether a value has the structure that a JSON Schema asks for.
//! - [`packs`]: the policies that are shipped.
//! - [`cases`]: policies, events, and what must match.
//! - [`foreign`]: the formats of the systems that came before.
//! - [`typed`]: from YAML to typed values.
//! - [`crd`]: policies as objects of a cluster.
//! - [`query`]: the parameters of a request.
//! - [`resource`]: names of the API's resources.
//! - [`request`]: what a request to the Kubernetes API is about.
//! - [`linux`]: names of the kernel's numbers: open flags, errno, signals, modes.

pub mod alert;
pub mod assemble;
pub mod audit;
pub mod body;
pub mod cases;
pub mod cel;
pub mod config;
pub mod crd;
pub mod event;
pub mod foreign;
pub mod frame;
pub mod link;
pub mod linux;
pub mod packet;
pub mod packs;
pub mod path;
pub mod policy;
pub mod problem;
pub mod query;
pub mod redact;
pub mod request;
pub mod resource;
pub mod structure;
pub mod template;
pub mod texts;
pub mod typed;
pub mod yaml;

/// The version of the stream between plugin and tracer. Both must speak the same one; fields may be added within a version.
pub const PROTOCOL: u32 = 1;

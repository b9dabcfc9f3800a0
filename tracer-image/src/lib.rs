//! The tracer: loads the probes, names the containers, streams the events. It is a pod's only binary, and in local mode a
//! child of the plugin.
//!
//! The way of an event: [`bpf`] takes it from the kernel, [`containers`] says whose it is and whether it is wanted ([`hold`]
//! keeps it while that isn't known), [`processes`] says who did it, [`encode`] makes an item of it, [`outbox`] keeps it until
//! the plugin has it. [`engine`] is that way as one loop; [`session`] is the plugin's end of it.

pub mod api;
pub mod batch;
pub mod bpf;
pub mod bundle;
pub mod cgroup_path;
pub mod clock;
pub mod connect;
pub mod containers;
pub mod doctor;
pub mod encode;
pub mod engine;
pub mod hold;
pub mod local;
pub mod outbox;
pub mod processes;
pub mod procfs;
pub mod same;
pub mod serve;
pub mod session;

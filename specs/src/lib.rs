//! The contract between the tracer, the plugin and the user: events, the frames that carry them, and their schema.
//!
//! Everything here is pure: no I/O, no clock, no unsafe, and no knowledge of aya or kube.
//!
//! - [`event`]: what the user sees, as JSON shows it.
//! - [`frame`]: the messages between tracer and plugin.
//! - [`packet`]: how messages become bytes, and back.
//! - [`assemble`]: frames in, events out.
//! - [`path`]: joining the path that a syscall was given to the directory that it was given in.
//! - [`texts`]: lists of texts that stay small in memory.
//! - [`linux`]: names of the kernel's numbers: open flags, errno, signals, modes.

pub mod assemble;
pub mod event;
pub mod frame;
pub mod linux;
pub mod packet;
pub mod path;
pub mod texts;

/// The version of the stream between plugin and tracer. Both must speak the same one; fields may be added within a version.
pub const PROTOCOL: u32 = 1;

//! What the eBPF programs write and user space reads: the layout of ring records, map keys and values, and the constants
//! that user space hands to the programs before they are loaded.
//!
//! Every type is `repr(C)`, has no implicit padding, and its size is asserted, since two compilers with two targets build
//! this crate. A record is a [`Header`], then a body that its kind fixes, then the strings whose lengths the body gives,
//! one after another and without terminators.
#![no_std]

mod api;
mod config;
mod op;
mod record;
mod storm;

pub use api::*;
pub use config::*;
pub use op::*;
pub use record::*;
pub use storm::*;

/// Longest string that one path part may have in a record, `PATH_MAX` without its terminator.
pub const PATH_BYTES: usize = 4095;

/// The in-flight map for ordinary path calls holds records of up to this size.
pub const INFLIGHT_SMALL: usize = 512;

/// The largest record: the path calls that take two paths.
pub const RECORD_BYTES: usize = 16 << 10;

/// Bytes of arguments that one continuation record carries.
pub const ARGS_CHUNK: usize = 8 << 10;

/// Bytes of arguments that are copied at most, all records together.
pub const ARGS_BYTES: usize = 64 << 10;

/// Bytes of arguments that the exec record itself carries; longer ones come in continuation records.
pub const ARGS_INLINE: usize = 2 << 10;

/// An exe that is a condition of the scope, zero padded.
pub type ExeKey = [u8; 256];

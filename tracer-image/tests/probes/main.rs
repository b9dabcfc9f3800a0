//! The probes on this machine's kernel. They take root.
//!
//! A test's work runs in a process of its own, and nothing else is in scope: other tests and other programs may run
//! meanwhile. Most tests share one set of probes, since the kernel takes seconds to take one away.

#![expect(unsafe_code, reason = "the tests make system calls as hostile programs would, past libc's and Rust's care")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "C's types, whose values are small here"
)]
#![expect(clippy::unused_self, clippy::too_many_lines, reason = "tables, and a name for what a work may do")]

#[cfg(target_arch = "x86_64")]
mod bodies;
mod calls;
#[cfg(target_arch = "x86_64")]
mod coverage;
mod exec;
mod harness;
mod loss;
mod paths;
#[cfg(target_arch = "x86_64")]
mod processes;
mod races;
mod same;
mod scopes;
mod storms;
mod wanted;
#[cfg(target_arch = "x86_64")]
mod ways;
#[cfg(target_arch = "x86_64")]
mod writes;

//! The probes on this machine's kernel. They take root.
//!
//! A test's work runs in a process of its own, and nothing else is in scope: other tests and other programs may run
//! meanwhile. Most tests share one set of probes, since the kernel takes seconds to take one away.

#![expect(unsafe_code, reason = "the tests make system calls as hostile programs would, past libc's and Rust's care")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod calls;
mod exec;
mod harness;
mod loss;
mod paths;
mod races;
mod scopes;

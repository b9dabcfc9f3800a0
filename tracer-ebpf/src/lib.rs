//! Empty: cargo wants a library, so that the tracer's build script can depend on this crate and be run again when the
//! programs change.
#![no_std]

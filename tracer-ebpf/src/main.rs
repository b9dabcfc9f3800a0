//! The eBPF programs. One probe per file, under `probes`; what they share lies beside it:
//!
//! - `kernel`: constants from user space, and reads of kernel and user memory
//! - `maps`: what is shared with user space
//! - `scope`: whether an event is wanted, before anything else is done for it
//! - `wanted`: the same for what is done to a file, as soon as that and the path are known
//! - `same`: the same for files that are watched under whatever name
//! - `scratch`: memory to build records in
//! - `record`: building a record and handing it over, or counting its loss
//! - `storm`: repeats of file events, and those beyond the rate limit, which are counted instead
//! - `begun`: path calls between their beginnings and their ends
//! - `precise`: the kernel's functions that do what is asked of a file, whoever asks; `attribute`: those for extended attributes
//! - `go`: registers, texts and maps of Go programs; `api`: steps of requests to the Kubernetes API; `body`: what they carry
//! - `opened`: the record of an open
//! - `once`: the first write through an open file, and the first mapping of a file's code
//! - `head`, `file`, `walk`, `call`: what goes into a record; `namespaces`: the ids that a process knows itself by
//!
//! Nothing here knows policies. No program stops, slows or changes what it watches. The programs are loaded separately:
//! what the kernel can't do is left out by user space, or removed by the verifier behind a constant.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(internal_features, reason = "the target can add atomically, and nothing else; core::sync::atomic offers all or nothing")]
#![feature(core_intrinsics)]

mod api;
mod attribute;
mod begun;
mod body;
mod call;
mod file;
mod go;
mod head;
mod kernel;
mod maps;
mod namespaces;
mod once;
mod opened;
mod precise;
mod probes;
mod record;
mod same;
mod scope;
mod scratch;
mod storm;
mod walk;
mod wanted;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse a program that could get here.
    loop {}
}

/// The kernel keeps most helpers for programs that say they are under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

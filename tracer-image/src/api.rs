//! Requests to the Kubernetes API, seen inside of the API servers that run on this node.
//!
//! [`servers`] finds them and attaches the probes, [`binary`] finds out where in their program ([`code`] decodes it, [`inspection`] bounds
//! it), [`plausible`] says whether that can be, and [`requests`] joins what the probes tell of a request, [`bodies`] what it carries.

pub mod binary;
pub mod bodies;
pub mod code;
pub mod inspection;
pub mod plausible;
pub mod requests;
pub mod servers;

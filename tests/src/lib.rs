//! What the end-to-end tests share.

pub mod api_server;
pub mod audit;
pub mod cgroups;
pub mod cluster;
pub mod console;
pub mod load;
pub mod program;
pub mod recording;
pub mod soak;

//! `kubectl knark`: what pods execute and which files they touch, live, with nothing installed in the cluster.

mod alert_to;
mod audit;
mod bodies;
mod btf;
mod cli;
mod cluster;
mod commands;
mod config;
mod connection;
mod exit;
mod filter;
mod local;
mod pipeline;
mod policies;
mod record;
mod render;
mod signals;
mod source;
mod tui;

fn main() -> std::process::ExitCode {
    cli::parse().and_then(|cli| commands::run(cli.command)).unwrap_or_else(|error| exit::report(&error)).into()
}

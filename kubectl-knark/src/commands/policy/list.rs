//! `kubectl knark policy list`: the shipped packs.

use comfy_table::{Table, presets};
use knark_specs::packs;

use crate::{
    commands::print,
    exit::Exit,
    policies::{Set, pack},
};

/// List the shipped policies
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Lists.
pub fn run(_: &Args) -> anyhow::Result<Exit> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAME", "RULES", "WHAT IT WATCHES FOR"]);
    for shipped in packs::all() {
        let rules = Set::of(pack(shipped.name).into_iter().collect()).policies.rules().len();
        table.add_row([shipped.name.to_owned(), rules.to_string(), shipped.intent.to_owned()]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    print(&format!("{}\n", table.trim_fmt()))
}

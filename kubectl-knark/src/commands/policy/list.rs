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
pub struct Args {
    /// Output format; a table if not given
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// One object with all packs
    Json,
    /// The names alone
    Name,
}

/// A pack, for programs.
#[derive(Debug, serde::Serialize)]
struct Pack {
    name: &'static str,
    rules: usize,
    intent: &'static str,
}

/// Lists.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let packs = packs::all().iter().map(|shipped| Pack {
        name: shipped.name,
        rules: Set::of(pack(shipped.name).into_iter().collect()).policies.rules().len(),
        intent: shipped.intent,
    });
    match args.output {
        Some(Format::Name) => {
            let names: Vec<_> = packs.map(|pack| pack.name).collect();
            return print(&(names.join("\n") + "\n"));
        }
        Some(Format::Json) => {
            let packs: Vec<_> = packs.collect();
            return print(&format!("{}\n", serde_json::to_string_pretty(&serde_json::json!({ "packs": packs }))?));
        }
        None => {}
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NAME", "RULES", "WHAT IT WATCHES FOR"]);
    for Pack { name, rules, intent } in packs {
        table.add_row([name.to_owned(), rules.to_string(), intent.to_owned()]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    print(&format!("{}\n", table.trim_fmt()))
}

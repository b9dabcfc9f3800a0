//! `kubectl knark policy`: everything about policies that needs no trace.

mod convert;
mod explain;
mod list;
mod show;
mod test;
mod validate;

use crate::exit::Exit;

/// Validate, test and explain policies
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Validate(Box<validate::Args>),
    Test(test::Args),
    Explain(Box<explain::Args>),
    List(list::Args),
    Show(show::Args),
    Convert(convert::Args),
}

/// Does what the user asked for.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    match args.command {
        Command::Validate(args) => validate::run(*args).await,
        Command::Test(args) => test::run(&args),
        Command::Explain(args) => explain::run(*args).await,
        Command::List(args) => list::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Convert(args) => convert::run(&args),
    }
}

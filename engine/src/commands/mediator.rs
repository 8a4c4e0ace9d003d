//! `tribunal mediator …`: what the operator of a mediator does: stake, inbox, history, record, watch. One module a
//! subcommand.

mod history;
pub mod inbox;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

/// Your mediator: its stake on chain, its cases, what it signed and earned.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tribunal mediator inbox --config tribunal.toml")]
pub struct Args {
    #[command(subcommand)]
    command: Mediator,
}

#[derive(Debug, Subcommand)]
enum Mediator {
    /// Cases that name or draw this mediator, the most urgent first.
    Inbox(inbox::Args),
    /// What this machine's keys signed or mean to sign: list, export, import.
    History(history::Args),
    /// Check finished cases of others again, and say what does not fit.
    Watch(watch::Args),
}

/// Runs the command.
///
/// # Errors
/// A sentence and an exit code.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    match args.command {
        Mediator::Inbox(args) => inbox::run(args, json),
        Mediator::History(args) => history::run(args, json),
        Mediator::Watch(args) => watch::run(args, json).await,
    }
}

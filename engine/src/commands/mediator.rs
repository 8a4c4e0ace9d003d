//! `tribunal mediator …`: what the operator of a mediator does: stake, inbox, history, record, watch. One module a
//! subcommand.

mod earnings;
mod inbox;

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
    /// What a mediator earned, lost and is worth, case by case.
    Earnings(earnings::Args),
}

/// Runs the command.
///
/// # Errors
/// A sentence and an exit code.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    match args.command {
        Mediator::Inbox(args) => inbox::run(args, json),
        Mediator::Earnings(args) => earnings::run(args, json),
    }
}

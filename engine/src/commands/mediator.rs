//! `tribunal mediator …`: what the operator of a mediator does: stake, inbox, history, record, watch. One module a
//! subcommand.

mod earnings;
mod history;
mod inbox;
mod registry;
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
    /// Say on chain whose word on your silence you take, and put up what you stake. Sends only what is not so already.
    Register(registry::RegisterArgs),
    /// Bond more tokens.
    Bond(registry::BondArgs),
    /// Start to take tokens out of the bond, or take what has waited long enough.
    Unbond(registry::UnbondArgs),
    /// Take what slashes of others left to this account.
    Collect(registry::CollectArgs),
    /// Stake, standing and balances on chain.
    Status(registry::StatusArgs),
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
        Mediator::History(args) => history::run(args, json),
        Mediator::Watch(args) => watch::run(args, json).await,
        Mediator::Register(args) => registry::register(args, json).await,
        Mediator::Bond(args) => registry::bond(args, json).await,
        Mediator::Unbond(args) => registry::unbond(args, json).await,
        Mediator::Collect(args) => registry::collect(args, json).await,
        Mediator::Status(args) => registry::status(args, json).await,
        Mediator::Earnings(args) => earnings::run(args, json),
    }
}

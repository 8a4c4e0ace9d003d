//! `tribunal mediator inbox`.

use std::{path::PathBuf, process::ExitCode};

use crate::failure::Failure;

/// Cases that name or draw this mediator, the most urgent first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tribunal mediator inbox --config tribunal.toml")]
pub struct Args {
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(args: Args, _json: bool) -> Result<ExitCode, Failure> {
    let (_config, _) = crate::config::load(args.config.as_ref(), &[])?;
    Ok(ExitCode::SUCCESS)
}

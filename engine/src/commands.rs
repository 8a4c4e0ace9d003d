//! The command line: one module a command, each with its arguments, its output and its exit codes.

pub mod audit;
pub mod bundle;
pub mod contracts;
pub mod deals;
pub mod demo;
pub mod import;
pub mod keys;
pub mod log;
pub mod market;
pub mod mediator;
pub mod policy;
mod progress;
pub mod reputation;
pub mod serve;
pub mod sign;
pub mod store;
pub mod submit;
pub mod verify;
pub mod worker;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::failure::{EXIT_USAGE, Failure};

/// Mediation and verification for decentralised compute markets.
#[derive(Debug, Parser)]
#[command(name = "tribunal", version, propagate_version = true)]
pub struct Cli {
    /// Print JSON for machines.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play every recorded deal through the whole engine, then serve the page.
    Demo(demo::Args),
    /// Run the engine.
    Serve(serve::Args),
    /// Sign an event and print the envelope.
    Sign(sign::Args),
    /// Send signed envelopes and wait for their receipts.
    Submit(submit::Args),
    /// List deals or show one.
    Deals(deals::Args),
    /// Check one claim; needs no store.
    Verify(verify::Args),
    /// Replay past deals and find what does not fit.
    Audit(audit::Args),
    /// Past deals of other marketplaces, from what their contracts said.
    Import(import::Args),
    /// Portable evidence for one deal.
    Bundle(bundle::Args),
    /// Check, back up and restore the store.
    Store(store::Args),
    /// The record as a transparency log: checkpoints and proofs.
    Log(log::Args),
    /// Operator keys as encrypted keystores.
    Keys(keys::Args),
    /// The contracts on a chain of your own.
    Contracts(contracts::Args),
    /// Which deals this operator would judge, and why.
    Policy(policy::Args),
    /// Your mediator: its stake on chain, its cases, what it signed and earned.
    Mediator(mediator::Args),
    /// Cases of marketplaces that this operator judges for.
    Market(market::Args),
    /// What the record says of providers, and which of their results to check.
    Reputation(reputation::Args),
    /// Do verifications for engines of the same operator.
    Worker(worker::Args),
}

/// Parses the command line, runs the command and gives its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors; all else is bad usage.
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::unavailable(format!("no threads to run on: {error}"))),
    };
    let json = cli.json;
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args, json).await,
            Command::Serve(args) => serve::run(args, json).await,
            Command::Sign(args) => sign::run(args, json),
            Command::Submit(args) => submit::run(args, json).await,
            Command::Deals(args) => deals::run(args, json),
            Command::Verify(args) => verify::run(args, json).await,
            Command::Audit(args) => audit::run(args, json).await,
            Command::Import(args) => import::run(args, json).await,
            Command::Bundle(args) => bundle::run(args, json).await,
            Command::Store(args) => store::run(args, json).await,
            Command::Log(args) => log::run(args, json).await,
            Command::Keys(args) => keys::run(args, json),
            Command::Contracts(args) => contracts::run(args, json).await,
            Command::Policy(args) => policy::run(args, json),
            Command::Mediator(args) => mediator::run(args, json).await,
            Command::Market(args) => market::run(args, json).await,
            Command::Reputation(args) => reputation::run(&args, json),
            Command::Worker(args) => worker::run(args, json).await,
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    outcome.unwrap_or_else(|failure| report(&failure))
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("tribunal: {failure}");
    ExitCode::from(failure.code)
}

/// A sign of life on stderr for what takes more than a second; nothing where nobody watches.
pub fn spinner(what: &'static str) -> indicatif::ProgressBar {
    use std::io::IsTerminal as _;
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

/// Logs to stderr; `RUST_LOG` says how much, else `default`.
pub fn logs(default: &str) {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}

/// Resolves when this process is asked to stop.
pub async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

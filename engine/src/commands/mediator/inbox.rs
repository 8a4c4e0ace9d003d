//! `tribunal mediator inbox`.

use std::{path::PathBuf, process::ExitCode};

use tribunal_events::{Address, Timestamp};

use crate::{
    config::{self, Config},
    engine::now,
    failure::Failure,
    keystore,
    mediator::inbox::{self, Case},
    store::Store,
};

/// Cases that name or draw this mediator, the most urgent first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads the store beside a running engine, and the copies of the records that it follows.\n\nExample:\n  tribunal mediator inbox --config tribunal.toml"
)]
pub struct Args {
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The store; default: store.path.
    #[arg(long)]
    store: Option<PathBuf>,
    /// Whose inbox; default: the mediator of the settings. Repeatable.
    #[arg(long)]
    address: Vec<Address>,
    /// Only cases that ask something now.
    #[arg(long)]
    urgent: bool,
}

/// Runs the command.
///
/// # Errors
/// 78 where nobody's inbox is asked for, 69 where the store cannot be read.
pub fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let (config, _): (Config, _) = config::load(args.config.as_ref(), &[])?;
    let addresses = mediators(&config, args.address)?;
    let mut stores = vec![args.store.unwrap_or_else(|| config.store.path.clone())];
    let followed = std::fs::read_dir(config.followed()).into_iter().flatten().flatten();
    stores.extend(followed.map(|entry| entry.path()).filter(|path| path.is_dir()));
    let mut cases: Vec<Case> = Vec::new();
    for path in stores {
        let store = Store::open_read_only(&path).map_err(Failure::unavailable)?;
        cases.extend(inbox::inbox(&store, &addresses).map_err(Failure::unavailable)?);
    }
    inbox::sort(&mut cases);
    cases.retain(|case| !args.urgent || case.stage.is_our_turn());
    if json {
        println!("{}", serde_json::to_string(&cases).expect("cases have a JSON form"));
        return Ok(ExitCode::SUCCESS);
    }
    if cases.is_empty() {
        println!("No case names or draws {}.", list(&addresses));
    }
    for case in &cases {
        let left = case.deadline.map_or_else(|| "no deadline".to_owned(), |at| left(at, now()));
        let round = case.round.map_or_else(String::new, |round| format!(" round {round}"));
        println!("{}  {}{round}  {left}", case.deal_id, case.stage.word());
        println!(
            "    {}; pays {} ({} if nobody can tell), silence costs up to {}",
            case.asks, case.pays, case.pays_inconclusive, case.slash
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The addresses given, else the mediator of the settings, without its password.
///
/// # Errors
/// 78 where there is none.
fn mediators(config: &Config, given: Vec<Address>) -> Result<Vec<Address>, Failure> {
    if !given.is_empty() {
        return Ok(given);
    }
    match keystore::mediator_address(&config.mediator)? {
        Some(address) => Ok(vec![address]),
        None => Err(Failure::config("no mediator: set mediator.keystore, or give --address ADDRESS")),
    }
}

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(|address| format!("{address:#x}")).collect::<Vec<_>>().join(", ")
}

/// "12 min 3 s left", or how long it is over.
fn left(deadline: Timestamp, now: Timestamp) -> String {
    let (seconds, word) = match deadline.us().checked_sub(now.us()) {
        Some(left) => (left / 1_000_000, "left"),
        None => ((now.us() - deadline.us()) / 1_000_000, "over"),
    };
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s {word}"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s {word}"),
        (hours, minutes, _) => format!("{hours} h {minutes} min {word}"),
    }
}

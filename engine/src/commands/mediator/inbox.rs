//! `tribunal mediator inbox`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use tribunal_events::{Address, Timestamp};

use crate::{
    config::{self, Config},
    engine::now,
    failure::Failure,
    keystore,
    mediator::inbox::{self, Case},
    moment,
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
    let read = |path: &Path| inbox::inbox(&Store::open_read_only(path)?, &addresses);
    let mut cases: Vec<Case> = read(args.store.as_ref().unwrap_or(&config.store.path)).map_err(Failure::unavailable)?;
    for entry in std::fs::read_dir(config.followed()).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        match read(&path) {
            Ok(found) => cases.extend(found),
            // Being made, or damaged: what the others ask must be seen all the same.
            Err(fault) => eprintln!("warning: the copy in {} is left out: {fault}", path.display()),
        }
    }
    inbox::sort(&mut cases);
    let none = cases.is_empty();
    cases.retain(|case| !args.urgent || case.stage.is_our_turn());
    if json {
        println!("{}", serde_json::to_string(&cases).expect("cases have a JSON form"));
        return Ok(ExitCode::SUCCESS);
    }
    if none {
        println!("No case names or draws {}.", list(&addresses));
    } else if cases.is_empty() {
        println!("No case asks anything of {} now.", list(&addresses));
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
    match deadline.us().checked_sub(now.us()) {
        Some(left) => format!("{} left", moment::duration(left / 1_000_000)),
        None => format!("{} over", moment::duration((now.us() - deadline.us()) / 1_000_000)),
    }
}

//! `tribunal reputation`.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use serde_json::json;
use tribunal_events::Address;

use crate::{
    config,
    failure::Failure,
    policy::Preflight,
    reputation::{Reputation, Reputations},
    store::Store,
};

/// Exit code where nobody of that account is in the record.
const EXIT_NOT_FOUND: u8 = 2;

/// What the record says of providers, and which of their undisputed results to check.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Trust comes from results that were checked, not from accepted ones. With --seed the results that nobody disputed are listed, with the probability of a check and whether this seed selects it: take a seed that nobody knew when the results were given. `tribunal audit --reverify ID…` checks them.\n\nExit codes: 0, 2 no such provider.\n\nExample:\n  tribunal reputation\n  tribunal reputation 0x70997970c51812dc3a010c7d01b50e0d17dc79c8 --at 1200\n  tribunal reputation --seed 0x8b1f…"
)]
pub struct Args {
    /// A provider; default: all of them.
    #[arg(value_name = "ADDRESS")]
    provider: Option<Address>,
    /// 32 bytes in hex: selects results to check.
    #[arg(long, value_parser = seed, value_name = "HEX", conflicts_with = "provider")]
    seed: Option<[u8; 32]>,
    /// As it stood when the log had this many records.
    #[arg(long, value_name = "POSITION")]
    at: Option<u64>,
    /// The configuration, whose `[policy]` says from which probability on cheating does not pay.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The store; default: store.path of the configuration.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

fn seed(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text)).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| "a seed is 64 hex digits".to_owned())
}

/// Runs the command.
///
/// # Errors
/// 2 for a provider that is in no deal, 69 where there is no store.
pub fn run(args: &Args, json: bool) -> Result<ExitCode, Failure> {
    let (config, _) = config::load(args.config.as_ref(), &[])?;
    let path = args.store.as_ref().unwrap_or(&config.store.path);
    let store = Store::open_read_only(path).map_err(Failure::unavailable)?;
    let known = Reputations::read(&store, args.at).map_err(Failure::unavailable)?;
    let text = match (&args.seed, &args.provider) {
        (Some(seed), _) => {
            let (policy, limits) = (config.policy.clone(), config.verifiers.limits());
            selected(&known, seed, &Preflight { policy, limits, mediators: Vec::new() }, json)
        }
        (None, Some(provider)) => match known.of(provider) {
            Some(found) => providers(&[found], json),
            None => {
                let sentence = format!("{provider:#x} is the provider of no deal here");
                return Err(Failure::new(EXIT_NOT_FOUND, sentence));
            }
        },
        (None, None) => providers(&known.all().collect::<Vec<_>>(), json),
    };
    // Whoever reads may stop reading.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn providers(found: &[&Reputation], json: bool) -> String {
    if json {
        let one = |it: &&Reputation| {
            let mut json = json!(it);
            json["check_ppm"] = it.check_ppm().into();
            json
        };
        return format!("{}\n", json!({ "providers": found.iter().map(one).collect::<Vec<_>>() }));
    }
    let mut text = format!(
        "{:<42}  {:>7}  {:>8}  {:>5}  {:>7}  {:>6}  {:>6}  {:>5}  {:>7}\n",
        "provider", "results", "accepted", "valid", "invalid", "missed", "in row", "score", "checked"
    );
    for it in found {
        let checked = format!("{}%", percent(it.check_ppm()));
        text += &format!(
            "{:<42}  {:>7}  {:>8}  {:>5}  {:>7}  {:>6}  {:>6}  {:>5}  {:>7}\n",
            format!("{:#x}", it.provider),
            it.results,
            it.accepted,
            it.valid,
            it.invalid,
            it.missed,
            it.consecutive_valid,
            it.score,
            checked
        );
    }
    text
}

fn selected(known: &Reputations, seed: &[u8; 32], policy: &Preflight, json: bool) -> String {
    let found = known.select(seed, policy);
    if json {
        return format!("{}\n", json!({ "seed": format!("0x{}", hex::encode(seed)), "results": found }));
    }
    let mut text = String::new();
    for it in found.iter().filter(|it| it.selected) {
        text += &format!(
            "{}  {:#x}  {} valid in a row, checked with {}%\n",
            it.deal_id,
            it.provider,
            it.consecutive_valid,
            percent(it.check_ppm)
        );
    }
    let count = found.iter().filter(|it| it.selected).count();
    text + &format!("{count} of {} results that nobody disputed are to be checked\n", found.len())
}

/// Parts per million as percent, without trailing zeros.
fn percent(ppm: u64) -> String {
    let text = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

//! `tribunal market …`: cases of marketplaces that this operator judges for, from their journals.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Subcommand;
use serde_json::{Value, json};
use tribunal_verifiers::Service;

use crate::{
    artifacts,
    config::{self, Config},
    failure::Failure,
    market::{
        MarketView,
        book::{Book, Case},
        check, journals,
    },
};

/// Something does not fit.
const EXIT_DISCREPANCY: u8 = 1;
/// A case or market that is not there.
const EXIT_UNKNOWN: u8 = 2;

/// Cases of marketplaces that this operator judges for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tribunal market list --config tribunal.toml")]
pub struct Args {
    #[command(subcommand)]
    command: Market,
}

#[derive(Debug, Subcommand)]
enum Market {
    /// The markets and how their cases stand.
    List(Common),
    /// Cases, or one with all that is kept of it.
    Cases(Cases),
    /// Check every report again: signature, verdict, answer; with --reverify run the verifiers again.
    Audit(Audit),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of the journals; default: beside the store, `<store.path>.markets`.
    #[arg(long, value_name = "DIR")]
    journals: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Cases {
    #[command(flatten)]
    common: Common,
    /// Cases whose id begins like this, in full.
    #[arg(value_name = "CASE")]
    id: Option<String>,
    /// Of this market alone.
    #[arg(long, value_name = "NAME")]
    market: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 clean, 1 something does not fit, 69 no journal.\n\nExample:\n  tribunal market audit --reverify --artifacts fixtures"
)]
struct Audit {
    #[command(flatten)]
    common: Common,
    /// Run the verifiers again, and compare.
    #[arg(long)]
    reverify: bool,
    /// Where modules and data are; may be given more than once. Default: verifiers.artifacts of the configuration.
    #[arg(long, value_name = "DIR", requires = "reverify")]
    artifacts: Vec<artifacts::Place>,
}

/// Runs the command; works while an engine writes the journals.
///
/// # Errors
/// 69 without a journal, 78 for settings.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    match args.command {
        Market::List(args) => list(&args, json),
        Market::Cases(args) => cases(&args, json),
        Market::Audit(args) => {
            tokio::task::spawn_blocking(move || audit(&args, json)).await.map_err(Failure::unavailable)?
        }
    }
}

fn open(common: &Common) -> Result<(Config, Vec<(String, Book)>), Failure> {
    let (config, _) = config::load(common.config.as_ref(), &[])?;
    let folder = common.journals.clone().unwrap_or_else(|| config.markets_folder());
    let found = journals(&folder).map_err(Failure::unavailable)?;
    if found.is_empty() {
        let problem = format!("no market was followed here yet: {} holds no journal", folder.display());
        return Err(Failure::unavailable(problem));
    }
    Ok((config, found))
}

fn list(args: &Common, json: bool) -> Result<ExitCode, Failure> {
    let (_, found) = open(args)?;
    let views: Vec<_> = found.iter().map(|(name, book)| MarketView::new(name, book)).collect();
    if json {
        println!("{}", json!(views));
        return Ok(ExitCode::SUCCESS);
    }
    for view in views {
        let identity = view.identity.map_or_else(String::new, |it| {
            format!("{} {:#x} on chain {}, as {:#x}", it.kind, it.contract, it.chain_id, it.account)
        });
        let stages = view.stages.iter().map(|(stage, count)| format!("{count} {}", stage.word()));
        let stages = stages.collect::<Vec<_>>().join(", ");
        println!("{}  {identity}", view.name);
        println!(
            "  block {}; {}",
            view.block.unwrap_or_default(),
            if stages.is_empty() { "no cases" } else { &stages }
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn case_json(market: &str, id: &str, case: &Case) -> Value {
    let mut value = json!(case);
    value["market"] = market.into();
    value["case"] = id.into();
    value["stage"] = case.stage().word().into();
    value
}

fn cases(args: &Cases, json: bool) -> Result<ExitCode, Failure> {
    let (_, found) = open(&args.common)?;
    let wanted = args.id.as_deref().map(str::to_ascii_lowercase);
    let mut shown = 0;
    for (name, book) in found.iter().filter(|(name, _)| args.market.as_ref().is_none_or(|market| market == name)) {
        for (id, case) in book.cases() {
            let id = id.to_string();
            if wanted.as_deref().is_some_and(|wanted| !id.starts_with(wanted)) {
                continue;
            }
            shown += 1;
            match (json, &wanted) {
                (true, _) => println!("{}", case_json(name, &id, case)),
                (false, Some(_)) => {
                    let full = case_json(name, &id, case);
                    println!("{}", serde_json::to_string_pretty(&full).map_err(Failure::unavailable)?);
                }
                (false, None) => println!("{name}  {id}  {}", sentence(case)),
            }
        }
    }
    let unknown = shown == 0 && wanted.is_some();
    if unknown {
        eprintln!("tribunal: no case begins with {}", wanted.unwrap_or_default());
    }
    Ok(ExitCode::from(if unknown { EXIT_UNKNOWN } else { 0 }))
}

/// How a case stands, for people.
fn sentence(case: &Case) -> String {
    let stage = case.stage().word();
    let word = |valid: bool| if valid { "valid" } else { "invalid" };
    let verdict = case.verdict.map_or_else(String::new, |valid| {
        let code = case.report.as_ref().and_then(|report| report["reason"]["code"].as_str()).unwrap_or_default();
        format!("  {} ({code})", word(valid))
    });
    let rest = match (&case.answered, &case.closed, &case.held) {
        (Some((valid, block)), ..) => format!("  answered {} in block {}", word(*valid), block.number),
        (None, Some((how, block)), _) => format!("  {how}, block {}", block.number),
        (None, None, Some((code, why))) => format!("  {code}: {why}"),
        _ => String::new(),
    };
    format!("{stage}{verdict}{rest}")
}

fn audit(args: &Audit, json: bool) -> Result<ExitCode, Failure> {
    let (config, found) = open(&args.common)?;
    let folders = if args.artifacts.is_empty() { &config.verifiers.artifacts } else { &args.artifacts };
    let verifier = match args.reverify {
        true => Some(Service::new(config.verifiers.limits(), vec![Arc::clone(&artifacts::open(folders, &config)?)])),
        false => None,
    };
    let (mut problems, mut checked) = (Vec::new(), 0u64);
    for (name, book) in &found {
        for (id, case) in book.cases().iter().filter(|(_, case)| case.report.is_some() || case.verdict.is_some()) {
            checked += 1;
            for problem in check::case(book, case, verifier.as_ref()) {
                problems.push(json!({ "market": name, "case": id, "problem": problem }));
            }
        }
        for (id, case) in book.cases() {
            if case.answered.is_some() && case.verdict.is_none() {
                problems
                    .push(json!({ "market": name, "case": id, "problem": "answered, and no verdict is kept for it" }));
            }
        }
    }
    if json {
        println!("{}", json!({ "checked": checked, "reverified": args.reverify, "problems": problems }));
    } else {
        for it in &problems {
            let part = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            println!("{}, case {}: {}", part("market"), part("case"), part("problem"));
        }
        let again = if args.reverify { ", verified again" } else { "" };
        println!("{checked} reports{again}: {}", if problems.is_empty() { "clean" } else { "something does not fit" });
    }
    Ok(ExitCode::from(if problems.is_empty() { 0 } else { EXIT_DISCREPANCY }))
}

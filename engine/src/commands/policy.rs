//! `tribunal policy …`: which deals this operator would judge.

use std::{path::PathBuf, process::ExitCode};

use tribunal_events::Terms;

use crate::{
    commands::sign::read_terms,
    config::{self, Config},
    engine::now,
    failure::Failure,
    keystore, moment,
    policy::{Level, Preflight},
};

/// Exit code where this operator would not judge the deal.
const EXIT_REFUSED: u8 = 1;
/// Exit code of terms that cannot be read.
const EXIT_BAD_REQUEST: u8 = 2;

/// Which deals this operator would judge, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tribunal policy check terms.json --config tribunal.toml")]
pub struct Args {
    #[command(subcommand)]
    command: Policy,
}

#[derive(Debug, clap::Subcommand)]
enum Policy {
    /// Say for each rule whether terms pass, in one sentence.
    Check(Check),
}

/// Checks terms.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The engine refuses a proposal that names a mediator run by it and does not pass; [policy] enforce = false turns that off.\n\nExit codes: 0 would judge, 1 would refuse, 2 no terms.\n\nExample:\n  tribunal policy check terms.json --config tribunal.toml\n  tribunal policy check deal.jsonl --now 2026-03-01T09:00:00Z --json"
)]
struct Check {
    /// Terms as JSON or protobuf, a proposal that holds them, or its signed envelope; - for standard input.
    terms: PathBuf,
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// When the proposal is to be admitted: RFC 3339 or unix seconds; default: now.
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// 2 for terms that cannot be read, 64 for usage, 78 for settings.
pub fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let Policy::Check(args) = args.command;
    let (config, _) = config::load(args.config.as_ref(), &[])?;
    let now = match &args.now {
        None => now(),
        Some(text) => moment::parse(text)
            .ok_or_else(|| Failure::usage(format!("--now {text:?} is neither RFC 3339 nor unix seconds")))?,
    };
    let terms: Terms = read_terms(&args.terms).map_err(|problem| Failure::new(EXIT_BAD_REQUEST, problem))?;
    let findings = preflight(&config)?.check(&terms, now);
    let would_judge = findings.iter().all(|finding| finding.level != Level::Refuse);
    if json {
        let answer = serde_json::json!({
            "deal_id": terms.deal_id(), "now": now.to_string(), "would_judge": would_judge, "findings": findings,
        });
        println!("{answer}");
    } else {
        for finding in &findings {
            println!("{:<6}  {:<17}  {}", finding.level.word(), finding.code, finding.sentence);
        }
        println!("{}", if would_judge { "This operator would judge it." } else { "This operator would refuse it." });
    }
    Ok(if would_judge { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) })
}

/// The preflight of these settings; whose bond is what only the chain knows.
///
/// # Errors
/// 78 where a mediator's keystore cannot be read.
pub fn preflight(config: &Config) -> Result<Preflight, Failure> {
    let mediator = keystore::mediator_address(&config.mediator)?;
    Ok(Preflight {
        policy: config.policy.clone(),
        limits: config.verifiers.limits(),
        mediators: mediator.into_iter().collect(),
    })
}

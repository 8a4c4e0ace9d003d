//! `tribunal mediator earnings`.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use tribunal_events::{Address, Timestamp};

use crate::{
    accounts::{self, Accounts, Case, MediatorRecord},
    config,
    failure::Failure,
    keystore, moment,
    store::{Store, StoreFault},
};

/// What a mediator earned, lost and is worth, case by case.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Works while `tribunal serve` runs. --csv: RFC 4180, one line a case, columns deal_id, round, opened_at, protocol, panel_size, committed_at, voted_at, vote, reason_code, with_majority, standing, outcome, redrawn, token, fee, settled_at, slash, gas_used; moments in UTC, amounts in base units of the token.\nStanding: open, agreed, disagreed, inconclusive, undecided, silent, unheard (others decided first). Score: one more when right, two thirds when wrong or silent.\n\nExample:\n  tribunal mediator earnings --config tribunal.toml\n  tribunal mediator earnings 0x00… --store ./tribunal-data --csv --since 2026-03-01 > record.csv"
)]
pub struct Args {
    /// The mediator; default: the one that the configuration runs.
    address: Option<Address>,
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The store; default: that of the configuration.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// One line a case, for spreadsheets.
    #[arg(long)]
    csv: bool,
    /// Cases opened at or after this day or moment alone.
    #[arg(long, value_name = "DATE")]
    since: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// 64 for usage, 69 where there is no store, 78 for settings and where no mediator is named.
pub fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    if args.csv && json {
        return Err(Failure::usage("--csv and --json exclude each other"));
    }
    let (config, _) = config::load(args.config.as_ref(), &[])?;
    let since = match &args.since {
        None => Timestamp::default(),
        Some(text) => moment::parse(text)
            .ok_or_else(|| Failure::usage(format!("--since {text:?} is no day such as 2026-03-01, and no moment")))?,
    };
    let mediator = match args.address {
        Some(address) => address,
        None => keystore::mediator_address(&config.mediator)?.ok_or_else(|| {
            Failure::config("no mediator is configured; give its address, or --config with mediator.keystore")
        })?,
    };
    let path = args.store.unwrap_or(config.store.path);
    let store = Store::open_read_only(&path).map_err(|fault| match fault {
        StoreFault::Missing { path } => {
            Failure::unavailable(format!("there is no store in {}; name one with --store DIR", path.display()))
        }
        fault => Failure::unavailable(fault),
    })?;
    let mut accounts = Accounts::default();
    accounts.catch_up(&store).map_err(Failure::unavailable)?;
    let record = accounts.record(mediator, since);
    let cases: Vec<_> = accounts.cases(mediator).iter().filter(|case| case.opened_at >= since).collect();
    let text = if args.csv {
        accounts::csv(cases)
    } else if json {
        let mut answer = serde_json::to_value(&record).map_err(Failure::unavailable)?;
        answer["records"] = cases.into_iter().map(Case::json).collect();
        format!("{answer}\n")
    } else {
        shown(&record, &cases)
    };
    // Whoever reads may stop reading.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn shown(record: &MediatorRecord, cases: &[&Case]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<12}{value}\n"));
    line("mediator", &record.mediator);
    line("cases", &format!("{}, {} open, {} redrawn", record.cases, record.open, record.redrawn));
    line(
        "votes",
        &format!(
            "{}: {} agreed with the outcome, {} against it, {} inconclusive, {} without outcome",
            record.voted, record.agreed, record.disagreed, record.inconclusive, record.undecided
        ),
    );
    line("silent", &record.silent.to_string());
    for (token, earned) in &record.earned {
        line("earned", &format!("{earned} of token {token}"));
    }
    if record.earned.is_empty() {
        line("earned", "0");
    }
    line("slashed", &format!("up to {}", record.slashed));
    line("gas", &format!("{} by this engine, in these deals", record.gas_used));
    line("score", &format!("{}; {} right in a row, {} at most", record.score, record.streak, record.streak_longest));
    for day in &record.days {
        line("day", &format!("{}  {} in {} cases, token {}", day.day, day.earned, day.cases, day.token));
    }
    if cases.is_empty() {
        return text;
    }
    text.push('\n');
    for case in cases {
        let id = case.deal_id.to_string();
        let opened = case.opened_at.to_string();
        let outcome = case.outcome.map_or("open", |outcome| outcome.word());
        let vote = case.vote.map_or("-", |vote| vote.word());
        let mut notes = vec![case.reason_code.replace(|c: char| c.is_control(), " ")];
        if case.redrawn {
            notes.push("redrawn".into());
        }
        if !case.slash.is_zero() {
            notes.push(format!("slashed up to {}", case.slash));
        }
        notes.retain(|note| !note.is_empty());
        text.push_str(&format!(
            "{}  {}…  round {}  {vote:<12}  {:<12}  {outcome:<15}  {:>12}  {}\n",
            opened.get(..19).unwrap_or(&opened).replace('T', " "),
            &id[..10],
            case.round,
            case.standing.word(),
            case.fee.to_string(),
            notes.join(", ")
        ));
    }
    text
}

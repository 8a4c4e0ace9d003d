//! `tribunal audit [ID…]`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tribunal_contracts::{Account, JsonRpcChain, Witness};
use tribunal_events::{
    Address, DealId,
    tlog::{LogVerifier, NOTE_BYTES_MAX, SignedCheckpoint},
};
use tribunal_verifiers::{OperatorLimits, Service};

use super::progress::Progress;
use crate::{
    artifacts,
    audit::{
        Against, AgainstReport, AuditFault, AuditOptions, AuditReport, ChainOptions, Held, PageOptions, Policy,
        ProgressFault, Resume, Scope, audit, audit_anchors, audit_chain, page,
    },
    config::{self, Config},
    engine::now,
    failure::{Failure, with_causes},
    keystore,
    log::certificates,
    store::{Store, StoreFault},
    whole_file::{read_at_most, write_whole},
};

/// Something does not fit.
const EXIT_DISCREPANCY: u8 = 1;
/// Anchors on a chain that are compared, the newest.
const ANCHORS_MAX: u64 = 10_000;
/// An id that the store does not know.
const EXIT_UNKNOWN: u8 = 2;
/// Bytes of a policy at most.
const POLICY_BYTES_MAX: u64 = 1 << 20;
/// How often the progress of an audit is written to its file.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Replays past deals and finds what does not fit.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Another policy's verdicts are no discrepancies: --against changes no exit code.\n\nExit codes: 0 clean, 1 something does not fit, 2 a deal or position that is not there, 64 usage, 69 no store, or a node that does not answer, 78 a policy that cannot be read.\n\nExample:\n  tribunal audit --all\n  tribunal audit --reverify --store tribunal-data --artifacts fixtures\n  tribunal audit --all --at 1000 --html report.html\n  tribunal audit --all --against policy.toml --artifacts fixtures\n  tribunal audit --all --resume audit.progress\n  tribunal audit --all --chain"
)]
pub struct Args {
    /// Deals to audit; default: all.
    #[arg(value_name = "ID")]
    ids: Vec<DealId>,
    /// All deals, and the log as a whole.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The store; default: store.path of the configuration.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Run the verifiers again, and compare with every vote.
    #[arg(long)]
    reverify: bool,
    /// For --reverify and --against: where modules and data are; may be given more than once. Default: verifiers.artifacts
    /// of the configuration.
    #[arg(long, value_name = "DIR")]
    artifacts: Vec<artifacts::Place>,
    /// The world as it was when the log ended at this position.
    #[arg(long, value_name = "POSITION", conflicts_with = "chain")]
    at: Option<u64>,
    /// Say which verdicts and payments would differ under another policy.
    #[arg(long, value_name = "POLICY.toml")]
    against: Option<PathBuf>,
    /// Write a report for people to this file: it needs nothing else, on a screen or on paper.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Keep the progress in this file, and go on from what is there.
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    resume: Option<PathBuf>,
    /// Compare with the chain, too: transactions, cases, and what the escrow holds; default: chain.rpc_url of the
    /// configuration.
    #[arg(long, value_name = "RPC_URL", num_args = 0..=1, default_missing_value = "")]
    chain: Option<String>,
    /// A signed checkpoint that was kept from earlier: a log that was rewritten since is found. May be given more than once.
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    checkpoint: Vec<PathBuf>,
    /// The log's key, as it was known then; default: the keys that the store itself names.
    #[arg(long, value_name = "VKEY", requires = "checkpoint")]
    log_key: Option<LogVerifier>,
}

/// Runs the command; works while an engine writes to the store.
///
/// # Errors
/// 69 without a store, 78 for settings.
pub async fn run(mut args: Args, json: bool) -> Result<ExitCode, Failure> {
    let (config, _) = config::load(args.config.as_ref(), &[])?;
    let path = args.store.clone().unwrap_or_else(|| config.store.path.clone());
    // An id after a bare `--chain` is no URL.
    if let Some(id) = args.chain.as_deref().and_then(|text| text.parse::<DealId>().ok()) {
        args.ids.push(id);
        args.chain = Some(String::new());
    }
    if !args.artifacts.is_empty() && !args.reverify && args.against.is_none() {
        return Err(Failure::usage("--artifacts are for --reverify and --against"));
    }
    if args.resume.is_some() && !args.ids.is_empty() {
        return Err(Failure::usage("--resume is for an audit of all deals"));
    }
    let policy = args.against.as_deref().map(read_policy).transpose()?;
    // First: a node that is not there is known at once.
    let url =
        args.chain.clone().filter(|url| !url.is_empty()).or_else(|| config.chain.rpc_url.clone()).unwrap_or_default();
    let witness = match args.chain.clone() {
        Some(url) => Some(witness(&config, url).await?),
        None => None,
    };
    let (scope, escrow) = (scope(&args), config.chain.contracts.escrow);
    let html = args.html.clone();
    let about = about(&args, &config, &path);
    let known = config.clone();
    let work = tokio::task::spawn_blocking(move || {
        audited(&args, &known, &path, policy.as_ref()).map(|report| (report, path))
    });
    let (mut report, path) = work.await.map_err(|error| Failure::unavailable(error.to_string()))??;
    let mut fault = None;
    if let Some(witness) = witness {
        report.options.chain = true;
        fault = against_chain(&path, &scope, &witness, escrow, &mut report).await.err();
        if let (None, Some(contract)) = (&fault, config.chain.contracts.checkpoints) {
            fault = against_anchors(&path, &config, &url, contract, &mut report).await.err();
        }
    }
    if let Some(file) = html {
        report = tokio::task::spawn_blocking(move || write_page(&path, report, &about, &file))
            .await
            .map_err(|error| Failure::unavailable(error.to_string()))??;
    }
    if json {
        let mut answer = serde_json::to_value(&report).map_err(Failure::unavailable)?;
        answer["clean"] = report.is_clean().into();
        println!("{answer}");
    } else {
        print(&report);
    }
    for deal_id in &report.unknown {
        eprintln!("tribunal: there is no deal {deal_id} in this store");
    }
    if let Some(fault) = fault {
        return Err(fault);
    }
    Ok(ExitCode::from(match (report.is_clean(), report.unknown.is_empty()) {
        (false, _) => EXIT_DISCREPANCY,
        (true, false) => EXIT_UNKNOWN,
        (true, true) => 0,
    }))
}

fn scope(args: &Args) -> Scope {
    if args.ids.is_empty() { Scope::All } else { Scope::Deals(args.ids.clone()) }
}

/// The nodes that `--chain` names, or the settings.
pub(super) async fn witness(config: &Config, url: String) -> Result<Witness, Failure> {
    let urls = match (url.is_empty(), &config.chain.rpc_url) {
        (false, _) => vec![url],
        (true, Some(url)) => vec![url.clone()],
        (true, None) => return Err(Failure::config("--chain names no node: give its URL or set chain.rpc_url")),
    };
    Witness::connect(&urls, config.chain.chain_id).await.map_err(|fault| Failure::chain(&fault))
}

async fn against_chain(
    path: &Path,
    scope: &Scope,
    witness: &Witness,
    escrow: Option<Address>,
    report: &mut AuditReport,
) -> Result<(), Failure> {
    // Opened anew: a reader sees what was written until then.
    let store = open(path)?;
    let progress = Progress::new("asking the chain {bar:40} {pos}/{len} deals {eta}");
    let tell = |done, total| progress.tell(done, total);
    let options = ChainOptions { escrow, progress: Some(&tell) };
    let outcome = audit_chain(&store, scope, witness, options, report).await;
    progress.end();
    outcome.map_err(|fault| Failure::unavailable(with_causes(&fault)))
}

/// Compares the log with what the account of `[chain]` anchored of it.
async fn against_anchors(
    path: &Path,
    config: &Config,
    url: &str,
    contract: Address,
    report: &mut AuditReport,
) -> Result<(), Failure> {
    let store = open(path)?;
    let publisher = match (&config.chain.address, &config.chain.keystore) {
        (Some(address), _) => *address,
        (None, Some(path)) => keystore::address(path)?.ok_or_else(|| {
            Failure::config("chain.keystore does not name its account, so nobody knows whose anchors to compare")
        })?,
        (None, None) => return Ok(()),
    };
    let failed = |fault: tribunal_contracts::ChainFault| Failure::chain(&fault);
    let chain = JsonRpcChain::connect_checkpoints(url, Account::watched(publisher)).await.map_err(failed)?;
    let mut origins: Vec<String> =
        certificates(&store).map_err(Failure::unavailable)?.iter().map(|it| it.vkey.origin().to_owned()).collect();
    origins.dedup();
    for origin in origins {
        let count = chain.anchors(contract, publisher, &origin).await.map_err(failed)?;
        let mut anchors = Vec::new();
        for index in count.saturating_sub(ANCHORS_MAX)..count {
            anchors.push(chain.anchor_at(contract, publisher, &origin, index).await.map_err(failed)?);
        }
        audit_anchors(&store, &origin, &anchors, report).map_err(Failure::unavailable)?;
    }
    Ok(())
}

fn audited(args: &Args, config: &Config, path: &Path, policy: Option<&Policy>) -> Result<AuditReport, Failure> {
    let store = open(path)?;
    let source = artifacts::open(if args.reverify || policy.is_some() { folders(args, config) } else { &[] }, config)?;
    let service = Service::new(limits(config), Vec::new());
    let held = held(args)?;
    let under = policy.map(|policy| (policy, Service::new(policy.limits(limits(config)), Vec::new())));
    let resume = args.resume.clone().map(|path| Resume {
        path,
        every: PROGRESS_EVERY,
        context: format!("artifacts {:?} limits {:?}", folders(args, config), limits(config)),
    });
    let progress = Progress::new("auditing {bar:40} {pos}/{len} records {eta}");
    let tell = |done, total| progress.tell(done, total);
    let options = AuditOptions {
        reverify: args.reverify.then_some((&service, &*source)),
        progress: Some(&tell),
        at: args.at,
        against: under.as_ref().map(|(policy, service)| Against { policy, service, source: &*source }),
        resume: resume.as_ref(),
        held: &held,
    };
    let outcome = audit(&store, scope(args), options);
    progress.end();
    outcome.map_err(|fault| match fault {
        AuditFault::BeyondEnd { .. } => Failure::new(EXIT_UNKNOWN, fault),
        AuditFault::Progress(fault @ ProgressFault::Io { .. }) => Failure::unavailable(fault),
        AuditFault::Progress(fault) => Failure::usage(fault),
        AuditFault::Store(fault) => Failure::unavailable(format!("{}: {fault}", path.display())),
    })
}

fn folders<'a>(args: &'a Args, config: &'a Config) -> &'a [artifacts::Place] {
    if args.artifacts.is_empty() { &config.verifiers.artifacts } else { &args.artifacts }
}

fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let failure = |problem: String| Failure::config(format!("{}: {problem}", path.display()));
    let bytes = read_at_most(path, POLICY_BYTES_MAX).map_err(|error| failure(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| failure(error.to_string()))?;
    Policy::parse(&text).map_err(|error| failure(error.to_string()))
}

/// What the page tells about how the audit was made.
fn about(args: &Args, config: &Config, path: &Path) -> PageOptions {
    PageOptions {
        store: path.display().to_string(),
        artifacts: folders(args, config).iter().map(|folder| folder.to_string()).collect(),
        policy: args.against.as_ref().map(|policy| policy.display().to_string()),
        made_at: now(),
    }
}

fn write_page(path: &Path, report: AuditReport, about: &PageOptions, file: &Path) -> Result<AuditReport, Failure> {
    let unavailable = |what: String| Failure::unavailable(format!("{}: {what}", file.display()));
    let text = page(&open(path)?, &report, about).map_err(|fault| unavailable(fault.to_string()))?;
    write_whole(file, text.as_bytes()).map_err(|error| unavailable(error.to_string()))?;
    Ok(report)
}

/// The checkpoints that were brought along.
fn held(args: &Args) -> Result<Vec<Held>, Failure> {
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        let bytes = read_at_most(path, NOTE_BYTES_MAX as u64);
        let bytes = bytes.map_err(|error| Failure::unavailable(format!("{name}: {error}")))?;
        let note = SignedCheckpoint::parse(&bytes).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        Ok(Held { name, note, key: args.log_key.clone() })
    };
    args.checkpoint.iter().map(read).collect()
}

/// Opens a store for reading, with the exit code that each reason has.
pub(super) fn open(path: &Path) -> Result<Store, Failure> {
    Store::open_read_only(path).map_err(|fault| match fault {
        StoreFault::Missing { .. } => Failure::unavailable(format!("{fault}; name one with --store DIR")),
        StoreFault::Damaged { .. } => Failure::new(EXIT_DISCREPANCY, format!("{}: {fault}", path.display())),
        fault => Failure::unavailable(format!("{}: {fault}", path.display())),
    })
}

const fn limits(config: &Config) -> OperatorLimits {
    let it = &config.verifiers;
    OperatorLimits {
        fuel_max: it.fuel_max,
        memory_bytes_max: it.memory_bytes_max,
        output_bytes_max: it.output_bytes_max,
        wall_ms_max: it.wall_ms_max,
    }
}

fn print(report: &AuditReport) {
    if let Some(at) = report.at {
        println!("as of log position {at}, {}", report.log_end_at.as_deref().unwrap_or("before any time"));
    }
    let outcomes = report.outcomes.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ");
    println!("{} deals ({outcomes}), {} records, {} signatures", report.deals, report.records, report.signatures);
    if report.reverified > 0 {
        println!("{} results verified again, {} votes confirmed", report.reverified, report.votes_confirmed);
    }
    if let Some(log) = &report.log {
        let held = if log.held > 0 { format!(", and {} brought along", log.held) } else { String::new() };
        let anchors = if log.anchors > 0 { format!(", {} anchors", log.anchors) } else { String::new() };
        let signed = match log.checkpoints {
            0 => "no checkpoint: nobody has signed how long it is".to_owned(),
            1 => format!("1 checkpoint, covering {} of them", log.signed),
            count => format!("{count} checkpoints, covering {} of them", log.signed),
        };
        println!("log of {} records, root {}: {signed}{held}{anchors}", log.size, log.root);
    }
    if let Some(chain) = &report.chain {
        println!(
            "{} deals and {} transactions compared with chain {} up to block {}, {}; {} deals left out",
            chain.deals, chain.transactions, chain.chain_id, chain.block, chain.node, chain.left_out
        );
        for it in &chain.holdings {
            println!(
                "escrow {:#x} holds {} of token {:#x}: {} locked, {} in balances",
                it.escrow, it.holds, it.token, it.locked, it.balances
            );
        }
    }
    if let Some(against) = &report.against {
        print_against(against);
    }
    for it in &report.discrepancies {
        println!("{}", place(it.deal_id, it.position, it.version));
        println!(
            "  {}: expected {}\n  {:width$}  found    {}",
            it.code,
            it.expected,
            "",
            it.found,
            width = it.code.len()
        );
    }
    for it in &report.notes {
        println!("note: {}: {} ({})", place(it.deal_id, it.position, None), it.text, it.code);
    }
    match report.discrepancy_count {
        0 => println!("clean"),
        count if count > report.discrepancies.len() as u64 => {
            println!("{count} discrepancies, the first {} above", report.discrepancies.len());
        }
        1 => println!("1 discrepancy"),
        count => println!("{count} discrepancies"),
    }
}

fn print_against(against: &AgainstReport) {
    println!(
        "{} deals compared with policy {}: {} would differ, {} cannot be compared, {} have no outcome yet",
        against.deals, against.policy, against.changed_count, against.not_comparable_count, against.open
    );
    for it in &against.changed {
        println!("under the policy: {}", place(Some(it.deal_id), it.position, None));
        println!("  {} -> {}: {}", it.recorded.outcome, it.policy.outcome, it.why);
        let recorded = it.recorded.payouts.iter();
        for payout in &it.policy.payouts {
            let was = recorded.clone().find(|was| (was.role, was.account) == (payout.role, payout.account));
            let was = was.map_or("nothing", |was| &was.net);
            if was != payout.net {
                println!("  {} {:#x}: {was} -> {}", payout.role, payout.account, payout.net);
            }
        }
    }
    for it in &against.not_comparable {
        println!("not comparable: {}: {}", place(Some(it.deal_id), None, None), it.why);
    }
}

pub(super) fn place(deal_id: Option<DealId>, position: Option<u64>, version: Option<u64>) -> String {
    let deal = deal_id.map_or_else(|| "the store".into(), |deal_id| format!("deal {deal_id}"));
    let position = position.map_or_else(String::new, |position| format!(", position {position}"));
    let version = version.map_or_else(String::new, |version| format!(", version {version}"));
    format!("{deal}{position}{version}")
}

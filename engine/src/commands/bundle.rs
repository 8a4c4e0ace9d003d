//! `tribunal bundle export ID -o FILE` and `tribunal bundle verify FILE`.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use tribunal_events::{
    Address, B256, DealId,
    tlog::{CheckpointError, LogVerifier},
};

use super::audit::{open, place};
use crate::{
    artifacts,
    audit::taken_steps,
    bundle::{self, BUNDLE_BYTES_MAX, BundleFault, BundleReport, ExportFault, VerifyOptions},
    config,
    failure::Failure,
};

/// Not sound; or, for an export, a store that is damaged.
const EXIT_UNSOUND: u8 = 1;
/// No file to read, nothing that is a bundle, no such deal.
const EXIT_NO_FILE: u8 = 2;

/// Portable evidence for one deal.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tribunal bundle export 0x… -o case.tribunal --artifacts fixtures\n  tribunal bundle verify case.tribunal"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the evidence of a deal to a file.
    Export(ExportArgs),
    /// Verify such a file; needs nothing else.
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 written, 1 the store is damaged there, 2 no such deal, 69 no store.\n\nExample:\n  tribunal bundle export 0x… -o deal.tribunal --artifacts fixtures"
)]
struct ExportArgs {
    /// The deal.
    #[arg(value_name = "ID")]
    id: DealId,
    /// The file to write; - for standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The store; default: store.path of the configuration.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Where modules and data are; may be given more than once. Default: verifiers.artifacts of the configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "no_artifacts")]
    artifacts: Vec<artifacts::Place>,
    /// Take receipts of the deal's transactions along, from this node; default: chain.rpc_url of the configuration.
    #[arg(long, value_name = "RPC_URL", num_args = 0..=1, default_missing_value = "")]
    chain: Option<String>,
    /// Leave all artifacts out: smaller, and the verdict can then be checked by its signatures alone.
    #[arg(long)]
    no_artifacts: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 sound, 1 not sound, 2 no file that can be read.\n\nExample:\n  tribunal bundle verify deal.tribunal\n  tribunal bundle verify deal.tribunal --trust 0x…"
)]
struct VerifyArgs {
    /// The file; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whose word is taken: the operator's account, mediators' where the file does not suffice to verify again, and the
    /// verifier key of the operator's log.
    #[arg(long, value_name = "0xADDRESS or VKEY", num_args = 1..)]
    trust: Vec<Trusted>,
}

/// An account, or a log.
#[derive(Clone, Debug)]
enum Trusted {
    Account(Address),
    Log(LogVerifier),
}

impl FromStr for Trusted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('+') {
            return text.parse().map(Self::Log).map_err(|error: CheckpointError| error.to_string());
        }
        let account = text.parse().map(Self::Account);
        account.map_err(|_| "an account is 0x and 40 hex digits; a log's key is <origin>+<key id>+<base64>".to_owned())
    }
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in the help.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let mut receipts = BTreeMap::new();
    if let Command::Export(ExportArgs { chain: Some(url), store, id, .. }) = &args.command {
        receipts = self::receipts(url, store.as_ref(), id).await?;
    }
    let work = tokio::task::spawn_blocking(move || match args.command {
        Command::Export(args) => export(&args, &receipts, json),
        Command::Verify(args) => verify(args, json),
    });
    work.await.map_err(|error| Failure::unavailable(error.to_string()))?
}

/// Receipts of the deal's transactions; those that a node does not have any more are left out.
async fn receipts(url: &str, store: Option<&PathBuf>, id: &DealId) -> Result<BTreeMap<B256, Vec<u8>>, Failure> {
    let (config, _) = config::load(None, &[])?;
    let store = open(store.unwrap_or(&config.store.path))?;
    let steps = taken_steps(&store, id).map_err(Failure::unavailable)?;
    let witness = super::audit::witness(&config, url.to_owned()).await?;
    let mut receipts = BTreeMap::new();
    for step in steps {
        let receipt = witness.receipt(step.transaction).await.map_err(|fault| Failure::chain(&fault))?;
        receipts.extend(receipt.map(|receipt| (step.transaction, receipt)));
    }
    Ok(receipts)
}

fn export(args: &ExportArgs, receipts: &BTreeMap<B256, Vec<u8>>, json: bool) -> Result<ExitCode, Failure> {
    let (config, _) = config::load(None, &[])?;
    let store = open(args.store.as_ref().unwrap_or(&config.store.path))?;
    let folders = if args.artifacts.is_empty() { &config.verifiers.artifacts } else { &args.artifacts };
    let source = (!args.no_artifacts).then(|| artifacts::open(folders, &config)).transpose()?;
    let bar = super::spinner("exporting");
    let bytes = bundle::export_with(&store, &args.id, source.as_deref(), receipts);
    bar.finish_and_clear();
    let bytes = bytes.map_err(|fault| match fault {
        ExportFault::UnknownDeal(_) | ExportFault::Imported(_) => Failure::new(EXIT_NO_FILE, fault),
        ExportFault::Store(crate::store::StoreFault::Damaged { .. }) | ExportFault::NoTerms { .. } => {
            Failure::new(EXIT_UNSOUND, fault)
        }
        fault => Failure::unavailable(fault),
    })?;
    let shown = args.output.display();
    let written = if args.output.as_os_str() == "-" {
        io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush())
    } else {
        fs::write(&args.output, &bytes)
    };
    written.map_err(|error| Failure::unavailable(format!("{shown}: {error}; name another file with -o")))?;
    if args.output.as_os_str() == "-" {
        return Ok(ExitCode::SUCCESS);
    }
    let deal = bundle::read(&bytes).ok().and_then(|sections| {
        serde_json::from_slice::<bundle::DealFile>(sections.get("deal.json").copied().unwrap_or_default()).ok()
    });
    let left_out = deal.map_or_else(Vec::new, |deal| deal.left_out);
    if json {
        let left_out: Vec<_> = left_out.iter().map(ToString::to_string).collect();
        let answer = serde_json::json!({
            "deal_id": args.id, "file": shown.to_string(), "bytes": bytes.len(), "left_out": left_out,
        });
        println!("{answer}");
    } else {
        println!("{shown}: deal {}, {} bytes", args.id, bytes.len());
        for address in left_out {
            println!("left out: {address}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(args: VerifyArgs, json: bool) -> Result<ExitCode, Failure> {
    let shown = args.file.display().to_string();
    let bytes = read(&args.file).map_err(|error| Failure::new(EXIT_NO_FILE, format!("{shown}: {error}")))?;
    let mut options = VerifyOptions::default();
    for trusted in args.trust {
        match trusted {
            Trusted::Account(account) => options.trust.push(account),
            Trusted::Log(key) => options.trust_logs.push(key),
        }
    }
    let bar = super::spinner("verifying");
    let outcome = bundle::verify(&bytes, &options);
    bar.finish_and_clear();
    let report = match outcome {
        Ok(report) => report,
        Err(fault) => {
            let code = if fault == BundleFault::NoBundle { EXIT_NO_FILE } else { EXIT_UNSOUND };
            if json {
                println!("{}", serde_json::json!({ "sound": false, "fault": fault.to_string() }));
            }
            return Err(Failure::new(code, format!("{shown} is not sound: {fault}")));
        }
    };
    if json {
        println!("{}", serde_json::to_value(&report).map_err(Failure::unavailable)?);
    } else {
        print(&shown, &report);
    }
    Ok(ExitCode::from(if report.is_sound() { 0 } else { EXIT_UNSOUND }))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = BUNDLE_BYTES_MAX + 1;
    if path.as_os_str() == "-" {
        io::stdin().take(most).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 == most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {BUNDLE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn print(shown: &str, report: &BundleReport) {
    let reason = if report.reason_code.is_empty() { String::new() } else { format!(" ({})", report.reason_code) };
    println!("deal {}: {}, {}{reason}", report.deal_id, report.state, report.outcome);
    for claim in &report.claims {
        println!("  {:21}  {}: {}", claim.standing.word(), claim.claim, claim.why);
        for account in &claim.by {
            println!("  {:21}  by {account:#x}", "");
        }
    }
    println!("it rests on the word of");
    for word in &report.rests_on {
        let trusted = match word.trusted {
            Some(true) => ", trusted",
            Some(false) => ", NOT among those trusted",
            None => "",
        };
        println!("  {} {:#x}{trusted}: {}", word.role, word.account, word.about);
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
    for note in &report.notes {
        println!("note: {} ({})", note.text, note.code);
    }
    println!("{shown} is {}", if report.is_sound() { "sound" } else { "NOT sound" });
}

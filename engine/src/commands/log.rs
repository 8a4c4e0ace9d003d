//! `tribunal log key, checkpoint, prove, verify`: the record as a transparency log.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Subcommand;
use tribunal_contracts::{Account, ChainFault, JsonRpcChain};
use tribunal_events::{
    Address, B256, DealId, EventId, SigningKey,
    tlog::{EVIDENCE_BYTES_MAX, Evidence, LogKey, LogVerifier, SignedCheckpoint},
};

use super::{audit::open, serve::operator};
use crate::{
    config::{self, Config},
    failure::Failure,
    keystore,
    log::{EvidenceFault, LogSigner, Wanted, certificates, evidence, signed},
    store::{Store, StoreFault},
    whole_file::read_at_most,
};

/// It does not hold.
const EXIT_FALSE: u8 = 1;
/// Nothing to read, or nothing like it in the log.
const EXIT_NOT_THERE: u8 = 2;
/// How long a running engine is waited for beyond its own interval.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// The record as a transparency log: signed checkpoints, and proofs against them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tribunal log checkpoint > before.txt\n  tribunal log prove --deal 0x… > deal.json\n  tribunal log verify deal.json --key tribunal/0x…+…\n  tribunal log prove --from 120 > grown.json && tribunal log verify grown.json --since before.txt --key tribunal/0x…+…"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// The store; default: store.path of the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the keys that signed this log, newest last, and the operator's word on each.
    Key,
    /// Print a signed checkpoint of the log as it stands now, signing one if need be.
    Checkpoint(CheckpointArgs),
    /// Prove that a record is in the log, that the log only grew, or where a deal stands; prints JSON.
    Prove(ProveArgs),
    /// Publish the newest checkpoint on the chain, in a CheckpointRegistry. A running engine does so by itself.
    Anchor(AnchorArgs),
    /// Verify checkpoints and proofs; needs nothing but the files and the log's key.
    Verify(VerifyArgs),
}

#[derive(Debug, Default, clap::Args)]
pub struct CheckpointArgs {
    /// The one of exactly so many records, signed before.
    #[arg(long, value_name = "RECORDS")]
    size: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[group(id = "wanted", required = true, multiple = false)]
struct ProveArgs {
    /// The record at this position.
    #[arg(long, group = "wanted")]
    position: Option<u64>,
    /// The record of this event.
    #[arg(long, group = "wanted", value_name = "ID")]
    event: Option<EventId>,
    /// Where this deal stands, and that nothing of it is left out.
    #[arg(long, group = "wanted", value_name = "ID")]
    deal: Option<DealId>,
    /// That the log has only grown since it had so many records.
    #[arg(long, group = "wanted", value_name = "RECORDS")]
    from: Option<u64>,
    /// Against the checkpoint of so many records; default: the newest.
    #[arg(long, value_name = "RECORDS")]
    size: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct AnchorArgs {
    /// JSON-RPC of the node; default: chain.rpc_url.
    #[arg(long)]
    rpc_url: Option<String>,
    /// The CheckpointRegistry; default: chain.contracts.checkpoints.
    #[arg(long, value_name = "0xADDRESS")]
    contract: Option<Address>,
    /// The account that pays, and in whose name the log is anchored; default: chain.keystore.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Its password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 all hold, 1 one does not, 2 a file that cannot be read.")]
struct VerifyArgs {
    /// Checkpoints (their text) and proofs (JSON).
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// The log's verifier key: <origin>+<key id>+<base64>.
    #[arg(long, value_name = "VKEY")]
    key: LogVerifier,
    /// A checkpoint that was kept: proofs of growth must start from it.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in the help.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    if let Command::Anchor(anchor) = args.command {
        let (config, path) = settings(args.config.as_ref(), args.store)?;
        return self::anchor(&config, &path, anchor, json).await;
    }
    let work = tokio::task::spawn_blocking(move || match args.command {
        Command::Anchor(_) => unreachable!("done above"),
        Command::Verify(verify) => check(&verify, json),
        Command::Key => {
            let (_, path) = settings(args.config.as_ref(), args.store)?;
            keys(&path, json)
        }
        Command::Checkpoint(checkpoint) => self::checkpoint(args.config.as_ref(), args.store, &checkpoint, json),
        Command::Prove(prove) => {
            let (_, path) = settings(args.config.as_ref(), args.store)?;
            self::prove(&path, &prove)
        }
    });
    work.await.map_err(|error| Failure::unavailable(error.to_string()))?
}

/// The settings, with the store that a flag names in place of theirs, and where that is.
///
/// # Errors
/// 78 for settings.
pub(super) fn settings(config: Option<&PathBuf>, store: Option<PathBuf>) -> Result<(Config, PathBuf), Failure> {
    let (mut config, _) = config::load(config, &[])?;
    if let Some(store) = store {
        config.store.path = store;
    }
    let path = config.store.path.clone();
    Ok((config, path))
}

/// Signs the log of this store by these settings.
///
/// # Errors
/// 78 for settings and keys, 69 where the store fails.
pub fn signer(config: &Config, store: &Store, operator: &SigningKey) -> Result<LogSigner, Failure> {
    let origin = config.log.origin.clone().unwrap_or_else(|| format!("tribunal/{:#x}", operator.address()));
    let key = match &config.log.keystore {
        Some(path) => LogKey::derived(&origin, &keystore::load(path, config.log.password_file.as_deref())?),
        None => LogKey::derived(&origin, operator),
    };
    let key = key.map_err(|error| Failure::config(format!("log.origin: {error}")))?;
    LogSigner::open(store, key, operator, LogSigner::default_path(store.path())).map_err(Failure::unavailable)
}

/// `tribunal log checkpoint` and `tribunal store checkpoint`.
///
/// # Errors
/// 69 where nothing can be signed; 2 where there is no such checkpoint.
pub fn checkpoint(
    config: Option<&PathBuf>,
    store: Option<PathBuf>,
    args: &CheckpointArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    let (config, path) = settings(config, store)?;
    let found = match args.size {
        Some(size) => signed(&open(&path)?, Some(size)).map_err(not_proved)?,
        None => now(&config, &path)?
            .ok_or_else(|| Failure::new(EXIT_NOT_THERE, "the log is empty: there is nothing to sign"))?,
    };
    if json {
        let it = found.checkpoint();
        let answer = serde_json::json!({
            "origin": it.origin, "tree_size": it.size, "root": hex(&it.root), "deals": it.heads.deals,
            "heads_root": hex(&it.heads.root), "note": found.note(),
        });
        println!("{answer}");
    } else {
        print!("{}", found.note());
    }
    Ok(ExitCode::SUCCESS)
}

fn hex(hash: &[u8]) -> String {
    format!("0x{}", hex::encode(hash))
}

/// A checkpoint of the log as it stands: signed here, or, where an engine writes to the store, awaited from it.
fn now(config: &Config, path: &Path) -> Result<Option<SignedCheckpoint>, Failure> {
    // Where there is no store none is made.
    let reader = open(path)?;
    match Store::open(path, config.store.fsync.into()) {
        Ok(store) => {
            let operator = operator(config)?;
            signer(config, &store, &operator)?.checkpoint(&store).map_err(Failure::unavailable)
        }
        Err(StoreFault::Locked { .. }) => awaited(&reader, Duration::from_secs(config.log.checkpoint_s) + PATIENCE),
        Err(fault) => Err(Failure::unavailable(format!("{}: {fault}", path.display()))),
    }
}

fn awaited(store: &Store, patience: Duration) -> Result<Option<SignedCheckpoint>, Failure> {
    let (wanted, start) = (store.last_position(), Instant::now());
    let bar = super::spinner("waiting for the engine to sign");
    loop {
        let newest = store.newest_checkpoint().map_err(Failure::unavailable)?;
        if newest.as_ref().map_or(0, |newest| newest.checkpoint().size) >= wanted {
            bar.finish_and_clear();
            return Ok(newest);
        }
        if start.elapsed() > patience {
            let what = "the engine that writes to this store has not signed the log; its own log says why";
            return Err(Failure::unavailable(what));
        }
        std::thread::sleep(POLL);
        store.catch_up().map_err(Failure::unavailable)?;
    }
}

async fn anchor(config: &Config, path: &Path, args: AnchorArgs, json: bool) -> Result<ExitCode, Failure> {
    let missing = |what: &str| Failure::usage(format!("say which {what}"));
    let url = args.rpc_url.or_else(|| config.chain.rpc_url.clone());
    let url = url.ok_or_else(|| missing("node: --rpc-url or chain.rpc_url"))?;
    let contract = args.contract.or(config.chain.contracts.checkpoints);
    let contract = contract.ok_or_else(|| missing("contract: --contract or chain.contracts.checkpoints"))?;
    let (key, password) = match args.key {
        Some(key) => (key, args.password_file),
        None => {
            let key = config.chain.keystore.clone().ok_or_else(|| missing("account: --key or chain.keystore"))?;
            (key, args.password_file.or_else(|| config.chain.password_file.clone()))
        }
    };
    let signer = keystore::load(&key, password.as_deref())?;
    let newest = open(path)?.newest_checkpoint().map_err(Failure::unavailable)?;
    let newest = newest.ok_or_else(|| Failure::new(EXIT_NOT_THERE, "no checkpoint of this log is signed"))?;
    let it = newest.checkpoint();
    let failed = |fault: ChainFault| Failure::chain(&fault);
    let chain = JsonRpcChain::connect_checkpoints(&url, Account::of(Arc::new(signer))).await.map_err(failed)?;
    let mined = chain.anchor(contract, &it.origin, it.size, B256::new(it.root)).await.map_err(failed)?;
    if json {
        let (transaction, block) = (mined.transaction, mined.block);
        println!("{}", serde_json::json!({ "tree_size": it.size, "transaction": transaction, "block": block }));
    } else {
        println!("{} records of {} anchored in {:#x}, block {}", it.size, it.origin, mined.transaction, mined.block);
    }
    Ok(ExitCode::SUCCESS)
}

fn keys(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    let keys = certificates(&open(path)?).map_err(Failure::unavailable)?;
    if keys.is_empty() {
        return Err(Failure::new(EXIT_NOT_THERE, "nothing has signed this log yet: tribunal log checkpoint does"));
    }
    for key in keys {
        if json {
            println!("{}", serde_json::to_value(&key).map_err(Failure::unavailable)?);
        } else {
            println!("{}  certified by {:#x}", key.vkey, key.operator);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn prove(path: &Path, args: &ProveArgs) -> Result<ExitCode, Failure> {
    let wanted = match *args {
        ProveArgs { position: Some(position), .. } => Wanted::Position(position),
        ProveArgs { event: Some(event), .. } => Wanted::Event(event),
        ProveArgs { deal: Some(deal), .. } => Wanted::Head(deal),
        ProveArgs { from: Some(from), .. } => Wanted::Growth(from),
        _ => return Err(Failure::usage("say what to prove: --position, --event, --deal or --from")),
    };
    let found = evidence(&open(path)?, wanted, args.size).map_err(not_proved)?;
    println!("{}", serde_json::to_string(&found).map_err(Failure::unavailable)?);
    Ok(ExitCode::SUCCESS)
}

fn not_proved(fault: EvidenceFault) -> Failure {
    match fault {
        EvidenceFault::Store(fault @ StoreFault::Damaged { .. }) => Failure::new(EXIT_FALSE, fault),
        EvidenceFault::Store(fault) => Failure::unavailable(fault),
        fault => Failure::new(EXIT_NOT_THERE, fault),
    }
}

fn check(args: &VerifyArgs, json: bool) -> Result<ExitCode, Failure> {
    let read = |path: &PathBuf| {
        let bytes = read_at_most(path, EVIDENCE_BYTES_MAX as u64);
        bytes.map_err(|error| Failure::new(EXIT_NOT_THERE, format!("{}: {error}", path.display())))
    };
    let since = match &args.since {
        Some(path) => {
            let kept = SignedCheckpoint::parse(&read(path)?);
            let kept = kept.and_then(|kept| kept.verify(&args.key).cloned());
            Some(kept.map_err(|error| Failure::new(EXIT_FALSE, format!("{}: {error}", path.display())))?)
        }
        None => None,
    };
    let mut holds = true;
    for path in &args.files {
        let outcome = one(&read(path)?, &args.key, since.as_ref());
        holds &= outcome.is_ok();
        let shown = path.display().to_string();
        match outcome {
            _ if json => {
                let (says, fault) = (outcome.as_ref().ok(), outcome.as_ref().err());
                println!(
                    "{}",
                    serde_json::json!({ "file": shown, "holds": says.is_some(), "says": says, "fault": fault })
                );
            }
            Ok(says) => println!("{shown}: {says}"),
            Err(fault) => println!("{shown}: does NOT hold: {fault}"),
        }
    }
    Ok(ExitCode::from(if holds { 0 } else { EXIT_FALSE }))
}

/// What a file says, if it holds.
fn one(bytes: &[u8], key: &LogVerifier, since: Option<&tribunal_events::tlog::Checkpoint>) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let note = SignedCheckpoint::parse(bytes).map_err(|error| text(&error))?;
        let said = note.verify(key).map_err(|error| text(&error))?;
        if let Some(since) = since.filter(|since| since.size == said.size && since.root != said.root) {
            return Err(format!("two different logs of {} records are signed: the log equivocates", since.size));
        }
        return Ok(format!("{} signed a log of {} records, {} deals", said.origin, said.size, said.heads.deals));
    }
    let evidence = Evidence::parse(bytes).map_err(|error| text(&error))?;
    let said = evidence.verify(key).map_err(|error| text(&error))?;
    let of = format!("in the log of {} records that {} signed", said.size, said.origin);
    match &evidence {
        Evidence::Inclusion { position, .. } => Ok(format!("the record at position {position} is {of}")),
        Evidence::Consistency { from, from_root, .. } => {
            if let Some(since) = since {
                if since.size != *from || since.root[..] != from_root.0 {
                    return Err(format!("it starts from another log than the checkpoint of {} records", since.size));
                }
                return Ok(format!(
                    "what was signed as {from} records is the beginning of the {} records now",
                    said.size
                ));
            }
            Ok(format!(
                "its first {from} records are the beginning of the {} that {} signed; --since FILE compares them with a checkpoint",
                said.size, said.origin
            ))
        }
        Evidence::Head { deal_id, head: Some(head), .. } => Ok(format!(
            "deal {deal_id} has exactly {} records, the last at position {}, {of}",
            head.version, head.position
        )),
        Evidence::Head { deal_id, head: None, .. } => Ok(format!("there is no deal {deal_id} {of}")),
    }
}

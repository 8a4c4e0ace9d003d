//! `tribunal import`: past deals of other marketplaces, and jobs as they describe them.

use std::{path::PathBuf, process::ExitCode};

use tribunal_events::{Address, SigningKey};

use crate::{
    config,
    engine::now,
    failure::{Failure, with_causes},
    import::{Deployment, ImportFault, Tally, file, node, record},
    store::{Store, StoreFault},
};

mod job;

/// Input that is not what it says: `EX_DATAERR`.
const EXIT_REFUSED: u8 = 65;
/// Blocks that must stand before their logs are imported, unless told.
const CONFIRMATIONS: u64 = 64;

/// Past deals of other marketplaces, and jobs as they describe them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tribunal import lilypad --rpc-url https://… --storage 0x8d06… --payments 0xdE7C… --mediation 0xD137… --store tribunal-data\n  tribunal audit --all --store tribunal-data"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Deals of Lilypad v2 and CoopHive v1.
    Lilypad(Lilypad),
    /// A job description, as a verification request.
    Job(job::Args),
}

#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("from").required(true),
    after_help = "Exit codes: 0 imported, 65 logs that contradict each other, the record or their contracts' form, 69 a store in use, or a node that does not answer, 78 settings.\n\nExample:\n  tribunal import lilypad --rpc-url https://… --storage 0x8d06… --payments 0xdE7C… --mediation 0xD137… --from-block 12000000\n  tribunal import lilypad --logs logs.json --chain-id 421614 --storage 0x8d06… --payments 0xdE7C…"
)]
struct Lilypad {
    /// JSON-RPC of a node; more than once: asked in turn when the ones before fail.
    #[arg(long, value_name = "URL", group = "from")]
    rpc_url: Vec<String>,
    /// Instead of a node: a file with results of eth_getLogs, and optionally what getDeal and getResult answered.
    #[arg(long, value_name = "FILE", group = "from", requires = "chain_id")]
    logs: Option<PathBuf>,
    /// EIP-155 id of the chain; a node is asked whether it is on it.
    #[arg(long, value_name = "ID")]
    chain_id: Option<u64>,
    /// The contract that keeps deals.
    #[arg(long, value_name = "0xADDRESS")]
    storage: Address,
    /// The contract that moves money.
    #[arg(long, value_name = "0xADDRESS")]
    payments: Address,
    /// The contract that asks mediators; without it, nobody knows who was asked.
    #[arg(long, value_name = "0xADDRESS")]
    mediation: Option<Address>,
    /// The first block to look at: that of the deployment.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "logs")]
    from_block: u64,
    /// The last block; default: the newest that has its confirmations.
    #[arg(long, value_name = "N", conflicts_with = "logs")]
    to_block: Option<u64>,
    /// Blocks, a log's own included, that must stand before it is imported.
    #[arg(long, value_name = "N", default_value_t = CONFIRMATIONS, conflicts_with = "logs")]
    confirmations: u64,
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The store; default: store.path of the configuration. No engine may run on it.
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in the help.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let args = match args.command {
        Command::Lilypad(args) => args,
        Command::Job(args) => return job::run(args, json),
    };
    crate::commands::logs("warn");
    if args.to_block.is_some_and(|to| to < args.from_block) {
        return Err(Failure::usage("--to-block is before --from-block"));
    }
    let (config, _) = config::load(args.config.as_ref(), &[("store.path", args.store.clone())])?;
    let store = Store::open(&config.store.path, config.store.fsync.into()).map_err(|fault| match fault {
        StoreFault::Locked { .. } => Failure::unavailable(format!("{fault}; stop the engine to import")),
        fault => Failure::unavailable(fault),
    })?;
    let operator = super::serve::operator(&config)?;
    let tally = import(&args, &store, &operator).await.map_err(failure)?;
    if json {
        println!("{}", serde_json::to_value(tally).map_err(Failure::unavailable)?);
    } else {
        let Tally { deals, recorded, known, ignored } = tally;
        println!("{deals} deals: {recorded} observations recorded, {known} known before, {ignored} logs ignored");
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(args: &Lilypad, store: &Store, operator: &SigningKey) -> Result<Tally, ImportFault> {
    let deployment = |chain_id| Deployment::new(chain_id, args.storage, args.payments, args.mediation);
    if let Some(path) = &args.logs {
        let deployment = deployment(args.chain_id.unwrap_or_default())?;
        let (observations, ignored) = file::read(path, &deployment)?;
        let tally = record(store, operator, now(), observations)?;
        return Ok(Tally { ignored, ..tally });
    }
    let (rpc, chain_id) = node::connect(&args.rpc_url, args.chain_id).await?;
    let range = node::Range { from: args.from_block, to: args.to_block, confirmations: args.confirmations };
    let bar = super::spinner("importing");
    let progress = |block: u64| bar.set_message(format!("importing, block {block}"));
    let tally = node::import(&rpc, &deployment(chain_id)?, range, store, operator, &progress).await;
    bar.finish_and_clear();
    tally
}

fn failure(fault: ImportFault) -> Failure {
    match &fault {
        ImportFault::Store(_) => Failure::unavailable(&fault),
        ImportFault::Chain(chain) => Failure::chain(chain),
        ImportFault::Unreadable { .. } => Failure::unavailable(with_causes(&fault)),
        ImportFault::Deployment(_) => Failure::usage(&fault),
        _ => Failure::new(EXIT_REFUSED, format!("{}: {fault}", fault.code())),
    }
}

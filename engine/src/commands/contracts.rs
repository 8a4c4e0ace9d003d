//! `tribunal contracts deploy`.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use tribunal_contracts::{Addresses, Chain as _, JsonRpcChain};
use tribunal_events::{Address, Amount};

use crate::{failure::Failure, keystore};

/// The contracts on a chain of your own.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tribunal contracts deploy --rpc-url http://127.0.0.1:8545 --key account.json --password-file password > tribunal.toml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Contracts,
}

#[derive(Debug, Subcommand)]
enum Contracts {
    /// Deploy escrow, mediator registry, checkpoint registry and a test token, and print the `[chain]` section that serves them.
    Deploy {
        /// JSON-RPC of the node.
        #[arg(long)]
        rpc_url: String,
        /// The account that pays.
        #[arg(long)]
        key: PathBuf,
        /// Its password.
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// Gets what slashes take from bonds; default: the account that pays.
        #[arg(long)]
        treasury: Option<Address>,
        /// Seconds between starting to unbond and being paid.
        #[arg(long, default_value_t = 7 * 86_400)]
        unbond_delay_s: u64,
        /// On a development chain: gives ADDRESS this many test tokens in the escrow. ADDRESS=AMOUNT, repeatable.
        #[arg(long, value_parser = grant)]
        dev_deposit: Vec<(Address, Amount)>,
        /// On a development chain: gives ADDRESS this many test tokens, and native coin for gas. ADDRESS=AMOUNT, repeatable.
        #[arg(long, value_parser = grant)]
        dev_fund: Vec<(Address, Amount)>,
        /// On a development chain: bonds ADDRESS as a mediator with this many test tokens. ADDRESS=AMOUNT, repeatable.
        #[arg(long, value_parser = grant)]
        dev_bond: Vec<(Address, Amount)>,
        /// The operator whose word on silence bonded mediators take; needed with --dev-bond.
        #[arg(long)]
        dev_operator: Option<Address>,
    },
}

fn grant(text: &str) -> Result<(Address, Amount), String> {
    let (address, amount) = text.split_once('=').ok_or("ADDRESS=AMOUNT is needed")?;
    let address = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    let amount = amount.parse().map_err(|_| format!("{amount:?} is no decimal amount"))?;
    Ok((address, amount))
}

/// Runs the command.
///
/// # Errors
/// 69 where the node does not answer or refuses.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let Contracts::Deploy {
        rpc_url,
        key,
        password_file,
        treasury,
        unbond_delay_s,
        dev_deposit,
        dev_fund,
        dev_bond,
        dev_operator,
    } = args.command;
    if !dev_bond.is_empty() && dev_operator.is_none() {
        return Err(Failure::usage("--dev-bond needs --dev-operator ADDRESS"));
    }
    let signer = keystore::load(&key, password_file.as_deref())?;
    let treasury = treasury.unwrap_or_else(|| signer.address());
    let chain = JsonRpcChain::deploy(&rpc_url, signer.secret(), treasury, unbond_delay_s)
        .await
        .map_err(|fault| Failure::chain(&fault))?;
    let checkpoints = chain.deploy_checkpoints().await.map_err(|fault| Failure::chain(&fault))?;
    for (account, amount) in dev_deposit {
        chain.mint_and_deposit(account, amount).await.map_err(|fault| Failure::chain(&fault))?;
    }
    for (account, amount) in dev_fund {
        chain.fund(account, amount).await.map_err(|fault| Failure::chain(&fault))?;
    }
    for (mediator, amount) in dev_bond {
        let operator = dev_operator.unwrap_or_default();
        chain.bond_mediator(mediator, amount, operator).await.map_err(|fault| Failure::chain(&fault))?;
    }
    let contracts = chain.addresses();
    if json {
        println!(
            "{}",
            serde_json::json!({
                "chain_id": chain.chain_id(), "escrow": contracts.escrow, "registry": contracts.registry,
                "token": contracts.token, "checkpoints": checkpoints, "first_block": chain.first_block(),
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!("[chain]");
    println!("rpc_url = {rpc_url:?}");
    println!("chain_id = {}", chain.chain_id());
    println!("first_block = {}", chain.first_block());
    println!("keystore = {:?}", key.display().to_string());
    if let Some(path) = password_file {
        println!("password_file = {:?}", path.display().to_string());
    }
    println!("[chain.contracts]");
    let Addresses { escrow, registry, token } = contracts;
    for (name, address) in [("escrow", escrow), ("registry", registry), ("token", token), ("checkpoints", checkpoints)]
    {
        println!("{name} = \"{address:#x}\"");
    }
    Ok(ExitCode::SUCCESS)
}

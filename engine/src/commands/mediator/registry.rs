//! `tribunal mediator register, bond, unbond, collect, status`: the mediator's own account at the registry.
//!
//! Works on any configured chain, with or without an engine. Amounts are base units of the bond token. A node that is
//! away, an account that cannot pay and a contract that refuses end with 69, wrong settings and addresses with 78.

use std::{path::PathBuf, process::ExitCode};

use serde_json::{Value, json};
use tribunal_contracts::{BondView, ChainFault, JsonRpcChain, Mined, Registry};
use tribunal_events::{Address, Amount};

use crate::{
    config::{self, Config, MediatorConfig},
    equivocation,
    failure::Failure,
    keystore, moment,
    store::Store,
};

const TOMBSTONED: &str = "tombstoned: it was shown to have signed two different verdicts in one round, lost its bond and \
                          can never bond again; use a new key";

/// Where the registry is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// JSON-RPC of the node; overrides chain.rpc_url.
    #[arg(long)]
    rpc_url: Option<String>,
    /// Overrides chain.contracts.registry.
    #[arg(long)]
    registry: Option<Address>,
    /// Must be the registry's own; overrides chain.contracts.escrow.
    #[arg(long)]
    escrow: Option<Address>,
    /// Must be the registry's own; overrides chain.contracts.token.
    #[arg(long)]
    token: Option<Address>,
}

/// Whose stake it is.
#[derive(Debug, clap::Args)]
struct Key {
    /// The mediator's keystore; overrides mediator.keystore and mediator.signer_url.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Its password; overrides mediator.password_file.
    #[arg(long)]
    password_file: Option<PathBuf>,
}

/// See `tribunal mediator register --help`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Run again it sends nothing that is so already.\n\nExit codes: 0, 69 node away or refused, 78 settings.\n\nExample:\n  tribunal mediator register --operator 0x70997970c51812dc3a010c7d01b50e0d17dc79c8 --bond 500000"
)]
pub struct RegisterArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: Key,
    /// An operator whose word on your silence you take.
    #[arg(long)]
    operator: Address,
    /// At most this may be slashed for silence in a case that appoints you. Anyone can name anyone: watch the chain
    /// before you set it above 0.
    #[arg(long, value_name = "AMOUNT")]
    appointment_slash_max: Option<Amount>,
    /// Bonds what is missing to this much.
    #[arg(long, value_name = "AMOUNT")]
    bond: Option<Amount>,
}

/// See `tribunal mediator bond --help`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A second `bond` is a second bond; what was there before is printed.\n\nExample:\n  tribunal mediator bond 500000"
)]
pub struct BondArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: Key,
    /// How much more.
    amount: Amount,
}

/// See `tribunal mediator unbond --help`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is on its way out can still be slashed; starting again lets all of it wait anew.\n\nExample:\n  tribunal mediator unbond 500000\n  tribunal mediator unbond --finish"
)]
pub struct UnbondArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: Key,
    /// How much.
    #[arg(required_unless_present = "finish", conflicts_with = "finish")]
    amount: Option<Amount>,
    /// Take what has waited long enough.
    #[arg(long)]
    finish: bool,
}

/// See `tribunal mediator collect --help`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tribunal mediator collect --config tribunal.toml")]
pub struct CollectArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: Key,
}

/// See `tribunal mediator status --help`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads only: needs no password where the keystore names its account or --address is given.\n\nExample:\n  tribunal mediator status --operator 0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    key: Key,
    /// The account, instead of the own key's.
    #[arg(long)]
    address: Option<Address>,
    /// Asks whether this operator's word on silence is taken. Repeatable.
    #[arg(long)]
    operator: Vec<Address>,
    /// Lists also the equivocations of others that this engine's store holds.
    #[arg(long)]
    store: Option<PathBuf>,
}

/// Allows the operator, sets the stake on appointments and tops the bond up.
///
/// # Errors
/// See the module.
pub async fn register(args: RegisterArgs, json: bool) -> Result<ExitCode, Failure> {
    let session = Session::open(args.place, args.key).await?;
    let before = session.usable().await?;
    let mut sent = Sent::default();
    let (registry, account) = (session.registry(), session.account);
    let outcome = async {
        if !session.see(registry.is_operator(account, args.operator).await)? {
            session.send("set-operator", registry.set_operator(args.operator, true), &mut sent).await?;
        }
        if let Some(amount) = args.appointment_slash_max
            && amount != before.appointment_slash_max
        {
            let transaction = registry.set_appointment_slash_max(amount);
            session.send("set-appointment-slash-max", transaction, &mut sent).await?;
        }
        match args.bond.and_then(|wanted| wanted.checked_sub(before.active)).filter(|it| !it.is_zero()) {
            Some(missing) => session.bond(missing, &mut sent).await,
            None => Ok(()),
        }
    };
    let outcome = outcome.await;
    sent.after(outcome)?;
    session.report(&before, &sent, json, "registered").await
}

/// Bonds more.
///
/// # Errors
/// See the module.
pub async fn bond(args: BondArgs, json: bool) -> Result<ExitCode, Failure> {
    let session = Session::open(args.place, args.key).await?;
    let before = session.usable().await?;
    let mut sent = Sent::default();
    let outcome = session.bond(args.amount, &mut sent).await;
    sent.after(outcome)?;
    session.report(&before, &sent, json, "bonded").await
}

/// Starts or finishes to take out of the bond.
///
/// # Errors
/// See the module.
pub async fn unbond(args: UnbondArgs, json: bool) -> Result<ExitCode, Failure> {
    let session = Session::open(args.place, args.key).await?;
    let (registry, account) = (session.registry(), session.account);
    let before = session.see(registry.bond_of(account).await)?;
    let mut sent = Sent::default();
    match args.amount {
        Some(amount) => {
            if amount.is_zero() {
                return Err(Failure::usage("0 is nothing to take out"));
            }
            if amount > before.active {
                let why = if before.tombstoned { format!("; the key is {TOMBSTONED}") } else { String::new() };
                return Err(Failure::unavailable(format!(
                    "{account:#x} has {} bonded and cannot take out {amount}{why}",
                    before.active
                )));
            }
            session.send("unbond", registry.start_unbond(amount), &mut sent).await?;
        }
        None => {
            if before.unbonding.is_zero() {
                return Err(Failure::unavailable(format!(
                    "nothing of {account:#x} is on its way out; start with `tribunal mediator unbond AMOUNT`"
                )));
            }
            session.can_pay().await?;
            match registry.finish_unbond().await {
                Ok(mined) => sent.add("finish-unbond", mined),
                Err(ChainFault::Reverted { reason, .. }) if reason.starts_with("StillUnbonding") => {
                    let left = before.unbond_at_s.saturating_sub(session.see(registry.block_time_s().await)?).max(1);
                    return Err(Failure::unavailable(format!(
                        "{} is still on its way out: it can be taken from {}, in {}",
                        before.unbonding,
                        moment::second(before.unbond_at_s),
                        moment::duration(left)
                    )));
                }
                Err(fault) => return Err(session.failure(fault)),
            }
        }
    }
    session.report(&before, &sent, json, if args.finish { "paid out" } else { "on its way out" }).await
}

/// Takes what slashes of others left to the account.
///
/// # Errors
/// See the module.
pub async fn collect(args: CollectArgs, json: bool) -> Result<ExitCode, Failure> {
    let session = Session::open(args.place, args.key).await?;
    let (registry, account) = (session.registry(), session.account);
    let before = session.see(registry.bond_of(account).await)?;
    let owed = session.see(registry.owed_to(account).await)?;
    let mut sent = Sent { collected: Some(owed), ..Sent::default() };
    if !owed.is_zero() {
        session.send("collect", registry.collect(), &mut sent).await?;
    }
    let what = if owed.is_zero() { "nothing was owed".into() } else { format!("collected {owed}") };
    session.report(&before, &sent, json, &what).await
}

/// Shows how an account stands.
///
/// # Errors
/// See the module.
pub async fn status(args: StatusArgs, json: bool) -> Result<ExitCode, Failure> {
    let (config, place) = settings(args.place)?;
    let mediator = overridden(&config, args.key);
    let account = match (args.address, &mediator) {
        (Some(address), _) => address,
        (None, MediatorConfig { keystore: Some(path), signer_url: None, .. }) => match keystore::address(path)? {
            Some(address) => address,
            None => keystore::load(path, mediator.password_file.as_deref())?.address(),
        },
        (None, MediatorConfig { address: Some(address), keystore: None, .. }) => *address,
        _ => return Err(Failure::config(NO_KEY)),
    };
    let Place { rpc_url, registry, escrow, token, .. } = place;
    let (Some(url), Some(registry)) = (rpc_url, registry) else { unreachable!("settings has both") };
    let chain =
        JsonRpcChain::watch_registry(&url, account, registry, escrow, token).await.map_err(|it| Failure::chain(&it))?;
    let session = Session { chain, account };
    session.same_chain(&config)?;
    let registry = session.registry();
    let bond = session.see(registry.bond_of(account).await)?;
    let mut operators = Vec::new();
    for operator in args.operator {
        operators.push((operator, session.see(registry.is_operator(account, operator).await)?));
    }
    let found = match &args.store {
        Some(path) => {
            let store = Store::open_read_only(path).map_err(Failure::unavailable)?;
            equivocation::found(&store).map_err(Failure::unavailable)?
        }
        None => Vec::new(),
    };
    let standing = Standing {
        owed: session.see(registry.owed_to(account).await)?,
        token_balance: session.see(registry.token_balance(account).await)?,
        native_balance: session.see(registry.native_balance(account).await)?,
        unbond_delay_s: session.see(registry.unbond_delay_s().await)?,
        block_time_s: session.see(registry.block_time_s().await)?,
    };
    if json {
        let mut value = session.json(&bond);
        value["operators"] = operators.iter().map(|(it, allowed)| (format!("{it:#x}"), json!(allowed))).collect();
        value["owed"] = standing.owed.to_string().into();
        value["token_balance"] = standing.token_balance.to_string().into();
        value["native_balance_wei"] = standing.native_balance.to_string().into();
        value["unbond_delay_s"] = standing.unbond_delay_s.into();
        if args.store.is_some() {
            value["equivocations"] = serde_json::to_value(&found).expect("evidence has a JSON form");
        }
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    session.print(&bond, &standing);
    for (operator, allowed) in operators {
        let word = if allowed { "its word on silence is taken" } else { "not an operator of this mediator" };
        println!("operator         {operator:#x}  {word}");
    }
    for it in found {
        let outcome = match &it.outcome {
            None => "not shown to the contract yet".into(),
            Some(equivocation::Outcome::Slashed { slashed, reward, ours, finder, transaction, .. }) => {
                let whose = if *ours { "ours".into() } else { format!("{finder:#x}'s") };
                format!("slashed {slashed}, reward {reward} is {whose}, transaction {transaction:#x}")
            }
            Some(equivocation::Outcome::NoContract) => "no contract holds the money of this deal".into(),
            Some(equivocation::Outcome::OwnKey) => "a key that judges here: stop it, it is used elsewhere".into(),
            Some(equivocation::Outcome::Failed { reason }) => format!("not taken by the contract: {reason}"),
        };
        let (mediator, round) = (it.first.mediator, it.first.round);
        println!("equivocation     {mediator:#x} in round {round} of deal {}: {outcome}", it.deal_id);
    }
    Ok(ExitCode::SUCCESS)
}

const NO_KEY: &str = "no mediator's key is named: set mediator.keystore (or mediator.signer_url), or give --key FILE";

/// What was read about an account beside its bond.
struct Standing {
    owed: Amount,
    token_balance: Amount,
    native_balance: Amount,
    unbond_delay_s: u64,
    block_time_s: u64,
}

/// Transactions sent, in order.
#[derive(Default)]
struct Sent {
    transactions: Vec<(&'static str, Mined)>,
    /// What was owed and is taken.
    collected: Option<Amount>,
}

impl Sent {
    fn add(&mut self, step: &'static str, mined: Mined) {
        self.transactions.push((step, mined));
    }

    /// "approve 0x…, bond 0x…"
    fn list(&self) -> String {
        let transaction = |(step, mined): &(&str, Mined)| format!("{step} {:#x}", mined.transaction);
        self.transactions.iter().map(transaction).collect::<Vec<_>>().join(", ")
    }

    /// How all of it ended: where the rest failed what was sent is told with it.
    fn after(&self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        outcome.map_err(|failure| match self.list() {
            sent if sent.is_empty() => failure,
            sent => Failure::new(failure.code, format!("{failure}; before that this was sent: {sent}")),
        })
    }
}

/// The settings with the flags in them; node and registry are there.
fn settings(mut place: Place) -> Result<(Config, Place), Failure> {
    let (config, _) = config::load(place.config.as_ref(), &[])?;
    let contracts = &config.chain.contracts;
    place.rpc_url = place.rpc_url.or_else(|| config.chain.rpc_url.clone());
    // Contracts that are named for another node than the flag's are not meant.
    let registry_given = place.registry.is_some();
    place.registry = place.registry.or(contracts.registry);
    if !registry_given {
        place.escrow = place.escrow.or(contracts.escrow);
        place.token = place.token.or(contracts.token);
    }
    if place.rpc_url.is_none() {
        return Err(Failure::config(
            "no chain is configured: without chain.rpc_url (or --rpc-url) the contracts live in the engine's own process \
             with play money, and there is nothing to register at",
        ));
    }
    if place.registry.is_none() {
        return Err(Failure::config("no registry is named: set chain.contracts.registry or give --registry ADDRESS"));
    }
    Ok((config, place))
}

fn overridden(config: &Config, key: Key) -> MediatorConfig {
    let mut mediator = config.mediator.clone();
    if let Some(path) = key.key {
        mediator = MediatorConfig { keystore: Some(path), ..Default::default() };
    }
    if key.password_file.is_some() {
        mediator.password_file = key.password_file;
    }
    mediator
}

/// A registry and the account that is looked at or sends.
struct Session {
    chain: JsonRpcChain,
    account: Address,
}

impl Session {
    async fn open(place: Place, key: Key) -> Result<Self, Failure> {
        let (config, place) = settings(place)?;
        let signer = keystore::mediator_signer(&overridden(&config, key))?.ok_or_else(|| Failure::config(NO_KEY))?;
        let account = signer.address();
        let Place { rpc_url, registry, escrow, token, .. } = place;
        let (Some(url), Some(registry)) = (rpc_url, registry) else { unreachable!("settings has both") };
        let chain = JsonRpcChain::connect_registry(&url, signer, registry, escrow, token).await;
        let session = Self { chain: chain.map_err(|fault| Failure::chain(&fault))?, account };
        session.same_chain(&config)?;
        let Self { chain, account } = session;
        Ok(Self { chain: chain.with_confirmations(config.chain.confirmations), account })
    }

    fn same_chain(&self, config: &Config) -> Result<(), Failure> {
        use tribunal_contracts::Chain as _;
        let found = self.chain.chain_id();
        match config.chain.chain_id {
            Some(expected) if expected != found => {
                Err(Failure::config(format!("chain.chain_id is {expected}, the node says {found}")))
            }
            _ => Ok(()),
        }
    }

    const fn registry(&self) -> Registry<'_> {
        self.chain.registry()
    }

    /// The bond, of an account that may still bond.
    async fn usable(&self) -> Result<BondView, Failure> {
        let bond = self.see(self.registry().bond_of(self.account).await)?;
        if bond.tombstoned {
            return Err(self.tombstoned());
        }
        Ok(bond)
    }

    /// Sends a transaction, if the account has anything to pay for it.
    async fn send(
        &self,
        step: &'static str,
        transaction: impl Future<Output = Result<Mined, ChainFault>>,
        sent: &mut Sent,
    ) -> Result<(), Failure> {
        self.can_pay().await?;
        sent.add(step, self.see(transaction.await)?);
        Ok(())
    }

    async fn can_pay(&self) -> Result<(), Failure> {
        if self.see(self.registry().native_balance(self.account).await)?.is_zero() {
            return Err(self.unfunded());
        }
        Ok(())
    }

    /// Lets the registry take the tokens, where it may not already, and bonds them.
    async fn bond(&self, amount: Amount, sent: &mut Sent) -> Result<(), Failure> {
        if amount.is_zero() {
            return Err(Failure::usage("0 is nothing to bond"));
        }
        let registry = self.registry();
        let there = self.see(registry.token_balance(self.account).await)?;
        if there < amount {
            return Err(Failure::unavailable(format!(
                "{:#x} has {there} of bond token {:#x} and needs {amount}; send it the rest",
                self.account,
                self.chain.addresses().token
            )));
        }
        if self.see(registry.allowance(self.account).await)? < amount {
            self.send("approve", registry.approve(amount), sent).await?;
        }
        self.send("bond", registry.bond(amount), sent).await
    }

    fn see<T>(&self, result: Result<T, ChainFault>) -> Result<T, Failure> {
        result.map_err(|fault| self.failure(fault))
    }

    fn failure(&self, fault: ChainFault) -> Failure {
        match &fault {
            ChainFault::Unfunded { .. } => self.unfunded(),
            ChainFault::Reverted { reason, .. } if reason.starts_with("Tombstoned") => self.tombstoned(),
            _ => Failure::chain(&fault),
        }
    }

    fn tombstoned(&self) -> Failure {
        Failure::unavailable(format!("{:#x} is {TOMBSTONED}", self.account))
    }

    fn unfunded(&self) -> Failure {
        Failure::unavailable(format!(
            "{:#x} cannot pay for gas: send this account some of the chain's native coin",
            self.account
        ))
    }

    fn json(&self, bond: &BondView) -> Value {
        use tribunal_contracts::Chain as _;
        let hex = |address: Address| format!("{address:#x}");
        let addresses = self.chain.addresses();
        json!({
            "mediator": hex(self.account), "chain_id": self.chain.chain_id(), "registry": hex(addresses.registry),
            "escrow": hex(addresses.escrow), "token": hex(addresses.token), "bond": bond_json(bond),
        })
    }

    /// What was sent, and how the bond stands before and after.
    async fn report(&self, before: &BondView, sent: &Sent, json: bool, what: &str) -> Result<ExitCode, Failure> {
        let unread = |failure: Failure| match sent.list() {
            sent if sent.is_empty() => failure,
            sent => Failure::new(
                failure.code,
                format!(
                    "sent {sent}, but the bond could not be read: do not repeat it, run `tribunal mediator status` \
                     ({failure})"
                ),
            ),
        };
        let after = self.see(self.registry().bond_of(self.account).await).map_err(unread)?;
        if json {
            let mut value = self.json(&after);
            value["before"] = bond_json(before);
            let transaction = |(step, mined): &(&str, Mined)| {
                json!({ "step": step, "transaction": format!("{:#x}", mined.transaction), "block": mined.block,
                    "gas_used": mined.gas_used })
            };
            value["transactions"] = sent.transactions.iter().map(transaction).collect();
            if let Some(collected) = sent.collected {
                value["collected"] = collected.to_string().into();
            }
            println!("{value}");
            return Ok(ExitCode::SUCCESS);
        }
        println!("mediator {:#x}: {what}", self.account);
        println!("found    active {}, unbonding {}", before.active, before.unbonding);
        for (step, mined) in &sent.transactions {
            println!("sent     {step}  {:#x}  block {}", mined.transaction, mined.block);
        }
        if sent.transactions.is_empty() {
            println!("sent     nothing");
        }
        println!("now      active {}, unbonding {}", after.active, after.unbonding);
        if !after.unbonding.is_zero() {
            println!("         unbonding can be taken from {}", moment::second(after.unbond_at_s));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, bond: &BondView, standing: &Standing) {
        use tribunal_contracts::Chain as _;
        println!("mediator         {:#x}", self.account);
        println!("registry         {:#x} on chain {}", self.chain.addresses().registry, self.chain.chain_id());
        println!("standing         {}", if bond.tombstoned { TOMBSTONED } else { "good" });
        println!("active           {}", bond.active);
        let when = match bond.unbond_at_s.checked_sub(standing.block_time_s) {
            _ if bond.unbonding.is_zero() => String::new(),
            Some(left @ 1..) => {
                format!(", can be taken from {}, in {}", moment::second(bond.unbond_at_s), moment::duration(left))
            }
            _ => ", can be taken now: tribunal mediator unbond --finish".into(),
        };
        println!("unbonding        {}{when}", bond.unbonding);
        println!("unbonding takes  {}", moment::duration(standing.unbond_delay_s));
        println!(
            "appointment      at most {} slashed for silence without an operator's word",
            bond.appointment_slash_max
        );
        println!("owed             {}", standing.owed);
        println!("token balance    {} of {:#x}", standing.token_balance, self.chain.addresses().token);
        println!("native balance   {} wei for gas", standing.native_balance);
    }
}

fn bond_json(bond: &BondView) -> Value {
    json!({
        "active": bond.active.to_string(), "unbonding": bond.unbonding.to_string(), "unbond_at_s": bond.unbond_at_s,
        "appointment_slash_max": bond.appointment_slash_max.to_string(), "tombstoned": bond.tombstoned,
    })
}

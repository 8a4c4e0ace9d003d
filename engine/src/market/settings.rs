//! `[markets.NAME]`: which marketplaces this operator judges for, and as whom.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tribunal_contracts::{
    Account, Endpoints, Sender, SenderSettings,
    alkahest::{Alkahest, Generation},
    lilypad::Lilypad,
};
use tribunal_events::{Address, Signer};
use tribunal_verifiers::{ArtifactSource, Service};

use super::{
    Market, Marketplace, Parts,
    alkahest::{AlkahestMarket, Peers},
    lilypad::{LilypadMarket, deals::Deals, modules::Modules},
};
use crate::{
    config::Config,
    failure::Failure,
    keystore::{self, Key},
};

/// Markets at most.
const MARKETS_MAX: usize = 64;
/// Wei in a gwei.
const GWEI: u128 = 1_000_000_000;

/// Which marketplace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarketKind {
    /// Alkahest's `TrustedOracleArbiter`: this account is the oracle.
    #[default]
    Alkahest,
    /// Lilypad v2: this account is a mediator that deals name.
    Lilypad,
    /// CoopHive v1: likewise, in the same words.
    Coophive,
}

/// One marketplace's contract on one chain, and the account that judges for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarketConfig {
    /// Which marketplace.
    pub kind: MarketKind,
    /// JSON-RPC of nodes, the preferred one first.
    pub rpc_urls: Vec<String>,
    /// Their chain id; a node that says otherwise is not used.
    pub chain_id: Option<u64>,
    /// Blocks, its own included, that must stand before a request or an answer counts.
    pub confirmations: u64,
    /// The block of the contract's deployment.
    pub first_block: u64,
    /// Seconds between two looks at the chain.
    pub poll_s: u64,
    /// At most this is paid for a unit of gas.
    pub fee_gwei_max: u64,
    /// The account that answers and pays for gas.
    pub keystore: Option<PathBuf>,
    /// Its password.
    pub password_file: Option<PathBuf>,
    /// Instead of a keystore: a signer that speaks Web3Signer's HTTP API.
    pub signer_url: Option<String>,
    /// With `signer_url`: the account of the key.
    pub address: Option<Address>,
    /// Alkahest: the `TrustedOracleArbiter`.
    pub arbiter: Option<Address>,
    /// Alkahest: EAS.
    pub eas: Option<Address>,
    /// Alkahest: the arbiter's ABI, "v1" or "old"; "panel" for a `TribunalArbiter`.
    pub generation: Generation,
    /// Panel: engines of the other mediators, `http://host:port`, that are asked for their votes.
    pub peers: Vec<String>,
    /// Alkahest: `AllArbiter`s and `AnyArbiter`s that a demand may sit in.
    pub composites: Vec<Address>,
    /// Alkahest: escrow contracts that are served; empty: all.
    pub escrows: Vec<Address>,
    /// Lilypad, CoopHive: the contract that holds deals and results.
    pub storage: Option<Address>,
    /// Lilypad, CoopHive: the contract that draws mediators.
    pub mediation: Option<Address>,
    /// Lilypad, CoopHive: a folder with `<dealId>.json`, or a solver, `https://host/api/v1`, that has `/deals/<dealId>`.
    pub deals: Option<String>,
    /// Lilypad, CoopHive: a folder of files that say what job a module is.
    pub modules: Option<PathBuf>,
}

impl Default for MarketConfig {
    fn default() -> Self {
        Self {
            kind: MarketKind::default(),
            rpc_urls: Vec::new(),
            chain_id: None,
            confirmations: 12,
            first_block: 0,
            poll_s: 4,
            fee_gwei_max: 500,
            keystore: None,
            password_file: None,
            signer_url: None,
            address: None,
            arbiter: None,
            eas: None,
            generation: Generation::default(),
            peers: Vec::new(),
            composites: Vec::new(),
            escrows: Vec::new(),
            storage: None,
            mediation: None,
            deals: None,
            modules: None,
        }
    }
}

impl MarketConfig {
    fn marketplace(
        &self,
        name: &str,
        chain_id: u64,
        account: Address,
        artifacts: &Arc<dyn ArtifactSource>,
    ) -> Result<Box<dyn Marketplace>, Failure> {
        let needed = |key: &str, value: Option<Address>| {
            value.ok_or_else(|| Failure::config(format!("markets.{name}.{key} is missing")))
        };
        match self.kind {
            MarketKind::Alkahest => {
                let contract = Alkahest {
                    chain_id,
                    arbiter: needed("arbiter", self.arbiter)?,
                    generation: self.generation,
                    eas: needed("eas", self.eas)?,
                    composites: self.composites.clone(),
                    escrows: self.escrows.clone(),
                    oracle: account,
                };
                let peers =
                    Peers::new(&self.peers).map_err(|problem| Failure::config(format!("markets.{name}: {problem}")))?;
                Ok(Box::new(AlkahestMarket::new(contract, Arc::clone(artifacts), peers)))
            }
            MarketKind::Lilypad | MarketKind::Coophive => {
                let contract = Lilypad {
                    storage: needed("storage", self.storage)?,
                    mediation: needed("mediation", self.mediation)?,
                    mediator: account,
                };
                let missing = |key: &str| Failure::config(format!("markets.{name}.{key} is missing"));
                let wrong = |key: &str, problem: String| Failure::config(format!("markets.{name}.{key}: {problem}"));
                let deals = self.deals.as_deref().ok_or_else(|| missing("deals"))?;
                let deals = Deals::new(deals).map_err(|problem| wrong("deals", problem))?;
                let modules = self.modules.clone().ok_or_else(|| missing("modules"))?;
                let modules = Modules::open(modules).map_err(|problem| wrong("modules", problem))?;
                let kind = if self.kind == MarketKind::Lilypad { "lilypad" } else { "coophive" };
                Ok(Box::new(LilypadMarket::new(kind, contract, deals, modules)))
            }
        }
    }

    async fn open(
        &self,
        name: &str,
        folder: &Path,
        verifier: &Arc<Service>,
        artifacts: &Arc<dyn ArtifactSource>,
        workers: &Arc<Semaphore>,
    ) -> Result<Market, Failure> {
        let section = format!("markets.{name}");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(Failure::config(format!("{section}: a market's name is of letters, digits, - and _")));
        }
        let (key, of) = (self.clone(), section.clone());
        let asked = move || keystore::signer(&of, &key.key());
        let signer: Option<Arc<dyn Signer>> =
            tokio::task::spawn_blocking(asked).await.map_err(Failure::unavailable)??;
        let Some(signer) = signer else {
            return Err(Failure::config(format!("{section} needs keystore, or signer_url and address")));
        };
        let chain = |fault| Failure::chain(&fault);
        let endpoints = Endpoints::new(&self.rpc_urls, self.chain_id).map_err(chain)?;
        let settings = SenderSettings {
            confirmations: self.confirmations,
            fee_per_gas_wei_max: u128::from(self.fee_gwei_max) * GWEI,
            ..SenderSettings::default()
        };
        let transactions = folder.join(format!("{name}.transactions.jsonl"));
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::unavailable(format!("{}: {error}", folder.display())))?;
        let account = Account::of(Arc::clone(&signer));
        let sender = Sender::connect(&endpoints, account, settings, Some(&transactions)).await.map_err(chain)?;
        let marketplace = self.marketplace(name, sender.chain_id(), signer.address(), artifacts)?;
        tracing::info!(market = name, node = endpoints.describe(), account = %sender.account(), "judges for a marketplace");
        Market::open(Parts {
            name: name.to_owned(),
            marketplace,
            sender,
            signer,
            first_block: self.first_block,
            confirmations: self.confirmations,
            poll: Duration::from_secs(self.poll_s.max(1)),
            journal: folder.join(format!("{name}.cases.jsonl")),
            verifier: Arc::clone(verifier),
            workers: Arc::clone(workers),
        })
        .map_err(Failure::unavailable)
    }

    fn key(&self) -> Key<'_> {
        let Self { keystore, password_file, signer_url, address, .. } = self;
        Key { keystore, password_file, signer_url, address }
    }
}

/// The markets of an engine, at work.
#[derive(Default)]
pub struct Markets {
    markets: Vec<Arc<Market>>,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
}

impl Markets {
    /// Connects to every market and begins to follow it. `payer`: the account that sends the engine's own transactions, and
    /// its chain.
    ///
    /// # Errors
    /// 78 for settings, 69 where a node or a journal is not there.
    pub async fn start(
        config: &Config,
        payer: Option<(u64, Address)>,
        verifier: &Arc<Service>,
        artifacts: &Arc<dyn ArtifactSource>,
    ) -> Result<Self, Failure> {
        if config.markets.len() > MARKETS_MAX {
            return Err(Failure::config(format!("at most {MARKETS_MAX} markets, not {}", config.markets.len())));
        }
        let workers = Arc::new(Semaphore::new(config.verifiers.workers.max(1)));
        let folder = config.markets_folder();
        let mut this = Self::default();
        for (name, market) in &config.markets {
            this.markets.push(Arc::new(market.open(name, &folder, verifier, artifacts, &workers).await?));
        }
        this.check_accounts(payer)?;
        for market in &this.markets {
            this.tasks.spawn(Arc::clone(market).run(this.cancel.clone()));
        }
        Ok(this)
    }

    /// Two senders with one account on one chain would take each other's nonces.
    fn check_accounts(&self, payer: Option<(u64, Address)>) -> Result<(), Failure> {
        let own = payer.map(|payer| (payer, "chain".to_owned()));
        let mut seen: BTreeMap<_, _> = own.into_iter().collect();
        for market in &self.markets {
            let section = format!("markets.{}", market.name());
            if let Some(other) = seen.insert(market.account(), section.clone()) {
                let (chain, account) = market.account();
                let problem = format!("{other} and {section} use one account, {account:#x}, on chain {chain}");
                return Err(Failure::config(format!("{problem}: give each its own")));
            }
        }
        Ok(())
    }

    /// They, for others to look at.
    pub fn list(&self) -> Vec<Arc<Market>> {
        self.markets.clone()
    }

    /// Stops following; what is at work is taken up at the next start.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

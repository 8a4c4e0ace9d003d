//! `tribunal serve`.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tribunal_contracts::{Account, Addresses, Chain, JsonRpcChain, RpcSettings, SenderSettings};
use tribunal_events::{Address, Domain, Signer, SigningKey};
use tribunal_verifiers::{ArtifactSource, Service};

use crate::{
    bus::{Bus, InProcessBus, InProcessLimits, NatsBus, NatsConfig},
    chain_observer::Following,
    config::{self, ChainConfig, Config},
    engine::{Engine, Parts, now},
    failure::Failure,
    follow::{Followed, Follower},
    http::HttpState,
    keystore,
    market::settings::Markets,
    mediator::{Mediator, history::History},
    partition::Settings,
    play_money::PlayMoney,
    policy::Preflight,
    store::Store,
    watch::Watcher,
};

/// How often the chain is asked for what happened there.
const FOLLOW_POLL: Duration = Duration::from_secs(4);

/// Runs the engine.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With no configuration: in-process bus, ./tribunal-data, contracts on an in-process EVM with play money, 127.0.0.1:8080.\n\nExample:\n  tribunal serve\n  tribunal serve --config tribunal.toml --print-config"
)]
pub struct Args {
    /// The configuration; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Show the settings with their sources and stop.
    #[arg(long)]
    print_config: bool,
    /// `nats://…`; overrides bus.url.
    #[arg(long)]
    bus_url: Option<String>,
    /// Overrides store.path.
    #[arg(long)]
    store: Option<String>,
    /// Overrides http.listen.
    #[arg(long)]
    listen: Option<String>,
}

/// Runs the command until it is asked to stop.
///
/// # Errors
/// 78 for settings, 69 for a world that is not there.
pub async fn run(args: Args, _json: bool) -> Result<ExitCode, Failure> {
    let flags = [("bus.url", args.bus_url), ("store.path", args.store), ("http.listen", args.listen)];
    let (config, figment) = config::load(args.config.as_ref(), &flags)?;
    if args.print_config {
        print_config(&config, &figment, &flags);
        return Ok(ExitCode::SUCCESS);
    }
    crate::commands::logs("info");
    let store = Store::open(&config.store.path, config.store.fsync.into()).map_err(Failure::unavailable)?;
    let operator = operator(&config)?;
    // A remote signer is asked over a connection of its own, which blocks.
    let settings = config.mediator.clone();
    let judges = tokio::task::spawn_blocking(move || keystore::mediator_signer(&settings));
    let judges: Vec<_> = judges.await.map_err(Failure::unavailable)??.into_iter().collect();
    let history = match &judges[..] {
        [] => None,
        _ => Some(Arc::new(History::open(config.signing_history()).map_err(Failure::unavailable)?)),
    };
    let nats = match &config.bus.url {
        Some(url) => {
            let settings = NatsConfig {
                credentials: config.bus.credentials.clone(),
                stream: config.bus.stream.clone(),
                ..NatsConfig::new(url.clone())
            };
            Some(NatsBus::connect(settings).await.map_err(Failure::unavailable)?)
        }
        None => None,
    };
    let bus: Arc<dyn Bus> = match &nats {
        Some(nats) => Arc::new(nats.clone()),
        None => Arc::new(InProcessBus::new(now, InProcessLimits::default())),
    };
    let log = super::log::signer(&config, &store, &operator)?;
    tracing::info!(vkey = %log.key().verifier(), "the log is signed by this key");
    let (chain, paying) = chain(&config, &store).await?;
    let artifacts = crate::artifacts::open(&config.verifiers.artifacts, &config)?;
    let verifier = Arc::new(Service::new(config.verifiers.limits(), vec![Arc::clone(&artifacts)]));
    tracing::info!(
        operator = %operator.address(), bus = bus.describe(), chain = chain.describe(),
        escrow = %chain.escrow(), store = %config.store.path.display(), "engine starts"
    );
    for mediator in &judges {
        tracing::info!(mediator = %mediator.address(), "judges cases that name or draw this key");
    }
    let domain_chain = chain.chain_id();
    let domains = vec![Domain::new(domain_chain, chain.escrow())];
    let mediators: Vec<Address> = judges.iter().map(|signer| signer.address()).collect();
    let preflight = preflight(&config, &mediators);
    let engine = Engine::start(Parts {
        store,
        bus,
        chain: Some(chain),
        verifier: Arc::clone(&verifier),
        artifacts: Arc::clone(&artifacts),
        settings: Settings { operator: operator.clone(), domains, recorded_time: false, preflight },
        mediators: judges.clone(),
        history: history.clone(),
        workers: config.verifiers.workers,
        fuel_per_s: config.policy.fuel_per_s,
    })
    .await
    .map_err(Failure::unavailable)?;
    engine.keep_checkpoints(Arc::new(log), Duration::from_secs(config.log.checkpoint_s), config.log.checkpoint_records);
    let payer = paying.as_ref().map(|paying| (domain_chain, paying.payer));
    let cancel = CancellationToken::new();
    if let Some(Paying { following, node, .. }) = paying {
        engine.follow_chain(following);
        if let Some(contract) = config.chain.contracts.checkpoints {
            let every = Duration::from_secs(config.log.anchor_s.max(1));
            let anchoring = crate::log::keep_anchored(engine.store().clone(), node, contract, every, cancel.clone());
            tokio::spawn(anchoring);
        }
    }
    let followed = match (engine.desk(), &history) {
        (Some(own), Some(history)) => {
            let judging = |follower: &Follower| {
                let mediator = |signer: &Arc<dyn Signer>| {
                    let (store, history) = (follower.store().clone(), Arc::clone(history));
                    Mediator::new(Arc::clone(signer), store, history, Arc::clone(&verifier), Arc::clone(&artifacts))
                };
                judges.iter().map(mediator).collect::<Result<_, _>>()
            };
            let watcher = Arc::new(Watcher::new(&config, Arc::clone(&verifier), Arc::clone(&artifacts)));
            let (settings, folder) = (&config.mediator, config.followed());
            Followed::start(settings, &folder, own, operator.address(), history, judging, &watcher)?
        }
        _ if config.mediator.follow.is_empty() => Followed::default(),
        _ => return Err(Failure::config("mediator.follow needs mediator.keystore or mediator.signer_url")),
    };
    let markets = Markets::start(&config, payer, &verifier, &artifacts).await?;
    let state = http_state(&engine, &verifier, &artifacts, &operator, config.http.token.clone())
        .with_store_hint(config.store.path.display().to_string())
        .with_mediators(mediators)
        .with_desks(followed.desks())
        .with_markets(markets.list());
    let service =
        nats.map(|nats| tokio::spawn(crate::service::serve(nats.client().clone(), state.clone(), cancel.clone())));
    let listener = tokio::net::TcpListener::bind(config.http.listen)
        .await
        .map_err(|error| Failure::unavailable(format!("cannot listen on {}: {error}", config.http.listen)))?;
    tracing::info!(address = %listener.local_addr().map_err(Failure::unavailable)?, "page and API are served");
    let outcome = tokio::select! {
        () = crate::http::serve(listener, state, crate::commands::stopped()) => Ok(()),
        reason = engine.failed() => Err(Failure::unavailable(format!("the engine stopped: {reason}"))),
    };
    cancel.cancel();
    if let Some(service) = service
        && let Ok(Err(fault)) = service.await
    {
        tracing::error!(%fault, "the NATS service did not run");
    }
    let grace = Duration::from_secs(config.mediator.grace_s);
    tokio::join!(engine.shutdown(grace), followed.shutdown(grace), markets.shutdown());
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What refuses proposals that the mediators run here would not judge, where the settings want that.
fn preflight(config: &Config, mediators: &[Address]) -> Option<Arc<Preflight>> {
    if !config.policy.enforce || mediators.is_empty() {
        return None;
    }
    let (policy, limits) = (config.policy.clone(), config.verifiers.limits());
    Some(Arc::new(Preflight { policy, limits, mediators: mediators.to_vec() }))
}

/// What HTTP and the NATS service answer from.
pub fn http_state(
    engine: &Engine,
    verifier: &Arc<Service>,
    artifacts: &Arc<dyn ArtifactSource>,
    operator: &SigningKey,
    token: Option<String>,
) -> HttpState {
    HttpState::new(engine, Arc::clone(verifier), Arc::clone(artifacts), operator.clone(), token)
        .with_ready(engine.readiness())
}

/// The operator's key: as configured, else a development key beside the store, made the first time.
pub(super) fn operator(config: &Config) -> Result<SigningKey, Failure> {
    if let Some(path) = &config.operator.keystore {
        return keystore::load(path, config.operator.password_file.as_deref());
    }
    let path = config.store.path.join("operator-dev-key.json");
    if !path.exists() {
        keystore::create(&path, None, true)?;
        tracing::warn!(path = %path.display(), "made a plain development key; set operator.keystore for real deals");
    }
    keystore::load(&path, None)
}

/// A chain that others write to as well: how it is followed, and the account that pays for transactions there.
struct Paying {
    following: Following,
    payer: Address,
    node: Arc<JsonRpcChain>,
}

/// Where the money is.
async fn chain(config: &Config, store: &Store) -> Result<(Arc<dyn Chain>, Option<Paying>), Failure> {
    let it = config.chain.clone();
    let Some(url) = &it.rpc_url else {
        if !it.rpc_urls.is_empty() {
            return Err(Failure::config("chain.rpc_urls are more nodes beside chain.rpc_url, which is missing"));
        }
        let path = PlayMoney::default_path(&config.store.path);
        let chain = PlayMoney::open(&path, store).await.map_err(Failure::unavailable)?;
        return Ok((chain, None));
    };
    let (Some(escrow), Some(registry), Some(token)) = (it.contracts.escrow, it.contracts.registry, it.contracts.token)
    else {
        return Err(Failure::config("chain.contracts needs escrow, registry and token beside chain.rpc_url"));
    };
    let urls = std::iter::once(url).chain(&it.rpc_urls).cloned().collect();
    let (chain_id, first_block) = (it.chain_id, it.first_block);
    let sender = SenderSettings {
        confirmations: it.confirmations,
        fee_per_gas_wei_max: u128::from(it.fee_gwei_max) * 1_000_000_000,
        ..SenderSettings::default()
    };
    // A remote signer is asked over a connection of its own, which blocks.
    let asked = tokio::task::spawn_blocking(move || {
        let ChainConfig { keystore, password_file, signer_url, address, .. } = &it;
        keystore::signer("chain", &keystore::Key { keystore, password_file, signer_url, address })
    });
    let Some(signer) = asked.await.map_err(Failure::unavailable)?? else {
        return Err(Failure::config("chain.keystore names the account that pays for transactions; it is missing"));
    };
    let journal = Some(config.beside_the_store(".transactions.jsonl"));
    let settings = RpcSettings { urls, chain_id, first_block, sender, journal, ..RpcSettings::default() };
    let account = Account::of(signer);
    let payer = account.address();
    let addresses = Addresses { token, registry, escrow };
    let chain = JsonRpcChain::open(settings, account, addresses).await.map_err(|fault| Failure::chain(&fault))?;
    let following = Following {
        witness: chain.witness(),
        escrow,
        registry,
        first_block,
        confirmations: config.chain.confirmations,
        poll: FOLLOW_POLL,
    };
    let node = Arc::new(chain);
    Ok((Arc::clone(&node) as Arc<dyn Chain>, Some(Paying { following, payer, node })))
}

fn print_config(config: &Config, figment: &figment::Figment, flags: &[(&str, Option<String>)]) {
    let json = serde_json::to_value(config).expect("settings have a JSON form");
    for (section, keys) in json.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            let name = format!("{section}.{key}");
            let flag = flags.iter().any(|(flag, value)| *flag == name && value.is_some());
            let source = match figment.find_metadata(&name) {
                _ if flag => "flag".to_owned(),
                Some(metadata) if !config::is_default(figment, &name) => {
                    metadata.source.as_ref().map_or_else(|| metadata.name.to_string(), ToString::to_string)
                }
                _ => "default".to_owned(),
            };
            println!("{name} = {}  # {source}", config::shown(key, value));
        }
    }
}

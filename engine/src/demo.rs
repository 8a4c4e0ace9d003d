//! Plays recorded deals through the whole engine and compares what came out with what should.
//!
//! A recording holds signed envelopes and the moments at which they were first received. Time comes from the recording,
//! so a demo takes seconds and gives the same outcomes each time; everything else is the real engine: a bus, a fresh RocksDB
//! store, the verifiers, mediators with keys of their own, and the contracts on an in-process EVM.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tribunal_contracts::{Chain, InProcessChain};
use tribunal_core::{Deal, Phase};
use tribunal_events::{
    Address, Amount, DealId, Domain, Envelope, EventKind, Outcome, Protocol, Role, Signer, SigningKey,
};
use tribunal_verifiers::{ArtifactSource, OperatorLimits, Service};

use crate::{
    bus::{Bus, HEADER_RECORDED_AT, InProcessBus, InProcessLimits, NatsBus, NatsConfig, NatsServer, Outgoing},
    config::PolicyConfig,
    effects::outgoing,
    engine::{Engine, Fencing, Parts, now},
    failure::Failure,
    mediator::history::History,
    partition::{CLOCK_SUBJECT, Settings},
    replay::load,
    store::{Fsync, Store},
};

/// `deal.json` of a recorded deal; see `fixtures/deals`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// One line.
    pub title: String,
    /// What it shows.
    pub description: String,
    /// The deal.
    pub deal_id: DealId,
    /// What must come out.
    pub expect: Expectation,
    /// What the parties have in the escrow before.
    pub deposits: Deposits,
    /// Bonds of mediators before.
    pub bonds: BTreeMap<Address, Amount>,
    /// What happens when.
    pub timeline: Vec<Moment>,
}

/// What a recorded deal must give.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Expectation {
    pub outcome: String,
    pub reason_code: String,
    pub net: Net,
    pub refused: Vec<String>,
    #[serde(default)]
    pub slashed: BTreeMap<Address, Amount>,
}

/// Signed decimals: out less in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Net {
    pub client: String,
    pub provider: String,
    pub mediators: String,
    pub treasury: String,
}

/// Base units in the escrow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Deposits {
    pub client: Amount,
    pub provider: Amount,
}

/// A moment: a line of `events.jsonl` to send, or time alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Moment {
    pub at_us: u64,
    #[serde(default)]
    pub line: Option<usize>,
}

/// A recorded deal as read.
pub struct RecordedDeal {
    /// Its folder's name.
    pub name: String,
    /// What is recorded.
    pub recording: Recording,
    /// Lines to send.
    pub lines: Vec<String>,
}

/// What a played deal gave.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// Its folder's name.
    pub name: String,
    /// One line.
    pub title: String,
    /// The deal.
    pub deal_id: DealId,
    /// One of the words of `tribunal demo`.
    pub outcome: String,
    /// Why.
    pub reason_code: String,
    /// What the settlement moved.
    pub net: Net,
    /// Codes of refused events.
    pub refused: Vec<String>,
    /// What mediators lost from their bonds.
    pub slashed: BTreeMap<Address, Amount>,
    /// The transaction that moved the money.
    pub transaction: Option<String>,
    /// What is not as it should be; empty: all as expected.
    pub differences: Vec<String>,
}

/// Which bus to play over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BusChoice {
    /// A private nats-server with JetStream.
    Nats,
    /// In this process.
    InProcess,
}

/// A development key that everybody can derive. Never worth anything.
pub fn development_key(name: &str) -> SigningKey {
    SigningKey::new(blake3::derive_key("tribunal fixtures key", name.as_bytes())).expect("below the order")
}

/// The mediators that a demo runs; recordings keep `m6` and `m7` for liars and the silent.
const MEDIATORS: [&str; 5] = ["m1", "m2", "m3", "m4", "m5"];

/// The file that tells a demo's folder from others.
const MARKER: &str = ".tribunal-demo";

/// Everything that a demo runs on. Dropping it ends the private nats-server.
pub struct Stage {
    /// The engine.
    pub engine: Engine,
    /// The contracts.
    pub chain: Arc<InProcessChain>,
    /// Serves artifacts.
    pub artifacts: Arc<dyn ArtifactSource>,
    /// Checks claims.
    pub verifier: Arc<Service>,
    /// Signs as the operator.
    pub operator: SigningKey,
    /// What the bus is.
    pub bus: String,
    /// Who judges here.
    pub mediators: Vec<Address>,
    /// The bus as NATS, if it is.
    pub nats: Option<NatsBus>,
    _server: Option<NatsServer>,
}

/// Reads the recorded deals below `fixtures` (or `fixtures/deals`), in the order of their first moments.
///
/// # Errors
/// Names the file that is wrong.
pub fn read(fixtures: &Path) -> Result<Vec<RecordedDeal>, Failure> {
    let folder = if fixtures.join("deals").is_dir() { fixtures.join("deals") } else { fixtures.to_owned() };
    let entries = fs::read_dir(&folder).map_err(|error| {
        Failure::config(format!("no recorded deals in {}: {error}; give --fixtures DIR", folder.display()))
    })?;
    let mut deals = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if !path.join("deal.json").is_file() {
            continue;
        }
        let wrong = |file: &str, error: &dyn std::fmt::Display| {
            Failure::config(format!("{}: {error}", path.join(file).display()))
        };
        let text = fs::read_to_string(path.join("deal.json")).map_err(|error| wrong("deal.json", &error))?;
        let recording: Recording = serde_json::from_str(&text).map_err(|error| wrong("deal.json", &error))?;
        let text = fs::read_to_string(path.join("events.jsonl")).map_err(|error| wrong("events.jsonl", &error))?;
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        if let Some(line) = recording.timeline.iter().filter_map(|moment| moment.line).find(|line| *line >= lines.len())
        {
            return Err(wrong("deal.json", &format!("the timeline names line {line} of {}", lines.len())));
        }
        deals.push(RecordedDeal { name: entry.file_name().to_string_lossy().into_owned(), recording, lines });
    }
    if deals.is_empty() {
        return Err(Failure::config(format!("no recorded deals in {}; give --fixtures DIR", folder.display())));
    }
    let first = |deal: &RecordedDeal| deal.recording.timeline.first().map(|moment| moment.at_us);
    deals.sort_by(|a, b| (first(a), &a.name).cmp(&(first(b), &b.name)));
    Ok(deals)
}

/// Sets up bus, store, contracts and engine for a demo in `folder`, whose `store` and `nats` are made anew.
///
/// # Errors
/// Where a part is not to be had.
pub async fn stage(fixtures: &Path, folder: &Path, bus: Option<BusChoice>) -> Result<Stage, Failure> {
    let failed = |path: &Path, error: std::io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
    let marker = folder.join(MARKER);
    for part in ["store", "store.checkpoint", "nats"].map(|part| folder.join(part)) {
        if !part.exists() {
            continue;
        }
        // Whatever a demo did not make may be somebody's record.
        if !marker.exists() {
            let shown = part.display();
            return Err(Failure::usage(format!(
                "{shown} was not made by a demo and is left alone; choose another --out"
            )));
        }
        let removed = if part.is_dir() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) };
        removed.map_err(|error| failed(&part, error))?;
    }
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    fs::write(&marker, "what a demo made here is made anew by the next one\n")
        .map_err(|error| failed(&marker, error))?;
    let (server, nats) = match bus {
        Some(BusChoice::InProcess) => (None, None),
        choice => match NatsServer::start(folder.join("nats")) {
            Ok(server) => {
                let nats = NatsBus::connect(NatsConfig::new(server.url())).await.map_err(Failure::unavailable)?;
                (Some(server), Some(nats))
            }
            Err(fault) if choice.is_some() => return Err(Failure::unavailable(fault)),
            Err(fault) => {
                tracing::warn!(%fault, "playing over the in-process bus");
                (None, None)
            }
        },
    };
    let bus: Arc<dyn Bus> = match &nats {
        Some(nats) => Arc::new(nats.clone()),
        None => Arc::new(InProcessBus::new(now, InProcessLimits::default())),
    };
    let folders: Vec<PathBuf> = ["deals", "jobs", "circuits"]
        .map(|part| fixtures.join(part))
        .into_iter()
        .filter(|part| part.is_dir())
        .collect();
    let artifacts = crate::artifacts::folders(&if folders.is_empty() { vec![fixtures.to_owned()] } else { folders })?;
    let verifier = Arc::new(Service::new(OperatorLimits::default(), vec![Arc::clone(&artifacts)]));
    let chain = Arc::new(InProcessChain::new());
    let operator = development_key("operator");
    let store = Store::open(folder.join("store"), Fsync::Always).map_err(Failure::unavailable)?;
    let description = bus.describe();
    let engine = Engine::start(Parts {
        store,
        bus,
        chain: Some(Arc::clone(&chain) as Arc<dyn Chain>),
        verifier: Arc::clone(&verifier),
        artifacts: Arc::clone(&artifacts),
        settings: Settings {
            operator: operator.clone(),
            domains: vec![Domain::new(chain.chain_id(), chain.escrow())],
            recorded_time: true,
            preflight: None,
        },
        mediators: MEDIATORS.map(|name| Arc::new(development_key(name)) as Arc<dyn Signer>).to_vec(),
        history: Some(Arc::new(History::open(folder.join("history.jsonl")).map_err(Failure::unavailable)?)),
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        fuel_per_s: PolicyConfig::default().fuel_per_s,
        fencing: Fencing::Off,
    })
    .await
    .map_err(Failure::unavailable)?;
    let mediators = MEDIATORS.map(|name| development_key(name).address()).to_vec();
    Ok(Stage { engine, chain, artifacts, verifier, operator, bus: description, mediators, nats, _server: server })
}

/// Plays all deals, moment by moment over all of them, and tells what each gave.
///
/// # Errors
/// Where the world fails; deals that give other than they should are told in [`Played::differences`].
pub async fn play(stage: &Stage, deals: &[RecordedDeal], progress: impl Fn(u64, u64)) -> Result<Vec<Played>, Failure> {
    for deal in deals {
        fund(stage, deal).await?;
    }
    let mut bonds = BTreeMap::new();
    for mediator in deals.iter().flat_map(|deal| deal.recording.bonds.keys()) {
        let bond = stage.chain.bond(*mediator).await.map_err(Failure::unavailable)?;
        bonds.insert(*mediator, bond.active);
    }
    let mut moments: Vec<_> = deals
        .iter()
        .enumerate()
        .flat_map(|(order, deal)| {
            let steps = deal.recording.timeline.iter().enumerate();
            steps.map(move |(step, moment)| (moment.at_us, order, step, moment.line))
        })
        .collect();
    moments.sort_unstable();
    let count = moments.len() as u64;
    for (index, (at_us, order, step, line)) in moments.into_iter().enumerate() {
        let out = match line {
            None => Outgoing::new(CLOCK_SUBJECT, Vec::new()),
            Some(line) => {
                let text = &deals[order].lines[line];
                let sent = Envelope::decode(text.as_bytes()).map_err(|error| error.to_string());
                let mut out = sent
                    .and_then(|envelope| outgoing(&envelope))
                    .unwrap_or_else(|_| Outgoing::new("deals.unknown.malformed", text.clone()));
                // The broker would drop a repeated id for us; what a replay must show is that the engine does.
                out.message_id = out.message_id.map(|id| format!("{id}/{order}.{step}"));
                out
            }
        };
        let out = out.with_header(HEADER_RECORDED_AT, at_us.to_string());
        stage.engine.bus().publish(out).await.map_err(Failure::unavailable)?;
        stage.engine.idle().await.map_err(Failure::unavailable)?;
        progress(index as u64 + 1, count);
    }
    let mut played = Vec::new();
    for deal in deals {
        played.push(result(stage, deal).await?);
    }
    // What the registry took from each mediator is what the deals say, no more.
    for (mediator, had) in bonds {
        let bond = stage.chain.bond(mediator).await.map_err(Failure::unavailable)?;
        let amounts = played.iter().filter_map(|deal| deal.slashed.get(&mediator));
        let said = amounts.fold(Amount::ZERO, |sum, amount| sum.checked_add(*amount).unwrap_or_default());
        let lost = had.checked_sub(bond.active).unwrap_or_default();
        if lost != said
            && let Some(deal) = played.last_mut()
        {
            deal.differences.push(format!("bond of {mediator:#x}: the deals take {said}, the registry took {lost}"));
        }
    }
    Ok(played)
}

/// Gives both parties what the deal locks, and mediators their bonds.
async fn fund(stage: &Stage, deal: &RecordedDeal) -> Result<(), Failure> {
    let fault = |fault: tribunal_contracts::ChainFault| Failure::unavailable(fault);
    let terms = deal.lines.iter().find_map(|line| {
        let parsed = Envelope::decode(line.as_bytes()).ok()?.parse().ok()?;
        match parsed.into_kind() {
            EventKind::Proposed { terms, .. } => Some(terms),
            _ => None,
        }
    });
    let Some(terms) = terms else { return Ok(()) };
    let Deposits { client, provider } = &deal.recording.deposits;
    for (account, amount) in [(terms.client, client), (terms.provider, provider)] {
        if !amount.is_zero() {
            stage.chain.mint_and_deposit(account, *amount).map_err(fault)?;
        }
    }
    for (mediator, amount) in &deal.recording.bonds {
        if !amount.is_zero() {
            stage.chain.bond_mediator(*mediator, *amount, stage.operator.address()).map_err(fault)?;
        }
    }
    Ok(())
}

async fn result(stage: &Stage, deal: &RecordedDeal) -> Result<Played, Failure> {
    let store = stage.engine.store();
    let Recording { title, deal_id, expect, .. } = &deal.recording;
    let folded = load(store, deal_id).map_err(Failure::unavailable)?;
    let id = deal_id.to_string();
    let mut refused = store.refused(usize::MAX).map_err(Failure::unavailable)?;
    refused.retain(|refused| refused.subject.split('.').nth(1) == Some(&id));
    refused.sort_by_key(|refused| refused.sequence);
    let refused: Vec<_> = refused.into_iter().map(|refused| refused.reason_code).collect();
    let outcome = match &folded {
        None => "refused".to_owned(),
        Some(deal) => deal.outcome().map_or("open", |outcome| outcome.word()).to_owned(),
    };
    let (reason_code, net, transaction) = match folded.as_ref().map(Deal::phase) {
        Some(Phase::Settled { decision, payouts, transaction }) => {
            let part = |role: Role| -> String {
                let of = payouts.iter().filter(|payout| payout.role == role);
                let sum = of.fold((Amount::ZERO, Amount::ZERO), |(locked, paid), payout| {
                    let add = |a: Amount, b: Amount| a.checked_add(b).unwrap_or_default();
                    (add(locked, payout.locked), add(paid, payout.paid))
                });
                crate::view::net(sum.0, sum.1).trim_start_matches('+').to_owned()
            };
            let net = Net {
                client: part(Role::Client),
                provider: part(Role::Provider),
                mediators: part(Role::Mediator),
                treasury: part(Role::Treasury),
            };
            (decision.reason_code.clone(), net, transaction.map(|hash| format!("{hash:#x}")))
        }
        Some(Phase::Decided(decision)) => (decision.reason_code.clone(), nothing(), None),
        Some(_) => (String::new(), nothing(), None),
        None => (refused.first().cloned().unwrap_or_default(), nothing(), None),
    };
    let slashed = slashed(store, deal_id, folded.as_ref())?;
    let mut differences = Vec::new();
    let mut compare = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        if expected != found {
            differences.push(format!("{what}: expected {expected}, found {found}"));
        }
    };
    compare("outcome", &expect.outcome, &outcome);
    compare("reason", &expect.reason_code, &reason_code);
    compare("net", &expect.net, &net);
    compare("refused", &expect.refused, &refused);
    compare("slashed", &expect.slashed, &slashed);
    if let Some(folded) = &folded {
        compare("state", &"settled", &folded.state());
        contract(stage, folded, &mut differences).await?;
    }
    Ok(Played {
        name: deal.name.clone(),
        title: title.clone(),
        deal_id: *deal_id,
        outcome,
        reason_code,
        net,
        refused,
        slashed,
        transaction,
        differences,
    })
}

/// What silence cost mediators of a deal: a drawn one by the operator's word, an appointed one when nobody else judged.
fn slashed(store: &Store, deal_id: &DealId, deal: Option<&Deal>) -> Result<BTreeMap<Address, Amount>, Failure> {
    let mut slashed: BTreeMap<Address, Amount> = BTreeMap::new();
    let Some(deal) = deal else { return Ok(slashed) };
    let (mut silent_by_round, mut rounds) = (BTreeMap::new(), Vec::new());
    for record in store.stream(deal_id, 1) {
        let record = record.map_err(Failure::unavailable)?;
        let parsed = record.envelope.parse().map_err(Failure::unavailable)?;
        match parsed.into_kind() {
            EventKind::DeadlineElapsed { round, silent, .. } if !silent.is_empty() => {
                silent_by_round.insert(round, silent);
            }
            EventKind::ChainObserved { step, failure: None, .. } => {
                rounds.extend(step.strip_prefix("silence-").and_then(|round| round.parse::<u32>().ok()));
            }
            _ => {}
        }
    }
    let mediation = &deal.terms().mediation;
    let appointed = mediation.protocol == Protocol::Appointed;
    if appointed && deal.outcome() == Some(Outcome::MediateTimeout) {
        slashed.insert(mediation.mediators[0], mediation.silence_slash);
    }
    for mediator in rounds.iter().filter_map(|round| silent_by_round.get(round)).flatten() {
        let sum = slashed.entry(*mediator).or_default();
        *sum = sum.checked_add(mediation.silence_slash).unwrap_or_default();
    }
    slashed.retain(|_, amount| !amount.is_zero());
    Ok(slashed)
}

fn nothing() -> Net {
    Net { client: "0".into(), provider: "0".into(), mediators: "0".into(), treasury: "0".into() }
}

/// Asks the contract itself how the case ended.
async fn contract(stage: &Stage, deal: &Deal, differences: &mut Vec<String>) -> Result<(), Failure> {
    let Phase::Settled { decision, .. } = deal.phase() else { return Ok(()) };
    if !deal.terms().domain().on_chain() || !decision.funded {
        return Ok(());
    }
    let case = stage.chain.case(deal.terms().hash()).await.map_err(Failure::unavailable)?;
    if case.outcome != Some(decision.outcome) {
        let found = case.outcome.map_or("nothing", |outcome| outcome.word());
        differences.push(format!("contract: expected {}, found {found}", decision.outcome.word()));
    }
    Ok(())
}

//! Alkahest's oracle on a real node: the honest are paid, cheats are not, and a fault of ours moves nothing.

use std::{
    path::PathBuf,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolEvent as _, SolValue as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tribunal_contracts::{
    Account, Endpoints, Sender, SenderSettings,
    alkahest::{Alkahest, Generation, calls},
};
use tribunal_engine::market::{
    Market, Parts,
    alkahest::{AlkahestMarket, Peers},
    book::{Book, Case, Stage},
    check,
};
use tribunal_events::{ContentAddress, Digest, Signer as _};
use tribunal_fixtures::keys;
use tribunal_verifiers::{ArtifactSource, FolderSource, OperatorLimits, Service};

use crate::dev_chain::{DEPLOYER, DevChain};

/// Each artifact in a module of its own: they share names of structs.
#[allow(clippy::too_many_arguments, missing_docs)]
mod abi {
    pub mod eas {
        alloy_sol_types::sol!(Eas, "../contracts/artifacts/MarketEas.json");
    }
    pub mod escrow {
        alloy_sol_types::sol!(Escrow, "../contracts/artifacts/MarketErc20Escrow.json");
    }
    pub mod escrow_old {
        alloy_sol_types::sol!(EscrowOld, "../contracts/artifacts/MarketErc20EscrowOld.json");
    }
    pub mod arbiter {
        alloy_sol_types::sol!(TribunalArbiter, "../contracts/artifacts/TribunalArbiter.json");
    }
    pub mod work {
        alloy_sol_types::sol!(Work, "../contracts/artifacts/MarketStringObligation.json");
    }
    pub mod token {
        alloy_sol_types::sol!(Token, "../contracts/artifacts/TestToken.json");
    }
    pub use arbiter::TribunalArbiter;
    pub use eas::Eas;
    pub use escrow::Escrow;
    pub use escrow_old::EscrowOld;
    pub use token::Token;
    pub use work::Work;
}

const PRICE: u64 = 1_000;

/// A node with the marketplace, a buyer, a seller, and the oracle's journals.
struct World {
    node: DevChain,
    folder: TempDir,
    generation: Generation,
    eas: Address,
    arbiter: Address,
    escrow: Address,
    work: Address,
    token: Address,
    all: Address,
    buyer: Address,
    seller: Address,
}

/// A market at work.
struct Running {
    market: Arc<Market>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }

    /// Waits until the case stands so.
    async fn until(&self, case: B256, stage: Stage) -> Case {
        let wait = async {
            loop {
                let found = self.market.cases().into_iter().find(|(id, _)| *id == case);
                if let Some((_, it)) = found.filter(|(_, it)| it.stage() == stage) {
                    return it;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.unwrap_or_else(|_| panic!("{case} does not come to {stage:?}: {:#?}", self.market.cases()))
    }
}

impl World {
    async fn new(generation: Generation) -> Self {
        let node = DevChain::start();
        let (buyer, seller) = (keys::address("client"), keys::address("provider"));
        for account in [buyer, seller, keys::address("m1")] {
            node.adopt(account).await;
        }
        let eas = node.deploy("MarketEas", &[]).await;
        let of_eas = eas.abi_encode();
        let arbiter = match generation {
            Generation::V1 => node.deploy("MarketTrustedOracle", &of_eas).await,
            Generation::Old => node.deploy("MarketTrustedOracleOld", &of_eas).await,
            Generation::Panel => node.deploy("TribunalArbiter", &[]).await,
        };
        let escrow = if generation == Generation::Old { "MarketErc20EscrowOld" } else { "MarketErc20Escrow" };
        let escrow = node.deploy(escrow, &of_eas).await;
        let work = node.deploy("MarketStringObligation", &of_eas).await;
        let all = node.deploy("MarketAllArbiter", &[]).await;
        let token = node.deploy("TestToken", &[]).await;
        let folder = tempfile::tempdir().unwrap();
        let source = tribunal_fixtures::jobs::folder().join("wordcount");
        std::fs::create_dir(folder.path().join("artifacts")).unwrap();
        for (file, name) in [("wordcount.wasm", "module"), ("input/text.txt", "input")] {
            std::fs::copy(source.join(file), folder.path().join("artifacts").join(name)).unwrap();
        }
        Self { node, folder, generation, eas, arbiter, escrow, work, token, all, buyer, seller }
    }

    fn artifacts(&self) -> PathBuf {
        self.folder.path().join("artifacts")
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("base.cases.jsonl")
    }

    async fn market(&self) -> Running {
        self.market_with(Peers::default()).await
    }

    async fn market_with(&self, peers: Peers) -> Running {
        let signer = Arc::new(keys::key("m1"));
        let contract = Alkahest {
            chain_id: 31337,
            arbiter: self.arbiter,
            generation: self.generation,
            eas: self.eas,
            composites: vec![self.all],
            escrows: Vec::new(),
            oracle: signer.address(),
        };
        let artifacts: Arc<dyn ArtifactSource> = Arc::new(FolderSource::open(&self.artifacts()).unwrap());
        let endpoints = Endpoints::new(std::slice::from_ref(self.node.url()), Some(31337)).unwrap();
        let account = Account::of(signer.clone());
        let transactions = self.folder.path().join("base.transactions.jsonl");
        let sender =
            Sender::connect(&endpoints, account, SenderSettings::default(), Some(&transactions)).await.unwrap();
        let market = Market::open(Parts {
            name: "base".into(),
            marketplace: Box::new(AlkahestMarket::new(contract, Arc::clone(&artifacts), peers)),
            sender,
            signer,
            first_block: 0,
            confirmations: 1,
            poll: Duration::from_millis(20),
            journal: self.journal(),
            verifier: Arc::new(Service::new(OperatorLimits::default(), vec![artifacts])),
            workers: Arc::new(Semaphore::new(2)),
        });
        let market = Arc::new(market.unwrap());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&market).run(cancel.clone()));
        Running { market, cancel, task }
    }

    /// The attestation that a transaction made.
    fn attested(logs: &[(Address, Vec<B256>, Bytes)]) -> B256 {
        let made = logs.iter().find(|(_, topics, _)| topics[0] == abi::Eas::Attested::SIGNATURE_HASH);
        B256::from_slice(&made.expect("an attestation").2[..32])
    }

    /// The buyer escrows the price under a demand.
    async fn escrow(&self, arbiter: Address, demand: Bytes, expires: u64) -> B256 {
        let amount = U256::from(PRICE);
        self.node.send(DEPLOYER, self.token, abi::Token::mintCall { account: self.buyer, amount }).await;
        self.node.send(self.buyer, self.token, abi::Token::approveCall { spender: self.escrow, value: amount }).await;
        let data = abi::Escrow::doObligationCall {
            data: abi::escrow::MarketEscrowBase::ObligationData { arbiter, demand, token: self.token, amount },
            expirationTime: expires,
        };
        Self::attested(&self.node.send(self.buyer, self.escrow, data).await.logs)
    }

    fn oracle_demand(&self, data: &[u8]) -> Bytes {
        calls::OracleDemand { oracle: keys::address("m1"), data: data.to_vec().into() }.abi_encode().into()
    }

    /// The seller says what came out, and asks for arbitration.
    async fn fulfill(&self, escrow: B256, item: &str, demand: &[u8]) -> (B256, B256) {
        let data = abi::work::MarketStringObligation::ObligationData { item: item.into(), schema: B256::ZERO };
        let call = abi::Work::doObligationCall { data, refUID: escrow };
        let uid = Self::attested(&self.node.send(self.seller, self.work, call).await.logs);
        self.request(uid, demand).await;
        let key = match self.generation {
            Generation::V1 => keccak256([uid.as_slice(), demand].concat()),
            Generation::Old => uid,
            Generation::Panel => {
                let call = abi::TribunalArbiter::keyOfCall { fulfillmentUid: uid, demand: demand.to_vec().into() };
                self.node.call(self.arbiter, call).await
            }
        };
        (uid, key)
    }

    async fn request(&self, uid: B256, demand: &[u8]) {
        let oracle = keys::address("m1");
        match self.generation {
            Generation::V1 => {
                let demand = demand.to_vec().into();
                let call = calls::v1::requestArbitrationCall { fulfillmentUid: uid, oracle, demand };
                self.node.send(self.seller, self.arbiter, call).await;
            }
            Generation::Old => {
                let call = calls::old::requestArbitrationCall { obligation: uid, oracle };
                self.node.send(self.seller, self.arbiter, call).await;
            }
            Generation::Panel => {
                let call = calls::panel::requestArbitrationCall { fulfillmentUid: uid, demand: demand.to_vec().into() };
                self.node.send(self.seller, self.arbiter, call).await;
            }
        }
    }

    async fn balance(&self, account: Address) -> u64 {
        self.node.call(self.token, abi::Token::balanceOfCall { account }).await.to()
    }

    async fn collect(&self, escrow: B256, fulfillment: B256) -> Result<(), Value> {
        let collected = if self.generation == Generation::Old {
            let call = abi::EscrowOld::collectEscrowCall { escrowUid: escrow, fulfillmentUid: fulfillment };
            self.node.try_send(self.seller, self.escrow, call).await
        } else {
            let call = abi::Escrow::collectCall { escrowUid: escrow, fulfillmentUid: fulfillment };
            self.node.try_send(self.seller, self.escrow, call).await
        };
        collected.map(|_| ())
    }

    async fn answers(&self) -> u64 {
        self.node.nonce(keys::address("m1")).await
    }
}

fn address(path: &str) -> String {
    let bytes = std::fs::read(tribunal_fixtures::jobs::folder().join("wordcount").join(path)).unwrap();
    ContentAddress::Blake3(*Digest::blake3(&bytes).bytes()).to_string()
}

/// What the buyer wants: the job, by content.
fn demand() -> Vec<u8> {
    json!({
        "method": { "kind": "reexecution" }, "comparator": { "kind": "exact" },
        "job": {
            "runtime": "wasm-1", "module": address("wordcount.wasm"),
            "args": ["wordcount", "/in/text.txt", "/out/counts.json"],
            "inputs": [{ "path": "/in/text.txt", "artifact": address("input/text.txt") }], "outputs": ["/out"],
            "limits": { "fuel": 1_000_000_000, "memory_bytes": 67_108_864, "output_bytes": 1_048_576, "wall_ms": 60_000 },
        },
    })
    .to_string()
    .into_bytes()
}

/// What the seller says: digests alone.
fn claim(honest: bool) -> String {
    let counts = if honest { address("expected/counts.json") } else { address("expected/stdout.txt") };
    json!({
        "exit_code": 0, "stdout": { "blake3": address("expected/stdout.txt").trim_start_matches("blake3:") },
        "outputs": [{ "path": "/out/counts.json", "blake3": counts.trim_start_matches("blake3:") }],
    })
    .to_string()
}

async fn honest_and_cheat(generation: Generation) {
    let world = World::new(generation).await;
    let running = world.market().await;
    let demand = demand();
    let honest = world.escrow(world.arbiter, world.oracle_demand(&demand), 0).await;
    let (work, case) = world.fulfill(honest, &claim(true), &demand).await;
    assert!(world.collect(honest, work).await.is_err(), "nothing is paid before the oracle says so");
    let judged = running.until(case, Stage::Answered).await;
    assert_eq!(judged.verdict, Some(true));
    world.collect(honest, work).await.unwrap();
    assert_eq!(world.balance(world.seller).await, PRICE);

    let inner = calls::ComposedDemand { arbiters: vec![world.arbiter], demands: vec![world.oracle_demand(&demand)] };
    let cheated = world.escrow(world.all, inner.abi_encode().into(), 0).await;
    let (work, case) = world.fulfill(cheated, &claim(false), &demand).await;
    let judged = running.until(case, Stage::Answered).await;
    assert_eq!(judged.verdict, Some(false), "found inside of a composite, too");
    assert_eq!(judged.report.unwrap()["reason"]["code"], "output-differs");
    assert!(world.collect(cheated, work).await.is_err());
    assert_eq!(world.balance(world.seller).await, PRICE, "a cheat is not paid");
    assert_eq!(world.answers().await, 2);

    // Asked again, nothing is sent again.
    world.request(work, &demand).await;
    running.until(case, Stage::Answered).await;
    running.stop().await;
    assert_eq!(world.answers().await, 2);

    // Anybody who has the journal can check it.
    let book = Book::read(&world.journal()).unwrap();
    let service =
        Service::new(OperatorLimits::default(), vec![Arc::new(FolderSource::open(&world.artifacts()).unwrap())]);
    for it in book.cases().values() {
        assert_eq!(check::case(&book, it, Some(&service)), Vec::<String>::new());
    }
    let (_, it) = book.cases().iter().find(|(_, it)| it.verdict == Some(false)).unwrap();
    let mut changed = it.clone();
    changed.report.as_mut().unwrap()["digest"] = format!("blake3:{}", "0".repeat(64)).into();
    assert_eq!(check::case(&book, &changed, Some(&service)).len(), 2, "signature and digest");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_honest_is_paid_and_a_cheat_is_not() {
    honest_and_cheat(Generation::V1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_generation_is_spoken_too() {
    honest_and_cheat(Generation::Old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_ours_is_answered_by_nobody_and_made_good_later() {
    let world = World::new(Generation::V1).await;
    std::fs::rename(world.artifacts().join("module"), world.folder.path().join("away")).unwrap();
    let running = world.market().await;
    let demand = demand();
    let escrow = world.escrow(world.arbiter, world.oracle_demand(&demand), 0).await;
    let (work, case) = world.fulfill(escrow, &claim(true), &demand).await;
    let held = running.until(case, Stage::Held).await;
    assert_eq!((held.verdict, world.answers().await), (None, 0), "{held:?}");
    running.stop().await;
    std::fs::rename(world.folder.path().join("away"), world.artifacts().join("module")).unwrap();
    let running = world.market().await;
    running.until(case, Stage::Answered).await;
    world.collect(escrow, work).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_asked_by_the_escrow_itself_is_not_answered() {
    let world = World::new(Generation::V1).await;
    let running = world.market().await;
    let demand = demand();
    // The request says the demand, the escrow another one: whoever fulfils may not choose what is judged.
    let escrow = world.escrow(world.arbiter, world.oracle_demand(b"another"), 0).await;
    let (_, other) = world.fulfill(escrow, &claim(true), &demand).await;
    // An escrow of another arbiter.
    let escrow = world.escrow(world.seller, world.oracle_demand(&demand), 0).await;
    let (_, foreign) = world.fulfill(escrow, &claim(true), &demand).await;
    // Rubbish in place of a claim.
    let escrow = world.escrow(world.arbiter, world.oracle_demand(&demand), 0).await;
    let (_, rubbish) = world.fulfill(escrow, "looks good to me", &demand).await;
    // No escrow at all.
    let (_, none) = world.fulfill(B256::ZERO, &claim(true), &demand).await;
    // A claim that says nothing would have nothing wrong in it.
    let escrow = world.escrow(world.arbiter, world.oracle_demand(&demand), 0).await;
    let (_, empty) = world.fulfill(escrow, "{}", &demand).await;
    for (case, part) in [
        (other, "something else"),
        (foreign, "through this arbiter"),
        (rubbish, "fulfillment"),
        (none, "no escrow"),
        (empty, "complete"),
    ] {
        let (how, _) = running.until(case, Stage::Closed).await.closed.unwrap();
        assert!(how.contains(part), "{part}: {how}");
    }
    running.stop().await;
    assert_eq!(world.answers().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_reorganisation_took_away_is_given_again() {
    let world = World::new(Generation::V1).await;
    let running = world.market().await;
    let demand = demand();
    let escrow = world.escrow(world.arbiter, world.oracle_demand(&demand), 0).await;
    let (work, case) = world.fulfill(escrow, &claim(true), &demand).await;
    let before = running.until(case, Stage::Answered).await.answered.unwrap().1;
    world.node.reorganise(1).await;
    world.node.mine(1).await;
    let wait = async {
        while running.until(case, Stage::Answered).await.answered.unwrap().1 == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("answered in another block");
    assert_eq!(running.market.counts().reorganisations.load(std::sync::atomic::Ordering::Relaxed), 1);
    world.collect(escrow, work).await.unwrap();
    running.stop().await;
    assert_eq!(world.answers().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_lost_its_journals_answers_nothing_twice() {
    let world = World::new(Generation::V1).await;
    let running = world.market().await;
    let demand = demand();
    let escrow = world.escrow(world.arbiter, world.oracle_demand(&demand), 0).await;
    let (work, case) = world.fulfill(escrow, &claim(true), &demand).await;
    running.until(case, Stage::Answered).await;
    running.stop().await;
    for file in ["base.cases.jsonl", "base.transactions.jsonl"] {
        std::fs::remove_file(world.folder.path().join(file)).unwrap();
    }
    // And the oracle's account once said no from elsewhere: that stands, and is never overwritten here.
    let escrow = world.escrow(world.arbiter, world.oracle_demand(&demand), 0).await;
    let (contrary_work, contrary) = world.fulfill(escrow, &claim(true), &demand).await;
    let no = calls::v1::arbitrateCall { fulfillmentUid: contrary_work, demand: demand.into(), decision: false };
    world.node.send(keys::address("m1"), world.arbiter, no).await;
    let running = world.market().await;
    assert_eq!(running.until(case, Stage::Answered).await.verdict, None, "it was not judged again");
    assert!(!running.until(contrary, Stage::Answered).await.answered.unwrap().0);
    running.stop().await;
    assert_eq!(world.answers().await, 2, "the one before, and the one from elsewhere");
    world.collect(escrow, work).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_market_is_refused() {
    let world = World::new(Generation::V1).await;
    world.market().await.stop().await;
    let text = std::fs::read_to_string(world.journal()).unwrap();
    let line = text.lines().nth(1).unwrap();
    std::fs::write(world.journal(), text.replacen(line, &line.replacen("alkahest", "elsewhere", 1), 1)).unwrap();
    let fault = Book::read(&world.journal()).unwrap_err().to_string();
    assert!(fault.contains("line 2"), "{fault}");
}

/// A whole engine as another mediator of the panel, with settings as an operator writes them.
struct Other {
    child: Child,
    url: String,
}

impl Other {
    /// An address that nothing listens at yet.
    fn port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn start(world: &World, name: &str, port: u16) -> Self {
        let folder = world.folder.path();
        let key = keys::key(name);
        let text = json!({ "insecure_dev_key": format!("0x{}", hex::encode(**key.secret())),
            "address": format!("{:#x}", key.address()) });
        std::fs::write(folder.join(format!("{name}.json")), text.to_string()).unwrap();
        let settings = format!(
            "[store]\npath = \"{name}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[verifiers]\nartifacts = [\"artifacts\"]\n\
             [markets.panels]\nkind = \"alkahest\"\ngeneration = \"panel\"\nrpc_urls = [{:?}]\nchain_id = 31337\n\
             confirmations = 1\npoll_s = 1\nkeystore = \"{name}.json\"\narbiter = \"{:#x}\"\neas = \"{:#x}\"\n",
            world.node.url(),
            world.arbiter,
            world.eas
        );
        let path = folder.join(format!("{name}.toml"));
        std::fs::write(&path, settings).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tribunal"))
            .args(["serve", "--config"])
            .arg(&path)
            .current_dir(folder)
            .stderr(std::fs::File::create(folder.join(format!("{name}.log"))).unwrap())
            .spawn()
            .unwrap();
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }

    async fn get(&self, path: &str) -> Option<String> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{}{path}", self.url)).send().await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panels_quorum_decides_and_no_differs_from_not_yet() {
    let world = World::new(Generation::Panel).await;
    let port = Other::port();
    let running = world.market_with(Peers::new(&[format!("http://127.0.0.1:{port}")]).unwrap()).await;
    let mut mediators = keys::addresses(&["m1", "m2", "m3"]);
    mediators.sort();
    let panel = calls::PanelDemand { mediators, quorum: 2, minGrade: 50, data: demand().into() };
    let panel = Bytes::from(panel.abi_encode());
    let verdict = async |uid: B256| {
        let call = abi::TribunalArbiter::verdictOfCall { fulfillmentUid: uid, demand: panel.clone() };
        world.node.call(world.arbiter, call).await.verdict
    };
    let honest = world.escrow(world.arbiter, panel.clone(), 0).await;
    let (work, case) = world.fulfill(honest, &claim(true), &panel).await;
    let held = running.until(case, Stage::Held).await;
    assert_eq!((held.held.unwrap().0.as_str(), verdict(work).await), ("few-votes", 0), "one of two has spoken");
    let other = Other::start(&world, "m2", port);
    running.until(case, Stage::Answered).await;
    assert_eq!(verdict(work).await, 1);
    world.collect(honest, work).await.unwrap();
    assert_eq!(world.balance(world.seller).await, PRICE);

    let cheated = world.escrow(world.arbiter, panel.clone(), 0).await;
    let (work, case) = world.fulfill(cheated, &claim(false), &panel).await;
    running.until(case, Stage::Answered).await;
    assert_eq!(verdict(work).await, 2, "no, for good");
    assert!(world.collect(cheated, work).await.is_err());
    running.stop().await;

    // The other engine saw both decided, and tells it to whoever asks.
    let wait = async {
        while !other.get("/api/v1/markets").await.is_some_and(|text| text.contains(r#""answered":2"#)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the other engine sees both");
    let cases = other.get("/api/v1/markets/panels/cases").await.unwrap();
    assert!(cases.contains(&case.to_string()) && cases.contains("output-differs"), "{cases}");
    let page = other.get("/markets").await.unwrap();
    assert!(page.contains("panels") && page.contains("answered"), "{page}");
    let metrics = other.get("/metrics").await.unwrap();
    assert!(metrics.contains(r#"tribunal_market_cases{market="panels",stage="answered"} 2"#), "{metrics}");
    assert_eq!(other.get(&format!("/api/v1/markets/words/{}", B256::ZERO)).await, None);
}

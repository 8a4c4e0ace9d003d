//! Mediator of Lilypad and CoopHive on a real node: accept and reject move the money of their own table, a fault of ours moves
//! none.

use std::{path::PathBuf, sync::Arc, sync::atomic::Ordering, time::Duration};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolValue as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tribunal_contracts::{
    Account, Endpoints, Sender, SenderSettings,
    lilypad::{Lilypad, calls},
};
use tribunal_engine::market::{
    Market, Parts,
    book::{Book, Case, Stage},
    check,
    lilypad::{LilypadMarket, deals::Deals, modules::Modules},
};
use tribunal_events::{ContentAddress, Digest, Signer as _};
use tribunal_fixtures::{jobs, keys};
use tribunal_verifiers::{ArtifactSource, Cid, Folder, FolderSource, OperatorLimits, Service};

use crate::dev_chain::{DEPLOYER, DevChain};

#[allow(clippy::too_many_arguments, missing_docs)]
pub mod abi {
    pub mod token {
        alloy_sol_types::sol!(Token, "../contracts/artifacts/MarketLilypadToken.json");
    }
    pub mod payments {
        alloy_sol_types::sol!(Payments, "../contracts/artifacts/MarketLilypadPayments.json");
    }
    pub mod controller {
        alloy_sol_types::sol!(Controller, "../contracts/artifacts/MarketLilypadController.json");
    }
    pub mod mediation {
        alloy_sol_types::sol!(Mediation, "../contracts/artifacts/MarketLilypadMediation.json");
    }
    pub use controller::Controller;
    pub use mediation::Mediation;
    pub use payments::Payments;
    pub use token::Token;
}

/// What everybody has at first, in tokens.
const START: i64 = 1_000;

/// A node and what the operator keeps: artifacts, documents, modules, journals.
pub struct World {
    pub node: DevChain,
    folder: TempDir,
}

/// One marketplace's contracts.
pub struct Site {
    name: &'static str,
    token: Address,
    pub storage: Address,
    pub payments: Address,
    pub mediation: Address,
    pub controller: Address,
    pub client: Address,
    pub provider: Address,
    mediator: &'static str,
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

    /// Waits until the deal's case stands so.
    async fn until(&self, deal: Cid, stage: Stage) -> Case {
        let case = case(deal);
        let wait = async {
            loop {
                let found = self.market.cases().into_iter().find(|(id, _)| *id == case);
                if let Some((_, it)) = found.filter(|(_, it)| it.stage() == stage) {
                    return it;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(90), wait).await;
        waited.unwrap_or_else(|_| panic!("{deal} does not come to {stage:?}: {:#?}", self.market.cases()))
    }

    async fn held(&self, deal: Cid) -> (String, String) {
        self.until(deal, Stage::Held).await.held.unwrap()
    }

    fn verified(&self) -> u64 {
        self.market.counts().verified.load(Ordering::Relaxed)
    }
}

fn case(deal: Cid) -> B256 {
    keccak256(deal.to_string())
}

fn address(path: &str) -> String {
    let bytes = std::fs::read(jobs::folder().join("wordcount").join(path)).unwrap();
    ContentAddress::Blake3(*Digest::blake3(&bytes).bytes()).to_string()
}

/// The folder that Bacalhau makes of the right result, from the files that are expected of the job.
fn result(exit_code: &str) -> Cid {
    let read = |path: &str| std::fs::read(jobs::folder().join("wordcount/expected").join(path)).unwrap();
    let (stdout, counts) = (read("stdout.txt"), read("counts.json"));
    let mut folder = Folder::new();
    folder.add_file("stdout", &stdout).unwrap();
    folder.add_file("stderr", b"").unwrap();
    folder.add_file("exitCode", exit_code.as_bytes()).unwrap();
    folder.add_file("outputs/counts.json", &counts).unwrap();
    folder.cid().unwrap()
}

fn tokens(whole: i64) -> U256 {
    U256::from(whole) * U256::from(10).pow(U256::from(18))
}

impl World {
    pub async fn new() -> Self {
        let this = Self { node: DevChain::start(), folder: tempfile::tempdir().unwrap() };
        for folder in ["artifacts", "deals", "modules"] {
            std::fs::create_dir(this.path(folder)).unwrap();
        }
        let source = jobs::folder().join("wordcount");
        for (file, name) in [("wordcount.wasm", "module"), ("input/text.txt", "input")] {
            std::fs::copy(source.join(file), this.path("artifacts").join(name)).unwrap();
        }
        this.write_module(1_000_000_000);
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_module(&self, fuel: u64) {
        let template = json!({
            "module": "https://example.org/wordcount@abc/module.json",
            "job": {
                "runtime": "wasm-1", "module": address("wordcount.wasm"),
                "args": ["wordcount", "/in/{{.File}}", "/outputs/counts.json"],
                "inputs": [{ "path": "/in/text.txt", "artifact": address("input/text.txt") }],
                "outputs": ["/outputs"],
                "limits": { "fuel": fuel, "memory_bytes": 67_108_864, "output_bytes": 1_048_576, "wall_ms": 60_000 },
            },
        });
        std::fs::write(self.path("modules/wordcount.json"), template.to_string()).unwrap();
    }

    /// A marketplace of its own with this mediator and parties of their own.
    pub async fn site(&self, name: &'static str, mediator: &'static str) -> Site {
        let (client, provider) = (Address::from_word(keccak256(format!("{name} client"))), keccak256(name));
        let provider = Address::from_word(provider);
        for account in [client, provider, keys::address(mediator)] {
            self.node.adopt(account).await;
        }
        let node = &self.node;
        let supply = ("Test".to_owned(), "T".to_owned(), tokens(10 * START)).abi_encode_params();
        let token = node.deploy("MarketLilypadToken", &supply).await;
        let storage = if name == "coophive" { "MarketCoophiveStorage" } else { "MarketLilypadStorage" };
        let storage = node.deploy(storage, &[]).await;
        let payments = node.deploy("MarketLilypadPayments", &[]).await;
        let mediation = node.deploy("MarketLilypadMediation", &[]).await;
        let controller = node.deploy("MarketLilypadController", &[]).await;
        let governed = |controller| abi::Token::setControllerAddressCall { controller };
        node.send(DEPLOYER, token, governed(payments)).await;
        node.send(DEPLOYER, payments, abi::Payments::initializeCall { token }).await;
        for contract in [payments, storage, mediation] {
            node.send(DEPLOYER, contract, governed(controller)).await;
        }
        let parts = abi::Controller::initializeCall {
            storage_: storage,
            users: DEPLOYER,
            payments,
            mediation,
            jobCreator: DEPLOYER,
        };
        node.send(DEPLOYER, controller, parts).await;
        for to in [client, provider] {
            node.send(DEPLOYER, token, abi::Token::transferCall { to, value: tokens(START) }).await;
        }
        Site { name, token, storage, payments, mediation, controller, client, provider, mediator }
    }

    async fn market(&self, site: &Site) -> Running {
        let signer = Arc::new(keys::key(site.mediator));
        let contract = Lilypad { storage: site.storage, mediation: site.mediation, mediator: signer.address() };
        let artifacts: Arc<dyn ArtifactSource> = Arc::new(FolderSource::open(&self.path("artifacts")).unwrap());
        let endpoints = Endpoints::new(std::slice::from_ref(self.node.url()), Some(31337)).unwrap();
        let account = Account::of(signer.clone());
        let transactions = self.path(&format!("{}.transactions.jsonl", site.name));
        let sender =
            Sender::connect(&endpoints, account, SenderSettings::default(), Some(&transactions)).await.unwrap();
        let deals = Deals::new(self.path("deals").to_str().unwrap()).unwrap();
        let modules = Modules::open(self.path("modules")).unwrap();
        let market = Market::open(Parts {
            name: site.name.into(),
            marketplace: Box::new(LilypadMarket::new(site.name, contract, deals, modules)),
            sender,
            signer,
            first_block: 0,
            confirmations: 1,
            poll: Duration::from_millis(20),
            journal: self.journal(site),
            verifier: Arc::new(Service::new(OperatorLimits::default(), vec![artifacts])),
            workers: Arc::new(Semaphore::new(2)),
        });
        let market = Arc::new(market.unwrap());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&market).run(cancel.clone()));
        Running { market, cancel, task }
    }

    fn journal(&self, site: &Site) -> PathBuf {
        self.path(&format!("{}.cases.jsonl", site.name))
    }

    /// The document of a deal, kept where the mediator looks; `nonce` makes it another one.
    fn document(&self, site: &Site, mediator: Address, nonce: u64) -> Cid {
        let text = format!(
            concat!(
                r#"{{"id":"","members":{{"solver":"{solver:#x}","job_creator":"{client:#x}","#,
                r#""resource_provider":"{provider:#x}","mediators":["{mediator:#x}"]}},"#,
                r#""pricing":{{"instruction_price":10,"payment_collateral":30,"results_collateral_multiple":4,"#,
                r#""mediation_fee":5}},"job_offer":{{"id":"","created_at":{nonce},"#,
                r#""module":{{"name":"","repo":"https://example.org/wordcount","hash":"abc","path":"/module.json"}},"#,
                r#""inputs":{{"File":"text.txt"}}}},"resource_offer":{{}}}}"#
            ),
            solver = DEPLOYER,
            client = site.client,
            provider = site.provider,
            mediator = mediator,
            nonce = nonce,
        );
        let id = Cid::of_data(text.as_bytes());
        let text = text.replacen(r#""id":"""#, &format!(r#""id":"{id}""#), 1);
        std::fs::write(self.path(&format!("deals/{id}.json")), text).unwrap();
        id
    }

    pub async fn agree(&self, site: &Site, mediator: Address, nonce: u64) -> Cid {
        let deal = self.document(site, mediator, nonce);
        let timeout = |seconds: u64, collateral| calls::DealTimeout {
            timeout: U256::from(seconds),
            collateral: tokens(collateral),
        };
        for party in [site.provider, site.client] {
            let agree = calls::agreeCall {
                dealId: deal.to_string(),
                members: calls::DealMembers {
                    solver: DEPLOYER,
                    jobCreator: site.client,
                    resourceProvider: site.provider,
                    mediators: vec![mediator],
                },
                timeouts: calls::DealTimeouts {
                    agree: timeout(3_600, 0),
                    submitResults: timeout(3_600, 10),
                    judgeResults: timeout(3_600, 10),
                    mediateResults: timeout(7_200, 0),
                },
                pricing: calls::DealPricing {
                    instructionPrice: tokens(10),
                    paymentCollateral: tokens(30),
                    resultsCollateralMultiple: U256::from(4),
                    mediationFee: tokens(5),
                },
            };
            self.node.send(party, site.controller, agree).await;
        }
        deal
    }

    pub async fn submit(&self, site: &Site, deal: Cid, data: &str, count: u64) {
        let (deal, instruction_count) = (deal.to_string(), U256::from(count));
        let call = calls::addResultCall {
            dealId: deal.clone(),
            resultsId: "results".into(),
            dataId: data.into(),
            instructionCount: instruction_count,
        };
        self.node.send(site.provider, site.controller, call).await;
        self.node.send(site.client, site.controller, calls::checkResultCall { dealId: deal }).await;
    }

    /// A deal whose provider gave this result and whose client has it checked.
    async fn checked(&self, site: &Site, nonce: u64, data: &str) -> Cid {
        let deal = self.agree(site, keys::address(site.mediator), nonce).await;
        self.submit(site, deal, data, 1).await;
        deal
    }

    async fn state(&self, site: &Site, deal: Cid) -> u8 {
        self.node.call(site.storage, calls::getAgreementCall { dealId: deal.to_string() }).await.state
    }

    /// What client, provider, mediator and the token's owner gained since the beginning, in tokens.
    pub async fn gained(&self, site: &Site) -> [i64; 4] {
        let mut gained = [0; 4];
        let accounts = [site.client, site.provider, keys::address(site.mediator), DEPLOYER];
        for ((account, before), gain) in accounts.into_iter().zip([START, START, 0, 8 * START]).zip(&mut gained) {
            let held: U256 = self.node.call(site.token, abi::Token::balanceOfCall { account }).await;
            assert_eq!(held % tokens(1), U256::ZERO);
            *gain = (held / tokens(1)).to::<i64>() - before;
        }
        gained
    }

    async fn answers(&self, site: &Site) -> u64 {
        self.node.nonce(keys::address(site.mediator)).await
    }

    pub async fn timeout(&self, site: &Site, deal: Cid) -> Result<(), Value> {
        let call = calls::timeoutMediateResultCall { dealId: deal.to_string() };
        self.node.try_send(site.provider, site.controller, call).await.map(|_| ())
    }

    pub async fn wait(&self, seconds: u64) {
        self.node.ask("evm_increaseTime", json!([seconds])).await;
        self.node.mine(1).await;
    }

    async fn fund(&self, site: &Site, wei: &str) {
        self.node.ask("anvil_setBalance", json!([keys::address(site.mediator), wei])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_marketplaces_are_mediated_as_their_own_table_says() {
    let world = World::new().await;
    let (lilypad, coophive) = (world.site("lilypad", "m1").await, world.site("coophive", "m2").await);
    let running = [world.market(&lilypad).await, world.market(&coophive).await];

    // An honest provider, by either of Bacalhau's executors where the module returned.
    let honest = world.checked(&lilypad, 1, &result("0").to_string()).await;
    let judged = running[0].until(honest, Stage::Answered).await;
    assert_eq!((judged.verdict, world.state(&lilypad, honest).await), (Some(true), 5), "{judged:?}");
    assert_eq!(world.gained(&lilypad).await, [-15, 10, 5, 0]);

    // A cheat, at the other marketplace.
    let cheat = world.checked(&coophive, 1, &result("3").to_string()).await;
    let judged = running[1].until(cheat, Stage::Answered).await;
    assert_eq!((judged.verdict, world.state(&coophive, cheat).await), (Some(false), 6));
    let report = judged.report.unwrap();
    assert_eq!(report["reason"]["code"], "folder-differs");
    assert_eq!(report["evidence"]["claimed_folder"], result("3").to_string());
    assert_eq!(report["evidence"]["own_folder"], result("0").to_string());
    assert_eq!(world.gained(&coophive).await, [-5, -40, 5, 40]);

    // A count that is not above the metered one is the price that the client agreed to, up to what it put in.
    let counted = world.agree(&coophive, keys::address("m2"), 2).await;
    world.submit(&coophive, counted, &result("0").to_string(), 2).await;
    assert_eq!(running[1].until(counted, Stage::Answered).await.verdict, Some(true));
    assert_eq!(world.gained(&coophive).await, [-30, -20, 10, 40]);

    // A deal of another mediator is not ours to hear of.
    let foreign = world.agree(&lilypad, keys::address("m3"), 3).await;
    world.submit(&lilypad, foreign, &result("0").to_string(), 1).await;
    world.node.adopt(keys::address("m3")).await;
    let call = abi::Mediation::mediationRejectResultCall { dealId: foreign.to_string() };
    world.node.send(keys::address("m3"), lilypad.mediation, call).await;
    let last = world.checked(&lilypad, 4, &result("0").to_string()).await;
    running[0].until(last, Stage::Answered).await;
    let heard: Vec<_> = running[0].market.cases().into_iter().map(|(id, _)| id).collect();
    assert!(!heard.contains(&case(foreign)) && heard.len() == 2, "{heard:?}");
    for (running, site) in running.into_iter().zip([&lilypad, &coophive]) {
        running.stop().await;
        assert_eq!(world.answers(site).await, 2);
        // Anybody who has the journal can check it.
        let book = Book::read(&world.journal(site)).unwrap();
        assert_eq!(book.identity().unwrap().kind, site.name);
        let artifacts: Arc<dyn ArtifactSource> = Arc::new(FolderSource::open(&world.path("artifacts")).unwrap());
        let service = Service::new(OperatorLimits::default(), vec![artifacts]);
        for it in book.cases().values() {
            assert_eq!(check::case(&book, it, Some(&service)), Vec::<String>::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_mediators_own_is_never_answered() {
    let world = World::new().await;
    let site = world.site("lilypad", "m1").await;
    let deal = world.checked(&site, 1, &result("0").to_string()).await;
    let strange = world.checked(&site, 2, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354").await;
    let after = async |code: &str, part: &str| {
        let running = world.market(&site).await;
        let wait = async {
            while running.held(deal).await.0 != code {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        let held = running.held(deal).await;
        assert!(waited.is_ok() && held.1.contains(part), "{code}: {held:?}");
        running.stop().await;
        assert_eq!((world.answers(&site).await, world.state(&site, deal).await), (0, 4), "{code}");
    };
    let away = world.path("away");
    // The program is not here.
    std::fs::rename(world.path("artifacts/module"), &away).unwrap();
    after("artifact-unavailable", "nobody serves").await;
    std::fs::rename(&away, world.path("artifacts/module")).unwrap();
    // The operator gave it too little.
    world.write_module(1_000);
    after("job-limit", "fuel").await;
    // Nobody said what job the module is.
    std::fs::remove_file(world.path("modules/wordcount.json")).unwrap();
    after("module-unknown", "https://example.org/wordcount@abc/module.json (the terms give the mediator 7200 s").await;
    world.write_module(1_000_000_000);
    // The deal's document is not there, or another one's.
    let document = world.path(&format!("deals/{deal}.json"));
    std::fs::rename(&document, &away).unwrap();
    after("document-missing", "No such file").await;
    std::fs::copy(world.path(&format!("deals/{strange}.json")), &document).unwrap();
    after("document-differs", "does not begin with the deal's id").await;
    std::fs::rename(&away, &document).unwrap();

    // The terms still give time, the contract does not any more, and nobody has made that call: it is made good.
    world.wait(3_700).await;
    let running = world.market(&site).await;
    assert_eq!(running.until(deal, Stage::Answered).await.verdict, Some(true));
    assert_eq!(running.held(strange).await.0, "other-result");
    assert_eq!(world.state(&site, deal).await, 5);
    running.stop().await;
    assert_eq!(world.answers(&site).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_that_timed_out_is_closed_and_not_answered() {
    let world = World::new().await;
    let site = world.site("coophive", "m1").await;
    std::fs::rename(world.path("artifacts/module"), world.path("away")).unwrap();
    let running = world.market(&site).await;
    let deal = world.checked(&site, 1, &result("3").to_string()).await;
    running.held(deal).await;
    assert!(world.timeout(&site, deal).await.is_err(), "the judge timeout has not passed");
    world.wait(3_700).await;
    world.timeout(&site, deal).await.unwrap();
    let (how, _) = running.until(deal, Stage::Closed).await.closed.unwrap();
    assert_eq!(how, "TimeoutMediateResults");
    assert_eq!(world.gained(&site).await, [0, 0, 0, 0], "as deployed, a cheat gets away with it");
    std::fs::rename(world.path("away"), world.path("artifacts/module")).unwrap();
    running.stop().await;
    let running = world.market(&site).await;
    running.until(deal, Stage::Closed).await;
    running.stop().await;
    assert_eq!(world.answers(&site).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_verdict_and_answer_sends_one_transaction() {
    let world = World::new().await;
    let site = world.site("lilypad", "m1").await;
    // Judged, but there is no money for gas.
    world.fund(&site, "0x0").await;
    let running = world.market(&site).await;
    let deal = world.checked(&site, 1, &result("0").to_string()).await;
    let held = running.until(deal, Stage::Held).await;
    assert_eq!((held.verdict, held.held.unwrap().0.as_str()), (Some(true), "chain"));
    running.stop().await;
    // Sent, but not mined.
    world.fund(&site, "0x56bc75e2d63100000").await;
    world.node.ask("evm_setAutomine", json!([false])).await;
    let running = world.market(&site).await;
    let pending = async || {
        let params = json!([keys::address("m1"), "pending"]);
        world.node.ask("eth_getTransactionCount", params).await == "0x1"
    };
    let wait = async {
        while !pending().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the answer is sent");
    assert_eq!(running.verified(), 0, "the verdict was in the journal");
    running.stop().await;
    let running = world.market(&site).await;
    world.node.mine(1).await;
    world.node.ask("evm_setAutomine", json!([true])).await;
    running.until(deal, Stage::Answered).await;
    assert_eq!(running.verified(), 0);
    running.stop().await;
    assert_eq!((world.answers(&site).await, world.state(&site, deal).await), (1, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_about_the_result_that_was_judged() {
    let world = World::new().await;
    let site = world.site("lilypad", "m1").await;
    world.fund(&site, "0x0").await;
    let running = world.market(&site).await;
    let deal = world.agree(&site, keys::address("m1"), 1).await;
    world.submit(&site, deal, &result("3").to_string(), 1).await;
    assert_eq!(running.until(deal, Stage::Held).await.verdict, Some(false));
    // The chain forgets the wrong result, and the provider gives the right one under the same deal.
    world.node.reorganise(2).await;
    world.submit(&site, deal, &result("-1").to_string(), 1).await;
    world.node.mine(2).await;
    world.fund(&site, "0x56bc75e2d63100000").await;
    let judged = running.until(deal, Stage::Answered).await;
    assert_eq!((judged.verdict, world.state(&site, deal).await), (Some(true), 5), "{judged:?}");
    assert_eq!(world.gained(&site).await, [-15, 10, 5, 0]);
    running.stop().await;
    assert_eq!(world.answers(&site).await, 1);
}

//! Hand-made logs of a Lilypad marketplace, as its published rules and worked figures give them.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::{SolEvent, SolValue as _};
use serde_json::{Value, json};
use tribunal_contracts::lilypad::{
    DealState,
    history::{Direction, Reason, encode},
};
use tribunal_engine::import::Deployment;

/// The first block's time.
pub const START_S: u64 = 1_700_000_000;

/// Whole tokens.
pub fn tokens(whole: u64) -> U256 {
    U256::from(whole) * U256::from(10).pow(U256::from(18))
}

pub fn account(name: &str) -> Address {
    Address::from_word(keccak256(name))
}

pub const CLIENT: &str = "client";
pub const PROVIDER: &str = "provider";
pub const MEDIATOR: &str = "mediator";

/// A marketplace on a chain.
pub fn deployment(chain_id: u64) -> Deployment {
    Deployment::new(chain_id, account("storage"), account("payments"), Some(account("mediation"))).unwrap()
}

/// Terms in whole tokens and seconds; the worked figures of the published fixtures.
#[derive(Clone)]
pub struct Terms {
    pub price: u64,
    pub payment: u64,
    pub multiple: u64,
    pub fee: u64,
    pub submit_collateral: u64,
    pub judge_collateral: u64,
    pub mediate_s: u64,
    pub mediators: Vec<Address>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            price: 10,
            payment: 30,
            multiple: 4,
            fee: 5,
            submit_collateral: 10,
            judge_collateral: 10,
            mediate_s: 3_600,
            mediators: vec![account(MEDIATOR)],
        }
    }
}

/// Logs and answers as they come.
pub struct Tape {
    pub chain_id: u64,
    pub deal: String,
    pub terms: Terms,
    pub logs: Vec<Value>,
    pub reads: Vec<Value>,
    block: u64,
    time_s: u64,
    index: u64,
}

impl Tape {
    pub fn new(chain_id: u64, deal: &str, terms: Terms) -> Self {
        let (logs, reads) = (Vec::new(), Vec::new());
        Self { chain_id, deal: deal.into(), terms, logs, reads, block: 100, time_s: START_S, index: 0 }
    }

    /// The next transaction is in a block so many seconds later.
    pub fn after(mut self, seconds: u64) -> Self {
        self.block += 1;
        self.time_s += seconds;
        self.index = 0;
        self
    }

    fn block_hash(&self) -> B256 {
        keccak256((U256::from(self.chain_id), U256::from(self.block)).abi_encode())
    }

    fn log(mut self, contract: &str, event: impl SolEvent) -> Self {
        let data = event.encode_log_data();
        self.logs.push(json!({
            "address": account(contract), "topics": data.topics(), "data": data.data,
            "blockNumber": format!("{:#x}", self.block), "blockHash": self.block_hash(),
            "blockTimestamp": format!("{:#x}", self.time_s),
            "transactionHash": keccak256(self.block_hash()), "transactionIndex": "0x0",
            "logIndex": format!("{:#x}", self.index), "removed": false,
        }));
        self.index += 1;
        self
    }

    pub fn state(self, state: DealState) -> Self {
        let event = encode::DealStateChange { dealId: self.deal.clone(), state: state as u8 };
        self.log("storage", event)
    }

    pub fn asked(self, mediator: Address) -> Self {
        let event = encode::MediationRequested { dealId: self.deal.clone(), mediator };
        self.log("mediation", event)
    }

    pub fn added(self, count: u64) -> Self {
        let event = encode::ResultAdded {
            dealId: self.deal.clone(),
            resultsId: "results".into(),
            dataId: "data".into(),
            instructionCount: U256::from(count),
        };
        self.log("storage", event)
    }

    pub fn pay(self, who: &str, whole: u64, reason: Reason, direction: Direction) -> Self {
        let event = encode::Payment {
            dealId: self.deal.clone(),
            payee: account(who),
            amount: tokens(whole),
            reason: reason as u8,
            direction: direction as u8,
        };
        self.log("payments", event)
    }

    pub fn provider_agrees(self) -> Self {
        let collateral = self.terms.submit_collateral;
        self.pay(PROVIDER, collateral, Reason::TimeoutCollateral, Direction::PaidIn)
    }

    pub fn client_agrees(self) -> Self {
        let Terms { payment, judge_collateral, .. } = self.terms;
        self.pay(CLIENT, payment, Reason::PaymentCollateral, Direction::PaidIn).pay(
            CLIENT,
            judge_collateral,
            Reason::TimeoutCollateral,
            Direction::PaidIn,
        )
    }

    /// Both sides agree, the provider first.
    pub fn agreed(self) -> Self {
        self.provider_agrees().after(12).state(DealState::DealAgreed).client_agrees().read_deal()
    }

    /// The provider gives a result with this count.
    pub fn submitted(self, count: u64) -> Self {
        let (stake, collateral) = (self.terms.multiple * self.terms.price * count, self.terms.submit_collateral);
        self.state(DealState::ResultsSubmitted)
            .added(count)
            .pay(PROVIDER, stake, Reason::ResultsCollateral, Direction::PaidIn)
            .pay(PROVIDER, collateral, Reason::TimeoutCollateral, Direction::Refunded)
            .read_result(count)
    }

    pub fn accepted(self, count: u64) -> Self {
        let collateral = self.terms.judge_collateral;
        self.state(DealState::ResultsAccepted).paid(count).pay(
            CLIENT,
            collateral,
            Reason::TimeoutCollateral,
            Direction::Refunded,
        )
    }

    fn paid(self, count: u64) -> Self {
        let Terms { price, payment, multiple, .. } = self.terms;
        let cost = (price * count).min(payment);
        let mut it = self.pay(PROVIDER, cost, Reason::JobPayment, Direction::PaidOut);
        if payment > cost {
            it = it.pay(CLIENT, payment - cost, Reason::PaymentCollateral, Direction::Refunded);
        }
        it.pay(PROVIDER, multiple * price * count, Reason::ResultsCollateral, Direction::Refunded)
    }

    /// The client has it checked.
    pub fn checked(self) -> Self {
        let Terms { judge_collateral, fee, .. } = self.terms;
        let drawn = self.drawn();
        self.state(DealState::ResultsChecked)
            .pay(CLIENT, judge_collateral, Reason::TimeoutCollateral, Direction::Refunded)
            .pay(CLIENT, fee, Reason::MediationFee, Direction::PaidIn)
            .asked(drawn)
    }

    /// As their contract draws: by the time of the block and the deal's id.
    fn drawn(&self) -> Address {
        self.drawn_after(0)
    }

    fn drawn_after(&self, seconds: u64) -> Address {
        let seed = [&U256::from(self.time_s + seconds).to_be_bytes::<32>()[..], self.deal.as_bytes()].concat();
        let count = U256::from(self.terms.mediators.len());
        self.terms.mediators[(U256::from_be_bytes(keccak256(seed).0) % count).to::<usize>()]
    }

    pub fn mediated(self, valid: bool, count: u64) -> Self {
        let Terms { price, payment, multiple, fee, .. } = self.terms;
        let fee = |it: Self| it.pay(MEDIATOR, fee, Reason::MediationFee, Direction::PaidOut);
        if valid {
            return fee(self.state(DealState::MediationAccepted).paid(count));
        }
        let it = self.state(DealState::MediationRejected);
        fee(it.pay(CLIENT, payment, Reason::PaymentCollateral, Direction::Refunded)).pay(
            PROVIDER,
            multiple * price * count,
            Reason::ResultsCollateral,
            Direction::Slashed,
        )
    }

    pub fn mediate_timeout(self, count: u64) -> Self {
        let Terms { price, payment, multiple, fee, .. } = self.terms;
        self.state(DealState::TimeoutMediateResults)
            .pay(PROVIDER, multiple * price * count, Reason::ResultsCollateral, Direction::Refunded)
            .pay(CLIENT, payment, Reason::PaymentCollateral, Direction::Refunded)
            .pay(CLIENT, fee, Reason::MediationFee, Direction::Refunded)
    }

    pub fn read_deal(self) -> Self {
        let second = |seconds: u64, collateral: u64| encode::DealTimeout {
            timeout: U256::from(seconds),
            collateral: tokens(collateral),
        };
        let it = &self.terms;
        let deal = encode::Deal {
            dealId: self.deal.clone(),
            members: encode::DealMembers {
                solver: account("solver"),
                jobCreator: account(CLIENT),
                resourceProvider: account(PROVIDER),
                mediators: it.mediators.clone(),
            },
            timeouts: encode::DealTimeouts {
                agree: second(3_600, 0),
                submitResults: second(3_600, it.submit_collateral),
                judgeResults: second(3_600, it.judge_collateral),
                mediateResults: second(it.mediate_s, 0),
            },
            pricing: encode::DealPricing {
                instructionPrice: tokens(it.price),
                paymentCollateral: tokens(it.payment),
                resultsCollateralMultiple: U256::from(it.multiple),
                mediationFee: tokens(it.fee),
            },
        };
        self.read("getDeal", &deal.abi_encode())
    }

    fn read_result(self, count: u64) -> Self {
        let result = encode::DealResult {
            dealId: self.deal.clone(),
            resultsId: "results".into(),
            dataId: "data".into(),
            instructionCount: U256::from(count),
        };
        self.read("getResult", &result.abi_encode())
    }

    fn read(mut self, call: &str, answer: &[u8]) -> Self {
        self.reads.push(json!({
            "call": call, "dealId": self.deal, "answer": format!("0x{}", hex::encode(answer)),
            "blockNumber": format!("{:#x}", self.block), "blockHash": self.block_hash(),
        }));
        self
    }

    /// The file.
    pub fn json(&self) -> Value {
        json!({ "logs": self.logs, "reads": self.reads })
    }
}

/// Every deal that is written down by hand, by name.
pub fn scenes() -> Vec<(&'static str, Tape)> {
    use {DealState as S, Direction as D, Reason as R};
    let deal = |terms: Terms| Tape::new(421_614, "QmWorked", terms);
    let worked = || deal(Terms::default()).agreed();
    let uneven = |judge_collateral| Terms { judge_collateral, ..Terms::default() };
    let two = || Terms { mediators: vec![account(MEDIATOR), account("second mediator")], ..Terms::default() };
    vec![
        ("accepted", worked().after(600).submitted(1).after(60).accepted(1)),
        ("mediated-valid", worked().after(600).submitted(1).after(60).checked().after(300).mediated(true, 1)),
        ("mediated-invalid", worked().after(600).submitted(1).after(60).checked().after(300).mediated(false, 1)),
        ("cost-above-payment", worked().after(600).submitted(5).after(60).accepted(5)),
        ("late-result", worked().after(5_000).submitted(1).after(60).accepted(1)),
        ("nothing-at-stake", worked().after(600).submitted(0).after(60).accepted(0)),
        // Checked 100 s before the judge timeout is over, and timed out in the first second after it.
        ("cheat-escapes", worked().after(600).submitted(1).after(3_500).checked().after(101).mediate_timeout(1)),
        ("mediator-silent", worked().after(600).submitted(1).after(60).checked().after(4_000).mediate_timeout(1)),
        ("mediator-awaited", worked().after(600).submitted(1).after(60).checked()),
        ("two-mediators", {
            // Whoever sends the transaction waits for the second that draws the mediator it wants.
            let it = deal(two()).agreed().after(600).submitted(1);
            let wanted = (60..).find(|seconds| it.drawn_after(*seconds) == account(MEDIATOR));
            it.after(wanted.unwrap()).checked().after(300).mediated(true, 1)
        }),
        ("no-result", worked()),
        ("no-judgement", worked().after(600).submitted(1)),
        ("one-side", deal(Terms::default()).client_agrees().read_deal()),
        ("agree-timeout", {
            let it = deal(Terms::default()).client_agrees().read_deal().after(3_601).state(S::TimeoutAgree);
            it.pay(CLIENT, 30, R::PaymentCollateral, D::Refunded).pay(CLIENT, 10, R::TimeoutCollateral, D::Refunded)
        }),
        ("agree-timeout-stranded", {
            let it = deal(uneven(13)).client_agrees().read_deal().after(3_601).state(S::TimeoutAgree);
            it.pay(CLIENT, 30, R::PaymentCollateral, D::Refunded).pay(CLIENT, 10, R::TimeoutCollateral, D::Refunded)
        }),
        ("agree-timeout-borrowed", {
            let it = deal(uneven(4)).client_agrees().read_deal().after(3_601).state(S::TimeoutAgree);
            it.pay(CLIENT, 30, R::PaymentCollateral, D::Refunded).pay(CLIENT, 10, R::TimeoutCollateral, D::Refunded)
        }),
        // As the payments' code reads; the deployed controllers call it by another name and revert.
        ("submit-timeout", {
            let it = worked().after(3_601).state(S::TimeoutSubmitResults);
            it.pay(CLIENT, 30, R::PaymentCollateral, D::Refunded)
                .pay(CLIENT, 10, R::TimeoutCollateral, D::Refunded)
                .pay(PROVIDER, 10, R::TimeoutCollateral, D::Slashed)
        }),
        ("judge-timeout", {
            let it = worked().after(600).submitted(1).after(3_601).state(S::TimeoutJudgeResults);
            it.pay(PROVIDER, 40, R::ResultsCollateral, D::Refunded).pay(CLIENT, 10, R::TimeoutCollateral, D::Slashed)
        }),
        // Nobody agreed to what is paid out here, and the figures are made up.
        ("forged", {
            let it = Tape::new(421_614, "QmForged", Terms::default()).read_deal().provider_agrees();
            it.after(12)
                .state(S::MediationAccepted)
                .pay(PROVIDER, 1_000, R::JobPayment, D::PaidOut)
                .after(12)
                .asked(account(PROVIDER))
        }),
    ]
}

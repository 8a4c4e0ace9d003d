//! Lilypad v2 and CoopHive v1 as a mediator of theirs sees them: who is asked, what the deal and the result are by the chain
//! alone, until when an answer is safe, and the transaction that answers.
//!
//! Both have one ABI; CoopHive's storage says one thing more ([`LilypadEvent::ResultAdded`]). No parameter of their events is
//! indexed, so every deal of the marketplace is heard and the own ones are picked out here. States are numbered as the
//! Solidity numbers them: the marketplaces' own services count otherwise from 7 on.
//!
//! **Time.** The terms give a mediator `mediateResults.timeout` from the check on. The controller does not look at that: as
//! deployed, either party may call `timeoutMediateResult` as soon as `judgeResults.timeout` has passed since the result was
//! *submitted*, and with it a cheat takes its collateral back. [`Deadlines`] has both; the earlier one counts. Nothing stops
//! an answer that comes later, as long as nobody made that call.
//!
//! Authority is `tx.origin` everywhere, so a mediator is an account with a key and no contract.
//!
//! Source: the ABI of Lilypad-Tech/lilypad and CoopHive/coophive, `hardhat/contracts`.

use alloy::providers::DynProvider;
use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent as _, sol};
use tribunal_events::{Address, B256};

use crate::{ChainFault, ObservedLog, alkahest::call};

pub mod history;

#[allow(missing_docs, clippy::too_many_arguments)]
mod abi {
    use super::sol;

    sol! {
        #[derive(Debug, PartialEq, Eq)]
        struct DealMembers {
            address solver;
            address jobCreator;
            address resourceProvider;
            address[] mediators;
        }
        #[derive(Debug, PartialEq, Eq)]
        struct DealTimeout { uint256 timeout; uint256 collateral; }
        #[derive(Debug, PartialEq, Eq)]
        struct DealTimeouts {
            DealTimeout agree;
            DealTimeout submitResults;
            DealTimeout judgeResults;
            DealTimeout mediateResults;
        }
        #[derive(Debug, PartialEq, Eq)]
        struct DealPricing {
            uint256 instructionPrice;
            uint256 paymentCollateral;
            uint256 resultsCollateralMultiple;
            uint256 mediationFee;
        }
        #[derive(Debug, PartialEq, Eq)]
        struct Deal {
            string dealId;
            DealMembers members;
            DealTimeouts timeouts;
            DealPricing pricing;
        }
        struct DealResult {
            string dealId;
            string resultsId;
            string dataId;
            uint256 instructionCount;
        }
        struct Agreement {
            uint8 state;
            uint256 resourceProviderAgreedAt;
            uint256 jobCreatorAgreedAt;
            uint256 dealCreatedAt;
            uint256 dealAgreedAt;
            uint256 resultsSubmittedAt;
            uint256 resultsAcceptedAt;
            uint256 resultsCheckedAt;
            uint256 mediationAcceptedAt;
            uint256 mediationRejectedAt;
            uint256 timeoutAgreeAt;
            uint256 timeoutSubmitResultsAt;
            uint256 timeoutJudgeResultsAt;
            uint256 timeoutMediateResultsAt;
        }

        event MediationRequested(string dealId, address mediator);
        event DealStateChange(string dealId, uint8 state);
        event ResultAdded(string dealId, string resultsId, string dataId, uint256 instructionCount);
        event Payment(string dealId, address payee, uint256 amount, uint8 reason, uint8 direction);

        function getDeal(string dealId) external view returns (Deal memory);
        function getAgreement(string dealId) external view returns (Agreement memory);
        function getResult(string dealId) external view returns (DealResult memory);
        function getMediator(string dealId) external view returns (address);

        function mediationAcceptResult(string dealId) external;
        function mediationRejectResult(string dealId) external;

        function agree(string dealId, DealMembers members, DealTimeouts timeouts, DealPricing pricing) external;
        function addResult(string dealId, string resultsId, string dataId, uint256 instructionCount) external;
        function acceptResult(string dealId) external;
        function checkResult(string dealId) external;
        function timeoutMediateResult(string dealId) external;
    }
}

pub use abi::{DealMembers, DealPricing};

/// How far a deal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DealState {
    DealNegotiating,
    DealAgreed,
    ResultsSubmitted,
    ResultsAccepted,
    ResultsChecked,
    MediationAccepted,
    MediationRejected,
    TimeoutAgree,
    TimeoutSubmitResults,
    TimeoutJudgeResults,
    TimeoutMediateResults,
}

impl DealState {
    /// All of them; the index is the number.
    pub const ALL: [Self; 11] = [
        Self::DealNegotiating,
        Self::DealAgreed,
        Self::ResultsSubmitted,
        Self::ResultsAccepted,
        Self::ResultsChecked,
        Self::MediationAccepted,
        Self::MediationRejected,
        Self::TimeoutAgree,
        Self::TimeoutSubmitResults,
        Self::TimeoutJudgeResults,
        Self::TimeoutMediateResults,
    ];

    /// The state of a number; none: these contracts know no such state.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its name in the Solidity.
    pub const fn word(self) -> &'static str {
        match self {
            Self::DealNegotiating => "DealNegotiating",
            Self::DealAgreed => "DealAgreed",
            Self::ResultsSubmitted => "ResultsSubmitted",
            Self::ResultsAccepted => "ResultsAccepted",
            Self::ResultsChecked => "ResultsChecked",
            Self::MediationAccepted => "MediationAccepted",
            Self::MediationRejected => "MediationRejected",
            Self::TimeoutAgree => "TimeoutAgree",
            Self::TimeoutSubmitResults => "TimeoutSubmitResults",
            Self::TimeoutJudgeResults => "TimeoutJudgeResults",
            Self::TimeoutMediateResults => "TimeoutMediateResults",
        }
    }

    /// Whether no call leads out of it.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::DealNegotiating | Self::DealAgreed | Self::ResultsSubmitted | Self::ResultsChecked)
    }
}

/// Until when a mediator's answer is safe, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// When the result was checked: since then a mediator is asked.
    pub checked_s: u64,
    /// As the terms say: `mediateResults.timeout` after the check.
    pub intended_s: u64,
    /// As deployed: `judgeResults.timeout` after the result was submitted. A block after this second can time the deal out.
    pub deployed_s: u64,
}

impl Deadlines {
    /// The earlier one.
    pub fn effective_s(self) -> u64 {
        self.intended_s.min(self.deployed_s)
    }

    /// Seconds that the mediator had, from the check on.
    pub fn window_s(self) -> u64 {
        self.effective_s().saturating_sub(self.checked_s)
    }

    /// What is to be said where the contract gives less time than the terms.
    pub fn note(self) -> Option<String> {
        let Self { checked_s, intended_s, deployed_s } = self;
        (deployed_s < intended_s).then(|| {
            format!(
                "the terms give the mediator {} s, the contract {}: timeoutMediateResult can be called after {deployed_s}",
                intended_s.saturating_sub(checked_s),
                self.window_s(),
            )
        })
    }

    fn of(agreement: &abi::Agreement, timeouts: &abi::DealTimeouts) -> Self {
        let after = |at: U256, timeout: U256| at.saturating_add(timeout).saturating_to();
        Self {
            checked_s: agreement.resultsCheckedAt.saturating_to(),
            intended_s: after(agreement.resultsCheckedAt, timeouts.mediateResults.timeout),
            deployed_s: after(agreement.resultsSubmittedAt, timeouts.judgeResults.timeout),
        }
    }
}

/// A deployment, and the account that it asks to mediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lilypad {
    /// Holds deals, agreements and results.
    pub storage: Address,
    /// Draws mediators and takes their answers.
    pub mediation: Address,
    /// The mediator.
    pub mediator: Address,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LilypadEvent {
    /// A mediator was drawn.
    MediationRequested {
        /// The deal.
        deal_id: String,
        /// Who.
        mediator: Address,
    },
    /// A deal came into a state.
    StateChange {
        /// The deal.
        deal_id: String,
        /// The state.
        state: DealState,
    },
    /// A provider gave its result; CoopHive alone says so.
    ResultAdded {
        /// The deal.
        deal_id: String,
        /// The content address of the data.
        data_id: String,
        /// Instructions that are to be paid.
        instruction_count: U256,
    },
}

/// Why there is nothing to mediate, now or for ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotAsked {
    #[error("the deal is in state {}, not in ResultsChecked", .0.word())]
    State(DealState),
    #[error("the mediator of the deal is {0}")]
    OtherMediator(Address),
    #[error("the storage answers about deal {0:?}")]
    OtherDeal(String),
}

/// What is to be mediated, from the chain itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mediation {
    /// The parties.
    pub members: DealMembers,
    /// What was agreed to be paid.
    pub pricing: DealPricing,
    /// The content address of the result's data, as the provider put it on the chain.
    pub data_id: String,
    /// Instructions that the provider wants to be paid.
    pub instruction_count: U256,
    /// Until when an answer is safe.
    pub deadlines: Deadlines,
}

impl Lilypad {
    /// First topics of the events that matter to a mediator.
    pub fn events() -> Vec<B256> {
        vec![abi::MediationRequested::SIGNATURE_HASH, abi::DealStateChange::SIGNATURE_HASH]
    }

    /// What an event of the two contracts says, whomever it is about.
    pub fn read(&self, log: &ObservedLog) -> Option<LilypadEvent> {
        if log.contract == self.mediation
            && let Some(it) = log.decode::<abi::MediationRequested>()
        {
            return Some(LilypadEvent::MediationRequested { deal_id: it.dealId, mediator: it.mediator });
        }
        if log.contract != self.storage {
            return None;
        }
        if let Some(it) = log.decode::<abi::DealStateChange>() {
            return Some(LilypadEvent::StateChange { deal_id: it.dealId, state: DealState::of(it.state)? });
        }
        let it = log.decode::<abi::ResultAdded>()?;
        let (data_id, instruction_count) = (it.dataId, it.instructionCount);
        Some(LilypadEvent::ResultAdded { deal_id: it.dealId, data_id, instruction_count })
    }

    /// The call that answers, to the mediation contract.
    pub fn answer(deal_id: &str, valid: bool) -> Bytes {
        let deal_id = deal_id.to_owned();
        if valid {
            abi::mediationAcceptResultCall { dealId: deal_id }.abi_encode().into()
        } else {
            abi::mediationRejectResultCall { dealId: deal_id }.abi_encode().into()
        }
    }

    /// Reads what there is to mediate about a deal.
    ///
    /// # Errors
    /// Where the node cannot be asked, or the contracts do not answer as these do; the inner one says why there is nothing.
    pub async fn mediation(
        &self,
        node: &DynProvider,
        deal_id: &str,
    ) -> Result<Result<Mediation, NotAsked>, ChainFault> {
        let id = || deal_id.to_owned();
        let agreement = ask(node, self.storage, abi::getAgreementCall { dealId: id() }).await?;
        match DealState::of(agreement.state) {
            Some(DealState::ResultsChecked) => {}
            Some(state) => return Ok(Err(NotAsked::State(state))),
            None => return Err(unlike(self.storage, format!("knows a state {}", agreement.state))),
        }
        let mediator = ask(node, self.mediation, abi::getMediatorCall { dealId: id() }).await?;
        if mediator != self.mediator {
            return Ok(Err(NotAsked::OtherMediator(mediator)));
        }
        let deal = ask(node, self.storage, abi::getDealCall { dealId: id() }).await?;
        let result = ask(node, self.storage, abi::getResultCall { dealId: id() }).await?;
        if let Some(other) = [deal.dealId, result.dealId].into_iter().find(|other| other != deal_id) {
            return Ok(Err(NotAsked::OtherDeal(other.chars().take(64).collect())));
        }
        Ok(Ok(Mediation {
            members: deal.members,
            pricing: deal.pricing,
            data_id: result.dataId,
            instruction_count: result.instructionCount,
            deadlines: Deadlines::of(&agreement, &deal.timeouts),
        }))
    }
}

/// Asks a view of a contract that must answer.
async fn ask<C: SolCall>(node: &DynProvider, to: Address, asked: C) -> Result<C::Return, ChainFault> {
    match call(node, to, asked.abi_encode()).await? {
        None => Err(unlike(to, format!("refuses {}", C::SIGNATURE))),
        Some(answer) => {
            C::abi_decode_returns(&answer).map_err(|error| unlike(to, format!("answers to {}: {error}", C::SIGNATURE)))
        }
    }
}

fn unlike(contract: Address, what: String) -> ChainFault {
    ChainFault::Unexpected {
        what: "deal",
        problem: format!("{contract} is no contract of this marketplace: it {what}"),
    }
}

/// Calls of the parties, for tests and tools.
pub mod calls {
    pub use super::abi::{
        DealMembers, DealPricing, DealTimeout, DealTimeouts, acceptResultCall, addResultCall, agreeCall,
        checkResultCall, getAgreementCall, timeoutMediateResultCall,
    };
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, hex};
    use alloy_sol_types::{SolEvent, SolValue as _};

    use super::*;
    use crate::BlockRef;

    mod theirs {
        #![allow(clippy::all, unsafe_code)]
        alloy_sol_types::sol!(MarketCoophiveStorage, "../artifacts/MarketCoophiveStorage.json");
    }

    const STORAGE: Address = address!("00000000000000000000000000000000000000aa");
    const MEDIATION: Address = address!("00000000000000000000000000000000000000bb");
    const MEDIATOR: Address = address!("00000000000000000000000000000000000000cc");
    const LILYPAD: Lilypad = Lilypad { storage: STORAGE, mediation: MEDIATION, mediator: MEDIATOR };

    /// Selectors and topics as they were computed from the marketplaces' own sources.
    #[test]
    fn selectors_and_topics_are_the_marketplaces() {
        assert_eq!(abi::getDealCall::SELECTOR, hex!("e7079180"));
        assert_eq!(abi::getAgreementCall::SELECTOR, hex!("cdd82d1d"));
        assert_eq!(abi::getResultCall::SELECTOR, hex!("498cc70d"));
        assert_eq!(abi::getMediatorCall::SELECTOR, hex!("a2bffa00"));
        assert_eq!(abi::mediationAcceptResultCall::SELECTOR, hex!("824518aa"));
        assert_eq!(abi::mediationRejectResultCall::SELECTOR, hex!("80ffdfe0"));
        assert_eq!(abi::agreeCall::SELECTOR, hex!("f583b125"));
        assert_eq!(abi::addResultCall::SELECTOR, hex!("3955548e"));
        assert_eq!(abi::acceptResultCall::SELECTOR, hex!("297f9e55"));
        assert_eq!(abi::checkResultCall::SELECTOR, hex!("46834d1e"));
        assert_eq!(abi::timeoutMediateResultCall::SELECTOR, hex!("e7b957d1"));
        let [requested, changed] = Lilypad::events()[..] else { panic!() };
        assert_eq!(requested.0, hex!("fd3770121045f9427361660d6eaa8b07a2e45eca6964f5c4f041a28f21084086"));
        assert_eq!(changed.0, hex!("10ca3d89184491f5d8de422bd36534abe6eb4b4aa1429a261bdb5ff1dd9ac386"));
        let added = abi::ResultAdded::SIGNATURE_HASH;
        assert_eq!(added.0, hex!("0ff955ec0ee856bc2600be3542a22fb4e34ce6315759d5a35f4671581583cb16"));
    }

    #[test]
    fn the_answer_says_what_was_found() {
        assert_eq!(Lilypad::answer("Qm", true)[..4], hex!("824518aa"));
        assert_eq!(Lilypad::answer("Qm", false)[..4], hex!("80ffdfe0"));
        let deal = abi::mediationAcceptResultCall::abi_decode(&Lilypad::answer("Qm", true)).unwrap();
        assert_eq!(deal.dealId, "Qm");
    }

    #[test]
    fn states_are_numbered_as_the_solidity_numbers_them() {
        for (number, state) in [(4, "ResultsChecked"), (7, "TimeoutAgree"), (10, "TimeoutMediateResults")] {
            assert_eq!(DealState::of(number).unwrap().word(), state);
        }
        assert_eq!(DealState::of(11), None);
        let open: Vec<_> = (0..11).filter(|number| !DealState::of(*number).unwrap().is_final()).collect();
        assert_eq!(open, [0, 1, 2, 4]);
        for (number, state) in DealState::ALL.into_iter().enumerate() {
            assert_eq!((format!("{state:?}"), state as usize), (state.word().to_owned(), number));
        }
    }

    #[test]
    fn the_contracts_structs_are_read_field_by_field() {
        use theirs::MarketCoophiveStorage as t;
        let at = |second: u64| U256::from(second);
        let agreement = t::Agreement {
            state: 4,
            resourceProviderAgreedAt: at(1),
            jobCreatorAgreedAt: at(2),
            dealCreatedAt: at(3),
            dealAgreedAt: at(4),
            resultsSubmittedAt: at(1_000),
            resultsAcceptedAt: at(6),
            resultsCheckedAt: at(4_000),
            mediationAcceptedAt: at(8),
            mediationRejectedAt: at(9),
            timeoutAgreeAt: at(10),
            timeoutSubmitResultsAt: at(11),
            timeoutJudgeResultsAt: at(12),
            timeoutMediateResultsAt: at(13),
        };
        let timeout = |timeout: u64| t::DealTimeout { timeout: at(timeout), collateral: at(timeout + 1) };
        let deal = t::Deal {
            dealId: "Qm".into(),
            members: t::DealMembers {
                solver: Address::repeat_byte(1),
                jobCreator: Address::repeat_byte(2),
                resourceProvider: Address::repeat_byte(3),
                mediators: vec![MEDIATOR],
            },
            timeouts: t::DealTimeouts {
                agree: timeout(10),
                submitResults: timeout(20),
                judgeResults: timeout(3_600),
                mediateResults: timeout(7_200),
            },
            pricing: t::DealPricing {
                instructionPrice: at(1),
                paymentCollateral: at(2),
                resultsCollateralMultiple: at(3),
                mediationFee: at(4),
            },
        };
        let ours = abi::getDealCall::abi_decode_returns(&deal.abi_encode()).unwrap();
        assert_eq!(ours.abi_encode(), deal.abi_encode());
        assert_eq!((ours.members.resourceProvider, ours.pricing.mediationFee), (Address::repeat_byte(3), at(4)));
        let agreed = abi::getAgreementCall::abi_decode_returns(&agreement.abi_encode()).unwrap();
        let deadlines = Deadlines::of(&agreed, &ours.timeouts);
        assert_eq!(deadlines, Deadlines { checked_s: 4_000, intended_s: 11_200, deployed_s: 4_600 });
        let result =
            t::Result { dealId: "Qm".into(), resultsId: "r".into(), dataId: "d".into(), instructionCount: at(7) };
        let read = abi::getResultCall::abi_decode_returns(&result.abi_encode()).unwrap();
        assert_eq!((&*read.dataId, &*read.resultsId, read.instructionCount), ("d", "r", at(7)));
    }

    #[test]
    fn the_earlier_deadline_counts_and_a_shortened_one_is_told() {
        let deadlines = |intended_s, deployed_s| Deadlines { checked_s: 100, intended_s, deployed_s };
        assert_eq!(deadlines(3_700, 200).effective_s(), 200);
        assert_eq!(deadlines(3_700, 200).window_s(), 100);
        let note = deadlines(3_700, 200).note().unwrap();
        assert!(note.contains("3600 s") && note.contains("100:") && note.contains("after 200"), "{note}");
        assert_eq!((deadlines(150, 200).effective_s(), deadlines(150, 200).note()), (150, None));
        assert_eq!(deadlines(3_700, 50).window_s(), 0, "checked when it was too late");
        let never = abi::DealTimeout { timeout: U256::MAX, collateral: U256::ZERO };
        let timeouts = abi::DealTimeouts {
            agree: never.clone(),
            submitResults: never.clone(),
            judgeResults: never.clone(),
            mediateResults: never,
        };
        let zero = [0; 14 * 32];
        let agreement = abi::getAgreementCall::abi_decode_returns(&zero).unwrap();
        assert_eq!(Deadlines::of(&agreement, &timeouts).effective_s(), u64::MAX);
    }

    fn log(contract: Address, event: impl SolEvent) -> ObservedLog {
        let log = event.encode_log_data();
        ObservedLog {
            contract,
            topics: log.topics().to_vec(),
            data: log.data,
            block: BlockRef { number: 1, hash: B256::ZERO },
            block_time_s: 1,
            transaction: B256::ZERO,
            index: 0,
        }
    }

    #[test]
    fn events_count_from_the_contract_whose_they_are() {
        let requested = || abi::MediationRequested { dealId: "Qm".into(), mediator: MEDIATOR };
        let heard = LILYPAD.read(&log(MEDIATION, requested()));
        assert_eq!(heard, Some(LilypadEvent::MediationRequested { deal_id: "Qm".into(), mediator: MEDIATOR }));
        assert_eq!(LILYPAD.read(&log(STORAGE, requested())), None);
        assert_eq!(LILYPAD.read(&log(Address::ZERO, requested())), None);
        let changed = |state| abi::DealStateChange { dealId: "Qm".into(), state };
        let heard = LILYPAD.read(&log(STORAGE, changed(10)));
        let state = DealState::TimeoutMediateResults;
        assert_eq!(heard, Some(LilypadEvent::StateChange { deal_id: "Qm".into(), state }));
        assert_eq!(LILYPAD.read(&log(MEDIATION, changed(5))), None);
        assert_eq!(LILYPAD.read(&log(STORAGE, changed(11))), None, "no such state");
        let added = theirs::MarketCoophiveStorage::ResultAdded {
            dealId: "Qm".into(),
            resultsId: "r".into(),
            dataId: "d".into(),
            instructionCount: U256::from(1),
        };
        let heard = LILYPAD.read(&log(STORAGE, added));
        let (data_id, instruction_count) = ("d".into(), U256::from(1));
        assert_eq!(heard, Some(LilypadEvent::ResultAdded { deal_id: "Qm".into(), data_id, instruction_count }));
    }
}

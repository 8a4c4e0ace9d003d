//! Alkahest as an oracle sees it: what is asked of a `TrustedOracleArbiter`, what the escrow really demands, and the
//! transaction that answers.
//!
//! Requests are hints that anyone may log; nothing in them is believed. What counts is read from the attestations: the
//! fulfillment names its escrow (`refUID`), and the escrow contract that made the escrow's attestation is asked for its
//! arbiter and demand, because their place in the data is its own affair. A demand may sit inside `AllArbiter` or `AnyArbiter`.
//!
//! Source: the ABI of arkhai-io/alkahest 1.0 and, as [`Generation::Old`], of CoopHive/alkahest-mocks; EAS's `Attestation`.

use alloy::{
    network::TransactionBuilder as _,
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
};
use alloy_primitives::{Bytes, keccak256};
use alloy_sol_types::{SolCall, SolEvent as _, SolValue as _, sol};
use serde::{Deserialize, Serialize};
use tribunal_events::{Address, B256, Domain, Signature};

use crate::{ChainFault, ObservedLog, json_rpc::fault};

/// Arbiters inside arbiters at most.
const DEPTH_MAX: usize = 4;
/// Arbiters that one composite may name.
const COMPOSED_MAX: usize = 64;
/// Bytes of a demand or a fulfillment at most.
pub const ITEM_BYTES_MAX: usize = 128 << 10;

#[allow(missing_docs, clippy::too_many_arguments)]
mod abi {
    use super::sol;

    sol! {
        struct Attestation {
            bytes32 uid;
            bytes32 schema;
            uint64 time;
            uint64 expirationTime;
            uint64 revocationTime;
            bytes32 refUID;
            address recipient;
            address attester;
            bool revocable;
            bytes data;
        }
        function getAttestation(bytes32 uid) external view returns (Attestation memory);

        struct OracleDemand { address oracle; bytes data; }
        struct ComposedDemand { address[] arbiters; bytes[] demands; }
        /// What every escrow's data begins with.
        struct Condition { address arbiter; bytes demand; }
        function decodeCondition(bytes data) external pure returns (address arbiter, bytes memory demand);
        function extractArbiterAndDemand(bytes data) external pure returns (address arbiter, bytes memory demand);

        /// What our own arbiter asks for; ITribunalArbiter.sol.
        struct PanelDemand { address[] mediators; uint8 quorum; uint8 minGrade; bytes data; }
        #[derive(Debug)]
        struct Arbitration { bytes32 key; uint8 verdict; uint8 grade; bytes32 digest; }

        struct Item { string item; }
        struct TaggedItem { string item; bytes32 schema; }
        struct Revealed { bytes payload; bytes32 salt; bytes32 schema; }
    }

    pub mod v1 {
        use super::sol;
        sol! {
            function arbitrate(bytes32 fulfillmentUid, bytes demand, bool decision) external;
            function requestArbitration(bytes32 fulfillmentUid, address oracle, bytes demand) external;
            event ArbitrationMade(bytes32 indexed decisionKey, bytes32 indexed fulfillmentUid, address indexed oracle, bool decision);
            event ArbitrationRequested(bytes32 indexed fulfillmentUid, address indexed oracle, bytes demand);
        }
    }

    pub mod panel {
        use super::sol;
        sol! {
            struct PanelVote { address mediator; bytes signature; }
            function decide(bytes32 fulfillmentUid, bytes demand, uint8 verdict, uint8 grade, bytes32 digest, PanelVote[] votes) external;
            function requestArbitration(bytes32 fulfillmentUid, bytes demand) external;
            event ArbitrationRequested(bytes32 indexed key, bytes32 indexed fulfillmentUid, address indexed requester, bytes demand);
            event ArbitrationDecided(bytes32 indexed key, bytes32 indexed fulfillmentUid, uint8 indexed verdict, uint8 grade, bytes32 digest, uint32 voters);
        }
    }

    pub mod old {
        use super::sol;
        sol! {
            function arbitrate(bytes32 obligation, bool decision) external;
            function requestArbitration(bytes32 obligation, address oracle) external;
            event ArbitrationMade(bytes32 indexed obligation, address indexed oracle, bool decision);
            event ArbitrationRequested(bytes32 indexed obligation, address indexed oracle);
        }
    }
}

/// Which ABI a deployment of `TrustedOracleArbiter` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// 1.x: a decision is keyed by fulfillment and demand.
    #[default]
    V1,
    /// Before: a decision is keyed by the fulfillment alone.
    Old,
    /// Our own `TribunalArbiter`: the demand names a panel, and a quorum of its signed votes decides.
    Panel,
}

/// A deployment, and the account that it is asked to decide as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alkahest {
    /// EIP-155 id.
    pub chain_id: u64,
    /// The `TrustedOracleArbiter`.
    pub arbiter: Address,
    /// Its ABI.
    pub generation: Generation,
    /// EAS, where attestations are.
    pub eas: Address,
    /// `AllArbiter`s and `AnyArbiter`s whose demands are looked into.
    pub composites: Vec<Address>,
    /// Escrow contracts that are served; empty: all.
    pub escrows: Vec<Address>,
    /// The oracle, or the mediator on panels.
    pub oracle: Address,
}

/// Who decides together, where it is no oracle alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanelOf {
    /// Ascending.
    pub mediators: Vec<Address>,
    /// How many must agree.
    pub quorum: u8,
}

/// A mediator's word for a panel's decision, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanelWord {
    /// Who.
    pub mediator: Address,
    /// What is decided: fulfillment and demand.
    pub key: B256,
    /// 1 valid, 2 invalid.
    pub verdict: u8,
    /// 0 to 100.
    pub grade: u8,
    /// Verdict digest.
    pub digest: B256,
    /// EIP-712, 65 bytes.
    pub signature: Signature,
}

impl PanelWord {
    /// What is signed for a word at this arbiter.
    pub fn preimage(domain: &Domain, key: B256, verdict: u8, grade: u8, digest: B256) -> [u8; 66] {
        domain.preimage(&abi::Arbitration { key, verdict, grade, digest })
    }

    /// Whether its mediator signed it.
    pub fn is_signed(&self, domain: &Domain) -> bool {
        let Self { mediator, key, verdict, grade, digest, signature } = *self;
        let preimage = Self::preimage(domain, key, verdict, grade, digest);
        signature.recover(keccak256(preimage)).is_ok_and(|signer| signer == mediator)
    }

    /// Whether both say the same, as the contract counts.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.key, it.verdict, it.grade, it.digest);
        of(self) == of(other)
    }
}

/// What an event of the arbiter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OracleEvent {
    /// Somebody asks.
    Requested {
        /// The fulfillment's attestation.
        fulfillment: B256,
        /// The demand that it says it is about; the old generation names none.
        demand: Option<Bytes>,
    },
    /// The oracle's account has decided.
    Made {
        /// The fulfillment's attestation.
        fulfillment: B256,
        /// The key that the contract keeps the decision under; the old generation's is the fulfillment.
        key: B256,
        /// The decision.
        decision: bool,
    },
}

/// Why a request is not decided on. It may be asked again later and be another matter then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotOurs {
    #[error("there is no attestation {0}")]
    NoAttestation(B256),
    #[error("the fulfillment was revoked at {0}")]
    Revoked(u64),
    #[error("the fulfillment expired at {0}")]
    Expired(u64),
    #[error("the fulfillment names no escrow")]
    NoEscrow,
    #[error("the escrow is over: collected, reclaimed or revoked at {0}")]
    EscrowOver(u64),
    #[error("escrow contract {0} is not one of those that are served here")]
    OtherEscrow(Address),
    #[error("the escrow's attester {0} tells no arbiter and demand")]
    NoCondition(Address),
    #[error("the escrow does not ask this oracle through this arbiter, but {0}")]
    OtherArbiter(Address),
    #[error("the escrow asks this oracle something else than the request says")]
    OtherDemand,
    #[error("the escrow asks this oracle {0} things at once, and this arbiter keeps one decision for all")]
    Ambiguous(usize),
    #[error("a demand or fulfillment has {0} bytes, more than {ITEM_BYTES_MAX}")]
    TooLong(usize),
    #[error("the panel is not ascending, has more than 31 members, or a quorum of not more than half")]
    WrongPanel,
    #[error("the fulfillment's data is no text in any layout that is known")]
    NoItem,
}

impl NotOurs {
    /// Whether the same request can ever be decided: attestations do not change, nodes may lag.
    pub const fn for_ever(&self) -> bool {
        !matches!(self, Self::NoAttestation(_))
    }
}

/// What is to be decided, from the chain itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arbitration {
    /// The fulfillment's attestation.
    pub fulfillment: B256,
    /// The escrow's.
    pub escrow: B256,
    /// What the escrow demands of this oracle: the inner `data`.
    pub demand: Bytes,
    /// Who decides together; none where the oracle alone does.
    pub panel: Option<PanelOf>,
    /// What the fulfillment says.
    pub item: String,
    /// Unix time from which the buyer may reclaim; `None`: never.
    pub until_s: Option<u64>,
    /// Who fulfilled.
    pub recipient: Address,
}

impl Alkahest {
    /// First topics of the events that matter.
    pub fn events(&self) -> Vec<B256> {
        match self.generation {
            Generation::V1 => {
                vec![abi::v1::ArbitrationRequested::SIGNATURE_HASH, abi::v1::ArbitrationMade::SIGNATURE_HASH]
            }
            Generation::Old => {
                vec![abi::old::ArbitrationRequested::SIGNATURE_HASH, abi::old::ArbitrationMade::SIGNATURE_HASH]
            }
            Generation::Panel => {
                vec![abi::panel::ArbitrationRequested::SIGNATURE_HASH, abi::panel::ArbitrationDecided::SIGNATURE_HASH]
            }
        }
    }

    /// What an event says, where it is about this oracle.
    pub fn read(&self, log: &ObservedLog) -> Option<OracleEvent> {
        if log.contract != self.arbiter {
            return None;
        }
        match self.generation {
            Generation::V1 => {
                if let Some(it) = log.decode::<abi::v1::ArbitrationRequested>() {
                    let ours = it.oracle == self.oracle && it.demand.len() <= ITEM_BYTES_MAX;
                    return ours
                        .then(|| OracleEvent::Requested { fulfillment: it.fulfillmentUid, demand: Some(it.demand) });
                }
                let it = log.decode::<abi::v1::ArbitrationMade>().filter(|it| it.oracle == self.oracle)?;
                Some(OracleEvent::Made { fulfillment: it.fulfillmentUid, key: it.decisionKey, decision: it.decision })
            }
            Generation::Old => {
                if let Some(it) = log.decode::<abi::old::ArbitrationRequested>() {
                    let ours = it.oracle == self.oracle;
                    return ours.then_some(OracleEvent::Requested { fulfillment: it.obligation, demand: None });
                }
                let it = log.decode::<abi::old::ArbitrationMade>().filter(|it| it.oracle == self.oracle)?;
                Some(OracleEvent::Made { fulfillment: it.obligation, key: it.obligation, decision: it.decision })
            }
            Generation::Panel => {
                if let Some(it) = log.decode::<abi::panel::ArbitrationRequested>() {
                    let ours = it.demand.len() <= ITEM_BYTES_MAX && self.seat(&it.demand).is_some();
                    let demand = Some(it.demand);
                    return ours.then_some(OracleEvent::Requested { fulfillment: it.fulfillmentUid, demand });
                }
                let it = log.decode::<abi::panel::ArbitrationDecided>().filter(|it| matches!(it.verdict, 1 | 2))?;
                Some(OracleEvent::Made { fulfillment: it.fulfillmentUid, key: it.key, decision: it.verdict == 1 })
            }
        }
    }

    /// The panel of a demand on which this account sits.
    fn seat(&self, demand: &[u8]) -> Option<abi::PanelDemand> {
        let it = abi::PanelDemand::abi_decode(demand).ok()?;
        it.mediators.contains(&self.oracle).then_some(it)
    }

    /// The domain in which a panel's words are signed.
    pub fn domain(&self) -> Domain {
        Domain::new(self.chain_id, self.arbiter)
    }

    /// The key under which the contract keeps a decision: keccak-256 of fulfillment and demand, one after the other.
    pub fn key(&self, fulfillment: B256, demand: &[u8]) -> B256 {
        match self.generation {
            Generation::V1 => keccak256([fulfillment.as_slice(), demand].concat()),
            Generation::Old => fulfillment,
            Generation::Panel => {
                let id = alloy_primitives::U256::from(self.chain_id);
                keccak256((id, self.arbiter, fulfillment, keccak256(demand)).abi_encode())
            }
        }
    }

    /// The call by which a panel's words decide.
    ///
    /// # Panics
    /// Without words.
    pub fn decide(&self, fulfillment: B256, demand: &Bytes, words: &[PanelWord]) -> Bytes {
        let mut words: Vec<_> = words.iter().collect();
        words.sort_by_key(|word| word.mediator);
        let one = words.first().expect("somebody says something");
        let vote = |word: &&PanelWord| abi::panel::PanelVote {
            mediator: word.mediator,
            signature: Bytes::copy_from_slice(word.signature.bytes()),
        };
        let call = abi::panel::decideCall {
            fulfillmentUid: fulfillment,
            demand: demand.clone(),
            verdict: one.verdict,
            grade: one.grade,
            digest: one.digest,
            votes: words.iter().map(vote).collect(),
        };
        call.abi_encode().into()
    }

    /// The call by which an oracle decides.
    pub fn arbitrate(&self, fulfillment: B256, demand: &Bytes, decision: bool) -> Bytes {
        match self.generation {
            Generation::V1 | Generation::Panel => {
                abi::v1::arbitrateCall { fulfillmentUid: fulfillment, demand: demand.clone(), decision }.abi_encode()
            }
            Generation::Old => abi::old::arbitrateCall { obligation: fulfillment, decision }.abi_encode(),
        }
        .into()
    }

    /// Reads what is to be decided. `hint`: the demand that the request names.
    ///
    /// # Errors
    /// Where the node cannot be asked; the inner one says why there is nothing to decide.
    pub async fn arbitration(
        &self,
        node: &DynProvider,
        fulfillment: B256,
        hint: Option<&Bytes>,
        now_s: u64,
    ) -> Result<Result<Arbitration, NotOurs>, ChainFault> {
        let Some(it) = self.attestation(node, fulfillment).await? else {
            return Ok(Err(NotOurs::NoAttestation(fulfillment)));
        };
        if it.revocationTime != 0 {
            return Ok(Err(NotOurs::Revoked(it.revocationTime)));
        }
        if it.expirationTime != 0 && it.expirationTime <= now_s {
            return Ok(Err(NotOurs::Expired(it.expirationTime)));
        }
        if it.refUID.is_zero() {
            return Ok(Err(NotOurs::NoEscrow));
        }
        let Some(escrow) = self.attestation(node, it.refUID).await? else {
            return Ok(Err(NotOurs::NoAttestation(it.refUID)));
        };
        if escrow.revocationTime != 0 {
            return Ok(Err(NotOurs::EscrowOver(escrow.revocationTime)));
        }
        if !self.escrows.is_empty() && !self.escrows.contains(&escrow.attester) {
            return Ok(Err(NotOurs::OtherEscrow(escrow.attester)));
        }
        let Some((arbiter, demand)) = condition(node, &escrow).await? else {
            return Ok(Err(NotOurs::NoCondition(escrow.attester)));
        };
        let demand = match self.own_demand(arbiter, &demand, hint) {
            Ok(demand) => demand,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(long) = [demand.len(), it.data.len()].into_iter().find(|bytes| *bytes > ITEM_BYTES_MAX) {
            return Ok(Err(NotOurs::TooLong(long)));
        }
        let Some(item) = item(&it.data) else { return Ok(Err(NotOurs::NoItem)) };
        let (demand, panel) = match self.generation {
            Generation::V1 | Generation::Old => (demand, None),
            Generation::Panel => match self.seat(&demand).and_then(panel_of) {
                Some((data, panel)) => (data, Some(panel)),
                None => return Ok(Err(NotOurs::WrongPanel)),
            },
        };
        Ok(Ok(Arbitration {
            fulfillment,
            escrow: it.refUID,
            demand,
            panel,
            item,
            until_s: (escrow.expirationTime != 0).then_some(escrow.expirationTime),
            recipient: it.recipient,
        }))
    }

    /// What the escrow demands of this oracle.
    fn own_demand(&self, arbiter: Address, demand: &[u8], hint: Option<&Bytes>) -> Result<Bytes, NotOurs> {
        let mut found = Vec::new();
        self.demands(arbiter, demand, DEPTH_MAX, &mut found);
        match (&found[..], hint) {
            ([], _) => Err(NotOurs::OtherArbiter(arbiter)),
            (several, Some(hint)) => several.iter().find(|one| *one == hint).cloned().ok_or(NotOurs::OtherDemand),
            ([one], None) => Ok(one.clone()),
            (several, None) => Err(NotOurs::Ambiguous(several.len())),
        }
    }

    fn demands(&self, arbiter: Address, demand: &[u8], depth: usize, found: &mut Vec<Bytes>) {
        if arbiter == self.arbiter && self.generation == Generation::Panel {
            let demand = Bytes::copy_from_slice(demand);
            if self.seat(&demand).is_some() && !found.contains(&demand) {
                found.push(demand);
            }
        } else if arbiter == self.arbiter {
            if let Ok(it) = abi::OracleDemand::abi_decode(demand)
                && it.oracle == self.oracle
                && !found.contains(&it.data)
            {
                found.push(it.data);
            }
        } else if depth > 0
            && self.composites.contains(&arbiter)
            && let Ok(it) = abi::ComposedDemand::abi_decode(demand)
            && it.arbiters.len() == it.demands.len()
        {
            for (arbiter, demand) in it.arbiters.into_iter().zip(it.demands).take(COMPOSED_MAX) {
                self.demands(arbiter, &demand, depth - 1, found);
            }
        }
    }

    async fn attestation(&self, node: &DynProvider, uid: B256) -> Result<Option<abi::Attestation>, ChainFault> {
        let answer = call(node, self.eas, abi::getAttestationCall { uid }.abi_encode()).await?;
        let decoded = answer.as_ref().map(|bytes| abi::getAttestationCall::abi_decode_returns(bytes));
        match decoded {
            Some(Ok(it)) if it.uid == uid => Ok(Some(it)),
            Some(Ok(it)) if it.uid.is_zero() => Ok(None),
            _ => {
                let problem = format!("{} does not answer as EAS does about {uid}", self.eas);
                Err(ChainFault::Unexpected { what: "attestation", problem })
            }
        }
    }
}

/// A demand that the contract can ever decide.
fn panel_of(demand: abi::PanelDemand) -> Option<(Bytes, PanelOf)> {
    let abi::PanelDemand { mediators, quorum, minGrade, data } = demand;
    let ascending = mediators.windows(2).all(|pair| pair[0] < pair[1]);
    let majority = usize::from(quorum) * 2 > mediators.len() && usize::from(quorum) <= mediators.len();
    let fits = ascending && majority && mediators.len() <= 31 && minGrade <= 100;
    fits.then_some((data, PanelOf { mediators, quorum }))
}

/// Arbiter and demand of an escrow, as the contract that made it tells them.
async fn condition(node: &DynProvider, escrow: &abi::Attestation) -> Result<Option<(Address, Bytes)>, ChainFault> {
    let code = node.get_code_at(escrow.attester).await.map_err(|error| fault("escrow", error))?;
    if code.is_empty() {
        return Ok(None);
    }
    let data = escrow.data.clone();
    let asked = abi::decodeConditionCall { data: data.clone() }.abi_encode();
    if let Some(answer) = call(node, escrow.attester, asked).await?
        && let Ok(it) = abi::decodeConditionCall::abi_decode_returns(&answer)
    {
        return Ok(Some((it.arbiter, it.demand)));
    }
    let asked = abi::extractArbiterAndDemandCall { data: data.clone() }.abi_encode();
    if let Some(answer) = call(node, escrow.attester, asked).await?
        && let Ok(it) = abi::extractArbiterAndDemandCall::abi_decode_returns(&answer)
    {
        return Ok(Some((it.arbiter, it.demand)));
    }
    // The first escrow contracts tell nothing; their data begins with both.
    Ok(abi::Condition::abi_decode(&data).ok().map(|it| (it.arbiter, it.demand)))
}

/// Asks a contract; `None` where it reverts.
pub(crate) async fn call(node: &DynProvider, to: Address, data: Vec<u8>) -> Result<Option<Bytes>, ChainFault> {
    let request = TransactionRequest::default().with_to(to).with_input(data);
    match node.call(request).await.map_err(|error| fault("call", error)) {
        Ok(answer) => Ok(Some(answer)),
        Err(ChainFault::Reverted { .. } | ChainFault::Insufficient { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The text of a fulfillment: a string obligation with or without a tag, or what a commit-reveal obligation revealed.
fn item(data: &[u8]) -> Option<String> {
    // Where the first member is: that tells how many there are.
    let first = data.get(32..64)?;
    let (zero, last) = first.split_at(31);
    if zero.iter().any(|byte| *byte != 0) {
        return None;
    }
    match last[0] {
        32 => abi::Item::abi_decode(data).ok().map(|it| it.item),
        64 => abi::TaggedItem::abi_decode(data).ok().map(|it| it.item),
        96 => {
            let payload = abi::Revealed::abi_decode(data).ok()?.payload;
            String::abi_decode(&payload).ok().or_else(|| String::from_utf8(payload.to_vec()).ok())
        }
        _ => None,
    }
}

/// Calls of the parties, for tests and tools.
pub mod calls {
    pub use super::abi::{
        Attestation, ComposedDemand, Condition, Item, OracleDemand, PanelDemand, Revealed, TaggedItem,
        getAttestationCall, old, panel, v1,
    };
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, hex};

    use super::*;

    const ORACLE: Address = address!("00000000000000000000000000000000000000aa");
    const ARBITER: Address = address!("00000000000000000000000000000000000000bb");
    const ALL: Address = address!("00000000000000000000000000000000000000cc");

    fn alkahest(generation: Generation) -> Alkahest {
        Alkahest {
            chain_id: 31337,
            arbiter: ARBITER,
            generation,
            eas: Address::ZERO,
            composites: vec![ALL],
            escrows: Vec::new(),
            oracle: ORACLE,
        }
    }

    fn ours(data: &[u8]) -> Bytes {
        abi::OracleDemand { oracle: ORACLE, data: data.to_vec().into() }.abi_encode().into()
    }

    /// Selectors and topics as the field's own tools compute them.
    #[test]
    fn both_generations_have_their_selectors_and_topics() {
        assert_eq!(abi::v1::arbitrateCall::SELECTOR, hex!("fcb0c390"));
        assert_eq!(abi::v1::requestArbitrationCall::SELECTOR, hex!("6f6bd32b"));
        assert_eq!(abi::old::arbitrateCall::SELECTOR, hex!("8c08667e"));
        assert_eq!(abi::old::requestArbitrationCall::SELECTOR, hex!("ef9fb71d"));
        let [requested, made] = alkahest(Generation::V1).events()[..] else { panic!() };
        assert_eq!(made.0, hex!("bbe9caf8b56a2139bcb80c791657954e2e1ddfad0cf3725d0ce16838a46752d1"));
        assert_eq!(requested.0, hex!("5a87a605f49708d9bbadaa74684a5e23583375d9ed010cda2db60567202de60b"));
        assert_ne!(alkahest(Generation::Old).events(), vec![requested, made]);
    }

    #[test]
    fn a_demand_is_found_inside_composites_and_must_be_the_one_that_is_asked_about() {
        let it = alkahest(Generation::V1);
        let other = abi::OracleDemand { oracle: Address::ZERO, data: vec![9].into() }.abi_encode().into();
        let inner = abi::ComposedDemand { arbiters: vec![ARBITER], demands: vec![ours(b"b")] };
        let outer = abi::ComposedDemand {
            arbiters: vec![ARBITER, ARBITER, ALL, Address::ZERO],
            demands: vec![ours(b"a"), other, inner.abi_encode().into(), ours(b"c")],
        };
        let demand = outer.abi_encode();
        for (hint, expected) in [
            (Some(&b"a"[..]), Ok(Bytes::from(b"a".to_vec()))),
            (Some(b"b"), Ok(b"b".to_vec().into())),
            (Some(b"c"), Err(NotOurs::OtherDemand)),
            (None, Err(NotOurs::Ambiguous(2))),
        ] {
            let hint = hint.map(|hint| Bytes::from(hint.to_vec()));
            assert_eq!(it.own_demand(ALL, &demand, hint.as_ref()), expected);
        }
        assert_eq!(it.own_demand(Address::ZERO, &ours(b"a"), None), Err(NotOurs::OtherArbiter(Address::ZERO)));
        assert_eq!(it.own_demand(ARBITER, b"rubbish", None), Err(NotOurs::OtherArbiter(ARBITER)));
        let mut nested = ours(b"a");
        let mut arbiter = ARBITER;
        for _ in 0..=DEPTH_MAX {
            nested = abi::ComposedDemand { arbiters: vec![arbiter], demands: vec![nested] }.abi_encode().into();
            arbiter = ALL;
        }
        assert_eq!(it.own_demand(ALL, &nested, None), Err(NotOurs::OtherArbiter(ALL)), "deeper than is looked");
    }

    #[test]
    fn a_fulfillments_text_is_read_in_every_layout() {
        let text = || "{}".to_owned();
        let tag = B256::repeat_byte(7);
        let revealed =
            |payload: Vec<u8>| abi::Revealed { payload: payload.into(), salt: tag, schema: tag }.abi_encode();
        for data in [
            abi::Item { item: text() }.abi_encode(),
            abi::TaggedItem { item: text(), schema: tag }.abi_encode(),
            revealed(text().into_bytes()),
            revealed(text().abi_encode()),
        ] {
            assert_eq!(item(&data).as_deref(), Some("{}"), "{}", hex::encode(&data));
            for cut in 0..data.len() {
                let _ = item(&data[..cut]);
            }
        }
        assert_eq!(item(&[]), None);
        assert_eq!(item(&[0xff; 96]), None);
        assert_eq!(item(&revealed(vec![0xff, 0xfe])), None);
    }
}

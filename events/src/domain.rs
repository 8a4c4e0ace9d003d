use alloy_primitives::{Address, B256};
use alloy_sol_types::{Eip712Domain, SolStruct, sol};

use crate::{DealId, EventId, ReceiptStatus, VerdictKind};

mod typed {
    use super::sol;
    sol! {
        #[derive(Debug, PartialEq, Eq)]
        struct DealEvent { bytes32 dealId; bytes32 eventHash; }
        #[derive(Debug, PartialEq, Eq)]
        struct Terms {
            bytes32 dealId; address client; address provider; address token; address treasury; uint256 price;
            uint8 pricing; uint256 paymentCollateral; uint256 resultsCollateral; uint256 submitCollateral;
            uint256 judgeCollateral; uint256 mediationFee; uint16 victimBps; uint16 feeBps; bytes32 mediatorsHash;
            bytes32 timeoutsHash; uint32 rule;
        }
        #[derive(Debug, PartialEq, Eq)]
        struct Verdict { bytes32 termsHash; uint32 round; uint8 verdict; uint64 instructionCount; bytes32 digest; }
        #[derive(Debug, PartialEq, Eq)]
        struct Report { bytes32 requestDigest; bytes32 verdictDigest; }
        #[derive(Debug, PartialEq, Eq)]
        struct Receipt { bytes32 eventId; uint64 streamVersion; uint64 logPosition; uint8 status; }
        #[derive(Debug, PartialEq, Eq)]
        struct Move { bytes32 termsHash; uint8 action; uint64 instructionCount; bytes32 data; }
        #[derive(Debug, PartialEq, Eq)]
        struct Panel { bytes32 termsHash; uint32 round; bytes32 panelHash; }
        #[derive(Debug, PartialEq, Eq)]
        struct Silence { bytes32 termsHash; uint32 round; bytes32 silentHash; }
        #[derive(Debug, PartialEq, Eq)]
        struct Update { bytes32 task; address source; uint64 weight; bytes32 contentHash; }
        #[derive(Debug, PartialEq, Eq)]
        struct LogKey { string origin; bytes32 publicKey; }
        #[derive(Debug, PartialEq, Eq)]
        struct WorkResult { bytes32 requestDigest; bytes32 resultHash; }
        #[derive(Debug, PartialEq, Eq)]
        struct LogHead { string stream; uint64 records; bytes32 root; string holder; }
    }
}

/// EIP-712 `LogHead`: an operator's word to its own engines on how far the log of a stream of events is released, by whom.
pub use typed::LogHead as LogHeadStruct;
/// EIP-712 `LogKey`: an operator's word on the key that signs its log's checkpoints.
pub(crate) use typed::LogKey as LogKeyStruct;
/// EIP-712 `Move`: what a party does in the contract, signed so that anyone can relay it.
pub use typed::Move;
/// EIP-712 `Panel`: the operator's word on who was drawn; `panelHash` is `keccak256(abi.encode(address[]))`.
pub use typed::Panel as PanelStruct;
/// EIP-712 `Report`: a verification service's answer to a request. Moves no money.
pub use typed::Report as ReportStruct;
/// EIP-712 `Silence`: the operator's word on who of a round said nothing in time; hashed like a panel.
pub use typed::Silence as SilenceStruct;
/// EIP-712 `Terms`: the money of a deal as contracts see it; its struct hash is the deal's `termsHash`.
pub use typed::Terms as TermsStruct;
/// EIP-712 `Update`: a source's word on what it observed or trained. `task` is the deal id or zero, `contentHash` BLAKE3 of
/// the bytes. Signed in the domain without a contract; moves no money.
pub use typed::Update as UpdateStruct;
/// EIP-712 `Verdict`: a mediator's vote in a recorded dispute. Never signed for anything else.
pub use typed::Verdict as VerdictStruct;
/// EIP-712 `WorkResult`: a worker's word to its operator's engines on what came of a verification; `resultHash` is the BLAKE3
/// of the bytes it sends.
pub use typed::WorkResult as WorkResultStruct;

/// What a [`Move`] does, and what its `data` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MoveAction {
    /// Agrees to the terms; data: seed commitment, `keccak256(seed)`, zero where nobody is drawn.
    Agree = 1,
    /// Submits the result; data: BLAKE3 of the encoded claim.
    Submit = 2,
    /// Accepts the result; data: zero.
    Accept = 3,
    /// Disputes the result; data: zero.
    Dispute = 4,
    /// Reveals the seed of the draw; data: the seed.
    Reveal = 5,
    /// Withdraws, if the other party does too; data: zero.
    Withdraw = 6,
}

/// The EIP-712 domain `{name: "Tribunal", version: "1", chainId, verifyingContract}` that a deal's signatures live in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    chain_id: u64,
    contract: Address,
    /// Hash of the domain, the same in every digest: made once.
    separator: B256,
}

impl Default for Domain {
    /// The domain of deals without a contract.
    fn default() -> Self {
        Self::new(0, Address::ZERO)
    }
}

impl Domain {
    /// The domain of deals whose money is in `contract` on chain `chain_id`; 0 and the zero address without one.
    pub fn new(chain_id: u64, contract: Address) -> Self {
        let domain = Eip712Domain {
            name: Some("Tribunal".into()),
            version: Some("1".into()),
            chain_id: Some(alloy_primitives::U256::from(chain_id)),
            verifying_contract: Some(contract),
            salt: None,
        };
        Self { chain_id, contract, separator: domain.separator() }
    }

    /// The chain that holds the money, 0 for none.
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The contract that holds the money, zero for none.
    pub const fn contract(&self) -> Address {
        self.contract
    }

    /// Whether a contract holds the money.
    pub const fn on_chain(&self) -> bool {
        self.chain_id != 0
    }

    /// The digest to sign for a typed struct in this domain: keccak256 of [`Domain::preimage`].
    pub fn digest<T: SolStruct>(&self, value: &T) -> B256 {
        alloy_primitives::keccak256(self.preimage(value))
    }

    /// What is hashed for a typed struct in this domain: `0x19 0x01 || domain separator || struct hash` (EIP-712).
    pub fn preimage<T: SolStruct>(&self, value: &T) -> [u8; 66] {
        let mut message = [0; 66];
        message[..2].copy_from_slice(&[0x19, 0x01]);
        message[2..34].copy_from_slice(self.separator.as_slice());
        message[34..].copy_from_slice(value.eip712_hash_struct().as_slice());
        message
    }

    /// The digest that the sender of an event signs.
    pub fn event_digest(&self, deal: &DealId, event: &EventId) -> B256 {
        alloy_primitives::keccak256(self.event_preimage(deal, event))
    }

    /// The preimage of [`Domain::event_digest`].
    pub fn event_preimage(&self, deal: &DealId, event: &EventId) -> [u8; 66] {
        self.preimage(&typed::DealEvent { dealId: B256::new(*deal.bytes()), eventHash: B256::new(*event.bytes()) })
    }

    /// The digest that both parties sign for the money of a deal.
    pub fn terms_digest(&self, terms: &TermsStruct) -> B256 {
        self.digest(terms)
    }

    /// The digest that a mediator signs in a recorded dispute.
    pub fn verdict_digest(
        &self,
        terms_hash: B256,
        round: u32,
        verdict: VerdictKind,
        instruction_count: u64,
        digest: B256,
    ) -> B256 {
        alloy_primitives::keccak256(self.verdict_preimage(terms_hash, round, verdict, instruction_count, digest))
    }

    /// The preimage of [`Domain::verdict_digest`].
    pub fn verdict_preimage(
        &self,
        terms_hash: B256,
        round: u32,
        verdict: VerdictKind,
        instruction_count: u64,
        digest: B256,
    ) -> [u8; 66] {
        self.preimage(&VerdictStruct {
            termsHash: terms_hash,
            round,
            verdict: verdict as u8,
            instructionCount: instruction_count,
            digest,
        })
    }

    /// The digest that a party signs to act in the contract.
    pub fn move_digest(&self, terms_hash: B256, action: MoveAction, instruction_count: u64, data: B256) -> B256 {
        self.digest(&Move { termsHash: terms_hash, action: action as u8, instructionCount: instruction_count, data })
    }

    /// The digest that an operator signs for a receipt.
    pub fn receipt_digest(&self, event: &EventId, version: u64, position: u64, status: ReceiptStatus) -> B256 {
        self.digest(&typed::Receipt {
            eventId: B256::new(*event.bytes()),
            streamVersion: version,
            logPosition: position,
            status: status as u8,
        })
    }

    /// The digest that an operator signs for a drawn panel.
    pub fn panel_digest(&self, terms_hash: B256, round: u32, panel: &[Address]) -> B256 {
        self.digest(&PanelStruct { termsHash: terms_hash, round, panelHash: addresses_hash(panel) })
    }

    /// The digest that an operator signs for the silent ones of a round.
    pub fn silence_digest(&self, terms_hash: B256, round: u32, silent: &[Address]) -> B256 {
        self.digest(&SilenceStruct { termsHash: terms_hash, round, silentHash: addresses_hash(silent) })
    }
}

/// `keccak256(abi.encode(address[]))`.
pub(crate) fn addresses_hash(addresses: &[Address]) -> B256 {
    use alloy_sol_types::SolValue;
    alloy_primitives::keccak256(addresses.to_vec().abi_encode())
}

use alloy_primitives::{Address, B256};

use crate::{DealId, proto};

/// Bytes that a deal's id in its marketplace may have.
pub const FOREIGN_ID_BYTES_MAX: usize = 512;
/// Bytes of a log's data, or of an answer, at most.
const DATA_BYTES_MAX: usize = 64 * 1024;

/// A marketplace whose past deals are imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Marketplace {
    /// Lilypad v2 and CoopHive v1, which have one ABI.
    Lilypad,
}

impl Marketplace {
    /// The word in the schema.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lilypad => "lilypad",
        }
    }
}

/// Which of a marketplace's contracts spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignRole {
    /// Keeps deals, agreements and results.
    Storage,
    /// Takes money in and gives it out.
    Payments,
    /// Asks mediators.
    Mediation,
}

impl ForeignRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Storage, Self::Payments, Self::Mediation];

    /// The word in the schema.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Payments => "payments",
            Self::Mediation => "mediation",
        }
    }
}

/// A view of the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignCall {
    /// What was agreed; never changes.
    GetDeal,
    /// What the provider gave; never changes once it is there.
    GetResult,
}

impl ForeignCall {
    /// Both.
    pub const ALL: [Self; 2] = [Self::GetDeal, Self::GetResult];

    /// Its name in the ABI.
    pub const fn word(self) -> &'static str {
        match self {
            Self::GetDeal => "getDeal",
            Self::GetResult => "getResult",
        }
    }
}

/// What another marketplace's contract said, or answered, about one of its deals: raw, as a node gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Whose.
    pub marketplace: Marketplace,
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// The contract that keeps the marketplace's deals: with chain and foreign id it names the deal.
    pub storage: Address,
    /// The deal's id there.
    pub foreign_id: String,
    /// Who said it.
    pub contract: Address,
    /// As what.
    pub role: ForeignRole,
    /// In which block.
    pub block: u64,
    /// The block's hash.
    pub block_hash: B256,
    /// The block's unix time, where it is known.
    pub block_time_s: Option<u64>,
    /// What.
    pub said: ForeignSaid,
}

/// A log or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignSaid {
    /// An event of a contract.
    Log {
        /// Its transaction.
        transaction: B256,
        /// Its index in the block.
        index: u64,
        /// Topics, the signature's hash first.
        topics: Vec<B256>,
        /// The rest, ABI-encoded.
        data: Vec<u8>,
    },
    /// What a view of the storage answered at the block.
    Answer {
        /// Which view.
        call: ForeignCall,
        /// ABI-encoded.
        data: Vec<u8>,
    },
}

impl Foreign {
    /// The id under which the deal is recorded here.
    pub fn deal_id(&self) -> DealId {
        DealId::imported(self.chain_id, &self.storage, &self.foreign_id)
    }

    /// Checks the shape of a decoded message.
    pub(crate) fn parse(it: proto::ForeignObserved) -> Result<Self, String> {
        use proto::foreign_observed::Said;
        let field = |name: &str| format!("foreign_observed.{name}");
        let bytes32 = |name: &str, bytes: &[u8]| {
            bytes.try_into().map(B256::new).map_err(|_| format!("{} has 32 bytes, not {}", field(name), bytes.len()))
        };
        let address = |name: &str, bytes: &[u8]| match bytes.len() {
            20 => Ok(Address::from_slice(bytes)),
            other => Err(format!("{} has 20 bytes, not {other}", field(name))),
        };
        let bounded = |name: &str, data: Vec<u8>| match data.len() {
            length if length <= DATA_BYTES_MAX => Ok(data),
            length => Err(format!("{} has at most {DATA_BYTES_MAX} bytes, not {length}", field(name))),
        };
        if it.marketplace != Marketplace::Lilypad.word() {
            return Err(format!("{}: {:?} is no marketplace known here", field("marketplace"), it.marketplace));
        }
        if !(1..=FOREIGN_ID_BYTES_MAX).contains(&it.foreign_id.len()) {
            let length = it.foreign_id.len();
            return Err(format!("{} has 1 to {FOREIGN_ID_BYTES_MAX} bytes, not {length}", field("foreign_id")));
        }
        let role = ForeignRole::ALL.into_iter().find(|role| role.word() == it.role);
        let said = match it.said {
            None => return Err(format!("{} is missing", field("said"))),
            Some(Said::Log(log)) => {
                if log.topics.len() > 4 {
                    return Err(format!("{} has at most 4 entries, not {}", field("log.topics"), log.topics.len()));
                }
                ForeignSaid::Log {
                    transaction: bytes32("log.transaction", &log.transaction)?,
                    index: log.index,
                    topics: log.topics.iter().map(|topic| bytes32("log.topics", topic)).collect::<Result<_, _>>()?,
                    data: bounded("log.data", log.data)?,
                }
            }
            Some(Said::Answer(answer)) => {
                let call = ForeignCall::ALL.into_iter().find(|call| call.word() == answer.call);
                let call = call.ok_or_else(|| format!("{}: {:?} is no view", field("answer.call"), answer.call))?;
                ForeignSaid::Answer { call, data: bounded("answer.data", answer.data)? }
            }
        };
        Ok(Self {
            marketplace: Marketplace::Lilypad,
            chain_id: it.chain_id,
            storage: address("storage", &it.storage)?,
            foreign_id: it.foreign_id,
            contract: address("contract", &it.contract)?,
            role: role.ok_or_else(|| format!("{}: {:?} is no role", field("role"), it.role))?,
            block: it.block,
            block_hash: bytes32("block_hash", &it.block_hash)?,
            block_time_s: (it.block_time_s > 0).then_some(it.block_time_s),
            said,
        })
    }

    /// The message of the schema.
    pub fn message(&self) -> proto::ForeignObserved {
        use proto::foreign_observed::Said;
        let said = match &self.said {
            ForeignSaid::Log { transaction, index, topics, data } => Said::Log(proto::ForeignLog {
                transaction: transaction.to_vec(),
                index: *index,
                topics: topics.iter().map(|topic| topic.to_vec()).collect(),
                data: data.clone(),
            }),
            ForeignSaid::Answer { call, data } => {
                Said::Answer(proto::ForeignAnswer { call: call.word().into(), data: data.clone() })
            }
        };
        proto::ForeignObserved {
            marketplace: self.marketplace.word().into(),
            chain_id: self.chain_id,
            storage: self.storage.to_vec(),
            foreign_id: self.foreign_id.clone(),
            contract: self.contract.to_vec(),
            role: self.role.word().into(),
            block: self.block,
            block_hash: self.block_hash.to_vec(),
            block_time_s: self.block_time_s.unwrap_or_default(),
            said: Some(said),
        }
    }

    /// The whole event, without its sender.
    pub fn event(&self) -> proto::Event {
        proto::Event {
            schema_version: 1,
            deal_id: self.deal_id().bytes().to_vec(),
            sender: Vec::new(),
            kind: Some(proto::event::Kind::ForeignObserved(self.message())),
        }
    }
}

//! Only one history of a stream's events leaves this operator's machines.
//!
//! Before anything of a batch is released (receipts, effects, what readers see), the writer says on the bus how far its log
//! goes and with which root, in a message that follows the last such message by compare-and-swap (stream `FENCES`, subject
//! `fences.<operator>.<stream of events>`). Two engines that write the same stream cannot both do so: the one that comes
//! second finds another head than its own, and stops before it has released anything.
//!
//! What is released are the prefixes of one log, whoever released them: an engine that starts must hold the records that were
//! released last, with the same root. So a copy of the store can take over at any moment, and a copy that is older cannot
//! sign receipts that contradict those which were given.
//!
//! A broker that lost its tail may show an older head than was released. The store that released more goes on from it; a
//! second store that has no more than the older head could go on too, so strictness rests on the bus keeping what it took
//! (replicas, synced writes; see the README).
//!
//! **Invariant:** a batch is released only after its head is on the bus, as the successor of this engine's last one.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tribunal_events::{Address, B256, Domain, LogHeadStruct, Signature, Signer, SignerFault, SigningKey};

use crate::{
    bus::{Bus, BusFault, FENCES},
    store::{Store, StoreFault},
};

/// Wait before the bus is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Bytes of a head at most.
const HEAD_BYTES_MAX: usize = 4096;

/// Why nothing may be released.
#[derive(Debug, thiserror::Error)]
pub enum FenceFault {
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusFault),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The operator's signer failed.
    #[error(transparent)]
    Signer(#[from] SignerFault),
    /// Records were released that are not here.
    #[error(
        "{released} records of stream {stream} were released by {holder}, and this store holds {found}: start from the store that holds them or a newer backup; where it is lost for good, `tribunal serve --take-over` goes on from here, and receipts of the lost records hold no longer"
    )]
    Behind {
        /// The stream of events.
        stream: String,
        /// Records released.
        released: u64,
        /// Who released them.
        holder: String,
        /// Records here.
        found: u64,
    },
    /// Other records were released than are here.
    #[error(
        "the first {released} records here are not those that {holder} released of stream {stream}: this store is another history and must not go on; `tribunal serve --take-over` goes on all the same, where the other one is lost for good"
    )]
    Forked {
        /// The stream of events.
        stream: String,
        /// Records released.
        released: u64,
        /// Who released them.
        holder: String,
    },
    /// Another engine has taken over.
    #[error(
        "{holder} writes stream {stream} now ({released} records): this engine released nothing after that and stops"
    )]
    TakenOver {
        /// The stream of events.
        stream: String,
        /// Records released there.
        released: u64,
        /// By whom.
        holder: String,
    },
}

/// What stands on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    stream: String,
    #[serde(with = "text")]
    records: u64,
    root: B256,
    holder: String,
    signature: Signature,
}

mod text {
    pub(super) fn serialize<S: serde::Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text: String = serde::Deserialize::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Head {
    fn sign(stream: &str, records: u64, root: B256, holder: &str, operator: &SigningKey) -> Result<Self, SignerFault> {
        let (stream, holder) = (stream.to_owned(), holder.to_owned());
        let typed = LogHeadStruct { stream: stream.clone(), records, root, holder: holder.clone() };
        let signature = operator.sign_preimage(&Domain::default().preimage(&typed))?;
        Ok(Self { stream, records, root, holder, signature })
    }

    /// A head that this operator signed for this stream.
    fn read(bytes: &[u8], stream: &str, operator: Address) -> Option<Self> {
        let head: Self = serde_json::from_slice(bytes.get(..bytes.len().min(HEAD_BYTES_MAX))?).ok()?;
        let (said, holder) = (head.stream.clone(), head.holder.clone());
        let typed = LogHeadStruct { stream: said, records: head.records, root: head.root, holder };
        let signer = head.signature.recover(Domain::default().digest(&typed)).ok()?;
        (signer == operator && head.stream == stream).then_some(head)
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a head has a JSON form")
    }
}

/// The right to release what a writer recorded.
pub struct Fence {
    bus: Arc<dyn Bus>,
    store: Store,
    operator: SigningKey,
    subject: String,
    holder: String,
    /// Sequence of the own last head.
    last: u64,
}

impl Fence {
    /// Takes over the stream of events of this bus for this store. `holder` names this run of the engine and is used once.
    /// With `take_over` whatever was released before counts for nothing.
    ///
    /// # Errors
    /// [`FenceFault::Behind`], [`FenceFault::Forked`]: this store may not go on.
    pub async fn take(
        bus: Arc<dyn Bus>,
        store: Store,
        operator: SigningKey,
        holder: String,
        take_over: bool,
    ) -> Result<Self, FenceFault> {
        let subject = format!("fences.{:#x}.{}", operator.address(), bus.stream());
        let mut fence = Self { bus, store, operator, subject, holder, last: 0 };
        loop {
            let (sequence, head) = fence.standing().await?;
            if let Some(head) = head.filter(|_| !take_over) {
                fence.check(&head)?;
                if head.records > 0 {
                    tracing::info!(records = head.records, former = head.holder, "the record was released up to here");
                }
            }
            fence.last = sequence;
            let head = fence.head()?;
            if let Some(taken) = fence.bus.publish_after(FENCES, &fence.subject, sequence, head.bytes().into()).await? {
                fence.last = taken;
                return Ok(fence);
            }
        }
    }

    /// Says how far the log goes now, and gives that. Returns once it is on the bus, however long that takes.
    ///
    /// # Errors
    /// [`FenceFault::TakenOver`]; then nothing may be released any more.
    pub async fn advance(&mut self) -> Result<u64, FenceFault> {
        let head = self.head()?;
        let mut pause = RETRY_FIRST;
        loop {
            match self.bus.publish_after(FENCES, &self.subject, self.last, head.bytes().into()).await {
                Ok(Some(taken)) => {
                    self.last = taken;
                    return Ok(head.records);
                }
                Ok(None) => match self.standing().await {
                    // The answer to an earlier attempt was lost.
                    Ok((sequence, Some(standing))) if standing == head => {
                        self.last = sequence;
                        return Ok(head.records);
                    }
                    Ok((sequence, standing)) => match standing.filter(|it| it.holder != self.holder) {
                        Some(other) => {
                            let (stream, released) = (other.stream, other.records);
                            return Err(FenceFault::TakenOver { stream, released, holder: other.holder });
                        }
                        // The broker lost what it took, or somebody wrote what is no head.
                        None => self.last = sequence,
                    },
                    Err(fault) => tracing::warn!(%fault, "the bus cannot be asked who writes; nothing is released"),
                },
                Err(fault) => {
                    tracing::warn!(%fault, "the bus cannot be told how far the log goes; nothing is released")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// The last message on the subject, 0 for none, and the head in it, if it is one.
    async fn standing(&self) -> Result<(u64, Option<Head>), BusFault> {
        let found = self.bus.find(FENCES, &self.subject).await?;
        let Some(message) = found else { return Ok((0, None)) };
        let head = Head::read(&message.payload, self.bus.stream(), self.operator.address());
        if head.is_none() {
            tracing::error!(
                subject = self.subject,
                "a message that is no head of a log stands here; who may write here?"
            );
        }
        Ok((message.stream_sequence, head))
    }

    fn head(&self) -> Result<Head, FenceFault> {
        let records = self.store.last_position();
        let root = self.store.tree_root(records)?.expect("as many records as there are");
        Ok(Head::sign(self.bus.stream(), records, B256::new(root), &self.holder, &self.operator)?)
    }

    fn check(&self, head: &Head) -> Result<(), FenceFault> {
        let (stream, released, holder) = (head.stream.clone(), head.records, head.holder.clone());
        match self.store.tree_root(released)? {
            None => Err(FenceFault::Behind { stream, released, holder, found: self.store.last_position() }),
            Some(root) if B256::new(root) != head.root => Err(FenceFault::Forked { stream, released, holder }),
            Some(_) => Ok(()),
        }
    }
}

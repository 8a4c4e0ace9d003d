//! The conveyor: signed events in, receipts, verdicts and refusals out. Over NATS JetStream, or in process.
//!
//! Start at [`Bus`]. [`NatsBus`] and [`InProcessBus`] behave alike; the tests run over both. [`NatsServer`] starts a
//! private nats-server.
//!
//! **Invariant:** the bus is never the record. What it lost or repeats the store makes harmless; what it replaced by
//! something else under the same sequence numbers is noticed ([`ConsumeStart::Restarted`]) and read from the beginning.
//! **Invariant:** a consumer hands out messages in the order of their sequence, each once in an incarnation.

mod fault;
mod in_process;
mod message;
mod nats;
mod partitioning;
mod server;
mod subject;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{future::BoxFuture, stream::BoxStream};
use prost::bytes::Bytes;

pub(crate) use self::nats::timestamp;
pub use self::{
    fault::BusFault,
    in_process::{InProcessBus, InProcessLimits},
    message::{HEADER_MESSAGE_ID, HEADER_RECORDED_AT, Message, Notice, Outgoing, message_hash},
    nats::{NatsBus, NatsConfig},
    partitioning::BusPartition,
    server::{NATS_SERVER_INSTALL, NatsServer, NatsServerFault, NatsServerOptions},
};
pub use crate::store::Cursor;

/// The stream of signed events.
pub const DEALS: &str = "DEALS";
/// The stream of signed verdicts.
pub const VERDICTS: &str = "VERDICTS";
/// The stream of signed receipts and refusals.
pub const RECEIPTS: &str = "RECEIPTS";
/// The stream of what was not admitted.
pub const REFUSED: &str = "REFUSED";
/// The stream in which engines claim what only one of them may do: one message a subject, for ever.
pub const SLOTS: &str = "SLOTS";

/// The stream in which engines say how far their logs are released: see [`crate::fence`].
pub const FENCES: &str = "FENCES";
/// The work queue of verifications.
pub const WORK: &str = "WORK";
/// The stream of what workers found.
pub const RESULTS: &str = "RESULTS";

/// The bus de-duplicates message ids over this time.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A message bus with durable streams.
pub trait Bus: Send + Sync {
    /// Publishes a message and gives its sequence in its stream once the bus has taken it; that of the first time for a
    /// message id seen within [`DUPLICATE_WINDOW`].
    fn publish(&self, out: Outgoing) -> BoxFuture<'_, Result<u64, BusFault>>;

    /// Reads the stream of events after a cursor, or from its beginning.
    fn consume(&self, after: Option<Cursor>) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusFault>>;

    /// Sequence of the last message in the stream of events; 0 in an empty one.
    fn last(&self) -> BoxFuture<'_, Result<u64, BusFault>>;

    /// The last message on exactly this subject of a stream.
    fn find<'a>(&'a self, stream: &'a str, subject: &'a str) -> BoxFuture<'a, Result<Option<Message>, BusFault>>;

    /// The first valid message ever published on a subject of [`SLOTS`]; publishes these bytes, which must be valid, where
    /// there is none. Anybody can publish there: only `valid` tells what counts.
    fn claim<'a>(
        &'a self,
        subject: &'a str,
        bytes: Bytes,
        valid: &'a (dyn Fn(&[u8]) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<Bytes, BusFault>>;

    /// Publishes the message that follows message `after` (0: none) on its subject, and gives its sequence; nothing where
    /// another one does already, which may be these very bytes where an earlier answer was lost.
    fn publish_after<'a>(
        &'a self,
        stream: &'a str,
        subject: &'a str,
        after: u64,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Option<u64>, BusFault>>;

    /// What is published on subjects that match (`*` one token, `>` the rest) from the moment this returns. Not durable:
    /// messages published while the connection is down are missed, so look with [`Bus::find`] as well.
    fn watch<'a>(&'a self, filter: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Notice>, BusFault>>;

    /// What this is, for people: address, version, stream.
    fn describe(&self) -> String;

    /// Name of the stream of events: what a cursor is kept under.
    fn stream(&self) -> &str;

    /// Whether the bus can be reached right now.
    fn connected(&self) -> bool;

    /// What happened to the connection and to the stream of events so far.
    fn counts(&self) -> Arc<BusCounts> {
        Arc::default()
    }
}

/// What happened to a bus since the start.
#[derive(Debug, Default)]
pub struct BusCounts {
    /// Connections made, the first one included.
    pub connections: AtomicU64,
    /// Consumers that the server lost, or that lost a message on the way; each is made anew after what was read.
    pub consumers_lost: AtomicU64,
    /// Times that the stream was another one than was read before, and was read from its beginning.
    pub restarts: AtomicU64,
    /// Messages that were removed from the stream before they were read.
    pub lost: AtomicU64,
}

impl BusCounts {
    pub(crate) fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

/// Reads the stream of events in order.
pub trait Consumer: Send {
    /// Waits for a message, then up to `limits.linger` for more. Never empty; the first message is handed out whatever
    /// its size. A broker that is away is waited for. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Faults that waiting does not cure.
    fn next_batch(&mut self, limits: BatchLimits) -> BoxFuture<'_, Result<Vec<Message>, BusFault>>;

    /// How reading started, or started over.
    fn start(&self) -> &ConsumeStart;
}

/// How much a batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Messages at most; at least 1.
    pub messages_max: usize,
    /// Payload bytes at most, unless a single message has more.
    pub bytes_max: usize,
    /// How long to wait for more after the first.
    pub linger: Duration,
}

impl Default for BatchLimits {
    /// 1024 messages, 4 MiB, 2 ms.
    fn default() -> Self {
        Self { messages_max: 1024, bytes_max: 4 << 20, linger: Duration::from_millis(2) }
    }
}

/// How a consumer found the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumeStart {
    /// No cursor: from the beginning.
    Fresh,
    /// The message at the cursor is the one that was read before.
    Resumed {
        /// Its sequence.
        after: u64,
    },
    /// The stream is not the one that was read before; it is read from its beginning.
    Restarted {
        /// How that was noticed.
        reason: String,
        /// Incarnation of the messages from here on.
        incarnation: u32,
    },
}

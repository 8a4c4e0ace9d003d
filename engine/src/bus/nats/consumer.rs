use std::{collections::VecDeque, time::Duration};

use async_nats::{
    StatusCode, Subscriber,
    jetstream::{
        self,
        consumer::{AckPolicy, DeliverPolicy, pull},
    },
};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use tokio::{sync::watch, time::Instant};

use super::{NatsBus, failed, timestamp};
use crate::bus::{
    BatchLimits, BusCounts, BusFault, ConsumeStart, Consumer, Cursor, HEADER_MESSAGE_ID, HEADER_RECORDED_AT, Message,
    message::{self, message_hash},
};

/// A pull request lives this long.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// The server says at least this often that it still knows the request.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which the server has forgotten us.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The server forgets a consumer that nobody pulls from.
const INACTIVE_MAX: Duration = Duration::from_secs(120);
const PULL_MESSAGES_MAX: usize = 1024;
const PULL_BYTES_MAX: usize = 8 << 20;
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// A server that answers and refuses this often means it.
const REFUSALS_MAX: u32 = 10;

/// An ordered consumer: ephemeral, without acknowledgements. What the server loses of it is made again after the last
/// message taken, once that message has been found to be the one taken.
pub(in crate::bus) struct NatsConsumer {
    bus: NatsBus,
    connections: watch::Receiver<u64>,
    attached: Option<Attached>,
    /// Where reading goes on; nothing before the first message of a stream not read before.
    position: Option<Position>,
    start: ConsumeStart,
    /// Messages taken from the server and not handed out.
    ready: VecDeque<Message>,
    failures: u32,
}

#[derive(Clone, Copy)]
struct Position {
    stream_created_us: u64,
    incarnation: u32,
    /// Sequence and hash of the last message taken; nothing at the beginning of a stream.
    last: Option<(u64, [u8; 32])>,
}

/// A consumer that the server knows.
struct Attached {
    request_subject: String,
    inbox: String,
    messages: Subscriber,
    stream_created_us: u64,
    /// The next message is the server's so-manieth to this consumer: a gap is a message lost on the way.
    next_delivery: u64,
    /// Messages that the server still owes to the last request.
    owed: usize,
    heard_at: Instant,
}

enum Arrival {
    Message(Box<async_nats::Message>),
    /// The request is over; ask again.
    RequestOver,
    Heartbeat,
    /// The consumer is of no use any more.
    Lost(String),
}

impl NatsConsumer {
    pub(in crate::bus) async fn attach_first(bus: NatsBus, after: Option<Cursor>) -> Result<Self, BusFault> {
        let connections = bus.connections.clone();
        let position = after.map(|cursor| Position {
            stream_created_us: cursor.stream_created_us,
            incarnation: cursor.incarnation,
            last: Some((cursor.sequence, cursor.message_hash)),
        });
        let start = after.map_or(ConsumeStart::Fresh, |cursor| ConsumeStart::Resumed { after: cursor.sequence });
        let ready = VecDeque::new();
        let mut consumer = Self { bus, connections, attached: None, position, start, ready, failures: 0 };
        consumer.attach().await?;
        Ok(consumer)
    }

    /// Compares the stream with what was read of it, and makes a consumer after that.
    async fn attach(&mut self) -> Result<(), BusFault> {
        self.attached = None;
        self.connections.borrow_and_update();
        let stream = self.bus.ensure_events(self.bus.partition().map(|partition| partition.index())).await?;
        let info = stream.get_info().await.map_err(|error| failed("reading the stream's state", error))?;
        let stream_created_us = timestamp(info.created).us();
        let mut position = self.position.unwrap_or(Position { stream_created_us, incarnation: 0, last: None });
        if let Some(reason) = self.difference(&position, stream_created_us, &info.state).await? {
            let incarnation = position.incarnation.saturating_add(1);
            tracing::warn!(reason, incarnation, "the bus lost what was read from it; it is read from its beginning");
            self.start = ConsumeStart::Restarted { reason, incarnation };
            BusCounts::add(&self.bus.counts.restarts, 1);
            position = Position { stream_created_us, incarnation, last: None };
        }
        self.position = Some(position);
        let deliver_policy = match position.last {
            None => DeliverPolicy::All,
            Some((sequence, _)) => DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 },
        };
        let requested = pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE_MAX,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        let consumer = stream.create_consumer(requested).await;
        let consumer = consumer.map_err(|error| failed("creating a consumer", error))?;
        let info = consumer.cached_info();
        if info.config.deliver_policy != deliver_policy || info.config.ack_policy != AckPolicy::None {
            return Err(BusFault::StreamConfig {
                stream: info.stream_name.clone(),
                field: "consumer",
                expected: format!("{deliver_policy:?}"),
                found: format!("{:?}, {:?}", info.config.deliver_policy, info.config.ack_policy),
            });
        }
        let inbox = self.bus.client.new_inbox();
        let messages = self.bus.client.subscribe(inbox.clone()).await;
        self.attached = Some(Attached {
            request_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", info.stream_name, info.name),
            inbox,
            messages: messages.map_err(|error| failed("subscribing", error))?,
            stream_created_us,
            next_delivery: 1,
            owed: 0,
            heard_at: Instant::now(),
        });
        Ok(())
    }

    /// How the stream differs from the one that was read, in words; nothing where it is the same.
    async fn difference(
        &self,
        position: &Position,
        stream_created_us: u64,
        state: &jetstream::stream::State,
    ) -> Result<Option<String>, BusFault> {
        if position.stream_created_us != stream_created_us {
            let (before, now) = (position.stream_created_us, stream_created_us);
            return Ok(Some(format!("the stream was created at {now} us, the one read before at {before} us")));
        }
        let Some((sequence, hash)) = position.last else { return Ok(None) };
        if state.last_sequence < sequence {
            let last = state.last_sequence;
            return Ok(Some(format!("the stream ends at {last}, message {sequence} was read before")));
        }
        if sequence < state.first_sequence {
            // Trimmed or purged: nothing to compare with. What was not read of it is told when the next message comes.
            return Ok(None);
        }
        match self.bus.raw_message(sequence).await? {
            None => Ok(Some(format!("message {sequence} is gone"))),
            Some(found) if message_hash(&self.bus.logical(&found.subject), &found.payload) != hash => {
                Ok(Some(format!("message {sequence} is another one than was read before")))
            }
            Some(_) => Ok(None),
        }
    }

    /// Attaches, however long it takes.
    async fn attach_patiently(&mut self) -> Result<(), BusFault> {
        let mut refusals = 0;
        while self.attached.is_none() {
            if self.failures > 0 {
                let delay = Duration::from_millis(50 << self.failures.min(8)).min(RETRY_DELAY_MAX);
                // A connection that is made ends the waiting.
                let mut connections = self.connections.clone();
                let _ = tokio::time::timeout(delay, connections.changed()).await;
            }
            self.failures = self.failures.saturating_add(1);
            match self.attach().await {
                Ok(()) => {}
                Err(fault @ BusFault::StreamConfig { .. }) => return Err(fault),
                Err(fault @ BusFault::Refused { .. }) if refusals >= REFUSALS_MAX => return Err(fault),
                Err(fault) => {
                    refusals += u32::from(matches!(fault, BusFault::Refused { .. }));
                    tracing::warn!(%fault, "the bus cannot be read; trying again");
                }
            }
        }
        Ok(())
    }

    async fn batch(&mut self, limits: BatchLimits) -> Result<Vec<Message>, BusFault> {
        let messages_max = limits.messages_max.max(1);
        let mut until = (!self.ready.is_empty()).then(|| Instant::now() + limits.linger);
        loop {
            let bytes: usize = self.ready.iter().map(|message| message.payload.len()).sum();
            let full = self.ready.len() >= messages_max || bytes >= limits.bytes_max;
            if !self.ready.is_empty() && (full || until.is_some_and(|until| Instant::now() >= until)) {
                return Ok(self.hand_out(&limits));
            }
            if self.attached.is_none() {
                if !self.ready.is_empty() {
                    return Ok(self.hand_out(&limits));
                }
                self.attach_patiently().await?;
            }
            match self.arrival(messages_max, until).await {
                None => {} // the linger is over
                Some(Arrival::Heartbeat) => self.failures = 0,
                Some(Arrival::RequestOver) => {
                    self.failures = 0;
                    self.attached.iter_mut().for_each(|attached| attached.owed = 0);
                }
                Some(Arrival::Message(message)) => {
                    self.take(*message);
                    until = until.or_else(|| Some(Instant::now() + limits.linger));
                    // What has arrived already needs no waiting.
                    while self.ready.len() < messages_max {
                        let next = self.attached.as_mut().and_then(|attached| attached.messages.next().now_or_never());
                        let Some(next) = next else { break };
                        match classify(next) {
                            Arrival::Message(message) => self.take(*message),
                            Arrival::Heartbeat => {}
                            Arrival::RequestOver => {
                                self.attached.iter_mut().for_each(|attached| attached.owed = 0);
                            }
                            Arrival::Lost(reason) => self.detach(&reason),
                        }
                    }
                }
                Some(Arrival::Lost(reason)) => self.detach(&reason),
            }
        }
    }

    /// The next thing that happens; nothing where `until` comes first.
    async fn arrival(&mut self, messages_max: usize, until: Option<Instant>) -> Option<Arrival> {
        let attached = self.attached.as_mut()?;
        if attached.owed == 0 {
            let messages = messages_max.min(PULL_MESSAGES_MAX);
            let bytes = PULL_BYTES_MAX.max(self.bus.client.max_payload().saturating_mul(2));
            let request = serde_json::json!({
                "batch": messages,
                "max_bytes": bytes,
                "expires": PULL_EXPIRES.as_nanos() as u64,
                "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
            });
            let (subject, inbox) = (attached.request_subject.clone(), attached.inbox.clone());
            // Dropped here, the request was sent or not; sent twice it only brings more at once.
            let sent = self.bus.client.publish_with_reply(subject, inbox, request.to_string().into()).await;
            if let Err(error) = sent {
                return Some(Arrival::Lost(error.to_string()));
            }
            attached.owed = messages;
            attached.heard_at = Instant::now();
        }
        let silence = attached.heard_at + SILENCE_MAX;
        let wake = until.map_or(silence, |until| until.min(silence));
        tokio::select! {
            biased;
            next = attached.messages.next() => {
                attached.heard_at = Instant::now();
                Some(classify(next))
            }
            _ = self.connections.changed() => Some(Arrival::Lost("connected anew".into())),
            () = tokio::time::sleep_until(wake) => {
                (wake == silence).then(|| Arrival::Lost("the server is silent".into()))
            }
        }
    }

    /// Takes a message in, or detaches if it is not the next one.
    fn take(&mut self, message: async_nats::Message) {
        let (Some(attached), Some(position)) = (self.attached.as_mut(), self.position.as_mut()) else { return };
        let message = jetstream::Message { message, context: self.bus.context.clone() };
        let (sequence, delivery, at) = match message.info() {
            Ok(info) => (info.stream_sequence, info.consumer_sequence, timestamp(info.published)),
            Err(error) => return self.detach(&format!("a message without metadata: {error}")),
        };
        if delivery != attached.next_delivery || position.last.is_some_and(|(last, _)| sequence <= last) {
            return self.detach("a message was lost on the way");
        }
        // From the beginning, a stream starts where its limits let it start.
        let lost = position.last.map_or(0, |(last, _)| sequence - last - 1);
        if lost > 0 {
            tracing::error!(
                from = sequence - lost,
                to = sequence - 1,
                "messages were removed from the bus before they were read; their senders hold no receipt and send again"
            );
            BusCounts::add(&self.bus.counts.lost, lost);
        }
        attached.next_delivery += 1;
        attached.owed = attached.owed.saturating_sub(1);
        self.failures = 0;
        let message = message.message;
        let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str().to_owned());
        let message = Message {
            stream_sequence: sequence,
            recorded_at: message::recorded_at(header(HEADER_RECORDED_AT).as_deref()),
            message_id: header(HEADER_MESSAGE_ID),
            subject: self.bus.logical(&message.subject),
            payload: message.payload,
            at,
            stream_created_us: attached.stream_created_us,
            incarnation: position.incarnation,
        };
        position.last = Some((sequence, message_hash(&message.subject, &message.payload)));
        self.ready.push_back(message);
    }

    fn detach(&mut self, reason: &str) {
        tracing::info!(reason, "the consumer is made anew");
        BusCounts::add(&self.bus.counts.consumers_lost, 1);
        self.attached = None;
    }

    fn hand_out(&mut self, limits: &BatchLimits) -> Vec<Message> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(message) = self.ready.pop_front_if(|message| {
            let fits = bytes + message.payload.len() <= limits.bytes_max;
            batch.is_empty() || (fits && batch.len() < limits.messages_max)
        }) {
            bytes += message.payload.len();
            batch.push(message);
        }
        batch
    }
}

fn classify(next: Option<async_nats::Message>) -> Arrival {
    let Some(message) = next else { return Arrival::Lost("the connection is closed".into()) };
    let description = message.description.clone().unwrap_or_default();
    match message.status {
        None | Some(StatusCode::OK) => Arrival::Message(Box::new(message)),
        Some(StatusCode::IDLE_HEARTBEAT) => Arrival::Heartbeat,
        Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => Arrival::RequestOver,
        // "Message Size Exceeds MaxBytes", "Batch Completed"; all other conflicts end the consumer.
        Some(_) if description.contains("MaxBytes") || description.contains("Batch Completed") => Arrival::RequestOver,
        Some(status) => Arrival::Lost(format!("{status} {description}")),
    }
}

impl Consumer for NatsConsumer {
    fn next_batch(&mut self, limits: BatchLimits) -> BoxFuture<'_, Result<Vec<Message>, BusFault>> {
        self.batch(limits).boxed()
    }

    fn start(&self) -> &ConsumeStart {
        &self.start
    }
}

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    ConnectOptions, Event, HeaderMap,
    connection::State,
    jetstream::{
        self,
        context::{CreateStreamErrorKind, PublishErrorKind},
        message::{PublishMessage, StreamMessage},
        stream::{self, LastRawMessageErrorKind, RawMessageErrorKind, RetentionPolicy, StorageType},
    },
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use prost::bytes::Bytes;
use tokio::sync::watch;
use tribunal_events::Timestamp;

use super::{
    Bus, BusFault, Consumer, Cursor, DEALS, DUPLICATE_WINDOW, HEADER_MESSAGE_ID, HEADER_RECORDED_AT, Message, Notice,
    Outgoing, RECEIPTS, REFUSED, SLOTS, VERDICTS, message, nats_consumer::NatsConsumer, subject,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Subjects of claims that are remembered at most.
const UNCLAIMED_MAX: usize = 10_000;
/// Messages that are looked at for one claim at once, at most.
const CLAIM_ATTEMPTS_MAX: u32 = 1000;

/// How to reach a NATS server.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// `nats://host:port`, `tls://host:port`; several separated by commas.
    pub url: String,
    /// A `.creds` file.
    pub credentials: Option<PathBuf>,
    /// Name of the stream of events.
    pub stream: String,
}

impl NatsConfig {
    /// Without credentials, stream `DEALS`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), credentials: None, stream: DEALS.into() }
    }
}

/// NATS with JetStream.
///
/// A PubAck of JetStream does not promise that the message is on a disk (nats-server 2.9 cannot sync for each message at
/// all): senders repeat until they hold a receipt, which the engine gives for what is in its own store.
#[derive(Clone)]
pub struct NatsBus {
    pub(super) client: async_nats::Client,
    pub(super) context: jetstream::Context,
    config: Arc<NatsConfig>,
    /// Up to where subjects of claims hold nothing valid, so that a flood is passed little by little.
    unclaimed: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Counts connections made.
    pub(super) connections: watch::Receiver<u64>,
}

impl NatsBus {
    /// The connection, for what is no stream: services.
    pub const fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// Connects, and creates the five streams where they are missing.
    ///
    /// # Errors
    /// [`BusFault`] where there is no server, no JetStream, or a stream that differs.
    pub async fn connect(config: NatsConfig) -> Result<Self, BusFault> {
        let (connected, connections) = watch::channel(0u64);
        let mut options = ConnectOptions::new()
            .name("tribunal")
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .event_callback(move |event| {
                match &event {
                    Event::Connected => connected.send_modify(|count| *count += 1),
                    Event::Disconnected => tracing::warn!("the connection to NATS is lost"),
                    Event::SlowConsumer(subscription) => tracing::warn!(subscription, "NATS dropped messages"),
                    other => tracing::debug!(event = %other, "NATS"),
                }
                std::future::ready(())
            });
        if let Some(path) = &config.credentials {
            let read = options.credentials_file(path).await;
            options = read.map_err(|source| BusFault::Credentials { path: path.display().to_string(), source })?;
        }
        let servers: Vec<&str> = config.url.split(',').map(str::trim).collect();
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| {
            let url = without_credentials(&config.url);
            BusFault::Unreachable { url, source }
        };
        let client = options.connect(servers).await.map_err(|error| unreachable(Box::new(error)))?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(REQUEST_TIMEOUT)
            .build(client.clone());
        let bus = Self { client, context, config: Arc::new(config), unclaimed: Arc::default(), connections };
        for name in [&bus.config.stream, VERDICTS, RECEIPTS, REFUSED, SLOTS] {
            bus.ensure_stream(name).await?;
        }
        tracing::info!(bus = bus.describe(), "connected");
        Ok(bus)
    }

    /// The stream, created where it is missing.
    pub(super) async fn ensure_stream(&self, name: &str) -> Result<stream::Stream, BusFault> {
        let subjects = match name {
            VERDICTS => "verdicts.>",
            RECEIPTS => "receipts.>",
            REFUSED => "refused.>",
            SLOTS => "slots.>",
            _ => "deals.>",
        };
        let requested = stream::Config {
            name: name.into(),
            subjects: vec![subjects.into()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            deny_delete: true,
            deny_purge: true,
            duplicate_window: DUPLICATE_WINDOW,
            ..Default::default()
        };
        let stream = self.context.get_or_create_stream(requested.clone()).await.map_err(|error| {
            let (doing, what) = ("creating a stream", error.to_string());
            match error.kind() {
                CreateStreamErrorKind::TimedOut => BusFault::Timeout { doing, what },
                CreateStreamErrorKind::JetStreamUnavailable => {
                    BusFault::NoJetStream { url: without_credentials(&self.config.url), what }
                }
                _ => BusFault::Refused { doing, what: format!("{name}: {what}") },
            }
        })?;
        // Old servers drop silently what they do not know, and an existing stream keeps what it was made with.
        let returned = &stream.cached_info().config;
        let fault = |field, expected: String, found: String| BusFault::StreamConfig {
            stream: name.into(),
            field,
            expected,
            found,
        };
        if returned.subjects != requested.subjects {
            return Err(fault("subjects", requested.subjects.join(", "), returned.subjects.join(", ")));
        }
        if returned.retention != requested.retention {
            return Err(fault("retention", "limits".into(), format!("{:?}", returned.retention).to_lowercase()));
        }
        if returned.storage != requested.storage {
            return Err(fault("storage", "file".into(), format!("{:?}", returned.storage).to_lowercase()));
        }
        for (field, found) in [("deny_delete", returned.deny_delete), ("deny_purge", returned.deny_purge)] {
            if !found {
                return Err(fault(field, "true".into(), "false".into()));
            }
        }
        for (field, found) in [("no_ack", returned.no_ack), ("sealed", returned.sealed)] {
            if found {
                return Err(fault(field, "false".into(), "true".into()));
            }
        }
        Ok(stream)
    }

    /// The stored message of a sequence of the stream of events.
    pub(super) async fn raw_message(&self, sequence: u64) -> Result<Option<StreamMessage>, BusFault> {
        let stream = self.context.get_stream_no_info(&self.config.stream).await;
        let stream = stream.map_err(|error| failed("reading a message", error))?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed("reading a message", error)),
        }
    }

    async fn last_sequence(&self) -> Result<u64, BusFault> {
        let doing = "asking for the end of the stream";
        let stream = self.context.get_stream_no_info(&self.config.stream).await;
        let stream = stream.map_err(|error| failed(doing, error))?;
        let info = stream.get_info().await.map_err(|error| failed(doing, error))?;
        Ok(info.state.last_sequence)
    }

    async fn claim_subject(
        &self,
        subject: &str,
        bytes: Bytes,
        valid: &(dyn Fn(&[u8]) -> bool + Send + Sync),
    ) -> Result<Bytes, BusFault> {
        let doing = "claiming a slot";
        if !subject::is_publishable(subject) {
            return Err(BusFault::Subject(subject.into()));
        }
        let stream = self.context.get_stream_no_info(SLOTS).await.map_err(|error| failed(doing, error))?;
        let unclaimed = || self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut seen, mut stuck) = (unclaimed().get(subject).copied().unwrap_or(0), false);
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            // From the leader: what others published before us is there.
            match stream.get_first_raw_message_by_subject(subject, seen + 1).await {
                Ok(message) if valid(&message.payload) => return Ok(message.payload),
                Ok(message) => (seen, stuck) = (message.sequence, false),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    let message = PublishMessage::build().payload(bytes.clone()).expected_last_subject_sequence(seen);
                    let sent = match self.context.send_publish(subject.to_owned(), message).await {
                        Ok(ack) => ack.await,
                        Err(error) => Err(error),
                    };
                    match sent {
                        Ok(_) => return Ok(bytes),
                        // Somebody came in between, or the answer to an earlier attempt of ours was lost: look again.
                        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                            // Twice with nothing new to see: the stream is another one than was read before.
                            seen = if stuck { 0 } else { seen };
                            stuck = true;
                        }
                        Err(error) => return Err(BusFault::Timeout { doing, what: error.to_string() }),
                    }
                }
                // The stream was removed: made again, it is as empty as it would be with no stream.
                Err(error) => {
                    self.ensure_stream(SLOTS).await?;
                    return Err(BusFault::Timeout { doing, what: error.to_string() });
                }
            }
        }
        let mut unclaimed = unclaimed();
        if unclaimed.len() >= UNCLAIMED_MAX {
            unclaimed.clear();
        }
        unclaimed.insert(subject.to_owned(), seen);
        Err(BusFault::Timeout { doing, what: format!("{subject} is flooded with what is no claim") })
    }

    async fn publish_message(&self, out: Outgoing) -> Result<u64, BusFault> {
        if !subject::is_publishable(&out.subject) {
            return Err(BusFault::Subject(out.subject));
        }
        let bytes_max = self.client.max_payload();
        let mut headers = HeaderMap::new();
        let mut bytes = out.payload.len();
        for (name, value) in out.wire_headers() {
            bytes += name.len() + value.len() + 4;
            headers.append(name, value);
        }
        if bytes > bytes_max {
            return Err(BusFault::Oversized { bytes, bytes_max });
        }
        let mut attempts_left = 2;
        loop {
            attempts_left -= 1;
            let message = PublishMessage::build().payload(out.payload.clone()).headers(headers.clone());
            let sent = match self.context.send_publish(out.subject.clone(), message).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            let error = match sent {
                Ok(ack) => return Ok(ack.sequence),
                Err(error) => error,
            };
            let doing = "publishing";
            match error.kind() {
                // Somebody removed the stream: make it again.
                PublishErrorKind::StreamNotFound if attempts_left > 0 => {
                    let Some(name) = self.stream_of(&out.subject) else { return Err(BusFault::NoStream(out.subject)) };
                    self.ensure_stream(name).await?;
                }
                PublishErrorKind::StreamNotFound => return Err(BusFault::NoStream(out.subject)),
                PublishErrorKind::MaxPayloadExceeded => return Err(BusFault::Oversized { bytes, bytes_max }),
                PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => {
                    return Err(BusFault::Timeout { doing, what: error.to_string() });
                }
                _ => return Err(BusFault::Refused { doing, what: error.to_string() }),
            }
        }
    }

    fn stream_of(&self, subject: &str) -> Option<&str> {
        match subject.split('.').next()? {
            "deals" => Some(&self.config.stream),
            "verdicts" => Some(VERDICTS),
            "receipts" => Some(RECEIPTS),
            "refused" => Some(REFUSED),
            "slots" => Some(SLOTS),
            _ => None,
        }
    }

    async fn find_message(&self, stream: &str, subject: &str) -> Result<Option<Message>, BusFault> {
        let doing = "looking for a message";
        let stream = self.context.get_stream_no_info(stream).await.map_err(|error| failed(doing, error))?;
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(found) => {
                let header = |name: &str| found.headers.get(name).map(|value| value.as_str().to_owned());
                Ok(Some(Message {
                    stream_sequence: found.sequence,
                    recorded_at: message::recorded_at(header(HEADER_RECORDED_AT).as_deref()),
                    message_id: header(HEADER_MESSAGE_ID),
                    subject: found.subject.to_string(),
                    payload: found.payload,
                    at: timestamp(found.time),
                    stream_created_us: 0,
                    incarnation: 0,
                }))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed(doing, error)),
        }
    }

    async fn watch_subject(&self, filter: &str) -> Result<BoxStream<'static, Notice>, BusFault> {
        let doing = "subscribing";
        let subscriber = self.client.subscribe(filter.to_owned()).await.map_err(|error| failed(doing, error))?;
        // A request and its answer on the same connection: the server has the subscription before we go on.
        self.last_sequence().await?;
        let notice =
            |message: async_nats::Message| Notice { subject: message.subject.to_string(), payload: message.payload };
        Ok(subscriber.map(notice).boxed())
    }
}

impl Bus for NatsBus {
    fn publish(&self, out: Outgoing) -> BoxFuture<'_, Result<u64, BusFault>> {
        self.publish_message(out).boxed()
    }

    fn consume(&self, after: Option<Cursor>) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusFault>> {
        let bus = self.clone();
        async move {
            let consumer: Box<dyn Consumer> = Box::new(NatsConsumer::attach_first(bus, after).await?);
            Ok(consumer)
        }
        .boxed()
    }

    fn last(&self) -> BoxFuture<'_, Result<u64, BusFault>> {
        self.last_sequence().boxed()
    }

    fn find<'a>(&'a self, stream: &'a str, subject: &'a str) -> BoxFuture<'a, Result<Option<Message>, BusFault>> {
        self.find_message(stream, subject).boxed()
    }

    fn claim<'a>(
        &'a self,
        subject: &'a str,
        bytes: Bytes,
        valid: &'a (dyn Fn(&[u8]) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<Bytes, BusFault>> {
        self.claim_subject(subject, bytes, valid).boxed()
    }

    fn watch<'a>(&'a self, filter: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Notice>, BusFault>> {
        self.watch_subject(filter).boxed()
    }

    fn describe(&self) -> String {
        let version = self.client.server_info().version;
        format!("{} (nats-server {version}, stream {})", without_credentials(&self.config.url), self.config.stream)
    }

    fn stream(&self) -> &str {
        &self.config.stream
    }

    fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }
}

/// A URL without user and password, for messages and logs.
fn without_credentials(url: &str) -> String {
    let hide = |server: &str| match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => server.to_owned(),
    };
    url.split(',').map(|server| hide(server.trim())).collect::<Vec<_>>().join(",")
}

pub(super) fn timestamp(time: async_nats::datetime::DateTime) -> Timestamp {
    Timestamp::from_us(u64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(0))
}

/// Requests of reading: whatever failed, asking again is harmless.
pub(super) fn failed(doing: &'static str, error: impl std::error::Error) -> BusFault {
    BusFault::Timeout { doing, what: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_credentials("nats://user:secret@host:4222, tls://b"), "nats://host:4222,tls://b");
        assert_eq!(without_credentials("token@host"), "host");
    }
}

//! [`Bus`] over NATS with JetStream.

mod claims;
mod consumer;
mod streams;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{
    ConnectOptions, Event, HeaderMap,
    connection::State,
    jetstream::{
        self,
        context::PublishErrorKind,
        message::{PublishMessage, StreamMessage},
        stream::{DirectGetErrorKind, LastRawMessageErrorKind, RawMessageErrorKind},
    },
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use prost::bytes::Bytes;
use tokio::sync::watch;
use tribunal_events::Timestamp;

use self::consumer::NatsConsumer;
use super::{
    Bus, BusCounts, BusFault, BusPartition, Consumer, Cursor, DEALS, FENCES, HEADER_MESSAGE_ID, HEADER_RECORDED_AT,
    Message, Notice, Outgoing, RECEIPTS, REFUSED, RESULTS, SLOTS, VERDICTS, WORK, message, subject,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams beside that of events.
const STREAMS: [&str; 7] = [VERDICTS, RECEIPTS, REFUSED, SLOTS, FENCES, WORK, RESULTS];

/// How to reach a NATS server.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// `nats://host:port`, `tls://host:port`; several separated by commas.
    pub url: String,
    /// A `.creds` file: a user's JWT and its key.
    pub credentials: Option<PathBuf>,
    /// A file with an nkey's seed, `SU…`.
    pub nkey: Option<PathBuf>,
    /// Certificates (PEM) of authorities that the server's certificate may come from, in place of the system's; with them TLS
    /// is insisted on.
    pub tls_ca: Option<PathBuf>,
    /// The own certificate (PEM), for servers that ask for one.
    pub tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Name of the stream of events.
    pub stream: String,
    /// Servers of a cluster that keep each stream, 1 to 5.
    pub replicas: usize,
    /// The share of the deals that is read; all of them without.
    pub partition: Option<BusPartition>,
    /// Only events are sent and their receipts fetched: no stream is looked at or made, so that an account without rights
    /// on JetStream's API will do.
    pub sender_only: bool,
}

impl NatsConfig {
    /// Without credentials, stream `DEALS`, one replica, all deals.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
            nkey: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            stream: DEALS.into(),
            replicas: 1,
            partition: None,
            sender_only: false,
        }
    }

    /// Connection options; files that are named are read.
    pub(crate) async fn options(&self) -> Result<ConnectOptions, BusFault> {
        let unreadable = |path: &PathBuf, source| BusFault::Credentials { path: path.display().to_string(), source };
        let mut options = ConnectOptions::new();
        if let Some(path) = &self.credentials {
            options = options.credentials_file(path).await.map_err(|source| unreadable(path, source))?;
        }
        if let Some(path) = &self.nkey {
            let seed = tokio::fs::read_to_string(path).await.map_err(|source| unreadable(path, source))?;
            options = options.nkey(seed.trim().to_owned());
        }
        for path in [&self.tls_ca, &self.tls_cert, &self.tls_key].into_iter().flatten() {
            // Read here so that the one that is missing is named.
            tokio::fs::metadata(path).await.map_err(|source| unreadable(path, source))?;
        }
        if let Some(path) = &self.tls_ca {
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => options = options.add_client_certificate(cert.clone(), key.clone()),
            (None, None) => {}
            (given, missing) => {
                let path = given.as_ref().or(missing.as_ref()).map_or_else(String::new, |it| it.display().to_string());
                let what = "tls_cert and tls_key are given together or not at all";
                let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
                return Err(BusFault::Credentials { path, source });
            }
        }
        Ok(options)
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
    /// Name of the stream that is read: the partition's, if there is one.
    events: Arc<str>,
    /// Up to where subjects of claims hold nothing valid, so that a flood is passed little by little.
    unclaimed: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Counts connections made.
    pub(super) connections: watch::Receiver<u64>,
    pub(super) counts: Arc<BusCounts>,
}

impl NatsBus {
    /// The connection, for what is no stream: services.
    pub const fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// JetStream, for work and its results.
    pub const fn jetstream(&self) -> &jetstream::Context {
        &self.context
    }

    /// The share of the deals that is read.
    pub fn partition(&self) -> Option<BusPartition> {
        self.config.partition
    }

    /// Connects, and creates the streams where they are missing.
    ///
    /// # Errors
    /// [`BusFault`] where there is no server, no JetStream, or a stream that differs.
    pub async fn connect(config: NatsConfig) -> Result<Self, BusFault> {
        let (connected, connections) = watch::channel(0u64);
        let counts = Arc::new(BusCounts::default());
        let counting = Arc::clone(&counts);
        let options = config
            .options()
            .await?
            .name("tribunal")
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .event_callback(move |event| {
                match &event {
                    Event::Connected => {
                        connected.send_modify(|count| *count += 1);
                        BusCounts::add(&counting.connections, 1);
                    }
                    Event::Disconnected => tracing::warn!("the connection to NATS is lost"),
                    Event::SlowConsumer(subscription) => tracing::warn!(subscription, "NATS dropped messages"),
                    other => tracing::debug!(event = %other, "NATS"),
                }
                std::future::ready(())
            });
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
        let index = config.partition.map(|partition| partition.index());
        let events = index.map_or_else(|| config.stream.clone(), |index| BusPartition::stream(&config.stream, index));
        let bus = Self {
            client,
            context,
            config: Arc::new(config),
            events: events.into(),
            unclaimed: Arc::default(),
            connections,
            counts,
        };
        if !bus.config.sender_only {
            bus.ensure_events(index).await?;
            for name in STREAMS {
                bus.ensure_stream(name).await?;
            }
        }
        tracing::info!(bus = bus.describe(), "connected");
        Ok(bus)
    }

    /// The subject of a stored message as the rest of the engine knows it.
    pub(super) fn logical(&self, subject: &str) -> String {
        self.config.partition.map_or_else(|| subject.to_owned(), |partition| partition.logical(subject))
    }

    /// Where a message goes, and the partition it belongs to.
    fn wire(&self, subject: &str) -> (String, Option<u32>) {
        match self.config.partition.and_then(|partition| partition.wire(subject)) {
            Some((subject, index)) => (subject, Some(index)),
            None => (subject.to_owned(), None),
        }
    }

    /// The stored message of a sequence of the stream of events.
    pub(super) async fn raw_message(&self, sequence: u64) -> Result<Option<StreamMessage>, BusFault> {
        let stream = self.context.get_stream_no_info(&*self.events).await;
        let stream = stream.map_err(|error| failed("reading a message", error))?;
        match stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed("reading a message", error)),
        }
    }

    async fn last_sequence(&self) -> Result<u64, BusFault> {
        let doing = "asking for the end of the stream";
        let stream = self.context.get_stream_no_info(&*self.events).await;
        let stream = stream.map_err(|error| failed(doing, error))?;
        let info = stream.get_info().await.map_err(|error| failed(doing, error))?;
        Ok(info.state.last_sequence)
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
        let (subject, index) = self.wire(&out.subject);
        let mut attempts_left = 2;
        loop {
            attempts_left -= 1;
            let message = PublishMessage::build().payload(out.payload.clone()).headers(headers.clone());
            let sent = match self.context.send_publish(subject.clone(), message).await {
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
                    if self.config.sender_only {
                        return Err(BusFault::NoStream(out.subject));
                    }
                    match self.stream_of(&out.subject) {
                        Some(DEALS) => self.ensure_events(index).await?,
                        Some(name) => self.ensure_stream(name).await?,
                        None => return Err(BusFault::NoStream(out.subject)),
                    };
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

    fn stream_of(&self, subject: &str) -> Option<&'static str> {
        match subject.split('.').next()? {
            "deals" => Some(DEALS),
            "verdicts" => Some(VERDICTS),
            "receipts" => Some(RECEIPTS),
            "refused" => Some(REFUSED),
            "slots" => Some(SLOTS),
            "fences" => Some(FENCES),
            "work" => Some(WORK),
            "results" => Some(RESULTS),
            _ => None,
        }
    }

    async fn find_message(&self, stream: &str, subject: &str) -> Result<Option<Message>, BusFault> {
        let doing = "looking for a message";
        let name = stream;
        let stream = self.context.get_stream_no_info(stream).await.map_err(|error| failed(doing, error))?;
        let found = if name == RECEIPTS {
            // A replica that is behind does not matter: who waits for a receipt looks again.
            match stream.direct_get_last_for_subject(subject).await {
                Ok(found) => Some(found),
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => None,
                Err(error) => return Err(failed(doing, error)),
            }
        } else {
            match stream.get_last_raw_message_by_subject(&self.wire(subject).0).await {
                Ok(found) => Some(found),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                Err(error) => return Err(failed(doing, error)),
            }
        };
        Ok(found.map(|found| {
            let header = |name: &str| found.headers.get(name).map(|value| value.as_str().to_owned());
            Message {
                stream_sequence: found.sequence,
                recorded_at: message::recorded_at(header(HEADER_RECORDED_AT).as_deref()),
                message_id: header(HEADER_MESSAGE_ID),
                subject: self.logical(&found.subject),
                payload: found.payload,
                at: timestamp(found.time),
                stream_created_us: 0,
                incarnation: 0,
            }
        }))
    }

    async fn watch_subject(&self, filter: &str) -> Result<BoxStream<'static, Notice>, BusFault> {
        let doing = "subscribing";
        let subscriber = self.client.subscribe(filter.to_owned()).await.map_err(|error| failed(doing, error))?;
        if !self.config.sender_only {
            // A request and its answer on the same connection: the server has the subscription before we go on.
            self.last_sequence().await?;
        }
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

    fn publish_after<'a>(
        &'a self,
        stream: &'a str,
        subject: &'a str,
        after: u64,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Option<u64>, BusFault>> {
        self.publish_next(stream, subject, after, bytes).boxed()
    }

    fn watch<'a>(&'a self, filter: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Notice>, BusFault>> {
        self.watch_subject(filter).boxed()
    }

    fn describe(&self) -> String {
        let version = self.client.server_info().version;
        format!("{} (nats-server {version}, stream {})", without_credentials(&self.config.url), self.events)
    }

    fn stream(&self) -> &str {
        &self.events
    }

    fn counts(&self) -> Arc<BusCounts> {
        Arc::clone(&self.counts)
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

pub(crate) fn timestamp(time: async_nats::datetime::DateTime) -> Timestamp {
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

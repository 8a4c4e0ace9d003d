use prost::bytes::Bytes;
use tribunal_events::Timestamp;

use crate::store::Cursor;

/// Header by which the bus tells repeated messages.
pub const HEADER_MESSAGE_ID: &str = "Nats-Msg-Id";
/// Header of a replayed recording: microseconds at which the message was first received.
pub const HEADER_RECORDED_AT: &str = "Tribunal-Recorded-At";

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the stream, from 1.
    pub stream_sequence: u64,
    /// The subject.
    pub subject: String,
    /// The payload as sent.
    pub payload: Bytes,
    /// When the bus took it.
    pub at: Timestamp,
    /// When it was first received, in a replay of a recording. The sender's word.
    pub recorded_at: Option<Timestamp>,
    /// The id by which the bus tells repeated messages.
    pub message_id: Option<String>,
    /// When the bus created the stream.
    pub stream_created_us: u64,
    /// Which stream of this name it came from, see [`Cursor::incarnation`]; 0 outside a consumer.
    pub incarnation: u32,
}

impl Message {
    /// The cursor after this message.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            sequence: self.stream_sequence,
            message_hash: message_hash(&self.subject, &self.payload),
            stream_created_us: self.stream_created_us,
            incarnation: self.incarnation,
        }
    }
}

/// BLAKE3 of subject, a zero byte, payload.
pub fn message_hash(subject: &str, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(subject.as_bytes()).update(&[0]).update(payload);
    *hasher.finalize().as_bytes()
}

/// A message seen as it passed, outside any stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The subject.
    pub subject: String,
    /// The payload as sent.
    pub payload: Bytes,
}

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The subject.
    pub subject: String,
    /// The payload.
    pub payload: Bytes,
    /// The id by which the bus tells repeated messages.
    pub message_id: Option<String>,
    /// Further headers. Control characters in values become spaces.
    pub headers: Vec<(String, String)>,
}

impl Outgoing {
    /// A message without headers.
    pub fn new(subject: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { subject: subject.into(), payload: payload.into(), message_id: None, headers: Vec::new() }
    }

    /// With an id by which the bus tells repeated messages.
    #[must_use]
    pub fn with_message_id(mut self, id: impl Into<String>) -> Self {
        self.message_id = Some(id.into());
        self
    }

    /// With a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// All headers, the message id among them, fit for the wire.
    pub(super) fn wire_headers(&self) -> impl Iterator<Item = (&str, String)> {
        let id = self.message_id.iter().map(|id| (HEADER_MESSAGE_ID, id));
        let all = id.chain(self.headers.iter().map(|(name, value)| (name.as_str(), value)));
        all.map(|(name, value)| (name, value.replace(|c: char| c.is_control(), " ")))
    }
}

/// Reads [`HEADER_RECORDED_AT`].
pub(super) fn recorded_at(value: Option<&str>) -> Option<Timestamp> {
    value?.trim().parse().ok().map(Timestamp::from_us)
}

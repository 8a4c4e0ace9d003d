/// The bus could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusFault {
    /// No connection to begin with.
    #[error("no NATS server at {url}: {source}")]
    Unreachable {
        /// Where one was expected, without credentials.
        url: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The credentials file cannot be read.
    #[error("the NATS credentials {path} cannot be read: {source}")]
    Credentials {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The server has no JetStream, or this account may not use it.
    #[error("{url} offers no JetStream: start nats-server with -js, or enable it for the account: {what}")]
    NoJetStream {
        /// The server.
        url: String,
        /// What it said.
        what: String,
    },
    /// A stream exists, or was made, with another configuration than correctness needs.
    #[error("stream {stream} has {field} {found}, not {expected}: change it, or choose another stream")]
    StreamConfig {
        /// The stream.
        stream: String,
        /// The configuration field.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What the server says it is.
        found: String,
    },
    /// More than the bus carries.
    #[error("a message has at most {bytes_max} bytes, not {bytes}")]
    Oversized {
        /// Payload and headers.
        bytes: usize,
        /// The server's limit.
        bytes_max: usize,
    },
    /// Not a subject that can be published on.
    #[error("{0:?} is no subject to publish on: tokens separated by dots, without wildcards or spaces")]
    Subject(String),
    /// No stream takes this subject.
    #[error("no stream takes the subject {0:?}")]
    NoStream(String),
    /// No answer in time. Whether the message was taken is unknown: send it again.
    #[error("the bus did not answer while {doing}: {what}")]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        what: String,
    },
    /// The server said no, or something else failed.
    #[error("{doing}: {what}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What the server said.
        what: String,
    },
    /// The bus was shut down.
    #[error("the bus is closed")]
    Closed,
}

impl BusFault {
    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn can_retry(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }
}

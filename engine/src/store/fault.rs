use std::path::PathBuf;

use tribunal_events::{DealId, EventId};

/// Where in a store damage was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The files as a whole.
    Files,
    /// The record at this log position.
    Position(u64),
    /// The stream, head or snapshot of this deal.
    Deal(DealId),
    /// A row of a column family, key in hex.
    Row(&'static str, String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files => write!(f, "the files"),
            Self::Position(position) => write!(f, "log position {position}"),
            Self::Deal(deal_id) => write!(f, "deal {deal_id}"),
            Self::Row(family, key) => write!(f, "row {key} of {family}"),
        }
    }
}

/// The store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The disk or RocksDB failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process, or another part of this one, has the store open for writing.
    #[error("{} is open in another process: only one engine may write to a store; read commands work beside it", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// There is no store here.
    #[error("{} holds no store", path.display())]
    Missing {
        /// Where one was expected.
        path: PathBuf,
    },
    /// Written by a version whose format is unknown here.
    #[error("the store has format {found}, this program reads format {supported}: {}", if found < supported { "open it for writing once (tribunal serve), which upgrades it" } else { "use the version that wrote it" })]
    Format {
        /// Format found.
        found: u64,
        /// Format this program reads and writes.
        supported: u64,
    },
    /// What is stored is not what was written.
    #[error("damage at {place}: {what}")]
    Damaged {
        /// Where.
        place: Place,
        /// What was expected and what was found.
        what: String,
    },
    /// The stream is not at the version the caller decided on.
    #[error("deal {deal_id} is at version {found}, not {expected}")]
    Conflict {
        /// The deal.
        deal_id: DealId,
        /// Version the caller knew.
        expected: u64,
        /// Version stored.
        found: u64,
    },
    /// An event id that is stored already, or twice in one append.
    #[error("event {event_id} is recorded already{}", position.map_or(" in this append".into(), |p| format!(" at log position {p}")))]
    Duplicate {
        /// The event.
        event_id: EventId,
        /// Where it is stored; nothing if twice in one append.
        position: Option<u64>,
    },
    /// A cursor that would go back.
    #[error("the cursor of {stream} would go back from {found:?} to {given:?} (incarnation, sequence)")]
    CursorBack {
        /// The bus stream.
        stream: String,
        /// Incarnation and sequence stored.
        found: (u32, u64),
        /// Incarnation and sequence given.
        given: (u32, u64),
    },
    /// Opened for reading only.
    #[error("the store is open for reading only")]
    ReadOnly,
    /// A write failed earlier: what is on disk is known only after opening the store again.
    #[error("an earlier write failed; the store answers again once it is reopened")]
    Poisoned,
}

impl StoreFault {
    /// Whether the same call may succeed later without anybody repairing anything.
    pub const fn can_retry(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Conflict { .. })
    }

    /// A value beside the log that does not say what it should.
    pub(crate) fn damaged_meta(name: &str, what: &str) -> Self {
        Self::damaged(Place::Row("meta", hex::encode(name)), what)
    }

    pub(super) fn io(doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Io { doing, source: source.into() }
    }

    pub(super) fn rocks(doing: &'static str, error: rocksdb::Error) -> Self {
        match error.kind() {
            rocksdb::ErrorKind::Corruption => {
                Self::Damaged { place: Place::Files, what: format!("{doing}: {}", error.into_string()) }
            }
            _ => Self::io(doing, error),
        }
    }

    pub(super) fn damaged(place: Place, what: impl Into<String>) -> Self {
        Self::Damaged { place, what: what.into() }
    }
}

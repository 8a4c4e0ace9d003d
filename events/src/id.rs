use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text or bytes that are no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is not `0x` and 64 lowercase hex digits.
    #[error("{what} is written as 0x and 64 lowercase hex digits, not {found:?}")]
    Hex {
        /// Which id was expected.
        what: &'static str,
        /// The text, shortened.
        found: String,
    },
    /// The field has another length than 32 bytes.
    #[error("{what} has 32 bytes, not {found}")]
    Length {
        /// Which id was expected.
        what: &'static str,
        /// Bytes found.
        found: usize,
    },
    /// The text is no content address.
    #[error("a content address is blake3: or sha256: and 64 lowercase hex digits, not {0:?}")]
    ContentAddress(String),
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let lower = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; 32];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The 32 bytes as an id.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads a 32-byte field.
            ///
            /// # Errors
            /// [`IdError::Length`] for any other length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
                let length = IdError::Length { what: $what, found: bytes.len() };
                bytes.try_into().map(Self).map_err(|_| length)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text.strip_prefix("0x").and_then(hex32);
                digits.map(Self).ok_or_else(|| IdError::Hex { what: $what, found: short(text) })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// Names a deal: BLAKE3 `derive_key("tribunal.v1 deal", terms bytes as signed)`.
    DealId,
    "a deal id"
);
id!(
    /// Names an event: BLAKE3 of the event bytes as sent. The signature is no part of it.
    EventId,
    "an event id"
);
id!(
    /// A 32-byte digest whose function its place names: BLAKE3 unless said otherwise.
    Digest,
    "a digest"
);
id!(
    /// The per-deal hash chain after a record: BLAKE3 `derive_key("tribunal.v1 link", previous link, record bytes)`.
    ChainLink,
    "a chain link"
);

impl DealId {
    /// The id of the deal with these terms bytes.
    pub fn of_terms(terms: &[u8]) -> Self {
        Self(blake3::derive_key("tribunal.v1 deal", terms))
    }

    /// The id of a deal of another marketplace: `derive_key("tribunal.v1 imported deal", chain id ‖ storage ‖ its id there)`.
    pub fn imported(chain_id: u64, storage: &[u8; 20], foreign_id: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 imported deal");
        hasher.update(&chain_id.to_be_bytes()).update(storage).update(foreign_id.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl EventId {
    /// The id of the event with these bytes.
    pub fn of_event(event: &[u8]) -> Self {
        Self(*blake3::hash(event).as_bytes())
    }
}

impl Digest {
    /// BLAKE3 of the bytes.
    pub fn blake3(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl ChainLink {
    /// What a deal's chain starts from: 32 zero bytes.
    pub const GENESIS: Self = Self([0; 32]);

    /// The link after `record`.
    pub fn extend(&self, record: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 link");
        hasher.update(&self.0).update(record);
        Self(*hasher.finalize().as_bytes())
    }
}

/// Where the bytes of an artifact are proved by their address: `blake3:<64 hex>` or `sha256:<64 hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentAddress {
    /// BLAKE3 of the bytes.
    Blake3([u8; 32]),
    /// SHA-256 of the bytes.
    Sha256([u8; 32]),
}

impl ContentAddress {
    /// The address of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::Blake3(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blake3(digest) => write!(f, "blake3:{}", hex::encode(digest)),
            Self::Sha256(digest) => write!(f, "sha256:{}", hex::encode(digest)),
        }
    }
}

impl FromStr for ContentAddress {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let address = match text.split_once(':') {
            Some(("blake3", digits)) => hex32(digits).map(Self::Blake3),
            Some(("sha256", digits)) => hex32(digits).map(Self::Sha256),
            _ => None,
        };
        address.ok_or_else(|| IdError::ContentAddress(short(text)))
    }
}

impl Serialize for ContentAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

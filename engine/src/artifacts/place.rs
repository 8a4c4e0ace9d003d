//! One entry of `verifiers.artifacts`.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where artifacts are.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of files, and of CAR files.
    Folder(PathBuf),
    /// `https://gateway.example/ipfs/`: a trustless IPFS gateway, for CIDs.
    Gateway(String),
    /// `https://files.example/{blake3}`: a file an artifact, its digest's hex digits in the place of `{blake3}` or `{sha256}`, or
    /// the whole address in that of `{address}`.
    Files(String),
    /// `nats:BUCKET`: an object store of the bus's server, objects named by address.
    Bucket(String),
}

/// Names that a template may have in braces.
const NAMES: [&str; 3] = ["{blake3}", "{sha256}", "{address}"];

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(bucket) = text.strip_prefix("nats:") {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            return match !bucket.is_empty() && bucket.len() <= 64 && bucket.bytes().all(good) {
                true => Ok(Self::Bucket(bucket.to_owned())),
                false => Err(format!("{text}: nats: and the name of a bucket, of letters, digits, - and _")),
            };
        }
        if !text.contains("://") {
            return match text.is_empty() {
                true => Err("an empty place of artifacts".into()),
                false => Ok(Self::Folder(text.into())),
            };
        }
        let wrong = |problem: &str| Err(format!("{}: {problem}", crate::config::place(text)));
        let Ok(url) = reqwest::Url::parse(text) else { return wrong("is no URL") };
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return wrong("artifacts come from a folder, http://, https:// or nats:BUCKET");
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            // Settings are shown and faults are logged.
            return wrong("has a user, password, query or fragment");
        }
        // Names are in the path, so that no address decides which host is asked.
        let named = |text: &str| NAMES.iter().map(|name| text.matches(name).count()).sum::<usize>();
        let path = text.splitn(4, '/').nth(3).unwrap_or_default();
        match (named(text), named(path)) {
            (0, 0) if url.path().trim_end_matches('/').ends_with("/ipfs") => {
                Ok(Self::Gateway(text.trim_end_matches('/').to_owned()))
            }
            (1, 1) => Ok(Self::Files(text.to_owned())),
            _ => wrong(
                "a gateway ends with /ipfs/, and other URLs have one of {blake3}, {sha256} or {address} in their path",
            ),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Gateway(url) => write!(f, "{url}/"),
            Self::Files(template) => f.write_str(template),
            Self::Bucket(name) => write!(f, "nats:{name}"),
        }
    }
}

/// As its text: an audit that is resumed compares that.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_string().fmt(f)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in [
            "fixtures",
            "/var/lib/a b",
            "https://gateway.example/ipfs/",
            "http://127.0.0.1:8080/under/ipfs/",
            "https://files.example/{blake3}",
            "https://files.example/a/{sha256}/b",
            "https://files.example/{address}.bin",
            "nats:artifacts",
        ] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("https://gateway.example/ipfs".parse::<Place>(), "https://gateway.example/ipfs/".parse());
        for wrong in [
            "",
            "nats:",
            "nats:a b",
            "nats://bus.example:4222",
            "ftp://files.example/{blake3}",
            "https://files.example/",
            "https://{blake3}.example/",
            "https://files.example/{blake3}/{sha256}",
            "https://files.example/ipfs/{blake3}?token=secret",
            "https://me:secret@files.example/{blake3}",
            "https:///{blake3}",
        ] {
            let problem = wrong.parse::<Place>().unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}

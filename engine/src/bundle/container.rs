//! The outer form: named sections under digests.

use std::collections::BTreeMap;

/// How a bundle of this format begins.
pub const MAGIC: &[u8] = b"tribunal-bundle 2\n";
/// Sections at most.
pub const SECTIONS_MAX: usize = 65_536;
/// Bytes of a bundle at most.
pub const BUNDLE_BYTES_MAX: u64 = 1 << 30;

const DIGEST_BYTES: usize = 32;
const HEX_BYTES: usize = 64;
const NAME_BYTES_MAX: usize = 100;
/// Digest, length, name and what stands between them.
const LINE_BYTES_MAX: usize = HEX_BYTES + 1 + 20 + 1 + NAME_BYTES_MAX;

/// Bytes that cannot be read as a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleFault {
    /// Something else altogether, or of a later version.
    #[error("this is no evidence bundle of format 2: it does not begin with the line `tribunal-bundle 2`")]
    NoBundle,
    /// A digest does not hold.
    #[error("the file was changed or damaged: {0}")]
    Changed(String),
    /// The digests hold, but what they cover is not in the format.
    #[error("{place}: {problem}")]
    Malformed {
        /// Section or manifest line.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

pub(super) fn malformed(place: impl Into<String>, problem: impl Into<String>) -> BundleFault {
    BundleFault::Malformed { place: place.into(), problem: problem.into() }
}

/// One line of the manifest with the bytes that it is about.
struct Section<'a> {
    name: &'a str,
    digest: &'a str,
    body: &'a [u8],
}

/// Writes sections as a bundle.
///
/// # Panics
/// For a name that the format does not know, or too many sections.
pub fn write(sections: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    assert!(sections.len() <= SECTIONS_MAX, "{} sections", sections.len());
    let bodies: usize = sections.values().map(Vec::len).sum();
    let mut bytes = Vec::with_capacity(MAGIC.len() + sections.len() * LINE_BYTES_MAX + bodies + DIGEST_BYTES);
    bytes.extend_from_slice(MAGIC);
    for (name, body) in sections {
        assert!(is_name(name), "section {name:?}");
        bytes.extend_from_slice(format!("{} {} {name}\n", blake3::hash(body).to_hex(), body.len()).as_bytes());
    }
    bytes.push(b'\n');
    for body in sections.values() {
        bytes.extend_from_slice(body);
    }
    let digest = whole_digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// The sections of a bundle, every digest checked.
///
/// # Errors
/// [`BundleFault`] says what is wrong, and in which section where that can be told.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<&str, &[u8]>, BundleFault> {
    if !bytes.starts_with(MAGIC) {
        return Err(BundleFault::NoBundle);
    }
    let end = bytes.len().checked_sub(DIGEST_BYTES).filter(|end| *end > MAGIC.len());
    let Some(end) = end else { return Err(BundleFault::Changed("it ends within its first lines".into())) };
    let (covered, digest) = bytes.split_at(end);
    let intact = whole_digest(covered) == *digest;
    let sections = layout(covered);
    if !intact {
        // Where the change is, as far as the file itself can still tell.
        let what = match &sections {
            Err(fault) => fault.to_string(),
            Ok(sections) => match sections.iter().find(|section| !holds(section)) {
                Some(section) => format!("section {} has another digest than the manifest says", section.name),
                None => "every section is intact, so it is the manifest or the digest at the end".into(),
            },
        };
        return Err(BundleFault::Changed(what));
    }
    let sections = sections?;
    if let Some(section) = sections.iter().find(|section| !holds(section)) {
        return Err(malformed(section.name, "its digest is not the one in the manifest"));
    }
    Ok(sections.into_iter().map(|section| (section.name, section.body)).collect())
}

fn whole_digest(covered: &[u8]) -> [u8; DIGEST_BYTES] {
    blake3::derive_key("tribunal.v1 bundle", covered)
}

fn holds(section: &Section<'_>) -> bool {
    blake3::hash(section.body).to_hex().as_str() == section.digest
}

/// Takes manifest and bodies apart; all lengths are compared with what is there before anything is done with them.
fn layout(covered: &[u8]) -> Result<Vec<Section<'_>>, BundleFault> {
    let mut rest = &covered[MAGIC.len()..];
    let mut lines: Vec<(&str, &str, usize)> = Vec::new();
    loop {
        let place = format!("manifest line {}", lines.len() + 1);
        let end = rest.iter().take(LINE_BYTES_MAX + 1).position(|byte| *byte == b'\n');
        let Some(end) = end else { return Err(malformed(place, "no line of the manifest has so many bytes")) };
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        if lines.len() == SECTIONS_MAX {
            return Err(malformed(place, format!("at most {SECTIONS_MAX} sections")));
        }
        let read = read_line(line).ok_or_else(|| malformed(&place, "not a digest, a length and a name"))?;
        if let Some((before, ..)) = lines.last()
            && *before >= read.0
        {
            return Err(malformed(place, "names must ascend, none twice"));
        }
        lines.push(read);
    }
    let mut sections = Vec::with_capacity(lines.len());
    for (name, digest, length) in lines {
        let Some((body, after)) = rest.split_at_checked(length) else {
            return Err(malformed(name, format!("{length} bytes in the manifest, {} in the file", rest.len())));
        };
        sections.push(Section { name, digest, body });
        rest = after;
    }
    if rest.is_empty() { Ok(sections) } else { Err(malformed("the end", format!("{} bytes too many", rest.len()))) }
}

/// Name, digest, length.
fn read_line(line: &[u8]) -> Option<(&str, &str, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let (digest, rest) = line.split_once(' ')?;
    let (length, name) = rest.split_once(' ')?;
    let hex = digest.len() == HEX_BYTES && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let number: usize = length.parse().ok()?;
    // One way to write a number.
    (hex && number.to_string() == length && is_name(name)).then_some((name, digest, number))
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'/' | b':' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(known)
}

//! Tar archives, member by member: ustar, GNU long names and pax records, each with a bound.
//!
//! The `tar` crate would read a record that lengthens a name into memory however long it is, so records are read here.

use std::io::Read;

use tar::{Archive, EntryType};

use super::Stop;

/// Bytes of one record that lengthens a name.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a path or of a link's target.
const PATH_BYTES_MAX: usize = 4095;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    Hardlink,
    /// A device or a pipe.
    Special,
}

/// One member; its bytes come beside it.
pub(super) struct Member {
    pub(super) kind: Kind,
    /// As the archive has it.
    pub(super) path: Vec<u8>,
    /// Target of a link.
    pub(super) link: Vec<u8>,
    /// Permissions, without setuid, setgid and sticky.
    pub(super) mode: u32,
    /// Unix seconds, between 1970 and 9999.
    pub(super) modified_s: u64,
    pub(super) bytes: u64,
    /// Where the bytes begin in the archive.
    pub(super) position: u64,
}

#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    modified_s: Option<u64>,
}

/// Calls `visit` for every member, at most `members_max` of them; counts down what is left of those.
pub(super) fn read(
    archive: impl Read,
    members_max: &mut usize,
    visit: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let broken = |error: std::io::Error| Stop::invalid(format!("the archive cannot be read: {error}"));
    let mut archive = Archive::new(archive);
    let mut records = Records::default();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        *members_max = members_max
            .checked_sub(1)
            .ok_or_else(|| Stop::operator("the image has more members than this verifier unpacks"))?;
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Special,
            EntryType::GNULongName => {
                records.path = Some(name(record(&mut entry)?));
                continue;
            }
            EntryType::GNULongLink => {
                records.link = Some(name(record(&mut entry)?));
                continue;
            }
            EntryType::XHeader => {
                pax(&record(&mut entry)?, &mut records)?;
                continue;
            }
            EntryType::XGlobalHeader => {
                record(&mut entry)?;
                continue;
            }
            other => return Err(Stop::unsupported(format!("the archive has a member of type {:?}", other.as_byte()))),
        };
        let bytes = header.entry_size().map_err(broken)?;
        let mode = header.mode().map_err(broken)? & 0o777;
        let modified_s = records.modified_s.unwrap_or(header.mtime().unwrap_or(0)).min(253_402_300_799);
        let path = records.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let own_link = || header.link_name_bytes().map_or_else(Vec::new, std::borrow::Cow::into_owned);
        let link = records.link.take().unwrap_or_else(own_link);
        if path.len().max(link.len()) > PATH_BYTES_MAX {
            return Err(Stop::invalid(format!("a path or link in the archive has more than {PATH_BYTES_MAX} bytes")));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(Stop::invalid("a path or link in the archive has a zero byte"));
        }
        // Archives older than ustar have no type for folders.
        let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Folder } else { kind };
        let position = entry.raw_file_position();
        records = Records::default();
        visit(&Member { kind, path, link, mode, modified_s, bytes, position }, &mut entry)?;
    }
    Ok(())
}

/// The path as plain names; `.` and a slash at the end say nothing. Absolute paths and `..` are refused.
pub(super) fn plain(path: &[u8]) -> Result<Vec<&[u8]>, Stop> {
    let shown = || String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
    if path.starts_with(b"/") {
        return Err(Stop::invalid(format!("{:?} in the archive is an absolute path", shown())));
    }
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    if names.contains(&&b".."[..]) {
        return Err(Stop::invalid(format!("{:?} in the archive leads upwards", shown())));
    }
    Ok(names)
}

fn record(entry: &mut impl Read) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let read = entry.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Stop::invalid(format!("the archive cannot be read: {error}")))?;
    if bytes.len() as u64 > RECORD_BYTES_MAX {
        return Err(Stop::invalid(format!("a record before a member has more than {RECORD_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn name(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn pax(bytes: &[u8], records: &mut Records) -> Result<(), Stop> {
    for extension in tar::PaxExtensions::new(bytes) {
        let extension = extension.map_err(|error| Stop::invalid(format!("a pax record is malformed: {error}")))?;
        let value = extension.value_bytes();
        match extension.key_bytes() {
            b"path" => records.path = Some(value.to_vec()),
            b"linkpath" => records.link = Some(value.to_vec()),
            b"mtime" => {
                let whole = value.split(|byte| *byte == b'.').next().unwrap_or_default();
                // Times before 1970 count as 1970.
                records.modified_s = Some(std::str::from_utf8(whole).ok().and_then(|s| s.parse().ok()).unwrap_or(0));
            }
            // The header has room for eight GiB; more than that is unpacked nowhere here.
            b"size" => return Err(Stop::unsupported("a pax record gives a member's size")),
            key if key.starts_with(b"GNU.sparse.") => return Err(Stop::unsupported("the archive has a sparse file")),
            _ => {}
        }
    }
    Ok(())
}

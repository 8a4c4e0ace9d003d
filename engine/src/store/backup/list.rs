//! The list of a backup's files: a line of JSON, and a line with the BLAKE3 of the first.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path},
};

use serde::{Deserialize, Serialize};
use tribunal_events::DealId;

use super::{BackupFault, io};

pub(super) const LIST: &str = "BACKUP";
pub(super) const VERSION: u64 = 1;
const LIST_BYTES_MAX: u64 = 64 << 20;
const SEAL: &str = "blake3 ";

/// What a generation of backups holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Version of this list.
    pub backup: u64,
    /// Its number.
    pub generation: u64,
    /// Format of the store in it.
    pub store_format: u64,
    /// The last log position in it.
    pub position: u64,
    /// The deal of the record there.
    pub last_deal: Option<DealId>,
    /// That deal's chain after the record, in hex.
    pub last_link: Option<String>,
    /// Every file but the list, by name.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFile {
    /// `store/…` or `beside/…`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// 64 hex digits.
    pub blake3: String,
}

impl Backup {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_string(self).expect("the list has a JSON form");
        text.push('\n');
        let seal = blake3::hash(text.as_bytes()).to_hex();
        text.push_str(&format!("{SEAL}{seal}\n"));
        text.into_bytes()
    }

    pub(super) fn read(generation: &Path) -> Result<Self, BackupFault> {
        let path = generation.join(LIST);
        let damaged = |what: String| BackupFault::Damaged { path: path.clone(), what };
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing: the backup did not end, or lost it".into()));
            }
            other => other.map_err(io("reading", &path))?,
        };
        if !metadata.is_file() || metadata.len() > LIST_BYTES_MAX {
            return Err(damaged("it is no list of files".into()));
        }
        let bytes = fs::read(&path).map_err(io("reading", &path))?;
        let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| {
            let (list, seal) = text.split_at(text.find('\n')? + 1);
            let expected = format!("{SEAL}{}\n", blake3::hash(list.as_bytes()).to_hex());
            (seal == expected).then(|| serde_json::from_str::<Self>(list))
        });
        let backup = match parsed {
            None => return Err(damaged("it does not match the digest at its end".into())),
            Some(Err(error)) => return Err(damaged(error.to_string())),
            Some(Ok(backup)) if backup.backup != VERSION => {
                return Err(damaged(format!("version {} is unknown here", backup.backup)));
            }
            Some(Ok(backup)) => backup,
        };
        let mut names = BTreeSet::new();
        for file in &backup.files {
            if !well_placed(&file.name) {
                return Err(damaged(format!("it names {:?}, which is no place in a backup", file.name)));
            }
            if !names.insert(&file.name) {
                return Err(damaged(format!("it names {:?} twice", file.name)));
            }
        }
        Ok(backup)
    }
}

/// `store/NAME` or `beside/NAME`, and nothing that leads anywhere else.
fn well_placed(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let folder = matches!(parts.next(), Some(Component::Normal(folder)) if folder == "store" || folder == "beside");
    let file = matches!(parts.next(), Some(Component::Normal(_)));
    // `components` passes over what is empty or a dot.
    folder && file && parts.next().is_none() && name.split('/').count() == 2 && !name.contains(['\0', '\\'])
}

/// The files in a generation but its list, by name; folders, too, where they are not to be.
pub(super) fn names(generation: &Path) -> Result<Vec<String>, BackupFault> {
    let mut found = Vec::new();
    for folder in ["", "store", "beside"] {
        let path = generation.join(folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.is_empty() => continue,
            other => other.map_err(io("reading", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(io("reading", &path))?;
            let kind = entry.file_type().map_err(io("reading", &entry.path()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match (folder, &name[..]) {
                ("", LIST) => {}
                ("", "store" | "beside") if kind.is_dir() => {}
                ("", _) => found.push(name),
                _ => found.push(format!("{folder}/{name}")),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Everything on the disk is in the list, everything in the list on the disk, and all of it plain files.
pub(super) fn find_strays(generation: &Path, backup: &Backup) -> Result<(), BackupFault> {
    let damaged =
        |name: &str, what: &str| Err(BackupFault::Damaged { path: generation.join(name), what: what.to_owned() });
    let listed: BTreeSet<&str> = backup.files.iter().map(|file| &file.name[..]).collect();
    let found = names(generation)?;
    for name in &found {
        if !listed.contains(&name[..]) {
            return damaged(name, "the list does not name it");
        }
        let path = generation.join(name);
        if !fs::symlink_metadata(&path).map_err(io("reading", &path))?.is_file() {
            return damaged(name, "it is no plain file");
        }
    }
    match listed.into_iter().find(|name| found.iter().all(|it| it != name)) {
        Some(name) => damaged(name, "the file is missing"),
        None => Ok(()),
    }
}

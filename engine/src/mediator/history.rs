//! What a mediator means to sign, kept outside the store: the reason why it never signs two verdicts in one round.
//!
//! One file, JSON lines, appended and synced before a signature exists. The first line names the format, every other is
//! an [`Entry`] with `link` = BLAKE3 `derive_key("tribunal.v1 history", previous link, the line without its link)`. A line
//! that a crash cut off was never synced, so nothing was signed for it; it is dropped. Anything else that does not fit is a
//! fault: a history that cannot be trusted signs nothing.
//!
//! [`Exchange`] is the form in which a history moves from machine to machine, in the manner of the files of validators'
//! slashing protection (EIP-3076).
//!
//! **Invariant:** a slot (mediator, terms hash, round) gets one verdict for ever; the first one wins.
//! **Invariant:** what [`History::intend`] returned is on the disk.
//! **Invariant:** one process holds a history at a time.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tribunal_events::{Address, B256, DealId, Signature, Timestamp, VerdictKind};

/// The first line of a history.
const HEADER: &str = r#"{"tribunal_signing_history":1}"#;
/// A line at most, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// Salts kept for one vote, beside the own one, at most.
const OTHER_SALTS_MAX: usize = 8;
/// A reason code at most, in bytes.
pub const REASON_CODE_BYTES_MAX: usize = 128;
/// A file to import at most, in bytes.
pub const EXCHANGE_BYTES_MAX: u64 = 256 << 20;
/// Name of the exchange format.
const EXCHANGE_FORMAT: &str = "tribunal-signing-history";

/// Where two signatures would be equivocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The key.
    pub mediator: Address,
    /// EIP-712 hash of the terms' money struct.
    pub terms_hash: B256,
    /// The round, from 0.
    pub round: u32,
}

/// A verdict that a mediator means to sign, or has signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The key.
    pub mediator: Address,
    /// EIP-155 id of the deal's chain, 0 without one.
    pub chain_id: u64,
    /// The deal's escrow, zero without one.
    pub contract: Address,
    /// The deal.
    pub deal_id: DealId,
    /// EIP-712 hash of the terms' money struct.
    pub terms_hash: B256,
    /// The round, from 0.
    pub round: u32,
    /// The verdict.
    pub verdict: VerdictKind,
    /// The claimed instruction count that it repeats.
    #[serde(with = "decimal")]
    pub instruction_count: u64,
    /// Verdict digest.
    pub digest: B256,
    /// BLAKE3 of the claim that was judged: the same verdict on another claim is another word.
    pub claim_digest: B256,
    /// Why, as a stable code.
    pub reason_code: String,
    /// What hides a committed vote until it is revealed.
    pub salt: B256,
    /// Microseconds since 1970 by this machine's clock; for people.
    pub at_us: u64,
    /// Salts of the same verdict on other machines, of which one may be the one committed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_salts: Vec<B256>,
    /// Another machine means to sign, or signed, something else here: nothing is ever signed again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
}

impl Entry {
    /// Its slot.
    pub const fn slot(&self) -> Slot {
        Slot { mediator: self.mediator, terms_hash: self.terms_hash, round: self.round }
    }

    /// Whether both give the same signature: only then signing both is no equivocation.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.slot(), it.verdict, it.instruction_count, it.digest, it.claim_digest);
        of(self) == of(other)
    }

    /// What claims this slot on a bus: 32 bytes that hold for this verdict with this salt alone.
    pub fn claim(&self) -> [u8; CLAIM_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 slot claim");
        hasher.update(self.mediator.as_slice()).update(self.terms_hash.as_slice());
        hasher.update(&self.round.to_be_bytes()).update(&[self.verdict as u8]);
        hasher.update(&self.instruction_count.to_be_bytes()).update(self.digest.as_slice());
        hasher.update(self.claim_digest.as_slice()).update(self.salt.as_slice());
        *hasher.finalize().as_bytes()
    }
}

/// Bytes of a claim without its signature.
pub const CLAIM_BYTES: usize = 32;

impl Slot {
    /// What a mediator signs to claim a slot (keccak256 of it): no EIP-712 message and no transaction begins like this.
    pub fn claim_preimage(&self, claim: &[u8; CLAIM_BYTES]) -> Vec<u8> {
        let parts: [&[u8]; 5] = [
            b"tribunal.v1 slot claim",
            self.mediator.as_slice(),
            self.terms_hash.as_slice(),
            &self.round.to_be_bytes(),
            claim,
        ];
        parts.concat()
    }

    /// The claim in a message (claim, then signature), where the slot's mediator signed it.
    pub fn read_claim(&self, message: &[u8]) -> Option<[u8; CLAIM_BYTES]> {
        let (claim, signature) = message.split_first_chunk::<CLAIM_BYTES>()?;
        let signature = Signature::from_slice(signature).ok()?;
        let signer = signature.recover(alloy_primitives::keccak256(self.claim_preimage(claim))).ok()?;
        (signer == self.mediator).then_some(*claim)
    }
}

/// Numbers beyond 2^53 survive every JSON reader as decimal strings.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    link: B256,
}

/// Why a history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryFault {
    /// Another process signs with it.
    #[error("the signing history {0} is in use by another process; two engines on one key would sign twice")]
    InUse(String),
    /// The disk failed.
    #[error("the signing history {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("the signing history {path} is damaged at line {line}: {what}; import the newest export before signing")]
    Damaged {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A file to import is of another kind.
    #[error("this is no signing history to import: {0}")]
    Exchange(String),
}

/// The history of the keys that sign on this machine.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None after a failed write: what reached the disk is known only after opening again.
    file: Option<File>,
    link: B256,
    entries: BTreeMap<Slot, Entry>,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Slots that were not known.
    pub added: usize,
    /// Slots known with the same verdict.
    pub known: usize,
    /// Slots known with another verdict; now nothing is signed in them.
    pub blocked: usize,
}

/// The form in which a history moves between machines.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    metadata: Metadata,
    data: Vec<OfMediator>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format: String,
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfMediator {
    mediator: Address,
    verdicts: Vec<Entry>,
}

impl Exchange {
    /// These entries, by mediator.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut by_mediator = BTreeMap::<Address, Vec<Entry>>::new();
        for entry in entries {
            by_mediator.entry(entry.mediator).or_default().push(entry);
        }
        let data = by_mediator.into_iter().map(|(mediator, verdicts)| OfMediator { mediator, verdicts }).collect();
        Self { metadata: Metadata { format: EXCHANGE_FORMAT.into(), version: 1 }, data }
    }

    /// Reads an exported history.
    ///
    /// # Errors
    /// [`HistoryFault::Exchange`] says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, HistoryFault> {
        let this: Self = serde_json::from_slice(bytes).map_err(|error| HistoryFault::Exchange(error.to_string()))?;
        let Metadata { format, version } = &this.metadata;
        if (format.as_str(), *version) != (EXCHANGE_FORMAT, 1) {
            let what = format!("{EXCHANGE_FORMAT} version 1 is known, not {format} version {version}");
            return Err(HistoryFault::Exchange(what));
        }
        for of in &this.data {
            if let Some(other) = of.verdicts.iter().find(|entry| entry.mediator != of.mediator) {
                let what = format!("a verdict of {:#x} stands among those of {:#x}", other.mediator, of.mediator);
                return Err(HistoryFault::Exchange(what));
            }
            if let Some(long) = of.verdicts.iter().find(|entry| entry.reason_code.len() > REASON_CODE_BYTES_MAX) {
                let what = format!("the reason code of {} is longer than {REASON_CODE_BYTES_MAX} bytes", long.deal_id);
                return Err(HistoryFault::Exchange(what));
            }
            if let Some(salted) = of.verdicts.iter().find(|entry| entry.other_salts.len() > OTHER_SALTS_MAX) {
                let what = format!("{} has more than {OTHER_SALTS_MAX} salts", salted.deal_id);
                return Err(HistoryFault::Exchange(what));
            }
        }
        Ok(this)
    }

    /// All entries.
    pub fn entries(self) -> impl Iterator<Item = Entry> {
        self.data.into_iter().flat_map(|of| of.verdicts)
    }
}

impl History {
    /// Where the history of a store is kept unless the settings say otherwise: beside it, so that a restored store does
    /// not bring back an old history.
    pub fn default_path(store: &Path) -> PathBuf {
        let mut name = store.file_name().unwrap_or_default().to_owned();
        name.push(".history.jsonl");
        store.with_file_name(name)
    }

    /// Opens a history, or begins one, and holds it against other processes.
    ///
    /// # Errors
    /// [`HistoryFault`]; nothing may be signed then.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HistoryFault> {
        let path = path.into();
        let shown = path.display().to_string();
        let io = |source| HistoryFault::Io { path: shown.clone(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(io)?;
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HistoryFault::InUse(shown)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let (entries, link, sound_bytes) = read(&mut file, &shown)?;
        file.set_len(sound_bytes).map_err(io)?;
        file.seek(SeekFrom::Start(sound_bytes)).map_err(io)?;
        if sound_bytes == 0 {
            file.write_all(format!("{HEADER}\n").as_bytes()).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        // The file's name is durable only once its folder is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(Self { path, inner: Mutex::new(Inner { file: Some(file), link, entries }) })
    }

    /// The entries of a history that may be in use.
    ///
    /// # Errors
    /// [`HistoryFault`] where it cannot be read.
    pub fn read(path: &Path) -> Result<Vec<Entry>, HistoryFault> {
        let shown = path.display().to_string();
        let mut file = File::open(path).map_err(|source| HistoryFault::Io { path: shown.clone(), source })?;
        Ok(read(&mut file, &shown)?.0.into_values().collect())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be signed in a slot, if that is settled.
    pub fn entry(&self, slot: &Slot) -> Option<Entry> {
        self.inner().entries.get(slot).cloned()
    }

    /// How many slots are taken.
    pub fn len(&self) -> usize {
        self.inner().entries.len()
    }

    /// Whether nothing was ever to be signed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, by slot.
    pub fn entries(&self) -> Vec<Entry> {
        self.inner().entries.values().cloned().collect()
    }

    /// Takes a slot for a verdict, unless it is taken: gives the entry that holds, which is on the disk.
    ///
    /// # Errors
    /// Where it cannot be made durable; then nothing may be signed.
    pub fn intend(&self, entry: Entry) -> Result<Entry, HistoryFault> {
        let mut inner = self.inner();
        if let Some(first) = inner.entries.get(&entry.slot()) {
            return Ok(first.clone());
        }
        self.append(&mut inner, entry.clone())?;
        Ok(entry)
    }

    /// Signs nothing in this slot any more.
    ///
    /// # Errors
    /// Where it cannot be made durable.
    pub fn block(&self, slot: &Slot) -> Result<(), HistoryFault> {
        let mut inner = self.inner();
        match inner.entries.get(slot) {
            Some(entry) if !entry.blocked => {
                let entry = Entry { blocked: true, ..entry.clone() };
                self.append(&mut inner, entry)
            }
            _ => Ok(()),
        }
    }

    /// Takes in what another machine meant to sign. Where the two differ, the slot is blocked.
    ///
    /// # Errors
    /// Where it cannot be made durable.
    pub fn import(&self, entries: impl IntoIterator<Item = Entry>) -> Result<Imported, HistoryFault> {
        let mut imported = Imported::default();
        for entry in entries {
            let slot = entry.slot();
            match self.entry(&slot) {
                None => {
                    self.intend(entry)?;
                    imported.added += 1;
                }
                Some(holds) if holds.agrees_with(&entry) && (holds.blocked || !entry.blocked) => {
                    self.learn_salts(holds, &entry)?;
                    imported.known += 1;
                }
                Some(_) => {
                    self.block(&slot)?;
                    imported.blocked += 1;
                }
            }
        }
        Ok(imported)
    }

    /// Keeps what may be needed to reveal a vote that another machine committed to.
    fn learn_salts(&self, mut holds: Entry, other: &Entry) -> Result<(), HistoryFault> {
        let known = holds.other_salts.len();
        for salt in other.other_salts.iter().chain([&other.salt]) {
            let new = *salt != holds.salt && !holds.other_salts.contains(salt);
            if new && holds.other_salts.len() < OTHER_SALTS_MAX {
                holds.other_salts.push(*salt);
            }
        }
        if holds.other_salts.len() == known { Ok(()) } else { self.append(&mut self.inner(), holds) }
    }

    fn append(&self, inner: &mut Inner, entry: Entry) -> Result<(), HistoryFault> {
        let shown = || self.path.display().to_string();
        let Some(mut file) = inner.file.take() else {
            let source = std::io::Error::other("an earlier write failed; start again");
            return Err(HistoryFault::Io { path: shown(), source });
        };
        let link = link(&inner.link, &entry);
        let line = Line { entry, link };
        let mut text = serde_json::to_vec(&line).expect("an entry has a JSON form");
        text.push(b'\n');
        assert!(text.len() <= LINE_BYTES_MAX, "an entry is small");
        let written = file.write_all(&text).and_then(|()| file.sync_data());
        written.map_err(|source| HistoryFault::Io { path: shown(), source })?;
        inner.file = Some(file);
        inner.link = link;
        inner.entries.insert(line.entry.slot(), line.entry);
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn link(previous: &B256, entry: &Entry) -> B256 {
    let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 history");
    hasher.update(previous.as_slice()).update(&serde_json::to_vec(entry).expect("an entry has a JSON form"));
    B256::new(*hasher.finalize().as_bytes())
}

/// Entries, the last link, and how many bytes of the file are sound.
fn read(file: &mut File, shown: &str) -> Result<(BTreeMap<Slot, Entry>, B256, u64), HistoryFault> {
    let io = |source| HistoryFault::Io { path: shown.to_owned(), source };
    let damaged = |line, what: String| HistoryFault::Damaged { path: shown.to_owned(), line, what };
    let (mut entries, mut last, mut sound) = (BTreeMap::new(), B256::ZERO, 0u64);
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut reader = BufReader::new(file);
    for number in 1.. {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut reader, LINE_BYTES_MAX as u64);
        let bytes = limited.read_until(b'\n', &mut line).map_err(io)?;
        if bytes == 0 {
            break;
        }
        if line.pop_if(|byte| *byte == b'\n').is_none() {
            if bytes == LINE_BYTES_MAX {
                return Err(damaged(number, format!("a line has at most {LINE_BYTES_MAX} bytes")));
            }
            // Cut off by a crash before it was synced.
            break;
        }
        if number == 1 {
            if line != HEADER.as_bytes() {
                return Err(damaged(1, format!("{HEADER} was expected")));
            }
        } else {
            let parsed: Line = serde_json::from_slice(&line).map_err(|error| damaged(number, error.to_string()))?;
            let expected = link(&last, &parsed.entry);
            if parsed.link != expected {
                return Err(damaged(number, format!("link {expected} was expected, not {}", parsed.link)));
            }
            last = parsed.link;
            entries.insert(parsed.entry.slot(), parsed.entry);
        }
        sound += bytes as u64;
    }
    Ok((entries, last, sound))
}

/// When an entry was made, for people.
pub fn when(entry: &Entry) -> String {
    Timestamp::from_us(entry.at_us).to_string()
}

//! What one account sent or is about to, by nonce: in memory, and in a journal where there is one.

use std::{collections::BTreeMap, path::Path};

use alloy_primitives::{Bytes, keccak256};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tribunal_events::{Address, B256};

use crate::line_file::{LineFile, LineFileFault};

/// A line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Entry {
    /// About to be sent: the first time for this nonce, or in place of one with lower fees.
    Signed {
        effect: B256,
        what: String,
        nonce: u64,
        /// The newest block before it.
        seen_block: u64,
        hash: B256,
        /// The signed transaction.
        raw: Bytes,
    },
    /// What came of a nonce.
    Ended { effect: B256, nonce: u64, ending: Ending },
}

/// What came of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ending {
    /// One of ours was mined and did what it should.
    Mined { hash: B256, block: u64 },
    /// One of ours was mined and reverted.
    Failed { hash: B256, block: u64 },
    /// Somebody else's transaction was mined.
    Replaced { by: Option<B256> },
    /// No node ever took it.
    Refused,
}

/// A signed transaction.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub hash: B256,
    pub raw: Bytes,
}

/// All that was signed for a nonce.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub effect: B256,
    pub what: String,
    pub seen_block: u64,
    /// Ever higher fees, the last is the newest. Never empty.
    pub signed: Vec<Signed>,
    /// [`Ending::Mined`] or [`Ending::Failed`], as of the last look.
    pub ended: Option<Ending>,
    /// Since when the chain could have taken the newest, in this process.
    pub next_since: Option<Instant>,
    /// Since when a nonce before it is nobody's.
    pub gap_since: Option<Instant>,
    /// Since when the chain has used the nonce and no receipt is found.
    pub unfound_since: Option<Instant>,
    /// A node said that it offers too little.
    pub underpriced: bool,
}

impl Attempt {
    pub(super) fn newest(&self) -> &Signed {
        self.signed.last().expect("one is signed before an attempt exists")
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    file: Option<LineFile<Entry>>,
    attempts: BTreeMap<u64, Attempt>,
    by_effect: BTreeMap<B256, u64>,
}

impl Lane {
    /// Without a path only in memory.
    pub(super) fn open(path: Option<&Path>, chain_id: u64, account: Address) -> Result<Self, LineFileFault> {
        let mut lane = Self { file: None, attempts: BTreeMap::new(), by_effect: BTreeMap::new() };
        if let Some(path) = path {
            let header = format!(r#"{{"tribunal_sender":1,"chain_id":{chain_id},"account":"{account}"}}"#);
            let (file, entries) = LineFile::open(path, header)?;
            for (index, entry) in entries.into_iter().enumerate() {
                if let Entry::Signed { hash, raw, .. } = &entry
                    && keccak256(raw) != *hash
                {
                    let problem = format!("{hash} is not the hash of the transaction beside it");
                    let path = path.display().to_string();
                    return Err(LineFileFault::Damaged { path, line: index + 2, problem });
                }
                lane.apply(entry);
            }
            lane.file = Some(file);
        }
        Ok(lane)
    }

    /// Notes it on the disk, then here.
    pub(super) fn record(&mut self, entry: Entry) -> Result<(), LineFileFault> {
        if let Some(file) = &mut self.file {
            file.append(std::slice::from_ref(&entry))?;
        }
        self.apply(entry);
        Ok(())
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Signed { effect, what, nonce, seen_block, hash, raw } => {
                let signed = Signed { hash, raw };
                match self.attempts.get_mut(&nonce) {
                    Some(attempt) if attempt.effect == effect => {
                        attempt.signed.push(signed);
                        (attempt.next_since, attempt.underpriced) = (None, false);
                    }
                    _ => {
                        let attempt = Attempt {
                            effect,
                            what,
                            seen_block,
                            signed: vec![signed],
                            ended: None,
                            next_since: None,
                            gap_since: None,
                            unfound_since: None,
                            underpriced: false,
                        };
                        self.attempts.insert(nonce, attempt);
                        self.by_effect.insert(effect, nonce);
                    }
                }
            }
            Entry::Ended { effect, nonce, ending } => {
                match ending {
                    Ending::Mined { .. } => {}
                    // What failed or never was may be tried again.
                    Ending::Failed { .. } | Ending::Replaced { .. } | Ending::Refused => {
                        if self.by_effect.get(&effect) == Some(&nonce) {
                            self.by_effect.remove(&effect);
                        }
                    }
                }
                match (ending, self.attempts.get_mut(&nonce)) {
                    (Ending::Mined { .. } | Ending::Failed { .. }, Some(attempt)) => attempt.ended = Some(ending),
                    _ => {
                        self.attempts.remove(&nonce);
                    }
                }
            }
        }
    }

    /// The nonce that an effect was last tried with.
    pub(super) fn nonce_of(&self, effect: &B256) -> Option<u64> {
        self.by_effect.get(effect).copied()
    }

    pub(super) fn attempt(&self, nonce: u64) -> Option<&Attempt> {
        self.attempts.get(&nonce)
    }

    pub(super) fn attempt_mut(&mut self, nonce: u64) -> Option<&mut Attempt> {
        self.attempts.get_mut(&nonce)
    }

    /// The nonce after all that are in use here.
    pub(super) fn next_nonce(&self) -> u64 {
        self.attempts.last_key_value().map_or(0, |(nonce, _)| nonce + 1)
    }

    /// The lowest nonce in use here that the chain, at `latest`, has not used.
    pub(super) fn first_open(&self, latest: u64) -> Option<u64> {
        self.attempts.range(latest..).next().map(|(nonce, _)| *nonce)
    }

    /// Lets an effect that was done be done again.
    pub(super) fn release_mined(&mut self, effect: &B256) {
        let Some(nonce) = self.by_effect.get(effect) else { return };
        if self.attempts.get(nonce).is_some_and(|attempt| attempt.ended.is_some()) {
            self.by_effect.remove(effect);
        }
    }

    /// How many have ended.
    pub(super) fn ended(&self) -> usize {
        self.attempts.values().filter(|attempt| attempt.ended.is_some()).count()
    }

    /// Forgets what ended up to `final_block`, but for the newest `kept`, here and on the disk; nothing where that would
    /// be fewer than are kept.
    pub(super) fn forget(&mut self, final_block: u64, kept: usize) -> Result<(), LineFileFault> {
        let is_final = |attempt: &Attempt| match attempt.ended {
            Some(Ending::Mined { block, .. } | Ending::Failed { block, .. }) => block <= final_block,
            _ => false,
        };
        let ended: Vec<u64> =
            self.attempts.iter().filter(|(_, attempt)| is_final(attempt)).map(|(nonce, _)| *nonce).collect();
        let old = &ended[..ended.len().saturating_sub(kept)];
        if old.len() < kept {
            return Ok(());
        }
        for nonce in old {
            let Some(attempt) = self.attempts.remove(nonce) else { continue };
            if self.by_effect.get(&attempt.effect) == Some(nonce) {
                self.by_effect.remove(&attempt.effect);
            }
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut entries = Vec::new();
        for (nonce, attempt) in &self.attempts {
            for signed in &attempt.signed {
                entries.push(Entry::Signed {
                    effect: attempt.effect,
                    what: attempt.what.clone(),
                    nonce: *nonce,
                    seen_block: attempt.seen_block,
                    hash: signed.hash,
                    raw: signed.raw.clone(),
                });
            }
            if let Some(ending) = attempt.ended {
                entries.push(Entry::Ended { effect: attempt.effect, nonce: *nonce, ending });
            }
        }
        file.replace(&entries)
    }
}

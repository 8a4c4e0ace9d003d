//! Artifacts in memory.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest as _, Sha256};
use tribunal_events::ContentAddress;

use super::{ArtifactFault, ArtifactSource, file_of};
use crate::{AnyCid, Blocks, Reference};

/// Artifacts in memory, by address and by name.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    files: BTreeMap<String, Arc<[u8]>>,
    addresses: BTreeMap<ContentAddress, Arc<[u8]>>,
}

impl MemorySource {
    /// Holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes under both their addresses; gives the BLAKE3 one.
    pub fn add(&mut self, bytes: impl Into<Arc<[u8]>>) -> ContentAddress {
        let bytes = bytes.into();
        let address = ContentAddress::of(&bytes);
        self.addresses.insert(ContentAddress::Sha256(Sha256::digest(&bytes).into()), bytes.clone());
        self.addresses.insert(address, bytes);
        address
    }

    /// Adds bytes under their BLAKE3 address alone: SHA-256 of a module takes as long as a short job.
    pub(crate) fn add_blake3(&mut self, bytes: Arc<[u8]>) -> ContentAddress {
        let address = ContentAddress::of(&bytes);
        self.addresses.insert(address, bytes);
        address
    }

    /// Adds bytes under a file name and their addresses.
    pub fn add_file(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> ContentAddress {
        let bytes = bytes.into();
        self.files.insert(name.to_owned(), bytes.clone());
        self.add(bytes)
    }
}

impl ArtifactSource for MemorySource {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        Ok(match reference {
            Reference::File(name) => self.files.get(name).cloned(),
            Reference::Address(address) => self.addresses.get(address).cloned(),
            Reference::Cid(cid) => return file_of(self, cid),
        })
    }

    /// What was added is a block too, by its SHA-256.
    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        match self.addresses.get(&cid.block_address()) {
            Some(block) => into.keep(cid, Arc::clone(block)).map(|_| ()),
            None => Ok(()),
        }
    }
}

//! A trustless IPFS gateway: blocks, or all blocks of a graph as a CAR, every one checked before it is kept.
//!
//! Source: IPFS specs, Trustless Gateway (`?format=raw`, `?format=car`).

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::{
    StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use tribunal_verifiers::{
    AnyCid, ArtifactFault, ArtifactSource, BLOCK_BYTES_MAX, Blocks, Body, CarReader, Codec, NoAnswer, Reference,
    file_of,
};

use super::fetcher::{Fetcher, Head, pause, refused};

const RAW: &str = "application/vnd.ipld.raw";
const CAR: &str = "application/vnd.ipld.car";
/// Requests for one block.
const REQUESTS_MAX: u32 = 4;

/// A gateway, by its URL without a slash at the end.
pub(super) struct Gateway {
    fetcher: Arc<Fetcher>,
    url: String,
    /// It said that it sends no archives.
    no_archives: AtomicBool,
}

impl Gateway {
    pub(super) fn new(fetcher: Arc<Fetcher>, url: String) -> Self {
        Self { fetcher, url, no_archives: AtomicBool::new(false) }
    }

    fn get(&self, cid: &AnyCid, query: &str, accept: &'static str) -> Result<Head, NoAnswer> {
        let url = Url::parse(&format!("{}/{}?{query}", self.url, cid.version_1()));
        let url = url.map_err(|error| NoAnswer { problem: error.to_string(), again: false })?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        self.fetcher.get(url, headers)
    }

    fn fault(&self, cid: &AnyCid, problem: String) -> ArtifactFault {
        ArtifactFault::Remote { name: cid.to_string(), source_name: crate::config::place(&self.url), problem }
    }

    /// Asks for all that a root leads to. What does not come, or is wrong, is asked for block by block.
    fn archive(&self, root: &AnyCid, into: &mut Blocks) {
        let head = match self.get(root, "format=car&dag-scope=all&car-version=1&car-order=dfs&car-dups=n", CAR) {
            Ok(head) => head,
            Err(NoAnswer { problem, .. }) => {
                tracing::debug!(%root, problem, "a gateway sends no archive");
                return;
            }
        };
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if head.status != StatusCode::OK || !kind.starts_with(CAR) {
            let never = matches!(head.status.as_u16(), 200 | 400 | 405 | 406 | 415 | 501);
            self.no_archives.fetch_or(never, Ordering::Relaxed);
            return;
        }
        // Blocks of the graph that are kept, and as much again for what stands around them.
        let most = into.bytes_left().saturating_mul(2);
        let pieces = Pieces { body: head.body, piece: Vec::new(), at: 0 };
        let mut archive = match CarReader::open(pieces.take(most)) {
            Ok(archive) => archive,
            Err(fault) => {
                tracing::debug!(%root, %fault, "a gateway's archive is none");
                return;
            }
        };
        loop {
            let kept = match archive.next_block() {
                Ok(None) => return,
                Ok(Some((cid, _, block))) => into.keep(&cid, block).map(|_| ()),
                Err(fault) => {
                    tracing::debug!(%root, %fault, "a gateway's archive ends early");
                    return;
                }
            };
            if let Err(fault) = kept {
                tracing::warn!(%root, %fault, gateway = crate::config::place(&self.url), "a gateway sends wrong blocks");
                return;
            }
        }
    }

    fn block(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        let mut problem = String::new();
        for request in 0..REQUESTS_MAX {
            if request > 0 {
                pause(request);
            }
            let block = self.get(cid, "format=raw", RAW).and_then(|head| match head.status {
                StatusCode::OK => body(head.body).map(Some),
                StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
                status => Err(refused(status)),
            });
            match block {
                Ok(None) => return Ok(()),
                Ok(Some(block)) => return into.keep(cid, block).map(|_| ()),
                Err(NoAnswer { problem: why, again: true }) => problem = why,
                Err(NoAnswer { problem: why, again: false }) => return Err(self.fault(cid, why)),
            }
        }
        Err(self.fault(cid, problem))
    }
}

impl ArtifactSource for Gateway {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        match reference {
            Reference::Cid(cid) => file_of(self, cid),
            _ => Ok(None),
        }
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        if cid == into.root() && cid.codec() == Codec::DagPb && !self.no_archives.load(Ordering::Relaxed) {
            self.archive(cid, into);
            if into.get(cid).is_some() {
                return Ok(());
            }
        }
        self.block(cid, into)
    }
}

/// All of a body, at most as many bytes as a block has.
fn body(mut body: Body) -> Result<Vec<u8>, NoAnswer> {
    let mut bytes = Vec::new();
    loop {
        match body() {
            Ok(None) => return Ok(bytes),
            Ok(Some(piece)) if bytes.len() + piece.len() <= BLOCK_BYTES_MAX => bytes.extend(piece),
            Ok(Some(_)) => return Err(NoAnswer { problem: "sends more than a block has".into(), again: false }),
            Err(problem) => return Err(NoAnswer { problem, again: true }),
        }
    }
}

/// A body as something that is read.
struct Pieces {
    body: Body,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match (self.body)().map_err(io::Error::other)? {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len() - self.at);
        into[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

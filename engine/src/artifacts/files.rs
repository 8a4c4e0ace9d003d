//! Plain files over HTTP, one an artifact.

use std::{sync::Arc, time::Instant};

use reqwest::{
    StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use tribunal_events::ContentAddress;
use tribunal_verifiers::{
    ARTIFACT_BYTES_MAX, Answer, ArtifactFault, ArtifactSource, Cache, Download, NoAnswer, Piece, Reference, Remote,
    content_range, download,
};

use super::fetcher::{Fetcher, late, pause, refused};

/// A server that has artifacts under their digests.
pub(super) struct Files {
    fetcher: Arc<Fetcher>,
    template: String,
    cache: Arc<Cache>,
}

impl Files {
    pub(super) fn new(fetcher: Arc<Fetcher>, template: String, cache: Arc<Cache>) -> Self {
        Self { fetcher, template, cache }
    }

    /// Where an artifact is; nothing where the server knows only other digests.
    fn url(&self, address: &ContentAddress) -> Option<Url> {
        let (function, digits) = match address {
            ContentAddress::Blake3(digest) => ("{blake3}", hex::encode(digest)),
            ContentAddress::Sha256(digest) => ("{sha256}", hex::encode(digest)),
        };
        let text = match self.template.contains("{address}") {
            true => self.template.replace("{address}", &address.to_string()),
            false if self.template.contains(function) => self.template.replace(function, &digits),
            false => return None,
        };
        Url::parse(&text).ok()
    }
}

impl ArtifactSource for Files {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let Reference::Address(address) = reference else { return Ok(None) };
        let Some(url) = self.url(address) else { return Ok(None) };
        let name = crate::config::place(url.as_str());
        let mut file = File { fetcher: &self.fetcher, url, name, since: Instant::now() };
        match download(address, &mut file, ARTIFACT_BYTES_MAX, self.cache.take_part(address)) {
            Download::Whole(bytes) => Ok(Some(bytes)),
            Download::Absent => Ok(None),
            Download::Failed { fault, part } => {
                self.cache.keep_part(address, &part);
                Err(fault)
            }
        }
    }
}

/// One artifact of a server.
struct File<'a> {
    fetcher: &'a Fetcher,
    url: Url,
    name: String,
    since: Instant,
}

impl Remote for File<'_> {
    fn open(&mut self, from: u64, etag: Option<&str>) -> Result<Answer, NoAnswer> {
        late(self.since)?;
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            headers.extend(range.ok().map(|range| (header::RANGE, range)));
            let version = etag.and_then(|etag| HeaderValue::from_str(etag).ok());
            headers.extend(version.map(|version| (header::IF_RANGE, version)));
        }
        let head = self.fetcher.get(self.url.clone(), headers)?;
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let piece = match head.status {
            StatusCode::OK => {
                Piece::Whole { bytes: text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()) }
            }
            StatusCode::PARTIAL_CONTENT => match text(header::CONTENT_RANGE).and_then(content_range) {
                Some((from, total)) => Piece::Rest { from, total },
                None => {
                    let problem = "sends a part and does not say which".into();
                    return Err(NoAnswer { problem, again: false });
                }
            },
            StatusCode::NOT_FOUND | StatusCode::GONE => Piece::Absent,
            StatusCode::RANGE_NOT_SATISFIABLE => Piece::NoRest,
            status => return Err(refused(status)),
        };
        let etag = text(header::ETAG).map(str::to_owned);
        Ok(Answer { piece, etag, body: head.body })
    }

    fn pause(&mut self, in_vain: u32) {
        pause(in_vain);
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

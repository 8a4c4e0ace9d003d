//! The thread that waits for the network on behalf of threads that fetch.

use std::{
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use reqwest::{
    Client, StatusCode, Url,
    header::{self, HeaderMap},
    redirect::{Attempt, Policy},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tribunal_verifiers::{Body, NoAnswer};

use crate::failure::{Failure, with_causes};

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// For one whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// For all requests of one artifact.
pub(super) const ARTIFACT_TIMEOUT: Duration = Duration::from_secs(900);
const REDIRECTS_MAX: usize = 3;
/// Pieces that wait to be taken.
const PIECES_MAX: usize = 4;
/// The first pause before asking again; the next ones are twice as long each.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs requests. Dropped, it ends its thread.
pub(super) struct Fetcher {
    handle: Handle,
    client: Client,
    /// Dropped first: then the thread ends.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The head of an answer, and its body.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl Fetcher {
    /// Starts the thread.
    pub(super) fn start() -> Result<Self, Failure> {
        tribunal_contracts::install_tls();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(Policy::custom(redirect))
            .build()
            .map_err(Failure::unavailable)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::unavailable)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("artifacts".into())
            .spawn(move || {
                // An error says that the fetcher is dropped, which is what is waited for.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_background();
            })
            .map_err(Failure::unavailable)?;
        Ok(Self { handle, client, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs something on the thread and waits for what it sends: its first message, then pieces of a body.
    pub(super) fn run<T, F>(
        &self,
        task: impl FnOnce(oneshot::Sender<Result<T, NoAnswer>>, mpsc::Sender<Piece>) -> F,
    ) -> Result<(T, Body), NoAnswer>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (head, first) = oneshot::channel();
        let (send, mut pieces) = mpsc::channel(PIECES_MAX);
        // Dropped pieces end it at its next one.
        self.handle.spawn(task(head, send));
        let lost = || NoAnswer { problem: "was left while it answered".into(), again: false };
        let first = block_on(first).map_err(|_| lost())??;
        let mut ended = false;
        let body: Body = Box::new(move || {
            if ended {
                return Ok(None);
            }
            match block_on(pieces.recv()) {
                Some(Piece::Bytes(bytes)) => Ok(Some(bytes)),
                Some(Piece::End) => {
                    ended = true;
                    Ok(None)
                }
                Some(Piece::Broken(problem)) => Err(problem),
                None => Err("was left while it answered".into()),
            }
        });
        Ok((first, body))
    }

    /// Asks for a URL with these headers.
    pub(super) fn get(&self, url: Url, headers: HeaderMap) -> Result<Head, NoAnswer> {
        let client = self.client.clone();
        let (head, body) = self.run(|head, pieces| async move {
            let request = client.get(url).header(header::ACCEPT_ENCODING, "identity").headers(headers);
            let mut answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) => {
                    let again = !error.is_redirect() && !error.is_builder();
                    let _ = head.send(Err(NoAnswer { problem: problem(error), again }));
                    return;
                }
            };
            if head.send(Ok((answer.status(), answer.headers().clone()))).is_err() {
                return;
            }
            loop {
                let piece = match answer.chunk().await {
                    Ok(Some(bytes)) => Piece::Bytes(bytes.to_vec()),
                    Ok(None) => Piece::End,
                    Err(error) => Piece::Broken(problem(error)),
                };
                let last = !matches!(piece, Piece::Bytes(_));
                if pieces.send(piece).await.is_err() || last {
                    return;
                }
            }
        })?;
        let (status, headers) = head;
        let encoding = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
        if encoding.is_some() {
            return Err(NoAnswer { problem: "sends an encoding that was not asked for".into(), again: false });
        }
        Ok(Head { status, headers, body })
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only panics where a task's panic was not caught, and then there is nothing to clean up.
            let _ = thread.join();
        }
    }
}

/// A piece of a body.
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
    Broken(String),
}

fn problem(error: reqwest::Error) -> String {
    format!("gives no answer: {}", with_causes(&error.without_url()))
}

/// Follows a redirect that stays with the host that the operator listed, or below it, and does not leave TLS.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let Some(first) = attempt.previous().first() else { return attempt.stop() };
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error("redirects too often");
    }
    if stays(first, attempt.url()) { attempt.follow() } else { attempt.error("redirects to another host") }
}

fn stays(from: &Url, to: &Url) -> bool {
    let scheme = from.scheme() == to.scheme() || (from.scheme() == "http" && to.scheme() == "https");
    let (Some(listed), Some(host)) = (from.host_str(), to.host_str()) else { return false };
    let port =
        from.port_or_known_default() == to.port_or_known_default() || (from.port().is_none() && to.port().is_none());
    // An address has nothing below it.
    let below = from.domain().is_some() && host.strip_suffix(listed).is_some_and(|rest| rest.ends_with('.'));
    scheme && port && (host == listed || below)
}

/// What a status other than those of success says.
pub(super) fn refused(status: StatusCode) -> NoAnswer {
    let again = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    NoAnswer { problem: format!("answers with {status}"), again }
}

/// Waits before the next request.
pub(super) fn pause(in_vain: u32) {
    std::thread::sleep(PAUSE.saturating_mul(1 << in_vain.min(4)));
}

/// Whether an artifact has taken too long.
pub(super) fn late(since: Instant) -> Result<(), NoAnswer> {
    match since.elapsed() > ARTIFACT_TIMEOUT {
        true => Err(NoAnswer { problem: "took too long".into(), again: false }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_where_the_operator_listed() {
        for (from, to, expected) in [
            ("https://gateway.example/ipfs/a", "https://gateway.example/ipfs/b", true),
            ("https://gateway.example/ipfs/a", "https://a.ipfs.gateway.example/", true),
            ("http://gateway.example/ipfs/a", "https://gateway.example/ipfs/a", true),
            ("http://gateway.example:8080/a", "http://a.gateway.example:8080/a", true),
            ("https://gateway.example/ipfs/a", "http://gateway.example/ipfs/a", false),
            ("https://gateway.example/ipfs/a", "https://evilgateway.example/", false),
            ("https://gateway.example/ipfs/a", "https://example/", false),
            ("https://gateway.example/ipfs/a", "https://169.254.169.254/", false),
            ("http://gateway.example/ipfs/a", "http://gateway.example:22/", false),
            ("http://gateway.example:8080/a", "https://gateway.example/", false),
            ("http://127.0.0.1:1/a", "http://127.0.0.1:2/a", false),
            ("http://0.0.1/a", "http://127.0.0.1/a", false),
        ] {
            assert_eq!(stays(&from.parse().unwrap(), &to.parse().unwrap()), expected, "{from} {to}");
        }
    }
}

//! What only one may take: the first valid message on a subject, and the one after a message that is known.

use std::sync::PoisonError;

use async_nats::jetstream::{context::PublishErrorKind, message::PublishMessage, stream::RawMessageErrorKind};
use prost::bytes::Bytes;

use super::{NatsBus, failed};
use crate::bus::{BusFault, SLOTS, subject};

/// Subjects of claims that are remembered at most.
const UNCLAIMED_MAX: usize = 10_000;
/// Messages that are looked at for one claim at once, at most.
const CLAIM_ATTEMPTS_MAX: u32 = 1000;

impl NatsBus {
    pub(super) async fn claim_subject(
        &self,
        subject: &str,
        bytes: Bytes,
        valid: &(dyn Fn(&[u8]) -> bool + Send + Sync),
    ) -> Result<Bytes, BusFault> {
        let doing = "claiming a slot";
        if !subject::is_publishable(subject) {
            return Err(BusFault::Subject(subject.into()));
        }
        let stream = self.context.get_stream_no_info(SLOTS).await.map_err(|error| failed(doing, error))?;
        let unclaimed = || self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut seen, mut stuck) = (unclaimed().get(subject).copied().unwrap_or(0), false);
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            // From the leader: what others published before us is there.
            match stream.get_first_raw_message_by_subject(subject, seen + 1).await {
                Ok(message) if valid(&message.payload) => return Ok(message.payload),
                Ok(message) => (seen, stuck) = (message.sequence, false),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    let message = PublishMessage::build().payload(bytes.clone()).expected_last_subject_sequence(seen);
                    let sent = match self.context.send_publish(subject.to_owned(), message).await {
                        Ok(ack) => ack.await,
                        Err(error) => Err(error),
                    };
                    match sent {
                        Ok(_) => return Ok(bytes),
                        // Somebody came in between, or the answer to an earlier attempt of ours was lost: look again.
                        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                            // Twice with nothing new to see: the stream is another one than was read before.
                            seen = if stuck { 0 } else { seen };
                            stuck = true;
                        }
                        Err(error) => return Err(BusFault::Timeout { doing, what: error.to_string() }),
                    }
                }
                // The stream was removed: made again, it is as empty as it would be with no stream.
                Err(error) => {
                    self.ensure_stream(SLOTS).await?;
                    return Err(BusFault::Timeout { doing, what: error.to_string() });
                }
            }
        }
        let mut unclaimed = unclaimed();
        if unclaimed.len() >= UNCLAIMED_MAX {
            unclaimed.clear();
        }
        unclaimed.insert(subject.to_owned(), seen);
        Err(BusFault::Timeout { doing, what: format!("{subject} is flooded with what is no claim") })
    }
    /// Publishes the message that follows message `after` on its subject; nothing where another one does already.
    pub(super) async fn publish_next(
        &self,
        stream: &str,
        subject: &str,
        after: u64,
        bytes: Bytes,
    ) -> Result<Option<u64>, BusFault> {
        let doing = "publishing what comes next";
        if !subject::is_publishable(subject) {
            return Err(BusFault::Subject(subject.into()));
        }
        let message = PublishMessage::build().payload(bytes).expected_last_subject_sequence(after);
        let sent = match self.context.send_publish(subject.to_owned(), message).await {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(ack) => Ok(Some(ack.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    self.ensure_stream(stream).await?;
                }
                Err(BusFault::Timeout { doing, what: error.to_string() })
            }
        }
    }
}

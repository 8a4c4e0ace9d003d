//! Sending events so that they arrive: over the bus until a signed receipt comes back, or over HTTP.
//!
//! **Invariant:** an event counts as admitted only by a receipt for that very event whose signature holds.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use prost::Message as _;
use tokio::time::Instant;
use tribunal_events::{Address, DealId, Envelope, EventId, Receipt, ReceiptStatus, proto};

use crate::{
    bus::{Bus, BusFault, Notice, RECEIPTS},
    effects::outgoing,
};

/// How often the bus is looked through for a receipt that was not seen passing.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a sender waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the receipt before the event is sent again; doubles each time.
    pub resend_after: Duration,
    /// In all.
    pub total: Duration,
}

impl Default for Patience {
    /// Again after 2 seconds, 30 seconds in all.
    fn default() -> Self {
        Self { resend_after: Duration::from_secs(2), total: Duration::from_secs(30) }
    }
}

/// A receipt whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub receipt: Receipt,
    /// Who signed it.
    pub signer: Address,
    /// The message as signed.
    pub message: proto::Receipt,
}

/// Why it is not known what became of an event.
#[derive(Debug, thiserror::Error)]
pub enum SendFault {
    /// It is no event.
    #[error("not sent: {0}")]
    Malformed(String),
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusFault),
    /// The service failed.
    #[error("{0}")]
    Service(String),
    /// Nobody answered.
    #[error("no receipt in {} seconds; it is safe to send the event again", .0.as_secs())]
    NoReceipt(Duration),
}

impl Answer {
    /// Reads a receipt for this event.
    ///
    /// # Errors
    /// A sentence that says why it is none.
    pub fn open(message: proto::Receipt, event_id: EventId) -> Result<Self, String> {
        let (receipt, signer) = Receipt::open(&message)?;
        if receipt.event_id != event_id {
            return Err(format!("the receipt is for event {}", receipt.event_id));
        }
        Ok(Self { receipt, signer, message })
    }

    /// Whether the event is in the record.
    pub fn is_recorded(&self) -> bool {
        self.receipt.status != ReceiptStatus::Refused
    }

    /// "admitted", "duplicate" or "refused".
    pub const fn word(&self) -> &'static str {
        match self.receipt.status {
            ReceiptStatus::Admitted => "admitted",
            ReceiptStatus::Duplicate => "duplicate",
            ReceiptStatus::Refused => "refused",
        }
    }

    /// For machines: readable fields, and the signed message in the JSON mapping of the schema.
    pub fn to_json(&self) -> serde_json::Value {
        let receipt = &self.receipt;
        let mut json = serde_json::json!({
            "event_id": receipt.event_id,
            "deal_id": receipt.deal_id,
            "status": self.word(),
            "stream_version": receipt.stream_version,
            "log_position": receipt.log_position,
            "signer": format!("{:#x}", self.signer),
            "receipt": tribunal_events::json::to_value("Receipt", &self.message),
        });
        if !self.is_recorded() {
            json["reason_code"] = receipt.reason_code.as_str().into();
            json["reason"] = receipt.reason.as_str().into();
        }
        json
    }
}

/// Who may sign receipts: the operator that a deal's terms name, as far as they were seen, or the one that is given.
#[derive(Clone, Debug, Default)]
pub struct Operators {
    given: Option<Address>,
    by_deal: BTreeMap<DealId, Address>,
}

impl Operators {
    /// With an operator that signs every receipt.
    pub const fn given(operator: Option<Address>) -> Self {
        Self { given: operator, by_deal: BTreeMap::new() }
    }

    /// Learns from an event that brings terms.
    pub fn learn(&mut self, envelope: &Envelope) {
        if let Ok(parsed) = envelope.clone().parse()
            && let Some(terms) = parsed.terms()
        {
            self.by_deal.insert(parsed.deal_id(), terms.operator);
        }
    }

    /// Refuses a receipt that somebody else signed.
    ///
    /// # Errors
    /// A sentence that names both.
    pub fn check(&self, answer: &Answer) -> Result<(), String> {
        let named = self.by_deal.get(&answer.receipt.deal_id).copied();
        // Terms that name another operator are refused by the engine that was asked, and by nobody else.
        let foreign = !answer.is_recorded() && answer.receipt.reason_code == "foreign-operator";
        let expected = self.given.or(named.filter(|_| !foreign));
        match expected {
            Some(expected) if expected != answer.signer => {
                Err(format!("the receipt is signed by {:#x}, not by the operator {expected:#x}", answer.signer))
            }
            _ => Ok(()),
        }
    }
}

/// Publishes an event and waits for its receipt; publishes it again, under another message id, until there is one.
///
/// # Errors
/// [`SendFault`]; the event may have been recorded nevertheless.
pub async fn send(
    bus: &dyn Bus,
    envelope: &Envelope,
    operators: &Operators,
    patience: Patience,
) -> Result<Answer, SendFault> {
    let out = outgoing(envelope).map_err(SendFault::Malformed)?;
    let event_id = envelope.event_id();
    let deal_id = envelope.deal_id_hint().unwrap_or_default();
    let subject = format!("receipts.{deal_id}.{event_id}");
    let deadline = Instant::now() + patience.total;
    let mut waiting =
        Waiting { bus, subject: &subject, event_id, operators, passing: bus.watch(&subject).await?, known: 0 };
    // An earlier refusal is no answer to this attempt.
    let earlier = bus.find(RECEIPTS, &subject).await?;
    waiting.known = earlier.as_ref().map_or(0, |message| message.stream_sequence);
    let mut attempt = u64::from(earlier.is_some());
    let mut pause = patience.resend_after;
    loop {
        // The broker drops a message id that it has seen: every attempt that is to be looked at needs one of its own.
        let id = if attempt == 0 { event_id.to_string() } else { format!("{event_id}/{attempt}-{}", attempt_mark()) };
        let published = bus.publish(out.clone().with_message_id(id)).await;
        let until = deadline.min(Instant::now() + pause);
        match published {
            Ok(_) => {
                if let Some(answer) = waiting.until(until).await? {
                    return Ok(answer);
                }
            }
            Err(fault) if fault.can_retry() && until < deadline => tokio::time::sleep_until(until).await,
            Err(fault) => return Err(fault.into()),
        }
        if Instant::now() >= deadline {
            return Err(SendFault::NoReceipt(patience.total));
        }
        attempt += 1;
        pause *= 2;
    }
}

/// Tells attempts of different senders apart.
fn attempt_mark() -> u64 {
    crate::engine::now().us()
}

struct Waiting<'a> {
    bus: &'a dyn Bus,
    subject: &'a str,
    event_id: EventId,
    operators: &'a Operators,
    passing: BoxStream<'static, Notice>,
    /// Sequence of the last receipt that was there before.
    known: u64,
}

impl Waiting<'_> {
    /// The receipt, if it comes in time.
    async fn until(&mut self, until: Instant) -> Result<Option<Answer>, SendFault> {
        let mut look = LOOK_EVERY.min(Duration::from_millis(100));
        loop {
            let next_look = Instant::now() + look;
            tokio::select! {
                biased;
                passing = self.passing.next() => match passing {
                    Some(notice) => {
                        if let Some(answer) = self.read(&notice.payload) {
                            return Ok(Some(answer));
                        }
                    }
                    None => return Err(BusFault::Closed.into()),
                },
                () = tokio::time::sleep_until(next_look.min(until)) => {
                    // What was published while the connection was away did not pass here.
                    match self.bus.find(RECEIPTS, self.subject).await {
                        Ok(Some(found)) => {
                            if let Some(answer) = self.read(&found.payload)
                                && (answer.is_recorded() || found.stream_sequence > self.known)
                            {
                                return Ok(Some(answer));
                            }
                        }
                        Ok(None) => {}
                        Err(fault) if fault.can_retry() => {}
                        Err(fault) => return Err(fault.into()),
                    }
                    look = LOOK_EVERY;
                    if Instant::now() >= until {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn read(&self, payload: &[u8]) -> Option<Answer> {
        let opened = proto::Receipt::decode(payload)
            .map_err(|error| error.to_string())
            .and_then(|message| Answer::open(message, self.event_id))
            .and_then(|answer| self.operators.check(&answer).map(|()| answer));
        opened.inspect_err(|problem| tracing::warn!(event_id = %self.event_id, problem, "not a receipt")).ok()
    }
}

/// Sends events to a service over HTTP.
pub struct HttpSender {
    client: reqwest::Client,
    url: reqwest::Url,
    token: Option<String>,
}

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

impl HttpSender {
    /// A sender to the service at `base`, `http://host:port`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the address.
    pub fn new(base: &str, token: Option<String>, patience: Patience) -> Result<Self, String> {
        let base = format!("{}/api/v1/events", base.trim_end_matches('/'));
        let url = reqwest::Url::parse(&base).map_err(|error| format!("{base}: {error}"))?;
        tribunal_contracts::install_tls();
        let client = reqwest::Client::builder()
            .timeout(patience.total)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, url, token })
    }

    /// Sends an event and reads its receipt.
    ///
    /// # Errors
    /// [`SendFault`]; the event may have been recorded nevertheless.
    pub async fn send(&self, envelope: &Envelope, operators: &Operators) -> Result<Answer, SendFault> {
        let service = |error: &dyn std::fmt::Display| SendFault::Service(format!("{}: {error}", self.url));
        let mut request = self.client.post(self.url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let request = request.header("Content-Type", "application/x-protobuf").body(envelope.encode());
        let mut response = request.send().await.map_err(|error| service(&chain(&error)))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| service(&chain(&error)))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(service(&"the answer is too long"));
            }
        }
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let receipt = &json["receipts"][0]["receipt"];
        if receipt.is_null() {
            let detail = json["detail"].as_str().unwrap_or("no problem document and no receipt").to_owned();
            let malformed = status == reqwest::StatusCode::BAD_REQUEST;
            return Err(if malformed { SendFault::Malformed(detail) } else { service(&format!("{status}: {detail}")) });
        }
        let message = tribunal_events::json::from_str("Receipt", &receipt.to_string());
        message
            .and_then(|message| Answer::open(message, envelope.event_id()))
            .and_then(|answer| operators.check(&answer).map(|()| answer))
            .map_err(|problem| service(&problem))
    }
}

/// An error with its causes: the outermost says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

//! How a mediator is heard: on the bus of its own engine, or by whoever else keeps the record.

use std::sync::{Arc, atomic::Ordering};

use futures::future::BoxFuture;
use tribunal_events::Envelope;

use super::history::{CLAIM_BYTES, Slot};
use crate::{
    bus::{Bus, HEADER_RECORDED_AT, Outgoing},
    effects::{Activity, outgoing},
    engine::now,
    partition::CLOCK_SUBJECT,
};

/// How a mediator is heard.
pub trait Voice: Send + Sync {
    /// Says something in a deal; `again` where it was said before and does not show in the record.
    fn say<'a>(&'a self, envelope: &'a Envelope, again: bool) -> BoxFuture<'a, Result<(), String>>;

    /// By how many microseconds the clock that deadlines are compared with is ahead of this machine's; nothing where it
    /// cannot be asked.
    fn clock_ahead_us(&self) -> BoxFuture<'_, Result<Option<i64>, String>>;

    /// Claims a slot with a signed message unless one that its mediator signed is there, and gives the claim that holds.
    fn claim<'a>(&'a self, slot: &'a Slot, message: Vec<u8>) -> BoxFuture<'a, Result<[u8; CLAIM_BYTES], String>>;
}

/// A voice on the bus.
pub struct OnBus {
    /// The bus.
    pub bus: Arc<dyn Bus>,
    /// Its recorded time, where words carry that.
    pub recorded: Option<Arc<Activity>>,
}

impl Voice for OnBus {
    fn say<'a>(&'a self, envelope: &'a Envelope, again: bool) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut out = outgoing(envelope)?;
            if again {
                // The broker drops a message id that it has seen.
                let id = format!("{}/{}", envelope.event_id(), now().us());
                out = out.with_message_id(id);
            }
            if let Some(activity) = &self.recorded {
                out = out.with_header(HEADER_RECORDED_AT, activity.clock_us.load(Ordering::SeqCst).to_string());
            }
            self.bus.publish(out).await.map(|_| ()).map_err(|fault| fault.to_string())
        })
    }

    fn clock_ahead_us(&self) -> BoxFuture<'_, Result<Option<i64>, String>> {
        Box::pin(async move {
            let before = now().us();
            let out = Outgoing::new(CLOCK_SUBJECT, Vec::new());
            self.bus.publish(out).await.map_err(|fault| fault.to_string())?;
            let found = self.bus.find(self.bus.stream(), CLOCK_SUBJECT).await.map_err(|fault| fault.to_string())?;
            let middle = before.midpoint(now().us());
            Ok(found.map(|tick| tick.at.us().cast_signed().saturating_sub(middle.cast_signed())))
        })
    }

    fn claim<'a>(&'a self, slot: &'a Slot, message: Vec<u8>) -> BoxFuture<'a, Result<[u8; CLAIM_BYTES], String>> {
        Box::pin(async move {
            let subject = format!("slots.{:#x}.{:#x}.{}", slot.mediator, slot.terms_hash, slot.round);
            let valid = |message: &[u8]| slot.read_claim(message).is_some();
            let holds = self.bus.claim(&subject, message.into(), &valid).await.map_err(|fault| fault.to_string())?;
            slot.read_claim(&holds).ok_or_else(|| format!("what holds {subject} is no claim"))
        })
    }
}

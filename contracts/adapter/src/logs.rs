//! Reading events in pieces that providers give.

use std::sync::atomic::{AtomicU64, Ordering};

use alloy::{
    providers::{DynProvider, Provider},
    rpc::types::{Filter, Log},
    transports::{RpcError, TransportError},
};

use crate::{
    ChainFault,
    endpoints::{EndpointFault, no_endpoint, too_much},
    json_rpc::fault,
};

/// How many blocks a provider lets one search cover, as learned from its answers. Share one for a chain.
#[derive(Debug)]
pub struct LogSpan {
    blocks: AtomicU64,
    blocks_max: u64,
}

impl LogSpan {
    /// Begins with the most, `blocks_max` (at least 1), and learns what is too many.
    pub fn new(blocks_max: u64) -> Self {
        let blocks_max = blocks_max.max(1);
        Self { blocks: AtomicU64::new(blocks_max), blocks_max }
    }

    /// How many blocks are asked for at a time now.
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    fn set(&self, blocks: u64) {
        self.blocks.store(blocks.clamp(1, self.blocks_max), Ordering::Relaxed);
    }
}

impl Default for LogSpan {
    /// No bound but what the provider says.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

/// Events in the blocks `from` to `to`, both included, in their order; asks in pieces where the provider refuses all.
///
/// # Errors
/// [`ChainFault::Unreachable`] where no node answers, or one refuses a single block.
pub async fn get_logs_split(
    provider: &DynProvider,
    filter: &Filter,
    from: u64,
    to: u64,
    span: &LogSpan,
) -> Result<Vec<Log>, ChainFault> {
    let mut logs = Vec::new();
    let (mut next, before) = (from, span.blocks());
    while next <= to {
        let blocks = span.blocks().min((to - next).saturating_add(1));
        let last = next + (blocks - 1);
        let piece = filter.clone().from_block(next).to_block(last);
        match provider.get_logs(&piece).await {
            Ok(found) => {
                logs.extend(found);
                // A little more every time: what was too many may have been a crowded stretch.
                if blocks == span.blocks() && last < to {
                    span.set(blocks.saturating_add((blocks / 4).max(1)));
                }
                if last == u64::MAX {
                    break;
                }
                next = last + 1;
            }
            Err(error) => {
                let verdict = Verdict::of(&error);
                if blocks == 1 && logs.is_empty() && next == from {
                    // It refuses whatever the size.
                    span.set(before);
                }
                if blocks > 1 && verdict != Verdict::Other {
                    span.set(blocks / 2);
                    tracing::debug!(
                        from = next,
                        to = last,
                        blocks = span.blocks(),
                        "a search was too much for the node"
                    );
                }
                // Many pieces of a node that has fallen silent would take for ever; the next try asks for less.
                if blocks == 1 || verdict != Verdict::TooMuch {
                    return Err(fault("events", error));
                }
            }
        }
    }
    Ok(logs)
}

/// What an error says about the size of a search.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    TooMuch,
    Perhaps,
    Other,
}

impl Verdict {
    pub(crate) fn of(error: &TransportError) -> Self {
        if let RpcError::ErrorResp(answer) = error {
            // Providers have many words for it, so all that is no limit of another kind counts.
            return if too_much(&answer.message) || !answer.is_retry_err() { Self::TooMuch } else { Self::Other };
        }
        let Some(none) = no_endpoint(error) else { return Self::Other };
        let any = |wanted: fn(&EndpointFault) -> bool| none.faults.iter().any(|(_, fault)| wanted(fault));
        if any(|fault| matches!(fault, EndpointFault::TooLarge(_) | EndpointFault::Status(413))) {
            Self::TooMuch
        } else if any(|fault| matches!(fault, EndpointFault::Silent(_) | EndpointFault::Status(502..=504))) {
            Self::Perhaps
        } else {
            Self::Other
        }
    }
}

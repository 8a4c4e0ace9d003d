//! How a command ends badly: one sentence on stderr and an exit code.

use std::{error::Error, fmt::Display};

use tribunal_contracts::ChainFault;

/// Bad usage: `EX_USAGE`.
pub const EXIT_USAGE: u8 = 64;
/// No NATS, no RPC, no store: `EX_UNAVAILABLE`.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// An unreadable configuration: `EX_CONFIG`.
pub const EXIT_CONFIG: u8 = 78;

/// Why a command could not do its work, and the exit code that says so.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// One sentence that says what to do.
    pub sentence: String,
}

impl Failure {
    /// A failure with an exit code of its own.
    pub fn new(code: u8, sentence: impl Display) -> Self {
        Self { code, sentence: sentence.to_string() }
    }

    /// Bad usage.
    pub fn usage(sentence: impl Display) -> Self {
        Self::new(EXIT_USAGE, sentence)
    }

    /// Bad configuration.
    pub fn config(sentence: impl Display) -> Self {
        Self::new(EXIT_CONFIG, sentence)
    }

    /// The world is not there.
    pub fn unavailable(sentence: impl Display) -> Self {
        Self::new(EXIT_UNAVAILABLE, sentence)
    }

    /// What a chain did not do: wrong addresses are settings, all else is the world.
    pub fn chain(fault: &ChainFault) -> Self {
        match fault {
            ChainFault::Unexpected { .. } | ChainFault::OtherContract { .. } => Self::config(fault),
            _ => Self::unavailable(with_causes(fault)),
        }
    }
}

/// A fault and what caused it in one sentence, what is said already left out.
pub fn with_causes(fault: &dyn Error) -> String {
    let mut sentence = fault.to_string();
    let mut next = fault.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !sentence.contains(&said) {
            sentence = format!("{sentence}: {said}");
        }
        next = cause.source();
    }
    sentence
}

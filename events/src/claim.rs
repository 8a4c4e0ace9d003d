use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ContentAddress, Digest, Terms, proto};

/// How a job is said to have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// By itself, with an exit code.
    Exit,
    /// By a trap.
    Trap,
    /// By using up the fuel that the deal set.
    OutOfFuel,
}

impl Termination {
    /// The word in claims.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Trap => "trap",
            Self::OutOfFuel => "out-of-fuel",
        }
    }
}

/// What somebody says a job gave; complete, so that nothing can be added later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// How it ended.
    pub termination: Termination,
    /// Exit code; 0 unless it ended by itself.
    pub exit_code: i32,
    /// Fuel used, as claimed.
    pub instruction_count: u64,
    /// Standard output.
    pub stdout: ContentAddress,
    /// Every file under the job's `outputs`, ascending by path.
    pub outputs: Vec<ClaimedFile>,
    /// The proof and its public inputs, where the method is a proof.
    pub proof: Option<(ContentAddress, ContentAddress)>,
    /// What it ran in, by name; nothing said: empty.
    pub environment: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

/// Checks what a claim says that it ran in: at most 16 entries, names of 1 to 64 characters out of a to z, 0 to 9, `-`, `_`
/// and `.`, values of 1 to 256 bytes without control characters.
///
/// # Errors
/// A sentence that names the entry.
pub fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), String> {
    if environment.len() > 16 {
        return Err(format!("at most 16 entries, not {}", environment.len()));
    }
    for (name, value) in environment {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            let short: String = name.chars().take(80).collect();
            return Err(format!("a name is 1 to 64 of a-z, 0-9, '-', '_' and '.', not {short:?}"));
        }
        if value.is_empty() || value.len() > 256 || value.chars().any(char::is_control) {
            return Err(format!("{name}: 1 to 256 bytes without control characters are needed"));
        }
    }
    Ok(())
}

/// One file of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedFile {
    /// Absolute path inside the job.
    pub path: String,
    /// Its bytes.
    pub artifact: ContentAddress,
}

impl Claim {
    /// Reads a claim.
    ///
    /// # Errors
    /// A sentence that names the field that is wrong or missing.
    pub fn parse(claim: &proto::Claim) -> Result<Self, String> {
        let termination = match claim.termination.as_str() {
            "" | "exit" => Termination::Exit,
            "trap" => Termination::Trap,
            "out-of-fuel" => Termination::OutOfFuel,
            other => return Err(format!("claim.termination is exit, trap or out-of-fuel, not {other:?}")),
        };
        if termination != Termination::Exit && claim.exit_code != 0 {
            return Err("claim.exit_code is 0 where the job did not end by itself".into());
        }
        if claim.outputs.len() > 1024 {
            return Err(format!("claim.outputs has at most 1024 files, not {}", claim.outputs.len()));
        }
        let artifact =
            |field: &str, text: &str| text.parse().map_err(|error: crate::IdError| format!("claim.{field}: {error}"));
        let mut outputs = Vec::new();
        for file in &claim.outputs {
            if file.path.len() > 1024 || !file.path.starts_with('/') {
                return Err(format!("claim.outputs.path is an absolute path, not {:?}", file.path));
            }
            outputs
                .push(ClaimedFile { path: file.path.clone(), artifact: artifact("outputs.artifact", &file.artifact)? });
        }
        if !outputs.is_sorted_by(|a, b| a.path < b.path) {
            return Err("claim.outputs must be ascending by path, without duplicates".into());
        }
        let proof = match (claim.proof.as_str(), claim.public_inputs.as_str()) {
            ("", "") => None,
            (proof, public) => Some((artifact("proof", proof)?, artifact("public_inputs", public)?)),
        };
        let entries = &claim.environment;
        if !entries.is_sorted_by(|a, b| a.name < b.name) {
            return Err("claim.environment must be ascending by name, without duplicates".into());
        }
        let environment = entries.iter().map(|entry| (entry.name.clone(), entry.value.clone())).collect();
        check_environment(&environment).map_err(|problem| format!("claim.environment: {problem}"))?;
        Ok(Self {
            termination,
            exit_code: claim.exit_code,
            instruction_count: claim.instruction_count,
            stdout: artifact("stdout", &claim.stdout)?,
            outputs,
            proof,
            environment,
            bytes: claim.encode_to_vec(),
        })
    }

    /// Whether it answers these terms: only files under the job's outputs, a proof exactly where one is asked for.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn fits(&self, terms: &Terms) -> Result<(), String> {
        let under = |path: &str| {
            terms.job.outputs.iter().any(|output| {
                path == output || path.strip_prefix(output.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
        };
        if let Some(file) = self.outputs.iter().find(|file| !under(&file.path)) {
            return Err(format!("claim.outputs has {}, which is under none of the job's outputs", file.path));
        }
        match (&terms.method, &self.proof) {
            (crate::Method::Proof { .. }, None) => Err("claim.proof and claim.public_inputs are missing".into()),
            (crate::Method::Proof { .. }, Some(_)) if self.outputs.len() != 1 => {
                Err("a proof is bound to one output file".into())
            }
            (crate::Method::Proof { .. }, Some(_)) => Ok(()),
            (_, Some(_)) => Err("claim.proof is given, but the deal asks for none".into()),
            (_, None) => Ok(()),
        }
    }

    /// BLAKE3 of the claim in the schema's canonical encoding (fields by number, defaults left out): what the
    /// provider's move in the contract carries.
    pub fn digest(&self) -> Digest {
        Digest::blake3(&self.bytes)
    }
}

impl Serialize for Claim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.bytes))
    }
}

impl<'de> Deserialize<'de> for Claim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        let message = proto::Claim::decode(bytes.as_slice()).map_err(serde::de::Error::custom)?;
        Self::parse(&message).map_err(serde::de::Error::custom)
    }
}

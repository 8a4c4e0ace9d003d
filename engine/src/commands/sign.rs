//! `tribunal sign EVENT.json`.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use serde_json::Value;
use tribunal_events::{
    Address, B256, Claim, DealId, Domain, Envelope, MoveAction, SigningKey, Terms,
    proto::{self, event::Kind},
};

use crate::failure::Failure;

/// Bytes of an input file at most.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// The fields of the schema that hold bytes; hex is taken in them, too. No text field has one of these names.
const BYTES_FIELDS: [&str; 27] = [
    "deal_id",
    "dealId",
    "sender",
    "terms_signature",
    "termsSignature",
    "seed_commitment",
    "seedCommitment",
    "move_signature",
    "moveSignature",
    "seed",
    "commitment",
    "salt",
    "digest",
    "signature",
    "nonce",
    "client",
    "provider",
    "solver",
    "operator",
    "mediators",
    "contract",
    "token",
    "treasury",
    "address",
    "public_key",
    "publicKey",
    "terms",
];

/// Signs an event and prints the envelope.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The event is proto3 JSON of tribunal.v1.Event; bytes are base64 or 0x and hex digits, and `proposed.terms` may be the terms as an object. deal_id, sender, schema_version and signatures of the parties that are empty are filled in.\n\nExample:\n  tribunal sign proposed.json --key client.json > events.jsonl\n  tribunal sign accepted.json --key client.json --terms events.jsonl >> events.jsonl"
)]
pub struct Args {
    /// The event; - for standard input.
    event: PathBuf,
    /// The sender's key file.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The key's password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The deal's terms: terms as JSON or protobuf, or a file whose first line is a proposal, signed or not.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["chain_id", "contract"])]
    terms: Option<PathBuf>,
    /// The chain that holds the deal's money, where no terms are given.
    #[arg(long, requires = "contract", value_name = "N")]
    chain_id: Option<u64>,
    /// The contract that holds the deal's money, where no terms are given.
    #[arg(long, requires = "chain_id", value_name = "ADDRESS")]
    contract: Option<Address>,
}

/// Runs the command.
///
/// # Errors
/// 64 for an event that cannot be signed as it stands.
pub fn run(args: Args, _json: bool) -> Result<ExitCode, Failure> {
    let text = String::from_utf8(read(&args.event)?)
        .map_err(|_| Failure::usage(format!("{} is no JSON text", args.event.display())))?;
    let terms = args.terms.as_deref().map(load_terms).transpose()?;
    let key = crate::keystore::load(&args.key, args.password_file.as_deref())?;
    let domain = Domain::new(args.chain_id.unwrap_or(0), args.contract.unwrap_or_default());
    let envelope = sign(&text, &key, terms.as_ref(), domain)
        .map_err(|problem| Failure::usage(format!("{}: {problem}", args.event.display())))?;
    println!("{}", tribunal_events::json::to_value("Envelope", &envelope.message()));
    Ok(ExitCode::SUCCESS)
}

/// Signs an event given as JSON; `terms` are the deal's, `domain` counts where there are none.
///
/// # Errors
/// A sentence that says what is wrong with the event.
pub fn sign(text: &str, key: &SigningKey, terms: Option<&Terms>, domain: Domain) -> Result<Envelope, String> {
    let mut event = event(text)?;
    if !event.sender.is_empty() && event.sender != key.address().as_slice() {
        return Err(format!("its sender is 0x{}, the key is {:#x}'s", hex::encode(&event.sender), key.address()));
    }
    if event.schema_version == 0 {
        event.schema_version = 1;
    }
    let inside = match &event.kind {
        None => return Err("it has no kind: proposed, agreed, accepted, …".into()),
        Some(Kind::Proposed(proposed)) => Some(Terms::decode(&proposed.terms).map_err(|error| error.to_string())?),
        Some(_) => None,
    };
    if let (Some(inside), Some(terms)) = (&inside, terms)
        && inside.deal_id() != terms.deal_id()
    {
        return Err("its terms are not those given with --terms".into());
    }
    let terms = inside.as_ref().or(terms);
    if let Some(terms) = terms {
        let deal_id = terms.deal_id();
        if !event.deal_id.is_empty() && event.deal_id != deal_id.bytes() {
            return Err(format!("its deal_id is 0x{}, that of the terms is {deal_id}", hex::encode(&event.deal_id)));
        }
        event.deal_id = deal_id.bytes().to_vec();
        countersign(&mut event, terms, key)?;
    } else if event.deal_id.is_empty() {
        return Err("it has no deal_id; give it, or the deal's terms with --terms".into());
    }
    DealId::from_slice(&event.deal_id).map_err(|error| error.to_string())?;
    let domain = terms.map_or(domain, Terms::domain);
    let envelope = Envelope::sign(&event, &domain, key).map_err(|error| error.to_string())?;
    // What no engine would read is not worth a signature.
    envelope.clone().parse().map_err(|error| error.to_string())?;
    Ok(envelope)
}

/// Fills in the signatures over money that the sender left empty.
fn countersign(event: &mut proto::Event, terms: &Terms, key: &SigningKey) -> Result<(), String> {
    let domain = terms.domain();
    let consent = |signature: &mut Vec<u8>| {
        if signature.is_empty() {
            *signature = key.sign(domain.terms_digest(terms.money())).bytes().to_vec();
        }
    };
    let moved = |signature: &mut Vec<u8>, action: MoveAction, count: u64, data: B256| {
        if signature.is_empty() && domain.on_chain() {
            *signature = key.sign(domain.move_digest(terms.hash(), action, count, data)).bytes().to_vec();
        }
    };
    let bytes32 = |name: &str, bytes: &[u8]| match bytes {
        [] => Ok(B256::ZERO),
        bytes => B256::try_from(bytes).map_err(|_| format!("{name} has 32 bytes, not {}", bytes.len())),
    };
    let Some(kind) = &mut event.kind else { return Ok(()) };
    if matches!(kind, Kind::Proposed(_) | Kind::Agreed(_)) && terms.party(key.address()).is_none() {
        return Err(format!("the key is {:#x}'s, who is neither client nor provider of these terms", key.address()));
    }
    match kind {
        Kind::Proposed(it) => {
            consent(&mut it.terms_signature);
            let seed = bytes32("proposed.seed_commitment", &it.seed_commitment)?;
            moved(&mut it.move_signature, MoveAction::Agree, 0, seed);
        }
        Kind::Agreed(it) => {
            consent(&mut it.terms_signature);
            let seed = bytes32("agreed.seed_commitment", &it.seed_commitment)?;
            moved(&mut it.move_signature, MoveAction::Agree, 0, seed);
        }
        Kind::ResultSubmitted(it) => {
            let claim = it.claim.as_ref().ok_or("result_submitted.claim is missing")?;
            let digest = Claim::parse(claim).map_err(|error| error.to_string())?.digest();
            moved(&mut it.move_signature, MoveAction::Submit, claim.instruction_count, B256::new(*digest.bytes()));
        }
        Kind::Accepted(it) => moved(&mut it.move_signature, MoveAction::Accept, 0, B256::ZERO),
        Kind::Disputed(it) => moved(&mut it.move_signature, MoveAction::Dispute, 0, B256::ZERO),
        Kind::SeedRevealed(it) => {
            let seed = bytes32("seed_revealed.seed", &it.seed)?;
            moved(&mut it.move_signature, MoveAction::Reveal, 0, seed);
        }
        Kind::Withdrawn(it) => moved(&mut it.move_signature, MoveAction::Withdraw, 0, B256::ZERO),
        _ => {}
    }
    Ok(())
}

/// Reads an event from its JSON, with hex where base64 is due and terms as an object where bytes are due.
fn event(text: &str) -> Result<proto::Event, String> {
    let mut json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    hex_to_base64(&mut json);
    if let Some(terms) = json.pointer_mut("/proposed/terms").filter(|terms| terms.is_object()) {
        let message: proto::Terms = tribunal_events::json::from_str("Terms", &terms.to_string())
            .map_err(|error| format!("proposed.terms: {error}"))?;
        *terms = STANDARD.encode(message.encode_to_vec()).into();
    }
    tribunal_events::json::from_str("Event", &json.to_string())
}

fn hex_to_base64(json: &mut Value) {
    fn bytes(json: &mut Value) {
        match json {
            Value::String(text) => {
                if let Some(digits) = text.strip_prefix("0x")
                    && let Ok(bytes) = hex::decode(digits)
                {
                    *text = STANDARD.encode(bytes);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(bytes),
            other => hex_to_base64(other),
        }
    }
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                if BYTES_FIELDS.contains(&name.as_str()) { bytes(value) } else { hex_to_base64(value) }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hex_to_base64),
        _ => {}
    }
}

/// Reads terms from whatever holds them.
fn load_terms(path: &Path) -> Result<Terms, Failure> {
    read_terms(path).map_err(|problem| Failure::usage(format!("--terms {problem}")))
}

/// Terms from a file (`-`: standard input): as JSON or protobuf, in a proposal, or in the envelope of one.
///
/// # Errors
/// A sentence that begins with the file.
pub fn read_terms(path: &Path) -> Result<Terms, String> {
    let bytes = read(path).map_err(|failure| failure.sentence)?;
    let wrong = |problem: String| format!("{}: {problem}", path.display());
    let encoded = match std::str::from_utf8(&bytes) {
        Ok(text) if text.trim_start().starts_with('{') => terms_bytes(text).map_err(wrong)?,
        _ => bytes,
    };
    Terms::decode(&encoded).map_err(|error| wrong(error.to_string()))
}

fn terms_bytes(text: &str) -> Result<Vec<u8>, String> {
    let proposed = |event: proto::Event| match event.kind {
        Some(Kind::Proposed(proposed)) => Ok(proposed.terms),
        _ => Err("the event in it is no proposal".to_owned()),
    };
    let first = serde_json::Deserializer::from_str(text).into_iter::<Value>().next();
    let mut json = first.ok_or("it is empty")?.map_err(|error| error.to_string())?;
    if json.get("event").is_some() {
        let envelope = Envelope::decode(json.to_string().as_bytes()).map_err(|error| error.to_string())?;
        return proposed(proto::Event::decode(envelope.event()).map_err(|error| error.to_string())?);
    }
    if json.get("proposed").is_some() {
        return proposed(event(&json.to_string())?);
    }
    hex_to_base64(&mut json);
    let terms: proto::Terms = tribunal_events::json::from_str("Terms", &json.to_string())?;
    Ok(terms.encode_to_vec())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| Failure::usage(format!("{shown}: {error}"));
    let mut bytes = Vec::new();
    let most = INPUT_BYTES_MAX + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        fs::File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::usage(format!("{shown} has more than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

use alloy_primitives::{Address, B256, keccak256};
use alloy_sol_types::{SolStruct, SolValue};
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Amount, Bps, Comparator, ContentAddress, DealId, Domain, Party, TermsStruct, Timestamp, domain::addresses_hash,
    proto,
};

/// Bytes of encoded terms at most.
const TERMS_BYTES_MAX: usize = 64 * 1024;
/// Seconds of any duration at most: ten years.
const DURATION_S_MAX: u64 = 10 * 366 * 86_400;
/// Unix seconds of the latest `agree_by`: the year 9999.
const AGREE_BY_S_MAX: u64 = 253_402_300_799;
/// Mediators a deal may allow, and voters, at most.
const MEMBERS_MAX: usize = 31;
/// Further panels after the first, at most.
const REDRAWS_MAX: u32 = 3;

/// Why bytes are no terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// More than 64 KiB.
    #[error("terms have at most {TERMS_BYTES_MAX} bytes, not {0}")]
    Size(usize),
    /// No protobuf message of this schema.
    #[error("terms are no tribunal.v1.Terms message: {0}")]
    Decode(String),
    /// A field is wrong.
    #[error("terms.{field}: {problem}")]
    Field {
        /// Path of the field in the schema.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

fn wrong<T>(field: &'static str, problem: impl Into<String>) -> Result<T, TermsError> {
    Err(TermsError::Field { field, problem: problem.into() })
}

/// What both parties signed: everything that decides an outcome. Made only from bytes that pass every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    id: DealId,
    hash: B256,
    domain: Domain,
    money: TermsStruct,
    /// The decoded message, for readers; the checks below have passed.
    message: proto::Terms,
    bytes: Vec<u8>,
    /// Pays.
    pub client: Address,
    /// Computes.
    pub provider: Address,
    /// Keeps the record, draws panels, signs receipts.
    pub operator: Address,
    /// Receives fees and what a slash leaves.
    pub treasury: Address,
    /// The job to run.
    pub job: Job,
    /// How a dispute is checked.
    pub method: Method,
    /// When two results agree.
    pub comparator: Comparator,
    /// Who resolves a dispute, and how.
    pub mediation: Mediation,
    /// What is paid and locked.
    pub pricing: Pricing,
    /// How long everybody has.
    pub timeouts: Timeouts,
    /// Protocol fee; zero where the deal is a public good.
    pub fee_bps: Bps,
    /// The victim's share of slashed results collateral.
    pub victim_bps: Bps,
    /// Who must serve the job's inputs in a dispute.
    pub inputs_served_by: Party,
    /// Who must serve the result in a dispute.
    pub outputs_served_by: Party,
}

/// A job by digests and limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Runtime profile, "wasm-1".
    pub runtime: String,
    /// The program.
    pub module: ContentAddress,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Environment, by name.
    pub env: Vec<(String, String)>,
    /// Standard input, if any.
    pub stdin: Option<ContentAddress>,
    /// Files put before the program.
    pub inputs: Vec<JobInput>,
    /// Files or folders collected from it.
    pub outputs: Vec<String>,
    /// What it may use.
    pub limits: Limits,
}

/// A file put before the program, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInput {
    /// Absolute path inside the job.
    pub path: String,
    /// Its bytes.
    pub artifact: ContentAddress,
}

/// What a job may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fuel of the runtime profile; beyond it the job ends `out-of-fuel`.
    pub fuel: u64,
    /// Bytes of linear memory; beyond it `memory.grow` fails.
    pub memory_bytes: u64,
    /// Bytes of files, stdout and stderr together; beyond it writes fail.
    pub output_bytes: u64,
    /// Milliseconds on the clock; beyond it the verdict is inconclusive.
    pub wall_ms: u64,
}

/// How a claim is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Run the job again.
    Reexecution,
    /// Check a proof.
    Proof {
        /// Proof system: "groth16".
        system: String,
        /// "bn254" or "bls12-381".
        curve: String,
        /// The pinned key.
        verification_key: ContentAddress,
        /// What public inputs must say.
        bind: Vec<ProofBinding>,
    },
    /// Compare with the claims of named replicators.
    Majority {
        /// When a group wins.
        rule: Rule,
        /// Who may vote.
        replicators: Vec<Replicator>,
    },
}

/// Two public inputs, high 128 bits first, that must equal a 256-bit value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofBinding {
    /// Index of the first of the two.
    pub input: u32,
    /// "deal-id" or "output-digest".
    pub to: String,
}

/// When a group of claims wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Weight of at least `quorum`.
    Quorum(u64),
    /// BOINC's rule with `min_quorum`.
    Boinc(u32),
    /// iExec's rule with `trust`.
    Credibility(u64),
}

/// One who computes the job too, to vote with its claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicator {
    /// Who signs `replica_submitted`.
    pub address: Address,
    /// Weight of the vote.
    pub weight: u64,
    /// Credibility score.
    pub score: u64,
}

/// Who resolves a dispute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mediation {
    /// Named at once or drawn.
    pub protocol: Protocol,
    /// Who may be drawn, ascending.
    pub mediators: Vec<Address>,
    /// Votes per round.
    pub panel_size: u32,
    /// Equal votes that decide; more than half of the panel.
    pub quorum: u32,
    /// Rounds after the first.
    pub redraws: u32,
    /// What silence costs a mediator's bond.
    pub silence_slash: Amount,
}

/// How the panel comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The one mediator that the terms name.
    Appointed,
    /// From both parties' seeds, with commit and reveal.
    Drawn,
}

/// What is paid and locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pricing {
    /// Per instruction rather than for the whole.
    pub metered: bool,
    /// The price, or the price of one instruction.
    pub price: Amount,
    /// Pmax: locked by the client.
    pub payment_collateral: Amount,
    /// C: locked by the provider.
    pub results_collateral: Amount,
    /// F: locked by each.
    pub mediation_fee: Amount,
    /// S: locked by the provider, lost by not submitting.
    pub submit_collateral: Amount,
    /// J: locked by the client, lost by not judging.
    pub judge_collateral: Amount,
}

/// How long everybody has, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Unix time until which the second party may agree.
    pub agree_by_s: u64,
    /// From agreement to the result.
    pub submit_s: u64,
    /// From the result to acceptance or dispute.
    pub judge_s: u64,
    /// From the dispute to both seeds; 0 where nobody is drawn.
    pub draw_s: u64,
    /// From a request to the artifact.
    pub availability_s: u64,
    /// For a round's votes.
    pub mediate_s: u64,
}

impl Serialize for Terms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.bytes))
    }
}

impl<'de> Deserialize<'de> for Terms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        Self::decode(&bytes).map_err(serde::de::Error::custom)
    }
}

impl Timeouts {
    /// The last moment of round `round` of a dispute opened at `disputed_at`: rounds follow a fixed schedule, so that
    /// a contract that knows only when the dispute was opened finds the same moment.
    pub fn mediate_deadline(&self, disputed_at: Timestamp, round: u32) -> Timestamp {
        let a_round = self.mediate_s.saturating_add(self.availability_s);
        let all = a_round.saturating_mul(u64::from(round) + 1);
        disputed_at.deadline_after_s(self.draw_s.saturating_add(all))
    }
}

impl Terms {
    /// Reads and checks terms.
    ///
    /// # Errors
    /// [`TermsError`] names the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, TermsError> {
        if bytes.len() > TERMS_BYTES_MAX {
            return Err(TermsError::Size(bytes.len()));
        }
        let message = proto::Terms::decode(bytes).map_err(|error| TermsError::Decode(error.to_string()))?;
        if message.version != 1 {
            return wrong("version", format!("this engine knows version 1, not {}", message.version));
        }
        if message.nonce.len() != 32 {
            return wrong("nonce", "32 random bytes are needed, so that no two deals have one id");
        }
        let settlement = message.settlement.clone().unwrap_or_default();
        if settlement.rule != 1 {
            return wrong("settlement.rule", format!("this engine knows rule 1, not {}", settlement.rule));
        }
        let contract = optional_address("settlement.contract", &settlement.contract)?;
        if (settlement.chain_id == 0) != contract.is_zero() {
            return wrong("settlement.contract", "a chain and a contract go together: both or neither");
        }
        let domain = Domain::new(settlement.chain_id, contract);
        let token = optional_address("settlement.token", &settlement.token)?;
        let treasury = address("settlement.treasury", &settlement.treasury)?;
        let members = message.members.clone().unwrap_or_default();
        let client = address("members.client", &members.client)?;
        let provider = address("members.provider", &members.provider)?;
        let operator = address("members.operator", &members.operator)?;
        optional_address("members.solver", &members.solver)?;
        if client == provider {
            return wrong("members.provider", "a client cannot be its own provider");
        }
        let (pricing, timeouts) = (pricing(&message)?, timeouts(&message)?);
        let mediation = mediation(&message, client, provider, &timeouts)?;
        let job = job(&message)?;
        let method = method(&message)?;
        if pricing.metered && !(matches!(method, Method::Reexecution) && job.runtime.starts_with("wasm")) {
            return wrong("pricing.metered", "only re-execution of a wasm job meters instructions; use a fixed price");
        }
        let fee = message.fee.unwrap_or_default();
        let Some(fee_bps) = Bps::new(if fee.public_good { 0 } else { fee.fee_bps }) else {
            return wrong("fee.fee_bps", "at most 10000");
        };
        let Some(victim_bps) = Bps::new(fee.victim_bps) else {
            return wrong("fee.victim_bps", "at most 10000");
        };
        let availability = message.availability.unwrap_or_default();
        let served_by = |field, party: i32, default| match Party::try_from(party) {
            Ok(Party::Unspecified) => Ok(default),
            Ok(party) => Ok(party),
            Err(_) => wrong(field, format!("1 is the client, 2 the provider, {party} nobody")),
        };
        let comparator = Comparator::read(message.comparator.clone().unwrap_or_default())
            .or_else(|(field, problem)| wrong(field, problem))?;
        if message.encryption_recipients.len() > MEMBERS_MAX {
            return wrong("encryption_recipients", format!("at most {MEMBERS_MAX}"));
        }
        let id = DealId::of_terms(bytes);
        let money = TermsStruct {
            dealId: B256::new(*id.bytes()),
            client,
            provider,
            token,
            treasury,
            price: pricing.price.base_units(),
            pricing: if pricing.metered { 2 } else { 1 },
            paymentCollateral: pricing.payment_collateral.base_units(),
            resultsCollateral: pricing.results_collateral.base_units(),
            submitCollateral: pricing.submit_collateral.base_units(),
            judgeCollateral: pricing.judge_collateral.base_units(),
            mediationFee: pricing.mediation_fee.base_units(),
            victimBps: victim_bps.get(),
            feeBps: fee_bps.get(),
            mediatorsHash: mediation.hash(operator),
            timeoutsHash: timeouts.hash(),
            rule: settlement.rule,
        };
        Ok(Self {
            id,
            hash: money.eip712_hash_struct(),
            domain,
            money,
            client,
            provider,
            operator,
            treasury,
            job,
            method,
            comparator,
            mediation,
            pricing,
            timeouts,
            fee_bps,
            victim_bps,
            inputs_served_by: served_by("availability.inputs", availability.inputs, Party::Client)?,
            outputs_served_by: served_by("availability.outputs", availability.outputs, Party::Provider)?,
            message,
            bytes: bytes.to_vec(),
        })
    }

    /// The deal that these terms found.
    pub const fn deal_id(&self) -> DealId {
        self.id
    }

    /// Struct hash of the EIP-712 `Terms`: what contracts and verdicts key by.
    pub const fn hash(&self) -> B256 {
        self.hash
    }

    /// The EIP-712 domain of every signature in this deal.
    pub const fn domain(&self) -> Domain {
        self.domain
    }

    /// The EIP-712 `Terms` that both parties sign.
    pub const fn money(&self) -> &TermsStruct {
        &self.money
    }

    /// The bytes as signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message as decoded.
    pub const fn message(&self) -> &proto::Terms {
        &self.message
    }

    /// The party's account.
    pub fn account(&self, party: Party) -> Address {
        if party == Party::Client { self.client } else { self.provider }
    }

    /// The party with this account.
    pub fn party(&self, account: Address) -> Option<Party> {
        match account {
            account if account == self.client => Some(Party::Client),
            account if account == self.provider => Some(Party::Provider),
            _ => None,
        }
    }
}

impl Mediation {
    /// `keccak256(abi.encode(address operator, address[] mediators, uint8 panelSize, uint8 quorum, uint8 redraws,
    /// bool drawn, uint256 silenceSlash))`: what binds the panel's rules into `termsHash`.
    pub fn hash(&self, operator: Address) -> B256 {
        let tuple = (
            operator,
            self.mediators.clone(),
            self.panel_size,
            self.quorum,
            self.redraws,
            self.protocol == Protocol::Drawn,
            self.silence_slash.base_units(),
        );
        keccak256(tuple.abi_encode_params())
    }

    /// `keccak256(abi.encode(address[]))` of a panel.
    pub fn panel_hash(panel: &[Address]) -> B256 {
        addresses_hash(panel)
    }
}

impl Timeouts {
    /// `keccak256(abi.encode(uint64 agreeBy, uint64 submit, uint64 judge, uint64 draw, uint64 availability,
    /// uint64 mediate))`, all in seconds.
    pub fn hash(&self) -> B256 {
        let Self { agree_by_s, submit_s, judge_s, draw_s, availability_s, mediate_s } = *self;
        keccak256((agree_by_s, submit_s, judge_s, draw_s, availability_s, mediate_s).abi_encode_params())
    }
}

fn address(field: &'static str, bytes: &[u8]) -> Result<Address, TermsError> {
    match optional_address(field, bytes)? {
        zero if zero.is_zero() => wrong(field, "must be given and not zero"),
        given => Ok(given),
    }
}

fn optional_address(field: &'static str, bytes: &[u8]) -> Result<Address, TermsError> {
    match bytes.len() {
        0 => Ok(Address::ZERO),
        20 => Ok(Address::from_slice(bytes)),
        other => wrong(field, format!("an address has 20 bytes, not {other}")),
    }
}

fn amount(field: &'static str, text: &str) -> Result<Amount, TermsError> {
    if text.is_empty() {
        return Ok(Amount::ZERO);
    }
    text.parse().or_else(|error: crate::amount::AmountError| wrong(field, error.to_string()))
}

fn artifact(field: &'static str, text: &str) -> Result<ContentAddress, TermsError> {
    text.parse().or_else(|error: crate::IdError| wrong(field, error.to_string()))
}

fn pricing(message: &proto::Terms) -> Result<Pricing, TermsError> {
    use proto::pricing::Kind;
    let pricing = message.pricing.clone().unwrap_or_default();
    let timeouts = message.timeouts.clone().unwrap_or_default();
    let (metered, price) = match &pricing.kind {
        Some(Kind::Fixed(fixed)) => (false, amount("pricing.fixed.price", &fixed.price)?),
        Some(Kind::Metered(metered)) => {
            (true, amount("pricing.metered.instruction_price", &metered.instruction_price)?)
        }
        None => return wrong("pricing", "fixed or metered is needed"),
    };
    let this = Pricing {
        metered,
        price,
        payment_collateral: amount("pricing.payment_collateral", &pricing.payment_collateral)?,
        results_collateral: amount("pricing.results_collateral", &pricing.results_collateral)?,
        mediation_fee: amount("pricing.mediation_fee", &pricing.mediation_fee)?,
        submit_collateral: amount("timeouts.submit_collateral", &timeouts.submit_collateral)?,
        judge_collateral: amount("timeouts.judge_collateral", &timeouts.judge_collateral)?,
    };
    if !metered && this.price > this.payment_collateral {
        return wrong("pricing.payment_collateral", "must cover the fixed price");
    }
    // Two parties' locks and a few sums of them stay far below 2^256.
    let large = |amount: &Amount| amount.base_units().bit_len() > 192;
    let all = [
        this.price,
        this.payment_collateral,
        this.results_collateral,
        this.mediation_fee,
        this.submit_collateral,
        this.judge_collateral,
    ];
    if all.iter().any(large) {
        return wrong("pricing", "amounts of a deal are below 2^192");
    }
    Ok(this)
}

fn timeouts(message: &proto::Terms) -> Result<Timeouts, TermsError> {
    let timeouts = message.timeouts.clone().unwrap_or_default();
    let durations = [
        ("timeouts.submit_s", timeouts.submit_s, 1),
        ("timeouts.judge_s", timeouts.judge_s, 1),
        ("timeouts.draw_s", timeouts.draw_s, 0),
        ("timeouts.availability_s", timeouts.availability_s, 1),
        ("timeouts.mediate_s", timeouts.mediate_s, 1),
    ];
    for (field, duration_s, least) in durations {
        if !(least..=DURATION_S_MAX).contains(&duration_s) {
            return wrong(field, format!("between {least} and {DURATION_S_MAX} seconds, not {duration_s}"));
        }
    }
    if !(1..=AGREE_BY_S_MAX).contains(&timeouts.agree_by_s) {
        return wrong("timeouts.agree_by_s", format!("a unix time up to {AGREE_BY_S_MAX} seconds"));
    }
    Ok(Timeouts {
        agree_by_s: timeouts.agree_by_s,
        submit_s: timeouts.submit_s,
        judge_s: timeouts.judge_s,
        draw_s: timeouts.draw_s,
        availability_s: timeouts.availability_s,
        mediate_s: timeouts.mediate_s,
    })
}

fn mediation(
    message: &proto::Terms,
    client: Address,
    provider: Address,
    timeouts: &Timeouts,
) -> Result<Mediation, TermsError> {
    use proto::mediation::Protocol as Kind;
    let mediation = message.mediation.clone().unwrap_or_default();
    let mut mediators = Vec::new();
    for mediator in &mediation.mediators {
        mediators.push(address("mediation.mediators", mediator)?);
    }
    if mediators.is_empty() || mediators.len() > MEMBERS_MAX {
        return wrong("mediation.mediators", format!("between 1 and {MEMBERS_MAX} are needed"));
    }
    if !mediators.is_sorted_by(|a, b| a < b) {
        return wrong("mediation.mediators", "must be ascending, without duplicates");
    }
    if mediators.contains(&client) || mediators.contains(&provider) {
        return wrong("mediation.mediators", "no party may judge its own deal");
    }
    let (protocol, panel_size, quorum, redraws) = match mediation.protocol {
        Some(Kind::Appointed(appointed)) => (Protocol::Appointed, 1, 1, appointed.redraws),
        Some(Kind::Drawn(drawn)) => (Protocol::Drawn, drawn.panel_size, drawn.quorum, drawn.redraws),
        None => return wrong("mediation.protocol", "appointed or drawn is needed"),
    };
    if protocol == Protocol::Appointed && mediators.len() != 1 {
        return wrong("mediation.mediators", "an appointed mediator is exactly one");
    }
    if (protocol == Protocol::Drawn) != (timeouts.draw_s > 0) {
        return wrong("timeouts.draw_s", "a draw needs a window, an appointed mediator none");
    }
    if panel_size == 0 || panel_size as usize > mediators.len() {
        return wrong("mediation.drawn.panel_size", format!("between 1 and the {} mediators", mediators.len()));
    }
    if quorum > panel_size || quorum <= panel_size / 2 {
        return wrong("mediation.drawn.quorum", "more than half of the panel, at most all of it");
    }
    if redraws > REDRAWS_MAX {
        return wrong("mediation.redraws", format!("at most {REDRAWS_MAX}"));
    }
    let silence_slash = amount("mediation.silence_slash", &mediation.silence_slash)?;
    Ok(Mediation { protocol, mediators, panel_size, quorum, redraws, silence_slash })
}

fn path(field: &'static str, path: &str) -> Result<(), TermsError> {
    let good = path.starts_with('/')
        && path.len() > 1
        && path.len() <= 1024
        && !path.contains('\0')
        && path[1..].split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if good { Ok(()) } else { wrong(field, format!("not an absolute plain path: {path:?}")) }
}

fn job(message: &proto::Terms) -> Result<Job, TermsError> {
    let job = message.job.clone().unwrap_or_default();
    let limits = job.limits.unwrap_or_default();
    if job.args.len() > 256 || job.env.len() > 256 || job.inputs.len() > 256 || job.outputs.len() > 256 {
        return wrong("job", "at most 256 arguments, variables, inputs and outputs each");
    }
    let long = |text: &String| text.len() > 4096 || text.contains('\0');
    let too_long = job.args.iter().any(long) || job.env.iter().any(|var| long(&var.name) || long(&var.value));
    if too_long {
        return wrong("job.args", "arguments and variables have at most 4096 bytes and no zero byte");
    }
    if job.runtime.is_empty() || job.runtime.len() > 64 {
        return wrong("job.runtime", "a runtime profile such as wasm-1 is needed");
    }
    if !job.env.is_sorted_by(|a, b| a.name < b.name) {
        return wrong("job.env", "must be ascending by name, without duplicates");
    }
    let mut inputs = Vec::new();
    for input in &job.inputs {
        path("job.inputs.path", &input.path)?;
        let artifact = artifact("job.inputs.artifact", &input.artifact)?;
        inputs.push(JobInput { path: input.path.clone(), artifact });
    }
    if !inputs.is_sorted_by(|a, b| a.path < b.path) {
        return wrong("job.inputs", "must be ascending by path, without duplicates");
    }
    for output in &job.outputs {
        path("job.outputs", output)?;
    }
    if limits.fuel == 0 || limits.memory_bytes == 0 || limits.output_bytes == 0 || limits.wall_ms == 0 {
        return wrong("job.limits", "fuel, memory_bytes, output_bytes and wall_ms must be given");
    }
    Ok(Job {
        runtime: job.runtime,
        module: artifact("job.module", &job.module)?,
        args: job.args,
        env: job.env.into_iter().map(|var| (var.name, var.value)).collect(),
        stdin: if job.stdin.is_empty() { None } else { Some(artifact("job.stdin", &job.stdin)?) },
        inputs,
        outputs: job.outputs,
        limits: Limits {
            fuel: limits.fuel,
            memory_bytes: limits.memory_bytes,
            output_bytes: limits.output_bytes,
            wall_ms: limits.wall_ms,
        },
    })
}

fn method(message: &proto::Terms) -> Result<Method, TermsError> {
    use proto::{method::Kind, rule};
    match message.method.clone().unwrap_or_default().kind {
        None => wrong("method", "reexecution, proof or majority is needed"),
        Some(Kind::Reexecution(_)) => Ok(Method::Reexecution),
        Some(Kind::Proof(proof)) => {
            if proof.system != "groth16" {
                return wrong("method.proof.system", format!("groth16, not {:?}", proof.system));
            }
            if !matches!(proof.curve.as_str(), "bn254" | "bls12-381") {
                return wrong("method.proof.curve", format!("bn254 or bls12-381, not {:?}", proof.curve));
            }
            let bound = |to| proof.bind.iter().any(|binding| binding.to == to);
            if proof.bind.len() > 16 || !bound("deal-id") || !bound("output-digest") {
                return wrong("method.proof.bind", "must bind deal-id and output-digest, else proofs can be replayed");
            }
            if let Some(other) = proof.bind.iter().find(|b| !matches!(b.to.as_str(), "deal-id" | "output-digest")) {
                return wrong("method.proof.bind", format!("deal-id or output-digest, not {:?}", other.to));
            }
            let bind = proof.bind.into_iter().map(|b| ProofBinding { input: b.input, to: b.to }).collect();
            Ok(Method::Proof {
                system: proof.system,
                curve: proof.curve,
                verification_key: artifact("method.proof.verification_key", &proof.verification_key)?,
                bind,
            })
        }
        Some(Kind::Majority(majority)) => {
            let rule = match majority.rule.unwrap_or_default().kind {
                Some(rule::Kind::Quorum(quorum)) if quorum.quorum > 0 => Rule::Quorum(quorum.quorum),
                Some(rule::Kind::Boinc(boinc)) if boinc.min_quorum > 0 => Rule::Boinc(boinc.min_quorum),
                Some(rule::Kind::Credibility(credibility)) if credibility.trust > 0 => {
                    Rule::Credibility(credibility.trust)
                }
                _ => return wrong("method.majority.rule", "quorum, boinc or credibility with a number above zero"),
            };
            let mut replicators = Vec::new();
            for replicator in &majority.replicators {
                let address = address("method.majority.replicators", &replicator.address)?;
                let Replicator { weight, score, .. } =
                    Replicator { address, weight: replicator.weight, score: replicator.score };
                if weight == 0 || weight > u64::from(u32::MAX) {
                    return wrong("method.majority.replicators.weight", "between 1 and 2^32 - 1");
                }
                replicators.push(Replicator { address, weight, score });
            }
            if replicators.is_empty() || replicators.len() > MEMBERS_MAX {
                return wrong("method.majority.replicators", format!("between 1 and {MEMBERS_MAX} are needed"));
            }
            if !replicators.is_sorted_by(|a, b| a.address < b.address) {
                return wrong("method.majority.replicators", "must be ascending, without duplicates");
            }
            Ok(Method::Majority { rule, replicators })
        }
    }
}

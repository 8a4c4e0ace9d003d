//! Two different verdicts of one mediator in one round: found, kept, and shown to the contract, which pays the finder.
//!
//! Every correctly signed `Verdict` of a mediator that a deal's terms name is looked at, whether its event was admitted or
//! refused, and whoever sent it: the signature over the verdict alone is what counts, here as in the contract. The first of
//! a mediator, deal and round is remembered; a different second makes [`Evidence`] and an effect.
//!
//! **Invariant:** nobody is accused without two signatures of the same account over two different verdicts for the same
//! terms hash and round.
//! **Invariant:** at most one row for each mediator that the terms name and each round that they allow, whatever is sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tribunal_contracts::{Chain, ChainFault, Step};
use tribunal_core::{Deal, EffectKind};
use tribunal_events::{
    Address, Amount, B256, DealId, Envelope, EventKind, SignedVerdict, Terms, Timestamp, VerdictVote,
};

use crate::{
    failure::with_causes,
    outbox,
    store::{Append, OutboxEntry, Projection, Store, StoreFault},
};

/// Before mediator (20 bytes), terms hash (32) and round (4, big-endian) in the read models: the first verdict seen.
const FIRST: &[u8] = b"equivocation/first/";
/// Likewise: what was found.
const FOUND: &[u8] = b"equivocation/found/";

/// Two verdicts that exclude each other, and what came of showing them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The deal.
    pub deal_id: DealId,
    /// Its terms' struct hash, which both verdicts sign.
    pub terms_hash: B256,
    /// The one seen first.
    pub first: SignedVerdict,
    /// The other one.
    pub second: SignedVerdict,
    /// When the second was seen, in microseconds.
    pub found_at_us: u64,
    /// What came of it; nothing while the contract has not been told.
    pub outcome: Option<Outcome>,
}

/// What came of an equivocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The contract took the bond.
    Slashed {
        /// The transaction that showed it.
        transaction: B256,
        /// Its block.
        block: u64,
        /// Whose transaction that was: the reward is this account's to collect.
        finder: Address,
        /// Whether that is our chain account.
        ours: bool,
        /// The whole bond, in base units.
        slashed: Amount,
        /// The finder's share of it.
        reward: Amount,
    },
    /// No contract holds this deal's money, so there is nothing to tell it.
    NoContract,
    /// The key is one that judges here: somebody must act, and nobody is accused.
    OwnKey,
    /// The contract did not take it.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Rows that a batch will write, by key, over those of the store.
#[derive(Debug, Default)]
pub struct Staged(BTreeMap<Vec<u8>, Vec<u8>>);

impl Staged {
    /// Looks at a vote in a deal. Gives what is to be done if it proves an equivocation that was not known.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn witness(
        &mut self,
        store: &Store,
        deal: &Deal,
        vote: &VerdictVote,
        now: Timestamp,
    ) -> Result<Option<OutboxEntry>, StoreFault> {
        let terms = deal.terms();
        let Some(verdict) = attributed(terms, vote) else { return Ok(None) };
        let (round, mediator) = (verdict.round, verdict.mediator);
        let slot = slot(mediator, terms.hash(), round);
        let first_key = [FIRST, &slot].concat();
        let Some(first) = self.row(store, &first_key)? else {
            self.0.insert(first_key, json(&verdict));
            return Ok(None);
        };
        let first: SignedVerdict = read(&first);
        let found_key = [FOUND, &slot].concat();
        if same(&first, &verdict) || self.row(store, &found_key)?.is_some() {
            return Ok(None);
        }
        let on_chain = terms.domain().on_chain();
        tracing::warn!(deal_id = %deal.id(), %mediator, round, first = first.verdict.word(),
            second = verdict.verdict.word(), on_chain, "a mediator signed two different verdicts in one round");
        let evidence = Evidence {
            deal_id: deal.id(),
            terms_hash: terms.hash(),
            first,
            second: verdict,
            found_at_us: now.us(),
            outcome: (!on_chain).then_some(Outcome::NoContract),
        };
        self.0.insert(found_key, json(&evidence));
        let payload = outbox::encode(deal.version(), EffectKind::Equivocation { mediator, round });
        let id = blake3::derive_key("tribunal.v1 equivocation", &slot);
        Ok(on_chain.then(|| OutboxEntry { id, deal_id: deal.id(), payload }))
    }

    fn row(&self, store: &Store, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        match self.0.get(key) {
            Some(row) => Ok(Some(row.clone())),
            None => store.projection(key),
        }
    }

    /// For the append that makes it true.
    pub fn into_rows(self) -> Vec<Projection> {
        let row = |(key, value)| Projection { key, value: Some(value) };
        self.0.into_iter().map(row).collect()
    }
}

/// The vote in an event, as received: also of one that was refused.
pub fn vote_in(bytes: &[u8]) -> Option<VerdictVote> {
    match Envelope::decode(bytes).ok()?.parse().ok()?.into_kind() {
        EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } => Some(vote),
        _ => None,
    }
}

/// Everything found, by mediator.
///
/// # Errors
/// Where the store cannot be read.
pub fn found(store: &Store) -> Result<Vec<Evidence>, StoreFault> {
    let mut all = Vec::new();
    let mut from = FOUND.to_vec();
    loop {
        let rows = store.projections(&from, 256)?;
        for (key, value) in &rows {
            if !key.starts_with(FOUND) {
                return Ok(all);
            }
            all.push(read(value));
        }
        let Some((last, _)) = rows.last() else { return Ok(all) };
        from = last.clone();
        from.push(0);
    }
}

/// The contract's step for what was found of this mediator in this round of a deal.
///
/// # Errors
/// Where the store cannot be read.
pub fn evidence(store: &Store, terms: &Terms, mediator: Address, round: u32) -> Result<Option<Evidence>, StoreFault> {
    let key = [FOUND, &slot(mediator, terms.hash(), round)].concat();
    Ok(store.projection(&key)?.map(|row| read(&row)))
}

impl Evidence {
    /// What the contract is to be told.
    pub const fn step(&self) -> Step {
        Step::SlashEquivocation { terms_hash: self.terms_hash, a: self.first, b: self.second }
    }

    /// Shows it to the contract and keeps what came of it. Done before, it does nothing. `own`: keys that judge here.
    ///
    /// # Errors
    /// A sentence, where it is to be tried again.
    pub async fn show(mut self, store: &Store, chain: Option<&dyn Chain>, own: &[Address]) -> Result<(), String> {
        if self.outcome.is_some() {
            return Ok(());
        }
        let (mediator, round) = (self.first.mediator, self.first.round);
        let deal_id = self.deal_id;
        let outcome = if own.contains(&mediator) {
            tracing::error!(%deal_id, %mediator, round,
                "a key that judges here signed two different verdicts: is it used elsewhere? Stop it at once");
            Outcome::OwnKey
        } else if let Some(chain) = chain {
            self.slash(chain).await.map_err(|fault| with_causes(&fault))?
        } else {
            Outcome::Failed { reason: "no chain is configured".into() }
        };
        match &outcome {
            Outcome::Slashed { transaction, reward, ours, .. } => {
                tracing::info!(%deal_id, %mediator, round, %transaction, %reward, ours, "an equivocator lost its bond");
            }
            Outcome::Failed { reason } => {
                tracing::error!(%deal_id, %mediator, round, reason, "the contract did not take an equivocation");
            }
            Outcome::NoContract | Outcome::OwnKey => {}
        }
        self.outcome = Some(outcome);
        let key = [FOUND, &slot(mediator, self.terms_hash, round)].concat();
        let row = Projection { key, value: Some(json(&self)) };
        store.project(vec![row]).map_err(|fault| fault.to_string())
    }

    /// Forgets what came of it, and asks for it again: the chain took it back.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub fn reopen(mut self, store: &Store) -> Result<OutboxEntry, StoreFault> {
        let (mediator, round, deal_id) = (self.first.mediator, self.first.round, self.deal_id);
        let slot = slot(mediator, self.terms_hash, round);
        self.outcome = None;
        let row = Projection { key: [FOUND, &slot].concat(), value: Some(json(&self)) };
        let version = store.head(&deal_id)?.map_or(0, |head| head.version);
        let payload = outbox::encode(version, EffectKind::Equivocation { mediator, round });
        let entry = OutboxEntry { id: blake3::derive_key("tribunal.v1 equivocation", &slot), deal_id, payload };
        let append = Append { outbox_add: vec![entry.clone()], projections: vec![row], ..Append::default() };
        store.append(append)?;
        Ok(entry)
    }

    async fn slash(&self, chain: &dyn Chain) -> Result<Outcome, ChainFault> {
        let (mediator, round) = (self.first.mediator, self.first.round);
        let mined = match chain.perform(&self.step()).await {
            Ok(mined) => mined,
            Err(fault) if fault.retry_helps() => return Err(fault),
            Err(fault) => return Ok(Outcome::Failed { reason: fault.to_string() }),
        };
        let finding = chain.finding(self.terms_hash, mediator, round).await?;
        let Some(finding) = finding else {
            let reason = format!("transaction {} shows no equivocation", mined.transaction);
            return Ok(Outcome::Failed { reason });
        };
        Ok(Outcome::Slashed {
            transaction: mined.transaction,
            block: mined.block,
            finder: finding.finder,
            ours: finding.ours,
            slashed: finding.slashed,
            reward: finding.reward,
        })
    }
}

/// The vote with the account that signed it, if the deal's terms name that one and allow the round.
fn attributed(terms: &Terms, vote: &VerdictVote) -> Option<SignedVerdict> {
    if vote.round > terms.mediation.redraws {
        return None;
    }
    let signer = vote.signed_by(Address::ZERO).signer(&terms.domain(), terms.hash()).ok()?;
    terms.mediation.mediators.contains(&signer).then(|| vote.signed_by(signer))
}

/// Whether the contract sees one and the same verdict: signatures may differ.
fn same(one: &SignedVerdict, other: &SignedVerdict) -> bool {
    (one.verdict, one.instruction_count, one.digest) == (other.verdict, other.instruction_count, other.digest)
}

/// Mediator, terms hash, round: the slot in which the contract recognises equivocation.
fn slot(mediator: Address, terms_hash: B256, round: u32) -> Vec<u8> {
    [mediator.as_slice(), terms_hash.as_slice(), &round.to_be_bytes()].concat()
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("evidence has a JSON form")
}

fn read<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes).expect("written by this program and sealed by the store")
}

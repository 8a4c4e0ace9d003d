use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tribunal_events::{Address, B256, Domain, SignedVerdict, VerdictKind};

/// One round of a dispute: a panel, what its members committed to and what they revealed. An appointed mediator is a
/// panel of one that commits to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    number: u32,
    panel: Vec<Address>,
    quorum: u32,
    commitments: BTreeMap<Address, [u8; 32]>,
    votes: BTreeMap<Address, (SignedVerdict, String)>,
}

/// Why a commitment or vote does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    /// Not a member of this panel.
    #[error("{0} is not on this round's panel")]
    NotOnPanel(Address),
    /// For another round.
    #[error("this is round {expected}, not {found}")]
    WrongRound {
        /// The current round.
        expected: u32,
        /// The round in the event.
        found: u32,
    },
    /// A second commitment or vote of this member.
    #[error("{0} has spoken in this round already")]
    Again(Address),
    /// A vote without a commitment.
    #[error("{0} has not committed to a vote")]
    NotCommitted(Address),
    /// Vote and salt do not give the commitment.
    #[error("the vote and salt of {0} are not what it committed to")]
    CommitmentMismatch(Address),
    /// The Verdict is not signed by the member.
    #[error("the Verdict is signed by {found}, not by {expected}")]
    Signature {
        /// The member.
        expected: Address,
        /// The recovered signer.
        found: Address,
    },
}

/// What the votes of a round come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Members can still vote.
    Open,
    /// At least a quorum of equal verdicts, with the reason that most of them give.
    Quorum(VerdictKind, String),
    /// Every member voted and no verdict has a quorum.
    Split,
}

impl Round {
    /// A round with no votes yet.
    pub fn new(number: u32, panel: Vec<Address>, quorum: u32) -> Self {
        Self { number, panel, quorum, commitments: BTreeMap::new(), votes: BTreeMap::new() }
    }

    /// Its number, from 0.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Its members, ascending.
    pub fn panel(&self) -> &[Address] {
        &self.panel
    }

    /// Members who revealed a vote, ascending.
    pub fn voters(&self) -> Vec<Address> {
        self.votes.keys().copied().collect()
    }

    /// Members who revealed none.
    pub fn silent(&self) -> Vec<Address> {
        self.panel.iter().copied().filter(|member| !self.votes.contains_key(member)).collect()
    }

    /// Votes so far, ascending by mediator.
    pub fn votes(&self) -> impl Iterator<Item = &SignedVerdict> {
        self.votes.values().map(|(vote, _)| vote)
    }

    /// Whether this member committed.
    pub fn has_committed(&self, member: Address) -> bool {
        self.commitments.contains_key(&member)
    }

    /// What this member committed to.
    pub fn commitment(&self, member: Address) -> Option<&[u8; 32]> {
        self.commitments.get(&member)
    }

    /// Whether this member revealed.
    pub fn has_voted(&self, member: Address) -> bool {
        self.votes.contains_key(&member)
    }

    /// Whether all members committed.
    pub fn all_committed(&self) -> bool {
        self.panel.iter().all(|member| self.commitments.contains_key(member))
    }

    /// Whether a commitment may be taken.
    ///
    /// # Errors
    /// [`RoundError`] says why not.
    pub fn check_commitment(&self, member: Address, round: u32) -> Result<(), RoundError> {
        self.check_member(member, round)?;
        if self.commitments.contains_key(&member) { Err(RoundError::Again(member)) } else { Ok(()) }
    }

    /// Takes a checked commitment.
    pub fn commit(&mut self, member: Address, commitment: [u8; 32]) {
        self.commitments.insert(member, commitment);
    }

    /// Whether a vote may be taken: from the panel, once, signed by the member, and with `salt` what it committed to.
    ///
    /// # Errors
    /// [`RoundError`] says why not.
    pub fn check_vote(
        &self,
        vote: &SignedVerdict,
        salt: Option<&[u8; 32]>,
        domain: &Domain,
        terms_hash: B256,
    ) -> Result<(), RoundError> {
        let member = vote.mediator;
        self.check_member(member, vote.round)?;
        if self.votes.contains_key(&member) {
            return Err(RoundError::Again(member));
        }
        if let Some(salt) = salt {
            let committed = self.commitments.get(&member).ok_or(RoundError::NotCommitted(member))?;
            if vote.commitment(domain, terms_hash, salt) != *committed {
                return Err(RoundError::CommitmentMismatch(member));
            }
        }
        let found = vote.signer(domain, terms_hash).unwrap_or_default();
        if found == member { Ok(()) } else { Err(RoundError::Signature { expected: member, found }) }
    }

    /// Takes a checked vote with its reason code.
    pub fn vote(&mut self, vote: SignedVerdict, reason_code: String) {
        self.votes.insert(vote.mediator, (vote, reason_code));
    }

    /// What the votes come to: counted by verdict, as the contract counts them; a quorum is more than half of the
    /// panel, so at most one verdict has it. Open until all have voted, so that nobody's fee depends on speed.
    pub fn tally(&self) -> Tally {
        if self.votes.len() < self.panel.len() { Tally::Open } else { self.result().unwrap_or(Tally::Split) }
    }

    /// The quorum among the votes that came, once no more can come.
    pub fn result(&self) -> Option<Tally> {
        for kind in [VerdictKind::Valid, VerdictKind::Invalid, VerdictKind::Inconclusive] {
            let mut reasons = BTreeMap::<&str, u32>::new();
            for (vote, reason) in self.votes.values().filter(|(vote, _)| vote.verdict == kind) {
                debug_assert_eq!(vote.round, self.number);
                *reasons.entry(reason).or_default() += 1;
            }
            if reasons.values().sum::<u32>() >= self.quorum {
                // The commonest reason; of equally common ones the first in alphabetical order.
                let most = reasons.values().copied().max().unwrap_or_default();
                let reason = reasons.into_iter().find(|(_, count)| *count == most).map_or("", |(reason, _)| reason);
                return Some(Tally::Quorum(kind, reason.to_owned()));
            }
        }
        None
    }

    fn check_member(&self, member: Address, round: u32) -> Result<(), RoundError> {
        if round != self.number {
            return Err(RoundError::WrongRound { expected: self.number, found: round });
        }
        if self.panel.contains(&member) { Ok(()) } else { Err(RoundError::NotOnPanel(member)) }
    }
}

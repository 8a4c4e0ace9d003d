use proptest::prelude::*;
use tribunal_events::{Address, Domain, SignedVerdict, SigningKey, VerdictKind};
use tribunal_fixtures::{Script, TermsBuilder, Vote, keys};
use tribunal_mediators::{Round, RoundError, Tally};

const PANEL: [&str; 5] = ["m1", "m2", "m3", "m4", "m5"];
const KINDS: [VerdictKind; 3] = [VerdictKind::Valid, VerdictKind::Invalid, VerdictKind::Inconclusive];

struct Panel {
    round: Round,
    script: Script,
}

impl Panel {
    fn new(number: u32, size: usize, quorum: u32) -> Self {
        let terms = TermsBuilder::new("round").drawn(&PANEL, 5, 3, 3).build();
        let members = keys::addresses(&PANEL[..size]);
        Self { round: Round::new(number, members, quorum), script: Script::new(terms) }
    }

    fn vote(&self, name: &str, kind: VerdictKind) -> Vote {
        self.script.vote(&keys::key(name), self.round.number(), kind, 7, "test")
    }

    fn commitment(&self, vote: &SignedVerdict, salt: &[u8; 32]) -> [u8; 32] {
        vote.commitment(&self.domain(), self.script.terms().hash(), salt)
    }

    fn domain(&self) -> Domain {
        self.script.terms().domain()
    }

    fn check(&self, vote: &SignedVerdict, salt: Option<&[u8; 32]>) -> Result<(), RoundError> {
        self.round.check_vote(vote, salt, &self.domain(), self.script.terms().hash())
    }
}

#[test]
fn a_commitment_copied_from_another_mediator_is_useless() {
    let mut panel = Panel::new(0, 3, 2);
    let vote = panel.vote("m1", VerdictKind::Valid);
    let commitment = panel.commitment(&vote.verdict, &vote.salt);
    panel.round.commit(keys::address("m1"), commitment);
    panel.round.commit(keys::address("m2"), commitment);
    assert_eq!(panel.check(&vote.verdict, Some(&vote.salt)), Ok(()));
    // Once m1 has revealed, m2 knows vote and salt. It can open its copy neither with m1's vote nor with its own.
    let relabelled = SignedVerdict { mediator: keys::address("m2"), ..vote.verdict };
    let mismatch = Err(RoundError::CommitmentMismatch(keys::address("m2")));
    assert_eq!(panel.check(&relabelled, Some(&vote.salt)), mismatch);
    let own = SignedVerdict::sign(
        &keys::key("m2"),
        &panel.domain(),
        panel.script.terms().hash(),
        0,
        VerdictKind::Valid,
        7,
        vote.verdict.digest,
    );
    assert_eq!(panel.check(&own, Some(&vote.salt)), mismatch);
}

#[test]
fn a_commitment_holds_its_mediator_to_every_word_of_the_vote() {
    let mut panel = Panel::new(1, 3, 2);
    let vote = panel.vote("m1", VerdictKind::Valid);
    let commitment = panel.commitment(&vote.verdict, &vote.salt);
    panel.round.commit(keys::address("m1"), commitment);
    let resigned = |key: &SigningKey, kind, count, digest| {
        SignedVerdict::sign(key, &panel.domain(), panel.script.terms().hash(), 1, kind, count, digest)
    };
    let key = keys::key("m1");
    let mismatch = Err(RoundError::CommitmentMismatch(key.address()));
    for other in [
        resigned(&key, VerdictKind::Invalid, 7, vote.verdict.digest),
        resigned(&key, VerdictKind::Valid, 8, vote.verdict.digest),
        resigned(&key, VerdictKind::Valid, 7, Default::default()),
    ] {
        assert_eq!(panel.check(&other, Some(&vote.salt)), mismatch);
    }
    assert_eq!(panel.check(&vote.verdict, Some(&[0; 32])), mismatch);
    assert_eq!(panel.check(&vote.verdict, Some(&vote.salt)), Ok(()));
}

#[test]
fn members_speak_once_in_their_round_and_sign_themselves() {
    let mut panel = Panel::new(2, 3, 2);
    let (m1, m4) = (keys::address("m1"), keys::address("m4"));
    assert_eq!(panel.round.check_commitment(m4, 2), Err(RoundError::NotOnPanel(m4)));
    assert_eq!(panel.round.check_commitment(m1, 0), Err(RoundError::WrongRound { expected: 2, found: 0 }));
    assert_eq!(panel.round.check_commitment(m1, 2), Ok(()));
    let vote = panel.vote("m1", VerdictKind::Valid);
    assert_eq!(panel.check(&vote.verdict, Some(&vote.salt)), Err(RoundError::NotCommitted(m1)));
    let commitment = panel.commitment(&vote.verdict, &vote.salt);
    panel.round.commit(m1, commitment);
    assert_eq!(panel.round.check_commitment(m1, 2), Err(RoundError::Again(m1)));
    let forged = SignedVerdict { mediator: m1, ..panel.vote("m2", VerdictKind::Valid).verdict };
    let signature = RoundError::Signature { expected: m1, found: keys::address("m2") };
    assert_eq!(panel.check(&forged, None), Err(signature));
    panel.round.vote(vote.verdict, "test".into());
    assert_eq!(panel.check(&vote.verdict, Some(&vote.salt)), Err(RoundError::Again(m1)));
    assert_eq!(panel.round.voters(), [m1]);
    assert_eq!(panel.round.silent().len(), 2);
}

#[test]
fn a_verdict_signed_for_another_contract_is_nobodys_here() {
    let panel = Panel::new(0, 3, 2);
    let key = keys::key("m1");
    let elsewhere = Domain::new(1, Address::repeat_byte(1));
    let hash = panel.script.terms().hash();
    let vote = SignedVerdict::sign(&key, &elsewhere, hash, 0, VerdictKind::Valid, 7, Default::default());
    assert!(matches!(panel.check(&vote, None), Err(RoundError::Signature { .. })));
}

#[test]
fn a_tally_is_open_until_all_have_voted() {
    let mut panel = Panel::new(0, 3, 2);
    for (name, expected) in [("m1", Tally::Open), ("m2", Tally::Open)] {
        let vote = panel.vote(name, VerdictKind::Valid);
        panel.round.vote(vote.verdict, "ok".into());
        assert_eq!(panel.round.tally(), expected, "so that nobody's fee depends on speed");
    }
    assert_eq!(panel.round.result(), Some(Tally::Quorum(VerdictKind::Valid, "ok".into())));
    let vote = panel.vote("m3", VerdictKind::Invalid);
    panel.round.vote(vote.verdict, "output-differs".into());
    assert_eq!(panel.round.tally(), Tally::Quorum(VerdictKind::Valid, "ok".into()));
}

#[test]
fn the_commonest_reason_stands_and_of_equals_the_first_in_the_alphabet() {
    let tally = |reasons: [&str; 3]| {
        let mut panel = Panel::new(0, 3, 2);
        for (name, reason) in PANEL.into_iter().zip(reasons) {
            let vote = panel.vote(name, VerdictKind::Invalid);
            panel.round.vote(vote.verdict, reason.into());
        }
        match panel.round.tally() {
            Tally::Quorum(_, reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(tally(["b", "a", "b"]), "b");
    assert_eq!(tally(["c", "b", "a"]), "a");
}

proptest! {
    #[test]
    fn a_tally_does_not_depend_on_the_order_of_votes(
        votes in prop::collection::vec((0usize..3, 0usize..3), 1..=5),
        order in Just([0usize, 1, 2, 3, 4]).prop_shuffle(),
        quorum in 1u32..=5,
    ) {
        let quorum = quorum.clamp(votes.len() as u32 / 2 + 1, votes.len() as u32);
        let cast = |order: &[usize]| {
            let mut panel = Panel::new(0, votes.len(), quorum);
            for index in order.iter().filter(|index| **index < votes.len()) {
                let (kind, reason) = votes[*index];
                let vote = panel.vote(PANEL[*index], KINDS[kind]);
                panel.round.vote(vote.verdict, ["a", "b", "c"][reason].into());
            }
            panel.round
        };
        let (round, other) = (cast(&[0, 1, 2, 3, 4]), cast(&order));
        prop_assert_eq!(round.tally(), other.tally());
        prop_assert_eq!(&round, &other);
        // A verdict wins exactly where a quorum voted for it.
        let most = KINDS.iter().map(|kind| votes.iter().filter(|(it, _)| KINDS[*it] == *kind).count()).max();
        let won = matches!(round.tally(), Tally::Quorum(..));
        prop_assert_eq!(won, most.unwrap_or_default() >= quorum as usize);
    }
}

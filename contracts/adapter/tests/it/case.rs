use std::sync::Arc;

use prost::Message;
use tribunal_contracts::{ChainFault, Mined, Step};
use tribunal_events::{
    Address, Amount, B256, MoveAction, Outcome, Party, Signature, SignedVerdict, SigningKey, Terms, VerdictKind, proto,
};

use crate::world::{START_S, World};

/// What each party puts into the escrow.
pub const FUNDS: u64 = 10_000;
/// What each mediator bonds.
pub const BOND: u64 = 1_000;
/// What the provider claims to have run.
pub const COUNT: u64 = 301;
/// What silence costs.
pub const SLASH: u64 = 40;

/// A funded deal with everybody's keys.
pub struct Case<'a> {
    pub world: &'a World,
    pub terms: Arc<Terms>,
    pub client: SigningKey,
    pub provider: SigningKey,
    pub operator: SigningKey,
    /// By address, as in the terms.
    pub mediators: Vec<SigningKey>,
    pub treasury: Address,
}

fn key(name: &str, number: u8) -> SigningKey {
    let seed = alloy_primitives::keccak256(format!("{name} {number}"));
    SigningKey::new(seed.0).unwrap()
}

pub fn seed(party: Party) -> [u8; 32] {
    [party as u8 + 10; 32]
}

impl<'a> Case<'a> {
    /// Accounts of scenario `number`; three of five mediators drawn, or one appointed.
    pub async fn funded(world: &'a World, number: u8, drawn: bool) -> Self {
        let this = Self::of(world, number, drawn);
        for party in [&this.client, &this.provider] {
            world.fund(party.address(), FUNDS).await;
        }
        for mediator in &this.mediators {
            world.bond(mediator.address(), BOND, this.operator.address()).await;
        }
        this
    }

    /// The same, not funded.
    pub fn of(world: &'a World, number: u8, drawn: bool) -> Self {
        let (client, provider, operator) = (key("client", number), key("provider", number), key("operator", number));
        let mut mediators: Vec<_> =
            (0..if drawn { 5 } else { 1 }).map(|index| key(&format!("mediator {index}"), number)).collect();
        mediators.sort_by_key(SigningKey::address);
        let treasury = key("treasury", number).address();
        let terms = terms(world, number, &client, &provider, &operator, &mediators, treasury);
        Self { world, terms: Arc::new(terms), client, provider, operator, mediators, treasury }
    }

    /// Another funded deal before the same mediators, by the same parties or by parties of its own.
    pub async fn beside(&self, number: u8, own_parties: bool) -> Self {
        let mut message = self.terms.message().clone();
        message.nonce = alloy_primitives::keccak256([number]).to_vec();
        let (mut client, mut provider) = (self.client.clone(), self.provider.clone());
        if own_parties {
            (client, provider) = (key("client beside", number), key("provider beside", number));
            let members = message.members.as_mut().expect("there are some");
            members.client = client.address().to_vec();
            members.provider = provider.address().to_vec();
        }
        for party in [&client, &provider] {
            self.world.fund(party.address(), FUNDS).await;
        }
        let terms = Arc::new(Terms::decode(&message.encode_to_vec()).expect("good terms"));
        let (operator, mediators) = (self.operator.clone(), self.mediators.clone());
        Self { world: self.world, terms, client, provider, operator, mediators, treasury: self.treasury }
    }

    fn drawn(&self) -> bool {
        self.mediators.len() > 1
    }

    pub async fn perform(&self, step: &Step) -> Result<Mined, ChainFault> {
        self.world.chain().perform(step).await
    }

    pub async fn must(&self, step: &Step) -> Mined {
        self.perform(step).await.unwrap_or_else(|fault| panic!("{}: {fault}", step.name()))
    }

    pub async fn settled(&self, step: &Step) -> Outcome {
        self.must(step).await.settlement.expect("the step settles").outcome
    }

    pub fn signed(&self, key: &SigningKey, action: MoveAction, count: u64, data: B256) -> Signature {
        key.sign(self.terms.domain().move_digest(self.terms.hash(), action, count, data))
    }

    pub fn open(&self) -> Step {
        let commitment = |party| if self.drawn() { alloy_primitives::keccak256(seed(party)) } else { B256::ZERO };
        let digest = self.terms.domain().terms_digest(self.terms.money());
        let (client_commitment, provider_commitment) = (commitment(Party::Client), commitment(Party::Provider));
        Step::Open {
            terms: self.terms.clone(),
            client_terms: self.client.sign(digest),
            provider_terms: self.provider.sign(digest),
            client_agree: self.signed(&self.client, MoveAction::Agree, 0, client_commitment),
            client_commitment,
            provider_agree: self.signed(&self.provider, MoveAction::Agree, 0, provider_commitment),
            provider_commitment,
        }
    }

    pub fn submit(&self) -> Step {
        self.submit_claim(B256::repeat_byte(0xc1))
    }

    pub fn submit_claim(&self, claim_digest: B256) -> Step {
        let signature = self.signed(&self.provider, MoveAction::Submit, COUNT, claim_digest);
        Step::Submit { terms: self.terms.clone(), count: COUNT, claim_digest, signature }
    }

    pub fn accept(&self) -> Step {
        let signature = self.signed(&self.client, MoveAction::Accept, 0, B256::ZERO);
        Step::Accept { terms: self.terms.clone(), signature }
    }

    pub fn dispute(&self) -> Step {
        let signature = self.signed(&self.client, MoveAction::Dispute, 0, B256::ZERO);
        Step::Dispute { terms: self.terms.clone(), signature }
    }

    pub fn reveal(&self, party: Party) -> Step {
        let key = if party == Party::Client { &self.client } else { &self.provider };
        let seed = seed(party);
        let signature = self.signed(key, MoveAction::Reveal, 0, seed.into());
        Step::Reveal { terms: self.terms.clone(), party, seed, signature }
    }

    pub fn withdraw(&self) -> Step {
        Step::Withdraw {
            terms: self.terms.clone(),
            client: self.signed(&self.client, MoveAction::Withdraw, 0, B256::ZERO),
            provider: self.signed(&self.provider, MoveAction::Withdraw, 0, B256::ZERO),
        }
    }

    pub fn vote(&self, mediator: usize, round: u32, verdict: VerdictKind) -> SignedVerdict {
        let digest = B256::repeat_byte(verdict as u8);
        let key = &self.mediators[mediator];
        SignedVerdict::sign(key, &self.terms.domain(), self.terms.hash(), round, verdict, COUNT, digest)
    }

    /// The last panel members vote like this, given in the wrong order on purpose.
    pub fn verdict(&self, round: u32, outcome: Outcome, verdicts: &[VerdictKind]) -> Step {
        let size = self.terms.mediation.panel_size as usize;
        // The panel in another order than the terms', as a draw may give it.
        let panel: Vec<_> = self.mediators[..size].iter().rev().map(SigningKey::address).collect();
        let votes = verdicts.iter().enumerate().map(|(index, verdict)| self.vote(index, round, *verdict));
        let digest = self.terms.domain().panel_digest(self.terms.hash(), round, &panel);
        Step::SettleVerdict {
            terms: self.terms.clone(),
            round,
            outcome,
            panel_signature: self.drawn().then(|| self.operator.sign(digest)),
            panel,
            votes: votes.rev().collect(),
        }
    }

    pub fn slash_silent(&self, round: u32, silent: &[usize]) -> Step {
        let silent: Vec<_> = silent.iter().map(|index| self.mediators[*index].address()).collect();
        let digest = self.terms.domain().silence_digest(self.terms.hash(), round, &silent);
        Step::SlashSilent { terms: self.terms.clone(), round, signature: self.operator.sign(digest), silent }
    }

    pub async fn to_submitted(&self) {
        self.must(&self.open()).await;
        self.must(&self.submit()).await;
    }

    pub async fn to_disputed(&self) {
        self.to_submitted().await;
        self.must(&self.dispute()).await;
    }

    pub async fn to_drawn(&self) {
        self.to_disputed().await;
        self.must(&self.reveal(Party::Client)).await;
        self.must(&self.reveal(Party::Provider)).await;
    }

    pub async fn balance(&self, account: Address) -> Amount {
        self.world.chain().balance(self.world.token(), account).await.unwrap()
    }

    /// Everybody has what the table of the protocol says, computed here once more.
    pub async fn expect(&self, outcome: Outcome, voters: i128) {
        let it = &self.terms.pricing;
        let number = |amount: Amount| amount.to_string().parse::<i128>().unwrap();
        let [p_max, c, f, s, j] =
            [it.payment_collateral, it.results_collateral, it.mediation_fee, it.submit_collateral, it.judge_collateral]
                .map(number);
        let p = if it.metered { (number(it.price) * i128::from(COUNT)).min(p_max) } else { number(it.price) };
        let fee = p * i128::from(self.terms.fee_bps.get()) / 10_000;
        let v = c * i128::from(self.terms.victim_bps.get()) / 10_000;
        let q = f / 4;
        let (client, provider, pot, treasury) = match outcome {
            Outcome::Accepted => (-p, p - fee, 0, fee),
            Outcome::Valid => (-p - f, p - fee, f, fee),
            Outcome::Invalid => (v, -c - f, f, c - v),
            Outcome::Inconclusive => (-q, -q, 2 * q, 0),
            Outcome::SubmitTimeout => (s, -s, 0, 0),
            Outcome::JudgeTimeout => (-p - j, p + j - fee, 0, fee),
            Outcome::MediateTimeout | Outcome::Withdrawn => (0, 0, 0, 0),
            Outcome::AgreeTimeout | Outcome::Unspecified => unreachable!("never on chain"),
        };
        let each = if voters > 0 { pot / voters } else { 0 };
        let funds = i128::from(FUNDS);
        assert_eq!(number(self.balance(self.client.address()).await), funds + client, "client");
        assert_eq!(number(self.balance(self.provider.address()).await), funds + provider, "provider");
        for (index, mediator) in (0..).zip(&self.mediators) {
            let expected = if index < voters { each } else { 0 };
            assert_eq!(number(self.balance(mediator.address()).await), expected, "mediator {index}");
        }
        let treasury = treasury + pot - each * voters;
        assert_eq!(number(self.balance(self.treasury).await), treasury, "treasury");
        let case = self.world.chain().case(self.terms.hash()).await.unwrap();
        assert_eq!(case.outcome, Some(outcome));
    }
}

fn terms(
    world: &World,
    number: u8,
    client: &SigningKey,
    provider: &SigningKey,
    operator: &SigningKey,
    mediators: &[SigningKey],
    treasury: Address,
) -> Terms {
    use proto::{mediation, method, pricing};
    let drawn = mediators.len() > 1;
    let protocol = if drawn {
        mediation::Protocol::Drawn(proto::Drawn { panel_size: 3, quorum: 2, redraws: 1 })
    } else {
        mediation::Protocol::Appointed(proto::Appointed { redraws: 0 })
    };
    let message = proto::Terms {
        version: 1,
        nonce: vec![number; 32],
        members: Some(proto::Members {
            client: client.address().to_vec(),
            provider: provider.address().to_vec(),
            solver: Vec::new(),
            operator: operator.address().to_vec(),
        }),
        job: Some(proto::Job {
            runtime: "wasm-1".into(),
            module: format!("blake3:{}", "11".repeat(32)),
            limits: Some(proto::Limits { fuel: 1, memory_bytes: 1, output_bytes: 1, wall_ms: 1 }),
            ..Default::default()
        }),
        method: Some(proto::Method { kind: Some(method::Kind::Reexecution(proto::Reexecution {})) }),
        mediation: Some(proto::Mediation {
            protocol: Some(protocol),
            mediators: mediators.iter().map(|key| key.address().to_vec()).collect(),
            silence_slash: SLASH.to_string(),
        }),
        pricing: Some(proto::Pricing {
            kind: Some(pricing::Kind::Metered(proto::MeteredPrice { instruction_price: "3".into() })),
            payment_collateral: "1000".into(),
            results_collateral: "2001".into(),
            mediation_fee: "103".into(),
        }),
        timeouts: Some(proto::Timeouts {
            agree_by_s: START_S + 10_000_000,
            submit_s: 1000,
            judge_s: 500,
            draw_s: if drawn { 200 } else { 0 },
            availability_s: 50,
            mediate_s: 300,
            submit_collateral: "51".into(),
            judge_collateral: "31".into(),
        }),
        fee: Some(proto::Fee { fee_bps: 333, public_good: false, victim_bps: 3333 }),
        settlement: Some(proto::Settlement {
            rule: 1,
            chain_id: world.chain().chain_id(),
            contract: world.chain().escrow().to_vec(),
            token: world.token().to_vec(),
            treasury: treasury.to_vec(),
        }),
        ..Default::default()
    };
    Terms::decode(&message.encode_to_vec()).expect("good terms")
}

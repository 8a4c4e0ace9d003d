//! A world with one deal in it.

use std::sync::LazyLock;

use tribunal_core::{Deal, Phase, Rejection};
use tribunal_events::{DealId, Envelope, EventKind, Outcome, Party, Role, SigningKey, Timestamp, VerdictKind, proto};
use tribunal_fixtures::{START_S, Script, Sent, TermsBuilder, Vote, World, jobs, keys, money::Net};

/// The honest claim of the word count with 1000 instructions.
pub fn claim() -> proto::Claim {
    static CLAIM: LazyLock<proto::Claim> =
        LazyLock::new(|| jobs::load("wordcount").expect("fixtures/jobs/wordcount").claim(1000));
    CLAIM.clone()
}

pub fn key(name: &str) -> SigningKey {
    keys::key(name)
}

/// `s` seconds after the deal begins.
pub fn at(s: u64) -> Timestamp {
    Timestamp::from_s(START_S + s)
}

/// The last microsecond of second `s`.
pub fn last_us(s: u64) -> Timestamp {
    Timestamp::last_us_of_s(START_S + s)
}

pub fn next_us(at: Timestamp) -> Timestamp {
    Timestamp::from_us(at.us() + 1)
}

pub struct Scene {
    pub world: World,
    pub script: Script,
    pub now: Timestamp,
}

impl Scene {
    pub fn new(terms: TermsBuilder) -> Self {
        Self::in_world(World::new(), terms)
    }

    pub fn in_world(world: World, terms: TermsBuilder) -> Self {
        Self { world, script: Script::new(terms.build()), now: at(0) }
    }

    pub fn id(&self) -> DealId {
        self.script.terms().deal_id()
    }

    pub fn deal(&self) -> &Deal {
        self.world.deal(self.id()).expect("a proposed deal")
    }

    /// From here on everything happens at `now`.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    pub fn tick(mut self, now: Timestamp) -> Self {
        self.now = now;
        self.world.tick(now);
        self
    }

    pub fn try_send(&mut self, envelope: &Envelope) -> Result<Sent, Rejection> {
        self.world.send(envelope, self.now)
    }

    /// Says something that is taken.
    pub fn say(mut self, what: impl FnOnce(&Script) -> Envelope) -> Self {
        let envelope = what(&self.script);
        let sent = self.try_send(&envelope).expect("admitted");
        assert_ne!(sent, Sent::Duplicate);
        self
    }

    /// Says something that is refused with this code, which leaves no trace.
    pub fn refused(mut self, code: &str, what: impl FnOnce(&Script) -> Envelope) -> Self {
        let envelope = what(&self.script);
        let (before, recorded) = (self.world.deal(self.id()).cloned(), self.world.records().len());
        let rejection = self.try_send(&envelope).expect_err("refused");
        assert_eq!(rejection.code(), code, "{rejection}");
        assert!(!rejection.to_string().is_empty());
        assert_eq!(self.world.deal(self.id()).cloned(), before);
        assert_eq!(self.world.records().len(), recorded);
        self
    }

    pub fn agree(self) -> Self {
        self.say(|it| it.proposed(Party::Client)).say(|it| it.agreed(Party::Provider))
    }

    pub fn submit(self) -> Self {
        self.agree().say(|it| it.result_submitted(claim()))
    }

    pub fn dispute(self) -> Self {
        self.submit().say(|it| it.disputed("doubt"))
    }

    pub fn draw(self) -> Self {
        self.dispute().say(|it| it.seed_revealed(Party::Client)).say(|it| it.seed_revealed(Party::Provider))
    }

    pub fn vote(&self, name: &str, verdict: VerdictKind, reason: &str) -> Vote {
        let round = self.round();
        self.script.vote(&key(name), round, verdict, 1000, reason)
    }

    pub fn commit(self, name: &str, verdict: VerdictKind) -> Self {
        let vote = self.vote(name, verdict, "test");
        self.say(|it| it.vote_committed(&key(name), &vote))
    }

    pub fn reveal(self, name: &str, verdict: VerdictKind) -> Self {
        let vote = self.vote(name, verdict, "test");
        self.say(|it| it.vote_revealed(&key(name), &vote))
    }

    pub fn judge(self, name: &str, verdict: VerdictKind) -> Self {
        let vote = self.vote(name, verdict, "test");
        self.say(|it| it.verdict_given(&key(name), &vote))
    }

    /// The current round.
    pub fn round(&self) -> u32 {
        self.deal().dispute().and_then(|dispute| dispute.round.as_ref()).map_or(0, |round| round.number())
    }

    /// Outcome and reason, once decided.
    pub fn decided(&self) -> (Outcome, &str) {
        match self.deal().phase() {
            Phase::Decided(decision) | Phase::Settled { decision, .. } => (decision.outcome, &decision.reason_code),
            other => panic!("not decided: {other:?}"),
        }
    }

    pub fn net(&self) -> Net {
        net(self.deal())
    }

    /// Who said what, one line an event, and how it ended.
    pub fn told(&self) -> String {
        let mut lines: Vec<_> = self.world.records().iter().map(|it| line(&it.kind, it.signer)).collect();
        lines.push(match self.deal().phase() {
            Phase::Settled { decision, .. } | Phase::Decided(decision) => {
                let net = self.net();
                format!(
                    "= {}: {} ({}); client {}, provider {}, mediators {}, treasury {}",
                    self.deal().state(),
                    decision.outcome.word(),
                    decision.reason_code,
                    net.client,
                    net.provider,
                    net.mediators,
                    net.treasury
                )
            }
            _ => format!("= {}", self.deal().state()),
        });
        let effects: Vec<_> = self.world.effects().iter().map(|(_, effect)| format!("{:?}", effect.kind)).collect();
        lines.push(format!("effects: {}", if effects.is_empty() { "none".to_owned() } else { effects.join(", ") }));
        lines.join("\n") + "\n"
    }
}

fn name(account: tribunal_events::Address) -> String {
    keys::name(account).map_or_else(|| account.to_string(), str::to_owned)
}

fn line(kind: &EventKind, signer: tribunal_events::Address) -> String {
    let names = |accounts: &[tribunal_events::Address]| {
        let mut names: Vec<_> = accounts.iter().map(|account| name(*account)).collect();
        names.sort();
        names.join(" ")
    };
    let detail = match kind {
        EventKind::PanelDrawn { round, panel, .. } => format!(" round {round}: {}", names(panel)),
        EventKind::DeadlineElapsed { deadline, silent, .. } if silent.is_empty() => format!(" {deadline}"),
        EventKind::DeadlineElapsed { deadline, silent, .. } => format!(" {deadline}, silent: {}", names(silent)),
        EventKind::ChainObserved { step, failure, .. } => match failure.as_deref() {
            None => format!(" {step}"),
            Some(tribunal_core::REORGANISED) => format!(" {step} undone"),
            Some(_) => format!(" {step} failed"),
        },
        EventKind::VerdictReached { outcome, reason_code, voters, .. } => {
            format!(" {} ({reason_code}) by {}", outcome.word(), names(voters))
        }
        _ => String::new(),
    };
    format!("{}: {}{detail}", name(signer), kind.name()).trim_end().to_owned()
}

/// What a settled deal moved, by role; zero before.
pub fn net(deal: &Deal) -> Net {
    let Phase::Settled { payouts, .. } = deal.phase() else { return Net::default() };
    let of = |role: Role| -> i128 {
        let number = |amount: tribunal_events::Amount| amount.to_string().parse::<i128>().expect("below 2^127");
        payouts.iter().filter(|it| it.role == role).map(|it| number(it.paid) - number(it.locked)).sum()
    };
    Net {
        client: of(Role::Client),
        provider: of(Role::Provider),
        mediators: of(Role::Mediator),
        treasury: of(Role::Treasury),
    }
}

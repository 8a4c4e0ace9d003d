//! Replays a foreign deal: every state change against the marketplace's own table, every payment against what its
//! contracts, as deployed, move at that step.
//!
//! Pure. Observations of one transaction are one step, whatever their order in it. After a contradiction the replay goes on
//! from what the chain says, so that one wrong log is one [`Problem`].

use tribunal_contracts::lilypad::{
    DealState,
    history::{Direction, Reason, Said},
};
use tribunal_events::{Address, U256};

use super::{
    chronicle::{Chronicle, Heard, Problem},
    ledger::{Ledger, pays},
    rule::{Money, Move, Side, leads, next_states, on_agree, on_state, plain, tokens, words},
};

/// A state that the deal came into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub state: DealState,
    /// The one before.
    pub from: DealState,
    /// Log position of the record.
    pub position: u64,
    /// The block's unix time, where it is known.
    pub time_s: Option<u64>,
}

/// A foreign deal, replayed.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Where it stands.
    pub state: DealState,
    /// Every state that it came into, in order.
    pub steps: Vec<Step>,
    /// The money.
    pub ledger: Ledger,
    /// Who pays, where it is known.
    pub client: Option<Address>,
    /// Who computes, where it is known.
    pub provider: Option<Address>,
    /// The mediator that was drawn, with the position and time of the draw.
    pub mediator: Option<(Address, u64, Option<u64>)>,
    /// The side that agreed first, and when.
    pub first: Option<(Side, Option<u64>)>,
    /// Instructions to be paid, where they are known.
    pub instruction_count: Option<U256>,
    /// Payments beyond what the deal held, which their rules called for: account, amount, position.
    pub borrowed: Vec<(Address, U256, u64)>,
    /// What contradicts the marketplace's own rules.
    pub problems: Vec<Problem>,
    /// Last position.
    pub position: u64,
}

impl Replay {
    /// Replays what a chronicle holds.
    pub fn of(chronicle: &Chronicle) -> Self {
        let agreed = chronicle.agreed.as_ref();
        let mut this = Self {
            state: DealState::DealNegotiating,
            steps: Vec::new(),
            ledger: Ledger::default(),
            client: agreed.map(|it| it.job_creator),
            provider: agreed.map(|it| it.resource_provider),
            mediator: None,
            first: None,
            instruction_count: chronicle.given.as_ref().map(|it| it.instruction_count),
            borrowed: Vec::new(),
            problems: Vec::new(),
            position: 0,
        };
        let (mut sides, mut before) = (Vec::new(), None);
        for step in chronicle.heard.chunk_by(|a, b| (a.block, a.transaction) == (b.block, b.transaction)) {
            this.step(chronicle, step, &mut sides);
            let time_s = step[0].time_s;
            if let (Some(before), Some(now)) = (before, time_s)
                && now < before
            {
                this.say(step[0].position, "block-time", format!("not before {before}"), now.to_string());
            }
            before = time_s.or(before);
        }
        this
    }

    /// The step that led into a state.
    pub fn when(&self, state: DealState) -> Option<&Step> {
        self.steps.iter().find(|step| step.state == state)
    }

    fn say(&mut self, position: u64, code: &'static str, expected: String, found: String) {
        self.problems.push(Problem { position, code, expected, found });
    }

    /// One transaction.
    fn step(&mut self, chronicle: &Chronicle, heard: &[Heard], sides: &mut Vec<Side>) {
        let position = heard[0].position;
        self.position = self.position.max(heard.iter().map(|it| it.position).max().unwrap_or_default());
        let (mut states, mut moves, mut legal) = (Vec::new(), Vec::new(), true);
        for it in heard {
            match &it.said {
                Said::State(state) => {
                    legal &= self.enter(chronicle, *state, it);
                    states.push(*state);
                }
                Said::Payment { payee, amount, reason, direction } => {
                    moves.push(Move { direction: *direction, reason: *reason, payee: *payee, amount: *amount });
                }
                Said::Mediator(_) | Said::Result { .. } => {}
            }
        }
        for it in heard {
            self.beside(chronicle, it, &states);
        }
        let moves = plain(moves);
        let agreeing = self.agreeing(chronicle, &moves, &states, sides, heard[0].time_s);
        // What belongs to a step that cannot be is nobody's to say.
        let fits = legal && self.compare(chronicle, position, &moves, &states, &agreeing);
        self.book(position, &moves, fits);
    }

    /// Whether the table leads there.
    fn enter(&mut self, chronicle: &Chronicle, state: DealState, heard: &Heard) -> bool {
        let from = self.state;
        let legal = leads(from, state);
        if !legal {
            self.say(
                heard.position,
                "transition",
                next_states(from),
                format!("{} after {}", state.word(), from.word()),
            );
        }
        self.steps.push(Step { state, from, position: heard.position, time_s: heard.time_s });
        self.state = state;
        if let (Some(opens), Some(at)) = (super::explain::opens(self, chronicle.agreed.as_ref(), state), heard.time_s)
            && legal
            && at <= opens
        {
            let expected = format!("{} not before {}", state.word(), opens.saturating_add(1));
            self.say(heard.position, "too-early", expected, format!("at {at}"));
        }
        legal
    }

    /// Results and draws, which stand beside a state change in the same transaction.
    fn beside(&mut self, chronicle: &Chronicle, heard: &Heard, states: &[DealState]) {
        let needs = |state: DealState| format!("a change to {} in the same transaction", state.word());
        match &heard.said {
            Said::Result { results_id, data_id, instruction_count } => {
                if !states.contains(&DealState::ResultsSubmitted) {
                    self.say(heard.position, "order", needs(DealState::ResultsSubmitted), "a result alone".into());
                }
                if let Some(given) = &chronicle.given
                    && (&given.results_id, &given.data_id, &given.instruction_count)
                        != (results_id, data_id, instruction_count)
                {
                    let say = |data: &str, count: &U256| format!("data {data:?}, {count} instructions");
                    let expected = say(&given.data_id, &given.instruction_count);
                    self.say(heard.position, "result", expected, say(data_id, instruction_count));
                }
                self.instruction_count.get_or_insert(*instruction_count);
            }
            Said::Mediator(mediator) => {
                if !states.contains(&DealState::ResultsChecked) {
                    self.say(heard.position, "order", needs(DealState::ResultsChecked), "a mediator alone".into());
                }
                if let Some(agreed) = &chronicle.agreed
                    && !agreed.mediators.contains(mediator)
                {
                    let expected = format!("one of the {} mediators that were agreed", agreed.mediators.len());
                    self.say(heard.position, "mediator", expected, format!("{mediator:#x}"));
                }
                self.mediator.get_or_insert((*mediator, heard.position, heard.time_s));
            }
            Said::State(_) | Said::Payment { .. } => {}
        }
    }

    /// Which sides agree in a transaction, as their payments tell.
    fn agreeing(
        &mut self,
        chronicle: &Chronicle,
        moves: &[Move],
        states: &[DealState],
        sides: &mut Vec<Side>,
        time_s: Option<u64>,
    ) -> Vec<Side> {
        self.client = self.client.or_else(|| moves.iter().find_map(pays));
        let mut agreeing = Vec::new();
        let agrees = states.is_empty() || states.contains(&DealState::DealAgreed);
        for side in [Side::Provider, Side::Client] {
            let payee = if side == Side::Client { self.client } else { self.provider };
            let pays_in = |it: &Move| {
                let other = side == Side::Provider && Some(it.payee) != self.client;
                it.direction == Direction::PaidIn && payee.map_or(other, |payee| it.payee == payee)
            };
            if agrees && !sides.contains(&side) && moves.iter().any(pays_in) {
                agreeing.push(side);
            }
        }
        if agreeing.is_empty() && states.contains(&DealState::DealAgreed) && chronicle.agreed.is_some() {
            // Where nothing is to be paid in, nothing tells who agreed.
            agreeing.extend([Side::Provider, Side::Client].into_iter().filter(|side| !sides.contains(side)));
        }
        if self.provider.is_none() && agreeing.contains(&Side::Provider) {
            let first = moves.iter().find(|it| it.direction == Direction::PaidIn && Some(it.payee) != self.client);
            self.provider = first.map(|it| it.payee);
        }
        sides.extend(&agreeing);
        if self.first.is_none() {
            self.first = agreeing.first().map(|side| (*side, time_s));
        }
        agreeing
    }

    /// Whether the payments are those of the step. Without the deal's figures nothing can be compared.
    fn compare(
        &mut self,
        chronicle: &Chronicle,
        position: u64,
        moves: &[Move],
        states: &[DealState],
        agreeing: &[Side],
    ) -> bool {
        // The only steps whose own rule can give out more than came in.
        let uneven = [DealState::TimeoutAgree, DealState::TimeoutSubmitResults].iter().any(|it| states.contains(it));
        let Some(agreed) = &chronicle.agreed else { return uneven };
        let mut expected: Vec<Move> = agreeing.iter().flat_map(|side| on_agree(agreed, *side)).collect();
        for state in states {
            let early =
                matches!(state, DealState::DealAgreed | DealState::TimeoutAgree | DealState::TimeoutSubmitResults);
            let count = self.instruction_count.or_else(|| early.then_some(U256::ZERO));
            let Some(count) = count else { return uneven };
            let Some(money) = Money::new(agreed, count) else {
                let found = format!("{count} instructions at {}", tokens(agreed.instruction_price));
                self.say(position, "payments", "figures whose product has 256 bits".into(), found);
                return false;
            };
            // Without the mediation contract's word, whoever was paid for it was the mediator.
            let fee = |it: &&Move| (it.direction, it.reason) == (Direction::PaidOut, Reason::MediationFee);
            let told = moves.iter().find(fee);
            let mediator = self.mediator.map(|it| it.0).or_else(|| told.map(|it| it.payee));
            expected.extend(on_state(*state, &money, self.first.map(|it| it.0), mediator));
        }
        let expected = plain(expected);
        if expected == moves {
            return true;
        }
        let missing: Vec<Move> = without(&expected, moves);
        let surplus: Vec<Move> = without(moves, &expected);
        let what = states.last().map_or("an agreement", |state| state.word());
        let expected = match missing.is_empty() {
            true => format!("no more than the payments of {what}"),
            false => format!("with {what}: {}", words(&missing)),
        };
        self.say(position, "payments", expected, words(&surplus));
        false
    }

    fn book(&mut self, position: u64, moves: &[Move], fits: bool) {
        let before = self.ledger.overdrawn();
        let mut whole = true;
        // What comes in first: their contracts move a step's money in any order.
        let (first, then): (Vec<_>, Vec<_>) = moves.iter().partition(|it| it.direction == Direction::PaidIn);
        for it in first.into_iter().chain(then) {
            whole &= self.ledger.book(it, self.client);
        }
        if !whole {
            self.say(position, "conservation", "sums below 2^256".into(), "more".into());
        }
        for (account, amount) in self.ledger.overdrawn() {
            let known = before.iter().find(|it| it.0 == account).map_or(U256::ZERO, |it| it.1);
            let more = amount.saturating_sub(known);
            if more.is_zero() {
                continue;
            }
            if fits {
                self.borrowed.push((account, more, position));
            } else {
                let expected = format!("no more out of the escrow of {account:#x} than this deal put in");
                self.say(position, "conservation", expected, format!("{} more", tokens(more)));
            }
        }
    }
}

/// What of one list the other does not have, each as often as it is there.
fn without(list: &[Move], other: &[Move]) -> Vec<Move> {
    let mut other = other.to_vec();
    let mut rest = Vec::new();
    for it in list {
        match other.iter().position(|has| has == it) {
            Some(at) => drop(other.swap_remove(at)),
            None => rest.push(*it),
        }
    }
    rest
}

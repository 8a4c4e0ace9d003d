//! The rules of Lilypad v2 and CoopHive v1 as data: their state table, and what their contracts move at each step.
//!
//! *As deployed* is what the bytecode does, defects included; where that is not what was meant, [`super::explain`] says so.
//! States are the Solidity's; amounts are base units.

use tribunal_contracts::lilypad::{
    DealState,
    history::{Agreed, Direction, Reason},
};
use tribunal_events::{Address, U256};

/// Money that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// Where.
    pub direction: Direction,
    /// For what.
    pub reason: Reason,
    /// Whose.
    pub payee: Address,
    /// How much.
    pub amount: U256,
}

/// A side of a deal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Pays; their job creator.
    Client,
    /// Computes; their resource provider.
    Provider,
}

/// Whether their table leads from one state to the other by one call.
pub const fn leads(from: DealState, to: DealState) -> bool {
    use DealState as S;
    matches!(
        (from, to),
        (S::DealNegotiating, S::DealAgreed | S::TimeoutAgree)
            | (S::DealAgreed, S::ResultsSubmitted | S::TimeoutSubmitResults)
            | (S::ResultsSubmitted, S::ResultsAccepted | S::ResultsChecked | S::TimeoutJudgeResults)
            | (S::ResultsChecked, S::MediationAccepted | S::MediationRejected | S::TimeoutMediateResults)
    )
}

/// The states that their table leads to from one.
pub fn next_states(from: DealState) -> String {
    let next: Vec<_> = DealState::ALL.into_iter().filter(|to| leads(from, *to)).map(DealState::word).collect();
    if next.is_empty() { format!("nothing: {} is final", from.word()) } else { next.join(" or ") }
}

/// The money of a deal: what was agreed, and what follows from the count that the provider gave.
#[derive(Clone, Copy, Debug)]
pub struct Money<'a> {
    /// What was agreed.
    pub agreed: &'a Agreed,
    /// instructionPrice × instructionCount.
    pub cost: U256,
    /// resultsCollateralMultiple × cost.
    pub results_collateral: U256,
}

impl<'a> Money<'a> {
    /// Nothing where the contracts' own arithmetic would overflow.
    pub fn new(agreed: &'a Agreed, instruction_count: U256) -> Option<Self> {
        let cost = agreed.instruction_price.checked_mul(instruction_count)?;
        let results_collateral = agreed.results_collateral_multiple.checked_mul(cost)?;
        Some(Self { agreed, cost, results_collateral })
    }

    /// What the provider is paid: the cost, up to what the client put in.
    pub fn paid(&self) -> U256 {
        self.cost.min(self.agreed.payment_collateral)
    }
}

/// What a side pays in when it agrees.
pub fn on_agree(agreed: &Agreed, side: Side) -> Vec<Move> {
    let paid_in = |payee, reason, amount| Move { direction: Direction::PaidIn, reason, payee, amount };
    let moves = match side {
        Side::Provider => vec![paid_in(agreed.resource_provider, Reason::TimeoutCollateral, agreed.submit_collateral)],
        Side::Client => vec![
            paid_in(agreed.job_creator, Reason::PaymentCollateral, agreed.payment_collateral),
            paid_in(agreed.job_creator, Reason::TimeoutCollateral, agreed.judge_collateral),
        ],
    };
    plain(moves)
}

/// What the contracts move, as deployed, when the deal comes into a state; `first` is the side that agreed first, and a
/// mediator is paid where there is one.
pub fn on_state(state: DealState, money: &Money<'_>, first: Option<Side>, mediator: Option<Address>) -> Vec<Move> {
    use {DealState as S, Direction as D, Reason as R};
    let Money { agreed, results_collateral, .. } = *money;
    let (client, provider, paid) = (agreed.job_creator, agreed.resource_provider, money.paid());
    let it = |direction, payee, reason, amount| Move { direction, reason, payee, amount };
    let fee = mediator.map(|mediator| it(D::PaidOut, mediator, R::MediationFee, agreed.mediation_fee));
    let settled = [
        it(D::PaidOut, provider, R::JobPayment, paid),
        it(D::Refunded, client, R::PaymentCollateral, agreed.payment_collateral.saturating_sub(paid)),
        it(D::Refunded, provider, R::ResultsCollateral, results_collateral),
    ];
    let mut moves = match state {
        S::DealNegotiating | S::DealAgreed => Vec::new(),
        S::ResultsSubmitted => vec![
            it(D::PaidIn, provider, R::ResultsCollateral, results_collateral),
            it(D::Refunded, provider, R::TimeoutCollateral, agreed.submit_collateral),
        ],
        S::ResultsAccepted => {
            [&settled[..], &[it(D::Refunded, client, R::TimeoutCollateral, agreed.judge_collateral)]].concat()
        }
        S::ResultsChecked => vec![
            it(D::Refunded, client, R::TimeoutCollateral, agreed.judge_collateral),
            it(D::PaidIn, client, R::MediationFee, agreed.mediation_fee),
        ],
        S::MediationAccepted => settled.to_vec(),
        S::MediationRejected => vec![
            it(D::Refunded, client, R::PaymentCollateral, agreed.payment_collateral),
            it(D::Slashed, provider, R::ResultsCollateral, results_collateral),
        ],
        // The submit collateral whoever agreed, though a client paid the judge collateral.
        S::TimeoutAgree => match first {
            Some(Side::Provider) => {
                vec![it(D::Refunded, provider, R::TimeoutCollateral, agreed.submit_collateral)]
            }
            Some(Side::Client) => vec![
                it(D::Refunded, client, R::PaymentCollateral, agreed.payment_collateral),
                it(D::Refunded, client, R::TimeoutCollateral, agreed.submit_collateral),
            ],
            None => Vec::new(),
        },
        // Likewise.
        S::TimeoutSubmitResults => vec![
            it(D::Refunded, client, R::PaymentCollateral, agreed.payment_collateral),
            it(D::Refunded, client, R::TimeoutCollateral, agreed.submit_collateral),
            it(D::Slashed, provider, R::TimeoutCollateral, agreed.submit_collateral),
        ],
        // Pays nobody for the work and leaves the payment where it is.
        S::TimeoutJudgeResults => vec![
            it(D::Refunded, provider, R::ResultsCollateral, results_collateral),
            it(D::Slashed, client, R::TimeoutCollateral, agreed.judge_collateral),
        ],
        S::TimeoutMediateResults => vec![
            it(D::Refunded, provider, R::ResultsCollateral, results_collateral),
            it(D::Refunded, client, R::PaymentCollateral, agreed.payment_collateral),
            it(D::Refunded, client, R::MediationFee, agreed.mediation_fee),
        ],
    };
    if matches!(state, S::MediationAccepted | S::MediationRejected) {
        moves.extend(fee);
    }
    plain(moves)
}

/// In one order and without what moves nothing, so that two lists can be compared.
pub fn plain(mut moves: Vec<Move>) -> Vec<Move> {
    moves.retain(|it| !it.amount.is_zero());
    moves.sort_unstable();
    moves
}

/// Moves in words.
pub fn words(moves: &[Move]) -> String {
    let one =
        |it: &Move| format!("{:#x} {} {} as {}", it.payee, it.direction.word(), tokens(it.amount), it.reason.word());
    if moves.is_empty() { "nothing".into() } else { moves.iter().map(one).collect::<Vec<_>>().join("; ") }
}

/// Base units as tokens of 18 decimals, exactly.
pub fn tokens(amount: U256) -> String {
    let unit = U256::from(10).pow(U256::from(18));
    let (whole, rest) = (amount / unit, amount % unit);
    if rest.is_zero() {
        return format!("{whole} tokens");
    }
    let digits = format!("{:0>18}", rest.to_string());
    format!("{whole}.{} tokens", digits.trim_end_matches('0'))
}

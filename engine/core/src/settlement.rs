use tribunal_events::{Address, Amount, Outcome, Payout, Role, Terms};

/// Settlement rule 1 (PROTOCOL "Money"): who had what locked and who gets what out.
///
/// **Invariant:** paid and locked sums are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    payouts: Vec<Payout>,
}

/// P: what the work costs, never more than the payment collateral.
pub fn price(terms: &Terms, instruction_count: u64) -> Amount {
    let pricing = &terms.pricing;
    if pricing.metered {
        // Beyond 2^256 is beyond any collateral.
        pricing
            .price
            .checked_mul(instruction_count)
            .map_or(pricing.payment_collateral, |price| price.min(pricing.payment_collateral))
    } else {
        pricing.price
    }
}

impl Settlement {
    /// The money of an outcome; `voters` revealed a vote in time, ascending. `funded` tells whether money was locked.
    pub fn new(terms: &Terms, outcome: Outcome, instruction_count: u64, voters: &[Address], funded: bool) -> Self {
        let sum = |a: Amount, b: Amount| a.checked_add(b).expect("amounts of a deal are below 2^192");
        let less = |a: Amount, b: Amount| a.checked_sub(b).expect("a lock covers what is taken from it");
        let it = &terms.pricing;
        let (client_lock, provider_lock) = if funded {
            (
                sum(sum(it.payment_collateral, it.mediation_fee), it.judge_collateral),
                sum(sum(it.results_collateral, it.mediation_fee), it.submit_collateral),
            )
        } else {
            (Amount::ZERO, Amount::ZERO)
        };
        let price = price(terms, instruction_count);
        let fee = price.share(terms.fee_bps);
        let victim = it.results_collateral.share(terms.victim_bps);
        let quarter = it.mediation_fee.split(4);
        let nothing = Amount::ZERO;
        // (client, provider, mediators together, treasury)
        let (client, provider, mediators, treasury) = match outcome {
            _ if !funded => (nothing, nothing, nothing, nothing),
            Outcome::Accepted => (less(client_lock, price), less(sum(provider_lock, price), fee), nothing, fee),
            Outcome::Valid => (
                less(less(client_lock, price), it.mediation_fee),
                less(sum(provider_lock, price), fee),
                it.mediation_fee,
                fee,
            ),
            Outcome::Invalid => (
                sum(client_lock, victim),
                less(less(provider_lock, it.results_collateral), it.mediation_fee),
                it.mediation_fee,
                less(it.results_collateral, victim),
            ),
            Outcome::Inconclusive => {
                (less(client_lock, quarter), less(provider_lock, quarter), sum(quarter, quarter), nothing)
            }
            Outcome::SubmitTimeout => {
                (sum(client_lock, it.submit_collateral), less(provider_lock, it.submit_collateral), nothing, nothing)
            }
            Outcome::JudgeTimeout => (
                less(less(client_lock, price), it.judge_collateral),
                less(sum(sum(provider_lock, price), it.judge_collateral), fee),
                nothing,
                fee,
            ),
            Outcome::AgreeTimeout | Outcome::MediateTimeout | Outcome::Withdrawn | Outcome::Unspecified => {
                (client_lock, provider_lock, nothing, nothing)
            }
        };
        let payout = |account, role, locked, paid| Payout { account, role, locked, paid };
        let mut payouts = vec![
            payout(terms.client, Role::Client, client_lock, client),
            payout(terms.provider, Role::Provider, provider_lock, provider),
        ];
        let mut remainder = mediators;
        if !voters.is_empty() && !mediators.is_zero() {
            let each = mediators.split(voters.len() as u64);
            for voter in voters {
                payouts.push(payout(*voter, Role::Mediator, nothing, each));
                remainder = less(remainder, each);
            }
        }
        payouts.push(payout(terms.treasury, Role::Treasury, nothing, sum(treasury, remainder)));
        let this = Self { payouts };
        assert_eq!(this.locked(), this.paid(), "a settlement conserves money");
        this
    }

    /// Everybody's share: client, provider, mediators ascending, treasury.
    pub fn payouts(&self) -> &[Payout] {
        &self.payouts
    }

    /// All that was locked.
    pub fn locked(&self) -> Amount {
        total(self.payouts.iter().map(|payout| payout.locked))
    }

    /// All that is paid out.
    pub fn paid(&self) -> Amount {
        total(self.payouts.iter().map(|payout| payout.paid))
    }

    /// What a role gets out in all.
    pub fn paid_to(&self, role: Role) -> Amount {
        total(self.payouts.iter().filter(|payout| payout.role == role).map(|payout| payout.paid))
    }
}

fn total(amounts: impl Iterator<Item = Amount>) -> Amount {
    amounts.fold(Amount::ZERO, |sum, amount| sum.checked_add(amount).expect("amounts of a deal are below 2^192"))
}

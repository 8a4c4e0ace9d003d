//! What each account put into a foreign deal and got out, as the payments tell it.

use std::collections::BTreeMap;

use tribunal_contracts::lilypad::history::{Direction, Reason};
use tribunal_events::{Address, U256};

use super::rule::Move;

/// One account in a deal, base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Paid into escrow.
    pub locked: U256,
    /// Came back from it.
    pub returned: U256,
    /// Was paid to others out of it.
    pub given: U256,
    /// Was taken from it for the owner of the token.
    pub slashed: U256,
    /// Was paid to this account out of another's.
    pub received: U256,
}

impl Account {
    /// What left the escrow of this account.
    fn left(&self) -> Option<U256> {
        self.returned.checked_add(self.given)?.checked_add(self.slashed)
    }

    /// What is in escrow, and what left it beyond what this deal put in.
    pub fn in_escrow(&self) -> (U256, U256) {
        let left = self.left().unwrap_or(U256::MAX);
        (self.locked.saturating_sub(left), left.saturating_sub(self.locked))
    }

    /// What the account has more or less for the deal, signed decimal.
    pub fn net(&self) -> String {
        let gained = self.returned.saturating_add(self.received);
        match gained.checked_sub(self.locked) {
            Some(gain) if gain.is_zero() => "0".into(),
            Some(gain) => format!("+{gain}"),
            None => format!("-{}", self.locked - gained),
        }
    }
}

/// All accounts of a deal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By address.
    pub accounts: BTreeMap<Address, Account>,
    /// What went to the owner of the token.
    pub slashed: U256,
}

impl Ledger {
    /// Books a payment; `client` is whose escrow pays for jobs and mediation. False where sums leave 256 bits.
    #[must_use]
    pub fn book(&mut self, it: &Move, client: Option<Address>) -> bool {
        let mut add = |account: Address, field: fn(&mut Account) -> &mut U256| {
            let field = field(self.accounts.entry(account).or_default());
            let sum = field.checked_add(it.amount);
            *field = sum.unwrap_or(U256::MAX);
            sum.is_some()
        };
        match it.direction {
            Direction::PaidIn => add(it.payee, |it| &mut it.locked),
            Direction::Refunded => add(it.payee, |it| &mut it.returned),
            Direction::PaidOut => {
                let paid = client.is_none_or(|client| add(client, |it| &mut it.given));
                add(it.payee, |it| &mut it.received) && paid
            }
            Direction::Slashed => {
                let sum = self.slashed.checked_add(it.amount);
                self.slashed = sum.unwrap_or(U256::MAX);
                let taken = self.accounts.entry(it.payee).or_default();
                let of_account = taken.slashed.checked_add(it.amount);
                taken.slashed = of_account.unwrap_or(U256::MAX);
                sum.is_some() && of_account.is_some()
            }
        }
    }

    /// What an account has in escrow for this deal.
    pub fn in_escrow(&self, account: Address) -> U256 {
        self.accounts.get(&account).map_or(U256::ZERO, |it| it.in_escrow().0)
    }

    /// Accounts of whose escrow more left than this deal put in, and how much.
    pub fn overdrawn(&self) -> Vec<(Address, U256)> {
        let over = |(account, it): (&Address, &Account)| (*account, it.in_escrow().1);
        self.accounts.iter().map(over).filter(|(_, amount)| !amount.is_zero()).collect()
    }

    /// Accounts with money in escrow, and how much.
    pub fn held(&self) -> Vec<(Address, U256)> {
        let held = |(account, it): (&Address, &Account)| (*account, it.in_escrow().0);
        self.accounts.iter().map(held).filter(|(_, amount)| !amount.is_zero()).collect()
    }
}

/// Who pays in the payment collateral is the client, where nobody read the deal.
pub fn pays(it: &Move) -> Option<Address> {
    (it.direction == Direction::PaidIn && it.reason == Reason::PaymentCollateral).then_some(it.payee)
}

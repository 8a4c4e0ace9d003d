//! What a transaction offers for gas.

use alloy::{
    consensus::{Transaction as _, TxEnvelope},
    eips::BlockNumberOrTag,
    network::TransactionBuilder as _,
    providers::{DynProvider, Provider},
    rpc::types::TransactionRequest,
    transports::{RpcError, TransportError},
};

/// Blocks whose tips are looked at.
const TIP_BLOCKS: u64 = 10;
/// The tip that is paid in a block's cheaper transactions.
const TIP_PERCENTILE: f64 = 25.0;
/// The tip where a node knows nothing of tips: one gwei.
const TIP_WEI: u128 = 1_000_000_000;

/// Wei for each unit of gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fees {
    /// EIP-1559.
    Dynamic { max: u128, tip: u128 },
    /// On a chain without a base fee.
    Legacy { price: u128 },
}

/// More than the cap was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverCap {
    pub asked_wei: u128,
}

/// What the chain asks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quote {
    Dynamic { base: u128, tip: u128 },
    Legacy { price: u128 },
}

impl Quote {
    pub(super) async fn ask(provider: &DynProvider) -> Result<Self, TransportError> {
        match provider.get_fee_history(TIP_BLOCKS, BlockNumberOrTag::Latest, &[TIP_PERCENTILE]).await {
            Ok(history) => {
                if let Some(base) = history.next_block_base_fee().filter(|base| *base > 0) {
                    let rewards = history.reward.unwrap_or_default();
                    let mut tips: Vec<u128> =
                        rewards.iter().filter_map(|block| block.first().copied()).filter(|tip| *tip > 0).collect();
                    tips.sort_unstable();
                    let tip = match tips.get(tips.len() / 2) {
                        Some(tip) => *tip,
                        None => tip(provider).await?,
                    };
                    return Ok(Self::Dynamic { base, tip });
                }
            }
            // A node that does not know the method says so; one that cannot answer is no chain without a base fee.
            Err(RpcError::ErrorResp(_)) => {}
            Err(error) => return Err(error),
        }
        let block = provider.get_block_by_number(BlockNumberOrTag::Latest).await?;
        match block.and_then(|block| block.header.base_fee_per_gas) {
            Some(base) => Ok(Self::Dynamic { base: base.into(), tip: tip(provider).await? }),
            None => Ok(Self::Legacy { price: provider.get_gas_price().await? }),
        }
    }

    /// The least with which the next block may take a transaction.
    const fn needed(self) -> u128 {
        match self {
            Self::Dynamic { base, tip } => base.saturating_add(tip),
            Self::Legacy { price } => price,
        }
    }

    /// A first offer: room for the base fee to double, within the cap.
    pub(super) fn offer(self, cap_wei: u128) -> Result<Fees, OverCap> {
        let needed = self.needed();
        if needed > cap_wei {
            return Err(OverCap { asked_wei: needed });
        }
        Ok(match self {
            Self::Dynamic { base, tip } => {
                Fees::Dynamic { max: base.saturating_mul(2).saturating_add(tip).min(cap_wei), tip }
            }
            Self::Legacy { price } => Fees::Legacy { price },
        })
    }

    /// An offer in place of `old` that nodes take for a replacement, within the cap.
    pub(super) fn raise(self, old: Fees, cap_wei: u128) -> Result<Fees, OverCap> {
        let (old_max, old_tip) = match old {
            Fees::Dynamic { max, tip } => (max, tip),
            Fees::Legacy { price } => (price, price),
        };
        let wanted = match self {
            Self::Dynamic { base, tip } => base.saturating_mul(2).saturating_add(tip),
            Self::Legacy { price } => price,
        };
        let max = raised(old_max).max(wanted.min(cap_wei)).min(cap_wei.max(old_max));
        // Less than a tenth more is refused, and less than what is asked is not taken.
        if max < old_max.saturating_add(old_max.div_ceil(10)) || max < self.needed() {
            return Err(OverCap { asked_wei: raised(old_max).max(self.needed()) });
        }
        Ok(match old {
            Fees::Dynamic { .. } => {
                let asked = if let Self::Dynamic { tip, .. } = self { tip } else { 0 };
                let tip = raised(old_tip).max(asked).min(max);
                Fees::Dynamic { max, tip }
            }
            Fees::Legacy { .. } => Fees::Legacy { price: max },
        })
    }
}

async fn tip(provider: &DynProvider) -> Result<u128, TransportError> {
    match provider.get_max_priority_fee_per_gas().await {
        Err(RpcError::ErrorResp(_)) => Ok(TIP_WEI),
        answer => answer,
    }
}

/// An eighth more, rounded up.
const fn raised(fee: u128) -> u128 {
    fee.saturating_add(fee.div_ceil(8))
}

impl Fees {
    pub(super) fn of(transaction: &TxEnvelope) -> Self {
        match transaction.max_priority_fee_per_gas() {
            Some(tip) => Self::Dynamic { max: transaction.max_fee_per_gas(), tip },
            None => Self::Legacy { price: transaction.max_fee_per_gas() },
        }
    }

    pub(super) fn on(self, request: TransactionRequest) -> TransactionRequest {
        match self {
            Self::Dynamic { max, tip } => request.with_max_fee_per_gas(max).with_max_priority_fee_per_gas(tip),
            Self::Legacy { price } => request.with_gas_price(price),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GWEI: u128 = 1_000_000_000;

    #[test]
    fn a_first_offer_leaves_room_and_stays_within_the_cap() {
        let quote = Quote::Dynamic { base: 10 * GWEI, tip: GWEI };
        assert_eq!(quote.offer(100 * GWEI), Ok(Fees::Dynamic { max: 21 * GWEI, tip: GWEI }));
        assert_eq!(quote.offer(15 * GWEI), Ok(Fees::Dynamic { max: 15 * GWEI, tip: GWEI }));
        assert_eq!(quote.offer(11 * GWEI - 1), Err(OverCap { asked_wei: 11 * GWEI }));
        assert_eq!(Quote::Legacy { price: 5 }.offer(5), Ok(Fees::Legacy { price: 5 }));
        assert_eq!(Quote::Legacy { price: 5 }.offer(4), Err(OverCap { asked_wei: 5 }));
    }

    #[test]
    fn every_raise_is_a_replacement_to_nodes_until_the_cap() {
        let quote = Quote::Dynamic { base: 7, tip: 1 };
        for cap in [100, 1_000, GWEI, 37 * GWEI] {
            let mut fees = quote.offer(cap).unwrap();
            let mut raises = 0;
            let over = loop {
                match quote.raise(fees, cap) {
                    Ok(next) => {
                        let (Fees::Dynamic { max, tip }, Fees::Dynamic { max: more, tip: more_tip }) = (fees, next)
                        else {
                            panic!("{next:?}")
                        };
                        assert!(more * 10 >= max * 11 && more_tip * 10 >= tip * 11, "{fees:?} {next:?}");
                        assert!(more_tip <= more && more <= cap);
                        fees = next;
                        raises += 1;
                    }
                    Err(over) => break over,
                }
            };
            let Fees::Dynamic { max, .. } = fees else { unreachable!() };
            assert!(raises > 5 && over.asked_wei > cap && max * 11 > cap * 10, "the cap is used up: {max} of {cap}");
        }
    }

    #[test]
    fn a_raise_follows_a_chain_that_became_dearer() {
        let old = Fees::Dynamic { max: 20, tip: 2 };
        assert_eq!(Quote::Dynamic { base: 100, tip: 5 }.raise(old, 1_000), Ok(Fees::Dynamic { max: 205, tip: 5 }));
        assert_eq!(Quote::Dynamic { base: 100, tip: 5 }.raise(old, 104), Err(OverCap { asked_wei: 105 }));
        assert_eq!(Quote::Legacy { price: 50 }.raise(Fees::Legacy { price: 20 }, 60), Ok(Fees::Legacy { price: 50 }));
    }
}

//! The order and arguments in which the contracts are deployed, the same on every chain.

use alloy_primitives::Bytes;
use alloy_sol_types::SolConstructor;
use tribunal_events::Address;

use crate::bindings::{escrow::TribunalEscrow, registry::MediatorRegistry, token::TestToken};

/// Where the contracts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Addresses {
    /// The token of bonds; on test chains also that of deals.
    pub token: Address,
    /// `MediatorRegistry`.
    pub registry: Address,
    /// `TribunalEscrow`.
    pub escrow: Address,
}

impl Addresses {
    /// Where an account's transactions with nonces `nonce` (token), `nonce + 1` (registry) and `nonce + 2` (escrow) put
    /// them.
    pub fn predict(deployer: Address, nonce: u64) -> Self {
        Self { token: deployer.create(nonce), registry: deployer.create(nonce + 1), escrow: deployer.create(nonce + 2) }
    }

    /// The three creations in order, without a guardian: nobody can ever pause.
    pub(crate) fn creations(&self, treasury: Address, unbond_delay_s: u64) -> [Bytes; 3] {
        self.creations_with_guardian(treasury, unbond_delay_s, Address::ZERO)
    }

    /// Likewise, with an account that may pause new cases and deposits for a while, zero for nobody. The registry learns
    /// the escrow's address ahead, the escrow checks it.
    pub(crate) fn creations_with_guardian(
        &self,
        treasury: Address,
        unbond_delay_s: u64,
        guardian: Address,
    ) -> [Bytes; 3] {
        let registry = MediatorRegistry::constructorCall {
            token_: self.token,
            escrow_: self.escrow,
            treasury_: treasury,
            unbondDelay_: unbond_delay_s,
        };
        let escrow = TribunalEscrow::constructorCall { registry_: self.registry, guardian_: guardian };
        [
            TestToken::BYTECODE.clone(),
            [&MediatorRegistry::BYTECODE[..], &registry.abi_encode()].concat().into(),
            [&TribunalEscrow::BYTECODE[..], &escrow.abi_encode()].concat().into(),
        ]
    }
}

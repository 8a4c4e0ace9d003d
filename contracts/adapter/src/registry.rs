//! What a mediator does with its own stake at the registry, and what anybody may read there.
//!
//! The account that sends is the mediator's own: the contract knows no other word for whose stake it is.

use std::sync::Arc;

use alloy::providers::Provider;
use alloy_primitives::U256;
use tribunal_events::{Address, Amount, Signer};

use crate::{
    Account, Addresses, BondView, ChainFault, JsonRpcChain, Mined, RpcSettings,
    bindings::{registry::MediatorRegistry, token::TestToken},
    json_rpc::fault,
    perform::{self, view},
};

impl JsonRpcChain {
    /// Connects to the registry as the account of `signer`. Escrow and token are asked of the registry; where they are
    /// given they must be those.
    ///
    /// # Errors
    /// As [`JsonRpcChain::connect`].
    pub async fn connect_registry(
        rpc_url: &str,
        signer: Arc<dyn Signer>,
        registry: Address,
        escrow: Option<Address>,
        token: Option<Address>,
    ) -> Result<Self, ChainFault> {
        Self::dial(RpcSettings::at(rpc_url), Account::of(signer), at(registry))
            .await?
            .with_registry(escrow, token)
            .await
    }

    /// Connects to the registry to read about `account`; sends nothing.
    ///
    /// # Errors
    /// As [`JsonRpcChain::connect`].
    pub async fn watch_registry(
        rpc_url: &str,
        account: Address,
        registry: Address,
        escrow: Option<Address>,
        token: Option<Address>,
    ) -> Result<Self, ChainFault> {
        let account = Account::watched(account);
        Self::dial(RpcSettings::at(rpc_url), account, at(registry)).await?.with_registry(escrow, token).await
    }

    async fn with_registry(mut self, escrow: Option<Address>, token: Option<Address>) -> Result<Self, ChainFault> {
        let registry = self.addresses().registry;
        // Another contract refuses what it does not know.
        let foreign = |fault| match fault {
            ChainFault::Reverted { .. } => {
                ChainFault::Unexpected { what: "connect", problem: format!("{registry} is no registry of ours") }
            }
            other => other,
        };
        let named = view(&self, registry, "connect", MediatorRegistry::escrowCall {}).await.map_err(foreign)?;
        let bonded = view(&self, registry, "connect", MediatorRegistry::tokenCall {}).await.map_err(foreign)?;
        for (name, named, given) in [("escrow", named, escrow), ("token", bonded, token)] {
            if given.is_some_and(|given| given != named) {
                let problem =
                    format!("registry {registry} names {name} {named}, not {}", given.expect("looked at just now"));
                return Err(ChainFault::Unexpected { what: "connect", problem });
            }
        }
        self.set_addresses(Addresses { token: bonded, registry, escrow: named });
        self.check_deployment().await?;
        Ok(self)
    }

    /// The registry, as the account of this chain.
    pub const fn registry(&self) -> Registry<'_> {
        Registry { chain: self }
    }
}

/// Only the registry is known yet.
const fn at(registry: Address) -> Addresses {
    Addresses { token: Address::ZERO, registry, escrow: Address::ZERO }
}

/// The registry as one account meets it. Amounts are base units of the bond token.
#[derive(Clone, Copy)]
pub struct Registry<'a> {
    chain: &'a JsonRpcChain,
}

impl Registry<'_> {
    /// Takes `operator`'s word on the own silence, or no longer.
    ///
    /// # Errors
    /// Where the contract refuses or the node fails, as for everything here.
    pub async fn set_operator(&self, operator: Address, allowed: bool) -> Result<Mined, ChainFault> {
        let call = MediatorRegistry::setOperatorCall { operator, allowed };
        self.send("set-operator", self.chain.addresses().registry, call).await
    }

    /// Stakes at most this on answering in a case that appoints the own account without such an operator.
    ///
    /// # Errors
    /// As [`Registry::set_operator`].
    pub async fn set_appointment_slash_max(&self, amount: Amount) -> Result<Mined, ChainFault> {
        let call = MediatorRegistry::setAppointmentSlashMaxCall { amount: amount.base_units() };
        self.send("set-appointment-slash-max", self.chain.addresses().registry, call).await
    }

    /// Lets the registry take this much of the own tokens.
    ///
    /// # Errors
    /// As [`Registry::set_operator`].
    pub async fn approve(&self, amount: Amount) -> Result<Mined, ChainFault> {
        let Addresses { token, registry, .. } = self.chain.addresses();
        self.send("approve", token, TestToken::approveCall { spender: registry, value: amount.base_units() }).await
    }

    /// Bonds own tokens that the registry may take.
    ///
    /// # Errors
    /// As [`Registry::set_operator`].
    pub async fn bond(&self, amount: Amount) -> Result<Mined, ChainFault> {
        let call = MediatorRegistry::bondCall { amount: amount.base_units() };
        self.send("bond", self.chain.addresses().registry, call).await
    }

    /// Starts to take out of the own bond; what is on its way already waits anew.
    ///
    /// # Errors
    /// As [`Registry::set_operator`].
    pub async fn start_unbond(&self, amount: Amount) -> Result<Mined, ChainFault> {
        let call = MediatorRegistry::startUnbondCall { amount: amount.base_units() };
        self.send("unbond", self.chain.addresses().registry, call).await
    }

    /// Takes what has waited long enough.
    ///
    /// # Errors
    /// As [`Registry::set_operator`].
    pub async fn finish_unbond(&self) -> Result<Mined, ChainFault> {
        self.send("finish-unbond", self.chain.addresses().registry, MediatorRegistry::finishUnbondCall {}).await
    }

    /// Takes what slashes of others left to the own account.
    ///
    /// # Errors
    /// As [`Registry::set_operator`].
    pub async fn collect(&self) -> Result<Mined, ChainFault> {
        self.send("collect", self.chain.addresses().registry, MediatorRegistry::collectCall {}).await
    }

    /// A mediator's stake.
    ///
    /// # Errors
    /// Where the chain cannot be read, as for everything below.
    pub async fn bond_of(&self, mediator: Address) -> Result<BondView, ChainFault> {
        perform::bond(self.chain, mediator).await
    }

    /// Whether `mediator` takes `operator`'s word on its silence.
    ///
    /// # Errors
    /// As [`Registry::bond_of`].
    pub async fn is_operator(&self, mediator: Address, operator: Address) -> Result<bool, ChainFault> {
        let call = MediatorRegistry::isOperatorCall { mediator, operator };
        view(self.chain, self.chain.addresses().registry, "operator", call).await
    }

    /// What slashes left to an account and it has not collected.
    ///
    /// # Errors
    /// As [`Registry::bond_of`].
    pub async fn owed_to(&self, account: Address) -> Result<Amount, ChainFault> {
        let call = MediatorRegistry::owedToCall { account };
        view(self.chain, self.chain.addresses().registry, "owed", call).await.map(Amount::new)
    }

    /// Seconds between starting to unbond and being paid.
    ///
    /// # Errors
    /// As [`Registry::bond_of`].
    pub async fn unbond_delay_s(&self) -> Result<u64, ChainFault> {
        view(self.chain, self.chain.addresses().registry, "unbond delay", MediatorRegistry::unbondDelayCall {}).await
    }

    /// An account's bond tokens, those in bonds and in the escrow left out.
    ///
    /// # Errors
    /// As [`Registry::bond_of`].
    pub async fn token_balance(&self, account: Address) -> Result<Amount, ChainFault> {
        view(self.chain, self.chain.addresses().token, "token", TestToken::balanceOfCall { account })
            .await
            .map(Amount::new)
    }

    /// How many of an account's tokens the registry may take.
    ///
    /// # Errors
    /// As [`Registry::bond_of`].
    pub async fn allowance(&self, account: Address) -> Result<Amount, ChainFault> {
        let Addresses { token, registry, .. } = self.chain.addresses();
        let call = TestToken::allowanceCall { owner: account, spender: registry };
        view(self.chain, token, "allowance", call).await.map(Amount::new)
    }

    /// An account's native currency, in wei: what it can pay gas with.
    ///
    /// # Errors
    /// As [`Registry::bond_of`].
    pub async fn native_balance(&self, account: Address) -> Result<Amount, ChainFault> {
        let balance = self.chain.provider().get_balance(account).await;
        balance.map(Amount::new).map_err(|error| fault("balance", error))
    }

    /// Unix time of the newest block: the chain's own clock.
    ///
    /// # Errors
    /// As [`Registry::bond_of`].
    pub async fn block_time_s(&self) -> Result<u64, ChainFault> {
        crate::block_time_s(self.chain.provider()).await
    }

    async fn send<C: alloy_sol_types::SolCall>(
        &self,
        what: &'static str,
        to: Address,
        call: C,
    ) -> Result<Mined, ChainFault> {
        let receipt = self.chain.send_again(what, Some(to), call.abi_encode().into(), U256::ZERO).await?;
        Ok(receipt.mined)
    }
}

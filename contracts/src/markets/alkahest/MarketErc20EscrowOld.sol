// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IArbiterOld} from "./Arbiters.sol";
import {Attestation, IEas} from "./Eas.sol";
import {MarketEscrowBase} from "./MarketEscrowBase.sol";

/// @title An ERC-20 escrow to the ABI that Alkahest had before 1.0, for tests
/// @notice Written here from the ABI; it is not the original and is to hold no real money. A reclaim emits
/// nothing, and a fulfilment that is revoked or expired is the arbiter's business.
contract MarketErc20EscrowOld is MarketEscrowBase {
    constructor(IEas eas) MarketEscrowBase(eas) {}

    function collectEscrow(bytes32 escrowUid, bytes32 fulfillmentUid) external returns (bool) {
        _collect(escrowUid, fulfillmentUid);
        return true;
    }

    function reclaimExpired(bytes32 escrowUid) external returns (bool) {
        _reclaim(escrowUid);
        return true;
    }

    function extractArbiterAndDemand(bytes calldata escrowData)
        external
        pure
        returns (address arbiter, bytes memory demand)
    {
        ObligationData memory terms = _decode(escrowData);
        return (terms.arbiter, terms.demand);
    }

    function _approved(address arbiter, Attestation memory fulfillment, bytes memory demand, bytes32 escrowUid)
        internal
        view
        override
        returns (bool)
    {
        return IArbiterOld(arbiter).checkObligation(fulfillment, demand, escrowUid);
    }

    function _requireFulfilling(Attestation memory fulfillment) internal view override {}
}

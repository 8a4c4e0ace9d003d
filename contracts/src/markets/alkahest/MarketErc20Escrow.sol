// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IArbiter} from "./Arbiters.sol";
import {Attestation, IEas} from "./Eas.sol";
import {MarketEscrowBase} from "./MarketEscrowBase.sol";

/// @title An ERC-20 escrow to the ABI of Alkahest 1.0, for tests
/// @notice Written here from the ABI; it is not the original and is to hold no real money.
contract MarketErc20Escrow is MarketEscrowBase {
    event EscrowReclaimed(bytes32 indexed escrowUid, address indexed escrower);

    constructor(IEas eas) MarketEscrowBase(eas) {}

    /// @notice Pays the fulfilment's recipient if the escrow's arbiter says yes to it. Returns nothing for tokens.
    function collect(bytes32 escrowUid, bytes32 fulfillmentUid) external returns (bytes memory) {
        _collect(escrowUid, fulfillmentUid);
        return "";
    }

    /// @notice Gives an expired escrow back.
    function reclaim(bytes32 escrowUid) external returns (bool) {
        emit EscrowReclaimed(escrowUid, _reclaim(escrowUid));
        return true;
    }

    function decodeCondition(bytes calldata escrowData) external pure returns (address arbiter, bytes memory demand) {
        ObligationData memory terms = _decode(escrowData);
        return (terms.arbiter, terms.demand);
    }

    function _approved(address arbiter, Attestation memory fulfillment, bytes memory demand, bytes32 escrowUid)
        internal
        view
        override
        returns (bool)
    {
        return IArbiter(arbiter).check(fulfillment, demand, escrowUid);
    }

    function _requireFulfilling(Attestation memory fulfillment) internal view override {
        _requireInForce(fulfillment);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IArbiter, IArbiterOld} from "./Arbiters.sol";
import {Attestation} from "./Eas.sol";

/// @title An arbiter that asks for the yes of several, to the ABI of Alkahest's AllArbiter, for tests
/// @notice Written here from the ABI; it is not the original. No arbiters at all say yes, as there.
contract MarketAllArbiter is IArbiter, IArbiterOld {
    struct DemandData {
        address[] arbiters;
        /// One for each arbiter, in their order.
        bytes[] demands;
    }

    error MismatchedArrayLengths();

    /// @inheritdoc IArbiter
    function check(Attestation calldata fulfillment, bytes calldata demand, bytes32 escrowUid)
        external
        view
        returns (bool)
    {
        DemandData memory it = _decode(demand);
        for (uint256 i = 0; i < it.arbiters.length; ++i) {
            if (!IArbiter(it.arbiters[i]).check(fulfillment, it.demands[i], escrowUid)) return false;
        }
        return true;
    }

    /// @inheritdoc IArbiterOld
    function checkObligation(Attestation calldata fulfillment, bytes calldata demand, bytes32 escrowUid)
        external
        view
        returns (bool)
    {
        DemandData memory it = _decode(demand);
        for (uint256 i = 0; i < it.arbiters.length; ++i) {
            if (!IArbiterOld(it.arbiters[i]).checkObligation(fulfillment, it.demands[i], escrowUid)) return false;
        }
        return true;
    }

    function decodeDemandData(bytes calldata data) external pure returns (DemandData memory) {
        return abi.decode(data, (DemandData));
    }

    function _decode(bytes calldata demand) private pure returns (DemandData memory it) {
        it = abi.decode(demand, (DemandData));
        if (it.arbiters.length != it.demands.length) revert MismatchedArrayLengths();
    }
}

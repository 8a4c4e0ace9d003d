// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Attestation} from "./Eas.sol";

/// @notice Alkahest's arbiter since its release 1.0.
interface IArbiter {
    /// @param fulfillment The attestation that claims to fulfil an escrow.
    /// @param demand What the escrow's maker asked of this arbiter.
    /// @param escrowUid The escrow that is to be paid out.
    function check(Attestation calldata fulfillment, bytes calldata demand, bytes32 escrowUid)
        external
        view
        returns (bool);
}

/// @notice The same question under the name that Alkahest used before its release 1.0.
interface IArbiterOld {
    function checkObligation(Attestation calldata fulfillment, bytes calldata demand, bytes32 escrowUid)
        external
        view
        returns (bool);
}

/// @notice The same question under the name of the first deployments (2025).
interface IArbiterOldest {
    function checkStatement(Attestation calldata fulfillment, bytes calldata demand, bytes32 escrowUid)
        external
        view
        returns (bool);
}

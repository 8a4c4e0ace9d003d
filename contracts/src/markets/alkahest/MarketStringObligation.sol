// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IEas} from "./Eas.sol";
import {MarketObligation} from "./MarketObligation.sol";

/// @title Fulfilments that carry a text, to the ABI of Alkahest's StringObligation, for tests
/// @notice Written here from the ABI; it is not the original. Such attestations cannot be revoked and do not expire.
contract MarketStringObligation is MarketObligation {
    /// @notice The attestation's data, `abi.encode` of this one struct.
    struct ObligationData {
        string item;
        /// Says what the text is.
        bytes32 schema;
    }

    constructor(IEas eas) MarketObligation(eas, "string item, bytes32 schema", false) {}

    function doObligation(ObligationData calldata data, bytes32 refUID) external returns (bytes32) {
        return _attest(abi.encode(data), 0, msg.sender, refUID);
    }

    function getObligationData(bytes32 uid) external view returns (ObligationData memory) {
        return abi.decode(_own(uid).data, (ObligationData));
    }

    function decodeObligationData(bytes calldata data) external pure returns (ObligationData memory) {
        return abi.decode(data, (ObligationData));
    }
}

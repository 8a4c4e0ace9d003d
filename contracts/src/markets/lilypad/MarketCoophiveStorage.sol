// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Result} from "./Lilypad.sol";
import {MarketLilypadStorage} from "./MarketLilypadStorage.sol";

/// @title The storage to CoopHive v1's ABI, for tests
/// @notice Lilypad's, with one event more. Written here from the ABI; it is not the original.
contract MarketCoophiveStorage is MarketLilypadStorage {
    event ResultAdded(string dealId, string resultsId, string dataId, uint256 instructionCount);

    function _afterResult(Result memory result) internal override {
        emit ResultAdded(result.dealId, result.resultsId, result.dataId, result.instructionCount);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice As `SafeERC20.sol` beside it, for native coin.
library Address {
    error FailedCall();

    function sendValue(address payable recipient, uint256 amount) internal {
        (bool done,) = recipient.call{value: amount}("");
        if (!done) revert FailedCall();
    }
}

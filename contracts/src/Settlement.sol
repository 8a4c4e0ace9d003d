// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITribunalEscrow} from "./ITribunalEscrow.sol";

/// @title Settlement rule 1
/// @notice Who gets what of a case's locked money. Every division rounds down; what rounding leaves goes to the treasury.
/// @dev Amounts are below 2^192 (checked when a case is opened), so nothing here overflows.
library Settlement {
    uint256 private constant BPS = 10_000;

    /// @notice What is credited; `client + provider + eachMediator * voters + treasury` is all that was locked.
    struct Shares {
        uint256 client;
        uint256 provider;
        uint256 eachMediator;
        uint256 treasury;
    }

    /// @notice What the client locks.
    function clientLock(ITribunalEscrow.Terms calldata terms) internal pure returns (uint256) {
        return terms.paymentCollateral + terms.mediationFee + terms.judgeCollateral;
    }

    /// @notice What the provider locks.
    function providerLock(ITribunalEscrow.Terms calldata terms) internal pure returns (uint256) {
        return terms.resultsCollateral + terms.mediationFee + terms.submitCollateral;
    }

    /// @notice What the work costs: the price, or that of the claimed instructions up to the payment collateral.
    function payment(ITribunalEscrow.Terms calldata terms, uint64 instructionCount) internal pure returns (uint256) {
        if (terms.pricing != 2) return terms.price;
        uint256 cost = terms.price * instructionCount; // below 2^256: 192 and 64 bits
        return cost < terms.paymentCollateral ? cost : terms.paymentCollateral;
    }

    /// @notice The shares of everybody under an outcome.
    function split(
        ITribunalEscrow.Terms calldata terms,
        uint64 instructionCount,
        ITribunalEscrow.Outcome outcome,
        uint256 voters
    ) internal pure returns (Shares memory shares) {
        shares.client = clientLock(terms);
        shares.provider = providerLock(terms);
        uint256 forMediators;
        if (
            outcome == ITribunalEscrow.Outcome.Accepted || outcome == ITribunalEscrow.Outcome.Valid
                || outcome == ITribunalEscrow.Outcome.JudgeTimeout
        ) {
            uint256 paid = payment(terms, instructionCount);
            uint256 fee = paid * terms.feeBps / BPS;
            shares.client -= paid;
            shares.provider += paid - fee;
            shares.treasury = fee;
            if (outcome == ITribunalEscrow.Outcome.Valid) {
                shares.client -= terms.mediationFee;
                forMediators = terms.mediationFee;
            } else if (outcome == ITribunalEscrow.Outcome.JudgeTimeout) {
                shares.client -= terms.judgeCollateral;
                shares.provider += terms.judgeCollateral;
            }
        } else if (outcome == ITribunalEscrow.Outcome.Invalid) {
            uint256 victims = terms.resultsCollateral * terms.victimBps / BPS;
            shares.client += victims;
            shares.provider -= terms.resultsCollateral + terms.mediationFee;
            shares.treasury = terms.resultsCollateral - victims;
            forMediators = terms.mediationFee;
        } else if (outcome == ITribunalEscrow.Outcome.Inconclusive) {
            uint256 quarter = terms.mediationFee / 4;
            shares.client -= quarter;
            shares.provider -= quarter;
            forMediators = 2 * quarter;
        } else if (outcome == ITribunalEscrow.Outcome.SubmitTimeout) {
            shares.client += terms.submitCollateral;
            shares.provider -= terms.submitCollateral;
        }
        // Mediate timeout and withdrawal give everybody back what it locked.
        if (voters > 0) shares.eachMediator = forMediators / voters;
        shares.treasury += forMediators - shares.eachMediator * voters;
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {PaymentDirection, PaymentReason} from "./Lilypad.sol";
import {MarketControllerOwnable} from "./MarketControllerOwnable.sol";
import {MarketLilypadToken} from "./MarketLilypadToken.sol";

/// @title Payments to Lilypad v2's ABI, for tests
/// @notice Written here from the ABI; it is not the original and is to hold no real money. With its defects as
/// deployed: two timeouts have names that the controller does not call, a judge timeout pays nobody for the work, and
/// whoever signs the transaction (`tx.origin`) is who acts, pays in and is paid for mediation.
contract MarketLilypadPayments is MarketControllerOwnable {
    MarketLilypadToken private _token;

    event Payment(string dealId, address payee, uint256 amount, PaymentReason reason, PaymentDirection direction);

    modifier onlyOrigin(address party) {
        require(tx.origin == party, "Not the party");
        _;
    }

    function initialize(address token) external onlyOwner {
        require(address(_token) == address(0), "Initialized");
        require(token != address(0), "Token address");
        _token = MarketLilypadToken(token);
    }

    function getTokenAddress() external view returns (address) {
        return address(_token);
    }

    function agreeResourceProvider(string memory dealId, address resourceProvider, uint256 timeoutCollateral)
        external
        onlyController
        onlyOrigin(resourceProvider)
    {
        _payIn(dealId, timeoutCollateral, PaymentReason.TimeoutCollateral);
    }

    function agreeJobCreator(
        string memory dealId,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 timeoutCollateral
    ) external onlyController onlyOrigin(jobCreator) {
        _payIn(dealId, paymentCollateral, PaymentReason.PaymentCollateral);
        _payIn(dealId, timeoutCollateral, PaymentReason.TimeoutCollateral);
    }

    function addResult(
        string memory dealId,
        address resourceProvider,
        uint256 resultsCollateral,
        uint256 timeoutCollateral
    ) external onlyController onlyOrigin(resourceProvider) {
        _payIn(dealId, resultsCollateral, PaymentReason.ResultsCollateral);
        _refund(dealId, resourceProvider, timeoutCollateral, PaymentReason.TimeoutCollateral);
    }

    function acceptResult(
        string memory dealId,
        address resourceProvider,
        address jobCreator,
        uint256 jobCost,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 timeoutCollateral
    ) external onlyController onlyOrigin(jobCreator) {
        uint256 paid = _payJob(dealId, resourceProvider, jobCreator, jobCost, paymentCollateral);
        if (paid < paymentCollateral) {
            _refund(dealId, jobCreator, paymentCollateral - paid, PaymentReason.PaymentCollateral);
        }
        _refund(dealId, jobCreator, timeoutCollateral, PaymentReason.TimeoutCollateral);
        _refund(dealId, resourceProvider, resultsCollateral, PaymentReason.ResultsCollateral);
    }

    function checkResult(string memory dealId, address jobCreator, uint256 timeoutCollateral, uint256 mediationFee)
        external
        onlyController
        onlyOrigin(jobCreator)
    {
        _refund(dealId, jobCreator, timeoutCollateral, PaymentReason.TimeoutCollateral);
        _payIn(dealId, mediationFee, PaymentReason.MediationFee);
    }

    function mediationAcceptResult(
        string memory dealId,
        address resourceProvider,
        address jobCreator,
        uint256 jobCost,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 mediationFee
    ) external onlyController {
        uint256 paid = _payJob(dealId, resourceProvider, jobCreator, jobCost, paymentCollateral);
        _payOut(dealId, jobCreator, tx.origin, mediationFee, PaymentReason.MediationFee);
        if (paid < paymentCollateral) {
            _refund(dealId, jobCreator, paymentCollateral - paid, PaymentReason.PaymentCollateral);
        }
        _refund(dealId, resourceProvider, resultsCollateral, PaymentReason.ResultsCollateral);
    }

    function mediationRejectResult(
        string memory dealId,
        address resourceProvider,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 mediationFee
    ) external onlyController {
        _refund(dealId, jobCreator, paymentCollateral, PaymentReason.PaymentCollateral);
        _payOut(dealId, jobCreator, tx.origin, mediationFee, PaymentReason.MediationFee);
        _slash(dealId, resourceProvider, resultsCollateral, PaymentReason.ResultsCollateral);
    }

    function timeoutAgreeRefundResourceProvider(
        string memory dealId,
        address resourceProvider,
        uint256 timeoutCollateral
    ) external onlyController onlyOrigin(resourceProvider) {
        _refund(dealId, resourceProvider, timeoutCollateral, PaymentReason.TimeoutCollateral);
    }

    function timeoutAgreeRefundJobCreator(
        string memory dealId,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 timeoutCollateral
    ) external onlyController onlyOrigin(jobCreator) {
        _refund(dealId, jobCreator, paymentCollateral, PaymentReason.PaymentCollateral);
        _refund(dealId, jobCreator, timeoutCollateral, PaymentReason.TimeoutCollateral);
    }

    /// @dev The controller calls `timeoutSubmitResult`, so this is never reached.
    function timeoutSubmitResults(
        string memory dealId,
        address resourceProvider,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 timeoutCollateral
    ) external onlyController onlyOrigin(jobCreator) {
        _refund(dealId, jobCreator, paymentCollateral, PaymentReason.PaymentCollateral);
        _refund(dealId, jobCreator, timeoutCollateral, PaymentReason.TimeoutCollateral);
        _slash(dealId, resourceProvider, timeoutCollateral, PaymentReason.TimeoutCollateral);
    }

    /// @dev The controller calls `timeoutJudgeResult`, so this is never reached. The payment collateral stays behind.
    function timeoutJudgeResults(
        string memory dealId,
        address resourceProvider,
        address jobCreator,
        uint256 resultsCollateral,
        uint256 timeoutCollateral
    ) external onlyController onlyOrigin(resourceProvider) {
        _refund(dealId, resourceProvider, resultsCollateral, PaymentReason.ResultsCollateral);
        _slash(dealId, jobCreator, timeoutCollateral, PaymentReason.TimeoutCollateral);
    }

    function timeoutMediateResult(
        string memory dealId,
        address resourceProvider,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 mediationFee
    ) external onlyController {
        require(tx.origin == resourceProvider || tx.origin == jobCreator, "Not the party");
        _refund(dealId, resourceProvider, resultsCollateral, PaymentReason.ResultsCollateral);
        _refund(dealId, jobCreator, paymentCollateral, PaymentReason.PaymentCollateral);
        _refund(dealId, jobCreator, mediationFee, PaymentReason.MediationFee);
    }

    /// @dev The provider gets no more than the payment collateral; what its work cost above that it loses.
    function _payJob(
        string memory dealId,
        address resourceProvider,
        address jobCreator,
        uint256 jobCost,
        uint256 paymentCollateral
    ) private returns (uint256 paid) {
        paid = jobCost > paymentCollateral ? paymentCollateral : jobCost;
        _payOut(dealId, jobCreator, resourceProvider, paid, PaymentReason.JobPayment);
    }

    function _payIn(string memory dealId, uint256 amount, PaymentReason reason) private {
        require(_token.balanceOf(tx.origin) >= amount, "Insufficient balance");
        require(_token.payEscrow(amount), "Pay escrow failed");
        emit Payment(dealId, tx.origin, amount, reason, PaymentDirection.PaidIn);
    }

    function _refund(string memory dealId, address to, uint256 amount, PaymentReason reason) private {
        require(_token.refundEscrow(to, amount), "Refund escrow failed");
        emit Payment(dealId, to, amount, reason, PaymentDirection.Refunded);
    }

    function _payOut(string memory dealId, address from, address to, uint256 amount, PaymentReason reason) private {
        require(_token.payJob(from, to, amount), "Pay job failed");
        emit Payment(dealId, to, amount, reason, PaymentDirection.PaidOut);
    }

    function _slash(string memory dealId, address slashed, uint256 amount, PaymentReason reason) private {
        require(_token.slashEscrow(slashed, amount), "Slash escrow failed");
        emit Payment(dealId, slashed, amount, reason, PaymentDirection.Slashed);
    }
}

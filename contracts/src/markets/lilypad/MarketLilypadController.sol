// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {
    Agreement,
    AgreementState,
    Deal,
    DealMembers,
    DealPricing,
    DealTimeouts,
    ILilypadMediationHandler,
    ILilypadMediationRequester,
    ILilypadPayments,
    ILilypadStorage
} from "./Lilypad.sol";

/// @title The controller to Lilypad v2's ABI (and CoopHive v1's), for tests
/// @notice Written here from the ABI; it is not the original and is to hold no real deals. With its defects as
/// deployed: authority is `tx.origin`; nothing but a timeout looks at a deadline; the submit and judge timeouts call
/// functions that the payments do not have and revert; the mediate timeout runs from the result's submission by the
/// *judge* timeout; an agree timeout gives a job creator the submit collateral instead of the judge collateral.
contract MarketLilypadController is ILilypadMediationRequester, Ownable {
    ILilypadStorage private _storage;
    ILilypadPayments private _payments;
    ILilypadMediationHandler private _mediation;
    address private _users;
    address private _jobCreator;

    constructor() Ownable(msg.sender) {}

    function initialize(address storage_, address users, address payments, address mediation, address jobCreator)
        external
        onlyOwner
    {
        require(address(_storage) == address(0), "Initialized");
        setStorageAddress(storage_);
        setUsersAddress(users);
        setPaymentsAddress(payments);
        setMediationAddress(mediation);
        setJobCreatorAddress(jobCreator);
    }

    function setStorageAddress(address storage_) public onlyOwner {
        require(storage_ != address(0), "Storage address");
        _storage = ILilypadStorage(storage_);
    }

    function setUsersAddress(address users) public onlyOwner {
        require(users != address(0), "Users address");
        _users = users;
    }

    function setPaymentsAddress(address payments) public onlyOwner {
        require(payments != address(0), "Payments address");
        _payments = ILilypadPayments(payments);
    }

    function setMediationAddress(address mediation) public onlyOwner {
        require(mediation != address(0), "Mediation address");
        _mediation = ILilypadMediationHandler(mediation);
    }

    function setJobCreatorAddress(address jobCreator) public onlyOwner {
        require(jobCreator != address(0), "JobCreator address");
        _jobCreator = jobCreator;
    }

    function getStorageAddress() external view returns (address) {
        return address(_storage);
    }

    function getUsersAddress() external view returns (address) {
        return _users;
    }

    function getPaymentsAddress() external view returns (address) {
        return address(_payments);
    }

    function getMediationAddress() external view returns (address) {
        return address(_mediation);
    }

    function getJobCreatorAddress() external view returns (address) {
        return _jobCreator;
    }

    function agree(
        string memory dealId,
        DealMembers memory members,
        DealTimeouts memory timeouts,
        DealPricing memory pricing
    ) external returns (Agreement memory) {
        Deal memory deal = _storage.ensureDeal(dealId, members, timeouts, pricing);
        if (tx.origin == deal.members.resourceProvider) {
            _storage.agreeResourceProvider(dealId);
            _payments.agreeResourceProvider(dealId, tx.origin, deal.timeouts.submitResults.collateral);
        } else {
            require(tx.origin == deal.members.jobCreator, "Only RP / JC");
            _storage.agreeJobCreator(dealId);
            _payments.agreeJobCreator(
                dealId, tx.origin, deal.pricing.paymentCollateral, deal.timeouts.judgeResults.collateral
            );
        }
        return _storage.getAgreement(dealId);
    }

    function addResult(string memory dealId, string memory resultsId, string memory dataId, uint256 instructionCount)
        external
    {
        require(_storage.isState(dealId, AgreementState.DealAgreed), "DealAgreed");
        Deal memory deal = _storage.getDeal(dealId);
        require(deal.members.resourceProvider == tx.origin, "Only RP");
        _storage.addResult(dealId, resultsId, dataId, instructionCount);
        _payments.addResult(
            dealId,
            deal.members.resourceProvider,
            _storage.getResultsCollateral(dealId),
            deal.timeouts.submitResults.collateral
        );
    }

    function acceptResult(string memory dealId) external {
        Deal memory deal = _submitted(dealId);
        uint256 jobCost = _storage.getJobCost(dealId);
        uint256 resultsCollateral = _storage.getResultsCollateral(dealId);
        _storage.acceptResult(dealId);
        _payments.acceptResult(
            dealId,
            deal.members.resourceProvider,
            deal.members.jobCreator,
            jobCost,
            deal.pricing.paymentCollateral,
            resultsCollateral,
            deal.timeouts.judgeResults.collateral
        );
    }

    function checkResult(string memory dealId) external {
        Deal memory deal = _submitted(dealId);
        _storage.checkResult(dealId);
        _payments.checkResult(
            dealId, deal.members.jobCreator, deal.timeouts.judgeResults.collateral, deal.pricing.mediationFee
        );
        _mediation.mediationRequest(deal);
    }

    /// @inheritdoc ILilypadMediationRequester
    function mediationAcceptResult(string memory dealId) external {
        Deal memory deal = _checked(dealId);
        uint256 jobCost = _storage.getJobCost(dealId);
        uint256 resultsCollateral = _storage.getResultsCollateral(dealId);
        _storage.mediationAcceptResult(dealId);
        _payments.mediationAcceptResult(
            dealId,
            deal.members.resourceProvider,
            deal.members.jobCreator,
            jobCost,
            deal.pricing.paymentCollateral,
            resultsCollateral,
            deal.pricing.mediationFee
        );
    }

    /// @inheritdoc ILilypadMediationRequester
    function mediationRejectResult(string memory dealId) external {
        Deal memory deal = _checked(dealId);
        uint256 resultsCollateral = _storage.getResultsCollateral(dealId);
        _storage.mediationRejectResult(dealId);
        _payments.mediationRejectResult(
            dealId,
            deal.members.resourceProvider,
            deal.members.jobCreator,
            deal.pricing.paymentCollateral,
            resultsCollateral,
            deal.pricing.mediationFee
        );
    }

    function timeoutAgree(string memory dealId) external {
        (Deal memory deal, Agreement memory agreement) = _both(dealId);
        require(deal.members.jobCreator == tx.origin || deal.members.resourceProvider == tx.origin, "Only JC or RP");
        require(agreement.state == AgreementState.DealNegotiating, "Not correct state");
        _requirePassed(agreement.dealCreatedAt + deal.timeouts.agree.timeout);
        _storage.timeoutAgree(dealId);
        uint256 collateral = deal.timeouts.submitResults.collateral;
        if (agreement.resourceProviderAgreedAt > 0) {
            _payments.timeoutAgreeRefundResourceProvider(dealId, deal.members.resourceProvider, collateral);
        } else if (agreement.jobCreatorAgreedAt > 0) {
            _payments.timeoutAgreeRefundJobCreator(
                dealId, deal.members.jobCreator, deal.pricing.paymentCollateral, collateral
            );
        }
    }

    function timeoutSubmitResult(string memory dealId) external {
        (Deal memory deal, Agreement memory agreement) = _both(dealId);
        require(deal.members.jobCreator == tx.origin, "Only JC");
        require(agreement.state == AgreementState.DealAgreed, "Not correct state");
        _requirePassed(agreement.dealAgreedAt + deal.timeouts.submitResults.timeout);
        _storage.timeoutSubmitResult(dealId);
        _payments.timeoutSubmitResult(
            dealId,
            deal.members.resourceProvider,
            deal.members.jobCreator,
            deal.pricing.paymentCollateral,
            deal.timeouts.submitResults.collateral
        );
    }

    function timeoutJudgeResult(string memory dealId) external {
        (Deal memory deal, Agreement memory agreement) = _both(dealId);
        require(deal.members.resourceProvider == tx.origin, "Only RP");
        require(agreement.state == AgreementState.ResultsSubmitted, "Not correct state");
        _requirePassed(agreement.resultsSubmittedAt + deal.timeouts.judgeResults.timeout);
        uint256 resultsCollateral = _storage.getResultsCollateral(dealId);
        _storage.timeoutJudgeResult(dealId);
        _payments.timeoutJudgeResult(
            dealId,
            deal.members.resourceProvider,
            deal.members.jobCreator,
            resultsCollateral,
            deal.timeouts.judgeResults.collateral
        );
    }

    function timeoutMediateResult(string memory dealId) external {
        (Deal memory deal, Agreement memory agreement) = _both(dealId);
        require(deal.members.resourceProvider == tx.origin || deal.members.jobCreator == tx.origin, "Only RP or JC");
        require(agreement.state == AgreementState.ResultsChecked, "Not correct state");
        _requirePassed(agreement.resultsSubmittedAt + deal.timeouts.judgeResults.timeout);
        uint256 resultsCollateral = _storage.getResultsCollateral(dealId);
        _storage.timeoutMediateResult(dealId);
        _payments.timeoutMediateResult(
            dealId,
            deal.members.resourceProvider,
            deal.members.jobCreator,
            deal.pricing.paymentCollateral,
            resultsCollateral,
            deal.pricing.mediationFee
        );
    }

    function _submitted(string memory dealId) private view returns (Deal memory deal) {
        require(_storage.isState(dealId, AgreementState.ResultsSubmitted), "ResultsSubmitted");
        deal = _storage.getDeal(dealId);
        require(deal.members.jobCreator == tx.origin, "Only JC");
    }

    function _checked(string memory dealId) private view returns (Deal memory) {
        require(msg.sender == address(_mediation), "Only mediation");
        require(_storage.isState(dealId, AgreementState.ResultsChecked), "ResultsChecked");
        return _storage.getDeal(dealId);
    }

    function _both(string memory dealId) private view returns (Deal memory, Agreement memory) {
        return (_storage.getDeal(dealId), _storage.getAgreement(dealId));
    }

    function _requirePassed(uint256 deadline) private view {
        require(block.timestamp > deadline, "Not timed out");
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {
    Agreement,
    AgreementState,
    Deal,
    DealMembers,
    DealPricing,
    DealTimeouts,
    ILilypadStorage,
    Result
} from "./Lilypad.sol";
import {MarketControllerOwnable} from "./MarketControllerOwnable.sol";

/// @title Deals, agreements and results to Lilypad v2's ABI, for tests
/// @notice Written here from the ABI; it is not the original and is to hold no real deals. Keeps the same data: the
/// whole deal, the list of deals of each party, fourteen words of agreement and the whole result. No event is indexed.
contract MarketLilypadStorage is ILilypadStorage, MarketControllerOwnable {
    mapping(string dealId => Deal) private _deals;
    mapping(address party => string[]) private _dealsForParty;
    mapping(string dealId => Agreement) private _agreements;
    mapping(string dealId => Result) private _results;

    /// @inheritdoc ILilypadStorage
    function ensureDeal(
        string calldata dealId,
        DealMembers calldata members,
        DealTimeouts calldata timeouts,
        DealPricing calldata pricing
    ) external onlyController returns (Deal memory) {
        _require(dealId, AgreementState.DealNegotiating, "DealNegotiating");
        require(members.resourceProvider != address(0), "RP missing");
        require(members.jobCreator != address(0), "JC missing");
        require(members.solver != address(0), "Solver missing");
        require(members.mediators.length > 0, "Mediators <= 0");
        require(members.resourceProvider != members.jobCreator, "RP / JC same");
        require(timeouts.agree.collateral == 0, "Agree deposit must be 0");
        require(timeouts.mediateResults.collateral == 0, "Mediate deposit must be 0");
        if (hasDeal(dealId)) {
            Deal memory first = _deals[dealId];
            require(keccak256(abi.encode(first.members)) == keccak256(abi.encode(members)), "Members");
            require(keccak256(abi.encode(first.timeouts)) == keccak256(abi.encode(timeouts)), "Timeouts");
            require(keccak256(abi.encode(first.pricing)) == keccak256(abi.encode(pricing)), "Pricing");
            return first;
        }
        Deal memory made = Deal(dealId, members, timeouts, pricing);
        _deals[dealId] = made;
        _dealsForParty[members.resourceProvider].push(dealId);
        _dealsForParty[members.jobCreator].push(dealId);
        return made;
    }

    /// @inheritdoc ILilypadStorage
    function agreeResourceProvider(string calldata dealId) external onlyController returns (Agreement memory) {
        require(hasDeal(dealId), "Deal does not exist");
        Agreement storage it = _agreements[dealId];
        require(it.resourceProviderAgreedAt == 0, "RP has already agreed");
        it.resourceProviderAgreedAt = block.timestamp;
        return _agreed(dealId, it);
    }

    /// @inheritdoc ILilypadStorage
    function agreeJobCreator(string calldata dealId) external onlyController returns (Agreement memory) {
        require(hasDeal(dealId), "Deal does not exist");
        Agreement storage it = _agreements[dealId];
        require(it.jobCreatorAgreedAt == 0, "JC has already agreed");
        it.jobCreatorAgreedAt = block.timestamp;
        return _agreed(dealId, it);
    }

    /// @inheritdoc ILilypadStorage
    function addResult(
        string calldata dealId,
        string calldata resultsId,
        string calldata dataId,
        uint256 instructionCount
    ) external onlyController returns (Result memory) {
        _require(dealId, AgreementState.DealAgreed, "DealAgreed");
        _agreements[dealId].resultsSubmittedAt = block.timestamp;
        _change(dealId, AgreementState.ResultsSubmitted);
        Result memory made = Result(dealId, resultsId, dataId, instructionCount);
        _results[dealId] = made;
        _afterResult(made);
        return made;
    }

    /// @inheritdoc ILilypadStorage
    function acceptResult(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.ResultsSubmitted, "ResultsSubmitted");
        _agreements[dealId].resultsAcceptedAt = block.timestamp;
        _change(dealId, AgreementState.ResultsAccepted);
    }

    /// @inheritdoc ILilypadStorage
    function checkResult(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.ResultsSubmitted, "ResultsSubmitted");
        _agreements[dealId].resultsCheckedAt = block.timestamp;
        _change(dealId, AgreementState.ResultsChecked);
    }

    /// @inheritdoc ILilypadStorage
    function mediationAcceptResult(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.ResultsChecked, "ResultsChecked");
        _agreements[dealId].mediationAcceptedAt = block.timestamp;
        _change(dealId, AgreementState.MediationAccepted);
    }

    /// @inheritdoc ILilypadStorage
    function mediationRejectResult(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.ResultsChecked, "ResultsChecked");
        _agreements[dealId].mediationRejectedAt = block.timestamp;
        _change(dealId, AgreementState.MediationRejected);
    }

    /// @inheritdoc ILilypadStorage
    function timeoutAgree(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.DealNegotiating, "DealNegotiating");
        _agreements[dealId].timeoutAgreeAt = block.timestamp;
        _change(dealId, AgreementState.TimeoutAgree);
    }

    /// @inheritdoc ILilypadStorage
    function timeoutSubmitResult(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.DealAgreed, "DealAgreed");
        _agreements[dealId].timeoutSubmitResultsAt = block.timestamp;
        _change(dealId, AgreementState.TimeoutSubmitResults);
    }

    /// @inheritdoc ILilypadStorage
    function timeoutJudgeResult(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.ResultsSubmitted, "ResultsSubmitted");
        _agreements[dealId].timeoutJudgeResultsAt = block.timestamp;
        _change(dealId, AgreementState.TimeoutJudgeResults);
    }

    /// @inheritdoc ILilypadStorage
    function timeoutMediateResult(string calldata dealId) external onlyController {
        _require(dealId, AgreementState.ResultsChecked, "ResultsChecked");
        _agreements[dealId].timeoutMediateResultsAt = block.timestamp;
        _change(dealId, AgreementState.TimeoutMediateResults);
    }

    /// @inheritdoc ILilypadStorage
    function getDeal(string calldata dealId) external view returns (Deal memory) {
        return _deals[dealId];
    }

    /// @inheritdoc ILilypadStorage
    function getDealsForParty(address party) external view returns (string[] memory) {
        return _dealsForParty[party];
    }

    /// @inheritdoc ILilypadStorage
    function getAgreement(string calldata dealId) external view returns (Agreement memory) {
        return _agreements[dealId];
    }

    /// @inheritdoc ILilypadStorage
    function getResult(string calldata dealId) external view returns (Result memory) {
        return _results[dealId];
    }

    /// @inheritdoc ILilypadStorage
    function getJobCost(string calldata dealId) public view returns (uint256) {
        return _deals[dealId].pricing.instructionPrice * _results[dealId].instructionCount;
    }

    /// @inheritdoc ILilypadStorage
    function getResultsCollateral(string calldata dealId) external view returns (uint256) {
        return _deals[dealId].pricing.resultsCollateralMultiple * getJobCost(dealId);
    }

    /// @inheritdoc ILilypadStorage
    function hasDeal(string calldata dealId) public view returns (bool) {
        return bytes(_deals[dealId].dealId).length > 0;
    }

    /// @inheritdoc ILilypadStorage
    function isState(string calldata dealId, AgreementState state) public view returns (bool) {
        return _agreements[dealId].state == state;
    }

    function _afterResult(Result memory result) internal virtual {}

    function _agreed(string calldata dealId, Agreement storage it) private returns (Agreement memory) {
        if (it.resourceProviderAgreedAt != 0 && it.jobCreatorAgreedAt != 0) {
            it.dealAgreedAt = block.timestamp;
            _change(dealId, AgreementState.DealAgreed);
        } else {
            it.dealCreatedAt = block.timestamp;
        }
        return it;
    }

    function _change(string calldata dealId, AgreementState state) private {
        _agreements[dealId].state = state;
        emit DealStateChange(dealId, state);
    }

    function _require(string calldata dealId, AgreementState state, string memory reason) private view {
        require(isState(dealId, state), reason);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LilypadFixture} from "./LilypadFixture.sol";
import {MarketVm} from "./MarketCheats.sol";
import {
    Agreement,
    AgreementState,
    Deal,
    ILilypadStorage,
    PaymentDirection,
    PaymentReason,
    Result
} from "../../src/markets/lilypad/Lilypad.sol";
import {MarketCoophiveStorage} from "../../src/markets/lilypad/MarketCoophiveStorage.sol";
import {MarketLilypadPayments} from "../../src/markets/lilypad/MarketLilypadPayments.sol";
import {MarketLilypadStorage} from "../../src/markets/lilypad/MarketLilypadStorage.sol";

/// @notice The money of every outcome, and the defects, as they are deployed.
contract LilypadMarketTest is LilypadFixture {
    function test_accept_paysTheCostAndGivesTheRestBack() external {
        _toSubmitted(1);
        _assertNet(-40, -40, address(0), 0, 0);
        _accept();
        _assertState(AgreementState.ResultsAccepted);
        _assertNet(-10, 10, address(0), 0, 0);
        assertEq(token.balanceOf(address(token)), 0, "nothing left in escrow");
    }

    function test_accept_isCappedByThePaymentCollateral() external {
        _toSubmitted(5);
        assertEq(store.getJobCost(DEAL_ID), 50, "cost");
        assertEq(store.getResultsCollateral(DEAL_ID), 200, "collateral");
        _accept();
        _assertNet(-30, 30, address(0), 0, 0);
    }

    function test_mediationAccept_chargesTheJobCreatorForTheFee() external {
        address mediator = _toChecked();
        mvm.prank(mediator, mediator);
        mediation.mediationAcceptResult(DEAL_ID);
        _assertState(AgreementState.MediationAccepted);
        _assertNet(-15, 10, mediator, 5, 0);
    }

    function test_mediationReject_slashesToTheTokenOwnerNotToTheVictim() external {
        address mediator = _toChecked();
        mvm.prank(mediator, mediator);
        mediation.mediationRejectResult(DEAL_ID);
        _assertState(AgreementState.MediationRejected);
        _assertNet(-5, -40, mediator, 5, 40);
    }

    function test_mediation_isForTheDrawnMediatorByTxOriginAndHasNoDeadline() external {
        address mediator = _toChecked();
        vm.prank(mediator);
        vm.expectRevert(bytes("Only the mediator"));
        mediation.mediationAcceptResult(DEAL_ID);
        mvm.prank(RP, RP);
        vm.expectRevert(bytes("Only the mediator"));
        mediation.mediationAcceptResult(DEAL_ID);
        mvm.prank(mediator, mediator);
        vm.expectRevert(bytes("Only mediation"));
        controller.mediationAcceptResult(DEAL_ID);
        vm.warp(block.timestamp + 365 days);
        // A stranger's contract in between does not matter to the original.
        mvm.prank(address(0xbad), mediator);
        mediation.mediationAcceptResult(DEAL_ID);
        _assertNet(-15, 10, mediator, 5, 0);
    }

    function test_mediator_isDrawnByTheTimestamp() external {
        address[3] memory drawn;
        _toSubmitted(1);
        for (uint256 i = 0; i < 20; ++i) {
            uint256 index = uint256(keccak256(abi.encodePacked(block.timestamp + i, DEAL_ID))) % 3;
            drawn[index] = members.mediators[index];
        }
        assertTrue(drawn[0] != address(0) && drawn[1] != address(0) && drawn[2] != address(0), "grindable");
        uint256 now_ = uint256(keccak256(abi.encodePacked(block.timestamp, DEAL_ID))) % 3;
        _check();
        assertAddress(mediation.getMediator(DEAL_ID), members.mediators[now_], "drawn");
    }

    function test_timeoutAgree_refundsTheSideThatAgreed() external {
        _agree(JC);
        _assertNet(-40, 0, address(0), 0, 0);
        vm.warp(block.timestamp + 3_600);
        mvm.startPrank(JC, JC);
        vm.expectRevert(bytes("Not timed out"));
        controller.timeoutAgree(DEAL_ID);
        vm.warp(block.timestamp + 1);
        controller.timeoutAgree(DEAL_ID);
        vm.stopPrank();
        _assertState(AgreementState.TimeoutAgree);
        _assertNet(0, 0, address(0), 0, 0);
    }

    function test_timeoutAgree_refundsTheSubmitCollateralThatTheJobCreatorNeverPaid() external {
        timeouts.judgeResults.collateral = 12;
        _agree(JC);
        vm.warp(block.timestamp + 3_601);
        mvm.prank(JC, JC);
        controller.timeoutAgree(DEAL_ID);
        _assertNet(-2, 0, address(0), 0, 0);
        assertEq(token.escrowBalanceOf(JC), 2, "stuck");
    }

    function test_timeoutAgree_ofTheProviderIsForTheProvider() external {
        _agree(RP);
        vm.warp(block.timestamp + 3_601);
        mvm.prank(JC, JC);
        vm.expectRevert(bytes("Not the party"));
        controller.timeoutAgree(DEAL_ID);
        mvm.prank(RP, RP);
        controller.timeoutAgree(DEAL_ID);
        _assertNet(0, 0, address(0), 0, 0);
    }

    function test_timeoutSubmitResult_cannotWork() external {
        _toAgreed();
        vm.warp(block.timestamp + 3_601);
        mvm.prank(JC, JC);
        vm.expectRevert(bytes(""));
        controller.timeoutSubmitResult(DEAL_ID);
        _assertState(AgreementState.DealAgreed);
        // The money stays until the provider that is late comes after all.
        _assertNet(-40, -10, address(0), 0, 0);
        _addResult(1);
        _assertState(AgreementState.ResultsSubmitted);
    }

    function test_timeoutJudgeResult_cannotWork() external {
        _toSubmitted(1);
        vm.warp(block.timestamp + 3_601);
        mvm.prank(RP, RP);
        vm.expectRevert(bytes(""));
        controller.timeoutJudgeResult(DEAL_ID);
        _assertState(AgreementState.ResultsSubmitted);
        _assertNet(-40, -40, address(0), 0, 0);
    }

    /// What the payments would do if they were called by their names.
    function test_paymentsOfTheSubmitTimeoutSlashTheProvider() external {
        _toAgreed();
        _asController();
        mvm.prank(JC, JC);
        payments.timeoutSubmitResults(DEAL_ID, RP, JC, 30, 10);
        _assertNet(0, -10, address(0), 0, 10);
    }

    function test_paymentsOfTheJudgeTimeoutStrandThePaymentCollateral() external {
        _toSubmitted(1);
        _asController();
        mvm.prank(RP, RP);
        // As RP is the payments' controller now.
        payments.timeoutJudgeResults(DEAL_ID, RP, JC, 40, 10);
        _assertNet(-40, 0, address(0), 0, 10);
        assertEq(token.escrowBalanceOf(JC), 30, "stuck");
    }

    function test_timeoutMediateResult_refundsEverybody() external {
        address mediator = _toChecked();
        vm.warp(block.timestamp + 3_601);
        mvm.prank(RP, RP);
        controller.timeoutMediateResult(DEAL_ID);
        _assertState(AgreementState.TimeoutMediateResults);
        _assertNet(0, 0, mediator, 0, 0);
    }

    function test_timeoutMediateResult_runsFromTheSubmissionByTheJudgeTimeout() external {
        timeouts.mediateResults.timeout = 1_000_000;
        _toSubmitted(1);
        uint256 submittedAt = block.timestamp;
        vm.warp(submittedAt + 3_500);
        _check();
        vm.warp(submittedAt + 3_600);
        mvm.prank(RP, RP);
        vm.expectRevert(bytes("Not timed out"));
        controller.timeoutMediateResult(DEAL_ID);
        // A hundred seconds after the check a cheating provider has its whole collateral back.
        vm.warp(submittedAt + 3_601);
        mvm.prank(RP, RP);
        controller.timeoutMediateResult(DEAL_ID);
        _assertNet(0, 0, address(0), 0, 0);
    }

    function test_agree_failsIfTheSecondSideSaysOtherwise() external {
        _agree(RP);
        mvm.startPrank(JC, JC);
        pricing.mediationFee = 4;
        vm.expectRevert(bytes("Pricing"));
        controller.agree(DEAL_ID, members, timeouts, pricing);
        pricing.mediationFee = 5;
        members.mediators.pop();
        vm.expectRevert(bytes("Members"));
        controller.agree(DEAL_ID, members, timeouts, pricing);
        vm.stopPrank();
    }

    function test_agree_failsIfTheSameSideComesTwiceOrAStranger() external {
        _agree(RP);
        mvm.prank(RP, RP);
        vm.expectRevert(bytes("RP has already agreed"));
        controller.agree(DEAL_ID, members, timeouts, pricing);
        mvm.prank(SOLVER, SOLVER);
        vm.expectRevert(bytes("Only RP / JC"));
        controller.agree(DEAL_ID, members, timeouts, pricing);
    }

    function test_steps_areForWhomTheyConcern() external {
        _toAgreed();
        mvm.prank(JC, JC);
        vm.expectRevert(bytes("Only RP"));
        controller.addResult(DEAL_ID, RESULTS_ID, DATA_ID, 1);
        _addResult(1);
        mvm.startPrank(RP, RP);
        vm.expectRevert(bytes("Only JC"));
        controller.acceptResult(DEAL_ID);
        vm.expectRevert(bytes("Only JC"));
        controller.checkResult(DEAL_ID);
        vm.stopPrank();
    }

    function test_storage_keepsTheWholeDealAgreementAndResult() external {
        _toSubmitted(1);
        Deal memory deal = store.getDeal(DEAL_ID);
        assertBytes32(keccak256(abi.encode(deal.members)), keccak256(abi.encode(members)), "members");
        assertBytes32(keccak256(abi.encode(deal.timeouts)), keccak256(abi.encode(timeouts)), "timeouts");
        assertBytes32(keccak256(abi.encode(deal.pricing)), keccak256(abi.encode(pricing)), "pricing");
        assertBytes32(keccak256(bytes(deal.dealId)), keccak256(bytes(DEAL_ID)), "deal id");
        Result memory result = store.getResult(DEAL_ID);
        assertBytes32(keccak256(bytes(result.resultsId)), keccak256(bytes(RESULTS_ID)), "results id");
        assertBytes32(keccak256(bytes(result.dataId)), keccak256(bytes(DATA_ID)), "data id");
        assertEq(result.instructionCount, 1, "count");
        Agreement memory it = store.getAgreement(DEAL_ID);
        assertEq(it.resultsSubmittedAt, block.timestamp, "submitted at");
        assertEq(store.getDealsForParty(RP).length, 1, "deals of the provider");
        assertEq(store.getDealsForParty(JC).length, 1, "deals of the creator");
    }

    function test_events_haveNothingIndexed() external {
        _toSubmitted(1);
        mvm.recordLogs();
        _check();
        MarketVm.Log[] memory logs = mvm.getRecordedLogs();
        uint256 seen;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == address(token)) continue;
            assertEq(logs[i].topics.length, 1, "topics");
            ++seen;
        }
        // A state change, a refund, a fee, a mediator.
        assertEq(seen, 4, "events");
        bytes memory change = abi.encode(DEAL_ID, AgreementState.ResultsChecked);
        assertBytes32(keccak256(logs[0].data), keccak256(change), "state change");
        bytes memory last = logs[logs.length - 1].data;
        assertBytes32(keccak256(last), keccak256(abi.encode(DEAL_ID, mediation.getMediator(DEAL_ID))), "requested");
    }

    /// Makes whoever calls next the payments' controller.
    function _asController() private {
        vm.startPrank(OWNER);
        payments.setControllerAddress(_state() == AgreementState.DealAgreed ? JC : RP);
        vm.stopPrank();
    }
}

contract CoophiveMarketTest is LilypadFixture {
    function _storage() internal override returns (MarketLilypadStorage) {
        return new MarketCoophiveStorage();
    }

    function test_addResult_emitsTheResult() external {
        _toAgreed();
        mvm.recordLogs();
        _addResult(7);
        MarketVm.Log[] memory logs = mvm.getRecordedLogs();
        assertEq(logs[1].topics.length, 1, "not indexed");
        assertBytes32(logs[1].topics[0], MarketCoophiveStorage.ResultAdded.selector, "topic");
        bytes32 data = keccak256(abi.encode(DEAL_ID, RESULTS_ID, DATA_ID, uint256(7)));
        assertBytes32(keccak256(logs[1].data), data, "data");
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MarketCheats} from "./MarketCheats.sol";
import {
    AgreementState,
    ILilypadMediationHandler,
    ILilypadMediationRequester,
    ILilypadPayments,
    ILilypadStorage,
    PaymentDirection,
    PaymentReason
} from "../../src/markets/lilypad/Lilypad.sol";
import {MarketCoophiveStorage} from "../../src/markets/lilypad/MarketCoophiveStorage.sol";
import {MarketLilypadController} from "../../src/markets/lilypad/MarketLilypadController.sol";
import {MarketLilypadMediation} from "../../src/markets/lilypad/MarketLilypadMediation.sol";
import {MarketLilypadPayments} from "../../src/markets/lilypad/MarketLilypadPayments.sol";

/// @notice Selectors, topics and numbers against those of the deployed contracts, as literals.
contract LilypadAbiTest is MarketCheats {
    function test_topicsAreThoseOfTheMarket() external pure {
        assertBytes32(
            MarketLilypadMediation.MediationRequested.selector,
            0xfd3770121045f9427361660d6eaa8b07a2e45eca6964f5c4f041a28f21084086,
            "MediationRequested"
        );
        assertBytes32(
            ILilypadStorage.DealStateChange.selector,
            0x10ca3d89184491f5d8de422bd36534abe6eb4b4aa1429a261bdb5ff1dd9ac386,
            "DealStateChange"
        );
        assertBytes32(
            MarketLilypadPayments.Payment.selector,
            0x64861f505d0cfce7a0cc3629c70eb54f7de27be35939b48300935694958a9842,
            "Payment"
        );
        assertBytes32(
            MarketCoophiveStorage.ResultAdded.selector,
            0x0ff955ec0ee856bc2600be3542a22fb4e34ce6315759d5a35f4671581583cb16,
            "ResultAdded"
        );
    }

    function test_readSelectorsAreThoseOfTheMarket() external pure {
        assertBytes4(ILilypadStorage.getDeal.selector, 0xe7079180, "getDeal");
        assertBytes4(ILilypadStorage.getAgreement.selector, 0xcdd82d1d, "getAgreement");
        assertBytes4(ILilypadStorage.getResult.selector, 0x498cc70d, "getResult");
        assertBytes4(ILilypadStorage.getJobCost.selector, 0x73db5c6a, "getJobCost");
        assertBytes4(ILilypadStorage.getResultsCollateral.selector, 0x8224ce5f, "getResultsCollateral");
        assertBytes4(MarketLilypadMediation.getMediator.selector, 0xa2bffa00, "getMediator");
    }

    function test_mediationSelectorsAreThoseOfTheMarket() external pure {
        assertBytes4(MarketLilypadMediation.mediationAcceptResult.selector, 0x824518aa, "accept");
        assertBytes4(MarketLilypadMediation.mediationRejectResult.selector, 0x80ffdfe0, "reject");
        assertBytes4(ILilypadMediationRequester.mediationAcceptResult.selector, 0x824518aa, "controller's accept");
        assertBytes4(ILilypadMediationRequester.mediationRejectResult.selector, 0x80ffdfe0, "controller's reject");
        assertBytes4(ILilypadMediationHandler.mediationRequest.selector, 0x70bea207, "request");
    }

    function test_partySelectorsAreThoseOfTheMarket() external pure {
        assertBytes4(MarketLilypadController.agree.selector, 0xf583b125, "agree");
        assertBytes4(MarketLilypadController.addResult.selector, 0x3955548e, "addResult");
        assertBytes4(MarketLilypadController.acceptResult.selector, 0x297f9e55, "acceptResult");
        assertBytes4(MarketLilypadController.checkResult.selector, 0x46834d1e, "checkResult");
        assertBytes4(MarketLilypadController.timeoutAgree.selector, 0x795f9abf, "timeoutAgree");
        assertBytes4(MarketLilypadController.timeoutSubmitResult.selector, 0x511a9f68, "timeoutSubmitResult");
        assertBytes4(MarketLilypadController.timeoutJudgeResult.selector, 0xe850be37, "timeoutJudgeResult");
        assertBytes4(MarketLilypadController.timeoutMediateResult.selector, 0xe7b957d1, "timeoutMediateResult");
    }

    function test_theTwoTimeoutsHaveOneNameAtTheControllerAndAnotherAtThePayments() external pure {
        assertBytes4(ILilypadPayments.timeoutSubmitResult.selector, 0x3d31a115, "called submit");
        assertBytes4(ILilypadPayments.timeoutJudgeResult.selector, 0x7a6726b5, "called judge");
        assertBytes4(MarketLilypadPayments.timeoutSubmitResults.selector, 0x02fd8f80, "there submit");
        assertBytes4(MarketLilypadPayments.timeoutJudgeResults.selector, 0x38698529, "there judge");
        assertBytes4(
            MarketLilypadPayments.timeoutMediateResult.selector,
            ILilypadPayments.timeoutMediateResult.selector,
            "the mediate timeout has one name"
        );
    }

    function test_numbersAreThoseOfTheMarket() external pure {
        assertEq(uint8(AgreementState.ResultsSubmitted), 2, "ResultsSubmitted");
        assertEq(uint8(AgreementState.ResultsChecked), 4, "ResultsChecked");
        assertEq(uint8(AgreementState.MediationRejected), 6, "MediationRejected");
        assertEq(uint8(AgreementState.TimeoutAgree), 7, "TimeoutAgree");
        assertEq(uint8(AgreementState.TimeoutMediateResults), 10, "TimeoutMediateResults");
        assertEq(uint8(PaymentReason.MediationFee), 4, "MediationFee");
        assertEq(uint8(PaymentDirection.Slashed), 3, "Slashed");
    }
}

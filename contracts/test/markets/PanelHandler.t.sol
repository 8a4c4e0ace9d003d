// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LilypadFixture} from "./LilypadFixture.sol";
import {MarketVm} from "./MarketCheats.sol";
import {OwnedWallet, PanelFixture} from "./PanelFixture.sol";
import {AgreementState, Deal} from "../../src/markets/lilypad/Lilypad.sol";
import {IPanelHandler} from "../../src/markets/IPanelHandler.sol";
import {IPanelVotes} from "../../src/markets/IPanelVotes.sol";
import {PanelHandler} from "../../src/markets/PanelHandler.sol";

/// @notice The handler as the mediation of the market's controller.
contract PanelHandlerTest is LilypadFixture, PanelFixture {
    address private constant STRANGER = address(0xbad);

    PanelHandler private handler;
    address[] private panel;

    function setUp() public override {
        super.setUp();
        handler = new PanelHandler(controller);
        vm.prank(OWNER);
        controller.setMediationAddress(address(handler));
        _makeKeys(3);
        // The deal lists them in another order.
        panel = _addresses();
        (members.mediators[0], members.mediators[1], members.mediators[2]) = (panel[2], panel[0], panel[1]);
    }

    // The money of the market's own table, with a panel in the mediator's place

    function test_decide_acceptsIfMostSayValid() external {
        _requested();
        mvm.recordLogs();
        _decide(VALID, 2, panel[0]);
        MarketVm.Log memory log = mvm.getRecordedLogs()[0];
        assertBytes32(log.topics[0], IPanelHandler.PanelDecided.selector, "topic");
        assertBytes32(log.topics[1], handler.keyOf(DEAL_ID, panel), "key");
        assertBytes32(log.topics[2], keccak256(bytes(DEAL_ID)), "deal");
        assertBytes32(log.topics[3], bytes32(uint256(VALID)), "verdict");
        assertBytes32(keccak256(log.data), keccak256(abi.encode(uint8(100), DIGEST, uint32(3))), "data");
        _assertState(AgreementState.MediationAccepted);
        _assertNet(-15, 10, panel[0], 5, 0);
        _assertVerdict(VALID);
    }

    function test_decide_rejectsIfMostSayInvalid() external {
        _requested();
        _decide(INVALID, 3, panel[2]);
        _assertState(AgreementState.MediationRejected);
        _assertNet(-5, -40, panel[2], 5, 40);
        _assertVerdict(INVALID);
    }

    function test_decide_movesNothingIfInconclusive() external {
        _requested();
        uint256 jc = token.balanceOf(JC);
        uint256 rp = token.balanceOf(RP);
        // There is no fee to take, so anyone may bring it.
        _decide(INCONCLUSIVE, 2, STRANGER);
        _assertState(AgreementState.ResultsChecked);
        assertEq(token.balanceOf(JC), jc, "job creator");
        assertEq(token.balanceOf(RP), rp, "resource provider");
        _assertVerdict(INCONCLUSIVE);
        _expectDecided(INCONCLUSIVE);
        this.decide(INCONCLUSIVE, 3, STRANGER);
        vm.warp(block.timestamp + 3_601);
        mvm.prank(JC, JC);
        controller.timeoutMediateResult(DEAL_ID);
        _assertNet(0, 0, panel[0], 0, 0);
    }

    function test_decide_replacesAnInconclusiveVerdictByADefiniteOne() external {
        _requested();
        _decide(INCONCLUSIVE, 2, STRANGER);
        _decide(VALID, 2, panel[1]);
        _assertState(AgreementState.MediationAccepted);
    }

    function test_decide_failsAfterADefiniteVerdict() external {
        _requested();
        _decide(INVALID, 2, panel[0]);
        for (uint8 verdict = VALID; verdict <= INCONCLUSIVE; ++verdict) {
            _expectDecided(INVALID);
            this.decide(verdict, 3, panel[0]);
        }
        _assertNet(-5, -40, panel[0], 5, 40);
    }

    function test_decide_failsAndRecordsNothingIfTheDealIsOver() external {
        _requested();
        vm.warp(block.timestamp + 3_601);
        mvm.prank(RP, RP);
        controller.timeoutMediateResult(DEAL_ID);
        IPanelVotes.Vote[] memory votes = _votesOf(3, _signed(INVALID, 100));
        mvm.prank(panel[0], panel[0]);
        vm.expectRevert(bytes("ResultsChecked"));
        handler.decide(DEAL_ID, panel, INVALID, 100, DIGEST, votes);
        _assertVerdict(0);
    }

    // Who is paid

    function test_decide_failsIfAStrangerWouldTakeTheFee() external {
        _requested();
        _expectOnlyVoters(STRANGER);
        this.decide(VALID, 2, STRANGER);
        // A member of the panel that did not sign is no better.
        _expectOnlyVoters(panel[2]);
        this.decide(VALID, 2, panel[2]);
        _expectOnlyVoters(RP);
        this.decide(VALID, 2, RP);
        _assertState(AgreementState.ResultsChecked);
    }

    function test_decide_succeedsThroughAContractThatAVoterCalls() external {
        _requested();
        IPanelVotes.Vote[] memory votes = _votesOf(2, _signed(VALID, 100));
        mvm.prank(STRANGER, panel[1]);
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, votes);
        _assertNet(-15, 10, panel[1], 5, 0);
    }

    function test_decide_isForAnyoneIfAllVotersAreContracts() external {
        for (uint256 i = 0; i < 3; ++i) {
            members.mediators[i] = address(new OwnedWallet(vm.addr(keys[i])));
        }
        panel = handler.panelOf(members.mediators, JC, RP);
        _requested();
        bytes32 signed = _signed(VALID, 100);
        IPanelVotes.Vote[] memory votes = new IPanelVotes.Vote[](3);
        for (uint256 i = 0; i < 3; ++i) {
            uint256 owner = panel[i] == members.mediators[0] ? 0 : panel[i] == members.mediators[1] ? 1 : 2;
            votes[i] = IPanelVotes.Vote(panel[i], _sign(keys[owner], signed));
        }
        bytes memory good = votes[1].signature;
        votes[1].signature = votes[0].signature;
        mvm.prank(STRANGER, STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongSignature.selector, panel[1]));
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, votes);
        votes[1].signature = good;
        mvm.prank(STRANGER, STRANGER);
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, votes);
        _assertNet(-15, 10, STRANGER, 5, 0);
    }

    // Requests

    function test_mediationRequest_tellsThePanel() external {
        _toSubmitted(1);
        mvm.recordLogs();
        _check();
        MarketVm.Log[] memory logs = mvm.getRecordedLogs();
        MarketVm.Log memory log = logs[logs.length - 2];
        assertBytes32(log.topics[0], IPanelHandler.PanelRequested.selector, "topic");
        assertBytes32(log.topics[1], handler.keyOf(DEAL_ID, panel), "key");
        assertBytes32(log.topics[2], keccak256(bytes(DEAL_ID)), "deal");
        assertBytes32(keccak256(log.data), keccak256(abi.encode(DEAL_ID, panel, uint8(2))), "panel and quorum");
        log = logs[logs.length - 1];
        assertBytes32(
            log.topics[0], 0xfd3770121045f9427361660d6eaa8b07a2e45eca6964f5c4f041a28f21084086, "the market's topic"
        );
        assertBytes32(keccak256(log.data), keccak256(abi.encode(DEAL_ID, address(handler))), "this contract");
        (uint256 requestedAt, uint8 quorum, uint8 verdict,,,) = handler.verdictOf(DEAL_ID, panel);
        assertEq(requestedAt, block.timestamp, "requested");
        assertEq(quorum, 2, "quorum");
        assertEq(verdict, 0, "not yet");
    }

    function test_mediationRequest_isForTheControllerOnlyAndOnce() external {
        _requested();
        Deal memory deal = store.getDeal(DEAL_ID);
        vm.expectRevert(abi.encodeWithSelector(IPanelHandler.OnlyController.selector, address(this)));
        handler.mediationRequest(deal);
        bytes32 key = handler.keyOf(DEAL_ID, panel);
        vm.prank(address(controller));
        vm.expectRevert(abi.encodeWithSelector(IPanelHandler.AlreadyRequested.selector, key));
        handler.mediationRequest(deal);
    }

    function test_decide_failsWithoutARequestOrBeforeAnotherPanel() external {
        IPanelVotes.Vote[] memory votes = _votesOf(3, _signed(VALID, 100));
        vm.expectRevert(abi.encodeWithSelector(IPanelHandler.UnknownRequest.selector, handler.keyOf(DEAL_ID, panel)));
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, votes);
        _requested();
        // A panel of one's own, in which one vote were enough.
        _makeKeys(1);
        panel = _addresses();
        votes = _votesOf(1, _signed(VALID, 100));
        vm.expectRevert(abi.encodeWithSelector(IPanelHandler.UnknownRequest.selector, handler.keyOf(DEAL_ID, panel)));
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, votes);
    }

    function test_controller_takesTheVerdictFromTheHandlerOnly() external {
        _requested();
        mvm.prank(panel[0], panel[0]);
        vm.expectRevert(bytes("Only mediation"));
        controller.mediationAcceptResult(DEAL_ID);
        mvm.prank(panel[0], panel[0]);
        vm.expectRevert(bytes("No mediator"));
        mediation.mediationAcceptResult(DEAL_ID);
    }

    function test_decide_failsIfTheControllerHasAnotherMediationNow() external {
        _requested();
        vm.prank(OWNER);
        controller.setMediationAddress(address(mediation));
        IPanelVotes.Vote[] memory votes = _votesOf(3, _signed(VALID, 100));
        mvm.prank(panel[0], panel[0]);
        vm.expectRevert(bytes("Only mediation"));
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, votes);
    }

    // Panels

    function test_quorum_isMoreThanHalf() external {
        for (uint256 count = 1; count <= 31; ++count) {
            _makeKeys(count);
            Deal memory deal;
            deal.dealId = vm.toString(count);
            deal.members.mediators = _addresses();
            vm.prank(address(controller));
            handler.mediationRequest(deal);
            (, uint8 quorum,,,,) = handler.verdictOf(deal.dealId, deal.members.mediators);
            assertTrue(uint256(quorum) * 2 > count && uint256(quorum) * 2 <= count + 2, "quorum");
        }
    }

    function test_decide_failsOneVoteShortOfThePanelsMajority() external {
        _makeKeys(4);
        members.mediators = _addresses();
        panel = members.mediators;
        _requested();
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.NotEnoughVotes.selector, 2, 3));
        this.decide(VALID, 2, panel[0]);
        _decide(VALID, 3, panel[0]);
    }

    function test_panel_leavesOutThePartiesAndRepetitions() external {
        members.mediators = [panel[1], RP, panel[0], panel[1], JC, address(0), panel[0]];
        _requested();
        address[] memory two = new address[](2);
        (two[0], two[1]) = (panel[0], panel[1]);
        (uint256 requestedAt, uint8 quorum,,,,) = handler.verdictOf(DEAL_ID, two);
        assertTrue(requestedAt != 0, "a panel of two");
        assertEq(quorum, 2, "quorum");
    }

    /// A client can always have a result checked, and then the market's own timeout refunds everybody.
    function test_panel_ofNobodyDecidesNothing() external {
        members.mediators = [RP];
        _requested();
        panel = new address[](0);
        IPanelVotes.Vote[] memory votes = new IPanelVotes.Vote[](1);
        votes[0] = _vote(keys[0], _signed(VALID, 100));
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.VoteOutOfPlace.selector, votes[0].mediator));
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, votes);
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.NotEnoughVotes.selector, 0, 1));
        handler.decide(DEAL_ID, panel, VALID, 100, DIGEST, new IPanelVotes.Vote[](0));
        vm.warp(block.timestamp + 3_601);
        mvm.prank(JC, JC);
        controller.timeoutMediateResult(DEAL_ID);
        _assertNet(0, 0, address(0), 0, 0);
    }

    function test_panel_isTheFirstThirtyOneOfMore() external {
        _makeKeys(40);
        members.mediators = _addresses();
        _requested();
        address[] memory first = handler.panelOf(members.mediators, JC, RP);
        assertEq(first.length, 31, "length");
        (uint256 requestedAt, uint8 quorum,,,,) = handler.verdictOf(DEAL_ID, first);
        assertTrue(requestedAt != 0, "requested");
        assertEq(quorum, 16, "quorum");
    }

    function testFuzz_panel_isAscendingAndHoldsWhoWasListed(address[] memory listed, address jc, address rp)
        external
        view
    {
        address[] memory got = handler.panelOf(listed, jc, rp);
        uint256 most = listed.length < 31 ? listed.length : 31;
        for (uint256 i = 0; i < got.length; ++i) {
            assertTrue(i == 0 || got[i - 1] < got[i], "ascending");
            assertTrue(got[i] != jc && got[i] != rp && got[i] != address(0), "a party");
            assertTrue(_holds(listed, got[i], most), "not listed");
        }
        for (uint256 i = 0; i < most; ++i) {
            bool out = listed[i] == jc || listed[i] == rp || listed[i] == address(0);
            assertTrue(out != _holds(got, listed[i], got.length), "left out");
        }
    }

    // All votes at once

    function testFuzz_decide_succeedsIfAndOnlyIfMostOfThePanelSignedExactlyThat(
        uint256 seed,
        uint256 count,
        uint8 verdict,
        uint8 grade
    ) external {
        _makeKeys(bound(count, 1, 9));
        panel = _addresses();
        members.mediators = panel;
        _requested();
        verdict = uint8(bound(verdict, VALID, INCONCLUSIVE));
        grade = uint8(bound(grade, 0, 100));
        uint256 brought;
        bool right = true;
        IPanelVotes.Vote[] memory votes = new IPanelVotes.Vote[](keys.length);
        for (uint256 i = 0; i < keys.length; ++i) {
            uint256 salt = uint256(keccak256(abi.encode(seed, i)));
            if (salt % 4 == 0) continue;
            bool same = salt % 32 > 3;
            right = right && same;
            votes[brought++] = _vote(keys[i], _signed(same ? verdict : verdict % 3 + 1, grade));
        }
        assembly ("memory-safe") {
            mstore(votes, brought)
        }
        address bringer = brought == 0 ? panel[0] : votes[0].mediator;
        bytes memory call = abi.encodeCall(handler.decide, (DEAL_ID, panel, verdict, grade, DIGEST, votes));
        mvm.prank(bringer, bringer);
        (bool done,) = address(handler).call(call);
        bool quorate = right && brought * 2 > panel.length;
        assertTrue(done == quorate, "decided");
        AgreementState expected = !quorate || verdict == INCONCLUSIVE
            ? AgreementState.ResultsChecked
            : verdict == VALID ? AgreementState.MediationAccepted : AgreementState.MediationRejected;
        _assertState(expected);
        _assertVerdict(quorate ? verdict : 0);
        // Nobody but the bringer gets the fee, and nothing is made or lost.
        uint256 fee = expected == AgreementState.ResultsChecked ? 0 : 5;
        assertEq(token.balanceOf(bringer), fee, "fee");
        uint256 all = token.balanceOf(JC) + token.balanceOf(RP) + token.balanceOf(OWNER) + fee;
        assertEq(all + token.balanceOf(address(token)), 10 * START, "conserved");
        if (fee != 0) assertEq(token.balanceOf(address(token)), 0, "nothing stuck");
    }

    function decide(uint8 verdict, uint256 count, address bringer) external {
        _decide(verdict, count, bringer);
    }

    function _decide(uint8 verdict, uint256 count, address bringer) private {
        IPanelVotes.Vote[] memory votes = _votesOf(count, _signed(verdict, 100));
        mvm.prank(bringer, bringer);
        handler.decide(DEAL_ID, panel, verdict, 100, DIGEST, votes);
    }

    function _requested() private {
        _toSubmitted(1);
        _check();
    }

    function _expectDecided(uint8 verdict) private {
        bytes32 key = handler.keyOf(DEAL_ID, panel);
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.AlreadyDecided.selector, key, verdict));
    }

    function _expectOnlyVoters(address origin) private {
        vm.expectRevert(abi.encodeWithSelector(IPanelHandler.OnlyVoters.selector, origin));
    }

    function _assertVerdict(uint8 expected) private view {
        (,, uint8 verdict,,, uint256 decidedAt) = handler.verdictOf(DEAL_ID, panel);
        assertEq(verdict, expected, "verdict");
        assertTrue((decidedAt != 0) == (expected != 0), "decided");
    }

    function _signed(uint8 verdict, uint8 grade) private view returns (bytes32) {
        return handler.hashArbitration(handler.keyOf(DEAL_ID, panel), verdict, grade, DIGEST);
    }

    function _holds(address[] memory list, address account, uint256 most) private pure returns (bool) {
        for (uint256 i = 0; i < most; ++i) {
            if (list[i] == account) return true;
        }
        return false;
    }
}

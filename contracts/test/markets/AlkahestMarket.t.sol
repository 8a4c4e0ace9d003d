// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AlkahestFixture} from "./AlkahestFixture.sol";
import {MarketVm} from "./MarketCheats.sol";
import {
    Attestation,
    AttestationRequest,
    AttestationRequestData,
    RevocationRequest,
    RevocationRequestData
} from "../../src/markets/alkahest/Eas.sol";
import {MarketAllArbiter} from "../../src/markets/alkahest/MarketAllArbiter.sol";
import {MarketEas} from "../../src/markets/alkahest/MarketEas.sol";
import {MarketErc20Escrow} from "../../src/markets/alkahest/MarketErc20Escrow.sol";
import {MarketEscrowBase} from "../../src/markets/alkahest/MarketEscrowBase.sol";
import {MarketObligation} from "../../src/markets/alkahest/MarketObligation.sol";
import {MarketTrustedOracle} from "../../src/markets/alkahest/MarketTrustedOracle.sol";

/// @notice The small market behaves as Alkahest does where Tribunal looks.
contract AlkahestMarketTest is AlkahestFixture {
    address private constant ORACLE = address(0x0a);
    bytes private constant CONTEXT = "what to check";

    function test_collect_paysTheSellerIfTheOracleSaysYes() external {
        (bytes32 escrowUid, bytes32 fulfillmentUid) = _fulfilled();
        vm.prank(ORACLE);
        oracle.arbitrate(fulfillmentUid, CONTEXT, true);
        mvm.recordLogs();
        market.collect(escrowUid, fulfillmentUid);
        assertEq(token.balanceOf(SELLER), AMOUNT, "paid");
        assertTrue(_attestation(escrowUid).revocationTime != 0, "the escrow is used up");
        MarketVm.Log[] memory logs = mvm.getRecordedLogs();
        MarketVm.Log memory last = logs[logs.length - 1];
        assertBytes32(last.topics[0], MarketEscrowBase.EscrowCollected.selector, "topic");
        assertBytes32(last.topics[1], escrowUid, "escrow");
        assertBytes32(last.topics[2], fulfillmentUid, "fulfilment");
        assertBytes32(last.topics[3], bytes32(uint256(uint160(SELLER))), "fulfiller");
        vm.expectRevert(abi.encodeWithSelector(MarketObligation.AttestationRevoked.selector));
        market.collect(escrowUid, fulfillmentUid);
    }

    function test_collect_failsForNoAndForNotYetAlike() external {
        (bytes32 escrowUid, bytes32 fulfillmentUid) = _fulfilled();
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        market.collect(escrowUid, fulfillmentUid);
        vm.prank(ORACLE);
        oracle.arbitrate(fulfillmentUid, CONTEXT, false);
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        market.collect(escrowUid, fulfillmentUid);
    }

    function test_arbitrate_canBeOverwritten() external {
        (bytes32 escrowUid, bytes32 fulfillmentUid) = _fulfilled();
        vm.startPrank(ORACLE);
        oracle.arbitrate(fulfillmentUid, CONTEXT, true);
        oracle.arbitrate(fulfillmentUid, CONTEXT, false);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        market.collect(escrowUid, fulfillmentUid);
    }

    function test_arbitrate_countsForItsContextAndItsSenderOnly() external {
        (bytes32 escrowUid, bytes32 fulfillmentUid) = _fulfilled();
        vm.prank(ORACLE);
        oracle.arbitrate(fulfillmentUid, "another context", true);
        oracle.arbitrate(fulfillmentUid, CONTEXT, true);
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        market.collect(escrowUid, fulfillmentUid);
    }

    function test_arbitrate_emitsTheDecisionKey() external {
        (, bytes32 fulfillmentUid) = _fulfilled();
        mvm.recordLogs();
        vm.prank(ORACLE);
        oracle.arbitrate(fulfillmentUid, CONTEXT, true);
        MarketVm.Log[] memory logs = mvm.getRecordedLogs();
        assertBytes32(logs[0].topics[1], keccak256(abi.encodePacked(fulfillmentUid, CONTEXT)), "key");
        assertBytes32(logs[0].topics[2], fulfillmentUid, "fulfilment");
        assertBytes32(logs[0].topics[3], bytes32(uint256(uint160(ORACLE))), "oracle");
        assertBytes32(keccak256(logs[0].data), keccak256(abi.encode(true)), "decision");
    }

    function test_requestArbitration_isForTheFulfillersOnly() external {
        (, bytes32 fulfillmentUid) = _fulfilled();
        vm.expectRevert(abi.encodeWithSelector(MarketTrustedOracle.UnauthorizedArbitrationRequest.selector));
        oracle.requestArbitration(fulfillmentUid, ORACLE, CONTEXT);
        vm.prank(SELLER);
        oracle.requestArbitration(fulfillmentUid, ORACLE, CONTEXT);
        vm.prank(SELLER);
        oldOracle.requestArbitration(fulfillmentUid, ORACLE);
    }

    function test_oldGeneration_onePaysForEveryDemand() external {
        bytes memory demand = abi.encode(MarketTrustedOracle.DemandData(ORACLE, CONTEXT));
        bytes32 escrowUid = _oldEscrow(address(oldOracle), demand);
        bytes32 fulfillmentUid = _fulfil(escrowUid);
        vm.prank(ORACLE);
        oldOracle.arbitrate(fulfillmentUid, true);
        oldMarket.collectEscrow(escrowUid, fulfillmentUid);
        assertEq(token.balanceOf(SELLER), AMOUNT, "paid");
        bytes memory another = abi.encode(MarketTrustedOracle.DemandData(ORACLE, "another context"));
        assertTrue(oldOracle.checkObligation(_attestation(fulfillmentUid), another, 0), "any context");
        assertTrue(oldOracle.checkStatement(_attestation(fulfillmentUid), another, 0), "oldest name");
    }

    function test_reclaim_givesAnExpiredEscrowBackOnce() external {
        (bytes32 escrowUid, bytes32 fulfillmentUid) = _fulfilled();
        vm.prank(ORACLE);
        oracle.arbitrate(fulfillmentUid, CONTEXT, true);
        vm.warp(EXPIRES - 1);
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.UnauthorizedCall.selector));
        market.reclaim(escrowUid);
        vm.warp(EXPIRES);
        vm.expectRevert(abi.encodeWithSelector(MarketObligation.DeadlineExpired.selector));
        market.collect(escrowUid, fulfillmentUid);
        mvm.recordLogs();
        market.reclaim(escrowUid);
        MarketVm.Log[] memory logs = mvm.getRecordedLogs();
        assertBytes32(logs[logs.length - 1].topics[0], MarketErc20Escrow.EscrowReclaimed.selector, "topic");
        assertEq(token.balanceOf(BUYER), 10 * AMOUNT, "given back");
        vm.expectRevert(abi.encodeWithSelector(MarketEas.AlreadyRevoked.selector));
        market.reclaim(escrowUid);
    }

    function test_reclaim_failsIfTheEscrowNeverExpires() external {
        vm.prank(BUYER);
        bytes32 escrowUid = market.doObligation(_terms(address(oracle), ""), 0);
        vm.warp(type(uint64).max);
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.UnauthorizedCall.selector));
        market.reclaim(escrowUid);
    }

    function test_collect_failsIfTheFulfilmentIsOfAnotherEscrowOrRevokedOrExpired() external {
        bytes memory nobody = abi.encode(MarketAllArbiter.DemandData(new address[](0), new bytes[](0)));
        bytes32 escrowUid = _escrow(address(all), nobody);
        bytes32 other = _fulfil(_escrow(address(all), nobody));
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        market.collect(escrowUid, other);
        bytes32 revoked = _fulfilOpenly(escrowUid, 0);
        _revokeOpenly(revoked);
        vm.expectRevert(abi.encodeWithSelector(MarketObligation.AttestationRevoked.selector));
        market.collect(escrowUid, revoked);
        bytes32 expiring = _fulfilOpenly(escrowUid, uint64(block.timestamp + 1));
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(MarketObligation.DeadlineExpired.selector));
        market.collect(escrowUid, expiring);
        vm.expectRevert(abi.encodeWithSelector(MarketObligation.AttestationNotFound.selector, bytes32(uint256(1))));
        market.collect(escrowUid, bytes32(uint256(1)));
    }

    function test_allArbiter_asksForEveryYes() external {
        MarketAllArbiter.DemandData memory both = MarketAllArbiter.DemandData(new address[](2), new bytes[](2));
        (both.arbiters[0], both.arbiters[1]) = (address(oracle), address(oracle));
        both.demands[0] = abi.encode(MarketTrustedOracle.DemandData(ORACLE, CONTEXT));
        both.demands[1] = abi.encode(MarketTrustedOracle.DemandData(address(this), CONTEXT));
        bytes32 fulfillmentUid = _fulfil(_escrow(address(all), abi.encode(both)));
        Attestation memory it = _attestation(fulfillmentUid);
        vm.prank(ORACLE);
        oracle.arbitrate(fulfillmentUid, CONTEXT, true);
        assertTrue(!all.check(it, abi.encode(both), 0), "one of two");
        oracle.arbitrate(fulfillmentUid, CONTEXT, true);
        assertTrue(all.check(it, abi.encode(both), 0), "both");
        assertTrue(all.checkObligation(it, abi.encode(both), 0), "both, old name");
        both.demands = new bytes[](1);
        vm.expectRevert(abi.encodeWithSelector(MarketAllArbiter.MismatchedArrayLengths.selector));
        all.check(it, abi.encode(both), 0);
    }

    function test_escrowData_isOneEncodedStruct() external {
        bytes32 escrowUid = _escrow(address(oracle), "demand");
        Attestation memory it = _attestation(escrowUid);
        MarketEscrowBase.ObligationData memory decoded = abi.decode(it.data, (MarketEscrowBase.ObligationData));
        assertAddress(decoded.arbiter, address(oracle), "arbiter");
        assertBytes32(keccak256(decoded.demand), keccak256("demand"), "demand");
        assertAddress(decoded.token, address(token), "token");
        assertEq(decoded.amount, AMOUNT, "amount");
        assertAddress(it.attester, address(market), "attester");
        assertAddress(it.recipient, BUYER, "recipient");
        assertEq(it.expirationTime, EXPIRES, "expires");
        (address arbiter, bytes memory demand) = market.decodeCondition(it.data);
        assertAddress(arbiter, address(oracle), "condition's arbiter");
        assertBytes32(keccak256(demand), keccak256("demand"), "condition's demand");
    }

    function test_attest_failsUnderTheSchemaOfAContractForAnyoneElse() external {
        bytes32 schema = market.ATTESTATION_SCHEMA();
        AttestationRequestData memory data = AttestationRequestData(SELLER, 0, true, 0, "forged", 0);
        vm.expectRevert(abi.encodeWithSelector(MarketEas.InvalidAttestation.selector));
        eas.attest(AttestationRequest(schema, data));
    }

    function test_revoke_isForTheAttesterOnlyAndOnce() external {
        bytes32 uid = _fulfilOpenly(0, 0);
        RevocationRequest memory request = RevocationRequest(openSchema, RevocationRequestData(uid, 0));
        vm.expectRevert(abi.encodeWithSelector(MarketEas.AccessDenied.selector));
        eas.revoke(request);
        _revokeOpenly(uid);
        vm.prank(SELLER);
        vm.expectRevert(abi.encodeWithSelector(MarketEas.AlreadyRevoked.selector));
        eas.revoke(request);
    }

    function test_twoEqualAttestationsInOneBlockHaveTwoUids() external {
        assertTrue(_fulfilOpenly(0, 0) != _fulfilOpenly(0, 0), "uids");
    }

    function _fulfilled() private returns (bytes32 escrowUid, bytes32 fulfillmentUid) {
        escrowUid = _escrow(address(oracle), abi.encode(MarketTrustedOracle.DemandData(ORACLE, CONTEXT)));
        fulfillmentUid = _fulfil(escrowUid);
    }
}

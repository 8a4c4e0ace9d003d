// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MarketCheats} from "./MarketCheats.sol";
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
import {MarketErc20EscrowOld} from "../../src/markets/alkahest/MarketErc20EscrowOld.sol";
import {MarketEscrowBase} from "../../src/markets/alkahest/MarketEscrowBase.sol";
import {MarketStringObligation} from "../../src/markets/alkahest/MarketStringObligation.sol";
import {MarketTrustedOracle} from "../../src/markets/alkahest/MarketTrustedOracle.sol";
import {MarketTrustedOracleOld} from "../../src/markets/alkahest/MarketTrustedOracleOld.sol";
import {TestToken} from "../../src/TestToken.sol";

/// @notice A buyer with tokens, a seller, and the small market between them.
abstract contract AlkahestFixture is MarketCheats {
    address internal constant BUYER = address(0xb0);
    address internal constant SELLER = address(0x5e);
    uint64 internal constant EXPIRES = 2_000_000;
    uint256 internal constant AMOUNT = 1_000;

    MarketEas internal eas;
    MarketErc20Escrow internal market;
    MarketErc20EscrowOld internal oldMarket;
    MarketStringObligation internal strings;
    MarketTrustedOracle internal oracle;
    MarketTrustedOracleOld internal oldOracle;
    MarketAllArbiter internal all;
    TestToken internal token;
    /// Anyone may attest and revoke under it.
    bytes32 internal openSchema;

    function setUp() public virtual {
        vm.warp(1_000_000);
        eas = new MarketEas();
        market = new MarketErc20Escrow(eas);
        oldMarket = new MarketErc20EscrowOld(eas);
        strings = new MarketStringObligation(eas);
        oracle = new MarketTrustedOracle(eas);
        oldOracle = new MarketTrustedOracleOld(eas);
        all = new MarketAllArbiter();
        token = new TestToken();
        openSchema = eas.register("bytes result", address(0), true);
        token.mint(BUYER, 10 * AMOUNT);
        vm.startPrank(BUYER);
        token.approve(address(market), type(uint256).max);
        token.approve(address(oldMarket), type(uint256).max);
        vm.stopPrank();
    }

    function _terms(address arbiter, bytes memory demand)
        internal
        view
        returns (MarketEscrowBase.ObligationData memory)
    {
        return MarketEscrowBase.ObligationData(arbiter, demand, address(token), AMOUNT);
    }

    function _escrow(address arbiter, bytes memory demand) internal by(BUYER) returns (bytes32) {
        return market.doObligation(_terms(arbiter, demand), EXPIRES);
    }

    function _oldEscrow(address arbiter, bytes memory demand) internal by(BUYER) returns (bytes32) {
        return oldMarket.doObligation(_terms(arbiter, demand), EXPIRES);
    }

    function _fulfil(bytes32 escrowUid) internal by(SELLER) returns (bytes32) {
        return strings.doObligation(MarketStringObligation.ObligationData("result", keccak256("text")), escrowUid);
    }

    /// A fulfilment that can be revoked and may expire.
    function _fulfilOpenly(bytes32 escrowUid, uint64 expires) internal by(SELLER) returns (bytes32) {
        AttestationRequestData memory data = AttestationRequestData(SELLER, expires, true, escrowUid, "result", 0);
        return eas.attest(AttestationRequest(openSchema, data));
    }

    function _revokeOpenly(bytes32 uid) internal by(SELLER) {
        eas.revoke(RevocationRequest(openSchema, RevocationRequestData(uid, 0)));
    }

    function _attestation(bytes32 uid) internal view returns (Attestation memory) {
        return eas.getAttestation(uid);
    }
}

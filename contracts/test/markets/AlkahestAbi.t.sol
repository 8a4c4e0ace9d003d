// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MarketCheats} from "./MarketCheats.sol";
import {IArbiter, IArbiterOld, IArbiterOldest} from "../../src/markets/alkahest/Arbiters.sol";
import {IEas} from "../../src/markets/alkahest/Eas.sol";
import {MarketErc20Escrow} from "../../src/markets/alkahest/MarketErc20Escrow.sol";
import {MarketErc20EscrowOld} from "../../src/markets/alkahest/MarketErc20EscrowOld.sol";
import {MarketEscrowBase} from "../../src/markets/alkahest/MarketEscrowBase.sol";
import {MarketStringObligation} from "../../src/markets/alkahest/MarketStringObligation.sol";
import {MarketTrustedOracle} from "../../src/markets/alkahest/MarketTrustedOracle.sol";
import {MarketTrustedOracleOld} from "../../src/markets/alkahest/MarketTrustedOracleOld.sol";

/// @notice Selectors and topics against those of the deployed contracts, as literals.
contract AlkahestAbiTest is MarketCheats {
    string private constant ATTESTATION =
        "((bytes32,bytes32,uint64,uint64,uint64,bytes32,address,address,bool,bytes),bytes,bytes32)";

    function test_oracleSelectorsAreThoseOfTheMarket() external pure {
        assertBytes4(MarketTrustedOracle.arbitrate.selector, 0xfcb0c390, "arbitrate");
        assertBytes4(MarketTrustedOracle.requestArbitration.selector, 0x6f6bd32b, "requestArbitration");
        assertBytes4(MarketTrustedOracleOld.arbitrate.selector, 0x8c08667e, "old arbitrate");
        assertBytes4(MarketTrustedOracleOld.requestArbitration.selector, 0xef9fb71d, "old requestArbitration");
    }

    function test_oracleTopicsAreThoseOfTheMarket() external pure {
        assertBytes32(
            MarketTrustedOracle.ArbitrationMade.selector,
            0xbbe9caf8b56a2139bcb80c791657954e2e1ddfad0cf3725d0ce16838a46752d1,
            "ArbitrationMade"
        );
        assertBytes32(
            MarketTrustedOracle.ArbitrationRequested.selector,
            0x5a87a605f49708d9bbadaa74684a5e23583375d9ed010cda2db60567202de60b,
            "ArbitrationRequested"
        );
        assertBytes32(
            MarketTrustedOracleOld.ArbitrationMade.selector,
            keccak256("ArbitrationMade(bytes32,address,bool)"),
            "old ArbitrationMade"
        );
        assertBytes32(
            MarketTrustedOracleOld.ArbitrationRequested.selector,
            keccak256("ArbitrationRequested(bytes32,address)"),
            "old ArbitrationRequested"
        );
    }

    function test_arbiterSelectorsAreThoseOfEachGeneration() external pure {
        assertBytes4(IArbiter.check.selector, bytes4(keccak256(abi.encodePacked("check", ATTESTATION))), "check");
        assertBytes4(
            IArbiterOld.checkObligation.selector,
            bytes4(keccak256(abi.encodePacked("checkObligation", ATTESTATION))),
            "checkObligation"
        );
        assertBytes4(
            IArbiterOldest.checkStatement.selector,
            bytes4(keccak256(abi.encodePacked("checkStatement", ATTESTATION))),
            "checkStatement"
        );
    }

    function test_easSelectorsAndTopicsAreThoseOfTheService() external pure {
        assertBytes4(IEas.attest.selector, 0xf17325e7, "attest");
        assertBytes4(IEas.revoke.selector, 0x46926267, "revoke");
        assertBytes4(IEas.getAttestation.selector, 0xa3112a64, "getAttestation");
        assertBytes4(IEas.register.selector, 0x60d7a278, "register");
        assertBytes4(IEas.getSchema.selector, 0xa2ea7c6e, "getSchema");
        assertBytes32(
            IEas.Attested.selector, 0x8bf46bf4cfd674fa735a3d63ec1c9ad4153f033c290341f3a588b75685141b35, "Attested"
        );
        assertBytes32(
            IEas.Revoked.selector, 0xf930a6e2523c9cc298691873087a740550b8fc85a0680830414c148ed927f615, "Revoked"
        );
    }

    function test_escrowSelectorsAndTopicsAreThoseOfTheMarket() external pure {
        assertBytes4(MarketErc20Escrow.collect.selector, bytes4(keccak256("collect(bytes32,bytes32)")), "collect");
        assertBytes4(MarketErc20Escrow.reclaim.selector, bytes4(keccak256("reclaim(bytes32)")), "reclaim");
        assertBytes4(
            MarketEscrowBase.doObligation.selector,
            bytes4(keccak256("doObligation((address,bytes,address,uint256),uint64)")),
            "doObligation"
        );
        assertBytes4(
            MarketErc20EscrowOld.collectEscrow.selector,
            bytes4(keccak256("collectEscrow(bytes32,bytes32)")),
            "collectEscrow"
        );
        assertBytes4(
            MarketErc20EscrowOld.reclaimExpired.selector, bytes4(keccak256("reclaimExpired(bytes32)")), "reclaimExpired"
        );
        assertBytes4(
            MarketStringObligation.doObligation.selector,
            bytes4(keccak256("doObligation((string,bytes32),bytes32)")),
            "string doObligation"
        );
        assertBytes32(MarketEscrowBase.EscrowMade.selector, keccak256("EscrowMade(bytes32,address)"), "EscrowMade");
        assertBytes32(
            MarketEscrowBase.EscrowCollected.selector,
            keccak256("EscrowCollected(bytes32,bytes32,address)"),
            "Collected"
        );
        assertBytes32(
            MarketErc20Escrow.EscrowReclaimed.selector, keccak256("EscrowReclaimed(bytes32,address)"), "Reclaimed"
        );
    }
}

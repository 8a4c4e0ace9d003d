// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITribunalEscrow} from "./ITribunalEscrow.sol";

/// @title EIP-712 struct hashes
/// @notice The structs that parties, mediators and operators sign, hashed exactly as off chain.
library Typed {
    bytes32 private constant TERMS = keccak256(
        "Terms(bytes32 dealId,address client,address provider,address token,address treasury,uint256 price,uint8 pricing,uint256 paymentCollateral,uint256 resultsCollateral,uint256 submitCollateral,uint256 judgeCollateral,uint256 mediationFee,uint16 victimBps,uint16 feeBps,bytes32 mediatorsHash,bytes32 timeoutsHash,uint32 rule)"
    );
    bytes32 private constant MOVE =
        keccak256("Move(bytes32 termsHash,uint8 action,uint64 instructionCount,bytes32 data)");
    bytes32 private constant VERDICT =
        keccak256("Verdict(bytes32 termsHash,uint32 round,uint8 verdict,uint64 instructionCount,bytes32 digest)");
    bytes32 private constant PANEL = keccak256("Panel(bytes32 termsHash,uint32 round,bytes32 panelHash)");
    bytes32 private constant SILENCE = keccak256("Silence(bytes32 termsHash,uint32 round,bytes32 silentHash)");

    /// @dev Every field is static, so the struct's ABI encoding, as it stands in the calldata, is its EIP-712 encoding.
    /// Stray bits in a short field give another hash, which nobody signed.
    function hash(ITribunalEscrow.Terms calldata terms) internal pure returns (bytes32 result) {
        bytes32 typehash = TERMS;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, typehash)
            calldatacopy(add(free, 32), terms, 544)
            result := keccak256(free, 576)
        }
    }

    function hash(ITribunalEscrow.Timeouts calldata timeouts) internal pure returns (bytes32) {
        return keccak256(abi.encode(timeouts));
    }

    function hash(ITribunalEscrow.Mediation calldata it) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(it.operator, it.mediators, it.panelSize, it.quorum, it.redraws, it.drawn, it.silenceSlash)
        );
    }

    function move(bytes32 termsHash, uint8 action, uint64 instructionCount, bytes32 data)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(MOVE, termsHash, action, instructionCount, data));
    }

    function verdict(bytes32 termsHash, uint32 round, uint8 kind, uint64 instructionCount, bytes32 digest)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(VERDICT, termsHash, round, kind, instructionCount, digest));
    }

    function panel(bytes32 termsHash, uint32 round, address[] memory members) internal pure returns (bytes32) {
        return keccak256(abi.encode(PANEL, termsHash, round, keccak256(abi.encode(members))));
    }

    function silence(bytes32 termsHash, uint32 round, address[] calldata silent) internal pure returns (bytes32) {
        return keccak256(abi.encode(SILENCE, termsHash, round, keccak256(abi.encode(silent))));
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Votes of a panel of mediators, collected off chain and brought in one transaction
/// @notice A vote is an EIP-712 signature over `Arbitration(bytes32 key,uint8 verdict,uint8 grade,bytes32 digest)` in
/// the domain "Tribunal", version "1", of this chain and this contract. The key binds what is judged and by whom, so a
/// vote counts for one case of one panel only.
///
/// All votes of a decision are over the same key, verdict, grade *and* digest. Grade and digest have to agree because
/// whoever brings votes chooses which: were they free, the bringer could pick among the honest votes the subset whose
/// grade passes or fails a threshold. Like this, what is recorded is what every voter of the quorum signed. Mediators
/// whose comparators are not exact therefore round their grades down to steps that the case's data fix.
interface IPanelVotes {
    struct Vote {
        address mediator;
        /// 65 bytes r, s, v of a key, or what an ERC-1271 wallet wants.
        bytes signature;
    }

    /// @notice Not one of 1 valid, 2 invalid, 3 inconclusive.
    error WrongVerdict(uint8 verdict);
    /// @notice Above 100.
    error WrongGrade(uint8 grade);
    error NotEnoughVotes(uint256 votes, uint256 quorum);
    /// @notice Not of the panel, or not in ascending order, or twice.
    error VoteOutOfPlace(address mediator);
    error WrongSignature(address mediator);
    /// @notice A definite decision is final; an inconclusive one gives way to a definite one only.
    error AlreadyDecided(bytes32 key, uint8 verdict);

    /// @notice What a mediator signs, EIP-712 digest, 32 bytes.
    function hashArbitration(bytes32 key, uint8 verdict, uint8 grade, bytes32 digest) external view returns (bytes32);

    /// @notice The EIP-712 domain separator, 32 bytes.
    function domainSeparator() external view returns (bytes32);
}

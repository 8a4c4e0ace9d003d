// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {IPanelVotes} from "./IPanelVotes.sol";

/// @title Checks votes of a panel, see IPanelVotes
abstract contract PanelVotes is IPanelVotes, EIP712 {
    uint8 internal constant VALID = 1;
    uint8 internal constant INVALID = 2;
    uint8 internal constant INCONCLUSIVE = 3;
    uint8 internal constant GRADE_MAX = 100;
    uint256 internal constant MEDIATORS_MAX = 31;

    bytes32 private constant ARBITRATION =
        keccak256("Arbitration(bytes32 key,uint8 verdict,uint8 grade,bytes32 digest)");

    constructor() EIP712("Tribunal", "1") {}

    /// @inheritdoc IPanelVotes
    function hashArbitration(bytes32 key, uint8 verdict, uint8 grade, bytes32 digest) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ARBITRATION, key, verdict, grade, digest)));
    }

    /// @inheritdoc IPanelVotes
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    /// @dev Bit `i` of the result says that `panel[i]` voted. The panel has to be ascending and of at most 31: then one
    /// walk over it meets every voter, and a voter that comes again or out of order is not met.
    function _checkVotes(
        address[] memory panel,
        uint256 quorum,
        bytes32 key,
        uint8 verdict,
        uint8 grade,
        bytes32 digest,
        Vote[] calldata votes
    ) internal view returns (uint32 voters) {
        if (verdict < VALID || verdict > INCONCLUSIVE) revert WrongVerdict(verdict);
        if (grade > GRADE_MAX) revert WrongGrade(grade);
        if (votes.length < quorum) revert NotEnoughVotes(votes.length, quorum);
        bytes32 signed = hashArbitration(key, verdict, grade, digest);
        uint256 place = 0;
        for (uint256 i = 0; i < votes.length; ++i) {
            address mediator = votes[i].mediator;
            while (place < panel.length && panel[place] < mediator) ++place;
            if (place == panel.length || panel[place] != mediator) revert VoteOutOfPlace(mediator);
            if (!SignatureChecker.isValidSignatureNowCalldata(mediator, signed, votes[i].signature)) {
                revert WrongSignature(mediator);
            }
            voters |= uint32(1) << uint32(place);
            ++place;
        }
    }

    /// @dev Definite is final; inconclusive gives way to definite only.
    function _requireOpen(bytes32 key, uint8 decided, uint8 verdict) internal pure {
        bool open = decided == 0 || (decided == INCONCLUSIVE && verdict != INCONCLUSIVE);
        if (!open) revert AlreadyDecided(key, decided);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ITribunalEscrow} from "./ITribunalEscrow.sol";
import {Signatures} from "./Signatures.sol";
import {Typed} from "./Typed.sol";

/// @title The votes of a round's panel
/// @notice Seats a panel, counts its votes and says whether they carry an outcome. Mediators are meant by their place
/// in `Mediation.mediators`, which is ascending and at most 31 long.
library Ballot {
    /// @dev Bytes of a packed vote before its signature.
    uint256 private constant VOTE_HEAD = 36;

    /// @notice A round's votes so far.
    struct Count {
        bytes32 domain;
        bytes32 termsHash;
        uint32 round;
        uint64 instructionCount;
        /// Bit i: the mediator in place i sits on the panel.
        uint256 seated;
        /// Bit i: the mediator in place i voted.
        uint256 voted;
        /// By verdict: index 1 valid, 2 invalid, 3 inconclusive.
        uint256[4] tally;
    }

    /// @notice Seats a panel: as many distinct mediators of the terms as they say, with the operator's word where they
    /// were drawn.
    function seat(
        Count memory count,
        ITribunalEscrow.Mediation calldata mediation,
        address[] calldata members,
        bytes calldata operatorSig
    ) internal view {
        address[] calldata mediators = mediation.mediators;
        if (members.length != mediation.panelSize) revert ITribunalEscrow.WrongPanel();
        for (uint256 i = 0; i < members.length; ++i) {
            _take(count, mediators, _place(mediators, members[i]));
        }
        _certify(count, mediation, members, operatorSig);
    }

    /// @notice Likewise, with the members' places in the first bytes of `seats`.
    function seat(
        Count memory count,
        ITribunalEscrow.Mediation calldata mediation,
        bytes32 seats,
        bytes calldata operatorSig
    ) internal view {
        address[] calldata mediators = mediation.mediators;
        address[] memory members = new address[](mediation.panelSize);
        for (uint256 i = 0; i < members.length; ++i) {
            uint256 place = uint8(seats[i]);
            _take(count, mediators, place);
            members[i] = mediators[place];
        }
        _certify(count, mediation, members, operatorSig);
    }

    function _take(Count memory count, address[] calldata mediators, uint256 place) private pure {
        if (place >= mediators.length || count.seated >> place & 1 == 1) revert ITribunalEscrow.WrongPanel();
        count.seated |= 1 << place;
    }

    function _certify(
        Count memory count,
        ITribunalEscrow.Mediation calldata mediation,
        address[] memory members,
        bytes calldata operatorSig
    ) private view {
        if (!mediation.drawn) return;
        bytes32 structHash = Typed.panel(count.termsHash, count.round, members);
        _checkSigned(count, mediation.operator, structHash, operatorSig);
    }

    /// @notice Counts votes.
    function add(Count memory count, address[] calldata mediators, ITribunalEscrow.Vote[] calldata list) internal view {
        for (uint256 i = 0; i < list.length; ++i) {
            ITribunalEscrow.Vote calldata vote = list[i];
            address mediator = vote.mediator;
            if (vote.instructionCount != count.instructionCount) revert ITribunalEscrow.WrongVote(mediator);
            _add(count, _place(mediators, mediator), mediator, vote.verdict, vote.digest, vote.signature);
        }
    }

    /// @notice Counts packed votes, see `Ruling`.
    function add(Count memory count, address[] calldata mediators, bytes calldata rest) internal view {
        while (rest.length > 0) {
            if (rest.length < VOTE_HEAD) revert ITribunalEscrow.WrongRuling();
            uint256 head = uint256(bytes32(rest));
            uint256 place = head >> 248;
            uint256 end = VOTE_HEAD + uint16(head >> 224);
            if (rest.length < end || place >= mediators.length) revert ITribunalEscrow.WrongRuling();
            _add(count, place, mediators[place], uint8(head >> 240), bytes32(rest[4:]), rest[VOTE_HEAD:end]);
            rest = rest[end:];
        }
    }

    function _add(
        Count memory count,
        uint256 place,
        address mediator,
        uint8 verdict,
        bytes32 digest,
        bytes calldata signature
    ) private view {
        uint256 bit = 1 << place;
        // Ascending by address, for so is the list.
        if (count.voted >= bit) revert ITribunalEscrow.VotesNotAscending();
        if (count.seated & bit == 0) revert ITribunalEscrow.NotMediator(mediator);
        if (verdict == 0 || verdict > 3) revert ITribunalEscrow.WrongVote(mediator);
        bytes32 structHash = Typed.verdict(count.termsHash, count.round, verdict, count.instructionCount, digest);
        _checkSigned(count, mediator, structHash, signature);
        count.voted |= bit;
        ++count.tally[verdict];
    }

    /// @notice Refuses an outcome that the votes do not carry.
    function check(Count memory count, ITribunalEscrow.Mediation calldata mediation, ITribunalEscrow.Outcome outcome)
        internal
        pure
    {
        uint256 quorum = mediation.quorum;
        uint256[4] memory tally = count.tally;
        if (outcome == ITribunalEscrow.Outcome.Valid) {
            if (tally[1] < quorum) revert ITribunalEscrow.NoQuorum(quorum, tally[1]);
        } else if (outcome == ITribunalEscrow.Outcome.Invalid) {
            if (tally[2] < quorum) revert ITribunalEscrow.NoQuorum(quorum, tally[2]);
        } else if (outcome == ITribunalEscrow.Outcome.Inconclusive) {
            if (count.round != mediation.redraws) {
                revert ITribunalEscrow.WrongRound(count.round, mediation.redraws);
            }
            if (tally[1] >= quorum || tally[2] >= quorum) revert ITribunalEscrow.WrongOutcome();
            if (tally[3] < quorum && votes(count) != mediation.panelSize) {
                revert ITribunalEscrow.NoQuorum(quorum, tally[3]);
            }
        } else {
            revert ITribunalEscrow.WrongOutcome();
        }
    }

    /// @notice How many voted.
    function votes(Count memory count) internal pure returns (uint256) {
        return count.tally[1] + count.tally[2] + count.tally[3];
    }

    /// @dev The list's length if it is not there.
    function _place(address[] calldata mediators, address mediator) private pure returns (uint256 place) {
        while (place < mediators.length && mediators[place] != mediator) {
            ++place;
        }
    }

    function _checkSigned(Count memory count, address signer, bytes32 structHash, bytes calldata signature)
        private
        view
    {
        bytes32 digest = MessageHashUtils.toTypedDataHash(count.domain, structHash);
        if (!Signatures.isBy(signer, digest, signature)) revert ITribunalEscrow.BadSignature(signer);
    }
}

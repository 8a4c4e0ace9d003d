// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IPanelHandler} from "./IPanelHandler.sol";
import {Deal, ILilypadMediationHandler, ILilypadMediationRequester} from "./lilypad/Lilypad.sol";
import {PanelVotes} from "./PanelVotes.sol";

/// @title A panel in place of one drawn mediator, see IPanelHandler
contract PanelHandler is IPanelHandler, ILilypadMediationHandler, PanelVotes {
    struct Request {
        uint48 requestedAt;
        uint48 decidedAt;
        uint8 quorum;
        uint8 verdict;
        uint8 grade;
        bytes32 digest;
    }

    /// @notice Who asks for mediation and is told how it ended.
    ILilypadMediationRequester public immutable controller;

    mapping(bytes32 key => Request) private _requests;

    constructor(ILilypadMediationRequester controller_) {
        controller = controller_;
    }

    /// @inheritdoc ILilypadMediationHandler
    function mediationRequest(Deal calldata deal) external {
        if (msg.sender != address(controller)) revert OnlyController(msg.sender);
        address[] memory panel =
            _panelOf(deal.members.mediators, deal.members.jobCreator, deal.members.resourceProvider);
        bytes32 key = _keyOf(deal.dealId, panel);
        if (_requests[key].requestedAt != 0) revert AlreadyRequested(key);
        uint8 quorum = uint8(panel.length / 2 + 1);
        _requests[key].requestedAt = uint48(block.timestamp);
        _requests[key].quorum = quorum;
        emit PanelRequested(key, keccak256(bytes(deal.dealId)), deal.dealId, panel, quorum);
        emit MediationRequested(deal.dealId, address(this));
    }

    /// @inheritdoc IPanelHandler
    function decide(
        string calldata dealId,
        address[] calldata panel,
        uint8 verdict,
        uint8 grade,
        bytes32 digest,
        Vote[] calldata votes
    ) external {
        bytes32 key = _keyOf(dealId, panel);
        Request storage it = _requests[key];
        if (it.requestedAt == 0) revert UnknownRequest(key);
        _requireOpen(key, it.verdict, verdict);
        uint32 voters = _checkVotes(panel, it.quorum, key, verdict, grade, digest, votes);
        it.verdict = verdict;
        it.grade = grade;
        it.digest = digest;
        it.decidedAt = uint48(block.timestamp);
        emit PanelDecided(key, keccak256(bytes(dealId)), verdict, grade, digest, voters);
        if (verdict == INCONCLUSIVE) return;
        _requirePayee(votes);
        if (verdict == VALID) controller.mediationAcceptResult(dealId);
        else controller.mediationRejectResult(dealId);
    }

    /// @inheritdoc IPanelHandler
    function keyOf(string calldata dealId, address[] calldata panel) external view returns (bytes32) {
        return _keyOf(dealId, panel);
    }

    /// @inheritdoc IPanelHandler
    function panelOf(address[] calldata mediators, address jobCreator, address resourceProvider)
        external
        pure
        returns (address[] memory)
    {
        return _panelOf(mediators, jobCreator, resourceProvider);
    }

    /// @inheritdoc IPanelHandler
    function verdictOf(string calldata dealId, address[] calldata panel)
        external
        view
        returns (uint256 requestedAt, uint8 quorum, uint8 verdict, uint8 grade, bytes32 digest, uint256 decidedAt)
    {
        Request storage it = _requests[_keyOf(dealId, panel)];
        return (it.requestedAt, it.quorum, it.verdict, it.grade, it.digest, it.decidedAt);
    }

    function _keyOf(string calldata dealId, address[] memory panel) private view returns (bytes32) {
        bytes32 panelHash = keccak256(abi.encode(panel));
        return keccak256(abi.encode(block.chainid, address(this), controller, dealId, panelHash));
    }

    /// @dev The market pays the fee to `tx.origin`. Contracts among the voters can be nobody's origin.
    function _requirePayee(Vote[] calldata votes) private view {
        bool someKey = false;
        for (uint256 i = 0; i < votes.length; ++i) {
            if (votes[i].mediator == tx.origin) return;
            if (votes[i].mediator.code.length == 0) someKey = true;
        }
        if (someKey) revert OnlyVoters(tx.origin);
    }

    /// @dev Sorts by insertion, 31 at most.
    function _panelOf(address[] calldata mediators, address jobCreator, address resourceProvider)
        private
        pure
        returns (address[] memory panel)
    {
        uint256 most = mediators.length < MEDIATORS_MAX ? mediators.length : MEDIATORS_MAX;
        panel = new address[](most);
        uint256 count = 0;
        for (uint256 i = 0; i < most; ++i) {
            address mediator = mediators[i];
            if (mediator == address(0) || mediator == jobCreator || mediator == resourceProvider) continue;
            uint256 place = count;
            while (place > 0 && panel[place - 1] > mediator) --place;
            if (place > 0 && panel[place - 1] == mediator) continue;
            for (uint256 j = count; j > place; --j) {
                panel[j] = panel[j - 1];
            }
            panel[place] = mediator;
            ++count;
        }
        // Only ever shorter than what was allocated.
        assembly ("memory-safe") {
            mstore(panel, count)
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Deal, ILilypadMediationHandler, ILilypadMediationRequester} from "./Lilypad.sol";
import {MarketControllerOwnable} from "./MarketControllerOwnable.sol";

/// @title One mediator drawn from the deal's, to the ABI of Lilypad v2's random mediation, for tests
/// @notice Written here from the ABI; it is not the original. Who picks the block picks the mediator, as there.
contract MarketLilypadMediation is ILilypadMediationHandler, MarketControllerOwnable {
    mapping(string dealId => address) private _mediators;

    event MediationRequested(string dealId, address mediator);

    /// @inheritdoc ILilypadMediationHandler
    function mediationRequest(Deal calldata deal) external onlyController {
        uint256 drawn = uint256(keccak256(abi.encodePacked(block.timestamp, deal.dealId)));
        address mediator = deal.members.mediators[drawn % deal.members.mediators.length];
        require(mediator != address(0), "No mediator");
        _mediators[deal.dealId] = mediator;
        emit MediationRequested(deal.dealId, mediator);
    }

    function getMediator(string calldata dealId) external view returns (address) {
        return _mediators[dealId];
    }

    function mediationAcceptResult(string calldata dealId) external {
        _requireMediator(dealId);
        ILilypadMediationRequester(getControllerAddress()).mediationAcceptResult(dealId);
    }

    function mediationRejectResult(string calldata dealId) external {
        _requireMediator(dealId);
        ILilypadMediationRequester(getControllerAddress()).mediationRejectResult(dealId);
    }

    function _requireMediator(string calldata dealId) private view {
        address mediator = _mediators[dealId];
        require(mediator != address(0), "No mediator");
        require(mediator == tx.origin, "Only the mediator");
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {Attestation, IEas} from "./Eas.sol";
import {MarketObligation} from "./MarketObligation.sol";

/// @notice What both generations of the ERC-20 escrow share: the terms in an attestation, the tokens here until then.
abstract contract MarketEscrowBase is MarketObligation, ReentrancyGuard {
    using SafeERC20 for IERC20;

    /// @notice The escrow attestation's data, `abi.encode` of this one struct.
    struct ObligationData {
        address arbiter;
        bytes demand;
        address token;
        uint256 amount;
    }

    event EscrowMade(bytes32 indexed escrowUid, address indexed escrower);
    event EscrowCollected(bytes32 indexed escrowUid, bytes32 indexed fulfillmentUid, address indexed fulfiller);

    error InvalidEscrowAttestation();
    error InvalidFulfillment();
    error UnauthorizedCall();

    constructor(IEas eas) MarketObligation(eas, "address arbiter, bytes demand, address token, uint256 amount", true) {}

    function doObligation(ObligationData calldata data, uint64 expirationTime) external returns (bytes32) {
        return _make(data, expirationTime, msg.sender);
    }

    function doObligationFor(ObligationData calldata data, uint64 expirationTime, address recipient)
        external
        returns (bytes32)
    {
        return _make(data, expirationTime, recipient);
    }

    function getObligationData(bytes32 uid) external view returns (ObligationData memory) {
        return _decode(_own(uid).data);
    }

    function decodeObligationData(bytes calldata data) external pure returns (ObligationData memory) {
        return _decode(data);
    }

    function _approved(address arbiter, Attestation memory fulfillment, bytes memory demand, bytes32 escrowUid)
        internal
        view
        virtual
        returns (bool);

    /// What the generation asks of a fulfilment itself, but for its reference to the escrow.
    function _requireFulfilling(Attestation memory fulfillment) internal view virtual;

    function _make(ObligationData calldata data, uint64 expirationTime, address recipient)
        private
        nonReentrant
        returns (bytes32 uid)
    {
        IERC20(data.token).safeTransferFrom(msg.sender, address(this), data.amount);
        uid = _attest(abi.encode(data), expirationTime, recipient, 0);
        emit EscrowMade(uid, recipient);
    }

    function _collect(bytes32 escrowUid, bytes32 fulfillmentUid) internal nonReentrant {
        Attestation memory escrow = _existing(escrowUid);
        Attestation memory fulfillment = _existing(fulfillmentUid);
        if (escrow.schema != ATTESTATION_SCHEMA) revert InvalidEscrowAttestation();
        _requireInForce(escrow);
        if (fulfillment.refUID != escrowUid) revert InvalidFulfillment();
        _requireFulfilling(fulfillment);
        ObligationData memory terms = _decode(escrow.data);
        if (!_approved(terms.arbiter, fulfillment, terms.demand, escrowUid)) revert InvalidFulfillment();
        _revoke(escrowUid);
        IERC20(terms.token).safeTransfer(fulfillment.recipient, terms.amount);
        emit EscrowCollected(escrowUid, fulfillmentUid, fulfillment.recipient);
    }

    function _reclaim(bytes32 escrowUid) internal nonReentrant returns (address escrower) {
        Attestation memory escrow = _existing(escrowUid);
        if (escrow.schema != ATTESTATION_SCHEMA) revert InvalidEscrowAttestation();
        if (escrow.expirationTime == 0 || block.timestamp < escrow.expirationTime) revert UnauthorizedCall();
        _revoke(escrowUid);
        ObligationData memory terms = _decode(escrow.data);
        escrower = escrow.recipient;
        IERC20(terms.token).safeTransfer(escrower, terms.amount);
    }

    function _decode(bytes memory data) internal pure returns (ObligationData memory) {
        return abi.decode(data, (ObligationData));
    }
}

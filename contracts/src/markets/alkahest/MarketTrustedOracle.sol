// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IArbiter, IArbiterOld} from "./Arbiters.sol";
import {Attestation, IEas} from "./Eas.sol";

/// @title An arbiter that follows one oracle, to the ABI of Alkahest's TrustedOracleArbiter 1.x, for tests
/// @notice Written here from the ABI; it is not the original. A decision can be overwritten, and *no* looks like *not
/// yet*, as there. `demand` of `arbitrate` and of the events is the `data` inside the escrow's demand, not all of it.
contract MarketTrustedOracle is IArbiter, IArbiterOld {
    struct DemandData {
        address oracle;
        bytes data;
    }

    event ArbitrationMade(
        bytes32 indexed decisionKey, bytes32 indexed fulfillmentUid, address indexed oracle, bool decision
    );
    event ArbitrationRequested(bytes32 indexed fulfillmentUid, address indexed oracle, bytes demand);

    error UnauthorizedArbitrationRequest();

    IEas private immutable _eas;
    mapping(address oracle => mapping(bytes32 decisionKey => bool)) private _decisions;

    constructor(IEas eas) {
        _eas = eas;
    }

    function arbitrate(bytes32 fulfillmentUid, bytes calldata demand, bool decision) external {
        bytes32 decisionKey = _key(fulfillmentUid, demand);
        _decisions[msg.sender][decisionKey] = decision;
        emit ArbitrationMade(decisionKey, fulfillmentUid, msg.sender, decision);
    }

    function requestArbitration(bytes32 fulfillmentUid, address oracle, bytes calldata demand) external {
        Attestation memory it = _eas.getAttestation(fulfillmentUid);
        if (it.attester != msg.sender && it.recipient != msg.sender) revert UnauthorizedArbitrationRequest();
        emit ArbitrationRequested(fulfillmentUid, oracle, demand);
    }

    /// @inheritdoc IArbiter
    function check(Attestation calldata fulfillment, bytes calldata demand, bytes32) external view returns (bool) {
        return _decided(fulfillment.uid, demand);
    }

    /// @inheritdoc IArbiterOld
    function checkObligation(Attestation calldata fulfillment, bytes calldata demand, bytes32)
        external
        view
        returns (bool)
    {
        return _decided(fulfillment.uid, demand);
    }

    function decodeDemandData(bytes calldata data) external pure returns (DemandData memory) {
        return abi.decode(data, (DemandData));
    }

    function _decided(bytes32 fulfillmentUid, bytes calldata demand) private view returns (bool) {
        DemandData memory it = abi.decode(demand, (DemandData));
        return _decisions[it.oracle][_key(fulfillmentUid, it.data)];
    }

    /// @dev Packed with one dynamic value only, as the original derives it.
    function _key(bytes32 fulfillmentUid, bytes memory data) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(fulfillmentUid, data));
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IArbiterOld, IArbiterOldest} from "./Arbiters.sol";
import {Attestation, IEas} from "./Eas.sol";

/// @title An arbiter that follows one oracle, to the ABI of Alkahest's first TrustedOracleArbiter, for tests
/// @notice Written here from the ABI; it is not the original. Decisions are kept by fulfilment alone, so one decision
/// answers every demand on that fulfilment, as there.
contract MarketTrustedOracleOld is IArbiterOld, IArbiterOldest {
    struct DemandData {
        address oracle;
        bytes data;
    }

    event ArbitrationMade(bytes32 indexed fulfillmentUid, address indexed oracle, bool decision);
    event ArbitrationRequested(bytes32 indexed fulfillmentUid, address indexed oracle);

    error UnauthorizedArbitrationRequest();

    IEas private immutable _eas;
    mapping(address oracle => mapping(bytes32 fulfillmentUid => bool)) private _decisions;

    constructor(IEas eas) {
        _eas = eas;
    }

    function arbitrate(bytes32 fulfillmentUid, bool decision) external {
        _decisions[msg.sender][fulfillmentUid] = decision;
        emit ArbitrationMade(fulfillmentUid, msg.sender, decision);
    }

    function requestArbitration(bytes32 fulfillmentUid, address oracle) external {
        Attestation memory it = _eas.getAttestation(fulfillmentUid);
        if (it.attester != msg.sender && it.recipient != msg.sender) revert UnauthorizedArbitrationRequest();
        emit ArbitrationRequested(fulfillmentUid, oracle);
    }

    /// @inheritdoc IArbiterOld
    function checkObligation(Attestation calldata fulfillment, bytes calldata demand, bytes32)
        external
        view
        returns (bool)
    {
        return _decided(fulfillment.uid, demand);
    }

    /// @inheritdoc IArbiterOldest
    function checkStatement(Attestation calldata fulfillment, bytes calldata demand, bytes32)
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
        return _decisions[abi.decode(demand, (DemandData)).oracle][fulfillmentUid];
    }
}

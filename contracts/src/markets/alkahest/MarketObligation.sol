// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {
    Attestation,
    AttestationRequest,
    AttestationRequestData,
    IEas,
    ISchemaResolver,
    RevocationRequest,
    RevocationRequestData,
    SchemaRecord
} from "./Eas.sol";

/// @notice Makes and revokes attestations of one schema of its own, which nobody else can attest.
abstract contract MarketObligation is ISchemaResolver {
    IEas internal immutable _eas;
    bytes32 public immutable ATTESTATION_SCHEMA;
    bool private immutable _revocable;

    error AttestationNotFound(bytes32 attestationId);
    error DeadlineExpired();
    error AttestationRevoked();
    error NotFromThisAttester();
    error OnlyEas();

    constructor(IEas eas, string memory schema, bool revocable) {
        _eas = eas;
        _revocable = revocable;
        ATTESTATION_SCHEMA = eas.register(schema, address(this), revocable);
    }

    function attest(Attestation calldata attestation) external payable returns (bool) {
        return _isOwn(attestation);
    }

    function revoke(Attestation calldata attestation) external payable returns (bool) {
        return _isOwn(attestation);
    }

    function getSchema() external view returns (SchemaRecord memory) {
        return _eas.getSchema(ATTESTATION_SCHEMA);
    }

    function _isOwn(Attestation calldata attestation) private view returns (bool) {
        if (msg.sender != address(_eas)) revert OnlyEas();
        return attestation.attester == address(this);
    }

    function _attest(bytes memory data, uint64 expirationTime, address recipient, bytes32 refUID)
        internal
        returns (bytes32)
    {
        AttestationRequestData memory request =
            AttestationRequestData(recipient, expirationTime, _revocable, refUID, data, 0);
        return _eas.attest(AttestationRequest(ATTESTATION_SCHEMA, request));
    }

    function _revoke(bytes32 uid) internal {
        _eas.revoke(RevocationRequest(ATTESTATION_SCHEMA, RevocationRequestData(uid, 0)));
    }

    function _existing(bytes32 uid) internal view returns (Attestation memory it) {
        it = _eas.getAttestation(uid);
        if (uid == 0 || it.uid != uid) revert AttestationNotFound(uid);
    }

    function _own(bytes32 uid) internal view returns (Attestation memory it) {
        it = _existing(uid);
        if (it.schema != ATTESTATION_SCHEMA) revert NotFromThisAttester();
    }

    /// @dev Expiry at second T is over at T.
    function _requireInForce(Attestation memory it) internal view {
        if (it.expirationTime != 0 && it.expirationTime <= block.timestamp) revert DeadlineExpired();
        if (it.revocationTime != 0) revert AttestationRevoked();
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Attestation, AttestationRequest, IEas, ISchemaResolver, RevocationRequest, SchemaRecord} from "./Eas.sol";

/// @title A small attestation service and schema registry in one, for tests
/// @notice Written here to the ABI of the Ethereum Attestation Service; it is not the original and is to hold no real
/// money. Attests, revokes and asks resolvers as that does; no delegation, no batches, no payments to resolvers.
contract MarketEas is IEas {
    error AlreadyExists();
    error AlreadyRevoked();
    error AccessDenied();
    error InvalidAttestation();
    error InvalidExpirationTime();
    error InvalidRevocation();
    error InvalidSchema();
    error Irrevocable();
    error NotFound();
    error NotPayable();

    mapping(bytes32 uid => Attestation) private _attestations;
    mapping(bytes32 uid => SchemaRecord) private _schemas;

    /// @inheritdoc IEas
    function register(string calldata schema, address resolver, bool revocable) external returns (bytes32 uid) {
        uid = keccak256(abi.encodePacked(schema, resolver, revocable));
        if (_schemas[uid].uid != 0) revert AlreadyExists();
        _schemas[uid] = SchemaRecord(uid, resolver, revocable, schema);
    }

    /// @inheritdoc IEas
    function attest(AttestationRequest calldata request) external payable returns (bytes32 uid) {
        if (msg.value != 0 || request.data.value != 0) revert NotPayable();
        SchemaRecord storage schema = _schemas[request.schema];
        if (schema.uid == 0) revert InvalidSchema();
        uint64 expires = request.data.expirationTime;
        if (expires != 0 && expires <= block.timestamp) revert InvalidExpirationTime();
        if (request.data.revocable && !schema.revocable) revert Irrevocable();
        if (request.data.refUID != 0 && _attestations[request.data.refUID].uid == 0) revert NotFound();

        Attestation memory made = Attestation({
            uid: 0,
            schema: request.schema,
            time: uint64(block.timestamp),
            expirationTime: expires,
            revocationTime: 0,
            refUID: request.data.refUID,
            recipient: request.data.recipient,
            attester: msg.sender,
            revocable: request.data.revocable,
            data: request.data.data
        });
        for (uint32 bump = 0;; ++bump) {
            uid = _uid(made, bump);
            if (_attestations[uid].uid == 0) break;
        }
        made.uid = uid;
        _attestations[uid] = made;
        if (schema.resolver != address(0) && !ISchemaResolver(schema.resolver).attest(made)) {
            revert InvalidAttestation();
        }
        emit Attested(made.recipient, msg.sender, uid, request.schema);
    }

    /// @inheritdoc IEas
    function revoke(RevocationRequest calldata request) external payable {
        if (msg.value != 0 || request.data.value != 0) revert NotPayable();
        SchemaRecord storage schema = _schemas[request.schema];
        if (schema.uid == 0) revert InvalidSchema();
        Attestation storage it = _attestations[request.data.uid];
        if (it.uid == 0) revert NotFound();
        if (it.schema != request.schema) revert InvalidSchema();
        if (it.attester != msg.sender) revert AccessDenied();
        if (!it.revocable) revert Irrevocable();
        if (it.revocationTime != 0) revert AlreadyRevoked();
        it.revocationTime = uint64(block.timestamp);
        if (schema.resolver != address(0) && !ISchemaResolver(schema.resolver).revoke(it)) revert InvalidRevocation();
        emit Revoked(it.recipient, msg.sender, it.uid, it.schema);
    }

    /// @inheritdoc IEas
    function getAttestation(bytes32 uid) external view returns (Attestation memory) {
        return _attestations[uid];
    }

    /// @inheritdoc IEas
    function isAttestationValid(bytes32 uid) external view returns (bool) {
        return _attestations[uid].uid != 0;
    }

    /// @inheritdoc IEas
    function getSchemaRegistry() external view returns (address) {
        return address(this);
    }

    /// @inheritdoc IEas
    function getSchema(bytes32 uid) external view returns (SchemaRecord memory) {
        return _schemas[uid];
    }

    /// @dev Packed with one dynamic value only, as the original derives it.
    function _uid(Attestation memory it, uint32 bump) private pure returns (bytes32) {
        return keccak256(
            abi.encodePacked(
                it.schema, it.recipient, it.attester, it.time, it.expirationTime, it.revocable, it.refUID, it.data, bump
            )
        );
    }
}

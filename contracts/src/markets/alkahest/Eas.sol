// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice One attestation, member by member as the Ethereum Attestation Service returns it.
struct Attestation {
    bytes32 uid;
    bytes32 schema;
    /// Seconds; of the block that made it.
    uint64 time;
    /// Seconds; 0 never.
    uint64 expirationTime;
    /// Seconds; 0 not revoked.
    uint64 revocationTime;
    bytes32 refUID;
    address recipient;
    address attester;
    bool revocable;
    bytes data;
}

struct AttestationRequestData {
    address recipient;
    uint64 expirationTime;
    bool revocable;
    bytes32 refUID;
    bytes data;
    uint256 value;
}

struct AttestationRequest {
    bytes32 schema;
    AttestationRequestData data;
}

struct RevocationRequestData {
    bytes32 uid;
    uint256 value;
}

struct RevocationRequest {
    bytes32 schema;
    RevocationRequestData data;
}

struct SchemaRecord {
    bytes32 uid;
    address resolver;
    bool revocable;
    string schema;
}

/// @notice The part of the attestation service's and its schema registry's ABI that Alkahest uses.
interface IEas {
    event Attested(address indexed recipient, address indexed attester, bytes32 uid, bytes32 indexed schemaUID);
    event Revoked(address indexed recipient, address indexed attester, bytes32 uid, bytes32 indexed schemaUID);

    function attest(AttestationRequest calldata request) external payable returns (bytes32 uid);
    function revoke(RevocationRequest calldata request) external payable;
    function getAttestation(bytes32 uid) external view returns (Attestation memory);
    function isAttestationValid(bytes32 uid) external view returns (bool);
    function getSchemaRegistry() external view returns (address);

    function register(string calldata schema, address resolver, bool revocable) external returns (bytes32 uid);
    function getSchema(bytes32 uid) external view returns (SchemaRecord memory);
}

/// @notice What a schema asks before an attestation of it is made or revoked.
interface ISchemaResolver {
    function attest(Attestation calldata attestation) external payable returns (bool);
    function revoke(Attestation calldata attestation) external payable returns (bool);
}

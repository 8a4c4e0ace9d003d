// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Checkpoints of transparency logs
/// @notice A log's publisher writes down how long its log is and what its Merkle root is (RFC 6962, SHA-256), so that
/// it cannot show one history to some and another one to others. The log key's signature (Ed25519) is checked off chain.
/// @dev Anyone can publish anything under its own address: a checkpoint says something only to who knows the publisher.
interface ICheckpointRegistry {
    /// @notice A log as it was.
    struct Checkpoint {
        /// Leaves.
        uint64 treeSize;
        /// Unix seconds of the block that it came in.
        uint64 publishedAt;
        bytes32 root;
    }

    error NoOrigin();
    error EmptyTree();
    /// @notice A log only grows.
    error ShrunkTree(uint64 treeSize, uint64 latestSize);
    /// @notice The log was published with this size and another root.
    error ForkedTree(uint64 treeSize, bytes32 root, bytes32 latestRoot);
    error NoCheckpoint(address publisher, string origin, uint256 index);

    /// @param originHash `keccak256` of the origin's bytes.
    event CheckpointPublished(
        address indexed publisher, bytes32 indexed originHash, uint64 indexed treeSize, bytes32 root, string origin
    );

    /// @notice Publishes the caller's next checkpoint. The newest one again changes nothing.
    /// @param origin The log's name as in its signed checkpoints.
    function publish(string calldata origin, uint64 treeSize, bytes32 root) external;

    /// @notice The newest checkpoint.
    function latest(address publisher, string calldata origin) external view returns (Checkpoint memory);

    /// @notice A checkpoint by its number, from 0, oldest first.
    function checkpointAt(address publisher, string calldata origin, uint256 index)
        external
        view
        returns (Checkpoint memory);

    /// @notice How many there are.
    function count(address publisher, string calldata origin) external view returns (uint256);
}

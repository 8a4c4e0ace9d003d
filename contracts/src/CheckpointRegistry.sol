// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ICheckpointRegistry} from "./ICheckpointRegistry.sol";

/// @title Checkpoints of transparency logs, see ICheckpointRegistry
/// @dev No owner, no money.
contract CheckpointRegistry is ICheckpointRegistry {
    mapping(address publisher => mapping(bytes32 originHash => Checkpoint[])) private _checkpoints;

    /// @inheritdoc ICheckpointRegistry
    function publish(string calldata origin, uint64 treeSize, bytes32 root) external {
        if (bytes(origin).length == 0) revert NoOrigin();
        if (treeSize == 0) revert EmptyTree();
        bytes32 originHash = keccak256(bytes(origin));
        Checkpoint[] storage list = _checkpoints[msg.sender][originHash];
        if (list.length > 0) {
            Checkpoint storage last = list[list.length - 1];
            if (treeSize < last.treeSize) revert ShrunkTree(treeSize, last.treeSize);
            if (treeSize == last.treeSize) {
                if (root != last.root) revert ForkedTree(treeSize, root, last.root);
                return;
            }
        }
        list.push(Checkpoint(treeSize, uint64(block.timestamp), root));
        emit CheckpointPublished(msg.sender, originHash, treeSize, root, origin);
    }

    /// @inheritdoc ICheckpointRegistry
    function latest(address publisher, string calldata origin) external view returns (Checkpoint memory) {
        Checkpoint[] storage list = _of(publisher, origin);
        if (list.length == 0) revert NoCheckpoint(publisher, origin, 0);
        return list[list.length - 1];
    }

    /// @inheritdoc ICheckpointRegistry
    function checkpointAt(address publisher, string calldata origin, uint256 index)
        external
        view
        returns (Checkpoint memory)
    {
        Checkpoint[] storage list = _of(publisher, origin);
        if (index >= list.length) revert NoCheckpoint(publisher, origin, index);
        return list[index];
    }

    /// @inheritdoc ICheckpointRegistry
    function count(address publisher, string calldata origin) external view returns (uint256) {
        return _of(publisher, origin).length;
    }

    function _of(address publisher, string calldata origin) private view returns (Checkpoint[] storage) {
        return _checkpoints[publisher][keccak256(bytes(origin))];
    }
}

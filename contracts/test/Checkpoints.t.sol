// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Cheats, Vm} from "./Cheats.sol";
import {CheckpointRegistry} from "../src/CheckpointRegistry.sol";
import {ICheckpointRegistry} from "../src/ICheckpointRegistry.sol";

/// @notice What a log's publisher has written down stays.
contract CheckpointsTest is Cheats {
    string private constant ORIGIN = "tribunal.example/log";
    CheckpointRegistry private checkpoints;

    function setUp() public {
        vm.warp(1_000_000);
        checkpoints = new CheckpointRegistry();
    }

    function test_publish_succeedsIfLogGrows() public {
        checkpoints.publish(ORIGIN, 5, keccak256("five"));
        vm.warp(1_000_060);
        vm.recordLogs();
        checkpoints.publish(ORIGIN, 9, keccak256("nine"));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 1, "one event");
        assertTrue(logs[0].topics[0] == ICheckpointRegistry.CheckpointPublished.selector, "its name");
        assertTrue(logs[0].topics[1] == bytes32(uint256(uint160(address(this)))), "publisher");
        assertTrue(logs[0].topics[2] == keccak256(bytes(ORIGIN)), "origin");
        assertEq(uint256(logs[0].topics[3]), 9, "size");
        assertSame(logs[0].data, abi.encode(keccak256("nine"), ORIGIN), "root and origin");

        assertEq(checkpoints.count(address(this), ORIGIN), 2, "count");
        ICheckpointRegistry.Checkpoint memory it = checkpoints.latest(address(this), ORIGIN);
        assertSame(abi.encode(it), abi.encode(9, 1_000_060, keccak256("nine")), "latest");
        it = checkpoints.checkpointAt(address(this), ORIGIN, 0);
        assertSame(abi.encode(it), abi.encode(5, 1_000_000, keccak256("five")), "first");
    }

    function test_publish_changesNothingIfTheSameAgain() public {
        checkpoints.publish(ORIGIN, 5, keccak256("five"));
        vm.warp(2_000_000);
        vm.recordLogs();
        checkpoints.publish(ORIGIN, 5, keccak256("five"));
        assertEq(vm.getRecordedLogs().length, 0, "no event");
        assertEq(checkpoints.count(address(this), ORIGIN), 1, "count");
        assertEq(checkpoints.latest(address(this), ORIGIN).publishedAt, 1_000_000, "when it came first");
    }

    function test_publish_failsIfForked() public {
        checkpoints.publish(ORIGIN, 5, keccak256("five"));
        vm.expectRevert(
            abi.encodeWithSelector(
                ICheckpointRegistry.ForkedTree.selector, uint64(5), keccak256("another"), keccak256("five")
            )
        );
        checkpoints.publish(ORIGIN, 5, keccak256("another"));
    }

    function test_publish_failsIfShrunk() public {
        checkpoints.publish(ORIGIN, 5, keccak256("five"));
        checkpoints.publish(ORIGIN, 9, keccak256("nine"));
        vm.expectRevert(abi.encodeWithSelector(ICheckpointRegistry.ShrunkTree.selector, uint64(5), uint64(9)));
        checkpoints.publish(ORIGIN, 5, keccak256("five"));
    }

    function test_publish_failsIfEmptyOrNameless() public {
        vm.expectRevert(abi.encodeWithSelector(ICheckpointRegistry.EmptyTree.selector));
        checkpoints.publish(ORIGIN, 0, keccak256(""));
        vm.expectRevert(abi.encodeWithSelector(ICheckpointRegistry.NoOrigin.selector));
        checkpoints.publish("", 1, keccak256("one"));
    }

    function test_views_failIfThereIsNone() public {
        bytes4 none = ICheckpointRegistry.NoCheckpoint.selector;
        vm.expectRevert(abi.encodeWithSelector(none, address(this), ORIGIN, 0));
        checkpoints.latest(address(this), ORIGIN);
        checkpoints.publish(ORIGIN, 5, keccak256("five"));
        vm.expectRevert(abi.encodeWithSelector(none, address(this), ORIGIN, 1));
        checkpoints.checkpointAt(address(this), ORIGIN, 1);
    }

    /// Whatever is published: sizes grow, roots stay, and nobody touches the log of another publisher or origin.
    function testFuzz_publish_succeedsIfHistoryStays(uint256 salt) public {
        address[2] memory publishers = [address(0xa), address(0xb)];
        string[2] memory origins = [ORIGIN, "tribunal.example/log2"];
        ICheckpointRegistry.Checkpoint[][4] memory model;
        for (uint256 i = 0; i < 4; ++i) {
            model[i] = new ICheckpointRegistry.Checkpoint[](0);
        }
        for (uint256 step = 0; step < 24; ++step) {
            salt = uint256(keccak256(abi.encode(salt)));
            uint256 which = salt % 4;
            uint64 size = uint64((salt >> 8) % 12);
            bytes32 root = bytes32((salt >> 16) % 2);
            vm.prank(publishers[which % 2]);
            try checkpoints.publish(origins[which / 2], size, root) {
                model[which] = _after(model[which], size, root);
            } catch {
                assertTrue(_refuses(model[which], size, root), "refused without need");
            }
            vm.warp(block.timestamp + 1);
        }
        for (uint256 i = 0; i < 4; ++i) {
            address publisher = publishers[i % 2];
            assertEq(checkpoints.count(publisher, origins[i / 2]), model[i].length, "count");
            for (uint256 k = 0; k < model[i].length; ++k) {
                ICheckpointRegistry.Checkpoint memory it = checkpoints.checkpointAt(publisher, origins[i / 2], k);
                assertSame(abi.encode(it), abi.encode(model[i][k]), "as it was published");
            }
        }
    }

    function _refuses(ICheckpointRegistry.Checkpoint[] memory list, uint64 size, bytes32 root)
        private
        pure
        returns (bool)
    {
        if (size == 0) return true;
        if (list.length == 0) return false;
        ICheckpointRegistry.Checkpoint memory last = list[list.length - 1];
        return size < last.treeSize || (size == last.treeSize && root != last.root);
    }

    function _after(ICheckpointRegistry.Checkpoint[] memory list, uint64 size, bytes32 root)
        private
        view
        returns (ICheckpointRegistry.Checkpoint[] memory longer)
    {
        assertTrue(!_refuses(list, size, root), "taken though it must not be");
        if (list.length > 0 && list[list.length - 1].treeSize == size) return list;
        longer = new ICheckpointRegistry.Checkpoint[](list.length + 1);
        for (uint256 i = 0; i < list.length; ++i) {
            longer[i] = list[i];
        }
        longer[list.length] = ICheckpointRegistry.Checkpoint(size, uint64(block.timestamp), root);
    }
}

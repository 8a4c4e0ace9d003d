// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Cheats} from "./Cheats.sol";
import {Players} from "./Players.sol";

/// @notice What holds whatever the players do.
contract InvariantsTest is Cheats {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Players private players;

    function setUp() public {
        players = new Players();
        players.setUp();
        players.start();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(players);
    }

    function _selectors() private pure returns (bytes4[32] memory) {
        return [
            Players.open.selector,
            Players.submit.selector,
            Players.accept.selector,
            Players.dispute.selector,
            Players.reveal.selector,
            Players.settle.selector,
            Players.settleMany.selector,
            Players.timeout.selector,
            Players.callOff.selector,
            Players.cheat.selector,
            Players.takeOut.selector,
            Players.putIn.selector,
            Players.bond.selector,
            Players.startUnbond.selector,
            Players.finishUnbond.selector,
            Players.setOperator.selector,
            Players.slashSilent.selector,
            Players.equivocate.selector,
            Players.collect.selector,
            Players.pause.selector,
            Players.unpause.selector,
            Players.wait_.selector,
            Players.waitLong.selector,
            // Weighed, so that most cases come to an end, many of them in a batch.
            Players.settleMany.selector,
            Players.finishUnbond.selector,
            Players.advance.selector,
            Players.advance.selector,
            Players.advance.selector,
            Players.advance.selector,
            Players.advance.selector,
            Players.advance.selector,
            Players.advance.selector
        ];
    }

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        bytes4[32] memory all = _selectors();
        bytes4[] memory selectors = new bytes4[](all.length);
        for (uint256 i = 0; i < all.length; ++i) {
            selectors[i] = all[i];
        }
        list = new FuzzSelector[](1);
        list[0] = FuzzSelector(address(players), selectors);
    }

    /// Every base unit that is held belongs to somebody, and no more than is held; terminal stays terminal, cheats
    /// fail, bonds stay as long as they must, pauses end.
    function invariant_moneyIsConservedAndNothingIsBroken() external view {
        address token = players.currency();
        assertEq(players.owed(token), players.held(token), "tokens");
        assertEq(players.owed(address(0)), players.held(address(0)), "native coin");
        assertEq(players.owedByRegistry(), players.heldByRegistry(), "bonds");
        string memory broken = players.broken();
        if (bytes(broken).length > 0) revert NotTrue(broken);
    }

    /// Nobody's money is stuck in the state that a run ends in.
    function afterInvariant() external {
        players.everybodyOut();
    }

    /// The players do get to what these invariants are about.
    function test_players_succeedInEverything() public {
        bytes4[32] memory all = _selectors();
        uint256 salt = 1;
        for (uint256 i = 0; i < 1500; ++i) {
            salt = uint256(keccak256(abi.encode(salt)));
            bytes4 selector = all[(salt >> 128) % all.length];
            bytes memory arguments = abi.encode(
                keccak256(abi.encode(salt, 1)), (salt >> 4) % 2, (salt >> 5) % 2, (salt >> 6) % 256, (salt >> 7) % 256
            );
            if (selector == Players.advance.selector || selector == Players.equivocate.selector) {
                arguments = abi.encode(salt >> 3, salt >> 11);
            }
            (bool done, bytes memory problem) = address(players).call(bytes.concat(selector, arguments));
            if (!done) revert NotSame("a player fell", problem, bytes.concat(selector));
        }
        string memory broken = players.broken();
        if (bytes(broken).length > 0) revert NotTrue(broken);
        assertTrue(players.settled() > 50, "settled");
        assertTrue(players.settledNative() > 0, "settled in native coin");
        assertTrue(players.settledInBatch() > 0, "settled in a batch");
        assertTrue(players.refusedInBatch() > 0, "refused in a batch");
        assertTrue(players.pausedAway() > 0, "deposits refused by a pause");
        assertTrue(players.steppedWhilePaused() > 0, "steps while paused");
        assertTrue(players.unbonded() > 0, "unbonded");
        assertTrue(players.slashes() > 0, "slashed");
        assertTrue(players.equivocations() > 0, "equivocated");
        players.everybodyOut();
    }
}

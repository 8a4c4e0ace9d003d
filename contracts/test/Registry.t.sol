// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Fixture} from "./Fixture.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";

/// @notice Bonds, and what takes them.
contract RegistryTest is Fixture {
    address internal mediator;

    function setUp() public override {
        super.setUp();
        mediator = vm.addr(keys[0]);
        _bond(mediator, 1003);
    }

    function test_finishUnbond_succeedsIfDelayHasPassed() public {
        vm.startPrank(mediator);
        registry.startUnbond(400);
        vm.warp(block.timestamp + UNBOND_DELAY);
        registry.finishUnbond();
        vm.stopPrank();
        assertEq(token.balanceOf(mediator), 400, "paid");
        assertEq(registry.bondOf(mediator).active, 603, "left");
    }

    function test_finishUnbond_failsIfEarly() public {
        vm.startPrank(mediator);
        registry.startUnbond(400);
        vm.warp(block.timestamp + UNBOND_DELAY - 1);
        vm.expectPartialRevert(IMediatorRegistry.StillUnbonding.selector);
        registry.finishUnbond();
        vm.stopPrank();
    }

    function test_startUnbond_failsIfMoreThanThere() public {
        vm.prank(mediator);
        vm.expectPartialRevert(IMediatorRegistry.BondTooSmall.selector);
        registry.startUnbond(1004);
    }

    function test_slash_failsIfNotByEscrow() public {
        vm.expectPartialRevert(IMediatorRegistry.NotEscrow.selector);
        registry.slash(mediator, 1);
    }

    function test_slashEquivocation_succeedsIfTwoVerdictsInOneRoundAlsoWhileUnbonding() public {
        vm.prank(mediator);
        registry.startUnbond(1000);
        registry.slashEquivocation(_termsHash(), _vote(keys[0], 0, 1), _vote(keys[0], 0, 2), 0);
        assertEq(registry.owedTo(address(this)), 100, "a tenth, rounded down");
        assertEq(registry.owedTo(BOND_TREASURY), 903, "the rest");
        assertTrue(registry.isTombstoned(mediator), "tombstoned");
        registry.collect();
        assertEq(token.balanceOf(address(this)), 100, "collected");
        vm.prank(mediator);
        vm.expectPartialRevert(IMediatorRegistry.NothingToMove.selector);
        registry.finishUnbond();
        vm.prank(mediator);
        vm.expectRevert(abi.encodeWithSelector(IMediatorRegistry.Tombstoned.selector, mediator));
        registry.bond(1);
    }

    function test_slashEquivocation_failsIfSameVerdictTwice() public {
        ITribunalEscrow.Vote memory vote = _vote(keys[0], 0, 1);
        bytes32 termsHash = _termsHash();
        vm.expectPartialRevert(IMediatorRegistry.NoEquivocation.selector);
        registry.slashEquivocation(termsHash, vote, vote, 0);
    }

    function test_slashEquivocation_failsIfRoundsDiffer() public {
        ITribunalEscrow.Vote memory a = _vote(keys[0], 0, 1);
        ITribunalEscrow.Vote memory b = _vote(keys[0], 1, 2);
        bytes32 termsHash = _termsHash();
        vm.expectRevert(abi.encodeWithSelector(IMediatorRegistry.BadSignature.selector, mediator));
        registry.slashEquivocation(termsHash, a, b, 0);
    }

    function test_slashEquivocation_failsIfMediatorsDiffer() public {
        ITribunalEscrow.Vote memory a = _vote(keys[0], 0, 1);
        ITribunalEscrow.Vote memory b = _vote(keys[1], 0, 2);
        bytes32 termsHash = _termsHash();
        vm.expectPartialRevert(IMediatorRegistry.NoEquivocation.selector);
        registry.slashEquivocation(termsHash, a, b, 0);
    }

    function test_slashEquivocation_failsIfTwice() public {
        ITribunalEscrow.Vote memory a = _vote(keys[0], 0, 1);
        ITribunalEscrow.Vote memory b = _vote(keys[0], 0, 2);
        bytes32 termsHash = _termsHash();
        registry.slashEquivocation(termsHash, a, b, 0);
        vm.expectRevert(abi.encodeWithSelector(IMediatorRegistry.Tombstoned.selector, mediator));
        registry.slashEquivocation(termsHash, a, b, 0);
    }

    function test_slashSilent_succeedsOnceARoundIfOperatorWasAllowed() public {
        _bond(vm.addr(keys[1]), 1000);
        vm.prank(vm.addr(keys[1]));
        registry.setOperator(mediation.operator, false);
        _toDrawn();
        address[] memory silent = new address[](2);
        (silent[0], silent[1]) = (mediator, vm.addr(keys[1]));
        escrow.slashSilent(terms, mediation, 0, silent, _silence(OPERATOR, 0, silent));
        escrow.slashSilent(terms, mediation, 0, silent, _silence(OPERATOR, 0, silent));
        assertEq(registry.bondOf(mediator).active, 963, "once");
        assertEq(registry.bondOf(silent[1]).active, 1000, "never agreed");
        escrow.slashSilent(terms, mediation, 1, silent, _silence(OPERATOR, 1, silent));
        assertEq(registry.bondOf(mediator).active, 923, "once more in the next round");
        assertEq(registry.owedTo(BOND_TREASURY), 80, "treasury");
    }

    function test_slashSilent_succeedsIfBondIsSmallerThanSlash() public {
        vm.prank(mediator);
        registry.startUnbond(990);
        vm.warp(block.timestamp + UNBOND_DELAY);
        timeouts.agreeBy = uint64(block.timestamp);
        _bindHashes();
        vm.prank(mediator);
        registry.finishUnbond();
        _toDrawn();
        escrow.slashSilent(terms, mediation, 0, _one(mediator), _silence(OPERATOR, 0, _one(mediator)));
        assertEq(registry.bondOf(mediator).active, 0, "all there was");
        assertEq(registry.owedTo(BOND_TREASURY), 13, "treasury");
    }

    function test_slashSilent_failsIfNotSignedByOperator() public {
        _toDrawn();
        bytes memory forged = _silence(CLIENT, 0, _one(mediator));
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.BadSignature.selector, mediation.operator));
        escrow.slashSilent(terms, mediation, 0, _one(mediator), forged);
    }

    function test_slashSilent_failsIfNoMediatorOfTheTerms() public {
        _toDrawn();
        bytes memory signature = _silence(OPERATOR, 0, _one(terms.client));
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.NotMediator.selector, terms.client));
        escrow.slashSilent(terms, mediation, 0, _one(terms.client), signature);
    }

    function test_slashSilent_succeedsIfAppointedButNotTwice() public {
        _appoint();
        _toDisputed();
        bytes memory signature = _silence(OPERATOR, 1, _one(mediator));
        escrow.slashSilent(terms, mediation, 1, _one(mediator), signature);
        vm.warp(block.timestamp + 71);
        escrow.timeoutMediate(terms, timeouts, mediation);
        assertEq(registry.bondOf(mediator).active, 963, "once");
    }

    function test_slashSilent_failsIfNothingIsDisputed() public {
        _toSubmitted();
        bytes memory signature = _silence(OPERATOR, 0, _one(mediator));
        vm.expectPartialRevert(ITribunalEscrow.WrongState.selector);
        escrow.slashSilent(terms, mediation, 0, _one(mediator), signature);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Fixture} from "./Fixture.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {MediatorRegistry} from "../src/MediatorRegistry.sol";
import {TribunalEscrow} from "../src/TribunalEscrow.sol";

/// @notice The guardian stops what is new, for a while, and nothing else.
contract PauseTest is Fixture {
    function _pause(uint64 duration) private {
        vm.prank(GUARDIAN);
        escrow.pause(duration);
    }

    function _expectPaused() private {
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.Paused.selector, uint256(escrow.pausedUntil())));
    }

    // What stops

    function test_open_failsIfPausedUntilItEnds() public {
        ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
        ITribunalEscrow.Consent memory provider = _consent(PROVIDER, PROVIDER_SEED);
        _pause(60);
        vm.warp(block.timestamp + 59);
        _expectPaused();
        escrow.open(terms, timeouts, mediation, client, provider);
        vm.warp(block.timestamp + 1);
        escrow.open(terms, timeouts, mediation, client, provider);
    }

    function test_deposits_failIfPausedUntilItEnds() public {
        _pause(7 days);
        address mediator = mediation.mediators[0];
        token.mint(mediator, 30);
        vm.deal(mediator, 10);
        vm.startPrank(mediator);
        token.approve(address(escrow), 10);
        token.approve(address(registry), 10);
        vm.warp(block.timestamp + 7 days - 1);
        _expectPaused();
        escrow.deposit(address(token), 10);
        _expectPaused();
        escrow.depositNative{value: 10}();
        _expectPaused();
        registry.bond(10);
        vm.warp(block.timestamp + 1);
        escrow.deposit(address(token), 10);
        escrow.depositNative{value: 10}();
        registry.bond(10);
        vm.stopPrank();
    }

    // What goes on

    function test_pause_succeedsAndEveryStepOfOpenedCasesGoesOn() public {
        _bond(mediation.mediators[0], 1000);
        for (uint256 i = 0; i < 5; ++i) {
            terms.dealId = bytes32(i);
            _fund(terms.client, 2000);
            _fund(terms.provider, 3000);
            _open();
        }
        _pause(7 days);
        // Accepted, judged singly and in a batch, called off.
        for (uint256 i = 0; i < 3; ++i) {
            terms.dealId = bytes32(i);
            _submit();
            if (i == 0) {
                _accept();
                continue;
            }
            _dispute();
            _reveal(1);
            _reveal(2);
        }
        terms.dealId = bytes32(uint256(1));
        address[] memory silent = _one(mediation.mediators[0]);
        escrow.slashSilent(terms, mediation, 0, silent, _silence(OPERATOR, 0, silent));
        _settle(1, ITribunalEscrow.Outcome.Invalid, _verdicts(2, 2));
        terms.dealId = bytes32(uint256(2));
        bytes[] memory rulings = new bytes[](1);
        rulings[0] = _ruling(_panel(1), ITribunalEscrow.Outcome.Valid, _votes(1, _verdicts(1, 1)));
        assertTrue(escrow.settleVerdicts(mediation, rulings, 300_000)[0], "batch");
        terms.dealId = bytes32(uint256(3));
        escrow.withdrawCase(terms, _move(CLIENT, 6, 0, 0), _move(PROVIDER, 6, 0, 0));
        terms.dealId = bytes32(uint256(4));
        vm.warp(block.timestamp + 101);
        escrow.timeoutSubmit(terms, timeouts);

        for (uint256 i = 0; i < 5; ++i) {
            terms.dealId = bytes32(i);
            assertTrue(_state() == ITribunalEscrow.State.Settled, vm.toString(i));
        }
        _everybodyOut();
        assertTrue(block.timestamp < escrow.pausedUntil(), "paused all the time");
    }

    function test_pause_succeedsAndEveryTimeoutGoesOn() public {
        bytes32[4] memory ids = [bytes32("judge"), "draw", "mediate", "appointed"];
        uint256[4] memory waits = [uint256(51), 21, 91, 71];
        for (uint256 i = 0; i < 4; ++i) {
            terms.dealId = ids[i];
            _fund(terms.client, 2000);
            _fund(terms.provider, 3000);
            if (i == 3) _appoint();
            if (i == 0) _toSubmitted();
            if (i == 1) _toDisputed();
            if (i == 2) _toDrawn();
            if (i == 3) _toDisputed();
            uint256 before = vm.snapshotState();
            _pause(7 days);
            vm.warp(block.timestamp + waits[i]);
            if (i == 0) escrow.timeoutJudge(terms, timeouts);
            if (i == 1) escrow.timeoutDraw(terms, timeouts, mediation);
            if (i >= 2) escrow.timeoutMediate(terms, timeouts, mediation);
            assertTrue(_state() == ITribunalEscrow.State.Settled, "settled");
            vm.revertToState(before);
        }
    }

    function test_pause_succeedsAndBondsComeOut() public {
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        vm.prank(mediator);
        registry.startUnbond(400);
        vm.warp(block.timestamp + UNBOND_DELAY);
        _pause(7 days);
        vm.startPrank(mediator);
        registry.finishUnbond();
        registry.setOperator(mediation.operator, false);
        registry.startUnbond(600);
        vm.stopPrank();
        assertEq(token.balanceOf(mediator), 400, "paid");
        registry.slashEquivocation(_termsHash(), _vote(keys[0], 0, 1), _vote(keys[0], 0, 2), 0);
        registry.collect();
        assertEq(token.balanceOf(address(this)), 60, "finder");
    }

    function _everybodyOut() private {
        address[3] memory all = [terms.client, terms.provider, DEAL_TREASURY];
        for (uint256 i = 0; i < 8; ++i) {
            address account = i < 3 ? all[i] : mediation.mediators[i - 3];
            uint256 balance = _balance(account);
            if (balance == 0) continue;
            vm.prank(account);
            escrow.withdraw(address(token), balance);
        }
        assertEq(token.balanceOf(address(escrow)), 0, "nothing is left");
    }

    // What the guardian cannot

    function test_pause_failsIfNotByGuardian() public {
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.NotGuardian.selector, address(this)));
        escrow.pause(60);
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.NotGuardian.selector, address(this)));
        escrow.unpause();
    }

    function test_pause_failsIfTooLong() public {
        vm.prank(GUARDIAN);
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.PauseTooLong.selector, 7 days + 1, 7 days));
        escrow.pause(7 days + 1);
    }

    function test_pause_failsIfSoonAfterTheLast() public {
        _pause(7 days);
        uint256 next = block.timestamp + 37 days;
        assertEq(escrow.nextPauseAt(), next, "next");
        uint256[4] memory times = [block.timestamp, block.timestamp + 1, block.timestamp + 7 days, next - 1];
        for (uint256 i = 0; i < 4; ++i) {
            vm.warp(times[i]);
            vm.prank(GUARDIAN);
            vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.PauseTooSoon.selector, next, times[i]));
            escrow.pause(1);
        }
        vm.warp(next);
        _pause(7 days);
    }

    function test_unpause_succeedsButDoesNotBringTheNextPauseNearer() public {
        _pause(7 days);
        uint64 next = escrow.nextPauseAt();
        vm.warp(block.timestamp + 100);
        vm.prank(GUARDIAN);
        escrow.unpause();
        timeouts.agreeBy = uint64(block.timestamp);
        _bindHashes();
        _open();
        assertEq(escrow.nextPauseAt(), next, "next");
        vm.prank(GUARDIAN);
        vm.expectPartialRevert(ITribunalEscrow.PauseTooSoon.selector);
        escrow.pause(1);
    }

    function test_pause_failsForEverybodyIfThereIsNoGuardian() public {
        address predicted = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        MediatorRegistry without = new MediatorRegistry(token, predicted, BOND_TREASURY, UNBOND_DELAY);
        TribunalEscrow free = new TribunalEscrow(IMediatorRegistry(address(without)), address(0));
        assertTrue(free.guardian() == address(0), "nobody");
        address[3] memory callers = [GUARDIAN, address(this), terms.client];
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(callers[i]);
            vm.expectPartialRevert(ITribunalEscrow.NotGuardian.selector);
            free.pause(1);
        }
    }
}

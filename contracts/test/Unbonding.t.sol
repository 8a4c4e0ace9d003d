// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Fixture} from "./Fixture.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";
import {MediatorRegistry} from "../src/MediatorRegistry.sol";

/// @notice What was bonded when a case opened can be slashed until the day after its last round.
contract UnbondingTest is Fixture {
    /// submit, judge, draw and two rounds, then a day.
    uint64 internal constant NEEDED = 100 + 50 + 20 + 2 * (5 + 30) + 1 days;

    function _refusedEarly(uint256 needed, uint256 delay) private {
        ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
        ITribunalEscrow.Consent memory provider = _consent(PROVIDER, PROVIDER_SEED);
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.BondsLeaveEarly.selector, needed, delay));
        escrow.open(terms, timeouts, mediation, client, provider);
    }

    function test_open_succeedsIfBondsStayLongEnough() public {
        _redeploy(NEEDED);
        _open();
    }

    function test_open_failsIfBondsLeaveEarly() public {
        _redeploy(NEEDED - 1);
        _refusedEarly(NEEDED, NEEDED - 1);
    }

    function test_open_failsIfBondsLeaveEarlyAndMediatorIsAppointed() public {
        _redeploy(NEEDED - 20 - 1);
        _appoint();
        _refusedEarly(NEEDED - 20, NEEDED - 20 - 1);
    }

    function test_open_succeedsIfTermsDoNotRelyOnBonds() public {
        _redeploy(0);
        mediation.silenceSlash = 0;
        _bindHashes();
        _open();
    }

    function test_open_failsIfAnyTimeoutHasNoEnd() public {
        mediation.silenceSlash = 0;
        uint64 tooLong = 10 * 366 days + 1;
        ITribunalEscrow.Timeouts memory good = timeouts;
        for (uint256 i = 0; i < 5; ++i) {
            timeouts = good;
            if (i == 0) timeouts.submit = tooLong;
            if (i == 1) timeouts.judge = tooLong;
            if (i == 2) timeouts.draw = tooLong;
            if (i == 3) timeouts.availability = tooLong;
            if (i == 4) timeouts.mediate = tooLong;
            _bindHashes();
            ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
            ITribunalEscrow.Consent memory provider = _consent(PROVIDER, PROVIDER_SEED);
            vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.InvalidTerms.selector, bytes32("timeouts")));
            escrow.open(terms, timeouts, mediation, client, provider);
        }
        timeouts = good;
        timeouts.submit = tooLong - 1;
        _bindHashes();
        _open();
    }

    /// Whatever the timeouts: a mediator that runs as the case opens is still there until a day after the last round.
    function testFuzz_slashSilent_succeedsIfMediatorRanAtOpening(uint256 salt, uint8 redraws) public {
        mediation.redraws = redraws % 4;
        timeouts.submit = _any(salt, 1);
        timeouts.judge = _any(salt, 2);
        timeouts.draw = _any(salt, 3);
        timeouts.availability = _any(salt, 4);
        timeouts.mediate = _any(salt, 5);
        uint256 rounds = timeouts.draw + (uint256(mediation.redraws) + 1) * (timeouts.availability + timeouts.mediate);
        // Not a second longer than it must be.
        _redeploy(timeouts.submit + timeouts.judge + uint64(rounds) + 1 days);
        _bindHashes();
        address mediator = mediation.mediators[1];
        _bond(mediator, 1000);
        _open();
        vm.prank(mediator);
        registry.startUnbond(1000);

        // Everybody takes all the time there is.
        vm.warp(block.timestamp + timeouts.submit);
        _submit();
        vm.warp(block.timestamp + timeouts.judge);
        _dispute();
        _reveal(1);
        _reveal(2);
        vm.warp(block.timestamp + rounds + 1 days - 1);
        vm.prank(mediator);
        vm.expectPartialRevert(IMediatorRegistry.StillUnbonding.selector);
        registry.finishUnbond();
        uint32 last = mediation.redraws;
        escrow.slashSilent(terms, mediation, last, _one(mediator), _silence(OPERATOR, last, _one(mediator)));
        assertEq(registry.owedTo(BOND_TREASURY), 40, "slashed");
        escrow.timeoutMediate(terms, timeouts, mediation);
    }

    function _any(uint256 salt, uint256 which) private pure returns (uint64) {
        return uint64(bound(uint256(keccak256(abi.encode(salt, which))), 1, 43_200));
    }

    // Taking back one's word

    function test_slashSilent_succeedsIfOperatorWasRefusedAfterOpening() public {
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        _toDrawn();
        _later(1);
        vm.prank(mediator);
        registry.setOperator(mediation.operator, false);
        assertTrue(!registry.isOperator(mediator, mediation.operator), "refused from now on");
        escrow.slashSilent(terms, mediation, 0, _one(mediator), _silence(OPERATOR, 0, _one(mediator)));
        assertEq(registry.bondOf(mediator).active, 960, "slashed");
    }

    function test_slashSilent_takesNothingIfOperatorWasRefusedBeforeOpening() public {
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        _later(1);
        vm.prank(mediator);
        registry.setOperator(mediation.operator, false);
        _later(1);
        _toDrawn();
        escrow.slashSilent(terms, mediation, 0, _one(mediator), _silence(OPERATOR, 0, _one(mediator)));
        assertEq(registry.bondOf(mediator).active, 1000, "not slashed");
    }

    function test_slashSilent_succeedsIfOperatorWasAllowedAfterOpening() public {
        _toDrawn();
        _later(1);
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        escrow.slashSilent(terms, mediation, 0, _one(mediator), _silence(OPERATOR, 0, _one(mediator)));
        assertEq(registry.bondOf(mediator).active, 960, "slashed");
    }

    function test_timeoutMediate_slashesWhatWasStakedAtOpening() public {
        _appoint();
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        _later(1);
        vm.prank(mediator);
        registry.setAppointmentSlashMax(25);
        _toDisputed();
        _later(1);
        vm.prank(mediator);
        registry.setAppointmentSlashMax(0);
        assertEq(registry.bondOf(mediator).appointmentSlashMax, 0, "nothing from now on");
        _later(71);
        escrow.timeoutMediate(terms, timeouts, mediation);
        assertEq(registry.bondOf(mediator).active, 975, "what it was at opening");
    }

    function test_tookWord_knowsEveryTime() public {
        address mediator = mediation.mediators[0];
        address operator = mediation.operator;
        vm.startPrank(mediator);
        for (uint256 i = 0; i < 20; ++i) {
            registry.setOperator(operator, i % 2 == 0);
            registry.setAppointmentSlashMax(100 - i);
            _later(10);
        }
        vm.stopPrank();
        assertTrue(!registry.tookWord(mediator, operator, 999_999), "never before");
        assertEq(registry.appointmentStake(mediator, 999_999), 81, "the newest counts");
        for (uint256 i = 0; i < 20; ++i) {
            assertTrue(registry.tookWord(mediator, operator, 1_000_000 + 10 * i) == (i % 2 == 0), "at its time");
            assertTrue(registry.tookWord(mediator, operator, 1_000_009 + 10 * i) == (i % 2 == 0), "until the next");
            assertEq(registry.appointmentStake(mediator, 1_000_009 + 10 * i), 100 - i, "stake");
        }
    }

    // Equivocation has no time limit

    function test_slashEquivocation_succeedsYearsLaterAndTakesALaterBond() public {
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        ITribunalEscrow.Vote memory a = _vote(keys[0], 0, 1);
        ITribunalEscrow.Vote memory b = _vote(keys[0], 0, 2);
        vm.prank(mediator);
        registry.startUnbond(1000);
        _later(UNBOND_DELAY);
        vm.prank(mediator);
        registry.finishUnbond();
        _later(3650 days);
        _bond(mediator, 300);
        registry.slashEquivocation(_termsHash(), a, b, 0);
        assertEq(token.balanceOf(mediator), 1000, "what has left is safe");
        assertEq(registry.owedTo(address(this)), 30, "finder");
        assertEq(registry.owedTo(BOND_TREASURY), 270, "treasury");
    }

    // Deployment

    function test_deploy_failsIfDelayHasNoEnd() public {
        vm.expectPartialRevert(IMediatorRegistry.UnbondDelayTooLong.selector);
        new MediatorRegistry(token, address(escrow), BOND_TREASURY, 10 * 366 days + 1);
    }

    function test_deploy_failsIfSlashesWouldGoNowhere() public {
        vm.expectRevert(abi.encodeWithSelector(IMediatorRegistry.NoTreasury.selector));
        new MediatorRegistry(token, address(escrow), address(0), UNBOND_DELAY);
    }

    function _later(uint256 s) private {
        vm.warp(block.timestamp + s);
    }
}

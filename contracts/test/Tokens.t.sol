// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Fixture} from "./Fixture.sol";
import {BlockingToken, CallingToken, Closed, FalseToken, IMintable, SilentToken, Thief, TollToken} from "./Tokens.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {MediatorRegistry} from "../src/MediatorRegistry.sol";
import {TestToken} from "../src/TestToken.sol";
import {TribunalEscrow} from "../src/TribunalEscrow.sol";

/// @notice Money of every kind, through whole lives.
contract TokensTest is Fixture {
    /// The deal's money is this now, and both parties have 10,000 of it.
    function _use(address money) private {
        terms.token = money;
        address[2] memory parties = [terms.client, terms.provider];
        for (uint256 i = 0; i < 2; ++i) {
            vm.startPrank(parties[i]);
            if (money == address(0)) {
                vm.deal(parties[i], 10_000);
                escrow.depositNative{value: 10_000}();
            } else {
                // Of 10,101 with a toll of a hundredth 10,000 arrive.
                uint256 amount = address(money).code.length > 0 && _tolls(money) ? 10_101 : 10_000;
                IMintable(money).mint(parties[i], amount);
                IMintable(money).approve(address(escrow), amount);
                escrow.deposit(money, amount);
            }
            vm.stopPrank();
        }
    }

    function _tolls(address money) private view returns (bool) {
        return money.codehash == _tollHash;
    }

    bytes32 private _tollHash = address(new TollToken()).codehash;

    function _held() private view returns (uint256) {
        return terms.token == address(0) ? address(escrow).balance : IMintable(terms.token).balanceOf(address(escrow));
    }

    /// One way for a deal to end, with what it is to pay.
    function _live(uint256 path) private {
        if (path == 0) {
            _toSubmitted();
            _accept();
            _assertNet(-903, 873, 0, 30);
        } else if (path == 1) {
            _toDrawn();
            _settle(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
            _assertNet(-903 - 103, 873, 102, 31);
        } else if (path == 2) {
            _toDrawn();
            _settle(1, ITribunalEscrow.Outcome.Invalid, _verdicts(2, 1, 2));
            _assertNet(666, -2001 - 103, 102, 2001 - 666 + 1);
        } else if (path == 3) {
            _toDrawn();
            _settle(1, ITribunalEscrow.Outcome.Inconclusive, _verdicts(1, 2, 3));
            _assertNet(-25, -25, 48, 2);
        } else if (path == 4) {
            _open();
            vm.warp(block.timestamp + 101);
            escrow.timeoutSubmit(terms, timeouts);
            _assertNet(51, -51, 0, 0);
        } else if (path == 5) {
            _toSubmitted();
            vm.warp(block.timestamp + 51);
            escrow.timeoutJudge(terms, timeouts);
            _assertNet(-903 - 31, 873 + 31, 0, 30);
        } else if (path == 6) {
            _toDisputed();
            _reveal(2);
            vm.warp(block.timestamp + 21);
            escrow.timeoutDraw(terms, timeouts, mediation);
            _assertNet(-903, 873, 0, 30);
        } else if (path == 7) {
            _toDisputed();
            _reveal(1);
            vm.warp(block.timestamp + 21);
            escrow.timeoutDraw(terms, timeouts, mediation);
            _assertNet(666, -2001 - 103, 0, 2001 - 666 + 103);
        } else if (path == 8) {
            _toDrawn();
            vm.warp(block.timestamp + 91);
            escrow.timeoutMediate(terms, timeouts, mediation);
            _assertNet(0, 0, 0, 0);
        } else if (path == 9) {
            _toDrawn();
            escrow.withdrawCase(terms, _move(CLIENT, 6, 0, 0), _move(PROVIDER, 6, 0, 0));
            _assertNet(0, 0, 0, 0);
        } else {
            _toDrawn();
            bytes[] memory rulings = new bytes[](1);
            rulings[0] = _ruling(_panel(0), ITribunalEscrow.Outcome.Valid, _votes(0, _verdicts(1, 1)));
            escrow.settleVerdicts(mediation, rulings, 400_000);
            _assertNet(-903 - 103, 873, 102, 31);
        }
    }

    function _everybodyOut() private {
        for (uint256 i = 0; i < 8; ++i) {
            address account = i == 0 ? terms.client : i == 1 ? terms.provider : DEAL_TREASURY;
            if (i > 2) account = mediation.mediators[i - 3];
            uint256 balance = _balance(account);
            if (balance == 0) continue;
            uint256 before = _own(account);
            vm.prank(account);
            escrow.withdraw(terms.token, balance);
            uint256 toll = terms.token != address(0) && _tolls(terms.token) ? balance / 100 : 0;
            assertEq(_own(account) - before, balance - toll, "paid");
        }
        assertEq(_held(), 0, "nothing is left");
    }

    function _own(address account) private view returns (uint256) {
        return terms.token == address(0) ? account.balance : IMintable(terms.token).balanceOf(account);
    }

    function _everyLife(address money) private {
        _use(money);
        assertEq(_held(), 20_000, "what arrived");
        for (uint256 path = 0; path < 11; ++path) {
            uint256 before = vm.snapshotState();
            _live(path);
            assertEq(_held(), 20_000, "held");
            _everybodyOut();
            vm.revertToState(before);
        }
    }

    function test_everyOutcome_succeedsInNativeCoin() public {
        _everyLife(address(0));
    }

    function test_everyOutcome_succeedsIfTokenKeepsAToll() public {
        _everyLife(address(new TollToken()));
    }

    function test_everyOutcome_succeedsIfTokenReturnsNothing() public {
        _everyLife(address(new SilentToken()));
    }

    function test_everyOutcome_succeedsIfTokenCallsBack() public {
        _everyLife(address(new CallingToken()));
    }

    /// A deal in one currency touches no other.
    function test_currencies_doNotMix() public {
        _use(address(0));
        _live(2);
        terms.token = address(token);
        _assertNet(0, 0, 0, 0);
    }

    function test_deposit_failsIfTokenSaysNo() public {
        FalseToken money = new FalseToken();
        money.mint(address(this), 100);
        money.approve(address(escrow), 100);
        money.refuse(true);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(money)));
        escrow.deposit(address(money), 100);
        assertEq(escrow.balanceOf(address(money), address(this)), 0, "nothing credited");
        money.refuse(false);
        escrow.deposit(address(money), 100);
        money.refuse(true);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(money)));
        escrow.withdraw(address(money), 100);
        assertEq(escrow.balanceOf(address(money), address(this)), 100, "nothing taken");
        money.refuse(false);
        escrow.withdraw(address(money), 100);
        assertEq(money.balanceOf(address(this)), 100, "back");
    }

    function test_deposit_failsIfTokenIsNoContract() public {
        vm.expectRevert();
        escrow.deposit(address(0x123456), 100);
        vm.expectRevert();
        escrow.deposit(address(0), 100);
    }

    // One party that cannot be paid

    function test_withdraw_succeedsForOthersIfTokenBlocksOne() public {
        BlockingToken money = new BlockingToken();
        _use(address(money));
        money.blockOff(terms.provider);
        _live(1);
        vm.prank(terms.provider);
        vm.expectRevert(abi.encodeWithSelector(BlockingToken.Blocked.selector, terms.provider));
        escrow.withdraw(address(money), 1);
        assertEq(_balance(terms.provider), 10_873, "still its own");
        address[3] memory others = [terms.client, DEAL_TREASURY, mediation.mediators[0]];
        for (uint256 i = 0; i < 3; ++i) {
            uint256 balance = _balance(others[i]);
            vm.prank(others[i]);
            escrow.withdraw(address(money), balance);
            assertEq(money.balanceOf(others[i]), balance, "paid");
        }
        money.blockOff(address(0));
        _everybodyOut();
    }

    function test_withdraw_succeedsForOthersIfOneTakesNoNativeCoin() public {
        _use(address(0));
        _live(1);
        vm.etch(terms.provider, address(new Closed()).code);
        vm.prank(terms.provider);
        vm.expectRevert();
        escrow.withdraw(address(0), 10_873);
        vm.prank(terms.client);
        escrow.withdraw(address(0), 10_000 - 903 - 103);
        assertEq(_balance(terms.provider), 10_873, "still its own");
        vm.etch(terms.provider, "");
        _everybodyOut();
    }

    // Calls in the middle

    /// Everything that moves money out or counts what comes in.
    function _plan(Thief thief, address money) private {
        thief.plan(address(escrow), abi.encodeCall(escrow.withdraw, (money, 50)));
        thief.plan(address(escrow), abi.encodeCall(escrow.withdraw, (address(0), 50)));
        thief.plan(address(escrow), abi.encodeCall(escrow.deposit, (money, 50)));
    }

    function test_withdraw_paysOnceIfNativeReceiverCallsAgain() public {
        vm.deal(address(this), 300);
        escrow.depositNative{value: 200}();
        Thief thief = new Thief();
        _plan(thief, address(token));
        vm.deal(address(thief), 100);
        assertTrue(thief.run(address(escrow), 100, abi.encodeCall(escrow.depositNative, ())), "deposit");
        assertTrue(thief.run(address(escrow), 0, abi.encodeCall(escrow.withdraw, (address(0), 50))), "withdraw");
        assertEq(thief.tried(), 3, "tried");
        assertEq(thief.succeeded(), 0, "succeeded");
        assertEq(address(thief).balance, 50, "once");
        assertEq(escrow.balanceOf(address(0), address(thief)), 50, "the rest");
        assertEq(address(escrow).balance, 250, "held");
    }

    function test_withdraw_paysOnceIfTokenCallsTheReceiver() public {
        CallingToken money = new CallingToken();
        money.mint(address(this), 200);
        money.approve(address(escrow), 200);
        escrow.deposit(address(money), 200);
        Thief thief = new Thief();
        money.mint(address(thief), 200);
        thief.run(address(money), 0, abi.encodeCall(money.approve, (address(escrow), 200)));
        _plan(thief, address(money));
        // While it pays in.
        assertTrue(thief.run(address(escrow), 0, abi.encodeCall(escrow.deposit, (address(money), 100))), "deposit");
        assertEq(thief.tried(), 3, "tried");
        assertEq(escrow.balanceOf(address(money), address(thief)), 100, "credited once");
        // While it is paid.
        assertTrue(thief.run(address(escrow), 0, abi.encodeCall(escrow.withdraw, (address(money), 50))), "withdraw");
        assertEq(thief.tried(), 6, "tried");
        assertEq(thief.succeeded(), 0, "succeeded");
        assertEq(money.balanceOf(address(thief)), 150, "once");
        assertEq(money.balanceOf(address(escrow)), 250, "held");
    }

    function test_registry_paysOnceIfTokenCallsTheReceiver() public {
        CallingToken money = new CallingToken();
        _bondsIn(address(money));
        Thief thief = new Thief();
        address other = vm.addr(keys[1]);
        _bondOf(money, other, 1000);
        money.mint(address(thief), 500);
        thief.run(address(money), 0, abi.encodeCall(money.approve, (address(registry), 500)));
        thief.plan(address(registry), abi.encodeCall(registry.collect, ()));
        thief.plan(address(registry), abi.encodeCall(registry.finishUnbond, ()));
        thief.plan(address(registry), abi.encodeCall(registry.bond, (1)));
        // It bonds, and finds an equivocation.
        assertTrue(thief.run(address(registry), 0, abi.encodeCall(registry.bond, (400))), "bond");
        assertEq(registry.bondOf(address(thief)).active, 400, "bonded once");
        bytes32 termsHash = _termsHash();
        ITribunalEscrow.Vote memory a = _vote(keys[1], 0, 1);
        ITribunalEscrow.Vote memory b = _vote(keys[1], 0, 2);
        bytes memory proof = abi.encodeCall(registry.slashEquivocation, (termsHash, a, b, 0));
        assertTrue(thief.run(address(registry), 0, proof), "proof");
        assertTrue(thief.run(address(registry), 0, abi.encodeCall(registry.startUnbond, (400))), "unbond");
        vm.warp(block.timestamp + UNBOND_DELAY);
        assertTrue(thief.run(address(registry), 0, abi.encodeCall(registry.finishUnbond, ())), "paid out");
        assertTrue(thief.run(address(registry), 0, abi.encodeCall(registry.collect, ())), "collected");
        assertEq(thief.tried(), 9, "tried");
        assertEq(thief.succeeded(), 0, "succeeded");
        assertEq(money.balanceOf(address(thief)), 500 + 100, "its own and a tenth");
        assertEq(money.balanceOf(address(registry)), 900, "the treasury's");
    }

    /// Who is shown to have equivocated in the middle of bonding has not bonded.
    function test_bond_failsIfTombstonedInTheMiddle() public {
        CallingToken money = new CallingToken();
        _bondsIn(address(money));
        Thief thief = new Thief();
        money.mint(address(thief), 500);
        thief.run(address(money), 0, abi.encodeCall(money.approve, (address(registry), 500)));
        ITribunalEscrow.Vote memory a = ITribunalEscrow.Vote(address(thief), 1, COUNT, CLAIM, "");
        ITribunalEscrow.Vote memory b = ITribunalEscrow.Vote(address(thief), 2, COUNT, CLAIM, "");
        thief.plan(address(registry), abi.encodeCall(registry.slashEquivocation, (_termsHash(), a, b, 0)));
        assertTrue(!thief.run(address(registry), 0, abi.encodeCall(registry.bond, (400))), "refused");
        assertEq(registry.bondOf(address(thief)).active, 0, "no bond");
        assertEq(money.balanceOf(address(thief)), 500, "its own");
    }

    // Bonds in every kind of token

    /// A registry, and its escrow, with bonds in this token.
    function _bondsIn(address money) private {
        address predicted = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        registry = new MediatorRegistry(IERC20(money), predicted, BOND_TREASURY, UNBOND_DELAY);
        escrow = new TribunalEscrow(IMediatorRegistry(address(registry)), GUARDIAN);
    }

    function _bondOf(CallingToken money, address mediator, uint256 amount) private {
        money.mint(mediator, amount);
        vm.startPrank(mediator);
        money.approve(address(registry), amount);
        registry.bond(amount);
        vm.stopPrank();
    }

    function _bondLife(address money, uint256 arrives) private {
        _bondsIn(money);
        address mediator = mediation.mediators[0];
        IMintable(money).mint(mediator, 1000);
        vm.startPrank(mediator);
        IMintable(money).approve(address(registry), 1000);
        registry.bond(1000);
        registry.startUnbond(200);
        assertEq(registry.bondOf(mediator).active, arrives - 200, "what arrived");
        vm.warp(block.timestamp + UNBOND_DELAY);
        registry.finishUnbond();
        vm.stopPrank();
        registry.slashEquivocation(_termsHash(), _vote(keys[0], 0, 1), _vote(keys[0], 0, 2), 0);
        registry.collect();
        vm.prank(BOND_TREASURY);
        registry.collect();
        assertEq(IMintable(money).balanceOf(address(registry)), 0, "nothing is left");
    }

    function test_bond_succeedsInEveryKindOfToken() public {
        _bondLife(address(new TestToken()), 1000);
        _bondLife(address(new TollToken()), 990);
        _bondLife(address(new SilentToken()), 1000);
        _bondLife(address(new CallingToken()), 1000);
    }

    function test_bond_failsIfTokenSaysNo() public {
        FalseToken money = new FalseToken();
        _bondsIn(address(money));
        money.mint(address(this), 100);
        money.approve(address(registry), 100);
        money.refuse(true);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(money)));
        registry.bond(100);
        money.refuse(false);
        registry.bond(100);
        registry.startUnbond(100);
        vm.warp(block.timestamp + UNBOND_DELAY);
        money.refuse(true);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(money)));
        registry.finishUnbond();
        money.refuse(false);
        registry.finishUnbond();
        assertEq(money.balanceOf(address(this)), 100, "back");
    }

    /// A treasury or finder that cannot be paid stops nobody else.
    function test_collect_succeedsForOthersIfTokenBlocksOne() public {
        BlockingToken money = new BlockingToken();
        _bondsIn(address(money));
        address mediator = mediation.mediators[0];
        money.mint(mediator, 1000);
        vm.startPrank(mediator);
        money.approve(address(registry), 1000);
        registry.bond(1000);
        vm.stopPrank();
        registry.slashEquivocation(_termsHash(), _vote(keys[0], 0, 1), _vote(keys[0], 0, 2), 0);
        money.blockOff(BOND_TREASURY);
        registry.collect();
        assertEq(money.balanceOf(address(this)), 100, "finder");
        vm.prank(BOND_TREASURY);
        vm.expectRevert(abi.encodeWithSelector(BlockingToken.Blocked.selector, BOND_TREASURY));
        registry.collect();
        assertEq(registry.owedTo(BOND_TREASURY), 900, "still its own");
    }
}

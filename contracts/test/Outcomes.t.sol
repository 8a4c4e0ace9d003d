// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Cheats} from "./Cheats.sol";
import {Fixture} from "./Fixture.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {Settlement} from "../src/Settlement.sol";

/// @notice What each outcome pays. Amounts by hand: P = 903, fee = 30, V = 666, F = 103, q = 25.
contract OutcomesTest is Fixture {
    function test_open_succeedsIfBothSignedAndLocksCollateral() public {
        _open();
        assertEq(_balance(terms.client), 10_000 - 1000 - 103 - 31, "client");
        assertEq(_balance(terms.provider), 10_000 - 2001 - 103 - 51, "provider");
        assertTrue(_state() == ITribunalEscrow.State.Open, "open");
    }

    function test_accept_succeedsIfInTime() public {
        _toSubmitted();
        vm.warp(block.timestamp + 50);
        _accept();
        _assertNet(-903, 873, 0, 30);
        assertTrue(_outcome() == ITribunalEscrow.Outcome.Accepted, "accepted");
    }

    function test_settleVerdict_succeedsIfValid() public {
        _toDrawn();
        _settle(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
        // 103 among two: 51 each, 1 to the treasury.
        _assertNet(-903 - 103, 873, 102, 31);
    }

    function test_settleVerdict_succeedsIfInvalidAndPaysDissenters() public {
        _toDrawn();
        _settle(1, ITribunalEscrow.Outcome.Invalid, _verdicts(2, 1, 2));
        // 103 among three: 34 each, 1 to the treasury.
        _assertNet(666, -2001 - 103, 102, 2001 - 666 + 1);
        assertEq(_balance(mediation.mediators[1]), 34, "dissenter");
    }

    function test_settleVerdict_succeedsIfInconclusiveInLastRound() public {
        _toDrawn();
        _settle(1, ITribunalEscrow.Outcome.Inconclusive, _verdicts(3, 3));
        _assertNet(-25, -25, 50, 0);
    }

    function test_settleVerdict_succeedsIfLastPanelIsSplit() public {
        _toDrawn();
        _settle(1, ITribunalEscrow.Outcome.Inconclusive, _verdicts(1, 2, 3));
        // 50 among three: 16 each, 2 to the treasury.
        _assertNet(-25, -25, 48, 2);
    }

    function test_settleVerdict_succeedsIfAppointed() public {
        _appoint();
        _toDisputed();
        _settle(0, ITribunalEscrow.Outcome.Valid, _verdicts(1));
        _assertNet(-903 - 103, 873, 103, 30);
    }

    function test_settleVerdict_succeedsIfRelayedLate() public {
        _toDrawn();
        vm.warp(block.timestamp + 365 days);
        _settle(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
        _assertNet(-903 - 103, 873, 102, 31);
    }

    function test_withdrawCase_succeedsIfBothSign() public {
        _toDrawn();
        escrow.withdrawCase(terms, _move(CLIENT, 6, 0, 0), _move(PROVIDER, 6, 0, 0));
        _assertNet(0, 0, 0, 0);
        assertTrue(_outcome() == ITribunalEscrow.Outcome.Withdrawn, "withdrawn");
    }

    function test_timeoutSubmit_succeedsIfNothingCame() public {
        _open();
        vm.warp(block.timestamp + 101);
        escrow.timeoutSubmit(terms, timeouts);
        _assertNet(51, -51, 0, 0);
    }

    function test_timeoutJudge_succeedsIfClientIsSilent() public {
        _toSubmitted();
        vm.warp(block.timestamp + 51);
        escrow.timeoutJudge(terms, timeouts);
        _assertNet(-903 - 31, 873 + 31, 0, 30);
    }

    function test_timeoutDraw_succeedsIfClientIsSilent() public {
        _toDisputed();
        _reveal(2);
        vm.warp(block.timestamp + 21);
        escrow.timeoutDraw(terms, timeouts, mediation);
        _assertNet(-903, 873, 0, 30);
    }

    function test_timeoutDraw_succeedsIfProviderIsSilent() public {
        _toDisputed();
        _reveal(1);
        vm.warp(block.timestamp + 21);
        escrow.timeoutDraw(terms, timeouts, mediation);
        _assertNet(666, -2001 - 103, 0, 2001 - 666 + 103);
    }

    function test_timeoutMediate_succeedsIfEveryRoundIsOver() public {
        _toDrawn();
        vm.warp(block.timestamp + 20 + 2 * 35 + 1);
        escrow.timeoutMediate(terms, timeouts, mediation);
        _assertNet(0, 0, 0, 0);
    }

    function test_timeoutMediate_succeedsIfAppointedAndSlashesUpToItsOwnLimit() public {
        _appoint();
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        vm.prank(mediator);
        registry.setAppointmentSlashMax(25);
        _toDisputed();
        vm.warp(block.timestamp + 71);
        escrow.timeoutMediate(terms, timeouts, mediation);
        _assertNet(0, 0, 0, 0);
        assertEq(registry.bondOf(mediator).active, 975, "bond");
        assertEq(registry.owedTo(BOND_TREASURY), 25, "treasury of bonds");
    }

    function test_timeoutMediate_succeedsIfMediatorNeverAgreedAndSlashesNothing() public {
        _appoint();
        address mediator = mediation.mediators[0];
        _bond(mediator, 1000);
        vm.prank(mediator);
        registry.setOperator(mediation.operator, false);
        _toDisputed();
        vm.warp(block.timestamp + 71);
        escrow.timeoutMediate(terms, timeouts, mediation);
        assertEq(registry.bondOf(mediator).active, 1000, "bond");
    }

    function test_open_succeedsIfNativeAndPaysOut() public {
        terms.token = address(0);
        vm.deal(terms.client, 5000);
        vm.prank(terms.client);
        escrow.depositNative{value: 5000}();
        vm.deal(terms.provider, 5000);
        vm.prank(terms.provider);
        escrow.depositNative{value: 5000}();
        _toSubmitted();
        _accept();
        assertEq(_balance(terms.client), 5000 - 903, "client");
        vm.prank(terms.provider);
        escrow.withdraw(address(0), 5873);
        assertEq(terms.provider.balance, 5873, "provider");
        assertEq(address(escrow).balance, 5000 - 903 + 30, "held");
    }

    /// Everybody together has after any outcome what both parties had before.
    function testFuzz_settle_succeedsIfMoneyIsConserved(uint256 salt, uint64 count, uint8 path) public {
        terms.pricing = uint8(bound(salt, 1, 2));
        terms.paymentCollateral = bound(uint256(keccak256(abi.encode(salt, 1))), 0, 3000);
        terms.price = bound(uint256(keccak256(abi.encode(salt, 2))), 0, terms.paymentCollateral);
        terms.resultsCollateral = bound(uint256(keccak256(abi.encode(salt, 3))), 0, 3000);
        terms.submitCollateral = bound(uint256(keccak256(abi.encode(salt, 4))), 0, 3000);
        terms.judgeCollateral = bound(uint256(keccak256(abi.encode(salt, 5))), 0, 3000);
        terms.mediationFee = bound(uint256(keccak256(abi.encode(salt, 6))), 0, 3000);
        terms.victimBps = uint16(bound(uint256(keccak256(abi.encode(salt, 7))), 0, 10_000));
        terms.feeBps = uint16(bound(uint256(keccak256(abi.encode(salt, 8))), 0, 10_000));
        _open();
        escrow.submitResult(terms, timeouts, count, CLAIM, _move(PROVIDER, 2, count, CLAIM));
        if (path % 6 == 0) {
            _accept();
        } else if (path % 6 == 1) {
            vm.warp(block.timestamp + 51);
            escrow.timeoutJudge(terms, timeouts);
        } else {
            _dispute();
            _reveal(1);
            if (path % 6 == 2) {
                vm.warp(block.timestamp + 21);
                escrow.timeoutDraw(terms, timeouts, mediation);
            } else {
                _reveal(2);
                uint8 verdict = path % 6 - 2;
                ITribunalEscrow.Vote[] memory votes = new ITribunalEscrow.Vote[](2 + path % 2);
                for (uint256 i = 0; i < votes.length; ++i) {
                    votes[i] = _voteWith(keys[i], 1, verdict, count, CLAIM);
                }
                escrow.settleVerdict(terms, mediation, _panel(1), ITribunalEscrow.Outcome(verdict + 1), votes);
            }
        }
        uint256 all = _balance(terms.client) + _balance(terms.provider) + _balance(DEAL_TREASURY);
        for (uint256 i = 0; i < keys.length; ++i) {
            all += _balance(vm.addr(keys[i]));
        }
        assertEq(all, 20_000, "all");
        assertEq(token.balanceOf(address(escrow)), 20_000, "held");
    }
}

/// @notice Gives calldata to the library.
contract SettlementHarness {
    function split(ITribunalEscrow.Terms calldata terms, uint64 count, ITribunalEscrow.Outcome outcome, uint256 voters)
        external
        pure
        returns (Settlement.Shares memory, uint256 clientLock, uint256 providerLock)
    {
        return
            (
                Settlement.split(terms, count, outcome, voters),
                Settlement.clientLock(terms),
                Settlement.providerLock(terms)
            );
    }
}

/// @notice The table of the protocol, as an independent script wrote it down.
contract SettlementVectorsTest is Cheats {
    function test_split_succeedsIfEqualToSharedVectors() public {
        SettlementHarness harness = new SettlementHarness();
        string memory json = vm.readFile("vectors/settlement.json");
        uint256 row = 0;
        for (; vm.keyExistsJson(json, string.concat("$[", vm.toString(row), "]")); ++row) {
            _check(harness, json, string.concat("$[", vm.toString(row), "]."));
        }
        assertTrue(row >= 40, "rows");
    }

    function _check(SettlementHarness harness, string memory json, string memory row) private pure {
        ITribunalEscrow.Terms memory terms;
        terms.price = vm.parseJsonUint(json, string.concat(row, "price"));
        terms.pricing = uint8(vm.parseJsonUint(json, string.concat(row, "pricing")));
        terms.paymentCollateral = vm.parseJsonUint(json, string.concat(row, "paymentCollateral"));
        terms.resultsCollateral = vm.parseJsonUint(json, string.concat(row, "resultsCollateral"));
        terms.submitCollateral = vm.parseJsonUint(json, string.concat(row, "submitCollateral"));
        terms.judgeCollateral = vm.parseJsonUint(json, string.concat(row, "judgeCollateral"));
        terms.mediationFee = vm.parseJsonUint(json, string.concat(row, "mediationFee"));
        terms.victimBps = uint16(vm.parseJsonUint(json, string.concat(row, "victimBps")));
        terms.feeBps = uint16(vm.parseJsonUint(json, string.concat(row, "feeBps")));
        uint256 voters = vm.parseJsonUint(json, string.concat(row, "voters"));
        (Settlement.Shares memory shares, uint256 clientLock, uint256 providerLock) = harness.split(
            terms,
            uint64(vm.parseJsonUint(json, string.concat(row, "count"))),
            ITribunalEscrow.Outcome(vm.parseJsonUint(json, string.concat(row, "outcome"))),
            voters
        );
        string memory expected = string.concat(row, "expect.");
        int256 client = int256(shares.client) - int256(clientLock);
        int256 provider = int256(shares.provider) - int256(providerLock);
        assertTrue(client == vm.parseJsonInt(json, string.concat(expected, "client_net")), row);
        assertTrue(provider == vm.parseJsonInt(json, string.concat(expected, "provider_net")), row);
        assertEq(shares.eachMediator * voters, vm.parseJsonUint(json, string.concat(expected, "mediators")), row);
        assertEq(shares.treasury, vm.parseJsonUint(json, string.concat(expected, "treasury")), row);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Fixture} from "./Fixture.sol";
import {Vm} from "./Cheats.sol";
import {BadWallet} from "./Wallets.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";

/// @notice A token that says whatever it likes.
contract LyingToken {
    mapping(address => uint256) public balanceOf;

    function transferFrom(address, address to, uint256 amount) external returns (bool) {
        unchecked {
            balanceOf[to] += amount;
        }
        return true;
    }

    function forget(address account) external {
        balanceOf[account] = 0;
    }
}

/// @notice Many verdicts in one transaction.
contract BatchTest is Fixture {
    uint256 internal constant GAS_EACH = 400_000;

    function _drawn(uint256 index) private {
        terms.dealId = bytes32(index);
        _toDrawn();
    }

    function _rulingOf(uint32 round, ITribunalEscrow.Outcome outcome, uint8[] memory verdicts)
        private
        view
        returns (bytes memory)
    {
        return _ruling(_panel(round), outcome, _votes(round, verdicts));
    }

    function _valid() private view returns (bytes memory) {
        return _rulingOf(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
    }

    /// What `RulingRefused` says about each ruling; empty where there is none.
    function _reasons(uint256 rulings) private returns (bytes[] memory reasons) {
        reasons = new bytes[](rulings);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] != ITribunalEscrow.RulingRefused.selector) continue;
            reasons[uint256(logs[i].topics[1])] = abi.decode(logs[i].data, (bytes));
        }
    }

    /// The whole state of everybody's money and of a case.
    function _digest(uint256 deals) private returns (bytes32 digest) {
        for (uint256 i = 0; i < deals; ++i) {
            terms.dealId = bytes32(i);
            digest = keccak256(abi.encode(digest, escrow.caseOf(_termsHash())));
        }
        digest = keccak256(abi.encode(digest, _balance(terms.client), _balance(terms.provider)));
        for (uint256 i = 0; i < keys.length; ++i) {
            digest = keccak256(abi.encode(digest, _balance(vm.addr(keys[i]))));
        }
        digest = keccak256(abi.encode(digest, _balance(DEAL_TREASURY)));
    }

    /// A batch leaves everything as one transaction for each of its verdicts would.
    function testFuzz_settleVerdicts_succeedsIfEqualToSingles(uint256 salt) public {
        uint256 deals = 1 + salt % 4;
        bytes[] memory singles = new bytes[](deals);
        bytes[] memory rulings = new bytes[](deals);
        for (uint256 i = 0; i < deals; ++i) {
            salt = uint256(keccak256(abi.encode(salt)));
            _drawn(i);
            uint8 verdict = uint8(1 + salt % 3);
            uint8[] memory verdicts = _verdicts(uint8(1 + (salt >> 8) % 3), verdict, verdict);
            if ((salt >> 16) % 4 == 0) verdicts = _verdicts(verdict, verdict);
            ITribunalEscrow.Panel memory panel = _panel(1);
            // In another order, as a draw gives it.
            (panel.members[0], panel.members[2]) = (panel.members[2], panel.members[0]);
            _certify(panel);
            ITribunalEscrow.Outcome outcome = ITribunalEscrow.Outcome(verdict + 1);
            ITribunalEscrow.Vote[] memory votes = _votes(1, verdicts);
            singles[i] = abi.encodeCall(escrow.settleVerdict, (terms, mediation, panel, outcome, votes));
            rulings[i] = _ruling(panel, outcome, votes);
        }
        uint256 before = vm.snapshotState();
        for (uint256 i = 0; i < deals; ++i) {
            (bool done,) = address(escrow).call(singles[i]);
            assertTrue(done, "single");
        }
        bytes32 expected = _digest(deals);
        vm.revertToState(before);
        bool[] memory settled = escrow.settleVerdicts(mediation, rulings, GAS_EACH);
        for (uint256 i = 0; i < deals; ++i) {
            assertTrue(settled[i], "settled");
        }
        assertTrue(_digest(deals) == expected, "same state");
    }

    /// What one transaction would refuse the batch refuses with the same words.
    function testFuzz_settleVerdicts_refusesWhatSinglesRefuse(uint256 salt) public {
        _drawn(0);
        ITribunalEscrow.Panel memory panel = _panel(1);
        ITribunalEscrow.Vote[] memory votes = _votes(1, _verdicts(2, 1, 2));
        ITribunalEscrow.Outcome outcome = ITribunalEscrow.Outcome.Invalid;
        uint256 where = (salt >> 8) % 3;
        uint256 what = salt % 16;
        if (what == 0) outcome = ITribunalEscrow.Outcome((salt >> 16) % 10);
        if (what == 1) panel.round = uint32((salt >> 16) % 4);
        if (what == 2) panel.members[where] = mediation.mediators[(salt >> 16) % 5];
        if (what == 3) panel.members[where] = terms.client;
        if (what == 4) panel.operatorSig = votes[where].signature;
        if (what == 5) panel.operatorSig = "";
        if (what == 6) votes[where].mediator = mediation.mediators[(salt >> 16) % 5];
        if (what == 7) votes[where].verdict = uint8(salt >> 16);
        if (what == 8) votes[where].digest = bytes32(salt);
        if (what == 9) votes[where].signature = votes[(salt >> 16) % 3].signature;
        if (what == 10) votes[where].signature = abi.encodePacked(votes[where].signature, uint8(0));
        if (what == 11) votes[where] = votes[(salt >> 16) % 3];
        if (what == 12) votes[where] = _vote(keys[(salt >> 16) % 5], uint32((salt >> 24) % 2), 2);
        if (what == 13) votes = _votes(1, _verdicts(2));
        if (what == 14) terms.price = 3 + (salt >> 16) % 2;
        if (what == 15) _settle(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
        if (what == 2 || what == 3) _certify(panel);

        uint256 before = vm.snapshotState();
        bytes memory single = abi.encodeCall(escrow.settleVerdict, (terms, mediation, panel, outcome, votes));
        (bool done, bytes memory expected) = address(escrow).call(single);
        vm.revertToState(before);
        bytes[] memory rulings = new bytes[](1);
        rulings[0] = _ruling(panel, outcome, votes);
        vm.recordLogs();
        bool settled = escrow.settleVerdicts(mediation, rulings, GAS_EACH)[0];
        assertTrue(settled == done, "settled");
        if (done) return;
        bytes memory reason = _reasons(1)[0];
        // A batch cannot even name whom the mediation does not.
        bool nobody = bytes4(reason) == ITribunalEscrow.WrongRuling.selector;
        if (!nobody) assertSame(reason, expected, "reason");
    }

    /// Everything that can be wrong with a ruling, between two good ones.
    function test_settleVerdicts_succeedsForOthersIfOneIsBad() public {
        bytes[] memory rulings = new bytes[](14);
        bytes[] memory expected = new bytes[](14);
        _fund(terms.client, 10_000);
        _fund(terms.provider, 40_000);
        for (uint256 i = 0; i < 14; ++i) {
            terms.dealId = bytes32(i);
            if (i != 3) _toDrawn();
            ITribunalEscrow.Panel memory panel = _panel(0);
            ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
            if (i == 1) {
                votes[1].signature = votes[0].signature;
                expected[i] = abi.encodeWithSelector(ITribunalEscrow.BadSignature.selector, votes[1].mediator);
            }
            rulings[i] = _ruling(panel, ITribunalEscrow.Outcome.Valid, votes);
        }
        rulings[2] = rulings[0];
        bytes4 state = ITribunalEscrow.WrongState.selector;
        terms.dealId = bytes32(0);
        expected[2] = abi.encodeWithSelector(state, _termsHash(), ITribunalEscrow.State.Settled);
        terms.dealId = bytes32(uint256(3));
        expected[3] = abi.encodeWithSelector(state, _termsHash(), ITribunalEscrow.State.None);
        rulings[4] = "";
        rulings[5] = hex"00";
        rulings[6] = abi.encode(uint256(32));
        // Offsets that point nowhere.
        rulings[7] = _spoiled(rulings[7], 32 * 22, type(uint256).max);
        rulings[8] = _spoiled(rulings[8], 32 * 22, type(uint64).max);
        // A vote that is cut short, a panel of nobody, another mediation, an outcome that there is not.
        rulings[9] = _spoiled(rulings[9], 32 * 27, 100);
        expected[9] = abi.encodeWithSelector(ITribunalEscrow.WrongRuling.selector);
        rulings[10] = _spoiled(rulings[10], 32 * 20, uint256(bytes32(hex"0001ff")));
        expected[10] = abi.encodeWithSelector(ITribunalEscrow.WrongPanel.selector);
        terms.dealId = bytes32(uint256(11));
        terms.mediatorsHash = keccak256("another mediation");
        bytes32 bound = escrow.hashMediation(mediation);
        rulings[11] = _opened(bound, expected, 11);
        terms.mediatorsHash = bound;
        rulings[12] = _spoiled(rulings[12], 32 * 19, 77);

        vm.recordLogs();
        bool[] memory settled = escrow.settleVerdicts(mediation, rulings, GAS_EACH);
        bytes[] memory reasons = _reasons(14);
        for (uint256 i = 0; i < 14; ++i) {
            terms.dealId = bytes32(i);
            bool good = i == 0 || i == 13;
            assertTrue(settled[i] == good, vm.toString(i));
            if (i == 2 || i == 11) continue;
            assertTrue((_state() == ITribunalEscrow.State.Settled) == good, vm.toString(i));
        }
        for (uint256 i = 0; i < 14; ++i) {
            if (expected[i].length > 0) assertSame(reasons[i], expected[i], vm.toString(i));
        }
        // Fees of two and what is left of the mediators' part.
        assertEq(_balance(DEAL_TREASURY), 2 * 31, "treasury");
    }

    /// A ruling on a case under another mediation.
    function _opened(bytes32 bound, bytes[] memory expected, uint256 index) private returns (bytes memory) {
        ITribunalEscrow.Mediation memory good = mediation;
        mediation.silenceSlash = 41;
        terms.mediatorsHash = escrow.hashMediation(mediation);
        _toDrawn();
        expected[index] = abi.encodeWithSelector(
            ITribunalEscrow.HashMismatch.selector, bytes32("mediation"), terms.mediatorsHash, bound
        );
        bytes memory ruling = _valid();
        mediation = good;
        return ruling;
    }

    /// With another word at this byte.
    function _spoiled(bytes memory ruling, uint256 at_, uint256 word) private pure returns (bytes memory) {
        assembly ("memory-safe") {
            mstore(add(add(ruling, 32), at_), word)
        }
        return ruling;
    }

    function test_settleVerdicts_succeedsIfEmpty() public {
        assertEq(escrow.settleVerdicts(mediation, new bytes[](0), GAS_EACH).length, 0, "nothing");
    }

    /// A mediator's wallet that burns gas costs its own ruling, not the others.
    function test_settleVerdicts_succeedsForOthersIfOneBurnsGas() public {
        bytes[] memory rulings = new bytes[](3);
        for (uint256 i = 0; i < 3; ++i) {
            _drawn(i);
            rulings[i] = _valid();
        }
        address burner = mediation.mediators[0];
        bytes memory code = address(new BadWallet(BadWallet.Answer.Never)).code;
        terms.dealId = bytes32(uint256(1));
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        votes[0].signature = hex"00";
        rulings[1] = _ruling(_panel(0), ITribunalEscrow.Outcome.Valid, votes);
        vm.etch(burner, code);
        uint256 gas = gasleft();
        bool[] memory settled = escrow.settleVerdicts(mediation, rulings, GAS_EACH);
        assertTrue(gas - gasleft() < 2 * GAS_EACH, "the burner has its part at most");
        assertTrue(settled[0] && !settled[1] && settled[2], "others");
    }

    /// Less gas than every ruling's part reverts as a whole: no good ruling is refused for the sender's thrift.
    function test_settleVerdicts_failsIfGasIsLow() public {
        bytes[] memory rulings = new bytes[](2);
        for (uint256 i = 0; i < 2; ++i) {
            _drawn(i);
            rulings[i] = _valid();
        }
        bytes memory call = abi.encodeCall(escrow.settleVerdicts, (mediation, rulings, GAS_EACH));
        uint256 low;
        for (uint256 limit = 40_000; limit < 3 * GAS_EACH; limit += 40_000) {
            uint256 before = vm.snapshotState();
            (bool done, bytes memory data) = address(escrow).call{gas: limit}(call);
            if (done) {
                bool[] memory settled = abi.decode(data, (bool[]));
                assertTrue(settled[0] && settled[1], "all or nothing");
            } else {
                ++low;
                terms.dealId = 0;
                assertTrue(_state() == ITribunalEscrow.State.Disputed, "taken back");
            }
            vm.revertToState(before);
        }
        assertTrue(low > 5, "too little at first");
    }

    function test_settleRuling_failsIfNotByTheContract() public {
        _drawn(0);
        ITribunalEscrow.Ruling memory ruling = abi.decode(_valid(), (ITribunalEscrow.Ruling));
        bytes32 mediatorsHash = escrow.hashMediation(mediation);
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.OnlySelf.selector));
        escrow.settleRuling(mediation, mediatorsHash, ruling);
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.OnlySelf.selector));
        vm.prank(terms.client);
        escrow.settleRuling(mediation, mediatorsHash, ruling);
    }

    /// A token whose numbers cannot be added stops its own deal only.
    function test_settleVerdicts_succeedsForOthersIfOneOverflows() public {
        bytes[] memory rulings = new bytes[](2);
        _drawn(1);
        rulings[1] = _valid();
        LyingToken liar = new LyingToken();
        terms.token = address(liar);
        address[2] memory parties = [terms.client, terms.provider];
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(parties[i]);
            escrow.deposit(address(liar), 10_000);
        }
        _drawn(0);
        rulings[0] = _valid();
        liar.forget(address(escrow));
        uint256 rest = type(uint256).max - escrow.balanceOf(address(liar), terms.provider);
        vm.prank(terms.provider);
        escrow.deposit(address(liar), rest);
        vm.recordLogs();
        bool[] memory settled = escrow.settleVerdicts(mediation, rulings, GAS_EACH);
        assertTrue(!settled[0] && settled[1], "the other");
        assertSame(_reasons(2)[0], abi.encodeWithSignature("Panic(uint256)", 0x11), "reason");
    }

    function test_settleVerdicts_succeedsIfAppointed() public {
        _appoint();
        bytes[] memory rulings = new bytes[](2);
        for (uint256 i = 0; i < 2; ++i) {
            terms.dealId = bytes32(i);
            _toDisputed();
            rulings[i] = _rulingOf(0, ITribunalEscrow.Outcome.Valid, _verdicts(1));
        }
        bool[] memory settled = escrow.settleVerdicts(mediation, rulings, GAS_EACH);
        assertTrue(settled[0] && settled[1], "both");
        _assertNet(2 * (-903 - 103), 2 * 873, 206, 60);
    }
}

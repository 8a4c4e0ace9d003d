// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Cheats} from "./Cheats.sol";
import {Fixture} from "./Fixture.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";

/// @notice Honest, cheating and idle players on a few cases at once. A refused step is no failure.
contract Players is Fixture {
    uint256 internal constant CASES = 4;

    mapping(bytes32 => ITribunalEscrow.Outcome) private _ended;
    /// A case changed after it had ended, or a cheater's call went through.
    bool public broken;
    uint256 public settledCount;

    modifier onCase(uint256 index) {
        terms.dealId = bytes32(index % CASES);
        terms.pricing = uint8(1 + index % 2);
        terms.price = index % 2 == 0 ? 700 + index % CASES : 3;
        _;
        _watch();
    }

    function start() external {
        timeouts.agreeBy = 2_000_000;
        _bindHashes();
        _fund(terms.client, 100_000);
        _fund(terms.provider, 100_000);
    }

    function open(uint256 index) external onCase(index) {
        ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
        ITribunalEscrow.Consent memory provider = _consent(PROVIDER, PROVIDER_SEED);
        _try(abi.encodeCall(escrow.open, (terms, timeouts, mediation, client, provider)));
    }

    function submit(uint256 index) external onCase(index) {
        bytes memory signature = _move(PROVIDER, 2, COUNT, CLAIM);
        _try(abi.encodeCall(escrow.submitResult, (terms, timeouts, COUNT, CLAIM, signature)));
    }

    /// Whoever is next does what it should, or lets its time run out.
    function advance(uint256 index, uint256 salt) external onCase(index) {
        ITribunalEscrow.Case memory it = escrow.caseOf(_termsHash());
        bool idle = salt % 6 == 0;
        if (it.state == ITribunalEscrow.State.None) {
            ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
            ITribunalEscrow.Consent memory provider = _consent(PROVIDER, PROVIDER_SEED);
            _try(abi.encodeCall(escrow.open, (terms, timeouts, mediation, client, provider)));
        } else if (idle) {
            vm.warp(block.timestamp + 101);
            if (it.state == ITribunalEscrow.State.Open) escrow.timeoutSubmit(terms, timeouts);
            if (it.state == ITribunalEscrow.State.Submitted) escrow.timeoutJudge(terms, timeouts);
            if (it.state != ITribunalEscrow.State.Disputed) return;
            if (it.clientRevealed && it.providerRevealed) escrow.timeoutMediate(terms, timeouts, mediation);
            else escrow.timeoutDraw(terms, timeouts, mediation);
        } else if (it.state == ITribunalEscrow.State.Open) {
            bytes memory signature = _move(PROVIDER, 2, COUNT, CLAIM);
            _try(abi.encodeCall(escrow.submitResult, (terms, timeouts, COUNT, CLAIM, signature)));
        } else if (it.state == ITribunalEscrow.State.Submitted) {
            if (salt % 6 == 1) _try(abi.encodeCall(escrow.accept, (terms, timeouts, _move(CLIENT, 3, 0, 0))));
            else _try(abi.encodeCall(escrow.dispute, (terms, timeouts, _move(CLIENT, 4, 0, 0))));
        } else if (it.state == ITribunalEscrow.State.Disputed) {
            _judge(it, salt);
        }
    }

    function _judge(ITribunalEscrow.Case memory it, uint256 salt) private {
        if (!it.clientRevealed || !it.providerRevealed) {
            uint8 party = it.clientRevealed ? 2 : 1;
            bytes32 seed = party == 1 ? CLIENT_SEED : PROVIDER_SEED;
            bytes memory signature = _move(party == 1 ? CLIENT : PROVIDER, 5, 0, seed);
            _try(abi.encodeCall(escrow.reveal, (terms, timeouts, mediation, party, seed, signature)));
            return;
        }
        uint8 verdict = uint8(1 + (salt >> 8) % 3);
        uint8[] memory verdicts = _verdicts(verdict, verdict, uint8(1 + (salt >> 16) % 3));
        ITribunalEscrow.Panel memory panel = _panel(1);
        ITribunalEscrow.Vote[] memory votes = _votes(1, verdicts);
        escrow.settleVerdict(terms, mediation, panel, ITribunalEscrow.Outcome(verdict + 1), votes);
    }

    function accept(uint256 index) external onCase(index) {
        if (index % 3 != 0) return; // mostly idle
        _try(abi.encodeCall(escrow.accept, (terms, timeouts, _move(CLIENT, 3, 0, 0))));
    }

    function dispute(uint256 index) external onCase(index) {
        _try(abi.encodeCall(escrow.dispute, (terms, timeouts, _move(CLIENT, 4, 0, 0))));
    }

    function reveal(uint256 index, bool client) external onCase(index) {
        bytes32 seed = client ? CLIENT_SEED : PROVIDER_SEED;
        bytes memory signature = _move(client ? CLIENT : PROVIDER, 5, 0, seed);
        _try(abi.encodeCall(escrow.reveal, (terms, timeouts, mediation, client ? 1 : 2, seed, signature)));
    }

    function settle(uint256 index, uint32 round, uint8 a, uint8 b, uint8 c) external onCase(index) {
        round %= 2;
        uint8[] memory verdicts = _verdicts(1 + a % 3, 1 + b % 3, 1 + c % 3);
        ITribunalEscrow.Outcome outcome = ITribunalEscrow.Outcome(2 + a % 3);
        ITribunalEscrow.Panel memory panel = _panel(round);
        ITribunalEscrow.Vote[] memory votes = _votes(round, verdicts);
        _try(abi.encodeCall(escrow.settleVerdict, (terms, mediation, panel, outcome, votes)));
    }

    function timeout(uint256 index, uint8 which) external onCase(index) {
        if (which % 4 == 0) _try(abi.encodeCall(escrow.timeoutSubmit, (terms, timeouts)));
        if (which % 4 == 1) _try(abi.encodeCall(escrow.timeoutJudge, (terms, timeouts)));
        if (which % 4 == 2) _try(abi.encodeCall(escrow.timeoutDraw, (terms, timeouts, mediation)));
        if (which % 4 == 3) _try(abi.encodeCall(escrow.timeoutMediate, (terms, timeouts, mediation)));
    }

    function callOff(uint256 index) external onCase(index) {
        if (index % 7 != 0) return;
        _try(abi.encodeCall(escrow.withdrawCase, (terms, _move(CLIENT, 6, 0, 0), _move(PROVIDER, 6, 0, 0))));
    }

    function cheat(uint256 index, uint8 how) external onCase(index) {
        if (how % 3 == 0) _cheated(abi.encodeCall(escrow.accept, (terms, timeouts, _move(PROVIDER, 3, 0, 0))));
        if (how % 3 == 1) {
            bytes memory signature = _move(CLIENT, 6, 0, 0);
            _cheated(abi.encodeCall(escrow.withdrawCase, (terms, signature, signature)));
        }
        if (how % 3 == 2) {
            ITribunalEscrow.Panel memory panel = _panel(0);
            ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(2, 2));
            votes[0].signature = votes[1].signature;
            ITribunalEscrow.Outcome outcome = ITribunalEscrow.Outcome.Invalid;
            _cheated(abi.encodeCall(escrow.settleVerdict, (terms, mediation, panel, outcome, votes)));
        }
    }

    function takeOut(uint256 who, uint256 amount) external {
        address account = _account(who % 8);
        uint256 all = _balance(account);
        if (all == 0) return;
        vm.prank(account);
        escrow.withdraw(address(token), bound(amount, 1, all));
        if (who % 8 > 1) return;
        _fund(account, 1 + amount % 5000);
    }

    function wait_(uint256 seconds_) external {
        vm.warp(block.timestamp + bound(seconds_, 1, 60));
    }

    /// What the escrow owes: free balances and the locks of open cases.
    function owed() external view returns (uint256 sum) {
        for (uint256 i = 0; i < 8; ++i) {
            sum += _balance(_account(i));
        }
        ITribunalEscrow.Terms memory it = terms;
        for (uint256 i = 0; i < CASES * 2; ++i) {
            it.dealId = bytes32(i % CASES);
            it.pricing = uint8(1 + i / CASES);
            it.price = i < CASES ? 700 + i : 3;
            ITribunalEscrow.State state = escrow.caseOf(escrow.hashTerms(it)).state;
            if (state == ITribunalEscrow.State.None || state == ITribunalEscrow.State.Settled) continue;
            sum += it.paymentCollateral + it.judgeCollateral + it.resultsCollateral + it.submitCollateral + 2
            * it.mediationFee;
        }
    }

    function held() external view returns (uint256) {
        return token.balanceOf(address(escrow));
    }

    function _account(uint256 index) private view returns (address) {
        if (index == 0) return terms.client;
        if (index == 1) return terms.provider;
        if (index == 2) return DEAL_TREASURY;
        return vm.addr(keys[index - 3]);
    }

    function _try(bytes memory call) private {
        (bool done,) = address(escrow).call(call);
        done;
    }

    function _cheated(bytes memory call) private {
        (bool done,) = address(escrow).call(call);
        if (done) broken = true;
    }

    function _watch() private {
        bytes32 termsHash = _termsHash();
        ITribunalEscrow.Outcome before = _ended[termsHash];
        ITribunalEscrow.Outcome now_ = _outcome();
        if (before != ITribunalEscrow.Outcome.None && before != now_) broken = true;
        bool ended = _state() == ITribunalEscrow.State.Settled;
        if (ended != (now_ != ITribunalEscrow.Outcome.None)) broken = true;
        if (ended && before == ITribunalEscrow.Outcome.None) ++settledCount;
        _ended[termsHash] = now_;
    }
}

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

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        bytes4[] memory selectors = new bytes4[](15);
        selectors[0] = Players.open.selector;
        selectors[1] = Players.submit.selector;
        selectors[2] = Players.accept.selector;
        selectors[3] = Players.dispute.selector;
        selectors[4] = Players.reveal.selector;
        selectors[5] = Players.settle.selector;
        selectors[6] = Players.timeout.selector;
        selectors[7] = Players.callOff.selector;
        selectors[8] = Players.cheat.selector;
        selectors[9] = Players.takeOut.selector;
        selectors[10] = Players.wait_.selector;
        // Weighed, so that most cases come to an end.
        for (uint256 i = 11; i < 15; ++i) {
            selectors[i] = Players.advance.selector;
        }
        list = new FuzzSelector[](1);
        list[0] = FuzzSelector(address(players), selectors);
    }

    /// Every base unit that is held belongs to somebody, and no more than is held.
    function invariant_balancesAndLocksEqualHoldings() external view {
        assertEq(players.owed(), players.held(), "held");
    }

    function invariant_terminalStaysTerminalAndCheatersFail() external view {
        assertTrue(!players.broken(), "broken");
    }
}

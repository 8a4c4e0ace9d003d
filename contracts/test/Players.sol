// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Fixture} from "./Fixture.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";

/// @notice Honest, cheating and idle players on a few cases at once, in a token and in native coin. A refused step is
/// no failure; what a cheater gets is.
contract Players is Fixture {
    /// At a time; one that is over makes room for the next of its number.
    uint256 private constant CASES = 6;
    /// Exactly what the cases need: submit, judge, draw and two rounds, then a day.
    uint64 internal constant DELAY = 100 + 50 + 20 + 2 * (5 + 30) + 1 days;
    uint256 private constant GAS_EACH = 400_000;

    /// A mediator's stake when a case opened, and what slashes had taken from it by then.
    struct Stake {
        uint256 active;
        uint256 slashed;
    }

    mapping(uint256 number => uint256) private _generation;
    mapping(bytes32 termsHash => ITribunalEscrow.Outcome) private _ended;
    mapping(bytes32 termsHash => mapping(address mediator => Stake)) private _stakes;
    mapping(address mediator => uint256) private _slashed;
    mapping(address mediator => bool) private _equivocated;
    /// What was promised and broken; empty as long as all is well.
    string public broken;

    /// How often the interesting things happened.
    uint256 public settled;
    uint256 public settledNative;
    uint256 public settledInBatch;
    uint256 public refusedInBatch;
    uint256 public pausedAway;
    uint256 public steppedWhilePaused;
    uint256 public unbonded;
    uint256 public slashes;
    uint256 public equivocations;

    modifier onCase(uint256 index) {
        _choose(index);
        _;
        _watch();
    }

    /// The newest deal of a number, or now and then the one before, which is over. Its terms are a function of both.
    function _choose(uint256 index) private {
        uint256 number = index % CASES;
        uint256 generation = _generation[number];
        if (index / CASES % 5 == 4 && generation > 0) --generation;
        terms.dealId = bytes32(generation << 128 | number);
        terms.pricing = uint8(1 + number % 2);
        terms.price = number % 2 == 0 ? 700 + number : 3;
        terms.token = number < CASES / 2 ? address(token) : address(0);
    }

    function start() external {
        _deploy(DELAY);
        timeouts.agreeBy = type(uint64).max;
        _bindHashes();
        address[2] memory parties = [terms.client, terms.provider];
        for (uint256 i = 0; i < 2; ++i) {
            _put(parties[i], address(token), 100_000);
            _put(parties[i], address(0), 100_000);
        }
        for (uint256 i = 0; i < 5; ++i) {
            _bond(mediation.mediators[i], 500);
        }
    }

    // Steps of cases

    function open(uint256 index) public onCase(index) {
        bytes32 termsHash = _termsHash();
        ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
        ITribunalEscrow.Consent memory provider = _consent(PROVIDER, PROVIDER_SEED);
        bool opened = _try(abi.encodeCall(escrow.open, (terms, timeouts, mediation, client, provider)));
        if (!opened) return;
        if (_isPaused()) broken = "a case opened while paused";
        for (uint256 i = 0; i < 5; ++i) {
            address mediator = mediation.mediators[i];
            _stakes[termsHash][mediator] = Stake(registry.bondOf(mediator).active, _slashed[mediator]);
        }
    }

    function submit(uint256 index) public onCase(index) {
        bytes memory signature = _move(PROVIDER, 2, COUNT, CLAIM);
        _try(abi.encodeCall(escrow.submitResult, (terms, timeouts, COUNT, CLAIM, signature)));
    }

    function accept(uint256 index) public onCase(index) {
        if (index % 3 != 0) return; // mostly idle
        _try(abi.encodeCall(escrow.accept, (terms, timeouts, _move(CLIENT, 3, 0, 0))));
    }

    function dispute(uint256 index) public onCase(index) {
        _try(abi.encodeCall(escrow.dispute, (terms, timeouts, _move(CLIENT, 4, 0, 0))));
    }

    function reveal(uint256 index, bool client) public onCase(index) {
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

    /// Rulings on several cases at once, whatever their state; some are spoiled.
    function settleMany(uint256 salt) public {
        uint256 count = 1 + salt % CASES;
        uint256 first = salt / CASES;
        bytes[] memory rulings = new bytes[](count);
        bool[] memory good = new bool[](count);
        for (uint256 i = 0; i < count; ++i) {
            salt = uint256(keccak256(abi.encode(salt)));
            _choose(first + i);
            uint8 verdict = uint8(1 + (salt >> 16) % 3);
            ITribunalEscrow.Vote[] memory votes = _votes(1, _verdicts(verdict, verdict));
            if (salt % 5 == 0) votes[0].signature = votes[1].signature;
            if (salt % 7 == 0) votes[1].verdict = 1 + verdict % 3;
            good[i] = salt % 5 != 0 && salt % 7 != 0;
            rulings[i] = _ruling(_panel(1), ITribunalEscrow.Outcome(verdict + 1), votes);
            if (salt % 11 == 0) rulings[i] = abi.encodePacked(salt);
        }
        bool[] memory done = escrow.settleVerdicts(mediation, rulings, GAS_EACH);
        for (uint256 i = 0; i < count; ++i) {
            if (done[i] && !good[i]) broken = "a spoiled ruling settled";
            if (done[i]) ++settledInBatch;
            else ++refusedInBatch;
        }
        for (uint256 i = 0; i < CASES; ++i) {
            _choose(i);
            _watch();
        }
    }

    /// Whoever is next does what it should, or lets its time run out; a few steps at once, else no case would get far.
    function advance(uint256 index, uint256 salt) external {
        for (uint256 i = 0; i < 4; ++i) {
            _advance(index % CASES, uint256(keccak256(abi.encode(salt, i))));
        }
    }

    function _advance(uint256 index, uint256 salt) private {
        _choose(index);
        ITribunalEscrow.Case memory it = escrow.caseOf(_termsHash());
        if (it.state == ITribunalEscrow.State.Settled) {
            ++_generation[index];
            _choose(index);
            it = escrow.caseOf(_termsHash());
        }
        if (_isPaused() && uint8(it.state) % 4 != 0) ++steppedWhilePaused;
        if (it.state == ITribunalEscrow.State.None) {
            open(index);
        } else if (salt % 18 == 0) {
            vm.warp(block.timestamp + 101);
            _expire();
        } else if (_isLate(it)) {
            _expire();
        } else if (it.state == ITribunalEscrow.State.Open) {
            submit(index);
        } else if (it.state == ITribunalEscrow.State.Submitted) {
            if (salt % 6 == 1) accept(index);
            else dispute(index);
        } else if (it.state == ITribunalEscrow.State.Disputed) {
            if (!it.clientRevealed || !it.providerRevealed) reveal(index, !it.clientRevealed);
            else if (salt % 2 == 0) _judge(salt >> 8);
            else settleMany(CASES - 1 + (salt >> 8) / CASES * CASES);
        }
        _choose(index);
        _watch();
    }

    /// Whether who is next may no longer do what it should. A verdict is never late.
    function _isLate(ITribunalEscrow.Case memory it) private view returns (bool) {
        if (it.state == ITribunalEscrow.State.Open) return block.timestamp > it.openedAt + timeouts.submit;
        if (it.state == ITribunalEscrow.State.Submitted) return block.timestamp > it.submittedAt + timeouts.judge;
        bool drawn = it.clientRevealed && it.providerRevealed;
        bool waits = it.state == ITribunalEscrow.State.Disputed && !drawn;
        return waits && block.timestamp > it.disputedAt + timeouts.draw;
    }

    function _judge(uint256 salt) private {
        uint8 verdict = uint8(1 + salt % 3);
        uint8[] memory verdicts = _verdicts(verdict, verdict, uint8(1 + (salt >> 8) % 3));
        ITribunalEscrow.Panel memory panel = _panel(1);
        ITribunalEscrow.Vote[] memory votes = _votes(1, verdicts);
        escrow.settleVerdict(terms, mediation, panel, ITribunalEscrow.Outcome(verdict + 1), votes);
    }

    /// Ends the chosen case by the clock alone, if it is on: no signature, whoever calls.
    function _expire() private {
        ITribunalEscrow.Case memory it = escrow.caseOf(_termsHash());
        if (it.state == ITribunalEscrow.State.Open) escrow.timeoutSubmit(terms, timeouts);
        if (it.state == ITribunalEscrow.State.Submitted) escrow.timeoutJudge(terms, timeouts);
        if (it.state != ITribunalEscrow.State.Disputed) return;
        if (it.clientRevealed && it.providerRevealed) escrow.timeoutMediate(terms, timeouts, mediation);
        else escrow.timeoutDraw(terms, timeouts, mediation);
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
        bytes memory call;
        if (how % 6 == 0) call = abi.encodeCall(escrow.accept, (terms, timeouts, _move(PROVIDER, 3, 0, 0)));
        if (how % 6 == 1) {
            bytes memory signature = _move(CLIENT, 6, 0, 0);
            call = abi.encodeCall(escrow.withdrawCase, (terms, signature, signature));
        }
        if (how % 6 == 2) {
            ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(2, 2));
            votes[0].signature = votes[1].signature;
            ITribunalEscrow.Outcome outcome = ITribunalEscrow.Outcome.Invalid;
            call = abi.encodeCall(escrow.settleVerdict, (terms, mediation, _panel(0), outcome, votes));
        }
        if (how % 6 == 3) call = abi.encodeCall(escrow.pause, (60));
        if (how % 6 == 4) {
            ITribunalEscrow.Vote[] memory votes = _votes(1, _verdicts(2, 2));
            bytes memory ruling = _ruling(_panel(1), ITribunalEscrow.Outcome.Invalid, votes);
            ITribunalEscrow.Ruling memory it = abi.decode(ruling, (ITribunalEscrow.Ruling));
            call = abi.encodeCall(escrow.settleRuling, (mediation, terms.mediatorsHash, it));
        }
        if (how % 6 == 5) call = abi.encodeCall(escrow.withdraw, (terms.token, 1));
        if (_try(call)) broken = "a cheat went through";
    }

    // Money in and out

    function takeOut(uint256 who, uint256 amount, bool native) external {
        address account = _account(who % 8);
        address money = native ? address(0) : address(token);
        uint256 all = escrow.balanceOf(money, account);
        if (all == 0) return;
        amount = bound(amount, 1, all);
        uint256 before = _own(money, account);
        vm.prank(account);
        escrow.withdraw(money, amount);
        if (_own(money, account) != before + amount) broken = "a withdrawal paid something else";
    }

    function putIn(uint256 who, uint256 amount, bool native) external {
        if (_isPaused()) ++pausedAway;
        else _put(_account(who % 2), native ? address(0) : address(token), 1 + amount % 5000);
    }

    function _put(address account, address money, uint256 amount) private {
        if (money != address(0)) return _fund(account, amount);
        vm.deal(account, account.balance + amount);
        vm.prank(account);
        escrow.depositNative{value: amount}();
    }

    // Bonds

    function bond(uint256 who, uint256 amount) external {
        address mediator = mediation.mediators[who % 5];
        bool refused = _isPaused() || _equivocated[mediator];
        amount = 1 + amount % 300;
        token.mint(mediator, amount);
        vm.startPrank(mediator);
        token.approve(address(registry), amount);
        (bool done,) = address(registry).call(abi.encodeCall(registry.bond, (amount)));
        vm.stopPrank();
        if (done == refused) broken = "a bond that was not to be, or was";
    }

    function startUnbond(uint256 who, uint256 amount) external {
        address mediator = mediation.mediators[who % 5];
        uint256 active = registry.bondOf(mediator).active;
        if (active == 0) return;
        vm.prank(mediator);
        registry.startUnbond(bound(amount, 1, active));
        _watchStakes();
    }

    function finishUnbond(uint256 who) external {
        address mediator = mediation.mediators[who % 5];
        uint256 before = token.balanceOf(mediator);
        IMediatorRegistry.Bond memory it = registry.bondOf(mediator);
        vm.prank(mediator);
        (bool done,) = address(registry).call(abi.encodeCall(registry.finishUnbond, ()));
        if (done != (it.unbonding > 0 && block.timestamp >= it.unbondAt)) broken = "unbonding came early, or not";
        if (done && token.balanceOf(mediator) != before + it.unbonding) broken = "unbonding paid something else";
        if (done) ++unbonded;
        _watchStakes();
    }

    function setOperator(uint256 who, bool allowed) external {
        vm.prank(mediation.mediators[who % 5]);
        registry.setOperator(mediation.operator, allowed);
    }

    function slashSilent(uint256 index, uint256 who, uint32 round) external onCase(index) {
        address mediator = mediation.mediators[who % 5];
        round %= 2;
        bool again = escrow.isSilencePunished(_termsHash(), round, mediator);
        uint256 before = _bonded(mediator);
        address[] memory silent = _one(mediator);
        bytes memory signature = _silence(OPERATOR, round, silent);
        bool done = _try(abi.encodeCall(escrow.slashSilent, (terms, mediation, round, silent, signature)));
        uint256 taken = before - _bonded(mediator);
        if ((again || !done) && taken > 0) broken = "slashed twice in a round, or for nothing";
        if (taken > mediation.silenceSlash) broken = "slashed more than silence costs";
        _slashed[mediator] += taken;
        if (taken > 0) ++slashes;
    }

    function equivocate(uint256 who, uint256 salt) external {
        if (salt % 8 != 0) return; // seldom: it is for ever
        uint256 key = keys[who % 5];
        address mediator = vm.addr(key);
        _choose(salt);
        uint256 before = _bonded(mediator);
        bool again = _equivocated[mediator];
        bytes memory call =
            abi.encodeCall(registry.slashEquivocation, (_termsHash(), _vote(key, 0, 1), _vote(key, 0, 2), 0));
        (bool done,) = address(registry).call(call);
        if (done == again || (done && _bonded(mediator) != 0)) broken = "an equivocator kept something";
        if (!done) return;
        _equivocated[mediator] = true;
        _slashed[mediator] += before;
        ++equivocations;
    }

    function collect(uint256 who) external {
        address account = who % 2 == 0 ? BOND_TREASURY : address(this);
        uint256 owed = registry.owedTo(account);
        if (owed == 0) return;
        uint256 before = token.balanceOf(account);
        vm.prank(account);
        registry.collect();
        if (token.balanceOf(account) != before + owed) broken = "a collection paid something else";
    }

    // The guardian

    function pause(uint256 duration) external {
        uint64 before = escrow.pausedUntil();
        bool early = block.timestamp < escrow.nextPauseAt();
        vm.prank(GUARDIAN);
        bool done = _try(abi.encodeCall(escrow.pause, (uint64(duration % 9 days))));
        if (done && early) broken = "a pause without a rest";
        if (!done && escrow.pausedUntil() != before) broken = "a pause by a refused call";
        if (escrow.pausedUntil() > block.timestamp + 7 days) broken = "a pause longer than a week";
    }

    function unpause(uint256 salt) external {
        if (salt % 4 != 0) return;
        vm.prank(GUARDIAN);
        escrow.unpause();
        if (_isPaused()) broken = "still paused";
    }

    // Time

    function wait_(uint256 seconds_) external {
        vm.warp(block.timestamp + bound(seconds_, 1, 60));
    }

    function waitLong(uint256 seconds_) external {
        if (seconds_ % 4 != 0) return; // else nothing but the clock would end a case
        vm.warp(block.timestamp + bound(seconds_, 1, 1 days));
    }

    // What must hold

    /// What the escrow owes of a currency: free balances and the locks of open cases.
    function owed(address money) external view returns (uint256 sum) {
        for (uint256 i = 0; i < 8; ++i) {
            sum += escrow.balanceOf(money, _account(i));
        }
        ITribunalEscrow.Terms memory it = terms;
        for (uint256 i = 0; i < CASES; ++i) {
            it.dealId = bytes32(_generation[i] << 128 | i);
            it.pricing = uint8(1 + i % 2);
            it.price = i % 2 == 0 ? 700 + i : 3;
            it.token = i < CASES / 2 ? address(token) : address(0);
            ITribunalEscrow.State state = escrow.caseOf(escrow.hashTerms(it)).state;
            if (it.token != money) continue;
            if (state == ITribunalEscrow.State.None || state == ITribunalEscrow.State.Settled) continue;
            uint256 ofClient = it.paymentCollateral + it.judgeCollateral + it.mediationFee;
            sum += ofClient + it.resultsCollateral + it.submitCollateral + it.mediationFee;
        }
    }

    function held(address money) external view returns (uint256) {
        return _own(money, address(escrow));
    }

    /// What the registry owes: bonds and what slashes left.
    function owedByRegistry() external view returns (uint256 sum) {
        for (uint256 i = 0; i < 5; ++i) {
            sum += _bonded(mediation.mediators[i]);
        }
        sum += registry.owedTo(BOND_TREASURY) + registry.owedTo(address(this));
    }

    function heldByRegistry() external view returns (uint256) {
        return token.balanceOf(address(registry));
    }

    function currency() external view returns (address) {
        return address(token);
    }

    /// From here everybody gets out whatever the others do: cases end by the clock, brought by anyone, while it is
    /// paused; every balance, bond and slash can be taken.
    function everybodyOut() external {
        vm.warp(block.timestamp + 40 days);
        vm.prank(GUARDIAN);
        escrow.pause(7 days);
        for (uint256 i = 0; i < CASES; ++i) {
            _choose(i);
            vm.prank(address(uint160(0xdead + i)));
            _expire();
        }
        for (uint256 i = 0; i < 5; ++i) {
            address mediator = mediation.mediators[i];
            uint256 active = registry.bondOf(mediator).active;
            if (active == 0) continue;
            vm.prank(mediator);
            registry.startUnbond(active);
        }
        vm.warp(block.timestamp + DELAY);
        assertTrue(_isPaused(), "paused to the end");
        for (uint256 i = 0; i < 8; ++i) {
            address account = _account(i);
            for (uint256 k = 0; k < 2; ++k) {
                address money = k == 0 ? address(token) : address(0);
                uint256 all = escrow.balanceOf(money, account);
                if (all == 0) continue;
                vm.prank(account);
                escrow.withdraw(money, all);
            }
            if (i < 3 || registry.bondOf(account).unbonding == 0) continue;
            vm.prank(account);
            registry.finishUnbond();
        }
        address[2] memory collectors = [BOND_TREASURY, address(this)];
        for (uint256 i = 0; i < 2; ++i) {
            if (registry.owedTo(collectors[i]) == 0) continue;
            vm.prank(collectors[i]);
            registry.collect();
        }
        assertEq(token.balanceOf(address(escrow)), 0, "tokens are stuck in the escrow");
        assertEq(address(escrow).balance, 0, "native coin is stuck in the escrow");
        assertEq(token.balanceOf(address(registry)), 0, "bonds are stuck");
    }

    function _account(uint256 index) private view returns (address) {
        if (index == 0) return terms.client;
        if (index == 1) return terms.provider;
        if (index == 2) return DEAL_TREASURY;
        return vm.addr(keys[index - 3]);
    }

    function _own(address money, address account) private view returns (uint256) {
        return money == address(0) ? account.balance : token.balanceOf(account);
    }

    function _bonded(address mediator) private view returns (uint256) {
        IMediatorRegistry.Bond memory it = registry.bondOf(mediator);
        return it.active + it.unbonding;
    }

    function _isPaused() private view returns (bool) {
        return block.timestamp < escrow.pausedUntil();
    }

    function _try(bytes memory call) private returns (bool done) {
        (done,) = address(escrow).call(call);
    }

    function _watch() private {
        bytes32 termsHash = _termsHash();
        ITribunalEscrow.Outcome before = _ended[termsHash];
        ITribunalEscrow.Outcome now_ = _outcome();
        if (before != ITribunalEscrow.Outcome.None && before != now_) broken = "a settled case changed";
        bool ended = _state() == ITribunalEscrow.State.Settled;
        if (ended != (now_ != ITribunalEscrow.Outcome.None)) broken = "an outcome without an end";
        if (ended && before == ITribunalEscrow.Outcome.None) {
            ++settled;
            if (terms.token == address(0)) ++settledNative;
        }
        _ended[termsHash] = now_;
    }

    /// What was bonded when a case opened is there until a day after its last round, but for what slashes took.
    function _watchStakes() private {
        for (uint256 i = 0; i < CASES; ++i) {
            _choose(i);
            bytes32 termsHash = _termsHash();
            uint256 openedAt = escrow.caseOf(termsHash).openedAt;
            if (openedAt == 0 || block.timestamp >= openedAt + DELAY) continue;
            for (uint256 k = 0; k < 5; ++k) {
                address mediator = mediation.mediators[k];
                Stake memory then = _stakes[termsHash][mediator];
                uint256 there = _bonded(mediator) + _slashed[mediator] - then.slashed;
                if (there < then.active) broken = "a bond left before the last round";
            }
        }
    }
}

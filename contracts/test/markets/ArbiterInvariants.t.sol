// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Cheats} from "../Cheats.sol";
import {PanelFixture} from "./PanelFixture.sol";
import {Attestation} from "../../src/markets/alkahest/Eas.sol";
import {IPanelVotes} from "../../src/markets/IPanelVotes.sol";
import {ITribunalArbiter} from "../../src/markets/ITribunalArbiter.sol";
import {TribunalArbiter} from "../../src/markets/TribunalArbiter.sol";

/// @notice Mediators who sign this and that, and bringers who bring what was signed, or forge what was not.
contract ArbiterPlayers is PanelFixture {
    uint256 internal constant CASES = 6;
    uint256 internal constant STATEMENTS = 8;

    struct Statement {
        uint8 verdict;
        uint8 grade;
        bytes32 digest;
    }

    struct Seen {
        uint8 verdict;
        uint8 grade;
        bytes32 digest;
        uint256 decidedAt;
    }

    TribunalArbiter public arbiter;
    /// A decision that nobody's quorum had signed was taken, one that should have been was not, or one changed.
    string public broken;
    uint256 public validCount;
    uint256 public invalidCount;
    uint256 public inconclusiveCount;
    uint256 public forgeryCount;

    /// Who signed what, bit by place on the case's panel: counted here, apart from the contract.
    mapping(uint256 index => mapping(uint256 statement => uint256)) private _signedBy;
    mapping(uint256 index => Seen) private _seen;

    modifier watched() {
        _;
        for (uint256 index = 0; index < CASES; ++index) {
            _watch(index);
        }
    }

    function start() external {
        vm.warp(1_000_000);
        arbiter = new TribunalArbiter();
        _makeKeys(5);
    }

    /// One mediator signs one statement, true or not; some sign several.
    function sign(uint256 index, uint256 statement, uint256 place) public {
        index %= CASES;
        _signedBy[index][statement % STATEMENTS] |= 1 << (place % _panelSize(index));
    }

    /// Some of those who signed, with a forged signature for the rest of the chosen places.
    function bring(uint256 index, uint256 statement, uint256 places, bool forge) public watched {
        index %= CASES;
        statement %= STATEMENTS;
        uint256 signers = _signedBy[index][statement];
        places = places % (1 << _panelSize(index));
        if (!forge) places &= signers;
        if (places & ~signers != 0) ++forgeryCount;
        bool expected = places & ~signers == 0 && _count(places) >= _quorum(index) && _isOpen(index, statement);
        if (_bring(index, statement, places) != expected) broken = "taken or refused against the rules";
    }

    /// Honest mediators agree, so that cases come to an end.
    function agree(uint256 index, uint256 statement, uint256 from) external {
        index %= CASES;
        for (uint256 i = 0; i < _quorum(index); ++i) {
            sign(index, statement, from % 5 + i);
        }
        bring(index, statement, type(uint256).max, false);
    }

    /// What was signed for one case is brought for another.
    function replay(uint256 index, uint256 other, uint256 statement) external watched {
        index %= CASES;
        other %= CASES;
        statement %= STATEMENTS;
        uint256 places = _signedBy[index][statement];
        if (index == other || places == 0) return;
        IPanelVotes.Vote[] memory votes = _votes(index, statement, places, places);
        Statement memory said = _statement(statement);
        bytes memory call =
            abi.encodeCall(arbiter.decide, (_uid(other), _demand(other), said.verdict, said.grade, said.digest, votes));
        (bool done,) = address(arbiter).call(call);
        if (done) broken = "replayed";
    }

    function wait_(uint256 time) external {
        vm.warp(block.timestamp + time % 1 days);
    }

    /// Whether a quorum of the case's mediators signed one valid statement of a sufficient grade.
    function deserves(uint256 index) public view returns (bool) {
        for (uint256 i = 0; i < STATEMENTS; ++i) {
            Statement memory said = _statement(i);
            bool good = said.verdict == VALID && said.grade >= _minGrade(index);
            if (good && _count(_signedBy[index][i]) >= _quorum(index)) return true;
        }
        return false;
    }

    function paid(uint256 index) public view returns (bool) {
        Attestation memory it;
        it.uid = _uid(index);
        return arbiter.check(it, _demand(index), 0);
    }

    function caseCount() external pure returns (uint256) {
        return CASES;
    }

    function _watch(uint256 index) private {
        (uint8 verdict, uint8 grade, bytes32 digest, uint256 decidedAt) = arbiter.verdictOf(_uid(index), _demand(index));
        Seen memory before = _seen[index];
        bool definite = before.verdict == VALID || before.verdict == INVALID;
        bool same = before.verdict == verdict && before.grade == grade && before.digest == digest
            && before.decidedAt == decidedAt;
        if (definite && !same) broken = "a definite decision changed";
        if (before.verdict == INCONCLUSIVE && !same && verdict != VALID && verdict != INVALID) {
            broken = "an inconclusive decision gave way to none";
        }
        if (same) return;
        if (verdict == VALID) ++validCount;
        else if (verdict == INVALID) ++invalidCount;
        else ++inconclusiveCount;
        _seen[index] = Seen(verdict, grade, digest, decidedAt);
    }

    function _isOpen(uint256 index, uint256 statement) private view returns (bool) {
        uint8 before = _seen[index].verdict;
        return before == 0 || (before == INCONCLUSIVE && _statement(statement).verdict != INCONCLUSIVE);
    }

    function _bring(uint256 index, uint256 statement, uint256 places) private returns (bool done) {
        IPanelVotes.Vote[] memory votes = _votes(index, statement, places, _signedBy[index][statement]);
        Statement memory said = _statement(statement);
        bytes memory call =
            abi.encodeCall(arbiter.decide, (_uid(index), _demand(index), said.verdict, said.grade, said.digest, votes));
        (done,) = address(arbiter).call(call);
    }

    function _votes(uint256 index, uint256 statement, uint256 places, uint256 signers)
        private
        view
        returns (IPanelVotes.Vote[] memory votes)
    {
        votes = new IPanelVotes.Vote[](_count(places));
        Statement memory said = _statement(statement);
        bytes32 key = arbiter.keyOf(_uid(index), _demand(index));
        bytes32 digest = arbiter.hashArbitration(key, said.verdict, said.grade, said.digest);
        uint256 next = 0;
        for (uint256 place = 0; place < 5; ++place) {
            if (places & (1 << place) == 0) continue;
            bool signed = signers & (1 << place) != 0;
            votes[next++] = IPanelVotes.Vote(vm.addr(keys[place]), _sign(signed ? keys[place] : 0xbad, digest));
        }
    }

    function _statement(uint256 index) private pure returns (Statement memory) {
        uint8[STATEMENTS] memory verdicts = [1, 1, 1, 2, 2, 3, 3, 1];
        uint8[STATEMENTS] memory grades = [100, 60, 0, 0, 100, 0, 0, 100];
        return Statement(verdicts[index], grades[index], keccak256(abi.encode("evidence", index)));
    }

    /// Two fulfilments under three demands.
    function _uid(uint256 index) private pure returns (bytes32) {
        return keccak256(abi.encode("fulfilment", index / 3));
    }

    function _panelSize(uint256 index) private pure returns (uint256) {
        return index % 3 == 2 ? 3 : 5;
    }

    function _quorum(uint256 index) private pure returns (uint8) {
        return index % 3 == 2 ? 2 : index % 3 == 1 ? 4 : 3;
    }

    function _minGrade(uint256 index) private pure returns (uint8) {
        return index % 3 == 2 ? 100 : index % 3 == 1 ? 50 : 0;
    }

    function _demand(uint256 index) private view returns (bytes memory) {
        address[] memory panel = new address[](_panelSize(index));
        for (uint256 i = 0; i < panel.length; ++i) {
            panel[i] = vm.addr(keys[i]);
        }
        return abi.encode(ITribunalArbiter.DemandData(panel, _quorum(index), _minGrade(index), "work"));
    }

    function _count(uint256 bits) private pure returns (uint256 count) {
        for (; bits != 0; bits &= bits - 1) {
            ++count;
        }
    }
}

contract ArbiterInvariantsTest is Cheats {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    ArbiterPlayers private players;

    function setUp() public {
        players = new ArbiterPlayers();
        players.start();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(players);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        bytes4[] memory selectors = new bytes4[](7);
        selectors[0] = ArbiterPlayers.sign.selector;
        selectors[1] = ArbiterPlayers.sign.selector;
        selectors[2] = ArbiterPlayers.bring.selector;
        selectors[3] = ArbiterPlayers.bring.selector;
        selectors[4] = ArbiterPlayers.agree.selector;
        selectors[5] = ArbiterPlayers.replay.selector;
        selectors[6] = ArbiterPlayers.wait_.selector;
        list = new FuzzSelector[](1);
        list[0] = FuzzSelector(address(players), selectors);
    }

    function invariant_definiteNeverChangesAndOnlyAQuorumDecides() external view {
        string memory broken = players.broken();
        assertTrue(bytes(broken).length == 0, broken);
    }

    /// The escrow is paid only for what a quorum of the demand's mediators signed as valid and good enough.
    function invariant_paidOnlyForWhatAQuorumSigned() external view {
        for (uint256 index = 0; index < players.caseCount(); ++index) {
            assertTrue(!players.paid(index) || players.deserves(index), "paid");
        }
    }

    /// The run has seen what it is about.
    function afterInvariant() external view {
        assertTrue(players.validCount() + players.invalidCount() > 0, "definite decisions");
        assertTrue(players.forgeryCount() > 0, "forgeries");
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AlkahestFixture} from "./AlkahestFixture.sol";
import {MarketVm} from "./MarketCheats.sol";
import {OwnedWallet, PanelFixture} from "./PanelFixture.sol";
import {IArbiter, IArbiterOld, IArbiterOldest} from "../../src/markets/alkahest/Arbiters.sol";
import {Attestation} from "../../src/markets/alkahest/Eas.sol";
import {MarketAllArbiter} from "../../src/markets/alkahest/MarketAllArbiter.sol";
import {MarketEscrowBase} from "../../src/markets/alkahest/MarketEscrowBase.sol";
import {IPanelVotes} from "../../src/markets/IPanelVotes.sol";
import {ITribunalArbiter, IValidationRegistry, IValidationResponses} from "../../src/markets/ITribunalArbiter.sol";
import {TribunalArbiter} from "../../src/markets/TribunalArbiter.sol";

/// @notice A registry that takes a response from the validator of a request only.
contract SmallRegistry is IValidationRegistry {
    address public immutable validator;
    bytes32 public immutable requestHash;
    uint8 public response;
    bytes32 public responseHash;
    bool public answered;

    constructor(address validator_, bytes32 requestHash_) {
        validator = validator_;
        requestHash = requestHash_;
    }

    function validationResponse(
        bytes32 hash,
        uint8 response_,
        string calldata,
        bytes32 responseHash_,
        string calldata tag
    ) external {
        require(msg.sender == validator && hash == requestHash, "not validator");
        require(keccak256(bytes(tag)) == keccak256("tribunal"), "tag");
        (response, responseHash, answered) = (response_, responseHash_, true);
    }
}

contract TribunalArbiterTest is AlkahestFixture, PanelFixture {
    TribunalArbiter private arbiter;
    ITribunalArbiter.DemandData private wanted;
    bytes32 private escrowUid;
    bytes32 private uid;

    function setUp() public override {
        super.setUp();
        arbiter = new TribunalArbiter();
        _makeKeys(5);
        wanted = ITribunalArbiter.DemandData(_addresses(), 3, 0, "run it again");
        escrowUid = _escrow(address(arbiter), _demand());
        uid = _fulfil(escrowUid);
    }

    // What pays

    function test_decide_succeedsIfAQuorumSaysValid() external {
        assertTrue(!_check(), "not yet");
        mvm.recordLogs();
        _decide(VALID, 100, 3);
        MarketVm.Log[] memory logs = mvm.getRecordedLogs();
        assertBytes32(logs[0].topics[0], ITribunalArbiter.ArbitrationDecided.selector, "topic");
        assertBytes32(logs[0].topics[1], _key(), "key");
        assertBytes32(logs[0].topics[2], uid, "fulfilment");
        assertBytes32(logs[0].topics[3], bytes32(uint256(VALID)), "verdict");
        bytes memory data = abi.encode(uint8(100), DIGEST, uint32(0x7));
        assertBytes32(keccak256(logs[0].data), keccak256(data), "grade, digest, voters");
        assertTrue(_check(), "valid");
        market.collect(escrowUid, uid);
        assertEq(token.balanceOf(SELLER), AMOUNT, "paid");
    }

    function test_decide_succeedsForEveryGeneration() external {
        escrowUid = _oldEscrow(address(arbiter), _demand());
        uid = _fulfil(escrowUid);
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        oldMarket.collectEscrow(escrowUid, uid);
        _decide(VALID, 100, 3);
        assertTrue(arbiter.checkStatement(_attestation(uid), _demand(), escrowUid), "oldest name");
        oldMarket.collectEscrow(escrowUid, uid);
        assertEq(token.balanceOf(SELLER), AMOUNT, "paid");
    }

    function test_decide_tellsNoFromNotYet() external {
        _assertVerdict(0, 0, 0, 0);
        _decide(INVALID, 20, 3);
        _assertVerdict(INVALID, 20, DIGEST, block.timestamp);
        assertTrue(!_check(), "invalid");
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        market.collect(escrowUid, uid);
    }

    function test_decide_countsForItsFulfilmentAndItsDemandOnly() external {
        _decide(VALID, 100, 3);
        assertTrue(!arbiter.check(_attestation(_fulfil(escrowUid)), _demand(), escrowUid), "another fulfilment");
        wanted.data = "run it twice";
        assertTrue(!_check(), "another demand");
    }

    function test_check_asksForTheLeastGrade() external {
        wanted.minGrade = 80;
        _decide(VALID, 79, 3);
        assertTrue(!_check(), "not good enough");
        wanted.minGrade = 79;
        _decide(VALID, 79, 3);
        assertTrue(_check(), "good enough");
    }

    function test_check_isOneAmongOthers() external {
        MarketAllArbiter.DemandData memory both = MarketAllArbiter.DemandData(new address[](1), new bytes[](1));
        (both.arbiters[0], both.demands[0]) = (address(arbiter), _demand());
        escrowUid = _escrow(address(all), abi.encode(both));
        uid = _fulfil(escrowUid);
        // Mediators judge by their own element of the demand.
        _decide(VALID, 100, 3);
        market.collect(escrowUid, uid);
        assertEq(token.balanceOf(SELLER), AMOUNT, "paid");
    }

    function test_check_isNoForARevokedOrExpiredFulfilment() external {
        escrowUid = _oldEscrow(address(arbiter), _demand());
        uint64 expires = uint64(block.timestamp + 10);
        uid = _fulfilOpenly(escrowUid, expires);
        _decide(VALID, 100, 3);
        vm.warp(expires - 1);
        assertTrue(_check(), "a second before");
        vm.warp(expires);
        assertTrue(!_check(), "expired");
        uid = _fulfilOpenly(escrowUid, 0);
        _decide(VALID, 100, 3);
        assertTrue(_check(), "in force");
        _revokeOpenly(uid);
        assertTrue(!_check(), "revoked");
        // An escrow of the generation that does not ask for itself.
        vm.expectRevert(abi.encodeWithSelector(MarketEscrowBase.InvalidFulfillment.selector));
        oldMarket.collectEscrow(escrowUid, uid);
    }

    function testFuzz_check_isNoForRubbish(bytes calldata rubbish) external view {
        assertTrue(!arbiter.check(_attestation(uid), rubbish, escrowUid), "check");
        assertTrue(!arbiter.checkObligation(_attestation(uid), rubbish, escrowUid), "checkObligation");
        assertTrue(!arbiter.checkStatement(_attestation(uid), rubbish, escrowUid), "checkStatement");
        (uint8 verdict,,,) = arbiter.verdictOf(uid, rubbish);
        assertEq(verdict, 0, "verdict");
    }

    // What is final

    function test_decide_failsIfADefiniteOneIsThere() external {
        uint8[2] memory definite = [VALID, INVALID];
        for (uint256 i = 0; i < 2; ++i) {
            uid = _fulfil(escrowUid);
            _decide(definite[i], 50, 3);
            for (uint8 verdict = VALID; verdict <= INCONCLUSIVE; ++verdict) {
                _expectDecided(definite[i]);
                this.decide(verdict, 100, 5);
            }
            _assertVerdict(definite[i], 50, DIGEST, block.timestamp);
        }
    }

    function test_decide_replacesAnInconclusiveOneByADefiniteOneOnly() external {
        _decide(INCONCLUSIVE, 0, 3);
        _assertVerdict(INCONCLUSIVE, 0, DIGEST, block.timestamp);
        assertTrue(!_check(), "inconclusive");
        _expectDecided(INCONCLUSIVE);
        this.decide(INCONCLUSIVE, 1, 3);
        _decide(VALID, 90, 3);
        _assertVerdict(VALID, 90, DIGEST, block.timestamp);
        assertTrue(_check(), "valid");
    }

    // What is refused

    function test_decide_failsIfTheDemandIsImpossible() external {
        // As the fixture has it, it is possible.
        _decide(INCONCLUSIVE, 0, 3);
        wanted.quorum = 2;
        _expectRefusal();
        wanted.quorum = 6;
        _expectRefusal();
        wanted.quorum = 0;
        _expectRefusal();
        wanted.quorum = 3;
        wanted.minGrade = 101;
        _expectRefusal();
        wanted.minGrade = 0;
        (wanted.mediators[0], wanted.mediators[1]) = (wanted.mediators[1], wanted.mediators[0]);
        _expectRefusal();
        wanted.mediators[0] = wanted.mediators[1];
        _expectRefusal();
        wanted.mediators[0] = address(0);
        _expectRefusal();
        delete wanted.mediators;
        _expectRefusal();
        _makeKeys(32);
        wanted.mediators = _addresses();
        wanted.quorum = 17;
        _expectRefusal();
    }

    /// Half of an even panel is no majority: two halves could decide contrarily.
    function test_decide_failsIfTheQuorumIsHalf() external {
        _makeKeys(4);
        wanted.mediators = _addresses();
        wanted.quorum = 2;
        vm.expectRevert(abi.encodeWithSelector(ITribunalArbiter.WrongDemand.selector));
        this.decide(VALID, 100, 4);
        wanted.quorum = 3;
        _decide(VALID, 100, 3);
    }

    function test_decide_succeedsForOneAndForThirtyOne() external {
        _makeKeys(1);
        wanted.mediators = _addresses();
        wanted.quorum = 1;
        _decide(VALID, 100, 1);
        assertTrue(_check(), "one");
        _makeKeys(31);
        wanted.mediators = _addresses();
        wanted.quorum = 31;
        _decide(VALID, 100, 31);
        assertTrue(_check(), "thirty-one");
    }

    function test_decide_failsIfTheDemandIsRubbish() external {
        IPanelVotes.Vote[] memory votes = _votesOf(3, 0);
        vm.expectRevert(bytes(""));
        arbiter.decide(uid, "rubbish", VALID, 100, DIGEST, votes);
    }

    function test_decide_failsIfTheVerdictOrTheGradeIsOutOfRange() external {
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongVerdict.selector, uint8(0)));
        this.decide(0, 100, 3);
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongVerdict.selector, uint8(4)));
        this.decide(4, 100, 3);
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongGrade.selector, uint8(101)));
        this.decide(VALID, 101, 3);
    }

    function test_decide_failsIfVotesAreMissing() external {
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.NotEnoughVotes.selector, 2, 3));
        this.decide(VALID, 100, 2);
    }

    function test_decide_failsIfAVoterComesTwiceOrOutOfOrderOrFromOutside() external {
        IPanelVotes.Vote[] memory votes = _votesOf(3, _signed(VALID, 100));
        votes[2] = votes[1];
        _expectOutOfPlace(votes, votes[1].mediator);
        votes = _votesOf(3, _signed(VALID, 100));
        (votes[0], votes[2]) = (votes[2], votes[0]);
        _expectOutOfPlace(votes, votes[1].mediator);
        votes = _votesOf(3, _signed(VALID, 100));
        votes[2] = _vote(0xbad, _signed(VALID, 100));
        _expectOutOfPlace(votes, vm.addr(0xbad));
    }

    function test_decide_failsIfAVoteIsOverSomethingElse() external {
        bytes32 key = _key();
        _expectWrongSignature(arbiter.hashArbitration(key, INVALID, 100, DIGEST));
        _expectWrongSignature(arbiter.hashArbitration(key, VALID, 99, DIGEST));
        _expectWrongSignature(arbiter.hashArbitration(key, VALID, 100, keccak256("other evidence")));
        _expectWrongSignature(arbiter.hashArbitration(keccak256("another key"), VALID, 100, DIGEST));
        _expectWrongSignature(new TribunalArbiter().hashArbitration(key, VALID, 100, DIGEST));
    }

    function test_decide_failsIfOneVoteMoreThanEnoughIsWrong() external {
        IPanelVotes.Vote[] memory votes = _votesOf(4, _signed(VALID, 100));
        votes[3].signature = votes[2].signature;
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongSignature.selector, votes[3].mediator));
        arbiter.decide(uid, _demand(), VALID, 100, DIGEST, votes);
    }

    // Wallets

    function test_decide_succeedsWithAWalletsVote() external {
        OwnedWallet wallet = new OwnedWallet(vm.addr(0x3a1));
        IPanelVotes.Vote[] memory votes = _withWallet(wallet, 0x3a1);
        arbiter.decide(uid, _demand(), VALID, 100, DIGEST, votes);
        assertTrue(_check(), "valid");
    }

    function test_decide_failsIfAWalletSaysNo() external {
        OwnedWallet wallet = new OwnedWallet(vm.addr(0x3a1));
        IPanelVotes.Vote[] memory votes = _withWallet(wallet, 0xbad);
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongSignature.selector, address(wallet)));
        arbiter.decide(uid, _demand(), VALID, 100, DIGEST, votes);
        votes = _withWallet(wallet, 0x3a1);
        wallet.goMad();
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongSignature.selector, address(wallet)));
        arbiter.decide(uid, _demand(), VALID, 100, DIGEST, votes);
    }

    // Requests, hashes, interfaces

    function test_requestArbitration_tellsWhatToLookFor() external {
        mvm.recordLogs();
        vm.prank(SELLER);
        arbiter.requestArbitration(uid, _demand());
        MarketVm.Log memory log = mvm.getRecordedLogs()[0];
        assertBytes32(log.topics[0], keccak256("ArbitrationRequested(bytes32,bytes32,address,bytes)"), "topic");
        assertBytes32(log.topics[1], _key(), "key");
        assertBytes32(log.topics[2], uid, "fulfilment");
        assertBytes32(log.topics[3], bytes32(uint256(uint160(SELLER))), "requester");
        assertBytes32(keccak256(log.data), keccak256(abi.encode(_demand())), "demand");
        _assertVerdict(0, 0, 0, 0);
    }

    function test_hashes_areThoseOfEip712() external view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Tribunal"),
                keccak256("1"),
                block.chainid,
                address(arbiter)
            )
        );
        assertBytes32(arbiter.domainSeparator(), domain, "domain");
        bytes32 key = keccak256(abi.encode(block.chainid, address(arbiter), uid, keccak256(_demand())));
        assertBytes32(_key(), key, "key");
        bytes32 structHash = keccak256(
            abi.encode(
                keccak256("Arbitration(bytes32 key,uint8 verdict,uint8 grade,bytes32 digest)"), key, 1, 90, DIGEST
            )
        );
        bytes32 expected = keccak256(abi.encodePacked(hex"1901", domain, structHash));
        assertBytes32(arbiter.hashArbitration(key, 1, 90, DIGEST), expected, "arbitration");
    }

    function test_supportsInterface_namesEveryGeneration() external view {
        assertTrue(arbiter.supportsInterface(0x01ffc9a7), "ERC-165");
        assertTrue(arbiter.supportsInterface(IArbiter.check.selector), "check");
        assertTrue(arbiter.supportsInterface(IArbiterOld.checkObligation.selector), "checkObligation");
        assertTrue(arbiter.supportsInterface(IArbiterOldest.checkStatement.selector), "checkStatement");
        assertTrue(!arbiter.supportsInterface(0xffffffff), "nothing");
    }

    // ERC-8004

    function test_selectorsAndTopicAreThoseOfErc8004() external pure {
        assertBytes4(
            IValidationResponses.getValidationStatus.selector,
            bytes4(keccak256("getValidationStatus(bytes32)")),
            "getValidationStatus"
        );
        assertBytes4(
            IValidationRegistry.validationResponse.selector,
            bytes4(keccak256("validationResponse(bytes32,uint8,string,bytes32,string)")),
            "validationResponse"
        );
        assertBytes32(
            IValidationResponses.ValidationResponse.selector,
            keccak256("ValidationResponse(address,uint256,bytes32,uint8,string,bytes32,string)"),
            "ValidationResponse"
        );
    }

    function test_validationStatus_isTheGradeOfAValidVerdict() external {
        mvm.recordLogs();
        _decide(VALID, 87, 3);
        MarketVm.Log memory log = mvm.getRecordedLogs()[1];
        assertBytes32(log.topics[0], IValidationResponses.ValidationResponse.selector, "topic");
        assertBytes32(log.topics[1], bytes32(uint256(uint160(address(arbiter)))), "validator");
        assertBytes32(log.topics[2], 0, "agent");
        assertBytes32(log.topics[3], _key(), "request");
        assertBytes32(keccak256(log.data), keccak256(abi.encode(uint8(87), "", DIGEST, "tribunal")), "response");
        (address validator, uint256 agent, uint8 response, bytes32 hash, string memory tag, uint256 time) =
            arbiter.getValidationStatus(_key());
        assertAddress(validator, address(arbiter), "validator");
        assertEq(agent, 0, "agent");
        assertEq(response, 87, "response");
        assertBytes32(hash, DIGEST, "hash");
        assertBytes32(keccak256(bytes(tag)), keccak256("tribunal"), "tag");
        assertEq(time, block.timestamp, "time");
    }

    /// The five values that Alkahest's ERC8004Arbiter decodes, of which it reads the first three.
    function test_validationStatus_isReadableInTheShapeBefore() external {
        _decide(VALID, 87, 3);
        bytes32 key = _key();
        (bool done, bytes memory answer) =
            address(arbiter).staticcall(abi.encodeCall(arbiter.getValidationStatus, (key)));
        assertTrue(done, "answered");
        (address validator,, uint8 response,,) = abi.decode(answer, (address, uint256, uint8, bytes32, uint256));
        assertAddress(validator, address(arbiter), "validator");
        assertEq(response, 87, "response");
    }

    function test_validationStatus_isNothingBeforeADefiniteVerdict() external {
        bytes32 key = _key();
        vm.expectRevert(abi.encodeWithSelector(ITribunalArbiter.NotDefinite.selector, key));
        arbiter.getValidationStatus(key);
        mvm.recordLogs();
        _decide(INCONCLUSIVE, 50, 3);
        assertEq(mvm.getRecordedLogs().length, 1, "no response");
        vm.expectRevert(abi.encodeWithSelector(ITribunalArbiter.NotDefinite.selector, key));
        arbiter.getValidationStatus(key);
        _decide(INVALID, 50, 3);
        (,, uint8 response,,,) = arbiter.getValidationStatus(key);
        assertEq(response, 0, "failed");
    }

    function test_respond_tellsARegistry() external {
        SmallRegistry registry = new SmallRegistry(address(arbiter), _key());
        bytes32 key = _key();
        vm.expectRevert(abi.encodeWithSelector(ITribunalArbiter.NotDefinite.selector, key));
        arbiter.respond(registry, key);
        _decide(VALID, 87, 3);
        arbiter.respond(registry, key);
        assertTrue(registry.answered(), "answered");
        assertEq(registry.response(), 87, "response");
        assertBytes32(registry.responseHash(), DIGEST, "hash");
    }

    // All votes at once

    /// Each mediator says something, or nothing; whatever is brought, only a real quorum decides.
    function testFuzz_decide_succeedsIfAndOnlyIfAQuorumSignedExactlyThat(
        uint256 seed,
        uint8 quorum,
        uint8 minGrade,
        uint8 verdict,
        uint8 grade
    ) external {
        wanted.quorum = uint8(bound(quorum, 3, 5));
        wanted.minGrade = uint8(bound(minGrade, 0, 100));
        verdict = uint8(bound(verdict, VALID, INCONCLUSIVE));
        grade = uint8(bound(grade, 0, 100));
        bytes memory demand = _demand();
        uint256 brought;
        bool right = true;
        IPanelVotes.Vote[] memory votes = new IPanelVotes.Vote[](5);
        for (uint256 i = 0; i < 5; ++i) {
            uint256 salt = uint256(keccak256(abi.encode(seed, i)));
            if (salt % 4 == 0) continue;
            // Mostly what is brought, sometimes a neighbour of it.
            bool same = salt % 16 > 3;
            uint8 said = same ? verdict : verdict % 3 + 1;
            right = right && same;
            votes[brought++] = _vote(keys[i], _signed(said, grade));
        }
        assembly ("memory-safe") {
            mstore(votes, brought)
        }
        bytes memory call = abi.encodeCall(arbiter.decide, (uid, demand, verdict, grade, DIGEST, votes));
        (bool done,) = address(arbiter).call(call);
        bool quorate = right && brought >= wanted.quorum;
        assertTrue(done == quorate, "decided");
        assertTrue(_check() == (quorate && verdict == VALID && grade >= wanted.minGrade), "check");
    }

    function decide(uint8 verdict, uint8 grade, uint256 count) external {
        _decide(verdict, grade, count);
    }

    function _decide(uint8 verdict, uint8 grade, uint256 count) private {
        IPanelVotes.Vote[] memory votes = _votesOf(count, _signed(verdict, grade));
        arbiter.decide(uid, _demand(), verdict, grade, DIGEST, votes);
    }

    function _withWallet(OwnedWallet wallet, uint256 key) private returns (IPanelVotes.Vote[] memory votes) {
        // The wallet takes the place that is its among the first two mediators and itself.
        address[] memory panel = new address[](3);
        (panel[0], panel[1], panel[2]) = (vm.addr(keys[0]), vm.addr(keys[1]), address(wallet));
        uint256 place = 2;
        for (; place > 0 && panel[place - 1] > panel[place]; --place) {
            (panel[place - 1], panel[place]) = (panel[place], panel[place - 1]);
        }
        wanted.mediators = panel;
        wanted.quorum = 3;
        votes = new IPanelVotes.Vote[](3);
        bytes32 signed = _signed(VALID, 100);
        uint256 next = 0;
        for (uint256 i = 0; i < 3; ++i) {
            votes[i] = i == place ? IPanelVotes.Vote(address(wallet), _sign(key, signed)) : _vote(keys[next++], signed);
        }
    }

    function _expectDecided(uint8 verdict) private {
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.AlreadyDecided.selector, _key(), verdict));
    }

    function _expectRefusal() private {
        IPanelVotes.Vote[] memory votes = _votesOf(keys.length, _signed(VALID, 100));
        bytes memory demand = _demand();
        vm.expectRevert(abi.encodeWithSelector(ITribunalArbiter.WrongDemand.selector));
        arbiter.decide(uid, demand, VALID, 100, DIGEST, votes);
    }

    function _expectOutOfPlace(IPanelVotes.Vote[] memory votes, address mediator) private {
        bytes memory demand = _demand();
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.VoteOutOfPlace.selector, mediator));
        arbiter.decide(uid, demand, VALID, 100, DIGEST, votes);
    }

    function _expectWrongSignature(bytes32 signed) private {
        IPanelVotes.Vote[] memory votes = _votesOf(3, _signed(VALID, 100));
        votes[1] = _vote(keys[1], signed);
        bytes memory demand = _demand();
        vm.expectRevert(abi.encodeWithSelector(IPanelVotes.WrongSignature.selector, votes[1].mediator));
        arbiter.decide(uid, demand, VALID, 100, DIGEST, votes);
    }

    function _assertVerdict(uint8 verdict, uint8 grade, bytes32 digest, uint256 time) private view {
        (uint8 verdict_, uint8 grade_, bytes32 digest_, uint256 time_) = arbiter.verdictOf(uid, _demand());
        assertEq(verdict_, verdict, "verdict");
        assertEq(grade_, grade, "grade");
        assertBytes32(digest_, digest, "digest");
        assertEq(time_, time, "time");
    }

    function _check() private view returns (bool) {
        return arbiter.check(_attestation(uid), _demand(), escrowUid);
    }

    function _demand() private view returns (bytes memory) {
        return abi.encode(wanted);
    }

    function _key() private view returns (bytes32) {
        return arbiter.keyOf(uid, _demand());
    }

    function _signed(uint8 verdict, uint8 grade) private view returns (bytes32) {
        return arbiter.hashArbitration(_key(), verdict, grade, DIGEST);
    }
}

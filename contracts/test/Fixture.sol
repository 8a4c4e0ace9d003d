// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Cheats} from "./Cheats.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";
import {MediatorRegistry} from "../src/MediatorRegistry.sol";
import {TestToken} from "../src/TestToken.sol";
import {TribunalEscrow} from "../src/TribunalEscrow.sol";

/// @notice Deployed contracts, a deal between a client and a provider before five mediators, and who signs what.
abstract contract Fixture is Cheats {
    uint256 internal constant CLIENT = 0xc1;
    uint256 internal constant PROVIDER = 0xb0;
    uint256 internal constant OPERATOR = 0x0b;
    bytes32 internal constant CLIENT_SEED = keccak256("client's seed");
    bytes32 internal constant PROVIDER_SEED = keccak256("provider's seed");
    bytes32 internal constant CLAIM = keccak256("claim");
    address internal constant DEAL_TREASURY = address(0x7ea5);
    address internal constant BOND_TREASURY = address(0xb07d);
    address internal constant GUARDIAN = address(0x6a4d);
    uint64 internal constant UNBOND_DELAY = 7 days;
    uint64 internal constant COUNT = 301;

    TestToken internal token;
    MediatorRegistry internal registry;
    TribunalEscrow internal escrow;

    ITribunalEscrow.Terms internal terms;
    ITribunalEscrow.Timeouts internal timeouts;
    ITribunalEscrow.Mediation internal mediation;
    /// Keys of `mediation.mediators`, in their order.
    uint256[] internal keys;

    function setUp() public virtual {
        vm.warp(1_000_000);
        _deploy(UNBOND_DELAY);
        for (uint256 key = 0xa1; key <= 0xa5; ++key) {
            keys.push(key);
        }
        _sortKeys();
        address[] memory mediators = new address[](5);
        for (uint256 i = 0; i < 5; ++i) {
            mediators[i] = vm.addr(keys[i]);
        }
        timeouts = ITribunalEscrow.Timeouts({
            agreeBy: 1_000_100, submit: 100, judge: 50, draw: 20, availability: 5, mediate: 30
        });
        mediation = ITribunalEscrow.Mediation({
            operator: vm.addr(OPERATOR),
            mediators: mediators,
            panelSize: 3,
            quorum: 2,
            redraws: 1,
            drawn: true,
            silenceSlash: 40
        });
        terms = ITribunalEscrow.Terms({
            dealId: keccak256("deal"),
            client: vm.addr(CLIENT),
            provider: vm.addr(PROVIDER),
            token: address(token),
            treasury: DEAL_TREASURY,
            price: 3,
            pricing: 2,
            paymentCollateral: 1000,
            resultsCollateral: 2001,
            submitCollateral: 51,
            judgeCollateral: 31,
            mediationFee: 103,
            victimBps: 3333,
            feeBps: 333,
            mediatorsHash: 0,
            timeoutsHash: 0,
            rule: 1
        });
        _bindHashes();
        _fund(terms.client, 10_000);
        _fund(terms.provider, 10_000);
    }

    function _deploy(uint64 unbondDelay) internal {
        token = new TestToken();
        address predicted = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        registry = new MediatorRegistry(token, predicted, BOND_TREASURY, unbondDelay);
        escrow = new TribunalEscrow(IMediatorRegistry(address(registry)), GUARDIAN);
    }

    /// The one mediator of the terms, without a draw.
    function _appoint() internal {
        delete mediation.mediators;
        mediation.mediators.push(vm.addr(keys[0]));
        mediation.panelSize = 1;
        mediation.quorum = 1;
        mediation.drawn = false;
        timeouts.draw = 0;
        _bindHashes();
    }

    /// Other contracts with that delay between unbonding and being paid; the deal moves there.
    function _redeploy(uint64 unbondDelay) internal {
        _deploy(unbondDelay);
        terms.token = address(token);
        _fund(terms.client, 10_000);
        _fund(terms.provider, 10_000);
    }

    function _bindHashes() internal {
        terms.mediatorsHash = escrow.hashMediation(mediation);
        terms.timeoutsHash = escrow.hashTimeouts(timeouts);
    }

    function _sortKeys() private {
        for (uint256 i = 1; i < keys.length; ++i) {
            for (uint256 j = i; j > 0 && vm.addr(keys[j]) < vm.addr(keys[j - 1]); --j) {
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
    }

    function _fund(address account, uint256 amount) internal {
        token.mint(account, amount);
        vm.startPrank(account);
        token.approve(address(escrow), amount);
        escrow.deposit(address(token), amount);
        vm.stopPrank();
    }

    function _bond(address mediator, uint256 amount) internal {
        token.mint(mediator, amount);
        vm.startPrank(mediator);
        token.approve(address(registry), amount);
        registry.bond(amount);
        registry.setOperator(mediation.operator, true);
        registry.setAppointmentSlashMax(amount);
        vm.stopPrank();
    }

    // Signatures

    function _sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _typed(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", escrow.domainSeparator(), structHash));
    }

    function _termsHash() internal view returns (bytes32) {
        return escrow.hashTerms(terms);
    }

    function _move(uint256 key, uint8 action, uint64 count, bytes32 data) internal view returns (bytes memory) {
        return _sign(key, escrow.hashMove(_termsHash(), action, count, data));
    }

    function _consent(uint256 key, bytes32 seed) internal view returns (ITribunalEscrow.Consent memory consent) {
        consent.commitment = mediation.drawn ? keccak256(abi.encode(seed)) : bytes32(0);
        consent.termsSig = _sign(key, _typed(_termsHash()));
        consent.agreeSig = _move(key, 1, 0, consent.commitment);
    }

    function _listDigest(string memory kind, string memory field, uint32 round, address[] memory list)
        private
        view
        returns (bytes32)
    {
        bytes32 typehash = keccak256(abi.encodePacked(kind, "(bytes32 termsHash,uint32 round,bytes32 ", field, ")"));
        return _typed(keccak256(abi.encode(typehash, _termsHash(), round, keccak256(abi.encode(list)))));
    }

    function _silence(uint256 key, uint32 round, address[] memory silent) internal view returns (bytes memory) {
        return _sign(key, _listDigest("Silence", "silentHash", round, silent));
    }

    /// The first `panelSize` mediators, certified by the operator.
    function _panel(uint32 round) internal view returns (ITribunalEscrow.Panel memory panel) {
        panel.round = round;
        panel.members = new address[](mediation.panelSize);
        for (uint256 i = 0; i < panel.members.length; ++i) {
            panel.members[i] = mediation.mediators[i];
        }
        _certify(panel);
    }

    function _certify(ITribunalEscrow.Panel memory panel) internal view {
        if (mediation.drawn) {
            panel.operatorSig = _sign(OPERATOR, _listDigest("Panel", "panelHash", panel.round, panel.members));
        }
    }

    function _vote(uint256 key, uint32 round, uint8 verdict) internal view returns (ITribunalEscrow.Vote memory) {
        return _voteWith(key, round, verdict, COUNT, keccak256("verdict"));
    }

    function _voteWith(uint256 key, uint32 round, uint8 verdict, uint64 count, bytes32 digest)
        internal
        view
        returns (ITribunalEscrow.Vote memory)
    {
        bytes memory signature = _sign(key, escrow.hashVerdict(_termsHash(), round, verdict, count, digest));
        return ITribunalEscrow.Vote(vm.addr(key), verdict, count, digest, signature);
    }

    /// Votes of the first mediators with these verdicts.
    function _votes(uint32 round, uint8[] memory verdicts) internal view returns (ITribunalEscrow.Vote[] memory votes) {
        votes = new ITribunalEscrow.Vote[](verdicts.length);
        for (uint256 i = 0; i < verdicts.length; ++i) {
            votes[i] = _vote(keys[i], round, verdicts[i]);
        }
    }

    /// The short form of these arguments of `settleVerdict`.
    function _ruling(
        ITribunalEscrow.Panel memory panel,
        ITribunalEscrow.Outcome outcome,
        ITribunalEscrow.Vote[] memory votes
    ) internal view returns (bytes memory) {
        bytes memory packed;
        for (uint256 i = 0; i < votes.length; ++i) {
            ITribunalEscrow.Vote memory it = votes[i];
            bytes4 head = bytes4(abi.encodePacked(_placeOf(it.mediator), it.verdict, uint16(it.signature.length)));
            packed = bytes.concat(packed, head, it.digest, it.signature);
        }
        bytes32 seats;
        for (uint256 i = 0; i < panel.members.length; ++i) {
            seats |= bytes32(bytes1(_placeOf(panel.members[i]))) >> (8 * i);
        }
        return abi.encode(ITribunalEscrow.Ruling(terms, panel.round, outcome, seats, panel.operatorSig, packed));
    }

    /// The number of mediators if it is none.
    function _placeOf(address mediator) private view returns (uint8 place) {
        while (place < mediation.mediators.length && mediation.mediators[place] != mediator) {
            ++place;
        }
    }

    function _verdicts(uint8 a) internal pure returns (uint8[] memory list) {
        list = new uint8[](1);
        list[0] = a;
    }

    function _verdicts(uint8 a, uint8 b) internal pure returns (uint8[] memory list) {
        list = new uint8[](2);
        (list[0], list[1]) = (a, b);
    }

    function _verdicts(uint8 a, uint8 b, uint8 c) internal pure returns (uint8[] memory list) {
        list = new uint8[](3);
        (list[0], list[1], list[2]) = (a, b, c);
    }

    function _one(address a) internal pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = a;
    }

    // Steps

    function _open() internal {
        escrow.open(terms, timeouts, mediation, _consent(CLIENT, CLIENT_SEED), _consent(PROVIDER, PROVIDER_SEED));
    }

    function _submit() internal {
        escrow.submitResult(terms, timeouts, COUNT, CLAIM, _move(PROVIDER, 2, COUNT, CLAIM));
    }

    function _accept() internal {
        escrow.accept(terms, timeouts, _move(CLIENT, 3, 0, 0));
    }

    function _dispute() internal {
        escrow.dispute(terms, timeouts, _move(CLIENT, 4, 0, 0));
    }

    function _reveal(uint8 party) internal {
        bytes32 seed = party == 1 ? CLIENT_SEED : PROVIDER_SEED;
        bytes memory signature = _move(party == 1 ? CLIENT : PROVIDER, 5, 0, seed);
        escrow.reveal(terms, timeouts, mediation, party, seed, signature);
    }

    function _toSubmitted() internal {
        _open();
        _submit();
    }

    function _toDisputed() internal {
        _toSubmitted();
        _dispute();
    }

    function _toDrawn() internal {
        _toDisputed();
        _reveal(1);
        _reveal(2);
    }

    function _settle(uint32 round, ITribunalEscrow.Outcome outcome, uint8[] memory verdicts) internal {
        ITribunalEscrow.Panel memory panel = _panel(round);
        escrow.settleVerdict(terms, mediation, panel, outcome, _votes(round, verdicts));
    }

    function _state() internal view returns (ITribunalEscrow.State) {
        return escrow.caseOf(_termsHash()).state;
    }

    function _outcome() internal view returns (ITribunalEscrow.Outcome) {
        return escrow.caseOf(_termsHash()).outcome;
    }

    function _balance(address account) internal view returns (uint256) {
        return escrow.balanceOf(terms.token, account);
    }

    /// What the parties have against the 10,000 that each put in.
    function _assertNet(int256 client, int256 provider, uint256 mediators, uint256 treasury) internal view {
        assertEq(_balance(terms.client), uint256(10_000 + client), "client");
        assertEq(_balance(terms.provider), uint256(10_000 + provider), "provider");
        uint256 all;
        for (uint256 i = 0; i < keys.length; ++i) {
            all += _balance(vm.addr(keys[i]));
        }
        assertEq(all, mediators, "mediators");
        assertEq(_balance(DEAL_TREASURY), treasury, "treasury");
    }
}

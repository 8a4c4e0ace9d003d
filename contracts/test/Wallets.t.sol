// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Fixture} from "./Fixture.sol";
import {BadWallet, Wallet} from "./Wallets.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";

/// @notice Everybody is a contract (ERC-1271), or turns into one.
contract WalletsTest is Fixture {
    Wallet internal client;
    Wallet internal provider;
    Wallet internal operator;
    /// The wallet of a key of `keys`, if it has one.
    mapping(uint256 key => Wallet) internal wallets;

    function setUp() public override {
        super.setUp();
        client = new Wallet(vm.addr(CLIENT));
        provider = new Wallet(vm.addr(PROVIDER));
        operator = new Wallet(vm.addr(OPERATOR));
        (terms.client, terms.provider) = (address(client), address(provider));
        mediation.operator = address(operator);
        // Two of the five mediators are wallets.
        wallets[keys[0]] = new Wallet(vm.addr(keys[0]));
        wallets[keys[3]] = new Wallet(vm.addr(keys[3]));
        for (uint256 i = 1; i < 5; ++i) {
            for (uint256 j = i; j > 0 && _account(keys[j]) < _account(keys[j - 1]); --j) {
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
        for (uint256 i = 0; i < 5; ++i) {
            mediation.mediators[i] = _account(keys[i]);
        }
        mediation.panelSize = 5;
        mediation.quorum = 3;
        _bindHashes();
        _fund(terms.client, 10_000);
        _fund(terms.provider, 10_000);
    }

    function _account(uint256 key) private view returns (address) {
        return address(wallets[key]) == address(0) ? vm.addr(key) : address(wallets[key]);
    }

    function _voteOf(uint256 key, uint32 round, uint8 verdict) private view returns (ITribunalEscrow.Vote memory vote) {
        vote = _vote(key, round, verdict);
        vote.mediator = _account(key);
    }

    /// All five vote valid.
    function _all(uint32 round) private view returns (ITribunalEscrow.Vote[] memory votes) {
        votes = new ITribunalEscrow.Vote[](5);
        for (uint256 i = 0; i < 5; ++i) {
            votes[i] = _voteOf(keys[i], round, 1);
        }
    }

    /// The key of the first mediator that is a wallet.
    function _walletKey() private view returns (uint256) {
        for (uint256 i = 0; i < 5; ++i) {
            if (address(wallets[keys[i]]) != address(0)) return keys[i];
        }
        revert NotTrue("there are two");
    }

    // Whole lives

    function test_accept_succeedsIfPartiesAreWallets() public {
        _toSubmitted();
        _accept();
        assertEq(_balance(terms.client), 10_000 - 903, "client");
        vm.prank(vm.addr(PROVIDER));
        provider.execute(address(escrow), abi.encodeCall(escrow.withdraw, (address(token), 10_873)));
        assertEq(token.balanceOf(address(provider)), 10_873, "provider is paid out");
    }

    function test_settleVerdict_succeedsIfEverybodyIsAWallet() public {
        _toDrawn();
        escrow.settleVerdict(terms, mediation, _panel(0), ITribunalEscrow.Outcome.Valid, _all(0));
        assertEq(_balance(_account(_walletKey())), 20, "a fifth of the fee");
    }

    function test_settleVerdicts_succeedsIfEverybodyIsAWallet() public {
        _toDrawn();
        bytes[] memory rulings = new bytes[](1);
        rulings[0] = _ruling(_panel(0), ITribunalEscrow.Outcome.Valid, _all(0));
        assertTrue(escrow.settleVerdicts(mediation, rulings, 400_000)[0], "settled");
        assertEq(_balance(_account(_walletKey())), 20, "a fifth of the fee");
    }

    function test_withdrawCase_succeedsIfPartiesAreWallets() public {
        _toDrawn();
        escrow.withdrawCase(terms, _move(CLIENT, 6, 0, 0), _move(PROVIDER, 6, 0, 0));
        assertEq(_balance(terms.client), 10_000, "client");
    }

    /// The owner is not the wallet: its name on a vote or in the terms is another mediator's.
    function test_settleVerdict_failsIfOwnerVotesUnderItsOwnName() public {
        _toDrawn();
        ITribunalEscrow.Vote[] memory votes = _all(0);
        ITribunalEscrow.Panel memory panel = _panel(0);
        for (uint256 i = 0; i < 5; ++i) {
            if (address(wallets[keys[i]]) == address(0)) continue;
            ITribunalEscrow.Vote[] memory one = new ITribunalEscrow.Vote[](1);
            one[0] = _vote(keys[i], 0, 1);
            vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.NotMediator.selector, vm.addr(keys[i])));
            escrow.settleVerdict(terms, mediation, panel, ITribunalEscrow.Outcome.Valid, one);
            votes[i].signature = _vote(keys[(i + 1) % 5], 0, 1).signature;
            vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.BadSignature.selector, votes[i].mediator));
            escrow.settleVerdict(terms, mediation, panel, ITribunalEscrow.Outcome.Valid, votes);
            return;
        }
    }

    // Bonds

    function test_slashes_succeedIfMediatorAndOperatorAreWallets() public {
        uint256 key = _walletKey();
        Wallet mediator = wallets[key];
        token.mint(address(mediator), 1000);
        vm.startPrank(vm.addr(key));
        mediator.execute(address(token), abi.encodeCall(token.approve, (address(registry), 1000)));
        mediator.execute(address(registry), abi.encodeCall(registry.bond, (1000)));
        mediator.execute(address(registry), abi.encodeCall(registry.setOperator, (address(operator), true)));
        vm.stopPrank();
        _toDrawn();
        address[] memory silent = _one(address(mediator));
        escrow.slashSilent(terms, mediation, 0, silent, _silence(OPERATOR, 0, silent));
        assertEq(registry.bondOf(address(mediator)).active, 960, "silence");
        registry.slashEquivocation(_termsHash(), _voteOf(key, 0, 1), _voteOf(key, 0, 2), 0);
        assertEq(registry.bondOf(address(mediator)).active, 0, "equivocation");
    }

    // Wallets change

    /// Who owns the wallet now signs for it; what a former owner signed counts no longer.
    function test_accept_failsIfWalletHasAnotherOwner() public {
        _toSubmitted();
        bytes memory earlier = _move(CLIENT, 3, 0, 0);
        vm.prank(vm.addr(CLIENT));
        client.setOwner(vm.addr(77));
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.BadSignature.selector, address(client)));
        escrow.accept(terms, timeouts, earlier);
        escrow.accept(terms, timeouts, _move(77, 3, 0, 0));
    }

    /// A wallet that stops answering, or never did as it should, cannot keep the other party's money.
    function test_timeouts_succeedIfWalletTurnsBad() public {
        for (uint8 answer = 0; answer < 8; ++answer) {
            uint256 before = vm.snapshotState();
            bytes memory bad = address(new BadWallet(BadWallet.Answer(answer))).code;
            _open();
            vm.etch(address(provider), bad);
            vm.warp(block.timestamp + 101);
            escrow.timeoutSubmit(terms, timeouts);
            assertEq(_balance(terms.client), 10_051, "client");
            vm.prank(address(client));
            escrow.withdraw(address(token), 10_051);
            vm.revertToState(before);

            _toSubmitted();
            vm.etch(address(client), bad);
            vm.warp(block.timestamp + 51);
            escrow.timeoutJudge(terms, timeouts);
            assertEq(_balance(terms.provider), 10_000 + 873 + 31, "provider");
            vm.revertToState(before);

            _toDisputed();
            _reveal(2);
            vm.etch(address(client), bad);
            vm.warp(block.timestamp + 21);
            escrow.timeoutDraw(terms, timeouts, mediation);
            assertEq(_balance(terms.provider), 10_873, "provider");
            vm.revertToState(before);
        }
    }

    /// No answer but the right one is a yes.
    function test_open_failsIfWalletDoesNotAnswerAsItShould() public {
        for (uint8 answer = 0; answer < 8; ++answer) {
            terms.client = address(new BadWallet(BadWallet.Answer(answer)));
            ITribunalEscrow.Consent memory a = _consent(CLIENT, CLIENT_SEED);
            ITribunalEscrow.Consent memory b = _consent(PROVIDER, PROVIDER_SEED);
            bytes memory call = abi.encodeCall(escrow.open, (terms, timeouts, mediation, a, b));
            (bool done, bytes memory reason) = address(escrow).call{gas: 2_000_000}(call);
            assertTrue(!done, "refused");
            bytes memory expected = abi.encodeWithSelector(ITribunalEscrow.BadSignature.selector, terms.client);
            assertSame(reason, expected, vm.toString(uint256(answer)));
        }
    }

    /// A mediator's wallet that is bad costs its own vote only: the others are a quorum.
    function test_settleVerdict_succeedsIfOneMediatorsWalletIsBad() public {
        _toDrawn();
        uint256 key = _walletKey();
        for (uint8 answer = 0; answer < 8; ++answer) {
            uint256 before = vm.snapshotState();
            vm.etch(address(wallets[key]), address(new BadWallet(BadWallet.Answer(answer))).code);
            ITribunalEscrow.Vote[] memory votes = _all(0);
            ITribunalEscrow.Vote[] memory rest = new ITribunalEscrow.Vote[](4);
            uint256 count;
            for (uint256 i = 0; i < 5; ++i) {
                if (keys[i] != key) rest[count++] = votes[i];
            }
            ITribunalEscrow.Panel memory panel = _panel(0);
            ITribunalEscrow.Outcome valid = ITribunalEscrow.Outcome.Valid;
            bytes memory call = abi.encodeCall(escrow.settleVerdict, (terms, mediation, panel, valid, votes));
            (bool done,) = address(escrow).call{gas: 2_000_000}(call);
            assertTrue(!done, "with its vote");
            escrow.settleVerdict(terms, mediation, panel, valid, rest);
            vm.revertToState(before);
        }
    }

    // Keys that take on code

    /// An account with a key cannot disown what the key signed by taking on code (EIP-7702), whatever the code says.
    function test_slashEquivocation_succeedsIfMediatorTookOnCode() public {
        address mediator;
        uint256 key;
        for (uint256 i = 0; i < 5; ++i) {
            if (address(wallets[keys[i]]) == address(0)) (mediator, key) = (vm.addr(keys[i]), keys[i]);
        }
        _bond(mediator, 1000);
        ITribunalEscrow.Vote memory a = _voteOf(key, 0, 1);
        ITribunalEscrow.Vote memory b = _voteOf(key, 0, 2);
        for (uint8 answer = 0; answer < 8; ++answer) {
            uint256 before = vm.snapshotState();
            vm.etch(mediator, address(new BadWallet(BadWallet.Answer(answer))).code);
            registry.slashEquivocation(_termsHash(), a, b, 0);
            assertEq(registry.bondOf(mediator).active, 0, "slashed");
            vm.revertToState(before);
        }
        // The same by a delegation, as the chain writes it.
        Wallet other = new Wallet(address(1));
        vm.etch(mediator, abi.encodePacked(hex"ef0100", address(other)));
        registry.slashEquivocation(_termsHash(), a, b, 0);
    }

    /// With a key and code either may sign, and nobody else.
    function test_accept_succeedsIfPartyTookOnCode() public {
        terms.client = vm.addr(CLIENT);
        _toSubmitted();
        Wallet rules = new Wallet(address(0));
        vm.etch(terms.client, address(rules).code);
        vm.store(terms.client, bytes32(0), bytes32(uint256(uint160(vm.addr(77)))));
        uint256 before = vm.snapshotState();
        escrow.accept(terms, timeouts, _move(CLIENT, 3, 0, 0));
        vm.revertToState(before);
        bytes memory another = _move(78, 3, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(ITribunalEscrow.BadSignature.selector, terms.client));
        escrow.accept(terms, timeouts, another);
        escrow.accept(terms, timeouts, _move(77, 3, 0, 0));
    }

    /// A registry's mediator that is bad cannot be shown to equivocate: its wallet is asked.
    function test_slashEquivocation_failsIfWalletDeniesIt() public {
        uint256 key = _walletKey();
        ITribunalEscrow.Vote memory a = _voteOf(key, 0, 1);
        ITribunalEscrow.Vote memory b = _voteOf(key, 0, 2);
        bytes32 termsHash = _termsHash();
        vm.etch(a.mediator, address(new BadWallet(BadWallet.Answer.No)).code);
        vm.expectRevert(abi.encodeWithSelector(IMediatorRegistry.BadSignature.selector, a.mediator));
        registry.slashEquivocation(termsHash, a, b, 0);
    }
}

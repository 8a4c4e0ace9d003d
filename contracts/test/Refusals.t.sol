// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Fixture} from "./Fixture.sol";
import {ITribunalEscrow} from "../src/ITribunalEscrow.sol";
import {IMediatorRegistry} from "../src/IMediatorRegistry.sol";
import {MediatorRegistry} from "../src/MediatorRegistry.sol";
import {TribunalEscrow} from "../src/TribunalEscrow.sol";

/// @notice What the escrow does not do.
contract RefusalsTest is Fixture {
    /// The call fails with this error and nothing has changed.
    function _refused(bytes memory call, bytes4 selector) internal {
        (bool success, bytes memory data) = address(escrow).call(call);
        assertTrue(!success, "was not refused");
        if (bytes4(data) != selector) {
            assembly ("memory-safe") {
                revert(add(data, 32), mload(data))
            }
        }
    }

    function _openCall(ITribunalEscrow.Consent memory client, ITribunalEscrow.Consent memory provider)
        internal
        view
        returns (bytes memory)
    {
        return abi.encodeCall(escrow.open, (terms, timeouts, mediation, client, provider));
    }

    function _openCall() internal view returns (bytes memory) {
        return _openCall(_consent(CLIENT, CLIENT_SEED), _consent(PROVIDER, PROVIDER_SEED));
    }

    function _settleCall(
        ITribunalEscrow.Panel memory panel,
        ITribunalEscrow.Outcome outcome,
        ITribunalEscrow.Vote[] memory votes
    ) internal view returns (bytes memory) {
        return abi.encodeCall(escrow.settleVerdict, (terms, mediation, panel, outcome, votes));
    }

    function _settleCall(uint32 round, ITribunalEscrow.Outcome outcome, uint8[] memory verdicts)
        internal
        view
        returns (bytes memory)
    {
        return _settleCall(_panel(round), outcome, _votes(round, verdicts));
    }

    // Opening

    function test_open_failsIfSignatureIsAnothers() public {
        ITribunalEscrow.Consent memory forged = _consent(OPERATOR, PROVIDER_SEED);
        _refused(_openCall(_consent(CLIENT, CLIENT_SEED), forged), ITribunalEscrow.BadSignature.selector);
    }

    function test_open_failsIfAgreementIsToAnotherCommitment() public {
        ITribunalEscrow.Consent memory changed = _consent(PROVIDER, PROVIDER_SEED);
        changed.commitment = keccak256("another");
        _refused(_openCall(_consent(CLIENT, CLIENT_SEED), changed), ITribunalEscrow.BadSignature.selector);
    }

    function test_open_failsIfTermsWereChanged() public {
        bytes memory original = _openCall();
        terms.price = 4;
        bytes memory changed = _openCall();
        assertTrue(keccak256(original) != keccak256(changed), "differ");
        ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
        terms.price = 5;
        _refused(_openCall(client, _consent(PROVIDER, PROVIDER_SEED)), ITribunalEscrow.BadSignature.selector);
    }

    function test_open_failsIfHighS() public {
        ITribunalEscrow.Consent memory client = _consent(CLIENT, CLIENT_SEED);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(CLIENT, _typed(_termsHash()));
        uint256 order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
        client.termsSig = abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        _refused(_openCall(client, _consent(PROVIDER, PROVIDER_SEED)), ITribunalEscrow.BadSignature.selector);
    }

    /// Bits beyond a short field are no other terms with the same meaning, even if both parties sign them.
    function test_open_failsIfShortFieldHasStrayBits() public {
        bytes32 typehash = keccak256(
            "Terms(bytes32 dealId,address client,address provider,address token,address treasury,uint256 price,uint8 pricing,uint256 paymentCollateral,uint256 resultsCollateral,uint256 submitCollateral,uint256 judgeCollateral,uint256 mediationFee,uint16 victimBps,uint16 feeBps,bytes32 mediatorsHash,bytes32 timeoutsHash,uint32 rule)"
        );
        bytes memory clean = abi.encode(terms);
        assertTrue(keccak256(bytes.concat(typehash, clean)) == _termsHash(), "the hash");
        uint8[9] memory short = [1, 2, 3, 4, 6, 12, 13, 16, 0];
        for (uint256 i = 0; i < 9; ++i) {
            bytes memory words = abi.encode(terms);
            if (i < 8) words[32 * uint256(short[i])] = 0x80;
            bytes32 termsHash = keccak256(bytes.concat(typehash, words));
            bytes memory call =
                _openCall(_signedOver(CLIENT, CLIENT_SEED, termsHash), _signedOver(PROVIDER, PROVIDER_SEED, termsHash));
            for (uint256 k = 0; k < words.length; ++k) {
                call[4 + k] = words[k];
            }
            (bool done,) = address(escrow).call(call);
            assertTrue(done == (i == 8), vm.toString(i));
        }
    }

    function _signedOver(uint256 key, bytes32 seed, bytes32 termsHash)
        private
        view
        returns (ITribunalEscrow.Consent memory consent)
    {
        consent.commitment = keccak256(abi.encode(seed));
        consent.termsSig = _sign(key, _typed(termsHash));
        consent.agreeSig = _sign(key, escrow.hashMove(termsHash, 1, 0, consent.commitment));
    }

    function test_open_failsIfTwice() public {
        _open();
        _refused(_openCall(), ITribunalEscrow.WrongState.selector);
    }

    function test_open_failsIfLate() public {
        vm.warp(1_000_101);
        _refused(_openCall(), ITribunalEscrow.TooLate.selector);
    }

    function test_open_failsIfDepositIsShort() public {
        vm.prank(terms.provider);
        escrow.withdraw(address(token), 10_000 - 2001 - 103 - 50);
        _refused(_openCall(), ITribunalEscrow.DepositTooSmall.selector);
        assertEq(_balance(terms.client), 10_000, "client's lock was undone");
    }

    function test_open_failsIfPreimagesAreOthers() public {
        mediation.silenceSlash = 41;
        _refused(_openCall(), ITribunalEscrow.HashMismatch.selector);
        mediation.silenceSlash = 40;
        timeouts.judge = 51;
        _refused(_openCall(), ITribunalEscrow.HashMismatch.selector);
    }

    function test_open_failsIfTermsAreOutOfRange() public {
        ITribunalEscrow.Terms memory good = terms;
        bytes4 invalid = ITribunalEscrow.InvalidTerms.selector;
        terms.rule = 2;
        _refused(_openCall(), invalid);
        terms = good;
        terms.pricing = 3;
        _refused(_openCall(), invalid);
        terms = good;
        terms.pricing = 1;
        terms.price = terms.paymentCollateral + 1;
        _refused(_openCall(), invalid);
        terms = good;
        terms.feeBps = 10_001;
        _refused(_openCall(), invalid);
        terms = good;
        terms.victimBps = 10_001;
        _refused(_openCall(), invalid);
        terms = good;
        terms.mediationFee = 1 << 192;
        _refused(_openCall(), invalid);
        terms = good;
        terms.treasury = address(0);
        _refused(_openCall(), invalid);
    }

    function test_open_failsIfMediationIsOutOfRange() public {
        ITribunalEscrow.Mediation memory good = mediation;
        mediation.quorum = 1;
        _refusedMediation(good);
        mediation.quorum = 4;
        _refusedMediation(good);
        mediation.panelSize = 6;
        _refusedMediation(good);
        mediation.redraws = 4;
        _refusedMediation(good);
        mediation.drawn = false;
        _refusedMediation(good);
        mediation.mediators[1] = mediation.mediators[0];
        _refusedMediation(good);
        mediation.mediators[0] = address(0);
        _refusedMediation(good);
        delete mediation.mediators;
        _refusedMediation(good);
    }

    function _refusedMediation(ITribunalEscrow.Mediation memory good) private {
        _bindHashes();
        _refused(_openCall(), ITribunalEscrow.InvalidTerms.selector);
        mediation = good;
    }

    function test_open_failsIfPartyIsMediator() public {
        ITribunalEscrow.Mediation memory good = mediation;
        for (uint256 i = 0; i < 5; ++i) {
            terms.provider = vm.addr(keys[i]);
            _refused(_openCall(), ITribunalEscrow.InvalidTerms.selector);
        }
        mediation = good;
    }

    // Steps

    function test_submitResult_failsIfLate() public {
        _open();
        vm.warp(block.timestamp + 101);
        bytes memory signature = _move(PROVIDER, 2, COUNT, CLAIM);
        _refused(
            abi.encodeCall(escrow.submitResult, (terms, timeouts, COUNT, CLAIM, signature)),
            ITribunalEscrow.TooLate.selector
        );
    }

    function test_submitResult_failsIfCountIsNotSigned() public {
        _open();
        bytes memory signature = _move(PROVIDER, 2, COUNT, CLAIM);
        _refused(
            abi.encodeCall(escrow.submitResult, (terms, timeouts, COUNT + 1, CLAIM, signature)),
            ITribunalEscrow.BadSignature.selector
        );
    }

    function test_submitResult_failsIfTwice() public {
        _toSubmitted();
        bytes memory signature = _move(PROVIDER, 2, 7, CLAIM);
        _refused(
            abi.encodeCall(escrow.submitResult, (terms, timeouts, 7, CLAIM, signature)),
            ITribunalEscrow.WrongState.selector
        );
    }

    function test_accept_failsIfLate() public {
        _toSubmitted();
        vm.warp(block.timestamp + 51);
        _refused(
            abi.encodeCall(escrow.accept, (terms, timeouts, _move(CLIENT, 3, 0, 0))), ITribunalEscrow.TooLate.selector
        );
    }

    function test_accept_failsIfSignedAsDispute() public {
        _toSubmitted();
        _refused(
            abi.encodeCall(escrow.accept, (terms, timeouts, _move(CLIENT, 4, 0, 0))),
            ITribunalEscrow.BadSignature.selector
        );
    }

    function test_accept_failsIfDisputed() public {
        _toDisputed();
        _refused(
            abi.encodeCall(escrow.accept, (terms, timeouts, _move(CLIENT, 3, 0, 0))),
            ITribunalEscrow.WrongState.selector
        );
    }

    function test_dispute_failsIfLateOrByProvider() public {
        _toSubmitted();
        bytes memory call = abi.encodeCall(escrow.dispute, (terms, timeouts, _move(PROVIDER, 4, 0, 0)));
        _refused(call, ITribunalEscrow.BadSignature.selector);
        vm.warp(block.timestamp + 51);
        call = abi.encodeCall(escrow.dispute, (terms, timeouts, _move(CLIENT, 4, 0, 0)));
        _refused(call, ITribunalEscrow.TooLate.selector);
    }

    function test_reveal_failsIfSeedIsAnother() public {
        _toDisputed();
        bytes memory signature = _move(CLIENT, 5, 0, PROVIDER_SEED);
        _refused(
            abi.encodeCall(escrow.reveal, (terms, timeouts, mediation, 1, PROVIDER_SEED, signature)),
            ITribunalEscrow.WrongSeed.selector
        );
    }

    function test_reveal_failsIfLateTwiceOrByNobody() public {
        _toDisputed();
        bytes memory signature = _move(PROVIDER, 5, 0, PROVIDER_SEED);
        bytes memory nobody = abi.encodeCall(escrow.reveal, (terms, timeouts, mediation, 3, PROVIDER_SEED, signature));
        _refused(nobody, ITribunalEscrow.WrongSeed.selector);
        bytes memory call = abi.encodeCall(escrow.reveal, (terms, timeouts, mediation, 2, PROVIDER_SEED, signature));
        _reveal(2);
        _refused(call, ITribunalEscrow.SeedsRevealed.selector);
        vm.warp(block.timestamp + 21);
        signature = _move(CLIENT, 5, 0, CLIENT_SEED);
        call = abi.encodeCall(escrow.reveal, (terms, timeouts, mediation, 1, CLIENT_SEED, signature));
        _refused(call, ITribunalEscrow.TooLate.selector);
    }

    function test_reveal_failsIfAppointed() public {
        _appoint();
        _toDisputed();
        bytes memory signature = _move(CLIENT, 5, 0, CLIENT_SEED);
        _refused(
            abi.encodeCall(escrow.reveal, (terms, timeouts, mediation, 1, CLIENT_SEED, signature)),
            ITribunalEscrow.NotDrawn.selector
        );
    }

    function test_withdrawCase_failsIfOneSignsForBoth() public {
        _open();
        bytes memory signature = _move(CLIENT, 6, 0, 0);
        _refused(
            abi.encodeCall(escrow.withdrawCase, (terms, signature, signature)), ITribunalEscrow.BadSignature.selector
        );
    }

    // Verdicts

    function test_settleVerdict_failsIfQuorumIsMissing() public {
        _toDrawn();
        bytes4 selector = ITribunalEscrow.NoQuorum.selector;
        _refused(_settleCall(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 2, 3)), selector);
        _refused(_settleCall(0, ITribunalEscrow.Outcome.Invalid, _verdicts(1, 1, 2)), selector);
        _refused(_settleCall(1, ITribunalEscrow.Outcome.Inconclusive, _verdicts(1, 2)), selector);
    }

    function test_settleVerdict_failsIfInconclusiveBeforeLastRound() public {
        _toDrawn();
        bytes memory call = _settleCall(0, ITribunalEscrow.Outcome.Inconclusive, _verdicts(3, 3));
        _refused(call, ITribunalEscrow.WrongRound.selector);
    }

    function test_settleVerdict_failsIfInconclusiveAgainstQuorum() public {
        _toDrawn();
        bytes memory call = _settleCall(1, ITribunalEscrow.Outcome.Inconclusive, _verdicts(2, 2, 3));
        _refused(call, ITribunalEscrow.WrongOutcome.selector);
    }

    function test_settleVerdict_failsIfRoundIsBeyondRedraws() public {
        _toDrawn();
        bytes memory call = _settleCall(2, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
        _refused(call, ITribunalEscrow.WrongRound.selector);
    }

    function test_settleVerdict_failsIfOutcomeIsNoVerdict() public {
        _toDrawn();
        bytes memory call = _settleCall(0, ITribunalEscrow.Outcome.Accepted, _verdicts(1, 1));
        _refused(call, ITribunalEscrow.WrongOutcome.selector);
    }

    function test_settleVerdict_failsIfSeedIsMissing() public {
        _toDisputed();
        _reveal(1);
        bytes memory call = _settleCall(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
        _refused(call, ITribunalEscrow.SeedsMissing.selector);
    }

    function test_settleVerdict_failsIfPanelIsForged() public {
        _toDrawn();
        ITribunalEscrow.Panel memory panel = _panel(0);
        (panel.members[0], panel.members[1]) = (panel.members[1], panel.members[0]);
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        _refused(_settleCall(panel, ITribunalEscrow.Outcome.Valid, votes), ITribunalEscrow.BadSignature.selector);
    }

    function test_settleVerdict_failsIfPanelIsOfAnotherRound() public {
        _toDrawn();
        ITribunalEscrow.Panel memory panel = _panel(0);
        panel.round = 1;
        ITribunalEscrow.Vote[] memory votes = _votes(1, _verdicts(1, 1));
        _refused(_settleCall(panel, ITribunalEscrow.Outcome.Valid, votes), ITribunalEscrow.BadSignature.selector);
    }

    function test_settleVerdict_failsIfCertifiedPanelBreaksTheTerms() public {
        _toDrawn();
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        ITribunalEscrow.Panel memory panel = _panel(0);
        panel.members[2] = panel.members[1];
        _certify(panel);
        _refused(_settleCall(panel, ITribunalEscrow.Outcome.Valid, votes), ITribunalEscrow.WrongPanel.selector);
        panel.members[2] = vm.addr(OPERATOR);
        _certify(panel);
        _refused(_settleCall(panel, ITribunalEscrow.Outcome.Valid, votes), ITribunalEscrow.WrongPanel.selector);
        panel.members = new address[](2);
        (panel.members[0], panel.members[1]) = (mediation.mediators[0], mediation.mediators[1]);
        _certify(panel);
        _refused(_settleCall(panel, ITribunalEscrow.Outcome.Valid, votes), ITribunalEscrow.WrongPanel.selector);
    }

    function test_settleVerdict_failsIfVoteIsDoubled() public {
        _toDrawn();
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        votes[1] = votes[0];
        bytes memory call = _settleCall(_panel(0), ITribunalEscrow.Outcome.Valid, votes);
        _refused(call, ITribunalEscrow.VotesNotAscending.selector);
    }

    function test_settleVerdict_failsIfMediatorWasNotDrawn() public {
        _toDrawn();
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        votes[1] = _vote(keys[4], 0, 1);
        bytes memory call = _settleCall(_panel(0), ITribunalEscrow.Outcome.Valid, votes);
        _refused(call, ITribunalEscrow.NotMediator.selector);
    }

    function test_settleVerdict_failsIfVoteIsOfAnotherRoundOrCount() public {
        _toDrawn();
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        votes[1] = _vote(keys[1], 1, 1);
        bytes memory call = _settleCall(_panel(0), ITribunalEscrow.Outcome.Valid, votes);
        _refused(call, ITribunalEscrow.BadSignature.selector);
        votes[1] = _voteWith(keys[1], 0, 1, COUNT - 1, CLAIM);
        call = _settleCall(_panel(0), ITribunalEscrow.Outcome.Valid, votes);
        _refused(call, ITribunalEscrow.WrongVote.selector);
        votes[1] = _vote(keys[1], 0, 4);
        call = _settleCall(_panel(0), ITribunalEscrow.Outcome.Valid, votes);
        _refused(call, ITribunalEscrow.WrongVote.selector);
    }

    function test_settleVerdict_failsIfVoteIsForged() public {
        _toDrawn();
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        votes[1].signature = _vote(OPERATOR, 0, 1).signature;
        bytes memory call = _settleCall(_panel(0), ITribunalEscrow.Outcome.Valid, votes);
        _refused(call, ITribunalEscrow.BadSignature.selector);
    }

    function test_settleVerdict_failsIfMediationIsTheCallers() public {
        _toDrawn();
        mediation.operator = vm.addr(CLIENT);
        ITribunalEscrow.Panel memory panel = _panel(0);
        ITribunalEscrow.Vote[] memory votes = _votes(0, _verdicts(1, 1));
        bytes memory call =
            abi.encodeCall(escrow.settleVerdict, (terms, mediation, panel, ITribunalEscrow.Outcome.Valid, votes));
        _refused(call, ITribunalEscrow.HashMismatch.selector);
    }

    function test_settleVerdict_failsIfSettled() public {
        _toDrawn();
        bytes memory call = _settleCall(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
        _settle(0, ITribunalEscrow.Outcome.Valid, _verdicts(1, 1));
        _refused(call, ITribunalEscrow.WrongState.selector);
        call = _settleCall(1, ITribunalEscrow.Outcome.Invalid, _verdicts(2, 2));
        _refused(call, ITribunalEscrow.WrongState.selector);
        bytes memory both =
            abi.encodeCall(escrow.withdrawCase, (terms, _move(CLIENT, 6, 0, 0), _move(PROVIDER, 6, 0, 0)));
        _refused(both, ITribunalEscrow.WrongState.selector);
    }

    // The clock

    function test_timeouts_failIfEarly() public {
        bytes4 early = ITribunalEscrow.TooEarly.selector;
        _open();
        vm.warp(block.timestamp + 100);
        _refused(abi.encodeCall(escrow.timeoutSubmit, (terms, timeouts)), early);
        _submit();
        vm.warp(block.timestamp + 50);
        _refused(abi.encodeCall(escrow.timeoutJudge, (terms, timeouts)), early);
        _dispute();
        uint256 disputedAt = block.timestamp;
        _reveal(1);
        vm.warp(disputedAt + 20);
        _refused(abi.encodeCall(escrow.timeoutDraw, (terms, timeouts, mediation)), early);
        _reveal(2);
        vm.warp(disputedAt + 20 + 2 * 35);
        _refused(abi.encodeCall(escrow.timeoutMediate, (terms, timeouts, mediation)), early);
    }

    function test_timeouts_failInOtherStates() public {
        bytes4 wrong = ITribunalEscrow.WrongState.selector;
        _refused(abi.encodeCall(escrow.timeoutSubmit, (terms, timeouts)), wrong);
        _open();
        _refused(abi.encodeCall(escrow.timeoutJudge, (terms, timeouts)), wrong);
        _submit();
        _refused(abi.encodeCall(escrow.timeoutSubmit, (terms, timeouts)), wrong);
        _refused(abi.encodeCall(escrow.timeoutDraw, (terms, timeouts, mediation)), wrong);
        _refused(abi.encodeCall(escrow.timeoutMediate, (terms, timeouts, mediation)), wrong);
    }

    function test_timeoutMediate_failsIfSeedIsMissing() public {
        _toDisputed();
        _reveal(1);
        vm.warp(block.timestamp + 1000);
        _refused(
            abi.encodeCall(escrow.timeoutMediate, (terms, timeouts, mediation)), ITribunalEscrow.SeedsMissing.selector
        );
    }

    function test_timeoutDraw_failsIfBothRevealed() public {
        _toDrawn();
        vm.warp(block.timestamp + 1000);
        _refused(
            abi.encodeCall(escrow.timeoutDraw, (terms, timeouts, mediation)), ITribunalEscrow.SeedsRevealed.selector
        );
    }

    // Balances

    function test_withdraw_failsIfMoreThanThere() public {
        _open();
        vm.prank(terms.client);
        vm.expectPartialRevert(ITribunalEscrow.DepositTooSmall.selector);
        escrow.withdraw(address(token), 10_000);
    }

    function test_deploy_failsIfRegistryNamesAnotherEscrow() public {
        MediatorRegistry other = new MediatorRegistry(token, address(0xe5c), BOND_TREASURY, UNBOND_DELAY);
        vm.expectPartialRevert(ITribunalEscrow.WrongRegistry.selector);
        new TribunalEscrow(IMediatorRegistry(address(other)), address(0));
    }
}

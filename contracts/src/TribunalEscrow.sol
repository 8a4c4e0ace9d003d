// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Ballot} from "./Ballot.sol";
import {IMediatorRegistry} from "./IMediatorRegistry.sol";
import {ITribunalEscrow} from "./ITribunalEscrow.sol";
import {Settlement} from "./Settlement.sol";
import {Signatures} from "./Signatures.sol";
import {Typed} from "./Typed.sol";

/// @title Escrow and settlement of deals, see ITribunalEscrow
contract TribunalEscrow is ITribunalEscrow, EIP712, ReentrancyGuard {
    using Ballot for Ballot.Count;
    using SafeERC20 for IERC20;
    using Settlement for Terms;
    using Typed for Terms;
    using Typed for Timeouts;
    using Typed for Mediation;

    uint8 private constant AGREE = 1;
    uint8 private constant SUBMIT = 2;
    uint8 private constant ACCEPT = 3;
    uint8 private constant DISPUTE = 4;
    uint8 private constant REVEAL = 5;
    uint8 private constant WITHDRAW = 6;

    uint8 private constant CLIENT = 1;
    uint8 private constant PROVIDER = 2;

    uint256 private constant MEDIATORS_MAX = 31;
    uint256 private constant REDRAWS_MAX = 3;
    uint256 private constant BPS_MAX = 10_000;
    /// @dev Of each timeout, as off chain: no lock without an end.
    uint64 private constant TIMEOUT_MAX = 10 * 366 days;
    /// @dev Time to bring a slash after the last round.
    uint256 private constant SLASH_WINDOW = 1 days;
    uint64 private constant PAUSE_MAX = 7 days;
    /// @dev From the end of a pause to the next one.
    uint64 private constant PAUSE_REST = 30 days;
    /// @dev Sums of a few amounts below this, and an amount times a 64-bit count, stay below 2^256.
    uint256 private constant AMOUNT_END = 1 << 192;

    /// @notice Where mediators' bonds are.
    IMediatorRegistry public immutable registry;
    /// @inheritdoc ITribunalEscrow
    address public immutable guardian;
    uint64 private immutable _unbondDelay;

    /// @inheritdoc ITribunalEscrow
    uint64 public pausedUntil;
    /// @inheritdoc ITribunalEscrow
    uint64 public nextPauseAt;

    mapping(address token => mapping(address account => uint256)) private _balances;
    mapping(bytes32 termsHash => Case) private _cases;
    mapping(bytes32 termsHash => mapping(uint32 round => mapping(address mediator => bool))) private _punished;

    /// @dev Stands before what brings new money or locks it, and before nothing else.
    modifier whenNotPaused() {
        // Without a guardian nothing is read.
        if (guardian != address(0) && block.timestamp < pausedUntil) revert Paused(pausedUntil);
        _;
    }

    constructor(IMediatorRegistry registry_, address guardian_) EIP712("Tribunal", "1") {
        if (registry_.escrow() != address(this)) revert WrongRegistry();
        registry = registry_;
        guardian = guardian_;
        _unbondDelay = registry_.unbondDelay();
    }

    // Pausing

    /// @inheritdoc ITribunalEscrow
    function pause(uint64 duration) external {
        if (msg.sender != guardian) revert NotGuardian(msg.sender);
        if (duration > PAUSE_MAX) revert PauseTooLong(duration, PAUSE_MAX);
        if (block.timestamp < nextPauseAt) revert PauseTooSoon(nextPauseAt, block.timestamp);
        pausedUntil = uint64(block.timestamp) + duration;
        nextPauseAt = pausedUntil + PAUSE_REST;
        emit PausedUntil(pausedUntil);
    }

    /// @inheritdoc ITribunalEscrow
    /// @dev The rest is counted from when the pause would have ended.
    function unpause() external {
        if (msg.sender != guardian) revert NotGuardian(msg.sender);
        if (block.timestamp >= pausedUntil) return;
        pausedUntil = uint64(block.timestamp);
        emit PausedUntil(pausedUntil);
    }

    // Balances

    /// @inheritdoc ITribunalEscrow
    function deposit(address token, uint256 amount) external nonReentrant whenNotPaused {
        if (amount == 0) revert NothingToMove();
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        _balances[token][msg.sender] += received;
        emit Deposited(token, msg.sender, received);
    }

    /// @inheritdoc ITribunalEscrow
    function depositNative() external payable whenNotPaused {
        if (msg.value == 0) revert NothingToMove();
        _balances[address(0)][msg.sender] += msg.value;
        emit Deposited(address(0), msg.sender, msg.value);
    }

    /// @inheritdoc ITribunalEscrow
    function withdraw(address token, uint256 amount) external nonReentrant {
        if (amount == 0) revert NothingToMove();
        _debit(token, msg.sender, amount);
        emit Withdrawn(token, msg.sender, amount);
        if (token == address(0)) Address.sendValue(payable(msg.sender), amount);
        else IERC20(token).safeTransfer(msg.sender, amount);
    }

    // Steps of the parties

    /// @inheritdoc ITribunalEscrow
    function open(
        Terms calldata terms,
        Timeouts calldata timeouts,
        Mediation calldata mediation,
        Consent calldata client,
        Consent calldata provider
    ) external whenNotPaused {
        (bytes32 termsHash, Case storage c) = _load(terms, State.None);
        _checkTerms(terms);
        _checkTimeouts(terms, timeouts);
        _checkMediation(terms, mediation);
        _checkMembers(terms, timeouts, mediation);
        _checkSpans(timeouts, mediation);
        if (mediation.drawn && (client.commitment == 0 || provider.commitment == 0)) revert InvalidTerms("commitment");
        _requireNotAfter(timeouts.agreeBy);
        _checkConsent(terms.client, termsHash, client);
        _checkConsent(terms.provider, termsHash, provider);

        c.state = State.Open;
        c.openedAt = uint48(block.timestamp);
        c.clientCommitment = client.commitment;
        c.providerCommitment = provider.commitment;
        _debit(terms.token, terms.client, terms.clientLock());
        _debit(terms.token, terms.provider, terms.providerLock());
        emit CaseOpened(termsHash, terms.client, terms.provider, terms.dealId);
    }

    /// @inheritdoc ITribunalEscrow
    function submitResult(
        Terms calldata terms,
        Timeouts calldata timeouts,
        uint64 instructionCount,
        bytes32 claimDigest,
        bytes calldata providerSig
    ) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Open);
        _checkTimeouts(terms, timeouts);
        _requireNotAfter(uint256(c.openedAt) + timeouts.submit);
        _checkMove(terms.provider, termsHash, SUBMIT, instructionCount, claimDigest, providerSig);
        c.state = State.Submitted;
        c.submittedAt = uint48(block.timestamp);
        c.instructionCount = instructionCount;
        c.claimDigest = claimDigest;
        emit ResultSubmitted(termsHash, terms.client, terms.provider, instructionCount, claimDigest);
    }

    /// @inheritdoc ITribunalEscrow
    function accept(Terms calldata terms, Timeouts calldata timeouts, bytes calldata clientSig) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Submitted);
        _checkTimeouts(terms, timeouts);
        _requireNotAfter(uint256(c.submittedAt) + timeouts.judge);
        _checkMove(terms.client, termsHash, ACCEPT, 0, 0, clientSig);
        _settle(terms, termsHash, c, Outcome.Accepted, 0);
    }

    /// @inheritdoc ITribunalEscrow
    function dispute(Terms calldata terms, Timeouts calldata timeouts, bytes calldata clientSig) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Submitted);
        _checkTimeouts(terms, timeouts);
        _requireNotAfter(uint256(c.submittedAt) + timeouts.judge);
        _checkMove(terms.client, termsHash, DISPUTE, 0, 0, clientSig);
        c.state = State.Disputed;
        c.disputedAt = uint48(block.timestamp);
        emit CaseDisputed(termsHash, terms.client, terms.provider);
    }

    /// @inheritdoc ITribunalEscrow
    function reveal(
        Terms calldata terms,
        Timeouts calldata timeouts,
        Mediation calldata mediation,
        uint8 party,
        bytes32 seed,
        bytes calldata partySig
    ) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Disputed);
        _checkTimeouts(terms, timeouts);
        _checkMediation(terms, mediation);
        if (!mediation.drawn) revert NotDrawn();
        _requireNotAfter(uint256(c.disputedAt) + timeouts.draw);
        bytes32 commitment = party == CLIENT ? c.clientCommitment : c.providerCommitment;
        bool revealed = party == CLIENT ? c.clientRevealed : c.providerRevealed;
        if (revealed) revert SeedsRevealed();
        if ((party != CLIENT && party != PROVIDER) || keccak256(abi.encode(seed)) != commitment) {
            revert WrongSeed(party);
        }
        _checkMove(party == CLIENT ? terms.client : terms.provider, termsHash, REVEAL, 0, seed, partySig);
        if (party == CLIENT) c.clientRevealed = true;
        else c.providerRevealed = true;
        emit SeedRevealed(termsHash, terms.client, terms.provider, party, seed);
    }

    /// @inheritdoc ITribunalEscrow
    function withdrawCase(Terms calldata terms, bytes calldata clientSig, bytes calldata providerSig) external {
        bytes32 termsHash = terms.hash();
        Case storage c = _cases[termsHash];
        if (c.state == State.None || c.state == State.Settled) revert WrongState(termsHash, c.state);
        _checkMove(terms.client, termsHash, WITHDRAW, 0, 0, clientSig);
        _checkMove(terms.provider, termsHash, WITHDRAW, 0, 0, providerSig);
        _settle(terms, termsHash, c, Outcome.Withdrawn, 0);
    }

    // The mediators' word

    /// @inheritdoc ITribunalEscrow
    /// @dev No deadline: who relays a vote late must not cost the winner; `timeoutMediate` ends a dispute.
    function settleVerdict(
        Terms calldata terms,
        Mediation calldata mediation,
        Panel calldata panel,
        Outcome outcome,
        Vote[] calldata votes
    ) external {
        Ballot.Count memory count = _ballot(terms, mediation, mediation.hash(), panel.round);
        count.seat(mediation, panel.members, panel.operatorSig);
        count.add(mediation.mediators, votes);
        _conclude(terms, mediation, count, outcome);
    }

    /// @inheritdoc ITribunalEscrow
    /// @dev Each in a call of its own: whatever goes wrong in it takes back its own changes and no others.
    function settleVerdicts(Mediation calldata mediation, bytes[] calldata rulings, uint256 gasEach)
        external
        returns (bool[] memory settled)
    {
        settled = new bool[](rulings.length);
        bytes memory encoded = abi.encode(mediation);
        // The ABI's offsets, past the word that stands before each of the two encoded structs.
        bytes memory call = bytes.concat(
            this.settleRuling.selector, abi.encode(0x80, mediation.hash(), 0x80 + encoded.length), encoded
        );
        for (uint256 i = 0; i < rulings.length; ++i) {
            uint256 free;
            assembly ("memory-safe") {
                free := mload(0x40)
            }
            bytes memory data = bytes.concat(call, rulings[i]);
            // A call gets all but a 64th of what is left at most; with less than its part an honest ruling would seem
            // refused.
            uint256 left = gasleft();
            if (left - left / 64 < gasEach) revert GasTooLow(gasEach, left - left / 64);
            (bool done, bytes memory reason) = address(this).call{gas: gasEach}(data);
            settled[i] = done;
            if (!done) emit RulingRefused(i, reason);
            // Nothing of this ruling is needed any more.
            assembly ("memory-safe") {
                mstore(0x40, free)
            }
        }
    }

    /// @inheritdoc ITribunalEscrow
    function settleRuling(Mediation calldata mediation, bytes32 mediatorsHash, Ruling calldata ruling) external {
        if (msg.sender != address(this)) revert OnlySelf();
        Ballot.Count memory count = _ballot(ruling.terms, mediation, mediatorsHash, ruling.round);
        count.seat(mediation, ruling.seats, ruling.operatorSig);
        count.add(mediation.mediators, ruling.votes);
        _conclude(ruling.terms, mediation, count, ruling.outcome);
    }

    /// @inheritdoc ITribunalEscrow
    function slashSilent(
        Terms calldata terms,
        Mediation calldata mediation,
        uint32 round,
        address[] calldata silent,
        bytes calldata operatorSig
    ) external {
        bytes32 termsHash = terms.hash();
        Case storage c = _cases[termsHash];
        if (c.disputedAt == 0) revert WrongState(termsHash, c.state);
        _checkMediation(terms, mediation);
        if (round > mediation.redraws) revert WrongRound(round, mediation.redraws);
        _checkSigned(mediation.operator, Typed.silence(termsHash, round, silent), operatorSig);
        for (uint256 i = 0; i < silent.length; ++i) {
            address mediator = silent[i];
            if (!_contains(mediation.mediators, mediator)) revert NotMediator(mediator);
            _punish(termsHash, c.openedAt, mediation.operator, round, mediator, mediation.silenceSlash);
        }
    }

    // The clock

    /// @inheritdoc ITribunalEscrow
    function timeoutSubmit(Terms calldata terms, Timeouts calldata timeouts) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Open);
        _checkTimeouts(terms, timeouts);
        _requireAfter(uint256(c.openedAt) + timeouts.submit);
        _settle(terms, termsHash, c, Outcome.SubmitTimeout, 0);
    }

    /// @inheritdoc ITribunalEscrow
    function timeoutJudge(Terms calldata terms, Timeouts calldata timeouts) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Submitted);
        _checkTimeouts(terms, timeouts);
        _requireAfter(uint256(c.submittedAt) + timeouts.judge);
        _settle(terms, termsHash, c, Outcome.JudgeTimeout, 0);
    }

    /// @inheritdoc ITribunalEscrow
    function timeoutDraw(Terms calldata terms, Timeouts calldata timeouts, Mediation calldata mediation) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Disputed);
        _checkTimeouts(terms, timeouts);
        _checkMediation(terms, mediation);
        if (!mediation.drawn) revert NotDrawn();
        if (c.clientRevealed && c.providerRevealed) revert SeedsRevealed();
        _requireAfter(uint256(c.disputedAt) + timeouts.draw);
        _settle(terms, termsHash, c, c.clientRevealed ? Outcome.Invalid : Outcome.Accepted, 0);
    }

    /// @inheritdoc ITribunalEscrow
    /// @dev With a seed missing only `timeoutDraw` applies, else silence would be refunded.
    function timeoutMediate(Terms calldata terms, Timeouts calldata timeouts, Mediation calldata mediation) external {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Disputed);
        _checkTimeouts(terms, timeouts);
        _checkMediation(terms, mediation);
        if (mediation.drawn && !(c.clientRevealed && c.providerRevealed)) revert SeedsMissing();
        _requireAfter(uint256(c.disputedAt) + _roundsSpan(timeouts, mediation));
        _settle(terms, termsHash, c, Outcome.MediateTimeout, 0);
        if (!mediation.drawn) _slashAppointed(termsHash, c.openedAt, mediation);
    }

    // Views

    /// @inheritdoc ITribunalEscrow
    function caseOf(bytes32 termsHash) external view returns (Case memory) {
        return _cases[termsHash];
    }

    /// @inheritdoc ITribunalEscrow
    function balanceOf(address token, address account) external view returns (uint256) {
        return _balances[token][account];
    }

    /// @inheritdoc ITribunalEscrow
    function isSilencePunished(bytes32 termsHash, uint32 round, address mediator) external view returns (bool) {
        return _punished[termsHash][round][mediator];
    }

    /// @inheritdoc ITribunalEscrow
    function hashTerms(Terms calldata terms) external pure returns (bytes32) {
        return terms.hash();
    }

    /// @inheritdoc ITribunalEscrow
    function hashMediation(Mediation calldata mediation) external pure returns (bytes32) {
        return mediation.hash();
    }

    /// @inheritdoc ITribunalEscrow
    function hashTimeouts(Timeouts calldata timeouts) external pure returns (bytes32) {
        return timeouts.hash();
    }

    /// @inheritdoc ITribunalEscrow
    function hashVerdict(bytes32 termsHash, uint32 round, uint8 verdict, uint64 instructionCount, bytes32 digest)
        external
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(Typed.verdict(termsHash, round, verdict, instructionCount, digest));
    }

    /// @inheritdoc ITribunalEscrow
    function hashMove(bytes32 termsHash, uint8 action, uint64 instructionCount, bytes32 data)
        external
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(Typed.move(termsHash, action, instructionCount, data));
    }

    /// @inheritdoc ITribunalEscrow
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // Money

    function _debit(address token, address account, uint256 amount) private {
        uint256 available = _balances[token][account];
        if (amount > available) revert DepositTooSmall(token, account, amount, available);
        _balances[token][account] = available - amount;
    }

    /// @dev Ends the case and credits all but the mediators, who get `each` from the caller.
    function _settle(Terms calldata terms, bytes32 termsHash, Case storage c, Outcome outcome, uint256 voters)
        private
        returns (uint256 each)
    {
        c.state = State.Settled;
        c.outcome = outcome;
        Settlement.Shares memory shares = terms.split(c.instructionCount, outcome, voters);
        each = shares.eachMediator;
        mapping(address account => uint256) storage balances = _balances[terms.token];
        balances[terms.client] += shares.client;
        balances[terms.provider] += shares.provider;
        balances[terms.treasury] += shares.treasury;
        emit CaseSettled(
            termsHash,
            terms.client,
            terms.provider,
            outcome,
            shares.client,
            shares.provider,
            each * voters,
            shares.treasury
        );
    }

    /// @dev The votes of a round, none yet, on a case that can be judged.
    function _ballot(Terms calldata terms, Mediation calldata mediation, bytes32 mediatorsHash, uint32 round)
        private
        view
        returns (Ballot.Count memory count)
    {
        (bytes32 termsHash, Case storage c) = _load(terms, State.Disputed);
        if (mediatorsHash != terms.mediatorsHash) {
            revert HashMismatch("mediation", terms.mediatorsHash, mediatorsHash);
        }
        if (mediation.drawn && !(c.clientRevealed && c.providerRevealed)) revert SeedsMissing();
        if (round > mediation.redraws) revert WrongRound(round, mediation.redraws);
        count.domain = _domainSeparatorV4();
        count.termsHash = termsHash;
        count.round = round;
        count.instructionCount = c.instructionCount;
    }

    /// @dev Settles as the votes say and pays who voted.
    function _conclude(Terms calldata terms, Mediation calldata mediation, Ballot.Count memory count, Outcome outcome)
        private
    {
        count.check(mediation, outcome);
        uint256 each = _settle(terms, count.termsHash, _cases[count.termsHash], outcome, count.votes());
        address[] calldata mediators = mediation.mediators;
        mapping(address account => uint256) storage balances = _balances[terms.token];
        uint256 voted = count.voted;
        for (uint256 i = 0; voted > 0; ++i) {
            if (voted & 1 == 1) balances[mediators[i]] += each;
            voted >>= 1;
        }
    }

    /// @dev Without the operator's word on this case: anyone can name any mediator in terms, so only up to what it agreed
    /// to stake on that.
    function _slashAppointed(bytes32 termsHash, uint256 openedAt, Mediation calldata mediation) private {
        address mediator = mediation.mediators[0];
        uint256 amount = registry.appointmentStake(mediator, openedAt);
        if (amount > mediation.silenceSlash) amount = mediation.silenceSlash;
        if (amount > 0) _punish(termsHash, openedAt, mediation.operator, mediation.redraws, mediator, amount);
    }

    /// @dev Once a round, and only who takes this operator's word or took it when the case opened.
    function _punish(
        bytes32 termsHash,
        uint256 openedAt,
        address operator,
        uint32 round,
        address mediator,
        uint256 amount
    ) private {
        if (_punished[termsHash][round][mediator]) return;
        _punished[termsHash][round][mediator] = true;
        uint256 slashed = registry.tookWord(mediator, operator, openedAt) ? registry.slash(mediator, amount) : 0;
        emit SilenceSlashed(termsHash, mediator, round, slashed);
    }

    // Checks

    function _load(Terms calldata terms, State expected) private view returns (bytes32 termsHash, Case storage c) {
        termsHash = terms.hash();
        c = _cases[termsHash];
        if (c.state != expected) revert WrongState(termsHash, c.state);
    }

    function _requireNotAfter(uint256 deadline) private view {
        if (block.timestamp > deadline) revert TooLate(deadline, block.timestamp);
    }

    function _requireAfter(uint256 deadline) private view {
        if (block.timestamp <= deadline) revert TooEarly(deadline, block.timestamp);
    }

    function _checkTimeouts(Terms calldata terms, Timeouts calldata timeouts) private pure {
        bytes32 actual = timeouts.hash();
        if (actual != terms.timeoutsHash) revert HashMismatch("timeouts", terms.timeoutsHash, actual);
    }

    function _checkMediation(Terms calldata terms, Mediation calldata mediation) private pure {
        bytes32 actual = mediation.hash();
        if (actual != terms.mediatorsHash) revert HashMismatch("mediation", terms.mediatorsHash, actual);
    }

    function _checkTerms(Terms calldata terms) private pure {
        if (terms.rule != 1) revert InvalidTerms("rule");
        if (terms.client == terms.provider) revert InvalidTerms("provider");
        if (terms.treasury == address(0)) revert InvalidTerms("treasury");
        if (terms.pricing != 1 && terms.pricing != 2) revert InvalidTerms("pricing");
        if (terms.pricing == 1 && terms.price > terms.paymentCollateral) revert InvalidTerms("price");
        if (terms.feeBps > BPS_MAX) revert InvalidTerms("feeBps");
        if (terms.victimBps > BPS_MAX) revert InvalidTerms("victimBps");
        uint256 all = terms.price | terms.paymentCollateral | terms.resultsCollateral | terms.submitCollateral
            | terms.judgeCollateral | terms.mediationFee;
        if (all >= AMOUNT_END) revert InvalidTerms("amount");
    }

    /// @dev What the hashes bind is checked once, when the case is opened.
    function _checkMembers(Terms calldata terms, Timeouts calldata timeouts, Mediation calldata mediation)
        private
        pure
    {
        uint256 count = mediation.mediators.length;
        if (count == 0 || count > MEDIATORS_MAX) revert InvalidTerms("mediators");
        address last = address(0);
        for (uint256 i = 0; i < count; ++i) {
            address mediator = mediation.mediators[i];
            if (mediator <= last || mediator == terms.client || mediator == terms.provider) {
                revert InvalidTerms("mediators");
            }
            last = mediator;
        }
        if (mediation.panelSize == 0 || mediation.panelSize > count) revert InvalidTerms("panelSize");
        if (mediation.quorum > mediation.panelSize || mediation.quorum <= mediation.panelSize / 2) {
            revert InvalidTerms("quorum");
        }
        if (mediation.redraws > REDRAWS_MAX) revert InvalidTerms("redraws");
        if (!mediation.drawn && count != 1) revert InvalidTerms("mediators");
        if (mediation.drawn != (timeouts.draw > 0)) revert InvalidTerms("draw");
    }

    /// @dev From opening, when parties look at bonds, to the end of the last round and of the time to slash for it. Only
    /// what silence costs tells that a deal relies on bonds.
    function _checkSpans(Timeouts calldata timeouts, Mediation calldata mediation) private view {
        if (
            timeouts.submit > TIMEOUT_MAX || timeouts.judge > TIMEOUT_MAX || timeouts.draw > TIMEOUT_MAX
                || timeouts.availability > TIMEOUT_MAX || timeouts.mediate > TIMEOUT_MAX
        ) {
            revert InvalidTerms("timeouts");
        }
        if (mediation.silenceSlash == 0) return;
        uint256 rounds = _roundsSpan(timeouts, mediation);
        uint256 needed = uint256(timeouts.submit) + timeouts.judge + rounds + SLASH_WINDOW;
        if (needed > _unbondDelay) revert BondsLeaveEarly(needed, _unbondDelay);
    }

    /// @dev From the dispute to the end of the last round.
    function _roundsSpan(Timeouts calldata timeouts, Mediation calldata mediation) private pure returns (uint256) {
        uint256 round = uint256(timeouts.availability) + timeouts.mediate;
        return timeouts.draw + (uint256(mediation.redraws) + 1) * round;
    }

    function _contains(address[] calldata list, address account) private pure returns (bool) {
        for (uint256 i = 0; i < list.length; ++i) {
            if (list[i] == account) return true;
        }
        return false;
    }

    /// @dev `termsHash` is the struct hash that the parties sign for the terms themselves.
    function _checkConsent(address signer, bytes32 termsHash, Consent calldata consent) private view {
        _checkSigned(signer, termsHash, consent.termsSig);
        _checkMove(signer, termsHash, AGREE, 0, consent.commitment, consent.agreeSig);
    }

    function _checkMove(
        address signer,
        bytes32 termsHash,
        uint8 action,
        uint64 instructionCount,
        bytes32 data,
        bytes calldata signature
    ) private view {
        _checkSigned(signer, Typed.move(termsHash, action, instructionCount, data), signature);
    }

    function _checkSigned(address signer, bytes32 structHash, bytes calldata signature) private view {
        if (!Signatures.isBy(signer, _hashTypedDataV4(structHash), signature)) revert BadSignature(signer);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {IMediatorRegistry} from "./IMediatorRegistry.sol";
import {ITribunalEscrow} from "./ITribunalEscrow.sol";
import {Signatures} from "./Signatures.sol";

/// @title Mediators' bonds in one ERC-20 token
/// @dev Deployed before its escrow with the escrow's address predicted; the escrow's constructor checks it.
contract MediatorRegistry is IMediatorRegistry, ReentrancyGuard {
    using SafeERC20 for IERC20;
    using Checkpoints for Checkpoints.Trace256;

    /// @dev A finder's share of an equivocator's bond is one in this many, rounded down.
    uint256 private constant FINDER_SHARE = 10;
    /// @dev A longer delay would trap bonds.
    uint64 private constant UNBOND_DELAY_MAX = 10 * 366 days;

    IERC20 public immutable token;
    /// @inheritdoc IMediatorRegistry
    address public immutable escrow;
    address public immutable treasury;
    /// @inheritdoc IMediatorRegistry
    uint64 public immutable unbondDelay;

    /// @dev `appointmentSlashMax` stays zero in here, it is the newest of its history.
    mapping(address mediator => Bond) private _bonds;
    /// @dev 1 while allowed, by unix time.
    mapping(address mediator => mapping(address operator => Checkpoints.Trace256)) private _operators;
    mapping(address mediator => Checkpoints.Trace256) private _appointmentStakes;
    mapping(address account => uint256) private _owed;

    constructor(IERC20 token_, address escrow_, address treasury_, uint64 unbondDelay_) {
        if (treasury_ == address(0)) revert NoTreasury();
        if (unbondDelay_ > UNBOND_DELAY_MAX) revert UnbondDelayTooLong(unbondDelay_, UNBOND_DELAY_MAX);
        token = token_;
        escrow = escrow_;
        treasury = treasury_;
        unbondDelay = unbondDelay_;
    }

    /// @inheritdoc IMediatorRegistry
    function bond(uint256 amount) external nonReentrant {
        Bond storage stake = _bonds[msg.sender];
        if (stake.tombstoned) revert Tombstoned(msg.sender);
        uint256 pausedUntil = ITribunalEscrow(escrow).pausedUntil();
        if (block.timestamp < pausedUntil) revert ITribunalEscrow.Paused(pausedUntil);
        if (amount == 0) revert NothingToMove();
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        stake.active += received;
        emit Bonded(msg.sender, received);
    }

    /// @inheritdoc IMediatorRegistry
    function startUnbond(uint256 amount) external {
        Bond storage stake = _bonds[msg.sender];
        if (amount == 0) revert NothingToMove();
        if (amount > stake.active) revert BondTooSmall(amount, stake.active);
        stake.active -= amount;
        stake.unbonding += amount;
        stake.unbondAt = uint64(block.timestamp) + unbondDelay;
        emit UnbondStarted(msg.sender, amount, stake.unbondAt);
    }

    /// @inheritdoc IMediatorRegistry
    function finishUnbond() external nonReentrant {
        Bond storage stake = _bonds[msg.sender];
        uint256 amount = stake.unbonding;
        if (amount == 0) revert NothingToMove();
        if (block.timestamp < stake.unbondAt) revert StillUnbonding(stake.unbondAt, block.timestamp);
        stake.unbonding = 0;
        emit Unbonded(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IMediatorRegistry
    function setOperator(address operator, bool allowed) external {
        _operators[msg.sender][operator].push(block.timestamp, allowed ? 1 : 0);
        emit OperatorSet(msg.sender, operator, allowed);
    }

    /// @inheritdoc IMediatorRegistry
    function setAppointmentSlashMax(uint256 amount) external {
        _appointmentStakes[msg.sender].push(block.timestamp, amount);
        emit AppointmentSlashMaxSet(msg.sender, amount);
    }

    /// @inheritdoc IMediatorRegistry
    function slash(address mediator, uint256 amount) external returns (uint256 slashed) {
        if (msg.sender != escrow) revert NotEscrow(msg.sender);
        slashed = _take(mediator, amount);
        _owed[treasury] += slashed;
    }

    /// @inheritdoc IMediatorRegistry
    function slashEquivocation(
        bytes32 termsHash,
        ITribunalEscrow.Vote calldata a,
        ITribunalEscrow.Vote calldata b,
        uint32 round
    ) external {
        address mediator = a.mediator;
        bool same = a.verdict == b.verdict && a.instructionCount == b.instructionCount && a.digest == b.digest;
        if (b.mediator != mediator || same) revert NoEquivocation();
        Bond storage stake = _bonds[mediator];
        if (stake.tombstoned) revert Tombstoned(mediator);
        _checkVote(termsHash, round, a);
        _checkVote(termsHash, round, b);
        stake.tombstoned = true;
        uint256 slashed = _take(mediator, type(uint256).max);
        uint256 reward = slashed / FINDER_SHARE;
        _owed[msg.sender] += reward;
        _owed[treasury] += slashed - reward;
        emit EquivocationProven(termsHash, mediator, msg.sender, round, slashed);
    }

    /// @inheritdoc IMediatorRegistry
    function collect() external nonReentrant {
        uint256 amount = _owed[msg.sender];
        if (amount == 0) revert NothingToMove();
        _owed[msg.sender] = 0;
        emit Collected(msg.sender, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IMediatorRegistry
    function bondOf(address mediator) external view returns (Bond memory stake) {
        stake = _bonds[mediator];
        stake.appointmentSlashMax = _appointmentStakes[mediator].latest();
    }

    /// @inheritdoc IMediatorRegistry
    function isTombstoned(address mediator) external view returns (bool) {
        return _bonds[mediator].tombstoned;
    }

    /// @inheritdoc IMediatorRegistry
    function isOperator(address mediator, address operator) external view returns (bool) {
        return _operators[mediator][operator].latest() == 1;
    }

    /// @inheritdoc IMediatorRegistry
    function tookWord(address mediator, address operator, uint256 time) external view returns (bool) {
        Checkpoints.Trace256 storage words = _operators[mediator][operator];
        return words.latest() == 1 || words.upperLookupRecent(time) == 1;
    }

    /// @inheritdoc IMediatorRegistry
    function appointmentStake(address mediator, uint256 time) external view returns (uint256) {
        Checkpoints.Trace256 storage stakes = _appointmentStakes[mediator];
        return Math.max(stakes.latest(), stakes.upperLookupRecent(time));
    }

    /// @inheritdoc IMediatorRegistry
    function owedTo(address account) external view returns (uint256) {
        return _owed[account];
    }

    /// @dev Takes from what is bonded first, then from what is on its way out.
    function _take(address mediator, uint256 amount) private returns (uint256 taken) {
        Bond storage stake = _bonds[mediator];
        uint256 active = stake.active;
        uint256 unbonding = stake.unbonding;
        taken = amount < active + unbonding ? amount : active + unbonding;
        uint256 fromActive = taken < active ? taken : active;
        stake.active = active - fromActive;
        stake.unbonding = unbonding - (taken - fromActive);
        emit Slashed(mediator, taken);
    }

    function _checkVote(bytes32 termsHash, uint32 round, ITribunalEscrow.Vote calldata vote) private view {
        bytes32 digest =
            ITribunalEscrow(escrow).hashVerdict(termsHash, round, vote.verdict, vote.instructionCount, vote.digest);
        if (!Signatures.isBy(vote.mediator, digest, vote.signature)) revert BadSignature(vote.mediator);
    }
}

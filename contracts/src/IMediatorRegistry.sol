// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ITribunalEscrow} from "./ITribunalEscrow.sol";

/// @title Mediators' bonds
/// @notice A mediator's stake in one ERC-20 token: slashed for silence by the escrow, and wholly for two different
/// verdicts in one round by anyone who shows them.
/// @dev What is `active` when a case opens cannot leave before the case's last round is over: the escrow refuses terms
/// that slash for silence and may last longer than `unbondDelay`. Nor does taking back an operator or a limit reach open
/// cases.
interface IMediatorRegistry {
    /// @notice A mediator's stake. All of it can be slashed until it has been paid out.
    struct Bond {
        uint256 active;
        uint256 unbonding;
        /// Unix seconds from which `unbonding` can be paid out.
        uint64 unbondAt;
        /// What a mediator puts at stake for silence in a case that appoints it without the operator's word.
        uint256 appointmentSlashMax;
        bool tombstoned;
    }

    error NotEscrow(address caller);
    error NothingToMove();
    error BondTooSmall(uint256 needed, uint256 available);
    error StillUnbonding(uint64 unbondAt, uint256 timestamp);
    error Tombstoned(address mediator);
    error NoEquivocation();
    error BadSignature(address signer);
    error NoTreasury();
    error UnbondDelayTooLong(uint64 delay, uint64 longest);

    event Bonded(address indexed mediator, uint256 amount);
    event UnbondStarted(address indexed mediator, uint256 amount, uint64 unbondAt);
    event Unbonded(address indexed mediator, uint256 amount);
    event OperatorSet(address indexed mediator, address indexed operator, bool allowed);
    event AppointmentSlashMaxSet(address indexed mediator, uint256 amount);
    event Slashed(address indexed mediator, uint256 amount);
    event EquivocationProven(
        bytes32 indexed termsHash, address indexed mediator, address indexed finder, uint32 round, uint256 slashed
    );
    event Collected(address indexed account, uint256 amount);

    /// @notice Takes `amount` of the bond token from the caller as its bond, but while the escrow is paused.
    function bond(uint256 amount) external;

    /// @notice Starts to take out `amount`; anything already on its way waits anew.
    function startUnbond(uint256 amount) external;

    /// @notice Pays out what has waited long enough.
    function finishUnbond() external;

    /// @notice Whether the caller takes `operator`'s word on its silence. A refusal counts for cases that open later.
    function setOperator(address operator, bool allowed) external;

    /// @notice How much the caller stakes on answering when a case appoints it. Zero, the default: nothing. Anyone can
    /// name anyone in terms, so only a mediator that watches the chain should set it. Less counts for cases that open
    /// later.
    function setAppointmentSlashMax(uint256 amount) external;

    /// @notice Takes up to `amount` of a bond to the treasury. Only for the escrow.
    /// @return slashed What was there to take.
    function slash(address mediator, uint256 amount) external returns (uint256 slashed);

    /// @notice Takes the whole bond of a mediator that signed two different verdicts in one round: a tenth to the
    /// caller, rounded down, the rest to the treasury. It can never bond again. However old the verdicts are; what is
    /// there now is taken, so a bond that has left is safe, and one that came later is not.
    function slashEquivocation(
        bytes32 termsHash,
        ITribunalEscrow.Vote calldata a,
        ITribunalEscrow.Vote calldata b,
        uint32 round
    ) external;

    /// @notice Pays the caller what slashes left to it.
    function collect() external;

    /// @notice A mediator's stake.
    function bondOf(address mediator) external view returns (Bond memory);

    /// @notice Whether a mediator was shown to have equivocated.
    function isTombstoned(address mediator) external view returns (bool);

    /// @notice Whether `mediator` takes `operator`'s word on its silence.
    function isOperator(address mediator, address operator) external view returns (bool);

    /// @notice Whether `mediator` takes `operator`'s word, or took it at this unix time.
    function tookWord(address mediator, address operator, uint256 time) external view returns (bool);

    /// @notice What `mediator` stakes on answering when it is appointed, or staked at this unix time, if that is more.
    function appointmentStake(address mediator, uint256 time) external view returns (uint256);

    /// @notice What slashes left to an account and it has not collected.
    function owedTo(address account) external view returns (uint256);

    /// @notice The escrow that may slash.
    function escrow() external view returns (address);

    /// @notice Seconds between starting to unbond and being paid.
    function unbondDelay() external view returns (uint64);
}

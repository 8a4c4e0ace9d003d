// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IPanelVotes} from "./IPanelVotes.sol";

/// @title A panel in place of one drawn mediator, for Lilypad v2 and CoopHive v1
/// @notice The owner of the market's controller names this contract as its mediation. When a client has a result
/// checked, the controller tells this contract the deal, and the deal's own mediators become the panel: those whom both
/// parties trust. More than half of them have to sign, off chain, and one transaction brings the votes and tells the
/// controller to accept or to reject.
///
/// Inconclusive moves nothing: it is recorded and may give way to a definite verdict, else the market's own timeout
/// refunds everybody. Nobody is slashed because a mediator could not run the job.
///
/// Who is paid: the market gives its mediation fee to `tx.origin`, which a contract cannot change. So that a passer-by
/// cannot take the fee by bringing the mediators' votes, a definite decision has to come in a transaction that one of
/// its voters sends; unless all its voters are contracts, which can send none, then anyone's. Mediators share the fee
/// among themselves or take turns. A mediator's key that has code behind it counts as a contract and is asked by
/// ERC-1271.
///
/// The panel is the deal's first 31 mediators without the parties, the zero address and repetitions, ascending. A
/// request never fails for want of a panel, or a client could not have a result checked; nobody can decide it then.
/// The contract has no owner, holds no money, and cannot be pointed at another controller.
interface IPanelHandler is IPanelVotes {
    /// @param panel As `decide` wants it.
    event PanelRequested(bytes32 indexed key, bytes32 indexed dealIdHash, string dealId, address[] panel, uint8 quorum);

    /// @param dealIdHash keccak256 of the deal's id.
    /// @param voters Bit `i` says that the panel's mediator `i` signed.
    event PanelDecided(
        bytes32 indexed key,
        bytes32 indexed dealIdHash,
        uint8 indexed verdict,
        uint8 grade,
        bytes32 digest,
        uint32 voters
    );

    /// @notice In the market's own shape, for who listens to that: the mediator is this contract.
    event MediationRequested(string dealId, address mediator);

    error OnlyController(address sender);
    /// @notice The controller asked for this deal already.
    error AlreadyRequested(bytes32 key);
    /// @notice Never asked for, or not before this panel.
    error UnknownRequest(bytes32 key);
    /// @notice The fee would go to somebody who did not vote.
    error OnlyVoters(address origin);

    /// @notice Records a verdict and, if it is definite, tells the controller. Fails if the deal is over there.
    /// @param panel The deal's panel, as `PanelRequested` told.
    /// @param verdict 1 valid: accepted; 2 invalid: rejected; 3 inconclusive: recorded only.
    /// @param grade 0 to 100; recorded only.
    /// @param digest What the mediators base it on, 32 bytes.
    /// @param votes In ascending order of mediators, at least the quorum; every one has to be right.
    function decide(
        string calldata dealId,
        address[] calldata panel,
        uint8 verdict,
        uint8 grade,
        bytes32 digest,
        Vote[] calldata votes
    ) external;

    /// @notice keccak256(abi.encode(chain id, this contract, controller, deal's id, keccak256(abi.encode(panel)))): what
    /// a request is kept under, and what the mediators sign.
    function keyOf(string calldata dealId, address[] calldata panel) external view returns (bytes32);

    /// @notice The panel that a deal's mediators give: ascending, at most 31.
    function panelOf(address[] calldata mediators, address jobCreator, address resourceProvider)
        external
        pure
        returns (address[] memory);

    /// @notice The request and its decision, if any.
    /// @return requestedAt Seconds; 0 never.
    /// @return quorum Votes that are needed.
    /// @return verdict 0 not yet, 1 valid, 2 invalid, 3 inconclusive.
    /// @return grade 0 to 100.
    /// @return digest What the mediators based it on.
    /// @return decidedAt Seconds; 0 not yet.
    function verdictOf(string calldata dealId, address[] calldata panel)
        external
        view
        returns (uint256 requestedAt, uint8 quorum, uint8 verdict, uint8 grade, bytes32 digest, uint256 decidedAt);
}

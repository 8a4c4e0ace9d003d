// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IPanelVotes} from "./IPanelVotes.sol";

/// @title An arbiter of Alkahest escrows that follows the verdict of a panel
/// @notice An escrow names this contract as its arbiter and a `DemandData` as its demand. Once a quorum of the demand's
/// mediators has signed that a fulfilment is valid (and good enough), anyone brings the votes by `decide`, and from
/// then on the escrow pays that fulfilment. Unlike an oracle's yes or no, *no* differs from *not yet*, and a definite
/// decision never changes.
///
/// One bytecode for every generation of Alkahest: the question is asked as `check` since 1.0, as `checkObligation`
/// before and as `checkStatement` at first. The contract has no owner, holds no money and asks nobody; it does not
/// even know the attestation service.
///
/// The answer is yes if and only if the decision for exactly this fulfilment and exactly these bytes of demand is valid
/// with a grade of at least the demand's `minGrade`, and the fulfilment is neither revoked nor expired. The last is
/// what default escrows of Alkahest 1.0 check too; escrows before 1.0 and unconditional ones do not, so it is asked
/// here as well. NOT asked here, because the escrow does: that the escrow exists, is not used up and has not expired.
/// NOT asked here either: that the fulfilment refers to the escrow. Default escrows check that; whoever uses an
/// unconditional escrow joins an arbiter that does (by Alkahest's AllArbiter) or says which escrow it is in `data`, or
/// else one fulfilment is paid by every escrow with these bytes of demand.
///
/// A demand that is no `DemandData`, or an impossible one, is answered with no; it can never be decided. `check` does
/// not revert unless its own arguments are no ABI encoding.
interface ITribunalArbiter is IPanelVotes {
    /// @notice The demand is `abi.encode` of this one struct.
    struct DemandData {
        /// Ascending, 1 to 31 of them. Votes of others do not count.
        address[] mediators;
        /// How many have to agree: more than half, so that two contrary decisions cannot both have a quorum of mediators
        /// who sign only one.
        uint8 quorum;
        /// The least grade that is paid for, 0 to 100; 0 any valid verdict.
        uint8 minGrade;
        /// What the mediators have to check; nothing to this contract.
        bytes data;
    }

    /// @notice Somebody asks for a decision. A hint to look: anyone can say it of anything, so read the demand from the
    /// escrow that the fulfilment refers to.
    event ArbitrationRequested(
        bytes32 indexed key, bytes32 indexed fulfillmentUid, address indexed requester, bytes demand
    );

    /// @param voters Bit `i` says that the demand's mediator `i` signed.
    event ArbitrationDecided(
        bytes32 indexed key,
        bytes32 indexed fulfillmentUid,
        uint8 indexed verdict,
        uint8 grade,
        bytes32 digest,
        uint32 voters
    );

    /// @notice Mediators not ascending or not 1 to 31, a quorum of not more than half of them or of more than all, or a
    /// least grade above 100.
    error WrongDemand();
    /// @notice Nothing definite to tell.
    error NotDefinite(bytes32 key);

    /// @notice Records what a quorum of the demand's mediators has signed. Anyone can bring it, at any time.
    /// @param demand The bytes of the escrow's demand for this arbiter (inside an AllArbiter: this arbiter's element).
    /// @param verdict 1 valid, 2 invalid: final; 3 inconclusive: until a definite one comes.
    /// @param grade 0 to 100, how good; 100 from mediators that do not grade.
    /// @param digest What the mediators base it on, 32 bytes.
    /// @param votes In ascending order of mediators, at least the quorum; every one has to be right.
    function decide(
        bytes32 fulfillmentUid,
        bytes calldata demand,
        uint8 verdict,
        uint8 grade,
        bytes32 digest,
        Vote[] calldata votes
    ) external;

    /// @notice Tells mediators that there is something to decide; changes nothing.
    function requestArbitration(bytes32 fulfillmentUid, bytes calldata demand) external;

    /// @notice The decision, if any.
    /// @return verdict 0 not yet, 1 valid, 2 invalid, 3 inconclusive.
    /// @return grade 0 to 100.
    /// @return digest What the mediators based it on.
    /// @return decidedAt Seconds; 0 not yet.
    function verdictOf(bytes32 fulfillmentUid, bytes calldata demand)
        external
        view
        returns (uint8 verdict, uint8 grade, bytes32 digest, uint256 decidedAt);

    /// @notice keccak256(abi.encode(chain id, this contract, fulfilment, keccak256(demand))): what a decision is kept
    /// under, and what the mediators sign.
    function keyOf(bytes32 fulfillmentUid, bytes calldata demand) external view returns (bytes32);

    /// @notice Reads a demand; reverts if it is none.
    function decodeDemandData(bytes calldata demand) external pure returns (DemandData memory);
}

/// @title The part of ERC-8004 (Trustless Agents, draft of January 2026) that the arbiter speaks
/// @notice Of the Validation Registry: the event `ValidationResponse`, emitted with every definite decision, and the
/// view `getValidationStatus`, both in the shape of the current reference contract (string tag, response hash). The
/// request hash is the decision's key, the validator is the arbiter, the response is the grade of a valid verdict and 0
/// for an invalid one, the response hash is the digest, the tag is "tribunal", the response URI is empty. The agent's
/// id is always 0: there is no identity registry here, so read them by this contract's address and never by agent.
/// An inconclusive decision responds nothing, because 0 would read as failed. Consumers of the shape before January
/// 2026 (five values, as Alkahest's ERC8004Arbiter decodes) read address, agent and response at the same places.
///
/// Not spoken: `validationRequest`, `getSummary`, lists by agent or validator, the identity and reputation registries.
/// `respond` carries a decision into a real registry instead, where an agent's owner has asked this contract as the
/// validator under the key as request hash. A consumer that takes a fulfilment's UID for the request hash (Alkahest's
/// ERC8004Arbiter) cannot be served by either: anyone can have a panel of its own decide on any fulfilment, so only the
/// key, which binds the panel, says anything.
interface IValidationResponses {
    event ValidationResponse(
        address indexed validatorAddress,
        uint256 indexed agentId,
        bytes32 indexed requestHash,
        uint8 response,
        string responseURI,
        bytes32 responseHash,
        string tag
    );

    /// @notice The definite decision of that key; reverts if there is none.
    function getValidationStatus(bytes32 requestHash)
        external
        view
        returns (
            address validatorAddress,
            uint256 agentId,
            uint8 response,
            bytes32 responseHash,
            string memory tag,
            uint256 lastUpdate
        );

    /// @notice Gives the definite decision of that key to a registry that expects it from this contract.
    function respond(IValidationRegistry registry, bytes32 requestHash) external;
}

/// @notice What a validator calls at an ERC-8004 Validation Registry.
interface IValidationRegistry {
    function validationResponse(
        bytes32 requestHash,
        uint8 response,
        string calldata responseURI,
        bytes32 responseHash,
        string calldata tag
    ) external;
}

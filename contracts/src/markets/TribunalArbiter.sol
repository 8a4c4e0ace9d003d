// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IArbiter, IArbiterOld, IArbiterOldest} from "./alkahest/Arbiters.sol";
import {Attestation} from "./alkahest/Eas.sol";
import {ITribunalArbiter, IValidationRegistry, IValidationResponses} from "./ITribunalArbiter.sol";
import {PanelVotes} from "./PanelVotes.sol";

/// @title An arbiter that follows the verdict of a panel, see ITribunalArbiter
contract TribunalArbiter is
    ITribunalArbiter,
    IValidationResponses,
    IArbiter,
    IArbiterOld,
    IArbiterOldest,
    IERC165,
    PanelVotes
{
    struct Decision {
        uint8 verdict;
        uint8 grade;
        /// From the demand, so that nobody has to decode it again to answer an escrow.
        uint8 minGrade;
        uint48 decidedAt;
        bytes32 digest;
    }

    string private constant TAG = "tribunal";

    mapping(bytes32 key => Decision) private _decisions;

    /// @inheritdoc ITribunalArbiter
    function decide(
        bytes32 fulfillmentUid,
        bytes calldata demand,
        uint8 verdict,
        uint8 grade,
        bytes32 digest,
        Vote[] calldata votes
    ) external {
        bytes32 key = keyOf(fulfillmentUid, demand);
        DemandData memory wanted = decodeDemandData(demand);
        _requirePossible(wanted);
        _requireOpen(key, _decisions[key].verdict, verdict);
        uint32 voters = _checkVotes(wanted.mediators, wanted.quorum, key, verdict, grade, digest, votes);
        _decisions[key] = Decision(verdict, grade, wanted.minGrade, uint48(block.timestamp), digest);
        emit ArbitrationDecided(key, fulfillmentUid, verdict, grade, digest, voters);
        if (verdict != INCONCLUSIVE) {
            emit ValidationResponse(address(this), 0, key, _response(verdict, grade), "", digest, TAG);
        }
    }

    /// @inheritdoc ITribunalArbiter
    function requestArbitration(bytes32 fulfillmentUid, bytes calldata demand) external {
        emit ArbitrationRequested(keyOf(fulfillmentUid, demand), fulfillmentUid, msg.sender, demand);
    }

    // Questions of escrows

    /// @inheritdoc IArbiter
    function check(Attestation calldata fulfillment, bytes calldata demand, bytes32) external view returns (bool) {
        return _approved(fulfillment, demand);
    }

    /// @inheritdoc IArbiterOld
    function checkObligation(Attestation calldata fulfillment, bytes calldata demand, bytes32)
        external
        view
        returns (bool)
    {
        return _approved(fulfillment, demand);
    }

    /// @inheritdoc IArbiterOldest
    function checkStatement(Attestation calldata fulfillment, bytes calldata demand, bytes32)
        external
        view
        returns (bool)
    {
        return _approved(fulfillment, demand);
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IERC165).interfaceId || interfaceId == type(IArbiter).interfaceId
            || interfaceId == type(IArbiterOld).interfaceId || interfaceId == type(IArbiterOldest).interfaceId;
    }

    // What is known

    /// @inheritdoc ITribunalArbiter
    function verdictOf(bytes32 fulfillmentUid, bytes calldata demand)
        external
        view
        returns (uint8 verdict, uint8 grade, bytes32 digest, uint256 decidedAt)
    {
        Decision storage it = _decisions[keyOf(fulfillmentUid, demand)];
        return (it.verdict, it.grade, it.digest, it.decidedAt);
    }

    /// @inheritdoc ITribunalArbiter
    function keyOf(bytes32 fulfillmentUid, bytes calldata demand) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), fulfillmentUid, keccak256(demand)));
    }

    /// @inheritdoc ITribunalArbiter
    function decodeDemandData(bytes calldata demand) public pure returns (DemandData memory) {
        return abi.decode(demand, (DemandData));
    }

    // ERC-8004

    /// @inheritdoc IValidationResponses
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
        )
    {
        Decision storage it = _definite(requestHash);
        return (address(this), 0, _response(it.verdict, it.grade), it.digest, TAG, it.decidedAt);
    }

    /// @inheritdoc IValidationResponses
    /// @dev Calls whatever it is told to, but only to say what is recorded, and with nothing at stake.
    function respond(IValidationRegistry registry, bytes32 requestHash) external {
        Decision storage it = _definite(requestHash);
        registry.validationResponse(requestHash, _response(it.verdict, it.grade), "", it.digest, TAG);
    }

    function _approved(Attestation calldata fulfillment, bytes calldata demand) private view returns (bool) {
        if (fulfillment.revocationTime != 0) return false;
        // At the second itself it has expired, as escrows count.
        if (fulfillment.expirationTime != 0 && fulfillment.expirationTime <= block.timestamp) return false;
        // What was never decided, and rubbish never was, has verdict 0. The demand need not be decoded again.
        Decision storage it = _decisions[keyOf(fulfillment.uid, demand)];
        return it.verdict == VALID && it.grade >= it.minGrade;
    }

    function _definite(bytes32 key) private view returns (Decision storage it) {
        it = _decisions[key];
        if (it.verdict != VALID && it.verdict != INVALID) revert NotDefinite(key);
    }

    function _response(uint8 verdict, uint8 grade) private pure returns (uint8) {
        return verdict == VALID ? grade : 0;
    }

    function _requirePossible(DemandData memory wanted) private pure {
        uint256 count = wanted.mediators.length;
        if (count > MEDIATORS_MAX || wanted.quorum > count || uint256(wanted.quorum) * 2 <= count) {
            revert WrongDemand();
        }
        if (wanted.minGrade > GRADE_MAX) revert WrongDemand();
        address last = address(0);
        for (uint256 i = 0; i < count; ++i) {
            if (wanted.mediators[i] <= last) revert WrongDemand();
            last = wanted.mediators[i];
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice A wallet whose owner signs for it (ERC-1271) and acts through it.
contract Wallet {
    error NotOwner();

    address public owner;

    constructor(address owner_) {
        owner = owner_;
    }

    receive() external payable {}

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecoverCalldata(digest, signature);
        return signer == owner ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }

    function execute(address to, bytes calldata data) external {
        if (msg.sender != owner) revert NotOwner();
        (bool done, bytes memory result) = to.call(data);
        if (!done) {
            assembly ("memory-safe") {
                revert(add(result, 32), mload(result))
            }
        }
    }

    function setOwner(address next) external {
        if (msg.sender != owner) revert NotOwner();
        owner = next;
    }
}

/// @notice A wallet whose answers are no answers.
contract BadWallet {
    enum Answer {
        No,
        True,
        Rubbish,
        Short,
        Nothing,
        Reverts,
        Never,
        Bomb
    }

    Answer private immutable _answer;

    constructor(Answer answer) {
        _answer = answer;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        Answer answer = _answer;
        if (answer == Answer.Reverts) revert("no");
        while (answer == Answer.Never) {}
        assembly ("memory-safe") {
            // The magic value where it does not belong, or with more bits than it has.
            mstore(0, shl(224, 0x1626ba7e))
            switch answer
            case 1 { mstore(0, 1) }
            case 2 { mstore(0, or(shl(224, 0x1626ba7e), 1)) }
            case 3 { return(0, 4) }
            case 4 { return(0, 0) }
            case 7 {
                mstore(0, 1)
                return(0, 500000)
            }
            default { mstore(0, not(0)) }
            return(0, 32)
        }
    }
}

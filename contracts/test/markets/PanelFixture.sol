// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {MarketCheats} from "./MarketCheats.sol";
import {IPanelVotes} from "../../src/markets/IPanelVotes.sol";

/// @notice A wallet whose word is the signature of its owner's key, or anything at all if it has gone mad.
contract OwnedWallet is IERC1271 {
    address private immutable _owner;
    bool public mad;

    constructor(address owner) {
        _owner = owner;
    }

    function goMad() external {
        mad = true;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        require(!mad, "mad");
        (bytes32 r, bytes32 s, uint8 v) =
            (bytes32(signature[0:32]), bytes32(signature[32:64]), uint8(bytes1(signature[64:65])));
        return ecrecover(hash, v, r, s) == _owner ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @notice Mediators by their keys, ascending by address, and their votes.
abstract contract PanelFixture is MarketCheats {
    uint8 internal constant VALID = 1;
    uint8 internal constant INVALID = 2;
    uint8 internal constant INCONCLUSIVE = 3;
    bytes32 internal constant DIGEST = keccak256("evidence");

    uint256[] internal keys;

    function _makeKeys(uint256 count) internal {
        delete keys;
        for (uint256 i = 0; i < count; ++i) {
            keys.push(0xa1 + i);
        }
        for (uint256 i = 1; i < count; ++i) {
            for (uint256 j = i; j > 0 && vm.addr(keys[j]) < vm.addr(keys[j - 1]); --j) {
                (keys[j], keys[j - 1]) = (keys[j - 1], keys[j]);
            }
        }
    }

    function _addresses() internal view returns (address[] memory list) {
        list = new address[](keys.length);
        for (uint256 i = 0; i < keys.length; ++i) {
            list[i] = vm.addr(keys[i]);
        }
    }

    function _vote(uint256 key, bytes32 signed) internal pure returns (IPanelVotes.Vote memory) {
        return IPanelVotes.Vote(vm.addr(key), _sign(key, signed));
    }

    /// Votes of the first mediators.
    function _votesOf(uint256 count, bytes32 signed) internal view returns (IPanelVotes.Vote[] memory votes) {
        votes = new IPanelVotes.Vote[](count);
        for (uint256 i = 0; i < count; ++i) {
            votes[i] = _vote(keys[i], signed);
        }
    }
}
